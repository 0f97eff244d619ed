/* Builds the layers of short_conv.h. */
#include "model/short_conv.h"

struct conv_layer {
    struct decoder_affine b, c, x, conv, out;
};

struct conv_regs {
    int taps;
    int b, c, x; /* 0: not made yet, as 0 is the stream */
};

kg_status short_conv_adjust(struct arch_build *b, struct decoder *d)
{
    struct conv_regs *r = d->own = arena_alloc(&b->program->arena, sizeof *r);
    if (!r) return KG_ERR_MEMORY;
    return arch_size(b, "shortconv.l_cache", &r->taps);
}

kg_status short_conv_tensors(const struct arch_build *b, const struct decoder *d, struct decoder_layer *l, int i)
{
    const int64_t dim = b->program->dim;
    struct decoder_affine in;
    if (!l->other) return decoder_attention_tensors(b, d, l, i);
    struct conv_layer *t = l->own = arena_alloc(&b->program->arena, sizeof *t);
    if (!t) return KG_ERR_MEMORY;
    KG_TRY(decoder_affine(b, &in, dim, 3 * dim, i, "shortconv.in_proj"));
    KG_TRY(decoder_part(b, &t->b, &in, 0, dim, "b"));
    KG_TRY(decoder_part(b, &t->c, &in, dim, dim, "c"));
    KG_TRY(decoder_part(b, &t->x, &in, 2 * dim, dim, "x"));
    KG_TRY(decoder_affine(b, &t->conv, ((const struct conv_regs *)d->own)->taps, dim, i, "shortconv.conv"));
    return decoder_affine(b, &t->out, dim, dim, i, "shortconv.out_proj");
}

void short_conv_add(struct program *p, const struct decoder *d, const struct decoder_layer *l, const struct decoder_regs *r, int dst)
{
    struct conv_regs *own = d->own;
    const struct conv_layer *t = l->own;
    if (!l->other) {
        decoder_add_attention(p, d, l, r, dst);
        return;
    }
    if (!own->b) {
        own->b = program_reg(p, p->dim);
        own->c = program_reg(p, p->dim);
        own->x = program_reg(p, p->dim);
    }
    program_matmul(p, own->b, r->y, t->b.w, t->b.b);
    program_matmul(p, own->c, r->y, t->c.w, t->c.b);
    program_matmul(p, own->x, r->y, t->x.w, t->x.b);
    program_mul(p, own->x, own->x, own->b);
    program_conv(p, own->b, own->x, t->conv.w, t->conv.b);
    program_mul(p, own->b, own->b, own->c);
    program_matmul(p, dst, own->b, t->out.w, t->out.b);
}
