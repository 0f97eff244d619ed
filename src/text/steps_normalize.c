/* The normalizers of tokenizer.json. */
#include "text/normalize.h"
#include "text/steps_list.h"
#include "text/utf8.h"

static kg_status bert_char(unsigned flags, uint32_t c, struct buf *out)
{
    if (flags & BERT_CLEAN) {
        if (c == 0 || c == 0xfffd || unicode_is_control(c)) return KG_OK;
        if (unicode_is_space(c)) c = ' ';
    }
    const bool apart = flags & BERT_IDEOGRAPHS && unicode_is_ideograph(c);
    if (apart) KG_TRY(buf_append(out, " ", 1));
    KG_TRY(utf8_append(out, c));
    return apart ? buf_append(out, " ", 1) : KG_OK;
}

static bool nmt_drops(uint32_t c)
{
    return (c >= 1 && c <= 8) || c == 0x0b || (c >= 0x0e && c <= 0x1f) || c == 0x7f || c == 0x8f || c == 0x9f;
}

static bool nmt_is_space(uint32_t c)
{
    return c == 9 || c == 0x0a || c == 0x0c || c == 0x0d || c == 0x1680 || (c >= 0x200b && c <= 0x200f) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
           c == 0xfeff || c == 0xfffd;
}

enum per_char { PER_BERT, PER_NMT, PER_LOWER, PER_NO_MARKS, PER_NO_NONSPACING };

static kg_status each(enum per_char what, unsigned flags, const char *text, size_t n, struct buf *out)
{
    for (size_t i = 0, k; i < n; i += k) {
        uint32_t c = 0xfffd;
        k = MAX(utf8_decode((const uint8_t *)text + i, n - i, &c), (size_t)1);
        switch (what) {
        case PER_BERT: KG_TRY(bert_char(flags, c, out)); break;
        case PER_NMT:
            if (!nmt_drops(c)) KG_TRY(utf8_append(out, nmt_is_space(c) ? ' ' : c));
            break;
        case PER_LOWER: KG_TRY(unicode_lower(out, c)); break;
        case PER_NO_MARKS:
            if (!unicode_is_mark(c)) KG_TRY(buf_append(out, text + i, k));
            break;
        case PER_NO_NONSPACING:
            if (!unicode_is_nonspacing(c)) KG_TRY(buf_append(out, text + i, k));
            break;
        }
    }
    return KG_OK;
}

/* Puts b's bytes through one more pass. */
static kg_status again(enum per_char what, struct buf *b)
{
    struct buf next = {0};
    kg_status st = each(what, 0, b->data, b->len, &next);
    buf_free(b);
    *b = next;
    return st;
}

static kg_status bert(unsigned flags, const char *text, size_t n, struct buf *out)
{
    struct buf b = {0};
    kg_status st = each(PER_BERT, flags, text, n, &b);
    if (st == KG_OK && flags & BERT_STRIP) {
        struct buf form = {0};
        st = normalize_form(&form, b.data, b.len, FORM_NFD);
        buf_free(&b);
        b = form;
        if (st == KG_OK) st = again(PER_NO_NONSPACING, &b);
    }
    if (st == KG_OK && flags & BERT_LOWER) st = again(PER_LOWER, &b);
    if (st == KG_OK) st = buf_append(out, b.data, b.len);
    buf_free(&b);
    return st;
}

static kg_status strip(unsigned flags, const char *text, size_t n, struct buf *out)
{
    size_t from = n, to = 0;
    for (size_t i = 0, k; i < n; i += k) {
        uint32_t c = 0xfffd;
        k = MAX(utf8_decode((const uint8_t *)text + i, n - i, &c), (size_t)1);
        if (unicode_is_space(c)) continue;
        if (from == n) from = i;
        to = i + k;
    }
    if (from == n) return KG_OK; /* nothing but white space */
    if (!(flags & STRIP_LEFT)) from = 0;
    if (!(flags & STRIP_RIGHT)) to = n;
    return buf_append(out, text + from, to - from);
}

static kg_status replace(struct matcher *m, const struct step *s, const char *text, size_t n, struct buf *out)
{
    struct matches w = {m, s, text, n, 0, SIZE_MAX, 0, 0};
    size_t done = 0;
    for (bool found;; done = w.end) {
        KG_TRY(next_match(&w, &found));
        if (!found) break;
        KG_TRY(buf_append(out, text + done, w.start - done));
        KG_TRY(buf_append(out, s->text, s->n_text));
    }
    return buf_append(out, text + done, n - done);
}

kg_status step_normalize(struct matcher *m, const struct step *s, const char *text, size_t n, struct buf *out)
{
    switch (s->kind) {
    case STEP_BERT: return bert(s->flags, text, n, out);
    case STEP_STRIP: return strip(s->flags, text, n, out);
    case STEP_STRIP_ACCENTS: return each(PER_NO_MARKS, 0, text, n, out);
    case STEP_FORM: return normalize_form(out, text, n, (enum unicode_form)s->flags);
    case STEP_LOWERCASE: return each(PER_LOWER, 0, text, n, out);
    case STEP_NMT: return each(PER_NMT, 0, text, n, out);
    case STEP_CHARSMAP: return charsmap_apply(&m->steps->charsmap, text, n, true, out);
    case STEP_REPLACE: return replace(m, s, text, n, out);
    case STEP_PREPEND:
        if (n > 0) KG_TRY(buf_append(out, s->text, s->n_text));
        return buf_append(out, text, n);
    default: return buf_append(out, text, n);
    }
}
