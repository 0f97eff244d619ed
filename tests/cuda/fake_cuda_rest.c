/* What of the driver's functions fake_cuda.c does not have: there, and not supported. */
#include "backend/gpu/cuda/cuda.h"

#define X(name, args)                                                     \
    int name args;                                                        \
    __attribute__((weak, visibility("default"))) int name args { return 801; }
CUDA_API(X)
