/* WordPiece: the longest piece that the word begins with, then of the rest. Pieces that begin a word carry U+2581, as GGUF has them. */
#include "text/tokenizer.h"
#include "text/utf8.h"

#define MARK "\xe2\x96\x81"

static size_t n_characters(const char *s, size_t n)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++) count += ((uint8_t)s[i] & 0xc0) != 0x80;
    return count;
}

/* One that begins a word: behind the mark. */
static uint32_t first_piece(const struct trie *t, const char *word, size_t n, size_t *len)
{
    uint32_t node = 0, best = TRIE_NONE;
    for (int i = 0; i < 3; i++)
        if ((node = trie_next(t, node, (uint8_t)MARK[i])) == 0) return TRIE_NONE;
    for (size_t i = 0; i < n && (node = trie_next(t, node, (uint8_t)word[i])) != 0; i++) {
        if (t->nodes[node].value == TRIE_NONE) continue;
        best = t->nodes[node].value;
        *len = i + 1;
    }
    return best;
}

kg_status wordpiece_word(struct encoder *e, const char *word, size_t n)
{
    const struct kg_tokenizer *tok = e->tok;
    const size_t before = e->n;
    bool known = n_characters(word, n) <= tok->max_word_chars;
    for (size_t i = 0, len = 0; i < n && known; i += len) {
        /* within a word a mark leads to pieces that begin one, except for the mark itself */
        bool mark = i > 0 && n - i >= 3 && memcmp(word + i, MARK, 3) == 0;
        uint32_t id = i == 0 ? first_piece(&tok->pieces, word, n, &len) : trie_longest(&tok->pieces, word + i, mark ? 3 : n - i, &len);
        known = id != TRIE_NONE;
        if (known) KG_TRY(encoder_push(e, (int32_t)id));
    }
    if (known) return KG_OK;
    if (tok->unk < 0) return status_set(KG_ERR_UNSUPPORTED, "the vocabulary has no token for the unknown");
    e->n = before;
    e->n_unknown++;
    return encoder_push(e, tok->unk);
}
