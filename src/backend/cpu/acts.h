/* What matmuls read of their input: its rows, prepared once per register, in the forms that formats of weights ask for. */
#ifndef BACKEND_CPU_ACTS_H
#define BACKEND_CPU_ACTS_H

#include "base/base.h"

#define ACT_GROUP 32 /* activations share one scale per this many elements */

enum acts_kind {
    ACTS_ROWS, /* float [n][in]: the register itself */
    ACTS_INT8,
    ACTS_INT8_WHOLE,
    ACTS_F32_TILES,
    ACTS_BF16_TILES,
    ACTS_BF16_BLOCKS, /* of one part ... */
    ACTS_BF16_PARTS,  /* ... and of two: this order */
    ACTS_N
};

/* Tokens lie in tiles, the last one smaller, so that a kernel reads a tile as one stream. A tile that starts with token t0 and has
 * T tokens is, from the array's start + t0 * row,
 *   q [in / 4][T][4], group and halves [in / ACT_GROUP][T]: x ~ scale * q, and what else a kernel wants to know of a group, computed
 *                                                           once here and not per weight
 *   sums [in / ACT_SUPER][T][ACT_SUMS]: of q of the sixteenths of a stretch, then of its eighths, times part, with ACT_SUM_BITS behind the
 *                                       point, the nearest (halves up), for weights whose minima are integers; four in the order 0 2 1 3
 *   pairs [in / 16][T][2]: -ACT_PAIR_OFFSET times the sums of q over elements 0 and 1, 2 and 3 of every four of a sixteenth of a stretch, for sums of
 *                          products of 16 bits, which they take that offset off
 *   f32 [in][T]; bf16 [in / 2][T][2], pairs of elements
 * For matrix units, bf16 in tiles of ACT_WIDE_TILE: blocks [spans of ACT_SPAN][tiles][steps of 32 elements][parts][T][32], zeros behind the last
 * element. Of two parts, the first is x rounded and the second what that leaves of x, rounded. A span of all tokens is in one piece.
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
#define ACT_PART 96 /* tokens that parts of a batch begin at multiples of: whole tiles of all sizes, and pairs of wide ones */
struct act_wide {
    uint16_t *q;
    float *sum, *super;
};
/* int8 with one scale per ACT_SUPER elements, for weights whose groups have integers as scales, so that a sum over all of a stretch is one of
 * integers. Such rows are a multiple of ACT_SUPER long.
 *   few tokens: q as above, stretch [in / ACT_SUPER][T]
 *   ACT_WHOLE_LEAST and more, in tiles of ACT_WHOLE_TILE: q [in / ACT_SUPER][tiles][4][T][64]; sum [in / ACT_SUPER][n][32], of the sixteenths
 *     of a stretch, its eighths, 8 unused; super [in / ACT_SUPER][n] */
#define ACT_WHOLE_TILE 16
#define ACT_WHOLE_LEAST 32
struct act_stretch {
    int32_t sum[16 + 8];        /* of q, of each 16 elements, of each 32 */
    int8_t high[24], low[24];   /* sum = 128 high + low, 0 <= low < 128 */
    float super, unused[3];     /* x ~ super * q */
};
struct act_whole {
    int8_t *q;
    struct act_stretch *stretch;
    int16_t *sum; /* NULL: no room for many tokens */
    float *super;
};
#define ACT_SPAN 512
_Static_assert(ACT_PART % ACT_TILE == 0 && ACT_PART % ACT_FLOAT_TILE == 0 && ACT_PART % (2 * ACT_WIDE_TILE) == 0 && ACT_PART % (2 * ACT_WHOLE_TILE) == 0, "whole tiles");
struct cpu_acts {
    int8_t *q;
    struct act_group *group;
    struct act_halves *halves;
    int16_t *sums; /* NULL: the tier has none (cpu_kernels.act_sums) */
    int16_t *pairs; /* the same (cpu_kernels.act_pairs) */
    float *f32;
    uint16_t *bf16;
    struct act_wide wide; /* NULL: the tier has none */
    struct act_whole whole;
    uint16_t *blocks[2]; /* [parts - 1] */
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

#define ACT_SUMS 24
#define ACT_EIGHTHS 16 /* those of eighths begin there */
#define ACT_PAIR_OFFSET 32
#define ACT_SUM_BITS 3 /* behind the point: 4064 at most before it, so that it fits 16 bits, and nothing is rounded for parts down to 1 / 8 */

/* The scale of a group whose largest magnitude is top: never smaller than top / 127; NaN stays NaN. */
static inline float act_scale(float top) { return f32_from_bits((f32_bits(top / 127.0f) + 15u) & ~15u); }

static inline void act_put_sums(struct act_group *g, struct act_halves *h, float scale, int sum0, int sum1)
{
    *g = (struct act_group){scale, 1, -ACT_MAGIC * scale, scale * (float)(sum0 + sum1), ACT_MAGIC_BITS, ACT_MAGIC_BITS - 128 * (sum0 + sum1)};
    *h = (struct act_halves){{scale * (float)sum0, scale * (float)sum1}, {ACT_MAGIC_BITS - 128 * sum0, ACT_MAGIC_BITS - 128 * sum1}};
}

/* The two pairs of 16 elements. */
static inline void act_put_pairs(int16_t *pairs, const int8_t *q)
{
    int sum[2] = {0};
    for (int i = 0; i < 16; i++) sum[i / 2 % 2] += q[i];
    for (int i = 0; i < 2; i++) pairs[i] = (int16_t)(-ACT_PAIR_OFFSET * sum[i]);
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
    int16_t *sums; /* or NULL; those of stretch s at sums[s * T * ACT_SUMS] */
    int16_t *pairs; /* or NULL; those of sixteenth i at pairs[2 * i * T] */
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
    int16_t *sums = a->sums ? a->sums + (t0 * (size_t)(in / ACT_SUPER) + i) * ACT_SUMS : NULL;
    int16_t *pairs = a->pairs ? a->pairs + 4 * t0 * units + 2 * i : NULL;
    return (struct act_row){a->q + t0 * (size_t)in + 4 * i, a->group + t0 * units + i, a->halves + t0 * units + i, sums, pairs, MIN(ACT_TILE, n - (int)t0), {0}, 0, 0};
}

/* Of token t: in its form for few tokens (n 0), word w of four elements at q[w * 4 * T], stretch s at stretch[s * T]; in that for many, of n tokens,
 * element i of stretch s at q[(s * n * 4 + i / 64 * T) * 64 + i % 64], and stretch s at sum[s * n * 32] and super[s * n]. */
struct act_whole_row {
    struct act_whole at;
    int T, n;
};
static inline bool acts_are_many(const struct cpu_acts *a, int n) { return a->whole.sum && n >= ACT_WHOLE_LEAST; }
static inline struct act_whole_row act_whole_row(const struct cpu_acts *a, int in, int n, int t)
{
    const struct act_whole *w = &a->whole;
    const bool many = acts_are_many(a, n);
    const int tile = many ? ACT_WHOLE_TILE : ACT_TILE, t0 = t / tile * tile, T = MIN(tile, n - t0);
    if (many) return (struct act_whole_row){{w->q + t0 * ACT_SUPER + (t - t0) * 64, NULL, w->sum + t * 32, w->super + t}, T, n};
    return (struct act_whole_row){{w->q + (size_t)t0 * (size_t)in + 4 * (t - t0), w->stretch + (size_t)t0 * (size_t)(in / ACT_SUPER) + (t - t0), NULL, NULL}, T, 0};
}

/* How many parts a kind of blocks has; 0: it is none. */
static inline int act_parts(enum acts_kind kind) { return kind == ACTS_BF16_BLOCKS ? 1 : kind == ACTS_BF16_PARTS ? 2 : 0; }
static inline size_t act_blocks_row(size_t in, int parts) { return ROUND_UP(in, (size_t)32) * (size_t)parts; }
/* Step k, elements 32 k and on, of the tile that begins with token t0 of n. */
static inline uint16_t *act_block_at(const struct cpu_acts *a, int parts, int in, int n, int t0, int k)
{
    const size_t row = act_blocks_row((size_t)in, parts), span = (size_t)(ACT_SPAN * parts), first = (size_t)(k / (ACT_SPAN / 32)) * span;
    const int T = MIN(ACT_WIDE_TILE, n - t0);
    return a->blocks[parts - 1] + first * (size_t)n + (size_t)t0 * MIN(span, row - first) + (size_t)(k % (ACT_SPAN / 32) * T * 32 * parts);
}

struct cpu_kernels;

/* Memory for n rows of `in` elements in each of these kinds (bits 1 << enum acts_kind), from base + *used on; with base NULL only counts it. */
void acts_lay_out(struct cpu_acts *a, const struct cpu_kernels *k, unsigned kinds, size_t in, size_t n, char *base, size_t *used);
/* The activations from this row on, of rows that were made from there on as a batch of their own. */
struct cpu_acts acts_from(const struct cpu_acts *a, size_t row, int in);
/* Of token t of n, whose row is x. */
void acts_make(const struct cpu_kernels *k, const struct cpu_acts *a, enum acts_kind kind, const float *x, int in, int n, int t);
/* Elements [from, from + n) of a single row, multiples of ACT_SUPER; x: of these. */
void acts_make_part(const struct cpu_kernels *k, const struct cpu_acts *a, enum acts_kind kind, const float *x, int in, int from, int n);

/* Takes n_bytes of a layout that has used *used so far; returns their offset. */
static inline size_t layout_take(size_t *used, size_t n_bytes)
{
    size_t at = *used;
    *used += ROUND_UP(n_bytes, (size_t)64);
    return at;
}

#endif
