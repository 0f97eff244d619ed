/* Inside of a rendering: its state, scopes, calls, and the tables of filters, tests, methods and global functions. */
#ifndef TEXT_JINJA_RUN_H
#define TEXT_JINJA_RUN_H

#include "text/jinja_ast.h"

struct jscope {
    struct jscope *parent; /* NULL: the template's outermost; behind it come the variables, then the global functions */
    struct jvar {
        const struct jstr *name;
        struct jval value;
    } * vars; /* [n] */
    size_t n, cap;
    bool kept; /* a macro was defined in it, or further inside */
};

struct jmacro {
    const struct jnode *node;
    struct jscope *scope; /* where it was defined */
};

struct jloop {
    const struct jnode *node;
    struct jscope *outer;
    struct jseq *items;
    size_t i;
    int depth; /* 0: not called by itself */
    struct jval changed; /* what loop.changed saw last */
};

struct jctx {
    struct jmem *m;
    struct jinja_render *r;
    struct jscope *scope;
    struct buf *out;
    size_t pending; /* bytes in all buffers that are being filled */
    int depth;
    enum { RUN_ON, RUN_BREAK, RUN_CONTINUE } signal;
    struct jval input; /* of the filters behind a block */
    bool located;      /* the message names its line already */
};

struct jkeyword {
    const struct jstr *name;
    struct jval value;
};
struct jargs {
    struct jval *v; /* [n] */
    size_t n;
    struct jkeyword *keywords; /* [n_keywords] */
    size_t n_keywords;
};

/* A filter, test, method or global function. `signature` names its parameters, "?" behind those that may be missing; they come in v,
 * J_MISSING where not given. NULL: v is unused, it reads args. self: the value before | or ".", or what is tested. */
enum { MOST_PARAMETERS = 6 };
struct jfunction {
    const char *name, *signature;
    kg_status (*run)(struct jctx *c, struct jval self, const struct jval *v, const struct jargs *args, struct jval *out);
};

/* jinja_exec.c */
kg_status jinja_exec(struct jctx *c, const struct jnode *n);
kg_status jinja_call_macro(struct jctx *c, const struct jmacro *macro, const struct jargs *args, struct jval *out);
kg_status jinja_call_loop(struct jctx *c, const struct jloop *loop, struct jval items, struct jval *out);

/* jinja_eval.c */
kg_status jinja_enter(struct jctx *c); /* one level deeper; c->depth-- leaves it */
kg_status jinja_eval(struct jctx *c, const struct jnode *n, struct jval *out);
kg_status jinja_arguments(struct jctx *c, const struct jnode *n, struct jargs *out);
kg_status jinja_attribute(struct jctx *c, struct jval of, struct jval name, struct jval *out);
kg_status jinja_item(struct jctx *c, struct jval of, struct jval key, struct jval *out);
kg_status jinja_call(struct jctx *c, struct jval callee, const struct jargs *args, struct jval *out);
kg_status jinja_located(struct jctx *c, kg_status status, int line); /* adds the line to the message, once */

/* jinja_call.c */
kg_status jinja_run_function(struct jctx *c, const struct jfunction *f, struct jval self, const struct jargs *args, struct jval *out);
const struct jfunction *jinja_find(const struct jfunction *table, const struct jstr *name); /* NULL: not there */
bool jinja_global(const struct jstr *name, struct jval *out);
kg_status jinja_filter(struct jctx *c, const struct jstr *name, struct jval in, const struct jargs *args, struct jval *out);
kg_status jinja_test(struct jctx *c, const struct jstr *name, struct jval in, const struct jargs *args, bool *out);
const struct jfunction *jinja_method(struct jval of, const struct jstr *name);
/* Arguments of filters and methods: missing ones are the default. Wrong types are errors that name `what`. */
kg_status jarg_int(struct jval v, const char *what, int64_t missing, int64_t *out);
kg_status jarg_str(struct jval v, const char *what, const struct jstr **out); /* NULL: missing or none */
static inline bool jarg_truth(struct jval v, bool missing) { return v.type == J_MISSING ? missing : jval_truth(v); }
/* "a.b.0" or an integer, as map(attribute=...) has it. */
kg_status jinja_path(struct jctx *c, struct jval of, struct jval path, struct jval *out);

/* jinja_op.c: operators. */
kg_status jinja_operate(struct jmem *m, int op, struct jval a, struct jval b, struct jval *out);
kg_status jinja_compare(struct jmem *m, int op, struct jval a, struct jval b, bool *out);
kg_status jinja_unary(struct jmem *m, int op, struct jval a, struct jval *out);
kg_status jinja_slice(struct jmem *m, struct jval of, const struct jval part[3], struct jval *out);
kg_status jinja_undefined_error(struct jval v);

/* jinja_sort.c: stable; keys[i] belongs to items[i]. */
kg_status jinja_sort(struct jmem *m, struct jval *items, struct jval *keys, size_t n, bool reverse);

/* jinja_json.c */
kg_status jinja_to_json(struct jctx *c, struct jval self, const struct jval *v, const struct jargs *args, struct jval *out);

/* Tables end in a row without a name. */
extern const struct jfunction jinja_filters[], jinja_sequence_filters[], jinja_tests[];
extern const struct jfunction jinja_str_methods[], jinja_list_methods[], jinja_tuple_methods[], jinja_dict_methods[], jinja_loop_methods[];

#endif
