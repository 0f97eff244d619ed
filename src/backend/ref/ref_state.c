/* The operations of program.h that keep something from token to token, in float64, token by token in the order of the batch. */
#include "backend/ref/ref.h"

#include <math.h>

static int width(const struct ref *r, int reg) { return r->program->reg_width[reg]; }
static double *row(const struct ref *r, int reg, int t) { return r->reg[reg] + (size_t)t * (size_t)width(r, reg); }
static double softplus(double x) { return x > 0 ? x + log1p(exp(-x)) : log1p(exp(x)); }

/* What the operation has of the state of token t's sequence: zero before its first token. */
static double *state_of(const struct ref *r, const struct ref_run *run, const struct op *op, int t)
{
    const struct batch_token *token = &run->batch->tokens[run->token[t]];
    double *state = r->states[run->batch->seqs[token->seq].state] + op->state;
    if (token->pos == 0)
        for (size_t i = 0; i < op->n_state; i++) state[i] = 0;
    return state;
}

/* state {taps - 1, width}: the last numbers, oldest first. */
static void run_conv(struct ref *r, const struct ref_run *run, const struct op *op)
{
    int n = width(r, op->dst), taps = (int)op->w->ne[0];
    if (op->b) ref_decode_row(op->b, 0, r->row_b);
    for (int t = 0; t < run->n; t++) {
        double *state = state_of(r, run, op, t), *y = row(r, op->dst, t);
        const double *x = row(r, op->src[0], t);
        for (int c = 0; c < n; c++) {
            double *last = state + (size_t)c * (size_t)(taps - 1), sum = 0;
            ref_decode_row(op->w, c, r->row_w);
            for (int k = 0; k < taps - 1; k++) sum += r->row_w[k] * last[k];
            y[c] = sum + r->row_w[taps - 1] * x[c] + (op->b ? r->row_b[c] : 0);
            for (int k = 0; k + 1 < taps - 1; k++) last[k] = last[k + 1];
            if (taps > 1) last[taps - 2] = x[c];
        }
    }
}

/* state {n_state, head_dim, n_heads} */
static void run_scan(struct ref *r, const struct ref_run *run, const struct op *op)
{
    const struct scan *s = &op->scan;
    int per_group = s->n_heads / s->n_groups;
    bool one = op->w->ne[0] == 1;
    ref_decode_row(op->b, 0, r->row_b);
    for (int t = 0; t < run->n; t++) {
        double *h = state_of(r, run, op, t);
        for (int head = 0; head < s->n_heads; head++) {
            const double *B = row(r, op->src[2], t) + (size_t)(head / per_group) * (size_t)s->n_state, *C = B + (size_t)s->n_groups * (size_t)s->n_state;
            double step = softplus(row(r, op->src[1], t)[head]);
            ref_decode_row(op->w, head, r->row_w);
            for (int p = 0; p < s->head_dim; p++, h += s->n_state) {
                double x = row(r, op->src[0], t)[head * s->head_dim + p], sum = 0;
                for (int n = 0; n < s->n_state; n++) {
                    h[n] = exp(step * r->row_w[one ? 0 : n]) * h[n] + step * B[n] * x;
                    sum += C[n] * h[n];
                }
                row(r, op->dst, t)[head * s->head_dim + p] = sum + r->row_b[head] * x;
            }
        }
    }
}

static double inverse_length(const double *x, int n, double eps)
{
    double sum = 0;
    for (int i = 0; i < n; i++) sum += x[i] * x[i];
    return 1 / sqrt(sum + eps);
}

/* state {v_dim, k_dim, n_heads} */
static void run_delta(struct ref *r, const struct ref_run *run, const struct op *op)
{
    const struct delta *d = &op->delta;
    int per_k = d->n_heads / d->n_k_heads, k_dim = d->k_dim, v_dim = d->v_dim;
    ref_decode_row(op->w, 0, r->row_w);
    ref_decode_row(op->b, 0, r->row_b);
    for (int t = 0; t < run->n; t++) {
        double *S = state_of(r, run, op, t);
        for (int head = 0; head < d->n_heads; head++, S += (size_t)k_dim * (size_t)v_dim) {
            int part = head / per_k, k_head = d->tiled ? head % d->n_k_heads : part;
            const double *q = row(r, op->src[0], t) + k_head * k_dim, *k = q + d->n_k_heads * k_dim;
            const double *v = row(r, op->src[0], t) + 2 * d->n_k_heads * k_dim + head * v_dim;
            const double *gates = row(r, op->src[1], t) + part * 2 * per_k + head % per_k;
            double q_scale = inverse_length(q, k_dim, d->eps) / sqrt(k_dim), k_scale = inverse_length(k, k_dim, d->eps);
            double decay = exp(r->row_w[head] * softplus(gates[per_k] + r->row_b[head])), write = 1 / (1 + exp(-gates[0]));
            double *y = row(r, op->dst, t) + head * v_dim;
            for (int j = 0; j < v_dim; j++) {
                double known = 0, sum = 0;
                for (int i = 0; i < k_dim; i++) {
                    S[i * v_dim + j] *= decay;
                    known += k[i] * k_scale * S[i * v_dim + j];
                }
                for (int i = 0; i < k_dim; i++) {
                    S[i * v_dim + j] += k[i] * k_scale * write * (v[j] - known);
                    sum += q[i] * q_scale * S[i * v_dim + j];
                }
                y[j] = sum;
            }
        }
    }
}

/* What one head makes of a token. state {value, key}; u, c, m: rows of w, of this head. */
static void wkv_head(const struct wkv *d, double *S, const double *r, const double *k, const double *g, const double *a, const double *v, const double *u, const double *c,
                     const double *m, double *y, double *direct)
{
    const int n = d->head_dim;
    double length = 0, bonus = 0;
    for (int i = 0; i < n; i++) length += k[i] * u[i] * k[i] * u[i];
    length = fmax(sqrt(length), d->eps);
    for (int i = 0; i < n; i++) bonus += r[i] * k[i] * (1 + (1 / (1 + exp(-a[i])) - 1) * c[i]) * m[i];
    for (int j = 0; j < n; j++, S += n) {
        double known = 0, sum = 0;
        for (int i = 0; i < n; i++) known += k[i] * u[i] / length * S[i];
        for (int i = 0; i < n; i++) {
            const double rate = 1 / (1 + exp(-a[i])), decay = exp(-exp(-0.5) / (1 + exp(-g[i])));
            S[i] = decay * S[i] - k[i] * u[i] / length * rate * known + k[i] * (1 + (rate - 1) * c[i]) * v[j];
            sum += r[i] * S[i];
        }
        y[j] = sum;
        direct[j] = bonus * v[j];
    }
}

/* state {key, value, n_heads} */
static void run_wkv(struct ref *r, const struct ref_run *run, const struct op *op)
{
    const int n = op->wkv.head_dim, all = op->wkv.n_heads * n;
    double *w = r->wkv;
    for (int i = 0; i < 3; i++) ref_decode_row(op->w, i, w + i * all);
    for (int t = 0; t < run->n; t++) {
        double *S = state_of(r, run, op, t);
        const double *rk = row(r, op->src[0], t), *gates = row(r, op->src[1], t), *v = row(r, op->src[2], t);
        double *y = row(r, op->dst, t);
        for (int at = 0; at < all; at += n, S += (size_t)n * (size_t)n)
            wkv_head(&op->wkv, S, rk + at, rk + all + at, gates + at, gates + all + at, v + at, w + at, w + all + at, w + 2 * all + at, y + at, y + all + at);
    }
}

void ref_run_state_op(struct ref *r, const struct ref_run *run, const struct op *op)
{
    if (op->code == OP_CONV) run_conv(r, run, op);
    else if (op->code == OP_SCAN) run_scan(r, run, op);
    else if (op->code == OP_DELTA) run_delta(r, run, op);
    else run_wkv(r, run, op);
}
