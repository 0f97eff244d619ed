/* Owns the typed text. A line that is longer than the screen is wide goes on in the next row. */
#include "edit.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <wctype.h>

static int columns(wchar_t c)
{
    int w = wcwidth(c);
    return w < 0 ? 1 : w;
}

void edit_free(struct edit *e)
{
    free(e->v);
    *e = (struct edit){0};
}

void edit_insert(struct edit *e, wchar_t c)
{
    if (e->n == e->cap) {
        size_t cap = 2 * e->cap + 64;
        wchar_t *more = realloc(e->v, cap * sizeof *more);
        if (!more) return;
        e->v = more;
        e->cap = cap;
    }
    memmove(e->v + e->at + 1, e->v + e->at, (e->n - e->at) * sizeof *e->v);
    e->v[e->at++] = c;
    e->n++;
}

bool edit_set(struct edit *e, const char *text)
{
    size_t n = mbstowcs(NULL, text, 0);
    wchar_t *v = n == (size_t)-1 ? NULL : calloc(n + 1, sizeof *v);
    if (!v) return false;
    mbstowcs(v, text, n + 1);
    free(e->v);
    *e = (struct edit){v, n, n + 1, n};
    return true;
}

char *edit_text(const struct edit *e, size_t n)
{
    char *text = malloc(n * 4 + MB_LEN_MAX + 1);
    size_t len = 0;
    mbstate_t state = {0};
    if (!text) return NULL;
    for (size_t i = 0; i < n; i++) {
        size_t got = wcrtomb(text + len, e->v[i], &state);
        if (got != (size_t)-1) len += got;
    }
    text[len] = 0;
    return text;
}

void edit_delete(struct edit *e, size_t from, size_t to)
{
    memmove(e->v + from, e->v + to, (e->n - to) * sizeof *e->v);
    e->n -= to - from;
    if (e->at >= to) e->at -= to - from;
    else if (e->at > from) e->at = from;
}

/* Whether place i is within what looks like one character: before a combining mark, or beside a joiner. */
static bool is_inside(const struct edit *e, size_t i)
{
    if (i == 0 || i >= e->n || e->v[i] == L'\n') return false;
    return wcwidth(e->v[i]) == 0 || e->v[i - 1] == 0x200d;
}

size_t edit_left(const struct edit *e, size_t i)
{
    if (i) i--;
    while (is_inside(e, i)) i--;
    return i;
}

size_t edit_right(const struct edit *e, size_t i)
{
    if (i < e->n) i++;
    while (is_inside(e, i)) i++;
    return i;
}

size_t edit_word_left(const struct edit *e, size_t i)
{
    while (i && iswspace((wint_t)e->v[i - 1])) i--;
    while (i && !iswspace((wint_t)e->v[i - 1])) i--;
    return i;
}

size_t edit_word_right(const struct edit *e, size_t i)
{
    while (i < e->n && iswspace((wint_t)e->v[i])) i++;
    while (i < e->n && !iswspace((wint_t)e->v[i])) i++;
    return i;
}

size_t edit_line_start(const struct edit *e, size_t i)
{
    while (i && e->v[i - 1] != L'\n') i--;
    return i;
}

size_t edit_line_end(const struct edit *e, size_t i)
{
    while (i < e->n && e->v[i] != L'\n') i++;
    return i;
}

/* A character that does not fit any more stands in the next row; so does the cursor at the end of a full one. */
struct edit_place edit_next(const struct edit *e, int width, struct edit_place p, size_t i)
{
    wchar_t next = i + 1 < e->n ? e->v[i + 1] : L' ';
    if (e->v[i] == L'\n') return (struct edit_place){p.row + 1, 0};
    p.column += columns(e->v[i]);
    return p.column + (next == L'\n' ? 1 : columns(next)) > width ? (struct edit_place){p.row + 1, 0} : p;
}

struct edit_place edit_place(const struct edit *e, int width, size_t i)
{
    struct edit_place p = {0, 0};
    for (size_t k = 0; k < i && k < e->n; k++) p = edit_next(e, width, p, k);
    return p;
}

size_t edit_at(const struct edit *e, int width, struct edit_place place)
{
    struct edit_place p = {0, 0};
    size_t best = 0;
    for (size_t k = 0; k <= e->n; k++) {
        if (p.row > place.row || (p.row == place.row && p.column > place.column)) break;
        if (!is_inside(e, k)) best = k;
        if (k < e->n) p = edit_next(e, width, p, k);
    }
    return best;
}
