/* Methods of lists, tuples, mappings and loops. Those that change a value are allowed, as templates that append to a list exist; what
 * they change dies with the rendering. */
#include "text/jinja_run.h"

#define FN(name) static kg_status name(struct jctx *c, struct jval self, const struct jval *v, const struct jargs *args, struct jval *out)
#define UNUSED (void)c, (void)self, (void)v, (void)args

/* ---- lists ---- */

static kg_status copy(struct jctx *c, const struct jseq *of, struct jval *out)
{
    struct jseq *s;
    KG_TRY(jseq_new(c->m, of->kind, of->n, &s));
    for (size_t i = 0; i < of->n; i++) KG_TRY(jseq_push(c->m, s, of->items[i]));
    *out = jval_seq(s);
    return KG_OK;
}

FN(l_append)
{
    UNUSED;
    *out = jval_none();
    return jseq_push(c->m, self.u.seq, v[0]);
}

FN(l_extend)
{
    UNUSED;
    struct jseq *items;
    *out = jval_none();
    KG_TRY(jval_items(c->m, v[0], &items));
    for (size_t i = 0, n = items->n; i < n; i++) KG_TRY(jseq_push(c->m, self.u.seq, items->items[i]));
    return KG_OK;
}

FN(l_insert)
{
    UNUSED;
    struct jseq *s = self.u.seq;
    int64_t at, n = (int64_t)s->n;
    KG_TRY(jarg_int(v[0], "insert: index", 0, &at));
    if (at < 0) at = MAX(at < -n ? 0 : at + n, (int64_t)0);
    at = MIN(at, n);
    KG_TRY(jseq_push(c->m, s, v[1]));
    memmove(s->items + at + 1, s->items + at, (size_t)(n - at) * sizeof *s->items);
    s->items[at] = v[1];
    *out = jval_none();
    return jmem_steps(c->m, (uint64_t)(n - at) / 8);
}

/* index? */
FN(l_pop)
{
    UNUSED;
    struct jseq *s = self.u.seq;
    int64_t at, n = (int64_t)s->n;
    KG_TRY(jarg_int(v[0], "pop: index", -1, &at));
    if (at < 0) at = at < -n ? -1 : at + n;
    if (at < 0 || at >= n) return status_set(KG_ERR_FORMAT, n ? "pop index out of range" : "pop from empty list");
    *out = s->items[at];
    memmove(s->items + at, s->items + at + 1, (size_t)(n - at - 1) * sizeof *s->items);
    s->n--;
    return jmem_steps(c->m, (uint64_t)(n - at) / 8);
}

/* Position of the first item equal to v; -1: none. */
static kg_status position(struct jctx *c, const struct jseq *s, struct jval v, int64_t *out)
{
    *out = -1;
    for (size_t i = 0; i < s->n && *out < 0; i++) {
        bool same;
        KG_TRY(jval_equal(c->m, s->items[i], v, &same));
        if (same) *out = (int64_t)i;
    }
    return KG_OK;
}

FN(l_index)
{
    UNUSED;
    int64_t at;
    KG_TRY(position(c, self.u.seq, v[0], &at));
    *out = jval_int(at);
    return at < 0 ? status_set(KG_ERR_FORMAT, "the value is not in the list") : KG_OK;
}

FN(l_remove)
{
    UNUSED;
    struct jval at;
    KG_TRY(l_index(c, self, v, args, &at));
    KG_TRY(l_pop(c, self, &at, args, out));
    *out = jval_none();
    return KG_OK;
}

FN(l_count)
{
    UNUSED;
    int64_t n = 0;
    for (size_t i = 0; i < self.u.seq->n; i++) {
        bool same;
        KG_TRY(jval_equal(c->m, self.u.seq->items[i], v[0], &same));
        n += same;
    }
    *out = jval_int(n);
    return KG_OK;
}

FN(l_reverse)
{
    UNUSED;
    struct jseq *s = self.u.seq;
    for (size_t i = 0; i < s->n / 2; i++) {
        struct jval t = s->items[i];
        s->items[i] = s->items[s->n - 1 - i];
        s->items[s->n - 1 - i] = t;
    }
    *out = jval_none();
    return jmem_steps(c->m, s->n / 8);
}

/* reverse? */
FN(l_sort)
{
    UNUSED;
    *out = jval_none();
    return jinja_sort(c->m, self.u.seq->items, self.u.seq->items, self.u.seq->n, jarg_truth(v[0], false));
}

FN(l_clear)
{
    UNUSED;
    self.u.seq->n = 0;
    *out = jval_none();
    return KG_OK;
}

FN(l_copy) { UNUSED; return copy(c, self.u.seq, out); }

const struct jfunction jinja_list_methods[] = {
    {"append", "object", l_append},
    {"extend", "iterable", l_extend},
    {"insert", "index object", l_insert},
    {"pop", "index?", l_pop},
    {"index", "value", l_index},
    {"remove", "value", l_remove},
    {"count", "value", l_count},
    {"reverse", "", l_reverse},
    {"sort", "reverse?", l_sort},
    {"clear", "", l_clear},
    {"copy", "", l_copy},
    {NULL, NULL, NULL},
};
const struct jfunction jinja_tuple_methods[] = {
    {"index", "value", l_index},
    {"count", "value", l_count},
    {NULL, NULL, NULL},
};

/* ---- mappings ---- */

FN(d_items) { UNUSED; return jdict_list(c->m, self.u.dict, SEQ_ITEMS, out); }
FN(d_keys) { UNUSED; return jdict_list(c->m, self.u.dict, SEQ_KEYS, out); }
FN(d_values) { UNUSED; return jdict_list(c->m, self.u.dict, SEQ_VALUES, out); }

/* key default? */
FN(d_get)
{
    UNUSED;
    struct jpair *p;
    KG_TRY(jdict_find(c->m, self.u.dict, v[0], &p));
    *out = p ? p->value : v[1].type == J_MISSING ? jval_none() : v[1];
    return KG_OK;
}

FN(d_pop)
{
    UNUSED;
    struct jpair *p;
    KG_TRY(jdict_find(c->m, self.u.dict, v[0], &p));
    *out = p ? p->value : v[1];
    if (p) return jdict_remove(c->m, self.u.dict, p);
    return v[1].type == J_MISSING ? status_set(KG_ERR_FORMAT, "pop: the key is not in the dict") : KG_OK;
}

FN(d_setdefault)
{
    UNUSED;
    struct jpair *p;
    KG_TRY(jdict_find(c->m, self.u.dict, v[0], &p));
    *out = p ? p->value : v[1].type == J_MISSING ? jval_none() : v[1];
    return p ? KG_OK : jdict_set(c->m, self.u.dict, v[0], *out);
}

FN(d_update)
{
    UNUSED;
    *out = jval_none();
    if (args->n > 1 || (args->n == 1 && args->v[0].type != J_DICT)) return status_set(KG_ERR_UNSUPPORTED, "update takes a dict or keywords");
    const struct jdict *from = args->n ? args->v[0].u.dict : NULL;
    for (size_t i = 0; from && from != self.u.dict && i < from->n; i++) KG_TRY(jdict_set(c->m, self.u.dict, from->pairs[i].key, from->pairs[i].value));
    for (size_t i = 0; i < args->n_keywords; i++)
        KG_TRY(jdict_set(c->m, self.u.dict, (struct jval){.type = J_STR, .u.s = args->keywords[i].name}, args->keywords[i].value));
    return KG_OK;
}

FN(d_copy)
{
    UNUSED;
    struct jdict *d;
    KG_TRY(jdict_new(c->m, &d));
    for (size_t i = 0; i < self.u.dict->n; i++) KG_TRY(jdict_set(c->m, d, self.u.dict->pairs[i].key, self.u.dict->pairs[i].value));
    *out = jval_dict(d);
    return KG_OK;
}

FN(d_clear)
{
    UNUSED;
    *self.u.dict = (struct jdict){0};
    *out = jval_none();
    return KG_OK;
}

const struct jfunction jinja_dict_methods[] = {
    {"items", "", d_items},
    {"keys", "", d_keys},
    {"values", "", d_values},
    {"get", "key default?", d_get},
    {"pop", "key default?", d_pop},
    {"setdefault", "key default?", d_setdefault},
    {"update", NULL, d_update},
    {"copy", "", d_copy},
    {"clear", "", d_clear},
    {NULL, NULL, NULL},
};

/* ---- loops ---- */

FN(loop_cycle)
{
    UNUSED;
    if (args->n == 0) return status_set(KG_ERR_FORMAT, "no items for cycling given");
    *out = args->v[self.u.loop->i % args->n];
    return KG_OK;
}

FN(loop_changed)
{
    UNUSED;
    struct jseq *s;
    bool same;
    KG_TRY(jseq_new(c->m, SEQ_TUPLE, args->n, &s));
    for (size_t i = 0; i < args->n; i++) KG_TRY(jseq_push(c->m, s, args->v[i]));
    KG_TRY(jval_equal(c->m, self.u.loop->changed, jval_seq(s), &same));
    self.u.loop->changed = jval_seq(s);
    *out = jval_bool(!same);
    return KG_OK;
}

const struct jfunction jinja_loop_methods[] = {
    {"cycle", NULL, loop_cycle},
    {"changed", NULL, loop_changed},
    {NULL, NULL, NULL},
};
