/* layers: run */
/* Every folder of tests/golden/arch is a tiny model of some architecture, with what Hugging Face transformers computes with it in float64
 * (tools/mkarch.py). Opened as a Hugging Face folder and as the GGUF that kg_convert makes of it, the reference has the same logits to
 * 1e-10 of the largest one and every tier of the cpu backend and a GPU (the emulator, or the backend KAGARI_TEST_GPU), alone and in a hybrid, to 2e-3 (Euclidean, cache
 * in f16), unless that refuses an operation; greedy continuations are the same. Weights come from a formula. */
#include "backend/cpu/cpu.h"
#include "base/half.h"
#include "file/gguf_write.h"
#include "run/run.h"

#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define OK(x) do { if ((x) != KG_OK) fail_msg("%s: %s", name, kg_error_message()); } while (0)

#include "arch_run.h"
#include "arch_steps.h"
#include "how_long.h"

static char folder[64], path[400];

static const char *gpu_name(void) { return getenv("KAGARI_TEST_GPU") ? getenv("KAGARI_TEST_GPU") : "emulator"; }

/* gpu: the name of a backend, or NULL: then one tier of the processor will do. turn: an even one has a few tokens at a time on the GPU, an odd one the first layer
 * there and the others on the processor; when there is time, both. */
static void check_file(const char *name, const char *file, const struct cases *c, const char *gpu, int turn)
{
    struct model m;
    OK(model_open_for(&m, file, NULL, 0, c->n_ctx));
    run_case(name, backend_find("reference"), &m, c, MOST, 1e-10);
    run_case(name, backend_find("reference"), &m, c, 5, 1e-10);
    for (size_t i = 0; cpu_tier_name(i); i++) {
        if (!cpu_tier_supported(i)) continue;
        if (!gpu && !is_long() && cpu_tier_name(i + 1) && cpu_tier_supported(i + 1)) continue; /* the best one */
        setenv("KAGARI_CPU", cpu_tier_name(i), 1);
        run_case(name, backend_find("cpu"), &m, c, MOST, 2e-3);
        run_case(name, backend_find("cpu"), &m, c, 7, 2e-3);
    }
    unsetenv("KAGARI_CPU");
    if (gpu) run_case(name, backend_find(gpu), &m, c, MOST, 2e-3);
    if (gpu && (is_long() || turn % 2 == 0)) run_case(name, backend_find(gpu), &m, c, 5, 2e-3);
    if (gpu && (is_long() || turn % 2)) {
        setenv("KAGARI_HYBRID", gpu, 1);
        run_case(name, backend_find("hybrid"), &m, c, MOST, 2e-3);
    }
    model_close(&m);
}

/* ---- encoders: embeddings ---- */

static void put_file(const char *sub, const char *file, const char *text)
{
    snprintf(path, sizeof path, "%s/%s", folder, sub);
    if (sub[0]) mkdir(path, 0777);
    snprintf(path, sizeof path, "%s/%s%s%s", folder, sub, sub[0] ? "/" : "", file);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

/* The golden states of c, pooled and of length 1. */
static void pooled(const struct cases *c, int dim, kg_pooling pooling, double *out)
{
    double size = 0;
    for (int i = 0; i < dim; i++) {
        out[i] = c->logits[pooling == KG_POOLING_LAST ? (c->n - 1) * dim + i : i];
        for (int t = 1; t < c->n && pooling == KG_POOLING_MEAN; t++) out[i] += c->logits[t * dim + i];
        size += out[i] * out[i];
    }
    for (int i = 0; i < dim; i++) out[i] /= sqrt(size);
}

static void check_embedding(const char *name, const char *file, const struct cases *c, kg_pooling of_file)
{
    const char *const backends[] = {"reference", "cpu", gpu_name(), "hybrid"};
    setenv("KAGARI_HYBRID", gpu_name(), 1);
    for (size_t k = 0; k < COUNT_OF(backends); k++) {
        kg_model_params params = kg_model_default_params();
        kg_model *m;
        kg_session *s;
        params.backend = backends[k];
        params.gpu_layers = 1;
        OK(kg_model_open(&m, file, &params));
        const int dim = kg_model_dim(m);
        float out[256];
        double want[256];
        assert_true(dim <= 256 && c->n_logits == (size_t)(c->n * dim));
        for (int pooling = KG_POOLING_FILE; pooling <= KG_POOLING_LAST; pooling++) {
            OK(kg_embed(m, c->ids, (size_t)c->n, (kg_pooling)pooling, out));
            pooled(c, dim, pooling == KG_POOLING_FILE ? of_file : (kg_pooling)pooling, want);
            for (int i = 0; i < dim; i++)
                if (!(fabs((double)out[i] - want[i]) <= (k ? 1e-3 : 1e-7))) fail_msg("%s: %s, pooling %d: %g instead of %g", name, backends[k], pooling, (double)out[i], want[i]);
        }
        int32_t many[MOST] = {0};
        assert_int_equal(kg_embed(m, many, MOST, KG_POOLING_MEAN, out), KG_ERR_CONTEXT); /* they have 64 positions */
        assert_int_equal(kg_session_new(&s, m, NULL), KG_ERR_UNSUPPORTED);
        assert_non_null(strstr(kg_error_message(), "encoder"));
        kg_model_close(&m);
    }
}

/* What sentence-transformers' modules make of the states. */
static void check_steps(const char *name, const char *file, const struct cases *c)
{
    const char *const backends[] = {"reference", "cpu", gpu_name(), "hybrid"};
    double want[256];
    float out[256];
    FILE *f = open_in(name, "embedding.f64");
    const int n = (int)fread(want, sizeof *want, COUNT_OF(want), f);
    fclose(f);
    setenv("KAGARI_HYBRID", gpu_name(), 1);
    for (size_t k = 0; k < COUNT_OF(backends); k++) {
        kg_model_params params = kg_model_default_params();
        kg_model *m;
        params.backend = backends[k];
        params.gpu_layers = 1;
        params.activations = KG_ACT_F32;
        OK(kg_model_open(&m, file, &params));
        assert_int_equal(kg_model_embedding_dim(m), n);
        OK(kg_embed(m, c->ids, (size_t)c->n, KG_POOLING_FILE, out));
        for (int i = 0; i < n; i++)
            if (!(fabs((double)out[i] - want[i]) <= (k ? 1e-3 : 1e-7))) fail_msg("%s: %s: %g instead of %g", name, backends[k], (double)out[i], want[i]);
        kg_model_close(&m);
    }
}

/* ... and what is refused. */
static void check_refused_steps(const char *name, const char *gguf, const struct cases *c)
{
    static const char dense[] = "{\"in_features\": 48, \"out_features\": 36, \"bias\": true, \"activation_function\": \"torch.nn.modules.activation.%s\"}";
    static const struct {
        const char *modules, *act, *says;
        kg_status status; /* of opening the folder */
    } cases[] = {
        {"[{\"path\": \"1_Pooling\", \"type\": \"a.Pooling\"}, {\"path\": \"2_Dense\", \"type\": \"a.Dense\"}]", "ReLU", "activation", KG_OK},
        {"[{\"path\": \"2_Dense\", \"type\": \"a.Dense\"}]", "Tanh", "before the pooling", KG_OK},
        {"[{\"path\": \"1_Pooling\", \"type\": \"a.Pooling\"}, {\"path\": \"2_CNN\", \"type\": \"a.CNN\"}]", "Tanh", "CNN", KG_OK},
        {"[{\"path\": \"1_Pooling\", \"type\": \"a.Pooling\"}, {\"path\": \"../2_Dense\", \"type\": \"a.Dense\"}]", "Tanh", "below the folder", KG_ERR_FORMAT},
        {"[{\"path\": \"1_Pooling\", \"type\": \"a.Pooling\"}, {\"path\": \"3_Dense\", \"type\": \"a.Dense\"}]", "Tanh", "3_Dense", KG_ERR_IO},
    };
    char text[400];
    float out[256];
    kg_model *m;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        snprintf(text, sizeof text, dense, cases[i].act);
        put_file("2_Dense", "config.json", text);
        put_file("", "modules.json", cases[i].modules);
        const kg_status status = kg_model_open(&m, folder, NULL);
        if (status != cases[i].status) fail_msg("%s: %s: %d %s", name, cases[i].says, status, kg_error_message());
        if (status == KG_OK) {
            assert_int_equal(kg_embed(m, c->ids, (size_t)c->n, KG_POOLING_FILE, out), KG_ERR_UNSUPPORTED);
            kg_model_close(&m);
            if (!strstr(kg_error_message(), cases[i].says)) fail_msg("%s", kg_error_message());
            assert_int_equal(kg_convert(folder, gguf, NULL), KG_ERR_UNSUPPORTED);
        } else if (!strstr(kg_error_message(), cases[i].says)) {
            fail_msg("%s", kg_error_message());
        }
    }
}

static void check_verified(const char *name, const char *file, const struct cases *c)
{
    const char *const backends[] = {"cpu", gpu_name()};
    for (size_t k = 0; k < COUNT_OF(backends); k++) {
        kg_model_params params = kg_model_default_params();
        kg_verify_report r;
        kg_ops_report ops;
        params.backend = backends[k];
        OK(kg_verify(file, &params, c->ids, (size_t)c->n, &r));
        assert_true(r.is_encoder && r.n_tokens == (size_t)c->n && r.n_layers > 0);
        if (!(r.logits_error > 0 && r.logits_error <= r.logits_bound && r.embedding_error > 0 && r.embedding_error <= r.embedding_bound))
            fail_msg("%s: %s: states %g of %g, embedding %g of %g", name, backends[k], r.logits_error, r.logits_bound, r.embedding_error, r.embedding_bound);
        OK(kg_verify_ops(file, NULL, &params, c->ids, (size_t)c->n, NULL, NULL, &ops));
        assert_true(ops.whole.logits_error == r.logits_error && ops.whole.embedding_error == r.embedding_error && ops.n_ops > 0);
        kg_ops_report_free(&ops);
        kg_verify_report_free(&r);
    }
}

static bool is_encoder(const char *name, const char *file)
{
    struct model m;
    OK(model_open(&m, file));
    const bool is = m.program.is_encoder;
    model_close(&m);
    return is;
}

/* As sentence-transformers says what comes behind the states. */
static void check_poolings(const char *name, const char *gguf, const struct cases *c)
{
    check_embedding(name, folder, c, KG_POOLING_MEAN);
    put_file("1_Pooling", "config.json", "{\"pooling_mode_cls_token\": false, \"pooling_mode_mean_tokens\": false, \"pooling_mode_lasttoken\": true}");
    check_embedding(name, folder, c, KG_POOLING_LAST);
    put_file("other", "config.json", "{\"pooling_mode_cls_token\": true}");
    put_file("", "modules.json", "[{\"path\": \"\", \"type\": \"sentence_transformers.models.Transformer\"}, {\"path\": \"other\", \"type\": \"sentence_transformers.models.Pooling\"},"
                                 "{\"path\": \"2\", \"type\": \"sentence_transformers.models.Normalize\"}]");
    OK(kg_convert(folder, gguf, NULL));
    check_embedding(name, gguf, c, KG_POOLING_CLS);
    static const char *const files[] = {"1_Pooling/config.json", "1_Pooling", "other/config.json", "other", "modules.json"};
    for (size_t i = 0; i < COUNT_OF(files); i++) {
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        remove(path);
    }
}

static void all_architectures(void **state)
{
    (void)state;
    static struct cases c;
    struct dirent **list;
    const char *only = getenv("KAGARI_TEST_ARCH");
    char gguf[420];
    strcpy(folder, "/tmp/kagari-arch-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(gguf, sizeof gguf, "%s/model.gguf", folder);
    const int n = scandir(SOURCE_DIR "/tests/golden/arch", &list, NULL, alphasort);
    assert_true(n > 2);
    for (int i = 0; i < n; i++) {
        const char *name = list[i]->d_name;
        if (name[0] != '.' && (!only || strcmp(only, name) == 0)) {
            read_case(name, &c);
            write_model(folder, name, &c);
            write_steps(folder, &c);
            check_file(name, folder, &c, NULL, i);
            OK(kg_convert(folder, gguf, NULL));
            if (c.n_files) check_steps(name, folder, &c), check_steps(name, gguf, &c);
            if (c.n_parts == 2 && strstr(c.parts[1].name, "bias")) {
                check_refused_steps(name, gguf, &c);
                write_steps(folder, &c);
                OK(kg_convert(folder, gguf, NULL));
            }
            remove_steps(folder, &c);
            if (is_encoder(name, gguf)) check_verified(name, gguf, &c);
            if (!c.n_files && is_encoder(name, gguf)) check_poolings(name, gguf, &c);
            check_file(name, gguf, &c, gpu_name(), i);
            free(c.logits);
            unlink(gguf);
        }
        free(list[i]);
    }
    free(list);
    static const char *const files[] = {"model.safetensors", "config.json"};
    for (size_t i = 0; i < COUNT_OF(files); i++) {
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        unlink(path);
    }
    rmdir(folder);
}

/* The GGUF at `from` with one more layer that guesses tokens, whose tensors nobody reads: as other programs write them, it counts in block_count and in keys
 * of one number for each layer. */
static void add_layer_beyond(const char *name, const char *from, const char *to)
{
    struct file *f;
    struct gguf_out *out;
    const float zeros[4] = {0};
    char tensor[64];
    uint32_t n = 0;
    OK(file_open(&f, from));
    OK(gguf_out_open(&out, to));
    for (size_t i = 0; i < f->n_metas; i++) {
        const struct meta *m = &f->metas[i];
        const char *key = strchr(m->key, '.') ? strchr(m->key, '.') + 1 : m->key;
        if (strcmp(key, "block_count") == 0) {
            n = load_u32(m->data);
            OK(gguf_out_u32(out, m->key, n + 1));
        } else if (m->item == META_I32 && strncmp(m->key, "tokenizer.", 10) != 0 && m->type == META_ARR) {
            int32_t items[64];
            assert_true(m->n < 64);
            memcpy(items, m->data, m->n * sizeof *items);
            items[m->n] = 3;
            OK(gguf_out_array(out, m->key, META_I32, items, m->n + 1));
        } else {
            OK(gguf_out_meta(out, m));
        }
    }
    OK(gguf_out_u32(out, "nemotron_h.nextn_predict_layers", 1));
    for (size_t i = 0; i < f->n_tensors; i++) OK(gguf_out_tensor(out, f->tensors[i].name, f->tensors[i].type, f->tensors[i].n_dims, f->tensors[i].ne));
    snprintf(tensor, sizeof tensor, "blk.%u.nextn.eh_proj.weight", n);
    OK(gguf_out_tensor(out, tensor, TYPE_F32, 1, (const int64_t[]){4}));
    for (size_t i = 0; i < f->n_tensors; i++) OK(gguf_out_data(out, f->tensors[i].data, f->tensors[i].n_bytes));
    OK(gguf_out_data(out, zeros, sizeof zeros));
    OK(gguf_out_finish(out));
    gguf_out_close(&out);
    file_close(&f);
}

static void layers_that_guess(void **state)
{
    (void)state;
    static struct cases c;
    const char *name = "nemotron-h";
    char gguf[2][420];
    struct model m;
    strcpy(folder, "/tmp/kagari-arch-XXXXXX");
    assert_non_null(mkdtemp(folder));
    for (int i = 0; i < 2; i++) snprintf(gguf[i], sizeof gguf[i], "%s/%d.gguf", folder, i);
    read_case(name, &c);
    write_model(folder, name, &c);
    OK(kg_convert(folder, gguf[0], NULL));
    add_layer_beyond(name, gguf[0], gguf[1]);
    OK(model_open(&m, gguf[1]));
    run_case(name, backend_find("reference"), &m, &c, MOST, 1e-10);
    model_close(&m);
    free(c.logits);
    static const char *const files[] = {"model.safetensors", "config.json", "0.gguf", "1.gguf"};
    for (size_t i = 0; i < COUNT_OF(files); i++) {
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        unlink(path);
    }
    rmdir(folder);
}

/* Sum of all numbers of an importance file's tensor for blk.0.NAME.weight. */
static double sum_of(const struct file *f, const char *name, const char *what)
{
    char text[100];
    snprintf(text, sizeof text, "blk.0.%s.weight.%s", name, what);
    const struct tensor *t = file_tensor(f, text);
    double sum = 0;
    if (!t) fail_msg("no %s", text);
    for (size_t i = 0; i < t->n_bytes / 4; i++) sum += (double)f32_from_bits(load_u32((const uint8_t *)t->data + 4 * i));
    return sum;
}

/* The router sees each token once, n_used experts see the same rows, and their sums are kept apart; every backend sees the same, and what the head sees is
 * the embedding. */
static void importances_of_experts(void **state)
{
    (void)state;
    static struct cases c;
    const char *name = "mixtral";
    const char *const backends[] = {"reference", "cpu", gpu_name(), "hybrid"};
    const double n_used = 2;
    double first = 0;
    float embedding[2][256];
    char out[420];
    setenv("KAGARI_HYBRID", gpu_name(), 1);
    strcpy(folder, "/tmp/kagari-arch-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(out, sizeof out, "%s/importances.gguf", folder);
    read_case(name, &c);
    write_model(folder, name, &c);
    for (size_t b = 0; b < COUNT_OF(backends); b++) {
        struct file *f = NULL;
        kg_model *m;
        const kg_model_params params = {.backend = backends[b], .n_threads = 1, .activations = KG_ACT_F32, .gpu_layers = 1};
        const kg_imatrix_params p = {.first = -1};
        OK(kg_imatrix(folder, &params, c.ids, (size_t)c.n, &p, out));
        OK(file_open(&f, out));
        const struct tensor *down = file_tensor(f, "blk.0.ffn_down_exps.weight.in_sum2");
        assert_true(down && down->ne[0] == 88 && down->ne[1] == 5);
        assert_true(sum_of(f, "ffn_gate_inp", "counts") == c.n && sum_of(f, "ffn_gate_exps", "counts") == n_used * c.n);
        assert_true(sum_of(f, "ffn_up_exps", "counts") == n_used * c.n && sum_of(f, "ffn_down_exps", "counts") == n_used * c.n);
        const double router = sum_of(f, "ffn_gate_inp", "in_sum2"), experts = sum_of(f, "ffn_gate_exps", "in_sum2");
        const double down_sum = sum_of(f, "ffn_down_exps", "in_sum2");
        assert_true(router > 0 && fabs(experts - n_used * router) <= 1e-5 * experts && down_sum > 0);
        if (b == 0) first = down_sum;
        if (!(fabs(down_sum - first) <= 1e-3 * first)) fail_msg("%s: %s sees %g instead of %g", name, backends[b], down_sum, first);
        file_close(&f);
        OK(kg_model_open(&m, folder, &params));
        assert_true(kg_model_dim(m) <= 256);
        OK(kg_embed(m, c.ids, (size_t)c.n, KG_POOLING_MEAN, embedding[b > 0]));
        for (int i = 0; i < kg_model_dim(m); i++) {
            const double e = (double)embedding[b > 0][i], r = (double)embedding[0][i];
            if (!(fabs(e - r) <= 1e-3)) fail_msg("%s: %s: embedding %g instead of %g", name, backends[b], e, r);
        }
        kg_model_close(&m);
    }
    static const char *const files[] = {"model.safetensors", "config.json", "importances.gguf"};
    for (size_t i = 0; i < COUNT_OF(files); i++) {
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        unlink(path);
    }
    rmdir(folder);
    free(c.logits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(all_architectures), cmocka_unit_test(layers_that_guess), cmocka_unit_test(importances_of_experts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
