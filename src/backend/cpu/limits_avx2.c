/* Limit kernels of the AVX2 tier, and of the one that has vpdpbusd instead of three instructions that do the same. */
#include "backend/cpu/limits.h"

#include "backend/cpu/cpu.h"

#include <immintrin.h>

static volatile int seed = 3; /* unknown to the compiler */

static uint32_t sum_of(__m256i a)
{
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    return (uint32_t)_mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

/* Products of bytes and of four bits, eight of whose pairs fit 16 bits together, so that they are widened once. Each chain claims to change
 * its factor, so that the compiler cannot do once what is asked for twice; that costs nothing. */
static inline __m256i eight_pairs(__m256i acc, __m256i x, __m256i y, __m256i ones)
{
    __m256i sum = _mm256_maddubs_epi16(x, y);
    UNROLL(7)
    for (int i = 1; i < 8; i++) {
        __asm__ volatile("" : "+x"(x), "+x"(sum));
        sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(x, y));
    }
    return _mm256_add_epi32(acc, _mm256_madd_epi16(sum, ones));
}

static uint32_t int8_avx2(int64_t rounds)
{
    const __m256i x = _mm256_set1_epi8((char)seed), y = _mm256_set1_epi8((char)(seed + 2)), ones = _mm256_set1_epi16((short)(seed - 2));
    __m256i a = _mm256_set1_epi32(seed), b = a, c = a, d = a, e = a, f = a, g = a, h = a;
    for (int64_t r = 0; r < rounds; r++) {
        a = eight_pairs(a, x, y, ones), b = eight_pairs(b, x, y, ones), c = eight_pairs(c, x, y, ones), d = eight_pairs(d, x, y, ones);
        e = eight_pairs(e, x, y, ones), f = eight_pairs(f, x, y, ones), g = eight_pairs(g, x, y, ones), h = eight_pairs(h, x, y, ones);
    }
    a = _mm256_add_epi32(_mm256_add_epi32(a, b), _mm256_add_epi32(c, d)), e = _mm256_add_epi32(_mm256_add_epi32(e, f), _mm256_add_epi32(g, h));
    return sum_of(_mm256_add_epi32(a, e));
}

/* Twelve sums, which is as many as hide the latency. */
#define VNNI(name, isa, dpbusd)                                                                                                         \
    __attribute__((target(isa))) static uint32_t name(int64_t rounds)                                                                  \
    {                                                                                                                                   \
        const __m256i x = _mm256_set1_epi8((char)seed), y = _mm256_set1_epi8((char)(seed + 2));                                         \
        __m256i a = _mm256_set1_epi32(seed), b = a, c = a, d = a, e = a, f = a, g = a, h = a, i = a, j = a, k = a, l = a;               \
        for (int64_t r = 0; r < rounds; r++) {                                                                                          \
            a = dpbusd(a, x, y), b = dpbusd(b, x, y), c = dpbusd(c, x, y), d = dpbusd(d, x, y), e = dpbusd(e, x, y), f = dpbusd(f, x, y); \
            g = dpbusd(g, x, y), h = dpbusd(h, x, y), i = dpbusd(i, x, y), j = dpbusd(j, x, y), k = dpbusd(k, x, y), l = dpbusd(l, x, y); \
            __asm__ volatile("" : "+x"(a), "+x"(b), "+x"(c), "+x"(d), "+x"(e), "+x"(f), "+x"(g), "+x"(h), "+x"(i), "+x"(j), "+x"(k), "+x"(l)); \
        }                                                                                                                               \
        a = _mm256_add_epi32(_mm256_add_epi32(a, b), _mm256_add_epi32(c, d)), e = _mm256_add_epi32(_mm256_add_epi32(e, f), _mm256_add_epi32(g, h)); \
        return sum_of(_mm256_add_epi32(_mm256_add_epi32(a, e), _mm256_add_epi32(_mm256_add_epi32(i, j), _mm256_add_epi32(k, l))));      \
    }
VNNI(int8_avxvnni, "avxvnni", _mm256_dpbusd_avx_epi32)
VNNI(int8_vnni256, "avx512vl,avx512vnni", _mm256_dpbusd_epi32)

static uint32_t f32_avx2(int64_t rounds)
{
    const __m256 x = _mm256_set1_ps(0.25f * (float)seed), y = _mm256_set1_ps((float)seed);
    __m256 a = _mm256_set1_ps((float)seed), b = _mm256_set1_ps((float)seed), c = _mm256_set1_ps((float)seed), d = _mm256_set1_ps((float)seed);
    __m256 e = _mm256_set1_ps((float)seed), f = _mm256_set1_ps((float)seed), g = _mm256_set1_ps((float)seed), h = _mm256_set1_ps((float)seed);
    __m256 i = _mm256_set1_ps((float)seed), j = _mm256_set1_ps((float)seed), k = _mm256_set1_ps((float)seed), l = _mm256_set1_ps((float)seed);
    for (int64_t r = 0; r < rounds; r++) {
        a = _mm256_fmadd_ps(a, x, y), b = _mm256_fmadd_ps(b, x, y), c = _mm256_fmadd_ps(c, x, y), d = _mm256_fmadd_ps(d, x, y);
        e = _mm256_fmadd_ps(e, x, y), f = _mm256_fmadd_ps(f, x, y), g = _mm256_fmadd_ps(g, x, y), h = _mm256_fmadd_ps(h, x, y);
        i = _mm256_fmadd_ps(i, x, y), j = _mm256_fmadd_ps(j, x, y), k = _mm256_fmadd_ps(k, x, y), l = _mm256_fmadd_ps(l, x, y);
    }
    a = _mm256_add_ps(_mm256_add_ps(a, b), _mm256_add_ps(c, d)), e = _mm256_add_ps(_mm256_add_ps(e, f), _mm256_add_ps(g, h));
    a = _mm256_add_ps(_mm256_add_ps(a, e), _mm256_add_ps(_mm256_add_ps(i, j), _mm256_add_ps(k, l)));
    return sum_of(_mm256_castps_si256(a));
}

/* N streams side by side, STEP bytes from each other, that ask for lines AHEAD bytes before they are read, if at all. */
static inline __attribute__((always_inline)) uint32_t read_side(const uint8_t *p, const size_t N, const size_t STEP, const size_t AHEAD)
{
    __m256i a[8];
    UNROLL(8)
    for (size_t s = 0; s < N; s++) a[s] = _mm256_setzero_si256();
    for (const uint8_t *end = p + LIMIT_STRETCH; p < end; p += N * STEP)
        for (size_t i = 0; i < STEP; i += 64)
            UNROLL(8)
            for (size_t s = 0; s < N; s++) {
                const __m256i *v = (const __m256i *)(const void *)(p + s * STEP + i);
                if (AHEAD) __builtin_prefetch((const uint8_t *)v + AHEAD);
                a[s] = _mm256_xor_si256(a[s], _mm256_xor_si256(_mm256_load_si256(v), _mm256_load_si256(v + 1)));
            }
    UNROLL(8)
    for (size_t s = 1; s < N; s++) a[0] = _mm256_xor_si256(a[0], a[s]);
    return sum_of(a[0]);
}
static uint32_t read_ahead(const uint8_t *p) { return read_side(p, 1, 4096, 8192); }
static uint32_t read_2(const uint8_t *p) { return read_side(p, 2, 2048, 0); }
static uint32_t read_8(const uint8_t *p) { return read_side(p, 8, LIMIT_STRETCH / 8, 0); }

void limits_avx2(struct limit_kernels *k)
{
    *k = (struct limit_kernels){
        .with = "AVX2: vpmaddubsw + vpaddw, vfmadd",
        .int8 = int8_avx2,
        .int8_ops = 8 * 8 * 32 * 2,
        .f32 = f32_avx2,
        .f32_ops = 12 * 8 * 2,
        .bf16 = f32_avx2, /* bf16 is widened */
        .bf16_ops = 12 * 8 * 2,
        .read = {read_2, read_8, read_ahead},
    };
}

void limits_vnni(struct limit_kernels *k)
{
    limits_avx2(k);
    k->with = "AVX2: vpdpbusd, vfmadd";
    k->int8 = cpu_has_avxvnni() ? int8_avxvnni : int8_vnni256;
    k->int8_ops = 12 * 32 * 2;
}
