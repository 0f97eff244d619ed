/* Reader of GGUF versions 2 and 3, little-endian: header, metadata, tensor list, from the format's specification.
 * Owns every check of the bytes: afterwards all strings, arrays and tensors lie inside the file. One pass; every count is compared with the
 * bytes left before anything is allocated for it, so memory and time stay proportional to the file's size.
 * Finding things by name is file.c's. */
#include "file/reader.h"

#include <inttypes.h>
#include <stdlib.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "values and tensors are used as they lie in the file");

enum {
    HEADER_BYTES = 24,      /* magic, version, u64 n_tensors, u64 n_metas */
    MIN_META_BYTES = 14,    /* u64 length, 1 byte of key, u32 type, 1 byte of value */
    MIN_TENSOR_BYTES = 25,  /* u64 length, 1 byte of name, u32 n_dims, u32 type, u64 offset */
    MAX_NAME_BYTES = 65535, /* the format's limit for keys */
    DEFAULT_ALIGNMENT = 32,
    MIN_ALIGNMENT = 8,
    MAX_ALIGNMENT = 1 << 20,
    POOL_BYTES = 4096,
};

struct reader {
    struct file *file;
    struct cursor in; /* what is not yet read */
    uint32_t alignment;
    uint8_t *pool; /* of the arena, for names and single strings */
    size_t pool_left;
};

/* Where a tensor's bytes lie, from the start of the data. */
struct span {
    uint64_t offset, end;
    const struct tensor *tensor;
};

static kg_status past_end(const char *what) { return status_set(KG_ERR_FORMAT, "%s reaches past the end of the file", what); }

/* Small pieces share a block, so that the arena's padding does not multiply them. n_bytes is limited by the file's size. */
static void *pool_take(struct reader *r, size_t n_bytes, size_t align)
{
    if (n_bytes > POOL_BYTES / 4) return arena_alloc(&r->file->arena, n_bytes);
    size_t pad = (size_t)(-(uintptr_t)r->pool & (align - 1));
    if (pad + n_bytes > r->pool_left) {
        r->pool_left = 0;
        r->pool = arena_alloc(&r->file->arena, POOL_BYTES);
        if (!r->pool) return NULL;
        r->pool_left = POOL_BYTES;
        pad = 0;
    }
    void *p = r->pool + pad;
    r->pool += pad + n_bytes;
    r->pool_left -= pad + n_bytes;
    return p;
}

static bool is_utf8(struct str s)
{
    for (size_t i = 0; i < s.len;) {
        uint32_t c;
        i += file_utf8_next((const uint8_t *)s.ptr + i, s.len - i, &c);
        if (c == FILE_NOT_UTF8) return false;
    }
    return true;
}

/* A key or tensor name, copied with a NUL. Control characters are refused: names are printed on terminals and in messages. */
static kg_status read_name(struct reader *r, const char **out)
{
    struct str s;
    if (!cursor_str(&r->in, &s)) return past_end("the name");
    if (s.len == 0) return status_set(KG_ERR_FORMAT, "the name is empty");
    if (s.len > MAX_NAME_BYTES) return status_set(KG_ERR_FORMAT, "the name has %zu bytes, more than %d", s.len, MAX_NAME_BYTES);
    for (size_t i = 0; i < s.len;) {
        uint32_t c;
        i += file_utf8_next((const uint8_t *)s.ptr + i, s.len - i, &c);
        if (c == FILE_NOT_UTF8) return status_set(KG_ERR_FORMAT, "the name is not valid UTF-8");
        if (c < 0x20 || (c >= 0x7f && c < 0xa0))
            return status_set(KG_ERR_FORMAT, "the name contains the control character U+%04" PRIX32, c);
    }
    char *copy = pool_take(r, s.len + 1, 1);
    if (!copy) return KG_ERR_MEMORY;
    memcpy(copy, s.ptr, s.len);
    copy[s.len] = 0;
    *out = copy;
    return KG_OK;
}

/* n values of one type that is no array. strings NULL: they are only checked. */
static kg_status read_items(struct reader *r, enum meta_type type, uint64_t n, bool any_byte, const struct str **strings)
{
    size_t size = type == META_STR ? 8 : meta_type_bytes(type), left = cursor_left(&r->in);
    if (n > left / size) return status_set(KG_ERR_FORMAT, "%" PRIu64 " x %s reaches past the end of the file", n, meta_type_name(type));
    if (type != META_STR) {
        const uint8_t *p = r->in.p;
        for (uint64_t i = 0; type == META_BOOL && i < n; i++)
            if (p[i] > 1) return status_set(KG_ERR_FORMAT, "a bool is neither 0 nor 1 but %u", p[i]);
        r->in.p += n * size;
        return KG_OK;
    }
    struct str *list = NULL;
    if (strings) {
        list = pool_take(r, ((size_t)n + (n == 0)) * sizeof *list, _Alignof(struct str));
        if (!list) return KG_ERR_MEMORY;
        *strings = list;
    }
    for (uint64_t i = 0; i < n; i++) {
        struct str s;
        if (!cursor_str(&r->in, &s))
            return n == 1 ? past_end("the string") : status_set(KG_ERR_FORMAT, "string %" PRIu64 " reaches past the end of the file", i);
        if (!any_byte && !is_utf8(s)) return status_set(KG_ERR_FORMAT, "a string is not valid UTF-8");
        if (list) list[i] = s;
    }
    return KG_OK;
}

static kg_status read_array_head(struct reader *r, enum meta_type *item, uint64_t *n)
{
    uint32_t type;
    if (!cursor_u32(&r->in, &type) || !cursor_u64(&r->in, n)) return past_end("the array");
    if (type >= META_N_TYPES) return status_set(KG_ERR_FORMAT, "unknown type %" PRIu32 " of array items", type);
    *item = (enum meta_type)type;
    if (*item == META_ARR && *n > cursor_left(&r->in) / 12) return past_end("the array of arrays");
    return KG_OK;
}

/* The n arrays inside an array, checked without recursion. */
static kg_status read_nested(struct reader *r, uint64_t n, bool any_byte)
{
    uint64_t todo[FILE_MAX_ARRAY_DEPTH] = {n}; /* arrays still to read at each depth */
    int depth = 1;
    while (depth > 0) {
        if (todo[depth - 1] == 0) {
            depth--;
            continue;
        }
        todo[depth - 1]--;
        enum meta_type item = META_U8;
        uint64_t n_items = 0;
        KG_TRY(read_array_head(r, &item, &n_items));
        if (item != META_ARR) {
            KG_TRY(read_items(r, item, n_items, any_byte, NULL));
        } else if (depth + 1 == FILE_MAX_ARRAY_DEPTH) {
            return status_set(KG_ERR_UNSUPPORTED, "arrays are nested more than %d deep", FILE_MAX_ARRAY_DEPTH);
        } else {
            todo[depth++] = n_items;
        }
    }
    return KG_OK;
}

static kg_status read_value(struct reader *r, struct meta *m)
{
    uint32_t type;
    if (!cursor_u32(&r->in, &type)) return past_end("the type");
    if (type >= META_N_TYPES) return status_set(KG_ERR_FORMAT, "unknown value type %" PRIu32, type);
    m->type = m->item = (enum meta_type)type;
    m->n = 1;
    bool any_byte = false; /* vocabularies hold pieces of characters */
    if (m->type == META_ARR) {
        KG_TRY(read_array_head(r, &m->item, &m->n));
        any_byte = strncmp(m->key, "tokenizer.", 10) == 0;
    }
    m->data = r->in.p;
    kg_status st = m->item == META_ARR ? read_nested(r, m->n, any_byte) : read_items(r, m->item, m->n, any_byte, &m->strings);
    m->n_bytes = (size_t)(r->in.p - m->data);
    return st;
}

static kg_status check_alignment(struct reader *r, const struct meta *m)
{
    if (m->type != META_U32) return status_set(KG_ERR_FORMAT, "must be of type u32, is %s", meta_type_name(m->type));
    uint32_t a = load_u32(m->data);
    if (a < MIN_ALIGNMENT || a > MAX_ALIGNMENT || (a & (a - 1)) != 0)
        return status_set(KG_ERR_FORMAT, "%" PRIu32 " is not a power of two between %d and %d", a, MIN_ALIGNMENT, MAX_ALIGNMENT);
    r->alignment = a;
    return KG_OK;
}

static kg_status read_metas(struct reader *r, uint64_t n)
{
    struct file *f = r->file;
    f->metas = arena_array(&f->arena, n, sizeof *f->metas);
    if (n > 0 && !f->metas) return KG_ERR_MEMORY;
    for (uint64_t i = 0; i < n; i++) {
        struct meta *m = &f->metas[i];
        kg_status st = read_name(r, &m->key);
        if (st != KG_OK) return status_prefix(st, "key %" PRIu64 " of %" PRIu64, i + 1, n);
        st = read_value(r, m);
        if (st == KG_OK && strcmp(m->key, "general.alignment") == 0) st = check_alignment(r, m);
        if (st != KG_OK) return status_prefix(st, "key '%.*s'", file_shown(m->key), m->key);
        f->n_metas = i + 1;
    }
    return KG_OK;
}

/* Type and shape of a tensor -> its bytes, which fit the file: so no later product of its dimensions overflows. */
static kg_status size_tensor(struct tensor *t, uint32_t type, uint64_t file_bytes)
{
    const struct type_info *info = type_by_id(type);
    if (!info && type_removed_name(type))
        return status_set(KG_ERR_UNSUPPORTED, "type %s (id %" PRIu32 ") was removed from the format: convert the model again",
                          type_removed_name(type), type);
    if (!info) return status_set(KG_ERR_UNSUPPORTED, "unknown tensor type %" PRIu32, type);
    t->type = info->type;
    if (t->ne[0] % info->block != 0)
        return status_set(KG_ERR_FORMAT, "rows of %" PRId64 " elements are no multiple of the %d elements in a block of %s", t->ne[0],
                          info->block, info->name);
    uint64_t n_bytes = (uint64_t)info->block_bytes;
    for (int d = 0; d < 4; d++) {
        uint64_t n = (uint64_t)(d == 0 ? t->ne[0] / info->block : t->ne[d]);
        if (n > file_bytes / n_bytes)
            return status_set(KG_ERR_FORMAT,
                              "%" PRId64 " x %" PRId64 " x %" PRId64 " x %" PRId64 " elements of %s are more than the file holds (%" PRIu64
                              " bytes): it may be incomplete",
                              t->ne[0], t->ne[1], t->ne[2], t->ne[3], info->name, file_bytes);
        n_bytes *= n;
    }
    t->n_bytes = (size_t)n_bytes;
    return KG_OK;
}

/* All but the name. */
static kg_status read_tensor(struct reader *r, struct tensor *t, struct span *span)
{
    uint32_t n_dims, type;
    if (!cursor_u32(&r->in, &n_dims)) return past_end("the number of dimensions");
    if (n_dims > 4) return status_set(KG_ERR_FORMAT, "%" PRIu32 " dimensions, more than 4", n_dims);
    for (uint32_t d = 0; d < 4; d++) {
        uint64_t ne = 1;
        if (d < n_dims && !cursor_u64(&r->in, &ne)) return past_end("the shape");
        if (ne == 0 || ne > INT64_MAX) return status_set(KG_ERR_FORMAT, "dimension %" PRIu32 " is %" PRId64, d, (int64_t)ne);
        t->ne[d] = (int64_t)ne;
    }
    t->n_dims = (int)MAX(n_dims, 1u); /* a scalar is a vector of one element */
    if (!cursor_u32(&r->in, &type) || !cursor_u64(&r->in, &span->offset)) return past_end("the entry");
    KG_TRY(size_tensor(t, type, r->file->map.n_bytes));
    if (span->offset % r->alignment != 0)
        return status_set(KG_ERR_FORMAT, "offset %" PRIu64 " is no multiple of the alignment %" PRIu32, span->offset, r->alignment);
    if (span->offset > UINT64_MAX - t->n_bytes) return past_end("the data");
    span->end = span->offset + t->n_bytes;
    span->tensor = t;
    return KG_OK;
}

static int by_offset(const void *a, const void *b)
{
    const struct span *x = a, *y = b;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

static kg_status read_tensors(struct reader *r, uint64_t n)
{
    struct file *f = r->file;
    f->tensors = arena_array(&f->arena, n, sizeof *f->tensors);
    struct span *spans = arena_array(&f->arena, n, sizeof *spans);
    if (n > 0 && (!f->tensors || !spans)) return KG_ERR_MEMORY;
    for (uint64_t i = 0; i < n; i++) {
        struct tensor *t = &f->tensors[i];
        kg_status st = read_name(r, &t->name);
        if (st != KG_OK) return status_prefix(st, "tensor %" PRIu64 " of %" PRIu64, i + 1, n);
        st = read_tensor(r, t, &spans[i]);
        if (st != KG_OK) return status_prefix(st, "tensor '%.*s'", file_shown(t->name), t->name);
        f->n_tensors = i + 1;
    }

    const uint64_t file_bytes = f->map.n_bytes;
    f->data_offset = ROUND_UP((uint64_t)(r->in.p - f->map.data), r->alignment);
    uint64_t data_bytes = file_bytes > f->data_offset ? file_bytes - f->data_offset : 0;
    for (uint64_t i = 0; i < n; i++) {
        struct tensor *t = &f->tensors[i];
        if (spans[i].end > data_bytes)
            return status_set(KG_ERR_FORMAT,
                              "tensor '%.*s': %zu bytes at offset %" PRIu64 " of the data reach past the end of the file (%" PRIu64
                              " bytes): it may be incomplete",
                              file_shown(t->name), t->name, t->n_bytes, spans[i].offset, file_bytes);
        t->data = f->map.data + f->data_offset + spans[i].offset;
    }
    if (n > 1) qsort(spans, n, sizeof *spans, by_offset);
    for (uint64_t i = 1; i < n; i++) {
        const char *a = spans[i - 1].tensor->name, *b = spans[i].tensor->name;
        if (spans[i].offset < spans[i - 1].end)
            return status_set(KG_ERR_FORMAT, "tensor '%.*s': its data overlaps that of tensor '%.*s'", file_shown(b), b, file_shown(a), a);
    }
    return KG_OK;
}

bool gguf_recognise(const struct file *f) { return f->map.n_bytes >= 4 && memcmp(f->map.data, "GGUF", 4) == 0; }

static kg_status check_version(struct file *f, uint32_t version)
{
    if (version == 1) return status_set(KG_ERR_UNSUPPORTED, "GGUF version 1 (August 2023) is not supported: convert the model again");
    if (version != 0 && (version & 0xffff) == 0)
        return status_set(KG_ERR_UNSUPPORTED, "a big-endian GGUF file is not supported: convert it to little-endian");
    if (version != 2 && version != 3)
        return status_set(KG_ERR_UNSUPPORTED, "GGUF version %" PRIu32 " is not supported (2 and 3 are)", version);
    f->format = version == 2 ? "GGUF v2" : "GGUF v3";
    return KG_OK;
}

kg_status gguf_read_metas(struct file *f, const uint8_t *p, size_t n_bytes, uint64_t n)
{
    struct reader r = {.file = f, .in = {p, p + n_bytes}, .alignment = DEFAULT_ALIGNMENT};
    f->metas_end = p + n_bytes;
    return read_metas(&r, n);
}

kg_status gguf_read(struct file *f)
{
    const size_t n_bytes = f->map.n_bytes;
    const uint8_t *p = f->map.data;
    if (n_bytes >= 8) KG_TRY(check_version(f, load_u32(p + 4)));
    if (n_bytes < HEADER_BYTES)
        return status_set(KG_ERR_FORMAT, "cut off: a GGUF header has %d bytes, the file %zu", HEADER_BYTES, n_bytes);
    uint64_t n_tensors = load_u64(p + 8), n_metas = load_u64(p + 16);
    uint64_t left = n_bytes - HEADER_BYTES;
    if (n_metas > left / MIN_META_BYTES)
        return status_set(KG_ERR_FORMAT, "%" PRIu64 " keys do not fit the file (%zu bytes)", n_metas, n_bytes);
    if (n_tensors > (left - n_metas * MIN_META_BYTES) / MIN_TENSOR_BYTES)
        return status_set(KG_ERR_FORMAT, "%" PRIu64 " tensors do not fit the file (%zu bytes)", n_tensors, n_bytes);
    struct reader r = {.file = f, .in = {p + HEADER_BYTES, p + n_bytes}, .alignment = DEFAULT_ALIGNMENT};
    f->metas_end = p + n_bytes;
    KG_TRY(read_metas(&r, n_metas));
    return read_tensors(&r, n_tensors);
}
