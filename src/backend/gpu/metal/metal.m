/* Apple's GPUs through Metal: Objective-C without ARC, as Apple's clang and gcc compile it. Kernels are text that Metal compiles when a module
 * is first asked for (the system keeps the result). Memory is shared between processor and GPU, so uploads and downloads are copies, and
 * plain numbers are used where they lie in the mapped file; launches are collected in a command buffer, which goes to the GPU when it is full or
 * somebody waits. Prompts are multiplied by Metal Performance Shaders; KAGARI_MPS=0 leaves that to the engine's own kernels.
 * Not done: recordings. */
#import <Foundation/Foundation.h>
#import <Metal/Metal.h>
#import <MetalPerformanceShaders/MetalPerformanceShaders.h>

#include "backend/gpu/gpu.h"
#include "backend/gpu/source.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { IN_FLIGHT = 8, LAUNCHES = 64, ERROR_OUT_OF_MEMORY = 8 };

struct metal_buffer {
    id<MTLBuffer> b;
    size_t offset; /* of what is meant: borrowed memory begins within a page */
};

struct metal_kernel {
    id<MTLComputePipelineState> pipeline;
    char name[48];
    struct metal_kernel *next;
};

struct metal {
    id<MTLDevice> device;
    id<MTLCommandQueue> queue;
    struct metal_module {
        char name[32];
        id<MTLLibrary> library;
    } modules[32];
    int n_modules;
    struct metal_kernel *kernels;
    id<MTLCommandBuffer> filling; /* nil: none */
    id<MTLComputeCommandEncoder> encoder;
    int n_launches;
    id<MTLCommandBuffer> sent[IN_FLIGHT]; /* to the GPU, in this order, not waited for */
    int n_sent;
    struct metal_pending {
        const struct metal_buffer *from;
        size_t offset, n_bytes;
        void *dst;
    } pending[16]; /* downloads that the next sync hands over */
    int n_pending;
};

static const char *text_of(NSError *e) { return e ? [[e localizedDescription] UTF8String] : "no reason given"; }

static void put_text(char *to, size_t size, NSString *text)
{
    const char *s = text ? [text UTF8String] : NULL;
    snprintf(to, size, "%s", s ? s : "");
}

/* ---- devices ---- */

/* Fills *out; the device is usable unless out->why says why not. */
static void describe(id<MTLDevice> d, struct backend_device *out)
{
    *out = (struct backend_device){.is_gpu = true, .chosen = true};
    put_text(out->name, sizeof out->name, [d name]);
    char version[64];
    put_text(version, sizeof version, [[NSProcessInfo processInfo] operatingSystemVersionString]);
    snprintf(out->driver, sizeof out->driver, "Metal of macOS %s", version);
    out->memory = [d recommendedMaxWorkingSetSize];
    uint64_t used = [d currentAllocatedSize];
    out->memory_free = out->memory > used ? out->memory - used : 0;
    if (![d supportsFamily:MTLGPUFamilyApple7]) snprintf(out->why, sizeof out->why, "it is not of Apple's family 7 (M1, A14) or newer, whose matrix operations are needed");
}

static kg_status metal_devices(struct backend_device *out, int most, int *n)
{
    NSAutoreleasePool *pool = [[NSAutoreleasePool alloc] init];
    id<MTLDevice> d = MTLCreateSystemDefaultDevice();
    *n = d && most > 0;
    if (*n) describe(d, out);
    [d release];
    [pool drain];
    return *n ? KG_OK : status_set(KG_ERR_DEVICE, "metal: this machine has no device that Metal knows");
}

static void metal_close(void *dev)
{
    struct metal *m = dev;
    if (!m) return;
    [m->encoder endEncoding];
    [m->encoder release];
    [m->filling release];
    for (int i = 0; i < m->n_sent; i++) {
        [m->sent[i] waitUntilCompleted];
        [m->sent[i] release];
    }
    for (struct metal_kernel *k = m->kernels, *next; k; k = next) {
        next = k->next;
        [k->pipeline release];
        free(k);
    }
    for (int i = 0; i < m->n_modules; i++) [m->modules[i].library release];
    [m->queue release];
    [m->device release];
    free(m);
}

static kg_status open_device(struct metal *m, struct gpu_info *info)
{
    struct backend_device d;
    m->device = MTLCreateSystemDefaultDevice();
    if (!m->device) return status_set(KG_ERR_DEVICE, "metal: this machine has no device that Metal knows");
    describe(m->device, &d);
    if (d.why[0]) return status_set(KG_ERR_DEVICE, "metal: %.100s: %.300s", d.name, d.why);
    m->queue = [m->device newCommandQueue];
    if (!m->queue) return status_set(KG_ERR_DEVICE, "metal: %.100s gives no command queue", d.name);
    /* Metal does not say how many cores there are: 8 to 80. */
    *info = (struct gpu_info){.memory = (size_t)d.memory, .n_cores = 16, .matvec_waves = 8, .attend_waves = 16, .mv_groups = 4, .fuses = true};
    const char *mps = getenv("KAGARI_MPS");
    info->gemm = !(mps && *mps == '0') && MPSSupportsMTLDevice(m->device);
    snprintf(info->name, sizeof info->name, "%.80s, %.70s", d.name, d.driver);
    return KG_OK;
}

static kg_status metal_open(void **dev, struct gpu_info *info)
{
    NSAutoreleasePool *pool = [[NSAutoreleasePool alloc] init];
    struct metal *m = calloc(1, sizeof *m);
    kg_status status = m ? open_device(m, info) : status_set(KG_ERR_MEMORY, "out of memory");
    if (status == KG_OK) *dev = m;
    else metal_close(m);
    [pool drain];
    return status;
}

/* ---- commands ---- */

/* Waits for the first `n` command buffers that were sent. */
static kg_status wait_for(struct metal *m, int n)
{
    kg_status status = KG_OK;
    for (int i = 0; i < n; i++) {
        id<MTLCommandBuffer> c = m->sent[i];
        [c waitUntilCompleted];
        if ([c status] == MTLCommandBufferStatusError && status == KG_OK) {
            bool memory = [[c error] code] == ERROR_OUT_OF_MEMORY;
            status = status_set(memory ? KG_ERR_MEMORY : KG_ERR_DEVICE, "metal: the device failed: %.300s", text_of([c error]));
        }
        [c release];
    }
    m->n_sent -= n;
    memmove(m->sent, m->sent + n, (size_t)m->n_sent * sizeof *m->sent);
    return status;
}

static void end_encoding(struct metal *m)
{
    [m->encoder endEncoding];
    [m->encoder release];
    m->encoder = nil;
}

/* Hands what was collected to the GPU. */
static kg_status send_commands(struct metal *m)
{
    if (!m->filling) return KG_OK;
    end_encoding(m);
    [m->filling commit];
    id<MTLCommandBuffer> c = m->filling;
    m->filling = nil;
    m->n_launches = 0;
    kg_status status = m->n_sent == IN_FLIGHT ? wait_for(m, 1) : KG_OK;
    m->sent[m->n_sent++] = c;
    return status;
}

static kg_status begin_commands(struct metal *m)
{
    if (m->filling) return KG_OK;
    m->filling = [[m->queue commandBuffer] retain];
    return m->filling ? KG_OK : status_set(KG_ERR_DEVICE, "metal: the queue gives no command buffer");
}

static kg_status finish(struct metal *m)
{
    KG_TRY(send_commands(m));
    KG_TRY(wait_for(m, m->n_sent));
    for (int i = 0; i < m->n_pending; i++) {
        const struct metal_pending *p = &m->pending[i];
        memcpy(p->dst, (const char *)[p->from->b contents] + p->from->offset + p->offset, p->n_bytes);
    }
    m->n_pending = 0;
    return KG_OK;
}

static kg_status metal_sync(void *dev)
{
    NSAutoreleasePool *pool = [[NSAutoreleasePool alloc] init];
    kg_status status = finish(dev);
    [pool drain];
    return status;
}

/* ---- memory ---- */

/* Takes b over. */
static kg_status new_buffer(void **buffer, id<MTLBuffer> b, size_t offset)
{
    struct metal_buffer *r = malloc(sizeof *r);
    if (!r) {
        [b release];
        return status_set(KG_ERR_MEMORY, "out of memory");
    }
    *r = (struct metal_buffer){b, offset};
    *buffer = r;
    return KG_OK;
}

static kg_status metal_alloc(void *dev, void **buffer, size_t n_bytes)
{
    struct metal *m = dev;
    NSAutoreleasePool *pool = [[NSAutoreleasePool alloc] init];
    id<MTLBuffer> b = n_bytes <= [m->device maxBufferLength] ? [m->device newBufferWithLength:n_bytes options:MTLResourceStorageModeShared] : nil;
    if (b) memset([b contents], 0, n_bytes);
    [pool drain];
    return b ? new_buffer(buffer, b, 0) : status_set(KG_ERR_MEMORY, "metal: no device memory for %zu bytes", n_bytes);
}

/* Whole pages around what is meant: all of a mapping is there, and so is what large arrays are made of. */
static kg_status metal_borrow(void *dev, void **buffer, const void *data, size_t n_bytes)
{
    struct metal *m = dev;
    NSAutoreleasePool *pool = [[NSAutoreleasePool alloc] init];
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), first = (uintptr_t)data / page * page, end = ROUND_UP((uintptr_t)data + n_bytes, page);
    id<MTLBuffer> b = nil;
    if (end - first <= [m->device maxBufferLength])
        b = [m->device newBufferWithBytesNoCopy:(void *)first length:end - first options:MTLResourceStorageModeShared deallocator:nil];
    [pool drain];
    return b ? new_buffer(buffer, b, (uintptr_t)data - first) : status_set(KG_ERR_UNSUPPORTED, "metal: %zu bytes cannot be used where they lie", n_bytes);
}

/* Command buffers hold on to what they use. */
static void metal_free(void *dev, void *buffer)
{
    struct metal_buffer *r = buffer;
    (void)dev;
    [r->b release];
    free(r);
}

static kg_status metal_upload(void *dev, void *buffer, size_t offset, const void *src, size_t n_bytes)
{
    const struct metal_buffer *to = buffer;
    KG_TRY(metal_sync(dev)); /* earlier launches may read what is there */
    memcpy((char *)[to->b contents] + to->offset + offset, src, n_bytes);
    return KG_OK;
}

static kg_status metal_download(void *dev, const void *buffer, size_t offset, void *dst, size_t n_bytes)
{
    struct metal *m = dev;
    if (m->n_pending == (int)COUNT_OF(m->pending)) KG_TRY(metal_sync(dev));
    m->pending[m->n_pending++] = (struct metal_pending){buffer, offset, n_bytes, dst};
    return KG_OK;
}

static kg_status copy(struct metal *m, const struct metal_buffer *dst, size_t dst_offset, const struct metal_buffer *src, size_t src_offset, size_t n_bytes)
{
    if (m->n_pending) KG_TRY(finish(m)); /* a download takes what is there before */
    KG_TRY(begin_commands(m));
    end_encoding(m);
    id<MTLBlitCommandEncoder> blit = [m->filling blitCommandEncoder];
    if (!blit) return status_set(KG_ERR_DEVICE, "metal: no encoder for copies");
    [blit copyFromBuffer:src->b sourceOffset:src->offset + src_offset toBuffer:dst->b destinationOffset:dst->offset + dst_offset size:n_bytes];
    [blit endEncoding];
    return KG_OK;
}

/* Metal copies between places of one buffer only if they do not overlap; those of the engine never do. */
static kg_status metal_copy(void *dev, void *dst, size_t dst_offset, const void *src, size_t src_offset, size_t n_bytes)
{
    NSAutoreleasePool *pool = [[NSAutoreleasePool alloc] init];
    kg_status status = copy(dev, dst, dst_offset, src, src_offset, n_bytes);
    [pool drain];
    return status;
}

/* ---- kernels ---- */

static kg_status build(struct metal *m, const char *module, id<MTLLibrary> *out)
{
    struct buf text = {0};
    NSError *error = nil;
    *out = nil;
    KG_TRY(gpu_source(&text, "compat_metal.h", module));
    MTLCompileOptions *options = [[MTLCompileOptions alloc] init];
    [options setFastMathEnabled:NO];
    *out = [m->device newLibraryWithSource:[NSString stringWithUTF8String:text.data] options:options error:&error];
    [options release];
    buf_free(&text);
    return *out ? KG_OK : status_set(KG_ERR_DEVICE, "metal: module %s does not compile: %.300s", module, text_of(error));
}

static kg_status find_library(struct metal *m, const char *module, id<MTLLibrary> *out)
{
    for (int i = 0; i < m->n_modules; i++) {
        *out = m->modules[i].library;
        if (!strcmp(m->modules[i].name, module)) return KG_OK;
    }
    if (m->n_modules == (int)COUNT_OF(m->modules)) return status_set(KG_ERR_DEVICE, "metal: too many modules");
    KG_TRY(build(m, module, out));
    struct metal_module *added = &m->modules[m->n_modules++];
    added->library = *out;
    snprintf(added->name, sizeof added->name, "%s", module);
    return KG_OK;
}

static kg_status find_kernel(struct metal *m, const char *module, const char *name, void **kernel)
{
    id<MTLLibrary> library = nil;
    NSError *error = nil;
    KG_TRY(find_library(m, module, &library));
    id<MTLFunction> f = [library newFunctionWithName:[NSString stringWithUTF8String:name]];
    if (!f) return status_set(KG_ERR_UNSUPPORTED, "metal: no kernel %s in module %s", name, module);
    id<MTLComputePipelineState> pipeline = [m->device newComputePipelineStateWithFunction:f error:&error];
    [f release];
    if (!pipeline) return status_set(KG_ERR_DEVICE, "metal: kernel %s: %.300s", name, text_of(error));
    struct metal_kernel *k = [pipeline threadExecutionWidth] == 32 ? calloc(1, sizeof *k) : NULL;
    if (!k) {
        unsigned long width = [pipeline threadExecutionWidth];
        [pipeline release];
        return width == 32 ? status_set(KG_ERR_MEMORY, "out of memory") : status_set(KG_ERR_DEVICE, "metal: waves of %lu threads: 32 are needed", width);
    }
    snprintf(k->name, sizeof k->name, "%s", name);
    k->pipeline = pipeline;
    k->next = m->kernels;
    m->kernels = k;
    *kernel = k;
    return KG_OK;
}

static kg_status metal_kernel(void *dev, const char *module, const char *name, void **kernel)
{
    NSAutoreleasePool *pool = [[NSAutoreleasePool alloc] init];
    kg_status status = find_kernel(dev, module, name, kernel);
    [pool drain];
    return status;
}

/* Launches of one encoder run one after another. */
static kg_status launch(struct metal *m, const struct gpu_launch *l)
{
    struct metal_kernel *k = l->kernel;
    if (l->threads > [k->pipeline maxTotalThreadsPerThreadgroup])
        return status_set(KG_ERR_DEVICE, "metal: kernel %s: groups of %u threads, the device takes %lu", k->name, l->threads,
                          (unsigned long)[k->pipeline maxTotalThreadsPerThreadgroup]);
    if (m->n_pending) KG_TRY(finish(m)); /* a download takes what is there before */
    KG_TRY(begin_commands(m));
    if (!m->encoder) m->encoder = [[m->filling computeCommandEncoder] retain];
    if (!m->encoder) return status_set(KG_ERR_DEVICE, "metal: no encoder for kernels");
    [m->encoder setComputePipelineState:k->pipeline];
    [m->encoder setBytes:l->params length:l->params_bytes atIndex:0];
    for (int i = 0; i < l->n_buffers; i++) {
        const struct metal_buffer *b = l->buffers[i];
        [m->encoder setBuffer:b->b offset:b->offset atIndex:(NSUInteger)i + 1];
    }
    [m->encoder dispatchThreadgroups:MTLSizeMake(l->grid[0], l->grid[1], 1) threadsPerThreadgroup:MTLSizeMake(l->threads, 1, 1)];
    return ++m->n_launches == LAUNCHES ? send_commands(m) : KG_OK;
}

static kg_status metal_launch(void *dev, const struct gpu_launch *l)
{
    NSAutoreleasePool *pool = [[NSAutoreleasePool alloc] init];
    kg_status status = launch(dev, l);
    [pool drain];
    return status;
}

/* ---- products of matrices ---- */

static MPSMatrix *matrix(const struct metal_buffer *b, size_t offset, int rows, int columns, size_t row_bytes, MPSDataType type)
{
    MPSMatrixDescriptor *d = [MPSMatrixDescriptor matrixDescriptorWithRows:(NSUInteger)rows columns:(NSUInteger)columns rowBytes:row_bytes dataType:type];
    return [[[MPSMatrix alloc] initWithBuffer:b->b offset:b->offset + offset descriptor:d] autorelease];
}

static kg_status product(struct metal *m, const struct gpu_gemm *g)
{
    const size_t half = sizeof(uint16_t);
    if (m->n_pending) KG_TRY(finish(m)); /* a download takes what is there before */
    KG_TRY(begin_commands(m));
    end_encoding(m);
    MPSMatrix *x = matrix(g->x, 0, g->n, g->n_in, (size_t)g->x_ld * half, MPSDataTypeFloat16);
    MPSMatrix *w = matrix(g->w, g->w_offset, g->rows, g->n_in, (size_t)g->w_ld * half, MPSDataTypeFloat16);
    MPSMatrix *y = matrix(g->y, g->y_offset * sizeof(float), g->n, g->rows, (size_t)g->y_ld * sizeof(float), MPSDataTypeFloat32);
    MPSMatrixMultiplication *times = [[MPSMatrixMultiplication alloc] initWithDevice:m->device
                                                                       transposeLeft:NO
                                                                      transposeRight:YES
                                                                          resultRows:(NSUInteger)g->n
                                                                       resultColumns:(NSUInteger)g->rows
                                                                     interiorColumns:(NSUInteger)g->n_in
                                                                               alpha:1
                                                                                beta:0];
    if (!times || !x || !w || !y) {
        [times release];
        return status_set(KG_ERR_DEVICE, "metal: Metal Performance Shaders refuse a product of %d x %d x %d; KAGARI_MPS=0 does without", g->n, g->rows, g->n_in);
    }
    [times encodeToCommandBuffer:m->filling leftMatrix:x rightMatrix:w resultMatrix:y];
    [times release];
    return ++m->n_launches == LAUNCHES ? send_commands(m) : KG_OK;
}

static kg_status metal_gemm(void *dev, const struct gpu_gemm *g)
{
    NSAutoreleasePool *pool = [[NSAutoreleasePool alloc] init];
    kg_status status = product(dev, g);
    [pool drain];
    return status;
}

static const struct gpu_device device = {
    .name = "metal",
    .open = metal_open,
    .close = metal_close,
    .alloc = metal_alloc,
    .free = metal_free,
    .borrow = metal_borrow,
    .upload = metal_upload,
    .download = metal_download,
    .copy = metal_copy,
    .kernel = metal_kernel,
    .launch = metal_launch,
    .gemm = metal_gemm,
    .sync = metal_sync,
};

static kg_status open_metal(void **ctx, const struct program *p, const struct backend_params *params) { return gpu_open(ctx, p, params, &device); }
static kg_status open_meter(void **meter, int n_threads)
{
    (void)n_threads;
    return gpu_meter_open(meter, &device);
}
static const struct backend_meter meter = {.open = open_meter, .close = gpu_meter_close, .run = gpu_meter_run};

extern const struct backend backend_metal;
const struct backend backend_metal = {
    .name = "metal",
    .what = "Apple's GPUs (M1, A14 and newer), on macOS",
    .open = open_metal,
    .devices = metal_devices,
    .meter = &meter,
    GPU_BACKEND_FUNCTIONS
};
