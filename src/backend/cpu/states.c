/* Of the cpu backend: the states of sequences, and the steps that go through tokens in order. A channel or head is computed by one thread, token by
 * token, so that neither threads nor batches change a bit. */
#include "backend/cpu/engine.h"

#include <stdlib.h>

size_t cpu_state_bytes(const void *ctx) { return ((const struct cpu *)ctx)->program->n_state * sizeof(float); }

void cpu_states_close(struct cpu *c)
{
    for (int i = 0; i < c->n_states; i++) free(c->states[i]);
    free(c->states);
}

kg_status cpu_state_reserve(void *ctx, int n)
{
    struct cpu *c = ctx;
    if (n <= c->n_states) return KG_OK;
    float **states = realloc(c->states, (size_t)n * sizeof *states);
    if (states) c->states = states;
    while (states && c->n_states < n) {
        float *state = calloc(MAX(c->program->n_state, 1), sizeof *state);
        if (!state) break;
        c->states[c->n_states++] = state;
    }
    return c->n_states >= n ? KG_OK : status_set(KG_ERR_MEMORY, "out of memory (%zu bytes of state)", cpu_state_bytes(c));
}

static kg_status check(const struct cpu *c, int state)
{
    return state >= 0 && state < c->n_states ? KG_OK : status_set(KG_ERR_ARGUMENT, "state %d of %d", state, c->n_states);
}

kg_status cpu_state_copy(void *ctx, int dst, int src)
{
    struct cpu *c = ctx;
    KG_TRY(check(c, dst));
    KG_TRY(check(c, src));
    if (dst != src) memcpy(c->states[dst], c->states[src], cpu_state_bytes(c));
    return KG_OK;
}

kg_status cpu_state_read(void *ctx, int state, void *out)
{
    struct cpu *c = ctx;
    KG_TRY(check(c, state));
    memcpy(out, c->states[state], cpu_state_bytes(c));
    return KG_OK;
}

kg_status cpu_state_write(void *ctx, int state, const void *in)
{
    struct cpu *c = ctx;
    KG_TRY(check(c, state));
    memcpy(c->states[state], in, cpu_state_bytes(c));
    return KG_OK;
}

/* Channels or heads of an operation. */
static int n_units(const struct cpu *c, const struct op *op)
{
    return op->code == OP_CONV ? c->program->reg_width[op->dst] : op->code == OP_SCAN ? op->scan.n_heads : op->code == OP_DELTA ? op->delta.n_heads : op->wkv.n_heads;
}

/* Before its first token a sequence has nothing behind it. */
static void clear(const struct op *op, float *state, int first, int end, int n)
{
    const size_t each = op->n_state / (size_t)n;
    if (op->code != OP_CONV) {
        memset(state + (size_t)first * each, 0, (size_t)(end - first) * each * sizeof *state);
        return;
    }
    for (size_t k = 0; k < each; k++) memset(state + k * (size_t)n + (size_t)first, 0, (size_t)(end - first) * sizeof *state);
}

void cpu_states_step(const struct cpu *c, const struct step *s, int n_threads, void *scratch, atomic_int *next)
{
    const struct op *op = s->op;
    const int n = n_units(c, op), piece = MAX((n + 4 * n_threads - 1) / (4 * n_threads), op->code == OP_CONV ? 64 : 1), n_pieces = (n + piece - 1) / piece;
    for (int i; (i = atomic_fetch_add_explicit(next, 1, memory_order_relaxed)) < n_pieces;) {
        struct cpu_state_job job = {.op = op, .w = s->w, .b = s->b, .first = i * piece, .end = MIN((i + 1) * piece, n), .scratch = scratch};
        for (int t = 0; t < c->batch->n; t++) {
            const struct batch_token *tok = &c->batch->tokens[t];
            job.state = c->states[c->batch->seqs[tok->seq].state] + op->state;
            if (tok->pos == 0) clear(op, job.state, job.first, job.end, n);
            job.x = cpu_row(c, op->src[0], t);
            job.x1 = op->src[1] >= 0 ? cpu_row(c, op->src[1], t) : NULL;
            job.x2 = op->src[2] >= 0 ? cpu_row(c, op->src[2], t) : NULL;
            job.y = cpu_row(c, op->dst, t);
            (op->code == OP_CONV ? c->kernels.conv : op->code == OP_SCAN ? c->kernels.scan : op->code == OP_DELTA ? c->kernels.delta : c->kernels.wkv)(&job);
        }
    }
}
