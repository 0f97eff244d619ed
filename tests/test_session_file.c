/* layers: run */
/* Sessions in files: what is loaded continues as if it had never been away, bit for bit; what is damaged or of something else is refused. */
#include "run/run.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#define OK(expr)                                                                                                                           \
    do {                                                                                                                                   \
        if ((expr) != KG_OK) fail_msg("%s: %s", #expr, kg_error_message());                                                                \
    } while (0)

enum { N = 70 }; /* two blocks and a part of one */
static const char model_path[] = SOURCE_DIR "/models/stories-q4_k_m.gguf";
static char folder[] = "/tmp/kagari-session-XXXXXX", path[64];
static int32_t ids[N + 1];

static int gpu_layers = 2; /* of hybrid */

static kg_model *open_model(const char *backend, kg_kv_type kv_type)
{
    kg_model *m;
    kg_model_params p = kg_model_default_params();
    p.backend = backend;
    p.n_threads = 1;
    p.kv_type = kv_type;
    p.gpu_layers = gpu_layers;
    OK(kg_model_open(&m, model_path, &p));
    return m;
}

static kg_session *open_session(kg_model *m)
{
    kg_session *s;
    OK(kg_session_new(&s, m, NULL));
    return s;
}

/* Every backend that keeps caches, but GPUs that are not there; every type of cache. */
static void test_round_trip(void **state)
{
    (void)state;
    const char *name;
    int n_run = 0;
    for (size_t i = 0; (name = kg_backend_name(i, NULL)) != NULL; i++) {
        kg_device devices[8];
        size_t n;
        if (strcmp(name, "hybrid") != 0 && (i > 1 || kg_devices(name, devices, 8, &n) != KG_OK)) continue; /* GPUs are others' tests */
        for (int kv = KG_KV_F16; kv <= KG_KV_Q8_0; kv++) {
            kg_model *m = open_model(name, (kg_kv_type)kv);
            size_t n_vocab = (size_t)kg_model_n_vocab(m);
            kg_session *a = open_session(m);
            OK(kg_session_sync(a, ids, N));
            OK(kg_session_save(a, path));
            OK(kg_session_sync(a, ids, N + 1));
            float *want = malloc(n_vocab * sizeof *want);
            memcpy(want, kg_session_logits(a), n_vocab * sizeof *want);
            kg_session_free(&a);
            kg_session *b = open_session(m);
            OK(kg_session_load(b, path));
            assert_null(kg_session_logits(b));
            OK(kg_session_sync(b, ids, N + 1));
            assert_int_equal(kg_session_get_stats(b).n_reused, N);
            assert_int_equal(kg_session_get_stats(b).n_computed, 1);
            assert_memory_equal(kg_session_logits(b), want, n_vocab * sizeof *want);
            free(want);
            kg_session_free(&b);
            kg_model_close(&m);
            n_run++;
        }
    }
    assert_true(n_run >= 9);
}

static uint8_t *read_file(size_t *n)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    uint8_t *data = malloc(4 << 20);
    *n = fread(data, 1, 4 << 20, f);
    fclose(f);
    return data;
}

static void write_file(const uint8_t *data, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    fclose(f);
}

static void refused(kg_session *s, size_t n_tokens)
{
    assert_int_not_equal(kg_session_load(s, path), KG_OK);
    assert_non_null(strstr(kg_error_message(), path));
    assert_int_equal(kg_session_get_stats(s).n_tokens, n_tokens);
}

static void test_refusals(void **state)
{
    (void)state;
    kg_model *m = open_model("cpu", KG_KV_F16), *other = open_model("cpu", KG_KV_F32), *ref = open_model("reference", KG_KV_F16);
    kg_session *s = open_session(m), *x = open_session(other), *r = open_session(ref);
    assert_int_equal(kg_session_save(s, path), KG_ERR_ARGUMENT); /* nothing to save */
    assert_int_equal(kg_session_load(s, "/nowhere/cache"), KG_ERR_IO);
    OK(kg_session_sync(s, ids, N));
    assert_int_equal(kg_session_save(s, "/nowhere/cache"), KG_ERR_IO);
    OK(kg_session_save(s, path));
    refused(x, 0);
    refused(r, 0);
    kg_session_params small = {.n_ctx = N - 1};
    kg_session *tiny;
    OK(kg_session_new(&tiny, m, &small));
    refused(tiny, 0);
    OK(kg_session_sync(s, ids, 3));
    size_t n;
    uint8_t *data = read_file(&n);
    for (size_t at = 0; at < n; at += at < 400 ? 1 : n / 50) { /* every byte of head and tokens, some of the cache */
        data[at] ^= 0x41;
        write_file(data, n);
        refused(s, 3);
        data[at] ^= 0x41;
    }
    const size_t lengths[] = {0, 1, 50, 88, 100, n / 2, n - 1};
    for (size_t i = 0; i < COUNT_OF(lengths); i++) {
        write_file(data, lengths[i]);
        refused(s, 3);
    }
    write_file(data, n);
    OK(kg_session_load(s, path));
    assert_int_equal(kg_session_get_stats(s).n_tokens, N);
    free(data);
    kg_session_free(&tiny);
    kg_session_free(&s);
    kg_session_free(&x);
    kg_session_free(&r);
    kg_model_close(&m);
    kg_model_close(&other);
    kg_model_close(&ref);
}

/* A cut at another place is another form, although all sizes are the same. */
static void test_cuts(void **state)
{
    (void)state;
    for (gpu_layers = 2; gpu_layers < 4; gpu_layers++) {
        kg_model *m = open_model("hybrid", KG_KV_F16);
        kg_session *s = open_session(m);
        if (gpu_layers == 2) {
            OK(kg_session_sync(s, ids, N));
            OK(kg_session_save(s, path));
        } else {
            refused(s, 0);
            assert_non_null(strstr(kg_error_message(), "other layers"));
        }
        kg_session_free(&s);
        kg_model_close(&m);
    }
    gpu_layers = 2;
}

static int setup(void **state)
{
    (void)state;
    if (!mkdtemp(folder)) return -1;
    snprintf(path, sizeof path, "%s/cache", folder);
    setenv("KAGARI_HYBRID", "cpu", 1); /* so that only the cut differs */
    for (int i = 0; i <= N; i++) ids[i] = i ? 300 + i * 7 % 6000 : 1;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    remove(path);
    return rmdir(folder); /* fails if anything else was left there */
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_round_trip), cmocka_unit_test(test_refusals), cmocka_unit_test(test_cuts)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
