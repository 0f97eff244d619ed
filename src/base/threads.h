/* A pool of threads that all run the same function and meet at barriers. */
#ifndef BASE_THREADS_H
#define BASE_THREADS_H

#include "base/base.h"

#include <stdatomic.h>

#define CACHE_LINE 64 /* bytes that processors pass to each other */

struct pool;
/* n_threads >= 1 counts the caller; n_threads - 1 threads are started. */
kg_status pool_new(struct pool **out, int n_threads);
void pool_free(struct pool **pool);
int pool_n_threads(const struct pool *pool);
/* Runs fn(ctx, i, n) on every thread i of n, the caller being thread 0; returns when all have returned. Not reentrant. */
void pool_run(struct pool *pool, void (*fn)(void *ctx, int i, int n), void *ctx);
/* Called by every thread inside pool_run: no thread passes before all have arrived. Spins for a while, then parks. */
void pool_barrier(struct pool *pool);
/* The same; while it spins a thread calls idle(ctx), which has to be short (well below a microsecond), until that returns false. */
void pool_barrier_idle(struct pool *pool, bool (*idle)(void *ctx), void *ctx);

#endif
