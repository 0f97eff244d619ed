/* Encoders of the grid types (IQ1, IQ2, IQ3): eight (or four) values together become one entry of a fixed grid, times a scale that is an
 * odd integer times an f16. For a given scale the nearest entry is found exactly: the squared distance is a sum over the two halves of
 * an entry, of which there are few different ones, so a search compares sums of two table values and leaves out all entries
 * of an upper half that is too far by itself. Scales are searched for as in encode_fit.h. */
#include "tensor/codebooks.h"
#include "tensor/encode_fit.h"

enum {
    MOST_ENTRIES = 2048,
    MOST_LEVELS = 8,
    WAYS = 9,               /* a quarter of an entry has at most so many values: two elements of 3 levels, or one of 8 */
    STRIDE = 12,            /* a half: 12 * first quarter + second; a multiple of four */
    PATTERNS = WAYS * STRIDE,
    MOST_UPPER = 81,        /* upper halves of a grid */
    UNIT = 8,               /* elements that share their signs' parity or their offset */
    MOST_UNITS = 4,         /* in a group of one scale */
};

enum signs { SIGNS_IN_GRID, SIGNS_FREE, SIGNS_EVEN /* an even number of minus signs in a unit */ };

struct grid_type {
    const void *table; /* entries of `dims` bytes */
    int n, dims;
    int n_levels;
    float level[MOST_LEVELS];
    enum signs signs;
    float offset;      /* added to or taken from the grid's values; 0: none */
    bool offset_each;  /* by unit, else by group */
    int group;         /* elements of one scale: 16 or 32 */
    int n_codes;       /* scale = d * unit * (2 code + 1) */
    float unit;
    int block_bytes;
};

/* The entries by halves. Those of one upper half stand together in every grid of the formats. */
struct grid {
    const int8_t *bytes;
    uint8_t lower[MOST_ENTRIES]; /* its pattern */
    int8_t upper_at[PATTERNS];   /* which upper half this is; -1: none */
    uint16_t begin[MOST_UPPER + 1];
};

struct unit {
    uint16_t entry[2]; /* 8 / dims */
    uint8_t minus;     /* bit i: element i is negative */
    bool less;         /* the offset is taken from, not added to */
    float q[UNIT];     /* what the scale multiplies */
};

static uint8_t pattern_of(const struct grid_type *t, const int8_t *half)
{
    int per_quarter = t->dims / 4, way[2] = {0, 0};
    for (int i = 0; i < 2 * per_quarter; i++) {
        int k = 0;
        while ((float)half[i] != t->level[k]) k++;
        way[i / per_quarter] = way[i / per_quarter] * t->n_levels + k;
    }
    return (uint8_t)(STRIDE * way[0] + way[1]);
}

static void grid_open(const struct grid_type *t, struct grid *g)
{
    int n = 0, last = -1;
    g->bytes = t->table;
    memset(g->upper_at, -1, sizeof g->upper_at);
    for (int e = 0; e < t->n; e++) {
        const int8_t *entry = g->bytes + e * t->dims;
        int upper = pattern_of(t, entry + t->dims / 2);
        g->lower[e] = pattern_of(t, entry);
        if (upper != last) {
            g->upper_at[upper] = (int8_t)n;
            g->begin[n++] = (uint16_t)e;
        }
        last = upper;
    }
    g->begin[n] = (uint16_t)t->n;
}

/* ---- the nearest entry ------------------------------------------------------------------------------------------- */

/* What the quarters of an entry cost, and its lower halves. [0]: all elements as they are; [1]: one, the cheapest, with the other sign. */
struct costs {
    float quarter[2][4][STRIDE], least[2][4];
    float lower[2][PATTERNS], lower_least[2];
};

ALWAYS_INLINE int least_at(const float *v, int n)
{
    int at = 0;
    for (int i = 1; i < n; i++) at = v[i] < v[at] ? i : at;
    return at;
}

/* c[level][UNIT]: of each element; f: with the other sign, NULL: not wanted. first: where the entry begins in the unit. */
ALWAYS_INLINE void find_costs(const struct grid_type *t, float c[MOST_LEVELS][UNIT], float f[MOST_LEVELS][UNIT], int first, struct costs *out)
{
    const int ways = t->dims == 8 ? 9 : 8;
    for (int k = 0; k < 4; k++) {
        float *as_is = out->quarter[0][k], *flipped = out->quarter[1][k];
        for (int way = 0; way < ways; way++) {
            int a = way / 3, b = way % 3;
            as_is[way] = t->dims == 8 ? c[a][2 * k] + c[b][2 * k + 1] : c[way][first + k];
            if (!f) continue;
            float one = f[a][2 * k] + c[b][2 * k + 1], other = c[a][2 * k] + f[b][2 * k + 1];
            flipped[way] = t->dims == 8 ? MIN(one, other) : f[way][first + k];
        }
        for (int way = ways; way < STRIDE; way++) as_is[way] = flipped[way] = 0;
        for (int odd = 0; odd < (f ? 2 : 1); odd++) {
            const float *q = out->quarter[odd][k];
            float least = q[0];
            for (int way = 1; way < ways; way++) least = MIN(least, q[way]);
            out->least[odd][k] = least;
        }
    }
    float (*q)[STRIDE] = out->quarter[0], (*o)[STRIDE] = out->quarter[1], *l = out->least[0], *m = out->least[1];
    for (int i = 0; i < ways; i++)
        for (int j = 0; j < STRIDE; j++) out->lower[0][STRIDE * i + j] = q[0][i] + q[1][j];
    out->lower_least[0] = l[0] + l[1];
    if (!f) return;
    for (int i = 0; i < ways; i++)
        for (int j = 0; j < STRIDE; j++) out->lower[1][STRIDE * i + j] = MIN(o[0][i] + q[1][j], q[0][i] + o[1][j]);
    out->lower_least[1] = MIN(m[0] + l[1], l[0] + m[1]);
}

struct found {
    float cost;
    int entry;
};

ALWAYS_INLINE void scan(const struct grid *g, int upper, const float *restrict lower, float have, struct found *best)
{
    struct found b = *best;
    for (int e = g->begin[upper]; e < g->begin[upper + 1]; e++) {
        float cost = have + lower[g->lower[e]];
        if (cost < b.cost) b = (struct found){cost, e};
    }
    *best = b;
}

/* The cheapest entry, if it is better than *best. odd: which half has a wrong sign, 0 none, 1 the lower, 2 the upper. */
ALWAYS_INLINE void cheapest(const struct grid_type *t, const struct grid *g, const struct costs *c, int odd, struct found *best)
{
    const int ways = t->dims == 8 ? 9 : 8;
    const float *lower = c->lower[odd == 1], lower_least = c->lower_least[odd == 1];
    const float *q2 = c->quarter[0][2], *q3 = c->quarter[0][3], *f2 = c->quarter[1][2], *f3 = c->quarter[1][3];
    int first = -1;
    if (odd != 2) { /* where the nearest upper half is in the grid, it rules out most of the others */
        int i = least_at(q2, ways), j = least_at(q3, ways);
        first = g->upper_at[STRIDE * i + j];
        if (first >= 0) scan(g, first, lower, q2[i] + q3[j], best);
    }
    for (int i = 0; i < ways; i++) {
        float row = odd == 2 ? MIN(f2[i] + c->least[0][3], q2[i] + c->least[1][3]) : q2[i] + c->least[0][3];
        if (row + lower_least >= best->cost) continue;
        for (int j = 0; j < ways; j++) {
            float have = odd == 2 ? MIN(f2[i] + q3[j], q2[i] + f3[j]) : q2[i] + q3[j];
            int u = g->upper_at[STRIDE * i + j];
            if (have + lower_least < best->cost && u >= 0 && u != first) scan(g, u, lower, have, best);
        }
    }
}

/* The signs of SIGNS_EVEN where an odd number of values is negative: exactly one element gets the wrong one, in the lower or upper half of
 * one entry. */
ALWAYS_INLINE float nearest_odd(const struct grid_type *t, const struct grid *g, const struct costs *c, int entry[2])
{
    struct found f[2][2] = {{{INFINITY, 0}, {INFINITY, 0}}, {{INFINITY, 0}, {INFINITY, 0}}};
    for (int i = 0; i < UNIT / t->dims; i++) {
        if (t->dims < UNIT) cheapest(t, g, &c[i], 0, &f[i][0]);
        cheapest(t, g, &c[i], 1, &f[i][1]);
        cheapest(t, g, &c[i], 2, &f[i][1]);
    }
    if (t->dims == UNIT) {
        entry[0] = f[0][1].entry;
        return f[0][1].cost;
    }
    float first = f[0][1].cost + f[1][0].cost, second = f[0][0].cost + f[1][1].cost;
    entry[0] = f[0][first < second].entry;
    entry[1] = f[1][!(first < second)].entry;
    return MIN(first, second);
}

/* The nearest point to x[UNIT] for a scale; returns the error. */
ALWAYS_INLINE float nearest_unit(const struct grid_type *t, const struct grid *g, const float *restrict x, const float *restrict w, float scale,
                                 bool less, struct unit *u)
{
    const float offset = less ? -t->offset : t->offset;
    float c[MOST_LEVELS][UNIT], f[MOST_LEVELS][UNIT], v[UNIT], sum = 0;
    int entry[2] = {0, 0};
    bool odd = false;
    u->minus = 0;
    u->less = less;
    for (int i = 0; i < UNIT; i++) {
        bool minus = t->signs != SIGNS_IN_GRID && x[i] < 0;
        u->minus |= (uint8_t)(minus << i);
        odd ^= minus;
        v[i] = minus ? -x[i] : x[i];
    }
    odd = odd && t->signs == SIGNS_EVEN;
    for (int l = 0; l < t->n_levels; l++) {
        float at = scale * (t->level[l] + offset);
        for (int i = 0; i < UNIT; i++) c[l][i] = w[i] * (v[i] - at) * (v[i] - at);
        for (int i = 0; odd && i < UNIT; i++) f[l][i] = w[i] * (v[i] + at) * (v[i] + at);
    }
    struct costs costs[2];
    for (int e = 0; e < UNIT / t->dims; e++) {
        find_costs(t, c, odd ? f : NULL, e * t->dims, &costs[e]);
        if (odd) continue;
        struct found best = {INFINITY, 0};
        cheapest(t, g, &costs[e], 0, &best);
        entry[e] = best.entry;
        sum += best.cost;
    }
    if (odd) sum = nearest_odd(t, g, costs, entry);
    float dearest = INFINITY;
    int wrong = 0;
    for (int i = 0; i < UNIT; i++) {
        u->q[i] = (float)g->bytes[entry[i / t->dims] * t->dims + i % t->dims] + offset;
        float cost = w[i] * v[i] * u->q[i]; /* a fourth of what the other sign costs, over the scale */
        if (cost < dearest) dearest = cost, wrong = i;
    }
    if (odd) u->minus ^= (uint8_t)(1 << wrong);
    for (int i = 0; i < UNIT; i++)
        if (u->minus >> i & 1) u->q[i] = -u->q[i];
    u->entry[0] = (uint16_t)entry[0];
    u->entry[1] = (uint16_t)entry[1];
    return sum;
}

/* ---- a group ------------------------------------------------------------------------------------------------------ */

struct group {
    struct unit unit[MOST_UNITS];
    float err;
    float xq, qq; /* sums w x q, w q q */
};

ALWAYS_INLINE void nearest_group(const struct grid_type *t, const struct grid *g, const float *restrict x, const float *restrict w, float scale,
                                 struct group *out)
{
    const int n_units = t->group / UNIT;
    if (t->offset_each) {
        out->err = 0;
        for (int k = 0; k < n_units; k++) {
            struct unit other;
            float a = nearest_unit(t, g, x + UNIT * k, w + UNIT * k, scale, false, &out->unit[k]);
            float b = nearest_unit(t, g, x + UNIT * k, w + UNIT * k, scale, true, &other);
            if (b < a) out->unit[k] = other;
            out->err += b < a ? b : a;
        }
    } else {
        out->err = INFINITY;
        for (int less = 0; less < (t->offset != 0 ? 2 : 1); less++) {
            struct unit unit[MOST_UNITS];
            float err = 0;
            for (int k = 0; k < n_units; k++) err += nearest_unit(t, g, x + UNIT * k, w + UNIT * k, scale, less, &unit[k]);
            if (less && !(err < out->err)) continue;
            out->err = err;
            memcpy(out->unit, unit, (size_t)n_units * sizeof *unit);
        }
    }
    out->xq = out->qq = 0;
    for (int k = 0; k < n_units; k++)
        for (int i = 0; i < UNIT; i++) {
            float q = out->unit[k].q[i], wq = w[UNIT * k + i] * q;
            out->xq += wq * x[UNIT * k + i];
            out->qq += wq * q;
        }
}

/* The scale that suits a group best, and how fast the error grows beside it. */
struct wish {
    float scale, qq;
};

ALWAYS_INLINE struct wish fit_group(const struct grid_type *t, const struct grid *g, const float *restrict x, const float *restrict w)
{
    struct wish best = {0, 0};
    float top = 0, best_gain = 0, most = t->level[t->n_levels - 1] + t->offset;
    for (int i = 0; i < t->group; i++) top = MAX(top, fabsf(x[i]));
    struct group p;
    const int starts = t->level[0] > 0 ? 6 : 5; /* around the scale that just reaches the largest; and at which that is the smallest */
    for (int k = 0; k < starts + 3; k++) {
        float start = k < 5 ? top / most * powf(1.28f, (float)(k - 1)) : k < starts ? top / t->level[0] : best.scale;
        if (!(start > 0)) break;
        nearest_group(t, g, x, w, start, &p);
        float gain = p.qq > 0 && p.xq > 0 ? p.xq * (p.xq / p.qq) : 0;
        if (gain > best_gain) best_gain = gain, best = (struct wish){p.xq / p.qq, p.qq};
        else if (k >= starts) break;
    }
    return best;
}

/* ---- a block ------------------------------------------------------------------------------------------------------ */

struct grid_fit {
    uint16_t d; /* f16 */
    float err;
    uint8_t code[MOST_GROUPS];
    struct group group[MOST_GROUPS];
};

static inline int near_code(float want, float step, int n_codes)
{
    float k = (want * inverse(step) - 1) * 0.5f;
    return k >= (float)(n_codes - 1) ? n_codes - 1 : k > 0 ? (int)lrintf(k) : 0;
}

/* The best codes for f->d, near those that the groups wish. */
ALWAYS_INLINE void assign_codes(const struct grid_type *t, const struct grid *g, const float *restrict x, const float *restrict w,
                                const struct wish *wish, struct grid_fit *f)
{
    float step = f32_from_f16(f->d) * t->unit;
    f->err = 0;
    for (int i = 0; i < LARGEST_BLOCK / t->group; i++) {
        int near = near_code(wish[i].scale, step, t->n_codes);
        for (int k = 0; k < 3; k++) {
            int code = near + (k == 2 ? -1 : k);
            struct group p;
            if (code < 0 || code >= t->n_codes) continue;
            nearest_group(t, g, x + i * t->group, w + i * t->group, step * (float)(2 * code + 1), &p);
            if (k > 0 && !(p.err < f->group[i].err)) continue;
            f->group[i] = p;
            f->code[i] = (uint8_t)code;
        }
        f->err += f->group[i].err;
    }
}

enum { CANDIDATES = 2 };

/* The values of d whose codes come closest to the wishes, cheapest first. */
static void find_d(const struct grid_type *t, const struct wish *wish, float d[CANDIDATES])
{
    float top = 0, cost[CANDIDATES];
    for (int i = 0; i < LARGEST_BLOCK / t->group; i++) top = MAX(top, wish[i].scale);
    for (int k = 0; k < CANDIDATES; k++) d[k] = 0, cost[k] = INFINITY;
    for (int k = 0; k < 64; k++) {
        float step = top / (float)(2 * t->n_codes - 1) * (0.9f + 0.02f * (float)k), sum = 0;
        for (int i = 0; i < LARGEST_BLOCK / t->group; i++) {
            float miss = step * (float)(2 * near_code(wish[i].scale, step, t->n_codes) + 1) - wish[i].scale;
            sum += wish[i].qq * miss * miss;
        }
        int at = CANDIDATES;
        while (at > 0 && sum < cost[at - 1]) at--;
        for (int j = CANDIDATES - 1; j > at; j--) d[j] = d[j - 1], cost[j] = cost[j - 1];
        if (at < CANDIDATES) d[at] = step / t->unit, cost[at] = sum;
    }
}

ALWAYS_INLINE void fit_block(const struct grid_type *t, const struct grid *g, const float *restrict x, const float *restrict w, struct grid_fit *out)
{
    struct wish wish[MOST_GROUPS];
    float d[CANDIDATES];
    struct grid_fit f = {0};
    for (int i = 0; i < LARGEST_BLOCK / t->group; i++) wish[i] = fit_group(t, g, x + i * t->group, w + i * t->group);
    find_d(t, wish, d);
    for (int k = 0; k < CANDIDATES + 2; k++) {
        f.d = f16_finite(d[MIN(k, CANDIDATES - 1)]);
        if (k >= CANDIDATES) {
            double xq = 0, qq = 0;
            for (int i = 0; i < LARGEST_BLOCK / t->group; i++) {
                double s = (double)(t->unit * (float)(2 * out->code[i] + 1));
                xq += s * (double)out->group[i].xq;
                qq += s * s * (double)out->group[i].qq;
            }
            f.d = f16_finite(qq > 0 ? (float)(xq / qq) : 0);
            if (f.d == out->d) break;
        }
        assign_codes(t, g, x, w, wish, &f);
        if (k == 0 || f.err < out->err) *out = f;
    }
}

typedef void (*put_fn)(const struct grid_fit *f, uint8_t *b);

ALWAYS_INLINE void encode_grid(const struct grid_type *t, put_fn put, const float *src, const float *weight, void *dst, int64_t n)
{
    float ones[LARGEST_BLOCK];
    uint8_t *b = dst;
    struct grid g;
    struct grid_fit f = {0};
    grid_open(t, &g);
    for (int i = 0; i < LARGEST_BLOCK; i++) ones[i] = 1;
    for (int64_t i = 0; i < n; i += LARGEST_BLOCK, b += t->block_bytes) {
        fit_block(t, &g, src + i, weights_or(weight ? weight + i : NULL, LARGEST_BLOCK, ones), &f);
        memset(b, 0, (size_t)t->block_bytes);
        put(&f, b);
    }
}

#define GRID_ENCODER(name)                                                                                                                 \
    static void encode_##name(const float *src, const float *weight, void *dst, int64_t n) { encode_grid(&name, put_##name, src, weight, dst, n); } \
    const struct encoder encoder_##name = {encode_##name};

/* ---- layouts: see decode_iq.c ------------------------------------------------------------------------------------- */

static inline void store_u32(uint8_t *b, uint32_t v) { memcpy(b, &v, 4); }

/* Four times seven signs (the eighth follows from them), and the code. */
static inline uint32_t signs_and_code(const struct grid_fit *f, int group)
{
    uint32_t bits = (uint32_t)f->code[group] << 28;
    for (int l = 0; l < 4; l++) bits |= (uint32_t)(f->group[group].unit[l].minus & 127) << 7 * l;
    return bits;
}

static inline void put_codes(const struct grid_fit *f, uint8_t *b, int n_groups)
{
    for (int g = 0; g < n_groups; g++) b[g / 2] |= (uint8_t)(f->code[g] << g % 2 * 4);
}

static void put_iq2_xxs(const struct grid_fit *f, uint8_t *b)
{
    store_u16(b, f->d);
    for (int g = 0; g < 8; g++) {
        for (int l = 0; l < 4; l++) b[2 + 8 * g + l] = (uint8_t)f->group[g].unit[l].entry[0];
        store_u32(b + 6 + 8 * g, signs_and_code(f, g));
    }
}
static const struct grid_type iq2_xxs = {.table = iq2xxs_grid, .n = 256, .dims = 8, .n_levels = 3, .level = {8, 25, 43}, .signs = SIGNS_EVEN,
                                         .group = 32, .n_codes = 16, .unit = 0.125f, .block_bytes = BYTES_IQ2_XXS};
GRID_ENCODER(iq2_xxs)

static void put_iq2_xs(const struct grid_fit *f, uint8_t *b)
{
    store_u16(b, f->d);
    for (int i = 0; i < 32; i++) {
        const struct unit *u = &f->group[i / 2].unit[i % 2];
        store_u16(b + 2 + 2 * i, (uint16_t)(u->entry[0] | (u->minus & 127) << 9));
    }
    put_codes(f, b + 66, 16);
}
static const struct grid_type iq2_xs = {.table = iq2xs_grid, .n = 512, .dims = 8, .n_levels = 3, .level = {8, 25, 43}, .signs = SIGNS_EVEN,
                                        .group = 16, .n_codes = 16, .unit = 0.125f, .block_bytes = BYTES_IQ2_XS};
GRID_ENCODER(iq2_xs)

static void put_iq2_s(const struct grid_fit *f, uint8_t *b)
{
    store_u16(b, f->d);
    for (int i = 0; i < 32; i++) {
        const struct unit *u = &f->group[i / 2].unit[i % 2];
        b[2 + i] = (uint8_t)u->entry[0];
        b[34 + i] = u->minus;
        b[66 + i / 4] |= (uint8_t)(u->entry[0] >> 8 << i % 4 * 2);
    }
    put_codes(f, b + 74, 16);
}
static const struct grid_type iq2_s = {.table = iq2s_grid, .n = 1024, .dims = 8, .n_levels = 3, .level = {8, 25, 43}, .signs = SIGNS_FREE,
                                       .group = 16, .n_codes = 16, .unit = 0.125f, .block_bytes = BYTES_IQ2_S};
GRID_ENCODER(iq2_s)

static void put_iq3_xxs(const struct grid_fit *f, uint8_t *b)
{
    store_u16(b, f->d);
    for (int g = 0; g < 8; g++) {
        for (int l = 0; l < 8; l++) b[2 + 8 * g + l] = (uint8_t)f->group[g].unit[l / 2].entry[l % 2];
        store_u32(b + 66 + 4 * g, signs_and_code(f, g));
    }
}
static const struct grid_type iq3_xxs = {.table = iq3xxs_grid, .n = 256, .dims = 4, .n_levels = 8, .level = {4, 12, 20, 28, 36, 44, 52, 62}, .signs = SIGNS_EVEN,
                                         .group = 32, .n_codes = 16, .unit = 0.25f, .block_bytes = BYTES_IQ3_XXS};
GRID_ENCODER(iq3_xxs)

static void put_iq3_s(const struct grid_fit *f, uint8_t *b)
{
    store_u16(b, f->d);
    for (int g = 0; g < 8; g++)
        for (int l = 0; l < 8; l++) {
            const struct unit *u = &f->group[g].unit[l / 2];
            b[2 + 8 * g + l] = (uint8_t)u->entry[l % 2];
            b[66 + g] |= (uint8_t)(u->entry[l % 2] >> 8 << l);
            b[74 + 4 * g + l / 2] = u->minus;
        }
    put_codes(f, b + 106, 8);
}
static const struct grid_type iq3_s = {.table = iq3s_grid, .n = 512, .dims = 4, .n_levels = 8, .level = {1, 3, 5, 7, 9, 11, 13, 15}, .signs = SIGNS_FREE,
                                       .group = 32, .n_codes = 16, .unit = 1, .block_bytes = BYTES_IQ3_S};
GRID_ENCODER(iq3_s)

static void put_iq1_s(const struct grid_fit *f, uint8_t *b)
{
    store_u16(b, f->d);
    for (int g = 0; g < 8; g++) {
        const struct unit *u = f->group[g].unit;
        uint32_t bits = (uint32_t)f->code[g] << 12 | (uint32_t)u[0].less << 15;
        for (int l = 0; l < 4; l++) {
            b[2 + 4 * g + l] = (uint8_t)u[l].entry[0];
            bits |= (uint32_t)(u[l].entry[0] >> 8) << 3 * l;
        }
        store_u16(b + 34 + 2 * g, (uint16_t)bits);
    }
}
static const struct grid_type iq1_s = {.table = iq1s_grid, .n = 2048, .dims = 8, .n_levels = 3, .level = {-1, 0, 1}, .signs = SIGNS_IN_GRID,
                                       .offset = 0.125f, .group = 32, .n_codes = 8, .unit = 1, .block_bytes = BYTES_IQ1_S};
GRID_ENCODER(iq1_s)

static void put_iq1_m(const struct grid_fit *f, uint8_t *b)
{
    for (int i = 0; i < 32; i++) {
        const struct unit *u = &f->group[i / 2].unit[i % 2];
        b[i] = (uint8_t)u->entry[0];
        b[32 + i / 2] |= (uint8_t)((u->entry[0] >> 8 | u->less << 3) << i % 2 * 4);
    }
    for (int k = 0; k < 4; k++) {
        uint32_t bits = (uint32_t)(f->d >> 4 * k & 15) << 12;
        for (int j = 0; j < 4; j++) bits |= (uint32_t)f->code[4 * k + j] << 3 * j;
        store_u16(b + 48 + 2 * k, (uint16_t)bits);
    }
}
static const struct grid_type iq1_m = {.table = iq1s_grid, .n = 2048, .dims = 8, .n_levels = 3, .level = {-1, 0, 1}, .signs = SIGNS_IN_GRID,
                                       .offset = 0.125f, .offset_each = true, .group = 16, .n_codes = 8, .unit = 1, .block_bytes = BYTES_IQ1_M};
GRID_ENCODER(iq1_m)
