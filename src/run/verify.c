/* kg_verify: the same tokens through a backend and through the float64 reference, and how far apart they are, after each layer and
 * at the logits. kg_verify_ops: also after each operation, and what that operation adds. Keeps the numbers of one chunk of tokens at a time. */
#include "run/run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define CHUNK 32    /* tokens per run: the logits of all are kept */
#define OPS_CHUNK 8 /* ... and the results of every operation */

/* Sums of ||a - r||^2 and ||r||^2. */
struct error_sum {
    double diff, ref;
};

/* What is kept of an operation. */
struct watched {
    bool ends_layer;
    bool shown;  /* by the backend in question */
    double *ref; /* [chunk][width]: the reference's result */
    float *got;  /* [chunk][width]: the backend's */
    struct error_sum own, total;
};

enum run { RUN_BACKEND, RUN_REFERENCE, RUN_ALONE, N_RUNS }; /* ALONE: the reference with the backend's inputs for each operation */

struct verify {
    kg_model *models[2]; /* the backend in question, the reference */
    struct kv_table tables[N_RUNS];
    struct watched *ops; /* [n_ops]; NULL: only the layers are looked at */
    int n_ops;
    size_t chunk;
    int n_layers, dim, n_out; /* n_out: numbers of LOGITS */
    struct batch_token *batch; /* [chunk] */
    double embedding_error, embedding_bound; /* of an encoder */
    double *taps;             /* [n_layers][chunk][dim]: the reference's residual stream of this chunk */
    struct error_sum *layers; /* [n_layers] */
    float *logits;            /* [chunk][n_out], of the backend; while the reference runs it receives its rounded ones */
    double *ref_logits;       /* [chunk][n_out] */
    struct error_sum logits_error;
    double worst;
    size_t n_same_top;
};

static double relative(struct error_sum e) { return e.diff == 0 ? 0 : sqrt(e.diff / e.ref); }

static double *tap_rows(const struct verify *v, int layer) { return v->taps + (size_t)layer * v->chunk * (size_t)v->dim; }

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

/* ---- operation by operation ---- */

static void add_error(struct error_sum *e, double a, double r)
{
    e->diff += (a - r) * (a - r);
    e->ref += r * r;
}

/* NULL: a backend that works on a copy of the program does not tell which operation it shows. */
static struct watched *watched_of(const struct verify *v, int model, const struct op *op)
{
    const struct program *p = &v->models[model]->model.program;
    return op >= p->ops && op < p->ops + p->n_ops ? &v->ops[op - p->ops] : NULL;
}

static void keep_op(void *ctx, const struct op *op, int n, int width, const float *f32, const double *f64)
{
    struct watched *w = watched_of(ctx, 1, op);
    for (size_t i = 0; w && i < (size_t)n * (size_t)width; i++) w->ref[i] = f64 ? f64[i] : (double)f32[i];
}

static void compare_op(void *ctx, const struct op *op, int n, int width, const float *f32, const double *f64)
{
    struct watched *w = watched_of(ctx, 0, op);
    if (!w) return;
    w->shown = true;
    for (size_t i = 0; i < (size_t)n * (size_t)width; i++) {
        double a = f64 ? f64[i] : (double)f32[i];
        add_error(&w->total, a, w->ref[i]);
        w->got[i] = (float)a;
    }
}

/* The reference has just computed f_i(a); it goes on with a_i. */
static void replace_op(void *ctx, const struct op *op, int n, int width, double *f64)
{
    struct watched *w = watched_of(ctx, 1, op);
    if (!w || !w->shown) return;
    for (size_t i = 0; i < (size_t)n * (size_t)width; i++) {
        add_error(&w->own, (double)w->got[i], f64[i]);
        f64[i] = (double)w->got[i];
    }
}

/* Before a backend sees the program: every operation is to be shown. */
static void watch_more(void *ctx, struct program *p)
{
    (void)ctx;
    for (int i = 0; i < p->n_ops; i++) p->ops[i].tap = p->ops[i].dst >= 0;
}

static void watch_all(void *ctx, struct program *p)
{
    struct verify *v = ctx;
    v->n_ops = p->n_ops;
    v->ops = calloc((size_t)p->n_ops, sizeof *v->ops);
    for (int i = 0; i < p->n_ops && v->ops; i++) v->ops[i].ends_layer = p->ops[i].tap;
    watch_more(v, p);
}

/* The two files must be of one model. */
static kg_status check_same(const struct verify *v)
{
    const struct program *a = &v->models[0]->model.program, *b = &v->models[1]->model.program;
    bool same = a->n_ops == b->n_ops && a->n_regs == b->n_regs && a->n_layers == b->n_layers && a->dim == b->dim && a->n_vocab == b->n_vocab;
    for (int i = 0; same && i < a->n_ops; i++) same = a->ops[i].code == b->ops[i].code && a->ops[i].dst == b->ops[i].dst && a->ops[i].layer == b->ops[i].layer;
    for (int i = 0; same && i < a->n_regs; i++) same = a->reg_width[i] == b->reg_width[i];
    return same ? KG_OK : status_set(KG_ERR_ARGUMENT, "the base file has another model: its operations differ");
}

static kg_status open_ops(struct verify *v)
{
    const struct program *p = &v->models[1]->model.program;
    if (!v->ops) return status_set(KG_ERR_MEMORY, "no memory for the results of every operation");
    KG_TRY(check_same(v));
    for (int i = 0; i < p->n_ops; i++) {
        if (p->ops[i].dst < 0) continue;
        size_t n = v->chunk * (size_t)p->reg_width[p->ops[i].dst];
        v->ops[i].ref = malloc(n * sizeof *v->ops[i].ref);
        v->ops[i].got = malloc(n * sizeof *v->ops[i].got);
        if (!v->ops[i].ref || !v->ops[i].got) return status_set(KG_ERR_MEMORY, "no memory for the results of every operation");
    }
    return KG_OK;
}

/* ---- */

static void set_taps(struct verify *v, enum run run, struct batch *b)
{
    b->tap_ctx = b->patch_ctx = v;
    if (!v->ops) b->tap = run == RUN_REFERENCE ? keep_tap : compare_tap;
    else if (run == RUN_ALONE) b->patch = replace_op;
    else b->tap = run == RUN_REFERENCE ? keep_op : compare_op;
}

/* One chunk through one of the two models. */
static kg_status run_chunk(struct verify *v, enum run run, const int32_t *tokens, size_t begin, size_t end)
{
    kg_model *m = v->models[run != RUN_BACKEND];
    struct kv_table *t = &v->tables[run];
    KG_TRY(kv_table_prepare(&m->kv, t, (int64_t)begin, (int64_t)end));
    for (size_t i = begin; i < end; i++) v->batch[i - begin] = (struct batch_token){tokens[i], (int32_t)i, 0, true};
    struct batch_seq seq = {t->blocks, t->state, m->strengths};
    struct batch batch = {
        .tokens = v->batch,
        .n = (int)(end - begin),
        .seqs = &seq,
        .n_seqs = 1,
        .logits = v->logits,
        .logits_f64 = run != RUN_BACKEND ? v->ref_logits : NULL,
    };
    set_taps(v, run, &batch);
    return backend_run(m->backend, m->ctx, &batch);
}

static void compare_logits(struct verify *v, size_t n)
{
    for (size_t t = 0; t < n; t++) {
        const float *a = v->logits + t * (size_t)v->n_out;
        const double *r = v->ref_logits + t * (size_t)v->n_out;
        int top_a = 0, top_r = 0;
        for (int i = 0; i < v->n_out; i++) {
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

/* What the bound of the states, which is about all of them together, makes of the embedding: of those that are pooled, an error of no particular
 * direction behind the linear layers. */
static kg_status compare_embeddings(struct verify *v, size_t n)
{
    const kg_model *m = v->models[1];
    const int width = kg_model_embedding_dim(m);
    const size_t n_states = n * (size_t)v->dim;
    size_t n_pooled = 1;
    double *states = malloc(n_states * sizeof *states), *e[2] = {calloc((size_t)width, sizeof **e), calloc((size_t)width, sizeof **e)};
    double norm[2] = {0, 0}, all = 0;
    struct error_sum sum = {0, 0};
    kg_status status = states && e[0] && e[1] ? KG_OK : status_set(KG_ERR_MEMORY, "no memory to verify");
    for (size_t i = 0; status == KG_OK && i < n_states; i++) {
        states[i] = (double)v->logits[i];
        all += v->ref_logits[i] * v->ref_logits[i];
    }
    if (status == KG_OK) status = embedding_of_states(m, states, n, e[0], &n_pooled);
    if (status == KG_OK) status = embedding_of_states(m, v->ref_logits, n, e[1], &n_pooled);
    for (int k = 0; k < 2 && status == KG_OK; k++) {
        for (int i = 0; i < width; i++) norm[k] += e[k][i] * e[k][i];
        norm[k] = sqrt(norm[k]);
    }
    for (int i = 0; i < width && status == KG_OK; i++) add_error(&sum, e[0][i] / norm[0], e[1][i] / norm[1]);
    v->embedding_error = relative(sum);
    v->embedding_bound = v->models[0]->backend->error_bound(v->models[0]->ctx) * sqrt(all / (double)n_pooled) * dense_gain(m->model.dense, m->model.n_dense) / norm[1];
    free(states);
    free(e[0]);
    free(e[1]);
    return status;
}

static kg_status open_both(struct verify *v, const char *path, const char *base, bool ops, const kg_model_params *params, size_t n)
{
    kg_model_params p = params ? *params : kg_model_default_params();
    p.n_ctx = MAX(p.n_ctx, (int64_t)n);
    KG_TRY(model_open_with(&v->models[0], path, &p, ops ? watch_all : NULL, v));
    p.backend = "reference";
    KG_TRY(model_open_with(&v->models[1], base ? base : path, &p, ops ? watch_more : NULL, v));
    if (!v->models[1]->backend->has_f64) return status_set(KG_ERR_UNSUPPORTED, "the reference backend has no float64 logits");
    const struct program *program = &v->models[0]->model.program;
    if (program->is_encoder && n > (size_t)MIN(program->n_ctx, (int64_t)MAX_ENCODED))
        return status_set(KG_ERR_CONTEXT, "%zu tokens: this encoder takes %lld at most", n, (long long)MIN(program->n_ctx, (int64_t)MAX_ENCODED));
    if (program->ctx_is_hard && n > (size_t)program->n_ctx)
        return status_set(KG_ERR_CONTEXT, "%zu tokens: this model has %lld positions", n, (long long)program->n_ctx);
    v->n_layers = program->n_layers;
    v->dim = program->dim;
    v->n_out = program_n_out(program);
    v->chunk = program->is_encoder ? n : ops ? OPS_CHUNK : CHUNK; /* an encoder's tokens look at all others */
    v->batch = malloc(v->chunk * sizeof *v->batch);
    for (int i = 0; i < N_RUNS; i++) KG_TRY(kv_table_open(&v->models[i != RUN_BACKEND]->kv, &v->tables[i], (int64_t)n));
    if (ops) KG_TRY(open_ops(v));
    else v->taps = malloc((size_t)v->n_layers * v->chunk * (size_t)v->dim * sizeof *v->taps);
    v->layers = calloc((size_t)v->n_layers, sizeof *v->layers);
    v->logits = malloc((size_t)v->n_out * v->chunk * sizeof *v->logits);
    v->ref_logits = malloc((size_t)v->n_out * v->chunk * sizeof *v->ref_logits);
    if ((!ops && !v->taps) || !v->batch || !v->layers || !v->logits || !v->ref_logits) return status_set(KG_ERR_MEMORY, "no memory to verify");
    return KG_OK;
}

static kg_status verify(struct verify *v, const int32_t *tokens, size_t n, bool (*progress)(void *ctx, size_t done, size_t total), void *ctx)
{
    KG_TRY(session_check_tokens(v->models[0], tokens, n));
    for (size_t begin = 0; begin < n; begin += v->chunk) {
        size_t end = MIN(begin + v->chunk, n);
        KG_TRY(run_chunk(v, RUN_REFERENCE, tokens, begin, end));
        KG_TRY(run_chunk(v, RUN_BACKEND, tokens, begin, end));
        compare_logits(v, end - begin);
        if (v->models[0]->model.program.is_encoder) KG_TRY(compare_embeddings(v, n));
        if (v->ops) KG_TRY(run_chunk(v, RUN_ALONE, tokens, begin, end));
        if (progress && !progress(ctx, end, n)) return status_set(KG_ERR_ABORTED, "stopped after %zu of %zu tokens", end, n);
    }
    return KG_OK;
}

static kg_status report(const struct verify *v, size_t n, kg_verify_report *out)
{
    const struct program *p = &v->models[0]->model.program;
    for (int i = 0; v->ops && i < p->n_ops; i++)
        if (v->ops[i].ends_layer && p->ops[i].layer >= 0) v->layers[p->ops[i].layer] = v->ops[i].total;
    out->layer_error = malloc((size_t)v->n_layers * sizeof *out->layer_error);
    if (!out->layer_error) return status_set(KG_ERR_MEMORY, "no memory for the report");
    for (int i = 0; i < v->n_layers; i++) out->layer_error[i] = relative(v->layers[i]);
    out->n_layers = v->n_layers;
    out->logits_error = relative(v->logits_error);
    out->logits_bound = v->models[0]->backend->error_bound(v->models[0]->ctx);
    out->worst_logit = v->worst;
    out->same_top = (double)v->n_same_top / (double)n;
    out->n_tokens = n;
    out->is_encoder = p->is_encoder;
    out->embedding_error = v->embedding_error;
    out->embedding_bound = v->embedding_bound;
    return KG_OK;
}

static kg_status report_ops(const struct verify *v, kg_ops_report *out)
{
    const struct program *p = &v->models[0]->model.program;
    bool shown = false;
    out->ops = calloc((size_t)p->n_ops, sizeof *out->ops);
    if (!out->ops) return status_set(KG_ERR_MEMORY, "no memory for the report");
    for (int i = 0; i < p->n_ops; i++) {
        const struct op *op = &p->ops[i];
        const struct watched *w = &v->ops[i];
        if (op->dst < 0) continue;
        kg_op_error *e = &out->ops[out->n_ops++];
        *e = (kg_op_error){.layer = op->layer, .op = op_name(op->code), .own = w->shown ? relative(w->own) : NAN, .total = w->shown ? relative(w->total) : NAN};
        if (op->code != OP_ROPE && op->code != OP_ATTENTION && op->w) {
            snprintf(e->tensor, sizeof e->tensor, "%s", op->w->name);
            snprintf(e->type, sizeof e->type, "%s", type_by_id((uint32_t)op->w->type)->name);
        }
        shown |= w->shown;
    }
    if (!shown) return status_set(KG_ERR_UNSUPPORTED, "the %s backend does not show single operations", v->models[0]->backend->name);
    return KG_OK;
}

static void release(struct verify *v)
{
    for (int i = 0; i < N_RUNS; i++)
        if (v->models[i != RUN_BACKEND]) kv_table_close(&v->models[i != RUN_BACKEND]->kv, &v->tables[i]);
    for (int i = 0; v->ops && i < v->n_ops; i++) {
        free(v->ops[i].ref);
        free(v->ops[i].got);
    }
    for (int i = 0; i < 2; i++) kg_model_close(&v->models[i]);
    free(v->ops);
    free(v->batch);
    free(v->taps);
    free(v->layers);
    free(v->logits);
    free(v->ref_logits);
}

static kg_status check_arguments(const char *path, const int32_t *tokens, size_t n, const void *out)
{
    if (!path || !out || !tokens || n < 1)
        return status_set(KG_ERR_ARGUMENT, "verifying needs a path, at least one token and a place for the report");
    if (n > INT32_MAX - CHUNK) return status_set(KG_ERR_ARGUMENT, "%zu tokens are too many", n);
    return KG_OK;
}

kg_status kg_verify(const char *path, const kg_model_params *params, const int32_t *tokens, size_t n, kg_verify_report *out)
{
    KG_TRY(check_arguments(path, tokens, n, out));
    *out = (kg_verify_report){0};
    struct verify v = {0};
    kg_status status = open_both(&v, path, NULL, false, params, n);
    if (status == KG_OK) status = verify(&v, tokens, n, NULL, NULL);
    if (status == KG_OK) status = report(&v, n, out);
    release(&v);
    return status;
}

kg_status kg_verify_ops(const char *path, const char *base, const kg_model_params *params, const int32_t *tokens, size_t n,
                        bool (*progress)(void *ctx, size_t done, size_t total), void *ctx, kg_ops_report *out)
{
    KG_TRY(check_arguments(path, tokens, n, out));
    *out = (kg_ops_report){0};
    struct verify v = {0};
    kg_status status = open_both(&v, path, base, true, params, n);
    if (status == KG_OK) status = verify(&v, tokens, n, progress, ctx);
    if (status == KG_OK) status = report(&v, n, &out->whole);
    if (status == KG_OK) status = report_ops(&v, out);
    if (status == KG_OK && base) out->whole.logits_bound = NAN;
    release(&v);
    if (status != KG_OK) kg_ops_report_free(out);
    return status;
}

void kg_ops_report_free(kg_ops_report *r)
{
    if (!r) return;
    free(r->ops);
    kg_verify_report_free(&r->whole);
    *r = (kg_ops_report){0};
}

void kg_verify_report_free(kg_verify_report *r)
{
    if (!r) return;
    free(r->layer_error);
    *r = (kg_verify_report){0};
}
