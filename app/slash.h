/* The commands that a conversation understands: lines that begin with a slash. */
#ifndef APP_SLASH_H
#define APP_SLASH_H

#include "chat.h"

struct slash {
    struct chat *chat;
    FILE *out;    /* where commands print */
    bool leave;   /* /exit was given */
    bool cleared; /* /clear was given: what is on the screen is the past */
};

/* Runs a line if it is a command: returns true. "//" begins a message with one slash; *text then points past the first. Errors are printed. */
bool slash_run(struct slash *x, const char *line, const char **text);
/* Saves the conversation where --save-history says, unless it shall not be saved by itself. Returns 0 or an exit code. */
int slash_auto_save(const struct chat *c);

#endif
