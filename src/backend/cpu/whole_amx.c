/* Matmul for AMX of weights whose groups have integers as scales: value times scale is an integer of 14 bits at most, and so is what a sum
 * over ACT_SUPER elements consists of, whose activations have one scale, too (ACTS_INT8_WHOLE). One output is, for each such stretch of its row,
 *   x = d * S,  x = fma(-dmin, M, x),  c = fma(x, super, c)    with    S = sum of scale_g w_i q_i,  M = sum of min_g q_i
 * S and M are exact, so any order of sums gives the same bits: a single token, a few, and tiles of many.
 *
 * For tiles, w scale = 128 high + low, both of 8 bits: two products by the matrix unit, 16 cycles each for 16 tokens x 16 rows x 64 elements.
 * The sums of an item, 32 tokens x 16 rows, go through memory to the vector unit, which makes outputs of them while the matrix unit
 * multiplies the next item. What was measured: bench/NOTES.md. */
#include "backend/cpu/amx.h"

#ifdef __clang__ /* which takes minutes for its checks of pointer arithmetic in loops that are unrolled; gcc's sanitizer has them */
#pragma clang attribute push(__attribute__((no_sanitize("undefined"))), apply_to = function)
#endif

/* A chunk is AMX_ROWS rows x 256 elements, whose parts stay in L1 while all tokens pass by. */
enum { TILE = AMX_TILE, BOTH = AMX_BOTH, PANELS = AMX_PANELS, ROWS = AMX_ROWS, BLOCK = AMX_BLOCK, SUMS = 16 * 16 };
#define CHUNK ACT_SUPER

/* Scratch of a thread; every array 64-byte aligned. Behind it: sums so far, many tokens [BLOCK / ROWS][of 32 tokens][PANELS][BOTH][16], few
 * [tiles][ACT_TILE][2][16]. */
struct scratch {
    struct avx512_parts panel[PANELS];
    int32_t sum[2][2][SUMS];   /* [tile][high, low] */
    struct avx512_whole whole;
};

static size_t scratch_bytes(int in, int max_n)
{
    (void)in;
    return sizeof(struct scratch) + (size_t)ROUND_UP(max_n, BOTH) * BLOCK * sizeof(float);
}

/* ---- many tokens; tiles: 0 to 3 sums [tile][high, low], 4 and 5 activations of two tiles, 6 and 7 weights ---- */

#define MULTIPLY(sum, a, w)                                                                                                                \
    do {                                                                                                                                   \
        if (k == 0) _tile_zero(sum);                                                                                                       \
        _tile_dpbssd(sum, a, w);                                                                                                           \
    } while (0)

/* Two tiles of tokens, or one, and a panel. */
struct item {
    const struct avx512_parts *panel;
    const int8_t *a;     /* [tile][4][T][64] */
    const int16_t *sum;  /* [tile][T][32] */
    const float *super;  /* [tile][T] */
    float *c;            /* [BOTH][16] */
};

/* Product i of 16: elements 64 * (i / 4) and on, tile i / 2 % 2, part i % 2. */
INLINE void multiply(int i, const struct item *x, int T)
{
    const int k = i / 4;
    if (i % 4 == 0) {
        _tile_loadd(4, x->a + k * T * 64, 64);
        _tile_loadd(6, x->panel->w[k][0], 64);
        _tile_loadd(7, x->panel->w[k][1], 64);
        _tile_loadd(5, x->a + (4 + k) * T * 64, 64);
    }
    switch (i % 4) {
    case 0: MULTIPLY(0, 4, 6); break;
    case 1: MULTIPLY(1, 4, 7); break;
    case 2: MULTIPLY(2, 5, 6); break;
    default: MULTIPLY(3, 5, 7); break;
    }
}

/* A chunk and all tokens. */
struct chunk {
    const struct cpu_matmul *m;
    struct scratch *s;
    float *c;                 /* [of 32 tokens][PANELS][BOTH][16] */
    struct pack_ahead next; /* packed bytes asked for meanwhile */
    int row, k0, n_panels;
};

/* Panel 0 and the tiles that begin with token t0. */
INLINE struct item item_at(const struct chunk *c, int t0)
{
    const struct act_whole *a = &c->m->acts.whole;
    const int i = t0 - c->m->t0;
    const size_t at = (size_t)(c->k0 / ACT_SUPER) * (size_t)c->m->n + (size_t)t0;
    return (struct item){c->s->panel, a->q + at * ACT_SUPER, a->sum + at * 32, a->super + at, c->c + i / BOTH * BOTH * ROWS + i % BOTH * 16};
}

/* The next panel, or the next two tiles. */
INLINE struct item item_next(const struct chunk *c, const struct item *x)
{
    if (x->panel + 1 < c->s->panel + c->n_panels) return (struct item){x->panel + 1, x->a, x->sum, x->super, x->c + BOTH * 16};
    return (struct item){c->s->panel, x->a + BOTH * ACT_SUPER, x->sum + BOTH * 32, x->super + BOTH, x->c + (1 + PANELS - c->n_panels) * BOTH * 16};
}

struct scales {
    __m512 d, dmin;
    __m512i min[8];  /* pairs */
    __mmask16 later; /* c is to be added to */
};

/* GROUP: that minima are of; 0: there are none. */
INLINE struct scales scales_of(const struct chunk *c, const struct item *x, const int GROUP)
{
    struct scales s = {.d = _mm512_load_ps(x->panel->d), .later = c->k0 ? 0xffff : 0};
    if (!GROUP) return s;
    s.dmin = _mm512_load_ps(x->panel->dmin);
    UNROLL(8)
    for (int i = 0; i < CHUNK / GROUP / 2; i++) s.min[i] = _mm512_load_si512(x->panel->min[i]);
    return s;
}

/* Token t of the sums. */
INLINE void scale_token(const struct scratch *s, const struct scales *by, const struct item *x, int t, const int GROUP)
{
    float *c = x->c + t * 16;
    const __m512i high = _mm512_load_si512(s->sum[t / TILE][0] + t % TILE * 16), low = _mm512_load_si512(s->sum[t / TILE][1] + t % TILE * 16);
    __m512i m = _mm512_setzero_si512();
    if (GROUP) {
        const int16_t *sum = x->sum + t * 32 + (GROUP == 16 ? 0 : 16);
        UNROLL(8)
        for (int i = 0; i < CHUNK / GROUP / 2; i++) {
            int32_t pair;
            memcpy(&pair, sum + 2 * i, 4);
            m = _mm512_dpwssd_epi32(m, by->min[i], _mm512_set1_epi32(pair));
        }
    }
    const __m512i sum = _mm512_add_epi32(_mm512_slli_epi32(high, 7), low);
    _mm512_store_ps(c, avx512_whole_add(_mm512_maskz_load_ps(by->later, c), sum, by->d, m, by->dmin, x->super[t], GROUP != 0));
}

INLINE void store_sums(struct scratch *s)
{
    _tile_stored(0, s->sum[0][0], 64);
    _tile_stored(1, s->sum[0][1], 64);
    _tile_stored(2, s->sum[1][0], 64);
    _tile_stored(3, s->sum[1][1], 64);
}

/* The products of x while the sums of the item before it are scaled; whole tiles. */
INLINE void step(const struct chunk *c, const struct item *before, const struct item *x, const int GROUP)
{
    const struct scales by = scales_of(c, before, GROUP);
    UNROLL(16)
    for (int i = 0; i < 16; i++) {
        multiply(i, x, TILE);
        scale_token(c->s, &by, before, 2 * i, GROUP);
        scale_token(c->s, &by, before, 2 * i + 1, GROUP);
    }
    store_sums(c->s);
}

/* One thing after the other. */
INLINE void multiply_both(const struct chunk *c, const struct item *x)
{
    UNROLL(16)
    for (int i = 0; i < 16; i++) multiply(i, x, TILE);
    store_sums(c->s);
}

/* A single tile, of T tokens. */
INLINE void multiply_one(const struct chunk *c, const struct item *x, int T)
{
    _tile_zero(0);
    _tile_zero(1);
    for (int k = 0; k < 4; k++) {
        _tile_loadd(4, x->a + k * T * 64, 64);
        _tile_loadd(6, x->panel->w[k][0], 64);
        _tile_dpbssd(0, 4, 6);
        _tile_loadd(7, x->panel->w[k][1], 64);
        _tile_dpbssd(1, 4, 7);
    }
    _tile_stored(0, c->s->sum[0][0], 64);
    _tile_stored(1, c->s->sum[0][1], 64);
}

INLINE void scale_alone(const struct chunk *c, const struct item *x, int n, const int GROUP)
{
    const struct scales by = scales_of(c, x, GROUP);
    for (int t = 0; t < n; t++) scale_token(c->s, &by, x, t, GROUP);
}

INLINE void multiply_chunk(struct chunk *c, const int GROUP)
{
    const int first = c->m->t0, end = c->m->t1, n = end - first, whole = n / BOTH * c->n_panels;
    const size_t step_bytes = (c->next.total * BOTH + (size_t)(n * c->n_panels) - 1) / (size_t)(n * c->n_panels);
    struct item x = item_at(c, first);
    if (n >= TILE) amx_configure(TILE);
    if (whole) {
        multiply_both(c, &x);
        for (int i = 1; i < whole; i++) {
            const struct item before = x;
            x = item_next(c, &x);
            step(c, &before, &x, GROUP);
            pack_ahead_fetch(&c->next, step_bytes);
        }
        scale_alone(c, &x, BOTH, GROUP);
    }
    for (int t0 = end - n % BOTH; t0 < end; t0 += TILE) {
        const int T = MIN(TILE, end - t0);
        if (T < TILE) amx_configure(T);
        x = item_at(c, t0);
        for (int i = 0; i < c->n_panels; i++, x.panel++, x.c += BOTH * 16) {
            multiply_one(c, &x, T);
            pack_ahead_fetch(&c->next, step_bytes);
            scale_alone(c, &x, T, GROUP);
        }
    }
}
static void chunk_plain(struct chunk *c) { multiply_chunk(c, 0); }
static void chunk_min_16(struct chunk *c) { multiply_chunk(c, 16); }
static void chunk_min_32(struct chunk *c) { multiply_chunk(c, 32); }

static void run_many(const struct cpu_matmul *m, int row0, int row1)
{
    struct scratch *s = m->scratch;
    const struct avx512_int_kind kind = avx512_int_kind(m->tensor->type);
    void (*const fn)(struct chunk *c) = !kind.has_min ? chunk_plain : kind.group == 16 ? chunk_min_16 : chunk_min_32;
    const size_t n = (size_t)ROUND_UP(m->t1 - m->t0, BOTH);
    for (int first = row0; first < row1; first += BLOCK) {
        const int end = MIN(first + BLOCK, row1);
        for (int k0 = 0; k0 < m->in; k0 += CHUNK) {
            struct chunk c = {.m = m, .s = s, .c = (float *)(s + 1), .k0 = k0};
            for (c.row = first; c.row < end; c.row += ROWS, c.c += n * ROWS) {
                c.n_panels = MIN(PANELS, (end - c.row + PANEL - 1) / PANEL);
                for (int i = 0; i < c.n_panels; i++) avx512_whole_split(m, c.row + i * PANEL, k0, &s->panel[i]);
                const bool last_row = c.row + ROWS >= end, last = last_row && k0 + CHUNK >= m->in;
                c.next = pack_plan_ahead(m, last ? end : last_row ? first : c.row + ROWS, ROWS, last ? 0 : last_row ? k0 + CHUNK : k0, CHUNK);
                fn(&c);
            }
        }
        amx_store_block(m, (float *)(s + 1), first, end);
    }
    _tile_release();
}

/* ---- few tokens, by the vector unit ---- */

/* A chunk of 32 rows times T tokens. */
struct few {
    const struct avx512_whole *x;
    const int8_t *a;              /* [k4][T][4] */
    const struct act_stretch *as; /* [T] */
    float *c;                     /* [T][2][16] */
    bool begins;
};

INLINE void few_end(const struct few *f, int t, int half, __m512i sum, const int GROUP, const bool HAS_MIN)
{
    const struct avx512_whole *x = f->x;
    float *c = f->c + t * 32 + half * 16;
    __m512i m = _mm512_setzero_si512();
    if (HAS_MIN) {
        __m512i min[4];
        UNROLL(4)
        for (int i = 0; i < CHUNK / GROUP / 4; i++) min[i] = _mm512_load_si512(x->min[i][half]);
        m = avx512_whole_minima(&f->as[t], min, GROUP);
    }
    const __m512 before = f->begins ? _mm512_setzero_ps() : _mm512_load_ps(c);
    _mm512_store_ps(c, avx512_whole_add(before, sum, _mm512_load_ps(x->d[half]), m, _mm512_load_ps(x->dmin[half]), f->as[t].super, HAS_MIN));
}

INLINE void few(const struct few *f, const int T, const int GROUP, const bool HAS_MIN)
{
    const struct avx512_whole *x = f->x;
    const int8_t *a = f->a;
    __m512i sum[2][ACT_TILE];
    UNROLL(6)
    for (int t = 0; t < T; t++) sum[0][t] = sum[1][t] = _mm512_setzero_si512();
    for (int g = 0; g < CHUNK / GROUP; g++) {
        __m512i acc[2][ACT_TILE];
        UNROLL(6)
        for (int t = 0; t < T; t++) acc[0][t] = acc[1][t] = _mm512_set1_epi32(HAS_MIN ? 0 : -128 * f->as[t].sum[GROUP == 16 ? g : 16 + g]);
        UNROLL(8)
        for (int j = 0; j < GROUP / 4; j++, a += 4 * T) {
            const __m512i w0 = _mm512_load_si512(x->w[g * (GROUP / 4) + j][0]), w1 = _mm512_load_si512(x->w[g * (GROUP / 4) + j][1]);
            UNROLL(6)
            for (int t = 0; t < T; t++) {
                int32_t word;
                memcpy(&word, a + 4 * t, 4);
                acc[0][t] = _mm512_dpbusd_epi32(acc[0][t], w0, _mm512_set1_epi32(word));
                acc[1][t] = _mm512_dpbusd_epi32(acc[1][t], w1, _mm512_set1_epi32(word));
            }
        }
        const __m512i s0 = _mm512_load_si512(x->scale[g][0]), s1 = _mm512_load_si512(x->scale[g][1]);
        UNROLL(6)
        for (int t = 0; t < T; t++) {
            sum[0][t] = _mm512_add_epi32(sum[0][t], _mm512_mullo_epi32(acc[0][t], s0));
            sum[1][t] = _mm512_add_epi32(sum[1][t], _mm512_mullo_epi32(acc[1][t], s1));
        }
    }
    UNROLL(6)
    for (int t = 0; t < T; t++) few_end(f, t, 0, sum[0][t], GROUP, HAS_MIN), few_end(f, t, 1, sum[1][t], GROUP, HAS_MIN);
}

#define FEW_CASES(GROUP, HAS_MIN)                \
    switch (t) {                                 \
    case 1: few(f, 1, GROUP, HAS_MIN); break;    \
    case 2: few(f, 2, GROUP, HAS_MIN); break;    \
    case 3: few(f, 3, GROUP, HAS_MIN); break;    \
    case 4: few(f, 4, GROUP, HAS_MIN); break;    \
    case 5: few(f, 5, GROUP, HAS_MIN); break;    \
    default: few(f, 6, GROUP, HAS_MIN); break;   \
    }
static void few_32(const struct few *f, int t) { FEW_CASES(32, false) }
static void few_32_min(const struct few *f, int t) { FEW_CASES(32, true) }
static void few_16(const struct few *f, int t) { FEW_CASES(16, false) }
static void few_16_min(const struct few *f, int t) { FEW_CASES(16, true) }

static void run_few(const struct cpu_matmul *m, int row0, int row1)
{
    struct scratch *s = m->scratch;
    const struct avx512_int_kind kind = avx512_int_kind(m->tensor->type);
    void (*const fn)(const struct few *f, int t) = kind.group == 16 ? (kind.has_min ? few_16_min : few_16) : (kind.has_min ? few_32_min : few_32);
    const int n_super = m->in / CHUNK;
    for (int row = row0; row < row1; row += 2 * PANEL)
        for (int k = 0; k < n_super; k++) {
            avx512_whole_unpack(m, row, k * CHUNK, &s->whole);
            struct few f = {.x = &s->whole, .c = (float *)(s + 1), .begins = k == 0};
            for (int t0 = m->t0; t0 < m->t1; t0 += ACT_TILE, f.c += ACT_TILE * 32) {
                const int T = MIN(ACT_TILE, m->t1 - t0);
                f.a = m->acts.whole.q + (size_t)t0 * (size_t)m->in + (size_t)(k * CHUNK * T);
                f.as = m->acts.whole.stretch + t0 * n_super + k * T;
                fn(&f, T);
                for (int t = 0; t < T && k == n_super - 1; t++) {
                    avx512_store_row(m, t0 + t, row, _mm512_load_ps(f.c + t * 32));
                    avx512_store_row(m, t0 + t, row + 16, _mm512_load_ps(f.c + t * 32 + 16));
                }
            }
        }
}

static void run(const struct cpu_matmul *m, int row0, int row1)
{
    if (m->n == 1) avx512_whole_gemv(m, row0, row1);
    else if (acts_are_many(&m->acts, m->n)) run_many(m, row0, row1);
    else run_few(m, row0, row1);
}

#define X(ENUM, name)                                                                                                                      \
    static size_t bytes_##name(int64_t rows, int64_t in) { return pack_bytes(TYPE_##ENUM, rows, in); }
AVX512_WHOLE_TYPES(X)
#undef X

const struct cpu_format *amx_whole_format(enum tensor_type type)
{
    static const struct cpu_format formats[] = {
#define X(ENUM, name) [TYPE_##ENUM] = {"packed int8", ACTS_INT8_WHOLE, bytes_##name, pack_rows, scratch_bytes, run},
        AVX512_WHOLE_TYPES(X)
#undef X
    };
    return (size_t)type < COUNT_OF(formats) && formats[type].name ? &formats[type] : NULL;
}

#ifdef __clang__
#pragma clang attribute pop
#endif
