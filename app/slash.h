/* The commands that a conversation understands: lines that begin with a slash. */
#ifndef APP_SLASH_H
#define APP_SLASH_H

#include "chat.h"

enum slash_argument { SLASH_NOTHING, SLASH_FILE, SLASH_MODEL, SLASH_BACKEND, SLASH_SAVES }; /* saves: "save" and a file */

struct slash;
struct slash_row {
    const char *name, *aliases, *arg; /* arg NULL: takes none */
    enum slash_argument argument;
    void (*run)(struct slash *x, const char *arg);
    const char *help;
};
const struct slash_row *slash_rows(size_t *n);
const struct slash_row *slash_find(const char *name, size_t n); /* name[0..n), or an alias; NULL: none */

struct slash {
    struct chat *chat;
    FILE *out;    /* where commands print */
    bool leave;   /* /exit was given */
    bool loaded;  /* /load was given: the conversation is another one */
    const char *keys; /* for /help: what keys do; NULL: nothing to add */
    bool cleared; /* /clear was given: what is on the screen is the past */
};

/* Runs a line if it is a command: returns true. "//" begins a message with one slash; *text then points past the first. Errors are printed. */
bool slash_run(struct slash *x, const char *line, const char **text);
/* Saves the conversation where --save-history says, unless it shall not be saved by itself. Returns 0 or an exit code. */
int slash_auto_save(const struct chat *c);

#endif
