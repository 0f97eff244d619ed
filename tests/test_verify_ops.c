/* layers: run */
/* kg_verify_ops: its errors against what they must be by definition. */
#include "run/run.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const char model_path[] = SOURCE_DIR "/models/stories-q4_k_m.gguf";
static const char f16_path[] = SHARED_DIR "/models/stories-f16.gguf";
static const int32_t tokens[] = {1, 2475, 642, 261, 565, 300, 77, 411, 1900, 5, 640};

#define OK(expr)                                                                                                                           \
    do {                                                                                                                                   \
        if ((expr) != KG_OK) fail_msg("%s: %s", #expr, kg_error_message());                                                                \
    } while (0)

static kg_model_params params(const char *backend, kg_activations activations)
{
    kg_model_params p = kg_model_default_params();
    p.backend = backend;
    p.n_threads = 2;
    p.activations = activations;
    return p;
}

/* Layers and logits are those of kg_verify, the last operation is the logits, and what no later operation can make better is there. */
static void same_as_verify(void **state)
{
    (void)state;
    kg_model_params p = params("cpu", KG_ACT_INT8);
    kg_verify_report r;
    kg_ops_report o;
    OK(kg_verify(model_path, &p, tokens, COUNT_OF(tokens), &r));
    OK(kg_verify_ops(model_path, NULL, &p, tokens, COUNT_OF(tokens), NULL, NULL, &o));
    assert_int_equal(o.whole.n_layers, r.n_layers);
    for (int i = 0; i < r.n_layers; i++) assert_true(fabs(o.whole.layer_error[i] - r.layer_error[i]) <= 1e-12);
    assert_true(fabs(o.whole.logits_error - r.logits_error) <= 1e-12);
    assert_true(o.whole.logits_bound == r.logits_bound && o.whole.same_top == r.same_top);
    assert_true(fabs(o.ops[o.n_ops - 1].total - r.logits_error) <= 1e-12);
    for (size_t i = 0; i < o.n_ops; i++) {
        const kg_op_error *e = &o.ops[i];
        assert_true(e->own >= 0 && e->total >= 0); /* the cpu backend shows all */
        assert_true((strcmp(e->op, "matmul") == 0) == (strstr(e->tensor, "norm") == NULL && e->tensor[0] && strcmp(e->op, "embed") != 0));
        /* int8 activations are a matter of matmuls: others round to f32 and, in the cache, to f16 */
        if (strcmp(e->op, "attention") == 0) assert_true(e->own < 2e-3 && e->own > 1e-5);
        else if (strcmp(e->op, "matmul") == 0) assert_true(e->own > 1e-4 && e->own < 3e-2);
        else assert_true(e->own < 1e-5);
    }
    kg_verify_report_free(&r);
    kg_ops_report_free(&o);
}

/* A matmul's own error with other weights is the distance of the weights, whatever happened before. */
static void against_a_better_file(void **state)
{
    (void)state;
    if (access(f16_path, R_OK)) {
        print_message("skipped: %s is not there\n", f16_path);
        skip();
    }
    kg_model_params p = params("reference", KG_ACT_F32);
    kg_ops_report o;
    OK(kg_verify_ops(f16_path, f16_path, &p, tokens, COUNT_OF(tokens), NULL, NULL, &o));
    for (size_t i = 0; i < o.n_ops; i++) assert_true(o.ops[i].total == 0 && o.ops[i].own < 1e-7); /* results are kept as f32 */
    kg_ops_report_free(&o);
    OK(kg_verify_ops(model_path, f16_path, &p, tokens, COUNT_OF(tokens), NULL, NULL, &o));
    assert_true(isnan(o.whole.logits_bound));
    for (size_t i = 0; i < o.n_ops; i++) {
        const kg_op_error *e = &o.ops[i];
        bool rounded = e->type[0] == 'Q';
        if (rounded) assert_true(e->own > 1e-3 && e->own < (strcmp(e->type, "Q6_K") ? 0.15 : 0.04));
        else assert_true(e->own < 1e-6);
    }
    assert_true(o.whole.logits_error > 0.01 && o.whole.logits_error < 0.3);
    kg_ops_report_free(&o);
}

static bool stop(void *ctx, size_t done, size_t total)
{
    *(size_t *)ctx = done * 1000 + total;
    return false;
}

static void refusals(void **state)
{
    (void)state;
    kg_model_params p = params("cpu", KG_ACT_INT8);
    kg_ops_report o;
    size_t seen = 0;
    assert_int_equal(kg_verify_ops(model_path, NULL, &p, tokens, COUNT_OF(tokens), stop, &seen, &o), KG_ERR_ABORTED);
    assert_int_equal(seen, 8000 + COUNT_OF(tokens));
    assert_null(o.ops);
    assert_int_equal(kg_verify_ops(model_path, NULL, &p, tokens, 0, NULL, NULL, &o), KG_ERR_ARGUMENT);
    assert_int_equal(kg_verify_ops(model_path, "/nowhere.gguf", &p, tokens, 1, NULL, NULL, &o), KG_ERR_IO);
    const char *gpt2 = SHARED_DIR "/models/gpt2-f16.gguf";
    if (access(gpt2, R_OK) == 0) {
        assert_int_equal(kg_verify_ops(model_path, gpt2, &p, tokens, 2, NULL, NULL, &o), KG_ERR_ARGUMENT);
        assert_non_null(strstr(kg_error_message(), "another model"));
    }
}

/* A backend that joins operations says so; the errors of those it shows are still small. */
static void joined(void **state)
{
    (void)state;
    kg_model_params p = params("emulator", KG_ACT_F32);
    kg_ops_report o;
    kg_status status = kg_verify_ops(model_path, NULL, &p, tokens, 2, NULL, NULL, &o);
    if (status == KG_ERR_UNSUPPORTED) skip();
    OK(status);
    for (size_t i = 0; i < o.n_ops; i++) assert_true(!(o.ops[i].own > 2e-3));
    kg_ops_report_free(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_as_verify),
        cmocka_unit_test(against_a_better_file),
        cmocka_unit_test(refusals),
        cmocka_unit_test(joined),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
