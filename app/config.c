/* Configuration file and environment. Which keys there are, and what values they take, is in options.def. */
#include "config.h"

#include "commands.h"
#include "input.h"
#include "option_table.h"
#include "print.h"
#include "toml.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the environment -------------------------------------------------------------------------------------- */

static const char *environment(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

static int apply_environment(struct settings *s)
{
    for (size_t i = 0; i < OPT_N; i++) {
        const struct option *o = &option_table[i];
        const char *value = o->env ? environment(o->env) : NULL;
        int code = value ? option_set(s, o, FROM_ENV, o->env, value) : 0;
        if (code) return code;
    }
    return 0;
}

/* ---- the file ------------------------------------------------------------------------------------------------ */

static char *join(const char *a, const char *b)
{
    size_t n = strlen(a) + strlen(b) + 1;
    char *s = malloc(n);
    if (s) snprintf(s, n, "%s%s", a, b);
    return s;
}

/* Where the file is; *must_exist if someone named it. NULL: nowhere. */
static char *find_file(const struct settings *s, bool *must_exist)
{
    const char *named = s->config ? s->config : environment("KAGARI_CONFIG"), *base = environment("XDG_CONFIG_HOME"), *home = environment("HOME");
    *must_exist = named != NULL;
    if (named) return strdup(named);
    if (base && base[0] == '/') return join(base, "/kagari/config.toml"); /* a relative one is to be ignored, says the XDG specification */
    return home ? join(home, "/.config/kagari/config.toml") : NULL;
}

static const char *bare_key(const struct option *o) { return !o->key ? NULL : o->key + (o->key[0] == '!'); }

static const struct option *find_key(const char *key)
{
    for (size_t i = 0; i < OPT_N; i++)
        if (option_table[i].key && strcmp(bare_key(&option_table[i]), key) == 0) return &option_table[i];
    return NULL;
}

/* Keys that the original's README showed and its code never read. */
static const char *foreign_schema(const char *key)
{
    static const struct { const char *start, *instead; } foreign[] = {
        {"model.path", "model.default"},
        {"model.format", "nothing: the format is seen in the file"},
        {"interface.", "those of [ui]"},
        {"logging.", "ui.log_level"},
        {"history.", "those of [session]"},
    };
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++) {
        size_t n = strlen(foreign[i].start);
        if (strncmp(key, foreign[i].start, n) == 0 && (foreign[i].start[n - 1] == '.' || !key[n])) return foreign[i].instead;
    }
    return NULL;
}

static int unknown_key(const struct settings *s, const struct toml_value *v)
{
    const char *instead = foreign_schema(v->key), *nearest = NULL;
    if (instead) return print_error(EXIT_USAGE, "%s:%d: '%s' is a key of another program's configuration; here there is instead: %s", s->config_path, v->line, v->key, instead);
    for (size_t i = 0; i < OPT_N; i++) {
        const char *key = bare_key(&option_table[i]);
        if (key && (!nearest || edit_distance(key, v->key) < edit_distance(nearest, v->key))) nearest = key;
    }
    return print_error(EXIT_USAGE, "%s:%d: unknown key '%s'; the nearest is '%s'", s->config_path, v->line, v->key, nearest);
}

/* What kinds of TOML values an option takes, in words; NULL if this one is fine. */
static const char *wrong_kind(const struct option *o, const struct toml_item *item)
{
    bool text = item->kind == TOML_STRING, integer = item->kind == TOML_INTEGER;
    switch (o->kind) {
    case KIND_FLAG: return item->kind == TOML_BOOLEAN ? NULL : "true or false, without quotes";
    case KIND_INT: return integer ? NULL : "a whole number, without quotes";
    case KIND_REAL: return integer || item->kind == TOML_FLOAT ? NULL : "a number, without quotes";
    case KIND_U64: return integer || text ? NULL : "a whole number, or one in quotes"; /* those of TOML end at 2^63 */
    case KIND_TEXT: return text || (integer && o->arg[0] == 'N') ? NULL : "a text in quotes";
    case KIND_TEXTS: return text ? NULL : "a text in quotes, or an array of such";
    case KIND_CHOICE: return text ? NULL : "a word in quotes";
    case KIND_IDS: break;
    }
    return "given on the command line";
}

/* Paths may begin with ~/ as in a shell. */
static int expand_home(struct toml_item *item)
{
    const char *home = environment("HOME");
    if (strncmp(item->text, "~/", 2) != 0 || !home) return 0;
    char *path = join(home, item->text + 1);
    if (!path) return print_error(EXIT_RUNTIME, "out of memory");
    free(item->text);
    item->text = path;
    return 0;
}

static int apply_value(struct settings *s, const struct toml_value *v)
{
    const struct option *o = find_key(v->key);
    if (!o) return unknown_key(s, v);
    char label[4096 + 320];
    snprintf(label, sizeof label, "%s:%d: %s", s->config_path, v->line, v->key);
    if (v->is_array && o->kind != KIND_TEXTS) return print_error(EXIT_USAGE, "%s: takes one value, not an array", label);
    for (size_t i = 0; i < v->n_items; i++) {
        struct toml_item *item = &v->items[i];
        const char *must_be = wrong_kind(o, item), *value = item->text;
        if (must_be) return print_error(EXIT_USAGE, "%s '%s': must be %s", label, item->text, must_be);
        bool path = o->kind == KIND_TEXT && o->arg && (strncmp(o->arg, "FILE", 4) == 0 || strcmp(o->arg, "DIR") == 0);
        if (path && expand_home(item)) return EXIT_RUNTIME;
        if (o->kind == KIND_TEXT) value = item->text;
        if (o->kind == KIND_FLAG && o->key[0] == '!') value = value[0] == 't' ? "false" : "true";
        int code = option_set(s, o, FROM_FILE, label, value);
        if (code) return code;
    }
    s->line[o - option_table] = v->line;
    return 0;
}

static int apply_file(struct settings *s)
{
    bool must_exist;
    char *text = NULL, error[160];
    size_t len;
    int line, code;
    s->config_path = find_file(s, &must_exist);
    if (!s->config_path || (!must_exist && access(s->config_path, F_OK) != 0 && (errno == ENOENT || errno == ENOTDIR))) return 0;
    if ((code = input_read_file(s->config_path, &text, &len)) != 0) return code;
    s->config_file = calloc(1, sizeof *s->config_file);
    if (!s->config_file) code = print_error(EXIT_RUNTIME, "out of memory");
    else if (!toml_parse(s->config_file, text, len, &line, error)) code = print_error(EXIT_USAGE, "%s:%d: %s", s->config_path, line, error);
    free(text);
    for (size_t i = 0; !code && i < s->config_file->n_values; i++) code = apply_value(s, &s->config_file->values[i]);
    s->config_read = !code;
    return code;
}

int config_apply(struct settings *s)
{
    int code = apply_file(s);
    return code ? code : apply_environment(s);
}

void config_free(struct settings *s)
{
    if (s->config_file) toml_free(s->config_file);
    free(s->config_file);
    free(s->config_path);
}

/* ---- writing -------------------------------------------------------------------------------------------------- */

/* The shortest decimal that reads back as the same number. */
static void write_real(double v, FILE *out)
{
    char text[40];
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v) break;
    }
    fputs(text, out);
}

static void write_texts(const struct texts *t, FILE *out)
{
    fputc('[', out);
    for (size_t i = 0; i < t->n; i++) {
        if (i) fputs(", ", out);
        toml_write_string(out, t->v[i]);
    }
    fputc(']', out);
}

static void write_value(const struct settings *s, const struct option *o, FILE *out)
{
    const void *v = option_field(s, o);
    const char *word;
    size_t len;
    switch (o->kind) {
    case KIND_FLAG: fputs(*(const bool *)v != (o->key[0] == '!') ? "true" : "false", out); break;
    case KIND_INT: fprintf(out, "%lld", (long long)*(const int64_t *)v); break;
    case KIND_U64: fprintf(out, *(const uint64_t *)v > INT64_MAX ? "\"%llu\"" : "%llu", (unsigned long long)*(const uint64_t *)v); break;
    case KIND_REAL: write_real(*(const double *)v, out); break;
    case KIND_TEXT: toml_write_string(out, *(const char *const *)v); break;
    case KIND_TEXTS: write_texts(v, out); break;
    case KIND_CHOICE:
        len = option_choice(o, *(const int *)v, &word);
        fprintf(out, "\"%.*s\"", (int)len, word);
        break;
    case KIND_IDS: break;
    }
}

static void write_origin(const struct settings *s, const struct option *o, FILE *out)
{
    size_t i = (size_t)(o - option_table);
    switch (s->from[i]) {
    case FROM_DEFAULT: fputs("default", out); break;
    case FROM_FILE: fprintf(out, "line %d of the file", s->line[i]); break;
    case FROM_ENV: fprintf(out, "environment: %s", o->env); break;
    case FROM_FLAG: fprintf(out, "command line: --%s", o->name); break;
    }
}

static void write_key(const struct settings *s, const struct option *o, bool save, FILE *out)
{
    const char *name = strchr(bare_key(o), '.') + 1;
    bool by_default = s->from[o - option_table] == FROM_DEFAULT;
    if (by_default && !o->fallback && o->kind != KIND_FLAG) { /* there is no value */
        fprintf(out, "# %s is not set: %s\n", name, o->help);
        return;
    }
    fprintf(out, "%s%s = ", save && by_default ? "# " : "", name);
    write_value(s, o, out);
    if (!save) fputs("  # ", out), write_origin(s, o, out);
    fputc('\n', out);
}

/* Sections in the order of their first keys. */
static void write_sections(const struct settings *s, bool save, FILE *out)
{
    for (size_t i = 0; i < OPT_N; i++) {
        const char *key = bare_key(&option_table[i]);
        if (!key) continue;
        size_t len = strcspn(key, ".") + 1;
        bool seen = false;
        for (size_t k = 0; k < i && !seen; k++) seen = option_table[k].key && strncmp(bare_key(&option_table[k]), key, len) == 0;
        if (seen) continue;
        fprintf(out, "\n[%.*s]\n", (int)len - 1, key);
        for (size_t k = i; k < OPT_N; k++)
            if (option_table[k].key && strncmp(bare_key(&option_table[k]), key, len) == 0) write_key(s, &option_table[k], save, out);
    }
}

void config_print(const struct settings *s, FILE *out)
{
    fputs("# Configuration file: ", out);
    print_plain(out, s->config_path ? s->config_path : "none, there is no home", strlen(s->config_path ? s->config_path : "none, there is no home"));
    if (s->config_path && !s->config_read) fputs(" (not there)", out);
    fputs("\n# Defaults, the file, the environment, the command line: later ones win.\n", out);
    write_sections(s, false, out);
}

int command_config(const struct settings *s)
{
    config_print(s, stdout);
    return 0;
}

/* The folders of a path, as far as they are missing. */
static bool make_folders(const char *path)
{
    char *copy = strdup(path);
    bool good = copy != NULL;
    for (char *p = copy; good && (p = strchr(p + 1, '/')) != NULL; *p = '/') {
        *p = 0;
        good = mkdir(copy, 0777) == 0 || errno == EEXIST;
    }
    free(copy);
    return good;
}

int config_save(const struct settings *s, const char *path, char **written)
{
    if (!path) path = s->config_path;
    if (!path) return print_error(EXIT_RUNTIME, "there is no place for a configuration file: HOME is not set");
    char *part = join(path, ".new");
    FILE *out = part && make_folders(path) ? fopen(part, "w") : NULL;
    bool good = out != NULL;
    if (good) {
        fputs("# Configuration of kagari; lines with # are defaults. 'kagari config' prints what is in effect, 'kagari help config' what it means.\n", out);
        write_sections(s, true, out);
        good = fflush(out) == 0 && !ferror(out) && fsync(fileno(out)) == 0;
        good = fclose(out) == 0 && good;
        good = good && rename(part, path) == 0;
        if (!good) remove(part);
    }
    if (!good) print_error(EXIT_RUNTIME, "cannot write %s: %s", path, strerror(errno));
    free(part);
    if (good && written) *written = strdup(path);
    return good ? 0 : EXIT_RUNTIME;
}
