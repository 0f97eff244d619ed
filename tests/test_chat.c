/* layers: text */
/* Chat templates of a model file, rendering through the public functions, and the parts of answers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "gguf_writer.h"
#include "text/text.h"

#include <pthread.h>

/* ---- templates -------------------------------------------------------------------------------------- */

static kg_tokenizer *vocabulary(const char *usual, const char *named)
{
    static const char *const tokens[] = {"<unk>", "<s>", "</s>", "a", "b"};
    struct gw w = {0};
    gw_str(&w, "tokenizer.ggml.model", "llama");
    gw_arr_str(&w, "tokenizer.ggml.tokens", tokens, 5);
    gw_arr_f32(&w, "tokenizer.ggml.scores", (float[]){0, 0, 0, 0, 0}, 5);
    gw_arr_i32(&w, "tokenizer.ggml.token_type", (int32_t[]){2, 3, 3, 1, 1}, 5);
    if (named) gw_str(&w, "tokenizer.chat_template.tool_use", named);
    if (usual) gw_str(&w, "tokenizer.chat_template", usual);
    gw_str(&w, "tokenizer.chat_templates_are_not_this", "x");
    size_t n;
    uint8_t *bytes = gw_finish(&w, &n);
    struct file *f;
    kg_tokenizer *tok = NULL;
    assert_int_equal(file_open_memory(&f, bytes, n, "test.gguf"), KG_OK);
    if (tokenizer_new(&tok, f) != KG_OK) fail_msg("%s", kg_error_message());
    file_close(&f);
    free(bytes);
    return tok;
}

static void assert_renders(const kg_chat_template *t, kg_chat_params p, const char *want)
{
    char *text;
    size_t len;
    if (kg_chat_render(t, &p, &text, &len) != KG_OK) fail_msg("%s", kg_error_message());
    assert_string_equal(text, want);
    assert_int_equal(len, strlen(want));
    kg_free(text);
}

static void assert_refuses(const kg_chat_template *t, kg_chat_params p, kg_status status, const char *message)
{
    char *text = (char *)1;
    assert_int_equal(kg_chat_render(t, &p, &text, NULL), status);
    assert_null(text);
    if (!strstr(kg_error_message(), message)) fail_msg("'%s' has no '%s'", kg_error_message(), message);
}

static kg_chat_template *template_of(const char *source)
{
    kg_chat_template *t;
    if (kg_chat_template_new(&t, source, strlen(source), NULL) != KG_OK) fail_msg("%s", kg_error_message());
    return t;
}

static void test_of_file(void **state)
{
    (void)state;
    kg_tokenizer *tok = vocabulary("{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}{% endfor %}", "tools: {{ tools|length }}");
    kg_chat_template *t;
    const kg_chat_message hello[] = {{.role = "system", .content = "Terse."}, {.role = "user", .content = "Hé"}};
    assert_int_equal(kg_chat_template_open(&t, tok, NULL), KG_OK);
    assert_renders(t, (kg_chat_params){.messages = hello, .n_messages = 2}, "<s>[system]Terse.</s>[user]Hé</s>");
    assert_true(strncmp(kg_chat_template_source(t), "{{ bos_token }}", 15) == 0);
    kg_chat_template_free(&t);
    assert_null(t);
    assert_string_equal(kg_chat_template_name(tok, 0), "tool_use");
    assert_null(kg_chat_template_name(tok, 1));
    assert_int_equal(kg_chat_template_open(&t, tok, "tool_use"), KG_OK);
    assert_renders(t, (kg_chat_params){.messages = hello, .n_messages = 2, .tools_json = "[{}, {}]"}, "tools: 2");
    kg_chat_template_free(&t);
    assert_int_equal(kg_chat_template_open(&t, tok, "rag"), KG_OK);
    assert_null(t);
    kg_tokenizer_close(&tok);

    tok = vocabulary(NULL, NULL);
    assert_int_equal(kg_chat_template_open(&t, tok, NULL), KG_OK);
    assert_null(t);
    assert_null(kg_chat_template_name(tok, 0));
    kg_tokenizer_close(&tok);

    tok = vocabulary("line\n{{ oops", NULL); /* a broken template does not keep a model from opening */
    assert_int_equal(kg_chat_template_open(&t, tok, NULL), KG_ERR_FORMAT);
    assert_string_equal(kg_error_message(), "chat template: line 2: an expression has no end ('}}')");
    kg_tokenizer_close(&tok);
}

static void test_variables(void **state)
{
    (void)state;
    kg_chat_template *t = template_of("{{ messages|tojson }} {{ tools }} {{ documents }} {{ add_generation_prompt }} {{ x }}");
    const kg_chat_message all[] = {
        {.role = "assistant", .reasoning = "hm", .tool_calls = "[{\"function\": {\"name\": \"f\", \"arguments\": {}}}]"},
        {.role = "tool", .content = "1", .tool_call_id = "c", .name = "f"},
    };
    assert_renders(t, (kg_chat_params){.messages = all, .n_messages = 2, .add_generation_prompt = true, .variables_json = "{\"x\": 5}"},
                   "[{\"role\": \"assistant\", \"content\": null, \"reasoning_content\": \"hm\", \"tool_calls\": [{\"function\": {\"name\": \"f\", \"arguments\": {}}}]}, "
                   "{\"role\": \"tool\", \"content\": \"1\", \"tool_call_id\": \"c\", \"name\": \"f\"}] None None True 5");
    assert_renders(t, (kg_chat_params){.messages_json = "[1]", .tools_json = "[2]", .documents_json = "[3]"}, "[1] [2] [3] False ");
    assert_renders(t, (kg_chat_params){.variables_json = "{\"messages\": [4], \"tools\": [5], \"add_generation_prompt\": true}"}, "[4] [5] None True ");
    assert_renders(t, (kg_chat_params){0}, "[] None None False ");
    assert_refuses(t, (kg_chat_params){.messages_json = "[1"}, KG_ERR_ARGUMENT, "messages: not JSON: line 1");
    assert_refuses(t, (kg_chat_params){.messages_json = "{}"}, KG_ERR_ARGUMENT, "messages: not a JSON array");
    assert_refuses(t, (kg_chat_params){.variables_json = "[]"}, KG_ERR_ARGUMENT, "variables: not a JSON object");
    assert_refuses(t, (kg_chat_params){.tools_json = "[[["}, KG_ERR_ARGUMENT, "tools: not JSON");
    assert_refuses(t, (kg_chat_params){.messages = (kg_chat_message[]){{.role = "user", .content = "\xff"}}, .n_messages = 1}, KG_ERR_ARGUMENT, "message 0: content is not UTF-8");
    assert_refuses(t, (kg_chat_params){.messages = (kg_chat_message[]){{.content = "x"}}, .n_messages = 1}, KG_ERR_ARGUMENT, "message 0: it has no role");
    assert_refuses(t, (kg_chat_params){.n_messages = 1}, KG_ERR_ARGUMENT, "NULL");
    struct buf deep = {0};
    for (int i = 0; i < 1000; i++) assert_int_equal(buf_append(&deep, "[", 1), KG_OK);
    for (int i = 0; i < 1000; i++) assert_int_equal(buf_append(&deep, "]", 1), KG_OK);
    assert_refuses(t, (kg_chat_params){.messages_json = deep.data}, KG_ERR_UNSUPPORTED, "nested more than");
    buf_free(&deep);
    kg_chat_template_free(&t);

    setenv("TZ", "UTC", 1);
    t = template_of("{{ strftime_now('%d %b %Y %H:%M') }}");
    assert_renders(t, (kg_chat_params){.now = 1790000000}, "21 Sep 2026 14:13");
    kg_chat_template_free(&t);
    t = template_of("\n\n{{ raise_exception('roles must alternate') }}");
    assert_refuses(t, (kg_chat_params){0}, KG_ERR_ARGUMENT, "chat template: line 3: the template refuses this conversation: roles must alternate");
    kg_chat_template_free(&t);
    t = template_of("");
    assert_renders(t, (kg_chat_params){0}, "");
    kg_chat_template_free(&t);
}

static void *render_often(void *arg)
{
    for (int i = 0; i < 200; i++) assert_renders(arg, (kg_chat_params){.messages_json = "[{\"content\": \"x\"}, {\"content\": \"y\"}]"}, "xXyY");
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    pthread_t threads[4];
    kg_chat_template *t = template_of("{% macro up(s) %}{{ s|upper }}{% endmacro %}{% for m in messages %}{{ m.content }}{{ up(m.content) }}{% endfor %}");
    for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&threads[i], NULL, render_often, t), 0);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    kg_chat_template_free(&t);
}

/* ---- parts of answers ---------------------------------------------------------------------------------- */

struct pieces {
    struct buf text;
    size_t most; /* give up after so many calls; 0: never */
    size_t n;
};

/* Writes what comes as "T:...", "R:..." and "C:...", a letter for each section. */
static bool note(void *ctx, kg_part part, bool first, const char *text, size_t len)
{
    struct pieces *p = ctx;
    if (first) assert_int_equal(buf_printf(&p->text, "%s%c:", p->text.len ? "|" : "", "TRC"[part]), KG_OK);
    assert_true(len > 0);
    assert_int_equal(buf_append(&p->text, text, len), KG_OK);
    return !p->most || ++p->n < p->most;
}

/* Whatever the size of the pieces that it comes in, the answer has the same parts. */
static void assert_parts(const char *prompt, const char *answer, const char *want)
{
    for (size_t step = 1; step <= strlen(answer) + 1; step++) {
        kg_answer *a;
        struct pieces p = {0};
        assert_int_equal(buf_append(&p.text, "", 0), KG_OK);
        assert_int_equal(kg_answer_new(&a, prompt, prompt ? strlen(prompt) : 0), KG_OK);
        for (size_t i = 0; i < strlen(answer); i += step) assert_int_equal(kg_answer_push(a, answer + i, MIN(step, strlen(answer) - i), false, note, &p), KG_OK);
        assert_int_equal(kg_answer_push(a, "", 0, true, note, &p), KG_OK);
        if (strcmp(p.text.data, want) != 0) fail_msg("'%s' in pieces of %zu: '%s', not '%s'", answer, step, p.text.data, want);
        kg_answer_free(&a);
        buf_free(&p.text);
    }
}

static void test_parts(void **state)
{
    (void)state;
    assert_parts(NULL, "", "");
    assert_parts(NULL, "Just text.", "T:Just text.");
    assert_parts(NULL, "\n  Text with space \n", "T:\n  Text with space \n");
    assert_parts(NULL, "1 < 2 and <thin air> [TOOL", "T:1 < 2 and <thin air> [TOOL");
    assert_parts(NULL, "<think>\nHm.\n\nWell.\n</think>\n\nYes.", "R:Hm.\n\nWell.|T:Yes.");
    assert_parts(NULL, "\n<think></think>\n\nYes.\n", "T:Yes.\n");
    assert_parts(NULL, "<think>never ends", "R:never ends");
    assert_parts(NULL, "The mark <think> begins it, </think> ends it.", "T:The mark <think> begins it, </think> ends it.");
    assert_parts("<|im_start|>assistant\n<think>\n", "Hm.\n</think>\nYes.", "R:Hm.|T:Yes.");
    assert_parts("<|im_start|>assistant\n<think>\n\n</think>\n\n", "Yes.", "T:Yes.");
    assert_parts("<think>", "no end", "R:no end");
    assert_parts(NULL, "[THINK]Hm.[/THINK]Ja.", "R:Hm.|T:Ja.");
    assert_parts(NULL, "Let me see.\n<tool_call>\n{\"name\": \"f\"}\n</tool_call>\n<tool_call>\n{}\n</tool_call>", "T:Let me see.|C:{\"name\": \"f\"}|C:{}");
    assert_parts(NULL, "<think>a</think><tool_call>b</tool_call><think>c</think>d<think>e", "R:a|C:b|R:c|T:d<think>e");
    assert_parts(NULL, "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes.", "R:Hm.|T:Yes.");
    assert_parts(NULL, "<｜tool▁calls▁begin｜>x<｜tool▁calls▁end｜>", "C:x");
    assert_parts(NULL, "é<tool_call>日本</tool_call>火", "T:é|C:日本|T:火");
}

static void test_part_calls(void **state)
{
    (void)state;
    kg_answer *a;
    struct pieces p = {.most = 1};
    size_t len;
    assert_int_equal(kg_answer_new(&a, NULL, 0), KG_OK);
    assert_int_equal(kg_answer_push(a, "<think>a</think>b<tool_call>{}</tool_call> c ", 45, true, NULL, NULL), KG_OK);
    assert_string_equal(kg_answer_part(a, KG_PART_REASONING, &len), "a");
    assert_string_equal(kg_answer_part(a, KG_PART_TEXT, NULL), "b\nc ");
    assert_string_equal(kg_answer_part(a, KG_PART_TOOL_CALL, &len), "{}");
    assert_int_equal(kg_answer_push(a, "x", 1, true, NULL, NULL), KG_ERR_ARGUMENT);
    kg_answer_free(&a);
    assert_int_equal(kg_answer_new(&a, NULL, 0), KG_OK);
    assert_int_equal(kg_answer_push(a, "stop", 4, false, note, &p), KG_ERR_ABORTED);
    kg_answer_free(&a);
    buf_free(&p.text);
}

static void assert_calls(const char *answer, const char *want)
{
    kg_answer *a;
    char *json;
    assert_int_equal(kg_answer_new(&a, NULL, 0), KG_OK);
    assert_int_equal(kg_answer_push(a, answer, strlen(answer), true, NULL, NULL), KG_OK);
    assert_int_equal(kg_answer_tool_calls(a, &json), KG_OK);
    assert_string_equal(json, want);
    kg_free(json);
    kg_answer_free(&a);
}

#define CALL(name, arguments) "{\"type\": \"function\", \"function\": {\"name\": \"" name "\", \"arguments\": " arguments "}}"
#define CALL_ID(name, arguments, id) "{\"type\": \"function\", \"function\": {\"name\": \"" name "\", \"arguments\": " arguments "}, \"id\": \"" id "\"}"
#define F CALL("f", "{\"a\": 1}")

static void test_tool_calls(void **state)
{
    (void)state;
    assert_calls("no call", "[]");
    assert_calls("<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>", "[" F "]"); /* Hermes, Qwen */
    assert_calls("<tool_call>{\"name\": \"f\", \"arguments\": \"{\\\"a\\\": 1}\"}</tool_call><tool_call>{\"name\": \"g\"}</tool_call>", "[" F ", " CALL("g", "{}") "]");
    assert_calls("<|python_tag|>{\"name\": \"f\", \"parameters\": {\"a\": 1}}", "[" F "]"); /* Llama 3 */
    assert_calls("<|tool_call|>[{\"name\": \"f\", \"arguments\": {\"a\": 1}}, {\"name\": \"g\", \"arguments\": {}}]", "[" F ", " CALL("g", "{}") "]"); /* Granite */
    assert_calls("[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"a\": 1}, \"id\": \"abcdefghi\"}]", "[" CALL_ID("f", "{\"a\": 1}", "abcdefghi") "]"); /* Mistral */
    assert_calls("[TOOL_CALLS]f[CALL_ID]abcdefghi[ARGS]{\"a\": 1}[TOOL_CALLS]g[ARGS]{}", "[" CALL_ID("f", "{\"a\": 1}", "abcdefghi") ", " CALL("g", "{}") "]");
    assert_calls("<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{\"a\": 1}<|tool_call_end|><|tool_call_begin|>functions.g:12"
                 "<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>", "[" F ", " CALL("g", "{}") "]"); /* Kimi */
    assert_calls("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\": 1}<｜tool▁call▁end｜><｜tool▁calls▁end｜>", "[" F "]"); /* DeepSeek V3.1 */
    assert_calls("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"a\": 1}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>", "[" F "]"); /* R1 */
    assert_calls("<tool_call>\n<function=f>\n<parameter=a>\n1\n</parameter>\n<parameter=b>\ntwo\nlines\n</parameter>\n</function>\n</tool_call>",
                 "[" CALL("f", "{\"a\": 1, \"b\": \"two\\nlines\"}") "]"); /* Qwen Coder */
    assert_calls("<tool_call>f\n<arg_key>a</arg_key>\n<arg_value>1</arg_value>\n<arg_key>b</arg_key>\n<arg_value>x y</arg_value>\n</tool_call>",
                 "[" CALL("f", "{\"a\": 1, \"b\": \"x y\"}") "]"); /* GLM */
    assert_calls("<tool_call>f\n</tool_call>", "[" CALL("f", "{}") "]");
    assert_calls("<|START_ACTION|>[{\"tool_call_id\": \"0\", \"tool_name\": \"f\", \"parameters\": {\"a\": 1}}]<|END_ACTION|>", "[" F "]"); /* Command A */
    assert_calls("<|channel|>commentary to=functions.f <|constrain|>json<|message|>{\"a\": 1}<|call|>", "[" F "]"); /* gpt-oss */
    assert_calls("<tool_call>{\"name\": broken</tool_call>", "[{\"type\": \"unknown\", \"text\": \"{\\\"name\\\": broken\"}]");
    assert_calls("<|python_tag|>print(1)", "[{\"type\": \"unknown\", \"text\": \"print(1)\"}]");
    assert_calls("<tool_call>[{\"name\": \"f\"}, 5]</tool_call>", "[{\"type\": \"unknown\", \"text\": \"[{\\\"name\\\": \\\"f\\\"}, 5]\"}]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_of_file), cmocka_unit_test(test_variables),  cmocka_unit_test(test_threads),
        cmocka_unit_test(test_parts),   cmocka_unit_test(test_part_calls), cmocka_unit_test(test_tool_calls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
