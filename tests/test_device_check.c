/* layers: cpu ref gpu backend */
/* The self-check of devices, on a double of a GPU: the processor, which may compute one operation wrong. The error names it, a device that
 * is right passes, and the verdict is kept. */
#include "gpu_test.h"

static struct {
    enum op_code wrong; /* OP_N_CODES: none */
    int n_runs;
    const struct backend *cpu;
    bool spoils; /* the program that is open has the operation */
} fake;

static kg_status fake_devices(struct backend_device *out, int most, int *n)
{
    assert_true(most > 0);
    out[0] = (struct backend_device){.name = "double", .driver = "1.0", .is_gpu = true, .chosen = true};
    *n = 1;
    return KG_OK;
}

static kg_status fake_open(void **ctx, const struct program *p, const struct backend_params *params)
{
    fake.spoils = false;
    for (int i = 0; i < p->n_ops; i++) fake.spoils |= p->ops[i].code == fake.wrong;
    return fake.cpu->open(ctx, p, params);
}
static void fake_close(void *ctx) { fake.cpu->close(ctx); }
static kg_status fake_reserve(void *ctx, int n) { return fake.cpu->kv_reserve(ctx, n); }
static kg_status fake_states(void *ctx, int n) { return fake.cpu->state_reserve(ctx, n); }
static kg_status fake_run(void *ctx, const struct batch *batch)
{
    fake.n_runs++;
    KG_TRY(fake.cpu->run(ctx, batch));
    for (int i = 0; fake.spoils && i < 96; i++) batch->logits[i] *= 2; /* of the first token */
    return KG_OK;
}
static double fake_bound(const void *ctx) { return fake.cpu->error_bound(ctx); }

static const struct backend gpu = {.name = "double", .open = fake_open, .close = fake_close, .kv_reserve = fake_reserve, .state_reserve = fake_states, .run = fake_run, .error_bound = fake_bound, .devices = fake_devices};
static const struct backend_params params = {.n_threads = 1, .max_batch = 64};

static void names_the_operation(void **state)
{
    (void)state;
    static const enum op_code codes[] = {OP_RMS_NORM, OP_LAYER_NORM, OP_ACT, OP_GLU, OP_ROPE, OP_ATTENTION, OP_COMBINE, OP_ADD_ROW, OP_DELTA, OP_WKV, OP_LERP};
    for (size_t i = 0; i < COUNT_OF(codes); i++) {
        fake.wrong = codes[i];
        assert_int_equal(backend_check(&gpu, NULL, &params, true), KG_ERR_DEVICE);
        char want[40];
        snprintf(want, sizeof want, ": %s is off by", codes[i] == OP_COMBINE ? "a mixture of experts" : codes[i] == OP_ADD_ROW ? "attention to both sides" : codes[i] == OP_DELTA || codes[i] == OP_WKV || codes[i] == OP_LERP ? "a state" : op_name(codes[i]));
        if (!strstr(kg_error_message(), want)) fail_msg("no '%s' in: %s", want, kg_error_message());
    }
}

static void keeps_the_verdict(void **state)
{
    (void)state;
    fake.wrong = OP_N_CODES;
    OK(backend_check(&gpu, NULL, &params, true));
    fake.wrong = OP_GLU; /* nobody looks: the device has passed */
    fake.n_runs = 0;
    OK(backend_check(&gpu, NULL, &params, false));
    assert_int_equal(fake.n_runs, 0);
    assert_int_equal(backend_check(&gpu, NULL, &params, true), KG_ERR_DEVICE);
    fake.n_runs = 0;
    assert_int_equal(backend_check(&gpu, NULL, &params, false), KG_ERR_DEVICE);
    assert_int_equal(fake.n_runs, 0);
    assert_non_null(strstr(kg_error_message(), "glu"));
}

static int start(void **state)
{
    (void)state;
    static char folder[] = "/tmp/kagari-check-XXXXXX";
    assert_non_null(mkdtemp(folder));
    setenv("XDG_CACHE_HOME", folder, 1);
    fake.cpu = backend_find("cpu");
    return fake.cpu ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(names_the_operation), cmocka_unit_test(keeps_the_verdict)};
    return cmocka_run_group_tests(tests, start, NULL);
}
