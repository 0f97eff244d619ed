/* Command R: attention and feed-forward part side by side, LayerNorm without biases, scaled logits. */
#include "model/decoder.h"

const struct arch arch_command_r = DECODER_ARCH("command-r", .block = DECODER_PARALLEL, .layer_norm = true);
