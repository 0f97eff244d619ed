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

/* Names that users may know, for which this build has no code, and why. */
static const struct {
    const char *name, *why;
} absent[] = {
    {"coreml", "Core ML runs whole models that were converted beforehand, and gives no access to quantized weights or to a KV cache; on a Mac the GPU is reached through metal"},
};

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
    for (size_t i = 0; i < COUNT_OF(absent); i++) {
        if (!strcmp(absent[i].name, name)) {
            status_set(KG_ERR_UNSUPPORTED, "%s: %s; available: %s", name, absent[i].why, available);
            return NULL;
        }
    }
    status_set(KG_ERR_UNSUPPORTED, "backend \"%.40s\" is unknown; available: %s", name, available);
    return NULL;
}

/* What a device cannot do, the processor can. */
static kg_status offer_cpu(const struct backend *b, kg_status status)
{
    char message[512];
    bool of_device = status == KG_ERR_DEVICE || status == KG_ERR_MEMORY || status == KG_ERR_UNSUPPORTED;
    if (!b->devices || !of_device) return status;
    snprintf(message, sizeof message, "%s", kg_error_message());
    return status_set(status, "%.430s; the cpu backend needs no device (-b cpu)", message);
}

kg_status backend_open(const struct backend *b, void **ctx, const struct program *p, const struct backend_params *params)
{
    struct backend_device d[16];
    int n = 0;
    *ctx = NULL;
    kg_status status = b->devices ? b->devices(d, COUNT_OF(d), &n) : KG_OK;
    for (int i = 0; status == KG_OK && i < n; i++)
        if (d[i].chosen && d[i].is_gpu && !d[i].why[0]) status = backend_check(b, p, params, false);
    return offer_cpu(b, status == KG_OK ? b->open(ctx, p, params) : status);
}

kg_status backend_kv_reserve(const struct backend *b, void *ctx, int n_blocks) { return offer_cpu(b, b->kv_reserve(ctx, n_blocks)); }

kg_status backend_run(const struct backend *b, void *ctx, const struct batch *batch) { return offer_cpu(b, b->run(ctx, batch)); }

const struct backend *backend_best(char *why, size_t size)
{
    struct backend_device d[16];
    char seen[160] = "";
    if (size) why[0] = 0;
    for (size_t i = 0; i < COUNT_OF(backends); i++) {
        int n = 0;
        if (!backends[i]->devices || backends[i]->devices(d, COUNT_OF(d), &n) != KG_OK) continue;
        for (int k = 0; k < n; k++) {
            if (!d[k].is_gpu || !d[k].chosen) continue;
            if (!d[k].why[0]) {
                snprintf(why, size, "%s: %s", backends[i]->name, d[k].name);
                return backends[i];
            }
            snprintf(seen, sizeof seen, "%.60s cannot be used by %s", d[k].name, backends[i]->name);
        }
    }
    if (seen[0]) snprintf(why, size, "cpu, as %s: see kagari devices", seen);
    return backend_find("cpu");
}
