/* The tiny models of tests/golden/arch (tools/mkarch.py): reads a case and writes its folder. Header only; wants SOURCE_DIR and cmocka. */
#ifndef TESTS_ARCH_CASE_H
#define TESTS_ARCH_CASE_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { MOST = 128 };

struct tiny {
    char name[200];
    double middle, spread;
    bool bytes; /* U8: whole numbers, rounded down */
    uint64_t dims[4], n;
    int n_dims;
};

struct cases {
    int32_t ids[MOST], greedy[MOST];
    int n, n_greedy, n_ctx; /* n_ctx: that is asked for, see kg_model_params */
    struct tiny tensors[512];
    int n_tensors;
    /* Of sentence-transformers: files of text and of the weights of linear layers, by their path in the folder. */
    struct {
        char path[64], text[1600];
    } files[8];
    struct tiny parts[8];
    char part_paths[8][64];
    int n_files, n_parts;
    double *logits; /* [n][n_vocab] */
    size_t n_logits;
};

static int read_numbers(char *text, int32_t *out)
{
    int n = 0;
    for (char *end; n < MOST; text = end) {
        long v = strtol(text, &end, 10);
        if (end == text) break;
        out[n++] = (int32_t)v;
    }
    return n;
}

static FILE *open_in(const char *name, const char *file)
{
    char where[600];
    snprintf(where, sizeof where, "%s/tests/golden/arch/%s/%s", SOURCE_DIR, name, file);
    FILE *f = fopen(where, "rb");
    if (!f) fail_msg("%s: cannot open", where);
    return f;
}

/* "NAME middle exponent dims ..." */
static void read_tiny(const char *text, struct tiny *t)
{
    int exponent, at = 0;
    assert_int_equal(sscanf(text, "%199s %lf %d %n", t->name, &t->middle, &exponent, &at), 3);
    t->spread = ldexp(1, exponent);
    t->bytes = strstr(t->name, "_blocks") || strstr(t->name, "_scales");
    int32_t dims[MOST];
    char copy[200];
    snprintf(copy, sizeof copy, "%s", text + at);
    t->n_dims = read_numbers(copy, dims);
    assert_in_range(t->n_dims, 0, 4);
    t->n = 1;
    for (int i = 0; i < t->n_dims; i++) t->n *= t->dims[i] = (uint64_t)dims[i];
}

static void read_case(const char *name, struct cases *c)
{
    char line[4096];
    memset(c, 0, sizeof *c);
    FILE *f = open_in(name, "case.txt");
    while (fgets(line, sizeof line, f)) {
        if (!strncmp(line, "prompt ", 7)) c->n = read_numbers(line + 7, c->ids);
        if (!strncmp(line, "context ", 8)) c->n_ctx = atoi(line + 8);
        if (!strncmp(line, "greedy ", 7)) c->n_greedy = read_numbers(line + 7, c->greedy);
        int at = 0;
        if (!strncmp(line, "file ", 5)) {
            assert_true(c->n_files < (int)COUNT_OF(c->files));
            assert_int_equal(sscanf(line, "file %63s %n", c->files[c->n_files].path, &at), 1);
            snprintf(c->files[c->n_files++].text, sizeof c->files[0].text, "%s", line + at);
        }
        if (!strncmp(line, "part ", 5)) {
            assert_true(c->n_parts < (int)COUNT_OF(c->parts));
            assert_int_equal(sscanf(line, "part %63s %n", c->part_paths[c->n_parts], &at), 1);
            read_tiny(line + at, &c->parts[c->n_parts++]);
        }
        if (strncmp(line, "tensor ", 7) != 0) continue;
        assert_true(c->n_tensors < (int)COUNT_OF(c->tensors));
        read_tiny(line + 7, &c->tensors[c->n_tensors++]);
    }
    fclose(f);
    f = open_in(name, "logits.f64");
    fseek(f, 0, SEEK_END);
    c->n_logits = (size_t)ftell(f) / sizeof(double);
    rewind(f);
    c->logits = malloc(c->n_logits * sizeof(double));
    assert_non_null(c->logits);
    assert_int_equal(fread(c->logits, sizeof(double), c->n_logits, f), c->n_logits);
    fclose(f);
}

/* As weights() of tools/mkarch.py. */
static float weight(uint64_t seed, uint64_t i, const struct tiny *t)
{
    uint64_t x = seed + (i + 1) * 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    x ^= x >> 31;
    return (float)(((double)(x >> 44) * 0x1p-19 - 1) * t->spread + t->middle);
}

/* before: what stands before each name where the numbers come from. */
static void write_list(const char *path, const struct tiny *list, int n_tensors, const char *before)
{
    size_t size = (size_t)n_tensors * 400 + 16, len = 0;
    char *header = malloc(size);
    assert_non_null(header);
    uint64_t offset = 0;
    for (int i = 0; i < n_tensors; i++) {
        const struct tiny *t = &list[i];
        len += (size_t)snprintf(header + len, size - len, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[", i ? "," : "{", t->name, t->bytes ? "U8" : "F32");
        for (int k = 0; k < t->n_dims; k++) len += (size_t)snprintf(header + len, size - len, "%s%llu", k ? "," : "", (unsigned long long)t->dims[k]);
        len += (size_t)snprintf(header + len, size - len, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)offset,
                                (unsigned long long)(offset + (t->bytes ? 1 : 4) * t->n));
        offset += (t->bytes ? 1 : 4) * t->n;
    }
    len += (size_t)snprintf(header + len, size - len, "}");
    while (len % 8) header[len++] = ' ';
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    const uint64_t n = len;
    fwrite(&n, 8, 1, f);
    fwrite(header, 1, len, f);
    for (int i = 0; i < n_tensors; i++) {
        const struct tiny *t = &list[i];
        uint64_t seed = 0xcbf29ce484222325u;
        for (const char *s = before; *s; s++) seed = (seed ^ (uint8_t)*s) * 0x100000001b3u;
        for (const char *s = t->name; *s; s++) seed = (seed ^ (uint8_t)*s) * 0x100000001b3u;
        for (uint64_t k = 0; k < t->n; k++) {
            const float v = weight(seed, k, t);
            if (t->bytes) fputc((int)v, f);
            else fwrite(&v, sizeof v, 1, f);
        }
    }
    fclose(f);
    free(header);
}

static void write_tensors(const char *path, const struct cases *c) { write_list(path, c->tensors, c->n_tensors, ""); }

/* A file of the case, into a folder. */
static void copy_golden(const char *folder, const char *name, const char *file)
{
    char path[400];
    FILE *from = open_in(name, file);
    snprintf(path, sizeof path, "%s/%s", folder, file);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    for (int ch; (ch = fgetc(from)) != EOF;) fputc(ch, f);
    fclose(f);
    fclose(from);
}

/* Into a folder that is there. */
static void write_model(const char *folder, const char *name, const struct cases *c)
{
    char path[400];
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    write_tensors(path, c);
    copy_golden(folder, name, "config.json");
}

#endif
