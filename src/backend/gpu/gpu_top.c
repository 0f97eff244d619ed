/* The highest logits of a token, so that sampling needs neither all of them from the device nor a search through them. A kernel leaves a few more than asked for in
 * no order; they are sorted here. Where it cannot (several tokens, many equal logits) all come. */
#include "backend/gpu/gpu_run.h"

#include "base/half.h"

#include <math.h>

static int top_threads(const struct gpu *g) { return MIN(1024, g->info.attend_waves * 32); }

static bool by_kernel(const struct gpu_run *r)
{
    return r->n_select == 1 && r->batch->n_top <= top_threads(r->g);
}

static int logits_reg(const struct gpu *g) { return g->program->ops[g->program->n_ops - 1].src[0]; }

kg_status gpu_launch_top(const struct gpu_run *r)
{
    struct gpu *g = r->g;
    if (!by_kernel(r)) return KG_OK;
    const struct gpu_reg *x = &g->regs[logits_reg(g)];
    TopP p = {.n = (uint)x->width, .k = (uint)r->batch->n_top, .tells = gpu_tells(r)};
    return LAUNCH(g, g->top_logits, 1, 1, top_threads(g), p, x->buffer, g->top, g->batch, g->ahead.buffer);
}

static void put(struct batch_top *top, int n, float logit, int32_t id)
{
    if (!isfinite(logit)) return;
    const struct batch_top *last = &top[n - 1];
    if (last->id >= 0 && (last->logit > logit || (last->logit == logit && last->id < id))) return;
    int i = n - 1;
    for (; i > 0 && (top[i - 1].id < 0 || top[i - 1].logit < logit || (top[i - 1].logit == logit && top[i - 1].id > id)); i--) top[i] = top[i - 1];
    top[i] = (struct batch_top){logit, id};
}

/* What the kernel has found, the best first; *many: too many are equal. */
static kg_status fetch_found(struct gpu_run *r, bool *many)
{
    struct gpu *g = r->g;
    uint found[1 + 2 * TOP_ROOM];
    size_t n = 1;
    if (gpu_tells(r)) {
        KG_TRY(gpu_ahead_wait(r, found));
    } else {
        KG_TRY(g->device->download(g->dev, g->top, 0, found, sizeof found));
        KG_TRY(g->device->sync(g->dev));
        n = found[0];
    }
    *many = found[0] > TOP_ROOM;
    for (size_t i = 0; !*many && i < MIN(n, found[0]); i++) put(r->batch->top, r->batch->n_top, f32_from_bits(found[2 + 2 * i]), (int32_t)found[1 + 2 * i]);
    return KG_OK;
}

kg_status gpu_fetch_top(struct gpu_run *r)
{
    struct gpu *g = r->g;
    const struct gpu_reg *x = &g->regs[logits_reg(g)];
    const int k = r->batch->n_top;
    bool many = true;
    for (int i = 0; i < r->n_select * k; i++) r->batch->top[i] = (struct batch_top){0, -1};
    if (by_kernel(r)) KG_TRY(fetch_found(r, &many));
    if (!many) return KG_OK;
    if (g->ahead.begun) { /* the logits are no longer there */
        struct batch again = *r->batch;
        again.goes_on = false;
        gpu_forget_ahead(g);
        return gpu_run(g, &again);
    }
    KG_TRY(gpu_fetch(g, x->buffer, r->n_select, x->width, x->stride, g->rows));
    for (int t = 0; t < r->n_select; t++)
        for (int i = 0; i < x->width; i++) put(r->batch->top + (size_t)t * (size_t)k, k, g->rows[(size_t)t * (size_t)x->width + (size_t)i], i);
    return KG_OK;
}
