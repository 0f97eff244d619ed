/* What the readers of tokenizer.json hand to each other: hf_tokenizer.c (BPE), hf_pieces.c (WordPiece, Unigram), hf_special.c (what all share). */
#ifndef FILE_HF_VOCAB_H
#define FILE_HF_VOCAB_H

#include "file/hf.h"

enum hf_token_type { HF_NORMAL = 1, HF_UNKNOWN = 2, HF_CONTROL = 3, HF_USER_DEFINED = 4, HF_UNUSED = 5, HF_BYTE = 6 };

struct hf_vocab {
    struct hf_word {
        const char *text; /* [len]; NULL: there is none */
        size_t len;
        int32_t type;
        uint32_t around; /* as text/tokenizer.h's AROUND_* */
    } * words; /* [n] */
    size_t n;
};

struct hf_tokenizer {
    const json_t *root, *model;
    const json_t *config, *tokenizer_config; /* config.json, tokenizer_config.json; NULL: there is none */
    struct hf_vocab vocab;
};

static inline bool hf_is(const json_t *v, const char *text) { return json_is_string(v) && strcmp(json_string_value(v), text) == 0; }
static inline const json_t *hf_get(const json_t *v, const char *key) { return json_object_get(v, key); }

kg_status hf_refuse(const char *what, const json_t *v);
kg_status hf_put_word(struct hf_vocab *v, const json_t *id, const char *text, size_t len, int32_t type);
kg_status hf_load_added(struct hf_vocab *v, const json_t *added);
void hf_mark_unknown(struct hf_vocab *v, struct meta_out *o, int64_t id);
void hf_mark_bytes(struct hf_vocab *v);
int64_t hf_find_word(const struct hf_vocab *v, const char *text); /* -1: not there */
void hf_put_types(struct meta_out *o, const struct hf_vocab *v);
/* The ids of special tokens and what the post-processor puts around a text. all: also whether an end and a separator come, where none does. */
kg_status hf_put_specials(struct meta_out *o, const struct hf_tokenizer *t, bool all);
/* The steps before the model as they stand, the map of characters under GGUF's key. */
kg_status hf_put_steps(struct meta_out *o, const struct hf_tokenizer *t);

/* The id of a kind of special token ("bos"), which tokenizer_config.json gives by its text, or config.json by a number; -1: neither does. */
int64_t hf_special_id(const struct hf_tokenizer *t, const char *kind);
/* tokenizer_config.json's add_bos_token and the like, where it says them. */
bool hf_adds(const struct hf_tokenizer *t, const char *key, bool otherwise);

/* sentencepiece.c: tokenizer.model. t: what the folder says beside it, its added tokens as a tokenizer.json lists them (added; may be NULL), and
 * the number of tokens (t->vocab.n; 0: as many as there are). */
kg_status sentencepiece_read(struct meta_out *o, const uint8_t *p, size_t n_bytes, const struct hf_tokenizer *t, const json_t *added);

/* hf_pre.c: the name that llama.cpp has for a pre_tokenizer. */
struct hf_pre {
    const char *name; /* NULL: there is none */
    bool ignores;     /* the name says that a word that is a token needs no merges */
    bool alone;       /* it says all */
};
kg_status hf_find_pre(const json_t *steps, bool ignore_merges, struct hf_pre *out);

/* hf_pieces.c */
kg_status hf_put_wordpiece(struct meta_out *o, struct hf_tokenizer *t);
kg_status hf_put_unigram(struct meta_out *o, struct hf_tokenizer *t);

#endif
