/* A trie over byte strings: all strings of a set that a text begins with, in one walk. */
#ifndef TEXT_TRIE_H
#define TEXT_TRIE_H

#include "text/text.h"

struct trie {
    struct trie_node {
        uint32_t first; /* its children are nodes[first .. first + n - 1], sorted by byte */
        uint32_t id;    /* of the string that ends here; UINT32_MAX: none */
        uint16_t n;
        uint8_t byte; /* that leads here */
    } * nodes;        /* nodes[0] is the root; NULL: an empty set */
    uint32_t n_nodes;
};

struct trie_item {
    const char *text; /* [len] */
    uint32_t len, id;
};

/* Sorts the items. Of two equal strings the lower id counts. */
kg_status trie_new(struct trie *out, struct trie_item *items, size_t n);
void trie_free(struct trie *t);

/* The child of a node by a byte; 0: none. */
static inline uint32_t trie_step(const struct trie *t, uint32_t node, uint8_t byte)
{
    const struct trie_node *p = &t->nodes[node];
    uint32_t lo = p->first, hi = lo + p->n;
    if (p->n == 256) return lo + byte;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (t->nodes[mid].byte < byte) lo = mid + 1;
        else hi = mid;
    }
    return lo < p->first + p->n && t->nodes[lo].byte == byte ? lo : 0;
}

#endif
