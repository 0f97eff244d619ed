/* Opening of model files, lookup by name, typed getters. Owns struct file; what the bytes of a format mean is its reader's
 * (gguf.c). Names are found by binary search in sorted lists: building them is bounded whatever the names are. */
#include "file/reader.h"
#include "file/safetensors.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <unistd.h>

enum {
    SHOWN_NAME_BYTES = 100,
    SHOWN_PATH_BYTES = 200,
};

static const struct {
    const char *name;
    size_t n_bytes;
} types[META_N_TYPES] = {
    [META_U8] = {"u8", 1},   [META_I8] = {"i8", 1},   [META_U16] = {"u16", 2},   [META_I16] = {"i16", 2}, [META_U32] = {"u32", 4},
    [META_I32] = {"i32", 4}, [META_F32] = {"f32", 4}, [META_BOOL] = {"bool", 1}, [META_STR] = {"str", 0}, [META_ARR] = {"arr", 0},
    [META_U64] = {"u64", 8}, [META_I64] = {"i64", 8}, [META_F64] = {"f64", 8},
};

const char *meta_type_name(enum meta_type t) { return (unsigned)t < META_N_TYPES ? types[t].name : "?"; }
size_t meta_type_bytes(enum meta_type t) { return types[t].n_bytes; }

size_t file_utf8_next(const uint8_t *p, size_t n, uint32_t *c)
{
    uint8_t lead = p[0], lo = 0x80, hi = 0xbf; /* what the second byte may be: Unicode, table 3-7 */
    size_t len = lead < 0x80 ? 1 : lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
    *c = FILE_NOT_UTF8;
    if (len == 0) return 1;
    if (lead == 0xe0) lo = 0xa0;
    if (lead == 0xed) hi = 0x9f;
    if (lead == 0xf0) lo = 0x90;
    if (lead == 0xf4) hi = 0x8f;
    uint32_t code = len == 1 ? lead : lead & (0x7fu >> len);
    for (size_t i = 1; i < len; i++) {
        if (i >= n || p[i] < lo || p[i] > hi) return i;
        code = code << 6 | (p[i] & 0x3fu);
        lo = 0x80;
        hi = 0xbf;
    }
    *c = code;
    return len;
}

int file_shown(const char *name)
{
    size_t n = strlen(name);
    if (n > SHOWN_NAME_BYTES)
        for (n = SHOWN_NAME_BYTES; n > 0 && ((uint8_t)name[n] & 0xc0) == 0x80;) n--;
    return (int)n;
}

const char *file_shown_path(const char *path)
{
    size_t n = strlen(path);
    if (n <= SHOWN_PATH_BYTES) return path;
    path += n - SHOWN_PATH_BYTES;
    while (((uint8_t)*path & 0xc0) == 0x80) path++;
    return path;
}

static int by_name(const void *a, const void *b)
{
    const struct file_name *x = a, *y = b;
    return strcmp(x->name, y->name);
}

static const void *find(const struct file_name *list, size_t n, const char *name)
{
    struct file_name wanted = {name, NULL};
    const struct file_name *hit = n > 0 ? bsearch(&wanted, list, n, sizeof *list, by_name) : NULL;
    return hit ? hit->item : NULL;
}

/* Sorts a list; a name that comes twice is an error. */
static kg_status sort_names(struct file_name *list, size_t n, const char *what)
{
    if (n < 2) return KG_OK;
    qsort(list, n, sizeof *list, by_name);
    for (size_t i = 1; i < n; i++)
        if (strcmp(list[i - 1].name, list[i].name) == 0)
            return status_set(KG_ERR_FORMAT, "%s '%.*s' appears twice", what, file_shown(list[i].name), list[i].name);
    return KG_OK;
}

static kg_status build_index(struct file *f)
{
    struct file_index *x = f->index;
    x->keys = arena_array(&f->arena, f->n_metas, sizeof *x->keys);
    x->tensors = arena_array(&f->arena, f->n_tensors, sizeof *x->tensors);
    if ((f->n_metas > 0 && !x->keys) || (f->n_tensors > 0 && !x->tensors)) return KG_ERR_MEMORY;
    for (size_t i = 0; i < f->n_metas; i++) x->keys[i] = (struct file_name){f->metas[i].key, &f->metas[i]};
    for (size_t i = 0; i < f->n_tensors; i++) x->tensors[i] = (struct file_name){f->tensors[i].name, &f->tensors[i]};
    KG_TRY(sort_names(x->keys, f->n_metas, "key"));
    return sort_names(x->tensors, f->n_tensors, "tensor");
}

static kg_status new_file(struct file **out, const char *path)
{
    struct file *f = calloc(1, sizeof *f);
    *out = f;
    if (!f) return status_set(KG_ERR_MEMORY, "%s: out of memory", file_shown_path(path));
    f->path = arena_strndup(&f->arena, path, strlen(path));
    f->index = arena_alloc(&f->arena, sizeof *f->index);
    if (f->path && f->index) return KG_OK;
    file_close(out);
    return KG_ERR_MEMORY;
}

kg_status file_add_more(struct file *f, struct os_map map)
{
    struct os_map *more = realloc(f->more, (f->n_more + 1) * sizeof *more);
    if (!more) {
        os_unmap(&map);
        return status_set(KG_ERR_MEMORY, "out of memory");
    }
    f->more = more;
    f->more[f->n_more++] = map;
    return KG_OK;
}

kg_status file_map_more(struct file *f, const char *path, struct os_map *out)
{
    KG_TRY(os_map_file(out, path));
    f->n_file_bytes += out->n_bytes;
    return file_add_more(f, *out);
}

kg_status file_alloc_more(struct file *f, size_t n_bytes, void **out)
{
    *out = os_alloc_shared(n_bytes);
    return *out ? file_add_more(f, (struct os_map){*out, n_bytes}) : KG_ERR_MEMORY;
}

/* A file of Safetensors alone: its own names, no keys. */
static kg_status read_safetensors(struct file *f)
{
    f->format = "Safetensors";
    KG_TRY(safetensors_read(f, &f->map));
    for (size_t i = 0; i < f->n_tensors; i++)
        if (f->index->fp8[i])
            return status_set(KG_ERR_UNSUPPORTED, "tensor '%.*s': FP8 weights need the folder, whose config.json says what their scales are",
                              file_shown(f->tensors[i].name), f->tensors[i].name);
    return KG_OK;
}

static bool is_safetensors(const struct file *f)
{
    size_t n = strlen(f->path);
    return (n > 12 && strcasecmp(f->path + n - 12, ".safetensors") == 0) || safetensors_recognise(&f->map);
}

/* Finishes what a reader began with status st; on failure f is closed. */
static kg_status finish(struct file **out, struct file *f, kg_status st)
{
    if (st == KG_OK) st = build_index(f);
    if (st == KG_OK) {
        *out = f;
        return KG_OK;
    }
    status_prefix(st, "%s", file_shown_path(f->path));
    file_close(&f);
    return st;
}

/* Reads what f->map holds. */
static kg_status read_map(struct file *f)
{
    f->n_file_bytes = f->map.n_bytes;
    if (gguf_recognise(f)) return gguf_read(f);
    if (f->map.n_bytes == 0 || foreign_is_pointer(&f->map)) return foreign_refuse(&f->map);
    return is_safetensors(f) ? read_safetensors(f) : foreign_refuse(&f->map);
}

/* The folder of a file of weights that has a config.json beside it; NULL: there is none. The memory is f's. */
static char *folder_of(struct file *f)
{
    const char *slash = strrchr(f->path, '/');
    size_t n = slash ? (size_t)(slash - f->path) + 1 : 0;
    char *config = arena_alloc(&f->arena, n + 16);
    if (!config) return NULL;
    memcpy(config, f->path, n);
    memcpy(config + n, "config.json", 12);
    if (access(config, F_OK) != 0) return NULL;
    memcpy(config + n, n ? "" : ".", n ? 1 : 2);
    return config;
}

kg_status file_open_part(struct file **out, const char *path)
{
    struct file *f;
    *out = NULL;
    KG_TRY(new_file(&f, path));
    if (os_is_directory(path)) return finish(out, f, hf_read(f, path, NULL));
    char *folder = is_safetensors(f) ? folder_of(f) : NULL;
    const char *slash = strrchr(path, '/');
    if (folder && access(path, F_OK) == 0) return finish(out, f, hf_read(f, folder, slash ? slash + 1 : path));
    kg_status st = os_map_file(&f->map, path);
    if (st != KG_OK) {
        file_close(&f);
        return st;
    }
    f->index->mapped = true;
    return finish(out, f, read_map(f));
}

kg_status file_open(struct file **out, const char *path)
{
    KG_TRY(file_open_part(out, path));
    kg_status st = gguf_join_shards(*out);
    if (st == KG_OK && (*out)->n_shards > 0) st = build_index(*out);
    if (st != KG_OK) file_close(out);
    return st;
}

kg_status file_open_vocabulary(struct file **out, const char *path)
{
    static const char *const ends[] = {".json", ".model", ".txt"};
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path, *folder;
    size_t n = strlen(path);
    char config[4096];
    bool is_folder = os_is_directory(path), is_tokenizer = false;
    for (size_t i = 0; i < COUNT_OF(ends); i++) is_tokenizer |= n > strlen(ends[i]) && strcmp(path + n - strlen(ends[i]), ends[i]) == 0;
    bool is_model = is_folder && (size_t)snprintf(config, sizeof config, "%s/config.json", path) < sizeof config && access(config, F_OK) == 0;
    if (is_model || (!is_folder && !is_tokenizer)) return file_open(out, path);
    struct file *f;
    *out = NULL;
    KG_TRY(new_file(&f, path));
    folder = is_folder ? path : !slash ? "." : arena_strndup(&f->arena, path, (size_t)(name - path));
    return finish(out, f, folder ? hf_read_tokenizer(f, folder, is_folder ? NULL : name) : KG_ERR_MEMORY);
}

kg_status file_open_adapter(struct file **out, const char *path, const struct file *base)
{
    static const char *const names[] = {"adapter_model.safetensors", "adapter_config.json"};
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    const bool is_folder = os_is_directory(path);
    if (!is_folder && strcmp(name, names[0]) != 0 && strcmp(name, names[1]) != 0) return file_open(out, path);
    struct file *f;
    *out = NULL;
    KG_TRY(new_file(&f, path));
    const char *folder = is_folder ? path : !slash ? "." : arena_strndup(&f->arena, path, (size_t)(slash - path));
    return finish(out, f, folder ? hf_read_adapter(f, folder[0] ? folder : "/", base) : KG_ERR_MEMORY);
}

kg_status file_open_memory(struct file **out, const void *data, size_t n_bytes, const char *name)
{
    struct file *f;
    *out = NULL;
    KG_TRY(new_file(&f, name));
    f->map = (struct os_map){data, n_bytes};
    return finish(out, f, read_map(f));
}

void file_close(struct file **file)
{
    struct file *f = *file;
    if (!f) return;
    if (f->index && f->index->mapped) os_unmap(&f->map);
    for (size_t i = 0; i < f->n_more; i++) os_unmap(&f->more[i]);
    free(f->more);
    for (size_t i = 0; i < f->n_shards; i++) file_close(&f->shards[i]);
    free(f->shards);
    arena_free(&f->arena);
    free(f);
    *file = NULL;
}

const struct tensor *file_tensor(const struct file *f, const char *name) { return find(f->index->tensors, f->n_tensors, name); }
const struct meta *file_meta(const struct file *f, const char *key) { return find(f->index->keys, f->n_metas, key); }

/* ---- typed getters ---- */

static bool is_integer(enum meta_type t) { return t <= META_I32 || t == META_U64 || t == META_I64; }

static bool is_float(enum meta_type t) { return t == META_F32 || t == META_F64; }

/* *out is NULL when the key is absent and may be. */
static kg_status get(const struct file *f, const char *key, const struct meta **out, bool *found)
{
    *out = file_meta(f, key);
    if (found) *found = *out != NULL;
    if (*out || found) return KG_OK;
    return status_set(KG_ERR_FORMAT, "%s: missing key '%.*s'", file_shown_path(f->path), file_shown(key), key);
}

static kg_status wrong_type(const struct file *f, const struct meta *m, const char *wanted)
{
    const char *path = file_shown_path(f->path), *array = m->type == META_ARR ? "arr of " : "";
    return status_set(KG_ERR_FORMAT, "%s: key '%.*s' must be %s, is %s%s", path, file_shown(m->key), m->key, wanted, array,
                      meta_type_name(m->item));
}

kg_status file_get_i64(const struct file *f, const char *key, int64_t *out, bool *found)
{
    const struct meta *m;
    KG_TRY(get(f, key, &m, found));
    if (!m) return KG_OK;
    if (!is_integer(m->type)) return wrong_type(f, m, "an integer");
    if (m->type == META_U64 && load_u64(m->data) > INT64_MAX)
        return status_set(KG_ERR_FORMAT, "%s: key '%.*s': %" PRIu64 " (u64) does not fit i64", file_shown_path(f->path), file_shown(key),
                          key, load_u64(m->data));
    *out = file_arr_i64(m, 0);
    return KG_OK;
}

kg_status file_get_u32(const struct file *f, const char *key, uint32_t *out, bool *found)
{
    int64_t v = 0;
    bool here = true;
    KG_TRY(file_get_i64(f, key, &v, found ? &here : NULL));
    if (found) *found = here;
    if (!here) return KG_OK;
    if (v < 0 || v > UINT32_MAX)
        return status_set(KG_ERR_FORMAT, "%s: key '%.*s': %" PRId64 " (%s) does not fit u32", file_shown_path(f->path), file_shown(key),
                          key, v, meta_type_name(file_meta(f, key)->type));
    *out = (uint32_t)v;
    return KG_OK;
}

kg_status file_get_f64(const struct file *f, const char *key, double *out, bool *found)
{
    const struct meta *m;
    KG_TRY(get(f, key, &m, found));
    if (!m) return KG_OK;
    if (!is_float(m->type)) return wrong_type(f, m, "f32 or f64");
    double v = file_arr_f64(m, 0);
    if (!isfinite(v))
        return status_set(KG_ERR_FORMAT, "%s: key '%.*s' (%s) is not a finite number", file_shown_path(f->path), file_shown(key), key,
                          meta_type_name(m->type));
    *out = v;
    return KG_OK;
}

kg_status file_get_bool(const struct file *f, const char *key, bool *out, bool *found)
{
    const struct meta *m;
    KG_TRY(get(f, key, &m, found));
    if (!m) return KG_OK;
    if (m->type != META_BOOL) return wrong_type(f, m, "a bool");
    *out = m->data[0] != 0;
    return KG_OK;
}

kg_status file_get_str(const struct file *f, const char *key, struct str *out, bool *found)
{
    const struct meta *m;
    KG_TRY(get(f, key, &m, found));
    if (!m) return KG_OK;
    if (m->type != META_STR) return wrong_type(f, m, "a str");
    *out = m->strings[0];
    return KG_OK;
}

kg_status file_get_arr(const struct file *f, const char *key, enum meta_type item, const struct meta **out, bool *found)
{
    const struct meta *m;
    KG_TRY(get(f, key, &m, found));
    if (!m) return KG_OK;
    bool fits = m->item == item || (is_integer(item) && is_integer(m->item)) || (is_float(item) && is_float(m->item));
    if (m->type != META_ARR || !fits)
        return wrong_type(f, m,
                          is_integer(item)    ? "an array of integers"
                          : is_float(item)    ? "an array of f32 or f64"
                          : item == META_STR  ? "an array of str"
                          : item == META_BOOL ? "an array of bool"
                                              : "an array of arrays");
    *out = m;
    return KG_OK;
}

int64_t file_arr_i64(const struct meta *m, uint64_t i)
{
    assert(i < m->n);
    const uint8_t *p = m->data + i * meta_type_bytes(m->item);
    switch (m->item) {
    case META_U8:
    case META_BOOL: return *p;
    case META_I8: return (int8_t)*p;
    case META_U16: return load_u16(p);
    case META_I16: return (int16_t)load_u16(p);
    case META_U32: return load_u32(p);
    case META_I32: return (int32_t)load_u32(p);
    case META_U64: return (int64_t)MIN(load_u64(p), (uint64_t)INT64_MAX);
    case META_I64: return (int64_t)load_u64(p);
    default: assert(!"an array of integers"); return 0;
    }
}

double file_arr_f64(const struct meta *m, uint64_t i)
{
    assert(i < m->n);
    const uint8_t *p = m->data + i * meta_type_bytes(m->item);
    if (m->item == META_F32) return (double)f32_from_bits(load_u32(p));
    if (m->item == META_U64) return (double)load_u64(p);
    if (m->item != META_F64) return (double)file_arr_i64(m, i);
    double v;
    memcpy(&v, p, sizeof v);
    return v;
}
