/* Decoders of the types whose integers come from a table or a number code: the grids (IQ1 ... IQ3), the 16-value codes (IQ4,
 * MXFP4, NVFP4), ternary and binary types. Every product is formed in ggml's order, so the values agree with it bit for bit. */
#include "tensor/codebooks.h"
#include "tensor/decode_rows.h"

/* ---- grids: an index selects 8 (or twice 4) magnitudes, 8 bits their signs */

/* IQ2_XXS: d f16, 8 groups of {4 index bytes, u32: 4 x 7 sign bits, 4 scale bits} */
ALWAYS_INLINE void unpack_iq2_xxs(const uint8_t *restrict b, int8_t *restrict q, float *restrict scale, float *restrict min)
{
    float d = load_f16(b);
    (void)min;
    for (int g = 0; g < 8; g++) {
        const uint8_t *index = b + 2 + 8 * g;
        uint32_t bits = load_u32(index + 4);
        scale[g] = d * (0.5f + (float)(bits >> 28)) * 0.25f;
        for (int l = 0; l < 4; l++) store_u64(q + 32 * g + 8 * l, bytes_negate(iq2xxs_grid[index[l]], ksigns_iq2xs[bits >> 7 * l & 127]));
    }
}
static const struct format iq2_xxs = {BLOCK_IQ2_XXS, BYTES_IQ2_XXS, 32, false, unpack_iq2_xxs};
void decode_f32_iq2_xxs(const void *src, float *dst, int64_t n) { rows_f32(&iq2_xxs, src, dst, n); }
static void int_iq2_xxs(const void *src, int8_t *q, float *scale, float *min, int64_t n) { rows_int(&iq2_xxs, src, q, scale, min, n); }
const struct int_form int_form_iq2_xxs = {32, false, int_iq2_xxs};

/* Sixteen 4-bit scales in 8 bytes (IQ2_XS, IQ2_S) */
static inline void scales_iq2(float d, const uint8_t *restrict s, float *restrict scale)
{
    for (int i = 0; i < 8; i++) {
        scale[2 * i] = d * (0.5f + (float)(s[i] & 15)) * 0.25f;
        scale[2 * i + 1] = d * (0.5f + (float)(s[i] >> 4)) * 0.25f;
    }
}

/* IQ2_XS: d f16, qs u16[32] (9 bits index, 7 bits signs), scales[8] */
ALWAYS_INLINE void unpack_iq2_xs(const uint8_t *restrict b, int8_t *restrict q, float *restrict scale, float *restrict min)
{
    (void)min;
    scales_iq2(load_f16(b), b + 66, scale);
    for (int i = 0; i < 32; i++) {
        uint16_t bits = load_u16(b + 2 + 2 * i);
        store_u64(q + 8 * i, bytes_negate(iq2xs_grid[bits & 511], ksigns_iq2xs[bits >> 9]));
    }
}
static const struct format iq2_xs = {BLOCK_IQ2_XS, BYTES_IQ2_XS, 16, false, unpack_iq2_xs};
void decode_f32_iq2_xs(const void *src, float *dst, int64_t n) { rows_f32(&iq2_xs, src, dst, n); }
static void int_iq2_xs(const void *src, int8_t *q, float *scale, float *min, int64_t n) { rows_int(&iq2_xs, src, q, scale, min, n); }
const struct int_form int_form_iq2_xs = {16, false, int_iq2_xs};

/* IQ2_S: d f16, qs[32], signs[32], qh[8] (bits 8-9 of four indices each), scales[8] */
ALWAYS_INLINE void unpack_iq2_s(const uint8_t *restrict b, int8_t *restrict q, float *restrict scale, float *restrict min)
{
    const uint8_t *qs = b + 2, *signs = b + 34, *qh = b + 66;
    (void)min;
    scales_iq2(load_f16(b), b + 74, scale);
    for (int i = 0; i < 32; i++) {
        uint32_t index = qs[i] | (uint32_t)(qh[i / 4] >> i % 4 * 2 & 3) << 8;
        store_u64(q + 8 * i, bytes_negate(iq2s_grid[index], signs[i]));
    }
}
static const struct format iq2_s = {BLOCK_IQ2_S, BYTES_IQ2_S, 16, false, unpack_iq2_s};
void decode_f32_iq2_s(const void *src, float *dst, int64_t n) { rows_f32(&iq2_s, src, dst, n); }
static void int_iq2_s(const void *src, int8_t *q, float *scale, float *min, int64_t n) { rows_int(&iq2_s, src, q, scale, min, n); }
const struct int_form int_form_iq2_s = {16, false, int_iq2_s};

/* IQ3_XXS: d f16, qs[64], 8 x u32: 4 x 7 sign bits, 4 scale bits */
ALWAYS_INLINE void unpack_iq3_xxs(const uint8_t *restrict b, int8_t *restrict q, float *restrict scale, float *restrict min)
{
    float d = load_f16(b);
    (void)min;
    for (int g = 0; g < 8; g++) {
        const uint8_t *index = b + 2 + 8 * g;
        uint32_t bits = load_u32(b + 66 + 4 * g);
        scale[g] = d * (0.5f + (float)(bits >> 28)) * 0.5f;
        for (int l = 0; l < 4; l++) {
            uint64_t pair = iq3xxs_grid[index[2 * l]] | (uint64_t)iq3xxs_grid[index[2 * l + 1]] << 32;
            store_u64(q + 32 * g + 8 * l, bytes_negate(pair, ksigns_iq2xs[bits >> 7 * l & 127]));
        }
    }
}
static const struct format iq3_xxs = {BLOCK_IQ3_XXS, BYTES_IQ3_XXS, 32, false, unpack_iq3_xxs};
void decode_f32_iq3_xxs(const void *src, float *dst, int64_t n) { rows_f32(&iq3_xxs, src, dst, n); }
static void int_iq3_xxs(const void *src, int8_t *q, float *scale, float *min, int64_t n) { rows_int(&iq3_xxs, src, q, scale, min, n); }
const struct int_form int_form_iq3_xxs = {32, false, int_iq3_xxs};

/* IQ3_S: d f16, qs[64], qh[8] (bit 8 of eight indices each), signs[32], scales[4] (4 bits a group) */
ALWAYS_INLINE void unpack_iq3_s(const uint8_t *restrict b, int8_t *restrict q, float *restrict scale, float *restrict min)
{
    const uint8_t *qh = b + 66, *signs = b + 74, *s = b + 106;
    float d = load_f16(b);
    (void)min;
    for (int g = 0; g < 8; g++) {
        const uint8_t *qs = b + 2 + 8 * g;
        uint32_t high = (uint32_t)qh[g] << 8;
        scale[g] = d * (float)(1 + 2 * (s[g / 2] >> g % 2 * 4 & 15));
        for (int l = 0; l < 4; l++) {
            uint32_t i0 = qs[2 * l] | (high >> 2 * l & 256), i1 = qs[2 * l + 1] | (high >> (2 * l + 1) & 256);
            uint64_t pair = iq3s_grid[i0] | (uint64_t)iq3s_grid[i1] << 32;
            store_u64(q + 32 * g + 8 * l, bytes_negate(pair, signs[4 * g + l]));
        }
    }
}
static const struct format iq3_s = {BLOCK_IQ3_S, BYTES_IQ3_S, 32, false, unpack_iq3_s};
void decode_f32_iq3_s(const void *src, float *dst, int64_t n) { rows_f32(&iq3_s, src, dst, n); }
static void int_iq3_s(const void *src, int8_t *q, float *scale, float *min, int64_t n) { rows_int(&iq3_s, src, q, scale, min, n); }
const struct int_form int_form_iq3_s = {32, false, int_iq3_s};

/* IQ1: value = dl * (grid + delta) with grid in -1, 0, 1 and delta = +-1/8. Here q = 8 * grid +- 1 and the scale dl / 8, which
 * is exact: dl is a multiple of 2^-24, far above the subnormals. */
static inline uint64_t iq1_eight(uint32_t index, bool minus)
{
    uint64_t times_8 = iq1s_grid[index] << 3 & EACH_BYTE(0xf8);
    return bytes_add(times_8, EACH_BYTE(minus ? 0xff : 0x01));
}

/* IQ1_S: d f16, qs[32], qh u16[8]: 4 x 3 bits atop the indices, 3 scale bits, sign of delta */
ALWAYS_INLINE void unpack_iq1_s(const uint8_t *restrict b, int8_t *restrict q, float *restrict scale, float *restrict min)
{
    const uint8_t *qs = b + 2;
    float d = load_f16(b);
    (void)min;
    for (int g = 0; g < 8; g++) {
        uint32_t bits = load_u16(b + 34 + 2 * g);
        scale[g] = d * (float)(2 * (bits >> 12 & 7) + 1) * 0.125f;
        for (int l = 0; l < 4; l++) store_u64(q + 32 * g + 8 * l, iq1_eight(qs[4 * g + l] | (bits >> 3 * l & 7) << 8, bits & 0x8000));
    }
}
static const struct format iq1_s = {BLOCK_IQ1_S, BYTES_IQ1_S, 32, false, unpack_iq1_s};
void decode_f32_iq1_s(const void *src, float *dst, int64_t n) { rows_f32(&iq1_s, src, dst, n); }
static void int_iq1_s(const void *src, int8_t *q, float *scale, float *min, int64_t n) { rows_int(&iq1_s, src, q, scale, min, n); }
const struct int_form int_form_iq1_s = {32, false, int_iq1_s};

/* IQ1_M: qs[32], qh[16] (a nibble for each 8 elements: 3 bits atop the index, sign of delta), scales u16[4]: four times 3
 * scale bits, and in the high nibbles the f16 d, lowest nibble first. */
ALWAYS_INLINE void unpack_iq1_m(const uint8_t *restrict b, int8_t *restrict q, float *restrict scale, float *restrict min)
{
    const uint8_t *qs = b, *qh = b + 32, *s = b + 48;
    uint32_t d_bits = 0;
    (void)min;
    for (int i = 0; i < 4; i++) d_bits |= (uint32_t)(load_u16(s + 2 * i) >> 12) << 4 * i;
    float d = f32_from_f16((uint16_t)d_bits);
    for (int g = 0; g < 16; g++) scale[g] = d * (float)(2 * (load_u16(s + g / 4 * 2) >> g % 4 * 3 & 7) + 1) * 0.125f;
    for (int i = 0; i < 32; i++) {
        uint32_t high = (uint32_t)qh[i / 2] >> i % 2 * 4;
        store_u64(q + 8 * i, iq1_eight(qs[i] | (high & 7) << 8, high & 8));
    }
}
static const struct format iq1_m = {BLOCK_IQ1_M, BYTES_IQ1_M, 16, false, unpack_iq1_m};
void decode_f32_iq1_m(const void *src, float *dst, int64_t n) { rows_f32(&iq1_m, src, dst, n); }
static void int_iq1_m(const void *src, int8_t *q, float *scale, float *min, int64_t n) { rows_int(&iq1_m, src, q, scale, min, n); }
const struct int_form int_form_iq1_m = {16, false, int_iq1_m};

/* ---- codes of 16 values */

/* qs[16] -> q[32]: low nibbles, then high nibbles, through kvalues_iq4nl */
ALWAYS_INLINE void codes_iq4(const uint8_t *restrict qs, int8_t *restrict q)
{
    for (int i = 0; i < 16; i += 8) {
        uint64_t bits = load_u64(qs + i);
        for (int j = i; j < i + 8; j++, bits >>= 8) {
            q[j] = kvalues_iq4nl[bits & 15];
            q[16 + j] = kvalues_iq4nl[bits >> 4 & 15];
        }
    }
}

/* Eight E2M1 codes, one in each byte, to twice their values as kvalues_fp4 has them: 0 1 2 3 4 6 8 12, bit 3 the sign. */
static inline uint64_t bytes_from_fp4(uint64_t code)
{
    uint64_t m = code & EACH_BYTE(7), minus = code >> 3 & EACH_BYTE(1);
    uint64_t from_5 = (m + EACH_BYTE(0x7b)) >> 7 & EACH_BYTE(1), from_6 = (m + EACH_BYTE(0x7a)) >> 7 & EACH_BYTE(1);
    uint64_t is_7 = (m + EACH_BYTE(0x79)) >> 7 & EACH_BYTE(1), twice = m + from_5 + from_6 + is_7 * 3;
    return bytes_add(twice ^ minus * 0xff, minus);
}

/* qs[half] -> q[2 * half]: low nibbles, then high nibbles */
ALWAYS_INLINE void codes_fp4(const uint8_t *restrict qs, int8_t *restrict q, int half)
{
    for (int i = 0; i < half; i += 8) {
        uint64_t bits = load_u64(qs + i);
        store_u64(q + i, bytes_from_fp4(bits & EACH_BYTE(15)));
        store_u64(q + half + i, bytes_from_fp4(bits >> 4 & EACH_BYTE(15)));
    }
}

/* IQ4_NL: d f16, qs[16] */
ALWAYS_INLINE void unpack_iq4_nl(const uint8_t *restrict b, int8_t *restrict q, float *restrict scale, float *restrict min)
{
    (void)min;
    scale[0] = load_f16(b);
    codes_iq4(b + 2, q);
}
static const struct format iq4_nl = {BLOCK_IQ4_NL, BYTES_IQ4_NL, 32, false, unpack_iq4_nl};
void decode_f32_iq4_nl(const void *src, float *dst, int64_t n) { rows_f32(&iq4_nl, src, dst, n); }
static void int_iq4_nl(const void *src, int8_t *q, float *scale, float *min, int64_t n) { rows_int(&iq4_nl, src, q, scale, min, n); }
const struct int_form int_form_iq4_nl = {32, false, int_iq4_nl};

/* IQ4_XS: d f16, scales_h u16 (2 bits a group), scales_l[4] (4 bits a group), qs[128] (16 bytes a group); scales less 32 */
ALWAYS_INLINE void unpack_iq4_xs(const uint8_t *restrict b, int8_t *restrict q, float *restrict scale, float *restrict min)
{
    uint32_t high = load_u16(b + 2);
    float d = load_f16(b);
    (void)min;
    for (int g = 0; g < 8; g++) {
        uint32_t s = (b[4 + g / 2] >> g % 2 * 4 & 15u) | (high >> 2 * g & 3) << 4;
        scale[g] = d * (float)((int)s - 32);
        codes_iq4(b + 8 + 16 * g, q + 32 * g);
    }
}
static const struct format iq4_xs = {BLOCK_IQ4_XS, BYTES_IQ4_XS, 32, false, unpack_iq4_xs};
void decode_f32_iq4_xs(const void *src, float *dst, int64_t n) { rows_f32(&iq4_xs, src, dst, n); }
static void int_iq4_xs(const void *src, int8_t *q, float *scale, float *min, int64_t n) { rows_int(&iq4_xs, src, q, scale, min, n); }
const struct int_form int_form_iq4_xs = {32, false, int_iq4_xs};

/* MXFP4: e (E8M0), qs[16] (E2M1). The table holds twice the values, so the scale is 2^(e - 128), for e < 2 a subnormal. */
ALWAYS_INLINE void unpack_mxfp4(const uint8_t *restrict b, int8_t *restrict q, float *restrict scale, float *restrict min)
{
    uint32_t e = b[0];
    (void)min;
    scale[0] = f32_from_bits(e < 2 ? 0x00200000u << e : (e - 1) << 23);
    codes_fp4(b + 1, q, 16);
}
static const struct format mxfp4 = {BLOCK_MXFP4, BYTES_MXFP4, 32, false, unpack_mxfp4};
void decode_f32_mxfp4(const void *src, float *dst, int64_t n) { rows_f32(&mxfp4, src, dst, n); }
static void int_mxfp4(const void *src, int8_t *q, float *scale, float *min, int64_t n) { rows_int(&mxfp4, src, q, scale, min, n); }
const struct int_form int_form_mxfp4 = {32, false, int_mxfp4};

/* Half of an unsigned E4M3 (bias 7), as the table holds twice the E2M1 values. 0x7f, the NaN, counts as zero; bit 7 is unused. */
static inline float half_e4m3(uint8_t x)
{
    uint32_t em = x & 0x7fu;
    if (x == 0x7f) return 0;
    return em < 8 ? (float)em * 0x1p-10f : f32_from_bits((em << 20) + (119u << 23));
}

/* NVFP4: d[4] (E4M3), 4 groups of qs[8] (E2M1) */
ALWAYS_INLINE void unpack_nvfp4(const uint8_t *restrict b, int8_t *restrict q, float *restrict scale, float *restrict min)
{
    (void)min;
    for (int g = 0; g < 4; g++) {
        scale[g] = half_e4m3(b[g]);
        codes_fp4(b + 4 + 8 * g, q + 16 * g, 8);
    }
}
static const struct format nvfp4 = {BLOCK_NVFP4, BYTES_NVFP4, 16, false, unpack_nvfp4};
void decode_f32_nvfp4(const void *src, float *dst, int64_t n) { rows_f32(&nvfp4, src, dst, n); }
static void int_nvfp4(const void *src, int8_t *q, float *scale, float *min, int64_t n) { rows_int(&nvfp4, src, q, scale, min, n); }
const struct int_form int_form_nvfp4 = {16, false, int_nvfp4};

/* ---- ternary and binary */

/* Digit `power`, counted from the first, of bytes that hold base-3 fractions: the byte is ceil(256 / 243 * number). */
ALWAYS_INLINE void trits(const uint8_t *restrict qs, int8_t *restrict q, int n, uint8_t power)
{
    for (int j = 0; j < n; j++) {
        uint8_t shifted = (uint8_t)(qs[j] * power);
        q[j] = (int8_t)((shifted * 3 >> 8) - 1);
    }
}

/* TQ1_0: qs[48] (5 trits a byte: 32 bytes give 5 x 32 elements, 16 bytes 5 x 16), qh[4] (4 x 4), d f16 */
ALWAYS_INLINE void unpack_tq1_0(const uint8_t *restrict b, int8_t *restrict q, float *restrict scale, float *restrict min)
{
    static const uint8_t powers[5] = {1, 3, 9, 27, 81};
    (void)min;
    scale[0] = load_f16(b + 52);
    for (int i = 0; i < 5; i++) trits(b, q + 32 * i, 32, powers[i]);
    for (int i = 0; i < 5; i++) trits(b + 32, q + 160 + 16 * i, 16, powers[i]);
    for (int i = 0; i < 4; i++) trits(b + 48, q + 240 + 4 * i, 4, powers[i]);
}
static const struct format tq1_0 = {BLOCK_TQ1_0, BYTES_TQ1_0, 256, false, unpack_tq1_0};
void decode_f32_tq1_0(const void *src, float *dst, int64_t n) { rows_f32(&tq1_0, src, dst, n); }
static void int_tq1_0(const void *src, int8_t *q, float *scale, float *min, int64_t n) { rows_int(&tq1_0, src, q, scale, min, n); }
const struct int_form int_form_tq1_0 = {256, false, int_tq1_0};

/* TQ2_0: qs[64], d f16. Of each 128 elements, bits 2j of 32 bytes hold elements 32j .. 32j+31. Less 1. */
ALWAYS_INLINE void unpack_tq2_0(const uint8_t *restrict b, int8_t *restrict q, float *restrict scale, float *restrict min)
{
    (void)min;
    scale[0] = load_f16(b + 64);
    for (int half = 0; half < 2; half++)
        for (int j = 0; j < 4; j++)
            for (int l = 0; l < 32; l++) q[128 * half + 32 * j + l] = (int8_t)((b[32 * half + l] >> 2 * j & 3) - 1);
}
static const struct format tq2_0 = {BLOCK_TQ2_0, BYTES_TQ2_0, 256, false, unpack_tq2_0};
void decode_f32_tq2_0(const void *src, float *dst, int64_t n) { rows_f32(&tq2_0, src, dst, n); }
static void int_tq2_0(const void *src, int8_t *q, float *scale, float *min, int64_t n) { rows_int(&tq2_0, src, q, scale, min, n); }
const struct int_form int_form_tq2_0 = {256, false, int_tq2_0};

/* Q1_0: d f16, qs[16]: bits, lowest first; a set bit is +d, a clear one -d */
ALWAYS_INLINE void unpack_q1_0(const uint8_t *restrict b, int8_t *restrict q, float *restrict scale, float *restrict min)
{
    (void)min;
    scale[0] = load_f16(b);
    for (int i = 0; i < 16; i++) {
        uint64_t ones = bytes_from_bits(b[2 + i]);
        store_u64(q + 8 * i, ones | (ones ^ EACH_BYTE(1)) * 0xff);
    }
}
static const struct format q1_0 = {BLOCK_Q1_0, BYTES_Q1_0, 128, false, unpack_q1_0};
void decode_f32_q1_0(const void *src, float *dst, int64_t n) { rows_f32(&q1_0, src, dst, n); }
static void int_q1_0(const void *src, int8_t *q, float *scale, float *min, int64_t n) { rows_int(&q1_0, src, q, scale, min, n); }
const struct int_form int_form_q1_0 = {128, false, int_q1_0};

/* Q2_0: d f16, qs[16]: pairs of bits, lowest first, less 1 */
ALWAYS_INLINE void unpack_q2_0(const uint8_t *restrict b, int8_t *restrict q, float *restrict scale, float *restrict min)
{
    (void)min;
    scale[0] = load_f16(b);
    for (int i = 0; i < 16; i++) {
        uint32_t v = b[2 + i], spread = (v | v << 6 | v << 12 | v << 18) & 0x03030303u;
        memcpy(q + 4 * i, &spread, 4);
    }
    for (int j = 0; j < 64; j++) q[j] = (int8_t)(q[j] - 1);
}
static const struct format q2_0 = {BLOCK_Q2_0, BYTES_Q2_0, 64, false, unpack_q2_0};
void decode_f32_q2_0(const void *src, float *dst, int64_t n) { rows_f32(&q2_0, src, dst, n); }
static void int_q2_0(const void *src, int8_t *q, float *scale, float *min, int64_t n) { rows_int(&q2_0, src, q, scale, min, n); }
const struct int_form int_form_q2_0 = {64, false, int_q2_0};
