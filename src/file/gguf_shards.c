/* A GGUF model cut into several files. The shards are named PREFIX-00001-of-00003.gguf; each says with split.no and split.count which
 * it is, and with split.tensors.count how many tensors all have together; the first has all other keys (the convention of llama.cpp's
 * gguf-split). The first shard opens as the whole model. */
#include "file/reader.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { MOST_SHARDS = 65535 }; /* the keys are u16 */

static const char first_mark[] = "-00001-of-";
enum { TAIL_BYTES = sizeof "-00001-of-00000.gguf" - 1 };

static kg_status check_name(const struct file *f, uint32_t n)
{
    char want[TAIL_BYTES + 8];
    size_t len = strlen(f->path);
    snprintf(want, sizeof want, "%s%05" PRIu32 ".gguf", first_mark, n);
    if (len > TAIL_BYTES && strcmp(f->path + len - TAIL_BYTES, want) == 0) return KG_OK;
    return status_set(KG_ERR_FORMAT, "is the first of %" PRIu32 " shards, so its name must end with '%s'", n, want);
}

/* Shard k of n becomes a part of f. */
static kg_status add_shard(struct file *f, uint32_t k, uint32_t n)
{
    uint32_t no = 0, count = 0;
    size_t len = strlen(f->path), size = len + 16;
    char *path = arena_alloc(&f->arena, size);
    struct file *s;
    if (!path) return KG_ERR_MEMORY;
    snprintf(path, size, "%.*s-%05" PRIu32 "-of-%05" PRIu32 ".gguf", (int)(len - TAIL_BYTES), f->path, k + 1, n);
    KG_TRY(file_open_part(&s, path));
    f->shards[f->n_shards++] = s;
    KG_TRY(file_get_u32(s, "split.no", &no, NULL));
    KG_TRY(file_get_u32(s, "split.count", &count, NULL));
    if (no == k && count == n) return KG_OK;
    return status_set(KG_ERR_FORMAT, "%s: says that it is shard %" PRIu64 " of %" PRIu32 ", not %" PRIu32 " of %" PRIu32, file_shown_path(s->path),
                      (uint64_t)no + 1, count, k + 1, n);
}

/* The tensors of all shards in one list, the files' memory among that of f. */
static kg_status gather(struct file *f, int64_t n_tensors)
{
    uint64_t total = f->n_tensors;
    for (size_t k = 0; k < f->n_shards; k++) total += f->shards[k]->n_tensors;
    if (n_tensors < 0 || total != (uint64_t)n_tensors)
        return status_set(KG_ERR_FORMAT, "there are %" PRIu64 " tensors in all shards, not %" PRId64, total, n_tensors);
    struct tensor *all = arena_array(&f->arena, (size_t)total, sizeof *all);
    if (total > 0 && !all) return KG_ERR_MEMORY;
    size_t at = 0;
    for (size_t i = 0; i < f->n_tensors; i++) all[at++] = f->tensors[i];
    for (size_t k = 0; k < f->n_shards; k++) {
        struct file *s = f->shards[k];
        for (size_t i = 0; i < s->n_tensors; i++) all[at++] = s->tensors[i];
        s->index->mapped = false; /* f's from here on, whether it is added or not */
        KG_TRY(file_add_more(f, s->map));
        f->n_file_bytes += s->map.n_bytes;
    }
    f->tensors = all;
    f->n_tensors = (size_t)total;
    return KG_OK;
}

kg_status gguf_join_shards(struct file *f)
{
    uint32_t no = 0, count = 0;
    int64_t n_tensors = 0;
    bool is_shard = false;
    KG_TRY(file_get_u32(f, "split.count", &count, &is_shard));
    if (!is_shard || count == 1) return KG_OK;
    KG_TRY(file_get_u32(f, "split.no", &no, NULL));
    KG_TRY(file_get_i64(f, "split.tensors.count", &n_tensors, NULL));
    if (count == 0 || count > MOST_SHARDS) return status_set(KG_ERR_FORMAT, "%s: split.count is %" PRIu32, file_shown_path(f->path), count);
    if (no != 0)
        return status_set(KG_ERR_FORMAT, "%s: is shard %" PRIu64 " of %" PRIu32 "; open the first", file_shown_path(f->path), (uint64_t)no + 1, count);
    kg_status status = check_name(f, count);
    if (status == KG_OK) {
        f->shards = calloc(count, sizeof *f->shards);
        if (!f->shards) return status_set(KG_ERR_MEMORY, "out of memory");
        for (uint32_t k = 1; k < count; k++) KG_TRY(add_shard(f, k, count));
        status = gather(f, n_tensors);
    }
    if (status != KG_OK) status_prefix(status, "%s", file_shown_path(f->path));
    return status;
}
