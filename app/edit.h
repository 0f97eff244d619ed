/* A text that is being typed: several lines, a cursor, and what keys do to them. */
#ifndef APP_EDIT_H
#define APP_EDIT_H

#include <stdbool.h>
#include <stddef.h>
#include <wchar.h>

struct edit {
    wchar_t *v; /* [n] */
    size_t n, cap;
    size_t at; /* the cursor stands before this one */
};

void edit_free(struct edit *e);
void edit_insert(struct edit *e, wchar_t c);
bool edit_set(struct edit *e, const char *text);           /* UTF-8; the cursor at its end */
char *edit_text(const struct edit *e, size_t n);           /* its first n characters as UTF-8, malloc'ed; NULL: no memory */
void edit_delete(struct edit *e, size_t from, size_t to);  /* the cursor follows */

/* Where the cursor may go from place i: characters with what is combined with them, words, the ends of its line. */
size_t edit_left(const struct edit *e, size_t i);
size_t edit_right(const struct edit *e, size_t i);
size_t edit_word_left(const struct edit *e, size_t i);
size_t edit_word_right(const struct edit *e, size_t i);
size_t edit_line_start(const struct edit *e, size_t i);
size_t edit_line_end(const struct edit *e, size_t i);

/* On a screen so many columns wide. */
struct edit_place {
    int row, column;
};
struct edit_place edit_place(const struct edit *e, int width, size_t i);
struct edit_place edit_next(const struct edit *e, int width, struct edit_place p, size_t i); /* of i + 1, if that of i is p */
size_t edit_at(const struct edit *e, int width, struct edit_place place); /* the place there, or the nearest before it */

#endif
