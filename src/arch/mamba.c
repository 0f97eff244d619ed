/* Mamba: nothing but selective state spaces (Gu and Dao 2023). Falcon Mamba norms steps, B and C. */
#include "model/ssm.h"

const struct arch arch_mamba = SSM_ARCH("mamba");
