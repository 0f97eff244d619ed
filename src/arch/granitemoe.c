/* Granite 3 with experts, one of them perhaps shared. */
#include "model/decoder.h"

const struct arch arch_granitemoe = DECODER_ARCH("granitemoe", .logits_divided = true, .moe_normed = true);
