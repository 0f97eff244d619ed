/* Builds the decoder of decoder.h: keys, tensors, operations. Which architecture it is, is not known here: only its style. */
#include "model/decoder.h"

#include <math.h>
#include <stdio.h>

enum { MAX_WIDE = 1 << 30 };

/* ---- keys ---- */

static kg_status heads(struct arch_build *b, struct decoder *d)
{
    const struct program *p = b->program;
    if (d->block == DECODER_ONE) return KG_OK;
    KG_TRY(arch_size_layers(b, "attention.head_count", &d->n_heads));
    d->n_kv_heads = d->n_heads;
    if (d->style->mixed) {
        bool *some = arena_array(&b->program->arena, (size_t)p->n_layers, sizeof *some);
        if (!some) return KG_ERR_MEMORY;
        KG_TRY(arch_size_some_layers(b, "attention.head_count_kv", &d->n_kv_heads, some));
        for (int i = 0; i < p->n_layers; i++) d->layers[i].other = !some[i];
    } else {
        KG_TRY(arch_size_layers(b, "attention.head_count_kv", &d->n_kv_heads));
    }
    if (d->n_heads % d->n_kv_heads)
        return status_set(KG_ERR_FORMAT, "%s: %s.attention.head_count %d is not a multiple of head_count_kv %d", b->file->path, b->prefix,
                          d->n_heads, d->n_kv_heads);
    if (p->dim % d->n_heads == 0) /* else both keys must be there */
        d->k_dim = d->v_dim = p->dim / d->n_heads;
    KG_TRY(arch_size_layers(b, "attention.key_length", &d->k_dim));
    KG_TRY(arch_size_layers(b, "attention.value_length", &d->v_dim));
    if ((int64_t)d->n_heads * d->k_dim > MAX_WIDE || (int64_t)d->n_heads * d->v_dim > MAX_WIDE)
        return status_set(KG_ERR_FORMAT, "%s: %d heads of %d are too wide", b->file->path, d->n_heads, MAX(d->k_dim, d->v_dim));
    d->attn_scale = 1 / sqrt(d->k_dim);
    return KG_OK;
}

/* A key that may be absent; if it is there it must be finite and not below 0. */
static kg_status optional(const struct arch_build *b, const char *key, double *out)
{
    bool found;
    double v = *out;
    KG_TRY(arch_f64(b, key, &v, &found));
    if (!found) return KG_OK;
    if (!(isfinite(v) && v >= 0)) return status_set(KG_ERR_FORMAT, "%s: key %s.%s is %g", b->file->path, b->prefix, key, v);
    *out = v;
    return KG_OK;
}

static kg_status scales(struct arch_build *b, struct decoder *d)
{
    double attn_scale = 0;
    KG_TRY(optional(b, "attention.scale", &attn_scale));
    if (attn_scale > 0) d->attn_scale = attn_scale;
    if (d->style->embed_sqrt) d->embed_scale = sqrt(b->program->dim);
    KG_TRY(optional(b, "embedding_scale", &d->embed_scale));
    KG_TRY(optional(b, "residual_scale", &d->residual_scale));
    KG_TRY(optional(b, "logit_scale", &d->logit_scale));
    if (d->style->logits_divided && d->logit_scale > 0) d->logit_scale = 1 / d->logit_scale;
    KG_TRY(optional(b, "attn_logit_softcapping", &d->attn_softcap));
    KG_TRY(optional(b, "final_logit_softcapping", &d->softcap));
    KG_TRY(optional(b, "attention.clamp_kqv", &d->clamp));
    if (d->style->positions == DECODER_ALIBI) d->alibi = 8;
    return optional(b, "attention.max_alibi_bias", &d->alibi);
}

static kg_status windows(struct arch_build *b, struct decoder *d)
{
    int v = d->style->window, period = d->style->period, local = 0;
    bool found;
    char key[128];
    snprintf(key, sizeof key, "%s.attention.sliding_window_pattern", b->prefix);
    const struct meta *pattern = file_meta(b->file, key);
    const bool listed = pattern && pattern->type == META_ARR; /* newer files say it of each layer */
    KG_TRY(arch_u32(b, "attention.sliding_window", &v, &found));
    d->window = v; /* also if it is longer than the context: a session may go beyond */
    if (!listed) KG_TRY(arch_u32(b, "attention.sliding_window_pattern", &period, &found));
    for (int i = 0; i < b->program->n_layers; i++) {
        if (listed) KG_TRY(arch_u32_layer(b, "attention.sliding_window_pattern", i, &local));
        d->layers[i].kind = listed ? (local ? DECODER_LOCAL : DECODER_GLOBAL) : period == 0 || (d->style->period_begins ? i : i + 1) % period ? DECODER_LOCAL : DECODER_GLOBAL;
        if (v == 0 && d->style->local_base == 0) d->layers[i].kind = DECODER_GLOBAL;
        d->layers[i].rotates = d->style->positions == DECODER_ROTARY;
    }
    return KG_OK;
}

static kg_status rotation(struct arch_build *b, struct decoder *d)
{
    if (d->style->positions != DECODER_ROTARY) return KG_OK;
    d->rope[DECODER_GLOBAL] = (struct rope){.style = d->style->rope, .n_heads = d->n_heads, .head_dim = d->k_dim};
    KG_TRY(arch_rope(b, &d->rope[DECODER_GLOBAL]));
    struct rope *local = &d->rope[DECODER_LOCAL];
    *local = d->rope[DECODER_GLOBAL];
    double base = d->style->local_base;
    KG_TRY(optional(b, "rope.freq_base_swa", &base));
    if (base == 0) return KG_OK;
    local->base = base; /* which is not scaled */
    local->scaling = ROPE_SCALING_NONE;
    local->factors = NULL;
    return KG_OK;
}

static kg_status experts(struct arch_build *b, struct decoder *d)
{
    bool found;
    int gating = d->style->moe_sigmoid ? 2 : 1;
    KG_TRY(arch_u32(b, "expert_count", &d->n_experts, &found));
    if (d->n_experts == 0) return KG_OK;
    KG_TRY(arch_size(b, "expert_used_count", &d->route.n_used));
    d->expert_ffn = d->ffn;
    KG_TRY(arch_u32(b, "expert_feed_forward_length", &d->expert_ffn, &found));
    KG_TRY(arch_u32(b, "leading_dense_block_count", &d->n_first_dense, &found));
    d->route.eps = d->style->moe_eps;
    d->route.normed = d->style->moe_normed;
    KG_TRY(arch_bool(b, "expert_weights_norm", &d->route.normed, &found));
    KG_TRY(arch_u32(b, "expert_gating_func", &gating, &found));
    if (gating < 1 || gating > 3) return status_set(KG_ERR_UNSUPPORTED, "%s: key %s.expert_gating_func is %d", b->file->path, b->prefix, gating);
    d->route.sigmoid = gating == 2;
    d->route.normed |= gating == 3; /* softmax of the chosen ones: the same */
    d->route.scale = 0;
    KG_TRY(optional(b, "expert_weights_scale", &d->route.scale));
    KG_TRY(arch_u32(b, "moe_latent_size", &d->latent, &found));
    if (d->route.scale == 0) d->route.scale = 1;
    int shared = 0;
    KG_TRY(arch_u32(b, "expert_shared_count", &shared, &found));
    if (shared > 0 && shared < 1024) d->shared_ffn = (int)MIN((int64_t)shared * d->expert_ffn, (int64_t)MAX_WIDE);
    KG_TRY(arch_u32(b, "expert_shared_feed_forward_length", &d->shared_ffn, &found));
    KG_TRY(arch_u32(b, "expert_group_count", &d->route.n_groups, &found));
    KG_TRY(arch_u32(b, "expert_group_used_count", &d->route.n_groups_used, &found));
    if (d->route.n_used > d->n_experts || (int64_t)d->route.n_used * MAX(d->expert_ffn, MAX(b->program->dim, d->latent)) > MAX_WIDE)
        return status_set(KG_ERR_FORMAT, "%s: %d of %d experts of width %d", b->file->path, d->route.n_used, d->n_experts, d->expert_ffn);
    for (int i = d->n_first_dense; i < b->program->n_layers; i++) d->layers[i].moe = d->block != DECODER_EITHER || d->layers[i].ffn_only;
    return KG_OK;
}

static kg_status ffn_layers(struct arch_build *b, struct decoder *d)
{
    const int n = b->program->n_layers;
    bool *some = arena_array(&b->program->arena, (size_t)n, sizeof *some);
    if (!some) return KG_ERR_MEMORY;
    KG_TRY(arch_size_some_layers(b, "feed_forward_length", &d->ffn, some));
    for (int i = 0; i < n; i++) {
        struct decoder_layer *l = &d->layers[i];
        l->ffn_only = some[i];
        if (l->ffn_only && !l->other) return status_set(KG_ERR_UNSUPPORTED, "%s: layer %d has attention and a feed-forward part, which is not supported", b->file->path, i);
    }
    return KG_OK;
}

/* A file may say that a decoder has become an encoder: its tokens see both sides. */
static kg_status sides(struct arch_build *b, const struct decoder *d)
{
    const bool encoder = d->style->encoder, may_be = encoder || (d->block != DECODER_ONE && !d->style->mixed && !d->style->add_attention && d->window == 0);
    bool found, causal = !encoder;
    KG_TRY(arch_bool(b, "attention.causal", &causal, &found));
    if (causal ? encoder : !may_be)
        return status_set(KG_ERR_UNSUPPORTED, "%s: key %s.attention.causal is %s, which is not supported for this architecture", b->file->path, b->prefix, causal ? "true" : "false");
    b->program->is_encoder = !causal;
    return KG_OK;
}

kg_status decoder_hparams(struct arch_build *b)
{
    struct decoder *d = b->h;
    struct program *p = b->program;
    bool found;
    d->style = b->arch->style;
    d->block = d->style->block;
    d->attn_norm_name = "attn_norm";
    d->ffn_norm_name = d->style->ffn_norm ? d->style->ffn_norm : "ffn_norm";
    KG_TRY(arch_sizes(b));
    d->layers = arena_array(&p->arena, (size_t)p->n_layers, sizeof *d->layers);
    if (!d->layers) return KG_ERR_MEMORY;
    KG_TRY(heads(b, d));
    int n_experts = 0;
    KG_TRY(arch_u32(b, "expert_count", &n_experts, &found));
    if (n_experts > 0) /* files whose layers all have experts may lack it */
        KG_TRY(arch_u32(b, "expert_feed_forward_length", &d->ffn, &found));
    if (d->block == DECODER_EITHER) KG_TRY(ffn_layers(b, d));
    else if (d->block != DECODER_ONE) KG_TRY(arch_size_layers(b, "feed_forward_length", &d->ffn));
    KG_TRY(arch_epsilon(b, d->style->layer_norm ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon", &d->eps));
    KG_TRY(scales(b, d));
    KG_TRY(windows(b, d));
    KG_TRY(rotation(b, d));
    KG_TRY(experts(b, d));
    KG_TRY(sides(b, d));
    p->ctx_is_hard |= d->style->positions == DECODER_LEARNED;
    return d->style->adjust ? d->style->adjust(b, d) : KG_OK;
}

/* ---- tensors ---- */

kg_status decoder_affine(const struct arch_build *b, struct decoder_affine *a, int64_t in, int64_t out, int layer, const char *name)
{
    KG_TRY(arch_tensor(b, &a->w, false, in, out, "blk.%d.%s.weight", layer, name));
    return arch_tensor(b, &a->b, !((const struct decoder *)b->h)->style->biased, out == 1 ? in : out, 1, "blk.%d.%s.bias", layer, name);
}

static kg_status stack(const struct arch_build *b, struct decoder_affine *a, int64_t in, int64_t out, int layer, const char *name)
{
    const int64_t n = ((const struct decoder *)b->h)->n_experts;
    KG_TRY(arch_tensor_3d(b, &a->w, false, in, out, n, "blk.%d.%s.weight", layer, name));
    return arch_tensor(b, &a->b, true, out, n, "blk.%d.%s.bias", layer, name);
}

/* Norm of heads: one row for all, one for each, or all of them as one row. */
static kg_status head_norm(const struct arch_build *b, struct decoder_affine *a, int64_t head_dim, int64_t n_heads, int layer, const char *name)
{
    char text[64];
    snprintf(text, sizeof text, "blk.%d.%s.weight", layer, name);
    const struct tensor *t = file_tensor(b->file, text);
    int64_t ne0 = t && t->ne[0] == head_dim ? head_dim : head_dim * n_heads, ne1 = t && t->ne[0] == head_dim && t->ne[1] == n_heads ? n_heads : 1;
    KG_TRY(arch_tensor(b, &a->w, false, ne0, ne1, "blk.%d.%s.weight", layer, name));
    return arch_tensor(b, &a->b, true, ne0, ne1, "blk.%d.%s.bias", layer, name);
}

kg_status decoder_part(const struct arch_build *b, struct decoder_affine *a, const struct decoder_affine *from, int64_t first, int64_t n, const char *tag)
{
    KG_TRY(arch_part(b, &a->w, from->w, first, n, tag));
    return from->b ? arch_part(b, &a->b, from->b, first, n, tag) : KG_OK;
}

bool decoder_has(const struct arch_build *b, int layer, const char *name)
{
    char text[64];
    snprintf(text, sizeof text, "blk.%d.%s.weight", layer, name);
    return file_tensor(b->file, text) != NULL;
}

kg_status decoder_attention_tensors(const struct arch_build *b, const struct decoder *d, struct decoder_layer *l, int i)
{
    const int64_t dim = b->program->dim, q = (int64_t)d->n_heads * d->k_dim, k = (int64_t)d->n_kv_heads * d->k_dim, v = (int64_t)d->n_kv_heads * d->v_dim;
    if (decoder_has(b, i, "attn_qkv")) {
        struct decoder_affine all;
        KG_TRY(decoder_affine(b, &all, dim, q + k + v, i, "attn_qkv"));
        KG_TRY(decoder_part(b, &l->q, &all, 0, q, "q"));
        KG_TRY(decoder_part(b, &l->k, &all, q, k, "k"));
        KG_TRY(decoder_part(b, &l->v, &all, q + k, v, "v"));
    } else {
        KG_TRY(decoder_affine(b, &l->q, dim, q, i, "attn_q"));
        KG_TRY(decoder_affine(b, &l->k, dim, k, i, "attn_k"));
        KG_TRY(decoder_affine(b, &l->v, dim, v, i, "attn_v"));
    }
    KG_TRY(decoder_affine(b, &l->o, (int64_t)d->n_heads * d->v_dim, dim, i, "attn_output"));
    if (d->style->sinks) KG_TRY(arch_tensor(b, &l->sinks, false, d->n_heads, 1, "blk.%d.attn_sinks.weight", i));
    if (!d->style->qk_norm && !(d->style->qk_norm_maybe && decoder_has(b, i, "attn_q_norm"))) return KG_OK;
    KG_TRY(head_norm(b, &l->q_norm, d->k_dim, d->n_heads, i, "attn_q_norm"));
    return head_norm(b, &l->k_norm, d->k_dim, d->n_kv_heads, i, "attn_k_norm");
}

static kg_status expert_tensors(const struct arch_build *b, const struct decoder *d, struct decoder_layer *l, int i)
{
    const int64_t dim = b->program->dim, ffn = d->expert_ffn, shared = d->shared_ffn, seen = d->latent ? d->latent : dim;
    KG_TRY(decoder_affine(b, &l->router, dim, d->n_experts, i, "ffn_gate_inp"));
    KG_TRY(arch_tensor(b, &l->router_bias, true, d->n_experts, 1, "blk.%d.exp_probs_b.bias", i));
    if (d->latent > 0) {
        KG_TRY(decoder_affine(b, &l->latent_down, dim, d->latent, i, "ffn_latent_down"));
        KG_TRY(decoder_affine(b, &l->latent_up, d->latent, dim, i, "ffn_latent_up"));
    }
    if (!d->style->plain_ffn) KG_TRY(stack(b, &l->gate_exps, seen, ffn, i, "ffn_gate_exps"));
    KG_TRY(stack(b, &l->up_exps, seen, ffn, i, "ffn_up_exps"));
    KG_TRY(stack(b, &l->down_exps, ffn, seen, i, "ffn_down_exps"));
    if (shared == 0) return KG_OK;
    if (!d->style->plain_ffn) KG_TRY(decoder_affine(b, &l->shared_gate, dim, shared, i, "ffn_gate_shexp"));
    KG_TRY(decoder_affine(b, &l->shared_up, dim, shared, i, "ffn_up_shexp"));
    KG_TRY(decoder_affine(b, &l->shared_down, shared, dim, i, "ffn_down_shexp"));
    return arch_tensor(b, &l->shared_router.w, true, dim, 1, "blk.%d.ffn_gate_inp_shexp.weight", i);
}

static kg_status ffn_tensors(const struct arch_build *b, const struct decoder *d, struct decoder_layer *l, int i)
{
    const int64_t dim = b->program->dim, ffn = d->ffn;
    if (l->moe) return expert_tensors(b, d, l, i);
    if (!d->style->plain_ffn && !decoder_has(b, i, "ffn_gate")) { /* gate and up in one matrix */
        struct decoder_affine both;
        KG_TRY(decoder_affine(b, &both, dim, 2 * ffn, i, "ffn_up"));
        KG_TRY(decoder_part(b, &l->gate, &both, 0, ffn, "gate"));
        KG_TRY(decoder_part(b, &l->up, &both, ffn, ffn, "up"));
    } else {
        if (!d->style->plain_ffn) KG_TRY(decoder_affine(b, &l->gate, dim, ffn, i, "ffn_gate"));
        KG_TRY(decoder_affine(b, &l->up, dim, ffn, i, "ffn_up"));
    }
    return decoder_affine(b, &l->down, ffn, dim, i, "ffn_down");
}

static kg_status layer_tensors(const struct arch_build *b, const struct decoder *d, struct decoder_layer *l, int i)
{
    const int64_t dim = b->program->dim;
    const bool last = d->block == DECODER_NORM_BEHIND, before = d->block != DECODER_POST_NORM && !last;
    const bool behind = d->block == DECODER_POST_NORM || d->block == DECODER_SANDWICH || last;
    if (before && !(d->style->first_unnormed && i == 0)) KG_TRY(decoder_affine(b, &l->attn_norm, dim, 1, i, d->attn_norm_name));
    if (before && d->block != DECODER_PARALLEL && d->block != DECODER_ONE && d->block != DECODER_EITHER) KG_TRY(decoder_affine(b, &l->ffn_norm, dim, 1, i, d->ffn_norm_name));
    if (behind) KG_TRY(decoder_affine(b, &l->attn_post_norm, dim, 1, i, last ? "attn_output_norm" : "post_attention_norm"));
    if (behind) KG_TRY(decoder_affine(b, &l->ffn_post_norm, dim, 1, i, last ? "layer_output_norm" : "post_ffw_norm"));
    if (l->ffn_only) return ffn_tensors(b, d, l, i);
    KG_TRY((d->style->attention_tensors ? d->style->attention_tensors : decoder_attention_tensors)(b, d, l, i));
    return d->block == DECODER_ONE || d->block == DECODER_EITHER ? KG_OK : ffn_tensors(b, d, l, i);
}

kg_status decoder_tensors(struct arch_build *b)
{
    struct decoder *d = b->h;
    const struct program *p = b->program;
    KG_TRY(arch_tensor(b, &d->embd.w, false, p->dim, p->n_vocab, "token_embd.weight"));
    if (d->style->positions == DECODER_LEARNED) KG_TRY(arch_tensor(b, &d->pos, false, p->dim, p->n_ctx, "position_embd.weight"));
    if (d->style->embed_norm) {
        KG_TRY(arch_tensor(b, &d->embd_norm.w, false, p->dim, 1, "token_embd_norm.weight"));
        KG_TRY(arch_tensor(b, &d->embd_norm.b, true, p->dim, 1, "token_embd_norm.bias"));
    }
    if (d->style->token_types) {
        const struct tensor *types = file_tensor(b->file, "token_types.weight");
        KG_TRY(arch_tensor(b, &d->types, true, p->dim, types ? types->ne[1] : 1, "token_types.weight"));
    }
    const char *out_norm = d->style->out_norm ? d->style->out_norm : "output_norm";
    if (d->block != DECODER_NORM_BEHIND) {
        KG_TRY(arch_tensor(b, &d->norm.w, false, p->dim, 1, "%s.weight", out_norm));
        KG_TRY(arch_tensor(b, &d->norm.b, true, p->dim, 1, "%s.bias", out_norm));
    }
    if (!d->style->encoder) { /* of a decoder that has become one, they are not used */
        KG_TRY(arch_tensor(b, &d->output.w, true, p->dim, p->n_vocab, "output.weight"));
        KG_TRY(arch_tensor(b, &d->output.b, true, p->n_vocab, 1, "output.bias"));
        if (p->is_encoder && d->output.w) program_knows(b->program, d->output.w);
        if (p->is_encoder && d->output.b) program_knows(b->program, d->output.b);
        if (!d->output.w) d->output.w = d->embd.w;
    }
    for (int i = 0; i < p->n_layers; i++) KG_TRY(layer_tensors(b, d, &d->layers[i], i));
    return KG_OK;
}

/* ---- operations ---- */

struct builder {
    struct program *p;
    const struct decoder *d;
    int x; /* the residual stream */
    int y, z; /* of its width */
    int q, k, v, att, gate, up;
    int scores, route, weight, latent, expert_in, expert_gate, expert_up, expert_down, shared_gate, shared_up, shared_score;
};

static void norm(const struct builder *o, int dst, int src, const struct decoder_affine *a)
{
    (o->d->style->layer_norm ? program_layer_norm : program_rms_norm)(o->p, dst, src, a->w, a->b, o->d->eps);
}

static void linear(const struct builder *o, int dst, int src, const struct decoder_affine *a) { program_matmul(o->p, dst, src, a->w, a->b); }

static void norm_heads(const struct builder *o, const struct decoder_layer *l)
{
    if (l->q_norm.w) norm(o, o->q, o->q, &l->q_norm);
    if (l->k_norm.w) norm(o, o->k, o->k, &l->k_norm);
}

void decoder_attend(struct program *p, const struct decoder *d, const struct decoder_layer *l, const struct decoder_regs *r)
{
    program_attention_as(p, r->att, r->q, r->k, r->v,
                         &(struct attention){.n_heads = d->n_heads, .n_kv_heads = d->n_kv_heads, .k_dim = d->k_dim, .v_dim = d->v_dim,
                                             .scale = d->attn_scale, .softcap = d->attn_softcap, .alibi = d->alibi,
                                             .window = l->kind == DECODER_LOCAL ? d->window : 0, .chunked = d->style->chunked, .both = p->is_encoder, .sinks = l->sinks});
}

/* y -> dst; dst may be y. */
static void usual_attention(const struct builder *o, const struct decoder_layer *l, int dst)
{
    const struct decoder *d = o->d;
    linear(o, o->q, o->y, &l->q);
    linear(o, o->k, o->y, &l->k);
    linear(o, o->v, o->y, &l->v);
    if (d->clamp > 0) {
        program_clamp(o->p, o->q, o->q, d->clamp);
        program_clamp(o->p, o->k, o->k, d->clamp);
        program_clamp(o->p, o->v, o->v, d->clamp);
    }
    if (!d->style->qk_norm_late) norm_heads(o, l);
    if (l->rotates) {
        struct rope rope = d->rope[l->kind];
        program_rope(o->p, o->q, &rope);
        rope.n_heads = d->n_kv_heads;
        program_rope(o->p, o->k, &rope);
    }
    if (d->style->qk_norm_late) norm_heads(o, l);
    if ((!l->rotates || d->style->warm_all) && d->temperature != 0) program_pos_scale(o->p, o->q, o->q, d->temperature, d->temperature_length, !d->style->warm_all);
    decoder_attend(o->p, d, l, &(struct decoder_regs){o->y, o->q, o->k, o->v, o->att});
    linear(o, dst, o->att, &l->o);
}

void decoder_add_attention(struct program *p, const struct decoder *d, const struct decoder_layer *l, const struct decoder_regs *r, int dst)
{
    usual_attention(&(struct builder){.p = p, .d = d, .y = r->y, .q = r->q, .k = r->k, .v = r->v, .att = r->att}, l, dst);
}

static void add_attention(const struct builder *o, const struct decoder_layer *l, int dst)
{
    (o->d->style->add_attention ? o->d->style->add_attention : decoder_add_attention)(o->p, o->d, l, &(struct decoder_regs){o->y, o->q, o->k, o->v, o->att}, dst);
}

/* down(act(gate) * up), or of a plain one down(act(up)). */
static void add_gated(const struct builder *o, int dst, int src, int gate, int up, const struct decoder_affine *wg, const struct decoder_affine *wu,
                      const struct decoder_affine *wd)
{
    const bool plain = o->d->style->plain_ffn;
    if (!plain) linear(o, gate, src, wg);
    linear(o, up, src, wu);
    if (plain) program_act(o->p, up, up, o->d->style->act);
    else program_glu(o->p, gate, gate, up, o->d->style->act);
    linear(o, dst, plain ? up : gate, wd);
}

/* Into the register returned: what the chosen experts make of y. */
static int add_chosen(const struct builder *o, const struct decoder_layer *l)
{
    struct program *p = o->p;
    const bool plain = o->d->style->plain_ffn;
    int in = o->y;
    linear(o, o->scores, o->y, &l->router);
    program_route(p, o->route, o->scores, l->router_bias, &o->d->route);
    if (o->d->style->moe_weighs_input) {
        program_take(p, o->weight, o->route, 1, 1);
        program_gate(p, in = o->expert_in, o->y, o->weight, ACTIVATION_RELU); /* of a sigmoid: itself */
    }
    if (l->latent_down.w) linear(o, in = o->latent, o->y, &l->latent_down);
    if (!plain) program_matmul_experts(p, o->expert_gate, in, o->route, l->gate_exps.w, l->gate_exps.b);
    program_matmul_experts(p, o->expert_up, in, o->route, l->up_exps.w, l->up_exps.b);
    if (plain) program_act(p, o->expert_up, o->expert_up, o->d->style->act);
    else program_glu(p, o->expert_gate, o->expert_gate, o->expert_up, o->d->style->act);
    program_matmul_experts(p, o->expert_down, plain ? o->expert_up : o->expert_gate, o->route, l->down_exps.w, l->down_exps.b);
    if (o->d->style->moe_weighs_input) return o->expert_down;
    const int dst = l->shared_down.w ? o->z : o->y;
    program_combine(p, l->latent_up.w ? o->latent : dst, o->expert_down, o->route);
    if (l->latent_up.w) linear(o, dst, o->latent, &l->latent_up);
    return dst;
}

/* y -> y */
static void add_experts(const struct builder *o, const struct decoder_layer *l)
{
    struct program *p = o->p;
    const int chosen = add_chosen(o, l);
    if (chosen == o->y) return;
    if (l->shared_router.w) linear(o, o->shared_score, o->y, &l->shared_router);
    add_gated(o, o->y, o->y, o->shared_gate, o->shared_up, &l->shared_gate, &l->shared_up, &l->shared_down);
    if (l->shared_router.w) program_gate(p, o->y, o->y, o->shared_score, ACTIVATION_SIGMOID);
    program_add(p, o->y, o->y, chosen);
}

/* y -> y */
static void add_ffn(const struct builder *o, const struct decoder_layer *l)
{
    if (l->moe) {
        add_experts(o, l);
    } else if (l->xielu) {
        linear(o, o->up, o->y, &l->up);
        program_xielu(o->p, o->up, o->up, l->xielu);
        linear(o, o->y, o->up, &l->down);
    } else {
        add_gated(o, o->y, o->y, o->gate, o->up, &l->gate, &l->up, &l->down);
    }
}

static void add_residual(const struct builder *o, int reg)
{
    if (o->d->residual_scale > 0) program_scale(o->p, reg, reg, o->d->residual_scale);
    program_add(o->p, o->x, o->x, reg);
}

/* The source of the attention or the ffn into y; without a norm it is a copy of the stream. */
static void add_source(const struct builder *o, const struct decoder_affine *a)
{
    if (a->w) norm(o, o->y, o->x, a);
    else program_scale(o->p, o->y, o->x, 1);
}

static void add_layer(const struct builder *o, const struct decoder_layer *l)
{
    add_source(o, &l->attn_norm);
    if (o->d->block == DECODER_PARALLEL || o->d->block == DECODER_PARALLEL_TWO) {
        add_attention(o, l, o->z);
        if (o->d->block == DECODER_PARALLEL_TWO) add_source(o, &l->ffn_norm);
        add_ffn(o, l);
        add_residual(o, o->z);
        add_residual(o, o->y);
        return;
    }
    if (l->ffn_only) add_ffn(o, l);
    else add_attention(o, l, o->y);
    if (o->d->block == DECODER_NORM_BEHIND) {
        add_residual(o, o->y);
        norm(o, o->x, o->x, &l->attn_post_norm);
        add_source(o, &l->ffn_norm);
        add_ffn(o, l);
        add_residual(o, o->y);
        norm(o, o->x, o->x, &l->ffn_post_norm);
        return;
    }
    if (l->attn_post_norm.w) norm(o, o->y, o->y, &l->attn_post_norm);
    add_residual(o, o->y);
    if (o->d->block == DECODER_ONE || o->d->block == DECODER_EITHER) return;
    add_source(o, &l->ffn_norm);
    add_ffn(o, l);
    if (l->ffn_post_norm.w) norm(o, o->y, o->y, &l->ffn_post_norm);
    add_residual(o, o->y);
}

static void add_registers(struct builder *o)
{
    struct program *p = o->p;
    const struct decoder *d = o->d;
    bool dense = d->n_experts == 0 || d->n_first_dense > 0;
    for (int i = 0; i < p->n_layers; i++) dense |= !d->layers[i].moe && (d->block != DECODER_EITHER || d->layers[i].ffn_only);
    o->x = program_reg(p, p->dim);
    o->y = program_reg(p, p->dim);
    if (d->block == DECODER_ONE) return;
    o->q = program_reg(p, d->n_heads * d->k_dim);
    o->k = program_reg(p, d->n_kv_heads * d->k_dim);
    o->v = program_reg(p, d->n_kv_heads * d->v_dim);
    o->att = program_reg(p, d->n_heads * d->v_dim);
    if (dense) {
        o->gate = d->style->plain_ffn ? -1 : program_reg(p, d->ffn);
        o->up = program_reg(p, d->ffn);
    }
    if (d->block == DECODER_PARALLEL || d->block == DECODER_PARALLEL_TWO || d->shared_ffn > 0) o->z = program_reg(p, p->dim);
    if (d->n_experts == 0) return;
    const int n = d->route.n_used;
    o->scores = program_reg(p, d->n_experts);
    o->route = program_reg(p, 2 * n);
    if (d->style->moe_weighs_input) o->weight = program_reg(p, 1);
    if (d->style->moe_weighs_input) o->expert_in = program_reg(p, p->dim);
    if (d->latent > 0) o->latent = program_reg(p, d->latent);
    if (!d->style->plain_ffn) o->expert_gate = program_reg(p, n * d->expert_ffn);
    o->expert_up = program_reg(p, n * d->expert_ffn);
    o->expert_down = program_reg(p, n * (d->latent ? d->latent : p->dim));
    if (d->shared_ffn == 0) return;
    if (!d->style->plain_ffn) o->shared_gate = program_reg(p, d->shared_ffn);
    o->shared_up = program_reg(p, d->shared_ffn);
    o->shared_score = program_reg(p, 1);
}

kg_status decoder_program(struct arch_build *b)
{
    struct program *p = b->program;
    const struct decoder *d = b->h;
    struct builder o = {.p = p, .d = d, .z = -1};
    add_registers(&o);
    int logits = program_reg(p, program_n_out(p));

    program_embed(p, o.x, d->embd.w);
    if (d->embed_scale > 0) program_scale(p, o.x, o.x, d->embed_scale);
    if (d->types) program_add_row(p, o.x, o.x, d->types);
    if (d->pos) program_pos_embed(p, o.x, o.x, d->pos);
    if (d->embd_norm.w) norm(&o, o.x, o.x, &d->embd_norm);
    for (int i = 0; i < p->n_layers; i++) {
        program_set_layer(p, i);
        add_layer(&o, &d->layers[i]);
        program_tap(p);
    }
    program_set_layer(p, -1);
    if (p->is_encoder) {
        program_select(p, d->norm.w ? o.y : logits, o.x);
        if (d->norm.w) norm(&o, logits, o.y, &d->norm);
        program_logits(p, logits);
        return KG_OK;
    }
    program_select(p, o.y, o.x);
    norm(&o, o.x, o.y, &d->norm);
    linear(&o, logits, o.x, &d->output);
    if (d->logit_scale > 0) program_scale(p, logits, logits, d->logit_scale);
    if (d->softcap > 0) program_softcap(p, logits, logits, d->softcap);
    program_logits(p, logits);
    return KG_OK;
}
