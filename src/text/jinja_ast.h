/* Inside of the engine: tokens, and the tree that the parser makes of them. */
#ifndef TEXT_JINJA_AST_H
#define TEXT_JINJA_AST_H

#include "text/jinja.h"

/* ---- tokens ---- */

enum jtoken_type { T_DATA, T_NAME, T_STRING, T_INT, T_FLOAT, T_OP, T_VAR_BEGIN, T_VAR_END, T_BLOCK_BEGIN, T_BLOCK_END, T_END };
struct jtoken {
    enum jtoken_type type;
    int line;
    struct jval value; /* of data, names, strings and numbers */
    char op[3];        /* of T_OP: "+", "//", "==" ... */
};

struct jinja {
    struct jmem mem;
    struct jtoken *tokens; /* [n_tokens], the last one T_END */
    size_t n_tokens;
    struct jnode *root;
};

/* jinja_lexer.c: fills t->tokens. */
kg_status jinja_lex(struct jinja *t, const char *source, size_t n);

/* ---- tree ---- */

enum jnode_type {
    /* expressions */
    N_CONST,   /* value */
    N_NAME,    /* value: its name */
    N_LIST,    /* list */
    N_TUPLE,   /* list */
    N_DICT,    /* list: key, value, key, value ... */
    N_UNARY,   /* op a */
    N_BINARY,  /* a op b */
    N_CONCAT,  /* list, joined by ~ */
    N_COMPARE, /* a, list of N_OPERAND */
    N_OPERAND, /* op a */
    N_COND,    /* b if a else c; c may be NULL */
    N_ATTR,    /* a.value */
    N_ITEM,    /* a[b] */
    N_SLICE,   /* a:b:c, any of them NULL; stands in b of N_ITEM */
    N_CALL,    /* a(list of N_ARG) */
    N_ARG,     /* a; op: enum jarg_kind; value: the keyword */
    N_FILTER,  /* a | value(list of N_ARG); a NULL: what a block produced */
    N_TEST,    /* a is value(list of N_ARG) */
    /* statements */
    N_DATA,         /* value */
    N_OUTPUT,       /* a */
    N_BODY,         /* list of statements */
    N_IF,           /* list: condition, N_BODY, condition, N_BODY ...; c: N_BODY of else or NULL */
    N_FOR,          /* for a in b if c: list of two: N_BODY, N_BODY of else or NULL; op: 1 if recursive */
    N_SET,          /* a = b */
    N_SET_BLOCK,    /* a = what c (N_BODY) produces, through the filters b (may be NULL) */
    N_MACRO,        /* value(list of N_PARAM) c (N_BODY); op: bits of enum jmacro_use */
    N_PARAM,        /* value = a (NULL: no default) */
    N_CALL_BLOCK,   /* a: N_CALL; b: N_MACRO, which becomes caller() */
    N_FILTER_BLOCK, /* what c (N_BODY) produces through the filters a */
    N_WITH,         /* list of N_SET; c: N_BODY */
    N_SCOPE,        /* c: N_BODY whose variables do not leave it */
    N_BREAK,
    N_CONTINUE,
};

enum jarg_kind { ARG_POSITIONAL, ARG_KEYWORD, ARG_LIST, ARG_DICT };
enum jmacro_use { USES_VARARGS = 1, USES_KWARGS = 2, USES_CALLER = 4 };
enum jop { OP_ADD, OP_SUB, OP_MUL, OP_DIV, OP_FLOORDIV, OP_MOD, OP_POW, OP_AND, OP_OR, OP_NOT, OP_NEG, OP_POS, OP_EQ, OP_NE, OP_LT, OP_LE, OP_GT, OP_GE, OP_IN, OP_NOT_IN };

struct jnode {
    enum jnode_type type;
    int line, op;
    struct jval value;
    struct jnode *a, *b, *c;
    struct jnode **list; /* [n] */
    size_t n, cap;
};

#endif
