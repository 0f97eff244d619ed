/* What may follow in a line that begins with a slash: names of commands, and what they take. Nothing else is completed. */
#ifndef APP_COMPLETE_H
#define APP_COMPLETE_H

#include "options.h"

/* Words that may stand where the one that ends at the cursor stands. */
struct completions {
    char **v;     /* [n], in order; of paths, their last part */
    size_t n;
    size_t start; /* where that word begins, in bytes */
    char *common; /* what to put in its place: what all have in common; if there is only one, also the space or slash after it */
};

/* before: the line up to the cursor. false: nothing to complete, or no memory. completions_free after true. */
bool complete(const struct settings *s, const char *before, struct completions *out);
void completions_free(struct completions *c);

#endif
