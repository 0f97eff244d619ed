/* layers: run */
/* kg_perplexity against the same sums over logits of sessions that compute one token after the other. */
#include "run/run.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

static const char model_path[] = SOURCE_DIR "/models/stories-q4_k_m.gguf";
static const char text[] =
    "Once upon a time there was a poor woodcutter who lived with his wife and his two children at the edge of a great forest. They had "
    "little to eat, and one year, when there was no bread left in the land, he could no longer give them what they needed every day. "
    "The children heard what was said, and the girl wept, but her brother told her not to be afraid, for he had found a way to help.";

#define OK(expr)                                                                                                                           \
    do {                                                                                                                                   \
        if ((expr) != KG_OK) fail_msg("%s: %s", #expr, kg_error_message());                                                                \
    } while (0)

enum { N_CTX = 33 }; /* odd, and less than a run of the library takes; LONG_CTX takes two runs */
enum { LONG_CTX = 80 };

static kg_model *model, *base;
static int32_t *ids;
static size_t n_ids, n_vocab;

static int open_models(void **state)
{
    (void)state;
    kg_model_params p = kg_model_default_params();
    p.n_threads = 2;
    if (kg_model_open(&model, model_path, &p)) return -1;
    p.activations = KG_ACT_F32; /* the better file of these tests: the same with exact activations */
    if (kg_model_open(&base, model_path, &p)) return -1;
    n_vocab = (size_t)kg_model_n_vocab(model);
    return kg_tokenize(kg_model_tokenizer(model), text, sizeof text - 1, KG_TOKENIZE_BOS, &ids, &n_ids) ? -1 : 0;
}

static int close_models(void **state)
{
    (void)state;
    kg_free(ids);
    kg_model_close(&model);
    kg_model_close(&base);
    return 0;
}

/* Log-probabilities after tokens[0..n); returns the most likely token. */
static size_t log_probs(kg_session *s, const int32_t *tokens, size_t n, double *out)
{
    OK(kg_session_sync(s, tokens, n));
    const float *x = kg_session_logits(s);
    double sum = 0;
    size_t top = 0;
    for (size_t i = 0; i < n_vocab; i++) {
        sum += exp((double)x[i]); /* logits of this model are far from overflow */
        if (x[i] > x[top]) top = i;
    }
    for (size_t i = 0; i < n_vocab; i++) out[i] = (double)x[i] - log(sum);
    return top;
}

static void compare(size_t n_ctx)
{
    kg_perplexity_report r;
    OK(kg_perplexity(model, base, ids, n_ids, n_ctx, NULL, NULL, &r));
    size_t n_windows = n_ids / n_ctx, per_window = n_ctx - n_ctx / 2 - 1, n = 0, same = 0;
    assert_true(n_windows >= 1);
    double *nll = malloc(n_windows * per_window * sizeof *nll), *kl = calloc(n_windows * per_window, sizeof *kl);
    double *q = malloc(n_vocab * sizeof *q), *p = malloc(n_vocab * sizeof *p);
    int32_t *window = malloc(n_ctx * sizeof *window);
    assert_true(nll && kl && q && p && window);
    for (size_t w = 0; w < n_windows; w++) {
        memcpy(window, ids + w * n_ctx, n_ctx * sizeof *window);
        window[0] = ids[0];
        kg_session *s = NULL, *t = NULL;
        OK(kg_session_new(&s, model, NULL));
        OK(kg_session_new(&t, base, NULL));
        for (size_t i = n_ctx / 2; i + 1 < n_ctx; i++, n++) {
            same += log_probs(s, window, i + 1, q) == log_probs(t, window, i + 1, p);
            nll[n] = -q[window[i + 1]];
            for (size_t j = 0; j < n_vocab; j++) kl[n] += exp(p[j]) * (p[j] - q[j]);
        }
        kg_session_free(&s);
        kg_session_free(&t);
    }
    assert_int_equal(r.n_tokens, n);
    double mean[2] = {0}, square[2] = {0};
    for (size_t i = 0; i < n; i++) mean[0] += nll[i] / (double)n, mean[1] += kl[i] / (double)n;
    for (size_t i = 0; i < n; i++) square[0] += pow(nll[i] - mean[0], 2), square[1] += pow(kl[i] - mean[1], 2);
    /* float64 sums of fewer than 2^18 terms in another order: 2^18 * 2^-53 of their size, about 11 */
    assert_true(fabs(r.nll - mean[0]) < 1e-9 && fabs(r.kl - mean[1]) < 1e-9);
    assert_true(r.kl > 0 && r.kl < r.nll);
    assert_true(fabs(r.nll_error - sqrt(square[0] / (double)((n - 1) * n))) < 1e-7);
    assert_true(fabs(r.kl_error - sqrt(square[1] / (double)((n - 1) * n))) < 1e-7);
    assert_true(r.perplexity == exp(r.nll) && fabs(r.perplexity_error - r.perplexity * r.nll_error) < 1e-9);
    assert_true(r.same_top == (double)same / (double)n);
    free(nll), free(kl), free(q), free(p), free(window);
}

static void same_as_one_by_one(void **state)
{
    (void)state;
    compare(N_CTX);
    compare(LONG_CTX);
}

static void no_divergence_from_itself(void **state)
{
    (void)state;
    kg_perplexity_report r;
    OK(kg_perplexity(model, model, ids, n_ids, N_CTX, NULL, NULL, &r));
    assert_true(r.kl == 0 && r.kl_error == 0 && r.same_top == 1);
}

static bool stop_after(void *ctx, size_t done, size_t total)
{
    assert_int_equal(total, n_ids / N_CTX);
    return done < *(size_t *)ctx;
}

static void refusals(void **state)
{
    (void)state;
    kg_perplexity_report r;
    size_t stop = 1;
    assert_int_equal(kg_perplexity(model, NULL, ids, n_ids, N_CTX, stop_after, &stop, &r), KG_ERR_ABORTED);
    assert_int_equal(kg_perplexity(model, NULL, ids, n_ids, n_ids + 1, NULL, NULL, &r), KG_ERR_ARGUMENT);
    assert_int_equal(kg_perplexity(model, NULL, ids, n_ids, 3, NULL, NULL, &r), KG_ERR_ARGUMENT);
    assert_int_equal(kg_perplexity(NULL, NULL, ids, n_ids, N_CTX, NULL, NULL, &r), KG_ERR_ARGUMENT);
    int32_t bad[4] = {1, 2, -5, 3};
    assert_int_equal(kg_perplexity(model, NULL, bad, 4, 4, NULL, NULL, &r), KG_ERR_ARGUMENT);
    OK(kg_perplexity(model, NULL, ids, n_ids, N_CTX, NULL, NULL, &r));
    assert_true(r.nll > 0 && r.kl == 0 && r.same_top == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_as_one_by_one),
        cmocka_unit_test(no_divergence_from_itself),
        cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests(tests, open_models, close_models);
}
