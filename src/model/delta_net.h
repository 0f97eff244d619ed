/* Gated delta nets (Yang et al. 2024, arXiv 2412.06464) as layers: of every few layers the last has attention with a gate, the others a gated delta
 * rule. Keys ssm.* and full_attention_interval, tensors blk.N.ssm_*, operations. For the architectures that have them. */
#ifndef MODEL_DELTA_NET_H
#define MODEL_DELTA_NET_H

#include "model/decoder.h"

/* For struct decoder_style. Tiled: the heads of values stand so in GGUF (see struct delta), unless kagari.heads_grouped says that the file has them as
 * Hugging Face does. */
kg_status delta_net_adjust(struct arch_build *b, struct decoder *d);
kg_status delta_net_adjust_tiled(struct arch_build *b, struct decoder *d);
kg_status delta_net_tensors(const struct arch_build *b, const struct decoder *d, struct decoder_layer *l, int i);
void delta_net_add(struct program *p, const struct decoder *d, const struct decoder_layer *l, const struct decoder_regs *r, int dst);

#define DELTA_NET_ARCH(name, how)                                                                                         \
    DECODER_ARCH(name, .rope = ROPE_HALVES, .moe_normed = true, .ffn_norm = "post_attention_norm", .adjust = how,         \
                 .attention_tensors = delta_net_tensors, .add_attention = delta_net_add)

#endif
