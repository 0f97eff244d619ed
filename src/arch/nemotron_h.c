/* Nemotron H, Nemotron Nano v2: each layer is one of Mamba 2, attention without a rotation, and a feed-forward part of relu(x)^2. */
#include "model/ssm.h"

const struct arch arch_nemotron_h = SSM_EITHER_ARCH("nemotron_h");
