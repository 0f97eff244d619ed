/* From program to steps: which format each weight gets, what is prepared once. */
#include "backend/cpu/engine.h"

#include "base/os.h"
#include "tensor/decode.h"

#include <math.h>

/* ---- rope tables ---- */

static double yarn_ramp(const struct rope *r, int pair)
{
    const double pi = 3.14159265358979323846;
    double turns_slow = r->n_rot * log(r->orig_ctx / (r->beta_fast * 2 * pi)) / (2 * log(r->base));
    double turns_fast = r->n_rot * log(r->orig_ctx / (r->beta_slow * 2 * pi)) / (2 * log(r->base));
    double low = fmax(0, r->fractions ? turns_slow : floor(turns_slow)), high = fmin(r->n_rot - 1, r->fractions ? turns_fast : ceil(turns_fast));
    return 1 - fmin(1, fmax(0, (pair - low) / fmax(0.001, high - low)));
}

static double rope_frequency(const struct rope *r, int pair, double factor)
{
    const double pi = 3.14159265358979323846;
    double f = pow(r->base, -2.0 * pair / r->n_rot) / factor;
    switch (r->scaling) {
    case ROPE_SCALING_NONE: return f;
    case ROPE_SCALING_LINEAR: return f / r->factor;
    case ROPE_SCALING_LLAMA3: {
        double len = 2 * pi / f;
        if (len < r->orig_ctx / r->high_freq) return f;
        if (len > r->orig_ctx / r->low_freq) return f / r->factor;
        double s = (r->orig_ctx / len - r->low_freq) / (r->high_freq - r->low_freq);
        return (1 - s) * f / r->factor + s * f;
    }
    case ROPE_SCALING_YARN: {
        double keep = yarn_ramp(r, pair) * r->ext_factor;
        return f / r->factor * (1 - keep) + f * keep;
    }
    }
    return f;
}

static bool same_angles(const struct rope *a, const struct rope *b)
{
    struct rope x = *a, y = *b;
    x.n_heads = y.n_heads = x.head_dim = y.head_dim = 0;
    x.style = y.style = ROPE_INTERLEAVED;
    return x.scaling == y.scaling && x.n_rot == y.n_rot && x.base == y.base && x.factor == y.factor && x.orig_ctx == y.orig_ctx &&
           x.low_freq == y.low_freq && x.high_freq == y.high_freq && x.beta_fast == y.beta_fast && x.beta_slow == y.beta_slow &&
           x.ext_factor == y.ext_factor && x.attn_factor == y.attn_factor && x.fractions == y.fractions &&
           x.magnitude == y.magnitude && x.factors == y.factors;
}

static kg_status add_rope(struct cpu *c, const struct rope *r, int *index)
{
    for (int i = 0; i < c->n_rope_tables; i++) {
        if (same_angles(c->rope_tables[i].rope, r)) {
            *index = i;
            return KG_OK;
        }
    }
    int half = r->n_rot / 2;
    struct cpu_rope_table *t = &c->rope_tables[c->n_rope_tables];
    *index = c->n_rope_tables++;
    t->rope = r;
    t->freq = arena_array(&c->arena, (size_t)half, sizeof *t->freq);
    t->cos_sin = arena_array(&c->arena, (size_t)c->params.max_batch * (size_t)half, 2 * sizeof *t->cos_sin);
    float *factors = arena_array(&c->arena, (size_t)half, sizeof *factors);
    if (!t->freq || !t->cos_sin || !factors) return KG_ERR_MEMORY;
    if (r->factors) decode_f32(r->factors->type)(r->factors->data, factors, half);
    for (int i = 0; i < half; i++) t->freq[i] = rope_frequency(r, i, r->factors ? (double)factors[i] : 1.0);
    t->magnitude = r->scaling == ROPE_SCALING_YARN ? (float)(r->attn_factor * (1 + 0.1 * log(r->factor))) : r->magnitude > 0 ? (float)r->magnitude : 1.0f;
    return KG_OK;
}

/* ---- weights ---- */

static kg_status vector_f32(struct cpu *c, const struct tensor *t, const float **out)
{
    *out = NULL;
    if (!t) return KG_OK;
    float *v = arena_array(&c->arena, (size_t)(t->ne[0] * t->ne[1]), sizeof *v);
    if (!v) return KG_ERR_MEMORY;
    for (int64_t r = 0; r < t->ne[1]; r++) decode_f32(t->type)(tensor_row(t, r), v + r * t->ne[0], t->ne[0]);
    *out = v;
    return KG_OK;
}

/* The slopes of positions, as program.h has them. */
static kg_status slopes(struct cpu *c, const struct attention *a, const float **out)
{
    *out = NULL;
    if (a->alibi == 0) return KG_OK;
    float *m = arena_array(&c->arena, (size_t)a->n_heads, sizeof *m);
    int p = 1;
    if (!m) return KG_ERR_MEMORY;
    while (2 * p <= a->n_heads) p *= 2;
    for (int h = 0; h < a->n_heads; h++) m[h] = (float)exp2(-a->alibi * (h < p ? h + 1 : h - p + 0.5) / p);
    *out = m;
    return KG_OK;
}

static kg_status add_matmul(struct cpu *c, struct step *s, const struct tensor *t)
{
    const struct cpu_format *f = c->kernels.format(t->type, c->params.activations);
    if (!f) return status_set(KG_ERR_UNSUPPORTED, "tensor %s: the cpu backend cannot multiply with type %s", t->name, type_by_id((uint32_t)t->type)->name);
    s->matmul = (struct cpu_matmul){.format = f, .tensor = t, .in = (int)t->ne[0], .out = (int)t->ne[1], .bias = s->b};
    if (!f->packed_bytes) return KG_OK;
    for (int i = 0; i < c->n_packed; i++) {
        if (c->packed[i].tensor == t && c->packed[i].format == f) {
            s->matmul.packed = c->packed[i].data;
            return KG_OK;
        }
    }
    struct cpu_packed *p = &c->packed[c->n_packed];
    *p = (struct cpu_packed){.tensor = t, .format = f, .n_bytes = f->packed_bytes(t->ne[1], t->ne[0])};
    p->data = os_alloc(p->n_bytes);
    if (!p->data) return KG_ERR_MEMORY;
    c->n_packed++;
    s->matmul.packed = p->data;
    return KG_OK;
}

/* One matrix after the other, each as if it were a tensor of its own. */
static kg_status add_experts(struct cpu *c, struct step *s)
{
    const struct op *op = s->op;
    const size_t n = (size_t)op->w->ne[2], out = (size_t)op->w->ne[1], row = tensor_row_bytes(op->w);
    struct tensor *views = arena_array(&c->arena, n, sizeof *views);
    struct cpu_packed *packed = arena_array(&c->arena, n, sizeof *packed);
    if (!views || !packed) return KG_ERR_MEMORY;
    for (size_t e = n; e-- > 0;) { /* the first at last: the step keeps its matmul */
        views[e] = *op->w;
        views[e].n_dims = 2;
        views[e].ne[2] = 1;
        views[e].data = (const uint8_t *)op->w->data + e * out * row;
        views[e].n_bytes = out * row;
        KG_TRY(add_matmul(c, s, &views[e]));
        packed[e].data = (void *)(uintptr_t)s->matmul.packed;
    }
    s->experts = packed;
    s->views = views;
    KG_TRY(vector_f32(c, op->b, &s->b));
    struct cpu_experts *x = &c->experts;
    x->most_rows = MAX(x->most_rows, (size_t)c->params.max_batch * (size_t)op->n_used);
    x->in = MAX(x->in, (size_t)op->w->ne[0]);
    x->out = MAX(x->out, out);
    x->count = MAX(x->count, n);
    return KG_OK;
}

/* Whether it chooses the same experts for every token. */
static bool same_choice(const struct step *s, const struct op *op)
{
    return s && s->op->src[1] == op->src[1] && s->op->n_used == op->n_used && s->op->w->ne[2] == op->w->ne[2];
}

/* ---- steps ---- */

static struct step *add_step(struct cpu *c, struct step s)
{
    c->steps[c->n_steps] = s;
    return &c->steps[c->n_steps++];
}

/* What an operation overwrites is no longer that of experts before it. */
static void forget_experts(struct cpu *c, const struct op *op)
{
    struct cpu_experts *x = &c->experts;
    if (x->sorted && (op->dst == x->sorted->op->src[1] || op->code == OP_SELECT)) x->sorted = NULL;
    if (x->prepared && op->dst == x->prepared->op->src[0]) x->prepared = NULL;
}

static kg_status add_op(struct cpu *c, const struct op *op, uint8_t *acts_ready, bool *selected)
{
    struct step s = {.code = STEP_OP, .split = SPLIT_TOKENS, .op = op, .adapter = op->adapter, .selected = *selected};
    switch (op->code) {
    case OP_LOGITS: return KG_OK; /* the matmul before it writes them */
    case OP_MATMUL:
        KG_TRY(vector_f32(c, op->b, &s.b));
        KG_TRY(add_matmul(c, &s, op->w));
        if (s.matmul.format->acts != ACTS_ROWS && !(acts_ready[op->src[0]] & 1u << s.matmul.format->acts)) {
            add_step(c, (struct step){.code = STEP_ACTS, .split = SPLIT_TOKENS, .op = op, .reg = op->src[0], .acts = s.matmul.format->acts, .adapter = op->adapter, .selected = *selected});
            if (!op->adapter) acts_ready[op->src[0]] |= (uint8_t)(1u << s.matmul.format->acts); /* else they may be left out */
        }
        s.split = SPLIT_SHARED;
        break;
    case OP_RMS_NORM:
    case OP_LAYER_NORM:
        KG_TRY(vector_f32(c, op->w, &s.w));
        KG_TRY(vector_f32(c, op->b, &s.b));
        break;
    case OP_LERP: KG_TRY(vector_f32(c, op->w, &s.w)); break;
    case OP_ROPE: KG_TRY(add_rope(c, &op->rope, &s.rope_table)); break;
    case OP_ROUTE:
        KG_TRY(vector_f32(c, op->w, &s.w));
        KG_TRY(vector_f32(c, op->b, &s.b));
        break;
    case OP_MATMUL_EXPERTS:
        KG_TRY(add_experts(c, &s));
        s.code = STEP_EXPERT_SORT;
        s.split = SPLIT_ONE;
        s.ready = same_choice(c->experts.sorted, op);
        add_step(c, s);
        s.code = STEP_EXPERT_ROWS;
        s.split = SPLIT_SHARED;
        const struct step *before = c->experts.prepared;
        s.ready = s.ready && before && before->op->src[0] == op->src[0] && before->matmul.format->acts == s.matmul.format->acts;
        const struct step *rows = add_step(c, s);
        c->experts.sorted = c->experts.prepared = op->adapter ? NULL : rows; /* those of an adapter may be left out */
        s.ready = false;
        s.code = STEP_EXPERT_MATMUL;
        add_step(c, s);
        s.code = STEP_EXPERT_OUT;
        s.split = SPLIT_TOKENS;
        break;
    case OP_ATTENTION:
        KG_TRY(slopes(c, &op->attention, &s.w));
        KG_TRY(vector_f32(c, op->attention.sinks, &s.b));
        s.code = STEP_KV_STORE;
        add_step(c, s);
        s.code = STEP_ATTEND;
        s.split = SPLIT_SHARED;
        break;
    case OP_CONV:
    case OP_SCAN:
    case OP_DELTA:
    case OP_WKV:
        KG_TRY(vector_f32(c, op->w, &s.w));
        KG_TRY(vector_f32(c, op->b, &s.b));
        s.code = STEP_STATE;
        s.split = SPLIT_SHARED;
        break;
    case OP_SELECT:
        *selected = s.selected = true;
        memset(acts_ready, 0, (size_t)c->program->n_regs);
        break;
    default: break;
    }
    if (op->dst >= 0) acts_ready[op->dst] = 0;
    forget_experts(c, op);
    add_step(c, s);
    return KG_OK;
}

kg_status cpu_plan(struct cpu *c)
{
    const struct program *p = c->program;
    size_t n_ops = (size_t)p->n_ops;
    size_t n_matrices = 1;
    uint8_t *acts_ready = arena_alloc(&c->arena, (size_t)p->n_regs); /* per register: bits 1 << enum acts_kind */
    bool selected = false;
    for (int i = 0; i < p->n_ops; i++)
        if (p->ops[i].code == OP_MATMUL || p->ops[i].code == OP_MATMUL_EXPERTS) n_matrices += (size_t)p->ops[i].w->ne[2];
    c->steps = arena_array(&c->arena, 4 * n_ops + 1, sizeof *c->steps);
    c->rope_tables = arena_array(&c->arena, n_ops, sizeof *c->rope_tables);
    c->packed = arena_array(&c->arena, n_matrices, sizeof *c->packed);
    if (!acts_ready || !c->steps || !c->rope_tables || !c->packed) return KG_ERR_MEMORY;
    c->logits_reg = -1;
    add_step(c, (struct step){.code = STEP_ROPE_TABLES, .split = SPLIT_TOKENS});
    for (int i = 0; i < p->n_ops; i++) {
        if (p->ops[i].code == OP_LOGITS) c->logits_reg = p->ops[i].src[0];
        KG_TRY(add_op(c, &p->ops[i], acts_ready, &selected));
    }
    c->plans[0] = (struct cpu_plan){UINT64_MAX, c->steps, c->n_steps};
    c->n_plans = 1;
    return cpu_plan_meetings(c);
}

/* A plan with only these adapters; when there have been many others, the one with all, which multiplies the others by 0. */
kg_status cpu_choose_plan(struct cpu *c, uint64_t active)
{
    const int n = c->program->n_adapters;
    const uint64_t all = n == 64 ? UINT64_MAX : ((uint64_t)1 << n) - 1;
    int i = 0;
    if (active == all) active = UINT64_MAX;
    while (i < c->n_plans && c->plans[i].active != active) i++;
    if (i == (int)COUNT_OF(c->plans)) i = 0;
    if (i == c->n_plans) {
        struct cpu_plan plan = {.active = active, .steps = arena_array(&c->arena, (size_t)c->plans[0].n_steps + 1, sizeof *plan.steps)};
        if (!plan.steps) return KG_ERR_MEMORY;
        for (int k = 0; k < c->plans[0].n_steps; k++)
            if (!batch_leaves_out(active, c->plans[0].steps[k].adapter)) plan.steps[plan.n_steps++] = c->plans[0].steps[k];
        c->steps = plan.steps;
        c->n_steps = plan.n_steps;
        KG_TRY(cpu_plan_meetings(c));
        c->plans[c->n_plans++] = plan;
    }
    c->steps = c->plans[i].steps;
    c->n_steps = c->plans[i].n_steps;
    return KG_OK;
}
