/* Matmul for AMX of BF16 weights with activations rounded to BF16, exact products summed in f32 by the matrix unit. The packed layout is that of its
 * tiles: 32 elements of 16 rows are 1 KiB on end, so weights go from memory to tiles as they are.
 *
 * One output is a chain of tdpbf16ps over 32 elements after 32, whatever the number of tokens: a tile with fewer rows does the same for
 * each of them, also for a single one. Sums leave their tile and come back between spans, exactly. */
#include "backend/cpu/amx.h"

enum {
    STEP = 32,                 /* elements of one product */
    SIDE = AVX512_SIDE,        /* panels side by side, few tokens */
    AHEAD = 2048,              /* bytes that these ask for ahead in each */
    WEIGHTS = STEP * PANEL * 2 /* bytes of a tile of weights */
};

/* Scratch of a thread. Behind it, for many tokens: sums, see amx_store_block. */
struct scratch {
    _Alignas(64) uint8_t rest[SIDE][WEIGHTS]; /* the end of a panel whose rows are no whole steps, and zeros */
    float sum[SIDE][AMX_TILE][16];
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
    struct avx512_ahead next;
};

/* Two tiles of tokens or one, T tokens each, a and a + next; two panels or one. */
INLINE void many_step(const uint16_t *a, size_t next, const uint8_t *const w[AMX_PANELS], size_t at, const bool TWO, const bool PAIR)
{
    _tile_loadd(4, a, 64);
    _tile_loadd(6, w[0] + at, 64);
    _tile_dpbf16ps(0, 4, 6);
    if (PAIR) {
        _tile_loadd(7, w[1] + at, 64);
        _tile_dpbf16ps(1, 4, 7);
    }
    if (TWO) {
        _tile_loadd(5, a + next, 64);
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
    for (int i = 0; i < x->steps; i++) many_step(a + i * T * STEP, next, x->w, (size_t)i * WEIGHTS, TWO, PAIR);
    if (x->rest[0]) many_step(a + x->steps * T * STEP, next, x->rest, 0, TWO, PAIR);
    _tile_stored(0, c, 64);
    if (PAIR) _tile_stored(1, c1, 64);
    if (TWO) _tile_stored(2, c + AMX_TILE * 16, 64);
    if (TWO && PAIR) _tile_stored(3, c1 + AMX_TILE * 16, 64);
}

static void multiply_span(struct span *x)
{
    const int n = x->m->n, whole = n / AMX_BOTH * AMX_BOTH;
    const size_t step_bytes = x->next.total * AMX_BOTH / (size_t)n + 1;
    amx_configure(AMX_TILE);
    for (int t0 = 0; t0 < whole; t0 += AMX_BOTH) {
        if (x->n_panels == 2) many(x, t0, true, true);
        else many(x, t0, true, false);
        avx512_ahead_fetch(&x->next, step_bytes);
    }
    for (int t0 = whole; t0 < n; t0 += AMX_TILE) {
        if (n - t0 < AMX_TILE) amx_configure(n - t0);
        if (x->n_panels == 2) many(x, t0, false, true);
        else many(x, t0, false, false);
    }
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
                x.next = avx512_plan_ahead(m, last ? end : last_row ? first : row + AMX_ROWS, AMX_ROWS, last ? 0 : last_row ? k0 + ACT_SPAN : k0, ACT_SPAN);
                multiply_span(&x);
            }
        }
        amx_store_block(m, (float *)(s + 1), first, end);
    }
    _tile_release();
}

static void run(const struct cpu_matmul *m, int row0, int row1)
{
    if (m->n <= AMX_TILE) run_few(m, row0, row1);
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
