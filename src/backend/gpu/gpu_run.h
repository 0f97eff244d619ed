/* A batch on its way through the steps: what gpu_run.c and the files for its parts share. */
#ifndef BACKEND_GPU_RUN_H
#define BACKEND_GPU_RUN_H

#include "backend/gpu/gpu.h"

struct gpu_run {
    struct gpu *g;
    const struct batch *batch;
    int n;        /* tokens that the steps still have */
    int n_select;
    uint sel_at, adapt_at; /* words of the batch block */
    bool selected;   /* behind SELECT */
    int n_moved;     /* SELECTs so far whose registers have changed their memory */
    uint64_t active; /* adapters of the batch */
    int splits;   /* of the attention over the positions */
    int longest;  /* blocks of the longest sequence, rounded up to a power of two */
    bool one_sequence; /* all tokens, at positions that rise by one */
    int taken;    /* steps behind the running one that it has done too */
    int sorted;   /* the choice whose rows lie in the order of their experts; -1: none */
    bool acts_ready; /* the next matmul's halves are there */
    const struct gpu_step *fed; /* the matmul whose int8 units are there, in g->fed[fed_at] */
    int fed_at;
    size_t n_words; /* of the batch block */
    struct gpu_recording *recording; /* of the batch's launches; NULL: none yet */
    bool follows; /* the token is the one that comes behind the last batch's */
    void *met; /* what the next launch meets the one before with */
};

kg_status gpu_launch(struct gpu *g, void *kernel, unsigned x, unsigned y, unsigned threads, size_t shared_bytes, const void *params, size_t params_bytes,
                     void *const *buffers, int n_buffers);
#define LAUNCH_ROOM(g, kernel, x, y, threads, shared, params, ...)                                                                                            \
    gpu_launch(g, kernel, (unsigned)(x), (unsigned)(y), (unsigned)(threads), shared, &(params), sizeof(params), (void *[]){__VA_ARGS__}, \
               (int)COUNT_OF(((void *[]){__VA_ARGS__})))
#define LAUNCH(g, kernel, x, y, threads, params, ...) LAUNCH_ROOM(g, kernel, x, y, threads, 0, params, __VA_ARGS__)

static inline unsigned ceil_div(unsigned a, unsigned b) { return (a + b - 1) / b; }
/* Threads of a group that works on a row of n pieces. */
static inline unsigned row_threads(unsigned n, unsigned most) { return MIN(most, MAX(32u, ROUND_UP(n, 32u))); }
static inline void *reg_buffer(const struct gpu *g, int reg) { return reg >= 0 ? g->regs[reg].buffer : NULL; }

NormP gpu_norm_params(const struct gpu *g, const struct gpu_step *s, uint out_stride);
MatP gpu_mat_params(const struct gpu_run *r, const struct gpu_step *s);

/* The norm of a step, of all tokens, to f32 rows of out_stride. */
kg_status gpu_run_norm(const struct gpu_run *r, const struct gpu_step *s, void *out, int out_stride);
HeadP gpu_head_params(const struct gpu_run *r, const struct gpu_step *s);

/* gpu_stream.c: one token's matmuls whose weights come as streams. */
bool gpu_is_int8(const struct gpu *g, const struct gpu_step *s); /* activations and weights are integers */
void gpu_plan_feeds(struct gpu *g);
bool gpu_streams_beside(const struct gpu *g);
bool gpu_plan_streams(const struct gpu *g, const struct gpu_step *s, MatP *p); /* false: the step does not go this way */
kg_status gpu_run_streams(struct gpu_run *r, const struct gpu_step *s, const MatP *p);
kg_status gpu_stream_memory(struct gpu *g);
/* What the running step leaves for the matmul that it feeds goes into *to: n_units, 0 if it feeds none. */
uint gpu_feed(struct gpu_run *r, const struct gpu_step *s, void **to);

/* gpu_top.c: the highest logits, found on the device. */
kg_status gpu_launch_top(const struct gpu_run *r); /* behind the last step */
kg_status gpu_fetch_top(struct gpu_run *r);  /* syncs */

/* gpu_ahead.c: a token that begins before the host asks for it. */
kg_status gpu_ahead_open(struct gpu *g);
bool gpu_tells(const struct gpu_run *r);          /* the highest logit comes that way */
bool gpu_ahead_take(struct gpu_run *r);           /* whether the batch is under way; fills follows */
kg_status gpu_ahead_begin(struct gpu_run *r);     /* the one behind, if it is likely to come */
kg_status gpu_ahead_wait(struct gpu_run *r, uint32_t found[3]); /* number of candidates, id of the highest, its bits */

/* gpu_experts.c: mixtures of experts, heads with matrices of their own. */
kg_status gpu_expert_kernels(struct gpu *g, struct gpu_weight *w);
kg_status gpu_expert_memory(struct gpu *g);
kg_status gpu_run_route(struct gpu_run *r, const struct gpu_step *s);
kg_status gpu_run_experts(struct gpu_run *r, const struct gpu_step *s);
kg_status gpu_run_combine(const struct gpu_run *r, const struct gpu_step *s);
kg_status gpu_run_part(const struct gpu_run *r, const struct gpu_step *s);

/* gpu_show.c: rows to the host, without their padding; syncs. */
kg_status gpu_fetch(struct gpu *g, const void *buffer, int n, int width, int stride, float *dst);
kg_status gpu_show_inputs(const struct gpu_run *r, int step); /* batch.input before that step */

/* gpu_state.c: what is kept from token to token. */
kg_status gpu_check_states(const struct gpu *g, const struct batch *b);
kg_status gpu_run_state(const struct gpu_run *r, const struct gpu_step *s);

/* gpu_wide.c: attention with wide heads. */
bool gpu_is_wide(const struct gpu *g, const struct op *attention);
bool gpu_is_wide_rope(const struct op *rope);
bool gpu_is_too_wide(const struct op *attention);
kg_status gpu_wide_kernels(struct gpu *g, const char *kv); /* if a step needs them */
kg_status gpu_run_wide_rope(const struct gpu_run *r, const struct gpu_step *s, const HeadP *p);
kg_status gpu_run_wide(const struct gpu_run *r, const struct gpu_step *s, HeadP p);

/* gpu_product.c: matmuls of many tokens by the device's library (info.gemm). */
bool gpu_takes_halves(const struct gpu *g, const struct gpu_step *s); /* a prompt's activations and weights are halves */
kg_status gpu_product(struct gpu_run *r, const struct gpu_step *s, MatP p);
kg_status gpu_product_memory(struct gpu *g);

#endif
