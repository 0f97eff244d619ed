/* The page that verify --report writes. */
#ifndef APP_REPORT_H
#define APP_REPORT_H

#include "kagari.h"

struct report {
    const char *path, *base, *backend; /* base NULL: none */
    const char *kv_type, *activations; /* names */
    const char *text;                  /* what the tokens are of; NULL: ids */
    const kg_ops_report *ops;
};

/* Returns 0, or an exit code after one line about why. */
int report_write(const char *to, const struct report *r);

#endif
