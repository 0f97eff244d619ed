/* What all commands print with: error lines, quoted text, sizes. */
#ifndef APP_PRINT_H
#define APP_PRINT_H

#include "kagari.h"

#include <stdbool.h>
#include <stdio.h>

/* One line "kagari: ..." on standard error; returns code. Control characters, which a hostile file might have put into a
 * name, are printed as '?'. */
int print_error(int code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* What is printed besides errors, in the order of --log-level's words; less than the level that was chosen is not. */
enum level { LEVEL_TRACE, LEVEL_DEBUG, LEVEL_INFO, LEVEL_WARN, LEVEL_ERROR };
void print_setup(enum level least, bool color); /* once, before any other thread; until then: LEVEL_INFO, no colour */
bool print_wants(enum level level);
bool print_color(FILE *out); /* is colour wanted, and this a terminal? */
/* A message as print_error's. */
void print_note(enum level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Messages go there instead of standard error, from any thread; to NULL: no more. */
void print_divert(void (*to)(void *ctx, enum level level, const char *line), void *ctx);
/* The same with the library's message; returns the exit code for it. */
int print_status(kg_status status);
/* A JSON string with its quotes. Bytes that are not UTF-8: U+FFFD. */
void print_json(FILE *out, const char *s, size_t len);
/* For people: like JSON, but bytes that are not UTF-8 stand as \xNN. */
void print_quoted(FILE *out, const char *s, size_t len);
/* Without quotes; control characters and bytes that are not UTF-8 stand as '?'. */
void print_plain(FILE *out, const char *s, size_t len);
/* Length of the longest start of s that does not cut a character of UTF-8 in two. */
size_t print_whole(const char *s, size_t len);

#endif
