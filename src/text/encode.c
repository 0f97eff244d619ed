/* From a word to ids: pairs of neighbouring symbols are merged, best rank first, leftmost on ties, until none can be.
 * Both kinds of tokenizer run here; they differ in how a pair finds its rank. Short words are merged by scanning all
 * pairs, long ones with a heap, so that time stays O(n log n). Ids of short words are kept in a cache that lives
 * as long as one call. */
#include "text/tokenizer.h"
#include "text/utf8.h"

#include <stdlib.h>

enum { SHORT_WORD = 40, /* symbols */ CACHE_SLOTS = 4096, CACHE_IDS = 3, CACHE_BYTES = 16 };

struct symbol {
    uint32_t start, len; /* bytes of the word; len 0: merged into another */
    uint32_t id;
    uint32_t prev, next; /* UINT32_MAX: none */
};

struct bond { /* of a symbol with its right neighbour */
    uint32_t rank, result;
};

struct heap_item {
    uint32_t rank, left, right, len; /* symbols, and bytes of both: tells whether either has changed since */
    uint32_t result;
};

struct word_cache {
    struct cached_word {
        uint64_t key[2];
        int32_t ids[CACHE_IDS];
        uint8_t len, n;
    } slots[CACHE_SLOTS];
};

kg_status encoder_grow(void **items, size_t *cap, size_t need, size_t item_bytes)
{
    if (need <= *cap) return KG_OK;
    size_t n = MAX(need, *cap + *cap / 2 + 64);
    void *p = n <= SIZE_MAX / item_bytes ? realloc(*items, n * item_bytes) : NULL;
    if (!p) return status_set(KG_ERR_MEMORY, "out of memory for tokenizing");
    *items = p;
    *cap = n;
    return KG_OK;
}

kg_status encoder_push(struct encoder *e, int32_t id)
{
    if (e->n == e->cap) KG_TRY(encoder_grow((void **)&e->ids, &e->cap, e->n + 1, sizeof *e->ids));
    e->ids[e->n++] = id;
    e->after_unknown = false;
    return KG_OK;
}

kg_status encoder_use_cache(struct encoder *e)
{
    e->cache = calloc(1, sizeof *e->cache);
    return e->cache ? KG_OK : status_set(KG_ERR_MEMORY, "out of memory for tokenizing");
}

void encoder_free(struct encoder *e)
{
    free(e->cache);
    free(e->symbols);
    free(e->heap);
    free(e->path);
}

kg_status encoder_unknown(struct encoder *e, uint8_t byte)
{
    const struct kg_tokenizer *tok = e->tok;
    e->n_unknown++;
    if (e->after_unknown) return KG_OK;
    bool replace = tok->n_replacement > 0 && (tok->kind == TOKENIZER_BPE || tok->unk < 0);
    if (!replace && tok->unk < 0)
        return status_set(KG_ERR_UNSUPPORTED, "the vocabulary has no token for byte 0x%02X, for U+FFFD or for the unknown", byte);
    if (!replace) KG_TRY(encoder_push(e, tok->unk));
    for (int i = 0; replace && i < tok->n_replacement; i++) KG_TRY(encoder_push(e, tok->replacement[i]));
    e->after_unknown = true;
    return KG_OK;
}

static bool has_marks(const struct kg_tokenizer *tok) { return tok->word_suffix.len > 0 || tok->inner_prefix.len > 0; }

static bool has_byte_tokens(const struct kg_tokenizer *tok, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (tok->byte_symbol[(uint8_t)s[i]] == SYMBOL_NONE) return false;
    return true;
}

static kg_status push_symbol(struct encoder *e, const char *word, const struct symbol *s)
{
    const struct kg_tokenizer *tok = e->tok;
    uint32_t id = s->id;
    if (id == SYMBOL_NONE) id = strmap_find(&tok->by_bytes, word + s->start, s->len);
    if (id < (uint32_t)tok->n_vocab) return encoder_push(e, (int32_t)id);
    if (tok->steps && tok->kind == TOKENIZER_SPM) { /* all of its bytes or none */
        if (tok->split_unknown) e->after_unknown = false;
        if (!has_byte_tokens(tok, word + s->start, s->len)) return encoder_unknown(e, (uint8_t)word[s->start]);
    }
    if (has_marks(tok) && tok->kind == TOKENIZER_BPE) return tok->unk >= 0 ? encoder_push(e, tok->unk) : encoder_unknown(e, (uint8_t)word[s->start]);
    for (uint32_t i = 0; i < s->len; i++) {
        uint8_t byte = (uint8_t)word[s->start + i];
        uint32_t b = tok->byte_symbol[byte];
        if (b < (uint32_t)tok->n_vocab)
            KG_TRY(encoder_push(e, (int32_t)b));
        else
            KG_TRY(encoder_unknown(e, byte));
    }
    return KG_OK;
}

/* a and b are neighbours. */
static inline struct bond find_bond(const struct kg_tokenizer *tok, const char *word, const struct symbol *a, const struct symbol *b)
{
    if (!tok->merges) {
        uint32_t len = a->len + b->len;
        uint32_t id = len <= tok->max_bytes ? strmap_find(&tok->by_bytes, word + a->start, len) : SYMBOL_NONE;
        return id == SYMBOL_NONE ? (struct bond){RANK_NONE, 0} : (struct bond){tok->tokens[id].rank, id};
    }
    if (a->id == SYMBOL_NONE || b->id == SYMBOL_NONE) return (struct bond){RANK_NONE, 0}; /* a character without a token */
    size_t i = merge_hash(a->id, b->id) & tok->merge_mask;
    for (;; i = (i + 1) & tok->merge_mask) {
        const struct merge_slot *slot = &tok->merges[i];
        if (slot->left == a->id && slot->right == b->id) return (struct bond){slot->rank, slot->result};
        if (slot->left == SYMBOL_NONE) return (struct bond){RANK_NONE, 0};
    }
}

/* The first symbols of a word: bytes, or characters where merges look at texts. out holds n. Returns their number. */
static size_t first_symbols(const struct kg_tokenizer *tok, const char *word, size_t n, struct symbol *out)
{
    size_t count = 0;
    for (size_t i = 0; i < n;) {
        size_t k = 1;
        uint32_t id = SYMBOL_NONE;
        if (tok->kind == TOKENIZER_BPE)
            id = tok->byte_symbol[(uint8_t)word[i]];
        else if ((word[i] & 0x80) && (k = utf8_char((const uint8_t *)word + i, n - i)) == 0)
            k = 1;
        if (tok->merges && tok->kind == TOKENIZER_SPM) id = strmap_find(&tok->by_bytes, word + i, k);
        if (tok->steps && tok->kind == TOKENIZER_SPM && id == SYMBOL_NONE && tok->unk < 0 && !has_byte_tokens(tok, word + i, k)) {
            i += k; /* without an unknown token it is as if the character were not there: what stood around it may merge */
            continue;
        }
        out[count] = (struct symbol){(uint32_t)i, (uint32_t)k, id, (uint32_t)count - 1, (uint32_t)count + 1};
        count++;
        i += k;
    }
    if (count > 0) out[count - 1].next = UINT32_MAX;
    return count;
}

static kg_status merge_short(struct encoder *e, const char *word, struct symbol *s, size_t n)
{
    struct bond bonds[SHORT_WORD];
    for (size_t i = 0; i + 1 < n; i++) bonds[i] = find_bond(e->tok, word, &s[i], &s[i + 1]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (bonds[i].rank < bonds[best].rank) best = i;
        if (bonds[best].rank == RANK_NONE) break;
        s[best].len += s[best + 1].len;
        s[best].id = bonds[best].result;
        n--;
        memmove(&s[best + 1], &s[best + 2], (n - best - 1) * sizeof *s);
        if (best + 1 < n) {
            memmove(&bonds[best], &bonds[best + 1], (n - best - 1) * sizeof *bonds);
            bonds[best] = find_bond(e->tok, word, &s[best], &s[best + 1]);
        }
        if (best > 0) bonds[best - 1] = find_bond(e->tok, word, &s[best - 1], &s[best]);
    }
    for (size_t i = 0; i < n; i++) KG_TRY(push_symbol(e, word, &s[i]));
    return KG_OK;
}

static inline bool heap_before(const struct heap_item *a, const struct heap_item *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->left < b->left;
}

static kg_status heap_push(struct encoder *e, const char *word, uint32_t left, uint32_t right)
{
    const struct symbol *s = e->symbols;
    if (left == UINT32_MAX || right == UINT32_MAX) return KG_OK;
    struct bond bond = find_bond(e->tok, word, &s[left], &s[right]);
    if (bond.rank == RANK_NONE) return KG_OK;
    KG_TRY(encoder_grow((void **)&e->heap, &e->heap_cap, e->heap_n + 1, sizeof *e->heap));
    struct heap_item item = {bond.rank, left, right, s[left].len + s[right].len, bond.result};
    size_t i = e->heap_n++;
    for (; i > 0 && heap_before(&item, &e->heap[(i - 1) / 2]); i = (i - 1) / 2) e->heap[i] = e->heap[(i - 1) / 2];
    e->heap[i] = item;
    return KG_OK;
}

static struct heap_item heap_pop(struct encoder *e)
{
    struct heap_item *h = e->heap, top = h[0], last = h[--e->heap_n];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < e->heap_n; i = child) {
        if (child + 1 < e->heap_n && heap_before(&h[child + 1], &h[child])) child++;
        if (!heap_before(&h[child], &last)) break;
        h[i] = h[child];
    }
    h[i] = last;
    return top;
}

static kg_status merge_long(struct encoder *e, const char *word, size_t n)
{
    struct symbol *s = e->symbols;
    e->heap_n = 0;
    if (n == 0) return KG_OK;
    for (uint32_t i = 0; i + 1 < n; i++) KG_TRY(heap_push(e, word, i, i + 1));
    while (e->heap_n > 0) {
        struct heap_item item = heap_pop(e);
        struct symbol *a = &s[item.left], *b = &s[item.right];
        /* symbols only grow or vanish: equal bytes mean that neither has changed */
        if (a->len == 0 || b->len == 0 || a->len + b->len != item.len) continue;
        a->len = item.len;
        a->id = item.result;
        a->next = b->next;
        b->len = 0;
        if (a->next != UINT32_MAX) s[a->next].prev = item.left;
        KG_TRY(heap_push(e, word, a->prev, item.left));
        KG_TRY(heap_push(e, word, item.left, a->next));
    }
    for (uint32_t i = 0; i != UINT32_MAX; i = s[i].next) KG_TRY(push_symbol(e, word, &s[i]));
    return KG_OK;
}

static size_t put_mark(char *out, struct str mark)
{
    if (mark.len > 0) memcpy(out, mark.ptr, mark.len);
    return mark.len;
}

/* With the marks that first symbols have; merges keep that of the last symbol and drop those between. */
static kg_status encode_marked(struct encoder *e, const char *word, size_t n)
{
    const struct kg_tokenizer *tok = e->tok;
    const size_t most = 1 + tok->inner_prefix.len;
    char *marked = n <= (UINT32_MAX - tok->word_suffix.len) / most ? malloc(n * most + tok->word_suffix.len) : NULL;
    size_t len = 0, count = 0;
    kg_status st = marked ? KG_OK : status_set(KG_ERR_MEMORY, "out of memory for tokenizing");
    if (st == KG_OK) st = encoder_grow((void **)&e->symbols, &e->symbols_cap, n, sizeof *e->symbols);
    for (size_t i = 0, k; i < n && st == KG_OK; i += k) {
        const size_t start = len;
        k = tok->kind == TOKENIZER_BPE ? 1 : MAX(utf8_char((const uint8_t *)word + i, n - i), (size_t)1);
        if (i > 0) len += put_mark(marked + len, tok->inner_prefix);
        memcpy(marked + len, word + i, k);
        len += k;
        if (i + k == n) len += put_mark(marked + len, tok->word_suffix);
        const uint32_t id = strmap_find(&tok->by_bytes, marked + start, len - start);
        if (id == SYMBOL_NONE && tok->unk < 0 && !has_byte_tokens(tok, marked + start, len - start)) {
            len = start; /* as first_symbols has it */
            continue;
        }
        e->symbols[count] = (struct symbol){(uint32_t)start, (uint32_t)(len - start), id, (uint32_t)count - 1, (uint32_t)count + 1};
        count++;
    }
    if (count > 0) e->symbols[count - 1].next = UINT32_MAX;
    if (st == KG_OK) st = merge_long(e, marked, count);
    free(marked);
    return st;
}

static kg_status encode_word(struct encoder *e, const char *word, size_t n)
{
    const struct kg_tokenizer *tok = e->tok;
    if (tok->kind == TOKENIZER_WPM) return encode_wordpiece(e, word, n);
    if (tok->kind == TOKENIZER_UGM) return encode_unigram(e, word, n);
    if (tok->kind == TOKENIZER_RWKV) return encode_longest(e, word, n);
    if (tok->ignore_merges || (n == 1 && !has_marks(tok))) {
        uint32_t id = strmap_find(&tok->by_bytes, word, n);
        if (id != SYMBOL_NONE) return encoder_push(e, (int32_t)id);
    }
    if (has_marks(tok)) return encode_marked(e, word, n);
    if (n <= SHORT_WORD) {
        struct symbol s[SHORT_WORD];
        return merge_short(e, word, s, first_symbols(tok, word, n, s));
    }
    KG_TRY(encoder_grow((void **)&e->symbols, &e->symbols_cap, n, sizeof *e->symbols));
    return merge_long(e, word, first_symbols(tok, word, n, e->symbols));
}

/* Up to 16 bytes as two words: together with n they tell the text. */
static inline void word_key(const char *s, size_t n, uint64_t key[2])
{
    if (n >= 8) {
        key[0] = load_u64(s);
        key[1] = load_u64(s + n - 8);
    } else if (n >= 4) {
        key[0] = load_u32(s);
        key[1] = load_u32(s + n - 4);
    } else {
        key[0] = (uint8_t)s[0] | (uint64_t)(uint8_t)s[n / 2] << 8;
        key[1] = (uint8_t)s[n - 1];
    }
}

kg_status encoder_word(struct encoder *e, const char *word, size_t n)
{
    if (n == 0) return KG_OK;
    if (!e->cache || n > CACHE_BYTES) return encode_word(e, word, n);
    uint64_t key[2];
    word_key(word, n, key);
    uint64_t hash = (key[0] ^ (key[1] << 29 | key[1] >> 35) ^ n) * 0x9e3779b97f4a7c15u;
    struct cached_word *c = &e->cache->slots[(hash ^ hash >> 27) >> 20 & (CACHE_SLOTS - 1)];
    if (c->key[0] == key[0] && c->key[1] == key[1] && c->len == n) {
        if (e->n + CACHE_IDS > e->cap) KG_TRY(encoder_grow((void **)&e->ids, &e->cap, e->n + CACHE_IDS, sizeof *e->ids));
        memcpy(e->ids + e->n, c->ids, sizeof c->ids);
        e->n += c->n;
        e->after_unknown = false;
        return KG_OK;
    }
    size_t before = e->n, unknown_before = e->n_unknown;
    KG_TRY(encode_word(e, word, n));
    size_t n_ids = e->n - before;
    if (n_ids == 0 || n_ids > CACHE_IDS || e->n_unknown != unknown_before) return KG_OK;
    *c = (struct cached_word){.key = {key[0], key[1]}, .len = (uint8_t)n, .n = (uint8_t)n_ids};
    memcpy(c->ids, e->ids + before, n_ids * sizeof *c->ids);
    return KG_OK;
}
