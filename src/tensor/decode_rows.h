/* What the decoder families share: the loops over blocks and the bit tricks on eight bytes at once. A family gives, for each
 * block type, one function that unpacks one block into its integer form; both public forms come from that one body.
 * Included by decode*.c only. */
#ifndef TENSOR_DECODE_ROWS_H
#define TENSOR_DECODE_ROWS_H

#include "base/half.h"
#include "base/unroll.h"
#include "tensor/decode.h"

#define QUANT(ENUM, name, text, id, block, bytes)                                                                                          \
    void decode_f32_##name(const void *src, float *dst, int64_t n);                                                                        \
    extern const struct int_form int_form_##name;
#include "tensor/quant.def"
#undef QUANT

/* BLOCK_Q4_0, BYTES_Q4_0 ... */
enum {
#define QUANT(ENUM, name, text, id, block, bytes) BLOCK_##ENUM = block, BYTES_##ENUM = bytes,
#include "tensor/quant.def"
#undef QUANT
    BATCH = 256,      /* elements unpacked at a time: the largest block */
    GROUPS_MOST = 16, /* in a batch */
};

/* block: `bytes` bytes, q[block], scale[block / group], min[block / group] or NULL */
typedef void (*unpack_fn)(const uint8_t *restrict b, int8_t *restrict q, float *restrict scale, float *restrict min);

struct format {
    int block, bytes, group;
    bool has_min;
    unpack_fn unpack;
};

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* Always inline, with a constant format, so that the body of `unpack` and all trip counts are known in the loop. Small blocks
 * are unpacked several at a time, as loads that are wider than the stores just before them stall. The inner loops are not to be
 * unrolled before they are vectorised: for groups of 16, gcc then finds nothing left to vectorise. */
ALWAYS_INLINE void rows_f32(const struct format *f, const void *src, float *restrict dst, int64_t n)
{
    const uint8_t *b = src;
    const int groups = f->block / f->group;
    int8_t q[BATCH];
    float scale[GROUPS_MOST], min[GROUPS_MOST];
    while (n > 0) {
        int n_blocks = (int)MIN(n, BATCH) / f->block;
        for (int k = 0; k < n_blocks; k++, b += f->bytes)
            f->unpack(b, q + k * f->block, scale + k * groups, f->has_min ? min + k * groups : NULL);
        for (int g = 0; g < n_blocks * groups; g++, dst += f->group) {
            const int8_t *qg = q + g * f->group;
            float s = scale[g];
            if (f->has_min) {
                float m = min[g];
                ROLLED
                for (int j = 0; j < f->group; j++) dst[j] = s * (float)qg[j] - m;
            } else {
                ROLLED
                for (int j = 0; j < f->group; j++) dst[j] = s * (float)qg[j];
            }
        }
        n -= n_blocks * f->block;
    }
}

ALWAYS_INLINE void rows_int(const struct format *f, const void *src, int8_t *restrict q, float *restrict scale, float *restrict min,
                            int64_t n)
{
    const uint8_t *b = src;
    int groups = f->block / f->group;
    for (int64_t i = 0; i < n; i += f->block, b += f->bytes, scale += groups) {
        f->unpack(b, q + i, scale, f->has_min ? min : NULL);
        if (f->has_min) min += groups;
    }
}

static inline float load_f16(const uint8_t *p) { return f32_from_f16(load_u16(p)); }

#define EACH_BYTE(x) (UINT64_C(0x0101010101010101) * (x))

/* Bit i of `bits` -> byte i (0 or 1). */
static inline uint64_t bytes_from_bits(uint8_t bits)
{
    uint64_t one_bit_each = EACH_BYTE(bits) & UINT64_C(0x8040201008040201);
    return (one_bit_each + EACH_BYTE(0x7f)) >> 7 & EACH_BYTE(1);
}

/* Eight bytes, none zero; those whose bit is set change sign. (Without zeros, ~x + 1 never carries into the next byte.) */
static inline uint64_t bytes_negate(uint64_t x, uint8_t bits)
{
    uint64_t ones = bytes_from_bits(bits);
    return (x ^ ones * 0xff) + ones;
}

/* Eight sums modulo 256. */
static inline uint64_t bytes_add(uint64_t a, uint64_t b)
{
    const uint64_t high = EACH_BYTE(0x80);
    return ((a & ~high) + (b & ~high)) ^ ((a ^ b) & high);
}

static inline void store_u64(int8_t *p, uint64_t v) { memcpy(p, &v, 8); }

#endif
