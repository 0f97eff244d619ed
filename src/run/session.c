/* kg_session: brings the KV cache to hold given tokens with as little computing as possible, first from its own cache, then
 * from a neighbour's of the same model. Owns the tokens, the block table and the logits. */
#include "run/run.h"

#include <math.h>
#include <stdlib.h>

kg_session_params kg_session_default_params(void) { return (kg_session_params){0}; }

kg_status session_check_generates(const kg_model *model)
{
    if (!model->model.program.is_encoder) return KG_OK;
    return status_set(KG_ERR_UNSUPPORTED, "architecture %s is an encoder: it makes embeddings (kagari embed), no text", model->model.arch->name);
}

static kg_status check_params(const kg_model *model, const kg_session_params *p)
{
    const struct program *program = &model->model.program;
    KG_TRY(session_check_generates(model));
    if (p->n_ctx < 0 || p->n_ctx > INT32_MAX - MAX_BATCH)
        return status_set(KG_ERR_ARGUMENT, "a context of %lld tokens is out of range", (long long)p->n_ctx);
    if (program->ctx_is_hard && p->n_ctx > program->n_ctx)
        return status_set(KG_ERR_ARGUMENT, "a context of %lld tokens: this model has %lld positions", (long long)p->n_ctx,
                          (long long)program->n_ctx);
    if (p->n_batch < 0 || p->n_batch > MAX_BATCH)
        return status_set(KG_ERR_ARGUMENT, "a batch of %d tokens: must be 1 to %d", p->n_batch, MAX_BATCH);
    return KG_OK;
}

kg_status kg_session_new(kg_session **out, kg_model *model, const kg_session_params *params)
{
    kg_session_params p = params ? *params : kg_session_default_params();
    if (!out || !model) return status_set(KG_ERR_ARGUMENT, "a session needs a model and a place to be stored");
    *out = NULL;
    KG_TRY(check_params(model, &p));
    kg_session *s = calloc(1, sizeof *s);
    if (!s) return status_set(KG_ERR_MEMORY, "out of memory");
    size_t n_vocab = (size_t)model->model.program.n_vocab, n_loras = kg_model_n_loras(model);
    s->n_ctx = p.n_ctx ? p.n_ctx : model->model.program.n_ctx;
    s->n_batch = p.n_batch ? p.n_batch : MAX_BATCH;
    s->batch = malloc((size_t)s->n_batch * sizeof *s->batch);
    s->logits = malloc(n_vocab * sizeof *s->logits);
    if (model->backend->has_f64) s->logits_f64 = malloc(n_vocab * sizeof *s->logits_f64);
    s->strengths = malloc((n_loras + 1) * sizeof *s->strengths);
    if (s->strengths && n_loras) memcpy(s->strengths, model->strengths, n_loras * sizeof *s->strengths);
    if (model->backend->most_top) s->top = malloc((size_t)model->backend->most_top * sizeof *s->top);
    kg_status status = KG_OK;
    if (!s->batch || !s->logits || !s->strengths || (model->backend->most_top && !s->top) || (model->backend->has_f64 && !s->logits_f64))
        status = status_set(KG_ERR_MEMORY, "no memory for a session");
    if (status == KG_OK) {
        pthread_mutex_lock(&model->lock);
        status = kv_table_open(&model->kv, &s->table, s->n_ctx);
        if (status == KG_OK) {
            s->model = model;
            s->next = model->sessions;
            model->sessions = s;
        }
        pthread_mutex_unlock(&model->lock);
    }
    if (status != KG_OK)
        kg_session_free(&s);
    else
        *out = s;
    return status;
}

void kg_session_free(kg_session **session)
{
    if (!session || !*session) return;
    kg_session *s = *session;
    if (s->model) { /* it was entered */
        pthread_mutex_lock(&s->model->lock);
        kg_session **link = &s->model->sessions;
        while (*link != s) link = &(*link)->next;
        *link = s->next;
        kv_table_close(&s->model->kv, &s->table);
        pthread_mutex_unlock(&s->model->lock);
    }
    free(s->tokens);
    free(s->batch);
    free(s->logits);
    free(s->logits_f64);
    free(s->top);
    free(s->strengths);
    free(s);
    *session = NULL;
}

void kg_session_set_progress(kg_session *session, bool (*fn)(void *ctx, size_t done, size_t total), void *ctx)
{
    session->progress = fn;
    session->progress_ctx = ctx;
}

const float *kg_session_logits(const kg_session *session) { return session->logits_of ? session->logits : NULL; }
const double *kg_session_logits_f64(const kg_session *session) { return session->logits_of ? session->logits_f64 : NULL; }

kg_session_stats kg_session_get_stats(const kg_session *session)
{
    const kg_model *m = session->model;
    return (kg_session_stats){
        .n_tokens = session->n_tokens,
        .n_reused = session->n_reused,
        .n_computed = session->n_computed,
        .kv_bytes = (size_t)session->table.n * m->backend->kv_block_bytes(m->ctx) +
                    (m->backend->state_bytes ? (1 + (size_t)session->table.n_kept) * m->backend->state_bytes(m->ctx) : 0),
        .kv_token_bytes = m->backend->kv_block_bytes(m->ctx) / KV_BLOCK,
    };
}

kg_status session_check_tokens(const kg_model *model, const int32_t *tokens, size_t n)
{
    int n_vocab = model->model.program.n_vocab;
    for (size_t i = 0; i < n; i++)
        if (tokens[i] < 0 || tokens[i] >= n_vocab)
            return status_set(KG_ERR_ARGUMENT, "token %zu is %d, the vocabulary has %d", i, (int)tokens[i], n_vocab);
    return KG_OK;
}

static size_t common_prefix(const kg_session *s, const int32_t *tokens, size_t n)
{
    size_t i = 0, end = MIN(s->n_tokens, n);
    while (i < end && s->tokens[i] == tokens[i]) i++;
    return i;
}

/* The part of tokens[0..n) from which the session can go on. */
static size_t goes_on_from(const kg_session *s, const int32_t *tokens, size_t n)
{
    return (size_t)kv_table_at_most(&s->model->kv, &s->table, (int64_t)common_prefix(s, tokens, n));
}

static bool same_strengths(const kg_session *a, const kg_session *b)
{
    for (size_t i = 0; i < kg_model_n_loras(a->model); i++)
        if (a->strengths[i] != b->strengths[i]) return false;
    return true;
}

/* Under the lock: sets what the session's table holds to tokens[0..n). */
static kg_status set_tokens(kg_session *s, const int32_t *tokens, size_t n)
{
    if (n > s->cap) {
        size_t cap = MIN(MAX(n, MAX(2 * s->cap, 256)), (size_t)s->n_ctx);
        int32_t *more = realloc(s->tokens, cap * sizeof *more);
        if (!more) return status_set(KG_ERR_MEMORY, "no memory for %zu tokens", cap);
        s->tokens = more;
        s->cap = cap;
    }
    if (n) memcpy(s->tokens, tokens, n * sizeof *tokens);
    s->n_tokens = n;
    return KG_OK;
}

/* Under the lock: cuts the session back to the part of tokens[0..n) that it, or a neighbour that has more of it, already has.
 * One token more is worth it: copying a block, the most that sharing costs, is far less work than a token. */
static kg_status reuse(kg_session *s, const int32_t *tokens, size_t n)
{
    kg_model *m = s->model;
    size_t have = goes_on_from(s, tokens, n);
    const kg_session *best = NULL;
    for (const kg_session *o = m->sessions; o && have < n; o = o->next) {
        size_t other = o == s || !same_strengths(o, s) ? 0 : goes_on_from(o, tokens, n);
        if (other > have) best = o, have = other;
    }
    s->logits_of = 0;
    s->n_top = 0;
    if (best) {
        s->n_tokens = 0; /* should the table fail to change, nothing false is left */
        KG_TRY(kv_table_share(&m->kv, &s->table, &best->table, (int64_t)have));
        return set_tokens(s, tokens, have);
    }
    s->n_tokens = 0;
    KG_TRY(kv_table_truncate(&m->kv, &s->table, (int64_t)have));
    s->n_tokens = have; /* which its own list begins with */
    return KG_OK;
}

/* Under the lock: computes tokens[s->n_tokens..end). */
static kg_status step(kg_session *s, const int32_t *tokens, size_t end, bool want_logits, int n_top, bool goes_on)
{
    kg_model *m = s->model;
    size_t begin = s->n_tokens;
    KG_TRY(kv_table_prepare(&m->kv, &s->table, (int64_t)begin, (int64_t)end));
    for (size_t i = begin; i < end; i++)
        s->batch[i - begin] =
            (struct batch_token){.id = tokens[i], .pos = (int32_t)i, .seq = 0, .want_logits = want_logits && i == end - 1};
    struct batch_seq seq = {.blocks = s->table.blocks, .state = s->table.state, .strengths = s->strengths};
    struct batch batch = {
        .tokens = s->batch,
        .n = (int)(end - begin),
        .seqs = &seq,
        .n_seqs = 1,
        .logits = s->logits,
        .logits_f64 = s->logits_f64,
        .top = s->top,
        .n_top = want_logits ? n_top : 0,
        .goes_on = want_logits && goes_on,
    };
    KG_TRY(backend_run(m->backend, m->ctx, &batch));
    return set_tokens(s, tokens, end);
}

kg_status kg_session_sync(kg_session *s, const int32_t *tokens, size_t n) { return session_sync_top(s, tokens, n, 0, false); }

kg_status session_sync_top(kg_session *s, const int32_t *tokens, size_t n, int n_top, bool goes_on)
{
    if (!tokens || n < 1) return status_set(KG_ERR_ARGUMENT, "a session cannot hold 0 tokens");
    if (n > (size_t)s->n_ctx) return status_set(KG_ERR_CONTEXT, "%zu tokens do not fit the context of %lld", n, (long long)s->n_ctx);
    KG_TRY(session_check_tokens(s->model, tokens, n));
    s->n_reused = n;
    s->n_computed = 0;
    s->n_top = 0;
    if (n_top > s->model->backend->most_top) n_top = 0;
    if (s->logits_of == n && common_prefix(s, tokens, n) == n) return KG_OK;

    pthread_mutex_t *lock = &s->model->lock;
    pthread_mutex_lock(lock);
    kg_status status = reuse(s, tokens, n - 1); /* the last token is computed in any case, for its logits */
    if (status == KG_OK && n - s->n_tokens > 1) status = kv_table_keep(&s->model->kv, &s->table); /* where another continuation may begin */
    pthread_mutex_unlock(lock);
    size_t begin = s->n_tokens;
    s->n_reused = begin;
    while (status == KG_OK && s->n_tokens < n) {
        size_t end = MIN(s->n_tokens + (size_t)s->n_batch, n);
        /* the last token of several by itself: a state before it lets the same tokens, or others in its place, come again */
        if (s->model->model.program.n_state && end == n && end - s->n_tokens > 1) end--;
        pthread_mutex_lock(lock);
        if (end == n && n - begin > 1) status = kv_table_keep(&s->model->kv, &s->table);
        if (status == KG_OK) status = step(s, tokens, end, end == n, n_top, goes_on);
        pthread_mutex_unlock(lock);
        s->n_computed = s->n_tokens - begin;
        if (status == KG_OK && end < n && s->progress && !s->progress(s->progress_ctx, end - begin, n - begin))
            status = status_set(KG_ERR_ABORTED, "stopped after %zu of %zu tokens", end, n);
    }
    if (status == KG_OK) s->logits_of = n_top ? 0 : n;
    if (status == KG_OK) s->n_top = n_top;
    return status;
}

kg_status kg_session_set_loras(kg_session *s, const double *strengths, size_t n)
{
    bool same = true;
    if (n != kg_model_n_loras(s->model) || (n && !strengths)) return status_set(KG_ERR_ARGUMENT, "%zu strengths for %zu adapters", n, kg_model_n_loras(s->model));
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(strengths[i])) return status_set(KG_ERR_ARGUMENT, "%s: the adapter's strength is not a finite number", kg_model_lora(s->model, i));
        same = same && strengths[i] == s->strengths[i];
    }
    if (same) return KG_OK;
    pthread_mutex_lock(&s->model->lock);
    s->logits_of = 0;
    s->n_top = 0;
    s->n_tokens = 0; /* its cache was computed with the others */
    kg_status status = kv_table_truncate(&s->model->kv, &s->table, 0);
    memcpy(s->strengths, strengths, n * sizeof *strengths);
    pthread_mutex_unlock(&s->model->lock);
    return status;
}

const double *kg_session_loras(const kg_session *s) { return s->strengths; }

kg_status session_refill(kg_session *s, const int32_t *tokens, size_t n, kg_status (*fill)(void *ctx, int block), kg_status (*fill_states)(void *ctx), void *ctx)
{
    pthread_mutex_lock(&s->model->lock);
    s->logits_of = 0;
    s->n_tokens = 0;
    kg_status status = kv_table_truncate(&s->model->kv, &s->table, 0);
    if (status == KG_OK) status = kv_table_prepare(&s->model->kv, &s->table, 0, (int64_t)n);
    for (int i = 0; i < s->table.n && status == KG_OK; i++) status = fill(ctx, s->table.blocks[i]);
    if (status == KG_OK) status = fill_states(ctx);
    if (status == KG_OK) status = set_tokens(s, tokens, n);
    if (status != KG_OK) s->n_tokens = 0;
    pthread_mutex_unlock(&s->model->lock);
    return status;
}
