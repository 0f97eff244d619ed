/* Matmul with f32 activations for NEON: F32, F16 and BF16 weights exactly, in f32 arithmetic; and, where exact activations are
 * asked for, every other type through its f32 values.
 *
 * One output is c = fma(w_k, x_k, c) over k in order, whatever the number of tokens. */
#include "backend/cpu/neon.h"

#include "backend/cpu/pack.h"
#include "tensor/decode.h"

#define CHUNK 256 /* elements of a row that are widened at a time: 16 KiB for 16 rows */
#define TILE ACT_FLOAT_TILE

struct tile {
    const float *w; /* [k][16] */
    int n;
    const float *x; /* [k][T] */
    float *c;       /* [T][16]: sums so far */
};

NEON_INLINE float32x4_t fma_lane(float32x4_t c, float32x4_t w, float32x4_t x, int lane)
{
    switch (lane) {
    case 0: return vfmaq_laneq_f32(c, w, x, 0);
    case 1: return vfmaq_laneq_f32(c, w, x, 1);
    case 2: return vfmaq_laneq_f32(c, w, x, 2);
    default: return vfmaq_laneq_f32(c, w, x, 3);
    }
}

/* Eight rows at a time: 2 T sums in registers. */
NEON_INLINE void tile(const struct tile *a, const int T)
{
    for (int half = 0; half < 16; half += 8) {
        float32x4_t c[TILE][2];
        const float *w = a->w + half, *x = a->x;
        UNROLL(12)
        for (int t = 0; t < T; t++) {
            c[t][0] = vld1q_f32(a->c + t * 16 + half);
            c[t][1] = vld1q_f32(a->c + t * 16 + half + 4);
        }
        for (int k = 0; k < a->n; k++, w += 16, x += T) {
            const float32x4_t w0 = vld1q_f32(w), w1 = vld1q_f32(w + 4);
            float32x4_t b = vdupq_n_f32(0);
            UNROLL(12)
            for (int t = 0; t < T; t++) {
                if (t % 4 == 0 && t + 4 <= T) b = vld1q_f32(x + t);
                if (t / 4 * 4 + 4 > T) b = vdupq_n_f32(x[t]); /* the last ones, by themselves */
                c[t][0] = fma_lane(c[t][0], w0, b, t % 4);
                c[t][1] = fma_lane(c[t][1], w1, b, t % 4);
            }
        }
        UNROLL(12)
        for (int t = 0; t < T; t++) {
            vst1q_f32(a->c + t * 16 + half, c[t][0]);
            vst1q_f32(a->c + t * 16 + half + 4, c[t][1]);
        }
    }
}

static void tile_any(const struct tile *a, int T)
{
    switch (T) {
    case 1: tile(a, 1); break;
    case 2: tile(a, 2); break;
    case 3: tile(a, 3); break;
    case 4: tile(a, 4); break;
    case 5: tile(a, 5); break;
    case 6: tile(a, 6); break;
    case 7: tile(a, 7); break;
    case 8: tile(a, 8); break;
    case 9: tile(a, 9); break;
    case 10: tile(a, 10); break;
    case 11: tile(a, 11); break;
    default: tile(a, 12); break;
    }
}

/* ---- drivers ---- */

/* Scratch of a thread. Behind it: sums [tokens][16]. */
struct scratch {
    float w[CHUNK * 16];
    float rows[4 * CHUNK]; /* types without packed layout: four rows' chunk */
    float c[];
};

static size_t float_scratch_bytes(int in, int max_n)
{
    (void)in;
    return sizeof(struct scratch) + (size_t)max_n * 16 * sizeof(float);
}

/* The tokens against elements [k0, k0 + n) of rows row .. row + 15 in s->w. */
static void multiply_chunk(const struct cpu_matmul *m, struct scratch *s, int row, int k0, int n)
{
    struct tile x = {.w = s->w, .n = n, .c = s->c};
    if (k0 == 0) memset(s->c, 0, (size_t)(m->t1 - m->t0) * 16 * sizeof(float));
    for (int t0 = m->t0; t0 < m->t1; t0 += TILE, x.c += TILE * 16) {
        const int T = MIN(TILE, m->t1 - t0);
        x.x = m->acts.f32 + (size_t)t0 * (size_t)m->in + (size_t)(k0 * T);
        tile_any(&x, T);
    }
    if (k0 + n == m->in)
        for (int t = m->t0; t < m->t1; t++) neon_store_row(m, t, row, s->c + (t - m->t0) * 16);
}

static const uint8_t *panel_at(const struct cpu_matmul *m, int panel)
{
    return pack_panel(m, pack_find(m->tensor->type), panel);
}

/* Element k of rows 4 i .. 4 i + 3 of a packed panel. */
NEON_INLINE float32x4_t element(const enum tensor_type TYPE, const uint8_t *panel, int k, int i)
{
    if (TYPE == TYPE_F16) return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(panel + (size_t)k * 32 + i * 8)));
    if (TYPE == TYPE_F32) return vreinterpretq_f32_u8(vld1q_u8(panel + (size_t)k * 64 + i * 16));
    const uint32x4_t pair = vreinterpretq_u32_u8(vld1q_u8(panel + (size_t)(k / 2) * 64 + i * 16));
    return vreinterpretq_f32_u32(k & 1 ? vandq_u32(pair, vdupq_n_u32(0xffff0000u)) : vshlq_n_u32(pair, 16));
}

NEON_INLINE void widen_as(const enum tensor_type TYPE, const uint8_t *panel, int k0, int n, float *w)
{
    for (int k = k0; k < k0 + n; k++, w += 16)
        for (int i = 0; i < 4; i++) vst1q_f32(w + 4 * i, element(TYPE, panel, k, i));
}

static void widen(enum tensor_type type, const uint8_t *panel, int k0, int n, float *w)
{
    if (type == TYPE_F16) widen_as(TYPE_F16, panel, k0, n, w);
    else if (type == TYPE_F32) widen_as(TYPE_F32, panel, k0, n, w);
    else widen_as(TYPE_BF16, panel, k0, n, w);
}

/* One token: four panels at a time, so that sixteen sums are under way. */
NEON_INLINE void gemv(const struct cpu_matmul *m, int row0, int row1, const enum tensor_type TYPE)
{
    const int n_panels = (row1 - row0 + PANEL - 1) / PANEL;
    for (int p = 0; p < n_panels; p += 4) {
        const uint8_t *w[4];
        float32x4_t c[4][4];
        UNROLL(4)
        for (int i = 0; i < 4; i++) {
            w[i] = panel_at(m, row0 / PANEL + MIN(p + i, n_panels - 1));
            UNROLL(4)
            for (int j = 0; j < 4; j++) c[i][j] = vdupq_n_f32(0);
        }
        UNROLL_BY(2)
        for (int k = 0; k < m->in; k++) {
            UNROLL(4)
            for (int i = 0; i < 4; i++)
                UNROLL(4)
                for (int j = 0; j < 4; j++) c[i][j] = vfmaq_n_f32(c[i][j], element(TYPE, w[i], k, j), m->acts.f32[k]);
        }
        UNROLL(4)
        for (int i = 0; i < 4; i++) {
            float sums[16];
            for (int j = 0; j < 4; j++) vst1q_f32(sums + 4 * j, c[i][j]);
            if (p + i < n_panels) neon_store_row(m, 0, row0 + (p + i) * PANEL, sums);
        }
    }
}

static void run_packed(const struct cpu_matmul *m, int row0, int row1)
{
    struct scratch *s = m->scratch;
    const enum tensor_type type = m->tensor->type;
    if (m->n == 1) {
        if (type == TYPE_F16) gemv(m, row0, row1, TYPE_F16);
        else if (type == TYPE_F32) gemv(m, row0, row1, TYPE_F32);
        else gemv(m, row0, row1, TYPE_BF16);
        return;
    }
    for (int row = row0; row < row1; row += PANEL) {
        for (int k0 = 0; k0 < m->in; k0 += CHUNK) {
            const int n = MIN(CHUNK, m->in - k0);
            widen(type, panel_at(m, row / PANEL), k0, n, s->w);
            multiply_chunk(m, s, row, k0, n);
        }
    }
}

/* Four rows [4][CHUNK] -> every fourth vector of w [k][16]; what lies behind n in a vector is copied along. */
static void transpose_4(const float *rows, int n, float *w)
{
    for (int k = 0; k < n; k += 4, w += 64) {
        const float32x4_t a = vld1q_f32(rows + k), b = vld1q_f32(rows + CHUNK + k), c = vld1q_f32(rows + 2 * CHUNK + k),
                          d = vld1q_f32(rows + 3 * CHUNK + k);
        const float64x2_t ab0 = vreinterpretq_f64_f32(vtrn1q_f32(a, b)), ab1 = vreinterpretq_f64_f32(vtrn2q_f32(a, b));
        const float64x2_t cd0 = vreinterpretq_f64_f32(vtrn1q_f32(c, d)), cd1 = vreinterpretq_f64_f32(vtrn2q_f32(c, d));
        vst1q_f32(w, vreinterpretq_f32_f64(vtrn1q_f64(ab0, cd0)));
        vst1q_f32(w + 16, vreinterpretq_f32_f64(vtrn1q_f64(ab1, cd1)));
        vst1q_f32(w + 32, vreinterpretq_f32_f64(vtrn2q_f64(ab0, cd0)));
        vst1q_f32(w + 48, vreinterpretq_f32_f64(vtrn2q_f64(ab1, cd1)));
    }
}

static void run_rows(const struct cpu_matmul *m, int row0, int row1)
{
    struct scratch *s = m->scratch;
    const decode_f32_fn decode = decode_f32(m->tensor->type);
    const struct type_info *ti = type_by_id((uint32_t)m->tensor->type);
    for (int row = row0; row < row1; row += PANEL) {
        for (int k0 = 0; k0 < m->in; k0 += CHUNK) {
            const int n = MIN(CHUNK, m->in - k0);
            const size_t at = (size_t)(k0 / ti->block) * (size_t)ti->block_bytes;
            for (int quad = 0; quad < PANEL; quad += 4) {
                for (int r = 0; r < 4 && row + quad + r < m->out; r++)
                    decode((const uint8_t *)tensor_row(m->tensor, row + quad + r) + at, s->rows + r * CHUNK, n);
                transpose_4(s->rows, n, s->w + quad);
            }
            multiply_chunk(m, s, row, k0, n);
        }
    }
}

static size_t bytes_f32(int64_t rows, int64_t in) { return pack_bytes(TYPE_F32, rows, in); }
static size_t bytes_f16(int64_t rows, int64_t in) { return pack_bytes(TYPE_F16, rows, in); }
static size_t bytes_bf16(int64_t rows, int64_t in) { return pack_bytes(TYPE_BF16, rows, in); }

const struct cpu_format *neon_float_format(enum tensor_type type)
{
    static const struct cpu_format f32 = {"packed f32", ACTS_F32_TILES, bytes_f32, pack_rows, float_scratch_bytes, run_packed};
    static const struct cpu_format f16 = {"packed f16", ACTS_F32_TILES, bytes_f16, pack_rows, float_scratch_bytes, run_packed};
    static const struct cpu_format bf16 = {"packed bf16", ACTS_F32_TILES, bytes_bf16, pack_rows, float_scratch_bytes, run_packed};
    static const struct cpu_format rows = {"rows f32", ACTS_F32_TILES, NULL, NULL, float_scratch_bytes, run_rows};
    return type == TYPE_F32 ? &f32 : type == TYPE_F16 ? &f16 : type == TYPE_BF16 ? &bf16 : &rows;
}
