/* A conversation with a model: what REPL and full-screen mode have in common. Prints errors only; what the model says goes to a sink. */
#ifndef APP_CHAT_H
#define APP_CHAT_H

#include "conversation.h"
#include "options.h"

/* Of the last answer. */
struct chat_stats {
    size_t n_prompt, n_reused, n_computed; /* tokens of the whole prompt, and of it from the cache and computed */
    size_t n_answer;                       /* tokens */
    double to_first, generating;           /* seconds; generating: from the first token to the last */
};

struct chat {
    struct settings s;             /* as given, but for what /model and /backend change */
    char *model_name, *backend_name; /* own the texts of s that were changed; NULL: not changed */
    char **loras;                    /* [s.lora.n] the same */
    char *path;                    /* of the model */
    kg_model *model;
    kg_session *session;
    kg_chat_template *template;    /* NULL: the model has none */
    bool use_template;             /* what the user wants; acts where there is one */
    bool said_plain;
    char *tools;                   /* JSON of --tools, or NULL */
    struct conversation talk;
    size_t first;                  /* messages before it are not shown to the model any more, but for the system prompt */
    uint64_t seed;
    /* The text whose tokens the session holds, so that a longer text is tokenized from there on. */
    char *held_text;
    size_t held_len;
    int32_t *held;
    size_t n_held;
    struct chat_stats last;
    size_t total_prompt, total_computed, total_answer, n_answers;
};

/* 0 or an exit code after printing why. chat_close in either case. */
int chat_open(struct chat *c, const struct settings *s);
void chat_close(struct chat *c);
/* Another model or backend (NULL: the same); on failure everything stays as it was. */
int chat_switch(struct chat *c, const char *model, const char *backend);
/* Another strength of adapter i; the next answer is with it. */
int chat_set_lora(struct chat *c, size_t i, double strength);
/* Opens the model again with one adapter more (as --lora has it), NULL: with none; on failure everything stays as it was. */
int chat_add_lora(struct chat *c, const char *lora);
/* Forgets the messages, not the system prompt. */
void chat_clear(struct chat *c);
bool chat_has_template(const struct chat *c); /* there is one, and it is wanted */

/* Where an answer goes: pieces of its parts (whole UTF-8), and lines about it for the user. */
struct chat_sink {
    void (*text)(void *ctx, kg_part part, bool first, const char *text, size_t len);
    void (*notice)(void *ctx, const char *line);
    void (*progress)(void *ctx, size_t done, size_t total); /* of a long prompt; total 0: it is done */
    void *ctx;
};
/* The user says something; the answer becomes part of the conversation, also if it is interrupted after some text. On failure the conversation
 * is as before. */
int chat_say(struct chat *c, const char *text, const struct chat_sink *sink);
/* What /stats shows. */
void chat_print_stats(const struct chat *c, FILE *out);
/* What --stats says after each answer, without a line end. */
void chat_short_stats(const struct chat *c, char *out, size_t size);
size_t chat_context(const struct chat *c, size_t *n_ctx); /* tokens in the session, and how many there may be */

#endif
