/* EXAONE 4: norms behind attention and feed-forward part, heads normed; the large one has windows in three of four layers, and only those
 * rotate. */
#include "model/decoder.h"

static kg_status adjust(struct arch_build *b, struct decoder *d)
{
    for (int i = 0; i < b->program->n_layers && d->window > 0; i++) d->layers[i].rotates = d->layers[i].kind == DECODER_LOCAL;
    return KG_OK;
}

const struct arch arch_exaone4 = DECODER_ARCH("exaone4", .block = DECODER_POST_NORM, .rope = ROPE_HALVES, .qk_norm = true, .period = 4, .adjust = adjust);
