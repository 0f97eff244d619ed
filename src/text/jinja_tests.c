/* Tests: what stands behind "is". */
#include "text/jinja_run.h"

#define FN(name) static kg_status name(struct jctx *c, struct jval self, const struct jval *v, const struct jargs *args, struct jval *out)
#define UNUSED (void)c, (void)self, (void)v, (void)args
/* A test that is one expression over self and v. */
#define TEST(name, expression)        \
    FN(name)                          \
    {                                 \
        UNUSED;                       \
        *out = jval_bool(expression); \
        return KG_OK;                 \
    }

TEST(is_defined, self.type != J_UNDEFINED)
TEST(is_undefined, self.type == J_UNDEFINED)
TEST(is_none, self.type == J_NONE)
TEST(is_boolean, self.type == J_BOOL)
TEST(is_true, self.type == J_BOOL && self.u.b)
TEST(is_false, self.type == J_BOOL && !self.u.b)
TEST(is_integer, self.type == J_INT)
TEST(is_float, self.type == J_FLOAT)
TEST(is_number, jval_is_number(self))
TEST(is_string, self.type == J_STR)
TEST(is_mapping, self.type == J_DICT)
TEST(is_iterable, self.type == J_STR || self.type == J_SEQ || self.type == J_DICT || self.type == J_UNDEFINED || self.type == J_LOOP)
TEST(is_sequence, self.type == J_STR || (self.type == J_SEQ && self.u.seq->kind <= SEQ_RANGE) || self.type == J_DICT || self.type == J_UNDEFINED)
TEST(is_callable, self.type >= J_MACRO || self.type == J_UNDEFINED)
TEST(is_escaped, self.type == J_STR && self.u.s->safe)
TEST(is_filter, self.type == J_STR && (jinja_find(jinja_filters, self.u.s) || jinja_find(jinja_sequence_filters, self.u.s)))
TEST(is_test, self.type == J_STR && jinja_find(jinja_tests, self.u.s))

static kg_status compare(struct jctx *c, int op, struct jval a, struct jval b, struct jval *out)
{
    bool is;
    KG_TRY(jinja_compare(c->m, op, a, b, &is));
    *out = jval_bool(is);
    return KG_OK;
}

#define COMPARISON(name, op)                     \
    FN(name)                                     \
    {                                            \
        UNUSED;                                  \
        return compare(c, op, self, v[0], out);  \
    }
COMPARISON(is_eq, OP_EQ)
COMPARISON(is_ne, OP_NE)
COMPARISON(is_lt, OP_LT)
COMPARISON(is_le, OP_LE)
COMPARISON(is_gt, OP_GT)
COMPARISON(is_ge, OP_GE)
COMPARISON(is_in, OP_IN)

static kg_status remainder_is(struct jctx *c, struct jval a, struct jval b, int64_t wanted, struct jval *out)
{
    struct jval r;
    if (a.type == J_STR) return status_set(KG_ERR_FORMAT, "a number is needed, not a string");
    KG_TRY(jinja_operate(c->m, OP_MOD, a, b, &r));
    return compare(c, OP_EQ, r, jval_int(wanted), out);
}

FN(is_odd) { UNUSED; return remainder_is(c, self, jval_int(2), 1, out); }
FN(is_even) { UNUSED; return remainder_is(c, self, jval_int(2), 0, out); }
FN(is_divisible) { UNUSED; return remainder_is(c, self, v[0], 0, out); }

/* The same object; of numbers and strings, which have no identity here, the same value and type. */
FN(is_same)
{
    UNUSED;
    bool same = self.type == v[0].type;
    if (same && (self.type == J_SEQ || self.type == J_DICT)) same = self.u.seq == v[0].u.seq;
    else if (same) KG_TRY(jval_equal(c->m, self, v[0], &same));
    *out = jval_bool(same);
    return KG_OK;
}

/* All characters that have a case are in it, and there is one. */
static kg_status is_case(struct jctx *c, struct jval self, enum jstr_case how, struct jval *out)
{
    struct jval text, same, other;
    bool in_case, no_case;
    KG_TRY(jval_to_str(c->m, self, &text));
    KG_TRY(jstr_case(c->m, text, how, &same));
    KG_TRY(jstr_case(c->m, text, how == CASE_UPPER ? CASE_LOWER : CASE_UPPER, &other));
    KG_TRY(jval_equal(c->m, text, same, &in_case));
    KG_TRY(jval_equal(c->m, text, other, &no_case));
    *out = jval_bool(in_case && !no_case);
    return KG_OK;
}

FN(is_upper) { UNUSED; return is_case(c, self, CASE_UPPER, out); }
FN(is_lower) { UNUSED; return is_case(c, self, CASE_LOWER, out); }

const struct jfunction jinja_tests[] = {
    {"defined", "", is_defined},
    {"undefined", "", is_undefined},
    {"none", "", is_none},
    {"boolean", "", is_boolean},
    {"true", "", is_true},
    {"false", "", is_false},
    {"integer", "", is_integer},
    {"float", "", is_float},
    {"number", "", is_number},
    {"string", "", is_string},
    {"mapping", "", is_mapping},
    {"iterable", "", is_iterable},
    {"sequence", "", is_sequence},
    {"callable", "", is_callable},
    {"escaped", "", is_escaped},
    {"filter", "", is_filter},
    {"test", "", is_test},
    {"eq", "other", is_eq},
    {"equalto", "other", is_eq},
    {"==", "other", is_eq},
    {"ne", "other", is_ne},
    {"!=", "other", is_ne},
    {"lt", "other", is_lt},
    {"lessthan", "other", is_lt},
    {"<", "other", is_lt},
    {"le", "other", is_le},
    {"<=", "other", is_le},
    {"gt", "other", is_gt},
    {"greaterthan", "other", is_gt},
    {">", "other", is_gt},
    {"ge", "other", is_ge},
    {">=", "other", is_ge},
    {"in", "seq", is_in},
    {"odd", "", is_odd},
    {"even", "", is_even},
    {"divisibleby", "num", is_divisible},
    {"sameas", "other", is_same},
    {"upper", "", is_upper},
    {"lower", "", is_lower},
    {NULL, NULL, NULL},
};
