/* layers: text */
/* tokenizer.json of Hugging Face folders: the ids of the `tokenizers` package (tools/mktokenizers.py made the files). */
#include "file/file.h"
#include "file/safetensors.h"
#include "text/text.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "gguf_writer.h"

#define GOLDEN SOURCE_DIR "/tests/golden/tokenizer_json/"
#define PRE SOURCE_DIR "/tests/golden/pre/"

static void write_file(const char *dir, const char *name, const void *bytes, size_t n)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
}

static const char *model_type = "qwen2"; /* of the folders */
static const char *beside[2];            /* the name of one more file, and its text */
static kg_tokenizer **converted;         /* if set: that of the GGUF which such a folder becomes */

/* A folder with this tokenizer and an embedding of n rows, as a tokenizer; the folder goes away. */
static kg_status open_named(kg_tokenizer **out, const char *file_name, const char *json, size_t n_json, int n_vocab)
{
    static const char *const names[] = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "added_tokens.json"};
    char dir[] = "/tmp/kagari-tokenizer-XXXXXX", header[600], path[256];
    uint8_t file[8 + 600 + 4096] = {0};
    assert_non_null(mkdtemp(dir));
    int n = snprintf(header, sizeof header, "{\"model_type\":\"%s\"}", model_type);
    write_file(dir, "config.json", header, (size_t)n);
    n = snprintf(header, sizeof header, "{\"model.embed_tokens.weight\":{\"dtype\":\"F16\",\"shape\":[%d,1],\"data_offsets\":[0,%d]}}", n_vocab,
                     2 * n_vocab);
    memcpy(file, &(uint64_t){(uint64_t)n}, 8);
    memcpy(file + 8, header, (size_t)n);
    write_file(dir, "model.safetensors", file, (size_t)(8 + n + 2 * n_vocab));
    write_file(dir, file_name, json, n_json);
    if (beside[0]) write_file(dir, beside[0], beside[1], strlen(beside[1]));
    kg_status st = kg_tokenizer_open(out, dir);
    if (st == KG_OK && converted) {
        snprintf(path, sizeof path, "%s.gguf", dir);
        st = kg_convert(dir, path, NULL);
        if (st == KG_OK) st = kg_tokenizer_open(converted, path);
        unlink(path);
    }
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        remove(path);
    }
    rmdir(dir);
    return st;
}

static kg_status open_json(kg_tokenizer **out, const char *json, size_t n_json, int n_vocab) { return open_named(out, "tokenizer.json", json, n_json, n_vocab); }

/* name: of the file of the tokenizer. Whether there are ids of that kind. */
static bool check_ids_in(const char *folder, const kg_tokenizer *tok, const char *name, const char *kind, unsigned flags)
{
    char full[1024], text[512];
    snprintf(full, sizeof full, "%s%.*s.%s", folder, (int)(strrchr(name, '.') - name), name, kind);
    FILE *f = fopen(full, "rb");
    if (!f) return false;
    unsigned n_text, n_ids;
    int n_texts = 0;
    while (fscanf(f, "%u %u", &n_text, &n_ids) == 2) {
        assert_int_equal(fgetc(f), '\n');
        assert_true(n_text < sizeof text);
        assert_int_equal(fread(text, 1, n_text, f), n_text);
        int32_t *ids;
        size_t n;
        assert_int_equal(kg_tokenize(tok, text, n_text, flags, &ids, &n), KG_OK);
        if (n != n_ids) fail_msg("%s, text %d: %zu ids, wanted %u", name, n_texts, n, n_ids);
        for (size_t i = 0; i < n; i++) {
            int want;
            assert_int_equal(fscanf(f, "%d", &want), 1);
            if (ids[i] != want) fail_msg("%s, text %d: id %zu is %d, wanted %d", name, n_texts, i, ids[i], want);
        }
        kg_free(ids);
        n_texts++;
    }
    fclose(f);
    assert_true(n_texts > 5);
    return true;
}

static bool check_ids(const kg_tokenizer *tok, const char *name, const char *kind, unsigned flags) { return check_ids_in(GOLDEN, tok, name, kind, flags); }

static void test_golden(void **state)
{
    (void)state;
    int n_files = 0;
    DIR *dir = opendir(GOLDEN);
    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir));) {
        size_t len = strlen(e->d_name);
        const bool json = len > 5 && strcmp(e->d_name + len - 5, ".json") == 0;
        if (len > 60 || (!json && (len < 6 || strcmp(e->d_name + len - 6, ".model") != 0))) continue;
        char path[1024];
        struct os_map map;
        kg_tokenizer *tok = NULL, *gguf = NULL;
        snprintf(path, sizeof path, GOLDEN "%s", e->d_name);
        assert_int_equal(os_map_file(&map, path), KG_OK);
        converted = &gguf;
        if (open_named(&tok, json ? "tokenizer.json" : "tokenizer.model", (const char *)map.data, map.n_bytes, 512) != KG_OK) fail_msg("%s: %s", e->d_name, kg_error_message());
        os_unmap(&map);
        converted = NULL;
        assert_true(check_ids(tok, e->d_name, "ids", 0));
        check_ids(tok, e->d_name, "around", KG_TOKENIZE_BOS | KG_TOKENIZE_SPECIAL);
        kg_tokenizer_close(&tok);
        assert_true(check_ids(gguf, e->d_name, "ids", 0));
        check_ids(gguf, e->d_name, "around", KG_TOKENIZE_BOS | KG_TOKENIZE_SPECIAL);
        kg_tokenizer_close(&gguf);
        if (kg_tokenizer_open(&tok, path) != KG_OK) fail_msg("%s alone: %s", e->d_name, kg_error_message()); /* without its folder */
        assert_true(check_ids(tok, e->d_name, "ids", 0));
        kg_tokenizer_close(&tok);
        n_files++;
    }
    closedir(dir);
    assert_true(n_files >= 20);
}

static char *read_text(const char *folder, const char *name)
{
    char path[1024];
    struct os_map map;
    snprintf(path, sizeof path, "%s%s", folder, name);
    assert_int_equal(os_map_file(&map, path), KG_OK);
    char *text = strndup((const char *)map.data, map.n_bytes);
    os_unmap(&map);
    assert_non_null(text);
    return text;
}

/* What cuts a text before byte-level BPE in real models' files (tools/mkpre.py): the name for it, the ids with it. */
static void test_names(void **state)
{
    (void)state;
    static const char path[] = "/tmp/kagari-names.json";
    char *model = read_text(PRE, "model");
    int n_names = 0;
    DIR *dir = opendir(PRE);
    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir));) {
        const size_t len = strlen(e->d_name);
        char want[40] = "kagari";
        if (len < 6 || strcmp(e->d_name + len - 5, ".json") != 0) continue;
        char *row = read_text(PRE, e->d_name);
        sscanf(row, "{\"pre\": \"%39[^\"]", want);
        FILE *f = fopen(path, "wb");
        assert_non_null(f);
        fprintf(f, "{\"model\":{\"ignore_merges\":%s,%s,%s", strstr(row, "\"ignore_merges\": true") ? "true" : "false", model + 1, row + 1);
        fclose(f);
        free(row);
        struct file *file = NULL;
        struct str pre;
        kg_tokenizer *tok = NULL;
        if (file_open_vocabulary(&file, path) != KG_OK || kg_tokenizer_open(&tok, path) != KG_OK) fail_msg("%s: %s", e->d_name, kg_error_message());
        assert_int_equal(file_get_str(file, "tokenizer.ggml.pre", &pre, NULL), KG_OK);
        if (pre.len != strlen(want) || memcmp(pre.ptr, want, pre.len) != 0) fail_msg("%s: '%.*s', wanted '%s'", e->d_name, (int)pre.len, pre.ptr, want);
        assert_true(check_ids_in(PRE, tok, e->d_name, "ids", 0));
        kg_tokenizer_close(&tok);
        file_close(&file);
        n_names++;
    }
    closedir(dir);
    unlink(path);
    free(model);
    assert_true(n_names >= 30);
}

/* Gemma 4's tokenizer, for which GGUF has a list of merges. */
static void test_ranked(void **state)
{
    (void)state;
    struct os_map map;
    kg_tokenizer *tok = NULL;
    assert_int_equal(os_map_file(&map, GOLDEN "gemma.json"), KG_OK);
    model_type = "gemma4_text\",\"layer_types\":[\"full_attention\"],\"rope_parameters\":{\"rope_type\":\"proportional\"},\"head_dim\":2,\"num_hidden_layers\":1,"
                 "\"num_key_value_heads\":1,\"intermediate_size\":1,\"hidden_act\":\"gelu_new";
    if (open_named(&tok, "tokenizer.json", (const char *)map.data, map.n_bytes, 512) != KG_OK) fail_msg("%s", kg_error_message());
    model_type = "qwen2";
    os_unmap(&map);
    assert_true(check_ids(tok, "gemma.json", "ids", 0));
    kg_tokenizer_close(&tok);
}

static void copy_strings(struct gw *w, const char *key, const struct meta *m)
{
    gw_arr_head(w, key, GW_STR, m->n);
    for (uint64_t i = 0; i < m->n; i++) gw_put_str(&w->metas, m->strings[i].ptr, m->strings[i].len);
}

/* Such a vocabulary in files of llama.cpp that call it byte-level BPE. */
static void test_raw(void **state)
{
    (void)state;
    static const char *const names[] = {"gemma4", "granite-embed-multi-311m", "sarvam-moe"};
    struct file *json = NULL, *f = NULL;
    assert_int_equal(file_open_vocabulary(&json, GOLDEN "gemma.json"), KG_OK);
    const struct meta *types = file_meta(json, "tokenizer.ggml.token_type");
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        struct gw w = {0};
        kg_tokenizer *tok = NULL;
        size_t n;
        gw_str(&w, "tokenizer.ggml.model", "gpt2");
        gw_str(&w, "tokenizer.ggml.pre", names[i]);
        copy_strings(&w, "tokenizer.ggml.tokens", file_meta(json, "tokenizer.ggml.tokens"));
        copy_strings(&w, "tokenizer.ggml.merges", file_meta(json, "kagari.bpe_merges"));
        gw_arr_head(&w, "tokenizer.ggml.token_type", GW_I32, types->n);
        gw_put(&w.metas, types->data, types->n * 4);
        uint8_t *bytes = gw_finish(&w, &n);
        if (file_open_memory(&f, bytes, n, names[i]) != KG_OK || tokenizer_new(&tok, f) != KG_OK) fail_msg("%s", kg_error_message());
        assert_true(check_ids(tok, "gemma.json", "ids", KG_TOKENIZE_BOS));
        kg_tokenizer_close(&tok);
        file_close(&f);
        free(bytes);
    }
    file_close(&json);
}

static int count_id(const kg_tokenizer *tok, const char *text, unsigned flags, int32_t id)
{
    int32_t *ids;
    size_t n;
    int found = 0;
    assert_int_equal(kg_tokenize(tok, text, strlen(text), flags, &ids, &n), KG_OK);
    for (size_t i = 0; i < n; i++) found += ids[i] == id;
    kg_free(ids);
    return found;
}

/* What a folder adds to the pieces of its tokenizer.model, wherever it says so: the marks of conversations. */
static void test_added(void **state)
{
    (void)state;
    static const char *const files[][2] = {
        {"tokenizer_config.json", "{\"added_tokens_decoder\":{\"510\":{\"content\":\"<|end|>\",\"special\":true},\"509\":{\"content\":\"<<x>>\",\"special\":false},"
                                  "\"700\":{\"content\":\"<none>\",\"special\":true}},\"eos_token\":{\"content\":\"<|end|>\"},\"add_bos_token\":false}"},
        {"tokenizer.json", "{\"added_tokens\":[{\"id\":510,\"content\":\"<|end|>\",\"special\":true},{\"id\":509,\"content\":\"<<x>>\",\"special\":false}]}"},
        {"added_tokens.json", "{\"<|end|>\":510,\"<<x>>\":509}"},
    };
    struct os_map map;
    kg_tokenizer *tok = NULL;
    assert_int_equal(os_map_file(&map, GOLDEN "spm-bytes.model"), KG_OK);
    for (size_t i = 0; i < COUNT_OF(files); i++) {
        beside[0] = files[i][0];
        beside[1] = files[i][1];
        if (open_named(&tok, "tokenizer.model", (const char *)map.data, map.n_bytes, 512) != KG_OK) fail_msg("%s", kg_error_message());
        assert_int_equal(count_id(tok, "a<|end|> b<<x>>", KG_TOKENIZE_SPECIAL, 510), 1);
        assert_int_equal(count_id(tok, "a<|end|> b<<x>>", KG_TOKENIZE_SPECIAL, 509), 1);
        assert_int_equal(count_id(tok, "a<|end|> b<<x>>", 0, 510), i == 2); /* that file does not say which are special */
        assert_int_equal(count_id(tok, "a<|end|> b<<x>>", 0, 509), 1);
        assert_int_equal(kg_tokenizer_eos(tok), i == 0 ? 510 : 2);
        assert_int_equal(count_id(tok, "a", KG_TOKENIZE_BOS, 1), i > 0);
        kg_tokenizer_close(&tok);
    }
    beside[1] = "{\"added_tokens_decoder\":{\"510\":7}}";
    beside[0] = "tokenizer_config.json";
    assert_int_not_equal(open_named(&tok, "tokenizer.model", (const char *)map.data, map.n_bytes, 512), KG_OK);
    beside[0] = NULL;
    os_unmap(&map);
}

/* Marks of words are spaces in a text. */
static void test_marks(void **state)
{
    (void)state;
    static const char *const cases[][3] = {{"bpe-suffix.json", "hello world", "hello world "}, {"bpe-clip.json", "hello world!", "hello world ! "},
                                           {"bpe-inner.json", "hello world", " hello world"}, {"bpe-both.json", "hello world", " hello world"}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char path[256], *text;
        kg_tokenizer *tok = NULL;
        int32_t *ids;
        size_t n, len;
        snprintf(path, sizeof path, GOLDEN "%s", cases[i][0]);
        assert_int_equal(kg_tokenizer_open(&tok, path), KG_OK);
        assert_int_equal(kg_tokenize(tok, cases[i][1], strlen(cases[i][1]), 0, &ids, &n), KG_OK);
        assert_int_equal(kg_detokenize(tok, ids, n, false, &text, &len), KG_OK);
        assert_string_equal(text, cases[i][2]);
        kg_free(ids);
        kg_free(text);
        kg_tokenizer_close(&tok);
    }
}

/* Which tokens begin and end a text: tokenizer_config.json's texts before config.json's numbers. */
static void test_specials(void **state)
{
    (void)state;
    static const char json[] = "{\"added_tokens\":[{\"id\":3,\"content\":\"<s>\",\"special\":true},{\"id\":4,\"content\":\"<|im_end|>\",\"special\":true}],\"pre_tokenizer\":{\"type\":\"ByteLevel\"},"
                               "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1,\"b\":2},\"merges\":[]}}";
    kg_tokenizer *tok = NULL;
    model_type = "qwen2\",\"eos_token_id\":2,\"x\":\"";
    assert_int_equal(open_json(&tok, json, strlen(json), 512), KG_OK);
    assert_int_equal(kg_tokenizer_eos(tok), 2);
    assert_int_equal(kg_tokenizer_bos(tok), -1);
    kg_tokenizer_close(&tok);
    beside[0] = "tokenizer_config.json";
    beside[1] = "{\"eos_token\":\"<|im_end|>\",\"bos_token\":\"<s>\",\"add_bos_token\":true,\"tokenizer_class\":\"LlamaTokenizerFast\"}";
    assert_int_equal(open_json(&tok, json, strlen(json), 512), KG_OK);
    assert_int_equal(kg_tokenizer_eos(tok), 4);
    assert_int_equal(kg_tokenizer_bos(tok), 3);
    assert_int_equal(count_id(tok, "ab", KG_TOKENIZE_BOS, 3), 1); /* as DeepSeek 3 has it, whose tokenizer.json has no template */
    kg_tokenizer_close(&tok);
    beside[0] = NULL;
    model_type = "qwen2";
}

#define STEPS(normalizer, pre) "{\"normalizer\":" normalizer ",\"pre_tokenizer\":" pre ",\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"[UNK]\":0}}}"

static void test_refused(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"{\"model\":{\"type\":\"WordLevel\",\"vocab\":{}}}", "WordLevel"},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":{}}}", "model.vocab is not an array of at most 512 pieces"},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",\"b\"]]}}", "piece 0 is not a text and a score"},
        {"{\"model\":{\"type\":\"WordPiece\",\"vocab\":[]}}", "model.vocab is not an object"},
        {"{\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"a\":1},\"max_input_chars_per_word\":-1}}", "max_input_chars_per_word"},
        {STEPS("{\"type\":\"Magic\"}", "null"), "the step \"Magic\""},
        {STEPS("{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"?\"}", "null"), "not base64"},
        {STEPS("{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"AAAAAAAA\"}", "null"), "map of characters is damaged"},
        {STEPS("{\"type\":\"Replace\",\"content\":\"\"}", "null"), "neither String nor Regex"},
        {STEPS("null", "{\"type\":\"UnicodeScripts\"}"), "the step \"UnicodeScripts\""},
        {STEPS("null", "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[a&&]\"},\"behavior\":\"Isolated\"}"), "a class in a pattern is empty"},
        {STEPS("null", "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[a-[b]]\"},\"behavior\":\"Isolated\"}"), "a range to a class"},
        {STEPS("null", "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[[[[[[[[[[a]]]]]]]]]]\"},\"behavior\":\"Isolated\"}"), "classes within each other"},
        {STEPS("null", "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"},\"behavior\":\"Isolated\"}"), "cannot be compiled"},
        {STEPS("null", "{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},\"behavior\":\"Never\"}"), "splits in an unknown way"},
        {"{\"pre_tokenizer\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":600},\"merges\":[]}}", "no id below 512"},
        {"{\"pre_tokenizer\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1,\"b\":1},\"merges\":[]}}", "two tokens"},
        {"{\"pre_tokenizer\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1},\"merges\":[1]}}", "not two strings"},
        {"[", "not valid JSON"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        kg_tokenizer *tok = NULL;
        if (open_json(&tok, cases[i][0], strlen(cases[i][0]), 512) == KG_OK) fail_msg("case %zu was accepted", i);
        if (!strstr(kg_error_message(), cases[i][1])) fail_msg("case %zu: '%s'", i, kg_error_message());
    }
}

static kg_status open_world(kg_tokenizer **tok, const char *text)
{
    static const char path[] = "/tmp/kagari-world.txt";
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    const kg_status st = kg_tokenizer_open(tok, path);
    unlink(path);
    return st;
}

static void expect_world(const kg_tokenizer *tok, const char *text, size_t len, const int32_t *want, size_t n_want)
{
    int32_t *ids;
    size_t n, n_back;
    char *back;
    assert_int_equal(kg_tokenize(tok, text, len, KG_TOKENIZE_BOS, &ids, &n), KG_OK);
    assert_int_equal(n, n_want);
    assert_memory_equal(ids, want, n * sizeof *ids);
    assert_int_equal(kg_detokenize(tok, ids, n, false, &back, &n_back), KG_OK);
    assert_int_equal(n_back, len);
    assert_memory_equal(back, text, len);
    kg_free(ids);
    kg_free(back);
}

/* RWKV World: every literal that Python may write; the longest token wins, whatever comes behind it. */
static void test_world(void **state)
{
    (void)state;
    char file[8192];
    size_t len = 0;
    kg_tokenizer *tok = NULL;
    for (int b = 0; b < 256; b++) len += (size_t)snprintf(file + len, sizeof file - len, "%d b'\\x%02x' 1\n", b + 1, b);
    snprintf(file + len, sizeof file - len, "%s", "257 '\\n\\n' 2\n258 ' a' 2\n259 'ab' 2\n260 'abcd' 4\n261 \"don't\" 5\n262 '\\'\"\\\\' 3\n263 '\xc3\xa9' 2\n264 '\\u65e5' 3\r\n"
                                                  "266 b'\\xe6\\x97' 2\n267 '\\x80' 2\n268 '\\U0001f525\\t' 5");
    if (open_world(&tok, file) != KG_OK) fail_msg("%s", kg_error_message());
    assert_int_equal(kg_tokenizer_n_vocab(tok), 269);
    assert_string_equal(kg_token_text(tok, 0), "<s>");
    assert_string_equal(kg_token_text(tok, 1), "\\x00");
    assert_string_equal(kg_token_text(tok, 'a' + 1), "a");
    assert_string_equal(kg_token_text(tok, 257), "\\n\\n");
    assert_string_equal(kg_token_text(tok, 261), "don't");
    assert_string_equal(kg_token_text(tok, 262), "\\'\"\\\\"); /* both quotes */
    assert_string_equal(kg_token_text(tok, 263), "\\xc3\\xa9");
    assert_string_equal(kg_token_text(tok, 265), "[PAD265]");
    assert_true(kg_token_is_end(tok, 0) && kg_token_is_end(tok, 257) && !kg_token_is_end(tok, 258));
    static const char text[] = " abcabcd\n\ndon't'\"\\\xc3\xa9\xe6\x97\xa5\xe6\x97\xa6\xc2\x80\xf0\x9f\x94\xa5\t\xf0\x9f\0<s>[PAD265]";
    static const int32_t want[] = {258, 'b' + 1, 'c' + 1, 260, 257, 261, 262, 263, 264, 266, 0xa6 + 1, 267, 268, 0xf0 + 1, 0x9f + 1, 1, '<' + 1, 's' + 1, '>' + 1,
                                   '[' + 1, 'P' + 1, 'A' + 1, 'D' + 1, '2' + 1, '6' + 1, '5' + 1, ']' + 1};
    expect_world(tok, text, sizeof text - 1, want, COUNT_OF(want));
    kg_tokenizer_close(&tok);
    static const char *const refused[][2] = {
        {"", "no tokens"}, {"1 'a'", "a space"}, {"1 'a' 2\n", "the length"}, {"1 'a' 1 \n", "the length"}, {"x 'a' 1", "a number"}, {"1 a 1", "a literal is missing"},
        {"1 'a", "does not end"}, {"1 '\\", "an escape"}, {"1 '\\x8' 1", "cut off"}, {"1 '\\ud800' 3", "no character"}, {"1 '\\101' 1", "escape"}, {"1 '\\07' 1", "octal"},
        {"1 '' 0", "the length"}, {"0 'a' 1", "do not rise"}, {"2 'a' 1\n1 'b' 1", "line 2"}, {"1 'a' 1\n\n2 'b' 1", "line 2"}, {"1048576 'a' 1", "do not rise"}, {"99999999 'a' 1", "a space"}};
    for (size_t i = 0; i < COUNT_OF(refused); i++) {
        if (open_world(&tok, refused[i][0]) == KG_OK) fail_msg("world %zu was accepted", i);
        if (!strstr(kg_error_message(), refused[i][1])) fail_msg("world %zu: '%s'", i, kg_error_message());
    }
    int32_t *ids;
    size_t n;
    assert_int_equal(open_world(&tok, "1 'a' 1\n"), KG_OK); /* no token for a byte */
    assert_int_equal(kg_tokenize(tok, "ab", 2, 0, &ids, &n), KG_ERR_UNSUPPORTED);
    kg_tokenizer_close(&tok);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_ranked),
        cmocka_unit_test(test_raw),
        cmocka_unit_test(test_added),
        cmocka_unit_test(test_marks),
        cmocka_unit_test(test_specials),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_world),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
