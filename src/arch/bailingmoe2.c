/* Ling and Ring 2: experts in groups, chosen by sigmoids with a bias, and shared ones; heads are normed, a part of each rotates. */
#include "model/decoder.h"

const struct arch arch_bailingmoe2 = DECODER_ARCH("bailingmoe2", .rope = ROPE_HALVES, .qk_norm = true, .moe_sigmoid = true, .moe_normed = true);
