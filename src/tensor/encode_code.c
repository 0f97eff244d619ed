/* Encoders of the types with a table of 16 values (IQ4, MXFP4, NVFP4) and of the ternary and binary ones. */
#include "tensor/codebooks.h"
#include "tensor/encode_fit.h"

/* The code of a level in a table of 16. */
static inline uint8_t code_of(const int8_t *table, float level)
{
    uint8_t k = 0;
    while (k < 15 && (float)table[k] != level) k++;
    return k;
}

/* q[2 * half] -> low nibbles, then high nibbles */
static inline void put_codes(const int8_t *table, const float *restrict q, uint8_t *restrict qs, int half)
{
    for (int j = 0; j < half; j++) qs[j] = (uint8_t)(code_of(table, q[j]) | code_of(table, q[half + j]) << 4);
}

static const struct code iq4 = {.lo = -127, .hi = 113, .n = 16, .from = 0.75f, .to = 1.15f, .steps = 13,
                                .level = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}};
static void block_iq4_nl(const float *restrict x, const float *restrict w, uint8_t *restrict b)
{
    float q[32];
    uint16_t d = f16_finite(fit_scale(&iq4, x, w, 32));
    assign(&iq4, x, w, 32, f32_from_f16(d), 0, q);
    store_u16(b, d);
    put_codes(kvalues_iq4nl, q, b + 2, 16);
}
ENCODER(IQ4_NL, iq4_nl)

static void block_iq4_xs(const float *restrict x, const float *restrict w, uint8_t *restrict b)
{
    struct two_level t;
    uint32_t high = 0;
    fit_groups(&iq4, x, w, 32, -32, 31, &t);
    store_u16(b, t.d);
    memset(b + 4, 0, 4);
    for (int g = 0; g < 8; g++) {
        uint32_t s = (uint32_t)(t.scale[g] + 32);
        b[4 + g / 2] |= (uint8_t)((s & 15) << g % 2 * 4);
        high |= s >> 4 << 2 * g;
        put_codes(kvalues_iq4nl, t.q + 32 * g, b + 8 + 16 * g, 16);
    }
    store_u16(b + 2, (uint16_t)high);
}
ENCODER(IQ4_XS, iq4_xs)

/* Twice the values of E2M1. */
static const struct code fp4 = {.lo = -12, .hi = 12, .n = 15, .from = 0.7f, .to = 1.4f, .steps = 9,
                                .level = {-12, -8, -6, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6, 8, 12}};

/* The exponents around that which just holds the largest value. */
static void block_mxfp4(const float *restrict x, const float *restrict w, uint8_t *restrict b)
{
    float top = 0, best = INFINITY, q[32], kept[32] = {0};
    int exponent = 0;
    for (int i = 0; i < 32; i++) top = MAX(top, fabsf(x[i]));
    frexpf(top, &exponent); /* top < 2^exponent; 12 * 2^(e - 128) shall be about top */
    b[0] = 0;
    for (int k = -5; k <= -2; k++) {
        int e = exponent + 128 + k;
        if (top == 0) e = 0;
        if (e < 0 || e > 254) continue;
        float err = assign(&fp4, x, w, 32, ldexpf(1, e - 128), 0, q);
        if (!(err < best)) continue;
        best = err;
        b[0] = (uint8_t)e;
        memcpy(kept, q, sizeof q);
    }
    put_codes(kvalues_fp4, kept, b + 1, 16);
}
ENCODER(MXFP4, mxfp4)

static inline float half_e4m3(int x) { return x < 8 ? (float)x * 0x1p-10f : ldexpf((float)(8 + (x & 7)), (x >> 3) - 11); }

static void block_nvfp4(const float *restrict x, const float *restrict w, uint8_t *restrict b)
{
    for (int g = 0; g < 4; g++) {
        float want = fabsf(fit_scale(&fp4, x + 16 * g, w + 16 * g, 16)), best = INFINITY, q[16], kept[16] = {0};
        int near = 0;
        while (near < 0x7e && half_e4m3(near + 1) <= want) near++;
        b[g] = 0;
        for (int e = MAX(near - 4, 0); e <= MIN(near + 6, 0x7e); e++) { /* 0x7f is no number */
            float err = assign(&fp4, x + 16 * g, w + 16 * g, 16, half_e4m3(e), 0, q);
            if (!(err < best)) continue;
            best = err;
            b[g] = (uint8_t)e;
            memcpy(kept, q, sizeof q);
        }
        put_codes(kvalues_fp4, kept, b + 4 + 8 * g, 8);
    }
}
ENCODER(NVFP4, nvfp4)

/* ---- ternary and binary */

static const struct code trit = {.lo = -1, .hi = 1, .from = 0.15f, .to = 1.0f, .steps = 18};

/* Five digits of base 3 as ceil(256 / 243 * number), the first digit the highest: see trits in decode_iq.c. */
static void put_trits(const float *restrict q, uint8_t *restrict qs, int n, int digits)
{
    for (int j = 0; j < n; j++) {
        int v = 0;
        for (int i = 0; i < 5; i++) v = 3 * v + (i < digits ? (int)q[n * i + j] + 1 : 0);
        qs[j] = (uint8_t)((v * 256 + 242) / 243);
    }
}

static void block_tq1_0(const float *restrict x, const float *restrict w, uint8_t *restrict b)
{
    float q[256];
    uint16_t d = f16_finite(fabsf(fit_scale(&trit, x, w, 256)));
    assign(&trit, x, w, 256, f32_from_f16(d), 0, q);
    put_trits(q, b, 32, 5);
    put_trits(q + 160, b + 32, 16, 5);
    put_trits(q + 240, b + 48, 4, 4);
    store_u16(b + 52, d);
}
ENCODER(TQ1_0, tq1_0)

static void block_tq2_0(const float *restrict x, const float *restrict w, uint8_t *restrict b)
{
    float q[256];
    uint16_t d = f16_finite(fabsf(fit_scale(&trit, x, w, 256)));
    assign(&trit, x, w, 256, f32_from_f16(d), 0, q);
    memset(b, 0, 64);
    for (int half = 0; half < 2; half++)
        for (int j = 0; j < 4; j++)
            for (int l = 0; l < 32; l++) b[32 * half + l] |= (uint8_t)(((int)q[128 * half + 32 * j + l] + 1) << 2 * j);
    store_u16(b + 64, d);
}
ENCODER(TQ2_0, tq2_0)

/* The sign of each, and the weighted mean of the magnitudes. */
static void block_q1_0(const float *restrict x, const float *restrict w, uint8_t *restrict b)
{
    double sum = 0, weight = 0;
    memset(b, 0, BYTES_Q1_0);
    for (int i = 0; i < BLOCK_Q1_0; i++) {
        sum += (double)(w[i] * fabsf(x[i]));
        weight += (double)w[i];
        b[2 + i / 8] |= (uint8_t)((x[i] >= 0) << i % 8);
    }
    store_u16(b, f16_finite((float)(sum / weight)));
}
ENCODER(Q1_0, q1_0)

static const struct code minus_1_to_2 = {.lo = -1, .hi = 2, .from = 0.3f, .to = 1.1f, .steps = 17};
static void block_q2_0(const float *restrict x, const float *restrict w, uint8_t *restrict b)
{
    float q[64];
    uint16_t d = f16_finite(fit_scale(&minus_1_to_2, x, w, 64));
    assign(&minus_1_to_2, x, w, 64, f32_from_f16(d), 0, q);
    store_u16(b, d);
    for (int i = 0; i < 16; i++) {
        b[2 + i] = 0;
        for (int j = 0; j < 4; j++) b[2 + i] |= (uint8_t)(((int)q[4 * i + j] + 1) << 2 * j);
    }
}
ENCODER(Q2_0, q2_0)
