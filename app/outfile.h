/* A file that appears under its name, or replaces what was there, only when it is complete. */
#ifndef APP_OUTFILE_H
#define APP_OUTFILE_H

#include <stdio.h>

struct outfile {
    FILE *f;
    const char *path;
    char *temporary;
};

/* Returns 0, or an exit code after one line about why. path must live as long as o. */
int outfile_open(struct outfile *o, const char *path);
/* Puts the file in place if code, what became of the caller's work, is 0, else removes it. Returns code, or that of its own failure. o may be zeroed. */
int outfile_close(struct outfile *o, int code);

#endif
