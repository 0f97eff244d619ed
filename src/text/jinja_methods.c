/* Methods of strings. Those of lists and mappings: jinja_containers.c. */
#include "text/jinja_run.h"
#include "text/utf8.h"

#define FN(name) static kg_status name(struct jctx *c, struct jval self, const struct jval *v, const struct jargs *args, struct jval *out)
#define UNUSED (void)c, (void)self, (void)v, (void)args

/* ---- strings ---- */

FN(s_upper) { UNUSED; return jstr_case(c->m, self, CASE_UPPER, out); }
FN(s_lower) { UNUSED; return jstr_case(c->m, self, CASE_LOWER, out); }
FN(s_swapcase) { UNUSED; return jstr_case(c->m, self, CASE_SWAP, out); }
FN(s_capitalize) { UNUSED; return jstr_case(c->m, self, CASE_CAPITALIZE, out); }
FN(s_title) { UNUSED; return jstr_case(c->m, self, CASE_TITLE, out); }

static kg_status strip(struct jctx *c, struct jval self, const struct jval *v, bool left, bool right, struct jval *out)
{
    const struct jstr *chars;
    const char *s = self.u.s->ptr;
    size_t n = self.u.s->len;
    KG_TRY(jarg_str(v[0], "strip: chars", &chars));
    KG_TRY(jmem_steps(c->m, n / 16 + (chars ? chars->len / 16 * (n / 16) : 0)));
    jstr_strip(&s, &n, chars, left, right);
    return jval_str_at(c->m, s, n, out);
}

FN(s_strip) { UNUSED; return strip(c, self, v, true, true, out); }
FN(s_lstrip) { UNUSED; return strip(c, self, v, true, false, out); }
FN(s_rstrip) { UNUSED; return strip(c, self, v, false, true, out); }

static bool has_affix(const struct jstr *s, const struct jstr *affix, bool end)
{
    return s->len >= affix->len && memcmp(end ? s->ptr + s->len - affix->len : s->ptr, affix->ptr, affix->len) == 0;
}

/* The argument is a string or a tuple of them. */
static kg_status test_affix(struct jctx *c, struct jval self, struct jval affix, bool end, struct jval *out)
{
    struct jseq one = {.items = &affix, .n = 1}, *all = jval_is_seq(affix, SEQ_TUPLE) ? affix.u.seq : &one;
    bool is = false;
    for (size_t i = 0; i < all->n && !is; i++) {
        if (all->items[i].type == J_UNDEFINED) return jinja_undefined_error(all->items[i]);
        if (all->items[i].type != J_STR) return status_set(KG_ERR_FORMAT, "%s first arg must be str or a tuple of str, not %s", end ? "endswith" : "startswith", jval_type_name(all->items[i]));
        is = has_affix(self.u.s, all->items[i].u.s, end);
    }
    *out = jval_bool(is);
    return jmem_steps(c->m, all->n);
}

FN(s_startswith) { UNUSED; return test_affix(c, self, v[0], false, out); }
FN(s_endswith) { UNUSED; return test_affix(c, self, v[0], true, out); }

static kg_status remove_affix(struct jctx *c, struct jval self, struct jval affix, bool end, struct jval *out)
{
    const struct jstr *a, *s = self.u.s;
    KG_TRY(jarg_str(affix, "the affix", &a));
    if (!a) return status_set(KG_ERR_FORMAT, "the affix must be a string");
    bool is = has_affix(s, a, end);
    return jval_str_at(c->m, is && !end ? s->ptr + a->len : s->ptr, is ? s->len - a->len : s->len, out);
}

FN(s_removeprefix) { UNUSED; return remove_affix(c, self, v[0], false, out); }
FN(s_removesuffix) { UNUSED; return remove_affix(c, self, v[0], true, out); }

/* The caller has paid for a search from the start; one from the end, which is not linear, pays here. */
static const char *find(struct jmem *m, const char *s, size_t n, const struct jstr *what, bool last)
{
    if (!last) return memmem(s, n, what->ptr, what->len);
    if (n < what->len) return NULL;
    size_t i = n - what->len;
    while (i > 0 && memcmp(s + i, what->ptr, what->len) != 0) i--;
    m->steps += (n - what->len - i) / 16 * (1 + what->len / 64);
    return memcmp(s + i, what->ptr, what->len) == 0 ? s + i : NULL;
}

static kg_status push_str(struct jctx *c, struct jseq *to, const char *s, size_t n)
{
    struct jval v;
    KG_TRY(jval_str_at(c->m, s, n, &v));
    return jseq_push(c->m, to, v);
}

static void reverse_items(struct jseq *s)
{
    for (size_t i = 0; i < s->n / 2; i++) {
        struct jval t = s->items[i];
        s->items[i] = s->items[s->n - 1 - i];
        s->items[s->n - 1 - i] = t;
    }
}

/* At white space, runs of it as one. */
static kg_status split_words(struct jctx *c, const char *s, size_t n, int64_t most, bool last, struct jseq *to)
{
    for (int64_t i = 0;; i++) {
        jstr_strip(&s, &n, NULL, !last, last);
        if (n == 0) break;
        size_t k = 0, step;
        uint32_t code;
        if (i == most) return push_str(c, to, s, n);
        if (!last) {
            for (; k < n && (step = utf8_decode((const uint8_t *)s + k, n - k, &code)) > 0 && !jstr_is_space(code); k += step) {}
            KG_TRY(push_str(c, to, s, k));
            s += k;
        } else {
            for (; k < n; k += step) {
                step = 1;
                while (k + step < n && ((uint8_t)s[n - k - step] & 0xc0) == 0x80) step++;
                if (utf8_decode((const uint8_t *)s + n - k - step, step, &code) > 0 && jstr_is_space(code)) break;
            }
            KG_TRY(push_str(c, to, s + n - k, k));
        }
        n -= k;
        KG_TRY(jmem_steps(c->m, 1 + k / 8));
    }
    return KG_OK;
}

static kg_status split(struct jctx *c, struct jval self, const struct jval *v, bool last, struct jval *out)
{
    const struct jstr *sep;
    int64_t most;
    struct jseq *to;
    const char *s = self.u.s->ptr, *at;
    size_t n = self.u.s->len;
    KG_TRY(jarg_str(v[0], "split: sep", &sep));
    KG_TRY(jarg_int(v[1], "split: maxsplit", -1, &most));
    if (sep && sep->len == 0) return status_set(KG_ERR_FORMAT, "split: empty separator");
    KG_TRY(jseq_new(c->m, SEQ_LIST, 0, &to));
    KG_TRY(jmem_steps(c->m, n / 16));
    *out = jval_seq(to);
    if (!sep) {
        KG_TRY(split_words(c, s, n, most, last, to));
    } else {
        for (; most != 0 && (at = find(c->m, s, n, sep, last)); most--) {
            size_t before = (size_t)(at - s), after = n - before - sep->len;
            KG_TRY(push_str(c, to, last ? at + sep->len : s, last ? after : before));
            if (!last) s = at + sep->len;
            n = last ? before : after;
        }
        KG_TRY(push_str(c, to, s, n));
    }
    if (last) reverse_items(to);
    return KG_OK;
}

FN(s_split) { UNUSED; return split(c, self, v, false, out); }
FN(s_rsplit) { UNUSED; return split(c, self, v, true, out); }

/* keepends? */
FN(s_splitlines)
{
    UNUSED;
    struct jseq *to;
    const struct jstr *s = self.u.s;
    KG_TRY(jseq_new(c->m, SEQ_LIST, 0, &to));
    for (size_t i = 0, start = 0, step; i < s->len; i += step) {
        uint32_t code = 0;
        step = utf8_decode((const uint8_t *)s->ptr + i, s->len - i, &code);
        if (step == 0) step = 1;
        bool end = (code >= 10 && code <= 13) || (code >= 28 && code <= 30) || code == 0x85 || code == 0x2028 || code == 0x2029;
        if (code == '\r' && i + 1 < s->len && s->ptr[i + 1] == '\n') step = 2;
        bool final = i + step >= s->len;
        if (end) KG_TRY(push_str(c, to, s->ptr + start, (jarg_truth(v[0], false) ? i + step : i) - start));
        else if (final) KG_TRY(push_str(c, to, s->ptr + start, s->len - start));
        if (end) start = i + step;
    }
    *out = jval_seq(to);
    return jmem_steps(c->m, s->len / 8);
}

static kg_status partition(struct jctx *c, struct jval self, struct jval by, bool last, struct jval *out)
{
    const struct jstr *sep, *s = self.u.s;
    struct jseq *to;
    KG_TRY(jarg_str(by, "partition: sep", &sep));
    if (!sep || sep->len == 0) return status_set(KG_ERR_FORMAT, "partition: empty separator");
    KG_TRY(jseq_new(c->m, SEQ_TUPLE, 3, &to));
    const char *at = find(c->m, s->ptr, s->len, sep, last);
    size_t before = at ? (size_t)(at - s->ptr) : last ? 0 : s->len;
    KG_TRY(push_str(c, to, s->ptr, before));
    KG_TRY(push_str(c, to, at ? at : "", at ? sep->len : 0));
    if (at) KG_TRY(push_str(c, to, at + sep->len, s->len - before - sep->len));
    else KG_TRY(push_str(c, to, last ? s->ptr : "", last ? s->len : 0));
    *out = jval_seq(to);
    return jmem_steps(c->m, s->len / 16);
}

FN(s_partition) { UNUSED; return partition(c, self, v[0], false, out); }
FN(s_rpartition) { UNUSED; return partition(c, self, v[0], true, out); }

/* old new count? */
FN(s_replace)
{
    UNUSED;
    const struct jstr *old, *by;
    int64_t most;
    KG_TRY(jarg_str(v[0], "replace: old", &old));
    KG_TRY(jarg_str(v[1], "replace: new", &by));
    KG_TRY(jarg_int(v[2], "replace: count", -1, &most));
    if (!old || !by) return status_set(KG_ERR_FORMAT, "replace: both arguments must be strings");
    return jstr_replace(c->m, self.u.s, old, by, most, out);
}

/* sub start? end? of find, index and count: the part of the string; *offset: characters before it. */
static kg_status part(struct jval self, const struct jval *v, const char **s, size_t *n, int64_t *offset, const struct jstr **sub)
{
    int64_t chars = (int64_t)jstr_n_chars(self.u.s->ptr, self.u.s->len), start, end;
    KG_TRY(jarg_str(v[0], "the argument", sub));
    if (!*sub) return status_set(KG_ERR_FORMAT, "the argument must be a string");
    KG_TRY(jarg_int(v[1], "start", 0, &start));
    KG_TRY(jarg_int(v[2], "end", chars, &end));
    if (start < 0) start = start < -chars ? 0 : start + chars;
    if (end < 0) end = end < -chars ? 0 : end + chars;
    *offset = start;
    *s = NULL; /* nothing can be found */
    if (start > MIN(end, chars)) return KG_OK;
    size_t from = jstr_offset(self.u.s->ptr, self.u.s->len, (size_t)start);
    *s = self.u.s->ptr + from;
    *n = jstr_offset(*s, self.u.s->len - from, (size_t)(MIN(end, chars) - start));
    return KG_OK;
}

static kg_status find_part(struct jctx *c, struct jval self, const struct jval *v, bool last, bool must, struct jval *out)
{
    const struct jstr *sub;
    const char *s, *at = NULL;
    size_t n = 0;
    int64_t offset;
    KG_TRY(jmem_steps(c->m, self.u.s->len / 8));
    KG_TRY(part(self, v, &s, &n, &offset, &sub));
    if (s) at = find(c->m, s, n, sub, last);
    if (!at && must) return status_set(KG_ERR_FORMAT, "substring not found");
    *out = jval_int(at ? offset + (int64_t)jstr_n_chars(s, (size_t)(at - s)) : -1);
    return KG_OK;
}

FN(s_find) { UNUSED; return find_part(c, self, v, false, false, out); }
FN(s_rfind) { UNUSED; return find_part(c, self, v, true, false, out); }
FN(s_index) { UNUSED; return find_part(c, self, v, false, true, out); }
FN(s_rindex) { UNUSED; return find_part(c, self, v, true, true, out); }

FN(s_count)
{
    UNUSED;
    const struct jstr *sub;
    const char *s, *at;
    size_t n = 0;
    int64_t offset, count = 0;
    KG_TRY(jmem_steps(c->m, self.u.s->len / 8));
    KG_TRY(part(self, v, &s, &n, &offset, &sub));
    if (s && sub->len == 0) count = (int64_t)jstr_n_chars(s, n) + 1;
    while (s && sub->len > 0 && (at = memmem(s, n, sub->ptr, sub->len))) {
        count++;
        n -= (size_t)(at - s) + sub->len;
        s = at + sub->len;
    }
    *out = jval_int(count);
    return KG_OK;
}

FN(s_join)
{
    UNUSED;
    struct jseq *items;
    struct buf b = {0};
    KG_TRY(jval_items(c->m, v[0], &items));
    kg_status status = KG_OK;
    for (size_t i = 0; i < items->n && status == KG_OK; i++) {
        if (items->items[i].type != J_STR) status = status_set(KG_ERR_FORMAT, "sequence item %zu: expected str instance, %s found", i, jval_type_name(items->items[i]));
        if (status == KG_OK && i) status = jval_print(c->m, self, &b);
        if (status == KG_OK) status = jval_print(c->m, items->items[i], &b);
        if (status == KG_OK) status = jmem_room(c->m, &b);
    }
    if (status == KG_OK) return jval_str_of(c->m, &b, out);
    buf_free(&b);
    return status;
}

/* width fillchar?: zeros go behind a sign. */
static kg_status justify(struct jctx *c, struct jval self, const struct jval *v, bool left, bool zeros, struct jval *out)
{
    const struct jstr *fill = NULL, *s = self.u.s;
    int64_t width, n = (int64_t)jstr_n_chars(s->ptr, s->len);
    KG_TRY(jarg_int(v[0], "width", 0, &width));
    if (!zeros) KG_TRY(jarg_str(v[1], "fillchar", &fill));
    if (fill && jstr_n_chars(fill->ptr, fill->len) != 1) return status_set(KG_ERR_FORMAT, "the fill character must be exactly one character long");
    if (width > 100000) return status_set(KG_ERR_UNSUPPORTED, "a width of more than 100000");
    struct buf b = {0};
    size_t sign = zeros && s->len && (s->ptr[0] == '-' || s->ptr[0] == '+');
    kg_status status = buf_append(&b, s->ptr, left ? s->len : sign);
    for (int64_t i = n; i < width && status == KG_OK; i++) status = fill ? buf_append(&b, fill->ptr, fill->len) : buf_append(&b, zeros ? "0" : " ", 1);
    if (status == KG_OK && !left) status = buf_append(&b, s->ptr + sign, s->len - sign);
    if (status == KG_OK) status = jmem_steps(c->m, b.len / 8);
    if (status == KG_OK) return jval_str_of(c->m, &b, out);
    buf_free(&b);
    return status;
}

FN(s_ljust) { UNUSED; return justify(c, self, v, true, false, out); }
FN(s_rjust) { UNUSED; return justify(c, self, v, false, false, out); }
FN(s_zfill) { UNUSED; return justify(c, self, v, false, true, out); }

/* "{} {0} {name}": fields without a format of their own. */
FN(s_format)
{
    UNUSED;
    const struct jstr *s = self.u.s;
    struct buf b = {0};
    kg_status status = KG_OK;
    size_t next = 0;
    for (size_t i = 0; i < s->len && status == KG_OK;) {
        char ch = s->ptr[i];
        if ((ch != '{' && ch != '}') || (i + 1 < s->len && s->ptr[i + 1] == ch)) {
            status = buf_append(&b, &ch, 1);
            i += ch == '{' || ch == '}' ? 2 : 1;
            continue;
        }
        const char *end = ch == '{' ? memchr(s->ptr + i, '}', s->len - i) : NULL;
        const char *name = s->ptr + i + 1;
        size_t n = end ? (size_t)(end - name) : 0, index = 0, digits = 0;
        struct jval value = {.type = J_MISSING};
        while (digits < n && digits < 6 && name[digits] >= '0' && name[digits] <= '9') index = index * 10 + (size_t)(name[digits++] - '0');
        if (end && digits == n) {
            if (n == 0) index = next++;
            if (index < args->n) value = args->v[index];
        }
        for (size_t k = 0; end && k < args->n_keywords; k++)
            if (args->keywords[k].name->len == n && memcmp(args->keywords[k].name->ptr, name, n) == 0) value = args->keywords[k].value;
        if (value.type == J_MISSING) status = status_set(KG_ERR_UNSUPPORTED, "str.format: a field that is not just a name or number, or without a value");
        else status = jval_print(c->m, value, &b);
        if (status == KG_OK) status = jmem_room(c->m, &b);
        if (end) i = (size_t)(end - s->ptr) + 1;
    }
    if (status == KG_OK) status = jmem_steps(c->m, s->len / 8);
    if (status == KG_OK) return jval_str_of(c->m, &b, out);
    buf_free(&b);
    return status;
}

/* Does the test hold for all characters, of which there is one at least? */
static kg_status all_chars(struct jctx *c, struct jval self, const char *test, struct jval *out)
{
    bool is = self.u.s->len > 0;
    for (size_t i = 0; i < self.u.s->len && is; i++) {
        uint8_t b = (uint8_t)self.u.s->ptr[i];
        bool digit = b >= '0' && b <= '9', letter = (b | 0x20) >= 'a' && (b | 0x20) <= 'z';
        if (b >= 0x80 && *test != 's') return status_set(KG_ERR_UNSUPPORTED, "str.is%s of characters beyond ASCII", test);
        is = strcmp(test, "digit") == 0 ? digit : strcmp(test, "alpha") == 0 ? letter : digit || letter;
    }
    *out = jval_bool(is);
    return jmem_steps(c->m, self.u.s->len / 16);
}

FN(s_isdigit) { UNUSED; return all_chars(c, self, "digit", out); }
FN(s_isalpha) { UNUSED; return all_chars(c, self, "alpha", out); }
FN(s_isalnum) { UNUSED; return all_chars(c, self, "alnum", out); }

FN(s_isspace)
{
    UNUSED;
    const char *s = self.u.s->ptr;
    size_t n = self.u.s->len;
    jstr_strip(&s, &n, NULL, true, false);
    *out = jval_bool(self.u.s->len > 0 && n == 0);
    return jmem_steps(c->m, self.u.s->len / 16);
}

static kg_status by_test(struct jctx *c, struct jval self, const char *test, const struct jargs *args, struct jval *out)
{
    struct jstr name = {test, strlen(test), false};
    return jinja_find(jinja_tests, &name)->run(c, self, NULL, args, out);
}

FN(s_isupper) { UNUSED; return by_test(c, self, "upper", args, out); }
FN(s_islower) { UNUSED; return by_test(c, self, "lower", args, out); }

const struct jfunction jinja_str_methods[] = {
    {"upper", "", s_upper},
    {"lower", "", s_lower},
    {"swapcase", "", s_swapcase},
    {"capitalize", "", s_capitalize},
    {"title", "", s_title},
    {"strip", "chars?", s_strip},
    {"lstrip", "chars?", s_lstrip},
    {"rstrip", "chars?", s_rstrip},
    {"startswith", "prefix", s_startswith},
    {"endswith", "suffix", s_endswith},
    {"removeprefix", "prefix", s_removeprefix},
    {"removesuffix", "suffix", s_removesuffix},
    {"split", "sep? maxsplit?", s_split},
    {"rsplit", "sep? maxsplit?", s_rsplit},
    {"splitlines", "keepends?", s_splitlines},
    {"partition", "sep", s_partition},
    {"rpartition", "sep", s_rpartition},
    {"replace", "old new count?", s_replace},
    {"find", "sub start? end?", s_find},
    {"rfind", "sub start? end?", s_rfind},
    {"index", "sub start? end?", s_index},
    {"rindex", "sub start? end?", s_rindex},
    {"count", "sub start? end?", s_count},
    {"join", "iterable", s_join},
    {"ljust", "width fillchar?", s_ljust},
    {"rjust", "width fillchar?", s_rjust},
    {"zfill", "width", s_zfill},
    {"format", NULL, s_format},
    {"isdigit", "", s_isdigit},
    {"isalpha", "", s_isalpha},
    {"isalnum", "", s_isalnum},
    {"isspace", "", s_isspace},
    {"isupper", "", s_isupper},
    {"islower", "", s_islower},
    {NULL, NULL, NULL},
};
