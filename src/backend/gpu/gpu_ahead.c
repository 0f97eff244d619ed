/* Greedy text: the device itself makes its highest logit the next token and begins with it, while the host still reads the last one. The host then only compares what it
 * is asked for with what is under way. Only for a text that has gone on so before, within a KV block, and without states, which a token too much would change; in the
 * cache it writes what the right token would write over it. */
#include "backend/gpu/gpu_run.h"

#include <stdatomic.h>
#include <string.h>

kg_status gpu_ahead_open(struct gpu *g)
{
    void *host = NULL;
    if (!g->device->share || !g->device->record_run) return KG_OK;
    KG_TRY(g->device->share(g->dev, &g->ahead.buffer, &host, 2 * TOLD_WORDS * sizeof(uint32_t)));
    g->ahead.told = host;
    return KG_OK;
}

bool gpu_tells(const struct gpu_run *r) { return r->g->ahead.buffer && r->n_select == 1 && r->batch->n == 1 && r->batch->n_top == 1; }

void gpu_forget_ahead(struct gpu *g)
{
    g->ahead.n = 0;
    g->ahead.begun = NULL;
}

static volatile uint32_t *place_of(const struct gpu *g, uint32_t pos) { return g->ahead.told + pos % 2 * TOLD_WORDS; }

bool gpu_ahead_take(struct gpu_run *r)
{
    struct gpu *g = r->g;
    struct gpu_ahead *a = &g->ahead;
    const bool tells = gpu_tells(r);
    r->follows = tells && a->n > 0 && r->n_words >= a->n && memcmp(g->batch_host, a->words, a->n * sizeof *a->words) == 0;
    const bool under_way = r->follows && r->n_words == a->n && a->begun && a->begun == r->recording;
    gpu_forget_ahead(g);
    if (tells && !under_way) *place_of(g, g->batch_host[1]) = TOLD_NOTHING;
    return under_way;
}

kg_status gpu_ahead_begin(struct gpu_run *r)
{
    struct gpu *g = r->g;
    const uint32_t next = g->batch_host[1] + 1;
    if (!r->batch->goes_on || !r->follows || g->program->n_state || next % KV_BLOCK == 0 || !r->recording || !r->recording->recording) return KG_OK;
    if (g->program->ctx_is_hard && next >= (uint32_t)g->program->n_ctx) return KG_OK;
    *place_of(g, next) = TOLD_NOTHING;
    KG_TRY(g->device->record_run(g->dev, r->recording->recording));
    g->ahead.begun = r->recording;
    return KG_OK;
}

kg_status gpu_ahead_wait(struct gpu_run *r, uint32_t found[3])
{
    enum { LOOKS = 4096 }; /* before the device is asked how it is */
    struct gpu *g = r->g;
    struct gpu_ahead *a = &g->ahead;
    volatile uint32_t *at = place_of(g, g->batch_host[1]);
    for (int i = 1; *at == TOLD_NOTHING; i++) {
        if (i % LOOKS) continue;
        bool busy;
        KG_TRY(g->device->busy(g->dev, &busy));
        if (!busy && *at == TOLD_NOTHING) return status_set(KG_ERR_DEVICE, "%s backend: a token ended without a result", g->device->name);
    }
    atomic_thread_fence(memory_order_acquire);
    for (int i = 0; i < 3; i++) found[i] = at[i];
    if (found[0] == 0) return KG_OK;
    memcpy(a->words, g->batch_host, r->n_words * sizeof *a->words);
    a->n = r->n_words;
    a->words[0] = found[1];
    a->words[1]++;
    a->words[a->words[2] - 1]++;
    return KG_OK;
}
