/* Tensor types and tensors: name, type, shape and a borrowed pointer to rows in the format of the file. */
#ifndef TENSOR_TENSOR_H
#define TENSOR_TENSOR_H

#include "base/base.h"

/* Values are the GGUF ids. */
enum tensor_type {
#define QUANT(ENUM, name, text, id, block, bytes) TYPE_##ENUM = id,
#include "tensor/quant.def"
#undef QUANT
};

struct type_info {
    enum tensor_type type;
    const char *name;  /* "Q4_K" */
    int block;         /* elements per block */
    int block_bytes;
};

/* NULL: no such type. */
const struct type_info *type_by_id(uint32_t id);
const struct type_info *type_by_name(const char *name); /* case-insensitive */
const struct type_info *type_at(size_t i);              /* i-th row of quant.def; NULL past the end */
/* Name of an id that GGUF once had and removed ("Q4_2"), NULL for others. */
const char *type_removed_name(uint32_t id);

/* ne[0] is contiguous. A matrix that maps `in` to `out` features is ne = {in, out, 1, 1}: `out` rows of `in` elements,
 * y[o] = sum_i row(o)[i] * x[i]. Rows are whole blocks, without padding between them. */
struct tensor {
    const char *name;
    enum tensor_type type;
    int n_dims;
    int64_t ne[4];
    const void *data; /* borrowed from the file's map */
    size_t n_bytes;
};

size_t tensor_row_bytes(const struct tensor *t);
int64_t tensor_n_rows(const struct tensor *t); /* ne[1] * ne[2] * ne[3] */
const void *tensor_row(const struct tensor *t, int64_t row);

#endif
