/* The command that lists what this machine can compute on. */
#include "commands.h"

#include "print.h"

#include "kagari.h"

static void print_bytes(const char *what, uint64_t n)
{
    if (n) printf("%s%.1f GiB", what, (double)n / (1 << 30));
}

static void print_device(const kg_device *d, const char *backend)
{
    printf("%-9s %s%s\n          %s", backend, d->name, d->is_gpu ? "" : "  (no GPU: only on request)", d->driver);
    print_bytes(", memory ", d->memory);
    print_bytes(", free ", d->memory_free);
    if (d->usable) printf("\n          %s\n", d->chosen ? "usable; what this backend takes" : "usable");
    else printf("\n          NOT USABLE: %s\n", d->why);
}

int command_devices(const struct settings *s)
{
    const char *name;
    int code = 0;
    char why[320];
    for (size_t i = 0; (name = kg_backend_name(i, NULL)); i++) {
        kg_device list[32];
        size_t n;
        if (kg_devices(name, list, sizeof list / sizeof *list, &n) != KG_OK) printf("%-9s none: %s\n", name, kg_error_message());
        for (size_t k = 0; k < n; k++) {
            print_device(&list[k], name);
            if (!s->check || !list[k].chosen || !list[k].usable) continue;
            fflush(stdout); /* it may take a while: kernels are compiled */
            if (kg_device_check(name) == KG_OK) printf("          self-check: ok\n");
            else code = print_status(KG_ERR_DEVICE);
        }
    }
    const char *best = kg_backend_best(why, sizeof why);
    printf("without -b: %s\n", why[0] ? why : best);
    return code;
}
