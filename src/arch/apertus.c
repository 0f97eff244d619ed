/* Apertus: normed heads, no gates, and an activation that each layer has learned the numbers of (xIELU). */
#include "model/decoder.h"

#include <math.h>
#include <stdio.h>

/* Item i of an array of one number for each layer; these keys have no prefix. */
static kg_status number(const struct arch_build *b, const char *name, int i, double *out)
{
    char key[32];
    snprintf(key, sizeof key, "xielu.%s", name);
    const struct meta *m = file_meta(b->file, key);
    if (!m || m->type != META_ARR || (m->item != META_F32 && m->item != META_F64) || m->n != (uint64_t)b->program->n_layers)
        return status_set(KG_ERR_FORMAT, "%s: key %s is no array of a number for each of %d layers", b->file->path, key, b->program->n_layers);
    *out = file_arr_f64(m, (uint64_t)i);
    return isfinite(*out) ? KG_OK : status_set(KG_ERR_FORMAT, "%s: key %s is %g for layer %d", b->file->path, key, *out, i);
}

static double softplus(double x) { return x > 30 ? x : log1p(exp(x)); }

static kg_status adjust(struct arch_build *b, struct decoder *d)
{
    const int n = b->program->n_layers;
    struct xielu *all = arena_array(&b->program->arena, (size_t)n, sizeof *all);
    if (!all) return KG_ERR_MEMORY;
    for (int i = 0; i < n; i++) {
        struct xielu *f = &all[i];
        KG_TRY(number(b, "alpha_p", i, &f->above));
        KG_TRY(number(b, "alpha_n", i, &f->below));
        KG_TRY(number(b, "beta", i, &f->linear));
        KG_TRY(number(b, "eps", i, &f->eps));
        f->above = softplus(f->above);
        f->below = f->linear + softplus(f->below);
        d->layers[i].xielu = f;
    }
    return KG_OK;
}

const struct arch arch_apertus = DECODER_ARCH("apertus", .rope = ROPE_HALVES, .plain_ffn = true, .qk_norm = true, .adjust = adjust);
