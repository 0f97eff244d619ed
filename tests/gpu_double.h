/* What the tests of hosts over doubles of drivers share: a small model of one layer, and steps of it against the reference. Header only. */
#ifndef TESTS_GPU_DOUBLE_H
#define TESTS_GPU_DOUBLE_H

#include "gpu_test.h"

#include <dlfcn.h>
#include <sys/wait.h>
#include <unistd.h>

struct small {
    struct program p;
    struct tensor kept[16];
    int n;
};

static inline const struct tensor *small_keep(struct small *m, struct tensor t)
{
    assert_true(m->n < (int)COUNT_OF(m->kept));
    m->kept[m->n] = t;
    return &m->kept[m->n++];
}

/* Embedding, norm, attention, norm, a GLU of Q4_K, output: every module of kernels that such a file needs. */
static inline void small_build(struct small *m)
{
    enum { DIM = 256, HEADS = 4, KV_HEADS = 2, HEAD = 64, HIDDEN = 512, VOCAB = 96 };
    const struct type_info *q4 = type_by_name("Q4_K"), *f16 = type_by_name("F16");
    const struct rope rope = {.style = ROPE_HALVES, .n_heads = HEADS, .head_dim = HEAD, .n_rot = HEAD, .base = 10000, .factor = 1, .orig_ctx = 512, .attn_factor = 1};
    struct rope rope_k = rope;
    rope_k.n_heads = KV_HEADS;
    *m = (struct small){.p = {.n_layers = 1, .dim = DIM, .n_vocab = VOCAB, .n_ctx = 512}};
    struct program *p = &m->p;
    int x = program_reg(p, DIM), y = program_reg(p, DIM), q = program_reg(p, HEADS * HEAD), k = program_reg(p, KV_HEADS * HEAD), v = program_reg(p, KV_HEADS * HEAD),
        a = program_reg(p, HEADS * HEAD), gate = program_reg(p, HIDDEN), up = program_reg(p, HIDDEN), logits = program_reg(p, VOCAB);
    program_embed(p, x, small_keep(m, normal_tensor("embed", DIM, VOCAB, 1, 0)));
    program_rms_norm(p, y, x, small_keep(m, normal_tensor("norm", DIM, 1, 0.1f, 1)), NULL, 1e-5);
    program_matmul(p, q, y, small_keep(m, random_tensor("q", f16, DIM, HEADS * HEAD)), NULL);
    program_matmul(p, k, y, small_keep(m, random_tensor("k", f16, DIM, KV_HEADS * HEAD)), NULL);
    program_matmul(p, v, y, small_keep(m, random_tensor("v", f16, DIM, KV_HEADS * HEAD)), NULL);
    program_rope(p, q, &rope);
    program_rope(p, k, &rope_k);
    program_attention(p, a, q, k, v, HEADS, KV_HEADS, HEAD, HEAD, 1 / sqrt(HEAD));
    program_add(p, x, x, a);
    program_rms_norm(p, y, x, small_keep(m, normal_tensor("norm2", DIM, 1, 0.1f, 1)), NULL, 1e-5);
    program_matmul(p, gate, y, small_keep(m, random_tensor("gate", q4, DIM, HIDDEN)), NULL);
    program_matmul(p, up, y, small_keep(m, random_tensor("up", q4, DIM, HIDDEN)), NULL);
    program_glu(p, gate, gate, up, ACTIVATION_SILU);
    program_matmul(p, y, gate, small_keep(m, random_tensor("down", q4, HIDDEN, DIM)), NULL);
    program_add(p, x, x, y);
    program_select(p, y, x);
    program_rms_norm(p, y, y, small_keep(m, normal_tensor("norm3", DIM, 1, 0.1f, 1)), NULL, 1e-5);
    program_matmul(p, logits, y, small_keep(m, random_tensor("output", f16, DIM, VOCAB)), NULL);
    program_logits(p, logits);
    OK(program_finish(p));
}

static inline void small_free(struct small *m)
{
    program_free(&m->p);
    for (int i = 0; i < m->n; i++) tensor_free(&m->kept[i]);
}

/* Two sequences of 70 and 20 tokens in batches of 21, 3 and 1. */
static inline void small_check(const struct small *m, const char *name)
{
    static const int batches[] = {21, 3, 1};
    const struct backend *ref = backend_find("reference"), *b = backend_find(name);
    struct backend_params params = {.n_threads = 1, .kv_type = KG_KV_F16, .activations = KG_ACT_INT8, .max_batch = 32};
    struct timeline l = {0};
    void *ctx;
    double *want;
    for (int i = 0; i < 70; i++) {
        timeline_add(&l, 0, i, (i * 31 + 7) % m->p.n_vocab, i % 3 == 0);
        if (i < 20) timeline_add(&l, 1, i, (i * 17 + 5) % m->p.n_vocab, i % 4 == 0);
    }
    OK(ref->open(&ctx, &m->p, &params));
    free(compute(ref, ctx, m->p.n_vocab, &l, 32, &want));
    ref->close(ctx);
    for (size_t i = 0; i < COUNT_OF(batches); i++) {
        OK(backend_open(b, &ctx, &m->p, &params));
        float *got = compute(b, ctx, m->p.n_vocab, &l, batches[i], NULL);
        double error = relative_error(got, want, (size_t)l.n_wanted * (size_t)m->p.n_vocab), bound = b->error_bound(ctx);
        print_message("%s: batches of %d: error %.3g, bound %.3g\n", name, batches[i], error, bound);
        if (!(error <= bound)) fail_msg("%s: batches of %d: relative error %.3g, bound %.3g", name, batches[i], error, bound);
        free(got);
        b->close(ctx);
    }
    free(want);
}

/* One token at position 0 behind an open of its own; closes. */
static inline kg_status small_step(const struct small *m, const char *name)
{
    static const int32_t blocks[] = {0};
    const struct backend *b = backend_find(name);
    struct backend_params params = {.n_threads = 1, .kv_type = KG_KV_F16, .activations = KG_ACT_INT8, .max_batch = 32};
    struct batch_seq seq = {.blocks = blocks};
    struct batch_token token = {.id = 3, .want_logits = true};
    float logits[96];
    struct batch batch = {.tokens = &token, .n = 1, .seqs = &seq, .n_seqs = 1, .logits = logits};
    void *ctx;
    KG_TRY(backend_open(b, &ctx, &m->p, &params));
    kg_status status = backend_kv_reserve(b, ctx, 1);
    if (status == KG_OK) status = backend_run(b, ctx, &batch);
    b->close(ctx);
    return status;
}

/* The status and words that the message must have; and that the processor is offered. */
static inline void small_fails(const struct small *m, const char *name, kg_status want, const char *words)
{
    kg_status status = small_step(m, name);
    if (status != want) fail_msg("'%s': status %d, not %d: %s", words, (int)status, (int)want, status ? kg_error_message() : "");
    if (!strstr(kg_error_message(), words)) fail_msg("no '%s' in: %s", words, kg_error_message());
    if (!strstr(kg_error_message(), "-b cpu")) fail_msg("the processor is not offered: %s", kg_error_message());
}

/* Verdicts of self-checks and compiled kernels go into a folder of this run. */
static inline void small_cache_folder(char folder[])
{
    assert_non_null(mkdtemp(folder));
    setenv("XDG_CACHE_HOME", folder, 1);
}

/* ---- doubles that are libraries, looked for in the folders that LD_LIBRARY_PATH had when the program started */

/* Starts the program again unless that is the folder; false: that failed. */
static inline bool small_starts_in(const char *folder, char **argv)
{
    const char *path = getenv("LD_LIBRARY_PATH");
    if (path && strcmp(path, folder) == 0) return true;
    setenv("LD_LIBRARY_PATH", folder, 1);
    execv("/proc/self/exe", argv);
    return false;
}

/* The program without the folder, and with an argument, ends with 0. */
static inline void small_runs_alone(const char *self)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        unsetenv("LD_LIBRARY_PATH");
        execl(self, self, "alone", (char *)NULL);
        _exit(99);
    }
    int status = 0;
    assert_true(waitpid(child, &status, 0) == child && WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* What it does then: 0 if opening the backend fails with these words and offers the processor, or this machine has the library. */
static inline int small_without(struct small *m, const char *library, const char *name, const char *words)
{
    void *ctx;
    if (dlopen(library, RTLD_NOW)) return 0;
    struct backend_params params = {.n_threads = 1, .max_batch = 1};
    small_build(m);
    kg_status status = backend_open(backend_find(name), &ctx, &m->p, &params);
    return status == KG_ERR_DEVICE && strstr(kg_error_message(), words) && strstr(kg_error_message(), "-b cpu") ? 0 : 1;
}

#endif
