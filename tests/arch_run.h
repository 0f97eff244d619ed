/* Runs a tiny model (arch_case.h) on a backend and compares with its golden logits. Header only; wants OK() and run/run.h. */
#ifndef TESTS_ARCH_RUN_H
#define TESTS_ARCH_RUN_H

#include "arch_case.h"

enum { BLOCKS = 4 };

static int best_of(const float *x, int n)
{
    int best = 0;
    for (int i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

/* The prompt, `step` tokens at a time, then greedy ids one by one; what differs from the golden ones fails. */
static void run_case(const char *name, const struct backend *b, const struct model *m, const struct cases *c, int step, double most)
{
    const struct backend_params params = {.n_threads = 1, .kv_type = KG_KV_F16, .activations = KG_ACT_F32, .max_batch = MOST, .gpu_layers = 1};
    const int32_t blocks[BLOCKS] = {2, 0, 3, 1};
    const struct batch_seq seq = {.blocks = blocks, .state = m->program.n_state ? 1 : 0};
    const size_t vocab = (size_t)program_n_out(&m->program);
    struct batch_token tokens[MOST];
    void *ctx;
    if (m->program.is_encoder) step = MOST; /* which takes a text at once */
    const kg_status status = b->open(&ctx, &m->program, &params);
    if (status != KG_OK) {
        if (strcmp(b->name, "cpu") == 0 || strcmp(b->name, "reference") == 0 || status != KG_ERR_UNSUPPORTED) fail_msg("%s: %s", name, kg_error_message());
        print_message("%-16s %s\n", name, kg_error_message());
        return;
    }
    OK(b->kv_reserve(ctx, BLOCKS));
    if (m->program.n_state) OK(b->state_reserve(ctx, 2));
    float *logits = malloc((size_t)c->n * vocab * sizeof *logits);
    double *exact = malloc((size_t)c->n * vocab * sizeof *exact), largest = 0, worst = 0, diff = 0, size = 0;
    assert_true(logits && exact && c->n_logits == (size_t)c->n * vocab && c->n + c->n_greedy < BLOCKS * KV_BLOCK);
    for (int t = 0; t < c->n; t++) tokens[t] = (struct batch_token){c->ids[t], t, 0, true};
    for (int t = 0; t < c->n; t += step) {
        const size_t at = (size_t)t * vocab;
        const struct batch batch = {.tokens = tokens + t, .n = MIN(step, c->n - t), .seqs = &seq, .n_seqs = 1, .logits = logits + at, .logits_f64 = exact + at};
        OK(b->run(ctx, &batch));
    }
    for (size_t i = 0; i < c->n_logits; i++) {
        const double d = fabs((b->has_f64 ? exact[i] : (double)logits[i]) - c->logits[i]);
        largest = fmax(largest, fabs(c->logits[i]));
        if (!(d <= worst)) worst = d;
        diff += d * d;
        size += c->logits[i] * c->logits[i];
    }
    const double error = b->has_f64 ? worst / largest : sqrt(diff / size);
    if (!(error <= most)) fail_msg("%s: %s, %d tokens at a time: logits are off by %.3g", name, b->name, step, error);
    if (getenv("KAGARI_TEST_ARCH")) print_message("%s: %s, %d tokens at a time: %.3g\n", name, b->name, step, error);
    int id = best_of(logits + (size_t)(c->n - 1) * vocab, (int)vocab);
    for (int i = 0; i < c->n_greedy; i++) {
        if (id != c->greedy[i]) fail_msg("%s: %s: greedy id %d is %d, not %d", name, b->name, i, id, (int)c->greedy[i]);
        const struct batch_token next = {id, c->n + i, 0, true};
        const struct batch batch = {.tokens = &next, .n = 1, .seqs = &seq, .n_seqs = 1, .logits = logits, .logits_f64 = exact};
        OK(b->run(ctx, &batch));
        id = best_of(logits, (int)vocab);
    }
    b->close(ctx);
    free(logits);
    free(exact);
}

#endif
