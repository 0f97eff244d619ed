/* Mamba 2: the same with heads, which share one number of decay (Dao and Gu 2024). */
#include "model/ssm.h"

const struct arch arch_mamba2 = SSM_ARCH("mamba2");
