/* Gemma 3, text: as Gemma 2, with normed heads instead of caps; five of six layers have a window and a rotation of their own. */
#include "model/decoder.h"

#include <math.h>

static kg_status adjust(struct arch_build *b, struct decoder *d)
{
    bool found;
    double scale;
    KG_TRY(arch_f64(b, "attention.scale", &scale, &found));
    if (!found && b->program->n_layers == 62) d->attn_scale = 1 / sqrt((double)b->program->dim / d->n_heads); /* 27B, whose files do not say so */
    return KG_OK;
}

const struct arch arch_gemma3 =
    DECODER_ARCH("gemma3", .block = DECODER_SANDWICH, .rope = ROPE_HALVES, .act = ACTIVATION_GELU_TANH, .embed_sqrt = true,
                 .qk_norm = true, .period = 6, .local_base = 10000, .adjust = adjust);
