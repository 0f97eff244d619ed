/* Matmul with int8 activations for AVX-512 VNNI: weights are unpacked to bytes in cache, 32 rows at a time, and multiplied with
 * tiles of up to six tokens; a single token reads the packed planes directly.
 *
 * One output is, in this order, over the groups g of its row:   c = fma(isum_g * a_g, w_g, c), c = fma(-sum_g, min_g, c)
 * where isum is the exact integer sum of the group. isum is accumulated on top of ACT_MAGIC_BITS, so that the accumulator read as a
 * float is ACT_MAGIC + isum; one fma with the activation scale a_g takes ACT_MAGIC off again and scales: RN(isum * a_g). */
#include "backend/cpu/avx512.h"

#include "backend/cpu/pack.h"
#include "tensor/codebooks.h"
#include "tensor/decode.h"

#include <immintrin.h>

#ifndef CHUNK
#define CHUNK 512         /* elements of a row that are unpacked at a time: 16 KiB of values for 32 rows stay in L1 */
#endif
#define TILE ACT_TILE

static inline int32_t load_i32(const void *p)
{
    int32_t v;
    memcpy(&v, p, 4);
    return v;
}

/* ---- the tile: 32 rows x T tokens ---- */

struct tile {
    const uint8_t *w;                /* [k4][2][64] */
    const float *ws, *wm;            /* [group][2][16] */
    int n_units;                     /* of 32 elements */
    const int8_t *a;                 /* [k4][T][4] */
    const struct act_group *group;   /* [unit][T] */
    const struct act_halves *halves; /* [unit][T] */
    ptrdiff_t next_a, next_group;    /* bytes from a and group to those of the tile after this one, to fetch them ahead */
    float *c;                        /* [T][2][16]: sums so far */
    bool first;                      /* start from zero */
};

static inline __attribute__((always_inline)) void tile(const struct tile *x, const int T, const int GROUP, const bool HAS_MIN)
{
    __m512 c[2][TILE];
#pragma GCC unroll 6
    for (int t = 0; t < T; t++) {
        c[0][t] = x->first ? _mm512_setzero_ps() : _mm512_load_ps(x->c + t * 32);
        c[1][t] = x->first ? _mm512_setzero_ps() : _mm512_load_ps(x->c + t * 32 + 16);
    }
    const uint8_t *w = x->w;
    const float *ws = x->ws, *wm = x->wm;
    const int8_t *a = x->a;
    const struct act_group *ag = x->group;
    const struct act_halves *ah = x->halves;
    for (int u = 0; u < x->n_units; u++, ag += T, ah += T) {
#pragma GCC unroll 3
        for (int i = 0; i < T * 32; i += 64) __builtin_prefetch(a + x->next_a + i);
#pragma GCC unroll 2
        for (int i = 0; i < T * (int)sizeof *ag; i += 64) __builtin_prefetch((const char *)ag + x->next_group + i);
#pragma GCC unroll 2
        for (int half = 0; half < 32 / GROUP; half++, ws += 32, wm += 32) {
            __m512i acc[2][TILE];
#pragma GCC unroll 6
            for (int t = 0; t < T; t++)
                acc[0][t] = acc[1][t] = _mm512_set1_epi32(HAS_MIN ? ACT_MAGIC_BITS : GROUP == 32 ? ag[t].init : ah[t].init[half]);
#pragma GCC unroll 8
            for (int j = 0; j < GROUP / 4; j++, w += 128, a += 4 * T) {
                const __m512i w0 = _mm512_load_si512(w), w1 = _mm512_load_si512(w + 64);
#pragma GCC unroll 6
                for (int t = 0; t < T; t++) {
                    const __m512i b = _mm512_set1_epi32(load_i32(a + 4 * t));
                    acc[0][t] = _mm512_dpbusd_epi32(acc[0][t], w0, b);
                    acc[1][t] = _mm512_dpbusd_epi32(acc[1][t], w1, b);
                }
            }
            const __m512 ws0 = _mm512_load_ps(ws), ws1 = _mm512_load_ps(ws + 16);
#pragma GCC unroll 6
            for (int t = 0; t < T; t++) {
                const __m512 d = _mm512_set1_ps(ag[t].scale), magic = _mm512_set1_ps(ag[t].neg_magic);
                c[0][t] = _mm512_fmadd_ps(_mm512_fmadd_ps(_mm512_castsi512_ps(acc[0][t]), d, magic), ws0, c[0][t]);
                c[1][t] = _mm512_fmadd_ps(_mm512_fmadd_ps(_mm512_castsi512_ps(acc[1][t]), d, magic), ws1, c[1][t]);
                if (HAS_MIN) {
                    const __m512 sum = _mm512_set1_ps(GROUP == 32 ? ag[t].sum_scaled : ah[t].sum_scaled[half]);
                    c[0][t] = _mm512_fnmadd_ps(sum, _mm512_load_ps(wm), c[0][t]);
                    c[1][t] = _mm512_fnmadd_ps(sum, _mm512_load_ps(wm + 16), c[1][t]);
                }
            }
        }
    }
#pragma GCC unroll 6
    for (int t = 0; t < T; t++) {
        _mm512_store_ps(x->c + t * 32, c[0][t]);
        _mm512_store_ps(x->c + t * 32 + 16, c[1][t]);
    }
}

#define TILE_CASES(GROUP, HAS_MIN)                     \
    switch (t) {                                       \
    case 1: tile(x, 1, GROUP, HAS_MIN); break;         \
    case 2: tile(x, 2, GROUP, HAS_MIN); break;         \
    case 3: tile(x, 3, GROUP, HAS_MIN); break;         \
    case 4: tile(x, 4, GROUP, HAS_MIN); break;         \
    case 5: tile(x, 5, GROUP, HAS_MIN); break;         \
    default: tile(x, 6, GROUP, HAS_MIN); break;        \
    }
static void tile_32(const struct tile *x, int t) { TILE_CASES(32, false) }
static void tile_32_min(const struct tile *x, int t) { TILE_CASES(32, true) }
static void tile_16(const struct tile *x, int t) { TILE_CASES(16, false) }
static void tile_16_min(const struct tile *x, int t) { TILE_CASES(16, true) }

static inline __mmask16 row_mask(const struct cpu_matmul *m, int row)
{
    int n = m->out - row;
    return (__mmask16)(n >= 16 ? 0xffff : n <= 0 ? 0 : (1 << n) - 1);
}

static inline void store_row(const struct cpu_matmul *m, int t, int row, __m512 c)
{
    __mmask16 mask = row_mask(m, row);
    if (m->bias && mask) c = _mm512_add_ps(c, _mm512_maskz_loadu_ps(mask, m->bias + row));
    _mm512_mask_storeu_ps(m->y + (size_t)t * (size_t)m->out + (size_t)row, mask, c);
}

static inline void panel_planes(const struct cpu_matmul *m, const struct pack *pk, int panel, const uint8_t *p[PACK_PLANES])
{
    const uint8_t *base = (const uint8_t *)m->packed + (size_t)panel * pack_plane(pk, m->in, PACK_PLANES);
    for (int i = 0; i < PACK_PLANES; i++) p[i] = base + pack_plane(pk, m->in, i);
}

/* ---- the types ---- */

static inline __m512i load(const uint8_t *p) { return _mm512_loadu_si512(p); }
static inline __m512 load_f16(const uint8_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p)); }
static inline __m512i nibble(const uint8_t *plane, int u, int j)
{
    __m512i v = load(plane + (u * 4 + j / 2) * 64);
    return _mm512_and_si512(j & 1 ? _mm512_srli_epi16(v, 4) : v, _mm512_set1_epi8(0x0f));
}
/* 2-bit value in bits 0..1 */
static inline __m512i crumb(const uint8_t *plane, int u, int j)
{
    __m512i v = load(plane + (u * 2 + j / 4) * 64);
    return _mm512_and_si512(j & 3 ? _mm512_srli_epi16(v, 2 * (j & 3)) : v, _mm512_set1_epi8(0x03));
}
/* 2-bit value in bits 4..5 */
static inline __m512i crumb_high(const uint8_t *plane, int u, int j)
{
    __m512i v = load(plane + (u * 2 + j / 4) * 64);
    const int left = 4 - 2 * (j & 3);
    v = left > 0 ? _mm512_slli_epi16(v, left > 0 ? left : 0) : _mm512_srli_epi16(v, left < 0 ? -left : 0);
    return _mm512_and_si512(v, _mm512_set1_epi8(0x30));
}
/* bit j of the 1-bit plane moved to bit `to` */
static inline __m512i bit(const uint8_t *plane, int u, int j, const int to)
{
    __m512i v = load(plane + u * 64);
    v = to > j ? _mm512_slli_epi16(v, to > j ? to - j : 0) : _mm512_srli_epi16(v, j > to ? j - to : 0);
    return _mm512_and_si512(v, _mm512_set1_epi8((char)(1 << to)));
}

static inline void scales_q4_0(const uint8_t *const *p, float *ws, float *wm, int stride)
{
    (void)wm, (void)stride;
    _mm512_store_ps(ws, load_f16(p[0]));
}
static inline void scales_q4_1(const uint8_t *const *p, float *ws, float *wm, int stride)
{
    (void)stride;
    _mm512_store_ps(ws, load_f16(p[0]));
    _mm512_store_ps(wm, _mm512_sub_ps(_mm512_setzero_ps(), load_f16(p[0] + 32)));
}
#define scales_q5_0 scales_q4_0
#define scales_q5_1 scales_q4_1
#define scales_q8_0 scales_q4_0
#define scales_iq4_nl scales_q4_0

/* Six-bit scales and minima of Q4_K and Q5_K: 12 bytes per row as three words. */
static inline void scales_q4_k(const uint8_t *const *p, float *ws, float *wm, int stride)
{
    const __m512i low6 = _mm512_set1_epi8(0x3f), low4 = _mm512_set1_epi8(0x0f), top2 = _mm512_set1_epi8(0x30);
    const __m512i a = load(p[1]), b = load(p[1] + 64), c = load(p[1] + 128);
    const __m512i s[2] = {_mm512_and_si512(a, low6),
                          _mm512_or_si512(_mm512_and_si512(c, low4), _mm512_and_si512(_mm512_srli_epi16(a, 2), top2))};
    const __m512i m[2] = {_mm512_and_si512(b, low6), _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi16(c, 4), low4),
                                                                      _mm512_and_si512(_mm512_srli_epi16(b, 2), top2))};
    const __m512 d = load_f16(p[0]), dmin = load_f16(p[0] + 32);
    /* byte i of a word stays where it is, 256^i times too large; the factor moves into d: exact */
    const __m512 k[4] = {_mm512_set1_ps(1), _mm512_set1_ps(0x1p-8f), _mm512_set1_ps(0x1p-16f), _mm512_set1_ps(1)};
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const __m512i byte = _mm512_set1_epi32(0xff << 8 * (i & 3));
        const __m512 di = _mm512_mul_ps(d, k[i]), mi = _mm512_mul_ps(dmin, k[i]);
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            __m512i si = i < 3 ? _mm512_and_si512(s[h], byte) : _mm512_srli_epi32(s[h], 24);
            __m512i mm = i < 3 ? _mm512_and_si512(m[h], byte) : _mm512_srli_epi32(m[h], 24);
            _mm512_store_ps(ws + (4 * h + i) * stride, _mm512_mul_ps(_mm512_cvtepi32_ps(si), di));
            _mm512_store_ps(wm + (4 * h + i) * stride, _mm512_mul_ps(_mm512_cvtepi32_ps(mm), mi));
        }
    }
}
#define scales_q5_k scales_q4_k

static inline void scales_q2_k(const uint8_t *const *p, float *ws, float *wm, int stride)
{
    const __m512 d = load_f16(p[0]), dmin = load_f16(p[0] + 32);
    const __m512i low4 = _mm512_set1_epi32(15);
#pragma GCC unroll 16
    for (int g = 0; g < 16; g++) {
        __m512i v = _mm512_srli_epi32(load(p[1] + g / 4 * 64), 8 * (g % 4));
        _mm512_store_ps(ws + g * stride, _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_and_si512(v, low4)), d));
        _mm512_store_ps(wm + g * stride, _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_and_si512(_mm512_srli_epi32(v, 4), low4)), dmin));
    }
}

/* Q3_K: 16 six-bit scales, less 32: words 0..1 hold low nibbles of bytes 0..7 and 8..15, word 2 the high pairs. */
static inline void scales_q3_k(const uint8_t *const *p, float *ws, float *wm, int stride)
{
    (void)wm;
    const __m512 d = load_f16(p[0]);
    const __m512i a[2] = {load(p[1]), load(p[1] + 64)}, h = load(p[1] + 128);
#pragma GCC unroll 16
    for (int g = 0; g < 16; g++) {
        __m512i low = _mm512_and_si512(_mm512_srli_epi32(a[g / 4 % 2], 8 * (g % 4) + g / 8 * 4), _mm512_set1_epi32(15));
        __m512i high = _mm512_and_si512(_mm512_srli_epi32(h, 8 * (g % 4) + g / 4 * 2), _mm512_set1_epi32(3));
        __m512i v = _mm512_sub_epi32(_mm512_or_si512(low, _mm512_slli_epi32(high, 4)), _mm512_set1_epi32(32));
        _mm512_store_ps(ws + g * stride, _mm512_mul_ps(_mm512_cvtepi32_ps(v), d));
    }
}

static inline void scales_q6_k(const uint8_t *const *p, float *ws, float *wm, int stride)
{
    (void)wm;
    const __m512 d = load_f16(p[0]);
#pragma GCC unroll 16
    for (int g = 0; g < 16; g++) {
        __m512i v = _mm512_srai_epi32(_mm512_slli_epi32(load(p[1] + g / 4 * 64), 24 - 8 * (g % 4)), 24);
        _mm512_store_ps(ws + g * stride, _mm512_mul_ps(_mm512_cvtepi32_ps(v), d));
    }
}

static inline void scales_iq4_xs(const uint8_t *const *p, float *ws, float *wm, int stride)
{
    (void)wm;
    const __m512 d = load_f16(p[0]);
    const __m512i l = load(p[1]), h = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)(p[1] + 64)));
#pragma GCC unroll 8
    for (int g = 0; g < 8; g++) {
        __m512i low = _mm512_and_si512(_mm512_srli_epi32(l, 4 * g), _mm512_set1_epi32(15));
        __m512i high = _mm512_and_si512(_mm512_srli_epi32(h, 2 * g), _mm512_set1_epi32(3));
        __m512i v = _mm512_sub_epi32(_mm512_or_si512(low, _mm512_slli_epi32(high, 4)), _mm512_set1_epi32(32));
        _mm512_store_ps(ws + g * stride, _mm512_mul_ps(_mm512_cvtepi32_ps(v), d));
    }
}

/* E8M0 of half the value: 2^(e - 128), subnormal for e < 2. */
static inline void scales_mxfp4(const uint8_t *const *p, float *ws, float *wm, int stride)
{
    (void)wm, (void)stride;
    const __m512i e = _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)p[0]));
    const __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(e, _mm512_set1_epi32(1)), 23);
    const __m512i tiny = _mm512_sllv_epi32(_mm512_set1_epi32(0x00200000), e);
    _mm512_store_ps(ws, _mm512_castsi512_ps(_mm512_mask_mov_epi32(normal, _mm512_cmplt_epi32_mask(e, _mm512_set1_epi32(2)), tiny)));
}

static inline __m512i lookup(const int8_t table[16], __m512i i)
{
    const __m512i t = _mm512_broadcast_i32x4(_mm_loadu_si128((const void *)table));
    return _mm512_shuffle_epi8(_mm512_xor_si512(t, _mm512_set1_epi8((char)0x80)), i);
}

/* From the file's offset to the common one of 128. */
static inline __m512i plus(__m512i v, int n) { return _mm512_add_epi8(v, _mm512_set1_epi8((char)n)); }

static inline __m512i w_q4_1(const uint8_t *const *p, int u, int j) { return nibble(p[1], u, j); }
static inline __m512i w_q4_0(const uint8_t *const *p, int u, int j) { return plus(w_q4_1(p, u, j), 128 - 8); }
static inline __m512i w_q5_1(const uint8_t *const *p, int u, int j) { return _mm512_or_si512(nibble(p[1], u, j), bit(p[2], u, j, 4)); }
static inline __m512i w_q5_0(const uint8_t *const *p, int u, int j) { return plus(w_q5_1(p, u, j), 128 - 16); }
static inline __m512i w_q8_0(const uint8_t *const *p, int u, int j) { return load(p[1] + (u * 8 + j) * 64); }
static inline __m512i w_q2_k(const uint8_t *const *p, int u, int j) { return crumb(p[2], u, j); }
static inline __m512i w_q3_k(const uint8_t *const *p, int u, int j) { return plus(_mm512_or_si512(crumb(p[2], u, j), bit(p[3], u, j, 2)), 128 - 4); }
static inline __m512i w_q4_k(const uint8_t *const *p, int u, int j) { return nibble(p[2], u, j); }
static inline __m512i w_q5_k(const uint8_t *const *p, int u, int j) { return _mm512_or_si512(nibble(p[2], u, j), bit(p[3], u, j, 4)); }
static inline __m512i w_q6_k(const uint8_t *const *p, int u, int j) { return plus(_mm512_or_si512(nibble(p[2], u, j), crumb_high(p[3], u, j)), 128 - 32); }
static inline __m512i w_iq4_nl(const uint8_t *const *p, int u, int j) { return lookup(kvalues_iq4nl, nibble(p[1], u, j)); }
static inline __m512i w_iq4_xs(const uint8_t *const *p, int u, int j) { return lookup(kvalues_iq4nl, nibble(p[2], u, j)); }
static inline __m512i w_mxfp4(const uint8_t *const *p, int u, int j) { return lookup(kvalues_fp4, nibble(p[1], u, j)); }

/* X(ENUM, name, group, has_min) */
#define INT_TYPES(X)                                                                                                              \
    X(Q4_0, q4_0, 32, false) X(Q4_1, q4_1, 32, true) X(Q5_0, q5_0, 32, false) X(Q5_1, q5_1, 32, true) X(Q8_0, q8_0, 32, false)     \
    X(Q2_K, q2_k, 16, true) X(Q3_K, q3_k, 16, false) X(Q4_K, q4_k, 32, true) X(Q5_K, q5_k, 32, true) X(Q6_K, q6_k, 16, false)      \
    X(IQ4_NL, iq4_nl, 32, false) X(IQ4_XS, iq4_xs, 32, false) X(MXFP4, mxfp4, 32, false)

#define TYPE q4_0
#define GROUP 32
#define HAS_MIN false
#include "backend/cpu/matmul_int_tmpl.h"
#define TYPE q4_1
#define GROUP 32
#define HAS_MIN true
#include "backend/cpu/matmul_int_tmpl.h"
#define TYPE q5_0
#define GROUP 32
#define HAS_MIN false
#include "backend/cpu/matmul_int_tmpl.h"
#define TYPE q5_1
#define GROUP 32
#define HAS_MIN true
#include "backend/cpu/matmul_int_tmpl.h"
#define TYPE q8_0
#define GROUP 32
#define HAS_MIN false
#include "backend/cpu/matmul_int_tmpl.h"
#define TYPE q2_k
#define GROUP 16
#define HAS_MIN true
#include "backend/cpu/matmul_int_tmpl.h"
#define TYPE q3_k
#define GROUP 16
#define HAS_MIN false
#include "backend/cpu/matmul_int_tmpl.h"
#define TYPE q4_k
#define GROUP 32
#define HAS_MIN true
#include "backend/cpu/matmul_int_tmpl.h"
#define TYPE q5_k
#define GROUP 32
#define HAS_MIN true
#include "backend/cpu/matmul_int_tmpl.h"
#define TYPE q6_k
#define GROUP 16
#define HAS_MIN false
#include "backend/cpu/matmul_int_tmpl.h"
#define TYPE iq4_nl
#define GROUP 32
#define HAS_MIN false
#include "backend/cpu/matmul_int_tmpl.h"
#define TYPE iq4_xs
#define GROUP 32
#define HAS_MIN false
#include "backend/cpu/matmul_int_tmpl.h"
#define TYPE mxfp4
#define GROUP 32
#define HAS_MIN false
#include "backend/cpu/matmul_int_tmpl.h"

struct int_kind {
    int group;
    bool has_min;
    void (*unpack)(const uint8_t *const base[PACK_PLANES], const struct pack *pk, int s0, int s1, uint8_t *w, float *ws, float *wm);
    void (*gemv)(const struct cpu_matmul *m, const struct pack *pk, int panel0, int panel1);
};
static const struct int_kind kinds[] = {
#define X(ENUM, name, group, has_min) [TYPE_##ENUM] = {group, has_min, unpack_##name, gemv_##name},
    INT_TYPES(X)
#undef X
};

/* ---- drivers ---- */

/* Scratch of a thread; every array 64-byte aligned. Behind it: sums [tiles][ACT_TILE][2][16]. */
struct scratch {
    uint8_t w[CHUNK / 4 * 128];
    float ws[CHUNK / 16 * 32], wm[CHUNK / 16 * 32];
    int8_t row_q[CHUNK]; /* types without packed layout: one row's chunk */
    float row_scale[CHUNK / 16], row_min[CHUNK / 16];
};

static size_t int_scratch_bytes(int in, int max_n)
{
    (void)in;
    return sizeof(struct scratch) + (size_t)ROUND_UP(max_n, TILE) * 32 * sizeof(float);
}

typedef void (*tile_fn)(const struct tile *x, int t);

static tile_fn choose_tile(int group, bool has_min)
{
    return group == 16 ? (has_min ? tile_16_min : tile_16) : (has_min ? tile_32_min : tile_32);
}

/* Packed bytes that will be unpacked next: fetched a few lines at a time while tiles are computed, since nothing else would keep the
 * memory busy then. */
struct ahead {
    const uint8_t *p[2 * PACK_PLANES];
    size_t n_bytes[2 * PACK_PLANES];
    size_t total;
    int at; /* range in progress */
};

static void ahead_fetch(struct ahead *a, size_t n_bytes)
{
    while (n_bytes > 0 && a->at < 2 * PACK_PLANES) {
        const size_t n = MIN(ROUND_UP(n_bytes, (size_t)64), a->n_bytes[a->at]);
        for (size_t i = 0; i < n; i += 64) __builtin_prefetch(a->p[a->at] + i);
        a->p[a->at] += n;
        a->n_bytes[a->at] -= n;
        n_bytes -= MIN(n, n_bytes);
        if (a->n_bytes[a->at] == 0) a->at++;
    }
}

/* All tokens against the chunk [k0, k0 + n_units * 32) of rows row .. row + 31 in s->w. */
static void multiply_chunk(const struct cpu_matmul *m, struct scratch *s, int row, int k0, int n_units, tile_fn fn, struct ahead *next)
{
    const size_t n_tiles = (size_t)(m->n + TILE - 1) / TILE, step = next ? (next->total + n_tiles - 1) / n_tiles : 0;
    const size_t in = (size_t)m->in, units = in / ACT_GROUP, u0 = (size_t)(k0 / ACT_GROUP);
    const bool last = k0 + n_units * 32 == m->in;
    struct tile x = {.w = s->w, .ws = s->ws, .wm = s->wm, .n_units = n_units, .c = (float *)(s + 1), .first = k0 == 0};
    for (int t0 = 0; t0 < m->n; t0 += TILE, x.c += TILE * 32) {
        const int T = MIN(TILE, m->n - t0);
        x.a = m->acts.q + (size_t)t0 * in + (size_t)(k0 * T);
        x.group = m->acts.group + (size_t)t0 * units + u0 * (size_t)T;
        x.halves = m->acts.halves + (size_t)t0 * units + u0 * (size_t)T;
        x.next_a = (ptrdiff_t)((size_t)TILE * in);
        x.next_group = (ptrdiff_t)((size_t)TILE * units * sizeof *x.group);
        if (next) ahead_fetch(next, step);
        fn(&x, T);
        if (!last) continue;
        for (int t = 0; t < T; t++) {
            store_row(m, t0 + t, row, _mm512_load_ps(x.c + t * 32));
            store_row(m, t0 + t, row + 16, _mm512_load_ps(x.c + t * 32 + 16));
        }
    }
}

/* The planes of the one or two panels from row on; returns how many there are. */
static int pair_planes(const struct cpu_matmul *m, const struct pack *pk, int row, const uint8_t *p[2][PACK_PLANES])
{
    panel_planes(m, pk, row / PANEL, p[0]);
    if (row + PANEL >= m->out) return 1;
    panel_planes(m, pk, row / PANEL + 1, p[1]);
    return 2;
}

static struct ahead plan_ahead(const struct cpu_matmul *m, const struct pack *pk, int row, int k0)
{
    struct ahead a = {.at = 0};
    if (row >= m->out) return a;
    const uint8_t *p[2][PACK_PLANES];
    const size_t s0 = (size_t)(k0 / pk->superblock), n_super = (size_t)(MIN(CHUNK, m->in - k0) / pk->superblock);
    for (int i = pair_planes(m, pk, row, p) * PACK_PLANES - 1; i >= 0; i--) {
        const size_t plane = (size_t)pk->plane[i % PACK_PLANES];
        a.p[i] = p[i / PACK_PLANES][i % PACK_PLANES] + s0 * plane;
        a.n_bytes[i] = n_super * plane;
        a.total += a.n_bytes[i];
    }
    return a;
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
    tile_fn fn = choose_tile(kind->group, kind->has_min);
    for (int row = row0; row < row1; row += 2 * PANEL) {
        for (int k0 = 0; k0 < m->in; k0 += CHUNK) {
            const uint8_t *p[2][PACK_PLANES];
            const int n = MIN(CHUNK, m->in - k0), s0 = k0 / pk->superblock, s1 = (k0 + n) / pk->superblock;
            const int n_panels = pair_planes(m, pk, row, p);
            kind->unpack(p[0], pk, s0, s1, s->w, s->ws, s->wm);
            if (n_panels == 2) kind->unpack(p[1], pk, s0, s1, s->w + 64, s->ws + 16, s->wm + 16);
            const bool more = k0 + CHUNK < m->in;
            struct ahead next = plan_ahead(m, pk, more ? row : row + 2 * PANEL, more ? k0 + CHUNK : 0);
            multiply_chunk(m, s, row, k0, n / 32, fn, &next);
        }
    }
}

/* Types without packed layout: rows of the file, through their integer form. */
static void run_rows(const struct cpu_matmul *m, int row0, int row1)
{
    struct scratch *s = m->scratch;
    const struct int_form f = decode_int_form(m->tensor->type);
    const struct type_info *ti = type_by_id((uint32_t)m->tensor->type);
    const int group = MIN(f.group, ACT_GROUP);
    tile_fn fn = choose_tile(group, f.has_min);
    for (int row = row0; row < row1; row += 2 * PANEL) {
        const int n_rows = MIN(2 * PANEL, m->out - row);
        for (int k0 = 0; k0 < m->in; k0 += CHUNK) {
            const int n = MIN(CHUNK, m->in - k0);
            for (int r = 0; r < n_rows; r++) {
                const uint8_t *src = tensor_row(m->tensor, row + r);
                f.decode(src + (size_t)(k0 / ti->block) * (size_t)ti->block_bytes, s->row_q, s->row_scale, s->row_min, n);
                for (int i = 0; i < n / 4; i++) {
                    uint32_t v = load_u32(s->row_q + 4 * i) ^ 0x80808080u;
                    memcpy(s->w + i * 128 + r * 4, &v, 4);
                }
                for (int g = 0; g < n / group; g++) {
                    s->ws[g * 32 + r] = s->row_scale[g * group / f.group];
                    if (f.has_min) s->wm[g * 32 + r] = s->row_min[g * group / f.group];
                }
            }
            multiply_chunk(m, s, row, k0, n / 32, fn, NULL);
        }
    }
}

#define X(ENUM, name, group, has_min)                                                                                        \
    static size_t bytes_##name(int64_t rows, int64_t in) { return pack_bytes(TYPE_##ENUM, rows, in); }
INT_TYPES(X)
#undef X
static const struct cpu_format packed[] = {
#define X(ENUM, name, group, has_min) [TYPE_##ENUM] = {"packed int8", ACTS_INT8, bytes_##name, pack_rows, int_scratch_bytes, run_packed},
    INT_TYPES(X)
#undef X
};
static const struct cpu_format rows = {"rows int8", ACTS_INT8, NULL, NULL, int_scratch_bytes, run_rows};

const struct cpu_format *avx512_int_format(enum tensor_type type)
{
    if (decode_int_form(type).group == 0) return NULL;
    return (size_t)type < COUNT_OF(packed) && packed[type].name ? &packed[type] : &rows;
}
