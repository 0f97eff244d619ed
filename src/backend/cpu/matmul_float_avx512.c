/* Matmul with float activations for AVX-512: F32 and F16 weights exactly, in f32 arithmetic; BF16 weights likewise, or with
 * activations rounded to BF16 by vdpbf16ps where that is faster; and, where exact activations are asked for, every other type through its f32 values.
 *
 * One output is c = fma(w_k, x_k, c) over k in order (BF16: over pairs), whatever the number of tokens. */
#include "backend/cpu/avx512.h"

#include "tensor/decode.h"

#define CHUNK 256 /* elements of a row that are widened at a time: 32 KiB for 32 rows */
#define TILE ACT_FLOAT_TILE

struct tile {
    const float *w;     /* [k][2][16], or pairs of BF16 in the same room */
    int n;              /* k, or pairs */
    const float *x;     /* [k][T], or pairs of BF16 */
    float *c;           /* [T][2][16]: sums so far */
    ptrdiff_t next;     /* floats from x to the same place of the tile after this one, to fetch it ahead */
    bool first;         /* start from zero */
};

static inline __attribute__((always_inline)) void tile(const struct tile *a, const int T, const bool BF16)
{
    __m512 c[2][TILE];
    UNROLL(12)
    for (int t = 0; t < T; t++) {
        c[0][t] = a->first ? _mm512_setzero_ps() : _mm512_load_ps(a->c + t * 32);
        c[1][t] = a->first ? _mm512_setzero_ps() : _mm512_load_ps(a->c + t * 32 + 16);
    }
    const float *w = a->w, *x = a->x;
    for (int k = 0; k < a->n; k++, w += 32, x += T) {
        __builtin_prefetch(x + a->next);
        const __m512 w0 = _mm512_load_ps(w), w1 = _mm512_load_ps(w + 16);
        UNROLL(12)
        for (int t = 0; t < T; t++) {
            const __m512 b = _mm512_set1_ps(x[t]);
            if (BF16) {
                c[0][t] = _mm512_dpbf16_ps(c[0][t], (__m512bh)w0, (__m512bh)b);
                c[1][t] = _mm512_dpbf16_ps(c[1][t], (__m512bh)w1, (__m512bh)b);
            } else {
                c[0][t] = _mm512_fmadd_ps(w0, b, c[0][t]);
                c[1][t] = _mm512_fmadd_ps(w1, b, c[1][t]);
            }
        }
    }
    UNROLL(12)
    for (int t = 0; t < T; t++) {
        _mm512_store_ps(a->c + t * 32, c[0][t]);
        _mm512_store_ps(a->c + t * 32 + 16, c[1][t]);
    }
}

#define TILE_CASES(BF16)                      \
    switch (t) {                              \
    case 1: tile(x, 1, BF16); break;          \
    case 2: tile(x, 2, BF16); break;          \
    case 3: tile(x, 3, BF16); break;          \
    case 4: tile(x, 4, BF16); break;          \
    case 5: tile(x, 5, BF16); break;          \
    case 6: tile(x, 6, BF16); break;          \
    case 7: tile(x, 7, BF16); break;          \
    case 8: tile(x, 8, BF16); break;          \
    case 9: tile(x, 9, BF16); break;          \
    case 10: tile(x, 10, BF16); break;        \
    case 11: tile(x, 11, BF16); break;        \
    default: tile(x, 12, BF16); break;        \
    }
static void tile_f32(const struct tile *x, int t) { TILE_CASES(false) }
static void tile_bf16(const struct tile *x, int t) { TILE_CASES(true) }

/* ---- drivers ---- */

/* Scratch of a thread. Behind it: sums [tiles][TILE][2][16]. */
struct scratch {
    float w[CHUNK * 32];
    float rows[16 * CHUNK]; /* types without packed layout: 16 rows' chunk */
};

static size_t float_scratch_bytes(int in, int max_n)
{
    (void)in;
    return sizeof(struct scratch) + (size_t)ROUND_UP(max_n, TILE) * 32 * sizeof(float);
}

/* The tokens against elements [k0, k0 + n) of rows row .. row + 31 in s->w. */
static void multiply_chunk(const struct cpu_matmul *m, struct scratch *s, int row, int k0, int n, bool bf16, struct pack_ahead *next)
{
    const size_t n_tiles = (size_t)(m->t1 - m->t0 + TILE - 1) / TILE, step = (next->total + n_tiles - 1) / n_tiles;
    struct tile x = {.w = s->w, .n = bf16 ? (n + 1) / 2 : n, .c = (float *)(s + 1), .first = k0 == 0};
    const size_t in = (size_t)m->in;
    for (int t0 = m->t0; t0 < m->t1; t0 += TILE, x.c += TILE * 32) {
        const int T = MIN(TILE, m->t1 - t0);
        pack_ahead_fetch(next, step);
        if (bf16) {
            x.x = (const float *)(const void *)(m->acts.bf16 + (size_t)t0 * ROUND_UP(in, 2) + (size_t)(k0 * T));
            x.next = (ptrdiff_t)(TILE * ROUND_UP(in, 2) / 2);
            tile_bf16(&x, T);
        } else {
            x.x = m->acts.f32 + (size_t)t0 * in + (size_t)(k0 * T);
            x.next = (ptrdiff_t)(TILE * in);
            tile_f32(&x, T);
        }
        if (k0 + n < m->in) continue;
        for (int t = 0; t < T; t++) {
            avx512_store_row(m, t0 + t, row, _mm512_load_ps(x.c + t * 32));
            avx512_store_row(m, t0 + t, row + 16, _mm512_load_ps(x.c + t * 32 + 16));
        }
    }
}

static inline const uint8_t *panel_at(const struct cpu_matmul *m, int panel)
{
    return pack_panel(m, pack_find(m->tensor->type), panel);
}

/* Elements [k0, k0 + n) of one packed panel to every other vector of w; k0 is even. as_pairs: BF16 stays as it is. */
static void widen(enum tensor_type type, bool as_pairs, const uint8_t *panel, int k0, int n, float *w)
{
    if (type == TYPE_F16)
        for (int k = 0; k < n; k++) _mm512_store_ps(w + k * 32, load_f16(panel + (size_t)(k0 + k) * 32));
    else if (type == TYPE_F32)
        for (int k = 0; k < n; k++) _mm512_store_ps(w + k * 32, _mm512_loadu_ps(panel + (size_t)(k0 + k) * 64));
    else if (as_pairs)
        for (int k = 0; k < (n + 1) / 2; k++) _mm512_store_ps(w + k * 32, _mm512_loadu_ps(panel + (size_t)(k0 / 2 + k) * 64));
    else
        for (int k = 0; k < n; k++) _mm512_store_ps(w + k * 32, bf16_of_pair(_mm512_loadu_si512(panel + (size_t)((k0 + k) / 2) * 64), k & 1));
}

/* Element k of SIDE panels; lines are asked for AHEAD bytes before they are read, if at all. */
static inline __attribute__((always_inline)) void gemv_element(const uint8_t *const *w, const float *x, int k, const enum tensor_type TYPE, const bool PAIRS,
                                                               const int SIDE, const size_t AHEAD, __m512 *c)
{
    const __m512 b = _mm512_set1_ps(x[k]);
    UNROLL(8)
    for (int i = 0; i < SIDE; i++) {
        if (AHEAD) __builtin_prefetch(w[i] + (size_t)k * (TYPE == TYPE_F32 || PAIRS ? 64 : 32) + AHEAD);
        if (PAIRS) c[i] = _mm512_dpbf16_ps(c[i], (__m512bh)_mm512_loadu_ps(w[i] + (size_t)k * 64), (__m512bh)b);
        else if (TYPE == TYPE_F16) c[i] = _mm512_fmadd_ps(load_f16(w[i] + (size_t)k * 32), b, c[i]);
        else if (TYPE == TYPE_F32) c[i] = _mm512_fmadd_ps(_mm512_loadu_ps(w[i] + (size_t)k * 64), b, c[i]);
        else c[i] = _mm512_fmadd_ps(bf16_of_pair(_mm512_loadu_si512(w[i] + (size_t)(k / 2) * 64), k & 1), b, c[i]);
    }
}

/* One token: SIDE panels at a time, side by side or far from each other, so that as many sums are under way. Far ones in rounds of two elements: the
 * prefetchers that such reading relies on (Zen 4) come closer to memory's limit where no load reads a line of F16 twice. */
static inline __attribute__((always_inline)) void gemv(const struct cpu_matmul *m, int row0, int row1, const enum tensor_type TYPE, const bool PAIRS,
                                                       const int SIDE, const bool FAR, const size_t AHEAD)
{
    const int n = PAIRS ? (m->in + 1) / 2 : m->in;
    const float *x = PAIRS ? (const float *)(const void *)m->acts.bf16 : m->acts.f32;
    const struct avx512_turns t = avx512_turns(m, row0 / PANEL, (row1 + PANEL - 1) / PANEL, SIDE, FAR);
    for (int turn = 0, p = row0 / PANEL; turn < t.n; turn++, p += t.step) {
        const uint8_t *w[AVX512_FLOAT_SIDE];
        __m512 c[AVX512_FLOAT_SIDE];
        UNROLL(8)
        for (int i = 0; i < SIDE; i++) {
            w[i] = panel_at(m, MIN(p + i * t.apart, t.end - 1));
            c[i] = _mm512_setzero_ps();
        }
        int k = 0;
        for (; FAR && k + 2 <= n; k += 2) {
            gemv_element(w, x, k, TYPE, PAIRS, SIDE, AHEAD, c);
            gemv_element(w, x, k + 1, TYPE, PAIRS, SIDE, AHEAD, c);
        }
        for (; k < n; k++) gemv_element(w, x, k, TYPE, PAIRS, SIDE, AHEAD, c);
        UNROLL(8)
        for (int i = 0; i < SIDE; i++)
            if (p + i * t.apart < t.end) avx512_store_row(m, 0, (p + i * t.apart) * PANEL, c[i]);
    }
}

static inline __attribute__((always_inline)) void gemv_type(const struct cpu_matmul *m, int row0, int row1, bool pairs, const int SIDE,
                                                            const bool FAR, const size_t AHEAD)
{
    const enum tensor_type type = m->tensor->type;
    if (pairs) gemv(m, row0, row1, TYPE_BF16, true, SIDE, FAR, AHEAD);
    else if (type == TYPE_F16) gemv(m, row0, row1, TYPE_F16, false, SIDE, FAR, AHEAD);
    else if (type == TYPE_F32) gemv(m, row0, row1, TYPE_F32, false, SIDE, FAR, AHEAD);
    else gemv(m, row0, row1, TYPE_BF16, false, SIDE, FAR, AHEAD);
}

static void run_packed(const struct cpu_matmul *m, int row0, int row1)
{
    struct scratch *s = m->scratch;
    const enum tensor_type type = m->tensor->type;
    const bool pairs = m->format->acts == ACTS_BF16_TILES;
    if (m->n == 1) {
        const enum avx512_reading reading = avx512_reading();
        if (reading == READ_APART) gemv_type(m, row0, row1, pairs, AVX512_APART, true, 0);
        else if (reading == READ_ONE) gemv_type(m, row0, row1, pairs, 4, false, 0);
        else {
            const int wide = row0 + (row1 - row0) / (AVX512_FLOAT_SIDE * PANEL) * (AVX512_FLOAT_SIDE * PANEL);
            gemv_type(m, row0, wide, pairs, AVX512_FLOAT_SIDE, false, 512);
            gemv_type(m, wide, row1, pairs, AVX512_SIDE, false, 2048);
        }
        return;
    }
    for (int row = row0; row < row1; row += 2 * PANEL) {
        for (int k0 = 0; k0 < m->in; k0 += CHUNK) {
            const int n = MIN(CHUNK, m->in - k0);
            widen(type, pairs, panel_at(m, row / PANEL), k0, n, s->w);
            if (row + PANEL < m->out) widen(type, pairs, panel_at(m, row / PANEL + 1), k0, n, s->w + 16);
            const bool last = k0 + CHUNK >= m->in;
            struct pack_ahead next = pack_plan_ahead(m, last ? row + 2 * PANEL : row, 2 * PANEL, last ? 0 : k0 + CHUNK, CHUNK);
            multiply_chunk(m, s, row, k0, n, pairs, &next);
        }
    }
}

/* [16][CHUNK] -> [k][32 apart][16] */
static void transpose_16(const float *rows, int n, float *w)
{
    const __m512i at = _mm512_mullo_epi32(_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0), _mm512_set1_epi32(CHUNK));
    for (int k = 0; k < n; k++) _mm512_store_ps(w + k * 32, _mm512_i32gather_ps(at, rows + k, 4));
}

static void run_rows(const struct cpu_matmul *m, int row0, int row1)
{
    struct scratch *s = m->scratch;
    const decode_f32_fn decode = decode_f32(m->tensor->type);
    const struct type_info *ti = type_by_id((uint32_t)m->tensor->type);
    for (int row = row0; row < row1; row += 2 * PANEL) {
        for (int k0 = 0; k0 < m->in; k0 += CHUNK) {
            const int n = MIN(CHUNK, m->in - k0);
            for (int half = 0; half < 2; half++) {
                for (int r = 0; r < PANEL && row + half * PANEL + r < m->out; r++) {
                    const uint8_t *src = tensor_row(m->tensor, row + half * PANEL + r);
                    decode(src + (size_t)(k0 / ti->block) * (size_t)ti->block_bytes, s->rows + r * CHUNK, n);
                }
                transpose_16(s->rows, n, s->w + half * 16);
            }
            struct pack_ahead next = {.total = 0};
            multiply_chunk(m, s, row, k0, n, false, &next);
        }
    }
}

static size_t bytes_f32(int64_t rows, int64_t in) { return pack_bytes(TYPE_F32, rows, in); }
static size_t bytes_f16(int64_t rows, int64_t in) { return pack_bytes(TYPE_F16, rows, in); }
static size_t bytes_bf16(int64_t rows, int64_t in) { return pack_bytes(TYPE_BF16, rows, in); }

const struct cpu_format *avx512_float_format(enum tensor_type type, kg_activations activations)
{
    static const struct cpu_format f32 = {"packed f32", ACTS_F32_TILES, bytes_f32, pack_rows, float_scratch_bytes, run_packed};
    static const struct cpu_format f16 = {"packed f16", ACTS_F32_TILES, bytes_f16, pack_rows, float_scratch_bytes, run_packed};
    static const struct cpu_format bf16 = {"packed bf16", ACTS_F32_TILES, bytes_bf16, pack_rows, float_scratch_bytes, run_packed};
    static const struct cpu_format bf16_dot = {"packed bf16 dot", ACTS_BF16_TILES, bytes_bf16, pack_rows, float_scratch_bytes, run_packed};
    static const struct cpu_format rows = {"rows f32", ACTS_F32_TILES, NULL, NULL, float_scratch_bytes, run_rows};
    if (type == TYPE_F32) return &f32;
    if (type == TYPE_F16) return &f16;
    if (type != TYPE_BF16) return &rows;
    /* vdpbf16ps has twice the rate of f32 fma on AMD's cores and half of it on Intel's (measured: bench/NOTES.md) */
    return activations == KG_ACT_INT8 && cpu_has_bf16() && __builtin_cpu_is("amd") ? &bf16_dot : &bf16;
}
