/* Matmul with int8 activations for AVX-512 VNNI: weights are unpacked to bytes in cache, 32 rows at a time, and multiplied with
 * tiles of up to six tokens; a single token reads the packed planes directly.
 *
 * One output is, in this order, for each stretch of ACT_SUPER elements of its row, over the groups g in it:
 *   s = fma(isum_g * 2^-k_g, w_g, s), s = fma(-sum_g * 2^-k_g, min_g, s);   then   c = fma(s, super, c)
 * where isum is the exact integer sum of the group and the scale of its activations is super * 2^-k_g. Where minima are integers m_g times
 * one float, they come once for all groups, s = fma(-M, min / 8, s) before c, with M the exact sum of m_g and the activations' sums of 16 bits:
 * half as many multiplications. isum is accumulated on top of the bits of ACT_MAGIC * 2^-k_g, so that the accumulator read as a float is (ACT_MAGIC + isum) * 2^-k_g; one subtraction, exact, leaves the
 * product. Processors that multiply and add in different units (AMD's) have half of them free for subtractions: only one fma of
 * the two or three that scaling would take waits for the unit that multiplies integers. */
#include "backend/cpu/avx512.h"

#include "backend/cpu/pack.h"

#define CHUNK AVX512_CHUNK
#define TILE ACT_TILE
#define BLOCK 128 /* rows that a chunk of activations meets while it is in the L2 cache */

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
    const int16_t *sums;             /* [stretch][T][ACT_SUMS] */
    ptrdiff_t next_a, next_group, next_sums; /* bytes from a, group and sums to those of the tile after this one, to fetch them ahead */
    float *c;                        /* [T][2][16]: sums so far */
    bool first;                      /* start from zero */
};

enum minima { MIN_NONE, MIN_GROUP, MIN_STRETCH }; /* a float for each group, or integers and a float for each stretch */

/* The sums of one group on top of s. */
static inline __attribute__((always_inline)) void scale_group(const struct tile *x, __m512 s[2][TILE], __m512i acc[2][TILE], const struct act_group *ag,
                                                              const struct act_halves *ah, int group, int half, const int T, const int GROUP,
                                                              const enum minima MIN_KIND)
{
    const float *ws = x->ws + group * 32, *wm = x->wm + group * 32;
    const __m512 ws0 = _mm512_load_ps(ws), ws1 = _mm512_load_ps(ws + 16);
    UNROLL(6)
    for (int t = 0; t < T; t++) {
        const __m512 magic = _mm512_set1_ps(ag[t].neg_magic);
        s[0][t] = _mm512_fmadd_ps(_mm512_add_ps(_mm512_castsi512_ps(acc[0][t]), magic), ws0, s[0][t]);
        s[1][t] = _mm512_fmadd_ps(_mm512_add_ps(_mm512_castsi512_ps(acc[1][t]), magic), ws1, s[1][t]);
        if (MIN_KIND == MIN_GROUP) {
            const __m512 sum = _mm512_set1_ps(GROUP == 32 ? ag[t].sum_scaled : ah[t].sum_scaled[half]);
            s[0][t] = _mm512_fnmadd_ps(sum, _mm512_load_ps(wm), s[0][t]);
            s[1][t] = _mm512_fnmadd_ps(sum, _mm512_load_ps(wm + 16), s[1][t]);
        }
    }
}

/* The minima of a stretch off s. */
static inline __attribute__((always_inline)) void take_minima(const float *wm, const int16_t *sums, __m512 s[2][TILE], const int T, const int GROUP)
{
    if (GROUP == 32) sums += ACT_EIGHTHS;
    __m512i m[2][TILE];
    UNROLL(6)
    for (int t = 0; t < T; t++) m[0][t] = m[1][t] = _mm512_setzero_si512();
    UNROLL(8)
    for (int i = 0; i < AVX512_MIN_PAIRS(GROUP); i++, wm += 32) {
        const __m512i w0 = _mm512_load_si512(wm), w1 = _mm512_load_si512(wm + 16);
        UNROLL(6)
        for (int t = 0; t < T; t++) {
            const __m512i pair = _mm512_set1_epi32(load_i32(sums + t * ACT_SUMS + 2 * i));
            m[0][t] = _mm512_dpwssd_epi32(m[0][t], w0, pair);
            m[1][t] = _mm512_dpwssd_epi32(m[1][t], w1, pair);
        }
    }
    UNROLL(6)
    for (int t = 0; t < T; t++)
        for (int i = 0; i < 2; i++) s[i][t] = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(m[i][t]), _mm512_load_ps(wm + 16 * i), s[i][t]);
}

static inline __attribute__((always_inline)) void tile(const struct tile *x, const int T, const int GROUP, const enum minima MIN_KIND)
{
    const uint8_t *w = x->w;
    const int8_t *a = x->a;
    const struct act_group *ag = x->group;
    const struct act_halves *ah = x->halves;
    const int16_t *sums = x->sums;
    for (int u = 0, group = 0; u < x->n_units;) {
        __m512 s[2][TILE];
        UNROLL(6)
        for (int t = 0; t < T; t++) s[0][t] = s[1][t] = _mm512_setzero_ps();
        const int first_unit = u, end = MIN(u + ACT_SUPER / 32, x->n_units);
        for (; u < end; u++, ag += T, ah += T) {
            UNROLL(3)
            for (int i = 0; i < T * 32; i += 64) __builtin_prefetch(a + x->next_a + i);
            UNROLL(3)
            for (int i = 0; i < T * (int)sizeof *ag; i += 64) __builtin_prefetch((const char *)ag + x->next_group + i);
            UNROLL(2)
            for (int half = 0; half < 32 / GROUP; half++, group++) {
                __m512i acc[2][TILE];
                UNROLL(6)
                for (int t = 0; t < T; t++)
                    acc[0][t] = acc[1][t] = _mm512_set1_epi32(MIN_KIND ? ag[t].start : GROUP == 32 ? ag[t].init : ah[t].init[half]);
                UNROLL(8)
                for (int j = 0; j < GROUP / 4; j++, w += 128, a += 4 * T) {
                    const __m512i w0 = _mm512_load_si512(w), w1 = _mm512_load_si512(w + 64);
                    UNROLL(6)
                    for (int t = 0; t < T; t++) {
                        const __m512i b = _mm512_set1_epi32(load_i32(a + 4 * t));
                        acc[0][t] = _mm512_dpbusd_epi32(acc[0][t], w0, b);
                        acc[1][t] = _mm512_dpbusd_epi32(acc[1][t], w1, b);
                    }
                }
                scale_group(x, s, acc, ag, ah, group, half, T, GROUP, MIN_KIND);
            }
        }
        if (MIN_KIND == MIN_STRETCH) {
            take_minima(x->wm + first_unit / (ACT_SUPER / 32) * AVX512_MIN_STRETCH(GROUP), sums, s, T, GROUP);
            UNROLL(5)
            for (int i = 0; i < T * ACT_SUMS * 2; i += 64) __builtin_prefetch((const char *)sums + x->next_sums + i);
            sums += T * ACT_SUMS;
        }
        const bool first = x->first && first_unit == 0;
        UNROLL(6)
        for (int t = 0; t < T; t++) {
            const __m512 super = _mm512_set1_ps(ag[t - T].super);
            const __m512 c0 = first ? _mm512_setzero_ps() : _mm512_load_ps(x->c + t * 32);
            const __m512 c1 = first ? _mm512_setzero_ps() : _mm512_load_ps(x->c + t * 32 + 16);
            _mm512_store_ps(x->c + t * 32, _mm512_fmadd_ps(s[0][t], super, c0));
            _mm512_store_ps(x->c + t * 32 + 16, _mm512_fmadd_ps(s[1][t], super, c1));
        }
    }
}

#define TILE_CASES(GROUP, MIN_KIND)                    \
    switch (t) {                                       \
    case 1: tile(x, 1, GROUP, MIN_KIND); break;        \
    case 2: tile(x, 2, GROUP, MIN_KIND); break;        \
    case 3: tile(x, 3, GROUP, MIN_KIND); break;        \
    case 4: tile(x, 4, GROUP, MIN_KIND); break;        \
    case 5: tile(x, 5, GROUP, MIN_KIND); break;        \
    default: tile(x, 6, GROUP, MIN_KIND); break;       \
    }
static void tile_32(const struct tile *x, int t) { TILE_CASES(32, MIN_NONE) }
static void tile_32_min(const struct tile *x, int t) { TILE_CASES(32, MIN_GROUP) }
static void tile_32_whole(const struct tile *x, int t) { TILE_CASES(32, MIN_STRETCH) }
static void tile_16(const struct tile *x, int t) { TILE_CASES(16, MIN_NONE) }
static void tile_16_min(const struct tile *x, int t) { TILE_CASES(16, MIN_GROUP) }
static void tile_16_whole(const struct tile *x, int t) { TILE_CASES(16, MIN_STRETCH) }

typedef void (*tile_fn)(const struct tile *x, int t);
static const tile_fn tiles[2][3] = { /* [group of 16][enum minima] */
    {tile_32, tile_32_min, tile_32_whole},
    {tile_16, tile_16_min, tile_16_whole},
};

/* ---- drivers ---- */

/* Scratch of a thread; every array 64-byte aligned. Behind it: sums [BLOCK / 32][tiles][ACT_TILE][2][16]. */
struct scratch {
    uint8_t w[CHUNK / 4 * 128];
    float ws[CHUNK / 16 * 32], wm[CHUNK / 16 * 32];
};

static size_t scratch_bytes(int in, int max_n)
{
    (void)in;
    return sizeof(struct scratch) + (size_t)ROUND_UP(max_n, TILE) * BLOCK * sizeof(float);
}

/* The tokens against the chunk [k0, k0 + n_units * 32) of rows row .. row + 31 in s->w. */
static void multiply_chunk(const struct cpu_matmul *m, const struct scratch *s, float *sums, int row, int k0, int n_units, tile_fn fn, struct pack_ahead *next)
{
    const size_t n_tiles = (size_t)(m->t1 - m->t0 + TILE - 1) / TILE, step = (next->total + n_tiles - 1) / n_tiles;
    const size_t in = (size_t)m->in, units = in / ACT_GROUP, u0 = (size_t)(k0 / ACT_GROUP);
    const bool last = k0 + n_units * 32 == m->in;
    struct tile x = {.w = s->w, .ws = s->ws, .wm = s->wm, .n_units = n_units, .c = sums, .first = k0 == 0};
    for (int t0 = m->t0; t0 < m->t1; t0 += TILE, x.c += TILE * 32) {
        const int T = MIN(TILE, m->t1 - t0);
        x.a = m->acts.q + (size_t)t0 * in + (size_t)(k0 * T);
        x.group = m->acts.group + (size_t)t0 * units + u0 * (size_t)T;
        x.halves = m->acts.halves + (size_t)t0 * units + u0 * (size_t)T;
        if (m->acts.sums) x.sums = m->acts.sums + ((size_t)t0 * (in / ACT_SUPER) + (size_t)(k0 / ACT_SUPER * T)) * ACT_SUMS;
        x.next_a = (ptrdiff_t)((size_t)TILE * in);
        x.next_group = (ptrdiff_t)((size_t)TILE * units * sizeof *x.group);
        x.next_sums = (ptrdiff_t)((size_t)TILE * (in / ACT_SUPER) * ACT_SUMS * sizeof *x.sums);
        pack_ahead_fetch(next, step);
        if (last) avx512_ask_rows(m, t0, T, row);
        fn(&x, T);
        if (!last) continue;
        for (int t = 0; t < T; t++) {
            avx512_store_row(m, t0 + t, row, _mm512_load_ps(x.c + t * 32));
            avx512_store_row(m, t0 + t, row + 16, _mm512_load_ps(x.c + t * 32 + 16));
        }
    }
}

static void run(const struct cpu_matmul *m, int row0, int row1)
{
    if (avx512_int_gemv(m, row0, row1)) return;
    struct scratch *s = m->scratch;
    const struct avx512_int_kind kind = avx512_int_kind(m->tensor->type);
    const struct avx512_chunk c = {s->w, s->ws, s->wm};
    const tile_fn fn = tiles[kind.group == 16][kind.whole_min ? MIN_STRETCH : kind.has_min ? MIN_GROUP : MIN_NONE];
    for (int first = row0; first < row1; first += BLOCK) {
        const int end = MIN(first + BLOCK, row1);
        for (int k0 = 0; k0 < m->in; k0 += CHUNK) {
            const int n = MIN(CHUNK, m->in - k0);
            float *sums = (float *)(s + 1);
            for (int row = first; row < end; row += 2 * PANEL, sums += ROUND_UP(m->t1 - m->t0, TILE) * 32) {
                avx512_int_unpack(m, row, k0, n, &c);
                const bool last_row = row + 2 * PANEL >= end, last = last_row && k0 + CHUNK >= m->in;
                struct pack_ahead next = pack_plan_ahead(m, last ? end : last_row ? first : row + 2 * PANEL, 2 * PANEL, last ? 0 : last_row ? k0 + CHUNK : k0, CHUNK);
                multiply_chunk(m, s, sums, row, k0, n / 32, fn, &next);
            }
        }
    }
}

#define X(ENUM, name)                                                                                                             \
    static size_t bytes_##name(int64_t rows, int64_t in) { return pack_bytes(TYPE_##ENUM, rows, in); }
AVX512_INT_TYPES(X)
#undef X

const struct cpu_format *avx512_int_format(enum tensor_type type)
{
    static const struct cpu_format packed[] = {
#define X(ENUM, name) [TYPE_##ENUM] = {"packed int8", ACTS_INT8, bytes_##name, pack_rows, scratch_bytes, run},
        AVX512_INT_TYPES(X)
#undef X
    };
    static const struct cpu_format rows = {"rows int8", ACTS_INT8, NULL, NULL, scratch_bytes, run};
    if ((size_t)type < COUNT_OF(packed) && packed[type].name) return &packed[type];
    return avx512_int_kind(type).group ? &rows : NULL;
}
