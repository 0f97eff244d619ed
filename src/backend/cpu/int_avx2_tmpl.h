/* Matmul with int8 activations in vectors of 256 bits: weights are unpacked to unsigned bytes in cache, 32 rows at a time, and multiplied with tiles
 * of up to six tokens; a single token reads the packed planes directly. Included once per instruction set, with VNNI and, if that is 1,
 * DPBUSD, the name of the intrinsic; makes int_format.
 *
 * Without VNNI, products of bytes are added in pairs by vpmaddubsw, which has room for 16 bits: values of up to 6 bits are multiplied as they are
 * stored (the file's value plus OFFSET), ADDS vectors of pairs are added up in 16 bits and only then widened; the sum of the activations takes the
 * offset off again. Values of 8 bits (OFFSET 128) and their activations are widened to 16 before, for vpmaddwd; those of a single token, where
 * loads count, are split into two nibbles, isum = low + 16 high. With VNNI, vpdpbusd adds four products of any bytes to sums that begin with what
 * takes the offset off.
 *
 * One output is, in this order, over the groups g of its row:   c = fma(isum_g * a_g, w_g, c), c = fma(-sum_g, min_g, c)
 * where isum is the exact integer sum of the group: the same bits with and without VNNI. But where groups of 16 have integers as scales, without VNNI
 * two of them go together, since a float's worth of work for each costs as much as its products:
 *   isum = s_g isum_g + s_g+1 isum_g+1, below 2^24,   c = fma(isum * a, d, c), and both minima */
#include "tensor/decode.h"

#ifdef __clang__ /* which takes minutes for its checks of pointer arithmetic in products of several panels; gcc's sanitizer has them */
#pragma clang attribute push(__attribute__((no_sanitize("undefined"))), apply_to = function)
#endif
#include "backend/cpu/types_avx2.h"

#define CHUNK (VNNI ? 512 : 256) /* elements of a row that are unpacked at a time: 16 KiB for 32 rows, which stay in L1; wide values take twice as much */
#define SUB_TILE 3 /* tokens whose sums with 16 rows fit the registers */
#define WIDE(offset) (!VNNI && (offset) == 128)
#define UNPACKED(group, offset) (VNNI && (offset) ? 128 : INT_SCALES(group, offset) && (offset) ? ACT_PAIR_OFFSET : (offset)) /* what unpacked values have on top of the file's */

/* Four activations, in every lane. */
INLINE __m256i four(const int8_t *a) { return _mm256_set1_epi32((int32_t)load_u32(a)); }

/* Keeps the order of additions as it is written: compilers would form all products first and run out of registers. Costs nothing. */
INLINE __m256i in_order(__m256i v)
{
    __asm__("" : "+x"(v));
    return v;
}

/* ---- the tile: 16 rows x S tokens ---- */

struct tile {
    const uint8_t *w;                /* [k4][64]; wide: [k4][even, odd][64], the file's values as 16 bits */
    const float *ws, *wm;            /* [group][16] */
    const float *wd;                 /* [16]: d, where scales are integers, and ... */
    const int16_t *pairs;            /* ... [group of 16][T][2], which take the offset off sums of 16 bits */
    int n_units;                     /* of 32 elements */
    const int8_t *a;                 /* [k4][T][4]; wide: even ones [k4][T][2] of 16 bits, then odd ones */
    const struct act_group *group;   /* [unit][T] */
    const struct act_halves *halves; /* [unit][T] */
    int T;
    float *c;                        /* [S][2][16]: sums so far */
    bool first;                      /* start from zero */
};

/* What a sum of stored values is added to: read as a float, the result is ACT_MAGIC + isum. */
INLINE __m256i start_of(const struct act_group *ag, const struct act_halves *ah, int half, const int GROUP, const int OFFSET)
{
    if (OFFSET == 0) return _mm256_set1_epi32(ACT_MAGIC_BITS);
    const __m256i init = _mm256_set1_epi32(GROUP == 32 ? ag->init : ah->init[half]); /* ACT_MAGIC_BITS - 128 * sum of q */
    if (OFFSET == 128) return init;
    const int shift = __builtin_ctz(OFFSET ? 128 / OFFSET : 1);
    return _mm256_add_epi32(_mm256_srai_epi32(init, shift), _mm256_set1_epi32(ACT_MAGIC_BITS - (ACT_MAGIC_BITS >> shift)));
}

/* isum * a_g, of a sum that had its start. */
INLINE __m256 scaled_started(__m256i sum, const struct act_group *ag) { return _mm256_fmadd_ps(_mm256_castsi256_ps(sum), _mm256_set1_ps(ag->scale), _mm256_set1_ps(ag->neg_magic)); }

/* isum * a_g of a group: one fma takes ACT_MAGIC off again and scales. sum: of stored values; with VNNI it has its start already. */
INLINE __m256 scaled(__m256i sum, const struct act_group *ag, const struct act_halves *ah, int half, const int GROUP, const int OFFSET)
{
    if (!VNNI && OFFSET == 0) return _mm256_mul_ps(_mm256_cvtepi32_ps(sum), _mm256_set1_ps(ag->scale));
    if (!VNNI) sum = _mm256_add_epi32(sum, start_of(ag, ah, half, GROUP, OFFSET));
    return scaled_started(sum, ag);
}

#if VNNI
/* sum[h][t] += the sum over N_K4 * 4 elements of w * a; a_step: from one k4 to the next. */
INLINE void multiply_group(__m256i sum[2][SUB_TILE], const uint8_t *w, const int8_t *a, ptrdiff_t a_step, const int S, const int N_K4)
{
    UNROLL(8)
    for (int i = 0; i < N_K4; i++, w += 64, a += a_step) {
        const __m256i w0 = _mm256_load_si256((const void *)w), w1 = _mm256_load_si256((const void *)(w + 32));
        UNROLL(3)
        for (int t = 0; t < S; t++) {
            const __m256i b = four(a + 4 * t);
            sum[0][t] = DPBUSD(sum[0][t], w0, b);
            sum[1][t] = DPBUSD(sum[1][t], w1, b);
        }
    }
}
#else

/* sum[h][t] = the sum over N_K4 * 4 elements of w * a; a_step: from one k4 to the next. */
INLINE void multiply_group(__m256i sum[2][SUB_TILE], const uint8_t *w, const int8_t *a, ptrdiff_t a_step, const int S, const int N_K4, const int ADDS)
{
    UNROLL(4)
    for (int i = 0; i < N_K4; i += ADDS) {
        __m256i acc[2][SUB_TILE];
        UNROLL(8)
        for (int j = 0; j < ADDS; j++, w += 64, a += a_step) {
            const __m256i w0 = _mm256_load_si256((const void *)w), w1 = _mm256_load_si256((const void *)(w + 32));
            UNROLL(3)
            for (int t = 0; t < S; t++) {
                const __m256i b = four(a + 4 * t);
                const __m256i v0 = _mm256_maddubs_epi16(w0, b), v1 = _mm256_maddubs_epi16(w1, b);
                acc[0][t] = j == 0 ? v0 : in_order(_mm256_add_epi16(acc[0][t], v0));
                acc[1][t] = j == 0 ? v1 : in_order(_mm256_add_epi16(acc[1][t], v1));
            }
        }
        UNROLL(3)
        for (int t = 0; t < S; t++) {
            UNROLL(2)
            for (int h = 0; h < 2; h++) {
                const __m256i wide = _mm256_madd_epi16(acc[h][t], _mm256_set1_epi16(1));
                sum[h][t] = i == 0 ? wide : in_order(_mm256_add_epi32(sum[h][t], wide));
            }
        }
    }
}

/* The same on top of ACT_MAGIC, for wide values; odd: from the even elements to the others. */
INLINE void multiply_wide(__m256i sum[2][SUB_TILE], const uint8_t *w, const int8_t *a, ptrdiff_t a_step, ptrdiff_t odd, const int S, const int N_K4)
{
    UNROLL(3)
    for (int t = 0; t < S; t++) sum[0][t] = sum[1][t] = _mm256_set1_epi32(ACT_MAGIC_BITS);
    UNROLL(16)
    for (int i = 0; i < 2 * N_K4; i++, w += 64) {
        const __m256i w0 = _mm256_load_si256((const void *)w), w1 = _mm256_load_si256((const void *)(w + 32));
        UNROLL(3)
        for (int t = 0; t < S; t++) {
            const __m256i b = four(a + i / 2 * a_step + i % 2 * odd + 4 * t);
            sum[0][t] = in_order(_mm256_add_epi32(sum[0][t], _mm256_madd_epi16(w0, b)));
            sum[1][t] = in_order(_mm256_add_epi32(sum[1][t], _mm256_madd_epi16(w1, b)));
        }
    }
}
#endif

INLINE void load_sums(const struct tile *x, __m256 c[2][SUB_TILE], const int S)
{
    UNROLL(3)
    for (int t = 0; t < S; t++) {
        c[0][t] = x->first ? _mm256_setzero_ps() : _mm256_load_ps(x->c + t * 32);
        c[1][t] = x->first ? _mm256_setzero_ps() : _mm256_load_ps(x->c + t * 32 + 8);
    }
}

INLINE void store_sums(const struct tile *x, __m256 c[2][SUB_TILE], const int S)
{
    UNROLL(3)
    for (int t = 0; t < S; t++) {
        _mm256_store_ps(x->c + t * 32, c[0][t]);
        _mm256_store_ps(x->c + t * 32 + 8, c[1][t]);
    }
}

INLINE void take_minima(__m256 c[2][SUB_TILE], const float *wm, const struct act_group *ag, const struct act_halves *ah, int half, const int S, const int GROUP)
{
    UNROLL(3)
    for (int t = 0; t < S; t++) {
        const __m256 s = _mm256_set1_ps(GROUP == 32 ? ag[t].sum_scaled : ah[t].sum_scaled[half]);
        c[0][t] = _mm256_fnmadd_ps(s, _mm256_load_ps(wm), c[0][t]);
        c[1][t] = _mm256_fnmadd_ps(s, _mm256_load_ps(wm + 8), c[1][t]);
    }
}

INLINE void tile(const struct tile *x, const int S, const int GROUP, const int OFFSET, const int ADDS, const bool HAS_MIN)
{
    __m256 c[2][SUB_TILE];
    load_sums(x, c, S);
    const uint8_t *w = x->w;
    const float *ws = x->ws, *wm = x->wm;
    const int8_t *a = x->a;
    const struct act_group *ag = x->group;
    const struct act_halves *ah = x->halves;
    const ptrdiff_t T = x->T;
    const int step = WIDE(OFFSET) ? 128 : 64;
    for (int u = 0; u < x->n_units; u++, ag += T, ah += T) {
        for (int half = 0; half < 32 / GROUP; half++, ws += 16, wm += 16, w += GROUP / 4 * step, a += GROUP * T) {
            __m256i sum[2][SUB_TILE];
#if VNNI
            (void)ADDS;
            UNROLL(3)
            for (int t = 0; t < S; t++) sum[0][t] = sum[1][t] = start_of(&ag[t], &ah[t], half, GROUP, OFFSET);
            multiply_group(sum, w, a, 4 * T, S, GROUP / 4);
#else
            if (WIDE(OFFSET)) multiply_wide(sum, w, a, 4 * T, 32 * T * x->n_units, S, GROUP / 4);
            else multiply_group(sum, w, a, 4 * T, S, GROUP / 4, ADDS);
#endif
            const __m256 w_scale[2] = {_mm256_load_ps(ws), _mm256_load_ps(ws + 8)};
            UNROLL(3)
            for (int t = 0; t < S; t++) {
                UNROLL(2)
                for (int h = 0; h < 2; h++) {
                    const __m256 s = WIDE(OFFSET) ? scaled_started(sum[h][t], &ag[t]) : scaled(sum[h][t], &ag[t], &ah[t], half, GROUP, OFFSET);
                    c[h][t] = _mm256_fmadd_ps(s, w_scale[h], c[h][t]);
                }
            }
            if (HAS_MIN) take_minima(c, wm, ag, ah, half, S, GROUP);
        }
    }
    store_sums(x, c, S);
}

#if !VNNI
/* Two values of struct cpu_acts.pairs, in every lane. */
INLINE __m256i two_pairs(const int16_t *pairs) { return _mm256_set1_epi32((int32_t)load_u32(pairs)); }

/* Groups of 16 whose scales are integers. Values are less than 64 and stand for ACT_PAIR_OFFSET less, or have minima: sums of 16 bits may run over, but
 * end within 4 * 2 * 32 * 127. */
INLINE void tile_int_scales(const struct tile *x, const int S, const bool HAS_MIN)
{
    __m256 c[2][SUB_TILE];
    load_sums(x, c, S);
    const uint8_t *w = x->w;
    const float *ws = x->ws, *wm = x->wm;
    const int8_t *a = x->a;
    const struct act_group *ag = x->group;
    const struct act_halves *ah = x->halves;
    const int16_t *pairs = x->pairs;
    const ptrdiff_t T = x->T;
    for (int u = 0; u < x->n_units; u++, ag += T, ah += T) {
        __m256i sum[2][SUB_TILE];
        UNROLL(2)
        for (int half = 0; half < 2; half++, ws += 16, pairs += 2 * T) {
            __m256i acc[2][SUB_TILE];
            UNROLL(3)
            for (int t = 0; t < S; t++) acc[0][t] = acc[1][t] = HAS_MIN ? _mm256_setzero_si256() : two_pairs(pairs + 2 * t);
            UNROLL(4)
            for (int j = 0; j < 4; j++, w += 64, a += 4 * T) {
                const __m256i w0 = _mm256_load_si256((const void *)w), w1 = _mm256_load_si256((const void *)(w + 32));
                UNROLL(3)
                for (int t = 0; t < S; t++) {
                    const __m256i b = four(a + 4 * t);
                    acc[0][t] = in_order(_mm256_add_epi16(acc[0][t], _mm256_maddubs_epi16(w0, b)));
                    acc[1][t] = in_order(_mm256_add_epi16(acc[1][t], _mm256_maddubs_epi16(w1, b)));
                }
            }
            const __m256i s[2] = {_mm256_load_si256((const void *)ws), _mm256_load_si256((const void *)(ws + 8))};
            UNROLL(3)
            for (int t = 0; t < S; t++)
                UNROLL(2)
                for (int h = 0; h < 2; h++) {
                    const __m256i wide = _mm256_madd_epi16(acc[h][t], s[h]);
                    sum[h][t] = half == 0 ? wide : _mm256_add_epi32(sum[h][t], wide);
                }
        }
        UNROLL(3)
        for (int t = 0; t < S; t++)
            UNROLL(2)
            for (int h = 0; h < 2; h++)
                c[h][t] = _mm256_fmadd_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(sum[h][t]), _mm256_set1_ps(ag[t].scale)), _mm256_load_ps(x->wd + 8 * h), c[h][t]);
        for (int half = 0; HAS_MIN && half < 2; half++, wm += 16) take_minima(c, wm, ag, ah, half, S, 16);
    }
    store_sums(x, c, S);
}
#endif

/* X(group, offset of unpacked values, adds, has_min) */
#if VNNI
#define TILES(X) X(32, 0, 0, true) X(32, 128, 0, false) X(32, 128, 0, true) X(16, 0, 0, true) X(16, 128, 0, false) X(16, 128, 0, true)
#else /* ADDS * 2 * 127 * the largest stored value fit 16 bits */
#define TILES(X)                                                                                                        \
    X(32, 0, 8, true) X(32, 0, 4, true) X(32, 8, 8, false) X(32, 16, 4, false) X(32, 128, 8, false) X(32, 128, 8, true) \
    X(16, 128, 4, false) X(16, 128, 4, true)
#endif

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

#if !VNNI
#define X(name, HAS_MIN)                                 \
    static void tile_##name(const struct tile *x, int s) \
    {                                                    \
        if (s == 1) tile_int_scales(x, 1, HAS_MIN);      \
        else if (s == 2) tile_int_scales(x, 2, HAS_MIN); \
        else tile_int_scales(x, 3, HAS_MIN);             \
    }
X(int_scales_minima, true)
X(int_scales_offset, false)
#undef X
#endif

static tile_fn tile_of(int group, int offset, int adds, bool has_min)
{
#if !VNNI
    if (INT_SCALES(group, offset)) return has_min ? tile_int_scales_minima : tile_int_scales_offset;
#endif
#define X(GROUP, OFFSET, ADDS, HAS_MIN) \
    if (group == GROUP && UNPACKED(group, offset) == OFFSET && (VNNI || adds == ADDS) && has_min == HAS_MIN) return tile_##GROUP##_##OFFSET##_##ADDS##_##HAS_MIN;
    TILES(X)
#undef X
    return NULL;
}

/* ---- unpacking, and a single token ---- */

/* Scratch of a thread; every array 64-byte aligned, [2] are the panels of a pair. Behind it: sums [tiles][ACT_TILE][2][16]. */
struct scratch {
    uint8_t w[2][CHUNK / 4 * (VNNI ? 64 : 128)];
    float ws[2][CHUNK / 16 * 16], wm[2][CHUNK / 16 * 16], wd[2][16];
#if !VNNI
    int8_t a[2 * ACT_TILE * CHUNK]; /* activations of a tile, wide */
#endif
    int8_t row_q[CHUNK]; /* types without packed layout: one row's chunk */
    float row_scale[CHUNK / 16], row_min[CHUNK / 16];
};

/* The even and the odd of bytes, as 16 bits with their signs. */
INLINE __m256i even_of(__m256i v) { return _mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8); }
INLINE __m256i odd_of(__m256i v) { return _mm256_srai_epi16(v, 8); }

INLINE uint8_t *put_values(uint8_t *w, const enum tensor_type TYPE, const uint8_t *unit, int j, const int GROUP, const int OFFSET)
{
    UNROLL(2)
    for (int h = 0; h < 2; h++, w += 32) {
        const __m256i v = _mm256_add_epi8(values(TYPE, unit, j, h, WHOLE), _mm256_set1_epi8((char)(WIDE(OFFSET) ? -OFFSET : UNPACKED(GROUP, OFFSET) - OFFSET)));
        _mm256_store_si256((void *)w, WIDE(OFFSET) ? even_of(v) : v);
        if (WIDE(OFFSET)) _mm256_store_si256((void *)(w + 64), odd_of(v));
    }
    return WIDE(OFFSET) ? w + 64 : w;
}

/* Where scales are integers: the superblock's factor of them, of 16 rows. */
INLINE void store_d(const uint8_t *const *p, float *wd)
{
    for (int h = 0; h < 2; h++) _mm256_store_ps(wd + 8 * h, load_f16(p[0], h));
}

/* Superblocks [s0, s1) of one panel -> w, ws, wm, wd as struct tile has them. */
INLINE void unpack(const struct pack *pk, const uint8_t *panel, int n_super, int s0, int s1, uint8_t *w, float *ws, float *wm, float *wd,
                   const enum tensor_type TYPE, const int GROUP, const int OFFSET)
{
    const uint8_t *p[PACK_PLANES];
    pack_seek(pk, panel, n_super, s0, p);
    for (int s = s0; s < s1; pack_next(pk, panel, n_super, s, 1, p), s++) {
        scales_of(TYPE, p, ws, wm);
        if (INT_SCALES(GROUP, OFFSET)) store_d(p, wd);
        ws += pk->superblock / GROUP * 16;
        wm += pk->superblock / GROUP * 16;
        const uint8_t *unit = p[2];
        for (int u = 0; u < pk->superblock / 32; u++, unit += PACK_UNIT(pk->bits)) {
            UNROLL(8)
            for (int j = 0; j < 8; j++) w = put_values(w, TYPE, unit, j, GROUP, OFFSET);
        }
    }
}

/* The sum of a group's stored values times the activations a, elements of the unit from 4 j0 on; with VNNI on top of start. */
#if VNNI
INLINE __m256i group_sum(__m256i start, const uint8_t *unit, int j0, int h, const int8_t *a, const enum tensor_type TYPE, const int GROUP)
{
    UNROLL(8)
    for (int j = 0; j < GROUP / 4; j++) start = DPBUSD(start, values(TYPE, unit, j0 + j, h, WHOLE), four(a + 4 * j));
    return start;
}
#else
INLINE __m256i group_sum(const uint8_t *unit, int j0, int h, const int8_t *a, const enum tensor_type TYPE, const int GROUP, const int ADDS,
                         const enum part PART)
{
    __m256i sum = _mm256_setzero_si256();
    UNROLL(4)
    for (int i = 0; i < GROUP / 4; i += ADDS) {
        __m256i acc = sum;
        UNROLL(8)
        for (int j = i; j < i + ADDS; j++) {
            const __m256i v = _mm256_maddubs_epi16(values(TYPE, unit, j0 + j, h, PART), four(a + 4 * j));
            acc = j == i ? v : in_order(_mm256_add_epi16(acc, v));
        }
        const __m256i wide = _mm256_madd_epi16(acc, _mm256_set1_epi16(PART == HIGH ? 16 : 1));
        sum = i == 0 ? wide : _mm256_add_epi32(sum, wide);
    }
    return sum;
}
#endif

/* One token: what group `half` of a unit, with scales ws and wm, adds to c, the sums of a panel's 16 rows. The same arithmetic as in tile(). */
INLINE void add_group(__m256 c[2], const uint8_t *unit, const float *ws, const float *wm, const int half, const int8_t *a,
                      const struct act_group *ag, const struct act_halves *ah, const enum tensor_type TYPE, const int GROUP, const int OFFSET, const int ADDS, const bool HAS_MIN)
{
    a += half * 16;
    UNROLL(2)
    for (int h = 0; h < 2; h++) {
#if VNNI
        (void)ADDS;
        const __m256i sum = group_sum(start_of(ag, ah, half, GROUP, OFFSET), unit, half * 4, h, a, TYPE, GROUP);
#else
        __m256i sum = group_sum(unit, half * 4, h, a, TYPE, GROUP, ADDS, OFFSET == 128 ? LOW : WHOLE);
        if (OFFSET == 128) sum = _mm256_add_epi32(sum, group_sum(unit, half * 4, h, a, TYPE, GROUP, ADDS, HIGH));
#endif
        c[h] = _mm256_fmadd_ps(scaled(sum, ag, ah, half, GROUP, OFFSET), _mm256_load_ps(ws + 16 * half + 8 * h), c[h]);
        if (HAS_MIN) {
            const __m256 t = _mm256_set1_ps(GROUP == 32 ? ag->sum_scaled : ah->sum_scaled[half]);
            c[h] = _mm256_fnmadd_ps(t, _mm256_load_ps(wm + 16 * half + 8 * h), c[h]);
        }
    }
}

#if !VNNI
/* One token: what a unit of two groups with integer scales adds to c. The same arithmetic as in tile_int_scales(). */
INLINE void add_two_groups(__m256 c[2], const uint8_t *unit, const float *ws, const float *wm, const float *wd, const int8_t *a, const struct act_group *ag,
                           const struct act_halves *ah, const int16_t *pairs, const enum tensor_type TYPE, const int OFFSET)
{
    const bool HAS_MIN = OFFSET == 0;
    __m256i sum[2];
    UNROLL(2)
    for (int half = 0; half < 2; half++) {
        const __m256i start = HAS_MIN ? _mm256_setzero_si256() : _mm256_srai_epi16(two_pairs(pairs + 2 * half), __builtin_ctz(OFFSET ? ACT_PAIR_OFFSET / OFFSET : 1));
        UNROLL(2)
        for (int h = 0; h < 2; h++) {
            __m256i acc = start;
            UNROLL(4)
            for (int j = 0; j < 4; j++) acc = in_order(_mm256_add_epi16(acc, _mm256_maddubs_epi16(values(TYPE, unit, half * 4 + j, h, WHOLE), four(a + half * 16 + 4 * j))));
            const __m256i wide = _mm256_madd_epi16(acc, _mm256_load_si256((const void *)(ws + 16 * half + 8 * h)));
            sum[h] = half == 0 ? wide : _mm256_add_epi32(sum[h], wide);
        }
    }
    UNROLL(2)
    for (int h = 0; h < 2; h++) {
        c[h] = _mm256_fmadd_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(sum[h]), _mm256_set1_ps(ag->scale)), _mm256_load_ps(wd + 8 * h), c[h]);
        for (int half = 0; HAS_MIN && half < 2; half++) c[h] = _mm256_fnmadd_ps(_mm256_set1_ps(ah->sum_scaled[half]), _mm256_load_ps(wm + 16 * half + 8 * h), c[h]);
    }
}
#endif

/* One token: N panels side by side from the one at `base` on, `shift` bytes apart; -> c, their sums. */
INLINE void panels(const struct cpu_matmul *m, const struct pack *pk, const uint8_t *base, const size_t *shift, const int N, __m256 c[][2], const enum tensor_type TYPE,
                   const int GROUP, const int OFFSET, const int ADDS, const bool HAS_MIN)
{
    const int n_super = m->in / pk->superblock, units = pk->superblock / 32;
    _Alignas(64) float ws[AVX2_SIDE][16 * 16], wm[AVX2_SIDE][16 * 16], wd[AVX2_SIDE][16];
    const size_t bytes = pack_panel_bytes(pk, m->in);
    struct pack_stream stream = pack_stream_side(base, AVX2_SIDE, bytes, AVX2_AHEAD);
    const uint8_t *p[PACK_PLANES];
    pack_seek(pk, base, n_super, 0, p);
    UNROLL(4)
    for (int i = 0; i < N; i++) c[i][0] = c[i][1] = _mm256_setzero_ps();
    const int8_t *a = m->acts.q;
    const struct act_group *ag = m->acts.group;
    const struct act_halves *ah = m->acts.halves;
    for (int s = 0; s < n_super; s++) {
        UNROLL(4)
        for (int i = 0; i < N; i++) {
            const uint8_t *const pi[PACK_PLANES] = PACK_FURTHER(p, shift[i]);
            scales_of(TYPE, pi, ws[i], wm[i]);
            if (INT_SCALES(GROUP, OFFSET)) store_d(pi, wd[i]);
        }
        const uint8_t *unit = p[2];
        for (int u = 0; u < units; u++, unit += PACK_UNIT(pk->bits), a += 32, ag++, ah++) {
            const int at = u * (32 / GROUP) * 16;
            if (N > 1) pack_stream_go(&stream, AVX2_SIDE, shift, PACK_UNIT(pk->bits));
            UNROLL(4)
            for (int i = 0; i < N; i++) {
#if !VNNI
                if (INT_SCALES(GROUP, OFFSET)) {
                    add_two_groups(c[i], unit + shift[i], ws[i] + at, wm[i] + at, wd[i], a, ag, ah, m->acts.pairs + 4 * (s * units + u), TYPE, OFFSET);
                    continue;
                }
#endif
                add_group(c[i], unit + shift[i], ws[i] + at, wm[i] + at, 0, a, ag, ah, TYPE, GROUP, OFFSET, ADDS, HAS_MIN);
                if (GROUP == 16) add_group(c[i], unit + shift[i], ws[i] + at, wm[i] + at, 1, a, ag, ah, TYPE, GROUP, OFFSET, ADDS, HAS_MIN);
            }
        }
        pack_next(pk, base, n_super, s, 1, p);
    }
}

/* One token: panels [panel0, panel1), N at a time; where there are too few, the last one again. */
INLINE void gemv(const struct cpu_matmul *m, const struct pack *pk, int panel0, int panel1, const int N, const enum tensor_type TYPE, const int GROUP, const int OFFSET,
                 const int ADDS, const bool HAS_MIN)
{
    const size_t bytes = pack_panel_bytes(pk, m->in);
    for (int panel = panel0; panel < panel1; panel += N) {
        size_t shift[AVX2_SIDE];
        __m256 c[AVX2_SIDE][2];
        for (int i = 0; i < N; i++) shift[i] = (size_t)MIN(i, panel1 - 1 - panel) * bytes;
        panels(m, pk, pack_panel(m, pk, panel), shift, N, c, TYPE, GROUP, OFFSET, ADDS, HAS_MIN);
        for (int i = 0; i < N && panel + i < panel1; i++) {
            avx2_store_8(m, 0, (panel + i) * PANEL, c[i][0]);
            avx2_store_8(m, 0, (panel + i) * PANEL + 8, c[i][1]);
        }
    }
}

#define X(ENUM, name, GROUP, OFFSET, ADDS, HAS_MIN)                                                                                          \
    static void unpack_##name(const struct pack *pk, const uint8_t *panel, int n_super, int s0, int s1, uint8_t *w, float *ws, float *wm, float *wd) \
    {                                                                                                                                                 \
        unpack(pk, panel, n_super, s0, s1, w, ws, wm, wd, TYPE_##ENUM, GROUP, OFFSET);                                                                \
    }                                                                                                                                      \
    static void gemv_##name(const struct cpu_matmul *m, const struct pack *pk, int panel0, int panel1)                                     \
    {                                                                                                                                      \
        if (avx2_reads_side()) gemv(m, pk, panel0, panel1, AVX2_SIDE, TYPE_##ENUM, GROUP, OFFSET, ADDS, HAS_MIN);                          \
        else gemv(m, pk, panel0, panel1, 1, TYPE_##ENUM, GROUP, OFFSET, ADDS, HAS_MIN);                                                    \
    }
INT_TYPES(X)
#undef X

#ifdef __clang__
#pragma clang attribute pop
#endif

struct int_kind {
    int group, offset, adds;
    bool has_min;
    void (*unpack)(const struct pack *pk, const uint8_t *panel, int n_super, int s0, int s1, uint8_t *w, float *ws, float *wm, float *wd);
    void (*gemv)(const struct cpu_matmul *m, const struct pack *pk, int panel0, int panel1);
};
static const struct int_kind kinds[] = {
#define X(ENUM, name, group, offset, adds, has_min) [TYPE_##ENUM] = {group, offset, adds, has_min, unpack_##name, gemv_##name},
    INT_TYPES(X)
#undef X
};

/* ---- drivers ---- */

static size_t int_scratch_bytes(int in, int max_n)
{
    (void)in;
    return sizeof(struct scratch) + (size_t)ROUND_UP(max_n, ACT_TILE) * 32 * sizeof(float);
}

#if !VNNI
/* Activations of a tile, n of them -> as struct tile has wide ones. */
static void widen(const int8_t *a, int n, int8_t *wide)
{
    for (int i = 0; i < n; i += 32) {
        const __m256i v = _mm256_loadu_si256((const void *)(a + i));
        _mm256_store_si256((void *)(wide + i), even_of(v));
        _mm256_store_si256((void *)(wide + n + i), odd_of(v));
    }
}
#endif

/* The tokens against the chunk [k0, k0 + n_units * 32) of the one or two panels from `row` on in s; next: fetched meanwhile. */
static void multiply_chunk(const struct cpu_matmul *m, struct scratch *s, int row, int k0, int n_units, tile_fn fn, bool wide, struct pack_ahead *next)
{
    const size_t n_tiles = (size_t)(m->t1 - m->t0 + ACT_TILE - 1) / ACT_TILE, step = (next->total + n_tiles - 1) / n_tiles;
    const size_t in = (size_t)m->in, units = in / ACT_GROUP, u0 = (size_t)(k0 / ACT_GROUP);
    const bool last = k0 + n_units * 32 == m->in;
    const int n_panels = row + PANEL < m->out ? 2 : 1;
    float *c = (float *)(s + 1);
    for (int t0 = m->t0; t0 < m->t1; t0 += ACT_TILE, c += ACT_TILE * 32) {
        const int T = MIN(ACT_TILE, m->t1 - t0), parts = (T + SUB_TILE - 1) / SUB_TILE;
        const int8_t *a = m->acts.q + (size_t)t0 * in + (size_t)(k0 * T);
        pack_ahead_fetch(next, step);
#if !VNNI
        if (wide) widen(a, n_units * 32 * T, s->a), a = s->a;
#else
        (void)wide;
#endif
        for (int panel = 0; panel < n_panels; panel++) {
            for (int i = 0; i < parts; i++) {
                const int t = T * i / parts;
                const struct tile x = {
                    .w = s->w[panel], .ws = s->ws[panel], .wm = s->wm[panel], .n_units = n_units, .T = T, .first = k0 == 0,
                    .a = a + 4 * t,
                    .wd = s->wd[panel], .pairs = m->acts.pairs ? m->acts.pairs + 4 * ((size_t)t0 * units + u0 * (size_t)T) + 2 * t : NULL,
                    .group = m->acts.group + (size_t)t0 * units + u0 * (size_t)T + t,
                    .halves = m->acts.halves + (size_t)t0 * units + u0 * (size_t)T + t,
                    .c = c + t * 32 + panel * 16,
                };
                fn(&x, T * (i + 1) / parts - t);
            }
        }
        if (!last) continue;
        for (int t = 0; t < T; t++)
            for (int i = 0; i < 4 && i < 2 * n_panels; i++) avx2_store_8(m, t0 + t, row + 8 * i, _mm256_load_ps(c + t * 32 + 8 * i));
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
    const tile_fn fn = tile_of(kind->group, kind->offset, kind->adds, kind->has_min);
    const int n_super = pack_n_super(pk, m->in);
    for (int row = row0; row < row1; row += 2 * PANEL) {
        for (int k0 = 0; k0 < m->in; k0 += CHUNK) {
            const int n = MIN(CHUNK, m->in - k0), s0 = k0 / pk->superblock, s1 = (k0 + n) / pk->superblock;
            for (int i = 0; i < 2 && row + i * PANEL < m->out; i++) kind->unpack(pk, pack_panel(m, pk, row / PANEL + i), n_super, s0, s1, s->w[i], s->ws[i], s->wm[i], s->wd[i]);
            const bool last = k0 + CHUNK >= m->in;
            struct pack_ahead next = pack_plan_ahead(m, last ? row + 2 * PANEL : row, 2 * PANEL, last ? 0 : k0 + CHUNK, CHUNK);
            multiply_chunk(m, s, row, k0, n / 32, fn, WIDE(kind->offset), &next);
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
        const int8_t *q = s->row_q + 4 * i;
        if (VNNI) {
            const uint32_t v = load_u32(q) ^ 0x80808080u;
            memcpy(s->w[panel] + i * 64 + at * 4, &v, 4);
            continue;
        }
        const int16_t even[2] = {q[0], q[2]}, odd[2] = {q[1], q[3]};
        memcpy(s->w[panel] + i * 128 + at * 4, even, 4);
        memcpy(s->w[panel] + i * 128 + 64 + at * 4, odd, 4);
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
    const int group = MIN(f.group, ACT_GROUP);
    const tile_fn fn = tile_of(group, 128, group / 4, f.has_min);
    for (int row = row0; row < row1; row += 2 * PANEL) {
        for (int k0 = 0; k0 < m->in; k0 += CHUNK) {
            const int n = MIN(CHUNK, m->in - k0);
            for (int r = 0; r < MIN(2 * PANEL, m->out - row); r++) decode_row(m, s, &f, row, r, k0, n);
            struct pack_ahead next = {.total = 0};
            multiply_chunk(m, s, row, k0, n / 32, fn, !VNNI, &next);
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

static const struct cpu_format *int_format(enum tensor_type type)
{
    if (decode_int_form(type).group == 0) return NULL;
    return (size_t)type < COUNT_OF(packed) && packed[type].name ? &packed[type] : &rows;
}
