/* Matmul for AMX of BF16 and F16 weights: products of bf16, which are exact, summed in f32 by the matrix unit.
 *
 * BF16 weights meet activations rounded to BF16. Their packed layout is that of tiles: 32 elements of 16 rows are 1 KiB on end, so they go from memory
 * to tiles as they are. F16 weights are sums of two bf16, exactly, and activations are taken as such, with 16 bits; of the four products that of both
 * second parts, 2^-15 of the whole at most, is left out.
 *
 * One output is a chain of tdpbf16ps over steps of 32 elements (F16: first x first, second x first, first x second), whatever the number of tokens:
 * tiles with fewer rows do the same for each of them. Sums leave their tile and come back between spans, exactly. A single token, which waits
 * for memory, reads more panels side by side than there are tiles: vector instructions do what the manual says of tdpbf16ps (Intel SDM volume 2): a chain
 * of fma over even elements from 0 and one over odd ones, numbers below the normal range taken for zero, then c + (even + odd). */
#include "backend/cpu/amx.h"

#include "base/float_mode.h"

enum {
    STEP = 32,                  /* elements of one product */
    WEIGHTS = STEP * PANEL * 2, /* bytes of a tile of weights */
    SPAN = ACT_SPAN,            /* elements of AMX_ROWS rows that stay in L1, as bf16, ... */
    SPLIT_SPAN = SPAN / 2,      /* ... as two of them */
    SIDE = AVX512_SIDE,         /* panels side by side, few tokens, ... */
    SIDE_AHEAD = 2048,          /* ... which ask for so many bytes ahead in each; */
    ALONE = AVX512_FLOAT_SIDE,  /* a single one, if there are so many, ... */
    ALONE_AHEAD = 512,
    HALF = ALONE / 2            /* ... else so many; of F16 two halves, step by step */
};

/* Scratch of a thread. Behind it, for many tokens: sums, see amx_store_block. */
struct scratch {
    _Alignas(64) uint8_t rest[SIDE][WEIGHTS]; /* BF16: the end of a panel whose rows are no whole steps, and zeros */
    uint8_t split[AMX_PANELS][SPLIT_SPAN / STEP][2][WEIGHTS]; /* F16 */
    float sum[SIDE][AMX_TILE][PANEL], alone[ALONE][PANEL];
};

static size_t scratch_bytes(int in, int max_n)
{
    (void)in;
    return sizeof(struct scratch) + (size_t)ROUND_UP(max_n, AMX_BOTH) * AMX_BLOCK * sizeof(float);
}

static const uint8_t *panel_at(const struct cpu_matmul *m, int panel) { return pack_panel(m, pack_find(m->tensor->type), panel); }

/* 16 rows of F16 as two parts: the upper 8 bits, and the 3 that are left. */
struct split {
    __m512 first, second;
};
INLINE struct split split_f16(const uint8_t *p)
{
    const __m512 w = load_f16(p), first = bf16_of_pair(_mm512_castps_si512(w), 1);
    return (struct split){first, _mm512_sub_ps(w, first)};
}

/* ---- a single token ---- */

INLINE __m512i pair_of(const uint16_t *a) { return _mm512_set1_epi32((int32_t)load_u32(a)); }

/* Pairs [at, at + n) of N panels: one tdpbf16ps. */
INLINE void alone_step(const uint8_t *const w[ALONE], size_t at, const uint16_t *a, int n, __m512 c[ALONE], const int N, const size_t ahead)
{
    __m512 e[ALONE], o[ALONE];
    UNROLL(8)
    for (int i = 0; i < N; i++) e[i] = o[i] = _mm512_setzero_ps();
    for (int k = 0; k < n; k++, at += 64, a += 2) {
        const __m512i x = pair_of(a);
        const __m512 x0 = bf16_of_pair(x, 0), x1 = bf16_of_pair(x, 1);
        UNROLL(8)
        for (int i = 0; i < N; i++) {
            __builtin_prefetch(w[i] + at + ahead);
            const __m512i v = _mm512_loadu_si512(w[i] + at);
            e[i] = _mm512_fmadd_ps(bf16_of_pair(v, 0), x0, e[i]);
            o[i] = _mm512_fmadd_ps(bf16_of_pair(v, 1), x1, o[i]);
        }
    }
    UNROLL(8)
    for (int i = 0; i < N; i++) c[i] = _mm512_add_ps(c[i], _mm512_add_ps(e[i], o[i]));
}

/* Elements [k, k + n) of HALF panels of F16, one step: three tdpbf16ps. */
INLINE void alone_split_step(const uint8_t *const w[HALF], int k, const uint16_t *a, int n, __m512 c[HALF], const size_t ahead)
{
    __m512 sum[HALF][3][2]; /* [product][of even elements, of odd ones] */
    UNROLL(4)
    for (int i = 0; i < HALF; i++)
        UNROLL(6)
        for (int j = 0; j < 6; j++) sum[i][j / 2][j % 2] = _mm512_setzero_ps();
    for (const int end = k + n; k < end; k += 2, a += 2) {
        const __m512i x = pair_of(a), y = pair_of(a + STEP);
        UNROLL(2)
        for (int h = 0; h < 2; h++) {
            const __m512 first = bf16_of_pair(x, h), second = bf16_of_pair(y, h);
            if (k + h == end) break; /* an odd number of elements */
            UNROLL(4)
            for (int i = 0; i < HALF; i++) {
                const uint8_t *p = w[i] + (size_t)(k + h) * 32;
                if (h == 0) __builtin_prefetch(p + ahead);
                const struct split v = split_f16(p);
                sum[i][0][h] = _mm512_fmadd_ps(v.first, first, sum[i][0][h]);
                sum[i][1][h] = _mm512_fmadd_ps(v.first, second, sum[i][1][h]);
                sum[i][2][h] = _mm512_fmadd_ps(v.second, first, sum[i][2][h]);
            }
        }
    }
    UNROLL(4)
    for (int i = 0; i < HALF; i++)
        UNROLL(3)
        for (int j = 0; j < 3; j++) c[i] = _mm512_add_ps(c[i], _mm512_add_ps(sum[i][j][0], sum[i][j][1]));
}

INLINE void multiply_panels(const struct cpu_matmul *m, const uint8_t *const w[ALONE], float (*sum)[PANEL], const int N, const size_t ahead)
{
    const int pairs = (m->in + 1) / 2;
    __m512 c[ALONE];
    UNROLL(8)
    for (int i = 0; i < N; i++) c[i] = _mm512_setzero_ps();
    for (int k = 0; k < pairs; k += STEP / 2) alone_step(w, (size_t)k * 64, m->acts.blocks[0] + 2 * k, MIN(STEP / 2, pairs - k), c, N, ahead);
    UNROLL(8)
    for (int i = 0; i < N; i++) _mm512_store_ps(sum[i], c[i]);
}

INLINE void multiply_split_panels(const struct cpu_matmul *m, const uint8_t *const w[ALONE], float (*sum)[PANEL], const int N, const size_t ahead)
{
    __m512 c[ALONE];
    for (int i = 0; i < N; i++) c[i] = _mm512_setzero_ps();
    for (int k = 0; k < m->in; k += STEP)
        for (int i = 0; i < N; i += HALF) alone_split_step(w + i, k, m->acts.blocks[1] + 2 * k, MIN(STEP, m->in - k), c + i, ahead);
    for (int i = 0; i < N; i++) _mm512_store_ps(sum[i], c[i]);
}

/* Up to ALONE panels. Not inline, so that nothing of it moves out of where numbers below the normal range are zero. */
static __attribute__((noinline)) void multiply_alone(const struct cpu_matmul *m, const uint8_t *const w[ALONE], float (*sum)[PANEL], bool wide)
{
    const bool split = m->tensor->type == TYPE_F16;
    if (split && wide) multiply_split_panels(m, w, sum, ALONE, ALONE_AHEAD);
    else if (split) multiply_split_panels(m, w, sum, HALF, SIDE_AHEAD);
    else if (wide) multiply_panels(m, w, sum, ALONE, ALONE_AHEAD);
    else multiply_panels(m, w, sum, HALF, SIDE_AHEAD);
}

static void run_alone(const struct cpu_matmul *m, int row0, int row1)
{
    struct scratch *s = m->scratch;
    const int panel1 = (row1 + PANEL - 1) / PANEL;
    for (int panel = row0 / PANEL, n; panel < panel1; panel += n) {
        const uint8_t *w[ALONE];
        n = panel1 - panel >= ALONE ? ALONE : MIN(panel1 - panel, HALF);
        for (int i = 0; i < ALONE; i++) w[i] = panel_at(m, panel + MIN(i, n - 1)); /* too few: the last one again */
        const float_mode before = float_mode_enter();
        multiply_alone(m, w, s->alone, n == ALONE);
        float_mode_leave(before);
        for (int i = 0; i < n; i++) avx512_store_row(m, 0, (panel + i) * PANEL, _mm512_load_ps(s->alone[i]));
    }
}

/* ---- up to AMX_TILE tokens, BF16: sums of SIDE panels stay in tiles 0 to 3, 4 activations, 6 and 7 weights ---- */

/* The last step of a panel, if it is no whole one: activations have zeros there, other weights must not meet them. */
static const uint8_t *panel_rest(const struct cpu_matmul *m, const uint8_t *panel, uint8_t *to)
{
    const size_t whole = (size_t)(m->in / STEP), left = (size_t)(m->in % STEP + 1) / 2 * PANEL * 4;
    if (!left) return NULL;
    memset(to, 0, WEIGHTS);
    memcpy(to, panel + whole * WEIGHTS, left);
    return to;
}

INLINE void few_step(const uint16_t *a, const uint8_t *const w[SIDE], size_t at, const size_t ahead)
{
    _tile_loadd(4, a, 64);
    UNROLL(4)
    for (int i = 0; i < SIDE; i++)
        UNROLL(16)
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
        for (int k = 0; k < steps; k++) few_step(act_block_at(&m->acts, 1, m->in, n, 0, k), w, (size_t)k * WEIGHTS, SIDE_AHEAD);
        if (rest[0]) few_step(act_block_at(&m->acts, 1, m->in, n, 0, steps), rest, 0, 0);
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

/* Elements of AMX_ROWS rows, which stay in L1 while all tokens pass by. */
struct span {
    const struct cpu_matmul *m;
    const uint8_t *w[AMX_PANELS], *rest[AMX_PANELS]; /* [step][part]; rest: NULL, or the last step */
    float *c;                                        /* [of AMX_BOTH tokens][AMX_PANELS][AMX_BOTH][16] */
    int k0, steps, n_panels;                         /* in elements; whole steps */
    const uint8_t *then[AMX_PANELS];                 /* what comes after it, asked for into L2 meanwhile, ... */
    size_t then_bytes, then_step;                    /* ... so many bytes of each with every step */
};

#define MULTIPLY_BOTH(a, w0, w1, sum0, sum1)       \
    do {                                           \
        _tile_dpbf16ps(sum0, a, w0);               \
        if (PAIR) _tile_dpbf16ps(sum1, a, w1);     \
    } while (0)

/* Two tiles of tokens or one, a and a + next; two panels or one; one part or two. Activations are loaded past L1, where weights are to stay. */
INLINE void many_step(const uint16_t *a, size_t next, int T, const uint8_t *const w[AMX_PANELS], size_t at, const bool TWO, const bool PAIR, const int PARTS)
{
    _tile_stream_loadd(4, a, 64);
    _tile_loadd(6, w[0] + at, 64);
    if (PAIR) _tile_loadd(7, w[1] + at, 64);
    MULTIPLY_BOTH(4, 6, 7, 0, 1);
    if (TWO) {
        _tile_stream_loadd(5, a + next, 64);
        MULTIPLY_BOTH(5, 6, 7, 2, 3);
    }
    if (PARTS == 1) return;
    _tile_stream_loadd(4, a + T * STEP, 64);
    MULTIPLY_BOTH(4, 6, 7, 0, 1);
    if (TWO) {
        _tile_stream_loadd(5, a + next + T * STEP, 64);
        MULTIPLY_BOTH(5, 6, 7, 2, 3);
    }
    _tile_loadd(6, w[0] + at + WEIGHTS, 64);
    if (PAIR) _tile_loadd(7, w[1] + at + WEIGHTS, 64);
    _tile_stream_loadd(4, a, 64);
    MULTIPLY_BOTH(4, 6, 7, 0, 1);
    if (TWO) {
        _tile_stream_loadd(5, a + next, 64);
        MULTIPLY_BOTH(5, 6, 7, 2, 3);
    }
}

INLINE void many(const struct span *x, int t0, const bool TWO, const bool PAIR, const int PARTS)
{
    enum { SUMS = AMX_BOTH * AMX_ROWS };
    const int LATER = SUMS / ((PARTS == 2 ? SPLIT_SPAN : SPAN) / STEP); /* floats asked for with each step */
    const struct cpu_matmul *m = x->m;
    const int T = MIN(AMX_TILE, m->t1 - t0), k = x->k0 / STEP, i0 = t0 - m->t0;
    const uint16_t *a = act_block_at(&m->acts, PARTS, m->in, m->n, t0, k);
    const size_t next = TWO ? (size_t)(act_block_at(&m->acts, PARTS, m->in, m->n, t0 + AMX_TILE, k) - a) : 0;
    float *c = x->c + i0 / AMX_BOTH * SUMS + i0 % AMX_BOTH * 16, *c1 = c + AMX_BOTH * 16;
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
    const float *later = c + SUMS; /* sums of the next tokens, asked for meanwhile */
    size_t then = (size_t)(i0 / AMX_BOTH * x->steps) * x->then_step;
    for (int i = 0; i < x->steps; i++) {
        UNROLL(8)
        for (int l = 0; l < LATER; l += 16) __builtin_prefetch(later + i * LATER + l);
        for (const size_t end = MIN(then + x->then_step, x->then_bytes); then < end; then += 64)
            for (int p = 0; p < AMX_PANELS; p++) __builtin_prefetch(x->then[p] + then, 0, 2);
        many_step(a + i * T * STEP * PARTS, next, T, x->w, (size_t)(i * WEIGHTS * PARTS), TWO, PAIR, PARTS);
    }
    if (x->rest[0]) many_step(a + x->steps * T * STEP * PARTS, next, T, x->rest, 0, TWO, PAIR, PARTS);
    _tile_stored(0, c, 64);
    if (PAIR) _tile_stored(1, c1, 64);
    if (TWO) _tile_stored(2, c + AMX_TILE * 16, 64);
    if (TWO && PAIR) _tile_stored(3, c1 + AMX_TILE * 16, 64);
}

INLINE void multiply_span(const struct span *x, const int PARTS)
{
    const int first = x->m->t0, end = x->m->t1, whole = end - (end - first) % AMX_BOTH;
    amx_configure(AMX_TILE);
    for (int t0 = first; t0 < whole; t0 += AMX_BOTH) {
        if (x->n_panels == 2) many(x, t0, true, true, PARTS);
        else many(x, t0, true, false, PARTS);
    }
    for (int t0 = whole; t0 < end; t0 += AMX_TILE) {
        if (end - t0 < AMX_TILE) amx_configure(end - t0);
        if (x->n_panels == 2) many(x, t0, false, true, PARTS);
        else many(x, t0, false, false, PARTS);
    }
}
static void multiply_whole(const struct span *x) { multiply_span(x, 1); }
static void multiply_split(const struct span *x) { multiply_span(x, 2); }

/* Elements k0 and on of rows row and on come next. */
static void plan_then(struct span *x, int row, int k0, int span)
{
    const struct pack_ahead next = pack_plan_ahead(x->m, row, AMX_ROWS, k0, span);
    const size_t n_steps = (size_t)(MAX((x->m->t1 - x->m->t0) / AMX_BOTH, 1) * MAX(x->steps, 1));
    for (int i = 0; i < AMX_PANELS; i++) x->then[i] = next.n_bytes[i] ? next.p[i] : next.p[0];
    x->then_bytes = next.n_bytes[0];
    x->then_step = ROUND_UP((next.n_bytes[0] + n_steps - 1) / n_steps, (size_t)64);
}

/* Elements [k0, k0 + n) of a panel of F16, in whole steps with zeros behind them: pairs of rows of tiles. */
static void split_panel(const uint8_t *panel, int k0, int n, uint8_t (*to)[2][WEIGHTS])
{
    for (int k = 0; k < ROUND_UP(n, STEP); k += 2) {
        const struct split none = {_mm512_setzero_ps(), _mm512_setzero_ps()};
        const struct split a = k < n ? split_f16(panel + (size_t)(k0 + k) * 32) : none, b = k + 1 < n ? split_f16(panel + (size_t)(k0 + k + 1) * 32) : none;
        uint8_t *at = to[k / STEP][0] + k % STEP / 2 * 64;
        _mm512_store_si512(at, _mm512_or_si512(_mm512_srli_epi32(_mm512_castps_si512(a.first), 16), _mm512_castps_si512(b.first)));
        _mm512_store_si512(at + WEIGHTS, _mm512_or_si512(_mm512_srli_epi32(_mm512_castps_si512(a.second), 16), _mm512_castps_si512(b.second)));
    }
}

/* Points x at width elements of a panel, number i of the span. */
static void span_panel(struct span *x, int i, int panel, int width)
{
    struct scratch *s = x->m->scratch;
    const uint8_t *p = panel_at(x->m, panel);
    x->rest[i] = NULL;
    if (x->m->tensor->type == TYPE_F16) {
        split_panel(p, x->k0, width, s->split[i]);
        x->w[i] = s->split[i][0][0];
        return;
    }
    x->w[i] = p + (size_t)(x->k0 / STEP) * WEIGHTS;
    if (width % STEP) x->rest[i] = panel_rest(x->m, p, s->rest[i]);
}

static void run_many(const struct cpu_matmul *m, int row0, int row1)
{
    struct scratch *s = m->scratch;
    const size_t n = (size_t)ROUND_UP(m->t1 - m->t0, AMX_BOTH);
    const bool split = m->tensor->type == TYPE_F16;
    const int span = split ? SPLIT_SPAN : SPAN;
    for (int first = row0; first < row1; first += AMX_BLOCK) {
        const int end = MIN(first + AMX_BLOCK, row1);
        for (int k0 = 0; k0 < m->in; k0 += span) {
            const int width = MIN(span, m->in - k0);
            struct span x = {.m = m, .c = (float *)(s + 1), .k0 = k0, .steps = split ? (width + STEP - 1) / STEP : width / STEP};
            for (int row = first; row < end; row += AMX_ROWS, x.c += n * AMX_ROWS) {
                x.n_panels = MIN(AMX_PANELS, (end - row + PANEL - 1) / PANEL);
                for (int i = 0; i < x.n_panels; i++) span_panel(&x, i, row / PANEL + i, width);
                const bool last_row = row + AMX_ROWS >= end, last = last_row && k0 + span >= m->in;
                plan_then(&x, last ? end : last_row ? first : row + AMX_ROWS, last ? 0 : last_row ? k0 + span : k0, span);
                if (split) multiply_split(&x);
                else multiply_whole(&x);
            }
        }
        amx_store_block(m, (float *)(s + 1), first, end);
    }
    _tile_release();
}

static void run(const struct cpu_matmul *m, int row0, int row1)
{
    if (m->n == 1) run_alone(m, row0, row1);
    else if (m->n <= AMX_TILE && m->tensor->type == TYPE_BF16) run_few(m, row0, row1);
    else run_many(m, row0, row1);
}

static size_t bytes_bf16(int64_t rows, int64_t in) { return pack_bytes(TYPE_BF16, rows, in); }
static size_t bytes_f16(int64_t rows, int64_t in) { return pack_bytes(TYPE_F16, rows, in); }

const struct cpu_format *amx_float_format(enum tensor_type type)
{
    static const struct cpu_format bf16 = {"packed bf16 dot", ACTS_BF16_BLOCKS, bytes_bf16, pack_rows, scratch_bytes, run};
    static const struct cpu_format f16 = {"packed f16 split", ACTS_BF16_PARTS, bytes_f16, pack_rows, scratch_bytes, run};
    return type == TYPE_BF16 ? &bf16 : type == TYPE_F16 ? &f16 : NULL;
}

/* ---- activations ---- */

void amx_block_bf16(const float *x, int n, uint16_t *dst, int T, int parts)
{
    for (int i = 0; i < n; i += STEP, dst += T * STEP * parts) {
        const __mmask32 have = n - i >= STEP ? 0xffffffff : ((__mmask32)1 << (n - i)) - 1;
        const __m512 low = _mm512_maskz_loadu_ps((__mmask16)have, x + i), high = _mm512_maskz_loadu_ps((__mmask16)(have >> 16), x + i + 16);
        const __m512i first = (__m512i)_mm512_cvtne2ps_pbh(high, low);
        _mm512_storeu_si512(dst, first);
        if (parts == 1) continue;
        const __m512 low_first = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(first)), 16));
        const __m512 high_first = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(first, 1)), 16));
        _mm512_storeu_si512(dst + T * STEP, (__m512i)_mm512_cvtne2ps_pbh(_mm512_sub_ps(high, high_first), _mm512_sub_ps(low, low_first)));
    }
}
