/* GPT-2: LayerNorm, learned positions, one fused projection for Q, K and V, GELU (tanh), biases everywhere. Radford et al. 2019. */
#include "model/decoder.h"

const struct arch arch_gpt2 =
    DECODER_ARCH("gpt2", .positions = DECODER_LEARNED, .layer_norm = true, .biased = true, .plain_ffn = true, .act = ACTIVATION_GELU_TANH);
