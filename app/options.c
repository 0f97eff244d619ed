/* Parses values and the command line by the table of options.def and prints help from it. Does not run anything. */
#include "option_table.h"
#include "config.h"
#include "print.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

const struct option option_table[OPT_N] = {
#define OPTION(kind, field, name, letter, arg, least, most, fallback, used_by, help)                                                  \
    {KIND_##kind, offsetof(struct settings, field), name, letter, arg, least, most, fallback, used_by, NULL, NULL, help},
#define SETTING(kind, field, name, letter, arg, least, most, fallback, used_by, key, env, help)                                       \
    {KIND_##kind, offsetof(struct settings, field), name, letter, arg, least, most, fallback, used_by, key, env, help},
#include "options.def"
#undef OPTION
};

static void *field_of(struct settings *s, const struct option *o) { return (char *)s + o->offset; }

bool option_used_by(const struct option *o, const struct command *c) { return (o->commands | (o->key ? CONFIG : 0)) & c->bit; }

/* ---- nearest names: edit distance (Levenshtein) over one row ------------------------------------------- */

size_t edit_distance(const char *a, const char *b)
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
    const struct option *best = &option_table[0];
    for (size_t i = 1; i < OPT_N; i++)
        if (edit_distance(name, option_table[i].name) < edit_distance(name, best->name)) best = &option_table[i];
    return best;
}

const char *options_nearest_command(const char *name)
{
    const struct command *best = NULL;
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (commands[i].name[0] && (!best || edit_distance(name, commands[i].name) < edit_distance(name, best->name))) best = &commands[i];
    return best->name;
}

const struct command *options_command(const char *name)
{
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0) return &commands[i];
    return NULL;
}

/* ---- values ---------------------------------------------------------------------------------------------- */

static int bad_value(const char *label, const char *value, const char *what) { return print_error(EXIT_USAGE, "%s '%s': must be %s", label, value, what); }

static int parse_flag(bool *flag, const char *label, const char *value)
{
    static const char *const words[] = {"false", "true", "0", "1", "no", "yes", "off", "on"};
    *flag = true;
    for (size_t i = 0; value && i < sizeof words / sizeof *words; i++)
        if (strcmp(value, words[i]) == 0) return *flag = i & 1, 0;
    return !value || strcmp(label, "NO_COLOR") == 0 ? 0 : bad_value(label, value, "true or false"); /* see no-color.org: any value */
}

static int parse_number(struct settings *s, const struct option *o, const char *label, const char *value)
{
    char what[96], *end = NULL;
    bool real = o->kind == KIND_REAL;
    snprintf(what, sizeof what, "%s from %.10g to %.10g", real ? "a number" : "a whole number", o->least, o->most);
    errno = 0;
    if (real) {
        double v = strtod(value, &end);
        if (end == value || *end || !isfinite(v) || v < o->least || v > o->most) return bad_value(label, value, what);
        *(double *)field_of(s, o) = v;
    } else {
        long long v = strtoll(value, &end, 10);
        if (end == value || *end || errno || (double)v < o->least || (double)v > o->most) return bad_value(label, value, what);
        *(int64_t *)field_of(s, o) = v;
    }
    return 0;
}

static int parse_u64(struct settings *s, const struct option *o, const char *label, const char *value)
{
    char *end = NULL;
    errno = 0;
    unsigned long long v = strtoull(value, &end, 10);
    if (value[0] < '0' || value[0] > '9' || *end || errno) return bad_value(label, value, "a whole number from 0 to 18446744073709551615");
    *(uint64_t *)field_of(s, o) = v;
    return 0;
}

size_t option_choice(const struct option *o, int i, const char **word)
{
    const char *p = o->arg;
    for (; i > 0 && p; i--) p = (p = strchr(p, '|')) ? p + 1 : NULL;
    *word = p;
    return p ? strcspn(p, "|") : 0;
}

static int parse_choice(struct settings *s, const struct option *o, const char *label, const char *value)
{
    const char *word;
    size_t len = strlen(value), n;
    for (int i = 0; (n = option_choice(o, i, &word)) > 0; i++) {
        if (len == n && strncmp(word, value, len) == 0) {
            *(int *)field_of(s, o) = i;
            return 0;
        }
    }
    return print_error(EXIT_USAGE, "%s '%s': must be one of %s", label, value, o->arg);
}

static int parse_ids(struct settings *s, const struct option *o, const char *label, const char *value)
{
    struct ids *ids = field_of(s, o);
    size_t most = 1;
    for (const char *p = value; *p; p++) most += *p == ',';
    ids->v = malloc(most * sizeof *ids->v);
    if (!ids->v) return print_error(EXIT_RUNTIME, "out of memory for %s", label);
    for (const char *p = value;; p++) {
        char *end = NULL;
        p += strspn(p, " \t\n");
        errno = 0;
        long long v = strtoll(p, &end, 10);
        const char *after = end + strspn(end, " \t\n");
        if (end == p || errno || v < 0 || v > INT32_MAX || (*after && *after != ','))
            return print_error(EXIT_USAGE, "%s: item %zu, '%.*s', is not a token id", label, ids->n + 1, (int)strcspn(p, ","), p);
        ids->v[ids->n++] = (int32_t)v;
        if (!*after) return 0;
        p = after;
    }
}

static int parse_texts(struct settings *s, const struct option *o, const char *label, const char *value)
{
    struct texts *texts = field_of(s, o);
    if (!*value) return print_error(EXIT_USAGE, "%s: the text is empty", label);
    const char **more = realloc(texts->v, (texts->n + 1) * sizeof *more);
    if (!more) return print_error(EXIT_RUNTIME, "out of memory for %s", label);
    texts->v = more;
    texts->v[texts->n++] = value;
    return 0;
}

int option_set(struct settings *s, const struct option *o, enum source source, const char *label, const char *value)
{
    size_t id = (size_t)(o - option_table);
    if (o->kind == KIND_TEXTS && s->from[id] != source) ((struct texts *)field_of(s, o))->n = 0;
    s->from[id] = source;
    s->given[id] = source != FROM_DEFAULT;
    switch (o->kind) {
    case KIND_FLAG: return parse_flag(field_of(s, o), label, value);
    case KIND_INT:
    case KIND_REAL: return parse_number(s, o, label, value);
    case KIND_U64: return parse_u64(s, o, label, value);
    case KIND_TEXT: *(const char **)field_of(s, o) = value; return 0;
    case KIND_TEXTS: return parse_texts(s, o, label, value);
    case KIND_IDS: return parse_ids(s, o, label, value);
    case KIND_CHOICE: return parse_choice(s, o, label, value);
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
        if (is_named(&option_table[i], word, value) && (!found || option_table[i].commands & command->bit)) found = &option_table[i];
    return found;
}

/* What stands on the command line, in its order. */
struct flag {
    const struct option *o;
    const char *value; /* NULL for a KIND_FLAG */
};
struct flags {
    struct flag *v; /* [n] */
    size_t n;
};

static int read_option(const struct settings *s, struct flags *flags, const char *word, int *i, int argc, char **argv)
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
    for (size_t k = 0; k < flags->n; k++)
        if (flags->v[k].o == o && o->kind != KIND_TEXTS && o->kind != KIND_FLAG) return print_error(EXIT_USAGE, "--%s is given twice", o->name);
    flags->v[flags->n++] = (struct flag){o, value};
    return 0;
}

static int check_used(const struct settings *s)
{
    const struct command *c = s->command;
    for (size_t i = 0; i < OPT_N; i++)
        if (s->from[i] == FROM_FLAG && !option_used_by(&option_table[i], c))
            return print_error(EXIT_USAGE, "--%s is not an option of '%s%s'; see kagari help%s%s", option_table[i].name,
                               c->name[0] ? "kagari " : "kagari", c->name, c->name[0] ? " " : "", c->name);
    return 0;
}

static int most_args(const struct command *c)
{
    int n = c->arg != NULL;
    for (const char *p = c->arg; p && (p = strchr(p, ' ')); p++) n++;
    return n < MOST_ARGS ? n : MOST_ARGS;
}

static int read_words(struct settings *s, struct flags *flags, int argc, char **argv)
{
    bool only_arguments = false;
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        if (!only_arguments && word[0] == '-' && word[1]) {
            if (strcmp(word, "--") == 0) {
                only_arguments = true;
                continue;
            }
            int code = read_option(s, flags, word, &i, argc, argv);
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
    return 0;
}

static int set_flags(struct settings *s, const struct flags *flags, bool only_config)
{
    for (size_t i = 0; i < flags->n; i++) {
        const struct option *o = flags->v[i].o;
        char label[64];
        if (only_config && o != &option_table[OPT_config] && o != &option_table[OPT_help] && o != &option_table[OPT_version]) continue;
        snprintf(label, sizeof label, "--%s", o->name);
        int code = option_set(s, o, FROM_FLAG, label, flags->v[i].value);
        if (code) return code;
    }
    return 0;
}

int options_parse(struct settings *s, int argc, char **argv)
{
    memset(s, 0, sizeof *s);
    s->command = options_command("");
    for (size_t i = 0; i < OPT_N; i++)
        if (option_table[i].fallback && option_set(s, &option_table[i], FROM_DEFAULT, option_table[i].name, option_table[i].fallback)) return EXIT_USAGE;

    struct flags flags = {.v = calloc((size_t)argc + 1, sizeof *flags.v)};
    if (!flags.v) return print_error(EXIT_RUNTIME, "out of memory");
    int code = read_words(s, &flags, argc, argv);
    if (!code) code = set_flags(s, &flags, true);
    bool only_text = s->help || s->version || s->command->bit == HELP; /* help is there even if the configuration is wrong */
    if (!code && !only_text) code = config_apply(s);
    if (!code) code = set_flags(s, &flags, false);
    free(flags.v);
    return code || s->help || s->version ? code : check_used(s);
}

void options_free(struct settings *s)
{
    for (size_t i = 0; i < OPT_N; i++) {
        const struct option *o = &option_table[i];
        if (o->kind == KIND_TEXTS) free(((struct texts *)field_of(s, o))->v);
        if (o->kind == KIND_IDS) free(((struct ids *)field_of(s, o))->v);
    }
    config_free(s);
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
    if (o->env) fprintf(out, " [$%s]", o->env);
    fputc('\n', out);
}

void options_help(const struct command *command, FILE *out)
{
    if (!command->name[0]) {
        fprintf(out, "Usage: kagari [options]            %s\n", command->help);
        fprintf(out, "       kagari COMMAND [options]\n\nCommands:\n");
        for (size_t i = 0; i < N_COMMANDS; i++) {
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
        if (option_used_by(&option_table[i], command)) help_option(&option_table[i], out);
    if (!command->name[0])
        fprintf(out, "\nOnly the generated text goes to standard output. Exit status: 0 done, 1 failed, 2 wrong command line, 130 interrupted.\n");
}
