/* The floating-point mode of a thread that computes: whatever its program does with its own, results are the same. */
#ifndef BASE_FLOAT_MODE_H
#define BASE_FLOAT_MODE_H

#ifdef __x86_64__
#include <immintrin.h>

typedef unsigned float_mode;

/* To nearest, no traps, and numbers below the normal range are zero: an instruction that meets one takes more than a hundred cycles on Intel's
 * processors, and a model's attention can be full of them (e^-87 times a value). Returns the mode before. */
static inline float_mode float_mode_enter(void)
{
    const float_mode before = _mm_getcsr();
    _mm_setcsr(0x1f80 | 0x8040);
    return before;
}

static inline void float_mode_leave(float_mode before) { _mm_setcsr(before); }

#else
#include <fenv.h>

typedef fenv_t float_mode;

/* To nearest, no traps. Returns the mode before. */
static inline float_mode float_mode_enter(void)
{
    float_mode before;
    fegetenv(&before);
    fesetenv(FE_DFL_ENV);
    return before;
}

static inline void float_mode_leave(float_mode before) { fesetenv(&before); }
#endif

#endif
