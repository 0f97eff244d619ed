/* SmolLM 3: as Llama, but every fourth layer does not rotate. */
#include "model/decoder.h"

static kg_status adjust(struct arch_build *b, struct decoder *d)
{
    for (int i = 3; i < b->program->n_layers; i += 4) d->layers[i].rotates = false;
    return KG_OK;
}

const struct arch arch_smollm3 = DECODER_ARCH("smollm3", .adjust = adjust);
