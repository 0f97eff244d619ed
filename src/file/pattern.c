/* PCRE2 does the work, without its JIT: names are short and few. */
#include "file/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>

enum { MOST_BYTES = 4096, MOST_STEPS = 100000 };

struct pattern {
    pcre2_code *code;
    pcre2_match_data *found;
    pcre2_match_context *bounds;
    char text[128]; /* for messages */
};

void pattern_free(struct pattern **p)
{
    if (!*p) return;
    pcre2_code_free((*p)->code);
    pcre2_match_data_free((*p)->found);
    pcre2_match_context_free((*p)->bounds);
    free(*p);
    *p = NULL;
}

static kg_status compile(struct pattern *p, const char *text, enum pattern_kind kind)
{
    struct buf b = {0};
    int error = 0;
    PCRE2_SIZE at = 0;
    KG_TRY(buf_printf(&b, kind == PATTERN_MODULE ? "^(?:.*\\.)?(?:%s)$" : "%s", text));
    p->code = pcre2_compile((PCRE2_SPTR)b.data, b.len, PCRE2_NEVER_BACKSLASH_C | (kind == PATTERN_PART ? PCRE2_CASELESS : 0), &error, &at, NULL);
    buf_free(&b);
    if (p->code) return KG_OK;
    PCRE2_UCHAR message[128] = "";
    pcre2_get_error_message(error, message, sizeof message);
    return status_set(KG_ERR_ARGUMENT, "the pattern '%s' is not valid: %s", p->text, (const char *)message);
}

kg_status pattern_new(struct pattern **out, const char *text, enum pattern_kind kind)
{
    *out = NULL;
    if (!*text || strlen(text) > MOST_BYTES) return status_set(KG_ERR_ARGUMENT, "a pattern must have 1 to %d bytes", MOST_BYTES);
    struct pattern *p = calloc(1, sizeof *p);
    if (!p) return status_set(KG_ERR_MEMORY, "no memory for a pattern");
    strncpy(p->text, text, sizeof p->text - 1);
    kg_status st = compile(p, text, kind);
    if (st == KG_OK) {
        p->found = pcre2_match_data_create(1, NULL);
        p->bounds = pcre2_match_context_create(NULL);
        if (!p->found || !p->bounds) st = status_set(KG_ERR_MEMORY, "no memory for a pattern");
    }
    if (st != KG_OK) {
        pattern_free(&p);
        return st;
    }
    pcre2_set_match_limit(p->bounds, MOST_STEPS);
    pcre2_set_heap_limit(p->bounds, 1024);
    *out = p;
    return KG_OK;
}

kg_status pattern_fits(const struct pattern *p, const char *name, bool *fits)
{
    const int rc = pcre2_match(p->code, (PCRE2_SPTR)name, strlen(name), 0, 0, p->found, p->bounds);
    *fits = rc >= 0;
    if (rc >= 0 || rc == PCRE2_ERROR_NOMATCH) return KG_OK;
    PCRE2_UCHAR message[128] = "";
    pcre2_get_error_message(rc, message, sizeof message);
    return status_set(KG_ERR_ARGUMENT, "the pattern '%s' on '%.100s': %s", p->text, name, (const char *)message);
}
