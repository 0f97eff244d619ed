/* Builds tries level by level from the sorted strings, so that the children of a node lie side by side. */
#include "text/trie.h"

#include <stdlib.h>

static int by_text(const void *pa, const void *pb)
{
    const struct trie_item *a = pa, *b = pb;
    const int order = memcmp(a->text, b->text, MIN(a->len, b->len));
    if (order != 0) return order;
    if (a->len != b->len) return a->len < b->len ? -1 : 1;
    return a->id < b->id ? -1 : a->id > b->id;
}

struct range { /* the items below a node */
    size_t from, to;
};

/* The number of nodes: one for each byte that the item before does not share, and the root. */
static size_t count_nodes(const struct trie_item *items, size_t n)
{
    size_t count = 1;
    for (size_t i = 0; i < n; i++) {
        uint32_t same = 0;
        while (i > 0 && same < items[i].len && same < items[i - 1].len && items[i].text[same] == items[i - 1].text[same]) same++;
        count += items[i].len - same;
    }
    return count;
}

kg_status trie_new(struct trie *out, struct trie_item *items, size_t n)
{
    *out = (struct trie){0};
    if (n > 0) qsort(items, n, sizeof *items, by_text);
    const size_t n_nodes = count_nodes(items, n);
    if (n_nodes >= UINT32_MAX) return status_set(KG_ERR_UNSUPPORTED, "the texts of the vocabulary are too long together");
    struct range *ranges = malloc(n_nodes * sizeof *ranges);
    out->nodes = calloc(n_nodes, sizeof *out->nodes);
    if (!ranges || !out->nodes) {
        free(ranges);
        return status_set(KG_ERR_MEMORY, "out of memory for a vocabulary");
    }
    ranges[0] = (struct range){0, n};
    out->n_nodes = 1;
    uint32_t depth = 0, level_end = 1;
    for (uint32_t i = 0; i < out->n_nodes; i++) {
        if (i == level_end) {
            level_end = out->n_nodes;
            depth++;
        }
        struct trie_node *node = &out->nodes[i];
        size_t k = ranges[i].from;
        const size_t to = ranges[i].to;
        node->id = k < to && items[k].len == depth ? items[k].id : UINT32_MAX;
        while (k < to && items[k].len == depth) k++;
        node->first = out->n_nodes;
        while (k < to) {
            const char byte = items[k].text[depth];
            const uint32_t child = out->n_nodes++;
            ranges[child].from = k;
            while (k < to && items[k].text[depth] == byte) k++;
            ranges[child].to = k;
            out->nodes[child].byte = (uint8_t)byte;
            node->n++;
        }
    }
    free(ranges);
    return KG_OK;
}

void trie_free(struct trie *t)
{
    free(t->nodes);
    *t = (struct trie){0};
}
