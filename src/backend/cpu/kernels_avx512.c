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
    UNROLL(8)
    for (int g = 0; g < 8; g++) v[g] = _mm512_max_epu32(magnitudes(_mm512_loadu_ps(x + 32 * g)), magnitudes(_mm512_loadu_ps(x + 32 * g + 16)));
    UNROLL(3)
    for (int n = 4; n > 0; n /= 2)
        UNROLL(4)
        for (int g = 0; g < n; g++) v[g] = fold(v[2 * g], v[2 * g + 1], even, odd);
    return _mm512_castsi512_si256(fold(v[0], v[0], even, odd));
}

/* act_shift of eight groups. */
static inline __m256i shifts(float super, __m256i tops)
{
    if (!(super > 0x1p-100f)) return _mm256_setzero_si256();
    const __m256 ratio = _mm256_div_ps(_mm256_div_ps(_mm256_castsi256_ps(tops), _mm256_set1_ps(127.0f)), _mm256_set1_ps(super));
    const __m256i down = _mm256_srli_epi32(_mm256_add_epi32(_mm256_castps_si256(ratio), _mm256_set1_epi32(0x7fffff)), 23);
    const __m256i k = _mm256_min_epi32(_mm256_sub_epi32(_mm256_set1_epi32(127), down), _mm256_set1_epi32(ACT_MAX_SHIFT));
    return _mm256_maskz_mov_epi32(_mm256_cmp_ps_mask(ratio, _mm256_set1_ps(1.0f), _CMP_LE_OQ), k);
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

#define FOUR(i) ACT_WIDE_INDEX(i), ACT_WIDE_INDEX(i + 1), ACT_WIDE_INDEX(i + 2), ACT_WIDE_INDEX(i + 3)
static const uint16_t wide_order[ACT_GROUP] = {FOUR(0), FOUR(4), FOUR(8), FOUR(12), FOUR(16), FOUR(20), FOUR(24), FOUR(28)}; /* its own inverse */
#undef FOUR

/* One group in its wide form: x / scale rounded, times part = 2^-k, and sums of that. */
static inline void round_wide(const float *x, float inv_scale, int k, uint16_t *to, float *sum, int T)
{
    const __m512 inv = _mm512_set1_ps(inv_scale), part = _mm512_set1_ps(f32_from_bits((uint32_t)(127 - k) << 23));
    const __m512i low = _mm512_set1_epi32(-128); /* where the packing of the other form ends NaN */
    const __m512i a = _mm512_max_epi32(_mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x), inv)), low);
    const __m512i b = _mm512_max_epi32(_mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + 16), inv)), low);
    const __m512 qa = _mm512_mul_ps(_mm512_cvtepi32_ps(a), part), qb = _mm512_mul_ps(_mm512_cvtepi32_ps(b), part);
    const __m512i q = _mm512_permutex2var_epi16(_mm512_castps_si512(qa), _mm512_add_epi16(_mm512_slli_epi16(_mm512_loadu_si512(wide_order), 1), _mm512_set1_epi16(1)), _mm512_castps_si512(qb));
    _mm512_storeu_si512(to, q);
    sum[T] = _mm512_reduce_add_ps(qa); /* exact in any order */
    sum[2 * T] = _mm512_reduce_add_ps(qb);
    sum[0] = sum[T] + sum[2 * T];
}

/* As above for the last groups of a row, fewer than eight. */
static void quantize_rest(const float *x, int groups, struct act_row row, uint16_t *wide)
{
    uint32_t top[ACT_SUPER / ACT_GROUP], most = 0;
    for (int g = 0; g < groups; g++) {
        top[g] = _mm512_reduce_max_epu32(_mm512_max_epu32(magnitudes(_mm512_loadu_ps(x + 32 * g)), magnitudes(_mm512_loadu_ps(x + 32 * g + 16))));
        most = MAX(most, top[g]);
    }
    const float super = act_scale(f32_from_bits(most)), inv = super > 0 ? 1.0f / super : 0.0f;
    for (int g = 0; g < groups; g++) {
        const int k = act_shift(super, f32_from_bits(top[g]));
        const float inv_scale = inv * f32_from_bits((uint32_t)(127 + k) << 23);
        if (wide) round_wide(x + 32 * g, inv_scale, k, wide + g * row.T * ACT_GROUP, row.wide.sum + 3 * g * row.T, row.T);
        else quantize_group(x + 32 * g, inv_scale, super, k, row, g);
    }
    if (wide) *row.wide.super = super;
}

/* 64 elements of two groups, x / scale rounded. */
static inline __m512i round_64(const float *x, const float *inv)
{
    const __m512i order = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0); /* the packing goes by 128 bits */
    const __m512 i0 = _mm512_set1_ps(inv[0]), i1 = _mm512_set1_ps(inv[1]);
    const __m512i a = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x), i0)), b = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + 16), i0));
    const __m512i c = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + 32), i1)), d = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + 48), i1));
    return _mm512_permutexvar_epi32(order, _mm512_packs_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d)));
}

/* Sums of each 16 of 256 elements. */
static inline __m512i sums_of_16(const __m512i *q)
{
    const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0), odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    __m512i s[4]; /* of 8 elements plus 8 * 128, in 64 bits */
    UNROLL(4)
    for (int i = 0; i < 4; i++) s[i] = _mm512_sad_epu8(_mm512_xor_si512(q[i], _mm512_set1_epi8(-128)), _mm512_setzero_si512());
    const __m512i a = _mm512_permutex2var_epi32(s[0], even, s[1]), b = _mm512_permutex2var_epi32(s[2], even, s[3]);
    return _mm512_sub_epi32(_mm512_add_epi32(_mm512_permutex2var_epi32(a, even, b), _mm512_permutex2var_epi32(a, odd, b)), _mm512_set1_epi32(16 * 128));
}

/* sum * 2^-k with ACT_SUM_BITS behind the point, the nearest. */
static inline __m512i rounded_sums(__m512i sum, __m512i k)
{
    const __m512i half = _mm512_srli_epi32(_mm512_sllv_epi32(_mm512_set1_epi32(1), k), 1);
    return _mm512_srav_epi32(_mm512_add_epi32(_mm512_slli_epi32(sum, ACT_SUM_BITS), half), k);
}

/* s: sums of the halves of eight groups, sum: of these. */
static inline void put_sums(__m256i k, __m512i twice, __m512i s, __m256i sum, int16_t *to)
{
    const __m512i k8 = _mm512_castsi256_si512(k);
    const __m512i halves = rounded_sums(s, _mm512_permutexvar_epi32(twice, k8)), whole = rounded_sums(_mm512_castsi256_si512(sum), k8);
    _mm256_storeu_si256((void *)to, _mm512_cvtepi32_epi16(_mm512_shuffle_epi32(halves, _MM_PERM_DBCA)));
    _mm_storeu_si128((void *)(to + ACT_EIGHTHS), _mm256_cvtepi32_epi16(_mm512_castsi512_si256(_mm512_shuffle_epi32(whole, _MM_PERM_DBCA))));
}

/* act_put_shifted of eight groups; s: sums of their halves. */
static inline void put_groups(float super, __m256i k, __m512i s, struct act_row row)
{
    const __m512i twice = _mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0);
    const __m512i even = _mm512_slli_epi32(_mm512_set_epi32(7, 6, 5, 4, 3, 2, 1, 0, 7, 6, 5, 4, 3, 2, 1, 0), 1), odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    const __m256 part = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_sub_epi32(_mm256_set1_epi32(127), k), 23));
    const __m256i start = _mm256_sub_epi32(_mm256_set1_epi32(ACT_MAGIC_BITS), _mm256_slli_epi32(k, 23));

    const __m512 parts = _mm512_permutexvar_ps(twice, _mm512_castps256_ps512(part));
    const __m512i scaled = _mm512_castps_si512(_mm512_mul_ps(parts, _mm512_cvtepi32_ps(s)));
    const __m512i inits = _mm512_sub_epi32(_mm512_permutexvar_epi32(twice, _mm512_castsi256_si512(start)), _mm512_slli_epi32(s, 7));
    _Alignas(64) struct act_halves h[8]; /* 0, 2, 4, 6, 1, 3, 5, 7 */
    _mm512_store_si512(h, _mm512_unpacklo_epi64(scaled, inits));
    _mm512_store_si512(h + 4, _mm512_unpackhi_epi64(scaled, inits));
    for (int g = 0; g < 8; g++) row.halves[g * row.T] = h[g / 2 + g % 2 * 4];

    const __m256i sum = _mm512_castsi512_si256(_mm512_add_epi32(_mm512_permutexvar_epi32(even, s), _mm512_permutexvar_epi32(odd, s)));
    if (row.sums) put_sums(k, twice, s, sum, row.sums);
    const __m256 super8 = _mm256_set1_ps(super), scale = _mm256_mul_ps(super8, part), neg = _mm256_mul_ps(_mm256_set1_ps(-ACT_MAGIC), part);
    const __m256 whole = _mm256_mul_ps(part, _mm256_cvtepi32_ps(sum));
    const __m256i init = _mm256_sub_epi32(start, _mm256_slli_epi32(sum, 7));
    _Alignas(32) float head[4][2][4];     /* group 4 j + i at [i][j] */
    _Alignas(32) int32_t tail[2][2][2][2]; /* group 4 j + 2 i + l at [i][j][l] */
    const __m256d lo = _mm256_castps_pd(_mm256_unpacklo_ps(scale, super8)), hi = _mm256_castps_pd(_mm256_unpackhi_ps(scale, super8));
    const __m256d lo2 = _mm256_castps_pd(_mm256_unpacklo_ps(neg, whole)), hi2 = _mm256_castps_pd(_mm256_unpackhi_ps(neg, whole));
    _mm256_store_pd((void *)head[0], _mm256_unpacklo_pd(lo, lo2));
    _mm256_store_pd((void *)head[1], _mm256_unpackhi_pd(lo, lo2));
    _mm256_store_pd((void *)head[2], _mm256_unpacklo_pd(hi, hi2));
    _mm256_store_pd((void *)head[3], _mm256_unpackhi_pd(hi, hi2));
    _mm256_store_si256((void *)tail[0], _mm256_unpacklo_epi32(start, init));
    _mm256_store_si256((void *)tail[1], _mm256_unpackhi_epi32(start, init));
    for (int g = 0; g < 8; g++) {
        memcpy(&row.group[g * row.T], head[g % 4][g / 4], 16);
        memcpy(&row.group[g * row.T].start, tail[g / 2 % 2][g / 4][g % 2], 8);
    }
}

static inline void round_super(const float *x, const float *inv, float super, __m256i k, struct act_row row)
{
    __m512i q[4];
    UNROLL(4)
    for (int i = 0; i < 4; i++) q[i] = round_64(x + 64 * i, inv + 2 * i);
    put_groups(super, k, sums_of_16(q), row);
    if (row.T == 1) {
        memcpy(row.q, q, sizeof q);
        return;
    }
    uint32_t word[ACT_SUPER / 4];
    memcpy(word, q, sizeof word);
    for (int i = 0; i < ACT_SUPER / 4; i++) memcpy(row.q + i * row.T * 4, &word[i], 4);
}

/* A stretch in its wide form. */
static inline void round_wide_super(const float *x, const float *inv, float super, __m256i k, uint16_t *to, struct act_wide row, int T)
{
    enum { GROUPS = ACT_SUPER / ACT_GROUP };
    _Alignas(32) int shift[GROUPS];
    _mm256_store_si256((void *)shift, k);
    for (int g = 0; g < GROUPS; g++) round_wide(x + 32 * g, inv[g], shift[g], to + g * T * ACT_GROUP, row.sum + 3 * g * T, T);
    *row.super = super;
}

static void quantize_avx512(const float *x, int n, struct act_row row)
{
    enum { GROUPS = ACT_SUPER / ACT_GROUP, AHEAD = 4 }; /* scales of AHEAD stretches first: each is a long chain of divisions */
    const int in = n;
    int s = 0;
    while (n >= ACT_SUPER) {
        const int m = MIN(n / ACT_SUPER, AHEAD);
        _Alignas(32) float super[AHEAD], inv[AHEAD][GROUPS];
        _Alignas(32) __m256i k[AHEAD];
        for (int i = 0; i < m; i++) {
            const __m256i top = tops(x + i * ACT_SUPER);
            super[i] = act_scale(f32_from_bits(_mm512_reduce_max_epu32(_mm512_castsi256_si512(top))));
            k[i] = shifts(super[i], top);
            const __m256 one_by = _mm256_set1_ps(super[i] >= 0x1p-126f ? 1.0f / super[i] : 0.0f);
            _mm256_store_ps(inv[i], _mm256_mul_ps(one_by, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_set1_epi32(127), k[i]), 23))));
        }
        if (row.wide.q) {
            for (int i = 0; i < m; i++, s++, n -= ACT_SUPER, x += ACT_SUPER, row.wide.sum += 3 * GROUPS * row.T, row.wide.super += row.T)
                round_wide_super(x, inv[i], super[i], k[i], act_wide_at(&row.wide, in, row.n, row.t0, s), row.wide, row.T);
            continue;
        }
        for (int i = 0; i < m; i++, n -= ACT_SUPER, x += ACT_SUPER, row.group += GROUPS * row.T, row.halves += GROUPS * row.T, row.q += ACT_SUPER * row.T) {
            round_super(x, inv[i], super[i], k[i], row);
            if (row.sums) row.sums += row.T * ACT_SUMS;
        }
    }
    if (n >= ACT_GROUP) quantize_rest(x, n / ACT_GROUP, row, row.wide.q ? act_wide_at(&row.wide, in, row.n, row.t0, s) : NULL);
}

/* Of 16 numbers, those of pairs in the lower half. */
static inline __m256i sums_of_two(__m512i v)
{
    const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0), odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    return _mm512_castsi512_si256(_mm512_add_epi32(_mm512_permutexvar_epi32(even, v), _mm512_permutexvar_epi32(odd, v)));
}

/* Sums of the sixteenths and eighths of a stretch, and what stands on top of seven bits of them. */
static inline void put_stretch(struct act_stretch *to, float super, __m512i sum)
{
    const __m256i sum8 = sums_of_two(sum);
    _mm512_storeu_si512(to->sum, sum);
    _mm256_storeu_si256((void *)(to->sum + 16), sum8);
    _mm_storeu_si128((void *)to->high, _mm512_cvtepi32_epi8(_mm512_srai_epi32(sum, 7)));
    _mm_storeu_si128((void *)to->low, _mm512_cvtepi32_epi8(_mm512_and_si512(sum, _mm512_set1_epi32(127))));
    _mm_storel_epi64((void *)(to->high + 16), _mm256_cvtepi32_epi8(_mm256_srai_epi32(sum8, 7)));
    _mm_storel_epi64((void *)(to->low + 16), _mm256_cvtepi32_epi8(_mm256_and_si256(sum8, _mm256_set1_epi32(127))));
    to->super = super;
}

static void quantize_whole(const float *x, int n, struct act_whole_row row)
{
    for (; n > 0; n -= ACT_SUPER, x += ACT_SUPER) {
        __m512i top = magnitudes(_mm512_loadu_ps(x));
        UNROLL(15)
        for (int i = 1; i < ACT_SUPER / 16; i++) top = _mm512_max_epu32(top, magnitudes(_mm512_loadu_ps(x + 16 * i)));
        const float super = act_scale(f32_from_bits(_mm512_reduce_max_epu32(top)));
        const float one_by = super >= 0x1p-126f ? 1.0f / super : 0.0f, inv[2] = {one_by, one_by};
        __m512i q[4];
        UNROLL(4)
        for (int i = 0; i < 4; i++) q[i] = round_64(x + 64 * i, inv);
        const __m512i sum = sums_of_16(q);
        if (row.n) {
            for (int i = 0; i < 4; i++) _mm512_storeu_si512(row.at.q + i * row.T * 64, q[i]);
            _mm256_storeu_si256((void *)row.at.sum, _mm512_cvtepi32_epi16(sum));
            _mm_storeu_si128((void *)(row.at.sum + 16), _mm256_cvtepi32_epi16(sums_of_two(sum)));
            *row.at.super = super;
            row.at.q += row.n * ACT_SUPER;
            row.at.sum += row.n * 32;
            row.at.super += row.n;
            continue;
        }
        put_stretch(row.at.stretch, super, sum);
        uint32_t word[ACT_SUPER / 4];
        memcpy(word, q, sizeof word);
        if (row.T == 1) memcpy(row.at.q, word, sizeof word);
        else
            for (int i = 0; i < ACT_SUPER / 4; i++) memcpy(row.at.q + i * row.T * 4, &word[i], 4);
        row.at.q += row.T * ACT_SUPER;
        row.at.stretch += row.T;
    }
}

/* Pairs (a, b) that lie side by side, as their factors do: (a c - b s, b c + a s). */
static void rope_pairs(float *x, const float *cos_sin, const struct rope *r)
{
    for (int h = 0; h < r->n_heads; h++, x += r->head_dim) {
        for (int i = 0; i < r->n_rot; i += 16) {
            const __mmask16 m = (__mmask16)(r->n_rot - i >= 16 ? 0xffff : (1 << (r->n_rot - i)) - 1);
            const __m512 f = _mm512_maskz_loadu_ps(m, cos_sin + i), v = _mm512_maskz_loadu_ps(m, x + i);
            const __m512 crossed = _mm512_mul_ps(_mm512_permute_ps(v, 0xb1), _mm512_movehdup_ps(f));
            _mm512_mask_storeu_ps(x + i, m, _mm512_fmaddsub_ps(v, _mm512_moveldup_ps(f), crossed));
        }
    }
}

/* Pairs half a row apart. */
static void rope_halves(float *x, const float *cos_sin, const struct rope *r)
{
    const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0), odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    const int half = r->n_rot / 2;
    for (int i = 0; i < half; i += 16) {
        const int n = MIN(half - i, 16);
        const __mmask16 m = (__mmask16)((1 << n) - 1), m0 = (__mmask16)(n >= 8 ? 0xffff : (1 << 2 * n) - 1), m1 = (__mmask16)(n > 8 ? (1 << 2 * (n - 8)) - 1 : 0);
        const __m512 f0 = _mm512_maskz_loadu_ps(m0, cos_sin + 2 * i), f1 = _mm512_maskz_loadu_ps(m1, cos_sin + 2 * i + 16);
        const __m512 c = _mm512_permutex2var_ps(f0, even, f1), s = _mm512_permutex2var_ps(f0, odd, f1);
        float *a = x + i, *b = a + half;
        for (int h = 0; h < r->n_heads; h++, a += r->head_dim, b += r->head_dim) {
            const __m512 va = _mm512_maskz_loadu_ps(m, a), vb = _mm512_maskz_loadu_ps(m, b);
            _mm512_mask_storeu_ps(a, m, _mm512_fmsub_ps(va, c, _mm512_mul_ps(vb, s)));
            _mm512_mask_storeu_ps(b, m, _mm512_fmadd_ps(vb, c, _mm512_mul_ps(va, s)));
        }
    }
}

static void rope_avx512(float *x, const float *cos_sin, const struct rope *r)
{
    (r->style == ROPE_HALVES ? rope_halves : rope_pairs)(x, cos_sin, r);
}

/* 1 / (1 + e^-x) */
static inline __m512 sigmoid(__m512 x)
{
    const __m512 one = _mm512_set1_ps(1.0f);
    const __m512 d = _mm512_add_ps(one, avx512_exp(_mm512_sub_ps(_mm512_setzero_ps(), x)));
    const __m512 r = _mm512_rcp14_ps(d); /* one Newton step: 2^-14 becomes 2^-24 or so */
    return _mm512_mul_ps(r, _mm512_fnmadd_ps(d, r, _mm512_set1_ps(2.0f)));
}

#define FAR 2048 /* bytes ahead: of many tokens, rows come from the L3 cache or memory */

static void glu_avx512(float *dst, const float *gate, const float *up, int n, enum activation f)
{
    if (f != ACTIVATION_SILU) {
        glu(dst, gate, up, n, f);
        return;
    }
    for (int i = 0; i < n; i += 16) {
        _mm_prefetch((const char *)(gate + i) + FAR, _MM_HINT_T0);
        _mm_prefetch((const char *)(up + i) + FAR, _MM_HINT_T0);
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
    k->act_sums = true;
    k->quantize = quantize_avx512;
    k->quantize_whole = quantize_whole;
    k->rope = rope_avx512;
    k->glu = glu_avx512;
    if (avx512_reading() == READ_SIDE) {
        k->side[ACTS_INT8] = k->side[ACTS_INT8_WHOLE] = AVX512_SIDE * PANEL;
        for (int i = ACTS_F32_TILES; i < ACTS_N; i++) k->side[i] = AVX512_FLOAT_SIDE * PANEL; /* kinds of floats */
    }
    k->apart = avx512_reading() == READ_APART;
    k->ahead = avx512_int_ahead;
    k->attend = avx512_attend;
    k->attend_scratch_bytes = avx512_attend_scratch_bytes;
}
