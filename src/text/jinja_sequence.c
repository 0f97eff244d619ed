/* Filters on sequences and mappings. */
#include "text/jinja_run.h"

#define FN(name) static kg_status name(struct jctx *c, struct jval self, const struct jval *v, const struct jargs *args, struct jval *out)
#define UNUSED (void)c, (void)self, (void)v, (void)args

FN(f_length)
{
    UNUSED;
    int64_t n;
    KG_TRY(jval_length(self, &n));
    *out = jval_int(n);
    return KG_OK;
}

static kg_status empty(struct jctx *c, const char *what, struct jval *out) { return jval_undefined(c->m, out, "No %s item, sequence was empty.", what); }

FN(f_first)
{
    UNUSED;
    if (jval_is_seq(self, SEQ_ITERATOR)) {
        struct jseq *s = self.u.seq;
        if (s->taken < s->n) *out = s->items[s->taken++];
        else return empty(c, "first", out);
        return KG_OK;
    }
    struct jseq *items;
    KG_TRY(jval_items(c->m, self, &items));
    if (items->n == 0) return empty(c, "first", out);
    *out = items->items[0];
    return KG_OK;
}

FN(f_last)
{
    UNUSED;
    struct jseq *items;
    if (jval_is_seq(self, SEQ_ITERATOR)) return status_set(KG_ERR_FORMAT, "'generator' object is not reversible");
    KG_TRY(jval_items(c->m, self, &items));
    if (items->n == 0) return empty(c, "last", out);
    *out = items->items[items->n - 1];
    return KG_OK;
}

/* A copy of the items, as a new sequence of the kind. */
static kg_status copy_items(struct jctx *c, struct jval of, enum jseq_kind kind, struct jseq **out)
{
    struct jseq *items;
    KG_TRY(jval_items(c->m, of, &items));
    KG_TRY(jseq_new(c->m, kind, items->n, out));
    for (size_t i = 0; i < items->n; i++) KG_TRY(jseq_push(c->m, *out, items->items[i]));
    return KG_OK;
}

FN(f_list)
{
    UNUSED;
    struct jseq *s;
    KG_TRY(copy_items(c, self, SEQ_LIST, &s));
    *out = jval_seq(s);
    return KG_OK;
}

FN(f_reverse)
{
    UNUSED;
    static const struct jval backward[3] = {{.type = J_MISSING}, {.type = J_MISSING}, {.type = J_INT, .u.i = -1}};
    if (self.type == J_STR) return jinja_slice(c->m, self, backward, out);
    struct jseq *s;
    KG_TRY(copy_items(c, self, SEQ_ITERATOR, &s));
    for (size_t i = 0; i < s->n / 2; i++) {
        struct jval t = s->items[i];
        s->items[i] = s->items[s->n - 1 - i];
        s->items[s->n - 1 - i] = t;
    }
    *out = jval_seq(s);
    return KG_OK;
}

/* ---- order ---- */

/* What a value is sorted by: its attribute, and lower case unless case matters. */
static kg_status sort_key(struct jctx *c, struct jval v, struct jval attribute, bool case_sensitive, struct jval *out)
{
    KG_TRY(jinja_path(c, v, attribute, out));
    return out->type == J_STR && !case_sensitive ? jstr_case(c->m, *out, CASE_LOWER, out) : KG_OK;
}

static kg_status sort_keys(struct jctx *c, const struct jseq *s, struct jval attribute, bool case_sensitive, struct jval **keys)
{
    *keys = jmem_alloc(c->m, s->n, sizeof **keys);
    if (!*keys) return jmem_failed(c->m);
    for (size_t i = 0; i < s->n; i++) {
        const struct jstr *path = attribute.type == J_STR ? attribute.u.s : NULL;
        if (!path || !memchr(path->ptr, ',', path->len)) {
            KG_TRY(sort_key(c, s->items[i], attribute, case_sensitive, &(*keys)[i]));
            continue;
        }
        struct jseq *several; /* "a,b": by a, then by b */
        KG_TRY(jseq_new(c->m, SEQ_LIST, 2, &several));
        for (size_t at = 0; at <= path->len;) {
            const char *comma = memchr(path->ptr + at, ',', path->len - at);
            size_t n = comma ? (size_t)(comma - path->ptr) - at : path->len - at;
            struct jval one, key;
            KG_TRY(jval_str_at(c->m, path->ptr + at, n, &one));
            KG_TRY(sort_key(c, s->items[i], one, case_sensitive, &key));
            KG_TRY(jseq_push(c->m, several, key));
            at += n + 1;
        }
        (*keys)[i] = jval_seq(several);
    }
    return KG_OK;
}

/* reverse? case_sensitive? attribute? */
FN(f_sort)
{
    UNUSED;
    struct jseq *s;
    struct jval *keys;
    KG_TRY(copy_items(c, self, SEQ_LIST, &s));
    KG_TRY(sort_keys(c, s, v[2], jarg_truth(v[1], false), &keys));
    KG_TRY(jinja_sort(c->m, s->items, keys, s->n, jarg_truth(v[0], false)));
    *out = jval_seq(s);
    return KG_OK;
}

/* case_sensitive? by? reverse? */
FN(f_dictsort)
{
    UNUSED;
    const struct jstr *by;
    struct jval items, *keys;
    KG_TRY(jarg_str(v[1], "dictsort: by", &by));
    if (by && !jstr_is(by, "key") && !jstr_is(by, "value")) return status_set(KG_ERR_FORMAT, "You can only sort by either \"key\" or \"value\"");
    if (self.type == J_UNDEFINED) return jinja_undefined_error(self);
    if (self.type != J_DICT) return status_set(KG_ERR_FORMAT, "dictsort: '%s' is not a mapping", jval_type_name(self));
    KG_TRY(jdict_list(c->m, self.u.dict, SEQ_ITEMS, &items));
    items.u.seq->kind = SEQ_LIST;
    KG_TRY(sort_keys(c, items.u.seq, jval_int(by && jstr_is(by, "value")), jarg_truth(v[0], false), &keys));
    KG_TRY(jinja_sort(c->m, items.u.seq->items, keys, items.u.seq->n, jarg_truth(v[2], false)));
    *out = items;
    return KG_OK;
}

static kg_status extreme(struct jctx *c, struct jval self, const struct jval *v, bool greatest, struct jval *out)
{
    struct jseq *items;
    struct jval *keys;
    size_t best = 0;
    KG_TRY(jval_items(c->m, self, &items));
    if (items->n == 0) return jval_undefined(c->m, out, "No aggregated item, sequence was empty.");
    KG_TRY(sort_keys(c, items, v[1], jarg_truth(v[0], false), &keys));
    for (size_t i = 1; i < items->n; i++) {
        int order;
        KG_TRY(jval_order(c->m, keys[i], keys[best], &order));
        if (greatest ? order > 0 : order < 0) best = i;
    }
    *out = items->items[best];
    return KG_OK;
}

FN(f_min) { UNUSED; return extreme(c, self, v, false, out); }
FN(f_max) { UNUSED; return extreme(c, self, v, true, out); }

/* case_sensitive? attribute? */
FN(f_unique)
{
    UNUSED;
    struct jseq *items, *s;
    struct jval *keys;
    struct jdict *seen;
    KG_TRY(jval_items(c->m, self, &items));
    KG_TRY(sort_keys(c, items, v[1], jarg_truth(v[0], false), &keys));
    KG_TRY(jseq_new(c->m, SEQ_ITERATOR, 0, &s));
    KG_TRY(jdict_new(c->m, &seen));
    for (size_t i = 0; i < items->n; i++) {
        size_t before = seen->n;
        KG_TRY(jdict_set(c->m, seen, keys[i], jval_none()));
        if (seen->n > before) KG_TRY(jseq_push(c->m, s, items->items[i]));
    }
    *out = jval_seq(s);
    return KG_OK;
}

/* attribute default? case_sensitive? */
FN(f_groupby)
{
    UNUSED;
    struct jseq *items, *groups, *group = NULL;
    struct jval *keys;
    KG_TRY(copy_items(c, self, SEQ_LIST, &items));
    struct jval *raw = jmem_alloc(c->m, items->n, sizeof *raw);
    if (!raw) return jmem_failed(c->m);
    for (size_t i = 0; i < items->n; i++) {
        KG_TRY(jinja_path(c, items->items[i], v[0], &raw[i]));
        if (raw[i].type == J_UNDEFINED && v[1].type != J_MISSING) raw[i] = v[1];
        KG_TRY(jseq_pair(c->m, raw[i], items->items[i], &items->items[i]));
    }
    KG_TRY(sort_keys(c, items, jval_int(0), jarg_truth(v[2], false), &keys));
    KG_TRY(jinja_sort(c->m, items->items, keys, items->n, false));
    KG_TRY(sort_keys(c, items, jval_int(0), jarg_truth(v[2], false), &keys));
    KG_TRY(jseq_new(c->m, SEQ_LIST, 0, &groups));
    for (size_t i = 0; i < items->n; i++) {
        const struct jseq *pair = items->items[i].u.seq;
        bool same = i > 0;
        if (same) KG_TRY(jval_equal(c->m, keys[i - 1], keys[i], &same));
        if (!same) {
            struct jval both;
            KG_TRY(jseq_new(c->m, SEQ_LIST, 0, &group));
            KG_TRY(jseq_pair(c->m, pair->items[0], jval_seq(group), &both));
            KG_TRY(jseq_push(c->m, groups, both));
        }
        KG_TRY(jseq_push(c->m, group, pair->items[1]));
    }
    *out = jval_seq(groups);
    return KG_OK;
}

/* ---- one from many ---- */

/* d? attribute? */
FN(f_join)
{
    UNUSED;
    struct jseq *items;
    struct jval between = {.type = J_MISSING};
    struct buf b = {0};
    KG_TRY(jval_items(c->m, self, &items));
    if (v[0].type != J_MISSING) KG_TRY(jval_to_str(c->m, v[0], &between));
    kg_status status = KG_OK;
    for (size_t i = 0; i < items->n && status == KG_OK; i++) {
        struct jval item;
        status = jinja_path(c, items->items[i], v[1], &item);
        if (status == KG_OK && i > 0 && between.type == J_STR) status = jval_print(c->m, between, &b);
        if (status == KG_OK) status = jval_print(c->m, item, &b);
        if (status == KG_OK) status = jmem_room(c->m, &b);
    }
    if (status == KG_OK) return jval_str_of(c->m, &b, out);
    buf_free(&b);
    return status;
}

/* attribute? start? */
FN(f_sum)
{
    UNUSED;
    struct jseq *items;
    KG_TRY(jval_items(c->m, self, &items));
    *out = v[1].type == J_MISSING ? jval_int(0) : v[1];
    for (size_t i = 0; i < items->n; i++) {
        struct jval item;
        KG_TRY(jinja_path(c, items->items[i], v[0], &item));
        if (out->type == J_STR) return status_set(KG_ERR_FORMAT, "sum() can't sum strings");
        KG_TRY(jinja_operate(c->m, OP_ADD, *out, item, out));
    }
    return KG_OK;
}

FN(f_attr)
{
    UNUSED;
    const struct jstr *name;
    KG_TRY(jarg_str(v[0], "attr: name", &name));
    if (self.type == J_DICT) return jval_undefined(c->m, out, "'dict object' has no such attribute"); /* not its items */
    if (!name) return status_set(KG_ERR_FORMAT, "attr: name must be a string");
    return jinja_attribute(c, self, v[0], out);
}

/* ---- mappings ---- */

FN(f_items)
{
    UNUSED;
    struct jseq *s;
    if (self.type == J_UNDEFINED) {
        KG_TRY(jseq_new(c->m, SEQ_ITERATOR, 0, &s));
        *out = jval_seq(s);
        return KG_OK;
    }
    if (self.type != J_DICT) return status_set(KG_ERR_FORMAT, "Can only get item pairs from a mapping.");
    KG_TRY(jdict_list(c->m, self.u.dict, SEQ_ITEMS, out));
    out->u.seq->kind = SEQ_ITERATOR;
    return KG_OK;
}

/* ---- pieces ---- */

/* linecount fill_with? */
FN(f_batch)
{
    UNUSED;
    int64_t size;
    struct jseq *items, *rows, *row = NULL;
    KG_TRY(jarg_int(v[0], "batch: linecount", 1, &size));
    if (size < 1) return status_set(KG_ERR_FORMAT, "batch: linecount must be above 0");
    KG_TRY(jval_items(c->m, self, &items));
    KG_TRY(jseq_new(c->m, SEQ_ITERATOR, 0, &rows));
    for (size_t i = 0; i < items->n; i++) {
        if (i % (size_t)size == 0) {
            KG_TRY(jseq_new(c->m, SEQ_LIST, 0, &row));
            KG_TRY(jseq_push(c->m, rows, jval_seq(row)));
        }
        KG_TRY(jseq_push(c->m, row, items->items[i]));
    }
    while (row && v[1].type != J_MISSING && v[1].type != J_NONE && row->n < (size_t)size) KG_TRY(jseq_push(c->m, row, v[1]));
    *out = jval_seq(rows);
    return KG_OK;
}

/* slices fill_with? */
FN(f_slice)
{
    UNUSED;
    int64_t n;
    struct jseq *items, *columns, *column;
    KG_TRY(jarg_int(v[0], "slice: slices", 1, &n));
    if (n < 1 || n > 100000) return status_set(KG_ERR_FORMAT, "slice: slices must be from 1 to 100000");
    KG_TRY(jval_items(c->m, self, &items));
    KG_TRY(jseq_new(c->m, SEQ_ITERATOR, 0, &columns));
    size_t each = items->n / (size_t)n, more = items->n % (size_t)n, at = 0;
    for (size_t i = 0; i < (size_t)n; i++) {
        KG_TRY(jseq_new(c->m, SEQ_LIST, 0, &column));
        for (size_t k = 0; k < each + (i < more); k++) KG_TRY(jseq_push(c->m, column, items->items[at++]));
        if (v[1].type != J_MISSING && v[1].type != J_NONE && i >= more) KG_TRY(jseq_push(c->m, column, v[1]));
        KG_TRY(jseq_push(c->m, columns, jval_seq(column)));
    }
    *out = jval_seq(columns);
    return KG_OK;
}

/* ---- each of many ---- */

/* map(attribute=..., default=...) or map("filter", arguments ...) */
FN(f_map)
{
    UNUSED;
    struct jseq *items, *s;
    struct jargs rest = *args;
    struct jval attribute = {.type = J_MISSING}, missing = {.type = J_MISSING};
    KG_TRY(jval_items(c->m, self, &items));
    KG_TRY(jseq_new(c->m, SEQ_ITERATOR, items->n, &s));
    *out = jval_seq(s);
    for (size_t i = 0; i < args->n_keywords && args->n == 0; i++) {
        if (jstr_is(args->keywords[i].name, "attribute")) attribute = args->keywords[i].value;
        else if (jstr_is(args->keywords[i].name, "default")) missing = args->keywords[i].value;
        else return status_set(KG_ERR_FORMAT, "map: unexpected keyword argument");
    }
    if (args->n == 0 && attribute.type == J_MISSING) return status_set(KG_ERR_FORMAT, "map requires a filter argument");
    if (args->n > 0 && args->v[0].type != J_STR) return status_set(KG_ERR_FORMAT, "map: the name of a filter must be a string");
    rest.v++;
    rest.n--;
    for (size_t i = 0; i < items->n; i++) {
        struct jval r;
        if (args->n > 0) {
            KG_TRY(jinja_enter(c)); /* a filter may be map again */
            KG_TRY(jinja_filter(c, args->v[0].u.s, items->items[i], &rest, &r));
            c->depth--;
        } else {
            KG_TRY(jinja_path(c, items->items[i], attribute, &r));
            if (r.type == J_UNDEFINED && missing.type != J_MISSING) r = missing;
        }
        KG_TRY(jseq_push(c->m, s, r));
    }
    return KG_OK;
}

/* select("test", arguments ...) and its kin; without a test, what is true. by: the first argument names an attribute. */
static kg_status choose(struct jctx *c, struct jval self, const struct jargs *args, bool by, bool wanted, struct jval *out)
{
    struct jseq *items, *s;
    struct jargs rest = *args;
    struct jval attribute = {.type = J_MISSING};
    const struct jstr *test = NULL;
    KG_TRY(jval_items(c->m, self, &items));
    KG_TRY(jseq_new(c->m, SEQ_ITERATOR, 0, &s));
    if (by && rest.n == 0) return status_set(KG_ERR_FORMAT, "Missing parameter for attribute name");
    if (by) attribute = rest.v[0], rest.v++, rest.n--;
    if (rest.n > 0) {
        if (rest.v[0].type != J_STR) return status_set(KG_ERR_FORMAT, "the name of a test must be a string");
        test = rest.v[0].u.s;
        rest.v++;
        rest.n--;
    }
    for (size_t i = 0; i < items->n; i++) {
        struct jval value;
        KG_TRY(jinja_path(c, items->items[i], attribute, &value));
        bool is = jval_truth(value);
        if (test) KG_TRY(jinja_test(c, test, value, &rest, &is));
        if (is == wanted) KG_TRY(jseq_push(c->m, s, items->items[i]));
    }
    *out = jval_seq(s);
    return KG_OK;
}

FN(f_select) { UNUSED; return choose(c, self, args, false, true, out); }
FN(f_reject) { UNUSED; return choose(c, self, args, false, false, out); }
FN(f_selectattr) { UNUSED; return choose(c, self, args, true, true, out); }
FN(f_rejectattr) { UNUSED; return choose(c, self, args, true, false, out); }

const struct jfunction jinja_sequence_filters[] = {
    {"length", "", f_length},
    {"count", "", f_length},
    {"first", "", f_first},
    {"last", "", f_last},
    {"list", "", f_list},
    {"reverse", "", f_reverse},
    {"sort", "reverse? case_sensitive? attribute?", f_sort},
    {"dictsort", "case_sensitive? by? reverse?", f_dictsort},
    {"min", "case_sensitive? attribute?", f_min},
    {"max", "case_sensitive? attribute?", f_max},
    {"unique", "case_sensitive? attribute?", f_unique},
    {"groupby", "attribute default? case_sensitive?", f_groupby},
    {"join", "d? attribute?", f_join},
    {"sum", "attribute? start?", f_sum},
    {"attr", "name", f_attr},
    {"items", "", f_items},
    {"batch", "linecount fill_with?", f_batch},
    {"slice", "slices fill_with?", f_slice},
    {"map", NULL, f_map},
    {"select", NULL, f_select},
    {"reject", NULL, f_reject},
    {"selectattr", NULL, f_selectattr},
    {"rejectattr", NULL, f_rejectattr},
    {NULL, NULL, NULL},
};
