/* The list of backends, made by the build from the folders beside this file. */
#include "backend/backend.h"

#include <stdio.h>

#define BACKEND(dir) extern const struct backend backend_##dir;
#include "backend_list.inc"
#undef BACKEND

static const struct backend *const backends[] = {
#define BACKEND(dir) &backend_##dir,
#include "backend_list.inc"
#undef BACKEND
};

/* Names that users may know, for which this build has no code. */
static const char *const planned[] = {"cuda", "metal", "opencl", "hybrid", "hybrid-f32", "coreml"};

const struct backend *backend_at(size_t i) { return i < COUNT_OF(backends) ? backends[i] : NULL; }

const struct backend *backend_find(const char *name)
{
    char available[256];
    size_t len = 0;
    available[0] = 0;
    for (size_t i = 0; i < COUNT_OF(backends); i++) {
        if (!strcmp(backends[i]->name, name)) return backends[i];
        if (len < sizeof available)
            len += (size_t)snprintf(available + len, sizeof available - len, "%s%s", i ? ", " : "", backends[i]->name);
    }
    for (size_t i = 0; i < COUNT_OF(planned); i++) {
        if (!strcmp(planned[i], name)) {
            status_set(KG_ERR_UNSUPPORTED, "backend \"%s\" is not part of this build; available: %s", name, available);
            return NULL;
        }
    }
    status_set(KG_ERR_UNSUPPORTED, "backend \"%.40s\" is unknown; available: %s", name, available);
    return NULL;
}
