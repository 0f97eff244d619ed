/* MiniMax M2: experts chosen by sigmoids with a bias; a part of each head rotates, Q and K are normed as a whole. */
#include "model/decoder.h"

const struct arch arch_minimax_m2 = DECODER_ARCH("minimax-m2", .rope = ROPE_HALVES, .qk_norm = true, .moe_sigmoid = true, .moe_normed = true);
