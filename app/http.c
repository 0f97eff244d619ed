/* One request after the other. */
#include "http.h"

#include "kagari.h"
#include "print.h"

#include <curl/curl.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_REDIRECTS = 8, CONNECT_SECONDS = 30, STALLED_SECONDS = 60 };

/* ---- addresses --------------------------------------------------------------------------------------------- */

struct address {
    char *scheme, *host, *port, *path;
};

static void free_address(struct address *a)
{
    curl_free(a->scheme);
    curl_free(a->host);
    curl_free(a->port);
    curl_free(a->path);
}

static bool read_address(struct address *a, const char *url)
{
    CURLU *u = curl_url();
    *a = (struct address){0};
    bool good = u && curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK && curl_url_get(u, CURLUPART_SCHEME, &a->scheme, 0) == CURLUE_OK &&
                curl_url_get(u, CURLUPART_HOST, &a->host, 0) == CURLUE_OK && curl_url_get(u, CURLUPART_PORT, &a->port, CURLU_DEFAULT_PORT) == CURLUE_OK &&
                curl_url_get(u, CURLUPART_PATH, &a->path, 0) == CURLUE_OK;
    curl_url_cleanup(u);
    return good;
}

static bool same_server(const struct address *a, const struct address *b)
{
    return strcmp(a->scheme, b->scheme) == 0 && strcasecmp(a->host, b->host) == 0 && strcmp(a->port, b->port) == 0;
}

static bool is_loopback(const char *host) { return strcmp(host, "localhost") == 0 || strncmp(host, "127.", 4) == 0 || strcmp(host, "[::1]") == 0; }

/* ---- callbacks ---------------------------------------------------------------------------------------------- */

struct transfer {
    struct http *h;
    CURL *curl;
    bool started, stopped;
};

static bool starts(const char *line, size_t n, const char *name) { return n > strlen(name) && strncasecmp(line, name, strlen(name)) == 0; }

/* Link: <address>; rel="next" */
static void read_link(struct http *h, const char *line)
{
    const char *rel = strstr(line, "rel=\"next\""), *end = rel, *begin;
    while (end && end > line && *end != '>') end--;
    for (begin = end; begin && begin > line && *begin != '<';) begin--;
    if (begin && *begin == '<' && end > begin && (size_t)(end - begin) < sizeof h->next) snprintf(h->next, sizeof h->next, "%.*s", (int)(end - begin - 1), begin + 1);
}

static size_t on_header(char *data, size_t size, size_t n, void *ctx)
{
    struct http *h = ((struct transfer *)ctx)->h;
    char line[2048];
    snprintf(line, sizeof line, "%.*s", (int)(n < sizeof line ? n : sizeof line - 1), data);
    unsigned long long from, to, total;
    if (starts(line, n, "HTTP/")) h->has_range = false, h->next[0] = 0;
    else if (starts(line, n, "Link:")) read_link(h, line);
    else if (starts(line, n, "Content-Range:") && sscanf(line + 14, " bytes %llu-%llu/%llu", &from, &to, &total) == 3 && to < total && from <= to)
        h->has_range = true, h->range_from = from, h->range_total = total;
    return size * n;
}

static size_t on_data(char *data, size_t size, size_t n, void *ctx)
{
    struct transfer *t = ctx;
    curl_easy_getinfo(t->curl, CURLINFO_RESPONSE_CODE, &t->h->code);
    if (t->h->code < 200 || t->h->code >= 300) return size * n; /* a page about the error: not what was asked for */
    if (!t->started && t->h->start && !t->h->start(t->h)) t->stopped = true;
    t->started = true;
    if (!t->stopped && !t->h->data(t->h, data, size * n)) t->stopped = true;
    return t->stopped ? 0 : size * n;
}

static int on_tick(void *ctx, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    struct transfer *t = ctx;
    (void)a, (void)b, (void)c, (void)d;
    if (t->h->tick && !t->h->tick(t->h)) t->stopped = true;
    return t->stopped;
}

/* ---- requests ------------------------------------------------------------------------------------------------- */

static struct curl_slist *headers(const struct http *h, const char *token)
{
    struct curl_slist *list = NULL, *more;
    char line[4200];
    if (h->accept) {
        snprintf(line, sizeof line, "Accept: %s", h->accept);
        list = curl_slist_append(NULL, line);
    }
    if (token) {
        snprintf(line, sizeof line, "Authorization: Bearer %s", token);
        more = curl_slist_append(list, line);
        memset(line, 0, sizeof line);
        if (more) list = more;
    }
    return list;
}

static void set_options(struct transfer *t, const char *url, struct curl_slist *list, char *error)
{
    CURL *c = t->curl;
    char range[32];
    curl_easy_setopt(c, CURLOPT_URL, url);
    curl_easy_setopt(c, CURLOPT_HTTPHEADER, list);
    curl_easy_setopt(c, CURLOPT_ERRORBUFFER, error);
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_USERAGENT, "kagari/" KG_VERSION);
    curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_SECONDS);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, (long)STALLED_SECONDS);
#if LIBCURL_VERSION_NUM >= 0x075500
    curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
#else
    curl_easy_setopt(c, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
    curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(c, CURLOPT_HEADERDATA, t);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, on_tick);
    curl_easy_setopt(c, CURLOPT_XFERINFODATA, t);
    snprintf(range, sizeof range, "%llu-", (unsigned long long)t->h->from);
    curl_easy_setopt(c, CURLOPT_RANGE, t->h->from ? range : NULL);
}

/* One request; *redirect (free) is where the answer sends us. */
static enum http_status get_once(struct transfer *t, const char *url, const struct address *at, const char *token, char **redirect)
{
    char error[CURL_ERROR_SIZE] = "", *to = NULL;
    struct http *h = t->h;
    struct curl_slist *list = headers(h, token);
    curl_easy_reset(t->curl);
    set_options(t, url, list, error);
    print_note(LEVEL_TRACE, "GET %s://%s:%s%s%s", at->scheme, at->host, at->port, at->path, h->from ? ", from where it stopped" : "");
    h->code = 0;
    CURLcode result = curl_easy_perform(t->curl);
    curl_slist_free_all(list);
    curl_easy_getinfo(t->curl, CURLINFO_RESPONSE_CODE, &h->code);
    curl_easy_getinfo(t->curl, CURLINFO_REDIRECT_URL, &to);
    if (t->stopped) return HTTP_STOPPED;
    if (result != CURLE_OK) {
        snprintf(h->error, sizeof h->error, "%s: %s", at->host, curl_easy_strerror(result));
        bool hopeless = result == CURLE_UNSUPPORTED_PROTOCOL || result == CURLE_URL_MALFORMAT || result == CURLE_PEER_FAILED_VERIFICATION || result == CURLE_SSL_CACERT_BADFILE;
        return hopeless ? HTTP_UNABLE : HTTP_FAILED;
    }
    if (to && h->code >= 300 && h->code < 400) {
        *redirect = strdup(to);
        return HTTP_REFUSED;
    }
    if (h->code < 200 || h->code >= 300) {
        snprintf(h->error, sizeof h->error, "%s answers with status %ld", at->host, h->code);
        return h->code >= 500 || h->code == 429 ? HTTP_FAILED : HTTP_REFUSED;
    }
    return !t->started && h->start && !h->start(h) ? HTTP_STOPPED : HTTP_OK; /* an empty answer begins too */
}

static enum http_status follow(struct transfer *t, char *url)
{
    struct http *h = t->h;
    struct address first, at;
    enum http_status status = HTTP_UNABLE;
    if (!read_address(&first, url)) {
        snprintf(h->error, sizeof h->error, "an address cannot be understood");
        free_address(&first);
        free(url);
        return HTTP_UNABLE;
    }
    for (int i = 0; i <= MOST_REDIRECTS && url; i++) {
        char *redirect = NULL;
        bool good = read_address(&at, url), downgrade = good && strcmp(first.scheme, "https") == 0 && strcmp(at.scheme, "https") != 0;
        const char *token = good && same_server(&first, &at) ? h->token : NULL;
        if (!good || downgrade) snprintf(h->error, sizeof h->error, "%s redirects to %s", first.host, downgrade ? "an unsafe connection" : "an address that cannot be understood"), status = HTTP_UNABLE;
        else if (token && strcmp(at.scheme, "https") != 0 && !is_loopback(at.host)) snprintf(h->error, sizeof h->error, "%s: a token is not sent over plain http", at.host), status = HTTP_UNABLE;
        else status = get_once(t, url, &at, token, &redirect);
        free_address(&at);
        free(url);
        url = redirect;
    }
    if (url) snprintf(h->error, sizeof h->error, "%s redirects too often", first.host), status = HTTP_UNABLE;
    free(url);
    free_address(&first);
    return status;
}

enum http_status http_get(struct http *h)
{
    static bool ready;
    struct transfer t = {.h = h};
    h->error[0] = h->next[0] = 0;
    h->has_range = false;
    if (!ready) ready = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
    t.curl = ready ? curl_easy_init() : NULL;
    char *url = t.curl ? strdup(h->url) : NULL;
    if (h->token && (strlen(h->token) > 4096 || strpbrk(h->token, "\r\n"))) {
        snprintf(h->error, sizeof h->error, "the token is not one");
        free(url);
        curl_easy_cleanup(t.curl);
        return HTTP_UNABLE;
    }
    if (!url) snprintf(h->error, sizeof h->error, "libcurl cannot be started");
    enum http_status status = url ? follow(&t, url) : HTTP_UNABLE;
    curl_easy_cleanup(t.curl);
    return status;
}
