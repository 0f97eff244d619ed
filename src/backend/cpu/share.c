/* How threads share out the rows of a matmul, and what they read while they wait for each other.
 *
 * Each thread has a share, rows behind each other, and takes it in pieces; when it is done with its shares of all matmuls up to the next meeting,
 * it helps the others. Pieces are counted in memory of the share's owner, and a bit for each share says that nothing is left of it, so that many
 * threads need not ask each other. The last pieces of many tokens are some of them with the last rows.
 *
 * A few tokens wait for memory, all the time: a thread that waits for the others asks for the weights that it is going to multiply next. */
#include "backend/cpu/engine.h"

#include "base/os.h"

#define FETCH_LINES 8   /* asked for between two looks whether the others have come */
#define FETCH_TOKENS 32 /* at most: more are busy with arithmetic */
#define PART_TOKENS 192 /* of parts: rows are unpacked for each part anew, which is a few percent of multiplying them with so many */

_Static_assert(PART_TOKENS % ACT_PART == 0, "parts that kernels can begin with");

kg_status cpu_share_open(struct cpu *c)
{
    const size_t n_threads = (size_t)c->params.n_threads;
    c->taken_stride = ROUND_UP((size_t)c->n_steps, CACHE_LINE / sizeof *c->work->taken);
    c->gone_stride = ROUND_UP((n_threads + 63) / 64, CACHE_LINE / sizeof *c->work->gone);
    for (int i = 0; i < 2; i++) {
        c->works[i].taken = arena_array(&c->arena, n_threads * c->taken_stride, sizeof *c->works[i].taken);
        c->works[i].gone = arena_array(&c->arena, (size_t)c->n_steps * c->gone_stride, sizeof *c->works[i].gone);
        if (!c->works[i].taken || !c->works[i].gone) return KG_ERR_MEMORY;
    }
    c->work = &c->works[0];
    c->fetch_most = MAX(os_cache_bytes(2), (size_t)256 << 10) / 2; /* the other half is left to what the thread works with */
    return KG_OK;
}

/* Each thread clears its own counters of the next run. Once all have ended this one, those of the run before are nobody's. */
void cpu_share_clear(struct cpu *c, int thread)
{
    struct cpu_work *next = cpu_other_work(c);
    const size_t n_steps = (size_t)c->plans[0].n_steps, t = (size_t)thread;
    for (size_t s = 0; s < n_steps; s++) atomic_store_explicit(&next->taken[t * c->taken_stride + s], 0, memory_order_relaxed);
    for (size_t s = 0; s < n_steps && t % 64 == 0; s++) atomic_store_explicit(&next->gone[s * c->gone_stride + t / 64], 0, memory_order_relaxed);
}

/* ---- shares and pieces ---- */

/* Rows that the work of n tokens is split at multiples of: for one token as many as are read side by side, or fewer, so that each thread has some; more than
 * four panels only if they can be shared out evenly. */
static int grain_of(const struct worker *w, const struct cpu_matmul *m, int n)
{
    if (n != 1) return 2 * PANEL;
    int side = MAX(w->c->kernels.side[m->format->acts], 2 * PANEL);
    while (side > 4 * PANEL && m->out < 8 * w->n * side) side /= 2;
    while (side > 2 * PANEL && m->out <= (w->n - 1) * side) side /= 2;
    return side;
}

static struct rows share_of(const struct cpu_matmul *m, int grain, int thread, int n_threads)
{
    const int64_t units = (m->out + grain - 1) / grain;
    return (struct rows){(int)(units * thread / n_threads) * grain, MIN((int)(units * (thread + 1) / n_threads) * grain, m->out)};
}

/* The share that is taken in pieces: all of it, or its first half, of which each piece comes with as many rows of the other half, so that both are read
 * from beginning to end. later: elements of matrices that the owner goes on with. */
struct share cpu_pieces(const struct worker *w, struct cpu_matmul *m, int owner, int64_t later)
{
    const int grain = grain_of(w, m, m->n);
    struct share s = {share_of(m, grain, owner, w->n), grain, m->n, m->n, w->n == 1 ? 1 : 3, (int)MIN(later / m->in / w->n, INT32_MAX)};
    if (w->n > 1 && s.n > PART_TOKENS) s.tokens = PART_TOKENS;
    if (m->n != 1 || !m->packed || !w->c->kernels.apart) return s;
    m->apart = ROUND_UP((s.rows.row1 - s.rows.row0 + 1) / 2, PANEL);
    m->end = s.rows.row1;
    s.rows.row1 = MIN(s.rows.row0 + m->apart, s.rows.row1);
    s.grain = 2 * PANEL;       /* less is too short for two streams, */
    s.parts = MIN(s.parts, 2); /* which are worth more than balance */
    s.later /= 2;
    return s;
}

/* Piece number i of a share, empty when there is none: each time a part of what is left and comes later, so that there are few, to stream, and threads
 * that were slowed down have little left when the others are done. Counted in cells of the smallest size: grain rows, all tokens of these, the next rows. */
static struct piece piece_of(const struct share *s, int i)
{
    const int64_t across = (s->n + s->tokens - 1) / s->tokens, end = (s->rows.row1 - s->rows.row0 + s->grain - 1) / s->grain * across;
    int64_t at = 0, n = 0;
    for (; i >= 0 && at + n < end; i--) {
        at += n;
        n = MAX((end - at + s->later * across / s->grain) / s->parts, 1);
        n = MIN(n >= across && at % across == 0 ? n / across * across : MIN(n, across - at % across), end - at);
    }
    if (i >= 0) return (struct piece){0};
    const int row0 = s->rows.row0 + (int)(at / across) * s->grain, t0 = (int)(at % across) * s->tokens;
    const bool whole = n >= across;
    return (struct piece){
        .row0 = row0,
        .row1 = MIN(row0 + (int)(whole ? n / across : 1) * s->grain, s->rows.row1),
        .t0 = t0,
        .t1 = MIN(t0 + (int)n * s->tokens, s->n),
        .last = at + n == end,
    };
}

static _Atomic uint64_t *gone_bits(const struct worker *w, int step, int owner) { return &w->c->work->gone[(size_t)step * w->c->gone_stride + (size_t)owner / 64]; }

/* Nothing is left of the owner's share of a step. */
bool cpu_gone(const struct worker *w, int step, int owner)
{
    return atomic_load_explicit(gone_bits(w, step, owner), memory_order_relaxed) >> owner % 64 & 1;
}

/* The next piece of the owner's share of a step; empty when there is none. */
struct piece cpu_take(const struct worker *w, int step, const struct share *s, int owner)
{
    if (s->rows.row0 == s->rows.row1) return (struct piece){0};
    const struct piece p = piece_of(s, atomic_fetch_add_explicit(cpu_taken(w, step, owner), 1, memory_order_relaxed));
    if (p.last) atomic_fetch_or_explicit(gone_bits(w, step, owner), (uint64_t)1 << owner % 64, memory_order_relaxed);
    return p;
}

/* ---- what comes next ---- */

/* The matmul behind a step; the first of all comes after the last. -1: one that reads the file's rows, or matrices that a token chooses. */
static int next_matmul(const struct cpu *c, int step)
{
    for (int i = 1; i <= c->n_steps; i++) {
        const int at = (step + i) % c->n_steps;
        const struct step *s = &c->steps[at];
        if (s->code == STEP_EXPERT_MATMUL) return -1;
        if (cpu_is_matmul(s)) return s->matmul.packed ? at : -1;
    }
    return -1;
}

/* What this thread reads of the matmul after this step; NULL: unknown. */
const uint8_t *cpu_next_share(const struct worker *w, int step)
{
    const int at = next_matmul(w->c, step);
    if (at < 0) return NULL;
    const struct cpu_matmul *m = &w->c->steps[at].matmul;
    return cpu_packed_at(m, share_of(m, grain_of(w, m, 1), w->i, w->n).row0);
}

/* Goes on with this thread's share of a matmul. */
static void fetch_from(struct worker *w, int step)
{
    struct fetch *f = &w->fetch;
    if (step < 0) {
        f->left = 0;
        return;
    }
    const struct cpu_matmul *m = &w->c->steps[step].matmul;
    const struct rows share = share_of(m, grain_of(w, m, w->c->batch->n), w->i, w->n);
    f->step = step;
    f->at = cpu_packed_at(m, share.row0);
    f->end = cpu_packed_at(m, share.row1);
}

/* Asks for a few lines, into the L2 cache. */
static bool fetch_some(void *ctx)
{
    struct worker *w = ctx;
    struct fetch *f = &w->fetch;
    if (f->left == 0) return false;
    const size_t n = MIN((size_t)(f->end - f->at), (size_t)FETCH_LINES * CACHE_LINE);
    for (const uint8_t *stop = f->at + n; f->at < stop; f->at += CACHE_LINE) __builtin_prefetch(f->at, 0, 2);
    f->left -= MIN(f->left, (size_t)FETCH_LINES * CACHE_LINE);
    if (f->at >= f->end) fetch_from(w, next_matmul(w->c, f->step));
    return true;
}

/* Meets the other threads before step `at`. */
void cpu_meet(struct worker *w, int at)
{
    struct cpu *c = w->c;
    if (w->n == 1 || c->batch->n > FETCH_TOKENS) {
        pool_barrier(c->pool);
        return;
    }
    const int first = next_matmul(c, at - 1);
    if (first != w->fetch.first) {
        w->fetch = (struct fetch){.first = first, .left = c->fetch_most};
        fetch_from(w, first);
    }
    pool_barrier_idle(c->pool, fetch_some, w);
}
