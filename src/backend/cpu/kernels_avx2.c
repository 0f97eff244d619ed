/* The AVX2 tier: the plain C kernels compiled for it, with matmul and attention replaced. */
#include "backend/cpu/avx2.h"
#include "backend/cpu/kernels_tmpl.h"

static const struct cpu_format *format_avx2(enum tensor_type type, kg_activations activations)
{
    const struct cpu_format *f = activations == KG_ACT_INT8 ? avx2_int_format(type) : NULL;
    return f ? f : avx2_float_format(type);
}

void cpu_kernels_avx2(struct cpu_kernels *k)
{
    fill_kernels(k);
    k->format = format_avx2;
    k->attend = avx2_attend;
    k->attend_scratch_bytes = avx2_attend_scratch_bytes;
}
