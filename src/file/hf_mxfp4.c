/* Experts of gpt-oss folders in MXFP4 (OCP Microscaling Formats): 4-bit numbers and scales lie in two tensors of bytes. Here they become
 * one of GGUF's type, bit for bit: a block has its scale, then 16 bytes whose low nibbles are the first half of its numbers. */
#include "file/hf.h"

#include <inttypes.h>
#include <stdlib.h>

enum { HALF = 16, BLOCK_BYTES = 1 + HALF };

/* from: two numbers a byte, one after the other */
static void put_block(const uint8_t *restrict from, uint8_t scale, uint8_t *restrict to)
{
    *to++ = scale;
    for (int i = 0; i < HALF / 2; i++) {
        to[2 * i] = (uint8_t)((from[i] & 15) | (from[HALF / 2 + i] & 15) << 4);
        to[2 * i + 1] = (uint8_t)(from[i] >> 4 | (from[HALF / 2 + i] & 0xf0));
    }
}

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n > m && strcmp(s + n - m, end) == 0;
}

static int by_name(const void *a, const void *b) { return strcmp(((const struct file_name *)a)->name, ((const struct file_name *)b)->name); }

/* blocks {16, in / 32, out, experts} and scales {in / 32, out, experts} -> *t {in, out, experts} */
static kg_status join(struct file *f, struct tensor *t, const struct tensor *scales)
{
    const struct tensor blocks = *t;
    const bool alternate = ends_with(blocks.name, "gate_up_proj_blocks");
    const size_t per_row = (size_t)blocks.ne[1], rows = (size_t)blocks.ne[2], experts = (size_t)blocks.ne[3], n = per_row * rows * experts;
    void *p;
    if (blocks.n_dims != 4 || blocks.ne[0] != HALF || blocks.type != TYPE_I8 || scales->type != TYPE_I8 || scales->n_dims != 3 ||
        scales->ne[0] != blocks.ne[1] || scales->ne[1] != blocks.ne[2] || scales->ne[2] != blocks.ne[3] || (alternate && rows % 2))
        return status_set(KG_ERR_FORMAT, "tensor '%.*s': it and its scales do not have the shapes of MXFP4", file_shown(blocks.name), blocks.name);
    KG_TRY(file_alloc_more(f, n * BLOCK_BYTES, &p));
    const uint8_t *from = blocks.data, *scale = scales->data;
    for (size_t e = 0; e < experts; e++)
        for (size_t r = 0; r < rows; r++) {
            size_t at = alternate ? r % 2 * (experts * rows / 2) + e * (rows / 2) + r / 2 : e * rows + r;
            uint8_t *to = (uint8_t *)p + at * per_row * BLOCK_BYTES;
            for (size_t i = 0; i < per_row; i++, from += HALF, to += BLOCK_BYTES) put_block(from, *scale++, to);
        }
    const char *name = arena_strndup(&f->arena, blocks.name, strlen(blocks.name) - strlen("_blocks"));
    if (!name) return KG_ERR_MEMORY;
    os_map_release(blocks.data, blocks.n_bytes);
    *t = (struct tensor){name, TYPE_MXFP4, 3, {32 * blocks.ne[1], blocks.ne[2], blocks.ne[3], 1}, p, n * BLOCK_BYTES};
    return KG_OK;
}

static kg_status join_all(struct file *f, struct file_name *names)
{
    const size_t n = f->n_tensors;
    size_t kept = 0;
    uint8_t *gone = arena_alloc(&f->arena, n);
    if (!gone) return KG_ERR_MEMORY;
    memset(gone, 0, n);
    for (size_t i = 0; i < n; i++) names[i] = (struct file_name){f->tensors[i].name, &f->tensors[i]};
    qsort(names, n, sizeof *names, by_name);
    for (size_t i = 0; i < n; i++) {
        struct tensor *t = &f->tensors[i];
        char text[256];
        if (!ends_with(t->name, "_blocks") || strlen(t->name) >= sizeof text) continue;
        snprintf(text, sizeof text, "%.*s_scales", (int)(strlen(t->name) - strlen("_blocks")), t->name);
        const struct file_name wanted = {text, NULL}, *hit = bsearch(&wanted, names, n, sizeof *names, by_name);
        const struct tensor *scales = hit ? hit->item : NULL;
        if (!scales) return status_set(KG_ERR_FORMAT, "tensor '%.*s': there are no scales for it", file_shown(t->name), t->name);
        gone[scales - f->tensors] = 1;
        KG_TRY(join(f, t, scales));
    }
    for (size_t i = 0; i < n; i++)
        if (!gone[i]) f->tensors[kept++] = f->tensors[i];
    f->n_tensors = kept;
    return KG_OK;
}

kg_status hf_join_mxfp4(struct file *f)
{
    bool any = false;
    for (size_t i = 0; i < f->n_tensors; i++) any |= ends_with(f->tensors[i].name, "_blocks");
    if (!any) return KG_OK;
    struct file_name *names = malloc(f->n_tensors * sizeof *names);
    if (!names) return status_set(KG_ERR_MEMORY, "out of memory");
    kg_status status = join_all(f, names);
    free(names);
    return status;
}
