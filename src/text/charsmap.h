/* SentencePiece's precompiled maps of characters: what replaces some strings before anything else looks at a text. */
#ifndef TEXT_CHARSMAP_H
#define TEXT_CHARSMAP_H

#include "text/text.h"

struct charsmap { /* borrows the bytes; n_units 0: an empty map */
    const uint8_t *units; /* [n_units] of 4 bytes: a double array (Aoe 1989) with the layout of Darts-clone */
    size_t n_units;
    const char *texts; /* [n_texts], each ends with NUL */
    size_t n_texts;
};

kg_status charsmap_init(struct charsmap *out, const uint8_t *bytes, size_t n);
/* What replaces the longest string of the map that s[0..n) begins with, and its bytes; longest false: the shortest. False: none does. */
bool charsmap_match(const struct charsmap *map, const char *s, size_t n, bool longest, struct str *to, size_t *n_matched);
/* Appends the text with its replacements. by_clusters, as Hugging Face's tokenizers have it: a user's character (of Unicode Standard Annex 29)
 * of less than 6 bytes is replaced as a whole by what replaces its shortest beginning, then each code point by itself; else the longest match counts. */
kg_status charsmap_apply(const struct charsmap *map, const char *text, size_t n, bool by_clusters, struct buf *out);

#endif
