/* tokenizer.json -> tokenizer.ggml.* keys. GGUF has only a name for what cuts a text into words, so the steps of the file are compared with
 * those that a name stands for: a tokenizer with other steps is refused, since its ids would be slightly wrong. */
#include "file/hf_vocab.h"

#include <inttypes.h>
#include <stdlib.h>

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

static kg_status describe_step(struct buf *b, const json_t *p)
{
    const json_t *type = get(p, "type"), *regex = get(get(p, "pattern"), "Regex");
    if (b->len > 0) KG_TRY(buf_append(b, "|", 1));
    if (is(type, "ByteLevel")) {
        if (json_is_true(get(p, "add_prefix_space"))) return hf_refuse("pre_tokenizer", p);
        return buf_printf(b, json_is_false(get(p, "use_regex")) ? "bytes" : "bytes+");
    }
    if (is(type, "Digits") && json_is_true(get(p, "individual_digits"))) return buf_printf(b, "digits");
    bool splits = is(type, "Split") && json_is_string(regex) && json_is_false(get(p, "invert"));
    bool removed = is(get(p, "behavior"), "Removed") && json_is_true(get(p, "invert"));
    if (!splits && !(is(type, "Split") && json_is_string(regex) && removed)) return hf_refuse("pre_tokenizer", p);
    if (!removed && !is(get(p, "behavior"), "Isolated")) return hf_refuse("pre_tokenizer", p);
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
    if (st == KG_OK && !*name) st = hf_refuse("pre_tokenizer", pre);
    buf_free(&b);
    return st;
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

static kg_status check_bpe(const json_t *tokenizer, const json_t *model)
{
    const json_t *normalizer = get(tokenizer, "normalizer");
    static const char *const unset[] = {"continuing_subword_prefix", "end_of_word_suffix", "dropout"};
    bool characters = json_is_true(get(model, "byte_fallback"));
    if (!characters && normalizer && !json_is_null(normalizer) && !is(get(normalizer, "type"), "NFC")) return hf_refuse("normalizer", normalizer);
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

static kg_status put_characters(struct meta_out *o, struct hf_vocab *v, const json_t *tokenizer, const json_t *model)
{
    bool prefix = false, marks = false, unless = false;
    KG_TRY(read_spaces(get(tokenizer, "normalizer"), &prefix, &marks, &unless));
    KG_TRY(read_spaces(get(tokenizer, "pre_tokenizer"), &prefix, &marks, &unless));
    if (!marks || json_is_true(get(model, "ignore_merges")))
        return status_set(KG_ERR_UNSUPPORTED, "BPE over characters needs marks for spaces, and no ignore_merges");
    const char *unk = json_string_value(get(model, "unk_token"));
    for (size_t i = 0; i < v->n; i++) {
        struct hf_word *w = &v->words[i];
        if (!w->text) continue;
        if (unk && strlen(unk) == w->len && memcmp(unk, w->text, w->len) == 0) {
            w->type = UNKNOWN;
            meta_out_u32(o, "tokenizer.ggml.unknown_token_id", (uint32_t)i);
        } else if (hf_is_byte(w)) {
            w->type = BYTE;
        }
    }
    meta_out_str(o, "tokenizer.ggml.model", "llama", 5);
    meta_out_str(o, "tokenizer.ggml.pre", "default", 7);
    hf_put_tokens(o, v);
    KG_TRY(put_scores(o, v, model));
    hf_put_types(o, v);
    meta_out_bool(o, "tokenizer.ggml.add_space_prefix", prefix);
    if (prefix && unless) meta_out_bool(o, "kagari.prefix_unless_space", true);
    return put_merges(o, "kagari.bpe_merges", get(model, "merges")); /* scores do not say which pairs merge */
}

static kg_status put_bytes(struct meta_out *o, const struct hf_vocab *v, const json_t *tokenizer, const json_t *model)
{
    const char *pre;
    KG_TRY(pre_name(get(tokenizer, "pre_tokenizer"), json_is_true(get(model, "ignore_merges")), &pre));
    meta_out_str(o, "tokenizer.ggml.model", "gpt2", 4);
    meta_out_str(o, "tokenizer.ggml.pre", pre, strlen(pre));
    const bool nfc = is(get(get(tokenizer, "normalizer"), "type"), "NFC"); /* check_bpe lets no other pass */
    if (nfc != (strcmp(pre, "qwen2") == 0)) meta_out_str(o, "kagari.normalizer", nfc ? "nfc" : "none", nfc ? 3 : 4); /* else the name says it */
    hf_put_tokens(o, v);
    hf_put_types(o, v);
    return put_merges(o, "tokenizer.ggml.merges", get(model, "merges"));
}

static kg_status put_bpe(struct meta_out *o, struct hf_vocab *v, const json_t *tokenizer)
{
    const json_t *model = get(tokenizer, "model");
    KG_TRY(check_bpe(tokenizer, model));
    return json_is_true(get(model, "byte_fallback")) ? put_characters(o, v, tokenizer, model) : put_bytes(o, v, tokenizer, model);
}

kg_status hf_tokenizer_json(struct meta_out *o, const json_t *tokenizer, const json_t *config, uint32_t n_vocab)
{
    static const struct {
        const char *type;
        kg_status (*put)(struct meta_out *o, struct hf_vocab *v, const json_t *tokenizer);
    } models[] = {{"BPE", put_bpe}, {"WordPiece", hf_put_wordpiece}, {"Unigram", hf_put_unigram}};
    const json_t *model = get(tokenizer, "model");
    struct hf_vocab v = {0};
    size_t k = 0;
    while (k < COUNT_OF(models) && !is(get(model, "type"), models[k].type)) k++;
    if (k == COUNT_OF(models)) return hf_refuse("a model of type", model);
    kg_status st = hf_vocab_load(&v, tokenizer, n_vocab);
    if (st == KG_OK) st = models[k].put(o, &v, tokenizer);
    if (st == KG_OK) st = hf_put_special(o, &v, tokenizer, config);
    free(v.words);
    return st;
}
