/* Seed-OSS: as Qwen 2. */
#include "model/decoder.h"

const struct arch arch_seed_oss = DECODER_ARCH("seed_oss", .rope = ROPE_HALVES, .ffn_norm = "post_attention_norm");
