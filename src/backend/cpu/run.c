/* Runs the steps of a batch on the thread pool. */
#include "backend/cpu/engine.h"

#include "base/float_mode.h"
#include "tensor/decode.h"

#include <math.h>
#include <stdlib.h>

/* ---- steps that are split by tokens: one token ---- */

static void rope_tables(struct cpu *c, int t)
{
    for (int i = 0; i < c->n_rope_tables; i++) {
        struct cpu_rope_table *r = &c->rope_tables[i];
        int half = r->rope->n_rot / 2;
        float *out = r->cos_sin + (size_t)t * (size_t)half * 2;
        for (int j = 0; j < half; j++) {
            double angle = c->batch->tokens[t].pos * r->freq[j];
            out[2 * j] = (float)cos(angle) * r->magnitude;
            out[2 * j + 1] = (float)sin(angle) * r->magnitude;
        }
    }
}

/* Token t's row of operand k, which is register reg. */
static float *operand(const struct worker *w, const struct step *s, int k, int reg, int t)
{
    return w->one && s->own >> k & 1 ? w->c->own[w->i].reg[reg] : cpu_row(w->c, reg, t);
}

static float *result(const struct worker *w, const struct step *s, int t)
{
    return w->one && s->one == ONE_EACH ? w->c->own[w->i].reg[s->op->dst] : cpu_row(w->c, s->op->dst, t);
}

static void make_acts(const struct worker *w, const struct step *s, int t)
{
    struct cpu *c = w->c;
    const int width = c->program->reg_width[s->reg], n = cpu_n_tokens(c, s);
    const struct cpu_acts *a = w->one && s->one == ONE_EACH ? &c->own[w->i].acts[s->reg] : &c->acts[s->reg];
    acts_make(&c->kernels, a, s->acts, operand(w, s, 0, s->reg, t), width, n, t);
}

static void kv_store(const struct worker *w, const struct step *s, int t, int head)
{
    struct cpu *c = w->c;
    const struct batch_token *tok = &c->batch->tokens[t];
    const struct cpu_kv_layout *kv = &c->kv[s->op->attention.kv];
    uint8_t *block = c->seq_blocks[c->seq_first[tok->seq] + (size_t)(tok->pos / KV_BLOCK)];
    const float *k = operand(w, s, 1, s->op->src[1], t), *v = operand(w, s, 2, s->op->src[2], t);
    c->kernels.kv_store(kv, block, tok->pos % KV_BLOCK, head, k + head * kv->k_dim, v + head * kv->v_dim);
}

/* A row, or each head of it. */
static void norm(const struct cpu_kernels *k, const struct step *s, float *dst, const float *x, int width)
{
    const struct op *op = s->op;
    const int n = op->w ? (int)op->w->ne[0] : width;
    for (int i = 0; i < width; i += n) {
        const int at = op->w && op->w->ne[1] > 1 ? i : 0;
        (op->code == OP_RMS_NORM ? k->rms_norm : k->layer_norm)(dst + i, x + i, s->w ? s->w + at : NULL, s->b ? s->b + at : NULL, n, (float)op->eps);
    }
}

static void token_op(const struct worker *w, const struct step *s, int t)
{
    struct cpu *c = w->c;
    const struct op *op = s->op;
    const struct cpu_kernels *k = &c->kernels;
    const struct batch_token *tok = &c->batch->tokens[t];
    float *dst = result(w, s, t);
    const float *x = op->src[0] >= 0 ? operand(w, s, 0, op->src[0], t) : NULL; /* of SELECT: not the row that it takes */
    const float *y = op->src[1] >= 0 ? operand(w, s, 1, op->src[1], t) : NULL;
    int width = c->program->reg_width[op->dst];
    switch (op->code) {
    case OP_EMBED: decode_f32(op->w->type)(tensor_row(op->w, tok->id), dst, width); break;
    case OP_POS_EMBED:
        decode_f32(op->w->type)(tensor_row(op->w, tok->pos), w->scratch, width);
        k->add(dst, x, w->scratch, width);
        break;
    case OP_ADD_ROW:
        decode_f32(op->w->type)(tensor_row(op->w, 0), w->scratch, width);
        k->add(dst, x, w->scratch, width);
        break;
    case OP_RMS_NORM:
    case OP_LAYER_NORM: norm(k, s, dst, x, width); break;
    case OP_ROPE:
        if (dst != operand(w, s, 0, op->dst, t)) memcpy(dst, operand(w, s, 0, op->dst, t), (size_t)width * sizeof *dst);
        k->rope(dst, c->rope_tables[s->rope_table].cos_sin + (size_t)t * (size_t)op->rope.n_rot, &op->rope);
        break;
    case OP_ACT: k->act(dst, x, width, op->activation); break;
    case OP_GLU: k->glu(dst, x, y, width, op->activation); break;
    case OP_MUL: k->mul(dst, x, y, width); break;
    case OP_ADD: k->add(dst, x, y, width); break;
    case OP_LERP: k->lerp(dst, x, y, s->w, width); break;
    case OP_GATE: {
        float gate;
        k->act(&gate, y, 1, op->activation);
        k->scale(dst, x, width, gate);
        break;
    }
    case OP_SCALE: k->scale(dst, x, width, (float)op->value); break;
    case OP_ADAPT: {
        const double strength = batch_strength(c->batch, s->selected ? c->selected[t] : t, op->adapter);
        if (strength == 0) memset(dst, 0, (size_t)width * sizeof *dst);
        else k->scale(dst, x, width, (float)(op->value * strength));
        break;
    }
    case OP_POS_SCALE: k->scale(dst, x, width, (float)(1 + op->value * log(1 + floor(((double)tok->pos + op->first) / op->length)))); break;
    case OP_SOFTCAP: k->softcap(dst, x, width, (float)op->value); break;
    case OP_XIELU: k->xielu(dst, x, width, &op->xielu); break;
    case OP_CLAMP: k->clamp(dst, x, width, (float)op->value); break;
    case OP_ROUTE: cpu_route(&op->route, x, s->w, s->b, c->program->reg_width[op->src[0]], w->scratch, dst); break;
    case OP_TAKE: {
        const int n_heads = op->part.n_heads, n = width / n_heads, step = c->program->reg_width[op->src[0]] / n_heads;
        for (int h = 0; h < n_heads; h++) memcpy(dst + h * n, x + h * step + op->part.first, (size_t)n * sizeof *dst);
        break;
    }
    case OP_JOIN: {
        const int n_heads = op->part.n_heads, a = c->program->reg_width[op->src[0]] / n_heads, b = width / n_heads - a;
        for (int h = 0; h < n_heads; h++) {
            memcpy(dst + h * (a + b), x + h * a, (size_t)a * sizeof *dst);
            memcpy(dst + h * (a + b) + a, y + h * b, (size_t)b * sizeof *dst);
        }
        break;
    }
    case OP_COMBINE:
        k->scale(dst, x, width, y[op->n_used]);
        for (int i = 1; i < op->n_used; i++) k->add_scaled(dst, x + (size_t)i * (size_t)width, width, y[op->n_used + i]);
        break;
    case OP_SELECT: memcpy(dst, operand(w, s, 0, op->src[0], c->selected[t]), (size_t)width * sizeof *dst); break;
    default: break; /* the others are not split by tokens */
    }
}

/* ---- steps whose work is shared out in pieces ---- */

/* Pieces of shares of a matmul: of the thread's own, or of all others'. The thread's next share is of the matmul behind step `before`; what is fetched
 * ahead at the end of a piece of its own is what it reads next. */
static void matmul_shares(struct worker *w, int step, bool own, int64_t later, int before)
{
    const struct cpu *c = w->c;
    const struct step *s = &c->steps[step];
    const bool own_x = w->one && s->own & 1;
    struct cpu_matmul m = s->matmul;
    m.n = cpu_n_tokens(c, s);
    m.x = own_x ? c->own[w->i].reg[s->op->src[0]] : c->reg[s->op->src[0]];
    m.acts = own_x ? c->own[w->i].acts[s->op->src[0]] : c->acts[s->op->src[0]];
    m.y = c->reg[s->op->dst];
    m.scratch = w->scratch;
    const size_t ahead = m.n == 1 && m.packed && c->kernels.ahead ? c->kernels.ahead(&m) : 0;
    const uint8_t *after = ahead ? cpu_next_share(w, before) : NULL;
    for (int i = own ? 0 : 1; i < (own ? 1 : w->n); i++) {
        const int owner = (w->i + i) % w->n;
        while (own || !cpu_gone(w, step, owner)) {
            const struct share share = cpu_pieces(w, &m, owner, later);
            const struct piece p = cpu_take(w, step, &share, owner);
            if (p.row0 == p.row1) break;
            if (ahead) {
                m.asked = w->then == cpu_packed_at(&m, p.row0) ? w->asked : 0;
                w->then = m.then = own && !p.last ? cpu_packed_at(&m, p.row1) : after;
                w->asked = ahead;
            }
            m.t0 = p.t0, m.t1 = p.t1;
            s->matmul.format->run(&m, p.row0, p.row1);
        }
    }
}

static int64_t n_weights(const struct step *s) { return (int64_t)s->matmul.in * s->matmul.out; }

/* Matmuls from `first` on that follow each other without a meeting, as those of queries, keys and values: a thread reads its own shares of all of
 * them, rows behind each other, before it helps others. Returns their number. */
static int matmuls(struct worker *w, int first)
{
    const struct step *s = &w->c->steps[first];
    int count = 1;
    int64_t later = 0;
    if (!w->c->batch->tap && !w->c->batch->input)
        while (first + count < w->c->n_steps && cpu_is_matmul(&s[count]) && !(w->one ? s[count].one_barrier : s[count].barrier)) later += n_weights(&s[count++]);
    for (int k = 0; k < MIN(w->n, 2); k++) {
        const bool own = k == 0;
        int64_t left = later;
        for (int i = 0; i < count; i++) {
            if (i > 0) left -= n_weights(&s[i]);
            matmul_shares(w, first + i, own, left, own ? first + i : first + count - 1);
        }
    }
    return count;
}

/* Into how many parts the query heads of a KV head go, for single tokens of long texts: n_pieces pieces of work for all threads may leave some
 * idle, as with one KV head. Threads that read the same keys at the same time read them from memory once. Counted in query heads that a
 * thread serves; a piece takes as long as three, however few it has. */
static int split_heads(const struct worker *w, int n_pieces, int n_q)
{
    enum { LONG = 256, LEAST = 3 };
    const struct cpu *c = w->c;
    if (w->n == 1 || n_q == 1 || c->n_tiles < c->batch->n || c->batch->tokens[0].pos < LONG) return 1;
    int best = 1, best_cost = INT32_MAX;
    for (int parts = 1; parts <= MIN(n_q, w->n); parts++) {
        const int cost = (n_pieces * parts + w->n - 1) / w->n * MAX((n_q + parts - 1) / parts, LEAST);
        if (cost < best_cost) best = parts, best_cost = cost;
    }
    return best;
}

static void attend(const struct worker *w, int step)
{
    const struct cpu *c = w->c;
    const struct step *s = &c->steps[step];
    const struct attention *a = &s->op->attention;
    const int n_q = a->n_heads / a->n_kv_heads, parts = split_heads(w, c->n_tiles * a->n_kv_heads, n_q), n_pieces = c->n_tiles * a->n_kv_heads * parts;
    if (w->one && parts > 1) { /* several threads read what one stores */
        for (int h = w->i; h < a->n_kv_heads; h += w->n) kv_store(w, s, 0, h);
        pool_barrier(c->pool);
    }
    for (int i; (i = atomic_fetch_add_explicit(cpu_taken(w, step, 0), 1, memory_order_relaxed)) < n_pieces;) {
        const struct token_tile *tile = &c->tiles[c->n_tiles - 1 - i / parts / a->n_kv_heads]; /* late tokens first: they take longest */
        const struct batch_token *tok = &c->batch->tokens[tile->first];
        const int kv_head = i / parts % a->n_kv_heads, first = n_q * (i % parts) / parts, h = kv_head * n_q + first;
        if (w->one && parts == 1) kv_store(w, s, 0, kv_head);
        struct cpu_attend job = {
            .kv = &c->kv[a->kv],
            .blocks = c->seq_blocks + c->seq_first[tok->seq],
            .kv_head = kv_head,
            .n_q = n_q * (i % parts + 1) / parts - first,
            .n_tokens = tile->n,
            .n_pos = tok->pos + 1,
            .scale = (float)a->scale,
            .softcap = (float)a->softcap,
            .n_all = a->both ? (int)c->seq_first[2 * c->batch->n_seqs + tok->seq] : 0,
            .window = a->window,
            .chunked = a->chunked,
            .slopes = s->w ? s->w + h : NULL,
            .sinks = s->b ? s->b + h : NULL,
            .q = operand(w, s, 0, s->op->src[0], tile->first) + h * a->k_dim,
            .out = cpu_row(c, s->op->dst, tile->first) + h * a->v_dim,
            .q_stride = (size_t)c->program->reg_width[s->op->src[0]],
            .out_stride = (size_t)c->program->reg_width[s->op->dst],
            .scratch = w->scratch,
        };
        c->kernels.attend(&job);
    }
}

static void token_step(const struct worker *w, const struct step *s, int t)
{
    switch (s->code) {
    case STEP_ROPE_TABLES: rope_tables(w->c, t); break;
    case STEP_ACTS: make_acts(w, s, t); break;
    case STEP_KV_STORE:
        for (int h = 0; h < s->op->attention.n_kv_heads; h++) kv_store(w, s, t, h);
        break;
    case STEP_EXPERT_OUT: cpu_experts_out(w->c, s, t); break;
    default: token_op(w, s, t); break;
    }
}

/* The last step of an operation that is to be shown. */
static bool is_tapped(const struct cpu *c, const struct step *s)
{
    return c->batch->tap && (s->code == STEP_OP || s->code == STEP_ATTEND || s->code == STEP_EXPERT_OUT || s->code == STEP_STATE) && s->op->tap;
}

/* Steps from `first` on that are split by tokens and follow each other without a meeting: token by token through all of them, while
 * its rows are in cache. Returns their number. */
static int run_token_steps(const struct worker *w, int first)
{
    const struct cpu *c = w->c;
    const struct step *s = &c->steps[first];
    int count = 1;
    while (first + count < c->n_steps && s[count].split == SPLIT_TOKENS && !s[count].barrier && !is_tapped(c, &s[count - 1])) count++;
    const int64_t n = cpu_n_tokens(c, s);
    for (int t = (int)(n * w->i / w->n), end = (int)(n * (w->i + 1) / w->n); t < end; t++)
        for (int i = 0; i < count; i++) token_step(w, &s[i], t);
    return count;
}

static void show_tap(const struct worker *w, const struct step *s)
{
    const struct cpu *c = w->c;
    pool_barrier(c->pool);
    if (w->i == 0) c->batch->tap(c->batch->tap_ctx, s->op, cpu_n_tokens(c, s), c->program->reg_width[s->op->dst], c->reg[s->op->dst], NULL);
    pool_barrier(c->pool);
}

static void show_input(const struct worker *w, const struct step *s)
{
    const struct cpu *c = w->c;
    const int src = s->op->src[0], route = s->code == STEP_EXPERT_ROWS ? s->op->src[1] : -1;
    struct batch_input in = {.op = s->op, .n = cpu_n_tokens(c, s), .width = c->program->reg_width[src], .f32 = c->reg[src]};
    if (route >= 0) {
        in.route_width = c->program->reg_width[route];
        in.route_f32 = c->reg[route];
    }
    pool_barrier(c->pool);
    if (w->i == 0) c->batch->input(c->batch->input_ctx, &in);
    pool_barrier(c->pool);
}

/* Returns the number of steps. */
static int run_shared_steps(struct worker *w, int at)
{
    struct cpu *c = w->c;
    const struct step *s = &c->steps[at];
    if (s->ready) return 1;
    if (s->code == STEP_EXPERT_SORT && w->i == 0) cpu_experts_sort(c, s);
    if (s->code == STEP_EXPERT_ROWS) cpu_experts_rows(c, s, w->one, cpu_taken(w, at, 0));
    else if (s->code == STEP_EXPERT_MATMUL) cpu_experts_matmul(w, s, cpu_taken(w, at, 0));
    else if (s->code == STEP_STATE) cpu_states_step(c, s, w->n, w->scratch, cpu_taken(w, at, 0));
    else if (s->code == STEP_ATTEND) attend(w, at);
    else if (cpu_is_matmul(s)) return matmuls(w, at);
    return 1;
}

/* This thread's part of a row. */
static void part_step(const struct worker *w, const struct step *s)
{
    const struct cpu *c = w->c;
    const struct cpu_kernels *k = &c->kernels;
    const int reg = s->code == STEP_ACTS ? s->reg : s->op->dst, width = c->program->reg_width[reg], units = width / ACT_SUPER;
    const int from = units * w->i / w->n * ACT_SUPER, n = units * (w->i + 1) / w->n * ACT_SUPER - from;
    if (n == 0) return;
    if (s->code == STEP_ACTS) {
        acts_make_part(k, &c->acts[reg], s->acts, cpu_row(c, reg, 0) + from, width, from, n);
        return;
    }
    float *dst = cpu_row(c, reg, 0) + from;
    const float *x = operand(w, s, 0, s->op->src[0], 0) + from;
    if (s->op->code == OP_ACT || s->op->code == OP_XIELU) {
        if (s->op->code == OP_ACT) k->act(dst, x, n, s->op->activation);
        else k->xielu(dst, x, n, &s->op->xielu);
        return;
    }
    const float *y = operand(w, s, 1, s->op->src[1], 0) + from;
    if (s->op->code == OP_GLU) k->glu(dst, x, y, n, s->op->activation);
    else k->mul(dst, x, y, n);
}

/* A batch of one token, without a tap. */
static void run_one(struct worker *w)
{
    const struct cpu *c = w->c;
    for (int at = 0, count; at < c->n_steps; at += count) {
        const struct step *s = &c->steps[at];
        count = 1;
        if (s->selected && c->n_selected == 0) break;
        if (s->one_barrier) cpu_meet(w, at);
        switch (s->one) {
        case ONE_FIRST:
            if (w->i > 0) break;
            if (s->split == SPLIT_TOKENS) token_step(w, s, 0);
            else run_shared_steps(w, at);
            break;
        case ONE_EACH: token_step(w, s, 0); break;
        case ONE_PARTS: part_step(w, s); break;
        case ONE_NOT: break;
        case ONE_AS_MANY: count = run_shared_steps(w, at); break;
        }
    }
}

static void run_many(struct worker *w)
{
    const struct cpu *c = w->c;
    for (int at = 0; at < c->n_steps;) {
        const struct step *s = &c->steps[at];
        if (s->selected && c->n_selected == 0) break;
        if (s->barrier) cpu_meet(w, at);
        if (c->batch->input && (cpu_is_matmul(s) || s->code == STEP_EXPERT_ROWS)) show_input(w, s);
        if (s->split == SPLIT_TOKENS) at += run_token_steps(w, at);
        else at += run_shared_steps(w, at);
        if (is_tapped(c, &c->steps[at - 1])) show_tap(w, &c->steps[at - 1]);
    }
}

static void run_thread(void *ctx, int i, int n)
{
    struct cpu *c = ctx;
    struct worker w = {.c = c, .i = i, .n = n, .scratch = c->scratch[i], .fetch = {.first = -1}, .one = c->batch->n == 1 && n > 1 && !c->batch->tap && !c->batch->input};
    const float_mode before = float_mode_enter();
    cpu_share_clear(c, i);
    if (w.one) run_one(&w);
    else run_many(&w);
    float_mode_leave(before);
}

/* ---- a batch ---- */

static kg_status grow(void **p, size_t *cap, size_t need, size_t item)
{
    if (need <= *cap) return KG_OK;
    size_t n = MAX(need, 2 * *cap);
    void *fresh = realloc(*p, n * item);
    if (!fresh) return status_set(KG_ERR_MEMORY, "out of memory (%zu bytes)", n * item);
    *p = fresh;
    *cap = n;
    return KG_OK;
}

/* Translates block numbers to addresses, once per batch. */
static kg_status map_sequences(struct cpu *c, const struct batch *b)
{
    KG_TRY(grow((void **)&c->seq_first, &c->seq_first_cap, 3 * (size_t)b->n_seqs, sizeof *c->seq_first));
    size_t *n_blocks = c->seq_first + b->n_seqs, *n_pos = n_blocks + b->n_seqs, total = 0;
    memset(n_blocks, 0, 2 * (size_t)b->n_seqs * sizeof *n_blocks);
    for (int t = 0; t < b->n; t++) {
        const struct batch_token *tok = &b->tokens[t];
        if (tok->seq < 0 || tok->seq >= b->n_seqs || tok->pos < 0) return status_set(KG_ERR_ARGUMENT, "batch: token %d has no sequence", t);
        const int state = b->seqs[tok->seq].state;
        if (c->program->n_state && (state < 0 || state >= c->n_states)) return status_set(KG_ERR_ARGUMENT, "batch: state %d is not reserved", state);
        n_pos[tok->seq] = MAX(n_pos[tok->seq], (size_t)tok->pos + 1);
        n_blocks[tok->seq] = MAX(n_blocks[tok->seq], (size_t)(tok->pos / KV_BLOCK) + 1);
    }
    for (int s = 0; s < b->n_seqs; s++) {
        c->seq_first[s] = total;
        total += n_blocks[s];
    }
    KG_TRY(grow((void **)&c->seq_blocks, &c->seq_blocks_cap, total, sizeof *c->seq_blocks));
    for (int s = 0; s < b->n_seqs; s++) {
        for (size_t i = 0; i < n_blocks[s]; i++) {
            int32_t block = b->seqs[s].blocks[i];
            if (block < 0 || block >= c->n_kv_blocks) return status_set(KG_ERR_ARGUMENT, "batch: KV block %d is not reserved", (int)block);
            c->seq_blocks[c->seq_first[s] + i] = c->kv_blocks[block];
        }
    }
    return KG_OK;
}

static void tile_tokens(struct cpu *c, const struct batch *b)
{
    c->n_tiles = 0;
    for (int t = 0; t < b->n; t++) {
        const struct batch_token *tok = &b->tokens[t];
        struct token_tile *last = c->n_tiles ? &c->tiles[c->n_tiles - 1] : NULL;
        if (last && last->n < c->attend_tokens && tok->seq == tok[-1].seq && tok->pos == tok[-1].pos + 1) last->n++;
        else c->tiles[c->n_tiles++] = (struct token_tile){t, 1};
    }
}

kg_status cpu_run(void *ctx, const struct batch *b)
{
    struct cpu *c = ctx;
    if (b->n < 1 || b->n > c->params.max_batch) return status_set(KG_ERR_ARGUMENT, "batch of %d tokens, at most %d", b->n, c->params.max_batch);
    KG_TRY(map_sequences(c, b));
    c->n_selected = 0;
    for (int t = 0; t < b->n; t++) {
        if (b->tokens[t].id < 0 || b->tokens[t].id >= c->program->n_vocab)
            return status_set(KG_ERR_ARGUMENT, "token id %d is not in the vocabulary", (int)b->tokens[t].id);
        if (c->program->ctx_is_hard && b->tokens[t].pos >= c->program->n_ctx)
            return status_set(KG_ERR_CONTEXT, "position %d is beyond the model's %lld", (int)b->tokens[t].pos, (long long)c->program->n_ctx);
        if (b->tokens[t].want_logits) c->selected[c->n_selected++] = t;
    }
    tile_tokens(c, b);
    c->batch = b;
    KG_TRY(cpu_choose_plan(c, batch_adapters(b, c->program)));
    c->reg[c->logits_reg] = b->logits;
    c->work = cpu_other_work(c);
    pool_run(c->pool, run_thread, c);
    c->batch = NULL;
    return KG_OK;
}
