/* layers: file */
/* Safetensors and Hugging Face folders: broken files are refused; a folder shows the tensors and keys that its GGUF has. */
#include "file/hf_vocab.h"

#include "base/half.h"

#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#define HOSTILE SHARED_DIR "/hostile/safetensors/"
#define MODELS SHARED_DIR "/models/"

/* A file in memory: header text and n bytes of zeros as data. */
static kg_status open_text(struct file **out, const char *header, size_t n_data)
{
    size_t n = strlen(header);
    uint8_t *bytes = calloc(1, 8 + n + n_data);
    assert_non_null(bytes);
    memcpy(bytes, &(uint64_t){n}, 8);
    memcpy(bytes + 8, header, n);
    kg_status st = file_open_memory(out, bytes, 8 + n + n_data, "t.safetensors");
    if (st != KG_OK) {
        free(bytes);
        return st;
    }
    return KG_OK;
}

static void refuses(const char *header, size_t n_data, const char *why)
{
    struct file *f;
    assert_int_not_equal(open_text(&f, header, n_data), KG_OK);
    assert_null(f);
    if (!strstr(kg_error_message(), why)) fail_msg("'%s' lacks '%s'", kg_error_message(), why);
}

static void test_headers(void **state)
{
    (void)state;
    struct file *f;
    assert_int_equal(open_text(&f, "{\"a\":{\"dtype\":\"F16\",\"shape\":[2,3],\"data_offsets\":[0,12]}}", 12), KG_OK);
    const struct tensor *t = file_tensor(f, "a");
    assert_non_null(t);
    assert_int_equal(t->type, TYPE_F16);
    assert_int_equal(t->ne[0], 3);
    assert_int_equal(t->ne[1], 2);
    uint8_t *bytes = (uint8_t *)(uintptr_t)f->map.data;
    file_close(&f);
    free(bytes);
    refuses("{\"a\":{\"dtype\":\"F16\",\"shape\":[2,3],\"data_offsets\":[0,12]}}", 11, "its data end at 12");
    refuses("{\"a\":{\"dtype\":\"F16\",\"shape\":[2,3],\"data_offsets\":[0,12]}}", 13, "belong to no tensor");
    refuses("{\"a\":{\"dtype\":\"F16\",\"shape\":[2,3],\"data_offsets\":[0,10]}}", 10, "its shape takes 12");
    refuses("{\"a\":{\"dtype\":\"F4\",\"shape\":[2],\"data_offsets\":[0,1]}}", 1, "dtype F4");
    refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904],\"data_offsets\":[0,1]}}", 1, "64 bits");
    refuses("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1}}", 4, "nothing else");
}

static void test_hostile(void **state)
{
    (void)state;
    static const char *const names[] = {"seven_bytes", "hlen_max", "hlen_100mb1", "bad_start", "top_array", "offsets_neg", "offsets_oob", "offsets_huge", "gap",
                                        "overlap_10k", "shape_overflow2", "shape_neg", "dup_keys", "metadata_notstr", "deep_json", "json_trunc"};
    if (access(HOSTILE "gap.safetensors", F_OK) != 0) {
        print_message("skipped: no " HOSTILE "\n");
        skip();
    }
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        char path[512];
        struct file *f;
        snprintf(path, sizeof path, HOSTILE "%s.safetensors", names[i]);
        if (file_open(&f, path) == KG_OK) fail_msg("%s was accepted", names[i]);
        assert_null(f);
        assert_non_null(strstr(kg_error_message(), names[i]));
    }
}

static double element(const struct tensor *t, size_t i)
{
    const uint8_t *p = t->data;
    return t->type == TYPE_F32 ? (double)f32_from_bits(load_u32(p + 4 * i)) : (double)f32_from_f16(load_u16(p + 2 * i));
}

/* The folder and the GGUF that another program made of it: the same tensors, the same keys. */
static void test_folder(void **state)
{
    (void)state;
    struct file *hf, *gguf;
    if (access(MODELS "gpt2-hf/config.json", F_OK) != 0) {
        print_message("skipped: no " MODELS "gpt2-hf\n");
        skip();
    }
    assert_int_equal(file_open(&hf, MODELS "gpt2-hf"), KG_OK);
    assert_int_equal(file_open(&gguf, MODELS "gpt2-f16.gguf"), KG_OK);
    assert_int_equal(hf->n_tensors, gguf->n_tensors);
    for (size_t i = 0; i < gguf->n_tensors; i++) {
        const struct tensor *a = &gguf->tensors[i], *b = file_tensor(hf, a->name);
        if (!b) fail_msg("%s is missing", a->name);
        assert_int_equal(a->n_dims, b->n_dims);
        assert_memory_equal(a->ne, b->ne, sizeof a->ne);
        for (size_t k = 0; k < (size_t)(a->ne[0] * a->ne[1]); k++)
            if (element(a, k) != element(b, k)) fail_msg("%s: element %zu differs", a->name, k);
    }
    for (size_t i = 0; i < gguf->n_metas; i++) {
        const struct meta *a = &gguf->metas[i], *b = file_meta(hf, a->key);
        static const char *const theirs[] = {"general.name", "general.license", "general.file_type", "general.quantization_version"};
        bool skip_it = false;
        for (size_t k = 0; k < COUNT_OF(theirs); k++) skip_it |= strcmp(a->key, theirs[k]) == 0;
        if (skip_it) continue;
        if (!b) fail_msg("key %s is missing", a->key);
        assert_int_equal(a->type, b->type);
        assert_int_equal(a->n_bytes, b->n_bytes);
        assert_memory_equal(a->data, b->data, a->n_bytes);
    }
    file_close(&gguf);
    file_close(&hf);
}

/* tokenizer.model against the vocabulary of the GGUF that was made from it. */
static void test_sentencepiece(void **state)
{
    (void)state;
    struct os_map map;
    struct file *gguf;
    struct meta_out o = {0};
    if (access(MODELS "stories.spm.model", F_OK) != 0) {
        print_message("skipped: no " MODELS "stories.spm.model\n");
        skip();
    }
    assert_int_equal(os_map_file(&map, MODELS "stories.spm.model"), KG_OK);
    assert_int_equal(file_open(&gguf, MODELS "stories-f16.gguf"), KG_OK);
    assert_int_equal(sentencepiece_read(&o, map.data, map.n_bytes, &(struct hf_tokenizer){.vocab.n = 8192}, NULL), KG_OK);
    struct file f = {.path = "spm"};
    assert_int_equal(gguf_read_metas(&f, (const uint8_t *)o.bytes.data, o.bytes.len, o.n), KG_OK);
    for (size_t i = 0; i < f.n_metas; i++) {
        const struct meta *a = &f.metas[i], *b = file_meta(gguf, a->key);
        if (!b) fail_msg("key %s is not in the GGUF", a->key);
        if (a->type != b->type || a->n_bytes != b->n_bytes || memcmp(a->data, b->data, a->n_bytes) != 0) fail_msg("key %s differs", a->key);
    }
    for (size_t cut = 0; cut < map.n_bytes; cut += 997) { /* cut anywhere: refused or read, never beyond the end */
        struct meta_out part = {0};
        uint8_t *copy = malloc(cut + 1);
        assert_non_null(copy);
        memcpy(copy, map.data, cut);
        (void)sentencepiece_read(&part, copy, cut, &(struct hf_tokenizer){.vocab.n = 8192}, NULL);
        meta_out_free(&part);
        free(copy);
    }
    arena_free(&f.arena);
    meta_out_free(&o);
    file_close(&gguf);
    os_unmap(&map);
}

/* What kg_convert writes has the tensors of the other program's GGUF, bit for bit. */
static void test_convert(void **state)
{
    (void)state;
    struct file *ours, *theirs;
    char path[] = "/tmp/kagari-convert-XXXXXX";
    if (access(MODELS "gpt2-hf/config.json", F_OK) != 0) {
        print_message("skipped: no " MODELS "gpt2-hf\n");
        skip();
    }
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(kg_convert(MODELS "gpt2-hf", path, NULL), KG_OK);
    assert_int_equal(file_open(&ours, path), KG_OK);
    assert_int_equal(file_open(&theirs, MODELS "gpt2-f16.gguf"), KG_OK);
    assert_int_equal(ours->n_tensors, theirs->n_tensors);
    for (size_t i = 0; i < theirs->n_tensors; i++) {
        const struct tensor *a = &theirs->tensors[i], *b = file_tensor(ours, a->name);
        if (!b || a->type != b->type || a->n_dims != b->n_dims || memcmp(a->ne, b->ne, sizeof a->ne) != 0 || a->n_bytes != b->n_bytes ||
            memcmp(a->data, b->data, a->n_bytes) != 0)
            fail_msg("%s differs", a->name);
    }
    uint32_t file_type;
    assert_int_equal(file_get_u32(ours, "general.file_type", &file_type, NULL), KG_OK);
    assert_int_equal(file_type, 1);
    file_close(&ours);
    file_close(&theirs);
    assert_int_equal(kg_convert(MODELS "gpt2-hf", path, "q4_0"), KG_ERR_ARGUMENT);
    remove(path);
}

/* A folder of family llama: the rows of Q come as halves, and convert makes pairs of them. */
static void test_rotated(void **state)
{
    (void)state;
    static const char config[] = "{\"model_type\":\"llama\",\"hidden_size\":4,\"num_attention_heads\":1,\"num_hidden_layers\":1}";
    static const char header[] = "{\"model.layers.0.self_attn.q_proj.weight\":{\"dtype\":\"F32\",\"shape\":[4,1],\"data_offsets\":[0,16]}}";
    char dir[] = "/tmp/kagari-folder-XXXXXX", config_path[64], weights[64], out[64];
    assert_non_null(mkdtemp(dir));
    snprintf(config_path, sizeof config_path, "%s/config.json", dir);
    snprintf(weights, sizeof weights, "%s/model.safetensors", dir);
    snprintf(out, sizeof out, "%s/out.gguf", dir);
    FILE *w = fopen(config_path, "wb");
    assert_non_null(w);
    fputs(config, w);
    fclose(w);
    w = fopen(weights, "wb");
    assert_non_null(w);
    fwrite(&(uint64_t){sizeof header - 1}, 8, 1, w);
    fputs(header, w);
    fwrite((float[]){0, 1, 2, 3}, 4, 4, w);
    fclose(w);
    struct file *f;
    bool halves = false, found;
    if (file_open(&f, weights) != KG_OK) fail_msg("%s", kg_error_message());
    assert_int_equal(file_get_bool(f, "kagari.rope_halves", &halves, &found), KG_OK);
    assert_true(halves);
    float q[4]; /* data of this format need not be aligned */
    memcpy(q, file_tensor(f, "blk.0.attn_q.weight")->data, sizeof q);
    assert_true(q[1] == 1);
    file_close(&f);
    if (kg_convert(dir, out, "f32") != KG_OK) fail_msg("%s", kg_error_message());
    assert_int_equal(file_open(&f, out), KG_OK);
    memcpy(q, file_tensor(f, "blk.0.attn_q.weight")->data, sizeof q);
    assert_true(q[0] == 0 && q[1] == 2 && q[2] == 1 && q[3] == 3);
    assert_null(file_meta(f, "kagari.rope_halves"));
    file_close(&f);
    remove(out);
    remove(weights);
    remove(config_path);
    remove(dir);
}

/* ---- FP8: every code, with scales per tensor, per row and per block, as torch widens them */

static void put_text(const char *dir, const char *name, const void *bytes, size_t n)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
}

/* A folder whose one matrix is the codes 0 to 255 as 8 rows of 32; scales are 1, 2, 3 ... */
static kg_status open_fp8(struct file **out, const char *dtype, const char *config, const char *suffix, const char *shape, int n_scales)
{
    char dir[] = "/tmp/kagari-fp8-XXXXXX", header[512], path[256];
    uint8_t file[8 + 512 + 256 + 256] = {0};
    assert_non_null(mkdtemp(dir));
    int n = snprintf(header, sizeof header,
                     "{\"model.layers.0.mlp.up_proj.weight\":{\"dtype\":\"%s\",\"shape\":[8,32],\"data_offsets\":[0,256]},"
                     "\"model.layers.0.mlp.up_proj.weight%s\":{\"dtype\":\"F32\",\"shape\":%s,\"data_offsets\":[256,%d]}}",
                     dtype, suffix, shape, 256 + 4 * n_scales);
    memcpy(file, &(uint64_t){(uint64_t)n}, 8);
    memcpy(file + 8, header, (size_t)n);
    for (int i = 0; i < 256; i++) file[8 + n + i] = (uint8_t)i;
    for (int i = 0; i < n_scales; i++) memcpy(file + 8 + n + 256 + 4 * i, &(float){(float)(i + 1)}, 4);
    put_text(dir, "config.json", config, strlen(config));
    put_text(dir, "model.safetensors", file, (size_t)(8 + n + 256 + 4 * n_scales));
    kg_status st = file_open(out, dir);
    static const char *const names[] = {"config.json", "model.safetensors"};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        remove(path);
    }
    rmdir(dir);
    return st;
}

/* From the bits, in another way than the reader's. */
static double fp8_value(int code, int mantissa_bits)
{
    const int sign = code >> 7, rest = code & 127, exponent = rest >> mantissa_bits, bias = mantissa_bits == 3 ? 7 : 15;
    const double fraction = (double)(rest & ((1 << mantissa_bits) - 1)) / (1 << mantissa_bits);
    const double v = exponent ? (1 + fraction) * pow(2, exponent - bias) : fraction * pow(2, 1 - bias);
    return sign ? -v : v;
}

static void test_fp8(void **state)
{
    (void)state;
    static const char plain[] = "{\"model_type\":\"qwen2\"}", blocks[] = "{\"model_type\":\"qwen2\",\"quantization_config\":{\"weight_block_size\":[3,20]}}";
    static const char groups[] = "{\"model_type\":\"qwen2\",\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":\"float-quantized\",\"config_groups\":"
                                 "{\"group_0\":{\"weights\":{\"strategy\":\"block\",\"block_structure\":[2,16]}}}}}";
    static const struct {
        const char *dtype, *config, *suffix, *shape;
        int n_scales, rows, cols, across; /* of a scale */
    } cases[] = {
        {"F8_E4M3", plain, "_scale", "[]", 1, 8, 32, 1},       {"F8_E5M2", plain, "_scale", "[1]", 1, 8, 32, 1},
        {"F8_E4M3", plain, "_scale", "[8,1]", 8, 1, 32, 1},    {"F8_E4M3", blocks, "_scale_inv", "[3,2]", 6, 3, 20, 2},
        {"F8_E5M2", blocks, "_scale_inv", "[3,2]", 6, 3, 20, 2}, {"F8_E4M3", groups, "_scale", "[4,2]", 8, 2, 16, 2}, /* as many as rows */
        {"F8_E4M3", groups, "_scale", "[8,1]", 8, 1, 32, 1},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct file *f;
        if (open_fp8(&f, cases[i].dtype, cases[i].config, cases[i].suffix, cases[i].shape, cases[i].n_scales) != KG_OK) fail_msg("case %zu: %s", i, kg_error_message());
        assert_int_equal(f->n_tensors, 1);
        const struct tensor *t = file_tensor(f, "blk.0.ffn_up.weight");
        const bool e4m3 = strcmp(cases[i].dtype, "F8_E4M3") == 0;
        assert_non_null(t);
        assert_int_equal(t->type, TYPE_F32);
        for (int k = 0; k < 256; k++) {
            const int scale = k / 32 / cases[i].rows * cases[i].across + k % 32 / cases[i].cols + 1, top = k & 127;
            const double got = (double)f32_from_bits(load_u32((const uint8_t *)t->data + 4 * k)), want = fp8_value(k, e4m3 ? 3 : 2) * scale;
            if (e4m3 ? top == 127 : top > 124) assert_true(isnan(got));
            else if (!e4m3 && top == 124) assert_true(isinf(got));
            else if (got != want) fail_msg("case %zu, code %d: %g, wanted %g", i, k, got, want);
        }
        file_close(&f);
    }
    struct file *f;
    assert_int_not_equal(open_fp8(&f, "F8_E4M3", plain, "_scale", "[3]", 3), KG_OK);
    assert_non_null(strstr(kg_error_message(), "do not fit"));
    assert_int_not_equal(open_fp8(&f, "F8_E4M3", plain, "_other", "[1]", 1), KG_OK);
    assert_non_null(strstr(kg_error_message(), "no scales"));
    refuses("{\"a\":{\"dtype\":\"F8_E4M3\",\"shape\":[2],\"data_offsets\":[0,2]}}", 2, "need the folder");
}

/* ---- folders of something else: the error says of what */

static void test_other_folders(void **state)
{
    (void)state;
    static const char plain[] = "{\"model_type\":\"llama\"}";
    static const char lfs[] = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4711\n";
    static const struct {
        const char *config, *name, *text, *tensor, *error; /* a file of the folder: text, or of one tensor; words of the error */
    } cases[] = {
        {plain, "pytorch_model.bin", "PK", NULL, "weights of PyTorch (pytorch_model.bin)"},
        {plain, "a-Q4_K_M.gguf", "GGUF", NULL, "a-Q4_K_M.gguf: give that file"},
        {NULL, "a-Q4_K_M.gguf", "GGUF", NULL, "no config.json, but a-Q4_K_M.gguf"},
        {NULL, "x", "x", NULL, "no config.json"},
        {NULL, "adapter_config.json", "{}", NULL, "is an adapter"},
        {plain, "model.safetensors", lfs, NULL, "Git LFS pointer"},
        {"{\"model_type\":\"llama\",\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":4}}", "model.safetensors", NULL, "qweight", "packed by gptq, 4 bits"},
        {"{\"model_type\":\"llama\",\"quantization_config\":{\"quant_method\":\"awq\",\"bits\":4}}", "model.safetensors", NULL, "qweight", "packed by awq, 4 bits"},
        {"{\"model_type\":\"llama\",\"quantization_config\":{\"load_in_4bit\":true}}", "model.safetensors", NULL, "weight", "packed by bitsandbytes"},
        {"{\"model_type\":\"llama\",\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":\"pack-quantized\"}}", "model.safetensors", NULL, "weight_packed",
         "packed by compressed-tensors, pack-quantized"},
        {"{\"model_type\":\"llama\",\"quantization_config\":{\"quant_method\":\"modelopt\",\"quant_algo\":\"NVFP4\"}}", "model.safetensors", NULL, "weight", "packed by modelopt, NVFP4"},
        {plain, "model.safetensors", NULL, "qweight", "packed by GPTQ or AWQ"},
        {plain, "model.safetensors", NULL, "SCB", "packed by bitsandbytes"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char dir[] = "/tmp/kagari-other-XXXXXX", header[256], path[256];
        struct file *f;
        assert_non_null(mkdtemp(dir));
        if (cases[i].config) put_text(dir, "config.json", cases[i].config, strlen(cases[i].config));
        const int n = snprintf(header, sizeof header, "________{\"model.layers.0.mlp.up_proj.%s\":{\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[0,1]}}_", cases[i].tensor ? cases[i].tensor : "");
        memcpy(header, &(uint64_t){(uint64_t)n - 9}, 8);
        put_text(dir, cases[i].name, cases[i].text ? cases[i].text : header, cases[i].text ? strlen(cases[i].text) : (size_t)n);
        if (file_open(&f, dir) == KG_OK) fail_msg("case %zu was accepted", i);
        if (!strstr(kg_error_message(), cases[i].error)) fail_msg("case %zu: %s", i, kg_error_message());
        snprintf(path, sizeof path, "%s/config.json", dir);
        remove(path);
        snprintf(path, sizeof path, "%s/%s", dir, cases[i].name);
        remove(path);
        rmdir(dir);
    }
}

/* ---- a model in two files: the index must say what is where */

static void test_index(void **state)
{
    (void)state;
    static const struct {
        const char *map, *error; /* NULL: it opens */
    } cases[] = {
        {"\"model.layers.0.mlp.up_proj.weight\":\"a.safetensors\",\"model.layers.0.mlp.down_proj.weight\":\"b.safetensors\"", NULL},
        {"\"model.layers.0.mlp.up_proj.weight\":\"b.safetensors\",\"model.layers.0.mlp.down_proj.weight\":\"a.safetensors\"", "a.safetensors has 'model.layers.0.mlp.up_proj.weight', for which "
                                                                                                                          "model.safetensors.index.json names b.safetensors"},
        {"\"model.layers.0.mlp.up_proj.weight\":\"a.safetensors\",\"x\":\"b.safetensors\"", "b.safetensors has 'model.layers.0.mlp.down_proj.weight', for which model.safetensors.index.json names no file"},
        {"\"model.layers.0.mlp.up_proj.weight\":\"a.safetensors\",\"model.layers.0.mlp.down_proj.weight\":\"a.safetensors\"", "lists 2 tensors, the files have 1"},
        {"\"model.layers.0.mlp.up_proj.weight\":\"a.safetensors\",\"model.layers.0.mlp.down_proj.weight\":\"c.safetensors\"", "c.safetensors"},
        {"\"model.layers.0.mlp.up_proj.weight\":\"a.safetensors\",\"model.layers.0.mlp.down_proj.weight\":\"../b.safetensors\"", "../b.safetensors"},
        {"\"model.layers.0.mlp.up_proj.weight\":1", "is not a string"},
        {"", "has no weight_map"},
    };
    static const char *const names[] = {"config.json", "a.safetensors", "b.safetensors", "model.safetensors.index.json"};
    char dir[] = "/tmp/kagari-index-XXXXXX", text[512], path[64];
    assert_non_null(mkdtemp(dir));
    put_text(dir, names[0], "{\"model_type\":\"llama\"}", 22);
    for (int k = 1; k < 3; k++) {
        const int n = snprintf(text, sizeof text, "________{\"model.layers.0.mlp.%s_proj.weight\":{\"dtype\":\"F16\",\"shape\":[1,1],\"data_offsets\":[0,2]}}__", k == 1 ? "up" : "down");
        memcpy(text, &(uint64_t){(uint64_t)n - 10}, 8);
        put_text(dir, names[k], text, (size_t)n);
    }
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct file *f = NULL;
        put_text(dir, names[3], text, (size_t)snprintf(text, sizeof text, "{\"weight_map\":{%s}}", cases[i].map));
        const kg_status st = file_open(&f, dir);
        if ((st == KG_OK) != !cases[i].error) fail_msg("case %zu: %s", i, st == KG_OK ? "was accepted" : kg_error_message());
        if (st != KG_OK && !strstr(kg_error_message(), cases[i].error)) fail_msg("case %zu: %s", i, kg_error_message());
        file_close(&f);
    }
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        remove(path);
    }
    rmdir(dir);
}

/* ---- config.json that asks for what is not there, or makes no sense */

static void test_refused_configs(void **state)
{
    (void)state;
    static const struct {
        const char *config, *error;
    } cases[] = {
        {"\"model_type\":\"nemotron_h_moe\"", "hybrid_override_pattern"},
        {"\"model_type\":\"nemotron_h\",\"layers_block_type\":null,\"hybrid_override_pattern\":\"MX\"", "layer 1 is none of"},
        {"\"model_type\":\"nemotron_h\",\"layers_block_type\":[\"mamba\",7]", "layer 1 is none of"},
        {"\"model_type\":\"nemotron_h\",\"hybrid_override_pattern\":\"ME-\"", "plain layers beside"},
        {"\"model_type\":\"nemotron_h\",\"hybrid_override_pattern\":\"M\",\"time_step_limit\":[0.001,0.1]", "time_step_limit"},
        {"\"model_type\":\"nemotron_h\",\"hybrid_override_pattern\":\"M\",\"mlp_hidden_act\":\"silu\"", "mlp_hidden_act"},
        {"\"model_type\":\"jamba\",\"num_hidden_layers\":4,\"attn_layer_period\":2,\"attn_layer_offset\":2", "attn_layer_offset"},
        {"\"model_type\":\"bailing_moe\",\"architectures\":[\"BailingMoeForCausalLM\"]", "second generation"},
        {"\"model_type\":\"falcon_h1\",\"mlp_multipliers\":[1]", "mlp_multipliers"},
        {"\"model_type\":\"falcon_h1\",\"key_multiplier\":0", "key_multiplier"},
        {"\"model_type\":\"falcon_h1\",\"mamba_rms_norm\":true", "mamba_norm_before_gate"},
        {"\"model_type\":\"apertus\",\"post_norm\":true", "post_norm"},
        {"\"model_type\":\"minicpm3\",\"qk_nope_head_dim\":-1", "qk_nope_head_dim"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char dir[] = "/tmp/kagari-refused-XXXXXX", config[256], path[64];
        struct file *f;
        assert_non_null(mkdtemp(dir));
        put_text(dir, "config.json", config, (size_t)snprintf(config, sizeof config, "{%s}", cases[i].config));
        if (file_open(&f, dir) == KG_OK) fail_msg("case %zu was accepted", i);
        if (!strstr(kg_error_message(), cases[i].error)) fail_msg("case %zu: %s", i, kg_error_message());
        snprintf(path, sizeof path, "%s/config.json", dir);
        remove(path);
        rmdir(dir);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_headers),
        cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_folder),
        cmocka_unit_test(test_sentencepiece),
        cmocka_unit_test(test_convert),
        cmocka_unit_test(test_rotated),
        cmocka_unit_test(test_fp8),
        cmocka_unit_test(test_other_folders),
        cmocka_unit_test(test_index),
        cmocka_unit_test(test_refused_configs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
