/* layers: text */
/* The patterns that cut text into words: pieces as the models' own tokenizer files give them, every name, long runs; and the
 * stream that makes whole characters of bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "text/pretokenizer.h"
#include "text/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct pieces {
    const char *next;
    size_t n;
    struct buf marked; /* the pieces with a bar between */
};

static kg_status collect(void *ctx, const char *word, size_t n)
{
    struct pieces *p = ctx;
    assert_ptr_equal(word, p->next);
    assert_true(n > 0);
    p->next = word + n;
    if (p->n++ > 0) KG_TRY(buf_append(&p->marked, "|", 1));
    return buf_append(&p->marked, word, n);
}

static void split(const char *name, const char *text, size_t n, struct pieces *p)
{
    struct pretokenizer *pre;
    if (pretokenizer_new(&pre, (struct str){name, strlen(name)}) != KG_OK) fail_msg("%s", kg_error_message());
    *p = (struct pieces){.next = text};
    if (pretokenizer_split(pre, text, n, collect, p) != KG_OK) fail_msg("%s: %s", name, kg_error_message());
    assert_ptr_equal(p->next, text + n);
    pretokenizer_free(&pre);
}

static void test_splits(void **state)
{
    (void)state;
    static const struct {
        const char *name, *text, *pieces;
    } cases[] = {
        {"gpt-2", "I'll DON'T  12345\n\n x!?", "I|'ll| DON|'|T| | 12345|\n\n| x|!?"},
        {"llama-bpe", "I'll DON'T  12345\n\n x!?\n", "I|'ll| DON|'T| | |123|45|\n\n| x|!?\n"},
        {"llama-bpe",
         "a\xc2\xa0"
         "b \xe3\x80\x80 c",
         "a|\xc2\xa0"
         "b| \xe3\x80\x80| c"},
        {"qwen2", "x 2026", "x| |2|0|2|6"},
        {"tekken", "camelCaseABCdef 12/\n", "camel|Case|ABCdef| |1|2|/\n"},
        {"gpt-4o", "camelCase's 1234", "camel|Case's| |123|4"},
        {"starcoder", "a 12", "a| |1|2"},
        {"falcon", "a=b 12345", "a|=|b| |123|45"},
        {"default", "a, b 1234", "a|,| b| |123|4"},
        {"deepseek-llm", "ab 12\nc.  ", "ab| |1|2|\n|c|.|  "},
        {"deepseek-coder", "ab 12\n(c)", "ab| |1|2|\n|(|c|)"},
        {"deepseek-v3", "(ab 1234 \xe4\xb8\xad\xe6\x96\x87!", "(ab| |123|4| |\xe4\xb8\xad\xe6\x96\x87|!"},
        {"bloom", "Hi, you (x", "Hi|,| you| (|x"},
        {"tiny_aya", "1234567 12x 1234x", "1|234|567| |12|x| |123|4|x"},
        {"afmoe", "a12345 \xe0\xb8\x81 (x", "a|12|345| |\xe0\xb8\x81| (|x"},
        {"superbpe", "and so 1234 on", "and so |1|234| on"},
        {"minicpm5", "a 12345", "a| |123|45"},
        {"spark2_5", "a!\n\nb", "a|!|\n|\n|b"},
        {"laguna", "a\r\n\nb \rc\n", "a|\r\n\n|b| \r|c|\n"},
        {"ufakzeka", "don't", "don|'t"},
        {"kimi-k2", "ab\xe4\xb8\xad\xe6\x96\x87 X'll 1234/\n", "ab|\xe4\xb8\xad\xe6\x96\x87| X'll| |123|4|/\n"},
        {"jais-2", "x       y\n  \n", "x|    |  | y|\n  \n"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct pieces p;
        split(cases[i].name, cases[i].text, strlen(cases[i].text), &p);
        assert_int_equal(buf_append(&p.marked, "", 1), KG_OK);
        if (strcmp(p.marked.data, cases[i].pieces) != 0) fail_msg("%s: \"%s\", want \"%s\"", cases[i].name, p.marked.data, cases[i].pieces);
        buf_free(&p.marked);
    }
}

static void test_all_names(void **state)
{
    (void)state;
    static const char text[] = "It's  12345 caf\xc3\xa9!\n\n\t\xe4\xb8\xad\xe6\x96\x87 \xf0\x9f\x94\xa5 fooBar ";
    size_t n_names = 0;
    for (size_t i = 0; pretokenizer_names(i); i++) {
        char names[512], *next = NULL;
        assert_true(snprintf(names, sizeof names, "%s", pretokenizer_names(i)) < (int)sizeof names);
        for (const char *name = strtok_r(names, " ", &next); name; name = strtok_r(NULL, " ", &next)) {
            struct pieces p;
            split(name, text, strlen(text), &p); /* checks that nothing is lost */
            assert_true(p.n > (strcmp(name, "superbpe") == 0 ? 2 : 5));
            buf_free(&p.marked);
            split(name, text, 0, &p);
            assert_int_equal(p.n, 0);
            n_names++;
        }
    }
    assert_true(n_names > 85);
}

/* Very many bytes of one kind: finishes, whatever the pattern, and loses nothing. */
static void test_long_runs(void **state)
{
    (void)state;
    static const char *const units[] = {" ", "a", "A", "7", "\n", "\n ", "\xe4\xb8\xad", "!", "'", "Aa", " a", "\xe3\x80\x80", "\xcc\x81"};
    enum { N = 250000 };
    char *text = malloc(N + 1);
    for (size_t u = 0; u < COUNT_OF(units); u++) {
        size_t k = strlen(units[u]), n = 0;
        for (; n + k < N; n += k) memcpy(text + n, units[u], k);
        text[n++] = 'x';
        for (size_t i = 0; pretokenizer_names(i); i++) {
            char name[64];
            struct pieces p;
            snprintf(name, sizeof name, "%.*s", (int)strcspn(pretokenizer_names(i), " "), pretokenizer_names(i));
            split(name, text, n, &p);
            buf_free(&p.marked);
        }
    }
    free(text);
}

/* ---- the stream ------------------------------------------------------------------------------------------- */

static void expect_stream(const char *bytes, const char *want)
{
    size_t n = strlen(bytes);
    for (size_t step = 1; step <= n + 1; step++) {
        struct utf8_stream s = {0};
        struct buf out = {0};
        for (size_t i = 0; i < n; i += step) assert_int_equal(utf8_stream_push(&s, bytes + i, MIN(step, n - i), false, &out), KG_OK);
        assert_int_equal(utf8_stream_push(&s, NULL, 0, true, &out), KG_OK);
        assert_int_equal(s.n_held, 0);
        assert_int_equal(out.len, strlen(want));
        if (out.len > 0) assert_memory_equal(out.data, want, out.len);
        buf_free(&out);
    }
}

static void test_stream(void **state)
{
    (void)state;
#define R "\xef\xbf\xbd"
    expect_stream("", "");
    expect_stream("plain", "plain");
    expect_stream("\xc3\xa9\xe2\x82\xac\xf0\x9f\x94\xa5", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x94\xa5");
    expect_stream("a\xff"
                  "b\xc3",
                  "a" R "b" R);
    expect_stream("\xe2\x82"
                  "a",
                  R "a");
    expect_stream("\xf0\x9f\x94", R);
    expect_stream("\xf0\x9f\x94\xe2\x82\xac", R "\xe2\x82\xac");
    expect_stream("\xc0\xaf\xe0\x80\x80\xed\xa0\x80\xf4\x90\x80\x80", R R R R R R R R R R R R);
    expect_stream("\xe1\x80\xe2\xf0\x91\x92\xf1\xbf"
                  "A",
                  R R R R "A"); /* the Unicode standard's example, table 3-11 */
#undef R
    struct utf8_stream s = {0};
    struct buf out = {0};
    assert_int_equal(utf8_stream_push(&s, "x\xe2\x82", 3, false, &out), KG_OK);
    assert_int_equal(out.len, 1); /* the rest is held back */
    assert_int_equal(utf8_stream_push(&s, "\xac", 1, false, &out), KG_OK);
    assert_int_equal(out.len, 4);
    buf_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_splits), cmocka_unit_test(test_all_names), cmocka_unit_test(test_long_runs),
                                       cmocka_unit_test(test_stream)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
