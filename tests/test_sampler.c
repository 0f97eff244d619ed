/* layers: run */
/* The sampler: which tokens each filter leaves, in which proportion they are drawn, and that the answer is a function of its
 * arguments alone. Seeds are fixed, so a pass is a pass for ever. */
#include "run/run.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

/* Everything off: draws from the plain softmax. */
static kg_sampler_params plain(void)
{
    return (kg_sampler_params){.temperature = 1, .top_p = 1, .repeat_penalty = 1, .penalty_last_n = -1};
}

static int32_t sample(const float *logits, int32_t n, kg_sampler_params p, const int32_t *history, size_t n_history)
{
    int32_t token = -1;
    if (kg_sample(logits, n, &p, history, n_history, &token) != KG_OK) fail_msg("%s", kg_error_message());
    assert_true(token >= 0 && token < n);
    return token;
}

static int32_t zeros[4096]; /* a history whose content does not matter: only its length selects the random number */

static void count_draws(const float *logits, int32_t n, kg_sampler_params p, int *counts, int n_draws)
{
    memset(counts, 0, (size_t)n * sizeof *counts);
    for (int i = 0; i < n_draws; i++) {
        p.seed = (uint64_t)(i / 4096) + 1;
        counts[sample(logits, n, p, zeros, (size_t)(i % 4096))]++;
    }
}

/* Exactly the ids in `set` (a bit each) are drawn, in proportion to exp(logit / temperature): chi-square with at most 15 degrees of
 * freedom is below 45 with probability 0.9999. */
static void assert_draws(const float *logits, int32_t n, kg_sampler_params p, uint32_t set)
{
    enum { DRAWS = 20000 };
    int counts[16];
    double weights[16], total = 0, chi = 0;
    count_draws(logits, n, p, counts, DRAWS);
    for (int i = 0; i < n; i++) {
        weights[i] = set >> i & 1 ? exp((double)logits[i] / (double)p.temperature) : 0;
        total += weights[i];
    }
    for (int i = 0; i < n; i++) {
        double expected = weights[i] / total * DRAWS;
        if (expected == 0)
            assert_int_equal(counts[i], 0);
        else
            chi += (counts[i] - expected) * (counts[i] - expected) / expected;
    }
    if (chi > 45) fail_msg("chi-square %g", chi);
}

static const float eight[8] = {0.5f, 2.0f, -1.0f, 1.5f, 1.0f, -0.5f, 0.0f, 1.25f};

static void known_random_numbers(void **state)
{
    (void)state;
    /* the known answers that come with Random123 for philox4x32, 10 rounds */
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } cases[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}, {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        uint32_t out[4];
        philox4x32(cases[i].counter, cases[i].key, out);
        assert_memory_equal(out, cases[i].out, sizeof out);
    }
}

static void proportions(void **state)
{
    (void)state;
    kg_sampler_params p = plain();
    assert_draws(eight, 8, p, 0xff);
    p.temperature = 0.3f;
    assert_draws(eight, 8, p, 0xff);
    p.temperature = 5;
    assert_draws(eight, 8, p, 0xff);
}

static void top_k_sets(void **state)
{
    (void)state;
    kg_sampler_params p = plain();
    static const int order[8] = {1, 3, 7, 4, 0, 6, 5, 2}; /* of eight[], most likely first */
    uint32_t set = 0;
    for (int k = 1; k <= 8; k++) {
        set |= 1u << order[k - 1];
        p.top_k = k;
        assert_draws(eight, 8, p, set);
    }
    p.top_k = 1000;
    assert_draws(eight, 8, p, 0xff);
    static const float ties[6] = {1, 2, 1, 2, 1, 2};
    p.top_k = 4; /* the lowest id of the equals */
    assert_draws(ties, 6, p, 1 << 1 | 1 << 3 | 1 << 5 | 1 << 0);
}

static void top_p_sets(void **state)
{
    (void)state;
    /* probabilities 0.1, 0.4, 0.2, 0.3 */
    const float l[4] = {logf(0.1f), logf(0.4f), logf(0.2f), logf(0.3f)};
    static const struct {
        float top_p;
        uint32_t set;
    } cases[] = {{0, 2}, {0.35f, 2}, {0.45f, 2 | 8}, {0.69f, 2 | 8}, {0.75f, 2 | 8 | 4}, {0.95f, 15}, {1, 15}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        kg_sampler_params p = plain();
        p.top_p = cases[i].top_p;
        assert_draws(l, 4, p, cases[i].set);
    }
    kg_sampler_params p = plain();
    p.top_k = 2; /* top-p then counts shares of what top-k left: 4/7 and 3/7 */
    p.top_p = 0.5f;
    assert_draws(l, 4, p, 2);
    p.top_p = 0.6f;
    assert_draws(l, 4, p, 2 | 8);
    static const float equal[5] = {1, 1, 1, 1, 1};
    p = plain();
    p.top_p = 0.5f; /* three of five, the lowest ids */
    assert_draws(equal, 5, p, 7);
}

static void min_p_sets(void **state)
{
    (void)state;
    const float l[4] = {logf(0.1f), logf(0.4f), logf(0.2f), logf(0.3f)};
    static const struct {
        float min_p;
        uint32_t set;
    } cases[] = {{0, 15}, {0.2f, 15}, {0.3f, 2 | 4 | 8}, {0.6f, 2 | 8}, {0.8f, 2}, {1, 2}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        kg_sampler_params p = plain();
        p.min_p = cases[i].min_p;
        assert_draws(l, 4, p, cases[i].set);
    }
}

static void greedy_and_odd_numbers(void **state)
{
    (void)state;
    kg_sampler_params p = plain();
    p.temperature = 0;
    static const float ties[5] = {1, 3, 3, 2, 3};
    assert_int_equal(sample(ties, 5, p, NULL, 0), 1);
    float odd[6] = {NAN, -INFINITY, 0.5f, INFINITY, 1, NAN};
    assert_int_equal(sample(odd, 6, p, NULL, 0), 4);
    kg_sampler_params warm = plain();
    assert_draws(odd, 6, warm, 1 << 2 | 1 << 4);
    warm.top_k = 1;
    assert_draws(odd, 6, warm, 1 << 4);
    warm.top_k = 0;
    warm.top_p = 0.5f;
    assert_draws(odd, 6, warm, 1 << 4);
    static const float tiny[3] = {-1e30f, -3e38f, 3e38f};
    assert_int_equal(sample(tiny, 3, plain(), NULL, 0), 2);
    warm = plain();
    warm.temperature = 1e-30f;
    assert_draws(eight, 8, warm, 1 << 1);
    float none[3] = {NAN, INFINITY, -INFINITY};
    int32_t token = 77;
    assert_int_equal(kg_sample(none, 3, &p, NULL, 0, &token), KG_ERR_DEVICE);
    warm = plain();
    assert_int_equal(kg_sample(none, 3, &warm, NULL, 0, &token), KG_ERR_DEVICE);
    assert_int_equal(token, 77);
}

static void penalties(void **state)
{
    (void)state;
    kg_sampler_params p = plain();
    p.temperature = 0;
    static const float l[4] = {2.0f, 1.9f, -1.0f, 1.0f};
    static const int32_t history[5] = {3, 3, 0, 0, 0};
    assert_int_equal(sample(l, 4, p, history, 5), 0);
    p.repeat_penalty = 1.1f; /* 2 / 1.1 = 1.82 */
    assert_int_equal(sample(l, 4, p, history, 5), 1);
    p.penalty_last_n = 0;
    assert_int_equal(sample(l, 4, p, history, 5), 0);
    p = plain();
    p.temperature = 0;
    p.presence_penalty = 0.2f;
    assert_int_equal(sample(l, 4, p, history, 5), 1);
    p.presence_penalty = 0.05f; /* once, however often: 1.95 */
    assert_int_equal(sample(l, 4, p, history, 5), 0);
    p.presence_penalty = 0;
    p.frequency_penalty = 0.05f; /* three times: 1.85 */
    assert_int_equal(sample(l, 4, p, history, 5), 1);
    p.penalty_last_n = 1;
    assert_int_equal(sample(l, 4, p, history, 5), 0);
    /* a negative logit is multiplied: -1 -> -2, below -1.5 */
    static const float negative[2] = {-1.0f, -1.5f};
    p = plain();
    p.temperature = 0;
    p.repeat_penalty = 2;
    assert_int_equal(sample(negative, 2, p, (int32_t[]){0}, 1), 1);
    /* the proportions after penalties, at temperature 1: token 0 at 2/2, token 3 at 1/2 */
    p.temperature = 1;
    int counts[4];
    static int32_t long_history[4096];
    for (int i = 0; i < 4096; i++) long_history[i] = i % 2 ? 3 : 0;
    memset(counts, 0, sizeof counts);
    for (int i = 2; i < 4096; i++) counts[sample(l, 4, p, long_history, (size_t)i)]++;
    double w[4] = {exp(1), exp(1.9), exp(-1), exp(0.5)}, total = w[0] + w[1] + w[2] + w[3];
    for (int i = 0; i < 4; i++) assert_true(fabs(counts[i] / 4094.0 - w[i] / total) < 0.035);
    int32_t token;
    assert_int_equal(kg_sample(l, 4, &p, (int32_t[]){4}, 1, &token), KG_ERR_ARGUMENT);
    assert_int_equal(kg_sample(l, 4, &p, (int32_t[]){-1}, 1, &token), KG_ERR_ARGUMENT);
}

static void is_pure(void **state)
{
    (void)state;
    float logits[512], copy[512];
    for (int i = 0; i < 512; i++) logits[i] = sinf((float)i * 12.9898f) * 3;
    memcpy(copy, logits, sizeof copy);
    kg_sampler_params p = kg_sampler_default_params();
    assert_int_equal(kg_sampler_check(&p), KG_OK);
    p.temperature = 1.5f;
    p.repeat_penalty = 1.2f;
    int differ_by_seed = 0, differ_by_position = 0;
    for (uint64_t seed = 0; seed < 50; seed++) {
        p.seed = seed;
        int32_t a = sample(logits, 512, p, zeros, 10), b = sample(logits, 512, p, zeros, 10), c = sample(logits, 512, p, zeros, 11);
        assert_int_equal(a, b);
        p.seed = seed + (UINT64_C(1) << 40);
        differ_by_seed += sample(logits, 512, p, zeros, 10) != a;
        differ_by_position += c != a;
    }
    assert_memory_equal(logits, copy, sizeof copy);
    assert_true(differ_by_seed > 30 && differ_by_position > 30);
}

static int compare_floats(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return x > y ? -1 : x < y;
}

/* A vocabulary of real size: what is drawn is among the k best of a full sort, and top-p of the whole draws only its head. */
static void large_vocabulary(void **state)
{
    (void)state;
    enum { N = 131072 };
    float *l = malloc(N * sizeof *l), *sorted = malloc(N * sizeof *sorted);
    assert_true(l && sorted);
    uint32_t x = 12345;
    for (int i = 0; i < N; i++) {
        x = x * 1664525u + 1013904223u;
        l[i] = (float)(x >> 8) / (float)(1 << 24) * 20;
    }
    memcpy(sorted, l, N * sizeof *l);
    qsort(sorted, N, sizeof *sorted, compare_floats);
    double total = 0, sum = 0;
    for (int i = 0; i < N; i++) total += exp((double)sorted[i]);
    int head = 0;
    while (sum < 0.5 * total) sum += exp((double)sorted[head++]);
    kg_sampler_params k40 = plain(), p50 = plain();
    k40.top_k = 40;
    k40.temperature = 100; /* nearly flat, so that the last of the 40 come too */
    p50.top_p = 0.5f;
    bool last_seen = false;
    for (size_t i = 0; i < 300; i++) {
        float a = l[sample(l, N, k40, zeros, i)];
        assert_true(a >= sorted[39]);
        last_seen |= a <= sorted[35];
        assert_true(l[sample(l, N, p50, zeros, i)] >= sorted[head - 1]);
    }
    assert_true(last_seen);
    free(l);
    free(sorted);
}

static void ranges(void **state)
{
    (void)state;
    const kg_sampler_params ok = kg_sampler_default_params();
    kg_sampler_params bad[16];
    size_t n = 0;
    for (size_t i = 0; i < COUNT_OF(bad); i++) bad[i] = ok;
    bad[n++].temperature = -0.1f;
    bad[n++].temperature = NAN;
    bad[n++].temperature = INFINITY;
    bad[n++].top_k = -1;
    bad[n++].top_p = -0.1f;
    bad[n++].top_p = 1.1f;
    bad[n++].top_p = NAN;
    bad[n++].min_p = -0.1f;
    bad[n++].min_p = 1.5f;
    bad[n++].min_p = NAN;
    bad[n++].repeat_penalty = 0;
    bad[n++].repeat_penalty = -1;
    bad[n++].repeat_penalty = NAN;
    bad[n++].presence_penalty = INFINITY;
    bad[n++].frequency_penalty = NAN;
    bad[n++].penalty_last_n = -2;
    assert_int_equal(n, COUNT_OF(bad));
    int32_t token;
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(kg_sampler_check(&bad[i]), KG_ERR_ARGUMENT);
        assert_int_equal(kg_sample(eight, 8, &bad[i], NULL, 0, &token), KG_ERR_ARGUMENT);
    }
    assert_int_equal(kg_sample(NULL, 8, &ok, NULL, 0, &token), KG_ERR_ARGUMENT);
    assert_int_equal(kg_sample(eight, 0, &ok, NULL, 0, &token), KG_ERR_ARGUMENT);
    assert_int_equal(kg_sample(eight, 8, &ok, NULL, 1, &token), KG_ERR_ARGUMENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_random_numbers),
        cmocka_unit_test(proportions),
        cmocka_unit_test(top_k_sets),
        cmocka_unit_test(top_p_sets),
        cmocka_unit_test(min_p_sets),
        cmocka_unit_test(greedy_and_odd_numbers),
        cmocka_unit_test(penalties),
        cmocka_unit_test(is_pure),
        cmocka_unit_test(large_vocabulary),
        cmocka_unit_test(ranges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
