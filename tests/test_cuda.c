/* layers: gpu ref cpu backend */
/* The CUDA host over doubles of NVIDIA's driver and compiler (tests/cuda), which run launches on the emulator when somebody waits for them: the results
 * are those of the reference, recordings included, every failure has its message, nothing is leaked. */
#include "backend/gpu/emu/simt.h"
#include "cuda/fake_cuda.h"
#include "gpu_double.h"

static struct small m;
static struct fake_cuda *fake;
static char *self;

/* Without a grid: only the sizes. */
static int run(const char *kernel, size_t *params_bytes, int *n_buffers, const unsigned grid[2], unsigned threads, const void *params, void *const *buffers)
{
    const struct simt_kernel *k = simt_find(kernel);
    if (!k) return 1;
    *params_bytes = k->params_bytes;
    *n_buffers = k->n_buffers;
    return grid && simt_run(k, grid, threads, params, buffers) != KG_OK;
}

static void begin(void) { *fake = (struct fake_cuda){.run = run, .major = 9, .launches_left = -1}; }

static void in_order(bool was_lost)
{
    if (fake->misuse[0]) fail_msg("the driver would not have it: %s", fake->misuse);
    if (fake->n_buffers || fake->n_host || fake->n_contexts || fake->n_modules || fake->n_streams || (fake->n_graphs && !was_lost))
        fail_msg("left: %d buffers, %d of the host, %d contexts, %d modules, %d streams, %d graphs", fake->n_buffers, fake->n_host, fake->n_contexts, fake->n_modules,
                 fake->n_streams, fake->n_graphs);
    begin();
}

static void computes(void **state)
{
    (void)state;
    small_check(&m, "cuda");
    assert_true(fake->n_launches > 0 && fake->n_replays > 0 && fake->n_overlaps > 0);
    in_order(false);
    fake->major = 8; /* no launch overlaps another there */
    small_check(&m, "cuda");
    assert_int_equal(fake->n_overlaps, 0);
    in_order(false);
}

enum { TEXT = 75 };

/* Greedy text, in which one token is another than the highest and a block of the cache is written in between. */
static void write_text(bool goes_on, int32_t *ids)
{
    static const int32_t blocks[] = {2, 0, 1};
    static uint8_t block[1 << 20];
    const struct backend *b = backend_find("cuda");
    struct backend_params params = {.n_threads = 1, .kv_type = KG_KV_F16, .activations = KG_ACT_INT8, .max_batch = 32};
    void *ctx;
    OK(backend_open(b, &ctx, &m.p, &params));
    OK(backend_kv_reserve(b, ctx, 3));
    assert_true(b->kv_block_bytes(ctx) <= sizeof block);
    for (int i = 0; i < TEXT; i++) {
        struct batch_top top;
        struct batch_token token = {.id = i ? ids[i - 1] : 3, .pos = i, .want_logits = true};
        struct batch batch = {.tokens = &token, .n = 1, .seqs = &(struct batch_seq){.blocks = blocks}, .n_seqs = 1, .top = &top, .n_top = 1, .goes_on = goes_on};
        OK(backend_run(b, ctx, &batch));
        ids[i] = i == 20 || i == 21 ? (top.id + 1) % m.p.n_vocab : top.id;
        if (i == 45 || i == 70) OK(b->kv_read(ctx, blocks[0], block));
        if (i == 70) memset(block, 0, sizeof block); /* what is under way has seen the old ones */
        if (i == 45 || i == 70) OK(b->kv_write(ctx, blocks[0], block));
    }
    b->close(ctx);
}

static void begins_ahead(void **state)
{
    (void)state;
    int32_t want[TEXT], got[TEXT];
    write_text(false, want);
    const int replays = fake->n_replays;
    in_order(false);
    write_text(true, got);
    assert_true(fake->n_replays > replays); /* those in vain */
    in_order(false);
    for (int i = 0; i < TEXT; i++)
        if (got[i] != want[i]) fail_msg("token %d is %d, not %d", i, (int)got[i], (int)want[i]);
}

static void lists(void **state)
{
    (void)state;
    struct backend_device d[4];
    int n = 0;
    const struct backend *b = backend_find("cuda");
    OK(b->devices(d, 4, &n));
    assert_true(n == 1 && d[0].chosen && d[0].is_gpu && !d[0].why[0] && d[0].memory > 0 && strstr(d[0].driver, "sm_90"));
    fake->major = 7;
    fake->minor = 5;
    OK(b->devices(d, 4, &n));
    assert_true(n == 1 && strstr(d[0].why, "7.5: 8.0 is needed"));
    in_order(false);
}

static void fails_clearly(void **state)
{
    (void)state;
    fake->init_code = 100;
    small_fails(&m, "cuda", KG_ERR_DEVICE, "no CUDA-capable device");
    in_order(false);
    fake->major = 7;
    small_fails(&m, "cuda", KG_ERR_DEVICE, "8.0 is needed");
    in_order(false);
    fake->refuses_images = true;
    small_fails(&m, "cuda", KG_ERR_DEVICE, "no kernel image is available");
    in_order(false);
    setenv("KAGARI_FAKE_NVRTC", "fails", 1);
    small_fails(&m, "cuda", KG_ERR_DEVICE, "does not compile, error 6: double(1): error: so it was asked");
    unsetenv("KAGARI_FAKE_NVRTC");
    in_order(false);
    for (size_t memory = 1000; memory < 1000000; memory *= 3) { /* at every stage of opening */
        fake->memory = memory;
        small_fails(&m, "cuda", KG_ERR_MEMORY, "no device memory for");
        in_order(false);
    }
    for (int launches = 0; launches <= 6; launches += 3) {
        fake->launches_left = launches;
        small_fails(&m, "cuda", KG_ERR_DEVICE, "unspecified launch failure");
        in_order(true);
    }
}

static void no_driver(void **state)
{
    (void)state;
    small_runs_alone(self);
}

static int start(void **state)
{
    (void)state;
    static char folder[] = "/tmp/kagari-cuda-XXXXXX";
    void *driver = dlopen("libcuda.so.1", RTLD_NOW);
    fake = driver ? dlsym(driver, "fake_cuda") : NULL;
    assert_non_null(fake);
    rng_start();
    small_cache_folder(folder);
    setenv("KAGARI_CUBLAS", "0", 1); /* it could not know the double's memory */
    small_build(&m);
    begin();
    struct backend_params params = {.n_threads = 1, .kv_type = KG_KV_F16, .activations = KG_ACT_INT8, .max_batch = 32};
    for (fake->major = 8; fake->major <= 9; fake->major++) OK(backend_check(backend_find("cuda"), &m.p, &params, false)); /* it passes; the verdict is kept */
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
    if (argc > 1) return small_without(&m, "libcuda.so.1", "cuda", "no NVIDIA driver");
    if (!small_starts_in(FAKE_CUDA_DIR, argv)) return 99;
    const struct CMUnitTest tests[] = {cmocka_unit_test(computes), cmocka_unit_test(begins_ahead), cmocka_unit_test(lists), cmocka_unit_test(fails_clearly), cmocka_unit_test(no_driver)};
    return cmocka_run_group_tests(tests, start, end);
}
