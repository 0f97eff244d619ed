/* layers: run */
/* Adapters in folders, as peft writes them. Those of tests/golden/lora are compared with what peft computes in float64 (tools/mklora.py); for
 * every architecture of tests/golden/arch, an adapter of all its matrices is compared with the model that has the changes in its weights.
 * Models are opened as folder and as GGUF, adapters too. And what is refused. */
#include "run/run.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define OK(x) do { if ((x) != KG_OK) fail_msg("%s: %s", name, kg_error_message()); } while (0)

#include "arch_run.h"

static char dir[] = "/tmp/kagari-peft-XXXXXX", model[64], adapter[64], changed[64], gguf[64], lora_gguf[64], weights[100], config[100];

static void put(const char *path, const char *text)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

/* ---- golden cases */

static void base_of(const char *name, char base[64])
{
    char line[4096];
    FILE *f = open_in(name, "case.txt");
    assert_non_null(fgets(line, sizeof line, f));
    assert_int_equal(sscanf(line, "base %63s", base), 1);
    fclose(f);
}

/* What a GGUF says of a pair's scale is rounded to f32. */
static void check_converted(const char *name, const char *file, const struct cases *c)
{
    const kg_lora loras = {lora_gguf, 1};
    struct model m;
    OK(model_open_for(&m, file, &loras, 1, c->n_ctx));
    run_case(name, backend_find("reference"), &m, c, MOST, 1e-6);
    run_case(name, backend_find("cpu"), &m, c, MOST, 2e-3);
    model_close(&m);
}

static void check(const char *name, const char *file, const char *lora, const struct cases *c)
{
    const kg_lora loras = {lora, 1};
    struct model m;
    OK(model_open_for(&m, file, &loras, 1, c->n_ctx));
    run_case(name, backend_find("reference"), &m, c, MOST, 1e-10);
    run_case(name, backend_find("cpu"), &m, c, MOST, 2e-3);
    run_case(name, backend_find("cpu"), &m, c, 7, 2e-3);
    run_case(name, backend_find("emulator"), &m, c, 5, 2e-3);
    setenv("KAGARI_HYBRID", "emulator", 1);
    run_case(name, backend_find("hybrid"), &m, c, MOST, 2e-3);
    model_close(&m);
}

static void test_golden(void **state)
{
    (void)state;
    static struct cases base, c;
    struct dirent **list;
    const int n = scandir(SOURCE_DIR "/tests/golden/lora", &list, NULL, alphasort);
    assert_true(n > 2);
    for (int i = 0; i < n; i++) {
        char name[300], base_name[64];
        snprintf(name, sizeof name, "../lora/%s", list[i]->d_name);
        if (list[i]->d_name[0] != '.') {
            base_of(name, base_name);
            read_case(base_name, &base);
            read_case(name, &c);
            write_model(model, base_name, &base);
            write_tensors(weights, &c);
            copy_golden(adapter, name, "adapter_config.json");
            check(name, model, adapter, &c);
            OK(kg_convert(model, gguf, NULL));
            check(name, gguf, weights, &c);
            OK(kg_convert_adapter(adapter, i % 2 ? model : gguf, lora_gguf, NULL));
            check_converted(name, model, &c);
            check_converted(name, gguf, &c);
            free(base.logits);
            free(c.logits);
        }
        free(list[i]);
    }
    free(list);
}

/* ---- every architecture */

enum { RANK = 2 };

static bool is_matrix(const struct tiny *t)
{
    static const char *const others[] = {"embed", "wte", "wpe", "norm", "conv", "vision", "multi_modal", "pooler", "cls.", "kv_b_proj", "A_log"};
    const size_t n = strlen(t->name);
    if (t->n_dims != 2 || t->bytes || n < 7 || strcmp(t->name + n - 7, ".weight") != 0) return false;
    for (size_t i = 0; i < COUNT_OF(others); i++)
        if (strstr(t->name, others[i]) && !strstr(t->name, "embed_out")) return false;
    return true;
}

static struct tiny part(const struct tiny *of, char which, uint64_t rows, uint64_t columns)
{
    struct tiny t = {.spread = which == 'A' ? 0.25 : 0.5, .dims = {rows, columns}, .n = rows * columns, .n_dims = 2};
    snprintf(t.name, sizeof t.name, "base_model.model.%.*s.lora_%c.weight", (int)strlen(of->name) - 7, of->name, which);
    return t;
}

static float number(const struct tiny *t, uint64_t i)
{
    uint64_t seed = 0xcbf29ce484222325u;
    for (const char *s = t->name; *s; s++) seed = (seed ^ (uint8_t)*s) * 0x100000001b3u;
    return weight(seed, i, t);
}

/* Adds b a to the matrices of the file of weights that write_tensors has made of c. */
static void change_weights(const char *name, const char *path, const struct cases *c, bool by_columns)
{
    FILE *f = fopen(path, "r+b");
    uint64_t header, at;
    assert_non_null(f);
    assert_int_equal(fread(&header, 8, 1, f), 1);
    at = 8 + header;
    for (int i = 0; i < c->n_tensors; at += (c->tensors[i].bytes ? 1 : 4) * c->tensors[i].n, i++) {
        const struct tiny *t = &c->tensors[i];
        if (!is_matrix(t)) continue;
        const bool turned = by_columns && strncmp(t->name, "lm_head", 7) != 0;
        const uint64_t out = t->dims[turned], in = t->dims[!turned];
        const struct tiny a = part(t, 'A', RANK, in), b = part(t, 'B', out, RANK);
        float *w = malloc(t->n * sizeof *w);
        assert_non_null(w);
        fseek(f, (long)at, SEEK_SET);
        assert_int_equal(fread(w, sizeof *w, t->n, f), t->n);
        for (uint64_t o = 0; o < out; o++)
            for (uint64_t k = 0; k < in; k++) {
                float *v = &w[turned ? k * out + o : o * in + k];
                double sum = (double)*v;
                for (uint64_t r = 0; r < RANK; r++) sum += 0.5 * (double)number(&b, o * RANK + r) * (double)number(&a, r * in + k);
                *v = (float)sum;
            }
        fseek(f, (long)at, SEEK_SET);
        fwrite(w, sizeof *w, t->n, f);
        free(w);
    }
    if (fclose(f) != 0) fail_msg("%s: %s", name, path);
}

static void logits_of(const char *name, const char *file, const char *lora, const struct cases *c, double **out, size_t *n)
{
    const struct backend_params params = {.n_threads = 1, .max_batch = MOST};
    const struct backend *b = backend_find("reference");
    const int32_t blocks[BLOCKS] = {2, 0, 3, 1};
    const struct batch_seq seq = {.blocks = blocks};
    const kg_lora loras = {lora, 1};
    struct batch_token tokens[MOST];
    struct model m;
    void *ctx;
    OK(model_open_for(&m, file, &loras, lora ? 1 : 0, c->n_ctx));
    OK(b->open(&ctx, &m.program, &params));
    OK(b->kv_reserve(ctx, BLOCKS));
    if (m.program.n_state) OK(b->state_reserve(ctx, 1));
    *n = (size_t)c->n * (size_t)program_n_out(&m.program);
    *out = malloc(*n * sizeof **out);
    float *narrow = malloc(*n * sizeof *narrow);
    assert_true(*out && narrow);
    for (int t = 0; t < c->n; t++) tokens[t] = (struct batch_token){c->ids[t], t, 0, true};
    const struct batch batch = {.tokens = tokens, .n = c->n, .seqs = &seq, .n_seqs = 1, .logits = narrow, .logits_f64 = *out};
    OK(b->run(ctx, &batch));
    free(narrow);
    b->close(ctx);
    model_close(&m);
}

static double difference(const double *a, const double *b, size_t n)
{
    double diff = 0, size = 0;
    for (size_t i = 0; i < n; i++) diff += (a[i] - b[i]) * (a[i] - b[i]), size += b[i] * b[i];
    return sqrt(diff / size);
}

static void check_merged(const char *name, const struct cases *c)
{
    static struct cases parts;
    double *want, *got, *plain;
    size_t n, m;
    parts.n_tensors = 0;
    write_model(model, name, c);
    write_model(changed, name, c);
    char file[100];
    snprintf(file, sizeof file, "%s/model.safetensors", changed);
    change_weights(name, file, c, strcmp(name, "gpt2") == 0);
    for (int i = 0; i < c->n_tensors; i++) {
        const struct tiny *t = &c->tensors[i];
        if (!is_matrix(t)) continue;
        const bool turned = strcmp(name, "gpt2") == 0 && strncmp(t->name, "lm_head", 7) != 0;
        assert_true(parts.n_tensors + 2 <= (int)COUNT_OF(parts.tensors));
        parts.tensors[parts.n_tensors++] = part(t, 'A', RANK, t->dims[!turned]);
        parts.tensors[parts.n_tensors++] = part(t, 'B', t->dims[turned], RANK);
    }
    write_tensors(weights, &parts);
    put(config, "{\"peft_type\": \"LORA\", \"r\": 2, \"lora_alpha\": 1}");
    logits_of(name, changed, NULL, c, &want, &n);
    logits_of(name, model, NULL, c, &plain, &m);
    if (!(difference(plain, want, n) > 0.01)) fail_msg("%s: the adapter changes too little", name);
    free(plain);
    OK(kg_convert(model, gguf, NULL));
    OK(kg_convert_adapter(adapter, model, lora_gguf, NULL));
    for (int k = 0; k < 4; k++) {
        logits_of(name, k % 2 ? gguf : model, k / 2 ? lora_gguf : adapter, c, &got, &m);
        assert_int_equal(n, m);
        const double e = difference(got, want, n); /* the changed weights are rounded to f32 */
        if (!(e < 2e-5)) fail_msg("%s: adapter%s with %s: logits are off by %.3g", name, k / 2 ? " in GGUF" : "", k % 2 ? "a GGUF" : "a folder", e);
        free(got);
    }
    free(want);
}

static void test_merged(void **state)
{
    (void)state;
    static struct cases c;
    struct dirent **list;
    const int n = scandir(SOURCE_DIR "/tests/golden/arch", &list, NULL, alphasort);
    const char *only = getenv("KAGARI_TEST_ARCH");
    for (int i = 0; i < n; i++) {
        const char *name = list[i]->d_name;
        if (name[0] != '.' && (!only || strcmp(only, name) == 0)) {
            read_case(name, &c);
            check_merged(name, &c);
            free(c.logits);
        }
        free(list[i]);
    }
    free(list);
}

/* ---- what is refused */

static void refused(const char *why)
{
    const kg_lora loras = {adapter, 1};
    struct model m;
    assert_int_not_equal(model_open_adapted(&m, model, &loras, 1), KG_OK);
    if (!strstr(kg_error_message(), why)) fail_msg("'%s' lacks '%s'", kg_error_message(), why);
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *config, *why;
    } configs[] = {
        {"{\"peft_type\": \"LORA\", \"r\": 2, \"use_dora\": true}", "DoRA"},
        {"{\"peft_type\": \"LORA\", \"r\": 2, \"bias\": \"all\"}", "biases"},
        {"{\"peft_type\": \"LORA\", \"r\": 2, \"modules_to_save\": [\"lm_head\"]}", "modules_to_save"},
        {"{\"peft_type\": \"LORA\", \"r\": 2, \"layer_replication\": [[0, 2]]}", "layer_replication"},
        {"{\"peft_type\": \"LORA\", \"r\": 2, \"init_lora_weights\": \"pissa\"}", "changed weights"},
        {"{\"peft_type\": \"LORA\", \"r\": 2, \"use_something_new\": true}", "use_something_new"},
        {"{\"peft_type\": \"LORA\", \"r\": 3}", "has rank 2"},
        {"{\"peft_type\": \"LORA\", \"r\": 2, \"rank_pattern\": {\"q_proj\": 5}}", "says 5"},
        {"{\"peft_type\": \"LORA\", \"r\": 2, \"alpha_pattern\": {\"q_proj(\": 5}}", "is not valid"},
        {"{\"peft_type\": \"LORA\", \"r\": 2, \"alpha_pattern\": {\"(.+.+)+[yz]\": 5}}", "match limit"},
        {"{\"peft_type\": \"IA3\"}", "IA3"},
        {"[]", "not an object"},
        {"{", "not valid JSON"},
    };
    static const struct {
        const char *name, *why;
        uint64_t rows, columns;
    } parts[] = {
        {"model.layers.0.self_attn.q_proj.lora_A.weight", "is no part of", RANK, 48},
        {"base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector", "DoRA", 60, 1},
        {"base_model.model.lm_head.weight", "is no part of", 71, 48},
        {"base_model.model.model.layers.0.self_attn.x_proj.lora_A.weight", "has only one", RANK, 48},
        {"base_model.model.model.layers.0.self_attn.q_proj.lora_embedding_A", "two kinds", RANK, 48},
    };
    const char *name = "llama";
    static struct cases c;
    struct cases a = {.n_tensors = 2};
    const struct tiny q = {.name = "model.layers.0.self_attn.q_proj.weight"};
    read_case(name, &c);
    write_model(model, name, &c);
    a.tensors[0] = part(&q, 'A', RANK, 48);
    a.tensors[1] = part(&q, 'B', 60, RANK);
    write_tensors(weights, &a);
    for (size_t i = 0; i < COUNT_OF(configs); i++) {
        put(config, configs[i].config);
        refused(configs[i].why);
    }
    put(config, "{\"peft_type\": \"LORA\", \"r\": 2}");
    const kg_lora loras = {adapter, 1};
    struct model m;
    OK(model_open_adapted(&m, model, &loras, 1));
    model_close(&m);
    struct file *f;
    assert_int_equal(file_open(&f, adapter), KG_ERR_UNSUPPORTED);
    assert_non_null(strstr(kg_error_message(), "--lora"));
    for (size_t i = 0; i < COUNT_OF(parts); i++) {
        a.n_tensors = 3;
        a.tensors[2] = part(&q, 'A', parts[i].rows, parts[i].columns);
        snprintf(a.tensors[2].name, sizeof a.tensors[2].name, "%s", parts[i].name);
        write_tensors(weights, &a);
        refused(parts[i].why);
    }
    a.n_tensors = 2;
    for (int k = 0; k < 2; k++) snprintf(a.tensors[k].name, sizeof a.tensors[k].name, "base_model.model.model.layers.0.self_attn.x_proj.lora_%c.weight", "AB"[k]);
    write_tensors(weights, &a);
    refused("is not known for model_type llama");
    a.tensors[0] = part(&q, 'A', RANK, 40);
    a.tensors[1] = part(&q, 'B', 60, RANK);
    write_tensors(weights, &a);
    refused("wanted {48, 2}");
    unlink(weights);
    refused("adapter_model.safetensors");
    free(c.logits);
}

static int setup(void **state)
{
    (void)state;
    if (!mkdtemp(dir)) return -1;
    snprintf(model, sizeof model, "%s/model", dir);
    snprintf(changed, sizeof changed, "%s/changed", dir);
    snprintf(adapter, sizeof adapter, "%s/adapter", dir);
    snprintf(gguf, sizeof gguf, "%s/model.gguf", dir);
    snprintf(lora_gguf, sizeof lora_gguf, "%s/lora.gguf", dir);
    snprintf(weights, sizeof weights, "%s/adapter_model.safetensors", adapter);
    snprintf(config, sizeof config, "%s/adapter_config.json", adapter);
    return mkdir(model, 0777) || mkdir(adapter, 0777) || mkdir(changed, 0777);
}

static int teardown(void **state)
{
    (void)state;
    static const char *const files[] = {"model/model.safetensors", "model/config.json", "model", "changed/model.safetensors", "changed/config.json", "changed",
                                        "adapter/adapter_model.safetensors", "adapter/adapter_config.json", "adapter", "model.gguf", "lora.gguf"};
    for (size_t i = 0; i < COUNT_OF(files); i++) {
        char path[100];
        snprintf(path, sizeof path, "%s/%s", dir, files[i]);
        remove(path);
    }
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_golden), cmocka_unit_test(test_merged), cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
