/* Reads rwkv_vocab_v20230424.txt and its like, the vocabularies of RWKV World: a line has an id, a literal of Python, '...' or b'...', and its length in
 * bytes. GGUF has the bytes as Python writes them in a literal of bytes. */
#include "file/safetensors.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_WORDS = 1 << 20, NORMAL = 1, CONTROL = 3, UNUSED = 5, MAX_BYTES = 1 << 16 };

struct word {
    size_t at, len; /* in bytes.data */
    bool there;
};

struct world {
    struct buf bytes;
    struct word *words; /* [n] */
    size_t n, cap;
};

struct line {
    const uint8_t *p, *end;
};

static kg_status number(struct line *l, uint32_t *out)
{
    const uint8_t *start = l->p;
    for (*out = 0; l->p < l->end && *l->p >= '0' && *l->p <= '9' && *out < MAX_WORDS; l->p++) *out = *out * 10 + (uint32_t)(*l->p - '0');
    return l->p > start ? KG_OK : status_set(KG_ERR_FORMAT, "a number is missing");
}

static kg_status space(struct line *l)
{
    if (l->p == l->end || *l->p != ' ') return status_set(KG_ERR_FORMAT, "a space is missing");
    l->p++;
    return KG_OK;
}

/* n hexadecimal digits. */
static kg_status hex(struct line *l, int n, uint32_t *out)
{
    for (*out = 0; n > 0; n--, l->p++) {
        const int c = l->p < l->end ? *l->p : 0, low = c | 32;
        if (!((c >= '0' && c <= '9') || (low >= 'a' && low <= 'f'))) return status_set(KG_ERR_FORMAT, "an escape is cut off");
        *out = *out << 4 | (uint32_t)(c <= '9' ? c - '0' : low - 'a' + 10);
    }
    return KG_OK;
}

static kg_status put_character(struct buf *out, uint32_t c)
{
    const char b[4] = {(char)(c < 0x80 ? c : c < 0x800 ? 0xc0 | c >> 6 : c < 0x10000 ? 0xe0 | c >> 12 : 0xf0 | c >> 18),
                       (char)(c < 0x800 ? 0x80 | (c & 63) : c < 0x10000 ? 0x80 | (c >> 6 & 63) : 0x80 | (c >> 12 & 63)),
                       (char)(c < 0x10000 ? 0x80 | (c & 63) : 0x80 | (c >> 6 & 63)), (char)(0x80 | (c & 63))};
    if (c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) return status_set(KG_ERR_FORMAT, "an escape is no character");
    return buf_append(out, b, c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4);
}

/* Behind the backslash. */
static kg_status escape(struct line *l, bool bytes, struct buf *out)
{
    static const char from[] = "tnr\\'\"abfv0", to[] = "\t\n\r\\'\"\a\b\f\v";
    const char c = l->p < l->end ? (char)*l->p++ : 0;
    const char *known = c ? strchr(from, c) : NULL;
    uint32_t v;
    if (c == 'x' || (!bytes && (c == 'u' || c == 'U'))) {
        KG_TRY(hex(l, c == 'x' ? 2 : c == 'u' ? 4 : 8, &v));
        return bytes ? buf_append(out, &(char){(char)v}, 1) : put_character(out, v);
    }
    if (!known) return status_set(KG_ERR_FORMAT, "an escape is not known");
    if (c == '0' && l->p < l->end && *l->p >= '0' && *l->p <= '7') return status_set(KG_ERR_UNSUPPORTED, "octal escapes are not supported");
    return buf_append(out, &to[known - from], 1);
}

static kg_status literal(struct line *l, struct buf *out)
{
    const bool bytes = l->p < l->end && *l->p == 'b';
    l->p += bytes;
    const uint8_t quote = l->p < l->end ? *l->p++ : 0;
    if (quote != '\'' && quote != '"') return status_set(KG_ERR_FORMAT, "a literal is missing");
    while (l->p < l->end && *l->p != quote) {
        const uint8_t c = *l->p++;
        if (c == '\\') KG_TRY(escape(l, bytes, out));
        else KG_TRY(buf_append(out, &(char){(char)c}, 1));
    }
    if (l->p == l->end) return status_set(KG_ERR_FORMAT, "a literal does not end");
    l->p++;
    return KG_OK;
}

static kg_status read_line(struct world *w, struct line l)
{
    uint32_t id, len;
    KG_TRY(number(&l, &id));
    KG_TRY(space(&l));
    const size_t at = w->bytes.len;
    KG_TRY(literal(&l, &w->bytes));
    KG_TRY(space(&l));
    KG_TRY(number(&l, &len));
    if (l.p != l.end || w->bytes.len - at != len || len == 0 || len > MAX_BYTES) return status_set(KG_ERR_FORMAT, "the length is not that of the literal");
    if (id == 0 || id >= MAX_WORDS || id < w->n) return status_set(KG_ERR_FORMAT, "ids do not rise from 1 on");
    if (id >= w->cap) {
        const size_t cap = MAX((size_t)id + 1, 2 * w->cap);
        struct word *words = realloc(w->words, cap * sizeof *words);
        if (!words) return status_set(KG_ERR_MEMORY, "out of memory for a vocabulary");
        memset(words + w->cap, 0, (cap - w->cap) * sizeof *words);
        w->words = words;
        w->cap = cap;
    }
    w->words[id] = (struct word){at, len, true};
    w->n = (size_t)id + 1;
    return KG_OK;
}

static kg_status read_lines(struct world *w, const uint8_t *p, size_t n_bytes)
{
    const uint8_t *end = n_bytes ? p + n_bytes : p; /* p may be NULL */
    for (int line = 1; p < end; line++) {
        const uint8_t *stop = memchr(p, '\n', (size_t)(end - p));
        if (!stop) stop = end;
        const kg_status st = read_line(w, (struct line){p, stop > p && stop[-1] == '\r' ? stop - 1 : stop});
        if (st != KG_OK) return status_prefix(st, "line %d", line);
        p = stop + (stop < end);
    }
    return w->n > 0 ? KG_OK : status_set(KG_ERR_FORMAT, "has no tokens");
}

/* As Python writes bytes: within ', unless there are ' and no ". */
static kg_status put_text(struct meta_out *o, struct buf *text, const char *s, size_t n)
{
    const bool both = memchr(s, '\'', n) && memchr(s, '"', n);
    text->len = 0;
    for (size_t i = 0; i < n; i++) {
        const uint8_t c = (uint8_t)s[i];
        char e[5];
        int len = 0;
        if (c == '\\' || (c == '\'' && both)) len = snprintf(e, sizeof e, "\\%c", c);
        else if (c == '\t' || c == '\n' || c == '\r') len = snprintf(e, sizeof e, "\\%c", c == '\t' ? 't' : c == '\n' ? 'n' : 'r');
        else if (c >= ' ' && c < 0x7f) len = snprintf(e, sizeof e, "%c", c);
        else len = snprintf(e, sizeof e, "\\x%02x", c);
        KG_TRY(buf_append(text, e, (size_t)len));
    }
    meta_out_item(o, text->data, text->len);
    return KG_OK;
}

static kg_status put(struct meta_out *o, const struct world *w, size_t n)
{
    struct buf text = {0};
    kg_status st = KG_OK;
    size_t twice = 0; /* the token of an empty line, which ends a turn in a conversation */
    meta_out_str(o, "tokenizer.ggml.model", "rwkv", 4);
    meta_out_array(o, "tokenizer.ggml.tokens", META_STR, n);
    meta_out_item(o, "<s>", 3);
    for (size_t i = 1; i < n && st == KG_OK; i++) {
        const struct word word = i < w->n ? w->words[i] : (struct word){0};
        char pad[32];
        if (word.there) st = put_text(o, &text, w->bytes.data + word.at, word.len);
        else meta_out_item(o, pad, (size_t)snprintf(pad, sizeof pad, "[PAD%zu]", i));
        if (word.there && word.len == 2 && memcmp(w->bytes.data + word.at, "\n\n", 2) == 0) twice = i;
    }
    meta_out_array(o, "tokenizer.ggml.token_type", META_I32, n);
    for (size_t i = 0; i < n; i++) meta_out_bytes(o, &(int32_t){i == 0 ? CONTROL : i < w->n && w->words[i].there ? NORMAL : UNUSED}, 4);
    meta_out_u32(o, "tokenizer.ggml.bos_token_id", 0);
    meta_out_u32(o, "tokenizer.ggml.eos_token_id", 0);
    if (twice > 0) meta_out_u32(o, "tokenizer.ggml.eot_token_id", (uint32_t)twice);
    buf_free(&text);
    return st;
}

kg_status rwkv_vocab_read(struct meta_out *o, const uint8_t *p, size_t n_bytes, uint32_t n_vocab)
{
    struct world w = {0};
    kg_status st = read_lines(&w, p, n_bytes);
    if (st == KG_OK && n_vocab > 0 && w.n > n_vocab) st = status_set(KG_ERR_FORMAT, "has %zu tokens, the model %" PRIu32, w.n, n_vocab);
    if (st == KG_OK) st = put(o, &w, MAX(w.n, (size_t)n_vocab));
    if (st == KG_OK) st = o->status;
    buf_free(&w.bytes);
    free(w.words);
    return st;
}
