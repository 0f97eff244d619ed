#define VNNI 1
#define DPBUSD _mm256_dpbusd_epi32
#include "backend/cpu/int_avx2_tmpl.h"

const struct cpu_format *vnni256_int_format(enum tensor_type type) { return int_format(type); }
