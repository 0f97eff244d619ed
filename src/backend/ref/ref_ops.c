/* The operations of program.h in float64, one function each. Every sum runs in an order that the batch does not influence, so
 * a prompt in one batch gives bit for bit what its tokens give one by one. Owns no state. */
#include "backend/ref/ref.h"

#include <math.h>

static const double pi = 3.14159265358979323846;

/* Eight partial sums, always dealt out the same way. */
static double dot(const double *a, const double *b, int64_t n)
{
    double s[8] = {0};
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int k = 0; k < 8; k++) s[k] += a[i + k] * b[i + k];
    for (int k = 0; i < n; i++, k++) s[k] += a[i] * b[i];
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

static const struct batch_token *token_at(const struct ref_run *run, int t) { return &run->batch->tokens[run->token[t]]; }
static int width(const struct ref *r, int reg) { return r->program->reg_width[reg]; }
/* Row of token t in a register. */
static double *row(const struct ref *r, int reg, int t) { return r->reg[reg] + (size_t)t * (size_t)width(r, reg); }

static void run_embed(struct ref *r, const struct ref_run *run, const struct op *op)
{
    for (int t = 0; t < run->n; t++) ref_decode_row(op->w, token_at(run, t)->id, row(r, op->dst, t));
}

static void run_pos_embed(struct ref *r, const struct ref_run *run, const struct op *op)
{
    int n = width(r, op->dst);
    for (int t = 0; t < run->n; t++) {
        const double *x = row(r, op->src[0], t);
        double *y = row(r, op->dst, t);
        ref_decode_row(op->w, token_at(run, t)->pos, r->row_w);
        for (int i = 0; i < n; i++) y[i] = x[i] + r->row_w[i];
    }
}

static void run_norm(struct ref *r, const struct ref_run *run, const struct op *op)
{
    int n = width(r, op->dst);
    ref_decode_row(op->w, 0, r->row_w);
    if (op->b) ref_decode_row(op->b, 0, r->row_b);
    for (int t = 0; t < run->n; t++) {
        const double *x = row(r, op->src[0], t);
        double *y = row(r, op->dst, t);
        double mean = 0, squares = 0;
        if (op->code == OP_LAYER_NORM) {
            for (int i = 0; i < n; i++) mean += x[i];
            mean /= n;
        }
        for (int i = 0; i < n; i++) squares += (x[i] - mean) * (x[i] - mean);
        double divisor = sqrt(squares / n + op->eps);
        for (int i = 0; i < n; i++) y[i] = (x[i] - mean) / divisor * r->row_w[i] + (op->b ? r->row_b[i] : 0);
    }
}

static void run_matmul(struct ref *r, const struct ref_run *run, const struct op *op)
{
    int n_out = width(r, op->dst), n_in = width(r, op->src[0]);
    if (op->b) ref_decode_row(op->b, 0, r->row_b);
    for (int o = 0; o < n_out; o++) {
        ref_decode_row(op->w, o, r->row_w);
        for (int t = 0; t < run->n; t++) row(r, op->dst, t)[o] = dot(r->row_w, row(r, op->src[0], t), n_in) + (op->b ? r->row_b[o] : 0);
    }
}

double ref_rope_freq(const struct rope *rope, double *freq)
{
    int n = rope->n_rot / 2;
    if (rope->factors) ref_decode_row(rope->factors, 0, freq);
    for (int i = 0; i < n; i++) freq[i] = pow(rope->base, -2.0 * i / rope->n_rot) / (rope->factors ? freq[i] : 1);

    if (rope->scaling == ROPE_SCALING_LINEAR) {
        for (int i = 0; i < n; i++) freq[i] /= rope->factor;
    } else if (rope->scaling == ROPE_SCALING_LLAMA3) {
        for (int i = 0; i < n; i++) {
            double f = freq[i], wavelength = 2 * pi / f;
            double s = (rope->orig_ctx / wavelength - rope->low_freq) / (rope->high_freq - rope->low_freq);
            if (wavelength < rope->orig_ctx / rope->high_freq) continue;
            freq[i] = wavelength > rope->orig_ctx / rope->low_freq ? f / rope->factor : (1 - s) * f / rope->factor + s * f;
        }
    } else if (rope->scaling == ROPE_SCALING_YARN) {
        /* pair number of the frequency that turns beta times over orig_ctx */
        double per_pair = rope->n_rot / (2 * log(rope->base));
        double low = floor(per_pair * log(rope->orig_ctx / (2 * pi * rope->beta_fast)));
        double high = ceil(per_pair * log(rope->orig_ctx / (2 * pi * rope->beta_slow)));
        low = fmax(low, 0);
        high = fmin(high, rope->n_rot - 1);
        for (int i = 0; i < n; i++) {
            double ramp = fmin(1, fmax(0, (i - low) / fmax(0.001, high - low)));
            double keep = (1 - ramp) * rope->ext_factor;
            freq[i] = (1 - keep) * freq[i] / rope->factor + keep * freq[i];
        }
        return rope->attn_factor * (1 + 0.1 * log(rope->factor));
    }
    return 1;
}

static void run_rope(struct ref *r, const struct ref_run *run, const struct op *op, const double *freq, double mscale)
{
    const struct rope *rope = &op->rope;
    int half = rope->n_rot / 2;
    for (int t = 0; t < run->n; t++) {
        for (int i = 0; i < half; i++) {
            double angle = token_at(run, t)->pos * freq[i], c = cos(angle) * mscale, s = sin(angle) * mscale;
            int first = rope->style == ROPE_INTERLEAVED ? 2 * i : i;
            int second = rope->style == ROPE_INTERLEAVED ? 2 * i + 1 : i + half;
            for (int h = 0; h < rope->n_heads; h++) {
                double *x = row(r, op->dst, t) + (size_t)h * (size_t)rope->head_dim;
                double a = x[first], b = x[second];
                x[first] = a * c - b * s;
                x[second] = a * s + b * c;
            }
        }
    }
}

/* Keys and values of one position in a layer's cache. */
struct kv_row {
    double *k; /* [k_width] */
    double *v; /* [v_width] */
};

static struct kv_row kv_at(const struct ref *r, int layer, const struct batch_seq *seq, int pos)
{
    const struct kv_shape *shape = &r->program->kv[layer];
    double *block = r->blocks[seq->blocks[pos / KV_BLOCK]] + r->kv_at[layer];
    size_t slot = (size_t)(pos % KV_BLOCK), k_width = (size_t)shape->k_width, v_width = (size_t)shape->v_width;
    return (struct kv_row){block + slot * k_width, block + KV_BLOCK * k_width + slot * v_width};
}

static void attend(struct ref *r, const struct attention *a, const struct batch_seq *seq, int pos, int h, const double *q, double *y)
{
    int kv_head = h / (a->n_heads / a->n_kv_heads);
    double max = -INFINITY, sum = 0;
    for (int j = 0; j <= pos; j++) {
        r->score[j] = a->scale * dot(q, kv_at(r, a->kv, seq, j).k + (size_t)kv_head * (size_t)a->k_dim, a->k_dim);
        max = fmax(max, r->score[j]);
    }
    for (int j = 0; j <= pos; j++) {
        r->score[j] = exp(r->score[j] - max);
        sum += r->score[j];
    }
    for (int i = 0; i < a->v_dim; i++) y[i] = 0;
    for (int j = 0; j <= pos; j++) {
        const double *v = kv_at(r, a->kv, seq, j).v + (size_t)kv_head * (size_t)a->v_dim;
        double p = r->score[j] / sum;
        for (int i = 0; i < a->v_dim; i++) y[i] += p * v[i];
    }
}

static void run_attention(struct ref *r, const struct ref_run *run, const struct op *op)
{
    const struct attention *a = &op->attention;
    const struct kv_shape *shape = &r->program->kv[a->kv];
    for (int t = 0; t < run->n; t++) {
        const struct batch_token *token = token_at(run, t);
        struct kv_row kv = kv_at(r, a->kv, &run->batch->seqs[token->seq], token->pos);
        memcpy(kv.k, row(r, op->src[1], t), (size_t)shape->k_width * sizeof *kv.k);
        memcpy(kv.v, row(r, op->src[2], t), (size_t)shape->v_width * sizeof *kv.v);
    }
    for (int t = 0; t < run->n; t++) {
        const struct batch_token *token = token_at(run, t);
        for (int h = 0; h < a->n_heads; h++)
            attend(r, a, &run->batch->seqs[token->seq], token->pos, h, row(r, op->src[0], t) + (size_t)h * (size_t)a->k_dim,
                   row(r, op->dst, t) + (size_t)h * (size_t)a->v_dim);
    }
}

static double activate(enum activation f, double x)
{
    switch (f) {
    case ACTIVATION_SILU: return x / (1 + exp(-x));
    case ACTIVATION_GELU_TANH: return 0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x * x * x)));
    case ACTIVATION_GELU_ERF: return 0.5 * x * (1 + erf(x / sqrt(2)));
    case ACTIVATION_RELU: return x > 0 || isnan(x) ? x : 0;
    case ACTIVATION_N: break;
    }
    return NAN;
}

static void run_elementwise(struct ref *r, const struct ref_run *run, const struct op *op)
{
    int n = width(r, op->dst);
    for (int t = 0; t < run->n; t++) {
        const double *x = row(r, op->src[0], t), *z = op->code == OP_ACT ? NULL : row(r, op->src[1], t);
        double *y = row(r, op->dst, t);
        for (int i = 0; i < n; i++) {
            if (op->code == OP_ADD) y[i] = x[i] + z[i];
            else if (op->code == OP_GLU) y[i] = activate(op->activation, x[i]) * z[i];
            else y[i] = activate(op->activation, x[i]);
        }
    }
}

static void run_logits(struct ref *r, const struct ref_run *run, const struct op *op)
{
    size_t n = (size_t)run->n * (size_t)width(r, op->src[0]);
    const double *x = r->reg[op->src[0]];
    for (size_t i = 0; i < n; i++) run->batch->logits[i] = (float)x[i];
    if (run->batch->logits_f64 && n) memcpy(run->batch->logits_f64, x, n * sizeof *x);
}

void ref_run_op(struct ref *r, const struct ref_run *run, int i_op)
{
    const struct op *op = &r->program->ops[i_op];
    if (run->n == 0) return;
    switch (op->code) {
    case OP_EMBED: run_embed(r, run, op); return;
    case OP_POS_EMBED: run_pos_embed(r, run, op); return;
    case OP_RMS_NORM:
    case OP_LAYER_NORM: run_norm(r, run, op); return;
    case OP_MATMUL: run_matmul(r, run, op); return;
    case OP_ROPE: run_rope(r, run, op, r->freq[i_op], r->mscale[i_op]); return;
    case OP_ATTENTION: run_attention(r, run, op); return;
    case OP_ACT:
    case OP_GLU:
    case OP_ADD: run_elementwise(r, run, op); return;
    case OP_LOGITS: run_logits(r, run, op); return;
    case OP_SELECT: /* ref_run does it: it changes the batch */
    case OP_N_CODES: return;
    }
}
