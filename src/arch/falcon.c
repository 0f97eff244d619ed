/* Falcon: attention and feed-forward part side by side, LayerNorm. 7B and 11B have one norm for both, 40B and 180B one for each. */
#include "model/decoder.h"

static kg_status adjust(struct arch_build *b, struct decoder *d)
{
    if (!file_tensor(b->file, "blk.0.attn_norm_2.weight")) return KG_OK;
    d->block = DECODER_PARALLEL_TWO;
    d->attn_norm_name = "attn_norm_2";
    d->ffn_norm_name = "attn_norm";
    return KG_OK;
}

const struct arch arch_falcon =
    DECODER_ARCH("falcon", .block = DECODER_PARALLEL, .rope = ROPE_HALVES, .layer_norm = true, .plain_ffn = true,
                 .act = ACTIVATION_GELU_ERF, .adjust = adjust);
