/* The values that templates compute with: those of Python, with its rules of truth, equality, order and text. They live in the
 * memory of one rendering and are freed with it at once. */
#ifndef TEXT_JINJA_VALUE_H
#define TEXT_JINJA_VALUE_H

#include "base/base.h"

#include <locale.h>

/* What one template or one rendering may use. Sizes in bytes; a step is about one evaluation of a small expression. */
struct jinja_limits {
    size_t memory, output;
    uint64_t steps;
    int depth; /* of expressions, blocks, calls and values in each other */
};
extern const struct jinja_limits jinja_default_limits;

/* Numbers and dates are written and read as in the C locale, whatever the program has set: between these two, for this thread. */
struct jlocale {
    locale_t plain, before;
};
kg_status jlocale_enter(struct jlocale *l);
void jlocale_leave(struct jlocale *l);

/* Zero-initialised but for `limits` is ready to use. */
struct jmem {
    const struct jinja_limits *limits;
    struct arena arena;
    char *at;
    size_t left, used;
    uint64_t steps;
    bool failed; /* the limit of memory was met */
};
/* Zeroed, aligned for any value; NULL (message set) beyond the limit. */
void *jmem_alloc(struct jmem *m, size_t n, size_t item_bytes);
kg_status jmem_steps(struct jmem *m, uint64_t n); /* KG_ERR_UNSUPPORTED beyond the limit */

/* A text being built must stay within the limit of memory too. */
kg_status jmem_room(const struct jmem *m, const struct buf *b);
/* What a NULL of jmem_alloc means: beyond the limit, or the system has no more. The message is set. */
static inline kg_status jmem_failed(const struct jmem *m) { return m->failed ? KG_ERR_UNSUPPORTED : KG_ERR_MEMORY; }

enum jtype {
    J_MISSING, /* an argument that was not given; templates never see it */
    J_UNDEFINED,
    J_NONE,
    J_BOOL,
    J_INT,
    J_FLOAT,
    J_STR,
    J_SEQ,
    J_DICT,
    J_NAMESPACE,
    J_MACRO,
    J_FUNCTION,
    J_METHOD,
    J_LOOP,
    J_N_TYPES
};

/* UTF-8, not NUL-terminated. */
struct jstr {
    const char *ptr;
    size_t len;
    bool safe; /* marked by the filters safe and escape */
};

struct jval {
    enum jtype type;
    union {
        bool b;
        int64_t i;
        double f;
        const struct jstr *s; /* of J_UNDEFINED: what is undefined, as a sentence */
        struct jseq *seq;
        struct jdict *dict; /* of J_NAMESPACE too */
        struct jmacro *macro;
        const struct jfunction *function;
        const struct jbound *bound;
        struct jloop *loop;
    } u;
};

enum jseq_kind { SEQ_LIST, SEQ_TUPLE, SEQ_RANGE, SEQ_KEYS, SEQ_VALUES, SEQ_ITEMS, SEQ_ITERATOR };
/* Anything with items in a row. An iterator gives them out once: those before `taken` are gone. */
struct jseq {
    enum jseq_kind kind;
    struct jval *items; /* [n] */
    size_t n, cap, taken;
};

struct jpair {
    struct jval key, value;
    uint64_t hash;
};
/* Keeps the order of insertion. */
struct jdict {
    struct jpair *pairs; /* [n] */
    size_t n, cap;
    uint32_t *index; /* [mask + 1]: number of a pair, plus 1; NULL while there are few */
    size_t mask;
};

/* A method and the value that it belongs to. */
struct jbound {
    struct jval self;
    const struct jfunction *function;
};

static inline struct jval jval_none(void) { return (struct jval){.type = J_NONE}; }
static inline struct jval jval_bool(bool b) { return (struct jval){.type = J_BOOL, .u.b = b}; }
static inline struct jval jval_int(int64_t i) { return (struct jval){.type = J_INT, .u.i = i}; }
static inline struct jval jval_float(double f) { return (struct jval){.type = J_FLOAT, .u.f = f}; }
static inline struct jval jval_seq(struct jseq *s) { return (struct jval){.type = J_SEQ, .u.seq = s}; }
static inline struct jval jval_dict(struct jdict *d) { return (struct jval){.type = J_DICT, .u.dict = d}; }
static inline bool jval_is_number(struct jval v) { return v.type == J_BOOL || v.type == J_INT || v.type == J_FLOAT; }
static inline double jval_double(struct jval v) { return v.type == J_FLOAT ? v.u.f : v.type == J_INT ? (double)v.u.i : v.u.b; }
static inline bool jstr_is(const struct jstr *s, const char *text) { return s->len == strlen(text) && memcmp(s->ptr, text, s->len) == 0; }
static inline bool jval_is_seq(struct jval v, enum jseq_kind kind) { return v.type == J_SEQ && v.u.seq->kind == kind; }

/* Copies the bytes. jval_str_at does not: they must live as long as the rendering. */
kg_status jval_str(struct jmem *m, const char *s, size_t n, struct jval *out);
kg_status jval_str_at(struct jmem *m, const char *s, size_t n, struct jval *out);
kg_status jval_text(struct jmem *m, const char *text, struct jval *out); /* jval_str of a C string */
/* Takes the bytes of b, and frees it, also on failure. */
kg_status jval_str_of(struct jmem *m, struct buf *b, struct jval *out);
kg_status jval_undefined(struct jmem *m, struct jval *out, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

kg_status jseq_new(struct jmem *m, enum jseq_kind kind, size_t cap, struct jseq **out);
kg_status jseq_push(struct jmem *m, struct jseq *s, struct jval v);
kg_status jseq_pair(struct jmem *m, struct jval a, struct jval b, struct jval *out); /* the tuple (a, b) */

kg_status jdict_new(struct jmem *m, struct jdict **out);
kg_status jdict_set(struct jmem *m, struct jdict *d, struct jval key, struct jval value);
kg_status jdict_set_text(struct jmem *m, struct jdict *d, const char *key, struct jval value);
/* *out NULL: not there. Keys that have no hash (lists, dicts) are an error. */
kg_status jdict_find(struct jmem *m, const struct jdict *d, struct jval key, struct jpair **out);
struct jpair *jdict_find_str(const struct jdict *d, const char *s, size_t n); /* NULL: not there */
kg_status jdict_remove(struct jmem *m, struct jdict *d, struct jpair *pair);
/* Keys, values or items as a new sequence of the kind. */
kg_status jdict_list(struct jmem *m, const struct jdict *d, enum jseq_kind what, struct jval *out);

const char *jval_type_name(struct jval v);
bool jval_truth(struct jval v);
kg_status jval_equal(struct jmem *m, struct jval a, struct jval b, bool *out);
kg_status jval_order(struct jmem *m, struct jval a, struct jval b, int *out); /* below, at or above 0; error where Python has no order */
kg_status jval_contains(struct jmem *m, struct jval in, struct jval what, bool *out);
/* The items that a loop would see, as a new sequence or the value's own: not to be changed. Empties an iterator. */
kg_status jval_items(struct jmem *m, struct jval v, struct jseq **out);
kg_status jval_length(struct jval v, int64_t *out); /* error where Python has none */

/* As str() and repr() write it. */
kg_status jval_print(struct jmem *m, struct jval v, struct buf *out);
kg_status jval_repr(struct jmem *m, struct jval v, int depth, struct buf *out);
kg_status jval_to_str(struct jmem *m, struct jval v, struct jval *out);
/* Shortest decimal that reads back as v, in Python's form; out has room for 40. */
void jfloat_text(double v, char *out);

/* jinja_string.c: text by characters. */
size_t jstr_n_chars(const char *s, size_t n);
/* Byte offset of character i. */
size_t jstr_offset(const char *s, size_t n, size_t i);
bool jstr_is_space(uint32_t c); /* as str.isspace */
void jstr_strip(const char **s, size_t *n, const struct jstr *chars, bool left, bool right); /* chars NULL: white space */
kg_status jstr_repr(struct jmem *m, const struct jstr *s, struct buf *out);
/* Upper, lower and title case; of characters beyond ASCII the simple mappings of Unicode. */
enum jstr_case { CASE_UPPER, CASE_LOWER, CASE_SWAP, CASE_CAPITALIZE, CASE_TITLE, CASE_TITLE_WORDS };
kg_status jstr_case(struct jmem *m, struct jval v, enum jstr_case how, struct jval *out);
kg_status jstr_replace(struct jmem *m, const struct jstr *of, const struct jstr *old, const struct jstr *by, int64_t most, struct jval *out); /* most -1: all */
kg_status jstr_count_words(struct jmem *m, const struct jstr *s, int64_t *out);
kg_status jstr_escape_html(struct jmem *m, const struct jstr *s, struct jval *out); /* marked safe */
/* printf as Python has it: format % args. */
kg_status jstr_format(struct jmem *m, const struct jstr *format, struct jval args, struct jval *out);

#endif
