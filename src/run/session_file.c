/* A session in a file: its tokens and the blocks of its cache. Owns the format:
 *
 *   struct head, tokens [n_tokens] i32, blocks [ceil(n_tokens / KV_BLOCK)][block_bytes], states [n_states] {position u64, [state_bytes]},
 *   checksum u64 of all that
 *
 * in the byte order of the machine. The file is not trusted: sizes follow from the head and must be those of the file, the checksum is compared
 * before anything of it is used, and what is in a block are numbers only. */
#include "run/run.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { VERSION = 4, SAMPLE = 4096 };
static const char magic[8] = "kagariKV";

struct head {
    char magic[8];
    uint32_t version, kv_type, activations, n_states; /* states: kept ones, then the last; 0: the model has none */
    uint32_t form, zero; /* form: the backend's */
    uint64_t model, adapters; /* fingerprints; adapters: of those that the session has, and how strong; 0: none */
    uint64_t block_bytes, n_tokens, state_bytes;
    char backend[16], program[16]; /* names: who wrote it, and in which version of the library */
};

/* FNV-1a over words of 8 bytes: against accidents, not against intent. */
static uint64_t hash(uint64_t h, const void *data, size_t n)
{
    const uint8_t *p = data;
    for (; n >= 8; p += 8, n -= 8) {
        h = (h ^ load_u64(p)) * 0x100000001b3u;
        h ^= h >> 32;
    }
    for (; n; p++, n--) h = (h ^ *p) * 0x100000001b3u;
    return h ^ (h >> 29);
}
#define HASH_START 0xcbf29ce484222325u

/* Of metadata, and of each tensor name, type, shape and three samples of its bytes: reading all of them would take as long as loading the model. */
static uint64_t fingerprint(const struct file *f)
{
    uint64_t h = HASH_START;
    for (size_t i = 0; i < f->n_metas; i++) {
        const struct meta *m = &f->metas[i];
        h = hash(hash(h, m->key, strlen(m->key)), m->data, m->n_bytes);
    }
    for (size_t i = 0; i < f->n_tensors; i++) {
        const struct tensor *t = &f->tensors[i];
        const uint32_t type = (uint32_t)t->type;
        size_t n = MIN(t->n_bytes, (size_t)SAMPLE), rest = t->n_bytes - n;
        h = hash(hash(hash(h, t->name, strlen(t->name)), &type, sizeof type), t->ne, sizeof t->ne);
        for (size_t k = 0; k < 3; k++) h = hash(h, (const uint8_t *)t->data + rest / 2 * k, n);
    }
    return h;
}

static uint64_t adapters_of(const kg_session *s)
{
    const struct model *m = &s->model->model;
    uint64_t h = 0;
    for (size_t i = 0; i < m->n_adapters; i++) {
        const uint64_t one = s->strengths[i] != 0 ? fingerprint(m->adapters[i]) : 0;
        if (one) h = hash(hash(h ? h : HASH_START, &one, sizeof one), &s->strengths[i], sizeof s->strengths[i]);
    }
    return h;
}

static size_t blocks_of(uint64_t n) { return (size_t)((n + KV_BLOCK - 1) / KV_BLOCK); }

static size_t state_bytes(const kg_model *m) { return m->backend->state_bytes ? m->backend->state_bytes(m->ctx) : 0; }

static struct head make_head(const kg_session *s)
{
    const kg_model *m = s->model;
    struct head h = {.version = VERSION, .kv_type = (uint32_t)m->kv_type, .activations = (uint32_t)m->activations};
    memcpy(h.magic, magic, sizeof magic);
    h.model = fingerprint(m->model.file);
    h.adapters = adapters_of(s);
    h.block_bytes = m->backend->kv_block_bytes(m->ctx);
    h.n_tokens = s->n_tokens;
    h.form = m->backend->kv_form ? m->backend->kv_form(m->ctx) : 0;
    h.state_bytes = state_bytes(m);
    h.n_states = h.state_bytes ? 1 + (uint32_t)s->table.n_kept : 0;
    snprintf(h.backend, sizeof h.backend, "%s", m->backend->name);
    snprintf(h.program, sizeof h.program, "%s", KG_VERSION);
    return h;
}

static kg_status check_model(const kg_session *s, const char *path)
{
    if (!s || !path) return status_set(KG_ERR_ARGUMENT, "a session's file needs a session and a path");
    if (!s->model->backend->kv_read) return status_set(KG_ERR_UNSUPPORTED, "%s: caches of the %s backend are not kept in files", path, s->model->backend->name);
    return KG_OK;
}

/* ---- saving ------------------------------------------------------------------------------------------------------ */

struct out {
    FILE *f;
    uint64_t sum;
};

static bool put(struct out *o, const void *data, size_t n)
{
    o->sum = hash(o->sum, data, n);
    return fwrite(data, 1, n, o->f) == n;
}

static kg_status put_state(kg_model *m, struct out *o, int64_t at, int state, uint8_t *bytes, bool *good)
{
    const uint64_t position = (uint64_t)at;
    pthread_mutex_lock(&m->lock);
    kg_status status = m->backend->state_read(m->ctx, state, bytes);
    pthread_mutex_unlock(&m->lock);
    *good = *good && status == KG_OK && put(o, &position, sizeof position) && put(o, bytes, state_bytes(m));
    return status;
}

static kg_status write_session(kg_session *s, struct out *o, const char *path)
{
    kg_model *m = s->model;
    struct head h = make_head(s);
    uint8_t *block = malloc((size_t)MAX(h.block_bytes, h.state_bytes) + 1);
    const struct kv_table *t = &s->table;
    if (!block) return status_set(KG_ERR_MEMORY, "no memory to save a session");
    bool good = put(o, &h, sizeof h) && put(o, s->tokens, s->n_tokens * sizeof *s->tokens);
    kg_status status = KG_OK;
    for (size_t i = 0; i < blocks_of(s->n_tokens) && good && status == KG_OK; i++) {
        pthread_mutex_lock(&m->lock);
        status = m->backend->kv_read(m->ctx, s->table.blocks[i], block);
        pthread_mutex_unlock(&m->lock);
        if (status == KG_OK) good = put(o, block, (size_t)h.block_bytes);
    }
    for (int i = 0; h.n_states && i < t->n_kept && status == KG_OK; i++) status = put_state(m, o, t->kept[i].at, t->kept[i].state, block, &good);
    if (h.n_states && status == KG_OK) status = put_state(m, o, t->state_at, t->state, block, &good);
    free(block);
    uint64_t sum = o->sum;
    good = good && fwrite(&sum, sizeof sum, 1, o->f) == 1 && fflush(o->f) == 0 && fsync(fileno(o->f)) == 0;
    if (status != KG_OK || good) return status;
    return status_set(KG_ERR_IO, "%s: cannot write: %s", path, strerror(errno));
}

kg_status kg_session_save(kg_session *s, const char *path)
{
    KG_TRY(check_model(s, path));
    if (!s->n_tokens || (state_bytes(s->model) && s->table.state_at != (int64_t)s->n_tokens))
        return status_set(KG_ERR_ARGUMENT, "%s: the session holds no tokens", path);
    struct buf part = {0};
    KG_TRY(buf_printf(&part, "%s.XXXXXX", path));
    int fd = mkstemp(part.data);
    struct out o = {.f = fd >= 0 ? fdopen(fd, "wb") : NULL, .sum = HASH_START};
    kg_status status = o.f ? write_session(s, &o, path) : status_set(KG_ERR_IO, "%s: cannot write: %s", path, strerror(errno));
    if (o.f && fclose(o.f) != 0 && status == KG_OK) status = status_set(KG_ERR_IO, "%s: cannot write: %s", path, strerror(errno));
    if (!o.f && fd >= 0) close(fd);
    if (status == KG_OK && rename(part.data, path) != 0) status = status_set(KG_ERR_IO, "%s: cannot replace the file: %s", path, strerror(errno));
    if (status != KG_OK && fd >= 0) remove(part.data);
    buf_free(&part);
    return status;
}

/* ---- loading ----------------------------------------------------------------------------------------------------- */

static kg_status check_head(const kg_session *s, const struct head *h, const char *path)
{
    struct head want = make_head(s);
    if (memcmp(h->magic, magic, sizeof magic) != 0 || h->version != VERSION) return status_set(KG_ERR_FORMAT, "%s is not a saved cache of this version", path);
    if (memcmp(h->program, want.program, sizeof h->program) != 0) return status_set(KG_ERR_ARGUMENT, "%s was saved by another version", path);
    if (h->model != want.model) return status_set(KG_ERR_ARGUMENT, "%s was saved of another model", path);
    if (h->adapters != want.adapters) return status_set(KG_ERR_ARGUMENT, "%s was saved with other adapters, or other strengths of them", path);
    if (memcmp(h->backend, want.backend, sizeof h->backend) != 0 || h->block_bytes != want.block_bytes || h->state_bytes != want.state_bytes)
        return status_set(KG_ERR_ARGUMENT, "%s was saved of another backend", path);
    if (h->form != want.form) return status_set(KG_ERR_ARGUMENT, "%s was saved with other layers on the device", path);
    if (h->kv_type != want.kv_type || h->activations != want.activations)
        return status_set(KG_ERR_ARGUMENT, "%s was saved with another type of cache or activations", path);
    if (!h->n_tokens || h->n_tokens > (uint64_t)s->n_ctx)
        return status_set(KG_ERR_CONTEXT, "%s holds %llu tokens, the context is %lld", path, (unsigned long long)h->n_tokens, (long long)s->n_ctx);
    if (h->n_states > 1 + KV_KEPT || !h->n_states != !h->state_bytes) return status_set(KG_ERR_FORMAT, "%s is damaged: %u states", path, h->n_states);
    return KG_OK;
}

/* Compares size and checksum; leaves the file after the head. */
static kg_status check_whole(FILE *f, const struct head *h, const char *path)
{
    struct stat st;
    uint64_t size = sizeof *h + h->n_tokens * sizeof(int32_t) + blocks_of(h->n_tokens) * h->block_bytes, sum, stored;
    size += h->n_states * (sizeof(uint64_t) + h->state_bytes);
    if (fstat(fileno(f), &st) != 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size != size + sizeof stored)
        return status_set(KG_ERR_FORMAT, "%s is damaged: it has not the size that it should have", path);
    /* hashed in the pieces in which it was written: their ends count */
    sum = hash(HASH_START, h, sizeof *h);
    uint8_t *piece = malloc(MAX((size_t)MAX(h->block_bytes, h->state_bytes + sizeof(uint64_t)), (size_t)h->n_tokens * sizeof(int32_t)) + 1);
    bool good = piece && fread(piece, sizeof(int32_t), (size_t)h->n_tokens, f) == h->n_tokens;
    if (good) sum = hash(sum, piece, (size_t)h->n_tokens * sizeof(int32_t));
    for (size_t i = 0; i < blocks_of(h->n_tokens) && good; i++) {
        good = fread(piece, 1, (size_t)h->block_bytes, f) == h->block_bytes;
        sum = hash(sum, piece, (size_t)h->block_bytes);
    }
    for (size_t i = 0; i < h->n_states && good; i++) {
        good = fread(piece, 1, sizeof(uint64_t) + (size_t)h->state_bytes, f) == sizeof(uint64_t) + h->state_bytes;
        sum = hash(hash(sum, piece, sizeof(uint64_t)), piece + sizeof(uint64_t), (size_t)h->state_bytes);
    }
    free(piece);
    good = good && fread(&stored, sizeof stored, 1, f) == 1 && fseek(f, sizeof *h, SEEK_SET) == 0;
    return good && sum == stored ? KG_OK : status_set(KG_ERR_FORMAT, "%s is damaged: its checksum is wrong", path);
}

struct filling {
    kg_session *s;
    FILE *f;
    uint8_t *block;
    size_t block_bytes, state_bytes;
    uint32_t n_states;
};

static kg_status fill(void *ctx, int block)
{
    struct filling *l = ctx;
    if (fread(l->block, 1, l->block_bytes, l->f) != l->block_bytes) return status_set(KG_ERR_IO, "a cache's file became shorter while it was read");
    return l->s->model->backend->kv_write(l->s->model->ctx, block, l->block);
}

static kg_status fill_state(void *ctx, int state)
{
    struct filling *l = ctx;
    if (fread(l->block, 1, l->state_bytes, l->f) != l->state_bytes) return status_set(KG_ERR_IO, "a cache's file became shorter while it was read");
    return l->s->model->backend->state_write(l->s->model->ctx, state, l->block);
}

/* All but the last are kept states, at rising positions. */
static kg_status fill_states(void *ctx)
{
    struct filling *l = ctx;
    struct kv_table *t = &l->s->table;
    uint64_t at = 0;
    for (uint32_t i = 0; i < l->n_states; i++) {
        const bool last = i + 1 == l->n_states;
        if (fread(&at, sizeof at, 1, l->f) != 1) return status_set(KG_ERR_IO, "a cache's file became shorter while it was read");
        if (at > (uint64_t)t->state_at || (last && at != (uint64_t)t->state_at)) return status_set(KG_ERR_FORMAT, "a cache's file has a state at a wrong position");
        KG_TRY(last ? fill_state(l, t->state) : kv_table_keep_as(&l->s->model->kv, t, (int64_t)at, fill_state, l));
    }
    return KG_OK;
}

static kg_status read_session(kg_session *s, FILE *f, const char *path)
{
    struct head h;
    if (fread(&h, sizeof h, 1, f) != 1) return status_set(KG_ERR_FORMAT, "%s is not a saved cache", path);
    KG_TRY(check_head(s, &h, path));
    KG_TRY(check_whole(f, &h, path));
    size_t n = (size_t)h.n_tokens;
    int32_t *tokens = malloc(n * sizeof *tokens);
    struct filling l = {s, f, malloc((size_t)MAX(h.block_bytes, h.state_bytes) + 1), (size_t)h.block_bytes, (size_t)h.state_bytes, h.n_states};
    kg_status status = KG_OK;
    if (!tokens || !l.block) status = status_set(KG_ERR_MEMORY, "no memory for %s", path);
    else if (fread(tokens, sizeof *tokens, n, f) != n) status = status_set(KG_ERR_IO, "%s: cannot read", path);
    if (status == KG_OK) status = session_check_tokens(s->model, tokens, n);
    if (status == KG_OK) status = session_refill(s, tokens, n, fill, fill_states, &l);
    free(tokens);
    free(l.block);
    return status;
}

kg_status kg_session_load(kg_session *s, const char *path)
{
    KG_TRY(check_model(s, path));
    FILE *f = fopen(path, "rb");
    if (!f) return status_set(KG_ERR_IO, "cannot open %s: %s", path, strerror(errno));
    kg_status status = read_session(s, f, path);
    fclose(f);
    return status;
}
