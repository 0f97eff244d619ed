/* Encoders of the plain number types and of the 32-element blocks with one scale (Q4_0 ... Q8_0). */
#include "tensor/encode_fit.h"

static void encode_plain(const float *src, const float *weight, void *dst, int64_t n)
{
    (void)weight;
    memcpy(dst, src, (size_t)n * sizeof *src);
}
const struct encoder encoder_f32 = {encode_plain};

static void encode_half(const float *src, const float *weight, void *dst, int64_t n)
{
    (void)weight;
    for (int64_t i = 0; i < n; i++) store_u16((uint8_t *)dst + 2 * i, f16_from_f32(src[i]));
}
const struct encoder encoder_f16 = {encode_half};

static void encode_brain(const float *src, const float *weight, void *dst, int64_t n)
{
    (void)weight;
    for (int64_t i = 0; i < n; i++) store_u16((uint8_t *)dst + 2 * i, bf16_from_f32(src[i]));
}
const struct encoder encoder_bf16 = {encode_brain};

/* The scale as an f16, and the levels for it. */
ALWAYS_INLINE void fit_f16_scale(const struct code *c, const float *restrict x, const float *restrict w, uint8_t *restrict d_to, float *restrict q)
{
    uint16_t d = f16_finite(fit_scale(c, x, w, 32));
    store_u16(d_to, d);
    assign(c, x, w, 32, f32_from_f16(d), 0, q);
}

ALWAYS_INLINE void fit_f16_affine(const struct code *c, const float *restrict x, const float *restrict w, uint8_t *restrict to, float *restrict q)
{
    struct affine a = fit_affine(c, x, w, 32, false);
    uint16_t d = f16_finite(a.d), m = f16_finite(a.m);
    store_u16(to, d);
    store_u16(to + 2, m);
    assign(c, x, w, 32, f32_from_f16(d), f32_from_f16(m), q);
}

/* q[32] of 0..15 (or the low four bits of 0..31): low nibbles are the first half */
static inline void put_nibbles(const int *restrict q, uint8_t *restrict qs)
{
    for (int j = 0; j < 16; j++) qs[j] = (uint8_t)((q[j] & 15) | (q[16 + j] & 15) << 4);
}

static inline void put_fifth_bits(const int *restrict q, uint8_t *restrict qh)
{
    for (int i = 0; i < 4; i++) {
        qh[i] = 0;
        for (int j = 0; j < 8; j++) qh[i] |= (uint8_t)((q[8 * i + j] >> 4 & 1) << j);
    }
}

static inline void to_int(const float *restrict f, int *restrict q, int n, int plus)
{
    for (int i = 0; i < n; i++) q[i] = (int)f[i] + plus;
}

static const struct code from_minus_8 = {.lo = -8, .hi = 7, .from = 0.75f, .to = 1.1f, .steps = 15};
static void block_q4_0(const float *restrict x, const float *restrict w, uint8_t *restrict b)
{
    float f[32];
    int q[32];
    fit_f16_scale(&from_minus_8, x, w, b, f);
    to_int(f, q, 32, 8);
    put_nibbles(q, b + 2);
}
ENCODER(Q4_0, q4_0)

static const struct code to_15 = {.lo = 0, .hi = 15, .from = 0.8f, .to = 1.05f, .steps = 11};
static void block_q4_1(const float *restrict x, const float *restrict w, uint8_t *restrict b)
{
    float f[32];
    int q[32];
    fit_f16_affine(&to_15, x, w, b, f);
    to_int(f, q, 32, 0);
    put_nibbles(q, b + 4);
}
ENCODER(Q4_1, q4_1)

static const struct code from_minus_16 = {.lo = -16, .hi = 15, .from = 0.85f, .to = 1.05f, .steps = 17};
static void block_q5_0(const float *restrict x, const float *restrict w, uint8_t *restrict b)
{
    float f[32];
    int q[32];
    fit_f16_scale(&from_minus_16, x, w, b, f);
    to_int(f, q, 32, 16);
    put_fifth_bits(q, b + 2);
    put_nibbles(q, b + 6);
}
ENCODER(Q5_0, q5_0)

static const struct code to_31 = {.lo = 0, .hi = 31, .from = 0.88f, .to = 1.03f, .steps = 11};
static void block_q5_1(const float *restrict x, const float *restrict w, uint8_t *restrict b)
{
    float f[32];
    int q[32];
    fit_f16_affine(&to_31, x, w, b, f);
    to_int(f, q, 32, 0);
    put_fifth_bits(q, b + 4);
    put_nibbles(q, b + 8);
}
ENCODER(Q5_1, q5_1)

static const struct code from_minus_127 = {.lo = -127, .hi = 127, .from = 0.985f, .to = 1.015f, .steps = 9};
static void block_q8_0(const float *restrict x, const float *restrict w, uint8_t *restrict b)
{
    float q[32];
    fit_f16_scale(&from_minus_127, x, w, b, q);
    for (int i = 0; i < 32; i++) b[2 + i] = (uint8_t)(int8_t)q[i];
}
ENCODER(Q8_0, q8_0)
