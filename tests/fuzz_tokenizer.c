/* layers: text */
/* Half of the inputs are vocabularies: any bytes as a GGUF file, or a file that is built here from them; the other half are
 * texts for two fixed vocabularies. What loads must encode, and decode to the same bytes where bytes have tokens. */
#include "file/safetensors.h"
#include "gguf_writer.h"
#include "text/steps.h"
#include "text/text.h"
#include "text/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static void check(bool ok)
{
    if (!ok) __builtin_trap();
}

static void use(const kg_tokenizer *tok, const char *text, size_t len, unsigned flags, bool exact)
{
    int32_t *ids;
    size_t n, n_back;
    char *back;
    kg_status status = kg_tokenize(tok, text, len, flags, &ids, &n);
    check(status == KG_OK || (status == KG_ERR_UNSUPPORTED && !exact));
    if (status != KG_OK) return;
    for (size_t i = 0; i < n; i++) check(ids[i] >= 0 && ids[i] < kg_tokenizer_n_vocab(tok));
    check(kg_detokenize(tok, ids, n, flags & KG_TOKENIZE_SPECIAL, &back, &n_back) == KG_OK);
    if (exact) check(n_back == len && (len == 0 || memcmp(back, text, len) == 0));
    struct utf8_stream stream = {0};
    struct buf out = {0};
    for (size_t i = 0; i < n; i++) {
        const char *bytes;
        size_t k = kg_token_bytes(tok, ids[i], true, &bytes);
        check(utf8_stream_push(&stream, bytes, k, i + 1 == n, &out) == KG_OK);
    }
    buf_free(&out);
    kg_free(ids);
    kg_free(back);
}

static void try_file(const uint8_t *data, size_t n_bytes, const char *text, size_t len)
{
    struct file *f;
    kg_tokenizer *tok = NULL;
    if (file_open_memory(&f, data, n_bytes, "fuzz.gguf") == KG_OK) {
        kg_status status = tokenizer_new(&tok, f);
        check(status == KG_OK || (!tok && strncmp(kg_error_message(), "fuzz.gguf", 9) == 0));
    }
    file_close(&f);
    if (!tok) return;
    use(tok, text, len, KG_TOKENIZE_BOS, false);
    use(tok, text, len, KG_TOKENIZE_SPECIAL, false);
    for (int32_t i = -1; i <= kg_tokenizer_n_vocab(tok) && i < 1000; i++) {
        const char *bytes;
        check(kg_token_bytes(tok, i, true, &bytes) <= n_bytes + 6);
        check(!kg_token_text(tok, i) == (i < 0 || i == kg_tokenizer_n_vocab(tok)));
    }
    kg_tokenizer_close(&tok);
}

static const char *const pre_names[] = {"default", "gpt-2", "llama-bpe", "qwen2", "gpt-4o", "falcon", "deepseek-llm", "jais-2"};

/* Lines of the input become tokens, scores, types and merges. */
static void build_vocabulary(const uint8_t *data, size_t n_bytes)
{
    enum { MAX_LINES = 256 };
    const char *line[MAX_LINES];
    size_t len[MAX_LINES], n = 0;
    bool spm = data[0] & 1;
    for (size_t i = 1; i < n_bytes && n < MAX_LINES; n++) {
        const uint8_t *end = memchr(data + i, '\n', n_bytes - i);
        line[n] = (const char *)data + i;
        len[n] = end ? (size_t)(end - data) - i : n_bytes - i;
        i += len[n] + 1;
    }
    if (n == 0) return;
    static const char *const models[] = {"llama", "bert", "rwkv", "t5"};
    static const char steps[] = "{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Precompiled\"},{\"type\":\"BertNormalizer\"},{\"type\":\"NFKC\"}]},"
                                "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Whitespace\"},{\"type\":\"Digits\"},"
                                "{\"type\":\"Metaspace\",\"replacement\":\"\xe2\x96\x81\"},{\"type\":\"FixedLength\",\"length\":9}]}}";
    struct gw w = {0};
    gw_str(&w, "tokenizer.ggml.model", spm ? models[data[0] >> 4 & 3] : "gpt2");
    if (data[0] & 0x40) { /* the map of characters comes from the input as well */
        gw_arr_head(&w, "tokenizer.ggml.precompiled_charsmap", GW_U8, n_bytes - 1);
        gw_put(&w.metas, data + 1, n_bytes - 1);
    }
    if (spm && (data[0] & 0x30) == 0x30) gw_str(&w, "kagari.tokenizer_steps", steps);
    if (n_bytes % 4 == 1) gw_str(&w, "kagari.word_suffix", "/w"); /* of BPE */
    if (n_bytes % 8 > 5) gw_str(&w, "kagari.inner_prefix", "#");
    if (spm && (data[0] & 0x30) == 0x20) gw_bool(&w, "kagari.symbols_inside", true);
    if (!spm) gw_str(&w, "tokenizer.ggml.pre", pre_names[data[0] >> 4 & 7]);
    if (data[0] & 2) gw_bool(&w, "tokenizer.ggml.add_space_prefix", false);
    if (data[0] & 4) gw_bool(&w, "tokenizer.ggml.remove_extra_whitespaces", true);
    gw_arr_head(&w, "tokenizer.ggml.tokens", GW_STR, n);
    for (size_t i = 0; i < n; i++) gw_put_str(&w.metas, line[i] + (len[i] > 0), len[i] - (len[i] > 0));
    gw_arr_head(&w, "tokenizer.ggml.scores", GW_F32, n);
    for (size_t i = 0; i < n; i++) {
        float score = len[i] > 0 ? -(float)((uint8_t)line[i][0] >> 3) : 0;
        gw_put(&w.metas, &score, 4);
    }
    if (data[0] & 8) {
        gw_arr_head(&w, "tokenizer.ggml.token_type", GW_I32, n);
        for (size_t i = 0; i < n; i++) gw_put_u32(&w.metas, len[i] > 0 ? ((uint8_t)line[i][0] & 7) % 7 : 1);
    }
    size_t n_merges = 0;
    for (size_t i = 0; i < n; i++) n_merges += len[i] > 2 && memchr(line[i] + 1, ' ', len[i] - 2);
    gw_arr_head(&w, "tokenizer.ggml.merges", GW_STR, n_merges);
    for (size_t i = 0; i < n; i++)
        if (len[i] > 2 && memchr(line[i] + 1, ' ', len[i] - 2)) gw_put_str(&w.metas, line[i], len[i]);
    size_t n_file;
    uint8_t *file = gw_finish(&w, &n_file);
    try_file(file, n_file, (const char *)data, n_bytes);
    free(file);
}

static kg_tokenizer *fixed_vocabulary(bool spm)
{
    struct gw w = {0};
    char tokens[300][16];
    const char *texts[300];
    int32_t types[300];
    float scores[300];
    size_t n = 0;
    for (int b = 0; b < 256; b++, n++) {
        types[n] = spm ? 6 : 1;
        scores[n] = 0;
        int code = b <= 32 ? 256 + b : b >= 127 && b <= 160 ? 289 + b - 127 : b == 173 ? 323 : b; /* the alphabet of byte-level BPE */
        if (spm)
            snprintf(tokens[n], sizeof tokens[n], "<0x%02X>", b);
        else
            snprintf(tokens[n], sizeof tokens[n], code < 128 ? "%c" : "%c%c", code < 128 ? code : 0xc0 | code >> 6, 0x80 | (code & 0x3f));
    }
    static const char *const more[] = {"a",
                                       "b",
                                       "aa",
                                       "ab",
                                       "aab",
                                       "abab",
                                       "\xe2\x96\x81",
                                       ("\xe2\x96\x81"
                                        "a"),
                                       "\xe2\x96\x81\xe2\x96\x81"};
    for (size_t i = 0; spm && i < COUNT_OF(more); i++, n++) {
        strcpy(tokens[n], more[i]);
        types[n] = 1;
        scores[n] = -(float)(i * 7 % 5);
    }
    if (!spm) {
        strcpy(tokens[n], "aa"), types[n] = 1, scores[n++] = 0;
        strcpy(tokens[n], "aab"), types[n] = 1, scores[n++] = 0;
        strcpy(tokens[n], "\xc4\xa0"
                          "a"),
            types[n] = 1, scores[n++] = 0;
    }
    strcpy(tokens[n], "<s>"), types[n] = 3, scores[n++] = 0;
    strcpy(tokens[n], "<s>s"), types[n] = 4, scores[n++] = 0;
    for (size_t i = 0; i < n; i++) texts[i] = tokens[i];
    gw_str(&w, "tokenizer.ggml.model", spm ? "llama" : "gpt2");
    gw_str(&w, "tokenizer.ggml.pre", "llama-bpe");
    gw_arr_str(&w, "tokenizer.ggml.tokens", texts, n);
    gw_arr_i32(&w, "tokenizer.ggml.token_type", types, n);
    gw_arr_f32(&w, "tokenizer.ggml.scores", scores, n);
    if (!spm) gw_arr_str(&w, "tokenizer.ggml.merges", (const char *const[]){"\xc4\xa0 a", "a a", "a b", "aa b"}, 4);
    size_t n_file;
    uint8_t *file = gw_finish(&w, &n_file);
    struct file *f;
    kg_tokenizer *tok = NULL;
    check(file_open_memory(&f, file, n_file, "fixed") == KG_OK && tokenizer_new(&tok, f) == KG_OK && tok);
    file_close(&f);
    free(file);
    return tok;
}

static kg_status count_word(void *ctx, const char *word, size_t n)
{
    (void)word;
    *(size_t *)ctx += n;
    return KG_OK;
}

/* A pattern of a tokenizer.json, which cuts its own text. */
static void try_pattern(const uint8_t *pattern, size_t n)
{
    static const struct charsmap none;
    struct buf json = {0};
    struct steps *steps = NULL;
    size_t n_valid = utf8_valid_prefix(pattern, n), seen = 0;
    check(buf_printf(&json, "{\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":{\"Regex\":\"") == KG_OK);
    for (size_t i = 0; i < n_valid; i++) {
        const bool plain = pattern[i] >= ' ' && pattern[i] != '"' && pattern[i] != '\\';
        check((plain ? buf_append(&json, pattern + i, 1) : buf_printf(&json, "\\u%04x", pattern[i] ? pattern[i] : ' ')) == KG_OK);
    }
    check(buf_printf(&json, "\"}}}") == KG_OK);
    if (steps_new(&steps, json.data, json.len, &none) == KG_OK && steps_run(steps, (const char *)pattern, n_valid, true, count_word, &seen) == KG_OK) check(seen == n_valid);
    steps_free(&steps);
    buf_free(&json);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    static kg_tokenizer *toks[2];
    for (int i = 0; i < 2; i++)
        if (!toks[i]) toks[i] = fixed_vocabulary(i);
    if (n_bytes < 2) return 0;
    if (memcmp(data, "1 ", 2) == 0) { /* rwkv_vocab_v20230424.txt */
        struct meta_out o = {0};
        check((rwkv_vocab_read(&o, data, n_bytes, 0) == KG_OK) == (o.n > 0));
        meta_out_free(&o);
    } else if (memcmp(data, "R ", 2) == 0) {
        try_pattern(data + 2, MIN(n_bytes - 2, (size_t)2000));
    } else if (memcmp(data, "GG", 2) == 0) {
        try_file(data, n_bytes, (const char *)data, n_bytes);
    } else if (data[0] & 0x80) {
        build_vocabulary(data, n_bytes);
    } else {
        const char *text = (const char *)data + 1;
        bool mark = false; /* SentencePiece cannot tell U+2581 from a space */
        for (size_t i = 1; i + 2 < n_bytes && !mark; i++) mark = memcmp(data + i, "\xe2\x96\x81", 3) == 0;
        for (int i = 0; i < 2; i++) use(toks[i], text, n_bytes - 1, data[0] & KG_TOKENIZE_SPECIAL, i == 0 || !mark);
    }
    return 0;
}
