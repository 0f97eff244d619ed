/* The AVX-512 tier: the plain C kernels compiled for it, with matmul and attention replaced. */
#include "backend/cpu/avx512.h"
#include "backend/cpu/kernels_tmpl.h"

static const struct cpu_format *format_avx512(enum tensor_type type, kg_activations activations)
{
    const struct cpu_format *f = activations == KG_ACT_INT8 ? avx512_int_format(type) : NULL;
    return f ? f : avx512_float_format(type, activations);
}

void cpu_kernels_avx512(struct cpu_kernels *k)
{
    fill_kernels(k);
    k->format = format_avx512;
    k->attend = avx512_attend;
    k->attend_scratch_bytes = avx512_attend_scratch_bytes;
}
