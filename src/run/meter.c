/* kg_meter: a backend's meter behind the public header. */
#include "backend/backend.h"
#include "base/os.h"

#include <stdlib.h>

struct kg_meter {
    const struct backend_meter *fn;
    void *meter; /* the backend's */
};

kg_status kg_meter_open(kg_meter **out, const char *backend, int n_threads)
{
    if (!out) return status_set(KG_ERR_ARGUMENT, "no place to store the meter");
    *out = NULL;
    if (n_threads < 0 || n_threads > 1024) return status_set(KG_ERR_ARGUMENT, "%d threads: must be 0 (all processors) to 1024", n_threads);
    const struct backend *b = backend_find(backend ? backend : "cpu");
    if (!b) return KG_ERR_UNSUPPORTED;
    if (!b->meter) return status_set(KG_ERR_UNSUPPORTED, "the %s backend cannot measure its machine", b->name);
    kg_meter *m = calloc(1, sizeof *m);
    if (!m) return status_set(KG_ERR_MEMORY, "out of memory");
    m->fn = b->meter;
    kg_status status = m->fn->open(&m->meter, n_threads ? n_threads : os_n_processors());
    if (status != KG_OK) {
        free(m);
        return status;
    }
    *out = m;
    return KG_OK;
}

void kg_meter_close(kg_meter **meter)
{
    if (!meter || !*meter) return;
    (*meter)->fn->close((*meter)->meter);
    free(*meter);
    *meter = NULL;
}

kg_status kg_meter_run(kg_meter *meter, double seconds, kg_limits *out)
{
    if (!meter || !out) return status_set(KG_ERR_ARGUMENT, "measuring needs a meter and a place for the limits");
    if (!(seconds > 0 && seconds <= 60)) return status_set(KG_ERR_ARGUMENT, "a measurement of %g seconds: must be above 0 and up to 60", seconds);
    return meter->fn->run(meter->meter, seconds, out);
}
