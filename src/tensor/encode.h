/* Encoding of f32 rows into tensor types: the quantizers. Each searches for the scales (and minima) that make the squared
 * error smallest, weighted if weights are given. */
#ifndef TENSOR_ENCODE_H
#define TENSOR_ENCODE_H

#include "tensor/tensor.h"

/* src[n] is finite, n a multiple of the type's block; weight[n] (>= 0, finite) says how much the square of each error counts,
 * NULL: all alike; dst has no alignment. Values too large for the type's scales are cut to the largest that fits, except by F16
 * and BF16, which give infinity. */
typedef void (*encode_fn)(const float *src, const float *weight, void *dst, int64_t n);
struct encoder {
    encode_fn run; /* NULL: this type has no quantizer */
};
encode_fn encode_f32(enum tensor_type type); /* NULL: none */

#endif
