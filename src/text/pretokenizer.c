/* Owns the table of pre-tokenizers and their compiled patterns. The patterns are data: those of the models' own
 * tokenizer files, spelled for PCRE2, with two changes that alter no match. White space is an explicit class, because
 * PCRE2's \s also holds U+180E; and patterns that would look at a long run again from each of its characters are
 * anchored to the run's start, so that a megabyte of one character costs linear time. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/pretokenizer.h"

#include <pcre2.h>
#include <stdlib.h>

#define SPACES "\\r\\n" BLANKS
#define BLANKS "\\t\\x{0B}\\x{0C} \\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}"
#define S "[" SPACES "]"
#define NOT_S "[^" SPACES "]"
#define CONTRACTION "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define SPACE_RUNS S "+(?!" NOT_S ")|" S "+"
#define NEWLINES S "*[\\r\\n]+|"

#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^" SPACES "\\p{L}\\p{N}]+|" SPACE_RUNS
/* the family of cl100k: digits is how many digits one word may hold */
#define CL100K(digits) CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits "| ?[^" SPACES "\\p{L}\\p{N}]+[\\r\\n]*|" NEWLINES SPACE_RUNS
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
/* the family of o200k: words also end between lower and upper case */
#define O200K(suffix, digits)                                                                                                              \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" suffix "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*" suffix "|" digits "| ?[^" SPACES     \
    "\\p{L}\\p{N}]+[\\r\\n/]*|" NEWLINES SPACE_RUNS
#define DIGITS_1_3 "\\p{N}{1,3}"
#define KANA_HAN "[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{309F}\\x{30A0}-\\x{30FF}]+"
#define DEEPSEEK_CJK "[\\x{4E00}-\\x{9FA5}\\x{0800}-\\x{4E00}\\x{AC00}-\\x{D7FF}]+"
#define ASCII_PUNCTUATION_WORD "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+"
#define BLOOM " ?[^(" SPACES "|.,!?\\x{2026}\\x{3002}\\x{FF0C}\\x{3001}\\x{0964}\\x{06D4}\\x{060C})]+"
/* the cased letters that DeepSeek LLM lists */
#define DEEPSEEK_LETTERS                                                                                                                   \
    "A-Za-z\\x{B5}\\x{C0}-\\x{D6}\\x{D8}-\\x{F6}\\x{F8}-\\x{1BA}\\x{1BC}-\\x{1BF}\\x{1C4}-\\x{293}\\x{295}-\\x{2AF}"                       \
    "\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37B}-\\x{37D}\\x{37F}\\x{386}\\x{388}-\\x{38A}\\x{38C}\\x{38E}-\\x{3A1}"                         \
    "\\x{3A3}-\\x{3F5}\\x{3F7}-\\x{481}\\x{48A}-\\x{52F}\\x{531}-\\x{556}\\x{10A0}-\\x{10C5}\\x{13A0}-\\x{13F5}"                           \
    "\\x{13F8}-\\x{13FD}\\x{1C90}-\\x{1CBA}\\x{1CBD}-\\x{1CBF}\\x{1D00}-\\x{1D2B}\\x{1D6B}-\\x{1D77}\\x{1D79}-\\x{1D9A}"                   \
    "\\x{1E00}-\\x{1F15}\\x{1F18}-\\x{1F1D}\\x{1F20}-\\x{1F45}\\x{1F48}-\\x{1F4D}\\x{1F50}-\\x{1F57}\\x{1F59}\\x{1F5B}"                    \
    "\\x{1F5D}\\x{1F5F}-\\x{1F7D}\\x{1F80}-\\x{1FB4}\\x{1FB6}-\\x{1FBC}\\x{1FBE}\\x{1FC2}-\\x{1FC4}\\x{1FC6}-\\x{1FCC}"                    \
    "\\x{1FD0}-\\x{1FD3}\\x{1FD6}-\\x{1FDB}\\x{1FE0}-\\x{1FEC}\\x{1FF2}-\\x{1FF4}\\x{1FF6}-\\x{1FFC}\\x{2102}\\x{2107}"                    \
    "\\x{210A}-\\x{2113}\\x{2115}\\x{2119}-\\x{211D}\\x{2124}\\x{2126}\\x{2128}\\x{212A}-\\x{212D}\\x{212F}-\\x{2134}"                     \
    "\\x{2139}\\x{213C}-\\x{213F}\\x{2145}-\\x{2149}\\x{214E}\\x{2183}\\x{2184}\\x{2C00}-\\x{2C7B}\\x{2C7E}-\\x{2CE4}"                     \
    "\\x{2CEB}-\\x{2CEE}\\x{2CF2}\\x{2CF3}\\x{A640}-\\x{A66D}\\x{A680}-\\x{A69B}\\x{A722}-\\x{A76F}\\x{A771}-\\x{A787}"                    \
    "\\x{A78B}-\\x{A78E}\\x{AB70}-\\x{ABBF}\\x{FB00}-\\x{FB06}\\x{FB13}-\\x{FB17}\\x{FF21}-\\x{FF3A}\\x{FF41}-\\x{FF5A}"                   \
    "\\x{10400}-\\x{1044F}\\x{104B0}-\\x{104D3}\\x{104D8}-\\x{104FB}\\x{10C80}-\\x{10CB2}\\x{10CC0}-\\x{10CF2}"                            \
    "\\x{118A0}-\\x{118DF}\\x{1E900}-\\x{1E943}"

enum { MAX_PATTERNS = 6, IGNORE_MERGES = 1, ADD_BOS = 2 };

struct pre_type {
    const char *names; /* separated by spaces; the first one stands for all in messages */
    unsigned flags;
    const char *patterns[MAX_PATTERNS]; /* applied one after the other, each to the pieces of the one before */
};

static const struct pre_type types[] = {
    {"default", 0, {"[\\p{P}$+<=>^~|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"}},
    {"gpt-2 phi-2 mpt olmo gpt-neox jais trillion granite-docling exaone4 jina-es jina-de jina-v2-es jina-v2-de gigachat a.x-4.0 "
     "mellum modern-bert",
     0,
     {GPT2}},
    {"llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2", IGNORE_MERGES | ADD_BOS, {CL100K(DIGITS_1_3)}},
    {"dbrx smaug-bpe chatglm-bpe glm4", 0, {CL100K(DIGITS_1_3)}},
    {"qwen2 deepseek-r1-qwen stablelm2 megrez kormo f2llmv2 hunyuan solar-open grok-2", 0, {CL100K("\\p{N}")}},
    {"qwen35",
     0,
     {CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^" SPACES "\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" NEWLINES SPACE_RUNS}},
    {"gpt-4o llama4 kanana2 minimax-m2", 0, {O200K(CONTRACTION "?", DIGITS_1_3)}},
    {"tekken", IGNORE_MERGES | ADD_BOS, {O200K("", "\\p{N}")}},
    {"starcoder refact command-r smollm codeshell exaone minerva-7b", 0, {"\\p{N}", GPT2}},
    {"falcon", 0, {"[\\p{P}$+<=>^~|`]+", GPT2, "[0-9][0-9][0-9]"}},
    {"deepseek-llm",
     0,
     {"[\\r\\n]", S "?[" DEEPSEEK_LETTERS "]+", S "?[!-/:-~\\x{FF01}-\\x{FF0F}\\x{FF1A}-\\x{FF5E}\\x{2018}-\\x{201F}\\x{3000}-\\x{3002}]+",
      "(?<!" S ")" S "++\\z", DEEPSEEK_CJK, "\\p{N}"}},
    {"deepseek-coder", 0, {"[\\r\\n]", S "?\\p{L}+", S "?\\p{P}+", DEEPSEEK_CJK, "\\p{N}"}},
    {"deepseek-v3 hunyuan-dense joyai-llm",
     0,
     {DIGITS_1_3, KANA_HAN,
      ASCII_PUNCTUATION_WORD "|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|" NEWLINES SPACE_RUNS}},
    {"youtu",
     IGNORE_MERGES,
     {"[\\x{AC00}-\\x{D7A3}\\x{3131}-\\x{318E}]+|[\\x{FF01}\\x{2026}\\x{201C}\\x{201D}\\x{2018}\\x{2019}\\x{2014}\\x{FF1A}\\x{FF1B}"
      "\\x{FF0C}\\x{3001}-\\x{303F}\\x{FE30}-\\x{FE4F}]+|[\\x{3105}-\\x{312F}]+|" KANA_HAN,
      O200K(CONTRACTION "?", "\\p{N}")}},
    {"bloom poro-chat gpt3-finnish", 0, {BLOOM}},
    {"viking", 0, {BLOOM, "\\p{N}"}},
    {"chameleon", ADD_BOS, {"<sentinel:[0-9]+>", "IMGIMG[A-I]{1,4}Z", "[\\t\\n]|    |  ", "\\p{N}", "[\\p{P}!-/:-@\\[-`{-~]", GPT2}},
    {"jais-2",
     0, /* white space comes in powers of two; a second pattern, because the first would look at the whole rest for each of them */
     {CL100K(DIGITS_1_3), "\\A" S "*[\\r\\n]+|[" BLANKS "]{512}(?!" NOT_S ")|[" BLANKS "]{256}(?!" NOT_S ")|[" BLANKS "]{128}(?!" NOT_S
                          ")|[" BLANKS "]{64}(?!" NOT_S ")|[" BLANKS "]{32}(?!" NOT_S ")|[" BLANKS "]{16}(?!" NOT_S ")|[" BLANKS
                          "]{8}(?!" NOT_S ")|[" BLANKS "]{4}(?!" NOT_S ")|[" BLANKS "]{1,2}(?!" NOT_S ")"}},
    {"bailingmoe bailingmoe2 llada-moe",
     0,
     {"'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| ?[^" SPACES "\\p{L}\\p{N}]++[\\r\\n]*|" S "*[\\r\\n]|" SPACE_RUNS}},
    {"seed-coder", 0, {CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^" SPACES "\\p{L}\\p{N}\\r\\n]+|" NEWLINES SPACE_RUNS}},
    {"exaone-moe",
     0,
     {CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?(?:\\p{L}\\p{M}*+(?: \\p{L}\\p{M}*+)*+)++|\\p{N}| ?[^" SPACES "\\p{L}\\p{N}]+[\\r\\n/]?|" S
                  "*[\\r\\n]|" SPACE_RUNS}},
};

struct pretokenizer {
    const struct pre_type *type;
    pcre2_code *patterns[MAX_PATTERNS];
    bool jit[MAX_PATTERNS]; /* compiled to machine code */
    int n_patterns;
};

static bool has_name(const char *names, struct str name)
{
    while (*names) {
        size_t n = strcspn(names, " ");
        if (n == name.len && memcmp(names, name.ptr, n) == 0) return true;
        names += n + strspn(names + n, " ");
    }
    return false;
}

static kg_status unknown_name(struct str name)
{
    struct buf list = {0};
    kg_status status = KG_OK;
    for (size_t i = 0; i < COUNT_OF(types) && status == KG_OK; i++)
        status = buf_printf(&list, "%s%.*s", i ? ", " : "", (int)strcspn(types[i].names, " "), types[i].names);
    if (status == KG_OK) {
        bool plain = name.len <= 40;
        for (size_t i = 0; i < name.len && plain; i++) plain = name.ptr[i] >= ' ' && name.ptr[i] <= '~';
        status =
            status_set(KG_ERR_UNSUPPORTED, "tokenizer.ggml.pre: pre-tokenizer %s%.*s%s is not known; those known are %s and their aliases",
                       plain ? "'" : "", plain ? (int)name.len : 4, plain ? name.ptr : "name", plain ? "'" : "", list.data);
    }
    buf_free(&list);
    return status;
}

static kg_status compile(struct pretokenizer *pre, const char *pattern)
{
    int error;
    PCRE2_SIZE offset;
    pcre2_code *code = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &error, &offset, NULL);
    if (!code) {
        char message[128];
        pcre2_get_error_message(error, (PCRE2_UCHAR *)message, sizeof message);
        return status_set(KG_ERR_UNSUPPORTED, "this PCRE2 cannot compile the pattern of pre-tokenizer '%.*s': %s at %zu",
                          (int)strcspn(pre->type->names, " "), pre->type->names, message, (size_t)offset);
    }
    pre->jit[pre->n_patterns] = pcre2_jit_compile(code, PCRE2_JIT_COMPLETE) == 0;
    pre->patterns[pre->n_patterns++] = code;
    return KG_OK;
}

kg_status pretokenizer_new(struct pretokenizer **out, struct str name)
{
    *out = NULL;
    const struct pre_type *type = NULL;
    for (size_t i = 0; i < COUNT_OF(types) && !type; i++)
        if (has_name(types[i].names, name)) type = &types[i];
    if (!type) return unknown_name(name);
    struct pretokenizer *pre = calloc(1, sizeof *pre);
    if (!pre) return status_set(KG_ERR_MEMORY, "out of memory for the pre-tokenizer");
    pre->type = type;
    for (int i = 0; i < MAX_PATTERNS && type->patterns[i]; i++) {
        kg_status status = compile(pre, type->patterns[i]);
        if (status != KG_OK) {
            pretokenizer_free(&pre);
            return status;
        }
    }
    *out = pre;
    return KG_OK;
}

void pretokenizer_free(struct pretokenizer **pre)
{
    if (!pre || !*pre) return;
    for (int i = 0; i < (*pre)->n_patterns; i++) pcre2_code_free((*pre)->patterns[i]);
    free(*pre);
    *pre = NULL;
}

bool pretokenizer_ignores_merges(const struct pretokenizer *pre) { return pre->type->flags & IGNORE_MERGES; }
bool pretokenizer_adds_bos(const struct pretokenizer *pre) { return pre->type->flags & ADD_BOS; }

struct split {
    const struct pretokenizer *pre;
    pcre2_match_data *match;
    word_fn fn;
    void *ctx;
};

/* Finds the next match at or after `from`; *start = n if there is none. */
static kg_status next_match(struct split *s, int level, const char *text, size_t n, size_t from, size_t *start, size_t *end)
{
    const pcre2_code *code = s->pre->patterns[level];
    int rc = PCRE2_ERROR_JIT_STACKLIMIT;
    if (s->pre->jit[level]) rc = pcre2_jit_match(code, (PCRE2_SPTR)text, n, from, PCRE2_NO_UTF_CHECK, s->match, NULL);
    /* the interpreter backtracks on the heap, where there is more room */
    if (rc < PCRE2_ERROR_NOMATCH) rc = pcre2_match(code, (PCRE2_SPTR)text, n, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, s->match, NULL);
    *start = *end = n;
    if (rc == PCRE2_ERROR_NOMATCH) return KG_OK;
    if (rc < 0) {
        char message[128];
        pcre2_get_error_message(rc, (PCRE2_UCHAR *)message, sizeof message);
        return status_set(rc == PCRE2_ERROR_NOMEMORY ? KG_ERR_MEMORY : KG_ERR_UNSUPPORTED, "splitting the text into words failed: %s",
                          message);
    }
    const PCRE2_SIZE *range = pcre2_get_ovector_pointer(s->match);
    *start = range[0];
    *end = range[1];
    return KG_OK;
}

static kg_status split_level(struct split *s, int level, const char *text, size_t n)
{
    if (level == s->pre->n_patterns) return s->fn(s->ctx, text, n);
    size_t done = 0;
    while (done < n) {
        size_t start, end;
        KG_TRY(next_match(s, level, text, n, done, &start, &end));
        if (start > done) KG_TRY(split_level(s, level + 1, text + done, start - done));
        if (end > start) KG_TRY(split_level(s, level + 1, text + start, end - start));
        done = end;
    }
    return KG_OK;
}

kg_status pretokenizer_split(const struct pretokenizer *pre, const char *text, size_t n, word_fn fn, void *ctx)
{
    struct split s = {pre, pcre2_match_data_create(1, NULL), fn, ctx};
    if (!s.match) return status_set(KG_ERR_MEMORY, "out of memory for splitting text");
    kg_status status = split_level(&s, 0, text, n);
    pcre2_match_data_free(s.match);
    return status;
}
