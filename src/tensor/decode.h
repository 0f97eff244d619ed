/* Decoding of every tensor type to f32, bit for bit as ggml does it. The reference backend has its own decoders. */
#ifndef TENSOR_DECODE_H
#define TENSOR_DECODE_H

#include "tensor/tensor.h"

/* n elements, a multiple of the type's block; src has no alignment, dst is float[n]. */
typedef void (*decode_f32_fn)(const void *src, float *dst, int64_t n);
decode_f32_fn decode_f32(enum tensor_type type);

/* The integer form that all block types share: value = scale[g] * q - min[g], where g counts groups of `group` elements.
 * q fits int8. Types that are not block types (F32, F16, BF16, F64, I8..I64) have none: group is 0.
 * scale * q and min are formed in f32 from the block's own scales exactly as decode_f32 forms them up to the last rounding. */
struct int_form {
    int group;     /* 16, 32, 64, 128 or 256; divides the block */
    bool has_min;  /* false: min is zero everywhere and not written */
    void (*decode)(const void *src, int8_t *q, float *scale, float *min, int64_t n);
};
struct int_form decode_int_form(enum tensor_type type);

#endif
