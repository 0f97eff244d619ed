/* Qwen 3.5, text: as Qwen3-Next without experts, and heads stand otherwise. */
#include "model/delta_net.h"

const struct arch arch_qwen35 = DELTA_NET_ARCH("qwen35", delta_net_adjust_tiled);
