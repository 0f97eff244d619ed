/* layers: toml */
/* TOML: what is read, and what is refused in which line. Expected values are those of the specification's examples. */
#include "toml.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

static const struct { const char *source, *key, *value; enum toml_kind kind; } good[] = {
    {"a = 1", "a", "1", TOML_INTEGER},
    {"a=+99", "a", "99", TOML_INTEGER},
    {"a = -17 # c", "a", "-17", TOML_INTEGER},
    {"a = 5_349_221", "a", "5349221", TOML_INTEGER},
    {"a = 0xdead_BEEF", "a", "3735928559", TOML_INTEGER},
    {"a = 0o755", "a", "493", TOML_INTEGER},
    {"a = 0b11010110", "a", "214", TOML_INTEGER},
    {"a = -0", "a", "-0", TOML_INTEGER},
    {"a = 9223372036854775807", "a", "9223372036854775807", TOML_INTEGER},
    {"a = 3.1415", "a", "3.1415", TOML_FLOAT},
    {"a = -2E-2", "a", "-2E-2", TOML_FLOAT},
    {"a = 6.626e-34", "a", "6.626e-34", TOML_FLOAT},
    {"a = 224_617.445_991_228", "a", "224617.445991228", TOML_FLOAT},
    {"a = +inf", "a", "inf", TOML_FLOAT},
    {"a = true", "a", "true", TOML_BOOLEAN},
    {"a = \"x\\ty \\u00e9 \\U0001F600 \\\"q\\\"\"", "a", "x\ty \xc3\xa9 \xf0\x9f\x98\x80 \"q\"", TOML_STRING},
    {"a = 'C:\\Users\\n'", "a", "C:\\Users\\n", TOML_STRING},
    {"a = \"\"", "a", "", TOML_STRING},
    {"a = \"\"\"\nRoses\nViolets\"\"\"", "a", "Roses\nViolets", TOML_STRING},
    {"a = \"\"\"The \\\n   quick \\   \n\n brown\"\"\"", "a", "The quick brown", TOML_STRING},
    {"a = \"\"\"\"Two\"\" quotes\"\"\"\"\"", "a", "\"Two\"\" quotes\"\"", TOML_STRING},
    {"a = '''\nI [dw]on't\n'''", "a", "I [dw]on't\n", TOML_STRING},
    {"a = ''''''", "a", "", TOML_STRING},
    {"[t]\r\na = 1\r\n", "t.a", "1", TOML_INTEGER},
    {"[ t . \"u\" ]\na = 1", "t.u.a", "1", TOML_INTEGER},
    {"t.a = 1", "t.a", "1", TOML_INTEGER},
    {"\xef\xbb\xbf" "a = 1", "a", "1", TOML_INTEGER},
    {"1-b_c = 1", "1-b_c", "1", TOML_INTEGER},
};

static const struct { const char *source; int line; const char *error; } bad[] = {
    {"a", 1, "expected ="},
    {"a =", 1, "a value is missing"},
    {"\na = x", 2, "'x' is not a value"},
    {"a = 1 b = 2", 1, "end of the line"},
    {"a = 1\na = 2", 2, "'a' is there twice, first in line 1"},
    {"[t]\n[t]", 2, "the table [t] is there twice"},
    {"[t\na = 1", 1, "expected ]"},
    {"[[t]]", 1, "array of tables"},
    {"a = {b = 1}", 1, "inline table"},
    {"a = [[1]]", 1, "array in an array"},
    {"a = [1 2]", 1, "expected , or ]"},
    {"a = [1,", 1, "a value is missing"},
    {"a = \"x", 1, "has no end"},
    {"\na = \"x\n\"", 2, "has no end"},
    {"a = \"\"\"x\n\ny", 1, "has no end"},
    {"a = \"\\q\"", 1, "not an escape"},
    {"a = \"\\u12\"", 1, "4 hexadecimal digits"},
    {"a = \"\\ud800\"", 1, "not a character"},
    {"a = \"\\u0000\"", 1, "not a character"},
    {"a = 01", 1, "not a value"},
    {"a = 1_", 1, "not a value"},
    {"a = 1__0", 1, "not a value"},
    {"a = _1", 1, "not a value"},
    {"a = 1.", 1, "not a value"},
    {"a = .5", 1, "not a value"},
    {"a = 1e", 1, "not a value"},
    {"a = 0x", 1, "not a value"},
    {"a = 9223372036854775808", 1, "not a value"},
    {"a = 0xffffffffffffffff", 1, "not a value"},
    {"a = True", 1, "not a value"},
    {"a = 1979-05-27", 1, "date"},
    {"a = 07:32:00", 1, "date"},
    {"= 1", 1, "expected a key"},
    {"a.= 1", 1, "expected a key"},
    {"\n\na = \"\xff\"", 3, "not UTF-8"},
    {"a = \"\x01\"", 1, "control character"},
    {"# \x7f", 1, "control character"},
};

static void test_good(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct toml t;
        int line;
        char error[160] = "";
        if (!toml_parse(&t, good[i].source, strlen(good[i].source), &line, error)) fail_msg("%s: %s", good[i].source, error);
        assert_int_equal(t.n_values, 1);
        assert_string_equal(t.values[0].key, good[i].key);
        assert_string_equal(t.values[0].items[0].text, good[i].value);
        assert_int_equal(t.values[0].items[0].kind, good[i].kind);
        toml_free(&t);
    }
}

static void test_bad(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct toml t;
        int line;
        char error[160] = "";
        if (toml_parse(&t, bad[i].source, strlen(bad[i].source), &line, error)) fail_msg("accepted: %s", bad[i].source);
        if (!strstr(error, bad[i].error) || line != bad[i].line) fail_msg("%s: line %d: %s", bad[i].source, line, error);
        assert_int_equal(t.n_values, 0);
    }
}

static void test_arrays(void **state)
{
    (void)state;
    static const char source[] = "a = [ \"x\", # one\n 'y',\n\n ] # end\nb = []\nc = [1, 2.5, true]\n";
    static const size_t counts[] = {2, 0, 3};
    struct toml t;
    int line;
    char error[160];
    assert_true(toml_parse(&t, source, sizeof source - 1, &line, error));
    assert_int_equal(t.n_values, 3);
    for (size_t i = 0; i < 3; i++) {
        assert_true(t.values[i].is_array);
        assert_int_equal(t.values[i].n_items, counts[i]);
    }
    assert_string_equal(t.values[0].items[1].text, "y");
    assert_int_equal(t.values[1].line, 5);
    toml_free(&t);
}

/* What is written reads back as the same text. */
static void test_write(void **state)
{
    (void)state;
    static const char text[] = "a\"b\\c\n\t\x01\x7f \xc3\xa9 'x'";
    char source[256] = "a = ", error[160];
    FILE *out = fmemopen(source + 4, sizeof source - 4, "w");
    assert_non_null(out);
    toml_write_string(out, text);
    fclose(out);
    struct toml t;
    int line;
    assert_true(toml_parse(&t, source, strlen(source), &line, error));
    assert_string_equal(t.values[0].items[0].text, text);
    toml_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_arrays),
        cmocka_unit_test(test_write),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
