/* Gemma 4, text: layers with a window and layers without have heads of different sizes; only pairs at the beginning of a head rotate in the latter. The
 * last layers may look at keys and values of earlier ones, each layer may get a row of its own for each token (beside the stream), and experts may stand
 * beside the plain feed-forward part. */
#include "model/decoder.h"

#include "base/half.h"
#include "tensor/decode.h"

#include <math.h>
#include <stdio.h>

enum { MAX_WIDE = 1 << 30 };

struct kind {
    int n_kv_heads, head_dim;
    struct rope rope;
    const struct tensor *ones; /* {head_dim}: values are normed without weights */
    int q, k, v, att;          /* registers; k and v hold what the last layer that has its own has made */
    int kv;                    /* its cache */
};

struct layer {
    int kind; /* DECODER_GLOBAL or DECODER_LOCAL */
    int ffn;
    bool shares; /* keys and values are those of the last layer of this kind that has some */
    const struct tensor *attn_norm, *q, *k, *v, *o, *q_norm, *k_norm, *attn_post_norm;
    const struct tensor *ffn_norm, *gate, *up, *down, *ffn_post_norm;
    const struct tensor *router, *router_scale, *gate_up_exps, *down_exps, *expert_scale, *exps_norm, *dense_post_norm, *exps_post_norm;
    const struct tensor *in_gate, *in_proj, *in_norm; /* of the layer's own row */
    double scale;
};

struct gemma4 {
    int n_heads, window, n_own; /* n_own: width of a layer's own row */
    int n_experts, expert_ffn;
    double eps, softcap;
    struct route route;
    struct kind kinds[DECODER_KINDS];
    struct layer *layers;
    const struct tensor *embd, *output, *norm, *own_embd, *own_proj, *own_norm;
};

/* ---- keys ---- */

static kg_status kind_of_layers(const struct arch_build *b, struct gemma4 *g)
{
    const int n = b->program->n_layers;
    int n_shared = 0, window, kv_heads, ffn;
    bool found, last[DECODER_KINDS] = {false, false};
    KG_TRY(arch_u32(b, "attention.shared_kv_layers", &n_shared, &found));
    KG_TRY(arch_u32(b, "attention.sliding_window", &g->window, &found));
    for (int i = 0; i < n; i++) {
        struct layer *l = &g->layers[i];
        KG_TRY(arch_u32_layer(b, "attention.sliding_window_pattern", i, &window));
        KG_TRY(arch_u32_layer(b, "attention.head_count_kv", i, &kv_heads));
        KG_TRY(arch_u32_layer(b, "feed_forward_length", i, &ffn));
        l->kind = window ? DECODER_LOCAL : DECODER_GLOBAL;
        l->ffn = ffn;
        l->shares = i >= n - n_shared;
        struct kind *k = &g->kinds[l->kind];
        if (kv_heads < 1 || ffn < 1 || (k->n_kv_heads && k->n_kv_heads != kv_heads) || g->n_heads % kv_heads)
            return status_set(KG_ERR_FORMAT, "%s: layer %d has %d heads of keys and a feed-forward part of %d, which does not fit", b->file->path, i, kv_heads, ffn);
        if (l->shares && !last[l->kind]) return status_set(KG_ERR_FORMAT, "%s: layer %d has no keys to look at", b->file->path, i);
        last[l->kind] |= !l->shares;
        k->n_kv_heads = kv_heads;
    }
    return KG_OK;
}

static kg_status rotations(struct arch_build *b, struct gemma4 *g)
{
    struct kind *global = &g->kinds[DECODER_GLOBAL], *local = &g->kinds[DECODER_LOCAL];
    bool found;
    int value = 0, local_value = 0, n_rot;
    double base = 10000;
    KG_TRY(arch_size(b, "attention.key_length", &global->head_dim));
    KG_TRY(arch_size(b, "attention.value_length", &value));
    local->head_dim = global->head_dim;
    KG_TRY(arch_u32(b, "attention.key_length_swa", &local->head_dim, &found));
    local_value = local->head_dim;
    KG_TRY(arch_u32(b, "attention.value_length_swa", &local_value, &found));
    if (value != global->head_dim || local_value != local->head_dim || local->head_dim < 2 || (int64_t)g->n_heads * MAX(value, local_value) > MAX_WIDE)
        return status_set(KG_ERR_FORMAT, "%s: heads of %d and %d, %d and %d", b->file->path, global->head_dim, value, local->head_dim, local_value);
    global->rope = (struct rope){.style = ROPE_HALVES, .n_heads = g->n_heads, .head_dim = global->head_dim};
    KG_TRY(arch_rope(b, &global->rope));
    local->rope = global->rope;
    n_rot = local->head_dim;
    KG_TRY(arch_u32(b, "rope.dimension_count_swa", &n_rot, &found));
    KG_TRY(arch_f64(b, "rope.freq_base_swa", &base, &found));
    local->rope.head_dim = local->head_dim;
    local->rope.n_rot = n_rot;
    local->rope.base = base;
    local->rope.scaling = ROPE_SCALING_NONE;
    local->rope.factors = NULL;
    return KG_OK;
}

static kg_status experts(struct arch_build *b, struct gemma4 *g)
{
    bool found;
    KG_TRY(arch_u32(b, "expert_count", &g->n_experts, &found));
    if (g->n_experts == 0) return KG_OK;
    KG_TRY(arch_size(b, "expert_used_count", &g->route.n_used));
    KG_TRY(arch_size(b, "expert_feed_forward_length", &g->expert_ffn));
    g->route.normed = true;
    g->route.scale = 1;
    if (g->route.n_used > g->n_experts || (int64_t)g->route.n_used * MAX(2 * (int64_t)g->expert_ffn, (int64_t)b->program->dim) > MAX_WIDE)
        return status_set(KG_ERR_FORMAT, "%s: %d of %d experts of width %d", b->file->path, g->route.n_used, g->n_experts, g->expert_ffn);
    return KG_OK;
}

static kg_status hparams(struct arch_build *b)
{
    struct gemma4 *g = b->h;
    bool found;
    KG_TRY(arch_sizes(b));
    KG_TRY(arch_size_layers(b, "attention.head_count", &g->n_heads));
    KG_TRY(arch_epsilon(b, "attention.layer_norm_rms_epsilon", &g->eps));
    KG_TRY(arch_f64(b, "final_logit_softcapping", &g->softcap, &found));
    KG_TRY(arch_u32(b, "embedding_length_per_layer_input", &g->n_own, &found));
    if ((int64_t)g->n_own * b->program->n_layers > MAX_WIDE) return status_set(KG_ERR_FORMAT, "%s: rows of %d for each layer", b->file->path, g->n_own);
    g->layers = arena_array(&b->program->arena, (size_t)b->program->n_layers, sizeof *g->layers);
    if (!g->layers) return KG_ERR_MEMORY;
    KG_TRY(kind_of_layers(b, g));
    KG_TRY(rotations(b, g));
    return experts(b, g);
}

/* ---- tensors ---- */

/* A file may have keys and values that are not used: of layers that look at those of others. */
static kg_status unused(const struct arch_build *b, int i)
{
    static const char *const names[] = {"attn_k", "attn_v", "attn_k_norm"};
    for (size_t k = 0; k < COUNT_OF(names); k++) {
        char text[64];
        snprintf(text, sizeof text, "blk.%d.%s.weight", i, names[k]);
        const struct tensor *t = file_tensor(b->file, text);
        if (t) program_knows(b->program, t);
    }
    return KG_OK;
}

static kg_status attention_tensors(const struct arch_build *b, const struct gemma4 *g, struct layer *l, int i)
{
    const struct kind *k = &g->kinds[l->kind];
    const int64_t dim = b->program->dim, q = (int64_t)g->n_heads * k->head_dim, kv = (int64_t)k->n_kv_heads * k->head_dim;
    KG_TRY(arch_tensor(b, &l->attn_norm, false, dim, 1, "blk.%d.attn_norm.weight", i));
    KG_TRY(arch_tensor(b, &l->q, false, dim, q, "blk.%d.attn_q.weight", i));
    KG_TRY(arch_tensor(b, &l->q_norm, false, k->head_dim, 1, "blk.%d.attn_q_norm.weight", i));
    KG_TRY(arch_tensor(b, &l->o, false, q, dim, "blk.%d.attn_output.weight", i));
    KG_TRY(arch_tensor(b, &l->attn_post_norm, false, dim, 1, "blk.%d.post_attention_norm.weight", i));
    if (l->shares) return unused(b, i);
    KG_TRY(arch_tensor(b, &l->k, false, dim, kv, "blk.%d.attn_k.weight", i));
    KG_TRY(arch_tensor(b, &l->v, true, dim, kv, "blk.%d.attn_v.weight", i)); /* else values are keys before their norm */
    return arch_tensor(b, &l->k_norm, false, k->head_dim, 1, "blk.%d.attn_k_norm.weight", i);
}

static kg_status expert_tensors(const struct arch_build *b, const struct gemma4 *g, struct layer *l, int i)
{
    const int64_t dim = b->program->dim, ffn = g->expert_ffn, n = g->n_experts;
    KG_TRY(arch_tensor(b, &l->router, true, dim, n, "blk.%d.ffn_gate_inp.weight", i));
    if (!l->router) return KG_OK;
    KG_TRY(arch_tensor(b, &l->router_scale, false, dim, 1, "blk.%d.ffn_gate_inp.scale", i));
    KG_TRY(arch_tensor_3d(b, &l->gate_up_exps, false, dim, 2 * ffn, n, "blk.%d.ffn_gate_up_exps.weight", i));
    KG_TRY(arch_tensor_3d(b, &l->down_exps, false, ffn, dim, n, "blk.%d.ffn_down_exps.weight", i));
    KG_TRY(arch_tensor(b, &l->expert_scale, true, n, 1, "blk.%d.ffn_down_exps.scale", i));
    KG_TRY(arch_tensor(b, &l->exps_norm, false, dim, 1, "blk.%d.pre_ffw_norm_2.weight", i));
    KG_TRY(arch_tensor(b, &l->dense_post_norm, false, dim, 1, "blk.%d.post_ffw_norm_1.weight", i));
    return arch_tensor(b, &l->exps_post_norm, false, dim, 1, "blk.%d.post_ffw_norm_2.weight", i);
}

static kg_status layer_tensors(const struct arch_build *b, const struct gemma4 *g, struct layer *l, int i)
{
    const int64_t dim = b->program->dim;
    const struct tensor *scale;
    KG_TRY(attention_tensors(b, g, l, i));
    KG_TRY(arch_tensor(b, &l->ffn_norm, false, dim, 1, "blk.%d.ffn_norm.weight", i));
    KG_TRY(arch_tensor(b, &l->gate, false, dim, l->ffn, "blk.%d.ffn_gate.weight", i));
    KG_TRY(arch_tensor(b, &l->up, false, dim, l->ffn, "blk.%d.ffn_up.weight", i));
    KG_TRY(arch_tensor(b, &l->down, false, l->ffn, dim, "blk.%d.ffn_down.weight", i));
    KG_TRY(arch_tensor(b, &l->ffn_post_norm, false, dim, 1, "blk.%d.post_ffw_norm.weight", i));
    if (g->n_experts > 0) KG_TRY(expert_tensors(b, g, l, i));
    if (g->n_own > 0) {
        KG_TRY(arch_tensor(b, &l->in_gate, false, dim, g->n_own, "blk.%d.inp_gate.weight", i));
        KG_TRY(arch_tensor(b, &l->in_proj, false, g->n_own, dim, "blk.%d.proj.weight", i));
        KG_TRY(arch_tensor(b, &l->in_norm, false, dim, 1, "blk.%d.post_norm.weight", i));
    }
    l->scale = 1;
    KG_TRY(arch_tensor(b, &scale, true, 1, 1, "blk.%d.layer_output_scale.weight", i));
    if (!scale) return KG_OK;
    float v;
    if (type_by_id((uint32_t)scale->type)->block > 1) return status_set(KG_ERR_UNSUPPORTED, "%s: tensor %s is quantized", b->file->path, scale->name);
    decode_f32(scale->type)(scale->data, &v, 1);
    l->scale = (double)v;
    program_knows(b->program, scale);
    return KG_OK;
}

static kg_status tensors(struct arch_build *b)
{
    struct gemma4 *g = b->h;
    struct program *p = b->program;
    const int64_t own = (int64_t)g->n_own * p->n_layers;
    KG_TRY(arch_tensor(b, &g->embd, false, p->dim, p->n_vocab, "token_embd.weight"));
    KG_TRY(arch_tensor(b, &g->norm, false, p->dim, 1, "output_norm.weight"));
    KG_TRY(arch_tensor(b, &g->output, true, p->dim, p->n_vocab, "output.weight"));
    if (!g->output) g->output = g->embd;
    if (g->n_own > 0) {
        KG_TRY(arch_tensor(b, &g->own_embd, false, own, p->n_vocab, "per_layer_token_embd.weight"));
        KG_TRY(arch_tensor(b, &g->own_proj, false, p->dim, own, "per_layer_model_proj.weight"));
        KG_TRY(arch_tensor(b, &g->own_norm, false, g->n_own, 1, "per_layer_proj_norm.weight"));
    }
    for (int i = 0; i < p->n_layers; i++) KG_TRY(layer_tensors(b, g, &g->layers[i], i));
    for (int i = 0; i < DECODER_KINDS; i++) KG_TRY(arch_ones(b, &g->kinds[i].ones, g->kinds[i].head_dim));
    return KG_OK;
}

/* ---- operations ---- */

struct builder {
    struct program *p;
    struct gemma4 *g;
    int x, y, z, gate, up, own, in, in_gate;
    int scores, route, both, expert_gate, expert_up, expert_down;
};

static void norm(const struct builder *o, int dst, int src, const struct tensor *w) { program_rms_norm(o->p, dst, src, w, NULL, o->g->eps); }

/* y -> y */
static void add_attention(const struct builder *o, const struct layer *l)
{
    struct program *p = o->p;
    struct kind *k = &o->g->kinds[l->kind];
    struct rope rope = k->rope;
    program_matmul(p, k->q, o->y, l->q, NULL);
    norm(o, k->q, k->q, l->q_norm);
    program_rope(p, k->q, &rope);
    if (!l->shares) {
        rope.n_heads = k->n_kv_heads;
        program_matmul(p, k->k, o->y, l->k, NULL);
        if (l->v) program_matmul(p, k->v, o->y, l->v, NULL);
        norm(o, k->v, l->v ? k->v : k->k, k->ones);
        norm(o, k->k, k->k, l->k_norm);
        program_rope(p, k->k, &rope);
        k->kv = p->n_kv;
    }
    program_attention_as(p, k->att, k->q, k->k, k->v,
                         &(struct attention){.n_heads = o->g->n_heads, .n_kv_heads = k->n_kv_heads, .k_dim = k->head_dim, .v_dim = k->head_dim, .scale = 1,
                                             .window = l->kind == DECODER_LOCAL ? o->g->window : 0, .shares = l->shares, .kv = k->kv});
    program_matmul(p, o->y, k->att, l->o, NULL);
    norm(o, o->y, o->y, l->attn_post_norm);
    program_add(p, o->x, o->x, o->y);
}

/* x -> z */
static void add_experts(const struct builder *o, const struct layer *l)
{
    struct program *p = o->p;
    const int n = o->g->route.n_used;
    norm(o, o->z, o->x, l->router_scale);
    program_scale(p, o->z, o->z, 1 / sqrt(p->dim));
    program_matmul(p, o->scores, o->z, l->router, NULL);
    program_route_scaled(p, o->route, o->scores, l->expert_scale, NULL, &o->g->route);
    norm(o, o->z, o->x, l->exps_norm);
    program_matmul_experts(p, o->both, o->z, o->route, l->gate_up_exps, NULL);
    program_take(p, o->expert_gate, o->both, n, 0);
    program_take(p, o->expert_up, o->both, n, o->g->expert_ffn);
    program_glu(p, o->expert_gate, o->expert_gate, o->expert_up, ACTIVATION_GELU_TANH);
    program_matmul_experts(p, o->expert_down, o->expert_gate, o->route, l->down_exps, NULL);
    program_combine(p, o->z, o->expert_down, o->route);
    norm(o, o->z, o->z, l->exps_post_norm);
}

static void add_ffn(struct builder *o, const struct layer *l, const int *gates)
{
    struct program *p = o->p;
    const int gate = gates[0], up = gates[1];
    norm(o, o->y, o->x, l->ffn_norm);
    program_matmul(p, gate, o->y, l->gate, NULL);
    program_matmul(p, up, o->y, l->up, NULL);
    program_glu(p, gate, gate, up, ACTIVATION_GELU_TANH);
    program_matmul(p, o->y, gate, l->down, NULL);
    if (l->router) {
        norm(o, o->y, o->y, l->dense_post_norm);
        add_experts(o, l);
        program_add(p, o->y, o->y, o->z);
    }
    norm(o, o->y, o->y, l->ffn_post_norm);
    program_add(p, o->x, o->x, o->y);
}

/* What the token gives this layer beside the stream. */
static void add_own(const struct builder *o, const struct layer *l, int i)
{
    struct program *p = o->p;
    program_take(p, o->in, o->own, 1, i * o->g->n_own);
    program_matmul(p, o->in_gate, o->x, l->in_gate, NULL);
    program_glu(p, o->in_gate, o->in_gate, o->in, ACTIVATION_GELU_TANH);
    program_matmul(p, o->y, o->in_gate, l->in_proj, NULL);
    norm(o, o->y, o->y, l->in_norm);
    program_add(p, o->x, o->x, o->y);
}

static void add_registers(struct builder *o)
{
    struct program *p = o->p;
    struct gemma4 *g = o->g;
    o->x = program_reg(p, p->dim);
    o->y = program_reg(p, p->dim);
    for (int i = 0; i < DECODER_KINDS; i++) {
        struct kind *k = &g->kinds[i];
        if (k->n_kv_heads == 0) continue; /* no layer is of this kind */
        k->q = program_reg(p, g->n_heads * k->head_dim);
        k->k = program_reg(p, k->n_kv_heads * k->head_dim);
        k->v = program_reg(p, k->n_kv_heads * k->head_dim);
        k->att = program_reg(p, g->n_heads * k->head_dim);
    }
    if (g->n_own > 0) {
        o->own = program_reg(p, g->n_own * p->n_layers);
        o->in = program_reg(p, g->n_own);
        o->in_gate = program_reg(p, g->n_own);
    }
    if (g->n_experts == 0) return;
    const int n = g->route.n_used;
    o->z = program_reg(p, p->dim);
    o->scores = program_reg(p, g->n_experts);
    o->route = program_reg(p, 2 * n);
    o->both = program_reg(p, 2 * n * g->expert_ffn);
    o->expert_gate = program_reg(p, n * g->expert_ffn);
    o->expert_up = program_reg(p, n * g->expert_ffn);
    o->expert_down = program_reg(p, n * p->dim);
}

/* The rows of all layers: what the token's embedding makes of a matrix, and a table of their own. */
static void add_own_rows(const struct builder *o)
{
    struct program *p = o->p;
    const struct gemma4 *g = o->g;
    const int made = program_reg(p, g->n_own * p->n_layers);
    program_embed(p, o->own, g->own_embd);
    program_scale(p, o->own, o->own, sqrt(g->n_own));
    program_matmul(p, made, o->x, g->own_proj, NULL);
    program_scale(p, made, made, 1 / sqrt(p->dim));
    norm(o, made, made, g->own_norm);
    program_add(p, o->own, o->own, made);
    program_scale(p, o->own, o->own, sqrt(0.5));
}

static kg_status program(struct arch_build *b)
{
    struct program *p = b->program;
    struct gemma4 *g = b->h;
    struct builder o = {.p = p, .g = g};
    add_registers(&o);
    const int logits = program_reg(p, p->n_vocab);
    int gates[2] = {-1, -1}, wide = 0;
    program_embed(p, o.x, g->embd);
    program_scale(p, o.x, o.x, sqrt(p->dim));
    if (g->n_own > 0) add_own_rows(&o);
    for (int i = 0; i < p->n_layers; i++) {
        const struct layer *l = &g->layers[i];
        program_set_layer(p, i);
        if (l->ffn != wide) { /* at most two widths, one after the other */
            wide = l->ffn;
            gates[0] = program_reg(p, wide);
            gates[1] = program_reg(p, wide);
        }
        norm(&o, o.y, o.x, l->attn_norm);
        add_attention(&o, l);
        add_ffn(&o, l, gates);
        if (g->n_own > 0) add_own(&o, l, i);
        program_scale(p, o.x, o.x, l->scale);
        program_tap(p);
    }
    program_set_layer(p, -1);
    program_select(p, o.y, o.x);
    norm(&o, o.x, o.y, g->norm);
    program_matmul(p, logits, o.x, g->output, NULL);
    if (g->softcap > 0) program_softcap(p, logits, logits, g->softcap);
    program_logits(p, logits);
    return KG_OK;
}

const struct arch arch_gemma4 = {"gemma4", sizeof(struct gemma4), 0, hparams, tensors, program, NULL};
