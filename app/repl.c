/* The loop of a conversation: read, answer, print. Owns what the terminal looks like while an answer arrives. */
#include "repl.h"

#include "generate.h"
#include "input.h"
#include "interrupt.h"
#include "line.h"
#include "print.h"
#include "progress.h"
#include "slash.h"
#include "tui.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct repl {
    struct chat chat;
    FILE *out; /* standard output; while an answer is kept back by --no-stream, what keeps it */
    struct line *line; /* NULL: one answer only */
    struct progress progress;
    bool terminal; /* standard output is one */
    bool at_line_start, thinking, any_text;
    bool unnamed; /* "Assistant> " has yet to be printed */
    int write_errno; /* of standard output; 0: all is well */
};

static void dim(struct repl *r, bool on)
{
    if (print_color(stdout)) fputs(on ? "\033[2m" : "\033[0m", r->out);
}

/* A terminal obeys control characters: those of a model's text are not for it. */
static void put(struct repl *r, const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        bool control = (c < 32 && c != '\n' && c != '\t') || c == 127 || (c == 0xc2 && i + 1 < len && (unsigned char)text[i + 1] < 0xa0);
        if (!r->terminal || !control) putc(c, r->out);
        else if (c == 0xc2) i++;
    }
    if (len) r->at_line_start = text[len - 1] == '\n';
}

static void name(struct repl *r)
{
    if (r->unnamed) fputs("Assistant> ", r->out), r->at_line_start = false;
    r->unnamed = false;
}

static void end_line(struct repl *r)
{
    if (!r->at_line_start) putc('\n', r->out);
    r->at_line_start = true;
}

static void flush(struct repl *r)
{
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout)) return;
    r->write_errno = errno ? errno : EIO;
    interrupt_end = SIGPIPE; /* nobody reads: ends the answer and the loop */
}

static void on_text(void *ctx, kg_part part, bool first, const char *text, size_t len)
{
    struct repl *r = ctx;
    bool shown = part != KG_PART_REASONING || r->chat.s.show_thinking;
    bool thinking = part == KG_PART_REASONING;
    name(r);
    if (thinking != r->thinking) {
        if (!thinking && r->chat.s.show_thinking) end_line(r), putc('\n', r->out);
        dim(r, thinking);
        if (thinking && r->chat.s.show_thinking) fputs("Thinking: ", r->out), r->at_line_start = false;
        r->thinking = thinking;
    }
    if (part == KG_PART_TOOL_CALL && first) {
        end_line(r);
        fputs("Tool call: ", r->out);
        r->at_line_start = false;
    } else if (first && part == KG_PART_TEXT && r->any_text) {
        end_line(r);
    }
    if (part != KG_PART_REASONING) r->any_text = true;
    if (shown) put(r, text, len);
    if (r->out == stdout) flush(r);
}

static void on_notice(void *ctx, const char *line)
{
    struct repl *r = ctx;
    end_line(r);
    print_note(LEVEL_INFO, "%s", line);
}

static void on_progress(void *ctx, size_t done, size_t total)
{
    struct repl *r = ctx;
    if (total) progress_show(&r->progress, done, total);
    else progress_end(&r->progress);
}

static int answer(struct repl *r, const char *text)
{
    struct chat_sink sink = {on_text, on_notice, on_progress, r};
    bool prompt = r->line && line_is_edited(r->line);
    r->at_line_start = true;
    r->thinking = r->any_text = false;
    r->unnamed = prompt;
    char *held = NULL;
    size_t n_held = 0;
    if (r->chat.s.no_stream && !(r->out = open_memstream(&held, &n_held))) r->out = stdout;
    progress_begin(&r->progress, &r->chat.s, "prompt", false, 0);
    int code = chat_say(&r->chat, text, &sink);
    progress_end(&r->progress);
    if (r->thinking) dim(r, false);
    if (!code) name(r);
    if (!code || prompt) end_line(r);
    if (r->out != stdout) {
        fclose(r->out);
        fwrite(held, 1, n_held, stdout);
        free(held);
        r->out = stdout;
        flush(r);
    }
    if (prompt && interrupt_seen) print_note(LEVEL_INFO, "stopped");
    fflush(stdout);
    if (!code && r->chat.s.stats) {
        char line[256];
        chat_short_stats(&r->chat, line, sizeof line);
        fprintf(stderr, "%s\n", line);
    }
    int saved = slash_auto_save(&r->chat);
    return code ? code : saved;
}

/* The text of -p or -f: one answer. */
static int answer_once(struct repl *r)
{
    const struct settings *s = &r->chat.s;
    char *text = NULL;
    size_t len;
    int code = 0;
    interrupt_catch(0);
    if (s->prompt_file) code = input_read_file(s->prompt_file, &text, &len);
    else if (!(text = strdup(s->prompt))) code = print_error(EXIT_RUNTIME, "out of memory");
    if (!code && s->prompt_file && strlen(text) != len) code = print_error(EXIT_USAGE, "%s is not a text", s->prompt_file);
    if (!code && s->prompt_file && len && text[len - 1] == '\n') text[len - 1] = 0;
    if (!code) code = answer(r, text);
    free(text);
    if (!code && interrupt_seen) code = 130;
    return code;
}

static int loop(struct repl *r)
{
    struct slash x = {.chat = &r->chat, .out = stdout};
    bool edited = line_is_edited(r->line), hinted = false;
    if (edited) printf("kagari %s, %s. /help lists commands, Ctrl-D leaves.\n", kg_version(), kg_model_arch(r->chat.model));
    int code = 0;
    interrupt_catch(0);
    while (!x.leave && !interrupt_end) {
        char *line;
        const char *text;
        fflush(stdout);
        enum line_result result = line_read(r->line, chat_has_template(&r->chat) ? "📋 You> " : "You> ", &line);
        if (result == LINE_END) break;
        if (result == LINE_CANCELLED) {
            if (!hinted) print_note(LEVEL_INFO, "/exit or Ctrl-D leaves");
            hinted = true;
            continue;
        }
        x.cleared = false;
        if (slash_run(&x, line, &text)) {
            if (x.cleared && edited && r->terminal) fputs("\033[H\033[2J", stdout);
        } else if (text[strspn(text, " \t\n")]) {
            int failed = answer(r, text); /* an error ends nothing where somebody can try again */
            if (!edited && failed) code = failed;
        }
        interrupt_seen = 0;
        free(line);
    }
    return code;
}

static int check_options(const struct settings *s)
{
    if (s->tokens.v) return print_error(EXIT_USAGE, "--tokens is about plain prompts, not conversations: leave --chat out");
    if (s->special) return print_error(EXIT_USAGE, "--special is about plain prompts, not conversations: leave --chat out");
    if (s->print_ids) return print_error(EXIT_USAGE, "--print-ids is about plain prompts, not conversations: leave --chat out");
    if (s->from[OPT_tui] == FROM_FLAG && (s->prompt || s->prompt_file)) return print_error(EXIT_USAGE, "--tui is for conversations: leave the prompt out");
    if (s->from[OPT_tui] == FROM_FLAG && !(isatty(STDIN_FILENO) && isatty(STDOUT_FILENO)))
        return print_error(EXIT_USAGE, "--tui needs a terminal: standard input and output must be one");
    if (s->prompt && s->prompt_file) return print_error(EXIT_USAGE, "--file and --prompt are both given: the prompt can be only one");
    return 0;
}

int repl_run(const struct settings *s)
{
    struct repl r = {.out = stdout, .terminal = isatty(STDOUT_FILENO), .at_line_start = true};
    bool once = s->prompt || s->prompt_file;
    int code = check_options(s);
    if (code) return code;
    code = chat_open(&r.chat, s);
    if (!code && once) code = answer_once(&r);
    if (!code && !once && tui_wanted(s)) code = tui_run(&r.chat);
    else if (!code && !once) {
        r.line = line_open(s);
        code = r.line ? loop(&r) : print_error(EXIT_RUNTIME, "out of memory");
    }
    if (r.chat.session && !once) {
        int saved = slash_auto_save(&r.chat);
        if (!code) code = saved;
    }
    if (r.chat.session && !code) code = input_save_cache(&r.chat.s, r.chat.session);
    line_close(&r.line);
    chat_close(&r.chat);
    if (r.write_errno) return print_error(EXIT_RUNTIME, "cannot write to standard output: %s", strerror(r.write_errno));
    return interrupt_end ? 128 + interrupt_end : code;
}
