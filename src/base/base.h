/* What every layer uses: status and message, arena, bit casts. Knows nothing of models. */
#ifndef BASE_BASE_H
#define BASE_BASE_H

#include "kagari.h"

#include <stdarg.h>
#include <string.h>

/* Stores the message of this thread (one line, cut at 511 bytes) and returns `code`. */
kg_status status_set(kg_status code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Puts "prefix: " before the message of this thread, e.g. the file name; returns `code` as given. */
kg_status status_prefix(kg_status code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Returns from the calling function with the status unless it is KG_OK. */
#define KG_TRY(expr)                          \
    do {                                      \
        kg_status try_status_ = (expr);       \
        if (try_status_ != KG_OK) return try_status_; \
    } while (0)

/* An arena frees all of its memory at once. Zero-initialised is ready to use. Memory comes zeroed, aligned to 64 bytes;
 * NULL (and the message set) when the system has none. */
struct arena {
    struct arena_chunk *chunks;
    size_t n_bytes; /* handed out so far */
};
void *arena_alloc(struct arena *a, size_t n_bytes);
void *arena_array(struct arena *a, size_t n, size_t item_bytes); /* checks the product for overflow */
char *arena_strndup(struct arena *a, const char *s, size_t n);
void arena_free(struct arena *a);

/* Growable array of bytes; zero-initialised is ready to use. */
struct buf {
    char *data;
    size_t len, cap;
};
kg_status buf_append(struct buf *b, const void *data, size_t n);
kg_status buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_free(struct buf *b);

#define COUNT_OF(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define ROUND_UP(x, to) (((x) + (to) - 1) / (to) * (to))

static inline uint32_t load_u32(const void *p) { uint32_t v; memcpy(&v, p, 4); return v; }
static inline uint16_t load_u16(const void *p) { uint16_t v; memcpy(&v, p, 2); return v; }
static inline uint64_t load_u64(const void *p) { uint64_t v; memcpy(&v, p, 8); return v; }
static inline float f32_from_bits(uint32_t u) { float f; memcpy(&f, &u, 4); return f; }
static inline uint32_t f32_bits(float f) { uint32_t u; memcpy(&u, &f, 4); return u; }

#endif
