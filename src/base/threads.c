/* The thread pool: one generation counter starts the workers, one counts arrivals at barriers. A waiter spins for a
 * short while (the usual wait between two operations is microseconds), then parks on a condition variable, so that idle
 * or oversubscribed processors are not burnt. */
#include "base/threads.h"

#include "base/os.h"

#include <pthread.h>
#include <stdlib.h>

struct pool {
    _Alignas(CACHE_LINE) atomic_uint phase;   /* barrier generation */
    _Alignas(CACHE_LINE) atomic_int arrived;
    _Alignas(CACHE_LINE) atomic_uint job;     /* start generation */
    _Alignas(CACHE_LINE) atomic_int parked;   /* threads asleep on `wake` */
    atomic_bool stopping;
    void (*fn)(void *, int, int);
    void *ctx;
    int n, n_started, spins;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct worker {
        struct pool *pool;
        pthread_t thread;
        int index;
    } *workers;
};

static inline void cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Returns when *v differs from `old`. idle may be NULL. */
static void wait_change(struct pool *p, atomic_uint *v, unsigned old, bool (*idle)(void *), void *ctx)
{
    for (int i = 0; i < p->spins; i++) {
        if (atomic_load_explicit(v, memory_order_acquire) != old) return;
        if (idle && !idle(ctx)) idle = NULL;
        if (!idle) cpu_relax();
    }
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->parked, 1);
    while (atomic_load(v) == old) pthread_cond_wait(&p->wake, &p->lock);
    atomic_fetch_sub(&p->parked, 1);
    pthread_mutex_unlock(&p->lock);
}

static void change(struct pool *p, atomic_uint *v)
{
    atomic_fetch_add(v, 1); /* sequentially consistent: either the waiter sees it or we see the waiter parked */
    if (atomic_load(&p->parked) > 0) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_broadcast(&p->wake);
        pthread_mutex_unlock(&p->lock);
    }
}

void pool_barrier_idle(struct pool *p, bool (*idle)(void *), void *ctx)
{
    if (p->n == 1) return;
    unsigned phase = atomic_load_explicit(&p->phase, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&p->arrived, 1, memory_order_acq_rel) == p->n - 1) {
        atomic_store_explicit(&p->arrived, 0, memory_order_relaxed);
        change(p, &p->phase);
    } else {
        wait_change(p, &p->phase, phase, idle, ctx);
    }
}

void pool_barrier(struct pool *p) { pool_barrier_idle(p, NULL, NULL); }

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct pool *p = w->pool;
    for (unsigned seen = 0;; seen++) {
        wait_change(p, &p->job, seen, NULL, NULL);
        if (atomic_load(&p->stopping)) return NULL;
        p->fn(p->ctx, w->index, p->n);
        pool_barrier(p);
    }
}

void pool_run(struct pool *p, void (*fn)(void *, int, int), void *ctx)
{
    p->fn = fn;
    p->ctx = ctx;
    if (p->n > 1) change(p, &p->job);
    fn(ctx, 0, p->n);
    pool_barrier(p);
}

kg_status pool_new(struct pool **out, int n_threads)
{
    *out = NULL;
    if (n_threads < 1 || n_threads > 4096) return status_set(KG_ERR_ARGUMENT, "number of threads out of range: %d", n_threads);
    struct pool *p = aligned_alloc(CACHE_LINE, ROUND_UP(sizeof *p, CACHE_LINE));
    struct worker *workers = calloc((size_t)n_threads, sizeof *workers);
    if (!p || !workers) {
        free(p);
        free(workers);
        return status_set(KG_ERR_MEMORY, "out of memory");
    }
    memset(p, 0, sizeof *p);
    p->n = n_threads;
    p->workers = workers;
    p->n_started = 1;
    p->spins = n_threads <= os_n_processors() ? 2000 : 50;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    for (int i = 1; i < n_threads; i++) {
        workers[i] = (struct worker){.pool = p, .index = i};
        if (pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]) != 0) {
            pool_free(&p);
            return status_set(KG_ERR_MEMORY, "cannot start thread %d of %d", i + 1, n_threads);
        }
        p->n_started = i + 1;
    }
    *out = p;
    return KG_OK;
}

void pool_free(struct pool **pool)
{
    struct pool *p = *pool;
    if (!p) return;
    atomic_store(&p->stopping, true);
    change(p, &p->job);
    for (int i = 1; i < p->n_started; i++) pthread_join(p->workers[i].thread, NULL);
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->wake);
    free(p->workers);
    free(p);
    *pool = NULL;
}

int pool_n_threads(const struct pool *p) { return p->n; }
