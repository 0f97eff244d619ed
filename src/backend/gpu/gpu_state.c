/* The states of sequences, and the operations that go through tokens in order. */
#include "backend/gpu/gpu_run.h"

static size_t state_bytes(const struct gpu *g) { return g->program->n_state * sizeof(float); }
size_t gpu_state_bytes(const void *ctx) { return state_bytes(ctx); }

static kg_status check(const struct gpu *g, int state)
{
    if (state >= 0 && state < g->n_states) return KG_OK;
    return status_set(KG_ERR_ARGUMENT, "%s backend: state %d of %d", g->device->name, state, g->n_states);
}

kg_status gpu_check_states(const struct gpu *g, const struct batch *b)
{
    for (int i = 0; g->program->n_state && i < b->n; i++) KG_TRY(check(g, b->seqs[b->tokens[i].seq].state));
    return KG_OK;
}

kg_status gpu_state_reserve(void *ctx, int n)
{
    struct gpu *g = ctx;
    void *more;
    if (n <= g->n_states || !state_bytes(g)) return KG_OK;
    gpu_forget_recordings(g);
    KG_TRY(g->device->alloc(g->dev, &more, (size_t)n * state_bytes(g)));
    kg_status status = g->states ? g->device->copy(g->dev, more, 0, g->states, 0, (size_t)g->n_states * state_bytes(g)) : KG_OK;
    if (status == KG_OK) status = g->device->sync(g->dev);
    if (status != KG_OK) {
        g->device->free(g->dev, more);
        return status;
    }
    if (g->states) g->device->free(g->dev, g->states);
    g->states = more;
    g->n_states = n;
    return KG_OK;
}

kg_status gpu_state_copy(void *ctx, int dst, int src)
{
    struct gpu *g = ctx;
    KG_TRY(check(g, dst));
    KG_TRY(check(g, src));
    return dst == src ? KG_OK : g->device->copy(g->dev, g->states, (size_t)dst * state_bytes(g), g->states, (size_t)src * state_bytes(g), state_bytes(g));
}

kg_status gpu_state_read(void *ctx, int state, void *out)
{
    struct gpu *g = ctx;
    KG_TRY(check(g, state));
    KG_TRY(g->device->download(g->dev, g->states, (size_t)state * state_bytes(g), out, state_bytes(g)));
    return g->device->sync(g->dev);
}

kg_status gpu_state_write(void *ctx, int state, const void *in)
{
    struct gpu *g = ctx;
    KG_TRY(check(g, state));
    KG_TRY(g->device->upload(g->dev, g->states, (size_t)state * state_bytes(g), in, state_bytes(g)));
    return g->device->sync(g->dev);
}

kg_status gpu_run_state(const struct gpu_run *r, const struct gpu_step *s)
{
    struct gpu *g = r->g;
    const struct op *op = s->op;
    const struct gpu_reg *x = &g->regs[op->src[0]], *y = &g->regs[op->dst], *step = op->src[1] >= 0 ? &g->regs[op->src[1]] : x, *z = op->src[2] >= 0 ? &g->regs[op->src[2]] : x;
    StateP p = {.n = (uint)r->n, .all = (uint)g->program->n_state, .at = (uint)op->state, .x_stride = (uint)x->stride, .y_stride = (uint)y->stride,
                .step_stride = (uint)step->stride, .z_stride = (uint)z->stride, .has_b = op->b != NULL};
    const unsigned threads = row_threads((unsigned)y->width, MIN(128u, (unsigned)g->info.matvec_waves * 32)), groups = ceil_div((unsigned)y->width, threads);
    if (op->code == OP_CONV) {
        p.n_heads = (uint)y->width;
        p.dim = (uint)op->w->ne[0];
        return LAUNCH(g, g->state_conv, groups, 1, threads, p, g->batch, g->states, s->norm_w, s->bias, x->buffer, y->buffer);
    }
    if (op->code == OP_SCAN) {
        p.n_heads = (uint)op->scan.n_heads;
        p.dim = (uint)op->scan.head_dim;
        p.n_groups = (uint)op->scan.n_groups;
        p.n_state = (uint)op->scan.n_state;
        p.one = op->w->ne[0] == 1;
        return LAUNCH(g, g->state_scan, groups, 1, threads, p, g->batch, g->states, s->norm_w, s->bias, x->buffer, step->buffer, z->buffer, y->buffer);
    }
    if (op->code == OP_WKV) {
        p.n_heads = (uint)op->wkv.n_heads;
        p.dim = (uint)op->wkv.head_dim;
        p.eps = (float)op->wkv.eps;
        return LAUNCH(g, g->state_wkv, p.n_heads, 1, row_threads(p.dim, 256), p, g->batch, g->states, s->norm_w, x->buffer, step->buffer, z->buffer, y->buffer);
    }
    p.n_heads = (uint)op->delta.n_heads;
    p.dim = (uint)op->delta.v_dim;
    p.n_groups = (uint)op->delta.n_k_heads;
    p.n_state = (uint)op->delta.k_dim;
    p.eps = (float)op->delta.eps;
    p.one = op->delta.tiled;
    return LAUNCH(g, g->state_delta, p.n_heads, 1, row_threads(p.dim, 256), p, g->batch, g->states, s->norm_w, s->bias, x->buffer, step->buffer, y->buffer);
}
