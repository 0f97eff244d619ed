/* kg_split and kg_merge: one GGUF file to several (see file/gguf_shards.c) and back. */
#include "file/gguf_write.h"

#include <stdio.h>
#include <stdlib.h>

enum { MOST_SHARDS = 65535 }; /* the keys are u16 */

static bool is_split_key(const char *key) { return strncmp(key, "split.", 6) == 0; }

/* general.alignment is the writer's own business. */
static kg_status copy_keys(struct gguf_out *o, const struct file *f)
{
    for (size_t i = 0; i < f->n_metas; i++)
        if (!is_split_key(f->metas[i].key) && strcmp(f->metas[i].key, "general.alignment") != 0) KG_TRY(gguf_out_meta(o, &f->metas[i]));
    return KG_OK;
}

/* first[k] is the first tensor of shard k; *n shards, first[n] the number of tensors. */
static kg_status cut(const struct file *f, const kg_split_params *p, size_t *first, size_t *n)
{
    uint64_t bytes = 0, tensors = 0;
    *n = 0;
    first[0] = 0;
    for (size_t i = 0; i < f->n_tensors; i++) {
        const struct tensor *t = &f->tensors[i];
        bool full = (p->max_tensors && tensors == p->max_tensors) || (p->max_bytes && tensors > 0 && bytes + t->n_bytes > p->max_bytes);
        if (full) {
            first[++*n] = i;
            bytes = tensors = 0;
        }
        bytes += t->n_bytes;
        tensors++;
    }
    first[++*n] = f->n_tensors;
    return *n <= MOST_SHARDS ? KG_OK : status_set(KG_ERR_ARGUMENT, "%s: would be cut into %zu files, more than %d", f->path, *n, MOST_SHARDS);
}

static kg_status write_shard(const struct file *f, const char *prefix, size_t k, size_t n, size_t from, size_t to)
{
    size_t size = strlen(prefix) + 64;
    char *path = malloc(size);
    if (!path) return status_set(KG_ERR_MEMORY, "out of memory");
    snprintf(path, size, "%s-%05zu-of-%05zu.gguf", prefix, k + 1, n);
    struct gguf_out *o = NULL;
    kg_status status = gguf_out_open(&o, path);
    if (status == KG_OK && k == 0) status = copy_keys(o, f);
    if (status == KG_OK) status = gguf_out_u16(o, "split.no", (uint16_t)k);
    if (status == KG_OK) status = gguf_out_u16(o, "split.count", (uint16_t)n);
    if (status == KG_OK) status = gguf_out_i32(o, "split.tensors.count", (int32_t)f->n_tensors);
    for (size_t i = from; status == KG_OK && i < to; i++) {
        const struct tensor *t = &f->tensors[i];
        status = gguf_out_tensor(o, t->name, t->type, t->n_dims, t->ne);
    }
    for (size_t i = from; status == KG_OK && i < to; i++) status = gguf_out_data(o, f->tensors[i].data, f->tensors[i].n_bytes);
    if (status == KG_OK) status = gguf_out_finish(o);
    gguf_out_close(&o);
    free(path);
    return status;
}

kg_status kg_split(const char *in, const char *prefix, const kg_split_params *params, size_t *n_files)
{
    if (!in || !prefix || !params) return status_set(KG_ERR_ARGUMENT, "splitting needs a path, a prefix and parameters");
    if (!params->max_bytes && !params->max_tensors) return status_set(KG_ERR_ARGUMENT, "splitting needs a most of bytes or of tensors");
    struct file *f = NULL;
    size_t n = 0, *first = NULL;
    kg_status status = file_open(&f, in);
        if (status == KG_OK && f->n_tensors > INT32_MAX) status = status_set(KG_ERR_UNSUPPORTED, "%s: too many tensors", in);
    if (status == KG_OK && !(first = malloc((f->n_tensors + 2) * sizeof *first))) status = status_set(KG_ERR_MEMORY, "out of memory");
    if (status == KG_OK) status = cut(f, params, first, &n);
    for (size_t k = 0; status == KG_OK && k < n; k++) status = write_shard(f, prefix, k, n, first[k], first[k + 1]);
    if (n_files) *n_files = n;
    free(first);
    file_close(&f);
    return status;
}

/* ---- merge ----------------------------------------------------------------------------------------------------- */

static kg_status merge(const struct file *f, struct gguf_out *o)
{
    KG_TRY(copy_keys(o, f));
    for (size_t i = 0; i < f->n_tensors; i++) {
        const struct tensor *t = &f->tensors[i];
        KG_TRY(gguf_out_tensor(o, t->name, t->type, t->n_dims, t->ne));
    }
    for (size_t i = 0; i < f->n_tensors; i++) {
        const struct tensor *t = &f->tensors[i];
        KG_TRY(gguf_out_data(o, t->data, t->n_bytes));
        os_map_release(t->data, t->n_bytes);
    }
    return gguf_out_finish(o);
}

kg_status kg_merge(const char *first, const char *out)
{
    if (!first || !out) return status_set(KG_ERR_ARGUMENT, "merging needs two paths");
    struct file *f = NULL;
    struct gguf_out *o = NULL;
    kg_status status = file_open(&f, first);
    if (status == KG_OK && !file_meta(f, "split.count")) status = status_set(KG_ERR_ARGUMENT, "%s: is not a shard", first);
    if (status == KG_OK) status = gguf_out_open(&o, out);
    if (status == KG_OK) status = merge(f, o);
    gguf_out_close(&o);
    file_close(&f);
    return status;
}
