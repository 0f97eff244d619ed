/* Parses expressions, by precedence: a if b else c, or, and, not, comparisons, + -, ~, * / // %, **, signs, what follows a value. */
#include "text/jinja_parse.h"

static kg_status parse_unary(struct parser *p, bool with_filters, struct jnode **out);
static kg_status parse_or(struct parser *p, struct jnode **out);
static kg_status parse_primary(struct parser *p, struct jnode **out);
static kg_status parse_postfix(struct parser *p, struct jnode **io);

static kg_status binary(struct parser *p, int op, struct jnode *a, struct jnode *b, struct jnode **out)
{
    KG_TRY(parse_node(p, N_BINARY, out));
    (*out)->op = op;
    (*out)->line = a->line;
    (*out)->a = a;
    (*out)->b = b;
    return KG_OK;
}

static kg_status unary(struct parser *p, int op, struct jnode *a, struct jnode **out)
{
    KG_TRY(parse_node(p, N_UNARY, out));
    (*out)->op = op;
    (*out)->line = a->line;
    (*out)->a = a;
    return KG_OK;
}

/* ---- from weak to strong ---- */

kg_status parse_expression(struct parser *p, struct jnode **out)
{
    KG_TRY(parse_enter(p));
    KG_TRY(parse_or(p, out));
    int levels = 1;
    while (parse_skip_name(p, "if")) {
        struct jnode *n;
        KG_TRY(parse_enter(p));
        levels++;
        KG_TRY(parse_node(p, N_COND, &n));
        n->b = *out;
        KG_TRY(parse_or(p, &n->a));
        if (parse_skip_name(p, "else")) KG_TRY(parse_expression(p, &n->c));
        *out = n;
    }
    p->depth -= levels;
    return KG_OK;
}

static kg_status parse_not(struct parser *p, struct jnode **out);

static kg_status parse_and(struct parser *p, struct jnode **out)
{
    KG_TRY(parse_not(p, out));
    while (parse_skip_name(p, "and")) {
        struct jnode *b;
        KG_TRY(parse_not(p, &b));
        KG_TRY(binary(p, OP_AND, *out, b, out));
    }
    return KG_OK;
}

static kg_status parse_or(struct parser *p, struct jnode **out)
{
    KG_TRY(parse_and(p, out));
    while (parse_skip_name(p, "or")) {
        struct jnode *b;
        KG_TRY(parse_and(p, &b));
        KG_TRY(binary(p, OP_OR, *out, b, out));
    }
    return KG_OK;
}

static kg_status parse_math1(struct parser *p, struct jnode **out);

static bool compare_op(struct parser *p, int *op)
{
    static const struct {
        const char *text;
        int op;
    } ops[] = {{"==", OP_EQ}, {"!=", OP_NE}, {"<", OP_LT}, {"<=", OP_LE}, {">", OP_GT}, {">=", OP_GE}};
    for (size_t i = 0; i < COUNT_OF(ops); i++) {
        *op = ops[i].op;
        if (parse_skip(p, ops[i].text)) return true;
    }
    *op = OP_IN;
    if (parse_skip_name(p, "in")) return true;
    *op = OP_NOT_IN;
    if (!parse_is_name(p, "not") || p->at[1].type != T_NAME || !jstr_is(p->at[1].value.u.s, "in")) return false;
    p->at += 2;
    return true;
}

static kg_status parse_compare(struct parser *p, struct jnode **out)
{
    struct jnode *n = NULL;
    int op;
    KG_TRY(parse_math1(p, out));
    while (compare_op(p, &op)) {
        struct jnode *operand;
        if (!n) {
            KG_TRY(parse_node(p, N_COMPARE, &n));
            n->line = (*out)->line;
            n->a = *out;
        }
        KG_TRY(parse_node(p, N_OPERAND, &operand));
        operand->op = op;
        KG_TRY(parse_math1(p, &operand->a));
        KG_TRY(parse_add(p, n, operand));
        *out = n;
    }
    return KG_OK;
}

static kg_status parse_not(struct parser *p, struct jnode **out)
{
    if (!parse_skip_name(p, "not")) return parse_compare(p, out);
    KG_TRY(parse_enter(p));
    KG_TRY(parse_not(p, out));
    p->depth--;
    return unary(p, OP_NOT, *out, out);
}

static kg_status parse_pow(struct parser *p, struct jnode **out)
{
    KG_TRY(parse_unary(p, true, out));
    while (parse_skip(p, "**")) {
        struct jnode *b;
        KG_TRY(parse_unary(p, true, &b));
        KG_TRY(binary(p, OP_POW, *out, b, out));
    }
    return KG_OK;
}

static kg_status parse_math2(struct parser *p, struct jnode **out)
{
    KG_TRY(parse_pow(p, out));
    for (;;) {
        int op = parse_skip(p, "*") ? OP_MUL : parse_skip(p, "//") ? OP_FLOORDIV : parse_skip(p, "/") ? OP_DIV : parse_skip(p, "%") ? OP_MOD : -1;
        struct jnode *b;
        if (op < 0) return KG_OK;
        KG_TRY(parse_pow(p, &b));
        KG_TRY(binary(p, op, *out, b, out));
    }
}

static kg_status parse_concat(struct parser *p, struct jnode **out)
{
    struct jnode *n = NULL, *item;
    KG_TRY(parse_math2(p, out));
    while (parse_skip(p, "~")) {
        if (!n) {
            KG_TRY(parse_node(p, N_CONCAT, &n));
            KG_TRY(parse_add(p, n, *out));
        }
        KG_TRY(parse_math2(p, &item));
        KG_TRY(parse_add(p, n, item));
        *out = n;
    }
    return KG_OK;
}

static kg_status parse_math1(struct parser *p, struct jnode **out)
{
    KG_TRY(parse_concat(p, out));
    for (;;) {
        int op = parse_skip(p, "+") ? OP_ADD : parse_skip(p, "-") ? OP_SUB : -1;
        struct jnode *b;
        if (op < 0) return KG_OK;
        KG_TRY(parse_concat(p, &b));
        KG_TRY(binary(p, op, *out, b, out));
    }
}

/* ---- what follows a value ---- */

static kg_status parse_arguments(struct parser *p, struct jnode *call)
{
    KG_TRY(parse_expect(p, "("));
    while (!parse_skip(p, ")")) {
        struct jnode *n;
        if (call->n > 0) KG_TRY(parse_expect(p, ","));
        if (call->n > 0 && parse_skip(p, ")")) break;
        KG_TRY(parse_node(p, N_ARG, &n));
        if (parse_skip(p, "**")) {
            n->op = ARG_DICT;
        } else if (parse_skip(p, "*")) {
            n->op = ARG_LIST;
        } else if (p->at->type == T_NAME && p->at[1].type == T_OP && strcmp(p->at[1].op, "=") == 0) {
            n->op = ARG_KEYWORD;
            n->value = p->at->value;
            p->at += 2;
        }
        KG_TRY(parse_expression(p, &n->a));
        KG_TRY(parse_add(p, call, n));
    }
    return KG_OK;
}

static kg_status parse_call(struct parser *p, struct jnode *callee, struct jnode **out)
{
    KG_TRY(parse_node(p, N_CALL, out));
    (*out)->a = callee;
    return parse_arguments(p, *out);
}

/* Inside of [ ]: an index, or start:stop:step. */
static kg_status parse_index(struct parser *p, struct jnode **out)
{
    struct jnode *parts[3] = {NULL, NULL, NULL}, *n;
    int colons = 0;
    for (;;) {
        if (parse_is(p, ":") && colons < 2) {
            colons++;
            p->at++;
            continue;
        }
        if (parse_is(p, "]") || parse_is(p, ",")) break;
        if (parts[colons]) return parse_unexpected(p, "']'");
        KG_TRY(parse_expression(p, &parts[colons]));
    }
    *out = parts[0];
    if (colons == 0 && !parts[0]) return parse_node(p, N_TUPLE, out); /* a[] is a[()] */
    if (colons == 0) return KG_OK;
    KG_TRY(parse_node(p, N_SLICE, &n));
    n->a = parts[0];
    n->b = parts[1];
    n->c = parts[2];
    *out = n;
    return KG_OK;
}

static kg_status parse_subscript(struct parser *p, struct jnode *of, struct jnode **out)
{
    if (parse_skip(p, ".")) {
        if (p->at->type == T_NAME) {
            KG_TRY(parse_node(p, N_ATTR, out));
            (*out)->value = p->at->value;
        } else if (p->at->type == T_INT) {
            KG_TRY(parse_node(p, N_ITEM, out));
            KG_TRY(parse_node(p, N_CONST, &(*out)->b));
            (*out)->b->value = p->at->value;
        } else {
            return parse_unexpected(p, "a name or number after '.'");
        }
        (*out)->a = of;
        p->at++;
        return KG_OK;
    }
    struct jnode *n, *first, *more;
    KG_TRY(parse_expect(p, "["));
    KG_TRY(parse_node(p, N_ITEM, &n));
    n->a = of;
    KG_TRY(parse_index(p, &first));
    n->b = first;
    if (parse_is(p, ",")) {
        if (first->type == N_SLICE) return parse_unexpected(p, "']'");
        KG_TRY(parse_node(p, N_TUPLE, &n->b));
        KG_TRY(parse_add(p, n->b, first));
        while (parse_skip(p, ",") && !parse_is(p, "]")) {
            KG_TRY(parse_expression(p, &more));
            KG_TRY(parse_add(p, n->b, more));
        }
    }
    *out = n;
    return parse_expect(p, "]");
}

/* Each of them makes the tree one level deeper, as a bracket would. */
static kg_status parse_postfix(struct parser *p, struct jnode **io)
{
    int levels = 0;
    for (;; levels++) {
        if (parse_is(p, ".") || parse_is(p, "[")) KG_TRY(parse_subscript(p, *io, io));
        else if (parse_is(p, "(")) KG_TRY(parse_call(p, *io, io));
        else break;
        KG_TRY(parse_enter(p));
    }
    p->depth -= levels;
    return KG_OK;
}

/* name or name.name ... of a filter or test. */
static kg_status parse_dotted(struct parser *p, struct jval *out)
{
    KG_TRY(parse_name(p, out));
    return parse_is(p, ".") ? parse_fail(p, "there are no filters or tests with a '.' in their name") : KG_OK;
}

static kg_status parse_test(struct parser *p, struct jnode *of, struct jnode **out)
{
    struct jnode *n;
    bool negated = parse_skip_name(p, "not");
    KG_TRY(parse_node(p, N_TEST, &n));
    n->a = of;
    KG_TRY(parse_dotted(p, &n->value));
    bool literal = p->at->type == T_STRING || p->at->type == T_INT || p->at->type == T_FLOAT || parse_is(p, "[") || parse_is(p, "{");
    bool name = p->at->type == T_NAME && !parse_is_name(p, "else") && !parse_is_name(p, "or") && !parse_is_name(p, "and");
    if (parse_is(p, "(")) {
        KG_TRY(parse_arguments(p, n));
    } else if (literal || (name && !parse_is_name(p, "if") && !parse_is_name(p, "in") && !parse_is_name(p, "not"))) {
        struct jnode *arg;
        if (parse_is_name(p, "is")) return parse_fail(p, "tests cannot be chained with 'is'");
        KG_TRY(parse_node(p, N_ARG, &arg));
        KG_TRY(parse_primary(p, &arg->a));
        KG_TRY(parse_postfix(p, &arg->a));
        KG_TRY(parse_add(p, n, arg));
    }
    *out = n;
    return negated ? unary(p, OP_NOT, n, out) : KG_OK;
}

kg_status parse_filters(struct parser *p, struct jnode *input, bool named, struct jnode **out)
{
    int levels = 0;
    for (*out = input; named || parse_is(p, "|"); named = false) {
        struct jnode *n;
        if (!named) p->at++;
        KG_TRY(parse_enter(p));
        levels++;
        KG_TRY(parse_node(p, N_FILTER, &n));
        n->a = *out;
        KG_TRY(parse_dotted(p, &n->value));
        if (parse_is(p, "(")) KG_TRY(parse_arguments(p, n));
        *out = n;
    }
    p->depth -= levels;
    return KG_OK;
}

/* Filters, tests and calls of what they give. */
static kg_status parse_filter_expression(struct parser *p, struct jnode **io)
{
    int levels = 0;
    for (;; levels++) {
        if (parse_is(p, "|")) KG_TRY(parse_filters(p, *io, false, io));
        else if (parse_skip_name(p, "is")) KG_TRY(parse_test(p, *io, io));
        else if (parse_is(p, "(")) KG_TRY(parse_call(p, *io, io));
        else break;
        KG_TRY(parse_enter(p));
    }
    p->depth -= levels;
    return KG_OK;
}

/* ---- values ---- */

static kg_status constant(struct parser *p, struct jval v, struct jnode **out)
{
    KG_TRY(parse_node(p, N_CONST, out));
    (*out)->value = v;
    p->at++;
    return KG_OK;
}

static kg_status parse_word(struct parser *p, struct jnode **out)
{
    if (parse_is_name(p, "true") || parse_is_name(p, "True")) return constant(p, jval_bool(true), out);
    if (parse_is_name(p, "false") || parse_is_name(p, "False")) return constant(p, jval_bool(false), out);
    if (parse_is_name(p, "none") || parse_is_name(p, "None")) return constant(p, jval_none(), out);
    static const struct {
        const char *name;
        int use;
    } uses[] = {{"varargs", USES_VARARGS}, {"kwargs", USES_KWARGS}, {"caller", USES_CALLER}};
    for (size_t i = 0; i < COUNT_OF(uses); i++)
        if (parse_is_name(p, uses[i].name)) p->macro_uses |= uses[i].use;
    KG_TRY(parse_node(p, N_NAME, out));
    return parse_name(p, &(*out)->value);
}

static kg_status parse_strings(struct parser *p, struct jnode **out)
{
    if (p->at[1].type != T_STRING) return constant(p, p->at->value, out);
    struct buf b = {0};
    kg_status status = parse_node(p, N_CONST, out);
    for (; status == KG_OK && p->at->type == T_STRING; p->at++) status = buf_append(&b, p->at->value.u.s->ptr, p->at->value.u.s->len);
    if (status == KG_OK) return jval_str_of(&p->t->mem, &b, &(*out)->value);
    buf_free(&b);
    return status;
}

/* [ ] or { }, the opening bracket is at hand. */
static kg_status parse_display(struct parser *p, struct jnode **out)
{
    bool dict = parse_is(p, "{");
    const char *end = dict ? "}" : "]";
    struct jnode *n, *item;
    KG_TRY(parse_node(p, dict ? N_DICT : N_LIST, &n));
    p->at++;
    while (!parse_skip(p, end)) {
        if (n->n > 0) KG_TRY(parse_expect(p, ","));
        if (n->n > 0 && parse_skip(p, end)) break;
        KG_TRY(parse_expression(p, &item));
        KG_TRY(parse_add(p, n, item));
        if (!dict) continue;
        KG_TRY(parse_expect(p, ":"));
        KG_TRY(parse_expression(p, &item));
        KG_TRY(parse_add(p, n, item));
    }
    *out = n;
    return KG_OK;
}

static kg_status parse_primary(struct parser *p, struct jnode **out)
{
    switch (p->at->type) {
    case T_NAME: return parse_word(p, out);
    case T_STRING: return parse_strings(p, out);
    case T_INT:
    case T_FLOAT: return constant(p, p->at->value, out);
    default: break;
    }
    if (parse_is(p, "[") || parse_is(p, "{")) return parse_display(p, out);
    if (!parse_skip(p, "(")) return parse_unexpected(p, NULL);
    if (parse_skip(p, ")")) return parse_node(p, N_TUPLE, out);
    KG_TRY(parse_tuple(p, true, out));
    return parse_expect(p, ")");
}

static kg_status parse_unary(struct parser *p, bool with_filters, struct jnode **out)
{
    KG_TRY(parse_enter(p));
    if (parse_skip(p, "-") || parse_skip(p, "+")) {
        int op = strcmp(p->at[-1].op, "-") == 0 ? OP_NEG : OP_POS;
        KG_TRY(parse_unary(p, false, out));
        KG_TRY(unary(p, op, *out, out));
    } else {
        KG_TRY(parse_primary(p, out));
    }
    KG_TRY(parse_postfix(p, out));
    if (with_filters) KG_TRY(parse_filter_expression(p, out));
    p->depth--;
    return KG_OK;
}

kg_status parse_tuple(struct parser *p, bool conditional, struct jnode **out)
{
    struct jnode *n = NULL, *item;
    for (;;) {
        KG_TRY(conditional ? parse_expression(p, &item) : parse_or(p, &item));
        if (n) KG_TRY(parse_add(p, n, item));
        if (!parse_is(p, ",")) break;
        if (!n) {
            KG_TRY(parse_node(p, N_TUPLE, &n));
            KG_TRY(parse_add(p, n, item));
        }
        p->at++;
        if (p->at->type == T_VAR_END || p->at->type == T_BLOCK_END || parse_is(p, ")")) break;
    }
    *out = n ? n : item;
    return KG_OK;
}
