/* What can run a program. Implementations are independent of each other; each is one folder that defines
 * `const struct backend backend_NAME` and is listed by the build. */
#ifndef BACKEND_BACKEND_H
#define BACKEND_BACKEND_H

#include "model/program.h"

/* KV memory is a pool of blocks of this many positions; a sequence is a table of block numbers. */
#define KV_BLOCK 32

struct backend_params {
    int n_threads; /* >= 1 */
    kg_kv_type kv_type;
    kg_activations activations;
    int max_batch; /* most tokens per run, >= 1 */
    bool deterministic; /* a token's results have the same bits whatever is in its batch; the others may do it anyway, GPUs then leave faster ways out */
    int gpu_layers; /* of hybrid; -1: as many as fit. Others ignore it */
    void (*progress)(void *ctx, uint64_t done, uint64_t total); /* bytes of weights made ready, from one thread; NULL: nobody wants to know */
    void *progress_ctx;
};

/* One token of a batch. Tokens of one sequence come in order of position and without gaps; a token sees all earlier
 * positions of its sequence: those in the cache and those before it in the batch. */
struct batch_token {
    int32_t id;
    int32_t pos;
    int32_t seq;      /* index into batch.seqs */
    bool want_logits;
};

struct batch_seq {
    const int32_t *blocks; /* position p lies in block blocks[p / KV_BLOCK], slot p % KV_BLOCK */
    int32_t state;         /* if the program has a state: number of the one after all positions before those in the batch; run brings it behind these */
    const double *strengths; /* [program.n_adapters]; NULL: all 1 */
};

/* What an operation is about to multiply: rows [n][width] of its src[0] and, for experts that are chosen, [n][route_width] of src[1], of which
 * the first n_used are the numbers of experts. Exactly one of f32 and f64 is not NULL. */
struct batch_input {
    const struct op *op;
    int n, width, route_width; /* route_width 0: no choice */
    const float *f32, *route_f32;
    const double *f64, *route_f64;
};

/* One of the highest logits of a token. */
struct batch_top {
    float logit;
    int32_t id; /* -1: there are no more that are finite */
};

struct batch {
    const struct batch_token *tokens; /* [n] */
    int n;
    const struct batch_seq *seqs;
    int n_seqs;
    /* Row-major [tokens that want logits][program_n_out]. f64 may be NULL; backends that compute in f32 ignore it. */
    float *logits;
    double *logits_f64;
    /* If n_top > 0 (at most the backend's most_top): instead of logits, [tokens that want some][n_top] of the finite ones, the highest first, lower ids first among equals. */
    struct batch_top *top;
    int n_top;
    bool goes_on; /* with n_top 1: the next batch is likely to be the highest of these, by itself, at the next position; a backend may begin with it */
    /* If not NULL: called after each op with tap set (but not one that the backend joins with a later one), rows [n][width] of its dst; exactly one of f32 and f64 is not NULL. */
    void (*tap)(void *ctx, const struct op *op, int n, int width, const float *f32, const double *f64);
    void *tap_ctx;
    /* If not NULL (only for backends that show inputs): called before each MATMUL and MATMUL_EXPERTS. */
    void (*input)(void *ctx, const struct batch_input *in);
    void *input_ctx;
    /* If not NULL (only for backends with has_f64): called after each op with tap set; what it leaves in the rows is what later operations see. */
    void (*patch)(void *ctx, const struct op *op, int n, int width, double *f64);
    void *patch_ctx;
};

static inline double batch_strength(const struct batch *b, int token, int adapter)
{
    const double *strengths = b->seqs[b->tokens[token].seq].strengths;
    return strengths ? strengths[adapter - 1] : 1;
}

/* Adapters that some sequence of the batch has: a bit 1 << (number - 1) each. */
static inline uint64_t batch_adapters(const struct batch *b, const struct program *p)
{
    uint64_t active = 0;
    for (int t = 0; p->n_adapters && t < b->n; t++)
        for (int k = 1; k <= p->n_adapters; k++) active |= (uint64_t)(batch_strength(b, t, k) != 0) << (k - 1);
    return active;
}

/* Whether a batch that has these adapters goes without an operation. */
static inline bool batch_leaves_out(uint64_t active, int adapter) { return adapter && !(active >> (adapter - 1) & 1); }

/* Measures what the machine behind a backend can do at most. */
struct backend_meter {
    kg_status (*open)(void **meter, int n_threads); /* n_threads >= 1 */
    void (*close)(void *meter);
    kg_status (*run)(void *meter, double seconds, kg_limits *out); /* fills all of *out */
};

/* Something that a backend could run on. */
struct backend_device {
    char name[128];
    char driver[96]; /* with its version */
    uint64_t memory, memory_free; /* bytes; 0: unknown */
    bool is_gpu;
    bool chosen;   /* the one that open takes */
    char why[320]; /* why it cannot be used; "": it can */
};

struct backend {
    const char *name;
    const char *what; /* one line for people */
    bool has_f64;     /* fills logits_f64 */
    bool shows_inputs; /* calls batch.input */
    int most_top;     /* of batch.n_top; 0: it only gives all logits */
    /* Prepares weights. Refuses what it cannot run, naming op and tensor. p outlives the context. */
    kg_status (*open)(void **ctx, const struct program *p, const struct backend_params *params);
    void (*close)(void *ctx);
    /* Makes the KV pool hold n_blocks blocks; existing ones keep their content. */
    kg_status (*kv_reserve)(void *ctx, int n_blocks);
    kg_status (*kv_copy)(void *ctx, int dst_block, int src_block);
    size_t (*kv_block_bytes)(const void *ctx);
    /* A block's kv_block_bytes bytes out of the cache and into it. What they mean only the same backend knows, for the same program and kv_type. NULL: it has no
     * such form. */
    kg_status (*kv_read)(void *ctx, int block, void *out);
    kg_status (*kv_write)(void *ctx, int block, const void *in);
    uint32_t (*kv_form)(const void *ctx); /* tells forms of those bytes apart that are of one size; NULL: there is one */
    /* The same for states, of which a sequence has one, and for copies of it at other positions. NULL: the backend has none, and open refuses programs
     * with a state. state_bytes is 0 if the program has none. */
    kg_status (*state_reserve)(void *ctx, int n_states);
    kg_status (*state_copy)(void *ctx, int dst, int src);
    size_t (*state_bytes)(const void *ctx);
    kg_status (*state_read)(void *ctx, int state, void *out);
    kg_status (*state_write)(void *ctx, int state, const void *in);
    kg_status (*run)(void *ctx, const struct batch *batch);
    /* Bound of the relative logits error against float64 that this backend's arithmetic allows for this program. */
    double (*error_bound)(const void *ctx);
    const struct backend_meter *meter; /* NULL: it has none */
    /* Lists at most `most` devices; KG_ERR_DEVICE and why if this machine has none. NULL: it runs on the processor. */
    kg_status (*devices)(struct backend_device *out, int most, int *n);
};

const struct backend *backend_find(const char *name); /* NULL: unknown or not built (KG_ERR_UNSUPPORTED); the message lists what there is */
const struct backend *backend_at(size_t i);           /* NULL past the end */

/* open, kv_reserve and run, with what else the user could do in the message of a device that fails. */
kg_status backend_open(const struct backend *b, void **ctx, const struct program *p, const struct backend_params *params);
kg_status backend_kv_reserve(const struct backend *b, void *ctx, int n_blocks);
kg_status backend_run(const struct backend *b, void *ctx, const struct batch *batch);
/* Computes a small program on the chosen device and in float64: KG_ERR_DEVICE and which operation is wrong. p: what is going to run, NULL: the
 * usual types of weights. Verdicts are kept; again: without looking at them. backend_open does it for GPUs. */
kg_status backend_check(const struct backend *b, const struct program *p, const struct backend_params *params, bool again);
/* The backend for this machine: a GPU if there is one that can be used, else the processor. Fills why: what was found and chosen, one line;
 * "" if there was nothing to choose from. */
const struct backend *backend_best(char *why, size_t size);

#endif
