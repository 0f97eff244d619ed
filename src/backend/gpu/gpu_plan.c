/* Program -> steps: joins a norm with the matmuls that read it, matmuls of one source into one matrix, gate and up with their GLU, and a
 * matmul with the activation and the residual addition behind it. Registers that then nobody reads are never written. */
#include "backend/gpu/gpu_run.h"

#include <math.h>
#include <stdlib.h>

static bool reads(const struct op *op, int reg)
{
    return op->src[0] == reg || op->src[1] == reg || op->src[2] == reg || (op->code == OP_ROPE && op->dst == reg);
}
static bool writes(const struct op *op, int reg) { return op->code != OP_LOGITS && op->dst == reg; }

/* Nobody reads reg's value after op i. */
static bool dead_after(const struct program *p, int reg, int i)
{
    for (int j = i + 1; j < p->n_ops; j++) {
        if (reads(&p->ops[j], reg)) return false;
        if (writes(&p->ops[j], reg)) return true;
    }
    return true;
}

static bool is_norm(const struct op *op) { return op->code == OP_RMS_NORM || op->code == OP_LAYER_NORM; }

/* Of heads, or without weights: a kernel of its own. */
static bool is_head_norm(const struct program *p, const struct op *norm) { return !norm->w || norm->w->ne[0] != p->reg_width[norm->dst]; }

/* Steps whose source a norm may be: matmuls, and experts that all read the token's one row. */
static bool takes_norm(const struct program *p, const struct op *op)
{
    return op->code == OP_MATMUL || (op->code == OP_MATMUL_EXPERTS && op->src[1] >= 0 && p->reg_width[op->src[0]] == op->w->ne[0]);
}

/* Only matmuls read what norm i writes, and its source stays as it is until the last of them. */
static bool norm_joins(const struct program *p, int i)
{
    const struct op *norm = &p->ops[i];
    bool changed = norm->dst == norm->src[0];
    if (norm->tap || is_head_norm(p, norm)) return false;
    for (int j = i + 1; j < p->n_ops; j++) {
        const struct op *op = &p->ops[j];
        if (reads(op, norm->dst) && (!takes_norm(p, op) || changed || op->dst == norm->src[0])) return false;
        if (writes(op, norm->dst)) return true;
        changed |= writes(op, norm->src[0]) || op->code == OP_SELECT;
    }
    return true;
}

/* The norm that gives matmul i its source, if it is joined. */
static const struct op *joined_norm(const struct program *p, int i)
{
    for (int j = i - 1; j >= 0; j--)
        if (writes(&p->ops[j], p->ops[i].src[0])) return is_norm(&p->ops[j]) && norm_joins(p, j) ? &p->ops[j] : NULL;
    return NULL;
}

static kg_status refuse(const struct gpu *g, const struct op *op, const char *why)
{
    return status_set(KG_ERR_UNSUPPORTED, "%s backend: %s in layer %d: %s%s%s", g->device->name, op_name(op->code), op->layer, op->w ? op->w->name : "",
                      op->w ? ": " : "", why);
}

/* The same matrix serves an embedding and the output. */
static struct gpu_weight *single_weight(struct gpu *g, const struct tensor *t)
{
    for (int i = 0; i < g->n_weights; i++)
        if (g->weights[i].n_parts == 1 && g->weights[i].parts[0] == t) return &g->weights[i];
    struct gpu_weight *w = &g->weights[g->n_weights++];
    *w = (struct gpu_weight){.parts = {t}, .n_parts = 1, .rows = t->ne[1]};
    return w;
}

/* The device can use the numbers of t where they lie. */
static bool lies_right(const struct gpu *g, const struct tensor *t)
{
    const bool plain = t->type == TYPE_F32 || t->type == TYPE_F16 || t->type == TYPE_BF16;
    return g->device->borrow && plain && t->ne[0] % 32 == 0 && (uintptr_t)t->data % 16 == 0;
}

static void finish_weight(const struct gpu *g, struct gpu_weight *w)
{
    const struct tensor *t = w->parts[0];
    w->pack = gpu_pack_of(t->type);
    w->as_file = w->n_parts == 1 && lies_right(g, t);
    w->row = gpu_pack_row(w->pack, t->type, t->ne[0], w->as_file);
}

static bool same_kind(const struct op *a, const struct op *b)
{
    return b->code == a->code && b->adapter == a->adapter && a->src[0] == b->src[0] && a->src[1] == b->src[1] && a->w->type == b->w->type && a->w->ne[0] == b->w->ne[0] && !a->tap && !b->tap && a->dst != b->dst;
}

/* Ops i, i + 1, i + 2 are gate, up and their GLU. */
static bool is_glu(const struct program *p, int i)
{
    if (i + 2 >= p->n_ops) return false;
    const struct op *a = &p->ops[i], *b = &p->ops[i + 1], *f = &p->ops[i + 2];
    if (!same_kind(a, b) || f->code != OP_GLU || a->w->ne[1] != b->w->ne[1] || (!a->b) != (!b->b)) return false;
    if (f->src[0] != a->dst || f->src[1] != b->dst || f->dst == a->src[0]) return false;
    return (f->dst == a->dst || dead_after(p, a->dst, i + 2)) && (f->dst == b->dst || dead_after(p, b->dst, i + 2));
}

static bool writes_source(const struct gpu_step *s, int reg) { return reg == s->src; }

/* Joins an addition behind op i, the last one of the step; returns the last op taken in. */
static int join_addition(const struct program *p, int i, struct gpu_step *s)
{
    const struct op *op = &p->ops[i], *next = i + 1 < p->n_ops ? op + 1 : NULL;
    s->op = op;
    if (!next || op->tap || next->code != OP_ADD || next->adapter != op->adapter || (next->src[0] == s->dst[0]) == (next->src[1] == s->dst[0]) || (next->dst != s->dst[0] && !dead_after(p, s->dst[0], i + 1)) ||
        writes_source(s, next->dst) || next->dst == op->src[1])
        return i;
    s->res = next->src[next->src[0] == s->dst[0]];
    s->dst[0] = next->dst;
    s->op = next;
    return i + 1;
}

/* Joins activation and addition behind the single matmul i; returns the last op taken in. */
static int join_behind(const struct program *p, int i, struct gpu_step *s)
{
    const struct op *op = &p->ops[i], *next = i + 1 < p->n_ops ? op + 1 : NULL;
    if (next && !op->tap && next->code == OP_ACT && next->src[0] == op->dst && (next->dst == op->dst || dead_after(p, op->dst, i + 1)) &&
        !writes_source(s, next->dst)) {
        s->act = true;
        s->activation = next->activation;
        s->dst[0] = next->dst;
        i++;
    }
    return join_addition(p, i, s);
}

/* Plans the matmul at op i; returns the last op taken in. */
static int plan_matmul(struct gpu *g, int i)
{
    const struct program *p = g->program;
    const struct op *op = &p->ops[i];
    struct gpu_step *s = &g->steps[g->n_steps++];
    *s = (struct gpu_step){.code = STEP_MATMUL, .op = op, .first = op, .norm = joined_norm(p, i), .dst = {op->dst, -1, -1}, .res = -1};
    s->src = s->norm ? s->norm->src[0] : op->src[0];
    if (is_glu(p, i) && !lies_right(g, op->w) && !writes_source(s, op[2].dst)) {
        struct gpu_weight *w = s->weight = &g->weights[g->n_weights++];
        *w = (struct gpu_weight){.parts = {op[0].w, op[1].w}, .n_parts = 2, .glu = true, .rows = 2 * op->w->ne[1]};
        finish_weight(g, w);
        s->act = true;
        s->activation = op[2].activation;
        s->dst[0] = op[2].dst;
        s->op = &op[2];
        return i + 2;
    }
    int n = 1;
    while (!lies_right(g, op->w) && n < 3 && i + n < p->n_ops && same_kind(op, &op[n]) && !writes_source(s, op[n].dst) && (!op->b) == (!op[n].b) &&
           !(i + n + 2 < p->n_ops && is_glu(p, i + n)))
        n++;
    if (n == 1) {
        s->weight = single_weight(g, op->w);
        finish_weight(g, s->weight);
        return join_behind(p, i, s);
    }
    struct gpu_weight *w = s->weight = &g->weights[g->n_weights++];
    *w = (struct gpu_weight){.n_parts = n};
    for (int k = 0; k < n; k++) {
        w->parts[k] = op[k].w;
        w->rows += op[k].w->ne[1];
        s->dst[k] = op[k].dst;
    }
    finish_weight(g, w);
    s->op = &op[n - 1];
    return i + n - 1;
}

/* Products with experts at op i, together with the next and their GLU; returns the last op taken in. */
static int plan_experts(struct gpu *g, int i)
{
    const struct program *p = g->program;
    const struct op *op = &p->ops[i];
    struct gpu_step *s = &g->steps[g->n_steps++];
    struct gpu_weight *w = &g->weights[g->n_weights++];
    const struct op *norm = takes_norm(p, op) ? joined_norm(p, i) : NULL;
    const bool glu = is_glu(p, i) && !lies_right(g, op->w) && op[2].dst != op->src[1] && !(norm && op[2].dst == norm->src[0]);
    *s = (struct gpu_step){.code = STEP_EXPERTS, .op = glu ? &op[2] : op, .first = op, .weight = w, .norm = norm, .src = norm ? norm->src[0] : op->src[0], .dst = {glu ? op[2].dst : op->dst, -1, -1}, .res = -1,
                           .act = glu, .activation = glu ? op[2].activation : ACTIVATION_SILU};
    *w = (struct gpu_weight){.parts = {op->w, glu ? op[1].w : NULL}, .n_parts = glu ? 2 : 1, .glu = glu, .experts = true, .rows = (glu ? 2 : 1) * op->w->ne[1] * op->w->ne[2]};
    finish_weight(g, w);
    return glu ? i + 2 : i;
}

/* The sum of the experts' results, and an addition behind it. */
static int plan_combine(struct gpu *g, int i)
{
    struct gpu_step *s = &g->steps[g->n_steps++];
    *s = (struct gpu_step){.code = STEP_COMBINE, .first = &g->program->ops[i], .src = g->program->ops[i].src[0], .dst = {g->program->ops[i].dst, -1, -1}, .res = -1};
    return join_addition(g->program, i, s);
}

/* Rope operations right before the attention that alone reads them go into its step. */
static int plan_rope(struct gpu *g, int i)
{
    const struct program *p = g->program;
    const struct op *att = NULL, *q = NULL, *k = NULL;
    int last = i;
    while (last < p->n_ops && p->ops[last].code == OP_ROPE) last++;
    if (last < p->n_ops && p->ops[last].code == OP_ATTENTION && last - i <= 2) {
        att = &p->ops[last];
        if (gpu_is_wide(g, att)) att = NULL; /* its kernels do not turn */
        for (int j = i; att && j < last; j++) {
            if (p->ops[j].dst == att->src[0] && !q && att->src[0] != att->src[1]) q = &p->ops[j];
            else if (p->ops[j].dst == att->src[1] && !k) k = &p->ops[j];
            else att = NULL;
            if (p->ops[j].tap) att = NULL; /* it is to be seen by itself */
            if (!att) break;
        }
    }
    if (att) {
        g->steps[g->n_steps++] = (struct gpu_step){.code = STEP_ATTEND, .op = att, .rope_q = q, .rope_k = k, .dst = {att->dst, -1, -1}, .res = -1};
        return last;
    }
    g->steps[g->n_steps++] = (struct gpu_step){.code = STEP_ROPE, .op = &p->ops[i], .rope_q = &p->ops[i], .dst = {p->ops[i].dst, -1, -1}, .res = -1};
    return i;
}

enum { ROUTE_MOST = 1024 };

/* What no kernel does. */
static kg_status check_op(const struct gpu *g, const struct op *op)
{
    if (op->code == OP_ROUTE && g->program->reg_width[op->src[0]] > ROUTE_MOST) return refuse(g, op, "more than 1024 experts");
    if (op->code == OP_ATTENTION && gpu_is_too_wide(op)) return refuse(g, op, "heads of more than 1024");
    return KG_OK;
}

static kg_status plan_op(struct gpu *g, int *i)
{
    const struct op *op = &g->program->ops[*i];
    struct gpu_step s = {.op = op, .src = op->src[0], .dst = {op->dst, -1, -1}, .res = -1};
    switch (op->code) {
    case OP_EMBED:
    case OP_POS_EMBED:
    case OP_ADD_ROW:
        s.code = STEP_EMBED;
        s.weight = single_weight(g, op->w);
        finish_weight(g, s.weight);
        break;
    case OP_RMS_NORM:
    case OP_LAYER_NORM:
        if (norm_joins(g->program, *i)) return KG_OK;
        s.code = is_head_norm(g->program, op) ? STEP_NORM_HEADS : STEP_NORM;
        s.norm = op;
        break;
    case OP_MATMUL: *i = plan_matmul(g, *i); return KG_OK;
    case OP_ROPE: *i = plan_rope(g, *i); return KG_OK;
    case OP_ATTENTION: s.code = STEP_ATTEND; break;
    case OP_ACT: s.code = STEP_ACT; break;
    case OP_GLU: s.code = STEP_GLU; break;
    case OP_ADD: s.code = STEP_ADD; break;
    case OP_GATE: s.code = STEP_GATE; break;
    case OP_MUL: s.code = STEP_MUL; break;
    case OP_LERP: s.code = STEP_LERP; break;
    case OP_POS_SCALE: s.code = STEP_POS_SCALE; break;
    case OP_ADAPT: s.code = STEP_ADAPT; break;
    case OP_SCALE:
    case OP_SOFTCAP:
    case OP_CLAMP: s.code = STEP_VALUE; break;
    case OP_XIELU: s.code = STEP_XIELU; break;
    case OP_SELECT: s.code = STEP_SELECT; break;
    case OP_ROUTE: s.code = STEP_ROUTE; break;
    case OP_MATMUL_EXPERTS: *i = plan_experts(g, *i); return KG_OK;
    case OP_COMBINE: *i = plan_combine(g, *i); return KG_OK;
    case OP_TAKE:
    case OP_JOIN: s.code = STEP_PART; break;
    case OP_CONV:
    case OP_SCAN:
    case OP_DELTA:
    case OP_WKV: s.code = STEP_STATE; break;
    case OP_LOGITS: return KG_OK;
    default: return refuse(g, op, "this operation does not run on GPUs yet");
    }
    g->steps[g->n_steps++] = s;
    return KG_OK;
}

kg_status gpu_plan(struct gpu *g)
{
    const struct program *p = g->program;
    g->steps = arena_array(&g->arena, (size_t)p->n_ops, sizeof *g->steps);
    g->weights = arena_array(&g->arena, (size_t)p->n_ops, sizeof *g->weights);
    if (!g->steps || !g->weights) return KG_ERR_MEMORY;
    for (int i = 0; i < p->n_ops; i++) KG_TRY(check_op(g, &p->ops[i]));
    for (int i = 0; i < p->n_ops; i++) KG_TRY(plan_op(g, &i));
    for (int i = 1; i < g->n_steps; i++) {
        struct gpu_step *s = &g->steps[i], *before = s - 1;
        s->adapter = s->op ? s->op->adapter : 0; /* all of its operations are the same one's */
        s->same_acts = s->code == STEP_MATMUL && before->code == STEP_MATMUL && s->adapter == before->adapter && s->src == before->src && s->norm == before->norm &&
                       before->dst[0] != s->src && before->dst[1] != s->src && before->dst[2] != s->src &&
                       (s->weight->pack->code > 8) == (before->weight->pack->code > 8) && s->weight->as_file == before->weight->as_file && (s->weight->pack->code == 32) == (before->weight->pack->code == 32);
    }
    return KG_OK;
}

/* ---- rope ---- */

static const double pi = 3.14159265358979323846;

static double yarn_keep(const struct rope *r, int i)
{
    double per_pair = r->n_rot / (2 * log(r->base));
    double low = per_pair * log(r->orig_ctx / (2 * pi * r->beta_fast)), high = per_pair * log(r->orig_ctx / (2 * pi * r->beta_slow));
    low = fmax(r->fractions ? low : floor(low), 0);
    high = fmin(r->fractions ? high : ceil(high), r->n_rot - 1);
    double ramp = (i - low) / fmax(high - low, 0.001);
    return r->ext_factor * (1 - fmin(fmax(ramp, 0), 1));
}

static double scaled(const struct rope *r, double f, int i)
{
    if (r->scaling == ROPE_SCALING_LINEAR) return f / r->factor;
    if (r->scaling == ROPE_SCALING_LLAMA3) {
        double wave = 2 * pi / f;
        if (wave < r->orig_ctx / r->high_freq) return f;
        if (wave > r->orig_ctx / r->low_freq) return f / r->factor;
        double s = (r->orig_ctx / wave - r->low_freq) / (r->high_freq - r->low_freq);
        return (1 - s) * f / r->factor + s * f;
    }
    if (r->scaling == ROPE_SCALING_YARN) {
        double keep = yarn_keep(r, i);
        return (1 - keep) * f / r->factor + keep * f;
    }
    return f;
}

float gpu_rope_turns(const struct rope *r, uint32_t *turn)
{
    const float *factors = r->factors ? r->factors->data : NULL;
    for (int i = 0; i < r->n_rot / 2; i++) {
        float factor = 1;
        if (factors) memcpy(&factor, factors + i, sizeof factor);
        double turns = scaled(r, pow(r->base, -2.0 * i / r->n_rot) / (double)factor, i) / (2 * pi);
        turns = (turns - floor(turns)) * 0x1p32;
        double high = floor(turns), low = (turns - high) * 0x1p32;
        turn[2 * i] = (uint32_t)high;
        turn[2 * i + 1] = (uint32_t)low;
    }
    return r->scaling == ROPE_SCALING_YARN ? (float)(r->attn_factor * (1 + 0.1 * log(r->factor))) : r->magnitude > 0 ? (float)r->magnitude : 1;
}
