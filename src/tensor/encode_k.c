/* Encoders of the K-quants: 256 elements in groups of 16 or 32, whose scales (and minima) are integers times an f16. */
#include "tensor/encode_fit.h"

/* ---- with minima: value = d * scale * q - dmin * min */

struct two_level_min {
    uint16_t d, dmin; /* f16 */
    int scale[MOST_GROUPS], min[MOST_GROUPS]; /* 0..most */
    float q[LARGEST_BLOCK];
    float err;
};

static inline int clamped(float v, int most) { return v >= (float)most ? most : v > 0 ? (int)lrintf(v) : 0; }

/* The best integers for given d and dmin, near those that the groups would like. */
ALWAYS_INLINE void assign_min_groups(const struct code *c, const float *restrict x, const float *restrict w, int group, int most,
                                     const struct affine *wanted, struct two_level_min *t)
{
    float d = f32_from_f16(t->d), dmin = f32_from_f16(t->dmin), q[LARGEST_BLOCK];
    t->err = 0;
    for (int g = 0; g < LARGEST_BLOCK / group; g++) {
        const float *xg = x + g * group, *wg = w + g * group;
        float best = INFINITY;
        int s = clamped(wanted[g].d * inverse(d), most), m = clamped(-wanted[g].m * inverse(dmin), most);
        for (int k = 0; k < 9; k++) {
            int ks = s + (k % 3 + 1) % 3 - 1, km = m + (k / 3 + 1) % 3 - 1;
            if (ks < 0 || ks > most || km < 0 || km > most) continue;
            float err = assign(c, xg, wg, group, d * (float)ks, -(dmin * (float)km), q);
            if (!(err < best)) continue;
            best = err;
            t->scale[g] = ks;
            t->min[g] = km;
            memcpy(t->q + g * group, q, (size_t)group * sizeof *q);
        }
        t->err += best;
    }
}

/* The d and dmin that suit the integers of *t best. */
static void refit_min(const float *restrict x, const float *restrict w, int group, const struct two_level_min *t, float *d, float *dmin)
{
    double aa = 0, ab = 0, bb = 0, ax = 0, bx = 0;
    for (int i = 0; i < LARGEST_BLOCK; i++) {
        double a = (double)t->scale[i / group] * (double)t->q[i], b = -(double)t->min[i / group], wi = (double)w[i];
        aa += wi * a * a, ab += wi * a * b, bb += wi * b * b, ax += wi * a * (double)x[i], bx += wi * b * (double)x[i];
    }
    double det = aa * bb - ab * ab;
    if (det > 1e-9 * aa * bb) {
        *d = (float)((ax * bb - bx * ab) / det);
        *dmin = (float)((bx * aa - ax * ab) / det);
    } else {
        *d = aa > 0 ? (float)(ax / aa) : 0;
        *dmin = aa > 0 || bb <= 0 ? 0 : (float)(bx / bb);
    }
    *d = MAX(*d, 0);
    *dmin = MAX(*dmin, 0);
}

ALWAYS_INLINE void fit_min_groups(const struct code *c, const float *restrict x, const float *restrict w, int group, int most,
                                  struct two_level_min *out)
{
    struct affine wanted[MOST_GROUPS];
    float top_d = 0, top_m = 0;
    for (int g = 0; g < LARGEST_BLOCK / group; g++) {
        wanted[g] = fit_affine(c, x + g * group, w + g * group, group, true);
        top_d = MAX(top_d, wanted[g].d);
        top_m = MAX(top_m, -wanted[g].m);
    }
    struct two_level_min t = {0};
    *out = (struct two_level_min){.err = INFINITY};
    for (int k = 0; k < 4; k++) {
        t.d = f16_finite(top_d / (float)(most - k / 2));
        t.dmin = f16_finite(top_m / (float)(most - k % 2));
        assign_min_groups(c, x, w, group, most, wanted, &t);
        if (t.err < out->err) *out = t;
    }
    for (int k = 0; k < 3; k++) {
        float d, dmin;
        refit_min(x, w, group, out, &d, &dmin);
        t.d = f16_finite(d);
        t.dmin = f16_finite(dmin);
        if (t.d == out->d && t.dmin == out->dmin) break;
        assign_min_groups(c, x, w, group, most, wanted, &t);
        if (!(t.err < out->err)) break;
        *out = t;
    }
}

/* Of each 128 elements, bits 2j of 32 bytes hold elements 32j .. 32j+31. */
static inline void put_pairs(const int *restrict q, uint8_t *restrict qs)
{
    for (int half = 0; half < 2; half++)
        for (int l = 0; l < 32; l++) {
            const int *y = q + 128 * half + l;
            qs[32 * half + l] = (uint8_t)((y[0] & 3) | (y[32] & 3) << 2 | (y[64] & 3) << 4 | (y[96] & 3) << 6);
        }
}

static const struct code to_3 = {.lo = 0, .hi = 3, .from = 0.55f, .to = 1.0f, .steps = 10};
static void block_q2_k(const float *restrict x, const float *restrict w, uint8_t *restrict b)
{
    struct two_level_min t;
    int q[256];
    fit_min_groups(&to_3, x, w, 16, 15, &t);
    for (int g = 0; g < 16; g++) b[g] = (uint8_t)(t.scale[g] | t.min[g] << 4);
    for (int i = 0; i < 256; i++) q[i] = (int)t.q[i];
    put_pairs(q, b + 16);
    store_u16(b + 80, t.d);
    store_u16(b + 82, t.dmin);
}
ENCODER(Q2_K, q2_k)

/* As decode_k.c's scales_6 reads them. */
static inline void put_scales_6(const struct two_level_min *t, uint8_t *b)
{
    uint8_t *s = b + 4;
    store_u16(b, t->d);
    store_u16(b + 2, t->dmin);
    for (int g = 0; g < 4; g++) {
        s[g] = (uint8_t)(t->scale[g] | t->scale[4 + g] >> 4 << 6);
        s[4 + g] = (uint8_t)(t->min[g] | t->min[4 + g] >> 4 << 6);
        s[8 + g] = (uint8_t)((t->scale[4 + g] & 15) | (t->min[4 + g] & 15) << 4);
    }
}

static inline void put_nibbles_64(const float *restrict q, uint8_t *restrict qs)
{
    for (int i = 0; i < 4; i++)
        for (int l = 0; l < 32; l++) qs[32 * i + l] = (uint8_t)(((int)q[64 * i + l] & 15) | ((int)q[64 * i + 32 + l] & 15) << 4);
}

static const struct code to_15 = {.lo = 0, .hi = 15, .from = 0.78f, .to = 1.0f, .steps = 12};
static void block_q4_k(const float *restrict x, const float *restrict w, uint8_t *restrict b)
{
    struct two_level_min t;
    fit_min_groups(&to_15, x, w, 32, 63, &t);
    put_scales_6(&t, b);
    put_nibbles_64(t.q, b + 16);
}
ENCODER(Q4_K, q4_k)

static const struct code to_31 = {.lo = 0, .hi = 31, .from = 0.88f, .to = 1.0f, .steps = 9};
static void block_q5_k(const float *restrict x, const float *restrict w, uint8_t *restrict b)
{
    struct two_level_min t;
    fit_min_groups(&to_31, x, w, 32, 63, &t);
    put_scales_6(&t, b);
    put_nibbles_64(t.q, b + 48);
    memset(b + 16, 0, 32);
    for (int g = 0; g < 8; g++)
        for (int l = 0; l < 32; l++) b[16 + l] |= (uint8_t)(((int)t.q[32 * g + l] >> 4) << g);
}
ENCODER(Q5_K, q5_k)

/* ---- without */

static const struct code from_minus_4 = {.lo = -4, .hi = 3, .from = 0.6f, .to = 1.1f, .steps = 13};
static void block_q3_k(const float *restrict x, const float *restrict w, uint8_t *restrict b)
{
    struct two_level t;
    int q[256];
    fit_groups(&from_minus_4, x, w, 16, -32, 31, &t);
    for (int i = 0; i < 256; i++) q[i] = (int)t.q[i] + 4;
    memset(b, 0, 32);
    for (int half = 0; half < 2; half++)
        for (int j = 0; j < 4; j++)
            for (int l = 0; l < 32; l++) b[l] |= (uint8_t)((q[128 * half + 32 * j + l] >> 2) << (4 * half + j));
    put_pairs(q, b + 32);
    uint8_t *sc = b + 96;
    memset(sc, 0, 12);
    for (int g = 0; g < 16; g++) {
        int s = t.scale[g] + 32;
        sc[g % 8] |= (uint8_t)((s & 15) << (g < 8 ? 0 : 4));
        sc[8 + g % 4] |= (uint8_t)(s >> 4 << g / 4 * 2);
    }
    store_u16(b + 108, t.d);
}
ENCODER(Q3_K, q3_k)

static const struct code from_minus_32 = {.lo = -32, .hi = 31, .from = 0.9f, .to = 1.04f, .steps = 10};
static void block_q6_k(const float *restrict x, const float *restrict w, uint8_t *restrict b)
{
    struct two_level t;
    fit_groups(&from_minus_32, x, w, 16, -128, 127, &t);
    for (int half = 0; half < 2; half++) {
        uint8_t *ql = b + 64 * half, *qh = b + 128 + 32 * half;
        const float *y = t.q + 128 * half;
        for (int l = 0; l < 32; l++) {
            int q[4];
            for (int j = 0; j < 4; j++) q[j] = (int)y[32 * j + l] + 32;
            ql[l] = (uint8_t)((q[0] & 15) | (q[2] & 15) << 4);
            ql[32 + l] = (uint8_t)((q[1] & 15) | (q[3] & 15) << 4);
            qh[l] = (uint8_t)(q[0] >> 4 | q[1] >> 4 << 2 | q[2] >> 4 << 4 | q[3] >> 4 << 6);
        }
    }
    for (int g = 0; g < 16; g++) b[192 + g] = (uint8_t)(int8_t)t.scale[g];
    store_u16(b + 208, t.d);
}
ENCODER(Q6_K, q6_k)
