/* Block tables over a backend's KV pool; see kv.h. The invariant: a block is in `unused` exactly if its count is 0. */
#include "run/kv.h"

#include <stdlib.h>

static int64_t blocks_of(int64_t n_positions) { return (n_positions + KV_BLOCK - 1) / KV_BLOCK; }

void kv_pool_init(struct kv_pool *pool, const struct backend *backend, void *ctx)
{
    *pool = (struct kv_pool){.backend = backend, .ctx = ctx};
}

void kv_pool_free(struct kv_pool *pool)
{
    free(pool->refs);
    free(pool->unused);
    free(pool->unused_states);
    *pool = (struct kv_pool){0};
}

/* ---- states */

static bool has_states(const struct kv_pool *pool) { return pool->backend->state_bytes && pool->backend->state_bytes(pool->ctx) > 0; }

static kg_status take_state(struct kv_pool *pool, int32_t *state)
{
    if (pool->n_unused_states == 0) {
        int32_t *unused = realloc(pool->unused_states, ((size_t)pool->n_states + 1) * sizeof *unused);
        if (!unused) return status_set(KG_ERR_MEMORY, "no memory for %d states", pool->n_states + 1);
        pool->unused_states = unused;
        KG_TRY(pool->backend->state_reserve(pool->ctx, pool->n_states + 1));
        pool->unused_states[pool->n_unused_states++] = pool->n_states++;
    }
    *state = pool->unused_states[--pool->n_unused_states];
    return KG_OK;
}

static void release_state(struct kv_pool *pool, int32_t state) { pool->unused_states[pool->n_unused_states++] = state; }

/* Lets go of kept states behind position n. */
static void drop_kept(struct kv_pool *pool, struct kv_table *t, int64_t n)
{
    int left = 0;
    for (int i = 0; i < t->n_kept; i++) {
        if (t->kept[i].at > n) release_state(pool, t->kept[i].state);
        else t->kept[left++] = t->kept[i];
    }
    t->n_kept = left;
}

/* The number of the state at position n; -1: there is none. */
static int32_t state_at(const struct kv_table *t, int64_t n)
{
    if (t->state_at == n) return t->state;
    for (int i = 0; i < t->n_kept; i++)
        if (t->kept[i].at == n) return t->kept[i].state;
    return -1;
}

int64_t kv_table_at_most(const struct kv_pool *pool, const struct kv_table *t, int64_t n)
{
    int64_t best = 0;
    if (!has_states(pool) || t->state_at == n) return n;
    if (t->state_at < n) best = MAX(t->state_at, 0);
    for (int i = 0; i < t->n_kept; i++)
        if (t->kept[i].at <= n) best = MAX(best, t->kept[i].at);
    return best;
}

kg_status kv_table_keep_as(struct kv_pool *pool, struct kv_table *t, int64_t at, kg_status (*fill)(void *ctx, int state), void *ctx)
{
    int32_t state = -1;
    if (t->n_kept == KV_KEPT) { /* the oldest */
        release_state(pool, t->kept[0].state);
        memmove(t->kept, t->kept + 1, (size_t)--t->n_kept * sizeof *t->kept);
    }
    KG_TRY(take_state(pool, &state));
    kg_status status = fill(ctx, state);
    if (status == KG_OK) t->kept[t->n_kept++] = (struct kv_kept){at, state};
    else release_state(pool, state);
    return status;
}

struct copying {
    struct kv_pool *pool;
    int32_t from;
};

static kg_status copy_state(void *ctx, int state)
{
    const struct copying *c = ctx;
    return c->pool->backend->state_copy(c->pool->ctx, state, c->from);
}

kg_status kv_table_keep(struct kv_pool *pool, struct kv_table *t)
{
    if (!has_states(pool) || t->state_at <= 0) return KG_OK;
    for (int i = 0; i < t->n_kept; i++)
        if (t->kept[i].at == t->state_at) return KG_OK;
    return kv_table_keep_as(pool, t, t->state_at, copy_state, &(struct copying){pool, t->state});
}

/* The state of t becomes src's at position n. */
static kg_status set_state(struct kv_pool *pool, struct kv_table *t, const struct kv_table *src, int64_t n)
{
    const int32_t from = n > 0 ? state_at(src, n) : t->state; /* before the first position whatever is there counts as zero */
    if (!has_states(pool)) return KG_OK;
    if (from < 0) return status_set(KG_ERR_ARGUMENT, "no state is known at position %lld", (long long)n);
    t->state_at = -1;
    if (from != t->state) KG_TRY(pool->backend->state_copy(pool->ctx, t->state, from));
    t->state_at = n;
    return KG_OK;
}

/* ---- tables */

kg_status kv_table_open(struct kv_pool *pool, struct kv_table *t, int64_t n_positions)
{
    int64_t limit = blocks_of(n_positions);
    if (n_positions < 1 || pool->limit + limit > INT32_MAX)
        return status_set(KG_ERR_ARGUMENT, "%lld more positions do not fit", (long long)n_positions);
    int32_t state = -1;
    if (has_states(pool)) KG_TRY(take_state(pool, &state));
    *t = (struct kv_table){.limit = limit, .state = state};
    pool->limit += limit;
    return KG_OK;
}

static void release(struct kv_pool *pool, int32_t block)
{
    if (--pool->refs[block] == 0) pool->unused[pool->n_unused++] = block;
}

static void free_blocks(struct kv_pool *pool, struct kv_table *t, int64_t n)
{
    int64_t keep = blocks_of(n);
    while (t->n > keep) release(pool, t->blocks[--t->n]);
}

void kv_table_close(struct kv_pool *pool, struct kv_table *t)
{
    free_blocks(pool, t, 0);
    drop_kept(pool, t, -1);
    if (has_states(pool) && t->limit) release_state(pool, t->state);
    pool->limit -= t->limit;
    free(t->blocks);
    *t = (struct kv_table){0};
}

/* Makes the pool hold at least n_more unused blocks. */
static kg_status reserve(struct kv_pool *pool, int64_t n_more)
{
    if (n_more <= pool->n_unused) return KG_OK;
    int64_t need = pool->n_blocks + n_more - pool->n_unused;
    int64_t n = MAX(need, MIN(2 * (int64_t)pool->n_blocks, pool->limit));
    if (n > INT32_MAX) return status_set(KG_ERR_MEMORY, "the KV cache would need %lld blocks", (long long)n);
    int32_t *refs = realloc(pool->refs, (size_t)n * sizeof *refs);
    if (refs) pool->refs = refs;
    int32_t *unused = realloc(pool->unused, (size_t)n * sizeof *unused);
    if (unused) pool->unused = unused;
    if (!refs || !unused) return status_set(KG_ERR_MEMORY, "no memory for a KV cache of %lld blocks", (long long)n);
    KG_TRY(backend_kv_reserve(pool->backend, pool->ctx, (int)n));
    for (int64_t b = n - 1; b >= pool->n_blocks; b--) { /* the lowest is handed out first */
        refs[b] = 0;
        unused[pool->n_unused++] = (int32_t)b;
    }
    pool->n_blocks = (int)n;
    return KG_OK;
}

static int32_t take(struct kv_pool *pool)
{
    int32_t block = pool->unused[--pool->n_unused];
    pool->refs[block] = 1;
    return block;
}

/* Room for n block numbers in the table itself. */
static kg_status table_room(struct kv_table *t, int64_t n)
{
    if (n > t->limit)
        return status_set(KG_ERR_CONTEXT, "the sequence needs %lld KV blocks, it may have %lld", (long long)n, (long long)t->limit);
    if (n <= t->cap) return KG_OK;
    int64_t cap = MIN(MAX(n, MAX(2 * (int64_t)t->cap, 8)), t->limit);
    int32_t *blocks = realloc(t->blocks, (size_t)cap * sizeof *blocks);
    if (!blocks) return status_set(KG_ERR_MEMORY, "no memory for a table of %lld KV blocks", (long long)cap);
    t->blocks = blocks;
    t->cap = (int)cap;
    return KG_OK;
}

kg_status kv_table_prepare(struct kv_pool *pool, struct kv_table *t, int64_t first, int64_t end)
{
    int64_t n = blocks_of(end), n_shared = 0;
    if (first > 0 && has_states(pool) && t->state_at != first)
        return status_set(KG_ERR_ARGUMENT, "the state is that after %lld positions, not after %lld", (long long)t->state_at, (long long)first);
    KG_TRY(table_room(t, n));
    int64_t begin = first / KV_BLOCK;
    for (int64_t i = begin; i < MIN(n, t->n); i++) n_shared += pool->refs[t->blocks[i]] > 1;
    KG_TRY(reserve(pool, n_shared + MAX(n - t->n, 0)));
    for (int64_t i = begin; i < MIN(n, t->n); i++) {
        if (pool->refs[t->blocks[i]] == 1) continue;
        int32_t own = take(pool);
        /* only the block that holds position first - 1 has content to keep */
        kg_status status = i * KV_BLOCK < first ? pool->backend->kv_copy(pool->ctx, own, t->blocks[i]) : KG_OK;
        if (status != KG_OK) {
            release(pool, own);
            return status;
        }
        release(pool, t->blocks[i]);
        t->blocks[i] = own;
    }
    while (t->n < n) t->blocks[t->n++] = take(pool);
    drop_kept(pool, t, first);
    t->state_at = end; /* or unknown, if the run fails: then the table holds `first` positions, and only a kept state fits */
    return KG_OK;
}

kg_status kv_table_truncate(struct kv_pool *pool, struct kv_table *t, int64_t n)
{
    free_blocks(pool, t, n);
    kg_status status = t->state_at == n ? KG_OK : set_state(pool, t, t, n);
    drop_kept(pool, t, n);
    return status;
}

kg_status kv_table_share(struct kv_pool *pool, struct kv_table *dst, const struct kv_table *src, int64_t n)
{
    int64_t n_blocks = blocks_of(n);
    if (n_blocks > src->n) return status_set(KG_ERR_ARGUMENT, "%lld KV blocks of a sequence of %d", (long long)n_blocks, src->n);
    KG_TRY(table_room(dst, n_blocks));
    for (int64_t i = 0; i < n_blocks; i++) pool->refs[src->blocks[i]]++; /* first: dst may hold some of them */
    free_blocks(pool, dst, 0);
    drop_kept(pool, dst, 0); /* of other tokens, for all that is known here */
    if (n_blocks) memcpy(dst->blocks, src->blocks, (size_t)n_blocks * sizeof *dst->blocks);
    dst->n = (int)n_blocks;
    return set_state(pool, dst, src, n);
}
