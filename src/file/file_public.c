/* kg_file of the public header: a view of struct file for callers that only look. */
#include "file/reader.h"

#include <stdlib.h>

struct kg_file {
    struct file *file;
};

kg_status kg_file_open(kg_file **out, const char *path)
{
    if (!out) return status_set(KG_ERR_ARGUMENT, "kg_file_open: out is NULL");
    *out = NULL;
    if (!path) return status_set(KG_ERR_ARGUMENT, "kg_file_open: path is NULL");
    kg_file *view = malloc(sizeof *view);
    if (!view) return status_set(KG_ERR_MEMORY, "%s: out of memory", file_shown_path(path));
    kg_status st = file_open(&view->file, path);
    if (st != KG_OK) {
        free(view);
        return st;
    }
    *out = view;
    return KG_OK;
}

void kg_file_close(kg_file **file)
{
    if (!file || !*file) return;
    file_close(&(*file)->file);
    free(*file);
    *file = NULL;
}

const char *kg_file_format(const kg_file *file) { return file->file->format; }
uint64_t kg_file_size(const kg_file *file) { return file->file->n_file_bytes; }
size_t kg_file_n_tensors(const kg_file *file) { return file->file->n_tensors; }
size_t kg_file_n_keys(const kg_file *file) { return file->file->n_metas; }

/* Where a tensor begins in the file, or memory, that holds it. */
static uint64_t offset_of(const struct file *f, const struct tensor *t)
{
    uintptr_t p = (uintptr_t)t->data;
    for (size_t i = 0; i < f->n_more; i++)
        if (p >= (uintptr_t)f->more[i].data && p - (uintptr_t)f->more[i].data < f->more[i].n_bytes) return p - (uintptr_t)f->more[i].data;
    return p - (uintptr_t)f->map.data;
}

kg_status kg_file_tensor(const kg_file *file, size_t i, kg_tensor_info *out)
{
    const struct file *f = file->file;
    if (i >= f->n_tensors)
        return status_set(KG_ERR_ARGUMENT, "%s: tensor %zu does not exist, there are %zu", file_shown_path(f->path), i, f->n_tensors);
    const struct tensor *t = &f->tensors[i];
    *out = (kg_tensor_info){
        .name = t->name,
        .type = type_by_id(t->type)->name,
        .n_dims = t->n_dims,
        .dims = {t->ne[0], t->ne[1], t->ne[2], t->ne[3]},
        .offset = offset_of(f, t),
        .n_bytes = t->n_bytes,
    };
    return KG_OK;
}

const char *kg_file_key(const kg_file *file, size_t i) { return i < file->file->n_metas ? file->file->metas[i].key : NULL; }

const char *kg_file_key_type(const kg_file *file, size_t i)
{
    static const char *const arrays[META_N_TYPES] = {
        [META_U8] = "arr[u8]",   [META_I8] = "arr[i8]",   [META_U16] = "arr[u16]",   [META_I16] = "arr[i16]", [META_U32] = "arr[u32]",
        [META_I32] = "arr[i32]", [META_F32] = "arr[f32]", [META_BOOL] = "arr[bool]", [META_STR] = "arr[str]", [META_ARR] = "arr[arr]",
        [META_U64] = "arr[u64]", [META_I64] = "arr[i64]", [META_F64] = "arr[f64]",
    };
    if (i >= file->file->n_metas) return NULL;
    const struct meta *m = &file->file->metas[i];
    return m->type == META_ARR ? arrays[m->item] : meta_type_name(m->type);
}

size_t kg_file_value(const kg_file *file, size_t i, size_t max_items, char *buf, size_t size)
{
    const struct file *f = file->file;
    if (i < f->n_metas) return file_value_json(f, &f->metas[i], max_items, buf, size);
    if (size > 0) buf[0] = 0;
    return 0;
}
