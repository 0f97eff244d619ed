/* ERNIE 4.5 with experts: chosen by a softmax with a bias, some shared. */
#include "model/decoder.h"

const struct arch arch_ernie4_5_moe = DECODER_ARCH("ernie4_5-moe", .rope = ROPE_INTERLEAVED, .moe_normed = true);
