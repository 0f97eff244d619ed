/* dots.llm1: as Qwen 3 with experts chosen by sigmoids with a bias, and shared ones. */
#include "model/decoder.h"

const struct arch arch_dots1 =
    DECODER_ARCH("dots1", .rope = ROPE_HALVES, .qk_norm = true, .moe_sigmoid = true, .moe_normed = true);
