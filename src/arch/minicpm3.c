/* MiniCPM 3: queries, keys and values come from short rows, as in DeepSeek's, but GGUF has the matrix of keys and values whole, so that the cache
 * keeps those of every head; a part of a key is the same for all heads, and only that rotates. Scales as MiniCPM. */
#include "model/decoder.h"

#include <math.h>

#define LOW_EPS 1e-6 /* of the norms of short rows, whatever the others have */

struct latent {
    int q_rank, kv_rank, rot;
    int q_low, q_whole, q_plain, q_rot, kv_low, kv, k_plain, k_rot, k_rots; /* registers; 0: not made yet, as 0 is the stream */
    const struct tensor *copies; /* {rot, n_heads rot}, an identity for each head: brings the common part of a key to all of them */
};

struct latent_layer {
    struct decoder_affine q_a, q_a_norm, q_b, kv_low, k_rot, kv_norm, kv;
};

static kg_status identities(struct arch_build *b, const struct tensor **out, int n, int n_heads)
{
    struct tensor *t = arena_alloc(&b->program->arena, sizeof *t);
    float *data = arena_array(&b->program->arena, (size_t)n * (size_t)n * (size_t)n_heads, sizeof *data);
    if (!t || !data) return KG_ERR_MEMORY;
    for (int h = 0; h < n_heads; h++)
        for (int i = 0; i < n; i++) data[((size_t)h * (size_t)n + (size_t)i) * (size_t)n + (size_t)i] = 1;
    *t = (struct tensor){"identities", TYPE_F32, 2, {n, (int64_t)n * n_heads, 1, 1}, data, (size_t)n * (size_t)n * (size_t)n_heads * sizeof *data};
    *out = t;
    return KG_OK;
}

static kg_status adjust(struct arch_build *b, struct decoder *d)
{
    struct latent *m = d->own = arena_alloc(&b->program->arena, sizeof *m);
    if (!m) return KG_ERR_MEMORY;
    KG_TRY(arch_size(b, "attention.q_lora_rank", &m->q_rank));
    KG_TRY(arch_size(b, "attention.kv_lora_rank", &m->kv_rank));
    m->rot = d->rope[0].n_rot;
    if (d->n_kv_heads != d->n_heads || d->k_dim <= m->rot || m->rot > 4096 || (int64_t)d->n_heads * m->rot * m->rot > 1 << 22 || (int64_t)d->n_heads * (d->k_dim + d->v_dim) > 1 << 30)
        return status_set(KG_ERR_FORMAT, "%s: %d and %d heads of %d, of which %d rotate, do not fit each other", b->file->path, d->n_heads, d->n_kv_heads, d->k_dim, m->rot);
    d->rope[0].head_dim = m->rot;
    if (d->embed_scale == 0) d->embed_scale = 12;
    if (d->residual_scale == 0) d->residual_scale = 1.4 / sqrt(b->program->n_layers);
    if (d->logit_scale == 0) d->logit_scale = 256.0 / b->program->dim;
    return identities(b, &m->copies, m->rot, d->n_heads);
}

static kg_status tensors(const struct arch_build *b, const struct decoder *d, struct decoder_layer *l, int i)
{
    const struct latent *m = d->own;
    struct latent_layer *t = l->own = arena_alloc(&b->program->arena, sizeof *t);
    const int64_t dim = b->program->dim, q = (int64_t)d->n_heads * d->k_dim, v = (int64_t)d->n_heads * d->v_dim;
    struct decoder_affine low;
    if (!t) return KG_ERR_MEMORY;
    KG_TRY(decoder_affine(b, &t->q_a, dim, m->q_rank, i, "attn_q_a"));
    KG_TRY(decoder_affine(b, &t->q_a_norm, m->q_rank, 1, i, "attn_q_a_norm"));
    KG_TRY(decoder_affine(b, &t->q_b, m->q_rank, q, i, "attn_q_b"));
    KG_TRY(decoder_affine(b, &low, dim, m->kv_rank + m->rot, i, "attn_kv_a_mqa"));
    KG_TRY(decoder_part(b, &t->kv_low, &low, 0, m->kv_rank, "kv"));
    KG_TRY(decoder_part(b, &t->k_rot, &low, m->kv_rank, m->rot, "k"));
    KG_TRY(decoder_affine(b, &t->kv_norm, m->kv_rank, 1, i, "attn_kv_a_norm"));
    KG_TRY(decoder_affine(b, &t->kv, m->kv_rank, q - (int64_t)d->n_heads * m->rot + v, i, "attn_kv_b"));
    return decoder_affine(b, &l->o, v, dim, i, "attn_output");
}

static void registers(struct program *p, const struct decoder *d, struct latent *m)
{
    const int n = d->n_heads, plain = d->k_dim - m->rot;
    if (m->kv) return;
    m->q_low = program_reg(p, m->q_rank);
    m->q_whole = program_reg(p, n * d->k_dim);
    m->q_plain = program_reg(p, n * plain);
    m->q_rot = program_reg(p, n * m->rot);
    m->kv_low = program_reg(p, m->kv_rank);
    m->kv = program_reg(p, n * (plain + d->v_dim));
    m->k_plain = program_reg(p, n * plain);
    m->k_rot = program_reg(p, m->rot);
    m->k_rots = program_reg(p, n * m->rot);
}

static void attention(struct program *p, const struct decoder *d, const struct decoder_layer *l, const struct decoder_regs *r, int dst)
{
    struct latent *m = d->own;
    const struct latent_layer *t = l->own;
    struct rope rope = d->rope[0];
    const int n = d->n_heads, plain = d->k_dim - m->rot;
    registers(p, d, m);
    program_matmul(p, m->q_low, r->y, t->q_a.w, t->q_a.b);
    program_rms_norm(p, m->q_low, m->q_low, t->q_a_norm.w, NULL, LOW_EPS);
    program_matmul(p, m->q_whole, m->q_low, t->q_b.w, t->q_b.b);
    program_take(p, m->q_plain, m->q_whole, n, 0);
    program_take(p, m->q_rot, m->q_whole, n, plain);
    program_rope(p, m->q_rot, &rope);
    program_join(p, r->q, m->q_plain, m->q_rot, n);

    program_matmul(p, m->kv_low, r->y, t->kv_low.w, t->kv_low.b);
    program_rms_norm(p, m->kv_low, m->kv_low, t->kv_norm.w, NULL, LOW_EPS);
    program_matmul(p, m->kv, m->kv_low, t->kv.w, t->kv.b);
    program_take(p, m->k_plain, m->kv, n, 0);
    program_take(p, r->v, m->kv, n, plain);
    program_matmul(p, m->k_rot, r->y, t->k_rot.w, t->k_rot.b);
    rope.n_heads = 1;
    program_rope(p, m->k_rot, &rope);
    program_matmul(p, m->k_rots, m->k_rot, m->copies, NULL);
    program_join(p, r->k, m->k_plain, m->k_rots, n);

    decoder_attend(p, d, l, r);
    program_matmul(p, dst, r->att, l->o.w, l->o.b);
}

const struct arch arch_minicpm3 =
    DECODER_ARCH("minicpm3", .rope = ROPE_HALVES, .logits_divided = true, .adjust = adjust, .attention_tensors = tensors, .add_attention = attention);
