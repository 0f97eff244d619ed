/* Metadata values as JSON text, for people and for tools. Owns the text form only. */
#include "file/reader.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Text that is counted in full and kept as far as it fits, as snprintf does. */
struct sink {
    char *buf;
    size_t size, len;
    size_t max_items;
};

static void put(struct sink *s, const void *bytes, size_t n)
{
    if (s->len < s->size) memcpy(s->buf + s->len, bytes, MIN(n, s->size - s->len));
    s->len += n;
}

static void put_text(struct sink *s, const char *text) { put(s, text, strlen(text)); }

static void put_string(struct sink *s, struct str v)
{
    static const char escapes[] = "\bb\nn\ff\rr\tt\"\"\\\\"; /* pairs: character, letter after the backslash */
    put_text(s, "\"");
    for (size_t i = 0, n; i < v.len; i += n) {
        uint32_t c;
        n = file_utf8_next((const uint8_t *)v.ptr + i, v.len - i, &c);
        const char *e = escapes;
        while (*e && (uint8_t)*e != c) e += 2;
        char esc[8];
        if (c == FILE_NOT_UTF8) {
            put_text(s, "\xef\xbf\xbd");
        } else if (*e) {
            put(s, (const char[]){'\\', e[1]}, 2);
        } else if (c < 0x20 || (c >= 0x7f && c < 0xa0)) { /* terminals obey C1 controls as well */
            snprintf(esc, sizeof esc, "\\u%04" PRIx32, c);
            put_text(s, esc);
        } else {
            put(s, v.ptr + i, n);
        }
    }
    put_text(s, "\"");
}

/* Shortest decimal number that reads back as the same value. */
static void put_float(struct sink *s, double v, bool is_f32)
{
    char text[40];
    if (!isfinite(v)) {
        put_text(s, "null"); /* JSON has no other word for them */
        return;
    }
    if (v == floor(v) && fabs(v) < (is_f32 ? 0x1p24 : 0x1p53)) {
        snprintf(text, sizeof text, "%.0f", v);
        put_text(s, text);
        return;
    }
    int max = is_f32 ? 9 : 17;
    for (int digits = 1; digits <= max; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (is_f32 ? strtof(text, NULL) == (float)v : strtod(text, NULL) == v) break;
    }
    /* the locale's decimal point, of whatever bytes, is JSON's point */
    for (const char *p = text; *p;) {
        size_t n = strspn(p, "0123456789+-e");
        put(s, p, n);
        p += n;
        if (!*p) break;
        put_text(s, ".");
        p += strcspn(p, "0123456789+-e");
    }
}

/* One value that is neither string nor array; m->data points to item 0. */
static void put_number(struct sink *s, const struct meta *m, uint64_t i)
{
    char text[24];
    if (m->item == META_F32 || m->item == META_F64) {
        put_float(s, file_arr_f64(m, i), m->item == META_F32);
        return;
    }
    if (m->item == META_BOOL) {
        put_text(s, m->data[i] ? "true" : "false");
        return;
    }
    if (m->item == META_U64)
        snprintf(text, sizeof text, "%" PRIu64, load_u64(m->data + 8 * i));
    else
        snprintf(text, sizeof text, "%" PRId64, file_arr_i64(m, i));
    put_text(s, text);
}

/* Items of an array; c stands at the first one, and for an inner array (depth > 0) after the last one at the end. Arrays in arrays
 * recur; the reader limits their depth. The bounds were checked there: they are checked again because another process may
 * write to a mapped file. */
static void put_items(struct sink *s, struct cursor *c, enum meta_type item, uint64_t n, int depth)
{
    struct sink muted = {0}, *to = s;
    size_t item_bytes = meta_type_bytes(item);
    put_text(s, "[");
    for (uint64_t i = 0; i < n && depth < FILE_MAX_ARRAY_DEPTH; i++) {
        if (i > 0) put_text(to, ", ");
        if (to == s && s->max_items > 0 && i == s->max_items) {
            put_text(s, "...");
            if (depth == 0) break;
            to = &muted; /* the rest must still be stepped over */
        }
        struct str v;
        uint32_t inner;
        uint64_t n_inner;
        if (item == META_STR) {
            if (!cursor_str(c, &v)) break;
            if (to == s) put_string(s, v);
        } else if (item == META_ARR) {
            if (!cursor_u32(c, &inner) || !cursor_u64(c, &n_inner) || inner >= META_N_TYPES) break;
            put_items(to, c, (enum meta_type)inner, n_inner, depth + 1);
        } else {
            if (cursor_left(c) < item_bytes) break;
            if (to == s) put_number(s, &(struct meta){.item = item, .data = c->p, .n = 1}, 0);
            c->p += item_bytes;
        }
    }
    put_text(s, "]");
}

size_t file_value_json(const struct file *f, const struct meta *m, size_t max_items, char *buf, size_t size)
{
    struct sink s = {.buf = buf, .size = size > 0 ? size - 1 : 0, .max_items = max_items};
    struct cursor c = {m->data, f->metas_end};
    if (m->type == META_ARR)
        put_items(&s, &c, m->item, m->n, 0);
    else if (m->type == META_STR)
        put_string(&s, m->strings[0]);
    else
        put_number(&s, m, 0);
    if (size > 0) buf[MIN(s.len, s.size)] = 0;
    return s.len;
}
