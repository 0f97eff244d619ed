/* Reading a block as a string of bits; for the decoders of the reference engine only. */
#ifndef BACKEND_REF_BITS_H
#define BACKEND_REF_BITS_H

#include "backend/ref/ref.h"

/* The n bits from bit `at` on, lowest first; they touch at most two bytes. */
static inline unsigned bits(const uint8_t *b, int at, int n)
{
    unsigned v = (unsigned)b[at / 8] >> at % 8;
    if (at % 8 + n > 8) v |= (unsigned)b[at / 8 + 1] << (8 - at % 8);
    return v & ((1u << n) - 1);
}

static inline int int8_at(const uint8_t *b, int byte) { return b[byte] < 128 ? b[byte] : b[byte] - 256; }
static inline double f16_at(const uint8_t *b, int byte) { return ref_f16(bits(b, 8 * byte, 16)); }

#endif
