/* What the user asked for: the command line over the environment over the configuration file over defaults, parsed by the one table of
 * options (options.def) and checked. Knows nothing of what the commands do. */
#ifndef APP_OPTIONS_H
#define APP_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define EXIT_RUNTIME 1 /* the request was fine, doing it failed */
#define EXIT_USAGE 2   /* the command line is wrong */

/* The commands, and which of them use an option: a set of bits, one for each command. */
enum command_id {
#define COMMAND(id, ...) COMMAND_##id,
#include "commands.def"
#undef COMMAND
    N_COMMANDS
};
enum {
#define COMMAND(id, ...) id = 1 << COMMAND_##id,
#include "commands.def"
#undef COMMAND
    EVERYTHING = (int)((1u << N_COMMANDS) - 1),
    MEASURES = IMATRIX | BENCH | PERPLEXITY,
    USES_BACKEND = GENERATE | LOGITS | VERIFY | EMBED,
    USES_MODEL = USES_BACKEND | MEASURES | INFO | TOKENIZE | TEMPLATE,
};

_Static_assert(N_COMMANDS < 31, "a set of commands is an int");

struct settings;
struct command {
    const char *name; /* "" is the command without a name: generate text */
    unsigned bit;
    const char *arg; /* its positional arguments, a word each, for help; NULL: takes none */
    const char *help;
    int (*run)(const struct settings *s); /* returns the exit code */
};
extern const struct command commands[N_COMMANDS];

enum option_id {
#define OPTION(kind, field, ...) OPT_##field,
#include "options.def"
#undef OPTION
    OPT_N
};

/* Where a value comes from; later ones win. */
enum source { FROM_DEFAULT, FROM_FILE, FROM_ENV, FROM_FLAG };

struct ids {
    int32_t *v; /* [n] */
    size_t n;
};
struct texts {
    const char **v; /* [n] */
    size_t n;
};

#define FIELD_FLAG bool
#define FIELD_INT int64_t
#define FIELD_U64 uint64_t
#define FIELD_REAL double
#define FIELD_TEXT const char *
#define FIELD_TEXTS struct texts
#define FIELD_IDS struct ids
#define FIELD_CHOICE int
enum { MOST_ARGS = 3 };
struct settings {
#define OPTION(kind, field, ...) FIELD_##kind field;
#include "options.def"
#undef OPTION
    bool given[OPT_N]; /* not by default ... */
    enum source from[OPT_N]; /* ... but by this */
    int line[OPT_N];           /* in the configuration file */
    char *config_path;         /* the file that was read or would have been; NULL: there is no place for one */
    bool config_read;
    struct toml *config_file; /* what was in it: texts of settings point into it */
    const struct command *command;
    const char *arg; /* the first positional argument; NULL: none */
    const char *args[MOST_ARGS];
    int n_args;
};

/* Fills *s; its texts point into argv, the environment and what it owns. Returns 0, or EXIT_USAGE after one line about the mistake on standard error.
 * options_free in either case. */
int options_parse(struct settings *s, int argc, char **argv);
void options_free(struct settings *s);
/* Help on one command and its options; on all commands too if it is the one without a name. */
void options_help(const struct command *command, FILE *out);
const struct command *options_command(const char *name); /* NULL: no such command */
/* The command or option name nearest to one that is unknown. */
const char *options_nearest_command(const char *name);

#endif
