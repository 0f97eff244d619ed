/* From a word to ids without merges: WordPiece and Unigram. Both walk a trie of the tokens, which bounds their time by the length of a text
 * times that of the longest token. */
#include "text/tokenizer.h"
#include "text/utf8.h"

struct path { /* the best way to a place in the text */
    double score;
    uint32_t from, to; /* where its last token begins; when the way is walked, where the next one ends. UINT32_MAX: nothing leads here */
    uint32_t id;       /* SYMBOL_NONE: an unknown character */
};

static size_t n_characters(const char *s, size_t n)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++) count += ((uint8_t)s[i] & 0xc0) != 0x80;
    return count;
}

kg_status encode_wordpiece(struct encoder *e, const char *word, size_t n)
{
    const struct kg_tokenizer *tok = e->tok;
    static const char mark[] = "\xe2\x96\x81"; /* before what begins a word */
    const size_t before = e->n;
    bool known = n_characters(word, n) <= tok->max_word;
    for (size_t i = 0; i < n && known;) {
        uint32_t node = 0, best = SYMBOL_NONE;
        size_t end = i;
        for (int k = 0; i == 0 && k < 3; k++) {
            node = trie_step(&tok->trie, node, (uint8_t)mark[k]);
            if (node == 0) break;
        }
        /* a mark within a word is not one of those that begin words */
        const size_t stop = i > 0 && n - i >= 3 && memcmp(word + i, mark, 3) == 0 ? i + 3 : n;
        for (size_t k = i; k < stop && (node != 0 || i > 0); k++) {
            node = trie_step(&tok->trie, node, (uint8_t)word[k]);
            if (node == 0) break;
            if (tok->trie.nodes[node].id == UINT32_MAX) continue;
            best = tok->trie.nodes[node].id;
            end = k + 1;
        }
        known = best != SYMBOL_NONE;
        if (known) KG_TRY(encoder_push(e, (int32_t)best));
        i = end;
    }
    if (known) return KG_OK;
    e->n = before;
    e->after_unknown = false; /* each word counts */
    return encoder_unknown(e, (uint8_t)word[0]);
}

kg_status encode_longest(struct encoder *e, const char *text, size_t n)
{
    const struct trie *trie = &e->tok->trie;
    for (size_t i = 0; i < n;) {
        uint32_t node = 0, best = UINT32_MAX;
        size_t end = i + 1;
        for (size_t k = i; k < n && (node = trie_step(trie, node, (uint8_t)text[k])) != 0; k++) {
            if (trie->nodes[node].id == UINT32_MAX) continue;
            best = trie->nodes[node].id;
            end = k + 1;
        }
        KG_TRY(best != UINT32_MAX ? encoder_push(e, (int32_t)best) : encoder_unknown(e, (uint8_t)text[i]));
        i = end;
    }
    return KG_OK;
}

static inline void improve(struct path *p, double score, uint32_t from, uint32_t id, bool single)
{
    if (single) score = (double)(float)score; /* ties come out as SentencePiece's, also those that are none but for the rounding */
    if (p->from != UINT32_MAX && !(score > p->score)) return;
    *p = (struct path){score, from, 0, id};
}

static void find_paths(const struct kg_tokenizer *tok, const char *text, size_t n, struct path *path)
{
    for (size_t i = 0; i <= n; i++) path[i].from = UINT32_MAX;
    path[0] = (struct path){0};
    for (size_t i = 0, k; i < n; i += k) {
        const double here = path[i].score;
        bool single = false;
        uint32_t node = 0;
        k = MAX(utf8_char((const uint8_t *)text + i, n - i), (size_t)1);
        for (size_t j = i; j < n; j++) {
            node = trie_step(&tok->trie, node, (uint8_t)text[j]);
            if (node == 0) break;
            const uint32_t id = tok->trie.nodes[node].id;
            if (id == UINT32_MAX) continue;
            improve(&path[j + 1], tok->scores[id] + here, (uint32_t)i, id, tok->spm_sums);
            single |= j + 1 == i + k;
        }
        if (!single) improve(&path[i + k], tok->unknown_score + here, (uint32_t)i, SYMBOL_NONE, tok->spm_sums);
    }
}

/* A run of characters without tokens: all of its bytes, or one unknown token. */
static kg_status push_run(struct encoder *e, const char *s, size_t n)
{
    const uint32_t *ids = e->tok->byte_symbol;
    bool bytes = true;
    for (size_t i = 0; i < n; i++) bytes &= ids[(uint8_t)s[i]] != SYMBOL_NONE;
    if (!bytes) return encoder_unknown(e, (uint8_t)s[0]);
    for (size_t i = 0; i < n; i++) KG_TRY(encoder_push(e, (int32_t)ids[(uint8_t)s[i]]));
    return KG_OK;
}

kg_status encode_unigram(struct encoder *e, const char *text, size_t n)
{
    if (n == 0) return KG_OK;
    KG_TRY(encoder_grow((void **)&e->path, &e->path_cap, n + 1, sizeof *e->path));
    struct path *path = e->path;
    find_paths(e->tok, text, n, path);
    for (uint32_t end = (uint32_t)n; end > 0; end = path[end].from) path[path[end].from].to = end;
    for (uint32_t i = 0; i < n;) {
        uint32_t end = path[i].to;
        if (path[end].id != SYMBOL_NONE) {
            KG_TRY(encoder_push(e, (int32_t)path[end].id));
        } else {
            while (end < n && path[path[end].to].id == SYMBOL_NONE) end = path[end].to;
            KG_TRY(push_run(e, text + i, end - i));
        }
        i = end;
    }
    return KG_OK;
}
