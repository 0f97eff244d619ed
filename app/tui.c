/* Keys and what they do, and the work that they start. Answers, commands and models come from a thread of their own, so that keys act and the
 * screen lives meanwhile; until it has ended, the chat is its alone. */
#include "tui.h"

#include "complete.h"
#include "generate.h"
#include "interrupt.h"
#include "line.h"
#include "print.h"
#include "screen.h"
#include "slash.h"
#include "typed.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KEYS "PgUp, PgDn and the wheel scroll (with Shift the mouse selects). Alt-Enter or Ctrl-J begins a new line. Shift-TAB switches the chat template, Ctrl-T shows reasoning."

/* What the worker tells while it works. */
struct report {
    bool done;
    size_t n_used, n_ctx; /* tokens */
    double rate;          /* tokens a second; 0: not known */
    double began, first;  /* clock: of the work, of its first token; 0: none yet */
    size_t n_answer, prompt_done, prompt_total;
    bool thinking;
};

struct tui {
    struct chat *chat;
    struct transcript talk, held; /* held: an answer that --no-stream keeps back */
    struct edit edit;
    struct typed *typed;
    size_t back;      /* how far back in what was typed; 0: what is being typed ... */
    char *draft;      /* ... which is kept here meanwhile */
    bool pasting, leave, hinted;
    char hint[512], engine[320]; /* engine: model and backend */
    struct view view;
    struct slash slash;
    sigset_t open_mask, blocked; /* signals that may come while a key is awaited, only then */
    int errors, wake[2]; /* where standard error was, a pipe that the worker writes to */
    FILE *noise;        /* what other code writes to standard error meanwhile */

    pthread_t worker;
    bool working;
    char *job;            /* the line that it is about */
    bool is_command;
    pthread_mutex_t lock; /* recursive; guards talk and report */
    struct report report;
};

bool tui_wanted(const struct settings *s) { return s->tui && isatty(STDIN_FILENO) && isatty(STDOUT_FILENO); }

/* ---- the worker --------------------------------------------------------------------------------------------------- */

static void wake(const struct tui *t)
{
    if (write(t->wake[1], "", 1) < 0) return; /* full: it is awake */
}

static void say(struct tui *t, enum voice voice, const char *text)
{
    pthread_mutex_lock(&t->lock);
    transcript_say(&t->talk, voice, text);
    pthread_mutex_unlock(&t->lock);
    wake(t);
}

static void on_message(void *ctx, enum level level, const char *line) { say(ctx, level >= LEVEL_ERROR ? VOICE_ERROR : VOICE_NOTE, line); }
static void on_notice(void *ctx, const char *line) { print_note(LEVEL_INFO, "%s", line), (void)ctx; }

static void on_text(void *ctx, kg_part part, bool first, const char *text, size_t len)
{
    struct tui *t = ctx;
    enum voice voice = part == KG_PART_REASONING ? VOICE_THINKING : part == KG_PART_TOOL_CALL ? VOICE_TOOL : VOICE_ASSISTANT;
    const struct chat_stats *l = &t->chat->last;
    double now = generate_clock();
    pthread_mutex_lock(&t->lock);
    struct report *r = &t->report;
    struct transcript *to = t->chat->s.no_stream ? &t->held : &t->talk;
    if (first || !to->n || to->v[to->n - 1].voice != voice) transcript_begin(to, voice);
    transcript_add(to, text, len);
    if (r->first <= 0) r->first = now, r->n_answer = l->n_answer;
    else if (now > r->first) r->rate = (double)(l->n_answer - r->n_answer) / (now - r->first);
    r->n_used = l->n_prompt + l->n_answer;
    r->prompt_total = 0;
    r->thinking = part == KG_PART_REASONING;
    pthread_mutex_unlock(&t->lock);
    wake(t);
}

static void on_progress(void *ctx, size_t done, size_t total)
{
    struct tui *t = ctx;
    pthread_mutex_lock(&t->lock);
    t->report.prompt_done = done;
    t->report.prompt_total = total;
    pthread_mutex_unlock(&t->lock);
    wake(t);
}

static void show_held(struct tui *t)
{
    pthread_mutex_lock(&t->lock);
    for (size_t i = 0; i < t->held.n; i++) {
        transcript_begin(&t->talk, t->held.v[i].voice);
        transcript_add(&t->talk, t->held.v[i].text ? t->held.v[i].text : "", t->held.v[i].n);
    }
    transcript_clear(&t->held);
    pthread_mutex_unlock(&t->lock);
}

static void run_command(struct tui *t)
{
    char *text = NULL;
    size_t len = 0;
    const char *message;
    t->slash.out = open_memstream(&text, &len);
    if (!t->slash.out) {
        print_error(EXIT_RUNTIME, "out of memory");
        return;
    }
    slash_run(&t->slash, t->job, &message);
    fclose(t->slash.out);
    while (len && text[len - 1] == '\n') text[--len] = 0;
    if (len && !t->slash.leave) say(t, VOICE_OUTPUT, text);
    free(text);
}

static void *work(void *ctx)
{
    struct tui *t = ctx;
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL); /* they come where they are awaited */
    if (t->is_command) {
        run_command(t);
    } else {
        struct chat_sink sink = {on_text, on_notice, on_progress, t};
        char line[256];
        int code = chat_say(t->chat, t->job, &sink);
        chat_short_stats(t->chat, line, sizeof line);
        show_held(t);
        if (interrupt_seen) print_note(LEVEL_INFO, "stopped");
        else if (!code && t->report.first <= 0) print_note(LEVEL_INFO, "the answer is empty");
        if (!code && t->chat->s.stats) say(t, VOICE_NOTE, line);
        slash_auto_save(t->chat);
    }
    pthread_mutex_lock(&t->lock);
    const struct chat_stats *l = &t->chat->last;
    if (!t->is_command && l->n_answer > 1 && l->generating > 0) t->report.rate = (double)(l->n_answer - 1) / l->generating;
    t->report.n_used = chat_context(t->chat, &t->report.n_ctx);
    t->report.done = true;
    pthread_mutex_unlock(&t->lock);
    wake(t);
    return NULL;
}

static void start_work(struct tui *t, const char *line)
{
    const char *text = line;
    bool message = line[0] != '/' || line[1] == '/';
    if (message && line[0] == '/') text++;
    say(t, message ? VOICE_USER : VOICE_COMMAND, text);
    pthread_mutex_lock(&t->lock);
    t->report = (struct report){.n_used = t->report.n_used, .n_ctx = t->report.n_ctx, .rate = message ? 0 : t->report.rate, .began = generate_clock()};
    pthread_mutex_unlock(&t->lock);
    t->is_command = !message;
    t->slash.cleared = t->slash.loaded = false;
    t->job = strdup(text);
    t->view.follow = true;
    if (t->job && pthread_create(&t->worker, NULL, work, t) == 0) t->working = true;
    else print_error(EXIT_RUNTIME, "cannot begin: out of memory"), free(t->job), t->job = NULL;
}

/* The conversation as it stands. */
static void show_conversation(struct tui *t)
{
    const struct conversation *c = &t->chat->talk;
    for (size_t i = 0; i < c->n; i++) {
        const struct message *m = &c->v[i];
        if (m->reasoning) transcript_say(&t->talk, VOICE_THINKING, m->reasoning);
        bool empty = !*m->content && (m->reasoning || m->tool_calls);
        enum voice voice = strcmp(m->role, "assistant") == 0 ? VOICE_ASSISTANT : strcmp(m->role, "system") == 0 ? VOICE_SYSTEM : VOICE_USER;
        if (!empty) transcript_say(&t->talk, voice, m->content);
        if (m->tool_calls) transcript_say(&t->talk, VOICE_TOOL, m->tool_calls);
    }
}

static void end_work(struct tui *t)
{
    pthread_join(t->worker, NULL);
    t->working = false;
    free(t->job);
    t->job = NULL;
    interrupt_seen = 0;
    if (t->slash.leave) t->leave = true;
    if (t->slash.loaded || t->slash.cleared) {
        struct said last = {0};
        if (t->talk.n && t->talk.v[t->talk.n - 1].voice == VOICE_OUTPUT) last = t->talk.v[--t->talk.n], free(last.rows); /* what the command said stays */
        transcript_clear(&t->talk);
        if (t->slash.loaded) show_conversation(t);
        transcript_begin(&t->talk, VOICE_OUTPUT);
        transcript_add(&t->talk, last.text ? last.text : "", last.n);
        free(last.text);
    }
}

/* ---- what is seen --------------------------------------------------------------------------------------------------- */

static void draw(struct tui *t)
{
    static const char *const spinner[] = {"|", "/", "-", "\\"};
    char status[512], right[64];
    pthread_mutex_lock(&t->lock);
    const struct report *r = &t->report;
    double passed = generate_clock() - r->began;
    if (!t->working) { /* meanwhile these may change under the worker's hands */
        const char *path = t->chat->path, *base = strrchr(path, '/');
        snprintf(t->engine, sizeof t->engine, "%s%s | %s", chat_has_template(t->chat) ? "📋 " : "", base && base[1] ? base + 1 : path, kg_model_backend(t->chat->model));
    }
    int n = snprintf(status, sizeof status, " %s", t->engine);
    if (t->working) {
        n += snprintf(status + n, sizeof status - (size_t)n, " | %s %s", spinner[(int)(passed * 8) & 3],
                      t->is_command ? "working" : r->thinking ? "thinking" : r->first > 0 ? "answering" : "reading");
        if (r->prompt_total) n += snprintf(status + n, sizeof status - (size_t)n, " %zu of %zu", r->prompt_done, r->prompt_total);
        n += snprintf(status + n, sizeof status - (size_t)n, " %.0f s", passed);
    }
    n += snprintf(status + n, sizeof status - (size_t)n, " | %zu/%zu tokens", r->n_used, r->n_ctx);
    if (r->rate > 0) snprintf(status + n, sizeof status - (size_t)n, " | %.1f tok/s", r->rate);
    snprintf(right, sizeof right, "%s ", t->working ? "Ctrl-C stops" : "/help  Ctrl-D leaves");
    t->view.title = " Chat ";
    t->view.hint = t->hint;
    t->view.status = status;
    t->view.right = right;
    screen_draw(&t->view);
    pthread_mutex_unlock(&t->lock);
}

static void scroll_by(struct tui *t, long rows)
{
    size_t top = t->view.top;
    t->view.follow = false;
    t->view.top = rows < 0 && top < (size_t)-rows ? 0 : top + (size_t)rows;
}

/* ---- what is typed -------------------------------------------------------------------------------------------------- */

static void recall(struct tui *t, size_t back)
{
    const char *text = back ? typed_get(t->typed, back - 1) : t->draft;
    if (!text) return;
    if (t->back == 0) free(t->draft), t->draft = edit_text(&t->edit, t->edit.n);
    if (back == 0) text = t->draft;
    if (text && edit_set(&t->edit, text)) t->back = back;
}

/* Up and down: within the text, then through what was typed before. */
static void up_or_down(struct tui *t, int by)
{
    int width = screen_text_width();
    struct edit_place p = edit_place(&t->edit, width, t->edit.at);
    int last = edit_place(&t->edit, width, t->edit.n).row;
    if (by < 0 ? p.row > 0 : p.row < last) t->edit.at = edit_at(&t->edit, width, (struct edit_place){p.row + by, p.column});
    else if (by < 0) recall(t, t->back + 1);
    else if (t->back) recall(t, t->back - 1);
}

static void on_tab(struct tui *t)
{
    struct completions c;
    char *before = edit_text(&t->edit, t->edit.at);
    if (before && !t->working && complete(&t->chat->s, before, &c)) {
        size_t n_chars = mbstowcs(NULL, before + c.start, 0), n = 0;
        wchar_t *wide = calloc(strlen(c.common) + 1, sizeof *wide);
        if (wide && n_chars != (size_t)-1) {
            edit_delete(&t->edit, t->edit.at - n_chars, t->edit.at);
            size_t n_wide = mbstowcs(wide, c.common, strlen(c.common));
            for (size_t i = 0; n_wide != (size_t)-1 && i < n_wide; i++) edit_insert(&t->edit, wide[i]);
        }
        free(wide);
        for (size_t i = 0; c.n > 1 && i < c.n && n + strlen(c.v[i]) + 3 < sizeof t->hint; i++) n += (size_t)sprintf(t->hint + n, " %s ", c.v[i]);
        completions_free(&c);
    }
    free(before);
}

static void on_enter(struct tui *t)
{
    struct edit *e = &t->edit;
    if (e->n && e->at == e->n && e->v[e->n - 1] == L'\\') {
        e->v[e->n - 1] = L'\n';
        return;
    }
    char *text = edit_text(e, e->n);
    if (text && text[strspn(text, " \t\n")]) {
        if (t->working) {
            snprintf(t->hint, sizeof t->hint, " not sent: wait, or Ctrl-C stops the answer ");
        } else {
            typed_add(t->typed, text);
            t->back = 0;
            e->n = e->at = 0;
            start_work(t, text);
        }
    }
    free(text);
}

static void toggle_template(struct tui *t)
{
    if (!t->working) start_work(t, "/template");
}

static void on_edit_key(struct tui *t, enum press press)
{
    struct edit *e = &t->edit;
    switch (press) {
    case PRESS_LEFT: e->at = edit_left(e, e->at); break;
    case PRESS_RIGHT: e->at = edit_right(e, e->at); break;
    case PRESS_WORD_LEFT: e->at = edit_word_left(e, e->at); break;
    case PRESS_WORD_RIGHT: e->at = edit_word_right(e, e->at); break;
    case PRESS_HOME: e->at = edit_line_start(e, e->at); break;
    case PRESS_END: e->at = edit_line_end(e, e->at); break;
    case PRESS_BACKSPACE: edit_delete(e, edit_left(e, e->at), e->at); break;
    case PRESS_DELETE: edit_delete(e, e->at, edit_right(e, e->at)); break;
    case PRESS_DELETE_WORD: edit_delete(e, edit_word_left(e, e->at), e->at); break;
    case PRESS_DELETE_TO_START: edit_delete(e, edit_line_start(e, e->at), e->at); break;
    case PRESS_DELETE_TO_END: edit_delete(e, e->at, edit_line_end(e, e->at)); break;
    case PRESS_UP: up_or_down(t, -1); break;
    case PRESS_DOWN: up_or_down(t, 1); break;
    default: break;
    }
}

static void on_key(struct tui *t, enum press press, wchar_t c)
{
    long page = (long)(t->view.page > 1 ? t->view.page - 1 : 1);
    t->hint[0] = 0;
    t->hinted = false;
    switch (press) {
    case PRESS_CHAR: edit_insert(&t->edit, c); break;
    case PRESS_NEWLINE: edit_insert(&t->edit, L'\n'); break;
    case PRESS_PASTE_BEGIN: t->pasting = true; break;
    case PRESS_PASTE_END: t->pasting = false; break;
    case PRESS_TAB: t->pasting ? edit_insert(&t->edit, L'\t') : on_tab(t); break;
    case PRESS_ENTER: t->pasting ? edit_insert(&t->edit, L'\n') : on_enter(t); break;
    case PRESS_BACK_TAB: toggle_template(t); break;
    case PRESS_END_OF_TEXT:
        if (t->edit.n) on_edit_key(t, PRESS_DELETE);
        else t->leave = true;
        break;
    case PRESS_PAGE_UP: scroll_by(t, -page); break;
    case PRESS_PAGE_DOWN: scroll_by(t, page); break;
    case PRESS_WHEEL_UP: scroll_by(t, -3); break;
    case PRESS_WHEEL_DOWN: scroll_by(t, 3); break;
    case PRESS_TOP: t->view.follow = false, t->view.top = 0; break;
    case PRESS_BOTTOM: t->view.follow = true; break;
    case PRESS_THINKING: t->talk.show_thinking = !t->talk.show_thinking; break;
    default: on_edit_key(t, press); break;
    }
}

/* Ctrl-C where no answer is being made: drops what is typed; twice on an empty line, it leaves. */
static void on_interrupt(struct tui *t)
{
    interrupt_seen = 0;
    t->hint[0] = 0;
    t->pasting = false; /* should its end have been lost */
    if (t->edit.n) {
        t->edit.n = t->edit.at = 0;
        t->back = 0;
    } else if (t->hinted) {
        t->leave = true;
    } else {
        t->hinted = true;
        snprintf(t->hint, sizeof t->hint, " Ctrl-D, or Ctrl-C again, leaves ");
    }
}

/* ---- opening, waiting, closing ---------------------------------------------------------------------------------------- */

/* Until a key, a signal, news of the worker, or some time: signals may reach threads that are not awaited here. */
static void wait_for_news(struct tui *t)
{
    struct pollfd in[2] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = t->wake[0], .events = POLLIN}};
    struct timespec time = {.tv_nsec = t->working ? 100000000 : 200000000};
    char bytes[256];
    int n = interrupt_seen && !t->working ? 0 : ppoll(in, 2, &time, &t->open_mask);
    pthread_sigmask(SIG_SETMASK, &t->open_mask, NULL); /* a signal counts before keys that come after it */
    pthread_sigmask(SIG_BLOCK, &t->blocked, NULL);
    if (n > 0 && in[1].revents && !in[0].revents) nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL); /* tokens may come faster than eyes can see */
    if (n > 0 && in[1].revents) {
        while (read(t->wake[0], bytes, sizeof bytes) == (ssize_t)sizeof bytes) {}
    }
    if (n > 0 && (in[0].revents & (POLLHUP | POLLERR))) interrupt_end = SIGHUP; /* the terminal is gone */
}

static void block_signals(struct tui *t)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
    sigemptyset(&t->blocked);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) sigaddset(&t->blocked, numbers[i]);
    pthread_sigmask(SIG_BLOCK, &t->blocked, &t->open_mask);
}

static int open_tui(struct tui *t)
{
    pthread_mutexattr_t recursive;
    pthread_mutexattr_init(&recursive);
    pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&t->lock, &recursive);
    pthread_mutexattr_destroy(&recursive);
    line_use_utf8();
    t->errors = t->wake[0] = t->wake[1] = -1;
    t->typed = typed_open(&t->chat->s);
    t->noise = tmpfile();
    if (!t->typed || !t->noise || pipe2(t->wake, O_NONBLOCK | O_CLOEXEC)) return print_error(EXIT_RUNTIME, "out of memory, files or space in /tmp");
    int code = screen_open(print_color(stdout));
    if (code) return code;
    fflush(stderr);
    t->errors = dup(STDERR_FILENO);
    dup2(fileno(t->noise), STDERR_FILENO);
    print_divert(on_message, t);
    interrupt_catch(0);
    block_signals(t);
    return 0;
}

static void close_tui(struct tui *t)
{
    int c;
    if (t->errors >= 0) {
        screen_close();
        print_divert(NULL, NULL);
        fflush(stderr);
        dup2(t->errors, STDERR_FILENO);
        close(t->errors);
        pthread_sigmask(SIG_SETMASK, &t->open_mask, NULL);
        rewind(t->noise);
        while ((c = getc(t->noise)) != EOF) putc(c, stderr);
    }
    if (t->noise) fclose(t->noise);
    if (t->wake[0] >= 0) close(t->wake[0]), close(t->wake[1]);
    typed_close(&t->typed);
    transcript_clear(&t->talk);
    transcript_clear(&t->held);
    edit_free(&t->edit);
    free(t->draft);
    pthread_mutex_destroy(&t->lock);
}

static void greet(struct tui *t)
{
    char line[160];
    snprintf(line, sizeof line, "kagari %s, %s. /help lists commands, Ctrl-D leaves.", kg_version(), kg_model_arch(t->chat->model));
    transcript_say(&t->talk, VOICE_NOTE, line);
    show_conversation(t);
    t->report.n_used = chat_context(t->chat, &t->report.n_ctx);
}

int tui_run(struct chat *c)
{
    struct tui t = {.chat = c, .slash = {.chat = c, .keys = KEYS}, .view = {.follow = true}};
    t.view.talk = &t.talk;
    t.view.edit = &t.edit;
    t.talk.show_thinking = c->s.show_thinking;
    int code = open_tui(&t);
    if (code) {
        close_tui(&t);
        return code;
    }
    greet(&t);
    while (!t.leave && !interrupt_end) {
        enum press press;
        wchar_t key;
        draw(&t);
        wait_for_news(&t);
        if (interrupt_seen && !t.working) on_interrupt(&t);
        while (!t.leave && (press = screen_key(&key)) != PRESS_NONE) on_key(&t, press, key);
        pthread_mutex_lock(&t.lock);
        bool done = t.working && t.report.done;
        pthread_mutex_unlock(&t.lock);
        if (done) end_work(&t);
    }
    if (t.working) { /* leaving ends the answer; what there is of it is kept */
        interrupt_seen = 1;
        end_work(&t);
    }
    close_tui(&t);
    return 0;
}
