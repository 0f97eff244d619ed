/* Owns the loading of a vocabulary: tokens, scores, types, special ids and flags, all validated here, so that
 * tokenizing can fail only for want of memory or of a token for some byte. */
#include "text/tokenizer.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>

#define SPACE_MARK "\xe2\x96\x81" /* U+2581, SentencePiece's space */

/* What ends a generation, besides the ids that the file names: by text, if the token is one that text cannot spell. */
static const char *const end_texts[] = {
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|eom_id|>",
    "</s>",
    "<|end_of_text|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<eos>",
    "<|return|>",
    "<|call|>",
    "<|calls|>",
    "<|flush|>",
    "<end_of_utterance>",
    "<turn|>",
    "<\xef\xbd\x9c"
    "end" SPACE_MARK "of" SPACE_MARK "sentence\xef\xbd\x9c>",
};

/* <0x00> .. <0xFF>; -1 for any other text. */
static int byte_of_text(const char *s, size_t n)
{
    if (n != 6 || memcmp(s, "<0x", 3) != 0 || s[5] != '>' || !isxdigit((uint8_t)s[3]) || !isxdigit((uint8_t)s[4])) return -1;
    char hex[3] = {s[3], s[4], 0};
    return (int)strtol(hex, NULL, 16);
}

static kg_status load_texts(struct kg_tokenizer *tok, const struct meta *m)
{
    uint64_t total = 0;
    for (uint64_t i = 0; i < m->n; i++) {
        if (m->strings[i].len > INT32_MAX)
            return status_set(KG_ERR_UNSUPPORTED, "tokenizer.ggml.tokens: item %llu is longer than %d bytes", (unsigned long long)i,
                              INT32_MAX);
        total += m->strings[i].len + 1;
    }
    char *room = arena_alloc(&tok->arena, total);
    tok->tokens = arena_array(&tok->arena, m->n, sizeof *tok->tokens);
    if (!room || !tok->tokens) return KG_ERR_MEMORY;
    for (uint64_t i = 0; i < m->n; i++) {
        struct token *t = &tok->tokens[i];
        t->text = room;
        t->text_len = (uint32_t)m->strings[i].len;
        t->type = TOKEN_NORMAL;
        if (t->text_len > 0) memcpy(room, m->strings[i].ptr, t->text_len);
        room += t->text_len + 1;
    }
    return KG_OK;
}

/* An array with one number for each token; *out NULL if the file has none. */
static kg_status token_array(const struct file *f, const char *key, int32_t n_vocab, const struct meta **out)
{
    *out = file_meta(f, key);
    const struct meta *m = *out;
    if (!m) return KG_OK;
    if (m->type != META_ARR || m->item == META_STR || m->item == META_ARR || m->item == META_BOOL)
        return status_set(KG_ERR_FORMAT, "%s is not an array of numbers", key);
    if (m->n != (uint64_t)n_vocab)
        return status_set(KG_ERR_FORMAT, "%s has %llu items, tokenizer.ggml.tokens has %d", key, (unsigned long long)m->n, n_vocab);
    return KG_OK;
}

static kg_status load_types(struct kg_tokenizer *tok, const struct file *f)
{
    const struct meta *m;
    KG_TRY(token_array(f, "tokenizer.ggml.token_type", tok->n_vocab, &m));
    if (m && (m->item == META_F32 || m->item == META_F64))
        return status_set(KG_ERR_FORMAT, "tokenizer.ggml.token_type is not an array of integers");
    for (int32_t i = 0; i < tok->n_vocab; i++) {
        struct token *t = &tok->tokens[i];
        int byte = byte_of_text(t->text, t->text_len);
        if (m) {
            int64_t type = file_arr_i64(m, (uint64_t)i);
            if (type < 0 || type >= TOKEN_N_TYPES)
                return status_set(KG_ERR_FORMAT, "tokenizer.ggml.token_type: item %d is %lld, which is no token type", i, (long long)type);
            t->type = (uint8_t)type;
            if (type == TOKEN_BYTE && byte < 0) t->type = TOKEN_NORMAL;
        } else if (tok->kind == TOKENIZER_SPM && byte >= 0) {
            t->type = TOKEN_BYTE;
        }
    }
    return KG_OK;
}

/* The names of BPE over characters, where the model's is that of byte-level BPE. */
static bool is_raw(const struct file *f)
{
    static const char *const names[] = {"gemma4", "granite-embed-multi-311m", "sarvam-moe"};
    const struct meta *model = file_meta(f, "tokenizer.ggml.model"), *pre = file_meta(f, "tokenizer.ggml.pre");
    if (!model || !pre || model->type != META_STR || pre->type != META_STR || model->strings->len != 4 || memcmp(model->strings->ptr, "gpt2", 4) != 0) return false;
    for (size_t i = 0; i < COUNT_OF(names); i++)
        if (pre->strings->len == strlen(names[i]) && memcmp(pre->strings->ptr, names[i], pre->strings->len) == 0) return true;
    return false;
}

static kg_status load_scores(struct kg_tokenizer *tok, const struct file *f)
{
    const struct meta *m;
    KG_TRY(token_array(f, "tokenizer.ggml.scores", tok->n_vocab, &m));
    if (tok->kind != TOKENIZER_SPM || (!m && is_raw(f))) return KG_OK;
    if (!m) return status_set(KG_ERR_FORMAT, "missing key tokenizer.ggml.scores");
    for (int32_t i = 0; i < tok->n_vocab; i++) {
        double score = m->item == META_F32 || m->item == META_F64 ? file_arr_f64(m, (uint64_t)i) : (double)file_arr_i64(m, (uint64_t)i);
        if (isnan(score)) return status_set(KG_ERR_FORMAT, "tokenizer.ggml.scores: item %d is not a number", i);
        uint32_t bits = f32_bits((float)score + 0.0f);                           /* + 0: the two zeros are equal */
        tok->tokens[i].rank = bits & 0x80000000u ? bits : ~(bits | 0x80000000u); /* order of floats as integers, reversed */
    }
    return KG_OK;
}

size_t spm_decode(const char *text, size_t n, char *out, bool *spaces)
{
    size_t len = 0;
    for (size_t i = 0; i < n;) {
        if (n - i >= 3 && memcmp(text + i, SPACE_MARK, 3) == 0) {
            out[len++] = ' ';
            i += 3;
        } else {
            if (text[i] == ' ') *spaces = true;
            out[len++] = text[i++];
        }
    }
    return len;
}

static int hex_digit(char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1; }

size_t rwkv_decode(const char *text, size_t n, char *out)
{
    size_t len = 0;
    for (size_t i = 0; i < n; i++) {
        if (text[i] != '\\' || i + 1 == n) {
            out[len++] = text[i];
            continue;
        }
        const char c = text[++i];
        if (c == 'x' && n - i > 2 && hex_digit(text[i + 1]) >= 0 && hex_digit(text[i + 2]) >= 0) {
            out[len++] = (char)(hex_digit(text[i + 1]) << 4 | hex_digit(text[i + 2]));
            i += 2;
        } else {
            out[len++] = (char)(c == 't' ? '\t' : c == 'n' ? '\n' : c == 'r' ? '\r' : c);
        }
    }
    return len;
}

static size_t decode_text(const struct kg_tokenizer *tok, const struct token *t, char *out, bool *spaces, bool *exact)
{
    if (tok->kind == TOKENIZER_BPE) return bytelevel_decode(t->text, t->text_len, out, exact);
    return tok->kind == TOKENIZER_RWKV ? rwkv_decode(t->text, t->text_len, out) : spm_decode(t->text, t->text_len, out, spaces);
}

/* What stands in a text for a token with marks: spaces between words. out has room for one byte more than the token. Returns how much was taken. */
static size_t unmark(const struct kg_tokenizer *tok, struct token *t, char *out)
{
    const struct str suffix = tok->word_suffix, prefix = tok->inner_prefix;
    const char *s = t->bytes;
    size_t n = t->bytes_len, len = 0;
    const bool inner = prefix.len > 0 && n >= prefix.len && memcmp(s, prefix.ptr, prefix.len) == 0;
    const bool ends = suffix.len > 0 && n >= suffix.len && memcmp(s + n - suffix.len, suffix.ptr, suffix.len) == 0;
    if (inner) s += prefix.len, n -= prefix.len;
    else if (prefix.len > 0) out[len++] = ' ';
    if (ends) n -= MIN(n, suffix.len);
    memcpy(out + len, s, n);
    len += n;
    if (ends && prefix.len == 0) out[len++] = ' ';
    t->bytes = out;
    t->bytes_len = (uint32_t)len;
    return len;
}

/* Fills bytes of every token and the map from bytes to tokens. */
static kg_status load_bytes(struct kg_tokenizer *tok)
{
    const bool marks = tok->word_suffix.len > 0 || tok->inner_prefix.len > 0;
    size_t total = 0;
    for (int32_t i = 0; i < tok->n_vocab; i++) total += tok->tokens[i].text_len * (marks ? 2u : 1u) + marks;
    char *room = arena_alloc(&tok->arena, total + 1);
    if (!room) return KG_ERR_MEMORY;
    KG_TRY(strmap_init(&tok->by_bytes, (size_t)tok->n_vocab, (uint64_t)(uintptr_t)tok * 0x9e3779b97f4a7c15u));
    tok->words_start_with_space = true;
    for (int b = 0; b < 256; b++) tok->byte_symbol[b] = SYMBOL_NONE;
    for (int32_t i = 0; i < tok->n_vocab; i++) {
        struct token *t = &tok->tokens[i];
        t->bytes = t->text;
        t->bytes_len = t->text_len;
        int byte = byte_of_text(t->text, t->text_len);
        if (t->type == TOKEN_BYTE) {
            *room = (char)byte;
            t->bytes = room++;
            t->bytes_len = 1;
            if (tok->byte_symbol[byte] == SYMBOL_NONE) tok->byte_symbol[byte] = (uint32_t)i;
            continue;
        }
        if (t->type == TOKEN_CONTROL || t->type == TOKEN_UNKNOWN) continue;
        bool spaces = false, exact = true;
        size_t len = decode_text(tok, t, room, &spaces, &exact);
        const char *bytes = room;
        if (len == t->text_len && memcmp(room, t->text, len) == 0)
            bytes = t->text;
        else
            room += len;
        if (t->type != TOKEN_USER_DEFINED) {
            t->bytes = bytes;
            t->bytes_len = (uint32_t)len;
            if (marks) room += unmark(tok, t, room);
        }
        if (tok->kind == TOKENIZER_WPM || tok->kind == TOKENIZER_UGM || tok->kind == TOKENIZER_RWKV) continue; /* they have a trie */
        if (tok->steps && tok->kind == TOKENIZER_SPM) bytes = t->text, len = t->text_len, spaces = false;
        if (len == 0 || spaces || !exact || (tok->kind == TOKENIZER_SPM && t->type == TOKEN_UNUSED)) continue;
        KG_TRY(strmap_add(&tok->by_bytes, bytes, len, (uint32_t)i));
        tok->max_bytes = MAX(tok->max_bytes, (uint32_t)len);
        for (size_t k = 1; k < len; k++)
            if (bytes[k] == ' ' && bytes[k - 1] != ' ') tok->words_start_with_space = false;
    }
    return KG_OK;
}

static kg_status load_id(const struct kg_tokenizer *tok, const struct file *f, const char *key, int32_t fallback, int32_t *out)
{
    uint32_t id = 0;
    bool found = false;
    KG_TRY(file_get_u32(f, key, &id, &found));
    *out = fallback < tok->n_vocab ? fallback : -1;
    if (!found) return KG_OK;
    if (id >= (uint32_t)tok->n_vocab) return status_set(KG_ERR_FORMAT, "%s is %u, the vocabulary has %d tokens", key, id, tok->n_vocab);
    *out = (int32_t)id;
    return KG_OK;
}

/* GGUF has no key for it. Qwen's tokenizers normalize, which their name implies; kagari.normalizer comes from a tokenizer.json. */
static kg_status load_normalizer(struct kg_tokenizer *tok, const struct file *f)
{
    struct str pre = {0}, name = {0};
    bool has_pre = false, found = false;
    KG_TRY(file_get_str(f, "tokenizer.ggml.pre", &pre, &has_pre));
    KG_TRY(file_get_str(f, "kagari.normalizer", &name, &found));
    if (found && !(name.len == 3 && memcmp(name.ptr, "nfc", 3) == 0) && !(name.len == 4 && memcmp(name.ptr, "none", 4) == 0))
        return status_set(KG_ERR_UNSUPPORTED, "kagari.normalizer is neither nfc nor none");
    const bool qwen = has_pre && ((pre.len == 5 && memcmp(pre.ptr, "qwen2", 5) == 0) || (pre.len == 6 && memcmp(pre.ptr, "qwen35", 6) == 0));
    tok->nfc = found ? name.len == 3 : qwen;
    return KG_OK;
}

static kg_status load_template(const struct kg_tokenizer *tok, const struct file *f, const char *key, int32_t *ids, int *n)
{
    const struct meta *m = file_meta(f, key);
    if (!m) return KG_OK;
    if (m->type != META_ARR || m->item != META_U32 || m->n > MAX_TEMPLATE) return status_set(KG_ERR_FORMAT, "%s is not a list of at most %d tokens", key, MAX_TEMPLATE);
    *n = (int)m->n;
    for (int i = 0; i < *n; i++) {
        const int64_t id = file_arr_i64(m, (uint64_t)i);
        if (id >= tok->n_vocab) return status_set(KG_ERR_FORMAT, "%s names a token that is not there", key);
        ids[i] = (int32_t)id;
    }
    return KG_OK;
}

/* What goes around a text: GGUF has a place for one token on each side. */
static kg_status load_templates(struct kg_tokenizer *tok, const struct file *f)
{
    tok->before[0] = tok->bos;
    tok->n_before = tok->add_bos && tok->bos >= 0;
    tok->after[0] = tok->eos;
    tok->n_after = tok->add_eos && tok->eos >= 0;
    KG_TRY(load_template(tok, f, "kagari.tokens_before", tok->before, &tok->n_before));
    return load_template(tok, f, "kagari.tokens_after", tok->after, &tok->n_after);
}

static kg_status load_flags(struct kg_tokenizer *tok, const struct file *f)
{
    const bool spm = tok->kind == TOKENIZER_SPM, bert = tok->kind == TOKENIZER_WPM;
    bool found;
    KG_TRY(load_id(tok, f, "tokenizer.ggml.bos_token_id", spm ? 1 : bert ? 101 : -1, &tok->bos));
    if (bert) KG_TRY(load_id(tok, f, "tokenizer.ggml.cls_token_id", tok->bos, &tok->bos));
    if (bert) KG_TRY(load_id(tok, f, "tokenizer.ggml.seperator_token_id", 102, &tok->eos)); /* spelled so */
    KG_TRY(load_id(tok, f, "tokenizer.ggml.eos_token_id", spm ? 2 : bert ? tok->eos : tok->kind == TOKENIZER_UGM ? 1 : -1, &tok->eos));
    KG_TRY(load_id(tok, f, "tokenizer.ggml.eot_token_id", -1, &tok->eot));
    KG_TRY(load_id(tok, f, "tokenizer.ggml.eom_token_id", -1, &tok->eom));
    KG_TRY(load_id(tok, f, "tokenizer.ggml.unknown_token_id", spm ? (tok->steps ? -1 : 0) : bert ? 100 : tok->kind == TOKENIZER_UGM ? 2 : -1, &tok->unk));
    tok->add_space_prefix = tok->kind != TOKENIZER_BPE && tok->kind != TOKENIZER_RWKV && !is_raw(f);
    tok->add_bos = (spm && !is_raw(f)) || bert || (tok->pre && pretokenizer_adds_bos(tok->pre));
    tok->add_eos = tok->kind == TOKENIZER_UGM || bert;
    KG_TRY(file_get_bool(f, "tokenizer.ggml.add_bos_token", &tok->add_bos, &found));
    KG_TRY(file_get_bool(f, "tokenizer.ggml.add_eos_token", &tok->add_eos, &found));
    KG_TRY(load_templates(tok, f));
    if (tok->kind == TOKENIZER_RWKV) return KG_OK;
    if (tok->kind == TOKENIZER_BPE) return tok->steps ? KG_OK : load_normalizer(tok, f); /* byte-level BPE knows nothing of what follows */
    KG_TRY(file_get_bool(f, "kagari.prefix_unless_space", &tok->prefix_unless_space, &found));
    KG_TRY(file_get_bool(f, "tokenizer.ggml.add_space_prefix", &tok->add_space_prefix, &found));
    return file_get_bool(f, "tokenizer.ggml.remove_extra_whitespaces", &tok->remove_extra_whitespaces, &found);
}

static bool text_is(const struct token *t, const char *s) { return t->text_len == strlen(s) && memcmp(t->text, s, t->text_len) == 0; }

static void mark_ends(struct kg_tokenizer *tok)
{
    bool returns = false, calls = false, flushes = false;
    for (int32_t i = 0; i < tok->n_vocab; i++) {
        struct token *t = &tok->tokens[i];
        if (t->type != TOKEN_CONTROL && t->type != TOKEN_USER_DEFINED) continue;
        for (size_t k = 0; k < COUNT_OF(end_texts) && !t->ends; k++) t->ends = text_is(t, end_texts[k]);
        returns |= text_is(t, "<|return|>");
        calls |= text_is(t, "<|call|>") || text_is(t, "<|calls|>");
        flushes |= text_is(t, "<|flush|>");
    }
    /* in vocabularies of this kind <|end|> only ends a message: others follow before <|return|> */
    for (int32_t i = 0; i < tok->n_vocab && calls && (returns || flushes); i++)
        if (text_is(&tok->tokens[i], "<|end|>")) tok->tokens[i].ends = false;
    const int32_t ids[] = {tok->eos, tok->eot, tok->eom};
    for (size_t i = 0; i < COUNT_OF(ids); i++)
        if (ids[i] >= 0) tok->tokens[ids[i]].ends = true;
}

/* Phi-3's special tokens swallow the white space after them; its files tell that only by the model's name. */
static kg_status load_strip(struct kg_tokenizer *tok, const struct file *f)
{
    struct str name = {0};
    bool found = false;
    KG_TRY(file_get_str(f, "general.name", &name, &found));
    for (size_t i = 0; found && i + 4 <= name.len; i++) {
        const char *s = name.ptr + i;
        if (tolower((uint8_t)s[0]) != 'p' || tolower((uint8_t)s[1]) != 'h' || tolower((uint8_t)s[2]) != 'i') continue;
        if (s[3] == '3' || (i + 5 <= name.len && s[3] == '-' && s[4] == '3')) tok->strip_after_special = tok->kind == TOKENIZER_SPM;
    }
    return KG_OK;
}

/* What stands for bytes that have no token. */
static void load_replacement(struct kg_tokenizer *tok)
{
    struct encoder e = {.tok = tok};
    kg_status status = encoder_word(&e, "\xef\xbf\xbd", 3);
    if (status == KG_OK && e.n_unknown == 0 && e.n <= COUNT_OF(tok->replacement)) {
        if (e.n > 0) memcpy(tok->replacement, e.ids, e.n * sizeof *e.ids);
        tok->n_replacement = (int)e.n;
    }
    encoder_free(&e);
    free(e.ids);
}

struct special_key {
    const struct token *token;
    int32_t id;
};

static int by_text(const void *pa, const void *pb)
{
    const struct special_key *a = pa, *b = pb;
    uint32_t n = MIN(a->token->text_len, b->token->text_len);
    int order = memcmp(a->token->text, b->token->text, n);
    if (order == 0) order = (a->token->text_len > b->token->text_len) - (a->token->text_len < b->token->text_len);
    if (order == 0) order = a->id - b->id;
    return order;
}

static kg_status load_specials(struct kg_tokenizer *tok, struct specials *out, bool user_only)
{
    size_t n = 0;
    for (int pass = 0; pass < 2; pass++) {
        struct special_key *keys = pass ? malloc((n + 1) * sizeof *keys) : NULL;
        if (pass && !keys) return status_set(KG_ERR_MEMORY, "out of memory for special tokens");
        n = 0;
        for (int32_t i = 0; i < tok->n_vocab; i++) {
            const struct token *t = &tok->tokens[i];
            bool special = t->type == TOKEN_USER_DEFINED || (!user_only && (t->type == TOKEN_CONTROL || t->type == TOKEN_UNKNOWN));
            if (!special || t->text_len == 0) continue;
            if (pass) keys[n] = (struct special_key){t, i};
            n++;
        }
        if (!pass) continue;
        qsort(keys, n, sizeof *keys, by_text);
        int32_t *ids = arena_array(&tok->arena, n + 1, sizeof *ids);
        for (size_t i = 0; i < n && ids; i++) {
            const struct token *t = keys[i].token, *last = i ? keys[i - 1].token : NULL;
            if (last && last->text_len == t->text_len && memcmp(last->text, t->text, t->text_len) == 0) continue;
            ids[out->n++] = keys[i].id;
            out->first[(uint8_t)t->text[0] + 1]++;
        }
        free(keys);
        if (!ids) return KG_ERR_MEMORY;
        out->ids = ids;
    }
    for (int b = 0; b < 256; b++) out->first[b + 1] += out->first[b];
    return KG_OK;
}

static kg_status load_kind(struct kg_tokenizer *tok, const struct file *f, struct str model)
{
    if ((model.len == 5 && memcmp(model.ptr, "llama", 5) == 0) || (model.len == 6 && memcmp(model.ptr, "gemma4", 6) == 0) || is_raw(f))
        tok->kind = TOKENIZER_SPM;
    else if (model.len == 4 && memcmp(model.ptr, "gpt2", 4) == 0)
        tok->kind = TOKENIZER_BPE;
    else if (model.len == 4 && memcmp(model.ptr, "bert", 4) == 0)
        tok->kind = TOKENIZER_WPM;
    else if (model.len == 2 && memcmp(model.ptr, "t5", 2) == 0)
        tok->kind = TOKENIZER_UGM;
    else if (model.len == 4 && memcmp(model.ptr, "rwkv", 4) == 0)
        tok->kind = TOKENIZER_RWKV;
    else {
        char name[32] = "";
        for (size_t i = 0; i < model.len && i < sizeof name - 1; i++) name[i] = isprint((uint8_t)model.ptr[i]) ? model.ptr[i] : '?';
        return status_set(KG_ERR_UNSUPPORTED, "tokenizer.ggml.model: tokenizer model '%s' is not supported; those known are llama, gpt2, bert, t5, gemma4, rwkv",
                          name);
    }
    return KG_OK;
}

static kg_status load_pre(struct kg_tokenizer *tok, const struct file *f)
{
    bool found;
    if (tok->kind != TOKENIZER_BPE) return KG_OK;
    if (!tok->steps) {
        struct str pre = {"default", 7};
        KG_TRY(file_get_str(f, "tokenizer.ggml.pre", &pre, &found));
        KG_TRY(pretokenizer_new(&tok->pre, pre));
        tok->ignore_merges = pretokenizer_ignores_merges(tok->pre);
    }
    return file_get_bool(f, "kagari.ignore_merges", &tok->ignore_merges, &found);
}

static kg_status load(struct kg_tokenizer *tok, const struct file *f, struct str model)
{
    KG_TRY(load_kind(tok, f, model));
    const bool pieces = tok->kind == TOKENIZER_WPM || tok->kind == TOKENIZER_UGM || tok->kind == TOKENIZER_RWKV;
    const struct meta *m;
    KG_TRY(file_get_arr(f, "tokenizer.ggml.tokens", META_STR, &m, NULL));
    if (m->n == 0 || m->n > INT32_MAX) return status_set(KG_ERR_FORMAT, "tokenizer.ggml.tokens has %llu items", (unsigned long long)m->n);
    tok->n_vocab = (int32_t)m->n;
    KG_TRY(load_texts(tok, m));
    KG_TRY(load_types(tok, f));
    KG_TRY(steps_load(tok, f));
    KG_TRY(load_pre(tok, f));
    KG_TRY(load_scores(tok, f));
    KG_TRY(load_bytes(tok));
    if (pieces) KG_TRY(pieces_load(tok, f));
    /* Gemma 4: pieces of SentencePiece, merged in the order of a list */
    const bool ranked = (tok->kind == TOKENIZER_SPM && model.len == 6) || is_raw(f);
    if (tok->kind == TOKENIZER_BPE || ranked || file_meta(f, "kagari.bpe_merges")) KG_TRY(merges_load(tok, f));
    KG_TRY(load_flags(tok, f));
    KG_TRY(load_strip(tok, f));
    mark_ends(tok);
    if (!pieces) load_replacement(tok);
    KG_TRY(chat_load(tok, f));
    KG_TRY(load_specials(tok, &tok->control, false));
    return load_specials(tok, &tok->user, true);
}

kg_status tokenizer_new(kg_tokenizer **out, const struct file *f)
{
    *out = NULL;
    struct str model;
    bool found;
    KG_TRY(file_get_str(f, "tokenizer.ggml.model", &model, &found));
    if (!found) return KG_OK;
    struct kg_tokenizer *tok = calloc(1, sizeof *tok);
    if (!tok) return status_set(KG_ERR_MEMORY, "out of memory for the tokenizer");
    kg_status status = load(tok, f, model);
    if (status != KG_OK) {
        kg_tokenizer_close(&tok);
        return strstr(kg_error_message(), f->path) ? status : status_prefix(status, "%s", f->path);
    }
    *out = tok;
    return KG_OK;
}
