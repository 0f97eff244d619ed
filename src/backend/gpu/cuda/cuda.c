/* NVIDIA GPUs through the driver API, found at run time: no header or library of CUDA is needed to build. Kernels are machine code from the
 * build if nvcc was there, else (or for a GPU that the build did not know) compiled at run time by NVRTC and kept on disk.
 * Launches may overlap the end of the one before (programmatic dependent launch) on sm_90 and newer. A recording is a CUDA graph.
 * KAGARI_CUDA_DEVICE chooses a device by number, KAGARI_CUDA_PDL=0 turns overlapping off. */
#include "backend/gpu/cuda/cuda.h"
#include "backend/gpu/cuda/cuda_images.h"
#include "backend/gpu/gpu.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#define X(name, args) int(*name) args;
struct cuda {
    CUDA_API(X)
#undef X
    cu_context context;
    cu_stream stream;
    int device, major, minor;
    bool pdl;
    struct cublas *blas;
    struct cuda_module {
        char name[32];
        cu_module module;
    } modules[64];
    int n_modules;
    struct cuda_function *functions;
    size_t most_shared; /* bytes of a group */
    /* Pinned memory: what uploads and downloads of up to PIN bytes go through, so that the caller's memory is free at once. */
    uint8_t *pin_up, *pin_down;
    void *shared; /* with kernels */
    size_t up_used, down_used;
    struct cuda_pending {
        void *dst;
        size_t at, n_bytes;
    } pending[16]; /* downloads that the next sync hands over */
    int n_pending;
};

/* What a kernel is to the engine. Attributes are set once: setting them again makes later runs of recordings slower (bench/NOTES.md). */
struct cuda_function {
    cu_function f;
    bool split; /* has the split between shared memory and L1 of launches with few tokens */
    struct cuda_function *next;
};

enum { PIN = 4 << 20 };

static kg_status failed(struct cuda *c, const char *what, int code)
{
    const char *text = NULL;
    if (c->cuGetErrorString) c->cuGetErrorString(code, &text);
    return status_set(code == CU_OUT_OF_MEMORY ? KG_ERR_MEMORY : KG_ERR_DEVICE, "cuda: %s: %s (error %d)", what, text ? text : "unknown", code);
}
#define CU_TRY(c, what, expr)                           \
    do {                                                \
        int code_ = (expr);                             \
        if (code_ != 0) return failed(c, what, code_);  \
    } while (0)

static kg_status load_driver(struct cuda *c)
{
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) return status_set(KG_ERR_DEVICE, "cuda: this machine has no NVIDIA driver (libcuda.so.1)");
#define X(name, args)                                                                                                          \
    {                                                                                                                          \
        void *f = dlsym(library, #name);                                                                                       \
        if (!f) return status_set(KG_ERR_DEVICE, "cuda: the NVIDIA driver is too old: it has no %s", #name);                   \
        memcpy(&c->name, &f, sizeof f);                                                                                        \
    }
    CUDA_API(X)
#undef X
    return KG_OK;
}

static void cuda_close(void *dev)
{
    struct cuda *c = dev;
    if (!c) return;
    if (c->stream) c->cuStreamSynchronize(c->stream);
    cublas_close(c->blas);
    for (struct cuda_function *f = c->functions, *next; f; f = next) {
        next = f->next;
        free(f);
    }
    for (int i = 0; i < c->n_modules; i++) c->cuModuleUnload(c->modules[i].module);
    if (c->pin_up) c->cuMemFreeHost(c->pin_up);
    if (c->pin_down) c->cuMemFreeHost(c->pin_down);
    if (c->shared) c->cuMemFreeHost(c->shared);
    if (c->stream) c->cuStreamDestroy_v2(c->stream);
    if (c->context) c->cuDevicePrimaryCtxRelease_v2(c->device);
    free(c);
}

static kg_status open_device(struct cuda *c, struct gpu_info *info)
{
    enum { CORES = 16, MAJOR = 75, MINOR = 76, MOST_SHARED = 97 };
    const char *chosen = getenv("KAGARI_CUDA_DEVICE"), *pdl = getenv("KAGARI_CUDA_PDL");
    int n = 0, version = 0, cores = 1, shared = 0;
    char name[80] = "";
    size_t free_bytes = 0, all_bytes = 0;
    KG_TRY(load_driver(c));
    CU_TRY(c, "the driver does not start", c->cuInit(0));
    CU_TRY(c, "device count", c->cuDeviceGetCount(&n));
    int number = chosen && *chosen ? atoi(chosen) : 0;
    if (number < 0 || number >= n) return status_set(KG_ERR_DEVICE, "cuda: no device %d: this machine has %d", number, n);
    CU_TRY(c, "device", c->cuDeviceGet(&c->device, number));
    CU_TRY(c, "device name", c->cuDeviceGetName(name, sizeof name - 1, c->device));
    CU_TRY(c, "device attribute", c->cuDeviceGetAttribute(&c->major, MAJOR, c->device));
    CU_TRY(c, "device attribute", c->cuDeviceGetAttribute(&c->minor, MINOR, c->device));
    CU_TRY(c, "device attribute", c->cuDeviceGetAttribute(&cores, CORES, c->device));
    CU_TRY(c, "device attribute", c->cuDeviceGetAttribute(&shared, MOST_SHARED, c->device));
    CU_TRY(c, "driver version", c->cuDriverGetVersion(&version));
    if (c->major < 8) return status_set(KG_ERR_DEVICE, "cuda: %s has compute capability %d.%d: 8.0 is needed", name, c->major, c->minor);
    CU_TRY(c, "context", c->cuDevicePrimaryCtxRetain(&c->context, c->device));
    CU_TRY(c, "context", c->cuCtxSetCurrent(c->context));
    CU_TRY(c, "memory", c->cuMemGetInfo_v2(&free_bytes, &all_bytes));
    CU_TRY(c, "stream", c->cuStreamCreate(&c->stream, 1));
    void *pinned = NULL;
    CU_TRY(c, "pinned memory", c->cuMemAllocHost_v2(&pinned, PIN));
    c->pin_up = pinned;
    CU_TRY(c, "pinned memory", c->cuMemAllocHost_v2(&pinned, PIN));
    c->pin_down = pinned;
    c->most_shared = (size_t)shared;
    c->pdl = c->major >= 9 && !(pdl && *pdl == '0');
    c->blas = cublas_open(c->stream);
    *info = (struct gpu_info){.stream_waves = c->major == 9 || c->major == 10 ? 24 : 0, .attend_one = true, .flash = true, .gemm = c->blas != NULL, .memory = all_bytes, .n_cores = cores, .matvec_waves = 16, .attend_waves = 32, .mv_groups = 2, .fuses = true};
    snprintf(info->name, sizeof info->name, "%s, sm_%d%d, CUDA driver %d.%d", name, c->major, c->minor, version / 1000, version % 1000 / 10);
    return KG_OK;
}

static kg_status cuda_open(void **dev, struct gpu_info *info)
{
    struct cuda *c = calloc(1, sizeof *c);
    if (!c) return status_set(KG_ERR_MEMORY, "out of memory");
    kg_status status = open_device(c, info);
    if (status == KG_OK) *dev = c;
    else cuda_close(c);
    return status;
}

/* ---- memory ---- */

static cu_pointer pointer_of(const void *buffer) { return (cu_pointer)(uintptr_t)buffer; }
/* Every call may come from another thread. */
static kg_status enter(struct cuda *c)
{
    CU_TRY(c, "context", c->cuCtxSetCurrent(c->context));
    return KG_OK;
}

static kg_status cuda_alloc(void *dev, void **buffer, size_t n_bytes)
{
    struct cuda *c = dev;
    cu_pointer p = 0;
    KG_TRY(enter(c));
    int code = c->cuMemAlloc_v2(&p, n_bytes);
    if (code == CU_OUT_OF_MEMORY) return status_set(KG_ERR_MEMORY, "cuda: no device memory for %zu bytes", n_bytes);
    CU_TRY(c, "memory", code);
    code = c->cuMemsetD8Async(p, 0, n_bytes, c->stream);
    if (code != 0) {
        c->cuMemFree_v2(p);
        return failed(c, "memory", code);
    }
    *buffer = (void *)(uintptr_t)p;
    return KG_OK;
}

static void cuda_free(void *dev, void *buffer)
{
    struct cuda *c = dev;
    if (enter(c) == KG_OK) c->cuMemFree_v2(pointer_of(buffer));
}

static kg_status cuda_sync(void *dev)
{
    struct cuda *c = dev;
    KG_TRY(enter(c));
    CU_TRY(c, "the device failed", c->cuStreamSynchronize(c->stream));
    for (int i = 0; i < c->n_pending; i++) memcpy(c->pending[i].dst, c->pin_down + c->pending[i].at, c->pending[i].n_bytes);
    c->n_pending = 0;
    c->up_used = c->down_used = 0;
    return KG_OK;
}

/* Pinned memory has the same address on the device. */
static kg_status cuda_share(void *dev, void **buffer, void **host, size_t n_bytes)
{
    struct cuda *c = dev;
    KG_TRY(enter(c));
    CU_TRY(c, "pinned memory", c->cuMemAllocHost_v2(&c->shared, n_bytes));
    *buffer = *host = c->shared;
    return KG_OK;
}

static kg_status cuda_busy(void *dev, bool *busy)
{
    enum { NOT_READY = 600 };
    struct cuda *c = dev;
    KG_TRY(enter(c));
    int code = c->cuStreamQuery(c->stream);
    *busy = code == NOT_READY;
    return *busy || code == 0 ? KG_OK : failed(c, "the device failed", code);
}

static kg_status cuda_upload(void *dev, void *buffer, size_t offset, const void *src, size_t n_bytes)
{
    struct cuda *c = dev;
    KG_TRY(enter(c));
    for (size_t at = 0; at < n_bytes;) {
        if (c->up_used == PIN) KG_TRY(cuda_sync(c));
        size_t n = MIN(n_bytes - at, PIN - c->up_used);
        memcpy(c->pin_up + c->up_used, (const uint8_t *)src + at, n);
        CU_TRY(c, "upload", c->cuMemcpyHtoDAsync_v2(pointer_of(buffer) + offset + at, c->pin_up + c->up_used, n, c->stream));
        c->up_used = MIN(ROUND_UP(c->up_used + n, (size_t)64), (size_t)PIN);
        at += n;
    }
    return KG_OK;
}

static kg_status cuda_download(void *dev, const void *buffer, size_t offset, void *dst, size_t n_bytes)
{
    struct cuda *c = dev;
    KG_TRY(enter(c));
    for (size_t at = 0; at < n_bytes;) {
        if (c->down_used == PIN || c->n_pending == (int)COUNT_OF(c->pending)) KG_TRY(cuda_sync(c));
        size_t n = MIN(n_bytes - at, PIN - c->down_used);
        CU_TRY(c, "download", c->cuMemcpyDtoHAsync_v2(c->pin_down + c->down_used, pointer_of(buffer) + offset + at, n, c->stream));
        c->pending[c->n_pending++] = (struct cuda_pending){(uint8_t *)dst + at, c->down_used, n};
        c->down_used = MIN(ROUND_UP(c->down_used + n, (size_t)64), (size_t)PIN);
        at += n;
    }
    return KG_OK;
}

static kg_status cuda_copy(void *dev, void *dst, size_t dst_offset, const void *src, size_t src_offset, size_t n_bytes)
{
    struct cuda *c = dev;
    KG_TRY(enter(c));
    CU_TRY(c, "copy", c->cuMemcpyDtoDAsync_v2(pointer_of(dst) + dst_offset, pointer_of(src) + src_offset, n_bytes, c->stream));
    return KG_OK;
}

/* ---- kernels ---- */

static kg_status load_module(struct cuda *c, const char *name, cu_module *out)
{
    const void *image = cuda_image(name);
    const char *force = getenv("KAGARI_CUDA_NVRTC");
    int code = image && !(force && *force == '1') ? c->cuModuleLoadData(out, image) : -1;
    if (code == 0) return KG_OK;
    struct buf made = {0};
    kg_status status = cuda_compile(&made, name, c->major, c->minor);
    if (status == KG_OK) {
        code = c->cuModuleLoadData(out, made.data);
        if (code != 0) status = failed(c, name, code);
    }
    buf_free(&made);
    return status;
}

/* The function may have all of a group's shared memory. */
static kg_status add_function(struct cuda *c, const char *name, cu_function f)
{
    enum { OWN_SHARED = 1, MOST_DYNAMIC = 8 };
    int own = 0;
    struct cuda_function *k = calloc(1, sizeof *k);
    if (!k) return status_set(KG_ERR_MEMORY, "out of memory");
    *k = (struct cuda_function){.f = f, .next = c->functions};
    c->functions = k;
    CU_TRY(c, name, c->cuFuncGetAttribute(&own, OWN_SHARED, f));
    CU_TRY(c, name, c->cuFuncSetAttribute(f, MOST_DYNAMIC, (int)c->most_shared - own));
    return KG_OK;
}

static kg_status cuda_kernel(void *dev, const char *module, const char *name, void **kernel)
{
    struct cuda *c = dev;
    KG_TRY(enter(c));
    struct cuda_module *m = c->modules;
    while (m < c->modules + c->n_modules && strcmp(m->name, module)) m++;
    if (m == c->modules + c->n_modules) {
        if (c->n_modules == (int)COUNT_OF(c->modules)) return status_set(KG_ERR_DEVICE, "cuda: too many modules");
        KG_TRY(load_module(c, module, &m->module));
        snprintf(m->name, sizeof m->name, "%s", module);
        c->n_modules++;
    }
    cu_function f = NULL;
    CU_TRY(c, name, c->cuModuleGetFunction(&f, m->module, name));
    struct cuda_function *k = c->functions;
    while (k && k->f != f) k = k->next;
    if (!k) KG_TRY(add_function(c, name, f));
    *kernel = k ? k : c->functions;
    return KG_OK;
}

static kg_status cuda_launch(void *dev, const struct gpu_launch *l)
{
    struct cuda *c = dev;
    struct cuda_function *k = l->kernel;
    cu_pointer buffers[COUNT_OF(l->buffers)];
    void *args[COUNT_OF(l->buffers) + 1] = {(void *)(uintptr_t)l->params};
    KG_TRY(enter(c));
    for (int i = 0; i < l->n_buffers; i++) {
        buffers[i] = pointer_of(l->buffers[i]);
        args[i + 1] = &buffers[i];
    }
    if (l->few && c->pdl && !k->split) { /* one split for all: a multiprocessor changes it only when it is empty */
        CU_TRY(c, "shared memory", c->cuFuncSetAttribute(k->f, 9 /* preferred share of shared memory, in percent */, 100));
        k->split = true;
    }
    struct cu_attribute overlap = {.id = 6 /* programmatic stream serialization */, .value = {.i = 1}};
    struct cu_config config = {.grid = {l->grid[0], l->grid[1], 1}, .block = {l->threads, 1, 1}, .shared_bytes = (unsigned)l->shared_bytes, .stream = c->stream, .attributes = &overlap, .n_attributes = c->pdl && l->overlap};
    CU_TRY(c, "launch", c->cuLaunchKernelEx(&config, k->f, args, NULL));
    return KG_OK;
}

static kg_status cuda_gemm(void *dev, const struct gpu_gemm *m)
{
    struct cuda *c = dev;
    KG_TRY(enter(c));
    int code = cublas_gemm(c->blas, m);
    return code == 0 ? KG_OK : status_set(KG_ERR_DEVICE, "cuda: cuBLAS failed with status %d", code);
}

/* ---- recordings ---- */

static kg_status cuda_record_begin(void *dev)
{
    struct cuda *c = dev;
    KG_TRY(enter(c));
    CU_TRY(c, "recording", c->cuStreamBeginCapture_v2(c->stream, 2 /* relaxed */));
    return KG_OK;
}

static kg_status cuda_record_end(void *dev, void **recording)
{
    struct cuda *c = dev;
    cu_graph graph = NULL;
    cu_graph_exec exec = NULL;
    *recording = NULL;
    KG_TRY(enter(c));
    CU_TRY(c, "recording", c->cuStreamEndCapture(c->stream, &graph));
    int code = c->cuGraphInstantiateWithFlags(&exec, graph, 0);
    c->cuGraphDestroy(graph);
    CU_TRY(c, "recording", code);
    *recording = exec;
    return KG_OK;
}

static kg_status cuda_record_run(void *dev, void *recording)
{
    struct cuda *c = dev;
    KG_TRY(enter(c));
    CU_TRY(c, "recorded launches", c->cuGraphLaunch(recording, c->stream));
    return KG_OK;
}

static void cuda_record_free(void *dev, void *recording)
{
    struct cuda *c = dev;
    if (cuda_sync(c) == KG_OK) c->cuGraphExecDestroy(recording);
}

static const struct gpu_device device = {
    .name = "cuda",
    .open = cuda_open,
    .close = cuda_close,
    .alloc = cuda_alloc,
    .free = cuda_free,
    .upload = cuda_upload,
    .download = cuda_download,
    .copy = cuda_copy,
    .kernel = cuda_kernel,
    .launch = cuda_launch,
    .gemm = cuda_gemm,
    .sync = cuda_sync,
    .share = cuda_share,
    .busy = cuda_busy,
    .record_begin = cuda_record_begin,
    .record_end = cuda_record_end,
    .record_run = cuda_record_run,
    .record_free = cuda_record_free,
};

static kg_status cuda_devices(struct backend_device *out, int most, int *n)
{
    enum { MAJOR = 75, MINOR = 76 };
    const char *chosen = getenv("KAGARI_CUDA_DEVICE");
    struct cuda c = {0};
    int version = 0, all = 0;
    *n = 0;
    KG_TRY(load_driver(&c));
    CU_TRY(&c, "the driver does not start", c.cuInit(0));
    CU_TRY(&c, "driver version", c.cuDriverGetVersion(&version));
    CU_TRY(&c, "device count", c.cuDeviceGetCount(&all));
    if (all == 0) return status_set(KG_ERR_DEVICE, "cuda: the NVIDIA driver has no device");
    for (int i = 0; i < MIN(all, most); i++) {
        struct backend_device *d = &out[i];
        int major = 0, minor = 0, number = 0;
        cu_context context = NULL;
        size_t free_bytes = 0, all_bytes = 0;
        *d = (struct backend_device){.is_gpu = true, .chosen = i == (chosen && *chosen ? atoi(chosen) : 0)};
        ++*n;
        int code = c.cuDeviceGet(&number, i);
        if (code == 0) code = c.cuDeviceGetName(d->name, sizeof d->name - 1, number);
        if (code == 0) code = c.cuDeviceGetAttribute(&major, MAJOR, number);
        if (code == 0) code = c.cuDeviceGetAttribute(&minor, MINOR, number);
        snprintf(d->driver, sizeof d->driver, "sm_%d%d, CUDA driver %d.%d", major, minor, version / 1000, version % 1000 / 10);
        if (code == 0 && major < 8) snprintf(d->why, sizeof d->why, "its compute capability is %d.%d: 8.0 is needed", major, minor);
        if (code == 0) code = c.cuDevicePrimaryCtxRetain(&context, number);
        if (code == 0) code = c.cuCtxSetCurrent(context);
        if (code == 0) code = c.cuMemGetInfo_v2(&free_bytes, &all_bytes);
        if (context) c.cuDevicePrimaryCtxRelease_v2(number);
        d->memory = all_bytes;
        d->memory_free = free_bytes;
        if (code != 0 && !d->why[0]) {
            failed(&c, "it does not start", code);
            snprintf(d->why, sizeof d->why, "%.300s", kg_error_message());
        }
    }
    return KG_OK;
}

static kg_status open_cuda(void **ctx, const struct program *p, const struct backend_params *params) { return gpu_open(ctx, p, params, &device); }
static kg_status open_meter(void **meter, int n_threads)
{
    (void)n_threads;
    return gpu_meter_open(meter, &device);
}
static const struct backend_meter meter = {.open = open_meter, .close = gpu_meter_close, .run = gpu_meter_run};

const struct backend backend_cuda = {
    .name = "cuda",
    .what = "NVIDIA GPUs of compute capability 8.0 and newer",
    .open = open_cuda,
    .devices = cuda_devices,
    .meter = &meter,
    GPU_BACKEND_FUNCTIONS
};
