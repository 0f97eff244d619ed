/* Runs the steps. A normalizer takes the whole text, a pre-tokenizer each piece of the one before it. */
#include "text/steps_list.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

#include <stdlib.h>

enum { MAX_GROWTH = 64, GROWTH_ROOM = 4096 }; /* a text that becomes longer than this is no text */

void steps_free(struct steps **steps)
{
    if (!steps || !*steps) return;
    for (int i = 0; i < (*steps)->n; i++) pcre2_code_free((*steps)->list[i].regex);
    arena_free(&(*steps)->arena);
    free(*steps);
    *steps = NULL;
}

static kg_status match_regex(struct matches *w, size_t at, bool *found)
{
    const struct step *s = w->step;
    int rc = PCRE2_ERROR_JIT_STACKLIMIT;
    if (s->jit) rc = pcre2_jit_match(s->regex, (PCRE2_SPTR)w->text, w->n, at, PCRE2_NO_UTF_CHECK, w->m->data, NULL);
    if (rc < PCRE2_ERROR_NOMATCH)
        rc = pcre2_match(s->regex, (PCRE2_SPTR)w->text, w->n, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, w->m->data, NULL);
    *found = rc >= 0;
    if (rc == PCRE2_ERROR_NOMATCH) return KG_OK;
    if (rc < 0) {
        char message[128];
        pcre2_get_error_message(rc, (PCRE2_UCHAR *)message, sizeof message);
        return status_set(rc == PCRE2_ERROR_NOMEMORY ? KG_ERR_MEMORY : KG_ERR_UNSUPPORTED, "splitting the text into words failed: %s", message);
    }
    const PCRE2_SIZE *range = pcre2_get_ovector_pointer(w->m->data);
    w->start = range[0];
    w->end = MAX(range[1], range[0]); /* \K can put the start behind the end */
    return KG_OK;
}

static bool match_literal(struct matches *w, size_t at)
{
    const struct step *s = w->step;
    const char *p = w->n - at >= s->n_literal ? memmem(w->text + at, w->n - at, s->literal, s->n_literal) : NULL;
    if (!p) return false;
    w->start = (size_t)(p - w->text);
    w->end = w->start + s->n_literal;
    return true;
}

kg_status next_match(struct matches *w, bool *found)
{
    for (;;) {
        *found = false;
        if (w->from > w->n) return KG_OK;
        if (w->step->literal) *found = match_literal(w, w->from);
        else KG_TRY(match_regex(w, w->from, found));
        if (!*found) return KG_OK;
        const bool empty = w->start == w->end, again = empty && w->end == w->last_end;
        w->from = w->end;
        if (empty) w->from += MAX(utf8_char((const uint8_t *)w->text + w->end, w->n - w->end), (size_t)1);
        if (again) continue;
        w->last_end = w->end;
        return KG_OK;
    }
}

/* ---- pieces */

struct span {
    size_t start, end;
    bool match;
};

struct spans {
    struct span *list; /* [n] */
    size_t n, cap;
};

static kg_status add_span(struct spans *s, size_t start, size_t end, bool match)
{
    if (s->n == s->cap) {
        const size_t cap = s->cap * 2 + 64;
        struct span *list = realloc(s->list, cap * sizeof *list);
        if (!list) return status_set(KG_ERR_MEMORY, "out of memory for splitting text");
        s->list = list;
        s->cap = cap;
    }
    s->list[s->n++] = (struct span){start, end, match};
    return KG_OK;
}

static kg_status find_spans(struct matcher *m, const struct step *s, const char *text, size_t n, struct spans *out)
{
    size_t done = 0;
    if (s->kind == STEP_SPLIT) {
        struct matches w = {m, s, text, n, 0, SIZE_MAX, 0, 0};
        for (bool found;;) {
            KG_TRY(next_match(&w, &found));
            if (!found) break;
            if (w.start > done) KG_TRY(add_span(out, done, w.start, s->invert));
            KG_TRY(add_span(out, w.start, w.end, !s->invert));
            done = w.end;
        }
    } else {
        for (size_t i = 0, k; i < n; i += k) {
            uint32_t c = 0xfffd;
            k = MAX(utf8_decode((const uint8_t *)text + i, n - i, &c), (size_t)1);
            if (!s->is(c)) continue;
            if (i > done) KG_TRY(add_span(out, done, i, s->invert));
            KG_TRY(add_span(out, i, i + k, !s->invert));
            done = i + k;
        }
    }
    return done < n ? add_span(out, done, n, s->invert) : KG_OK;
}

/* Joins spans as the behavior says: those that go into another become empty. */
static void join_spans(struct spans *s, enum split_behavior behavior)
{
    bool before = false;
    size_t last = SIZE_MAX;
    for (size_t k = 0; k < s->n; k++) {
        const size_t i = behavior == SPLIT_WITH_NEXT ? s->n - 1 - k : k;
        struct span *p = &s->list[i];
        const bool match = p->match;
        const bool joins = last != SIZE_MAX && (behavior == SPLIT_CONTIGUOUS ? match == before : match && !before);
        if (joins && behavior == SPLIT_WITH_NEXT) {
            s->list[last].start = p->start;
            p->end = p->start;
        } else if (joins) {
            s->list[last].end = p->end;
            p->start = p->end;
        } else {
            last = i;
        }
        before = match;
    }
}

struct run {
    struct matcher m;
    word_fn fn;
    void *ctx;
    bool mapped; /* text is in the byte alphabet */
};

static kg_status run_from(struct run *r, int step, const char *text, size_t n, bool first);

static kg_status split(struct run *r, int step, const struct step *s, const char *text, size_t n, bool first)
{
    struct spans spans = {0};
    kg_status st = find_spans(&r->m, s, text, n, &spans);
    if (st == KG_OK && s->behavior >= SPLIT_WITH_PREVIOUS) join_spans(&spans, s->behavior);
    for (size_t i = 0; i < spans.n && st == KG_OK; i++) {
        const struct span *p = &spans.list[i];
        if (p->end == p->start || (s->behavior == SPLIT_REMOVED && p->match)) continue;
        st = run_from(r, step + 1, text + p->start, p->end - p->start, first && p->start == 0);
    }
    free(spans.list);
    return st;
}

static kg_status fixed(struct run *r, int step, unsigned length, const char *text, size_t n, bool first)
{
    size_t start = 0;
    unsigned count = 0;
    for (size_t i = 0; i < n;) {
        i += MAX(utf8_char((const uint8_t *)text + i, n - i), (size_t)1);
        if (++count < length && i < n) continue;
        KG_TRY(run_from(r, step + 1, text + start, i - start, first && start == 0));
        start = i;
        count = 0;
    }
    return KG_OK;
}

/* Spaces become the mark, which may also go before the text; then it is cut before each mark. */
static kg_status metaspace(struct run *r, int step, const struct step *s, const char *text, size_t n, bool first)
{
    struct buf b = {0};
    kg_status st = KG_OK;
    const bool marked = text[0] == ' ' || (n >= s->n_text && memcmp(text, s->text, s->n_text) == 0);
    if (!marked && (s->flags & PREPEND_ALWAYS || (s->flags & PREPEND_FIRST && first))) st = buf_append(&b, s->text, s->n_text);
    for (size_t done = 0; done < n && st == KG_OK;) {
        const char *space = memchr(text + done, ' ', n - done);
        const size_t end = space ? (size_t)(space - text) : n;
        st = buf_append(&b, text + done, end - done);
        if (space && st == KG_OK) st = buf_append(&b, s->text, s->n_text);
        done = end + (space != NULL);
    }
    if (st == KG_OK && !(s->flags & META_SPLIT)) st = run_from(r, step + 1, b.data, b.len, first);
    else if (st == KG_OK) st = split(r, step, &(struct step){.kind = STEP_SPLIT, .behavior = SPLIT_WITH_NEXT, .literal = s->text, .n_literal = s->n_text}, b.data, b.len, first);
    buf_free(&b);
    return st;
}

static kg_status space_prefix(struct run *r, int step, const char *text, size_t n, bool first)
{
    if (text[0] == ' ') return run_from(r, step + 1, text, n, first);
    struct buf b = {0};
    kg_status st = buf_append(&b, " ", 1);
    if (st == KG_OK) st = buf_append(&b, text, n);
    if (st == KG_OK) st = run_from(r, step + 1, b.data, b.len, first);
    buf_free(&b);
    return st;
}

/* What follows sees a character for each byte. */
static kg_status bytes(struct run *r, int step, const char *text, size_t n, bool first)
{
    struct buf b = {0};
    kg_status st = KG_OK;
    for (size_t i = 0; i < n && st == KG_OK; i++) {
        char c[2];
        st = buf_append(&b, c, bytelevel_char((uint8_t)text[i], c));
    }
    r->mapped = true;
    if (st == KG_OK) st = run_from(r, step + 1, b.data, b.len, first);
    r->mapped = false;
    buf_free(&b);
    return st;
}

static kg_status give(struct run *r, const char *text, size_t n)
{
    if (!r->mapped) return r->fn(r->ctx, text, n);
    char *word = malloc(n);
    bool exact;
    if (!word) return status_set(KG_ERR_MEMORY, "out of memory for splitting text");
    const kg_status st = r->fn(r->ctx, word, bytelevel_decode(text, n, word, &exact));
    free(word);
    return st;
}

static kg_status run_from(struct run *r, int step, const char *text, size_t n, bool first)
{
    const struct steps *steps = r->m.steps;
    if (n == 0) return KG_OK;
    if (step == steps->n) return give(r, text, n);
    const struct step *s = &steps->list[step];
    switch (s->kind) {
    case STEP_METASPACE: return metaspace(r, step, s, text, n, first);
    case STEP_SPACE_PREFIX: return space_prefix(r, step, text, n, first);
    case STEP_BYTES: return r->mapped ? run_from(r, step + 1, text, n, first) : bytes(r, step, text, n, first);
    case STEP_FIXED: return fixed(r, step, s->flags, text, n, first);
    default: return split(r, step, s, text, n, first);
    }
}

kg_status steps_run(const struct steps *steps, const char *text, size_t n, bool first, word_fn fn, void *ctx)
{
    struct run r = {{steps, pcre2_match_data_create(1, NULL)}, fn, ctx, false};
    struct buf now = {0};
    kg_status st = r.m.data ? KG_OK : status_set(KG_ERR_MEMORY, "out of memory for splitting text");
    for (int i = 0; i < steps->n_normalizers && st == KG_OK; i++) {
        struct buf next = {0};
        st = buf_append(&next, "", 0); /* no NULL, even of an empty text */
        if (st == KG_OK) st = step_normalize(&r.m, &steps->list[i], i ? now.data : text, i ? now.len : n, &next);
        buf_free(&now);
        now = next;
        if (st == KG_OK && now.len / MAX_GROWTH > n + GROWTH_ROOM) st = status_set(KG_ERR_UNSUPPORTED, "the tokenizer's normalizers make %zu bytes of a text of %zu", now.len, n);
    }
    const bool changed = steps->n_normalizers > 0;
    if (st == KG_OK) st = run_from(&r, steps->n_normalizers, changed ? now.data : text, changed ? now.len : n, first);
    buf_free(&now);
    pcre2_match_data_free(r.m.data);
    return st;
}
