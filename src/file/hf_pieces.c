/* tokenizer.json of WordPiece and Unigram -> the keys that llama.cpp's conversion writes, and the steps beside them, which GGUF has no place for. */
#include "file/hf_vocab.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define SPACE_MARK "\xe2\x96\x81"

static void put_pad(struct meta_out *o, size_t i)
{
    char pad[32];
    meta_out_item(o, pad, (size_t)snprintf(pad, sizeof pad, "[PAD%zu]", i));
}

/* "##ing" -> "ing", and a mark before those that begin a word. */
static kg_status put_marked(struct meta_out *o, const struct hf_vocab *v, const char *prefix)
{
    struct buf b = {0};
    kg_status st = KG_OK;
    const size_t n_prefix = strlen(prefix);
    meta_out_array(o, "tokenizer.ggml.tokens", META_STR, v->n);
    for (size_t i = 0; i < v->n && st == KG_OK; i++) {
        const struct hf_word *w = &v->words[i];
        b.len = 0;
        if (!w->text) {
            put_pad(o, i);
        } else if (w->type == HF_CONTROL || w->type == HF_UNKNOWN) {
            meta_out_item(o, w->text, w->len);
        } else if (w->len >= n_prefix && memcmp(w->text, prefix, n_prefix) == 0) {
            meta_out_item(o, w->text + n_prefix, w->len - n_prefix);
        } else {
            st = buf_append(&b, SPACE_MARK, 3);
            if (st == KG_OK) st = buf_append(&b, w->text, w->len);
            if (st == KG_OK) meta_out_item(o, b.data, b.len);
        }
    }
    buf_free(&b);
    return st;
}

kg_status hf_put_wordpiece(struct meta_out *o, struct hf_tokenizer *t)
{
    const json_t *prefix = hf_get(t->model, "continuing_subword_prefix"), *longest = hf_get(t->model, "max_input_chars_per_word"), *id;
    json_t *vocab = json_object_get(t->model, "vocab");
    const char *text, *unk = json_string_value(hf_get(t->model, "unk_token"));
    if (!json_is_object(vocab)) return status_set(KG_ERR_FORMAT, "model.vocab is not an object");
    json_object_foreach(vocab, text, id) KG_TRY(hf_put_word(&t->vocab, id, text, strlen(text), HF_NORMAL));
    KG_TRY(hf_load_added(&t->vocab, hf_get(t->root, "added_tokens")));
    meta_out_str(o, "tokenizer.ggml.model", "bert", 4);
    meta_out_str(o, "tokenizer.ggml.pre", "default", 7);
    hf_mark_unknown(&t->vocab, o, hf_find_word(&t->vocab, unk ? unk : "[UNK]"));
    KG_TRY(put_marked(o, &t->vocab, json_is_string(prefix) ? json_string_value(prefix) : "##"));
    hf_put_types(o, &t->vocab);
    if (json_is_integer(longest) && json_integer_value(longest) != 100) {
        const json_int_t max = json_integer_value(longest);
        if (max < 0 || max > 10000) return status_set(KG_ERR_UNSUPPORTED, "model.max_input_chars_per_word is %" JSON_INTEGER_FORMAT ", at most 10000 are supported", max);
        meta_out_u32(o, "kagari.max_word", (uint32_t)max);
    }
    KG_TRY(hf_put_steps(o, t));
    return hf_put_specials(o, t, true);
}

/* ---- Unigram */

static kg_status load_pieces(struct hf_tokenizer *t, double *scores)
{
    const json_t *vocab = hf_get(t->model, "vocab");
    if (!json_is_array(vocab) || json_array_size(vocab) > t->vocab.n)
        return status_set(KG_ERR_FORMAT, "model.vocab is not an array of at most %zu pieces", t->vocab.n);
    for (size_t i = 0; i < t->vocab.n; i++) scores[i] = -10000;
    for (size_t i = 0; i < json_array_size(vocab); i++) {
        const json_t *piece = json_array_get(vocab, i), *text = json_array_get(piece, 0), *score = json_array_get(piece, 1);
        if (!json_is_string(text) || !json_is_number(score)) return status_set(KG_ERR_FORMAT, "piece %zu is not a text and a score", i);
        t->vocab.words[i] = (struct hf_word){json_string_value(text), json_string_length(text), HF_NORMAL, 0};
        scores[i] = json_number_value(score);
    }
    return hf_load_added(&t->vocab, hf_get(t->root, "added_tokens"));
}

/* What the keys of GGUF can say of the steps: whether a mark goes before the text, whether white space is squeezed. */
static void read_spaces(const json_t *step, bool *prefix, bool *squeeze, int depth)
{
    const json_t *type = hf_get(step, "type"), *list = hf_get(step, hf_get(step, "normalizers") ? "normalizers" : "pretokenizers");
    if (depth > 4) return;
    for (size_t i = 0; hf_is(type, "Sequence") && i < json_array_size(list); i++) read_spaces(json_array_get(list, i), prefix, squeeze, depth + 1);
    if (hf_is(type, "Metaspace")) *prefix |= !hf_is(hf_get(step, "prepend_scheme"), "never") && !json_is_false(hf_get(step, "add_prefix_space"));
    if (hf_is(type, "Prepend")) *prefix |= hf_is(hf_get(step, "prepend"), SPACE_MARK);
    *squeeze |= hf_is(type, "WhitespaceSplit") || (hf_is(type, "Replace") && hf_is(hf_get(hf_get(step, "pattern"), "Regex"), " {2,}"));
}

static kg_status put_pieces(struct meta_out *o, struct hf_tokenizer *t, const double *scores)
{
    const json_t *unk = hf_get(t->model, "unk_id");
    bool prefix = false, squeeze = false, exact = true;
    meta_out_str(o, "tokenizer.ggml.model", "t5", 2);
    meta_out_str(o, "tokenizer.ggml.pre", "default", 7);
    meta_out_array(o, "tokenizer.ggml.tokens", META_STR, t->vocab.n);
    for (size_t i = 0; i < t->vocab.n; i++) {
        if (t->vocab.words[i].text) meta_out_item(o, t->vocab.words[i].text, t->vocab.words[i].len);
        else put_pad(o, i);
    }
    meta_out_array(o, "tokenizer.ggml.scores", META_F32, t->vocab.n);
    for (size_t i = 0; i < t->vocab.n; i++) {
        meta_out_bytes(o, &(float){(float)scores[i]}, 4);
        exact &= (double)(float)scores[i] == scores[i];
    }
    if (!exact) { /* a vocabulary that was not made by SentencePiece */
        meta_out_array(o, "kagari.scores", META_F64, t->vocab.n);
        meta_out_bytes(o, scores, t->vocab.n * sizeof *scores);
    }
    if (json_is_true(hf_get(t->model, "byte_fallback"))) hf_mark_bytes(&t->vocab);
    hf_mark_unknown(&t->vocab, o, json_is_integer(unk) ? json_integer_value(unk) : -1);
    hf_put_types(o, &t->vocab);
    read_spaces(hf_get(t->root, "normalizer"), &prefix, &squeeze, 0);
    read_spaces(hf_get(t->root, "pre_tokenizer"), &prefix, &squeeze, 0);
    meta_out_bool(o, "tokenizer.ggml.add_space_prefix", prefix);
    meta_out_bool(o, "tokenizer.ggml.remove_extra_whitespaces", squeeze);
    KG_TRY(hf_put_steps(o, t));
    return hf_put_specials(o, t, true);
}

kg_status hf_put_unigram(struct meta_out *o, struct hf_tokenizer *t)
{
    double *scores = calloc(t->vocab.n, sizeof *scores);
    kg_status st = scores ? load_pieces(t, scores) : status_set(KG_ERR_MEMORY, "out of memory for a vocabulary");
    if (st == KG_OK) st = put_pieces(o, t, scores);
    free(scores);
    return st;
}
