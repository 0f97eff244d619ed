/* Decoders of the plain number types (F32 ... I64) and of the 32-element blocks with one scale (Q4_0 ... Q8_1).
 * Every product and sum is formed in ggml's order, so the values agree with it bit for bit. */
#include "tensor/decode_rows.h"

/* ---- plain numbers: no integer form */
const struct int_form int_form_f32, int_form_f16, int_form_bf16, int_form_f64;
const struct int_form int_form_i8, int_form_i16, int_form_i32, int_form_i64;

void decode_f32_f32(const void *src, float *dst, int64_t n) { memcpy(dst, src, (size_t)n * sizeof *dst); }

/* As f32_from_f16, but with masks in place of branches, which gcc does not vectorise, and with signalling NaNs made quiet, as
 * the hardware's conversion does. */
void decode_f32_f16(const void *src, float *restrict dst, int64_t n)
{
    const uint8_t *s = src;
    for (int64_t i = 0; i < n; i++) {
        uint32_t h = load_u16(s + 2 * i);
        int32_t em = h & 0x7fff;
        uint32_t is_sub = -(uint32_t)(em < 0x400), is_top = -(uint32_t)(em >= 0x7c00), is_nan = -(uint32_t)(em > 0x7c00);
        uint32_t sub = f32_bits(f32_from_bits((uint32_t)em + 0x3f000000u) - 0.5f); /* (0.5 + em * 2^-24) - 0.5 */
        uint32_t normal = ((uint32_t)em << 13) + 0x38000000u + (is_top & 0x38000000u);
        dst[i] = f32_from_bits((h & 0x8000u) << 16 | (is_sub & sub) | (~is_sub & normal) | (is_nan & 0x400000u));
    }
}

void decode_f32_bf16(const void *src, float *restrict dst, int64_t n)
{
    const uint8_t *s = src;
    for (int64_t i = 0; i < n; i++) dst[i] = f32_from_bf16(load_u16(s + 2 * i));
}

void decode_f32_f64(const void *src, float *restrict dst, int64_t n)
{
    const uint8_t *s = src;
    for (int64_t i = 0; i < n; i++) {
        double v;
        memcpy(&v, s + 8 * i, 8);
        dst[i] = (float)v;
    }
}

void decode_f32_i8(const void *src, float *restrict dst, int64_t n)
{
    const int8_t *s = src;
    for (int64_t i = 0; i < n; i++) dst[i] = s[i];
}

void decode_f32_i16(const void *src, float *restrict dst, int64_t n)
{
    const uint8_t *s = src;
    for (int64_t i = 0; i < n; i++) dst[i] = (int16_t)load_u16(s + 2 * i);
}

void decode_f32_i32(const void *src, float *restrict dst, int64_t n)
{
    const uint8_t *s = src;
    for (int64_t i = 0; i < n; i++) dst[i] = (float)(int32_t)load_u32(s + 4 * i);
}

void decode_f32_i64(const void *src, float *restrict dst, int64_t n)
{
    const uint8_t *s = src;
    for (int64_t i = 0; i < n; i++) dst[i] = (float)(int64_t)load_u64(s + 8 * i);
}

/* ---- blocks of 32: low nibbles are the first half, high nibbles the second */

/* qs[16] -> q[32] = nibble - offset */
static inline void nibbles(const uint8_t *restrict qs, int8_t *restrict q, int offset)
{
    for (int j = 0; j < 16; j++) q[j] = (int8_t)((qs[j] & 15) - offset);
    for (int j = 0; j < 16; j++) q[16 + j] = (int8_t)((qs[j] >> 4) - offset);
}

/* The same with a fifth bit, and offset 0 or 16: bit j of the 32 bits at qh belongs to element j. In a byte of value 0 to 31,
 * to subtract 16 is to clear a fifth bit that is set, and to set the upper four if it is clear. */
ALWAYS_INLINE void nibbles_5(const uint8_t *restrict qh, const uint8_t *restrict qs, int8_t *restrict q, int offset)
{
    for (int i = 0; i < 4; i++) {
        uint64_t low = load_u64(qs + i % 2 * 8) >> i / 2 * 4 & EACH_BYTE(15), ones = bytes_from_bits(qh[i]);
        store_u64(q + 8 * i, low | (offset ? (ones ^ EACH_BYTE(1)) * 0xf0 : ones << 4));
    }
}

/* Q4_0: d f16, qs[16] */
ALWAYS_INLINE void unpack_q4_0(const uint8_t *restrict b, int8_t *restrict q, float *restrict scale, float *restrict min)
{
    (void)min;
    scale[0] = load_f16(b);
    nibbles(b + 2, q, 8);
}
static const struct format q4_0 = {BLOCK_Q4_0, BYTES_Q4_0, 32, false, unpack_q4_0};
void decode_f32_q4_0(const void *src, float *dst, int64_t n) { rows_f32(&q4_0, src, dst, n); }
static void int_q4_0(const void *src, int8_t *q, float *scale, float *min, int64_t n) { rows_int(&q4_0, src, q, scale, min, n); }
const struct int_form int_form_q4_0 = {32, false, int_q4_0};

/* Q4_1: d f16, m f16, qs[16]; value = d * q + m */
ALWAYS_INLINE void unpack_q4_1(const uint8_t *restrict b, int8_t *restrict q, float *restrict scale, float *restrict min)
{
    scale[0] = load_f16(b);
    min[0] = -load_f16(b + 2);
    nibbles(b + 4, q, 0);
}
static const struct format q4_1 = {BLOCK_Q4_1, BYTES_Q4_1, 32, true, unpack_q4_1};
void decode_f32_q4_1(const void *src, float *dst, int64_t n) { rows_f32(&q4_1, src, dst, n); }
static void int_q4_1(const void *src, int8_t *q, float *scale, float *min, int64_t n) { rows_int(&q4_1, src, q, scale, min, n); }
const struct int_form int_form_q4_1 = {32, true, int_q4_1};

/* Q5_0: d f16, qh[4], qs[16] */
ALWAYS_INLINE void unpack_q5_0(const uint8_t *restrict b, int8_t *restrict q, float *restrict scale, float *restrict min)
{
    (void)min;
    scale[0] = load_f16(b);
    nibbles_5(b + 2, b + 6, q, 16);
}
static const struct format q5_0 = {BLOCK_Q5_0, BYTES_Q5_0, 32, false, unpack_q5_0};
void decode_f32_q5_0(const void *src, float *dst, int64_t n) { rows_f32(&q5_0, src, dst, n); }
static void int_q5_0(const void *src, int8_t *q, float *scale, float *min, int64_t n) { rows_int(&q5_0, src, q, scale, min, n); }
const struct int_form int_form_q5_0 = {32, false, int_q5_0};

/* Q5_1: d f16, m f16, qh[4], qs[16]; value = d * q + m */
ALWAYS_INLINE void unpack_q5_1(const uint8_t *restrict b, int8_t *restrict q, float *restrict scale, float *restrict min)
{
    scale[0] = load_f16(b);
    min[0] = -load_f16(b + 2);
    nibbles_5(b + 4, b + 8, q, 0);
}
static const struct format q5_1 = {BLOCK_Q5_1, BYTES_Q5_1, 32, true, unpack_q5_1};
void decode_f32_q5_1(const void *src, float *dst, int64_t n) { rows_f32(&q5_1, src, dst, n); }
static void int_q5_1(const void *src, int8_t *q, float *scale, float *min, int64_t n) { rows_int(&q5_1, src, q, scale, min, n); }
const struct int_form int_form_q5_1 = {32, true, int_q5_1};

/* Q8_0: d f16, qs[32] */
ALWAYS_INLINE void unpack_q8_0(const uint8_t *restrict b, int8_t *restrict q, float *restrict scale, float *restrict min)
{
    (void)min;
    scale[0] = load_f16(b);
    memcpy(q, b + 2, 32);
}
static const struct format q8_0 = {BLOCK_Q8_0, BYTES_Q8_0, 32, false, unpack_q8_0};
void decode_f32_q8_0(const void *src, float *dst, int64_t n) { rows_f32(&q8_0, src, dst, n); }
static void int_q8_0(const void *src, int8_t *q, float *scale, float *min, int64_t n) { rows_int(&q8_0, src, q, scale, min, n); }
const struct int_form int_form_q8_0 = {32, false, int_q8_0};

/* Q8_1: d f16, s f16 (d times the sum of qs, not needed here), qs[32] */
ALWAYS_INLINE void unpack_q8_1(const uint8_t *restrict b, int8_t *restrict q, float *restrict scale, float *restrict min)
{
    (void)min;
    scale[0] = load_f16(b);
    memcpy(q, b + 4, 32);
}
static const struct format q8_1 = {BLOCK_Q8_1, BYTES_Q8_1, 32, false, unpack_q8_1};
void decode_f32_q8_1(const void *src, float *dst, int64_t n) { rows_f32(&q8_1, src, dst, n); }
static void int_q8_1(const void *src, int8_t *q, float *scale, float *min, int64_t n) { rows_int(&q8_1, src, q, scale, min, n); }
const struct int_form int_form_q8_1 = {32, false, int_q8_1};
