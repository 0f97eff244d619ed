/* SentencePiece's table of replacements (precompiled_charsmap): what to write for a sequence of characters. */
#ifndef TEXT_CHARSMAP_H
#define TEXT_CHARSMAP_H

#include "base/base.h"

struct charsmap {
    const uint32_t *units; /* [n_units]: a double-array trie as darts-clone writes it */
    size_t n_units;
    const char *texts; /* [n_texts]: replacements, each ended by NUL */
    size_t n_texts;
};

/* Copies into the arena. */
kg_status charsmap_load(struct charsmap *m, struct arena *arena, const uint8_t *p, size_t n);
/* The replacement of the longest sequence that s begins with, or of the shortest; NULL: none. *used: bytes of that sequence. */
const char *charsmap_find(const struct charsmap *m, const char *s, size_t n, bool shortest, size_t *used);

#endif
