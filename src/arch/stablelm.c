/* StableLM 2 and 3B: LayerNorm, a part of each head rotates; attention and feed-forward part side by side if the file says so. */
#include "model/decoder.h"

static kg_status adjust(struct arch_build *b, struct decoder *d)
{
    bool parallel = false, found;
    KG_TRY(arch_bool(b, "use_parallel_residual", &parallel, &found));
    if (parallel) d->block = DECODER_PARALLEL;
    return KG_OK;
}

const struct arch arch_stablelm = DECODER_ARCH("stablelm", .rope = ROPE_HALVES, .layer_norm = true, .adjust = adjust);
