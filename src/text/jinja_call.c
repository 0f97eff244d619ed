/* Calls of built-in functions: their arguments, the global functions, and how filters, tests and methods are found. */
#include "text/jinja_run.h"
#include "text/utf8.h"

#include <time.h>

/* ---- arguments ---- */

/* The next name of a signature; *optional: it had a "?". */
static size_t parameter(const char **signature, const char **name, bool *optional)
{
    *signature += strspn(*signature, " ");
    *name = *signature;
    size_t n = strcspn(*signature, " ?");
    *optional = (*signature)[n] == '?';
    *signature += n + *optional;
    return n;
}

static kg_status bind(const struct jfunction *f, const struct jargs *args, struct jval v[MOST_PARAMETERS])
{
    const char *at = f->signature, *name;
    size_t n = 0, len, used = 0;
    bool optional;
    for (; (len = parameter(&at, &name, &optional)) > 0; n++) {
        v[n] = (struct jval){.type = J_MISSING};
        if (n < args->n) v[n] = args->v[n];
        for (size_t k = 0; k < args->n_keywords; k++) {
            if (args->keywords[k].name->len != len || memcmp(args->keywords[k].name->ptr, name, len) != 0) continue;
            if (n < args->n) return status_set(KG_ERR_FORMAT, "%s: argument '%.*s' is given twice", f->name, (int)len, name);
            v[n] = args->keywords[k].value;
            used++;
        }
        if (v[n].type == J_MISSING && !optional) return status_set(KG_ERR_FORMAT, "%s: argument '%.*s' is missing", f->name, (int)len, name);
    }
    if (args->n > n) return status_set(KG_ERR_FORMAT, "%s takes at most %zu arguments, %zu are given", f->name, n, args->n);
    if (used == args->n_keywords) return KG_OK;
    return status_set(KG_ERR_FORMAT, "%s has no argument of the given name (its arguments: %s)", f->name, f->signature);
}

kg_status jinja_run_function(struct jctx *c, const struct jfunction *f, struct jval self, const struct jargs *args, struct jval *out)
{
    struct jval v[MOST_PARAMETERS];
    if (f->signature) KG_TRY(bind(f, args, v));
    return f->run(c, self, v, args, out);
}

kg_status jarg_int(struct jval v, const char *what, int64_t missing, int64_t *out)
{
    *out = missing;
    if (v.type == J_MISSING) return KG_OK;
    if (v.type == J_UNDEFINED) return jinja_undefined_error(v);
    if (v.type != J_INT && v.type != J_BOOL) return status_set(KG_ERR_FORMAT, "%s must be an integer, not %s", what, jval_type_name(v));
    *out = v.type == J_INT ? v.u.i : v.u.b;
    return KG_OK;
}

kg_status jarg_str(struct jval v, const char *what, const struct jstr **out)
{
    *out = NULL;
    if (v.type == J_MISSING || v.type == J_NONE) return KG_OK;
    if (v.type == J_UNDEFINED) return jinja_undefined_error(v);
    if (v.type != J_STR) return status_set(KG_ERR_FORMAT, "%s must be a string, not %s", what, jval_type_name(v));
    *out = v.u.s;
    return KG_OK;
}

kg_status jinja_path(struct jctx *c, struct jval of, struct jval path, struct jval *out)
{
    *out = of;
    if (path.type == J_MISSING || path.type == J_NONE) return KG_OK;
    if (path.type != J_STR) return jinja_item(c, of, path, out);
    const char *s = path.u.s->ptr;
    for (size_t i = 0; i <= path.u.s->len;) {
        const char *dot = memchr(s + i, '.', path.u.s->len - i);
        size_t n = dot ? (size_t)(dot - s) - i : path.u.s->len - i;
        struct jval key;
        int64_t index = 0;
        bool digits = n > 0 && n < 10;
        for (size_t k = 0; k < n && digits; k++) {
            digits = s[i + k] >= '0' && s[i + k] <= '9';
            index = index * 10 + (s[i + k] - '0');
        }
        if (digits) key = jval_int(index);
        else KG_TRY(jval_str_at(c->m, s + i, n, &key));
        KG_TRY(jinja_item(c, *out, key, out));
        i += n + 1;
    }
    return KG_OK;
}

/* ---- tables ---- */

const struct jfunction *jinja_find(const struct jfunction *table, const struct jstr *name)
{
    for (; table->name; table++)
        if (jstr_is(name, table->name)) return table;
    return NULL;
}

kg_status jinja_filter(struct jctx *c, const struct jstr *name, struct jval in, const struct jargs *args, struct jval *out)
{
    const struct jfunction *f = jinja_find(jinja_filters, name);
    if (!f) f = jinja_find(jinja_sequence_filters, name);
    if (!f) return status_set(KG_ERR_UNSUPPORTED, "no filter named '%.*s'", (int)MIN(name->len, (size_t)80), name->ptr);
    return jinja_run_function(c, f, in, args, out);
}

kg_status jinja_test(struct jctx *c, const struct jstr *name, struct jval in, const struct jargs *args, bool *out)
{
    const struct jfunction *f = jinja_find(jinja_tests, name);
    struct jval v = jval_none();
    if (!f) return status_set(KG_ERR_UNSUPPORTED, "no test named '%.*s'", (int)MIN(name->len, (size_t)80), name->ptr);
    KG_TRY(jinja_run_function(c, f, in, args, &v));
    *out = jval_truth(v);
    return KG_OK;
}

const struct jfunction *jinja_method(struct jval of, const struct jstr *name)
{
    switch (of.type) {
    case J_STR: return jinja_find(jinja_str_methods, name);
    case J_DICT: return jinja_find(jinja_dict_methods, name);
    case J_LOOP: return jinja_find(jinja_loop_methods, name);
    case J_SEQ:
        if (of.u.seq->kind == SEQ_LIST) return jinja_find(jinja_list_methods, name);
        return of.u.seq->kind == SEQ_TUPLE ? jinja_find(jinja_tuple_methods, name) : NULL;
    default: return NULL;
    }
}

/* ---- global functions ---- */

#define FN(name) static kg_status name(struct jctx *c, struct jval self, const struct jval *v, const struct jargs *args, struct jval *out)
#define UNUSED (void)c, (void)self, (void)v, (void)args

enum { MOST_RANGE = 100000 }; /* as jinja2's sandbox */

/* start, start + 1 ...: n of them, from the integers that are there already. */
static kg_status part_of_integers(struct jctx *c, size_t start, size_t n, struct jval *out)
{
    struct jseq **all = &c->r->integers, *s;
    if (!*all) KG_TRY(jseq_new(c->m, SEQ_LIST, 0, all));
    while ((*all)->n < start + n) KG_TRY(jseq_push(c->m, *all, jval_int((int64_t)(*all)->n)));
    KG_TRY(jseq_new(c->m, SEQ_RANGE, 0, &s));
    if (n > 0) s->items = (*all)->items + start;
    s->n = s->cap = n;
    *out = jval_seq(s);
    return KG_OK;
}

FN(fn_range)
{
    UNUSED;
    int64_t start, stop, step;
    struct jseq *s;
    KG_TRY(jarg_int(v[0], "range()", 0, &start));
    KG_TRY(jarg_int(v[1], "range()", start, &stop));
    KG_TRY(jarg_int(v[2], "range()", 1, &step));
    if (v[1].type == J_MISSING) start = 0;
    if (step == 0) return status_set(KG_ERR_FORMAT, "range() arg 3 must not be zero");
    uint64_t n = 0, span = step > 0 ? (uint64_t)stop - (uint64_t)start : (uint64_t)start - (uint64_t)stop, stride = step > 0 ? (uint64_t)step : 0 - (uint64_t)step;
    if (step > 0 ? start < stop : start > stop) n = (span - 1) / stride + 1;
    if (n > MOST_RANGE) return status_set(KG_ERR_UNSUPPORTED, "range() of more than %d items", MOST_RANGE);
    if (step == 1 && start >= 0 && start <= MOST_RANGE) return part_of_integers(c, (size_t)start, (size_t)n, out);
    KG_TRY(jseq_new(c->m, SEQ_RANGE, (size_t)n, &s));
    for (uint64_t i = 0; i < n; i++) KG_TRY(jseq_push(c->m, s, jval_int((int64_t)((uint64_t)start + i * (uint64_t)step))));
    *out = jval_seq(s);
    return KG_OK;
}

/* From a mapping or pairs, and keywords. */
static kg_status build_dict(struct jctx *c, const struct jargs *args, struct jdict **out)
{
    KG_TRY(jdict_new(c->m, out));
    if (args->n > 1) return status_set(KG_ERR_FORMAT, "dict() and namespace() take at most 1 argument");
    if (args->n == 1 && args->v[0].type == J_DICT) {
        const struct jdict *d = args->v[0].u.dict;
        for (size_t i = 0; i < d->n; i++) KG_TRY(jdict_set(c->m, *out, d->pairs[i].key, d->pairs[i].value));
    } else if (args->n == 1) {
        struct jseq *items, *pair;
        KG_TRY(jval_items(c->m, args->v[0], &items));
        for (size_t i = 0; i < items->n; i++) {
            KG_TRY(jval_items(c->m, items->items[i], &pair));
            if (pair->n != 2) return status_set(KG_ERR_FORMAT, "dict() and namespace() need pairs");
            KG_TRY(jdict_set(c->m, *out, pair->items[0], pair->items[1]));
        }
    }
    for (size_t i = 0; i < args->n_keywords; i++)
        KG_TRY(jdict_set(c->m, *out, (struct jval){.type = J_STR, .u.s = args->keywords[i].name}, args->keywords[i].value));
    return KG_OK;
}

FN(fn_dict)
{
    UNUSED;
    struct jdict *d;
    KG_TRY(build_dict(c, args, &d));
    *out = jval_dict(d);
    return KG_OK;
}

FN(fn_namespace)
{
    KG_TRY(fn_dict(c, self, v, args, out));
    out->type = J_NAMESPACE;
    return KG_OK;
}

FN(fn_raise_exception)
{
    UNUSED, (void)out;
    struct jval text;
    KG_TRY(jval_to_str(c->m, v[0], &text));
    return status_set(KG_ERR_ARGUMENT, "the template refuses this conversation: %.*s", (int)MIN(text.u.s->len, (size_t)400), text.u.s->ptr);
}

FN(fn_strftime_now)
{
    UNUSED;
    const struct jstr *format;
    char text[1024], f[256];
    struct tm tm;
    KG_TRY(jarg_str(v[0], "strftime_now()", &format));
    if (!format || format->len >= sizeof f - 1 || memchr(format->ptr, 0, format->len)) return status_set(KG_ERR_UNSUPPORTED, "strftime_now(): the format is too long");
    memcpy(f, format->ptr, format->len);
    f[format->len] = ' '; /* so that an empty result is no failure */
    f[format->len + 1] = 0;
    time_t now = c->r->now_set ? (time_t)c->r->now : time(NULL);
    size_t n = localtime_r(&now, &tm) ? strftime(text, sizeof text, f, &tm) : 0;
    if (n == 0 || utf8_valid_prefix((const uint8_t *)text, n) != n) return status_set(KG_ERR_UNSUPPORTED, "strftime_now(): cannot write the time in this format");
    return jval_str(c->m, text, n - 1, out);
}

bool jinja_global(const struct jstr *name, struct jval *out)
{
    static const struct jfunction globals[] = {
        {"range", "start stop? step?", fn_range},
        {"dict", NULL, fn_dict},
        {"namespace", NULL, fn_namespace},
        {"raise_exception", "message", fn_raise_exception},
        {"strftime_now", "format", fn_strftime_now},
        {NULL, NULL, NULL},
    };
    const struct jfunction *f = jinja_find(globals, name);
    *out = (struct jval){.type = J_FUNCTION, .u.function = f};
    return f;
}
