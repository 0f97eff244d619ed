/* Llama and what shares its shape under general.architecture "llama" (Mistral, TinyLlama, ...): RMSNorm, interleaved RoPE,
 * grouped-query attention, SwiGLU, output weights of their own or tied to the embedding. Mixtures of experts are not here.
 * Source: Touvron et al. 2023 (arXiv 2302.13971), the GGUF key and tensor names. */
#include "model/arch.h"

#include <math.h>

struct llama {
    int n_heads, n_kv_heads, k_dim, v_dim, ffn;
    double eps;
    struct rope rope; /* of the queries; the keys differ in n_heads */
};

struct llama_layer {
    const struct tensor *attn_norm, *q, *k, *v, *o, *ffn_norm, *gate, *up, *down;
    const struct tensor *q_b, *k_b, *v_b, *o_b, *gate_b, *up_b, *down_b; /* NULL: none */
};

struct llama_tensors {
    const struct tensor *embd, *norm, *output;
    struct llama_layer *layers; /* [n_layers] */
};

/* What files of this architecture may ask for and this program does not do. */
static kg_status refuse_variants(const struct arch_build *b)
{
    int v = 0;
    bool found;
    KG_TRY(arch_u32(b, "expert_count", &v, &found));
    if (found && v > 0)
        return status_set(KG_ERR_UNSUPPORTED, "%s: mixtures of experts are not supported (%s.expert_count is %d)", b->file->path, b->prefix,
                          v);
    v = 0;
    KG_TRY(arch_u32(b, "attention.sliding_window", &v, &found));
    if (found && v > 0 && v < b->program->n_ctx)
        return status_set(KG_ERR_UNSUPPORTED, "%s: sliding window attention is not supported (%s.attention.sliding_window is %d)",
                          b->file->path, b->prefix, v);
    return KG_OK;
}

static kg_status hparams(struct arch_build *b)
{
    struct llama *h = b->h;
    const struct program *p = b->program;
    KG_TRY(arch_sizes(b));
    KG_TRY(refuse_variants(b));
    KG_TRY(arch_size_layers(b, "attention.head_count", &h->n_heads));
    h->n_kv_heads = h->n_heads;
    KG_TRY(arch_size_layers(b, "attention.head_count_kv", &h->n_kv_heads));
    if (h->n_heads % h->n_kv_heads)
        return status_set(KG_ERR_FORMAT, "%s: %s.attention.head_count %d is not a multiple of head_count_kv %d", b->file->path, b->prefix,
                          h->n_heads, h->n_kv_heads);
    KG_TRY(arch_size_layers(b, "feed_forward_length", &h->ffn));
    KG_TRY(arch_epsilon(b, "attention.layer_norm_rms_epsilon", &h->eps));
    if (p->dim % h->n_heads == 0) /* else both keys must be there */
        h->k_dim = h->v_dim = p->dim / h->n_heads;
    KG_TRY(arch_size_layers(b, "attention.key_length", &h->k_dim));
    KG_TRY(arch_size_layers(b, "attention.value_length", &h->v_dim));
    if ((int64_t)h->n_heads * h->k_dim > 1 << 30 || (int64_t)h->n_heads * h->v_dim > 1 << 30)
        return status_set(KG_ERR_FORMAT, "%s: %d heads of %d are too wide", b->file->path, h->n_heads, MAX(h->k_dim, h->v_dim));
    h->rope = (struct rope){.style = ROPE_INTERLEAVED, .n_heads = h->n_heads, .head_dim = h->k_dim};
    return arch_rope(b, &h->rope);
}

static kg_status layer_tensors(struct arch_build *b, int i)
{
    const struct llama *h = b->h;
    struct llama_layer *l = &((struct llama_tensors *)b->t)->layers[i];
    int64_t dim = b->program->dim, ffn = h->ffn;
    int64_t q = (int64_t)h->n_heads * h->k_dim, k = (int64_t)h->n_kv_heads * h->k_dim, v = (int64_t)h->n_kv_heads * h->v_dim,
            o = (int64_t)h->n_heads * h->v_dim;
    KG_TRY(arch_tensor(b, &l->attn_norm, false, dim, 1, "blk.%d.attn_norm.weight", i));
    KG_TRY(arch_tensor(b, &l->q, false, dim, q, "blk.%d.attn_q.weight", i));
    KG_TRY(arch_tensor(b, &l->k, false, dim, k, "blk.%d.attn_k.weight", i));
    KG_TRY(arch_tensor(b, &l->v, false, dim, v, "blk.%d.attn_v.weight", i));
    KG_TRY(arch_tensor(b, &l->o, false, o, dim, "blk.%d.attn_output.weight", i));
    KG_TRY(arch_tensor(b, &l->ffn_norm, false, dim, 1, "blk.%d.ffn_norm.weight", i));
    KG_TRY(arch_tensor(b, &l->gate, false, dim, ffn, "blk.%d.ffn_gate.weight", i));
    KG_TRY(arch_tensor(b, &l->up, false, dim, ffn, "blk.%d.ffn_up.weight", i));
    KG_TRY(arch_tensor(b, &l->down, false, ffn, dim, "blk.%d.ffn_down.weight", i));
    KG_TRY(arch_tensor(b, &l->q_b, true, q, 1, "blk.%d.attn_q.bias", i));
    KG_TRY(arch_tensor(b, &l->k_b, true, k, 1, "blk.%d.attn_k.bias", i));
    KG_TRY(arch_tensor(b, &l->v_b, true, v, 1, "blk.%d.attn_v.bias", i));
    KG_TRY(arch_tensor(b, &l->o_b, true, dim, 1, "blk.%d.attn_output.bias", i));
    KG_TRY(arch_tensor(b, &l->gate_b, true, ffn, 1, "blk.%d.ffn_gate.bias", i));
    KG_TRY(arch_tensor(b, &l->up_b, true, ffn, 1, "blk.%d.ffn_up.bias", i));
    return arch_tensor(b, &l->down_b, true, dim, 1, "blk.%d.ffn_down.bias", i);
}

static kg_status tensors(struct arch_build *b)
{
    struct llama_tensors *t = b->t;
    const struct program *p = b->program;
    KG_TRY(arch_tensor(b, &t->embd, false, p->dim, p->n_vocab, "token_embd.weight"));
    KG_TRY(arch_tensor(b, &t->norm, false, p->dim, 1, "output_norm.weight"));
    KG_TRY(arch_tensor(b, &t->output, true, p->dim, p->n_vocab, "output.weight"));
    if (!t->output) t->output = t->embd;
    t->layers = arena_array(&b->program->arena, (size_t)p->n_layers, sizeof *t->layers);
    if (!t->layers) return KG_ERR_MEMORY;
    for (int i = 0; i < p->n_layers; i++) KG_TRY(layer_tensors(b, i));
    return KG_OK;
}

static kg_status program(struct arch_build *b)
{
    const struct llama *h = b->h;
    const struct llama_tensors *t = b->t;
    struct program *p = b->program;
    struct rope rope_q = h->rope, rope_k = h->rope;
    rope_k.n_heads = h->n_kv_heads;

    int x = program_reg(p, p->dim); /* the residual stream */
    int y = program_reg(p, p->dim);
    int q = program_reg(p, h->n_heads * h->k_dim);
    int k = program_reg(p, h->n_kv_heads * h->k_dim);
    int v = program_reg(p, h->n_kv_heads * h->v_dim);
    int att = program_reg(p, h->n_heads * h->v_dim);
    int gate = program_reg(p, h->ffn), up = program_reg(p, h->ffn);
    int logits = program_reg(p, p->n_vocab);

    program_embed(p, x, t->embd);
    for (int i = 0; i < p->n_layers; i++) {
        const struct llama_layer *l = &t->layers[i];
        program_set_layer(p, i);
        program_rms_norm(p, y, x, l->attn_norm, NULL, h->eps);
        program_matmul(p, q, y, l->q, l->q_b);
        program_matmul(p, k, y, l->k, l->k_b);
        program_matmul(p, v, y, l->v, l->v_b);
        program_rope(p, q, &rope_q);
        program_rope(p, k, &rope_k);
        program_attention(p, att, q, k, v, h->n_heads, h->n_kv_heads, h->k_dim, h->v_dim, 1 / sqrt(h->k_dim));
        program_matmul(p, y, att, l->o, l->o_b);
        program_add(p, x, x, y);
        program_rms_norm(p, y, x, l->ffn_norm, NULL, h->eps);
        program_matmul(p, gate, y, l->gate, l->gate_b);
        program_matmul(p, up, y, l->up, l->up_b);
        program_glu(p, gate, gate, up, ACTIVATION_SILU);
        program_matmul(p, y, gate, l->down, l->down_b);
        program_add(p, x, x, y);
        program_tap(p);
    }
    program_set_layer(p, -1);
    program_select(p, y, x);
    program_rms_norm(p, x, y, t->norm, NULL, h->eps);
    program_matmul(p, logits, x, t->output, NULL);
    program_logits(p, logits);
    return KG_OK;
}

const struct arch arch_llama = {"llama", sizeof(struct llama), sizeof(struct llama_tensors), hparams, tensors, program};
