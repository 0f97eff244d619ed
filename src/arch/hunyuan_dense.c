/* Hunyuan, dense: as Qwen 3, but heads are normed behind the rotation. */
#include "model/decoder.h"

const struct arch arch_hunyuan_dense =
    DECODER_ARCH("hunyuan-dense", .rope = ROPE_HALVES, .qk_norm = true, .qk_norm_late = true);
