/* Qwen 2 VL and 2.5 VL, text: as Qwen 2. Positions of images have more dimensions; those of texts do not. */
#include "model/decoder.h"

const struct arch arch_qwen2vl = DECODER_ARCH("qwen2vl", .rope = ROPE_HALVES);
