/* LFM2 with experts, chosen by sigmoids with a bias, behind a few plain layers. */
#include "model/short_conv.h"

const struct arch arch_lfm2moe = SHORT_CONV_ARCH("lfm2moe", .moe_sigmoid = true, .moe_normed = true, .moe_eps = 1e-6);
