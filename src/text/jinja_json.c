/* JSON: into values, and the filter tojson, which writes as Python's json.dumps does. */
#include "text/jinja_run.h"
#include "text/utf8.h"

#include <jansson.h>
#include <math.h>

/* ---- reading ---- */

static kg_status from_json(struct jmem *m, const json_t *j, int depth, struct jval *out)
{
    KG_TRY(jmem_steps(m, 1));
    if (depth > m->limits->depth) return status_set(KG_ERR_UNSUPPORTED, "nested more than %d deep", m->limits->depth);
    switch (json_typeof(j)) {
    case JSON_NULL: *out = jval_none(); return KG_OK;
    case JSON_TRUE:
    case JSON_FALSE: *out = jval_bool(json_is_true(j)); return KG_OK;
    case JSON_INTEGER: *out = jval_int(json_integer_value(j)); return KG_OK;
    case JSON_REAL: *out = jval_float(json_real_value(j)); return KG_OK;
    case JSON_STRING: return jval_str(m, json_string_value(j), json_string_length(j), out);
    case JSON_ARRAY: {
        struct jseq *s;
        KG_TRY(jseq_new(m, SEQ_LIST, json_array_size(j), &s));
        for (size_t i = 0; i < json_array_size(j); i++) {
            struct jval v;
            KG_TRY(from_json(m, json_array_get(j, i), depth + 1, &v));
            KG_TRY(jseq_push(m, s, v));
        }
        *out = jval_seq(s);
        return KG_OK;
    }
    default: break;
    }
    struct jdict *d;
    const char *key;
    json_t *item;
    KG_TRY(jdict_new(m, &d));
    json_object_foreach((json_t *)j, key, item)
    {
        struct jval v;
        KG_TRY(from_json(m, item, depth + 1, &v));
        KG_TRY(jdict_set_text(m, d, key, v));
    }
    *out = jval_dict(d);
    return KG_OK;
}

kg_status jinja_from_json(struct jmem *m, const char *json, const char *what, struct jval *out)
{
    json_error_t error;
    json_t *j = json_loads(json, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    if (!j) return status_set(KG_ERR_ARGUMENT, "%s: not JSON: line %d, column %d: %s", what, error.line, error.column, error.text);
    kg_status status = from_json(m, j, 0, out);
    json_decref(j);
    return status == KG_OK ? KG_OK : status_prefix(status, "%s", what);
}

/* ---- writing ---- */

struct json_style {
    bool ascii, sorted;
    const struct jstr *indent; /* NULL: all in one line */
    struct jstr item, key;     /* separators */
};

static kg_status put_unit(uint32_t u, struct buf *out) { return buf_printf(out, "\\u%04x", (unsigned)u); }

static kg_status put_string(struct jmem *m, const struct json_style *style, const char *s, size_t n, struct buf *out)
{
    static const char escapes[] = "\bb\nn\ff\rr\tt\"\"\\\\"; /* pairs: character, letter after the backslash */
    KG_TRY(jmem_steps(m, n / 16));
    KG_TRY(buf_append(out, "\"", 1));
    for (size_t i = 0, k; i < n; i += k) {
        size_t plain = 0;
        while (i + plain < n && (uint8_t)s[i + plain] >= 0x20 && (uint8_t)s[i + plain] < 0x7f && s[i + plain] != '"' && s[i + plain] != '\\') plain++;
        k = plain;
        KG_TRY(buf_append(out, s + i, plain));
        if (plain) continue;
        uint32_t c = 0;
        k = utf8_decode((const uint8_t *)s + i, n - i, &c);
        if (k == 0) k = 1, c = 0xfffd;
        const char *e = escapes;
        while (*e && (uint8_t)*e != c) e += 2;
        if (*e) {
            KG_TRY(buf_printf(out, "\\%c", e[1]));
        } else if (c < 0x20 || (style->ascii && c < 0x10000)) {
            KG_TRY(put_unit(c, out));
        } else if (style->ascii) {
            KG_TRY(put_unit(0xd800 + ((c - 0x10000) >> 10), out));
            KG_TRY(put_unit(0xdc00 + ((c - 0x10000) & 0x3ff), out));
        } else {
            KG_TRY(buf_append(out, s + i, k));
        }
    }
    return buf_append(out, "\"", 1);
}

/* Numbers, true, false, null: as values and, in quotes, as keys. */
static kg_status put_scalar(struct jval v, struct buf *out)
{
    char text[40];
    switch (v.type) {
    case J_NONE: return buf_append(out, "null", 4);
    case J_BOOL: return v.u.b ? buf_append(out, "true", 4) : buf_append(out, "false", 5);
    case J_INT: return buf_printf(out, "%lld", (long long)v.u.i);
    case J_FLOAT:
        if (isnan(v.u.f)) return buf_append(out, "NaN", 3);
        if (isinf(v.u.f)) return buf_printf(out, "%sInfinity", v.u.f < 0 ? "-" : "");
        jfloat_text(v.u.f, text);
        return buf_append(out, text, strlen(text));
    case J_UNDEFINED: return jinja_undefined_error(v);
    default: return status_set(KG_ERR_FORMAT, "Object of type %s is not JSON serializable", jval_type_name(v));
    }
}

static kg_status put_line(const struct json_style *style, int depth, struct buf *out)
{
    if (!style->indent) return KG_OK;
    KG_TRY(buf_append(out, "\n", 1));
    for (int i = 0; i < depth; i++) KG_TRY(buf_append(out, style->indent->ptr, style->indent->len));
    return KG_OK;
}

static kg_status put_value(struct jmem *m, const struct json_style *style, struct jval v, int depth, struct buf *out);

static kg_status put_pairs(struct jmem *m, const struct json_style *style, const struct jdict *d, int depth, struct buf *out)
{
    const struct jpair *pairs = d->pairs;
    if (style->sorted) { /* the keys in order, with their pairs found again */
        struct jval *keys = jmem_alloc(m, d->n, sizeof *keys);
        struct jpair *sorted = keys ? jmem_alloc(m, d->n, sizeof *sorted) : NULL, *p;
        if (!sorted) return jmem_failed(m);
        for (size_t i = 0; i < d->n; i++) keys[i] = d->pairs[i].key;
        KG_TRY(jinja_sort(m, keys, keys, d->n, false));
        for (size_t i = 0; i < d->n; i++) {
            KG_TRY(jdict_find(m, d, keys[i], &p));
            sorted[i] = *p;
        }
        pairs = sorted;
    }
    for (size_t i = 0; i < d->n; i++) {
        struct jval k = pairs[i].key;
        if (i) KG_TRY(buf_append(out, style->item.ptr, style->item.len));
        KG_TRY(put_line(style, depth + 1, out));
        if (k.type == J_STR) {
            KG_TRY(put_string(m, style, k.u.s->ptr, k.u.s->len, out));
        } else {
            KG_TRY(buf_append(out, "\"", 1));
            KG_TRY(put_scalar(k, out));
            KG_TRY(buf_append(out, "\"", 1));
        }
        KG_TRY(buf_append(out, style->key.ptr, style->key.len));
        KG_TRY(put_value(m, style, pairs[i].value, depth + 1, out));
    }
    return d->n ? put_line(style, depth, out) : KG_OK;
}

static kg_status put_value(struct jmem *m, const struct json_style *style, struct jval v, int depth, struct buf *out)
{
    KG_TRY(jmem_steps(m, 1));
    KG_TRY(jmem_room(m, out));
    if (depth > m->limits->depth) return status_set(KG_ERR_UNSUPPORTED, "tojson: values are nested more than %d deep", m->limits->depth);
    if (v.type == J_STR) return put_string(m, style, v.u.s->ptr, v.u.s->len, out);
    if (v.type == J_DICT) {
        KG_TRY(buf_append(out, "{", 1));
        KG_TRY(put_pairs(m, style, v.u.dict, depth, out));
        return buf_append(out, "}", 1);
    }
    if (v.type != J_SEQ || v.u.seq->kind > SEQ_TUPLE) return put_scalar(v, out);
    KG_TRY(buf_append(out, "[", 1));
    for (size_t i = 0; i < v.u.seq->n; i++) {
        if (i) KG_TRY(buf_append(out, style->item.ptr, style->item.len));
        KG_TRY(put_line(style, depth + 1, out));
        KG_TRY(put_value(m, style, v.u.seq->items[i], depth + 1, out));
    }
    if (v.u.seq->n) KG_TRY(put_line(style, depth, out));
    return buf_append(out, "]", 1);
}

/* ensure_ascii? indent? separators? sort_keys? */
kg_status jinja_to_json(struct jctx *c, struct jval self, const struct jval *v, const struct jargs *args, struct jval *out)
{
    (void)args;
    enum { MOST_INDENT = 100 };
    struct json_style style = {.ascii = jarg_truth(v[0], false), .sorted = jarg_truth(v[3], false), .item = {", ", 2, false}, .key = {": ", 2, false}};
    struct jval indent;
    if (v[1].type == J_STR) {
        style.indent = v[1].u.s;
    } else if (v[1].type != J_MISSING && v[1].type != J_NONE) {
        int64_t n;
        KG_TRY(jarg_int(v[1], "tojson: indent", 0, &n));
        char spaces[MOST_INDENT];
        memset(spaces, ' ', sizeof spaces);
        if (n > MOST_INDENT) return status_set(KG_ERR_UNSUPPORTED, "tojson: an indent of more than %d", MOST_INDENT);
        KG_TRY(jval_str(c->m, spaces, n > 0 ? (size_t)n : 0, &indent));
        style.indent = indent.u.s;
    }
    if (style.indent) style.item.len = 1; /* the line ends there */
    if (v[2].type != J_MISSING && v[2].type != J_NONE) {
        const struct jseq *s = v[2].u.seq;
        if (v[2].type != J_SEQ || s->n != 2 || s->items[0].type != J_STR || s->items[1].type != J_STR)
            return status_set(KG_ERR_FORMAT, "tojson: separators must be two strings");
        style.item = *s->items[0].u.s;
        style.key = *s->items[1].u.s;
    }
    struct buf b = {0};
    kg_status status = put_value(c->m, &style, self, 0, &b);
    if (status == KG_OK) return jval_str_of(c->m, &b, out);
    buf_free(&b);
    return status;
}
