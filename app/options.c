/* Parses the command line by the table of options.def and prints help from it. Does not run anything. */
#include "options.h"

#include "print.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum kind { KIND_FLAG, KIND_INT, KIND_U64, KIND_REAL, KIND_TEXT, KIND_TEXTS, KIND_IDS, KIND_CHOICE };

static const struct option {
    enum kind kind;
    size_t offset; /* of its field in struct settings */
    const char *name;
    char letter;
    const char *arg;
    double least, most;
    const char *fallback;
    unsigned commands;
    const char *help;
} options[OPT_N] = {
#define OPTION(kind, field, name, letter, arg, least, most, fallback, used_by, help)                                                      \
    {KIND_##kind, offsetof(struct settings, field), name, letter, arg, least, most, fallback, used_by, help},
#include "options.def"
#undef OPTION
};

static void *field_of(struct settings *s, const struct option *o) { return (char *)s + o->offset; }

/* ---- nearest names: edit distance (Levenshtein) over one row ------------------------------------------- */

static size_t edit_distance(const char *a, const char *b)
{
    enum { LONGEST = 64 };
    size_t row[LONGEST + 1], na = strnlen(a, LONGEST), nb = strnlen(b, LONGEST);
    for (size_t j = 0; j <= nb; j++) row[j] = j;
    for (size_t i = 1; i <= na; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= nb; j++) {
            size_t change = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            size_t insert = row[j - 1] + 1, drop = row[j] + 1;
            row[j] = change < insert ? change : insert;
            if (drop < row[j]) row[j] = drop;
        }
    }
    return row[nb];
}

static const struct option *nearest_option(const char *name)
{
    const struct option *best = &options[0];
    for (size_t i = 1; i < OPT_N; i++)
        if (edit_distance(name, options[i].name) < edit_distance(name, best->name)) best = &options[i];
    return best;
}

const char *options_nearest_command(const char *name)
{
    const struct command *best = NULL;
    for (size_t i = 0; i < n_commands; i++)
        if (commands[i].name[0] && (!best || edit_distance(name, commands[i].name) < edit_distance(name, best->name))) best = &commands[i];
    return best->name;
}

const struct command *options_command(const char *name)
{
    for (size_t i = 0; i < n_commands; i++)
        if (strcmp(commands[i].name, name) == 0) return &commands[i];
    return NULL;
}

/* ---- values ---------------------------------------------------------------------------------------------- */

static int bad_value(const struct option *o, const char *value, const char *what)
{
    return print_error(EXIT_USAGE, "--%s '%s': must be %s", o->name, value, what);
}

static int parse_number(struct settings *s, const struct option *o, const char *value)
{
    char what[96], *end = NULL;
    bool real = o->kind == KIND_REAL;
    snprintf(what, sizeof what, "%s from %.10g to %.10g", real ? "a number" : "a whole number", o->least, o->most);
    errno = 0;
    if (real) {
        double v = strtod(value, &end);
        if (end == value || *end || !isfinite(v) || v < o->least || v > o->most) return bad_value(o, value, what);
        *(double *)field_of(s, o) = v;
    } else {
        long long v = strtoll(value, &end, 10);
        if (end == value || *end || errno || (double)v < o->least || (double)v > o->most) return bad_value(o, value, what);
        *(int64_t *)field_of(s, o) = v;
    }
    return 0;
}

static int parse_u64(struct settings *s, const struct option *o, const char *value)
{
    char *end = NULL;
    errno = 0;
    unsigned long long v = strtoull(value, &end, 10);
    if (value[0] < '0' || value[0] > '9' || *end || errno) return bad_value(o, value, "a whole number from 0 to 18446744073709551615");
    *(uint64_t *)field_of(s, o) = v;
    return 0;
}

static int parse_choice(struct settings *s, const struct option *o, const char *value)
{
    size_t len = strlen(value);
    int i = 0;
    for (const char *p = o->arg; p; p = strchr(p, '|'), i++) {
        if (*p == '|') p++;
        if (len == strcspn(p, "|") && strncmp(p, value, len) == 0) {
            *(int *)field_of(s, o) = i;
            return 0;
        }
    }
    return print_error(EXIT_USAGE, "--%s '%s': must be one of %s", o->name, value, o->arg);
}

static int parse_ids(struct settings *s, const struct option *o, const char *value)
{
    struct ids *ids = field_of(s, o);
    size_t most = 1;
    for (const char *p = value; *p; p++) most += *p == ',';
    ids->v = malloc(most * sizeof *ids->v);
    if (!ids->v) return print_error(EXIT_RUNTIME, "out of memory for --%s", o->name);
    for (const char *p = value;; p++) {
        char *end = NULL;
        p += strspn(p, " \t\n");
        errno = 0;
        long long v = strtoll(p, &end, 10);
        const char *after = end + strspn(end, " \t\n");
        if (end == p || errno || v < 0 || v > INT32_MAX || (*after && *after != ','))
            return print_error(EXIT_USAGE, "--%s: item %zu, '%.*s', is not a token id", o->name, ids->n + 1, (int)strcspn(p, ","), p);
        ids->v[ids->n++] = (int32_t)v;
        if (!*after) return 0;
        p = after;
    }
}

static int parse_texts(struct settings *s, const struct option *o, const char *value)
{
    struct texts *texts = field_of(s, o);
    if (!*value) return print_error(EXIT_USAGE, "--%s: the text is empty", o->name);
    const char **more = realloc(texts->v, (texts->n + 1) * sizeof *more);
    if (!more) return print_error(EXIT_RUNTIME, "out of memory for --%s", o->name);
    texts->v = more;
    texts->v[texts->n++] = value;
    return 0;
}

static int parse_value(struct settings *s, const struct option *o, const char *value)
{
    switch (o->kind) {
    case KIND_FLAG: *(bool *)field_of(s, o) = true; return 0;
    case KIND_INT:
    case KIND_REAL: return parse_number(s, o, value);
    case KIND_U64: return parse_u64(s, o, value);
    case KIND_TEXT: *(const char **)field_of(s, o) = value; return 0;
    case KIND_TEXTS: return parse_texts(s, o, value);
    case KIND_IDS: return parse_ids(s, o, value);
    case KIND_CHOICE: return parse_choice(s, o, value);
    }
    return EXIT_USAGE;
}

/* ---- the command line -------------------------------------------------------------------------------------- */

/* "--name", "--name=value", "-x" or "-xvalue": *value is set if it is part of the word. */
static bool is_named(const struct option *o, const char *word, const char **value)
{
    if (word[1] == '-') {
        size_t len = strcspn(word + 2, "=");
        if (strlen(o->name) != len || strncmp(o->name, word + 2, len) != 0) return false;
        *value = word[2 + len] ? word + 2 + len + 1 : NULL;
        return true;
    }
    if (!o->letter || o->letter != word[1]) return false;
    *value = word[2] ? word + 2 : NULL;
    return true;
}

/* Where options share a name, that of the command so far. */
static const struct option *find_option(const struct command *command, const char *word, const char **value)
{
    const struct option *found = NULL;
    for (size_t i = 0; i < OPT_N; i++)
        if (is_named(&options[i], word, value) && (!found || options[i].commands & command->bit)) found = &options[i];
    return found;
}

static int parse_option(struct settings *s, const char *word, int *i, int argc, char **argv)
{
    const char *value = NULL;
    const struct option *o = find_option(s->command, word, &value);
    if (!o) {
        if (word[1] != '-') return print_error(EXIT_USAGE, "unknown option %s; see kagari --help", word);
        char name[64];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(word + 2, "="), word + 2);
        return print_error(EXIT_USAGE, "unknown option --%s; the nearest is --%s", name, nearest_option(name)->name);
    }
    if (o->kind == KIND_FLAG && value) return print_error(EXIT_USAGE, "--%s takes no value", o->name);
    if (o->kind != KIND_FLAG && !value) {
        if (*i + 1 >= argc) return print_error(EXIT_USAGE, "--%s needs a value: %s", o->name, o->arg);
        value = argv[++*i];
    }
    bool *given = &s->given[o - options];
    if (*given && o->kind != KIND_TEXTS && o->kind != KIND_FLAG) return print_error(EXIT_USAGE, "--%s is given twice", o->name);
    *given = true;
    return parse_value(s, o, value);
}

static int check_used(const struct settings *s)
{
    const struct command *c = s->command;
    for (size_t i = 0; i < OPT_N; i++)
        if (s->given[i] && !(options[i].commands & c->bit))
            return print_error(EXIT_USAGE, "--%s is not an option of '%s%s'; see kagari help%s%s", options[i].name,
                               c->name[0] ? "kagari " : "kagari", c->name, c->name[0] ? " " : "", c->name);
    return 0;
}

static int most_args(const struct command *c)
{
    int n = c->arg != NULL;
    for (const char *p = c->arg; p && (p = strchr(p, ' ')); p++) n++;
    return n < MOST_ARGS ? n : MOST_ARGS;
}

int options_parse(struct settings *s, int argc, char **argv)
{
    memset(s, 0, sizeof *s);
    s->command = options_command("");
    for (size_t i = 0; i < OPT_N; i++)
        if (options[i].fallback && parse_value(s, &options[i], options[i].fallback)) return EXIT_USAGE;

    bool only_arguments = false;
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        if (!only_arguments && word[0] == '-' && word[1]) {
            if (strcmp(word, "--") == 0) {
                only_arguments = true;
                continue;
            }
            int code = parse_option(s, word, &i, argc, argv);
            if (code) return code;
        } else if (!s->command->name[0]) {
            const struct command *c = *word ? options_command(word) : NULL;
            if (!c) return print_error(EXIT_USAGE, "unknown command '%s'; the nearest is '%s'; a prompt needs -p", word, options_nearest_command(word));
            s->command = c;
        } else if (s->n_args == most_args(s->command)) {
            return print_error(EXIT_USAGE, "'kagari %s': unexpected argument '%s'", s->command->name, word);
        } else {
            if (s->n_args == 0) s->arg = word;
            s->args[s->n_args++] = word;
        }
    }
    return s->help || s->version ? 0 : check_used(s);
}

void options_free(struct settings *s)
{
    free(s->tokens.v);
    free(s->stop.v);
    memset(s, 0, sizeof *s);
}

/* ---- help ----------------------------------------------------------------------------------------------------- */

static void help_option(const struct option *o, FILE *out)
{
    char left[64], letter[] = "    ";
    if (o->letter) snprintf(letter, sizeof letter, "-%c, ", o->letter);
    snprintf(left, sizeof left, "%s--%s %s", letter, o->name, o->arg ? o->arg : "");
    fprintf(out, "  %-32s %s", left, o->help);
    if (o->fallback) fprintf(out, " [%s]", o->fallback);
    fputc('\n', out);
}

void options_help(const struct command *command, FILE *out)
{
    if (!command->name[0]) {
        fprintf(out, "Usage: kagari [options]            %s\n", command->help);
        fprintf(out, "       kagari COMMAND [options]\n\nCommands:\n");
        for (size_t i = 0; i < n_commands; i++) {
            char left[48];
            if (!commands[i].name[0]) continue;
            snprintf(left, sizeof left, "%s %s", commands[i].name, commands[i].arg ? commands[i].arg : "");
            fprintf(out, "  %-18s %s\n", left, commands[i].help);
        }
        fprintf(out, "\nOptions without a command:\n");
    } else {
        fprintf(out, "Usage: kagari %s [options] %s\n%s.\n\nOptions:\n", command->name, command->arg ? command->arg : "", command->help);
    }
    for (size_t i = 0; i < OPT_N; i++)
        if (options[i].commands & command->bit) help_option(&options[i], out);
    if (!command->name[0])
        fprintf(out, "\nOnly the generated text goes to standard output. Exit status: 0 done, 1 failed, 2 wrong command line, 130 interrupted.\n");
}
