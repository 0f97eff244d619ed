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
    int n_pos[MOST_ROWS];      /* not falling */
    int n;
};

static void list_rows(const struct cpu_attend *a, struct rows *r)
{
    r->n = 0;
    for (int t = 0; t < a->n_tokens; t++) {
        for (int h = 0; h < a->n_q; h++, r->n++) {
            r->q[r->n] = a->q + (size_t)t * a->q_stride + h * a->kv->k_dim;
            r->out[r->n] = a->out + (size_t)t * a->out_stride + h * a->kv->v_dim;
            r->n_pos[r->n] = a->n_pos + t;
            r->top[r->n] = -INFINITY;
            r->sum[r->n] = 0;
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
            fn(&part);
        }
    }
}

#endif
