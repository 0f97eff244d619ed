/* LFM2: most layers have a short convolution instead of attention. */
#include "model/short_conv.h"

const struct arch arch_lfm2 = SHORT_CONV_ARCH("lfm2", .moe_normed = false);
