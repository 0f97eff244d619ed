/* GLM 4.5 and 4.6: experts chosen by sigmoids with a bias, a shared one; half of each head rotates, and in some sizes heads are normed. */
#include "model/decoder.h"

const struct arch arch_glm4moe =
    DECODER_ARCH("glm4moe", .rope = ROPE_HALVES, .qk_norm_maybe = true, .moe_sigmoid = true, .moe_normed = true,
                 .ffn_norm = "post_attention_norm");
