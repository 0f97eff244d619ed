/* What the parts of this folder share: the readers' entry points, the name index, checked reading of bytes. */
#ifndef FILE_READER_H
#define FILE_READER_H

#include "file/file.h"

/* One entry of a list sorted by name. */
struct file_name {
    const char *name;
    const void *item; /* struct meta or struct tensor */
};

enum file_fp8 { FILE_FP8_NONE, FILE_FP8_E4M3, FILE_FP8_E5M2 };

struct file_index {
    struct file_name *keys;    /* [n_metas] */
    struct file_name *tensors; /* [n_tensors] */
    uint8_t *fp8;              /* [n_tensors] while a folder is read: enum file_fp8 of tensors that stand in the list as I8 */
    bool mapped;               /* file->map is to be unmapped; else the caller's memory */
};

enum { FILE_MAX_ARRAY_DEPTH = 4 };

/* One file alone, though it may be a shard of a model. */
kg_status file_open_part(struct file **out, const char *path);
/* Opens the other shards of a model, if f is the first of several; f's index is to be built anew then. */
kg_status gguf_join_shards(struct file *f);
/* map is f's from here on, also on failure. */
kg_status file_add_more(struct file *f, struct os_map map);
/* Maps one more file that belongs to f. */
kg_status file_map_more(struct file *f, const char *path, struct os_map *out);
/* Memory that lives as long as f, for tensors that are not in its files as they are needed: zeroed, page aligned. Unlike memory of an
 * arena it survives os_map_release. */
kg_status file_alloc_more(struct file *f, size_t n_bytes, void **out);

/* Fills format, metas, tensors, data_offset. Messages do not carry the path: file.c puts it before them. */
kg_status gguf_read(struct file *f);
/* Fills metas from n of them in the form that GGUF has: for readers of other formats, which write them with meta_out.h. p stays. */
kg_status gguf_read_metas(struct file *f, const uint8_t *p, size_t n_bytes, uint64_t n);
bool gguf_recognise(const struct file *f);

/* For a file that no reader takes: the error that says what it is. */
kg_status foreign_refuse(const struct os_map *m);
bool foreign_is_pointer(const struct os_map *m); /* of Git LFS, whatever the name says */

/* Bytes of the first UTF-8 character of p[0..n), n >= 1; *c is its code point, or FILE_NOT_UTF8 for a sequence that is
 * ill-formed: then the result is the length of its maximal subpart, at least 1. */
#define FILE_NOT_UTF8 UINT32_MAX
size_t file_utf8_next(const uint8_t *p, size_t n, uint32_t *c);

/* JSON text of a value: kg_file_value without its range check. */
size_t file_value_json(const struct file *f, const struct meta *m, size_t max_items, char *buf, size_t size);

/* A name's bytes for "%.*s": cut at a character border so that a message keeps room for the rest. */
int file_shown(const char *name);
/* The end of a path that is too long for a message. */
const char *file_shown_path(const char *path);

/* Bytes of one value; 0 for strings and arrays. */
size_t meta_type_bytes(enum meta_type t);

struct cursor {
    const uint8_t *p, *end;
};

static inline size_t cursor_left(const struct cursor *c) { return (size_t)(c->end - c->p); }

static inline bool cursor_u32(struct cursor *c, uint32_t *v)
{
    if (cursor_left(c) < 4) return false;
    *v = load_u32(c->p);
    c->p += 4;
    return true;
}

static inline bool cursor_u64(struct cursor *c, uint64_t *v)
{
    if (cursor_left(c) < 8) return false;
    *v = load_u64(c->p);
    c->p += 8;
    return true;
}

/* A string of GGUF: u64 length, then bytes. */
static inline bool cursor_str(struct cursor *c, struct str *s)
{
    uint64_t len;
    if (!cursor_u64(c, &len) || len > cursor_left(c)) return false;
    *s = (struct str){(const char *)c->p, (size_t)len};
    c->p += len;
    return true;
}

#endif
