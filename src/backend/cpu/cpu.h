/* The CPU engine's own types: kernel table, weight formats, KV layout. Prepared activations: acts.h.
 *
 * A tier (plain C, AVX2, VNNI, AVX-512, AMX, NEON) is a struct cpu_kernels. cpu_kernels_generic fills every entry; better tiers start
 * from it and overwrite. Every kernel computes one token's result the same way whatever the batch, so results do not
 * depend on batch size, prompt chunking or number of threads. */
#ifndef BACKEND_CPU_CPU_H
#define BACKEND_CPU_CPU_H

#include "backend/backend.h"
#include "backend/cpu/acts.h"
#include "base/unroll.h"

#define PANEL 16     /* rows that packed formats interleave; matmul work is split at multiples of it */

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
    int t0, t1; /* tokens [t0, t1) of n are multiplied; t0 is a multiple of ACT_PART */
    const float *x; /* ACTS_ROWS */
    struct cpu_acts acts;
    const float *bias;  /* [out] or NULL */
    float *y;           /* [n][out] */
    void *scratch;      /* this thread's, format->scratch_bytes(in, max_batch) */
    /* single tokens: packed bytes that this thread reads after these rows, NULL: unknown; of these, how many have been asked for */
    const uint8_t *then;
    size_t asked;
    int apart, end; /* apart > 0: a single token meets rows [row0 + apart, row1 + apart), as far as they are before `end`, at the same time */
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
    /* Computes outputs [row0, row1) for all tokens; row0 is a multiple of 2 * PANEL (of PANEL where rows are apart), and so is row1 unless it is the end. */
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
    bool act_sums;  /* those of tiles with integers as sums, too */
    bool act_pairs; /* and with sums of pairs */
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
    void (*quantize_whole)(const float *x, int n, struct act_whole_row row); /* n a multiple of ACT_SUPER; NULL: no format of the tier asks for it */
    void (*tile_f32)(const float *x, int n, float *dst, int T);     /* dst[i * T] */
    void (*tile_bf16)(const float *x, int n, uint16_t *dst, int T); /* dst[i / 2 * T * 2 + i % 2] */
    /* dst[((i / 32) * parts + part) * T * 32 + i % 32], zeros up to a multiple of 32; NULL: no format of the tier asks for it */
    void (*block_bf16)(const float *x, int n, uint16_t *dst, int T, int parts);
    void (*kv_store)(const struct cpu_kv_layout *kv, uint8_t *block, int slot, int head, const float *k, const float *v); /* k, v: of the head */
    void (*attend)(const struct cpu_attend *a);
    size_t (*attend_scratch_bytes)(int n_rows, int k_dim, int v_dim); /* n_rows: n_q * n_tokens at most */
    void (*conv)(const struct cpu_state_job *j);
    void (*scan)(const struct cpu_state_job *j);
    void (*delta)(const struct cpu_state_job *j);
    void (*wkv)(const struct cpu_state_job *j);
    const struct cpu_format *(*format)(enum tensor_type type, kg_activations activations);
    int side[ACTS_N]; /* rows that a single token's product reads side by side, by its activations: 2 * PANEL (0 says so, too) times a power of two */
    bool apart; /* a single token's product of packed rows reads two ranges of them in turns: struct cpu_matmul, apart */
    size_t (*ahead)(const struct cpu_matmul *m); /* how far ahead of a single token's product packed bytes are asked for; may be NULL */
};

void cpu_kernels_generic(struct cpu_kernels *k);
void cpu_kernels_avx2(struct cpu_kernels *k);
void cpu_kernels_vnni(struct cpu_kernels *k);
void cpu_kernels_avx512(struct cpu_kernels *k);
void cpu_kernels_amx(struct cpu_kernels *k);
void cpu_kernels_neon(struct cpu_kernels *k);
void cpu_kernels_i8mm(struct cpu_kernels *k);

/* Tiers of this build, worst first; NULL past the end. */
const char *cpu_tier_name(size_t i);
bool cpu_tier_supported(size_t i); /* by this processor */
#ifdef __x86_64__
bool cpu_has_avxvnni(void); /* the 256-bit vpdpbusd of processors without AVX-512 */
bool cpu_has_bf16(void);    /* vdpbf16ps */
#endif
/* The best tier of this processor; KAGARI_CPU=generic|avx2|vnni|avx512|amx|neon|... in the environment forces a lower one. */
kg_status cpu_kernels_choose(struct cpu_kernels *k);

#endif
