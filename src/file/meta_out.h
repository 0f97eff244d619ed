/* Writes metadata in the form that GGUF has: a converter's output, and how the readers of other formats hand theirs over. */
#ifndef FILE_META_OUT_H
#define FILE_META_OUT_H

#include "file/file.h"

/* Zero-initialised is ready to use. After a failure the rest does nothing: `status` tells. */
struct meta_out {
    struct buf bytes;
    uint64_t n;
    kg_status status;
};

void meta_out_bytes(struct meta_out *o, const void *p, size_t n);
void meta_out_item(struct meta_out *o, const char *s, size_t n); /* a string inside an array */
void meta_out_u32(struct meta_out *o, const char *key, uint32_t v);
void meta_out_f32(struct meta_out *o, const char *key, float v);
void meta_out_bool(struct meta_out *o, const char *key, bool v);
void meta_out_str(struct meta_out *o, const char *key, const char *s, size_t n);
/* The head of an array; its n items follow. */
void meta_out_array(struct meta_out *o, const char *key, enum meta_type item, uint64_t n);
void meta_out_free(struct meta_out *o);

#endif
