/* Linear layers behind the pooling; see dense.h. */
#include "model/dense.h"

#include "tensor/decode.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { FIRST = 2, MOST = 16 }; /* sentence-transformers counts its steps; the first two are the model and the pooling */

static kg_status check(const struct file *f, const struct dense *d, int number, int64_t in)
{
    char key[64];
    struct str act;
    bool found;
    if (d->w->n_dims > 2 || d->w->ne[0] != in || d->w->ne[1] > 1 << 20)
        return status_set(KG_ERR_FORMAT, "%s: tensor %s is {%lld, %lld}, %lld numbers come in", f->path, d->w->name, (long long)d->w->ne[0], (long long)d->w->ne[1], (long long)in);
    if (d->b && (d->b->n_dims != 1 || d->b->ne[0] != d->w->ne[1]))
        return status_set(KG_ERR_FORMAT, "%s: tensor %s does not have %lld numbers", f->path, d->b->name, (long long)d->w->ne[1]);
    snprintf(key, sizeof key, "kagari.dense_%d_activation", number);
    KG_TRY(file_get_str(f, key, &act, &found));
    if (found && (act.len != 4 || memcmp(act.ptr, "tanh", 4) != 0)) return status_set(KG_ERR_UNSUPPORTED, "%s: key %s is not tanh", f->path, key);
    return KG_OK;
}

kg_status dense_find(const struct file *f, struct program *p, struct dense **list, int *n)
{
    char name[64];
    int64_t in = p->dim;
    *n = 0;
    *list = arena_array(&p->arena, MOST, sizeof **list);
    if (!*list) return KG_ERR_MEMORY;
    for (int i = 0; i < MOST; i++) {
        struct dense *d = &(*list)[i];
        struct str act;
        bool found;
        snprintf(name, sizeof name, "dense_%d.weight", FIRST + i);
        d->w = file_tensor(f, name);
        if (!d->w) break;
        snprintf(name, sizeof name, "dense_%d.bias", FIRST + i);
        d->b = file_tensor(f, name);
        KG_TRY(check(f, d, FIRST + i, in));
        snprintf(name, sizeof name, "kagari.dense_%d_activation", FIRST + i);
        KG_TRY(file_get_str(f, name, &act, &found));
        d->tanh = found;
        program_knows(p, d->w);
        if (d->b) program_knows(p, d->b);
        in = d->w->ne[1];
        *n = i + 1;
    }
    return p->status;
}

int dense_width(const struct dense *list, int n, int dim) { return n ? (int)list[n - 1].w->ne[1] : dim; }

int dense_most(const struct dense *list, int n, int dim)
{
    int most = dim;
    for (int i = 0; i < n; i++) most = MAX(most, (int)list[i].w->ne[1]);
    return most;
}

static void apply(const struct dense *d, const double *x, double *y, float *row)
{
    const int in = (int)d->w->ne[0], out = (int)d->w->ne[1];
    const size_t bytes = d->w->n_bytes / (size_t)out;
    if (d->b) decode_f32(d->b->type)(d->b->data, row, out);
    for (int o = 0; o < out; o++) y[o] = d->b ? (double)row[o] : 0;
    for (int o = 0; o < out; o++) {
        decode_f32(d->w->type)((const uint8_t *)d->w->data + (size_t)o * bytes, row, in);
        for (int i = 0; i < in; i++) y[o] += (double)row[i] * x[i];
        if (d->tanh) y[o] = tanh(y[o]);
    }
}

double dense_gain(const struct dense *list, int n)
{
    double gain = 1;
    for (int i = 0; i < n; i++) { /* E |w d|^2 = |w|^2 |d|^2 / in; tanh makes nothing longer */
        const struct tensor *w = list[i].w;
        double squares = 0;
        float *row = malloc((size_t)w->ne[0] * sizeof *row);
        for (int64_t o = 0; o < w->ne[1] && row; o++) {
            decode_f32(w->type)((const uint8_t *)w->data + (size_t)o * (w->n_bytes / (size_t)w->ne[1]), row, w->ne[0]);
            for (int64_t k = 0; k < w->ne[0]; k++) squares += (double)row[k] * (double)row[k];
        }
        if (!row) return NAN;
        free(row);
        gain *= sqrt(squares / (double)w->ne[0]);
    }
    return gain;
}

kg_status dense_apply(const struct dense *list, int n, int dim, double *x)
{
    const size_t most = (size_t)dense_most(list, n, dim);
    if (n == 0) return KG_OK;
    double *y = malloc(most * sizeof *y);
    float *row = malloc(most * sizeof *row);
    if (y && row) {
        for (int i = 0; i < n; i++) {
            apply(&list[i], x, y, row);
            memcpy(x, y, (size_t)list[i].w->ne[1] * sizeof *y);
        }
    }
    const bool done = y && row;
    free(y);
    free(row);
    return done ? KG_OK : status_set(KG_ERR_MEMORY, "out of memory");
}
