/* What the files of the AVX-512 tier share. */
#ifndef BACKEND_CPU_AVX512_H
#define BACKEND_CPU_AVX512_H

#include "backend/cpu/cpu.h"
#include "backend/cpu/pack.h"

#include <immintrin.h>

/* How a single token's product reads memory, by measurement (bench/NOTES.md). Zen 4: panels far from each other, line by line in turns, which its
 * prefetchers follow by themselves. Other cores of AMD: one panel after the other, asking for lines far ahead. Intel's (Sapphire Rapids), whose
 * prefetchers serve a stream too slowly: panels side by side, a few KiB of each ahead. */
enum avx512_reading { READ_APART, READ_ONE, READ_SIDE };
static inline enum avx512_reading avx512_reading(void)
{
    return !__builtin_cpu_is("amd") ? READ_SIDE : __builtin_cpu_is("amdfam19h") ? READ_APART : READ_ONE;
}
#define AVX512_APART 2 /* panels at a time, READ_APART */
#define AVX512_SIDE 4 /* those of READ_SIDE */
#define AVX512_FLOAT_SIDE 8 /* those of floats, which need fewer registers */

/* Which of panels [panel0, panel1), and behind them where rows are apart, a single token meets at a time: `side` of them, beside or far
 * from each other: the one that the turn begins with and the next ones `apart` on, before `end`. */
struct avx512_turns {
    int n, step, apart, end;
};
static inline struct avx512_turns avx512_turns(const struct cpu_matmul *m, int panel0, int panel1, int side, bool far)
{
    const int n = panel1 - panel0, turns = (n + side - 1) / side;
    if (!far) return (struct avx512_turns){turns, side, 1, panel1};
    if (!m->apart) return (struct avx512_turns){turns, 1, turns, panel1};
    return (struct avx512_turns){n, 1, m->apart / PANEL, (m->end + PANEL - 1) / PANEL};
}

static inline __m512 load_f16(const uint8_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p)); }
/* One half of 16 pairs of BF16, widened. */
static inline __m512 bf16_of_pair(__m512i v, int second)
{
    return _mm512_castsi512_ps(second ? _mm512_and_si512(v, _mm512_set1_epi32((int)0xffff0000u)) : _mm512_slli_epi32(v, 16));
}

/* ---- integer weights ---- */

/* Types with a packed layout of integers: X(ENUM, name). */
#define AVX512_INT_TYPES(X)                                                                                                        \
    X(Q4_0, q4_0) X(Q4_1, q4_1) X(Q5_0, q5_0) X(Q5_1, q5_1) X(Q8_0, q8_0) X(Q2_K, q2_k) X(Q3_K, q3_k) X(Q4_K, q4_k) X(Q5_K, q5_k)     \
    X(Q6_K, q6_k) X(IQ4_NL, iq4_nl) X(IQ4_XS, iq4_xs) X(MXFP4, mxfp4)

struct avx512_int_kind {
    int group;      /* 16 or 32; 0: not a block type */
    bool has_min;   /* values are then unsigned as they are, else 128 was added */
    bool whole_min; /* minima are integers times one float per ACT_SUPER elements */
    bool packed;
};
struct avx512_int_kind avx512_int_kind(enum tensor_type type);

/* 32 rows of n <= AVX512_CHUNK elements, unpacked. */
#define AVX512_CHUNK 512 /* 16 KiB of values stay in L1 while all tokens pass by */
struct avx512_chunk {
    uint8_t *w;     /* [k4][2][16 rows][4] */
    float *ws, *wm; /* [group][2][16 rows]; whole minima: for each stretch pairs of int16 [pair of groups][2][16], as acts' sums, then scales [2][16] */
};
#define AVX512_MIN_PAIRS(group) (ACT_SUPER / (group) / 2)
#define AVX512_MIN_STRETCH(group) ((AVX512_MIN_PAIRS(group) + 1) * 32) /* words of a stretch */
void avx512_int_unpack(const struct cpu_matmul *m, int row, int k0, int n, const struct avx512_chunk *c);
/* One token against packed weights; false: not this case. The arithmetic of one token among many, in the same order. */
bool avx512_int_gemv(const struct cpu_matmul *m, int row0, int row1);
size_t avx512_int_ahead(const struct cpu_matmul *m);

/* ---- the same with integer scales (ACTS_INT8_WHOLE) ---- */

/* Types with one scale in floats per ACT_SUPER elements, and integers for the groups in it: X(ENUM, name). */
#define AVX512_WHOLE_TYPES(X) X(Q2_K, q2_k) X(Q3_K, q3_k) X(Q4_K, q4_k) X(Q5_K, q5_k) X(Q6_K, q6_k) X(IQ4_XS, iq4_xs)

/* ACT_SUPER elements of 32 rows, unpacked. A weight is d * scale * w - dmin * min, or, in a type without minima, d * scale * (w - 128). */
struct avx512_whole {
    _Alignas(64) uint8_t w[ACT_SUPER / 4][2][64]; /* [k4][half][16 rows][4] */
    int32_t scale[16][2][16];                    /* [group][half] */
    uint32_t min[4][2][16];                      /* [group / 4][half], a byte for each group */
    float d[2][16], dmin[2][16];
};
void avx512_whole_unpack(const struct cpu_matmul *m, int row, int k0, struct avx512_whole *to);

/* The same elements of one panel with scale * w = 128 high + low, each 8 bits; minima of two groups beside each other. */
struct avx512_parts {
    _Alignas(64) int8_t w[4][2][16][64]; /* [of 64 elements][high, low][k4][16 rows][4] */
    int16_t min[8][16][2];               /* [of two groups][16 rows] */
    float d[16], dmin[16];
};
void avx512_whole_split(const struct cpu_matmul *m, int row, int k0, struct avx512_parts *to);
void avx512_whole_gemv(const struct cpu_matmul *m, int row0, int row1); /* one token */

/* The exact sum of minima, four to a word, times sums of activations. */
static inline __attribute__((always_inline)) __m512i avx512_whole_minima(const struct act_stretch *a, const __m512i *min, const int GROUP)
{
    const int from = GROUP == 16 ? 0 : 16;
    __m512i high = _mm512_setzero_si512(), low = high;
    UNROLL(4)
    for (int i = 0; i < ACT_SUPER / GROUP / 4; i++) {
        int32_t h, l;
        memcpy(&h, a->high + from + 4 * i, 4);
        memcpy(&l, a->low + from + 4 * i, 4);
        high = _mm512_dpbusd_epi32(high, min[i], _mm512_set1_epi32(h));
        low = _mm512_dpbusd_epi32(low, min[i], _mm512_set1_epi32(l));
    }
    return _mm512_add_epi32(_mm512_slli_epi32(high, 7), low);
}

/* Outputs c and what a stretch adds to them, from its exact sums (see whole_amx.c); one formula for one token, few and many. */
static inline __attribute__((always_inline)) __m512 avx512_whole_add(__m512 c, __m512i sum, __m512 d, __m512i minima, __m512 dmin, float super, const bool HAS_MIN)
{
    __m512 x = _mm512_mul_ps(_mm512_cvtepi32_ps(sum), d);
    if (HAS_MIN) x = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(minima), dmin, x);
    return _mm512_fmadd_ps(x, _mm512_set1_ps(super), c);
}

static inline __mmask16 avx512_row_mask(const struct cpu_matmul *m, int row)
{
    int n = m->out - row;
    return (__mmask16)(n >= 16 ? 0xffff : n <= 0 ? 0 : (1 << n) - 1);
}

static inline void avx512_store_row(const struct cpu_matmul *m, int t, int row, __m512 c)
{
    __mmask16 mask = avx512_row_mask(m, row);
    if (m->bias && mask) c = _mm512_add_ps(c, _mm512_maskz_loadu_ps(mask, m->bias + row));
    _mm512_mask_storeu_ps(m->y + (size_t)t * (size_t)m->out + (size_t)row, mask, c);
}

/* Asks for the memory where avx512_store_row is going to put rows [row, row + 32) of n tokens from t0 on. */
static inline void avx512_ask_rows(const struct cpu_matmul *m, int t0, int n, int row)
{
    const float *y = m->y + (size_t)t0 * (size_t)m->out + (size_t)row;
    for (int t = 0; t < n; t++, y += m->out) __builtin_prefetch(y, 1), __builtin_prefetch(y + 16, 1);
}

const struct cpu_format *avx512_int_format(enum tensor_type type);   /* int8 activations; NULL: not a block type */
const struct cpu_format *avx512_float_format(enum tensor_type type, kg_activations activations); /* f32 or bf16 activations */

/* e^x as exp_fast of the plain C kernels. */
static inline __m512 avx512_exp(__m512 x)
{
    x = _mm512_min_ps(_mm512_set1_ps(88.0f), _mm512_max_ps(_mm512_set1_ps(-87.0f), x)); /* this order keeps NaN */
    const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), 0);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x), p = _mm512_set1_ps(1.9875691500e-4f);
    r = _mm512_fmadd_ps(n, _mm512_set1_ps(2.12194440e-4f), r);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999507e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1f));
    p = _mm512_fmadd_ps(p, _mm512_mul_ps(r, r), _mm512_add_ps(r, _mm512_set1_ps(1.0f)));
    return _mm512_scalef_ps(p, n);
}

size_t avx512_attend_scratch_bytes(int n_rows, int k_dim, int v_dim);
void avx512_attend(const struct cpu_attend *a);

#endif
