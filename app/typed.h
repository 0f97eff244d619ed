/* The lines that the user typed, in this and earlier conversations. */
#ifndef APP_TYPED_H
#define APP_TYPED_H

#include "options.h"

struct typed;
struct typed *typed_open(const struct settings *s); /* NULL: no memory */
void typed_close(struct typed **t);                 /* keeps them in the file of --history-file */
void typed_add(struct typed *t, const char *text);  /* blank lines are not kept */
const char *typed_get(struct typed *t, size_t back); /* 0: the newest; NULL: there is none so far back */
void *typed_libedit(struct typed *t);               /* its History */

#endif
