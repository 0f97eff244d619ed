/* A module "experts_*": products with the matrices of experts, for one layout of weights. FMT and the rest are set as for module_pack.h. */
#include "backend/gpu/kernels/params.h"
#include "backend/gpu/kernels/tune.h"
#include "backend/gpu/kernels/common.h"
#include "backend/gpu/kernels/format.h"
#include "backend/gpu/kernels/experts.h"

#define MX_NAME mx_f32
#define MX_I8 0
#include "backend/gpu/kernels/matvec_experts.h"
#undef MX_NAME
#undef MX_I8
#if FMT_CODE <= 8
#define MX_NAME mx_i8
#define MX_I8 1
#include "backend/gpu/kernels/matvec_experts.h"
#endif

#if FMT_CODE != 32
#include "backend/gpu/kernels/matmul_experts.h"
#endif
