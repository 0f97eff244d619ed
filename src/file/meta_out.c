/* Metadata as bytes of GGUF. */
#include "file/meta_out.h"

void meta_out_bytes(struct meta_out *o, const void *p, size_t n)
{
    if (o->status == KG_OK && n > 0) o->status = buf_append(&o->bytes, p, n);
}

void meta_out_item(struct meta_out *o, const char *s, size_t n)
{
    meta_out_bytes(o, &(uint64_t){n}, 8);
    meta_out_bytes(o, s, n);
}

static void head(struct meta_out *o, const char *key, enum meta_type type)
{
    meta_out_item(o, key, strlen(key));
    meta_out_bytes(o, &(uint32_t){type}, 4);
    o->n++;
}

void meta_out_u32(struct meta_out *o, const char *key, uint32_t v)
{
    head(o, key, META_U32);
    meta_out_bytes(o, &v, 4);
}

void meta_out_f32(struct meta_out *o, const char *key, float v)
{
    head(o, key, META_F32);
    meta_out_bytes(o, &v, 4);
}

void meta_out_bool(struct meta_out *o, const char *key, bool v)
{
    head(o, key, META_BOOL);
    meta_out_bytes(o, &(uint8_t){v}, 1);
}

void meta_out_str(struct meta_out *o, const char *key, const char *s, size_t n)
{
    head(o, key, META_STR);
    meta_out_item(o, s, n);
}

void meta_out_array(struct meta_out *o, const char *key, enum meta_type item, uint64_t n)
{
    head(o, key, META_ARR);
    meta_out_bytes(o, &(uint32_t){item}, 4);
    meta_out_bytes(o, &n, 8);
}

void meta_out_free(struct meta_out *o) { buf_free(&o->bytes); }
