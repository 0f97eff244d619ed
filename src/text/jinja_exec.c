/* Runs statements: output, conditions, loops, assignments, macros. */
#include "text/jinja_run.h"

static kg_status new_scope(struct jctx *c, struct jscope *parent, struct jscope **out)
{
    *out = jmem_alloc(c->m, 1, sizeof **out);
    if (!*out) return jmem_failed(c->m);
    (*out)->parent = parent;
    return KG_OK;
}

static kg_status set_var(struct jctx *c, struct jscope *s, const struct jstr *name, struct jval v)
{
    KG_TRY(jmem_steps(c->m, 1 + s->n / 8));
    for (size_t i = 0; i < s->n; i++) {
        if (s->vars[i].name->len != name->len || memcmp(s->vars[i].name->ptr, name->ptr, name->len) != 0) continue;
        s->vars[i].value = v;
        return KG_OK;
    }
    if (s->n == s->cap) {
        size_t cap = MAX(s->cap * 2, (size_t)4);
        struct jvar *vars = jmem_alloc(c->m, cap, sizeof *vars);
        if (!vars) return jmem_failed(c->m);
        if (s->n) memcpy(vars, s->vars, s->n * sizeof *vars);
        s->vars = vars;
        s->cap = cap;
    }
    s->vars[s->n++] = (struct jvar){name, v};
    return KG_OK;
}

static kg_status assign(struct jctx *c, const struct jnode *target, struct jval v)
{
    if (target->type == N_NAME) return set_var(c, c->scope, target->value.u.s, v);
    if (target->type == N_ATTR) {
        struct jval of;
        KG_TRY(jinja_eval(c, target->a, &of));
        if (of.type != J_NAMESPACE) return status_set(KG_ERR_FORMAT, "cannot assign attribute on non-namespace object");
        return jdict_set(c->m, of.u.dict, target->value, v);
    }
    struct jseq *items;
    KG_TRY(jval_items(c->m, v, &items));
    if (items->n != target->n)
        return status_set(KG_ERR_FORMAT, "%s values to unpack (expected %zu, got %zu)", items->n < target->n ? "not enough" : "too many", target->n, items->n);
    for (size_t i = 0; i < target->n; i++) KG_TRY(assign(c, target->list[i], items->items[i]));
    return KG_OK;
}

/* What fn writes, as a string. */
static kg_status capture(struct jctx *c, kg_status (*fn)(struct jctx *c, void *arg), void *arg, struct jval *out)
{
    struct buf b = {0}, *outer = c->out;
    c->out = &b;
    kg_status status = fn(c, arg);
    c->out = outer;
    c->pending -= b.len;
    if (status == KG_OK) return jval_str_of(c->m, &b, out);
    buf_free(&b);
    return status;
}

static kg_status run_body(struct jctx *c, void *body) { return jinja_exec(c, body); }

/* A body whose variables do not leave it. */
static kg_status run_scoped(struct jctx *c, struct jnode *body, struct jval *captured)
{
    struct jscope *outer = c->scope;
    KG_TRY(new_scope(c, outer, &c->scope));
    kg_status status = captured ? capture(c, run_body, body, captured) : jinja_exec(c, body);
    c->scope = outer;
    return status;
}

/* ---- loops ---- */

/* The scope of the next iteration: the last one's again, unless a macro keeps it. */
static kg_status next_scope(struct jctx *c, struct jscope *outer, struct jscope **scope)
{
    if (!*scope || (*scope)->kept) return new_scope(c, outer, scope);
    (*scope)->n = 0;
    return KG_OK;
}

/* The items for which the loop's condition holds. */
static kg_status filter_items(struct jctx *c, const struct jnode *n, struct jscope *outer, struct jseq **items)
{
    struct jseq *kept;
    struct jscope *scope = NULL;
    KG_TRY(jseq_new(c->m, SEQ_LIST, 0, &kept));
    for (size_t i = 0; i < (*items)->n; i++) {
        struct jval test;
        KG_TRY(next_scope(c, outer, &scope));
        c->scope = scope;
        KG_TRY(assign(c, n->a, (*items)->items[i]));
        KG_TRY(jinja_eval(c, n->c, &test));
        if (jval_truth(test)) KG_TRY(jseq_push(c->m, kept, (*items)->items[i]));
    }
    *items = kept;
    return KG_OK;
}

static kg_status loop_over(struct jctx *c, struct jloop *l)
{
    static const struct jstr loop_name = {"loop", 4, false};
    const struct jnode *n = l->node;
    struct jscope *scope = NULL;
    if (n->c) KG_TRY(filter_items(c, n, l->outer, &l->items));
    for (l->i = 0; l->i < l->items->n; l->i++) {
        KG_TRY(jmem_steps(c->m, 1));
        KG_TRY(next_scope(c, l->outer, &scope));
        c->scope = scope;
        KG_TRY(set_var(c, c->scope, &loop_name, (struct jval){.type = J_LOOP, .u.loop = l}));
        KG_TRY(assign(c, n->a, l->items->items[l->i]));
        KG_TRY(jinja_exec(c, n->list[0]));
        bool leave = c->signal == RUN_BREAK;
        c->signal = RUN_ON;
        if (leave) break;
    }
    c->scope = l->outer;
    if (l->items->n == 0 && n->list[1]) return run_scoped(c, n->list[1], NULL);
    return KG_OK;
}

static kg_status run_loop(struct jctx *c, const struct jnode *n, struct jscope *outer, struct jval over, int depth)
{
    struct jscope *before = c->scope;
    struct jloop *l = jmem_alloc(c->m, 1, sizeof *l);
    if (!l) return jmem_failed(c->m);
    *l = (struct jloop){.node = n, .outer = outer, .depth = depth};
    KG_TRY(jval_items(c->m, over, &l->items));
    kg_status status = loop_over(c, l);
    c->scope = before;
    return status;
}

struct inner_loop {
    const struct jloop *of;
    struct jval over;
};

static kg_status run_inner_loop(struct jctx *c, void *arg)
{
    const struct inner_loop *l = arg;
    return run_loop(c, l->of->node, l->of->outer, l->over, l->of->depth + 1);
}

kg_status jinja_call_loop(struct jctx *c, const struct jloop *loop, struct jval items, struct jval *out)
{
    if (!loop->node->op) return status_set(KG_ERR_FORMAT, "loop() is called in a loop that is not marked as recursive");
    return capture(c, run_inner_loop, &(struct inner_loop){loop, items}, out);
}

static kg_status exec_for(struct jctx *c, const struct jnode *n)
{
    struct jval over;
    KG_TRY(jinja_eval(c, n->b, &over));
    return run_loop(c, n, c->scope, over, 0);
}

/* ---- macros ---- */

static kg_status too_many(const struct jnode *n, const char *what)
{
    return status_set(KG_ERR_FORMAT, "macro '%.*s' %s", (int)MIN(n->value.u.s->len, (size_t)80), n->value.u.s->ptr, what);
}

/* Those that the parameters leave over: varargs, kwargs and caller. */
static kg_status bind_rest(struct jctx *c, const struct jnode *n, const struct jargs *args, const bool *taken, struct jval caller)
{
    static const struct jstr names[] = {{"varargs", 7, false}, {"kwargs", 6, false}, {"caller", 6, false}};
    if (n->op & USES_CALLER) {
        if (caller.type == J_MISSING) KG_TRY(jval_undefined(c->m, &caller, "No caller defined"));
        KG_TRY(set_var(c, c->scope, &names[2], caller));
    }
    struct jdict *kwargs;
    KG_TRY(jdict_new(c->m, &kwargs));
    for (size_t i = 0; i < args->n_keywords; i++) {
        struct jval key = {.type = J_STR, .u.s = args->keywords[i].name};
        if (!taken[i]) KG_TRY(jdict_set(c->m, kwargs, key, args->keywords[i].value));
    }
    if (n->op & USES_KWARGS) KG_TRY(set_var(c, c->scope, &names[1], jval_dict(kwargs)));
    else if (kwargs->n > 0) return too_many(n, "has no such keyword argument");
    if (!(n->op & USES_VARARGS)) return args->n > n->n ? too_many(n, "takes fewer arguments") : KG_OK;
    struct jseq *varargs;
    KG_TRY(jseq_new(c->m, SEQ_TUPLE, 0, &varargs));
    for (size_t i = n->n; i < args->n; i++) KG_TRY(jseq_push(c->m, varargs, args->v[i]));
    return set_var(c, c->scope, &names[0], jval_seq(varargs));
}

/* c->scope is the macro's. */
static kg_status bind_parameters(struct jctx *c, const struct jnode *n, const struct jargs *args)
{
    struct jval caller = {.type = J_MISSING};
    bool *taken = jmem_alloc(c->m, args->n_keywords, 1);
    if (!taken) return jmem_failed(c->m);
    for (size_t i = 0; i < n->n; i++) {
        const struct jstr *name = n->list[i]->value.u.s;
        struct jval v = {.type = J_MISSING};
        if (i < args->n) v = args->v[i];
        for (size_t k = 0; k < args->n_keywords && i >= args->n; k++) {
            if (args->keywords[k].name->len != name->len || memcmp(args->keywords[k].name->ptr, name->ptr, name->len) != 0) continue;
            v = args->keywords[k].value;
            taken[k] = true;
        }
        KG_TRY(jmem_steps(c->m, 1 + args->n_keywords));
        if (v.type == J_MISSING && n->list[i]->a)
            KG_TRY(jinja_eval(c, n->list[i]->a, &v));
        else if (v.type == J_MISSING)
            KG_TRY(jval_undefined(c->m, &v, "parameter '%.*s' was not provided", (int)MIN(name->len, (size_t)80), name->ptr));
        KG_TRY(set_var(c, c->scope, name, v));
    }
    for (size_t k = 0; k < args->n_keywords && n->op & USES_CALLER; k++) {
        if (taken[k] || !jstr_is(args->keywords[k].name, "caller")) continue;
        caller = args->keywords[k].value;
        taken[k] = true;
    }
    return bind_rest(c, n, args, taken, caller);
}

kg_status jinja_call_macro(struct jctx *c, const struct jmacro *macro, const struct jargs *args, struct jval *out)
{
    struct jscope *outer = c->scope;
    struct jval input = c->input;
    KG_TRY(new_scope(c, macro->scope, &c->scope));
    kg_status status = bind_parameters(c, macro->node, args);
    if (status == KG_OK) status = capture(c, run_body, macro->node->c, out);
    c->scope = outer;
    c->input = input;
    return status;
}

static kg_status new_macro(struct jctx *c, const struct jnode *n, struct jval *out)
{
    struct jmacro *macro = jmem_alloc(c->m, 1, sizeof *macro);
    if (!macro) return jmem_failed(c->m);
    *macro = (struct jmacro){n, c->scope};
    for (struct jscope *s = c->scope; s && !s->kept; s = s->parent) s->kept = true;
    *out = (struct jval){.type = J_MACRO, .u.macro = macro};
    return KG_OK;
}

/* ---- statements ---- */

static kg_status put(struct jctx *c, struct jval v)
{
    size_t before = c->out->len;
    kg_status status = jval_print(c->m, v, c->out);
    c->pending += c->out->len - before;
    if (status == KG_OK && c->pending > c->m->limits->output)
        status = status_set(KG_ERR_UNSUPPORTED, "makes more than %zu MiB of text", c->m->limits->output >> 20);
    return status;
}

static kg_status exec_call_block(struct jctx *c, const struct jnode *n)
{
    static const struct jstr caller_name = {"caller", 6, false};
    struct jval callee, out;
    struct jargs args;
    KG_TRY(jinja_eval(c, n->a->a, &callee));
    KG_TRY(jinja_arguments(c, n->a, &args));
    struct jkeyword *keywords = jmem_alloc(c->m, args.n_keywords + 1, sizeof *keywords);
    if (!keywords) return jmem_failed(c->m);
    if (args.n_keywords) memcpy(keywords, args.keywords, args.n_keywords * sizeof *keywords);
    args.keywords = keywords;
    keywords[args.n_keywords].name = &caller_name;
    KG_TRY(new_macro(c, n->b, &keywords[args.n_keywords++].value));
    KG_TRY(jinja_call(c, callee, &args, &out));
    return put(c, out);
}

static kg_status exec_if(struct jctx *c, const struct jnode *n)
{
    for (size_t i = 0; i < n->n; i += 2) {
        struct jval test;
        KG_TRY(jinja_eval(c, n->list[i], &test));
        if (jval_truth(test)) return jinja_exec(c, n->list[i + 1]);
    }
    return n->c ? jinja_exec(c, n->c) : KG_OK;
}

static kg_status exec_with(struct jctx *c, const struct jnode *n)
{
    struct jscope *outer = c->scope, *inner;
    kg_status status = new_scope(c, outer, &inner);
    for (size_t i = 0; i < n->n && status == KG_OK; i++) { /* the values are those of outside */
        struct jval v;
        status = jinja_eval(c, n->list[i]->b, &v);
        c->scope = inner;
        if (status == KG_OK) status = assign(c, n->list[i]->a, v);
        c->scope = outer;
    }
    c->scope = inner;
    if (status == KG_OK) status = jinja_exec(c, n->c);
    c->scope = outer;
    return status;
}

/* set and filter with a body: what it produces, through the filters. */
static kg_status exec_produced(struct jctx *c, const struct jnode *n)
{
    struct jval v, outer = c->input;
    KG_TRY(run_scoped(c, n->c, &v));
    const struct jnode *filters = n->type == N_SET_BLOCK ? n->b : n->a;
    c->input = v;
    if (filters) KG_TRY(jinja_eval(c, filters, &v));
    c->input = outer;
    return n->type == N_SET_BLOCK ? assign(c, n->a, v) : put(c, v);
}

static kg_status exec_body(struct jctx *c, const struct jnode *n)
{
    for (size_t i = 0; i < n->n && c->signal == RUN_ON; i++) KG_TRY(jinja_exec(c, n->list[i]));
    return KG_OK;
}

static kg_status exec_one(struct jctx *c, const struct jnode *n)
{
    struct jval v;
    switch (n->type) {
    case N_BODY: return exec_body(c, n);
    case N_DATA: return put(c, n->value);
    case N_OUTPUT: KG_TRY(jinja_eval(c, n->a, &v)); return put(c, v);
    case N_IF: return exec_if(c, n);
    case N_FOR: return exec_for(c, n);
    case N_SET: KG_TRY(jinja_eval(c, n->b, &v)); return assign(c, n->a, v);
    case N_SET_BLOCK:
    case N_FILTER_BLOCK: return exec_produced(c, n);
    case N_MACRO: KG_TRY(new_macro(c, n, &v)); return set_var(c, c->scope, n->value.u.s, v);
    case N_CALL_BLOCK: return exec_call_block(c, n);
    case N_WITH: return exec_with(c, n);
    case N_SCOPE: return run_scoped(c, n->c, NULL);
    case N_BREAK: c->signal = RUN_BREAK; return KG_OK;
    case N_CONTINUE: c->signal = RUN_CONTINUE; return KG_OK;
    default: return status_set(KG_ERR_FORMAT, "not a statement");
    }
}

kg_status jinja_exec(struct jctx *c, const struct jnode *n)
{
    kg_status status = jmem_steps(c->m, 1);
    if (status == KG_OK) status = jinja_enter(c);
    if (status == KG_OK) status = exec_one(c, n);
    c->depth--;
    return jinja_located(c, status, n->line);
}

/* ---- a rendering ---- */

kg_status jinja_render_start(struct jinja_render *r, const struct jinja_limits *limits)
{
    *r = (struct jinja_render){.mem = {.limits = limits ? limits : &jinja_default_limits}};
    return jdict_new(&r->mem, &r->variables);
}

kg_status jinja_render(struct jinja_render *r, const struct jinja *t)
{
    struct jctx c = {.m = &r->mem, .r = r, .out = &r->out};
    struct jlocale locale;
    KG_TRY(jlocale_enter(&locale));
    kg_status status = new_scope(&c, NULL, &c.scope);
    if (status == KG_OK) status = jinja_exec(&c, t->root);
    jlocale_leave(&locale);
    return status;
}

void jinja_render_free(struct jinja_render *r)
{
    arena_free(&r->mem.arena);
    buf_free(&r->out);
    *r = (struct jinja_render){0};
}
