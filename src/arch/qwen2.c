/* Qwen 2, 2.5: as Llama with halves rotated; biases on Q, K and V. */
#include "model/decoder.h"

const struct arch arch_qwen2 = DECODER_ARCH("qwen2", .rope = ROPE_HALVES);
