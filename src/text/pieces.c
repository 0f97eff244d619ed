/* Loads what WordPiece and Unigram vocabularies have besides their tokens: special ids, the pieces as a trie, the steps before them.
 * Keys are GGUF's; the steps of a tokenizer.json come in kagari.steps, else they follow from the other keys. */
#include "text/tokenizer.h"

#include <float.h>
#include <stdlib.h>

#define S(text) {text, sizeof text - 1}
#define MARK "\xe2\x96\x81"

enum { MAX_PIECE = 1024 }; /* bytes: with the text's length it bounds the time */

static bool is_piece(const struct kg_tokenizer *tok, const struct token *t)
{
    if (tok->kind == TOKENIZER_WORDPIECE) return t->type == TOKEN_NORMAL;
    return t->type == TOKEN_NORMAL || (tok->sentencepiece && t->type == TOKEN_USER_DEFINED);
}

/* user: only those that the replacement of characters leaves alone. */
static kg_status build_trie(struct kg_tokenizer *tok, struct trie *out, bool user)
{
    struct trie_key *keys = malloc(((size_t)tok->n_vocab + 1) * sizeof *keys);
    if (!keys) return status_set(KG_ERR_MEMORY, "out of memory for a vocabulary");
    size_t n = 0;
    kg_status st = KG_OK;
    for (int32_t i = 0; i < tok->n_vocab && st == KG_OK; i++) {
        const struct token *t = &tok->tokens[i];
        if (user ? t->type != TOKEN_USER_DEFINED : !is_piece(tok, t)) continue;
        if (t->text_len > MAX_PIECE) st = status_set(KG_ERR_UNSUPPORTED, "token %d has %u bytes, %d are possible", i, t->text_len, MAX_PIECE);
        keys[n++] = (struct trie_key){t->text, t->text_len, (uint32_t)i};
    }
    if (st == KG_OK && n > 0) st = trie_build(out, &tok->arena, keys, n);
    free(keys);
    return st;
}

static void find_scores(struct kg_tokenizer *tok)
{
    tok->min_score = FLT_MAX;
    tok->max_score = -FLT_MAX;
    for (int32_t i = 0; i < tok->n_vocab; i++) {
        if (tok->tokens[i].type != TOKEN_NORMAL) continue;
        tok->min_score = MIN(tok->min_score, tok->tokens[i].score);
        tok->max_score = MAX(tok->max_score, tok->tokens[i].score);
    }
    if (tok->min_score > tok->max_score) tok->min_score = tok->max_score = 0;
}

/* A vocabulary with more than a few capital letters was made for texts that have them. */
static bool has_capitals(const struct kg_tokenizer *tok)
{
    int32_t n = 0;
    for (int32_t i = 0; i < tok->n_vocab; i++) {
        const struct token *t = &tok->tokens[i];
        bool capital = false;
        for (uint32_t k = 0; k < t->text_len && !capital && t->type == TOKEN_NORMAL; k++) capital = t->text[k] >= 'A' && t->text[k] <= 'Z';
        n += capital;
    }
    return n > tok->n_vocab / 200;
}

static kg_status default_steps(struct kg_tokenizer *tok, bool trims)
{
    static const struct str uncased[] = {S("clean"), S("ideographs"), S("nfd"), S("no_accents"), S("lower"), S("spaces"), S("punctuation")};
    static const struct str cased[] = {S("clean"), S("ideographs"), S("spaces"), S("punctuation")};
    static const struct str charsmap[] = {S("charsmap")}, trim[] = {S("trim")}, prefix[] = {S("prepend"), S(" ")}, marks[] = {S("marks")};
    struct steps *s = tok->steps;
    if (tok->kind == TOKENIZER_WORDPIECE)
        return has_capitals(tok) ? steps_load(s, &tok->arena, cased, COUNT_OF(cased)) : steps_load(s, &tok->arena, uncased, COUNT_OF(uncased));
    if (s->map.n_units > 0) KG_TRY(steps_load(s, &tok->arena, charsmap, COUNT_OF(charsmap)));
    if (trims) KG_TRY(steps_load(s, &tok->arena, trim, COUNT_OF(trim)));
    if (tok->add_space_prefix) KG_TRY(steps_load(s, &tok->arena, prefix, COUNT_OF(prefix)));
    return steps_load(s, &tok->arena, marks, COUNT_OF(marks));
}

kg_status pieces_load_charsmap(struct kg_tokenizer *tok, const struct file *f)
{
    static const struct str charsmap = S("charsmap");
    const struct meta *m = file_meta(f, "tokenizer.ggml.precompiled_charsmap");
    const bool alone = tok->kind == TOKENIZER_SPM;
    size_t used;
    if (alone && (!m || m->n == 0)) return KG_OK;
    tok->steps = arena_alloc(&tok->arena, sizeof *tok->steps);
    if (!tok->steps) return KG_ERR_MEMORY;
    if (m && m->type == META_ARR && (m->item == META_U8 || m->item == META_I8) && m->n > 0)
        KG_TRY(charsmap_load(&tok->steps->map, &tok->arena, m->data, m->n));
    else if (m && !(m->type == META_ARR && m->n == 0))
        return status_set(KG_ERR_FORMAT, "tokenizer.ggml.precompiled_charsmap is not an array of bytes");
    return alone ? steps_add(tok->steps, &tok->arena, &charsmap, 1, &used) : KG_OK;
}

static kg_status load_steps(struct kg_tokenizer *tok, const struct file *f)
{
    const struct meta *m;
    KG_TRY(pieces_load_charsmap(tok, f));
    if (tok->sentencepiece) KG_TRY(build_trie(tok, &tok->steps->kept, true));
    bool trims = tok->kind == TOKENIZER_UNIGRAM, found;
    KG_TRY(file_get_bool(f, "tokenizer.ggml.remove_extra_whitespaces", &trims, &found));
    KG_TRY(file_get_arr(f, "kagari.steps", META_STR, &m, &found));
    return found ? steps_load(tok->steps, &tok->arena, m->strings, m->n) : default_steps(tok, trims);
}

kg_status pieces_load(struct kg_tokenizer *tok, const struct file *f)
{
    bool words = tok->kind == TOKENIZER_WORDPIECE, found;
    int32_t cls, sep;
    /* what a file that does not say means, to llama.cpp: BERT's ids, and T5's */
    KG_TRY(tokenizer_load_id(tok, f, "tokenizer.ggml.cls_token_id", words ? 101 : -1, &cls));
    KG_TRY(tokenizer_load_id(tok, f, "tokenizer.ggml.seperator_token_id", words ? 102 : 1, &sep));
    KG_TRY(tokenizer_load_id(tok, f, "tokenizer.ggml.bos_token_id", cls, &tok->bos));
    KG_TRY(tokenizer_load_id(tok, f, "tokenizer.ggml.eos_token_id", sep, &tok->eos));
    KG_TRY(tokenizer_load_id(tok, f, "tokenizer.ggml.unknown_token_id", words ? 100 : 2, &tok->unk));
    tok->eot = tok->eom = -1;
    tok->add_bos = words;
    tok->add_eos = true;
    tok->add_space_prefix = true;
    tok->max_word_chars = 100;
    KG_TRY(file_get_bool(f, "tokenizer.ggml.add_bos_token", &tok->add_bos, &found));
    KG_TRY(file_get_bool(f, "tokenizer.ggml.add_eos_token", &tok->add_eos, &found));
    KG_TRY(file_get_bool(f, "tokenizer.ggml.add_space_prefix", &tok->add_space_prefix, &found));
    KG_TRY(file_get_bool(f, "kagari.sentencepiece", &tok->sentencepiece, &found));
    KG_TRY(file_get_u32(f, "kagari.max_word_chars", &tok->max_word_chars, &found));
    find_scores(tok);
    KG_TRY(build_trie(tok, &tok->pieces, false));
    return load_steps(tok, f);
}
