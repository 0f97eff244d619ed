/* Jamba: Mamba in most layers, its steps, B and C normed, attention without a rotation in the others; experts in those that have a router. */
#include "model/ssm.h"

static kg_status adjust(struct arch_build *b, struct decoder *d)
{
    for (int i = 0; i < b->program->n_layers; i++) d->layers[i].moe = d->n_experts > 0 && decoder_has(b, i, "ffn_gate_inp");
    d->own = arena_alloc(&b->program->arena, sizeof(struct ssm));
    return d->own ? ssm_hparams(b, d->own, false, d->eps) : KG_ERR_MEMORY;
}

const struct arch arch_jamba = DECODER_ARCH("jamba", .positions = DECODER_NO_POSITIONS, .mixed = true, .adjust = adjust,
                                            .attention_tensors = ssm_mixed_tensors, .add_attention = ssm_mixed_add);
