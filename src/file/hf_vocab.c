/* The vocabulary of a tokenizer.json, and its special tokens. */
#include "file/hf_vocab.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_VOCAB = 1 << 24 };

kg_status hf_refuse(const char *what, const json_t *v)
{
    const char *type = json_string_value(get(v, "type"));
    return status_set(KG_ERR_UNSUPPORTED, "%s \"%.40s\" with these parameters is not supported", what, type ? type : "?");
}

static kg_status put_word(struct hf_vocab *v, const json_t *id, struct hf_word word)
{
    int64_t i = json_is_integer(id) ? json_integer_value(id) : -1;
    if (i < 0 || (uint64_t)i >= v->n) return status_set(KG_ERR_FORMAT, "token '%.*s' has no id below %zu", file_shown(word.text), word.text, v->n);
    struct hf_word *w = &v->words[i];
    if (w->text && (word.type == NORMAL || w->len != word.len || memcmp(w->text, word.text, word.len) != 0))
        return status_set(KG_ERR_FORMAT, "id %" PRId64 " stands for two tokens", i);
    word.score = w->score;
    *w = word;
    return KG_OK;
}

static kg_status load_added(struct hf_vocab *v, const json_t *added)
{
    for (size_t i = 0; i < json_array_size(added); i++) {
        const json_t *t = json_array_get(added, i), *text = get(t, "content");
        if (!json_is_string(text)) return status_set(KG_ERR_FORMAT, "added token %zu has no content", i);
        if (json_is_true(get(t, "single_word")))
            return status_set(KG_ERR_UNSUPPORTED, "added token '%.*s': single_word is not supported", file_shown(json_string_value(text)),
                              json_string_value(text));
        KG_TRY(put_word(v, get(t, "id"),
                        (struct hf_word){json_string_value(text), json_string_length(text), json_is_true(get(t, "special")) ? CONTROL : USER_DEFINED, 0,
                                         json_is_true(get(t, "lstrip")), json_is_true(get(t, "rstrip"))}));
    }
    return KG_OK;
}

/* Unigram: [text, score] by id. */
static kg_status load_scored(struct hf_vocab *v, const json_t *vocab)
{
    if (json_array_size(vocab) > v->n) return status_set(KG_ERR_FORMAT, "model.vocab has %zu tokens, the model %zu", json_array_size(vocab), v->n);
    for (size_t i = 0; i < json_array_size(vocab); i++) {
        const json_t *t = json_array_get(vocab, i), *text = json_array_get(t, 0), *score = json_array_get(t, 1);
        if (!json_is_string(text) || !json_is_number(score)) return status_set(KG_ERR_FORMAT, "model.vocab: item %zu is not a text and a score", i);
        v->words[i] = (struct hf_word){json_string_value(text), json_string_length(text), NORMAL, (float)json_number_value(score), false, false};
    }
    return KG_OK;
}

/* One more than the highest id; 0: there is none. */
static uint32_t count(const json_t *tokenizer)
{
    json_t *vocab = json_object_get(get(tokenizer, "model"), "vocab"), *id;
    const json_t *added = get(tokenizer, "added_tokens");
    const char *text;
    json_int_t most = (json_int_t)json_array_size(vocab) - 1;
    json_object_foreach(vocab, text, id) most = MAX(most, json_integer_value(id));
    for (size_t i = 0; i < json_array_size(added); i++) most = MAX(most, json_integer_value(get(json_array_get(added, i), "id")));
    return most < 0 || most >= MAX_VOCAB ? 0 : (uint32_t)most + 1;
}

kg_status hf_vocab_load(struct hf_vocab *v, const json_t *tokenizer, uint32_t n_vocab)
{
    json_t *vocab = json_object_get(get(tokenizer, "model"), "vocab"), *id;
    const char *text;
    if (n_vocab == 0 && (n_vocab = count(tokenizer)) == 0) return status_set(KG_ERR_FORMAT, "model.vocab has no tokens, or too many");
    if (n_vocab > MAX_VOCAB) return status_set(KG_ERR_FORMAT, "the model has %" PRIu32 " tokens", n_vocab);
    v->n = n_vocab;
    v->words = calloc(n_vocab, sizeof *v->words);
    if (!v->words) return status_set(KG_ERR_MEMORY, "out of memory for a vocabulary");
    if (is(get(get(tokenizer, "model"), "type"), "Unigram")) {
        if (!json_is_array(vocab)) return status_set(KG_ERR_FORMAT, "model.vocab is not an array");
        KG_TRY(load_scored(v, vocab));
    } else {
        if (!json_is_object(vocab)) return status_set(KG_ERR_FORMAT, "model.vocab is not an object");
        json_object_foreach(vocab, text, id) KG_TRY(put_word(v, id, (struct hf_word){text, strlen(text), NORMAL, 0, false, false}));
    }
    return load_added(v, get(tokenizer, "added_tokens"));
}

bool hf_is_byte(const struct hf_word *w)
{
    return w->len == 6 && memcmp(w->text, "<0x", 3) == 0 && w->text[5] == '>' && strspn(w->text + 3, "0123456789ABCDEFabcdef") == 2;
}

void hf_put_types(struct meta_out *o, const struct hf_vocab *v)
{
    meta_out_array(o, "tokenizer.ggml.token_type", META_I32, v->n);
    for (size_t i = 0; i < v->n; i++) meta_out_bytes(o, &(int32_t){v->words[i].text ? v->words[i].type : UNUSED}, 4);
}

/* Embeddings may have more rows than there are tokens. */
void hf_put_tokens(struct meta_out *o, const struct hf_vocab *v)
{
    meta_out_array(o, "tokenizer.ggml.tokens", META_STR, v->n);
    for (size_t i = 0; i < v->n; i++) {
        char pad[32];
        const struct hf_word *w = &v->words[i];
        if (w->text) meta_out_item(o, w->text, w->len);
        else meta_out_item(o, pad, (size_t)snprintf(pad, sizeof pad, "[PAD%zu]", i));
    }
}

/* ---- special tokens */

static void put_id(struct meta_out *o, const char *key, int64_t added, const json_t *id, size_t n_vocab)
{
    if (json_is_array(id)) id = json_array_get(id, 0); /* the others are known by their texts */
    if (added < 0 && json_is_integer(id)) added = json_integer_value(id);
    if (added >= 0 && (uint64_t)added < n_vocab) meta_out_u32(o, key, (uint32_t)added);
}

/* What a post-processor adds before the text and after it: GGUF knows one of each. */
struct added {
    bool before, after;
    int64_t before_id, after_id; /* -1: unknown */
};

static int64_t integer_or_none(const json_t *v) { return json_is_integer(v) ? json_integer_value(v) : -1; }

static kg_status read_template(struct added *a, const json_t *post)
{
    const json_t *single = get(post, "single");
    bool seen = false;
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *item = json_array_get(single, i);
        if (get(item, "Sequence")) {
            seen = true;
            continue;
        }
        bool *side = seen ? &a->after : &a->before;
        const char *name = json_string_value(get(get(item, "SpecialToken"), "id"));
        const json_t *ids = name ? get(get(get(post, "special_tokens"), name), "ids") : NULL;
        if (*side || json_array_size(ids) > 1) return hf_refuse("post_processor", post);
        *side = true;
        *(seen ? &a->after_id : &a->before_id) = integer_or_none(json_array_get(ids, 0));
    }
    return KG_OK;
}

static kg_status read_added(struct added *a, const json_t *post)
{
    const json_t *list = get(post, "processors");
    if (is(get(post, "type"), "Sequence")) {
        for (size_t i = 0; i < json_array_size(list); i++) {
            if (is(get(json_array_get(list, i), "type"), "Sequence")) return hf_refuse("post_processor", post);
            KG_TRY(read_added(a, json_array_get(list, i)));
        }
        return KG_OK;
    }
    if (!is_set(post) || is(get(post, "type"), "ByteLevel")) return KG_OK;
    if (is(get(post, "type"), "TemplateProcessing")) return read_template(a, post);
    if (!is(get(post, "type"), "BertProcessing") && !is(get(post, "type"), "RobertaProcessing")) return hf_refuse("post_processor", post);
    a->before = a->after = true;
    a->before_id = integer_or_none(json_array_get(get(post, "cls"), 1));
    a->after_id = integer_or_none(json_array_get(get(post, "sep"), 1));
    return KG_OK;
}

static void put_strips(struct meta_out *o, const struct hf_vocab *v)
{
    for (int right = 0; right < 2; right++) {
        uint64_t n = 0;
        for (int pass = 0; pass < 2; pass++) {
            if (pass == 1 && n > 0) meta_out_array(o, right ? "kagari.strip_right" : "kagari.strip_left", META_I32, n);
            for (size_t i = 0; i < v->n; i++) {
                if (!(right ? v->words[i].strip_right : v->words[i].strip_left)) continue;
                if (pass == 0) n++;
                else meta_out_bytes(o, &(int32_t){(int32_t)i}, 4);
            }
        }
    }
}

kg_status hf_put_special(struct meta_out *o, const struct hf_vocab *v, const json_t *tokenizer, const json_t *config)
{
    struct added a = {.before_id = -1, .after_id = -1};
    const bool bpe = is(get(get(tokenizer, "model"), "type"), "BPE");
    KG_TRY(read_added(&a, get(tokenizer, "post_processor")));
    /* a model that generates may end with another token than the one behind a text */
    put_id(o, "tokenizer.ggml.bos_token_id", bpe ? -1 : a.before_id, get(config, "bos_token_id"), v->n);
    put_id(o, "tokenizer.ggml.eos_token_id", bpe ? -1 : a.after_id, get(config, "eos_token_id"), v->n);
    meta_out_bool(o, "tokenizer.ggml.add_bos_token", a.before);
    if (a.after || !bpe) meta_out_bool(o, "tokenizer.ggml.add_eos_token", a.after);
    put_strips(o, v);
    return KG_OK;
}
