/* kg_verify: the same tokens through a backend and through the float64 reference, and how far apart they are, after each layer and
 * at the logits. Keeps the reference's numbers of one chunk of tokens at a time. */
#include "run/run.h"

#include <math.h>
#include <stdlib.h>

#define CHUNK 32 /* tokens per run: the logits of all are kept */

/* Sums of ||a - r||^2 and ||r||^2. */
struct error_sum {
    double diff, ref;
};

struct verify {
    kg_model *models[2]; /* the backend in question, the reference */
    struct kv_table tables[2];
    int n_layers, dim, n_vocab;
    double *taps;             /* [n_layers][CHUNK][dim]: the reference's residual stream of this chunk */
    struct error_sum *layers; /* [n_layers] */
    float *logits;            /* [CHUNK][n_vocab], of the backend; while the reference runs it receives its rounded ones */
    double *ref_logits;       /* [CHUNK][n_vocab] */
    struct error_sum logits_error;
    double worst;
    size_t n_same_top;
};

static double relative(struct error_sum e) { return e.diff == 0 ? 0 : sqrt(e.diff / e.ref); }

static double *tap_rows(const struct verify *v, int layer) { return v->taps + (size_t)layer * CHUNK * (size_t)v->dim; }

static void keep_tap(void *ctx, const struct op *op, int n, int width, const float *f32, const double *f64)
{
    const struct verify *v = ctx;
    double *to = tap_rows(v, op->layer);
    for (size_t i = 0; i < (size_t)n * (size_t)width; i++) to[i] = f64 ? f64[i] : (double)f32[i];
}

static void compare_tap(void *ctx, const struct op *op, int n, int width, const float *f32, const double *f64)
{
    const struct verify *v = ctx;
    const double *ref = tap_rows(v, op->layer);
    struct error_sum *e = &v->layers[op->layer];
    for (size_t i = 0; i < (size_t)n * (size_t)width; i++) {
        double d = (f64 ? f64[i] : (double)f32[i]) - ref[i];
        e->diff += d * d;
        e->ref += ref[i] * ref[i];
    }
}

/* One chunk through one of the two models. */
static kg_status run_chunk(struct verify *v, int which, const int32_t *tokens, size_t begin, size_t end)
{
    kg_model *m = v->models[which];
    struct kv_table *t = &v->tables[which];
    struct batch_token batch_tokens[CHUNK];
    KG_TRY(kv_table_prepare(&m->kv, t, (int64_t)begin, (int64_t)end));
    for (size_t i = begin; i < end; i++) batch_tokens[i - begin] = (struct batch_token){tokens[i], (int32_t)i, 0, true};
    struct batch_seq seq = {t->blocks};
    struct batch batch = {
        .tokens = batch_tokens,
        .n = (int)(end - begin),
        .seqs = &seq,
        .n_seqs = 1,
        .logits = v->logits,
        .logits_f64 = which == 1 ? v->ref_logits : NULL,
        .tap = which == 1 ? keep_tap : compare_tap,
        .tap_ctx = v,
    };
    return backend_run(m->backend, m->ctx, &batch);
}

static void compare_logits(struct verify *v, size_t n)
{
    for (size_t t = 0; t < n; t++) {
        const float *a = v->logits + t * (size_t)v->n_vocab;
        const double *r = v->ref_logits + t * (size_t)v->n_vocab;
        int top_a = 0, top_r = 0;
        for (int i = 0; i < v->n_vocab; i++) {
            double d = (double)a[i] - r[i];
            v->logits_error.diff += d * d;
            v->logits_error.ref += r[i] * r[i];
            if (!(fabs(d) <= v->worst)) v->worst = fabs(d); /* a NaN sticks */
            if (a[i] > a[top_a]) top_a = i;
            if (r[i] > r[top_r]) top_r = i;
        }
        v->n_same_top += top_a == top_r;
    }
}

static kg_status open_both(struct verify *v, const char *path, const kg_model_params *params, size_t n)
{
    kg_model_params p = params ? *params : kg_model_default_params();
    KG_TRY(kg_model_open(&v->models[0], path, &p));
    p.backend = "reference";
    KG_TRY(kg_model_open(&v->models[1], path, &p));
    if (!v->models[1]->backend->has_f64) return status_set(KG_ERR_UNSUPPORTED, "the reference backend has no float64 logits");
    const struct program *program = &v->models[0]->model.program;
    if (program->ctx_is_hard && n > (size_t)program->n_ctx)
        return status_set(KG_ERR_CONTEXT, "%zu tokens: this model has %lld positions", n, (long long)program->n_ctx);
    v->n_layers = program->n_layers;
    v->dim = program->dim;
    v->n_vocab = program->n_vocab;
    for (int i = 0; i < 2; i++) KG_TRY(kv_table_open(&v->models[i]->kv, &v->tables[i], (int64_t)n));
    v->taps = malloc((size_t)v->n_layers * CHUNK * (size_t)v->dim * sizeof *v->taps);
    v->layers = calloc((size_t)v->n_layers, sizeof *v->layers);
    v->logits = malloc((size_t)v->n_vocab * CHUNK * sizeof *v->logits);
    v->ref_logits = malloc((size_t)v->n_vocab * CHUNK * sizeof *v->ref_logits);
    if (!v->taps || !v->layers || !v->logits || !v->ref_logits) return status_set(KG_ERR_MEMORY, "no memory to verify");
    return KG_OK;
}

static kg_status verify(struct verify *v, const int32_t *tokens, size_t n)
{
    KG_TRY(session_check_tokens(v->models[0], tokens, n));
    for (size_t begin = 0; begin < n; begin += CHUNK) {
        size_t end = MIN(begin + CHUNK, n);
        KG_TRY(run_chunk(v, 1, tokens, begin, end));
        KG_TRY(run_chunk(v, 0, tokens, begin, end));
        compare_logits(v, end - begin);
    }
    return KG_OK;
}

static kg_status report(const struct verify *v, size_t n, kg_verify_report *out)
{
    out->layer_error = malloc((size_t)v->n_layers * sizeof *out->layer_error);
    if (!out->layer_error) return status_set(KG_ERR_MEMORY, "no memory for the report");
    for (int i = 0; i < v->n_layers; i++) out->layer_error[i] = relative(v->layers[i]);
    out->n_layers = v->n_layers;
    out->logits_error = relative(v->logits_error);
    out->logits_bound = v->models[0]->backend->error_bound(v->models[0]->ctx);
    out->worst_logit = v->worst;
    out->same_top = (double)v->n_same_top / (double)n;
    out->n_tokens = n;
    return KG_OK;
}

kg_status kg_verify(const char *path, const kg_model_params *params, const int32_t *tokens, size_t n, kg_verify_report *out)
{
    if (!path || !out || !tokens || n < 1)
        return status_set(KG_ERR_ARGUMENT, "verifying needs a path, at least one token and a place for the report");
    if (n > INT32_MAX - CHUNK) return status_set(KG_ERR_ARGUMENT, "%zu tokens are too many", n);
    *out = (kg_verify_report){0};
    struct verify v = {0};
    kg_status status = open_both(&v, path, params, n);
    if (status == KG_OK) status = verify(&v, tokens, n);
    if (status == KG_OK) status = report(&v, n, out);
    for (int i = 0; i < 2; i++) {
        if (v.models[i]) kv_table_close(&v.models[i]->kv, &v.tables[i]);
        kg_model_close(&v.models[i]);
    }
    free(v.taps);
    free(v.layers);
    free(v.logits);
    free(v.ref_logits);
    return status;
}

void kg_verify_report_free(kg_verify_report *r)
{
    if (!r) return;
    free(r->layer_error);
    *r = (kg_verify_report){0};
}
