/* Apertus: the numbers of its activation (xIELU) are tensors of one element in a folder, arrays of one number for each layer among the keys of GGUF. */
#include "file/hf.h"

#include <stdio.h>
#include <stdlib.h>

static const struct {
    const char *name;
    float usual; /* where no layer has one, as the class begins with it; 0: must be there */
} numbers[] = {{"alpha_p", 0}, {"alpha_n", 0}, {"beta", 0.5f}, {"eps", -1e-6f}};

static kg_status value_of(const struct tensor *t, float *out)
{
    if (t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3] != 1 || (t->type != TYPE_F32 && t->type != TYPE_F16 && t->type != TYPE_BF16))
        return status_set(KG_ERR_FORMAT, "tensor %s is not one number", t->name);
    *out = hf_number(t->type, t->data, 0);
    return KG_OK;
}

/* values: [COUNT_OF(numbers)][n_layers], seen alike. */
static kg_status take(struct file *f, size_t n_layers, float *values, bool *seen)
{
    size_t kept = 0;
    for (size_t i = 0; i < f->n_tensors; i++) {
        const struct tensor t = f->tensors[i];
        const char *at = strstr(t.name, ".xielu.");
        size_t k = 0;
        if (!at) {
            f->tensors[kept++] = t;
            continue;
        }
        const long layer = strtol(t.name + strlen("blk."), NULL, 10);
        while (k < COUNT_OF(numbers) && strcmp(at + strlen(".xielu."), numbers[k].name) != 0) k++;
        if (k == COUNT_OF(numbers) || layer < 0 || (size_t)layer >= n_layers) return status_set(KG_ERR_FORMAT, "tensor %s is of no layer", t.name);
        KG_TRY(value_of(&t, &values[k * n_layers + (size_t)layer]));
        seen[k * n_layers + (size_t)layer] = true;
    }
    f->n_tensors = kept;
    return KG_OK;
}

kg_status hf_take_xielu(struct file *f, struct meta_out *o, int64_t n)
{
    if (n < 1 || n > 65536) return status_set(KG_ERR_FORMAT, "config.json: %lld layers", (long long)n);
    const size_t n_layers = (size_t)n;
    float *values = arena_array(&f->arena, COUNT_OF(numbers) * n_layers, sizeof *values);
    bool *seen = arena_array(&f->arena, COUNT_OF(numbers) * n_layers, sizeof *seen);
    if (!values || !seen) return KG_ERR_MEMORY;
    KG_TRY(take(f, n_layers, values, seen));
    for (size_t k = 0; k < COUNT_OF(numbers); k++) {
        char key[32];
        snprintf(key, sizeof key, "xielu.%s", numbers[k].name);
        meta_out_array(o, key, META_F32, n_layers);
        for (size_t i = 0; i < n_layers; i++) {
            const size_t at = k * n_layers + i;
            if (!seen[at] && numbers[k].usual == 0) return status_set(KG_ERR_FORMAT, "tensor mlp.act_fn.%s of layer %zu is missing", numbers[k].name, i);
            meta_out_bytes(o, seen[at] ? &values[at] : &numbers[k].usual, 4);
        }
    }
    return o->status;
}
