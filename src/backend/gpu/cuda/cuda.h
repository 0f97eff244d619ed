/* What is used of the CUDA driver API, declared here so that no header of CUDA is needed, and the compiler at run time. */
#ifndef GPU_CUDA_H
#define GPU_CUDA_H

#include "base/base.h"

typedef struct cu_context_ *cu_context;
typedef struct cu_module_ *cu_module;
typedef struct cu_function_ *cu_function;
typedef struct cu_stream_ *cu_stream;
typedef struct cu_graph_ *cu_graph;
typedef struct cu_graph_exec_ *cu_graph_exec;
typedef unsigned long long cu_pointer;

struct cu_attribute {
    int id;
    char pad[4];
    union {
        int i;
        char size[64];
    } value;
};
struct cu_config {
    unsigned grid[3], block[3], shared_bytes;
    cu_stream stream;
    struct cu_attribute *attributes;
    unsigned n_attributes;
};
enum { CU_OUT_OF_MEMORY = 2 };

/* X(name, arguments); all return 0 or an error code. */
#define CUDA_API(X)                                                                  \
    X(cuInit, (unsigned))                                                            \
    X(cuDriverGetVersion, (int *))                                                   \
    X(cuDeviceGetCount, (int *))                                                     \
    X(cuDeviceGet, (int *, int))                                                     \
    X(cuDeviceGetName, (char *, int, int))                                           \
    X(cuDeviceGetAttribute, (int *, int, int))                                       \
    X(cuDevicePrimaryCtxRetain, (cu_context *, int))                                 \
    X(cuDevicePrimaryCtxRelease_v2, (int))                                           \
    X(cuCtxSetCurrent, (cu_context))                                                 \
    X(cuModuleLoadData, (cu_module *, const void *))                                 \
    X(cuModuleUnload, (cu_module))                                                   \
    X(cuFuncGetAttribute, (int *, int, cu_function))                                 \
    X(cuFuncSetAttribute, (cu_function, int, int))                                   \
    X(cuModuleGetFunction, (cu_function *, cu_module, const char *))                 \
    X(cuMemGetInfo_v2, (size_t *, size_t *))                                         \
    X(cuMemAlloc_v2, (cu_pointer *, size_t))                                         \
    X(cuMemFree_v2, (cu_pointer))                                                    \
    X(cuMemAllocHost_v2, (void **, size_t))                                          \
    X(cuMemFreeHost, (void *))                                                       \
    X(cuMemsetD8Async, (cu_pointer, unsigned char, size_t, cu_stream))               \
    X(cuMemcpyHtoDAsync_v2, (cu_pointer, const void *, size_t, cu_stream))           \
    X(cuMemcpyDtoHAsync_v2, (void *, cu_pointer, size_t, cu_stream))                 \
    X(cuMemcpyDtoDAsync_v2, (cu_pointer, cu_pointer, size_t, cu_stream))             \
    X(cuStreamCreate, (cu_stream *, unsigned))                                       \
    X(cuStreamDestroy_v2, (cu_stream))                                               \
    X(cuStreamSynchronize, (cu_stream))                                              \
    X(cuStreamQuery, (cu_stream))                                                    \
    X(cuLaunchKernelEx, (const struct cu_config *, cu_function, void **, void **))   \
    X(cuStreamBeginCapture_v2, (cu_stream, int))                                     \
    X(cuStreamEndCapture, (cu_stream, cu_graph *))                                   \
    X(cuGraphInstantiateWithFlags, (cu_graph_exec *, cu_graph, unsigned long long))  \
    X(cuGraphLaunch, (cu_graph_exec, cu_stream))                                     \
    X(cuGraphExecDestroy, (cu_graph_exec))                                           \
    X(cuGraphDestroy, (cu_graph))                                                    \
    X(cuGetErrorString, (int, const char **))

/* cublas.c: NULL if there is no such library, or it does not start. */
struct cublas;
struct gpu_gemm;
struct cublas *cublas_open(cu_stream stream);
void cublas_close(struct cublas *b);
int cublas_gemm(struct cublas *b, const struct gpu_gemm *m); /* cuBLAS's status */

/* Compiles a module for compute capability major.minor with NVRTC, or takes it from the cache on disk. */
kg_status cuda_compile(struct buf *cubin, const char *module, int major, int minor);

#endif
