/* Phi 1, 1.5, 2: attention and feed-forward part side by side, LayerNorm, biases, a part of each head rotates. */
#include "model/decoder.h"

const struct arch arch_phi2 =
    DECODER_ARCH("phi2", .block = DECODER_PARALLEL, .rope = ROPE_HALVES, .layer_norm = true, .biased = true, .plain_ffn = true,
                 .act = ACTIVATION_GELU_TANH);
