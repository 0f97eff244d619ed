/* kg_imatrix and kg_embed: both look at what goes into matrices while a model runs. The importance of a matrix column is the mean
 * square of the input that it is multiplied with; an embedding is the input of the last matrix, after the final norm. */
#include "file/gguf_write.h"
#include "run/run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { STEP = 32 /* tokens per run: the logits of all are there */ };

static kg_status open_watched(kg_model **m, const char *path, const kg_model_params *params)
{
    KG_TRY(kg_model_open(m, path, params));
    if ((*m)->backend->shows_inputs) return KG_OK;
    return status_set(KG_ERR_UNSUPPORTED, "backend %s does not show what goes into matrices; cpu, reference and GPUs do", (*m)->backend->name);
}

/* tokens[n] as a sequence of their own, from position 0 on. logits: [STEP][n_vocab], since the last operations are done only for tokens that want them. */
static kg_status run_tokens(kg_model *m, struct kv_table *t, const int32_t *tokens, size_t n, float *logits,
                            void (*input)(void *, const struct batch_input *), void *ctx)
{
    struct batch_token batch_tokens[STEP];
    KG_TRY(kv_table_truncate(&m->kv, t, 0));
    for (size_t begin = 0; begin < n; begin += STEP) {
        size_t end = MIN(begin + STEP, n);
        KG_TRY(kv_table_prepare(&m->kv, t, (int64_t)begin, (int64_t)end));
        for (size_t i = begin; i < end; i++) batch_tokens[i - begin] = (struct batch_token){tokens[i], (int32_t)i, 0, true};
        struct batch_seq seq = {t->blocks, t->state, m->strengths};
        struct batch batch = {.tokens = batch_tokens, .n = (int)(end - begin), .seqs = &seq, .n_seqs = 1, .logits = logits, .input = input, .input_ctx = ctx};
        KG_TRY(backend_run(m->backend, m->ctx, &batch));
    }
    return KG_OK;
}

/* ---- importance ------------------------------------------------------------------------------------------------ */

struct column_sums {
    const struct tensor *t; /* of the file; NULL: a part of a tensor whose beginning counts for all of it, or seen already */
    double *sums;           /* [ne2][ne0] */
    double *counts;         /* [ne2]: of rows that an expert has seen */
};

struct imatrix {
    kg_model *model;
    struct column_sums *ops; /* [n_ops] */
    float *logits;
};

/* The matrix that use k of token t goes to. */
static size_t matrix_of(const struct batch_input *in, int t, int k)
{
    const size_t at = (size_t)t * (size_t)in->route_width + (size_t)k;
    if (in->route_width == 0) return (size_t)k;
    return (size_t)(in->route_f64 ? in->route_f64[at] : (double)in->route_f32[at]);
}

static void add_squares(void *ctx, const struct batch_input *in)
{
    const struct imatrix *im = ctx;
    struct column_sums *c = &im->ops[in->op - im->model->model.program.ops];
    if (!c->sums) return;
    const size_t dim = (size_t)in->op->w->ne[0], width = (size_t)in->width;
    const int uses = in->op->code == OP_MATMUL_EXPERTS ? in->op->n_used : 1;
    for (int t = 0; t < in->n; t++)
        for (int k = 0; k < uses; k++) {
            const size_t m = matrix_of(in, t, k), from = (size_t)t * width + (width == dim ? 0 : (size_t)k * dim);
            for (size_t i = 0; i < dim; i++) {
                double v = in->f64 ? in->f64[from + i] : (double)in->f32[from + i];
                c->sums[m * dim + i] += v * v;
            }
            c->counts[m] += 1;
        }
}

/* A part's name is "tensor[part]": all parts have the same input, so the first speaks for the tensor. */
static const struct tensor *whole_tensor(const struct file *f, const struct tensor *w)
{
    char name[512];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(w->name, "["), w->name);
    const struct tensor *t = file_tensor(f, name);
    return t && t->data == w->data ? t : NULL;
}

static kg_status find_columns(struct imatrix *im)
{
    const struct program *p = &im->model->model.program;
    im->ops = calloc((size_t)p->n_ops, sizeof *im->ops);
    if (!im->ops) return status_set(KG_ERR_MEMORY, "out of memory");
    for (int i = 0; i < p->n_ops; i++) {
        if (p->ops[i].code != OP_MATMUL && p->ops[i].code != OP_MATMUL_EXPERTS) continue;
        const struct tensor *t = whole_tensor(im->model->model.file, p->ops[i].w);
        for (int k = 0; t && k < i; k++)
            if (im->ops[k].t == t) t = NULL;
        if (!t) continue;
        im->ops[i].t = t;
        im->ops[i].sums = calloc((size_t)(t->ne[0] * t->ne[2]), sizeof *im->ops[i].sums);
        im->ops[i].counts = calloc((size_t)t->ne[2], sizeof *im->ops[i].counts);
        if (!im->ops[i].sums || !im->ops[i].counts) return status_set(KG_ERR_MEMORY, "out of memory");
    }
    return KG_OK;
}

/* The names and keys are those of llama.cpp's importance files. */
static kg_status write_imatrix(const struct imatrix *im, struct gguf_out *o, const char *dataset, uint32_t n_chunks, uint32_t chunk)
{
    const int n_ops = im->model->model.program.n_ops;
    const struct str name = {dataset, strlen(dataset)};
    char text[512];
    KG_TRY(gguf_out_str(o, "general.type", "imatrix", 7));
    KG_TRY(gguf_out_strings(o, "imatrix.datasets", &name, 1));
    KG_TRY(gguf_out_u32(o, "imatrix.chunk_count", n_chunks));
    KG_TRY(gguf_out_u32(o, "imatrix.chunk_size", chunk));
    for (int i = 0; i < n_ops; i++) {
        const struct column_sums *c = &im->ops[i];
        if (!c->sums) continue;
        snprintf(text, sizeof text, "%.400s.in_sum2", c->t->name);
        KG_TRY(gguf_out_tensor(o, text, TYPE_F32, 2, (int64_t[]){c->t->ne[0], c->t->ne[2]}));
        snprintf(text, sizeof text, "%.400s.counts", c->t->name);
        KG_TRY(gguf_out_tensor(o, text, TYPE_F32, 2, (int64_t[]){1, c->t->ne[2]}));
    }
    for (int i = 0; i < n_ops; i++) {
        const struct column_sums *c = &im->ops[i];
        for (int64_t k = 0; c->sums && k < c->t->ne[0] * c->t->ne[2]; k++) KG_TRY(gguf_out_data(o, &(float){(float)c->sums[k]}, sizeof(float)));
        for (int64_t k = 0; c->sums && k < c->t->ne[2]; k++) KG_TRY(gguf_out_data(o, &(float){(float)c->counts[k]}, sizeof(float)));
    }
    return gguf_out_finish(o);
}

static kg_status collect(struct imatrix *im, const kg_imatrix_params *p, const int32_t *tokens, size_t n, size_t chunk, uint32_t *n_chunks)
{
    struct kv_table table = {0};
    int32_t *part = malloc(chunk * sizeof *part);
    if (!part) return status_set(KG_ERR_MEMORY, "out of memory");
    kg_status status = kv_table_open(&im->model->kv, &table, (int64_t)chunk);
    for (size_t begin = 0; status == KG_OK && begin < n; begin += chunk) {
        size_t len = MIN(chunk, n - begin);
        if (len < chunk && begin > 0) break; /* chunks are of one length */
        memcpy(part, tokens + begin, len * sizeof *part);
        if (p->first >= 0) part[0] = p->first;
        status = run_tokens(im->model, &table, part, len, im->logits, add_squares, im);
        ++*n_chunks;
        if (status == KG_OK && p->progress && !p->progress(p->progress_ctx, begin + len, n)) status = status_set(KG_ERR_ABORTED, "stopped");
    }
    kv_table_close(&im->model->kv, &table);
    free(part);
    return status;
}

kg_status kg_imatrix(const char *path, const kg_model_params *params, const int32_t *tokens, size_t n, const kg_imatrix_params *p, const char *out)
{
    if (!path || !tokens || n < 1 || !p || !out) return status_set(KG_ERR_ARGUMENT, "an importance matrix needs a model, tokens, parameters and a path");
    struct imatrix im = {0};
    struct gguf_out *o = NULL;
    uint32_t n_chunks = 0;
    size_t chunk = p->chunk > 0 ? (size_t)p->chunk : 512;
    kg_status status = open_watched(&im.model, path, params);
    if (status == KG_OK && (int64_t)chunk > im.model->model.program.n_ctx) chunk = (size_t)im.model->model.program.n_ctx;
    if (status == KG_OK) status = session_check_generates(im.model);
    if (status == KG_OK) status = session_check_tokens(im.model, tokens, n);
    if (status == KG_OK) status = find_columns(&im);
    if (status == KG_OK && !(im.logits = malloc((size_t)STEP * (size_t)im.model->model.program.n_vocab * sizeof *im.logits)))
        status = status_set(KG_ERR_MEMORY, "out of memory");
    if (status == KG_OK) status = gguf_out_open(&o, out);
    if (status == KG_OK) status = collect(&im, p, tokens, n, chunk, &n_chunks);
    if (status == KG_OK) status = write_imatrix(&im, o, p->dataset ? p->dataset : "", n_chunks, (uint32_t)chunk);
    gguf_out_close(&o);
    for (int i = 0; im.ops && i < im.model->model.program.n_ops; i++) free(im.ops[i].sums), free(im.ops[i].counts);
    free(im.ops);
    free(im.logits);
    kg_model_close(&im.model);
    return status;
}

/* ---- embeddings ------------------------------------------------------------------------------------------------- */

struct pool_state {
    const struct op *last; /* the matmul whose result is the logits; NULL: the logits are the state */
    double *sum;           /* [dim] */
    int dim;
    kg_pooling pooling;
    size_t n_seen;
};

static void pool_rows(void *ctx, const struct batch_input *in)
{
    struct pool_state *s = ctx;
    if (in->op != s->last || in->width != s->dim) return;
    for (int t = 0; t < in->n; t++, s->n_seen++) {
        if (s->pooling == KG_POOLING_CLS && s->n_seen > 0) continue;
        for (int i = 0; i < in->width; i++) {
            size_t at = (size_t)t * (size_t)in->width + (size_t)i;
            double v = in->f64 ? in->f64[at] : (double)in->f32[at];
            s->sum[i] = s->pooling == KG_POOLING_MEAN ? s->sum[i] + v : v; /* CLS: the first; LAST: what remains at the end */
        }
    }
}

/* 0 none, 1 mean, 2 cls, 3 last, 4 rank in the file; a file that does not say gets the mean. */
static kg_status find_pooling(const kg_model *m, kg_pooling *pooling)
{
    char key[160];
    uint32_t v = 1;
    bool found;
    struct str arch;
    if (*pooling != KG_POOLING_FILE) return KG_OK;
    KG_TRY(file_get_str(m->model.file, "general.architecture", &arch, NULL));
    snprintf(key, sizeof key, "%.*s.pooling_type", (int)MIN(arch.len, (size_t)100), arch.ptr);
    KG_TRY(file_get_u32(m->model.file, key, &v, &found));
    if (v < 1 || v > 3) return status_set(KG_ERR_UNSUPPORTED, "%s is %u, which is not mean, cls or last; say which is wanted", key, v);
    *pooling = v == 1 ? KG_POOLING_MEAN : v == 2 ? KG_POOLING_CLS : KG_POOLING_LAST;
    return KG_OK;
}

static const struct op *last_matmul(const struct program *p)
{
    int reg = p->ops[p->n_ops - 1].src[0];
    for (int i = p->n_ops - 2; i >= 0; i--)
        if (p->ops[i].dst == reg) return p->ops[i].code == OP_MATMUL ? &p->ops[i] : NULL;
    return NULL;
}

int32_t kg_model_dim(const kg_model *model) { return model->model.program.dim; }

int32_t kg_model_embedding_dim(const kg_model *model) { return dense_width(model->model.dense, model->model.n_dense, model->model.program.dim); }

static kg_status check_steps(const kg_model *m)
{
    struct str step;
    bool found;
    KG_TRY(file_get_str(m->model.file, "kagari.embedding_step", &step, &found));
    return found ? status_set(KG_ERR_UNSUPPORTED, "the folder's modules.json has a step that is not supported: %.*s", (int)MIN(step.len, (size_t)60), step.ptr) : KG_OK;
}

static kg_status check_embed(const kg_model *m, const struct pool_state *s, const int32_t *tokens, size_t n)
{
    const struct program *p = &m->model.program;
    if (!p->is_encoder && !m->backend->shows_inputs)
        return status_set(KG_ERR_UNSUPPORTED, "backend %s does not show the state before the logits; cpu, reference and GPUs do", m->backend->name);
    if (!p->is_encoder && (!s->last || s->last->w->ne[0] != p->dim))
        return status_set(KG_ERR_UNSUPPORTED, "architecture %s ends in something else than a matrix over its state", m->model.arch->name);
    KG_TRY(check_steps(m));
    if (n > INT32_MAX - STEP || (p->ctx_is_hard && n > (size_t)p->n_ctx))
        return status_set(KG_ERR_CONTEXT, "%zu tokens: this model has %lld positions", n, (long long)p->n_ctx);
    if (p->is_encoder && n > (size_t)MIN(p->n_ctx, (int64_t)MAX_ENCODED))
        return status_set(KG_ERR_CONTEXT, "%zu tokens: this encoder takes %lld at most", n, (long long)MIN(p->n_ctx, (int64_t)MAX_ENCODED));
    return session_check_tokens(m, tokens, n);
}

/* The whole text at once: every token's state comes as if it were logits. */
static kg_status encode(kg_model *m, struct kv_table *t, const int32_t *tokens, size_t n, struct pool_state *s)
{
    struct batch_token *list = malloc(n * sizeof *list);
    float *rows = malloc(n * (size_t)s->dim * sizeof *rows);
    double *exact = m->backend->has_f64 ? malloc(n * (size_t)s->dim * sizeof *exact) : NULL;
    kg_status status = list && rows && (exact || !m->backend->has_f64) ? kv_table_prepare(&m->kv, t, 0, (int64_t)n) : status_set(KG_ERR_MEMORY, "out of memory");
    for (size_t i = 0; status == KG_OK && i < n; i++) list[i] = (struct batch_token){tokens[i], (int32_t)i, 0, true};
    if (status == KG_OK) {
        struct batch_seq seq = {t->blocks, t->state, m->strengths};
        const struct batch batch = {.tokens = list, .n = (int)n, .seqs = &seq, .n_seqs = 1, .logits = rows, .logits_f64 = exact};
        status = backend_run(m->backend, m->ctx, &batch);
    }
    if (status == KG_OK) pool_rows(s, &(struct batch_input){.n = (int)n, .width = s->dim, .f32 = exact ? NULL : rows, .f64 = exact});
    free(list);
    free(rows);
    free(exact);
    return status;
}

static kg_status finish_pooling(const kg_model *m, struct pool_state *s, size_t n)
{
    for (int i = 0; i < s->dim && s->pooling == KG_POOLING_MEAN; i++) s->sum[i] /= (double)n;
    return dense_apply(m->model.dense, m->model.n_dense, s->dim, s->sum);
}

kg_status embedding_of_states(const kg_model *m, const double *states, size_t n, double *out, size_t *n_pooled)
{
    const int dim = m->model.program.dim;
    struct pool_state s = {.dim = dim, .pooling = KG_POOLING_FILE};
    KG_TRY(check_steps(m));
    KG_TRY(find_pooling(m, &s.pooling));
    *n_pooled = s.pooling == KG_POOLING_MEAN ? n : 1;
    s.sum = calloc((size_t)dense_most(m->model.dense, m->model.n_dense, dim), sizeof *s.sum);
    if (!s.sum) return status_set(KG_ERR_MEMORY, "out of memory");
    pool_rows(&s, &(struct batch_input){.n = (int)n, .width = dim, .f64 = states});
    kg_status status = finish_pooling(m, &s, n);
    if (status == KG_OK) memcpy(out, s.sum, (size_t)kg_model_embedding_dim(m) * sizeof *out);
    free(s.sum);
    return status;
}

static kg_status of_length_1(const double *x, int n, float *out)
{
    double norm = 0;
    for (int i = 0; i < n; i++) norm += x[i] * x[i];
    if (!(norm > 0 && isfinite(norm))) return status_set(KG_ERR_DEVICE, "the embedding has no direction");
    for (int i = 0; i < n; i++) out[i] = (float)(x[i] / sqrt(norm));
    return KG_OK;
}

kg_status kg_embed(kg_model *m, const int32_t *tokens, size_t n, kg_pooling pooling, float *out)
{
    if (!m || !tokens || n < 1 || !out) return status_set(KG_ERR_ARGUMENT, "an embedding needs a model, tokens and a place for it");
    const struct program *p = &m->model.program;
    struct pool_state s = {.last = p->is_encoder ? NULL : last_matmul(p), .dim = p->dim, .pooling = pooling};
    KG_TRY(check_embed(m, &s, tokens, n));
    KG_TRY(find_pooling(m, &s.pooling));
    struct kv_table table = {0};
    float *logits = p->is_encoder ? NULL : malloc((size_t)STEP * (size_t)p->n_vocab * sizeof *logits);
    s.sum = calloc((size_t)dense_most(m->model.dense, m->model.n_dense, p->dim), sizeof *s.sum);
    kg_status status = (logits || p->is_encoder) && s.sum ? KG_OK : status_set(KG_ERR_MEMORY, "out of memory");
    pthread_mutex_lock(&m->lock);
    if (status == KG_OK) status = kv_table_open(&m->kv, &table, (int64_t)n);
    if (status == KG_OK) {
        status = p->is_encoder ? encode(m, &table, tokens, n, &s) : run_tokens(m, &table, tokens, n, logits, pool_rows, &s);
        kv_table_close(&m->kv, &table);
    }
    pthread_mutex_unlock(&m->lock);
    if (status == KG_OK) status = finish_pooling(m, &s, n);
    if (status == KG_OK) status = of_length_1(s.sum, kg_model_embedding_dim(m), out);
    free(s.sum);
    free(logits);
    return status;
}
