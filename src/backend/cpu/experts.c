/* Mixtures of experts: which experts a token chooses, and the products with them. Rows (one chosen expert of one token) are put in the order
 * of their experts, so that each matrix that has any is read once and meets all of its rows in tiles, as in a matmul of its own. */
#include "backend/cpu/engine.h"

#include <math.h>

/* ---- the choice ---- */

/* The best of the numbers that are not taken yet (taken[i] 0), and takes it; a NaN counts as the lowest. */
static int take_best(const float *x, int n, float *taken)
{
    int best = -1;
    for (int i = 0; i < n; i++)
        if (taken[i] == 0 && (best < 0 || x[i] > x[best] || (isnan(x[best]) && !isnan(x[i])))) best = i;
    taken[best] = 1;
    return best;
}

/* Takes the experts of all groups but the best ones. */
static void drop_groups(const struct route *route, const float *choice, int n, float *score, float *scratch, float *taken)
{
    const int size = n / route->n_groups;
    for (int g = 0; g < route->n_groups; g++) {
        memset(scratch, 0, (size_t)size * sizeof *scratch);
        const int a = take_best(choice + g * size, size, scratch), b = take_best(choice + g * size, size, scratch);
        score[g] = choice[g * size + a] + (route->group_by_one ? 0 : choice[g * size + b]);
    }
    memset(scratch, 0, (size_t)route->n_groups * sizeof *scratch);
    for (int i = 0; i < route->n_groups_used; i++) take_best(score, route->n_groups, scratch);
    for (int i = 0; i < n; i++) taken[i] = scratch[i / size] == 0;
}

void cpu_route(const struct route *route, const float *x, const float *factors, const float *bias, int n, float *scratch, float *dst)
{
    float *p = scratch, *choice = p + n, *taken = choice + n, *score = taken + n, *more = score + n, *weight = dst + route->n_used;
    float most = -INFINITY, sum = 0, total = 0;
    for (int i = 0; i < n; i++) most = fmaxf(most, x[i]);
    for (int i = 0; i < n; i++) sum += p[i] = route->sigmoid ? 1 / (1 + expf(-x[i])) : expf(x[i] - most);
    for (int i = 0; i < n; i++) {
        if (!route->sigmoid) p[i] /= sum;
        choice[i] = p[i] + (bias ? bias[i] : 0);
        taken[i] = 0;
    }
    if (route->n_groups > 1) drop_groups(route, choice, n, score, more, taken);
    for (int s = 0; s < route->n_used; s++) {
        const int e = take_best(choice, n, taken);
        dst[s] = (float)e;
        weight[s] = p[e];
        total += p[e];
    }
    for (int s = 0; s < route->n_used; s++) weight[s] *= (float)route->scale * (factors ? factors[(int)dst[s]] : 1) / (route->normed ? total + (float)route->eps : 1);
}

/* ---- the products ---- */

/* Choice k of token t; without a choice all experts, one after the other. */
static int chosen(const struct cpu *c, const struct op *op, int t, int k) { return op->src[1] >= 0 ? (int)cpu_row(c, op->src[1], t)[k] : k; }

void cpu_experts_sort(struct cpu *c, const struct step *s)
{
    struct cpu_experts *x = &c->experts;
    const int n = cpu_n_tokens(c, s), used = s->op->n_used, count = (int)s->op->w->ne[2];
    memset(x->first, 0, (size_t)(count + 1) * sizeof *x->first);
    for (int t = 0; t < n; t++)
        for (int k = 0; k < used; k++) x->first[chosen(c, s->op, t, k) + 1]++;
    x->n_busy = 0;
    for (int e = 0; e < count; e++) {
        if (x->first[e + 1] > 0) x->busy[x->n_busy++] = e;
        x->first[e + 1] += x->first[e];
    }
    x->n_rows = n * used;
    for (int t = 0; t < n; t++)
        for (int k = 0; k < used; k++) {
            const int e = chosen(c, s->op, t, k), at = x->first[e]++; /* runs up to where the next expert begins */
            x->order[at] = t * used + k;
            x->expert[at] = e;
        }
    for (int e = count; e > 0; e--) x->first[e] = x->first[e - 1];
    x->first[0] = 0;
}

static void prepare_row(const struct cpu *c, enum acts_kind kind, const float *from, int in, int at)
{
    const struct cpu_experts *x = &c->experts;
    const int e = x->expert[at], first = x->first[e], n = x->first[e + 1] - first, t = at - first;
    const struct cpu_acts a = acts_from(&x->acts, (size_t)first, in);
    if (kind == ACTS_ROWS) memcpy(x->x + (size_t)at * (size_t)in, from, (size_t)in * sizeof *from);
    else acts_make(&c->kernels, &a, kind, from, in, n, t);
}

/* Whether all experts of a token get the same row, not each one of its own. */
bool cpu_experts_share_row(const struct cpu *c, const struct step *s) { return c->program->reg_width[s->op->src[0]] == s->op->w->ne[0]; }

/* one: a batch of one token, of which a shared row is made once. */
void cpu_experts_rows(struct cpu *c, const struct step *s, bool one, atomic_int *next)
{
    const struct op *op = s->op;
    const int in = (int)op->w->ne[0];
    const bool same = cpu_experts_share_row(c, s);
    for (int at, n = one && same ? 1 : c->experts.n_rows; (at = atomic_fetch_add_explicit(next, 1, memory_order_relaxed)) < n;) {
        const int row = c->experts.order[at];
        prepare_row(c, s->matmul.format->acts, cpu_row(c, op->src[0], row / op->n_used) + (same ? 0 : (size_t)(row % op->n_used) * (size_t)in), in, at);
    }
}

/* Of one token the products go where they belong, else behind each other in the order of rows. */
void cpu_experts_matmul(const struct worker *w, const struct step *s, atomic_int *next)
{
    const struct cpu *c = w->c;
    const struct cpu_experts *x = &c->experts;
    const int in = s->matmul.in, out = s->matmul.out;
    const bool first_only = w->one && cpu_experts_share_row(c, s);
    /* as in a matmul, but that busy experts make pieces already */
    const int piece = MAX(ROUND_UP(out * x->n_busy / (8 * w->n), 2 * PANEL), 2 * PANEL), n_pieces = (out + piece - 1) / piece;
    for (int i; (i = atomic_fetch_add_explicit(next, 1, memory_order_relaxed)) < n_pieces * x->n_busy;) {
        const int e = x->busy[i / n_pieces], row0 = i % n_pieces * piece, first = x->first[e], from = first_only ? 0 : first;
        struct cpu_matmul m = s->matmul;
        m.tensor = &s->views[e];
        m.packed = s->experts[e].data;
        m.n = m.t1 = x->first[e + 1] - first;
        m.x = x->x + (size_t)from * (size_t)in;
        m.acts = acts_from(&x->acts, (size_t)from, in);
        m.bias = s->b ? s->b + (size_t)e * (size_t)out : NULL;
        m.y = w->one ? cpu_row(c, s->op->dst, 0) + (size_t)x->order[first] * (size_t)out : x->y + (size_t)first * (size_t)out;
        m.scratch = w->scratch;
        m.format->run(&m, row0, MIN(row0 + piece, out));
    }
}

/* The rows of a token lie anywhere: each is looked for among those of its expert, which are in the order of tokens. */
void cpu_experts_out(struct cpu *c, const struct step *s, int t)
{
    const struct cpu_experts *x = &c->experts;
    const int used = s->op->n_used;
    const size_t out = (size_t)s->matmul.out;
    for (int k = 0; k < used; k++) {
        const int e = chosen(c, s->op, t, k), want = t * used + k;
        int lo = x->first[e], hi = x->first[e + 1] - 1;
        while (lo < hi) {
            const int mid = lo + (hi - lo) / 2;
            if (x->order[mid] < want) lo = mid + 1;
            else hi = mid;
        }
        memcpy(cpu_row(c, s->op->dst, t) + (size_t)k * out, x->y + (size_t)lo * out, out * sizeof(float));
    }
}
