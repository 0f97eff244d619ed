/* The GPU engine: opening and closing, device memory, weights, cache. What is computed and when: gpu_plan.c, gpu_run.c. */
#include "backend/gpu/gpu_run.h"

#include "base/os.h"
#include "base/threads.h"
#include "tensor/decode.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* borrowed: memory to read where it lies; NULL: fresh memory. */
static kg_status new_buffer(struct gpu *g, void **buffer, size_t n_bytes, const void *borrowed)
{
    if (g->n_buffers == g->cap_buffers) {
        int cap = g->cap_buffers * 2 + 64;
        void **more = realloc(g->buffers, (size_t)cap * sizeof *more);
        if (!more) return status_set(KG_ERR_MEMORY, "out of memory");
        g->buffers = more;
        g->cap_buffers = cap;
    }
    KG_TRY(borrowed ? g->device->borrow(g->dev, buffer, borrowed, n_bytes) : g->device->alloc(g->dev, buffer, MAX(n_bytes, (size_t)64)));
    g->buffers[g->n_buffers++] = *buffer;
    return KG_OK;
}

kg_status gpu_buffer(struct gpu *g, void **buffer, size_t n_bytes) { return new_buffer(g, buffer, n_bytes, NULL); }

void gpu_forget_recordings(struct gpu *g)
{
    gpu_forget_ahead(g);
    for (int i = 0; i < g->n_recordings; i++)
        if (g->recordings[i].recording) g->device->record_free(g->dev, g->recordings[i].recording);
    g->n_recordings = 0;
}

static void free_kv(struct gpu *g, struct gpu_kv *kv)
{
    void *buffers[] = {kv->k, kv->v, kv->k_scale, kv->v_scale};
    for (size_t i = 0; i < COUNT_OF(buffers); i++)
        if (buffers[i]) g->device->free(g->dev, buffers[i]);
    kv->k = kv->v = kv->k_scale = kv->v_scale = NULL;
}

void gpu_close(void *ctx)
{
    struct gpu *g = ctx;
    if (!g) return;
    if (g->dev) {
        char message[512]; /* of what failed before: a device that is lost fails again here */
        snprintf(message, sizeof message, "%s", kg_error_message());
        if (g->device->sync(g->dev) != KG_OK) status_set(KG_ERR_DEVICE, "%s", message);
        gpu_forget_recordings(g);
        for (int i = 0; g->kv && i < g->program->n_kv; i++) free_kv(g, &g->kv[i]);
        if (g->batch) g->device->free(g->dev, g->batch);
        if (g->states) g->device->free(g->dev, g->states);
        for (int i = 0; i < g->n_buffers; i++) g->device->free(g->dev, g->buffers[i]);
        g->device->close(g->dev);
    }
    free(g->batch_host);
    free(g->ahead.words);
    free(g->buffers);
    arena_free(&g->arena);
    free(g);
}

/* ---- weights ---- */

struct packing {
    const struct gpu_weight *w;
    int64_t row0, row1;
    uint8_t *dst;
    kg_status *status; /* [threads] */
    char (*message)[256];
};

/* Row r of the stacked matrix. */
static const struct tensor *part_of(const struct gpu_weight *w, int64_t r, int64_t *row)
{
    if (w->glu) {
        *row = r / 2;
        return w->parts[r % 2];
    }
    int k = 0;
    for (; k + 1 < w->n_parts && r >= w->parts[k]->ne[1]; k++) r -= w->parts[k]->ne[1];
    *row = r;
    return w->parts[k];
}

static void pack_thread(void *ctx, int i, int n)
{
    const struct packing *p = ctx;
    int64_t rows = p->row1 - p->row0, a = p->row0 + rows * i / n, b = p->row0 + rows * (i + 1) / n;
    const size_t stride = p->w->row.row_bytes;
    for (int64_t r = a; r < b; r++) {
        int64_t row;
        const struct tensor *t = part_of(p->w, r, &row);
        kg_status st = gpu_pack_rows(t, row, row + 1, &p->w->row, p->dst + (size_t)(r - p->row0) * stride, stride);
        if (st == KG_OK) continue;
        p->status[i] = st;
        strncpy(p->message[i], kg_error_message(), sizeof *p->message - 1);
        return;
    }
}

/* Packs and uploads in pieces, so that host memory stays small. */
static kg_status upload_weight(struct gpu *g, struct gpu_weight *w, struct pool *pool, uint8_t *staging, size_t staging_bytes, struct packing *p)
{
    const size_t stride = w->row.row_bytes;
    if (w->as_file) {
        kg_status status = new_buffer(g, &w->buffer, (size_t)w->rows * stride, w->parts[0]->data);
        if (status != KG_ERR_UNSUPPORTED) return status;
    }
    KG_TRY(gpu_buffer(g, &w->buffer, (size_t)w->rows * stride));
    int64_t rows = MAX((int64_t)(staging_bytes / stride), 1);
    for (int64_t r = 0; r < w->rows; r += rows) {
        p->w = w;
        p->row0 = r;
        p->row1 = MIN(r + rows, w->rows);
        p->dst = staging;
        memset(staging, 0, (size_t)(p->row1 - r) * stride);
        pool_run(pool, pack_thread, p);
        for (int i = 0; i < pool_n_threads(pool); i++)
            if (p->status[i] != KG_OK) return status_set(p->status[i], "%s", p->message[i]);
        KG_TRY(g->device->upload(g->dev, w->buffer, (size_t)r * stride, staging, (size_t)(p->row1 - r) * stride));
    }
    for (int i = 0; i < w->n_parts; i++) os_map_release(w->parts[i]->data, w->parts[i]->n_bytes);
    return KG_OK;
}

kg_status gpu_upload_weights(struct gpu *g)
{
    size_t staging_bytes = (size_t)32 << 20;
    for (int i = 0; i < g->n_weights; i++) staging_bytes = MAX(staging_bytes, g->weights[i].row.row_bytes);
    struct pool *pool = NULL;
    struct packing p = {0};
    uint8_t *staging = os_alloc(staging_bytes);
    kg_status status = staging ? pool_new(&pool, g->params.n_threads) : status_set(KG_ERR_MEMORY, "no memory for %zu bytes", staging_bytes);
    if (status == KG_OK) {
        p.status = calloc((size_t)g->params.n_threads, sizeof *p.status);
        p.message = calloc((size_t)g->params.n_threads, sizeof *p.message);
        if (!p.status || !p.message) status = status_set(KG_ERR_MEMORY, "out of memory");
    }
    uint64_t done = 0, total = 0;
    for (int i = 0; i < g->n_weights; i++)
        for (int k = 0; k < g->weights[i].n_parts; k++) total += g->weights[i].parts[k]->n_bytes;
    for (int i = 0; status == KG_OK && i < g->n_weights; i++) {
        if (g->params.progress) g->params.progress(g->params.progress_ctx, done, total);
        status = upload_weight(g, &g->weights[i], pool, staging, staging_bytes, &p);
        for (int k = 0; k < g->weights[i].n_parts; k++) done += g->weights[i].parts[k]->n_bytes;
    }
    free(p.status);
    free(p.message);
    pool_free(&pool);
    if (staging) os_free(staging, staging_bytes);
    return status;
}

/* n vectors one after another (glu: alternating) as f32, padded with zeros. */
static kg_status upload_vectors(struct gpu *g, void **buffer, const struct tensor *const *t, int n, bool glu)
{
    int64_t total = 0;
    for (int i = 0; i < n; i++) total += t[i]->ne[0] * t[i]->ne[1];
    size_t n_bytes = ROUND_UP((size_t)total, (size_t)32) * sizeof(float);
    float *f = calloc(1, n_bytes), *one = malloc(n_bytes);
    kg_status status = f && one ? KG_OK : status_set(KG_ERR_MEMORY, "out of memory");
    int64_t at = 0;
    for (int i = 0; status == KG_OK && i < n; i++) {
        const int64_t n_all = t[i]->ne[0] * t[i]->ne[1];
        for (int64_t r = 0; r < t[i]->ne[1]; r++) decode_f32(t[i]->type)(tensor_row(t[i], r), one + r * t[i]->ne[0], t[i]->ne[0]);
        for (int64_t j = 0; j < n_all; j++) f[glu ? 2 * j + i : at + j] = one[j];
        at += n_all;
    }
    if (status == KG_OK) status = gpu_buffer(g, buffer, n_bytes);
    if (status == KG_OK) status = g->device->upload(g->dev, *buffer, 0, f, n_bytes);
    free(f);
    free(one);
    return status;
}

/* Bits of {slope, sink} of each head; program.h has the formula. */
static void put_extra(const struct attention *a, uint32_t *out)
{
    int p = 1;
    while (2 * p <= a->n_heads) p *= 2;
    for (int h = 0; h < a->n_heads; h++) {
        const double exponent = h < p ? -a->alibi * (h + 1) / p : -a->alibi * (h - p + 0.5) / p;
        out[2 * h] = a->alibi != 0 ? f32_bits((float)exp2(exponent)) : 0;
        out[2 * h + 1] = a->sinks ? load_u32((const uint8_t *)a->sinks->data + 4 * (size_t)h) : 0;
    }
}

/* op NULL: does not rotate; a NULL: nothing else. */
static kg_status upload_turns(struct gpu *g, const struct op *op, const struct attention *a, void **buffer, float *mscale)
{
    const size_t n_rot = op ? (size_t)op->rope.n_rot : 0, n = n_rot + (a && (a->alibi != 0 || a->sinks) ? 2 * (size_t)a->n_heads : 0);
    *buffer = g->none;
    if (n == 0) return KG_OK;
    uint32_t *turn = calloc(n, sizeof *turn);
    if (!turn) return status_set(KG_ERR_MEMORY, "out of memory");
    if (op) *mscale = gpu_rope_turns(&op->rope, turn);
    if (n > n_rot) put_extra(a, turn + n_rot);
    kg_status status = gpu_buffer(g, buffer, n * sizeof *turn);
    if (status == KG_OK) status = g->device->upload(g->dev, *buffer, 0, turn, n * sizeof *turn);
    free(turn);
    return status;
}

kg_status gpu_upload_steps(struct gpu *g)
{
    for (int i = 0; i < g->n_steps; i++) {
        struct gpu_step *s = &g->steps[i];
        s->norm_w = s->norm_b = s->bias = g->none;
        if (s->norm && s->norm->w) KG_TRY(upload_vectors(g, &s->norm_w, &s->norm->w, 1, false));
        if (s->norm && s->norm->b) KG_TRY(upload_vectors(g, &s->norm_b, &s->norm->b, 1, false));
        if (s->code == STEP_ATTEND || s->code == STEP_ROPE) {
            KG_TRY(upload_turns(g, s->rope_q, s->code == STEP_ATTEND ? &s->op->attention : NULL, &s->turns_q, &s->mscale_q));
            KG_TRY(upload_turns(g, s->rope_k, NULL, &s->turns_k, &s->mscale_k));
        }
        if (s->code == STEP_STATE || s->code == STEP_LERP || (s->code == STEP_ROUTE && s->op->w)) KG_TRY(upload_vectors(g, &s->norm_w, &s->op->w, 1, false));
        if (s->code == STEP_ROUTE || s->code == STEP_STATE) {
            if (s->op->b) KG_TRY(upload_vectors(g, &s->bias, &s->op->b, 1, false));
            else s->bias = NULL;
        }
        if (s->code != STEP_MATMUL && s->code != STEP_EXPERTS) continue;
        const struct tensor *bias[3];
        int n = s->first->b ? s->weight->n_parts : 0;
        for (int k = 0; k < n; k++) bias[k] = s->first[k].b;
        if (n) KG_TRY(upload_vectors(g, &s->bias, bias, n, s->weight->glu));
        if (!n) s->bias = NULL;
    }
    return KG_OK;
}

/* ---- kernels ---- */

static kg_status pack_kernels(struct gpu *g, struct gpu_weight *w)
{
    const struct {
        const char *base;
        void **kernel;
        bool only_codes;
    } list[] = {{"mv1_f32", &w->mv1, false},      {"mv2_f32", &w->mv2, false},      {"mv1_i8", &w->mv1_i8, true}, {"mv1r4_i8", &w->mv1r4_i8, true}, {"mv4_i8", &w->mv4_i8, true},
                {"mm_f16", &w->mm_f16, false},    {"mm_f32", &w->mm_f32, false},    {"embed", &w->embed, false},      {"halves", &w->halves, false}};
    char module[64], name[64];
    if (w->experts) return gpu_expert_kernels(g, w);
    snprintf(module, sizeof module, "pack_%s", w->pack->name);
    for (size_t i = 0; i < COUNT_OF(list); i++) {
        if (list[i].only_codes && w->pack->code > 8) continue;
        snprintf(name, sizeof name, "%s_%s", list[i].base, w->pack->name);
        KG_TRY(g->device->kernel(g->dev, module, name, list[i].kernel));
    }
    if (!g->info.stream_waves) return KG_OK;
    snprintf(module, sizeof module, "stream_%s", w->pack->name);
    snprintf(name, sizeof name, "ms_f32_%s", w->pack->name);
    KG_TRY(g->device->kernel(g->dev, module, name, &w->ms_f32));
    if (w->pack->code > 8) return KG_OK;
    snprintf(name, sizeof name, "ms_i8_%s", w->pack->name);
    KG_TRY(g->device->kernel(g->dev, module, name, &w->ms_i8));
    snprintf(name, sizeof name, "ms_fed_%s", w->pack->name);
    KG_TRY(g->device->kernel(g->dev, module, name, &w->ms_fed));
    snprintf(name, sizeof name, "ms_few_%s", w->pack->name);
    return g->device->kernel(g->dev, module, name, &w->ms_few);
}

static kg_status find_kernels(struct gpu *g)
{
    static const char *const kv_names[] = {[KG_KV_F16] = "f16", [KG_KV_F32] = "f32", [KG_KV_Q8_0] = "q8_0"};
    const struct {
        const char *name;
        void **kernel;
    } basic[] = {{"norm_rows", &g->norm}, {"act_i8", &g->act_i8}, {"act_f16", &g->act_f16}, {"mm_end", &g->mm_end}, {"map_act", &g->act}, {"map_glu", &g->glu}, {"map_add", &g->add}, {"map_value", &g->value}, {"map_xielu", &g->xielu}, {"map_gate", &g->gate}, {"map_mul", &g->mul}, {"map_lerp", &g->lerp}, {"map_pos_scale", &g->pos_scale}, {"map_adapt", &g->adapt}, {"norm_heads", &g->norm_heads}, {"take_rows", &g->select}, {"top_logits", &g->top_logits}},
      route[] = {{"route_tokens", &g->route}, {"pad_rows", &g->pad_rows}, {"sort_experts", &g->sort_experts}, {"tile_experts", &g->tile_experts}, {"combine_experts", &g->combine}, {"part_heads", &g->part_heads}},
      states[] = {{"state_conv", &g->state_conv}, {"state_scan", &g->state_scan}, {"state_delta", &g->state_delta}, {"state_wkv", &g->state_wkv}},
      attend[] = {{"rope", &g->rope}, {"attend", &g->attend}, {"merge", &g->merge}};
    char module[64], name[64];
    for (size_t i = 0; i < COUNT_OF(basic); i++) KG_TRY(g->device->kernel(g->dev, "basic", basic[i].name, basic[i].kernel));
    const char *kv = kv_names[g->params.kv_type];
    snprintf(module, sizeof module, "attend_%s", kv);
    for (size_t i = 0; i < COUNT_OF(attend); i++) {
        snprintf(name, sizeof name, "%s_%s", attend[i].name, kv);
        KG_TRY(g->device->kernel(g->dev, module, name, attend[i].kernel));
    }
    KG_TRY(gpu_wide_kernels(g, kv));
    if (g->info.attend_one) {
        snprintf(module, sizeof module, "one_%s", kv);
        snprintf(name, sizeof name, "attend_one_%s", kv);
        KG_TRY(g->device->kernel(g->dev, module, name, &g->attend_one));
        snprintf(name, sizeof name, "merge_one_%s", kv);
        KG_TRY(g->device->kernel(g->dev, module, name, &g->merge_one));
    }
    if (g->info.flash && g->params.kv_type == KG_KV_F16 && g->params.activations == KG_ACT_INT8) { /* queries and weights of values become halves */
        KG_TRY(g->device->kernel(g->dev, "flash_64", "flash_64", &g->flash_64));
        KG_TRY(g->device->kernel(g->dev, "flash_128", "flash_128", &g->flash_128));
        KG_TRY(g->device->kernel(g->dev, "flash_64", "flash_one_64", &g->flash_one_64));
        KG_TRY(g->device->kernel(g->dev, "flash_128", "flash_one_128", &g->flash_one_128));
    }
    bool has_states = false;
    for (int i = 0; i < g->n_steps; i++) has_states |= g->steps[i].code == STEP_STATE;
    for (size_t i = 0; has_states && i < COUNT_OF(states); i++) KG_TRY(g->device->kernel(g->dev, "state", states[i].name, states[i].kernel));
    for (int i = 0; i < g->n_steps && !g->route; i++) {
        const enum gpu_step_code code = g->steps[i].code;
        if (code != STEP_ROUTE && code != STEP_EXPERTS && code != STEP_COMBINE && code != STEP_PART) continue;
        for (size_t k = 0; k < COUNT_OF(route); k++) KG_TRY(g->device->kernel(g->dev, "route", route[k].name, route[k].kernel));
    }
    for (int i = 0; i < g->n_weights; i++) KG_TRY(pack_kernels(g, &g->weights[i]));
    return KG_OK;
}

/* ---- memory of a run ---- */

static kg_status make_registers(struct gpu *g)
{
    const struct program *p = g->program;
    g->regs = arena_array(&g->arena, (size_t)p->n_regs + 1, sizeof *g->regs);
    if (!g->regs) return KG_ERR_MEMORY;
    int widest = 32;
    for (int i = 0; i < p->n_regs; i++) {
        struct gpu_reg *r = &g->regs[i];
        r->width = p->reg_width[i];
        r->stride = ROUND_UP(r->width, 32);
        widest = MAX(widest, r->stride);
        KG_TRY(gpu_buffer(g, &r->buffer, (size_t)g->params.max_batch * (size_t)r->stride * sizeof(float)));
    }
    size_t most = 1, most_f32 = 1, part = 1;
    for (int i = 0; i < g->n_steps; i++) {
        const struct gpu_step *s = &g->steps[i];
        if (s->code == STEP_MATMUL) {
            most = MAX(most, s->weight->row.n_units);
            if (s->norm) most_f32 = MAX(most_f32, s->weight->row.n_units);
        }
        if (s->code == STEP_EXPERTS && s->norm) most_f32 = MAX(most_f32, s->weight->row.n_units);
        if (s->code == STEP_ATTEND) part = MAX(part, (size_t)s->op->attention.n_heads * (gpu_is_wide(g, s->op) ? (size_t)s->op->attention.v_dim + 2 : HEAD_PART));
    }
    size_t batch = (size_t)g->params.max_batch;
    KG_TRY(gpu_buffer(g, &g->acts, batch * most * 64)); /* 64 bytes a unit as halves, 40 as int8 and its padding */
    KG_TRY(gpu_buffer(g, &g->act_scale, batch * sizeof(float)));
    KG_TRY(gpu_buffer(g, &g->normed, batch * most_f32 * 32 * sizeof(float)));
    size_t splits = g->params.deterministic ? batch * GPU_FIXED_SPLITS : (size_t)GPU_MV_TOKENS * GPU_SPLITS;
    KG_TRY(gpu_buffer(g, &g->part, part * splits * sizeof(float)));
    KG_TRY(gpu_buffer(g, &g->top, (1 + 2 * TOP_ROOM) * sizeof(uint)));
    KG_TRY(gpu_product_memory(g));
    KG_TRY(gpu_expert_memory(g));
    g->rows = arena_array(&g->arena, (size_t)widest * batch, sizeof *g->rows);
    return g->rows ? KG_OK : KG_ERR_MEMORY;
}

/* ---- cache ---- */

static kg_status kv_layout(struct gpu *g)
{
    static const uint per_piece[] = {[KG_KV_F16] = 8, [KG_KV_F32] = 4, [KG_KV_Q8_0] = 16};
    const struct program *p = g->program;
    g->kv = arena_array(&g->arena, (size_t)p->n_kv + 1, sizeof *g->kv);
    if (!g->kv) return KG_ERR_MEMORY;
    for (int i = 0; i < p->n_kv; i++) {
        struct gpu_kv *kv = &g->kv[i];
        const uint heads = (uint)p->kv[i].n_kv_heads, n = per_piece[g->params.kv_type];
        const uint k_dim = (uint)p->kv[i].k_width / heads, v_dim = (uint)p->kv[i].v_width / heads;
        const bool scales = g->params.kv_type == KG_KV_Q8_0;
        kv->k_row = (k_dim + n - 1) / n;
        kv->v_row = (v_dim + n - 1) / n;
        kv->v_n = n;
        kv->k_groups = (k_dim + 31) / 32;
        kv->v_groups = (v_dim + 31) / 32;
        kv->k_bytes = (size_t)heads * KV_BLOCK * kv->k_row * 16;
        kv->v_bytes = (size_t)heads * KV_BLOCK * kv->v_row * 16;
        kv->k_scale_bytes = scales ? (size_t)heads * KV_BLOCK * kv->k_groups * sizeof(float) : 0;
        kv->v_scale_bytes = scales ? (size_t)heads * KV_BLOCK * kv->v_groups * sizeof(float) : 0;
    }
    return KG_OK;
}

size_t gpu_kv_block_bytes(const void *ctx)
{
    const struct gpu *g = ctx;
    size_t n = 0;
    for (int i = 0; i < g->program->n_kv; i++) n += g->kv[i].k_bytes + g->kv[i].v_bytes + g->kv[i].k_scale_bytes + g->kv[i].v_scale_bytes;
    return n;
}

static kg_status grow(struct gpu *g, void **buffer, size_t block_bytes, int n_blocks)
{
    if (!block_bytes) return KG_OK;
    void *more;
    KG_TRY(g->device->alloc(g->dev, &more, (size_t)n_blocks * block_bytes));
    kg_status status = *buffer ? g->device->copy(g->dev, more, 0, *buffer, 0, (size_t)g->n_blocks * block_bytes) : KG_OK;
    if (status == KG_OK) status = g->device->sync(g->dev);
    if (status != KG_OK) {
        g->device->free(g->dev, more);
        return status;
    }
    if (*buffer) g->device->free(g->dev, *buffer);
    *buffer = more;
    return KG_OK;
}

kg_status gpu_kv_reserve(void *ctx, int n_blocks)
{
    struct gpu *g = ctx;
    if (n_blocks <= g->n_blocks) return KG_OK;
    gpu_forget_recordings(g);
    for (int i = 0; i < g->program->n_kv; i++) {
        struct gpu_kv *kv = &g->kv[i];
        KG_TRY(grow(g, &kv->k, kv->k_bytes, n_blocks));
        KG_TRY(grow(g, &kv->v, kv->v_bytes, n_blocks));
        KG_TRY(grow(g, &kv->k_scale, kv->k_scale_bytes, n_blocks));
        KG_TRY(grow(g, &kv->v_scale, kv->v_scale_bytes, n_blocks));
    }
    g->n_blocks = n_blocks;
    return KG_OK;
}

kg_status gpu_kv_copy(void *ctx, int dst, int src)
{
    struct gpu *g = ctx;
    if (dst < 0 || src < 0 || dst >= g->n_blocks || src >= g->n_blocks)
        return status_set(KG_ERR_ARGUMENT, "%s backend: copy of KV block %d to %d, of %d", g->device->name, src, dst, g->n_blocks);
    if (dst == src) return KG_OK;
    gpu_forget_ahead(g);
    for (int i = 0; i < g->program->n_kv; i++) {
        const struct gpu_kv *kv = &g->kv[i];
        void *buffers[] = {kv->k, kv->v, kv->k_scale, kv->v_scale};
        const size_t bytes[] = {kv->k_bytes, kv->v_bytes, kv->k_scale_bytes, kv->v_scale_bytes};
        for (int b = 0; b < 4; b++)
            if (bytes[b]) KG_TRY(g->device->copy(g->dev, buffers[b], (size_t)dst * bytes[b], buffers[b], (size_t)src * bytes[b], bytes[b]));
    }
    return KG_OK;
}

/* Cache by cache: keys, values, their scales. Exactly one of out and in is not NULL. */
static kg_status move_block(struct gpu *g, int block, uint8_t *out, const uint8_t *in)
{
    size_t at = 0;
    if (block < 0 || block >= g->n_blocks) return status_set(KG_ERR_ARGUMENT, "%s backend: KV block %d of %d", g->device->name, block, g->n_blocks);
    for (int i = 0; i < g->program->n_kv; i++) {
        const struct gpu_kv *kv = &g->kv[i];
        void *buffers[] = {kv->k, kv->v, kv->k_scale, kv->v_scale};
        const size_t bytes[] = {kv->k_bytes, kv->v_bytes, kv->k_scale_bytes, kv->v_scale_bytes};
        for (int b = 0; b < 4; b++) {
            if (!bytes[b]) continue;
            if (out) KG_TRY(g->device->download(g->dev, buffers[b], (size_t)block * bytes[b], out + at, bytes[b]));
            else KG_TRY(g->device->upload(g->dev, buffers[b], (size_t)block * bytes[b], in + at, bytes[b]));
            at += bytes[b];
        }
    }
    return g->device->sync(g->dev);
}

kg_status gpu_kv_read(void *ctx, int block, void *out) { return move_block(ctx, block, out, NULL); }
kg_status gpu_kv_write(void *ctx, int block, const void *in)
{
    gpu_forget_ahead(ctx);
    return move_block(ctx, block, NULL, in);
}

/* ---- open ---- */

static kg_status open_all(struct gpu *g)
{
    KG_TRY(gpu_plan(g)); /* before the device: what cannot run is refused without one */
    KG_TRY(g->device->open(&g->dev, &g->info));
    if (g->params.deterministic) g->info.stream_waves = 0;
    if (g->params.deterministic) g->info.attend_one = g->info.fuses = g->info.flash = g->info.gemm = false; /* one way for any number of tokens */
    KG_TRY(gpu_buffer(g, &g->none, 64));
    KG_TRY(find_kernels(g));
    KG_TRY(kv_layout(g));
    KG_TRY(gpu_upload_weights(g));
    KG_TRY(gpu_upload_steps(g));
    KG_TRY(make_registers(g));
    gpu_plan_feeds(g);
    g->beside = gpu_streams_beside(g);
    KG_TRY(gpu_stream_memory(g));
    KG_TRY(gpu_ahead_open(g));
    return g->device->sync(g->dev);
}

kg_status gpu_open(void **ctx, const struct program *p, const struct backend_params *params, const struct gpu_device *device)
{
    *ctx = NULL;
    if (params->max_batch < 1) return status_set(KG_ERR_ARGUMENT, "%s backend: max_batch is %d", device->name, params->max_batch);
    struct gpu *g = calloc(1, sizeof *g);
    if (!g) return status_set(KG_ERR_MEMORY, "out of memory");
    g->device = device;
    g->program = p;
    g->params = *params;
    kg_status status = open_all(g);
    if (status == KG_OK) *ctx = g;
    else gpu_close(g);
    return status;
}

/* As the cpu backend's, also of states: relative errors of the stages of a layer, independent of each other. Activations as int8 with a scale per 32: at
 * most sqrt(32 / 12) / 127; as halves: half an ulp of them and of the weights. */
double gpu_error_bound(const void *ctx)
{
    const struct gpu *g = ctx;
    const double int8 = sqrt(32 / 12.0) / 127, half = 0x1p-10, exact = 0x1p-20;
    const double kv[] = {[KG_KV_F16] = 0x1p-11, [KG_KV_F32] = exact, [KG_KV_Q8_0] = int8};
    double squares = 0;
    for (int i = 0; i < g->n_steps; i++) {
        const struct gpu_step *s = &g->steps[i];
        double e = 0;
        if (s->code == STEP_ATTEND) e = g->flash_64 ? half : kv[g->params.kv_type];
        if (s->code == STEP_MATMUL || s->code == STEP_EXPERTS) e = g->params.activations == KG_ACT_F32 || s->weight->pack->code == 32 ? exact : s->weight->pack->code > 8 ? half : int8;
        if (s->code == STEP_STATE) e = s->op->code == OP_CONV ? exact : 0x1p-24 * 32 * (sqrt(3) + 4);
        squares += e * e * (s->code == STEP_MATMUL || s->code == STEP_EXPERTS ? s->weight->n_parts : 1);
    }
    return sqrt(squares);
}
