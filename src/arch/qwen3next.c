/* Qwen3-Next: gated delta nets, experts, one of them shared. */
#include "model/delta_net.h"

const struct arch arch_qwen3next = DELTA_NET_ARCH("qwen3next", delta_net_adjust);
