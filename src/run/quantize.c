/* kg_quantize: a model file to another with smaller tensor types. Works in slabs of rows, so that memory does not grow with the model. */
#include "base/threads.h"
#include "file/gguf_write.h"
#include "run/mixture.h"
#include "tensor/decode.h"
#include "tensor/encode.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { SLAB_ELEMENTS = 4 << 20 };

/* One slab: rows first .. first + n of a tensor. */
struct slab {
    const struct tensor *t;
    const float *weight; /* [ne0 * ne2]; NULL: none */
    enum tensor_type to;
    int64_t first, n;
    uint8_t *out;        /* n rows */
    struct thread_sums {
        double diff, all;
        int64_t bad_row; /* of the first row that holds a NaN or infinity; -1: none */
        bool beyond;     /* it was fine before and is not after */
        float *x, *y;    /* [ne0] */
        char gap[64];    /* no two threads in one cache line */
    } *threads;
};

struct job {
    const kg_quantize_params *p;
    struct file *in, *imatrix; /* imatrix NULL: none */
    struct gguf_out *out;
    struct pool *pool;
    enum tensor_type *types;
    uint8_t *bytes; /* a slab's rows */
    size_t cap;
    kg_quantize_report report;
};

/* ---- one slab -------------------------------------------------------------------------------------------------- */

static bool all_finite(const float *x, int64_t n)
{
    int bad = 0;
    for (int64_t i = 0; i < n; i++) bad += !(fabsf(x[i]) <= 3.402823466e38f);
    return !bad;
}

static void encode_share(void *ctx, int i, int n_threads)
{
    struct slab *s = ctx;
    struct thread_sums *sums = &s->threads[i];
    const struct tensor *t = s->t;
    int64_t begin = s->n * i / n_threads, end = s->n * (i + 1) / n_threads, n = t->ne[0];
    const struct type_info *to = type_by_id((uint32_t)s->to);
    size_t row_bytes = (size_t)(n / to->block) * (size_t)to->block_bytes;
    for (int64_t r = begin; r < end && sums->bad_row < 0; r++) {
        const float *w = s->weight ? s->weight + (s->first + r) / t->ne[1] % t->ne[2] * n : NULL;
        uint8_t *out = s->out + (size_t)r * row_bytes;
        decode_f32(t->type)(tensor_row(t, s->first + r), sums->x, n);
        bool good = all_finite(sums->x, n);
        if (good) {
            encode_f32(s->to)(sums->x, w, out, n);
            decode_f32(s->to)(out, sums->y, n);
            sums->beyond = !all_finite(sums->y, n);
        }
        if (!good || sums->beyond) sums->bad_row = s->first + r;
        for (int64_t k = 0; k < n; k++) {
            double e = (double)sums->y[k] - (double)sums->x[k];
            sums->diff += e * e;
            sums->all += (double)sums->x[k] * (double)sums->x[k];
        }
    }
}

static kg_status check_slab(const struct slab *s, int n_threads)
{
    for (int i = 0; i < n_threads; i++) {
        const struct thread_sums *sums = &s->threads[i];
        if (sums->bad_row < 0) continue;
        if (!sums->beyond)
            return status_set(KG_ERR_FORMAT, "tensor %s: row %" PRId64 " holds a NaN or an infinity", s->t->name, sums->bad_row);
        return status_set(KG_ERR_UNSUPPORTED, "tensor %s: row %" PRId64 " has values too large for %s", s->t->name, sums->bad_row,
                          type_by_id((uint32_t)s->to)->name);
    }
    return KG_OK;
}

/* ---- one tensor ------------------------------------------------------------------------------------------------ */

/* The mean squared inputs of t's columns, malloc'ed [ne0 * ne2]; *out NULL: the matrix does not know the tensor. */
static kg_status find_weights(const struct job *j, const struct tensor *t, float **out)
{
    char name[512];
    *out = NULL;
    if (!j->imatrix) return KG_OK;
    snprintf(name, sizeof name, "%.400s.in_sum2", t->name);
    const struct tensor *sums = file_tensor(j->imatrix, name);
    snprintf(name, sizeof name, "%.400s.counts", t->name);
    const struct tensor *counts = file_tensor(j->imatrix, name);
    if (!sums || !counts) return KG_OK;
    size_t n = (size_t)(t->ne[0] * t->ne[2]);
    if (sums->type != TYPE_F32 || counts->type != TYPE_F32 || sums->ne[0] != t->ne[0] || tensor_n_rows(sums) != t->ne[2] ||
        counts->n_bytes != (size_t)t->ne[2] * sizeof(float))
        return status_set(KG_ERR_FORMAT, "%s: the importances of %s do not have the tensor's shape", j->imatrix->path, t->name);
    float *w = malloc(n * sizeof *w), *c = malloc(counts->n_bytes);
    if (!w || !c) goto no_memory;
    memcpy(w, sums->data, n * sizeof *w);
    memcpy(c, counts->data, counts->n_bytes);
    for (size_t i = 0; i < n; i++) {
        float count = c[i / (size_t)t->ne[0]];
        if (!isfinite(w[i]) || w[i] < 0 || !isfinite(count) || count < 0) {
            free(w), free(c);
            return status_set(KG_ERR_FORMAT, "%s: the importances of %s are not all finite and positive", j->imatrix->path, t->name);
        }
        w[i] = count > 0 ? w[i] / count : 1; /* an expert that was never used: all alike */
    }
    free(c);
    *out = w;
    return KG_OK;
no_memory:
    free(w), free(c);
    return status_set(KG_ERR_MEMORY, "out of memory for the importances of %s", t->name);
}

static kg_status encode_tensor(struct job *j, const struct tensor *t, enum tensor_type to, const float *weight, struct thread_sums *sums)
{
    const struct type_info *type = type_by_id((uint32_t)to);
    size_t row_bytes = (size_t)(t->ne[0] / type->block) * (size_t)type->block_bytes;
    int64_t n_rows = tensor_n_rows(t), per_slab = MAX(SLAB_ELEMENTS / t->ne[0], 1);
    if (row_bytes * (size_t)per_slab > j->cap) {
        free(j->bytes);
        j->cap = row_bytes * (size_t)per_slab;
        j->bytes = malloc(j->cap);
        if (!j->bytes) return status_set(KG_ERR_MEMORY, "out of memory for tensor %s", t->name);
    }
    for (int64_t first = 0; first < n_rows; first += per_slab) {
        struct slab s = {.t = t, .weight = weight, .to = to, .first = first, .n = MIN(per_slab, n_rows - first), .out = j->bytes, .threads = sums};
        pool_run(j->pool, encode_share, &s);
        KG_TRY(check_slab(&s, pool_n_threads(j->pool)));
        KG_TRY(gguf_out_data(j->out, j->bytes, row_bytes * (size_t)s.n));
    }
    return KG_OK;
}

static kg_status quantize_tensor(struct job *j, const struct tensor *t, enum tensor_type to, double *error)
{
    *error = 0;
    if (to == t->type) return gguf_out_data(j->out, t->data, t->n_bytes);
    int n = pool_n_threads(j->pool);
    float *weight = NULL, *rows = malloc((size_t)n * 2 * (size_t)t->ne[0] * sizeof *rows);
    struct thread_sums *sums = calloc((size_t)n, sizeof *sums);
    kg_status status = rows && sums ? find_weights(j, t, &weight) : status_set(KG_ERR_MEMORY, "out of memory for tensor %s", t->name);
    for (int i = 0; status == KG_OK && i < n; i++) {
        sums[i].bad_row = -1;
        sums[i].x = rows + (size_t)(2 * i) * (size_t)t->ne[0];
        sums[i].y = sums[i].x + t->ne[0];
    }
    if (status == KG_OK) status = encode_tensor(j, t, to, weight, sums);
    double diff = 0, all = 0;
    for (int i = 0; status == KG_OK && i < n; i++) diff += sums[i].diff, all += sums[i].all;
    *error = all > 0 ? sqrt(diff / all) : 0;
    j->report.n_weighted += weight != NULL;
    free(weight);
    free(rows);
    free(sums);
    return status;
}

/* ---- the file --------------------------------------------------------------------------------------------------- */

static bool is_split_key(const char *key) { return strncmp(key, "split.", 6) == 0; }

static kg_status put_keys(struct job *j, uint32_t file_type)
{
    for (size_t i = 0; i < j->in->n_metas; i++) {
        const struct meta *m = &j->in->metas[i];
        bool ours = !strcmp(m->key, "general.file_type") || !strcmp(m->key, "general.quantization_version") ||
                    !strcmp(m->key, "general.alignment") || is_split_key(m->key) || !strncmp(m->key, "quantize.imatrix.", 17);
        if (!ours) KG_TRY(gguf_out_meta(j->out, m));
    }
    KG_TRY(gguf_out_u32(j->out, "general.quantization_version", 2));
    KG_TRY(gguf_out_u32(j->out, "general.file_type", file_type));
    if (!j->imatrix) return KG_OK;
    uint32_t chunks = 0;
    bool found;
    KG_TRY(gguf_out_str(j->out, "quantize.imatrix.file", j->p->imatrix, strlen(j->p->imatrix)));
    KG_TRY(gguf_out_u32(j->out, "quantize.imatrix.entries_count", (uint32_t)(j->imatrix->n_tensors / 2)));
    KG_TRY(file_get_u32(j->imatrix, "imatrix.chunk_count", &chunks, &found));
    return found ? gguf_out_u32(j->out, "quantize.imatrix.chunks_count", chunks) : KG_OK;
}

static kg_status check_type(const struct job *j, const struct tensor *t, enum tensor_type to)
{
    const char *from = type_by_id((uint32_t)t->type)->name, *name = type_by_id((uint32_t)to)->name;
    if (to == t->type) return KG_OK;
    if (!encode_f32(to)) return status_set(KG_ERR_UNSUPPORTED, "tensor %s: there is no quantizer for %s", t->name, name);
    char sums[512];
    snprintf(sums, sizeof sums, "%.400s.in_sum2", t->name);
    if (mixture_needs_imatrix(t, to) && !(j->imatrix && file_tensor(j->imatrix, sums)))
        return status_set(KG_ERR_ARGUMENT, "tensor %s: %s is of little use without importances, and %s", t->name, name,
                          j->imatrix ? "the importance matrix has none for it" : "there is no importance matrix");
    bool plain = t->type == TYPE_F32 || t->type == TYPE_F16 || t->type == TYPE_BF16 || t->type == TYPE_F64;
    if (!plain && !j->p->allow_requantize)
        return status_set(KG_ERR_UNSUPPORTED, "tensor %s is %s already: quantizing twice adds up the errors, and is done only if allowed", t->name, from);
    return KG_OK;
}

static kg_status run(struct job *j, const struct mixture_choice *choice)
{
    uint64_t total = 0, done = 0;
    KG_TRY(mixture_types(j->in, choice, j->types));
    KG_TRY(put_keys(j, mixture_file_type(choice->mixture)));
    for (size_t i = 0; i < j->in->n_tensors; i++) {
        const struct tensor *t = &j->in->tensors[i];
        KG_TRY(check_type(j, t, j->types[i]));
        KG_TRY(gguf_out_tensor(j->out, t->name, j->types[i], t->n_dims, t->ne));
        total += t->n_bytes;
    }
    for (size_t i = 0; i < j->in->n_tensors; i++) {
        const struct tensor *t = &j->in->tensors[i];
        const struct type_info *from = type_by_id((uint32_t)t->type), *to = type_by_id((uint32_t)j->types[i]);
        kg_quantize_step step = {.i = i, .n = j->in->n_tensors, .tensor = t->name, .from = from->name, .to = to->name};
        KG_TRY(quantize_tensor(j, t, j->types[i], &step.error));
        os_map_release(t->data, t->n_bytes);
        done += t->n_bytes;
        step.done = (double)done / (double)MAX(total, 1);
        step.n_bytes = (uint64_t)(t->ne[0] / to->block) * (uint64_t)to->block_bytes * (uint64_t)tensor_n_rows(t);
        j->report.bytes_before += t->n_bytes;
        j->report.bytes_after += step.n_bytes;
        if (j->p->progress && !j->p->progress(j->p->progress_ctx, &step)) return status_set(KG_ERR_ABORTED, "stopped");
    }
    return gguf_out_finish(j->out);
}

static kg_status find_type(const char *name, const char *what, const struct type_info **out)
{
    *out = name ? type_by_name(name) : NULL;
    if (!name || (*out && encode_f32((*out)->type))) return KG_OK;
    return status_set(KG_ERR_ARGUMENT, "%s type '%s': there is no such type, or no quantizer for it", what, name);
}

/* Each is PATTERN=TYPE. The patterns are the caller's to free, also on failure. */
static kg_status find_overrides(const kg_quantize_params *p, struct mixture_override *list, struct mixture_choice *out)
{
    if (p->n_tensor_types > MIXTURE_MOST_OVERRIDES) return status_set(KG_ERR_ARGUMENT, "%zu types of tensors, at most %d", p->n_tensor_types, MIXTURE_MOST_OVERRIDES);
    out->overrides = list;
    for (size_t i = 0; i < p->n_tensor_types; i++) {
        const char *text = p->tensor_types[i], *equals = text ? strrchr(text, '=') : NULL;
        char what[64];
        if (!equals || equals == text || !equals[1]) return status_set(KG_ERR_ARGUMENT, "'%s' must be PATTERN=TYPE", text ? text : "");
        struct buf pattern = {0};
        KG_TRY(buf_printf(&pattern, "%.*s", (int)(equals - text), text));
        list[i].text = text;
        kg_status status = pattern_new(&list[i].pattern, pattern.data, PATTERN_PART);
        buf_free(&pattern);
        out->n_overrides = i + 1;
        snprintf(what, sizeof what, "'%.40s':", text);
        if (status == KG_OK) status = find_type(equals + 1, what, &list[i].type);
        KG_TRY(status);
    }
    return KG_OK;
}

static kg_status find_choice(const kg_quantize_params *p, struct mixture_override *list, struct mixture_choice *out)
{
    *out = (struct mixture_choice){.pure = p->pure, .has_imatrix = p->imatrix != NULL};
    KG_TRY(find_overrides(p, list, out));
    KG_TRY(find_type(p->output_type, "output", &out->output));
    KG_TRY(find_type(p->embedding_type, "embedding", &out->embedding));
    if (p->type && mixture_find(p->type, &out->mixture)) return KG_OK;
    char known[400] = "";
    for (size_t i = 0, len = 0; mixture_name(i) && len < sizeof known; i++)
        len += (size_t)snprintf(known + len, sizeof known - len, "%s%s", i ? ", " : "", mixture_name(i));
    return status_set(KG_ERR_ARGUMENT, "type '%s' must be one of %s", p->type ? p->type : "", known);
}

const char *kg_quantize_type(size_t i) { return mixture_name(i); }

kg_status kg_quantize(const char *in, const char *out, const kg_quantize_params *params, kg_quantize_report *report)
{
    if (!in || !out || !params) return status_set(KG_ERR_ARGUMENT, "quantizing needs two paths and parameters");
    if (params->n_threads < 0 || params->n_threads > 1024) return status_set(KG_ERR_ARGUMENT, "%d threads: must be 0 to 1024", params->n_threads);
    struct mixture_choice choice;
    struct job j = {.p = params};
    struct mixture_override *overrides = calloc(params->n_tensor_types + 1, sizeof *overrides);
    kg_status status = overrides ? find_choice(params, overrides, &choice) : status_set(KG_ERR_MEMORY, "out of memory");
    if (status == KG_OK) status = file_open(&j.in, in);
    if (status == KG_OK && params->imatrix) status = file_open(&j.imatrix, params->imatrix);
    if (status == KG_OK) status = pool_new(&j.pool, params->n_threads ? params->n_threads : os_n_processors());
    if (status == KG_OK && !(j.types = malloc((j.in->n_tensors + 1) * sizeof *j.types))) status = status_set(KG_ERR_MEMORY, "out of memory");
    if (status == KG_OK) status = gguf_out_open(&j.out, out);
    if (status == KG_OK) status = run(&j, &choice);
    if (status == KG_OK && report) *report = j.report;
    gguf_out_close(&j.out);
    pool_free(&j.pool);
    file_close(&j.in);
    file_close(&j.imatrix);
    for (size_t i = 0; overrides && i < params->n_tensor_types; i++) pattern_free(&overrides[i].pattern);
    free(overrides);
    free(j.types);
    free(j.bytes);
    return status;
}
