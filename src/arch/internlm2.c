/* InternLM 2: as Llama. */
#include "model/decoder.h"

const struct arch arch_internlm2 = DECODER_ARCH("internlm2", .rope = ROPE_INTERLEAVED);
