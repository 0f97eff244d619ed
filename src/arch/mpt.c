/* MPT: slopes over distance (ALiBi), no biases. */
#include "model/decoder.h"

const struct arch arch_mpt =
    DECODER_ARCH("mpt", .positions = DECODER_ALIBI, .layer_norm = true, .plain_ffn = true, .act = ACTIVATION_GELU_ERF);
