/* What the files of the AVX2 tier share. */
#ifndef BACKEND_CPU_AVX2_H
#define BACKEND_CPU_AVX2_H

#include "backend/cpu/cpu.h"

const struct cpu_format *avx2_int_format(enum tensor_type type);   /* int8 activations; NULL: not a block type */
const struct cpu_format *avx2_float_format(enum tensor_type type); /* f32 activations */

size_t avx2_attend_scratch_bytes(int n_rows, int k_dim, int v_dim);
void avx2_attend(const struct cpu_attend *a);

#endif
