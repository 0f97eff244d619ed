/* Attention for NEON: K and V of a block are widened to f32 once for all rows of the job (a row is one query head of one token);
 * scores have positions as lanes, sums of V have dimensions as lanes, so nothing is summed across lanes but the softmax's maximum
 * and sum. The softmax is online (Milakov and Gimelshein 2018), over spans of SPAN positions that start at multiples of SPAN: what a
 * row gets depends on its own positions only. */
#include "backend/cpu/neon.h"
#include "backend/cpu/attend_job.h"

#include <math.h>

#define COLS 16 /* positions or dimensions of a pass: ROWS * COLS / 4 sums in registers */

/* Scratch of a thread. */
struct scratch {
    struct rows rows;
    int width;    /* v_dim rounded up to COLS */
    float *p;     /* [rows][SPAN] */
    float *sums;  /* [rows][width] */
    float wide[]; /* [k_dim][KV_BLOCK] or [KV_BLOCK][width]; p and sums follow */
};

static size_t wide_floats(int k_dim, int v_dim) { return (size_t)KV_BLOCK * (size_t)MAX(k_dim, ROUND_UP(v_dim, COLS)); }

size_t neon_attend_scratch_bytes(int n_rows, int k_dim, int v_dim)
{
    return sizeof(struct scratch) + (wide_floats(k_dim, v_dim) + (size_t)n_rows * (size_t)(SPAN + ROUND_UP(v_dim, COLS))) * sizeof(float);
}

/* ---- widening ---- */

/* Elements at .. at + 7; of the last bytes of a row only n may be there. */
NEON_INLINE float32x4x2_t widen_8(const kg_kv_type TYPE, const uint8_t *base, size_t at, int n)
{
    const size_t item = kv_item_bytes(TYPE);
    uint8_t part[32] = {0};
    const uint8_t *p = base + item * at;
    if (n < 8) p = memcpy(part, p, item * (size_t)n);
    float32x4x2_t y;
    if (TYPE == KG_KV_F32) {
        y.val[0] = vreinterpretq_f32_u8(vld1q_u8(p));
        y.val[1] = vreinterpretq_f32_u8(vld1q_u8(p + 16));
    } else if (TYPE == KG_KV_F16) {
        const float16x8_t h = vreinterpretq_f16_u8(vld1q_u8(p));
        y.val[0] = vcvt_f32_f16(vget_low_f16(h));
        y.val[1] = vcvt_high_f32_f16(h);
    } else {
        const int16x8_t w = vmovl_s8(vreinterpret_s8_u8(vld1_u8(p)));
        y.val[0] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(w)));
        y.val[1] = vcvtq_f32_s32(vmovl_high_s16(w));
    }
    return y;
}

NEON_INLINE void widen_k_as(const kg_kv_type TYPE, const struct cpu_kv_layout *kv, const uint8_t *block, int head, float *dst)
{
    const uint8_t *k = block + kv->k_offset;
    const size_t k0 = (size_t)head * (size_t)kv->k_dim * KV_BLOCK;
    const float *scale = (const float *)(const void *)(block + kv->k_scale_offset) + head * kv->k_groups * KV_BLOCK;
    for (int i = 0; i < kv->k_dim; i++) {
        for (int j = 0; j < KV_BLOCK; j += 8) {
            float32x4x2_t x = widen_8(TYPE, k, k0 + (size_t)(i * KV_BLOCK + j), 8);
            if (TYPE == KG_KV_Q8_0) {
                x.val[0] = vmulq_f32(x.val[0], vld1q_f32(scale + i / KV_GROUP * KV_BLOCK + j));
                x.val[1] = vmulq_f32(x.val[1], vld1q_f32(scale + i / KV_GROUP * KV_BLOCK + j + 4));
            }
            vst1q_f32(dst + i * KV_BLOCK + j, x.val[0]);
            vst1q_f32(dst + i * KV_BLOCK + j + 4, x.val[1]);
        }
    }
}

static void widen_k(const struct cpu_kv_layout *kv, const uint8_t *block, int head, float *dst)
{
    switch (kv->type) {
    case KG_KV_F16: widen_k_as(KG_KV_F16, kv, block, head, dst); break;
    case KG_KV_F32: widen_k_as(KG_KV_F32, kv, block, head, dst); break;
    case KG_KV_Q8_0: widen_k_as(KG_KV_Q8_0, kv, block, head, dst); break;
    }
}

/* The first n positions; columns from v_dim up to width become zero. */
NEON_INLINE void widen_v_as(const kg_kv_type TYPE, const struct cpu_kv_layout *kv, const uint8_t *block, int head, int n, int width, float *dst)
{
    const uint8_t *v = block + kv->v_offset;
    const float *scale = (const float *)(const void *)(block + kv->v_scale_offset) + head * KV_BLOCK * kv->v_groups;
    for (int j = 0; j < n; j++) {
        const size_t at = ((size_t)head * KV_BLOCK + (size_t)j) * (size_t)kv->v_dim;
        for (int i = 0; i < width; i += 8) {
            float32x4x2_t x = widen_8(TYPE, v, at + (size_t)i, MAX(MIN(kv->v_dim - i, 8), 0));
            if (TYPE == KG_KV_Q8_0 && i < kv->v_dim) {
                const float s = scale[j * kv->v_groups + i / KV_GROUP];
                x.val[0] = vmulq_n_f32(x.val[0], s);
                x.val[1] = vmulq_n_f32(x.val[1], s);
            }
            vst1q_f32(dst + j * width + i, x.val[0]);
            vst1q_f32(dst + j * width + i + 4, x.val[1]);
        }
    }
}

static void widen_v(const struct cpu_kv_layout *kv, const uint8_t *block, int head, int n, int width, float *dst)
{
    switch (kv->type) {
    case KG_KV_F16: widen_v_as(KG_KV_F16, kv, block, head, n, width, dst); break;
    case KG_KV_F32: widen_v_as(KG_KV_F32, kv, block, head, n, width, dst); break;
    case KG_KV_Q8_0: widen_v_as(KG_KV_Q8_0, kv, block, head, n, width, dst); break;
    }
}

/* ---- sums of R rows over COLS lanes: c[r] += sum_i x[r][i] w[i] ---- */

struct pass {
    const float *x[ROWS]; /* [n] each */
    float *c[ROWS];       /* [COLS] each */
    const float *w;       /* [n][stride] */
    int n, stride;
};

NEON_INLINE void add_products(const struct pass *a, const int R)
{
    float32x4_t c[ROWS][COLS / 4];
    UNROLL(6)
    for (int r = 0; r < R; r++)
        UNROLL(4)
        for (int j = 0; j < COLS / 4; j++) c[r][j] = vld1q_f32(a->c[r] + 4 * j);
    const float *w = a->w, *x[ROWS];
    UNROLL(6)
    for (int r = 0; r < R; r++) x[r] = a->x[r];
    for (int i = 0; i < a->n; i++, w += a->stride) {
        float32x4_t b[COLS / 4];
        UNROLL(4)
        for (int j = 0; j < COLS / 4; j++) b[j] = vld1q_f32(w + 4 * j);
        UNROLL(6)
        for (int r = 0; r < R; r++)
            UNROLL(4)
            for (int j = 0; j < COLS / 4; j++) c[r][j] = vfmaq_n_f32(c[r][j], b[j], x[r][i]);
    }
    UNROLL(6)
    for (int r = 0; r < R; r++)
        UNROLL(4)
        for (int j = 0; j < COLS / 4; j++) vst1q_f32(a->c[r] + 4 * j, c[r][j]);
}

static void add_products_any(const struct pass *a, int n_rows)
{
    switch (n_rows) {
    case 1: add_products(a, 1); break;
    case 2: add_products(a, 2); break;
    case 3: add_products(a, 3); break;
    case 4: add_products(a, 4); break;
    case 5: add_products(a, 5); break;
    default: add_products(a, 6); break;
    }
}

/* ---- softmax of one span ---- */

/* As exp_fast of the plain C kernels, for x <= 0; NaN stays NaN. */
NEON_INLINE float32x4_t exp_4(float32x4_t x)
{
    x = vmaxq_f32(x, vdupq_n_f32(-87.0f));
    const float32x4_t n = vrndnq_f32(vmulq_n_f32(x, 1.44269504f));
    float32x4_t r = vfmsq_n_f32(x, n, 0.693359375f), p = vdupq_n_f32(1.9875691500e-4f);
    r = vfmaq_n_f32(r, n, 2.12194440e-4f);
    p = vfmaq_f32(vdupq_n_f32(1.3981999507e-3f), p, r);
    p = vfmaq_f32(vdupq_n_f32(8.3334519073e-3f), p, r);
    p = vfmaq_f32(vdupq_n_f32(4.1665795894e-2f), p, r);
    p = vfmaq_f32(vdupq_n_f32(1.6666665459e-1f), p, r);
    p = vfmaq_f32(vdupq_n_f32(5.0000001201e-1f), p, r);
    p = vfmaq_f32(vaddq_f32(r, vdupq_n_f32(1.0f)), p, vmulq_f32(r, r));
    return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(p), vshlq_n_s32(vcvtq_s32_f32(n), 23)));
}

/* p[0..SPAN): sums of products -> weights; n of them count, the others become 0. sums [width] fade with the maximum. */
static void softmax_span(float *p, int n, float scale, float *top, float *sum, float *sums, int width)
{
    const int32x4_t lanes = {0, 1, 2, 3};
    float32x4_t best = vdupq_n_f32(-INFINITY);
    for (int j = 0; j < n; j += 4) {
        const uint32x4_t counts = vcltq_s32(lanes, vdupq_n_s32(n - j));
        const float32x4_t s = vbslq_f32(counts, vmulq_n_f32(vld1q_f32(p + j), scale), vdupq_n_f32(-INFINITY));
        vst1q_f32(p + j, s);
        best = vmaxnmq_f32(best, s);
    }
    const float m = fmaxf(*top, vmaxnmvq_f32(best));
    if (m > *top && *sum > 0) {
        const float fade = vgetq_lane_f32(exp_4(vdupq_n_f32(*top - m)), 0);
        *sum *= fade;
        for (int i = 0; i < width; i += 4) vst1q_f32(sums + i, vmulq_n_f32(vld1q_f32(sums + i), fade));
    }
    *top = m;
    float32x4_t total = vdupq_n_f32(0);
    for (int j = 0; j < SPAN; j += 4) {
        float32x4_t e = vdupq_n_f32(0);
        if (j < n) {
            const uint32x4_t counts = vcltq_s32(lanes, vdupq_n_s32(n - j));
            e = vreinterpretq_f32_u32(vandq_u32(counts, vreinterpretq_u32_f32(exp_4(vsubq_f32(vld1q_f32(p + j), vdupq_n_f32(m))))));
        }
        total = vaddq_f32(total, e);
        vst1q_f32(p + j, e);
    }
    *sum += vaddvq_f32(total);
}

/* ---- a job ---- */

/* Rows [r0, r1) against the widened block of positions from span0 + at on: scores into p, or values into the sums. */
static void multiply_rows(const struct cpu_attend *a, struct scratch *s, int r0, int r1, int at, int n_pos, bool values)
{
    const int cols = values ? s->width : KV_BLOCK;
    for (int i = 0; i < cols; i += COLS) {
        struct pass x = {.w = s->wide + i, .stride = cols, .n = values ? n_pos : a->kv->k_dim};
        for (int r = r0; r < r1; r++) {
            float *p = s->p + r * SPAN + at;
            x.x[r - r0] = values ? p : s->rows.q[r];
            x.c[r - r0] = values ? s->sums + r * s->width + i : p + i;
        }
        add_products_any(&x, r1 - r0);
    }
}

/* All rows that see the block, in parts of about the same size. */
static void multiply_block(const struct cpu_attend *a, struct scratch *s, int pos, int at, int n_pos, bool values)
{
    const int first = first_row(&s->rows, pos), n = end_row(&s->rows, pos + KV_BLOCK) - first, parts = (n + ROWS - 1) / ROWS;
    for (int i = 0; i < parts; i++) multiply_rows(a, s, first + n * i / parts, first + n * (i + 1) / parts, at, n_pos, values);
}

static void attend_span(const struct cpu_attend *a, struct scratch *s, int span0)
{
    struct rows *r = &s->rows;
    const int end = MIN(span0 + SPAN, r->n_pos[r->n - 1]), begin = MAX(span0, r->from[0] / KV_BLOCK * KV_BLOCK);
    memset(s->p, 0, (size_t)r->n * SPAN * sizeof *s->p);
    for (int pos = begin; pos < end; pos += KV_BLOCK) {
        widen_k(a->kv, a->blocks[pos / KV_BLOCK], a->kv_head, s->wide);
        multiply_block(a, s, pos, pos - span0, KV_BLOCK, false);
    }
    for (int i = first_row(r, span0), after = end_row(r, span0 + SPAN); i < after; i++) {
        const int n_pos = MIN(r->n_pos[i] - span0, SPAN);
        float *p = s->p + i * SPAN, scale = a->scale;
        if (a->softcap > 0 || a->slopes) { /* these want scaled scores */
            for (int j = 0; j < n_pos; j++) p[j] *= scale;
            scale = 1;
        }
        adjust_row(a, r, i, p, n_pos, span0);
        softmax_span(p, n_pos, scale, &r->top[i], &r->sum[i], s->sums + i * s->width, s->width);
        drop_gone(r, i, p, span0);
    }
    for (int pos = begin; pos < end; pos += KV_BLOCK) {
        const int n_pos = MIN(KV_BLOCK, end - pos);
        widen_v(a->kv, a->blocks[pos / KV_BLOCK], a->kv_head, n_pos, s->width, s->wide);
        multiply_block(a, s, pos, pos - span0, n_pos, true);
    }
}

static void attend_rows(const struct cpu_attend *a)
{
    struct scratch *s = (struct scratch *)(void *)a->scratch;
    struct rows *r = &s->rows;
    list_rows(a, r);
    s->width = ROUND_UP(a->kv->v_dim, COLS);
    s->p = s->wide + wide_floats(a->kv->k_dim, a->kv->v_dim);
    s->sums = s->p + r->n * SPAN;
    memset(s->sums, 0, (size_t)(r->n * s->width) * sizeof *s->sums);
    for (int span0 = r->from[0] / SPAN * SPAN; span0 < r->n_pos[r->n - 1]; span0 += SPAN) attend_span(a, s, span0);
    for (int i = 0; i < r->n; i++) {
        const float inv = 1.0f / r->sum[i];
        for (int j = 0; j < a->kv->v_dim; j++) r->out[i][j] = s->sums[i * s->width + j] * inv;
    }
}

void neon_attend(const struct cpu_attend *a) { attend_in_parts(a, attend_rows); }
