/* Falcon H1: in each layer Mamba 2 and attention see the same row, and both add to the stream. Its multipliers are in the weights (file/hf_multiply.c). */
#include "model/ssm.h"

struct both {
    struct ssm ssm;
    int out; /* register; 0: not made yet */
};

static kg_status adjust(struct arch_build *b, struct decoder *d)
{
    struct both *own = d->own = arena_alloc(&b->program->arena, sizeof *own);
    return own ? ssm_hparams(b, &own->ssm, true, d->eps) : KG_ERR_MEMORY;
}

static kg_status tensors(const struct arch_build *b, const struct decoder *d, struct decoder_layer *l, int i)
{
    l->own = arena_alloc(&b->program->arena, sizeof(struct ssm_layer));
    if (!l->own) return KG_ERR_MEMORY;
    KG_TRY(ssm_tensors(b, &((const struct both *)d->own)->ssm, l->own, i));
    return decoder_attention_tensors(b, d, l, i);
}

static void add(struct program *p, const struct decoder *d, const struct decoder_layer *l, const struct decoder_regs *r, int dst)
{
    struct both *own = d->own;
    if (!own->out) own->out = program_reg(p, p->dim);
    ssm_add(p, &own->ssm, l->own, r->y, own->out);
    decoder_add_attention(p, d, l, r, dst);
    program_add(p, dst, dst, own->out);
}

const struct arch arch_falcon_h1 = DECODER_ARCH("falcon-h1", .rope = ROPE_HALVES, .adjust = adjust, .attention_tensors = tensors, .add_attention = add);
