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
    steps_free(&(*tok)->steps);
    trie_free(&(*tok)->trie);
    trie_free(&(*tok)->symbols);
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

static kg_status word_of_steps(void *ctx, const char *word, size_t n)
{
    struct encoder *e = ctx;
    e->after_unknown = false; /* runs end with words */
    return encoder_word(e, word, n);
}

static kg_status encode_valid(struct encoder *e, const char *text, size_t n, bool first)
{
    if (e->tok->steps) return steps_run(e->tok->steps, text, n, first, word_of_steps, e);
    if (!e->tok->nfc || !normalize_needed(text, n)) return pretokenizer_split(e->tok->pre, text, n, word_of_split, e);
    struct buf form = {0};
    kg_status status = normalize_form(&form, text, n, FORM_NFC);
    if (status == KG_OK) status = pretokenizer_split(e->tok->pre, form.data, form.len, word_of_split, e);
    buf_free(&form);
    return status;
}

static kg_status encode_bpe(struct encoder *e, const char *text, size_t n, bool first)
{
    const uint8_t *s = (const uint8_t *)text;
    for (size_t i = 0; i < n;) {
        size_t valid = utf8_valid_prefix(s + i, n - i);
        if (valid > 0) KG_TRY(encode_valid(e, text + i, valid, first && i == 0));
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

/* Bytes that are no characters become U+FFFD, since such tokenizers know only characters. */
static kg_status encode_characters(struct encoder *e, const char *text, size_t n, bool first)
{
    if (utf8_valid_prefix((const uint8_t *)text, n) == n) return encode_valid(e, text, n, first);
    struct utf8_stream stream = {0};
    struct buf valid = {0};
    kg_status status = utf8_stream_push(&stream, text, n, true, &valid);
    if (status == KG_OK) status = encode_valid(e, valid.data, valid.len, first);
    buf_free(&valid);
    return status;
}

/* The next piece of a text that is normalized as SentencePiece does it, and the bytes that it takes: a symbol of the user as it stands, what the
 * map has for the longest match, else a character. */
static size_t spm_prefix(const struct kg_tokenizer *tok, const char *s, size_t n, struct str *to)
{
    size_t k = 0;
    uint32_t node = 0;
    for (size_t i = 0; tok->symbols.nodes && i < n && (node = trie_step(&tok->symbols, node, (uint8_t)s[i])) != 0; i++)
        if (tok->symbols.nodes[node].id != UINT32_MAX) k = i + 1;
    *to = (struct str){s, k};
    if (k > 0 || charsmap_match(&tok->charsmap, s, n, true, to, &k)) return k;
    k = utf8_char((const uint8_t *)s, n);
    *to = k ? (struct str){s, k} : (struct str){"\xef\xbf\xbd", 3};
    return MAX(k, (size_t)1);
}

/* normalize_spm where characters change too. */
static kg_status normalize_mapped(const struct kg_tokenizer *tok, const char *text, size_t n, bool prefix, struct buf *out)
{
    const bool squeeze = tok->remove_extra_whitespaces;
    struct str to;
    size_t i = 0, k;
    for (; squeeze && i < n; i += k) {
        k = spm_prefix(tok, text + i, n - i, &to);
        if (to.len != 1 || to.ptr[0] != ' ') break;
    }
    if (i == n) return KG_OK;
    if (prefix) KG_TRY(buf_append(out, " ", 1));
    bool after_space = squeeze;
    for (; i < n; i += k) {
        k = spm_prefix(tok, text + i, n - i, &to);
        while (after_space && to.len > 0 && to.ptr[0] == ' ') to.ptr++, to.len--;
        if (to.len == 0) continue;
        const bool mark = to.len == 3 && memcmp(to.ptr, "\xe2\x96\x81", 3) == 0; /* looks like a space from here on, but none goes with it */
        KG_TRY(buf_append(out, mark ? " " : to.ptr, mark ? 1 : to.len));
        after_space = squeeze && !mark && to.ptr[to.len - 1] == ' ';
    }
    while (squeeze && out->len > 0 && out->data[out->len - 1] == ' ') out->len--;
    return KG_OK;
}

static kg_status encode_mapped(struct encoder *e, const char *text, size_t n, bool prefix)
{
    struct buf b = {0};
    kg_status status = normalize_mapped(e->tok, text, n, prefix, &b);
    /* in one piece: single precision sums depend on what came before */
    if (status == KG_OK) status = encoder_word(e, b.data, b.len);
    buf_free(&b);
    return status;
}

static kg_status encode_spm(struct encoder *e, const char *text, size_t n, bool prefix)
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

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

static bool strips_after(const struct kg_tokenizer *tok, int32_t id)
{
    const char *text = tok->tokens[id].text;
    return tok->strip_after_special && strcmp(text, "<unk>") != 0 && strcmp(text, "<s>") != 0 && strcmp(text, "<|endoftext|>") != 0;
}

static kg_status encode_between(struct encoder *e, const char *text, size_t n, bool first, bool after_special)
{
    const struct kg_tokenizer *tok = e->tok;
    const bool prefix = after_special && tok->add_space_prefix;
    if (n == 0) return KG_OK;
    if (tok->kind == TOKENIZER_BPE) return encode_bpe(e, text, n, first);
    if (tok->kind == TOKENIZER_RWKV) return encode_longest(e, text, n);
    if (tok->steps) return encode_characters(e, text, n, first);
    if (tok->kind == TOKENIZER_UGM || tok->charsmap.n_units > 0) return encode_mapped(e, text, n, prefix);
    return encode_spm(e, text, n, prefix);
}

static bool is_word_char(uint32_t c)
{
    return c == '_' || (c > ' ' && c != 0xfffd && !unicode_is_space(c) && !unicode_is_punctuation(c) && !unicode_is_control(c));
}

/* White space at the end of text[from..to): where it begins. */
static size_t space_before(const char *text, size_t from, size_t to)
{
    while (to > from) {
        size_t k = 1;
        uint32_t c = 0xfffd;
        while (k < 4 && k < to - from && ((uint8_t)text[to - k] & 0xc0) == 0x80) k++;
        if (utf8_decode((const uint8_t *)text + to - k, k, &c) != k || !unicode_is_space(c)) break;
        to -= k;
    }
    return to;
}

static size_t space_after(const char *text, size_t n, size_t i)
{
    for (size_t k; i < n; i += k) {
        uint32_t c = 0xfffd;
        k = utf8_decode((const uint8_t *)text + i, n - i, &c);
        if (k == 0 || !unicode_is_space(c)) break;
    }
    return i;
}

/* Whether neither side of text[start..end) is part of a word. */
static bool stands_alone(const char *text, size_t n, size_t start, size_t end)
{
    uint32_t before = ' ', after = ' ';
    size_t k = 1;
    while (k < 4 && k < start && ((uint8_t)text[start - k] & 0xc0) == 0x80) k++;
    if (start > 0) utf8_decode((const uint8_t *)text + start - k, k, &before);
    if (end < n) utf8_decode((const uint8_t *)text + end, n - end, &after);
    return !is_word_char(before) && !is_word_char(after);
}

/* The next special token at or after i, its place in *start; -1: none. */
static int32_t find_special(const struct kg_tokenizer *tok, const struct specials *set, const char *text, size_t n, size_t i, size_t *start)
{
    for (*start = n; set->n > 0 && i < n; i++) {
        if (set->first[(uint8_t)text[i]] == set->first[(uint8_t)text[i] + 1]) continue;
        const int32_t id = special_at(tok, set, text + i, n - i);
        if (id < 0) continue;
        if (tok->tokens[id].around & AROUND_WORD && !stands_alone(text, n, i, i + tok->tokens[id].text_len)) continue;
        *start = i;
        return id;
    }
    return -1;
}

static kg_status encode(struct encoder *e, const char *text, size_t n, bool specials)
{
    static const struct specials none;
    const struct kg_tokenizer *tok = e->tok;
    const struct specials *set = specials ? &tok->control : tok->symbols_inside ? &none : &tok->user;
    bool after_special = true; /* a text's start counts as well: SentencePiece puts its space there */
    for (size_t done = 0, i; done < n;) {
        const int32_t id = find_special(tok, set, text, n, done, &i);
        const struct token *t = id >= 0 ? &tok->tokens[id] : NULL;
        const size_t end = t && t->around & AROUND_LEFT ? space_before(text, done, i) : i;
        KG_TRY(encode_between(e, text + done, end - done, done == 0, after_special));
        done = i;
        if (!t) break;
        KG_TRY(encoder_push(e, id));
        after_special = true;
        done += t->text_len;
        while (done < n && strips_after(tok, id) && is_space(text[done])) done++;
        if (t->around & AROUND_RIGHT) done = space_after(text, n, done);
    }
    return KG_OK;
}

static kg_status push_all(struct encoder *e, const int32_t *ids, int n)
{
    for (int i = 0; i < n; i++) KG_TRY(encoder_push(e, ids[i]));
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
    if (status == KG_OK && flags & KG_TOKENIZE_BOS) status = push_all(&e, tok->before, tok->n_before);
    if (status == KG_OK) status = encode(&e, text, text_len, flags & KG_TOKENIZE_SPECIAL);
    if (status == KG_OK && flags & KG_TOKENIZE_BOS) status = push_all(&e, tok->after, tok->n_after);
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
