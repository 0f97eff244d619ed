/* Three dialects of JSON: Hugging Face's tree, ModelScope's files, the manifests of ollama's registry. */
#include "hub.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_PAGES = 100, MOST_FILES = 20000, MOST_DEPTH = 8 };
static const size_t most_answer = (size_t)16 << 20;

void hub_free(struct hub_listing *l)
{
    for (size_t i = 0; i < l->n; i++) {
        free(l->v[i].path);
        free(l->v[i].url);
    }
    free(l->v);
    *l = (struct hub_listing){0};
}

/* Where a server is; the variable is for mirrors, and for tests. */
static const char *endpoint(const char *variable, const char *fallback)
{
    const char *value = getenv(variable);
    return value && *value ? value : fallback;
}

/* ---- answers -------------------------------------------------------------------------------------------------- */

struct answer {
    char *text;
    size_t n, cap;
    bool too_long;
    bool (*tick)(struct http *h);
};

static bool on_data(struct http *h, const char *data, size_t n)
{
    struct answer *a = h->ctx;
    if (n > most_answer - a->n) {
        a->too_long = true;
        return false;
    }
    if (a->n + n > a->cap) {
        size_t cap = 2 * (a->n + n);
        char *more = realloc(a->text, cap);
        if (!more) return false;
        a->text = more;
        a->cap = cap;
    }
    memcpy(a->text + a->n, data, n);
    a->n += n;
    return true;
}

/* *out, to be released, and in next[1024] the address of the next page. */
static enum http_status get_json(json_t **out, const char *url, const char *token, const char *accept, bool (*tick)(struct http *h), char *next, char *error)
{
    struct answer a = {0};
    struct http h = {.url = url, .token = token, .accept = accept, .data = on_data, .tick = tick, .ctx = &a};
    enum http_status status = http_get(&h);
    *out = NULL;
    if (status != HTTP_OK) {
        snprintf(error, 512, "%s", a.too_long ? "the server's answer is too long" : h.error);
        if (a.too_long) status = HTTP_UNABLE;
        if (h.code == 404) snprintf(error, 512, "there is no such model (%s)", h.error);
        else if (h.code == 401 || h.code == 403)
            snprintf(error, 512, "not allowed (%s): %s", h.error, token ? "the token does not give access; some models want their licence accepted on the web site" : "is there such a model? If it is private or gated, give --token or HF_TOKEN");
    } else {
        json_error_t e;
        *out = json_loadb(a.text ? a.text : "", a.n, JSON_REJECT_DUPLICATES, &e);
        if (!*out) {
            snprintf(error, 512, "the server's answer is not JSON: line %d: %s", e.line, e.text);
            status = HTTP_UNABLE;
        }
        snprintf(next, 1024, "%s", h.next);
    }
    free(a.text);
    return status;
}

/* A path that stays in its folder, of names that every file system and terminal bears. */
static bool safe_path(const char *path)
{
    int depth = 0;
    for (const char *p = path;; p++) {
        size_t n = strcspn(p, "/");
        if (n == 0 || n > HUB_MOST_NAME - 32 || p[0] == '.' || ++depth > MOST_DEPTH) return false; /* no hidden files either */
        for (size_t i = 0; i < n; i++)
            if ((unsigned char)p[i] < 0x20 || p[i] == 0x7f || p[i] == '\\' || p[i] == ':') return false;
        p += n;
        if (!*p) return true;
    }
}

/* Characters other than those that stand for themselves in an address. */
static char *escape(const char *s, bool keep_slash)
{
    char *out = malloc(3 * strlen(s) + 1), *p = out;
    for (; out && *s; s++) {
        bool plain = strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-~", *s) || (keep_slash && *s == '/');
        if (plain) *p++ = *s;
        else p += sprintf(p, "%%%02X", (unsigned)(unsigned char)*s);
    }
    if (out) *p = 0;
    return out;
}

static void copy_hex(char *out, size_t digits, const char *hex)
{
    out[0] = 0;
    if (!hex || strlen(hex) != digits) return;
    for (size_t i = 0; i <= digits; i++) {
        char c = (char)(hex[i] >= 'A' && hex[i] <= 'F' ? hex[i] | 0x20 : hex[i]);
        if (i < digits && !(c && strchr("0123456789abcdef", c))) {
            out[0] = 0;
            return;
        }
        out[i] = c;
    }
}

/* Takes url. A file whose name is not safe is not one for us: false only when memory or the limit ends. */
static bool add_file(struct hub_listing *l, const char *path, char *url, json_int_t bytes, const char *sha256, const char *sha1)
{
    if (!path || bytes < 0 || !safe_path(path)) {
        free(url);
        return true;
    }
    if ((l->n & (l->n - 1)) == 0) {
        struct hub_file *more = l->n < MOST_FILES ? realloc(l->v, (l->n ? 2 * l->n : 1) * sizeof *more) : NULL;
        if (!more) {
            free(url);
            return false;
        }
        l->v = more;
    }
    struct hub_file *f = &l->v[l->n];
    *f = (struct hub_file){.path = strdup(path), .url = url, .bytes = (uint64_t)bytes};
    copy_hex(f->sha256, 64, sha256);
    copy_hex(f->git_sha1, 40, sha1);
    if (!f->path || !url) {
        free(f->path);
        free(url);
        return false;
    }
    l->n++;
    return true;
}

static char *address(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static char *address(const char *fmt, ...)
{
    char *s = NULL;
    va_list args;
    va_start(args, fmt);
    if (vasprintf(&s, fmt, args) < 0) s = NULL;
    va_end(args);
    return s;
}

static enum http_status full(char *error)
{
    snprintf(error, 512, "the server lists too many files, or memory is short");
    return HTTP_UNABLE;
}

static const char *text_of(const json_t *object, const char *key) { return json_string_value(json_object_get(object, key)); }

/* ---- the three servers -------------------------------------------------------------------------------------------- */

static bool add_hf(struct hub_listing *l, const json_t *item, const char *base, const struct model_id *id)
{
    const json_t *lfs = json_object_get(item, "lfs");
    const char *path = text_of(item, "path"), *type = text_of(item, "type");
    if (!path || !type || strcmp(type, "file") != 0) return true;
    char *escaped = escape(path, true), *url = escaped ? address("%s/%s/%s/resolve/main/%s", base, id->owner, id->repo, escaped) : NULL;
    free(escaped);
    return add_file(l, path, url, json_integer_value(json_object_get(item, "size")), text_of(lfs, "oid"), lfs ? NULL : text_of(item, "oid"));
}

static enum http_status list_hf(struct hub_listing *l, const struct model_id *id, const char *token, bool (*tick)(struct http *h), char *error)
{
    const char *base = endpoint("HF_ENDPOINT", "https://huggingface.co");
    char *url = address("%s/api/models/%s/%s/tree/main?recursive=true", base, id->owner, id->repo), next[1024] = "";
    enum http_status status = HTTP_OK;
    for (int page = 0; url && status == HTTP_OK; page++) {
        json_t *root, *item;
        size_t i;
        status = get_json(&root, url, token, NULL, tick, next, error);
        if (status == HTTP_OK && !json_is_array(root)) {
            snprintf(error, 512, "the server's answer is not a list of files");
            status = HTTP_UNABLE;
        }
        json_array_foreach(root, i, item)
            if (status == HTTP_OK && !add_hf(l, item, base, id)) status = full(error);
        json_decref(root);
        free(url);
        url = NULL;
        if (status != HTTP_OK || !next[0]) break;
        if (page + 1 == MOST_PAGES) status = full(error);
        else if (strncmp(next, base, strlen(base)) == 0 && next[strlen(base)] == '/') url = strdup(next); /* elsewhere it would get the token */
    }
    free(url);
    return status;
}

static enum http_status list_ms(struct hub_listing *l, const struct model_id *id, const char *token, bool (*tick)(struct http *h), char *error)
{
    const char *base = endpoint("MODELSCOPE_ENDPOINT", "https://modelscope.cn");
    char *url = address("%s/api/v1/models/%s/%s/repo/files?Revision=master&Recursive=true", base, id->owner, id->repo), next[1024];
    json_t *root = NULL, *item;
    size_t i;
    enum http_status status = url ? get_json(&root, url, token, NULL, tick, next, error) : full(error);
    const json_t *files = json_object_get(json_object_get(root, "Data"), "Files");
    if (status == HTTP_OK && !json_is_array(files)) {
        const char *why = text_of(root, "Message");
        snprintf(error, 512, "the server's answer is not a list of files%s%.200s", why ? ": " : "", why ? why : "");
        status = HTTP_UNABLE;
    }
    json_array_foreach(files, i, item)
    {
        const char *path = text_of(item, "Path"), *type = text_of(item, "Type");
        if (status != HTTP_OK || !path || (type && strcmp(type, "tree") == 0)) continue;
        char *escaped = escape(path, false), *at = escaped ? address("%s/api/v1/models/%s/%s/repo?Revision=master&FilePath=%s", base, id->owner, id->repo, escaped) : NULL;
        free(escaped);
        if (!add_file(l, path, at, json_integer_value(json_object_get(item, "Size")), text_of(item, "Sha256"), NULL)) status = full(error);
    }
    json_decref(root);
    free(url);
    return status;
}

/* The layer with the weights, as a file TAG.gguf. */
static enum http_status list_ollama(struct hub_listing *l, const struct model_id *id, const char *token, bool (*tick)(struct http *h), char *error)
{
    const char *base = endpoint("OLLAMA_REGISTRY", "https://registry.ollama.ai");
    char *url = address("%s/v2/%s/%s/manifests/%s", base, id->owner, id->repo, id->quant), next[1024];
    json_t *root = NULL, *layer;
    size_t i;
    enum http_status status = url ? get_json(&root, url, token, "application/vnd.docker.distribution.manifest.v2+json", tick, next, error) : full(error);
    json_array_foreach(json_object_get(root, "layers"), i, layer)
    {
        const char *type = text_of(layer, "mediaType"), *digest = text_of(layer, "digest");
        char sha256[65], name[80];
        if (!type || !digest || l->n || strcmp(type, "application/vnd.ollama.image.model") != 0 || strncmp(digest, "sha256:", 7) != 0) continue;
        copy_hex(sha256, 64, digest + 7);
        snprintf(name, sizeof name, "%s.gguf", id->quant);
        char *at = sha256[0] ? address("%s/v2/%s/%s/blobs/sha256:%s", base, id->owner, id->repo, sha256) : NULL;
        if (at && !add_file(l, name, at, json_integer_value(json_object_get(layer, "size")), sha256, NULL)) status = full(error);
    }
    if (status == HTTP_OK && l->n == 0) {
        snprintf(error, 512, "the manifest names no GGUF file");
        status = HTTP_UNABLE;
    }
    json_decref(root);
    free(url);
    return status;
}

enum http_status hub_list(struct hub_listing *l, const struct model_id *id, const char *token, bool (*tick)(struct http *h), char *error)
{
    *l = (struct hub_listing){0};
    error[0] = 0;
    switch (id->source) {
    case SOURCE_HF: return list_hf(l, id, token, tick, error);
    case SOURCE_MS: return list_ms(l, id, token, tick, error);
    default: return list_ollama(l, id, token, tick, error);
    }
}
