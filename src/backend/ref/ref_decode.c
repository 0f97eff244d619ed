/* Float64 decoders of the plain, the 32-element and the K types, 16-bit floats, and the table of all types.
 * A block is read as a string of bits (bit k of byte j is bit 8j + k): for element e each format says at which bit its integers
 * lie, and the value is a product of those integers and the block's scale. No rounding happens here: a binary16 is a
 * multiple of 2^-24 below 2^16 and the integers beside it have at most 14 bits together, so every sum and product of the block
 * types fits the 53 bits of a double (Q8_K: 24 + 8 bits). The f32 formulas of the same formats form at most one inexact result,
 * the last: their products have at most 11 + 6 + 7 bits. So (float)y is bit for bit what decoding to f32 gives. The exception is
 * I64, whose integers above 2^53 are rounded to double here: (float)y may then be off by one f32 ulp. */
#include "backend/ref/ref.h"
#include "backend/ref/ref_bits.h"

#include <math.h>

/* NaN with the top bits of its fraction given, infinity if they are 0. */
static double not_finite(uint64_t sign, uint64_t fraction, int n_bits)
{
    uint64_t u = sign << 63 | (uint64_t)0x7ff << 52 | fraction << (52 - n_bits);
    double d;
    memcpy(&d, &u, 8);
    return d;
}

double ref_f16(uint32_t bits)
{
    uint32_t sign = bits >> 15 & 1, exponent = bits >> 10 & 31, fraction = bits & 1023;
    if (exponent == 31) return not_finite(sign, fraction, 10);
    double magnitude = exponent ? (double)((uint64_t)(1024 + fraction) << (exponent - 1)) * 0x1p-24 : fraction * 0x1p-24; /* at most 11 + 29 bits */
    return sign ? -magnitude : magnitude;
}

double ref_bf16(uint32_t bits)
{
    uint32_t sign = bits >> 15 & 1, exponent = bits >> 7 & 255, fraction = bits & 127;
    if (exponent == 255) return not_finite(sign, fraction, 7);
    double magnitude = exponent ? ldexp(128 + fraction, (int)exponent - 134) : ldexp(fraction, -133);
    return sign ? -magnitude : magnitude;
}

ref_block_fn ref_decoder(enum tensor_type type)
{
    switch (type) {
#define QUANT(ENUM, name, text, id, block, bytes) \
    case TYPE_##ENUM: return ref_block_##name;
#include "tensor/quant.def"
#undef QUANT
    }
    return NULL;
}

void ref_decode_row(const struct tensor *t, int64_t row, double *y)
{
    const struct type_info *info = type_by_id(t->type);
    ref_block_fn decode = ref_decoder(t->type);
    const uint8_t *b = tensor_row(t, row);
    for (int64_t i = 0; i < t->ne[0]; i += info->block, b += info->block_bytes) decode(b, y + i);
}

/* ---- plain numbers ---- */

void ref_block_f32(const uint8_t *b, double *y)
{
    float f;
    memcpy(&f, b, 4);
    *y = f;
}

void ref_block_f64(const uint8_t *b, double *y) { memcpy(y, b, 8); }
void ref_block_f16(const uint8_t *b, double *y) { *y = ref_f16(bits(b, 0, 16)); }
void ref_block_bf16(const uint8_t *b, double *y) { *y = ref_bf16(bits(b, 0, 16)); }
void ref_block_i8(const uint8_t *b, double *y) { *y = int8_at(b, 0); }

void ref_block_i16(const uint8_t *b, double *y)
{
    int16_t v;
    memcpy(&v, b, 2);
    *y = v;
}

void ref_block_i32(const uint8_t *b, double *y)
{
    int32_t v;
    memcpy(&v, b, 4);
    *y = v;
}

void ref_block_i64(const uint8_t *b, double *y)
{
    int64_t v;
    memcpy(&v, b, 8);
    *y = (double)v;
}

/* ---- blocks with one scale ---- */

/* Nibble e of 16 bytes: the low nibbles are elements 0..15, the high ones 16..31. */
static unsigned nibble32(const uint8_t *b, int byte, int e) { return bits(b, 8 * (byte + e % 16) + 4 * (e / 16), 4); }

void ref_block_q4_0(const uint8_t *b, double *y)
{
    double d = f16_at(b, 0);
    for (int e = 0; e < 32; e++) y[e] = d * ((int)nibble32(b, 2, e) - 8);
}

void ref_block_q4_1(const uint8_t *b, double *y)
{
    double d = f16_at(b, 0), m = f16_at(b, 2);
    for (int e = 0; e < 32; e++) y[e] = d * nibble32(b, 4, e) + m;
}

void ref_block_q5_0(const uint8_t *b, double *y)
{
    double d = f16_at(b, 0);
    for (int e = 0; e < 32; e++) y[e] = d * ((int)(nibble32(b, 6, e) + 16 * bits(b, 8 * 2 + e, 1)) - 16);
}

void ref_block_q5_1(const uint8_t *b, double *y)
{
    double d = f16_at(b, 0), m = f16_at(b, 2);
    for (int e = 0; e < 32; e++) y[e] = d * (nibble32(b, 8, e) + 16 * bits(b, 8 * 4 + e, 1)) + m;
}

void ref_block_q8_0(const uint8_t *b, double *y)
{
    double d = f16_at(b, 0);
    for (int e = 0; e < 32; e++) y[e] = d * int8_at(b, 2 + e);
}

/* Bytes 2..3 hold the sum of the block: for dot products, not part of the values. */
void ref_block_q8_1(const uint8_t *b, double *y)
{
    double d = f16_at(b, 0);
    for (int e = 0; e < 32; e++) y[e] = d * int8_at(b, 4 + e);
}

void ref_block_q1_0(const uint8_t *b, double *y)
{
    double d = f16_at(b, 0);
    for (int e = 0; e < 128; e++) y[e] = bits(b, 8 * 2 + e, 1) ? d : -d;
}

void ref_block_q2_0(const uint8_t *b, double *y)
{
    double d = f16_at(b, 0);
    for (int e = 0; e < 64; e++) y[e] = d * ((int)bits(b, 8 * 2 + 2 * e, 2) - 1);
}

/* ---- K types: 256 elements, scales of their own per 16 or 32 ---- */

/* The 2-bit planes of Q2_K, Q3_K and TQ2_0: 32 bytes serve 128 elements, four of them 32 apart in each byte. */
static unsigned plane2(const uint8_t *b, int byte, int e)
{
    return bits(b, 8 * (byte + 32 * (e / 128) + e % 32) + 2 * (e / 32 % 4), 2);
}

void ref_block_q2_k(const uint8_t *b, double *y)
{
    double d = f16_at(b, 80), dmin = f16_at(b, 82);
    for (int e = 0; e < 256; e++) {
        int g = e / 16;
        y[e] = d * bits(b, 8 * g, 4) * plane2(b, 16, e) - dmin * bits(b, 8 * g + 4, 4);
    }
}

void ref_block_q3_k(const uint8_t *b, double *y)
{
    double d = f16_at(b, 108);
    for (int e = 0; e < 256; e++) {
        int g = e / 16;
        int scale = (int)(bits(b, 8 * (96 + g % 8) + 4 * (g / 8), 4) + 16 * bits(b, 8 * (104 + g % 4) + 2 * (g / 4), 2)) - 32;
        int q = (int)(plane2(b, 32, e) + 4 * bits(b, 8 * (e % 32) + e / 32, 1)) - 4;
        y[e] = d * scale * q;
    }
}

/* Q4_K and Q5_K: bytes 4..15 hold eight 6-bit scales and eight 6-bit minima. The first four of each have a byte's low six bits;
 * of the last four the low nibbles share bytes 12..15 and the upper two bits fill the tops of bytes 4..11. */
static void scale_min6(const uint8_t *b, int g, unsigned *scale, unsigned *min)
{
    if (g < 4) {
        *scale = bits(b, 8 * (4 + g), 6);
        *min = bits(b, 8 * (8 + g), 6);
    } else {
        *scale = bits(b, 8 * (8 + g), 4) + 16 * bits(b, 8 * g + 6, 2);
        *min = bits(b, 8 * (8 + g) + 4, 4) + 16 * bits(b, 8 * (4 + g) + 6, 2);
    }
}

/* The nibbles of Q4_K and Q5_K: 32 bytes serve 64 elements. */
static unsigned nibble64(const uint8_t *b, int byte, int e) { return bits(b, 8 * (byte + 32 * (e / 64) + e % 32) + 4 * (e / 32 % 2), 4); }

void ref_block_q4_k(const uint8_t *b, double *y)
{
    double d = f16_at(b, 0), dmin = f16_at(b, 2);
    for (int g = 0; g < 8; g++) {
        unsigned scale, min;
        scale_min6(b, g, &scale, &min);
        for (int e = 32 * g; e < 32 * g + 32; e++) y[e] = d * scale * nibble64(b, 16, e) - dmin * min;
    }
}

void ref_block_q5_k(const uint8_t *b, double *y)
{
    double d = f16_at(b, 0), dmin = f16_at(b, 2);
    for (int g = 0; g < 8; g++) {
        unsigned scale, min;
        scale_min6(b, g, &scale, &min);
        for (int e = 32 * g; e < 32 * g + 32; e++)
            y[e] = d * scale * (nibble64(b, 48, e) + 16 * bits(b, 8 * (16 + e % 32) + g, 1)) - dmin * min;
    }
}

void ref_block_q6_k(const uint8_t *b, double *y)
{
    double d = f16_at(b, 208);
    for (int e = 0; e < 256; e++) {
        int half = e / 128, quarter = e / 32 % 4, i = e % 32;
        unsigned low = bits(b, 8 * (64 * half + 32 * (quarter % 2) + i) + 4 * (quarter / 2), 4);
        unsigned high = bits(b, 8 * (128 + 32 * half + i) + 2 * quarter, 2);
        y[e] = d * int8_at(b, 192 + e / 16) * ((int)(low + 16 * high) - 32);
    }
}

/* The last 32 bytes are sums for dot products. */
void ref_block_q8_k(const uint8_t *b, double *y)
{
    double d;
    ref_block_f32(b, &d);
    for (int e = 0; e < 256; e++) y[e] = d * int8_at(b, 4 + e);
}

void ref_block_tq2_0(const uint8_t *b, double *y)
{
    double d = f16_at(b, 64);
    for (int e = 0; e < 256; e++) y[e] = d * ((int)plane2(b, 0, e) - 1);
}
