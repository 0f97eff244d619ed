/* What the device has computed, for the host to see: rows of registers, and what goes into matrices. */
#include "backend/gpu/gpu_run.h"

#include <stdlib.h>

kg_status gpu_fetch(struct gpu *g, const void *buffer, int n, int width, int stride, float *dst)
{
    const size_t w = (size_t)width, all = (size_t)stride;
    float *to = w == all ? dst : g->rows; /* dst may be g->rows */
    KG_TRY(g->device->download(g->dev, buffer, 0, to, (size_t)n * all * sizeof *to));
    KG_TRY(g->device->sync(g->dev));
    for (size_t t = 0; w != all && t < (size_t)n; t++) memmove(dst + t * w, to + t * all, w * sizeof *dst);
    return KG_OK;
}

/* Matmuls that a step has joined read the same rows. */
static kg_status show(const struct gpu_run *r, const struct gpu_step *s, float *route_rows)
{
    struct gpu *g = r->g;
    const struct gpu_reg *x = &g->regs[s->src];
    const int route = s->code == STEP_EXPERTS ? s->first->src[1] : -1, stride = s->norm ? (int)s->weight->row.n_units * 32 : x->stride;
    struct batch_input in = {.n = r->n, .width = x->width, .f32 = g->rows};
    if (route >= 0) {
        in.route_width = g->regs[route].width;
        in.route_f32 = route_rows;
        KG_TRY(gpu_fetch(g, g->regs[route].buffer, r->n, in.route_width, g->regs[route].stride, g->rows));
        memcpy(route_rows, g->rows, (size_t)r->n * (size_t)in.route_width * sizeof *route_rows);
    }
    if (s->norm) KG_TRY(gpu_run_norm(r, s, g->normed, stride));
    KG_TRY(gpu_fetch(g, s->norm ? g->normed : x->buffer, r->n, x->width, stride, g->rows));
    for (int k = 0; k < s->weight->n_parts; k++) {
        in.op = s->first + k;
        r->batch->input(r->batch->input_ctx, &in);
    }
    return KG_OK;
}

kg_status gpu_show_inputs(const struct gpu_run *r, int i)
{
    const struct gpu *g = r->g;
    const struct gpu_step *s = &g->steps[i];
    if (s->code == STEP_EXPERTS) {
        float *route = s->first->src[1] >= 0 ? malloc((size_t)r->n * (size_t)g->regs[s->first->src[1]].width * sizeof *route) : NULL;
        kg_status status = s->first->src[1] < 0 || route ? show(r, s, route) : status_set(KG_ERR_MEMORY, "out of memory");
        free(route);
        return status;
    }
    if (s->code != STEP_MATMUL || s->same_acts) return KG_OK;
    KG_TRY(show(r, s, NULL));
    for (i++; i < g->n_steps && g->steps[i].same_acts; i++) KG_TRY(show(r, &g->steps[i], NULL)); /* step i may do these too */
    return KG_OK;
}
