/* The AVX-512 tier: the plain C kernels compiled for it, with matmul and attention replaced. */
#include "backend/cpu/avx512.h"
#include "backend/cpu/kernels_tmpl.h"


static inline __m512i magnitudes(__m512 x) { return _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff)); }

/* max_i of pairs: lanes of a and b side by side, each half as many. */
static inline __m512i fold(__m512i a, __m512i b, __m512i lo, __m512i hi) { return _mm512_max_epu32(_mm512_permutex2var_epi32(a, lo, b), _mm512_permutex2var_epi32(a, hi, b)); }

/* The largest magnitude, as bits, of each group of 32 of 256 elements: NaN is above every number. */
static inline __m256i tops(const float *x)
{
    const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0), odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    __m512i v[8];
#pragma GCC unroll 8
    for (int g = 0; g < 8; g++) v[g] = _mm512_max_epu32(magnitudes(_mm512_loadu_ps(x + 32 * g)), magnitudes(_mm512_loadu_ps(x + 32 * g + 16)));
#pragma GCC unroll 3
    for (int n = 4; n > 0; n /= 2)
#pragma GCC unroll 4
        for (int g = 0; g < n; g++) v[g] = fold(v[2 * g], v[2 * g + 1], even, odd);
    return _mm512_castsi512_si256(fold(v[0], v[0], even, odd));
}

/* One group of 32, x / scale rounded; scale = super * 2^-k. */
static inline void quantize_group(const float *x, float inv_scale, float super, int k, struct act_row row, int u)
{
    const __m512 inv = _mm512_set1_ps(inv_scale);
    const __m128i qa = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x), inv)));
    const __m128i qb = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + 16), inv)));
    const __m128i ones = _mm_set1_epi8(1);
    __m128i s = _mm_hadd_epi32(_mm_dpbusd_epi32(_mm_setzero_si128(), ones, qa), _mm_dpbusd_epi32(_mm_setzero_si128(), ones, qb));
    s = _mm_hadd_epi32(s, s);
    act_put_shifted(&row.group[u * row.T], &row.halves[u * row.T], super, k, _mm_cvtsi128_si32(s), _mm_extract_epi32(s, 1));
    const int step = row.T * 4;
    int8_t *q = row.q + u * 8 * step;
    for (int i = 0; i < 2; i++, q += 4 * step) {
        const __m128i w = i ? qb : qa;
        _mm_storeu_si32(q, w);
        const int words[3] = {_mm_extract_epi32(w, 1), _mm_extract_epi32(w, 2), _mm_extract_epi32(w, 3)};
        for (int j = 0; j < 3; j++) memcpy(q + (j + 1) * step, &words[j], 4);
    }
}

static void quantize_avx512(const float *x, int n, struct act_row row)
{
    enum { GROUPS = ACT_SUPER / ACT_GROUP };
    for (int u0 = 0; u0 < n / ACT_GROUP; u0 += GROUPS, x += ACT_SUPER) {
        const int groups = MIN(GROUPS, n / ACT_GROUP - u0);
        _Alignas(32) uint32_t top[GROUPS] = {0};
        uint32_t most = 0;
        if (groups == GROUPS) {
            const __m256i t = tops(x);
            _mm256_store_si256((void *)top, t);
            most = _mm512_reduce_max_epu32(_mm512_castsi256_si512(t));
        } else {
            for (int g = 0; g < groups; g++) {
                top[g] = _mm512_reduce_max_epu32(_mm512_max_epu32(magnitudes(_mm512_loadu_ps(x + 32 * g)), magnitudes(_mm512_loadu_ps(x + 32 * g + 16))));
                most = MAX(most, top[g]);
            }
        }
        const float super = act_scale(f32_from_bits(most)), inv = super > 0 ? 1.0f / super : 0.0f;
        for (int g = 0; g < groups; g++) {
            const int k = act_shift(super, f32_from_bits(top[g]));
            quantize_group(x + 32 * g, inv * f32_from_bits((uint32_t)(127 + k) << 23), super, k, row, u0 + g);
        }
    }
}

/* 1 / (1 + e^-x) */
static inline __m512 sigmoid(__m512 x)
{
    const __m512 one = _mm512_set1_ps(1.0f);
    const __m512 d = _mm512_add_ps(one, avx512_exp(_mm512_sub_ps(_mm512_setzero_ps(), x)));
    const __m512 r = _mm512_rcp14_ps(d); /* one Newton step: 2^-14 becomes 2^-24 or so */
    return _mm512_mul_ps(r, _mm512_fnmadd_ps(d, r, _mm512_set1_ps(2.0f)));
}

static void glu_avx512(float *dst, const float *gate, const float *up, int n, enum activation f)
{
    if (f != ACTIVATION_SILU) {
        glu(dst, gate, up, n, f);
        return;
    }
    for (int i = 0; i < n; i += 16) {
        const __mmask16 m = (__mmask16)(n - i >= 16 ? 0xffff : (1 << (n - i)) - 1);
        const __m512 x = _mm512_maskz_loadu_ps(m, gate + i);
        _mm512_mask_storeu_ps(dst + i, m, _mm512_mul_ps(_mm512_mul_ps(x, sigmoid(x)), _mm512_maskz_loadu_ps(m, up + i)));
    }
}

static const struct cpu_format *format_avx512(enum tensor_type type, kg_activations activations)
{
    const struct cpu_format *f = activations == KG_ACT_INT8 ? avx512_int_format(type) : NULL;
    return f ? f : avx512_float_format(type, activations);
}

void cpu_kernels_avx512(struct cpu_kernels *k)
{
    fill_kernels(k);
    k->format = format_avx512;
    k->act_excess = 2; /* scales go down in powers of two */
    k->quantize = quantize_avx512;
    k->glu = glu_avx512;
    k->ahead = avx512_int_ahead;
    k->attend = avx512_attend;
    k->attend_scratch_bytes = avx512_attend_scratch_bytes;
}
