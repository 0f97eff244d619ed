/* A conversation on a terminal, or line by line through pipes. */
#ifndef APP_REPL_H
#define APP_REPL_H

#include "options.h"

/* What the command without a name does if it is to be a conversation. Returns the exit code. */
int repl_run(const struct settings *s);

#endif
