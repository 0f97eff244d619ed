/* What the files of the AVX-512 tier share. */
#ifndef BACKEND_CPU_AVX512_H
#define BACKEND_CPU_AVX512_H

#include "backend/cpu/cpu.h"

const struct cpu_format *avx512_int_format(enum tensor_type type);   /* int8 activations; NULL: not a block type */
const struct cpu_format *avx512_float_format(enum tensor_type type, kg_activations activations); /* f32 or bf16 activations */

size_t avx512_attend_scratch_bytes(int n_rows, int k_dim, int v_dim);
void avx512_attend(const struct cpu_attend *a);

#endif
