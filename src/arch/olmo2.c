/* OLMo 2: norms behind attention and feed-forward part, none before; Q and K are normed as a whole. */
#include "model/decoder.h"

const struct arch arch_olmo2 = DECODER_ARCH("olmo2", .block = DECODER_POST_NORM, .rope = ROPE_HALVES, .qk_norm = true);
