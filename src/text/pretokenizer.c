/* Owns the table of pre-tokenizers and their compiled patterns. The patterns are data: those of the models' own
 * tokenizer files, spelled for PCRE2, with two changes that alter no match. White space is an explicit class, because
 * PCRE2's \s also holds U+180E; and patterns that would look at a long run again from each of its characters are
 * anchored to the run's start, so that a megabyte of one character costs linear time. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "text/pretokenizer.h"

#include "file/words.h"

#include <pcre2.h>
#include <stdlib.h>

#define SPACES "\\r\\n" BLANKS
#define BLANKS "\\t\\x{0B}\\x{0C} \\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}"
#define S "[" SPACES "]"
#define NOT_S "[^" SPACES "]"
#define SPACE_RUNS S "+(?!" NOT_S ")|" S "+"
#define NEWLINES S "*[\\r\\n]+|"

#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^" SPACES "\\p{L}\\p{N}]+|" SPACE_RUNS
/* the family of cl100k: digits is how many digits one word may hold */
#define CL100K(digits) CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits "| ?[^" SPACES "\\p{L}\\p{N}]+[\\r\\n]*|" NEWLINES SPACE_RUNS
/* the family of o200k: words also end between lower and upper case */
#define O200K(suffix, digits)                                                                                                              \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" suffix "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*" suffix "|" digits "| ?[^" SPACES     \
    "\\p{L}\\p{N}]+[\\r\\n/]*|" NEWLINES SPACE_RUNS
#define BLOOM " ?[^(" SPACES "|.,!?\\x{2026}\\x{3002}\\x{FF0C}\\x{3001}\\x{0964}\\x{06D4}\\x{060C})]+"
/* digits in threes from the end: first the one or two that are left over, then those behind each other */
#define LEFT_OVER "\\A\\p{Nd}{1,2}(?=(?:\\p{Nd}{3})++\\z)"
#define IN_THREES LEFT_OVER, "\\G\\p{Nd}{3}"
#define DEEPSEEK3(marks, lines) ASCII_PUNCTUATION_WORD "|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+" marks "|" lines "|" SPACE_RUNS
/* sc: of PCRE2's own, a script also holds the characters that it shares with others */
#define NOT_HAN(class) "(?:(?!\\p{sc:Han})" class ")"

enum { MAX_PATTERNS = 6, IGNORE_MERGES = 1, ADD_BOS = 2 };

struct pre_type {
    const char *names; /* separated by spaces; the first one stands for all in messages */
    unsigned flags;
    const char *patterns[MAX_PATTERNS]; /* applied one after the other, each to the pieces of the one before */
};

static const struct pre_type types[] = {
    {"default", 0, {"[\\p{P}$+<=>^~|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"}},
    {"gpt-2 phi-2 mpt olmo gpt-neox jais trillion granite-docling exaone4 jina-es jina-de jina-v2-es jina-v2-de gigachat a.x-4.0 "
     "mellum modern-bert jina-v1-en jina-v2-code roberta-bpe",
     0,
     {GPT2}},
    {"llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano", IGNORE_MERGES | ADD_BOS, {CL100K(DIGITS_1_3)}},
    {"dbrx smaug-bpe chatglm-bpe", 0, {CL100K(DIGITS_1_3)}},
    {"glm4 glm5", IGNORE_MERGES, {CL100K(DIGITS_1_3)}},
    {"qwen2 deepseek-r1-qwen stablelm2 megrez kormo f2llmv2 hunyuan solar-open grok-2", 0, {CL100K("\\p{N}")}},
    {"qwen35",
     0,
     {CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^" SPACES "\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" NEWLINES SPACE_RUNS}},
    {"gpt-4o llama4 kanana2 minimax-m2 talkie", 0, {O200K(CONTRACTION "?", DIGITS_1_3)}},
    {"granite-embed-multi-97m", IGNORE_MERGES, {O200K(CONTRACTION "?", DIGITS_1_3)}},
    {"tiny_aya cohere2moe", 0, {"(?<!\\p{Nd})\\p{Nd}++(?![\\p{Alphabetic}\\p{M}\\p{Pc}])", IN_THREES, O200K(CONTRACTION "?", DIGITS_1_3)}},
    {"tekken", IGNORE_MERGES | ADD_BOS, {O200K("", "\\p{N}")}},
    {"starcoder refact command-r smollm codeshell exaone minerva-7b mellum2", 0, {"\\p{N}", GPT2}},
    {"falcon", 0, {"[\\p{P}$+<=>^~|`]+", GPT2, "[0-9][0-9][0-9]"}},
    {"deepseek-llm",
     0,
     {"[\\r\\n]", S "?[" DEEPSEEK_LETTERS "]+", S "?" DEEPSEEK_MARKS, "(?<!" S ")" S "++\\z", DEEPSEEK_CJK, "\\p{N}"}},
    {"deepseek-coder", 0, {"[\\r\\n]", S "?\\p{L}+", S "?\\p{P}+", DEEPSEEK_CJK, "\\p{N}"}},
    {"deepseek-v3 hunyuan-dense joyai-llm hy_v4", 0, {DIGITS_1_3, KANA_HAN, DEEPSEEK3("[\\r\\n]*", S "*[\\r\\n]+")}},
    {"spark2_5", 0, {DIGITS_1_3, KANA_HAN, DEEPSEEK3("", "[\\r\\n]"), "\\p{N}"}},
    {"afmoe", 0, {"\\p{Nd}++", IN_THREES, AFMOE_SCRIPTS, DEEPSEEK3("[\\r\\n]*", S "*[\\r\\n]+")}},
    {"superbpe", 0, {"\\p{N}+", IN_THREES}},
    {"youtu", IGNORE_MERGES, {YOUTU_CJK, O200K(CONTRACTION "?", "\\p{N}")}},
    {"minicpm5", IGNORE_MERGES, {DIGITS_1_3, CL100K("\\p{N}+")}},
    {"ufakzeka", 0, {"[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^" SPACES "\\p{L}\\p{N}]+[\\r\\n]*|" NEWLINES SPACE_RUNS}},
    {"laguna", 0, {"(?:\\r?\\n)++[^\\r\\n]*+(?:\\r(?!\\n)[^\\r\\n]*+)*+", CL100K("\\p{N}")}}, /* line ends go with what follows them */
    {"kimi-k2",
     0,
     {"\\p{sc:Han}+|[^\\r\\n\\p{L}\\p{N}]?" NOT_HAN(UPPER) "*" NOT_HAN(LOWER) "+" CONTRACTION "?|[^\\r\\n\\p{L}\\p{N}]?" NOT_HAN(UPPER) "+" NOT_HAN(
         LOWER) "*" CONTRACTION "?|" DIGITS_1_3 "| ?[^" SPACES "\\p{L}\\p{N}]+[\\r\\n]*|" NEWLINES SPACE_RUNS}},
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

const char *pretokenizer_names(size_t i) { return i < COUNT_OF(types) ? types[i].names : NULL; }
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
