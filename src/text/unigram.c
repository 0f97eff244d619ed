/* Unigram (Kudo 2018): the pieces whose scores have the largest sum, found from left to right (Viterbi). Time is linear in the text times
 * the longest piece. Ties and rounding are those of the two programs whose ids these are: sums are doubles as in `tokenizers`, or, for a
 * tokenizer.model, floats as in SentencePiece. */
#include "text/tokenizer.h"
#include "text/utf8.h"

#include <stdlib.h>

enum { UNKNOWN_PENALTY = 10 };

/* The best way to the end of a piece. */
struct path {
    double score;
    uint32_t start; /* of the last piece; UINT32_MAX: no way yet */
    uint32_t id;    /* TRIE_NONE: a character that no piece is */
};

static inline void offer(const struct kg_tokenizer *tok, struct path *to, double score, size_t start, uint32_t id)
{
    if (tok->sentencepiece) score = (double)(float)score;
    if (to->start != UINT32_MAX && !(score > to->score)) return;
    *to = (struct path){score, (uint32_t)start, id};
}

static double score_of(const struct kg_tokenizer *tok, uint32_t id, size_t len)
{
    const struct token *t = &tok->tokens[id];
    if (tok->sentencepiece && t->type == TOKEN_USER_DEFINED) return (double)((float)len * tok->max_score) - 0.1;
    return (double)t->score;
}

static void find_paths(const struct kg_tokenizer *tok, const char *s, size_t n, struct path *paths)
{
    const struct trie *t = &tok->pieces;
    const double unknown = (double)(tok->min_score - UNKNOWN_PENALTY);
    for (size_t i = 1; i <= n; i++) paths[i].start = UINT32_MAX;
    paths[0] = (struct path){0, 0, TRIE_NONE};
    for (size_t i = 0, k; i < n; i += k) {
        const double here = paths[i].score;
        bool single = false;
        k = MAX(utf8_char((const uint8_t *)s + i, n - i), (size_t)1);
        uint32_t node = 0;
        for (size_t end = i; end < n && (node = trie_next(t, node, (uint8_t)s[end])) != 0;) {
            uint32_t id = t->nodes[node].value;
            end++;
            if (id == TRIE_NONE) continue;
            offer(tok, &paths[end], score_of(tok, id, end - i) + here, i, id);
            single |= end - i == k;
        }
        if (!single) offer(tok, &paths[i + k], unknown + here, i, TRIE_NONE);
    }
}

kg_status unigram_word(struct encoder *e, const char *word, size_t n)
{
    KG_TRY(encoder_grow((void **)&e->paths, &e->paths_cap, n + 1, sizeof *e->paths));
    struct path *p = e->paths;
    find_paths(e->tok, word, n, p);
    uint32_t after = UINT32_MAX; /* turns the way round: start becomes where the next piece ends */
    for (uint32_t end = (uint32_t)n; end > 0;) {
        uint32_t start = p[end].start;
        p[end].start = after;
        after = end;
        end = start;
    }
    for (uint32_t from = 0, end = after; end != UINT32_MAX; from = end, end = p[end].start) {
        if (p[end].id != TRIE_NONE) KG_TRY(encoder_push(e, (int32_t)p[end].id));
        for (uint32_t i = from; p[end].id == TRIE_NONE && i < end; i++) KG_TRY(encoder_byte(e, (uint8_t)word[i]));
    }
    return KG_OK;
}
