/* Patterns of tokenizer.json are Oniguruma's; most mean the same to PCRE2. What does not is spelled out here or refused. */
#include "text/steps_list.h"

#include <stdio.h>

#define SPACES "\\t-\\r \\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}"
#define WORD "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"

enum { MAX_GROUPS = 64, MAX_DEPTH = 8 };

static kg_status put(struct buf *out, const char *s) { return buf_append(out, s, strlen(s)); }

/* \p{Han}: Oniguruma's scripts are those of characters, PCRE2's (since 10.40) those in which they are used, unless sc: stands before it. */
static kg_status property(const char **p, struct buf *out)
{
    const char *name = *p + 3, *end = strchr(name, '}');
    const bool negated = *name == '^';
    char probe[64];
    int error;
    PCRE2_SIZE offset;
    if (!end) return status_set(KG_ERR_FORMAT, "a property in a pattern does not end");
    name += negated;
    const int n = (int)(end - name);
    pcre2_code *script = NULL;
    if (n > 2 && n < 40) {
        const int len = snprintf(probe, sizeof probe, "\\p{sc:%.*s}", n, name);
        script = pcre2_compile((PCRE2_SPTR)probe, (PCRE2_SIZE)len, PCRE2_UTF, &error, &offset, NULL);
    }
    const kg_status st = buf_printf(out, "\\%c{%s%s%.*s}", (*p)[1], negated ? "^" : "", script ? "sc:" : "", n, name);
    pcre2_code_free(script);
    *p = end + 1;
    return st;
}

static kg_status escape(const char **p, bool in_class, struct buf *out)
{
    const char c = (*p)[1];
    if (c == 0) return status_set(KG_ERR_FORMAT, "a pattern ends in a backslash");
    if (c == 'u' && strspn(*p + 2, "0123456789abcdefABCDEF") >= 4) {
        KG_TRY(buf_printf(out, "\\x{%.4s}", *p + 2));
        *p += 6;
        return KG_OK;
    }
    if ((c == 'p' || c == 'P') && (*p)[2] == '{') return property(p, out);
    *p += 2;
    switch (c) {
    case 's': return put(out, in_class ? SPACES : "[" SPACES "]");
    case 'w': return put(out, in_class ? WORD : "[" WORD "]");
    case 'h': return put(out, in_class ? "0-9A-Fa-f" : "[0-9A-Fa-f]");
    case 'S': if (!in_class) return put(out, "[^" SPACES "]"); break; /* within a class PCRE2's differs by U+180E */
    case 'W': if (!in_class) return put(out, "[^" WORD "]"); return status_set(KG_ERR_UNSUPPORTED, "\\W within a class of a pattern is not supported");
    case 'H': case 'K': case 'g': case 'y': case 'Y': case 'C': case 'Q': case 'E':
        return status_set(KG_ERR_UNSUPPORTED, "\\%c in a pattern is not supported", c);
    case 'Z': break;
    default: break;
    }
    return buf_append(out, (const char[]){'\\', c}, 2);
}

/* An escape with what belongs to it in braces. */
static kg_status whole_escape(const char **p, struct buf *out)
{
    const bool braces = (*p)[1] == 'x' && (*p)[2] == '{';
    if ((*p)[1] == 'b' || (*p)[1] == 'B') {
        KG_TRY(put(out, (*p)[1] == 'b' ? "(?:(?<=[" WORD "])(?![" WORD "])|(?<![" WORD "])(?=[" WORD "]))" : "(?:(?<=[" WORD "])(?=[" WORD "])|(?<![" WORD "])(?![" WORD "]))"));
        *p += 2;
        return KG_OK;
    }
    KG_TRY(escape(p, false, out));
    for (bool more = braces; more && **p; (*p)++) {
        KG_TRY(buf_append(out, *p, 1));
        more = **p != '}';
    }
    return KG_OK;
}

/* ---- classes: Oniguruma's may hold others and be cut with others; what PCRE2 has no class for becomes a group that matches one character */

struct class_text {
    struct buf plain, others; /* of the part that is read: what stands in brackets; |group for each class that does not fit in there */
    struct buf before;        /* parts before &&, to look ahead for */
};

static kg_status character_class(const char **from, int depth, struct buf *out, bool *simple);

static kg_status put_part(const struct class_text *c, struct buf *out)
{
    if (c->plain.len == 0 && c->others.len == 0) return status_set(KG_ERR_FORMAT, "a class in a pattern is empty");
    if (c->others.len == 0) return buf_printf(out, "[%.*s]", (int)c->plain.len, c->plain.data);
    if (c->plain.len == 0) return buf_printf(out, "(?:%.*s)", (int)c->others.len - 1, c->others.data + 1);
    return buf_printf(out, "(?:[%.*s]%.*s)", (int)c->plain.len, c->plain.data, (int)c->others.len, c->others.data);
}

/* A class within this one: joins it where no dash comes to stand between, which would mean another thing. */
static kg_status class_within(struct class_text *c, const char **p, int depth)
{
    struct buf b = {0};
    bool simple = false;
    const bool dash = (*p)[-1] == '-';
    kg_status st = depth < MAX_DEPTH ? character_class(p, depth + 1, &b, &simple) : status_set(KG_ERR_UNSUPPORTED, "a pattern has more than %d classes within each other", MAX_DEPTH);
    if (st == KG_OK && dash) st = status_set(KG_ERR_UNSUPPORTED, "a class of a pattern has a range to a class");
    simple = st == KG_OK && simple && **p != '-' && b.data[1] != '-' && b.data[b.len - 2] != '-';
    if (st == KG_OK && simple) st = buf_append(&c->plain, b.data + 1, b.len - 2);
    else if (st == KG_OK) st = buf_printf(&c->others, "|%.*s", (int)b.len, b.data);
    buf_free(&b);
    return st;
}

static kg_status read_class(const char **from, int depth, struct class_text *c)
{
    const char *p = *from;
    if (*p == ']') { /* stands for itself there */
        KG_TRY(put(&c->plain, "\\]"));
        p++;
    }
    while (*p != ']') {
        if (*p == 0) return status_set(KG_ERR_FORMAT, "a class in a pattern does not end");
        if (*p == '\\') {
            KG_TRY(escape(&p, true, &c->plain));
        } else if (p[0] == '&' && p[1] == '&') {
            KG_TRY(put(&c->before, "(?="));
            KG_TRY(put_part(c, &c->before));
            KG_TRY(put(&c->before, ")"));
            c->plain.len = c->others.len = 0;
            p += 2;
        } else if (p[0] == '[' && p[1] == ':') { /* [:name:] */
            const char *end = strstr(p, ":]");
            if (!end) return status_set(KG_ERR_FORMAT, "a class in a pattern does not end");
            KG_TRY(buf_append(&c->plain, p, (size_t)(end + 2 - p)));
            p = end + 2;
        } else if (*p == '[') {
            KG_TRY(class_within(c, &p, depth));
        } else {
            KG_TRY(buf_append(&c->plain, p++, 1));
        }
    }
    *from = p + 1;
    return KG_OK;
}

/* From [ to behind its ]. *simple: out has got just brackets. */
static kg_status character_class(const char **from, int depth, struct buf *out, bool *simple)
{
    struct class_text c = {0};
    const bool negated = (*from)[1] == '^';
    *from += negated ? 2 : 1;
    kg_status st = read_class(from, depth, &c);
    const bool group = c.before.len > 0 || c.others.len > 0;
    *simple = !negated && !group;
    if (st == KG_OK && negated && !group && c.plain.len > 0) {
        st = buf_printf(out, "[^%.*s]", (int)c.plain.len, c.plain.data);
    } else if (st == KG_OK && !group) {
        st = put_part(&c, out);
    } else if (st == KG_OK) {
        st = buf_printf(out, "%s%.*s", negated ? "(?:(?!" : "(?:", (int)c.before.len, c.before.len ? c.before.data : "");
        if (st == KG_OK) st = put_part(&c, out);
        if (st == KG_OK) st = put(out, negated ? ")[\\s\\S])" : ")");
    }
    buf_free(&c.plain);
    buf_free(&c.others);
    buf_free(&c.before);
    return st;
}

/* {n}, {n,}, {,m} or {n,m} at p: its length; 0: it is none. */
static size_t interval(const char *p)
{
    const size_t n = 1 + strspn(p + 1, "0123456789"), m = p[n] == ',' ? n + 1 + strspn(p + n + 1, "0123456789") : n;
    return *p == '{' && p[m] == '}' && m > 1 && !(m == 2 && n == 1) ? m + 1 : 0;
}

/* What comes behind an interval repeats all of it; PCRE2 takes + for possessive and ? for reluctant. */
static kg_status close_interval(const char **p, size_t atom, struct buf *out)
{
    const size_t n = interval(*p);
    const bool exact = !memchr(*p, ',', n), again = (*p)[n] == '+' || ((*p)[n] == '?' && exact);
    if (again) {
        KG_TRY(buf_append(out, "(?:", 3));
        memmove(out->data + atom + 3, out->data + atom, out->len - atom - 3);
        memcpy(out->data + atom, "(?:", 3);
    }
    KG_TRY(buf_append(out, *p, n));
    *p += n;
    return again ? buf_append(out, ")", 1) : KG_OK;
}

/* (? and the options behind it. Ruby's m lets a dot match line ends. */
static kg_status options(const char **p, struct buf *out)
{
    KG_TRY(buf_append(out, "(?", 2));
    for (*p += 2; **p && strchr("imx-", **p); (*p)++) KG_TRY(buf_append(out, **p == 'm' ? "s" : *p, 1));
    return KG_OK;
}

kg_status regex_translate(const char *pattern, struct buf *out)
{
    bool simple;
    size_t groups[MAX_GROUPS], depth = 0, atom = out->len; /* where the last atom begins, and open groups */
    for (const char *p = pattern; *p;) {
        if (interval(p) > 0) {
            KG_TRY(close_interval(&p, atom, out));
            continue;
        }
        if (p[0] == '(' && p[1] == '*') return status_set(KG_ERR_UNSUPPORTED, "(* in a pattern is not supported");
        if (*p == '(' && depth == MAX_GROUPS) return status_set(KG_ERR_UNSUPPORTED, "a pattern has more than %d groups within each other", MAX_GROUPS);
        if (*p == '(') groups[depth++] = out->len;
        if (*p == ')' && depth > 0) atom = groups[--depth];
        else if (((uint8_t)*p & 0xc0) != 0x80) atom = out->len;
        if (p[0] == '(' && p[1] == '?') KG_TRY(options(&p, out));
        else if (*p == '\\') KG_TRY(whole_escape(&p, out));
        else if (*p == '[') KG_TRY(character_class(&p, 0, out, &simple));
        else KG_TRY(buf_append(out, p++, 1));
    }
    return buf_append(out, "", 1);
}
