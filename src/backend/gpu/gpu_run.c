/* One batch: its tokens go to the device in one block, then a launch per step, then the logits come back. A single token's launches are
 * recorded and replayed. */
#include "backend/gpu/gpu_run.h"
#include "backend/gpu/kernels/tune.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- launches ---- */

/* Launches overlap, but not those of the engine's own products of many tokens, from which waiting groups of the next launch would take room. Behind a launch that does not
 * overlap the runs of a recording are slower on CUDA, all of them from then on, unless one that does comes between: bench/NOTES.md. */
static bool overlaps(const struct gpu *g) { return g->few || g->info.gemm; }

kg_status gpu_launch(struct gpu *g, void *kernel, unsigned x, unsigned y, unsigned threads, size_t shared_bytes, const void *params,
                     size_t params_bytes, void *const *buffers, int n_buffers)
{
    struct gpu_launch l = {.kernel = kernel, .grid = {x, y}, .threads = threads, .params = params, .params_bytes = params_bytes, .shared_bytes = shared_bytes, .n_buffers = n_buffers, .overlap = overlaps(g), .few = g->few};
    for (int i = 0; i < n_buffers; i++) l.buffers[i] = buffers[i] ? buffers[i] : g->none;
    return g->device->launch(g->dev, &l);
}

static uint norm_kind(const struct op *norm) { return !norm ? NORM_NONE : norm->code == OP_RMS_NORM ? NORM_RMS : NORM_LAYER; }

NormP gpu_norm_params(const struct gpu *g, const struct gpu_step *s, uint out_stride)
{
    const struct gpu_reg *x = &g->regs[s->code == STEP_NORM ? s->norm->src[0] : s->src];
    return (NormP){.width = (uint)x->width, .stride = (uint)x->stride, .out_stride = out_stride, .n_units = (uint)x->stride / 32, .norm = norm_kind(s->norm),
                   .has_b = s->norm && s->norm->b, .eps = s->norm ? (float)s->norm->eps : 0};
}

static kg_status run_embed(const struct gpu_run *r, const struct gpu_step *s)
{
    struct gpu *g = r->g;
    const struct gpu_reg *y = &g->regs[s->dst[0]];
    EmbedP p = {.w = s->weight->row, .width = (uint)y->width, .stride = (uint)y->stride, .by = s->op->code == OP_EMBED ? BY_ID : s->op->code == OP_POS_EMBED ? BY_POS : BY_NOTHING, .add = s->op->code != OP_EMBED};
    unsigned threads = row_threads((unsigned)y->stride / 4, 256);
    return LAUNCH(g, s->weight->embed, ceil_div((unsigned)y->stride / 4, threads), r->n, threads, p, s->weight->buffer, g->batch,
                  p.add ? g->regs[s->src].buffer : NULL, y->buffer);
}

kg_status gpu_run_norm(const struct gpu_run *r, const struct gpu_step *s, void *out, int out_stride)
{
    struct gpu *g = r->g;
    NormP p = gpu_norm_params(g, s, (uint)out_stride);
    return LAUNCH(g, g->norm, r->n, 1, row_threads(p.stride / 4, (unsigned)g->info.matvec_waves * 32), p,
                  g->regs[s->code == STEP_NORM ? s->norm->src[0] : s->src].buffer, s->norm_w, s->norm_b, out);
}

static kg_status run_norm_heads(const struct gpu_run *r, const struct gpu_step *s)
{
    struct gpu *g = r->g;
    const struct gpu_reg *x = &g->regs[s->op->src[0]], *y = &g->regs[s->op->dst];
    const struct tensor *w = s->op->w;
    const uint width = w ? (uint)w->ne[0] : (uint)x->width;
    HeadNormP p = {.n_heads = (uint)x->width / width, .width = width, .stride = (uint)x->stride, .out_stride = (uint)y->stride, .norm = norm_kind(s->op),
                   .has_w = w != NULL, .has_b = s->op->b != NULL, .own = w && w->ne[1] > 1, .eps = (float)s->op->eps};
    return LAUNCH(g, g->norm_heads, p.n_heads, r->n, row_threads(width, 256), p, x->buffer, s->norm_w, s->norm_b, y->buffer);
}

/* ---- matmul ---- */

MatP gpu_mat_params(const struct gpu_run *r, const struct gpu_step *s)
{
    const struct gpu *g = r->g;
    const struct gpu_weight *w = s->weight;
    const struct gpu_reg *x = &g->regs[s->src];
    MatP p = {.w = w->row, .rows = (uint)w->rows, .n = (uint)r->n, .n_in = (uint)x->width, .x_stride = (uint)x->stride, .norm = norm_kind(s->norm), .has_norm_b = s->norm && s->norm->b,
              .eps = s->norm ? (float)s->norm->eps : 0, .rows0 = (uint)(w->glu ? w->rows / 2 : w->parts[0]->ne[1]),
              .rows1 = (uint)(w->n_parts > 1 && !w->glu ? w->parts[1]->ne[1] : 0), .has_bias = s->bias != NULL, .has_res = s->res >= 0,
              .act = s->act ? (uint)s->activation + 1 : 0, .glu = w->glu};
    p.stride0 = (uint)g->regs[s->dst[0]].stride;
    p.stride1 = s->dst[1] >= 0 ? (uint)g->regs[s->dst[1]].stride : 0;
    p.stride2 = s->dst[2] >= 0 ? (uint)g->regs[s->dst[2]].stride : 0;
    p.res_stride = s->res >= 0 ? (uint)g->regs[s->res].stride : 0;
    return p;
}

/* Few tokens. `rows` are those of a wave at a time. */
static kg_status run_matvec(const struct gpu_run *r, const struct gpu_step *s, MatP *p, void *kernel, void *x, unsigned tokens_at_a_time, unsigned rows, unsigned waves)
{
    struct gpu *g = r->g;
    const unsigned cores = (unsigned)g->info.n_cores;
    unsigned tiles = ceil_div(p->rows, rows * waves);
    p->splits = 1;
    while (p->splits < waves && tiles * p->splits < cores && p->w.n_units >= 64 * p->splits) p->splits *= 2;
    p->n_tiles = ceil_div(p->rows, rows * (waves / p->splits));
    p->n_groups = MIN(p->n_tiles, cores * (unsigned)g->info.mv_groups);
    return LAUNCH(g, kernel, p->n_groups, ceil_div(p->n, tokens_at_a_time), waves * 32, *p, s->weight->buffer, x, s->norm_w, s->norm_b, s->bias,
                  reg_buffer(g, s->res), reg_buffer(g, s->dst[0]), reg_buffer(g, s->dst[1]), reg_buffer(g, s->dst[2]));
}

static kg_status run_tiles(const struct gpu_run *r, const struct gpu_step *s, const MatP *p, bool f16, void *x)
{
    struct gpu *g = r->g;
    return LAUNCH(g, f16 ? s->weight->mm_f16 : s->weight->mm_f32, ceil_div(p->rows, 64), ceil_div(p->n, f16 ? 128 : 32), f16 ? 256 : 128, *p, s->weight->buffer, x,
                  g->act_scale, s->bias, reg_buffer(g, s->res), reg_buffer(g, s->dst[0]), reg_buffer(g, s->dst[1]), reg_buffer(g, s->dst[2]));
}

static kg_status run_matmul(struct gpu_run *r, const struct gpu_step *s)
{
    struct gpu *g = r->g;
    const struct gpu_weight *w = s->weight;
    MatP p = gpu_mat_params(r, s);
    const uint units = p.w.n_units;
    const bool quantized = gpu_is_int8(g, s);
    const unsigned threads = row_threads(units * 8, (unsigned)g->info.matvec_waves * 32);
    void *x = g->regs[s->src].buffer;
    const unsigned waves = (unsigned)g->info.matvec_waves, half = MIN(waves, 8u); /* the kernels with more in registers */
    const bool alone = r->n == 1 && g->info.fuses;
    if (alone && gpu_plan_streams(g, s, &p)) return gpu_run_streams(r, s, &p);
    if (alone && quantized && units <= MV_UNITS) {
        bool tall = p.rows >= 4 * half * (unsigned)(g->info.n_cores * g->info.mv_groups); /* work for all even with four rows each */
        return run_matvec(r, s, &p, tall ? w->mv1r4_i8 : w->mv1_i8, x, 1, tall ? 4 : 2, tall ? half : waves);
    }
    if (alone && !quantized && units <= MV_F32_UNITS) return run_matvec(r, s, &p, w->mv1, x, 1, 2, half);
    const bool few = r->n <= GPU_MV_TOKENS || g->params.deterministic; /* a matvec sums in an order of its own */
    if (few && quantized) {
        NormP np = gpu_norm_params(g, s, ROUND_UP(units * 40, 16u));
        if (!s->same_acts) KG_TRY(LAUNCH(g, g->act_i8, r->n, 1, threads, np, g->regs[s->src].buffer, s->norm_w, s->norm_b, g->acts));
        p.x_stride = np.out_stride;
        return run_matvec(r, s, &p, w->mv4_i8, g->acts, 4, 2, half);
    }
    if (!few && gpu_takes_halves(g, s)) {
        if (g->info.gemm) return gpu_product(r, s, p);
        NormP np = gpu_norm_params(g, s, units * 32);
        if (!s->same_acts) KG_TRY(LAUNCH(g, g->act_f16, r->n, 1, threads, np, g->regs[s->src].buffer, s->norm_w, s->norm_b, g->acts, g->act_scale));
        p.x_stride = np.out_stride;
        return run_tiles(r, s, &p, true, g->acts);
    }
    if (s->norm) {
        if (!s->same_acts) KG_TRY(gpu_run_norm(r, s, g->normed, (int)units * 32));
        x = g->normed;
        p.x_stride = units * 32;
    }
    return few ? run_matvec(r, s, &p, w->mv2, x, 2, 2, half) : run_tiles(r, s, &p, false, x);
}

/* ---- attention ---- */

HeadP gpu_head_params(const struct gpu_run *r, const struct gpu_step *s)
{
    const struct gpu *g = r->g;
    HeadP p = {.n = (uint)r->n, .splits = (uint)r->splits, .rows = 1, .slices = 1, .lanes = 1, .n_kv_heads = 1, .mscale_q = s->mscale_q, .mscale_k = s->mscale_k};
    const struct rope *q = s->rope_q ? &s->rope_q->rope : NULL, *k = s->rope_k ? &s->rope_k->rope : NULL;
    if (q) {
        p.n_heads = (uint)q->n_heads;
        p.k_dim = (uint)q->head_dim;
        p.q_stride = (uint)g->regs[s->rope_q->dst].stride;
        p.rot_q = (uint)q->n_rot;
        p.halves_q = q->style == ROPE_HALVES;
    }
    if (k) {
        p.rot_k = (uint)k->n_rot;
        p.halves_k = k->style == ROPE_HALVES;
    }
    if (s->code != STEP_ATTEND) return p;
    const struct attention *a = &s->op->attention;
    const struct gpu_kv *kv = &g->kv[a->kv];
    p.n_heads = (uint)a->n_heads;
    p.n_kv_heads = (uint)a->n_kv_heads;
    p.k_dim = (uint)a->k_dim;
    p.v_dim = (uint)a->v_dim;
    p.q_stride = (uint)g->regs[s->op->src[0]].stride;
    p.k_stride = (uint)g->regs[s->op->src[1]].stride;
    p.v_stride = (uint)g->regs[s->op->src[2]].stride;
    p.out_stride = (uint)g->regs[s->op->dst].stride;
    p.k_row = kv->k_row;
    p.v_row = kv->v_row;
    p.k_groups = kv->k_groups;
    p.v_groups = kv->v_groups;
    p.scale = (float)a->scale;
    p.window = (uint)a->window;
    p.chunked = a->chunked;
    p.both = a->both;
    p.softcap = (float)a->softcap;
    p.has_slopes = a->alibi != 0;
    p.has_sinks = a->sinks != NULL;
    p.store = 1;
    const uint waves = (uint)g->info.attend_waves, most_waves = 4096 / (p.v_row * kv->v_n);
    p.rows = r->n == 1 ? 1 : MIN(8u, p.n * p.n_heads / p.n_kv_heads); /* one token: few rows, so each has a group */
    if (g->params.deterministic) { /* who sums what must depend on positions alone */
        p.slices = MIN(4u, MIN(waves, most_waves));
        p.rows = MIN(p.rows, MIN(waves, most_waves) / p.slices);
    }
    while (!g->params.deterministic && p.rows * p.slices * 2 <= MIN(waves, 8 * p.rows) && (int)p.slices < r->longest && p.rows * p.slices * 2 <= most_waves) p.slices *= 2;
    p.owner = r->n == 1 && g->info.fuses;
    while (p.lanes < p.v_row) p.lanes *= 2;
    return p;
}

static kg_status run_rope(const struct gpu_run *r, const struct gpu_step *s)
{
    struct gpu *g = r->g;
    HeadP p = gpu_head_params(r, s);
    if (gpu_is_wide_rope(s->op)) return gpu_run_wide_rope(r, s, &p);
    return LAUNCH(g, g->rope, ceil_div(p.n_heads, 4), r->n, 128, p, g->batch, s->turns_q, s->turns_k, g->regs[s->rope_q->dst].buffer, NULL, NULL, NULL, NULL, NULL, NULL);
}

enum { SHORT_TEXT = 512 / KV_BLOCK }; /* blocks */

/* One token's attention on matrix operations; NULL: not for these heads. Behind a short text, that for 128 is slower than attend_one: its registers do not suffice. */
static void *flash_one(const struct gpu_run *r, const HeadP *p)
{
    if (p->k_dim != p->v_dim) return NULL;
    if (p->k_dim == 64) return r->g->flash_one_64;
    return p->k_dim == 128 && r->longest > SHORT_TEXT ? r->g->flash_one_128 : NULL;
}

/* Heads of its groups: behind a short text one, whose group ends sooner; else as many as share a kv head, or an equal part of them, which read it once. */
static uint flash_rows(const struct gpu_run *r, const HeadP *p)
{
    const uint gqa = p->n_heads / p->n_kv_heads;
    uint rows = r->longest <= SHORT_TEXT ? 1 : MIN(MIN(gqa, 8u), FLASH_ONE_MOST / p->k_dim);
    while (rows > 1 && gqa % rows) rows--;
    return MAX(rows, 1u);
}

static kg_status run_attend(struct gpu_run *r, const struct gpu_step *s)
{
    struct gpu *g = r->g;
    const struct gpu_kv *kv = &g->kv[s->op->attention.kv];
    HeadP p = gpu_head_params(r, s);
    if (gpu_is_wide(g, s->op)) return gpu_run_wide(r, s, p);
    void *q = g->regs[s->op->src[0]].buffer, *k = g->regs[s->op->src[1]].buffer, *v = g->regs[s->op->src[2]].buffer, *out = g->regs[s->op->dst].buffer;
    const bool plain = !p.window && p.softcap == 0 && !p.has_slopes && !p.has_sinks;
    const bool one = r->n == 1 && g->attend_one && plain;
    if (one) {
        void *next = NULL, *flash = flash_one(r, &p);
        p.feeds = gpu_feed(r, s, &next);
        if (flash) {
            p.rows = flash_rows(r, &p);
            KG_TRY(LAUNCH(g, flash, p.n_heads / p.rows, r->splits, 256, p, g->batch, s->turns_q, s->turns_k, q, k, v, kv->k, kv->v, out, g->part, next));
        } else
            KG_TRY(LAUNCH(g, g->attend_one, p.n_heads, r->splits, MIN(8u, (unsigned)g->info.attend_waves) * 32, p, g->batch, s->turns_q, s->turns_k, q, k, v, kv->k, kv->v,
                          kv->k_scale, kv->v_scale, out, g->part, next));
        return r->splits == 1 ? KG_OK : LAUNCH(g, g->merge_one, p.n_heads, 1, row_threads(p.v_dim, 256), p, g->part, out, next);
    }
    if (!p.owner) KG_TRY(LAUNCH(g, g->rope, ceil_div(p.n_heads + 2 * p.n_kv_heads, 4), r->n, 128, p, g->batch, s->turns_q, s->turns_k, q, k, v, kv->k, kv->v, kv->k_scale, kv->v_scale));
    unsigned rows = p.n * p.n_heads / p.n_kv_heads;
    void *flash = p.k_dim != p.v_dim || !plain ? NULL : p.k_dim == 64 ? g->flash_64 : p.k_dim == 128 ? g->flash_128 : NULL;
    if (flash && r->n > GPU_MV_TOKENS && r->one_sequence) return LAUNCH(g, flash, p.n_kv_heads * ceil_div(rows, 64), 1, 128, p, g->batch, q, kv->k, kv->v, out);
    KG_TRY(LAUNCH(g, g->attend, p.n_kv_heads * ceil_div(rows, p.rows), r->splits, p.rows * p.slices * 32, p, g->batch, s->turns_q, s->turns_k, q, k, v, kv->k, kv->v, kv->k_scale,
                  kv->v_scale, out, g->part));
    if (r->splits == 1) return KG_OK;
    return LAUNCH(g, g->merge, p.n_heads, r->n, row_threads(p.v_dim, 256), p, g->part, out, s->turns_q);
}

/* ---- the rest ---- */

static kg_status run_map(const struct gpu_run *r, const struct gpu_step *s)
{
    struct gpu *g = r->g;
    const struct gpu_reg *y = &g->regs[s->op->dst];
    const enum op_code code = s->op->code;
    MapP p = {.n = (uint)r->n * (uint)y->stride, .stride = (uint)y->stride};
    if (code == OP_ACT || code == OP_GLU || code == OP_GATE) p.act = (uint)s->op->activation;
    if (code == OP_ACT || code == OP_XIELU) p.gate_stride = (uint)y->width;
    if (code == OP_GATE) p.gate_stride = (uint)g->regs[s->op->src[1]].stride;
    if (s->code == STEP_POS_SCALE) p.act = (uint)s->op->length;
    if (s->code == STEP_POS_SCALE) p.gate_stride = (uint)s->op->first;
    if (s->code == STEP_POS_SCALE) p.value = (float)s->op->value;
    if (s->code == STEP_ADAPT) {
        p.act = r->adapt_at + (uint)((s->op->adapter - 1) * r->batch->n);
        p.gate_stride = r->selected ? r->sel_at + 1 : 0;
        p.value = (float)s->op->value;
    }
    if (s->code == STEP_VALUE) {
        p.act = code == OP_SCALE ? 0 : code == OP_SOFTCAP ? 1 : 2;
        p.value = (float)s->op->value;
    }
    if (s->code == STEP_XIELU) {
        const struct xielu *f = &s->op->xielu;
        p.value = (float)f->above, p.below = (float)f->below, p.linear = (float)f->linear, p.eps = (float)f->eps;
    }
    void *a = g->regs[s->op->src[0]].buffer, *b = reg_buffer(g, s->op->src[1]);
    unsigned threads = MIN(256u, (unsigned)g->info.matvec_waves * 32), groups = ceil_div(p.n, threads);
    if (s->code == STEP_ACT) return LAUNCH(g, g->act, groups, 1, threads, p, a, y->buffer);
    if (s->code == STEP_VALUE) return LAUNCH(g, g->value, groups, 1, threads, p, a, y->buffer);
    if (s->code == STEP_XIELU) return LAUNCH(g, g->xielu, groups, 1, threads, p, a, y->buffer);
    if (s->code == STEP_ADAPT) return LAUNCH(g, g->adapt, groups, 1, threads, p, a, g->batch, y->buffer);
    if (s->code == STEP_LERP) return LAUNCH(g, g->lerp, groups, 1, threads, p, a, b, s->norm_w, y->buffer);
    if (s->code == STEP_POS_SCALE) return LAUNCH(g, g->pos_scale, groups, 1, threads, p, a, g->batch, y->buffer);
    return LAUNCH(g, s->code == STEP_ADD ? g->add : s->code == STEP_GATE ? g->gate : s->code == STEP_MUL ? g->mul : g->glu, groups, 1, threads, p, a, b, y->buffer);
}

/* The registers of a SELECT change their memory: one token selects itself, and nothing reads the source behind it. */
static void move_rows(struct gpu *g, const struct gpu_step *s)
{
    void **a = &g->regs[s->op->src[0]].buffer, **b = &g->regs[s->op->dst].buffer, *was = *a;
    *a = *b;
    *b = was;
}

static kg_status run_select(struct gpu_run *r, const struct gpu_step *s)
{
    struct gpu *g = r->g;
    const struct program *program = g->program;
    const struct gpu_reg *y = &g->regs[s->op->dst];
    SelectP p = {.stride = (uint)y->stride, .sel_at = r->sel_at};
    const bool itself = r->batch->n == 1 && r->n_select == 1 && s->op->dst != program->ops[program->n_ops - 1].src[0]; /* a result is fetched from its own place */
    r->n = r->n_select;
    r->selected = true;
    r->sorted = -1;
    if (itself) {
        move_rows(g, s);
        r->n_moved++;
    }
    if (r->n == 0 || itself) return KG_OK;
    unsigned threads = row_threads((unsigned)y->stride, 256);
    return LAUNCH(g, g->select, ceil_div((unsigned)y->stride, threads), r->n, threads, p, g->batch, g->regs[s->op->src[0]].buffer, y->buffer);
}

static kg_status run_step(struct gpu_run *r, const struct gpu_step *s)
{
    switch (s->code) {
    case STEP_EMBED: return run_embed(r, s);
    case STEP_NORM_HEADS: return run_norm_heads(r, s);
    case STEP_NORM: return gpu_run_norm(r, s, r->g->regs[s->dst[0]].buffer, r->g->regs[s->dst[0]].stride);
    case STEP_MATMUL: return run_matmul(r, s);
    case STEP_ROPE: return run_rope(r, s);
    case STEP_ATTEND: return run_attend(r, s);
    case STEP_ACT:
    case STEP_GLU:
    case STEP_VALUE:
    case STEP_XIELU:
    case STEP_GATE:
    case STEP_MUL:
    case STEP_LERP:
    case STEP_POS_SCALE:
    case STEP_ADAPT:
    case STEP_ADD: return run_map(r, s);
    case STEP_SELECT: return run_select(r, s);
    case STEP_ROUTE: return gpu_run_route(r, s);
    case STEP_EXPERTS: return gpu_run_experts(r, s);
    case STEP_COMBINE: return gpu_run_combine(r, s);
    case STEP_PART: return gpu_run_part(r, s);
    case STEP_STATE: return gpu_run_state(r, s);
    }
    return KG_OK;
}

static kg_status fetch(struct gpu *g, int reg, int n, float *dst) { return gpu_fetch(g, g->regs[reg].buffer, n, g->regs[reg].width, g->regs[reg].stride, dst); }

static kg_status run_each(struct gpu_run *r)
{
    struct gpu *g = r->g;
    for (int i = 0; i < g->n_steps && r->n > 0; i++) {
        const struct gpu_step *s = &g->steps[i];
        if (batch_leaves_out(r->active, s->adapter)) continue;
        r->taken = 0;
        g->few = r->n <= GPU_MV_TOKENS;
        if (r->batch->input) KG_TRY(gpu_show_inputs(r, i));
        KG_TRY(run_step(r, s));
        i += r->taken;
        if (!s->op->tap || !r->batch->tap || r->n == 0) continue;
        KG_TRY(fetch(g, s->op->dst, r->n, g->rows));
        r->batch->tap(r->batch->tap_ctx, s->op, r->n, g->regs[s->op->dst].width, g->rows, NULL);
    }
    return KG_OK;
}

static kg_status run_steps(struct gpu_run *r)
{
    struct gpu *g = r->g;
    kg_status status = run_each(r);
    for (int i = 0; i < g->n_steps && r->n_moved > 0; i++) {
        if (g->steps[i].code != STEP_SELECT) continue;
        move_rows(g, &g->steps[i]);
        r->n_moved--;
    }
    return status == KG_OK && r->batch->n_top > 0 ? gpu_launch_top(r) : status;
}

static struct gpu_recording *find_recording(const struct gpu_run *r)
{
    struct gpu *g = r->g;
    for (int i = 0; i < g->n_recordings; i++)
        if (g->recordings[i].longest == r->longest && g->recordings[i].n_select == r->n_select && g->recordings[i].n_top == r->batch->n_top && g->recordings[i].active == r->active) return &g->recordings[i];
    return NULL;
}

/* A single token: the first time plainly, so that everything is loaded; the second time recorded; then replayed. */
static kg_status run_recorded(struct gpu_run *r)
{
    struct gpu *g = r->g;
    struct gpu_recording *rec = r->recording;
    if (!rec) {
        if (g->n_recordings < GPU_RECORDINGS) g->recordings[g->n_recordings++] = (struct gpu_recording){.longest = r->longest, .n_select = r->n_select, .n_top = r->batch->n_top, .active = r->active};
        return run_steps(r);
    }
    if (!rec->recording) {
        KG_TRY(g->device->record_begin(g->dev));
        kg_status status = run_steps(r), ended = g->device->record_end(g->dev, &rec->recording);
        KG_TRY(status);
        KG_TRY(ended);
    }
    return g->device->record_run(g->dev, rec->recording);
}

/* ---- the batch ---- */

static kg_status check_batch(const struct gpu *g, const struct batch *b)
{
    const struct program *p = g->program;
    if (b->n_top < 0 || b->n_top > GPU_MOST_TOP) return status_set(KG_ERR_ARGUMENT, "%s backend: %d highest logits, it finds %d", g->device->name, b->n_top, GPU_MOST_TOP);
    if (b->n < 1 || b->n > g->params.max_batch)
        return status_set(KG_ERR_ARGUMENT, "%s backend: batch of %d tokens, room for %d", g->device->name, b->n, g->params.max_batch);
    for (int i = 0; i < b->n; i++) {
        const struct batch_token *t = &b->tokens[i];
        if (t->id < 0 || t->id >= p->n_vocab) return status_set(KG_ERR_ARGUMENT, "token id %d is not in the vocabulary of %d", (int)t->id, p->n_vocab);
        if (t->seq < 0 || t->seq >= b->n_seqs) return status_set(KG_ERR_ARGUMENT, "sequence %d of %d", (int)t->seq, b->n_seqs);
        if (t->pos < 0 || (p->ctx_is_hard && t->pos >= p->n_ctx))
            return status_set(KG_ERR_CONTEXT, "position %d is beyond the model's %lld", (int)t->pos, (long long)p->n_ctx);
        if (t->pos / KV_BLOCK >= g->n_blocks) return status_set(KG_ERR_ARGUMENT, "position %d lies beyond the %d KV blocks reserved", (int)t->pos, g->n_blocks);
    }
    return KG_OK;
}

static kg_status hold_words(struct gpu *g, size_t words)
{
    if (words <= g->batch_words) return KG_OK;
    size_t n = MAX(2 * words, (size_t)1024);
    uint32_t *host = realloc(g->batch_host, n * sizeof *host);
    if (host) g->batch_host = host;
    uint32_t *ahead = realloc(g->ahead.words, n * sizeof *ahead);
    if (ahead) g->ahead.words = ahead;
    if (!host || !ahead) return status_set(KG_ERR_MEMORY, "out of memory");
    KG_TRY(g->device->sync(g->dev));
    gpu_forget_recordings(g);
    if (g->batch) g->device->free(g->dev, g->batch);
    g->batch = NULL;
    g->batch_words = 0;
    KG_TRY(g->device->alloc(g->dev, &g->batch, n * sizeof *host));
    g->batch_words = n;
    return KG_OK;
}

/* The block {id, pos, table, state} per token, selected tokens, how strong each adapter is in each token's sequence, tables, before each the number of its positions. Tokens of one sequence share a table; they come in
 * order. */
static kg_status make_block(struct gpu_run *r)
{
    struct gpu *g = r->g;
    const struct batch *b = r->batch;
    size_t n = (size_t)b->n, n_adapters = (size_t)g->program->n_adapters, words = (5 + n_adapters) * n;
    for (int s = 0; s < b->n_seqs; s++) {
        int last = -1;
        for (int i = 0; i < b->n; i++)
            if (b->tokens[i].seq == s) last = MAX(last, b->tokens[i].pos);
        words += (size_t)(last / KV_BLOCK + 2 * (last >= 0));
    }
    KG_TRY(hold_words(g, words));
    uint32_t *w = g->batch_host;
    r->sel_at = (uint)(4 * n);
    r->adapt_at = (uint)(5 * n);
    for (size_t k = 0; k < n_adapters; k++)
        for (int i = 0; i < b->n; i++) w[(5 + k) * n + (size_t)i] = f32_bits((float)batch_strength(b, i, (int)k + 1));
    size_t at = (5 + n_adapters) * n;
    for (int s = 0; s < b->n_seqs; s++) {
        int last = -1;
        for (int i = 0; i < b->n; i++) {
            const struct batch_token *t = &b->tokens[i];
            if (t->seq != s) continue;
            last = MAX(last, t->pos);
            w[4 * i] = (uint32_t)t->id;
            w[4 * i + 1] = (uint32_t)t->pos;
            w[4 * i + 2] = (uint32_t)at + 1;
            w[4 * i + 3] = (uint32_t)b->seqs[s].state;
        }
        if (last >= 0) w[at++] = (uint32_t)last + 1;
        for (int k = 0; last >= 0 && k <= last / KV_BLOCK; k++) {
            int32_t block = b->seqs[s].blocks[k];
            if (block < 0 || block >= g->n_blocks) return status_set(KG_ERR_ARGUMENT, "KV block %d of %d", (int)block, g->n_blocks);
            w[at++] = (uint32_t)block;
        }
    }
    for (int i = 0; i < b->n; i++)
        if (b->tokens[i].want_logits) w[4 * n + (size_t)r->n_select++] = (uint32_t)i;
    r->n_words = at;
    return KG_OK;
}

/* In how many parts the positions are read: enough groups to fill the device, at least two blocks for each wave of a group. */
static void choose_splits(struct gpu_run *r)
{
    const struct gpu *g = r->g;
    const struct batch *b = r->batch;
    int longest = 0, groups = g->program->n_kv ? g->program->kv[0].n_kv_heads * b->n : 1;
    for (int i = 0; i < b->n; i++) longest = MAX(longest, b->tokens[i].pos / KV_BLOCK + 1);
    r->splits = g->params.deterministic ? GPU_FIXED_SPLITS : 1;
    r->longest = 1;
    r->one_sequence = true;
    for (int i = 1; i < b->n; i++) r->one_sequence &= b->tokens[i].seq == b->tokens[0].seq && b->tokens[i].pos == b->tokens[0].pos + i;
    while (!g->params.deterministic && b->n <= GPU_MV_TOKENS && r->splits < GPU_SPLITS && longest > 8 * r->splits && groups * r->splits < 4 * g->info.n_cores) r->splits *= 2;
    while (r->longest < longest) r->longest *= 2; /* a power of two: it chooses the recording */
}

kg_status gpu_run(void *ctx, const struct batch *batch)
{
    struct gpu *g = ctx;
    KG_TRY(check_batch(g, batch));
    KG_TRY(gpu_check_states(g, batch));
    struct gpu_run r = {.g = g, .batch = batch, .n = batch->n, .sorted = -1, .active = batch_adapters(batch, g->program)};
    choose_splits(&r);
    KG_TRY(make_block(&r));
    bool record = g->device->record_run && batch->n == 1 && !batch->tap && !batch->input;
    if (record) r.recording = find_recording(&r);
    if (!gpu_ahead_take(&r)) {
        KG_TRY(g->device->upload(g->dev, g->batch, 0, g->batch_host, r.n_words * sizeof *g->batch_host));
        KG_TRY(record ? run_recorded(&r) : run_steps(&r));
    }
    KG_TRY(gpu_ahead_begin(&r));
    if (r.n_select == 0) return g->device->sync(g->dev);
    return batch->n_top > 0 ? gpu_fetch_top(&r) : fetch(g, g->program->ops[g->program->n_ops - 1].src[0], r.n_select, batch->logits);
}
