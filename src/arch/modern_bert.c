/* ModernBERT: an encoder with norms before, a rotation, GeGLU; two of three layers see a window to both sides and rotate with another base. */
#include "model/decoder.h"

const struct arch arch_modern_bert =
    DECODER_ARCH("modern-bert", .encoder = true, .rope = ROPE_HALVES, .layer_norm = true, .act = ACTIVATION_GELU_ERF, .embed_norm = true, .first_unnormed = true,
                 .period = 3, .period_begins = true, .local_base = 10000);
