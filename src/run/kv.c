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
    *pool = (struct kv_pool){0};
}

kg_status kv_table_open(struct kv_pool *pool, struct kv_table *t, int64_t n_positions)
{
    int64_t limit = blocks_of(n_positions);
    if (n_positions < 1 || pool->limit + limit > INT32_MAX)
        return status_set(KG_ERR_ARGUMENT, "%lld more positions do not fit", (long long)n_positions);
    *t = (struct kv_table){.limit = limit};
    pool->limit += limit;
    return KG_OK;
}

static void release(struct kv_pool *pool, int32_t block)
{
    if (--pool->refs[block] == 0) pool->unused[pool->n_unused++] = block;
}

void kv_table_close(struct kv_pool *pool, struct kv_table *t)
{
    kv_table_truncate(pool, t, 0);
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
    return KG_OK;
}

void kv_table_truncate(struct kv_pool *pool, struct kv_table *t, int64_t n)
{
    int64_t keep = blocks_of(n);
    while (t->n > keep) release(pool, t->blocks[--t->n]);
}

kg_status kv_table_share(struct kv_pool *pool, struct kv_table *dst, const struct kv_table *src, int64_t n)
{
    int64_t n_blocks = blocks_of(n);
    if (n_blocks > src->n) return status_set(KG_ERR_ARGUMENT, "%lld KV blocks of a sequence of %d", (long long)n_blocks, src->n);
    KG_TRY(table_room(dst, n_blocks));
    for (int64_t i = 0; i < n_blocks; i++) pool->refs[src->blocks[i]]++; /* first: dst may hold some of them */
    kv_table_truncate(pool, dst, 0);
    if (n_blocks) memcpy(dst->blocks, src->blocks, (size_t)n_blocks * sizeof *dst->blocks);
    dst->n = (int)n_blocks;
    return KG_OK;
}
