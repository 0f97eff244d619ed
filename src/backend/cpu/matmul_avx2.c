#define VNNI 0
#include "backend/cpu/int_avx2_tmpl.h"

const struct cpu_format *avx2_int_format(enum tensor_type type) { return int_format(type); }
