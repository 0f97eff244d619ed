/* Inside of a tokenizer: the vocabulary as it was loaded (vocab.c) and the way from a word to ids (encode.c). */
#ifndef TEXT_TOKENIZER_H
#define TEXT_TOKENIZER_H

#include "text/pretokenizer.h"
#include "text/steps.h"
#include "text/trie.h"

/* Values are those of tokenizer.ggml.token_type. */
enum token_type {
    TOKEN_UNDEFINED,
    TOKEN_NORMAL,
    TOKEN_UNKNOWN,
    TOKEN_CONTROL,
    TOKEN_USER_DEFINED,
    TOKEN_UNUSED,
    TOKEN_BYTE,
    TOKEN_N_TYPES
};

enum tokenizer_kind {
    TOKENIZER_SPM, /* SentencePiece BPE: merges the pair whose text has the best score */
    TOKENIZER_BPE, /* byte-level BPE: a pre-tokenizer cuts words, a list ranks the merges */
    TOKENIZER_WPM, /* WordPiece: the longest token that fits, again and again; U+2581 marks those that begin a word */
    TOKENIZER_UGM, /* Unigram: the tokens whose scores have the highest sum */
    TOKENIZER_RWKV, /* RWKV World: the longest token that fits, again and again, of bytes */
};

struct token {
    const char *text;  /* [text_len], then NUL: as stored in the file */
    const char *bytes; /* [bytes_len]: what it stands for in a text */
    uint32_t text_len, bytes_len;
    uint32_t rank; /* SPM: falls as the score rises; equal scores have equal ranks */
    uint8_t type;  /* enum token_type */
    uint8_t around; /* of those that are cut out of a text: AROUND_* */
    bool ends;     /* the end of a generation */
};

enum { AROUND_WORD = 1, AROUND_LEFT = 2, AROUND_RIGHT = 4 }; /* only as a word of its own; takes the white space before it, after it */
enum { MAX_TEMPLATE = 8 };

/* Open addressing from strings to ids. The strings belong to others. */
struct strmap {
    struct strmap_slot {
        const char *ptr; /* NULL: free */
        uint32_t len, id;
    } * slots; /* [mask + 1] */
    size_t mask, n;
    uint64_t seed;
};

/* Symbols are what merges work on: ids below n_vocab are tokens, ids above are texts that merges name but that are no tokens. */
#define SYMBOL_NONE UINT32_MAX
#define RANK_NONE UINT32_MAX

struct merge_slot {
    uint32_t left, right; /* symbols; left SYMBOL_NONE: free */
    uint32_t rank, result;
};

/* Tokens that are cut out of a text before anything else, by text. */
struct specials {
    const int32_t *ids; /* [n], sorted by text; two of the same text: the lower id */
    size_t n;
    uint32_t first[257]; /* those that begin with byte b: ids[first[b]] .. ids[first[b + 1] - 1] */
};

struct kg_tokenizer {
    enum tokenizer_kind kind;
    int32_t n_vocab;
    struct token *tokens;            /* [n_vocab] */
    struct strmap by_bytes;          /* of the tokens that plain text may become */
    uint32_t max_bytes;              /* the longest of them */
    uint32_t byte_symbol[256];       /* SPM: SYMBOL_NONE where there is no byte token */
    int32_t bos, eos, eot, eom, unk; /* -1: none */
    int32_t before[MAX_TEMPLATE], after[MAX_TEMPLATE]; /* [n_before], [n_after]: what KG_TOKENIZE_BOS puts around a text */
    int n_before, n_after;
    int32_t replacement[3];          /* [n_replacement]: U+FFFD; 0 if the vocabulary cannot spell it */
    int n_replacement;
    bool add_bos, add_eos;
    struct specials control, user; /* control: all of them; user: only those that are always cut out */
    struct arena arena;
    struct chat_source *chat; /* [n_chat]: the file's templates */
    size_t n_chat;
    /* SPM */
    bool add_space_prefix, remove_extra_whitespaces;
    bool prefix_unless_space; /* the prefix is left out where a text begins with a space (kagari.prefix_unless_space) */
    bool words_start_with_space; /* no token has a space after another character: words can be merged one by one */
    bool strip_after_special;    /* phi-3: white space after a special token belongs to it ... */
    /* BPE; SPM only where the file ranks the merges (kagari.bpe_merges: a tokenizer.json that has them), else merges is NULL */
    struct pretokenizer *pre;
    bool ignore_merges;
    struct steps *steps; /* a tokenizer.json's own; then texts are looked up as they are, with U+2581 for a space. NULL: none */
    struct charsmap charsmap;
    bool split_unknown; /* BPE over characters: each of them gives an unknown token */
    struct str word_suffix, inner_prefix; /* BPE: marks of symbols that end a word, that do not begin one (kagari.word_suffix, kagari.inner_prefix) */
    /* WPM, UGM, RWKV */
    struct trie trie; /* of the tokens that plain text may become */
    uint32_t max_word; /* WPM: characters; a longer word is unknown */
    double *scores;    /* UGM: [n_vocab] */
    double unknown_score;
    bool spm_sums;        /* SentencePiece's single precision */
    struct trie symbols;  /* UGM: those defined by the user that are found on the way (kagari.symbols_inside) */
    bool symbols_inside;
    bool nfc; /* texts are brought to Unicode's form C first */
    struct merge_slot *merges; /* [merge_mask + 1] */
    size_t merge_mask;
};

uint64_t text_hash(const char *s, size_t n, uint64_t seed);
kg_status strmap_init(struct strmap *map, size_t n_expected, uint64_t seed);
void strmap_free(struct strmap *map);
uint32_t strmap_find(const struct strmap *map, const char *s, size_t n); /* SYMBOL_NONE: not there */
/* Adds unless the text is there already. */
kg_status strmap_add(struct strmap *map, const char *s, size_t n, uint32_t id);

static inline size_t merge_hash(uint32_t left, uint32_t right)
{
    uint64_t h = ((uint64_t)left << 32 | right) * 0x9e3779b97f4a7c15u;
    h ^= h >> 32;
    return (size_t)(h * 0xd6e8feb86659fd93u >> 20);
}

struct chat_source {
    const char *name; /* NULL: the usual one */
    const char *text; /* [len] */
    size_t len;
};
/* chat.c: copies tokenizer.chat_template and tokenizer.chat_template.NAME. */
kg_status chat_load(struct kg_tokenizer *tok, const struct file *f);

/* merges.c: reads the merges into tok->merges; the tokens are there. */
kg_status merges_load(struct kg_tokenizer *tok, const struct file *f);
size_t bytelevel_char(uint8_t byte, char out[2]); /* its character in the byte alphabet: how many bytes that has */
/* Writes the bytes that byte-level text stands for, at most n; characters outside of the byte alphabet stay as they are
 * and clear *exact. Returns the number of bytes. */
size_t bytelevel_decode(const char *text, size_t n, char *out, bool *exact);

/* The bytes of a text of RWKV's vocabularies, which escape those that are not printable, at most n. Returns their number. */
size_t rwkv_decode(const char *text, size_t n, char *out);

/* pieces_load.c: the steps and flags of any tokenizer, before its texts are looked at, and what WPM and UGM need besides the tokens. */
kg_status steps_load(struct kg_tokenizer *tok, const struct file *f);
kg_status pieces_load(struct kg_tokenizer *tok, const struct file *f);

/* U+2581 -> space. *spaces: the text has real ones, which no text to tokenize has at that stage. */
size_t spm_decode(const char *text, size_t n, char *out, bool *spaces);

/* Gathers the ids of one text; zero-initialised but for tok. encoder_free leaves ids to the caller. */
struct encoder {
    const struct kg_tokenizer *tok;
    int32_t *ids;
    size_t n, cap;
    bool after_unknown; /* the last id is the unknown token: one stands for a whole run */
    size_t n_unknown;
    struct word_cache *cache;
    struct symbol *symbols;
    size_t symbols_cap;
    struct heap_item *heap;
    size_t heap_n, heap_cap;
    struct path *path;
    size_t path_cap;
};
kg_status encoder_push(struct encoder *e, int32_t id);
kg_status encoder_use_cache(struct encoder *e);
kg_status encoder_unknown(struct encoder *e, uint8_t byte); /* what stands for something that has no token */
kg_status encoder_grow(void **items, size_t *cap, size_t need, size_t item_bytes);
kg_status encoder_word(struct encoder *e, const char *word, size_t n);
/* pieces.c: one word by the tokenizers that need no merges. */
kg_status encode_wordpiece(struct encoder *e, const char *word, size_t n);
kg_status encode_longest(struct encoder *e, const char *text, size_t n);
kg_status encode_unigram(struct encoder *e, const char *text, size_t n);
void encoder_free(struct encoder *e);

#endif
