/* Reads adapters; how they enter a program is program_matmul's. */
#include "model/lora.h"

#include "file/order.h"
#include "file/reader.h"

#include <math.h>
#include <stdio.h>

static bool str_is(struct str s, const char *text) { return s.len == strlen(text) && memcmp(s.ptr, text, s.len) == 0; }

/* The base's name if t is called BASE.suffix, else NULL. */
static char *base_of(const struct file *f, const struct tensor *t, const char *suffix)
{
    const size_t n = strlen(t->name), m = strlen(suffix);
    if (n <= m || strcmp(t->name + n - m, suffix) != 0) return NULL;
    return arena_strndup((struct arena *)(uintptr_t)&f->arena, t->name, n - m);
}

static kg_status check_kind(const struct file *f, const struct file *base)
{
    struct str type = {0}, adapter = {0}, arch = {0}, wanted = {0};
    KG_TRY(file_get_str(f, "general.type", &type, NULL));
    KG_TRY(file_get_str(f, "adapter.type", &adapter, NULL));
    if (!str_is(type, "adapter") || !str_is(adapter, "lora"))
        return status_set(KG_ERR_UNSUPPORTED, "%s: is a %.*s of type %.*s, not a LoRA adapter", f->path, (int)MIN(type.len, 40u), type.ptr,
                          (int)MIN(adapter.len, 40u), adapter.ptr);
    KG_TRY(file_get_str(f, "general.architecture", &arch, NULL));
    KG_TRY(file_get_str(base, "general.architecture", &wanted, NULL));
    if (arch.len == wanted.len && memcmp(arch.ptr, wanted.ptr, arch.len) == 0) return KG_OK;
    return status_set(KG_ERR_ARGUMENT, "%s: is an adapter for architecture %.*s, the model is %.*s", f->path, (int)MIN(arch.len, 60u), arch.ptr,
                      (int)MIN(wanted.len, 60u), wanted.ptr);
}

/* One adapter on its way into a program. */
struct reading {
    struct file *f;
    const struct file *base;
    struct program *p;
    double alpha;
    const struct meta *scales; /* of each pair, whatever alpha says; NULL: none */
    uint64_t n_scales;         /* taken so far */
    struct order order;        /* in which the adapter's rows and columns differ from the model's ... */
    bool to_gguf;              /* ... which are those of GGUF; else the adapter's are */
};

/* A or B in the order of the model's matrix. */
static kg_status reorder(const struct reading *x, const struct tensor **part)
{
    const struct tensor *t = *part;
    if (!x->order.from.halves && !x->order.from.grouped) return KG_OK;
    struct tensor *moved = arena_alloc(&x->f->arena, sizeof *moved);
    const size_t row = tensor_row_bytes(t), size = row / (size_t)t->ne[0];
    void *to = NULL;
    if (!moved) return KG_ERR_MEMORY;
    if (t->n_dims > 2) return KG_OK; /* of experts */
    KG_TRY(order_check(&x->order, t));
    if (type_by_id((uint32_t)t->type)->block > 1 && order_moves_columns(&x->order, t))
        return status_set(KG_ERR_UNSUPPORTED, "%s: %s is quantized, and its columns would have to move", x->f->path, t->name);
    KG_TRY(file_alloc_more(x->f, t->n_bytes, &to));
    for (int64_t r = 0; r < t->ne[1]; r++) {
        const int64_t in_folder = order_row(&x->order, t, r);
        uint8_t *out = (uint8_t *)to + (size_t)(x->to_gguf ? r : in_folder) * row;
        const uint8_t *in = (const uint8_t *)t->data + (size_t)(x->to_gguf ? in_folder : r) * row;
        if (!order_moves_columns(&x->order, t)) memcpy(out, in, row);
        for (int64_t i = 0; i < t->ne[0] && order_moves_columns(&x->order, t); i++) {
            const int64_t k = order_column(&x->order, t, i);
            memcpy(out + (size_t)(x->to_gguf ? i : k) * size, in + (size_t)(x->to_gguf ? k : i) * size, size);
        }
    }
    *moved = *t;
    moved->data = to;
    *part = moved;
    return KG_OK;
}

static kg_status add_pair(struct reading *x, const struct tensor *a, const char *name)
{
    const struct file *f = x->f;
    char other[512];
    if ((size_t)snprintf(other, sizeof other, "%s.lora_b", name) >= sizeof other) return status_set(KG_ERR_FORMAT, "%s: a name is too long", f->path);
    const struct tensor *b = file_tensor(f, other);
    if (!b) return status_set(KG_ERR_FORMAT, "%s: %s has no %s", f->path, a->name, other);
    const int rank_at = strcmp(name, "token_embd.weight") != 0; /* A of an embedding is looked up: a row for each token */
    if (a->n_dims > 3 || b->n_dims > 3 || a->ne[2] != b->ne[2] || a->ne[rank_at] != b->ne[0])
        return status_set(KG_ERR_FORMAT, "%s: %s {%lld, %lld} and %s {%lld, %lld} have no rank in common", f->path, a->name, (long long)a->ne[0],
                          (long long)a->ne[1], b->name, (long long)b->ne[0], (long long)b->ne[1]);
    KG_TRY(reorder(x, &a));
    KG_TRY(reorder(x, &b));
    double scale = x->alpha != 0 ? x->alpha / (double)b->ne[0] : 1;
    if (x->scales && x->n_scales >= x->scales->n) return status_set(KG_ERR_FORMAT, "%s: kagari.lora_scales has only %llu numbers", f->path, (unsigned long long)x->scales->n);
    if (x->scales) scale = file_arr_f64(x->scales, x->n_scales++);
    x->p->loras[x->p->n_loras++] = (struct lora){.name = name, .a = a, .b = b, .scale = scale, .adapter = x->p->n_adapters, .path = f->path};
    return KG_OK;
}

static kg_status read_pairs(struct reading *x)
{
    const struct file *f = x->f;
    struct program *p = x->p;
    bool found;
    KG_TRY(file_get_f64(f, "adapter.lora.alpha", &x->alpha, &found));
    KG_TRY(file_get_arr(f, "kagari.lora_scales", META_F64, &x->scales, &found));
    struct lora *all = arena_array(&p->arena, (size_t)p->n_loras + f->n_tensors, sizeof *all);
    if (!all) return KG_ERR_MEMORY;
    if (p->n_loras) memcpy(all, p->loras, (size_t)p->n_loras * sizeof *all);
    p->loras = all;
    for (size_t i = 0; i < f->n_tensors; i++) {
        const struct tensor *t = &f->tensors[i];
        char *name = base_of(f, t, ".lora_a");
        if (!name && !base_of(f, t, ".lora_b")) return status_set(KG_ERR_UNSUPPORTED, "%s: tensor %s is no part of a LoRA adapter", f->path, t->name);
        if (!name) {
            char other[512];
            snprintf(other, sizeof other, "%.*s.lora_a", (int)(strlen(t->name) - strlen(".lora_b")), t->name);
            if (!file_tensor(f, other)) return status_set(KG_ERR_FORMAT, "%s: %s has no %s", f->path, t->name, other);
            continue;
        }
        KG_TRY(add_pair(x, t, name));
    }
    return KG_OK;
}

static kg_status read_order(struct reading *x)
{
    struct order_kind model, adapter;
    KG_TRY(order_kind(x->base, &model));
    KG_TRY(order_kind(x->f, &adapter));
    x->to_gguf = adapter.halves || adapter.grouped;
    return order_read(x->base, (struct order_kind){model.halves != adapter.halves, model.grouped != adapter.grouped}, &x->order);
}

kg_status lora_open(struct file **out, const char *path, const struct file *base, struct program *p)
{
    *out = NULL;
    if (!path) return status_set(KG_ERR_ARGUMENT, "an adapter has no path");
    if (p->n_adapters == PROGRAM_MOST_ADAPTERS) return status_set(KG_ERR_UNSUPPORTED, "%s: more than %d adapters", path, PROGRAM_MOST_ADAPTERS);
    p->n_adapters++;
    KG_TRY(file_open_adapter(out, path, base));
    struct reading x = {.f = *out, .base = base, .p = p};
    kg_status status = check_kind(*out, base);
    if (status == KG_OK) status = read_order(&x);
    if (status == KG_OK) status = read_pairs(&x);
    if (status != KG_OK) file_close(out);
    return status;
}

kg_status lora_check_used(const struct program *p)
{
    for (int i = 0; i < p->n_loras; i++)
        if (!p->loras[i].used)
            return status_set(KG_ERR_UNSUPPORTED, "%s: the model multiplies with no matrix %s, for which the adapter has a change", p->loras[i].path, p->loras[i].name);
    return KG_OK;
}
