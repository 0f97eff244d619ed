/* The CPU engine's own types: kernel table, weight formats, prepared activations, KV layout.
 *
 * A tier (plain C, AVX2, AVX-512, AMX, NEON) is a struct cpu_kernels. cpu_kernels_generic fills every entry; better tiers start
 * from it and overwrite. Every kernel computes one token's result the same way whatever the batch, so results do not
 * depend on batch size, prompt chunking or number of threads. */
#ifndef BACKEND_CPU_CPU_H
#define BACKEND_CPU_CPU_H

#include "backend/backend.h"

#define ACT_GROUP 32 /* activations share one scale per this many elements */
#define PANEL 16     /* rows that packed formats interleave; matmul work is split at multiples of it */

/* What a matmul reads of its input register besides the plain rows; made once per register, used by every matmul that wants it. */
enum acts_kind {
    ACTS_ROWS, /* float [n][in]: the register itself */
    ACTS_INT8,
    ACTS_F32_TILES,
    ACTS_BF16_TILES,
    ACTS_N
};

/* Tokens lie in tiles, the last one smaller, so that a kernel reads a tile as one stream. A tile that starts with token t0 and has
 * T tokens is, from the array's start + t0 * row,
 *   q [in / 4][T][4], group and halves [in / ACT_GROUP][T]: x ~ scale * q, and what else a kernel wants to know of a group, computed
 *                                                           once here and not per weight
 *   f32 [in][T]; bf16 [in / 2][T][2], pairs of elements
 * A tier with matrix units (cpu_kernels.act_wide) has int8 activations of ACT_WIDE_LEAST tokens and more in a form of their own, in tiles of
 * ACT_WIDE_TILE:
 *   wide.q [stretches of ACT_SUPER][tiles][groups of a stretch][T][ACT_GROUP] in the order of ACT_WIDE_INDEX: x ~ super * q, where q is the
 *     rounded value times its group's part (see below), as bf16: exact, for it has 7 bits. A stretch of all tokens is in one piece, for tiles at
 *     powers of two would fall into few sets of the L2 cache
 *   and from t0 * row on wide.sum [in / ACT_GROUP][3][T] of q, of the group and its halves; wide.super [stretches][T] */
#define ACT_TILE 6
#define ACT_FLOAT_TILE 12
#define ACT_WIDE_TILE 16
#define ACT_WIDE_LEAST 16
struct act_wide {
    uint16_t *q;
    float *sum, *super;
};
struct cpu_acts {
    int8_t *q;
    struct act_group *group;
    struct act_halves *halves;
    float *f32;
    uint16_t *bf16;
    struct act_wide wide; /* NULL: the tier has none */
};
#define ACT_MAGIC 12582912.0f /* 1.5 * 2^23: the float whose bits, plus a small integer i, are those of 1.5 * 2^23 + i */
#define ACT_MAGIC_BITS 0x4b400000
/* scale = super * part. A tier either has super = 1, or one super per ACT_SUPER elements and parts that are powers of two, 2^-k: then its
 * sums start k exponents lower, which scales them by part for nothing, and one multiplication by super serves the whole stretch. */
#define ACT_SUPER 256
#define ACT_MAX_SHIFT 16 /* k at most */
struct act_group {
    float scale;      /* at most 20 significant bits, so that ACT_MAGIC * part is exact */
    float super;
    float neg_magic;  /* -ACT_MAGIC * part */
    float sum_scaled; /* part * sum of q */
    int32_t start;    /* where an integer sum starts: ACT_MAGIC_BITS, less k exponents */
    int32_t init;     /* start - 128 * sum of q: cancels the offset of values stored as q + 128 */
};
struct act_halves { /* the same for the two halves of 16 */
    float sum_scaled[2];
    int32_t init[2];
};

/* The scale of a group whose largest magnitude is top: never smaller than top / 127; NaN stays NaN. */
static inline float act_scale(float top) { return f32_from_bits((f32_bits(top / 127.0f) + 15u) & ~15u); }

static inline void act_put_sums(struct act_group *g, struct act_halves *h, float scale, int sum0, int sum1)
{
    *g = (struct act_group){scale, 1, -ACT_MAGIC * scale, scale * (float)(sum0 + sum1), ACT_MAGIC_BITS, ACT_MAGIC_BITS - 128 * (sum0 + sum1)};
    *h = (struct act_halves){{scale * (float)sum0, scale * (float)sum1}, {ACT_MAGIC_BITS - 128 * sum0, ACT_MAGIC_BITS - 128 * sum1}};
}

/* How many exponents below super a group with this largest magnitude may go: the most with top <= 127 * super * 2^-k. */
static inline int act_shift(float super, float top)
{
    const float ratio = top / 127.0f / super; /* NaN and numbers near the end of the range: no shift */
    if (!(super > 0x1p-100f) || !(ratio <= 1)) return 0;
    const uint32_t bits = f32_bits(ratio);
    return MIN(127 - (int)((bits + 0x7fffffu) >> 23), ACT_MAX_SHIFT);
}

/* As act_put_sums, for scale = super * 2^-k. */
static inline void act_put_shifted(struct act_group *g, struct act_halves *h, float super, int k, int sum0, int sum1)
{
    const float part = f32_from_bits((uint32_t)(127 - k) << 23);
    const int32_t start = ACT_MAGIC_BITS - (k << 23);
    *g = (struct act_group){super * part, super, -ACT_MAGIC * part, part * (float)(sum0 + sum1), start, start - 128 * (sum0 + sum1)};
    *h = (struct act_halves){{part * (float)sum0, part * (float)sum1}, {start - 128 * sum0, start - 128 * sum1}};
}

/* Where element i of a group of 32 lies in its wide form: 0 2 1 3 4 6 5 7 ..., so that four bytes of a weight widen without a permutation. */
#define ACT_WIDE_INDEX(i) (((i) & ~3) + ((i) & 1) * 2 + ((i) >> 1 & 1))
static inline int act_stretches(int in) { return (in + ACT_SUPER - 1) / ACT_SUPER; }
static inline bool acts_are_wide(const struct cpu_acts *a, int n) { return a->wide.q && n >= ACT_WIDE_LEAST; }

/* Where stretch s of the tile that begins with token t0 of n lies. */
static inline uint16_t *act_wide_at(const struct act_wide *a, int in, int n, int t0, int s)
{
    return a->q + (size_t)s * ACT_SUPER * (size_t)n + (size_t)t0 * (size_t)MIN(ACT_SUPER, in - s * ACT_SUPER);
}

/* Where token t of n lies: element 4 i + b at q[i * T * 4 + b], group g at group[g * T]; or, if wide.q, group g of stretch s at
 * act_wide_at(&wide, in, n, t0, s)[g * T * ACT_GROUP], group g's sums at wide.sum[(3 g + i) * T], stretch s at wide.super[s * T]. */
struct act_row {
    int8_t *q;
    struct act_group *group;
    struct act_halves *halves;
    int T;
    struct act_wide wide;
    int n, t0; /* wide */
};
static inline struct act_row act_row_wide(const struct cpu_acts *a, int in, int n, int t)
{
    const size_t t0 = (size_t)(t / ACT_WIDE_TILE * ACT_WIDE_TILE), i = (size_t)t - t0;
    const struct act_wide w = {a->wide.q + i * ACT_GROUP, a->wide.sum + t0 * (size_t)(in / ACT_GROUP) * 3 + i,
                               a->wide.super + t0 * (size_t)act_stretches(in) + i};
    return (struct act_row){.T = MIN(ACT_WIDE_TILE, n - (int)t0), .wide = w, .n = n, .t0 = (int)t0};
}
static inline struct act_row act_row(const struct cpu_acts *a, int in, int n, int t)
{
    if (acts_are_wide(a, n)) return act_row_wide(a, in, n, t);
    const size_t t0 = (size_t)(t / ACT_TILE * ACT_TILE), units = (size_t)(in / ACT_GROUP), i = (size_t)(t % ACT_TILE);
    return (struct act_row){a->q + t0 * (size_t)in + 4 * i, a->group + t0 * units + i, a->halves + t0 * units + i, MIN(ACT_TILE, n - (int)t0), {0}, 0, 0};
}

/* e^x without branches, so that loops over it vectorise: x = n ln 2 + r, |r| <= ln 2 / 2, a polynomial for e^r, n into the exponent.
 * Within 2 ulp on [-87, 88]; saturates outside to 1.6e-38 and 1.7e38; coefficients: Cephes expf. */
static inline float exp_fast(float x)
{
    x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    const float shift = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    const float shifted = x * 1.44269504f + shift, n = shifted - shift;
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    return p * f32_from_bits((f32_bits(shifted) << 23) + 0x3f800000u); /* n stands in the lowest bits of `shifted`; a NaN stays one */
}

/* p[n]: scores of a head for the positions from pos on -> what the job makes of them; at: the token's own position. */
static inline void attend_adjust(float *p, int n, float softcap, float slope, int pos, int at)
{
    if (softcap > 0) {
        const float inv = 2.0f / softcap;
        for (int j = 0; j < n; j++) p[j] = softcap * (1.0f - 2.0f / (exp_fast(p[j] * inv) + 1.0f)); /* tanh u = 1 - 2 / (e^2u + 1) */
    }
    if (slope > 0)
        for (int j = 0; j < n; j++) p[j] -= slope * (float)(at - pos - j);
}

struct cpu_format;

/* One matmul: y[t][o] = sum_i w(o)[i] x[t][i] + bias[o]. */
struct cpu_matmul {
    const struct cpu_format *format;
    const struct tensor *tensor;
    const void *packed; /* the tensor in the format's own layout; NULL if it uses the file's rows */
    int in, out, n;
    const float *x; /* ACTS_ROWS */
    struct cpu_acts acts;
    const float *bias;  /* [out] or NULL */
    float *y;           /* [n][out] */
    void *scratch;      /* this thread's, format->scratch_bytes(in, max_batch) */
    /* single tokens: packed bytes that this thread reads after these rows, NULL: unknown; of these, how many have been asked for */
    const uint8_t *then;
    size_t asked;
};

/* How a tensor type is kept in memory and multiplied. */
struct cpu_format {
    const char *name;
    enum acts_kind acts;
    /* Bytes of the packed tensor; NULL: the file's rows are used in place. */
    size_t (*packed_bytes)(int64_t rows, int64_t in);
    /* Packs rows [row0, row1) of t; row0 is a multiple of PANEL. */
    void (*pack)(void *packed, const struct tensor *t, int64_t row0, int64_t row1);
    size_t (*scratch_bytes)(int in, int max_n);
    /* Computes outputs [row0, row1) for all tokens; row0 is a multiple of 2 * PANEL, and so is row1 unless it is the end. */
    void (*run)(const struct cpu_matmul *m, int row0, int row1);
};

/* KV memory: a block holds KV_BLOCK positions of every layer. Per layer, K is kept transposed, [n_kv_heads][k_dim][KV_BLOCK], so
 * that positions are vector lanes when scores are computed; V is [n_kv_heads][KV_BLOCK][v_dim]. For Q8_0 both are int8 with
 * one f32 scale per position and KV_GROUP elements behind them: K [n_kv_heads][k_groups][KV_BLOCK], V [n_kv_heads][KV_BLOCK][v_groups]. */
#define KV_GROUP 32
struct cpu_kv_layout {
    kg_kv_type type;
    int n_kv_heads, k_dim, v_dim, k_groups, v_groups;
    size_t k_offset, v_offset, k_scale_offset, v_scale_offset; /* bytes from the start of a block */
};

/* Attention of a few tokens of one sequence, at consecutive positions, for the n_q heads that share one KV head. What a token
 * gets does not depend on the tokens beside it. */
struct cpu_attend {
    const struct cpu_kv_layout *kv;
    uint8_t *const *blocks; /* addresses of the sequence's KV blocks */
    int kv_head, n_q, n_tokens;
    int n_pos;              /* up to the first token: 0 .. n_pos - 1; the next one stands one further */
    int n_all;              /* 0: a token sees nothing behind itself; else its sequence has this many positions and it may see them all */
    float scale, softcap;   /* softcap 0: none */
    int window;             /* as in struct attention */
    bool chunked;
    const float *slopes;    /* [n_q] taken off a score per position of distance; NULL: none */
    const float *sinks;     /* [n_q] one more score each, whose value is 0; NULL: none */
    const float *q;         /* token t: [n_q][k_dim] at q + t * q_stride */
    float *out;             /* token t: [n_q][v_dim] at out + t * out_stride */
    size_t q_stride, out_stride;
    float *scratch;         /* this thread's, see attend_scratch_bytes */
};

/* The positions that the t-th token of a job sees are [*from, returned); both grow with t. */
static inline int attend_range(const struct cpu_attend *a, int t, int *from)
{
    const int pos = a->n_pos + t - 1, behind = a->n_all ? a->window / 2 : a->chunked && a->window > 0 ? pos % a->window : a->window - 1;
    *from = a->window > 0 ? MAX(0, pos - behind) : 0;
    return !a->n_all ? pos + 1 : a->window > 0 ? MIN(pos + behind + 1, a->n_all) : a->n_all;
}

/* What a step with a state does for some of its channels or heads, [first, end), and one token. */
struct cpu_state_job {
    const struct op *op;
    const float *w, *b;          /* as f32 */
    int first, end;
    const float *x, *x1, *x2;    /* the token's rows of src[0..3) */
    float *y;                    /* of dst */
    float *state;                /* what the operation has of the state of the token's sequence */
    float *scratch;              /* this thread's: the widest register */
};

struct cpu_kernels {
    const char *tier;
    bool act_wide;  /* int8 activations of many tokens are wanted in their wide form */
    int act_excess; /* how many times larger than its largest magnitude asks for the scale of an int8 group may be: 1 or 2 */
    void (*rms_norm)(float *dst, const float *x, const float *w, const float *b, int n, float eps); /* w, b may be NULL */
    void (*layer_norm)(float *dst, const float *x, const float *w, const float *b, int n, float eps);
    void (*rope)(float *x, const float *cos_sin, const struct rope *r); /* one token; cos_sin [n_rot/2][2] */
    void (*act)(float *dst, const float *x, int n, enum activation f);
    void (*glu)(float *dst, const float *gate, const float *up, int n, enum activation f);
    void (*add)(float *dst, const float *a, const float *b, int n);
    void (*mul)(float *dst, const float *a, const float *b, int n);
    void (*lerp)(float *dst, const float *a, const float *b, const float *w, int n); /* a + b w */
    void (*scale)(float *dst, const float *x, int n, float factor);
    void (*softcap)(float *dst, const float *x, int n, float cap);
    void (*xielu)(float *dst, const float *x, int n, const struct xielu *f);
    void (*clamp)(float *dst, const float *x, int n, float most);
    void (*add_scaled)(float *dst, const float *x, int n, float factor); /* dst += factor * x */
    void (*quantize)(const float *x, int n, struct act_row row); /* n a multiple of ACT_GROUP */
    void (*tile_f32)(const float *x, int n, float *dst, int T);     /* dst[i * T] */
    void (*tile_bf16)(const float *x, int n, uint16_t *dst, int T); /* dst[i / 2 * T * 2 + i % 2] */
    void (*kv_store)(const struct cpu_kv_layout *kv, uint8_t *block, int slot, int head, const float *k, const float *v); /* k, v: of the head */
    void (*attend)(const struct cpu_attend *a);
    size_t (*attend_scratch_bytes)(int n_rows, int k_dim, int v_dim); /* n_rows: n_q * n_tokens at most */
    void (*conv)(const struct cpu_state_job *j);
    void (*scan)(const struct cpu_state_job *j);
    void (*delta)(const struct cpu_state_job *j);
    void (*wkv)(const struct cpu_state_job *j);
    const struct cpu_format *(*format)(enum tensor_type type, kg_activations activations);
    int one_rows; /* how many rows a single token's product takes side by side: a multiple of 2 * PANEL */
    size_t (*ahead)(const struct cpu_matmul *m); /* how far ahead of a single token's product packed bytes are asked for; may be NULL */
};

void cpu_kernels_generic(struct cpu_kernels *k);
void cpu_kernels_avx2(struct cpu_kernels *k);
void cpu_kernels_avx512(struct cpu_kernels *k);
void cpu_kernels_amx(struct cpu_kernels *k);
void cpu_kernels_neon(struct cpu_kernels *k);
void cpu_kernels_i8mm(struct cpu_kernels *k);

/* Tiers of this build, worst first; NULL past the end. */
const char *cpu_tier_name(size_t i);
bool cpu_tier_supported(size_t i); /* by this processor */
/* The best tier of this processor; KAGARI_CPU=generic|avx2|avx512|amx|neon|... in the environment forces a lower one. */
kg_status cpu_kernels_choose(struct cpu_kernels *k);

#endif
