/* Builds the layers of delta_net.h. */
#include "model/delta_net.h"

struct delta_layer {
    struct decoder_affine qkv, z, ba, beta, alpha, out; /* ba or the two behind it */
    const struct tensor *conv, *a, *bias, *norm;
};

struct delta_regs {
    struct delta shape;
    int taps, qkv_width, width;
    int whole, gate;           /* of attention; 0: not made yet, as 0 is the stream */
    int qkv, mixed, z, beta, alpha, ba, y; /* of the delta rule */
};

static kg_status read_shape(struct arch_build *b, struct decoder *d, bool tiled)
{
    struct delta_regs *r = d->own = arena_alloc(&b->program->arena, sizeof *r);
    int period = 4, inner = 0;
    bool found;
    if (!r) return KG_ERR_MEMORY;
    struct delta *s = &r->shape;
    KG_TRY(arch_u32(b, "full_attention_interval", &period, &found));
    KG_TRY(arch_size(b, "ssm.conv_kernel", &r->taps));
    KG_TRY(arch_size(b, "ssm.state_size", &s->k_dim));
    KG_TRY(arch_size(b, "ssm.group_count", &s->n_k_heads));
    KG_TRY(arch_size(b, "ssm.time_step_rank", &s->n_heads));
    KG_TRY(arch_size(b, "ssm.inner_size", &inner));
    s->v_dim = inner / s->n_heads;
    s->eps = 1e-6;
    s->tiled = tiled;
    const int64_t all = 2 * (int64_t)s->n_k_heads * s->k_dim + inner;
    if (period < 1 || inner % s->n_heads || s->n_heads % s->n_k_heads || all > 1 << 28)
        return status_set(KG_ERR_FORMAT, "%s: %d channels, %d heads and %d of %d do not fit each other", b->file->path, inner, s->n_heads, s->n_k_heads, s->k_dim);
    r->qkv_width = (int)all;
    r->width = inner;
    for (int i = 0; i < b->program->n_layers; i++) d->layers[i].other = (i + 1) % period != 0;
    return KG_OK;
}

kg_status delta_net_adjust(struct arch_build *b, struct decoder *d) { return read_shape(b, d, false); }

kg_status delta_net_adjust_tiled(struct arch_build *b, struct decoder *d)
{
    bool grouped = false, found;
    KG_TRY(file_get_bool(b->file, "kagari.heads_grouped", &grouped, &found));
    return read_shape(b, d, !grouped);
}

static kg_status attention_tensors(const struct arch_build *b, const struct decoder *d, struct decoder_layer *l, int i)
{
    const int64_t dim = b->program->dim;
    KG_TRY(decoder_affine(b, &l->q, dim, 2 * (int64_t)d->n_heads * d->k_dim, i, "attn_q"));
    KG_TRY(decoder_affine(b, &l->k, dim, (int64_t)d->n_kv_heads * d->k_dim, i, "attn_k"));
    KG_TRY(decoder_affine(b, &l->v, dim, (int64_t)d->n_kv_heads * d->v_dim, i, "attn_v"));
    KG_TRY(decoder_affine(b, &l->o, (int64_t)d->n_heads * d->v_dim, dim, i, "attn_output"));
    KG_TRY(decoder_affine(b, &l->q_norm, d->k_dim, 1, i, "attn_q_norm"));
    return decoder_affine(b, &l->k_norm, d->k_dim, 1, i, "attn_k_norm");
}

kg_status delta_net_tensors(const struct arch_build *b, const struct decoder *d, struct decoder_layer *l, int i)
{
    const struct delta_regs *r = d->own;
    const int64_t dim = b->program->dim, n = r->shape.n_heads;
    if (d->k_dim != d->v_dim) return status_set(KG_ERR_UNSUPPORTED, "%s: heads of %d and %d", b->file->path, d->k_dim, d->v_dim);
    if (!l->other) return attention_tensors(b, d, l, i);
    struct delta_layer *t = l->own = arena_alloc(&b->program->arena, sizeof *t);
    if (!t) return KG_ERR_MEMORY;
    KG_TRY(decoder_affine(b, &t->qkv, dim, r->qkv_width, i, "attn_qkv"));
    KG_TRY(decoder_affine(b, &t->z, dim, r->width, i, "attn_gate"));
    if (decoder_has(b, i, "ssm_ba")) {
        KG_TRY(decoder_affine(b, &t->ba, dim, 2 * n, i, "ssm_ba"));
    } else {
        KG_TRY(decoder_affine(b, &t->beta, dim, n, i, "ssm_beta"));
        KG_TRY(decoder_affine(b, &t->alpha, dim, n, i, "ssm_alpha"));
    }
    KG_TRY(arch_tensor(b, &t->conv, false, r->taps, r->qkv_width, "blk.%d.ssm_conv1d.weight", i));
    KG_TRY(arch_tensor(b, &t->a, false, n, 1, "blk.%d.ssm_a", i));
    KG_TRY(arch_tensor(b, &t->bias, false, n, 1, "blk.%d.ssm_dt.bias", i));
    KG_TRY(arch_tensor(b, &t->norm, false, r->shape.v_dim, 1, "blk.%d.ssm_norm.weight", i));
    return decoder_affine(b, &t->out, r->width, dim, i, "ssm_out");
}

static void linear(struct program *p, int dst, int src, const struct decoder_affine *a) { program_matmul(p, dst, src, a->w, a->b); }

static void add_attention(struct program *p, const struct decoder *d, const struct decoder_layer *l, const struct decoder_regs *r, int dst)
{
    struct delta_regs *own = d->own;
    struct rope rope = d->rope[l->kind];
    if (!own->gate) {
        own->whole = program_reg(p, 2 * d->n_heads * d->k_dim);
        own->gate = program_reg(p, d->n_heads * d->k_dim);
    }
    linear(p, own->whole, r->y, &l->q);
    program_take(p, r->q, own->whole, d->n_heads, 0);
    program_take(p, own->gate, own->whole, d->n_heads, d->k_dim);
    linear(p, r->k, r->y, &l->k);
    linear(p, r->v, r->y, &l->v);
    program_rms_norm(p, r->q, r->q, l->q_norm.w, NULL, d->eps);
    program_rms_norm(p, r->k, r->k, l->k_norm.w, NULL, d->eps);
    program_rope(p, r->q, &rope);
    rope.n_heads = d->n_kv_heads;
    program_rope(p, r->k, &rope);
    decoder_attend(p, d, l, r);
    program_glu(p, r->att, own->gate, r->att, ACTIVATION_SIGMOID);
    linear(p, dst, r->att, &l->o);
}

void delta_net_add(struct program *p, const struct decoder *d, const struct decoder_layer *l, const struct decoder_regs *r, int dst)
{
    struct delta_regs *own = d->own;
    const struct delta_layer *t = l->own;
    if (!l->other) {
        add_attention(p, d, l, r, dst);
        return;
    }
    if (!t->ba.w && !own->alpha) {
        own->beta = program_reg(p, own->shape.n_heads);
        own->alpha = program_reg(p, own->shape.n_heads);
    }
    if (!own->qkv) {
        own->qkv = program_reg(p, own->qkv_width);
        own->mixed = program_reg(p, own->qkv_width);
        own->z = program_reg(p, own->width);
        own->ba = program_reg(p, 2 * own->shape.n_heads);
        own->y = program_reg(p, own->width);
    }
    linear(p, own->qkv, r->y, &t->qkv);
    linear(p, own->z, r->y, &t->z);
    if (t->ba.w) {
        linear(p, own->ba, r->y, &t->ba);
    } else {
        linear(p, own->beta, r->y, &t->beta);
        linear(p, own->alpha, r->y, &t->alpha);
        program_join(p, own->ba, own->beta, own->alpha, own->shape.n_k_heads);
    }
    program_conv(p, own->mixed, own->qkv, t->conv, NULL);
    program_act(p, own->mixed, own->mixed, ACTIVATION_SILU);
    program_delta(p, own->y, own->mixed, own->ba, t->a, t->bias, &own->shape);
    program_rms_norm(p, own->y, own->y, t->norm, NULL, d->eps);
    program_glu(p, own->y, own->z, own->y, ACTIVATION_SILU);
    linear(p, dst, own->y, &t->out);
}
