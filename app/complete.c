/* Finds what a word may become. Owns the reading of folders; which argument a command takes is in slash.def. */
#include "complete.h"

#include "models.h"
#include "slash.h"

#include "kagari.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct finding {
    const char *word; /* what is there of it */
    char **v;
    size_t n, cap;
    bool out_of_memory;
};

static void found(struct finding *f, const char *text, size_t len, const char *after)
{
    if (strncmp(text, f->word, strlen(f->word)) != 0 || len < strlen(f->word)) return;
    if (f->n == f->cap) {
        size_t cap = 2 * f->cap + 16;
        char **more = realloc(f->v, cap * sizeof *more);
        if (!more) {
            f->out_of_memory = true;
            return;
        }
        f->v = more;
        f->cap = cap;
    }
    if (asprintf(&f->v[f->n], "%.*s%s", (int)len, text, after) < 0) f->out_of_memory = true;
    else f->n++;
}

static void found_model(void *ctx, const char *name, size_t len, const char *path, uint64_t bytes)
{
    (void)path, (void)bytes;
    found(ctx, name, len, " ");
}

/* Files that go on with the path in word; those with this end, and folders. */
static void find_files(struct finding *f, const char *end)
{
    const char *word = f->word, *slash = strrchr(word, '/'), *home = getenv("HOME");
    size_t n_folder = slash ? (size_t)(slash - word) + 1 : 0;
    char folder[4096], path[8192], whole[8192];
    if (word[0] == '~' && word[1] == '/' && home) snprintf(folder, sizeof folder, "%s/%.*s", home, (int)n_folder - 2, word + 2);
    else snprintf(folder, sizeof folder, "%.*s", (int)n_folder, word);
    DIR *d = opendir(n_folder ? folder : ".");
    struct dirent *e;
    while (d && (e = readdir(d)) != NULL) {
        struct stat st;
        size_t n = strlen(e->d_name), n_end = strlen(end);
        if (e->d_name[0] == '.' && word[n_folder] != '.') continue;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        snprintf(path, sizeof path, "%s%s", folder, e->d_name);
        bool is_folder = stat(path, &st) == 0 && S_ISDIR(st.st_mode);
        if (!is_folder && (n < n_end || strcmp(e->d_name + n - n_end, end) != 0)) continue;
        snprintf(whole, sizeof whole, "%.*s%s", (int)n_folder, word, e->d_name);
        found(f, whole, strlen(whole), is_folder ? "/" : " ");
    }
    if (d) closedir(d);
}

static void find_argument(struct finding *f, const struct settings *s, enum slash_argument kind, const char **word)
{
    const char *name;
    if (kind == SLASH_SAVES) {
        size_t n = strcspn(*word, " ");
        if (!(*word)[n]) {
            found(f, "save", 4, " ");
            return;
        }
        if (n != 4 || strncmp(*word, "save", 4) != 0) return;
        *word += n + strspn(*word + n, " ");
        f->word = *word;
    }
    if (kind == SLASH_FILE || kind == SLASH_SAVES) find_files(f, "");
    if (kind == SLASH_MODEL) models_list(s, -1, found_model, f), find_files(f, ".gguf");
    for (size_t i = 0; kind == SLASH_BACKEND && (name = kg_backend_name(i, NULL)) != NULL; i++) found(f, name, strlen(name), " ");
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* Sorts, drops what is there twice, finds what is common, shortens paths to what is shown. */
static bool settle(struct finding *f, struct completions *out)
{
    size_t n = 0, common;
    if (f->n) qsort(f->v, f->n, sizeof *f->v, by_name);
    for (size_t i = 0; i < f->n; i++) {
        if (n && strcmp(f->v[n - 1], f->v[i]) == 0) free(f->v[i]);
        else f->v[n++] = f->v[i];
    }
    out->v = f->v;
    out->n = n;
    common = n ? strlen(f->v[0]) : 0;
    for (size_t i = 1; i < n; i++) {
        size_t k = 0;
        while (k < common && f->v[i][k] == f->v[0][k]) k++;
        common = k;
    }
    while (common && n > 1 && ((unsigned char)f->v[0][common] & 0xc0) == 0x80) common--; /* whole characters */
    out->common = strndup(n ? f->v[0] : "", common);
    for (size_t i = 0; n > 1 && i < n; i++) {
        char *slash = strrchr(f->word, '/');
        size_t cut = slash && slash != f->word ? (size_t)(slash - f->word) + 1 : 0, len = strlen(f->v[i]);
        memmove(f->v[i], f->v[i] + cut, len - cut + 1);
        if (len - cut && f->v[i][len - cut - 1] == ' ') f->v[i][len - cut - 1] = 0;
    }
    return out->common != NULL && n > 0;
}

bool complete(const struct settings *s, const char *before, struct completions *out)
{
    struct finding f = {0};
    size_t n_rows, n = strcspn(before, " \n");
    const struct slash_row *rows = slash_rows(&n_rows);
    const char *word = before;
    *out = (struct completions){0};
    if (before[0] != '/' || before[1] == '/' || strchr(before, '\n')) return false;
    f.word = word;
    if (!before[n]) {
        for (size_t i = 0; i < n_rows; i++) found(&f, rows[i].name, strlen(rows[i].name), rows[i].arg ? " " : "");
        if (f.n == 0) /* other names only where no proper one fits */
            for (size_t i = 0; i < n_rows; i++)
                for (const char *p = rows[i].aliases; *p; p += strcspn(p, " "), p += strspn(p, " ")) found(&f, p, strcspn(p, " "), rows[i].arg ? " " : "");
    } else {
        const struct slash_row *row = slash_find(before, n);
        word += n + strspn(before + n, " ");
        f.word = word;
        if (row) find_argument(&f, s, row->argument, &word);
    }
    out->start = (size_t)(word - before);
    bool good = settle(&f, out) && !f.out_of_memory;
    if (!good) completions_free(out);
    return good;
}

void completions_free(struct completions *c)
{
    for (size_t i = 0; i < c->n; i++) free(c->v[i]);
    free(c->v);
    free(c->common);
    *c = (struct completions){0};
}
