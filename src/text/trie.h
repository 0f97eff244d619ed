/* Which strings of a set begin here: the pieces of a vocabulary, walked byte by byte. */
#ifndef TEXT_TRIE_H
#define TEXT_TRIE_H

#include "base/base.h"

#define TRIE_NONE UINT32_MAX

struct trie {
    struct trie_node {
        uint32_t value; /* of the string that ends here, or TRIE_NONE */
        uint32_t first; /* its children lie together, sorted by byte */
        uint16_t n;
        uint8_t byte;
    } * nodes; /* [0]: the root; NULL: an empty set */
    uint32_t root[256]; /* children of the root; 0: none */
};

struct trie_key {
    const char *text;
    uint32_t len, value;
};
/* Sorts keys. Of equal strings the lowest value stays; empty ones are left out. */
kg_status trie_build(struct trie *t, struct arena *arena, struct trie_key *keys, size_t n);
/* The node behind `byte`; 0: none. */
uint32_t trie_next(const struct trie *t, uint32_t node, uint8_t byte);
/* The longest string of the set that s begins with; *len its bytes. TRIE_NONE: none. */
uint32_t trie_longest(const struct trie *t, const char *s, size_t n, size_t *len);

#endif
