/* kagari template: what a model is shown of a conversation. */
#include "commands.h"

#include "input.h"
#include "print.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The template of --template, else the model's. */
static int open_template(const struct settings *s, kg_chat_template **t)
{
    const char *path = NULL;
    kg_tokenizer *tok = NULL;
    kg_status status = KG_OK;
    int code = 0;
    if (s->template_file && s->template_name) return print_error(EXIT_USAGE, "--template and --named are both given: the template can be only one");
    if (!s->template_file || s->model) code = input_model_path(s, &path);
    if (!code && path && (status = kg_tokenizer_open(&tok, s->tokenizer ? s->tokenizer : path))) code = print_status(status);
    if (!code && s->template_file) {
        char *source;
        size_t len;
        code = input_read_file(s->template_file, &source, &len);
        if (!code && (status = kg_chat_template_new(t, source, len, tok))) code = print_error(EXIT_RUNTIME, "%s: %s", s->template_file, kg_error_message());
        free(source);
    } else if (!code) {
        status = kg_chat_template_open(t, tok, s->template_name);
        if (status) code = print_error(EXIT_RUNTIME, "%s: %s", path, kg_error_message());
        else if (!*t && s->template_name) code = print_error(EXIT_RUNTIME, "%s has no chat template named '%s'", path, s->template_name);
        else if (!*t) code = print_error(EXIT_RUNTIME, "%s has no chat template: give one with --template FILE", path);
    }
    kg_tokenizer_close(&tok);
    return code;
}

static int render(const kg_chat_template *t, const kg_chat_params *p)
{
    char *text;
    size_t len;
    kg_status status = kg_chat_render(t, p, &text, &len);
    if (status) return print_status(status);
    fwrite(text, 1, len, stdout);
    kg_free(text);
    return 0;
}

/* The conversation of --file or standard input: messages, or all variables. */
static int render_json(const struct settings *s, const kg_chat_template *t, kg_chat_params *p)
{
    char *json;
    size_t len;
    if (!s->conversation && isatty(STDIN_FILENO)) return print_error(EXIT_USAGE, "No conversation: give one with -p TEXT, -f FILE or on standard input");
    int code = s->conversation ? input_read_file(s->conversation, &json, &len) : input_read_stdin(&json, &len);
    if (code) return code;
    if (json[strspn(json, " \t\r\n")] != '{') p->messages_json = json;
    else if (p->variables_json) code = print_error(EXIT_USAGE, "--variables is given, but the conversation is an object of variables already");
    else p->variables_json = json;
    if (!code) code = render(t, p);
    free(json);
    return code;
}

static int render_conversation(const struct settings *s, const kg_chat_template *t)
{
    char *tools = NULL;
    size_t len;
    int code = s->tools ? input_read_file(s->tools, &tools, &len) : 0;
    if (code) return code;
    kg_chat_message messages[2];
    kg_chat_params p = {.messages = messages, .tools_json = tools, .variables_json = s->variables, .add_generation_prompt = !s->no_generation_prompt, .now = s->now};
    if (s->system_prompt) messages[p.n_messages++] = (kg_chat_message){.role = "system", .content = s->system_prompt};
    if (s->chat_prompt) messages[p.n_messages++] = (kg_chat_message){.role = "user", .content = s->chat_prompt};
    if (!p.n_messages) p.messages = NULL;
    code = s->chat_prompt ? render(t, &p) : render_json(s, t, &p);
    free(tools);
    return code;
}

int command_template(const struct settings *s)
{
    if (s->chat_prompt && s->conversation) return print_error(EXIT_USAGE, "--prompt and --file are both given: the conversation can be only one");
    if (s->system_prompt && !s->chat_prompt) return print_error(EXIT_USAGE, "--system-prompt goes with --prompt; in a file it is a message like any other");
    kg_chat_template *t = NULL;
    int code = open_template(s, &t);
    if (!code && s->source) fputs(kg_chat_template_source(t), stdout);
    else if (!code) code = render_conversation(s, t);
    kg_chat_template_free(&t);
    return code;
}
