/* Values: memory, strings, sequences, dictionaries, truth, equality and order. */
#include "text/jinja_value.h"
#include "text/tokenizer.h"

#include <math.h>
#include <stdio.h>

const struct jinja_limits jinja_default_limits = {.memory = (size_t)256 << 20, .output = (size_t)64 << 20, .steps = 50000000, .depth = 200};

enum { BLOCK_BYTES = 32 << 10, FEW_PAIRS = 8 };

kg_status jlocale_enter(struct jlocale *l)
{
    *l = (struct jlocale){.plain = newlocale(LC_ALL_MASK, "C", (locale_t)0)};
    if (!l->plain) return status_set(KG_ERR_MEMORY, "out of memory");
    l->before = uselocale(l->plain);
    return KG_OK;
}

void jlocale_leave(struct jlocale *l)
{
    uselocale(l->before);
    freelocale(l->plain);
}

/* ---- memory ---- */

void *jmem_alloc(struct jmem *m, size_t n, size_t item_bytes)
{
    size_t bytes;
    if (__builtin_mul_overflow(n, item_bytes, &bytes) || bytes > m->limits->memory || m->used > m->limits->memory - bytes) {
        status_set(KG_ERR_UNSUPPORTED, "needs more than %zu MiB of memory", m->limits->memory >> 20);
        m->failed = true;
        return NULL;
    }
    bytes = ROUND_UP(MAX(bytes, (size_t)1), (size_t)16);
    m->used += bytes;
    if (bytes > BLOCK_BYTES / 4) return arena_alloc(&m->arena, bytes);
    if (bytes > m->left) {
        m->at = arena_alloc(&m->arena, BLOCK_BYTES);
        m->left = m->at ? BLOCK_BYTES : 0;
        if (!m->at) return NULL;
    }
    void *p = m->at;
    m->at += bytes;
    m->left -= bytes;
    return p;
}

kg_status jmem_steps(struct jmem *m, uint64_t n)
{
    m->steps += n;
    if (m->steps <= m->limits->steps) return KG_OK;
    return status_set(KG_ERR_UNSUPPORTED, "takes more than %llu steps", (unsigned long long)m->limits->steps);
}

kg_status jmem_room(const struct jmem *m, const struct buf *b)
{
    if (b->len <= m->limits->memory) return KG_OK;
    return status_set(KG_ERR_UNSUPPORTED, "needs more than %zu MiB of memory", m->limits->memory >> 20);
}

/* ---- strings ---- */

kg_status jval_str_at(struct jmem *m, const char *s, size_t n, struct jval *out)
{
    struct jstr *str = jmem_alloc(m, 1, sizeof *str);
    if (!str) return jmem_failed(m);
    *str = (struct jstr){.ptr = s, .len = n};
    *out = (struct jval){.type = J_STR, .u.s = str};
    return jmem_steps(m, n / 64);
}

kg_status jval_str(struct jmem *m, const char *s, size_t n, struct jval *out)
{
    char *copy = jmem_alloc(m, n, 1);
    if (!copy) return jmem_failed(m);
    if (n) memcpy(copy, s, n);
    return jval_str_at(m, copy, n, out);
}

kg_status jval_text(struct jmem *m, const char *text, struct jval *out) { return jval_str(m, text, strlen(text), out); }

kg_status jval_str_of(struct jmem *m, struct buf *b, struct jval *out)
{
    kg_status status = jval_str(m, b->data, b->len, out);
    buf_free(b);
    return status;
}

kg_status jval_undefined(struct jmem *m, struct jval *out, const char *fmt, ...)
{
    char text[200];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    KG_TRY(jval_text(m, text, out));
    out->type = J_UNDEFINED;
    return KG_OK;
}

/* ---- sequences ---- */

kg_status jseq_new(struct jmem *m, enum jseq_kind kind, size_t cap, struct jseq **out)
{
    struct jseq *s = jmem_alloc(m, 1, sizeof *s);
    if (!s) return jmem_failed(m);
    s->kind = kind;
    if (cap > 0) {
        s->items = jmem_alloc(m, cap, sizeof *s->items);
        if (!s->items) return jmem_failed(m);
        s->cap = cap;
    }
    *out = s;
    return KG_OK;
}

kg_status jseq_push(struct jmem *m, struct jseq *s, struct jval v)
{
    if (s->n == s->cap) {
        size_t cap = MAX(s->cap * 2, (size_t)4);
        struct jval *items = jmem_alloc(m, cap, sizeof *items);
        if (!items) return jmem_failed(m);
        if (s->n) memcpy(items, s->items, s->n * sizeof *items);
        s->items = items;
        s->cap = cap;
    }
    s->items[s->n++] = v;
    return jmem_steps(m, 1);
}

kg_status jseq_pair(struct jmem *m, struct jval a, struct jval b, struct jval *out)
{
    struct jseq *s;
    KG_TRY(jseq_new(m, SEQ_TUPLE, 2, &s));
    s->items[0] = a;
    s->items[1] = b;
    s->n = 2;
    *out = jval_seq(s);
    return KG_OK;
}

/* ---- dictionaries ---- */

/* Numbers that are equal have equal hashes, whatever their type. */
static kg_status hash_of(struct jmem *m, struct jval v, int depth, uint64_t *out)
{
    double f;
    switch (v.type) {
    case J_BOOL:
    case J_INT:
    case J_FLOAT:
        f = jval_double(v) + 0.0; /* no negative zero */
        *out = text_hash((const char *)&f, sizeof f, 1);
        return KG_OK;
    case J_STR: *out = text_hash(v.u.s->ptr, v.u.s->len, 2); return jmem_steps(m, v.u.s->len / 64);
    case J_NONE: *out = 3; return KG_OK;
    case J_UNDEFINED: *out = 4; return KG_OK;
    case J_SEQ:
        if (v.u.seq->kind != SEQ_TUPLE || depth >= m->limits->depth) break;
        KG_TRY(jmem_steps(m, v.u.seq->n));
        *out = 5;
        for (size_t i = 0; i < v.u.seq->n; i++) {
            uint64_t h;
            KG_TRY(hash_of(m, v.u.seq->items[i], depth + 1, &h));
            *out = text_hash((const char *)&h, sizeof h, *out);
        }
        return KG_OK;
    default: break;
    }
    return status_set(KG_ERR_FORMAT, "unhashable type: '%s'", jval_type_name(v));
}

kg_status jdict_new(struct jmem *m, struct jdict **out)
{
    *out = jmem_alloc(m, 1, sizeof **out);
    return *out ? KG_OK : jmem_failed(m);
}

static void index_add(struct jdict *d, size_t i)
{
    size_t at = (size_t)d->pairs[i].hash & d->mask;
    while (d->index[at]) at = (at + 1) & d->mask;
    d->index[at] = (uint32_t)i + 1;
}

static kg_status index_build(struct jmem *m, struct jdict *d)
{
    size_t n_slots = 32;
    while (n_slots < d->cap * 2) n_slots *= 2;
    d->index = jmem_alloc(m, n_slots, sizeof *d->index);
    if (!d->index) return jmem_failed(m);
    d->mask = n_slots - 1;
    for (size_t i = 0; i < d->n; i++) index_add(d, i);
    return jmem_steps(m, d->n);
}

static kg_status find_hashed(struct jmem *m, const struct jdict *d, struct jval key, uint64_t hash, struct jpair **out)
{
    bool same;
    *out = NULL;
    if (!d->index) {
        for (size_t i = 0; i < d->n; i++) {
            if (d->pairs[i].hash != hash) continue;
            KG_TRY(jval_equal(m, d->pairs[i].key, key, &same));
            if (same) {
                *out = &d->pairs[i];
                return KG_OK;
            }
        }
        return KG_OK;
    }
    for (size_t at = (size_t)hash & d->mask; d->index[at]; at = (at + 1) & d->mask) {
        struct jpair *p = &d->pairs[d->index[at] - 1];
        if (p->hash != hash) continue;
        KG_TRY(jval_equal(m, p->key, key, &same));
        if (same) {
            *out = p;
            return KG_OK;
        }
    }
    return KG_OK;
}

kg_status jdict_find(struct jmem *m, const struct jdict *d, struct jval key, struct jpair **out)
{
    uint64_t hash = 0;
    KG_TRY(hash_of(m, key, 0, &hash));
    return find_hashed(m, d, key, hash, out);
}

struct jpair *jdict_find_str(const struct jdict *d, const char *s, size_t n)
{
    uint64_t hash = text_hash(s, n, 2);
    for (size_t i = 0, at = (size_t)hash & d->mask;; i++, at = (at + 1) & d->mask) {
        if (d->index ? !d->index[at] : i == d->n) return NULL;
        struct jpair *p = &d->pairs[d->index ? d->index[at] - 1 : i];
        if (p->hash == hash && p->key.type == J_STR && p->key.u.s->len == n && memcmp(p->key.u.s->ptr, s, n) == 0) return p;
    }
}

kg_status jdict_set(struct jmem *m, struct jdict *d, struct jval key, struct jval value)
{
    uint64_t hash = 0;
    struct jpair *p;
    KG_TRY(hash_of(m, key, 0, &hash));
    KG_TRY(find_hashed(m, d, key, hash, &p));
    if (p) {
        p->value = value;
        return KG_OK;
    }
    if (d->n == d->cap) {
        size_t cap = MAX(d->cap * 2, (size_t)FEW_PAIRS);
        struct jpair *pairs = jmem_alloc(m, cap, sizeof *pairs);
        if (!pairs) return jmem_failed(m);
        if (d->n) memcpy(pairs, d->pairs, d->n * sizeof *pairs);
        d->pairs = pairs;
        d->cap = cap;
        if (cap > FEW_PAIRS) KG_TRY(index_build(m, d));
    }
    d->pairs[d->n++] = (struct jpair){key, value, hash};
    if (d->index) index_add(d, d->n - 1);
    return jmem_steps(m, 1);
}

kg_status jdict_set_text(struct jmem *m, struct jdict *d, const char *key, struct jval value)
{
    struct jval k;
    KG_TRY(jval_text(m, key, &k));
    return jdict_set(m, d, k, value);
}

kg_status jdict_remove(struct jmem *m, struct jdict *d, struct jpair *pair)
{
    size_t i = (size_t)(pair - d->pairs);
    memmove(pair, pair + 1, (d->n - i - 1) * sizeof *pair);
    d->n--;
    if (!d->index) return KG_OK;
    memset(d->index, 0, (d->mask + 1) * sizeof *d->index);
    for (size_t k = 0; k < d->n; k++) index_add(d, k);
    return jmem_steps(m, d->n);
}

kg_status jdict_list(struct jmem *m, const struct jdict *d, enum jseq_kind what, struct jval *out)
{
    struct jseq *s;
    KG_TRY(jseq_new(m, what, d->n, &s));
    for (size_t i = 0; i < d->n; i++) {
        struct jval v = what == SEQ_VALUES ? d->pairs[i].value : d->pairs[i].key;
        if (what == SEQ_ITEMS) KG_TRY(jseq_pair(m, d->pairs[i].key, d->pairs[i].value, &v));
        KG_TRY(jseq_push(m, s, v));
    }
    *out = jval_seq(s);
    return KG_OK;
}

/* ---- what Python says about them ---- */

const char *jval_type_name(struct jval v)
{
    static const char *const names[J_N_TYPES] = {"Undefined", "Undefined", "NoneType", "bool", "int", "float", "str", "list", "dict", "Namespace", "Macro",
                                                 "function", "builtin_function_or_method", "LoopContext"};
    static const char *const seqs[] = {"list", "tuple", "range", "dict_keys", "dict_values", "dict_items", "generator"};
    if (v.type == J_STR && v.u.s->safe) return "Markup";
    return v.type == J_SEQ ? seqs[v.u.seq->kind] : names[v.type];
}

bool jval_truth(struct jval v)
{
    switch (v.type) {
    case J_MISSING:
    case J_UNDEFINED:
    case J_NONE: return false;
    case J_BOOL: return v.u.b;
    case J_INT: return v.u.i != 0;
    case J_FLOAT: return v.u.f != 0;
    case J_STR: return v.u.s->len > 0;
    case J_SEQ: return v.u.seq->n > 0 || v.u.seq->kind == SEQ_ITERATOR;
    case J_DICT: return v.u.dict->n > 0;
    default: return true;
    }
}

static kg_status equal_at(struct jmem *m, struct jval a, struct jval b, int depth, bool *out);

static kg_status equal_seqs(struct jmem *m, const struct jseq *a, const struct jseq *b, int depth, bool *out)
{
    *out = a == b;
    if (a == b || a->kind != b->kind || a->n != b->n || a->kind > SEQ_RANGE) return KG_OK;
    *out = true;
    for (size_t i = 0; i < a->n && *out; i++) KG_TRY(equal_at(m, a->items[i], b->items[i], depth + 1, out));
    return KG_OK;
}

static kg_status equal_dicts(struct jmem *m, const struct jdict *a, const struct jdict *b, int depth, bool *out)
{
    *out = a == b;
    if (a == b || a->n != b->n) return KG_OK;
    *out = true;
    for (size_t i = 0; i < a->n && *out; i++) {
        struct jpair *p;
        KG_TRY(find_hashed(m, b, a->pairs[i].key, a->pairs[i].hash, &p));
        *out = p;
        if (p) KG_TRY(equal_at(m, a->pairs[i].value, p->value, depth + 1, out));
    }
    return KG_OK;
}

static kg_status equal_at(struct jmem *m, struct jval a, struct jval b, int depth, bool *out)
{
    KG_TRY(jmem_steps(m, 1));
    if (depth > m->limits->depth) return status_set(KG_ERR_UNSUPPORTED, "values are nested more than %d deep", m->limits->depth);
    *out = false;
    if (jval_is_number(a) && jval_is_number(b)) {
        *out = a.type != J_FLOAT && b.type != J_FLOAT ? (a.type == J_INT ? a.u.i : a.u.b) == (b.type == J_INT ? b.u.i : b.u.b)
                                                      : jval_double(a) == jval_double(b);
        return KG_OK;
    }
    if (a.type != b.type) return KG_OK;
    switch (a.type) {
    case J_MISSING:
    case J_UNDEFINED:
    case J_NONE: *out = true; return KG_OK;
    case J_STR:
        *out = a.u.s->len == b.u.s->len && memcmp(a.u.s->ptr, b.u.s->ptr, a.u.s->len) == 0;
        return *out ? jmem_steps(m, a.u.s->len / 64) : KG_OK;
    case J_SEQ: return equal_seqs(m, a.u.seq, b.u.seq, depth, out);
    case J_DICT: return equal_dicts(m, a.u.dict, b.u.dict, depth, out);
    case J_METHOD: *out = a.u.bound == b.u.bound; return KG_OK;
    default: *out = a.u.dict == b.u.dict; return KG_OK; /* the same object */
    }
}

kg_status jval_equal(struct jmem *m, struct jval a, struct jval b, bool *out) { return equal_at(m, a, b, 0, out); }

static kg_status order_at(struct jmem *m, struct jval a, struct jval b, int depth, int *out)
{
    KG_TRY(jmem_steps(m, 1));
    if (depth > m->limits->depth) return status_set(KG_ERR_UNSUPPORTED, "values are nested more than %d deep", m->limits->depth);
    if (jval_is_number(a) && jval_is_number(b)) {
        if (a.type != J_FLOAT && b.type != J_FLOAT) {
            int64_t x = a.type == J_INT ? a.u.i : a.u.b, y = b.type == J_INT ? b.u.i : b.u.b;
            *out = (x > y) - (x < y);
        } else {
            double x = jval_double(a), y = jval_double(b);
            *out = (x > y) - (x < y);
        }
        return KG_OK;
    }
    if (a.type == J_STR && b.type == J_STR) { /* the order of UTF-8 is that of its characters */
        size_t n = MIN(a.u.s->len, b.u.s->len);
        int c = n ? memcmp(a.u.s->ptr, b.u.s->ptr, n) : 0;
        *out = c ? c : (a.u.s->len > b.u.s->len) - (a.u.s->len < b.u.s->len);
        return jmem_steps(m, n / 64);
    }
    if (a.type == J_SEQ && b.type == J_SEQ && a.u.seq->kind == b.u.seq->kind && a.u.seq->kind <= SEQ_TUPLE) {
        const struct jseq *x = a.u.seq, *y = b.u.seq;
        for (size_t i = 0; i < MIN(x->n, y->n); i++) {
            bool same;
            KG_TRY(equal_at(m, x->items[i], y->items[i], depth + 1, &same));
            if (!same) return order_at(m, x->items[i], y->items[i], depth + 1, out);
        }
        *out = (x->n > y->n) - (x->n < y->n);
        return KG_OK;
    }
    if (a.type == J_UNDEFINED || b.type == J_UNDEFINED) {
        const struct jstr *what = a.type == J_UNDEFINED ? a.u.s : b.u.s;
        return status_set(KG_ERR_FORMAT, "%.*s", (int)MIN(what->len, (size_t)200), what->ptr);
    }
    return status_set(KG_ERR_FORMAT, "'%s' and '%s' have no order", jval_type_name(a), jval_type_name(b));
}

kg_status jval_order(struct jmem *m, struct jval a, struct jval b, int *out) { return order_at(m, a, b, 0, out); }

kg_status jval_contains(struct jmem *m, struct jval in, struct jval what, bool *out)
{
    *out = false;
    if (in.type == J_STR) {
        if (what.type != J_STR) return status_set(KG_ERR_FORMAT, "'in <string>' requires string as left operand, not %s", jval_type_name(what));
        *out = what.u.s->len == 0 || memmem(in.u.s->ptr, in.u.s->len, what.u.s->ptr, what.u.s->len);
        return jmem_steps(m, in.u.s->len / 64);
    }
    if (in.type == J_DICT) {
        struct jpair *p;
        KG_TRY(jdict_find(m, in.u.dict, what, &p));
        *out = p;
        return KG_OK;
    }
    if (in.type == J_UNDEFINED) return KG_OK;
    if (in.type != J_SEQ) return status_set(KG_ERR_FORMAT, "argument of type '%s' is not iterable", jval_type_name(in));
    for (size_t i = in.u.seq->taken; i < in.u.seq->n && !*out; i++) {
        KG_TRY(jval_equal(m, in.u.seq->items[i], what, out));
        if (in.u.seq->kind == SEQ_ITERATOR) in.u.seq->taken = i + 1;
    }
    return KG_OK;
}

kg_status jval_items(struct jmem *m, struct jval v, struct jseq **out)
{
    if (v.type == J_UNDEFINED) return jseq_new(m, SEQ_LIST, 0, out);
    if (v.type == J_DICT) {
        KG_TRY(jdict_list(m, v.u.dict, SEQ_KEYS, &v));
        *out = v.u.seq;
        return KG_OK;
    }
    if (v.type == J_STR) {
        const char *s = v.u.s->ptr;
        KG_TRY(jseq_new(m, SEQ_LIST, jstr_n_chars(s, v.u.s->len), out));
        for (size_t i = 0, k; i < v.u.s->len; i += k) {
            struct jval c;
            k = jstr_offset(s + i, v.u.s->len - i, 1);
            KG_TRY(jval_str_at(m, s + i, k, &c));
            KG_TRY(jseq_push(m, *out, c));
        }
        return KG_OK;
    }
    if (v.type != J_SEQ) return status_set(KG_ERR_FORMAT, "'%s' object is not iterable", jval_type_name(v));
    *out = v.u.seq;
    if (v.u.seq->kind != SEQ_ITERATOR) return KG_OK;
    KG_TRY(jseq_new(m, SEQ_LIST, 0, out));
    if (v.u.seq->items) (*out)->items = v.u.seq->items + v.u.seq->taken;
    (*out)->n = (*out)->cap = v.u.seq->n - v.u.seq->taken;
    v.u.seq->taken = v.u.seq->n;
    return KG_OK;
}

kg_status jval_length(struct jval v, int64_t *out)
{
    *out = 0;
    if (v.type == J_STR) *out = (int64_t)jstr_n_chars(v.u.s->ptr, v.u.s->len);
    else if (v.type == J_SEQ && v.u.seq->kind != SEQ_ITERATOR) *out = (int64_t)v.u.seq->n;
    else if (v.type == J_DICT) *out = (int64_t)v.u.dict->n;
    else if (v.type != J_UNDEFINED) return status_set(KG_ERR_FORMAT, "object of type '%s' has no len()", jval_type_name(v));
    return KG_OK;
}

/* ---- text ---- */

void jfloat_text(double v, char *out)
{
    if (!isfinite(v)) {
        strcpy(out, isnan(v) ? "nan" : v > 0 ? "inf" : "-inf");
        return;
    }
    char digits[28], *e;
    double back = 0;
    for (int n = 1; n <= 17; n++) {
        snprintf(digits, sizeof digits, "%.*e", n - 1, v);
        if (sscanf(digits, "%lf", &back) == 1 && back == v) break;
    }
    e = strchr(digits, 'e');
    int exponent = 0;
    sscanf(e + 1, "%d", &exponent);
    int n_digits = (int)(e - digits) - (digits[0] == '-') - (memchr(digits, '.', (size_t)(e - digits)) != NULL);
    if (exponent < -4 || exponent >= 16) {
        *e = 0;
        snprintf(out, 40, "%se%c%02d", digits, exponent < 0 ? '-' : '+', exponent < 0 ? -exponent : exponent);
        return;
    }
    snprintf(out, 40, "%.*f", MAX(n_digits - 1 - exponent, 1), v);
}

static kg_status repr_seq(struct jmem *m, const struct jseq *s, int depth, struct buf *out)
{
    if (s->kind == SEQ_ITERATOR) return buf_printf(out, "<generator object>");
    if (s->kind == SEQ_RANGE) {
        int64_t first = s->n ? s->items[0].u.i : 0, step = s->n > 1 ? s->items[1].u.i - first : 1;
        KG_TRY(buf_printf(out, "range(%lld, %lld", (long long)first, (long long)(first + step * (int64_t)s->n)));
        return step == 1 ? buf_printf(out, ")") : buf_printf(out, ", %lld)", (long long)step);
    }
    static const char *const before[] = {"[", "(", "", "dict_keys([", "dict_values([", "dict_items(["};
    static const char *const after[] = {"]", ")", "", "])", "])", "])"};
    KG_TRY(buf_printf(out, "%s", before[s->kind]));
    for (size_t i = 0; i < s->n; i++) {
        if (i) KG_TRY(buf_append(out, ", ", 2));
        KG_TRY(jval_repr(m, s->items[i], depth + 1, out));
    }
    if (s->kind == SEQ_TUPLE && s->n == 1) KG_TRY(buf_append(out, ",", 1));
    return buf_printf(out, "%s", after[s->kind]);
}

static kg_status repr_dict(struct jmem *m, const struct jdict *d, int depth, struct buf *out)
{
    KG_TRY(buf_append(out, "{", 1));
    for (size_t i = 0; i < d->n; i++) {
        if (i) KG_TRY(buf_append(out, ", ", 2));
        KG_TRY(jval_repr(m, d->pairs[i].key, depth + 1, out));
        KG_TRY(buf_append(out, ": ", 2));
        KG_TRY(jval_repr(m, d->pairs[i].value, depth + 1, out));
    }
    return buf_append(out, "}", 1);
}

kg_status jval_repr(struct jmem *m, struct jval v, int depth, struct buf *out)
{
    char text[40];
    KG_TRY(jmem_steps(m, 1));
    if (depth > m->limits->depth) return status_set(KG_ERR_UNSUPPORTED, "values are nested more than %d deep", m->limits->depth);
    KG_TRY(jmem_room(m, out));
    switch (v.type) {
    case J_NONE: return buf_append(out, "None", 4);
    case J_BOOL: return v.u.b ? buf_append(out, "True", 4) : buf_append(out, "False", 5);
    case J_INT: return buf_printf(out, "%lld", (long long)v.u.i);
    case J_FLOAT: jfloat_text(v.u.f, text); return buf_append(out, text, strlen(text));
    case J_STR:
        KG_TRY(jmem_steps(m, v.u.s->len / 16));
        if (!v.u.s->safe) return jstr_repr(m, v.u.s, out);
        KG_TRY(buf_append(out, "Markup(", 7));
        KG_TRY(jstr_repr(m, v.u.s, out));
        return buf_append(out, ")", 1);
    case J_SEQ: return repr_seq(m, v.u.seq, depth, out);
    case J_DICT: return repr_dict(m, v.u.dict, depth, out);
    case J_NAMESPACE:
        KG_TRY(buf_append(out, "<Namespace ", 11));
        KG_TRY(repr_dict(m, v.u.dict, depth, out));
        return buf_append(out, ">", 1);
    case J_MISSING:
    case J_UNDEFINED: return buf_append(out, "Undefined", 9);
    default: return buf_printf(out, "<%s>", jval_type_name(v));
    }
}

kg_status jval_print(struct jmem *m, struct jval v, struct buf *out)
{
    if (v.type == J_STR) {
        KG_TRY(jmem_steps(m, v.u.s->len / 64));
        return buf_append(out, v.u.s->ptr, v.u.s->len);
    }
    return v.type == J_UNDEFINED || v.type == J_MISSING ? KG_OK : jval_repr(m, v, 0, out);
}

kg_status jval_to_str(struct jmem *m, struct jval v, struct jval *out)
{
    *out = v;
    if (v.type == J_STR) return KG_OK;
    struct buf b = {0};
    kg_status status = jval_print(m, v, &b);
    if (status == KG_OK) return jval_str_of(m, &b, out);
    buf_free(&b);
    return status;
}
