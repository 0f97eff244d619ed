/* The backends hybrid and hybrid-f32: the first layers on the best device of this machine, the others and the output on the processor. The
 * program is cut behind a layer. Its first part gives what is alive there, the residual stream and what later layers read beside it, side by side for every
 * token, as if it were logits; its second begins with it as if it were an embedding, so that no backend knows of the cut. With all layers on the device, nothing is cut.
 * KAGARI_HYBRID names the backend of the device, for tests. */
#include "backend/backend.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct hybrid {
    const struct backend *on[2]; /* of the device, of the processor; on[0] NULL: all layers on the processor */
    void *ctx[2];
    const struct program *whole;
    struct program parts[2];     /* borrow from whole but for ops, widths and shapes, which are in the arena */
    bool cut;
    int at; /* the first operation behind the cut */
    int *alive, n_alive;         /* registers that go on: first the residual stream */
    struct tensor stream;        /* F32 {width of these, max_batch}: what the second part embeds */
    float *rows;                 /* its data */
    struct batch_token *tokens[2];
    struct arena arena;
};

/* ---- where a program may be cut ---- */

static kg_status may_cut(const struct program *p)
{
    for (int i = 0; i < p->n_ops; i++)
        switch (p->ops[i].code) { /* those whose registers and caches are known here */
        case OP_EMBED: case OP_POS_EMBED: case OP_ADD_ROW: case OP_RMS_NORM: case OP_LAYER_NORM: case OP_MATMUL: case OP_ROPE: case OP_ATTENTION:
        case OP_ACT: case OP_GLU: case OP_ADD: case OP_GATE: case OP_SCALE: case OP_ADAPT: case OP_POS_SCALE: case OP_SOFTCAP: case OP_CLAMP: case OP_XIELU: case OP_ROUTE: case OP_MATMUL_EXPERTS:
        case OP_COMBINE: case OP_TAKE: case OP_JOIN: case OP_SELECT: case OP_LOGITS: case OP_MUL: case OP_CONV: case OP_SCAN:
        case OP_DELTA: case OP_WKV: case OP_LERP: break;
        default: return status_set(KG_ERR_UNSUPPORTED, "hybrid backend: a model with the operation %s cannot be divided", op_name(p->ops[i].code));
        }
    return KG_OK;
}

static bool is_alive(const struct program *p, int reg, int from)
{
    for (int i = from; i < p->n_ops; i++) {
        const struct op *op = &p->ops[i];
        for (int k = 0; k < 3; k++)
            if (op->src[k] == reg) return true;
        if (op->dst == reg) return op->code == OP_ROPE;
    }
    return false;
}

/* The number of operations up to the end of n layers, and what is alive there. */
static kg_status find_cut(struct hybrid *h, int n, int *at)
{
    const struct program *p = h->whole;
    h->alive = arena_array(&h->arena, (size_t)p->n_regs + 1, sizeof *h->alive);
    if (!h->alive) return KG_ERR_MEMORY;
    *at = 0;
    for (int i = 0; i < p->n_ops; i++)
        if (p->ops[i].tap && p->ops[i].layer == n - 1) {
            *at = i + 1;
            h->alive[0] = p->ops[i].dst;
        }
    if (!*at) return status_set(KG_ERR_UNSUPPORTED, "hybrid backend: the end of layer %d is not marked in this model", n - 1);
    h->n_alive = 1;
    for (int r = 0; r < p->n_regs; r++)
        if (r != h->alive[0] && is_alive(p, r, *at)) h->alive[h->n_alive++] = r;
    return KG_OK;
}

/* Operations [from, to) of the whole and their caches; what is alive at the cut, and two operations more, have room. */
static kg_status take_part(struct hybrid *h, struct program *part, int from, int to)
{
    const struct program *p = h->whole;
    *part = (struct program){.n_layers = p->n_layers, .dim = p->dim, .n_vocab = p->n_vocab, .n_ctx = p->n_ctx, .ctx_is_hard = p->ctx_is_hard, .n_adapters = p->n_adapters};
    part->ops = arena_array(&h->arena, (size_t)(to - from + h->n_alive) + 2, sizeof *part->ops);
    part->reg_width = arena_array(&h->arena, (size_t)(p->n_regs + h->n_alive) + 1, sizeof *part->reg_width);
    part->kv = arena_array(&h->arena, (size_t)p->n_kv + 1, sizeof *part->kv);
    int *new_kv = arena_array(&h->arena, (size_t)p->n_kv + 1, sizeof *new_kv);
    if (!part->ops || !part->reg_width || !part->kv || !new_kv) return KG_ERR_MEMORY;
    memcpy(part->reg_width, p->reg_width, (size_t)p->n_regs * sizeof *part->reg_width);
    part->n_regs = p->n_regs;
    for (int i = 0; i < p->n_kv; i++) new_kv[i] = -1;
    for (int i = from; i < to; i++) {
        struct op *op = &part->ops[part->n_ops++];
        *op = p->ops[i];
        op->state = part->n_state;
        part->n_state += op->n_state;
        if (op->code != OP_ATTENTION) continue;
        int kv = op->attention.kv;
        if (new_kv[kv] < 0) {
            new_kv[kv] = part->n_kv;
            part->kv[part->n_kv++] = p->kv[kv];
        }
        op->attention.kv = new_kv[kv];
    }
    return KG_OK;
}

/* The end of the first part: registers that are alive, side by side. The width of that. */
static int give_alive(const struct hybrid *h, struct program *a)
{
    int all = h->alive[0];
    for (int i = 1; i < h->n_alive; i++) {
        a->reg_width[a->n_regs] = a->reg_width[all] + a->reg_width[h->alive[i]];
        a->ops[a->n_ops++] = (struct op){.code = OP_JOIN, .layer = -1, .dst = a->n_regs, .src = {all, h->alive[i], -1}, .part = {.n_heads = 1}};
        all = a->n_regs++;
    }
    a->reg_width[a->n_regs++] = a->reg_width[all];
    a->ops[a->n_ops++] = (struct op){.code = OP_SELECT, .layer = -1, .dst = a->n_regs - 1, .src = {all, -1, -1}};
    a->ops[a->n_ops++] = (struct op){.code = OP_LOGITS, .layer = -1, .dst = -1, .src = {a->n_regs - 1, -1, -1}};
    return a->reg_width[all];
}

/* Operations that the beginning of the second needs for it. */
static int n_taken(const struct hybrid *h) { return h->n_alive > 1 ? h->n_alive + 1 : 1; }

static void take_alive(const struct hybrid *h, struct program *b)
{
    const int n = n_taken(h), all = h->n_alive > 1 ? b->n_regs : h->alive[0];
    memmove(b->ops + n, b->ops, (size_t)b->n_ops * sizeof *b->ops);
    b->n_ops += n;
    b->ops[0] = (struct op){.code = OP_EMBED, .layer = -1, .dst = all, .src = {-1, -1, -1}, .w = &h->stream};
    if (n == 1) return;
    b->reg_width[b->n_regs++] = (int)h->stream.ne[0];
    for (int i = 0, first = 0; i < h->n_alive; first += b->reg_width[h->alive[i++]])
        b->ops[1 + i] = (struct op){.code = OP_TAKE, .layer = -1, .dst = h->alive[i], .src = {all, -1, -1}, .part = {.n_heads = 1, .first = first}};
}

static kg_status cut(struct hybrid *h, int n, int max_batch)
{
    int at;
    KG_TRY(may_cut(h->whole));
    KG_TRY(find_cut(h, n, &at));
    struct program *a = &h->parts[0], *b = &h->parts[1];
    KG_TRY(take_part(h, a, 0, at));
    const int width = give_alive(h, a);

    size_t n_bytes = (size_t)width * (size_t)max_batch * sizeof(float);
    h->rows = arena_alloc(&h->arena, n_bytes);
    for (int i = 0; i < 2; i++) h->tokens[i] = arena_array(&h->arena, (size_t)max_batch, sizeof *h->tokens[i]);
    if (!h->rows || !h->tokens[0] || !h->tokens[1]) return KG_ERR_MEMORY;
    h->stream = (struct tensor){.name = "the residual stream", .type = TYPE_F32, .n_dims = 2, .ne = {width, max_batch, 1, 1}, .data = h->rows, .n_bytes = n_bytes};
    KG_TRY(take_part(h, b, at, h->whole->n_ops));
    take_alive(h, b);
    b->n_vocab = MAX(b->n_vocab, max_batch); /* its ids are rows of the stream */
    h->cut = true;
    h->at = at;
    return KG_OK;
}

/* ---- how many layers fit ---- */

enum { AUTO_POSITIONS = 4096 };

/* Bytes that the device needs for the first n layers; all: for the output too. An estimate: weights as in the file and a tenth, the cache of
 * AUTO_POSITIONS tokens as f32, scratch memory. */
static double bytes_of(const struct program *p, int n, bool all)
{
    double sum = 0x1p28;
    for (int i = 0; i < p->n_ops; i++) {
        const struct op *op = &p->ops[i];
        bool here = all || op->layer < 0 ? all || i == 0 || op->code == OP_POS_EMBED : op->layer < n;
        if (!here) continue;
        if (op->w) sum += 1.1 * (double)op->w->n_bytes;
        if (op->code == OP_ATTENTION)
            sum += (double)(p->kv[op->attention.kv].k_width + p->kv[op->attention.kv].v_width) * 4 * (double)MIN(p->n_ctx, (int64_t)AUTO_POSITIONS);
    }
    return sum;
}

static int layers_that_fit(const struct program *p, uint64_t memory)
{
    int n = p->n_layers;
    if (!memory || bytes_of(p, n, true) <= 0.9 * (double)memory) return n;
    for (n--; n > 0 && bytes_of(p, n, false) > 0.9 * (double)memory;) n--;
    return n;
}

static kg_status find_device(struct hybrid *h, uint64_t *memory)
{
    const char *forced = getenv("KAGARI_HYBRID");
    char why[320];
    *memory = 0;
    h->on[0] = forced && *forced ? backend_find(forced) : backend_best(why, sizeof why);
    if (!h->on[0]) return KG_ERR_UNSUPPORTED;
    if (forced && *forced) return KG_OK;
    if (!h->on[0]->devices) return status_set(KG_ERR_DEVICE, "hybrid backend: this machine has no GPU that can be used (kagari devices says why); -b cpu needs none");
    struct backend_device d[16];
    int n = 0;
    KG_TRY(h->on[0]->devices(d, COUNT_OF(d), &n));
    for (int i = 0; i < n; i++)
        if (d[i].chosen) *memory = d[i].memory_free ? d[i].memory_free : d[i].memory;
    return KG_OK;
}

/* ---- the backend ---- */

static void hybrid_close(void *ctx)
{
    struct hybrid *h = ctx;
    if (!h) return;
    for (int i = 0; i < 2; i++)
        if (h->ctx[i]) h->on[i]->close(h->ctx[i]);
    arena_free(&h->arena);
    free(h);
}

static kg_status open_parts(struct hybrid *h, int n, const struct backend_params *params)
{
    const struct program *p = h->whole;
    if (n >= p->n_layers) return backend_open(h->on[0], &h->ctx[0], p, params);
    if (n == 0) return backend_open(h->on[1], &h->ctx[1], p, params);
    KG_TRY(cut(h, n, params->max_batch));
    KG_TRY(backend_open(h->on[0], &h->ctx[0], &h->parts[0], params));
    return backend_open(h->on[1], &h->ctx[1], &h->parts[1], params);
}

static kg_status hybrid_open(void **ctx, const struct program *p, const struct backend_params *params)
{
    *ctx = NULL;
    struct hybrid *h = calloc(1, sizeof *h);
    if (!h) return status_set(KG_ERR_MEMORY, "out of memory");
    uint64_t memory;
    h->whole = p;
    h->on[1] = backend_find("cpu");
    kg_status status = h->on[1] ? find_device(h, &memory) : KG_ERR_UNSUPPORTED;
    if (status == KG_OK) status = open_parts(h, params->gpu_layers >= 0 ? params->gpu_layers : layers_that_fit(p, memory), params);
    if (status == KG_OK) *ctx = h;
    else hybrid_close(h);
    return status;
}

static kg_status hybrid_open_f32(void **ctx, const struct program *p, const struct backend_params *params)
{
    struct backend_params exact = *params;
    exact.activations = KG_ACT_F32;
    return hybrid_open(ctx, p, &exact);
}

static kg_status hybrid_kv_reserve(void *ctx, int n_blocks)
{
    struct hybrid *h = ctx;
    for (int i = 0; i < 2; i++)
        if (h->ctx[i]) KG_TRY(backend_kv_reserve(h->on[i], h->ctx[i], n_blocks));
    return KG_OK;
}

/* Cache by cache: the device's, the processor's. Exactly one of out and in is not NULL. */
static kg_status move_block(struct hybrid *h, int block, uint8_t *out, const uint8_t *in)
{
    size_t at = 0;
    for (int i = 0; i < 2; i++) {
        if (!h->ctx[i]) continue;
        KG_TRY(out ? h->on[i]->kv_read(h->ctx[i], block, out + at) : h->on[i]->kv_write(h->ctx[i], block, in + at));
        at += h->on[i]->kv_block_bytes(h->ctx[i]);
    }
    return KG_OK;
}
static kg_status hybrid_kv_read(void *ctx, int block, void *out) { return move_block(ctx, block, out, NULL); }
static kg_status hybrid_kv_write(void *ctx, int block, const void *in) { return move_block(ctx, block, NULL, in); }

static kg_status move_state(struct hybrid *h, int state, uint8_t *out, const uint8_t *in)
{
    size_t at = 0;
    for (int i = 0; i < 2; i++) {
        if (!h->ctx[i] || !h->on[i]->state_bytes || !h->on[i]->state_bytes(h->ctx[i])) continue;
        KG_TRY(out ? h->on[i]->state_read(h->ctx[i], state, out + at) : h->on[i]->state_write(h->ctx[i], state, in + at));
        at += h->on[i]->state_bytes(h->ctx[i]);
    }
    return KG_OK;
}
static kg_status hybrid_state_read(void *ctx, int state, void *out) { return move_state(ctx, state, out, NULL); }
static kg_status hybrid_state_write(void *ctx, int state, const void *in) { return move_state(ctx, state, NULL, in); }

/* Which operations are whose. */
static uint32_t hybrid_kv_form(const void *ctx)
{
    const struct hybrid *h = ctx;
    uint32_t form = (uint32_t)(h->cut ? h->at : h->ctx[0] ? h->whole->n_ops : 0);
    for (const char *c = h->ctx[0] ? h->on[0]->name : ""; *c; c++) form = form * 31 + (uint8_t)*c;
    return form;
}

static kg_status hybrid_kv_copy(void *ctx, int dst, int src)
{
    struct hybrid *h = ctx;
    for (int i = 0; i < 2; i++)
        if (h->ctx[i]) KG_TRY(h->on[i]->kv_copy(h->ctx[i], dst, src));
    return KG_OK;
}

static size_t hybrid_kv_block_bytes(const void *ctx)
{
    const struct hybrid *h = ctx;
    size_t n = 0;
    for (int i = 0; i < 2; i++)
        if (h->ctx[i]) n += h->on[i]->kv_block_bytes(h->ctx[i]);
    return n;
}

static size_t hybrid_state_bytes(const void *ctx)
{
    const struct hybrid *h = ctx;
    size_t n = 0;
    for (int i = 0; i < 2; i++)
        if (h->ctx[i] && h->on[i]->state_bytes) n += h->on[i]->state_bytes(h->ctx[i]);
    return n;
}

static kg_status hybrid_state_reserve(void *ctx, int n)
{
    struct hybrid *h = ctx;
    for (int i = 0; i < 2; i++)
        if (h->ctx[i] && h->on[i]->state_reserve) KG_TRY(h->on[i]->state_reserve(h->ctx[i], n));
    return KG_OK;
}

static kg_status hybrid_state_copy(void *ctx, int dst, int src)
{
    struct hybrid *h = ctx;
    for (int i = 0; i < 2; i++)
        if (h->ctx[i] && h->on[i]->state_copy) KG_TRY(h->on[i]->state_copy(h->ctx[i], dst, src));
    return KG_OK;
}

/* Who looks on knows the operations of the whole program. */
struct watch {
    const struct hybrid *h;
    const struct batch *batch;
};

static const struct op *op_of(const struct hybrid *h, const struct op *op)
{
    const struct program *a = &h->parts[0];
    return h->whole->ops + (op >= a->ops && op < a->ops + a->n_ops ? op - a->ops : h->at + (op - h->parts[1].ops) - n_taken(h));
}

static void pass_tap(void *ctx, const struct op *op, int n, int width, const float *f32, const double *f64)
{
    const struct watch *w = ctx;
    w->batch->tap(w->batch->tap_ctx, op_of(w->h, op), n, width, f32, f64);
}

static void pass_input(void *ctx, const struct batch_input *in)
{
    const struct watch *w = ctx;
    struct batch_input whole = *in;
    whole.op = op_of(w->h, in->op);
    w->batch->input(w->batch->input_ctx, &whole);
}

static kg_status hybrid_run(void *ctx, const struct batch *batch)
{
    struct hybrid *h = ctx;
    if (!h->cut) return backend_run(h->on[!h->ctx[0]], h->ctx[!h->ctx[0]], batch);
    if (batch->n > h->stream.ne[1]) return status_set(KG_ERR_ARGUMENT, "hybrid backend: a batch of %d tokens, at most %lld", batch->n, (long long)h->stream.ne[1]);
    struct watch watch = {h, batch};
    struct batch first = *batch;
    first.tap_ctx = first.input_ctx = &watch;
    if (batch->tap) first.tap = pass_tap;
    if (batch->input) first.input = pass_input;
    struct batch second = first;
    for (int t = 0; t < batch->n; t++) {
        h->tokens[0][t] = h->tokens[1][t] = batch->tokens[t];
        h->tokens[0][t].want_logits = true;
        h->tokens[1][t].id = t;
    }
    first.tokens = h->tokens[0];
    first.logits = h->rows;
    first.logits_f64 = NULL;
    second.tokens = h->tokens[1];
    KG_TRY(backend_run(h->on[0], h->ctx[0], &first));
    return backend_run(h->on[1], h->ctx[1], &second);
}

static double hybrid_error_bound(const void *ctx)
{
    const struct hybrid *h = ctx;
    double squares = 0;
    for (int i = 0; i < 2; i++)
        if (h->ctx[i]) squares += pow(h->on[i]->error_bound(h->ctx[i]), 2);
    return sqrt(squares);
}

#define HYBRID_FUNCTIONS \
    .shows_inputs = true, .close = hybrid_close, .kv_read = hybrid_kv_read, .kv_write = hybrid_kv_write, .kv_form = hybrid_kv_form, .state_read = hybrid_state_read, \
    .state_write = hybrid_state_write, .kv_reserve = hybrid_kv_reserve, .kv_copy = hybrid_kv_copy, .kv_block_bytes = hybrid_kv_block_bytes, \
    .state_reserve = hybrid_state_reserve, .state_copy = hybrid_state_copy, .state_bytes = hybrid_state_bytes, .run = hybrid_run, .error_bound = hybrid_error_bound

const struct backend backend_hybrid = {
    .name = "hybrid",
    .what = "the best GPU of this machine, and the processor for the layers that do not fit",
    .open = hybrid_open,
    HYBRID_FUNCTIONS,
};

const struct backend backend_hybrid_f32 = {
    .name = "hybrid-f32",
    .what = "the same with exact activations (--activations f32)",
    .open = hybrid_open_f32,
    HYBRID_FUNCTIONS,
};
