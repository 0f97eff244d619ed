/* GPT-J: attention and feed-forward part side by side, a part of each head rotates in pairs. */
#include "model/decoder.h"

const struct arch arch_gptj =
    DECODER_ARCH("gptj", .block = DECODER_PARALLEL, .layer_norm = true, .plain_ffn = true, .act = ACTIVATION_GELU_TANH);
