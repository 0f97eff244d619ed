/* A conversation in full-screen mode: another face of what repl.c shows line by line. */
#ifndef APP_TUI_H
#define APP_TUI_H

#include "chat.h"

bool tui_wanted(const struct settings *s); /* asked for, and there is a terminal */
int tui_run(struct chat *c);               /* returns the exit code when the user leaves */

#endif
