/* Evaluates expressions. */
#include "text/jinja_run.h"

kg_status jinja_located(struct jctx *c, kg_status status, int line)
{
    if (status == KG_OK || c->located) return status;
    c->located = true;
    return status_prefix(status, "line %d", line);
}

kg_status jinja_enter(struct jctx *c)
{
    enum { LEVELS = 3 }; /* a sum of many terms is as deep as it is long: allow for more than brackets may have */
    if (++c->depth <= c->m->limits->depth * LEVELS) return KG_OK;
    return status_set(KG_ERR_UNSUPPORTED, "calls and expressions are nested too deep (more than %d levels)", c->m->limits->depth * LEVELS);
}

static kg_status eval_name(struct jctx *c, const struct jstr *name, struct jval *out)
{
    for (const struct jscope *s = c->scope; s; s = s->parent) {
        for (size_t i = 0; i < s->n; i++) {
            if (s->vars[i].name->len != name->len || memcmp(s->vars[i].name->ptr, name->ptr, name->len) != 0) continue;
            *out = s->vars[i].value;
            return jmem_steps(c->m, i / 8);
        }
    }
    struct jpair *p = jdict_find_str(c->r->variables, name->ptr, name->len);
    if (p) *out = p->value;
    if (p || jinja_global(name, out)) return KG_OK;
    return jval_undefined(c->m, out, "'%.*s' is undefined", (int)MIN(name->len, (size_t)80), name->ptr);
}

static kg_status eval_list(struct jctx *c, const struct jnode *n, enum jseq_kind kind, struct jval *out)
{
    struct jseq *s;
    KG_TRY(jseq_new(c->m, kind, n->n, &s));
    for (size_t i = 0; i < n->n; i++) {
        struct jval v;
        KG_TRY(jinja_eval(c, n->list[i], &v));
        KG_TRY(jseq_push(c->m, s, v));
    }
    *out = jval_seq(s);
    return KG_OK;
}

static kg_status eval_dict(struct jctx *c, const struct jnode *n, struct jval *out)
{
    struct jdict *d;
    KG_TRY(jdict_new(c->m, &d));
    for (size_t i = 0; i < n->n; i += 2) {
        struct jval k, v;
        KG_TRY(jinja_eval(c, n->list[i], &k));
        KG_TRY(jinja_eval(c, n->list[i + 1], &v));
        KG_TRY(jdict_set(c->m, d, k, v));
    }
    *out = jval_dict(d);
    return KG_OK;
}

static kg_status eval_binary(struct jctx *c, const struct jnode *n, struct jval *out)
{
    struct jval a, b;
    KG_TRY(jinja_eval(c, n->a, &a));
    if (n->op == OP_AND || n->op == OP_OR) {
        *out = a;
        return jval_truth(a) == (n->op == OP_AND) ? jinja_eval(c, n->b, out) : KG_OK;
    }
    KG_TRY(jinja_eval(c, n->b, &b));
    return jinja_operate(c->m, n->op, a, b, out);
}

static kg_status eval_concat(struct jctx *c, const struct jnode *n, struct jval *out)
{
    struct buf b = {0};
    kg_status status = KG_OK;
    for (size_t i = 0; i < n->n && status == KG_OK; i++) {
        struct jval v;
        status = jinja_eval(c, n->list[i], &v);
        if (status == KG_OK) status = jval_print(c->m, v, &b);
        if (status == KG_OK) status = jmem_room(c->m, &b);
    }
    if (status == KG_OK) return jval_str_of(c->m, &b, out);
    buf_free(&b);
    return status;
}

static kg_status eval_compare(struct jctx *c, const struct jnode *n, struct jval *out)
{
    struct jval a, b;
    bool is = true;
    KG_TRY(jinja_eval(c, n->a, &a));
    for (size_t i = 0; i < n->n && is; i++, a = b) {
        KG_TRY(jinja_eval(c, n->list[i]->a, &b));
        KG_TRY(jinja_compare(c->m, n->list[i]->op, a, b, &is));
    }
    *out = jval_bool(is);
    return KG_OK;
}

static kg_status eval_cond(struct jctx *c, const struct jnode *n, struct jval *out)
{
    struct jval test;
    KG_TRY(jinja_eval(c, n->a, &test));
    if (jval_truth(test)) return jinja_eval(c, n->b, out);
    if (n->c) return jinja_eval(c, n->c, out);
    return jval_undefined(c->m, out, "the inline if-expression was false and has no else");
}

/* ---- attributes and items ---- */

static kg_status no_attribute(struct jctx *c, struct jval of, struct jval key, struct jval *out)
{
    const char *type = jval_type_name(of), *object = " object";
    if (of.type == J_NONE) type = "None", object = "";
    if (key.type == J_STR)
        return jval_undefined(c->m, out, "'%s%s' has no attribute '%.*s'", type, object, (int)MIN(key.u.s->len, (size_t)80), key.u.s->ptr);
    if (key.type == J_INT) return jval_undefined(c->m, out, "'%s%s' has no element %lld", type, object, (long long)key.u.i);
    return jval_undefined(c->m, out, "'%s%s' has no such element", type, object);
}

static kg_status loop_attribute(struct jctx *c, const struct jloop *l, const struct jstr *name, struct jval *out, bool *found)
{
    int64_t i = (int64_t)l->i, n = (int64_t)l->items->n;
    const struct {
        const char *name;
        struct jval value;
    } attributes[] = {{"index", jval_int(i + 1)},     {"index0", jval_int(i)},      {"revindex", jval_int(n - i)},     {"revindex0", jval_int(n - i - 1)},
                      {"first", jval_bool(i == 0)},   {"last", jval_bool(i + 1 == n)}, {"length", jval_int(n)},        {"depth", jval_int(l->depth + 1)},
                      {"depth0", jval_int(l->depth)}};
    for (size_t k = 0; k < COUNT_OF(attributes); k++) {
        if (!jstr_is(name, attributes[k].name)) continue;
        *out = attributes[k].value;
        *found = true;
        return KG_OK;
    }
    bool next = jstr_is(name, "nextitem");
    if (!next && !jstr_is(name, "previtem")) return KG_OK;
    *found = true;
    if (next ? i + 1 < n : i > 0) *out = l->items->items[next ? i + 1 : i - 1];
    else return jval_undefined(c->m, out, next ? "there is no next item" : "there is no previous item");
    return KG_OK;
}

/* What getattr() would find: methods, and what loops, macros and namespaces have. */
static kg_status own_attribute(struct jctx *c, struct jval of, const struct jstr *name, struct jval *out, bool *found)
{
    *found = false;
    if (of.type == J_LOOP) KG_TRY(loop_attribute(c, of.u.loop, name, out, found));
    if (of.type == J_NAMESPACE) {
        struct jpair *p = jdict_find_str(of.u.dict, name->ptr, name->len);
        *found = p;
        if (p) *out = p->value;
    }
    if (of.type == J_MACRO && jstr_is(name, "name")) {
        *found = true;
        *out = of.u.macro->node->value;
    }
    const struct jfunction *f = *found ? NULL : jinja_method(of, name);
    if (!f) return KG_OK;
    struct jbound *b = jmem_alloc(c->m, 1, sizeof *b);
    if (!b) return jmem_failed(c->m);
    *b = (struct jbound){of, f};
    *out = (struct jval){.type = J_METHOD, .u.bound = b};
    *found = true;
    return KG_OK;
}

/* What of[key] would find. */
static kg_status own_item(struct jctx *c, struct jval of, struct jval key, struct jval *out, bool *found)
{
    *found = false;
    if (of.type == J_DICT) {
        struct jpair *p = NULL;
        kg_status status = jdict_find(c->m, of.u.dict, key, &p);
        if (status != KG_OK && status != KG_ERR_FORMAT) return status; /* a key without a hash is just not there */
        *found = p;
        if (p) *out = p->value;
        return KG_OK;
    }
    if (key.type != J_INT && key.type != J_BOOL) return KG_OK;
    int64_t i = key.type == J_INT ? key.u.i : key.u.b, n;
    if (of.type == J_STR) {
        KG_TRY(jmem_steps(c->m, of.u.s->len / 16));
        n = (int64_t)jstr_n_chars(of.u.s->ptr, of.u.s->len);
        if (i < 0) i += n;
        if (i < 0 || i >= n) return KG_OK;
        size_t at = jstr_offset(of.u.s->ptr, of.u.s->len, (size_t)i);
        *found = true;
        return jval_str_at(c->m, of.u.s->ptr + at, jstr_offset(of.u.s->ptr + at, of.u.s->len - at, 1), out);
    }
    if (of.type != J_SEQ || of.u.seq->kind > SEQ_RANGE) return KG_OK;
    n = (int64_t)of.u.seq->n;
    if (i < 0) i += n;
    *found = i >= 0 && i < n;
    if (*found) *out = of.u.seq->items[i];
    return KG_OK;
}

kg_status jinja_attribute(struct jctx *c, struct jval of, struct jval name, struct jval *out)
{
    bool found;
    if (of.type == J_UNDEFINED) return jinja_undefined_error(of);
    KG_TRY(own_attribute(c, of, name.u.s, out, &found));
    if (!found) KG_TRY(own_item(c, of, name, out, &found));
    return found ? KG_OK : no_attribute(c, of, name, out);
}

kg_status jinja_item(struct jctx *c, struct jval of, struct jval key, struct jval *out)
{
    bool found;
    if (of.type == J_UNDEFINED) return jinja_undefined_error(of);
    KG_TRY(own_item(c, of, key, out, &found));
    if (!found && key.type == J_STR) KG_TRY(own_attribute(c, of, key.u.s, out, &found));
    return found ? KG_OK : no_attribute(c, of, key, out);
}

static kg_status eval_item(struct jctx *c, const struct jnode *n, struct jval *out)
{
    struct jval of, key;
    KG_TRY(jinja_eval(c, n->a, &of));
    if (n->b->type != N_SLICE) {
        KG_TRY(jinja_eval(c, n->b, &key));
        return jinja_item(c, of, key, out);
    }
    const struct jnode *parts[3] = {n->b->a, n->b->b, n->b->c};
    struct jval part[3];
    for (int i = 0; i < 3; i++) {
        part[i] = jval_none();
        if (parts[i]) KG_TRY(jinja_eval(c, parts[i], &part[i]));
    }
    return jinja_slice(c->m, of, part, out);
}

/* ---- calls ---- */

static kg_status add_keyword(struct jctx *c, struct jargs *args, size_t *cap, const struct jstr *name, struct jval v)
{
    for (size_t i = 0; i < args->n_keywords; i++)
        if (args->keywords[i].name->len == name->len && memcmp(args->keywords[i].name->ptr, name->ptr, name->len) == 0)
            return status_set(KG_ERR_FORMAT, "keyword argument '%.*s' is given twice", (int)MIN(name->len, (size_t)80), name->ptr);
    if (args->n_keywords == *cap) {
        struct jkeyword *more = jmem_alloc(c->m, *cap * 2 + 4, sizeof *more);
        if (!more) return jmem_failed(c->m);
        if (args->n_keywords) memcpy(more, args->keywords, args->n_keywords * sizeof *more);
        args->keywords = more;
        *cap = *cap * 2 + 4;
    }
    args->keywords[args->n_keywords++] = (struct jkeyword){name, v};
    return jmem_steps(c->m, 1 + args->n_keywords / 4);
}

kg_status jinja_arguments(struct jctx *c, const struct jnode *n, struct jargs *out)
{
    struct jseq *positional;
    size_t cap = 0;
    *out = (struct jargs){0};
    if (n->n == 0) return KG_OK;
    KG_TRY(jseq_new(c->m, SEQ_LIST, n->n, &positional));
    for (size_t i = 0; i < n->n; i++) {
        const struct jnode *arg = n->list[i];
        struct jval v;
        struct jseq *items;
        KG_TRY(jinja_eval(c, arg->a, &v));
        if (arg->op == ARG_POSITIONAL) {
            KG_TRY(jseq_push(c->m, positional, v));
        } else if (arg->op == ARG_KEYWORD) {
            KG_TRY(add_keyword(c, out, &cap, arg->value.u.s, v));
        } else if (arg->op == ARG_LIST) {
            KG_TRY(jval_items(c->m, v, &items));
            for (size_t k = 0; k < items->n; k++) KG_TRY(jseq_push(c->m, positional, items->items[k]));
        } else {
            if (v.type != J_DICT) return status_set(KG_ERR_FORMAT, "the argument after ** must be a mapping, not %s", jval_type_name(v));
            for (size_t k = 0; k < v.u.dict->n; k++) {
                if (v.u.dict->pairs[k].key.type != J_STR) return status_set(KG_ERR_FORMAT, "keywords must be strings");
                KG_TRY(add_keyword(c, out, &cap, v.u.dict->pairs[k].key.u.s, v.u.dict->pairs[k].value));
            }
        }
    }
    out->v = positional->items;
    out->n = positional->n;
    return KG_OK;
}

kg_status jinja_call(struct jctx *c, struct jval callee, const struct jargs *args, struct jval *out)
{
    switch (callee.type) {
    case J_UNDEFINED: return jinja_undefined_error(callee);
    case J_FUNCTION: return jinja_run_function(c, callee.u.function, (struct jval){.type = J_MISSING}, args, out);
    case J_METHOD: return jinja_run_function(c, callee.u.bound->function, callee.u.bound->self, args, out);
    case J_MACRO: return jinja_call_macro(c, callee.u.macro, args, out);
    case J_LOOP:
        if (args->n != 1 || args->n_keywords) return status_set(KG_ERR_FORMAT, "loop() takes one argument");
        return jinja_call_loop(c, callee.u.loop, args->v[0], out);
    default: return status_set(KG_ERR_FORMAT, "'%s' object is not callable", jval_type_name(callee));
    }
}

static kg_status eval_call(struct jctx *c, const struct jnode *n, struct jval *out)
{
    struct jval callee;
    struct jargs args;
    KG_TRY(jinja_eval(c, n->a, &callee));
    KG_TRY(jinja_arguments(c, n, &args));
    return jinja_call(c, callee, &args, out);
}

static kg_status eval_filter(struct jctx *c, const struct jnode *n, struct jval *out)
{
    struct jval in = c->input;
    struct jargs args;
    if (n->a) KG_TRY(jinja_eval(c, n->a, &in));
    KG_TRY(jinja_arguments(c, n, &args));
    return jinja_filter(c, n->value.u.s, in, &args, out);
}

static kg_status eval_test(struct jctx *c, const struct jnode *n, struct jval *out)
{
    struct jval in;
    struct jargs args;
    bool is = false;
    KG_TRY(jinja_eval(c, n->a, &in));
    KG_TRY(jinja_arguments(c, n, &args));
    KG_TRY(jinja_test(c, n->value.u.s, in, &args, &is));
    *out = jval_bool(is);
    return KG_OK;
}

static kg_status eval_one(struct jctx *c, const struct jnode *n, struct jval *out)
{
    switch (n->type) {
    case N_CONST: *out = n->value; return KG_OK;
    case N_NAME: return eval_name(c, n->value.u.s, out);
    case N_LIST: return eval_list(c, n, SEQ_LIST, out);
    case N_TUPLE: return eval_list(c, n, SEQ_TUPLE, out);
    case N_DICT: return eval_dict(c, n, out);
    case N_UNARY: KG_TRY(jinja_eval(c, n->a, out)); return jinja_unary(c->m, n->op, *out, out);
    case N_BINARY: return eval_binary(c, n, out);
    case N_CONCAT: return eval_concat(c, n, out);
    case N_COMPARE: return eval_compare(c, n, out);
    case N_COND: return eval_cond(c, n, out);
    case N_ATTR: KG_TRY(jinja_eval(c, n->a, out)); return jinja_attribute(c, *out, n->value, out);
    case N_ITEM: return eval_item(c, n, out);
    case N_CALL: return eval_call(c, n, out);
    case N_FILTER: return eval_filter(c, n, out);
    case N_TEST: return eval_test(c, n, out);
    default: return status_set(KG_ERR_FORMAT, "not an expression");
    }
}

kg_status jinja_eval(struct jctx *c, const struct jnode *n, struct jval *out)
{
    kg_status status = jmem_steps(c->m, 1);
    if (status == KG_OK) status = jinja_enter(c);
    if (status == KG_OK) status = eval_one(c, n, out);
    c->depth--;
    return jinja_located(c, status, n->line);
}
