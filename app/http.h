/* GET over HTTP and HTTPS, through libcurl. Follows redirects itself, so that a token goes to the server that it is for and to no other. */
#ifndef APP_HTTP_H
#define APP_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum http_status {
    HTTP_OK,      /* an answer of 2xx was received whole */
    HTTP_REFUSED, /* an answer, but not 2xx: see code */
    HTTP_FAILED,  /* no answer, or not a whole one: trying again may help */
    HTTP_STOPPED, /* a callback said so */
    HTTP_UNABLE,  /* trying again will not help: a bad address, a certificate, a token for an unsafe connection */
};

struct http {
    const char *url;
    const char *token;  /* sent as "Authorization: Bearer ..." to the server of url only; NULL: none */
    const char *accept; /* NULL: anything */
    uint64_t from;      /* the first byte that is wanted; 0: all */
    bool (*start)(struct http *h);                              /* an answer of 2xx begins; may be NULL */
    bool (*data)(struct http *h, const char *data, size_t n);
    bool (*tick)(struct http *h);                               /* now and then, also while nothing comes; may be NULL */
    void *ctx;
    /* the answer */
    long code;            /* 200, 404, ... */
    bool has_range;       /* only a part, from range_from of range_total bytes */
    uint64_t range_from, range_total;
    char next[1024];      /* address of the next page (Link: <...>; rel="next"); "": none */
    char error[320];      /* of anything but HTTP_OK; never holds the token or the query of an address */
};

enum http_status http_get(struct http *h);

#endif
