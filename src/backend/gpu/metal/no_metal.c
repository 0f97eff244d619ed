/* Stands for the Metal backend on other systems, so that its name is known and the reason is said. Weak: tests put the real one, over a
 * double of Apple's framework, in its place. */
#include "backend/backend.h"

static kg_status refuse(void) { return status_set(KG_ERR_DEVICE, "metal: Metal needs macOS, and this program was built for another system"); }

static kg_status no_devices(struct backend_device *out, int most, int *n)
{
    (void)out;
    (void)most;
    *n = 0;
    return refuse();
}

static kg_status no_open(void **ctx, const struct program *p, const struct backend_params *params)
{
    (void)p;
    (void)params;
    *ctx = NULL;
    return refuse();
}

extern const struct backend backend_metal;
__attribute__((weak)) const struct backend backend_metal = {
    .name = "metal",
    .what = "Apple's GPUs (M1, A14 and newer), on macOS",
    .open = no_open,
    .devices = no_devices,
};
