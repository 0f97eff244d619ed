/* layers: gpu ref cpu backend */
/* The Metal host over a double of Apple's framework, which runs the very text of the kernels on the emulator (tests/metal): the results are
 * those of the reference, every failure has its message, nothing is leaked and no rule of Metal broken. */
#include "gpu_double.h"
#include "metal/fake_metal.h"

static struct small m;

/* What the double has seen since the last call must have been in order. */
static void in_order(void)
{
    if (fake_metal.misuse[0]) fail_msg("Metal would not have it: %s", fake_metal.misuse);
    if (fake_metal.n_buffers || fake_metal.n_objects) fail_msg("%d objects left, %d of them buffers", fake_metal.n_objects, fake_metal.n_buffers);
    fake_metal = (struct fake_metal){.fails_after = -1};
}

static void computes(void **state)
{
    (void)state;
    small_check(&m, "metal");
    assert_true(fake_metal.n_launches > 0 && fake_metal.n_copies > 0 && fake_metal.n_products > 0 && fake_metal.n_borrowed > 0);
    in_order();
    setenv("KAGARI_MPS", "0", 1); /* by the engine's own kernels, from memory of the device's own */
    fake_metal.no_borrowing = true;
    small_check(&m, "metal");
    assert_true(fake_metal.n_products == 0 && fake_metal.n_borrowed == 0);
    unsetenv("KAGARI_MPS");
    in_order();
}

static void lists(void **state)
{
    (void)state;
    struct backend_device d[4];
    int n = 0;
    const struct backend *b = backend_find("metal");
    OK(b->devices(d, 4, &n));
    assert_true(n == 1 && d[0].chosen && d[0].is_gpu && !d[0].why[0] && d[0].memory > 0 && strstr(d[0].driver, "Metal"));
    fake_metal.old_family = true;
    OK(b->devices(d, 4, &n));
    assert_true(n == 1 && strstr(d[0].why, "family 7"));
    in_order();
}

static void fails_clearly(void **state)
{
    (void)state;
    fake_metal.no_device = true;
    small_fails(&m, "metal", KG_ERR_DEVICE, "no device that Metal knows");
    in_order();
    fake_metal.old_family = true;
    small_fails(&m, "metal", KG_ERR_DEVICE, "family 7");
    in_order();
    fake_metal.wide_waves = true;
    small_fails(&m, "metal", KG_ERR_DEVICE, "waves of 64 threads");
    in_order();
    fake_metal.no_compiler = true;
    small_fails(&m, "metal", KG_ERR_DEVICE, "does not compile: program_source:1:1");
    in_order();
    for (size_t memory = 1000; memory < 1000000; memory *= 3) { /* at every stage of opening */
        fake_metal.memory = memory;
        small_fails(&m, "metal", KG_ERR_MEMORY, "no device memory for");
        in_order();
    }
    fake_metal.fails_after = 0;
    fake_metal.fails_with = 1;
    small_fails(&m, "metal", KG_ERR_DEVICE, "the device failed: The device is gone");
    in_order();
    fake_metal.fails_after = 0;
    fake_metal.fails_with = 8; /* MTLCommandBufferErrorOutOfMemory */
    small_fails(&m, "metal", KG_ERR_MEMORY, "the device failed");
    in_order();
}

static int start(void **state)
{
    (void)state;
    static char folder[] = "/tmp/kagari-metal-XXXXXX";
    rng_start();
    small_cache_folder(folder);
    small_build(&m);
    struct backend_params params = {.n_threads = 1, .kv_type = KG_KV_F16, .activations = KG_ACT_INT8, .max_batch = 32};
    OK(backend_check(backend_find("metal"), &m.p, &params, false)); /* the self-check passes; its verdict is kept for the others */
    OK(backend_check(backend_find("metal"), NULL, &params, false)); /* all operations and the usual types */
    fake_metal.n_launches = fake_metal.n_copies = fake_metal.n_products = fake_metal.n_borrowed = 0;
    return 0;
}

static int end(void **state)
{
    (void)state;
    small_free(&m);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(computes), cmocka_unit_test(lists), cmocka_unit_test(fails_clearly)};
    return cmocka_run_group_tests(tests, start, end);
}
