/* Matmuls of many tokens where the device has a library for them: weights become halves, in memory that all matmuls share, a slice of rows at a
 * time (halves in the file go as they are; on a device with room to spare all stay, from the first prompt on), the library multiplies, and one kernel does what is left of the matmul and makes the token ready for
 * the next. Matmuls that read the same activations are one product. */
#include "backend/gpu/gpu_run.h"

enum { SLICE_BYTES = 256 << 20 }; /* of weights as halves */

bool gpu_takes_halves(const struct gpu *g, const struct gpu_step *s)
{
    const int code = s->weight->pack->code;
    /* Plain numbers with an f32 cache: as halves, activations turn choices between tokens whose logits differ by 2e-5. */
    return g->params.activations == KG_ACT_INT8 && code != 32 && !(code > 8 && g->params.kv_type == KG_KV_F32);
}

static bool is_plain(const struct gpu_weight *w) { return w->pack->code == 16; }
/* Halves are in the order of the planes of packed weights. */
static bool by_planes(const struct gpu_weight *w) { return !(is_plain(w) && w->as_file); }
static size_t half_row(const struct gpu_weight *w) { return (size_t)w->row.n_units * 64; }
static int64_t slice_rows(const struct gpu_weight *w) { return MIN(w->rows, MAX((int64_t)((size_t)SLICE_BYTES / half_row(w)) / 64, 1) * 64); }

kg_status gpu_product_memory(struct gpu *g)
{
    size_t halves = 0, sums = 0, whole = 0;
    if (!g->info.gemm) return KG_OK;
    for (int i = 0; i < g->n_steps; i++) {
        const struct gpu_step *s = &g->steps[i];
        if (s->code != STEP_MATMUL || !gpu_takes_halves(g, s)) continue;
        size_t rows = (size_t)slice_rows(s->weight), all = 0;
        for (int k = i; k < g->n_steps && (k == i || g->steps[k].same_acts); k++) all += (size_t)g->steps[k].weight->rows;
        if (all * half_row(s->weight) <= SLICE_BYTES) rows = MAX(rows, all);
        halves = MAX(halves, is_plain(s->weight) ? 0 : rows * half_row(s->weight));
        whole += is_plain(s->weight) || rows < (size_t)s->weight->rows ? 0 : (size_t)s->weight->rows * half_row(s->weight);
        sums = MAX(sums, rows * (size_t)g->params.max_batch * sizeof(float));
    }
    if (!sums) return KG_OK;
    g->keeps_halves = whole <= g->info.memory / 4;
    KG_TRY(gpu_buffer(g, &g->halves, MAX(halves, (size_t)64)));
    KG_TRY(gpu_buffer(g, &g->next_scale, (size_t)g->params.max_batch * sizeof(float)));
    return gpu_buffer(g, &g->sums, sums);
}

/* The step's halves are prepared by the step before it: it is the only matmul behind, and reads what that one writes. */
static const struct gpu_step *next_of(const struct gpu_run *r, const struct gpu_step *s)
{
    const struct gpu *g = r->g;
    const struct gpu_step *next = s + 1;
    if (next >= g->steps + g->n_steps || next->code != STEP_MATMUL || next->adapter != s->adapter || next->same_acts || next->src != s->dst[0] || s->dst[1] >= 0) return NULL;
    return gpu_takes_halves(g, next) ? next : NULL;
}

/* Rows row0.. of step s are columns col0.. of the sums. */
static kg_status end_product(struct gpu_run *r, const struct gpu_step *s, const MatP *p, int64_t row0, int64_t rows, int64_t col0, int64_t sums_stride, const struct gpu_step *next)
{
    struct gpu *g = r->g;
    EndP e = {.m = *p, .row0 = (uint)row0, .rows = (uint)rows, .col0 = (uint)col0, .sums_stride = (uint)sums_stride};
    if (next) {
        e.next = gpu_norm_params(g, next, next->weight->row.n_units * 32);
        e.next.planes = by_planes(next->weight);
    }
    unsigned threads = row_threads((unsigned)rows / (p->glu ? 2 : 1), (unsigned)g->info.matvec_waves * 32);
    KG_TRY(LAUNCH(g, g->mm_end, r->n, 1, threads, e, g->sums, g->act_scale, s->bias, reg_buffer(g, s->res), reg_buffer(g, s->dst[0]), reg_buffer(g, s->dst[1]),
                  reg_buffer(g, s->dst[2]), next ? next->norm_w : NULL, next ? next->norm_b : NULL, g->acts, g->next_scale));
    if (next) {
        r->acts_ready = true;
        void *t = g->act_scale;
        g->act_scale = g->next_scale;
        g->next_scale = t;
    }
    return KG_OK;
}

static kg_status decode(struct gpu_run *r, const struct gpu_weight *w, int64_t row0, int64_t rows, void *to, int64_t to_row)
{
    struct gpu *g = r->g;
    HalvesP h = {.w = w->row, .row0 = (uint)row0, .rows = (uint)rows, .to = (uint)to_row};
    const unsigned threads = MIN(256u, (unsigned)g->info.matvec_waves * 32);
    return LAUNCH(g, w->halves, ceil_div(h.rows * w->row.n_units, threads), 1, threads, h, w->buffer, to);
}

/* Room for the halves of n steps' weights that stay. What the device refuses is decoded each time, as before. */
static void keep(struct gpu *g, struct gpu_weight *w, int64_t rows)
{
    if (!g->keeps_halves || w->kept) return;
    if (gpu_buffer(g, &w->kept, (size_t)rows * half_row(w)) != KG_OK) g->keeps_halves = false;
}

static kg_status multiply(struct gpu_run *r, const struct gpu_weight *w, const void *halves, int64_t row0, int64_t rows)
{
    struct gpu *g = r->g;
    const int units = (int)w->row.n_units;
    struct gpu_gemm m = {.w = is_plain(w) ? w->buffer : halves, .x = g->acts, .y = g->sums, .rows = (int)rows, .n = r->n, .n_in = units * 32, .w_ld = units * 32, .x_ld = units * 32, .y_ld = (int)rows};
    if (is_plain(w)) {
        m.w_offset = (size_t)row0 * w->row.row_bytes;
        m.w_ld = (int)w->row.row_bytes / 2;
    }
    return g->device->gemm(g->dev, &m);
}

kg_status gpu_product(struct gpu_run *r, const struct gpu_step *s, MatP p)
{
    struct gpu *g = r->g;
    const struct gpu_weight *w = s->weight;
    const uint units = w->row.n_units;
    if (!s->same_acts && !r->acts_ready) {
        NormP np = gpu_norm_params(g, s, units * 32);
        np.planes = by_planes(w);
        KG_TRY(LAUNCH(g, g->act_f16, r->n, 1, row_threads(units * 8, (unsigned)g->info.matvec_waves * 32), np, g->regs[s->src].buffer, s->norm_w, s->norm_b, g->acts, g->act_scale));
    }
    r->acts_ready = false;
    int n = 1;
    int64_t all = w->rows, col = 0, step = slice_rows(w);
    while (!is_plain(w) && s + n < g->steps + g->n_steps && s[n].same_acts && !is_plain(s[n].weight)) all += s[n++].weight->rows;
    if (r->batch->tap || (size_t)all * half_row(w) > SLICE_BYTES) n = 1; /* every step by itself */
    if (n > 1 || (!r->batch->tap && !is_plain(w) && step >= w->rows)) {
        const bool decoded = w->kept;
        if (n == 1) all = w->rows;
        keep(g, s->weight, all);
        for (int k = 0; k < n && !decoded; col += s[k++].weight->rows) KG_TRY(decode(r, s[k].weight, 0, s[k].weight->rows, w->kept ? w->kept : g->halves, col));
        KG_TRY(multiply(r, w, w->kept ? w->kept : g->halves, 0, all));
        col = 0;
        for (int k = 0; k < n; col += s[k++].weight->rows) {
            MatP pk = gpu_mat_params(r, &s[k]);
            KG_TRY(end_product(r, &s[k], &pk, 0, s[k].weight->rows, col, all, n == 1 ? next_of(r, s) : NULL));
        }
        r->taken = n - 1;
        return KG_OK;
    }
    for (int64_t row0 = 0; row0 < w->rows; row0 += step) {
        int64_t rows = MIN(step, w->rows - row0);
        if (!is_plain(w)) KG_TRY(decode(r, w, row0, rows, g->halves, 0));
        KG_TRY(multiply(r, w, g->halves, row0, rows));
        KG_TRY(end_product(r, s, &p, row0, rows, 0, rows, step >= w->rows ? next_of(r, s) : NULL));
    }
    return KG_OK;
}
