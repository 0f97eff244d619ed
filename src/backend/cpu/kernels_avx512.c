/* The AVX-512 tier: the plain C kernels compiled for it, with matmul and attention replaced. */
#include "backend/cpu/avx512.h"
#include "backend/cpu/kernels_tmpl.h"


static inline __m512i magnitudes(__m512 x) { return _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff)); }

/* One group of 32 with scale super * 2^-k. */
static inline void quantize_group(const float *x, float super, int k, struct act_row row, int u)
{
    const float scale = super * f32_from_bits((uint32_t)(127 - k) << 23);
    const __m512 inv = _mm512_set1_ps(scale > 0 ? 1.0f / scale : 0.0f);
    const __m128i qa = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x), inv)));
    const __m128i qb = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + 16), inv)));
    const __m256i q = _mm256_inserti128_si256(_mm256_castsi128_si256(qa), qb, 1);
    __m256i s = _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_set1_epi8(1), q); /* sums of four */
    s = _mm256_hadd_epi32(s, s);
    s = _mm256_hadd_epi32(s, s); /* the halves' sums in lanes 0 and 4 */
    act_put_shifted(&row.group[u * row.T], &row.halves[u * row.T], super, k, _mm256_extract_epi32(s, 0), _mm256_extract_epi32(s, 4));
    int32_t words[8];
    _mm256_storeu_si256((void *)words, q);
    for (int i = 0; i < 8; i++) memcpy(row.q + (u * 8 + i) * row.T * 4, &words[i], 4);
}

static void quantize_avx512(const float *x, int n, struct act_row row)
{
    enum { GROUPS = ACT_SUPER / ACT_GROUP };
    for (int u0 = 0; u0 < n / ACT_GROUP; u0 += GROUPS, x += ACT_SUPER) {
        const int groups = MIN(GROUPS, n / ACT_GROUP - u0);
        uint32_t top[GROUPS], most = 0; /* as bits: NaN is above every number */
        for (int g = 0; g < groups; g++) {
            top[g] = _mm512_reduce_max_epu32(_mm512_max_epu32(magnitudes(_mm512_loadu_ps(x + 32 * g)), magnitudes(_mm512_loadu_ps(x + 32 * g + 16))));
            most = MAX(most, top[g]);
        }
        const float super = act_scale(f32_from_bits(most));
        for (int g = 0; g < groups; g++) quantize_group(x + 32 * g, super, act_shift(super, f32_from_bits(top[g])), row, u0 + g);
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
    k->attend = avx512_attend;
    k->attend_scratch_bytes = avx512_attend_scratch_bytes;
}
