/* What a tokenizer.json does to a text before byte-level BPE -> the name that llama.cpp has for it (tokenizer.ggml.pre). The steps become one line, in
 * which different spellings of a step are one, and the line is looked up. */
#include "file/hf_vocab.h"
#include "file/words.h"

#define CL100K_WITHOUT(digits) "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define CL100K(digits) CONTRACTION "|" CL100K_WITHOUT(digits)
#define O200K(suffix, digits)                                                                                                          \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" suffix "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*" suffix "|" digits                   \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define GPT2_REST " ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define BLOOM " ?[^(\\s|[.,!?\\x{2026}\\x{3002}\\x{FF0C}\\x{3001}\\x{964}\\x{6D4}\\x{60C}])]+"
#define DEEPSEEK3(marks, lines) ASCII_PUNCTUATION_WORD "|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+" marks "|" lines "|\\s+(?!\\S)|\\s+"
#define NOT_HAN(class) "[" class "&&[^\\p{Han}]]"
#define SPLIT(pattern) "split " pattern "|"
#define DIGIT SPLIT("\\p{N}")

/* with_ignore: the name where a word that is a token needs no merges (the other flag goes along as a key of our own); alone: text/pretokenizer.c does
 * by the name exactly what the steps do, so they need not be kept beside it. */
static const struct {
    const char *steps, *name, *with_ignore;
    bool alone;
} known[] = {
    {"bytes+", "gpt-2", NULL, true},
    {SPLIT("'(?:[sdmt]|ll|ve|re)|" GPT2_REST) "bytes", "gpt-2", NULL, true},
    {SPLIT("'s|'t|'re|'ve|'m|'ll|'d|" GPT2_REST) "bytes", "gpt-2", NULL, true},
    {DIGIT "bytes+", "starcoder", NULL, true},
    {SPLIT(CL100K("\\p{N}{1,3}")) "bytes", "dbrx", "llama-bpe", true},
    {SPLIT(CL100K("\\p{N}")) "bytes", "qwen2", NULL, true},
    {SPLIT(CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+") "bytes", "qwen35", NULL, true},
    {SPLIT(O200K(CONTRACTION "?", "\\p{N}{1,3}")) "bytes", "gpt-4o", NULL, true},
    {SPLIT(O200K("", "\\p{N}")) "bytes", NULL, "tekken", true},
    {"punctuation+|bytes+|digits+|" SPLIT("[0-9][0-9][0-9]"), "falcon", NULL, false},
    {SPLIT(BLOOM) "bytes", "bloom", NULL, true},
    {DIGIT SPLIT(BLOOM) "bytes", "viking", NULL, false},
    {SPLIT(BLOOM) DIGIT "bytes", "viking", NULL, true},
    {SPLIT("[\\r\\n]") SPLIT("\\s?[" DEEPSEEK_LETTERS "]+") SPLIT("\\s?" DEEPSEEK_MARKS) SPLIT("\\s+$") SPLIT(DEEPSEEK_CJK) DIGIT "bytes", "deepseek-llm", NULL, true},
    {SPLIT("[\\r\\n]") SPLIT("\\s?\\p{L}+") SPLIT("\\s?\\p{P}+") SPLIT(DEEPSEEK_CJK) DIGIT "bytes", "deepseek-coder", NULL, true},
    {SPLIT(DIGITS_1_3) SPLIT(KANA_HAN) SPLIT(DEEPSEEK3("[\\r\\n]*", "\\s*[\\r\\n]+")) "bytes", "deepseek-v3", NULL, true},
    {SPLIT(DIGITS_1_3) SPLIT(KANA_HAN) SPLIT(DEEPSEEK3("", "[\\r\\n]")) DIGIT "bytes", "spark2_5", NULL, true},
    {SPLIT("\\p{Nd}{1,510}(?=(?>\\p{Nd}{510})*(?:\\P{Nd}|$))|\\G\\p{Nd}{510}") SPLIT("\\A\\p{Nd}{1,2}(?=\\p{Nd}{3}+\\z)") SPLIT("\\A\\p{Nd}{3}|\\G\\p{Nd}{3}")
         SPLIT(AFMOE_SCRIPTS) SPLIT(DEEPSEEK3("[\\r\\n]*", "\\s*[\\r\\n]+")) "bytes", "afmoe", NULL, true},
    {SPLIT(YOUTU_CJK) SPLIT(O200K(CONTRACTION "?", "\\p{N}")) "bytes", NULL, "youtu", true},
    {SPLIT("\\d{1,3}(?=(?:\\d{3})*\\b)") SPLIT(O200K(CONTRACTION "?", "\\p{N}{1,3}")) "bytes", "tiny_aya", NULL, true},
    {SPLIT(DIGITS_1_3) SPLIT(CL100K("\\p{N}+")) "bytes", NULL, "minicpm5", true},
    {"next (?:\\r?\\n)+(?!\\r?\\n)|" SPLIT(CL100K("\\p{N}")) "bytes", "laguna", NULL, true},
    {SPLIT(CL100K_WITHOUT("\\p{N}")) "bytes", "ufakzeka", NULL, true},
    {SPLIT("[\\p{Han}]+|[^\\r\\n\\p{L}\\p{N}]?" NOT_HAN(UPPER_LETTERS) "*" NOT_HAN(LOWER_LETTERS) "+" CONTRACTION "?|[^\\r\\n\\p{L}\\p{N}]?" NOT_HAN(UPPER_LETTERS) "+" NOT_HAN(LOWER_LETTERS) "*" CONTRACTION
           "?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+") "bytes", "kimi-k2", NULL, true},
    {SPLIT("\\p{N}+") SPLIT("(?=(\\d{3})+(?!\\d))") "bytes", "superbpe", NULL, false},
    {SPLIT(CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+") "bytes", "seed-coder", NULL, true},
    {SPLIT("'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+") "bytes", "bailingmoe", NULL, true},
    {SPLIT(CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?(?:\\p{L}\\p{M}*(?: \\p{L}\\p{M}*)*)+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]?|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+") "bytes", "exaone-moe", NULL, true},
    {SPLIT(CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s{512}(?!\\S)|\\s{256}(?!\\S)|\\s{128}(?!\\S)|\\s{64}(?!\\S)|"
           "\\s{32}(?!\\S)|\\s{16}(?!\\S)|\\s{8}(?!\\S)|\\s{4}(?!\\S)|\\s{1,2}(?!\\S)|\\s") "bytes", "jais-2", NULL, true},
};

#define is hf_is
#define get hf_get

enum { MAX_DEPTH = 4 };

/* The character at s, which the JSON's reader has found valid, or spelled \uXXXX. Returns how many bytes it takes; 0: another. */
static size_t high_char(const char *s, unsigned *code)
{
    const unsigned char *u = (const unsigned char *)s;
    if (u[0] == '\\' && u[1] == 'u' && strspn(s + 2, "0123456789abcdefABCDEF") >= 4) {
        const char digits[5] = {s[2], s[3], s[4], s[5], 0};
        *code = (unsigned)strtoul(digits, NULL, 16);
        return 6;
    }
    if (u[0] < 0xc0) return 0;
    const size_t n = u[0] < 0xe0 ? 2 : u[0] < 0xf0 ? 3 : 4;
    *code = u[0] & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) *code = *code << 6 | (u[i] & 0x3fu);
    return n;
}

/* Line ends and characters beyond ASCII as escapes, and no {1}. */
static kg_status describe_pattern(struct buf *b, const char *s)
{
    while (*s) {
        unsigned code;
        const size_t n = high_char(s, &code);
        if (n > 0) {
            KG_TRY(buf_printf(b, "\\x{%X}", code));
            s += n;
        } else if (strncmp(s, "{1}", 3) == 0) {
            s += 3;
        } else if (*s == '\r' || *s == '\n') {
            KG_TRY(buf_printf(b, "%s", *s++ == '\r' ? "\\r" : "\\n"));
        } else {
            const size_t k = s[0] == '\\' && s[1] ? 2 : 1;
            KG_TRY(buf_append(b, s, k));
            s += k;
        }
    }
    return buf_append(b, "|", 1);
}

static kg_status describe(struct buf *b, const json_t *p, int depth)
{
    const json_t *type = get(p, "type"), *regex = get(get(p, "pattern"), "Regex"), *list = get(p, "pretokenizers"), *behavior = get(p, "behavior");
    if (is(type, "Sequence") && depth < MAX_DEPTH) {
        for (size_t i = 0; i < json_array_size(list); i++) KG_TRY(describe(b, json_array_get(list, i), depth + 1));
        return KG_OK;
    }
    if (is(type, "ByteLevel") && !json_is_true(get(p, "add_prefix_space"))) return buf_printf(b, json_is_false(get(p, "use_regex")) ? "bytes|" : "bytes+|");
    if (is(type, "Digits")) return buf_printf(b, json_is_true(get(p, "individual_digits")) ? DIGIT : "digits+|");
    if (is(type, "Punctuation") && is(behavior, "Contiguous")) return buf_printf(b, "punctuation+|");
    if (!is(type, "Split") || !json_is_string(regex)) return hf_refuse("pre_tokenizer", p);
    const bool invert = json_is_true(get(p, "invert")), isolated = is(behavior, "Isolated") && !invert, removed = is(behavior, "Removed") && invert;
    if (is(behavior, "MergedWithNext") && !invert) KG_TRY(buf_printf(b, "next "));
    else if (isolated || removed) KG_TRY(buf_printf(b, "split "));
    else return hf_refuse("pre_tokenizer", p);
    return describe_pattern(b, json_string_value(regex));
}

kg_status hf_find_pre(const json_t *steps, bool ignore_merges, struct hf_pre *out)
{
    struct buf b = {0};
    *out = (struct hf_pre){NULL, false, false};
    kg_status st = describe(&b, steps, 0);
    for (size_t i = 0; i < COUNT_OF(known) && st == KG_OK && !out->name; i++) {
        const size_t n = strlen(known[i].steps);
        /* a line ends with a bar, a row need not */
        if (b.len - n > 1 || n > b.len || memcmp(known[i].steps, b.data, n) != 0) continue;
        const char *one = known[i].name, *other = known[i].with_ignore;
        out->name = ignore_merges ? (other ? other : one) : one ? one : other;
        out->ignores = out->name == other;
        out->alone = known[i].alone;
    }
    buf_free(&b);
    return st == KG_ERR_UNSUPPORTED ? KG_OK : st;
}
