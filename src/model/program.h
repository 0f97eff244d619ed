/* A program: what a model computes, as a flat list of coarse operations over registers, built once at load by an
 * architecture and run by every backend. A register holds one row of `width` numbers per token of the batch.
 *
 * Operations, one row each. t counts tokens of the batch, x is src[0] unless said; all sums over the last dimension.
 *   EMBED       dst[t] = row token[t] of w                                          w {width, n_vocab}
 *   POS_EMBED   dst[t] = x[t] + row pos[t] of w                                     w {width, n_ctx}
 *   ADD_ROW     dst[t] = x[t] + row 0 of w                                         w {width, any}
 *   RMS_NORM    dst[t] = x[t] / sqrt(mean(x[t]^2) + eps) * w [+ b]
 *   LAYER_NORM  dst[t] = (x[t] - mean) / sqrt(var + eps) * w [+ b]                  w, b {width}
 *               Norms of heads: with w, b {g} or {g, width / g} every g elements are a row of their own, of one w for all or one w each.
 *               w NULL: as if all 1, and b is NULL too.
 *   MATMUL      dst[t][o] = sum_i w(o)[i] x[t][i] [+ b[o]]                          w {in, out}, b {out}
 *   ROPE        rotates pairs of each of n_heads heads of dst in place by pos[t]    see struct rope
 *   ATTENTION   stores k = src[1], v = src[2] in layer `kv`, at the token's position; then for each head h with kv head
 *               h / (n_heads / n_kv_heads): dst[t] = softmax_j(s_j) v_j over positions j <= pos[t] of the token's sequence, with
 *               s_j = scale q.k_j, then what struct attention adds
 *   ACT         dst[t] = f(x[t])
 *   GLU         dst[t] = f(x[t]) * src[1][t]                                        SWIGLU_OAI: see enum activation
 *   ADD         dst[t] = x[t] + src[1][t]
 *   GATE        dst[t] = f(src[1][t][0]) * x[t]                                     src[1] has width 1
 *   SCALE       dst[t] = value * x[t]
 *   ADAPT       dst[t] = value * s x[t], s: how strong the operation's adapter is in the token's sequence; 0 where that is 0
 *               Operations of an adapter (op.adapter) change nothing where that is 0: a batch may go without those that none of its sequences has.
 *   POS_SCALE   dst[t] = x[t] (1 + value ln(1 + floor((pos[t] + first) / length)))
 *   SOFTCAP     dst[t] = value * tanh(x[t] / value)
 *   CLAMP       dst[t] = x[t], at least -value and at most value
 *   XIELU       dst[t] = above * x[t]^2 + linear * x[t] where x[t] > 0, else below * (e^min(x[t], eps) - 1 - x[t]) + linear * x[t], eps <= 0
 *               (Huang and Schlag 2024, arXiv 2411.13010)
 *   ROUTE       x: a number for each expert. dst {2 n_used}: the chosen experts' numbers, then their weights   see struct route
 *   MATMUL_EXPERTS  for each chosen expert s, e = src[1][t][s]: dst[t][s][o] = sum_i w(e)(o)[i] x[t][s][i] [+ b(e)[o]]; x may have
 *               the width of one: then it is the same for all                       w {in, out, experts}, b {out, experts}, src[1] from ROUTE
 *               src[1] none: for every expert s of w, e = s
 *   COMBINE     dst[t] = sum_s src[1][t][n_used + s] x[t][s]                        src[1] from ROUTE
 *   TAKE        of each of n_heads heads of x: dst[t][h][i] = x[t][h][first + i]
 *   JOIN        each of n_heads heads of x, then that of src[1]: dst[t][h] = (x[t][h], src[1][t][h])
 *   MUL         dst[t] = x[t] * src[1][t]
 *   LERP        dst[t] = x[t] + src[1][t] * w                                       w {width}
 *   CONV        each number of x over the tokens of its sequence: dst[t][c] = sum_k w(c)[k] x[t - taps + 1 + k][c] [+ b[c]]; before the first
 *               token x is 0                                                        w {taps, width}, b {width}
 *   SCAN        a state h {n_state, head_dim} for each of n_heads heads, of group g = head / (n_heads / n_groups), with d = softplus(src[1][t][head]):
 *               h(p)[n] = exp(d w(head)[n]) h(p)[n] + d src[2][t][B][g][n] x[t][head][p]
 *               dst[t][head][p] = sum_n src[2][t][C][g][n] h(p)[n] + b[head] x[t][head][p]   src[2] {2, n_groups, n_state}: B, then C
 *               (selective state spaces: Gu and Dao 2023, arXiv 2312.00752; 2024, arXiv 2405.21060)   w {n_state or 1, n_heads}, b {n_heads}
 *   DELTA       a state S {v_dim, k_dim} for each of n_heads heads. x {2, n_k_heads, k_dim, then n_heads, v_dim}: q, k, v. q and k of k head
 *               head / (n_heads / n_k_heads), or if tiled head mod n_k_heads, each divided by sqrt(its sum of squares + eps), q also by sqrt(k_dim); src[1] in n_k_heads
 *               parts: g of as many heads, then their a:
 *               S = exp(w[head] softplus(a[head] + b[head])) S, then S(i) += k[i] sigmoid(g[head]) (v - sum_j k[j] S(j)), of the S before it
 *               dst[t][head] = sum_i q[i] S(i)                                      w, b {n_heads}
 *               (gated delta rule: Yang et al. 2024, arXiv 2412.06464)
 *   WKV         a state S {head_dim, head_dim} for each of n_heads heads. x {2, n_heads, head_dim}: r, k; src[1] {2, n_heads, head_dim}: g, a; v = src[2];
 *               w {n_heads head_dim, 3}: u, c, m. With a = sigmoid(a), k' = k (1 + (a - 1) c), and n = k u, head by head divided by max(its length, eps):
 *               S(i) = exp(-exp(-1/2) sigmoid(g[i])) S(i) - n[i] a[i] sum_j n[j] S(j) + k'[i] v, of the S before it
 *               dst[t] {2, n_heads, head_dim}: sum_i r[i] S(i), then v sum_i r[i] k'[i] m[i]                w {n_heads head_dim, 3}
 *               (generalized delta rule of RWKV-7: Peng et al. 2025, arXiv 2503.14456)
 *               What CONV, SCAN, DELTA and WKV keep from token to token is the sequence's state: n_state numbers from `state` on, zero before the
 *               first token.
 *   SELECT      keeps the tokens that want logits: from here on the batch is only those, in order   dst[s] = x[t_s]
 *               An architecture has one, after the last layer; program_finish moves it up to where other tokens stop to matter, one
 *               for each register that is alive there, side by side.
 *   LOGITS      src[0] is what the caller gets, of the width of the vocabulary; of an encoder the state   the last operation
 */
#ifndef MODEL_PROGRAM_H
#define MODEL_PROGRAM_H

#include "tensor/tensor.h"

/* X(ENUM, "name") */
#define PROGRAM_OPS(X)                                                                                                             \
    X(EMBED, "embed") X(POS_EMBED, "pos_embed") X(ADD_ROW, "add_row") X(RMS_NORM, "rms_norm") X(LAYER_NORM, "layer_norm") X(MATMUL, "matmul") X(ROPE, "rope") \
    X(ATTENTION, "attention") X(ACT, "act") X(GLU, "glu") X(ADD, "add") X(GATE, "gate") X(SCALE, "scale") X(ADAPT, "adapt") X(POS_SCALE, "pos_scale") X(SOFTCAP, "softcap")      \
    X(CLAMP, "clamp") X(XIELU, "xielu") X(ROUTE, "route") X(MATMUL_EXPERTS, "matmul_experts") X(COMBINE, "combine") X(TAKE, "take")    \
    X(JOIN, "join") X(MUL, "mul")                            \
    X(CONV, "conv") X(SCAN, "scan") X(DELTA, "delta") X(WKV, "wkv") X(LERP, "lerp") X(SELECT, "select") X(LOGITS, "logits")
enum op_code {
#define X(ENUM, name) OP_##ENUM,
    PROGRAM_OPS(X)
#undef X
    OP_N_CODES
};
const char *op_name(enum op_code code);

enum activation {
    ACTIVATION_SILU,
    ACTIVATION_GELU_TANH,
    ACTIVATION_GELU_ERF,
    ACTIVATION_RELU,
    ACTIVATION_RELU_SQUARED, /* relu(x)^2 */
    ACTIVATION_SIGMOID,
    ACTIVATION_TANH,
    /* only in GLU: x at most 7, src[1] within -7 and 7: x sigmoid(1.702 x) (src[1] + 1)                   (gpt-oss) */
    ACTIVATION_SWIGLU_OAI,
    ACTIVATION_N
};

enum rope_style {
    ROPE_INTERLEAVED, /* pairs (2i, 2i+1) */
    ROPE_HALVES,      /* pairs (i, i + n_rot/2) (GPT-NeoX) */
};
enum rope_scaling { ROPE_SCALING_NONE, ROPE_SCALING_LINEAR, ROPE_SCALING_LLAMA3, ROPE_SCALING_YARN };

/* Pair i < n_rot/2 of each head turns by angle pos * f_i; elements from n_rot on stay. f_i = base^(-2i/n_rot) / factors[i], then
 *   LINEAR  f_i / factor
 *   LLAMA3  by wavelength L = 2 pi / f_i: L < ctx/high_freq: f_i; L > ctx/low_freq: f_i / factor; between: linear in
 *           s = (ctx/L - low_freq) / (high_freq - low_freq): (1-s) f_i / factor + s f_i          (Llama 3.1 reference code)
 *   YARN    (1-m) f_i / factor + m f_i with m = ext_factor (1 - clamp((i - low) / max(high - low, 0.001), 0, 1)), where
 *           low = max(floor(D(beta_fast)), 0), high = min(ceil(D(beta_slow)), n_rot - 1) (no floor and ceil: fractions), and
 *           D(beta) = n_rot ln(ctx / (2 pi beta)) / (2 ln base) is the pair that turns beta times over ctx; cos and sin are
 *           multiplied by attn_factor (1 + 0.1 ln factor), for any ext_factor                  (Peng et al. 2023, arXiv 2309.00071)
 * ctx is orig_ctx. Otherwise cos and sin are multiplied by `magnitude`, or 1 if
 * that is 0. attn_factor is a factor beside the published one, 1 as published:
 * it is not the "attention_factor" of Hugging Face configurations, which replaces the whole product. */
struct rope {
    enum rope_style style;
    enum rope_scaling scaling;
    int n_heads, head_dim, n_rot;
    double base, factor;
    double orig_ctx;            /* LLAMA3, YARN */
    double low_freq, high_freq; /* LLAMA3 */
    double beta_fast, beta_slow, ext_factor, attn_factor; /* YARN; ext_factor scales the ramp (1 as published) */
    bool fractions;             /* YARN */
    double magnitude;           /* all but YARN */
    const struct tensor *factors; /* F32 {n_rot/2}; NULL: all 1 */
};

struct attention {
    int kv; /* index into program.kv */
    int n_heads, n_kv_heads;
    int k_dim, v_dim; /* per head */
    double scale;
    /* What else may happen to scores, in this order; 0 or NULL: does not. */
    double softcap; /* s_j -> softcap * tanh(s_j / softcap) */
    double alibi;   /* s_j -> s_j - m_h (pos[t] - j). With p the power of two up to n_heads: m_h = 2^(-alibi (h + 1) / p) for h < p,
                     * 2^(-alibi (h - p + 1/2) / p) for the others                          (Press et al. 2021, arXiv 2108.12409) */
    int window;     /* only positions j > pos[t] - window count */
    bool chunked;   /* the window does not slide: only j >= pos[t] - pos[t] mod window */
    bool shares;    /* kv is that of an earlier attention, whose keys and values come once more: they are stored where they are */
    bool both;      /* positions behind the token's count too, up to the last one of its sequence in the batch; the window then is |j - pos[t]| <= window / 2 */
    const struct tensor *sinks; /* F32 {n_heads}: the softmax has one more score, sinks[h], whose value is 0 */
};

/* The n_used experts with the highest numbers, of equal ones the first, in falling order. p: the numbers, after softmax over all experts or
 * sigmoid. Their weights are p, divided by the sum of the chosen ones if `normed`, times scale and w[expert], if there is a w. A bias counts in the choice alone.
 * With n_groups > 1 experts stand in groups of n / n_groups; only those of the n_groups_used best groups can be chosen, by the sum of a
 * group's two best numbers (with the bias), or by its best one alone. */
struct route {
    int n_used;
    bool sigmoid, normed;
    double scale, eps;           /* eps is added to that sum */
    int n_groups, n_groups_used; /* 0: one */
    bool group_by_one;
};

struct xielu {
    double above, below, linear, eps;
};

struct scan {
    int n_heads, head_dim, n_groups, n_state;
};

struct delta {
    int n_heads, n_k_heads, k_dim, v_dim;
    double eps;
    bool tiled; /* a k head's heads do not stand side by side: of each the first, then of each the second ... */
};

struct wkv {
    int n_heads, head_dim;
    double eps;
};

struct op {
    enum op_code code;
    int layer;  /* -1: outside the layers */
    int adapter; /* whose operation it is, from 1 on; 0: of the model itself */
    bool tap;   /* dst is the residual stream at the end of a layer: backends show it to batch.tap */
    int dst, src[3]; /* registers; -1: none */
    const struct tensor *w, *b; /* b NULL: none */
    union {
        double eps;
        struct rope rope;
        struct attention attention;
        enum activation activation;
        struct {
            double value; /* SCALE, ADAPT, POS_SCALE, SOFTCAP, CLAMP */
            int length, first; /* POS_SCALE; first: 0 or 1 */
        };
        struct route route; /* its bias is b {experts}, its factors are w {experts} */
        int n_used; /* MATMUL_EXPERTS, COMBINE */
        struct {
            int n_heads, first; /* TAKE, JOIN */
        } part;
        struct xielu xielu;
        struct scan scan;
        struct delta delta;
        struct wkv wkv;
    };
    size_t state, n_state; /* CONV, SCAN, DELTA, WKV: where in a sequence's state theirs begins, and its length */
};

/* What one attention layer keeps per token: k_width and v_width numbers. */
struct kv_shape {
    int k_width, v_width;
    int n_kv_heads;
};

/* A change of low rank to a matrix: wherever w is called name, w x + s scale * b (a x) is computed, s as ADAPT says; an embedding's a x is row token of a. */
struct lora {
    const char *name;
    const struct tensor *a, *b; /* {in, rank}, {rank, out}; of experts one more dimension; of the embedding a {rank, n_vocab} */
    double scale;
    int adapter; /* which one's, from 1 on */
    bool used;
    const char *path; /* for messages */
};

enum { PROGRAM_MOST_ADAPTERS = 64 };

struct program {
    struct op *ops;
    int n_ops;
    int *reg_width; /* [n_regs] */
    int n_regs;
    struct kv_shape *kv; /* [n_kv] */
    int n_kv;
    size_t n_state; /* numbers that layers keep per sequence, whatever its length; 0: none */
    struct lora *loras; /* [n_loras]: program_matmul, program_matmul_experts and program_embed apply them */
    int n_loras;
    int n_adapters; /* at most PROGRAM_MOST_ADAPTERS */
    const struct tensor **known; /* [n_known]: that no operation reads: their numbers are in operations, or nothing needs them */
    int n_known;
    int *lora_regs[2]; /* [n_lora_regs]: their registers, for a x and for b (a x); used again where the width is the same */
    int n_lora_regs[2];
    int n_layers, dim, n_vocab;
    bool is_encoder; /* tokens see both sides: a text comes in one batch, and no text is made */
    int64_t n_ctx; /* trained positions; also the bound of POS_EMBED */
    bool ctx_is_hard; /* positions >= n_ctx cannot be computed (learned positions) */
    struct arena arena;
    int layer_plus_1, adapter; /* while building: of the ops that follow; 0: none */
    kg_status status; /* sticky: the first failed addition below; its message is stored then */
};

/* Building. Start from a zeroed program with n_layers, dim, n_vocab and n_ctx set. Each checks
 * registers, shapes and types against the formulas above; the first failure sticks and program_finish returns it with its
 * message, naming op, layer and tensor. b may be NULL. Only matmuls, attention, route, combine and select forbid dst to be a source; exactly
 * one select comes before logits, and nothing that needs the whole batch (embed, rope, attention) after it. */
int program_reg(struct program *p, int width);
void program_set_layer(struct program *p, int layer); /* of the ops that follow; -1: none */
/* part: rows of whole from `first` on, which are multiplied with by themselves: so are those of its adapters. */
kg_status program_part_loras(struct program *p, const struct tensor *whole, const struct tensor *part, int64_t first);
void program_embed(struct program *p, int dst, const struct tensor *w);
void program_pos_embed(struct program *p, int dst, int src, const struct tensor *w);
void program_add_row(struct program *p, int dst, int src, const struct tensor *w);
void program_rms_norm(struct program *p, int dst, int src, const struct tensor *w, const struct tensor *b, double eps);
void program_layer_norm(struct program *p, int dst, int src, const struct tensor *w, const struct tensor *b, double eps);
void program_matmul(struct program *p, int dst, int src, const struct tensor *w, const struct tensor *b);
void program_rope(struct program *p, int reg, const struct rope *rope);
void program_attention(struct program *p, int dst, int q, int k, int v, int n_heads, int n_kv_heads, int k_dim, int v_dim, double scale);
void program_attention_as(struct program *p, int dst, int q, int k, int v, const struct attention *a); /* a->kv is set here: to the next one, unless a->shares */
void program_act(struct program *p, int dst, int src, enum activation f);
void program_glu(struct program *p, int dst, int gate, int up, enum activation f);
void program_add(struct program *p, int dst, int a, int b);
void program_gate(struct program *p, int dst, int src, int gate, enum activation f);
void program_scale(struct program *p, int dst, int src, double factor);
void program_pos_scale(struct program *p, int dst, int src, double value, int length, int first);
void program_softcap(struct program *p, int dst, int src, double cap);
void program_clamp(struct program *p, int dst, int src, double most);
void program_xielu(struct program *p, int dst, int src, const struct xielu *f);
void program_route(struct program *p, int dst, int src, const struct tensor *bias, const struct route *route);
void program_route_scaled(struct program *p, int dst, int src, const struct tensor *factors, const struct tensor *bias, const struct route *route); /* factors NULL: none */
void program_matmul_experts(struct program *p, int dst, int src, int route, const struct tensor *w, const struct tensor *b);
void program_take(struct program *p, int dst, int src, int n_heads, int first);
void program_join(struct program *p, int dst, int a, int b, int n_heads);
void program_mul(struct program *p, int dst, int a, int b);
void program_conv(struct program *p, int dst, int src, const struct tensor *w, const struct tensor *b);
void program_scan(struct program *p, int dst, int src, int step, int bc, const struct tensor *a, const struct tensor *d, const struct scan *scan);
void program_delta(struct program *p, int dst, int qkv, int gates, const struct tensor *a, const struct tensor *bias, const struct delta *delta);
void program_wkv(struct program *p, int dst, int rk, int gates, int v, const struct tensor *w, const struct wkv *wkv);
void program_lerp(struct program *p, int dst, int a, int b, const struct tensor *w);
void program_combine(struct program *p, int dst, int src, int route);
void program_knows(struct program *p, const struct tensor *t); /* see known */
void program_tap(struct program *p); /* marks the op just added */
void program_select(struct program *p, int dst, int src);
void program_logits(struct program *p, int src);
kg_status program_finish(struct program *p);
void program_free(struct program *p);
/* Numbers that LOGITS gives for a token. */
static inline int program_n_out(const struct program *p) { return p->is_encoder ? p->dim : p->n_vocab; }

#endif
