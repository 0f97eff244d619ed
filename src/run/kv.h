/* KV memory: which session holds which block of a backend's pool. Blocks are counted references, so that sessions share a
 * common prefix; a shared block is copied before it is written. What is in a block only the backend knows. */
#ifndef RUN_KV_H
#define RUN_KV_H

#include "backend/backend.h"

/* All calls come under the model's lock. */
struct kv_pool {
    const struct backend *backend;
    void *ctx;
    int32_t *refs;   /* [n_blocks] tables that hold the block */
    int32_t *unused; /* [n_unused] block numbers, the next to hand out last */
    int n_blocks, n_unused;
    int64_t limit; /* blocks that the open tables can ever need: growth by doubling stops there */
};

/* The blocks of one sequence: position p lies in blocks[p / KV_BLOCK]. */
struct kv_table {
    int32_t *blocks; /* [n] */
    int n, cap;
    int64_t limit; /* most blocks that it may grow to */
};

void kv_pool_init(struct kv_pool *pool, const struct backend *backend, void *ctx);
void kv_pool_free(struct kv_pool *pool);

/* A zeroed table enters the pool: it may then hold up to n_positions. */
kg_status kv_table_open(struct kv_pool *pool, struct kv_table *t, int64_t n_positions);
void kv_table_close(struct kv_pool *pool, struct kv_table *t);
/* Makes positions [first, end) writable: adds blocks at the end, copies those in the range that others share.
 * Positions before `first` keep their content. After a failure the table is as before or longer. */
kg_status kv_table_prepare(struct kv_pool *pool, struct kv_table *t, int64_t first, int64_t end);
/* Lets go of the blocks that lie wholly at or after position n. */
void kv_table_truncate(struct kv_pool *pool, struct kv_table *t, int64_t n);
/* Makes dst hold the blocks of src's positions [0, n), shared; dst's own are let go. On failure dst is unchanged. */
kg_status kv_table_share(struct kv_pool *pool, struct kv_table *dst, const struct kv_table *src, int64_t n);

#endif
