/* The public tokenizer functions: cuts special tokens out of a text, hands what lies between to the merges, and turns
 * ids back into text. Vocabulary: vocab.c; patterns: pretokenizer.c; merges: encode.c. */
#include "text/tokenizer.h"

#include "text/normalize.h"
#include "text/utf8.h"

#include <stdlib.h>

enum { CACHE_FROM = 4096 }; /* bytes of text from which clearing a cache of words pays */

kg_status kg_tokenizer_open(kg_tokenizer **out, const char *path)
{
    if (!out || !path) return status_set(KG_ERR_ARGUMENT, "kg_tokenizer_open: NULL argument");
    *out = NULL;
    struct file *f;
    KG_TRY(file_open_vocabulary(&f, path));
    kg_status status = tokenizer_new(out, f);
    if (status == KG_OK && !*out) status = status_set(KG_ERR_FORMAT, "%s: no vocabulary (missing key tokenizer.ggml.model)", path);
    file_close(&f);
    return status;
}

void kg_tokenizer_close(kg_tokenizer **tok)
{
    if (!tok || !*tok) return;
    strmap_free(&(*tok)->by_bytes);
    pretokenizer_free(&(*tok)->pre);
    arena_free(&(*tok)->arena);
    free(*tok);
    *tok = NULL;
}

/* Of ids[lo..hi), which are sorted by byte k of their text: the first whose byte is `byte` or more. */
static size_t lower_bound(const struct kg_tokenizer *tok, const struct specials *set, size_t lo, size_t hi, size_t k, int byte)
{
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if ((uint8_t)tok->tokens[set->ids[mid]].text[k] < byte)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* The longest special token that begins at s; -1: none. */
static int32_t special_at(const struct kg_tokenizer *tok, const struct specials *set, const char *s, size_t n)
{
    size_t lo = set->first[(uint8_t)s[0]], hi = set->first[(uint8_t)s[0] + 1];
    int32_t best = -1;
    /* all of ids[lo..hi) agree with s in the first k bytes; the one of exactly k bytes comes first */
    for (size_t k = 1; lo < hi; k++) {
        const struct token *t = &tok->tokens[set->ids[lo]];
        if (hi - lo == 1) return t->text_len <= n && memcmp(t->text, s, t->text_len) == 0 ? set->ids[lo] : best;
        if (t->text_len == k) best = set->ids[lo++];
        if (k == n) break;
        hi = lower_bound(tok, set, lo, hi, k, (uint8_t)s[k] + 1);
        lo = lower_bound(tok, set, lo, hi, k, (uint8_t)s[k]);
    }
    return best;
}

static kg_status word_of_split(void *ctx, const char *word, size_t n) { return encoder_word(ctx, word, n); }

static kg_status encode_valid(struct encoder *e, const char *text, size_t n)
{
    if (!e->tok->nfc || !normalize_needed(text, n)) return pretokenizer_split(e->tok->pre, text, n, word_of_split, e);
    struct buf form = {0};
    kg_status status = normalize_form(&form, text, n, NORMALIZE_COMPOSE);
    if (status == KG_OK) status = pretokenizer_split(e->tok->pre, form.data, form.len, word_of_split, e);
    buf_free(&form);
    return status;
}

static kg_status encode_bpe(struct encoder *e, const char *text, size_t n)
{
    const uint8_t *s = (const uint8_t *)text;
    for (size_t i = 0; i < n;) {
        size_t valid = utf8_valid_prefix(s + i, n - i);
        if (valid > 0) KG_TRY(encode_valid(e, text + i, valid));
        i += valid;
        size_t bad = i;
        while (bad < n && utf8_char(s + bad, n - bad) == 0) bad++;
        KG_TRY(encoder_word(e, text + i, bad - i)); /* bytes that are no characters: a word of their own */
        i = bad;
    }
    return KG_OK;
}

/* Writes the text as SentencePiece sees it, with spaces for U+2581, into out (n + 1 bytes at least); returns its length. */
static size_t normalize_spm(const struct kg_tokenizer *tok, const char *text, size_t n, bool prefix, char *out)
{
    bool squeeze = tok->remove_extra_whitespaces;
    size_t len = 0;
    if (prefix) out[len++] = ' ';
    size_t start = len;
    for (size_t i = 0; i < n;) {
        size_t k = 1;
        char c = text[i];
        if (c == '\xe2' && n - i >= 3 && text[i + 1] == '\x96' && text[i + 2] == '\x81') {
            c = ' ';
            k = 3;
        }
        if (c != ' ' || !squeeze || (len > start && out[len - 1] != ' ')) out[len++] = c;
        i += k;
    }
    if (squeeze) {
        while (len > start && out[len - 1] == ' ') len--;
        if (len == start) len = 0; /* nothing but spaces: not even the prefix */
    }
    return len;
}

static kg_status encode_spaced(struct encoder *e, const char *text, size_t n, bool prefix)
{
    bool spaced = n > 0 && (text[0] == ' ' || (n >= 3 && memcmp(text, "\xe2\x96\x81", 3) == 0));
    if (e->tok->prefix_unless_space && spaced) prefix = false;
    char *s = malloc(n + 1);
    if (!s) return status_set(KG_ERR_MEMORY, "out of memory for tokenizing");
    size_t len = normalize_spm(e->tok, text, n, prefix, s);
    kg_status status = KG_OK;
    for (size_t i = 0; i < len && status == KG_OK;) {
        size_t end = len;
        if (e->tok->words_start_with_space) {
            end = i;
            while (end < len && s[end] == ' ') end++;
            const char *space = end < len ? memchr(s + end, ' ', len - end) : NULL;
            end = space ? (size_t)(space - s) : len;
        }
        status = encoder_word(e, s + i, end - i);
        i = end;
    }
    free(s);
    return status;
}

static kg_status encode_spm(struct encoder *e, const char *text, size_t n, bool prefix)
{
    struct buf form = {0};
    if (!e->tok->steps) return encode_spaced(e, text, n, prefix);
    kg_status st = steps_run(e->tok->steps, text, n, false, &form);
    if (st == KG_OK) st = encode_spaced(e, form.data, form.len, prefix);
    buf_free(&form);
    return st;
}

/* WordPiece, Unigram. at_start: nothing comes before. */
static kg_status encode_pieces(struct encoder *e, const char *text, size_t n, bool at_start)
{
    struct utf8_stream stream = {0};
    struct buf valid = {0}, words = {0};
    kg_status st = utf8_valid_prefix((const uint8_t *)text, n) == n ? KG_OK : utf8_stream_push(&stream, text, n, true, &valid);
    if (valid.len > 0) text = valid.data, n = valid.len;
    if (st == KG_OK) st = steps_run(e->tok->steps, text, n, at_start, &words);
    for (size_t i = 0, k; i < words.len && st == KG_OK; i += k + 1) {
        const char *cut = memchr(words.data + i, STEPS_CUT, words.len - i);
        k = cut ? (size_t)(cut - words.data) - i : words.len - i;
        e->after_unknown = false; /* each word has its own unknown */
        st = encoder_word(e, words.data + i, k);
    }
    buf_free(&valid);
    buf_free(&words);
    return st;
}

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

static bool strips_after(const struct kg_tokenizer *tok, int32_t id)
{
    const char *text = tok->tokens[id].text;
    return tok->strip_after_special && strcmp(text, "<unk>") != 0 && strcmp(text, "<s>") != 0 && strcmp(text, "<|endoftext|>") != 0;
}

static kg_status encode(struct encoder *e, const char *text, size_t n, bool specials)
{
    const struct kg_tokenizer *tok = e->tok;
    const struct specials *set = specials ? &tok->control : &tok->user;
    bool after_special = true; /* a text's start counts as well: SentencePiece puts its space there */
    for (size_t done = 0, i = 0; done < n;) {
        int32_t id = -1;
        const size_t start = done;
        if (set->n == 0) i = n;
        for (; i < n; i++)
            if (set->first[(uint8_t)text[i]] != set->first[(uint8_t)text[i] + 1] && (id = special_at(tok, set, text + i, n - i)) >= 0)
                break;
        size_t end = i;
        if (id >= 0 && tok->tokens[id].strips_left) end -= steps_space_suffix(text + done, i - done);
        if (end > done) {
            if (tok->kind == TOKENIZER_SPM)
                KG_TRY(encode_spm(e, text + done, end - done, after_special && tok->add_space_prefix));
            else if (tok->kind == TOKENIZER_BPE)
                KG_TRY(encode_bpe(e, text + done, end - done));
            else
                KG_TRY(encode_pieces(e, text + done, end - done, start == 0));
            after_special = false;
        }
        done = i;
        if (id < 0) continue;
        KG_TRY(encoder_push(e, id));
        after_special = true;
        done += tok->tokens[id].text_len;
        while (done < n && strips_after(tok, id) && is_space(text[done])) done++;
        if (tok->tokens[id].strips_right) done += steps_space_prefix(text + done, n - done);
        i = done;
    }
    return KG_OK;
}

kg_status kg_tokenize(const kg_tokenizer *tok, const char *text, size_t text_len, unsigned flags, int32_t **ids, size_t *n)
{
    if (!tok || (!text && text_len > 0) || !ids || !n) return status_set(KG_ERR_ARGUMENT, "kg_tokenize: NULL argument");
    *ids = NULL;
    *n = 0;
    if (flags & ~(unsigned)(KG_TOKENIZE_BOS | KG_TOKENIZE_SPECIAL))
        return status_set(KG_ERR_ARGUMENT, "kg_tokenize: unknown flags %#x", flags);
    if (text_len >= INT32_MAX) return status_set(KG_ERR_ARGUMENT, "kg_tokenize: text of %zu bytes is too long", text_len);
    struct encoder e = {.tok = tok};
    e.cap = text_len / 4 + 16;
    e.ids = malloc(e.cap * sizeof *e.ids);
    kg_status status = e.ids ? KG_OK : status_set(KG_ERR_MEMORY, "out of memory for tokenizing");
    if (status == KG_OK && text_len >= CACHE_FROM) status = encoder_use_cache(&e);
    if (status == KG_OK && (flags & KG_TOKENIZE_BOS) && tok->add_bos && tok->bos >= 0) status = encoder_push(&e, tok->bos);
    if (status == KG_OK) status = encode(&e, text, text_len, flags & KG_TOKENIZE_SPECIAL);
    if (status == KG_OK && (flags & KG_TOKENIZE_BOS) && tok->add_eos && tok->eos >= 0) status = encoder_push(&e, tok->eos);
    encoder_free(&e);
    if (status != KG_OK) {
        free(e.ids);
        return status;
    }
    *ids = e.ids;
    *n = e.n;
    return KG_OK;
}

static const struct token *token_of(const struct kg_tokenizer *tok, int32_t id)
{
    return tok && id >= 0 && id < tok->n_vocab ? &tok->tokens[id] : NULL;
}

size_t kg_token_bytes(const kg_tokenizer *tok, int32_t id, bool special, const char **bytes)
{
    const struct token *t = token_of(tok, id);
    bool hidden = !t || (!special && (t->type == TOKEN_CONTROL || t->type == TOKEN_UNKNOWN));
    if (bytes) *bytes = hidden ? "" : t->bytes;
    return hidden ? 0 : t->bytes_len;
}

kg_status kg_detokenize(const kg_tokenizer *tok, const int32_t *ids, size_t n, bool special, char **text, size_t *len)
{
    if (!tok || (!ids && n > 0) || !text) return status_set(KG_ERR_ARGUMENT, "kg_detokenize: NULL argument");
    *text = NULL;
    if (len) *len = 0;
    struct buf out = {0};
    kg_status status = KG_OK;
    bool prefixed = tok->add_space_prefix;
    for (size_t i = 0; i < n && status == KG_OK; i++) {
        const struct token *t = token_of(tok, ids[i]);
        if (!t) {
            status = status_set(KG_ERR_ARGUMENT, "token id %d is not in the vocabulary (0 to %d)", ids[i], tok->n_vocab - 1);
            break;
        }
        const char *bytes;
        size_t k = kg_token_bytes(tok, ids[i], special, &bytes);
        bool cut = t->type == TOKEN_CONTROL || t->type == TOKEN_USER_DEFINED;
        if (prefixed && !cut && k > 0 && bytes[0] == ' ') bytes++, k--;
        prefixed = cut && tok->add_space_prefix;
        if (k > 0) status = buf_append(&out, bytes, k);
    }
    if (status == KG_OK) status = buf_append(&out, "", 1);
    if (status != KG_OK) {
        buf_free(&out);
        return status;
    }
    *text = out.data;
    if (len) *len = out.len - 1;
    return KG_OK;
}

const char *kg_token_text(const kg_tokenizer *tok, int32_t id)
{
    const struct token *t = token_of(tok, id);
    return t ? t->text : NULL;
}

int32_t kg_tokenizer_n_vocab(const kg_tokenizer *tok) { return tok ? tok->n_vocab : 0; }
int32_t kg_tokenizer_bos(const kg_tokenizer *tok) { return tok ? tok->bos : -1; }
int32_t kg_tokenizer_eos(const kg_tokenizer *tok) { return tok ? tok->eos : -1; }

bool kg_token_is_end(const kg_tokenizer *tok, int32_t id)
{
    const struct token *t = token_of(tok, id);
    return t && t->ends;
}
