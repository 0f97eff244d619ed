/* tokenizer.model, SentencePiece's own format: a protobuf message of which a few fields matter. Reads those, steps over others. */
#include "file/hf_vocab.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5, MODEL_UNIGRAM = 1, MODEL_BPE = 2, MAX_TOKENS = 1 << 24 };

/* One field of a message. */
struct field {
    uint32_t number, wire;
    uint64_t value;      /* of VARINT and FIXED */
    struct cursor bytes; /* of BYTES */
};

static bool varint(struct cursor *c, uint64_t *v)
{
    *v = 0;
    for (unsigned shift = 0; shift < 64 && c->p < c->end; shift += 7) {
        uint8_t b = *c->p++;
        *v |= (uint64_t)(b & 0x7f) << shift;
        if (!(b & 0x80)) return true;
    }
    return false;
}

/* *more false: the message has ended. */
static kg_status next(struct cursor *c, struct field *f, bool *more)
{
    uint64_t key;
    uint32_t word;
    *more = c->p < c->end;
    if (!*more) return KG_OK;
    bool ok = varint(c, &key) && key >> 3 <= UINT32_MAX;
    f->number = (uint32_t)(key >> 3);
    f->wire = (uint32_t)(key & 7);
    if (ok && f->wire == VARINT) {
        ok = varint(c, &f->value);
    } else if (ok && f->wire == FIXED64) {
        ok = cursor_u64(c, &f->value);
    } else if (ok && f->wire == FIXED32) {
        ok = cursor_u32(c, &word);
        f->value = ok ? word : 0;
    } else if (ok && f->wire == BYTES) {
        ok = varint(c, &f->value) && f->value <= cursor_left(c);
        f->bytes = (struct cursor){c->p, ok ? c->p + f->value : c->p};
        if (ok) c->p += f->value;
    } else {
        ok = false;
    }
    return ok ? KG_OK : status_set(KG_ERR_FORMAT, "is not a SentencePiece model, or damaged");
}

struct piece {
    struct str text;
    float score;
    int32_t type;
};

struct spm {
    struct piece *pieces; /* [n] */
    size_t n, cap;
    uint64_t model;
    int64_t unk, bos, eos;
    struct str charsmap;
    bool add_space_prefix, remove_spaces;
};

static kg_status read_piece(struct spm *m, struct cursor c)
{
    struct field f;
    struct piece p = {.type = 1};
    bool more;
    for (;;) {
        KG_TRY(next(&c, &f, &more));
        if (!more) break;
        if (f.number == 1 && f.wire == BYTES) p.text = (struct str){(const char *)f.bytes.p, cursor_left(&f.bytes)};
        if (f.number == 2 && f.wire == FIXED32) p.score = f32_from_bits((uint32_t)f.value);
        if (f.number == 3 && f.wire == VARINT) p.type = (int32_t)MIN(f.value, 99u);
    }
    if (p.type < 1 || p.type > 6) return status_set(KG_ERR_FORMAT, "piece %zu has an unknown type", m->n);
    if (m->n == m->cap) {
        size_t cap = m->cap * 2 + 1024;
        struct piece *grown = realloc(m->pieces, cap * sizeof *grown);
        if (!grown) return status_set(KG_ERR_MEMORY, "out of memory for a vocabulary");
        m->pieces = grown;
        m->cap = cap;
    }
    m->pieces[m->n++] = p;
    return KG_OK;
}

static kg_status read_trainer(struct spm *m, struct cursor c)
{
    struct field f;
    bool more;
    for (;;) {
        KG_TRY(next(&c, &f, &more));
        if (!more) return KG_OK;
        if (f.wire != VARINT) continue;
        if (f.number == 3) m->model = f.value;
        if (f.number == 24 && f.value) return status_set(KG_ERR_UNSUPPORTED, "spaces behind words (treat_whitespace_as_suffix) are not supported");
        if (f.number == 40) m->unk = (int32_t)f.value; /* negative ones come as 64 bits */
        if (f.number == 41) m->bos = (int32_t)f.value;
        if (f.number == 42) m->eos = (int32_t)f.value;
    }
}

static kg_status read_normalizer(struct spm *m, struct cursor c)
{
    struct field f;
    bool more;
    for (;;) {
        KG_TRY(next(&c, &f, &more));
        if (!more) return KG_OK;
        if (f.number == 2 && f.wire == BYTES) m->charsmap = (struct str){(const char *)f.bytes.p, cursor_left(&f.bytes)};
        if (f.number == 3 && f.wire == VARINT) m->add_space_prefix = f.value != 0;
        if (f.number == 4 && f.wire == VARINT) m->remove_spaces = f.value != 0;
        if (f.number == 5 && f.wire == VARINT && !f.value)
            return status_set(KG_ERR_UNSUPPORTED, "spaces that are not escaped are not supported");
    }
}

static kg_status read_model(struct spm *m, struct cursor c)
{
    struct field f;
    bool more;
    for (;;) {
        KG_TRY(next(&c, &f, &more));
        if (!more) break;
        if (f.wire != BYTES) continue;
        if (f.number == 1) KG_TRY(read_piece(m, f.bytes));
        if (f.number == 2) KG_TRY(read_trainer(m, f.bytes));
        if (f.number == 3) KG_TRY(read_normalizer(m, f.bytes));
    }
    if (m->n == 0) return status_set(KG_ERR_FORMAT, "has no pieces");
    if (m->model == MODEL_BPE || m->model == MODEL_UNIGRAM) return KG_OK;
    return status_set(KG_ERR_UNSUPPORTED, "models of words or characters are not supported, BPE and Unigram are");
}

static void put_id(struct meta_out *o, const char *key, int64_t id, size_t n)
{
    if (id >= 0 && (uint64_t)id < n) meta_out_u32(o, key, (uint32_t)id);
}

/* Tokens that are added to the pieces, or take their place. Those that do not fit the model are none of its tokens. */
static void add(struct hf_vocab *v, const json_t *added)
{
    static const char *const flags[] = {"single_word", "lstrip", "rstrip"};
    for (size_t i = 0; i < json_array_size(added); i++) {
        const json_t *entry = json_array_get(added, i), *text = hf_get(entry, "content"), *id = hf_get(entry, "id");
        if (!json_is_string(text) || json_string_length(text) == 0 || !json_is_integer(id) || json_integer_value(id) < 0 || (uint64_t)json_integer_value(id) >= v->n) continue;
        struct hf_word *w = &v->words[json_integer_value(id)];
        const bool special = json_is_true(hf_get(entry, "special")), same = w->text && w->len == json_string_length(text) && memcmp(w->text, json_string_value(text), w->len) == 0;
        const bool normal = w->type == HF_NORMAL || w->type == HF_USER_DEFINED || w->type == HF_UNUSED;
        if (!same) *w = (struct hf_word){json_string_value(text), json_string_length(text), 0, 0};
        if (!same || normal) w->type = special ? HF_CONTROL : HF_USER_DEFINED;
        for (size_t k = 0; k < COUNT_OF(flags); k++)
            if (json_is_true(hf_get(entry, flags[k]))) w->around |= 1u << k;
    }
}

static void put_words(struct meta_out *o, const struct spm *m, const struct hf_vocab *v)
{
    meta_out_array(o, "tokenizer.ggml.tokens", META_STR, v->n);
    for (size_t i = 0; i < v->n; i++) {
        char pad[32];
        if (v->words[i].text) meta_out_item(o, v->words[i].text, v->words[i].len);
        else meta_out_item(o, pad, (size_t)snprintf(pad, sizeof pad, "[PAD%zu]", i));
    }
    meta_out_array(o, "tokenizer.ggml.scores", META_F32, v->n);
    for (size_t i = 0; i < v->n; i++) {
        const bool piece = i < m->n && v->words[i].text == m->pieces[i].text.ptr;
        meta_out_bytes(o, &(float){piece ? m->pieces[i].score : v->words[i].text ? -1000.0f : -10000.0f}, 4);
    }
    hf_put_types(o, v);
}

static void put(struct meta_out *o, const struct spm *m, const struct hf_tokenizer *t)
{
    const bool unigram = m->model == MODEL_UNIGRAM;
    const int64_t bos = hf_special_id(t, "bos"), eos = hf_special_id(t, "eos");
    meta_out_str(o, "tokenizer.ggml.model", unigram ? "t5" : "llama", unigram ? 2 : 5);
    meta_out_str(o, "tokenizer.ggml.pre", "default", 7);
    put_words(o, m, &t->vocab);
    put_id(o, "tokenizer.ggml.bos_token_id", bos >= 0 ? bos : m->bos, t->vocab.n);
    put_id(o, "tokenizer.ggml.eos_token_id", eos >= 0 ? eos : m->eos, t->vocab.n);
    put_id(o, "tokenizer.ggml.unknown_token_id", m->unk, t->vocab.n);
    put_id(o, "tokenizer.ggml.padding_token_id", hf_special_id(t, "pad"), t->vocab.n);
    meta_out_bool(o, "tokenizer.ggml.add_bos_token", hf_adds(t, "add_bos_token", m->bos >= 0));
    meta_out_bool(o, "tokenizer.ggml.add_eos_token", hf_adds(t, "add_eos_token", false));
    meta_out_bool(o, "tokenizer.ggml.add_space_prefix", m->add_space_prefix);
    if (m->remove_spaces || unigram) meta_out_bool(o, "tokenizer.ggml.remove_extra_whitespaces", m->remove_spaces);
    if (unigram) meta_out_bool(o, "kagari.symbols_inside", true);
    if (m->charsmap.len == 0) return;
    meta_out_array(o, "tokenizer.ggml.precompiled_charsmap", META_U8, m->charsmap.len);
    meta_out_bytes(o, m->charsmap.ptr, m->charsmap.len);
}

kg_status sentencepiece_read(struct meta_out *o, const uint8_t *p, size_t n_bytes, const struct hf_tokenizer *t, const json_t *added)
{
    /* what a file that does not say means: from SentencePiece's sentencepiece_model.proto */
    struct spm m = {.model = MODEL_UNIGRAM, .unk = 0, .bos = 1, .eos = 2, .add_space_prefix = true, .remove_spaces = true};
    struct hf_tokenizer all = *t;
    kg_status st = read_model(&m, (struct cursor){p, p + n_bytes});
    if (st == KG_OK && t->vocab.n > 0 && m.n > t->vocab.n) st = status_set(KG_ERR_FORMAT, "has %zu pieces, the model %zu tokens", m.n, t->vocab.n);
    all.vocab.n = MAX(m.n, t->vocab.n);
    for (size_t i = 0; t->vocab.n == 0 && i < json_array_size(added); i++) {
        const json_int_t id = json_integer_value(hf_get(json_array_get(added, i), "id"));
        if (id > 0 && id < MAX_TOKENS) all.vocab.n = MAX(all.vocab.n, (size_t)id + 1);
    }
    all.vocab.words = st == KG_OK ? calloc(all.vocab.n, sizeof *all.vocab.words) : NULL;
    if (st == KG_OK && !all.vocab.words) st = status_set(KG_ERR_MEMORY, "out of memory for a vocabulary");
    if (st == KG_OK) {
        for (size_t i = 0; i < m.n; i++) all.vocab.words[i] = (struct hf_word){m.pieces[i].text.ptr, m.pieces[i].text.len, m.pieces[i].type, 0};
        add(&all.vocab, added);
        put(o, &m, &all);
        st = o->status;
    }
    free(all.vocab.words);
    free(m.pieces);
    return st;
}
