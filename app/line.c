/* Lines through libedit. Owns the reading of single keys: signals end it at once, and what a terminal marks as pasted (bracketed paste) is
 * taken as it is, line ends included. */
#include "line.h"

#include "complete.h"
#include "interrupt.h"
#include "print.h"
#include "typed.h"

#include <errno.h>
#include <histedit.h>
#include <langinfo.h>
#include <locale.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define CONTINUED "...> "
enum { QUOTE = 'V' - '@', ESCAPE = 27, ESCAPE_MS = 40 };

struct line {
    const struct settings *s;
    EditLine *edit; /* NULL: lines come as they are */
    struct typed *typed;
    const char *prompt;
    sigset_t open_mask; /* signals that may come while a key is awaited */
    unsigned char queue[16]; /* [n_queue]: bytes that were read ahead */
    int n_queue;
    bool pasting, after_return, at_end;
    wchar_t quoted; /* comes next; 0: none */
};

static volatile sig_atomic_t resized;
static void on_resize(int number) { (void)number, resized = 1; }

/* ---- keys ------------------------------------------------------------------------------------------------------- */

/* The next byte; -1: interrupted or at the end, -2: none came in time. wait: milliseconds, -1: for ever. */
static int get_byte(struct line *l, int wait)
{
    unsigned char c;
    if (l->n_queue) {
        c = l->queue[0];
        memmove(l->queue, l->queue + 1, (size_t)--l->n_queue);
        return c;
    }
    for (;;) {
        struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
        struct timespec t = {.tv_sec = wait / 1000, .tv_nsec = wait % 1000 * 1000000L};
        if (interrupt_seen || interrupt_end) return -1;
        int n = ppoll(&in, 1, wait < 0 ? NULL : &t, &l->open_mask);
        if (n == 0) return -2;
        if (n < 0 && errno == EINTR) {
            if (resized) resized = 0, el_resize(l->edit);
            continue;
        }
        ssize_t got = n < 0 ? -1 : read(STDIN_FILENO, &c, 1);
        if (got == 1) return c;
        if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        l->at_end = true;
        return -1;
    }
}

/* Whether the bytes after an escape are these; if not, they are left to be read. */
static bool follows(struct line *l, const char *sequence)
{
    unsigned char got[8];
    int n = 0;
    for (; sequence[n]; n++) {
        int c = get_byte(l, ESCAPE_MS);
        if (c < 0) break;
        got[n] = (unsigned char)c;
        if (c != sequence[n]) {
            n++;
            break;
        }
    }
    if (n == (int)strlen(sequence) && memcmp(got, sequence, (size_t)n) == 0) return true;
    memmove(l->queue + n, l->queue, (size_t)l->n_queue);
    memcpy(l->queue, got, (size_t)n);
    l->n_queue += n;
    return false;
}

/* The character that begins with byte c: U+FFFD if it is none. 0: interrupted. */
static wchar_t whole_char(struct line *l, int c)
{
    char bytes[4] = {(char)c};
    int n = c < 0xc2 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 1;
    for (int i = 1; i < n; i++) {
        int next = get_byte(l, -1);
        if (next < 0) return 0;
        bytes[i] = (char)next;
    }
    wchar_t wide;
    mbstate_t state = {0};
    return mbrtowc(&wide, bytes, (size_t)n, &state) == (size_t)n && wide ? wide : 0xfffd;
}

/* libedit's source of keys. */
static int get_key(EditLine *edit, wchar_t *out)
{
    struct line *l = NULL;
    el_get(edit, EL_CLIENTDATA, &l);
    if (l->quoted) {
        *out = l->quoted;
        l->quoted = 0;
        return 1;
    }
    for (;;) {
        int c = get_byte(l, -1);
        if (c < 0) return l->at_end ? 0 : -1;
        if (c == ESCAPE && follows(l, l->pasting ? "[201~" : "[200~")) {
            l->pasting = !l->pasting;
            continue;
        }
        bool second = c == '\n' && l->after_return;
        l->after_return = c == '\r';
        if (l->pasting && (second || (c < 32 && c != '\r' && c != '\n' && c != '\t') || c == 127)) continue;
        if (l->pasting && c < 32) {
            l->quoted = c == '\t' ? L'\t' : L'\n';
            *out = QUOTE;
            return 1;
        }
        return (*out = whole_char(l, c)) ? 1 : -1;
    }
}

/* ---- lines --------------------------------------------------------------------------------------------------------- */

static char *show_prompt(EditLine *edit)
{
    struct line *l = NULL;
    el_get(edit, EL_CLIENTDATA, &l);
    return (char *)(uintptr_t)l->prompt;
}

/* Names that may come, in columns below the line. */
static void show_names(const struct completions *c)
{
    struct winsize w;
    size_t columns = ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col ? w.ws_col : 80, width = 0, at = 0;
    for (size_t i = 0; i < c->n; i++)
        if (strlen(c->v[i]) > width) width = strlen(c->v[i]);
    fputc('\n', stdout);
    for (size_t i = 0; i < c->n; i++) {
        print_plain(stdout, c->v[i], strlen(c->v[i]));
        at += width + 2;
        bool ends = at + width > columns || i + 1 == c->n;
        printf("%*s", ends ? 0 : (int)(width + 2 - strlen(c->v[i])), "");
        if (ends) fputc('\n', stdout), at = 0;
    }
}

/* TAB: what begins with a slash is completed. */
static unsigned char on_tab(EditLine *edit, wint_t key)
{
    (void)key;
    struct line *l = NULL;
    struct completions c;
    const LineInfo *info = el_line(edit);
    size_t n = (size_t)(info->cursor - info->buffer);
    unsigned char result = CC_ERROR;
    el_get(edit, EL_CLIENTDATA, &l);
    char *before = strcmp(l->prompt, CONTINUED) != 0 ? strndup(info->buffer, n) : NULL;
    if (!before || !complete(l->s, before, &c)) {
        free(before);
        return CC_ERROR;
    }
    if (c.n && (strlen(c.common) > n - c.start || c.n == 1)) {
        size_t n_chars = mbstowcs(NULL, before + c.start, 0);
        if (n_chars && n_chars != (size_t)-1) el_deletestr(edit, (int)n_chars);
        el_insertstr(edit, c.common);
        result = CC_REFRESH;
    } else if (c.n) {
        show_names(&c);
        result = CC_REDISPLAY;
    }
    completions_free(&c);
    free(before);
    return result;
}

static void bind_keys(EditLine *edit)
{
    static const char *const keys[][2] = {
        {"^R", "em-inc-search-prev"}, {"\\e[1~", "ed-move-to-beg"}, {"\\e[4~", "ed-move-to-end"}, {"\\e[H", "ed-move-to-beg"},  {"\\e[F", "ed-move-to-end"},
        {"\\e[3~", "ed-delete-next-char"}, {"\\e[1;5C", "em-next-word"}, {"\\e[1;5D", "ed-prev-word"}, {"^W", "ed-delete-prev-word"},
        {"\t", "complete"},
    };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) el_set(edit, EL_BIND, keys[i][0], keys[i][1], NULL);
}

void line_use_utf8(void)
{
    setlocale(LC_CTYPE, "");
    if (strcmp(nl_langinfo(CODESET), "UTF-8") != 0) setlocale(LC_CTYPE, "C.UTF-8"); /* what models write is UTF-8 in any case */
}

static bool open_editing(struct line *l, const struct settings *s)
{
    line_use_utf8();
    l->edit = el_init("kagari", stdin, stdout, stderr);
    l->typed = typed_open(s);
    if (!l->edit || !l->typed) return false;
    el_set(l->edit, EL_CLIENTDATA, l);
    el_set(l->edit, EL_PROMPT, show_prompt);
    el_set(l->edit, EL_EDITOR, "emacs");
    el_set(l->edit, EL_SIGNAL, 0);
    el_set(l->edit, EL_HIST, history, typed_libedit(l->typed));
    el_set(l->edit, EL_GETCFN, get_key);
    el_wset(l->edit, EL_ADDFN, L"complete", L"completes commands", on_tab); /* keeps these; of el_set's it keeps copies for ever */
    bind_keys(l->edit);
    el_source(l->edit, NULL);
    struct sigaction action = {.sa_handler = on_resize};
    sigemptyset(&action.sa_mask);
    sigaction(SIGWINCH, &action, NULL);
    return true;
}

struct line *line_open(const struct settings *s)
{
    struct line *l = calloc(1, sizeof *l);
    if (!l) return NULL;
    l->s = s;
    bool terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
    if (terminal && !open_editing(l, s)) line_close(&l);
    return l;
}

void line_close(struct line **line)
{
    struct line *l = *line;
    if (!l) return;
    if (l->edit) el_end(l->edit);
    typed_close(&l->typed);
    free(l);
    *line = NULL;
}

bool line_is_edited(const struct line *l) { return l->edit != NULL; }

static enum line_result read_edited(struct line *l, char **text)
{
    sigset_t all;
    sigemptyset(&all);
    sigaddset(&all, SIGINT);
    sigaddset(&all, SIGTERM);
    sigaddset(&all, SIGHUP);
    sigaddset(&all, SIGQUIT);
    sigprocmask(SIG_BLOCK, &all, &l->open_mask);
    el_set(l->edit, EL_PREP_TERM, 1); /* before the prompt: who is quick to answer it must not be too early */
    fputs("\033[?2004h", stdout);
    int n = 0;
    const char *got = el_gets(l->edit, &n);
    fputs("\033[?2004l", stdout);
    l->pasting = false;
    l->quoted = 0;
    sigprocmask(SIG_SETMASK, &l->open_mask, NULL);
    if (got) return (*text = strdup(got)) ? LINE_TEXT : LINE_END;
    fputc('\n', stdout);
    if (interrupt_end || !interrupt_seen) return LINE_END;
    interrupt_seen = 0;
    l->n_queue = 0;
    return LINE_CANCELLED;
}

static enum line_result read_plain(char **text)
{
    size_t size = 0;
    errno = 0;
    if (getline(text, &size, stdin) >= 0) return LINE_TEXT;
    free(*text);
    *text = NULL;
    if (!interrupt_seen || interrupt_end) return LINE_END;
    interrupt_seen = 0;
    clearerr(stdin);
    return LINE_CANCELLED;
}

/* One line of a message, less its end; *more: it ended in a backslash, which is cut off. */
static enum line_result read_one(struct line *l, char **text, bool *more)
{
    *text = NULL;
    *more = false;
    enum line_result result = l->edit ? read_edited(l, text) : read_plain(text);
    if (result != LINE_TEXT) return result;
    size_t n = strlen(*text);
    if (n && (*text)[n - 1] == '\n') n--;
    if (n && (*text)[n - 1] == '\r') n--;
    *more = n && (*text)[n - 1] == '\\';
    (*text)[n - *more] = 0;
    return LINE_TEXT;
}

enum line_result line_read(struct line *l, const char *prompt, char **text)
{
    char *whole = NULL, *part, *joined;
    bool more;
    enum line_result result;
    l->prompt = prompt;
    *text = NULL;
    do {
        result = read_one(l, &part, &more);
        if (result != LINE_TEXT) break;
        int n = whole ? asprintf(&joined, "%s\n%s", whole, part) : asprintf(&joined, "%s", part);
        free(whole);
        free(part);
        whole = n < 0 ? NULL : joined;
        l->prompt = CONTINUED;
    } while (more && whole);
    if (!whole) return result == LINE_TEXT ? LINE_END : result;
    if (result != LINE_TEXT && (result == LINE_CANCELLED || l->edit)) { /* a file may end in a backslash */
        free(whole);
        return result;
    }
    if (l->typed) typed_add(l->typed, whole);
    *text = whole;
    return LINE_TEXT;
}
