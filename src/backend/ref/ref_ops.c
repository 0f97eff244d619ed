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

static void run_add_row(struct ref *r, const struct ref_run *run, const struct op *op)
{
    int n = width(r, op->dst);
    ref_decode_row(op->w, 0, r->row_w);
    for (int t = 0; t < run->n; t++)
        for (int i = 0; i < n; i++) row(r, op->dst, t)[i] = row(r, op->src[0], t)[i] + r->row_w[i];
}

static void run_lerp(struct ref *r, const struct ref_run *run, const struct op *op)
{
    int n = width(r, op->dst);
    ref_decode_row(op->w, 0, r->row_w);
    for (int t = 0; t < run->n; t++)
        for (int i = 0; i < n; i++) row(r, op->dst, t)[i] = row(r, op->src[0], t)[i] + r->row_w[i] * row(r, op->src[1], t)[i];
}

/* One row of n numbers. w, b NULL: as if all 1, all 0. */
static void norm_row(const struct op *op, const double *x, double *y, int n, const double *w, const double *b)
{
    double mean = 0, squares = 0;
    if (op->code == OP_LAYER_NORM) {
        for (int i = 0; i < n; i++) mean += x[i];
        mean /= n;
    }
    for (int i = 0; i < n; i++) squares += (x[i] - mean) * (x[i] - mean);
    double divisor = sqrt(squares / n + op->eps);
    for (int i = 0; i < n; i++) y[i] = (x[i] - mean) / divisor * (w ? w[i] : 1) + (b ? b[i] : 0);
}

static void run_norm(struct ref *r, const struct ref_run *run, const struct op *op)
{
    int all = width(r, op->dst), n = op->w ? (int)op->w->ne[0] : all;
    for (int head = 0; head < all / n; head++) {
        bool own = op->w && op->w->ne[1] > 1;
        if (op->w) ref_decode_row(op->w, own ? head : 0, r->row_w);
        if (op->b) ref_decode_row(op->b, own ? head : 0, r->row_b);
        for (int t = 0; t < run->n; t++)
            norm_row(op, row(r, op->src[0], t) + head * n, row(r, op->dst, t) + head * n, n, op->w ? r->row_w : NULL, op->b ? r->row_b : NULL);
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
        double low = per_pair * log(rope->orig_ctx / (2 * pi * rope->beta_fast));
        double high = per_pair * log(rope->orig_ctx / (2 * pi * rope->beta_slow));
        if (!rope->fractions) {
            low = floor(low);
            high = ceil(high);
        }
        low = fmax(low, 0);
        high = fmin(high, rope->n_rot - 1);
        for (int i = 0; i < n; i++) {
            double ramp = fmin(1, fmax(0, (i - low) / fmax(0.001, high - low)));
            double keep = (1 - ramp) * rope->ext_factor;
            freq[i] = (1 - keep) * freq[i] / rope->factor + keep * freq[i];
        }
        return rope->attn_factor * (1 + 0.1 * log(rope->factor));
    }
    return rope->magnitude > 0 ? rope->magnitude : 1;
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

/* What a head takes off its scores for each position of distance. */
static double alibi_slope(const struct attention *a, int h)
{
    int p = 1;
    if (a->alibi == 0) return 0;
    while (2 * p <= a->n_heads) p *= 2;
    return h < p ? pow(2, -a->alibi * (h + 1) / p) : pow(2, -a->alibi * (h - p + 0.5) / p);
}

/* The positions that the one at pos sees: [first, end). n_all: of its sequence. */
static int seen(const struct attention *a, int pos, int n_all, int *end)
{
    int behind = a->both ? a->window / 2 : a->chunked && a->window > 0 ? pos % a->window : a->window - 1;
    *end = !a->both ? pos + 1 : a->window > 0 && pos + behind + 1 < n_all ? pos + behind + 1 : n_all;
    return a->window > 0 && pos > behind ? pos - behind : 0;
}

static void attend(struct ref *r, const struct attention *a, const struct batch_seq *seq, int pos, int n_all, int h, const double *q, double *y)
{
    int kv_head = h / (a->n_heads / a->n_kv_heads), end, first = seen(a, pos, n_all, &end);
    double max = -INFINITY, sum = 0, slope = alibi_slope(a, h);
    if (a->sinks) {
        ref_decode_row(a->sinks, 0, r->row_w);
        max = r->row_w[h];
    }
    for (int j = first; j < end; j++) {
        double s = a->scale * dot(q, kv_at(r, a->kv, seq, j).k + (size_t)kv_head * (size_t)a->k_dim, a->k_dim);
        if (a->softcap > 0) s = a->softcap * tanh(s / a->softcap);
        r->score[j] = s - slope * (pos - j);
        max = fmax(max, r->score[j]);
    }
    if (a->sinks) sum = exp(r->row_w[h] - max);
    for (int j = first; j < end; j++) {
        r->score[j] = exp(r->score[j] - max);
        sum += r->score[j];
    }
    for (int i = 0; i < a->v_dim; i++) y[i] = 0;
    for (int j = first; j < end; j++) {
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
        int n_all = token->pos + 1;
        for (int i = 0; a->both && i < run->n; i++)
            if (token_at(run, i)->seq == token->seq && token_at(run, i)->pos >= n_all) n_all = token_at(run, i)->pos + 1;
        for (int h = 0; h < a->n_heads; h++)
            attend(r, a, &run->batch->seqs[token->seq], token->pos, n_all, h, row(r, op->src[0], t) + (size_t)h * (size_t)a->k_dim,
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
    case ACTIVATION_RELU_SQUARED: return x > 0 || isnan(x) ? x * x : 0;
    case ACTIVATION_SIGMOID: return 1 / (1 + exp(-x));
    case ACTIVATION_TANH: return tanh(x);
    case ACTIVATION_SWIGLU_OAI:
    case ACTIVATION_N: break;
    }
    return NAN;
}

static double clamp(double x, double least, double most) { return x < least ? least : x > most ? most : x; }

static double glu(enum activation f, double x, double z)
{
    if (f != ACTIVATION_SWIGLU_OAI) return activate(f, x) * z;
    x = clamp(x, -INFINITY, 7);
    return x / (1 + exp(-1.702 * x)) * (clamp(z, -7, 7) + 1);
}

static double element(const struct op *op, double x, double z)
{
    switch (op->code) {
    case OP_ACT: return activate(op->activation, x);
    case OP_GLU: return glu(op->activation, x, z);
    case OP_ADD: return x + z;
    case OP_MUL: return x * z;
    case OP_GATE: return activate(op->activation, z) * x;
    case OP_SCALE: return op->value * x;
    case OP_SOFTCAP: return op->value * tanh(x / op->value);
    case OP_CLAMP: return clamp(x, -op->value, op->value);
    case OP_XIELU: return op->xielu.linear * x + (x > 0 ? op->xielu.above * x * x : op->xielu.below * (expm1(x < op->xielu.eps || isnan(x) ? x : op->xielu.eps) - x));
    default: return NAN;
    }
}

static void run_pos_scale(struct ref *r, const struct ref_run *run, const struct op *op)
{
    int n = width(r, op->dst);
    for (int t = 0; t < run->n; t++) {
        const double factor = 1 + op->value * log(1 + floor(((double)token_at(run, t)->pos + op->first) / op->length)), *x = row(r, op->src[0], t);
        double *y = row(r, op->dst, t);
        for (int i = 0; i < n; i++) y[i] = factor * x[i];
    }
}

static void run_adapt(struct ref *r, const struct ref_run *run, const struct op *op)
{
    int n = width(r, op->dst);
    for (int t = 0; t < run->n; t++) {
        const double strength = batch_strength(run->batch, run->token[t], op->adapter), *x = row(r, op->src[0], t);
        double *y = row(r, op->dst, t);
        for (int i = 0; i < n; i++) y[i] = strength == 0 ? 0 : op->value * strength * x[i];
    }
}

static void run_elementwise(struct ref *r, const struct ref_run *run, const struct op *op)
{
    int n = width(r, op->dst), step = op->code == OP_GATE ? 0 : 1;
    for (int t = 0; t < run->n; t++) {
        const double *x = row(r, op->src[0], t), *z = op->src[1] >= 0 ? row(r, op->src[1], t) : x;
        double *y = row(r, op->dst, t);
        for (int i = 0; i < n; i++) y[i] = element(op, x[i], z[i * step]);
    }
}

/* ---- experts ---- */

/* The best of the numbers that are not taken yet; a NaN counts as the lowest. Takes it. */
static int take_best(const double *x, int n, bool *taken)
{
    int best = -1;
    for (int i = 0; i < n; i++)
        if (!taken[i] && (best < 0 || x[i] > x[best] || (isnan(x[best]) && !isnan(x[i])))) best = i;
    taken[best] = true;
    return best;
}

/* Marks the experts of all groups but the n_groups_used best. */
static void drop_groups(const struct route *route, const double *choice, int n, double *score, bool *scratch, bool *dropped)
{
    int size = n / route->n_groups;
    for (int g = 0; g < route->n_groups; g++) {
        memset(scratch, 0, (size_t)size * sizeof *scratch);
        int a = take_best(choice + g * size, size, scratch), b = take_best(choice + g * size, size, scratch);
        score[g] = choice[g * size + a] + (route->group_by_one ? 0 : choice[g * size + b]);
    }
    memset(scratch, 0, (size_t)route->n_groups * sizeof *scratch);
    for (int i = 0; i < route->n_groups_used; i++) take_best(score, route->n_groups, scratch);
    for (int i = 0; i < n; i++) dropped[i] = !scratch[i / size];
}

static void run_route(struct ref *r, const struct ref_run *run, const struct op *op)
{
    const struct route *route = &op->route;
    int n = width(r, op->src[0]);
    double *p = r->route, *choice = p + n, *score = choice + n;
    bool *taken = r->taken, *scratch = taken + n;
    if (op->b) ref_decode_row(op->b, 0, r->row_b);
    if (op->w) ref_decode_row(op->w, 0, r->row_w);
    for (int t = 0; t < run->n; t++) {
        const double *x = row(r, op->src[0], t);
        double *chosen = row(r, op->dst, t), *weight = chosen + route->n_used, max = -INFINITY, sum = 0, total = 0;
        for (int i = 0; i < n; i++) max = fmax(max, x[i]);
        for (int i = 0; i < n; i++) sum += p[i] = route->sigmoid ? 1 / (1 + exp(-x[i])) : exp(x[i] - max);
        for (int i = 0; i < n; i++) {
            if (!route->sigmoid) p[i] /= sum;
            choice[i] = p[i] + (op->b ? r->row_b[i] : 0);
            taken[i] = false;
        }
        if (route->n_groups > 1) drop_groups(route, choice, n, score, scratch, taken);
        for (int s = 0; s < route->n_used; s++) {
            int e = take_best(choice, n, taken);
            chosen[s] = e;
            weight[s] = p[e];
            total += p[e];
        }
        for (int s = 0; s < route->n_used; s++) weight[s] *= route->scale * (op->w ? r->row_w[(int)chosen[s]] : 1) / (route->normed ? total + route->eps : 1);
    }
}

static void run_matmul_experts(struct ref *r, const struct ref_run *run, const struct op *op)
{
    int n_in = (int)op->w->ne[0], n_out = (int)op->w->ne[1], step = width(r, op->src[0]) == n_in ? 0 : n_in;
    for (int e = 0; e < (int)op->w->ne[2]; e++) {
        if (op->b) ref_decode_row(op->b, e, r->row_b);
        for (int o = 0; o < n_out; o++) {
            bool decoded = false;
            for (int t = 0; t < run->n; t++)
                for (int s = 0; s < op->n_used; s++) {
                    if ((op->src[1] >= 0 ? (int)row(r, op->src[1], t)[s] : s) != e) continue;
                    if (!decoded) ref_decode_row(op->w, (int64_t)e * n_out + o, r->row_w);
                    decoded = true;
                    row(r, op->dst, t)[s * n_out + o] = dot(r->row_w, row(r, op->src[0], t) + s * step, n_in) + (op->b ? r->row_b[o] : 0);
                }
        }
    }
}

static void run_combine(struct ref *r, const struct ref_run *run, const struct op *op)
{
    int n = width(r, op->dst);
    for (int t = 0; t < run->n; t++) {
        const double *x = row(r, op->src[0], t), *weight = row(r, op->src[1], t) + op->n_used;
        double *y = row(r, op->dst, t);
        for (int i = 0; i < n; i++) {
            y[i] = 0;
            for (int s = 0; s < op->n_used; s++) y[i] += weight[s] * x[s * n + i];
        }
    }
}

static void run_take(struct ref *r, const struct ref_run *run, const struct op *op)
{
    int n_heads = op->part.n_heads, n = width(r, op->dst) / n_heads, step = width(r, op->src[0]) / n_heads;
    for (int t = 0; t < run->n; t++)
        for (int h = 0; h < n_heads; h++)
            for (int i = 0; i < n; i++) row(r, op->dst, t)[h * n + i] = row(r, op->src[0], t)[h * step + op->part.first + i];
}

static void run_join(struct ref *r, const struct ref_run *run, const struct op *op)
{
    int n_heads = op->part.n_heads, a = width(r, op->src[0]) / n_heads, b = width(r, op->src[1]) / n_heads;
    for (int t = 0; t < run->n; t++)
        for (int h = 0; h < n_heads; h++) {
            for (int i = 0; i < a; i++) row(r, op->dst, t)[h * (a + b) + i] = row(r, op->src[0], t)[h * a + i];
            for (int i = 0; i < b; i++) row(r, op->dst, t)[h * (a + b) + a + i] = row(r, op->src[1], t)[h * b + i];
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
    case OP_ADD_ROW: run_add_row(r, run, op); return;
    case OP_LERP: run_lerp(r, run, op); return;
    case OP_RMS_NORM:
    case OP_LAYER_NORM: run_norm(r, run, op); return;
    case OP_MATMUL: run_matmul(r, run, op); return;
    case OP_ROPE: run_rope(r, run, op, r->freq[i_op], r->mscale[i_op]); return;
    case OP_ATTENTION: run_attention(r, run, op); return;
    case OP_ACT:
    case OP_GLU:
    case OP_ADD:
    case OP_MUL:
    case OP_GATE:
    case OP_SCALE:
    case OP_SOFTCAP:
    case OP_XIELU:
    case OP_CLAMP: run_elementwise(r, run, op); return;
    case OP_ADAPT: run_adapt(r, run, op); return;
    case OP_POS_SCALE: run_pos_scale(r, run, op); return;
    case OP_ROUTE: run_route(r, run, op); return;
    case OP_MATMUL_EXPERTS: run_matmul_experts(r, run, op); return;
    case OP_COMBINE: run_combine(r, run, op); return;
    case OP_TAKE: run_take(r, run, op); return;
    case OP_JOIN: run_join(r, run, op); return;
    case OP_CONV:
    case OP_SCAN:
    case OP_DELTA:
    case OP_WKV: ref_run_state_op(r, run, op); return;
    case OP_LOGITS: run_logits(r, run, op); return;
    case OP_SELECT: /* ref_run does it: it changes the batch */
    case OP_N_CODES: return;
    }
}
