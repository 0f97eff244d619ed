/* layers: run */
/* Every folder of tests/golden/arch is a tiny model of some architecture, with what Hugging Face transformers computes with it in float64
 * (tools/mkarch.py). Opened as a Hugging Face folder and as the GGUF that kg_convert makes of it, the reference has the same logits to
 * 1e-10 of the largest one and every tier of the cpu backend and a GPU (the emulator, or the backend KAGARI_TEST_GPU) to 2e-3 (Euclidean, cache
 * in f16), unless that refuses an operation; greedy continuations are the same. Weights come from a formula. */
#include "backend/cpu/cpu.h"
#include "run/run.h"

#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define OK(x) do { if ((x) != KG_OK) fail_msg("%s: %s", name, kg_error_message()); } while (0)

enum { MOST = 128, BLOCKS = 4 };

struct tiny {
    char name[200];
    double middle, spread;
    uint64_t dims[4], n;
    int n_dims;
};

struct cases {
    int32_t ids[MOST], greedy[MOST];
    int n, n_greedy;
    struct tiny tensors[512];
    int n_tensors;
    double *logits; /* [n][n_vocab] */
    size_t n_logits;
};

static char folder[64], path[400];

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

static void read_case(const char *name, struct cases *c)
{
    char line[4096];
    memset(c, 0, sizeof *c);
    FILE *f = open_in(name, "case.txt");
    while (fgets(line, sizeof line, f)) {
        if (!strncmp(line, "prompt ", 7)) c->n = read_numbers(line + 7, c->ids);
        if (!strncmp(line, "greedy ", 7)) c->n_greedy = read_numbers(line + 7, c->greedy);
        if (strncmp(line, "tensor ", 7) != 0) continue;
        assert_true(c->n_tensors < (int)COUNT_OF(c->tensors));
        struct tiny *t = &c->tensors[c->n_tensors++];
        int exponent, at = 0;
        assert_int_equal(sscanf(line, "tensor %199s %lf %d %n", t->name, &t->middle, &exponent, &at), 3);
        t->spread = ldexp(1, exponent);
        int32_t dims[MOST];
        t->n_dims = read_numbers(line + at, dims);
        assert_in_range(t->n_dims, 1, 4);
        t->n = 1;
        for (int i = 0; i < t->n_dims; i++) t->n *= t->dims[i] = (uint64_t)dims[i];
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

static void write_model(const char *name, const struct cases *c)
{
    size_t size = (size_t)c->n_tensors * 400 + 16, len = 0;
    char *header = malloc(size);
    assert_non_null(header);
    uint64_t offset = 0;
    for (int i = 0; i < c->n_tensors; i++) {
        const struct tiny *t = &c->tensors[i];
        len += (size_t)snprintf(header + len, size - len, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[", i ? "," : "{", t->name);
        for (int k = 0; k < t->n_dims; k++) len += (size_t)snprintf(header + len, size - len, "%s%llu", k ? "," : "", (unsigned long long)t->dims[k]);
        len += (size_t)snprintf(header + len, size - len, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)offset, (unsigned long long)(offset + 4 * t->n));
        offset += 4 * t->n;
    }
    len += (size_t)snprintf(header + len, size - len, "}");
    while (len % 8) header[len++] = ' ';
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    const uint64_t n = len;
    fwrite(&n, 8, 1, f);
    fwrite(header, 1, len, f);
    for (int i = 0; i < c->n_tensors; i++) {
        const struct tiny *t = &c->tensors[i];
        uint64_t seed = 0xcbf29ce484222325u;
        for (const char *s = t->name; *s; s++) seed = (seed ^ (uint8_t)*s) * 0x100000001b3u;
        for (uint64_t k = 0; k < t->n; k++) {
            const float v = weight(seed, k, t);
            fwrite(&v, sizeof v, 1, f);
        }
    }
    fclose(f);
    free(header);
    FILE *from = open_in(name, "config.json");
    snprintf(path, sizeof path, "%s/config.json", folder);
    f = fopen(path, "wb");
    assert_non_null(f);
    for (int ch; (ch = fgetc(from)) != EOF;) fputc(ch, f);
    fclose(f);
    fclose(from);
}

static int best_of(const float *x, int n)
{
    int best = 0;
    for (int i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

/* The prompt, `step` tokens at a time, then greedy ids one by one; what differs from the golden ones fails. */
static void run_case(const char *name, const struct backend *b, const struct model *m, const struct cases *c, int step, double most)
{
    const struct backend_params params = {.n_threads = 1, .kv_type = KG_KV_F16, .activations = KG_ACT_INT8, .max_batch = MOST, .gpu_layers = -1};
    const int32_t blocks[BLOCKS] = {2, 0, 3, 1};
    const struct batch_seq seq = {blocks};
    const size_t vocab = (size_t)m->program.n_vocab;
    struct batch_token tokens[MOST];
    void *ctx;
    if (b->open(&ctx, &m->program, &params) != KG_OK) {
        if (strcmp(b->name, "cpu") == 0 || strcmp(b->name, "reference") == 0) fail_msg("%s: %s", name, kg_error_message());
        print_message("%-16s %s\n", name, kg_error_message());
        return;
    }
    OK(b->kv_reserve(ctx, BLOCKS));
    float *logits = malloc((size_t)c->n * vocab * sizeof *logits);
    double *exact = malloc((size_t)c->n * vocab * sizeof *exact), largest = 0, worst = 0, diff = 0, size = 0;
    assert_true(logits && exact && c->n_logits == (size_t)c->n * vocab && c->n + c->n_greedy < BLOCKS * KV_BLOCK);
    for (int t = 0; t < c->n; t++) tokens[t] = (struct batch_token){c->ids[t], t, 0, true};
    for (int t = 0; t < c->n; t += step) {
        const size_t at = (size_t)t * vocab;
        const struct batch batch = {.tokens = tokens + t, .n = MIN(step, c->n - t), .seqs = &seq, .n_seqs = 1, .logits = logits + at, .logits_f64 = exact + at};
        OK(b->run(ctx, &batch));
    }
    for (size_t i = 0; i < c->n_logits; i++) {
        const double d = fabs((b->has_f64 ? exact[i] : (double)logits[i]) - c->logits[i]);
        largest = fmax(largest, fabs(c->logits[i]));
        if (!(d <= worst)) worst = d;
        diff += d * d;
        size += c->logits[i] * c->logits[i];
    }
    const double error = b->has_f64 ? worst / largest : sqrt(diff / size);
    if (!(error <= most)) fail_msg("%s: %s, %d tokens at a time: logits are off by %.3g", name, b->name, step, error);
    if (getenv("KAGARI_TEST_ARCH")) print_message("%s: %s, %d tokens at a time: %.3g\n", name, b->name, step, error);
    int id = best_of(logits + (size_t)(c->n - 1) * vocab, (int)vocab);
    for (int i = 0; i < c->n_greedy; i++) {
        if (id != c->greedy[i]) fail_msg("%s: %s: greedy id %d is %d, not %d", name, b->name, i, id, (int)c->greedy[i]);
        const struct batch_token next = {id, c->n + i, 0, true};
        const struct batch batch = {.tokens = &next, .n = 1, .seqs = &seq, .n_seqs = 1, .logits = logits, .logits_f64 = exact};
        OK(b->run(ctx, &batch));
        id = best_of(logits, (int)vocab);
    }
    b->close(ctx);
    free(logits);
    free(exact);
}

/* gpu: the name of a backend, or NULL. */
static void check_file(const char *name, const char *file, const struct cases *c, const char *gpu)
{
    struct model m;
    OK(model_open(&m, file));
    run_case(name, backend_find("reference"), &m, c, MOST, 1e-10);
    run_case(name, backend_find("reference"), &m, c, 5, 1e-10);
    for (size_t i = 0; cpu_tier_name(i); i++) {
        if (!cpu_tier_supported(i)) continue;
        setenv("KAGARI_CPU", cpu_tier_name(i), 1);
        run_case(name, backend_find("cpu"), &m, c, MOST, 2e-3);
        run_case(name, backend_find("cpu"), &m, c, 7, 2e-3);
    }
    unsetenv("KAGARI_CPU");
    if (gpu) run_case(name, backend_find(gpu), &m, c, MOST, 2e-3);
    model_close(&m);
}

static void all_architectures(void **state)
{
    (void)state;
    static struct cases c;
    struct dirent **list;
    const char *only = getenv("KAGARI_TEST_ARCH");
    char gguf[420];
    strcpy(folder, "/tmp/kagari-arch-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(gguf, sizeof gguf, "%s/model.gguf", folder);
    const int n = scandir(SOURCE_DIR "/tests/golden/arch", &list, NULL, alphasort);
    assert_true(n > 2);
    for (int i = 0; i < n; i++) {
        const char *name = list[i]->d_name;
        if (name[0] != '.' && (!only || strcmp(only, name) == 0)) {
            read_case(name, &c);
            write_model(name, &c);
            check_file(name, folder, &c, NULL);
            OK(kg_convert(folder, gguf, NULL));
            check_file(name, gguf, &c, getenv("KAGARI_TEST_GPU") ? getenv("KAGARI_TEST_GPU") : "emulator");
            free(c.logits);
            unlink(gguf);
        }
        free(list[i]);
    }
    free(list);
    static const char *const files[] = {"model.safetensors", "config.json"};
    for (size_t i = 0; i < COUNT_OF(files); i++) {
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        unlink(path);
    }
    rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(all_architectures)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
