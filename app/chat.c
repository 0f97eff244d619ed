/* Turns of a conversation: its text is rendered, cut to the context, tokenized from where it is new, and answered. Owns model, session and
 * what the session holds. */
#include "chat.h"

#include "generate.h"
#include "input.h"
#include "interrupt.h"
#include "option_table.h"
#include "print.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* ---- opening ------------------------------------------------------------------------------------------------------ */

/* What changes together with the model. */
struct engine {
    char *path;
    kg_model *model;
    kg_session *session;
    kg_chat_template *template;
};

static void close_engine(struct engine *e)
{
    kg_chat_template_free(&e->template);
    kg_session_free(&e->session);
    kg_model_close(&e->model);
    free(e->path);
}

static int open_template(const struct settings *s, struct engine *e)
{
    const kg_tokenizer *tok = kg_model_tokenizer(e->model);
    if (!s->template_file) return kg_chat_template_open(&e->template, tok, NULL) ? print_error(EXIT_RUNTIME, "%s: %s", e->path, kg_error_message()) : 0;
    char *source;
    size_t len;
    int code = input_read_file(s->template_file, &source, &len);
    if (!code && kg_chat_template_new(&e->template, source, len, tok)) code = print_error(EXIT_RUNTIME, "%s: %s", s->template_file, kg_error_message());
    free(source);
    return code;
}

static int open_engine(const struct settings *s, struct engine *e)
{
    const char *path = NULL;
    *e = (struct engine){0};
    int code = input_open_model(s, &e->model, &path);
    if (code) return code;
    e->path = strdup(path);
    if (!e->path) code = print_error(EXIT_RUNTIME, "out of memory");
    else if (!kg_model_tokenizer(e->model)) code = print_error(EXIT_RUNTIME, "%s has no tokenizer: there is nothing to talk with", path);
    kg_session_params params = kg_session_default_params();
    params.n_ctx = s->ctx;
    params.n_batch = (int)s->batch;
    kg_status status = code ? KG_OK : kg_session_new(&e->session, e->model, &params);
    if (status) code = print_status(status);
    if (!code) code = open_template(s, e);
    if (code) close_engine(e);
    return code;
}

static void hold_nothing(struct chat *c)
{
    free(c->held_text);
    free(c->held);
    c->held_text = NULL;
    c->held = NULL;
    c->held_len = c->n_held = 0;
}

static void take_engine(struct chat *c, const struct engine *e)
{
    struct engine old = {c->path, c->model, c->session, c->template};
    close_engine(&old);
    c->path = e->path;
    c->model = e->model;
    c->session = e->session;
    c->template = e->template;
    c->said_plain = false;
    c->first = 0; /* another context may have room for what was dropped */
    hold_nothing(c);
}

int chat_open(struct chat *c, const struct settings *s)
{
    struct engine e;
    size_t len;
    *c = (struct chat){.s = *s, .use_template = true, .seed = generate_seed(s)};
    int code = s->tools ? input_read_file(s->tools, &c->tools, &len) : 0;
    bool is_new = s->load_history && s->save_history && strcmp(s->load_history, s->save_history) == 0 && access(s->load_history, F_OK) != 0;
    if (!code && s->load_history && !is_new) code = conversation_load(&c->talk, s->load_history);
    if (!code && s->system_prompt && !conversation_set_system(&c->talk, s->system_prompt)) code = print_error(EXIT_RUNTIME, "out of memory");
    if (!code) code = open_engine(s, &e);
    if (!code) take_engine(c, &e);
    return code ? code : input_load_cache(s, c->session);
}

static void free_loras(char **list, size_t n)
{
    for (size_t i = 0; list && i < n; i++) free(list[i]);
    free(list);
}

void chat_close(struct chat *c)
{
    struct engine e = {c->path, c->model, c->session, c->template};
    close_engine(&e);
    hold_nothing(c);
    conversation_free(&c->talk);
    free(c->tools);
    free(c->model_name);
    free(c->backend_name);
    free_loras(c->loras, c->s.lora.n);
    *c = (struct chat){0};
}

int chat_switch(struct chat *c, const char *model, const char *backend)
{
    struct settings next = c->s;
    struct engine e;
    char *model_name = model ? strdup(model) : NULL, *backend_name = backend ? strdup(backend) : NULL;
    int code = (model && !model_name) || (backend && !backend_name) ? print_error(EXIT_RUNTIME, "out of memory") : 0;
    if (!code && model) code = option_set(&next, &option_table[OPT_model], FROM_FLAG, "--model", model_name);
    if (!code && backend) code = option_set(&next, &option_table[OPT_backend], FROM_FLAG, "--backend", backend_name);
    if (!code) code = open_engine(&next, &e);
    if (code) {
        free(model_name);
        free(backend_name);
        return code;
    }
    take_engine(c, &e);
    c->s = next;
    if (model) free(c->model_name), c->model_name = model_name;
    if (backend) free(c->backend_name), c->backend_name = backend_name;
    return 0;
}

/* ---- adapters: c->s.lora always says what the session has */

/* The list of --lora, of which number i is text; i may be one past the end. NULL: no memory. */
static char **loras_with(const struct chat *c, size_t i, const char *text)
{
    const size_t n = c->s.lora.n + (i == c->s.lora.n);
    char **list = calloc(n + 1, sizeof *list);
    for (size_t k = 0; list && k < n; k++) {
        list[k] = strdup(k == i ? text : c->s.lora.v[k]);
        if (list[k]) continue;
        free_loras(list, n);
        list = NULL;
    }
    if (!list) print_error(EXIT_RUNTIME, "out of memory");
    return list;
}

static void take_loras(struct chat *c, char **list, size_t n)
{
    free_loras(c->loras, c->s.lora.n);
    c->loras = list;
    c->s.lora = (struct texts){(const char **)list, n};
}

int chat_set_lora(struct chat *c, size_t i, double strength)
{
    const size_t n = kg_model_n_loras(c->model);
    double all[INPUT_MOST_ADAPTERS], old;
    char text[4200];
    bool given;
    memcpy(all, kg_session_loras(c->session), n * sizeof *all);
    all[i] = strength;
    snprintf(text, sizeof text, "%.*s=%.17g", (int)input_adapter(c->s.lora.v[i], &old, &given), c->s.lora.v[i], strength);
    char **list = loras_with(c, i, text);
    if (!list) return EXIT_RUNTIME;
    kg_status status = kg_session_set_loras(c->session, all, n);
    if (!status) take_loras(c, list, n);
    else free_loras(list, n);
    return status ? print_status(status) : 0;
}

int chat_add_lora(struct chat *c, const char *lora)
{
    struct settings next = c->s;
    struct engine e;
    const size_t n = lora ? c->s.lora.n + 1 : 0;
    char **list = lora ? loras_with(c, n - 1, lora) : NULL;
    if (lora && !list) return EXIT_RUNTIME;
    next.lora = (struct texts){(const char **)list, n};
    int code = open_engine(&next, &e);
    if (code) {
        free_loras(list, n);
        return code;
    }
    take_engine(c, &e);
    take_loras(c, list, n);
    return 0;
}

void chat_clear(struct chat *c)
{
    conversation_cut(&c->talk, conversation_system(&c->talk) ? 1 : 0);
    c->first = 0;
}

bool chat_has_template(const struct chat *c) { return c->use_template && c->template; }

/* ---- the text that the model is shown ---------------------------------------------------------------------------- */

/* i-th message that the model sees; NULL at the end. */
static const struct message *shown(const struct chat *c, size_t i)
{
    size_t n_system = conversation_system(&c->talk) ? 1 : 0;
    if (i >= n_system && c->first > n_system) i += c->first - n_system;
    return i < c->talk.n ? &c->talk.v[i] : NULL;
}

static kg_status render_template(const struct chat *c, char **text, size_t *len)
{
    kg_chat_message *list = calloc(c->talk.n + 1, sizeof *list);
    kg_chat_params p = {.messages = list, .tools_json = c->tools, .variables_json = c->s.variables, .add_generation_prompt = true};
    const struct message *m;
    if (!list) return KG_ERR_MEMORY;
    while ((m = shown(c, p.n_messages)) != NULL)
        list[p.n_messages++] = (kg_chat_message){.role = m->role, .content = m->content, .reasoning = m->reasoning, .tool_calls = m->tool_calls};
    kg_status status = kg_chat_render(c->template, &p, text, len);
    free(list);
    return status;
}

/* Without a template: one text that goes on; what the user says begins a new line. */
static kg_status render_plain(const struct chat *c, char **text, size_t *len)
{
    FILE *out = open_memstream(text, len);
    const struct message *m;
    if (!out) return KG_ERR_MEMORY;
    for (size_t i = 0; (m = shown(c, i)) != NULL; i++) {
        if (i && strcmp(m->role, "assistant") != 0) fputc('\n', out);
        fputs(m->content, out);
    }
    return fclose(out) == 0 ? KG_OK : KG_ERR_MEMORY;
}

/* A prompt, as text and tokens. */
struct turn {
    char *text;
    size_t len;
    int32_t *ids;
    size_t n;
};

static void free_turn(struct turn *t)
{
    free(t->text); /* of kg_chat_render or open_memstream */
    kg_free(t->ids);
    *t = (struct turn){0};
}

/* Tokens of a text's end, as they are in the middle of a text: a vocabulary may put a space before what begins one, so
 * it is tokenized after a line end, whose tokens are then taken off. *n = 0 if that is not possible. */
static kg_status tokenize_end(const kg_tokenizer *tok, const char *text, size_t len, unsigned flags, int32_t **ids, size_t *n)
{
    int32_t *line = NULL;
    size_t n_line;
    char *with = malloc(len + 1);
    if (!with) return KG_ERR_MEMORY;
    with[0] = '\n';
    memcpy(with + 1, text, len);
    kg_status status = kg_tokenize(tok, "\n", 1, 0, &line, &n_line);
    if (!status) status = kg_tokenize(tok, with, len + 1, flags, ids, n);
    free(with);
    if (!status && *n > n_line && memcmp(*ids, line, n_line * sizeof *line) == 0) {
        *n -= n_line;
        memmove(*ids, *ids + n_line, *n * sizeof **ids);
    } else if (!status) {
        *n = 0;
    }
    kg_free(line);
    return status;
}

/* If the text goes on where the session's ends, only what follows is tokenized: then the answers keep the tokens that they were
 * generated with, and nothing before them is computed again. */
static kg_status tokenize(const struct chat *c, struct turn *t)
{
    const kg_tokenizer *tok = kg_model_tokenizer(c->model);
    unsigned special = chat_has_template(c) ? KG_TOKENIZE_SPECIAL : 0;
    if (c->n_held && t->len > c->held_len && memcmp(t->text, c->held_text, c->held_len) == 0) {
        kg_status status = tokenize_end(tok, t->text + c->held_len, t->len - c->held_len, special, &t->ids, &t->n);
        int32_t *all = !status && t->n ? malloc((c->n_held + t->n) * sizeof *all) : NULL;
        if (all) {
            memcpy(all, c->held, c->n_held * sizeof *all);
            memcpy(all + c->n_held, t->ids, t->n * sizeof *all);
            kg_free(t->ids);
            t->ids = all;
            t->n += c->n_held;
            return KG_OK;
        }
        kg_free(t->ids);
        t->ids = NULL;
        if (status) return status;
    }
    return kg_tokenize(tok, t->text, t->len, special ? special : KG_TOKENIZE_BOS, &t->ids, &t->n);
}

static kg_status prepare(const struct chat *c, struct turn *t)
{
    *t = (struct turn){0};
    kg_status status = chat_has_template(c) ? render_template(c, &t->text, &t->len) : render_plain(c, &t->text, &t->len);
    return status ? status : tokenize(c, t);
}

/* Lets go of the oldest turn: up to the next message of the user. false: there is only the last. */
static bool drop_turn(struct chat *c)
{
    size_t i = c->first, n_system = conversation_system(&c->talk) ? 1 : 0;
    if (i < n_system) i = n_system;
    do i++;
    while (i < c->talk.n && strcmp(c->talk.v[i].role, "user") != 0);
    if (i >= c->talk.n) return false;
    c->first = i;
    return true;
}

/* The prompt, with as many turns as leave room for an answer. */
static kg_status prepare_to_fit(struct chat *c, struct turn *t, const struct chat_sink *sink)
{
    size_t n_ctx = (size_t)(c->s.ctx ? c->s.ctx : kg_model_n_ctx(c->model)), room = n_ctx / 4;
    if ((size_t)c->s.max_tokens < room) room = (size_t)c->s.max_tokens;
    size_t n_dropped = 0;
    for (;;) {
        kg_status status = prepare(c, t);
        if (status) return status;
        if (t->n + room <= n_ctx || !drop_turn(c)) break;
        n_dropped++;
        free_turn(t);
    }
    if (n_dropped) {
        char line[128];
        snprintf(line, sizeof line, "the context is full: the oldest %s no longer shown to the model", n_dropped == 1 ? "turn is" : "turns are");
        sink->notice(sink->ctx, line);
    }
    return KG_OK;
}

/* ---- an answer --------------------------------------------------------------------------------------------------- */

struct answering {
    struct chat *c;
    const struct chat_sink *sink;
    kg_answer *parts; /* NULL: plain text */
    char *raw;        /* through stream */
    size_t raw_len;
    FILE *stream;
    int32_t *ids; /* [n], without the end token */
    size_t n, cap;
    double start, first, last;
    bool out_of_memory;
};

static bool keep_id(struct answering *a, int32_t id)
{
    if (a->n == a->cap) {
        size_t cap = 2 * a->cap + 256;
        int32_t *more = realloc(a->ids, cap * sizeof *more);
        if (!more) return false;
        a->ids = more;
        a->cap = cap;
    }
    a->ids[a->n++] = id;
    return true;
}

static bool on_part(void *ctx, kg_part part, bool first, const char *text, size_t len)
{
    const struct answering *a = ctx;
    a->sink->text(a->sink->ctx, part, first, text, len);
    return true;
}

static bool on_text(void *ctx, int32_t token, const char *text, size_t len)
{
    struct answering *a = ctx;
    if (token >= 0) {
        a->last = generate_clock();
        if (a->c->last.n_answer++ == 0) a->first = a->last;
        if (!kg_token_is_end(kg_model_tokenizer(a->c->model), token) || a->c->s.ignore_eos) a->out_of_memory |= !keep_id(a, token);
    }
    fwrite(text, 1, len, a->stream);
    if (a->parts) a->out_of_memory |= kg_answer_push(a->parts, text, len, false, on_part, a) != KG_OK;
    else if (len) on_part(a, KG_PART_TEXT, ftell(a->stream) == (long)len, text, len);
    return !a->out_of_memory && !interrupt_seen && !interrupt_end;
}

static bool on_progress(void *ctx, size_t done, size_t total)
{
    const struct answering *a = ctx;
    if (a->c->last.n_answer == 0) print_note(LEVEL_TRACE, "prompt: %zu of %zu tokens", done, total);
    if (a->sink->progress && a->c->last.n_answer == 0) a->sink->progress(a->sink->ctx, done, total);
    return !interrupt_seen && !interrupt_end;
}

/* Whether the text of the kept tokens is the text that came: it is not where a stop string or half a character was held back. */
static bool ids_are_text(const struct answering *a)
{
    const kg_tokenizer *tok = kg_model_tokenizer(a->c->model);
    size_t at = 0;
    for (size_t i = 0; i < a->n; i++) {
        const char *bytes;
        size_t n = kg_token_bytes(tok, a->ids[i], a->parts != NULL, &bytes);
        if (n > a->raw_len - at || memcmp(a->raw + at, bytes, n) != 0) return false;
        at += n;
    }
    return at == a->raw_len;
}

/* Remembers what the session holds: prompt and answer. */
static void hold(struct chat *c, const struct turn *t, const struct answering *a)
{
    size_t n = a->n, len = a->raw_len;
    if (!ids_are_text(a)) n = len = 0;
    hold_nothing(c);
    c->held_text = malloc(t->len + len + 1);
    c->held = malloc((t->n + n) * sizeof *c->held);
    if (!c->held_text || !c->held) {
        hold_nothing(c);
        return;
    }
    memcpy(c->held_text, t->text, t->len);
    if (len) memcpy(c->held_text + t->len, a->raw, len);
    memcpy(c->held, t->ids, t->n * sizeof *c->held);
    if (n) memcpy(c->held + t->n, a->ids, n * sizeof *c->held);
    c->held_len = t->len + len;
    c->n_held = t->n + n;
}

/* The answer becomes a message. *empty: nothing of it came. */
static bool keep_answer(struct answering *a, bool *empty)
{
    size_t n_text = a->raw_len, n_reasoning = 0, n_calls = 0;
    const char *text = a->raw, *reasoning = NULL;
    char *calls = NULL;
    if (a->parts) {
        text = kg_answer_part(a->parts, KG_PART_TEXT, &n_text);
        reasoning = kg_answer_part(a->parts, KG_PART_REASONING, &n_reasoning);
        kg_answer_part(a->parts, KG_PART_TOOL_CALL, &n_calls);
        if (n_calls && kg_answer_tool_calls(a->parts, &calls)) return false;
    }
    *empty = n_text + n_reasoning + n_calls == 0;
    bool good = conversation_add(&a->c->talk, "assistant", text, n_reasoning ? reasoning : NULL, calls);
    kg_free(calls);
    return good;
}

static kg_status generate(struct answering *a, const struct turn *t)
{
    struct chat *c = a->c;
    kg_finish finish = KG_FINISH_LENGTH;
    kg_generate_params params = generate_params(&c->s, c->seed);
    params.special = a->parts != NULL; /* marks of sections may be control tokens */
    c->last = (struct chat_stats){.n_prompt = t->n};
    a->start = a->first = a->last = generate_clock();
    kg_session_set_progress(c->session, on_progress, a);
    kg_status status = kg_session_sync(c->session, t->ids, t->n);
    if (a->sink->progress) a->sink->progress(a->sink->ctx, 0, 0);
    kg_session_stats st = kg_session_get_stats(c->session);
    c->last.n_reused = st.n_reused;
    c->last.n_computed = st.n_computed;
    if (!status) status = kg_generate(c->session, t->ids, t->n, &params, on_text, a, &finish);
    kg_session_set_progress(c->session, NULL, NULL);
    if (a->parts && (!status || status == KG_ERR_ABORTED)) kg_answer_push(a->parts, "", 0, true, on_part, a);
    fflush(a->stream);
    c->last.to_first = a->first - a->start;
    c->last.generating = a->last - a->first;
    c->total_prompt += t->n;
    c->total_computed += c->last.n_computed;
    c->total_answer += c->last.n_answer;
    c->n_answers++;
    if (!status && finish == KG_FINISH_CONTEXT) a->sink->notice(a->sink->ctx, "the context is full: the answer is cut; --ctx sets its size");
    if (!status && finish == KG_FINISH_LENGTH) a->sink->notice(a->sink->ctx, "the answer is cut after --max-tokens");
    return a->out_of_memory ? KG_ERR_MEMORY : status;
}

static int answer(struct chat *c, const struct turn *t, const struct chat_sink *sink)
{
    struct answering a = {.c = c, .sink = sink};
    bool empty = false, good = false;
    kg_status status = chat_has_template(c) ? kg_answer_new(&a.parts, t->text, t->len) : KG_OK;
    a.stream = open_memstream(&a.raw, &a.raw_len);
    if (!status && a.stream) {
        status = generate(&a, t);
        good = status == KG_OK || status == KG_ERR_ABORTED;
    }
    if (good) good = keep_answer(&a, &empty);
    if (good) hold(c, t, &a);
    int code = good ? 0 : status ? print_status(status) : print_error(EXIT_RUNTIME, "out of memory");
    if (good && empty && status == KG_ERR_ABORTED) conversation_cut(&c->talk, c->talk.n - 2); /* as if it had not been asked */
    if (a.stream) fclose(a.stream);
    free(a.raw);
    free(a.ids);
    kg_answer_free(&a.parts);
    return code;
}

int chat_say(struct chat *c, const char *text, const struct chat_sink *sink)
{
    size_t n = c->talk.n, first = c->first;
    struct turn t = {0};
    if (!c->template && !c->said_plain) {
        sink->notice(sink->ctx, "this model has no chat template: it continues the text of the conversation as it stands");
        c->said_plain = true;
    }
    if (!conversation_add(&c->talk, "user", text, NULL, NULL)) return print_error(EXIT_RUNTIME, "out of memory");
    kg_status status = prepare_to_fit(c, &t, sink);
    int code = status ? print_status(status) : answer(c, &t, sink);
    if (code) {
        conversation_cut(&c->talk, n);
        c->first = first;
    }
    free_turn(&t);
    return code;
}

/* ---- statistics --------------------------------------------------------------------------------------------------- */

static double per_second(double n, double t) { return t > 0 ? n / t : 0; }

void chat_short_stats(const struct chat *c, char *out, size_t size)
{
    const struct chat_stats *l = &c->last;
    snprintf(out, size, "prompt %zu tokens, %zu reused, %zu computed; first token after %.3f s; answer %zu tokens, %.1f tokens/s", l->n_prompt, l->n_reused,
             l->n_computed, l->to_first, l->n_answer, l->n_answer > 1 ? per_second((double)l->n_answer - 1, l->generating) : 0);
}

size_t chat_context(const struct chat *c, size_t *n_ctx)
{
    *n_ctx = (size_t)(c->s.ctx ? c->s.ctx : kg_model_n_ctx(c->model));
    return kg_session_get_stats(c->session).n_tokens;
}

void chat_print_stats(const struct chat *c, FILE *out)
{
    const struct chat_stats *l = &c->last;
    kg_session_stats st = kg_session_get_stats(c->session);
    size_t n_ctx;
    chat_context(c, &n_ctx);
    size_t n_system = conversation_system(&c->talk) ? 1 : 0, n_hidden = c->first > n_system ? c->first - n_system : 0;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    fprintf(out, "model     %s: %s, %d layers, %s backend, %s\n", c->path, kg_model_arch(c->model), (int)kg_model_n_layers(c->model),
            kg_model_backend(c->model), chat_has_template(c) ? "chat template" : "no chat template");
    fprintf(out, "messages  %zu%s, %zu of them no longer shown to the model\n", c->talk.n - n_system, n_system ? " and a system prompt" : "", n_hidden);
    fprintf(out, "context   %zu of %zu tokens\n", st.n_tokens, n_ctx);
    if (c->n_answers) {
        fprintf(out, "prompt    %zu tokens: %zu reused from the cache, %zu computed\n", l->n_prompt, l->n_reused, l->n_computed);
        fprintf(out, "answer    %zu tokens, time to first token %.3f s", l->n_answer, l->to_first);
        if (l->n_answer > 1) fprintf(out, ", then %.1f tokens/s", per_second((double)l->n_answer - 1, l->generating));
        fprintf(out, "\ntotal     %zu answers: %zu tokens of prompts, %zu of them computed; %zu tokens generated\n", c->n_answers, c->total_prompt,
                c->total_computed, c->total_answer);
    }
    fprintf(out, "memory    cache %.2f MiB, program at most %.1f MiB\n", (double)st.kv_bytes / (1 << 20), (double)usage.ru_maxrss / 1024);
    if (c->s.temperature > 0) fprintf(out, "seed      %llu\n", (unsigned long long)c->seed);
}
