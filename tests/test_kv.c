/* layers: run */
/* Block tables against a double of a backend that only counts: blocks are never shared by accident, always copied before a shared
 * one is written, and never lost. */
#include "run/kv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

/* A pool whose "content" is one number per position. */
struct fake {
    int64_t cells[64][KV_BLOCK];
    int n_blocks, n_reserves, n_copies;
    bool fail_reserve, fail_copy;
};

static kg_status fake_reserve(void *ctx, int n_blocks)
{
    struct fake *f = ctx;
    if (f->fail_reserve) return status_set(KG_ERR_MEMORY, "no memory, for the test");
    assert_true(n_blocks >= f->n_blocks && n_blocks <= 64);
    f->n_blocks = n_blocks;
    f->n_reserves++;
    return KG_OK;
}

static kg_status fake_copy(void *ctx, int dst, int src)
{
    struct fake *f = ctx;
    if (f->fail_copy) return status_set(KG_ERR_DEVICE, "no copy, for the test");
    assert_true(dst != src && dst >= 0 && dst < f->n_blocks && src >= 0 && src < f->n_blocks);
    memcpy(f->cells[dst], f->cells[src], sizeof f->cells[0]);
    f->n_copies++;
    return KG_OK;
}

static const struct backend fake_backend = {.name = "fake", .kv_reserve = fake_reserve, .kv_copy = fake_copy};

static void put(struct fake *f, const struct kv_pool *pool, const struct kv_table *t, int64_t first, int64_t end, int64_t tag)
{
    for (int64_t p = first; p < end; p++) {
        int32_t block = t->blocks[p / KV_BLOCK];
        assert_int_equal(pool->refs[block], 1); /* nobody else sees the write */
        f->cells[block][p % KV_BLOCK] = tag + p;
    }
}

static void assert_holds(const struct fake *f, const struct kv_table *t, int64_t first, int64_t end, int64_t tag)
{
    for (int64_t p = first; p < end; p++) assert_int_equal(f->cells[t->blocks[p / KV_BLOCK]][p % KV_BLOCK], tag + p);
}

/* Every block is unused, or counted as often as tables hold it. */
static void assert_counts(const struct kv_pool *pool, struct kv_table *const *tables, int n_tables)
{
    int32_t refs[64] = {0};
    for (int t = 0; t < n_tables; t++)
        for (int i = 0; i < tables[t]->n; i++) refs[tables[t]->blocks[i]]++;
    int n_free = 0;
    for (int b = 0; b < pool->n_blocks; b++) {
        assert_int_equal(refs[b], pool->refs[b]);
        n_free += refs[b] == 0;
    }
    assert_int_equal(n_free, pool->n_unused);
    bool seen[64] = {0};
    for (int i = 0; i < pool->n_unused; i++) {
        assert_int_equal(pool->refs[pool->unused[i]], 0);
        assert_false(seen[pool->unused[i]]);
        seen[pool->unused[i]] = true;
    }
}

static void grows_by_doubling(void **state)
{
    (void)state;
    struct fake f = {0};
    struct kv_pool pool;
    struct kv_table t;
    kv_pool_init(&pool, &fake_backend, &f);
    assert_int_equal(kv_table_open(&pool, &t, 10 * KV_BLOCK), KG_OK);
    for (int64_t p = 0; p < 10 * KV_BLOCK; p++) {
        assert_int_equal(kv_table_prepare(&pool, &t, p, p + 1), KG_OK);
        put(&f, &pool, &t, p, p + 1, 0);
    }
    assert_holds(&f, &t, 0, 10 * KV_BLOCK, 0);
    assert_int_equal(f.n_blocks, 10); /* not 16: the table can never need more */
    assert_int_equal(f.n_reserves, 5);
    assert_int_equal(f.n_copies, 0);
    assert_int_equal(kv_table_prepare(&pool, &t, 10 * KV_BLOCK, 10 * KV_BLOCK + 1), KG_ERR_CONTEXT);
    assert_holds(&f, &t, 0, 10 * KV_BLOCK, 0);
    kv_table_truncate(&pool, &t, KV_BLOCK + 1);
    assert_int_equal(t.n, 2);
    assert_int_equal(pool.n_unused, 8);
    kv_table_truncate(&pool, &t, KV_BLOCK);
    assert_int_equal(t.n, 1);
    kv_table_close(&pool, &t);
    assert_int_equal(pool.n_unused, 10);
    assert_int_equal(pool.limit, 0);
    kv_pool_free(&pool);
}

static void copies_before_writing(void **state)
{
    (void)state;
    struct fake f = {0};
    struct kv_pool pool;
    struct kv_table a, b;
    struct kv_table *both[] = {&a, &b};
    const int64_t cut = KV_BLOCK + 5, end = 3 * KV_BLOCK;
    kv_pool_init(&pool, &fake_backend, &f);
    assert_int_equal(kv_table_open(&pool, &a, end), KG_OK);
    assert_int_equal(kv_table_open(&pool, &b, end), KG_OK);
    assert_int_equal(kv_table_prepare(&pool, &a, 0, end), KG_OK);
    put(&f, &pool, &a, 0, end, 1000);
    assert_int_equal(kv_table_prepare(&pool, &b, 0, 1), KG_OK); /* a block of its own, which sharing lets go */
    assert_int_equal(kv_table_share(&pool, &b, &a, cut), KG_OK);
    assert_int_equal(b.n, 2);
    assert_counts(&pool, both, 2);

    assert_int_equal(kv_table_prepare(&pool, &b, cut, end), KG_OK);
    assert_int_equal(f.n_copies, 1); /* only the block that is half a's */
    assert_int_equal(b.blocks[0], a.blocks[0]);
    assert_int_not_equal(b.blocks[1], a.blocks[1]);
    put(&f, &pool, &b, cut, end, 2000);
    assert_holds(&f, &a, 0, end, 1000);
    assert_holds(&f, &b, 0, cut, 1000);
    assert_holds(&f, &b, cut, end, 2000);
    assert_counts(&pool, both, 2);

    /* a rewrites from the start: nothing before to keep, so nothing is copied, and b keeps the shared block */
    assert_int_equal(kv_table_prepare(&pool, &a, 0, KV_BLOCK), KG_OK);
    assert_int_equal(f.n_copies, 1);
    put(&f, &pool, &a, 0, KV_BLOCK, 3000);
    assert_holds(&f, &b, 0, cut, 1000);
    assert_counts(&pool, both, 2);

    /* sharing with what it holds already */
    assert_int_equal(kv_table_share(&pool, &b, &a, end), KG_OK);
    assert_int_equal(kv_table_share(&pool, &b, &a, end), KG_OK);
    assert_counts(&pool, both, 2);
    kv_table_close(&pool, &a);
    assert_holds(&f, &b, 0, KV_BLOCK, 3000);
    assert_int_equal(kv_table_prepare(&pool, &b, 1, 2), KG_OK); /* the last holder may write without a copy */
    assert_int_equal(f.n_copies, 1);
    kv_table_close(&pool, &b);
    assert_int_equal(pool.n_unused, pool.n_blocks);
    kv_pool_free(&pool);
}

static void failures_change_nothing(void **state)
{
    (void)state;
    struct fake f = {.fail_reserve = true};
    struct kv_pool pool;
    struct kv_table a, b, c;
    struct kv_table *both[] = {&a, &b};
    kv_pool_init(&pool, &fake_backend, &f);
    assert_int_equal(kv_table_open(&pool, &c, 0), KG_ERR_ARGUMENT);
    assert_int_equal(kv_table_open(&pool, &a, 2 * KV_BLOCK), KG_OK);
    assert_int_equal(kv_table_open(&pool, &b, 2 * KV_BLOCK), KG_OK);
    assert_int_equal(kv_table_prepare(&pool, &a, 0, 1), KG_ERR_MEMORY);
    assert_int_equal(a.n, 0);
    f.fail_reserve = false;
    assert_int_equal(kv_table_prepare(&pool, &a, 0, 40), KG_OK);
    put(&f, &pool, &a, 0, 40, 0);
    assert_int_equal(kv_table_share(&pool, &b, &a, 40), KG_OK);
    f.fail_copy = true;
    assert_int_equal(kv_table_prepare(&pool, &b, 40, 41), KG_ERR_DEVICE);
    assert_counts(&pool, both, 2);
    assert_holds(&f, &b, 0, 40, 0);
    f.fail_copy = false;
    assert_int_equal(kv_table_prepare(&pool, &b, 40, 41), KG_OK);
    assert_int_equal(kv_table_share(&pool, &b, &a, 3 * KV_BLOCK), KG_ERR_ARGUMENT);
    assert_holds(&f, &b, 0, 40, 0);
    kv_table_close(&pool, &a);
    kv_table_close(&pool, &b);
    kv_pool_free(&pool);
}

/* Random work on five tables beside a plain model of what each must hold. */
static void random_work(void **state)
{
    (void)state;
    enum { N = 5, MAX_POS = 12 * KV_BLOCK };
    static int64_t want[N][MAX_POS];
    static struct fake f;
    struct kv_pool pool;
    struct kv_table tables[N], *all[N];
    int64_t len[N] = {0};
    uint32_t seed = 1;
    kv_pool_init(&pool, &fake_backend, &f);
    for (int i = 0; i < N; i++) {
        assert_int_equal(kv_table_open(&pool, &tables[i], MAX_POS), KG_OK);
        all[i] = &tables[i];
    }
    for (int step = 0; step < 3000; step++) {
        uint32_t r[4];
        for (int i = 0; i < 4; i++) r[i] = (seed = seed * 1664525u + 1013904223u) >> 8;
        int a = (int)(r[0] % N), b = (int)(r[1] % N);
        if (r[2] % 4 == 0 && a != b) {
            len[a] = len[b] ? r[3] % (len[b] + 1) : 0;
            assert_int_equal(kv_table_share(&pool, &tables[a], &tables[b], len[a]), KG_OK);
            memcpy(want[a], want[b], sizeof want[a]);
        } else if (r[2] % 4 == 1) {
            len[a] = len[a] ? r[3] % len[a] : 0;
            kv_table_truncate(&pool, &tables[a], len[a]);
        } else {
            int64_t end = MIN(len[a] + 1 + r[3] % 50, MAX_POS);
            assert_int_equal(kv_table_prepare(&pool, &tables[a], len[a], end), KG_OK);
            put(&f, &pool, &tables[a], len[a], end, (int64_t)step * 10000);
            for (int64_t p = len[a]; p < end; p++) want[a][p] = (int64_t)step * 10000 + p;
            len[a] = end;
        }
        assert_counts(&pool, all, N);
        for (int i = 0; i < N; i++)
            for (int64_t p = 0; p < len[i]; p++) assert_int_equal(f.cells[tables[i].blocks[p / KV_BLOCK]][p % KV_BLOCK], want[i][p]);
    }
    assert_true(f.n_copies > 10 && f.n_blocks <= N * 12);
    for (int i = 0; i < N; i++) kv_table_close(&pool, &tables[i]);
    kv_pool_free(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grows_by_doubling),
        cmocka_unit_test(copies_before_writing),
        cmocka_unit_test(failures_change_nothing),
        cmocka_unit_test(random_work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
