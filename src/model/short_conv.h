/* Short convolutions between two gates, instead of attention: out(c * conv(b * x)), where b, c and x come from one matrix. For the architectures that have
 * them in some layers (style->mixed). */
#ifndef MODEL_SHORT_CONV_H
#define MODEL_SHORT_CONV_H

#include "model/decoder.h"

kg_status short_conv_adjust(struct arch_build *b, struct decoder *d);
kg_status short_conv_tensors(const struct arch_build *b, const struct decoder *d, struct decoder_layer *l, int i);
void short_conv_add(struct program *p, const struct decoder *d, const struct decoder_layer *l, const struct decoder_regs *r, int dst);

#define SHORT_CONV_ARCH(name, ...)                                                                                                                  \
    DECODER_ARCH(name, .rope = ROPE_HALVES, .qk_norm = true, .mixed = true, .out_norm = "token_embd_norm", .adjust = short_conv_adjust,             \
                 .attention_tensors = short_conv_tensors, .add_attention = short_conv_add, __VA_ARGS__)

#endif
