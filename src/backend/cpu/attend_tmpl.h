/* The course of a job on x86, included at the end of a tier's attention. From the includer: struct scratch, STRIP, the positions that are
 * widened at a time, wide_floats, wide_v, widen_k, widen_v, scores_any, softmax_span, add_values_any; sums are kept in the output rows. */

static void attend_span(const struct cpu_attend *a, struct rows *r, float *wide, float *p, int span0)
{
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
    for (int i = first_row(r, span0), after = end_row(r, span0 + SPAN); i < after; i++) {
        const int n_pos = MIN(r->n_pos[i] - span0, SPAN);
        adjust_row(a, r, i, p + i * SPAN, n_pos, span0);
        softmax_span(p + i * SPAN, n_pos, &r->top[i], &r->sum[i], r->out[i], v_dim);
        drop_gone(r, i, p + i * SPAN, span0);
    }
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

static void attend_rows(const struct cpu_attend *a)
{
    struct scratch *s = (struct scratch *)a->scratch;
    struct rows *r = &s->rows;
    float *p = s->wide + wide_floats(a->kv->k_dim, a->kv->v_dim);
    list_rows(a, r);
    for (int span0 = r->from[0] / SPAN * SPAN; span0 < r->n_pos[r->n - 1]; span0 += SPAN) attend_span(a, r, s->wide, p, span0);
    for (int i = 0; i < r->n; i++) {
        const float inv = 1.0f / r->sum[i];
        for (int j = 0; j < a->kv->v_dim; j++) r->out[i][j] *= inv;
    }
}

