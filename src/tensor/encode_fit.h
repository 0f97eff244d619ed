/* What the encoders share: least squares over candidate scales. For a given scale the nearest levels are the best; for given levels
 * the best scale (and minimum) has a closed form: the searches alternate between the two from several starts and keep the best.
 * Sums run in eight lanes, so that compilers vectorise them without reordering. Included by encode*.c only. */
#ifndef TENSOR_ENCODE_FIT_H
#define TENSOR_ENCODE_FIT_H

#include "base/half.h"
#include "tensor/encode.h"

#include <float.h>
#include <math.h>

#define QUANT(ENUM, name, text, id, block, bytes) extern const struct encoder encoder_##name;
#include "tensor/quant.def"
#undef QUANT

/* BLOCK_Q4_0, BYTES_Q4_0 ... */
enum {
#define QUANT(ENUM, name, text, id, block, bytes) BLOCK_##ENUM = block, BYTES_##ENUM = bytes,
#include "tensor/quant.def"
#undef QUANT
    LARGEST_BLOCK = 256,
    MOST_GROUPS = 16,
    LANES = 8, /* every group is a multiple of it */
};

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* The whole numbers that a type can hold before scaling: all of lo..hi (n 0), or n sorted levels. */
struct code {
    float lo, hi;
    int n;
    float level[16];
    /* Where starting scales are looked for: between `from` and `to` times the scale that just reaches the largest value. */
    float from, to;
    int steps;
};

ALWAYS_INLINE float nearest(const struct code *c, float v)
{
    const float round = 12582912; /* 1.5 * 2^23: adding it leaves no bits for a fraction */
    if (c->n) {
        float r = c->level[0];
        for (int j = 1; j < c->n; j++) r += v > 0.5f * (c->level[j - 1] + c->level[j]) ? c->level[j] - c->level[j - 1] : 0;
        return r;
    }
    v = v > c->lo ? v : c->lo;
    v = v < c->hi ? v : c->hi;
    return (v + round) - round;
}

ALWAYS_INLINE float lanes_sum(const float s[LANES])
{
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

/* d as an f16 can hold it, not infinite. */
static inline uint16_t f16_finite(float d) { return f16_from_f32(d > 65504 ? 65504 : d < -65504 ? -65504 : d); }

static inline float inverse(float d) { return fabsf(d) > 1e-37f ? 1 / d : 0; }

/* q[n] = the nearest levels for scale d and offset m; returns the error sum w (x - d q - m)^2. */
ALWAYS_INLINE float assign(const struct code *c, const float *restrict x, const float *restrict w, int n, float d, float m, float *restrict q)
{
    float inv = inverse(d), err[LANES] = {0};
    for (int i = 0; i < n; i += LANES)
        for (int l = 0; l < LANES; l++) {
            float v = nearest(c, (x[i + l] - m) * inv), e = x[i + l] - d * v - m;
            q[i + l] = v;
            err[l] += w[i + l] * e * e;
        }
    return lanes_sum(err);
}

/* The scale that suits given levels best; *gain: by how much it makes the error smaller than d = 0 does. */
ALWAYS_INLINE float probe_scale(const struct code *c, const float *restrict x, const float *restrict w, int n, float d, float *gain)
{
    float inv = inverse(d), xq[LANES] = {0}, qq[LANES] = {0};
    for (int i = 0; i < n; i += LANES)
        for (int l = 0; l < LANES; l++) {
            float v = nearest(c, x[i + l] * inv), wv = w[i + l] * v;
            xq[l] += wv * x[i + l];
            qq[l] += wv * v;
        }
    float a = lanes_sum(xq), b = lanes_sum(qq);
    *gain = b > 0 ? a * (a / b) : 0;
    return b > 0 ? a / b : 0;
}

/* The best scale for x[n] = d * level. */
ALWAYS_INLINE float fit_scale(const struct code *c, const float *restrict x, const float *restrict w, int n)
{
    float top = 0, best = 0, best_gain = 0, gain;
    for (int i = 0; i < n; i++)
        if (fabsf(x[i]) > fabsf(top)) top = x[i];
    float ends[2] = {c->lo, c->hi};
    for (int side = 0; side < 2; side++)
        for (int k = 0; k < c->steps && ends[side] != 0; k++) {
            float s = c->from + (c->to - c->from) * (float)k / (float)MAX(c->steps - 1, 1);
            float d = probe_scale(c, x, w, n, top / ends[side] * s, &gain);
            if (gain > best_gain) best_gain = gain, best = d;
        }
    for (int k = 0; k < 4; k++) {
        float d = probe_scale(c, x, w, n, best, &gain);
        if (!(gain > best_gain)) break;
        best_gain = gain, best = d;
    }
    return best;
}

/* ---- an f16 scale per group over integers: two levels of scales */

struct two_level {
    uint16_t d;               /* f16 */
    int scale[MOST_GROUPS];   /* lo..hi */
    float q[LARGEST_BLOCK];
    float err;
};

/* The best integer scales for a given d, near those that the groups would like. */
ALWAYS_INLINE void assign_groups(const struct code *c, const float *restrict x, const float *restrict w, int group, int lo, int hi,
                                 const float *wanted, struct two_level *t)
{
    float d = f32_from_f16(t->d), q[LARGEST_BLOCK];
    t->err = 0;
    for (int g = 0; g < LARGEST_BLOCK / group; g++) {
        const float *xg = x + g * group, *wg = w + g * group;
        float best = INFINITY, want = wanted[g] * inverse(d);
        int near = want >= (float)hi ? hi : want <= (float)lo ? lo : (int)lrintf(want);
        for (int k = 0; k < 3; k++) {
            int s = near + (k == 2 ? -1 : k);
            if (s < lo || s > hi) continue;
            float err = assign(c, xg, wg, group, d * (float)s, 0, q);
            if (!(err < best)) continue;
            best = err;
            t->scale[g] = s;
            memcpy(t->q + g * group, q, (size_t)group * sizeof *q);
        }
        t->err += best;
    }
}

/* 256 values in groups with scales lo..hi times one f16. */
ALWAYS_INLINE void fit_groups(const struct code *c, const float *restrict x, const float *restrict w, int group, int lo, int hi,
                              struct two_level *out)
{
    float wanted[MOST_GROUPS], top = 0;
    for (int g = 0; g < LARGEST_BLOCK / group; g++) {
        wanted[g] = fit_scale(c, x + g * group, w + g * group, group);
        if (fabsf(wanted[g]) > fabsf(top)) top = wanted[g];
    }
    *out = (struct two_level){.err = INFINITY};
    const int ends[] = {lo, hi, lo + 1, hi - 1};
    struct two_level t = {0};
    for (size_t k = 0; k < COUNT_OF(ends); k++) {
        t.d = f16_finite(top / (float)ends[k]);
        assign_groups(c, x, w, group, lo, hi, wanted, &t);
        if (t.err < out->err) *out = t;
    }
    for (int k = 0; k < 3; k++) {
        double xq = 0, qq = 0;
        for (int i = 0; i < LARGEST_BLOCK; i++) {
            double v = (double)out->scale[i / group] * (double)out->q[i];
            xq += (double)w[i] * v * (double)x[i];
            qq += (double)w[i] * v * v;
        }
        t.d = f16_finite(qq > 0 ? (float)(xq / qq) : 0);
        if (t.d == out->d) break;
        assign_groups(c, x, w, group, lo, hi, wanted, &t);
        if (!(t.err < out->err)) break;
        *out = t;
    }
}

/* ---- scale and offset */

struct affine {
    float d, m;
};

/* Sums over one assignment of levels, and the solution of their normal equations. */
struct moments {
    double w, x, q, xq, qq, xx;
};

ALWAYS_INLINE struct moments probe_affine(const struct code *c, const float *restrict x, const float *restrict w, int n, struct affine a)
{
    float inv = inverse(a.d), s[6][LANES] = {{0}};
    for (int i = 0; i < n; i += LANES)
        for (int l = 0; l < LANES; l++) {
            float xi = x[i + l], wi = w[i + l], v = nearest(c, (xi - a.m) * inv), wv = wi * v;
            s[0][l] += wi;
            s[1][l] += wi * xi;
            s[2][l] += wv;
            s[3][l] += wv * xi;
            s[4][l] += wv * v;
            s[5][l] += wi * xi * xi;
        }
    return (struct moments){(double)lanes_sum(s[0]), (double)lanes_sum(s[1]), (double)lanes_sum(s[2]),
                            (double)lanes_sum(s[3]), (double)lanes_sum(s[4]), (double)lanes_sum(s[5])};
}

static inline double affine_error(const struct moments *s, double d, double m)
{
    return s->xx - 2 * d * s->xq - 2 * m * s->x + d * d * s->qq + 2 * d * m * s->q + m * m * s->w;
}

/* below: the offset may not be above zero */
static inline struct affine solve_affine(const struct moments *s, bool below)
{
    double det = s->w * s->qq - s->q * s->q, d, m;
    if (det > 1e-9 * s->w * s->qq) {
        d = (s->w * s->xq - s->q * s->x) / det;
        m = (s->qq * s->x - s->q * s->xq) / det;
    } else {
        d = 0, m = s->w > 0 ? s->x / s->w : 0;
    }
    if (below && m > 0) m = 0, d = s->qq > 0 ? s->xq / s->qq : 0;
    if (below && d < 0) d = 0;
    return (struct affine){(float)d, (float)m};
}

/* The best d and m for x[n] = d * level + m, the levels being 0..hi. Without weights both ends are cut alike; with them one of the ends may count
 * little, so that it is also tried to cut only one. */
ALWAYS_INLINE struct affine fit_affine(const struct code *c, const float *restrict x, const float *restrict w, int n, bool below)
{
    static const float shares[] = {0.5f, 0, 1}; /* of what is cut off, below */
    float lo = x[0], hi = x[0];
    bool alike = true;
    for (int i = 1; i < n; i++) lo = MIN(lo, x[i]), hi = MAX(hi, x[i]), alike &= w[i] == w[0];
    if (below) lo = MIN(lo, 0);
    struct affine best = {0, lo};
    double best_err = INFINITY;
    const int n_shares = alike ? 1 : (int)COUNT_OF(shares);
    for (int k = 0; k < c->steps * n_shares; k++) {
        float s = c->from + (c->to - c->from) * (float)(k / n_shares) / (float)MAX(c->steps - 1, 1);
        struct affine a = {(hi - lo) / c->hi * s, lo + (hi - lo) * shares[k % n_shares] * (1 - s)};
        if (below && a.m > 0) a.m = 0;
        for (int turn = 0; turn < 3; turn++) {
            struct moments sums = probe_affine(c, x, w, n, a);
            a = solve_affine(&sums, below);
            double err = affine_error(&sums, (double)a.d, (double)a.m);
            if (!(err < best_err)) break;
            best_err = err;
            best = a;
        }
    }
    return best;
}

/* ---- loop over blocks */

typedef void (*encode_block_fn)(const float *restrict x, const float *restrict w, uint8_t *restrict b);

/* Weights that are all zero say nothing: such a block counts all errors alike. */
static inline const float *weights_or(const float *weight, int n, const float *ones)
{
    for (int i = 0; weight && i < n; i++)
        if (weight[i] > 0) return weight;
    return ones;
}

ALWAYS_INLINE void encode_rows(encode_block_fn one, int block, int bytes, const float *src, const float *weight, void *dst, int64_t n)
{
    float ones[LARGEST_BLOCK];
    uint8_t *b = dst;
    for (int i = 0; i < LARGEST_BLOCK; i++) ones[i] = 1;
    for (int64_t i = 0; i < n; i += block, b += bytes) one(src + i, weights_or(weight ? weight + i : NULL, block, ones), b);
}

static inline void store_u16(uint8_t *b, uint16_t v) { memcpy(b, &v, 2); }

/* The pieces of a file of encoders: the block function of type NAME is block_NAME. */
#define ENCODER(ENUM, name)                                                                                                                \
    static void encode_##name(const float *src, const float *weight, void *dst, int64_t n)                                                 \
    {                                                                                                                                      \
        encode_rows(block_##name, BLOCK_##ENUM, BYTES_##ENUM, src, weight, dst, n);                                                        \
    }                                                                                                                                      \
    const struct encoder encoder_##name = {encode_##name};

#endif
