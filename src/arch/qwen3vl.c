/* Qwen 3 VL, text: as Qwen 3. */
#include "model/decoder.h"

const struct arch arch_qwen3vl = DECODER_ARCH("qwen3vl", .rope = ROPE_HALVES, .qk_norm = true);
