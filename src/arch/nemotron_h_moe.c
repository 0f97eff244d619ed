/* Nemotron 3: as Nemotron H, with experts instead of the plain feed-forward part, in the larger ones within a narrower space. */
#include "model/ssm.h"

const struct arch arch_nemotron_h_moe = SSM_EITHER_ARCH("nemotron_h_moe");
