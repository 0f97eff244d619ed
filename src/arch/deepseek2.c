/* DeepSeek 2 and 3: keys and values of all heads come from one short row per token, which is all that the cache keeps (multi-head latent
 * attention, DeepSeek-AI 2024, arXiv 2405.04434): queries are brought into its space, so that there is one key and value head. Experts, some of
 * them shared, after a few plain layers. */
#include "model/decoder.h"

#include <math.h>

struct latent {
    int q_rank, kv_rank, key, value, rot; /* q_rank 0: queries come from one matrix; key, value: of a head, before they are brought there */
    int q_low, q_whole, q_plain, q_there, q_rot, k_rot, out; /* registers; 0: not made yet, as 0 is the stream */
};

struct latent_layer {
    struct decoder_affine q_a, q_a_norm, q_b, kv, k_rot, kv_norm;
    const struct tensor *k_b, *v_b;
};

static kg_status adjust(struct arch_build *b, struct decoder *d)
{
    struct latent *m = d->own = arena_alloc(&b->program->arena, sizeof *m);
    double log_multiplier = 0;
    bool found;
    if (!m) return KG_ERR_MEMORY;
    KG_TRY(arch_u32(b, "attention.q_lora_rank", &m->q_rank, &found));
    KG_TRY(arch_size(b, "attention.kv_lora_rank", &m->kv_rank));
    KG_TRY(arch_u32(b, "attention.key_length_mla", &m->key, &found));
    if (!found)
        return status_set(KG_ERR_UNSUPPORTED, "%s: key %s.attention.key_length_mla is missing: files from before it are not supported", b->file->path, b->prefix);
    KG_TRY(arch_size(b, "attention.value_length_mla", &m->value));
    d->route.group_by_one = !d->route.sigmoid; /* DeepSeek 2 of 236B compares groups by their best expert, not by two */
    m->rot = d->rope[0].n_rot;
    if (d->n_kv_heads != 1 || d->v_dim != m->kv_rank || d->k_dim - m->rot != m->kv_rank || m->key <= m->rot || (int64_t)d->n_heads * MAX(m->key, m->value) > 1 << 30)
        return status_set(KG_ERR_FORMAT, "%s: the lengths of keys and values do not fit each other", b->file->path);
    for (int i = 0; i < DECODER_KINDS; i++) d->rope[i].head_dim = m->rot;
    KG_TRY(arch_f64(b, "rope.scaling.yarn_log_multiplier", &log_multiplier, &found));
    double more = d->rope[0].scaling == ROPE_SCALING_YARN ? 1 + log_multiplier * log(d->rope[0].factor) : 1;
    d->attn_scale = more * more / sqrt(m->key);
    return KG_OK;
}

static kg_status tensors(const struct arch_build *b, const struct decoder *d, struct decoder_layer *l, int i)
{
    const struct latent *m = d->own;
    struct latent_layer *t = l->own = arena_alloc(&b->program->arena, sizeof *t);
    const int64_t dim = b->program->dim, q = (int64_t)d->n_heads * m->key;
    struct decoder_affine kv;
    if (!t) return KG_ERR_MEMORY;
    if (m->q_rank > 0) {
        KG_TRY(decoder_affine(b, &t->q_a, dim, m->q_rank, i, "attn_q_a"));
        KG_TRY(decoder_affine(b, &t->q_a_norm, m->q_rank, 1, i, "attn_q_a_norm"));
        KG_TRY(decoder_affine(b, &t->q_b, m->q_rank, q, i, "attn_q_b"));
    } else {
        KG_TRY(decoder_affine(b, &t->q_b, dim, q, i, "attn_q"));
    }
    KG_TRY(decoder_affine(b, &kv, dim, d->k_dim, i, "attn_kv_a_mqa"));
    KG_TRY(arch_part(b, &t->kv.w, kv.w, 0, m->kv_rank, "kv"));
    KG_TRY(arch_part(b, &t->k_rot.w, kv.w, m->kv_rank, m->rot, "k"));
    if (kv.b) KG_TRY(arch_part(b, &t->kv.b, kv.b, 0, m->kv_rank, "kv"));
    if (kv.b) KG_TRY(arch_part(b, &t->k_rot.b, kv.b, m->kv_rank, m->rot, "k"));
    KG_TRY(decoder_affine(b, &t->kv_norm, m->kv_rank, 1, i, "attn_kv_a_norm"));
    KG_TRY(arch_tensor_3d(b, &t->k_b, false, m->key - m->rot, m->kv_rank, d->n_heads, "blk.%d.attn_k_b.weight", i));
    KG_TRY(arch_tensor_3d(b, &t->v_b, false, m->kv_rank, m->value, d->n_heads, "blk.%d.attn_v_b.weight", i));
    return decoder_affine(b, &l->o, (int64_t)d->n_heads * m->value, dim, i, "attn_output");
}

static void registers(struct program *p, const struct decoder *d, struct latent *m)
{
    if (m->out) return;
    if (m->q_rank > 0) m->q_low = program_reg(p, m->q_rank);
    m->q_whole = program_reg(p, d->n_heads * m->key);
    m->q_plain = program_reg(p, d->n_heads * (m->key - m->rot));
    m->q_there = program_reg(p, d->n_heads * m->kv_rank);
    m->q_rot = program_reg(p, d->n_heads * m->rot);
    m->k_rot = program_reg(p, m->rot);
    m->out = program_reg(p, d->n_heads * m->value);
}

static void attention(struct program *p, const struct decoder *d, const struct decoder_layer *l, const struct decoder_regs *r, int dst)
{
    struct latent *m = d->own;
    const struct latent_layer *t = l->own;
    struct rope rope = d->rope[0];
    registers(p, d, m);
    if (m->q_rank > 0) {
        program_matmul(p, m->q_low, r->y, t->q_a.w, t->q_a.b);
        program_rms_norm(p, m->q_low, m->q_low, t->q_a_norm.w, NULL, d->eps);
    }
    program_matmul(p, m->q_whole, m->q_rank > 0 ? m->q_low : r->y, t->q_b.w, t->q_b.b);
    program_take(p, m->q_plain, m->q_whole, d->n_heads, 0);
    program_take(p, m->q_rot, m->q_whole, d->n_heads, m->key - m->rot);
    program_matmul_experts(p, m->q_there, m->q_plain, -1, t->k_b, NULL);
    program_rope(p, m->q_rot, &rope);
    program_join(p, r->q, m->q_there, m->q_rot, d->n_heads);

    program_matmul(p, r->v, r->y, t->kv.w, t->kv.b);
    program_rms_norm(p, r->v, r->v, t->kv_norm.w, NULL, d->eps);
    program_matmul(p, m->k_rot, r->y, t->k_rot.w, t->k_rot.b);
    rope.n_heads = 1;
    program_rope(p, m->k_rot, &rope);
    program_join(p, r->k, r->v, m->k_rot, 1);

    decoder_attend(p, d, l, r);
    program_matmul_experts(p, m->out, r->att, -1, t->v_b, NULL);
    program_matmul(p, dst, m->out, l->o.w, l->o.b);
}

static kg_status hparams(struct arch_build *b)
{
    b->knows_log_multiplier = true;
    return decoder_hparams(b);
}

static const struct decoder_style style = {.attention_tensors = tensors, .add_attention = attention, .adjust = adjust};

const struct arch arch_deepseek2 = {"deepseek2", sizeof(struct decoder), 0, hparams, decoder_tensors, decoder_program, &style};
