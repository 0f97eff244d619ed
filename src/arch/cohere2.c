/* Command R7B: as Command R; three of four layers have a window, the fourth no rotation. */
#include "model/decoder.h"

static kg_status adjust(struct arch_build *b, struct decoder *d)
{
    for (int i = 0; i < b->program->n_layers; i++) d->layers[i].rotates = d->layers[i].kind == DECODER_LOCAL;
    return KG_OK;
}

const struct arch arch_cohere2 =
    DECODER_ARCH("cohere2", .block = DECODER_PARALLEL, .layer_norm = true, .period = 4, .adjust = adjust);
