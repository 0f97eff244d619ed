/* Limit kernels of the AVX-512 tier: twelve independent chains, more than latency times issue width of any processor that has
 * these instructions. Lanes are put together by or: gcc adds them as signed integers, which may overflow. */
#include "backend/cpu/limits.h"

#include "backend/cpu/cpu.h"

#include <immintrin.h>

static volatile int seed = 3; /* unknown to the compiler */

static uint32_t int8_avx512(int64_t rounds)
{
    const __m512i x = _mm512_set1_epi8((char)seed), y = _mm512_set1_epi8((char)(seed + 2));
    __m512i a = _mm512_set1_epi32(seed), b = _mm512_set1_epi32(seed), c = _mm512_set1_epi32(seed), d = _mm512_set1_epi32(seed);
    __m512i e = _mm512_set1_epi32(seed), f = _mm512_set1_epi32(seed), g = _mm512_set1_epi32(seed), h = _mm512_set1_epi32(seed);
    __m512i i = _mm512_set1_epi32(seed), j = _mm512_set1_epi32(seed), k = _mm512_set1_epi32(seed), l = _mm512_set1_epi32(seed);
    for (int64_t r = 0; r < rounds; r++) {
        a = _mm512_dpbusd_epi32(a, x, y), b = _mm512_dpbusd_epi32(b, x, y), c = _mm512_dpbusd_epi32(c, x, y);
        d = _mm512_dpbusd_epi32(d, x, y), e = _mm512_dpbusd_epi32(e, x, y), f = _mm512_dpbusd_epi32(f, x, y);
        g = _mm512_dpbusd_epi32(g, x, y), h = _mm512_dpbusd_epi32(h, x, y), i = _mm512_dpbusd_epi32(i, x, y);
        j = _mm512_dpbusd_epi32(j, x, y), k = _mm512_dpbusd_epi32(k, x, y), l = _mm512_dpbusd_epi32(l, x, y);
    }
    a = _mm512_xor_si512(_mm512_xor_si512(a, b), _mm512_xor_si512(c, d)), e = _mm512_xor_si512(_mm512_xor_si512(e, f), _mm512_xor_si512(g, h));
    i = _mm512_xor_si512(_mm512_xor_si512(i, j), _mm512_xor_si512(k, l));
    return (uint32_t)_mm512_reduce_or_epi32(_mm512_xor_si512(a, _mm512_xor_si512(e, i)));
}

static uint32_t f32_avx512(int64_t rounds)
{
    const __m512 x = _mm512_set1_ps(0.25f * (float)seed), y = _mm512_set1_ps((float)seed);
    __m512 a = _mm512_set1_ps((float)seed), b = _mm512_set1_ps((float)seed), c = _mm512_set1_ps((float)seed), d = _mm512_set1_ps((float)seed);
    __m512 e = _mm512_set1_ps((float)seed), f = _mm512_set1_ps((float)seed), g = _mm512_set1_ps((float)seed), h = _mm512_set1_ps((float)seed);
    __m512 i = _mm512_set1_ps((float)seed), j = _mm512_set1_ps((float)seed), k = _mm512_set1_ps((float)seed), l = _mm512_set1_ps((float)seed);
    for (int64_t r = 0; r < rounds; r++) {
        a = _mm512_fmadd_ps(a, x, y), b = _mm512_fmadd_ps(b, x, y), c = _mm512_fmadd_ps(c, x, y), d = _mm512_fmadd_ps(d, x, y);
        e = _mm512_fmadd_ps(e, x, y), f = _mm512_fmadd_ps(f, x, y), g = _mm512_fmadd_ps(g, x, y), h = _mm512_fmadd_ps(h, x, y);
        i = _mm512_fmadd_ps(i, x, y), j = _mm512_fmadd_ps(j, x, y), k = _mm512_fmadd_ps(k, x, y), l = _mm512_fmadd_ps(l, x, y);
    }
    a = _mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d)), e = _mm512_add_ps(_mm512_add_ps(e, f), _mm512_add_ps(g, h));
    i = _mm512_add_ps(_mm512_add_ps(i, j), _mm512_add_ps(k, l));
    return f32_bits(_mm512_reduce_add_ps(_mm512_add_ps(a, _mm512_add_ps(e, i))));
}

static uint32_t bf16_avx512(int64_t rounds)
{
    const __m512 one = _mm512_set1_ps(0.001f * (float)seed);
    const __m512bh x = _mm512_cvtne2ps_pbh(one, one), y = _mm512_cvtne2ps_pbh(one, one);
    __m512 a = _mm512_set1_ps((float)seed), b = _mm512_set1_ps((float)seed), c = _mm512_set1_ps((float)seed), d = _mm512_set1_ps((float)seed);
    __m512 e = _mm512_set1_ps((float)seed), f = _mm512_set1_ps((float)seed), g = _mm512_set1_ps((float)seed), h = _mm512_set1_ps((float)seed);
    __m512 i = _mm512_set1_ps((float)seed), j = _mm512_set1_ps((float)seed), k = _mm512_set1_ps((float)seed), l = _mm512_set1_ps((float)seed);
    for (int64_t r = 0; r < rounds; r++) {
        a = _mm512_dpbf16_ps(a, x, y), b = _mm512_dpbf16_ps(b, x, y), c = _mm512_dpbf16_ps(c, x, y), d = _mm512_dpbf16_ps(d, x, y);
        e = _mm512_dpbf16_ps(e, x, y), f = _mm512_dpbf16_ps(f, x, y), g = _mm512_dpbf16_ps(g, x, y), h = _mm512_dpbf16_ps(h, x, y);
        i = _mm512_dpbf16_ps(i, x, y), j = _mm512_dpbf16_ps(j, x, y), k = _mm512_dpbf16_ps(k, x, y), l = _mm512_dpbf16_ps(l, x, y);
    }
    a = _mm512_add_ps(_mm512_add_ps(a, b), _mm512_add_ps(c, d)), e = _mm512_add_ps(_mm512_add_ps(e, f), _mm512_add_ps(g, h));
    i = _mm512_add_ps(_mm512_add_ps(i, j), _mm512_add_ps(k, l));
    return f32_bits(_mm512_reduce_add_ps(_mm512_add_ps(a, _mm512_add_ps(e, i))));
}

/* One stream that asks for lines 8 KiB ahead: the fastest on Zen 5. The prefetch at the end of a stretch runs into the next one. */
static uint32_t read_ahead(const uint8_t *p)
{
    __m512i a = _mm512_setzero_si512(), b = a, c = a, d = a;
    for (const uint8_t *end = p + LIMIT_STRETCH; p < end; p += 256) {
        for (int i = 0; i < 256; i += 64) __builtin_prefetch(p + 8192 + i);
        a = _mm512_xor_si512(a, _mm512_load_si512(p)), b = _mm512_xor_si512(b, _mm512_load_si512(p + 64));
        c = _mm512_xor_si512(c, _mm512_load_si512(p + 128)), d = _mm512_xor_si512(d, _mm512_load_si512(p + 192));
    }
    return (uint32_t)_mm512_reduce_or_epi32(_mm512_xor_si512(_mm512_xor_si512(a, b), _mm512_xor_si512(c, d)));
}

/* N streams side by side, far from each other, that ask for lines AHEAD bytes ahead, if at all. */
static inline __attribute__((always_inline)) uint32_t read_side(const uint8_t *p, const size_t N, const size_t AHEAD)
{
    __m512i a[16];
    UNROLL(16)
    for (size_t s = 0; s < N; s++) a[s] = _mm512_setzero_si512();
    ROLLED /* the processor's prefetchers follow what few instructions read */
    for (size_t i = 0; i < LIMIT_STRETCH / N; i += 64)
        UNROLL(16)
        for (size_t s = 0; s < N; s++) {
            const uint8_t *at = p + s * (LIMIT_STRETCH / N) + i;
            if (AHEAD) __builtin_prefetch(at + AHEAD);
            a[s] = _mm512_xor_si512(a[s], _mm512_load_si512(at));
        }
    UNROLL(16)
    for (size_t s = 1; s < N; s++) a[0] = _mm512_xor_si512(a[0], a[s]);
    return (uint32_t)_mm512_reduce_or_epi32(a[0]);
}
static uint32_t read_1(const uint8_t *p) { return read_side(p, 1, 0); } /* the fastest on Zen 4 */
static uint32_t read_4(const uint8_t *p) { return read_side(p, 4, 0); }
static uint32_t read_8(const uint8_t *p) { return read_side(p, 8, 0); }
static uint32_t read_16(const uint8_t *p) { return read_side(p, 16, 0); }
static uint32_t read_16_ahead(const uint8_t *p) { return read_side(p, 16, 256); } /* the fastest on Sapphire Rapids */

void limits_avx512(struct limit_kernels *k)
{
    const bool bf16 = cpu_has_bf16();
    *k = (struct limit_kernels){
        .with = bf16 ? "AVX-512: vpdpbusd, vfmadd, vdpbf16ps" : "AVX-512: vpdpbusd, vfmadd",
        .int8 = int8_avx512,
        .int8_ops = 12 * 64 * 2,
        .f32 = f32_avx512,
        .f32_ops = 12 * 16 * 2,
        .bf16 = bf16 ? bf16_avx512 : f32_avx512, /* widened */
        .bf16_ops = 12 * (bf16 ? 32 : 16) * 2,
        .read = {read_ahead, read_1, read_4, read_8, read_16, read_16_ahead},
    };
}
