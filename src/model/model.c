/* Opens a model: file, architecture, program. Makes sure that no tensor of the file is left out of the program unnoticed. */
#include "model/model.h"

#include "model/lora.h"

#include <stdio.h>
#include <stdlib.h>

/* Ends of the names of tensors that carry nothing to compute: precomputed masks and RoPE tables of older converters;
 * factors for a context that is not asked for. */
static const char *const harmless[] = {".attn.masked_bias", ".attn.bias", ".rotary_emb.inv_freq", ".attn_rot_embd",
                                       ".attn_rot_embd.weight", "rope_factors_long.weight", "rope_factors_short.weight"};

static bool is_harmless(const char *name)
{
    size_t len = strlen(name);
    for (size_t i = 0; i < COUNT_OF(harmless); i++) {
        size_t n = strlen(harmless[i]);
        if (len >= n && !strcmp(name + len - n, harmless[i])) return true;
    }
    return false;
}

static int by_address(const void *a, const void *b)
{
    uintptr_t x = *(const uintptr_t *)a, y = *(const uintptr_t *)b;
    return x < y ? -1 : x > y;
}

/* The sorted addresses of everything that the program reads; *n of them, malloc'ed. */
static uintptr_t *used_addresses(const struct program *p, size_t *n)
{
    uintptr_t *used = malloc(((size_t)p->n_ops * 3 + (size_t)p->n_known + 1) * sizeof *used);
    *n = 0;
    if (!used) return NULL;
    for (int i = 0; i < p->n_ops; i++) {
        const struct op *op = &p->ops[i];
        if (op->w) used[(*n)++] = (uintptr_t)op->w->data;
        if (op->b) used[(*n)++] = (uintptr_t)op->b->data;
        if (op->code == OP_ATTENTION && op->attention.sinks) used[(*n)++] = (uintptr_t)op->attention.sinks->data;
        if (op->code == OP_ROPE && op->rope.factors) used[(*n)++] = (uintptr_t)op->rope.factors->data;
    }
    for (int i = 0; i < p->n_known; i++) used[(*n)++] = (uintptr_t)p->known[i]->data;
    qsort(used, *n, sizeof *used, by_address);
    return used;
}

/* Of layers that guess further tokens (nextn_predict_layers): they come behind the others. */
static bool is_beyond(const struct model *m, const char *name)
{
    char key[96];
    snprintf(key, sizeof key, "%s.nextn_predict_layers", m->arch->name);
    return file_meta(m->file, key) && strncmp(name, "blk.", 4) == 0 && strtol(name + 4, NULL, 10) >= m->program.n_layers;
}

/* A tensor that the program does not read would change what the model computes: refuse it rather than skip it. */
static kg_status check_all_used(const struct model *m)
{
    size_t n;
    uintptr_t *used = used_addresses(&m->program, &n);
    if (!used) return status_set(KG_ERR_MEMORY, "out of memory");
    kg_status status = KG_OK;
    for (size_t i = 0; i < m->file->n_tensors && status == KG_OK; i++) {
        const struct tensor *t = &m->file->tensors[i];
        uintptr_t start = (uintptr_t)t->data;
        size_t lo = 0, hi = n; /* -> first used address >= start */
        while (lo < hi) {
            size_t mid = lo + (hi - lo) / 2;
            if (used[mid] < start)
                lo = mid + 1;
            else
                hi = mid;
        }
        bool is_used = lo < n && used[lo] - start < t->n_bytes;
        if (!is_used && !is_harmless(t->name) && !is_beyond(m, t->name))
            status =
                status_set(KG_ERR_UNSUPPORTED, "tensor %s is not part of architecture %s as this build knows it", t->name, m->arch->name);
    }
    free(used);
    return status;
}

/* "a, b, c" */
static void list_archs(char *out, size_t size)
{
    size_t len = 0;
    out[0] = 0;
    for (size_t i = 0; arch_at(i) && len < size; i++)
        len += (size_t)snprintf(out + len, size - len, "%s%s", i ? ", " : "", arch_at(i)->name);
}

static kg_status find_arch(struct model *m, const char **prefix)
{
    struct str name;
    KG_TRY(file_get_str(m->file, "general.architecture", &name, NULL));
    char *text = arena_strndup(&m->program.arena, name.ptr, name.len);
    if (!text) return KG_ERR_MEMORY;
    *prefix = text;
    m->arch = arch_find(text);
    if (m->arch) return KG_OK;
    char known[256];
    list_archs(known, sizeof known);
    return status_set(KG_ERR_UNSUPPORTED, "architecture \"%.60s\" is not supported; this build knows %s", text, known);
}

static kg_status open_adapters(struct model *m, const kg_lora *loras, size_t n)
{
    m->adapters = calloc(n + 1, sizeof *m->adapters);
    if (!m->adapters) return status_set(KG_ERR_MEMORY, "out of memory");
    for (size_t i = 0; i < n; i++) {
        KG_TRY(lora_open(&m->adapters[i], loras[i].path, m->file, &m->program));
        m->n_adapters = i + 1;
    }
    return KG_OK;
}

static kg_status build(struct model *m, int64_t n_ctx)
{
    struct arch_build b = {.file = m->file, .program = &m->program, .n_ctx = n_ctx};
    KG_TRY(find_arch(m, &b.prefix));
    b.arch = m->arch;
    b.h = arena_alloc(&m->program.arena, m->arch->h_bytes + 1);
    b.t = arena_alloc(&m->program.arena, m->arch->t_bytes + 1);
    if (!b.h || !b.t) return KG_ERR_MEMORY;
    KG_TRY(m->arch->hparams(&b));
    KG_TRY(m->arch->tensors(&b));
    KG_TRY(m->arch->program(&b));
    KG_TRY(dense_find(m->file, &m->program, &m->dense, &m->n_dense));
    KG_TRY(program_finish(&m->program));
    KG_TRY(lora_check_used(&m->program));
    return check_all_used(m);
}

kg_status model_open(struct model *out, const char *path) { return model_open_adapted(out, path, NULL, 0); }

kg_status model_open_adapted(struct model *out, const char *path, const kg_lora *loras, size_t n_loras) { return model_open_for(out, path, loras, n_loras, 0); }

kg_status model_open_for(struct model *out, const char *path, const kg_lora *loras, size_t n_loras, int64_t n_ctx)
{
    memset(out, 0, sizeof *out);
    KG_TRY(file_open(&out->file, path));
    kg_status status = open_adapters(out, loras, n_loras);
    if (status == KG_OK) status = build(out, n_ctx);
    if (status == KG_OK) return KG_OK;
    size_t n = strlen(path);
    if (strncmp(kg_error_message(), path, n) || kg_error_message()[n] != ':') status_prefix(status, "%s", path);
    model_close(out);
    return status;
}

void model_close(struct model *m)
{
    if (!m) return;
    program_free(&m->program);
    for (size_t i = 0; i < m->n_adapters; i++) file_close(&m->adapters[i]);
    free(m->adapters);
    m->adapters = NULL;
    m->n_adapters = 0;
    file_close(&m->file);
    m->arch = NULL;
}
