/* layers: run */
/* The GPU engine on whole models, on the emulator and on every device of this machine: greedy continuations are those of a program that
 * shares no code with this one, logits at the defaults are within 2e-3 of float64, and quantized models stay within the error that the
 * engine states. KAGARI_TEST_LONG runs all of it on the emulator as well, which is slow. */
#include "gpu_test.h"
#include "run/run.h"

#define MAX_IDS 512

struct golden {
    int32_t ids[MAX_IDS], greedy[MAX_IDS];
    int n, n_greedy;
};

static char *read_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    fseek(f, 0, SEEK_END);
    long n = ftell(f);
    rewind(f);
    char *text = malloc((size_t)n + 1);
    assert_non_null(text);
    assert_int_equal(fread(text, 1, (size_t)n, f), n);
    text[n] = 0;
    fclose(f);
    return text;
}

/* Numbers of the array that follows "key": behind `at`; returns the place after it. */
static const char *read_ids(const char *at, const char *key, int32_t *ids, int *n)
{
    at = at ? strstr(at, key) : NULL;
    if (!at) return NULL;
    at = strchr(at, '[') + 1;
    for (*n = 0; *n < MAX_IDS; (*n)++) {
        char *end;
        long v = strtol(at, &end, 10);
        if (end == at) break;
        ids[*n] = (int32_t)v;
        at = strchr(",]", *end) && *end == ',' ? end + 1 : end;
    }
    return at;
}

/* The logits after ids, and n_more ids by argmax behind them. */
static void greedy(const struct backend *b, void *ctx, const struct program *p, const struct golden *g, float *first, int32_t *more, int n_more)
{
    int32_t blocks[TL_BLOCKS * 2];
    for (int i = 0; i < (int)COUNT_OF(blocks); i++) blocks[i] = (int32_t)COUNT_OF(blocks) - 1 - i;
    struct batch_seq seq = {.blocks = blocks};
    struct batch_token *tokens = calloc((size_t)g->n, sizeof *tokens);
    float *logits = malloc((size_t)p->n_vocab * sizeof *logits);
    assert_true(tokens && logits);
    for (int i = 0; i < g->n; i++) tokens[i] = (struct batch_token){g->ids[i], i, 0, i == g->n - 1};
    struct batch batch = {.tokens = tokens, .n = g->n, .seqs = &seq, .n_seqs = 1, .logits = logits};
    OK(b->kv_reserve(ctx, COUNT_OF(blocks)));
    for (int i = 0; i <= n_more; i++) {
        OK(b->run(ctx, &batch));
        if (i == 0) memcpy(first, logits, (size_t)p->n_vocab * sizeof *logits);
        if (i == n_more) break;
        int best = 0;
        for (int v = 1; v < p->n_vocab; v++)
            if (logits[v] > logits[best]) best = v;
        more[i] = best;
        tokens[0] = (struct batch_token){best, g->n + i, 0, true};
        batch.n = 1;
    }
    free(tokens);
    free(logits);
}

static void check_golden(const char *name)
{
    char path[600];
    snprintf(path, sizeof path, "%s/reference/%s.json", SHARED_DIR, name);
    char *text = read_file(path);
    snprintf(path, sizeof path, "%s/reference/%s.logits.f64", SHARED_DIR, name);
    char *golden_logits = read_file(path);
    if (!text || !golden_logits) {
        print_message("skipped: no golden results of %s\n", name);
        free(text);
        free(golden_logits);
        skip();
    }
    struct model m;
    snprintf(path, sizeof path, "%s/models/%s-f16.gguf", SHARED_DIR, name);
    OK(model_open(&m, path));
    const size_t vocab = (size_t)m.program.n_vocab;
    float *first = malloc(vocab * sizeof *first);
    assert_non_null(first);
    for (size_t d = 0; d < COUNT_OF(gpu_names); d++) {
        void *exact = gpu_ctx(d, &m.program, KG_ACT_INT8, KG_KV_F32, 256), *usual = gpu_ctx(d, &m.program, KG_ACT_INT8, KG_KV_F16, 256);
        const struct backend *b = backend_find(gpu_names[d]);
        const bool slow = gpu_quick(d);
        const char *at = text;
        double worst = 0;
        for (int entry = 0; exact; entry++) {
            static struct golden g;
            int32_t more[MAX_IDS];
            at = read_ids(at, "\"ids\"", g.ids, &g.n);
            if (!at) break;
            at = read_ids(at, "\"greedy\"", g.greedy, &g.n_greedy);
            assert_non_null(at);
            if (slow && entry != 1) continue;
            const int n = slow ? 4 : g.n_greedy;
            const double *want = (const double *)(const void *)golden_logits + (size_t)entry * vocab;
            greedy(b, exact, &m.program, &g, first, more, n);
            for (int i = 0; i < n; i++)
                if (more[i] != g.greedy[i]) fail_msg("%s: %s, prompt %d: id %d is %d, not %d", gpu_names[d], name, entry, i, (int)more[i], (int)g.greedy[i]);
            greedy(b, usual, &m.program, &g, first, more, 0);
            worst = fmax(worst, relative_error(first, want, vocab));
        }
        if (!exact) continue;
        print_message("%s: %s: logits at the defaults are off by %.3g\n", gpu_names[d], name, worst);
        if (!(worst <= 2e-3)) fail_msg("%s: %s: relative error of the logits %.3g", gpu_names[d], name, worst);
        b->close(exact);
        b->close(usual);
    }
    free(first);
    free(text);
    free(golden_logits);
    model_close(&m);
}

static void stories(void **state)
{
    (void)state;
    check_golden("stories");
}
static void gpt2(void **state)
{
    (void)state;
    check_golden("gpt2");
}

/* Prompt and single tokens of a quantized model against the reference. */
static void check_quantized(const char *path)
{
    struct model m;
    if (model_open(&m, path) != KG_OK) {
        print_message("skipped: %s\n", kg_error_message());
        return;
    }
    struct timeline l = {0};
    const int n_tokens = is_long() || getenv("KAGARI_TEST_GPU") ? 40 : 12;
    for (int i = 0; i < n_tokens; i++) timeline_add(&l, 0, i, (i * 131 + 300) % m.program.n_vocab, i > n_tokens / 2);
    struct backend_params params = {.n_threads = 1, .max_batch = 64};
    const struct backend *ref = backend_find("reference");
    void *ctx;
    double *want;
    OK(ref->open(&ctx, &m.program, &params));
    free(compute(ref, ctx, m.program.n_vocab, &l, 40, &want));
    ref->close(ctx);
    for (size_t d = 0; d < COUNT_OF(gpu_names); d++)
        for (int n = 1; n <= 40; n += n == 1 ? 6 : 33) {
            if (gpu_quick(d) && n != 40) continue;
            ctx = gpu_ctx(d, &m.program, KG_ACT_INT8, KG_KV_F16, 64);
            if (!ctx) continue;
            const struct backend *b = backend_find(gpu_names[d]);
            float *got = compute(b, ctx, m.program.n_vocab, &l, n, NULL);
            double error = relative_error(got, want, (size_t)l.n_wanted * (size_t)m.program.n_vocab), bound = b->error_bound(ctx);
            print_message("%s: batches of %d: error %.3g, bound %.3g\n", gpu_names[d], n, error, bound);
            if (!(error <= bound)) fail_msg("%s: %s, batches of %d: relative error %.3g, bound %.3g", gpu_names[d], path, n, error, bound);
            free(got);
            b->close(ctx);
        }
    free(want);
    model_close(&m);
}

static void quantized(void **state)
{
    (void)state;
    check_quantized(SOURCE_DIR "/models/stories-q4_k_m.gguf");
    if (!is_long() && !getenv("KAGARI_TEST_GPU")) return;
    check_quantized(SHARED_DIR "/models/gpt2-Q4_K_M.gguf");
    check_quantized(SHARED_DIR "/models/stories-Q8_0.gguf");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(stories), cmocka_unit_test(gpt2), cmocka_unit_test(quantized)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
