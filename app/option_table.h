/* options.def as a table, for those who parse it, write it down or describe it to other programs. */
#ifndef APP_OPTION_TABLE_H
#define APP_OPTION_TABLE_H

#include "options.h"

enum kind { KIND_FLAG, KIND_INT, KIND_U64, KIND_REAL, KIND_TEXT, KIND_TEXTS, KIND_IDS, KIND_CHOICE };

struct option {
    enum kind kind;
    size_t offset; /* of its field in struct settings */
    const char *name;
    char letter; /* 0: none */
    const char *arg;
    double least, most;
    const char *fallback;
    unsigned commands;
    const char *key; /* "section.key" in the configuration file, "!section.key" if it is the opposite of the flag; NULL: none */
    const char *env; /* NULL: none */
    const char *help;
};
extern const struct option option_table[OPT_N];

static inline const void *option_field(const struct settings *s, const struct option *o) { return (const char *)s + o->offset; }
bool option_used_by(const struct option *o, const struct command *c);
/* Parses a value as it stands on the command line (NULL for a flag: true) into its field. label is the option for error messages:
 * "--top-k". Of several values of a KIND_TEXTS, those of a new source replace those of the one before. */
int option_set(struct settings *s, const struct option *o, enum source source, const char *label, const char *value);
/* The i-th word of a CHOICE; 0 if there is none. */
size_t option_choice(const struct option *o, int i, const char **word);
size_t edit_distance(const char *a, const char *b);

#endif
