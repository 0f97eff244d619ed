/* Filters on single values: text, numbers, defaults. Those on sequences: jinja_sequence.c. */
#include "text/jinja_run.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define FN(name) static kg_status name(struct jctx *c, struct jval self, const struct jval *v, const struct jargs *args, struct jval *out)
#define UNUSED (void)c, (void)self, (void)v, (void)args

/* ---- text ---- */

static kg_status change_case(struct jctx *c, struct jval self, enum jstr_case how, struct jval *out)
{
    KG_TRY(jval_to_str(c->m, self, &self));
    return jstr_case(c->m, self, how, out);
}

FN(f_upper) { UNUSED; return change_case(c, self, CASE_UPPER, out); }
FN(f_lower) { UNUSED; return change_case(c, self, CASE_LOWER, out); }
FN(f_capitalize) { UNUSED; return change_case(c, self, CASE_CAPITALIZE, out); }
FN(f_title) { UNUSED; return change_case(c, self, CASE_TITLE_WORDS, out); }
FN(f_string) { UNUSED; return jval_to_str(c->m, self, out); }

FN(f_trim)
{
    UNUSED;
    const struct jstr *chars;
    KG_TRY(jarg_str(v[0], "trim: chars", &chars));
    KG_TRY(jval_to_str(c->m, self, &self));
    const char *s = self.u.s->ptr;
    size_t n = self.u.s->len;
    KG_TRY(jmem_steps(c->m, n / 16 + (chars ? chars->len / 16 * (n / 16) : 0)));
    jstr_strip(&s, &n, chars, true, true);
    return jval_str_at(c->m, s, n, out);
}

FN(f_replace)
{
    UNUSED;
    struct jval call[3] = {v[0], v[1], v[2]};
    static const struct jstr name = {"replace", 7, false};
    KG_TRY(jval_to_str(c->m, self, &self));
    if (call[2].type == J_NONE) call[2].type = J_MISSING;
    for (int i = 0; i < 2; i++) KG_TRY(jval_to_str(c->m, call[i], &call[i]));
    return jinja_find(jinja_str_methods, &name)->run(c, self, call, args, out);
}

FN(f_center)
{
    UNUSED;
    int64_t width;
    struct buf b = {0};
    KG_TRY(jarg_int(v[0], "center: width", 80, &width));
    KG_TRY(jval_to_str(c->m, self, &self));
    int64_t n = (int64_t)jstr_n_chars(self.u.s->ptr, self.u.s->len), pad = width > n ? width - n : 0;
    if (pad > 100000) return status_set(KG_ERR_UNSUPPORTED, "center: the width is too large");
    int64_t left = pad / 2 + (pad & width & 1); /* as str.center divides what is odd */
    kg_status status = buf_printf(&b, "%*s", (int)left, "");
    if (status == KG_OK) status = buf_append(&b, self.u.s->ptr, self.u.s->len);
    if (status == KG_OK) status = buf_printf(&b, "%*s", (int)(pad - left), "");
    if (status == KG_OK) return jval_str_of(c->m, &b, out);
    buf_free(&b);
    return status;
}

/* width? first? blank? */
FN(f_indent)
{
    UNUSED;
    struct jval pad = v[0];
    int64_t width = 4;
    KG_TRY(jval_to_str(c->m, self, &self));
    if (pad.type != J_STR) {
        char spaces[200];
        KG_TRY(jarg_int(pad, "indent: width", 4, &width));
        if (width > (int64_t)sizeof spaces) return status_set(KG_ERR_UNSUPPORTED, "indent: the width is too large");
        memset(spaces, ' ', sizeof spaces);
        KG_TRY(jval_str(c->m, spaces, width > 0 ? (size_t)width : 0, &pad));
    }
    bool first = jarg_truth(v[1], false), blank = jarg_truth(v[2], false);
    struct buf b = {0};
    kg_status status = jmem_steps(c->m, self.u.s->len / 16);
    for (size_t i = 0, line = 0; i <= self.u.s->len && status == KG_OK; line++) {
        const char *s = self.u.s->ptr + i, *nl = memchr(s, '\n', self.u.s->len - i);
        size_t n = nl ? (size_t)(nl - s) : self.u.s->len - i;
        if ((line > 0 || first) && (n > 0 || blank || line == 0)) status = buf_append(&b, pad.u.s->ptr, pad.u.s->len);
        if (status == KG_OK) status = buf_append(&b, s, n + (nl != NULL));
        if (status == KG_OK) status = jmem_room(c->m, &b);
        if (status == KG_OK) status = jmem_steps(c->m, 1);
        i += n + 1;
    }
    if (status == KG_OK) return jval_str_of(c->m, &b, out);
    buf_free(&b);
    return status;
}

/* length? killwords? end? leeway? */
FN(f_truncate)
{
    UNUSED;
    int64_t length, leeway;
    const struct jstr *end;
    static const struct jstr dots = {"...", 3, false};
    KG_TRY(jarg_int(v[0], "truncate: length", 255, &length));
    KG_TRY(jarg_str(v[2], "truncate: end", &end));
    KG_TRY(jarg_int(v[3], "truncate: leeway", 5, &leeway));
    KG_TRY(jval_to_str(c->m, self, &self));
    if (!end) end = &dots;
    const char *s = self.u.s->ptr;
    int64_t n_end = (int64_t)jstr_n_chars(end->ptr, end->len), n = (int64_t)jstr_n_chars(s, self.u.s->len);
    if (length < n_end || leeway < 0) return status_set(KG_ERR_FORMAT, "truncate: expected length >= %lld and leeway >= 0", (long long)n_end);
    *out = self;
    KG_TRY(jmem_steps(c->m, self.u.s->len / 16));
    if (n - leeway <= length) return KG_OK;
    size_t keep = jstr_offset(s, self.u.s->len, (size_t)(length - n_end));
    const char *space = jarg_truth(v[1], false) ? NULL : memrchr(s, ' ', keep);
    if (space) keep = (size_t)(space - s);
    struct buf b = {0};
    kg_status status = buf_append(&b, s, keep);
    if (status == KG_OK) status = buf_append(&b, end->ptr, end->len);
    if (status == KG_OK) return jval_str_of(c->m, &b, out);
    buf_free(&b);
    return status;
}

FN(f_wordcount)
{
    UNUSED;
    int64_t n;
    KG_TRY(jval_to_str(c->m, self, &self));
    KG_TRY(jstr_count_words(c->m, self.u.s, &n));
    *out = jval_int(n);
    return KG_OK;
}

FN(f_escape)
{
    UNUSED;
    KG_TRY(jval_to_str(c->m, self, &self));
    return jstr_escape_html(c->m, self.u.s, out);
}

static kg_status with_mark(struct jctx *c, struct jval text, bool safe, struct jval *out)
{
    struct jstr *s = jmem_alloc(c->m, 1, sizeof *s);
    if (!s) return jmem_failed(c->m);
    *s = (struct jstr){text.u.s->ptr, text.u.s->len, safe};
    *out = (struct jval){.type = J_STR, .u.s = s};
    return KG_OK;
}

FN(f_safe)
{
    UNUSED;
    KG_TRY(jval_to_str(c->m, self, &self));
    return with_mark(c, self, true, out);
}

FN(f_forceescape)
{
    UNUSED;
    KG_TRY(jval_to_str(c->m, self, &self));
    KG_TRY(with_mark(c, self, false, &self));
    return jstr_escape_html(c->m, self.u.s, out);
}

FN(f_format)
{
    UNUSED;
    struct jval values;
    KG_TRY(jval_to_str(c->m, self, &self));
    if (args->n && args->n_keywords) return status_set(KG_ERR_FORMAT, "format: positional and keyword arguments at the same time");
    if (args->n_keywords) {
        struct jdict *d;
        KG_TRY(jdict_new(c->m, &d));
        for (size_t i = 0; i < args->n_keywords; i++)
            KG_TRY(jdict_set(c->m, d, (struct jval){.type = J_STR, .u.s = args->keywords[i].name}, args->keywords[i].value));
        values = jval_dict(d);
    } else {
        struct jseq *s;
        KG_TRY(jseq_new(c->m, SEQ_TUPLE, args->n, &s));
        for (size_t i = 0; i < args->n; i++) KG_TRY(jseq_push(c->m, s, args->v[i]));
        values = jval_seq(s);
    }
    return jstr_format(c->m, self.u.s, values, out);
}

/* ---- numbers ---- */

FN(f_abs)
{
    UNUSED;
    if (self.type == J_UNDEFINED) return jinja_undefined_error(self);
    if (!jval_is_number(self)) return status_set(KG_ERR_FORMAT, "bad operand type for abs(): '%s'", jval_type_name(self));
    if (self.type == J_FLOAT) *out = jval_float(fabs(self.u.f));
    else return jval_double(self) < 0 ? jinja_unary(c->m, OP_NEG, self, out) : jinja_unary(c->m, OP_POS, self, out);
    return KG_OK;
}

/* The text as Python's int() and float() read it: white space around, underscores between digits. False: it is not a number. */
static bool plain_number(const struct jstr *s, char *text, size_t size)
{
    const char *p = s->ptr;
    size_t n = s->len, k = 0;
    jstr_strip(&p, &n, NULL, true, true);
    for (size_t i = 0; i < n; i++) {
        if (k == size - 1 || p[i] == 0) return false;
        bool between = p[i] == '_' && i > 0 && i + 1 < n && p[i - 1] != '_' && p[i + 1] != '_';
        if (p[i] == '_' && !between) return false;
        if (p[i] != '_') text[k++] = p[i];
    }
    text[k] = 0;
    return k > 0 && text[0] != ' ';
}

static bool parse_float(const struct jstr *s, double *out)
{
    char text[400], *end;
    if (!plain_number(s, text, sizeof text) || strpbrk(text, "xX(pP")) return false;
    *out = strtod(text, &end);
    return *end == 0;
}

static bool parse_int(const struct jstr *s, int base, int64_t *out)
{
    char text[100], *end, *p = text;
    if (!plain_number(s, text, sizeof text)) return false;
    bool negative = *p == '-';
    p += *p == '-' || *p == '+';
    if (*p == '0' && ((base == 2 && (p[1] == 'b' || p[1] == 'B')) || (base == 8 && (p[1] == 'o' || p[1] == 'O')))) p += 2;
    if (*p == '-' || *p == '+' || *p == ' ' || *p == 0) return false;
    errno = 0;
    long long n = strtoll(p, &end, base);
    *out = negative ? -n : n;
    return *end == 0 && errno == 0;
}

/* default? base? */
FN(f_int)
{
    UNUSED;
    int64_t i, base;
    double f;
    KG_TRY(jarg_int(v[1], "int: base", 10, &base));
    *out = v[0].type == J_MISSING ? jval_int(0) : v[0];
    if (self.type == J_UNDEFINED) return jinja_undefined_error(self);
    if (base < 2 || base > 36) return status_set(KG_ERR_UNSUPPORTED, "int: base %lld", (long long)base);
    if (self.type == J_INT || self.type == J_BOOL) *out = jval_int(self.type == J_INT ? self.u.i : self.u.b);
    else if (self.type == J_STR && parse_int(self.u.s, (int)base, &i)) *out = jval_int(i);
    else if (self.type == J_FLOAT || (self.type == J_STR && parse_float(self.u.s, &f))) {
        if (self.type == J_FLOAT) f = self.u.f;
        if (!isfinite(f)) return KG_OK;
        if (f >= 0x1p63 || f < -0x1p63) return status_set(KG_ERR_UNSUPPORTED, "an integer is too large");
        *out = jval_int((int64_t)f);
    }
    return KG_OK;
}

FN(f_float)
{
    UNUSED;
    double f;
    *out = v[0].type == J_MISSING ? jval_float(0) : v[0];
    if (self.type == J_UNDEFINED) return jinja_undefined_error(self);
    if (jval_is_number(self)) *out = jval_float(jval_double(self));
    else if (self.type == J_STR && parse_float(self.u.s, &f)) *out = jval_float(f);
    return KG_OK;
}

/* precision? method? */
FN(f_round)
{
    UNUSED;
    int64_t precision;
    const struct jstr *method;
    char text[400];
    KG_TRY(jarg_int(v[0], "round: precision", 0, &precision));
    KG_TRY(jarg_str(v[1], "round: method", &method));
    if (self.type == J_UNDEFINED) return jinja_undefined_error(self);
    if (!jval_is_number(self)) return status_set(KG_ERR_FORMAT, "round: '%s' is not a number", jval_type_name(self));
    if (precision < -15 || precision > 30) return status_set(KG_ERR_UNSUPPORTED, "round: precision %lld", (long long)precision);
    bool common = !method || jstr_is(method, "common");
    if (!common && !jstr_is(method, "ceil") && !jstr_is(method, "floor")) return status_set(KG_ERR_FORMAT, "round: method must be common, ceil or floor");
    double f = jval_double(self), scale = pow(10, (double)precision);
    if (!common) {
        *out = jval_float((jstr_is(method, "ceil") ? ceil(f * scale) : floor(f * scale)) / scale);
    } else if (self.type != J_FLOAT) {
        *out = precision >= 0 ? jval_int(self.type == J_INT ? self.u.i : self.u.b) : jval_int((int64_t)(rint(f * scale) / scale));
    } else if (precision > 0 && isfinite(f)) {
        snprintf(text, sizeof text, "%.*f", (int)precision, f); /* printf rounds the exact value, half to even, as Python does */
        *out = jval_float(strtod(text, NULL));
    } else {
        *out = jval_float(precision == 0 ? rint(f) : rint(f * scale) / scale);
    }
    return KG_OK;
}

/* ---- defaults ---- */

FN(f_default)
{
    UNUSED;
    bool missing = self.type == J_UNDEFINED || (jarg_truth(v[1], false) && !jval_truth(self));
    *out = self;
    if (missing && v[0].type == J_MISSING) return jval_text(c->m, "", out);
    if (missing) *out = v[0];
    return KG_OK;
}

const struct jfunction jinja_filters[] = {
    {"upper", "", f_upper},
    {"lower", "", f_lower},
    {"capitalize", "", f_capitalize},
    {"title", "", f_title},
    {"string", "", f_string},
    {"trim", "chars?", f_trim},
    {"replace", "old new count?", f_replace},
    {"center", "width?", f_center},
    {"indent", "width? first? blank?", f_indent},
    {"truncate", "length? killwords? end? leeway?", f_truncate},
    {"wordcount", "", f_wordcount},
    {"escape", "", f_escape},
    {"e", "", f_escape},
    {"forceescape", "", f_forceescape},
    {"safe", "", f_safe},
    {"format", NULL, f_format},
    {"abs", "", f_abs},
    {"int", "default? base?", f_int},
    {"float", "default?", f_float},
    {"round", "precision? method?", f_round},
    {"default", "default_value? boolean?", f_default},
    {"d", "default_value? boolean?", f_default},
    {"tojson", "ensure_ascii? indent? separators? sort_keys?", jinja_to_json},
    {NULL, NULL, NULL},
};
