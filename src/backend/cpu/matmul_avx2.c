/* Matmul with int8 activations for AVX2: weights are unpacked to unsigned bytes in cache, 32 rows at a time, and multiplied with tiles
 * of up to six tokens; a single token reads the packed planes directly.
 *
 * Products of bytes are added in pairs by vpmaddubsw, which has room for 16 bits: values of up to 6 bits are multiplied as they are
 * stored (the file's value plus OFFSET), ADDS vectors of pairs are added up in 16 bits and only then widened; values of 8 bits
 * (OFFSET 128) are split into two nibbles, isum = low + 16 high. The sum of the activations takes the offset off again.
 *
 * One output is, in this order, over the groups g of its row:   c = fma(isum_g * a_g, w_g, c), c = fma(-sum_g, min_g, c)
 * where isum is the exact integer sum of the group, as in the AVX-512 tier: both give the same bits. */
#include "backend/cpu/avx2.h"

#include "backend/cpu/pack.h"
#include "tensor/codebooks.h"
#include "tensor/decode.h"

#include <immintrin.h>

#define CHUNK 256 /* elements of a row that are unpacked at a time: 8 KiB of values for 32 rows, split 16, stay in L1 */
#define SUB_TILE 3 /* tokens whose sums with 16 rows fit the registers */
#define SPLIT (OFFSET == 128)
#define INLINE static inline __attribute__((always_inline))

static inline int32_t load_i32(const void *p)
{
    int32_t v;
    memcpy(&v, p, 4);
    return v;
}

/* Keeps the order of additions as it is written: compilers would form all products first and run out of registers. Costs nothing. */
INLINE __m256i in_order(__m256i v)
{
    __asm__("" : "+x"(v));
    return v;
}

/* ---- the tile: 16 rows x S tokens ---- */

struct tile {
    const uint8_t *w;                /* [k4][64], split: [k4][low, high][64] */
    const float *ws, *wm;            /* [group][16] */
    int n_units;                     /* of 32 elements */
    const int8_t *a;                 /* [k4][T][4] */
    const struct act_group *group;   /* [unit][T] */
    const struct act_halves *halves; /* [unit][T] */
    int T;
    float *c;                        /* [S][2][16]: sums so far */
    bool first;                      /* start from zero */
};

/* isum * a_g of a group from the sum of its stored values. With an offset the integer goes on top of ACT_MAGIC_BITS: read as a float
 * it is ACT_MAGIC + isum, and one fma takes ACT_MAGIC off again and scales. */
INLINE __m256 scaled(__m256i sum, const struct act_group *ag, const struct act_halves *ah, int half, const int GROUP, const int OFFSET)
{
    const __m256 scale = _mm256_set1_ps(ag->scale);
    if (OFFSET == 0) return _mm256_mul_ps(_mm256_cvtepi32_ps(sum), scale);
    __m256i init = _mm256_set1_epi32(GROUP == 32 ? ag->init : ah->init[half]); /* ACT_MAGIC_BITS - 128 * sum of q */
    if (OFFSET < 128) {
        const int shift = __builtin_ctz(OFFSET ? 128 / OFFSET : 1);
        init = _mm256_add_epi32(_mm256_srai_epi32(init, shift), _mm256_set1_epi32(ACT_MAGIC_BITS - (ACT_MAGIC_BITS >> shift)));
    }
    return _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_add_epi32(sum, init)), scale, _mm256_set1_ps(ag->neg_magic));
}

/* sum[h][t] (+)= FACTOR * the sum over N_K4 * 4 elements of w * a; a_step: from one k4 to the next. */
INLINE void multiply_group(__m256i sum[2][SUB_TILE], const uint8_t *w, const int8_t *a, ptrdiff_t a_step, const int S, const int N_K4, const int ADDS,
                           const int FACTOR, const bool START, const int W_STEP)
{
#pragma GCC unroll 4
    for (int i = 0; i < N_K4; i += ADDS) {
        __m256i acc[2][SUB_TILE];
#pragma GCC unroll 8
        for (int j = 0; j < ADDS; j++, w += W_STEP, a += a_step) {
            const __m256i w0 = _mm256_load_si256((const void *)w), w1 = _mm256_load_si256((const void *)(w + 32));
#pragma GCC unroll 3
            for (int t = 0; t < S; t++) {
                const __m256i b = _mm256_set1_epi32(load_i32(a + 4 * t));
                const __m256i v0 = _mm256_maddubs_epi16(w0, b), v1 = _mm256_maddubs_epi16(w1, b);
                acc[0][t] = j == 0 ? v0 : in_order(_mm256_add_epi16(acc[0][t], v0));
                acc[1][t] = j == 0 ? v1 : in_order(_mm256_add_epi16(acc[1][t], v1));
            }
        }
#pragma GCC unroll 3
        for (int t = 0; t < S; t++) {
#pragma GCC unroll 2
            for (int h = 0; h < 2; h++) {
                const __m256i wide = _mm256_madd_epi16(acc[h][t], _mm256_set1_epi16(FACTOR));
                sum[h][t] = START && i == 0 ? wide : in_order(_mm256_add_epi32(sum[h][t], wide));
            }
        }
    }
}

INLINE void tile(const struct tile *x, const int S, const int GROUP, const int OFFSET, const int ADDS, const bool HAS_MIN)
{
    __m256 c[2][SUB_TILE];
#pragma GCC unroll 3
    for (int t = 0; t < S; t++) {
        c[0][t] = x->first ? _mm256_setzero_ps() : _mm256_load_ps(x->c + t * 32);
        c[1][t] = x->first ? _mm256_setzero_ps() : _mm256_load_ps(x->c + t * 32 + 8);
    }
    const uint8_t *w = x->w;
    const float *ws = x->ws, *wm = x->wm;
    const int8_t *a = x->a;
    const struct act_group *ag = x->group;
    const struct act_halves *ah = x->halves;
    const ptrdiff_t T = x->T;
    const int step = SPLIT ? 128 : 64;
    for (int u = 0; u < x->n_units; u++, ag += T, ah += T) {
        for (int half = 0; half < 32 / GROUP; half++, ws += 16, wm += 16, w += GROUP / 4 * step, a += GROUP * T) {
            __m256i sum[2][SUB_TILE];
            multiply_group(sum, w, a, 4 * T, S, GROUP / 4, ADDS, 1, true, step);
            if (SPLIT) multiply_group(sum, w + 64, a, 4 * T, S, GROUP / 4, ADDS, 16, false, step);
            const __m256 ws0 = _mm256_load_ps(ws), ws1 = _mm256_load_ps(ws + 8);
#pragma GCC unroll 3
            for (int t = 0; t < S; t++) {
                c[0][t] = _mm256_fmadd_ps(scaled(sum[0][t], &ag[t], &ah[t], half, GROUP, OFFSET), ws0, c[0][t]);
                c[1][t] = _mm256_fmadd_ps(scaled(sum[1][t], &ag[t], &ah[t], half, GROUP, OFFSET), ws1, c[1][t]);
                if (HAS_MIN) {
                    const __m256 s = _mm256_set1_ps(GROUP == 32 ? ag[t].sum_scaled : ah[t].sum_scaled[half]);
                    c[0][t] = _mm256_fnmadd_ps(s, _mm256_load_ps(wm), c[0][t]);
                    c[1][t] = _mm256_fnmadd_ps(s, _mm256_load_ps(wm + 8), c[1][t]);
                }
            }
        }
    }
#pragma GCC unroll 3
    for (int t = 0; t < S; t++) {
        _mm256_store_ps(x->c + t * 32, c[0][t]);
        _mm256_store_ps(x->c + t * 32 + 8, c[1][t]);
    }
}

/* X(group, offset, adds, has_min): ADDS * 2 * 127 * the largest stored value fit 16 bits */
#define TILES(X)                                                                                                                          \
    X(32, 0, 8, true) X(32, 0, 4, true) X(32, 8, 8, false) X(32, 16, 4, false) X(32, 128, 8, false) X(32, 128, 8, true) X(16, 0, 4, true) \
    X(16, 4, 4, false) X(16, 32, 2, false) X(16, 128, 4, false) X(16, 128, 4, true)

typedef void (*tile_fn)(const struct tile *x, int s);

#define X(GROUP, OFFSET, ADDS, HAS_MIN)                                        \
    static void tile_##GROUP##_##OFFSET##_##ADDS##_##HAS_MIN(const struct tile *x, int s) \
    {                                                                          \
        if (s == 1) tile(x, 1, GROUP, OFFSET, ADDS, HAS_MIN);                  \
        else if (s == 2) tile(x, 2, GROUP, OFFSET, ADDS, HAS_MIN);             \
        else tile(x, 3, GROUP, OFFSET, ADDS, HAS_MIN);                         \
    }
TILES(X)
#undef X

/* Outputs row .. row + 7 of token t, as far as there are any. */
static inline void store_8(const struct cpu_matmul *m, int t, int row, __m256 c)
{
    const int n = m->out - row;
    if (n <= 0) return;
    float *y = m->y + (size_t)t * (size_t)m->out + (size_t)row;
    const __m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    if (m->bias) c = _mm256_add_ps(c, _mm256_maskload_ps(m->bias + row, mask));
    _mm256_maskstore_ps(y, mask, c);
}

/* ---- the types: scales of a superblock of one panel; ws and wm are [group][16] ---- */

INLINE __m256i load(const uint8_t *p) { return _mm256_loadu_si256((const void *)p); }
INLINE __m256 load_f16(const uint8_t *p, int h) { return _mm256_cvtph_ps(_mm_loadu_si128((const void *)(p + 16 * h))); }
INLINE void store_product(float *dst, __m256i v, __m256 d) { _mm256_store_ps(dst, _mm256_mul_ps(_mm256_cvtepi32_ps(v), d)); }

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
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            const __m256i byte = _mm256_set1_epi32(i < 3 ? 0xff << 8 * i : 0);
            const __m256 di = _mm256_mul_ps(d, _mm256_set1_ps(k[i])), mi = _mm256_mul_ps(dmin, _mm256_set1_ps(k[i]));
#pragma GCC unroll 2
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
#pragma GCC unroll 16
        for (int g = 0; g < 16; g++) {
            const __m256i v = _mm256_srli_epi32(load(p[1] + g / 4 * 64 + 32 * h), 8 * (g % 4));
            store_product(ws + 16 * g + 8 * h, _mm256_and_si256(v, low4), d);
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
#pragma GCC unroll 16
        for (int g = 0; g < 16; g++)
            store_product(ws + 16 * g + 8 * h, six_bits(a[g / 4 % 2], 8 * (g % 4) + g / 8 * 4, high, 8 * (g % 4) + g / 4 * 2), d);
    }
}

INLINE void scales_q6_k(const uint8_t *const *p, float *ws, float *wm)
{
    (void)wm;
    for (int h = 0; h < 2; h++) {
        const __m256 d = load_f16(p[0], h);
#pragma GCC unroll 16
        for (int g = 0; g < 16; g++)
            store_product(ws + 16 * g + 8 * h, _mm256_srai_epi32(_mm256_slli_epi32(load(p[1] + g / 4 * 64 + 32 * h), 24 - 8 * (g % 4)), 24), d);
    }
}

INLINE void scales_iq4_xs(const uint8_t *const *p, float *ws, float *wm)
{
    (void)wm;
    for (int h = 0; h < 2; h++) {
        const __m256 d = load_f16(p[0], h);
        const __m256i low = load(p[0] + 32 + 32 * h), high = _mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)(p[0] + 96 + 16 * h)));
#pragma GCC unroll 8
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

/* ---- the types: values of elements 4 j .. + 3 of a unit, half h of the panel's rows ---- */

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

/* table[i] + offset, or one nibble of it */
INLINE __m256i lookup(const int8_t table[16], int offset, __m256i i, const int shift, const int mask)
{
    const __m128i t = _mm_add_epi8(_mm_loadu_si128((const void *)table), _mm_set1_epi8((char)offset));
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_and_si128(_mm_srli_epi16(t, shift), _mm_set1_epi8((char)mask))), i);
}

/* Stored values; for split types the low or high nibble. */
INLINE __m256i values(const enum tensor_type TYPE, const uint8_t *unit, int j, int h, const bool HIGH)
{
    switch (TYPE) {
    case TYPE_Q5_0: case TYPE_Q5_1: case TYPE_Q5_K: return _mm256_or_si256(nibble(unit, 5, j, h), bit(unit, j, h, 4));
    case TYPE_Q8_0: return field(load(unit + j * 64 + 32 * h), HIGH ? 4 : 0, 0, 15);
    case TYPE_Q2_K: return crumb(unit, 2, j, h, 0);
    case TYPE_Q3_K: return _mm256_or_si256(crumb(unit, 3, j, h, 0), bit(unit, j, h, 2));
    case TYPE_Q6_K: return _mm256_or_si256(nibble(unit, 6, j, h), crumb(unit, 6, j, h, 4));
    case TYPE_IQ4_NL: case TYPE_IQ4_XS: return lookup(kvalues_iq4nl, 128, nibble(unit, 4, j, h), HIGH ? 4 : 0, 15);
    case TYPE_MXFP4: return lookup(kvalues_fp4, 16, nibble(unit, 4, j, h), 0, 0xff);
    default: return nibble(unit, 4, j, h);
    }
}

/* Superblocks [s0, s1) of one panel -> w, ws, wm as struct tile has them. */
INLINE void unpack(const struct pack *pk, const uint8_t *panel, int n_super, int s0, int s1, uint8_t *w, float *ws, float *wm,
                   const enum tensor_type TYPE, const int GROUP, const int OFFSET)
{
    const uint8_t *p[PACK_PLANES];
    pack_seek(pk, panel, n_super, s0, p);
    for (int s = s0; s < s1; pack_next(pk, panel, n_super, s, 1, p), s++) {
        scales_of(TYPE, p, ws, wm);
        ws += pk->superblock / GROUP * 16;
        wm += pk->superblock / GROUP * 16;
        const uint8_t *unit = p[2];
        for (int u = 0; u < pk->superblock / 32; u++, unit += PACK_UNIT(pk->bits)) {
#pragma GCC unroll 8
            for (int j = 0; j < 8; j++) {
#pragma GCC unroll 2
                for (int high = 0; high <= SPLIT; high++, w += 64) {
                    _mm256_store_si256((void *)w, values(TYPE, unit, j, 0, high));
                    _mm256_store_si256((void *)(w + 32), values(TYPE, unit, j, 1, high));
                }
            }
        }
    }
}

/* The sum of a group's stored values times the activations a, elements of the unit from 4 j0 on. */
INLINE __m256i group_sum(const uint8_t *unit, int j0, int h, const int8_t *a, const enum tensor_type TYPE, const int GROUP, const int ADDS,
                         const bool HIGH)
{
    __m256i sum = _mm256_setzero_si256();
#pragma GCC unroll 4
    for (int i = 0; i < GROUP / 4; i += ADDS) {
        __m256i acc = sum;
#pragma GCC unroll 8
        for (int j = i; j < i + ADDS; j++) {
            const __m256i v = _mm256_maddubs_epi16(values(TYPE, unit, j0 + j, h, HIGH), _mm256_set1_epi32(load_i32(a + 4 * j)));
            acc = j == i ? v : in_order(_mm256_add_epi16(acc, v));
        }
        const __m256i wide = _mm256_madd_epi16(acc, _mm256_set1_epi16(HIGH ? 16 : 1));
        sum = i == 0 ? wide : _mm256_add_epi32(sum, wide);
    }
    return sum;
}

/* One token: what group `half` of a unit, with scales ws and wm, adds to c, the sums of a panel's 16 rows. The same arithmetic as in tile(). */
INLINE void add_group(__m256 c[2], const uint8_t *unit, const float *ws, const float *wm, const int half, const int8_t *a,
                      const struct act_group *ag, const struct act_halves *ah, const enum tensor_type TYPE, const int GROUP, const int OFFSET, const int ADDS, const bool HAS_MIN)
{
    a += half * 16;
#pragma GCC unroll 2
    for (int h = 0; h < 2; h++) {
        __m256i sum = group_sum(unit, half * 4, h, a, TYPE, GROUP, ADDS, false);
        if (SPLIT) sum = _mm256_add_epi32(sum, group_sum(unit, half * 4, h, a, TYPE, GROUP, ADDS, true));
        c[h] = _mm256_fmadd_ps(scaled(sum, ag, ah, half, GROUP, OFFSET), _mm256_load_ps(ws + 16 * half + 8 * h), c[h]);
        if (HAS_MIN) {
            const __m256 t = _mm256_set1_ps(GROUP == 32 ? ag->sum_scaled : ah->sum_scaled[half]);
            c[h] = _mm256_fnmadd_ps(t, _mm256_load_ps(wm + 16 * half + 8 * h), c[h]);
        }
    }
}

/* One token: panels [panel0, panel1). */
INLINE void gemv(const struct cpu_matmul *m, const struct pack *pk, int panel0, int panel1, const enum tensor_type TYPE, const int GROUP, const int OFFSET,
                 const int ADDS, const bool HAS_MIN)
{
    const int n_super = m->in / pk->superblock, units = pk->superblock / 32;
    _Alignas(64) float ws[16 * 16], wm[16 * 16];
    for (int panel = panel0; panel < panel1; panel++) {
        const uint8_t *p[PACK_PLANES], *base = pack_panel(m, pk, panel);
        pack_seek(pk, base, n_super, 0, p);
        __m256 c[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
        const int8_t *a = m->acts.q;
        const struct act_group *ag = m->acts.group;
        const struct act_halves *ah = m->acts.halves;
        for (int s = 0; s < n_super; s++) {
            scales_of(TYPE, p, ws, wm);
            const uint8_t *unit = p[2];
            for (int u = 0; u < units; u++, unit += PACK_UNIT(pk->bits), a += 32, ag++, ah++) {
                const int at = u * (32 / GROUP) * 16;
                add_group(c, unit, ws + at, wm + at, 0, a, ag, ah, TYPE, GROUP, OFFSET, ADDS, HAS_MIN);
                if (GROUP == 16) add_group(c, unit, ws + at, wm + at, 1, a, ag, ah, TYPE, GROUP, OFFSET, ADDS, HAS_MIN);
            }
            pack_next(pk, base, n_super, s, 1, p);
        }
        store_8(m, 0, panel * PANEL, c[0]);
        store_8(m, 0, panel * PANEL + 8, c[1]);
    }
}

/* X(ENUM, name, group, offset, adds, has_min) */
#define INT_TYPES(X)                                                                                                             \
    X(Q4_0, q4_0, 32, 8, 8, false) X(Q4_1, q4_1, 32, 0, 8, true) X(Q5_0, q5_0, 32, 16, 4, false) X(Q5_1, q5_1, 32, 0, 4, true)   \
    X(Q8_0, q8_0, 32, 128, 8, false) X(Q2_K, q2_k, 16, 0, 4, true) X(Q3_K, q3_k, 16, 4, 4, false) X(Q4_K, q4_k, 32, 0, 8, true) \
    X(Q5_K, q5_k, 32, 0, 4, true) X(Q6_K, q6_k, 16, 32, 2, false) X(IQ4_NL, iq4_nl, 32, 128, 8, false)                           \
    X(IQ4_XS, iq4_xs, 32, 128, 8, false) X(MXFP4, mxfp4, 32, 16, 4, false)

#define X(ENUM, name, GROUP, OFFSET, ADDS, HAS_MIN)                                                                                          \
    static void unpack_##name(const struct pack *pk, const uint8_t *panel, int n_super, int s0, int s1, uint8_t *w, float *ws, float *wm) \
    {                                                                                                                                      \
        unpack(pk, panel, n_super, s0, s1, w, ws, wm, TYPE_##ENUM, GROUP, OFFSET);                                                                 \
    }                                                                                                                                      \
    static void gemv_##name(const struct cpu_matmul *m, const struct pack *pk, int panel0, int panel1)                                     \
    {                                                                                                                                      \
        gemv(m, pk, panel0, panel1, TYPE_##ENUM, GROUP, OFFSET, ADDS, HAS_MIN);                                                            \
    }
INT_TYPES(X)
#undef X

struct int_kind {
    tile_fn tile;
    void (*unpack)(const struct pack *pk, const uint8_t *panel, int n_super, int s0, int s1, uint8_t *w, float *ws, float *wm);
    void (*gemv)(const struct cpu_matmul *m, const struct pack *pk, int panel0, int panel1);
};
static const struct int_kind kinds[] = {
#define X(ENUM, name, group, offset, adds, has_min) [TYPE_##ENUM] = {tile_##group##_##offset##_##adds##_##has_min, unpack_##name, gemv_##name},
    INT_TYPES(X)
#undef X
};

/* ---- drivers ---- */

/* Scratch of a thread; every array 64-byte aligned, [2] are the panels of a pair. Behind it: sums [tiles][ACT_TILE][2][16]. */
struct scratch {
    uint8_t w[2][CHUNK / 4 * 128];
    float ws[2][CHUNK / 16 * 16], wm[2][CHUNK / 16 * 16];
    int8_t row_q[CHUNK]; /* types without packed layout: one row's chunk */
    float row_scale[CHUNK / 16], row_min[CHUNK / 16];
};

static size_t int_scratch_bytes(int in, int max_n)
{
    (void)in;
    return sizeof(struct scratch) + (size_t)ROUND_UP(max_n, ACT_TILE) * 32 * sizeof(float);
}

/* All tokens against the chunk [k0, k0 + n_units * 32) of the one or two panels from `row` on in s. */
static void multiply_chunk(const struct cpu_matmul *m, struct scratch *s, int row, int k0, int n_units, tile_fn fn)
{
    const size_t in = (size_t)m->in, units = in / ACT_GROUP, u0 = (size_t)(k0 / ACT_GROUP);
    const bool last = k0 + n_units * 32 == m->in;
    const int n_panels = row + PANEL < m->out ? 2 : 1;
    float *c = (float *)(s + 1);
    for (int t0 = 0; t0 < m->n; t0 += ACT_TILE, c += ACT_TILE * 32) {
        const int T = MIN(ACT_TILE, m->n - t0), parts = (T + SUB_TILE - 1) / SUB_TILE;
        for (int panel = 0; panel < n_panels; panel++) {
            for (int i = 0; i < parts; i++) {
                const int t = T * i / parts;
                const struct tile x = {
                    .w = s->w[panel], .ws = s->ws[panel], .wm = s->wm[panel], .n_units = n_units, .T = T, .first = k0 == 0,
                    .a = m->acts.q + (size_t)t0 * in + (size_t)(k0 * T + 4 * t),
                    .group = m->acts.group + (size_t)t0 * units + u0 * (size_t)T + t,
                    .halves = m->acts.halves + (size_t)t0 * units + u0 * (size_t)T + t,
                    .c = c + t * 32 + panel * 16,
                };
                fn(&x, T * (i + 1) / parts - t);
            }
        }
        if (!last) continue;
        for (int t = 0; t < T; t++)
            for (int i = 0; i < 4 && i < 2 * n_panels; i++) store_8(m, t0 + t, row + 8 * i, _mm256_load_ps(c + t * 32 + 8 * i));
    }
}

static void run_packed(const struct cpu_matmul *m, int row0, int row1)
{
    struct scratch *s = m->scratch;
    const struct pack *pk = pack_find(m->tensor->type);
    const struct int_kind *kind = &kinds[m->tensor->type];
    if (m->n == 1) {
        kind->gemv(m, pk, row0 / PANEL, (row1 + PANEL - 1) / PANEL);
        return;
    }
    for (int row = row0; row < row1; row += 2 * PANEL) {
        const int n_panels = row + PANEL < m->out ? 2 : 1, n_super = pack_n_super(pk, m->in);
        for (int k0 = 0; k0 < m->in; k0 += CHUNK) {
            const int n = MIN(CHUNK, m->in - k0), s0 = k0 / pk->superblock, s1 = (k0 + n) / pk->superblock;
            for (int i = 0; i < n_panels; i++) kind->unpack(pk, pack_panel(m, pk, row / PANEL + i), n_super, s0, s1, s->w[i], s->ws[i], s->wm[i]);
            multiply_chunk(m, s, row, k0, n / 32, kind->tile);
        }
    }
}

/* Row r of the pair, elements [k0, k0 + n): decoded to its place among the other rows of its panel. */
static void decode_row(const struct cpu_matmul *m, struct scratch *s, const struct int_form *f, int row, int r, int k0, int n)
{
    const struct type_info *ti = type_by_id((uint32_t)m->tensor->type);
    const uint8_t *src = (const uint8_t *)tensor_row(m->tensor, row + r);
    const int group = MIN(f->group, ACT_GROUP), panel = r / PANEL, at = r % PANEL;
    f->decode(src + (size_t)(k0 / ti->block) * (size_t)ti->block_bytes, s->row_q, s->row_scale, s->row_min, n);
    for (int i = 0; i < n / 4; i++) {
        uint32_t v;
        memcpy(&v, s->row_q + 4 * i, 4);
        v ^= 0x80808080u;
        const uint32_t low = v & 0x0f0f0f0fu, high = v >> 4 & 0x0f0f0f0fu;
        memcpy(s->w[panel] + i * 128 + at * 4, &low, 4);
        memcpy(s->w[panel] + i * 128 + 64 + at * 4, &high, 4);
    }
    for (int g = 0; g < n / group; g++) {
        s->ws[panel][g * 16 + at] = s->row_scale[g * group / f->group];
        if (f->has_min) s->wm[panel][g * 16 + at] = s->row_min[g * group / f->group];
    }
}

/* Types without packed layout: rows of the file, through their integer form. */
static void run_rows(const struct cpu_matmul *m, int row0, int row1)
{
    struct scratch *s = m->scratch;
    const struct int_form f = decode_int_form(m->tensor->type);
    const tile_fn fn = f.group == 16 ? (f.has_min ? tile_16_128_4_true : tile_16_128_4_false) : f.has_min ? tile_32_128_8_true : tile_32_128_8_false;
    for (int row = row0; row < row1; row += 2 * PANEL) {
        for (int k0 = 0; k0 < m->in; k0 += CHUNK) {
            const int n = MIN(CHUNK, m->in - k0);
            for (int r = 0; r < MIN(2 * PANEL, m->out - row); r++) decode_row(m, s, &f, row, r, k0, n);
            multiply_chunk(m, s, row, k0, n / 32, fn);
        }
    }
}

#define X(ENUM, name, group, offset, adds, has_min)                                 \
    static size_t bytes_##name(int64_t rows, int64_t in) { return pack_bytes(TYPE_##ENUM, rows, in); }
INT_TYPES(X)
#undef X
static const struct cpu_format packed[] = {
#define X(ENUM, name, group, offset, adds, has_min) [TYPE_##ENUM] = {"packed int8", ACTS_INT8, bytes_##name, pack_rows, int_scratch_bytes, run_packed},
    INT_TYPES(X)
#undef X
};
static const struct cpu_format rows = {"rows int8", ACTS_INT8, NULL, NULL, int_scratch_bytes, run_rows};

const struct cpu_format *avx2_int_format(enum tensor_type type)
{
    if (decode_int_form(type).group == 0) return NULL;
    return (size_t)type < COUNT_OF(packed) && packed[type].name ? &packed[type] : &rows;
}
