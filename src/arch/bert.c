/* BERT, RoBERTa and XLM-RoBERTa, as encoders: learned positions, norms behind, GELU, biases. Devlin et al. 2018. */
#include "model/decoder.h"

const struct arch arch_bert =
    DECODER_ARCH("bert", .encoder = true, .block = DECODER_NORM_BEHIND, .positions = DECODER_LEARNED, .layer_norm = true, .plain_ffn = true,
                 .act = ACTIVATION_GELU_ERF, .token_types = true, .embed_norm = true);
