/* Owns the names of commands; what they do is mostly the chat's. An error is printed and ends nothing. */
#include "slash.h"

#include "config.h"
#include "input.h"
#include "option_table.h"
#include "print.h"

#include <stdlib.h>
#include <string.h>

#define SLASH(name, aliases, takes, argument, function, help) static void function(struct slash *x, const char *arg);
#include "slash.def"
#undef SLASH

static const struct slash_row rows[] = {
#define SLASH(name, aliases, arg, argument, function, help) {name, aliases, arg, argument, function, help},
#include "slash.def"
#undef SLASH
};
enum { N_ROWS = sizeof rows / sizeof *rows };

const struct slash_row *slash_rows(size_t *n)
{
    *n = N_ROWS;
    return rows;
}

static void slash_help(struct slash *x, const char *arg)
{
    (void)arg;
    for (size_t i = 0; i < N_ROWS; i++) {
        char left[64];
        snprintf(left, sizeof left, "%s %s%s%s", rows[i].name, rows[i].aliases, rows[i].arg && *rows[i].aliases ? " " : "", rows[i].arg ? rows[i].arg : "");
        fprintf(x->out, "  %-28s %s\n", left, rows[i].help);
    }
    fputs("A \\ at the end of a line goes on with the next; // begins a message with a slash. TAB completes commands.\nCtrl-C stops an answer or drops a line.\n", x->out);
    if (x->keys) fprintf(x->out, "%s\n", x->keys);
}

static void slash_exit(struct slash *x, const char *arg)
{
    (void)arg;
    x->leave = true;
}

static void slash_clear(struct slash *x, const char *arg)
{
    (void)arg;
    chat_clear(x->chat);
    x->cleared = true;
    fputs("The conversation is forgotten.\n", x->out);
}

static void say_path(struct slash *x, const char *before, const char *path)
{
    fputs(before, x->out);
    print_plain(x->out, path, strlen(path));
    fputc('\n', x->out);
}

static void slash_save(struct slash *x, const char *arg)
{
    const struct settings *s = &x->chat->s;
    const char *path = *arg ? arg : s->save_history ? s->save_history : s->load_history;
    if (!path) print_error(EXIT_USAGE, "/save needs a file: there is no --save-history");
    else if (!conversation_save(&x->chat->talk, path)) say_path(x, "Saved in ", path);
}

static void slash_load(struct slash *x, const char *arg)
{
    struct chat *c = x->chat;
    const char *path = *arg ? arg : c->s.load_history ? c->s.load_history : c->s.save_history;
    struct conversation read = {0};
    if (!path) print_error(EXIT_USAGE, "/load needs a file: there is no --load-history");
    else if (!conversation_load(&read, path)) {
        const char *system = conversation_system(&c->talk); /* stays, if the file has none */
        if (system && !conversation_system(&read)) conversation_set_system(&read, system);
        conversation_free(&c->talk);
        c->talk = read;
        c->first = 0;
        x->loaded = true;
        fprintf(x->out, "%zu messages of ", c->talk.n - (conversation_system(&c->talk) ? 1 : 0));
        say_path(x, "", path);
    }
}

static void slash_system(struct slash *x, const char *arg)
{
    bool removes = strcmp(arg, "\"\"") == 0;
    if (*arg) {
        if (!conversation_set_system(&x->chat->talk, removes ? NULL : arg)) print_error(EXIT_RUNTIME, "out of memory");
        else x->chat->first = 0;
    }
    const char *system = conversation_system(&x->chat->talk);
    if (system) fprintf(x->out, "System prompt: %s\n", system);
    else fputs("There is no system prompt.\n", x->out);
}

static void say_engine(struct slash *x)
{
    const struct chat *c = x->chat;
    say_path(x, "Model ", c->path);
    fprintf(x->out, "%s, %s backend, %s\n", kg_model_arch(c->model), kg_model_backend(c->model),
            c->template ? "with a chat template" : "without a chat template");
}

static void slash_model(struct slash *x, const char *arg)
{
    if (*arg && chat_switch(x->chat, arg, NULL)) return;
    say_engine(x);
}

static void slash_backend(struct slash *x, const char *arg)
{
    if (*arg) {
        if (!chat_switch(x->chat, NULL, arg)) say_engine(x);
        return;
    }
    const char *name, *what;
    for (size_t i = 0; (name = kg_backend_name(i, &what)) != NULL; i++)
        fprintf(x->out, "%c %-10s %s\n", strcmp(name, kg_model_backend(x->chat->model)) == 0 ? '*' : ' ', name, what);
}

static void list_loras(const struct slash *x)
{
    const struct chat *c = x->chat;
    const size_t n = kg_model_n_loras(c->model);
    if (!n) fputs("There are no adapters; /lora FILE takes one.\n", x->out);
    for (size_t i = 0; i < n; i++) {
        fprintf(x->out, "%zu  ", i + 1);
        print_plain(x->out, kg_model_lora(c->model, i), strlen(kg_model_lora(c->model, i)));
        fprintf(x->out, "  %g\n", kg_session_loras(c->session)[i]);
    }
}

/* The adapter that is meant by its number, its path or the end of it; the number of adapters: none. */
static size_t find_lora(const struct chat *c, const char *name, size_t len)
{
    const size_t n = kg_model_n_loras(c->model);
    char *end;
    const unsigned long number = strtoul(name, &end, 10);
    if (len && end == name + len && number >= 1 && number <= n) return number - 1;
    for (size_t i = 0; i < n; i++) {
        const char *path = kg_model_lora(c->model, i), *slash = strrchr(path, '/');
        if ((strlen(path) == len && strncmp(path, name, len) == 0) || (slash && strlen(slash + 1) == len && strncmp(slash + 1, name, len) == 0)) return i;
    }
    return n;
}

static void slash_lora(struct slash *x, const char *arg)
{
    struct chat *c = x->chat;
    double strength;
    bool given;
    const size_t len = input_adapter(arg, &strength, &given), i = find_lora(c, arg, len);
    int code = 0;
    if (strcmp(arg, "none") == 0) code = kg_model_n_loras(c->model) ? chat_add_lora(c, NULL) : 0;
    else if (*arg && i < kg_model_n_loras(c->model)) code = chat_set_lora(c, i, strength);
    else if (*arg && strspn(arg, "0123456789") == len) code = print_error(EXIT_USAGE, "/lora: there is no adapter %.*s; /lora lists them", (int)len, arg);
    else if (*arg) code = chat_add_lora(c, arg);
    if (!code) list_loras(x);
}

static void slash_template(struct slash *x, const char *arg)
{
    (void)arg;
    struct chat *c = x->chat;
    if (!c->template) {
        fputs("This model has no chat template.\n", x->out);
        return;
    }
    c->use_template = !c->use_template;
    fputs(c->use_template ? "Chat template on.\n" : "Chat template off: the model continues the text of the conversation as it stands.\n", x->out);
}

static void slash_stats(struct slash *x, const char *arg)
{
    (void)arg;
    chat_print_stats(x->chat, x->out);
}

static void slash_config(struct slash *x, const char *arg)
{
    if (!*arg) {
        config_print(&x->chat->s, x->out);
        return;
    }
    size_t n = strcspn(arg, " ");
    if (n != 4 || strncmp(arg, "save", 4) != 0) {
        print_error(EXIT_USAGE, "/config '%s': there is only /config and /config save [FILE]", arg);
        return;
    }
    const char *path = arg + n + strspn(arg + n, " ");
    char *written = NULL;
    if (!config_save(&x->chat->s, *path ? path : NULL, &written)) say_path(x, "Saved in ", written ? written : path);
    free(written);
}

int slash_auto_save(const struct chat *c)
{
    if (!c->s.save_history || c->s.no_auto_save || !c->talk.n) return 0;
    return conversation_save(&c->talk, c->s.save_history);
}

/* Whether one of the words is name, n bytes. */
static bool is_word(const char *words, const char *name, size_t n)
{
    for (const char *p = words; *p; p += strspn(p, " ")) {
        size_t len = strcspn(p, " ");
        if (len == n && strncmp(p, name, n) == 0) return true;
        p += len;
    }
    return false;
}

const struct slash_row *slash_find(const char *name, size_t n)
{
    for (size_t i = 0; i < N_ROWS; i++)
        if (is_word(rows[i].name, name, n) || is_word(rows[i].aliases, name, n)) return &rows[i];
    return NULL;
}

/* "~/" as in a shell. */
static void expand_home(char *path, size_t size)
{
    const char *home = getenv("HOME");
    size_t n = home ? strlen(home) : 0, len = strlen(path);
    if (strncmp(path, "~/", 2) != 0 || n == 0 || n + len >= size) return;
    memmove(path + n, path + 1, len);
    memcpy(path, home, n);
}

bool slash_run(struct slash *x, const char *line, const char **text)
{
    *text = line;
    if (line[0] != '/') return false;
    if (line[1] == '/') {
        *text = line + 1;
        return false;
    }
    size_t n = strcspn(line, " \t\n");
    char name[64], arg[4096];
    snprintf(name, sizeof name, "%.*s", (int)n, line);
    if (strlen(line + n) >= sizeof arg) {
        print_error(EXIT_USAGE, "%s: the argument is longer than %zu bytes", name, sizeof arg - 1);
        return true;
    }
    strcpy(arg, line + n + strspn(line + n, " \t\n"));
    for (size_t k = strlen(arg); k && strchr(" \t\n", arg[k - 1]); k--) arg[k - 1] = 0;
    const struct slash_row *nearest = &rows[0], *row = slash_find(line, n);
    if (row) {
        size_t path = row->argument == SLASH_SAVES && strncmp(arg, "save ", 5) == 0 ? 5 + strspn(arg + 5, " ") : 0;
        if (row->argument != SLASH_NOTHING) expand_home(arg + path, sizeof arg - path);
        if (*arg && !row->arg) print_error(EXIT_USAGE, "%s takes no argument", row->name);
        else row->run(x, arg);
        return true;
    }
    for (size_t i = 0; i < N_ROWS; i++)
        if (edit_distance(name, rows[i].name) < edit_distance(name, nearest->name)) nearest = &rows[i];
    print_error(EXIT_USAGE, "unknown command %s; the nearest is %s; /help lists them, // begins a message with a slash", name, nearest->name);
    return true;
}
