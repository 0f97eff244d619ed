/* What the servers of models say about a name: which files there are, where, and how to check them. Their answers are not trusted. */
#ifndef APP_HUB_H
#define APP_HUB_H

#include "http.h"
#include "models.h"

enum { HUB_MOST_NAME = 255 };

struct hub_file {
    char *path;          /* relative, without "." or ".." or anything else that could leave a folder */
    char *url;
    uint64_t bytes;
    char sha256[65];     /* lower case; "": the server does not say */
    char git_sha1[41];   /* of small files: that of git's blob */
};
struct hub_listing {
    struct hub_file *v; /* [n] */
    size_t n;
};

/* Asks the server of id's source. token may be NULL. HTTP_OK, or why in error[512]. */
enum http_status hub_list(struct hub_listing *l, const struct model_id *id, const char *token, bool (*tick)(struct http *h), char *error);
void hub_free(struct hub_listing *l);

#endif
