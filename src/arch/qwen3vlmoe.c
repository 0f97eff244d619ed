/* Qwen 3 VL with experts, text. */
#include "model/decoder.h"

const struct arch arch_qwen3vlmoe = DECODER_ARCH("qwen3vlmoe", .rope = ROPE_HALVES, .qk_norm = true, .moe_normed = true);
