/* Llama and what shares its shape under general.architecture "llama" (Mistral, Mixtral, TinyLlama, ...): RMSNorm, interleaved RoPE,
 * grouped-query attention, SwiGLU. Touvron et al. 2023 (arXiv 2302.13971). */
#include "model/decoder.h"

const struct arch arch_llama = DECODER_ARCH("llama", .moe_normed = true);
