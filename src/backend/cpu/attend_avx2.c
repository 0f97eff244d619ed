/* Attention for AVX2: K and V of a block are widened to f32 once for all rows of the job (a row is one query head of one token);
 * scores have positions as lanes, sums of V have dimensions as lanes, so nothing is summed across lanes but the softmax's maximum
 * and sum. The softmax is online (Milakov and Gimelshein 2018), over spans of SPAN positions that start at multiples of SPAN: what a
 * row gets depends on its own positions only. */
#include "backend/cpu/avx2.h"
#include "backend/cpu/attend_job.h"

#define INLINE static inline __attribute__((always_inline))

#define LANES 8

/* Scratch of a thread. Behind it: p [rows][SPAN]. */
struct scratch {
    struct rows rows;
    _Alignas(64) float sums[MOST_ROWS][LANES]; /* of weights, lane by lane */
    _Alignas(64) float wide[]; /* [k_dim][STRIP] or [STRIP][wide_v(v_dim)] */
};

#define STRIP KV_BLOCK

static int wide_v(int v_dim) { return ROUND_UP(v_dim, 8); }

static size_t wide_floats(int k_dim, int v_dim) { return (size_t)STRIP * (size_t)wide_v(MAX(k_dim, v_dim)); }

size_t avx2_attend_scratch_bytes(int n_rows, int k_dim, int v_dim)
{
    return sizeof(struct scratch) + (wide_floats(k_dim, v_dim) + (size_t)n_rows * SPAN) * sizeof(float);
}

/* All lanes below n. */
static inline __m256i lanes(int n) { return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)); }

/* ---- widening ---- */

INLINE __m256 widen_8(const uint8_t *p, kg_kv_type TYPE)
{
    if (TYPE == KG_KV_F32) return _mm256_loadu_ps((const float *)(const void *)p);
    if (TYPE == KG_KV_F16) return _mm256_cvtph_ps(_mm_loadu_si128((const void *)p));
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)p)));
}

/* The first n < 8; the rest is 0. */
INLINE __m256 widen_part(const uint8_t *p, int n, kg_kv_type TYPE)
{
    uint8_t part[32] = {0};
    memcpy(part, p, (size_t)n * kv_item_bytes(TYPE));
    return widen_8(part, TYPE);
}

INLINE void widen_k_as(const struct cpu_kv_layout *kv, const uint8_t *block, int head, float *dst, kg_kv_type TYPE)
{
    const size_t size = kv_item_bytes(TYPE);
    const uint8_t *k = block + kv->k_offset + (size_t)head * (size_t)kv->k_dim * KV_BLOCK * size;
    const float *scale = (const float *)(const void *)(block + kv->k_scale_offset) + head * kv->k_groups * KV_BLOCK;
    for (int i = 0; i < kv->k_dim; i++) {
        for (int j = 0; j < KV_BLOCK; j += 8, k += 8 * size) {
            __m256 x = widen_8(k, TYPE);
            if (TYPE == KG_KV_Q8_0) x = _mm256_mul_ps(x, _mm256_loadu_ps(scale + i / KV_GROUP * KV_BLOCK + j));
            _mm256_store_ps(dst + i * STRIP + j, x);
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

/* The first n positions; columns up to the next multiple of 8 become zero. */
INLINE void widen_v_as(const struct cpu_kv_layout *kv, const uint8_t *block, int head, int n, float *dst, kg_kv_type TYPE)
{
    const size_t size = kv_item_bytes(TYPE);
    const uint8_t *v = block + kv->v_offset + (size_t)head * KV_BLOCK * (size_t)kv->v_dim * size;
    const int v_dim = kv->v_dim;
    const float *scale = (const float *)(const void *)(block + kv->v_scale_offset) + head * KV_BLOCK * kv->v_groups;
    for (int j = 0; j < n; j++, v += (size_t)v_dim * size, scale += kv->v_groups) {
        for (int i = 0; i < v_dim; i += 8, dst += 8) {
            __m256 x = v_dim - i >= 8 ? widen_8(v + (size_t)i * size, TYPE) : widen_part(v + (size_t)i * size, v_dim - i, TYPE);
            if (TYPE == KG_KV_Q8_0) x = _mm256_mul_ps(x, _mm256_set1_ps(scale[i / KV_GROUP]));
            _mm256_store_ps(dst, x);
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

/* ---- scores: p[r][0 .. 8 C) = scale * q_r . k_j ---- */

INLINE void scores(const float *const *q, const float *k, int k_dim, float scale, float *p, const int R, const int C)
{
    __m256 s[ROWS][4];
    UNROLL(6)
    for (int r = 0; r < R; r++)
        UNROLL(4)
        for (int x = 0; x < C; x++) s[r][x] = _mm256_setzero_ps();
    for (int i = 0; i < k_dim; i++, k += STRIP) {
        __m256 w[4];
        UNROLL(4)
        for (int x = 0; x < C; x++) w[x] = _mm256_load_ps(k + 8 * x);
        UNROLL(6)
        for (int r = 0; r < R; r++) {
            const __m256 b = _mm256_set1_ps(q[r][i]);
            UNROLL(4)
            for (int x = 0; x < C; x++) s[r][x] = _mm256_fmadd_ps(w[x], b, s[r][x]);
        }
    }
    UNROLL(6)
    for (int r = 0; r < R; r++)
        UNROLL(4)
        for (int x = 0; x < C; x++) _mm256_store_ps(p + r * SPAN + 8 * x, _mm256_mul_ps(s[r][x], _mm256_set1_ps(scale)));
}

/* Sums of R rows and C vectors under way: as many as fit 16 registers, and more than one even for one row. */
INLINE void scores_rows(const float *const *q, const float *k, int k_dim, float scale, float *p, const int R)
{
    const int C = R <= 2 ? 4 : 2;
    for (int j = 0; j < STRIP; j += 8 * C) scores(q, k + j, k_dim, scale, p + j, R, C);
}

/* ---- out_r += sum_j p[r][j] v_j over n positions, C vectors of columns from column i on ---- */

INLINE void add_values(float *const *out, const float *v, int width, const float *p, int n, int i, __m256i last, const int R, const int C)
{
    __m256 c[ROWS][8];
    UNROLL(6)
    for (int r = 0; r < R; r++)
        UNROLL(8)
        for (int x = 0; x < C; x++) c[r][x] = C == 1 ? _mm256_maskload_ps(out[r] + i, last) : _mm256_loadu_ps(out[r] + i + 8 * x);
    v += i;
    for (int j = 0; j < n; j++, v += width) {
        __m256 w[8];
        UNROLL(8)
        for (int x = 0; x < C; x++) w[x] = _mm256_load_ps(v + 8 * x);
        UNROLL(6)
        for (int r = 0; r < R; r++) {
            const __m256 b = _mm256_set1_ps(p[r * SPAN + j]);
            UNROLL(8)
            for (int x = 0; x < C; x++) c[r][x] = _mm256_fmadd_ps(w[x], b, c[r][x]);
        }
    }
    UNROLL(6)
    for (int r = 0; r < R; r++) {
        UNROLL(8)
        for (int x = 0; x < C; x++) {
            if (C == 1) _mm256_maskstore_ps(out[r] + i, last, c[r][x]);
            else _mm256_storeu_ps(out[r] + i + 8 * x, c[r][x]);
        }
    }
}

INLINE void add_values_rows(float *const *out, const float *v, int v_dim, const float *p, int n, const int R)
{
    const int width = wide_v(v_dim), C = R == 1 ? 8 : R <= 3 ? 4 : 2;
    const __m256i all = lanes(8);
    int i = 0;
    for (; v_dim - i >= 8 * C; i += 8 * C) add_values(out, v, width, p, n, i, all, R, C);
    for (; v_dim > i; i += 8) add_values(out, v, width, p, n, i, lanes(v_dim - i), R, 1);
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
    (void)n_blocks; /* a strip is one */
#define CALL(R) scores_rows(q, k, k_dim, scale, p, R)
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

/* As exp_fast of the plain C kernels, for x <= 0. */
static inline __m256 exp_256(__m256 x)
{
    x = _mm256_max_ps(x, _mm256_set1_ps(-87.0f));
    const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), x), p = _mm256_set1_ps(1.9875691500e-4f);
    r = _mm256_fmadd_ps(n, _mm256_set1_ps(2.12194440e-4f), r);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.3981999507e-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(8.3334519073e-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(4.1665795894e-2f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.6666665459e-1f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(5.0000001201e-1f));
    p = _mm256_fmadd_ps(p, _mm256_mul_ps(r, r), _mm256_add_ps(r, _mm256_set1_ps(1.0f)));
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23)));
}

static inline float reduce_max(__m256 v)
{
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}
static inline float reduce_add(__m256 v)
{
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}

/* The largest of top and the first n scores. */
static inline float span_top(const float *p, int n, float top)
{
    const __m256 least = _mm256_set1_ps(-INFINITY);
    __m256 best = least;
    for (int j = 0; j < n; j += 8)
        best = _mm256_max_ps(best, _mm256_blendv_ps(least, _mm256_load_ps(p + j), _mm256_castsi256_ps(lanes(n - j))));
    return fmaxf(top, reduce_max(best));
}

/* fade[i] = e^(fade[i] - top[i]) */
static void fade_rows(float *fade, const float *top, int n)
{
    for (int i = 0; i < n; i += 8) {
        const __m256i in = lanes(n - i);
        _mm256_maskstore_ps(fade + i, in, exp_256(_mm256_sub_ps(_mm256_maskload_ps(fade + i, in), _mm256_maskload_ps(top + i, in))));
    }
}

static inline void fade_out(float *out, int v_dim, float fade)
{
    for (int i = 0; i < v_dim; i += 8) {
        const __m256i in = lanes(v_dim - i);
        _mm256_maskstore_ps(out + i, in, _mm256_mul_ps(_mm256_set1_ps(fade), _mm256_maskload_ps(out + i, in)));
    }
}

/* p[0..SPAN) scores -> weights; n of them count, the others become 0. */
static inline void softmax_span(float *p, int n, float top, float fade, float *sums)
{
    const __m256 m1 = _mm256_set1_ps(top);
    __m256 total = _mm256_setzero_ps();
    for (int j = 0; j < SPAN; j += 8) {
        __m256 e = _mm256_setzero_ps();
        if (j < n) e = _mm256_and_ps(exp_256(_mm256_sub_ps(_mm256_load_ps(p + j), m1)), _mm256_castsi256_ps(lanes(n - j)));
        total = _mm256_add_ps(total, e);
        _mm256_store_ps(p + j, e);
    }
    _mm256_store_ps(sums, _mm256_fmadd_ps(_mm256_load_ps(sums), _mm256_set1_ps(fade), total));
}

/* ---- one token ---- */

#define ONE_ROWS 4
#define ONE_COLUMNS(R) ((R) <= 2 ? 4 : 2)

/* Each step of the first pass asks for some lines at `ask`. */
INLINE void scores_of_rows(const struct run *k, const float *q, int k_dim, float scale, float *p, const uint8_t *ask, int lines, kg_kv_type TYPE, const int R)
{
    const size_t size = kv_item_bytes(TYPE);
    const int C = ONE_COLUMNS(R);
    for (int j = 0; j < KV_BLOCK; j += 8 * C, lines = 0) {
        __m256 s[ONE_ROWS][4];
        UNROLL(4)
        for (int r = 0; r < R; r++)
            UNROLL(4)
            for (int x = 0; x < C; x++) s[r][x] = _mm256_setzero_ps();
        for (int i = 0; i < k_dim; i++) {
            __m256 w[4];
            ask = ask_lines(ask, lines);
            UNROLL(4)
            for (int x = 0; x < C; x++) {
                w[x] = widen_8(k->p + (size_t)(i * KV_BLOCK + j + 8 * x) * size, TYPE);
                if (TYPE == KG_KV_Q8_0) w[x] = _mm256_mul_ps(w[x], _mm256_loadu_ps(k->scale + i / KV_GROUP * KV_BLOCK + j + 8 * x));
            }
            UNROLL(4)
            for (int r = 0; r < R; r++) {
                const __m256 b = _mm256_set1_ps(q[r * k_dim + i]);
                UNROLL(4)
                for (int x = 0; x < C; x++) s[r][x] = _mm256_fmadd_ps(w[x], b, s[r][x]);
            }
        }
        UNROLL(4)
        for (int r = 0; r < R; r++)
            UNROLL(4)
            for (int x = 0; x < C; x++) _mm256_store_ps(p + r * SPAN + j + 8 * x, _mm256_mul_ps(s[r][x], _mm256_set1_ps(scale)));
    }
}

/* C vectors of columns from column i on, over n positions; C is 1 at the end of a row that is no multiple. */
INLINE void add_columns(const struct cpu_kv_layout *kv, uint8_t *const *blocks, int head, float *out, const float *fade, const float *p, int n, int i, const uint8_t **ask, int lines,
                        kg_kv_type TYPE, const int R, const int C)
{
    const size_t size = kv_item_bytes(TYPE);
    const int v_dim = kv->v_dim, left = v_dim - i;
    const __m256i last = lanes(left);
    __m256 c[ONE_ROWS][4];
    UNROLL(4)
    for (int r = 0; r < R; r++)
        UNROLL(4)
        for (int x = 0; x < C; x++) c[r][x] = _mm256_mul_ps(_mm256_set1_ps(fade[r]), C == 1 ? _mm256_maskload_ps(out + r * v_dim + i, last) : _mm256_loadu_ps(out + r * v_dim + i + 8 * x));
    for (int b = 0; b * KV_BLOCK < n; b++, p += KV_BLOCK) {
        const struct run v = values_of(kv, blocks[b], head);
        const uint8_t *next = ask[b];
        const int m = MIN(KV_BLOCK, n - b * KV_BLOCK), n_lines = next ? lines : 0;
        for (int j = 0; j < m; j++) {
            __m256 w[4];
            next = ask_lines(next, n_lines);
            UNROLL(4)
            for (int x = 0; x < C; x++) {
                const uint8_t *at = v.p + (size_t)(j * v_dim + i + 8 * x) * size;
                w[x] = C > 1 || left >= 8 ? widen_8(at, TYPE) : widen_part(at, left, TYPE);
                if (TYPE == KG_KV_Q8_0) w[x] = _mm256_mul_ps(w[x], _mm256_set1_ps(v.scale[j * kv->v_groups + (i + 8 * x) / KV_GROUP]));
            }
            UNROLL(4)
            for (int r = 0; r < R; r++) {
                const __m256 y = _mm256_set1_ps(p[r * SPAN + j]);
                UNROLL(4)
                for (int x = 0; x < C; x++) c[r][x] = _mm256_fmadd_ps(w[x], y, c[r][x]);
            }
        }
        ask[b] = next;
    }
    UNROLL(4)
    for (int r = 0; r < R; r++) {
        UNROLL(4)
        for (int x = 0; x < C; x++) {
            if (C == 1) _mm256_maskstore_ps(out + r * v_dim + i, last, c[r][x]);
            else _mm256_storeu_ps(out + r * v_dim + i + 8 * x, c[r][x]);
        }
    }
}

#define ONE_CASES(CALL, TYPE)      \
    switch (n_rows) {              \
    case 1: CALL(TYPE, 1); break;  \
    case 2: CALL(TYPE, 2); break;  \
    case 3: CALL(TYPE, 3); break;  \
    default: CALL(TYPE, 4); break; \
    }

static inline float sum_of(const float *sums) { return reduce_add(_mm256_load_ps(sums)); }

#include "backend/cpu/attend_tmpl.h"

void avx2_attend(const struct cpu_attend *a) { attend_in_parts(a, attend_rows); }
