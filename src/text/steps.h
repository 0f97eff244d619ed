/* The steps of a tokenizer.json from a text to its words. Key kagari.steps lists their names, each followed by its arguments. */
#ifndef TEXT_STEPS_H
#define TEXT_STEPS_H

#include "file/file.h"
#include "text/charsmap.h"
#include "text/trie.h"

/* Between words: a byte that no UTF-8 has. */
#define STEPS_CUT '\xff'

enum { STEPS_MAX = 32 };

struct steps {
    struct step {
        const struct step_kind *kind;
        struct str args[2];
    } list[STEPS_MAX];
    size_t n;
    struct charsmap map;
    struct trie kept; /* texts that the charsmap leaves alone; no nodes: none */
};

/* Adds one step; copies the arguments. */
kg_status steps_add(struct steps *s, struct arena *arena, const struct str *items, size_t n_items, size_t *used);
kg_status steps_load(struct steps *s, struct arena *arena, const struct str *items, size_t n_items);
/* Appends words with STEPS_CUT between them; there may be empty ones. text: valid UTF-8. at_start: it is a text's beginning. */
kg_status steps_run(const struct steps *s, const char *text, size_t n, bool at_start, struct buf *out);

/* Of a text's beginning or end: bytes of white space as Unicode defines it. */
size_t steps_space_prefix(const char *s, size_t n);
size_t steps_space_suffix(const char *s, size_t n);

#endif
