/* How vectors of 256 bits read the packed integers of each type (pack.h). Included by int_avx2_tmpl.h alone. */
#ifndef BACKEND_CPU_TYPES_AVX2_H
#define BACKEND_CPU_TYPES_AVX2_H

#include "backend/cpu/avx2.h"
#include "backend/cpu/pack.h"
#include "tensor/codebooks.h"

#define INLINE static inline __attribute__((always_inline))

/* X(ENUM, name, group, offset, adds: 0 where scales are integers, has_min) */
#define INT_TYPES(X)                                                                                                             \
    X(Q4_0, q4_0, 32, 8, 8, false) X(Q4_1, q4_1, 32, 0, 8, true) X(Q5_0, q5_0, 32, 16, 4, false) X(Q5_1, q5_1, 32, 0, 4, true)   \
    X(Q8_0, q8_0, 32, 128, 8, false) X(Q2_K, q2_k, 16, 0, 0, true) X(Q3_K, q3_k, 16, 4, 0, false) X(Q4_K, q4_k, 32, 0, 8, true) \
    X(Q5_K, q5_k, 32, 0, 4, true) X(Q6_K, q6_k, 16, 32, 0, false) X(IQ4_NL, iq4_nl, 32, 128, 8, false)                           \
    X(IQ4_XS, iq4_xs, 32, 128, 8, false) X(MXFP4, mxfp4, 32, 16, 4, false)

/* ---- scales of a superblock of one panel; ws and wm are [group][16] ---- */

/* Groups of 16 have integers as scales. Without VNNI they stay apart from d, one 16 bits wide in both halves of each place of ws. */
#define INT_SCALES(group, offset) (!VNNI && (group) == 16 && (offset) != 128)

INLINE __m256i load(const uint8_t *p) { return _mm256_loadu_si256((const void *)p); }
INLINE __m256 load_f16(const uint8_t *p, int h) { return _mm256_cvtph_ps(_mm_loadu_si128((const void *)(p + 16 * h))); }
INLINE void store_product(float *dst, __m256i v, __m256 d) { _mm256_store_ps(dst, _mm256_mul_ps(_mm256_cvtepi32_ps(v), d)); }
/* Of a group of 16; |v| < 2^15. */
INLINE void store_scale(float *dst, __m256i v, __m256 d)
{
    if (VNNI) store_product(dst, v, d);
    else _mm256_store_si256((void *)dst, _mm256_blend_epi16(v, _mm256_slli_epi32(v, 16), 0xaa));
}

INLINE void scales_q4_0(const uint8_t *const *p, float *ws, float *wm)
{
    (void)wm;
    for (int h = 0; h < 2; h++) _mm256_store_ps(ws + 8 * h, load_f16(p[0], h));
}

INLINE void scales_q4_1(const uint8_t *const *p, float *ws, float *wm)
{
    for (int h = 0; h < 2; h++) {
        _mm256_store_ps(ws + 8 * h, load_f16(p[0], h));
        _mm256_store_ps(wm + 8 * h, _mm256_sub_ps(_mm256_setzero_ps(), load_f16(p[0] + 32, h)));
    }
}

/* Six-bit scales and minima of Q4_K and Q5_K: 12 bytes per row as three words. */
INLINE void scales_q4_k(const uint8_t *const *p, float *ws, float *wm)
{
    const __m256i low6 = _mm256_set1_epi8(0x3f), low4 = _mm256_set1_epi8(0x0f), top2 = _mm256_set1_epi8(0x30);
    for (int h = 0; h < 2; h++) {
        const __m256i a = load(p[1] + 32 * h), b = load(p[1] + 64 + 32 * h), c = load(p[1] + 128 + 32 * h);
        const __m256i s[2] = {_mm256_and_si256(a, low6),
                              _mm256_or_si256(_mm256_and_si256(c, low4), _mm256_and_si256(_mm256_srli_epi16(a, 2), top2))};
        const __m256i m[2] = {_mm256_and_si256(b, low6), _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(c, 4), low4),
                                                                          _mm256_and_si256(_mm256_srli_epi16(b, 2), top2))};
        const __m256 d = load_f16(p[0], h), dmin = load_f16(p[0] + 32, h);
        /* byte i of a word stays where it is, 256^i times too large; the factor moves into d: exact */
        const float k[4] = {1, 0x1p-8f, 0x1p-16f, 1};
        UNROLL(4)
        for (int i = 0; i < 4; i++) {
            const __m256i byte = _mm256_set1_epi32(i < 3 ? 0xff << 8 * i : 0);
            const __m256 di = _mm256_mul_ps(d, _mm256_set1_ps(k[i])), mi = _mm256_mul_ps(dmin, _mm256_set1_ps(k[i]));
            UNROLL(2)
            for (int g = i; g < 8; g += 4) {
                store_product(ws + 16 * g + 8 * h, i < 3 ? _mm256_and_si256(s[g / 4], byte) : _mm256_srli_epi32(s[g / 4], 24), di);
                store_product(wm + 16 * g + 8 * h, i < 3 ? _mm256_and_si256(m[g / 4], byte) : _mm256_srli_epi32(m[g / 4], 24), mi);
            }
        }
    }
}

INLINE void scales_q2_k(const uint8_t *const *p, float *ws, float *wm)
{
    const __m256i low4 = _mm256_set1_epi32(15);
    for (int h = 0; h < 2; h++) {
        const __m256 d = load_f16(p[0], h), dmin = load_f16(p[0] + 32, h);
        UNROLL(16)
        for (int g = 0; g < 16; g++) {
            const __m256i v = _mm256_srli_epi32(load(p[1] + g / 4 * 64 + 32 * h), 8 * (g % 4));
            store_scale(ws + 16 * g + 8 * h, _mm256_and_si256(v, low4), d);
            store_product(wm + 16 * g + 8 * h, _mm256_and_si256(_mm256_srli_epi32(v, 4), low4), dmin);
        }
    }
}

/* Signed six bits, stored plus 32: the low four and the high two are fields of two words. */
INLINE __m256i six_bits(__m256i low, int low_shift, __m256i high, int high_shift)
{
    low = _mm256_and_si256(_mm256_srli_epi32(low, low_shift), _mm256_set1_epi32(15));
    high = _mm256_and_si256(_mm256_srli_epi32(high, high_shift), _mm256_set1_epi32(3));
    return _mm256_sub_epi32(_mm256_or_si256(low, _mm256_slli_epi32(high, 4)), _mm256_set1_epi32(32));
}

/* Q3_K: words 0..1 hold low nibbles of bytes 0..7 and 8..15, word 2 the high pairs. */
INLINE void scales_q3_k(const uint8_t *const *p, float *ws, float *wm)
{
    (void)wm;
    for (int h = 0; h < 2; h++) {
        const __m256 d = load_f16(p[0], h);
        const __m256i a[2] = {load(p[1] + 32 * h), load(p[1] + 64 + 32 * h)}, high = load(p[1] + 128 + 32 * h);
        UNROLL(16)
        for (int g = 0; g < 16; g++)
            store_scale(ws + 16 * g + 8 * h, six_bits(a[g / 4 % 2], 8 * (g % 4) + g / 8 * 4, high, 8 * (g % 4) + g / 4 * 2), d);
    }
}

INLINE void scales_q6_k(const uint8_t *const *p, float *ws, float *wm)
{
    (void)wm;
    for (int h = 0; h < 2; h++) {
        const __m256 d = load_f16(p[0], h);
        UNROLL(16)
        for (int g = 0; g < 16; g++)
            store_scale(ws + 16 * g + 8 * h, _mm256_srai_epi32(_mm256_slli_epi32(load(p[1] + g / 4 * 64 + 32 * h), 24 - 8 * (g % 4)), 24), d);
    }
}

INLINE void scales_iq4_xs(const uint8_t *const *p, float *ws, float *wm)
{
    (void)wm;
    for (int h = 0; h < 2; h++) {
        const __m256 d = load_f16(p[0], h);
        const __m256i low = load(p[0] + 32 + 32 * h), high = _mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)(p[0] + 96 + 16 * h)));
        UNROLL(8)
        for (int g = 0; g < 8; g++) store_product(ws + 16 * g + 8 * h, six_bits(low, 4 * g, high, 2 * g), d);
    }
}

/* E8M0 of half the value: 2^(e - 128), subnormal for e < 2. */
INLINE void scales_mxfp4(const uint8_t *const *p, float *ws, float *wm)
{
    (void)wm;
    for (int h = 0; h < 2; h++) {
        const __m256i e = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)(p[0] + 8 * h)));
        const __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
        const __m256i tiny = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);
        const __m256i v = _mm256_blendv_epi8(normal, tiny, _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e));
        _mm256_store_ps(ws + 8 * h, _mm256_castsi256_ps(v));
    }
}

INLINE void scales_of(const enum tensor_type TYPE, const uint8_t *const *p, float *ws, float *wm)
{
    switch (TYPE) {
    case TYPE_Q4_1: case TYPE_Q5_1: scales_q4_1(p, ws, wm); break;
    case TYPE_Q2_K: scales_q2_k(p, ws, wm); break;
    case TYPE_Q3_K: scales_q3_k(p, ws, wm); break;
    case TYPE_Q4_K: case TYPE_Q5_K: scales_q4_k(p, ws, wm); break;
    case TYPE_Q6_K: scales_q6_k(p, ws, wm); break;
    case TYPE_IQ4_XS: scales_iq4_xs(p, ws, wm); break;
    case TYPE_MXFP4: scales_mxfp4(p, ws, wm); break;
    default: scales_q4_0(p, ws, wm); break;
    }
}

/* ---- values of elements 4 j .. + 3 of a unit, half h of the panel's rows ---- */

INLINE __m256i nibble(const uint8_t *unit, const int bits, int j, int h)
{
    const __m256i v = load(unit + PACK_NIBBLE(bits, j) + 32 * h);
    return _mm256_and_si256(j & 1 ? _mm256_srli_epi16(v, 4) : v, _mm256_set1_epi8(0x0f));
}

/* bits at .. at + BITS - 1 of every byte moved to bits to .. */
INLINE __m256i field(__m256i v, const int at, const int to, const int mask)
{
    v = to > at ? _mm256_slli_epi16(v, to > at ? to - at : 0) : to < at ? _mm256_srli_epi16(v, at > to ? at - to : 0) : v;
    return _mm256_and_si256(v, _mm256_set1_epi8((char)(mask << to)));
}
INLINE __m256i crumb(const uint8_t *unit, const int bits, int j, int h, const int to) { return field(load(unit + PACK_CRUMB(bits, j) + 32 * h), 2 * (j & 3), to, 3); }
INLINE __m256i bit(const uint8_t *unit, int j, int h, const int to) { return field(load(unit + 32 * h), j, to, 1); }

/* table[i] + offset, shifted to the right */
INLINE __m256i lookup(const int8_t table[16], int offset, __m256i i, const int shift, const int mask)
{
    const __m128i t = _mm_add_epi8(_mm_loadu_si128((const void *)table), _mm_set1_epi8((char)offset));
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_and_si128(_mm_srli_epi16(t, shift), _mm_set1_epi8((char)mask))), i);
}

/* Stored values, or, of split types, a nibble of them. */
enum part { WHOLE, LOW, HIGH };
INLINE __m256i values(const enum tensor_type TYPE, const uint8_t *unit, int j, int h, const enum part PART)
{
    const int shift = PART == HIGH ? 4 : 0, mask = PART == WHOLE ? 0xff : 15;
    switch (TYPE) {
    case TYPE_Q5_0: case TYPE_Q5_1: case TYPE_Q5_K: return _mm256_or_si256(nibble(unit, 5, j, h), bit(unit, j, h, 4));
    case TYPE_Q8_0: return field(load(unit + j * 64 + 32 * h), shift, 0, mask);
    case TYPE_Q2_K: return crumb(unit, 2, j, h, 0);
    case TYPE_Q3_K: return _mm256_or_si256(crumb(unit, 3, j, h, 0), bit(unit, j, h, 2));
    case TYPE_Q6_K: return _mm256_or_si256(nibble(unit, 6, j, h), crumb(unit, 6, j, h, 4));
    case TYPE_IQ4_NL: case TYPE_IQ4_XS: return lookup(kvalues_iq4nl, 128, nibble(unit, 4, j, h), shift, mask);
    case TYPE_MXFP4: return lookup(kvalues_fp4, 16, nibble(unit, 4, j, h), 0, 0xff);
    default: return nibble(unit, 4, j, h);
    }
}

#endif
