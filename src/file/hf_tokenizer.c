/* tokenizer.json -> tokenizer.ggml.* keys. GGUF has only a name for what cuts a text into words, so the steps of the file are compared with
 * those that a name stands for: a tokenizer with other steps is refused, since its ids would be slightly wrong. */
#include "file/hf.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define SPACE_MARK "\xe2\x96\x81"

enum { UNKNOWN = 2, BYTE = 6, NORMAL = 1, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5, MAX_VOCAB = 1 << 24 };

#define CONTRACTION "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define CL100K(digits) CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define O200K(suffix, digits)                                                                                                          \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" suffix "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*" suffix "|" digits                   \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define GPT2 "'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

/* The steps before the byte alphabet, and the name in tokenizer.ggml.pre; with_ignore: where a word that is a token needs no merges. */
static const struct {
    const char *steps, *name, *with_ignore;
} known[] = {
    {"bytes+", "gpt-2", NULL},
    {"digits|bytes+", "starcoder", NULL},
    {"split " CL100K("\\p{N}{1,3}") "|bytes", "dbrx", "llama-bpe"},
    {"split " CL100K("\\p{N}") "|bytes", "qwen2", NULL},
    {"split " O200K(CONTRACTION "?", "\\p{N}{1,3}") "|bytes", "gpt-4o", NULL},
    {"split " O200K("", "\\p{N}") "|bytes", NULL, "tekken"},
    {"split " GPT2 "|bytes", "gpt-2", NULL},
};

static bool is(const json_t *v, const char *text) { return json_is_string(v) && strcmp(json_string_value(v), text) == 0; }
static const json_t *get(const json_t *v, const char *key) { return json_object_get(v, key); }

static kg_status refuse(const char *what, const json_t *v)
{
    const char *type = json_string_value(get(v, "type"));
    return status_set(KG_ERR_UNSUPPORTED, "%s \"%.40s\" with these parameters is not supported", what, type ? type : "?");
}

static kg_status describe_step(struct buf *b, const json_t *p)
{
    const json_t *type = get(p, "type"), *regex = get(get(p, "pattern"), "Regex");
    if (b->len > 0) KG_TRY(buf_append(b, "|", 1));
    if (is(type, "ByteLevel")) {
        if (json_is_true(get(p, "add_prefix_space"))) return refuse("pre_tokenizer", p);
        return buf_printf(b, json_is_false(get(p, "use_regex")) ? "bytes" : "bytes+");
    }
    if (is(type, "Digits") && json_is_true(get(p, "individual_digits"))) return buf_printf(b, "digits");
    bool splits = is(type, "Split") && json_is_string(regex) && json_is_false(get(p, "invert"));
    bool removed = is(get(p, "behavior"), "Removed") && json_is_true(get(p, "invert"));
    if (!splits && !(is(type, "Split") && json_is_string(regex) && removed)) return refuse("pre_tokenizer", p);
    if (!removed && !is(get(p, "behavior"), "Isolated")) return refuse("pre_tokenizer", p);
    return buf_printf(b, "split %s", json_string_value(regex));
}

static kg_status pre_name(const json_t *pre, bool ignore_merges, const char **name)
{
    struct buf b = {0};
    kg_status st = KG_OK;
    const json_t *list = get(pre, "pretokenizers");
    if (is(get(pre, "type"), "Sequence")) {
        for (size_t i = 0; i < json_array_size(list) && st == KG_OK; i++) st = describe_step(&b, json_array_get(list, i));
    } else {
        st = describe_step(&b, pre);
    }
    if (st == KG_OK) st = buf_append(&b, "", 1);
    *name = NULL;
    for (size_t i = 0; i < COUNT_OF(known) && st == KG_OK && !*name; i++)
        if (strcmp(known[i].steps, b.data) == 0) *name = ignore_merges ? known[i].with_ignore : known[i].name;
    if (st == KG_OK && !*name) st = refuse("pre_tokenizer", pre);
    buf_free(&b);
    return st;
}

/* ---- the vocabulary */

struct vocab {
    struct word {
        const char *text;
        size_t len;
        int32_t type;
    } * words; /* [n] */
    size_t n;
};

static kg_status put_word(struct vocab *v, const json_t *id, const char *text, size_t len, int32_t type)
{
    int64_t i = json_is_integer(id) ? json_integer_value(id) : -1;
    if (i < 0 || (uint64_t)i >= v->n) return status_set(KG_ERR_FORMAT, "token '%.*s' has no id below %zu", file_shown(text), text, v->n);
    struct word *w = &v->words[i];
    if (w->text && (type == NORMAL || w->len != len || memcmp(w->text, text, len) != 0))
        return status_set(KG_ERR_FORMAT, "id %" PRId64 " stands for two tokens", i);
    *w = (struct word){text, len, type};
    return KG_OK;
}

static kg_status load_added(struct vocab *v, const json_t *added)
{
    for (size_t i = 0; i < json_array_size(added); i++) {
        const json_t *t = json_array_get(added, i), *text = get(t, "content");
        static const char *const flags[] = {"single_word", "lstrip", "rstrip"};
        if (!json_is_string(text)) return status_set(KG_ERR_FORMAT, "added token %zu has no content", i);
        for (size_t k = 0; k < COUNT_OF(flags); k++)
            if (json_is_true(get(t, flags[k])))
                return status_set(KG_ERR_UNSUPPORTED, "added token '%.*s': %s is not supported", file_shown(json_string_value(text)),
                                  json_string_value(text), flags[k]);
        KG_TRY(put_word(v, get(t, "id"), json_string_value(text), json_string_length(text), json_is_true(get(t, "special")) ? CONTROL : USER_DEFINED));
    }
    return KG_OK;
}

static kg_status load_vocab(struct vocab *v, const json_t *tokenizer)
{
    json_t *vocab = json_object_get(get(tokenizer, "model"), "vocab"), *id;
    const char *text;
    if (!json_is_object(vocab)) return status_set(KG_ERR_FORMAT, "model.vocab is not an object");
    json_object_foreach(vocab, text, id) KG_TRY(put_word(v, id, text, strlen(text), NORMAL));
    return load_added(v, get(tokenizer, "added_tokens"));
}

static void put_types(struct meta_out *o, const struct vocab *v)
{
    meta_out_array(o, "tokenizer.ggml.token_type", META_I32, v->n);
    for (size_t i = 0; i < v->n; i++) meta_out_bytes(o, &(int32_t){v->words[i].text ? v->words[i].type : UNUSED}, 4);
}

/* Embeddings may have more rows than there are tokens. */
static void put_tokens(struct meta_out *o, const struct vocab *v)
{
    meta_out_array(o, "tokenizer.ggml.tokens", META_STR, v->n);
    for (size_t i = 0; i < v->n; i++) {
        char pad[32];
        const struct word *w = &v->words[i];
        if (w->text) meta_out_item(o, w->text, w->len);
        else meta_out_item(o, pad, (size_t)snprintf(pad, sizeof pad, "[PAD%zu]", i));
    }
}

/* "a b", or since 2024 ["a", "b"]. */
static kg_status put_merges(struct meta_out *o, const char *key, const json_t *merges)
{
    struct buf b = {0};
    kg_status st = json_is_array(merges) ? KG_OK : status_set(KG_ERR_FORMAT, "model.merges is not an array");
    meta_out_array(o, key, META_STR, json_array_size(merges));
    for (size_t i = 0; i < json_array_size(merges) && st == KG_OK; i++) {
        const json_t *m = json_array_get(merges, i), *l = json_array_get(m, 0), *r = json_array_get(m, 1);
        b.len = 0;
        if (json_is_string(m)) st = buf_append(&b, json_string_value(m), json_string_length(m));
        else if (json_is_string(l) && json_is_string(r)) st = buf_printf(&b, "%s %s", json_string_value(l), json_string_value(r));
        else st = status_set(KG_ERR_FORMAT, "merge %zu is not two strings", i);
        if (st == KG_OK) meta_out_item(o, b.data, b.len);
    }
    buf_free(&b);
    return st;
}

/* ---- special tokens */

static void put_id(struct meta_out *o, const char *key, const json_t *id, size_t n_vocab)
{
    if (json_is_array(id)) id = json_array_get(id, 0); /* the others are known by their texts */
    if (json_is_integer(id) && json_integer_value(id) >= 0 && (uint64_t)json_integer_value(id) < n_vocab) meta_out_u32(o, key, (uint32_t)json_integer_value(id));
}

/* A template adds tokens before the text and after it: GGUF knows one of each. */
static kg_status put_added(struct meta_out *o, const json_t *post)
{
    bool before = false, after = false;
    const json_t *list = get(post, "processors"), *single = get(post, "single");
    if (is(get(post, "type"), "Sequence"))
        for (size_t i = 0; i < json_array_size(list); i++)
            if (!is(get(json_array_get(list, i), "type"), "ByteLevel")) single = get(post = json_array_get(list, i), "single");
    bool bytes = !post || json_is_null(post) || is(get(post, "type"), "ByteLevel") || (is(get(post, "type"), "Sequence") && !single);
    if (!bytes && !is(get(post, "type"), "TemplateProcessing")) return refuse("post_processor", post);
    bool seen = false;
    for (size_t i = 0; i < json_array_size(single); i++) {
        if (get(json_array_get(single, i), "Sequence")) {
            seen = true;
            continue;
        }
        bool *side = seen ? &after : &before;
        if (*side) return refuse("post_processor", post);
        *side = true;
    }
    meta_out_bool(o, "tokenizer.ggml.add_bos_token", before);
    if (after) meta_out_bool(o, "tokenizer.ggml.add_eos_token", true);
    return KG_OK;
}

static kg_status check_bpe(const json_t *tokenizer, const json_t *model)
{
    const json_t *normalizer = get(tokenizer, "normalizer");
    static const char *const unset[] = {"continuing_subword_prefix", "end_of_word_suffix", "dropout"};
    if (!is(get(model, "type"), "BPE")) return refuse("a model of type", model);
    bool characters = json_is_true(get(model, "byte_fallback"));
    if (!characters && normalizer && !json_is_null(normalizer) && !is(get(normalizer, "type"), "NFC")) return refuse("normalizer", normalizer);
    for (size_t i = 0; i < COUNT_OF(unset); i++) {
        const json_t *v = get(model, unset[i]);
        if (v && !json_is_null(v) && !is(v, "")) return status_set(KG_ERR_UNSUPPORTED, "model.%s is not supported", unset[i]);
    }
    return KG_OK;
}

/* ---- BPE over characters, as SentencePiece has it */

/* The steps that stand for SentencePiece's: a mark before the text, marks for spaces. */
static kg_status read_spaces(const json_t *step, bool *prefix, bool *marks, bool *unless)
{
    const json_t *type = get(step, "type"), *list = get(step, is(type, "Sequence") ? "normalizers" : "pretokenizers");
    if (!step || json_is_null(step)) return KG_OK;
    for (size_t i = 0; is(type, "Sequence") && i < json_array_size(list); i++) {
        if (is(get(json_array_get(list, i), "type"), "Sequence")) return refuse("a step", step);
        KG_TRY(read_spaces(json_array_get(list, i), prefix, marks, unless));
    }
    if (is(type, "Sequence")) return KG_OK;
    bool space = is(get(get(step, "pattern"), "String"), " ");
    if (is(type, "Prepend") && is(get(step, "prepend"), SPACE_MARK)) {
        *prefix = true;
    } else if (is(type, "Replace") && space && is(get(step, "content"), SPACE_MARK)) {
        *marks = true;
    } else if (is(type, "Metaspace") && is(get(step, "replacement"), SPACE_MARK) && json_is_false(get(step, "split"))) {
        *marks = true;
        *unless = !*prefix;
        *prefix |= !is(get(step, "prepend_scheme"), "never");
    } else if (!(is(type, "Split") && space && *marks)) { /* there are no spaces left to split at */
        return refuse("a step", step);
    }
    return KG_OK;
}

/* SentencePiece's score of a token, as its models have it: the earlier it is merged, the higher. */
static kg_status put_scores(struct meta_out *o, const struct vocab *v, const json_t *model)
{
    const json_t *merges = get(model, "merges"), *vocab = get(model, "vocab");
    float *scores = calloc(v->n, sizeof *scores);
    struct buf b = {0};
    kg_status st = scores ? KG_OK : status_set(KG_ERR_MEMORY, "out of memory for a vocabulary");
    for (size_t i = 0; i < json_array_size(merges) && st == KG_OK; i++) {
        const json_t *m = json_array_get(merges, i), *l = json_array_get(m, 0), *r = json_array_get(m, 1);
        const char *text = json_string_value(m), *space = text ? strchr(text, ' ') : NULL;
        b.len = 0;
        if (space) st = buf_printf(&b, "%.*s%s", (int)(space - text), text, space + 1);
        else if (l && r && json_is_string(l) && json_is_string(r)) st = buf_printf(&b, "%s%s", json_string_value(l), json_string_value(r));
        if (st == KG_OK) st = buf_append(&b, "", 1);
        if (st != KG_OK) break;
        const json_t *id = get(vocab, b.data);
        int64_t k = json_is_integer(id) ? json_integer_value(id) : -1;
        if (k >= 0 && (size_t)k < v->n && scores[k] == 0) scores[k] = -1 - (float)i;
    }
    if (st == KG_OK) meta_out_array(o, "tokenizer.ggml.scores", META_F32, v->n);
    if (st == KG_OK) meta_out_bytes(o, scores, v->n * sizeof *scores);
    buf_free(&b);
    free(scores);
    return st;
}

static bool is_byte(const struct word *w)
{
    return w->len == 6 && memcmp(w->text, "<0x", 3) == 0 && w->text[5] == '>' && strspn(w->text + 3, "0123456789ABCDEFabcdef") == 2;
}

static kg_status put_characters(struct meta_out *o, struct vocab *v, const json_t *tokenizer, const json_t *model)
{
    bool prefix = false, marks = false, unless = false;
    KG_TRY(read_spaces(get(tokenizer, "normalizer"), &prefix, &marks, &unless));
    KG_TRY(read_spaces(get(tokenizer, "pre_tokenizer"), &prefix, &marks, &unless));
    if (!marks || json_is_true(get(model, "ignore_merges")))
        return status_set(KG_ERR_UNSUPPORTED, "BPE over characters needs marks for spaces, and no ignore_merges");
    const char *unk = json_string_value(get(model, "unk_token"));
    for (size_t i = 0; i < v->n; i++) {
        struct word *w = &v->words[i];
        if (!w->text) continue;
        if (unk && strlen(unk) == w->len && memcmp(unk, w->text, w->len) == 0) {
            w->type = UNKNOWN;
            meta_out_u32(o, "tokenizer.ggml.unknown_token_id", (uint32_t)i);
        } else if (is_byte(w)) {
            w->type = BYTE;
        }
    }
    meta_out_str(o, "tokenizer.ggml.model", "llama", 5);
    meta_out_str(o, "tokenizer.ggml.pre", "default", 7);
    put_tokens(o, v);
    KG_TRY(put_scores(o, v, model));
    put_types(o, v);
    meta_out_bool(o, "tokenizer.ggml.add_space_prefix", prefix);
    if (prefix && unless) meta_out_bool(o, "kagari.prefix_unless_space", true);
    return put_merges(o, "kagari.bpe_merges", get(model, "merges")); /* scores do not say which pairs merge */
}

static kg_status put_bytes(struct meta_out *o, const struct vocab *v, const json_t *tokenizer, const json_t *model)
{
    const char *pre;
    KG_TRY(pre_name(get(tokenizer, "pre_tokenizer"), json_is_true(get(model, "ignore_merges")), &pre));
    meta_out_str(o, "tokenizer.ggml.model", "gpt2", 4);
    meta_out_str(o, "tokenizer.ggml.pre", pre, strlen(pre));
    const bool nfc = is(get(get(tokenizer, "normalizer"), "type"), "NFC"); /* check_bpe lets no other pass */
    if (nfc != (strcmp(pre, "qwen2") == 0)) meta_out_str(o, "kagari.normalizer", nfc ? "nfc" : "none", nfc ? 3 : 4); /* else the name says it */
    put_tokens(o, v);
    put_types(o, v);
    return put_merges(o, "tokenizer.ggml.merges", get(model, "merges"));
}

/* One more than the highest id; 0: there is none. */
static uint32_t count(const json_t *tokenizer)
{
    json_t *vocab = json_object_get(get(tokenizer, "model"), "vocab"), *id;
    const json_t *added = get(tokenizer, "added_tokens");
    const char *text;
    json_int_t most = -1;
    json_object_foreach(vocab, text, id) most = MAX(most, json_integer_value(id));
    for (size_t i = 0; i < json_array_size(added); i++) most = MAX(most, json_integer_value(get(json_array_get(added, i), "id")));
    return most < 0 || most >= MAX_VOCAB ? 0 : (uint32_t)most + 1;
}

kg_status hf_tokenizer_json(struct meta_out *o, const json_t *tokenizer, const json_t *config, uint32_t n_vocab)
{
    const json_t *model = get(tokenizer, "model");
    KG_TRY(check_bpe(tokenizer, model));
    if (n_vocab == 0 && (n_vocab = count(tokenizer)) == 0) return status_set(KG_ERR_FORMAT, "model.vocab has no tokens, or too many");
    struct vocab v = {.n = n_vocab};
    if (n_vocab == 0 || n_vocab > MAX_VOCAB) return status_set(KG_ERR_FORMAT, "the model has %" PRIu32 " tokens", n_vocab);
    v.words = calloc(n_vocab, sizeof *v.words);
    kg_status st = v.words ? load_vocab(&v, tokenizer) : status_set(KG_ERR_MEMORY, "out of memory for a vocabulary");
    if (st == KG_OK) st = json_is_true(get(model, "byte_fallback")) ? put_characters(o, &v, tokenizer, model) : put_bytes(o, &v, tokenizer, model);
    if (st == KG_OK) {
        put_id(o, "tokenizer.ggml.bos_token_id", get(config, "bos_token_id"), n_vocab);
        put_id(o, "tokenizer.ggml.eos_token_id", get(config, "eos_token_id"), n_vocab);
        st = put_added(o, get(tokenizer, "post_processor"));
    }
    free(v.words);
    return st;
}
