/* Makes a tree of tokens: statements here, expressions in jinja_expr.c. Owns the list of statements. */
#include "text/jinja_parse.h"

#include <stdlib.h>

kg_status parse_fail(const struct parser *p, const char *fmt, ...)
{
    char text[200];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return status_set(KG_ERR_FORMAT, "line %d: %s", p->at->line, text);
}

/* The token as it would stand in a message. */
static void describe(const struct jtoken *t, char out[48])
{
    static const char *const names[] = {"text", "", "a string", "a number", "a number", "", "'{{'", "'}}'", "'{%'", "'%}'", "the end of the template"};
    if (t->type == T_OP) snprintf(out, 48, "'%s'", t->op);
    else if (t->type == T_NAME) snprintf(out, 48, "'%.*s'", (int)MIN(t->value.u.s->len, (size_t)40), t->value.u.s->ptr);
    else snprintf(out, 48, "%s", names[t->type]);
}

kg_status parse_unexpected(const struct parser *p, const char *wanted)
{
    char found[48];
    describe(p->at, found);
    return wanted ? parse_fail(p, "expected %s, found %s", wanted, found) : parse_fail(p, "unexpected %s", found);
}

kg_status parse_node(struct parser *p, enum jnode_type type, struct jnode **out)
{
    struct jnode *n = jmem_alloc(&p->t->mem, 1, sizeof *n);
    if (!n) return jmem_failed(&p->t->mem);
    n->type = type;
    n->line = p->at->line;
    *out = n;
    return KG_OK;
}

kg_status parse_add(struct parser *p, struct jnode *to, struct jnode *item)
{
    if (to->n == to->cap) {
        size_t cap = MAX(to->cap * 2, (size_t)4);
        struct jnode **list = jmem_alloc(&p->t->mem, cap, sizeof *list);
        if (!list) return jmem_failed(&p->t->mem);
        if (to->n) memcpy(list, to->list, to->n * sizeof *list);
        to->list = list;
        to->cap = cap;
    }
    to->list[to->n++] = item;
    return KG_OK;
}

kg_status parse_enter(struct parser *p)
{
    if (++p->depth <= p->t->mem.limits->depth) return KG_OK;
    return status_set(KG_ERR_UNSUPPORTED, "line %d: blocks or expressions are nested more than %d deep", p->at->line, p->t->mem.limits->depth);
}

bool parse_is(const struct parser *p, const char *op) { return p->at->type == T_OP && strcmp(p->at->op, op) == 0; }
bool parse_is_name(const struct parser *p, const char *name) { return p->at->type == T_NAME && jstr_is(p->at->value.u.s, name); }

bool parse_skip(struct parser *p, const char *op)
{
    bool is = parse_is(p, op);
    p->at += is;
    return is;
}

bool parse_skip_name(struct parser *p, const char *name)
{
    bool is = parse_is_name(p, name);
    p->at += is;
    return is;
}

kg_status parse_expect(struct parser *p, const char *op)
{
    char wanted[8];
    if (parse_skip(p, op)) return KG_OK;
    snprintf(wanted, sizeof wanted, "'%s'", op);
    return parse_unexpected(p, wanted);
}

kg_status parse_name(struct parser *p, struct jval *out)
{
    if (p->at->type != T_NAME) return parse_unexpected(p, "a name");
    *out = p->at->value;
    p->at++;
    return KG_OK;
}

static kg_status block_end(struct parser *p)
{
    if (p->at->type != T_BLOCK_END) return parse_unexpected(p, "'%}'");
    p->at++;
    return KG_OK;
}

/* ---- statements; p->at is behind the statement's name ---- */

/* Is this {% name, one of the given names (separated by spaces)? */
static bool at_block(const struct parser *p, const char *names)
{
    if (p->at->type != T_BLOCK_BEGIN || p->at[1].type != T_NAME) return false;
    const struct jstr *s = p->at[1].value.u.s;
    for (const char *n = names; *n;) {
        size_t k = strcspn(n, " ");
        if (s->len == k && memcmp(s->ptr, n, k) == 0) return true;
        n += k + (n[k] == ' ');
    }
    return false;
}

static kg_status parse_body(struct parser *p, const char *until, struct jnode **out);

/* The body up to {% end %}, which is skipped. */
static kg_status parse_whole_body(struct parser *p, const char *end, struct jnode **out)
{
    KG_TRY(block_end(p));
    KG_TRY(parse_body(p, end, out));
    p->at += 2;
    if (strcmp(end, "endblock") == 0 && p->at->type == T_NAME) p->at++;
    return block_end(p);
}

static kg_status parse_if(struct parser *p, struct jnode *n)
{
    n->type = N_IF;
    for (;;) {
        struct jnode *condition, *body;
        KG_TRY(parse_tuple(p, true, &condition));
        KG_TRY(block_end(p));
        KG_TRY(parse_body(p, "elif else endif", &body));
        KG_TRY(parse_add(p, n, condition));
        KG_TRY(parse_add(p, n, body));
        p->at++;
        if (parse_skip_name(p, "elif")) continue;
        if (parse_skip_name(p, "else")) return parse_whole_body(p, "endif", &n->c);
        p->at++;
        return block_end(p);
    }
}

static kg_status parse_target(struct parser *p, bool attribute, struct jnode **out);

/* A name, name.name (if allowed), or targets in brackets. */
static kg_status parse_one_target(struct parser *p, bool attribute, struct jnode **out)
{
    if (parse_skip(p, "(")) {
        KG_TRY(parse_enter(p));
        KG_TRY(parse_target(p, false, out));
        p->depth--;
        return parse_expect(p, ")");
    }
    struct jnode *of;
    KG_TRY(parse_node(p, N_NAME, out));
    KG_TRY(parse_name(p, &(*out)->value));
    if (!attribute || !parse_is(p, ".")) return KG_OK;
    of = *out;
    p->at++;
    KG_TRY(parse_node(p, N_ATTR, out));
    (*out)->a = of;
    return parse_name(p, &(*out)->value);
}

/* One target, or several with commas between. */
static kg_status parse_target(struct parser *p, bool attribute, struct jnode **out)
{
    struct jnode *tuple = NULL, *n = NULL;
    for (;;) {
        KG_TRY(parse_one_target(p, attribute && !tuple, &n));
        if (!tuple) *out = n;
        else KG_TRY(parse_add(p, tuple, n));
        if (!parse_skip(p, ",")) return KG_OK;
        if (!tuple) {
            KG_TRY(parse_node(p, N_TUPLE, &tuple));
            KG_TRY(parse_add(p, tuple, n));
            *out = tuple;
        }
        if ((p->at->type != T_NAME && !parse_is(p, "(")) || parse_is_name(p, "in")) return KG_OK; /* a comma at the end */
    }
}

static kg_status parse_for(struct parser *p, struct jnode *n)
{
    struct jnode *body, *otherwise = NULL;
    n->type = N_FOR;
    KG_TRY(parse_target(p, false, &n->a));
    if (!parse_skip_name(p, "in")) return parse_unexpected(p, "'in'");
    KG_TRY(parse_tuple(p, false, &n->b));
    if (parse_skip_name(p, "if")) KG_TRY(parse_expression(p, &n->c));
    n->op = parse_skip_name(p, "recursive");
    KG_TRY(block_end(p));
    p->loops++;
    KG_TRY(parse_body(p, "else endfor", &body));
    p->loops--;
    p->at++;
    if (parse_skip_name(p, "else")) {
        KG_TRY(parse_whole_body(p, "endfor", &otherwise));
    } else {
        p->at++;
        KG_TRY(block_end(p));
    }
    KG_TRY(parse_add(p, n, body));
    return parse_add(p, n, otherwise);
}

static kg_status parse_set(struct parser *p, struct jnode *n)
{
    n->type = N_SET;
    KG_TRY(parse_target(p, true, &n->a));
    if (parse_skip(p, "=")) {
        KG_TRY(parse_tuple(p, true, &n->b));
        return block_end(p);
    }
    n->type = N_SET_BLOCK;
    if (parse_is(p, "|")) KG_TRY(parse_filters(p, NULL, false, &n->b));
    return parse_whole_body(p, "endset", &n->c);
}

/* (a, b=1): the parameters of a macro. */
static kg_status parse_parameters(struct parser *p, struct jnode *macro)
{
    KG_TRY(parse_expect(p, "("));
    for (bool defaults = false; !parse_skip(p, ")");) {
        struct jnode *n;
        if (macro->n > 0) KG_TRY(parse_expect(p, ","));
        if (macro->n > 0 && parse_skip(p, ")")) break;
        KG_TRY(parse_node(p, N_PARAM, &n));
        KG_TRY(parse_name(p, &n->value));
        if (parse_skip(p, "=")) {
            defaults = true;
            KG_TRY(parse_expression(p, &n->a));
        } else if (defaults) {
            return parse_fail(p, "a parameter without a default follows one that has one");
        }
        KG_TRY(parse_add(p, macro, n));
    }
    return KG_OK;
}

/* Parameters are there; the body up to {% end %}. Loops around it are not its own. */
static kg_status parse_macro_body(struct parser *p, const char *end, struct jnode *macro)
{
    int loops = p->loops, uses = p->macro_uses;
    p->loops = p->macro_uses = 0;
    KG_TRY(parse_whole_body(p, end, &macro->c));
    macro->op = p->macro_uses;
    p->loops = loops;
    p->macro_uses = uses | macro->op; /* as jinja2 has it: what an inner macro mentions, the outer one uses too */
    return KG_OK;
}

static kg_status parse_macro(struct parser *p, struct jnode *n)
{
    n->type = N_MACRO;
    KG_TRY(parse_name(p, &n->value));
    KG_TRY(parse_parameters(p, n));
    return parse_macro_body(p, "endmacro", n);
}

static kg_status parse_call_block(struct parser *p, struct jnode *n)
{
    n->type = N_CALL_BLOCK;
    KG_TRY(parse_node(p, N_MACRO, &n->b));
    KG_TRY(jval_text(&p->t->mem, "caller", &n->b->value));
    if (parse_is(p, "(")) KG_TRY(parse_parameters(p, n->b));
    KG_TRY(parse_expression(p, &n->a));
    if (n->a->type != N_CALL) return parse_fail(p, "expected a call");
    return parse_macro_body(p, "endcall", n->b);
}

static kg_status parse_filter_block(struct parser *p, struct jnode *n)
{
    n->type = N_FILTER_BLOCK;
    KG_TRY(parse_filters(p, NULL, true, &n->a));
    return parse_whole_body(p, "endfilter", &n->c);
}

static kg_status parse_with(struct parser *p, struct jnode *n)
{
    n->type = N_WITH;
    while (p->at->type != T_BLOCK_END) {
        struct jnode *set;
        if (n->n > 0) KG_TRY(parse_expect(p, ","));
        KG_TRY(parse_node(p, N_SET, &set));
        KG_TRY(parse_target(p, false, &set->a));
        KG_TRY(parse_expect(p, "="));
        KG_TRY(parse_expression(p, &set->b));
        KG_TRY(parse_add(p, n, set));
    }
    return parse_whole_body(p, "endwith", &n->c);
}

static kg_status parse_block(struct parser *p, struct jnode *n)
{
    struct jval name;
    n->type = N_SCOPE;
    KG_TRY(parse_name(p, &name));
    while (parse_skip_name(p, "scoped") || parse_skip_name(p, "required")) {}
    return parse_whole_body(p, "endblock", &n->c);
}

static kg_status parse_generation(struct parser *p, struct jnode *n)
{
    n->type = N_SCOPE;
    return parse_whole_body(p, "endgeneration", &n->c);
}

static kg_status parse_autoescape(struct parser *p, struct jnode *n)
{
    n->type = N_SCOPE;
    if (!parse_skip_name(p, "false") && !parse_skip_name(p, "False"))
        return status_set(KG_ERR_UNSUPPORTED, "line %d: autoescape is not supported", p->at->line);
    return parse_whole_body(p, "endautoescape", &n->c);
}

static kg_status parse_print(struct parser *p, struct jnode *n)
{
    n->type = N_OUTPUT;
    KG_TRY(parse_tuple(p, true, &n->a));
    return block_end(p);
}

static kg_status parse_jump(struct parser *p, struct jnode *n)
{
    n->type = jstr_is(p->at[-1].value.u.s, "break") ? N_BREAK : N_CONTINUE;
    if (p->loops == 0) return parse_fail(p, "%s outside of a loop", n->type == N_BREAK ? "break" : "continue");
    return block_end(p);
}

static const struct {
    const char *name;
    kg_status (*parse)(struct parser *p, struct jnode *n);
} statements[] = {
    {"if", parse_if}, {"for", parse_for}, {"set", parse_set}, {"macro", parse_macro}, {"call", parse_call_block}, {"filter", parse_filter_block},
    {"with", parse_with}, {"break", parse_jump}, {"continue", parse_jump}, {"generation", parse_generation}, {"block", parse_block},
    {"print", parse_print}, {"autoescape", parse_autoescape},
};

static kg_status parse_statement(struct parser *p, struct jnode **out)
{
    p->at++;
    if (p->at->type != T_NAME) return parse_unexpected(p, "the name of a statement");
    const struct jstr *name = p->at->value.u.s;
    for (size_t i = 0; i < COUNT_OF(statements); i++) {
        if (!jstr_is(name, statements[i].name)) continue;
        KG_TRY(parse_node(p, N_SCOPE, out));
        p->at++;
        return statements[i].parse(p, *out);
    }
    static const char *const known[] = {"include", "import", "from", "extends", "trans", "do", "debug"};
    for (size_t i = 0; i < COUNT_OF(known); i++)
        if (jstr_is(name, known[i])) return status_set(KG_ERR_UNSUPPORTED, "line %d: the statement '%s' is not supported", p->at->line, known[i]);
    return parse_fail(p, "unknown statement '%.*s'", (int)MIN(name->len, (size_t)40), name->ptr);
}

/* Statements until a block whose name is one of `until`, which stays; until "": the end of the template. */
static kg_status parse_body(struct parser *p, const char *until, struct jnode **out)
{
    KG_TRY(parse_enter(p));
    KG_TRY(parse_node(p, N_BODY, out));
    const struct jtoken *start = p->at;
    while (!at_block(p, until)) {
        struct jnode *n = NULL;
        if (p->at->type == T_END && !*until) break;
        if (p->at->type == T_END)
            return status_set(KG_ERR_FORMAT, "line %d: the block that begins here has no end (%s)", start[-1].line, strrchr(until, ' ') ? strrchr(until, ' ') + 1 : until);
        if (p->at->type == T_DATA) {
            KG_TRY(parse_node(p, N_DATA, &n));
            n->value = p->at->value;
            p->at++;
        } else if (p->at->type == T_VAR_BEGIN) {
            KG_TRY(parse_node(p, N_OUTPUT, &n));
            p->at++;
            KG_TRY(parse_tuple(p, true, &n->a));
            if (p->at->type != T_VAR_END) return parse_unexpected(p, "'}}'");
            p->at++;
        } else {
            KG_TRY(parse_statement(p, &n));
        }
        KG_TRY(parse_add(p, *out, n));
    }
    p->depth--;
    return KG_OK;
}

kg_status jinja_parse(struct jinja **out, const char *source, size_t n, const struct jinja_limits *limits)
{
    struct jlocale locale;
    *out = NULL;
    KG_TRY(jlocale_enter(&locale));
    struct jinja *t = calloc(1, sizeof *t);
    if (!t) {
        jlocale_leave(&locale);
        return status_set(KG_ERR_MEMORY, "out of memory");
    }
    t->mem.limits = limits ? limits : &jinja_default_limits;
    struct parser p = {.t = t};
    kg_status status = jinja_lex(t, source, n);
    p.at = t->tokens;
    if (status == KG_OK) status = parse_body(&p, "", &t->root);
    if (status == KG_OK)
        *out = t;
    else
        jinja_free(&t);
    jlocale_leave(&locale);
    return status;
}

void jinja_free(struct jinja **t)
{
    if (!t || !*t) return;
    arena_free(&(*t)->mem.arena);
    free(*t);
    *t = NULL;
}
