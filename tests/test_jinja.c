/* layers: text */
/* The template engine against Python's jinja2 (golden results of tools/mktemplates.py), and against templates that are broken or mean. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/os.h"
#include "text/jinja.h"

#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define GOLDEN SOURCE_DIR "/tests/golden/templates/"
#define TEMPLATES SHARED_DIR "/templates/"

/* Limits for templates that are meant to meet them. */
static const struct jinja_limits small = {.memory = 8 << 20, .output = 1 << 20, .steps = 300000, .depth = 100};

/* What a rendering gives: text, malloc'ed; NULL if it fails, and the message is there. */
static char *render(const char *source, size_t n, const char *variables, const struct jinja_limits *limits, size_t *len)
{
    struct jinja *t;
    struct jinja_render r = {0};
    struct jval v;
    char *text = NULL;
    kg_status status = jinja_parse(&t, source, n, limits);
    assert_true((status == KG_OK) == (t != NULL));
    if (status == KG_OK) status = jinja_render_start(&r, limits);
    if (status == KG_OK && variables) {
        assert_int_equal(jinja_from_json(&r.mem, variables, "variables", &v), KG_OK);
        assert_int_equal(v.type, J_DICT);
        r.variables = v.u.dict;
    }
    r.now = 1790000000;
    r.now_set = true;
    r.mem.steps = 0;
    if (status == KG_OK) status = jinja_render(&r, t);
    if (status == KG_OK) {
        *len = r.out.len;
        text = calloc(1, r.out.len + 1);
        assert_non_null(text);
        if (r.out.len) memcpy(text, r.out.data, r.out.len);
    } else if (strncmp(kg_error_message(), "line ", 5) != 0 && !strstr(kg_error_message(), "not UTF-8")) {
        fail_msg("a message without a line: %s", kg_error_message());
    }
    jinja_render_free(&r);
    jinja_free(&t);
    return text;
}

static json_t *load_json(const char *path)
{
    json_error_t error;
    json_t *j = json_load_file(path, JSON_ALLOW_NUL, &error);
    if (!j) fail_msg("%s: %s", path, error.text);
    return j;
}

static void check_text(const char *what, const char *got, size_t n, const char *want, size_t n_want)
{
    if (!got) fail_msg("%s\nfails: %s\nbut makes '%s' in jinja2", what, kg_error_message(), want);
    if (n != n_want || memcmp(got, want, n) != 0) fail_msg("%s\nmakes '%s'\nand in jinja2 '%s'", what, got, want);
}

/* ---- what jinja2 makes ---------------------------------------------------------------------------- */

static void test_expressions(void **state)
{
    (void)state;
    json_t *all = load_json(GOLDEN "expressions.json"), *cases = json_object_get(all, "cases");
    char *variables = json_dumps(json_object_get(all, "variables"), 0);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        json_t *c = json_array_get(cases, i), *source = json_object_get(c, "template"), *want = json_object_get(c, "expected");
        size_t n = 0;
        char *got = render(json_string_value(source), json_string_length(source), variables, NULL, &n);
        if (want) check_text(json_string_value(source), got, n, json_string_value(want), json_string_length(want));
        else if (got) fail_msg("%s\nmakes '%s', but fails in jinja2", json_string_value(source), got);
        free(got);
    }
    assert_true(json_array_size(cases) > 100);
    free(variables);
    json_decref(all);
}

static void test_cases(void **state)
{
    (void)state;
    if (access(TEMPLATES "llamacpp-jinja-cases.json", R_OK) != 0) {
        print_message("skipped: no %s\n", TEMPLATES);
        skip();
    }
    json_t *cases = load_json(TEMPLATES "llamacpp-jinja-cases.json");
    for (size_t i = 0; i < json_array_size(cases); i++) {
        json_t *c = json_array_get(cases, i), *source = json_object_get(c, "template"), *want = json_object_get(c, "expected");
        char *variables = json_dumps(json_object_get(c, "vars"), 0);
        size_t n = 0;
        char *got = render(json_string_value(source), json_string_length(source), variables, NULL, &n);
        check_text(json_string_value(source), got, n, json_string_value(want), json_string_length(want));
        free(got);
        free(variables);
    }
    print_message("%zu cases\n", json_array_size(cases));
    json_decref(cases);
}

static uint64_t fnv(const char *s, size_t n)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++) h = (h ^ (uint8_t)s[i]) * 0x100000001b3u;
    return h;
}

static void check_output(const char *template, const char *conversation, json_t *conversations, const char *want)
{
    char path[1024], got[64];
    struct os_map map;
    snprintf(path, sizeof path, "%s%s", TEMPLATES, template);
    assert_int_equal(os_map_file(&map, path), KG_OK);
    char *variables = json_dumps(json_object_get(conversations, conversation), 0);
    assert_non_null(variables);
    size_t n = 0;
    char *text = render((const char *)map.data, map.n_bytes, variables, NULL, &n);
    if (text) snprintf(got, sizeof got, "%zu\t%016llx", n, (unsigned long long)fnv(text, n));
    else strcpy(got, "error");
    if (strcmp(got, want) != 0) fail_msg("%s, %s: %s (%s), jinja2: %s", template, conversation, got, text ? text : kg_error_message(), want);
    free(text);
    free(variables);
    os_unmap(&map);
}

static void test_outputs(void **state)
{
    (void)state;
    char line[512];
    FILE *in = fopen(GOLDEN "outputs.tsv", "r");
    json_t *conversations = load_json(GOLDEN "conversations.json");
    size_t n = 0, n_errors = 0;
    assert_non_null(in);
    if (access(TEMPLATES, R_OK) != 0) {
        print_message("skipped: no %s\n", TEMPLATES);
        fclose(in);
        json_decref(conversations);
        skip();
    }
    setenv("TZ", "UTC", 1);
    tzset();
    while (fgets(line, sizeof line, in)) {
        if (line[0] == '#') continue;
        line[strcspn(line, "\n")] = 0;
        char *conversation = strchr(line, '\t'), *want = conversation ? strchr(conversation + 1, '\t') : NULL;
        assert_non_null(want);
        *conversation++ = *want++ = 0;
        check_output(line, conversation, conversations, want);
        n++;
        n_errors += strcmp(want, "error") == 0;
    }
    print_message("%zu texts are those of jinja2, %zu conversations are refused as there\n", n - n_errors, n_errors);
    fclose(in);
    json_decref(conversations);
}

/* ---- where a template fails ------------------------------------------------------------------------ */

static void test_messages(void **state)
{
    (void)state;
    static const struct {
        const char *source, *message;
    } cases[] = {
        {"a\nb\n{{ x.y }}", "line 3: 'x' is undefined"},
        {"{% for a in [1] %}\n  {{ a.b.c }}\n{% endfor %}", "line 2: 'int object' has no attribute 'b'"},
        {"{% macro m() %}\n\n{{ 1 / 0 }}{% endmacro %}\n{{ m() }}", "line 3: division by zero"},
        {"\n{{ raise_exception('no\nsystem') }}", "line 2: the template refuses this conversation: no?system"},
        {"\n\n{% if x %}\n", "line 3: the block that begins here has no end (endif)"},
        {"{{ 1 +\n\n* 2 }}", "line 3: unexpected '*'"},
        {"{{ (1, 2 }}", "line 1: unexpected '}', expected ')'"},
        {"{{ 'a\nb }}", "line 1: a string has no end"},
        {"\n{% include 'x' %}", "line 2: the statement 'include' is not supported"},
        {"\n{{ 'a'|nosuch }}", "line 2: no filter named 'nosuch'"},
        {"{{ '\xff' }}", "the template is not UTF-8"},
        {"{{ \x01 }}", "line 1: unexpected character 0x1"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        size_t n;
        assert_null(render(cases[i].source, strlen(cases[i].source), NULL, NULL, &n));
        assert_string_equal(kg_error_message(), cases[i].message);
    }
}

/* A program may have set a locale whose decimal point is a comma; parsing and rendering must not see it, and leave it as it was. */
static void test_locale(void **state)
{
    (void)state;
    locale_t german = newlocale(LC_ALL_MASK, "de_DE.UTF-8", (locale_t)0);
    if (!german) {
        print_message("skipped: no locale de_DE.UTF-8\n");
        skip();
    }
    locale_t before = uselocale(german);
    size_t n;
    char *text = render("{{ 1.5 + '2.25'|float }} {{ '%.1f' % 0.5 }}", 43, NULL, NULL, &n), here[8];
    snprintf(here, sizeof here, "%.1f", 0.5);
    uselocale(before);
    freelocale(german);
    assert_string_equal(text, "3.75 0.5");
    assert_string_equal(here, "0,5");
    free(text);
}

/* ---- templates that are mean --------------------------------------------------------------------------- */

static const char *const bombs[] = {
    "{% for a in range(100000) %}{% for b in range(100000) %}{% for c in range(100000) %}{% endfor %}{% endfor %}{% endfor %}",
    "{% set ns = namespace(s='x') %}{% for i in range(100000) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
    "{% set ns = namespace(s='x') %}{% for i in range(100) %}{% set ns.s = ns.s ~ ns.s %}{{ ns.s }}{% endfor %}",
    "{{ 'x' * 10 ** 18 }}",
    "{{ [0] * 10 ** 12 }}",
    "{{ ('x' * 1000000)|replace('x', 'y' * 1000000) }}",
    "{{ ('x' * 1000000)|replace('', 'y' * 1000000) }}",
    "{{ ([1] * 100000)|join('y' * 1000000) }}",
    "{{ ('%1000s' * 100000) % (([''] * 100000)|list) }}",
    "{{ ('a\n' * 100000)|indent('b' * 100000) }}",
    "{{ 10 ** 100 }}",
    "{{ 9223372036854775807 + 1 }}",
    "{{ (0 - 9223372036854775807 - 1) // -1 }}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% macro m(n) %}{{ m(n + 1) }}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
    "{% macro m(x) %}{{ caller() }}{% call m(x) %}{% endcall %}{% endmacro %}{% call m(1) %}{% endcall %}",
    "{% for x in [[1]] recursive %}{{ loop([x]) }}{% endfor %}",
    "{% set l = [] %}{{ l.append(l) }}{{ l }}",
    "{% set l = [] %}{{ l.append(l) }}{{ l|tojson }}",
    "{% set l = [] %}{{ l.append(l) }}{{ l == [l] }}{% set k = [] %}{{ k.append(k) }}{{ k == l }}",
    "{% set d = {} %}{{ d.update(a=d, b=d) }}{{ d|string|length }}",
    "{% set l = [0] %}{% for x in l %}{{ l.append(x) }}{% endfor %}",
    "{% set l = [1] %}{% for x in range(100000) %}{% set _ = l.extend(l) %}{% endfor %}",
    "{% set ns = namespace(l=[]) %}{% for i in range(100000) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l }}",
    "{% set ns = namespace(l=(1,)) %}{% for i in range(100000) %}{% set ns.l = (ns.l,) %}{% endfor %}{{ {ns.l: 1} }}",
    "{% for i in range(100000) %}{{ ('a' * 10000 ~ i).upper().rfind('b' * 5000) }}{% endfor %}",
    "{% for i in range(100000) %}{{ ('\\u00e9' * 1000)|title|wordcount }}{% endfor %}",
    "{% for i in range(100000) %}{% macro m() %}{{ 'x' * 100000 }}{% endmacro %}{% set y = m() %}{% endfor %}",
    "{{ range(100000)|map('string')|map('upper')|map('list')|map('join')|sort|unique|batch(1)|map('first')|join|length }}{% for i in range(100000) %}{{ range(100000)|sum }}{% endfor %}",
    "{% filter upper %}{% for i in range(100000) %}{{ 'abcdefgh' * 1000 }}{% endfor %}{% endfilter %}",
    "{{ 'x'|center(100000000) }}",
    "{{ 'x'.ljust(10 ** 15) }}",
    "{{ [1]|tojson(indent=1000000) }}",
    "{{ [[[[1] * 300] * 300] * 300] * 300 }}",
    "{{ ('a,' * 1000000).split(',')|map('length')|sum }}{% for i in range(10000) %}{{ ('a,' * 100000).split(',')|length }}{% endfor %}",
};

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Every one ends with an error; for some, with the default limits too: seconds and not minutes. */
static void test_bombs(void **state)
{
    (void)state;
    double worst = 0;
    bool patient = getenv("KAGARI_TEST_LONG");
    for (size_t i = 0; i < COUNT_OF(bombs); i++) {
        size_t n;
        double start = seconds();
        assert_null(render(bombs[i], strlen(bombs[i]), NULL, patient ? NULL : &small, &n));
        double took = seconds() - start;
        if (took > worst) worst = took;
        if (took > (patient ? 60 : 10)) fail_msg("%s took %.1f s", bombs[i], took);
    }
    size_t n;
    double start = seconds();
    static const char loops[] = "{% for a in range(1000) %}{% for b in range(1000) %}{% for c in range(1000) %}{{ c }}{% if c == 3 %}{% break %}{% endif %}{% endfor %}{% endfor %}{% endfor %}";
    assert_null(render(loops, strlen(loops), NULL, NULL, &n));
    print_message("the worst took %.2f s; nested loops, with the default limits, %.2f s: %s\n", worst, seconds() - start, kg_error_message());
}

/* Sources that are deep or long. */
static void test_deep_sources(void **state)
{
    (void)state;
    static const struct {
        const char *open, *middle, *close;
    } cases[] = {
        {"(", "1", ")"}, {"[", "1", "]"}, {"{1:", "1", "}"}, {"-", "1", ""}, {"not ", "1", ""}, {"1 if ", "1", " else 1"}, {"a(", "1", ")"},
        {"", "x", ".x"}, {"", "x", "[0]"}, {"", "x", "()"}, {"", "1", "+1"}, {"", "1", "|abs"}, {"", "1", " is odd"}, {"", "1", " if 1"}, {"", "1", "**1"},
        {"", "1", " or 0"}, {"", "1", "<2"}, {"", "1", "~1"}, {"", "'a'", "'a'"}, {"", "1", ",1"},
    };
    enum { DEEP = 20000 };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct buf b = {0};
        size_t n;
        assert_int_equal(buf_append(&b, "{{ ", 3), KG_OK);
        for (int k = 0; k < DEEP; k++) assert_int_equal(buf_append(&b, cases[i].open, strlen(cases[i].open)), KG_OK);
        assert_int_equal(buf_append(&b, cases[i].middle, strlen(cases[i].middle)), KG_OK);
        for (int k = 0; k < DEEP; k++) assert_int_equal(buf_append(&b, cases[i].close, strlen(cases[i].close)), KG_OK);
        assert_int_equal(buf_append(&b, " }}", 3), KG_OK);
        free(render(b.data, b.len, NULL, NULL, &n)); /* a text or an error: both are fine, a crash is not */
        b.len = 0;
        for (int k = 0; k < DEEP; k++) assert_int_equal(buf_printf(&b, "{%% %s %%}", i % 2 ? "if 1" : "for x in [1]"), KG_OK);
        assert_null(render(b.data, b.len, NULL, NULL, &n));
        buf_free(&b);
    }
}

static void *deep_in_thread(void *arg)
{
    (void)arg;
    test_bombs(NULL);
    test_deep_sources(NULL);
    return NULL;
}

/* The limits of depth must hold on the stack of a modest thread. */
static void test_small_stack(void **state)
{
    (void)state;
    pthread_attr_t attr;
    pthread_t thread;
    pthread_attr_init(&attr);
#if defined(__has_feature)
#define HAS_FEATURE(x) __has_feature(x)
#else
#define HAS_FEATURE(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || HAS_FEATURE(address_sanitizer) || HAS_FEATURE(thread_sanitizer)
    size_t stack = (size_t)8 << 20; /* their frames are many times as large */
#else
    size_t stack = (size_t)512 << 10;
#endif
    assert_int_equal(pthread_attr_setstacksize(&attr, stack), 0);
    assert_int_equal(pthread_create(&thread, &attr, deep_in_thread, NULL), 0);
    pthread_join(thread, NULL);
    pthread_attr_destroy(&attr);
}

/* ---- templates that are broken --------------------------------------------------------------------------- */

static uint64_t random_state = 1;
static uint32_t random_below(uint32_t n)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((random_state >> 33) % n);
}

static const char *const pieces[] = {
    "{{", "}}", "{%", "%}", "{#", "#}", "-", "+", "{%-", "-%}", "{{-", "-}}", " ", "\n", "if", "elif", "else", "endif", "for", "in", "endfor", "set", "endset", "macro", "endmacro",
    "call", "endcall", "filter", "endfilter", "with", "endwith", "raw", "endraw", "break", "continue", "recursive", "not", "and", "or", "is", "defined", "string", "x", "messages",
    "loop", "loop.index", "namespace", "(", ")", "[", "]", "{", "}", ",", ":", ".", "|", "=", "==", "<", "**", "//", "~", "*", "'a'", "\"b\"", "1", "2.5", "1e9", "upper", "tojson", "map",
    "selectattr", "sort", "join", "split", "range", "strftime_now", "raise_exception", "caller", "true", "none", "\xc3\xa9", "\\", "'", "\"", "%", "text ", "role", "content", "get", "items",
};

/* Pieces of the language in random order. */
static void random_pieces(struct buf *b)
{
    b->len = 0;
    for (uint32_t n = 1 + random_below(40); n > 0; n--) {
        const char *p = pieces[random_below(COUNT_OF(pieces))];
        assert_int_equal(buf_append(b, p, strlen(p)), KG_OK);
        if (random_below(2)) assert_int_equal(buf_append(b, " ", 1), KG_OK);
    }
}

/* A good template with some bytes or pieces changed, cut out, or doubled. */
static void mutate(const char *good, struct buf *b)
{
    b->len = 0;
    assert_int_equal(buf_append(b, good, strlen(good)), KG_OK);
    for (uint32_t n = 1 + random_below(4); n > 0 && b->len > 2; n--) {
        uint32_t at = random_below((uint32_t)b->len), k = 1 + random_below(12); /* not within MIN, which would draw twice */
        k = MIN(k, (uint32_t)b->len - at);
        const char *p = pieces[random_below(COUNT_OF(pieces))];
        struct buf old = *b;
        *b = (struct buf){0};
        assert_int_equal(buf_append(b, old.data, at), KG_OK);
        switch (random_below(4)) {
        case 0: assert_int_equal(buf_append(b, p, strlen(p)), KG_OK); break;
        case 1: assert_int_equal(buf_append(b, old.data + at, k), KG_OK); at -= MIN(at, k); break;
        case 2: at += k; break;
        default: assert_int_equal(buf_append(b, &(char){(char)random_below(256)}, 1), KG_OK); at++;
        }
        if (at < old.len) assert_int_equal(buf_append(b, old.data + at, old.len - at), KG_OK);
        buf_free(&old);
    }
}

static const char *const variables = "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}, {\"role\": \"assistant\", \"content\": null, \"tool_calls\": [{\"function\": {\"name\": \"f\", "
                                     "\"arguments\": {\"a\": 1.5}}}]}], \"x\": [3, \"a\", null], \"s\": \"caf\\u00e9\", \"add_generation_prompt\": true}";

static void test_malformed(void **state)
{
    (void)state;
    json_t *all = load_json(GOLDEN "expressions.json"), *cases = json_object_get(all, "cases");
    struct buf b = {0};
    double start = seconds(), worst = 0;
    size_t n_errors = 0, n_all = 0;
    for (size_t i = 0; n_errors < 10000; i++, n_all++) { /* some of them are good all the same */
        size_t n;
        double before = seconds();
        if (i % 2) random_pieces(&b);
        else mutate(json_string_value(json_object_get(json_array_get(cases, i / 2 % json_array_size(cases)), "template")), &b);
        char *text = render(b.data, b.len, variables, &small, &n);
        n_errors += !text;
        free(text);
        double one = seconds() - before;
        worst = one > worst ? one : worst;
        assert_true(one < 5 && i < 40000);
    }
    double took = seconds() - start;
    print_message("%zu of %zu random templates end with an error, all of them in %.2f s, the worst in %.3f s\n", n_errors, n_all, took, worst);
    assert_true(took < 60);
    buf_free(&b);
    json_decref(all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_expressions), cmocka_unit_test(test_cases),        cmocka_unit_test(test_outputs),     cmocka_unit_test(test_messages), cmocka_unit_test(test_locale),
        cmocka_unit_test(test_bombs),       cmocka_unit_test(test_deep_sources), cmocka_unit_test(test_small_stack), cmocka_unit_test(test_malformed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
