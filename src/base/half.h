/* Conversions between f32 and the 16-bit and 8-bit float formats. Used by every layer but the reference
 * backend, which has its own. */
#ifndef BASE_HALF_H
#define BASE_HALF_H

#include "base/base.h"

/* IEEE 754 binary16 -> binary32, exact. Branch-light integer arithmetic, so that compilers can vectorise it. */
static inline float f32_from_f16(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, em = h & 0x7fffu;
    if (em >= 0x7c00u) return f32_from_bits(sign | 0x7f800000u | (em & 0x3ffu) << 13); /* infinity, NaN */
    if (em >= 0x0400u) return f32_from_bits(sign | ((em << 13) + 0x38000000u));        /* normal */
    float sub = (float)em * 0x1p-24f;                                                  /* subnormal, zero */
    return f32_from_bits(sign | f32_bits(sub));
}

/* binary32 -> binary16, round to nearest even; NaN stays NaN. */
static inline uint16_t f16_from_f32(float f)
{
    uint32_t u = f32_bits(f), sign = (u >> 16) & 0x8000u, a = u & 0x7fffffffu;
    if (a > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
    if (a >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* rounds to infinity */
    if (a < 0x38800000u) {                                   /* subnormal: let the FPU round at 2^-24 */
        float r = f32_from_bits(a) + 0.5f;
        return (uint16_t)(sign | (f32_bits(r) - 0x3f000000u));
    }
    uint32_t odd = (a >> 13) & 1;
    return (uint16_t)(sign | ((a - 0x38000000u + 0xfffu + odd) >> 13));
}

static inline float f32_from_bf16(uint16_t h) { return f32_from_bits((uint32_t)h << 16); }

/* Round to nearest even; NaN stays NaN. */
static inline uint16_t bf16_from_f32(float f)
{
    uint32_t u = f32_bits(f);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(u >> 16 | 0x40u);
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1)) >> 16);
}

#endif
