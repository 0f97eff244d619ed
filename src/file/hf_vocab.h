/* What the readers of tokenizer.json share: its vocabulary, and the keys that all kinds have. */
#ifndef FILE_HF_VOCAB_H
#define FILE_HF_VOCAB_H

#include "file/hf.h"

#define SPACE_MARK "\xe2\x96\x81" /* U+2581 */

/* tokenizer.ggml.token_type */
enum { NORMAL = 1, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE };

struct hf_vocab {
    struct hf_word {
        const char *text; /* NULL: no token has this id */
        size_t len;
        int32_t type;
        float score;              /* Unigram */
        bool strip_left, strip_right;
    } * words; /* [n] */
    size_t n;
};

static inline bool is(const json_t *v, const char *text) { return json_is_string(v) && strcmp(json_string_value(v), text) == 0; }
static inline const json_t *get(const json_t *v, const char *key) { return json_object_get(v, key); }
static inline bool is_set(const json_t *v) { return v && !json_is_null(v); }
kg_status hf_refuse(const char *what, const json_t *v);

/* n_vocab: rows of the embeddings; 0: as many as there are tokens. The caller frees words. */
kg_status hf_vocab_load(struct hf_vocab *v, const json_t *tokenizer, uint32_t n_vocab);
bool hf_is_byte(const struct hf_word *w); /* <0x0A> */
void hf_put_tokens(struct meta_out *o, const struct hf_vocab *v);
void hf_put_types(struct meta_out *o, const struct hf_vocab *v);
/* Ids of special tokens, and which the post-processor adds. */
kg_status hf_put_special(struct meta_out *o, const struct hf_vocab *v, const json_t *tokenizer, const json_t *config);

/* hf_pieces.c */
kg_status hf_put_wordpiece(struct meta_out *o, struct hf_vocab *v, const json_t *tokenizer);
kg_status hf_put_unigram(struct meta_out *o, struct hf_vocab *v, const json_t *tokenizer);

#endif
