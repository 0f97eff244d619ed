/* Products of matrices by cuBLAS, found at run time like the driver; without it the engine's own kernels do them. KAGARI_CUBLAS=0 leaves it out. */
#include "backend/gpu/cuda/cuda.h"
#include "backend/gpu/device.h"

#include <dlfcn.h>
#include <stdlib.h>

enum { OP_N = 0, OP_T = 1, R_32F = 0, R_16F = 2, COMPUTE_32F = 68, ALGO_DEFAULT = -1 };

struct cublas {
    void *handle;
    int (*cublasCreate_v2)(void **);
    int (*cublasDestroy_v2)(void *);
    int (*cublasSetStream_v2)(void *, cu_stream);
    int (*cublasGemmEx)(void *, int, int, int, int, int, const void *, const void *, int, int, const void *, int, int, const void *, void *, int, int, int, int);
};

static bool load(struct cublas *b)
{
    static const char *const names[] = {"libcublas.so.13", "libcublas.so.12", "libcublas.so"};
    void *library = NULL;
    for (size_t i = 0; i < COUNT_OF(names) && !library; i++) library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    if (!library) return false;
    const struct {
        const char *name;
        void *to;
    } list[] = {{"cublasCreate_v2", &b->cublasCreate_v2}, {"cublasDestroy_v2", &b->cublasDestroy_v2}, {"cublasSetStream_v2", &b->cublasSetStream_v2}, {"cublasGemmEx", &b->cublasGemmEx}};
    for (size_t i = 0; i < COUNT_OF(list); i++) {
        void *f = dlsym(library, list[i].name);
        if (!f) return false;
        memcpy(list[i].to, &f, sizeof f);
    }
    return true;
}

struct cublas *cublas_open(cu_stream stream)
{
    const char *wanted = getenv("KAGARI_CUBLAS");
    struct cublas *b = wanted && *wanted == '0' ? NULL : calloc(1, sizeof *b);
    if (b && load(b) && b->cublasCreate_v2(&b->handle) == 0 && b->cublasSetStream_v2(b->handle, stream) == 0) return b;
    cublas_close(b);
    return NULL;
}

void cublas_close(struct cublas *b)
{
    if (b && b->handle) b->cublasDestroy_v2(b->handle);
    free(b);
}

/* Its matrices are stored by columns: what it computes is y transposed. */
int cublas_gemm(struct cublas *b, const struct gpu_gemm *m)
{
    const float one = 1, zero = 0;
    return b->cublasGemmEx(b->handle, OP_T, OP_N, m->rows, m->n, m->n_in, &one, (const char *)m->w + m->w_offset, R_16F, m->w_ld, m->x, R_16F, m->x_ld, &zero,
                           (float *)m->y + m->y_offset, R_32F, m->y_ld, COMPUTE_32F, ALGO_DEFAULT);
}
