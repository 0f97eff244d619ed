/* A module "pack_*", the kernels of one layout of weights: FMT, FMT_CODE, FMT_BOOK, FMT_SCALE and FMT_OFFSET are set. */
#include "backend/gpu/kernels/params.h"
#include "backend/gpu/kernels/tune.h"
#include "backend/gpu/kernels/common.h"
#include "backend/gpu/kernels/format.h"
#include "backend/gpu/kernels/embed.h"

#define MV_I8 0
#define MV_ROWS 2
#define MV_THREADS 256
#define MV_NAME mv1_f32
#define MV_T 1
#define MV_PRO 1
#include "backend/gpu/kernels/matvec.h"
#undef MV_NAME
#undef MV_T
#undef MV_PRO
#define MV_NAME mv2_f32
#define MV_T 2
#define MV_PRO 0
#include "backend/gpu/kernels/matvec.h"
#undef MV_NAME
#undef MV_T
#undef MV_PRO
#undef MV_I8
#undef MV_THREADS
#if FMT_CODE <= 8
#define MV_I8 1
#define MV_THREADS 512
#define MV_NAME mv1_i8
#define MV_T 1
#define MV_PRO 1
#include "backend/gpu/kernels/matvec.h"
#undef MV_NAME
#undef MV_ROWS
#undef MV_THREADS
#define MV_THREADS 256
#define MV_NAME mv1r4_i8
#define MV_ROWS 4
#include "backend/gpu/kernels/matvec.h"
#undef MV_NAME
#undef MV_ROWS
#undef MV_T
#undef MV_PRO
#define MV_ROWS 2
#define MV_NAME mv4_i8
#define MV_T 4
#define MV_PRO 0
#include "backend/gpu/kernels/matvec.h"
#endif

#include "backend/gpu/kernels/matmul.h"
