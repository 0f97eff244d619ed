/* Regular expressions over names of tensors and modules, from people and from files: time and memory are bounded. */
#ifndef FILE_PATTERN_H
#define FILE_PATTERN_H

#include "base/base.h"

struct pattern;

enum pattern_kind {
    PATTERN_PART,   /* fits anywhere in a name; letters count in either case */
    PATTERN_MODULE, /* fits all of a name, or all behind one of its dots */
};
kg_status pattern_new(struct pattern **out, const char *text, enum pattern_kind kind);
void pattern_free(struct pattern **p);
kg_status pattern_fits(const struct pattern *p, const char *name, bool *fits);

#endif
