/* MiniCPM: as Llama, with embeddings, residuals and logits scaled as Granite does; its first files left that to programs. */
#include "model/decoder.h"

#include <math.h>

static kg_status adjust(struct arch_build *b, struct decoder *d)
{
    if (d->embed_scale == 0) d->embed_scale = 12;
    if (d->residual_scale == 0) d->residual_scale = 1.4 / sqrt(b->program->n_layers);
    if (d->logit_scale == 0) d->logit_scale = 256.0 / b->program->dim;
    return KG_OK;
}

const struct arch arch_minicpm = DECODER_ARCH("minicpm", .logits_divided = true, .adjust = adjust);
