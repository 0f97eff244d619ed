/* RWKV-7 "Goose" (Peng et al. 2025, arXiv 2503.14456): no attention. Each layer mixes a token with the one before it, number by number, then keeps a matrix
 * per head that is decayed, cleared in one direction and written to (WKV); small matrices make decay, rate, gate and the share of the first layer's values.
 * The feed-forward part sees the token before, too. */
#include "model/arch.h"

#include "tensor/decode.h"

#include <stdio.h>

enum { MAX_WIDE = 1 << 28, MAX_HEAD = 1 << 14, MAX_RANKS = 8 };

/* What six mixtures of a token with the one before it go to; the order of rows in time_mix_lerp_fused. */
enum { MIX_R, MIX_DECAY, MIX_K, MIX_V, MIX_RATE, MIX_GATE, MIX_N };

/* A linear map or norm; b NULL: none. */
struct affine {
    const struct tensor *w, *b;
};

/* up(f(down(x))) */
struct low_rank {
    struct affine down, up;
};

struct layer {
    struct affine norm, norm_2, heads_norm, r, k, v, o, key, value;
    struct low_rank decay, rate, first, gate; /* first: of all but the first layer */
    const struct tensor *mix[MIX_N], *channel_mix;
    const struct tensor *wkv; /* {dim, 3} */
};

struct rwkv7 {
    int head_dim, ffn;
    double eps;
    struct affine embd, embd_norm, norm, output;
    const struct tensor *before; /* taps of what a token's row differs from the one before it */
    struct layer *layers;
    int x, y, shift, mixed, r, k, v, v_first, decay, rate, share, gate, rk, gates, wkv, direct, ffn_reg; /* registers */
    struct {
        int rank, reg; /* rank 0: not used */
    } low[MAX_RANKS];  /* between small matrices */
};

static kg_status hparams(struct arch_build *b)
{
    struct rwkv7 *m = b->h;
    KG_TRY(arch_sizes(b));
    KG_TRY(arch_size(b, "wkv.head_size", &m->head_dim));
    KG_TRY(arch_size(b, "feed_forward_length", &m->ffn));
    KG_TRY(arch_epsilon(b, "attention.layer_norm_epsilon", &m->eps));
    const int dim = b->program->dim;
    if (dim > MAX_WIDE || m->ffn > MAX_WIDE || m->head_dim > MAX_HEAD || dim % m->head_dim)
        return status_set(KG_ERR_FORMAT, "%s: %d numbers in heads of %d, feed-forward %d, do not fit each other", b->file->path, dim, m->head_dim, m->ffn);
    return KG_OK;
}

/* ---- tensors ---- */

/* Row i of n numbers, or numbers [i * n, (i + 1) * n), of t as a vector; rows > 1: as so many rows of n. */
static kg_status view(const struct arch_build *b, const struct tensor **out, const struct tensor *t, int64_t i, int64_t n, int64_t rows)
{
    const struct type_info *type = type_by_id((uint32_t)t->type);
    struct tensor *v = arena_alloc(&b->program->arena, sizeof *v);
    if (!v) return KG_ERR_MEMORY;
    if (n % type->block) return status_set(KG_ERR_UNSUPPORTED, "%s: tensor %s cannot be split: its blocks have %d", b->file->path, t->name, type->block);
    const size_t bytes = (size_t)(n / type->block) * (size_t)type->block_bytes;
    *v = (struct tensor){t->name, t->type, rows > 1 ? 2 : 1, {n, rows, 1, 1}, (const uint8_t *)t->data + (size_t)i * bytes, bytes * (size_t)rows};
    *out = v;
    return KG_OK;
}

static kg_status affine(const struct arch_build *b, struct affine *a, int64_t in, int64_t out, int layer, const char *name)
{
    KG_TRY(arch_tensor(b, &a->w, false, in, out, "blk.%d.%s.weight", layer, name));
    return arch_tensor(b, &a->b, true, out > 1 ? out : in, 1, "blk.%d.%s.bias", layer, name);
}

static kg_status low_rank(const struct arch_build *b, struct low_rank *l, int layer, char name, bool biased)
{
    const int64_t dim = b->program->dim;
    char text[2][32];
    for (int i = 0; i < 2; i++) snprintf(text[i], sizeof text[i], "time_mix_%c%d", name, i + 1);
    char full[64];
    snprintf(full, sizeof full, "blk.%d.%s.weight", layer, text[0]);
    const struct tensor *down = file_tensor(b->file, full);
    const int64_t rank = down ? down->ne[1] : 1;
    if (rank < 1 || rank > MAX_WIDE) return status_set(KG_ERR_FORMAT, "%s: tensor %s has %lld rows", b->file->path, full, (long long)rank);
    KG_TRY(arch_tensor(b, &l->down.w, false, dim, rank, "%s", full));
    KG_TRY(arch_tensor(b, &l->up.w, false, rank, dim, "blk.%d.%s.weight", layer, text[1]));
    return biased ? arch_tensor(b, &l->up.b, false, dim, 1, "blk.%d.time_mix_%c0.weight", layer, name) : KG_OK;
}

/* k_k, k_a and r_k, one below the other, as F32. */
static kg_status wkv_rows(const struct arch_build *b, const struct tensor **out, int layer)
{
    static const char *const names[] = {"k_k", "k_a", "r_k"};
    const int64_t dim = b->program->dim;
    struct tensor *t = arena_alloc(&b->program->arena, sizeof *t);
    float *rows = arena_array(&b->program->arena, 3 * (size_t)dim, sizeof *rows);
    if (!t || !rows) return KG_ERR_MEMORY;
    for (int i = 0; i < 3; i++) {
        const struct tensor *from;
        KG_TRY(arch_tensor(b, &from, false, dim, 1, "blk.%d.time_mix_%s.weight", layer, names[i]));
        decode_f32(from->type)(from->data, rows + i * dim, dim);
        program_knows(b->program, from);
    }
    *t = (struct tensor){.name = "time_mix_k_k, k_a, r_k", .type = TYPE_F32, .n_dims = 2, .ne = {dim, 3, 1, 1}, .data = rows, .n_bytes = 3 * (size_t)dim * sizeof *rows};
    *out = t;
    return KG_OK;
}

/* The first layer has no values before it: other programs want tensors there all the same. */
static void skip_first(const struct arch_build *b)
{
    for (int i = 0; i < 3; i++) {
        char name[64];
        snprintf(name, sizeof name, "blk.0.time_mix_v%d.weight", i);
        const struct tensor *t = file_tensor(b->file, name);
        if (t) program_knows(b->program, t);
    }
}

static kg_status mixtures(const struct arch_build *b, struct layer *l, int i)
{
    char name[64];
    const int64_t dim = b->program->dim;
    snprintf(name, sizeof name, "blk.%d.time_mix_lerp_fused.weight", i);
    const struct tensor *all = file_tensor(b->file, name);
    if (!all) return status_set(KG_ERR_FORMAT, "%s: missing tensor %s", b->file->path, name);
    if (all->ne[0] != dim || all->ne[1] != 1 || all->ne[2] != 1 || all->ne[3] != MIX_N)
        return status_set(KG_ERR_FORMAT, "%s: tensor %s is {%lld, %lld, %lld, %lld}, wanted {%lld, 1, 1, %d}", b->file->path, name, (long long)all->ne[0],
                          (long long)all->ne[1], (long long)all->ne[2], (long long)all->ne[3], (long long)dim, MIX_N);
    for (int k = 0; k < MIX_N; k++) KG_TRY(view(b, &l->mix[k], all, k, dim, 1));
    return arch_tensor(b, &l->channel_mix, false, dim, 1, "blk.%d.channel_mix_lerp_k.weight", i);
}

static kg_status layer_tensors(const struct arch_build *b, const struct rwkv7 *m, struct layer *l, int i)
{
    const int64_t dim = b->program->dim;
    struct affine ln;
    KG_TRY(affine(b, &l->norm, dim, 1, i, "attn_norm"));
    KG_TRY(affine(b, &l->norm_2, dim, 1, i, "attn_norm_2"));
    KG_TRY(mixtures(b, l, i));
    KG_TRY(low_rank(b, &l->decay, i, 'w', true));
    KG_TRY(low_rank(b, &l->rate, i, 'a', true));
    if (i > 0) KG_TRY(low_rank(b, &l->first, i, 'v', true));
    KG_TRY(low_rank(b, &l->gate, i, 'g', false));
    KG_TRY(wkv_rows(b, &l->wkv, i));
    KG_TRY(affine(b, &l->r, dim, dim, i, "time_mix_receptance"));
    KG_TRY(affine(b, &l->k, dim, dim, i, "time_mix_key"));
    KG_TRY(affine(b, &l->v, dim, dim, i, "time_mix_value"));
    KG_TRY(affine(b, &l->o, dim, dim, i, "time_mix_output"));
    KG_TRY(affine(b, &ln, dim, 1, i, "time_mix_ln"));
    KG_TRY(view(b, &l->heads_norm.w, ln.w, 0, m->head_dim, dim / m->head_dim));
    if (ln.b) KG_TRY(view(b, &l->heads_norm.b, ln.b, 0, m->head_dim, dim / m->head_dim));
    KG_TRY(affine(b, &l->key, dim, m->ffn, i, "channel_mix_key"));
    return affine(b, &l->value, m->ffn, dim, i, "channel_mix_value");
}

/* {2, dim}: the token before, less the token. */
static kg_status taps(const struct arch_build *b, const struct tensor **out)
{
    const size_t n = (size_t)b->program->dim;
    struct tensor *t = arena_alloc(&b->program->arena, sizeof *t);
    float *w = arena_array(&b->program->arena, 2 * n, sizeof *w);
    if (!t || !w) return KG_ERR_MEMORY;
    for (size_t i = 0; i < n; i++) w[2 * i] = 1, w[2 * i + 1] = -1;
    *t = (struct tensor){.name = "token shift", .type = TYPE_F32, .n_dims = 2, .ne = {2, (int64_t)n, 1, 1}, .data = w, .n_bytes = 2 * n * sizeof *w};
    *out = t;
    return KG_OK;
}

static kg_status tensors(struct arch_build *b)
{
    struct rwkv7 *m = b->h;
    const struct program *p = b->program;
    KG_TRY(arch_tensor(b, &m->embd.w, false, p->dim, p->n_vocab, "token_embd.weight"));
    KG_TRY(arch_tensor(b, &m->embd_norm.w, false, p->dim, 1, "token_embd_norm.weight"));
    KG_TRY(arch_tensor(b, &m->embd_norm.b, true, p->dim, 1, "token_embd_norm.bias"));
    KG_TRY(arch_tensor(b, &m->norm.w, false, p->dim, 1, "output_norm.weight"));
    KG_TRY(arch_tensor(b, &m->norm.b, true, p->dim, 1, "output_norm.bias"));
    KG_TRY(arch_tensor(b, &m->output.w, true, p->dim, p->n_vocab, "output.weight"));
    if (!m->output.w) m->output.w = m->embd.w;
    KG_TRY(taps(b, &m->before));
    m->layers = arena_array(&b->program->arena, (size_t)p->n_layers, sizeof *m->layers);
    if (!m->layers) return KG_ERR_MEMORY;
    skip_first(b);
    for (int i = 0; i < p->n_layers; i++) KG_TRY(layer_tensors(b, m, &m->layers[i], i));
    return KG_OK;
}

/* ---- operations ---- */

static void linear(struct program *p, int dst, int src, const struct affine *a) { program_matmul(p, dst, src, a->w, a->b); }

static void norm(struct program *p, const struct rwkv7 *m, int dst, int src, const struct affine *a) { program_layer_norm(p, dst, src, a->w, a->b, m->eps); }

static void add_low_rank(struct program *p, struct rwkv7 *m, int dst, int src, const struct low_rank *l, enum activation f)
{
    const int rank = (int)l->down.w->ne[1];
    int i = 0;
    while (i < MAX_RANKS - 1 && m->low[i].rank != rank && m->low[i].rank != 0) i++;
    if (m->low[i].rank != rank) m->low[i].reg = program_reg(p, m->low[i].rank = rank);
    const int low = m->low[i].reg;
    linear(p, low, src, &l->down);
    if (f != ACTIVATION_N) program_act(p, low, low, f);
    linear(p, dst, low, &l->up);
}

/* v += sigmoid(share) (v of the first layer - v) */
static void share_first(struct program *p, struct rwkv7 *m, const struct layer *l)
{
    add_low_rank(p, m, m->share, m->mixed, &l->first, ACTIVATION_N);
    program_scale(p, m->direct, m->v, -1);
    program_add(p, m->direct, m->direct, m->v_first);
    program_glu(p, m->share, m->share, m->direct, ACTIVATION_SIGMOID);
    program_add(p, m->v, m->v, m->share);
}

static void mix(struct program *p, const struct rwkv7 *m, const struct layer *l, int which) { program_lerp(p, m->mixed, m->y, m->shift, l->mix[which]); }

/* y -> y */
static void add_time_mix(struct program *p, struct rwkv7 *m, const struct layer *l, bool first)
{
    program_conv(p, m->shift, m->y, m->before, NULL);
    mix(p, m, l, MIX_R);
    linear(p, m->r, m->mixed, &l->r);
    mix(p, m, l, MIX_DECAY);
    add_low_rank(p, m, m->decay, m->mixed, &l->decay, ACTIVATION_TANH);
    mix(p, m, l, MIX_K);
    linear(p, m->k, m->mixed, &l->k);
    mix(p, m, l, MIX_V);
    linear(p, first ? m->v_first : m->v, m->mixed, &l->v);
    if (!first) share_first(p, m, l);
    mix(p, m, l, MIX_RATE);
    add_low_rank(p, m, m->rate, m->mixed, &l->rate, ACTIVATION_N);
    mix(p, m, l, MIX_GATE);
    add_low_rank(p, m, m->gate, m->mixed, &l->gate, ACTIVATION_SIGMOID);
    program_join(p, m->rk, m->r, m->k, 1);
    program_join(p, m->gates, m->decay, m->rate, 1);
    program_wkv(p, m->wkv, m->rk, m->gates, first ? m->v_first : m->v, l->wkv, &(struct wkv){.n_heads = p->dim / m->head_dim, .head_dim = m->head_dim, .eps = 1e-12});
    program_take(p, m->y, m->wkv, 1, 0);
    program_take(p, m->direct, m->wkv, 1, p->dim);
    program_layer_norm(p, m->y, m->y, l->heads_norm.w, l->heads_norm.b, m->eps * m->head_dim);
    program_add(p, m->y, m->y, m->direct);
    program_mul(p, m->gate, m->gate, m->y);
    linear(p, m->y, m->gate, &l->o);
}

/* y -> y */
static void add_channel_mix(struct program *p, const struct rwkv7 *m, const struct layer *l)
{
    program_conv(p, m->shift, m->y, m->before, NULL);
    program_lerp(p, m->mixed, m->y, m->shift, l->channel_mix);
    linear(p, m->ffn_reg, m->mixed, &l->key);
    program_act(p, m->ffn_reg, m->ffn_reg, ACTIVATION_RELU_SQUARED);
    linear(p, m->y, m->ffn_reg, &l->value);
}

static void add_registers(struct program *p, struct rwkv7 *m)
{
    int *const wide[] = {&m->x, &m->y, &m->shift, &m->mixed, &m->r, &m->k, &m->v, &m->v_first, &m->decay, &m->rate, &m->share, &m->gate, &m->direct};
    int *const twice[] = {&m->rk, &m->gates, &m->wkv};
    for (size_t i = 0; i < COUNT_OF(wide); i++) *wide[i] = program_reg(p, p->dim);
    for (size_t i = 0; i < COUNT_OF(twice); i++) *twice[i] = program_reg(p, 2 * p->dim);
    m->ffn_reg = program_reg(p, m->ffn);
}

static kg_status program(struct arch_build *b)
{
    struct program *p = b->program;
    struct rwkv7 *m = b->h;
    add_registers(p, m);
    const int logits = program_reg(p, p->n_vocab);
    program_embed(p, m->x, m->embd.w);
    norm(p, m, m->x, m->x, &m->embd_norm);
    for (int i = 0; i < p->n_layers; i++) {
        program_set_layer(p, i);
        norm(p, m, m->y, m->x, &m->layers[i].norm);
        add_time_mix(p, m, &m->layers[i], i == 0);
        program_add(p, m->x, m->x, m->y);
        norm(p, m, m->y, m->x, &m->layers[i].norm_2);
        add_channel_mix(p, m, &m->layers[i]);
        program_add(p, m->x, m->x, m->y);
        program_tap(p);
    }
    program_set_layer(p, -1);
    program_select(p, m->y, m->x);
    norm(p, m, m->y, m->y, &m->norm);
    linear(p, logits, m->y, &m->output);
    program_logits(p, logits);
    return p->status;
}

const struct arch arch_rwkv7 = {"rwkv7", sizeof(struct rwkv7), 0, hparams, tensors, program, NULL};
