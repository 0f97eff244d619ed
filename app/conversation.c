/* Owns the messages and their form as JSON. A file is not trusted: it is read whole and checked before anything of it is used. */
#include "conversation.h"

#include "input.h"
#include "print.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MOST_MESSAGES = 1000000 };

static char *copy(const char *text) { return text ? strdup(text) : NULL; }

static void free_message(struct message *m)
{
    free(m->role);
    free(m->content);
    free(m->reasoning);
    free(m->tool_calls);
    free(m->timestamp);
}

/* Takes the message over, also on failure. */
static bool add(struct conversation *c, struct message m)
{
    if (c->n == c->cap) {
        size_t cap = 2 * c->cap + 16;
        struct message *more = realloc(c->v, cap * sizeof *more);
        if (!more) {
            free_message(&m);
            return false;
        }
        c->v = more;
        c->cap = cap;
    }
    c->v[c->n++] = m;
    return true;
}

bool conversation_add(struct conversation *c, const char *role, const char *content, const char *reasoning, const char *tool_calls)
{
    char now[32];
    time_t t = time(NULL);
    struct tm utc;
    strftime(now, sizeof now, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&t, &utc));
    struct message m = {copy(role), copy(content), copy(reasoning), copy(tool_calls), copy(now)};
    if (m.role && m.content && m.timestamp && (m.reasoning || !reasoning) && (m.tool_calls || !tool_calls)) return add(c, m);
    free_message(&m);
    return false;
}

const char *conversation_system(const struct conversation *c) { return c->n && strcmp(c->v[0].role, "system") == 0 ? c->v[0].content : NULL; }

bool conversation_set_system(struct conversation *c, const char *text)
{
    bool has = conversation_system(c) != NULL;
    if (text && *text) {
        if (!conversation_add(c, "system", text, NULL, NULL)) return false;
        struct message m = c->v[--c->n];
        if (has) free_message(&c->v[0]);
        else memmove(c->v + 1, c->v, c->n++ * sizeof *c->v);
        c->v[0] = m;
    } else if (has) {
        free_message(&c->v[0]);
        memmove(c->v, c->v + 1, --c->n * sizeof *c->v);
    }
    return true;
}

void conversation_cut(struct conversation *c, size_t n)
{
    while (c->n > n) free_message(&c->v[--c->n]);
}

void conversation_free(struct conversation *c)
{
    conversation_cut(c, 0);
    free(c->v);
    *c = (struct conversation){0};
}

/* ---- files ------------------------------------------------------------------------------------------------------ */

static bool put(json_t *object, const char *key, const char *text)
{
    if (!text) return true;
    json_t *value = json_string(text);
    return value && json_object_set_new(object, key, value) == 0;
}

static json_t *to_json(const struct conversation *c)
{
    json_t *root = json_object(), *list = json_array();
    bool good = root && list;
    for (size_t i = 0; i < c->n && good; i++) {
        const struct message *m = &c->v[i];
        json_t *o = json_object();
        good = o && put(o, "role", m->role) && put(o, "content", m->content) && put(o, "timestamp", m->timestamp) && put(o, "reasoning", m->reasoning) &&
               put(o, "tool_calls", m->tool_calls);
        if (good) good = json_array_append(list, o) == 0;
        json_decref(o);
    }
    if (good) good = json_object_set(root, "messages", list) == 0;
    json_decref(list);
    if (good) return root;
    json_decref(root);
    return NULL;
}

/* So that the new name is there after a loss of power, too. */
static void sync_folder(const char *path)
{
    char *folder = strdup(path), *slash = folder ? strrchr(folder, '/') : NULL;
    if (slash) slash[slash == folder] = 0;
    int fd = folder ? open(slash ? folder : ".", O_RDONLY | O_DIRECTORY) : -1;
    if (fd >= 0) fsync(fd), close(fd);
    free(folder);
}

/* Text into a new file beside path, then under its name. What people say is theirs: nobody else may read it. */
static bool replace_file(const char *path, const char *text)
{
    size_t size = strlen(path) + 8;
    char *part = malloc(size);
    if (!part) return false;
    snprintf(part, size, "%s.XXXXXX", path);
    int fd = mkstemp(part);
    FILE *out = fd >= 0 ? fdopen(fd, "w") : NULL;
    bool good = out && fputs(text, out) >= 0 && fputc('\n', out) >= 0 && fflush(out) == 0 && fsync(fd) == 0;
    if (out) good = fclose(out) == 0 && good;
    else if (fd >= 0) close(fd);
    good = good && rename(part, path) == 0;
    int why = errno;
    if (!good && fd >= 0) remove(part);
    if (good) sync_folder(path);
    errno = why;
    free(part);
    return good;
}

int conversation_save(const struct conversation *c, const char *path)
{
    json_t *root = to_json(c);
    char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    json_decref(root);
    if (!text) return print_error(EXIT_RUNTIME, "cannot save the conversation in %s: out of memory", path);
    bool good = replace_file(path, text);
    free(text);
    return good ? 0 : print_error(EXIT_RUNTIME, "cannot write %s: %s", path, strerror(errno));
}

static char *text_of(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    return v ? copy(json_string_value(v)) : NULL;
}

/* NULL, or what is wrong with a message. */
static const char *check_message(const json_t *o, size_t i)
{
    static const char *const roles[] = {"system", "user", "assistant", "tool"};
    static const char *const optional[] = {"timestamp", "reasoning", "tool_calls"};
    const char *role = json_string_value(json_object_get(o, "role"));
    if (!json_is_object(o)) return "it is not an object";
    if (!role || !json_is_string(json_object_get(o, "content"))) return "role and content must be texts";
    bool known = false;
    for (size_t k = 0; k < sizeof roles / sizeof *roles; k++) known |= strcmp(role, roles[k]) == 0;
    if (!known) return "the role must be system, user, assistant or tool";
    if (i && strcmp(role, "system") == 0) return "only the first message may be of the system";
    for (size_t k = 0; k < sizeof optional / sizeof *optional; k++) {
        const json_t *v = json_object_get(o, optional[k]);
        if (v && !json_is_string(v) && !json_is_null(v) && !(k == 0 && json_is_number(v))) return "timestamp, reasoning and tool_calls must be texts";
    }
    return NULL;
}

static int from_json(struct conversation *c, const json_t *root, const char *path)
{
    const json_t *list = json_object_get(root, "messages");
    if (!json_is_array(list)) return print_error(EXIT_RUNTIME, "%s is no conversation: there is no array \"messages\"", path);
    if (json_array_size(list) > MOST_MESSAGES) return print_error(EXIT_RUNTIME, "%s: more than %d messages", path, MOST_MESSAGES);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *o = json_array_get(list, i);
        const char *wrong = check_message(o, i);
        if (wrong) return print_error(EXIT_RUNTIME, "%s is no conversation: message %zu: %s", path, i + 1, wrong);
        struct message m = {text_of(o, "role"), text_of(o, "content"), text_of(o, "reasoning"), text_of(o, "tool_calls"), text_of(o, "timestamp")};
        if (m.role && m.content && add(c, m)) continue;
        return print_error(EXIT_RUNTIME, "out of memory for %s", path);
    }
    return 0;
}

int conversation_load(struct conversation *c, const char *path)
{
    char *text;
    size_t len;
    int code = input_read_file(path, &text, &len);
    if (code) return code;
    json_error_t error;
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);
    struct conversation read = {0};
    if (!root) code = print_error(EXIT_RUNTIME, "%s is damaged: line %d: %s", path, error.line, error.text);
    else code = from_json(&read, root, path);
    if (code) {
        conversation_free(&read);
    } else {
        conversation_free(c);
        *c = read;
    }
    json_decref(root);
    free(text);
    return code;
}
