/* Unicode normalization forms (Unicode Standard Annex 15), by utf8proc. */
#include "text/normalize.h"

#include <stdlib.h>
#include <utf8proc.h>

/* utf8proc sorts the marks after a character by insertion: this bounds its time. Unicode's stream-safe texts have 30 at most. */
enum { MAX_MARKS = 128 };

/* Where the text may be cut: after so many marks in a row, or at its end. Nothing real is cut. */
static size_t piece(const uint8_t *s, size_t n)
{
    int marks = 0;
    for (size_t i = 0; i < n;) {
        utf8proc_int32_t c;
        utf8proc_ssize_t k = utf8proc_iterate(s + i, (utf8proc_ssize_t)(n - i), &c);
        if (k <= 0) return i; /* the caller's text is valid, so this does not happen */
        marks = utf8proc_get_property(c)->combining_class > 0 ? marks + 1 : 0;
        if (marks > MAX_MARKS) return i;
        i += (size_t)k;
    }
    return n;
}

bool normalize_needed(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((uint8_t)text[i] >= 0xcc) return true; /* all characters below U+0300 are in form C and compose with none before them */
    return false;
}

kg_status normalize_form(struct buf *out, const char *text, size_t n, unsigned flags)
{
    const unsigned how = UTF8PROC_STABLE | (flags & NORMALIZE_COMPOSE ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
                         (flags & NORMALIZE_COMPATIBLE ? UTF8PROC_COMPAT : 0);
    const uint8_t *s = (const uint8_t *)text;
    for (size_t i = 0; i < n;) {
        const size_t k = piece(s + i, n - i);
        utf8proc_uint8_t *form = NULL;
        utf8proc_ssize_t len = k > 0 ? utf8proc_map(s + i, (utf8proc_ssize_t)k, &form, (utf8proc_option_t)how) : UTF8PROC_ERROR_INVALIDUTF8;
        if (len < 0)
            return status_set(len == UTF8PROC_ERROR_NOMEM ? KG_ERR_MEMORY : KG_ERR_ARGUMENT, "normalizing a text: %s", utf8proc_errmsg(len));
        kg_status st = buf_append(out, (const char *)form, (size_t)len);
        free(form);
        KG_TRY(st);
        i += k;
    }
    return KG_OK;
}
