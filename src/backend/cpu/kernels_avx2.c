/* The AVX2 tier: the plain C kernels compiled for it, with matmul and attention replaced; and the same with int8 products by VNNI. */
#include "backend/cpu/avx2.h"
#include "backend/cpu/kernels_tmpl.h"

typedef const struct cpu_format *(*format_fn)(enum tensor_type type);
static const struct cpu_format *choose_format(enum tensor_type type, kg_activations activations, format_fn int_format)
{
    const struct cpu_format *f = activations == KG_ACT_INT8 ? int_format(type) : NULL;
    return f ? f : avx2_float_format(type);
}
static const struct cpu_format *format_avx2(enum tensor_type type, kg_activations activations) { return choose_format(type, activations, avx2_int_format); }
static const struct cpu_format *format_vnni(enum tensor_type type, kg_activations activations)
{
    return choose_format(type, activations, cpu_has_avxvnni() ? avxvnni_int_format : vnni256_int_format);
}

void cpu_kernels_avx2(struct cpu_kernels *k)
{
    fill_kernels(k);
    k->format = format_avx2;
    k->act_pairs = true;
    k->side[ACTS_F32_TILES] = AVX2_SIDE * PANEL;
    if (avx2_reads_side()) k->side[ACTS_INT8] = AVX2_SIDE * PANEL;
    k->attend = avx2_attend;
    k->attend_scratch_bytes = avx2_attend_scratch_bytes;
}

void cpu_kernels_vnni(struct cpu_kernels *k)
{
    cpu_kernels_avx2(k);
    k->format = format_vnni;
    k->act_pairs = false; /* its sums are 32 bits wide */
}
