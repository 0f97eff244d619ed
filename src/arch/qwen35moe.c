/* Qwen 3.5 with experts, text. */
#include "model/delta_net.h"

const struct arch arch_qwen35moe = DELTA_NET_ARCH("qwen35moe", delta_net_adjust_tiled);
