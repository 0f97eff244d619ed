/* Panes on a terminal, by ncurses. Owns all that ncurses knows; rows of text come from transcript.c and edit.c. */
#include "screen.h"

#include "options.h"
#include "print.h"

#include <ncurses.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LEAST_ROWS = 6, LEAST_COLUMNS = 20, INDENT = 2 };
enum { K_PASTE_BEGIN = KEY_MAX + 1, K_PASTE_END, K_NEWLINE, K_WORD_LEFT, K_WORD_RIGHT, K_DELETE_WORD, K_TOP, K_BOTTOM };
enum { C_NAME = 1, C_NOTE, C_ERROR };

static SCREEN *screen;
static bool colored;

static void define_keys(void)
{
    static const struct { const char *bytes; int key; } keys[] = {
        {"\033[200~", K_PASTE_BEGIN}, {"\033[201~", K_PASTE_END}, {"\033\r", K_NEWLINE}, {"\033[13;2u", K_NEWLINE}, {"\033[27;2;13~", K_NEWLINE},
        {"\033b", K_WORD_LEFT}, {"\033f", K_WORD_RIGHT}, {"\033[1;5D", K_WORD_LEFT}, {"\033[1;5C", K_WORD_RIGHT}, {"\033[1;3D", K_WORD_LEFT},
        {"\033[1;3C", K_WORD_RIGHT}, {"\033\177", K_DELETE_WORD}, {"\033[1;5H", K_TOP}, {"\033[1;5F", K_BOTTOM},
        {"\033[A", KEY_UP}, {"\033[B", KEY_DOWN}, {"\033[C", KEY_RIGHT}, {"\033[D", KEY_LEFT}, {"\033[H", KEY_HOME}, {"\033[F", KEY_END}, /* of terminals without modes */
    };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) define_key(keys[i].bytes, keys[i].key);
}

int screen_open(bool color)
{
    screen = newterm(NULL, stdout, stdin);
    if (!screen) return print_error(EXIT_RUNTIME, "full-screen mode: ncurses does not know this terminal: TERM is '%s'", getenv("TERM") ? getenv("TERM") : "");
    cbreak();
    noecho();
    nonl(); /* Enter and Ctrl-J are two keys */
    intrflush(stdscr, FALSE);
    keypad(stdscr, TRUE);
    nodelay(stdscr, TRUE);
    set_escdelay(40);
    define_keys();
    mousemask(BUTTON4_PRESSED | BUTTON5_PRESSED, NULL);
    mouseinterval(0);
    colored = color && has_colors() && start_color() == OK && use_default_colors() == OK;
    if (colored) {
        init_pair(C_NAME, COLOR_CYAN, -1);
        init_pair(C_NOTE, COLOR_YELLOW, -1);
        init_pair(C_ERROR, COLOR_RED, -1);
    }
    fputs("\033[?2004h", stdout); /* what is pasted is marked */
    fflush(stdout);
    return 0;
}

void screen_close(void)
{
    if (!screen) return;
    fputs("\033[?2004l", stdout);
    fflush(stdout);
    endwin();
    delscreen(screen);
    screen = NULL;
}

int screen_text_width(void) { return COLS > INDENT + 1 ? COLS - INDENT : 1; }

/* At most `columns` of the text; returns how many. */
static int put(int y, int x, const char *text, int columns)
{
    size_t n = strlen(text), at = 0, len;
    int used = 0;
    while (at < n) {
        int w = transcript_char(text + at, n - at, &len);
        if (used + w > columns) break;
        used += w;
        at += len;
    }
    mvaddnstr(y, x, text, (int)at);
    return used;
}

static int width_of(const char *text)
{
    int used = 0;
    for (size_t n = strlen(text), at = 0, len; at < n; at += len) used += transcript_char(text + at, n - at, &len);
    return used;
}

/* A line with words in it. */
static void rule(int y, const char *left, const char *right)
{
    cchar_t line;
    setcchar(&line, L"─", A_DIM, 0, NULL);
    mvhline_set(y, 0, &line, COLS);
    int used = put(y, 2, left, COLS - 4), need = width_of(right);
    if (need && used + need + 6 <= COLS) put(y, COLS - 2 - need, right, need);
}

static attr_t look(enum voice voice)
{
    switch (voice) {
    case VOICE_THINKING: return A_DIM;
    case VOICE_COMMAND: return A_BOLD;
    case VOICE_NOTE: return colored ? (attr_t)COLOR_PAIR(C_NOTE) : A_DIM;
    case VOICE_ERROR: return colored ? (attr_t)COLOR_PAIR(C_ERROR) | A_BOLD : A_BOLD;
    default: return A_NORMAL;
    }
}

static void draw_row(int y, const struct shown_row *r)
{
    static const char *const names[] = {"You", "Assistant", "System prompt", "Thinking", "Tool call", "", "", "", ""};
    if (r->blank || !r->said) return;
    attr_t attr = r->text ? look(r->said->voice) : (colored ? (attr_t)COLOR_PAIR(C_NAME) : A_NORMAL) | (r->said->voice == VOICE_THINKING ? A_DIM : A_BOLD);
    attron(attr);
    if (r->text) mvaddnstr(y, INDENT, r->text, (int)r->n);
    else put(y, 0, names[r->said->voice], COLS);
    attroff(attr);
}

/* Returns how many rows are seen. */
static int draw_talk(struct view *v, int rows)
{
    transcript_wrap(v->talk, COLS - INDENT - 1);
    size_t n = transcript_n_rows(v->talk), most = n > (size_t)rows ? n - (size_t)rows : 0;
    if (v->follow || v->top >= most) v->top = most, v->follow = true;
    v->page = (size_t)rows;
    for (int y = 0; y < rows && v->top + (size_t)y < n; y++) {
        struct shown_row r = transcript_row(v->talk, v->top + (size_t)y);
        draw_row(y + 1, &r);
    }
    char below[48] = "";
    if (n - v->top > (size_t)rows) snprintf(below, sizeof below, " %zu rows below ", n - v->top - (size_t)rows);
    rule(0, v->title, below);
    return rows;
}

static void draw_edit(const struct edit *e, int top, int rows)
{
    int width = screen_text_width();
    struct edit_place cursor = edit_place(e, width, e->at), p = {0, 0}, begin = {0, 0};
    int first = cursor.row >= rows ? cursor.row - rows + 1 : 0;
    size_t run = 0; /* characters from here on stand side by side from `begin` on */
    if (first == 0) mvaddch(top, 0, '>' | A_BOLD);
    for (size_t k = 0; k <= e->n; k++) {
        bool blank = k < e->n && (e->v[k] == L'\n' || e->v[k] == L'\t'), ends = k == e->n || blank || p.row != begin.row;
        if (ends && k > run && begin.row >= first && begin.row < first + rows) mvaddnwstr(top + begin.row - first, INDENT + begin.column, e->v + run, (int)(k - run));
        if (ends) run = k, begin = p;
        if (k < e->n) p = edit_next(e, width, p, k);
        if (blank) run = k + 1, begin = p;
    }
    move(top + cursor.row - first, INDENT + cursor.column);
}

static void draw_status(const struct view *v)
{
    attron(A_REVERSE);
    mvhline(LINES - 1, 0, ' ', COLS);
    int used = put(LINES - 1, 0, v->status, COLS - 1), need = width_of(v->right);
    if (need && used + need + 2 <= COLS) put(LINES - 1, COLS - 1 - need, v->right, need);
    attroff(A_REVERSE);
}

void screen_draw(struct view *v)
{
    erase();
    if (LINES < LEAST_ROWS || COLS < LEAST_COLUMNS) {
        put(0, 0, "This terminal is too small.", COLS);
        refresh();
        return;
    }
    int n_edit = edit_place(v->edit, screen_text_width(), v->edit->n).row + 1, most = LINES / 3;
    if (n_edit > most) n_edit = most;
    draw_talk(v, LINES - 3 - n_edit);
    rule(LINES - 2 - n_edit, " Input ", v->hint);
    draw_status(v);
    draw_edit(v->edit, LINES - 1 - n_edit, n_edit);
    refresh();
}

static enum press of_mouse(void)
{
    MEVENT m;
    if (getmouse(&m) != OK) return PRESS_ESCAPE;
    return m.bstate & BUTTON4_PRESSED ? PRESS_WHEEL_UP : m.bstate & BUTTON5_PRESSED ? PRESS_WHEEL_DOWN : PRESS_ESCAPE;
}

static enum press of_key(wint_t key)
{
    static const struct { int key; enum press press; } keys[] = {
        {K_PASTE_BEGIN, PRESS_PASTE_BEGIN}, {K_PASTE_END, PRESS_PASTE_END}, {K_NEWLINE, PRESS_NEWLINE}, {K_WORD_LEFT, PRESS_WORD_LEFT},
        {K_WORD_RIGHT, PRESS_WORD_RIGHT}, {K_DELETE_WORD, PRESS_DELETE_WORD}, {K_TOP, PRESS_TOP}, {K_BOTTOM, PRESS_BOTTOM}, {KEY_ENTER, PRESS_ENTER},
        {KEY_BTAB, PRESS_BACK_TAB}, {KEY_LEFT, PRESS_LEFT}, {KEY_RIGHT, PRESS_RIGHT}, {KEY_UP, PRESS_UP}, {KEY_DOWN, PRESS_DOWN}, {KEY_HOME, PRESS_HOME},
        {KEY_END, PRESS_END}, {KEY_BACKSPACE, PRESS_BACKSPACE}, {KEY_DC, PRESS_DELETE}, {KEY_PPAGE, PRESS_PAGE_UP}, {KEY_NPAGE, PRESS_PAGE_DOWN},
        {KEY_RESIZE, PRESS_REDRAW},
    };
    if (key == KEY_MOUSE) return of_mouse();
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if ((wint_t)keys[i].key == key) return keys[i].press;
    return PRESS_ESCAPE;
}

static enum press of_control(wint_t c)
{
    static const struct { char letter; enum press press; } keys[] = {
        {'A', PRESS_HOME}, {'B', PRESS_LEFT}, {'D', PRESS_END_OF_TEXT}, {'E', PRESS_END}, {'F', PRESS_RIGHT}, {'H', PRESS_BACKSPACE}, {'I', PRESS_TAB},
        {'J', PRESS_NEWLINE}, {'K', PRESS_DELETE_TO_END}, {'L', PRESS_REDRAW}, {'M', PRESS_ENTER}, {'N', PRESS_DOWN}, {'P', PRESS_UP},
        {'T', PRESS_THINKING}, {'U', PRESS_DELETE_TO_START}, {'W', PRESS_DELETE_WORD},
    };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (c == (wint_t)(keys[i].letter - '@')) return keys[i].press;
    return PRESS_ESCAPE;
}

enum press screen_key(wchar_t *c)
{
    wint_t key = 0;
    int kind = get_wch(&key);
    *c = (wchar_t)key;
    if (kind == ERR) return PRESS_NONE;
    if (kind == KEY_CODE_YES) {
        enum press press = of_key(key);
        if (press == PRESS_REDRAW) clearok(stdscr, TRUE);
        return press;
    }
    if (key == 127) return PRESS_BACKSPACE;
    if (key < 32) {
        enum press press = of_control(key);
        if (press == PRESS_REDRAW) clearok(stdscr, TRUE);
        return press;
    }
    return PRESS_CHAR;
}
