/* Reads tool calls: JSON objects or arrays of them (Hermes, Qwen, Llama, Granite, Command A), a name and JSON with marks between them
 * (Mistral, Kimi, DeepSeek, gpt-oss), <function=...> with parameters (Qwen Coder), keys and values (GLM). */
#include "text/toolcall.h"

#include <jansson.h>
#include <stdlib.h>

struct text {
    const char *s;
    size_t n;
};

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

static bool is_name(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (c && strchr("_-.:/", c)) || (uint8_t)c >= 0x80; }

static struct text trimmed(const char *s, size_t n)
{
    while (n > 0 && is_space(s[0])) s++, n--;
    while (n > 0 && is_space(s[n - 1])) n--;
    return (struct text){s, n};
}

static const char *find(struct text t, const char *mark) { return memmem(t.s, t.n, mark, strlen(mark)); }
static bool begins(struct text t, const char *mark) { return t.n >= strlen(mark) && memcmp(t.s, mark, strlen(mark)) == 0; }
static struct text before(struct text t, const char *at) { return (struct text){t.s, (size_t)(at - t.s)}; }
static struct text after(struct text t, const char *at, const char *mark)
{
    at += strlen(mark);
    return (struct text){at, t.n - (size_t)(at - t.s)};
}

static json_t *string_of(struct text t) { return json_stringn(t.s, t.n); }

/* The call in its one form; takes arguments over. NULL: out of memory, or not a call. */
static json_t *make_call(json_t *name, json_t *arguments, json_t *id)
{
    json_t *call = NULL;
    if (name && arguments) call = json_pack("{s:s, s:{s:O, s:O}}", "type", "function", "function", "name", name, "arguments", arguments);
    if (call && id) json_object_set(call, "id", id);
    json_decref(name);
    json_decref(arguments);
    json_decref(id);
    return call;
}

/* {"name": ..., "arguments": ...} with the spellings of it. */
static json_t *from_object(json_t *o)
{
    json_t *inner = json_object_get(o, "function"), *name, *arguments, *id = json_object_get(o, "id"), *parsed = NULL;
    if (json_is_object(inner)) o = inner;
    name = json_object_get(o, "name");
    if (!name) name = json_object_get(o, "tool_name");
    if (!name) name = inner; /* {"function": "name"} */
    arguments = json_object_get(o, "arguments");
    if (!arguments) arguments = json_object_get(o, "parameters");
    if (!json_is_string(name)) return NULL;
    if (json_is_string(arguments)) arguments = parsed = json_loadb(json_string_value(arguments), json_string_length(arguments), JSON_DECODE_ANY, NULL);
    json_t *call = make_call(json_incref(name), arguments ? json_incref(arguments) : json_object(), json_incref(id));
    json_decref(parsed);
    return call;
}

static bool add(json_t *calls, json_t *call) { return call && json_array_append_new(calls, call) == 0; }

static bool read_json(json_t *calls, struct text t)
{
    json_t *j = json_loadb(t.s, t.n, 0, NULL);
    bool ok = j != NULL;
    if (json_is_object(j)) ok = add(calls, from_object(j));
    for (size_t i = 0; ok && i < json_array_size(j); i++) ok = add(calls, from_object(json_array_get(j, i)));
    json_decref(j);
    return ok;
}

/* A value that may be JSON or plain text: without the tool's schema, what reads as anything but a string is that. */
static json_t *value_of(struct text t)
{
    struct text core = trimmed(t.s, t.n);
    json_t *j = json_loadb(core.s, core.n, JSON_DECODE_ANY, NULL);
    if (j && !json_is_string(j)) return j;
    json_decref(j);
    if (t.n > 0 && t.s[0] == '\n') t.s++, t.n--;
    if (t.n > 0 && t.s[t.n - 1] == '\n') t.n--;
    return string_of(t);
}

/* Pairs like <parameter=KEY>VALUE</parameter> or <arg_key>KEY</arg_key><arg_value>VALUE</arg_value>, into an object. */
static json_t *read_pairs(struct text t, const char *open, const char *between, const char *close)
{
    json_t *o = json_object();
    for (const char *at; o && (at = find(t, open));) {
        t = after(t, at, open);
        const char *mid = find(t, between), *end = find(t, close);
        if (!mid || !end || end < mid) break;
        struct text key = trimmed(t.s, (size_t)(mid - t.s)), value = after(before(t, end), mid, between);
        if (key.n > 0 && key.n < 1000) json_object_setn_new(o, key.s, key.n, value_of(value));
        t = after(t, end, close);
    }
    return o;
}

static bool read_function(json_t *calls, struct text t)
{
    bool any = false;
    for (const char *at; (at = find(t, "<function="));) {
        t = after(t, at, "<function=");
        const char *name_end = find(t, ">"), *end = find(t, "</function>");
        if (!name_end) return false;
        struct text body = after(end ? before(t, end) : t, name_end, ">");
        if (end && end < name_end) return false;
        if (!add(calls, make_call(string_of(trimmed(t.s, (size_t)(name_end - t.s))), read_pairs(body, "<parameter=", ">", "</parameter>"), NULL))) return false;
        any = true;
        if (!end) break;
        t = after(t, end, "</function>");
    }
    return any;
}

static bool read_keys(json_t *calls, struct text t)
{
    const char *at = find(t, "<arg_key>");
    struct text name = at ? trimmed(t.s, (size_t)(at - t.s)) : t;
    if (name.n == 0) return false;
    for (size_t i = 0; i < name.n; i++)
        if (!is_name(name.s[i])) return false;
    json_t *arguments = json_object();
    for (struct text rest = t; arguments && (at = find(rest, "<arg_key>"));) {
        rest = after(rest, at, "<arg_key>");
        const char *key_end = find(rest, "</arg_key>"), *value = find(rest, "<arg_value>"), *end = find(rest, "</arg_value>");
        if (!key_end || !value || !end || value < key_end || end < value) break;
        struct text key = trimmed(rest.s, (size_t)(key_end - rest.s)), v = after(before(rest, end), value, "<arg_value>");
        if (key.n > 0 && key.n < 1000) json_object_setn_new(arguments, key.s, key.n, value_of(v));
        rest = after(rest, end, "</arg_value>");
    }
    return add(calls, make_call(string_of(name), arguments, NULL));
}

/* NAME separator JSON, with what surrounds names in some models. */
static bool read_marked(json_t *calls, struct text t)
{
    static const char *const separators[] = {"[ARGS]", "<|tool_call_argument_begin|>", "<｜tool▁sep｜>", "<|message|>"};
    const char *at = NULL;
    size_t i = 0;
    for (; i < COUNT_OF(separators) && !(at = find(t, separators[i])); i++) {}
    if (!at) at = memchr(t.s, '{', t.n), i = COUNT_OF(separators);
    if (!at) return false;
    struct text name = before(t, at), rest = i < COUNT_OF(separators) ? after(t, at, separators[i]) : (struct text){at, t.n - (size_t)(at - t.s)};
    json_t *id = NULL;
    const char *mark = find(name, "[CALL_ID]");
    if (mark) {
        struct text number = after(name, mark, "[CALL_ID]");
        number = trimmed(number.s, number.n);
        id = string_of(number);
        name = before(name, mark);
    }
    rest = trimmed(rest.s, rest.n);
    const char *brace = memchr(rest.s, '{', rest.n);
    if (brace && brace > rest.s) { /* "function", separator, name, line end, ```json ... ``` */
        name = before(rest, brace);
        const char *line = memchr(name.s, '\n', name.n);
        if (line) name = before(name, line);
        rest = (struct text){brace, rest.n - (size_t)(brace - rest.s)};
    }
    name = trimmed(name.s, name.n);
    for (size_t k = 0; k < name.n; k++)
        if (is_space(name.s[k]) || (name.s[k] == '<' && k > 0)) name.n = k;
    if (begins(name, "functions.")) name = after(name, name.s, "functions.");
    size_t digits = 0;
    while (digits < name.n && name.s[name.n - 1 - digits] >= '0' && name.s[name.n - 1 - digits] <= '9') digits++;
    if (digits > 0 && digits < name.n && name.s[name.n - 1 - digits] == ':') name.n -= digits + 1;
    json_t *arguments = name.n ? json_loadb(rest.s, rest.n, JSON_DISABLE_EOF_CHECK, NULL) : NULL;
    if (!arguments) {
        json_decref(id);
        return false;
    }
    return add(calls, make_call(string_of(name), arguments, id));
}

static bool read_one(json_t *calls, struct text t)
{
    t = trimmed(t.s, t.n);
    if (t.n == 0) return true;
    if (t.s[0] == '{' || t.s[0] == '[') return read_json(calls, t);
    if (find(t, "<function=")) return read_function(calls, t);
    return find(t, "<arg_key>") ? read_keys(calls, t) : read_marked(calls, t) || read_keys(calls, t);
}

/* Several calls may stand in one section, each behind a mark. */
static bool read_section(json_t *calls, struct text t)
{
    static const char *const begin[] = {"[TOOL_CALLS]", "<|tool_call_begin|>", "<｜tool▁call▁begin｜>"};
    static const char *const end[] = {"[TOOL_CALLS]", "<|tool_call_end|>", "<｜tool▁call▁end｜>"};
    for (size_t i = 0; i < COUNT_OF(begin); i++) {
        const char *at = find(t, begin[i]);
        if (!at) continue;
        if (!read_one(calls, before(t, at))) return false;
        while (at) {
            struct text rest = after(t, at, begin[i]);
            const char *stop = find(rest, end[i]);
            if (!read_one(calls, stop ? before(rest, stop) : rest)) return false;
            at = find(rest, begin[i]);
            t = rest;
        }
        return true;
    }
    return read_one(calls, t);
}

kg_status toolcalls_add(struct toolcalls *t, const char *text, size_t n)
{
    if (!t->calls) t->calls = json_array();
    json_t *section = t->calls ? json_array() : NULL;
    if (!section) return status_set(KG_ERR_MEMORY, "out of memory for tool calls");
    if (!read_section(section, (struct text){text, n})) {
        json_array_clear(section);
        json_t *whole = json_stringn(text, n); /* NULL: not UTF-8 */
        json_array_append_new(section, json_pack("{s:s, s:o}", "type", "unknown", "text", whole ? whole : json_string("")));
    }
    json_array_extend(t->calls, section);
    json_decref(section);
    return KG_OK;
}

kg_status toolcalls_json(const struct toolcalls *t, char **json)
{
    *json = t->calls ? json_dumps(t->calls, 0) : strdup("[]");
    return *json ? KG_OK : status_set(KG_ERR_MEMORY, "out of memory for tool calls");
}

void toolcalls_free(struct toolcalls *t)
{
    json_decref(t->calls);
    t->calls = NULL;
}
