/* What all kinds of tokenizer.json have in common: added tokens, special ids, what goes around a text, the steps before the model. */
#include "file/hf_vocab.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_AROUND = 8, MAX_DEPTH = 4 };

kg_status hf_refuse(const char *what, const json_t *v)
{
    const char *type = json_string_value(hf_get(v, "type"));
    return status_set(KG_ERR_UNSUPPORTED, "%s \"%.40s\" with these parameters is not supported", what, type ? type : "?");
}

kg_status hf_put_word(struct hf_vocab *v, const json_t *id, const char *text, size_t len, int32_t type)
{
    int64_t i = json_is_integer(id) ? json_integer_value(id) : -1;
    if (i < 0 || (uint64_t)i >= v->n) return status_set(KG_ERR_FORMAT, "token '%.*s' has no id below %zu", file_shown(text), text, v->n);
    struct hf_word *w = &v->words[i];
    if (w->text && (type == HF_NORMAL || w->len != len || memcmp(w->text, text, len) != 0))
        return status_set(KG_ERR_FORMAT, "id %" PRId64 " stands for two tokens", i);
    *w = (struct hf_word){text, len, type, 0};
    return KG_OK;
}

kg_status hf_load_added(struct hf_vocab *v, const json_t *added)
{
    static const char *const flags[] = {"single_word", "lstrip", "rstrip"};
    for (size_t i = 0; i < json_array_size(added); i++) {
        const json_t *t = json_array_get(added, i), *text = hf_get(t, "content"), *id = hf_get(t, "id");
        if (!json_is_string(text)) return status_set(KG_ERR_FORMAT, "added token %zu has no content", i);
        KG_TRY(hf_put_word(v, id, json_string_value(text), json_string_length(text), json_is_true(hf_get(t, "special")) ? HF_CONTROL : HF_USER_DEFINED));
        for (size_t k = 0; k < COUNT_OF(flags); k++)
            if (json_is_true(hf_get(t, flags[k]))) v->words[json_integer_value(id)].around |= 1u << k;
    }
    return KG_OK;
}

void hf_mark_unknown(struct hf_vocab *v, struct meta_out *o, int64_t id)
{
    if (id < 0 || (uint64_t)id >= v->n || !v->words[id].text) return;
    v->words[id].type = HF_UNKNOWN;
    meta_out_u32(o, "tokenizer.ggml.unknown_token_id", (uint32_t)id);
}

void hf_mark_bytes(struct hf_vocab *v)
{
    for (size_t i = 0; i < v->n; i++) {
        struct hf_word *w = &v->words[i];
        if (!w->text || w->len != 6 || memcmp(w->text, "<0x", 3) != 0 || w->text[5] != '>') continue;
        if (strspn(w->text + 3, "0123456789ABCDEFabcdef") == 2) w->type = HF_BYTE;
    }
}

int64_t hf_find_word(const struct hf_vocab *v, const char *text)
{
    const size_t n = strlen(text);
    for (size_t i = 0; i < v->n; i++)
        if (v->words[i].text && v->words[i].len == n && memcmp(v->words[i].text, text, n) == 0) return (int64_t)i;
    return -1;
}

void hf_put_types(struct meta_out *o, const struct hf_vocab *v)
{
    size_t n = 0;
    meta_out_array(o, "tokenizer.ggml.token_type", META_I32, v->n);
    for (size_t i = 0; i < v->n; i++) {
        meta_out_bytes(o, &(int32_t){v->words[i].text ? v->words[i].type : HF_UNUSED}, 4);
        n += v->words[i].around != 0;
    }
    if (n == 0) return;
    meta_out_array(o, "kagari.added_flags", META_U32, n);
    for (size_t i = 0; i < v->n; i++)
        if (v->words[i].around) meta_out_bytes(o, &(uint32_t){(uint32_t)i << 3 | v->words[i].around}, 4);
}

/* ---- around a text */

struct around {
    int64_t before[MAX_AROUND], after[MAX_AROUND];
    int n_before, n_after;
    bool found, separates; /* there is a template; two texts get a separator of their own */
};

static kg_status add_around(struct around *a, bool after, const json_t *id, const json_t *post)
{
    int *n = after ? &a->n_after : &a->n_before;
    if (!json_is_integer(id) || *n == MAX_AROUND) return hf_refuse("post_processor", post);
    (after ? a->after : a->before)[(*n)++] = json_integer_value(id);
    return KG_OK;
}

static kg_status read_template(struct around *a, const json_t *post)
{
    const json_t *single = hf_get(post, "single"), *pair = hf_get(post, "pair");
    bool seen = false;
    size_t between = 0;
    int sequences = 0;
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *special = hf_get(json_array_get(single, i), "SpecialToken");
        const char *name = json_string_value(hf_get(special, "id"));
        if (!special) {
            seen = true;
            continue;
        }
        const json_t *ids = hf_get(hf_get(hf_get(post, "special_tokens"), name ? name : ""), "ids");
        if (json_array_size(ids) == 0) return hf_refuse("post_processor", post);
        for (size_t k = 0; k < json_array_size(ids); k++) KG_TRY(add_around(a, seen, json_array_get(ids, k), post));
    }
    for (size_t i = 0; i < json_array_size(pair); i++) {
        if (hf_get(json_array_get(pair, i), "Sequence")) sequences++;
        else between += sequences == 1;
    }
    a->separates = between > 1 || (between == 1 && a->n_after == 0);
    return KG_OK;
}

static kg_status read_around(struct around *a, const json_t *post, int depth)
{
    const json_t *type = hf_get(post, "type"), *list = hf_get(post, "processors");
    if (!post || json_is_null(post) || hf_is(type, "ByteLevel")) return KG_OK;
    if (hf_is(type, "Sequence") && depth < MAX_DEPTH) {
        for (size_t i = 0; i < json_array_size(list); i++) KG_TRY(read_around(a, json_array_get(list, i), depth + 1));
        return KG_OK;
    }
    if (a->found) return hf_refuse("post_processor", post);
    a->found = true;
    if (hf_is(type, "TemplateProcessing")) return read_template(a, post);
    if (!hf_is(type, "BertProcessing") && !hf_is(type, "RobertaProcessing")) return hf_refuse("post_processor", post);
    a->separates = hf_is(type, "RobertaProcessing");
    KG_TRY(add_around(a, false, json_array_get(hf_get(post, "cls"), 1), post));
    return add_around(a, true, json_array_get(hf_get(post, "sep"), 1), post);
}

static kg_status put_around(struct meta_out *o, const char *key, const int64_t *ids, int n, size_t n_vocab)
{
    meta_out_array(o, key, META_U32, (uint64_t)n);
    for (int i = 0; i < n; i++) {
        if (ids[i] < 0 || (uint64_t)ids[i] >= n_vocab) return status_set(KG_ERR_FORMAT, "the post_processor adds a token that is not there");
        meta_out_bytes(o, &(uint32_t){(uint32_t)ids[i]}, 4);
    }
    return KG_OK;
}

/* ---- special ids */

int64_t hf_special_id(const struct hf_tokenizer *t, const char *kind)
{
    char key[32];
    snprintf(key, sizeof key, "%s_token", kind);
    const json_t *text = hf_get(t->tokenizer_config, key);
    if (json_is_object(text)) text = hf_get(text, "content");
    int64_t id = json_is_string(text) ? hf_find_word(&t->vocab, json_string_value(text)) : -1;
    snprintf(key, sizeof key, "%s_token_id", kind);
    const json_t *number = hf_get(t->config, key);
    if (json_is_array(number)) number = json_array_get(number, 0); /* the others are known by their texts */
    if (id < 0 && json_is_integer(number)) id = json_integer_value(number);
    return id >= 0 && (uint64_t)id < t->vocab.n ? id : -1;
}

bool hf_adds(const struct hf_tokenizer *t, const char *key, bool otherwise)
{
    const json_t *v = hf_get(t->tokenizer_config, key);
    return json_is_boolean(v) ? json_is_true(v) : otherwise;
}

static void put_id(struct meta_out *o, const char *key, int64_t id)
{
    if (id >= 0) meta_out_u32(o, key, (uint32_t)id);
}

kg_status hf_put_specials(struct meta_out *o, const struct hf_tokenizer *t, bool all)
{
    struct around a = {.found = false};
    KG_TRY(read_around(&a, hf_get(t->root, "post_processor"), 0));
    int64_t bos = hf_special_id(t, "bos"), eos = hf_special_id(t, "eos");
    const int64_t cls = hf_special_id(t, "cls"), sep = hf_special_id(t, "sep");
    if (bos < 0) bos = cls;
    if (eos < 0) eos = sep;
    put_id(o, "tokenizer.ggml.seperator_token_id", sep); /* spelled so */
    put_id(o, "tokenizer.ggml.padding_token_id", hf_special_id(t, "pad"));
    put_id(o, "tokenizer.ggml.mask_token_id", hf_special_id(t, "mask"));
    if (bos < 0 && a.n_before == 1) bos = a.before[0];
    if (eos < 0 && a.n_after == 1) eos = a.after[0];
    put_id(o, "tokenizer.ggml.bos_token_id", bos);
    put_id(o, "tokenizer.ggml.eos_token_id", eos);
    /* the class of Llama's tokenizers puts its own template into the place of one that is not there */
    const char *class = json_string_value(hf_get(t->tokenizer_config, "tokenizer_class"));
    const bool of_class = !a.found && class && strncmp(class, "LlamaTokenizer", 14) == 0 && bos >= 0;
    meta_out_bool(o, "tokenizer.ggml.add_bos_token", a.n_before > 0 || (of_class && hf_adds(t, "add_bos_token", true)));
    if (a.n_after > 0 || all) meta_out_bool(o, "tokenizer.ggml.add_eos_token", a.n_after > 0);
    if (all && a.found) meta_out_bool(o, "tokenizer.ggml.add_sep_token", a.separates);
    if (a.n_before > 1 || (a.n_before == 1 && a.before[0] != bos)) KG_TRY(put_around(o, "kagari.tokens_before", a.before, a.n_before, t->vocab.n));
    if (a.n_after > 1 || (a.n_after == 1 && a.after[0] != eos)) KG_TRY(put_around(o, "kagari.tokens_after", a.after, a.n_after, t->vocab.n));
    return KG_OK;
}

/* ---- steps */

static int base64_digit(char c)
{
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

static kg_status put_charsmap(struct meta_out *o, const json_t *v)
{
    const char *s = json_string_value(v);
    size_t n = json_string_length(v);
    uint32_t bits = 0;
    if (!s) return KG_OK; /* an empty map is null */
    while (n > 0 && s[n - 1] == '=') n--;
    meta_out_array(o, "tokenizer.ggml.precompiled_charsmap", META_U8, n / 4 * 3 + (n % 4 > 1 ? n % 4 - 1 : 0));
    for (size_t i = 0; i < n; i++) {
        const int digit = base64_digit(s[i]);
        if (digit < 0) return status_set(KG_ERR_FORMAT, "precompiled_charsmap is not base64");
        bits = bits << 6 | (uint32_t)digit;
        if (i % 4 > 0) meta_out_bytes(o, &(uint8_t){(uint8_t)(bits >> (6 - 2 * (i % 4)))}, 1);
    }
    return KG_OK;
}

static kg_status take_charsmap(struct meta_out *o, json_t *v, bool *seen, int depth)
{
    json_t *list = json_object_get(v, "normalizers"), *map = json_object_get(v, "precompiled_charsmap");
    if (depth > MAX_DEPTH) return hf_refuse("normalizer", v);
    for (size_t i = 0; i < json_array_size(list); i++) KG_TRY(take_charsmap(o, json_array_get(list, i), seen, depth + 1));
    if (!hf_is(hf_get(v, "type"), "Precompiled")) return KG_OK;
    if (*seen) return status_set(KG_ERR_UNSUPPORTED, "a second map of characters (Precompiled) is not supported");
    *seen = true;
    kg_status st = put_charsmap(o, map);
    json_object_del(v, "precompiled_charsmap");
    return st;
}

kg_status hf_put_steps(struct meta_out *o, const struct hf_tokenizer *t)
{
    bool seen = false;
    json_t *steps = json_object(), *normalizer = json_deep_copy(hf_get(t->root, "normalizer"));
    kg_status st = steps ? take_charsmap(o, normalizer, &seen, 0) : status_set(KG_ERR_MEMORY, "out of memory for a tokenizer");
    json_object_set_new(steps, "normalizer", normalizer ? normalizer : json_null());
    json_object_set(steps, "pre_tokenizer", (json_t *)(uintptr_t)hf_get(t->root, "pre_tokenizer"));
    char *text = st == KG_OK ? json_dumps(steps, JSON_COMPACT) : NULL;
    json_decref(steps);
    KG_TRY(st);
    if (!text) return status_set(KG_ERR_MEMORY, "out of memory for a tokenizer");
    meta_out_str(o, "kagari.tokenizer_steps", text, strlen(text));
    free(text);
    return KG_OK;
}
