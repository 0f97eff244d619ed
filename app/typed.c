/* Owns the file of typed lines: libedit's format, readable by its owner only, replaced as a whole. */
#include "typed.h"

#include "print.h"

#include <errno.h>
#include <histedit.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct typed {
    History *history;
    char *path; /* NULL: kept nowhere */
};

static char *find_path(const struct settings *s)
{
    char *path = NULL;
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    if (s->history_file) return strcmp(s->history_file, "none") == 0 ? NULL : strdup(s->history_file);
    int n = state && *state ? asprintf(&path, "%s/kagari/history", state) : home && *home ? asprintf(&path, "%s/.local/state/kagari/history", home) : -1;
    return n < 0 ? NULL : path;
}

struct typed *typed_open(const struct settings *s)
{
    HistEvent event;
    struct typed *t = calloc(1, sizeof *t);
    if (!t || !(t->history = history_init())) {
        free(t);
        return NULL;
    }
    history(t->history, &event, H_SETSIZE, (int)s->max_history);
    history(t->history, &event, H_SETUNIQUE, 1);
    t->path = find_path(s);
    if (t->path && access(t->path, R_OK) == 0 && history(t->history, &event, H_LOAD, t->path) < 0) print_note(LEVEL_WARN, "%s is not a history of lines", t->path);
    return t;
}

static void save(struct typed *t)
{
    HistEvent event;
    char *part = NULL;
    for (char *p = t->path; (p = strchr(p + 1, '/')) != NULL; *p = '/') {
        *p = 0;
        mkdir(t->path, 0700);
    }
    int fd = asprintf(&part, "%s.XXXXXX", t->path) < 0 ? -1 : mkstemp(part); /* readable by its owner only */
    FILE *out = fd >= 0 ? fdopen(fd, "w") : NULL;
    bool good = out && history(t->history, &event, H_SAVE_FP, out) >= 0;
    if (out) good = fclose(out) == 0 && good;
    good = good && rename(part, t->path) == 0;
    if (!good) print_note(LEVEL_WARN, "cannot keep the lines that were typed in %s: %s", t->path, strerror(errno));
    if (!good && fd >= 0) remove(part);
    free(part);
}

void typed_close(struct typed **typed)
{
    struct typed *t = *typed;
    if (!t) return;
    if (t->path) save(t);
    history_end(t->history);
    free(t->path);
    free(t);
    *typed = NULL;
}

void typed_add(struct typed *t, const char *text)
{
    HistEvent event;
    if (text[strspn(text, " \t\n")]) history(t->history, &event, H_ENTER, text);
}

const char *typed_get(struct typed *t, size_t back)
{
    HistEvent event;
    if (history(t->history, &event, H_FIRST) < 0) return NULL;
    while (back-- > 0)
        if (history(t->history, &event, H_NEXT) < 0) return NULL;
    return event.str;
}

void *typed_libedit(struct typed *t) { return t->history; }
