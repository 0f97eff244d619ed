/* The AVX-512 tier: the plain C kernels compiled for it, with matmul and attention replaced. */
#include "backend/cpu/avx512.h"
#include "backend/cpu/kernels_tmpl.h"


static void quantize_avx512(const float *x, int n, struct act_row row)
{
    const __m512i abs = _mm512_set1_epi32(0x7fffffff);
    const __m256i ones = _mm256_set1_epi8(1);
    for (int u = 0; u < n / ACT_GROUP; u++, x += ACT_GROUP) {
        const __m512 a = _mm512_loadu_ps(x), b = _mm512_loadu_ps(x + 16);
        const __m512i top = _mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(a), abs), _mm512_and_si512(_mm512_castps_si512(b), abs));
        const float d = act_scale(f32_from_bits(_mm512_reduce_max_epu32(top)));
        const __m512 inv = _mm512_set1_ps(d > 0 ? 1.0f / d : 0.0f);
        const __m128i qa = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(a, inv)));
        const __m128i qb = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(b, inv)));
        const __m256i q = _mm256_inserti128_si256(_mm256_castsi128_si256(qa), qb, 1);
        __m256i s = _mm256_dpbusd_epi32(_mm256_setzero_si256(), ones, q); /* sums of four */
        s = _mm256_hadd_epi32(s, s);
        s = _mm256_hadd_epi32(s, s); /* the halves' sums in lanes 0 and 4 */
        act_put_sums(&row.group[u * row.T], &row.halves[u * row.T], d, _mm256_extract_epi32(s, 0), _mm256_extract_epi32(s, 4));
        int32_t words[8];
        _mm256_storeu_si256((void *)words, q);
        for (int i = 0; i < 8; i++) memcpy(row.q + (u * 8 + i) * row.T * 4, &words[i], 4);
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
    k->quantize = quantize_avx512;
    k->glu = glu_avx512;
    k->attend = avx512_attend;
    k->attend_scratch_bytes = avx512_attend_scratch_bytes;
}
