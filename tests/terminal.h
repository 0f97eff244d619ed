/* The real program on a terminal of its own, as a person at a keyboard has it. With PTY_SCREEN there is also the screen that results (libvterm). */
#ifndef TESTS_TERMINAL_H
#define TESTS_TERMINAL_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#ifdef PTY_SCREEN
#include <vterm.h>
#endif

#define MODEL SOURCE_DIR "/models/stories-q4_k_m.gguf"
#ifndef KAGARI
#define KAGARI "kagari"
#endif
enum { WAIT_MS = 10000, MOST_ARGS = 40 };

static char home[] = "/tmp/kagari-pty-XXXXXX";

/* A program on a terminal: what it wrote so far, and up to where that has been expected. */
struct terminal {
    pid_t pid;
    int fd;
    char *text;
    size_t n, seen;
#ifdef PTY_SCREEN
    VTerm *vt;
    VTermScreen *screen;
    int rows, columns;
#endif
};

static inline void start(struct terminal *t, const char *const *args)
{
    struct winsize size = {.ws_row = 24, .ws_col = 100};
    char *argv[MOST_ARGS] = {(char *)"kagari", (char *)"-m", (char *)MODEL, (char *)"-b", (char *)"cpu", (char *)"-t", (char *)"1", (char *)"--temperature", (char *)"0"};
    int n = 9;
    while (args && *args) argv[n++] = (char *)(uintptr_t)*args++;
    *t = (struct terminal){0};
    t->pid = forkpty(&t->fd, NULL, NULL, &size);
    assert_true(t->pid >= 0);
    if (t->pid > 0) fcntl(t->fd, F_SETFD, FD_CLOEXEC);
    if (t->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* not to outlive a test that failed */
        setenv("HOME", home, 1);
        setenv("TERM", getenv("TERM_OF_TEST") ? getenv("TERM_OF_TEST") : "xterm-256color", 1);
        setenv("KAGARI_CONFIG", "/dev/null", 1);
        setenv("LC_ALL", "C.UTF-8", 1);
        unsetenv("XDG_STATE_HOME");
        unsetenv("KAGARI_MODEL");
        execv(KAGARI, argv);
        _exit(127);
    }
}
#define START(t, ...) start(t, (const char *const[]){__VA_ARGS__, NULL})

/* Reads what there is within ms; false at the end. */
static inline bool receive(struct terminal *t, int ms)
{
    struct pollfd in = {.fd = t->fd, .events = POLLIN};
    if (poll(&in, 1, ms) <= 0) return true;
    t->text = realloc(t->text, t->n + 4097);
    ssize_t n = read(t->fd, t->text + t->n, 4096);
    if (n <= 0) return false;
#ifdef PTY_SCREEN
    if (t->vt) vterm_input_write(t->vt, t->text + t->n, (size_t)n);
#endif
    t->n += (size_t)n;
    t->text[t->n] = 0;
    return true;
}

static inline long now_ms(void)
{
    struct timespec s;
    clock_gettime(CLOCK_MONOTONIC, &s);
    return s.tv_sec * 1000 + s.tv_nsec / 1000000;
}

/* Waits until the text appears after what was expected before. Returns the place after it. */
static const char *expect(struct terminal *t, const char *what)
{
    long end = now_ms() + WAIT_MS;
    bool open = true;
    for (;;) {
        char *at = t->text ? memmem(t->text + t->seen, t->n - t->seen, what, strlen(what)) : NULL;
        if (at) {
            t->seen = (size_t)(at - t->text) + strlen(what);
            return t->text + t->seen;
        }
        if (!open || now_ms() > end) fail_msg("'%s' did not come; there is: %s", what, t->text ? t->text + t->seen : "");
        open = receive(t, 50);
    }
}

static inline void type(struct terminal *t, const char *keys) { assert_int_equal(write(t->fd, keys, strlen(keys)), strlen(keys)); }

/* Types at the next prompt. */
static inline void tell(struct terminal *t, const char *line)
{
    expect(t, "You> ");
    type(t, line);
}

/* The exit status, 128 + signal. */
static inline int finish(struct terminal *t)
{
    int status;
    long end = now_ms() + WAIT_MS;
    while (receive(t, 50))
        if (now_ms() > end) {
            kill(t->pid, SIGKILL);
            fail_msg("the program does not end");
        }
    waitpid(t->pid, &status, 0);
    close(t->fd);
    free(t->text);
#ifdef PTY_SCREEN
    if (t->vt) vterm_free(t->vt);
#endif
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

#ifdef PTY_SCREEN
/* From here on what comes is shown on a screen. */
static inline void show(struct terminal *t, int rows, int columns)
{
    t->rows = rows;
    t->columns = columns;
    t->vt = vterm_new(rows, columns);
    vterm_set_utf8(t->vt, 1);
    t->screen = vterm_obtain_screen(t->vt);
    vterm_screen_enable_altscreen(t->screen, 1);
    vterm_screen_reset(t->screen, 1);
    if (t->n) vterm_input_write(t->vt, t->text, t->n);
}

static inline void settle(struct terminal *t);
static inline void resize(struct terminal *t, int rows, int columns)
{
    struct winsize size = {.ws_row = (unsigned short)rows, .ws_col = (unsigned short)columns};
    t->rows = rows;
    t->columns = columns;
    vterm_set_size(t->vt, rows, columns);
    assert_int_equal(ioctl(t->fd, TIOCSWINSZ, &size), 0);
    settle(t);
}

/* A row as UTF-8; wide characters count as one. */
static inline void put_utf8(char **out, uint32_t c)
{
    if (c < 0x80) *(*out)++ = (char)c;
    else if (c < 0x800) *(*out)++ = (char)(0xc0 | c >> 6), *(*out)++ = (char)(0x80 | (c & 63));
    else if (c < 0x10000) *(*out)++ = (char)(0xe0 | c >> 12), *(*out)++ = (char)(0x80 | (c >> 6 & 63)), *(*out)++ = (char)(0x80 | (c & 63));
    else *(*out)++ = (char)(0xf0 | c >> 18), *(*out)++ = (char)(0x80 | (c >> 12 & 63)), *(*out)++ = (char)(0x80 | (c >> 6 & 63)), *(*out)++ = (char)(0x80 | (c & 63));
}

static inline const char *row_text(const struct terminal *t, int row)
{
    static char text[8192];
    char *out = text;
    VTermScreenCell cell;
    for (int x = 0; x < t->columns; x += cell.width > 1 ? cell.width : 1) {
        vterm_screen_get_cell(t->screen, (VTermPos){row, x}, &cell);
        if (!cell.chars[0] || cell.chars[0] == UINT32_MAX) *out++ = ' ';
        else
            for (int i = 0; i < VTERM_MAX_CHARS_PER_CELL && cell.chars[i]; i++) put_utf8(&out, cell.chars[i]);
    }
    while (out > text && out[-1] == ' ') out--;
    *out = 0;
    return text;
}

/* The row that has the text; -1: none. */
static inline int row_with(const struct terminal *t, const char *what)
{
    for (int row = 0; row < t->rows; row++)
        if (strstr(row_text(t, row), what)) return row;
    return -1;
}

static inline void print_screen(const struct terminal *t)
{
    for (int row = 0; row < t->rows; row++) print_message("|%s\n", row_text(t, row));
}

/* Waits until the screen shows the text, or does not any more. */
static inline int wait_screen(struct terminal *t, const char *what, bool shown)
{
    long end = now_ms() + WAIT_MS;
    bool open = true;
    for (;;) {
        int row = row_with(t, what);
        if ((row >= 0) == shown) return row;
        if (!open || now_ms() > end) {
            print_screen(t);
            fail_msg("the screen %s '%s'", shown ? "does not show" : "still shows", what);
        }
        open = receive(t, 50);
    }
}
/* Waits until nothing comes any more: what is seen, is. */
static inline void settle(struct terminal *t)
{
    size_t n;
    long end = now_ms() + WAIT_MS;
    do n = t->n;
    while (receive(t, 150) && (n != t->n) && now_ms() < end);
}
static inline int shows(struct terminal *t, const char *what) { return wait_screen(t, what, true); }
/* Waits until that row has the text. */
static inline void shows_at(struct terminal *t, int row, const char *what)
{
    long end = now_ms() + WAIT_MS;
    while (!strstr(row_text(t, row), what)) {
        if (now_ms() > end || !receive(t, 50)) {
            print_screen(t);
            fail_msg("row %d does not show '%s'", row, what);
        }
    }
}
/* Waits until that row is this text. */
static inline void shows_row(struct terminal *t, int row, const char *text)
{
    long end = now_ms() + WAIT_MS;
    while (strcmp(row_text(t, row), text) != 0) {
        if (now_ms() > end || !receive(t, 50)) {
            print_screen(t);
            fail_msg("row %d is not '%s'", row, text);
        }
    }
}
static inline void shows_no(struct terminal *t, const char *what) { wait_screen(t, what, false); }
#endif

static inline char *in_home(const char *name)
{
    static char paths[8][1200];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", home, name);
    return path;
}

static inline char *read_file(const char *path)
{
    FILE *f = fopen(path, "r");
    if (!f) return NULL;
    char *text = calloc(1, 1 << 20);
    size_t n = fread(text, 1, (1 << 20) - 1, f);
    text[n] = 0;
    fclose(f);
    return text;
}

static inline void write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static inline void file_has(const char *path, const char *what)
{
    char *text = read_file(path);
    assert_non_null(text);
    if (!strstr(text, what)) fail_msg("%s has no '%s': %s", path, what, text);
    free(text);
}

static inline int make_home(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    return access(KAGARI, X_OK) == 0 && mkdtemp(home) ? 0 : -1;
}

static inline int remove_home(void **state)
{
    (void)state;
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", home);
    return system(command);
}

#endif
