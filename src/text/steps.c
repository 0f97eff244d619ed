/* Owns the table of steps. Most look at one character at a time; what they know of characters comes from utf8proc. The categories that
 * the `tokenizers` package uses are older: characters that Unicode got after version 8 may be cut otherwise there. */
#include "text/steps.h"

#include "text/normalize.h"
#include "text/utf8.h"

#include <utf8proc.h>

#define MARK "\xe2\x96\x81" /* U+2581, SentencePiece's space */

/* A text grows 18-fold by Unicode's forms; a damaged table of replacements could make gigabytes of a line. */
enum { MAX_GROWTH = 64, MAX_EXTRA = 4096 };

struct job {
    const struct steps *steps;
    const struct step *step;
    const char *text;
    size_t n;
    bool at_start;
    size_t limit;
    struct buf *out;
};

struct step_kind {
    const char *name;
    int n_args;
    bool cuts; /* makes or sees words: no step that does not comes later */
    kg_status (*character)(const struct job *j, uint32_t c, const char *s, size_t n);
    kg_status (*all)(const struct job *j);
};

static kg_status put(const struct job *j, const char *s, size_t n)
{
    if (j->out->len + n > j->limit) return status_set(KG_ERR_UNSUPPORTED, "the tokenizer makes more than %d bytes of one", MAX_GROWTH);
    return n > 0 ? buf_append(j->out, s, n) : KG_OK;
}

/* ---- characters */

static bool is_white(uint32_t c)
{
    return (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
           c == 0x205f || c == 0x3000;
}

static utf8proc_category_t category(uint32_t c) { return utf8proc_category((utf8proc_int32_t)c); }

static bool is_punctuation(uint32_t c)
{
    if (c < 128) return (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) || (c >= 123 && c <= 126);
    utf8proc_category_t k = category(c);
    return k >= UTF8PROC_CATEGORY_PC && k <= UTF8PROC_CATEGORY_PO;
}

static bool is_ideograph(uint32_t c)
{
    return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf) || (c >= 0xf900 && c <= 0xfaff) || (c >= 0x20000 && c <= 0x2a6df) ||
           (c >= 0x2a700 && c <= 0x2b81f) || (c >= 0x2b920 && c <= 0x2ceaf) || (c >= 0x2f800 && c <= 0x2fa1f);
}

/* BERT's cleaning: no control characters, plain spaces. */
static kg_status clean(const struct job *j, uint32_t c, const char *s, size_t n)
{
    if (is_white(c) && (c < 0x0b || c > 0x0c) && c != 0x85) return put(j, " ", 1);
    utf8proc_category_t k = category(c);
    bool control = k == UTF8PROC_CATEGORY_CC || k == UTF8PROC_CATEGORY_CF || k == UTF8PROC_CATEGORY_CO;
    return control || c == 0xfffd ? KG_OK : put(j, s, n);
}

static kg_status around(const struct job *j, bool split, char cut, const char *s, size_t n)
{
    if (split) KG_TRY(put(j, &cut, 1));
    KG_TRY(put(j, s, n));
    return split ? put(j, &cut, 1) : KG_OK;
}

static kg_status ideographs(const struct job *j, uint32_t c, const char *s, size_t n) { return around(j, is_ideograph(c), ' ', s, n); }
static kg_status punctuation(const struct job *j, uint32_t c, const char *s, size_t n) { return around(j, is_punctuation(c), STEPS_CUT, s, n); }

static kg_status digits(const struct job *j, uint32_t c, const char *s, size_t n)
{
    utf8proc_category_t k = category(c);
    return around(j, k == UTF8PROC_CATEGORY_ND || k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_NO, STEPS_CUT, s, n);
}

static kg_status spaces(const struct job *j, uint32_t c, const char *s, size_t n)
{
    return is_white(c) ? put(j, &(char){STEPS_CUT}, 1) : put(j, s, n);
}

static kg_status no_accents(const struct job *j, uint32_t c, const char *s, size_t n)
{
    return category(c) == UTF8PROC_CATEGORY_MN ? KG_OK : put(j, s, n);
}

static kg_status no_marks(const struct job *j, uint32_t c, const char *s, size_t n)
{
    utf8proc_category_t k = category(c);
    return k >= UTF8PROC_CATEGORY_MN && k <= UTF8PROC_CATEGORY_ME ? KG_OK : put(j, s, n);
}

static kg_status lower(const struct job *j, uint32_t c, const char *s, size_t n)
{
    utf8proc_uint8_t small[4];
    if (c == 0x130) return put(j, "i\xcc\x87", 3); /* the one letter whose small form is two characters */
    utf8proc_int32_t to = utf8proc_tolower((utf8proc_int32_t)c);
    if (to == (utf8proc_int32_t)c) return put(j, s, n);
    return put(j, (char *)small, (size_t)utf8proc_encode_char(to, small));
}

/* What SentencePiece does for machine translation. */
static kg_status nmt(const struct job *j, uint32_t c, const char *s, size_t n)
{
    bool space = c == 9 || c == 10 || c == 12 || c == 13 || c == 0x1680 || (c >= 0x200b && c <= 0x200f) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
                 c == 0xfeff || c == 0xfffd;
    if (space) return put(j, " ", 1);
    return (c >= 1 && c < 32) || c == 0x7f || c == 0x8f || c == 0x9f ? KG_OK : put(j, s, n);
}

static kg_status marks(const struct job *j, uint32_t c, const char *s, size_t n) { return c == ' ' ? put(j, MARK, 3) : put(j, s, n); }

/* ---- whole texts */

static kg_status nfc(const struct job *j) { return normalize_form(j->out, j->text, j->n, NORMALIZE_COMPOSE); }
static kg_status nfd(const struct job *j) { return normalize_form(j->out, j->text, j->n, 0); }
static kg_status nfkc(const struct job *j) { return normalize_form(j->out, j->text, j->n, NORMALIZE_COMPOSE | NORMALIZE_COMPATIBLE); }
static kg_status nfkd(const struct job *j) { return normalize_form(j->out, j->text, j->n, NORMALIZE_COMPATIBLE); }

size_t steps_space_prefix(const char *s, size_t n)
{
    uint32_t c = 0;
    size_t i = 0;
    for (size_t k; i < n && (k = utf8_decode((const uint8_t *)s + i, n - i, &c)) > 0 && is_white(c); i += k) {}
    return i;
}

size_t steps_space_suffix(const char *s, size_t n)
{
    size_t end = n;
    while (end > 0) {
        uint32_t c = 0;
        size_t i = end - 1;
        while (i > 0 && end - i < 4 && ((uint8_t)s[i] & 0xc0) == 0x80) i--;
        if (utf8_decode((const uint8_t *)s + i, end - i, &c) != end - i || !is_white(c)) break;
        end = i;
    }
    return n - end;
}

static kg_status strip_left(const struct job *j)
{
    size_t k = steps_space_prefix(j->text, j->n);
    return put(j, j->text + k, j->n - k);
}

static kg_status strip_right(const struct job *j) { return put(j, j->text, j->n - steps_space_suffix(j->text, j->n)); }

static kg_status replace(const struct job *j)
{
    const struct str from = j->step->args[0], to = j->step->args[1];
    for (size_t i = 0; i < j->n;) {
        bool here = from.len > 0 && j->n - i >= from.len && memcmp(j->text + i, from.ptr, from.len) == 0;
        KG_TRY(here ? put(j, to.ptr, to.len) : put(j, j->text + i, 1));
        i += here ? from.len : 1;
    }
    return KG_OK;
}

/* Two spaces and more become one text. */
static kg_status squeeze(const struct job *j)
{
    const struct str to = j->step->args[0];
    for (size_t i = 0, k; i < j->n; i += k) {
        for (k = 0; i + k < j->n && j->text[i + k] == ' ';) k++;
        if (k > 1) KG_TRY(put(j, to.ptr, to.len));
        else KG_TRY(put(j, j->text + i, k = 1));
    }
    return KG_OK;
}

static kg_status prepend(const struct job *j)
{
    if (j->n > 0) KG_TRY(put(j, j->step->args[0].ptr, j->step->args[0].len));
    return put(j, j->text, j->n);
}

/* SentencePiece's extra spaces: those around the text (at its end marks too), and more than one in a row. */
static kg_status trim(const struct job *j)
{
    size_t i = 0, n = j->n;
    while (i < n && j->text[i] == ' ') i++;
    for (size_t k = 1; n > i && k > 0; n -= k) k = j->text[n - 1] == ' ' ? 1 : n - i >= 3 && memcmp(j->text + n - 3, MARK, 3) == 0 ? 3 : 0;
    for (; i < n; i++)
        if (j->text[i] != ' ' || j->text[i - 1] != ' ') KG_TRY(put(j, j->text + i, 1));
    return KG_OK;
}

/* As SentencePiece does: the longest sequence that the table has. */
static kg_status charsmap(const struct job *j)
{
    const struct steps *s = j->steps;
    for (size_t i = 0, k = 0; i < j->n; i += k) {
        const char *from = j->text + i, *to = NULL;
        if (!s->kept.nodes || trie_longest(&s->kept, from, j->n - i, &k) == TRIE_NONE) {
            to = charsmap_find(&s->map, from, j->n - i, false, &k);
            if (!to) k = MAX(utf8_char((const uint8_t *)from, j->n - i), (size_t)1);
        }
        KG_TRY(to ? put(j, to, strlen(to)) : put(j, from, k));
    }
    return KG_OK;
}

/* As the `tokenizers` package does: the shortest sequence that a character begins with replaces all of it, of what a reader sees as one
 * character (a grapheme) if it has few bytes. */
static kg_status graphemes(const struct job *j)
{
    const uint8_t *text = (const uint8_t *)j->text;
    for (size_t i = 0, n; i < j->n; i += n) {
        uint32_t c = 0, next = 0;
        utf8proc_int32_t state = 0;
        size_t used, k;
        n = utf8_decode(text + i, j->n - i, &c);
        const size_t first = n;
        while (i + n < j->n && (k = utf8_decode(text + i + n, j->n - i - n, &next)) > 0 &&
               !utf8proc_grapheme_break_stateful((utf8proc_int32_t)c, (utf8proc_int32_t)next, &state)) {
            n += k;
            c = next;
        }
        const char *to = n < 6 ? charsmap_find(&j->steps->map, j->text + i, n, true, &used) : NULL;
        if (to || n == first) {
            KG_TRY(to ? put(j, to, strlen(to)) : put(j, j->text + i, n));
            continue;
        }
        for (size_t at = i; at < i + n; at += k) {
            k = utf8_char(text + at, i + n - at);
            to = charsmap_find(&j->steps->map, j->text + at, k, true, &used);
            KG_TRY(to ? put(j, to, strlen(to)) : put(j, j->text + at, k));
        }
    }
    return KG_OK;
}

/* A mark before each word (always), before the text (first) or nowhere (never), marks for spaces; split: each mark begins a word. */
static kg_status metaspace(const struct job *j)
{
    const struct str scheme = j->step->args[0];
    const bool split = j->step->args[1].len == 5, always = scheme.ptr[0] == 'a', first = scheme.ptr[0] == 'f';
    for (size_t i = 0, end; i < j->n; i = end + 1) {
        const char *word = j->text + i, *cut = memchr(word, STEPS_CUT, j->n - i);
        size_t n = cut ? (size_t)(cut - word) : j->n - i;
        end = i + n;
        if (i > 0) KG_TRY(put(j, &(char){STEPS_CUT}, 1));
        bool marked = n > 0 && (word[0] == ' ' || (n >= 3 && memcmp(word, MARK, 3) == 0));
        if (n > 0 && !marked && (always || (first && i == 0 && j->at_start))) KG_TRY(put(j, MARK, 3));
        for (size_t k = 0; k < n; k++) {
            bool space = word[k] == ' ', mark = space || (n - k >= 3 && memcmp(word + k, MARK, 3) == 0);
            if (mark && split && k > 0) KG_TRY(put(j, &(char){STEPS_CUT}, 1));
            KG_TRY(space ? put(j, MARK, 3) : put(j, word + k, 1));
        }
    }
    return KG_OK;
}

/* ---- the table */

static const struct step_kind kinds[] = {
    {"clean", 0, false, clean, NULL},
    {"ideographs", 0, false, ideographs, NULL},
    {"no_accents", 0, false, no_accents, NULL},
    {"no_marks", 0, false, no_marks, NULL},
    {"lower", 0, false, lower, NULL},
    {"nmt", 0, false, nmt, NULL},
    {"nfc", 0, false, NULL, nfc},
    {"nfd", 0, false, NULL, nfd},
    {"nfkc", 0, false, NULL, nfkc},
    {"nfkd", 0, false, NULL, nfkd},
    {"strip_left", 0, false, NULL, strip_left},
    {"strip_right", 0, false, NULL, strip_right},
    {"replace", 2, false, NULL, replace},
    {"squeeze", 1, false, NULL, squeeze},
    {"prepend", 1, false, NULL, prepend},
    {"trim", 0, false, NULL, trim},
    {"charsmap", 0, false, NULL, charsmap},
    {"graphemes", 0, false, NULL, graphemes},
    {"marks", 0, false, marks, NULL},
    {"spaces", 0, true, spaces, NULL},
    {"punctuation", 0, true, punctuation, NULL},
    {"digits", 0, true, digits, NULL},
    {"metaspace", 2, true, NULL, metaspace},
};

kg_status steps_add(struct steps *s, struct arena *arena, const struct str *items, size_t n_items, size_t *used)
{
    const struct step_kind *kind = NULL;
    for (size_t i = 0; i < COUNT_OF(kinds) && n_items > 0 && !kind; i++)
        if (strlen(kinds[i].name) == items[0].len && memcmp(kinds[i].name, items[0].ptr, items[0].len) == 0) kind = &kinds[i];
    if (!kind || n_items <= (size_t)kind->n_args || s->n == STEPS_MAX || (s->n > 0 && s->list[s->n - 1].kind->cuts && !kind->cuts))
        return status_set(KG_ERR_UNSUPPORTED, "kagari.steps: step %zu is unknown, incomplete or at the wrong place", s->n);
    struct step *step = &s->list[s->n++];
    step->kind = kind;
    for (int i = 0; i < kind->n_args; i++) {
        step->args[i] = (struct str){arena_strndup(arena, items[i + 1].ptr, items[i + 1].len), items[i + 1].len};
        if (!step->args[i].ptr) return KG_ERR_MEMORY;
    }
    *used = 1 + (size_t)kind->n_args;
    return KG_OK;
}

kg_status steps_load(struct steps *s, struct arena *arena, const struct str *items, size_t n_items)
{
    for (size_t i = 0, used; i < n_items; i += used) KG_TRY(steps_add(s, arena, items + i, n_items - i, &used));
    return KG_OK;
}

static kg_status run_step(const struct job *j)
{
    const struct step_kind *kind = j->step->kind;
    if (kind->all) return kind->all(j);
    for (size_t i = 0, k; i < j->n; i += k) {
        uint32_t c;
        k = utf8_decode((const uint8_t *)j->text + i, j->n - i, &c);
        KG_TRY(k > 0 ? kind->character(j, c, j->text + i, k) : put(j, j->text + i, k = 1));
    }
    return KG_OK;
}

kg_status steps_run(const struct steps *s, const char *text, size_t n, bool at_start, struct buf *out)
{
    struct buf pair[2] = {{0}, {0}};
    const size_t limit = MAX_GROWTH * n + MAX_EXTRA;
    kg_status st = KG_OK;
    for (size_t i = 0; i < s->n && st == KG_OK; i++) {
        struct buf *to = &pair[i & 1];
        to->len = 0;
        st = run_step(&(struct job){s, &s->list[i], text, n, at_start, limit, to});
        text = to->data;
        n = to->len;
    }
    if (st == KG_OK && n > 0) st = buf_append(out, text, n);
    buf_free(&pair[0]);
    buf_free(&pair[1]);
    return st;
}
