/* What the vector tiers' attention shares and no instruction set changes: the rows of a job and their order. Included by one file per
 * tier; what it defines is that file's own. */
#ifndef BACKEND_CPU_ATTEND_JOB_H
#define BACKEND_CPU_ATTEND_JOB_H

#include "backend/cpu/cpu.h"

#include <math.h>

#define SPAN_BLOCKS 4
#define SPAN (SPAN_BLOCKS * KV_BLOCK) /* positions that one step of the online softmax takes in */
#define ROWS 6                        /* rows that one pass over a widened block serves */
#define MOST_ROWS 64                  /* of a job */

/* A row is one query head of one token. */
struct rows {
    const float *q[MOST_ROWS]; /* [k_dim] each */
    float *out[MOST_ROWS];     /* [v_dim] each */
    float top[MOST_ROWS], sum[MOST_ROWS];
    float fade[MOST_ROWS];     /* what a new largest score leaves of the sums so far */
    int n_pos[MOST_ROWS];      /* not falling */
    int from[MOST_ROWS];       /* first position that it sees; not falling */
    int head[MOST_ROWS];       /* of the job's */
    int n;
};

static void list_rows(const struct cpu_attend *a, struct rows *r)
{
    r->n = 0;
    for (int t = 0; t < a->n_tokens; t++) {
        for (int h = 0; h < a->n_q; h++, r->n++) {
            r->q[r->n] = a->q + (size_t)t * a->q_stride + h * a->kv->k_dim;
            r->out[r->n] = a->out + (size_t)t * a->out_stride + h * a->kv->v_dim;
            r->n_pos[r->n] = attend_range(a, t, &r->from[r->n]);
            r->head[r->n] = h;
            r->top[r->n] = a->sinks ? a->sinks[h] : -INFINITY;
            r->sum[r->n] = a->sinks ? 1 : 0;
            memset(r->out[r->n], 0, (size_t)a->kv->v_dim * sizeof(float));
        }
    }
}

/* First row that sees position pos; rows come in order of n_pos. */
static int first_row(const struct rows *r, int pos)
{
    int i = 0;
    while (i < r->n && r->n_pos[i] <= pos) i++;
    return i;
}

/* The row behind the last that sees a position below end: those behind it have left it behind. */
static int end_row(const struct rows *r, int end)
{
    int i = r->n;
    while (i > 0 && r->from[i - 1] >= end) i--;
    return i;
}

/* Scores of row i for the span from span0 on, n of them: caps and slopes; -INFINITY for those that have left its window. */
static void adjust_row(const struct cpu_attend *a, const struct rows *r, int i, float *p, int n, int span0)
{
    const float slope = a->slopes ? a->slopes[r->head[i]] : 0;
    const int gone = MIN(r->from[i] - span0, n);
    for (int j = 0; j < gone; j++) p[j] = -INFINITY;
    if ((a->softcap > 0 || slope > 0) && n > MAX(gone, 0)) attend_adjust(p + MAX(gone, 0), n - MAX(gone, 0), a->softcap, slope, span0 + MAX(gone, 0), r->n_pos[i] - 1);
}

/* After the softmax: exp_fast ends at 1.6e-38, not 0. */
static void drop_gone(const struct rows *r, int i, float *p, int span0)
{
    for (int j = 0; j < r->from[i] - span0; j++) p[j] = 0;
}

/* ---- what a job reads, and asking for it ahead ---- */

#define LINE 64 /* bytes that memory hands out at a time */

static inline size_t kv_item_bytes(kg_kv_type type) { return type == KG_KV_F32 ? 4 : type == KG_KV_F16 ? 2 : 1; }

/* The keys or values of one head in one block. */
struct run {
    const uint8_t *p;
    const float *scale; /* of Q8_0 */
    size_t bytes;
};

static inline struct run keys_of(const struct cpu_kv_layout *kv, const uint8_t *block, int head)
{
    const size_t bytes = (size_t)kv->k_dim * KV_BLOCK * kv_item_bytes(kv->type);
    return (struct run){block + kv->k_offset + (size_t)head * bytes, (const float *)(const void *)(block + kv->k_scale_offset) + head * kv->k_groups * KV_BLOCK, bytes};
}

static inline struct run values_of(const struct cpu_kv_layout *kv, const uint8_t *block, int head)
{
    const size_t bytes = (size_t)kv->v_dim * KV_BLOCK * kv_item_bytes(kv->type);
    return (struct run){block + kv->v_offset + (size_t)head * bytes, (const float *)(const void *)(block + kv->v_scale_offset) + head * kv->v_groups * KV_BLOCK, bytes};
}

/* Lines that each of n steps asks for, so that all of a run has been asked for in the end. */
static inline int lines_a_step(const struct run *x, int n) { return (int)((x->bytes + (size_t)(LINE * n) - 1) / (size_t)(LINE * n)); }

static inline const uint8_t *ask_lines(const uint8_t *p, int n)
{
    for (int i = 0; i < n; i++, p += LINE) __builtin_prefetch(p, 0, 3);
    return p;
}

static inline void ask_scales(const struct cpu_kv_layout *kv, const struct run *x, int groups)
{
    if (kv->type == KG_KV_Q8_0) ask_lines((const uint8_t *)(const void *)x->scale, groups * KV_BLOCK * (int)sizeof(float) / LINE);
}

/* Calls fn on the job, or on parts of it that have at most MOST_ROWS rows: token by token, some heads at a time. */
static void attend_in_parts(const struct cpu_attend *a, void (*fn)(const struct cpu_attend *part))
{
    if (a->n_q * a->n_tokens <= MOST_ROWS) {
        fn(a);
        return;
    }
    for (int t = 0; t < a->n_tokens; t++) {
        for (int h = 0; h < a->n_q; h += MOST_ROWS) {
            struct cpu_attend part = *a;
            part.n_tokens = 1;
            part.n_pos += t;
            part.n_q = MIN(MOST_ROWS, a->n_q - h);
            part.q += (size_t)t * a->q_stride + (size_t)(h * a->kv->k_dim);
            part.out += (size_t)t * a->out_stride + (size_t)(h * a->kv->v_dim);
            if (a->slopes) part.slopes += h;
            if (a->sinks) part.sinks += h;
            fn(&part);
        }
    }
}

#endif
