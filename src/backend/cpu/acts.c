#include "backend/cpu/cpu.h"

void acts_lay_out(struct cpu_acts *a, const struct cpu_kernels *k, unsigned kinds, size_t in, size_t n, char *base, size_t *used)
{
    const size_t units = in / ACT_GROUP, stretches = (size_t)act_stretches((int)in);
    const size_t int8 = kinds >> ACTS_INT8 & 1 ? n : 0, f32 = kinds >> ACTS_F32_TILES & 1 ? n : 0, bf16 = kinds >> ACTS_BF16_TILES & 1 ? n : 0;
    const size_t wide = k->act_wide && n >= ACT_WIDE_LEAST ? int8 : 0;
    const size_t q = layout_take(used, int8 * in), group = layout_take(used, int8 * units * sizeof *a->group), halves = layout_take(used, int8 * units * sizeof *a->halves);
    const size_t sums = layout_take(used, (k->act_sums ? int8 : 0) * (in / ACT_SUPER) * ACT_SUMS * sizeof *a->sums);
    const size_t pairs = layout_take(used, (k->act_pairs ? int8 : 0) * 4 * units * sizeof *a->pairs);
    const size_t wide_q = layout_take(used, wide * in * sizeof *a->wide.q), wide_sum = layout_take(used, 3 * wide * units * sizeof *a->wide.sum);
    const size_t wide_super = layout_take(used, wide * stretches * sizeof *a->wide.super);
    const size_t tiles_f32 = layout_take(used, f32 * in * sizeof *a->f32), tiles_bf16 = layout_take(used, bf16 * ROUND_UP(in, 2) * sizeof *a->bf16);
    const size_t whole = kinds >> ACTS_INT8_WHOLE & 1 ? n : 0, many = n >= ACT_WHOLE_LEAST ? whole : 0, supers = in / ACT_SUPER;
    const size_t whole_q = layout_take(used, whole * in), stretch = layout_take(used, whole * supers * sizeof *a->whole.stretch);
    const size_t whole_sum = layout_take(used, 32 * many * supers * sizeof *a->whole.sum), whole_super = layout_take(used, many * supers * sizeof *a->whole.super);
    size_t blocks[2];
    for (int i = 0; i < 2; i++) blocks[i] = layout_take(used, (kinds >> (ACTS_BF16_BLOCKS + i) & 1 ? n : 0) * act_blocks_row(in, i + 1) * sizeof *a->blocks[i]);
    if (!base) return;
    *a = (struct cpu_acts){0};
    if (int8) {
        a->q = (void *)(base + q);
        a->group = (void *)(base + group);
        a->halves = (void *)(base + halves);
        if (k->act_sums) a->sums = (void *)(base + sums);
        if (k->act_pairs) a->pairs = (void *)(base + pairs);
    }
    if (wide) a->wide = (struct act_wide){(void *)(base + wide_q), (void *)(base + wide_sum), (void *)(base + wide_super)};
    if (whole) a->whole = (struct act_whole){.q = (void *)(base + whole_q), .stretch = (void *)(base + stretch)};
    if (many) a->whole.sum = (void *)(base + whole_sum), a->whole.super = (void *)(base + whole_super);
    if (f32) a->f32 = (void *)(base + tiles_f32);
    if (bf16) a->bf16 = (void *)(base + tiles_bf16);
    for (int i = 0; i < 2; i++)
        if (kinds >> (ACTS_BF16_BLOCKS + i) & 1) a->blocks[i] = (void *)(base + blocks[i]);
}

struct cpu_acts acts_from(const struct cpu_acts *a, size_t row, int in)
{
    const size_t width = (size_t)in, units = width / ACT_GROUP, stretches = (size_t)act_stretches(in);
    struct cpu_acts from = *a;
    if (a->q) {
        from.q += row * width;
        from.group += row * units;
        from.halves += row * units;
        if (a->sums) from.sums += row * (width / ACT_SUPER) * ACT_SUMS;
        if (a->pairs) from.pairs += row * 4 * units;
    }
    if (a->wide.q) from.wide = (struct act_wide){a->wide.q + row * width, a->wide.sum + 3 * row * units, a->wide.super + row * stretches};
    if (a->whole.q) from.whole.q += row * width, from.whole.stretch += row * (width / ACT_SUPER);
    if (a->whole.sum) from.whole.sum += 32 * row * (width / ACT_SUPER), from.whole.super += row * (width / ACT_SUPER);
    if (a->f32) from.f32 += row * width;
    if (a->bf16) from.bf16 += row * ROUND_UP(width, 2);
    for (int i = 0; i < 2; i++)
        if (a->blocks[i]) from.blocks[i] += row * act_blocks_row(width, i + 1);
    return from;
}

/* Of token t, elements from `from` on, a multiple of 32, which x are. */
static void make_blocks(const struct cpu_kernels *k, const struct cpu_acts *a, int parts, const float *x, int in, int from, int n_elements, int n, int t)
{
    const int t0 = t / ACT_WIDE_TILE * ACT_WIDE_TILE, T = MIN(ACT_WIDE_TILE, n - t0), end = from + n_elements;
    for (int next; from < end; x += next - from, from = next) {
        next = MIN(from / ACT_SPAN * ACT_SPAN + ACT_SPAN, end);
        k->block_bf16(x, next - from, act_block_at(a, parts, in, n, t0, from / 32) + 32 * (t - t0), T, parts);
    }
}

void acts_make(const struct cpu_kernels *k, const struct cpu_acts *a, enum acts_kind kind, const float *x, int in, int n, int t)
{
    const int t0 = t / ACT_FLOAT_TILE * ACT_FLOAT_TILE, T = MIN(ACT_FLOAT_TILE, n - t0);
    switch (kind) {
    case ACTS_INT8: k->quantize(x, in, act_row(a, in, n, t)); break;
    case ACTS_INT8_WHOLE: k->quantize_whole(x, in, act_whole_row(a, in, n, t)); break;
    case ACTS_F32_TILES: k->tile_f32(x, in, a->f32 + (size_t)t0 * (size_t)in + t - t0, T); break;
    case ACTS_BF16_TILES: k->tile_bf16(x, in, a->bf16 + (size_t)t0 * ROUND_UP((size_t)in, 2) + 2 * (t - t0), T); break;
    case ACTS_BF16_BLOCKS:
    case ACTS_BF16_PARTS: make_blocks(k, a, act_parts(kind), x, in, 0, in, n, t); break;
    default: break;
    }
}

void acts_make_part(const struct cpu_kernels *k, const struct cpu_acts *a, enum acts_kind kind, const float *x, int in, int from, int n)
{
    struct act_row row; /* of the kind alone: the others have no memory, and nothing may be added to a null pointer */
    struct act_whole_row whole;
    switch (kind) {
    case ACTS_INT8:
        row = act_row(a, in, 1, 0);
        row.q += from, row.group += from / ACT_GROUP, row.halves += from / ACT_GROUP;
        if (row.sums) row.sums += from / ACT_SUPER * ACT_SUMS;
        if (row.pairs) row.pairs += from / ACT_GROUP * 4;
        k->quantize(x, n, row);
        break;
    case ACTS_INT8_WHOLE:
        whole = act_whole_row(a, in, 1, 0);
        whole.at.q += from;
        whole.at.stretch += from / ACT_SUPER;
        k->quantize_whole(x, n, whole);
        break;
    case ACTS_F32_TILES: k->tile_f32(x, n, a->f32 + from, 1); break;
    case ACTS_BF16_TILES: k->tile_bf16(x, n, a->bf16 + from, 1); break;
    case ACTS_BF16_BLOCKS:
    case ACTS_BF16_PARTS: make_blocks(k, a, act_parts(kind), x, in, from, n, 1, 0); break;
    default: break;
    }
}
