/* The GGUF writer: what gguf.c reads. Keys and tensor entries are collected in memory, data goes straight to the file. */
#include "file/gguf_write.h"

#include "file/reader.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ALIGNMENT = 32 };

struct gguf_out {
    char *path, *partial; /* partial: the name while writing, or of an instant behind that */
    bool nameless;        /* the file has no name yet: whatever ends the program, nothing is left */
    FILE *file;
    struct buf metas, infos;
    char **keys; /* [n_metas] */
    uint64_t n_metas, n_tensors;
    uint64_t *sizes;      /* [n_tensors] bytes */
    uint64_t offset;      /* of the next tensor declared, from the start of the data */
    uint64_t current, at; /* tensor whose bytes come next, and how many it has */
    bool started, finished;
};

static kg_status write_error(const struct gguf_out *o, const char *what)
{
    return status_set(KG_ERR_IO, "%s: cannot %s: %s", file_shown_path(o->path), what, strerror(errno));
}

/* A file without a name in the folder of path; -1 where the system has none, or could not name it in the end. */
static int open_nameless(const char *path)
{
#ifdef O_TMPFILE
    const char *slash = strrchr(path, '/');
    char *folder = !slash ? strdup(".") : slash == path ? strdup("/") : strndup(path, (size_t)(slash - path)), link[40];
    int fd = folder ? open(folder, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0666) : -1;
    free(folder);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (fd >= 0 && access(link, F_OK) != 0) {
        close(fd);
        fd = -1;
    }
    return fd;
#else
    (void)path;
    return -1;
#endif
}

/* The file gets the name of an instant, from which it is renamed: a file that is there is replaced at once. */
static bool give_name(struct gguf_out *o)
{
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fileno(o->file));
    if (!o->nameless) return true;
    if (linkat(AT_FDCWD, link, AT_FDCWD, o->partial, AT_SYMLINK_FOLLOW) != 0) return false;
    o->nameless = false;
    return true;
}

kg_status gguf_out_open(struct gguf_out **out, const char *path)
{
    *out = NULL;
    struct gguf_out *o = calloc(1, sizeof *o);
    size_t n = strlen(path) + 32;
    if (!o || !(o->path = strdup(path)) || !(o->partial = malloc(n))) goto no_memory;
    o->partial[0] = 0;
    struct stat sb;
    if (stat(path, &sb) == 0 && !S_ISREG(sb.st_mode)) {
        status_set(KG_ERR_IO, "%s: is not a regular file, it would be replaced", file_shown_path(path));
        gguf_out_close(&o);
        return KG_ERR_IO;
    }
    snprintf(o->partial, n, "%s.partial-%ld", path, (long)getpid());
    int fd = open_nameless(path);
    o->nameless = fd >= 0;
    if (fd < 0) fd = open(o->partial, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    o->file = fd < 0 ? NULL : fdopen(fd, "wb");
    if (!o->file) {
        kg_status status = write_error(o, "create the file");
        if (fd >= 0) close(fd);
        else o->partial[0] = 0; /* not ours */
        gguf_out_close(&o);
        return status;
    }
    *out = o;
    return KG_OK;
no_memory:
    gguf_out_close(&o);
    return status_set(KG_ERR_MEMORY, "out of memory for writing %s", file_shown_path(path));
}

/* ---- keys -------------------------------------------------------------------------------------------------------- */

static kg_status put_str(struct buf *b, const char *s, size_t len)
{
    uint64_t n = len;
    KG_TRY(buf_append(b, &n, 8));
    return buf_append(b, s, len);
}

static kg_status put_key(struct gguf_out *o, const char *key, uint32_t type)
{
    for (uint64_t i = 0; i < o->n_metas; i++)
        if (strcmp(o->keys[i], key) == 0) return status_set(KG_ERR_ARGUMENT, "%s: key %s is written twice", file_shown_path(o->path), key);
    char **keys = realloc(o->keys, (o->n_metas + 1) * sizeof *keys);
    if (!keys) return status_set(KG_ERR_MEMORY, "out of memory");
    o->keys = keys;
    if (!(keys[o->n_metas] = strdup(key))) return status_set(KG_ERR_MEMORY, "out of memory");
    o->n_metas++;
    KG_TRY(put_str(&o->metas, key, strlen(key)));
    return buf_append(&o->metas, &type, 4);
}

static kg_status put_value(struct gguf_out *o, const char *key, enum meta_type type, const void *value, size_t n_bytes)
{
    KG_TRY(put_key(o, key, (uint32_t)type));
    return buf_append(&o->metas, value, n_bytes);
}

kg_status gguf_out_u16(struct gguf_out *o, const char *key, uint16_t v) { return put_value(o, key, META_U16, &v, 2); }
kg_status gguf_out_u32(struct gguf_out *o, const char *key, uint32_t v) { return put_value(o, key, META_U32, &v, 4); }
kg_status gguf_out_i32(struct gguf_out *o, const char *key, int32_t v) { return put_value(o, key, META_I32, &v, 4); }
kg_status gguf_out_f32(struct gguf_out *o, const char *key, float v) { return put_value(o, key, META_F32, &v, 4); }
kg_status gguf_out_bool(struct gguf_out *o, const char *key, bool v) { return put_value(o, key, META_BOOL, &(uint8_t){v}, 1); }

kg_status gguf_out_str(struct gguf_out *o, const char *key, const char *s, size_t len)
{
    KG_TRY(put_key(o, key, META_STR));
    return put_str(&o->metas, s, len);
}

static kg_status put_array(struct gguf_out *o, const char *key, enum meta_type item, uint64_t n)
{
    uint32_t type = (uint32_t)item;
    KG_TRY(put_key(o, key, META_ARR));
    KG_TRY(buf_append(&o->metas, &type, 4));
    return buf_append(&o->metas, &n, 8);
}

kg_status gguf_out_array(struct gguf_out *o, const char *key, enum meta_type item, const void *items, uint64_t n)
{
    KG_TRY(put_array(o, key, item, n));
    return buf_append(&o->metas, items, (size_t)n * meta_type_bytes(item));
}

kg_status gguf_out_strings(struct gguf_out *o, const char *key, const struct str *items, uint64_t n)
{
    KG_TRY(put_array(o, key, META_STR, n));
    for (uint64_t i = 0; i < n; i++) KG_TRY(put_str(&o->metas, items[i].ptr, items[i].len));
    return KG_OK;
}

kg_status gguf_out_meta(struct gguf_out *o, const struct meta *m)
{
    if (m->type == META_STR) return gguf_out_str(o, m->key, m->strings[0].ptr, m->strings[0].len);
    if (m->type != META_ARR) return put_value(o, m->key, m->type, m->data, meta_type_bytes(m->type));
    if (m->item == META_ARR) {
        KG_TRY(put_array(o, m->key, META_ARR, m->n));
        return buf_append(&o->metas, m->data, m->n_bytes);
    }
    if (m->item == META_STR) return gguf_out_strings(o, m->key, m->strings, m->n);
    return gguf_out_array(o, m->key, m->item, m->data, m->n);
}

/* ---- tensors ------------------------------------------------------------------------------------------------------ */

kg_status gguf_out_tensor(struct gguf_out *o, const char *name, enum tensor_type type, int n_dims, const int64_t *ne)
{
    const struct type_info *t = type_by_id((uint32_t)type);
    uint32_t dims = (uint32_t)n_dims, id = (uint32_t)type;
    if (ne[0] % t->block) return status_set(KG_ERR_ARGUMENT, "tensor %s: rows of %" PRId64 " are not whole blocks of %s", name, ne[0], t->name);
    uint64_t n_bytes = (uint64_t)(ne[0] / t->block) * (uint64_t)t->block_bytes;
    for (int i = 1; i < n_dims; i++) n_bytes *= (uint64_t)ne[i];
    uint64_t *sizes = realloc(o->sizes, (o->n_tensors + 1) * sizeof *sizes);
    if (!sizes) return status_set(KG_ERR_MEMORY, "out of memory");
    o->sizes = sizes;
    sizes[o->n_tensors++] = n_bytes;
    KG_TRY(put_str(&o->infos, name, strlen(name)));
    KG_TRY(buf_append(&o->infos, &dims, 4));
    KG_TRY(buf_append(&o->infos, ne, (size_t)n_dims * sizeof *ne));
    KG_TRY(buf_append(&o->infos, &id, 4));
    KG_TRY(buf_append(&o->infos, &o->offset, 8));
    o->offset += ROUND_UP(n_bytes, ALIGNMENT);
    return KG_OK;
}

static kg_status put(struct gguf_out *o, const void *data, size_t n_bytes)
{
    return n_bytes == 0 || fwrite(data, 1, n_bytes, o->file) == n_bytes ? KG_OK : write_error(o, "write");
}

static kg_status pad(struct gguf_out *o, uint64_t after)
{
    static const char zeros[ALIGNMENT];
    return put(o, zeros, (size_t)(-after & (ALIGNMENT - 1)));
}

static kg_status start(struct gguf_out *o)
{
    const uint32_t version = 3;
    if (o->started) return KG_OK;
    o->started = true;
    KG_TRY(put(o, "GGUF", 4));
    KG_TRY(put(o, &version, 4));
    KG_TRY(put(o, &o->n_tensors, 8));
    KG_TRY(put(o, &o->n_metas, 8));
    KG_TRY(put(o, o->metas.data, o->metas.len));
    KG_TRY(put(o, o->infos.data, o->infos.len));
    return pad(o, 24 + (uint64_t)o->metas.len + o->infos.len);
}

kg_status gguf_out_data(struct gguf_out *o, const void *data, size_t n_bytes)
{
    const char *p = data;
    KG_TRY(start(o));
    while (n_bytes > 0) {
        if (o->current == o->n_tensors) return status_set(KG_ERR_ARGUMENT, "%s: more data than tensors", file_shown_path(o->path));
        uint64_t size = o->sizes[o->current], n = MIN(size - o->at, (uint64_t)n_bytes);
        KG_TRY(put(o, p, (size_t)n));
        p += n;
        n_bytes -= (size_t)n;
        o->at += n;
        if (o->at < size) break;
        KG_TRY(pad(o, size));
        o->current++;
        o->at = 0;
    }
    return KG_OK;
}

kg_status gguf_out_finish(struct gguf_out *o)
{
    KG_TRY(start(o));
    while (o->current < o->n_tensors && o->sizes[o->current] == 0) o->current++;
    if (o->current < o->n_tensors) return status_set(KG_ERR_ARGUMENT, "%s: a tensor has no data", file_shown_path(o->path));
    FILE *f = o->file;
    bool good = fflush(f) == 0 && fsync(fileno(f)) == 0;
    if (!good) return write_error(o, "write");
    if (!give_name(o)) return write_error(o, "name the file");
    o->file = NULL;
    if (fclose(f) != 0) return write_error(o, "write");
    if (rename(o->partial, o->path) != 0) return write_error(o, "replace the file");
    o->finished = true;
    return KG_OK;
}

void gguf_out_close(struct gguf_out **out)
{
    if (!out || !*out) return;
    struct gguf_out *o = *out;
    if (o->file) fclose(o->file);
    if (!o->finished && !o->nameless && o->partial && o->partial[0]) unlink(o->partial);
    for (uint64_t i = 0; i < o->n_metas; i++) free(o->keys[i]);
    free(o->keys);
    free(o->sizes);
    buf_free(&o->metas);
    buf_free(&o->infos);
    free(o->path);
    free(o->partial);
    free(o);
    *out = NULL;
}
