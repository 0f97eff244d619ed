/* Selective state spaces, Mamba and Mamba 2, as layers: keys ssm.*, tensors blk.N.ssm_*, operations. For the architectures that have them, alone or
 * between layers of another kind. */
#ifndef MODEL_SSM_H
#define MODEL_SSM_H

#include "model/decoder.h"

struct ssm {
    bool two;   /* Mamba 2: a number of decay per head, not per channel and state; B, C and steps come from the layer's input */
    int taps, inner, n_state, n_heads, n_groups; /* n_heads: of Mamba 2 */
    int rank;   /* Mamba: of the steps */
    bool normed; /* Mamba: steps, B and C are normed, without weights unless the file has them */
    double eps;
    int x, z, u, bc, step, low, b, c, y; /* registers; 0: not made yet */
};

struct ssm_layer {
    struct decoder_affine in_x, in_z, in_bc, in_step, conv_x, conv_bc, low, b, c, step, out;
    const struct tensor *step_norm, *b_norm, *c_norm; /* NULL: no weights */
    const struct tensor *a, *d, *norm;
};

kg_status ssm_hparams(const struct arch_build *b, struct ssm *s, bool two, double eps);
kg_status ssm_tensors(const struct arch_build *b, const struct ssm *s, struct ssm_layer *l, int i);
/* y -> dst, which may be y. */
void ssm_add(struct program *p, struct ssm *s, const struct ssm_layer *l, int y, int dst);

/* An architecture whose layers are these, Mamba 2 unless its name is "mamba". */
kg_status ssm_arch_adjust(struct arch_build *b, struct decoder *d);
kg_status ssm_arch_tensors(const struct arch_build *b, const struct decoder *d, struct decoder_layer *l, int i);
void ssm_arch_add(struct program *p, const struct decoder *d, const struct decoder_layer *l, const struct decoder_regs *r, int dst);
/* The same for layers without attention; the others have the usual one. */
kg_status ssm_mixed_tensors(const struct arch_build *b, const struct decoder *d, struct decoder_layer *l, int i);
void ssm_mixed_add(struct program *p, const struct decoder *d, const struct decoder_layer *l, const struct decoder_regs *r, int dst);
#define SSM_ARCH(name) \
    DECODER_ARCH(name, .block = DECODER_ONE, .positions = DECODER_NO_POSITIONS, .adjust = ssm_arch_adjust, .attention_tensors = ssm_arch_tensors, .add_attention = ssm_arch_add)
/* One whose layers are Mamba 2, attention or a feed-forward part, as Nemotron H. */
#define SSM_EITHER_ARCH(name)                                                                                                                        \
    DECODER_ARCH(name, .block = DECODER_EITHER, .positions = DECODER_NO_POSITIONS, .mixed = true, .plain_ffn = true, .act = ACTIVATION_RELU_SQUARED, \
                 .moe_sigmoid = true, .moe_normed = true, .adjust = ssm_arch_adjust, .attention_tensors = ssm_mixed_tensors, .add_attention = ssm_mixed_add)

#endif
