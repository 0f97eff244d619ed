/* What the tests of the CPU kernels share: tiers, random numbers from one printed seed, memory between guard pages, random blocks of
 * any tensor type, and the prepared activations of a batch. Header only.
 * KAGARI_TEST_SEED chooses the seed; KAGARI_TEST_LONG asks for more combinations. */
#ifndef TESTS_CPU_TEST_H
#define TESTS_CPU_TEST_H

#include "backend/cpu/cpu.h"
#include "backend/ref/ref.h"
#include "base/half.h"
#include "how_long.h"
#include "tensor/decode.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#define U 0x1p-24 /* unit roundoff of f32 */

/* ---- tiers ---- */

/* The kernels of tier i; false: this processor lacks it. */
static inline bool tier_kernels(size_t i, struct cpu_kernels *k)
{
    if (!cpu_tier_supported(i)) {
        print_message("skipped: tier %s, which this processor lacks\n", cpu_tier_name(i));
        return false;
    }
    setenv("KAGARI_CPU", cpu_tier_name(i), 1);
    if (cpu_kernels_choose(k) != KG_OK) fail_msg("tier %s: %s", cpu_tier_name(i), kg_error_message());
    assert_string_equal(k->tier, cpu_tier_name(i));
    return true;
}

/* ---- random numbers (splitmix64) ---- */

static uint64_t rng_state;

static inline void rng_start(void)
{
    const char *s = getenv("KAGARI_TEST_SEED");
    rng_state = s ? strtoull(s, NULL, 0) : 20261122;
    print_message("seed %llu\n", (unsigned long long)rng_state);
}

static inline uint64_t rng_u64(void)
{
    uint64_t z = rng_state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}
static inline int rng_below(int n) { return (int)((rng_u64() >> 33) % (unsigned)n); }
static inline float rng_unit(void) { return (float)((double)(rng_u64() >> 11) * 0x1p-52 - 1); } /* [-1, 1) */
/* About normal, variance 1. */
static inline float rng_normal(void)
{
    float s = 0;
    for (int i = 0; i < 6; i++) s += rng_unit();
    return s * 0.7071f;
}

/* n activations: groups of 32 of different magnitude, some all zero, some with a single large element. */
static inline void random_activations(float *x, int n)
{
    for (int i = 0; i < n; i += 32) {
        int kind = rng_below(12);
        float size = ldexpf(1, rng_below(8) - 4);
        for (int j = i; j < MIN(i + 32, n); j++) x[j] = kind == 0 ? 0 : size * rng_normal();
        if (kind == 1) x[i + rng_below(MIN(32, n - i))] = 40 * size;
    }
}

/* ---- memory ---- */

/* n bytes that end at a page which cannot be touched (but for up to align - 1 bytes), with a page like that before as well. */
struct guarded {
    uint8_t *p;
    size_t n;
    uint8_t *map;
    size_t map_bytes;
};
enum { GUARD_BYTE = 0xff }; /* four make a NaN: who reads it, shows it */

static inline struct guarded guarded_new(size_t n, size_t align)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), room = ROUND_UP(ROUND_UP(n, align), page);
    struct guarded g = {.n = n, .map_bytes = room + 2 * page};
    g.map = mmap(NULL, g.map_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(g.map != MAP_FAILED);
    if (room) assert_int_equal(mprotect(g.map + page, room, PROT_READ | PROT_WRITE), 0);
    memset(g.map + page, GUARD_BYTE, room);
    g.p = g.map + page + room - ROUND_UP(n, align);
    return g;
}

static inline void guarded_free(struct guarded *g, const char *what)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (uint8_t *p = g->map + page; p < g->map + g->map_bytes - page; p++) {
        if (p == g->p) p += g->n;
        if (p >= g->map + g->map_bytes - page) break;
        if (*p != GUARD_BYTE) fail_msg("%s: written %td bytes from its start of %zu", what, p - g->p, g->n);
    }
    munmap(g->map, g->map_bytes);
    *g = (struct guarded){0};
}

/* ---- random blocks of a tensor type ---- */

/* Blocks of random bits whose values are finite and of about the same size, so that none drowns the others. */
struct blocks {
    const struct type_info *type;
    uint8_t *data;
    int n;
};

static inline int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* quantile: which sizes among those that random bits give; 0.5: the usual ones, 0.02: very small ones, 0.98: very large ones. */
static inline struct blocks blocks_new(const struct type_info *type, double quantile)
{
    const int n = type->block == 1 ? 40000 : 600;
    const size_t bytes = (size_t)type->block_bytes;
    uint8_t *data = malloc((size_t)n * bytes);
    double *size = malloc((size_t)n * sizeof *size), *sorted = malloc((size_t)n * sizeof *sorted), y[256];
    assert_true(data && size && sorted && type->block <= 256);
    int n_finite = 0;
    for (int i = 0; i < n; i++) {
        uint8_t *b = data + (size_t)i * bytes;
        for (size_t j = 0; j < bytes; j++) b[j] = (uint8_t)(rng_u64() >> 40);
        ref_decoder(type->type)(b, y);
        double top = 0;
        for (int j = 0; j < type->block; j++) top = isfinite(y[j]) ? fmax(top, fabs(y[j])) : INFINITY;
        for (int j = 0; j < type->block; j++)
            if (!isfinite(y[j])) top = INFINITY;
        size[i] = top >= 0x1p-140 && top <= 0x1p64 ? log2(top) : INFINITY; /* what f32 can show, and multiply */
        if (isfinite(size[i])) sorted[n_finite++] = size[i];
    }
    assert_true(n_finite > 0);
    qsort(sorted, (size_t)n_finite, sizeof *sorted, by_value);
    double middle = sorted[(int)(quantile * (n_finite - 1))];
    struct blocks set = {type, data, 0};
    for (int i = 0; i < n; i++)
        if (fabs(size[i] - middle) <= 2) memmove(data + (size_t)set.n++ * bytes, data + (size_t)i * bytes, bytes);
    free(size);
    free(sorted);
    return set;
}

static inline void blocks_fill(const struct blocks *set, void *dst, size_t n_blocks)
{
    const size_t bytes = (size_t)set->type->block_bytes;
    for (size_t i = 0; i < n_blocks; i++) memcpy((uint8_t *)dst + i * bytes, set->data + (size_t)rng_below(set->n) * bytes, bytes);
}

static inline void blocks_free(struct blocks *set) { free(set->data); }

/* ---- activations of a batch, as the engine prepares them ---- */

struct batch_acts {
    struct guarded x, q, group, halves, sums, pairs, f32, bf16, blocks, wide_q, wide_sum, wide_super, stretch, sum, super;
    struct cpu_acts a;
};

/* Of x [n][in], which is copied. */
static inline struct batch_acts acts_new(const struct cpu_kernels *k, enum acts_kind kind, const float *x, int in, int n)
{
    const size_t rows = (size_t)n, row = (size_t)in, units = row / ACT_GROUP, even = ROUND_UP(row, 2);
    struct batch_acts b = {.x = guarded_new(rows * row * sizeof(float), 4)};
    memcpy(b.x.p, x, b.x.n);
    if (kind == ACTS_INT8) {
        b.q = guarded_new(rows * row, 64);
        b.group = guarded_new(rows * units * sizeof(struct act_group), 64);
        b.halves = guarded_new(rows * units * sizeof(struct act_halves), 64);
    }
    if (kind == ACTS_INT8 && k->act_sums) b.sums = guarded_new(rows * (row / ACT_SUPER) * ACT_SUMS * sizeof(int16_t), 4);
    if (kind == ACTS_INT8 && k->act_pairs) b.pairs = guarded_new(rows * 4 * units * sizeof(int16_t), 4);
    if (kind == ACTS_INT8 && k->act_wide && n >= ACT_WIDE_LEAST) {
        b.wide_q = guarded_new(rows * row * sizeof(uint16_t), 64);
        b.wide_sum = guarded_new(3 * rows * units * sizeof(float), 64);
        b.wide_super = guarded_new(rows * (size_t)act_stretches(in) * sizeof(float), 64);
    }
    if (kind == ACTS_INT8_WHOLE) {
        b.q = guarded_new(rows * row, 64);
        b.stretch = guarded_new(rows * (row / ACT_SUPER) * sizeof(struct act_stretch), 64);
        if (n >= ACT_WHOLE_LEAST) {
            b.sum = guarded_new(32 * rows * (row / ACT_SUPER) * sizeof(int16_t), 64);
            b.super = guarded_new(rows * (row / ACT_SUPER) * sizeof(float), 64);
        }
    }
    if (kind == ACTS_F32_TILES) b.f32 = guarded_new(rows * row * sizeof(float), 64);
    if (kind == ACTS_BF16_TILES) b.bf16 = guarded_new(rows * even * sizeof(uint16_t), 64);
    const int parts = act_parts(kind);
    if (parts) b.blocks = guarded_new(rows * act_blocks_row(row, parts) * sizeof(uint16_t), 64);
    b.a = (struct cpu_acts){(void *)b.q.p, (void *)b.group.p, (void *)b.halves.p, (void *)b.sums.p, (void *)b.pairs.p, (void *)b.f32.p, (void *)b.bf16.p,
                            {(void *)b.wide_q.p, (void *)b.wide_sum.p, (void *)b.wide_super.p},
                            {(void *)b.q.p, (void *)b.stretch.p, (void *)b.sum.p, (void *)b.super.p}, {parts == 1 ? (void *)b.blocks.p : NULL, parts == 2 ? (void *)b.blocks.p : NULL}};
    for (int t = 0; t < n; t++) {
        const float *xt = (const float *)(const void *)b.x.p + (size_t)t * row;
        acts_make(k, &b.a, kind, xt, in, n, t);
    }
    return b;
}

static inline void acts_free(struct batch_acts *b)
{
    guarded_free(&b->x, "activations");
    if (b->q.map) guarded_free(&b->q, "int8 activations");
    if (b->group.map) guarded_free(&b->group, "groups of int8 activations");
    if (b->halves.map) guarded_free(&b->halves, "half groups of int8 activations");
    if (b->sums.map) guarded_free(&b->sums, "rounded sums of int8 activations");
    if (b->pairs.map) guarded_free(&b->pairs, "pairs of int8 activations");
    if (b->wide_q.map) guarded_free(&b->wide_q, "wide activations");
    if (b->wide_sum.map) guarded_free(&b->wide_sum, "sums of wide activations");
    if (b->wide_super.map) guarded_free(&b->wide_super, "scales of wide activations");
    if (b->stretch.map) guarded_free(&b->stretch, "stretches of int8 activations");
    if (b->sum.map) guarded_free(&b->sum, "sums of stretches");
    if (b->super.map) guarded_free(&b->super, "scales of stretches");
    if (b->f32.map) guarded_free(&b->f32, "tiles of f32 activations");
    if (b->bf16.map) guarded_free(&b->bf16, "tiles of bf16 activations");
    if (b->blocks.map) guarded_free(&b->blocks, "blocks of bf16 activations");
}

/* Element i of a row of whole stretches, and its scale. */
static inline int whole_q(const struct act_whole_row *r, int i)
{
    const int s = i / ACT_SUPER, k = i % ACT_SUPER;
    return r->n ? r->at.q[(s * r->n * 4 + k / 64 * r->T) * 64 + k % 64] : r->at.q[i / 4 * r->T * 4 + i % 4];
}
static inline float whole_scale(const struct act_whole_row *r, int i)
{
    return r->n ? r->at.super[i / ACT_SUPER * r->n] : r->at.stretch[i / ACT_SUPER * r->T].super;
}

static inline double two_parts(float x)
{
    const float first = f32_from_bf16(bf16_from_f32(x));
    return (double)first + (double)f32_from_bf16(bf16_from_f32(x - first));
}

/* What a matmul of this kind sees of token t's x: its rounding taken as given. */
static inline void acts_seen(const struct batch_acts *b, enum acts_kind kind, int in, int n, int t, double *seen)
{
    const float *x = (const float *)(const void *)b->x.p + (size_t)t * (size_t)in;
    struct act_row r = {0};
    struct act_whole_row w = {0};
    if (kind == ACTS_INT8) r = act_row(&b->a, in, n, t);
    if (kind == ACTS_INT8_WHOLE) w = act_whole_row(&b->a, in, n, t);
    for (int i = 0; i < in; i++) {
        if (kind == ACTS_INT8) seen[i] = (double)r.group[i / ACT_GROUP * r.T].scale * r.q[i / 4 * r.T * 4 + i % 4];
        else if (kind == ACTS_INT8_WHOLE) seen[i] = (double)whole_scale(&w, i) * whole_q(&w, i);
        else if (kind == ACTS_BF16_TILES || kind == ACTS_BF16_BLOCKS) seen[i] = (double)f32_from_bf16(bf16_from_f32(x[i]));
        else if (kind == ACTS_BF16_PARTS) seen[i] = two_parts(x[i]);
        else seen[i] = (double)x[i];
    }
}

#endif
