/* The packed integer types for AVX-512: what their values and scales are. */
#ifndef BACKEND_CPU_TYPES_AVX512_H
#define BACKEND_CPU_TYPES_AVX512_H

#include "backend/cpu/avx512.h"
#include "tensor/codebooks.h"

static inline int32_t load_i32(const void *p)
{
    int32_t v;
    memcpy(&v, p, 4);
    return v;
}

static inline __m512i load(const uint8_t *p) { return _mm512_loadu_si512(p); }
/* Of a unit: 4-bit value in bits 0..3, others above */
static inline __m512i nibble_below(const uint8_t *unit, const int bits, int j)
{
    const __m512i v = load(unit + PACK_NIBBLE(bits, j));
    return j & 1 ? _mm512_srli_epi16(v, 4) : v;
}
static inline __m512i nibble(const uint8_t *unit, const int bits, int j) { return _mm512_and_si512(nibble_below(unit, bits, j), _mm512_set1_epi8(0x0f)); }
/* 2-bit value in bits 0..1 */
static inline __m512i crumb(const uint8_t *unit, const int bits, int j)
{
    __m512i v = load(unit + PACK_CRUMB(bits, j));
    return _mm512_and_si512(j & 3 ? _mm512_srli_epi16(v, 2 * (j & 3)) : v, _mm512_set1_epi8(0x03));
}
/* The lower four bits of each byte of `low`, the upper ones of `high`. */
static inline __m512i halves(__m512i low, __m512i high) { return _mm512_ternarylogic_epi32(low, high, _mm512_set1_epi8(0x0f), 0xe4); }
/* 2-bit value in bits 4..5, zeros above, others below. Masked before it is shifted, one mask does for two of them. */
static inline __m512i crumb_above(const uint8_t *unit, const int bits, int j)
{
    const __m512i v = _mm512_and_si512(load(unit + PACK_CRUMB(bits, j)), _mm512_set1_epi8((char)(j & 1 ? 0xcc : 0x33)));
    const int left = 4 - 2 * (j & 3);
    return left > 0 ? _mm512_slli_epi16(v, left > 0 ? left : 0) : _mm512_srli_epi16(v, left < 0 ? -left : 0);
}
/* the single bit moved to bit `to` */
static inline __m512i bit(const uint8_t *unit, int j, const int to)
{
    __m512i v = load(unit);
    v = to > j ? _mm512_slli_epi16(v, to > j ? to - j : 0) : _mm512_srli_epi16(v, j > to ? j - to : 0);
    return _mm512_and_si512(v, _mm512_set1_epi8((char)(1 << to)));
}

/* scale_TYPE(p, g, &min): scales of group g of 16 rows, and the minima where those are floats. */
static inline __m512 scale_q4_0(const uint8_t *const *p, int g, __m512 *min)
{
    (void)min;
    return load_f16(p[0] + 32 * g);
}
static inline __m512 scale_q4_1(const uint8_t *const *p, int g, __m512 *min)
{
    *min = _mm512_sub_ps(_mm512_setzero_ps(), load_f16(p[0] + 64 * g + 32));
    return load_f16(p[0] + 64 * g);
}
#define scale_q5_0 scale_q4_0
#define scale_q5_1 scale_q4_1
#define scale_q8_0 scale_q4_0
#define scale_iq4_nl scale_q4_0

/* The bits `mask` of byte i of each word as floats, without a conversion: above a power of two whose mantissa counts ones where the byte stands, they make it
 * larger by what they say, exactly. Bytes that the mantissa does not reach are shifted to where it does. */
static inline int byte_place(int i, int mask) { return MIN(i, mask & 0x80 ? 1 : 2); }
static inline __m512 byte_base(int i, int mask) { return _mm512_castsi512_ps(_mm512_set1_epi32(0x4b000000 - (8 * byte_place(i, mask) << 23))); }
static inline __m512 byte_above(__m512i words, int i, int mask) /* the base and they */
{
    const int to = byte_place(i, mask);
    if (i > to) words = _mm512_srli_epi32(words, 8 * (unsigned)(i - to));
    return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(words, _mm512_set1_epi32(mask << 8 * to), _mm512_castps_si512(byte_base(i, mask)), 0xea));
}
/* d times them. The product is exact, so the fma that takes the base off at once does not change it. */
static inline __m512 scale_bits(__m512i words, int i, int mask, __m512 d)
{
    return _mm512_fmsub_ps(byte_above(words, i, mask), d, _mm512_mul_ps(d, byte_base(i, mask)));
}
/* d times them less `offset`. */
static inline __m512 scale_signed(__m512i words, int i, int mask, float offset, __m512 d)
{
    return _mm512_mul_ps(_mm512_sub_ps(byte_above(words, i, mask), _mm512_add_ps(byte_base(i, mask), _mm512_set1_ps(offset))), d);
}

/* Scales and minima of four groups of 16 rows, a byte each. */
struct words {
    __m512i scale, min;
};

/* Six-bit scales and minima of Q4_K and Q5_K: 12 bytes per row as three words. Others' bits may stand above them. */
static inline struct words words_q4_k(const uint8_t *const *p, int i)
{
    const __m512i low4 = _mm512_set1_epi8(0x0f), top2 = _mm512_set1_epi8(0x30), s = load(p[1]), m = load(p[1] + 64);
    if (i == 0) return (struct words){s, m};
    const __m512i c = load(p[1] + 128);
    return (struct words){_mm512_or_si512(_mm512_and_si512(c, low4), _mm512_and_si512(_mm512_srli_epi16(s, 2), top2)),
                          _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi16(c, 4), low4), _mm512_and_si512(_mm512_srli_epi16(m, 2), top2))};
}
static inline __m512 scale_q4_k(const uint8_t *const *p, int g, __m512 *min)
{
    (void)min;
    return scale_bits(words_q4_k(p, g / 4).scale, g % 4, 0x3f, load_f16(p[0]));
}
#define scale_q5_k scale_q4_k

static inline __m512 scale_q2_k(const uint8_t *const *p, int g, __m512 *min)
{
    (void)min;
    return scale_bits(load(p[1] + g / 4 * 64), g % 4, 0x0f, load_f16(p[0]));
}

/* Q3_K: 16 six-bit scales, less 32: words 0..1 hold low nibbles of bytes 0..7 and 8..15, word 2 the high pairs. */
static inline __m512i words_q3_k(const uint8_t *const *p, int i)
{
    const __m512i low = _mm512_srli_epi16(load(p[1] + i % 2 * 64), i / 2 * 4), high = _mm512_srli_epi16(load(p[1] + 128), i * 2);
    return halves(low, _mm512_slli_epi16(high, 4));
}
static inline __m512 scale_q3_k(const uint8_t *const *p, int g, __m512 *min)
{
    (void)min;
    return scale_signed(words_q3_k(p, g / 4), g % 4, 0x3f, 32, load_f16(p[0]));
}

static inline __m512 scale_q6_k(const uint8_t *const *p, int g, __m512 *min)
{
    (void)min;
    return scale_signed(_mm512_xor_si512(load(p[1] + g / 4 * 64), _mm512_set1_epi8((char)0x80)), g % 4, 0xff, 128, load_f16(p[0]));
}

static inline __m512i int_scale_iq4_xs(const uint8_t *const *p, int g)
{
    const __m512i l = load(p[0] + 32), h = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)(p[0] + 96)));
    const __m512i low = _mm512_and_si512(_mm512_srli_epi32(l, 4 * g), _mm512_set1_epi32(15));
    const __m512i high = _mm512_and_si512(_mm512_srli_epi32(h, 2 * g), _mm512_set1_epi32(3));
    return _mm512_sub_epi32(_mm512_or_si512(low, _mm512_slli_epi32(high, 4)), _mm512_set1_epi32(32));
}
static inline __m512 scale_iq4_xs(const uint8_t *const *p, int g, __m512 *min)
{
    (void)min;
    return _mm512_mul_ps(_mm512_cvtepi32_ps(int_scale_iq4_xs(p, g)), load_f16(p[0]));
}

/* E8M0 of half the value: 2^(e - 128), subnormal for e < 2. */
static inline __m512 scale_mxfp4(const uint8_t *const *p, int g, __m512 *min)
{
    (void)min;
    const __m512i e = _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)(p[0] + 16 * g)));
    const __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(e, _mm512_set1_epi32(1)), 23);
    const __m512i tiny = _mm512_sllv_epi32(_mm512_set1_epi32(0x00200000), e);
    return _mm512_castsi512_ps(_mm512_mask_mov_epi32(normal, _mm512_cmplt_epi32_mask(e, _mm512_set1_epi32(2)), tiny));
}

/* Superblocks of ACT_SUPER elements have one scale in floats, first in plane 0, one for minima behind it, and integers for their groups:
 * int_scale_TYPE(p, g) those of group g, min_words_TYPE(p, i) the minima of groups 4 i to 4 i + 3, a byte each. */
static inline __m512i byte_of(__m512i words, int i, int mask) { return _mm512_and_si512(_mm512_srli_epi32(words, 8 * (unsigned)i), _mm512_set1_epi32(mask)); }
static inline __m512i int_scale_q4_k(const uint8_t *const *p, int g) { return byte_of(words_q4_k(p, g / 4).scale, g % 4, 0x3f); }
static inline __m512i min_words_q4_k(const uint8_t *const *p, int i) { return _mm512_and_si512(words_q4_k(p, i).min, _mm512_set1_epi8(0x3f)); }
#define int_scale_q5_k int_scale_q4_k
#define min_words_q5_k min_words_q4_k
static inline __m512i int_scale_q2_k(const uint8_t *const *p, int g) { return byte_of(load(p[1] + g / 4 * 64), g % 4, 0x0f); }
static inline __m512i min_words_q2_k(const uint8_t *const *p, int i) { return _mm512_and_si512(_mm512_srli_epi16(load(p[1] + i * 64), 4), _mm512_set1_epi8(0x0f)); }
static inline __m512i int_scale_q3_k(const uint8_t *const *p, int g) { return _mm512_sub_epi32(byte_of(words_q3_k(p, g / 4), g % 4, 0x3f), _mm512_set1_epi32(32)); }
static inline __m512i int_scale_q6_k(const uint8_t *const *p, int g) { return _mm512_srai_epi32(_mm512_slli_epi32(load(p[1] + g / 4 * 64), 24 - 8 * (unsigned)(g % 4)), 24); }

static inline __m512i lookup(const int8_t table[16], __m512i i)
{
    const __m512i t = _mm512_broadcast_i32x4(_mm_loadu_si128((const void *)table));
    return _mm512_shuffle_epi8(_mm512_xor_si512(t, _mm512_set1_epi8((char)0x80)), i);
}

/* Values as they are kept: unsigned, the file's plus the type's offset. */
static inline __m512i v_4(const uint8_t *unit, int j) { return nibble(unit, 4, j); }
static inline __m512i v_5(const uint8_t *unit, int j) { return _mm512_or_si512(nibble(unit, 5, j), bit(unit, j, 4)); }
#define v_q4_0 v_4
#define v_q4_1 v_4
#define v_q4_k v_4
#define v_q5_0 v_5
#define v_q5_1 v_5
#define v_q5_k v_5
static inline __m512i v_q8_0(const uint8_t *unit, int j) { return load(unit + j * 64); }
static inline __m512i v_q2_k(const uint8_t *unit, int j) { return crumb(unit, 2, j); }
static inline __m512i v_q3_k(const uint8_t *unit, int j) { return _mm512_or_si512(crumb(unit, 3, j), bit(unit, j, 2)); }
static inline __m512i v_q6_k(const uint8_t *unit, int j) { return halves(nibble_below(unit, 6, j), crumb_above(unit, 6, j)); }
static inline __m512i v_iq4_nl(const uint8_t *unit, int j) { return lookup(kvalues_iq4nl, nibble(unit, 4, j)); }
#define v_iq4_xs v_iq4_nl
static inline __m512i v_mxfp4(const uint8_t *unit, int j) { return lookup(kvalues_fp4, nibble(unit, 4, j)); }

/* Bytes of 32 elements of a panel, all planes together; elements of a block. */
enum {
#define QUANT(ENUM, name, text, id, block, bytes) UNIT_BYTES_##name = 32 * PANEL * (bytes) / (block), BLOCK_##name = (block),
#include "tensor/quant.def"
#undef QUANT
};

#endif
