/* What the files of this folder share: the insides of kg_model and kg_session, and the random numbers of the sampler. */
#ifndef RUN_RUN_H
#define RUN_RUN_H

#include "model/model.h"
#include "run/kv.h"
#include "text/text.h"

#include <pthread.h>

/* Tokens per run at most: backends size their scratch memory by it. */
#define MAX_BATCH 512
/* Of an encoder, which needs a text in one piece. */
#define MAX_ENCODED 8192

struct kg_model {
    struct model model;
    kg_tokenizer *tokenizer; /* NULL: the file has none */
    const struct backend *backend;
    void *ctx; /* the backend's */
    kg_kv_type kv_type;
    kg_activations activations;
    double *strengths; /* [program.n_adapters]: those that sessions begin with */
    /* Guards everything below, the backend's context, and the tokens and tables of all sessions against their neighbours. */
    pthread_mutex_t lock;
    bool has_lock;
    struct kv_pool kv;
    struct kg_session *sessions; /* list through next */
};

/* `tokens` and `n_tokens` say what the KV table holds; they change only under the model's lock, since other sessions look for
 * common prefixes there. */
struct kg_session {
    kg_model *model;
    kg_session *next;
    struct kv_table table;
    double *strengths; /* [program.n_adapters]: what the table holds was computed with them */
    int64_t n_ctx;
    int n_batch;
    int32_t *tokens; /* [n_tokens] */
    size_t n_tokens, cap;
    struct batch_token *batch; /* [n_batch] */
    float *logits;             /* [n_vocab] */
    double *logits_f64;        /* [n_vocab]; NULL: the backend has none */
    size_t logits_of;          /* the logits are those after this many tokens; 0: they are not valid */
    struct batch_top *top;     /* [most_top]; NULL: the backend finds none */
    int n_top;                 /* of the last sync; 0: it has brought all logits, or failed */
    size_t n_reused, n_computed;
    bool (*progress)(void *ctx, size_t done, size_t total);
    void *progress_ctx;
};

/* kg_model_open, with a look at the program before the backend prepares it; fn may be NULL, and may set taps. */
kg_status model_open_with(kg_model **out, const char *path, const kg_model_params *params, void (*fn)(void *ctx, struct program *p), void *ctx);

/* KG_ERR_UNSUPPORTED if the model is an encoder. */
kg_status session_check_generates(const kg_model *model);
/* KG_ERR_ARGUMENT unless 0 <= tokens[i] < n_vocab for all i. */
kg_status session_check_tokens(const kg_model *model, const int32_t *tokens, size_t n);

/* The embedding that the file makes of an encoder's states [n][dim]: out[kg_model_embedding_dim], not yet of length 1. *n_pooled: how many tokens it is
 * the mean of. */
kg_status embedding_of_states(const kg_model *model, const double *states, size_t n, double *out, size_t *n_pooled);

/* kg_session_sync that brings the n_top highest logits only (s->top, s->n_top), unless n_top is 0, the backend does not find so many, or all are there. */
kg_status session_sync_top(kg_session *s, const int32_t *tokens, size_t n, int n_top, bool goes_on);
/* How many of the highest logits kg_sample needs; 0: all. */
int sample_needs(const kg_sampler_params *p, size_t n_history);
/* What kg_sample picks, from at least that many. */
kg_status sample_top(const struct batch_top *top, int n, const kg_sampler_params *p, size_t n_history, int32_t *token);

/* Makes the session hold nothing, with room for tokens and their cache: then fill writes the blocks, fill_states the state and kept ones. On failure it
 * holds nothing. */
kg_status session_refill(kg_session *s, const int32_t *tokens, size_t n, kg_status (*fill)(void *ctx, int block), kg_status (*fill_states)(void *ctx), void *ctx);

/* Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): four random words from a counter and a key. */
void philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

#endif
