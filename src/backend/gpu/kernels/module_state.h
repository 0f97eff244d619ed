/* The module "state". */
#include "backend/gpu/kernels/params.h"
#include "backend/gpu/kernels/tune.h"
#include "backend/gpu/kernels/common.h"
#include "backend/gpu/kernels/state.h"
