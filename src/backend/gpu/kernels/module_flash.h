/* A module "flash_*": HD is set. */
#include "backend/gpu/kernels/params.h"
#include "backend/gpu/kernels/tune.h"
#include "backend/gpu/kernels/common.h"
#include "backend/gpu/kernels/feed.h"
#include "backend/gpu/kernels/turn.h"
#include "backend/gpu/kernels/flash.h"
#include "backend/gpu/kernels/flash_one.h"
