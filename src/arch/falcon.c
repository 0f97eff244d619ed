/* Falcon 7B: attention and feed-forward part side by side, one key and value head, LayerNorm. */
#include "model/decoder.h"

const struct arch arch_falcon =
    DECODER_ARCH("falcon", .block = DECODER_PARALLEL, .rope = ROPE_HALVES, .layer_norm = true, .plain_ffn = true,
                 .act = ACTIVATION_GELU_ERF);
