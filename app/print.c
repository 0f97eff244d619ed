/* Printing for all commands. Owns which messages are wanted and whether they may have colour. */
#include "print.h"

#include "options.h"

#include <stdarg.h>
#include <string.h>
#include <unistd.h>

static enum level least = LEVEL_INFO;
static bool color;
static void (*diverted)(void *ctx, enum level level, const char *line);
static void *diverted_ctx;

void print_setup(enum level least_wanted, bool color_wanted)
{
    least = least_wanted;
    color = color_wanted;
}

void print_divert(void (*to)(void *ctx, enum level level, const char *line), void *ctx)
{
    diverted = to;
    diverted_ctx = ctx;
}

bool print_wants(enum level level) { return level >= least; }

bool print_color(FILE *out) { return color && isatty(fileno(out)); }

/* Length of the valid UTF-8 character at s, n bytes left; 0 if it is none. */
static size_t char_len(const unsigned char *s, size_t n)
{
    size_t len = s[0] < 0x80 ? 1 : s[0] >= 0xc2 && s[0] < 0xe0 ? 2 : (s[0] & 0xf0) == 0xe0 ? 3 : s[0] >= 0xf0 && s[0] < 0xf5 ? 4 : 0;
    if (len > n) return 0;
    for (size_t i = 1; i < len; i++)
        if ((s[i] & 0xc0) != 0x80) return 0;
    if (len >= 3) {
        unsigned second = s[1];
        if ((s[0] == 0xe0 && second < 0xa0) || (s[0] == 0xed && second > 0x9f)) return 0;
        if ((s[0] == 0xf0 && second < 0x90) || (s[0] == 0xf4 && second > 0x8f)) return 0;
    }
    return len;
}

/* The controls of ASCII and of Latin-1: a terminal may obey either. */
static bool is_control(const unsigned char *s, size_t len) { return s[0] < 0x20 || s[0] == 0x7f || (len == 2 && s[0] == 0xc2 && s[1] < 0xa0); }

static void print_escape(FILE *out, const unsigned char *s, size_t len)
{
    static const char named[] = "\b\f\n\r\t", letters[] = "bfnrt";
    const char *at = s[0] ? strchr(named, s[0]) : NULL;
    if (at) {
        fprintf(out, "\\%c", letters[at - named]);
    } else {
        fprintf(out, "\\u%04x", (unsigned)(len == 2 ? s[1] : s[0])); /* U+0080 to U+009f are C2 80 to C2 9f */
    }
}

static void print_string(FILE *out, const char *text, size_t len, bool json)
{
    const unsigned char *s = (const unsigned char *)text;
    fputc('"', out);
    for (size_t i = 0, n; i < len; i += n ? n : 1) {
        n = char_len(s + i, len - i);
        if (n == 0 && json) fputs("\\ufffd", out);
        else if (n == 0) fprintf(out, "\\x%02x", (unsigned)s[i]);
        else if (is_control(s + i, n)) print_escape(out, s + i, n);
        else if (s[i] == '"' || s[i] == '\\') fprintf(out, "\\%c", s[i]);
        else fwrite(s + i, 1, n, out);
    }
    fputc('"', out);
}

void print_json(FILE *out, const char *s, size_t len) { print_string(out, s, len, true); }

void print_quoted(FILE *out, const char *s, size_t len) { print_string(out, s, len, false); }

void print_plain(FILE *out, const char *text, size_t len)
{
    const unsigned char *s = (const unsigned char *)text;
    for (size_t i = 0, n; i < len; i += n ? n : 1) {
        n = char_len(s + i, len - i);
        if (n == 0 || is_control(s + i, n)) fputc('?', out);
        else fwrite(s + i, 1, n, out);
    }
}

size_t print_whole(const char *text, size_t len)
{
    const unsigned char *s = (const unsigned char *)text;
    for (size_t back = 1; back <= 3 && back <= len; back++) {
        unsigned char c = s[len - back];
        if (c < 0x80) return len;
        if (c >= 0xc0) return char_len(s + len - back, back) ? len : len - back;
    }
    return len;
}

static void print_message(enum level level, const char *fmt, va_list args)
{
    static const char *const colors[] = {"\033[2m", "\033[2m", "\033[36m", "\033[33m", "\033[1;31m"};
    char line[1024];
    bool colored = print_color(stderr);
    vsnprintf(line, sizeof line, fmt, args);
    if (diverted) {
        line[print_whole(line, strlen(line))] = 0;
        diverted(diverted_ctx, level, line);
        return;
    }
    fflush(stdout);
    fprintf(stderr, "%skagari:%s ", colored ? colors[level] : "", colored ? "\033[0m" : "");
    print_plain(stderr, line, print_whole(line, strlen(line)));
    fputc('\n', stderr);
}

int print_error(int code, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    print_message(LEVEL_ERROR, fmt, args);
    va_end(args);
    return code;
}

void print_note(enum level level, const char *fmt, ...)
{
    if (!print_wants(level)) return;
    va_list args;
    va_start(args, fmt);
    print_message(level, fmt, args);
    va_end(args);
}

int print_status(kg_status status) { return print_error(status == KG_ERR_ARGUMENT ? EXIT_USAGE : EXIT_RUNTIME, "%s", kg_error_message()); }
