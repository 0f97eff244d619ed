/* GLM 4 (0414): norms on both sides, half of each head rotates, gate and up in one matrix. */
#include "model/decoder.h"

const struct arch arch_glm4 = DECODER_ARCH("glm4", .block = DECODER_SANDWICH);
