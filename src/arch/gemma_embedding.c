/* embeddinggemma: Gemma 3 as an encoder. */
#include "model/decoder.h"

const struct arch arch_gemma_embedding =
    DECODER_ARCH("gemma-embedding", .encoder = true, .block = DECODER_SANDWICH, .rope = ROPE_HALVES, .act = ACTIVATION_GELU_TANH, .embed_sqrt = true,
                 .qk_norm = true, .period = 6, .local_base = 10000);
