/* layers: base */
/* The thread pool: every thread runs once per job, nobody passes a barrier before all have come, pools come and go. More threads than
 * processors on purpose: the way through parking must be right too. Meant to be run under TSan as well. */
#include "base/threads.h"

#include "base/os.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

enum { MAX_THREADS = 16 };

static void out_of_range(void **state)
{
    (void)state;
    static const int bad[] = {0, -1, -1000000, 4097, 1 << 30};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct pool *p = (struct pool *)&p;
        assert_int_equal(pool_new(&p, bad[i]), KG_ERR_ARGUMENT);
        assert_null(p);
        assert_true(*kg_error_message());
    }
    struct pool *none = NULL;
    pool_free(&none);
}

struct counts {
    int runs[MAX_THREADS]; /* plain memory: pool_run itself must order these */
    int n;
};

static void count(void *ctx, int i, int n)
{
    struct counts *c = ctx;
    c->runs[i]++;
    if (i == 0) c->n = n;
}

static void every_thread_runs_once(void **state)
{
    (void)state;
    for (int n = 1; n <= MAX_THREADS; n++) {
        struct pool *p;
        assert_int_equal(pool_new(&p, n), KG_OK);
        assert_int_equal(pool_n_threads(p), n);
        struct counts c = {0};
        for (int job = 1; job <= 200; job++) {
            pool_run(p, count, &c);
            for (int i = 0; i < MAX_THREADS; i++) assert_int_equal(c.runs[i], i < n ? job : 0);
            assert_int_equal(c.n, n);
        }
        pool_free(&p);
        assert_null(p);
    }
}

static void pools_come_and_go(void **state)
{
    (void)state;
    for (int round = 0; round < 60; round++) {
        struct pool *a, *b;
        struct counts ca = {0}, cb = {0};
        assert_int_equal(pool_new(&a, 1 + round % MAX_THREADS), KG_OK);
        assert_int_equal(pool_new(&b, 1 + round % 3), KG_OK);
        if (round % 4) pool_run(a, count, &ca); /* and sometimes one that never worked */
        pool_run(b, count, &cb);
        pool_free(&a);
        pool_run(b, count, &cb);
        pool_free(&b);
        assert_int_equal(cb.runs[round % 3], 2);
    }
}

/* Between two barriers each thread writes its own cell and reads what the others wrote before the last one. */
struct ring {
    struct pool *pool;
    int rounds;
    unsigned cell[2][MAX_THREADS]; /* plain memory: TSan sees a barrier that orders nothing */
    atomic_int wrong;
};

/* For a thread that waits: some calls, then no more. */
static bool idle(void *ctx)
{
    int *left = ctx;
    assert_true(*left > 0);
    return --*left > 0;
}

static void turn_ring(void *ctx, int i, int n)
{
    struct ring *r = ctx;
    for (int round = 0; round < r->rounds; round++) {
        r->cell[round % 2][i] = (unsigned)round;
        if ((round * 7 + i) % 13 == 0) /* come late now and then */
            for (volatile int k = 0; k < 300; k++) {}
        if (round % 3) pool_barrier(r->pool);
        else pool_barrier_idle(r->pool, idle, &(int){1 + round % 40});
        for (int j = 0; j < n; j++)
            if (r->cell[round % 2][j] != (unsigned)round) atomic_fetch_add(&r->wrong, 1);
    }
}

static void barriers_hold(void **state)
{
    (void)state;
    const int n_cpu = os_n_processors();
    for (int n = 1; n <= MAX_THREADS; n = n < 4 ? n + 1 : n * 2) {
        struct ring r = {.rounds = n <= n_cpu ? 20000 : 1500};
        assert_int_equal(pool_new(&r.pool, n), KG_OK);
        for (int job = 0; job < 3; job++) pool_run(r.pool, turn_ring, &r);
        pool_free(&r.pool);
        assert_int_equal(atomic_load(&r.wrong), 0);
    }
}

/* Work taken from a counter, as the matmuls do: each piece is done once. */
struct shared {
    struct pool *pool;
    atomic_int next[8];
    int done[8][1000];
};

static void take_pieces(void *ctx, int i, int n)
{
    (void)i, (void)n;
    struct shared *s = ctx;
    for (int step = 0; step < 8; step++) {
        for (int k; (k = atomic_fetch_add_explicit(&s->next[step], 1, memory_order_relaxed)) < 1000;)
            s->done[step][k] += 1 + (step ? s->done[step - 1][999 - k] : 0);
        pool_barrier(s->pool);
    }
}

static void shared_work_is_done_once(void **state)
{
    (void)state;
    for (int n = 1; n <= 9; n += 2) {
        struct shared *s = calloc(1, sizeof *s);
        assert_non_null(s);
        assert_int_equal(pool_new(&s->pool, n), KG_OK);
        pool_run(s->pool, take_pieces, s);
        pool_free(&s->pool);
        for (int step = 0; step < 8; step++)
            for (int k = 0; k < 1000; k++) assert_int_equal(s->done[step][k], step + 1);
        free(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(out_of_range),         cmocka_unit_test(every_thread_runs_once),   cmocka_unit_test(pools_come_and_go),
        cmocka_unit_test(barriers_hold),        cmocka_unit_test(shared_work_is_done_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
