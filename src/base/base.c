/* Status messages, arena and byte buffer. */
#include "base/base.h"

#include <stdio.h>
#include <stdlib.h>

static _Thread_local char message[512];

const char *kg_error_message(void) { return message; }
const char *kg_version(void) { return KG_VERSION; }
void kg_free(void *p) { free(p); }

/* File bytes may end up in messages: keep one printable line. */
static void make_one_line(char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f) *s = '?';
}

kg_status status_set(kg_status code, const char *fmt, ...)
{
    char text[sizeof message]; /* an argument may be the old message */
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    make_one_line(text);
    memcpy(message, text, sizeof message);
    return code;
}

kg_status status_prefix(kg_status code, const char *fmt, ...)
{
    char prefix[256], old[sizeof message];
    va_list args;
    va_start(args, fmt);
    vsnprintf(prefix, sizeof prefix, fmt, args);
    va_end(args);
    make_one_line(prefix);
    memcpy(old, message, sizeof old);
    int n = snprintf(message, sizeof message, "%s: ", prefix);
    size_t room = sizeof message - 1 - (size_t)n, len = strnlen(old, room);
    memcpy(message + n, old, len);
    message[(size_t)n + len] = 0;
    return code;
}

/* ---- arena ---- */

#define ALIGN 64
#define CHUNK_BYTES ((size_t)64 << 10)

struct arena_chunk {
    struct arena_chunk *next;
    size_t used, cap; /* of the bytes behind this header */
};
#define HEADER ROUND_UP(sizeof(struct arena_chunk), ALIGN)

void *arena_alloc(struct arena *a, size_t n_bytes)
{
    if (n_bytes > SIZE_MAX / 2) goto fail;
    n_bytes = ROUND_UP(MAX(n_bytes, (size_t)1), ALIGN);
    struct arena_chunk *c = a->chunks;
    if (!c || c->cap - c->used < n_bytes) {
        size_t cap = MAX(n_bytes, CHUNK_BYTES);
        struct arena_chunk *fresh = aligned_alloc(ALIGN, HEADER + cap);
        if (!fresh) goto fail;
        *fresh = (struct arena_chunk){.cap = cap};
        memset((char *)fresh + HEADER, 0, cap);
        if (c && cap > CHUNK_BYTES) { /* a large one goes behind, so that the current chunk stays in use */
            fresh->next = c->next;
            c->next = fresh;
        } else {
            fresh->next = c;
            a->chunks = fresh;
        }
        c = fresh;
    }
    void *p = (char *)c + HEADER + c->used;
    c->used += n_bytes;
    a->n_bytes += n_bytes;
    return p;
fail:
    status_set(KG_ERR_MEMORY, "out of memory (%zu bytes)", n_bytes);
    return NULL;
}

void *arena_array(struct arena *a, size_t n, size_t item_bytes)
{
    size_t total;
    if (__builtin_mul_overflow(n, item_bytes, &total)) total = SIZE_MAX;
    return arena_alloc(a, total);
}

char *arena_strndup(struct arena *a, const char *s, size_t n)
{
    char *p = arena_alloc(a, n + 1);
    if (p) memcpy(p, s, n);
    return p;
}

void arena_free(struct arena *a)
{
    for (struct arena_chunk *c = a->chunks, *next; c; c = next) {
        next = c->next;
        free(c);
    }
    *a = (struct arena){0};
}

/* ---- buffer ---- */

static kg_status buf_reserve(struct buf *b, size_t more)
{
    if (b->cap - b->len >= more) return KG_OK;
    if (more > SIZE_MAX / 4 || b->len > SIZE_MAX / 4) return status_set(KG_ERR_MEMORY, "out of memory");
    size_t cap = MAX(MAX(b->cap * 2, b->len + more), (size_t)64);
    char *p = realloc(b->data, cap);
    if (!p) return status_set(KG_ERR_MEMORY, "out of memory (%zu bytes)", cap);
    b->data = p;
    b->cap = cap;
    return KG_OK;
}

kg_status buf_append(struct buf *b, const void *data, size_t n)
{
    KG_TRY(buf_reserve(b, n + 1)); /* room for a NUL that the owner may want */
    if (n) memcpy(b->data + b->len, data, n);
    b->len += n;
    b->data[b->len] = 0;
    return KG_OK;
}

kg_status buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    kg_status st = n < 0 ? status_set(KG_ERR_ARGUMENT, "cannot format text") : buf_reserve(b, (size_t)n + 1);
    if (st == KG_OK) {
        vsnprintf(b->data + b->len, (size_t)n + 1, fmt, again);
        b->len += (size_t)n;
    }
    va_end(again);
    return st;
}

void buf_free(struct buf *b)
{
    free(b->data);
    *b = (struct buf){0};
}
