/* A module "wide_*": attention with wide heads. KV, KV_TYPE and KV_N are set. */
#include "backend/gpu/kernels/params.h"
#include "backend/gpu/kernels/tune.h"
#include "backend/gpu/kernels/common.h"
#include "backend/gpu/kernels/turn.h"
#include "backend/gpu/kernels/cache.h"
#include "backend/gpu/kernels/wide.h"
