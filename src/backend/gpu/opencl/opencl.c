/* OpenCL 1.2 devices through the ICD loader, found at run time: no header or library of OpenCL is needed to build. The best device is the
 * GPU with the most compute units, else any other device. KAGARI_OPENCL_DEVICE chooses by a part of the name. */
#include "backend/gpu/gpu.h"
#include "backend/gpu/source.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct platform *platform_id;
typedef struct device_id_ *device_id;
typedef struct context_ *context_id;
typedef struct queue_ *queue_id;
typedef struct mem_ *mem_id;
typedef struct program_ *program_id;
typedef struct kernel_ *kernel_id;

enum {
    TYPE_GPU = 4, DEVICE_TYPE = 0x1000, COMPUTE_UNITS = 0x1002, MAX_GROUP = 0x1004, GLOBAL_MEMORY = 0x101f, LOCAL_MEMORY = 0x1023,
    DEVICE_NAME = 0x102b, DRIVER_VERSION = 0x102d, DEVICE_VERSION = 0x102f, BUILD_LOG = 0x1183, READ_WRITE = 1,
};
#define TYPE_ALL 0xffffffffu

/* X(result, name, arguments): what is used of the library. */
#define API(X)                                                                                                                          \
    X(int, clGetPlatformIDs, (unsigned, platform_id *, unsigned *))                                                                     \
    X(int, clGetDeviceIDs, (platform_id, uint64_t, unsigned, device_id *, unsigned *))                                                  \
    X(int, clGetDeviceInfo, (device_id, unsigned, size_t, void *, size_t *))                                                            \
    X(context_id, clCreateContext, (const intptr_t *, unsigned, const device_id *, void (*)(const char *, const void *, size_t, void *), void *, int *)) \
    X(int, clReleaseContext, (context_id))                                                                                              \
    X(queue_id, clCreateCommandQueue, (context_id, device_id, uint64_t, int *))                                                         \
    X(int, clReleaseCommandQueue, (queue_id))                                                                                           \
    X(mem_id, clCreateBuffer, (context_id, uint64_t, size_t, void *, int *))                                                            \
    X(int, clReleaseMemObject, (mem_id))                                                                                                \
    X(program_id, clCreateProgramWithSource, (context_id, unsigned, const char **, const size_t *, int *))                              \
    X(int, clBuildProgram, (program_id, unsigned, const device_id *, const char *, void (*)(program_id, void *), void *))               \
    X(int, clGetProgramBuildInfo, (program_id, device_id, unsigned, size_t, void *, size_t *))                                          \
    X(int, clReleaseProgram, (program_id))                                                                                              \
    X(kernel_id, clCreateKernel, (program_id, const char *, int *))                                                                     \
    X(int, clReleaseKernel, (kernel_id))                                                                                                \
    X(int, clSetKernelArg, (kernel_id, unsigned, size_t, const void *))                                                                 \
    X(int, clEnqueueNDRangeKernel, (queue_id, kernel_id, unsigned, const size_t *, const size_t *, const size_t *, unsigned, const void *, void *)) \
    X(int, clEnqueueWriteBuffer, (queue_id, mem_id, unsigned, size_t, size_t, const void *, unsigned, const void *, void *))            \
    X(int, clEnqueueReadBuffer, (queue_id, mem_id, unsigned, size_t, size_t, void *, unsigned, const void *, void *))                   \
    X(int, clEnqueueCopyBuffer, (queue_id, mem_id, mem_id, size_t, size_t, size_t, unsigned, const void *, void *))                     \
    X(int, clEnqueueFillBuffer, (queue_id, mem_id, const void *, size_t, size_t, size_t, unsigned, const void *, void *))               \
    X(int, clFinish, (queue_id))

struct module {
    char name[32];
    program_id program;
};
struct cl_kernel {
    kernel_id k;
    struct cl_kernel *next;
};

struct cl {
    void *library;
#define X(result, name, args) result(*name) args;
    API(X)
#undef X
    device_id device;
    context_id context;
    queue_id queue;
    struct module modules[32];
    int n_modules;
    struct cl_kernel *kernels;
};

static kg_status failed(const char *what, int code)
{
    kg_status status = code == -4 || code == -5 || code == -6 || code == -61 ? KG_ERR_MEMORY : KG_ERR_DEVICE;
    return status_set(status, "opencl: %s: error %d%s", what, code, code == -5 ? " (out of device memory, or the device has failed)" : status == KG_ERR_MEMORY ? " (out of device memory)" : "");
}
#define CL_TRY(what, expr)                               \
    do {                                                 \
        int code_ = (expr);                              \
        if (code_ != 0) return failed(what, code_);      \
    } while (0)

static kg_status load_library(struct cl *c)
{
    c->library = dlopen("libOpenCL.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!c->library) return status_set(KG_ERR_DEVICE, "opencl: this machine has no OpenCL loader (libOpenCL.so.1)");
#define X(result, name, args)                                                                                                 \
    {                                                                                                                         \
        void *f = dlsym(c->library, #name);                                                                                   \
        if (!f) return status_set(KG_ERR_DEVICE, "opencl: libOpenCL.so.1 has no %s: OpenCL 1.2 is needed", #name);            \
        memcpy(&c->name, &f, sizeof f);                                                                                       \
    }
    API(X)
#undef X
    return KG_OK;
}

static void device_name(const struct cl *c, device_id d, char *name, size_t size)
{
    name[0] = 0;
    c->clGetDeviceInfo(d, DEVICE_NAME, size, name, NULL);
    name[size - 1] = 0;
}

enum { GROUP_NEEDED = 256, LOCAL_NEEDED = 32768 };

/* Fills *out; the device is usable unless out->why says why not. */
static void describe(const struct cl *c, device_id d, struct backend_device *out)
{
    uint64_t type = 0, local = 0;
    size_t group = 0;
    *out = (struct backend_device){0};
    device_name(c, d, out->name, sizeof out->name);
    snprintf(out->driver, sizeof out->driver, "OpenCL driver ");
    c->clGetDeviceInfo(d, DRIVER_VERSION, sizeof out->driver - 15, out->driver + 14, NULL);
    out->driver[sizeof out->driver - 1] = 0;
    c->clGetDeviceInfo(d, GLOBAL_MEMORY, sizeof out->memory, &out->memory, NULL);
    c->clGetDeviceInfo(d, DEVICE_TYPE, sizeof type, &type, NULL);
    c->clGetDeviceInfo(d, LOCAL_MEMORY, sizeof local, &local, NULL);
    c->clGetDeviceInfo(d, MAX_GROUP, sizeof group, &group, NULL);
    out->is_gpu = type & TYPE_GPU;
    if (group < GROUP_NEEDED || local < LOCAL_NEEDED)
        snprintf(out->why, sizeof out->why, "groups of %zu threads and %llu bytes of local memory: %d and %d are needed", group, (unsigned long long)local,
                 GROUP_NEEDED, LOCAL_NEEDED);
}

/* All devices of all platforms, at most `most`; *best is the one that open takes, -1: none. */
static kg_status list_devices(const struct cl *c, device_id *ids, struct backend_device *out, int most, int *n, int *best)
{
    platform_id platforms[16];
    unsigned n_platforms = 0;
    const char *wanted = getenv("KAGARI_OPENCL_DEVICE");
    long best_score = -1;
    *n = 0;
    *best = -1;
    int code = c->clGetPlatformIDs(16, platforms, &n_platforms);
    for (unsigned p = 0; code == 0 && p < MIN(n_platforms, 16u); p++) {
        device_id found[16];
        unsigned n_found = 0;
        if (c->clGetDeviceIDs(platforms[p], TYPE_ALL, 16, found, &n_found) != 0) continue;
        for (unsigned i = 0; i < MIN(n_found, 16u) && *n < most; i++) {
            unsigned units = 0;
            struct backend_device *d = &out[*n];
            describe(c, found[i], d);
            c->clGetDeviceInfo(found[i], COMPUTE_UNITS, sizeof units, &units, NULL);
            long score = (long)units + (d->is_gpu ? 1000000 : 0) + (d->why[0] ? 0 : 10000000);
            ids[*n] = found[i];
            if (!(wanted && *wanted && !strstr(d->name, wanted)) && score > best_score) {
                best_score = score;
                *best = *n;
            }
            ++*n;
        }
    }
    if (*n == 0) return status_set(KG_ERR_DEVICE, "opencl: the OpenCL loader knows no device: its driver is missing");
    if (*best < 0) return status_set(KG_ERR_DEVICE, "opencl: no device whose name contains %s", wanted);
    out[*best].chosen = true;
    return KG_OK;
}

enum { DEVICES_MOST = 32 };

static kg_status cl_devices(struct backend_device *out, int most, int *n)
{
    struct cl c = {0};
    device_id ids[DEVICES_MOST];
    int best;
    *n = 0;
    KG_TRY(load_library(&c));
    return list_devices(&c, ids, out, MIN(most, (int)DEVICES_MOST), n, &best);
}

static void cl_close(void *dev)
{
    struct cl *c = dev;
    if (!c) return;
    for (struct cl_kernel *k = c->kernels, *next; k; k = next) {
        next = k->next;
        c->clReleaseKernel(k->k);
        free(k);
    }
    for (int i = 0; i < c->n_modules; i++) c->clReleaseProgram(c->modules[i].program);
    if (c->queue) c->clReleaseCommandQueue(c->queue);
    if (c->context) c->clReleaseContext(c->context);
    /* the library stays: some drivers leave threads behind */
    free(c);
}

static kg_status open_device(struct cl *c, struct gpu_info *info)
{
    KG_TRY(load_library(c));
    struct backend_device list[DEVICES_MOST];
    device_id ids[DEVICES_MOST];
    int n = 0, best = -1;
    unsigned units = 1;
    KG_TRY(list_devices(c, ids, list, DEVICES_MOST, &n, &best));
    const struct backend_device *d = &list[best];
    if (d->why[0]) return status_set(KG_ERR_DEVICE, "opencl: %.100s has %.300s", d->name, d->why);
    c->device = ids[best];
    c->clGetDeviceInfo(c->device, COMPUTE_UNITS, sizeof units, &units, NULL);
    int code = 0;
    c->context = c->clCreateContext(NULL, 1, &c->device, NULL, NULL, &code);
    CL_TRY("context", code);
    c->queue = c->clCreateCommandQueue(c->context, c->device, 0, &code);
    CL_TRY("queue", code);
    /* On processors a launch costs nothing; and PoCL 3.1 takes half a minute for each fused matvec, and computes the fused attention wrong. */
    *info = (struct gpu_info){.memory = (size_t)d->memory, .n_cores = (int)MAX(units, 1u), .matvec_waves = d->is_gpu ? 8 : 1, .attend_waves = d->is_gpu ? 8 : 2,
                              .mv_groups = d->is_gpu ? 2 : 8, .fuses = d->is_gpu};
    snprintf(info->name, sizeof info->name, "%.100s, %.50s", d->name, d->driver);
    return KG_OK;
}

static kg_status cl_open(void **dev, struct gpu_info *info)
{
    struct cl *c = calloc(1, sizeof *c);
    if (!c) return status_set(KG_ERR_MEMORY, "out of memory");
    kg_status status = open_device(c, info);
    if (status == KG_OK) *dev = c;
    else cl_close(c);
    return status;
}

static kg_status cl_alloc(void *dev, void **buffer, size_t n_bytes)
{
    struct cl *c = dev;
    int code = 0;
    const uint32_t zero = 0;
    n_bytes = ROUND_UP(n_bytes, (size_t)64);
    mem_id m = c->clCreateBuffer(c->context, READ_WRITE, n_bytes, NULL, &code);
    if (code != 0) return failed("a buffer", code);
    code = c->clEnqueueFillBuffer(c->queue, m, &zero, sizeof zero, 0, n_bytes, 0, NULL, NULL);
    if (code != 0) {
        c->clReleaseMemObject(m);
        return failed("a buffer", code);
    }
    *buffer = m;
    return KG_OK;
}

static void cl_free(void *dev, void *buffer) { ((struct cl *)dev)->clReleaseMemObject(buffer); }

static kg_status cl_upload(void *dev, void *buffer, size_t offset, const void *src, size_t n_bytes)
{
    struct cl *c = dev;
    CL_TRY("upload", c->clEnqueueWriteBuffer(c->queue, buffer, 1, offset, n_bytes, src, 0, NULL, NULL));
    return KG_OK;
}

static kg_status cl_download(void *dev, const void *buffer, size_t offset, void *dst, size_t n_bytes)
{
    struct cl *c = dev;
    mem_id m = (mem_id)buffer;
    CL_TRY("download", c->clEnqueueReadBuffer(c->queue, m, 0, offset, n_bytes, dst, 0, NULL, NULL));
    return KG_OK;
}

static kg_status cl_copy(void *dev, void *dst, size_t dst_offset, const void *src, size_t src_offset, size_t n_bytes)
{
    struct cl *c = dev;
    CL_TRY("copy", c->clEnqueueCopyBuffer(c->queue, (mem_id)src, dst, src_offset, dst_offset, n_bytes, 0, NULL, NULL));
    return KG_OK;
}

/* OpenCL C has no macros with "...", which some compilers of it take all the same: every KERNEL(name, threads, P, arguments) is written out, and
 * the definition of KERNEL left out. */
static kg_status write_out_kernels(struct buf *out, const char *text)
{
    for (const char *line = text, *next; *line; line = next) {
        const char *end = strchr(line, '\n');
        next = end ? end + 1 : line + strlen(line);
        if (!strncmp(line, "#define KERNEL", 14)) continue;
        if (strncmp(line, "KERNEL(", 7)) {
            KG_TRY(buf_append(out, line, (size_t)(next - line)));
            continue;
        }
        const char *part[4] = {line + 7}, *c = line + 7;
        int depth = 1, n = 1;
        for (; *c && depth; c++) {
            depth += *c == '(' ? 1 : *c == ')' ? -1 : 0;
            if (*c == ',' && depth == 1 && n < 4) part[n++] = c + 1;
        }
        if (n < 4 || depth) return status_set(KG_ERR_UNSUPPORTED, "a kernel's head is not understood: %.60s", line);
        KG_TRY(buf_printf(out, "__kernel void %.*s(const %.*s p, %.*s, __local float *wave_tmp)", (int)(part[1] - 1 - part[0]), part[0], (int)(part[3] - 1 - part[2]),
                          part[2], (int)(c - 1 - part[3]), part[3]));
        next = c;
    }
    return buf_append(out, "", 1);
}

static kg_status build(struct cl *c, const char *module, program_id *out)
{
    struct buf text = {0}, written = {0};
    int code = 0;
    kg_status status = gpu_source(&text, "compat_opencl.h", module);
    if (status == KG_OK) status = write_out_kernels(&written, text.data);
    if (status == KG_OK) {
        const char *source = written.data;
        *out = c->clCreateProgramWithSource(c->context, 1, &source, NULL, &code);
        if (code == 0) code = c->clBuildProgram(*out, 1, &c->device, "-cl-std=CL1.2 -w", NULL, NULL);
        if (code != 0) {
            size_t n = 0; /* some drivers give all of the log or nothing */
            if (*out) c->clGetProgramBuildInfo(*out, c->device, BUILD_LOG, 0, NULL, &n);
            char *log = calloc(1, n + 1);
            if (log && n) c->clGetProgramBuildInfo(*out, c->device, BUILD_LOG, n, log, NULL);
            for (char *p = log; p && *p; p++)
                if (*p == '\n') *p = ' ';
            status = status_set(KG_ERR_DEVICE, "opencl: module %s does not compile, error %d: %.300s", module, code, log ? log : "");
            free(log);
            if (*out) c->clReleaseProgram(*out);
        }
    }
    buf_free(&text);
    buf_free(&written);
    return status;
}

static kg_status cl_kernel(void *dev, const char *module, const char *name, void **kernel)
{
    struct cl *c = dev;
    struct module *m = c->modules;
    while (m < c->modules + c->n_modules && strcmp(m->name, module)) m++;
    if (m == c->modules + c->n_modules) {
        if (c->n_modules == (int)COUNT_OF(c->modules)) return status_set(KG_ERR_DEVICE, "opencl: too many modules");
        KG_TRY(build(c, module, &m->program));
        snprintf(m->name, sizeof m->name, "%s", module);
        c->n_modules++;
    }
    struct cl_kernel *k = calloc(1, sizeof *k);
    int code = 0;
    if (!k) return status_set(KG_ERR_MEMORY, "out of memory");
    k->k = c->clCreateKernel(m->program, name, &code);
    if (code != 0) {
        free(k);
        return failed(name, code);
    }
    k->next = c->kernels;
    c->kernels = k;
    *kernel = k;
    return KG_OK;
}

static kg_status cl_launch(void *dev, const struct gpu_launch *l)
{
    struct cl *c = dev;
    kernel_id k = ((struct cl_kernel *)l->kernel)->k;
    unsigned n = 0;
    CL_TRY("parameters", c->clSetKernelArg(k, n++, l->params_bytes, l->params));
    for (int i = 0; i < l->n_buffers; i++) CL_TRY("argument", c->clSetKernelArg(k, n++, sizeof(mem_id), &l->buffers[i]));
    CL_TRY("argument", c->clSetKernelArg(k, n, l->threads * sizeof(float), NULL));
    const size_t local[2] = {l->threads, 1}, global[2] = {(size_t)l->grid[0] * l->threads, l->grid[1]};
    CL_TRY("launch", c->clEnqueueNDRangeKernel(c->queue, k, 2, NULL, global, local, 0, NULL, NULL));
    return KG_OK;
}

static kg_status cl_sync(void *dev)
{
    struct cl *c = dev;
    CL_TRY("waiting for the device", c->clFinish(c->queue));
    return KG_OK;
}

static const struct gpu_device device = {
    .name = "opencl",
    .open = cl_open,
    .close = cl_close,
    .alloc = cl_alloc,
    .free = cl_free,
    .upload = cl_upload,
    .download = cl_download,
    .copy = cl_copy,
    .kernel = cl_kernel,
    .launch = cl_launch,
    .sync = cl_sync,
};

static kg_status open_opencl(void **ctx, const struct program *p, const struct backend_params *params) { return gpu_open(ctx, p, params, &device); }
static kg_status open_meter(void **meter, int n_threads)
{
    (void)n_threads;
    return gpu_meter_open(meter, &device);
}
static const struct backend_meter meter = {.open = open_meter, .close = gpu_meter_close, .run = gpu_meter_run};

const struct backend backend_opencl = {
    .name = "opencl",
    .what = "GPUs and other devices with OpenCL 1.2",
    .open = open_opencl,
    .devices = cl_devices,
    .meter = &meter,
    GPU_BACKEND_FUNCTIONS
};
