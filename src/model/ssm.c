/* Builds the layers of ssm.h. */
#include "model/ssm.h"

#include <stdio.h>

enum { MAX_WIDE = 1 << 28 };

kg_status ssm_hparams(const struct arch_build *b, struct ssm *s, bool two, double eps)
{
    bool found;
    *s = (struct ssm){.two = two, .n_groups = 1, .eps = eps};
    KG_TRY(arch_size(b, "ssm.conv_kernel", &s->taps));
    KG_TRY(arch_size(b, "ssm.inner_size", &s->inner));
    KG_TRY(arch_size(b, "ssm.state_size", &s->n_state));
    KG_TRY(arch_size(b, "ssm.time_step_rank", two ? &s->n_heads : &s->rank));
    KG_TRY(arch_bool(b, "ssm.dt_b_c_rms", &s->normed, &found));
    KG_TRY(file_get_f64(b->file, "kagari.mixer_rms_eps", &s->eps, &found)); /* of those norms, where it differs from that of layers */
    if (two) KG_TRY(arch_u32(b, "ssm.group_count", &s->n_groups, &found));
    if (s->n_groups < 1) s->n_groups = 1;
    if (s->inner > MAX_WIDE || s->n_state > 1 << 16 || s->rank > MAX_WIDE || (int64_t)s->n_groups * s->n_state > MAX_WIDE ||
        (two && (s->inner % s->n_heads || s->n_heads % s->n_groups || s->inner % s->n_groups)))
        return status_set(KG_ERR_FORMAT, "%s: %d channels, %d heads, %d groups and a state of %d do not fit each other", b->file->path, s->inner, s->n_heads,
                          s->n_groups, s->n_state);
    return KG_OK;
}

/* Of a Mamba 2 file {1, n} is a vector. */
static kg_status vector(const struct arch_build *b, const struct tensor **out, int64_t n, int layer, const char *name)
{
    char text[64];
    snprintf(text, sizeof text, "blk.%d.%s", layer, name);
    const struct tensor *t = file_tensor(b->file, text);
    if (!t || t->n_dims < 2 || t->ne[0] != 1 || t->type != TYPE_F32) return arch_tensor(b, out, false, n, 1, "%s", text);
    KG_TRY(arch_tensor(b, out, false, 1, n, "%s", text));
    struct tensor *v = arena_alloc(&b->program->arena, sizeof *v);
    if (!v) return KG_ERR_MEMORY;
    *v = *t;
    v->n_dims = 1;
    v->ne[0] = n;
    v->ne[1] = 1;
    *out = v;
    return KG_OK;
}

static kg_status tensors_one(const struct arch_build *b, const struct ssm *s, struct ssm_layer *l, int i)
{
    const int64_t dim = b->program->dim, inner = s->inner, n = s->n_state;
    struct decoder_affine in, x;
    KG_TRY(decoder_affine(b, &in, dim, 2 * inner, i, "ssm_in"));
    KG_TRY(decoder_part(b, &l->in_x, &in, 0, inner, "x"));
    KG_TRY(decoder_part(b, &l->in_z, &in, inner, inner, "z"));
    KG_TRY(decoder_affine(b, &l->conv_x, s->taps, inner, i, "ssm_conv1d"));
    KG_TRY(decoder_affine(b, &x, inner, s->rank + 2 * n, i, "ssm_x"));
    KG_TRY(decoder_part(b, &l->low, &x, 0, s->rank, "dt"));
    KG_TRY(decoder_part(b, &l->b, &x, s->rank, n, "b"));
    KG_TRY(decoder_part(b, &l->c, &x, s->rank + n, n, "c"));
    KG_TRY(decoder_affine(b, &l->step, s->rank, inner, i, "ssm_dt"));
    KG_TRY(arch_tensor(b, &l->step_norm, true, s->rank, 1, "blk.%d.ssm_dt_norm.weight", i));
    KG_TRY(arch_tensor(b, &l->b_norm, true, n, 1, "blk.%d.ssm_b_norm.weight", i));
    KG_TRY(arch_tensor(b, &l->c_norm, true, n, 1, "blk.%d.ssm_c_norm.weight", i));
    KG_TRY(arch_tensor(b, &l->a, false, n, inner, "blk.%d.ssm_a", i));
    KG_TRY(vector(b, &l->d, inner, i, "ssm_d"));
    return decoder_affine(b, &l->out, inner, dim, i, "ssm_out");
}

static kg_status tensors_two(const struct arch_build *b, const struct ssm *s, struct ssm_layer *l, int i)
{
    const int64_t dim = b->program->dim, inner = s->inner, n = (int64_t)s->n_groups * s->n_state;
    struct decoder_affine in, conv;
    KG_TRY(arch_tensor(b, &in.w, false, dim, 2 * inner + 2 * n + s->n_heads, "blk.%d.ssm_in.weight", i));
    in.b = NULL;
    KG_TRY(decoder_part(b, &l->in_z, &in, 0, inner, "z"));
    KG_TRY(decoder_part(b, &l->in_x, &in, inner, inner, "x"));
    KG_TRY(decoder_part(b, &l->in_bc, &in, 2 * inner, 2 * n, "bc"));
    KG_TRY(decoder_part(b, &l->in_step, &in, 2 * inner + 2 * n, s->n_heads, "dt"));
    KG_TRY(arch_tensor(b, &l->in_step.b, false, s->n_heads, 1, "blk.%d.ssm_dt.bias", i));
    KG_TRY(decoder_affine(b, &conv, s->taps, inner + 2 * n, i, "ssm_conv1d"));
    KG_TRY(decoder_part(b, &l->conv_x, &conv, 0, inner, "x"));
    KG_TRY(decoder_part(b, &l->conv_bc, &conv, inner, 2 * n, "bc"));
    KG_TRY(arch_tensor(b, &l->a, false, 1, s->n_heads, "blk.%d.ssm_a", i));
    KG_TRY(vector(b, &l->d, s->n_heads, i, "ssm_d"));
    KG_TRY(arch_tensor(b, &l->norm, true, inner / s->n_groups, s->n_groups, "blk.%d.ssm_norm.weight", i));
    return decoder_affine(b, &l->out, inner, dim, i, "ssm_out");
}

kg_status ssm_tensors(const struct arch_build *b, const struct ssm *s, struct ssm_layer *l, int i)
{
    return (s->two ? tensors_two : tensors_one)(b, s, l, i);
}

static void registers(struct program *p, struct ssm *s)
{
    if (s->x) return;
    s->x = program_reg(p, s->inner);
    s->z = program_reg(p, s->inner);
    s->u = program_reg(p, s->inner);
    s->y = program_reg(p, s->inner);
    s->bc = program_reg(p, 2 * s->n_groups * s->n_state);
    s->step = program_reg(p, s->two ? s->n_heads : s->inner);
    if (s->two) {
        s->c = program_reg(p, 2 * s->n_groups * s->n_state);
        return;
    }
    s->low = program_reg(p, s->rank);
    s->b = program_reg(p, s->n_state);
    s->c = program_reg(p, s->n_state);
}

static void linear(struct program *p, int dst, int src, const struct decoder_affine *a) { program_matmul(p, dst, src, a->w, a->b); }

static void add_one(struct program *p, const struct ssm *s, const struct ssm_layer *l, int y)
{
    linear(p, s->x, y, &l->in_x);
    linear(p, s->z, y, &l->in_z);
    program_conv(p, s->u, s->x, l->conv_x.w, l->conv_x.b);
    program_act(p, s->u, s->u, ACTIVATION_SILU);
    linear(p, s->low, s->u, &l->low);
    linear(p, s->b, s->u, &l->b);
    linear(p, s->c, s->u, &l->c);
    if (s->normed || l->step_norm) program_rms_norm(p, s->low, s->low, l->step_norm, NULL, s->eps);
    if (s->normed || l->b_norm) program_rms_norm(p, s->b, s->b, l->b_norm, NULL, s->eps);
    if (s->normed || l->c_norm) program_rms_norm(p, s->c, s->c, l->c_norm, NULL, s->eps);
    program_join(p, s->bc, s->b, s->c, 1);
    linear(p, s->step, s->low, &l->step);
    program_scan(p, s->y, s->u, s->step, s->bc, l->a, l->d, &(struct scan){.n_heads = s->inner, .head_dim = 1, .n_groups = 1, .n_state = s->n_state});
    program_glu(p, s->y, s->z, s->y, ACTIVATION_SILU);
}

static void add_two(struct program *p, const struct ssm *s, const struct ssm_layer *l, int y)
{
    linear(p, s->z, y, &l->in_z);
    linear(p, s->x, y, &l->in_x);
    linear(p, s->c, y, &l->in_bc);
    linear(p, s->step, y, &l->in_step);
    program_conv(p, s->u, s->x, l->conv_x.w, l->conv_x.b);
    program_conv(p, s->bc, s->c, l->conv_bc.w, l->conv_bc.b);
    program_act(p, s->u, s->u, ACTIVATION_SILU);
    program_act(p, s->bc, s->bc, ACTIVATION_SILU);
    program_scan(p, s->y, s->u, s->step, s->bc, l->a, l->d,
                 &(struct scan){.n_heads = s->n_heads, .head_dim = s->inner / s->n_heads, .n_groups = s->n_groups, .n_state = s->n_state});
    program_glu(p, s->y, s->z, s->y, ACTIVATION_SILU);
    if (l->norm) program_rms_norm(p, s->y, s->y, l->norm, NULL, s->eps);
}

void ssm_add(struct program *p, struct ssm *s, const struct ssm_layer *l, int y, int dst)
{
    registers(p, s);
    (s->two ? add_two : add_one)(p, s, l, y);
    linear(p, dst, s->y, &l->out);
}

/* ---- architectures of nothing else ---- */

kg_status ssm_arch_adjust(struct arch_build *b, struct decoder *d)
{
    d->own = arena_alloc(&b->program->arena, sizeof(struct ssm));
    return d->own ? ssm_hparams(b, d->own, strcmp(b->arch->name, "mamba") != 0, d->eps) : KG_ERR_MEMORY;
}

kg_status ssm_arch_tensors(const struct arch_build *b, const struct decoder *d, struct decoder_layer *l, int i)
{
    l->own = arena_alloc(&b->program->arena, sizeof(struct ssm_layer));
    return l->own ? ssm_tensors(b, d->own, l->own, i) : KG_ERR_MEMORY;
}

void ssm_arch_add(struct program *p, const struct decoder *d, const struct decoder_layer *l, const struct decoder_regs *r, int dst)
{
    ssm_add(p, d->own, l->own, r->y, dst);
}

kg_status ssm_mixed_tensors(const struct arch_build *b, const struct decoder *d, struct decoder_layer *l, int i)
{
    return (l->other ? ssm_arch_tensors : decoder_attention_tensors)(b, d, l, i);
}

void ssm_mixed_add(struct program *p, const struct decoder *d, const struct decoder_layer *l, const struct decoder_regs *r, int dst)
{
    (l->other ? ssm_arch_add : decoder_add_attention)(p, d, l, r, dst);
}
