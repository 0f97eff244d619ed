/* Generation: sync, sample, and hand out text. Owns what is held back: incomplete characters, and text that may be the start of
 * a stop string. */
#include "run/run.h"

#include <stdlib.h>

struct stream {
    const kg_tokenizer *tok; /* NULL: ids only */
    const kg_generate_params *params;
    kg_text_fn fn; /* NULL: nobody listens */
    void *ctx;
    struct utf8_stream utf8;
    struct buf text; /* whole characters, not handed out yet */
    bool stopped;    /* by a stop string */
};

static kg_status check_params(const kg_generate_params *p, const kg_tokenizer *tok)
{
    KG_TRY(kg_sampler_check(&p->sampler));
    if (p->n_stop && !p->stop) return status_set(KG_ERR_ARGUMENT, "%zu stop strings, but none given", p->n_stop);
    if (p->n_stop && !tok) return status_set(KG_ERR_ARGUMENT, "stop strings need a tokenizer, and this model's file has none");
    for (size_t i = 0; i < p->n_stop; i++)
        if (!p->stop[i] || !*p->stop[i]) return status_set(KG_ERR_ARGUMENT, "stop string %zu is empty", i);
    return KG_OK;
}

/* Where the first whole stop string begins in the text (*found), else where the longest end begins that a stop string could
 * continue, else the text's length. */
static size_t safe_length(const struct stream *s, bool *found)
{
    const char *text = s->text.data, *const *stop = s->params->stop;
    size_t len = s->text.len, n_stop = s->params->n_stop;
    *found = true;
    for (size_t at = 0; at < len; at++)
        for (size_t i = 0; i < n_stop; i++)
            if (strlen(stop[i]) <= len - at && !memcmp(text + at, stop[i], strlen(stop[i]))) return at;
    *found = false;
    for (size_t at = 0; at < len; at++)
        for (size_t i = 0; i < n_stop; i++)
            if (len - at < strlen(stop[i]) && !memcmp(text + at, stop[i], len - at)) return at;
    return len;
}

static kg_status emit(struct stream *s, int32_t token, size_t n)
{
    bool go_on = !s->fn || s->fn(s->ctx, token, n ? s->text.data : "", n);
    s->text.len -= n;
    if (s->text.len) memmove(s->text.data, s->text.data + n, s->text.len);
    return go_on ? KG_OK : status_set(KG_ERR_ABORTED, "stopped by the callback");
}

static kg_status push_token(struct stream *s, int32_t token)
{
    const char *bytes = "";
    size_t n = s->tok ? kg_token_bytes(s->tok, token, s->params->special, &bytes) : 0;
    KG_TRY(utf8_stream_push(&s->utf8, bytes, n, false, &s->text));
    return emit(s, token, safe_length(s, &s->stopped));
}

/* The end: hands out what was held back, unless it is the stop string. */
static kg_status flush(struct stream *s)
{
    if (s->stopped) return KG_OK;
    KG_TRY(utf8_stream_push(&s->utf8, "", 0, true, &s->text));
    size_t safe = safe_length(s, &s->stopped), n = s->stopped ? safe : s->text.len;
    return n ? emit(s, -1, n) : KG_OK;
}

/* The ids so far; grows with what is generated, not with what might be. */
struct ids {
    int32_t *data;
    size_t n, cap;
};

static kg_status ids_push(struct ids *ids, int32_t id)
{
    if (ids->n == ids->cap) {
        size_t cap = ids->cap + ids->cap / 2 + 256;
        int32_t *more = realloc(ids->data, cap * sizeof *more);
        if (!more) return status_set(KG_ERR_MEMORY, "no memory for %zu tokens", cap);
        ids->data = more;
        ids->cap = cap;
    }
    ids->data[ids->n++] = id;
    return KG_OK;
}

static kg_status generate(kg_session *session, struct ids *ids, struct stream *s, kg_finish *finish)
{
    const kg_generate_params *p = s->params;
    KG_TRY(session_sync_top(session, ids->data, ids->n, sample_needs(&p->sampler, ids->n), p->max_tokens > 1));
    for (size_t i = 0;; i++) {
        *finish = KG_FINISH_LENGTH;
        if (i == p->max_tokens) return KG_OK;
        *finish = KG_FINISH_CONTEXT;
        if (ids->n > (size_t)session->n_ctx) return KG_OK;
        if (i) KG_TRY(session_sync_top(session, ids->data, ids->n, sample_needs(&p->sampler, ids->n), i + 1 < p->max_tokens));
        int32_t token;
        if (session->n_top) KG_TRY(sample_top(session->top, session->n_top, &p->sampler, ids->n, &token));
        else KG_TRY(kg_sample(kg_session_logits(session), kg_model_n_vocab(session->model), &p->sampler, ids->data, ids->n, &token));
        KG_TRY(ids_push(ids, token));
        *finish = KG_FINISH_END;
        if (!p->ignore_end && s->tok && kg_token_is_end(s->tok, token)) return emit(s, token, 0);
        KG_TRY(push_token(s, token));
        if (s->stopped) return KG_OK;
    }
}

kg_status kg_generate(kg_session *session, const int32_t *tokens, size_t n, const kg_generate_params *params, kg_text_fn fn, void *ctx,
                      kg_finish *finish)
{
    if (!session || !params || !tokens || n < 1)
        return status_set(KG_ERR_ARGUMENT, "generation needs a session, its parameters and at least one token");
    const kg_tokenizer *tok = kg_model_tokenizer(session->model);
    KG_TRY(check_params(params, tok));
    if (n > (size_t)session->n_ctx)
        return status_set(KG_ERR_CONTEXT, "%zu tokens do not fit the context of %lld", n, (long long)session->n_ctx);
    struct stream s = {.tok = tok, .params = params, .fn = fn, .ctx = ctx};
    struct ids ids = {.data = malloc((n + 256) * sizeof *tokens), .n = n, .cap = n + 256};
    kg_status status = KG_OK;
    if (!ids.data) {
        status = status_set(KG_ERR_MEMORY, "no memory for %zu tokens", n);
    } else {
        kg_finish why = KG_FINISH_LENGTH;
        memcpy(ids.data, tokens, n * sizeof *tokens);
        status = generate(session, &ids, &s, &why);
        if (status == KG_OK) status = flush(&s);
        if (finish) *finish = s.stopped ? KG_FINISH_STOP_STRING : why;
    }
    free(ids.data);
    buf_free(&s.text);
    return status;
}
