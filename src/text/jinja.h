/* Chat templates are Jinja: this is an engine for the language as jinja2 defines it, with the settings of transformers
 * (trim_blocks, lstrip_blocks, break and continue, {% generation %}), bounded in time, memory, depth and output.
 * A template is parsed once (jinja_lexer.c, jinja_parser.c) and rendered any number of times (jinja_exec.c, jinja_eval.c). */
#ifndef TEXT_JINJA_H
#define TEXT_JINJA_H

#include "text/jinja_value.h"

struct jinja; /* a parsed template: immutable */

/* Copies the source. Errors begin with "line N: ". limits NULL: the default ones. */
kg_status jinja_parse(struct jinja **out, const char *source, size_t n, const struct jinja_limits *limits);
void jinja_free(struct jinja **t);

/* One rendering: build the variables in it, then render. Zero-initialise, set mem.limits. */
struct jinja_render {
    struct jmem mem;
    struct jdict *variables;
    int64_t now;  /* what strftime_now tells, seconds since 1970 ... */
    bool now_set; /* ... instead of the clock */
    struct buf out;
    struct jseq *integers; /* 0, 1, 2 ...: ranges are parts of it */
};
kg_status jinja_render_start(struct jinja_render *r, const struct jinja_limits *limits);
/* JSON text as a value; `what` is for messages. */
kg_status jinja_from_json(struct jmem *m, const char *json, const char *what, struct jval *out);
kg_status jinja_render(struct jinja_render *r, const struct jinja *t); /* appends to r->out; errors begin with "line N: " */
void jinja_render_free(struct jinja_render *r);

#endif
