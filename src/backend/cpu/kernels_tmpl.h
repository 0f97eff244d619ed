/* Every kernel in plain C, for every tensor type, straight from the rows of the file. A tier's file includes this, is compiled
 * for its instruction set, and starts from fill_kernels. Sums run over 16 lanes, so that compilers
 * vectorise them without changing the order of additions. */
#include "backend/cpu/cpu.h"

#include "base/half.h"
#include "tensor/decode.h"

#include <math.h>

#define LANES 16

/* Pairwise sum of LANES partial sums. */
static float lanes_sum(const float *a)
{
    float s[LANES];
    memcpy(s, a, sizeof s);
    for (int w = LANES / 2; w > 0; w /= 2)
        for (int i = 0; i < w; i++) s[i] += s[i + w];
    return s[0];
}

static float dot_f32(const float *a, const float *b, int n)
{
    float acc[LANES] = {0};
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++) acc[j] += a[i + j] * b[i + j];
    for (int j = 0; i < n; i++, j++) acc[j] += a[i] * b[i];
    return lanes_sum(acc);
}

/* ---- rows ---- */

static void rms_norm(float *dst, const float *x, const float *w, const float *b, int n, float eps)
{
    float r = 1.0f / sqrtf(dot_f32(x, x, n) / (float)n + eps);
    for (int i = 0; i < n; i++) dst[i] = x[i] * r * (w ? w[i] : 1.0f) + (b ? b[i] : 0.0f);
}

static void layer_norm(float *dst, const float *x, const float *w, const float *b, int n, float eps)
{
    float acc[LANES] = {0};
    for (int i = 0; i < n; i++) acc[i % LANES] += x[i];
    float mean = lanes_sum(acc) / (float)n;
    memset(acc, 0, sizeof acc);
    for (int i = 0; i < n; i++) acc[i % LANES] += (x[i] - mean) * (x[i] - mean);
    float r = 1.0f / sqrtf(lanes_sum(acc) / (float)n + eps);
    for (int i = 0; i < n; i++) dst[i] = (x[i] - mean) * r * (w ? w[i] : 1.0f) + (b ? b[i] : 0.0f);
}

static void rope(float *x, const float *cos_sin, const struct rope *r)
{
    int half = r->n_rot / 2;
    int second = r->style == ROPE_HALVES ? half : 1, step = r->style == ROPE_HALVES ? 1 : 2;
    for (int h = 0; h < r->n_heads; h++, x += r->head_dim) {
        for (int i = 0; i < half; i++) {
            float c = cos_sin[2 * i], s = cos_sin[2 * i + 1];
            float *a = x + i * step, *b = a + second, a0 = *a, b0 = *b;
            *a = a0 * c - b0 * s;
            *b = a0 * s + b0 * c;
        }
    }
}

static inline float silu(float x) { return x / (1.0f + exp_fast(-x)); }
static inline float gelu_tanh(float x)
{
    float u = 0.7978845608028654f * (x + 0.044715f * x * x * x);
    return x / (1.0f + exp_fast(-2.0f * u)); /* (1 + tanh u) / 2 = 1 / (1 + e^-2u) */
}
static inline float sigmoid_fast(float x) { return 1.0f / (1.0f + exp_fast(-x)); }
/* Near 0, where the difference would lose digits, its series. */
static inline float tanh_fast(float x)
{
    const float y = x * x;
    const float series = x - x * y * (0.33333333f - y * (0.13333333f - y * (0.053968254f - y * (0.021869489f - y * (0.0088632355f - y * 0.0035921280f)))));
    const float far = 1.0f - 2.0f / (exp_fast(2.0f * x) + 1.0f);
    return y < 0.25f ? series : far;
}
static inline float gelu_erf(float x) { return 0.5f * x * (1.0f + erff(x * 0.7071067811865476f)); }

static void act(float *dst, const float *x, int n, enum activation f)
{
    switch (f) {
    case ACTIVATION_SILU:
        for (int i = 0; i < n; i++) dst[i] = silu(x[i]);
        break;
    case ACTIVATION_GELU_TANH:
        for (int i = 0; i < n; i++) dst[i] = gelu_tanh(x[i]);
        break;
    case ACTIVATION_GELU_ERF:
        for (int i = 0; i < n; i++) dst[i] = gelu_erf(x[i]);
        break;
    case ACTIVATION_RELU:
        for (int i = 0; i < n; i++) dst[i] = x[i] > 0 ? x[i] : 0;
        break;
    case ACTIVATION_RELU_SQUARED:
        for (int i = 0; i < n; i++) dst[i] = x[i] > 0 ? x[i] * x[i] : 0;
        break;
    case ACTIVATION_SIGMOID:
        for (int i = 0; i < n; i++) dst[i] = sigmoid_fast(x[i]);
        break;
    case ACTIVATION_TANH:
        for (int i = 0; i < n; i++) dst[i] = tanh_fast(x[i]);
        break;
    case ACTIVATION_SWIGLU_OAI:
    case ACTIVATION_N: break;
    }
}

static inline float clamped(float x, float least, float most) { return x < least ? least : x > most ? most : x; }

static void swiglu_oai(float *dst, const float *gate, const float *up, int n)
{
    for (int i = 0; i < n; i++) {
        const float g = gate[i] > 7.0f ? 7.0f : gate[i];
        dst[i] = g / (1.0f + exp_fast(-1.702f * g)) * (clamped(up[i], -7.0f, 7.0f) + 1.0f);
    }
}

static void glu(float *dst, const float *gate, const float *up, int n, enum activation f)
{
    if (f == ACTIVATION_SILU) {
        for (int i = 0; i < n; i++) dst[i] = silu(gate[i]) * up[i];
        return;
    }
    if (f == ACTIVATION_SWIGLU_OAI) {
        swiglu_oai(dst, gate, up, n);
        return;
    }
    float part[64]; /* dst may be gate or up */
    for (int i = 0; i < n; i += (int)COUNT_OF(part)) {
        int m = MIN(n - i, (int)COUNT_OF(part));
        act(part, gate + i, m, f);
        for (int j = 0; j < m; j++) dst[i + j] = part[j] * up[i + j];
    }
}

static void mul(float *dst, const float *a, const float *b, int n)
{
    for (int i = 0; i < n; i++) dst[i] = a[i] * b[i];
}

static void add(float *dst, const float *a, const float *b, int n)
{
    for (int i = 0; i < n; i++) dst[i] = a[i] + b[i];
}

static void lerp(float *dst, const float *a, const float *b, const float *w, int n)
{
    for (int i = 0; i < n; i++) dst[i] = a[i] + b[i] * w[i];
}

static void scale(float *dst, const float *x, int n, float factor)
{
    for (int i = 0; i < n; i++) dst[i] = factor * x[i];
}

static void softcap(float *dst, const float *x, int n, float cap)
{
    const float inv = 2.0f / cap;
    for (int i = 0; i < n; i++) dst[i] = cap * (1.0f - 2.0f / (exp_fast(x[i] * inv) + 1.0f));
}

static void clamp(float *dst, const float *x, int n, float most)
{
    for (int i = 0; i < n; i++) dst[i] = clamped(x[i], -most, most);
}

/* e^x - 1 - x for x <= 0: near 0 the difference would have no digits left. */
static inline float exp_rest(float x)
{
    const float near = x * x * (0.5f + x * (1.0f / 6 + x * (1.0f / 24 + x * (1.0f / 120 + x * (1.0f / 720 + x * (1.0f / 5040 + x * (1.0f / 40320)))))));
    return x > -0.5f ? near : exp_fast(x) - 1.0f - x;
}

static void xielu(float *dst, const float *x, int n, const struct xielu *f)
{
    const float above = (float)f->above, below = (float)f->below, linear = (float)f->linear, eps = (float)f->eps;
    for (int i = 0; i < n; i++) {
        const float v = x[i], least = v > eps ? eps : v;
        dst[i] = linear * v + (v > 0 ? above * v * v : below * (exp_rest(least) + (least - v)));
    }
}

static void add_scaled(float *dst, const float *x, int n, float factor)
{
    for (int i = 0; i < n; i++) dst[i] += factor * x[i];
}

/* The largest magnitude of n values; NaN if one is NaN: its bits are above those of every number. */
static float magnitude(const float *x, int n)
{
    uint32_t top = 0;
    for (int i = 0; i < n; i++) {
        uint32_t a = f32_bits(x[i]) & 0x7fffffffu;
        top = a > top ? a : top;
    }
    return f32_from_bits(top);
}

/* x rounded to an integer, for |x| < 2^22. */
static inline int32_t nearest(float x) { return (int32_t)(f32_bits(x + ACT_MAGIC) - ACT_MAGIC_BITS); }

static void quantize(const float *x, int n, struct act_row row)
{
    for (int u = 0; u < n / ACT_GROUP; u++, x += ACT_GROUP) {
        const float d = act_scale(magnitude(x, ACT_GROUP)), inv = d > 0 ? 1.0f / d : 0.0f;
        int8_t q[ACT_GROUP];
        int sum[2] = {0};
        for (int i = 0; i < ACT_GROUP; i++) q[i] = (int8_t)nearest(x[i] * inv);
        for (int i = 0; i < 16; i++) {
            sum[0] += q[i];
            sum[1] += q[16 + i];
        }
        for (int i = 0; i < ACT_GROUP / 4; i++) memcpy(row.q + (u * (ACT_GROUP / 4) + i) * row.T * 4, q + 4 * i, 4);
        act_put_sums(&row.group[u * row.T], &row.halves[u * row.T], d, sum[0], sum[1]);
        for (int i = 0; i < 2 && row.pairs; i++) act_put_pairs(row.pairs + (2 * u + i) * row.T * 2, q + 16 * i);
    }
}

static void tile_f32(const float *x, int n, float *dst, int T)
{
    for (int i = 0; i < n; i++) dst[i * T] = x[i];
}

static void tile_bf16(const float *x, int n, uint16_t *dst, int T)
{
    for (int i = 0; i < n; i++) dst[i / 2 * T * 2 + i % 2] = bf16_from_f32(x[i]);
    if (n % 2) dst[n / 2 * T * 2 + 1] = 0;
}

/* ---- attention ---- */

static float kv_element(const struct cpu_kv_layout *kv, const uint8_t *p, size_t i)
{
    if (kv->type == KG_KV_F32) return f32_from_bits(load_u32(p + 4 * i));
    if (kv->type == KG_KV_F16) return f32_from_f16(load_u16(p + 2 * i));
    return (float)((const int8_t *)p)[i];
}

static void kv_put(kg_kv_type type, uint8_t *p, size_t i, float x)
{
    if (type == KG_KV_F32) {
        memcpy(p + 4 * i, &x, 4);
    } else {
        uint16_t h = f16_from_f32(x);
        memcpy(p + 2 * i, &h, 2);
    }
}

/* Rounds x[n] to int8 in groups of KV_GROUP; element i goes to q[i * stride], group g's scale to scale[g * scale_stride]. */
static void kv_put_q8(const float *x, int n, int8_t *q, int stride, float *scale, int scale_stride)
{
    for (int g = 0; g * KV_GROUP < n; g++) {
        const int first = g * KV_GROUP, end = MIN(n, first + KV_GROUP);
        const float d = magnitude(x + first, end - first) / 127.0f, inv = d > 0 ? 1.0f / d : 0.0f;
        scale[g * scale_stride] = d;
        for (int i = first; i < end; i++) q[i * stride] = (int8_t)nearest(x[i] * inv);
    }
}

static void kv_store(const struct cpu_kv_layout *kv, uint8_t *block, int slot, int h, const float *k, const float *v)
{
    size_t k0 = (size_t)h * (size_t)kv->k_dim * KV_BLOCK, v0 = ((size_t)h * KV_BLOCK + (size_t)slot) * (size_t)kv->v_dim;
    if (kv->type == KG_KV_Q8_0) {
        float *ks = (float *)(block + kv->k_scale_offset) + h * kv->k_groups * KV_BLOCK + slot;
        float *vs = (float *)(block + kv->v_scale_offset) + (h * KV_BLOCK + slot) * kv->v_groups;
        kv_put_q8(k, kv->k_dim, (int8_t *)(block + kv->k_offset) + k0 + slot, KV_BLOCK, ks, KV_BLOCK);
        kv_put_q8(v, kv->v_dim, (int8_t *)(block + kv->v_offset) + v0, 1, vs, 1);
        return;
    }
    for (int i = 0; i < kv->k_dim; i++) kv_put(kv->type, block + kv->k_offset, k0 + (size_t)(i * KV_BLOCK + slot), k[i]);
    for (int i = 0; i < kv->v_dim; i++) kv_put(kv->type, block + kv->v_offset, v0 + (size_t)i, v[i]);
}

/* Widens one head's K or V of a block to f32; Q8_0: group scales of K lie [k_groups][KV_BLOCK], of V [KV_BLOCK][v_groups]. */
static void widen_k(const struct cpu_kv_layout *kv, const uint8_t *block, int head, float *dst)
{
    size_t k0 = (size_t)head * (size_t)kv->k_dim * KV_BLOCK;
    for (int i = 0; i < kv->k_dim * KV_BLOCK; i++) dst[i] = kv_element(kv, block + kv->k_offset, k0 + (size_t)i);
    if (kv->type != KG_KV_Q8_0) return;
    const float *ks = (const float *)(block + kv->k_scale_offset) + head * kv->k_groups * KV_BLOCK;
    for (int i = 0; i < kv->k_dim; i++)
        for (int j = 0; j < KV_BLOCK; j++) dst[i * KV_BLOCK + j] *= ks[i / KV_GROUP * KV_BLOCK + j];
}

static void widen_v(const struct cpu_kv_layout *kv, const uint8_t *block, int head, float *dst)
{
    size_t v0 = (size_t)head * (size_t)kv->v_dim * KV_BLOCK;
    for (int i = 0; i < kv->v_dim * KV_BLOCK; i++) dst[i] = kv_element(kv, block + kv->v_offset, v0 + (size_t)i);
    if (kv->type != KG_KV_Q8_0) return;
    const float *vs = (const float *)(block + kv->v_scale_offset) + head * KV_BLOCK * kv->v_groups;
    for (int j = 0; j < KV_BLOCK; j++)
        for (int i = 0; i < kv->v_dim; i++) dst[j * kv->v_dim + i] *= vs[j * kv->v_groups + i / KV_GROUP];
}

static size_t attend_scratch_bytes(int n_rows, int k_dim, int v_dim)
{
    return (size_t)(KV_BLOCK * MAX(k_dim, v_dim) + 2 * n_rows + n_rows * KV_BLOCK) * sizeof(float);
}

/* Scores of one block, from its position `from` on up to n; what they do to the running maximum and sum (online softmax: Milakov and
 * Gimelshein 2018). pos: the block's first position. */
static void block_scores(const struct cpu_attend *a, int h, const float *k, int pos, int from, int n, float *p, float *top, float *sum)
{
    const int k_dim = a->kv->k_dim, v_dim = a->kv->v_dim;
    const float *q = a->q + h * k_dim;
    float *out = a->out + h * v_dim, s[KV_BLOCK] = {0};
    for (int i = 0; i < k_dim; i++)
        for (int j = 0; j < KV_BLOCK; j++) s[j] += q[i] * k[i * KV_BLOCK + j];
    for (int j = 0; j < KV_BLOCK; j++) s[j] *= a->scale;
    attend_adjust(s, KV_BLOCK, a->softcap, a->slopes ? a->slopes[h] : 0, pos, a->n_pos - 1);
    float m = *top;
    for (int j = from; j < n; j++) m = fmaxf(m, s[j]);
    float fade = expf(*top - m); /* 0 for the first block: exp(-inf) */
    if (fade != 1.0f)
        for (int i = 0; i < v_dim; i++) out[i] *= fade;
    *sum *= fade;
    for (int j = 0; j < KV_BLOCK; j++) {
        p[j] = j >= from && j < n ? exp_fast(s[j] - m) : 0.0f;
        *sum += p[j];
    }
    *top = m;
}

static void attend_token(const struct cpu_attend *a)
{
    int k_dim = a->kv->k_dim, v_dim = a->kv->v_dim, n_q = a->n_q, begin, end = attend_range(a, 0, &begin);
    float *wide = a->scratch, *top = wide + KV_BLOCK * MAX(k_dim, v_dim), *sum = top + n_q, *p = sum + n_q;
    for (int h = 0; h < n_q; h++) {
        top[h] = a->sinks ? a->sinks[h] : -INFINITY;
        sum[h] = a->sinks ? 1 : 0;
    }
    memset(a->out, 0, (size_t)(n_q * v_dim) * sizeof(float));
    for (int b = begin / KV_BLOCK; b * KV_BLOCK < end; b++) {
        const int first = b * KV_BLOCK, from = MAX(0, begin - first), n = MIN(KV_BLOCK, end - first);
        widen_k(a->kv, a->blocks[b], a->kv_head, wide);
        for (int h = 0; h < n_q; h++) block_scores(a, h, wide, first, from, n, p + h * KV_BLOCK, &top[h], &sum[h]);
        widen_v(a->kv, a->blocks[b], a->kv_head, wide);
        for (int h = 0; h < n_q; h++)
            for (int j = from; j < n; j++)
                for (int i = 0; i < v_dim; i++) a->out[h * v_dim + i] += p[h * KV_BLOCK + j] * wide[j * v_dim + i];
    }
    for (int h = 0; h < n_q; h++)
        for (int i = 0; i < v_dim; i++) a->out[h * v_dim + i] /= sum[h];
}

static void attend(const struct cpu_attend *a)
{
    for (int t = 0; t < a->n_tokens; t++) {
        struct cpu_attend one = *a;
        one.q += (size_t)t * a->q_stride;
        one.out += (size_t)t * a->out_stride;
        one.n_pos += t;
        attend_token(&one);
    }
}

/* ---- matmul over rows of the file ---- */

static size_t rows_f32_scratch(int in, int max_n) { (void)max_n; return (size_t)in * sizeof(float); }

static void rows_f32(const struct cpu_matmul *m, int row0, int row1)
{
    decode_f32_fn decode = decode_f32(m->tensor->type);
    float *w = m->scratch;
    for (int o = row0; o < row1; o++) {
        decode(tensor_row(m->tensor, o), w, m->in);
        for (int t = m->t0; t < m->t1; t++)
            m->y[(size_t)t * (size_t)m->out + (size_t)o] = dot_f32(w, m->x + (size_t)t * (size_t)m->in, m->in) + (m->bias ? m->bias[o] : 0.0f);
    }
}

/* Rows are decoded ROWS at a time, then each token's activations are gathered once for all of them. */
#define ROWS PANEL
struct decoded {
    float *scale, *min; /* [ROWS][groups] */
    int8_t *w, *q;      /* [ROWS][in], [in] */
};

static size_t rows_int8_scratch(int in, int max_n)
{
    (void)max_n;
    return (size_t)in * (ROWS + 1) + (size_t)(in / 16) * ROWS * 2 * sizeof(float);
}

static int dot_int8(const int8_t *a, const int8_t *b, int n)
{
    int s = 0;
    for (int i = 0; i < n; i++) s += a[i] * b[i];
    return s;
}

static float row_int8(const int8_t *w, const float *scale, const float *min, const int8_t *q, const struct act_row *a, int in, int group)
{
    const int step = MIN(group, ACT_GROUP);
    float acc = 0;
    for (int k = 0; k < in; k += step) {
        const struct act_group *ag = &a->group[k / ACT_GROUP * a->T];
        acc += (float)dot_int8(w + k, q + k, step) * ag->scale * scale[k / group];
        if (min) acc -= (step == 32 ? ag->sum_scaled : a->halves[k / ACT_GROUP * a->T].sum_scaled[k / 16 % 2]) * min[k / group];
    }
    return acc;
}

static void rows_int8(const struct cpu_matmul *m, int row0, int row1)
{
    const struct int_form f = decode_int_form(m->tensor->type);
    const int groups = m->in / f.group;
    struct decoded d = {.scale = m->scratch};
    d.min = d.scale + ROWS * groups;
    d.w = (int8_t *)(d.min + ROWS * groups);
    d.q = d.w + ROWS * m->in;
    for (int o = row0; o < row1; o += ROWS) {
        int n_rows = MIN(ROWS, row1 - o);
        for (int r = 0; r < n_rows; r++)
            f.decode(tensor_row(m->tensor, o + r), d.w + r * m->in, d.scale + r * groups, d.min + r * groups, m->in);
        for (int t = m->t0; t < m->t1; t++) {
            struct act_row a = act_row(&m->acts, m->in, m->n, t);
            for (int i = 0; i < m->in / 4; i++) memcpy(d.q + 4 * i, a.q + i * a.T * 4, 4);
            float *y = m->y + (size_t)t * (size_t)m->out + (size_t)o;
            for (int r = 0; r < n_rows; r++)
                y[r] = row_int8(d.w + r * m->in, d.scale + r * groups, f.has_min ? d.min + r * groups : NULL, d.q, &a, m->in, f.group) +
                       (m->bias ? m->bias[o + r] : 0.0f);
        }
    }
}

static const struct cpu_format *format(enum tensor_type type, kg_activations activations)
{
    static const struct cpu_format exact = {.name = "rows", .acts = ACTS_ROWS, .scratch_bytes = rows_f32_scratch, .run = rows_f32};
    static const struct cpu_format fast = {.name = "rows int8", .acts = ACTS_INT8, .scratch_bytes = rows_int8_scratch, .run = rows_int8};
    return activations == KG_ACT_INT8 && decode_int_form(type).group > 0 ? &fast : &exact;
}

/* ---- what depends on earlier tokens ---- */

static inline float softplus_fast(float x)
{
    const float e = exp_fast(x > 0 ? -x : x); /* at most 1 */
    return (x > 0 ? x : 0) + log1pf(e);
}

/* state {width, taps - 1}: the last numbers, oldest first, channels side by side. */
static void conv(const struct cpu_state_job *j)
{
    const int taps = (int)j->op->w->ne[0], n = (int)j->op->w->ne[1];
    for (int c = j->first; c < j->end; c++) j->y[c] = j->w[c * taps + taps - 1] * j->x[c];
    for (int k = 0; k < taps - 1; k++) {
        float *last = j->state + (size_t)k * (size_t)n;
        const float *next = k + 1 < taps - 1 ? last + n : j->x;
        for (int c = j->first; c < j->end; c++) {
            j->y[c] += j->w[c * taps + k] * last[c];
            last[c] = next[c];
        }
    }
    if (j->b)
        for (int c = j->first; c < j->end; c++) j->y[c] += j->b[c];
}

/* state {n_state, head_dim, n_heads} */
static void scan(const struct cpu_state_job *j)
{
    const struct scan *s = &j->op->scan;
    const int N = s->n_state, per_group = s->n_heads / s->n_groups;
    const bool one = j->op->w->ne[0] == 1;
    float *decay = j->scratch, *in = decay + N;
    for (int head = j->first; head < j->end; head++) {
        const float *B = j->x2 + (size_t)(head / per_group) * (size_t)N, *C = B + (size_t)s->n_groups * (size_t)N;
        const float step = softplus_fast(j->x1[head]);
        float *h = j->state + (size_t)head * (size_t)s->head_dim * (size_t)N;
        if (one) {
            const float all = exp_fast(step * j->w[head]);
            for (int n = 0; n < N; n++) decay[n] = all;
        } else {
            for (int n = 0; n < N; n++) decay[n] = exp_fast(step * j->w[head * N + n]);
        }
        for (int n = 0; n < N; n++) in[n] = step * B[n];
        for (int p = head * s->head_dim; p < (head + 1) * s->head_dim; p++, h += N) {
            const float x = j->x[p];
            for (int n = 0; n < N; n++) h[n] = decay[n] * h[n] + in[n] * x;
            j->y[p] = dot_f32(C, h, N) + j->b[head] * x;
        }
    }
}

/* state {v_dim, k_dim, n_heads} */
static void delta(const struct cpu_state_job *j)
{
    const struct delta *d = &j->op->delta;
    const int K = d->k_dim, V = d->v_dim, per_k = d->n_heads / d->n_k_heads;
    float *change = j->scratch;
    for (int head = j->first; head < j->end; head++) {
        const int part = head / per_k, k_head = d->tiled ? head % d->n_k_heads : part;
        const float *q = j->x + k_head * K, *k = q + d->n_k_heads * K, *v = j->x + 2 * d->n_k_heads * K + head * V;
        const float *gates = j->x1 + part * 2 * per_k + head % per_k;
        const float q_scale = 1.0f / sqrtf((dot_f32(q, q, K) + (float)d->eps) * (float)K), k_scale = 1.0f / sqrtf(dot_f32(k, k, K) + (float)d->eps);
        const float decay = exp_fast(j->w[head] * softplus_fast(gates[per_k] + j->b[head])), write = sigmoid_fast(gates[0]);
        float *S = j->state + (size_t)head * (size_t)K * (size_t)V, *y = j->y + head * V;
        for (int i = 0; i < V; i++) change[i] = y[i] = 0;
        for (int r = 0; r < K; r++) {
            const float kr = k[r] * k_scale;
            for (int i = 0; i < V; i++) {
                S[r * V + i] *= decay;
                change[i] += kr * S[r * V + i];
            }
        }
        for (int i = 0; i < V; i++) change[i] = write * (v[i] - change[i]);
        for (int r = 0; r < K; r++) {
            const float kr = k[r] * k_scale, qr = q[r] * q_scale;
            for (int i = 0; i < V; i++) {
                S[r * V + i] += kr * change[i];
                y[i] += qr * S[r * V + i];
            }
        }
    }
}

/* state {value, key, n_heads}: a key's numbers side by side, for all values at once. */
static void wkv(const struct cpu_state_job *j)
{
    const int N = j->op->wkv.head_dim, all = j->op->wkv.n_heads * N;
    float *gone = j->scratch; /* what n finds in the state */
    for (int head = j->first; head < j->end; head++) {
        const int at = head * N;
        const float *r = j->x + at, *k = j->x + all + at, *g = j->x1 + at, *a = j->x1 + all + at, *v = j->x2 + at;
        const float *u = j->w + at, *c = j->w + all + at, *m = j->w + 2 * all + at;
        float *S = j->state + (size_t)head * (size_t)N * (size_t)N, *y = j->y + at, *direct = j->y + all + at;
        float length = 0, bonus = 0;
        for (int i = 0; i < N; i++) length += k[i] * u[i] * (k[i] * u[i]);
        const float inv = 1.0f / fmaxf(sqrtf(length), (float)j->op->wkv.eps);
        for (int i = 0; i < N; i++) gone[i] = y[i] = 0;
        for (int i = 0; i < N; i++) {
            const float n = k[i] * u[i] * inv, *s = S + (size_t)i * (size_t)N;
            for (int e = 0; e < N; e++) gone[e] += n * s[e];
        }
        for (int i = 0; i < N; i++) {
            const float rate = sigmoid_fast(a[i]), decay = exp_fast(-0.60653065971263342f * sigmoid_fast(g[i]));
            const float out = -(k[i] * u[i] * inv * rate), in = k[i] * (1.0f + (rate - 1.0f) * c[i]), ri = r[i];
            float *s = S + (size_t)i * (size_t)N;
            bonus += ri * in * m[i];
            for (int e = 0; e < N; e++) {
                s[e] = decay * s[e] + out * gone[e] + in * v[e];
                y[e] += ri * s[e];
            }
        }
        for (int i = 0; i < N; i++) direct[i] = bonus * v[i];
    }
}

static void fill_kernels(struct cpu_kernels *k)
{
    *k = (struct cpu_kernels){
        .act_excess = 1,
        .rms_norm = rms_norm,
        .layer_norm = layer_norm,
        .rope = rope,
        .act = act,
        .glu = glu,
        .add = add,
        .mul = mul,
        .lerp = lerp,
        .scale = scale,
        .softcap = softcap,
        .xielu = xielu,
        .clamp = clamp,
        .add_scaled = add_scaled,
        .quantize = quantize,
        .tile_f32 = tile_f32,
        .tile_bf16 = tile_bf16,
        .kv_store = kv_store,
        .attend = attend,
        .attend_scratch_bytes = attend_scratch_bytes,
        .conv = conv,
        .scan = scan,
        .delta = delta,
        .wkv = wkv,
        .format = format,
    };
}
