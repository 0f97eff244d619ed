/* Mamba 2: the same with heads, which share one number of decay (Dao and Gu 2024). */
#include "model/ssm.h"

static kg_status adjust(struct arch_build *b, struct decoder *d)
{
    d->own = arena_alloc(&b->program->arena, sizeof(struct ssm));
    return d->own ? ssm_hparams(b, d->own, strcmp(b->arch->name, "mamba2") == 0, d->eps) : KG_ERR_MEMORY;
}

static kg_status tensors(const struct arch_build *b, const struct decoder *d, struct decoder_layer *l, int i)
{
    l->own = arena_alloc(&b->program->arena, sizeof(struct ssm_layer));
    return l->own ? ssm_tensors(b, d->own, l->own, i) : KG_ERR_MEMORY;
}

static void add(struct program *p, const struct decoder *d, const struct decoder_layer *l, const struct decoder_regs *r, int dst)
{
    ssm_add(p, d->own, l->own, r->y, dst);
}

const struct arch arch_mamba2 = DECODER_ARCH("mamba2", .block = DECODER_ONE, .positions = DECODER_NO_POSITIONS, .adjust = adjust, .attention_tensors = tensors,
                                            .add_attention = add);
