/* layers: text */
/* Tokenizers against results from elsewhere (SentencePiece, Hugging Face tokenizers, the cases of ggml's vocabularies), against
 * textbook merges over random vocabularies, and against broken vocabularies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "gguf_writer.h"
#include "text/text.h"

#include <dirent.h>
#include <pthread.h>
#include <unistd.h>

enum { NORMAL = 1, UNKNOWN, CONTROL, USER, UNUSED, BYTE };
#define IDS(...) (int32_t[]){__VA_ARGS__}, COUNT_OF(((int32_t[]){__VA_ARGS__}))

/* ---- vocabularies in memory ------------------------------------------------------------------------ */

struct vocab {
    struct gw w;
    const char *texts[512];
    int32_t types[512];
    float scores[512];
    size_t n;
    char room[8192];
    size_t n_room;
};

static char *vocab_room(struct vocab *v, size_t n)
{
    char *p = v->room + v->n_room;
    v->n_room += n;
    assert_true(v->n_room <= sizeof v->room && v->n < COUNT_OF(v->texts));
    return p;
}

static int32_t add(struct vocab *v, const char *text, int32_t type, float score)
{
    v->texts[v->n] = strcpy(vocab_room(v, strlen(text) + 1), text);
    v->types[v->n] = type;
    v->scores[v->n] = score;
    return (int32_t)v->n++;
}

static void add_byte_tokens(struct vocab *v)
{
    for (int b = 0; b < 256; b++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", b);
        add(v, text, BYTE, 0);
    }
}

/* <unk> <s> </s>, then the byte tokens: the first free id is 259 */
static void spm_begin(struct vocab *v)
{
    *v = (struct vocab){0};
    gw_str(&v->w, "tokenizer.ggml.model", "llama");
    add(v, "<unk>", UNKNOWN, 0);
    add(v, "<s>", CONTROL, 0);
    add(v, "</s>", CONTROL, 0);
    add_byte_tokens(v);
}

/* A byte in the alphabet of byte-level BPE, as UTF-8. */
static size_t alphabet(int b, char *out)
{
    int code = b;
    if (b <= 32)
        code = 256 + b;
    else if (b >= 127 && b <= 160)
        code = 256 + 33 + b - 127;
    else if (b == 173)
        code = 256 + 67;
    if (code < 128) {
        out[0] = (char)code;
        return 1;
    }
    out[0] = (char)(0xc0 | code >> 6);
    out[1] = (char)(0x80 | (code & 0x3f));
    return 2;
}

static const char *bytelevel(struct vocab *v, const char *bytes)
{
    char *out = vocab_room(v, 2 * strlen(bytes) + 1);
    size_t n = 0;
    for (; *bytes; bytes++) n += alphabet((uint8_t)*bytes, out + n);
    out[n] = 0;
    return out;
}

/* The 256 bytes are ids 0..255. */
static void bpe_begin(struct vocab *v, const char *pre)
{
    *v = (struct vocab){0};
    gw_str(&v->w, "tokenizer.ggml.model", "gpt2");
    if (pre) gw_str(&v->w, "tokenizer.ggml.pre", pre);
    for (int b = 0; b < 256; b++) {
        char text[3] = "";
        alphabet(b, text);
        add(v, text, NORMAL, 0);
    }
}

static kg_status finish(struct vocab *v, kg_tokenizer **tok)
{
    gw_arr_str(&v->w, "tokenizer.ggml.tokens", v->texts, v->n);
    gw_arr_i32(&v->w, "tokenizer.ggml.token_type", v->types, v->n);
    gw_arr_f32(&v->w, "tokenizer.ggml.scores", v->scores, v->n);
    size_t n;
    uint8_t *bytes = gw_finish(&v->w, &n);
    struct file *f;
    *tok = NULL;
    kg_status status = file_open_memory(&f, bytes, n, "x.gguf");
    if (status == KG_OK) status = tokenizer_new(tok, f);
    file_close(&f);
    free(bytes);
    return status;
}

static kg_tokenizer *finish_ok(struct vocab *v)
{
    kg_tokenizer *tok;
    if (finish(v, &tok) != KG_OK) fail_msg("%s", kg_error_message());
    assert_non_null(tok);
    return tok;
}

static void finish_fails(struct vocab *v, kg_status status, const char *message)
{
    kg_tokenizer *tok;
    kg_status got = finish(v, &tok);
    assert_null(tok);
    assert_string_equal(kg_error_message(), message);
    assert_int_equal(got, status);
}

static kg_tokenizer *open_ok(const char *path)
{
    kg_tokenizer *tok;
    if (kg_tokenizer_open(&tok, path) != KG_OK) fail_msg("%s", kg_error_message());
    return tok;
}

static void check_ids(const int32_t *ids, size_t n, const int32_t *want, size_t n_want, const char *text)
{
    bool same = n == n_want;
    for (size_t i = 0; i < n && same; i++) same = ids[i] == want[i];
    if (same) return;
    print_message("text: \"%s\"\nwant:", text);
    for (size_t i = 0; i < n_want; i++) print_message(" %d", want[i]);
    print_message("\ngot: ");
    for (size_t i = 0; i < n; i++) print_message(" %d", ids[i]);
    print_message("\n");
    fail_msg("ids differ");
}

static void expect_n(const kg_tokenizer *tok, const char *text, size_t len, unsigned flags, const int32_t *want, size_t n_want)
{
    int32_t *ids;
    size_t n;
    if (kg_tokenize(tok, text, len, flags, &ids, &n) != KG_OK) fail_msg("\"%s\": %s", text, kg_error_message());
    check_ids(ids, n, want, n_want, text);
    kg_free(ids);
}

static void expect(const kg_tokenizer *tok, const char *text, unsigned flags, const int32_t *want, size_t n_want)
{
    expect_n(tok, text, strlen(text), flags, want, n_want);
}

/* Encodes and decodes; `special` both ways. */
static void expect_round_trip(const kg_tokenizer *tok, const char *text, size_t len, bool special)
{
    int32_t *ids;
    size_t n, n_back;
    char *back;
    if (kg_tokenize(tok, text, len, special ? KG_TOKENIZE_SPECIAL : 0, &ids, &n) != KG_OK) fail_msg("%s", kg_error_message());
    assert_int_equal(kg_detokenize(tok, ids, n, special, &back, &n_back), KG_OK);
    assert_int_equal(n_back, len);
    assert_memory_equal(back, text, len);
    assert_int_equal(back[len], 0);
    kg_free(ids);
    kg_free(back);
}

static void expect_text(const kg_tokenizer *tok, const int32_t *ids, size_t n, bool special, const char *want)
{
    char *text;
    size_t len;
    assert_int_equal(kg_detokenize(tok, ids, n, special, &text, &len), KG_OK);
    assert_string_equal(text, want);
    assert_int_equal(len, strlen(want));
    kg_free(text);
}

/* ---- the model of this repository: ids by SentencePiece 0.2 ---------------------------------------- */

static void test_stories(void **state)
{
    (void)state;
    kg_tokenizer *tok = open_ok(SOURCE_DIR "/models/stories-q4_k_m.gguf");
    assert_int_equal(kg_tokenizer_n_vocab(tok), 8192);
    assert_int_equal(kg_tokenizer_bos(tok), 1);
    assert_int_equal(kg_tokenizer_eos(tok), 2);
    expect(tok, "Once upon a time there was a little girl.", 0, IDS(2475, 642, 261, 565, 452, 312, 261, 477, 753, 8145));
    expect(tok, "  two  spaces and\ttab\n", 0, IDS(8123, 8123, 683, 8123, 535, 1530, 278, 12, 8125, 462, 13));
    expect(tok, "na\xc3\xafve caf\xc3\xa9 \xe2\x80\x94 \xe2\x80\x9cquoted\xe2\x80\x9d", 0,
           IDS(299, 8126, 198, 178, 315, 2106, 8141, 198, 172, 8123, 229, 131, 151, 8123, 229, 131, 159, 418, 4073, 229, 131, 160));
    expect(tok, "\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e \xf0\x9f\x99\x82", 0,
           IDS(8123, 233, 154, 168, 233, 159, 175, 235, 173, 161, 8123, 243, 162, 156, 133));
    expect(tok, "x", 0, IDS(8123, 8162));
    expect(tok, "", 0, NULL, 0);
    expect(tok, "", KG_TOKENIZE_BOS, IDS(1));
    expect(tok, "x", KG_TOKENIZE_BOS, IDS(1, 8123, 8162));
    expect(tok, "don't STOP 1234567890", 0,
           IDS(694, 8150, 8125, 361, 8152, 8163, 8170, 8123, 8184, 8188, 8190, 55, 56, 57, 58, 59, 60, 8189));
    expect(tok, "antidisestablishmentarianism", 0, IDS(3161, 309, 281, 446, 462, 1816, 716, 294, 1042, 3348));
    expect(tok, "hi</s> there", KG_TOKENIZE_SPECIAL, IDS(269, 8130, 2, 8123, 452));
    expect(tok, "hi</s> there", 0, IDS(269, 8130, 63, 50, 8131, 65, 452));
    expect_text(tok, IDS(269, 8130, 2, 8123, 452), true, "hi</s> there");
    expect_text(tok, IDS(1, 269, 8130, 2), false, "hi");
    expect_round_trip(tok, "  a \n\n\t b\xff\xc3(\xed\xa0\x80 c  ", 18, false);
    assert_string_equal(kg_token_text(tok, 2), "</s>");
    assert_null(kg_token_text(tok, 8192));
    assert_null(kg_token_text(tok, -1));
    assert_true(kg_token_is_end(tok, 2));
    assert_false(kg_token_is_end(tok, 1));
    assert_false(kg_token_is_end(tok, 8192));
    const char *bytes;
    assert_int_equal(kg_token_bytes(tok, 2, false, &bytes), 0);
    assert_int_equal(kg_token_bytes(tok, 2, true, &bytes), 4);
    assert_memory_equal(bytes, "</s>", 4);
    assert_int_equal(kg_token_bytes(tok, 13, false, &bytes), 1);
    assert_int_equal(bytes[0], '\n');
    assert_int_equal(kg_token_bytes(tok, 452, false, &bytes), 6);
    assert_memory_equal(bytes, " there", 6);
    assert_int_equal(kg_token_bytes(tok, 99999, true, &bytes), 0);
    kg_tokenizer_close(&tok);
    assert_null(tok);
    kg_tokenizer_close(&tok);
    kg_tokenizer_close(NULL);
}

static void test_arguments(void **state)
{
    (void)state;
    struct vocab v;
    spm_begin(&v);
    kg_tokenizer *tok = finish_ok(&v);
    int32_t *ids;
    size_t n;
    char *text;
    assert_int_equal(kg_tokenize(tok, "a", 1, 4, &ids, &n), KG_ERR_ARGUMENT);
    assert_int_equal(kg_tokenize(NULL, "a", 1, 0, &ids, &n), KG_ERR_ARGUMENT);
    assert_int_equal(kg_tokenize(tok, NULL, 1, 0, &ids, &n), KG_ERR_ARGUMENT);
    assert_int_equal(kg_tokenize(tok, "a", SIZE_MAX, 0, &ids, &n), KG_ERR_ARGUMENT);
    assert_int_equal(kg_tokenize(tok, NULL, 0, 0, &ids, &n), KG_OK);
    assert_int_equal(n, 0);
    kg_free(ids);
    assert_int_equal(kg_detokenize(tok, IDS(259), false, &text, &n), KG_ERR_ARGUMENT);
    assert_string_equal(kg_error_message(), "token id 259 is not in the vocabulary (0 to 258)");
    assert_int_equal(kg_detokenize(tok, IDS(-1), false, &text, &n), KG_ERR_ARGUMENT);
    assert_null(text);
    expect_text(tok, NULL, 0, false, "");
    kg_tokenizer_close(&tok);
    assert_int_equal(kg_tokenizer_open(&tok, "no/such/file.gguf"), KG_ERR_IO);
    assert_null(tok);
    assert_int_equal(kg_tokenizer_n_vocab(NULL), 0);
    assert_int_equal(kg_tokenizer_bos(NULL), -1);
}

/* ---- SentencePiece, small cases --------------------------------------------------------------------- */

static void test_spm_merges(void **state)
{
    (void)state;
    struct vocab v;
    spm_begin(&v);
    gw_bool(&v.w, "tokenizer.ggml.add_space_prefix", false);
    int32_t a = add(&v, "a", NORMAL, -9), b = add(&v, "b", NORMAL, -9), aa = add(&v, "aa", NORMAL, -2), ab = add(&v, "ab", NORMAL, -1);
    int32_t aab = add(&v, "aab", NORMAL, -3),
            sa = add(&v,
                     "\xe2\x96\x81"
                     "a",
                     NORMAL, -0.5f),
            sp = add(&v, "\xe2\x96\x81", NORMAL, -8);
    int32_t nx = add(&v, "n\xc3\xa9", NORMAL, -4); /* its characters are no tokens */
    add(&v, "b", NORMAL, 0);                       /* again: the first one counts */
    add(&v, "<0xZZ>", BYTE, 0);
    int32_t neg = add(&v, "<0x-1>", BYTE, 0);
    kg_tokenizer *tok = finish_ok(&v);
    expect(tok, "aaa", 0, IDS(aa, a)); /* leftmost on ties */
    expect(tok, "aaaa", 0, IDS(aa, aa));
    expect(tok, "aab", 0, IDS(aab)); /* ab first, then a + ab */
    expect(tok, "aaab", 0, IDS(aa, ab));
    expect(tok, "bab", 0, IDS(b, ab));
    expect(tok, "b  a", 0, IDS(b, sp, sa));
    expect(tok,
           "b\xe2\x96\x81"
           "a",
           0, IDS(b, sa)); /* U+2581 is a space to SentencePiece */
    expect(tok, "n\xc3\xa9n\xc3", 0, IDS(nx, 3 + 'n', 3 + 0xc3));
    expect(tok, "\xe2\x82\xac", 0, IDS(3 + 0xe2, 3 + 0x82, 3 + 0xac));
    expect_n(tok, "a\0b", 3, 0, IDS(a, 3, b));
    expect(tok, "<0x41>", 0, IDS(3 + '<', 3 + '0', 3 + 'x', 3 + '4', 3 + '1', 3 + '>')); /* never a byte token */
    expect_text(tok, IDS(neg, sa, 3 + 0x41), false, "<0x-1> aA");
    expect_round_trip(tok, " a  b\xff ", 7, false);
    kg_tokenizer_close(&tok);
}

static void test_spm_spaces(void **state)
{
    (void)state;
    for (int squeeze = 0; squeeze < 2; squeeze++) {
        struct vocab v;
        spm_begin(&v);
        if (squeeze) gw_bool(&v.w, "tokenizer.ggml.remove_extra_whitespaces", true);
        int32_t sp = add(&v, "\xe2\x96\x81", NORMAL, -8), a = add(&v, "a", NORMAL, -9),
                sa = add(&v,
                         "\xe2\x96\x81"
                         "a",
                         NORMAL, -1);
        int32_t user = add(&v, "<u>", USER, 0);
        kg_tokenizer *tok = finish_ok(&v);
        expect(tok, "a", 0, IDS(sa));
        if (squeeze) {
            expect(tok, "  a   aa  ", 0, IDS(sa, sa, a));
            expect(tok, "   ", 0, NULL, 0);
        } else {
            expect(tok, "  a   aa  ", 0, IDS(sp, sp, sa, sp, sp, sa, a, sp, sp));
            expect(tok, " ", 0, IDS(sp, sp));
            expect(tok, "a<u>a<u> a", 0, IDS(sa, user, sa, user, sp, sa)); /* the space comes back after special tokens */
            expect_text(tok, IDS(1, sa, user, sa, user, sp, sa, sp), false, "a<u>a<u> a ");
            expect_round_trip(tok, "a<u>a<u> a  <s><s> a</s>\n", 26, true);
        }
        kg_tokenizer_close(&tok);
    }
}

/* Tokens with a space inside: words cannot be merged one by one. */
static void test_spm_space_inside(void **state)
{
    (void)state;
    struct vocab v;
    spm_begin(&v);
    gw_bool(&v.w, "tokenizer.ggml.add_space_prefix", false);
    int32_t a = add(&v, "a", NORMAL, -9), asp = add(&v, "a\xe2\x96\x81", NORMAL, -1),
            all = add(&v,
                      "a\xe2\x96\x81"
                      "a",
                      NORMAL, -2);
    kg_tokenizer *tok = finish_ok(&v);
    expect(tok, "a aa a", 0, IDS(all, all));
    expect(tok, "a a aa", 0, IDS(asp, all, a));
    kg_tokenizer_close(&tok);
}

static void test_spm_without_bytes(void **state)
{
    (void)state;
    struct vocab v = {0};
    gw_str(&v.w, "tokenizer.ggml.model", "llama");
    gw_bool(&v.w, "tokenizer.ggml.add_space_prefix", false);
    gw_u32(&v.w, "tokenizer.ggml.unknown_token_id", 1);
    int32_t a = add(&v, "a", NORMAL, -1), unk = add(&v, "<unk>", UNKNOWN, 0);
    kg_tokenizer *tok = finish_ok(&v);
    expect(tok, "axya\xff", 0, IDS(a, unk, a, unk)); /* one for a run, as SentencePiece does */
    expect_text(tok, IDS(a, unk, a), false, "aa");
    assert_int_equal(kg_tokenizer_bos(tok), 1);  /* the format's default */
    assert_int_equal(kg_tokenizer_eos(tok), -1); /* its default is out of range */
    kg_tokenizer_close(&tok);
}

/* ---- special tokens ---------------------------------------------------------------------------------- */

static void test_special_tokens(void **state)
{
    (void)state;
    struct vocab v;
    bpe_begin(&v, "gpt-2");
    int32_t s = add(&v, "<s>", CONTROL, 0), ss = add(&v, "<s><s>", CONTROL, 0), im = add(&v, "<|im_end|>", CONTROL, 0);
    int32_t u = add(&v, "[u]", USER, 0), uv = add(&v, "[u]v", USER, 0), gap = add(&v, "  ", USER, 0), plain = add(&v, "<|end|>", NORMAL, 0);
    int32_t unk = add(&v, "<unk>", UNKNOWN, 0), eot = add(&v, "E", NORMAL, 0);
    gw_u32(&v.w, "tokenizer.ggml.bos_token_id", (uint32_t)s);
    gw_u32(&v.w, "tokenizer.ggml.eos_token_id", (uint32_t)im);
    gw_u32(&v.w, "tokenizer.ggml.eot_token_id", (uint32_t)eot);
    gw_bool(&v.w, "tokenizer.ggml.add_bos_token", true);
    gw_bool(&v.w, "tokenizer.ggml.add_eos_token", true);
    gw_arr_str(&v.w, "tokenizer.ggml.merges", NULL, 0);
    kg_tokenizer *tok = finish_ok(&v);
    expect(tok, "a<s>b", KG_TOKENIZE_SPECIAL, IDS('a', s, 'b'));
    expect(tok, "a<s>b", 0, IDS('a', '<', 's', '>', 'b'));
    expect(tok, "<s><s><s>", KG_TOKENIZE_SPECIAL, IDS(ss, s)); /* the longest first */
    expect(tok, "<s><<s", KG_TOKENIZE_SPECIAL, IDS(s, '<', '<', 's'));
    expect(tok, "[u][u]v[u", 0, IDS(u, uv, '[', 'u')); /* always */
    expect(tok, "a   b", 0, IDS('a', gap, ' ', 'b'));
    expect(tok, "<unk>", KG_TOKENIZE_SPECIAL, IDS(unk));
    expect(tok, "a", KG_TOKENIZE_BOS, IDS(s, 'a', im));
    expect(tok, "<s>a", KG_TOKENIZE_BOS | KG_TOKENIZE_SPECIAL, IDS(s, s, 'a', im));
    expect_text(tok, IDS(s, 'a', u, im, unk), false, "a[u]");
    expect_text(tok, IDS(s, 'a', u, im, unk), true, "<s>a[u]<|im_end|><unk>");
    assert_true(kg_token_is_end(tok, im));
    assert_true(kg_token_is_end(tok, eot));
    assert_false(kg_token_is_end(tok, plain)); /* plain text can spell it */
    assert_false(kg_token_is_end(tok, s));
    kg_tokenizer_close(&tok);
}

static void test_ends(void **state)
{
    (void)state;
    for (int harmony = 0; harmony < 2; harmony++) {
        struct vocab v;
        spm_begin(&v);
        int32_t end = add(&v, "<|end|>", CONTROL, 0), turn = add(&v, "<end_of_turn>", USER, 0);
        int32_t back = harmony ? add(&v, "<|return|>", CONTROL, 0) : end, call = harmony ? add(&v, "<|call|>", CONTROL, 0) : end;
        kg_tokenizer *tok = finish_ok(&v);
        assert_int_equal(kg_token_is_end(tok, end), !harmony);
        assert_int_equal(kg_token_is_end(tok, back), true);
        assert_int_equal(kg_token_is_end(tok, call), true);
        assert_true(kg_token_is_end(tok, turn));
        assert_true(kg_token_is_end(tok, 2));
        kg_tokenizer_close(&tok);
    }
}

static void test_phi3_strips(void **state)
{
    (void)state;
    for (int named = 0; named < 2; named++) {
        struct vocab v;
        spm_begin(&v);
        gw_str(&v.w, "general.name", named ? "Phi-3 Mini" : "other");
        gw_bool(&v.w, "tokenizer.ggml.add_space_prefix", false);
        int32_t user = add(&v, "<|user|>", CONTROL, 0);
        kg_tokenizer *tok = finish_ok(&v);
        if (named)
            expect(tok, "<|user|>\n x<s> ", KG_TOKENIZE_SPECIAL, IDS(user, 3 + 'x', 1, 3 + ' '));
        else
            expect(tok, "<|user|>\n x<s> ", KG_TOKENIZE_SPECIAL, IDS(user, 3 + '\n', 3 + ' ', 3 + 'x', 1, 3 + ' '));
        kg_tokenizer_close(&tok);
    }
}

/* ---- byte-level BPE, small cases ---------------------------------------------------------------------- */

static void test_bpe_merges(void **state)
{
    (void)state;
    struct vocab v;
    bpe_begin(&v, "gpt-2");
    int32_t ab = add(&v, "ab", NORMAL, 0), bc = add(&v, "bc", NORMAL, 0), abcd = add(&v, "abcd", NORMAL, 0);
    int32_t sab = add(&v, bytelevel(&v, " ab"), NORMAL, 0), e = add(&v, bytelevel(&v, "\xc3\xa9"), NORMAL, 0),
            aa = add(&v, "aa", NORMAL, 0);
    int32_t far = add(&v, "zz", NORMAL, 0); /* no merge leads to it */
    const char *merges[] = {"b c", "a b", bytelevel(&v, "\xc3"), bytelevel(&v, " "), "c d", "ab cd", "a a", "b c"};
    char e_merge[8], space_merge[8];
    snprintf(e_merge, sizeof e_merge, "%s %s", merges[2], bytelevel(&v, "\xa9"));
    snprintf(space_merge, sizeof space_merge, "%s ab", merges[3]);
    merges[2] = e_merge;
    merges[3] = space_merge;
    gw_arr_str(&v.w, "tokenizer.ggml.merges", merges, COUNT_OF(merges));
    kg_tokenizer *tok = finish_ok(&v);
    expect(tok, "abc", 0, IDS('a', bc));
    expect(tok, "ab ab", 0, IDS(ab, sab));
    expect(tok, "cdcd", 0, IDS('c', 'd', 'c', 'd')); /* "cd" is a step on the way, no token */
    expect(tok, "abcd", 0, IDS('a', bc, 'd'));
    expect(tok, "abxabcd", 0, IDS(ab, 'x', 'a', bc, 'd'));
    expect(tok, "aaa", 0, IDS(aa, 'a'));
    expect(tok, "zz", 0, IDS('z', 'z'));
    expect(tok, "\xc3\xa9", 0, IDS(e));
    expect(tok,
           "a\xff\xfe"
           "b\xc3",
           0, IDS('a', 0xff, 0xfe, 'b', 0xc3)); /* not UTF-8: bytes */
    expect_text(tok, IDS(sab, e, far, abcd, 0xff), false, " ab\xc3\xa9zzabcd\xff");
    expect(tok, "a", KG_TOKENIZE_BOS, IDS('a')); /* none by default */
    assert_int_equal(kg_tokenizer_bos(tok), -1);
    kg_tokenizer_close(&tok);
}

static void test_bpe_whole_words(void **state)
{
    (void)state;
    for (int llama = 0; llama < 2; llama++) {
        struct vocab v;
        bpe_begin(&v, llama ? "llama-bpe" : "qwen2");
        int32_t word = add(&v, "word", NORMAL, 0), bos = add(&v, "<b>", CONTROL, 0);
        gw_u32(&v.w, "tokenizer.ggml.bos_token_id", (uint32_t)bos);
        gw_arr_str(&v.w, "tokenizer.ggml.merges", NULL, 0);
        kg_tokenizer *tok = finish_ok(&v);
        if (llama)
            expect(tok, "word", KG_TOKENIZE_BOS, IDS(bos, word)); /* in the vocabulary: no merges needed */
        else
            expect(tok, "word", KG_TOKENIZE_BOS, IDS('w', 'o', 'r', 'd'));
        kg_tokenizer_close(&tok);
    }
}

static void test_bpe_missing_bytes(void **state)
{
    (void)state;
    for (int kind = 0; kind < 3; kind++) {
        struct vocab v = {0};
        gw_str(&v.w, "tokenizer.ggml.model", "gpt2");
        int32_t a = add(&v, "a", NORMAL, 0), x = -1;
        if (kind == 1) x = add(&v, bytelevel(&v, "\xef\xbf\xbd"), NORMAL, 0);
        if (kind == 2) gw_u32(&v.w, "tokenizer.ggml.unknown_token_id", (uint32_t)(x = add(&v, "[UNK]", UNKNOWN, 0)));
        char first[8], second[8];
        snprintf(first, sizeof first, "%s %s", bytelevel(&v, "\xef"), bytelevel(&v, "\xbf"));
        snprintf(second, sizeof second, "%s %s", bytelevel(&v, "\xef\xbf"), bytelevel(&v, "\xbd"));
        gw_arr_str(&v.w, "tokenizer.ggml.merges", (const char *[]){first, second}, 2);
        kg_tokenizer *tok = finish_ok(&v);
        if (kind == 0) {
            int32_t *ids;
            size_t n;
            assert_int_equal(kg_tokenize(tok, "ab", 2, 0, &ids, &n), KG_ERR_UNSUPPORTED);
            assert_string_equal(kg_error_message(), "the vocabulary has no token for byte 0x62, for U+FFFD or for the unknown");
            assert_null(ids);
        } else {
            expect(tok, "abba\xff", 0, IDS(a, x, a, x));
        }
        kg_tokenizer_close(&tok);
    }
}

static void test_unusual_tokens(void **state)
{
    (void)state;
    struct vocab v;
    bpe_begin(&v, NULL);
    int32_t raw = add(&v, "x y\xe2\x82\xac", NORMAL, 0), none = add(&v, "", NORMAL, 0), nl = add(&v, "\xc4\x8a!", USER, 0);
    gw_arr_str(&v.w, "tokenizer.ggml.merges", (const char *[]){"a \xe2\x82\xac"}, 1);
    kg_tokenizer *tok = finish_ok(&v);
    expect_text(tok, IDS(raw, none, nl), false, "x y\xe2\x82\xac\xc4\x8a!");
    expect(tok, "x y", 0, IDS('x', ' ', 'y'));
    kg_tokenizer_close(&tok);
}

/* ---- textbook merges over random vocabularies ---------------------------------------------------------- */

static uint32_t random_u32(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*seed >> 33);
}

static bool is_text(const struct vocab *v, size_t id, const char *s, size_t n)
{
    return v->types[id] == NORMAL && strlen(v->texts[id]) == n && memcmp(v->texts[id], s, n) == 0;
}

/* One word, merged by looking at every pair again and again. */
static size_t textbook(const struct vocab *v, bool spm, const char *const *merges, size_t n_merges, const char *word, size_t n,
                       int32_t *ids)
{
    size_t start[513], n_parts = n; /* part i is word[start[i]] .. word[start[i + 1] - 1] */
    assert_true(n <= 512);
    for (size_t i = 0; i <= n; i++) start[i] = i;
    for (;;) {
        double best = 1e30;
        size_t at = SIZE_MAX;
        for (size_t i = 0; i + 1 < n_parts; i++) {
            const char *a = word + start[i], *b = word + start[i + 1];
            size_t n_a = start[i + 1] - start[i], n_b = start[i + 2] - start[i + 1];
            double rank = 1e30;
            for (size_t k = 0; spm && k < v->n && rank > 1e29; k++)
                if (is_text(v, k, a, n_a + n_b)) rank = -(double)v->scores[k];
            for (size_t k = 0; !spm && k < n_merges && rank > 1e29; k++) {
                const char *m = merges[k];
                if (strlen(m) == n_a + 1 + n_b && memcmp(m, a, n_a) == 0 && m[n_a] == ' ' && memcmp(m + n_a + 1, b, n_b) == 0)
                    rank = (double)k;
            }
            if (rank < best) best = rank, at = i;
        }
        if (at == SIZE_MAX) break;
        memmove(&start[at + 1], &start[at + 2], (n_parts - at - 1) * sizeof *start);
        n_parts--;
    }
    for (size_t i = 0; i < n_parts; i++) {
        ids[i] = -1;
        for (size_t k = 0; k < v->n && ids[i] < 0; k++)
            if (is_text(v, k, word + start[i], start[i + 1] - start[i])) ids[i] = (int32_t)k;
        assert_true(ids[i] >= 0);
    }
    return n_parts;
}

static void random_text(uint64_t *seed, size_t n, char *out)
{
    for (size_t i = 0; i < n; i++) out[i] = (char)('a' + random_u32(seed) % 3);
    out[n] = 0;
}

static void test_random_merges(void **state)
{
    (void)state;
    uint64_t seed = 20261122;
    for (int round = 0; round < 40; round++) {
        bool spm = round % 2;
        struct vocab v;
        const char *merges[64];
        size_t n_merges = 0;
        if (spm) {
            spm_begin(&v);
            gw_bool(&v.w, "tokenizer.ggml.add_space_prefix", false);
            for (int c = 'a'; c <= 'c'; c++) add(&v, (char[]){(char)c, 0}, NORMAL, -100);
        } else {
            bpe_begin(&v, "gpt-2");
        }
        for (int i = 0; i < 40; i++) { /* new tokens are two old ones together, so that long ones can be reached */
            size_t old = spm ? 259 : 256, n_old = v.n - old + (spm ? 0 : 3);
            uint32_t r[2] = {random_u32(&seed) % (uint32_t)n_old, random_u32(&seed) % (uint32_t)n_old};
            const char *half[2];
            for (int k = 0; k < 2; k++) half[k] = spm ? v.texts[old + r[k]] : r[k] < 3 ? v.texts['a' + r[k]] : v.texts[old + r[k] - 3];
            if (strlen(half[0]) + strlen(half[1]) > 14) continue;
            char text[32];
            snprintf(text, sizeof text, "%s %s", half[0], half[1]);
            merges[n_merges++] = strcpy(vocab_room(&v, strlen(text) + 1), text);
            snprintf(text, sizeof text, "%s%s", half[0], half[1]);
            add(&v, text, NORMAL, -(float)(random_u32(&seed) % 20));
        }
        if (!spm) gw_arr_str(&v.w, "tokenizer.ggml.merges", merges, n_merges);
        kg_tokenizer *tok = finish_ok(&v);
        for (size_t n = 1; n < 300; n += n < 60 ? 1 : 37) {
            char text[512];
            int32_t want[512];
            random_text(&seed, n, text);
            size_t n_want = textbook(&v, spm, merges, n_merges, text, n, want);
            expect(tok, text, 0, want, n_want);
        }
        kg_tokenizer_close(&tok);
    }
}

/* The cache of words that long texts use must not show. */
static void test_cache(void **state)
{
    (void)state;
    uint64_t seed = 7;
    kg_tokenizer *tok = open_ok(SOURCE_DIR "/models/stories-q4_k_m.gguf");
    enum { N = 60000 };
    char *text = malloc(N);
    size_t n = 0;
    while (n + 32 < N) {
        text[n++] = ' ';
        for (uint32_t k = random_u32(&seed) % 20; k > 0; k--) text[n++] = "etaoinE.\xc3\xa9"[random_u32(&seed) % 10];
    }
    int32_t *ids, *part;
    size_t n_ids, n_part, done = 0;
    assert_int_equal(kg_tokenize(tok, text, n, 0, &ids, &n_ids), KG_OK);
    for (size_t i = 0; i < n;) { /* word by word: too short for the cache */
        size_t end = i;
        while (end < n && text[end] == ' ') end++;
        while (end < n && text[end] != ' ') end++;
        size_t skip = i > 0; /* the space comes from the prefix */
        assert_int_equal(kg_tokenize(tok, text + i + skip, end - i - skip, 0, &part, &n_part), KG_OK);
        if (end - i > skip) {
            assert_true(done + n_part <= n_ids);
            assert_memory_equal(part, ids + done, n_part * sizeof *part);
            done += n_part;
        } else {
            assert_int_equal(ids[done++], 8123);
        }
        kg_free(part);
        i = end;
    }
    assert_int_equal(done, n_ids);
    kg_free(ids);
    free(text);
    kg_tokenizer_close(&tok);
}

/* ---- names and sizes */

static void test_unknown_pre(void **state)
{
    (void)state;
    struct vocab v;
    bpe_begin(&v, "my-own");
    gw_arr_str(&v.w, "tokenizer.ggml.merges", NULL, 0);
    kg_tokenizer *tok;
    assert_int_equal(finish(&v, &tok), KG_ERR_UNSUPPORTED);
    const char *message = kg_error_message();
    assert_non_null(strstr(message, "x.gguf: tokenizer.ggml.pre: pre-tokenizer 'my-own' is not known; those known are default, gpt-2, "));
    assert_non_null(strstr(message, "exaone-moe and their aliases"));
}

/* A million bytes of one kind. */
static void test_long_runs(void **state)
{
    (void)state;
    enum { N = 1000000 };
    char *text = malloc(N + 1);
    struct vocab v;
    bpe_begin(&v, "qwen2");
    int32_t twice = add(&v, "aa", NORMAL, 0), four = add(&v, "aaaa", NORMAL, 0);
    gw_arr_str(&v.w, "tokenizer.ggml.merges", (const char *[]){"a a", "aa aa"}, 2);
    kg_tokenizer *bpe = finish_ok(&v), *spm = open_ok(SOURCE_DIR "/models/stories-q4_k_m.gguf");
    memset(text, 'a', N);
    int32_t *ids;
    size_t n;
    assert_int_equal(kg_tokenize(bpe, text, N - 1, 0, &ids, &n), KG_OK);
    assert_int_equal(n, N / 4 + 1);
    assert_int_equal(ids[0], four);
    assert_int_equal(ids[n - 3], four);
    assert_int_equal(ids[n - 2], twice);
    assert_int_equal(ids[n - 1], 'a');
    kg_free(ids);
    expect_round_trip(spm, text, N, false);
    memset(text, ' ', N);
    expect_round_trip(spm, text, N, false);
    expect_round_trip(bpe, text, N, false);
    memset(text, 0xff, N);
    expect_round_trip(spm, text, N, false);
    expect_round_trip(bpe, text, N, false);
    kg_tokenizer_close(&bpe);
    kg_tokenizer_close(&spm);
    free(text);
}

/* ---- broken vocabularies -------------------------------------------------------------------------------- */

static void test_broken(void **state)
{
    (void)state;
    struct vocab v = {0};
    gw_str(&v.w, "tokenizer.ggml.model", "plamo2");
    finish_fails(&v, KG_ERR_UNSUPPORTED,
                 "x.gguf: tokenizer.ggml.model: tokenizer model 'plamo2' is not supported; those known are llama, gpt2, bert, t5, gemma4, rwkv");
    spm_begin(&v);
    v.n = 0;
    finish_fails(&v, KG_ERR_FORMAT, "x.gguf: tokenizer.ggml.tokens has 0 items");
    spm_begin(&v);
    v.types[5] = 7;
    finish_fails(&v, KG_ERR_FORMAT, "x.gguf: tokenizer.ggml.token_type: item 5 is 7, which is no token type");
    spm_begin(&v);
    v.scores[258] = f32_from_bits(0x7fc00000u);
    finish_fails(&v, KG_ERR_FORMAT, "x.gguf: tokenizer.ggml.scores: item 258 is not a number");
    spm_begin(&v);
    gw_u32(&v.w, "tokenizer.ggml.eos_token_id", 259);
    finish_fails(&v, KG_ERR_FORMAT, "x.gguf: tokenizer.ggml.eos_token_id is 259, the vocabulary has 259 tokens");
    static const char *const merges[] = {"ab", "", " ", "a ", " a", "a  "};
    for (size_t i = 0; i < COUNT_OF(merges); i++) {
        bpe_begin(&v, NULL);
        gw_arr_str(&v.w, "tokenizer.ggml.merges", (const char *[]){"a b", merges[i]}, 2);
        if (i == 5) { /* the space is no letter of the byte alphabet: a merge that never applies */
            kg_tokenizer *tok = finish_ok(&v);
            expect(tok, "ab", 0, IDS('a', 'b'));
            kg_tokenizer_close(&tok);
        } else {
            finish_fails(&v, KG_ERR_FORMAT, "x.gguf: tokenizer.ggml.merges: item 1 is not two texts with a space between");
        }
    }

    struct file *f;
    kg_tokenizer *tok = (kg_tokenizer *)&v;
    size_t n;
    struct gw w = {0};
    gw_str(&w, "general.architecture", "llama");
    uint8_t *bytes = gw_finish(&w, &n);
    assert_int_equal(file_open_memory(&f, bytes, n, "x.gguf"), KG_OK);
    assert_int_equal(tokenizer_new(&tok, f), KG_OK); /* no vocabulary at all is fine */
    assert_null(tok);
    file_close(&f);
    free(bytes);

    gw_str(&w, "tokenizer.ggml.model", "llama");
    gw_arr_str(&w, "tokenizer.ggml.tokens", (const char *[]){"a", "b"}, 2);
    gw_arr_f32(&w, "tokenizer.ggml.scores", (float[]){1}, 1);
    bytes = gw_finish(&w, &n);
    assert_int_equal(file_open_memory(&f, bytes, n, "x.gguf"), KG_OK);
    assert_int_equal(tokenizer_new(&tok, f), KG_ERR_FORMAT);
    assert_string_equal(kg_error_message(), "x.gguf: tokenizer.ggml.scores has 1 items, tokenizer.ggml.tokens has 2");
    file_close(&f);
    free(bytes);
}

/* ---- threads ------------------------------------------------------------------------------------------------ */

struct job {
    const kg_tokenizer *tok;
    const char *text;
    int32_t *ids;
    size_t n;
};

static void *run_job(void *arg)
{
    struct job *j = arg;
    for (int i = 0; i < 20; i++) {
        kg_free(j->ids);
        if (kg_tokenize(j->tok, j->text, strlen(j->text), 0, &j->ids, &j->n) != KG_OK) return arg;
    }
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    char text[9000];
    for (size_t i = 0; i < sizeof text - 1; i++) text[i] = "the old woman, 12 of them!\n"[i % 27];
    text[sizeof text - 1] = 0;
    struct vocab v;
    bpe_begin(&v, "llama-bpe");
    gw_arr_str(&v.w, "tokenizer.ggml.merges", (const char *[]){"t h", "th e", "o l"}, 3);
    kg_tokenizer *tok = finish_ok(&v);
    struct job jobs[4];
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        jobs[i] = (struct job){tok, text, NULL, 0};
        assert_int_equal(pthread_create(&threads[i], NULL, run_job, &jobs[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
    for (int i = 1; i < 4; i++) check_ids(jobs[i].ids, jobs[i].n, jobs[0].ids, jobs[0].n, "threads");
    for (int i = 0; i < 4; i++) kg_free(jobs[i].ids);
    kg_tokenizer_close(&tok);
}

/* ---- data from elsewhere, where it is there --------------------------------------------------------------- */

static const char *const shared_vocabs[] = {"falcon", "gpt-2", "llama-bpe", "llama-spm", "phi-3", "starcoder"};

static void need_shared(const char *what)
{
    if (access(SHARED_DIR "/tokenizers", R_OK) == 0) return;
    print_message("skipped: %s needs %s\n", what, SHARED_DIR "/tokenizers");
    skip();
}

static char *read_all(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    if (!f) fail_msg("cannot read %s", path);
    char *text = malloc(1 << 20);
    *n = fread(text, 1, (1 << 20) - 1, f);
    text[*n] = 0;
    fclose(f);
    return text;
}

static void test_shared_cases(void **state)
{
    (void)state;
    need_shared("the cases of real vocabularies");
    for (size_t i = 0; i < COUNT_OF(shared_vocabs); i++) {
        char path[512];
        size_t n, n_cases = 0;
        int len = snprintf(path, sizeof path, "%s/tokenizers/ggml-vocab-%s.gguf", SHARED_DIR, shared_vocabs[i]);
        kg_tokenizer *tok = open_ok(path);
        strcpy(path + len, ".inp");
        char *inputs = read_all(path, &n), *input = inputs;
        strcpy(path + len, ".out");
        char *outputs = read_all(path, &n), *output = outputs;
        while (*output) {
            static const char separator[] = "\n__ggml_vocab_test__\n";
            char *end = strstr(input, separator), *line_end = strchr(output, '\n');
            if (!line_end) break;
            int32_t want[4096];
            size_t n_want = 0;
            *line_end = 0;
            for (char *p = output, *q; (void)0, want[n_want] = (int32_t)strtol(p, &q, 10), q != p; p = q) n_want++;
            expect_n(tok, input, end ? (size_t)(end - input) : strlen(input), 0, want, n_want);
            n_cases++;
            output = line_end + 1;
            if (!end) break;
            input = end + strlen(separator);
        }
        assert_true(n_cases >= 46);
        free(inputs);
        free(outputs);
        kg_tokenizer_close(&tok);
    }
}

static void test_shared_languages(void **state)
{
    (void)state;
    need_shared("text in 83 languages");
    kg_tokenizer *toks[COUNT_OF(shared_vocabs) + 2];
    char path[512];
    for (size_t i = 0; i < COUNT_OF(shared_vocabs); i++) {
        snprintf(path, sizeof path, "%s/tokenizers/ggml-vocab-%s.gguf", SHARED_DIR, shared_vocabs[i]);
        toks[i] = open_ok(path);
    }
    toks[COUNT_OF(shared_vocabs)] = open_ok(SHARED_DIR "/models/gpt2-f16.gguf");
    toks[COUNT_OF(shared_vocabs) + 1] = open_ok(SOURCE_DIR "/models/stories-q4_k_m.gguf");
    DIR *d = opendir(SHARED_DIR "/tokenizers/unicode_text");
    assert_non_null(d);
    int n_files = 0;
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/tokenizers/unicode_text/%s", SHARED_DIR, e->d_name);
        size_t n;
        char *text = read_all(path, &n);
        for (size_t i = 0; i < COUNT_OF(toks); i++) expect_round_trip(toks[i], text, n, false);
        free(text);
        n_files++;
    }
    closedir(d);
    assert_int_equal(n_files, 83);
    for (size_t i = 0; i < COUNT_OF(toks); i++) kg_tokenizer_close(&toks[i]);
}

/* ids by Hugging Face tokenizers 0.23 */
static void test_shared_gpt2(void **state)
{
    (void)state;
    need_shared("gpt2-f16.gguf");
    kg_tokenizer *tok = open_ok(SHARED_DIR "/models/gpt2-f16.gguf");
    expect(tok, "Once upon a time there was a little girl.", 0, IDS(2447, 653, 259, 555, 450, 306, 259, 466, 742, 14));
    expect(tok, "  two  spaces and\ttab\n", 0, IDS(221, 676, 221, 452, 1579, 274, 198, 84, 444, 199));
    expect(tok, "na\xc3\xafve caf\xc3\xa9 \xe2\x80\x94 \xe2\x80\x9cquoted\xe2\x80\x9d", 0,
           IDS(2946, 128, 108, 314, 2094, 70, 128, 103, 221, 159, 223, 243, 221, 159, 223, 251, 424, 303, 271, 159, 223, 252));
    expect(tok, "don't STOP 1234567890", 0, IDS(68, 291, 436, 364, 52, 47, 48, 1444, 18, 19, 20, 21, 22, 23, 24, 25, 16));
    expect(tok, "antidisestablishmentarianism", 0, IDS(412, 309, 279, 437, 444, 1788, 753, 292, 1007, 3344));
    kg_tokenizer_close(&tok);
}

static void test_shared_hostile(void **state)
{
    (void)state;
    need_shared("hostile vocabularies");
    static const struct {
        const char *name;
        kg_status status;
    } files[] = {{"control_valid_vocab", KG_OK},
                 {"vocab_scores_short", KG_ERR_FORMAT},
                 {"vocab_types_short", KG_ERR_FORMAT},
                 {"vocab_byte_neg", KG_OK},
                 {"vocab_long_token", KG_OK},
                 {"merges_no_space", KG_ERR_FORMAT},
                 {"control_valid_tensor", KG_ERR_FORMAT}};
    for (size_t i = 0; i < COUNT_OF(files); i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/hostile/gguf/%s.gguf", SHARED_DIR, files[i].name);
        kg_tokenizer *tok;
        kg_status status = kg_tokenizer_open(&tok, path);
        if (status != files[i].status) fail_msg("%s: %d, %s", files[i].name, status, kg_error_message());
        if (tok) expect_round_trip(tok, "<0x-1> <0xZZ> \xc3\xa9\xff", 17, false);
        kg_tokenizer_close(&tok);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stories),
        cmocka_unit_test(test_arguments),
        cmocka_unit_test(test_spm_merges),
        cmocka_unit_test(test_spm_spaces),
        cmocka_unit_test(test_spm_space_inside),
        cmocka_unit_test(test_spm_without_bytes),
        cmocka_unit_test(test_special_tokens),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_phi3_strips),
        cmocka_unit_test(test_bpe_merges),
        cmocka_unit_test(test_bpe_whole_words),
        cmocka_unit_test(test_bpe_missing_bytes),
        cmocka_unit_test(test_unusual_tokens),
        cmocka_unit_test(test_random_merges),
        cmocka_unit_test(test_cache),
        cmocka_unit_test(test_unknown_pre),
        cmocka_unit_test(test_long_runs),
        cmocka_unit_test(test_broken),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_shared_cases),
        cmocka_unit_test(test_shared_languages),
        cmocka_unit_test(test_shared_gpt2),
        cmocka_unit_test(test_shared_hostile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
