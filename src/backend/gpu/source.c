/* Puts the text of a module together from the headers that the build has stored in the program. */
#include "backend/gpu/source.h"

#include <stdio.h>


static const struct text {
    const char *name;
    const char *bytes;
} texts[] = {
#define TEXT(name, ...) {name, (const char[]){__VA_ARGS__}},
#include "gpu_text.inc"
#undef TEXT
};

static const struct module {
    const char *name, *defines, *header;
} modules[] = {
#define MODULE(name, defines, header) {#name, defines, header},
#include "gpu_modules.inc"
#undef MODULE
};

/* Appends a header, and in place of each #include "path/name" that header's text. A header with a guard may come again: the guard is
 * part of the text. */
static kg_status append(struct buf *out, const char *name, int depth)
{
    const struct text *t = texts;
    while (t < texts + COUNT_OF(texts) && strcmp(t->name, name)) t++;
    if (t == texts + COUNT_OF(texts) || depth > 4) return status_set(KG_ERR_UNSUPPORTED, "no text of kernels called %s", name);
    for (const char *line = t->bytes, *next; *line; line = next) {
        const char *end = strchr(line, '\n');
        next = end ? end + 1 : line + strlen(line);
        static const char include[] = "#include \"";
        if (strncmp(line, include, sizeof include - 1)) {
            KG_TRY(buf_append(out, line, (size_t)(next - line)));
            continue;
        }
        const char *first = line + sizeof include - 1, *last = strchr(first, '"');
        for (const char *c = first; c < last; c++)
            if (*c == '/') first = c + 1;
        char header[64];
        snprintf(header, sizeof header, "%.*s", (int)(last - first), first);
        KG_TRY(append(out, header, depth + 1));
    }
    return KG_OK;
}

kg_status gpu_source(struct buf *out, const char *compat, const char *module)
{
    const struct module *m = modules;
    while (m < modules + COUNT_OF(modules) && strcmp(m->name, module)) m++;
    if (m == modules + COUNT_OF(modules)) return status_set(KG_ERR_UNSUPPORTED, "no module of kernels called %s", module);
    KG_TRY(append(out, compat, 0));
    KG_TRY(buf_append(out, m->defines, strlen(m->defines)));
    KG_TRY(append(out, m->header, 0));
    return buf_append(out, "", 1);
}
