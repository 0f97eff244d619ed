/* Operators: arithmetic, comparison, slices. Integers have 64 bits: what does not fit is an error. */
#include "text/jinja_run.h"

#include <math.h>

kg_status jinja_undefined_error(struct jval v) { return status_set(KG_ERR_FORMAT, "%.*s", (int)MIN(v.u.s->len, (size_t)200), v.u.s->ptr); }

static kg_status no_operator(const char *sign, struct jval a, struct jval b)
{
    return status_set(KG_ERR_FORMAT, "unsupported operand types for %s: '%s' and '%s'", sign, jval_type_name(a), jval_type_name(b));
}

static const char *sign_of(int op)
{
    static const char *const signs[] = {"+", "-", "*", "/", "//", "%", "**"};
    return signs[op];
}

static kg_status add_strings(struct jmem *m, struct jval a, struct jval b, struct jval *out)
{
    bool safe = a.u.s->safe || b.u.s->safe;
    if (safe && !a.u.s->safe) KG_TRY(jstr_escape_html(m, a.u.s, &a));
    if (safe && !b.u.s->safe) KG_TRY(jstr_escape_html(m, b.u.s, &b));
    size_t n = a.u.s->len, k = b.u.s->len;
    char *p = jmem_alloc(m, n + k, 1);
    struct jstr *s = p ? jmem_alloc(m, 1, sizeof *s) : NULL;
    if (!s) return jmem_failed(m);
    if (n) memcpy(p, a.u.s->ptr, n);
    if (k) memcpy(p + n, b.u.s->ptr, k);
    *s = (struct jstr){p, n + k, safe};
    *out = (struct jval){.type = J_STR, .u.s = s};
    return jmem_steps(m, (n + k) / 64);
}

static kg_status add_seqs(struct jmem *m, const struct jseq *a, const struct jseq *b, struct jval *out)
{
    struct jseq *s;
    KG_TRY(jseq_new(m, a->kind, a->n + b->n, &s));
    for (size_t i = 0; i < a->n; i++) KG_TRY(jseq_push(m, s, a->items[i]));
    for (size_t i = 0; i < b->n; i++) KG_TRY(jseq_push(m, s, b->items[i]));
    *out = jval_seq(s);
    return KG_OK;
}

static kg_status repeat(struct jmem *m, struct jval what, int64_t times, struct jval *out)
{
    size_t n = times > 0 ? (size_t)times : 0, len;
    if (what.type == J_STR) {
        if (__builtin_mul_overflow(n, what.u.s->len, &len)) len = SIZE_MAX;
        char *p = jmem_alloc(m, len, 1);
        if (!p) return jmem_failed(m);
        if (what.u.s->len == 0) n = 0;
        for (size_t i = 0; i < n; i++) memcpy(p + i * what.u.s->len, what.u.s->ptr, what.u.s->len);
        KG_TRY(jmem_steps(m, n));
        return jval_str_at(m, p, n * what.u.s->len, out);
    }
    struct jseq *s;
    if (__builtin_mul_overflow(n, what.u.seq->n, &len)) len = SIZE_MAX;
    KG_TRY(jseq_new(m, what.u.seq->kind, len, &s));
    for (size_t i = 0; i < len; i++) KG_TRY(jseq_push(m, s, what.u.seq->items[i % what.u.seq->n]));
    *out = jval_seq(s);
    return KG_OK;
}

static bool is_repeatable(struct jval v) { return v.type == J_STR || jval_is_seq(v, SEQ_LIST) || jval_is_seq(v, SEQ_TUPLE); }

static int64_t as_int(struct jval v) { return v.type == J_INT ? v.u.i : v.u.b; }

static kg_status int_power(int64_t a, int64_t b, int64_t *out)
{
    int64_t r = 1;
    for (bool overflow = false;; b >>= 1) {
        if (b & 1) overflow = __builtin_mul_overflow(r, a, &r);
        if (overflow) return status_set(KG_ERR_UNSUPPORTED, "an integer is too large");
        if (b <= 1) break;
        if (__builtin_mul_overflow(a, a, &a)) return status_set(KG_ERR_UNSUPPORTED, "an integer is too large");
    }
    *out = r;
    return KG_OK;
}

static kg_status operate_ints(int op, int64_t a, int64_t b, struct jval *out)
{
    int64_t r = 0;
    bool overflow = false;
    if ((op == OP_DIV || op == OP_FLOORDIV || op == OP_MOD) && b == 0) return status_set(KG_ERR_FORMAT, "division by zero");
    switch (op) {
    case OP_ADD: overflow = __builtin_add_overflow(a, b, &r); break;
    case OP_SUB: overflow = __builtin_sub_overflow(a, b, &r); break;
    case OP_MUL: overflow = __builtin_mul_overflow(a, b, &r); break;
    case OP_DIV: *out = jval_float((double)a / (double)b); return KG_OK;
    case OP_FLOORDIV:
        if (b == -1) overflow = __builtin_sub_overflow(0, a, &r);
        else r = a / b - (a % b != 0 && (a < 0) != (b < 0));
        break;
    case OP_MOD:
        r = b == -1 ? 0 : a % b;
        if (r != 0 && (r < 0) != (b < 0)) r += b;
        break;
    default:
        if (b < 0 && a == 0) return status_set(KG_ERR_FORMAT, "division by zero");
        if (b < 0) {
            *out = jval_float(pow((double)a, (double)b));
            return KG_OK;
        }
        KG_TRY(int_power(a, b, &r));
    }
    *out = jval_int(r);
    return overflow ? status_set(KG_ERR_UNSUPPORTED, "an integer is too large") : KG_OK;
}

static kg_status operate_floats(int op, double a, double b, struct jval *out)
{
    double r;
    if ((op == OP_DIV || op == OP_FLOORDIV || op == OP_MOD) && b == 0) return status_set(KG_ERR_FORMAT, "division by zero");
    switch (op) {
    case OP_ADD: r = a + b; break;
    case OP_SUB: r = a - b; break;
    case OP_MUL: r = a * b; break;
    case OP_DIV: r = a / b; break;
    case OP_FLOORDIV: r = floor(a / b); break;
    case OP_MOD:
        r = fmod(a, b);
        if (r != 0 && (r < 0) != (b < 0)) r += b;
        break;
    default: r = pow(a, b);
    }
    *out = jval_float(r);
    return KG_OK;
}

kg_status jinja_operate(struct jmem *m, int op, struct jval a, struct jval b, struct jval *out)
{
    if (a.type == J_UNDEFINED) return jinja_undefined_error(a);
    if (op == OP_MOD && a.type == J_STR) return jstr_format(m, a.u.s, b, out);
    if (b.type == J_UNDEFINED) return jinja_undefined_error(b);
    if (jval_is_number(a) && jval_is_number(b)) {
        if (a.type == J_FLOAT || b.type == J_FLOAT) return operate_floats(op, jval_double(a), jval_double(b), out);
        return operate_ints(op, as_int(a), as_int(b), out);
    }
    if (op == OP_ADD && a.type == J_STR && b.type == J_STR) return add_strings(m, a, b, out);
    if (op == OP_ADD && a.type == J_STR)
        return status_set(KG_ERR_FORMAT, "can only concatenate str (not \"%s\") to str", jval_type_name(b));
    if (op == OP_ADD && a.type == J_SEQ && b.type == J_SEQ && a.u.seq->kind == b.u.seq->kind && a.u.seq->kind <= SEQ_TUPLE)
        return add_seqs(m, a.u.seq, b.u.seq, out);
    if (op == OP_MUL && is_repeatable(a) && (b.type == J_INT || b.type == J_BOOL)) return repeat(m, a, as_int(b), out);
    if (op == OP_MUL && is_repeatable(b) && (a.type == J_INT || a.type == J_BOOL)) return repeat(m, b, as_int(a), out);
    return no_operator(sign_of(op), a, b);
}

kg_status jinja_compare(struct jmem *m, int op, struct jval a, struct jval b, bool *out)
{
    int order;
    switch (op) {
    case OP_EQ: return jval_equal(m, a, b, out);
    case OP_NE:
        KG_TRY(jval_equal(m, a, b, out));
        *out = !*out;
        return KG_OK;
    case OP_IN: return jval_contains(m, b, a, out);
    case OP_NOT_IN:
        KG_TRY(jval_contains(m, b, a, out));
        *out = !*out;
        return KG_OK;
    default: break;
    }
    KG_TRY(jval_order(m, a, b, &order));
    bool nan = (a.type == J_FLOAT && isnan(a.u.f)) || (b.type == J_FLOAT && isnan(b.u.f));
    *out = !nan && (op == OP_LT ? order < 0 : op == OP_LE ? order <= 0 : op == OP_GT ? order > 0 : order >= 0);
    return KG_OK;
}

kg_status jinja_unary(struct jmem *m, int op, struct jval a, struct jval *out)
{
    if (op == OP_NOT) {
        *out = jval_bool(!jval_truth(a));
        return KG_OK;
    }
    if (a.type == J_UNDEFINED) return jinja_undefined_error(a);
    if (!jval_is_number(a)) return status_set(KG_ERR_FORMAT, "bad operand type for unary %s: '%s'", op == OP_NEG ? "-" : "+", jval_type_name(a));
    if (a.type == J_FLOAT) {
        *out = jval_float(op == OP_NEG ? -a.u.f : a.u.f);
        return KG_OK;
    }
    return jinja_operate(m, op == OP_NEG ? OP_SUB : OP_ADD, jval_int(0), a, out);
}

/* ---- slices ---- */

static kg_status bound(struct jval v, int64_t n, int64_t missing, bool backward, int64_t *out)
{
    *out = missing;
    if (v.type == J_NONE || v.type == J_MISSING) return KG_OK;
    if (v.type != J_INT && v.type != J_BOOL) return status_set(KG_ERR_FORMAT, "slice indices must be integers or None, not %s", jval_type_name(v));
    int64_t i = as_int(v), low = backward ? -1 : 0;
    if (i < 0) i = i < -n ? low : MAX(i + n, low);
    *out = MIN(i, backward ? n - 1 : n);
    return KG_OK;
}

kg_status jinja_slice(struct jmem *m, struct jval of, const struct jval part[3], struct jval *out)
{
    if (of.type == J_UNDEFINED) return jinja_undefined_error(of);
    bool text = of.type == J_STR;
    if (!text && (of.type != J_SEQ || of.u.seq->kind > SEQ_RANGE)) return status_set(KG_ERR_FORMAT, "'%s' object cannot be sliced", jval_type_name(of));
    struct jseq *items, *s;
    int64_t start, stop, step = 1;
    if (part[2].type == J_INT || part[2].type == J_BOOL) step = as_int(part[2]);
    else if (part[2].type != J_NONE && part[2].type != J_MISSING) return status_set(KG_ERR_FORMAT, "slice indices must be integers or None");
    if (step == 0) return status_set(KG_ERR_FORMAT, "slice step cannot be zero");
    int64_t n = text ? (int64_t)jstr_n_chars(of.u.s->ptr, of.u.s->len) : (int64_t)of.u.seq->n;
    KG_TRY(bound(part[0], n, step > 0 ? 0 : n - 1, step < 0, &start));
    KG_TRY(bound(part[1], n, step > 0 ? n : -1, step < 0, &stop));
    if (text && step == 1) {
        size_t from = jstr_offset(of.u.s->ptr, of.u.s->len, (size_t)start);
        size_t len = start < stop ? jstr_offset(of.u.s->ptr + from, of.u.s->len - from, (size_t)(stop - start)) : 0;
        KG_TRY(jmem_steps(m, of.u.s->len / 16));
        return jval_str_at(m, of.u.s->ptr + from, len, out);
    }
    KG_TRY(jval_items(m, of, &items));
    KG_TRY(jseq_new(m, text ? SEQ_LIST : items->kind, 0, &s));
    for (int64_t i = start; step > 0 ? i < stop : i > stop; i += step) {
        KG_TRY(jseq_push(m, s, items->items[i]));
        if (step > n || step < -n) break; /* the sum could overflow */
    }
    *out = jval_seq(s);
    if (!text) return KG_OK;
    struct buf b = {0};
    kg_status status = KG_OK;
    for (size_t i = 0; i < s->n && status == KG_OK; i++) status = buf_append(&b, s->items[i].u.s->ptr, s->items[i].u.s->len);
    if (status == KG_OK) return jval_str_of(m, &b, out);
    buf_free(&b);
    return status;
}
