/* OLMo 2 and 3: norms behind attention and feed-forward part, none before; Q and K are normed as a whole. Three of four layers of OLMo 3 have a window,
 * and a rotation that is not stretched. */
#include "model/decoder.h"

static kg_status adjust(struct arch_build *b, struct decoder *d)
{
    (void)b;
    d->rope[DECODER_LOCAL].scaling = ROPE_SCALING_NONE;
    d->rope[DECODER_LOCAL].factors = NULL;
    return KG_OK;
}

const struct arch arch_olmo2 = DECODER_ARCH("olmo2", .block = DECODER_POST_NORM, .rope = ROPE_HALVES, .qk_norm = true, .period = 4, .adjust = adjust);
