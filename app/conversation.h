/* A conversation: its messages, and the file that keeps them. */
#ifndef APP_CONVERSATION_H
#define APP_CONVERSATION_H

#include "kagari.h"

/* Texts are malloc'ed. */
struct message {
    char *role, *content;  /* never NULL */
    char *reasoning, *tool_calls; /* NULL: none */
    char *timestamp;       /* "2026-11-27T08:15:00Z"; NULL: not known */
};
struct conversation {
    struct message *v; /* [n]: the system prompt, if there is one, is the first */
    size_t n, cap;
};

/* Takes copies of the texts; reasoning and tool_calls may be NULL. Time is now. false: no memory. */
bool conversation_add(struct conversation *c, const char *role, const char *content, const char *reasoning, const char *tool_calls);
/* Sets or (NULL or "") removes the system prompt. */
bool conversation_set_system(struct conversation *c, const char *text);
const char *conversation_system(const struct conversation *c); /* NULL: none */
void conversation_cut(struct conversation *c, size_t n);       /* keeps the first n messages */
void conversation_free(struct conversation *c);

/* JSON: {"messages": [{"role": ..., "content": ..., "timestamp": ...}]}. Both return 0 or an exit code after printing why. Load replaces *c
 * only by a whole conversation; save replaces the file only by a whole one. */
int conversation_save(const struct conversation *c, const char *path);
int conversation_load(struct conversation *c, const char *path);

#endif
