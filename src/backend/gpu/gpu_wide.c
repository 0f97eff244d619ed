/* Attention with heads that the kernels for usual ones do not hold: those of latent attention, and of more than 128 elements in an f32 cache. */
#include "backend/gpu/gpu_run.h"

#include <stdio.h>

enum { USUAL_MOST = 256, WIDE_MOST = 1024, WIDE_ROWS = 4 };

bool gpu_is_wide(const struct gpu *g, const struct op *attention)
{
    const struct attention *a = &attention->attention;
    return MAX(a->k_dim, a->v_dim) > (g->params.kv_type == KG_KV_F32 ? USUAL_MOST / 2 : USUAL_MOST);
}
bool gpu_is_wide_rope(const struct op *rope) { return rope->rope.head_dim > USUAL_MOST; }
bool gpu_is_too_wide(const struct op *attention) { return MAX(attention->attention.k_dim, attention->attention.v_dim) > WIDE_MOST; }

kg_status gpu_wide_kernels(struct gpu *g, const char *kv)
{
    const struct {
        const char *name;
        void **kernel;
    } list[] = {{"wide_rope", &g->wide_rope}, {"wide_store", &g->wide_store}, {"wide_attend", &g->wide_attend}, {"wide_merge", &g->wide_merge}};
    char module[64], name[64];
    bool any = false;
    for (int i = 0; i < g->n_steps; i++) {
        const struct gpu_step *s = &g->steps[i];
        any |= (s->code == STEP_ATTEND && gpu_is_wide(g, s->op)) || (s->code == STEP_ROPE && gpu_is_wide_rope(s->op));
    }
    snprintf(module, sizeof module, "wide_%s", kv);
    for (size_t i = 0; any && i < COUNT_OF(list); i++) {
        snprintf(name, sizeof name, "%s_%s", list[i].name, kv);
        KG_TRY(g->device->kernel(g->dev, module, name, list[i].kernel));
    }
    return KG_OK;
}

kg_status gpu_run_wide_rope(const struct gpu_run *r, const struct gpu_step *s, const HeadP *p)
{
    struct gpu *g = r->g;
    return LAUNCH(g, g->wide_rope, ceil_div(p->n_heads * (p->rot_q / 2), 256), r->n, 256, *p, g->batch, s->turns_q, g->regs[s->rope_q->dst].buffer);
}

kg_status gpu_run_wide(const struct gpu_run *r, const struct gpu_step *s, HeadP p)
{
    struct gpu *g = r->g;
    const struct gpu_kv *kv = &g->kv[s->op->attention.kv];
    void *q = g->regs[s->op->src[0]].buffer, *k = g->regs[s->op->src[1]].buffer, *v = g->regs[s->op->src[2]].buffer, *out = g->regs[s->op->dst].buffer;
    const uint gqa = p.n_heads / p.n_kv_heads;
    p.rows = MIN(gqa, (uint)WIDE_ROWS);
    const unsigned threads = MAX(p.lanes, MIN(256u, (unsigned)g->info.attend_waves * 32)), tiles = p.n_kv_heads * ceil_div(gqa, p.rows);
    KG_TRY(LAUNCH(g, g->wide_store, 2 * p.n_kv_heads, r->n, 32, p, g->batch, k, v, kv->k, kv->v, kv->k_scale, kv->v_scale));
    KG_TRY(LAUNCH(g, g->wide_attend, tiles, (unsigned)r->n * p.splits, threads, p, g->batch, s->turns_q, q, kv->k, kv->v, kv->k_scale, kv->v_scale, out, g->part));
    return p.splits == 1 ? KG_OK : LAUNCH(g, g->wide_merge, p.n_heads, r->n, row_threads(p.v_dim, 256), p, g->part, s->turns_q, out);
}
