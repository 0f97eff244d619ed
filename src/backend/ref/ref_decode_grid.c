/* Float64 decoders of the types whose integers come out of a table or code: grids (IQ1 to IQ3), unequal steps (IQ4), base 3 (TQ1),
 * 4-bit floats (FP4). Reads blocks as ref_decode.c does, with the same claim: no rounding here, at most one in the f32 formulas. */
#include "backend/ref/ref.h"
#include "backend/ref/ref_bits.h"
#include "tensor/codebooks.h"

#include <math.h>

/* Byte i of a grid entry, as the signed number that it packs. */
static int grid8(uint64_t entry, int i)
{
    int v = (int)(entry >> 8 * i & 255);
    return v < 128 ? v : v - 256;
}

/* Seven bits give the signs of eight numbers: bit 7 makes the count of minus signs even. */
static int sign7(unsigned seven, int i)
{
    if (i < 7) return seven >> i & 1 ? -1 : 1;
    int n_minus = 0;
    for (int k = 0; k < 7; k++) n_minus += (int)(seven >> k & 1);
    return n_minus % 2 ? -1 : 1;
}

static int sign_bit(const uint8_t *b, int at) { return bits(b, at, 1) ? -1 : 1; }

/* ---- IQ2, IQ3: magnitude from a grid, sign apart, an odd multiple of d per 16 or 32 elements ---- */

/* Per 32 elements 8 bytes: four grid bytes, then 4 x 7 sign bits and a 4-bit scale. */
void ref_block_iq2_xxs(const uint8_t *b, double *y)
{
    double d = f16_at(b, 0) / 8;
    for (int e = 0; e < 256; e++) {
        int g = 2 + 8 * (e / 32), k = e / 8 % 4;
        unsigned seven = bits(b, 8 * (g + 4) + 7 * k, 7), scale = bits(b, 8 * (g + 7) + 4, 4);
        y[e] = d * (2 * scale + 1) * grid8(iq2xxs_grid[b[g + k]], e % 8) * sign7(seven, e % 8);
    }
}

/* Per 8 elements 16 bits: 9 of grid, 7 of sign. */
void ref_block_iq2_xs(const uint8_t *b, double *y)
{
    double d = f16_at(b, 0) / 8;
    for (int e = 0; e < 256; e++) {
        int at = 8 * (2 + 2 * (e / 8));
        unsigned scale = bits(b, 8 * 66 + 4 * (e / 16), 4);
        y[e] = d * (2 * scale + 1) * grid8(iq2xs_grid[bits(b, at, 9)], e % 8) * sign7(bits(b, at + 9, 7), e % 8);
    }
}

/* Per 8 elements a byte and two more bits of grid; one bit of sign each. */
void ref_block_iq2_s(const uint8_t *b, double *y)
{
    double d = f16_at(b, 0) / 8;
    for (int e = 0; e < 256; e++) {
        unsigned index = b[2 + e / 8] + 256 * bits(b, 8 * 66 + 2 * (e / 8), 2);
        unsigned scale = bits(b, 8 * 74 + 4 * (e / 16), 4);
        y[e] = d * (2 * scale + 1) * grid8(iq2s_grid[index], e % 8) * sign_bit(b, 8 * 34 + e);
    }
}

/* Per 4 elements a byte of grid; per 32 elements 4 bytes with 4 x 7 sign bits and a 4-bit scale. */
void ref_block_iq3_xxs(const uint8_t *b, double *y)
{
    double d = f16_at(b, 0) / 4;
    for (int e = 0; e < 256; e++) {
        int word = 66 + 4 * (e / 32);
        unsigned seven = bits(b, 8 * word + 7 * (e / 8 % 4), 7), scale = bits(b, 8 * (word + 3) + 4, 4);
        y[e] = d * (2 * scale + 1) * grid8(iq3xxs_grid[b[2 + e / 4]], e % 4) * sign7(seven, e % 8);
    }
}

/* Per 4 elements a byte and one more bit of grid; one bit of sign each. */
void ref_block_iq3_s(const uint8_t *b, double *y)
{
    double d = f16_at(b, 0);
    for (int e = 0; e < 256; e++) {
        unsigned index = b[2 + e / 4] + 256 * bits(b, 8 * 66 + e / 4, 1);
        unsigned scale = bits(b, 8 * 106 + 4 * (e / 32), 4);
        y[e] = d * (2 * scale + 1) * grid8(iq3s_grid[index], e % 4) * sign_bit(b, 8 * 74 + e);
    }
}

/* ---- IQ1: -1, 0, 1 from a grid, all shifted by 1/8 up or down ---- */

/* Per 32 elements 16 bits: 4 x 3 upper bits of grid, 3 of scale, 1 that shifts down. */
void ref_block_iq1_s(const uint8_t *b, double *y)
{
    double d = f16_at(b, 0) / 8;
    for (int e = 0; e < 256; e++) {
        int at = 8 * (34 + 2 * (e / 32));
        unsigned index = b[2 + e / 8] + 256 * bits(b, at + 3 * (e / 8 % 4), 3);
        y[e] = d * (2 * bits(b, at + 12, 3) + 1) * (8 * grid8(iq1s_grid[index], e % 8) + sign_bit(b, at + 15));
    }
}

/* Per 8 elements a nibble: 3 upper bits of grid, 1 that shifts down. The last 8 bytes are four times 4 x 3 bits of scale (each for 16
 * elements) and 4 bits of the binary16 scale of the block. */
void ref_block_iq1_m(const uint8_t *b, double *y)
{
    unsigned d_bits = 0;
    for (int k = 0; k < 4; k++) d_bits += bits(b, 8 * (48 + 2 * k) + 12, 4) << 4 * k;
    double d = ref_f16(d_bits) / 8;
    for (int e = 0; e < 256; e++) {
        int nibble = 8 * 32 + 4 * (e / 8);
        unsigned index = b[e / 8] + 256 * bits(b, nibble, 3);
        unsigned scale = bits(b, 8 * (48 + 2 * (e / 64)) + 3 * (e / 16 % 4), 3);
        y[e] = d * (2 * scale + 1) * (8 * grid8(iq1s_grid[index], e % 8) + sign_bit(b, nibble + 3));
    }
}

/* ---- 4-bit codes with unequal steps ---- */

void ref_block_iq4_nl(const uint8_t *b, double *y)
{
    double d = f16_at(b, 0);
    for (int e = 0; e < 32; e++) y[e] = d * kvalues_iq4nl[bits(b, 8 * (2 + e % 16) + 4 * (e / 16), 4)];
}

/* Scales of 6 bits per 32 elements: upper two bits in bytes 2..3, lower four in 4..7. */
void ref_block_iq4_xs(const uint8_t *b, double *y)
{
    double d = f16_at(b, 0);
    for (int e = 0; e < 256; e++) {
        int g = e / 32, i = e % 32;
        int scale = (int)(bits(b, 8 * 4 + 4 * g, 4) + 16 * bits(b, 8 * 2 + 2 * g, 2)) - 32;
        y[e] = d * scale * kvalues_iq4nl[bits(b, 8 * (8 + 16 * g + i % 16) + 4 * (i / 16), 4)];
    }
}

/* The scale is a power of two, 2^(byte - 127); the table holds twice the E2M1 values. */
void ref_block_mxfp4(const uint8_t *b, double *y)
{
    double d = ldexp(1, b[0] - 128);
    for (int e = 0; e < 32; e++) y[e] = d * kvalues_fp4[bits(b, 8 * (1 + e % 16) + 4 * (e / 16), 4)];
}

/* Unsigned E4M3 with bias 7: bits 3..6 exponent, 0..2 fraction. 0x7f would be NaN; ggml reads it as 0. */
static double e4m3(unsigned byte)
{
    int exponent = (int)(byte >> 3 & 15), fraction = (int)(byte & 7);
    if (byte == 0x7f) return 0;
    return exponent == 0 ? ldexp(fraction, -9) : ldexp(8 + fraction, exponent - 10);
}

/* Four scales, then 4 x 8 bytes of 16 codes; the table holds twice the E2M1 values. */
void ref_block_nvfp4(const uint8_t *b, double *y)
{
    for (int e = 0; e < 64; e++) {
        int g = e / 16, i = e % 16;
        y[e] = e4m3(b[g]) / 2 * kvalues_fp4[bits(b, 8 * (4 + 8 * g + i % 8) + 4 * (i / 8), 4)];
    }
}

/* ---- base 3 ---- */

/* A byte holds the fraction 0.t0 t1 t2 t3 t4 in base 3, as ceil(256 x fraction): digit k is the whole part after k + 1
 * multiplications by 3, the whole part before it dropped each time. Bytes 0..31 serve elements 0..159, 32 apart; bytes 32..47
 * elements 160..239, 16 apart; bytes 48..51 the last 16, 4 apart. */
void ref_block_tq1_0(const uint8_t *b, double *y)
{
    static const int pow3[5] = {1, 3, 9, 27, 81};
    double d = f16_at(b, 52);
    for (int e = 0; e < 256; e++) {
        int byte, k;
        if (e < 160) byte = e % 32, k = e / 32;
        else if (e < 240) byte = 32 + e % 16, k = (e - 160) / 16;
        else byte = 48 + e % 4, k = (e - 240) / 4;
        int digit = b[byte] * pow3[k] % 256 * 3 / 256;
        y[e] = d * (digit - 1);
    }
}
