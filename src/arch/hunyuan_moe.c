/* Hunyuan with experts, one of them shared: heads are normed behind the rotation. */
#include "model/decoder.h"

const struct arch arch_hunyuan_moe = DECODER_ARCH("hunyuan-moe", .rope = ROPE_HALVES, .qk_norm = true, .qk_norm_late = true, .moe_normed = true);
