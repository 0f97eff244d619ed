/* OLMoE: experts; Q and K are normed as a whole. */
#include "model/decoder.h"

const struct arch arch_olmoe = DECODER_ARCH("olmoe", .rope = ROPE_HALVES, .qk_norm = true);
