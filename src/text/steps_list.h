/* The list of steps, between those who read it (steps_read.c) and those who run it. */
#ifndef TEXT_STEPS_LIST_H
#define TEXT_STEPS_LIST_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/steps.h"

#include <pcre2.h>

enum step_kind {
    /* normalizers */
    STEP_BERT, STEP_STRIP, STEP_STRIP_ACCENTS, STEP_FORM, STEP_LOWERCASE, STEP_NMT, STEP_CHARSMAP, STEP_REPLACE, STEP_PREPEND,
    /* pre-tokenizers */
    STEP_SPLIT, STEP_CHARACTERS, STEP_METASPACE, STEP_SPACE_PREFIX, STEP_FIXED, STEP_BYTES,
};

enum split_behavior { SPLIT_REMOVED, SPLIT_ISOLATED, SPLIT_WITH_PREVIOUS, SPLIT_WITH_NEXT, SPLIT_CONTIGUOUS };
enum { BERT_CLEAN = 1, BERT_IDEOGRAPHS = 2, BERT_STRIP = 4, BERT_LOWER = 8, STRIP_LEFT = 1, STRIP_RIGHT = 2, PREPEND_ALWAYS = 1, PREPEND_FIRST = 2, META_SPLIT = 4 };

struct step {
    enum step_kind kind;
    unsigned flags;            /* of BERT, STRIP, METASPACE; the form; characters of FIXED */
    enum split_behavior behavior;
    bool invert;               /* what matches and what does not change places */
    bool (*is)(uint32_t code); /* of CHARACTERS: each of them is a match */
    char *text;                /* REPLACE: by what; PREPEND, METASPACE: the mark */
    size_t n_text;
    char *literal; /* REPLACE, SPLIT: what to look for ... */
    size_t n_literal;
    pcre2_code *regex; /* ... or the pattern */
    bool jit;
};

enum { MAX_STEPS = 32 };

struct steps {
    struct step list[MAX_STEPS]; /* normalizers, then pre-tokenizers */
    int n, n_normalizers;
    struct charsmap charsmap;
    struct arena arena;
};

/* Walks the matches of REPLACE or SPLIT in a text. Empty ones count too, but not where another has just ended. */
struct matcher {
    const struct steps *steps;
    pcre2_match_data *data;
};
struct matches {
    struct matcher *m;
    const struct step *step;
    const char *text; /* [n] */
    size_t n, from, last_end;
    size_t start, end; /* of the match */
};
kg_status next_match(struct matches *w, bool *found);

/* steps_normalize.c: appends what a normalizer makes of text. */
kg_status step_normalize(struct matcher *m, const struct step *s, const char *text, size_t n, struct buf *out);

/* steps_regex.c: a pattern in Oniguruma's syntax (as its Ruby dialect, which tokenizers use) -> PCRE2's, where they differ. */
kg_status regex_translate(const char *pattern, struct buf *out);

#endif
