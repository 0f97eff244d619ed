/* A trie in one array: built breadth first from the sorted strings, so that the children of a node lie together. */
#include "text/trie.h"

#include <stdlib.h>

static int by_text(const void *pa, const void *pb)
{
    const struct trie_key *a = pa, *b = pb;
    int order = memcmp(a->text, b->text, MIN(a->len, b->len));
    if (order == 0) order = (a->len > b->len) - (a->len < b->len);
    if (order == 0) order = (a->value > b->value) - (a->value < b->value);
    return order;
}

static uint32_t common(const struct trie_key *a, const struct trie_key *b)
{
    uint32_t k = 0, n = MIN(a->len, b->len);
    while (k < n && a->text[k] == b->text[k]) k++;
    return k;
}

/* Sorted, without empty strings and repetitions; returns how many stay, and the nodes that they need. */
static size_t tidy(struct trie_key *keys, size_t n, uint64_t *n_nodes)
{
    size_t kept = 0;
    *n_nodes = 1;
    qsort(keys, n, sizeof *keys, by_text);
    for (size_t i = 0; i < n; i++) {
        uint32_t shared = kept > 0 ? common(&keys[kept - 1], &keys[i]) : 0;
        if (keys[i].len == shared) continue; /* empty, or the same again */
        *n_nodes += keys[i].len - shared;
        keys[kept++] = keys[i];
    }
    return kept;
}

/* The strings below a node. */
struct range {
    uint32_t lo, hi, depth;
};

kg_status trie_build(struct trie *t, struct arena *arena, struct trie_key *keys, size_t n)
{
    uint64_t n_nodes;
    n = tidy(keys, n, &n_nodes);
    if (n_nodes >= UINT32_MAX || n >= UINT32_MAX) return status_set(KG_ERR_UNSUPPORTED, "the vocabulary is too large");
    struct trie_node *nodes = arena_array(arena, n_nodes, sizeof *nodes);
    struct range *ranges = malloc(n_nodes * sizeof *ranges);
    if (!nodes || !ranges) {
        free(ranges);
        return status_set(KG_ERR_MEMORY, "out of memory for a vocabulary");
    }
    uint32_t made = 1;
    nodes[0] = (struct trie_node){.value = TRIE_NONE};
    ranges[0] = (struct range){0, (uint32_t)n, 0};
    for (uint32_t i = 0; i < made; i++) {
        struct range r = ranges[i];
        if (r.lo < r.hi && keys[r.lo].len == r.depth) nodes[i].value = keys[r.lo++].value;
        nodes[i].first = made;
        while (r.lo < r.hi) {
            uint8_t byte = (uint8_t)keys[r.lo].text[r.depth];
            uint32_t hi = r.lo;
            while (hi < r.hi && (uint8_t)keys[hi].text[r.depth] == byte) hi++;
            nodes[made] = (struct trie_node){.value = TRIE_NONE, .byte = byte};
            ranges[made++] = (struct range){r.lo, hi, r.depth + 1};
            nodes[i].n++;
            r.lo = hi;
        }
    }
    free(ranges);
    t->nodes = nodes;
    for (uint32_t i = 0; i < nodes[0].n; i++) t->root[nodes[nodes[0].first + i].byte] = nodes[0].first + i;
    return KG_OK;
}

uint32_t trie_next(const struct trie *t, uint32_t node, uint8_t byte)
{
    if (node == 0) return t->root[byte];
    const struct trie_node *parent = &t->nodes[node];
    uint32_t lo = parent->first, hi = lo + parent->n;
    while (lo < hi) {
        uint32_t mid = (lo + hi) / 2;
        if (t->nodes[mid].byte == byte) return mid;
        if (t->nodes[mid].byte < byte) lo = mid + 1;
        else hi = mid;
    }
    return 0;
}

uint32_t trie_longest(const struct trie *t, const char *s, size_t n, size_t *len)
{
    uint32_t node = 0, best = TRIE_NONE;
    for (size_t i = 0; i < n && (node = trie_next(t, node, (uint8_t)s[i])) != 0; i++) {
        if (t->nodes[node].value == TRIE_NONE) continue;
        best = t->nodes[node].value;
        *len = i + 1;
    }
    return best;
}
