/* A parser by recursive descent over the bytes of the file. Owns the grammar of TOML, nothing about settings. */
#include "toml.h"

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct parser {
    const char *p, *end;
    int line;
    char table[TOML_MOST_KEY + 1]; /* its name, "" at the top */
    struct toml *out;
    char **tables; /* [n_tables] that have been opened */
    size_t n_tables;
    int error_line;
    char *error;   /* [160] */
    char *scratch; /* a string while it is decoded: never longer than its source */
};

static bool fail(struct parser *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static bool fail(struct parser *s, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(s->error, 160, fmt, args);
    va_end(args);
    s->error_line = s->line;
    return false;
}

static bool at(const struct parser *s, const char *word)
{
    size_t n = strlen(word);
    return (size_t)(s->end - s->p) >= n && memcmp(s->p, word, n) == 0;
}

static bool is_bare(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-'; }

static void skip_blanks(struct parser *s)
{
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\t')) s->p++;
}

/* A comment, if there is one, and the end of the line. */
static bool end_line(struct parser *s)
{
    skip_blanks(s);
    if (s->p < s->end && *s->p == '#')
        while (s->p < s->end && *s->p != '\n' && !at(s, "\r\n")) s->p++;
    if (s->p == s->end) return true;
    if (at(s, "\r\n")) s->p++;
    if (*s->p != '\n') return fail(s, "expected the end of the line, not '%.*s'", (int)strcspn(s->p, "\r\n \t"), s->p);
    s->p++;
    s->line++;
    return true;
}

/* Blanks, comments and ends of lines: between the items of an array. */
static bool skip_lines(struct parser *s)
{
    for (;;) {
        skip_blanks(s);
        if (s->p == s->end || (*s->p != '#' && *s->p != '\n' && *s->p != '\r')) return true;
        if (!end_line(s)) return false;
    }
}

/* ---- strings ---------------------------------------------------------------------------------------------- */

static size_t put_utf8(char *out, uint32_t c)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const unsigned char lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = n - 1; i > 0; i--, c >>= 6) out[i] = (char)(0x80 | (c & 0x3f));
    out[0] = (char)(lead[n] | c);
    return n;
}

/* After "\u" or "\U". */
static bool read_unicode(struct parser *s, int digits, char *out, size_t *n)
{
    uint32_t c = 0;
    for (int i = 0; i < digits; i++, s->p++) {
        const char *hex = "0123456789abcdef", *at_digit = s->p < s->end && *s->p ? strchr(hex, *s->p | 0x20) : NULL;
        if (!at_digit || (*s->p < '0')) return fail(s, "\\%c takes %d hexadecimal digits", digits == 4 ? 'u' : 'U', digits);
        c = c << 4 | (uint32_t)(at_digit - hex);
    }
    if (c == 0 || c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) return fail(s, "U+%04X is not a character that a setting could hold", (unsigned)c);
    *n += put_utf8(out + *n, c);
    return true;
}

/* After a backslash. In strings of several lines one at the end of a line swallows the white space that follows. */
static bool read_escape(struct parser *s, bool lines, char *out, size_t *n)
{
    static const char letters[] = "btnfr\"\\", codes[] = "\b\t\n\f\r\"\\";
    char c = s->p < s->end ? *s->p : 0;
    const char *known = c ? strchr(letters, c) : NULL;
    if (known) {
        out[(*n)++] = codes[known - letters];
        s->p++;
        return true;
    }
    if (c == 'u' || c == 'U') {
        s->p++;
        return read_unicode(s, c == 'u' ? 4 : 8, out, n);
    }
    if (lines) {
        const char *p = s->p;
        while (p < s->end && (*p == ' ' || *p == '\t')) p++;
        if (p < s->end && (*p == '\n' || *p == '\r')) {
            for (s->p = p; s->p < s->end && strchr(" \t\r\n", *s->p) && *s->p; s->p++) s->line += *s->p == '\n';
            return true;
        }
    }
    return fail(s, "'\\%.1s' is not an escape; a backslash is written \\\\ or in '...'", s->p < s->end ? s->p : "");
}

/* At a quote: fills *text (malloc'ed). */
static bool read_string(struct parser *s, bool may_have_lines, char **text)
{
    char quote = *s->p, three[4] = {quote, quote, quote, 0};
    bool lines = may_have_lines && at(s, three), literal = quote == '\'';
    int began = s->line;
    size_t n = 0;
    s->p += lines ? 3 : 1;
    if (lines && at(s, "\r\n")) s->p++;
    if (lines && at(s, "\n")) s->p++, s->line++;
    while (lines ? !at(s, three) : *s->p != quote) {
        unsigned char c = (unsigned char)*s->p;
        if (s->p == s->end || (!lines && (c == '\n' || c == '\r'))) {
            s->line = began;
            return fail(s, "the string that begins here has no end");
        }
        s->p++;
        if (c == '\\' && !literal) {
            if (!read_escape(s, lines, s->scratch, &n)) return false;
        } else {
            s->line += c == '\n';
            s->scratch[n++] = (char)c;
        }
    }
    /* of five quotes, the first two are text */
    for (int i = 0; lines && i < 2 && s->p[3] == quote; i++) s->scratch[n++] = *s->p++;
    s->p += lines ? 3 : 1;
    *text = strndup(s->scratch, n);
    return *text ? true : fail(s, "out of memory");
}

/* ---- numbers and booleans ---------------------------------------------------------------------------------- */

/* Digits of a base, '_' between two of them; true if at least one, copied without '_'. */
static bool digits(const char **p, const char *set, char *out, size_t *n)
{
    size_t first = *n;
    while (**p && (strchr(set, **p) || (**p == '_' && *n > first && (*p)[-1] != '_' && (*p)[1] && strchr(set, (*p)[1])))) {
        if (**p != '_') out[(*n)++] = **p;
        ++*p;
    }
    return *n > first;
}

static const char decimal[] = "0123456789";

static bool read_based(const char *p, char *out)
{
    static const struct { char letter; int base; const char *set; } bases[] = {
        {'x', 16, "0123456789abcdefABCDEF"}, {'o', 8, "01234567"}, {'b', 2, "01"}};
    char plain[64];
    size_t n = 0;
    for (size_t i = 0; i < 3; i++) {
        if (p[1] != bases[i].letter) continue;
        p += 2;
        if (!digits(&p, bases[i].set, plain, &n) || *p) return false;
        plain[n] = 0;
        errno = 0;
        long long v = strtoll(plain, NULL, bases[i].base);
        if (errno) return false;
        snprintf(out, 32, "%lld", v);
        return true;
    }
    return false;
}

/* A word of at most 63 characters; out[64]. */
static bool read_number(const char *word, enum toml_kind *kind, char *out)
{
    const char *p = word;
    size_t n = 0;
    *kind = TOML_INTEGER;
    if (*p == '0' && p[1] && strchr("xob", p[1])) return read_based(p, out);
    if (*p == '+') p++;
    else if (*p == '-') out[n++] = *p++;
    if (strcmp(p, "inf") == 0 || strcmp(p, "nan") == 0) {
        *kind = TOML_FLOAT;
        strcpy(out + n, p);
        return true;
    }
    if (*p == '0' && p[1] && strchr("0123456789_", p[1])) return false; /* no leading zeros */
    if (!digits(&p, decimal, out, &n)) return false;
    if (*p == '.') {
        *kind = TOML_FLOAT;
        out[n++] = *p++;
        if (!digits(&p, decimal, out, &n)) return false;
    }
    if (*p == 'e' || *p == 'E') {
        *kind = TOML_FLOAT;
        out[n++] = *p++;
        if (*p == '+' || *p == '-') out[n++] = *p++;
        if (!digits(&p, decimal, out, &n)) return false;
    }
    out[n] = 0;
    if (*p) return false;
    errno = 0;
    if (*kind == TOML_INTEGER && (strtoll(out, NULL, 10), errno)) return false;
    return true;
}

static bool read_word(struct parser *s, struct toml_item *item)
{
    char word[64], number[64];
    size_t n = 0;
    while (s->p + n < s->end && s->p[n] && !strchr(" \t\r\n,]}#=", s->p[n])) n++;
    snprintf(word, sizeof word, "%.*s", (int)(n < 63 ? n : 63), s->p);
    if (n == 0) return fail(s, "a value is missing");
    if (n > 63) return fail(s, "'%s...' is not a value; texts stand in quotes", word);
    if (strcmp(word, "true") == 0 || strcmp(word, "false") == 0) {
        item->kind = TOML_BOOLEAN;
        strcpy(number, word);
    } else if (!read_number(word, &item->kind, number)) {
        bool date = n >= 5 && (word[2] == ':' || word[4] == '-') && word[0] >= '0' && word[0] <= '9';
        return fail(s, date ? "'%s': no setting is a date or time" : "'%s' is not a value; texts stand in quotes, integers go up to 9223372036854775807", word);
    }
    s->p += n;
    item->text = strdup(number);
    return item->text ? true : fail(s, "out of memory");
}

/* ---- values, keys, tables ------------------------------------------------------------------------------------ */

static bool read_item(struct parser *s, struct toml_item *item)
{
    *item = (struct toml_item){0};
    if (s->p == s->end) return fail(s, "a value is missing");
    if (*s->p == '"' || *s->p == '\'') return read_string(s, true, &item->text);
    if (*s->p == '{') return fail(s, "an inline table {...}: no setting takes one");
    if (*s->p == '[') return fail(s, "an array in an array: no setting takes one");
    return read_word(s, item);
}

static bool add_item(struct parser *s, struct toml_value *v)
{
    if ((v->n_items & (v->n_items - 1)) == 0) {
        struct toml_item *more = v->n_items < TOML_MOST_VALUES ? realloc(v->items, (v->n_items ? 2 * v->n_items : 1) * sizeof *more) : NULL;
        if (!more) return fail(s, "an array of more than %zu items", v->n_items);
        v->items = more;
    }
    if (!read_item(s, &v->items[v->n_items])) return false;
    v->n_items++;
    return true;
}

static bool read_value(struct parser *s, struct toml_value *v)
{
    if (s->p == s->end || *s->p != '[') return add_item(s, v);
    v->is_array = true;
    s->p++;
    for (;;) {
        if (!skip_lines(s)) return false;
        if (s->p < s->end && *s->p == ']') break;
        if (!add_item(s, v) || !skip_lines(s)) return false;
        if (s->p < s->end && *s->p == ',') s->p++;
        else if (s->p == s->end || *s->p != ']') return fail(s, "expected , or ] in the array");
    }
    s->p++;
    return true;
}

/* A key of one or several parts, put behind what is in key[TOML_MOST_KEY + 1] already. */
static bool read_key(struct parser *s, char *key)
{
    for (;;) {
        size_t n = strlen(key), len = 0;
        char *quoted = NULL;
        skip_blanks(s);
        const char *part = s->p;
        if (s->p < s->end && (*s->p == '"' || *s->p == '\'')) {
            if (!read_string(s, false, &quoted)) return false;
            part = quoted;
            len = strlen(quoted);
        } else {
            while (s->p < s->end && is_bare(*s->p)) s->p++;
            len = (size_t)(s->p - part);
            if (len == 0) return fail(s, "expected a key, not '%.1s'", s->p < s->end && *s->p != '\n' ? s->p : "");
        }
        bool fits = n + 1 + len <= TOML_MOST_KEY;
        if (fits) snprintf(key + n, TOML_MOST_KEY + 1 - n, "%s%.*s", n ? "." : "", (int)len, part);
        free(quoted);
        if (!fits) return fail(s, "a key longer than %d bytes", TOML_MOST_KEY);
        skip_blanks(s);
        if (s->p == s->end || *s->p != '.') return true;
        s->p++;
    }
}

static bool read_table(struct parser *s)
{
    if (at(s, "[[")) return fail(s, "an array of tables [[...]]: no setting takes one");
    s->p++;
    s->table[0] = 0;
    if (!read_key(s, s->table)) return false;
    if (s->p == s->end || *s->p != ']') return fail(s, "expected ] after the name of the table");
    s->p++;
    for (size_t i = 0; i < s->n_tables; i++)
        if (strcmp(s->tables[i], s->table) == 0) return fail(s, "the table [%.100s] is there twice", s->table);
    char **more = s->n_tables < TOML_MOST_VALUES ? realloc(s->tables, (s->n_tables + 1) * sizeof *more) : NULL;
    if (!more) return fail(s, "more than %zu tables", s->n_tables);
    s->tables = more;
    s->tables[s->n_tables] = strdup(s->table);
    if (!s->tables[s->n_tables]) return fail(s, "out of memory");
    s->n_tables++;
    return end_line(s);
}

static bool read_pair(struct parser *s)
{
    struct toml *t = s->out;
    char key[TOML_MOST_KEY + 1];
    int line = s->line;
    strcpy(key, s->table);
    if (!read_key(s, key)) return false;
    if (s->p == s->end || *s->p != '=') return fail(s, "expected = after the key '%.100s'", key);
    s->p++;
    skip_blanks(s);
    for (size_t i = 0; i < t->n_values; i++)
        if (strcmp(t->values[i].key, key) == 0) return fail(s, "'%.100s' is there twice, first in line %d", key, t->values[i].line);
    struct toml_value *more = t->n_values < TOML_MOST_VALUES ? realloc(t->values, (t->n_values + 1) * sizeof *more) : NULL;
    if (!more) return fail(s, "more than %zu values", t->n_values);
    t->values = more;
    struct toml_value *v = &t->values[t->n_values];
    *v = (struct toml_value){.key = strdup(key), .line = line};
    if (!v->key) return fail(s, "out of memory");
    t->n_values++; /* now toml_free sees it */
    return read_value(s, v) && end_line(s);
}

/* TOML is UTF-8 without control characters; checked for the whole file, so that no error line can hold them. */
static bool check_bytes(struct parser *s)
{
    const unsigned char *p = (const unsigned char *)s->p, *end = (const unsigned char *)s->end;
    int line = 1;
    while (p < end) {
        size_t n = *p < 0x80 ? 1 : *p >= 0xc2 && *p < 0xe0 ? 2 : (*p & 0xf0) == 0xe0 ? 3 : *p >= 0xf0 && *p < 0xf5 ? 4 : 0;
        bool good = n && n <= (size_t)(end - p);
        for (size_t i = 1; good && i < n; i++) good = (p[i] & 0xc0) == 0x80;
        if (good && n > 2) good = !((*p == 0xe0 && p[1] < 0xa0) || (*p == 0xed && p[1] > 0x9f) || (*p == 0xf0 && p[1] < 0x90) || (*p == 0xf4 && p[1] > 0x8f));
        s->line = line;
        if (!good) return fail(s, "the file is not UTF-8 here");
        if ((*p < 0x20 && *p != '\t' && *p != '\n' && !(*p == '\r' && p + 1 < end && p[1] == '\n')) || *p == 0x7f)
            return fail(s, "a control character (0x%02x)", (unsigned)*p);
        line += *p == '\n';
        p += n;
    }
    s->line = 1;
    return true;
}

bool toml_parse(struct toml *out, const char *text, size_t len, int *line, char error[static 160])
{
    *out = (struct toml){0};
    struct parser s = {.p = text, .end = text + len, .line = 1, .out = out, .error = error};
    bool good = len <= TOML_MOST_BYTES ? check_bytes(&s) : fail(&s, "longer than %d bytes", TOML_MOST_BYTES);
    s.scratch = good ? malloc(len + 1) : NULL;
    if (good && !s.scratch) good = fail(&s, "out of memory");
    if (good && at(&s, "\xef\xbb\xbf")) s.p += 3;
    while (good && (good = skip_lines(&s)) && s.p < s.end) good = *s.p == '[' ? read_table(&s) : read_pair(&s);
    for (size_t i = 0; i < s.n_tables; i++) free(s.tables[i]);
    free(s.tables);
    free(s.scratch);
    *line = s.error_line;
    if (!good) toml_free(out);
    return good;
}

void toml_free(struct toml *t)
{
    for (size_t i = 0; i < t->n_values; i++) {
        for (size_t k = 0; k < t->values[i].n_items; k++) free(t->values[i].items[k].text);
        free(t->values[i].items);
        free(t->values[i].key);
    }
    free(t->values);
    *t = (struct toml){0};
}

void toml_write_string(FILE *out, const char *text)
{
    fputc('"', out);
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (*p == '"' || *p == '\\') fprintf(out, "\\%c", *p);
        else if (*p == '\n') fputs("\\n", out);
        else if (*p == '\t') fputs("\\t", out);
        else if (*p < 0x20 || *p == 0x7f) fprintf(out, "\\u%04X", (unsigned)*p);
        else fputc(*p, out);
    }
    fputc('"', out);
}
