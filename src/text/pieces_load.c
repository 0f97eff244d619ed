/* What WordPiece and Unigram vocabularies need besides their tokens: the trie, scores, the map of characters, steps. */
#include "text/tokenizer.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

#define SPACE_MARK "\xe2\x96\x81"

enum { MAX_PIECE = 1024, MAX_WORD = 100, MAX_MARK = 32 }; /* bytes of a token, which bound the time for a text; characters of WordPiece's words; bytes of a mark */

static bool in_trie(const struct kg_tokenizer *tok, const struct token *t)
{
    if (t->text_len == 0) return false;
    if (tok->kind == TOKENIZER_UGM && !tok->steps && memchr(t->text, ' ', t->text_len)) return false; /* texts have none by then */
    if (t->type == TOKEN_NORMAL || t->type == TOKEN_UNDEFINED) return true;
    return t->type == TOKEN_USER_DEFINED && tok->symbols_inside;
}

/* With steps texts are looked up as they are; else they have spaces for marks. WordPiece: tokens keep their marks. */
static kg_status build(const struct kg_tokenizer *tok, bool user_only, struct trie *out)
{
    const bool raw = tok->steps || tok->kind == TOKENIZER_WPM;
    struct trie_item *items = malloc((size_t)tok->n_vocab * sizeof *items);
    size_t n = 0;
    kg_status st = items ? KG_OK : status_set(KG_ERR_MEMORY, "out of memory for a vocabulary");
    for (int32_t i = 0; i < tok->n_vocab && st == KG_OK; i++) {
        const struct token *t = &tok->tokens[i];
        if (user_only ? t->type != TOKEN_USER_DEFINED || t->text_len == 0 : !in_trie(tok, t)) continue;
        /* of symbols the bytes are the text itself */
        const bool marked = raw || user_only;
        items[n++] = (struct trie_item){marked ? t->text : t->bytes, marked ? t->text_len : t->bytes_len, (uint32_t)i};
        if (items[n - 1].len > MAX_PIECE)
            st = status_set(KG_ERR_UNSUPPORTED, "tokenizer.ggml.tokens: item %d has %u bytes, at most %d are supported", i, items[n - 1].len, MAX_PIECE);
    }
    if (st == KG_OK) st = trie_new(out, items, n);
    free(items);
    return st;
}

static kg_status load_scores(struct kg_tokenizer *tok, const struct file *f)
{
    const struct meta *exact = file_meta(f, "kagari.scores"), *m = exact;
    double lowest = DBL_MAX, highest = -DBL_MAX;
    if (!m) KG_TRY(file_get_arr(f, "tokenizer.ggml.scores", META_F32, &m, NULL));
    if (m->type != META_ARR || (m->item != META_F32 && m->item != META_F64) || m->n != (uint64_t)tok->n_vocab)
        return status_set(KG_ERR_FORMAT, "%s has not one number for each token", m->key);
    tok->scores = arena_array(&tok->arena, (size_t)tok->n_vocab, sizeof *tok->scores);
    if (!tok->scores) return KG_ERR_MEMORY;
    for (int32_t i = 0; i < tok->n_vocab; i++) {
        const struct token *t = &tok->tokens[i];
        const double score = file_arr_f64(m, (uint64_t)i);
        if (!isfinite(score)) return status_set(KG_ERR_FORMAT, "%s: item %d is not a finite number", m->key, i);
        tok->scores[i] = score;
        if (t->type != TOKEN_NORMAL && (!tok->steps || t->type == TOKEN_UNUSED)) continue;
        lowest = fmin(lowest, score);
        highest = fmax(highest, score);
    }
    if (lowest > highest) lowest = highest = 0;
    tok->spm_sums = tok->symbols_inside; /* as it comes with SentencePiece's own files */
    tok->unknown_score = tok->spm_sums ? (double)((float)lowest - 10.0f) : lowest - 10; /* both libraries: 10 below the worst token */
    for (int32_t i = 0; i < tok->n_vocab && tok->symbols_inside; i++) { /* so that a symbol always wins, as SentencePiece has it */
        const struct token *t = &tok->tokens[i];
        if (t->type == TOKEN_USER_DEFINED) tok->scores[i] = (double)(float)((float)t->text_len * (float)highest) - 0.1;
    }
    return KG_OK;
}

static kg_status load_charsmap(struct kg_tokenizer *tok, const struct file *f)
{
    const struct meta *m = file_meta(f, "tokenizer.ggml.precompiled_charsmap");
    if (!m) return KG_OK;
    if (m->type != META_ARR || (m->item != META_U8 && m->item != META_I8))
        return status_set(KG_ERR_FORMAT, "tokenizer.ggml.precompiled_charsmap is not an array of bytes");
    if (m->n == 0) return KG_OK;
    uint8_t *bytes = arena_alloc(&tok->arena, m->n);
    if (!bytes) return KG_ERR_MEMORY;
    memcpy(bytes, m->data, m->n);
    return charsmap_init(&tok->charsmap, bytes, m->n);
}

/* BERT's own steps, for files that do not say. Lower case unless the file says otherwise. */
static kg_status bert_steps(struct kg_tokenizer *tok, const struct file *f)
{
    static const char lower[] = "{\"normalizer\":{\"type\":\"BertNormalizer\"},\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"}}";
    static const char cased[] = "{\"normalizer\":{\"type\":\"BertNormalizer\",\"lowercase\":false},\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"}}";
    bool lowercase = true, found;
    KG_TRY(file_get_bool(f, "tokenizer.ggml.normalizer.lowercase", &lowercase, &found));
    const char *json = lowercase ? lower : cased;
    return steps_new(&tok->steps, json, strlen(json), &tok->charsmap);
}

static kg_status load_around(struct kg_tokenizer *tok, const struct file *f)
{
    const struct meta *m = file_meta(f, "kagari.added_flags");
    if (!m) return KG_OK;
    if (m->type != META_ARR || m->item != META_U32) return status_set(KG_ERR_FORMAT, "kagari.added_flags is not an array of u32");
    for (uint64_t i = 0; i < m->n; i++) {
        const uint64_t v = (uint64_t)file_arr_i64(m, i);
        if (v >> 3 >= (uint64_t)tok->n_vocab) return status_set(KG_ERR_FORMAT, "kagari.added_flags: item %llu is no token", (unsigned long long)i);
        tok->tokens[v >> 3].around = (uint8_t)(v & 7);
    }
    return KG_OK;
}

static kg_status load_mark(struct kg_tokenizer *tok, const struct file *f, const char *key, struct str *out)
{
    bool found;
    KG_TRY(file_get_str(f, key, out, &found));
    if (!found) return KG_OK;
    if (out->len > MAX_MARK) return status_set(KG_ERR_UNSUPPORTED, "%s is longer than %d bytes", key, MAX_MARK);
    out->ptr = arena_strndup(&tok->arena, out->ptr, out->len);
    return out->ptr ? KG_OK : KG_ERR_MEMORY;
}

kg_status steps_load(struct kg_tokenizer *tok, const struct file *f)
{
    struct str json;
    bool found;
    KG_TRY(load_charsmap(tok, f));
    KG_TRY(file_get_bool(f, "kagari.symbols_inside", &tok->symbols_inside, &found));
    KG_TRY(file_get_bool(f, "kagari.split_unknown", &tok->split_unknown, &found));
    KG_TRY(load_mark(tok, f, "kagari.word_suffix", &tok->word_suffix));
    KG_TRY(load_mark(tok, f, "kagari.inner_prefix", &tok->inner_prefix));
    KG_TRY(load_around(tok, f));
    KG_TRY(file_get_str(f, "kagari.tokenizer_steps", &json, &found));
    if (found) KG_TRY(steps_new(&tok->steps, json.ptr, json.len, &tok->charsmap));
    else if (tok->kind == TOKENIZER_WPM) KG_TRY(bert_steps(tok, f));
    if (tok->steps || tok->kind != TOKENIZER_UGM) tok->symbols_inside = false;
    return KG_OK;
}

kg_status pieces_load(struct kg_tokenizer *tok, const struct file *f)
{
    bool found;
    tok->max_word = MAX_WORD;
    KG_TRY(file_get_u32(f, "kagari.max_word", &tok->max_word, &found));
    for (int32_t i = 0; i < tok->n_vocab && tok->kind == TOKENIZER_WPM; i++) { /* converters put the mark before them too */
        struct token *t = &tok->tokens[i];
        if (t->type != TOKEN_USER_DEFINED || t->text_len <= 3 || memcmp(t->text, SPACE_MARK, 3) != 0) continue;
        t->text += 3, t->text_len -= 3;
        t->bytes = t->text, t->bytes_len = t->text_len;
    }
    if (tok->kind == TOKENIZER_UGM) KG_TRY(load_scores(tok, f));
    if (tok->symbols_inside) KG_TRY(build(tok, true, &tok->symbols));
    return build(tok, false, &tok->trie);
}
