/* BLOOM: no positions but slopes over distance (ALiBi), a norm behind the embedding. */
#include "model/decoder.h"

const struct arch arch_bloom =
    DECODER_ARCH("bloom", .positions = DECODER_ALIBI, .layer_norm = true, .biased = true, .embed_norm = true, .plain_ffn = true,
                 .act = ACTIVATION_GELU_TANH);
