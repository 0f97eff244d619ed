/* Reads adapters; how they enter a program is program_matmul's. */
#include "model/lora.h"

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

static kg_status add_pair(const struct file *f, const struct tensor *a, const char *name, double alpha, double strength, struct program *p)
{
    char other[512];
    if ((size_t)snprintf(other, sizeof other, "%s.lora_b", name) >= sizeof other) return status_set(KG_ERR_FORMAT, "%s: a name is too long", f->path);
    const struct tensor *b = file_tensor(f, other);
    if (!b) return status_set(KG_ERR_FORMAT, "%s: %s has no %s", f->path, a->name, other);
    if (a->n_dims > 2 || b->n_dims > 2 || a->ne[1] != b->ne[0])
        return status_set(KG_ERR_FORMAT, "%s: %s {%lld, %lld} and %s {%lld, %lld} have no rank in common", f->path, a->name, (long long)a->ne[0],
                          (long long)a->ne[1], b->name, (long long)b->ne[0], (long long)b->ne[1]);
    p->loras[p->n_loras++] = (struct lora){name, a, b, strength * (alpha != 0 ? alpha / (double)a->ne[1] : 1), false, f->path};
    return KG_OK;
}

static kg_status read_pairs(const struct file *f, double strength, bool halves, struct program *p)
{
    double alpha = 0;
    bool found;
    KG_TRY(file_get_f64(f, "adapter.lora.alpha", &alpha, &found));
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
        /* GGUF has the rows of these in another order than the model's folder */
        if (halves && (strstr(name, ".attn_q.") || strstr(name, ".attn_k.")))
            return status_set(KG_ERR_UNSUPPORTED, "%s: goes with a model in GGUF; convert the folder first", f->path);
        KG_TRY(add_pair(f, t, name, alpha, strength, p));
    }
    return KG_OK;
}

kg_status lora_open(struct file **out, const char *path, double strength, const struct file *base, struct program *p)
{
    *out = NULL;
    if (!path) return status_set(KG_ERR_ARGUMENT, "an adapter has no path");
    if (!isfinite(strength)) return status_set(KG_ERR_ARGUMENT, "%s: the adapter's strength is not a finite number", path);
    KG_TRY(file_open(out, path));
    bool halves = false, found;
    kg_status status = file_get_bool(base, "kagari.rope_halves", &halves, &found);
    if (status == KG_OK) status = check_kind(*out, base);
    if (status == KG_OK) status = read_pairs(*out, strength, halves, p);
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
