/* A stable sort by keys whose comparison may fail. */
#include "text/jinja_run.h"

struct keyed {
    struct jval item, key;
};

static kg_status merge(struct jmem *m, const struct keyed *from, size_t mid, size_t n, bool reverse, struct keyed *to)
{
    for (size_t i = 0, j = mid, k = 0; k < n; k++) {
        int order = 0;
        if (i < mid && j < n) KG_TRY(jval_order(m, from[i].key, from[j].key, &order));
        bool left = j == n || (i < mid && (reverse ? order >= 0 : order <= 0));
        to[k] = left ? from[i++] : from[j++];
    }
    return KG_OK;
}

kg_status jinja_sort(struct jmem *m, struct jval *items, struct jval *keys, size_t n, bool reverse)
{
    struct keyed *a = jmem_alloc(m, n, sizeof *a), *b = a ? jmem_alloc(m, n, sizeof *b) : NULL;
    if (!b) return jmem_failed(m);
    for (size_t i = 0; i < n; i++) a[i] = (struct keyed){items[i], keys[i]};
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t i = 0; i < n; i += 2 * width) KG_TRY(merge(m, a + i, MIN(width, n - i), MIN(2 * width, n - i), reverse, b + i));
        struct keyed *t = a;
        a = b;
        b = t;
    }
    for (size_t i = 0; i < n; i++) items[i] = a[i].item;
    return KG_OK;
}
