/* Picks the next token from logits. Steps, in this order:
 *   1. penalties on the logits of tokens seen: repeat, then presence and frequency
 *   2. temperature 0: the highest logit wins, the lowest id among equals
 *   3. top-k: the k highest logits stay (lower ids first among equals)
 *   4. weights exp((logit - highest) / temperature)
 *   5. top-p: the fewest tokens, most likely first, whose share of the weight reaches p stay
 *   6. min-p: tokens with at least min_p of the weight of the most likely one stay
 *   7. a token is drawn in proportion to the weights
 * Pure: the random number is a function of the seed and of the number of tokens before. */
#include "run/run.h"

#include <math.h>
#include <stdlib.h>

static kg_status no_finite(int32_t n_vocab) { return status_set(KG_ERR_DEVICE, "none of the %d logits is finite", n_vocab); }

struct candidate {
    float logit;
    int32_t id;
};

kg_sampler_params kg_sampler_default_params(void)
{
    return (kg_sampler_params){.temperature = 0.7f, .top_k = 40, .top_p = 0.9f, .min_p = 0, .repeat_penalty = 1, .penalty_last_n = 64};
}

kg_status kg_sampler_check(const kg_sampler_params *p)
{
    if (!(isfinite(p->temperature) && p->temperature >= 0))
        return status_set(KG_ERR_ARGUMENT, "temperature %g: must be 0 or more", (double)p->temperature);
    if (p->top_k < 0) return status_set(KG_ERR_ARGUMENT, "top-k %d: must be 0 (off) or more", p->top_k);
    if (!(p->top_p >= 0 && p->top_p <= 1)) return status_set(KG_ERR_ARGUMENT, "top-p %g: must be 0 to 1", (double)p->top_p);
    if (!(p->min_p >= 0 && p->min_p <= 1)) return status_set(KG_ERR_ARGUMENT, "min-p %g: must be 0 to 1", (double)p->min_p);
    if (!(isfinite(p->repeat_penalty) && p->repeat_penalty > 0))
        return status_set(KG_ERR_ARGUMENT, "repeat penalty %g: must be above 0", (double)p->repeat_penalty);
    if (!isfinite(p->presence_penalty))
        return status_set(KG_ERR_ARGUMENT, "presence penalty %g: must be finite", (double)p->presence_penalty);
    if (!isfinite(p->frequency_penalty))
        return status_set(KG_ERR_ARGUMENT, "frequency penalty %g: must be finite", (double)p->frequency_penalty);
    if (p->penalty_last_n < -1) return status_set(KG_ERR_ARGUMENT, "penalty window %d: must be -1 (all) or more", p->penalty_last_n);
    return KG_OK;
}

void philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t c[4], k0 = key[0], k1 = key[1];
    memcpy(c, counter, sizeof c);
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53u * c[0], b = (uint64_t)0xCD9E8D57u * c[2];
        uint32_t next[4] = {(uint32_t)(b >> 32) ^ c[1] ^ k0, (uint32_t)b, (uint32_t)(a >> 32) ^ c[3] ^ k1, (uint32_t)a};
        memcpy(c, next, sizeof c);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    memcpy(out, c, sizeof c);
}

/* Uniform in [0, 1), 53 bits. */
static double uniform(uint64_t seed, uint64_t n)
{
    uint32_t counter[4] = {(uint32_t)n, (uint32_t)(n >> 32), 0, 0}, key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)}, r[4];
    philox4x32(counter, key, r);
    return (double)(((uint64_t)r[0] << 32 | r[1]) >> 11) * 0x1p-53;
}

/* More likely first; a total order, so that every step has one possible outcome. */
static bool before(struct candidate a, struct candidate b) { return a.logit != b.logit ? a.logit > b.logit : a.id < b.id; }

/* Restores a heap of n whose root alone may be out of place. `best`: the root is the first in order, else the last. */
static void sift_down(struct candidate *heap, size_t n, size_t i, bool best)
{
    struct candidate moving = heap[i];
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= n) break;
        if (child + 1 < n && before(heap[child + 1], heap[child]) == best) child++;
        if (before(heap[child], moving) != best) break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = moving;
}

static void heapify(struct candidate *heap, size_t n, bool best)
{
    for (size_t i = n / 2; i-- > 0;) sift_down(heap, n, i, best);
}

/* Leaves the k first in order at the front, in no order: the worst of them is kept at the root, most others lose to it. */
static size_t keep_top_k(struct candidate *c, size_t n, size_t k)
{
    if (k == 0 || k >= n) return n;
    heapify(c, k, false);
    for (size_t i = k; i < n; i++) {
        if (!before(c[i], c[0])) continue;
        c[0] = c[i];
        sift_down(c, k, 0, false);
    }
    return k;
}

static double weight(struct candidate c, float highest, float temperature)
{
    return exp(((double)c.logit - (double)highest) / (double)temperature);
}

/* Moves the tokens that make up `share` of the total weight to the end of the array, most likely last; returns how many. Only what is
 * taken gets sorted. */
static size_t keep_top_p(struct candidate *c, size_t n, double share, float highest, float temperature)
{
    double total = 0, sum = 0;
    for (size_t i = 0; i < n; i++) total += weight(c[i], highest, temperature);
    heapify(c, n, true);
    size_t left = n;
    while (left > 0 && (left == n || sum < share * total)) {
        sum += weight(c[0], highest, temperature);
        struct candidate taken = c[0];
        c[0] = c[--left];
        sift_down(c, left ? left : 1, 0, true);
        c[left] = taken;
    }
    return n - left;
}

static int32_t draw(struct candidate *c, size_t n, const kg_sampler_params *p, size_t n_history)
{
    n = keep_top_k(c, n, (size_t)p->top_k);
    float highest = c[0].logit;
    for (size_t i = 1; i < n; i++) highest = MAX(highest, c[i].logit);
    if (p->top_p < 1) {
        size_t kept = keep_top_p(c, n, (double)p->top_p, highest, p->temperature);
        c += n - kept;
        n = kept;
    }
    double total = 0;
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        double w = weight(c[i], highest, p->temperature);
        if (w < (double)p->min_p) continue; /* the highest weight is 1 */
        total += w;
        c[kept++] = c[i];
    }
    double at = uniform(p->seed, n_history) * total, sum = 0;
    int32_t last = c[0].id;
    for (size_t i = 0; i < kept; i++) {
        double w = weight(c[i], highest, p->temperature);
        if (w == 0) continue;
        sum += w;
        last = c[i].id;
        if (sum > at) break;
    }
    return last;
}

static kg_status draw_from(const float *logits, int32_t n_vocab, const kg_sampler_params *p, size_t n_history, int32_t *token)
{
    struct candidate *c = malloc((size_t)n_vocab * sizeof *c);
    if (!c) return status_set(KG_ERR_MEMORY, "no memory to sample");
    size_t n = 0;
    for (int32_t i = 0; i < n_vocab; i++)
        if (isfinite(logits[i])) c[n++] = (struct candidate){logits[i], i};
    if (n) *token = draw(c, n, p, n_history);
    free(c);
    return n ? KG_OK : no_finite(n_vocab);
}

/* Lowers the logits of the tokens in the window. */
static kg_status penalise(float *logits, int32_t n_vocab, const kg_sampler_params *p, const int32_t *window, size_t n)
{
    uint32_t *counts = calloc((size_t)n_vocab, sizeof *counts);
    if (!counts) return status_set(KG_ERR_MEMORY, "no memory to sample");
    for (size_t i = 0; i < n; i++) counts[window[i]]++;
    for (int32_t i = 0; i < n_vocab; i++) {
        if (!counts[i]) continue;
        float l = logits[i];
        l = l > 0 ? l / p->repeat_penalty : l * p->repeat_penalty;
        logits[i] = l - p->presence_penalty - p->frequency_penalty * (float)counts[i];
    }
    free(counts);
    return KG_OK;
}

static kg_status greedy(const float *logits, int32_t n_vocab, int32_t *token)
{
    int32_t best = -1;
    for (int32_t i = 0; i < n_vocab; i++)
        if (isfinite(logits[i]) && (best < 0 || logits[i] > logits[best])) best = i;
    if (best < 0) return no_finite(n_vocab);
    *token = best;
    return KG_OK;
}

static size_t window_of(const kg_sampler_params *p, size_t n_history) { return p->penalty_last_n < 0 ? n_history : MIN(n_history, (size_t)p->penalty_last_n); }

static bool penalises(const kg_sampler_params *p, size_t n_history)
{
    return window_of(p, n_history) && (p->repeat_penalty != 1 || p->presence_penalty != 0 || p->frequency_penalty != 0);
}

int sample_needs(const kg_sampler_params *p, size_t n_history) { return penalises(p, n_history) ? 0 : p->temperature == 0 ? 1 : p->top_k; }

kg_status sample_top(const struct batch_top *top, int n, const kg_sampler_params *p, size_t n_history, int32_t *token)
{
    struct candidate *c = malloc((size_t)n * sizeof *c);
    size_t have = 0;
    if (!c) return status_set(KG_ERR_MEMORY, "no memory to sample");
    for (int i = 0; i < n && top[i].id >= 0; i++) c[have++] = (struct candidate){top[i].logit, top[i].id};
    if (have) *token = p->temperature == 0 ? c[0].id : draw(c, have, p, n_history);
    free(c);
    return have ? KG_OK : status_set(KG_ERR_DEVICE, "none of the logits is finite");
}

kg_status kg_sample(const float *logits, int32_t n_vocab, const kg_sampler_params *params, const int32_t *history, size_t n_history,
                    int32_t *token)
{
    if (!logits || n_vocab < 1 || !params || !token || (!history && n_history))
        return status_set(KG_ERR_ARGUMENT, "sampling needs logits and a place for the token");
    KG_TRY(kg_sampler_check(params));
    size_t n_window = window_of(params, n_history);
    const int32_t *window = n_window ? history + (n_history - n_window) : NULL;
    for (size_t i = 0; i < n_window; i++)
        if (window[i] < 0 || window[i] >= n_vocab)
            return status_set(KG_ERR_ARGUMENT, "token %d in the history, the vocabulary has %d", (int)window[i], n_vocab);
    const bool penalties = penalises(params, n_history);
    if (!penalties && params->temperature == 0) return greedy(logits, n_vocab, token);
    if (!penalties) return draw_from(logits, n_vocab, params, n_history, token);
    float *own = malloc((size_t)n_vocab * sizeof *own);
    if (!own) return status_set(KG_ERR_MEMORY, "no memory to sample");
    memcpy(own, logits, (size_t)n_vocab * sizeof *own);
    kg_status status = penalise(own, n_vocab, params, window, n_window);
    if (status == KG_OK)
        status = params->temperature == 0 ? greedy(own, n_vocab, token) : draw_from(own, n_vocab, params, n_history, token);
    free(own);
    return status;
}
