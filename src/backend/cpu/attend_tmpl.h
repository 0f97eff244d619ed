/* The course of a job on x86, included at the end of a tier's attention. From the includer: struct scratch, STRIP, the positions that are
 * widened at a time, wide_floats, wide_v, widen_k, widen_v, scores_any, span_top, fade_rows, fade_out, softmax_span, sum_of, add_values_any; for one token ONE_ROWS, the rows that
 * one pass serves, ONE_CASES, LANES, ONE_COLUMNS, the vectors of columns that R rows take at a time, scores_of_rows, add_columns. Sums are
 * kept in the output rows. */

/* Rows [first, after) of the span. A row's largest score and what it leaves of the sums so far are a chain of steps that wait for each other, so
 * those of all rows come first. */
static void softmax_rows(const struct cpu_attend *a, struct rows *r, float (*sums)[LANES], float *p, int span0, int first, int after)
{
    for (int i = first; i < after; i++) {
        const int n_pos = MIN(r->n_pos[i] - span0, SPAN);
        adjust_row(a, r, i, p + i * SPAN, n_pos, span0);
        r->fade[i] = r->top[i];
        r->top[i] = span_top(p + i * SPAN, n_pos, r->top[i]);
    }
    fade_rows(r->fade + first, r->top + first, after - first);
    for (int i = first; i < after; i++) {
        softmax_span(p + i * SPAN, MIN(r->n_pos[i] - span0, SPAN), r->top[i], r->fade[i], sums[i]);
        drop_gone(r, i, p + i * SPAN, span0);
    }
}

static void attend_span(const struct cpu_attend *a, struct scratch *s, float *p, int span0)
{
    struct rows *r = &s->rows;
    float *wide = s->wide;
    const int k_dim = a->kv->k_dim, v_dim = a->kv->v_dim, end = MIN(span0 + SPAN, r->n_pos[r->n - 1]), begin = MAX(span0, r->from[0] / KV_BLOCK * KV_BLOCK);
    for (int pos = begin; pos < end; pos += STRIP) {
        const int n_blocks = (MIN(STRIP, end - pos) + KV_BLOCK - 1) / KV_BLOCK;
        for (int i = 0; i < n_blocks; i++) widen_k(a->kv, a->blocks[pos / KV_BLOCK + i], a->kv_head, wide + i * KV_BLOCK);
        const int first = first_row(r, pos), n = end_row(r, pos + STRIP) - first, parts = (n + ROWS - 1) / ROWS;
        for (int i = 0; i < parts; i++) {
            const int r0 = first + n * i / parts, r1 = first + n * (i + 1) / parts;
            scores_any(r->q + r0, wide, k_dim, n_blocks, a->scale, p + r0 * SPAN + pos - span0, r1 - r0);
        }
    }
    const int first_of_span = first_row(r, span0), after = end_row(r, span0 + SPAN);
    softmax_rows(a, r, s->sums, p, span0, first_of_span, after);
    for (int i = first_of_span; i < after; i++) fade_out(r->out[i], v_dim, r->fade[i]);
    for (int pos = begin; pos < end; pos += STRIP) {
        const int n_pos = MIN(STRIP, end - pos);
        for (int i = 0; i < n_pos; i += KV_BLOCK) widen_v(a->kv, a->blocks[(pos + i) / KV_BLOCK], a->kv_head, MIN(KV_BLOCK, n_pos - i), wide + i * wide_v(v_dim));
        const int first = first_row(r, pos), n = end_row(r, pos + STRIP) - first, parts = (n + ROWS - 1) / ROWS;
        for (int i = 0; i < parts; i++) {
            const int r0 = first + n * i / parts, r1 = first + n * (i + 1) / parts;
            add_values_any(r->out + r0, wide, v_dim, p + r0 * SPAN + pos - span0, n_pos, r1 - r0);
        }
    }
}

/* ---- one token: few rows share what is widened, so it goes straight to the sums ---- */

#define TYPE_CASES(CALL)                                \
    switch (kv->type) {                                 \
    case KG_KV_F16: ONE_CASES(CALL, KG_KV_F16) break;   \
    case KG_KV_F32: ONE_CASES(CALL, KG_KV_F32) break;   \
    case KG_KV_Q8_0: ONE_CASES(CALL, KG_KV_Q8_0) break; \
    }

/* Time goes to reading the cache, of which a head's part of a block is a run of its own, too short for the processor to guess what
 * follows. So keys ask for the values of their block, and values for the keys of the next span. */
static void scores_of_one(const struct cpu_kv_layout *kv, const uint8_t *block, int head, const float *q, float scale, float *p, int n_rows, bool asks)
{
    const struct run k = keys_of(kv, block, head), v = values_of(kv, block, head);
    const int lines = asks ? lines_a_step(&v, kv->k_dim) : 0;
    if (asks) ask_scales(kv, &v, kv->v_groups);
#define CALL(TYPE, R) scores_of_rows(&k, q, kv->k_dim, scale, p, v.p, lines, TYPE, R)
    TYPE_CASES(CALL)
#undef CALL
}

/* Of n positions; meanwhile the keys of the n_ask blocks behind the span are asked for, a part of each by every pass over the span. */
static inline __attribute__((always_inline)) void add_values_of_rows(const struct cpu_kv_layout *kv, uint8_t *const *blocks, int head, float *out,
                                                                     const float *fade, const float *p, int n, int n_ask, kg_kv_type TYPE, const int R)
{
    const int v_dim = kv->v_dim, wide = LANES * ONE_COLUMNS(R), n_passes = v_dim / wide + (v_dim % wide + LANES - 1) / LANES;
    const struct run k = keys_of(kv, blocks[0], head);
    const int lines = n_ask > 0 ? lines_a_step(&k, KV_BLOCK * n_passes) : 0;
    const uint8_t *ask[SPAN_BLOCKS] = {NULL};
    for (int b = 0; b < n_ask; b++) {
        const struct run next = keys_of(kv, blocks[b + SPAN_BLOCKS], head);
        ask[b] = next.p;
        ask_scales(kv, &next, kv->k_groups);
    }
    int i = 0;
    for (; v_dim - i >= wide; i += wide) add_columns(kv, blocks, head, out, fade, p, n, i, ask, lines, TYPE, R, ONE_COLUMNS(R));
    for (; v_dim > i; i += LANES) add_columns(kv, blocks, head, out, fade, p, n, i, ask, lines, TYPE, R, 1);
}

static void add_values_of_one(const struct cpu_kv_layout *kv, uint8_t *const *blocks, int head, float *out, const float *fade, const float *p, int n, int n_rows, int n_ask)
{
#define CALL(TYPE, R) add_values_of_rows(kv, blocks, head, out, fade, p, n, n_ask, TYPE, R)
    TYPE_CASES(CALL)
#undef CALL
}

static void attend_span_of_one(const struct cpu_attend *a, struct scratch *s, float *p, int span0)
{
    struct rows *r = &s->rows;
    const int n_pos = r->n_pos[0], parts = (r->n + ONE_ROWS - 1) / ONE_ROWS;
    const int begin = MAX(span0, r->from[0] / KV_BLOCK * KV_BLOCK), end = MIN(span0 + SPAN, n_pos);
    for (int pos = begin; pos < end; pos += KV_BLOCK) {
        const uint8_t *block = a->blocks[pos / KV_BLOCK];
        for (int i = 0; i < parts; i++) {
            const int r0 = r->n * i / parts, r1 = r->n * (i + 1) / parts;
            scores_of_one(a->kv, block, a->kv_head, r->q[r0], a->scale, p + r0 * SPAN + pos - span0, r1 - r0, i == 0);
        }
    }
    softmax_rows(a, r, s->sums, p, span0, 0, r->n);
    const int n_ask = MAX(0, MIN((n_pos - begin + KV_BLOCK - 1) / KV_BLOCK - SPAN_BLOCKS, SPAN_BLOCKS));
    for (int i = 0; i < parts; i++) {
        const int r0 = r->n * i / parts, r1 = r->n * (i + 1) / parts;
        add_values_of_one(a->kv, a->blocks + begin / KV_BLOCK, a->kv_head, r->out[r0], r->fade + r0, p + r0 * SPAN + begin - span0, end - begin, r1 - r0, i == 0 ? n_ask : 0);
    }
}

static void attend_rows(const struct cpu_attend *a)
{
    struct scratch *s = (struct scratch *)a->scratch;
    struct rows *r = &s->rows;
    float *p = s->wide + wide_floats(a->kv->k_dim, a->kv->v_dim);
    list_rows(a, r);
    memset(s->sums, 0, (size_t)r->n * sizeof s->sums[0]);
    for (int i = 0; i < r->n; i++) s->sums[i][0] = r->sum[i];
    for (int span0 = r->from[0] / SPAN * SPAN; span0 < r->n_pos[r->n - 1]; span0 += SPAN) {
        if (a->n_tokens == 1) attend_span_of_one(a, s, p, span0);
        else attend_span(a, s, p, span0);
    }
    for (int i = 0; i < r->n; i++) {
        const float inv = 1.0f / sum_of(s->sums[i]);
        for (int j = 0; j < a->kv->v_dim; j++) r->out[i][j] *= inv;
    }
}
