/* The parser's state, and what statements (jinja_parser.c) and expressions (jinja_expr.c) share. */
#ifndef TEXT_JINJA_PARSE_H
#define TEXT_JINJA_PARSE_H

#include "text/jinja_ast.h"

#include <stdio.h>

struct parser {
    struct jinja *t;
    const struct jtoken *at;
    int depth;
    int loops;      /* around this place, within the same macro */
    int macro_uses; /* of the macro being read: bits of enum jmacro_use */
};

/* Errors begin with the line of the token at hand. */
kg_status parse_fail(const struct parser *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
kg_status parse_unexpected(const struct parser *p, const char *wanted); /* NULL: nothing in particular */
kg_status parse_enter(struct parser *p); /* one level deeper; p->depth-- leaves it */
kg_status parse_node(struct parser *p, enum jnode_type type, struct jnode **out);
kg_status parse_add(struct parser *p, struct jnode *to, struct jnode *item);

bool parse_is(const struct parser *p, const char *op);
bool parse_is_name(const struct parser *p, const char *name);
bool parse_skip(struct parser *p, const char *op);
bool parse_skip_name(struct parser *p, const char *name);
kg_status parse_expect(struct parser *p, const char *op);
kg_status parse_name(struct parser *p, struct jval *out);

kg_status parse_expression(struct parser *p, struct jnode **out);
/* An expression, or several with commas between, which make a tuple. conditional: "a if b" is part of it. */
kg_status parse_tuple(struct parser *p, bool conditional, struct jnode **out);
/* | name | name(...) ... of `input`; named: the first one stands without its |. */
kg_status parse_filters(struct parser *p, struct jnode *input, bool named, struct jnode **out);

#endif
