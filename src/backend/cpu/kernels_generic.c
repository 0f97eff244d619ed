/* The plain C tier. */
#include "backend/cpu/kernels_tmpl.h"

void cpu_kernels_generic(struct cpu_kernels *k) { fill_kernels(k); }
