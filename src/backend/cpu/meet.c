/* Where threads must meet: before a step that touches what another thread wrote since they last met, or writes what another read. Worked
 * out twice. With many tokens each thread goes through its own tokens, and meets the others for what is shared out. A single token's
 * norms, sums and roundings take a thread a few microseconds, and a meeting one or two: every thread does them by itself, in memory of its
 * own, except where a row is wide enough for a part of it to be worth a meeting. */
#include "backend/cpu/engine.h"

#define WIDE 4096 /* elements */

/* Memory that steps touch: registers, each with its activations, then these. */
enum { KV, ROPE_TABLES, EXPERT_ROWS, PLACES };

/* Which threads a step has touch it: bits. Steps split by tokens leave each row to the same thread, steps split into parts each part. */
enum { TOUCH_BY_TOKENS = 1, TOUCH_BY_PARTS = 2, TOUCH_ANY = 4 };

struct touched {
    uint8_t *read, *written; /* [n]: since the last meeting, TOUCH_* */
    int n;
};

struct places {
    int reads[4], writes; /* -1: none */
};

/* one: of a batch of one token. Then attention also stores its keys and values (who reads them later has met its writers for its queries), and products of experts
 * are put where they belong. */
static struct places step_places(const struct cpu *c, const struct step *s, bool one)
{
    const struct op *op = s->op;
    const int first = c->program->n_regs;
    struct places p = {{-1, -1, -1, -1}, -1};
    if (s->ready) return p;
    switch (s->code) {
    case STEP_ROPE_TABLES: p.writes = first + ROPE_TABLES; break;
    case STEP_ACTS:
        p.reads[0] = s->reg;
        p.writes = s->reg;
        break;
    case STEP_KV_STORE:
        p.reads[0] = op->src[1];
        p.reads[1] = op->src[2];
        p.writes = first + KV;
        break;
    case STEP_ATTEND:
        p.reads[0] = op->src[0];
        p.reads[1] = one ? op->src[1] : first + KV;
        p.reads[2] = one ? op->src[2] : -1;
        p.writes = op->dst;
        break;
    case STEP_EXPERT_SORT:
        p.reads[0] = op->src[1];
        p.writes = first + EXPERT_ROWS;
        break;
    case STEP_EXPERT_ROWS:
        p.reads[0] = op->src[0];
        p.writes = first + EXPERT_ROWS;
        break;
    case STEP_EXPERT_MATMUL:
        if (one) p.reads[0] = first + EXPERT_ROWS;
        p.writes = one ? op->dst : first + EXPERT_ROWS;
        break;
    case STEP_EXPERT_OUT:
        p.reads[0] = first + EXPERT_ROWS;
        p.reads[1] = op->src[1];
        p.writes = op->dst;
        break;
    case STEP_STATE: /* the state is its own */
    case STEP_OP:
        for (int i = 0; i < 3; i++) p.reads[i] = op->src[i];
        if (op->code == OP_ROPE) p.reads[0] = op->dst, p.reads[3] = first + ROPE_TABLES;
        p.writes = op->dst;
        break;
    }
    return p;
}

/* Whether threads must meet before the step; then notes what it touches, but for operands that are each thread's own. */
static bool must_meet(struct touched *t, const struct places *p, int who, unsigned own, bool own_dst)
{
    const int others = who == TOUCH_ANY ? 7 : 7 & ~who;
    bool meet = p->writes >= 0 && !own_dst && ((t->read[p->writes] | t->written[p->writes]) & others);
    for (int i = 0; i < 4; i++) meet |= p->reads[i] >= 0 && !(own >> i & 1) && (t->written[p->reads[i]] & others);
    if (meet) {
        memset(t->read, 0, (size_t)t->n);
        memset(t->written, 0, (size_t)t->n);
    }
    for (int i = 0; i < 4; i++)
        if (p->reads[i] >= 0 && !(own >> i & 1)) t->read[p->reads[i]] |= (uint8_t)who;
    if (p->writes >= 0 && !own_dst) t->written[p->writes] |= (uint8_t)who;
    return meet;
}

/* ---- many tokens ---- */

static void meet_of_many(struct cpu *c, struct touched *t)
{
    for (int i = 0; i < c->n_steps; i++) {
        struct step *s = &c->steps[i];
        const struct places p = step_places(c, s, false);
        s->barrier = must_meet(t, &p, s->split == SPLIT_TOKENS ? TOUCH_BY_TOKENS : TOUCH_ANY, 0, false);
        /* the first SELECT takes rows that other threads wrote */
        if (s->selected && !c->steps[i - 1].selected) s->barrier = true;
    }
}

/* ---- one token ---- */

static bool can_read_own(const struct step *s)
{
    return s->code == STEP_ACTS || s->code == STEP_KV_STORE || s->code == STEP_ATTEND || (s->code == STEP_OP && (s->split == SPLIT_TOKENS || s->op->code == OP_MATMUL));
}

static bool overwrites(const struct step *s, int reg)
{
    return (s->code == STEP_OP || s->code == STEP_ATTEND || s->code == STEP_EXPERT_OUT || s->code == STEP_STATE) && s->op->dst == reg && s->op->code != OP_ROPE;
}

/* Whether all that read step i's result can do so when each thread has its own. */
static bool own_result_will_do(const struct cpu *c, int i)
{
    const int reg = c->steps[i].op->dst;
    if (reg == c->logits_reg) return false;
    for (int j = i + 1; j < c->n_steps; j++) {
        const struct step *s = &c->steps[j];
        const struct places p = step_places(c, s, false);
        for (int k = 0; k < 4; k++)
            if (p.reads[k] == reg && !can_read_own(s)) return false;
        if (overwrites(s, reg)) break;
    }
    return true;
}

static bool is_wide(const struct cpu *c, int reg) { return c->program->reg_width[reg] >= WIDE && c->program->reg_width[reg] % ACT_SUPER == 0; }

static enum one_split split_of_one(const struct cpu *c, int i)
{
    const struct step *s = &c->steps[i];
    if (s->code == STEP_KV_STORE || s->code == STEP_EXPERT_OUT || s->ready) return ONE_NOT;
    if (s->code == STEP_EXPERT_SORT || (s->code == STEP_EXPERT_ROWS && cpu_experts_share_row(c, s))) return ONE_FIRST;
    if (s->split != SPLIT_TOKENS) return ONE_AS_MANY;
    if (s->code == STEP_ACTS) return i > 0 && c->steps[i - 1].one == ONE_PARTS && c->steps[i - 1].op->dst == s->reg ? ONE_PARTS : ONE_EACH;
    if (s->code != STEP_OP) return ONE_FIRST;
    const enum op_code code = s->op->code;
    if ((code == OP_GLU || code == OP_ACT || code == OP_XIELU || code == OP_MUL) && is_wide(c, s->op->dst)) return ONE_PARTS;
    return own_result_will_do(c, i) ? ONE_EACH : ONE_FIRST;
}

/* own: of each register, bits 1 << enum acts_kind: each thread has its own row, its own activations. */
static void meet_of_one(struct cpu *c, struct touched *t, uint8_t *own)
{
    for (int i = 0; i < c->n_steps; i++) {
        struct step *s = &c->steps[i];
        s->one = split_of_one(c, i);
        if (s->one == ONE_NOT) continue;
        const struct places p = step_places(c, s, true);
        const bool is_matmul = cpu_is_matmul(s), each = s->one == ONE_EACH;
        s->own = 0;
        for (int k = 0; k < 4; k++)
            if (p.reads[k] >= 0 && p.reads[k] < c->program->n_regs) s->own |= (uint8_t)((own[p.reads[k]] >> (is_matmul ? s->matmul.format->acts : ACTS_ROWS) & 1u) << k);
        s->one_barrier = must_meet(t, &p, s->one == ONE_FIRST ? TOUCH_BY_TOKENS : s->one == ONE_PARTS ? TOUCH_BY_PARTS : TOUCH_ANY, s->own, each);
        if (p.writes < 0 || p.writes >= c->program->n_regs) continue;
        const enum acts_kind made = s->code == STEP_ACTS ? s->acts : ACTS_ROWS;
        own[p.writes] = (uint8_t)((own[p.writes] & ~(1u << made)) | (unsigned)each << made);
    }
}

kg_status cpu_plan_meetings(struct cpu *c)
{
    const size_t n = (size_t)(c->program->n_regs + PLACES);
    struct touched many = {arena_alloc(&c->arena, n), arena_alloc(&c->arena, n), (int)n}, one = {arena_alloc(&c->arena, n), arena_alloc(&c->arena, n), (int)n};
    uint8_t *own = arena_alloc(&c->arena, n);
    if (!many.read || !many.written || !one.read || !one.written || !own) return KG_ERR_MEMORY;
    meet_of_many(c, &many);
    meet_of_one(c, &one, own);
    return KG_OK;
}
