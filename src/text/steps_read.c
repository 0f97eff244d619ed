/* Reads the steps of a tokenizer.json. */
#include "text/normalize.h"
#include "text/steps_list.h"

#include <jansson.h>
#include <stdlib.h>

enum { MAX_PATTERN = 16384, MAX_CONTENT = 64, MAX_DEPTH = 4, MATCH_LIMIT = 1000000 };

/* GPT-2's words, as "ByteLevel" has them */
#define GPT2 "'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

static bool is(const json_t *v, const char *text) { return json_is_string(v) && strcmp(json_string_value(v), text) == 0; }
static const json_t *get(const json_t *v, const char *key) { return json_object_get(v, key); }
static bool flag(const json_t *v, const char *key, bool otherwise) { return json_is_boolean(get(v, key)) ? json_is_true(get(v, key)) : otherwise; }

static kg_status refuse(const json_t *v)
{
    const char *type = json_string_value(get(v, "type"));
    return status_set(KG_ERR_UNSUPPORTED, "the step \"%.40s\" with these parameters is not supported", type ? type : "?");
}

static kg_status copy(struct steps *s, const json_t *v, size_t max, char **text, size_t *n)
{
    if (!json_is_string(v)) return status_set(KG_ERR_FORMAT, "a text is missing in a step of the tokenizer");
    *n = json_string_length(v);
    if (*n > max) return status_set(KG_ERR_UNSUPPORTED, "a text of %zu bytes in a step of the tokenizer is too long", *n);
    *text = arena_strndup(&s->arena, json_string_value(v), *n);
    return *text ? KG_OK : KG_ERR_MEMORY;
}

static kg_status compile(struct step *to, const char *pattern)
{
    struct buf b = {0};
    int error = 0;
    PCRE2_SIZE offset = 0;
    if (strlen(pattern) > MAX_PATTERN) return status_set(KG_ERR_UNSUPPORTED, "a pattern of %zu bytes is too long", strlen(pattern));
    kg_status st = buf_printf(&b, "(*LIMIT_MATCH=%d)(*LIMIT_HEAP=65536)", MATCH_LIMIT);
    if (st == KG_OK) st = regex_translate(pattern, &b);
    if (st == KG_OK) {
        /* Ruby's ^ and $ are those of lines */
        to->regex = pcre2_compile((PCRE2_SPTR)b.data, b.len - 1, PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error, &offset, NULL);
        if (to->regex) to->jit = pcre2_jit_compile(to->regex, PCRE2_JIT_COMPLETE) == 0;
    }
    if (st == KG_OK && !to->regex) {
        char message[128];
        pcre2_get_error_message(error, (PCRE2_UCHAR *)message, sizeof message);
        st = status_set(KG_ERR_UNSUPPORTED, "a pattern of the tokenizer cannot be compiled: %s", message);
    }
    buf_free(&b);
    return st;
}

/* {"String": text} or {"Regex": pattern} */
static kg_status pattern(struct steps *s, struct step *to, const json_t *v)
{
    const json_t *text = get(v, "String"), *regex = get(v, "Regex");
    if (json_is_string(text) && json_string_length(text) > 0) return copy(s, text, MAX_PATTERN, &to->literal, &to->n_literal);
    if (json_is_string(text)) return compile(to, "");
    if (!json_is_string(regex)) return status_set(KG_ERR_FORMAT, "a step of the tokenizer has neither String nor Regex");
    return compile(to, json_string_value(regex));
}

static kg_status behavior(const json_t *v, enum split_behavior otherwise, enum split_behavior *out)
{
    static const char *const names[] = {[SPLIT_REMOVED] = "Removed", [SPLIT_ISOLATED] = "Isolated", [SPLIT_WITH_PREVIOUS] = "MergedWithPrevious",
                                        [SPLIT_WITH_NEXT] = "MergedWithNext", [SPLIT_CONTIGUOUS] = "Contiguous"};
    *out = otherwise;
    if (!v) return KG_OK;
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        *out = (enum split_behavior)i;
        if (is(v, names[i])) return KG_OK;
    }
    return status_set(KG_ERR_FORMAT, "a step of the tokenizer splits in an unknown way");
}

static kg_status add(struct steps *s, struct step **out)
{
    if (s->n == MAX_STEPS) return status_set(KG_ERR_UNSUPPORTED, "the tokenizer has more than %d steps", MAX_STEPS);
    *out = &s->list[s->n++];
    return KG_OK;
}

static kg_status bert_normalizer(struct step *to, const json_t *v)
{
    const bool lower = flag(v, "lowercase", true);
    to->kind = STEP_BERT;
    to->flags = (flag(v, "clean_text", true) ? BERT_CLEAN : 0u) | (flag(v, "handle_chinese_chars", true) ? BERT_IDEOGRAPHS : 0u) |
                (flag(v, "strip_accents", lower) ? BERT_STRIP : 0u) | (lower ? BERT_LOWER : 0u);
    return KG_OK;
}

static kg_status normalizer(struct steps *s, const json_t *v, int depth)
{
    static const struct {
        const char *type;
        enum step_kind kind;
        unsigned flags;
    } plain[] = {{"NFC", STEP_FORM, FORM_NFC},   {"NFD", STEP_FORM, FORM_NFD},   {"NFKC", STEP_FORM, FORM_NFKC},          {"NFKD", STEP_FORM, FORM_NFKD},
                 {"Lowercase", STEP_LOWERCASE, 0}, {"Nmt", STEP_NMT, 0},         {"StripAccents", STEP_STRIP_ACCENTS, 0}, {"Precompiled", STEP_CHARSMAP, 0}};
    const json_t *type = get(v, "type"), *list = get(v, "normalizers");
    struct step *to = NULL;
    if (!v || json_is_null(v)) return KG_OK;
    if (is(type, "Sequence")) {
        if (depth == MAX_DEPTH) return refuse(v);
        for (size_t i = 0; i < json_array_size(list); i++) KG_TRY(normalizer(s, json_array_get(list, i), depth + 1));
        return KG_OK;
    }
    KG_TRY(add(s, &to));
    if (is(type, "BertNormalizer")) return bert_normalizer(to, v);
    if (is(type, "Strip")) {
        to->kind = STEP_STRIP;
        to->flags = (flag(v, "strip_left", true) ? STRIP_LEFT : 0u) | (flag(v, "strip_right", true) ? STRIP_RIGHT : 0u);
        return KG_OK;
    }
    if (is(type, "Replace")) {
        to->kind = STEP_REPLACE;
        KG_TRY(copy(s, get(v, "content"), MAX_CONTENT, &to->text, &to->n_text));
        return pattern(s, to, get(v, "pattern"));
    }
    if (is(type, "Prepend")) {
        to->kind = STEP_PREPEND;
        return copy(s, get(v, "prepend"), MAX_CONTENT, &to->text, &to->n_text);
    }
    for (size_t i = 0; i < COUNT_OF(plain); i++) {
        if (!is(type, plain[i].type)) continue;
        to->kind = plain[i].kind;
        to->flags = plain[i].flags;
        return KG_OK;
    }
    return refuse(v);
}

static kg_status add_split(struct steps *s, const char *regex, enum split_behavior how, bool invert)
{
    struct step *to = NULL;
    KG_TRY(add(s, &to));
    to->kind = STEP_SPLIT;
    to->behavior = how;
    to->invert = invert;
    return compile(to, regex);
}

static kg_status add_characters(struct steps *s, bool (*each)(uint32_t), enum split_behavior how)
{
    struct step *to = NULL;
    KG_TRY(add(s, &to));
    to->kind = STEP_CHARACTERS;
    to->behavior = how;
    to->is = each;
    return KG_OK;
}

static kg_status metaspace(struct steps *s, const json_t *v)
{
    const json_t *scheme = get(v, "prepend_scheme"), *mark = get(v, "replacement");
    struct step *to = NULL;
    KG_TRY(add(s, &to));
    to->kind = STEP_METASPACE;
    KG_TRY(copy(s, mark, 4, &to->text, &to->n_text));
    if (to->n_text == 0) return refuse(v);
    const bool always = scheme ? is(scheme, "always") : flag(v, "add_prefix_space", true);
    to->flags = (always ? PREPEND_ALWAYS : is(scheme, "first") ? PREPEND_FIRST : 0u) | (flag(v, "split", true) ? META_SPLIT : 0u);
    return KG_OK;
}

static kg_status byte_level(struct steps *s, const json_t *v)
{
    struct step *to = NULL;
    if (flag(v, "add_prefix_space", true)) {
        KG_TRY(add(s, &to));
        to->kind = STEP_SPACE_PREFIX;
    }
    if (flag(v, "use_regex", true)) KG_TRY(add_split(s, GPT2, SPLIT_ISOLATED, false));
    KG_TRY(add(s, &to));
    to->kind = STEP_BYTES;
    return KG_OK;
}

static kg_status pre_tokenizer(struct steps *s, const json_t *v, int depth)
{
    const json_t *type = get(v, "type"), *list = get(v, "pretokenizers");
    enum split_behavior how;
    struct step *to = NULL;
    if (!v || json_is_null(v)) return KG_OK;
    if (is(type, "Sequence")) {
        if (depth == MAX_DEPTH) return refuse(v);
        for (size_t i = 0; i < json_array_size(list); i++) KG_TRY(pre_tokenizer(s, json_array_get(list, i), depth + 1));
        return KG_OK;
    }
    if (is(type, "BertPreTokenizer")) {
        KG_TRY(add_characters(s, unicode_is_space, SPLIT_REMOVED));
        return add_characters(s, unicode_is_punctuation, SPLIT_ISOLATED);
    }
    if (is(type, "ByteLevel")) return byte_level(s, v);
    if (is(type, "Metaspace")) return metaspace(s, v);
    /* \w of another library: here zero-width joiners count */
    if (is(type, "Whitespace")) return add_split(s, "[\\w\\x{200C}\\x{200D}]+|[^\\w\\s\\x{200C}\\x{200D}]+", SPLIT_REMOVED, true);
    if (is(type, "WhitespaceSplit")) return add_characters(s, unicode_is_space, SPLIT_REMOVED);
    if (is(type, "Digits")) return add_characters(s, unicode_is_number, flag(v, "individual_digits", false) ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS);
    if (is(type, "Punctuation")) {
        KG_TRY(behavior(get(v, "behavior"), SPLIT_ISOLATED, &how));
        return add_characters(s, unicode_is_punctuation, how);
    }
    if (is(type, "CharDelimiterSplit")) {
        KG_TRY(add(s, &to));
        to->kind = STEP_SPLIT;
        KG_TRY(copy(s, get(v, "delimiter"), 4, &to->literal, &to->n_literal));
        return to->n_literal > 0 ? KG_OK : refuse(v);
    }
    if (is(type, "FixedLength")) {
        const json_int_t length = json_integer_value(get(v, "length"));
        KG_TRY(add(s, &to));
        to->kind = STEP_FIXED;
        to->flags = (unsigned)length;
        return length > 0 && length <= INT32_MAX ? KG_OK : refuse(v);
    }
    if (!is(type, "Split")) return refuse(v);
    KG_TRY(add(s, &to));
    to->kind = STEP_SPLIT;
    to->invert = flag(v, "invert", false);
    KG_TRY(behavior(get(v, "behavior"), SPLIT_REMOVED, &to->behavior));
    return pattern(s, to, get(v, "pattern"));
}

kg_status steps_new(struct steps **out, const char *json, size_t n, const struct charsmap *charsmap)
{
    json_error_t error;
    *out = NULL;
    json_t *root = json_loadb(json, n, JSON_REJECT_DUPLICATES, &error);
    if (!root) return status_set(KG_ERR_FORMAT, "kagari.tokenizer_steps is not valid JSON: %s", error.text);
    struct steps *s = calloc(1, sizeof *s);
    kg_status st = s ? KG_OK : status_set(KG_ERR_MEMORY, "out of memory for the tokenizer");
    if (st == KG_OK) st = normalizer(s, get(root, "normalizer"), 0);
    if (st == KG_OK) {
        s->n_normalizers = s->n;
        s->charsmap = *charsmap;
        st = pre_tokenizer(s, get(root, "pre_tokenizer"), 0);
    }
    /* the alphabet matters to steps behind it only: words are bytes */
    if (st == KG_OK && s->n > s->n_normalizers && s->list[s->n - 1].kind == STEP_BYTES) s->n--;
    json_decref(root);
    if (st != KG_OK) steps_free(&s);
    *out = s;
    return st;
}
