/* tokenizer.json of WordPiece and Unigram -> tokenizer.ggml.* keys, and kagari.steps: its normalizer and pre-tokenizer, one string for each step and
 * each of their arguments. GGUF has no place for these, so readers of a converted file take what its kind usually has. */
#include "file/hf_vocab.h"

#include <stdio.h>
#include <stdlib.h>

/* The steps as they are read. */
struct listing {
    struct buf texts; /* each ended by NUL */
    size_t n;
    kg_status status;
    struct buf charsmap; /* decoded */
    bool trims, prefix;
};

static void say(struct listing *l, const char *text)
{
    if (l->status == KG_OK) l->status = buf_append(&l->texts, text, strlen(text) + 1);
    l->n++;
}

static void say2(struct listing *l, const char *text, const char *arg)
{
    say(l, text);
    say(l, arg);
}

static bool flag(const json_t *step, const char *key, bool missing) { return get(step, key) ? json_is_true(get(step, key)) : missing; }

static int digit64(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *p = c ? strchr(digits, c) : NULL;
    return p ? (int)(p - digits) : -1;
}

static kg_status decode64(struct buf *out, const char *s)
{
    uint32_t bits = 0;
    int n = 0;
    for (; *s && *s != '='; s++) {
        int d = digit64(*s);
        if (d < 0) return status_set(KG_ERR_FORMAT, "precompiled_charsmap is not base64");
        bits = bits << 6 | (uint32_t)d;
        n += 6;
        if (n < 8) continue;
        n -= 8;
        KG_TRY(buf_append(out, &(uint8_t){(uint8_t)(bits >> n)}, 1));
    }
    return KG_OK;
}

static kg_status read_bert(struct listing *l, const json_t *p)
{
    bool lowercase = flag(p, "lowercase", true);
    if (flag(p, "clean_text", true)) say(l, "clean");
    if (flag(p, "handle_chinese_chars", true)) say(l, "ideographs");
    if (is_set(get(p, "strip_accents")) ? json_is_true(get(p, "strip_accents")) : lowercase) {
        say(l, "nfd");
        say(l, "no_accents");
    }
    if (lowercase) say(l, "lower");
    return KG_OK;
}

static kg_status read_strip(struct listing *l, const json_t *p)
{
    if (flag(p, "strip_left", true)) say(l, "strip_left");
    if (flag(p, "strip_right", true)) say(l, "strip_right");
    return KG_OK;
}

static kg_status read_charsmap(struct listing *l, const json_t *p)
{
    const char *map = json_string_value(get(p, "precompiled_charsmap"));
    if (!map || l->charsmap.len > 0) return hf_refuse("normalizer", p);
    KG_TRY(decode64(&l->charsmap, map));
    if (l->charsmap.len > 0) say(l, "graphemes");
    return KG_OK;
}

static kg_status read_replace(struct listing *l, const json_t *p)
{
    const json_t *pattern = get(p, "pattern"), *text = get(pattern, "String"), *regex = get(pattern, "Regex"), *to = get(p, "content");
    if (!json_is_string(to) || strlen(json_string_value(to)) != json_string_length(to)) return hf_refuse("normalizer", p);
    if (is(regex, " {2,}")) {
        l->trims = true;
        say2(l, "squeeze", json_string_value(to));
        return KG_OK;
    }
    if (!json_is_string(text) || strlen(json_string_value(text)) != json_string_length(text)) return hf_refuse("normalizer", p);
    say2(l, "replace", json_string_value(text));
    say(l, json_string_value(to));
    return KG_OK;
}

static kg_status read_prepend(struct listing *l, const json_t *p)
{
    if (!json_is_string(get(p, "prepend"))) return hf_refuse("normalizer", p);
    l->prefix = true;
    say2(l, "prepend", json_string_value(get(p, "prepend")));
    return KG_OK;
}

static kg_status read_metaspace(struct listing *l, const json_t *p)
{
    const json_t *scheme = get(p, "prepend_scheme");
    const char *name = json_string_value(scheme);
    if (!is(get(p, "replacement"), SPACE_MARK) || (scheme && !is(scheme, "always") && !is(scheme, "first") && !is(scheme, "never")))
        return hf_refuse("pre_tokenizer", p);
    if (!name) name = flag(p, "add_prefix_space", true) ? "always" : "never";
    l->prefix |= strcmp(name, "never") != 0;
    say2(l, "metaspace", name);
    say(l, flag(p, "split", true) ? "split" : "whole");
    return KG_OK;
}

static kg_status read_isolated(struct listing *l, const json_t *p)
{
    bool punctuation = is(get(p, "type"), "Punctuation");
    if (punctuation ? get(p, "behavior") && !is(get(p, "behavior"), "Isolated") : !flag(p, "individual_digits", false)) return hf_refuse("pre_tokenizer", p);
    say(l, punctuation ? "punctuation" : "digits");
    return KG_OK;
}

static kg_status read_step(struct listing *l, const json_t *p)
{
    static const struct {
        const char *type;
        const char *steps[2];
        kg_status (*read)(struct listing *l, const json_t *p);
    } known[] = {
        {"NFC", {"nfc"}, NULL},
        {"NFD", {"nfd"}, NULL},
        {"NFKC", {"nfkc"}, NULL},
        {"NFKD", {"nfkd"}, NULL},
        {"Nmt", {"nmt"}, NULL},
        {"Lowercase", {"lower"}, NULL},
        {"StripAccents", {"no_marks"}, NULL},
        {"BertPreTokenizer", {"spaces", "punctuation"}, NULL},
        {"WhitespaceSplit", {"spaces"}, NULL},
        {"BertNormalizer", {NULL}, read_bert},
        {"Strip", {NULL}, read_strip},
        {"Precompiled", {NULL}, read_charsmap},
        {"Replace", {NULL}, read_replace},
        {"Prepend", {NULL}, read_prepend},
        {"Metaspace", {NULL}, read_metaspace},
        {"Punctuation", {NULL}, read_isolated},
        {"Digits", {NULL}, read_isolated},
    };
    for (size_t i = 0; i < COUNT_OF(known); i++) {
        if (!is(get(p, "type"), known[i].type)) continue;
        for (size_t k = 0; k < 2 && known[i].steps[k]; k++) say(l, known[i].steps[k]);
        l->trims |= strcmp(known[i].type, "WhitespaceSplit") == 0;
        return known[i].read ? known[i].read(l, p) : KG_OK;
    }
    return hf_refuse("a step", p);
}

static kg_status read_steps(struct listing *l, const json_t *p)
{
    if (!is_set(p)) return KG_OK;
    if (!is(get(p, "type"), "Sequence")) return read_step(l, p);
    const json_t *list = get(p, get(p, "normalizers") ? "normalizers" : "pretokenizers");
    for (size_t i = 0; i < json_array_size(list); i++) KG_TRY(read_step(l, json_array_get(list, i)));
    return KG_OK;
}

static kg_status put_steps(struct meta_out *o, struct listing *l, const json_t *tokenizer)
{
    KG_TRY(read_steps(l, get(tokenizer, "normalizer")));
    KG_TRY(read_steps(l, get(tokenizer, "pre_tokenizer")));
    KG_TRY(l->status);
    meta_out_array(o, "kagari.steps", META_STR, l->n);
    const char *text = l->texts.data;
    for (size_t i = 0; i < l->n; i++, text += strlen(text) + 1) meta_out_item(o, text, strlen(text));
    return KG_OK;
}

/* ---- WordPiece */

/* The phantom space of GGUF: pieces that go on with a word lose their prefix, the others get a mark. */
static void put_phantoms(struct meta_out *o, const struct hf_vocab *v, const char *prefix)
{
    const size_t n_prefix = strlen(prefix);
    meta_out_array(o, "tokenizer.ggml.tokens", META_STR, v->n);
    for (size_t i = 0; i < v->n; i++) {
        char pad[32];
        struct hf_word w = v->words[i];
        bool goes_on = w.text && n_prefix > 0 && w.len >= n_prefix && memcmp(w.text, prefix, n_prefix) == 0;
        if (!w.text) w = (struct hf_word){.text = pad, .len = (size_t)snprintf(pad, sizeof pad, "[PAD%zu]", i), .type = CONTROL};
        if (w.type == CONTROL || w.type == UNKNOWN) {
            meta_out_item(o, w.text, w.len);
        } else if (goes_on) {
            meta_out_item(o, w.text + n_prefix, w.len - n_prefix);
        } else {
            meta_out_bytes(o, &(uint64_t){w.len + 3}, 8);
            meta_out_bytes(o, SPACE_MARK, 3);
            meta_out_bytes(o, w.text, w.len);
        }
    }
}

kg_status hf_put_wordpiece(struct meta_out *o, struct hf_vocab *v, const json_t *tokenizer)
{
    static const struct {
        const char *text, *key;
    } special[] = {{"[SEP]", "tokenizer.ggml.seperator_token_id"}, {"[PAD]", "tokenizer.ggml.padding_token_id"}, {"[CLS]", "tokenizer.ggml.cls_token_id"}, {"[MASK]", "tokenizer.ggml.mask_token_id"}};
    const json_t *model = get(tokenizer, "model"), *prefix = get(model, "continuing_subword_prefix"), *longest = get(model, "max_input_chars_per_word");
    struct listing l = {0};
    meta_out_str(o, "tokenizer.ggml.model", "bert", 4);
    meta_out_str(o, "tokenizer.ggml.pre", "bert-bge", 8);
    put_phantoms(o, v, json_is_string(prefix) ? json_string_value(prefix) : "##");
    hf_put_types(o, v);
    for (size_t i = 0; i < v->n; i++) {
        const struct hf_word *w = &v->words[i];
        if (w->text && w->len > 0 && is(get(model, "unk_token"), w->text)) meta_out_u32(o, "tokenizer.ggml.unknown_token_id", (uint32_t)i);
        for (size_t k = 0; k < COUNT_OF(special) && w->text && w->type == CONTROL; k++)
            if (strcmp(special[k].text, w->text) == 0) meta_out_u32(o, special[k].key, (uint32_t)i);
    }
    int64_t n = json_is_integer(longest) ? json_integer_value(longest) : 100;
    meta_out_u32(o, "kagari.max_word_chars", (uint32_t)MAX(MIN(n, 10000), 0));
    kg_status st = put_steps(o, &l, tokenizer);
    buf_free(&l.texts);
    buf_free(&l.charsmap);
    return st;
}

/* ---- Unigram */

static kg_status put_scored(struct meta_out *o, struct hf_vocab *v, const json_t *tokenizer, struct listing *l)
{
    const json_t *model = get(tokenizer, "model"), *unk = get(model, "unk_id");
    const bool bytes = json_is_true(get(model, "byte_fallback"));
    for (size_t i = 0; i < v->n; i++) {
        struct hf_word *w = &v->words[i];
        if (w->text && bytes && hf_is_byte(w)) w->type = BYTE;
        if (w->text && json_is_integer(unk) && json_integer_value(unk) == (json_int_t)i) w->type = UNKNOWN;
    }
    meta_out_str(o, "tokenizer.ggml.model", "t5", 2);
    meta_out_str(o, "tokenizer.ggml.pre", "default", 7);
    hf_put_tokens(o, v);
    meta_out_array(o, "tokenizer.ggml.scores", META_F32, v->n);
    for (size_t i = 0; i < v->n; i++) meta_out_bytes(o, &(float){v->words[i].text ? v->words[i].score : -10000.0f}, 4);
    hf_put_types(o, v);
    if (json_is_integer(unk) && json_integer_value(unk) >= 0 && (size_t)json_integer_value(unk) < v->n)
        meta_out_u32(o, "tokenizer.ggml.unknown_token_id", (uint32_t)json_integer_value(unk));
    KG_TRY(put_steps(o, l, tokenizer));
    meta_out_bool(o, "tokenizer.ggml.add_space_prefix", l->prefix);
    meta_out_bool(o, "tokenizer.ggml.remove_extra_whitespaces", l->trims);
    if (l->charsmap.len > 0) {
        meta_out_array(o, "tokenizer.ggml.precompiled_charsmap", META_U8, l->charsmap.len);
        meta_out_bytes(o, l->charsmap.data, l->charsmap.len);
    }
    return KG_OK;
}

kg_status hf_put_unigram(struct meta_out *o, struct hf_vocab *v, const json_t *tokenizer)
{
    struct listing l = {0};
    kg_status st = put_scored(o, v, tokenizer, &l);
    buf_free(&l.texts);
    buf_free(&l.charsmap);
    return st;
}
