/* The command without a name: continues a prompt and streams the text. Owns what happens while text is being made: output,
 * interruption, statistics. */
#include "generate.h"

#include "commands.h"
#include "input.h"
#include "interrupt.h"
#include "option_table.h"
#include "print.h"
#include "repl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#define EXIT_INTERRUPTED 130

double generate_clock(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* What has been written so far. */
struct output {
    FILE *to; /* standard output, or with --no-stream `held`, which is printed at the end */
    char *held;
    size_t n_held;
    bool print_ids;
    size_t n_tokens;
    int write_errno; /* 0: all is well */
    bool at_line_start;
    bool progress; /* show it */
    bool progress_shown;
    double first, last; /* times of the first and the last token */
};

/* On the terminal that shows errors: one line, overwritten and then removed. */
static void clear_progress(struct output *o)
{
    if (o->progress_shown) fputs("\r\033[K", stderr);
    o->progress_shown = false;
}

static bool on_progress(void *ctx, size_t done, size_t total)
{
    struct output *o = ctx;
    if (o->n_tokens == 0) print_note(LEVEL_TRACE, "prompt: %zu of %zu tokens", done, total);
    if (o->progress && o->n_tokens == 0 && done < total) {
        fprintf(stderr, "\rprompt: %zu of %zu tokens", done, total);
        o->progress_shown = true;
    }
    return !interrupt_seen;
}

static bool flushed(struct output *o)
{
    if (fflush(stdout) == 0 && !ferror(stdout)) return true;
    if (!o->write_errno) o->write_errno = errno ? errno : EIO;
    return false;
}

static bool on_text(void *ctx, int32_t token, const char *text, size_t len)
{
    struct output *o = ctx;
    clear_progress(o);
    if (token >= 0) {
        o->last = generate_clock();
        if (o->n_tokens == 0) o->first = o->last;
        if (o->print_ids) fprintf(o->to, "%s%d", o->n_tokens ? "," : "", (int)token);
        o->n_tokens++;
    }
    if (!o->print_ids && len) {
        fwrite(text, 1, len, o->to);
        o->at_line_start = text[len - 1] == '\n';
    }
    return (o->to != stdout || flushed(o)) && !interrupt_seen;
}

/* Ids are data and end in a newline. A text ends as the model ended it, but a terminal gets the newline that its prompt needs. */
static void end_output(struct output *o)
{
    if (o->to != stdout) {
        fclose(o->to);
        o->to = stdout;
        fwrite(o->held, 1, o->n_held, stdout);
        free(o->held);
        o->held = NULL;
    }
    if (o->print_ids ? o->n_tokens > 0 : !o->at_line_start && isatty(STDOUT_FILENO)) putchar('\n');
    fflush(stdout);
}

kg_generate_params generate_params(const struct settings *s, uint64_t seed)
{
    return (kg_generate_params){
        .max_tokens = (size_t)s->max_tokens,
        .ignore_end = s->ignore_eos,
        .stop = s->stop.v,
        .n_stop = s->stop.n,
        .sampler = {
            .temperature = (float)s->temperature,
            .top_k = (int)s->top_k,
            .top_p = (float)s->top_p,
            .min_p = (float)s->min_p,
            .repeat_penalty = (float)s->repeat_penalty,
            .presence_penalty = (float)s->presence_penalty,
            .frequency_penalty = (float)s->frequency_penalty,
            .penalty_last_n = (int)s->penalty_last_n,
            .seed = seed,
        },
    };
}

uint64_t generate_seed(const struct settings *s)
{
    uint32_t random = 0; /* 32 bits: short enough to be typed again */
    if (!s->given[OPT_seed] && getentropy(&random, sizeof random) == 0) return random;
    return s->seed;
}

static const char *finish_text(kg_finish finish)
{
    switch (finish) {
    case KG_FINISH_LENGTH: return "--max-tokens";
    case KG_FINISH_END: return "the model's end of text";
    case KG_FINISH_STOP_STRING: return "--stop";
    case KG_FINISH_CONTEXT: return "a full context";
    }
    return "?";
}

/* One run of the command. */
struct generation {
    const struct settings *s;
    const char *path;
    kg_model *model;
    kg_session *session;
    struct prompt prompt;
    struct output output;
    uint64_t seed;
    size_t n_reused; /* tokens of the prompt that were in the cache */
    double start, loaded, end; /* seconds */
};

static double per_second(double n, double t) { return t > 0 ? n / t : 0; }

static void print_stats(const struct generation *g, const char *ended_by)
{
    const struct output *o = &g->output;
    kg_session_stats st = kg_session_get_stats(g->session);
    double to_first = (o->n_tokens ? o->first : g->end) - g->loaded;
    fprintf(stderr, "\nmodel   %s: %s, %d layers, %s backend, loaded in %.3f s\n", g->path, kg_model_arch(g->model), (int)kg_model_n_layers(g->model),
            kg_model_backend(g->model), g->loaded - g->start);
    fprintf(stderr, "prompt  %zu tokens", g->prompt.n);
    if (g->n_reused) fprintf(stderr, ", %zu of them from the cache,", g->n_reused);
    fprintf(stderr, " in %.3f s, %.1f tokens/s\n", to_first, per_second((double)(g->prompt.n - g->n_reused), to_first));
    fprintf(stderr, "text    %zu tokens", o->n_tokens);
    if (o->n_tokens > 1) fprintf(stderr, ", after the first %.1f tokens/s", per_second((double)o->n_tokens - 1, o->last - o->first));
    fprintf(stderr, ", ended by %s\n", ended_by);
    fprintf(stderr, "cache   %zu tokens, %.2f MiB\n", st.n_tokens, (double)st.kv_bytes / (1 << 20));
    if (g->s->temperature > 0) fprintf(stderr, "seed    %llu\n", (unsigned long long)g->seed);
}

/* Opens what is needed and reads the prompt. */
static int prepare(struct generation *g)
{
    const struct settings *s = g->s;
    g->start = generate_clock();
    g->output = (struct output){.print_ids = s->print_ids, .at_line_start = true, .progress = !s->no_progress && isatty(STDERR_FILENO)};
    g->output.to = s->no_stream ? open_memstream(&g->output.held, &g->output.n_held) : stdout;
    if (!g->output.to) return print_error(EXIT_RUNTIME, "out of memory");
    g->seed = generate_seed(s);
    int code = input_open_model(s, &g->model, &g->path);
    if (!code) code = input_prompt(s, kg_model_tokenizer(g->model), NULL, &g->prompt);
    if (code) return code;
    if (!kg_model_tokenizer(g->model) && !s->print_ids)
        return print_error(EXIT_RUNTIME, "the model file has no tokenizer, so there is no text to print: use --print-ids");
    kg_session_params params = kg_session_default_params();
    params.n_ctx = s->ctx;
    params.n_batch = (int)s->batch;
    kg_status status = kg_session_new(&g->session, g->model, &params);
    if (status) return print_status(status);
    kg_session_set_progress(g->session, on_progress, &g->output);
    return input_load_cache(s, g->session);
}

static int generate(struct generation *g)
{
    kg_generate_params params = generate_params(g->s, g->seed);
    kg_finish finish = KG_FINISH_LENGTH;
    interrupt_catch(1); /* the first Ctrl-C ends the text at the next token, a second one the program */
    g->loaded = generate_clock();
    kg_status status = kg_session_sync(g->session, g->prompt.ids, g->prompt.n);
    g->n_reused = kg_session_get_stats(g->session).n_reused;
    if (!status) status = kg_generate(g->session, g->prompt.ids, g->prompt.n, &params, on_text, &g->output, &finish);
    g->end = generate_clock();
    clear_progress(&g->output);
    end_output(&g->output);
    if (!flushed(&g->output) || g->output.write_errno) return print_error(EXIT_RUNTIME, "cannot write to standard output: %s", strerror(g->output.write_errno));
    if (status && status != KG_ERR_ABORTED) return print_status(status);
    if (g->s->stats) print_stats(g, status ? "interruption" : finish_text(finish));
    int saved = input_save_cache(g->s, g->session);
    if (saved) return saved;
    if (status) return EXIT_INTERRUPTED;
    if (finish == KG_FINISH_CONTEXT && !g->s->stats) print_note(LEVEL_WARN, "the context is full, the text is cut; --ctx sets its size");
    return 0;
}

/* Options that only a conversation has. */
static int check_options(const struct settings *s)
{
    static const enum option_id only_chat[] = {OPT_system_prompt, OPT_template_file, OPT_tools, OPT_variables, OPT_load_history, OPT_save_history, OPT_no_auto_save,
                                               OPT_history_file, OPT_max_history, OPT_show_thinking};
    for (size_t i = 0; i < sizeof only_chat / sizeof *only_chat; i++)
        if (s->from[only_chat[i]] == FROM_FLAG) return print_error(EXIT_USAGE, "--%s belongs to a conversation: add --chat", option_table[only_chat[i]].name);
    return 0;
}

int command_generate(const struct settings *s)
{
    bool prompt = s->prompt || s->prompt_file || s->tokens.v;
    if (s->chat || s->from[OPT_tui] == FROM_FLAG || (!prompt && isatty(STDIN_FILENO))) return repl_run(s);
    struct generation g = {.s = s};
    int code = check_options(s);
    if (!code) code = prepare(&g);
    if (!code) code = generate(&g);
    if (g.output.to && g.output.to != stdout) fclose(g.output.to), free(g.output.held); /* there was an error */
    input_prompt_free(&g.prompt);
    kg_session_free(&g.session);
    kg_model_close(&g.model);
    return code;
}
