/* Cuts a template into tokens: text, and what stands in {{ }} and {% %}. Owns the rules of white space: trim_blocks (the line end
 * after a block goes), lstrip_blocks (so do the spaces between a line's start and a block), and the signs - and +. */
#include "text/jinja_ast.h"
#include "text/utf8.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

struct lexer {
    struct jinja *t;
    const char *s; /* [n] */
    size_t n, at;
    int line;
    bool line_start; /* what was read last ended in a line end */
    size_t cap;
    char *brackets; /* [limits->depth]: those that are open, as what closes them */
};

static kg_status fail_at(int line, const char *what) { return status_set(KG_ERR_FORMAT, "line %d: %s", line, what); }

static kg_status push(struct lexer *l, struct jtoken token)
{
    struct jinja *t = l->t;
    if (t->n_tokens == l->cap) {
        size_t cap = MAX(l->cap * 2, (size_t)64);
        struct jtoken *more = jmem_alloc(&t->mem, cap, sizeof *more);
        if (!more) return jmem_failed(&t->mem);
        if (t->n_tokens) memcpy(more, t->tokens, t->n_tokens * sizeof *more);
        t->tokens = more;
        l->cap = cap;
    }
    t->tokens[t->n_tokens++] = token;
    return KG_OK;
}

static kg_status push_text(struct lexer *l, enum jtoken_type type, int line, const char *s, size_t n)
{
    struct jtoken token = {.type = type, .line = line};
    KG_TRY(jval_str(&l->t->mem, s, n, &token.value));
    return push(l, token);
}

/* Goes on to `to`, counting lines. */
static void advance(struct lexer *l, size_t to)
{
    if (to > l->at) l->line_start = l->s[to - 1] == '\n';
    for (; l->at < to; l->at++) l->line += l->s[l->at] == '\n';
}

/* Bytes of white space at `at`. */
static size_t spaces(const struct lexer *l, size_t at)
{
    const char *s = l->s + at;
    size_t n = l->n - at, left = n;
    jstr_strip(&s, &left, NULL, true, false);
    return n - left;
}

static bool starts(const struct lexer *l, size_t at, const char *text)
{
    size_t k = strlen(text);
    return l->n - at >= k && memcmp(l->s + at, text, k) == 0;
}

/* Position after the end of a block or comment whose closing `mark` (with sign) is at `at`, its white space included. */
static size_t after_end(const struct lexer *l, size_t at, char sign)
{
    if (sign == '-') return at + spaces(l, at);
    return sign != '+' && at < l->n && l->s[at] == '\n' ? at + 1 : at;
}

/* The text before a mark, less what its sign or lstrip_blocks takes away. */
static kg_status push_data(struct lexer *l, size_t end, char sign, bool lstrip)
{
    const char *s = l->s + l->at;
    size_t n = end - l->at;
    if (sign == '-') {
        jstr_strip(&s, &n, NULL, false, true);
    } else if (sign != '+' && lstrip && n > 0) {
        const char *nl = memrchr(s, '\n', n), *line = nl ? nl + 1 : s, *rest = line;
        size_t left = n - (size_t)(line - s);
        jstr_strip(&rest, &left, NULL, true, false);
        if (left == 0 && (nl || l->line_start)) n = (size_t)(line - s);
    }
    return n ? push_text(l, T_DATA, l->line, s, n) : KG_OK;
}

/* ---- inside of {{ }} and {% %} ---- */

static bool is_name(char c, bool first)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (uint8_t)c >= 0x80 || (!first && c >= '0' && c <= '9');
}

static kg_status put_code(struct buf *b, uint32_t c)
{
    if (c >= 0xd800 && c <= 0xdfff) c = 0xfffd;
    char u[4];
    size_t n = 0;
    if (c < 0x80) {
        u[n++] = (char)c;
    } else {
        int more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
        u[n++] = (char)((more == 1 ? 0xc0 : more == 2 ? 0xe0 : 0xf0) | c >> (6 * more));
        while (more-- > 0) u[n++] = (char)(0x80 | (c >> (6 * more) & 0x3f));
    }
    return buf_append(b, u, n);
}

/* One escape; s points behind the backslash, n >= 1 bytes are left. *used: how many of them. */
static kg_status put_escape(int line, const char *s, size_t n, struct buf *b, size_t *used)
{
    static const char simple[] = "n\nt\tr\r\\\\''\"\"a\ab\bf\fv\v";
    *used = 1;
    for (const char *e = simple; *e; e += 2)
        if (*e == s[0]) return buf_append(b, e + 1, 1);
    if (s[0] == '\n') return KG_OK;
    uint32_t code = 0;
    size_t k = 0;
    if (s[0] >= '0' && s[0] <= '7') {
        for (; k < 3 && k < n && s[k] >= '0' && s[k] <= '7'; k++) code = code * 8 + (uint32_t)(s[k] - '0');
        *used = k;
        return put_code(b, code);
    }
    size_t digits = s[0] == 'x' ? 2 : s[0] == 'u' ? 4 : s[0] == 'U' ? 8 : 0;
    if (s[0] == 'N') return fail_at(line, "character names (\\N) are not supported");
    if (digits == 0) {
        KG_TRY(buf_append(b, "\\", 1));
        return buf_append(b, s, 1);
    }
    for (k = 1; k <= digits; k++) {
        char c = k < n ? s[k] : 0;
        int v = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (v < 0) return fail_at(line, "a damaged escape in a string");
        code = code << 4 | (uint32_t)v;
    }
    if (code > 0x10ffff) return fail_at(line, "a damaged escape in a string");
    *used = digits + 1;
    return put_code(b, code);
}

static kg_status lex_string(struct lexer *l)
{
    char quote = l->s[l->at];
    size_t i = l->at + 1;
    int line = l->line;
    struct buf b = {0};
    kg_status status = KG_OK;
    while (i < l->n && l->s[i] != quote && status == KG_OK) {
        size_t k = 1;
        if (l->s[i] == '\\') {
            if (i + 1 >= l->n) break;
            status = put_escape(line, l->s + i + 1, l->n - i - 1, &b, &k);
            k++;
        } else {
            while (i + k < l->n && l->s[i + k] != quote && l->s[i + k] != '\\') k++;
            status = buf_append(&b, l->s + i, k);
        }
        i += k;
    }
    if (status == KG_OK && (i >= l->n || l->s[i] != quote)) status = fail_at(line, "a string has no end");
    if (status == KG_OK) status = push_text(l, T_STRING, line, b.data, b.len);
    buf_free(&b);
    advance(l, MIN(i + 1, l->n));
    return status;
}

static size_t digits_at(const struct lexer *l, size_t at, const char *digits)
{
    size_t k = 0;
    while (at + k < l->n && l->s[at + k] && (strchr(digits, l->s[at + k]) || (l->s[at + k] == '_' && k > 0))) k++;
    while (k > 0 && l->s[at + k - 1] == '_') k--;
    return k;
}

static kg_status lex_number(struct lexer *l)
{
    static const char decimal[] = "0123456789";
    char text[80];
    size_t i = l->at, k, n = 0;
    int base = 10;
    struct jtoken token = {.type = T_INT, .line = l->line};
    if (l->s[i] == '0' && i + 1 < l->n && strchr("bBoOxX", l->s[i + 1])) {
        base = strchr("bB", l->s[i + 1]) ? 2 : strchr("oO", l->s[i + 1]) ? 8 : 16;
        i += 2;
        k = digits_at(l, i, base == 2 ? "01" : base == 8 ? "01234567" : "0123456789abcdefABCDEF");
        if (k == 0) return fail_at(l->line, "a number without digits");
    } else {
        k = digits_at(l, i, decimal);
        bool after_dot = l->at > 0 && l->s[l->at - 1] == '.'; /* a.0.1 is an attribute of an attribute */
        if (!after_dot && i + k + 1 < l->n && l->s[i + k] == '.' && digits_at(l, i + k + 1, decimal)) {
            k += 1 + digits_at(l, i + k + 1, decimal);
            token.type = T_FLOAT;
        }
        size_t e = i + k;
        if (!after_dot && e + 1 < l->n && (l->s[e] == 'e' || l->s[e] == 'E')) {
            e += 1 + (l->s[e + 1] == '+' || l->s[e + 1] == '-');
            size_t exponent = digits_at(l, e, decimal);
            if (exponent) token.type = T_FLOAT, k = e + exponent - i;
        }
    }
    for (size_t d = 0; d < k; d++) {
        if (l->s[i + d] == '_') continue;
        if (n == sizeof text - 1) return fail_at(l->line, "a number is too long");
        text[n++] = l->s[i + d];
    }
    text[n] = 0;
    errno = 0;
    if (token.type == T_FLOAT) {
        double v;
        if (sscanf(text, "%lf", &v) != 1) return fail_at(l->line, "a damaged number");
        token.value = jval_float(v);
    } else {
        token.value = jval_int(strtoll(text, NULL, base));
        if (errno) return fail_at(l->line, "an integer is too large");
    }
    advance(l, i + k);
    return push(l, token);
}

static kg_status lex_operator(struct lexer *l, size_t *depth)
{
    static const char *const ops[] = {"**", "//", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<", "=", ".", ":", "|", ",", ";"};
    size_t k = 0;
    while (k < COUNT_OF(ops) && !starts(l, l->at, ops[k])) k++;
    if (k == COUNT_OF(ops)) {
        unsigned char c = (unsigned char)l->s[l->at];
        return status_set(KG_ERR_FORMAT, c > ' ' && c < 0x7f ? "line %d: unexpected character '%c'" : "line %d: unexpected character %#x", l->line, c);
    }
    char c = ops[k][0];
    if (c == '(' || c == '[' || c == '{') {
        if (*depth == (size_t)l->t->mem.limits->depth) return status_set(KG_ERR_UNSUPPORTED, "line %d: brackets are nested too deep", l->line);
        l->brackets[(*depth)++] = c == '(' ? ')' : c == '[' ? ']' : '}';
    } else if (c == ')' || c == ']' || c == '}') {
        if (*depth == 0 || l->brackets[*depth - 1] != c)
            return status_set(KG_ERR_FORMAT, *depth ? "line %d: unexpected '%c', expected '%c'" : "line %d: unexpected '%c'", l->line, c, *depth ? l->brackets[*depth - 1] : 0);
        --*depth;
    }
    struct jtoken token = {.type = T_OP, .line = l->line};
    strcpy(token.op, ops[k]);
    KG_TRY(push(l, token));
    advance(l, l->at + strlen(ops[k]));
    return KG_OK;
}

/* From behind {{ or {% to behind its end. */
static kg_status lex_inside(struct lexer *l, bool block)
{
    const char *end = block ? "%}" : "}}";
    size_t depth = 0;
    for (;;) {
        advance(l, l->at + spaces(l, l->at));
        if (l->at >= l->n) return fail_at(l->line, block ? "a block has no end ('%}')" : "an expression has no end ('}}')");
        char c = l->s[l->at], sign = c == '-' || (block && c == '+') ? c : 0;
        if (depth == 0 && starts(l, l->at + (sign != 0), end)) {
            KG_TRY(push(l, (struct jtoken){.type = block ? T_BLOCK_END : T_VAR_END, .line = l->line}));
            size_t behind = l->at + (sign != 0) + 2;
            advance(l, block || sign ? after_end(l, behind, sign) : behind);
            return KG_OK;
        }
        if (c == '"' || c == '\'') {
            KG_TRY(lex_string(l));
        } else if (c >= '0' && c <= '9') {
            KG_TRY(lex_number(l));
        } else if (is_name(c, true)) {
            size_t k = l->at + 1;
            while (k < l->n && is_name(l->s[k], false)) k++;
            KG_TRY(push_text(l, T_NAME, l->line, l->s + l->at, k - l->at));
            advance(l, k);
        } else {
            KG_TRY(lex_operator(l, &depth));
        }
    }
}

static kg_status lex_comment(struct lexer *l)
{
    int line = l->line;
    const char *end = memmem(l->s + l->at, l->n - l->at, "#}", 2);
    if (!end) return fail_at(line, "a comment has no end ('#}')");
    size_t at = (size_t)(end - l->s);
    char sign = at > l->at && (end[-1] == '-' || end[-1] == '+') ? end[-1] : 0;
    advance(l, after_end(l, at + 2, sign));
    return KG_OK;
}

/* {% raw %}: `at` is behind the mark and its sign. Returns the position behind its end, 0 if it is another block. */
static size_t raw_begin(const struct lexer *l, size_t at)
{
    at += spaces(l, at);
    if (!starts(l, at, "raw")) return 0;
    at += 3;
    at += spaces(l, at);
    if (starts(l, at, "-%}")) return at + 3 + spaces(l, at + 3);
    return starts(l, at, "%}") ? at + 2 : 0;
}

static kg_status lex_raw(struct lexer *l)
{
    int line = l->line;
    for (size_t i = l->at; i + 1 < l->n; i++) {
        if (!starts(l, i, "{%")) continue;
        size_t at = i + 2;
        char before = at < l->n && (l->s[at] == '-' || l->s[at] == '+') ? l->s[at] : 0;
        at += before != 0;
        at += spaces(l, at);
        if (!starts(l, at, "endraw")) continue;
        at += 6;
        at += spaces(l, at);
        char sign = at < l->n && (l->s[at] == '-' || l->s[at] == '+') ? l->s[at] : 0;
        if (!starts(l, at + (sign != 0), "%}")) continue;
        KG_TRY(push_data(l, i, before, true));
        advance(l, after_end(l, at + (sign != 0) + 2, sign));
        return KG_OK;
    }
    return fail_at(line, "a raw block has no end ({% endraw %})");
}

static kg_status lex(struct lexer *l)
{
    while (l->at < l->n) {
        size_t i = l->at;
        while (i < l->n && !(l->s[i] == '{' && i + 1 < l->n && (l->s[i + 1] == '{' || l->s[i + 1] == '%' || l->s[i + 1] == '#'))) i++;
        if (i == l->n) {
            KG_TRY(push_data(l, i, '+', false));
            advance(l, i);
            break;
        }
        char kind = l->s[i + 1], sign = i + 2 < l->n && (l->s[i + 2] == '-' || l->s[i + 2] == '+') ? l->s[i + 2] : 0;
        size_t inside = i + 2 + (sign != 0), raw = kind == '%' ? raw_begin(l, inside) : 0;
        KG_TRY(push_data(l, i, sign, kind != '{'));
        advance(l, raw ? raw : inside);
        if (raw) {
            KG_TRY(lex_raw(l));
        } else if (kind == '#') {
            KG_TRY(lex_comment(l));
        } else {
            KG_TRY(push(l, (struct jtoken){.type = kind == '%' ? T_BLOCK_BEGIN : T_VAR_BEGIN, .line = l->line}));
            KG_TRY(lex_inside(l, kind == '%'));
        }
    }
    return push(l, (struct jtoken){.type = T_END, .line = l->line});
}

kg_status jinja_lex(struct jinja *t, const char *source, size_t n)
{
    struct lexer l = {.t = t, .line = 1, .line_start = true};
    char *s = jmem_alloc(&t->mem, n, 1); /* with "\n" for every line end, and without the last one */
    l.brackets = jmem_alloc(&t->mem, (size_t)t->mem.limits->depth, 1);
    if (!s || !l.brackets) return jmem_failed(&t->mem);
    for (size_t i = 0; i < n; i++) {
        if (source[i] == '\r' && i + 1 < n && source[i + 1] == '\n') continue;
        s[l.n++] = source[i] == '\r' ? '\n' : source[i];
    }
    if (l.n > 0 && s[l.n - 1] == '\n') l.n--;
    l.s = s;
    if (utf8_valid_prefix((const uint8_t *)s, l.n) != l.n) return status_set(KG_ERR_FORMAT, "the template is not UTF-8");
    return lex(&l);
}
