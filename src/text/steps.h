/* What a tokenizer.json does to a text before its model sees it: normalizers, which change the text, then pre-tokenizers, which cut it into pieces. */
#ifndef TEXT_STEPS_H
#define TEXT_STEPS_H

#include "text/charsmap.h"
#include "text/pretokenizer.h"

struct steps; /* immutable: any number of threads may run them at once */

/* json: an object with "normalizer" and "pre_tokenizer" as a tokenizer.json has them, but for the map of "Precompiled", which is charsmap's (its bytes
 * must live as long). A step that is not known is KG_ERR_UNSUPPORTED by name. */
kg_status steps_new(struct steps **out, const char *json, size_t n, const struct charsmap *charsmap);
void steps_free(struct steps **steps);

/* Calls fn for every piece of text[0..n), valid UTF-8, in order. first: the text begins what is tokenized. */
kg_status steps_run(const struct steps *steps, const char *text, size_t n, bool first, word_fn fn, void *ctx);

#endif
