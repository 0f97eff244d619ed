/* Writes GGUF files for tests, good ones and broken ones: nothing is checked here. Header only.
 *
 *   struct gw w = {0};                          version 3, alignment 32
 *   gw_u32(&w, "llama.block_count", 2);         keys in order
 *   gw_tensor(&w, "t", 0, 2, (int64_t[]){8, 4}, NULL, 128);   NULL: zeros
 *   size_t n; uint8_t *bytes = gw_finish(&w, &n);             malloc'ed; or gw_save(&w, path)
 *
 * Both ends release w and make it ready for the next file. */
#ifndef TESTS_GGUF_WRITER_H
#define TESTS_GGUF_WRITER_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Value types, as the format numbers them. */
enum gw_type { GW_U8, GW_I8, GW_U16, GW_I16, GW_U32, GW_I32, GW_F32, GW_BOOL, GW_STR, GW_ARR, GW_U64, GW_I64, GW_F64 };

struct gw_bytes {
    uint8_t *p;
    size_t n, cap;
};

struct gw {
    struct gw_bytes metas, infos, data;
    uint64_t n_metas, n_tensors;
    uint32_t version;   /* 0: 3 */
    uint32_t alignment; /* 0: 32. Writes no key: gw_u32(&w, "general.alignment", ...) does */
};

static inline void gw_put(struct gw_bytes *b, const void *p, size_t n)
{
    if (b->cap - b->n < n) {
        b->cap = 2 * b->cap + n + 256;
        b->p = realloc(b->p, b->cap);
        assert(b->p);
    }
    if (n > 0 && p) memcpy(b->p + b->n, p, n);
    if (n > 0 && !p) memset(b->p + b->n, 0, n);
    b->n += n;
}
static inline void gw_put_u32(struct gw_bytes *b, uint32_t v) { gw_put(b, &v, 4); }
static inline void gw_put_u64(struct gw_bytes *b, uint64_t v) { gw_put(b, &v, 8); }
static inline void gw_put_str(struct gw_bytes *b, const char *s, size_t n)
{
    gw_put_u64(b, n);
    gw_put(b, s, n);
}

/* A key and its type; the caller puts the value into w->metas. */
static inline void gw_key(struct gw *w, const char *key, uint32_t type)
{
    gw_put_str(&w->metas, key, strlen(key));
    gw_put_u32(&w->metas, type);
    w->n_metas++;
}
static inline void gw_raw(struct gw *w, const char *key, uint32_t type, const void *value, size_t n_bytes)
{
    gw_key(w, key, type);
    gw_put(&w->metas, value, n_bytes);
}
static inline void gw_u8(struct gw *w, const char *key, uint8_t v) { gw_raw(w, key, GW_U8, &v, 1); }
static inline void gw_i8(struct gw *w, const char *key, int8_t v) { gw_raw(w, key, GW_I8, &v, 1); }
static inline void gw_u16(struct gw *w, const char *key, uint16_t v) { gw_raw(w, key, GW_U16, &v, 2); }
static inline void gw_i16(struct gw *w, const char *key, int16_t v) { gw_raw(w, key, GW_I16, &v, 2); }
static inline void gw_u32(struct gw *w, const char *key, uint32_t v) { gw_raw(w, key, GW_U32, &v, 4); }
static inline void gw_i32(struct gw *w, const char *key, int32_t v) { gw_raw(w, key, GW_I32, &v, 4); }
static inline void gw_u64(struct gw *w, const char *key, uint64_t v) { gw_raw(w, key, GW_U64, &v, 8); }
static inline void gw_i64(struct gw *w, const char *key, int64_t v) { gw_raw(w, key, GW_I64, &v, 8); }
static inline void gw_f32(struct gw *w, const char *key, float v) { gw_raw(w, key, GW_F32, &v, 4); }
static inline void gw_f64(struct gw *w, const char *key, double v) { gw_raw(w, key, GW_F64, &v, 8); }
static inline void gw_bool(struct gw *w, const char *key, bool v) { gw_raw(w, key, GW_BOOL, &(uint8_t){v}, 1); }
static inline void gw_str(struct gw *w, const char *key, const char *v)
{
    gw_key(w, key, GW_STR);
    gw_put_str(&w->metas, v, strlen(v));
}
/* Type and count of an array; the items are the caller's to put. */
static inline void gw_arr_head(struct gw *w, const char *key, uint32_t item, uint64_t n)
{
    gw_key(w, key, GW_ARR);
    gw_put_u32(&w->metas, item);
    gw_put_u64(&w->metas, n);
}
/* n numbers of item_bytes each */
static inline void gw_arr(struct gw *w, const char *key, uint32_t item, const void *values, size_t n, size_t item_bytes)
{
    gw_arr_head(w, key, item, n);
    gw_put(&w->metas, values, n * item_bytes);
}
static inline void gw_arr_i32(struct gw *w, const char *key, const int32_t *v, size_t n) { gw_arr(w, key, GW_I32, v, n, 4); }
static inline void gw_arr_f32(struct gw *w, const char *key, const float *v, size_t n) { gw_arr(w, key, GW_F32, v, n, 4); }
static inline void gw_arr_str(struct gw *w, const char *key, const char *const *v, size_t n)
{
    gw_arr_head(w, key, GW_STR, n);
    for (size_t i = 0; i < n; i++) gw_put_str(&w->metas, v[i], strlen(v[i]));
}

static inline uint32_t gw_alignment(const struct gw *w) { return w->alignment ? w->alignment : 32; }

/* The entry alone; ne[n_dims]. */
static inline void gw_tensor_info(struct gw *w, const char *name, uint32_t type, uint32_t n_dims, const int64_t *ne, uint64_t offset)
{
    gw_put_str(&w->infos, name, strlen(name));
    gw_put_u32(&w->infos, n_dims);
    gw_put(&w->infos, ne, n_dims * sizeof *ne);
    gw_put_u32(&w->infos, type);
    gw_put_u64(&w->infos, offset);
    w->n_tensors++;
}
/* Entry and n_bytes of data at the next aligned offset; type: GGUF id; data NULL: zeros. */
static inline void gw_tensor(struct gw *w, const char *name, uint32_t type, uint32_t n_dims, const int64_t *ne, const void *data,
                             size_t n_bytes)
{
    size_t a = gw_alignment(w);
    gw_put(&w->data, NULL, (a - w->data.n % a) % a);
    gw_tensor_info(w, name, type, n_dims, ne, w->data.n);
    gw_put(&w->data, data, n_bytes);
}

/* The whole file, malloc'ed. */
static inline uint8_t *gw_finish(struct gw *w, size_t *n)
{
    struct gw_bytes out = {0};
    size_t a = gw_alignment(w);
    gw_put(&out, "GGUF", 4);
    gw_put_u32(&out, w->version ? w->version : 3);
    gw_put_u64(&out, w->n_tensors);
    gw_put_u64(&out, w->n_metas);
    gw_put(&out, w->metas.p, w->metas.n);
    gw_put(&out, w->infos.p, w->infos.n);
    if (w->data.n > 0) gw_put(&out, NULL, (a - out.n % a) % a);
    gw_put(&out, w->data.p, w->data.n);
    free(w->metas.p);
    free(w->infos.p);
    free(w->data.p);
    *w = (struct gw){0};
    *n = out.n;
    return out.p;
}

static inline bool gw_save(struct gw *w, const char *path)
{
    size_t n;
    uint8_t *bytes = gw_finish(w, &n);
    FILE *f = fopen(path, "wb");
    bool ok = f && fwrite(bytes, 1, n, f) == n;
    if (f && fclose(f) != 0) ok = false;
    free(bytes);
    return ok;
}

#endif
