/* Attention for AVX-512: K and V of a block are widened to f32 once for all rows of the job (a row is one query head of one token);
 * scores have positions as lanes, sums of V have dimensions as lanes, so nothing is summed across lanes but the softmax's maximum
 * and sum. The softmax is online (Milakov and Gimelshein 2018), over spans of SPAN positions that start at multiples of SPAN: what a
 * row gets depends on its own positions only. */
#include "backend/cpu/avx512.h"
#include "backend/cpu/attend_job.h"

#define INLINE static inline __attribute__((always_inline))

#define LANES 16

/* Scratch of a thread. Behind it: p [rows][SPAN]. */
struct scratch {
    struct rows rows;
    _Alignas(64) float sums[MOST_ROWS][LANES]; /* of weights, lane by lane */
    _Alignas(64) float wide[]; /* [k_dim][STRIP] or [STRIP][wide_v(v_dim)] */
};

#define STRIP (2 * KV_BLOCK) /* positions: six rows of four vectors of sums fit the registers */

static int wide_v(int v_dim) { return ROUND_UP(v_dim, 16); }

static size_t wide_floats(int k_dim, int v_dim) { return (size_t)STRIP * (size_t)wide_v(MAX(k_dim, v_dim)); }

size_t avx512_attend_scratch_bytes(int n_rows, int k_dim, int v_dim)
{
    return sizeof(struct scratch) + (wide_floats(k_dim, v_dim) + (size_t)n_rows * SPAN) * sizeof(float);
}

/* ---- widening ---- */

static inline __m512 widen_16(kg_kv_type type, const uint8_t *base, size_t at, __mmask16 m)
{
    if (type == KG_KV_F32) return _mm512_maskz_loadu_ps(m, base + 4 * at);
    if (type == KG_KV_F16) return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(m, base + 2 * at));
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(m, base + at)));
}

INLINE void widen_k_as(const struct cpu_kv_layout *kv, const uint8_t *block, int head, float *dst, kg_kv_type TYPE)
{
    const uint8_t *k = block + kv->k_offset;
    const size_t k0 = (size_t)head * (size_t)kv->k_dim * KV_BLOCK;
    const float *scale = (const float *)(const void *)(block + kv->k_scale_offset) + head * kv->k_groups * KV_BLOCK;
    for (int i = 0; i < kv->k_dim; i++) {
        for (int j = 0; j < KV_BLOCK; j += 16) {
            __m512 x = widen_16(TYPE, k, k0 + (size_t)(i * KV_BLOCK + j), 0xffff);
            if (TYPE == KG_KV_Q8_0) x = _mm512_mul_ps(x, _mm512_loadu_ps(scale + i / KV_GROUP * KV_BLOCK + j));
            _mm512_store_ps(dst + i * STRIP + j, x);
        }
    }
}

static void widen_k(const struct cpu_kv_layout *kv, const uint8_t *block, int head, float *dst)
{
    switch (kv->type) {
    case KG_KV_F16: widen_k_as(kv, block, head, dst, KG_KV_F16); break;
    case KG_KV_F32: widen_k_as(kv, block, head, dst, KG_KV_F32); break;
    case KG_KV_Q8_0: widen_k_as(kv, block, head, dst, KG_KV_Q8_0); break;
    }
}

/* The first n positions; columns up to the next multiple of 16 become zero. */
INLINE void widen_v_as(const struct cpu_kv_layout *kv, const uint8_t *block, int head, int n, float *dst,
                                                             kg_kv_type TYPE)
{
    const uint8_t *v = block + kv->v_offset;
    const int width = wide_v(kv->v_dim);
    const float *scale = (const float *)(const void *)(block + kv->v_scale_offset) + head * KV_BLOCK * kv->v_groups;
    for (int j = 0; j < n; j++) {
        const size_t at = ((size_t)head * KV_BLOCK + (size_t)j) * (size_t)kv->v_dim;
        for (int i = 0; i < width; i += 16) {
            const __mmask16 m = (__mmask16)(kv->v_dim - i >= 16 ? 0xffff : (1 << (kv->v_dim - i)) - 1);
            __m512 x = widen_16(TYPE, v, at + (size_t)i, m);
            if (TYPE == KG_KV_Q8_0) x = _mm512_mul_ps(x, _mm512_set1_ps(scale[j * kv->v_groups + i / KV_GROUP]));
            _mm512_store_ps(dst + j * width + i, x);
        }
    }
}

static void widen_v(const struct cpu_kv_layout *kv, const uint8_t *block, int head, int n, float *dst)
{
    switch (kv->type) {
    case KG_KV_F16: widen_v_as(kv, block, head, n, dst, KG_KV_F16); break;
    case KG_KV_F32: widen_v_as(kv, block, head, n, dst, KG_KV_F32); break;
    case KG_KV_Q8_0: widen_v_as(kv, block, head, n, dst, KG_KV_Q8_0); break;
    }
}

/* ---- scores: p[r][0 .. 16 C) = scale * q_r . k_j ---- */

INLINE void scores(const float *const *q, const float *k, int k_dim, float scale, float *p, const int R, const int C)
{
    __m512 s[ROWS][4];
    UNROLL(6)
    for (int r = 0; r < R; r++)
        UNROLL(4)
        for (int x = 0; x < C; x++) s[r][x] = _mm512_setzero_ps();
    for (int i = 0; i < k_dim; i++, k += STRIP) {
        __m512 w[4];
        UNROLL(4)
        for (int x = 0; x < C; x++) w[x] = _mm512_load_ps(k + 16 * x);
        UNROLL(6)
        for (int r = 0; r < R; r++) {
            const __m512 b = _mm512_set1_ps(q[r][i]);
            UNROLL(4)
            for (int x = 0; x < C; x++) s[r][x] = _mm512_fmadd_ps(w[x], b, s[r][x]);
        }
    }
    UNROLL(6)
    for (int r = 0; r < R; r++)
        UNROLL(4)
        for (int x = 0; x < C; x++) _mm512_store_ps(p + r * SPAN + 16 * x, _mm512_mul_ps(s[r][x], _mm512_set1_ps(scale)));
}

/* ---- out_r += sum_j p[r][j] v_j over n positions, C vectors of columns from column i on ---- */

INLINE void add_values(float *const *out, const float *v, int width, const float *p, int n, int i, __mmask16 last,
                                                             const int R, const int C)
{
    __m512 c[ROWS][4];
    UNROLL(6)
    for (int r = 0; r < R; r++)
        UNROLL(4)
        for (int x = 0; x < C; x++) c[r][x] = _mm512_maskz_loadu_ps(x == C - 1 ? last : 0xffff, out[r] + i + 16 * x);
    v += i;
    for (int j = 0; j < n; j++, v += width) {
        __m512 w[4];
        UNROLL(4)
        for (int x = 0; x < C; x++) w[x] = _mm512_load_ps(v + 16 * x);
        UNROLL(6)
        for (int r = 0; r < R; r++) {
            const __m512 b = _mm512_set1_ps(p[r * SPAN + j]);
            UNROLL(4)
            for (int x = 0; x < C; x++) c[r][x] = _mm512_fmadd_ps(w[x], b, c[r][x]);
        }
    }
    UNROLL(6)
    for (int r = 0; r < R; r++)
        UNROLL(4)
        for (int x = 0; x < C; x++) _mm512_mask_storeu_ps(out[r] + i + 16 * x, x == C - 1 ? last : 0xffff, c[r][x]);
}

INLINE void add_values_rows(float *const *out, const float *v, int v_dim, const float *p, int n, const int R)
{
    const int width = wide_v(v_dim);
    int i = 0;
    for (; v_dim - i >= 64; i += 64) add_values(out, v, width, p, n, i, 0xffff, R, 4);
    for (; v_dim > i; i += 16) add_values(out, v, width, p, n, i, (__mmask16)(v_dim - i >= 16 ? 0xffff : (1 << (v_dim - i)) - 1), R, 1);
}

#define ROW_CASES(CALL)            \
    switch (n_rows) {              \
    case 1: CALL(1); break;        \
    case 2: CALL(2); break;        \
    case 3: CALL(3); break;        \
    case 4: CALL(4); break;        \
    case 5: CALL(5); break;        \
    default: CALL(6); break;       \
    }

static void scores_any(const float *const *q, const float *k, int k_dim, int n_blocks, float scale, float *p, int n_rows)
{
#define CALL(R) n_blocks == 1 ? scores(q, k, k_dim, scale, p, R, 2) : scores(q, k, k_dim, scale, p, R, 4)
    ROW_CASES(CALL)
#undef CALL
}

static void add_values_any(float *const *out, const float *v, int v_dim, const float *p, int n, int n_rows)
{
#define CALL(R) add_values_rows(out, v, v_dim, p, n, R)
    ROW_CASES(CALL)
#undef CALL
}

/* ---- softmax of one span ---- */

/* e^x for x <= 0: 2^n 2^f, f from -1/2 to 1/2. The polynomial is within 2e-9 of 2^f; rounding x log2(e) costs what rounding x costs. */
static inline __m512 exp_below(__m512 x)
{
    const __m512 y = _mm512_max_ps(_mm512_set1_ps(-126.0f), _mm512_mul_ps(x, _mm512_set1_ps(1.44269504f))); /* this order keeps NaN */
    const __m512 n = _mm512_roundscale_ps(y, 0), f = _mm512_sub_ps(y, n);
    __m512 p = _mm512_set1_ps(1.53533619e-4f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.33988744e-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.61843736e-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.55033247e-2f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.40226479e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.93147203e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, n);
}

/* The largest of top and the first n scores. */
static inline float span_top(const float *p, int n, float top)
{
    const int whole = n / 16 * 16;
    const __mmask16 rest = (__mmask16)((1 << (n - whole)) - 1);
    __m512 best = _mm512_set1_ps(top);
    for (int j = 0; j < whole; j += 16) best = _mm512_max_ps(best, _mm512_load_ps(p + j));
    if (rest) best = _mm512_mask_max_ps(best, rest, best, _mm512_load_ps(p + whole));
    return _mm512_reduce_max_ps(best);
}

/* fade[i] = e^(fade[i] - top[i]) */
static void fade_rows(float *fade, const float *top, int n)
{
    for (int i = 0; i < n; i += 16) {
        const __mmask16 in = (__mmask16)(n - i >= 16 ? 0xffff : (1 << (n - i)) - 1);
        _mm512_mask_storeu_ps(fade + i, in, exp_below(_mm512_sub_ps(_mm512_maskz_loadu_ps(in, fade + i), _mm512_maskz_loadu_ps(in, top + i))));
    }
}

static inline void fade_out(float *out, int v_dim, float fade)
{
    for (int i = 0; i < v_dim; i += 16) {
        const __mmask16 in = (__mmask16)(v_dim - i >= 16 ? 0xffff : (1 << (v_dim - i)) - 1);
        _mm512_mask_storeu_ps(out + i, in, _mm512_mul_ps(_mm512_set1_ps(fade), _mm512_maskz_loadu_ps(in, out + i)));
    }
}

/* p[0..SPAN) scores -> weights; n of them count, the others become 0. */
static inline void softmax_span(float *p, int n, float top, float fade, float *sums)
{
    const int whole = n / 16 * 16;
    const __mmask16 rest = (__mmask16)((1 << (n - whole)) - 1);
    const __m512 shift = _mm512_set1_ps(top);
    __m512 total = _mm512_setzero_ps();
    int j = 0;
    for (; j < whole; j += 16) {
        const __m512 e = exp_below(_mm512_sub_ps(_mm512_load_ps(p + j), shift));
        total = _mm512_add_ps(total, e);
        _mm512_store_ps(p + j, e);
    }
    if (rest) {
        const __m512 e = _mm512_maskz_mov_ps(rest, exp_below(_mm512_sub_ps(_mm512_load_ps(p + j), shift)));
        total = _mm512_add_ps(total, e);
        _mm512_store_ps(p + j, e);
        j += 16;
    }
    for (; j < SPAN; j += 16) _mm512_store_ps(p + j, _mm512_setzero_ps());
    _mm512_store_ps(sums, _mm512_fmadd_ps(_mm512_load_ps(sums), _mm512_set1_ps(fade), total));
}

/* ---- one token: rows in a row, widened as they are read ---- */

#define ONE_ROWS 8
#define ONE_COLUMNS(R) ((R) <= 4 ? 4 : 2) /* 16 sums under way */

/* Each step asks for some lines at `ask`. */
INLINE void scores_of_rows(const struct run *k, const float *q, int k_dim, float scale, float *p, const uint8_t *ask, int lines, kg_kv_type TYPE, const int R)
{
    __m512 s[ONE_ROWS][2];
    UNROLL(8)
    for (int r = 0; r < R; r++) s[r][0] = s[r][1] = _mm512_setzero_ps();
    for (int i = 0; i < k_dim; i++) {
        __m512 w[2];
        ask = ask_lines(ask, lines);
        UNROLL(2)
        for (int x = 0; x < 2; x++) {
            w[x] = widen_16(TYPE, k->p, (size_t)(i * KV_BLOCK + 16 * x), 0xffff);
            if (TYPE == KG_KV_Q8_0) w[x] = _mm512_mul_ps(w[x], _mm512_loadu_ps(k->scale + i / KV_GROUP * KV_BLOCK + 16 * x));
        }
        UNROLL(8)
        for (int r = 0; r < R; r++) {
            const __m512 b = _mm512_set1_ps(q[r * k_dim + i]);
            s[r][0] = _mm512_fmadd_ps(w[0], b, s[r][0]);
            s[r][1] = _mm512_fmadd_ps(w[1], b, s[r][1]);
        }
    }
    UNROLL(8)
    for (int r = 0; r < R; r++)
        for (int x = 0; x < 2; x++) _mm512_store_ps(p + r * SPAN + 16 * x, _mm512_mul_ps(s[r][x], _mm512_set1_ps(scale)));
}

/* C vectors of columns from column i on, over n positions. */
INLINE void add_columns(const struct cpu_kv_layout *kv, uint8_t *const *blocks, int head, float *out, const float *fade, const float *p, int n, int i, const uint8_t **ask, int lines,
                        kg_kv_type TYPE, const int R, const int C)
{
    const int v_dim = kv->v_dim;
    const __mmask16 last = (__mmask16)(v_dim - i >= 16 * C ? 0xffff : (1 << (v_dim - i)) - 1);
    __m512 c[ONE_ROWS][4];
    UNROLL(8)
    for (int r = 0; r < R; r++)
        UNROLL(4)
        for (int x = 0; x < C; x++) c[r][x] = _mm512_mul_ps(_mm512_set1_ps(fade[r]), _mm512_maskz_loadu_ps(x == C - 1 ? last : 0xffff, out + r * v_dim + i + 16 * x));
    for (int b = 0; b * KV_BLOCK < n; b++, p += KV_BLOCK) {
        const struct run v = values_of(kv, blocks[b], head);
        const uint8_t *next = ask[b];
        const int m = MIN(KV_BLOCK, n - b * KV_BLOCK), n_lines = next ? lines : 0;
        for (int j = 0; j < m; j++) {
            __m512 w[4];
            next = ask_lines(next, n_lines);
            UNROLL(4)
            for (int x = 0; x < C; x++) {
                w[x] = widen_16(TYPE, v.p, (size_t)(j * v_dim + i + 16 * x), x == C - 1 ? last : 0xffff);
                if (TYPE == KG_KV_Q8_0) w[x] = _mm512_mul_ps(w[x], _mm512_set1_ps(v.scale[j * kv->v_groups + (i + 16 * x) / KV_GROUP]));
            }
            UNROLL(8)
            for (int r = 0; r < R; r++) {
                const __m512 y = _mm512_set1_ps(p[r * SPAN + j]);
                UNROLL(4)
                for (int x = 0; x < C; x++) c[r][x] = _mm512_fmadd_ps(w[x], y, c[r][x]);
            }
        }
        ask[b] = next;
    }
    UNROLL(8)
    for (int r = 0; r < R; r++)
        UNROLL(4)
        for (int x = 0; x < C; x++) _mm512_mask_storeu_ps(out + r * v_dim + i + 16 * x, x == C - 1 ? last : 0xffff, c[r][x]);
}

#define ONE_CASES(CALL, TYPE)         \
    switch (n_rows) {                 \
    case 1: CALL(TYPE, 1); break;     \
    case 2: CALL(TYPE, 2); break;     \
    case 3: CALL(TYPE, 3); break;     \
    case 4: CALL(TYPE, 4); break;     \
    case 5: CALL(TYPE, 5); break;     \
    case 6: CALL(TYPE, 6); break;     \
    case 7: CALL(TYPE, 7); break;     \
    default: CALL(TYPE, 8); break;    \
    }

static inline float sum_of(const float *sums) { return _mm512_reduce_add_ps(_mm512_load_ps(sums)); }

#include "backend/cpu/attend_tmpl.h"

void avx512_attend(const struct cpu_attend *a) { attend_in_parts(a, attend_rows); }
