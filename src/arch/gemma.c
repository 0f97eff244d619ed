/* Gemma: as Llama with halves rotated, embeddings times sqrt(dim), GELU. */
#include "model/decoder.h"

const struct arch arch_gemma = DECODER_ARCH("gemma", .rope = ROPE_HALVES, .act = ACTIVATION_GELU_TANH, .embed_sqrt = true);
