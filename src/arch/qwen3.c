/* Qwen 3: as Qwen 2, but heads of Q and K are normed. */
#include "model/decoder.h"

const struct arch arch_qwen3 = DECODER_ARCH("qwen3", .rope = ROPE_HALVES, .qk_norm = true);
