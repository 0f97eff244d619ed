/* Arcee (AFM): as Llama with relu(x)^2 and no gate. */
#include "model/decoder.h"

const struct arch arch_arcee = DECODER_ARCH("arcee", .plain_ffn = true, .act = ACTIVATION_RELU_SQUARED);
