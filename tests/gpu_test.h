/* What the tests of the GPU engine share: which of its backends this machine can run, batches over scattered KV blocks, random tensors.
 * Header only. The emulator is always tested, the devices of this machine with KAGARI_TEST_LONG (a first run waits for their compilers,
 * which can take minutes) or one of them by its name in KAGARI_TEST_GPU. */
#ifndef TESTS_GPU_TEST_H
#define TESTS_GPU_TEST_H

#include "backend/backend.h"
#include "base/half.h"
#include "cpu_test.h"

#define OK(expr)                                                            \
    do {                                                                    \
        if ((expr) != KG_OK) fail_msg("%s: %s", #expr, kg_error_message()); \
    } while (0)

static const char *const gpu_names[] = {"emulator", "opencl", "cuda", "metal"};

/* The emulator is slow, and so is the double of Metal, which runs on it: a part of the cases must do. */
static inline bool gpu_quick(size_t i) { return (strcmp(gpu_names[i], "emulator") == 0 || strcmp(gpu_names[i], "metal") == 0) && !is_long(); }

static bool gpu_deterministic; /* what contexts are opened with */

/* A context on backend i of gpu_names, NULL (and said so) if this machine has no such device. */
static inline void *gpu_ctx(size_t i, const struct program *p, kg_activations act, kg_kv_type kv, int max_batch)
{
    static bool missing[COUNT_OF(gpu_names)];
    const char *only = getenv("KAGARI_TEST_GPU");
    void *ctx = NULL;
    if (missing[i] || (only && *only ? strcmp(only, gpu_names[i]) != 0 : i > 0 && !is_long())) return NULL;
    const struct backend *b = backend_find(gpu_names[i]);
    if (!b) fail_msg("%s", kg_error_message());
    static int opened;
    setenv("KAGARI_EMU_GEMM", opened++ % 2 ? "0" : "1", 1); /* products by the kernels alone, or by a library */
    struct backend_params params = {.n_threads = 2, .kv_type = kv, .activations = act, .max_batch = max_batch, .deterministic = gpu_deterministic};
    kg_status st = b->open(&ctx, p, &params);
    if (st == KG_OK) return ctx;
    if (st != KG_ERR_DEVICE || i == 0 || (only && *only)) fail_msg("%s: %s", gpu_names[i], kg_error_message());
    missing[i] = true;
    print_message("skipped: %s\n", kg_error_message());
    return NULL;
}

/* ---- tokens ---- */

enum { TL_TOKENS = 1024, TL_SEQS = 8, TL_BLOCKS = 18 };
struct timeline {
    struct batch_token tokens[TL_TOKENS];
    int n, n_seqs, n_wanted;
};

static inline void timeline_add(struct timeline *l, int seq, int pos, int32_t id, bool want)
{
    l->tokens[l->n++] = (struct batch_token){id, pos, seq, want};
    l->n_seqs = MAX(l->n_seqs, seq + 1);
    l->n_wanted += want;
}

/* Runs l in batches of n_batch, the blocks of its sequences scattered. Logits of the tokens that want some, [n_wanted][n_vocab], malloc'ed;
 * f64 may be NULL. */
static inline float *compute(const struct backend *b, void *ctx, int n_vocab, const struct timeline *l, int n_batch, double **f64)
{
    int32_t blocks[TL_SEQS][TL_BLOCKS];
    struct batch_seq seqs[TL_SEQS];
    for (int s = 0; s < l->n_seqs; s++) {
        for (int i = 0; i < TL_BLOCKS; i++) blocks[s][i] = (TL_BLOCKS - 1 - i) * l->n_seqs + s;
        seqs[s] = (struct batch_seq){.blocks = blocks[s], .state = s};
    }
    OK(b->kv_reserve(ctx, l->n_seqs * TL_BLOCKS / 2));
    OK(b->kv_reserve(ctx, l->n_seqs * TL_BLOCKS));
    if (b->state_reserve) OK(b->state_reserve(ctx, l->n_seqs));
    const size_t n = (size_t)l->n_wanted * (size_t)n_vocab;
    float *logits = malloc((n + 1) * sizeof *logits);
    assert_non_null(logits);
    if (f64) assert_non_null(*f64 = malloc((n + 1) * sizeof **f64));
    for (size_t i = 0; i <= n; i++) logits[i] = 12345;
    size_t at = 0;
    for (int i = 0; i < l->n; i += n_batch) {
        struct batch batch = {.tokens = l->tokens + i, .n = MIN(n_batch, l->n - i), .seqs = seqs, .n_seqs = l->n_seqs, .logits = logits + at,
                              .logits_f64 = f64 ? *f64 + at : NULL};
        OK(b->run(ctx, &batch));
        for (int t = 0; t < batch.n; t++) at += batch.tokens[t].want_logits ? (size_t)n_vocab : 0;
    }
    assert_true(at == n && logits[n] == 12345);
    return logits;
}

static inline double relative_error(const float *a, const double *r, size_t n)
{
    double diff = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        diff += ((double)a[i] - r[i]) * ((double)a[i] - r[i]);
        size += r[i] * r[i];
    }
    return size > 0 ? sqrt(diff / size) : diff;
}

/* ---- tensors ---- */

/* Memory of a file without a name: an engine that has used a tensor may let go of its pages, which then come back as they were. */
static inline void *file_memory(size_t n_bytes)
{
    int fd = memfd_create("tensor", 0);
    assert_true(fd >= 0 && ftruncate(fd, (off_t)n_bytes) == 0);
    void *p = mmap(NULL, n_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(p != MAP_FAILED);
    close(fd);
    return p;
}

static inline struct tensor random_tensor(const char *name, const struct type_info *type, int64_t in, int64_t out)
{
    static struct blocks set; /* of the type before this one: to find such blocks takes longer than to compute with them */
    if (set.type != type) {
        blocks_free(&set);
        set = blocks_new(type, 0.25); /* such that f16 holds the values of all but the widest types */
    }
    struct tensor t = {.name = name, .type = type->type, .n_dims = 2, .ne = {in, out, 1, 1}};
    size_t n = (size_t)(in / type->block * out);
    t.n_bytes = n * (size_t)type->block_bytes;
    uint8_t *data = file_memory(t.n_bytes);
    blocks_fill(&set, data, n);
    t.data = data;
    return t;
}

/* f32, about normal, times size, plus middle */
static inline struct tensor normal_tensor(const char *name, int64_t in, int64_t out, float size, float middle)
{
    struct tensor t = {.name = name, .type = TYPE_F32, .n_dims = out > 1 ? 2 : 1, .ne = {in, out, 1, 1}, .n_bytes = (size_t)(in * out) * sizeof(float)};
    float *data = file_memory(t.n_bytes);
    for (int64_t i = 0; i < in * out; i++) data[i] = middle + size * rng_normal();
    t.data = data;
    return t;
}

static inline void tensor_free(struct tensor *t) { munmap((void *)(uintptr_t)t->data, t->n_bytes); }

#endif
