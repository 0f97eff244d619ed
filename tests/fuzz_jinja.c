/* layers: text */
/* The input is a template; behind a first NUL byte, if there is one, the JSON of its variables. Whatever comes must end with a text or with
 * an error that names a line, within small limits. What an answer is cut into is, put together, what came in. */
#include "text/jinja.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static void check(bool ok)
{
    if (!ok) __builtin_trap();
}

static const struct jinja_limits limits = {.memory = 4 << 20, .output = 1 << 20, .steps = 200000, .depth = 60};
static const char variables[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}, {\"role\": \"assistant\", \"content\": \"caf\\u00e9\\n\", \"tool_calls\": "
                                "[{\"function\": {\"name\": \"f\", \"arguments\": {\"a\": 1.5}}}]}], \"x\": [3, \"a\", null, [1, 2]], \"s\": \"a,b c\"}";

static void render(const char *source, size_t n, const char *json)
{
    struct jinja *t;
    struct jinja_render r;
    struct jval v;
    kg_status status = jinja_parse(&t, source, n, &limits);
    check((status == KG_OK) == (t != NULL));
    if (status != KG_OK) return;
    check(jinja_render_start(&r, &limits) == KG_OK);
    if (jinja_from_json(&r.mem, json, "variables", &v) == KG_OK && v.type == J_DICT) r.variables = v.u.dict;
    r.now_set = true;
    status = jinja_render(&r, t);
    check(status == KG_OK || strncmp(kg_error_message(), "line ", 5) == 0);
    check(r.out.len <= limits.output || status != KG_OK);
    jinja_render_free(&r);
    jinja_free(&t);
}

static bool count(void *ctx, kg_part part, bool first, const char *text, size_t len)
{
    (void)part, (void)first, (void)text;
    *(size_t *)ctx += len;
    return true;
}

static void split(const char *text, size_t n, size_t step)
{
    kg_answer *a;
    char *calls;
    size_t given = 0, parts = 0, len;
    check(kg_answer_new(&a, NULL, 0) == KG_OK);
    for (size_t i = 0; i < n; i += step) check(kg_answer_push(a, text + i, MIN(step, n - i), false, count, &given) == KG_OK);
    check(kg_answer_push(a, "", 0, true, count, &given) == KG_OK);
    for (int p = KG_PART_TEXT; p <= KG_PART_TOOL_CALL; p++) {
        kg_answer_part(a, (kg_part)p, &len);
        parts += len;
    }
    check(given <= n && parts >= given);
    check(kg_answer_tool_calls(a, &calls) == KG_OK);
    kg_free(calls);
    kg_answer_free(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    const uint8_t *nul = n_bytes ? memchr(data, 0, n_bytes) : NULL;
    size_t n = nul ? (size_t)(nul - data) : n_bytes;
    char *json = NULL;
    if (nul) {
        json = calloc(1, n_bytes - n + 1);
        check(json);
        memcpy(json, nul + 1, n_bytes - n - 1);
    }
    render((const char *)data, n, json ? json : variables);
    free(json);
    if (n_bytes < 4096) split((const char *)data, n_bytes, 1);
    split((const char *)data, n_bytes, 7);
    return 0;
}
