/* Builds programs and checks every operation against the formulas of program.h. Owns the op, register and KV arrays (in the
 * program's arena); knows neither architectures nor backends. */
#include "model/program.h"

#include <math.h>
#include <stdio.h>

#define MAX_WIDTH (1 << 30)

static const char *const op_names[OP_N_CODES] = {
#define X(ENUM, text) text,
    PROGRAM_OPS(X)
#undef X
};

/* What an operation reads and writes; program_finish replays this over all ops. */
enum {
    DST_IS_SRC = 1,  /* works in place: dst must hold a value */
    NO_ALIAS = 2,    /* dst may not be a source */
    WHOLE_BATCH = 4, /* not after SELECT */
};
static const int op_flags[OP_N_CODES] = {
    [OP_EMBED] = WHOLE_BATCH,
    [OP_POS_EMBED] = WHOLE_BATCH,
    [OP_MATMUL] = NO_ALIAS,
    [OP_ROPE] = DST_IS_SRC | WHOLE_BATCH,
    [OP_ATTENTION] = NO_ALIAS | WHOLE_BATCH,
    [OP_POS_SCALE] = WHOLE_BATCH,
    [OP_ROUTE] = NO_ALIAS,
    [OP_MATMUL_EXPERTS] = NO_ALIAS,
    [OP_COMBINE] = NO_ALIAS,
    [OP_TAKE] = NO_ALIAS,
    [OP_JOIN] = NO_ALIAS,
    [OP_CONV] = NO_ALIAS | WHOLE_BATCH,
    [OP_SCAN] = NO_ALIAS | WHOLE_BATCH,
    [OP_DELTA] = NO_ALIAS | WHOLE_BATCH,
    [OP_WKV] = NO_ALIAS | WHOLE_BATCH,
    [OP_SELECT] = NO_ALIAS | WHOLE_BATCH,
};

const char *op_name(enum op_code code) { return (unsigned)code < OP_N_CODES ? op_names[code] : "?"; }

/* Records the first failure as "matmul in layer 3: ...". */
static void fail(struct program *p, const struct op *op, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void fail(struct program *p, const struct op *op, const char *fmt, ...)
{
    if (p->status != KG_OK) return;
    char what[320];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    if (op->layer >= 0)
        p->status = status_set(KG_ERR_FORMAT, "%s in layer %d: %s", op_name(op->code), op->layer, what);
    else
        p->status = status_set(KG_ERR_FORMAT, "%s: %s", op_name(op->code), what);
}

/* Returns the arena array with room for one more item than n, moved when it was full; NULL when the system has no memory. */
static void *grow(struct program *p, void *items, int n, size_t item_bytes)
{
    if (n & (n - 1) || (n > 0 && n < 16)) return items; /* room is made when n is 0, 16, 32, 64 ... */
    void *more = arena_array(&p->arena, n ? (size_t)n * 2 : 16, item_bytes);
    if (!more)
        p->status = KG_ERR_MEMORY;
    else if (n)
        memcpy(more, items, (size_t)n * item_bytes);
    return more;
}

int program_reg(struct program *p, int width)
{
    if (p->status != KG_OK) return -1;
    if (width < 1 || width > MAX_WIDTH) {
        p->status = status_set(KG_ERR_FORMAT, "register %d: width %d is out of range", p->n_regs, width);
        return -1;
    }
    int *widths = grow(p, p->reg_width, p->n_regs, sizeof *widths);
    if (!widths) return -1;
    p->reg_width = widths;
    p->reg_width[p->n_regs] = width;
    return p->n_regs++;
}

void program_set_layer(struct program *p, int layer)
{
    if (p->status != KG_OK) return;
    if (layer < -1 || layer >= p->n_layers)
        p->status = status_set(KG_ERR_FORMAT, "layer %d of %d", layer, p->n_layers);
    else
        p->layer_plus_1 = layer + 1;
}

static bool reg_ok(struct program *p, const struct op *op, int reg, const char *what)
{
    if (reg >= 0 && reg < p->n_regs) return true;
    fail(p, op, "%s is register %d of %d", what, reg, p->n_regs);
    return false;
}

/* Appends an op after checking its registers; NULL once the program has failed. */
static struct op *add(struct program *p, enum op_code code, int dst, int src0, int src1, int src2)
{
    if (p->status != KG_OK) return NULL;
    struct op op = {.code = code, .layer = p->layer_plus_1 - 1, .adapter = p->adapter, .dst = dst, .src = {src0, src1, src2}};
    static const int n_srcs[OP_N_CODES] = {[OP_POS_EMBED] = 1, [OP_ADD_ROW] = 1, [OP_RMS_NORM] = 1, [OP_LAYER_NORM] = 1, [OP_MATMUL] = 1, [OP_ATTENTION] = 3,
                                           [OP_ACT] = 1,       [OP_GLU] = 2,      [OP_ADD] = 2,        [OP_SELECT] = 1, [OP_LOGITS] = 1,
                                           [OP_GATE] = 2,      [OP_SCALE] = 1, [OP_ADAPT] = 1, [OP_POS_SCALE] = 1,    [OP_SOFTCAP] = 1,    [OP_CLAMP] = 1,  [OP_XIELU] = 1,  [OP_ROUTE] = 1,
                                           [OP_MATMUL_EXPERTS] = 2, [OP_COMBINE] = 2, [OP_TAKE] = 1, [OP_JOIN] = 2, [OP_MUL] = 2,
                                           [OP_CONV] = 1, [OP_SCAN] = 3, [OP_DELTA] = 2, [OP_WKV] = 3, [OP_LERP] = 2};
    if (p->n_ops && p->ops[p->n_ops - 1].code == OP_LOGITS) fail(p, &op, "comes after logits");
    if (code != OP_LOGITS && !reg_ok(p, &op, dst, "the destination")) return NULL;
    for (int i = 0; i < n_srcs[code]; i++) {
        if (code == OP_MATMUL_EXPERTS && i == 1 && op.src[i] == -1) continue; /* all experts */
        if (!reg_ok(p, &op, op.src[i], "a source")) return NULL;
        if (op_flags[code] & NO_ALIAS && op.src[i] == dst) fail(p, &op, "register %d is both source and destination", dst);
    }
    struct op *ops = p->status == KG_OK ? grow(p, p->ops, p->n_ops, sizeof *ops) : NULL;
    if (!ops) return NULL;
    p->ops = ops;
    p->ops[p->n_ops] = op;
    return &p->ops[p->n_ops++];
}

static int width(const struct program *p, int reg) { return p->reg_width[reg]; }

static void check_width(struct program *p, const struct op *op, const char *what, int reg, int64_t want)
{
    if (width(p, reg) != want) fail(p, op, "%s has width %d, wanted %lld", what, width(p, reg), (long long)want);
}

/* Checks that t is {ne0, ne1, ne2} (ne1 = 1: a vector) with its bytes in place. */
static void check_tensor_3d(struct program *p, const struct op *op, const struct tensor *t, int64_t ne0, int64_t ne1, int64_t ne2)
{
    if (!t) {
        fail(p, op, "a tensor is missing");
    } else if (t->ne[0] != ne0 || t->ne[1] != ne1 || t->ne[2] != ne2 || t->ne[3] != 1) {
        char third[32] = "";
        if (ne2 != 1) snprintf(third, sizeof third, ", %lld", (long long)ne2);
        fail(p, op, "tensor %s is {%lld, %lld, %lld, %lld}, wanted {%lld, %lld%s}", t->name, (long long)t->ne[0], (long long)t->ne[1],
             (long long)t->ne[2], (long long)t->ne[3], (long long)ne0, (long long)ne1, third);
    } else {
        const struct type_info *type = type_by_id((uint32_t)t->type);
        if (!type || ne0 % type->block != 0)
            fail(p, op, "tensor %s: rows of %lld are not whole blocks of its type", t->name, (long long)ne0);
        else if (!t->data || t->n_bytes != tensor_row_bytes(t) * (size_t)(ne1 * ne2))
            fail(p, op, "tensor %s has %zu bytes, wanted %zu", t->name, t->n_bytes, tensor_row_bytes(t) * (size_t)(ne1 * ne2));
    }
}

static void check_tensor(struct program *p, const struct op *op, const struct tensor *t, int64_t ne0, int64_t ne1)
{
    check_tensor_3d(p, op, t, ne0, ne1, 1);
}

/* What makes no sense in a program, whichever file it came from: not finite, or not above 0. */
static void check_positive(struct program *p, const struct op *op, const char *what, double v)
{
    if (!(isfinite(v) && v > 0)) fail(p, op, "%s is %g, must be above 0", what, v);
}

static void embed(struct program *p, int dst, const struct tensor *w)
{
    struct op *op = add(p, OP_EMBED, dst, -1, -1, -1);
    if (!op) return;
    op->w = w;
    check_tensor(p, op, w, width(p, dst), p->n_vocab);
}

void program_pos_embed(struct program *p, int dst, int src, const struct tensor *w)
{
    struct op *op = add(p, OP_POS_EMBED, dst, src, -1, -1);
    if (!op) return;
    op->w = w;
    check_width(p, op, "the source", src, width(p, dst));
    check_tensor(p, op, w, width(p, dst), p->n_ctx);
}

void program_add_row(struct program *p, int dst, int src, const struct tensor *w)
{
    struct op *op = add(p, OP_ADD_ROW, dst, src, -1, -1);
    if (!op) return;
    op->w = w;
    check_width(p, op, "the source", src, width(p, dst));
    check_tensor(p, op, w, width(p, dst), w ? w->ne[1] : 1);
}

static void add_norm(struct program *p, enum op_code code, int dst, int src, const struct tensor *w, const struct tensor *b, double eps)
{
    struct op *op = add(p, code, dst, src, -1, -1);
    if (!op) return;
    op->w = w;
    op->b = b;
    op->eps = eps;
    const int n = width(p, dst);
    check_width(p, op, "the source", src, n);
    if (w && w->ne[0] > 0 && w->ne[0] < n && n % w->ne[0] == 0 && w->ne[1] == n / w->ne[0]) {
        check_tensor(p, op, w, w->ne[0], w->ne[1]);
        if (b) check_tensor(p, op, b, w->ne[0], w->ne[1]);
    } else if (w && w->ne[0] > 0 && w->ne[0] < n && n % w->ne[0] == 0) {
        check_tensor(p, op, w, w->ne[0], 1);
        if (b) check_tensor(p, op, b, w->ne[0], 1);
    } else if (w) {
        check_tensor(p, op, w, n, 1);
        if (b) check_tensor(p, op, b, n, 1);
    } else if (b) {
        fail(p, op, "a bias without weights");
    }
    if (!(isfinite(eps) && eps >= 0)) fail(p, op, "epsilon is %g", eps);
}

void program_rms_norm(struct program *p, int dst, int src, const struct tensor *w, const struct tensor *b, double eps)
{
    add_norm(p, OP_RMS_NORM, dst, src, w, b, eps);
}

void program_layer_norm(struct program *p, int dst, int src, const struct tensor *w, const struct tensor *b, double eps)
{
    add_norm(p, OP_LAYER_NORM, dst, src, w, b, eps);
}

/* A register of this width that adapters share; which: 0 for a x, 1 for b (a x). */
static int lora_reg(struct program *p, int wide, int which)
{
    for (int i = 0; i < p->n_lora_regs[which]; i++)
        if (width(p, p->lora_regs[which][i]) == wide) return p->lora_regs[which][i];
    int *regs = grow(p, p->lora_regs[which], p->n_lora_regs[which], sizeof *regs), reg = program_reg(p, wide);
    if (!regs || reg < 0) return -1;
    p->lora_regs[which] = regs;
    return regs[p->n_lora_regs[which]++] = reg;
}

static void matmul(struct program *p, int dst, int src, const struct tensor *w, const struct tensor *b)
{
    struct op *op = add(p, OP_MATMUL, dst, src, -1, -1);
    if (!op) return;
    op->w = w;
    op->b = b;
    check_tensor(p, op, w, width(p, src), width(p, dst));
    if (b) check_tensor(p, op, b, width(p, dst), 1);
}

kg_status program_part_loras(struct program *p, const struct tensor *whole, const struct tensor *part, int64_t first)
{
    const int n = p->n_loras;
    int found = 0;
    for (int i = 0; i < n; i++) found += strcmp(p->loras[i].name, whole->name) == 0;
    if (!found) return KG_OK;
    struct lora *all = arena_array(&p->arena, (size_t)n + (size_t)found, sizeof *all);
    if (!all) return KG_ERR_MEMORY;
    memcpy(all, p->loras, (size_t)n * sizeof *all);
    for (int i = 0; i < n; i++) {
        if (strcmp(all[i].name, whole->name) != 0) continue;
        const struct tensor *b = all[i].b;
        struct tensor *rows = arena_alloc(&p->arena, sizeof *rows);
        if (!rows) return KG_ERR_MEMORY;
        if (b->n_dims > 2 || b->ne[1] != whole->ne[1])
            return status_set(KG_ERR_FORMAT, "%s: %s has %lld rows, the model's matrix %lld", all[i].path, b->name, (long long)b->ne[1], (long long)whole->ne[1]);
        *rows = *b;
        rows->ne[1] = part->ne[1];
        rows->n_bytes = tensor_row_bytes(b) * (size_t)part->ne[1];
        rows->data = (const uint8_t *)b->data + tensor_row_bytes(b) * (size_t)first;
        all[i].used = true; /* by its parts */
        all[p->n_loras] = all[i];
        all[p->n_loras].name = part->name;
        all[p->n_loras].used = false;
        all[p->n_loras++].b = rows;
    }
    p->loras = all;
    return KG_OK;
}

/* Whether l changes the matrix w: a model without an output matrix of its own multiplies with that of the embedding, whose name its adapters do not have. */
static bool is_of(const struct lora *l, const struct tensor *w)
{
    const bool tied = strcmp(w->name, "token_embd.weight") == 0;
    return strcmp(l->name, tied ? "output.weight" : w->name) == 0;
}

/* Registers for a x and b (a x), of n experts each; false once the program has failed. */
static bool lora_regs(struct program *p, struct lora *l, int dst, int64_t n, int *low, int *change)
{
    if (l->b->ne[0] > MAX_WIDTH || l->b->ne[0] * n > MAX_WIDTH) {
        p->status = status_set(KG_ERR_FORMAT, "%s: rank %lld is out of range", l->a->name, (long long)l->b->ne[0]);
        return false;
    }
    *low = lora_reg(p, (int)(l->b->ne[0] * n), 0);
    *change = lora_reg(p, width(p, dst), 1);
    l->used = true;
    p->adapter = l->adapter;
    return true;
}

static void adapt(struct program *p, int reg, double scale)
{
    struct op *op = add(p, OP_ADAPT, reg, reg, -1, -1);
    if (!op) return;
    op->value = scale;
    if (!isfinite(scale)) fail(p, op, "the scale is %g", scale);
}

/* The last of an adapter's operations. */
static void add_change(struct program *p, int dst, int change)
{
    program_add(p, dst, dst, change);
    p->adapter = 0;
}

void program_embed(struct program *p, int dst, const struct tensor *w)
{
    embed(p, dst, w);
    for (int i = 0; i < p->n_loras && p->status == KG_OK; i++) {
        struct lora *l = &p->loras[i];
        int low, change;
        if (strcmp(l->name, w->name) != 0 || !lora_regs(p, l, dst, 1, &low, &change)) continue;
        embed(p, low, l->a);
        adapt(p, low, l->scale);
        matmul(p, change, low, l->b, NULL);
        add_change(p, dst, change);
    }
}

void program_matmul(struct program *p, int dst, int src, const struct tensor *w, const struct tensor *b)
{
    matmul(p, dst, src, w, b);
    for (int i = 0; i < p->n_loras && p->status == KG_OK; i++) {
        struct lora *l = &p->loras[i];
        int low, change;
        if (!is_of(l, w) || !lora_regs(p, l, dst, 1, &low, &change)) continue;
        matmul(p, low, src, l->a, NULL);
        adapt(p, low, l->scale);
        matmul(p, change, low, l->b, NULL);
        add_change(p, dst, change);
    }
}

void program_rope(struct program *p, int reg, const struct rope *rope)
{
    struct op *op = add(p, OP_ROPE, reg, -1, -1, -1);
    if (!op) return;
    op->rope = *rope;
    if (rope->n_heads < 1 || rope->head_dim < 1) {
        fail(p, op, "%d heads of %d", rope->n_heads, rope->head_dim);
        return;
    }
    check_width(p, op, "the register", reg, (int64_t)rope->n_heads * rope->head_dim);
    if (rope->n_rot < 2 || rope->n_rot % 2 || rope->n_rot > rope->head_dim)
        fail(p, op, "%d rotated dimensions: must be even and at most %d", rope->n_rot, rope->head_dim);
    check_positive(p, op, "the frequency base", rope->base);
    if (rope->scaling != ROPE_SCALING_NONE) check_positive(p, op, "the scaling factor", rope->factor);
    if (rope->scaling == ROPE_SCALING_LLAMA3 || rope->scaling == ROPE_SCALING_YARN)
        check_positive(p, op, "the original context length", rope->orig_ctx);
    if (rope->scaling == ROPE_SCALING_LLAMA3) {
        check_positive(p, op, "the low frequency factor", rope->low_freq);
        if (!(isfinite(rope->high_freq) && rope->high_freq > rope->low_freq))
            fail(p, op, "the high frequency factor %g must be above the low one, %g", rope->high_freq, rope->low_freq);
    }
    if (rope->scaling == ROPE_SCALING_YARN) {
        check_positive(p, op, "beta_fast", rope->beta_fast);
        check_positive(p, op, "beta_slow", rope->beta_slow);
        check_positive(p, op, "the attention factor", rope->attn_factor);
        if (rope->beta_fast < rope->beta_slow) fail(p, op, "beta_fast %g is below beta_slow %g", rope->beta_fast, rope->beta_slow);
        if (!(rope->ext_factor >= 0 && rope->ext_factor <= 1)) fail(p, op, "ext_factor is %g, must be 0 to 1", rope->ext_factor);
    }
    if (rope->factors) {
        check_tensor(p, op, rope->factors, rope->n_rot / 2, 1);
        if (rope->factors->type != TYPE_F32) fail(p, op, "tensor %s must be F32", rope->factors->name);
    }
}

void program_attention(struct program *p, int dst, int q, int k, int v, int n_heads, int n_kv_heads, int k_dim, int v_dim, double scale)
{
    program_attention_as(p, dst, q, k, v, &(struct attention){.n_heads = n_heads, .n_kv_heads = n_kv_heads, .k_dim = k_dim, .v_dim = v_dim, .scale = scale});
}

void program_attention_as(struct program *p, int dst, int q, int k, int v, const struct attention *a)
{
    struct op *op = add(p, OP_ATTENTION, dst, q, k, v);
    if (!op) return;
    const int n_heads = a->n_heads, n_kv_heads = a->n_kv_heads, k_dim = a->k_dim, v_dim = a->v_dim;
    op->attention = *a;
    if (!a->shares) op->attention.kv = p->n_kv;
    if (n_heads < 1 || n_kv_heads < 1 || n_heads % n_kv_heads) {
        fail(p, op, "%d heads are not a multiple of %d key/value heads", n_heads, n_kv_heads);
        return;
    }
    check_width(p, op, "the query", q, (int64_t)n_heads * k_dim);
    check_width(p, op, "the key", k, (int64_t)n_kv_heads * k_dim);
    check_width(p, op, "the value", v, (int64_t)n_kv_heads * v_dim);
    check_width(p, op, "the destination", dst, (int64_t)n_heads * v_dim);
    check_positive(p, op, "the scale", a->scale);
    if (a->softcap != 0) check_positive(p, op, "the cap of scores", a->softcap);
    if (a->alibi != 0) check_positive(p, op, "the largest slope of positions", a->alibi);
    if (a->window < 0) fail(p, op, "the window is %d", a->window);
    if (a->both && (a->chunked || a->alibi != 0)) fail(p, op, "chunks or slopes, and positions on both sides");
    if (a->sinks) {
        check_tensor(p, op, a->sinks, n_heads, 1);
        if (a->sinks->type != TYPE_F32) fail(p, op, "tensor %s must be F32", a->sinks->name);
    }
    const struct kv_shape shape = {n_kv_heads * k_dim, n_kv_heads * v_dim, n_kv_heads};
    if (a->shares && (a->kv < 0 || a->kv >= p->n_kv || memcmp(&p->kv[a->kv], &shape, sizeof shape) != 0))
        fail(p, op, "the cache that it shares has another shape");
    if (a->shares) return;
    struct kv_shape *kv = p->status == KG_OK ? grow(p, p->kv, p->n_kv, sizeof *kv) : NULL;
    if (!kv) return;
    p->kv = kv;
    p->kv[p->n_kv++] = shape;
}

void program_act(struct program *p, int dst, int src, enum activation f)
{
    struct op *op = add(p, OP_ACT, dst, src, -1, -1);
    if (!op) return;
    op->activation = f;
    check_width(p, op, "the source", src, width(p, dst));
    if ((unsigned)f >= ACTIVATION_SWIGLU_OAI) fail(p, op, "activation %d is unknown", (int)f);
}

void program_glu(struct program *p, int dst, int gate, int up, enum activation f)
{
    struct op *op = add(p, OP_GLU, dst, gate, up, -1);
    if (!op) return;
    op->activation = f;
    check_width(p, op, "the gate", gate, width(p, dst));
    check_width(p, op, "the second source", up, width(p, dst));
    if ((unsigned)f >= ACTIVATION_N) fail(p, op, "activation %d is unknown", (int)f);
}

void program_add(struct program *p, int dst, int a, int b)
{
    struct op *op = add(p, OP_ADD, dst, a, b, -1);
    if (!op) return;
    check_width(p, op, "the first source", a, width(p, dst));
    check_width(p, op, "the second source", b, width(p, dst));
}

void program_gate(struct program *p, int dst, int src, int gate, enum activation f)
{
    struct op *op = add(p, OP_GATE, dst, src, gate, -1);
    if (!op) return;
    op->activation = f;
    check_width(p, op, "the source", src, width(p, dst));
    check_width(p, op, "the gate", gate, 1);
    if (gate == dst) fail(p, op, "register %d is both gate and destination", dst);
    if ((unsigned)f >= ACTIVATION_SWIGLU_OAI) fail(p, op, "activation %d is unknown", (int)f);
}

static void add_value(struct program *p, enum op_code code, int dst, int src, const char *what, double value)
{
    struct op *op = add(p, code, dst, src, -1, -1);
    if (!op) return;
    op->value = value;
    check_width(p, op, "the source", src, width(p, dst));
    check_positive(p, op, what, value);
}

void program_scale(struct program *p, int dst, int src, double factor)
{
    struct op *op = add(p, OP_SCALE, dst, src, -1, -1);
    if (!op) return;
    op->value = factor;
    check_width(p, op, "the source", src, width(p, dst));
    if (!isfinite(factor)) fail(p, op, "the factor is %g", factor);
}
void program_pos_scale(struct program *p, int dst, int src, double value, int length, int first)
{
    struct op *op = add(p, OP_POS_SCALE, dst, src, -1, -1);
    if (!op) return;
    op->value = value;
    op->length = length;
    op->first = first;
    check_width(p, op, "the source", src, width(p, dst));
    if (!isfinite(value) || length < 1 || first < 0 || first > 1) fail(p, op, "the factor is %g at each %d positions", value, length);
}
void program_softcap(struct program *p, int dst, int src, double cap) { add_value(p, OP_SOFTCAP, dst, src, "the cap", cap); }
void program_clamp(struct program *p, int dst, int src, double most) { add_value(p, OP_CLAMP, dst, src, "the largest value", most); }

void program_xielu(struct program *p, int dst, int src, const struct xielu *f)
{
    struct op *op = add(p, OP_XIELU, dst, src, -1, -1);
    if (!op) return;
    op->xielu = *f;
    check_width(p, op, "the source", src, width(p, dst));
    if (!isfinite(f->above) || !isfinite(f->below) || !isfinite(f->linear) || !isfinite(f->eps) || f->eps > 0)
        fail(p, op, "its numbers are %g, %g, %g and %g", f->above, f->below, f->linear, f->eps);
}

void program_route(struct program *p, int dst, int src, const struct tensor *bias, const struct route *route)
{
    program_route_scaled(p, dst, src, NULL, bias, route);
}

void program_route_scaled(struct program *p, int dst, int src, const struct tensor *factors, const struct tensor *bias, const struct route *route)
{
    struct op *op = add(p, OP_ROUTE, dst, src, -1, -1);
    if (!op) return;
    op->w = factors;
    op->b = bias;
    op->route = *route;
    const int n = width(p, src), groups = route->n_groups;
    if (route->n_used < 1 || route->n_used > n) {
        fail(p, op, "%d of %d experts", route->n_used, n);
        return;
    }
    check_width(p, op, "the destination", dst, 2 * (int64_t)route->n_used);
    check_positive(p, op, "the scale", route->scale);
    if (!(isfinite(route->eps) && route->eps >= 0)) fail(p, op, "epsilon is %g", route->eps);
    if (bias) check_tensor(p, op, bias, n, 1);
    if (factors) check_tensor(p, op, factors, n, 1);
    if (groups < 0 || (groups > 1 && (n % groups || n / groups < 2 || route->n_groups_used < 1 || route->n_groups_used > groups ||
                                      (int64_t)route->n_groups_used * (n / groups) < route->n_used)))
        fail(p, op, "%d of %d groups of %d experts, of which %d are used", route->n_groups_used, groups, n, route->n_used);
}

/* Which ROUTE wrote reg is not known before the end of the program: its width has to be that of one. */
static int n_used_of(struct program *p, struct op *op, int reg)
{
    if (width(p, reg) % 2) fail(p, op, "register %d is no choice of experts", reg);
    return width(p, reg) / 2;
}

static void matmul_experts(struct program *p, int dst, int src, int route, const struct tensor *w, const struct tensor *b)
{
    struct op *op = add(p, OP_MATMUL_EXPERTS, dst, src, route, -1);
    if (!op) return;
    op->w = w;
    op->b = b;
    op->n_used = route >= 0 ? n_used_of(p, op, route) : w && w->ne[2] > 0 && w->ne[2] <= MAX_WIDTH ? (int)w->ne[2] : 1;
    if (p->status != KG_OK) return;
    if (width(p, dst) % op->n_used) {
        fail(p, op, "the destination has width %d for %d experts", width(p, dst), op->n_used);
        return;
    }
    const int64_t in = w ? w->ne[0] : 0, out = width(p, dst) / op->n_used, n = w ? w->ne[2] : 0;
    if (n < op->n_used) fail(p, op, "%d of %lld experts", op->n_used, (long long)n);
    if (width(p, src) != in * op->n_used && (route < 0 || width(p, src) != in))
        fail(p, op, "the source has width %d, wanted %lld or that %d times", width(p, src), (long long)in, op->n_used);
    check_tensor_3d(p, op, w, in, out, n);
    if (b) check_tensor(p, op, b, out, n);
}

void program_matmul_experts(struct program *p, int dst, int src, int route, const struct tensor *w, const struct tensor *b)
{
    matmul_experts(p, dst, src, route, w, b);
    const int n_used = p->status == KG_OK ? p->ops[p->n_ops - 1].n_used : 1;
    for (int i = 0; i < p->n_loras && p->status == KG_OK; i++) {
        struct lora *l = &p->loras[i];
        int low, change;
        if (strcmp(l->name, w->name) != 0 || !lora_regs(p, l, dst, n_used, &low, &change)) continue;
        matmul_experts(p, low, src, route, l->a, NULL);
        adapt(p, low, l->scale);
        matmul_experts(p, change, low, route, l->b, NULL);
        add_change(p, dst, change);
    }
}

void program_take(struct program *p, int dst, int src, int n_heads, int first)
{
    struct op *op = add(p, OP_TAKE, dst, src, -1, -1);
    if (!op) return;
    op->part.n_heads = n_heads;
    op->part.first = first;
    if (n_heads < 1 || width(p, src) % n_heads || width(p, dst) % n_heads || first < 0 || first + width(p, dst) / n_heads > width(p, src) / n_heads)
        fail(p, op, "%d numbers from %d on of each of %d heads of width %d", width(p, dst), first, n_heads, width(p, src));
}

void program_join(struct program *p, int dst, int a, int b, int n_heads)
{
    struct op *op = add(p, OP_JOIN, dst, a, b, -1);
    if (!op) return;
    op->part.n_heads = n_heads;
    if (n_heads < 1 || width(p, a) % n_heads || width(p, b) % n_heads || (int64_t)width(p, a) + width(p, b) != width(p, dst))
        fail(p, op, "%d and %d numbers in %d heads do not make %d", width(p, a), width(p, b), n_heads, width(p, dst));
}

void program_mul(struct program *p, int dst, int a, int b)
{
    struct op *op = add(p, OP_MUL, dst, a, b, -1);
    if (!op) return;
    check_width(p, op, "the first source", a, width(p, dst));
    check_width(p, op, "the second source", b, width(p, dst));
}

void program_lerp(struct program *p, int dst, int a, int b, const struct tensor *w)
{
    struct op *op = add(p, OP_LERP, dst, a, b, -1);
    if (!op) return;
    op->w = w;
    check_width(p, op, "the first source", a, width(p, dst));
    check_width(p, op, "the second source", b, width(p, dst));
    check_tensor(p, op, w, width(p, dst), 1);
}

/* ---- what depends on earlier tokens */

/* Gives the operation n numbers of the state. */
static void take_state(struct program *p, struct op *op, int64_t a, int64_t b, int64_t c)
{
    if (p->status != KG_OK) return;
    if (a < 0 || b < 1 || c < 1 || a * b > MAX_WIDTH || a * b * c > MAX_WIDTH) {
        fail(p, op, "a state of %lld times %lld times %lld numbers is out of range", (long long)a, (long long)b, (long long)c);
        return;
    }
    op->state = p->n_state;
    op->n_state = (size_t)(a * b * c);
    p->n_state += op->n_state;
}

void program_conv(struct program *p, int dst, int src, const struct tensor *w, const struct tensor *b)
{
    struct op *op = add(p, OP_CONV, dst, src, -1, -1);
    if (!op) return;
    const int64_t taps = w ? w->ne[0] : 0;
    op->w = w;
    op->b = b;
    check_width(p, op, "the source", src, width(p, dst));
    if (taps < 1 || taps > 1024) fail(p, op, "%lld taps", (long long)taps);
    check_tensor(p, op, w, taps, width(p, dst));
    if (b) check_tensor(p, op, b, width(p, dst), 1);
    take_state(p, op, taps - 1, width(p, dst), 1);
}

void program_scan(struct program *p, int dst, int src, int step, int bc, const struct tensor *a, const struct tensor *d, const struct scan *scan)
{
    struct op *op = add(p, OP_SCAN, dst, src, step, bc);
    if (!op) return;
    const int64_t n_heads = scan->n_heads, head_dim = scan->head_dim, n_groups = scan->n_groups, n_state = scan->n_state;
    op->w = a;
    op->b = d;
    op->scan = *scan;
    if (n_heads < 1 || head_dim < 1 || n_groups < 1 || n_state < 1 || n_state > MAX_WIDTH || n_heads % n_groups) {
        fail(p, op, "%lld heads of %lld in %lld groups with a state of %lld", (long long)n_heads, (long long)head_dim, (long long)n_groups, (long long)n_state);
        return;
    }
    check_width(p, op, "the source", src, n_heads * head_dim);
    check_width(p, op, "the destination", dst, n_heads * head_dim);
    check_width(p, op, "the step", step, n_heads);
    check_width(p, op, "the third source", bc, 2 * n_groups * n_state);
    check_tensor(p, op, a, a && a->ne[0] == 1 ? 1 : n_state, n_heads);
    check_tensor(p, op, d, n_heads, 1);
    take_state(p, op, n_state, head_dim, n_heads);
}

void program_delta(struct program *p, int dst, int qkv, int gates, const struct tensor *a, const struct tensor *bias, const struct delta *delta)
{
    struct op *op = add(p, OP_DELTA, dst, qkv, gates, -1);
    if (!op) return;
    const int64_t n_heads = delta->n_heads, n_k_heads = delta->n_k_heads, k_dim = delta->k_dim, v_dim = delta->v_dim;
    op->w = a;
    op->b = bias;
    op->delta = *delta;
    if (n_heads < 1 || n_k_heads < 1 || k_dim < 1 || v_dim < 1 || n_heads % n_k_heads) {
        fail(p, op, "%lld heads of %lld and %lld of %lld", (long long)n_heads, (long long)v_dim, (long long)n_k_heads, (long long)k_dim);
        return;
    }
    check_width(p, op, "the source", qkv, 2 * n_k_heads * k_dim + n_heads * v_dim);
    check_width(p, op, "the gates", gates, 2 * n_heads);
    check_width(p, op, "the destination", dst, n_heads * v_dim);
    check_tensor(p, op, a, n_heads, 1);
    check_tensor(p, op, bias, n_heads, 1);
    if (!(isfinite(delta->eps) && delta->eps >= 0)) fail(p, op, "epsilon is %g", delta->eps);
    take_state(p, op, k_dim, v_dim, n_heads);
}

void program_wkv(struct program *p, int dst, int rk, int gates, int v, const struct tensor *w, const struct wkv *wkv)
{
    struct op *op = add(p, OP_WKV, dst, rk, gates, v);
    if (!op) return;
    const int64_t n_heads = wkv->n_heads, dim = wkv->head_dim;
    op->w = w;
    op->wkv = *wkv;
    if (n_heads < 1 || dim < 1) {
        fail(p, op, "%lld heads of %lld", (long long)n_heads, (long long)dim);
        return;
    }
    check_width(p, op, "the source", rk, 2 * n_heads * dim);
    check_width(p, op, "the gates", gates, 2 * n_heads * dim);
    check_width(p, op, "the values", v, n_heads * dim);
    check_width(p, op, "the destination", dst, 2 * n_heads * dim);
    check_tensor(p, op, w, n_heads * dim, 3);
    if (!(isfinite(wkv->eps) && wkv->eps > 0)) fail(p, op, "epsilon is %g", wkv->eps);
    take_state(p, op, dim, dim, n_heads);
}

void program_combine(struct program *p, int dst, int src, int route)
{
    struct op *op = add(p, OP_COMBINE, dst, src, route, -1);
    if (!op) return;
    op->n_used = n_used_of(p, op, route);
    check_width(p, op, "the source", src, (int64_t)width(p, dst) * op->n_used);
}

void program_knows(struct program *p, const struct tensor *t)
{
    const struct tensor **known = p->status == KG_OK ? grow(p, p->known, p->n_known, sizeof *known) : NULL;
    if (!known) return;
    p->known = known;
    p->known[p->n_known++] = t;
}

void program_tap(struct program *p)
{
    if (p->status != KG_OK) return;
    struct op *op = p->n_ops ? &p->ops[p->n_ops - 1] : NULL;
    if (!op || op->adapter || op->layer < 0 || op->dst < 0 || width(p, op->dst) != p->dim)
        p->status = status_set(KG_ERR_FORMAT, "only an operation that ends a layer with width %d can be tapped", p->dim);
    else
        op->tap = true;
}

void program_select(struct program *p, int dst, int src)
{
    struct op *op = add(p, OP_SELECT, dst, src, -1, -1);
    if (op) check_width(p, op, "the source", src, width(p, dst));
}

void program_logits(struct program *p, int src)
{
    struct op *op = add(p, OP_LOGITS, -1, src, -1, -1);
    if (op) check_width(p, op, "the source", src, program_n_out(p));
}

/* Replays which registers hold a value, and which a choice of how many experts: reading one before it is written, or after SELECT one that still has the rows
 * of the whole batch, would compute with leftovers. */
static void check_flow(struct program *p, bool *holds, int *experts)
{
    bool selected = false;
    for (int i = 0; i < p->n_ops && p->status == KG_OK; i++) {
        const struct op *op = &p->ops[i];
        if (op->code == OP_MATMUL_EXPERTS && op->src[1] >= 0 && experts[op->src[1]] != op->w->ne[2])
            fail(p, op, "tensor %s has %lld experts, register %d chooses of %d", op->w->name, (long long)op->w->ne[2], op->src[1], experts[op->src[1]]);
        if (op->code == OP_COMBINE && !experts[op->src[1]]) fail(p, op, "register %d is no choice of experts", op->src[1]);
        if (op->dst >= 0) experts[op->dst] = op->code == OP_ROUTE ? width(p, op->src[0]) : 0;
        if (selected && op_flags[op->code] & WHOLE_BATCH) fail(p, op, "cannot come after select");
        for (int s = 0; s < 3; s++)
            if (op->src[s] >= 0 && !holds[op->src[s]])
                fail(p, op, "reads register %d, which holds nothing %s", op->src[s], selected ? "since select" : "yet");
        if (op_flags[op->code] & DST_IS_SRC && !holds[op->dst]) fail(p, op, "turns register %d, which holds nothing yet", op->dst);
        if (op->code == OP_SELECT) {
            selected = true;
            memset(holds, 0, (size_t)p->n_regs * sizeof *holds);
        }
        if (op->dst >= 0) holds[op->dst] = true;
    }
    if (p->status == KG_OK && !selected) p->status = status_set(KG_ERR_FORMAT, "the program never selects the tokens that want logits");
}

static bool reads_reg(const struct op *op, int reg)
{
    return op->src[0] == reg || op->src[1] == reg || op->src[2] == reg || (op_flags[op->code] & DST_IS_SRC && op->dst == reg);
}

static void rename_reg(struct op *ops, int n, int from, int to)
{
    for (int i = 0; i < n; i++) {
        for (int s = 0; s < 3; s++)
            if (ops[i].src[s] == from) ops[i].src[s] = to;
        if (ops[i].dst == from) ops[i].dst = to;
    }
}

/* Behind the last operation that needs all tokens (the attention of the last layer) only those that want logits matter: SELECT moves there, one for each
 * register that is still read. */
static void select_early(struct program *p)
{
    int at = 0, first = 0, n_live = 0;
    while (p->ops[at].code != OP_SELECT) at++;
    for (int i = 0; i < at; i++)
        if (op_flags[p->ops[i].code] & WHOLE_BATCH) first = i + 1;
    const struct op old = p->ops[at];
    const int n_rest = p->n_ops - first - 1, n_after = p->n_ops - at - 1;
    int *live = arena_array(&p->arena, (size_t)p->n_regs, sizeof *live);
    if (!live) goto no_memory;
    for (int r = 0; r < p->n_regs; r++) {
        for (int i = first; i <= at; i++) {
            if (reads_reg(&p->ops[i], r)) live[n_live++] = r;
            if (reads_reg(&p->ops[i], r) || p->ops[i].dst == r) break;
        }
    }
    struct op *ops = arena_array(&p->arena, (size_t)(first + n_live + n_rest), sizeof *ops);
    if (!ops) goto no_memory;
    struct op *rest = ops + first + n_live, *after = rest + at - first;
    memcpy(ops, p->ops, (size_t)first * sizeof *ops);
    memcpy(rest, p->ops + first, (size_t)(at - first) * sizeof *ops);
    memcpy(after, p->ops + at + 1, (size_t)n_after * sizeof *ops);
    rename_reg(after, n_after, old.src[0], -2); /* what it selected and where to, change names: nothing else is alive there */
    rename_reg(after, n_after, old.dst, old.src[0]);
    rename_reg(after, n_after, -2, old.dst);
    p->ops = ops;
    p->n_ops = first + n_live + n_rest;
    for (int i = 0; i < n_live; i++) {
        const int to = program_reg(p, width(p, live[i]));
        ops[first + i] = (struct op){.code = OP_SELECT, .layer = first ? ops[first - 1].layer : -1, .dst = to, .src = {live[i], -1, -1}};
        rename_reg(rest, n_rest, live[i], to);
    }
    return;
no_memory:
    p->status = KG_ERR_MEMORY;
}

kg_status program_finish(struct program *p)
{
    if (p->status != KG_OK) return p->status;
    if (p->n_layers < 1 || p->dim < 1 || p->n_vocab < 1 || p->n_ctx < 1)
        return p->status = status_set(KG_ERR_FORMAT, "a program needs layers, dimensions, a vocabulary and positions");
    if (!p->n_ops || p->ops[p->n_ops - 1].code != OP_LOGITS)
        return p->status = status_set(KG_ERR_FORMAT, "the program does not end in logits");
    bool *holds = arena_array(&p->arena, (size_t)p->n_regs + 1, sizeof *holds);
    int *experts = arena_array(&p->arena, (size_t)p->n_regs + 1, sizeof *experts);
    if (!holds || !experts) return p->status = KG_ERR_MEMORY;
    check_flow(p, holds, experts);
    if (p->status == KG_OK) select_early(p);
    return p->status;
}

void program_free(struct program *p)
{
    if (!p) return;
    arena_free(&p->arena);
    memset(p, 0, sizeof *p);
}
