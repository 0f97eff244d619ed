/* Patterns of tokenizer.json are Oniguruma's; most mean the same to PCRE2. What does not is spelled out here or refused. */
#include "text/steps_list.h"

#define SPACES "\\t-\\r \\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}"
#define WORD "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"

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

kg_status regex_translate(const char *pattern, struct buf *out)
{
    bool in_class = false;
    for (const char *p = pattern; *p;) {
        if (*p == '\\') {
            KG_TRY(escape(&p, in_class, out));
            continue;
        }
        if (in_class && p[0] == '&' && p[1] == '&') return status_set(KG_ERR_UNSUPPORTED, "intersections of classes in a pattern are not supported");
        if (in_class && *p == '[' && p[1] != ':') return status_set(KG_ERR_UNSUPPORTED, "classes within classes in a pattern are not supported");
        if (in_class && *p == '[') { /* [:name:] */
            const char *end = strstr(p, ":]");
            if (!end) return status_set(KG_ERR_FORMAT, "a class in a pattern does not end");
            KG_TRY(buf_append(out, p, (size_t)(end + 2 - p)));
            p = end + 2;
            continue;
        }
        if (!in_class && p[0] == '(' && p[1] == '*') return status_set(KG_ERR_UNSUPPORTED, "(* in a pattern is not supported");
        if (in_class && *p == ']') {
            in_class = false;
        } else if (!in_class && *p == '[') {
            in_class = true;
            size_t k = p[1] == '^' ? 2 : 1;
            if (p[k] == ']') k++; /* stands for itself there */
            KG_TRY(buf_append(out, p, k));
            p += k;
            continue;
        }
        KG_TRY(buf_append(out, p++, 1));
    }
    return buf_append(out, "", 1);
}
