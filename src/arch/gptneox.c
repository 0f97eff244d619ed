/* GPT-NeoX, Pythia: attention and feed-forward part side by side with a norm each, unless the file says otherwise. */
#include "model/decoder.h"

static kg_status adjust(struct arch_build *b, struct decoder *d)
{
    bool parallel = true, found;
    KG_TRY(arch_bool(b, "use_parallel_residual", &parallel, &found));
    if (!parallel) d->block = DECODER_PRE_NORM;
    return KG_OK;
}

const struct arch arch_gptneox =
    DECODER_ARCH("gptneox", .block = DECODER_PARALLEL_TWO, .rope = ROPE_HALVES, .layer_norm = true, .biased = true,
                 .plain_ffn = true, .act = ACTIVATION_GELU_ERF, .adjust = adjust);
