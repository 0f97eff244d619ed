/* Matmul for AMX of BF16 weights with activations rounded to BF16, exact products summed in f32 by the matrix unit. The packed layout is that of its
 * tiles: 32 elements of 16 rows are 1 KiB on end, so weights go from memory to tiles as they are.
 *
 * One output is a chain of tdpbf16ps over 32 elements after 32, whatever the number of tokens: tiles with fewer rows do the same for each of
 * them. Sums leave their tile and come back between spans, exactly. A single token, which waits for memory, reads more panels side by side than
 * there are tiles: vector instructions do what the manual says of tdpbf16ps (Intel SDM volume 2): a chain of fma over even elements from 0 and one over
 * odd ones, numbers below the normal range taken for zero, then c + (even + odd). */
#include "backend/cpu/amx.h"

enum {
    STEP = 32,                 /* elements of one product */
    SIDE = AVX512_SIDE,        /* panels side by side, few tokens */
    AHEAD = 2048,              /* bytes that these ask for ahead in each, and ... */
    ALONE = AVX512_FLOAT_SIDE, /* ... a single token, so many side by side */
    ALONE_AHEAD = 512,
    WEIGHTS = STEP * PANEL * 2 /* bytes of a tile of weights */
};

/* Scratch of a thread. Behind it, for many tokens: sums, see amx_store_block. */
struct scratch {
    _Alignas(64) uint8_t rest[SIDE][WEIGHTS]; /* the end of a panel whose rows are no whole steps, and zeros */
    float sum[SIDE][AMX_TILE][PANEL], alone[ALONE][PANEL];
};

static size_t scratch_bytes(int in, int max_n)
{
    (void)in;
    return sizeof(struct scratch) + (size_t)ROUND_UP(max_n, AMX_BOTH) * AMX_BLOCK * sizeof(float);
}

static const uint8_t *panel_at(const struct cpu_matmul *m, int panel) { return pack_panel(m, pack_find(TYPE_BF16), panel); }

/* The last step of a panel, if it is no whole one: activations have zeros there, other weights must not meet them. */
static const uint8_t *panel_rest(const struct cpu_matmul *m, const uint8_t *panel, uint8_t *to)
{
    const size_t whole = (size_t)(m->in / STEP), left = (size_t)(m->in % STEP + 1) / 2 * PANEL * 4;
    if (!left) return NULL;
    memset(to, 0, WEIGHTS);
    memcpy(to, panel + whole * WEIGHTS, left);
    return to;
}

/* ---- a single token ---- */

INLINE __m512 even(__m512i pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)); }
INLINE __m512 odd(__m512i pairs) { return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32((int)0xffff0000u))); }

/* Pairs [at, at + n) of ALONE panels: one tdpbf16ps. */
INLINE void alone_step(const uint8_t *const w[ALONE], size_t at, const uint16_t *a, int n, __m512 c[ALONE])
{
    __m512 e[ALONE], o[ALONE];
#pragma GCC unroll 8
    for (int i = 0; i < ALONE; i++) e[i] = o[i] = _mm512_setzero_ps();
    for (int k = 0; k < n; k++, at += 64, a += 2) {
        int32_t pair;
        memcpy(&pair, a, sizeof pair);
        const __m512i x = _mm512_set1_epi32(pair);
        const __m512 x0 = even(x), x1 = odd(x);
#pragma GCC unroll 8
        for (int i = 0; i < ALONE; i++) {
            __builtin_prefetch(w[i] + at + ALONE_AHEAD);
            const __m512i v = _mm512_loadu_si512(w[i] + at);
            e[i] = _mm512_fmadd_ps(even(v), x0, e[i]);
            o[i] = _mm512_fmadd_ps(odd(v), x1, o[i]);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < ALONE; i++) c[i] = _mm512_add_ps(c[i], _mm512_add_ps(e[i], o[i]));
}

/* Not inline, so that nothing of it moves out of where numbers below the normal range are zero. */
static __attribute__((noinline)) void multiply_alone(const struct cpu_matmul *m, const uint8_t *const w[ALONE], float (*sum)[PANEL])
{
    const int pairs = (m->in + 1) / 2;
    __m512 c[ALONE];
#pragma GCC unroll 8
    for (int i = 0; i < ALONE; i++) c[i] = _mm512_setzero_ps();
    for (int k = 0; k < pairs; k += STEP / 2) alone_step(w, (size_t)k * 64, m->acts.blocks + 2 * k, MIN(STEP / 2, pairs - k), c);
#pragma GCC unroll 8
    for (int i = 0; i < ALONE; i++) _mm512_store_ps(sum[i], c[i]);
}

static void run_alone(const struct cpu_matmul *m, int row0, int row1)
{
    enum { DAZ_FTZ = 0x8040 };
    struct scratch *s = m->scratch;
    const unsigned before = _mm_getcsr();
    const int panel0 = row0 / PANEL, panel1 = (row1 + PANEL - 1) / PANEL;
    for (int panel = panel0; panel < panel1; panel += ALONE) {
        const uint8_t *w[ALONE];
        for (int i = 0; i < ALONE; i++) w[i] = panel_at(m, MIN(panel + i, panel1 - 1));
        _mm_setcsr(before | DAZ_FTZ);
        multiply_alone(m, w, s->alone);
        _mm_setcsr(before);
        for (int i = 0; i < MIN(ALONE, panel1 - panel); i++) avx512_store_row(m, 0, (panel + i) * PANEL, _mm512_load_ps(s->alone[i]));
    }
}

/* ---- up to AMX_TILE tokens: sums of SIDE panels stay in tiles 0 to 3, 4 activations, 6 and 7 weights ---- */

INLINE void few_step(const uint16_t *a, const uint8_t *const w[SIDE], size_t at, const size_t ahead)
{
    _tile_loadd(4, a, 64);
#pragma GCC unroll 4
    for (int i = 0; i < SIDE; i++)
#pragma GCC unroll 16
        for (size_t l = 0; ahead && l < WEIGHTS; l += 64) __builtin_prefetch(w[i] + at + ahead + l);
    _tile_loadd(6, w[0] + at, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, w[1] + at, 64);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(6, w[2] + at, 64);
    _tile_dpbf16ps(2, 4, 6);
    _tile_loadd(7, w[3] + at, 64);
    _tile_dpbf16ps(3, 4, 7);
}

static void run_few(const struct cpu_matmul *m, int row0, int row1)
{
    struct scratch *s = m->scratch;
    const int n = m->n, panel0 = row0 / PANEL, panel1 = (row1 + PANEL - 1) / PANEL, steps = m->in / STEP;
    amx_configure(n);
    for (int panel = panel0; panel < panel1; panel += SIDE) {
        const uint8_t *w[SIDE], *rest[SIDE];
        for (int i = 0; i < SIDE; i++) w[i] = panel_at(m, MIN(panel + i, panel1 - 1)), rest[i] = panel_rest(m, w[i], s->rest[i]);
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int k = 0; k < steps; k++) few_step(act_block_at(m->acts.blocks, m->in, n, 0, k), w, (size_t)k * WEIGHTS, AHEAD);
        if (rest[0]) few_step(act_block_at(m->acts.blocks, m->in, n, 0, steps), rest, 0, 0);
        _tile_stored(0, s->sum[0], 64);
        _tile_stored(1, s->sum[1], 64);
        _tile_stored(2, s->sum[2], 64);
        _tile_stored(3, s->sum[3], 64);
        for (int i = 0; i < MIN(SIDE, panel1 - panel); i++)
            for (int t = 0; t < n; t++) avx512_store_row(m, t, (panel + i) * PANEL, _mm512_load_ps(s->sum[i][t]));
    }
    _tile_release();
}

/* ---- many tokens: tiles 0 to 3 are sums [of tokens][panel], 4 and 5 activations, 6 and 7 weights ---- */

/* A span of AMX_ROWS rows, which stays in L1 while all tokens pass by. */
struct span {
    const struct cpu_matmul *m;
    const uint8_t *w[AMX_PANELS], *rest[AMX_PANELS]; /* rest: NULL, or the last step */
    float *c;                                        /* [of AMX_BOTH tokens][AMX_PANELS][AMX_BOTH][16] */
    int k0, steps, n_panels;                         /* in elements; whole steps */
    const uint8_t *then[AMX_PANELS];                 /* what comes after it, asked for into L2 meanwhile, ... */
    size_t then_bytes, then_step;                    /* ... so many bytes of each with every step */
};

/* Two tiles of tokens or one, a and a + next; two panels or one. Activations are loaded past L1, where weights are to stay. */
INLINE void many_step(const uint16_t *a, size_t next, const uint8_t *const w[AMX_PANELS], size_t at, const bool TWO, const bool PAIR)
{
    _tile_stream_loadd(4, a, 64);
    _tile_loadd(6, w[0] + at, 64);
    _tile_dpbf16ps(0, 4, 6);
    if (PAIR) {
        _tile_loadd(7, w[1] + at, 64);
        _tile_dpbf16ps(1, 4, 7);
    }
    if (TWO) {
        _tile_stream_loadd(5, a + next, 64);
        _tile_dpbf16ps(2, 5, 6);
        if (PAIR) _tile_dpbf16ps(3, 5, 7);
    }
}

INLINE void many(const struct span *x, int t0, const bool TWO, const bool PAIR)
{
    const int n = x->m->n, in = x->m->in, T = MIN(AMX_TILE, n - t0), k = x->k0 / STEP;
    const uint16_t *a = act_block_at(x->m->acts.blocks, in, n, t0, k);
    const size_t next = TWO ? (size_t)(act_block_at(x->m->acts.blocks, in, n, t0 + AMX_TILE, k) - a) : 0;
    float *c = x->c + t0 / AMX_BOTH * AMX_BOTH * AMX_ROWS + t0 % AMX_BOTH * 16, *c1 = c + AMX_BOTH * 16;
    if (x->k0 == 0) {
        _tile_zero(0);
        if (PAIR) _tile_zero(1);
        if (TWO) _tile_zero(2);
        if (TWO && PAIR) _tile_zero(3);
    } else {
        _tile_loadd(0, c, 64);
        if (PAIR) _tile_loadd(1, c1, 64);
        if (TWO) _tile_loadd(2, c + AMX_TILE * 16, 64);
        if (TWO && PAIR) _tile_loadd(3, c1 + AMX_TILE * 16, 64);
    }
    const float *later = c + AMX_BOTH * AMX_ROWS; /* sums of the next tokens, asked for meanwhile */
    size_t then = (size_t)(t0 / AMX_BOTH * x->steps) * x->then_step;
    for (int i = 0; i < x->steps; i++, later += AMX_BOTH * AMX_ROWS / (ACT_SPAN / STEP)) {
#pragma GCC unroll 4
        for (int l = 0; l < AMX_BOTH * AMX_ROWS / (ACT_SPAN / STEP); l += 16) __builtin_prefetch(later + l);
        for (const size_t end = MIN(then + x->then_step, x->then_bytes); then < end; then += 64)
            for (int p = 0; p < AMX_PANELS; p++) __builtin_prefetch(x->then[p] + then, 0, 2);
        many_step(a + i * T * STEP, next, x->w, (size_t)i * WEIGHTS, TWO, PAIR);
    }
    if (x->rest[0]) many_step(a + x->steps * T * STEP, next, x->rest, 0, TWO, PAIR);
    _tile_stored(0, c, 64);
    if (PAIR) _tile_stored(1, c1, 64);
    if (TWO) _tile_stored(2, c + AMX_TILE * 16, 64);
    if (TWO && PAIR) _tile_stored(3, c1 + AMX_TILE * 16, 64);
}

static void multiply_span(const struct span *x)
{
    const int n = x->m->n, whole = n / AMX_BOTH * AMX_BOTH;
    amx_configure(AMX_TILE);
    for (int t0 = 0; t0 < whole; t0 += AMX_BOTH) {
        if (x->n_panels == 2) many(x, t0, true, true);
        else many(x, t0, true, false);
    }
    for (int t0 = whole; t0 < n; t0 += AMX_TILE) {
        if (n - t0 < AMX_TILE) amx_configure(n - t0);
        if (x->n_panels == 2) many(x, t0, false, true);
        else many(x, t0, false, false);
    }
}

/* Elements k0 and on of rows row and on come next. */
static void plan_then(struct span *x, int row, int k0)
{
    const struct avx512_ahead next = avx512_plan_ahead(x->m, row, AMX_ROWS, k0, ACT_SPAN);
    const size_t n_steps = (size_t)(MAX(x->m->n / AMX_BOTH, 1) * MAX(x->steps, 1));
    for (int i = 0; i < AMX_PANELS; i++) x->then[i] = next.n_bytes[i] ? next.p[i] : next.p[0];
    x->then_bytes = next.n_bytes[0];
    x->then_step = ROUND_UP((next.n_bytes[0] + n_steps - 1) / n_steps, (size_t)64);
}

static void run_many(const struct cpu_matmul *m, int row0, int row1)
{
    struct scratch *s = m->scratch;
    const size_t n = (size_t)ROUND_UP(m->n, AMX_BOTH);
    for (int first = row0; first < row1; first += AMX_BLOCK) {
        const int end = MIN(first + AMX_BLOCK, row1);
        for (int k0 = 0; k0 < m->in; k0 += ACT_SPAN) {
            const int width = MIN(ACT_SPAN, m->in - k0);
            struct span x = {.m = m, .c = (float *)(s + 1), .k0 = k0, .steps = width / STEP};
            for (int row = first; row < end; row += AMX_ROWS, x.c += n * AMX_ROWS) {
                x.n_panels = MIN(AMX_PANELS, (end - row + PANEL - 1) / PANEL);
                for (int i = 0; i < x.n_panels; i++) {
                    const uint8_t *panel = panel_at(m, row / PANEL + i);
                    x.w[i] = panel + (size_t)(k0 / STEP) * WEIGHTS;
                    x.rest[i] = width % STEP ? panel_rest(m, panel, s->rest[i]) : NULL;
                }
                const bool last_row = row + AMX_ROWS >= end, last = last_row && k0 + ACT_SPAN >= m->in;
                plan_then(&x, last ? end : last_row ? first : row + AMX_ROWS, last ? 0 : last_row ? k0 + ACT_SPAN : k0);
                multiply_span(&x);
            }
        }
        amx_store_block(m, (float *)(s + 1), first, end);
    }
    _tile_release();
}

static void run(const struct cpu_matmul *m, int row0, int row1)
{
    if (m->n == 1) run_alone(m, row0, row1);
    else if (m->n <= AMX_TILE) run_few(m, row0, row1);
    else run_many(m, row0, row1);
}

static size_t bytes(int64_t rows, int64_t in) { return pack_bytes(TYPE_BF16, rows, in); }

const struct cpu_format *amx_bf16_format(void)
{
    static const struct cpu_format format = {"packed bf16 dot", ACTS_BF16_BLOCKS, bytes, pack_rows, scratch_bytes, run};
    return &format;
}

/* ---- activations ---- */

void amx_block_bf16(const float *x, int n, uint16_t *dst, int T)
{
    for (int i = 0; i < n; i += STEP, dst += T * STEP) {
        const __mmask32 have = n - i >= STEP ? 0xffffffff : ((__mmask32)1 << (n - i)) - 1;
        const __m512 low = _mm512_maskz_loadu_ps((__mmask16)have, x + i), high = _mm512_maskz_loadu_ps((__mmask16)(have >> 16), x + i + 16);
        _mm512_storeu_si512(dst, (__m512i)_mm512_cvtne2ps_pbh(high, low));
    }
}
