/* The reference backend: float64, one thread, textbook loops. Owns the context: registers, KV blocks, checks of the program and of
 * each batch. What an op computes is in ref_ops.c, what a weight is in ref_decode*.c.
 * Threads, KV type and activations of backend_params choose between speed and exactness; the reference has one answer: exact. */
#include "backend/ref/ref.h"

#include "base/os.h"

#include <stdlib.h>

static void ref_close(void *ctx)
{
    struct ref *r = ctx;
    if (!r) return;
    for (int i = 0; i < r->n_blocks; i++) free(r->blocks[i]);
    free(r->blocks);
    for (int i = 0; i < r->n_states; i++) free(r->states[i]);
    free(r->states);
    free(r->score);
    os_free(r->reg_data, r->reg_bytes);
    arena_free(&r->arena);
    free(r);
}

static kg_status check_tensor(const struct op *op, const struct tensor *t)
{
    if (t && !ref_decoder(t->type))
        return status_set(KG_ERR_UNSUPPORTED, "reference backend: %s: tensor %s has type %d, which has no decoder", op_name(op->code), t->name,
                          (int)t->type);
    return KG_OK;
}

static kg_status check_op(const struct op *op)
{
    if ((unsigned)op->code >= OP_N_CODES) return status_set(KG_ERR_UNSUPPORTED, "reference backend: unknown operation %d", (int)op->code);
    if ((op->code == OP_ACT || op->code == OP_GLU || op->code == OP_GATE) && (unsigned)op->activation >= ACTIVATION_N)
        return status_set(KG_ERR_UNSUPPORTED, "reference backend: %s: unknown activation %d", op_name(op->code), (int)op->activation);
    if (op->code == OP_ROPE && ((unsigned)op->rope.style > ROPE_HALVES || (unsigned)op->rope.scaling > ROPE_SCALING_YARN))
        return status_set(KG_ERR_UNSUPPORTED, "reference backend: rope: unknown style %d or scaling %d", (int)op->rope.style, (int)op->rope.scaling);
    KG_TRY(check_tensor(op, op->w));
    KG_TRY(check_tensor(op, op->b));
    if (op->code == OP_ROPE) KG_TRY(check_tensor(op, op->rope.factors));
    if (op->code == OP_ATTENTION) KG_TRY(check_tensor(op, op->attention.sinks));
    return KG_OK;
}

/* Registers for max_batch tokens: pages that no batch touches cost nothing. */
static kg_status make_registers(struct ref *r)
{
    const struct program *p = r->program;
    size_t width = 0;
    for (int i = 0; i < p->n_regs; i++) width += (size_t)p->reg_width[i];
    size_t per_token = width * sizeof(double);
    if (per_token && (size_t)r->max_batch > SIZE_MAX / per_token)
        return status_set(KG_ERR_MEMORY, "reference backend: registers for %d tokens do not fit the address space", r->max_batch);
    r->reg_bytes = MAX(per_token * (size_t)r->max_batch, sizeof(double));
    r->reg_data = os_alloc(r->reg_bytes);
    if (!r->reg_data) return status_set(KG_ERR_MEMORY, "reference backend: no memory for %zu bytes of registers", r->reg_bytes);
    double *at = r->reg_data;
    for (int i = 0; i < p->n_regs; i++) {
        r->reg[i] = at;
        at += (size_t)p->reg_width[i] * (size_t)r->max_batch;
    }
    return KG_OK;
}

/* Everything that run() will need and whose size the program tells. */
static kg_status make_scratch(struct ref *r)
{
    const struct program *p = r->program;
    size_t widest_w = 1, widest_b = 1, experts = 1;
    for (int i = 0; i < p->n_ops; i++) {
        if (p->ops[i].code == OP_ROUTE) experts = MAX(experts, (size_t)p->reg_width[p->ops[i].src[0]]);
        if (p->ops[i].code == OP_ATTENTION) widest_w = MAX(widest_w, (size_t)p->ops[i].attention.n_heads);
        if (p->ops[i].w) widest_w = MAX(widest_w, (size_t)p->ops[i].w->ne[0]);
        if (p->ops[i].b) widest_b = MAX(widest_b, (size_t)p->ops[i].b->ne[0]);
    }
    r->reg = arena_array(&r->arena, (size_t)p->n_regs + 1, sizeof *r->reg);
    r->row_w = arena_array(&r->arena, widest_w, sizeof *r->row_w);
    r->row_b = arena_array(&r->arena, widest_b, sizeof *r->row_b);
    r->wkv = arena_array(&r->arena, widest_w, 3 * sizeof *r->wkv);
    r->route = arena_array(&r->arena, experts, 3 * sizeof *r->route);
    r->taken = arena_array(&r->arena, experts, 2 * sizeof *r->taken);
    r->freq = arena_array(&r->arena, (size_t)p->n_ops + 1, sizeof *r->freq);
    r->mscale = arena_array(&r->arena, (size_t)p->n_ops + 1, sizeof *r->mscale);
    r->token = arena_array(&r->arena, (size_t)r->max_batch, sizeof *r->token);
    r->kv_at = arena_array(&r->arena, (size_t)p->n_kv + 1, sizeof *r->kv_at);
    if (!r->reg || !r->row_w || !r->row_b || !r->wkv || !r->route || !r->taken || !r->freq || !r->mscale || !r->token || !r->kv_at) return KG_ERR_MEMORY;
    for (int i = 0; i < p->n_ops; i++) {
        const struct op *op = &p->ops[i];
        if (op->code != OP_ROPE) continue;
        r->freq[i] = arena_array(&r->arena, (size_t)op->rope.n_rot / 2, sizeof **r->freq);
        if (!r->freq[i]) return KG_ERR_MEMORY;
        r->mscale[i] = ref_rope_freq(&op->rope, r->freq[i]);
    }
    for (int i = 0; i < p->n_kv; i++) {
        r->kv_at[i] = r->kv_doubles;
        r->kv_doubles += KV_BLOCK * ((size_t)p->kv[i].k_width + (size_t)p->kv[i].v_width);
    }
    return make_registers(r);
}

static kg_status ref_open(void **ctx, const struct program *p, const struct backend_params *params)
{
    *ctx = NULL;
    if (params->max_batch < 1) return status_set(KG_ERR_ARGUMENT, "reference backend: max_batch is %d", params->max_batch);
    for (int i = 0; i < p->n_ops; i++) KG_TRY(check_op(&p->ops[i]));
    struct ref *r = calloc(1, sizeof *r);
    if (!r) return status_set(KG_ERR_MEMORY, "reference backend: out of memory");
    r->program = p;
    r->max_batch = params->max_batch;
    kg_status status = make_scratch(r);
    if (status != KG_OK) {
        ref_close(r);
        return status;
    }
    *ctx = r;
    return KG_OK;
}

static size_t ref_kv_block_bytes(const void *ctx) { return ((const struct ref *)ctx)->kv_doubles * sizeof(double); }

static kg_status ref_kv_reserve(void *ctx, int n_blocks)
{
    struct ref *r = ctx;
    if (n_blocks <= r->n_blocks) return KG_OK;
    double **blocks = realloc(r->blocks, (size_t)n_blocks * sizeof *blocks);
    if (blocks) r->blocks = blocks;
    double *score = blocks ? realloc(r->score, (size_t)n_blocks * KV_BLOCK * sizeof *score) : NULL;
    if (score) r->score = score;
    while (score && r->n_blocks < n_blocks) {
        double *block = calloc(MAX(r->kv_doubles, 1), sizeof *block);
        if (!block) break;
        r->blocks[r->n_blocks++] = block;
    }
    if (r->n_blocks == n_blocks) return KG_OK;
    return status_set(KG_ERR_MEMORY, "reference backend: no memory for %d KV blocks of %zu bytes", n_blocks, ref_kv_block_bytes(r));
}

static kg_status ref_kv_copy(void *ctx, int dst_block, int src_block)
{
    struct ref *r = ctx;
    if (dst_block < 0 || dst_block >= r->n_blocks || src_block < 0 || src_block >= r->n_blocks)
        return status_set(KG_ERR_ARGUMENT, "reference backend: copy of KV block %d to %d, of %d", src_block, dst_block, r->n_blocks);
    if (dst_block != src_block) memcpy(r->blocks[dst_block], r->blocks[src_block], ref_kv_block_bytes(r));
    return KG_OK;
}

static kg_status ref_kv_read(void *ctx, int block, void *out)
{
    struct ref *r = ctx;
    if (block < 0 || block >= r->n_blocks) return status_set(KG_ERR_ARGUMENT, "reference backend: KV block %d of %d", block, r->n_blocks);
    memcpy(out, r->blocks[block], ref_kv_block_bytes(r));
    return KG_OK;
}

static kg_status ref_kv_write(void *ctx, int block, const void *in)
{
    struct ref *r = ctx;
    if (block < 0 || block >= r->n_blocks) return status_set(KG_ERR_ARGUMENT, "reference backend: KV block %d of %d", block, r->n_blocks);
    memcpy(r->blocks[block], in, ref_kv_block_bytes(r));
    return KG_OK;
}

static size_t ref_state_bytes(const void *ctx) { return ((const struct ref *)ctx)->program->n_state * sizeof(double); }

static kg_status ref_state_reserve(void *ctx, int n)
{
    struct ref *r = ctx;
    if (n <= r->n_states) return KG_OK;
    double **states = realloc(r->states, (size_t)n * sizeof *states);
    if (states) r->states = states;
    while (states && r->n_states < n) {
        double *state = calloc(MAX(r->program->n_state, 1), sizeof *state);
        if (!state) break;
        r->states[r->n_states++] = state;
    }
    return r->n_states >= n ? KG_OK : status_set(KG_ERR_MEMORY, "reference backend: no memory for %d states of %zu bytes", n, ref_state_bytes(r));
}

static kg_status ref_state_copy(void *ctx, int dst, int src)
{
    struct ref *r = ctx;
    if (dst < 0 || dst >= r->n_states || src < 0 || src >= r->n_states) return status_set(KG_ERR_ARGUMENT, "reference backend: copy of state %d to %d, of %d", src, dst, r->n_states);
    if (dst != src) memcpy(r->states[dst], r->states[src], ref_state_bytes(r));
    return KG_OK;
}

static kg_status ref_state_read(void *ctx, int state, void *out)
{
    struct ref *r = ctx;
    if (state < 0 || state >= r->n_states) return status_set(KG_ERR_ARGUMENT, "reference backend: state %d of %d", state, r->n_states);
    memcpy(out, r->states[state], ref_state_bytes(r));
    return KG_OK;
}

static kg_status ref_state_write(void *ctx, int state, const void *in)
{
    struct ref *r = ctx;
    if (state < 0 || state >= r->n_states) return status_set(KG_ERR_ARGUMENT, "reference backend: state %d of %d", state, r->n_states);
    memcpy(r->states[state], in, ref_state_bytes(r));
    return KG_OK;
}

static kg_status check_batch(const struct ref *r, const struct batch *batch)
{
    const struct program *p = r->program;
    if (batch->n < 1 || batch->n > r->max_batch)
        return status_set(KG_ERR_ARGUMENT, "reference backend: batch of %d tokens, room for %d", batch->n, r->max_batch);
    for (int i = 0; i < batch->n; i++) {
        const struct batch_token *t = &batch->tokens[i];
        if (t->id < 0 || t->id >= p->n_vocab) return status_set(KG_ERR_ARGUMENT, "token id %d is not in the vocabulary of %d", (int)t->id, p->n_vocab);
        if (t->seq < 0 || t->seq >= batch->n_seqs) return status_set(KG_ERR_ARGUMENT, "sequence %d of %d", (int)t->seq, batch->n_seqs);
        if (t->pos < 0 || (p->ctx_is_hard && t->pos >= p->n_ctx))
            return status_set(KG_ERR_CONTEXT, "position %d is beyond the model's %lld", (int)t->pos, (long long)p->n_ctx);
        const int state = batch->seqs[t->seq].state;
        if (p->n_state && (state < 0 || state >= r->n_states)) return status_set(KG_ERR_ARGUMENT, "state %d of %d", state, r->n_states);
        if (t->pos / KV_BLOCK >= r->n_blocks) return status_set(KG_ERR_ARGUMENT, "position %d lies beyond the %d KV blocks reserved", (int)t->pos, r->n_blocks);
        int block = batch->seqs[t->seq].blocks[t->pos / KV_BLOCK];
        if (block < 0 || block >= r->n_blocks) return status_set(KG_ERR_ARGUMENT, "KV block %d of %d", block, r->n_blocks);
    }
    return KG_OK;
}

static void show_input(const struct ref *r, const struct batch *batch, const struct op *op, int n)
{
    struct batch_input in = {.op = op, .n = n, .width = r->program->reg_width[op->src[0]], .f64 = r->reg[op->src[0]]};
    if (op->code == OP_MATMUL_EXPERTS && op->src[1] >= 0) {
        in.route_width = r->program->reg_width[op->src[1]];
        in.route_f64 = r->reg[op->src[1]];
    }
    batch->input(batch->input_ctx, &in);
}

static kg_status ref_run(void *ctx, const struct batch *batch)
{
    struct ref *r = ctx;
    const struct program *p = r->program;
    KG_TRY(check_batch(r, batch));
    struct ref_run run = {batch, batch->n, r->token};
    const uint64_t active = batch_adapters(batch, p);
    for (int i = 0; i < batch->n; i++) r->token[i] = i;
    for (int i = 0; i < p->n_ops; i++) {
        const struct op *op = &p->ops[i];
        if (batch_leaves_out(active, op->adapter)) continue;
        if (op->code == OP_SELECT) { /* those side by side take their rows from the same batch */
            const size_t width = (size_t)p->reg_width[op->dst];
            int n = 0;
            for (int s = 0; s < batch->n; s++)
                if (batch->tokens[s].want_logits) {
                    memcpy(r->reg[op->dst] + (size_t)n * width, r->reg[op->src[0]] + (size_t)s * width, width * sizeof(double));
                    r->token[n++] = s;
                }
            run.n = n;
        } else {
            if ((op->code == OP_MATMUL || op->code == OP_MATMUL_EXPERTS) && batch->input) show_input(r, batch, op, run.n);
            ref_run_op(r, &run, i);
        }
        if (op->tap && batch->tap) batch->tap(batch->tap_ctx, op, run.n, p->reg_width[op->dst], NULL, r->reg[op->dst]);
        if (op->tap && batch->patch) batch->patch(batch->patch_ctx, op, run.n, p->reg_width[op->dst], r->reg[op->dst]);
    }
    return KG_OK;
}

static double ref_error_bound(const void *ctx)
{
    (void)ctx;
    return 0;
}

const struct backend backend_ref = {
    .name = "reference",
    .what = "float64, one thread, written for exactness: what the other backends are measured against",
    .has_f64 = true,
    .shows_inputs = true,
    .open = ref_open,
    .close = ref_close,
    .kv_reserve = ref_kv_reserve,
    .kv_copy = ref_kv_copy,
    .kv_block_bytes = ref_kv_block_bytes,
    .kv_read = ref_kv_read,
    .kv_write = ref_kv_write,
    .state_reserve = ref_state_reserve,
    .state_copy = ref_state_copy,
    .state_bytes = ref_state_bytes,
    .state_read = ref_state_read,
    .state_write = ref_state_write,
    .run = ref_run,
    .error_bound = ref_error_bound,
};
