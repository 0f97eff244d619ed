/* Qwen 3 with experts. */
#include "model/decoder.h"

const struct arch arch_qwen3moe = DECODER_ARCH("qwen3moe", .rope = ROPE_HALVES, .qk_norm = true, .moe_normed = true);
