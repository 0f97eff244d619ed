/* Cuts an answer into text, reasoning and tool calls, piece by piece. Owns what is held back: what may be the beginning of a mark, and
 * white space that is dropped if a section begins or ends behind it. */
#include "base/base.h"
#include "text/toolcall.h"

#include <stdlib.h>

enum { N_PARTS = 3, DROP = N_PARTS, MOST_SPACE = 4096 };

static const struct mark {
    int part; /* kg_part, or DROP */
    const char *begin, *end;
} marks[] = {
#define KG_PART_DROP DROP
#define MARK(part, begin, end) {KG_PART_##part, begin, end},
#include "text/answer.def"
#undef MARK
};

struct kg_answer {
    struct buf held;
    struct buf parts[N_PARTS];
    struct toolcalls calls;
    struct buf call; /* the section of a tool call that is open */
    kg_part part;
    const char *end;  /* of the open section; NULL: none, or it goes on to the end */
    bool has_text;    /* since the start or the last section: reasoning cannot begin any more */
    bool drop_space;  /* white space that comes next is dropped: a section has begun or ended */
    bool section_new; /* the open section has given out nothing yet */
    bool ended;
};

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

kg_status kg_answer_new(kg_answer **out, const char *prompt, size_t prompt_len)
{
    if (!out || (!prompt && prompt_len > 0)) return status_set(KG_ERR_ARGUMENT, "kg_answer_new: NULL argument");
    *out = NULL;
    kg_answer *a = calloc(1, sizeof *a);
    if (!a) return status_set(KG_ERR_MEMORY, "out of memory for an answer");
    a->section_new = true;
    while (prompt_len > 0 && is_space(prompt[prompt_len - 1])) prompt_len--;
    for (size_t i = 0; i < COUNT_OF(marks); i++) {
        size_t n = strlen(marks[i].begin);
        if (marks[i].part != KG_PART_REASONING || prompt_len < n || memcmp(prompt + prompt_len - n, marks[i].begin, n) != 0) continue;
        a->part = KG_PART_REASONING;
        a->end = marks[i].end;
        a->drop_space = true;
    }
    *out = a;
    return KG_OK;
}

void kg_answer_free(kg_answer **answer)
{
    if (!answer || !*answer) return;
    buf_free(&(*answer)->held);
    buf_free(&(*answer)->call);
    for (int i = 0; i < N_PARTS; i++) buf_free(&(*answer)->parts[i]);
    toolcalls_free(&(*answer)->calls);
    free(*answer);
    *answer = NULL;
}

/* Gives out the first n bytes of what is held. */
static kg_status give(kg_answer *a, size_t n, kg_part_fn fn, void *ctx)
{
    struct buf *all = &a->parts[a->part];
    if (n == 0) return KG_OK;
    bool first = a->section_new;
    if (first && all->len > 0) KG_TRY(buf_append(all, "\n", 1));
    KG_TRY(buf_append(all, a->held.data, n));
    if (a->part == KG_PART_TOOL_CALL) KG_TRY(buf_append(&a->call, a->held.data, n));
    a->section_new = false;
    for (size_t i = 0; i < n && a->part == KG_PART_TEXT && !a->has_text; i++) a->has_text = !is_space(a->held.data[i]);
    bool go_on = !fn || fn(ctx, a->part, first, a->held.data, n);
    return go_on ? KG_OK : status_set(KG_ERR_ABORTED, "stopped by the callback");
}

static void forget(kg_answer *a, size_t n)
{
    a->held.len -= n;
    memmove(a->held.data, a->held.data + n, a->held.len);
}

static kg_status end_call(kg_answer *a)
{
    kg_status status = a->call.len ? toolcalls_add(&a->calls, a->call.data, a->call.len) : KG_OK;
    a->call.len = 0;
    return status;
}

/* The section ends, and another part begins. */
static kg_status enter(kg_answer *a, kg_part part, const char *end)
{
    if (a->part == KG_PART_TOOL_CALL) KG_TRY(end_call(a));
    a->part = part;
    a->end = end;
    a->section_new = a->drop_space = true;
    a->has_text = false;
    return KG_OK;
}

/* The first mark in what is held that counts now (NULL: none), and where; without one: where the longest end begins that may become one. */
static size_t find_mark(const kg_answer *a, const char **mark, const struct mark **opens)
{
    const char *s = a->held.data;
    bool reasoning = !a->has_text;
    *mark = NULL;
    *opens = NULL;
    for (size_t i = 0; i < a->held.len; i++) {
        size_t n = a->held.len - i, n_marks = a->part == KG_PART_TEXT ? COUNT_OF(marks) : 1;
        for (size_t k = 0; k < n_marks; k++) {
            const char *m = a->part == KG_PART_TEXT ? marks[k].begin : a->end;
            if (!m || (a->part == KG_PART_TEXT && marks[k].part == KG_PART_REASONING && !reasoning)) continue;
            size_t len = strlen(m);
            if (memcmp(s + i, m, MIN(n, len)) != 0) continue;
            if (n < len) return i; /* it may come, or not */
            *mark = m;
            *opens = a->part == KG_PART_TEXT ? &marks[k] : NULL;
            return i;
        }
        if (!is_space(s[i])) reasoning = false;
    }
    return a->held.len;
}

/* One step; *more: there may be another. */
static kg_status step(kg_answer *a, bool end, kg_part_fn fn, void *ctx, bool *more)
{
    *more = false;
    if (a->drop_space) {
        size_t n = 0;
        while (n < a->held.len && is_space(a->held.data[n])) n++;
        forget(a, n);
        if (a->held.len == 0) return KG_OK;
        a->drop_space = false;
    }
    const char *mark;
    const struct mark *opens;
    size_t at = find_mark(a, &mark, &opens), n = at;
    if (!mark && end) n = at = a->held.len;
    bool keeps_space = end && !mark && a->part == KG_PART_TEXT;
    while (n > 0 && !keeps_space && is_space(a->held.data[n - 1])) n--; /* behind which a section may begin or end */
    if (!mark && at - n > MOST_SPACE) n = at; /* a model that has run wild: holding back ever more would take ever longer */
    KG_TRY(give(a, n, fn, ctx));
    if (!mark) {
        forget(a, end ? a->held.len : n);
        return KG_OK;
    }
    forget(a, at + strlen(mark));
    *more = true;
    if (opens && opens->part != DROP) return enter(a, (kg_part)opens->part, opens->end);
    return enter(a, KG_PART_TEXT, NULL);
}

kg_status kg_answer_push(kg_answer *answer, const char *text, size_t len, bool end, kg_part_fn fn, void *ctx)
{
    if (!answer || (!text && len > 0)) return status_set(KG_ERR_ARGUMENT, "kg_answer_push: NULL argument");
    if (answer->ended) return status_set(KG_ERR_ARGUMENT, "kg_answer_push: the answer has ended");
    KG_TRY(buf_append(&answer->held, text, len));
    for (bool more = true; more;) KG_TRY(step(answer, end, fn, ctx, &more));
    answer->ended = end;
    return end && answer->part == KG_PART_TOOL_CALL ? end_call(answer) : KG_OK;
}

const char *kg_answer_part(const kg_answer *answer, kg_part part, size_t *len)
{
    bool is = answer && (int)part >= 0 && (int)part < N_PARTS && answer->parts[part].data;
    if (len) *len = is ? answer->parts[part].len : 0;
    return is ? answer->parts[part].data : "";
}

kg_status kg_answer_tool_calls(const kg_answer *answer, char **json)
{
    if (!answer || !json) return status_set(KG_ERR_ARGUMENT, "kg_answer_tool_calls: NULL argument");
    return toolcalls_json(&answer->calls, json);
}
