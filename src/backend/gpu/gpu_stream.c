/* One token's matmuls whose weights come as streams (stream.h): who computes what, and who rounds the token. A step whose result only has to be normed and
 * rounded for the matmul behind it does that itself, sixteen elements at a time, and feeds it with int8 units: else every group of that matmul would. */
#include "backend/gpu/gpu_run.h"
#include "backend/gpu/kernels/tune.h"

bool gpu_is_int8(const struct gpu *g, const struct gpu_step *s) { return s->weight->pack->code <= 8 && g->params.activations == KG_ACT_INT8; }

static uint few_waves(const struct gpu *g) { return (2 * (uint)g->info.stream_waves + 2) / 3; }

/* Bytes of the token, and of what the group has computed for the next. */
static size_t token_bytes(const struct gpu *g, const struct gpu_step *s) { return ROUND_UP((size_t)s->weight->row.n_units * (gpu_is_int8(g, s) ? 48 : 128), (size_t)128); }

enum { STREAM_SLOTS = 4 };

/* A small group, so that it fits beside those of two other launches. */
static void take_one_wave(const struct gpu *g, const struct gpu_step *s, MatP *p)
{
    p->waves = p->early = 1;
    p->slots = p->per_group;
    p->ring = ROUND_UP(p->slots * p->bundle_bytes, 128u);
    p->sums_at = p->ring + (uint)token_bytes(g, s);
}

/* Up to `waves` waves, their rings and their bundles in shared memory, token included. False: there is no place for a row. */
static bool fit_streams(const struct gpu *g, const struct gpu_step *s, uint waves, MatP *p)
{
    const size_t row = p->w.row_bytes, token = token_bytes(g, s);
    const uint cores = (uint)g->info.n_cores;
    const size_t beside = token + 16 * (ceil_div(p->rows, cores) + 32), room = STREAM_ROOM; /* 16: the sums of a row */
    for (p->waves = waves; p->waves >= 1 && beside < room; p->waves--) {
        const size_t each = (room - beside) / p->waves / 128 * 128;
        p->bundle = s->weight->glu || (p->rows % 2 == 0 && p->rows >= 4 * p->waves * cores && 2 * row <= each) ? 2 : 1;
        p->bundle_bytes = p->bundle * p->w.row_bytes;
        p->n_bundles = p->rows / p->bundle;
        p->piece = s->feeds ? s->weight->glu ? 16 : 16 / p->bundle : 1; /* whole sixteens of results */
        const uint pieces = ceil_div(p->n_bundles, p->piece);
        p->per_group = ceil_div(pieces, cores) * p->piece;
        p->n_groups = MIN(pieces, cores);
        p->n_large = pieces - (ceil_div(pieces, p->n_groups) - 1) * p->n_groups;
        if (!gpu_is_int8(g, s)) p->n_groups = p->n_large = ceil_div(p->n_bundles, p->per_group); /* measured: bench/NOTES.md */
        p->slots = (uint)MIN(MIN(each / p->bundle_bytes, (size_t)STREAM_SLOTS), (size_t)ceil_div(p->per_group, p->waves));
        p->ring = (uint)ROUND_UP(p->slots * p->bundle_bytes, (size_t)128);
        p->sums_at = (uint)(p->waves * p->ring + token);
        p->early = (p->waves + 1) / 2; /* the token does not queue behind all of them: measured, bench/NOTES.md */
        if (p->slots > 0) return true;
    }
    return false;
}

/* All weights of a group find room at once with few waves: a launch's group then fits beside that of the launch before, and its weights come while
 * that one waits and computes. It takes neighbours that all do, since one that fills the multiprocessor keeps the next one out. */
bool gpu_streams_beside(const struct gpu *g)
{
    for (int i = 0; i < g->n_steps; i++) {
        const struct gpu_step *s = &g->steps[i];
        if (s->code == STEP_SELECT) break; /* the head is long */
        if (s->code != STEP_MATMUL) continue;
        MatP p = {.w = s->weight->row, .rows = (uint)s->weight->rows};
        if (!fit_streams(g, s, few_waves(g), &p) || p.waves < few_waves(g) || p.slots * p.waves < p.per_group) return false;
    }
    return true;
}

bool gpu_plan_streams(const struct gpu *g, const struct gpu_step *s, MatP *p)
{
    if (!g->info.stream_waves) return false;
    if (g->beside && fit_streams(g, s, few_waves(g), p) && p->slots * p->waves >= p->per_group) {
        p->early = p->waves;
        return true;
    }
    return fit_streams(g, s, gpu_is_int8(g, s) ? few_waves(g) : (uint)g->info.stream_waves, p); /* measured: bench/NOTES.md */
}

/* ---- feeding ---- */

/* The matmul behind the step reads what it writes, and nothing but a norm by one number comes between. */
static const struct gpu_step *next_of(const struct gpu *g, const struct gpu_step *s)
{
    const struct gpu_step *next = s + 1, *end = g->steps + g->n_steps;
    int reg = s->dst[0];
    for (; next < end && next->code == STEP_SELECT; next++)
        if (next->op->src[0] == reg) reg = next->op->dst; /* one token selects itself */
    if (next >= end || next->code != STEP_MATMUL || next->adapter != s->adapter || next->same_acts || next->src != reg || s->dst[1] >= 0) return NULL;
    const int width = g->regs[reg].width;
    const bool plain = !next->norm || (next->norm->code == OP_RMS_NORM && !next->norm->b && next->norm->w);
    MatP p = {.w = next->weight->row, .rows = (uint)next->weight->rows};
    return plain && gpu_is_int8(g, next) && width % 64 == 0 && gpu_plan_streams(g, next, &p) ? next : NULL;
}

/* Last to first: whether a step feeds changes how it goes, not whether it can be fed. */
void gpu_plan_feeds(struct gpu *g)
{
    for (int i = g->n_steps - 1; i >= 0 && g->info.fuses; i--) {
        struct gpu_step *s = &g->steps[i];
        if (s->code == STEP_ATTEND ? s->op->attention.v_dim % 16 || !g->info.attend_one || gpu_is_wide(g, s->op) : s->code != STEP_MATMUL) continue;
        s->feeds = next_of(g, s);
        MatP p = {.w = s->code == STEP_MATMUL ? s->weight->row : (RowP){0}, .rows = s->code == STEP_MATMUL ? (uint)s->weight->rows : 0};
        if (s->feeds && s->code == STEP_MATMUL && !gpu_plan_streams(g, s, &p)) s->feeds = NULL;
    }
}

/* ---- launches that begin before the one before has ended ---- */

/* The step behind multiplies the same token, so it needs nothing of this one: it waits for its beginning only. */
static bool is_met(const struct gpu *g, const struct gpu_step *s)
{
    const struct gpu_step *next = s + 1;
    MatP p = {.w = s->weight->row, .rows = (uint)s->weight->rows};
    if (next >= g->steps + g->n_steps || !next->same_acts || s->same_acts || !gpu_plan_streams(g, s, &p)) return false;
    p = (MatP){.w = next->weight->row, .rows = (uint)next->weight->rows};
    return gpu_plan_streams(g, next, &p);
}

kg_status gpu_stream_memory(struct gpu *g)
{
    size_t most = 0;
    for (int i = 0; i < g->n_steps; i++)
        if (g->steps[i].code == STEP_MATMUL && g->info.stream_waves && is_met(g, &g->steps[i])) KG_TRY(gpu_buffer(g, &g->steps[i].meet, (1 + (size_t)g->info.n_cores) * sizeof(uint)));
    for (int i = 0; i < g->n_steps; i++)
        if (g->steps[i].feeds) most = MAX(most, g->steps[i].feeds->weight->row.n_units);
    for (int i = 0; most && i < 2; i++) KG_TRY(gpu_buffer(g, &g->fed[i], most * FED_UNIT + most * 2 * sizeof(float)));
    return KG_OK;
}

uint gpu_feed(struct gpu_run *r, const struct gpu_step *s, void **to)
{
    if (!s->feeds || r->n != 1) return 0;
    r->fed = s->feeds;
    r->fed_at ^= 1;
    *to = r->g->fed[r->fed_at];
    return s->feeds->weight->row.n_units;
}

kg_status gpu_run_streams(struct gpu_run *r, const struct gpu_step *s, const MatP *plan)
{
    struct gpu *g = r->g;
    const bool int8 = gpu_is_int8(g, s), fed = r->fed == s;
    MatP p = *plan;
    void *x = fed ? g->fed[r->fed_at] : g->regs[s->src].buffer, *next = NULL, *meet = r->met;
    r->fed = fed && s[1].same_acts && s + 1 < g->steps + g->n_steps ? s + 1 : NULL;
    p.feeds = gpu_feed(r, s, &next);
    p.meets = meet ? MEET_JOIN : s->meet ? MEET_TELL : MEET_NONE;
    r->met = p.meets == MEET_TELL ? s->meet : NULL;
    if (!meet) meet = s->meet;
    p.feeds_norm = p.feeds && s->feeds->norm;
    void *kernel = !int8 ? s->weight->ms_f32 : !fed ? s->weight->ms_i8 : p.w.n_units <= 64 ? s->weight->ms_few : s->weight->ms_fed; /* two units of a lane */
    if (p.meets == MEET_JOIN && kernel == s->weight->ms_few && p.per_group <= STREAM_SLOTS) take_one_wave(g, s, &p);
    const size_t shared = p.sums_at + 16 * (size_t)p.per_group * p.bundle;
    return LAUNCH_ROOM(g, kernel, p.n_groups, 1, p.waves * 32, shared, p, s->weight->buffer, x, s->norm_w, s->norm_b, s->bias,
                       reg_buffer(g, s->res), reg_buffer(g, s->dst[0]), reg_buffer(g, s->dst[1]), reg_buffer(g, s->dst[2]), next, p.feeds_norm ? s->feeds->norm_w : NULL, meet);
}
