/* Tool calls as models write them, read into one form. */
#ifndef TEXT_TOOLCALL_H
#define TEXT_TOOLCALL_H

#include "base/base.h"

/* Zero-initialised is ready to use. */
struct toolcalls {
    struct json_t *calls; /* a JSON array; NULL: none yet */
};
/* Adds the calls of one section of an answer, n bytes between its marks. */
kg_status toolcalls_add(struct toolcalls *t, const char *text, size_t n);
kg_status toolcalls_json(const struct toolcalls *t, char **json); /* malloc'ed */
void toolcalls_free(struct toolcalls *t);

#endif
