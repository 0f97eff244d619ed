/* Reads what the user types, a line at a time: with editing and history where standard input and output are a terminal. */
#ifndef APP_LINE_H
#define APP_LINE_H

#include "options.h"

struct line;
enum line_result { LINE_TEXT, LINE_CANCELLED, LINE_END }; /* cancelled: by Ctrl-C; end: Ctrl-D, or a signal that ends the program */

struct line *line_open(const struct settings *s); /* NULL: no memory */
void line_close(struct line **l);                 /* keeps the history */
void line_use_utf8(void);                         /* the locale of characters, whatever the environment says */
bool line_is_edited(const struct line *l);
/* A backslash at the end of a line, or a line end in what is pasted, goes on with the next. *text: malloc'ed, without the line end. */
enum line_result line_read(struct line *l, const char *prompt, char **text);

#endif
