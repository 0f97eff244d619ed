/* The commands that look at files and at this build without running a model: info, tokenize, backends. */
#include "commands.h"

#include "input.h"
#include "print.h"

#include <stdlib.h>
#include <string.h>

/* ---- info -------------------------------------------------------------------------------------------------- */

static double n_elements(const kg_tensor_info *t)
{
    double n = 1;
    for (int i = 0; i < t->n_dims; i++) n *= (double)t->dims[i];
    return n;
}

/* Sums over the tensors of one type. */
struct type_sum {
    const char *type;
    size_t n_tensors;
    double elements;
    uint64_t n_bytes;
};
enum { MOST_TYPES = 64 };

static size_t sum_types(const kg_file *f, struct type_sum sums[MOST_TYPES])
{
    size_t n = 0;
    kg_tensor_info t;
    for (size_t i = 0; kg_file_tensor(f, i, &t) == KG_OK; i++) {
        size_t k = 0;
        while (k < n && strcmp(sums[k].type, t.type) != 0) k++;
        if (k == MOST_TYPES) continue; /* more than there are types */
        if (k == n) sums[n++] = (struct type_sum){.type = t.type};
        sums[k].n_tensors++;
        sums[k].elements += n_elements(&t);
        sums[k].n_bytes += t.n_bytes;
    }
    return n;
}

static void print_type_sums(const kg_file *f)
{
    struct type_sum sums[MOST_TYPES], all = {.type = "all"};
    size_t n = sum_types(f, sums);
    printf("\ntype      tensors      elements         bytes  bits/element\n");
    for (size_t i = 0; i <= n; i++) {
        const struct type_sum *t = i < n ? &sums[i] : &all;
        printf("%-8s  %7zu  %12.0f  %12llu  %12.2f\n", t->type, t->n_tensors, t->elements, (unsigned long long)t->n_bytes,
               t->elements > 0 ? 8 * (double)t->n_bytes / t->elements : 0);
        all.n_tensors += t->n_tensors;
        all.elements += t->elements;
        all.n_bytes += t->n_bytes;
    }
}

static void print_info(const kg_file *f, const char *path)
{
    printf("file     ");
    print_plain(stdout, path, strlen(path));
    printf("\nformat   %s\nsize     %llu bytes\n\n", kg_file_format(f), (unsigned long long)kg_file_size(f));
    for (size_t i = 0; i < kg_file_n_keys(f); i++) {
        char value[160];
        const char *key = kg_file_key(f, i);
        size_t len = kg_file_value(f, i, 6, value, sizeof value), shown = len < sizeof value ? len : print_whole(value, sizeof value - 1);
        print_plain(stdout, key, strlen(key));
        printf(" (%s) = ", kg_file_key_type(f, i));
        print_plain(stdout, value, shown);
        puts(shown < len ? "..." : "");
    }
    printf("\n%-40s %-8s %-22s %s\n", "tensor", "type", "dimensions", "bytes");
    kg_tensor_info t;
    for (size_t i = 0; kg_file_tensor(f, i, &t) == KG_OK; i++) {
        char dims[128];
        size_t at = 0;
        for (int d = 0; d < t.n_dims; d++) at += (size_t)snprintf(dims + at, sizeof dims - at, "%s%lld", d ? " x " : "", (long long)t.dims[d]);
        size_t len = strlen(t.name);
        print_plain(stdout, t.name, len);
        printf("%*s %-8s %-22s %llu\n", len < 40 ? (int)(40 - len) : 0, "", t.type, dims, (unsigned long long)t.n_bytes);
    }
    print_type_sums(f);
}

static int print_json_value(const kg_file *f, size_t i)
{
    size_t len = kg_file_value(f, i, 0, NULL, 0);
    char *text = malloc(len + 1);
    if (!text) return print_error(EXIT_RUNTIME, "out of memory for the value of %s", kg_file_key(f, i));
    kg_file_value(f, i, 0, text, len + 1);
    fwrite(text, 1, len, stdout);
    free(text);
    return 0;
}

static int print_json_info(const kg_file *f, const char *path)
{
    printf("{\n  \"file\": ");
    print_json(stdout, path, strlen(path));
    printf(",\n  \"format\": \"%s\",\n  \"bytes\": %llu,\n  \"metadata\": {", kg_file_format(f), (unsigned long long)kg_file_size(f));
    for (size_t i = 0; i < kg_file_n_keys(f); i++) {
        const char *key = kg_file_key(f, i);
        printf("%s\n    ", i ? "," : "");
        print_json(stdout, key, strlen(key));
        printf(": {\"type\": \"%s\", \"value\": ", kg_file_key_type(f, i));
        int code = print_json_value(f, i);
        if (code) return code;
        putchar('}');
    }
    printf("\n  },\n  \"tensors\": [");
    kg_tensor_info t;
    for (size_t i = 0; kg_file_tensor(f, i, &t) == KG_OK; i++) {
        printf("%s\n    {\"name\": ", i ? "," : "");
        print_json(stdout, t.name, strlen(t.name));
        printf(", \"type\": \"%s\", \"dimensions\": [", t.type);
        for (int d = 0; d < t.n_dims; d++) printf("%s%lld", d ? ", " : "", (long long)t.dims[d]);
        printf("], \"offset\": %llu, \"bytes\": %llu}", (unsigned long long)t.offset, (unsigned long long)t.n_bytes);
    }
    struct type_sum sums[MOST_TYPES];
    size_t n = sum_types(f, sums);
    printf("\n  ],\n  \"types\": {");
    for (size_t i = 0; i < n; i++)
        printf("%s\n    \"%s\": {\"tensors\": %zu, \"elements\": %.0f, \"bytes\": %llu}", i ? "," : "", sums[i].type, sums[i].n_tensors, sums[i].elements,
               (unsigned long long)sums[i].n_bytes);
    printf("\n  }\n}\n");
    return 0;
}

int command_info(const struct settings *s)
{
    const char *path;
    int code = input_model_path(s, &path);
    if (code) return code;
    kg_file *f = NULL;
    kg_status status = kg_file_open(&f, path);
    if (status) return print_status(status);
    if (s->json) code = print_json_info(f, path);
    else print_info(f, path);
    kg_file_close(&f);
    return code;
}

/* ---- tokenize ---------------------------------------------------------------------------------------------- */

static void print_tokens(const struct settings *s, const kg_tokenizer *tok, const int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const char *bytes = NULL;
        size_t len = kg_token_bytes(tok, ids[i], true, &bytes);
        if (s->ids) {
            printf("%s%d", i ? "," : "", (int)ids[i]);
            continue;
        }
        if (!s->pieces) printf("%7d  ", (int)ids[i]);
        print_quoted(stdout, bytes, len);
        putchar('\n');
    }
    if (s->ids) putchar('\n');
}

int command_tokenize(const struct settings *s)
{
    if (s->ids && s->pieces) return print_error(EXIT_USAGE, "--ids and --pieces are both given: without either, both are printed");
    const char *path;
    int code = input_model_path(s, &path);
    if (code) return code;
    kg_tokenizer *tok = NULL;
    kg_status status = kg_tokenizer_open(&tok, s->tokenizer ? s->tokenizer : path);
    if (status) return print_status(status);
    char *from_stdin = NULL;
    const char *text = s->arg;
    size_t len = text ? strlen(text) : 0, n = 0;
    if (!text) {
        code = input_read_stdin(&from_stdin, &len);
        text = from_stdin;
    }
    int32_t *ids = NULL;
    if (!code) {
        unsigned flags = (s->no_bos ? 0 : KG_TOKENIZE_BOS) | (s->special ? KG_TOKENIZE_SPECIAL : 0);
        status = kg_tokenize(tok, text, len, flags, &ids, &n);
        if (status) code = print_status(status);
        else print_tokens(s, tok, ids, n);
    }
    kg_free(ids);
    free(from_stdin);
    kg_tokenizer_close(&tok);
    return code;
}

/* ---- backends ---------------------------------------------------------------------------------------------- */

int command_backends(const struct settings *s)
{
    (void)s;
    const char *name, *what = "";
    for (size_t i = 0; (name = kg_backend_name(i, &what)); i++) printf("%-12s %s\n", name, what);
    return 0;
}
