/* Writes a GGUF file in one pass: keys, then tensors' names and shapes, then their bytes in the same order. The file appears under its
 * name only when it is complete. */
#ifndef FILE_GGUF_WRITE_H
#define FILE_GGUF_WRITE_H

#include "file/file.h"

struct gguf_out;

/* The path's folder must be writable; an existing file stays until gguf_out_finish replaces it. */
kg_status gguf_out_open(struct gguf_out **out, const char *path);
/* Keys. A key that is there already is an error. */
kg_status gguf_out_u16(struct gguf_out *o, const char *key, uint16_t v);
kg_status gguf_out_u32(struct gguf_out *o, const char *key, uint32_t v);
kg_status gguf_out_i32(struct gguf_out *o, const char *key, int32_t v);
kg_status gguf_out_f32(struct gguf_out *o, const char *key, float v);
kg_status gguf_out_bool(struct gguf_out *o, const char *key, bool v);
kg_status gguf_out_str(struct gguf_out *o, const char *key, const char *s, size_t len);
/* n items of a number type, in file order. */
kg_status gguf_out_array(struct gguf_out *o, const char *key, enum meta_type item, const void *items, uint64_t n);
kg_status gguf_out_strings(struct gguf_out *o, const char *key, const struct str *items, uint64_t n);
/* A key of another file, as it is. */
kg_status gguf_out_meta(struct gguf_out *o, const struct meta *m);

/* Declares a tensor; ne[n_dims], data is not looked at. All keys and tensors come before the first data. */
kg_status gguf_out_tensor(struct gguf_out *o, const char *name, enum tensor_type type, int n_dims, const int64_t *ne);
/* The next bytes of the tensors' data, which run on from one tensor into the next; padding is put in between by itself. */
kg_status gguf_out_data(struct gguf_out *o, const void *data, size_t n_bytes);
/* Checks that every tensor has its bytes, and gives the file its name. */
kg_status gguf_out_finish(struct gguf_out *o);
/* Frees o; a file that was not finished is removed. */
void gguf_out_close(struct gguf_out **out);

#endif
