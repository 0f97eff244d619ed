/* A model file: typed metadata and tensors, validated completely when it is opened. Everything behind this header
 * is the only code that sees unvalidated bytes. */
#ifndef FILE_FILE_H
#define FILE_FILE_H

#include "base/os.h"
#include "tensor/tensor.h"

/* Values are those of GGUF. */
enum meta_type {
    META_U8, META_I8, META_U16, META_I16, META_U32, META_I32, META_F32, META_BOOL, META_STR, META_ARR, META_U64, META_I64, META_F64,
    META_N_TYPES
};

/* Not NUL-terminated in the map: use ptr and len. Valid UTF-8, except in tokenizer arrays, where any byte may occur. */
struct str {
    const char *ptr;
    size_t len;
};

struct meta {
    const char *key; /* NUL-terminated */
    enum meta_type type;
    enum meta_type item; /* of an array */
    uint64_t n;          /* items of an array, else 1 */
    const uint8_t *data; /* value in file order, unaligned; strings and nested arrays of one: see file_arr_str */
    size_t n_bytes;            /* of data, with the heads of strings and nested arrays */
    const struct str *strings; /* of META_STR (1) and arrays of strings (n); else NULL */
};

struct file {
    const char *path;
    const char *format; /* "GGUF v3" */
    struct os_map map;    /* the file; of a model in several files the first one */
    struct os_map *more;  /* [n_more]: its other files, and copies of what cannot be used as it lies in a file; closed with it */
    size_t n_more, n_file_bytes; /* bytes of all files together */
    struct file **shards;        /* [n_shards]: the others of a GGUF in several files, whose names the tensors borrow */
    size_t n_shards;
    const uint8_t *metas_end;    /* no value reaches past it */
    struct tensor *tensors;
    size_t n_tensors;
    struct meta *metas;
    size_t n_metas;
    uint64_t data_offset;
    struct arena arena;
    struct file_index *index; /* by name: tensors and keys */
};

/* Chooses the reader by the file's first bytes. The first shard of a GGUF in several files opens all. Errors carry the path. */
kg_status file_open(struct file **out, const char *path);
/* The same for its vocabulary alone: also a tokenizer.json or tokenizer.model, or a folder that has one of these and is no model. */
kg_status file_open_vocabulary(struct file **out, const char *path);
/* An adapter of the model base: a GGUF, or a folder of PEFT, which becomes the same (and is in the order of rows that folders have, which is what
 * kagari.rope_halves and kagari.heads_grouped say). */
kg_status file_open_adapter(struct file **out, const char *path, const struct file *base);
/* The same over bytes in memory that the caller keeps alive; `name` is for messages. */
kg_status file_open_memory(struct file **out, const void *data, size_t n_bytes, const char *name);
void file_close(struct file **file);

const struct tensor *file_tensor(const struct file *f, const char *name); /* NULL: none */
const struct meta *file_meta(const struct file *f, const char *key);      /* NULL: none */

/* Typed getters: any integer type that holds the value will do for an integer, f32 or f64 for a float, and so on.
 * Absent key: KG_OK with *found false and *out untouched (found NULL: absent is KG_ERR_FORMAT "missing key ...").
 * Wrong type or out of range: KG_ERR_FORMAT naming file, key and type. */
kg_status file_get_u32(const struct file *f, const char *key, uint32_t *out, bool *found);
kg_status file_get_i64(const struct file *f, const char *key, int64_t *out, bool *found);
kg_status file_get_f64(const struct file *f, const char *key, double *out, bool *found);
kg_status file_get_bool(const struct file *f, const char *key, bool *out, bool *found);
kg_status file_get_str(const struct file *f, const char *key, struct str *out, bool *found);
/* Arrays: *out points to n items. Item i of a numeric array is read by file_arr_i64 / file_arr_f64. */
kg_status file_get_arr(const struct file *f, const char *key, enum meta_type item, const struct meta **out, bool *found);
int64_t file_arr_i64(const struct meta *m, uint64_t i);
double file_arr_f64(const struct meta *m, uint64_t i);
const char *meta_type_name(enum meta_type t); /* "u32", "str", ... */

#endif
