/* ERNIE 4.5, dense: as Llama. */
#include "model/decoder.h"

const struct arch arch_ernie4_5 = DECODER_ARCH("ernie4_5", .rope = ROPE_INTERLEAVED);
