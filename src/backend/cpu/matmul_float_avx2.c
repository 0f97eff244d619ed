/* Matmul with float activations for AVX2: F32, F16 and BF16 weights exactly, in f32 arithmetic, and, where exact activations are asked
 * for, every other type through its f32 values.
 *
 * One output is c = fma(w_k, x_k, c) over k in order, whatever the number of tokens. */
#include "backend/cpu/avx2.h"

#include "backend/cpu/pack.h"
#include "tensor/decode.h"

#define CHUNK 256  /* elements of a row that are widened at a time: 16 KiB for the 16 rows of a panel */
#define SUB_TILE 6 /* tokens whose sums with 16 rows fit the registers */

struct tile {
    const float *w; /* [k][16] */
    int n;          /* k */
    const float *x; /* [k][T] */
    int T;
    float *c;       /* [S][2][16]: sums so far */
    bool first;     /* start from zero */
};

/* 16 rows x S tokens */
static inline __attribute__((always_inline)) void tile(const struct tile *a, const int S)
{
    __m256 c[2][SUB_TILE];
    UNROLL(6)
    for (int t = 0; t < S; t++) {
        c[0][t] = a->first ? _mm256_setzero_ps() : _mm256_load_ps(a->c + t * 32);
        c[1][t] = a->first ? _mm256_setzero_ps() : _mm256_load_ps(a->c + t * 32 + 8);
    }
    const float *w = a->w, *x = a->x;
    const int T = a->T;
    for (int k = 0; k < a->n; k++, w += 16, x += T) {
        const __m256 w0 = _mm256_load_ps(w), w1 = _mm256_load_ps(w + 8);
        UNROLL(6)
        for (int t = 0; t < S; t++) {
            const __m256 b = _mm256_set1_ps(x[t]);
            c[0][t] = _mm256_fmadd_ps(w0, b, c[0][t]);
            c[1][t] = _mm256_fmadd_ps(w1, b, c[1][t]);
        }
    }
    UNROLL(6)
    for (int t = 0; t < S; t++) {
        _mm256_store_ps(a->c + t * 32, c[0][t]);
        _mm256_store_ps(a->c + t * 32 + 8, c[1][t]);
    }
}

static void tile_any(const struct tile *x, int s)
{
    switch (s) {
    case 1: tile(x, 1); break;
    case 2: tile(x, 2); break;
    case 3: tile(x, 3); break;
    case 4: tile(x, 4); break;
    case 5: tile(x, 5); break;
    default: tile(x, 6); break;
    }
}

/* ---- drivers ---- */

/* Scratch of a thread; [2] are the panels of a pair. Behind it: sums [tiles][ACT_FLOAT_TILE][2][16]. */
struct scratch {
    float w[2][CHUNK * 16];
    float rows[PANEL * CHUNK]; /* types without packed layout: 16 rows' chunk */
};

static size_t float_scratch_bytes(int in, int max_n)
{
    (void)in;
    return sizeof(struct scratch) + (size_t)ROUND_UP(max_n, ACT_FLOAT_TILE) * 32 * sizeof(float);
}

/* The tokens against elements [k0, k0 + n) of the one or two panels from `row` on in s->w. */
static void multiply_chunk(const struct cpu_matmul *m, struct scratch *s, int row, int k0, int n)
{
    const size_t in = (size_t)m->in;
    const int n_panels = row + PANEL < m->out ? 2 : 1;
    float *c = (float *)(s + 1);
    for (int t0 = m->t0; t0 < m->t1; t0 += ACT_FLOAT_TILE, c += ACT_FLOAT_TILE * 32) {
        const int T = MIN(ACT_FLOAT_TILE, m->t1 - t0), parts = (T + SUB_TILE - 1) / SUB_TILE;
        const float *x = m->acts.f32 + (size_t)t0 * in + (size_t)(k0 * T);
        for (int panel = 0; panel < n_panels; panel++) {
            for (int i = 0; i < parts; i++) {
                const int t = T * i / parts;
                const struct tile part = {.w = s->w[panel], .n = n, .x = x + t, .T = T, .c = c + t * 32 + panel * 16, .first = k0 == 0};
                tile_any(&part, T * (i + 1) / parts - t);
            }
        }
        if (k0 + n < m->in) continue;
        for (int t = 0; t < T; t++)
            for (int i = 0; i < 2 * n_panels; i++) avx2_store_8(m, t0 + t, row + 8 * i, _mm256_load_ps(c + t * 32 + 8 * i));
    }
}

static inline const uint8_t *panel_at(const struct cpu_matmul *m, int panel)
{
    return pack_panel(m, pack_find(m->tensor->type), panel);
}

/* Element k of half h of a packed panel's rows. */
static inline __attribute__((always_inline)) __m256 values(const enum tensor_type TYPE, const uint8_t *panel, int k, int h)
{
    if (TYPE == TYPE_F16) return _mm256_cvtph_ps(_mm_loadu_si128((const void *)(panel + (size_t)k * 32 + 16 * h)));
    if (TYPE == TYPE_F32) return _mm256_loadu_ps((const float *)(const void *)(panel + (size_t)k * 64 + 32 * h));
    const __m256i v = _mm256_loadu_si256((const void *)(panel + (size_t)(k / 2) * 64 + 32 * h));
    return _mm256_castsi256_ps(k & 1 ? _mm256_and_si256(v, _mm256_set1_epi32((int)0xffff0000u)) : _mm256_slli_epi32(v, 16));
}

/* Elements [k0, k0 + n) of one packed panel -> w [k][16] */
static inline __attribute__((always_inline)) void widen_as(const enum tensor_type TYPE, const uint8_t *panel, int k0, int n, float *w)
{
    for (int k = 0; k < n; k++, w += 16) {
        _mm256_store_ps(w, values(TYPE, panel, k0 + k, 0));
        _mm256_store_ps(w + 8, values(TYPE, panel, k0 + k, 1));
    }
}

static void widen(enum tensor_type type, const uint8_t *panel, int k0, int n, float *w)
{
    if (type == TYPE_F16) widen_as(TYPE_F16, panel, k0, n, w);
    else if (type == TYPE_F32) widen_as(TYPE_F32, panel, k0, n, w);
    else widen_as(TYPE_BF16, panel, k0, n, w);
}

/* One token: several panels at a time, so that as many sums are under way as hide an fma's latency. */
static inline __attribute__((always_inline)) void gemv(const struct cpu_matmul *m, int row0, int row1, const bool ASK, const enum tensor_type TYPE)
{
    const int n_panels = (row1 - row0 + PANEL - 1) / PANEL, n = m->in;
    const size_t bytes = pack_panel_bytes(pack_find(TYPE), n);
    const float *x = m->acts.f32;
    for (int p = 0; p < n_panels; p += AVX2_SIDE) {
        const uint8_t *w[AVX2_SIDE];
        size_t shift[AVX2_SIDE];
        __m256 c[AVX2_SIDE][2];
        UNROLL(4)
        for (int i = 0; i < AVX2_SIDE; i++) {
            shift[i] = (size_t)MIN(i, n_panels - 1 - p) * bytes;
            w[i] = panel_at(m, row0 / PANEL + p) + shift[i];
            c[i][0] = c[i][1] = _mm256_setzero_ps();
        }
        struct pack_stream stream = pack_stream_side(w[0], AVX2_SIDE, bytes, AVX2_AHEAD);
        int k = 0;
        for (; k + 2 <= n; k += 2) {
            if (ASK) pack_stream_go(&stream, AVX2_SIDE, shift, TYPE == TYPE_F32 ? 128 : 64);
            UNROLL(2)
            for (int j = 0; j < 2; j++) {
                const __m256 b = _mm256_set1_ps(x[k + j]);
                UNROLL(4)
                for (int i = 0; i < AVX2_SIDE; i++) {
                    const uint8_t *at = w[i] + (size_t)k * (TYPE == TYPE_F32 ? 64 : 32); /* pairs of BF16 start at even k */
                    c[i][0] = _mm256_fmadd_ps(values(TYPE, at, j, 0), b, c[i][0]);
                    c[i][1] = _mm256_fmadd_ps(values(TYPE, at, j, 1), b, c[i][1]);
                }
            }
        }
        for (; k < n; k++) {
            UNROLL(4)
            for (int i = 0; i < AVX2_SIDE; i++) {
                c[i][0] = _mm256_fmadd_ps(values(TYPE, w[i], k, 0), _mm256_set1_ps(x[k]), c[i][0]);
                c[i][1] = _mm256_fmadd_ps(values(TYPE, w[i], k, 1), _mm256_set1_ps(x[k]), c[i][1]);
            }
        }
        UNROLL(4)
        for (int i = 0; i < AVX2_SIDE; i++) {
            if (p + i >= n_panels) break;
            avx2_store_8(m, 0, row0 + (p + i) * PANEL, c[i][0]);
            avx2_store_8(m, 0, row0 + (p + i) * PANEL + 8, c[i][1]);
        }
    }
}

static inline __attribute__((always_inline)) void gemv_as(const struct cpu_matmul *m, int row0, int row1, const enum tensor_type TYPE)
{
    if (avx2_reads_side()) gemv(m, row0, row1, true, TYPE);
    else gemv(m, row0, row1, false, TYPE);
}

static void run_packed(const struct cpu_matmul *m, int row0, int row1)
{
    struct scratch *s = m->scratch;
    const enum tensor_type type = m->tensor->type;
    if (m->n == 1) {
        if (type == TYPE_F16) gemv_as(m, row0, row1, TYPE_F16);
        else if (type == TYPE_F32) gemv_as(m, row0, row1, TYPE_F32);
        else gemv_as(m, row0, row1, TYPE_BF16);
        return;
    }
    for (int row = row0; row < row1; row += 2 * PANEL) {
        for (int k0 = 0; k0 < m->in; k0 += CHUNK) {
            const int n = MIN(CHUNK, m->in - k0);
            widen(type, panel_at(m, row / PANEL), k0, n, s->w[0]);
            if (row + PANEL < m->out) widen(type, panel_at(m, row / PANEL + 1), k0, n, s->w[1]);
            multiply_chunk(m, s, row, k0, n);
        }
    }
}

/* [16][CHUNK] -> [k][16] */
static void transpose_16(const float *rows, int n, float *w)
{
    const __m256i at = _mm256_setr_epi32(0, CHUNK, 2 * CHUNK, 3 * CHUNK, 4 * CHUNK, 5 * CHUNK, 6 * CHUNK, 7 * CHUNK);
    for (int k = 0; k < n; k++) {
        _mm256_store_ps(w + k * 16, _mm256_i32gather_ps(rows + k, at, 4));
        _mm256_store_ps(w + k * 16 + 8, _mm256_i32gather_ps(rows + k + 8 * CHUNK, at, 4));
    }
}

static void run_rows(const struct cpu_matmul *m, int row0, int row1)
{
    struct scratch *s = m->scratch;
    const decode_f32_fn decode = decode_f32(m->tensor->type);
    const struct type_info *ti = type_by_id((uint32_t)m->tensor->type);
    for (int row = row0; row < row1; row += 2 * PANEL) {
        for (int k0 = 0; k0 < m->in; k0 += CHUNK) {
            const int n = MIN(CHUNK, m->in - k0);
            for (int panel = 0; panel < 2 && row + panel * PANEL < m->out; panel++) {
                for (int r = 0; r < MIN(PANEL, m->out - row - panel * PANEL); r++) {
                    const uint8_t *src = tensor_row(m->tensor, row + panel * PANEL + r);
                    decode(src + (size_t)(k0 / ti->block) * (size_t)ti->block_bytes, s->rows + r * CHUNK, n);
                }
                transpose_16(s->rows, n, s->w[panel]);
            }
            multiply_chunk(m, s, row, k0, n);
        }
    }
}

static size_t bytes_f32(int64_t rows, int64_t in) { return pack_bytes(TYPE_F32, rows, in); }
static size_t bytes_f16(int64_t rows, int64_t in) { return pack_bytes(TYPE_F16, rows, in); }
static size_t bytes_bf16(int64_t rows, int64_t in) { return pack_bytes(TYPE_BF16, rows, in); }

const struct cpu_format *avx2_float_format(enum tensor_type type)
{
    static const struct cpu_format f32 = {"packed f32", ACTS_F32_TILES, bytes_f32, pack_rows, float_scratch_bytes, run_packed};
    static const struct cpu_format f16 = {"packed f16", ACTS_F32_TILES, bytes_f16, pack_rows, float_scratch_bytes, run_packed};
    static const struct cpu_format bf16 = {"packed bf16", ACTS_F32_TILES, bytes_bf16, pack_rows, float_scratch_bytes, run_packed};
    static const struct cpu_format rows = {"rows f32", ACTS_F32_TILES, NULL, NULL, float_scratch_bytes, run_rows};
    return type == TYPE_F32 ? &f32 : type == TYPE_F16 ? &f16 : type == TYPE_BF16 ? &bf16 : &rows;
}
