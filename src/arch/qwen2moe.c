/* Qwen 1.5 and 2 with experts: as Qwen 2; one expert that all tokens share has a gate of its own. */
#include "model/decoder.h"

const struct arch arch_qwen2moe = DECODER_ARCH("qwen2moe", .rope = ROPE_HALVES);
