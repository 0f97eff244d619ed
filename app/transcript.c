/* Owns texts and their rows. What grows is wrapped again from its last line end on only. */
#include "transcript.h"

#include <stdlib.h>
#include <string.h>
#include <wchar.h>

int transcript_char(const char *text, size_t n, size_t *len)
{
    mbstate_t state = {0};
    wchar_t c;
    size_t got = mbrtowc(&c, text, n, &state);
    *len = got == 0 || got > n ? 1 : got;
    if (got == 0 || got > n) return 1;
    int width = wcwidth(c);
    return width < 0 ? 1 : width;
}

void transcript_begin(struct transcript *t, enum voice voice)
{
    if (t->n == t->cap) {
        size_t cap = 2 * t->cap + 32;
        struct said *more = realloc(t->v, cap * sizeof *more);
        if (!more) return; /* what is not shown is in the conversation all the same */
        t->v = more;
        t->cap = cap;
    }
    t->v[t->n++] = (struct said){.voice = voice};
}

/* A terminal obeys control characters, and tabs have no width of their own. */
void transcript_add(struct transcript *t, const char *text, size_t len)
{
    struct said *s = t->n ? &t->v[t->n - 1] : NULL;
    if (!s) return;
    if (s->n + 4 * len + 1 > s->cap) {
        size_t cap = 2 * (s->n + 4 * len) + 64;
        char *more = realloc(s->text, cap);
        if (!more) return;
        s->text = more;
        s->cap = cap;
    }
    for (size_t i = 0, n; i < len; i += n) {
        mbstate_t state = {0};
        wchar_t c = 0;
        n = mbrtowc(&c, text + i, len - i, &state);
        bool whole = n > 0 && n <= len - i;
        if (!whole) n = 1;
        if (text[i] == '\t') memcpy(s->text + s->n, "    ", 4), s->n += 4;
        else if (!whole) s->text[s->n++] = '?';
        else if (text[i] == '\n' || wcwidth(c) >= 0) memcpy(s->text + s->n, text + i, n), s->n += n;
        else if (c >= 0xa0) memcpy(s->text + s->n, "\xef\xbf\xbd", 3), s->n += 3; /* newer than the locale's tables */
    }
}

void transcript_say(struct transcript *t, enum voice voice, const char *text)
{
    size_t n = t->n;
    transcript_begin(t, voice);
    if (t->n > n) transcript_add(t, text, strlen(text));
}

void transcript_clear(struct transcript *t)
{
    for (size_t i = 0; i < t->n; i++) free(t->v[i].text), free(t->v[i].rows);
    free(t->v);
    t->v = NULL;
    t->n = t->cap = 0;
}

static bool add_row(struct said *s, size_t from)
{
    if (s->n_rows + 2 > s->cap_rows) {
        size_t cap = 2 * s->cap_rows + 16;
        size_t *more = realloc(s->rows, cap * sizeof *more);
        if (!more) return false;
        s->rows = more;
        s->cap_rows = cap;
    }
    s->rows[s->n_rows++] = from;
    return true;
}

/* Rows from byte `from` on, which begins one: at spaces, or within words that are longer than a row. */
static void wrap(struct said *s, size_t from, int width)
{
    size_t after_space = 0; /* 0: there was none in this row */
    int column = 0, since_space = 0;
    if (!add_row(s, from)) return;
    for (size_t i = from, len; i < s->n; i += len) {
        int w = transcript_char(s->text + i, s->n - i, &len);
        if (s->text[i] == '\n') {
            column = since_space = 0;
            after_space = 0;
            if (i + 1 < s->n && !add_row(s, i + 1)) return;
            continue;
        }
        if (column + w > width && s->text[i] != ' ') { /* spaces hang over the edge */
            bool at_space = after_space && since_space + w <= width;
            if (!add_row(s, at_space ? after_space : i)) return;
            column = at_space ? since_space : 0;
            after_space = 0;
        }
        column += w;
        since_space += w;
        if (s->text[i] == ' ') after_space = i + 1, since_space = 0;
    }
}

void transcript_wrap(struct transcript *t, int width)
{
    bool all = width != t->width;
    t->width = width;
    for (size_t i = 0; i < t->n; i++) {
        struct said *s = &t->v[i];
        if (!all && s->n_wrapped == s->n) continue;
        size_t from = 0;
        if (all) s->n_rows = 0;
        while (s->n_rows) {
            from = s->rows[--s->n_rows];
            if (from == 0 || s->text[from - 1] == '\n') break;
        }
        wrap(s, from, width);
        s->n_wrapped = s->n;
        if (s->n_rows) s->rows[s->n_rows] = s->n;
    }
}

static bool is_shown(const struct transcript *t, const struct said *s) { return s->n_rows && (s->voice != VOICE_THINKING || t->show_thinking); }
static bool is_named(const struct said *s) { return s->voice < VOICE_COMMAND; }

/* Rows before its text: a blank one, a name. */
static size_t n_before(const struct said *s, const struct said *last)
{
    bool blank = last && (is_named(s) || is_named(last) || s->voice == VOICE_COMMAND);
    return (size_t)blank + is_named(s);
}

size_t transcript_n_rows(const struct transcript *t)
{
    size_t n = 0;
    const struct said *last = NULL;
    for (size_t i = 0; i < t->n; i++) {
        if (!is_shown(t, &t->v[i])) continue;
        n += n_before(&t->v[i], last) + t->v[i].n_rows;
        last = &t->v[i];
    }
    return n;
}

struct shown_row transcript_row(const struct transcript *t, size_t i)
{
    const struct said *last = NULL;
    for (size_t k = 0; k < t->n; k++) {
        const struct said *s = &t->v[k];
        if (!is_shown(t, s)) continue;
        size_t before = n_before(s, last);
        if (i < before) return (struct shown_row){.said = s, .blank = before - i > (size_t)is_named(s)};
        i -= before;
        if (i < s->n_rows) {
            size_t n = s->rows[i + 1] - s->rows[i];
            const char *text = s->text + s->rows[i];
            while (n && (text[n - 1] == '\n' || text[n - 1] == ' ')) n--;
            return (struct shown_row){.said = s, .text = text, .n = n};
        }
        i -= s->n_rows;
        last = s;
    }
    return (struct shown_row){.blank = true};
}
