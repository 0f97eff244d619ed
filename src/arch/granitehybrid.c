/* Granite 4 (hybrid): Mamba 2 in most layers, attention without a rotation in the others; with or without experts, one of them shared. */
#include "model/ssm.h"

static kg_status adjust(struct arch_build *b, struct decoder *d)
{
    bool found, rotates = false;
    d->own = arena_alloc(&b->program->arena, sizeof(struct ssm));
    if (!d->own) return KG_ERR_MEMORY;
    KG_TRY(arch_bool(b, "rope.scaling.finetuned", &rotates, &found));
    for (int i = 0; i < b->program->n_layers; i++) d->layers[i].rotates = rotates;
    if (d->n_experts == 0) KG_TRY(arch_u32(b, "expert_shared_feed_forward_length", &d->ffn, &found)); /* then it is the only one */
    if (d->ffn < 1) return status_set(KG_ERR_FORMAT, "%s: key %s.expert_shared_feed_forward_length is 0", b->file->path, b->prefix);
    return ssm_hparams(b, d->own, true, d->eps);
}

const struct arch arch_granitehybrid = DECODER_ARCH("granitehybrid", .logits_divided = true, .moe_normed = true, .mixed = true, .adjust = adjust,
                                                    .attention_tensors = ssm_mixed_tensors, .add_attention = ssm_mixed_add);
