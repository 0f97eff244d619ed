/* layers: run */
/* Adapters: the bundled model with two of them against the same model with the changes added to its weights; sessions and sequences of a batch with
 * different ones; and adapters that are refused. */
#include "file/gguf_write.h"
#include "model/model.h"
#include "run/run.h"
#include "tensor/decode.h"

#include "gguf_writer.h"

#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "arch_case.h"

#define MODEL SOURCE_DIR "/models/stories-q4_k_m.gguf"
#define OK(x) do { if ((x) != KG_OK) fail_msg("%s", kg_error_message()); } while (0)

static char dir[] = "/tmp/kagari-lora-XXXXXX", path[3][256]; /* two adapters, the merged model */
static const int32_t prompt[] = {1, 403, 2501, 263, 931};
enum { N = COUNT_OF(prompt) };

static uint32_t state = 1;
static float noise(void)
{
    state = state * 1664525u + 1013904223u;
    return (float)(int32_t)state * 0x1p-31f;
}

/* An adapter for the matrices whose names contain `part`. */
static void write_adapter(const char *to, const struct file *base, const char *part, int rank, float alpha)
{
    struct gw w = {0};
    gw_str(&w, "general.type", "adapter");
    gw_str(&w, "general.architecture", "llama");
    gw_str(&w, "adapter.type", "lora");
    gw_f32(&w, "adapter.lora.alpha", alpha);
    for (size_t i = 0; i < base->n_tensors; i++) {
        const struct tensor *t = &base->tensors[i];
        if (t->n_dims != 2 || !strstr(t->name, part)) continue;
        const size_t n_a = (size_t)(t->ne[0] * rank), n_b = (size_t)(t->ne[1] * rank);
        float *values = malloc((n_a + n_b) * sizeof *values);
        char name[200];
        for (size_t k = 0; k < n_a + n_b; k++) values[k] = noise() * 0.2f;
        snprintf(name, sizeof name, "%s.lora_a", t->name);
        gw_tensor(&w, name, TYPE_F32, 2, (int64_t[]){t->ne[0], rank}, values, n_a * 4);
        snprintf(name, sizeof name, "%s.lora_b", t->name);
        gw_tensor(&w, name, TYPE_F32, 2, (int64_t[]){rank, t->ne[1]}, values + n_a, n_b * 4);
        free(values);
    }
    gw_save(&w, to);
}

/* t's numbers, plus scale * b a of each adapter that has them. */
static float *merged(const struct tensor *t, struct file *const adapters[2], const double scale[2])
{
    const int64_t in = t->ne[0], out = t->ne[1];
    float *v = malloc((size_t)(in * out) * sizeof *v);
    for (int64_t o = 0; o < out; o++) decode_f32(t->type)(tensor_row(t, o), v + o * in, in);
    for (int k = 0; k < 2; k++) {
        char name[200];
        snprintf(name, sizeof name, "%s.lora_a", t->name);
        const struct tensor *a = file_tensor(adapters[k], name);
        snprintf(name, sizeof name, "%s.lora_b", t->name);
        const struct tensor *b = file_tensor(adapters[k], name);
        if (!a) continue;
        const float *pa = a->data, *pb = b->data;
        const int64_t rank = a->ne[1];
        for (int64_t o = 0; o < out; o++)
            for (int64_t i = 0; i < in; i++) {
                double sum = 0;
                for (int64_t r = 0; r < rank; r++) sum += (double)pb[o * rank + r] * (double)pa[r * in + i];
                v[o * in + i] = (float)((double)v[o * in + i] + scale[k] * sum);
            }
    }
    return v;
}

static void write_merged(const char *to, const struct file *base, const double scale[2])
{
    struct gguf_out *o;
    struct file *adapters[2];
    for (int k = 0; k < 2; k++) OK(file_open(&adapters[k], path[k]));
    OK(gguf_out_open(&o, to));
    for (size_t i = 0; i < base->n_metas; i++) OK(gguf_out_meta(o, &base->metas[i]));
    for (size_t i = 0; i < base->n_tensors; i++) OK(gguf_out_tensor(o, base->tensors[i].name, TYPE_F32, base->tensors[i].n_dims, base->tensors[i].ne));
    for (size_t i = 0; i < base->n_tensors; i++) {
        float *v = merged(&base->tensors[i], adapters, scale);
        OK(gguf_out_data(o, v, (size_t)(base->tensors[i].ne[0] * base->tensors[i].ne[1]) * 4));
        free(v);
    }
    OK(gguf_out_finish(o));
    gguf_out_close(&o);
    for (int k = 0; k < 2; k++) file_close(&adapters[k]);
}

/* The logits after the prompt. */
static void logits(const char *model, const int32_t *ids, const char *backend, const kg_lora *loras, size_t n_loras, float **out, size_t *n)
{
    kg_model_params p = kg_model_default_params();
    p.backend = backend;
    p.activations = KG_ACT_F32;
    p.kv_type = KG_KV_F32;
    p.loras = loras;
    p.n_loras = n_loras;
    kg_model *m;
    kg_session *s;
    OK(kg_model_open(&m, model, &p));
    OK(kg_session_new(&s, m, NULL));
    OK(kg_session_sync(s, ids, N));
    *n = (size_t)kg_model_n_vocab(m);
    *out = malloc(*n * sizeof **out);
    memcpy(*out, kg_session_logits(s), *n * sizeof **out);
    kg_session_free(&s);
    kg_model_close(&m);
}

static double difference(const float *a, const float *b, size_t n)
{
    double sum = 0, all = 0;
    for (size_t i = 0; i < n; i++) sum += pow((double)a[i] - (double)b[i], 2), all += pow((double)b[i], 2);
    return sqrt(sum / all);
}

static void test_merged(void **unused)
{
    (void)unused;
    struct file *base;
    OK(file_open(&base, MODEL));
    write_adapter(path[0], base, "attn_", 3, 6);
    write_adapter(path[1], base, "ffn_", 5, 0);
    const double strength[2] = {1, -0.5}, scale[2] = {6.0 / 3, -0.5};
    write_merged(path[2], base, scale);
    file_close(&base);
    const kg_lora loras[] = {{path[0], strength[0]}, {path[1], strength[1]}};
    float *plain, *want, *ref, *cpu;
    size_t n;
    logits(MODEL, prompt, "reference", NULL, 0, &plain, &n);
    logits(path[2], prompt, "reference", NULL, 0, &want, &n);
    logits(MODEL, prompt, "reference", loras, 2, &ref, &n);
    logits(MODEL, prompt, "cpu", loras, 2, &cpu, &n);
    assert_true(difference(plain, want, n) > 0.05); /* they do change something */
    double e = difference(ref, want, n); /* the merged weights are rounded to f32 */
    if (!(e < 1e-6)) fail_msg("reference: %.2g", e);
    e = difference(cpu, ref, n);
    if (!(e < 1e-5)) fail_msg("cpu: %.2g", e);
    free(plain), free(want), free(ref), free(cpu);
}

/* ---- per session, with the tiny model of tests/golden/arch/llama */

static char tiny[100];
static const int32_t few[N] = {1, 40, 25, 63, 9};

static const double mixes[][2] = {{1, -0.5}, {0, 0}, {0.25, 0}, {0, 2}};
enum { MIXES = COUNT_OF(mixes) };

static kg_model *open_both(const char *backend, int n_threads, const double strengths[2])
{
    const kg_lora loras[] = {{path[0], strengths[0]}, {path[1], strengths[1]}};
    kg_model_params p = kg_model_default_params();
    kg_model *m;
    p.backend = backend;
    p.n_threads = n_threads;
    p.deterministic = true;
    p.gpu_layers = 1;
    p.kv_type = KG_KV_F32;
    p.loras = loras;
    p.n_loras = 2;
    OK(kg_model_open(&m, tiny, &p));
    return m;
}

static void same(const char *what, int i, const float *a, const float *b, size_t n)
{
    if (memcmp(a, b, n * sizeof *a) != 0) fail_msg("%s, strengths %d: %.3g from those of a model opened with them", what, i, difference(a, b, n));
}

static size_t reused(kg_session *s) { return kg_session_get_stats(s).n_reused; }

/* Sessions of one model have the logits of models that were opened with their strengths, bit for bit, whatever their neighbours have. */
static void check_sessions(const char *backend)
{
    float *want[MIXES];
    kg_session *s[MIXES];
    size_t n = 0;
    for (int i = 0; i < MIXES; i++) {
        kg_model *m = open_both(backend, 1, mixes[i]);
        OK(kg_session_new(&s[0], m, NULL));
        OK(kg_session_sync(s[0], few, N));
        n = (size_t)kg_model_n_vocab(m);
        want[i] = malloc(n * sizeof *want[i]);
        memcpy(want[i], kg_session_logits(s[0]), n * sizeof *want[i]);
        kg_session_free(&s[0]);
        kg_model_close(&m);
    }
    kg_model *m = open_both(backend, 2, mixes[0]);
    assert_int_equal(kg_model_n_loras(m), 2);
    assert_string_equal(kg_model_lora(m, 1), path[1]);
    assert_null(kg_model_lora(m, 2));
    for (int i = 0; i < MIXES; i++) {
        const kg_session_params params = {.n_batch = i + 1};
        OK(kg_session_new(&s[i], m, &params));
        assert_true(kg_session_loras(s[i])[0] == mixes[0][0] && kg_session_loras(s[i])[1] == mixes[0][1]);
        OK(kg_session_set_loras(s[i], mixes[i], 2));
    }
    for (size_t t = 1; t <= N; t++)
        for (int i = 0; i < MIXES; i++) OK(kg_session_sync(s[i], few, t)); /* in turn */
    for (int i = 0; i < MIXES; i++) same(backend, i, kg_session_logits(s[i]), want[i], n);
    /* the tokens of one session are computed anew, or taken from another that has the same */
    OK(kg_session_set_loras(s[2], mixes[2], 2));
    OK(kg_session_sync(s[2], few, N));
    assert_int_equal(reused(s[2]), N);
    OK(kg_session_set_loras(s[2], (const double[]){3, 3}, 2));
    assert_null(kg_session_logits(s[2]));
    OK(kg_session_sync(s[2], few, N));
    assert_int_equal(reused(s[2]), 0);
    assert_true(difference(kg_session_logits(s[2]), want[2], n) > 0.01);
    OK(kg_session_set_loras(s[2], mixes[3], 2));
    OK(kg_session_sync(s[2], few, N));
    assert_int_equal(reused(s[2]), N - 1);
    same(backend, 3, kg_session_logits(s[2]), want[3], n);
    assert_int_equal(kg_session_set_loras(s[0], mixes[1], 1), KG_ERR_ARGUMENT);
    assert_int_equal(kg_session_set_loras(s[0], (const double[]){0, NAN}, 2), KG_ERR_ARGUMENT);
    for (int i = 0; i < MIXES; i++) {
        kg_session_free(&s[i]);
        free(want[i]);
    }
    kg_model_close(&m);
}

/* A saved cache fits sessions with the same adapters at the same strengths, however the others are. */
static void check_files(void)
{
    char file[100];
    float *want;
    snprintf(file, sizeof file, "%s/cache", dir);
    kg_model *m = open_both("cpu", 1, mixes[2]);
    kg_session *s, *other;
    const size_t n = (size_t)kg_model_n_vocab(m);
    OK(kg_session_new(&s, m, NULL));
    OK(kg_session_sync(s, few, N));
    want = malloc(n * sizeof *want);
    memcpy(want, kg_session_logits(s), n * sizeof *want);
    OK(kg_session_sync(s, few, N - 1));
    OK(kg_session_save(s, file));
    kg_session_free(&s);
    OK(kg_session_new(&other, m, NULL));
    for (int i = 0; i < MIXES; i++) {
        OK(kg_session_set_loras(other, mixes[i], 2));
        if (i == 2) continue;
        assert_int_equal(kg_session_load(other, file), KG_ERR_ARGUMENT);
        assert_non_null(strstr(kg_error_message(), "other adapters"));
    }
    OK(kg_session_set_loras(other, mixes[2], 2));
    OK(kg_session_load(other, file));
    OK(kg_session_sync(other, few, N));
    assert_int_equal(reused(other), N - 1);
    same("cache", 2, kg_session_logits(other), want, n);
    kg_session_free(&other);
    kg_model_close(&m);
    const kg_lora only = {path[0], mixes[2][0]}; /* the other one had no strength */
    kg_model_params p = kg_model_default_params();
    p.backend = "cpu", p.kv_type = KG_KV_F32, p.loras = &only, p.n_loras = 1;
    OK(kg_model_open(&m, tiny, &p));
    OK(kg_session_new(&s, m, NULL));
    OK(kg_session_load(s, file));
    kg_session_free(&s);
    kg_model_close(&m);
    p.n_loras = 0;
    OK(kg_model_open(&m, tiny, &p));
    OK(kg_session_new(&s, m, NULL));
    assert_int_equal(kg_session_load(s, file), KG_ERR_ARGUMENT);
    kg_session_free(&s);
    kg_model_close(&m);
    free(want);
    remove(file);
}

static void write_two(void)
{
    static struct cases c;
    struct file *base;
    char folder[64], part[100];
    snprintf(folder, sizeof folder, "%s/tiny", dir);
    snprintf(tiny, sizeof tiny, "%s/3.gguf", dir);
    if (mkdir(folder, 0777) != 0) fail_msg("%s", folder);
    read_case("llama", &c);
    write_model(folder, "llama", &c);
    free(c.logits);
    OK(kg_convert(folder, tiny, NULL));
    for (int i = 0; i < 2; i++) {
        snprintf(part, sizeof part, "%s/%s", folder, i ? "config.json" : "model.safetensors");
        remove(part);
    }
    rmdir(folder);
    OK(file_open(&base, tiny));
    write_adapter(path[0], base, "attn_", 3, 6);
    write_adapter(path[1], base, "output", 2, 0); /* behind the choice of tokens, too */
    file_close(&base);
}

static void test_sessions(void **unused)
{
    (void)unused;
    static const char *const backends[] = {"reference", "cpu", "emulator", "hybrid"};
    write_two();
    setenv("KAGARI_HYBRID", "emulator", 1);
    for (size_t i = 0; i < COUNT_OF(backends); i++) check_sessions(backends[i]);
    check_files();
    /* strengths of 0 are no adapters at all */
    float *plain, *none;
    size_t n;
    const kg_lora loras[] = {{path[0], 0}, {path[1], 0}};
    logits(tiny, few, "cpu", NULL, 0, &plain, &n);
    logits(tiny, few, "cpu", loras, 2, &none, &n);
    same("cpu", 0, none, plain, n);
    free(plain), free(none);
}

/* One batch with a sequence of each mix, their tokens in turn. */
static void test_batch(void **unused)
{
    (void)unused;
    static const char *const backends[] = {"reference", "cpu", "emulator"};
    const kg_lora loras[] = {{path[0], 1}, {path[1], 1}};
    const struct backend_params params = {.n_threads = 2, .max_batch = MIXES * N, .deterministic = true};
    struct model m;
    write_two();
    OK(model_open_adapted(&m, tiny, loras, 2));
    const size_t n = (size_t)m.program.n_vocab;
    for (size_t k = 0; k < COUNT_OF(backends); k++) {
        const struct backend *b = backend_find(backends[k]);
        int32_t blocks[MIXES];
        struct batch_seq seqs[MIXES];
        struct batch_token tokens[MIXES * N];
        float *all = malloc(MIXES * n * sizeof *all), *one = malloc(n * sizeof *one);
        void *ctx;
        OK(b->open(&ctx, &m.program, &params));
        OK(b->kv_reserve(ctx, MIXES));
        for (int i = 0; i < MIXES; i++) {
            blocks[i] = i;
            seqs[i] = (struct batch_seq){.blocks = &blocks[i], .strengths = mixes[i]};
            for (int t = 0; t < N; t++) tokens[t * MIXES + i] = (struct batch_token){few[t], t, i, t == N - 1};
        }
        const struct batch together = {.tokens = tokens, .n = MIXES * N, .seqs = seqs, .n_seqs = MIXES, .logits = all};
        OK(b->run(ctx, &together));
        for (int i = 0; i < MIXES; i++) {
            struct batch_token alone[N];
            for (int t = 0; t < N; t++) alone[t] = (struct batch_token){few[t], t, 0, t == N - 1};
            const struct batch single = {.tokens = alone, .n = N, .seqs = &seqs[i], .n_seqs = 1, .logits = one};
            OK(b->run(ctx, &single));
            same(backends[k], i, all + (size_t)i * n, one, n);
        }
        b->close(ctx);
        free(all), free(one);
    }
    model_close(&m);
}

/* ---- what is refused */

static void refused(const char *file, const char *why)
{
    const kg_lora lora = {file, 1};
    kg_model_params p = kg_model_default_params();
    p.loras = &lora;
    p.n_loras = 1;
    kg_model *m;
    assert_int_not_equal(kg_model_open(&m, MODEL, &p), KG_OK);
    assert_null(m);
    if (!strstr(kg_error_message(), why)) fail_msg("'%s' lacks '%s'", kg_error_message(), why);
}

struct part {
    const char *name;
    int64_t ne[2];
};

static void refused_parts(const char *arch, const char *type, const struct part *parts, size_t n, const char *why)
{
    struct gw w = {0};
    gw_str(&w, "general.type", "adapter");
    gw_str(&w, "general.architecture", arch);
    gw_str(&w, "adapter.type", type);
    for (size_t i = 0; i < n; i++) gw_tensor(&w, parts[i].name, TYPE_F32, 2, parts[i].ne, NULL, (size_t)(parts[i].ne[0] * parts[i].ne[1]) * 4);
    gw_save(&w, path[0]);
    refused(path[0], why);
}

static void test_refused(void **unused)
{
    (void)unused;
    static const struct part good[] = {{"blk.0.attn_q.weight.lora_a", {288, 2}}, {"blk.0.attn_q.weight.lora_b", {2, 288}}};
    struct part p[2];
    struct file *base;
    OK(file_open(&base, MODEL));
    const int64_t width = file_tensor(base, "blk.0.attn_q.weight")->ne[0];
    file_close(&base);
    memcpy(p, good, sizeof p);
    p[0].ne[0] = p[1].ne[1] = width;
    refused(MODEL, "general.type");
    refused(SOURCE_DIR "/models/none.gguf", "none.gguf");
    refused_parts("qwen2", "lora", p, 2, "is an adapter for architecture qwen2");
    refused_parts("llama", "other", p, 2, "not a LoRA adapter");
    refused_parts("llama", "lora", p, 1, "has no blk.0.attn_q.weight.lora_b");
    refused_parts("llama", "lora", p + 1, 1, "has no blk.0.attn_q.weight.lora_a");
    p[1].ne[0] = 3;
    refused_parts("llama", "lora", p, 2, "no rank in common");
    p[1].ne[0] = 2, p[1].ne[1] = width + 1;
    refused_parts("llama", "lora", p, 2, "wanted");
    p[0].name = "token_embd.weight.lora_a", p[1].name = "token_embd.weight.lora_b";
    refused_parts("llama", "lora", p, 2, "");
    p[0].name = "blk.99.attn_q.weight.lora_a", p[1].name = "blk.99.attn_q.weight.lora_b", p[1].ne[1] = width;
    refused_parts("llama", "lora", p, 2, "no matrix blk.99.attn_q.weight");
    p[0].name = "blk.0.attn_q.weight";
    refused_parts("llama", "lora", p, 1, "no part of a LoRA");
}

static int setup(void **unused)
{
    (void)unused;
    if (!mkdtemp(dir)) return -1;
    for (int i = 0; i < 3; i++) snprintf(path[i], sizeof path[i], "%s/%d.gguf", dir, i);
    return 0;
}

static int teardown(void **unused)
{
    (void)unused;
    for (int i = 0; i < 3; i++) remove(path[i]);
    remove(tiny);
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_merged), cmocka_unit_test(test_sessions), cmocka_unit_test(test_batch), cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
