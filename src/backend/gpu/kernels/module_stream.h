/* A module "stream_*": one token's matmuls whose weights come as streams, for one layout of weights. FMT and the rest are set as for
 * module_pack.h. Only for devices that can copy to shared memory beside everything else. */
#include "backend/gpu/kernels/params.h"
#include "backend/gpu/kernels/tune.h"
#include "backend/gpu/kernels/common.h"
#include "backend/gpu/kernels/feed.h"
#include "backend/gpu/kernels/format.h"

#define MS_FED 0
#define MS_NAME ms_f32
#define MS_I8 0
#include "backend/gpu/kernels/stream.h"
#undef MS_NAME
#undef MS_I8
#if FMT_CODE <= 8
#define MS_NAME ms_i8
#define MS_I8 1
#include "backend/gpu/kernels/stream.h"
#undef MS_NAME
#undef MS_FED
#define MS_NAME ms_fed
#define MS_FED 1
#include "backend/gpu/kernels/stream.h"
#undef MS_NAME
#undef MS_FED
#define MS_NAME ms_few
#define MS_FED 2
#include "backend/gpu/kernels/stream.h"
#endif
