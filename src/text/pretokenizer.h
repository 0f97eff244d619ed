/* Pre-tokenizers of byte-level BPE vocabularies: the patterns that cut a text into the words in which merges happen. */
#ifndef TEXT_PRETOKENIZER_H
#define TEXT_PRETOKENIZER_H

#include "text/text.h"

struct pretokenizer; /* immutable: any number of threads may split with it at once */

/* Chooses by the value of tokenizer.ggml.pre; an unknown name is KG_ERR_UNSUPPORTED and lists the known ones. */
kg_status pretokenizer_new(struct pretokenizer **out, struct str name);
void pretokenizer_free(struct pretokenizer **pre);
const char *pretokenizer_names(size_t i); /* names that mean the same, with spaces between; NULL: there are no more */
bool pretokenizer_ignores_merges(const struct pretokenizer *pre); /* a word that is in the vocabulary is one token */
bool pretokenizer_adds_bos(const struct pretokenizer *pre);       /* unless the file says otherwise */

/* Calls fn for every word of text[0..n), in order, without gaps; stops at the first status that is not KG_OK.
 * text: valid UTF-8. */
typedef kg_status (*word_fn)(void *ctx, const char *word, size_t n);
kg_status pretokenizer_split(const struct pretokenizer *pre, const char *text, size_t n, word_fn fn, void *ctx);

#endif
