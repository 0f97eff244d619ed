/* Mixtures of experts: the choice, products with the matrices of the chosen experts, their sum; and heads with a matrix each, which are products
 * without a choice. Which experts are chosen stays on the device: launches depend on the number of tokens alone. */
#include "backend/gpu/gpu_run.h"

#include <stdio.h>

/* ---- what it needs ---- */

static int64_t n_in(const struct gpu_step *s) { return s->weight->parts[0]->ne[0]; }
static bool same_for_all(const struct gpu *g, const struct gpu_step *s) { return g->regs[s->src].width == n_in(s) && s->first->src[1] >= 0; }
static bool as_int8(const struct gpu *g, const struct gpu_step *s) { return s->weight->pack->code <= 8 && g->params.activations == KG_ACT_INT8; }

kg_status gpu_expert_kernels(struct gpu *g, struct gpu_weight *w)
{
    char module[64], name[64];
    snprintf(module, sizeof module, "experts_%s", w->pack->name);
    snprintf(name, sizeof name, "mx_f32_%s", w->pack->name);
    KG_TRY(g->device->kernel(g->dev, module, name, &w->mx_f32));
    snprintf(name, sizeof name, "mx_i8_%s", w->pack->name);
    if (w->pack->code <= 8) KG_TRY(g->device->kernel(g->dev, module, name, &w->mx_i8));
    snprintf(name, sizeof name, "mg_f16_%s", w->pack->name);
    return w->pack->code == 32 ? KG_OK : g->device->kernel(g->dev, module, name, &w->mg_f16);
}

/* Words of the order of n rows: see SortP. */
static uint most_tiles(uint n, uint n_experts) { return MIN(n, n_experts) + n / EXPERT_TILE; }
static SortP sort_params(const struct gpu_step *s, uint n)
{
    SortP p = {.n = n, .used = (uint)s->first->n_used, .n_experts = (uint)s->first->w->ne[2], .tiles_at = n};
    p.first_at = p.tiles_at + 1 + 3 * most_tiles(n, p.n_experts);
    return p;
}

kg_status gpu_expert_memory(struct gpu *g)
{
    size_t acts = 0, rows = 0, most = 0, words = 0, batch = (size_t)g->params.max_batch;
    for (int i = 0; i < g->n_steps; i++) {
        const struct gpu_step *s = &g->steps[i];
        if (s->code != STEP_EXPERTS) continue;
        const size_t n = same_for_all(g, s) ? batch : batch * (size_t)s->first->n_used, units = s->weight->row.n_units;
        acts = MAX(acts, n * units * 64); /* as halves; as int8 40 bytes a unit and their padding */
        most = MAX(most, n);
        if (s->first->src[1] >= 0) {
            const SortP p = sort_params(s, (uint)(batch * (size_t)s->first->n_used));
            words = MAX(words, (size_t)p.first_at + p.n_experts + 1);
        }
        if (n_in(s) % 32) rows = MAX(rows, n * units * 128);
    }
    if (!acts) return KG_OK;
    KG_TRY(gpu_buffer(g, &g->expert_acts, acts));
    KG_TRY(gpu_buffer(g, &g->expert_scale, most * sizeof(float)));
    KG_TRY(gpu_buffer(g, &g->expert_order, words * sizeof(uint32_t)));
    return rows ? gpu_buffer(g, &g->expert_rows, rows) : KG_OK;
}

/* ---- launches ---- */

kg_status gpu_run_route(struct gpu_run *r, const struct gpu_step *s)
{
    struct gpu *g = r->g;
    r->sorted = -1;
    const struct gpu_reg *x = &g->regs[s->src], *y = &g->regs[s->dst[0]];
    const struct route *route = &s->op->route;
    RouteP p = {.n = (uint)x->width, .n_used = (uint)route->n_used, .stride = (uint)x->stride, .out_stride = (uint)y->stride, .sigmoid = route->sigmoid, .normed = route->normed,
                .has_bias = s->bias != NULL, .has_factors = s->op->w != NULL, .n_groups = (uint)route->n_groups, .n_groups_used = (uint)route->n_groups_used, .group_by_one = route->group_by_one, .scale = (float)route->scale, .eps = (float)route->eps};
    return LAUNCH(g, g->route, r->n, 1, 32, p, x->buffer, s->bias, s->norm_w, y->buffer);
}

/* The rows that the matrices meet, as f32 rows of *stride floats: where they are, if they begin and end where rows of units do. */
static kg_status float_rows(const struct gpu_run *r, const struct gpu_step *s, unsigned n, void **rows, uint *stride)
{
    struct gpu *g = r->g;
    const struct gpu_reg *x = &g->regs[s->src];
    const bool same = same_for_all(g, s);
    *rows = x->buffer;
    *stride = same ? (uint)x->stride : (uint)n_in(s);
    if (same || n_in(s) % 32 == 0) return KG_OK;
    RowsP p = {.used = (uint)s->first->n_used, .n_in = (uint)n_in(s), .stride = (uint)x->stride, .out_stride = s->weight->row.n_units * 32};
    *rows = g->expert_rows;
    *stride = p.out_stride;
    return LAUNCH(g, g->pad_rows, n, 1, row_threads(p.out_stride, 256), p, x->buffer, g->expert_rows);
}

/* What prepares rows of x_stride floats; only rows that are the token's own have a norm. */
static NormP acts_params(const struct gpu *g, const struct gpu_step *s, uint x_stride, uint out_stride)
{
    if (s->norm) return gpu_norm_params(g, s, out_stride);
    return (NormP){.width = (uint)n_in(s), .stride = x_stride, .out_stride = out_stride, .n_units = s->weight->row.n_units};
}

/* Prompts: rows in the order of their experts, in tiles on matrix operations. */
static kg_status run_grouped(struct gpu_run *r, const struct gpu_step *s, ExpertP p, void *x, unsigned n_rows)
{
    struct gpu *g = r->g;
    const struct gpu_weight *w = s->weight;
    const int route = s->first->src[1];
    SortP order = sort_params(s, p.n);
    order.stride = p.route_stride;
    p.tiles_at = order.tiles_at;
    if (route >= 0 && r->sorted != route) {
        KG_TRY(LAUNCH(g, g->sort_experts, order.n_experts, 1, 256, order, g->regs[route].buffer, g->expert_order));
        KG_TRY(LAUNCH(g, g->tile_experts, 1, 1, 256, order, g->expert_order));
        r->sorted = route;
    }
    const NormP np = acts_params(g, s, p.x_stride, w->row.n_units * 32);
    KG_TRY(LAUNCH(g, g->act_f16, n_rows, 1, row_threads(np.n_units * 8, (unsigned)g->info.matvec_waves * 32), np, x, s->norm_w, s->norm_b, g->expert_acts, g->expert_scale));
    p.x_stride = np.out_stride;
    const unsigned tiles = p.all ? p.used * ceil_div((unsigned)r->n, EXPERT_TILE) : most_tiles(p.n, order.n_experts);
    return LAUNCH(g, w->mg_f16, ceil_div(p.rows, 64), tiles, 256, p, w->buffer, g->expert_acts, g->expert_scale, g->expert_order, s->bias, g->regs[s->dst[0]].buffer);
}

kg_status gpu_run_experts(struct gpu_run *r, const struct gpu_step *s)
{
    struct gpu *g = r->g;
    const struct gpu_weight *w = s->weight;
    const int route = s->first->src[1];
    const bool same = same_for_all(g, s), int8 = as_int8(g, s);
    const unsigned used = (unsigned)s->first->n_used, n = (unsigned)r->n * used, n_rows = same ? (unsigned)r->n : n, waves = MIN(8u, (unsigned)g->info.matvec_waves);
    ExpertP p = {.w = w->row, .rows = (uint)(w->glu ? 2 * w->parts[0]->ne[1] : w->parts[0]->ne[1]), .used = used, .all = route < 0, .same = same, .n = n,
                 .route_stride = route >= 0 ? (uint)g->regs[route].stride : 0, .y_stride = (uint)g->regs[s->dst[0]].stride, .has_bias = s->bias != NULL,
                 .act = (uint)s->activation, .glu = w->glu};
    void *x;
    KG_TRY(float_rows(r, s, n_rows, &x, &p.x_stride));
    const bool few = r->n <= GPU_MV_TOKENS || g->params.deterministic || (!p.all && n < 2 * (unsigned)s->first->w->ne[2]); /* else tiles hardly fill */
    if (!few && gpu_takes_halves(g, s)) return run_grouped(r, s, p, x, n_rows);
    if (int8) {
        const NormP np = acts_params(g, s, p.x_stride, ROUND_UP(w->row.n_units * 40, 16u));
        KG_TRY(LAUNCH(g, g->act_i8, n_rows, 1, row_threads(np.n_units * 8, (unsigned)g->info.matvec_waves * 32), np, x, s->norm_w, s->norm_b, g->expert_acts));
        p.x_stride = np.out_stride;
        x = g->expert_acts;
    } else if (s->norm) {
        p.x_stride = w->row.n_units * 32;
        KG_TRY(gpu_run_norm(r, s, g->normed, (int)p.x_stride));
        x = g->normed;
    }
    return LAUNCH(g, int8 ? w->mx_i8 : w->mx_f32, n, ceil_div(p.rows, 2 * waves), waves * 32, p, w->buffer, x, reg_buffer(g, route), s->bias, g->regs[s->dst[0]].buffer);
}

kg_status gpu_run_combine(const struct gpu_run *r, const struct gpu_step *s)
{
    struct gpu *g = r->g;
    const struct gpu_reg *x = &g->regs[s->src], *route = &g->regs[s->first->src[1]], *y = &g->regs[s->dst[0]];
    CombineP p = {.width = (uint)y->width, .used = (uint)s->first->n_used, .stride = (uint)y->stride, .x_stride = (uint)x->stride, .route_stride = (uint)route->stride,
                  .has_res = s->res >= 0, .res_stride = s->res >= 0 ? (uint)g->regs[s->res].stride : 0};
    const unsigned threads = row_threads(p.width, 256);
    return LAUNCH(g, g->combine, ceil_div(p.width, threads), r->n, threads, p, x->buffer, route->buffer, reg_buffer(g, s->res), y->buffer);
}

kg_status gpu_run_part(const struct gpu_run *r, const struct gpu_step *s)
{
    struct gpu *g = r->g;
    const bool join = s->op->code == OP_JOIN;
    const struct gpu_reg *x = &g->regs[s->op->src[0]], *z = join ? &g->regs[s->op->src[1]] : x, *y = &g->regs[s->op->dst];
    const uint heads = (uint)s->op->part.n_heads;
    PartP p = {.n_heads = heads, .a = (uint)(join ? x->width : y->width) / heads, .b = join ? (uint)z->width / heads : 0, .step = (uint)x->width / heads,
               .first = join ? 0 : (uint)s->op->part.first, .stride = (uint)y->stride, .x_stride = (uint)x->stride, .z_stride = (uint)z->stride};
    const unsigned threads = row_threads((unsigned)y->width, 256);
    return LAUNCH(g, g->part_heads, ceil_div((unsigned)y->width, threads), r->n, threads, p, x->buffer, z->buffer, y->buffer);
}
