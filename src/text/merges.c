/* Owns the byte alphabet of byte-level BPE and the table of its merges: the pair of two symbols gives its rank and the
 * symbol that it becomes. */
#include "text/tokenizer.h"
#include "text/utf8.h"

/* GPT-2's alphabet (Radford et al. 2019): printable bytes of Latin-1 stand for themselves, the others are 256, 257, ... */
static int byte_of_char(uint32_t code)
{
    if ((code >= 33 && code <= 126) || (code >= 161 && code <= 172) || (code >= 174 && code <= 255)) return (int)code;
    if (code < 256 || code > 256 + 67) return -1;
    uint32_t k = code - 256; /* among bytes 0..32, 127..160, 173 */
    return k <= 32 ? (int)k : k <= 66 ? (int)(127 + k - 33) : 173;
}

size_t bytelevel_char(uint8_t byte, char out[2])
{
    unsigned code = byte;
    if (byte_of_char(code) < 0) code = 256 + (byte <= 32 ? byte : byte <= 160 ? byte - 127u + 33 : 67);
    if (code < 128) {
        out[0] = (char)code;
        return 1;
    }
    out[0] = (char)(0xc0 | code >> 6);
    out[1] = (char)(0x80 | (code & 63));
    return 2;
}

size_t bytelevel_decode(const char *text, size_t n, char *out, bool *exact)
{
    const uint8_t *s = (const uint8_t *)text;
    size_t len = 0;
    for (size_t i = 0; i < n;) {
        uint32_t code = 0;
        size_t k = utf8_decode(s + i, n - i, &code);
        int byte = k ? byte_of_char(code) : -1;
        if (byte >= 0) {
            out[len++] = (char)byte;
        } else {
            *exact = false;
            if (k == 0) k = 1;
            memcpy(out + len, text + i, k);
            len += k;
        }
        i += k;
    }
    return len;
}

/* While merges are read: the symbols that are no tokens. */
struct loader {
    struct kg_tokenizer *tok;
    struct strmap extra;
    uint32_t n_symbols;
    char *room; /* for their texts */
    size_t room_left;
};

enum { EXTRA_SYMBOLS = 65536 }; /* besides one for each token: no honest file comes near */

static kg_status symbol_of(struct loader *l, const char *s, size_t n, uint32_t *symbol)
{
    struct kg_tokenizer *tok = l->tok;
    *symbol = strmap_find(&tok->by_bytes, s, n);
    if (*symbol == SYMBOL_NONE) *symbol = strmap_find(&l->extra, s, n);
    if (*symbol != SYMBOL_NONE) return KG_OK;
    if (l->extra.n >= (size_t)tok->n_vocab + EXTRA_SYMBOLS)
        return status_set(KG_ERR_FORMAT, "tokenizer.ggml.merges names more than %zu texts that are not in tokenizer.ggml.tokens",
                          l->extra.n);
    if (n > l->room_left) {
        size_t size = MAX(n, (size_t)16384);
        l->room = arena_alloc(&tok->arena, size);
        if (!l->room) return KG_ERR_MEMORY;
        l->room_left = size;
    }
    memcpy(l->room, s, n);
    KG_TRY(strmap_add(&l->extra, l->room, n, l->n_symbols));
    *symbol = l->n_symbols++;
    l->room += n;
    l->room_left -= n;
    return KG_OK;
}

static void add_merge(struct kg_tokenizer *tok, struct merge_slot merge)
{
    size_t i = merge_hash(merge.left, merge.right) & tok->merge_mask;
    for (;; i = (i + 1) & tok->merge_mask) {
        struct merge_slot *slot = &tok->merges[i];
        if (slot->left == merge.left && slot->right == merge.right) return; /* the first one wins */
        if (slot->left != SYMBOL_NONE) continue;
        *slot = merge;
        return;
    }
}

static kg_status read_merge(struct loader *l, struct str s, uint32_t rank, struct buf *scratch)
{
    const char *space = s.len > 2 ? memchr(s.ptr + 1, ' ', s.len - 2) : NULL;
    if (!space) return status_set(KG_ERR_FORMAT, "tokenizer.ggml.merges: item %u is not two texts with a space between", rank);
    size_t n_left = (size_t)(space - s.ptr), n_right = s.len - n_left - 1;
    scratch->len = 0;
    KG_TRY(buf_append(scratch, s.ptr, s.len));
    bool exact = true;
    char *text = scratch->data;
    size_t left_len, right_len;
    if (l->tok->kind == TOKENIZER_SPM && l->tok->steps) {
        left_len = n_left;
        right_len = s.len - n_left - 1;
        memcpy(text, s.ptr, n_left);
        memcpy(text + n_left, space + 1, right_len);
    } else if (l->tok->kind == TOKENIZER_SPM) {
        bool spaces = false;
        left_len = spm_decode(s.ptr, n_left, text, &spaces);
        right_len = spm_decode(space + 1, n_right, text + left_len, &spaces);
    } else {
        left_len = bytelevel_decode(s.ptr, n_left, text, &exact);
        right_len = bytelevel_decode(space + 1, n_right, text + left_len, &exact);
    }
    if (!exact) return KG_OK; /* holds a character that no byte becomes: can never apply */
    struct merge_slot merge = {.rank = rank};
    KG_TRY(symbol_of(l, text, left_len, &merge.left));
    KG_TRY(symbol_of(l, text + left_len, right_len, &merge.right));
    const size_t mark = MIN(l->tok->inner_prefix.len, right_len); /* the result is marked only where its left part is */
    memmove(text + left_len, text + left_len + mark, right_len - mark);
    KG_TRY(symbol_of(l, text, left_len + right_len - mark, &merge.result));
    add_merge(l->tok, merge);
    return KG_OK;
}

kg_status merges_load(struct kg_tokenizer *tok, const struct file *f)
{
    const struct meta *m;
    bool bytes = tok->kind == TOKENIZER_BPE;
    KG_TRY(file_get_arr(f, bytes || !file_meta(f, "kagari.bpe_merges") ? "tokenizer.ggml.merges" : "kagari.bpe_merges", META_STR, &m, NULL));
    if (m->n > INT32_MAX) return status_set(KG_ERR_UNSUPPORTED, "tokenizer.ggml.merges has more than %d items", INT32_MAX);
    size_t n_slots = 64;
    while (n_slots * 2 < m->n * 3) n_slots *= 2;
    tok->merges = arena_array(&tok->arena, n_slots, sizeof *tok->merges);
    if (!tok->merges) return KG_ERR_MEMORY;
    tok->merge_mask = n_slots - 1;
    for (size_t i = 0; i < n_slots; i++) tok->merges[i].left = SYMBOL_NONE;

    struct loader l = {.tok = tok, .n_symbols = (uint32_t)tok->n_vocab};
    struct buf scratch = {0};
    kg_status status = strmap_init(&l.extra, 256, tok->by_bytes.seed);
    for (int b = 0; b < 256 && bytes && status == KG_OK; b++) status = symbol_of(&l, &(char){(char)b}, 1, &tok->byte_symbol[b]);
    for (uint32_t i = 0; i < m->n && status == KG_OK; i++) status = read_merge(&l, m->strings[i], i, &scratch);
    strmap_free(&l.extra);
    buf_free(&scratch);
    return status;
}
