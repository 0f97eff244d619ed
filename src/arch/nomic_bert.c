/* Nomic BERT (nomic-embed-text 1 and 1.5): as BERT with a rotation, SwiGLU, and biases on norms alone. */
#include "model/decoder.h"

const struct arch arch_nomic_bert =
    DECODER_ARCH("nomic-bert", .encoder = true, .block = DECODER_NORM_BEHIND, .rope = ROPE_HALVES, .layer_norm = true, .token_types = true, .embed_norm = true);
