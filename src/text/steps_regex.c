/* Patterns of tokenizer.json are Oniguruma's; most mean the same to PCRE2. What does not is spelled out here or refused. */
#include "text/steps_list.h"

#define SPACES "\\t-\\r \\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}"
#define WORD "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"

enum { MAX_GROUPS = 64 };

static kg_status put(struct buf *out, const char *s) { return buf_append(out, s, strlen(s)); }

static kg_status escape(const char **p, bool in_class, struct buf *out)
{
    const char c = (*p)[1];
    if (c == 0) return status_set(KG_ERR_FORMAT, "a pattern ends in a backslash");
    if (c == 'u' && strspn(*p + 2, "0123456789abcdefABCDEF") >= 4) {
        KG_TRY(buf_printf(out, "\\x{%.4s}", *p + 2));
        *p += 6;
        return KG_OK;
    }
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
    const bool braces = strchr("pPx", (*p)[1]) && (*p)[1] && (*p)[2] == '{';
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

/* From [ to its ]. A class within one adds to it. */
static kg_status character_class(const char **from, struct buf *out)
{
    const char *p = *from;
    size_t k = p[1] == '^' ? 2 : 1;
    if (p[k] == ']') k++; /* stands for itself there */
    KG_TRY(buf_append(out, p, k));
    p += k;
    for (int depth = 1; depth > 0;) {
        if (*p == 0) return status_set(KG_ERR_FORMAT, "a class in a pattern does not end");
        if (p[0] == '&' && p[1] == '&') return status_set(KG_ERR_UNSUPPORTED, "intersections of classes in a pattern are not supported");
        if (*p == '\\') {
            KG_TRY(escape(&p, true, out));
        } else if (p[0] == '[' && p[1] == ':') { /* [:name:] */
            const char *end = strstr(p, ":]");
            if (!end) return status_set(KG_ERR_FORMAT, "a class in a pattern does not end");
            KG_TRY(buf_append(out, p, (size_t)(end + 2 - p)));
            p = end + 2;
        } else if (*p == '[') {
            if (p[-1] == '-' || strchr("^-]", p[1])) return status_set(KG_ERR_UNSUPPORTED, "such a class within a class of a pattern is not supported");
            depth++;
            p++;
        } else if (*p == ']' && --depth > 0) {
            if (p[-1] == '-' || p[1] == '-') return status_set(KG_ERR_UNSUPPORTED, "such a class within a class of a pattern is not supported");
            p++;
        } else {
            KG_TRY(buf_append(out, p++, 1));
        }
    }
    *from = p;
    return KG_OK;
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
        else if (*p == '[') KG_TRY(character_class(&p, out));
        else KG_TRY(buf_append(out, p++, 1));
    }
    return buf_append(out, "", 1);
}
