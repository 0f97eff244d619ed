/* tokenizer.json of BPE -> tokenizer.ggml.* keys. GGUF has only a name for what cuts a text into words (hf_pre.c). Where it does not say
 * all, the steps go beside it as they stand (kagari.tokenizer_steps); where there is none, the name says so. */
#include "file/hf_vocab.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define SPACE_MARK "\xe2\x96\x81"

enum { MAX_VOCAB = 1 << 24 };

#define is hf_is
#define get hf_get

/* ---- the vocabulary */

static kg_status load_vocab(struct hf_tokenizer *t)
{
    json_t *vocab = json_object_get(t->model, "vocab"), *id;
    const char *text;
    if (!json_is_object(vocab)) return status_set(KG_ERR_FORMAT, "model.vocab is not an object");
    json_object_foreach(vocab, text, id) KG_TRY(hf_put_word(&t->vocab, id, text, strlen(text), HF_NORMAL));
    return hf_load_added(&t->vocab, get(t->root, "added_tokens"));
}

/* Embeddings may have more rows than there are tokens. */
static void put_tokens(struct meta_out *o, const struct hf_vocab *v)
{
    meta_out_array(o, "tokenizer.ggml.tokens", META_STR, v->n);
    for (size_t i = 0; i < v->n; i++) {
        char pad[32];
        const struct hf_word *w = &v->words[i];
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

static bool is_unset(const json_t *v) { return !v || json_is_null(v) || is(v, ""); }

/* What marks the ends of words, or what is inside of them. */
static bool has_marks(const json_t *model) { return !is_unset(get(model, "end_of_word_suffix")) || !is_unset(get(model, "continuing_subword_prefix")); }

static kg_status put_marks(struct meta_out *o, const json_t *model)
{
    static const char *const keys[][2] = {{"end_of_word_suffix", "kagari.word_suffix"}, {"continuing_subword_prefix", "kagari.inner_prefix"}};
    if (!is_unset(get(model, "dropout"))) return status_set(KG_ERR_UNSUPPORTED, "model.dropout is not supported");
    for (size_t i = 0; i < COUNT_OF(keys); i++) {
        const json_t *v = get(model, keys[i][0]);
        if (is_unset(v)) continue;
        if (!json_is_string(v)) return status_set(KG_ERR_FORMAT, "model.%s is not a string", keys[i][0]);
        meta_out_str(o, keys[i][1], json_string_value(v), json_string_length(v));
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
        if (is(get(json_array_get(list, i), "type"), "Sequence")) return hf_refuse("a step", step);
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
        return hf_refuse("a step", step);
    }
    return KG_OK;
}

/* SentencePiece's score of a token, as its models have it: the earlier it is merged, the higher. */
static kg_status put_scores(struct meta_out *o, const struct hf_vocab *v, const json_t *model)
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

static kg_status put_characters(struct meta_out *o, struct hf_tokenizer *t)
{
    bool prefix = false, marks = false, unless = false;
    const char *unk = json_string_value(get(t->model, "unk_token"));
    kg_status st = read_spaces(get(t->root, "normalizer"), &prefix, &marks, &unless);
    if (st == KG_OK) st = read_spaces(get(t->root, "pre_tokenizer"), &prefix, &marks, &unless);
    if (st != KG_OK && st != KG_ERR_UNSUPPORTED) return st;
    const bool fallback = json_is_true(get(t->model, "byte_fallback")), plain = st == KG_OK && marks && fallback && !has_marks(t->model);
    if (json_is_true(get(t->model, "ignore_merges"))) return status_set(KG_ERR_UNSUPPORTED, "BPE over characters with ignore_merges is not supported");
    if (fallback) hf_mark_bytes(&t->vocab);
    if (unk) hf_mark_unknown(&t->vocab, o, hf_find_word(&t->vocab, unk));
    const bool ranked = plain && is(get(t->config, "model_type"), "gemma4_text"); /* the one model whose GGUF ranks merges of characters */
    meta_out_str(o, "tokenizer.ggml.model", ranked ? "gemma4" : "llama", ranked ? 6 : 5);
    if (!ranked) meta_out_str(o, "tokenizer.ggml.pre", "default", 7);
    put_tokens(o, &t->vocab);
    KG_TRY(put_scores(o, &t->vocab, t->model));
    hf_put_types(o, &t->vocab);
    meta_out_bool(o, "tokenizer.ggml.add_space_prefix", prefix);
    if (!plain) KG_TRY(hf_put_steps(o, t));
    if (!plain && !json_is_true(get(t->model, "fuse_unk"))) meta_out_bool(o, "kagari.split_unknown", true);
    if (plain && prefix && unless) meta_out_bool(o, "kagari.prefix_unless_space", true);
    return put_merges(o, ranked ? "tokenizer.ggml.merges" : "kagari.bpe_merges", get(t->model, "merges")); /* scores do not say which pairs merge */
}

/* GGUF's names say nothing of normal forms, but for Qwen's; other normalizers need their steps. */
static bool is_nothing(const json_t *v) { return !v || json_is_null(v) || (is(get(v, "type"), "Sequence") && json_array_size(get(v, "normalizers")) == 0); }

static kg_status put_bytes(struct meta_out *o, struct hf_tokenizer *t)
{
    const json_t *normalizer = get(t->root, "normalizer");
    if (is(get(normalizer, "type"), "Sequence") && json_array_size(get(normalizer, "normalizers")) == 1) normalizer = json_array_get(get(normalizer, "normalizers"), 0);
    const bool ignore = json_is_true(get(t->model, "ignore_merges")), nfc = is(get(normalizer, "type"), "NFC");
    struct hf_pre pre;
    KG_TRY(hf_find_pre(get(t->root, "pre_tokenizer"), ignore, &pre));
    if ((!nfc && !is_nothing(normalizer)) || has_marks(t->model)) pre = (struct hf_pre){"kagari", false, false};
    if (!pre.name) pre.name = "kagari"; /* a name that nobody takes for another */
    meta_out_str(o, "tokenizer.ggml.model", "gpt2", 4);
    meta_out_str(o, "tokenizer.ggml.pre", pre.name, strlen(pre.name));
    if (!pre.alone) KG_TRY(hf_put_steps(o, t));
    if (pre.alone ? pre.ignores != ignore : ignore) meta_out_bool(o, "kagari.ignore_merges", ignore);
    const bool told = strcmp(pre.name, "qwen2") == 0 || strcmp(pre.name, "qwen35") == 0;
    if (pre.alone && nfc != told) meta_out_str(o, "kagari.normalizer", nfc ? "nfc" : "none", nfc ? 3 : 4);
    const char *unk = has_marks(t->model) ? json_string_value(get(t->model, "unk_token")) : NULL; /* else every byte has a token */
    const int64_t unk_id = unk ? hf_find_word(&t->vocab, unk) : -1;
    if (unk_id >= 0) meta_out_u32(o, "tokenizer.ggml.unknown_token_id", (uint32_t)unk_id);
    put_tokens(o, &t->vocab);
    hf_put_types(o, &t->vocab);
    return put_merges(o, "tokenizer.ggml.merges", get(t->model, "merges"));
}

/* Whether texts become the byte alphabet. */
static bool has_bytes(const json_t *step)
{
    const json_t *list = get(step, "pretokenizers");
    bool found = is(get(step, "type"), "ByteLevel");
    for (size_t i = 0; i < json_array_size(list) && !found; i++) found = is(get(json_array_get(list, i), "type"), "ByteLevel");
    return found;
}

static kg_status put_bpe(struct meta_out *o, struct hf_tokenizer *t)
{
    KG_TRY(put_marks(o, t->model));
    KG_TRY(load_vocab(t));
    KG_TRY(has_bytes(get(t->root, "pre_tokenizer")) ? put_bytes(o, t) : put_characters(o, t));
    return hf_put_specials(o, t, false);
}

/* One more than the highest id; 0: there is none. */
static uint32_t count(const json_t *tokenizer)
{
    json_t *vocab = json_object_get(get(tokenizer, "model"), "vocab"), *id;
    const json_t *added = get(tokenizer, "added_tokens");
    const char *text;
    json_int_t most = (json_int_t)json_array_size(vocab) - 1; /* of Unigram */
    json_object_foreach(vocab, text, id) most = MAX(most, json_integer_value(id));
    for (size_t i = 0; i < json_array_size(added); i++) most = MAX(most, json_integer_value(get(json_array_get(added, i), "id")));
    return most < 0 || most >= MAX_VOCAB ? 0 : (uint32_t)most + 1;
}

kg_status hf_tokenizer_json(struct meta_out *o, const json_t *tokenizer, const json_t *config, const json_t *tokenizer_config, uint32_t n_vocab)
{
    const bool counted = n_vocab == 0;
    if (counted) n_vocab = count(tokenizer);
    struct hf_tokenizer t = {tokenizer, get(tokenizer, "model"), config, tokenizer_config, {NULL, n_vocab}};
    const json_t *type = get(t.model, "type");
    const bool pieces = is(type, "WordPiece") || is(type, "Unigram");
    if (!pieces && !is(type, "BPE")) return hf_refuse("a model of type", t.model);
    if (counted && n_vocab == 0) return status_set(KG_ERR_FORMAT, "model.vocab has no tokens, or too many");
    if (n_vocab == 0 || n_vocab > MAX_VOCAB) return status_set(KG_ERR_FORMAT, "the model has %" PRIu32 " tokens", n_vocab);
    t.vocab.words = calloc(n_vocab, sizeof *t.vocab.words);
    if (!t.vocab.words) return status_set(KG_ERR_MEMORY, "out of memory for a vocabulary");
    kg_status st = is(type, "WordPiece") ? hf_put_wordpiece(o, &t) : pieces ? hf_put_unigram(o, &t) : put_bpe(o, &t);
    free(t.vocab.words);
    return st;
}
