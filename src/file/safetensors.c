/* Reader of one Safetensors file: u64 length, a JSON object of that length, then the bytes of the tensors, without holes. Owns every check
 * of these bytes. What the tensors mean is not here. */
#include "file/safetensors.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <strings.h>

enum {
    MAX_HEADER_BYTES = 100000000, /* the format's limit */
};

struct span {
    uint64_t begin, end;
    const char *name;
};

static const struct {
    const char *dtype;
    enum tensor_type type;
} dtypes[] = {
    {"F32", TYPE_F32}, {"F16", TYPE_F16}, {"BF16", TYPE_BF16}, {"F64", TYPE_F64},
    {"I8", TYPE_I8},   {"I16", TYPE_I16}, {"I32", TYPE_I32},   {"I64", TYPE_I64},
    {"F8_E4M3", TYPE_I8}, {"F8_E5M2", TYPE_I8}, /* see struct file_index */
    {"U8", TYPE_I8}, /* bytes of packed weights: see hf_mxfp4.c */
};

bool safetensors_recognise(const struct os_map *m)
{
    return m->n_bytes >= 10 && m->data[8] == '{' && load_u64(m->data) >= 2 && load_u64(m->data) <= m->n_bytes - 8;
}

static kg_status read_dtype(struct tensor *t, const json_t *v)
{
    const char *dtype = json_string_value(v);
    if (!dtype) return status_set(KG_ERR_FORMAT, "dtype is not a string");
    for (size_t i = 0; i < COUNT_OF(dtypes); i++) {
        if (strcmp(dtypes[i].dtype, dtype) != 0) continue;
        t->type = dtypes[i].type;
        return KG_OK;
    }
    return status_set(KG_ERR_UNSUPPORTED, "dtype %.20s is not supported; F64, F32, BF16, F16, F8_E4M3, F8_E5M2 and integers are", dtype);
}

/* The format's shapes end with the contiguous dimension, ours begin with it. */
static kg_status read_shape(struct tensor *t, const json_t *shape)
{
    size_t n_dims = json_array_size(shape);
    if (!json_is_array(shape)) return status_set(KG_ERR_FORMAT, "shape is not an array");
    if (n_dims > 4) return status_set(KG_ERR_UNSUPPORTED, "%zu dimensions, more than 4", n_dims);
    uint64_t n_bytes = (uint64_t)type_by_id(t->type)->block_bytes;
    for (size_t d = 0; d < 4; d++) t->ne[d] = 1;
    for (size_t d = 0; d < n_dims; d++) {
        const json_t *v = json_array_get(shape, n_dims - 1 - d);
        int64_t ne = json_is_integer(v) ? json_integer_value(v) : -1;
        if (ne < 1) return status_set(KG_ERR_FORMAT, "dimension %zu is no number above 0", n_dims - 1 - d);
        if ((uint64_t)ne > INT64_MAX / n_bytes) return status_set(KG_ERR_FORMAT, "the shape has more elements than 64 bits can count");
        n_bytes *= (uint64_t)ne;
        t->ne[d] = ne;
    }
    t->n_dims = (int)MAX(n_dims, 1u);
    t->n_bytes = (size_t)n_bytes;
    return KG_OK;
}

static kg_status read_entry(struct tensor *t, const json_t *entry, const uint8_t *data, uint64_t data_bytes, struct span *span)
{
    if (!json_is_object(entry)) return status_set(KG_ERR_FORMAT, "its entry is not an object");
    if (json_object_size(entry) != 3) return status_set(KG_ERR_FORMAT, "its entry must have dtype, shape and data_offsets, nothing else");
    KG_TRY(read_dtype(t, json_object_get(entry, "dtype")));
    KG_TRY(read_shape(t, json_object_get(entry, "shape")));
    const json_t *offsets = json_object_get(entry, "data_offsets"), *b = json_array_get(offsets, 0), *e = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(b) || !json_is_integer(e))
        return status_set(KG_ERR_FORMAT, "data_offsets is not an array of two integers");
    int64_t begin = json_integer_value(b), end = json_integer_value(e);
    if (begin < 0 || end < begin) return status_set(KG_ERR_FORMAT, "data_offsets %" PRId64 ", %" PRId64 " are no range", begin, end);
    if ((uint64_t)end > data_bytes)
        return status_set(KG_ERR_FORMAT, "its data end at %" PRId64 ", the file has %" PRIu64 " bytes of data: it may be incomplete", end,
                          data_bytes);
    if ((uint64_t)(end - begin) != t->n_bytes)
        return status_set(KG_ERR_FORMAT, "its shape takes %zu bytes, data_offsets hold %" PRId64, t->n_bytes, end - begin);
    t->data = data + begin;
    span->begin = (uint64_t)begin;
    span->end = (uint64_t)end;
    span->name = t->name;
    return KG_OK;
}

static int by_begin(const void *a, const void *b)
{
    const struct span *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end);
}

/* The format allows no holes and no overlaps. */
static kg_status check_spans(struct span *spans, size_t n, uint64_t data_bytes)
{
    uint64_t at = 0;
    if (n > 1) qsort(spans, n, sizeof *spans, by_begin);
    for (size_t i = 0; i < n; i++) {
        const char *name = spans[i].name;
        if (spans[i].begin < at)
            return status_set(KG_ERR_FORMAT, "tensor '%.*s': its data overlap those of '%.*s'", file_shown(name), name,
                              file_shown(spans[i - 1].name), spans[i - 1].name);
        if (spans[i].begin > at)
            return status_set(KG_ERR_FORMAT, "tensor '%.*s': %" PRIu64 " bytes before its data belong to no tensor", file_shown(name), name,
                              spans[i].begin - at);
        at = spans[i].end;
    }
    if (at == data_bytes) return KG_OK;
    return status_set(KG_ERR_FORMAT, "%" PRIu64 " bytes at the end belong to no tensor", data_bytes - at);
}

static kg_status check_name(const char *name)
{
    if (!*name) return status_set(KG_ERR_FORMAT, "a tensor has no name");
    for (const uint8_t *p = (const uint8_t *)name; *p; p++)
        if (*p < 0x20 || *p == 0x7f || (*p == 0xc2 && p[1] < 0xa0)) return status_set(KG_ERR_FORMAT, "a tensor's name holds control characters");
    return KG_OK;
}

static kg_status check_metadata(const json_t *meta)
{
    const char *key;
    json_t *v;
    if (!json_is_object(meta)) return status_set(KG_ERR_FORMAT, "__metadata__ is not an object");
    json_object_foreach((json_t *)(uintptr_t)meta, key, v)
        if (!json_is_string(v)) return status_set(KG_ERR_FORMAT, "__metadata__: '%.*s' is not a string", file_shown(key), key);
    return KG_OK;
}

static uint8_t fp8_of(const json_t *entry)
{
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    return strcmp(dtype, "F8_E4M3") == 0 ? FILE_FP8_E4M3 : strcmp(dtype, "F8_E5M2") == 0 ? FILE_FP8_E5M2 : FILE_FP8_NONE;
}

static kg_status read_tensors(struct file *f, json_t *root, const uint8_t *data, uint64_t data_bytes)
{
    size_t n = json_object_size(root), old = f->n_tensors;
    struct tensor *all = arena_array(&f->arena, old + n, sizeof *all);
    uint8_t *fp8 = arena_alloc(&f->arena, old + n + 1);
    struct span *spans = calloc(n + 1, sizeof *spans);
    kg_status st = all && spans && fp8 ? KG_OK : status_set(KG_ERR_MEMORY, "out of memory for %zu tensors", n);
    if (st == KG_OK && old > 0) {
        memcpy(all, f->tensors, old * sizeof *all);
        memcpy(fp8, f->index->fp8, old);
    }
    const char *name;
    json_t *entry;
    size_t k = 0;
    if (st == KG_OK) json_object_foreach(root, name, entry) {
        if (strcmp(name, "__metadata__") == 0) {
            if ((st = check_metadata(entry)) != KG_OK) break;
            continue;
        }
        struct tensor *t = &all[old + k];
        if ((st = check_name(name)) != KG_OK) break;
        t->name = arena_strndup(&f->arena, name, strlen(name));
        st = t->name ? read_entry(t, entry, data, data_bytes, &spans[k]) : KG_ERR_MEMORY;
        if (st != KG_OK) {
            status_prefix(st, "tensor '%.*s'", file_shown(name), name);
            break;
        }
        fp8[old + k++] = fp8_of(entry);
    }
    if (st == KG_OK) st = check_spans(spans, k, data_bytes);
    free(spans);
    if (st != KG_OK) return st;
    f->tensors = all;
    f->n_tensors = old + k;
    f->index->fp8 = fp8;
    return KG_OK;
}

kg_status safetensors_read(struct file *f, const struct os_map *map)
{
    if (map->n_bytes < 8) return status_set(KG_ERR_FORMAT, "cut off: a Safetensors file begins with 8 bytes of length, it has %zu", map->n_bytes);
    uint64_t n = load_u64(map->data);
    if (n > MAX_HEADER_BYTES)
        return status_set(KG_ERR_FORMAT, "the header of %" PRIu64 " bytes is longer than the format allows (%d)", n, MAX_HEADER_BYTES);
    if (n > map->n_bytes - 8)
        return status_set(KG_ERR_FORMAT, "cut off: the header has %" PRIu64 " bytes, the file %zu", n, map->n_bytes);
    if (n < 2 || map->data[8] != '{') return status_set(KG_ERR_FORMAT, "the header is not a JSON object");
    json_error_t error;
    json_t *root = json_loadb((const char *)map->data + 8, (size_t)n, JSON_REJECT_DUPLICATES, &error);
    if (!root) return status_set(KG_ERR_FORMAT, "the header is not valid JSON: %s (byte %d)", error.text, error.position);
    kg_status st = json_is_object(root) ? read_tensors(f, root, map->data + 8 + n, map->n_bytes - 8 - n)
                                        : status_set(KG_ERR_FORMAT, "the header is not a JSON object");
    json_decref(root);
    return st;
}
