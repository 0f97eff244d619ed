/* kg_perplexity: how well a model predicts a text, and how far its predictions are from those of a better file. The text is cut into
 * windows of n_ctx tokens that do not overlap; the second half of each counts, so that every token that counts has seen at least
 * n_ctx / 2 before it. A rest shorter than a window is left out. */
#include "run/run.h"

#include <math.h>
#include <stdlib.h>

#define CHUNK 64 /* tokens per run: the logits of all are kept */

struct mean {
    double sum, squares;
};

struct window {
    kg_model *models[2]; /* the one in question, the better one or NULL */
    struct kv_table tables[2];
    float *logits[2]; /* [CHUNK][n_vocab] */
    size_t n_ctx, n_vocab;
    bool add_bos;
    int32_t bos;
    struct mean nll, kl;
    size_t n, n_same_top;
};

static void mean_add(struct mean *m, double x)
{
    m->sum += x;
    m->squares += x * x;
}

/* Standard error of the mean of n values. */
static double mean_error(const struct mean *m, size_t n)
{
    if (n < 2) return NAN;
    double mean = m->sum / (double)n, variance = (m->squares - (double)n * mean * mean) / (double)(n - 1);
    return sqrt(fmax(variance, 0) / (double)n);
}

/* log(sum(exp(x))), in float64; *top receives the index of the highest. */
static double log_sum(const float *x, size_t n, size_t *top)
{
    *top = 0;
    for (size_t i = 1; i < n; i++)
        if (x[i] > x[*top]) *top = i;
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += exp((double)x[i] - (double)x[*top]);
    return (double)x[*top] + log(sum);
}

static void count_row(struct window *w, size_t row, int32_t next)
{
    const float *q = w->logits[0] + row * w->n_vocab;
    size_t top_q, top_p;
    double norm_q = log_sum(q, w->n_vocab, &top_q);
    mean_add(&w->nll, norm_q - (double)q[next]);
    w->n++;
    if (!w->models[1]) return;
    const float *p = w->logits[1] + row * w->n_vocab;
    double norm_p = log_sum(p, w->n_vocab, &top_p), kl = 0;
    for (size_t i = 0; i < w->n_vocab; i++) {
        double log_p = (double)p[i] - norm_p, prob = exp(log_p);
        if (prob != 0) kl += prob * (log_p - ((double)q[i] - norm_q)); /* 0 log 0 is 0, also where a logit is -inf */
    }
    mean_add(&w->kl, kl);
    w->n_same_top += top_p == top_q;
}

/* Tokens [begin, end) of one window through one model; the logits of those from `first` on are kept. */
static kg_status run_chunk(struct window *w, int which, const int32_t *tokens, size_t begin, size_t end, size_t first)
{
    kg_model *m = w->models[which];
    struct batch_token batch_tokens[CHUNK];
    for (size_t i = begin; i < end; i++)
        batch_tokens[i - begin] = (struct batch_token){i == 0 && w->add_bos ? w->bos : tokens[i], (int32_t)i, 0, i >= first};
    pthread_mutex_lock(&m->lock);
    kg_status status = kv_table_prepare(&m->kv, &w->tables[which], (int64_t)begin, (int64_t)end);
    if (status == KG_OK) {
        struct batch_seq seq = {w->tables[which].blocks, w->tables[which].state, m->strengths};
        struct batch batch = {.tokens = batch_tokens, .n = (int)(end - begin), .seqs = &seq, .n_seqs = 1, .logits = w->logits[which]};
        status = m->backend->run(m->ctx, &batch);
    }
    pthread_mutex_unlock(&m->lock);
    return status;
}

static kg_status run_window(struct window *w, const int32_t *tokens)
{
    size_t first = w->n_ctx / 2;
    for (int which = 0; which < 2 && w->models[which]; which++) KG_TRY(kv_table_truncate(&w->models[which]->kv, &w->tables[which], 0));
    for (size_t begin = 0; begin < w->n_ctx; begin += CHUNK) {
        size_t end = MIN(begin + CHUNK, w->n_ctx);
        for (int which = 0; which < 2 && w->models[which]; which++) KG_TRY(run_chunk(w, which, tokens, begin, end, first));
        for (size_t i = MAX(begin, first); i < MIN(end, w->n_ctx - 1); i++) count_row(w, i - MAX(begin, first), tokens[i + 1]);
    }
    return KG_OK;
}

static kg_status check(const struct window *w, const int32_t *tokens, size_t n)
{
    for (int which = 0; which < 2 && w->models[which]; which++) {
        const struct program *p = &w->models[which]->model.program;
        KG_TRY(session_check_generates(w->models[which]));
        KG_TRY(session_check_tokens(w->models[which], tokens, n));
        if (p->ctx_is_hard && w->n_ctx > (size_t)p->n_ctx)
            return status_set(KG_ERR_CONTEXT, "windows of %zu tokens: this model has %lld positions", w->n_ctx, (long long)p->n_ctx);
        if ((size_t)p->n_vocab != w->n_vocab)
            return status_set(KG_ERR_ARGUMENT, "the models have %zu and %d tokens: their predictions cannot be compared", w->n_vocab, p->n_vocab);
    }
    return KG_OK;
}

static kg_status open_window(struct window *w)
{
    for (int which = 0; which < 2 && w->models[which]; which++) {
        KG_TRY(kv_table_open(&w->models[which]->kv, &w->tables[which], (int64_t)w->n_ctx));
        w->logits[which] = malloc(CHUNK * w->n_vocab * sizeof *w->logits[which]);
        if (!w->logits[which]) return status_set(KG_ERR_MEMORY, "no memory for the logits of %d tokens", CHUNK);
    }
    return KG_OK;
}

static void report(const struct window *w, kg_perplexity_report *out)
{
    double n = (double)w->n;
    *out = (kg_perplexity_report){.n_tokens = w->n, .nll = w->nll.sum / n, .nll_error = mean_error(&w->nll, w->n)};
    out->perplexity = exp(out->nll);
    out->perplexity_error = out->perplexity * out->nll_error; /* first order: d exp(x) = exp(x) dx */
    if (!w->models[1]) return;
    out->kl = w->kl.sum / n;
    out->kl_error = mean_error(&w->kl, w->n);
    out->same_top = (double)w->n_same_top / n;
}

kg_status kg_perplexity(kg_model *model, kg_model *base, const int32_t *tokens, size_t n, size_t n_ctx,
                        bool (*progress)(void *ctx, size_t done, size_t total), void *ctx, kg_perplexity_report *out)
{
    if (!model || !tokens || !out) return status_set(KG_ERR_ARGUMENT, "perplexity needs a model, tokens and a place for the report");
    if (n_ctx < 4 || n_ctx > INT32_MAX) return status_set(KG_ERR_ARGUMENT, "windows of %zu tokens: at least 4 are needed", n_ctx);
    if (n < n_ctx) return status_set(KG_ERR_ARGUMENT, "the text has %zu tokens, a window takes %zu", n, n_ctx);
    struct window w = {.models = {model, base}, .n_ctx = n_ctx, .n_vocab = (size_t)model->model.program.n_vocab};
    w.bos = model->tokenizer ? kg_tokenizer_bos(model->tokenizer) : -1;
    w.add_bos = w.bos >= 0 && tokens[0] == w.bos; /* the caller's tokens say whether a text of this model begins with it */
    size_t total = n / n_ctx;
    kg_status status = check(&w, tokens, n);
    if (status == KG_OK) status = open_window(&w);
    for (size_t i = 0; status == KG_OK && i < total; i++) {
        status = run_window(&w, tokens + i * n_ctx);
        if (status == KG_OK && progress && !progress(ctx, i + 1, total))
            status = status_set(KG_ERR_ABORTED, "stopped after %zu of %zu windows", i + 1, total);
    }
    if (status == KG_OK) report(&w, out);
    for (int which = 0; which < 2 && w.models[which]; which++) {
        kv_table_close(&w.models[which]->kv, &w.tables[which]);
        free(w.logits[which]);
    }
    return status;
}
