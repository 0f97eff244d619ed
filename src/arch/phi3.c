/* Phi 3, 3.5 and 4: as Llama with halves rotated, Q, K and V in one matrix, gate and up in one. */
#include "model/decoder.h"

const struct arch arch_phi3 = DECODER_ARCH("phi3", .rope = ROPE_HALVES);
