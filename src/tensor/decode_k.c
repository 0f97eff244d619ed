/* Decoders of the K-quants: 256 elements in groups of 16 or 32, whose scales are themselves integers times one f16
 * (Q8_K: one f32 for all). Every product and sum is formed in ggml's order, so the values agree with it bit for bit. */
#include "tensor/decode_rows.h"

/* Q2_K: scales[16] (low nibble scale, high nibble min), qs[64], d f16, dmin f16.
 * Of each 128 elements, bits 2j of 32 bytes hold elements 32j .. 32j+31. */
ALWAYS_INLINE void unpack_q2_k(const uint8_t *restrict b, int8_t *restrict q, float *restrict scale, float *restrict min)
{
    const uint8_t *qs = b + 16;
    float d = load_f16(b + 80), dmin = load_f16(b + 82);
    for (int g = 0; g < 16; g++) scale[g] = d * (float)(b[g] & 15);
    for (int g = 0; g < 16; g++) min[g] = dmin * (float)(b[g] >> 4);
    for (int half = 0; half < 2; half++)
        for (int j = 0; j < 4; j++)
            for (int l = 0; l < 32; l++) q[128 * half + 32 * j + l] = (int8_t)(qs[32 * half + l] >> 2 * j & 3);
}
static const struct format q2_k = {BLOCK_Q2_K, BYTES_Q2_K, 16, true, unpack_q2_k};
void decode_f32_q2_k(const void *src, float *dst, int64_t n) { rows_f32(&q2_k, src, dst, n); }
static void int_q2_k(const void *src, int8_t *q, float *scale, float *min, int64_t n) { rows_int(&q2_k, src, q, scale, min, n); }
const struct int_form int_form_q2_k = {16, true, int_q2_k};

/* Q3_K: hmask[32], qs[64] (as Q2_K), scales[12], d f16. Bit 4 * half + j of hmask[l] is the third bit; the value is less 4.
 * Scales are 6 bits less 32: low nibbles in bytes 0-7 (groups 0-7 low, 8-15 high), pairs of high bits in bytes 8-11. */
ALWAYS_INLINE void unpack_q3_k(const uint8_t *restrict b, int8_t *restrict q, float *restrict scale, float *restrict min)
{
    const uint8_t *hmask = b, *qs = b + 32, *sc = b + 96;
    float d = load_f16(b + 108);
    (void)min;
    for (int g = 0; g < 16; g++) {
        int low = g < 8 ? sc[g] & 15 : sc[g - 8] >> 4;
        int high = sc[8 + g % 4] >> g / 4 * 2 & 3;
        scale[g] = d * (float)((low | high << 4) - 32);
    }
    for (int half = 0; half < 2; half++)
        for (int j = 0; j < 4; j++)
            for (int l = 0; l < 32; l++) {
                int low = qs[32 * half + l] >> 2 * j & 3, high = hmask[l] >> (4 * half + j) & 1;
                q[128 * half + 32 * j + l] = (int8_t)((low | high << 2) - 4);
            }
}
static const struct format q3_k = {BLOCK_Q3_K, BYTES_Q3_K, 16, false, unpack_q3_k};
void decode_f32_q3_k(const void *src, float *dst, int64_t n) { rows_f32(&q3_k, src, dst, n); }
static void int_q3_k(const void *src, int8_t *q, float *scale, float *min, int64_t n) { rows_int(&q3_k, src, q, scale, min, n); }
const struct int_form int_form_q3_k = {16, false, int_q3_k};

/* Eight scales and eight mins of 6 bits in 12 bytes (Q4_K, Q5_K): groups 0-3 in the low 6 bits of bytes 0-3 and 4-7; groups
 * 4-7 have their low nibbles in bytes 8-11 and their high bits atop bytes 0-3 and 4-7. */
static inline void scales_6(const uint8_t *restrict b, float *restrict scale, float *restrict min)
{
    const uint8_t *s = b + 4;
    float d = load_f16(b), dmin = load_f16(b + 2);
    for (int g = 0; g < 4; g++) {
        scale[g] = d * (float)(s[g] & 63);
        min[g] = dmin * (float)(s[4 + g] & 63);
        scale[4 + g] = d * (float)((s[8 + g] & 15) | s[g] >> 6 << 4);
        min[4 + g] = dmin * (float)(s[8 + g] >> 4 | s[4 + g] >> 6 << 4);
    }
}

/* Q4_K: d f16, dmin f16, scales[12], qs[128]; of each 64 elements, the first 32 are low nibbles, the others high ones. */
ALWAYS_INLINE void unpack_q4_k(const uint8_t *restrict b, int8_t *restrict q, float *restrict scale, float *restrict min)
{
    const uint8_t *qs = b + 16;
    scales_6(b, scale, min);
    for (int i = 0; i < 4; i++) {
        for (int l = 0; l < 32; l++) q[64 * i + l] = (int8_t)(qs[32 * i + l] & 15);
        for (int l = 0; l < 32; l++) q[64 * i + 32 + l] = (int8_t)(qs[32 * i + l] >> 4);
    }
}
static const struct format q4_k = {BLOCK_Q4_K, BYTES_Q4_K, 32, true, unpack_q4_k};
void decode_f32_q4_k(const void *src, float *dst, int64_t n) { rows_f32(&q4_k, src, dst, n); }
static void int_q4_k(const void *src, int8_t *q, float *scale, float *min, int64_t n) { rows_int(&q4_k, src, q, scale, min, n); }
const struct int_form int_form_q4_k = {32, true, int_q4_k};

/* Q5_K: d f16, dmin f16, scales[12], qh[32], qs[128] (as Q4_K); bit g of qh[l] is the fifth bit in group g. */
ALWAYS_INLINE void unpack_q5_k(const uint8_t *restrict b, int8_t *restrict q, float *restrict scale, float *restrict min)
{
    const uint8_t *qh = b + 16, *qs = b + 48;
    scales_6(b, scale, min);
    for (int i = 0; i < 4; i++) {
        for (int l = 0; l < 32; l++) q[64 * i + l] = (int8_t)((qs[32 * i + l] & 15) | (qh[l] >> 2 * i & 1) << 4);
        for (int l = 0; l < 32; l++) q[64 * i + 32 + l] = (int8_t)(qs[32 * i + l] >> 4 | (qh[l] >> (2 * i + 1) & 1) << 4);
    }
}
static const struct format q5_k = {BLOCK_Q5_K, BYTES_Q5_K, 32, true, unpack_q5_k};
void decode_f32_q5_k(const void *src, float *dst, int64_t n) { rows_f32(&q5_k, src, dst, n); }
static void int_q5_k(const void *src, int8_t *q, float *scale, float *min, int64_t n) { rows_int(&q5_k, src, q, scale, min, n); }
const struct int_form int_form_q5_k = {32, true, int_q5_k};

/* Q6_K: ql[128], qh[64], scales int8[16], d f16. Of each 128 elements, 64 are the low nibbles of ql and 64 the high ones;
 * bits 2j of 32 bytes of qh belong to elements 32j .. 32j+31. Less 32. */
ALWAYS_INLINE void unpack_q6_k(const uint8_t *restrict b, int8_t *restrict q, float *restrict scale, float *restrict min)
{
    float d = load_f16(b + 208);
    (void)min;
    for (int g = 0; g < 16; g++) scale[g] = d * (float)(int8_t)b[192 + g];
    for (int half = 0; half < 2; half++) {
        const uint8_t *ql = b + 64 * half, *qh = b + 128 + 32 * half;
        int8_t *y = q + 128 * half;
        for (int j = 0; j < 2; j++) {
            for (int l = 0; l < 32; l++) y[32 * j + l] = (int8_t)(((ql[32 * j + l] & 15) | (qh[l] >> 2 * j & 3) << 4) - 32);
            for (int l = 0; l < 32; l++) y[64 + 32 * j + l] = (int8_t)((ql[32 * j + l] >> 4 | (qh[l] >> (4 + 2 * j) & 3) << 4) - 32);
        }
    }
}
static const struct format q6_k = {BLOCK_Q6_K, BYTES_Q6_K, 16, false, unpack_q6_k};
void decode_f32_q6_k(const void *src, float *dst, int64_t n) { rows_f32(&q6_k, src, dst, n); }
static void int_q6_k(const void *src, int8_t *q, float *scale, float *min, int64_t n) { rows_int(&q6_k, src, q, scale, min, n); }
const struct int_form int_form_q6_k = {16, false, int_q6_k};

/* Q8_K: d f32, qs[256], sums of 16 qs each int16[16] (not needed here) */
ALWAYS_INLINE void unpack_q8_k(const uint8_t *restrict b, int8_t *restrict q, float *restrict scale, float *restrict min)
{
    (void)min;
    scale[0] = f32_from_bits(load_u32(b));
    memcpy(q, b + 4, 256);
}
static const struct format q8_k = {BLOCK_Q8_K, BYTES_Q8_K, 256, false, unpack_q8_k};
void decode_f32_q8_k(const void *src, float *dst, int64_t n) { rows_f32(&q8_k, src, dst, n); }
static void int_q8_k(const void *src, int8_t *q, float *scale, float *min, int64_t n) { rows_int(&q8_k, src, q, scale, min, n); }
const struct int_form int_form_q8_k = {256, false, int_q8_k};
