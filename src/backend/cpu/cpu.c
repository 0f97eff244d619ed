/* The CPU backend: opening and closing, memory, KV blocks. What is computed and when: plan.c, run.c. */
#include "backend/cpu/engine.h"
#include "backend/cpu/limits.h"

#include "base/float_mode.h"
#include "base/os.h"
#include "tensor/decode.h"

#include <math.h>
#include <stdlib.h>

static void cpu_close(void *ctx)
{
    struct cpu *c = ctx;
    if (!c) return;
    pool_free(&c->pool);
    for (int i = 0; i < c->n_packed; i++) os_free(c->packed[i].data, c->packed[i].n_bytes);
    for (struct kv_slab *s = c->kv_slabs, *next; s; s = next) {
        next = s->next;
        os_free(s->data, s->n_bytes);
        free(s);
    }
    os_free(c->block_memory, c->block_memory_bytes);
    cpu_states_close(c);
    free(c->kv_blocks);
    free(c->seq_blocks);
    free(c->seq_first);
    arena_free(&c->arena);
    free(c);
}

/* ---- weights ---- */

static bool is_embedding(const struct program *p, const struct tensor *t)
{
    for (int i = 0; i < p->n_ops; i++)
        if ((p->ops[i].code == OP_EMBED || p->ops[i].code == OP_POS_EMBED) && p->ops[i].w == t) return true;
    return false;
}

/* Threads pack stripes of every weight, and let go of the file's pages as they are used up. The first one's progress stands for all. */
static void pack_weights(void *ctx, int i, int n)
{
    struct cpu *c = ctx;
    uint64_t done = 0, total = 0;
    const bool tells = i == 0 && c->params.progress;
    for (int p = 0; p < c->n_packed; p++) total += c->packed[p].tensor->n_bytes;
    for (int p = 0; p < c->n_packed; p++) {
        const struct cpu_packed *w = &c->packed[p];
        if (tells) c->params.progress(c->params.progress_ctx, done, total);
        done += w->tensor->n_bytes;
        int64_t rows = w->tensor->ne[1], panels = (rows + PANEL - 1) / PANEL;
        int64_t row0 = panels * i / n * PANEL, row1 = MIN(panels * (i + 1) / n * PANEL, rows);
        if (row1 <= row0) continue;
        w->format->pack(w->data, w->tensor, row0, row1);
        if (!is_embedding(c->program, w->tensor))
            os_map_release(tensor_row(w->tensor, row0), (size_t)(row1 - row0) * tensor_row_bytes(w->tensor));
    }
}

/* ---- memory of a run: registers, activations, scratch ---- */

static size_t scratch_bytes(const struct cpu *c)
{
    size_t most = 0;
    const struct program *p = c->program;
    for (int i = 0; i < p->n_regs; i++) most = MAX(most, (size_t)p->reg_width[i] * sizeof(float));
    for (int i = 0; i < c->n_steps; i++) {
        const struct step *s = &c->steps[i];
        if (s->code == STEP_OP && s->op->code == OP_ROUTE) most = MAX(most, 5 * (size_t)p->reg_width[s->op->src[0]] * sizeof(float));
        if (cpu_is_matmul(s) || s->code == STEP_EXPERT_MATMUL) most = MAX(most, s->matmul.format->scratch_bytes(s->matmul.in, c->params.max_batch));
        if (s->code == STEP_ATTEND) {
            const struct attention *a = &s->op->attention;
            most = MAX(most, c->kernels.attend_scratch_bytes(a->n_heads / a->n_kv_heads * c->attend_tokens, a->k_dim, a->v_dim));
        }
    }
    return most;
}

/* The kinds of activations that these steps ask for, of register r: bits 1 << enum acts_kind; with -1, those of experts. */
static unsigned wanted_acts(const struct cpu *c, int r)
{
    unsigned kinds = 0;
    for (int i = 0; i < c->n_steps; i++) {
        const struct step *s = &c->steps[i];
        if (r >= 0 && s->code == STEP_ACTS && s->reg == r) kinds |= 1u << s->acts;
        if (r < 0 && s->code == STEP_EXPERT_MATMUL) kinds |= 1u << s->matmul.format->acts;
    }
    return kinds;
}

static void lay_out_experts(struct cpu *c, char *base, size_t *used)
{
    struct cpu_experts *x = &c->experts;
    const size_t n = x->most_rows, width = ROUND_UP(x->in, (size_t)ACT_GROUP);
    if (n == 0) return;
    const size_t order = layout_take(used, n * sizeof *x->order), expert = layout_take(used, n * sizeof *x->expert);
    const size_t first = layout_take(used, (x->count + 1) * sizeof *x->first), busy = layout_take(used, x->count * sizeof *x->busy);
    const size_t in = layout_take(used, n * width * sizeof *x->x), out = layout_take(used, n * x->out * sizeof *x->y);
    acts_lay_out(&x->acts, &c->kernels, wanted_acts(c, -1), width, n, base, used);
    if (!base) return;
    x->order = (void *)(base + order);
    x->expert = (void *)(base + expert);
    x->first = (void *)(base + first);
    x->busy = (void *)(base + busy);
    x->x = (void *)(base + in);
    x->y = (void *)(base + out);
}

/* n rows of register r, and their activations. */
static void lay_out_register(const struct cpu *c, char *base, size_t *used, int r, size_t n, float **reg, struct cpu_acts *acts)
{
    const size_t width = (size_t)c->program->reg_width[r], x = layout_take(used, r == c->logits_reg ? 0 : n * width * sizeof(float));
    if (base) *reg = (void *)(base + x);
    acts_lay_out(acts, &c->kernels, wanted_acts(c, r), width, n, base, used);
}

/* Hands out the memory at base; with base NULL only measures it. Returns the bytes. */
static size_t lay_out(struct cpu *c, char *base, size_t per_thread)
{
    size_t used = 0;
    for (int r = 0; r < c->program->n_regs; r++) lay_out_register(c, base, &used, r, (size_t)c->params.max_batch, &c->reg[r], &c->acts[r]);
    lay_out_experts(c, base, &used);
    for (int i = 0; i < c->params.n_threads; i++) {
        size_t at = layout_take(&used, per_thread);
        if (base) c->scratch[i] = base + at;
        for (int r = 0; r < c->program->n_regs; r++) lay_out_register(c, base, &used, r, 1, &c->own[i].reg[r], &c->own[i].acts[r]);
    }
    return used;
}

/* Enough query rows to make good use of a widened KV block, few enough for their sums to stay in cache. */
#define ATTEND_ROWS 32

static void choose_attend_tokens(struct cpu *c)
{
    int n_q = 1;
    for (int i = 0; i < c->program->n_ops; i++) {
        const struct op *op = &c->program->ops[i];
        if (op->code == OP_ATTENTION) n_q = MAX(n_q, op->attention.n_heads / op->attention.n_kv_heads);
    }
    c->attend_tokens = MAX(1, ATTEND_ROWS / n_q);
}

static kg_status allocate(struct cpu *c)
{
    choose_attend_tokens(c);
    size_t n_regs = (size_t)c->program->n_regs, per_thread = scratch_bytes(c);
    c->reg = arena_array(&c->arena, n_regs, sizeof *c->reg);
    c->acts = arena_array(&c->arena, n_regs, sizeof *c->acts);
    c->scratch = arena_array(&c->arena, (size_t)c->params.n_threads, sizeof *c->scratch);
    c->own = arena_array(&c->arena, (size_t)c->params.n_threads, sizeof *c->own);
    if (!c->own) return KG_ERR_MEMORY;
    for (int i = 0; i < c->params.n_threads; i++) {
        c->own[i].reg = arena_array(&c->arena, n_regs, sizeof *c->own[i].reg);
        c->own[i].acts = arena_array(&c->arena, n_regs, sizeof *c->own[i].acts);
        if (!c->own[i].reg || !c->own[i].acts) return KG_ERR_MEMORY;
    }
    c->tiles = arena_array(&c->arena, (size_t)c->params.max_batch, sizeof *c->tiles);
    c->selected = arena_array(&c->arena, (size_t)c->params.max_batch, sizeof *c->selected);
    if (!c->reg || !c->acts || !c->scratch || !c->tiles || !c->selected) return KG_ERR_MEMORY;
    c->block_memory_bytes = lay_out(c, NULL, per_thread);
    c->block_memory = os_alloc(c->block_memory_bytes);
    if (!c->block_memory) return KG_ERR_MEMORY;
    lay_out(c, c->block_memory, per_thread);
    return KG_OK;
}

/* ---- KV ---- */

static kg_status kv_layout(struct cpu *c)
{
    static const size_t item_bytes[] = {[KG_KV_F16] = 2, [KG_KV_F32] = 4, [KG_KV_Q8_0] = 1};
    const struct program *p = c->program;
    c->kv = arena_array(&c->arena, (size_t)p->n_kv, sizeof *c->kv);
    if (!c->kv) return KG_ERR_MEMORY;
    size_t used = 0, item = item_bytes[c->params.kv_type];
    for (int i = 0; i < p->n_kv; i++) {
        struct cpu_kv_layout *l = &c->kv[i];
        l->type = c->params.kv_type;
        l->n_kv_heads = p->kv[i].n_kv_heads;
        l->k_dim = p->kv[i].k_width / l->n_kv_heads;
        l->v_dim = p->kv[i].v_width / l->n_kv_heads;
        l->k_groups = (l->k_dim + KV_GROUP - 1) / KV_GROUP;
        l->v_groups = (l->v_dim + KV_GROUP - 1) / KV_GROUP;
        size_t heads = (size_t)l->n_kv_heads * KV_BLOCK, scale = l->type == KG_KV_Q8_0 ? sizeof(float) : 0;
        l->k_offset = layout_take(&used, heads * (size_t)l->k_dim * item);
        l->v_offset = layout_take(&used, heads * (size_t)l->v_dim * item);
        l->k_scale_offset = layout_take(&used, heads * (size_t)l->k_groups * scale);
        l->v_scale_offset = layout_take(&used, heads * (size_t)l->v_groups * scale);
    }
    c->kv_block_bytes = used;
    return KG_OK;
}

static kg_status cpu_kv_reserve(void *ctx, int n_blocks)
{
    struct cpu *c = ctx;
    if (n_blocks <= c->n_kv_blocks) return KG_OK;
    size_t more = (size_t)(n_blocks - c->n_kv_blocks);
    uint8_t **blocks = realloc(c->kv_blocks, (size_t)n_blocks * sizeof *blocks);
    if (!blocks) return status_set(KG_ERR_MEMORY, "out of memory (KV block table)");
    c->kv_blocks = blocks;
    struct kv_slab *slab = malloc(sizeof *slab);
    uint8_t *data = slab ? os_alloc(MAX(more * c->kv_block_bytes, (size_t)1)) : NULL;
    if (!data) {
        free(slab);
        return status_set(KG_ERR_MEMORY, "out of memory (%zu bytes of KV cache)", more * c->kv_block_bytes);
    }
    *slab = (struct kv_slab){.next = c->kv_slabs, .n_bytes = MAX(more * c->kv_block_bytes, (size_t)1), .data = data};
    c->kv_slabs = slab;
    for (size_t i = 0; i < more; i++) c->kv_blocks[c->n_kv_blocks++] = data + i * c->kv_block_bytes;
    return KG_OK;
}

static kg_status cpu_kv_copy(void *ctx, int dst, int src)
{
    struct cpu *c = ctx;
    if (dst < 0 || src < 0 || dst >= c->n_kv_blocks || src >= c->n_kv_blocks) return status_set(KG_ERR_ARGUMENT, "KV block out of range");
    memcpy(c->kv_blocks[dst], c->kv_blocks[src], c->kv_block_bytes);
    return KG_OK;
}

static kg_status cpu_kv_read(void *ctx, int block, void *out)
{
    struct cpu *c = ctx;
    if (block < 0 || block >= c->n_kv_blocks) return status_set(KG_ERR_ARGUMENT, "KV block out of range");
    memcpy(out, c->kv_blocks[block], c->kv_block_bytes);
    return KG_OK;
}

static kg_status cpu_kv_write(void *ctx, int block, const void *in)
{
    struct cpu *c = ctx;
    if (block < 0 || block >= c->n_kv_blocks) return status_set(KG_ERR_ARGUMENT, "KV block out of range");
    memcpy(c->kv_blocks[block], in, c->kv_block_bytes);
    return KG_OK;
}

static size_t cpu_kv_block_bytes(const void *ctx) { return ((const struct cpu *)ctx)->kv_block_bytes; }

/* ---- open ---- */

static kg_status open_steps(struct cpu *c)
{
    KG_TRY(cpu_kernels_choose(&c->kernels));
    KG_TRY(pool_new(&c->pool, c->params.n_threads));
    KG_TRY(kv_layout(c));
    KG_TRY(cpu_plan(c));
    KG_TRY(cpu_share_open(c));
    KG_TRY(allocate(c));
    pool_run(c->pool, pack_weights, c);
    return KG_OK;
}

static kg_status cpu_open(void **out, const struct program *p, const struct backend_params *params)
{
    *out = NULL;
    struct cpu *c = calloc(1, sizeof *c);
    if (!c) return status_set(KG_ERR_MEMORY, "out of memory");
    c->program = p;
    c->params = *params;
    const float_mode before = float_mode_enter();
    kg_status st = open_steps(c);
    float_mode_leave(before);
    if (st == KG_OK) *out = c;
    else cpu_close(c);
    return st;
}

/* Relative error of a matmul's output in the Euclidean norm.
 * int8: one scale per 32 elements; an element's error is uniform within half a step of excess * top / 127, and the norm of the group is
 * at least top: at most excess * sqrt(32 / 12) / 127. BF16: half an ulp of each element.
 * f32: a chain of `in` fma, each off by half an ulp of the sum so far; independent roundings add up to 2^-24 sqrt(in) of the largest
 * partial sum, for which cancellation is given a factor of 2. Sums over 16 lanes are chains of a sixteenth of the length. */
static double matmul_error(const struct cpu_matmul *m, int excess)
{
    const double chain = 2 * 0x1p-24 * sqrt(m->in);
    switch (m->format->acts) {
    case ACTS_INT8: return excess * sqrt(ACT_GROUP / 12.0) / 127;
    case ACTS_INT8_WHOLE: return sqrt(ACT_SUPER / 12.0) / 127;
    case ACTS_BF16_TILES:
    case ACTS_BF16_BLOCKS: return 0x1p-9 + chain;
    case ACTS_BF16_PARTS: return 0x1p-16 + 0x1p-15 + chain; /* half an ulp of second parts; products of them, 2^-8 times 2^-7, are left out */
    case ACTS_ROWS: return chain / 4;
    default: return chain;
    }
}

/* What a state keeps is rounded three times for each token, and multiplied by a decay that is off by 2 ulp (exp_fast); both differ from token to token, so
 * that over a memory of N tokens at full weight they add up to 2^-24 (sqrt(3 N) + 4 sqrt(N)). N is 1024: few channels of a model remember longer.
 * A convolution is a chain of its taps. */
static double state_error(const struct op *op)
{
    return op->code == OP_CONV ? 2 * 0x1p-24 * sqrt((double)op->w->ne[0]) : 0x1p-24 * 32 * (sqrt(3) + 4);
}

/* Stages (matmuls, attentions, states) are taken as independent, so squares add up. KV: int8 as above, f16 half an ulp; f32: the chains over
 * positions and dimensions of attention, short ones. */
static double cpu_error_bound(const void *ctx)
{
    const struct cpu *c = ctx;
    const double kv[] = {[KG_KV_F16] = 0x1p-11, [KG_KV_F32] = 0x1p-20, [KG_KV_Q8_0] = sqrt(KV_GROUP / 12.0) / 127};
    double squares = 0;
    for (int i = 0; i < c->n_steps; i++) {
        const struct step *s = &c->steps[i];
        double e = 0;
        if (s->code == STEP_ATTEND) e = kv[c->params.kv_type];
        if (cpu_is_matmul(s) || s->code == STEP_EXPERT_MATMUL) e = matmul_error(&s->matmul, c->kernels.act_excess);
        if (s->code == STEP_STATE) e = state_error(s->op);
        squares += e * e;
    }
    return sqrt(squares);
}

const struct backend backend_cpu = {
    .name = "cpu",
    .what = "f32 on this machine's processors, weights in their file types",
    .shows_inputs = true,
    .open = cpu_open,
    .close = cpu_close,
    .kv_reserve = cpu_kv_reserve,
    .kv_copy = cpu_kv_copy,
    .kv_block_bytes = cpu_kv_block_bytes,
    .kv_read = cpu_kv_read,
    .kv_write = cpu_kv_write,
    .state_reserve = cpu_state_reserve,
    .state_copy = cpu_state_copy,
    .state_bytes = cpu_state_bytes,
    .state_read = cpu_state_read,
    .state_write = cpu_state_write,
    .run = cpu_run,
    .error_bound = cpu_error_bound,
    .meter = &cpu_meter,
};
