/* Nemotron 3 and Minitron: LayerNorm, relu(x)^2, a part of each head rotates. */
#include "model/decoder.h"

const struct arch arch_nemotron =
    DECODER_ARCH("nemotron", .rope = ROPE_HALVES, .layer_norm = true, .plain_ffn = true, .act = ACTIVATION_RELU_SQUARED);
