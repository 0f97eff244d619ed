/* layers: gpu ref cpu backend */
/* The OpenCL host over a double of a driver (tests/opencl), which computes nothing: every failure has its message and offers the processor, nothing is
 * leaked, and a device whose results are wrong is not used. */
#include "gpu_double.h"
#include "opencl/fake_opencl.h"

static struct small m;
static struct fake_opencl *fake;
static char *self;

static void begin(void) { *fake = (struct fake_opencl){.group = 1024, .local = 49152, .launches_left = -1}; }

static void fails(kg_status want, const char *words)
{
    small_fails(&m, "opencl", want, words);
    if (fake->n_buffers || fake->n_programs || fake->n_kernels || fake->n_queues || fake->n_contexts)
        fail_msg("'%s': left: %d buffers, %d programs, %d kernels, %d queues, %d contexts", words, fake->n_buffers, fake->n_programs, fake->n_kernels, fake->n_queues, fake->n_contexts);
    begin();
}

static void lists(void **state)
{
    (void)state;
    struct backend_device d[4];
    int n = 0;
    OK(backend_find("opencl")->devices(d, 4, &n));
    assert_true(n == 1 && d[0].chosen && d[0].is_gpu && !d[0].why[0] && d[0].memory > 0 && strstr(d[0].driver, "1.0"));
    fake->group = 128;
    OK(backend_find("opencl")->devices(d, 4, &n));
    assert_true(n == 1 && strstr(d[0].why, "256"));
    begin();
}

static void fails_clearly(void **state)
{
    (void)state;
    fake->no_device = true;
    fails(KG_ERR_DEVICE, "knows no device: its driver is missing");
    fake->group = 128;
    fails(KG_ERR_DEVICE, "groups of 128 threads");
    fake->no_compiler = true;
    fails(KG_ERR_DEVICE, "does not compile, error -11: double:1: error: so it was asked");
    for (size_t memory = 1000; memory < 1000000; memory *= 3) { /* at every stage of opening */
        fake->memory = memory;
        fails(KG_ERR_MEMORY, "a buffer: error -4 (out of device memory)");
    }
    fake->launches_left = 3;
    fake->launch_code = -36; /* CL_INVALID_COMMAND_QUEUE */
    fails(KG_ERR_DEVICE, "launch: error -36");
    fake->finish_code = -5; /* CL_OUT_OF_RESOURCES, which drivers also say when a kernel has failed */
    fails(KG_ERR_MEMORY, "waiting for the device: error -5 (out of device memory, or the device has failed)");
}

static void wrong_results(void **state)
{
    (void)state;
    fails(KG_ERR_DEVICE, "fails the self-check and is not used: embed is off by");
    assert_int_equal(backend_check(backend_find("opencl"), NULL, &(struct backend_params){.n_threads = 1, .max_batch = 32}, true), KG_ERR_DEVICE);
    begin();
}

static void no_loader(void **state)
{
    (void)state;
    small_runs_alone(self);
}

static int start(void **state)
{
    (void)state;
    static char folder[] = "/tmp/kagari-opencl-XXXXXX";
    void *driver = dlopen("libOpenCL.so.1", RTLD_NOW);
    fake = driver ? dlsym(driver, "fake_opencl") : NULL;
    assert_non_null(fake);
    rng_start();
    small_cache_folder(folder);
    small_build(&m);
    begin();
    return 0;
}

static int end(void **state)
{
    (void)state;
    small_free(&m);
    return 0;
}

int main(int argc, char **argv)
{
    self = argv[0];
    if (argc > 1) return small_without(&m, "libOpenCL.so.1", "opencl", "no OpenCL loader");
    if (!small_starts_in(FAKE_OPENCL_DIR, argv)) return 99;
    const struct CMUnitTest tests[] = {cmocka_unit_test(lists), cmocka_unit_test(fails_clearly), cmocka_unit_test(wrong_results), cmocka_unit_test(no_loader)};
    return cmocka_run_group_tests(tests, start, end);
}
