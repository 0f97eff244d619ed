/* A bar on the terminal that shows errors, for work that takes long: overwritten in place, removed at the end. */
#ifndef APP_PROGRESS_H
#define APP_PROGRESS_H

#include "options.h"

struct progress {
    const char *what;
    bool wanted, shown;
    bool bytes;           /* what is counted, for rates */
    uint64_t first;       /* that was done before this began */
    double start, last;   /* seconds */
};

/* Shows nothing with --no-progress, or where standard error is no terminal. what must live as long as p. */
void progress_begin(struct progress *p, const struct settings *s, const char *what, bool bytes, uint64_t first);
void progress_show(struct progress *p, uint64_t done, uint64_t total); /* cheap: at most ten times a second it prints */
void progress_end(struct progress *p);
/* "3.9 GiB" */
void progress_size(char out[static 16], uint64_t bytes);

#endif
