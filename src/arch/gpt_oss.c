/* gpt-oss: experts with biases and a gate that ends at 7, a learned sink of attention for each head, a window in every other layer. */
#include "model/decoder.h"

static kg_status adjust(struct arch_build *b, struct decoder *d)
{
    (void)b;
    for (int i = 0; i < DECODER_KINDS; i++) d->rope[i].fractions = true;
    return KG_OK;
}

const struct arch arch_gpt_oss =
    DECODER_ARCH("gpt-oss", .rope = ROPE_HALVES, .act = ACTIVATION_SWIGLU_OAI, .sinks = true, .period = 2,
                 .moe_normed = true, .ffn_norm = "post_attention_norm", .adjust = adjust);
