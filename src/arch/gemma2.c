/* Gemma 2: as Gemma, with norms on both sides, a window in every other layer, scores and logits capped. */
#include "model/decoder.h"

#include <math.h>

static kg_status adjust(struct arch_build *b, struct decoder *d)
{
    bool found;
    double scale;
    KG_TRY(arch_f64(b, "attention.scale", &scale, &found));
    if (!found && b->program->n_layers == 46) d->attn_scale = 1 / sqrt((double)b->program->dim / d->n_heads); /* 27B, whose files do not say so */
    return KG_OK;
}

const struct arch arch_gemma2 =
    DECODER_ARCH("gemma2", .block = DECODER_SANDWICH, .rope = ROPE_HALVES, .act = ACTIVATION_GELU_TANH, .embed_sqrt = true,
                 .period = 2, .adjust = adjust);
