/* The decoder that most architectures are: attention and a feed-forward part around a residual stream. What of it an architecture has is a
 * struct decoder_style; its file in src/arch is little more. Biases, fused projections and output weights of its own are taken where the
 * file has them; everything else must be there, and model_open refuses tensors that no operation reads. */
#ifndef MODEL_DECODER_H
#define MODEL_DECODER_H

#include "model/arch.h"

enum decoder_block {
    DECODER_PRE_NORM,     /* x += attention(norm(x)), x += ffn(norm(x)) */
    DECODER_POST_NORM,    /* x += norm(attention(x)), x += norm(ffn(x)) */
    DECODER_NORM_BEHIND,  /* x = norm(x + attention(x)), x = norm(x + ffn(x)) (BERT) */
    DECODER_SANDWICH,     /* x += norm(attention(norm(x))), x += norm(ffn(norm(x))) */
    DECODER_PARALLEL,     /* y = norm(x), x += attention(y) + ffn(y) */
    DECODER_ONE,          /* x += attention(norm(x)), where style->add_attention is what the architecture has instead; heads and ffn are not asked for */
    DECODER_PARALLEL_TWO, /* x += attention(norm(x)) + ffn(another norm(x)) */
    DECODER_EITHER,       /* x += attention(norm(x)) in some layers, x += ffn(norm(x)) in those whose feed_forward_length is not 0 */
};

enum decoder_positions { DECODER_ROTARY, DECODER_LEARNED, DECODER_ALIBI, DECODER_NO_POSITIONS };

/* Attention of a layer, as its kind. */
enum { DECODER_GLOBAL, DECODER_LOCAL, DECODER_KINDS };

struct decoder;
struct decoder_layer;

/* Registers of an attention: y is its source, the others hold queries, keys, values and what comes out of the attention. */
struct decoder_regs {
    int y, q, k, v, att;
};

struct decoder_style {
    enum decoder_block block;
    enum decoder_positions positions;
    enum rope_style rope; /* as the rows of GGUF's Q and K want it */
    enum activation act;
    bool layer_norm;      /* instead of RMSNorm */
    bool plain_ffn;       /* down(act(up(x))), not down(act(gate(x)) * up(x)) */
    bool biased;          /* every linear map and norm of a layer has a bias; else those that the file has */
    bool qk_norm;         /* q and k are normed, head by head or as a whole: as the tensors' shapes say */
    bool qk_norm_maybe;   /* only if the file has them */
    bool qk_norm_late;    /* behind the rotation */
    bool encoder;         /* tokens see both sides, no text is made: the result is the state of each token */
    bool token_types;     /* the first row of those is added to embeddings */
    bool first_unnormed;  /* the first layer has no norm before its attention */
    bool period_begins;   /* the layer that sees everything is the first of its period */
    bool embed_norm;      /* a norm behind the embedding */
    bool embed_sqrt;      /* embeddings times sqrt(dim) */
    bool logits_divided;  /* key logit_scale divides */
    bool sinks;
    int window;           /* of a file that does not say; 0: none */
    bool chunked;         /* windows do not slide */
    int period;           /* of every so many layers only the last sees beyond the window; 0: all have it */
    double local_base;    /* base of the rotation in layers with a window; 0: as the others */
    bool moe_sigmoid, moe_normed; /* unless keys of the file say */
    bool warm_all;                /* queries of layers that rotate have a temperature, too, which counts positions from 0 */
    double moe_eps; /* see struct route */
    bool moe_weighs_input;        /* an expert's weight multiplies what goes into it; only one is chosen */
    const char *ffn_norm; /* name of that tensor; NULL: "ffn_norm" */
    const char *out_norm; /* NULL: "output_norm" */
    bool mixed;           /* only some layers have attention: those whose attention.head_count_kv is not 0; the functions below do the others */
    /* Another way from y to q, k and v, and from att to dst, as deepseek2 has it. NULL: the usual one */
    kg_status (*attention_tensors)(const struct arch_build *b, const struct decoder *d, struct decoder_layer *l, int i);
    void (*add_attention)(struct program *p, const struct decoder *d, const struct decoder_layer *l, const struct decoder_regs *r, int dst);
    /* After the keys are read and before tensors are looked for. NULL: none */
    kg_status (*adjust)(struct arch_build *b, struct decoder *d);
};

/* A linear map or norm. NULL: there is none. */
struct decoder_affine {
    const struct tensor *w, *b;
};

struct decoder_layer {
    int kind;     /* DECODER_GLOBAL or DECODER_LOCAL */
    bool rotates;
    bool moe;
    bool other; /* of style->mixed: without attention */
    bool ffn_only; /* of DECODER_EITHER */
    struct decoder_affine attn_norm, q, k, v, o, q_norm, k_norm, attn_post_norm;
    struct decoder_affine ffn_norm, gate, up, down, ffn_post_norm;
    struct decoder_affine router, gate_exps, up_exps, down_exps, latent_down, latent_up, shared_gate, shared_up, shared_down, shared_router;
    const struct tensor *router_bias, *sinks;
    const struct xielu *xielu; /* instead of style->act, in a plain one. NULL: none */
    void *own; /* of style->attention_tensors */
};

struct decoder {
    const struct decoder_style *style;
    enum decoder_block block; /* as style, unless changed by adjust */
    const char *attn_norm_name, *ffn_norm_name;
    int n_heads, n_kv_heads, k_dim, v_dim, ffn;
    double eps;
    struct rope rope[DECODER_KINDS]; /* of queries; keys differ in n_heads */
    int window;                      /* of local layers; 0: they see everything */
    double attn_scale, attn_softcap, alibi, clamp;              /* the last three: 0: none */
    double temperature; /* of queries in layers that do not rotate, see POS_SCALE; 0: none */
    int temperature_length;
    double embed_scale, residual_scale, logit_scale, softcap;   /* 0: none; logit_scale multiplies */
    int n_experts, n_first_dense, expert_ffn, shared_ffn;       /* 0: none */
    int latent; /* the chosen experts see a row of this width that a matrix makes of theirs, and another one brings back what they make of it; 0: they see theirs */
    struct route route;
    struct decoder_affine embd, embd_norm, norm, output;
    const struct tensor *pos, *types;
    struct decoder_layer *layers; /* [n_layers] */
    void *own; /* of the style's functions */
};

/* blk.LAYER.NAME.weight {in, out} and .bias {out}, which may be missing; out 1: a norm. */
kg_status decoder_affine(const struct arch_build *b, struct decoder_affine *a, int64_t in, int64_t out, int layer, const char *name);
/* Whether blk.LAYER.NAME.weight is there. */
bool decoder_has(const struct arch_build *b, int layer, const char *name);
/* The usual ways from y to dst, for layers of a style->mixed that have attention. */
kg_status decoder_attention_tensors(const struct arch_build *b, const struct decoder *d, struct decoder_layer *l, int i);
void decoder_add_attention(struct program *p, const struct decoder *d, const struct decoder_layer *l, const struct decoder_regs *r, int dst);
/* Rows [first, first + n) of a fused matrix and of its bias. */
kg_status decoder_part(const struct arch_build *b, struct decoder_affine *a, const struct decoder_affine *from, int64_t first, int64_t n, const char *tag);
/* The attention over r->q, r->k, r->v, as the layer wants it, into r->att. */
void decoder_attend(struct program *p, const struct decoder *d, const struct decoder_layer *l, const struct decoder_regs *r);

kg_status decoder_hparams(struct arch_build *b);
kg_status decoder_tensors(struct arch_build *b);
kg_status decoder_program(struct arch_build *b);

/* const struct arch arch_NAME = DECODER_ARCH("name", ...members of struct decoder_style...); */
#define DECODER_ARCH(NAME, ...) \
    {NAME, sizeof(struct decoder), 0, decoder_hparams, decoder_tensors, decoder_program, &(const struct decoder_style){__VA_ARGS__}}

#endif
