/* GPT-2: LayerNorm with biases, learned positions, one fused projection for queries, keys and values, GELU (tanh), output
 * weights usually tied to the embedding. Source: Radford et al. 2019, the GGUF key and tensor names. */
#include "model/arch.h"

#include <math.h>

struct gpt2 {
    int n_heads, head_dim, ffn;
    double eps;
};

/* A linear map or norm with its bias. */
struct affine {
    const struct tensor *w, *b;
};

struct gpt2_layer {
    struct affine attn_norm, q, k, v, o, ffn_norm, up, down;
};

struct gpt2_tensors {
    const struct tensor *embd, *pos, *output;
    struct affine norm;
    struct gpt2_layer *layers; /* [n_layers] */
};

static kg_status hparams(struct arch_build *b)
{
    struct gpt2 *h = b->h;
    struct program *p = b->program;
    KG_TRY(arch_sizes(b));
    p->ctx_is_hard = true;
    KG_TRY(arch_size(b, "attention.head_count", &h->n_heads));
    KG_TRY(arch_size(b, "feed_forward_length", &h->ffn));
    KG_TRY(arch_epsilon(b, "attention.layer_norm_epsilon", &h->eps));
    int n_kv_heads = h->n_heads;
    KG_TRY(arch_size_layers(b, "attention.head_count_kv", &n_kv_heads));
    if (n_kv_heads != h->n_heads)
        return status_set(KG_ERR_UNSUPPORTED, "%s: %s.attention.head_count_kv %d differs from head_count %d, which is not supported",
                          b->file->path, b->prefix, n_kv_heads, h->n_heads);
    if (p->dim % h->n_heads)
        return status_set(KG_ERR_FORMAT, "%s: %s.embedding_length %d is not a multiple of attention.head_count %d", b->file->path,
                          b->prefix, p->dim, h->n_heads);
    h->head_dim = p->dim / h->n_heads;
    return KG_OK;
}

/* NAME.weight {in, out} and NAME.bias {out}. */
static kg_status linear(const struct arch_build *b, struct affine *a, int64_t in, int64_t out, int layer, const char *name)
{
    KG_TRY(arch_tensor(b, &a->w, false, in, out, "blk.%d.%s.weight", layer, name));
    return arch_tensor(b, &a->b, false, out, 1, "blk.%d.%s.bias", layer, name);
}

static kg_status norm(const struct arch_build *b, struct affine *a, int64_t dim, int layer, const char *name)
{
    KG_TRY(arch_tensor(b, &a->w, false, dim, 1, "blk.%d.%s.weight", layer, name));
    return arch_tensor(b, &a->b, false, dim, 1, "blk.%d.%s.bias", layer, name);
}

static kg_status layer_tensors(struct arch_build *b, int i)
{
    const struct gpt2 *h = b->h;
    struct gpt2_layer *l = &((struct gpt2_tensors *)b->t)->layers[i];
    int64_t dim = b->program->dim;
    struct affine qkv;
    KG_TRY(norm(b, &l->attn_norm, dim, i, "attn_norm"));
    KG_TRY(linear(b, &qkv, dim, 3 * dim, i, "attn_qkv"));
    KG_TRY(linear(b, &l->o, dim, dim, i, "attn_output"));
    KG_TRY(norm(b, &l->ffn_norm, dim, i, "ffn_norm"));
    KG_TRY(linear(b, &l->up, dim, h->ffn, i, "ffn_up"));
    KG_TRY(linear(b, &l->down, h->ffn, dim, i, "ffn_down"));
    struct affine *parts[3] = {&l->q, &l->k, &l->v};
    static const char *const tags[3] = {"q", "k", "v"};
    for (int j = 0; j < 3; j++) {
        KG_TRY(arch_part(b, &parts[j]->w, qkv.w, j * dim, dim, tags[j]));
        KG_TRY(arch_part(b, &parts[j]->b, qkv.b, j * dim, dim, tags[j]));
    }
    return KG_OK;
}

static kg_status tensors(struct arch_build *b)
{
    struct gpt2_tensors *t = b->t;
    const struct program *p = b->program;
    KG_TRY(arch_tensor(b, &t->embd, false, p->dim, p->n_vocab, "token_embd.weight"));
    KG_TRY(arch_tensor(b, &t->pos, false, p->dim, p->n_ctx, "position_embd.weight"));
    KG_TRY(arch_tensor(b, &t->norm.w, false, p->dim, 1, "output_norm.weight"));
    KG_TRY(arch_tensor(b, &t->norm.b, false, p->dim, 1, "output_norm.bias"));
    KG_TRY(arch_tensor(b, &t->output, true, p->dim, p->n_vocab, "output.weight"));
    if (!t->output) t->output = t->embd;
    t->layers = arena_array(&b->program->arena, (size_t)p->n_layers, sizeof *t->layers);
    if (!t->layers) return KG_ERR_MEMORY;
    for (int i = 0; i < p->n_layers; i++) KG_TRY(layer_tensors(b, i));
    return KG_OK;
}

static kg_status program(struct arch_build *b)
{
    const struct gpt2 *h = b->h;
    const struct gpt2_tensors *t = b->t;
    struct program *p = b->program;
    int x = program_reg(p, p->dim); /* the residual stream */
    int y = program_reg(p, p->dim);
    int q = program_reg(p, p->dim), k = program_reg(p, p->dim), v = program_reg(p, p->dim);
    int att = program_reg(p, p->dim);
    int ffn = program_reg(p, h->ffn);
    int logits = program_reg(p, p->n_vocab);

    program_embed(p, x, t->embd);
    program_pos_embed(p, x, x, t->pos);
    for (int i = 0; i < p->n_layers; i++) {
        const struct gpt2_layer *l = &t->layers[i];
        program_set_layer(p, i);
        program_layer_norm(p, y, x, l->attn_norm.w, l->attn_norm.b, h->eps);
        program_matmul(p, q, y, l->q.w, l->q.b);
        program_matmul(p, k, y, l->k.w, l->k.b);
        program_matmul(p, v, y, l->v.w, l->v.b);
        program_attention(p, att, q, k, v, h->n_heads, h->n_heads, h->head_dim, h->head_dim, 1 / sqrt(h->head_dim));
        program_matmul(p, y, att, l->o.w, l->o.b);
        program_add(p, x, x, y);
        program_layer_norm(p, y, x, l->ffn_norm.w, l->ffn_norm.b, h->eps);
        program_matmul(p, ffn, y, l->up.w, l->up.b);
        program_act(p, ffn, ffn, ACTIVATION_GELU_TANH);
        program_matmul(p, y, ffn, l->down.w, l->down.b);
        program_add(p, x, x, y);
        program_tap(p);
    }
    program_set_layer(p, -1);
    program_select(p, y, x);
    program_layer_norm(p, x, y, t->norm.w, t->norm.b, h->eps);
    program_matmul(p, logits, x, t->output, NULL);
    program_logits(p, logits);
    return KG_OK;
}

const struct arch arch_gpt2 = {"gpt2", sizeof(struct gpt2), sizeof(struct gpt2_tensors), hparams, tensors, program};
