/* Speed of the tokenizer: bench_tokenizer MODEL.gguf TEXT_FILE [repeats]
 * Prints the load time, then megabytes of text per second for encoding and for decoding, the best of all repeats. */
#include "kagari.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static char *read_file(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    char *text = NULL;
    *n = 0;
    for (size_t cap = 0; f && !feof(f) && !ferror(f);) {
        if (cap - *n < 65536) {
            char *p = realloc(text, cap = 2 * cap + 65536);
            if (!p) break;
            text = p;
        }
        *n += fread(text + *n, 1, cap - *n, f);
    }
    if (f) fclose(f);
    return text;
}

static int fail(const char *what)
{
    fprintf(stderr, "bench_tokenizer: %s: %s\n", what, kg_error_message());
    return 1;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: bench_tokenizer MODEL.gguf TEXT_FILE [repeats]\n");
        return 2;
    }
    size_t n_text, n_ids = 0;
    char *text = read_file(argv[2], &n_text);
    if (!text || n_text == 0) {
        fprintf(stderr, "bench_tokenizer: cannot read %s\n", argv[2]);
        return 1;
    }
    kg_tokenizer *tok;
    double start = seconds();
    if (kg_tokenizer_open(&tok, argv[1]) != KG_OK) return fail(argv[1]);
    printf("load      %8.1f ms, %d tokens\n", (seconds() - start) * 1e3, kg_tokenizer_n_vocab(tok));

    int repeats = argc > 3 ? atoi(argv[3]) : 5;
    int32_t *ids = NULL;
    double encode = 1e30, decode = 1e30;
    for (int i = 0; i < repeats; i++) {
        kg_free(ids);
        start = seconds();
        if (kg_tokenize(tok, text, n_text, 0, &ids, &n_ids) != KG_OK) return fail("encoding");
        double end = seconds();
        encode = end - start < encode ? end - start : encode;
        char *back;
        size_t n_back;
        if (kg_detokenize(tok, ids, n_ids, true, &back, &n_back) != KG_OK) return fail("decoding");
        decode = seconds() - end < decode ? seconds() - end : decode;
        if (n_back != n_text || memcmp(back, text, n_text) != 0) fprintf(stderr, "bench_tokenizer: the text did not come back as it was\n");
        kg_free(back);
    }
    double mb = (double)n_text * 1e-6;
    printf("encode    %8.1f MB/s, %.2f bytes per token, %.0f ns per token\n", mb / encode, (double)n_text / (double)n_ids,
           encode * 1e9 / (double)n_ids);
    printf("decode    %8.1f MB/s\n", mb / decode);
    kg_free(ids);
    kg_tokenizer_close(&tok);
    free(text);
    return 0;
}
