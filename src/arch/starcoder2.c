/* StarCoder 2: LayerNorm, biases, plain feed-forward part with GELU (tanh), perhaps a window. */
#include "model/decoder.h"

const struct arch arch_starcoder2 =
    DECODER_ARCH("starcoder2", .rope = ROPE_HALVES, .layer_norm = true, .plain_ffn = true, .act = ACTIVATION_GELU_TANH);
