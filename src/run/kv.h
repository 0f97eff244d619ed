/* KV memory: which session holds which block of a backend's pool. Blocks are counted references, so that sessions share a
 * common prefix; a shared block is copied before it is written. What is in a block only the backend knows.
 *
 * Of a program with a state, a table has the state after its last position too. A state cannot go back: kept copies of it, at a few earlier
 * positions, are where the sequence can go on from when it shall hold something else. */
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
    int32_t *unused_states; /* [n_unused_states], room for n_states */
    int n_states, n_unused_states;
    int64_t limit; /* blocks that the open tables can ever need: growth by doubling stops there */
};

/* A copy of the state after the first `at` positions. */
struct kv_kept {
    int64_t at;
    int32_t state;
};
#define KV_KEPT 4

/* The blocks of one sequence: position p lies in blocks[p / KV_BLOCK]. */
struct kv_table {
    int32_t *blocks; /* [n] */
    int n, cap;
    int64_t limit; /* most blocks that it may grow to */
    int32_t state; /* the number of its own */
    int64_t state_at; /* positions that this one has seen */
    struct kv_kept kept[KV_KEPT]; /* [n_kept], the latest last */
    int n_kept;
};

void kv_pool_init(struct kv_pool *pool, const struct backend *backend, void *ctx);
void kv_pool_free(struct kv_pool *pool);

/* A zeroed table enters the pool: it may then hold up to n_positions. */
kg_status kv_table_open(struct kv_pool *pool, struct kv_table *t, int64_t n_positions);
void kv_table_close(struct kv_pool *pool, struct kv_table *t);
/* Makes positions [first, end) writable: adds blocks at the end, copies those in the range that others share.
 * Positions before `first` keep their content, and the state has to be the one there. After a failure the table is as before or longer. */
kg_status kv_table_prepare(struct kv_pool *pool, struct kv_table *t, int64_t first, int64_t end);
/* The most positions, at most n, from which the table can go on; kv_table_truncate and kv_table_share want such a number. */
int64_t kv_table_at_most(const struct kv_pool *pool, const struct kv_table *t, int64_t n);
/* Keeps a copy of the state as it is now, unless there is one; the oldest gives way. */
kg_status kv_table_keep(struct kv_pool *pool, struct kv_table *t);
/* The same for a state that is not the table's: fill(ctx, number) puts it there. */
kg_status kv_table_keep_as(struct kv_pool *pool, struct kv_table *t, int64_t at, kg_status (*fill)(void *ctx, int state), void *ctx);
/* Lets go of the blocks that lie wholly at or after position n, and brings the state back there. After a failure it holds no state. */
kg_status kv_table_truncate(struct kv_pool *pool, struct kv_table *t, int64_t n);
/* Makes dst hold the blocks of src's positions [0, n), shared, and the state there; dst's own are let go. If memory fails dst is unchanged, if the backend does
 * it holds no state. */
kg_status kv_table_share(struct kv_pool *pool, struct kv_table *dst, const struct kv_table *src, int64_t n);

#endif
