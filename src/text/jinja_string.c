/* Text by characters: white space, case, repr() and the format operator. All strings are valid UTF-8. */
#include "text/jinja_value.h"
#include "text/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

enum { PATTERN_STEPS = 200 }; /* what compiling a pattern is worth */

size_t jstr_n_chars(const char *s, size_t n)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++) count += ((uint8_t)s[i] & 0xc0) != 0x80;
    return count;
}

size_t jstr_offset(const char *s, size_t n, size_t i)
{
    size_t at = 0;
    for (; at < n && i > 0; i--) {
        at++;
        while (at < n && ((uint8_t)s[at] & 0xc0) == 0x80) at++;
    }
    return at;
}

bool jstr_is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || (c >= 28 && c <= 32) || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
           c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

static bool strips(const char *s, size_t n, const struct jstr *chars)
{
    uint32_t c;
    if (chars) return memmem(chars->ptr, chars->len, s, n);
    return utf8_decode((const uint8_t *)s, n, &c) && jstr_is_space(c);
}

void jstr_strip(const char **s, size_t *n, const struct jstr *chars, bool left, bool right)
{
    while (left && *n > 0) {
        size_t k = jstr_offset(*s, *n, 1);
        if (!strips(*s, k, chars)) break;
        *s += k;
        *n -= k;
    }
    while (right && *n > 0) {
        size_t k = 1;
        while (k < *n && ((uint8_t)(*s)[*n - k] & 0xc0) == 0x80) k++;
        if (!strips(*s + *n - k, k, chars)) break;
        *n -= k;
    }
}

static bool is_ascii(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((uint8_t)s[i] >= 0x80) return false;
    return true;
}

static kg_status compile(struct jmem *m, const char *pattern, pcre2_code **re)
{
    int error;
    PCRE2_SIZE at;
    KG_TRY(jmem_steps(m, PATTERN_STEPS));
    *re = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP | PCRE2_DOTALL, &error, &at, NULL);
    return *re ? KG_OK : status_set(KG_ERR_MEMORY, "cannot compile the pattern %s", pattern);
}

/* ---- repr ---- */

/* Where the next character after `from` is that repr() escapes though it is not ASCII; n: nowhere. */
static size_t next_unprintable(const pcre2_code *re, pcre2_match_data *found, const struct jstr *s, size_t from)
{
    if (!re || pcre2_match(re, (PCRE2_SPTR)s->ptr, s->len, from, PCRE2_NO_UTF_CHECK, found, NULL) < 1) return s->len;
    return pcre2_get_ovector_pointer(found)[0];
}

static kg_status put_escaped(uint32_t c, char quote, struct buf *out)
{
    if (c == '\n') return buf_append(out, "\\n", 2);
    if (c == '\r') return buf_append(out, "\\r", 2);
    if (c == '\t') return buf_append(out, "\\t", 2);
    if (c == '\\' || c == (uint32_t)quote) return buf_printf(out, "\\%c", (int)c);
    return buf_printf(out, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", (unsigned)c);
}

kg_status jstr_repr(struct jmem *m, const struct jstr *s, struct buf *out)
{
    char quote = s->len && memchr(s->ptr, '\'', s->len) && !memchr(s->ptr, '"', s->len) ? '"' : '\'';
    pcre2_code *re = NULL;
    if (!is_ascii(s->ptr, s->len)) KG_TRY(compile(m, "(?=[^\\x00-\\x7f])[\\p{C}\\p{Z}]", &re));
    pcre2_match_data *found = re ? pcre2_match_data_create(1, NULL) : NULL;
    kg_status status = re && !found ? status_set(KG_ERR_MEMORY, "out of memory") : buf_append(out, &quote, 1);
    size_t bad = status == KG_OK ? next_unprintable(re, found, s, 0) : 0;
    for (size_t i = 0, k; i < s->len && status == KG_OK; i += k) {
        uint32_t c;
        k = utf8_decode((const uint8_t *)s->ptr + i, s->len - i, &c);
        if (k == 0) k = 1, c = 0xfffd;
        if (c < 0x20 || c == 0x7f || c == '\\' || c == (uint32_t)quote || i == bad)
            status = put_escaped(c, quote, out);
        else
            status = buf_append(out, s->ptr + i, k);
        if (i == bad) bad = next_unprintable(re, found, s, i + k);
    }
    pcre2_match_data_free(found);
    pcre2_code_free(re);
    return status == KG_OK ? buf_append(out, &quote, 1) : status;
}

kg_status jstr_replace(struct jmem *m, const struct jstr *of, const struct jstr *old, const struct jstr *by, int64_t most, struct jval *out)
{
    struct buf b = {0};
    const char *s = of->ptr, *at;
    size_t n = of->len;
    kg_status status = jmem_steps(m, n / 16);
    for (bool first = true; most != 0 && status == KG_OK; most--, first = false) {
        size_t skip = old->len == 0 && !first ? jstr_offset(s, n, 1) : 0; /* an empty one stands before every character and at the end */
        if (old->len == 0 && !first && n == 0) break;
        at = old->len ? memmem(s, n, old->ptr, old->len) : s + skip;
        if (!at) break;
        status = buf_append(&b, s, (size_t)(at - s));
        if (status == KG_OK) status = buf_append(&b, by->ptr, by->len);
        if (status == KG_OK) status = jmem_room(m, &b);
        if (status == KG_OK) status = jmem_steps(m, 1);
        n -= (size_t)(at - s) + old->len;
        s = at + old->len;
    }
    if (status == KG_OK) status = buf_append(&b, s, n);
    if (status == KG_OK) return jval_str_of(m, &b, out);
    buf_free(&b);
    return status;
}

/* ---- case ---- */

#define CASED "[\\p{Lu}\\p{Ll}\\p{Lt}]"
#define NO_BREAK "[^-\\s({\\[<]"
static const struct {
    const char *pattern, *to;
} cases[] = {
    [CASE_UPPER] = {".+", "\\U$0"},
    [CASE_LOWER] = {".+", "\\L$0"},
    [CASE_SWAP] = {"(\\p{Lu})|(\\p{Ll})", "${1:+\\L$1:\\U$2}"},
    [CASE_CAPITALIZE] = {"^(.)(.*)$", "\\u$1\\L$2"},
    [CASE_TITLE] = {"(" CASED ")(" CASED "*)", "\\u$1\\L$2"},
    [CASE_TITLE_WORDS] = {"(" NO_BREAK ")(" NO_BREAK "*)", "\\u$1\\L$2"},
};

kg_status jstr_case(struct jmem *m, struct jval v, enum jstr_case how, struct jval *out)
{
    const struct jstr *s = v.u.s;
    *out = v;
    if (s->len == 0) return KG_OK;
    KG_TRY(jmem_steps(m, s->len / 8));
    if (how <= CASE_LOWER && is_ascii(s->ptr, s->len)) {
        char *p = jmem_alloc(m, s->len, 1);
        if (!p) return jmem_failed(m);
        for (size_t i = 0; i < s->len; i++) {
            bool other = how == CASE_UPPER ? s->ptr[i] >= 'a' && s->ptr[i] <= 'z' : s->ptr[i] >= 'A' && s->ptr[i] <= 'Z';
            p[i] = (char)(other ? s->ptr[i] ^ 0x20 : s->ptr[i]);
        }
        return jval_str_at(m, p, s->len, out);
    }
    if (how == CASE_UPPER && memmem(s->ptr, s->len, "\xc3\x9f", 2)) { /* the one letter in wide use whose upper case is two */
        static const struct jstr sharp = {"\xc3\x9f", 2, false}, two = {"SS", 2, false};
        KG_TRY(jstr_replace(m, s, &sharp, &two, -1, &v));
        s = v.u.s;
    }
    pcre2_code *re;
    KG_TRY(compile(m, cases[how].pattern, &re));
    PCRE2_SIZE len = s->len * 3 + 16; /* a mapping makes at most three bytes of one or two */
    char *p = jmem_alloc(m, len, 1);
    int n = !p ? 0
               : pcre2_substitute(re, (PCRE2_SPTR)s->ptr, s->len, 0, PCRE2_NO_UTF_CHECK | PCRE2_SUBSTITUTE_GLOBAL | PCRE2_SUBSTITUTE_EXTENDED |
                                  PCRE2_SUBSTITUTE_UNSET_EMPTY, NULL, NULL, (PCRE2_SPTR)cases[how].to, PCRE2_ZERO_TERMINATED, (PCRE2_UCHAR *)p, &len);
    pcre2_code_free(re);
    if (!p) return jmem_failed(m);
    if (n < 0) return status_set(KG_ERR_UNSUPPORTED, "cannot change the case of a text (PCRE2 error %d)", n);
    return jval_str_at(m, p, len, out);
}

kg_status jstr_count_words(struct jmem *m, const struct jstr *s, int64_t *out)
{
    pcre2_code *re;
    *out = 0;
    KG_TRY(jmem_steps(m, s->len / 4));
    KG_TRY(compile(m, "\\w+", &re));
    pcre2_match_data *found = pcre2_match_data_create(1, NULL);
    for (size_t at = 0; found && pcre2_match(re, (PCRE2_SPTR)s->ptr, s->len, at, PCRE2_NO_UTF_CHECK, found, NULL) >= 1; ++*out)
        at = pcre2_get_ovector_pointer(found)[1];
    bool ok = found;
    pcre2_match_data_free(found);
    pcre2_code_free(re);
    return ok ? KG_OK : status_set(KG_ERR_MEMORY, "out of memory");
}

kg_status jstr_escape_html(struct jmem *m, const struct jstr *s, struct jval *out)
{
    static const struct {
        char c;
        const char *to;
    } entities[] = {{'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'"', "&#34;"}, {'\'', "&#39;"}};
    struct buf b = {0};
    kg_status status = s->safe ? buf_append(&b, s->ptr, s->len) : KG_OK;
    for (size_t i = 0; i < s->len && !s->safe && status == KG_OK; i++) {
        size_t e = 0;
        while (e < COUNT_OF(entities) && entities[e].c != s->ptr[i]) e++;
        status = e < COUNT_OF(entities) ? buf_append(&b, entities[e].to, strlen(entities[e].to)) : buf_append(&b, s->ptr + i, 1);
    }
    if (status == KG_OK) status = jmem_steps(m, s->len / 8);
    if (status != KG_OK) {
        buf_free(&b);
        return status;
    }
    KG_TRY(jval_str_of(m, &b, out));
    struct jstr *marked = jmem_alloc(m, 1, sizeof *marked);
    if (!marked) return jmem_failed(m);
    *marked = *out->u.s;
    marked->safe = true;
    out->u.s = marked;
    return KG_OK;
}

/* ---- the format operator ---- */

/* One conversion, e.g. "%-5.2f", as it is read from the format. */
struct conversion {
    char flags[8], letter;
    int width, precision; /* -1: none */
};

enum { MOST_WIDTH = 1000 };

static kg_status read_conversion(const struct jstr *f, size_t *at, struct conversion *c)
{
    *c = (struct conversion){.width = 0, .precision = -1};
    size_t i = *at, n = 0;
    while (i < f->len && n < sizeof c->flags - 1 && f->ptr[i] && strchr("-+ 0#", f->ptr[i])) c->flags[n++] = f->ptr[i++];
    while (i < f->len && f->ptr[i] >= '0' && f->ptr[i] <= '9' && c->width <= MOST_WIDTH) c->width = c->width * 10 + (f->ptr[i++] - '0');
    if (i < f->len && f->ptr[i] == '.') {
        c->precision = 0;
        for (i++; i < f->len && f->ptr[i] >= '0' && f->ptr[i] <= '9' && c->precision <= MOST_WIDTH;) c->precision = c->precision * 10 + (f->ptr[i++] - '0');
    }
    if (i >= f->len) return status_set(KG_ERR_FORMAT, "incomplete format");
    if (c->width > MOST_WIDTH || c->precision > MOST_WIDTH) return status_set(KG_ERR_UNSUPPORTED, "a format wider than %d characters", MOST_WIDTH);
    c->letter = f->ptr[i];
    *at = i + 1;
    return c->letter && strchr("sradiufFeEgGxXoc", c->letter) ? KG_OK : status_set(KG_ERR_UNSUPPORTED, "unsupported format character '%c'", c->letter);
}

static kg_status put_padded(const struct conversion *c, const char *s, size_t n, struct buf *out)
{
    if (c->precision >= 0) n = jstr_offset(s, n, (size_t)c->precision);
    size_t chars = jstr_n_chars(s, n), pad = chars < (size_t)c->width ? (size_t)c->width - chars : 0;
    bool left = strchr(c->flags, '-');
    if (!left) KG_TRY(buf_printf(out, "%*s", (int)pad, ""));
    KG_TRY(buf_append(out, s, n));
    return left ? buf_printf(out, "%*s", (int)pad, "") : KG_OK;
}

static kg_status put_number(const struct conversion *c, struct jval v, struct buf *out)
{
    char format[24];
    if (!jval_is_number(v)) return status_set(KG_ERR_FORMAT, "%%%c format: a number is required, not %s", c->letter, jval_type_name(v));
    int precision = c->precision;
    if (strchr("fFeEgG", c->letter)) {
        if (precision < 0) precision = 6;
        snprintf(format, sizeof format, "%%%s*.*%c", c->flags, c->letter);
        return buf_printf(out, format, c->width, precision, jval_double(v)); /* NOLINT: the format is built above */
    }
    if (v.type == J_FLOAT && (c->letter == 'x' || c->letter == 'X' || c->letter == 'o' || !(v.u.f > -9e18 && v.u.f < 9e18)))
        return status_set(KG_ERR_FORMAT, "%%%c format: an integer is required, not float", c->letter);
    long long i = v.type == J_INT ? v.u.i : v.type == J_BOOL ? v.u.b : (long long)v.u.f;
    if (i < 0 && strchr("xXo", c->letter)) return status_set(KG_ERR_UNSUPPORTED, "a negative number in hexadecimal or octal");
    snprintf(format, sizeof format, "%%%s*.*ll%c", c->flags, c->letter == 'i' || c->letter == 'u' ? 'd' : c->letter);
    return buf_printf(out, format, c->width, precision, i);
}

static kg_status put_conversion(struct jmem *m, const struct conversion *c, struct jval v, struct buf *out)
{
    if (c->letter == 'c') {
        if (v.type == J_STR && jstr_n_chars(v.u.s->ptr, v.u.s->len) == 1) return put_padded(c, v.u.s->ptr, v.u.s->len, out);
        return status_set(KG_ERR_FORMAT, "%%c requires a single character");
    }
    if (!strchr("sra", c->letter)) return put_number(c, v, out);
    struct buf text = {0};
    kg_status status = c->letter == 's' ? jval_print(m, v, &text) : jval_repr(m, v, 0, &text);
    if (status == KG_OK) status = put_padded(c, text.data ? text.data : "", text.len, out);
    buf_free(&text);
    return status;
}

static kg_status format_into(struct jmem *m, const struct jstr *f, struct jval args, struct buf *out)
{
    bool many = jval_is_seq(args, SEQ_TUPLE);
    size_t next = 0, n_args = many ? args.u.seq->n : 1;
    for (size_t i = 0; i < f->len;) {
        const char *percent = memchr(f->ptr + i, '%', f->len - i);
        size_t k = percent ? (size_t)(percent - f->ptr) - i : f->len - i;
        KG_TRY(buf_append(out, f->ptr + i, k));
        KG_TRY(jmem_steps(m, 1 + k / 64));
        KG_TRY(jmem_room(m, out));
        if (!percent) break;
        i += k + 1;
        if (i < f->len && f->ptr[i] == '%') {
            KG_TRY(buf_append(out, "%", 1));
            i++;
            continue;
        }
        struct jval v = args;
        if (i < f->len && f->ptr[i] == '(') {
            const char *end = memchr(f->ptr + i, ')', f->len - i);
            struct jpair *p = end && args.type == J_DICT ? jdict_find_str(args.u.dict, f->ptr + i + 1, (size_t)(end - f->ptr) - i - 1) : NULL;
            if (!p) return status_set(KG_ERR_FORMAT, "format: a named value is missing");
            v = p->value;
            i = (size_t)(end - f->ptr) + 1;
            n_args = next = 0;
        } else {
            if (next >= n_args) return status_set(KG_ERR_FORMAT, "not enough arguments for format string");
            if (many) v = args.u.seq->items[next];
            next++;
        }
        struct conversion c;
        KG_TRY(read_conversion(f, &i, &c));
        KG_TRY(put_conversion(m, &c, v, out));
    }
    bool subscripted = args.type == J_DICT || args.type == J_UNDEFINED || (args.type == J_SEQ && !many); /* Python takes these for mappings */
    if (next < n_args && !subscripted) return status_set(KG_ERR_FORMAT, "not all arguments converted during string formatting");
    return KG_OK;
}

kg_status jstr_format(struct jmem *m, const struct jstr *format, struct jval args, struct jval *out)
{
    struct buf b = {0};
    kg_status status = format_into(m, format, args, &b);
    if (status == KG_OK) return jval_str_of(m, &b, out);
    buf_free(&b);
    return status;
}
