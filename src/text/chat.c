/* Chat templates in public: those of a model file, the variables that templates expect, and rendering. */
#include "text/jinja.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

#include <stdlib.h>

#define KEY "tokenizer.chat_template"
enum { MOST_SOURCE = 4 << 20 };

struct kg_chat_template {
    struct jinja *jinja;
    char *source, *bos, *eos; /* NUL-terminated */
};

kg_status chat_load(struct kg_tokenizer *tok, const struct file *f)
{
    tok->chat = arena_array(&tok->arena, f->n_metas + 1, sizeof *tok->chat);
    if (!tok->chat) return KG_ERR_MEMORY;
    for (size_t i = 0; i < f->n_metas; i++) {
        const struct meta *m = &f->metas[i];
        size_t n = strlen(KEY);
        if (m->type != META_STR || strncmp(m->key, KEY, n) != 0 || (m->key[n] != 0 && m->key[n] != '.')) continue;
        struct chat_source s = {.len = m->strings[0].len};
        s.name = m->key[n] ? arena_strndup(&tok->arena, m->key + n + 1, strlen(m->key + n + 1)) : NULL;
        s.text = arena_strndup(&tok->arena, m->strings[0].ptr, s.len);
        if (!s.text || (m->key[n] && !s.name)) return KG_ERR_MEMORY;
        tok->chat[tok->n_chat++] = s;
    }
    return KG_OK;
}

const char *kg_chat_template_name(const kg_tokenizer *tok, size_t i)
{
    for (size_t k = 0; tok && k < tok->n_chat; k++)
        if (tok->chat[k].name && i-- == 0) return tok->chat[k].name;
    return NULL;
}

kg_status kg_chat_template_open(kg_chat_template **out, const kg_tokenizer *tok, const char *name)
{
    if (!out || !tok) return status_set(KG_ERR_ARGUMENT, "kg_chat_template_open: NULL argument");
    *out = NULL;
    for (size_t i = 0; i < tok->n_chat; i++) {
        const struct chat_source *s = &tok->chat[i];
        if (name ? !s->name || strcmp(s->name, name) != 0 : s->name != NULL) continue;
        return kg_chat_template_new(out, s->text, s->len, tok);
    }
    return KG_OK;
}

static char *token_text(const kg_tokenizer *tok, int32_t id)
{
    const char *text = id >= 0 ? kg_token_text(tok, id) : NULL;
    return strdup(text ? text : "");
}

kg_status kg_chat_template_new(kg_chat_template **out, const char *source, size_t len, const kg_tokenizer *tok)
{
    if (!out || (!source && len > 0)) return status_set(KG_ERR_ARGUMENT, "kg_chat_template_new: NULL argument");
    *out = NULL;
    if (len > MOST_SOURCE) return status_set(KG_ERR_UNSUPPORTED, "chat template: longer than %d MiB", MOST_SOURCE >> 20);
    kg_chat_template *t = calloc(1, sizeof *t);
    kg_status status = KG_ERR_MEMORY;
    if (t) {
        t->source = malloc(len + 1);
        t->bos = token_text(tok, kg_tokenizer_bos(tok));
        t->eos = token_text(tok, kg_tokenizer_eos(tok));
    }
    if (!t || !t->source || !t->bos || !t->eos) {
        status_set(KG_ERR_MEMORY, "out of memory for a chat template");
        goto fail;
    }
    if (len) memcpy(t->source, source, len);
    t->source[len] = 0;
    status = jinja_parse(&t->jinja, source, len, NULL);
    if (status != KG_OK) {
        status_prefix(status, "chat template");
        goto fail;
    }
    *out = t;
    return KG_OK;
fail:
    kg_chat_template_free(&t);
    return status;
}

void kg_chat_template_free(kg_chat_template **t)
{
    if (!t || !*t) return;
    jinja_free(&(*t)->jinja);
    free((*t)->source);
    free((*t)->bos);
    free((*t)->eos);
    free(*t);
    *t = NULL;
}

const char *kg_chat_template_source(const kg_chat_template *t) { return t ? t->source : NULL; }

/* ---- variables ---- */

static kg_status set_text(struct jmem *m, struct jdict *d, const char *key, const char *text)
{
    struct jval v = jval_none();
    if (text) {
        size_t n = strlen(text);
        if (utf8_valid_prefix((const uint8_t *)text, n) != n) return status_set(KG_ERR_ARGUMENT, "%s is not UTF-8", key);
        KG_TRY(jval_str(m, text, n, &v));
    }
    return jdict_set_text(m, d, key, v);
}

static kg_status build_message(struct jmem *m, const kg_chat_message *msg, struct jval *out)
{
    struct jdict *d;
    KG_TRY(jdict_new(m, &d));
    if (!msg->role) return status_set(KG_ERR_ARGUMENT, "it has no role");
    KG_TRY(set_text(m, d, "role", msg->role));
    KG_TRY(set_text(m, d, "content", msg->content));
    if (msg->reasoning) KG_TRY(set_text(m, d, "reasoning_content", msg->reasoning));
    if (msg->tool_calls) {
        struct jval calls;
        KG_TRY(jinja_from_json(m, msg->tool_calls, "tool calls", &calls));
        KG_TRY(jdict_set_text(m, d, "tool_calls", calls));
    }
    if (msg->tool_call_id) KG_TRY(set_text(m, d, "tool_call_id", msg->tool_call_id));
    if (msg->name) KG_TRY(set_text(m, d, "name", msg->name));
    *out = jval_dict(d);
    return KG_OK;
}

static kg_status build_messages(struct jmem *m, const kg_chat_params *p, struct jval *out)
{
    struct jseq *s;
    KG_TRY(jseq_new(m, SEQ_LIST, p->n_messages, &s));
    for (size_t i = 0; i < p->n_messages; i++) {
        struct jval v;
        kg_status status = build_message(m, &p->messages[i], &v);
        if (status != KG_OK) return status_prefix(status, "message %zu", i);
        KG_TRY(jseq_push(m, s, v));
    }
    *out = jval_seq(s);
    return KG_OK;
}

/* From JSON if there is any; else none, unless the further variables have it. */
static kg_status set_json(struct jmem *m, struct jdict *d, const char *key, const char *json)
{
    struct jval v = jval_none();
    if (!json && jdict_find_str(d, key, strlen(key))) return KG_OK;
    if (json) KG_TRY(jinja_from_json(m, json, key, &v));
    return jdict_set_text(m, d, key, v);
}

static kg_status build_variables(struct jinja_render *r, const kg_chat_template *t, const kg_chat_params *p)
{
    struct jmem *m = &r->mem;
    struct jval v;
    KG_TRY(set_text(m, r->variables, "bos_token", t->bos));
    KG_TRY(set_text(m, r->variables, "eos_token", t->eos));
    KG_TRY(jdict_set_text(m, r->variables, "add_generation_prompt", jval_bool(p->add_generation_prompt)));
    if (p->variables_json) {
        KG_TRY(jinja_from_json(m, p->variables_json, "variables", &v));
        if (v.type != J_DICT) return status_set(KG_ERR_ARGUMENT, "variables: not a JSON object");
        for (size_t i = 0; i < v.u.dict->n; i++) KG_TRY(jdict_set(m, r->variables, v.u.dict->pairs[i].key, v.u.dict->pairs[i].value));
    }
    KG_TRY(set_json(m, r->variables, "tools", p->tools_json));
    KG_TRY(set_json(m, r->variables, "documents", p->documents_json));
    if (p->messages_json) {
        KG_TRY(jinja_from_json(m, p->messages_json, "messages", &v));
    } else {
        if (!p->messages && jdict_find_str(r->variables, "messages", 8)) return KG_OK;
        KG_TRY(build_messages(m, p, &v));
    }
    if (v.type != J_SEQ) return status_set(KG_ERR_ARGUMENT, "messages: not a JSON array");
    return jdict_set_text(m, r->variables, "messages", v);
}

kg_status kg_chat_render(const kg_chat_template *t, const kg_chat_params *params, char **text, size_t *len)
{
    if (text) *text = NULL;
    if (len) *len = 0;
    if (!t || !params || !text || (!params->messages && params->n_messages > 0)) return status_set(KG_ERR_ARGUMENT, "kg_chat_render: NULL argument");
    struct jinja_render r;
    kg_status status = jinja_render_start(&r, NULL);
    if (status == KG_OK) status = build_variables(&r, t, params);
    if (status == KG_OK) {
        r.now = params->now;
        r.now_set = params->now != 0;
        r.mem.steps = 0; /* its limit is for the template */
        status = jinja_render(&r, t->jinja);
        if (status != KG_OK) status_prefix(status, "chat template");
    }
    if (status == KG_OK) status = buf_append(&r.out, "", 0); /* at least a NUL */
    if (status == KG_OK) {
        *text = r.out.data;
        if (len) *len = r.out.len;
        r.out = (struct buf){0};
    }
    jinja_render_free(&r);
    return status;
}
