/* What the engine needs of a device: memory, kernels by name, launches in order. One folder per kind of device implements it (emu, opencl,
 * cuda) and includes nothing of the engine but this and source.h. All work of one device runs in the order of the calls. */
#ifndef GPU_DEVICE_H
#define GPU_DEVICE_H

#include "base/base.h"

struct gpu_info {
    char name[160];    /* "NVIDIA H200, sm_90, driver 13.0" */
    size_t memory;     /* bytes; 0: unknown */
    int n_cores;       /* multiprocessors, compute units */
    int matvec_waves;  /* waves of a group that computes a matvec */
    int attend_waves;  /* most waves of a group of the attention, up to 32 */
    int mv_groups;     /* groups of a matvec per core that run at the same time */
    int stream_waves;  /* of a matmul with streams: copies to shared memory beside everything else, STREAM_ROOM of it; 0: it has none */
    bool attend_one;   /* one token's attention by a kernel of its own: measured on CUDA only */
    bool flash;        /* it has matrix operations on registers */
    bool gemm;         /* it has a library for products of matrices */
    bool fuses;        /* a token alone is prepared by the groups of its matvecs and of its attention, which saves launches; else by kernels of their own */
};

struct gpu_launch {
    void *kernel;
    unsigned grid[2], threads; /* groups in x and y, threads of a group */
    const void *params;
    size_t params_bytes, shared_bytes; /* shared_bytes: beyond what the kernel declares */
    void *buffers[13]; /* every one a buffer of this device */
    int n_buffers;
    bool overlap; /* may start while the launch before still runs: START() in the kernel waits for it */
    bool few;     /* tokens: all such launches have one split between shared memory and what is cached there, so that they do overlap */
};

/* y[t][row] = sum_i x[t][i] w[row][i]: w halves [rows][w_ld] from w_offset bytes, x halves [n][x_ld], y f32 [n][y_ld] from y_offset floats; f32 sums. */
struct gpu_gemm {
    const void *w, *x;
    void *y;
    size_t w_offset, y_offset;
    int rows, n, n_in, w_ld, x_ld, y_ld;
};

struct gpu_device {
    const char *name;
    kg_status (*open)(void **dev, struct gpu_info *info); /* KG_ERR_DEVICE and why, if there is none that can be used */
    void (*close)(void *dev);
    kg_status (*alloc)(void *dev, void **buffer, size_t n_bytes); /* zeroed */
    void (*free)(void *dev, void *buffer);                        /* after all work that uses it */
    /* A buffer, only to be read, of memory that lies where it is as long as the buffer. KG_ERR_UNSUPPORTED: this one cannot be used so. NULL: the device uses only its
     * own memory. */
    kg_status (*borrow)(void *dev, void **buffer, const void *data, size_t n_bytes);
    /* Uploads take src at once; what a download brings is there after the next sync. */
    kg_status (*upload)(void *dev, void *buffer, size_t offset, const void *src, size_t n_bytes);
    kg_status (*download)(void *dev, const void *buffer, size_t offset, void *dst, size_t n_bytes);
    kg_status (*copy)(void *dev, void *dst, size_t dst_offset, const void *src, size_t src_offset, size_t n_bytes);
    /* module: "basic", "attend_f16", "pack_n4_km" ...; the kernel lives as long as the device. */
    kg_status (*kernel)(void *dev, const char *module, const char *name, void **kernel);
    kg_status (*launch)(void *dev, const struct gpu_launch *l);
    kg_status (*gemm)(void *dev, const struct gpu_gemm *m); /* if info.gemm */
    kg_status (*sync)(void *dev);
    /* Memory of the host that kernels write while it looks (TELL_HOST); once, freed by close. Whether work is still under way, or how it failed. NULL: the device has neither. */
    kg_status (*share)(void *dev, void **buffer, void **host, size_t n_bytes);
    kg_status (*busy)(void *dev, bool *busy);
    /* Launches between begin and end are recorded, not run; record_run runs a recording. NULL: the device has none. */
    kg_status (*record_begin)(void *dev);
    kg_status (*record_end)(void *dev, void **recording); /* also after a failure between them; then *recording is NULL */
    kg_status (*record_run)(void *dev, void *recording);
    void (*record_free)(void *dev, void *recording);
};

#endif
