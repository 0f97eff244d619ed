/* Unicode normalization forms (Unicode Standard Annex 15) and classes of characters, by utf8proc. */
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

kg_status normalize_form(struct buf *out, const char *text, size_t n, enum unicode_form form)
{
    static const utf8proc_option_t options[] = {
        [FORM_NFC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE,
        [FORM_NFD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE,
        [FORM_NFKC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
        [FORM_NFKD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT,
    };
    const uint8_t *s = (const uint8_t *)text;
    for (size_t i = 0; i < n;) {
        const size_t k = piece(s + i, n - i);
        utf8proc_uint8_t *p = NULL;
        utf8proc_ssize_t len = k > 0 ? utf8proc_map(s + i, (utf8proc_ssize_t)k, &p, options[form]) : UTF8PROC_ERROR_INVALIDUTF8;
        if (len < 0)
            return status_set(len == UTF8PROC_ERROR_NOMEM ? KG_ERR_MEMORY : KG_ERR_ARGUMENT, "normalizing a text: %s", utf8proc_errmsg(len));
        kg_status st = buf_append(out, (const char *)p, (size_t)len);
        free(p);
        KG_TRY(st);
        i += k;
    }
    return KG_OK;
}

/* ---- classes */

static utf8proc_category_t category(uint32_t code) { return utf8proc_category((utf8proc_int32_t)code); }

bool unicode_is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
           c == 0x202f || c == 0x205f || c == 0x3000;
}

bool unicode_is_punctuation(uint32_t c)
{
    if (c < 128) return c > ' ' && c < 127 && !(c >= '0' && c <= '9') && !((c | 32) >= 'a' && (c | 32) <= 'z');
    const utf8proc_category_t k = category(c);
    return k >= UTF8PROC_CATEGORY_PC && k <= UTF8PROC_CATEGORY_PO;
}

bool unicode_is_number(uint32_t c)
{
    const utf8proc_category_t k = category(c);
    return k == UTF8PROC_CATEGORY_ND || k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_NO;
}

bool unicode_is_nonspacing(uint32_t c) { return category(c) == UTF8PROC_CATEGORY_MN; }

bool unicode_is_mark(uint32_t c)
{
    const utf8proc_category_t k = category(c);
    return k == UTF8PROC_CATEGORY_MN || k == UTF8PROC_CATEGORY_MC || k == UTF8PROC_CATEGORY_ME;
}

bool unicode_is_control(uint32_t c)
{
    if (c == '\t' || c == '\n' || c == '\r') return false;
    const utf8proc_category_t k = category(c);
    return k == UTF8PROC_CATEGORY_CC || k == UTF8PROC_CATEGORY_CF || k == UTF8PROC_CATEGORY_CO;
}

bool unicode_is_ideograph(uint32_t c)
{
    /* the last but two begins at 0x2b920 in BERT's tokenizers, not at 0x2b820, where its block does */
    static const uint32_t ranges[][2] = {{0x3400, 0x4dbf},   {0x4e00, 0x9fff},   {0xf900, 0xfaff},   {0x20000, 0x2a6df},
                                         {0x2a700, 0x2b73f}, {0x2b740, 0x2b81f}, {0x2b920, 0x2ceaf}, {0x2f800, 0x2fa1f}};
    for (size_t i = 0; i < COUNT_OF(ranges); i++)
        if (c >= ranges[i][0] && c <= ranges[i][1]) return true;
    return false;
}

kg_status utf8_append(struct buf *out, uint32_t code)
{
    utf8proc_uint8_t s[4];
    return buf_append(out, s, (size_t)utf8proc_encode_char((utf8proc_int32_t)code, s));
}

kg_status unicode_lower(struct buf *out, uint32_t code)
{
    if (code == 0x130) return buf_append(out, "i\xcc\x87", 3); /* the one letter whose lower case is two */
    return utf8_append(out, (uint32_t)utf8proc_tolower((utf8proc_int32_t)code));
}
