/* A double of Apple's Foundation and Metal on the emulator. A library is really made from its text: a C++ compiler makes it into machine code,
 * with msl/ as Metal's standard library, kept in FAKE_METAL_CACHE by what the text is. Commands are recorded, checked and run by commit.
 * What breaks Metal's rules is remembered in fake_metal.misuse. */
#import <MetalPerformanceShaders/MetalPerformanceShaders.h>

#include "backend/gpu/emu/simt.h"
#include "base/half.h"
#include "fake_metal.h"
#include "msl/fake_calls.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct fake_metal fake_metal = {.fails_after = -1};

/* gcc's runtime of Objective-C keeps its tables of classes until the end. */
__attribute__((visibility("default"))) const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) { return "leak:libobjc.so"; }
static size_t allocated;

static void misuse(const char *what)
{
    if (!fake_metal.misuse[0]) snprintf(fake_metal.misuse, sizeof fake_metal.misuse, "%s", what);
}

/* ---- Foundation ---- */

enum { POOL = 4096 };
static id pool[POOL]; /* objects to release; nil begins a pool */
static int n_pool;

static void pool_put(id o)
{
    if (n_pool == POOL) {
        misuse("too many objects in autorelease pools");
        return;
    }
    pool[n_pool++] = o;
}

@implementation NSObject
+ (id)alloc
{
    NSObject *o = class_createInstance(self, 0);
    o->refs = 1;
    fake_metal.n_objects++;
    return o;
}
- (id)init { return self; }
- (id)retain
{
    refs++;
    return self;
}
- (oneway void)release
{
    if (!refs) misuse("release of an object that is gone");
    if (!--refs) [self dealloc];
}
- (id)autorelease
{
    if (!n_pool) misuse("autorelease without a pool");
    pool_put(self);
    return self;
}
- (void)dealloc
{
    fake_metal.n_objects--;
    object_dispose(self);
}
@end

@implementation NSAutoreleasePool
- (id)init
{
    pool_put(nil);
    return self;
}
- (void)drain
{
    while (n_pool && pool[--n_pool]) [pool[n_pool] release];
    [self release];
}
@end

@implementation NSString
+ (id)stringWithUTF8String:(const char *)s
{
    NSString *r = [[NSString alloc] init];
    r->text = strdup(s);
    return [r autorelease];
}
- (const char *)UTF8String { return text; }
- (void)dealloc
{
    free(text);
    [super dealloc];
}
@end

@implementation NSError
- (NSString *)localizedDescription { return text; }
- (NSInteger)code { return number; }
- (void)dealloc
{
    [text release];
    [super dealloc];
}
@end

@implementation NSProcessInfo
+ (NSProcessInfo *)processInfo { return [[[NSProcessInfo alloc] init] autorelease]; }
- (NSString *)operatingSystemVersionString { return [NSString stringWithUTF8String:"Version 0 (double)"]; }
@end

static NSError *make_error(const char *text, long number)
{
    NSError *e = [[NSError alloc] init];
    e->text = [[NSString stringWithUTF8String:text] retain];
    e->number = number;
    return [e autorelease];
}

/* ---- buffers, libraries, pipelines ---- */

@implementation MTLCompileOptions
- (void)setFastMathEnabled:(BOOL)on { fast = on; }
@end

@interface FakeBuffer : NSObject <MTLBuffer> {
  @public
    void *p;
    NSUInteger n;
    BOOL borrowed;
}
@end
@implementation FakeBuffer
- (void *)contents { return p; }
- (NSUInteger)length { return n; }
- (void)dealloc
{
    if (!borrowed) {
        allocated -= n;
        free(p);
    }
    fake_metal.n_buffers--;
    [super dealloc];
}
@end

@interface FakeFunction : NSObject <MTLFunction, MTLComputePipelineState> {
  @public
    struct simt_kernel kernel;
}
@end
@implementation FakeFunction
- (NSUInteger)maxTotalThreadsPerThreadgroup { return (NSUInteger)kernel.most_threads; }
- (NSUInteger)threadExecutionWidth { return fake_metal.wide_waves ? 64 : 32; }
@end

@interface FakeLibrary : NSObject <MTLLibrary> {
  @public
    const struct fake_kernel *kernels;
}
@end
@implementation FakeLibrary
- (id<MTLFunction>)newFunctionWithName:(NSString *)name
{
    for (const struct fake_kernel *k = kernels; k->name; k++) {
        if (strcmp(k->name, [name UTF8String])) continue;
        FakeFunction *f = [[FakeFunction alloc] init];
        f->kernel = (struct simt_kernel){k->name, k->call, k->most_threads, k->params_bytes, k->n_buffers, NULL};
        return f;
    }
    return nil;
}
@end

/* ---- commands ---- */

enum { SLOTS = 31, BYTES_MOST = 4096 };

@interface FakeCommand : NSObject {
  @public
    FakeFunction *kernel; /* nil: a copy from slot[0] to slot[1] */
    FakeBuffer *slot[SLOTS];
    NSUInteger at[SLOTS]; /* where in the buffer */
    MPSMatrix *product[3]; /* result = left right^T; nil: none */
    NSUInteger from, to, size, params_bytes;
    unsigned grid[2], threads;
    char params[BYTES_MOST];
    FakeCommand *next;
}
@end
@implementation FakeCommand
- (void)dealloc
{
    [kernel release];
    for (int i = 0; i < SLOTS; i++) [slot[i] release];
    for (int i = 0; i < 3; i++) [product[i] release];
    [super dealloc];
}
@end

static char *row_of(const MPSMatrix *m, NSUInteger r) { return (char *)[m->buffer contents] + m->offset + r * m->d->bytes; }

static void multiply(MPSMatrix *const *p)
{
    const MPSMatrix *l = p[0], *r = p[1], *y = p[2];
    fake_metal.n_products++;
    for (NSUInteger i = 0; i < y->d->rows; i++)
        for (NSUInteger k = 0; k < y->d->columns; k++) {
            const uint16_t *a = (const uint16_t *)(const void *)row_of(l, i), *b = (const uint16_t *)(const void *)row_of(r, k);
            float sum = 0;
            for (NSUInteger x = 0; x < l->d->columns; x++) sum += f32_from_f16(a[x]) * f32_from_f16(b[x]);
            ((float *)(void *)row_of(y, i))[k] = sum;
        }
}

@interface FakeCommands : NSObject <MTLCommandBuffer, MTLComputeCommandEncoder, MTLBlitCommandEncoder> {
    FakeCommand *now, *first, *last;
    MTLCommandBufferStatus state;
    BOOL encoding, blitting;
    NSError *why;
}
@end

@implementation FakeCommands
- (id)init
{
    now = [[FakeCommand alloc] init];
    return self;
}
- (id)begin:(BOOL)blit
{
    if (encoding || state != MTLCommandBufferStatusNotEnqueued) misuse("an encoder while another is open, or after commit");
    encoding = YES;
    blitting = blit;
    return [[self retain] autorelease];
}
- (id<MTLComputeCommandEncoder>)computeCommandEncoder { return [self begin:NO]; }
- (id<MTLBlitCommandEncoder>)blitCommandEncoder { return [self begin:YES]; }
- (void)setComputePipelineState:(id<MTLComputePipelineState>)s
{
    if (!encoding || blitting) misuse("setComputePipelineState without an encoder for kernels");
    [(FakeFunction *)s retain];
    [now->kernel release];
    now->kernel = (FakeFunction *)s;
}
- (void)setBytes:(const void *)b length:(NSUInteger)n atIndex:(NSUInteger)i
{
    if (i != 0 || n > BYTES_MOST) misuse("setBytes: not the parameters, or more than 4 KB");
    else memcpy(now->params, b, n);
    now->params_bytes = n;
}
- (void)setBuffer:(id<MTLBuffer>)b offset:(NSUInteger)offset atIndex:(NSUInteger)i
{
    if (i == 0 || i >= SLOTS || offset % 16 || offset >= [b length] || !b) {
        misuse("setBuffer: none, or a slot that is not there");
        return;
    }
    [(FakeBuffer *)b retain];
    [now->slot[i] release];
    now->slot[i] = (FakeBuffer *)b;
    now->at[i] = offset;
}
- (void)put
{
    FakeCommand *c = now;
    if (last) last->next = c;
    else first = c;
    last = c;
    now = [[FakeCommand alloc] init];
    if (blitting) return;
    now->kernel = [c->kernel retain]; /* what is set stays set */
    now->params_bytes = c->params_bytes;
    memcpy(now->params, c->params, sizeof now->params);
    for (int i = 0; i < SLOTS; i++) now->slot[i] = [c->slot[i] retain];
    memcpy(now->at, c->at, sizeof now->at);
}
- (void)dispatchThreadgroups:(MTLSize)g threadsPerThreadgroup:(MTLSize)t
{
    if (!encoding || blitting || !now->kernel || g.depth != 1 || t.height != 1 || t.depth != 1 || !g.width || !g.height) {
        misuse("dispatchThreadgroups: no kernel, or no groups");
        return;
    }
    const struct simt_kernel *k = &now->kernel->kernel;
    if (now->params_bytes != k->params_bytes) misuse("the parameters have another size than the kernel's");
    for (int i = 1; i <= k->n_buffers; i++)
        if (!now->slot[i]) misuse("a buffer of a kernel is not set");
    if (t.width > (NSUInteger)k->most_threads || t.width % 32) misuse("a group of a size that the kernel does not take");
    now->grid[0] = (unsigned)g.width;
    now->grid[1] = (unsigned)g.height;
    now->threads = (unsigned)t.width;
    [self put];
}
- (void)copyFromBuffer:(id<MTLBuffer>)from sourceOffset:(NSUInteger)from_offset toBuffer:(id<MTLBuffer>)to destinationOffset:(NSUInteger)to_offset size:(NSUInteger)size
{
    if (!encoding || !blitting || from_offset + size > [from length] || to_offset + size > [to length] || from_offset % 4 || to_offset % 4 || size % 4) {
        misuse("copyFromBuffer: out of bounds, or not whole words");
        return;
    }
    [now->kernel release];
    now->kernel = nil;
    now->slot[0] = [(FakeBuffer *)from retain];
    [now->slot[1] release];
    now->slot[1] = [(FakeBuffer *)to retain];
    now->from = from_offset;
    now->to = to_offset;
    now->size = size;
    fake_metal.n_copies++;
    [self put];
}
- (void)endEncoding
{
    if (!encoding) misuse("endEncoding without an encoder");
    encoding = NO;
    [now release]; /* the next encoder begins with nothing set */
    now = [[FakeCommand alloc] init];
}
- (void)run:(FakeCommand *)c
{
    if (c->product[0]) {
        multiply(c->product);
        return;
    }
    if (!c->kernel) {
        memmove((char *)c->slot[1]->p + c->to, (char *)c->slot[0]->p + c->from, c->size);
        return;
    }
    void *buffers[SLOTS];
    for (int i = 1; i < SLOTS; i++) buffers[i - 1] = c->slot[i] ? (char *)c->slot[i]->p + c->at[i] : NULL;
    fake_metal.n_launches++;
    if (simt_run(&c->kernel->kernel, c->grid, c->threads, c->params, buffers) == KG_OK) return;
    why = [make_error(kg_error_message(), 3) retain];
    state = MTLCommandBufferStatusError;
}
- (void)putLeft:(MPSMatrix *)l right:(MPSMatrix *)r result:(MPSMatrix *)y
{
    if (encoding || state != MTLCommandBufferStatusNotEnqueued) misuse("a product while an encoder is open, or after commit");
    blitting = YES; /* nothing set stays */
    now->product[0] = [l retain];
    now->product[1] = [r retain];
    now->product[2] = [y retain];
    [self put];
    blitting = NO;
}
- (void)commit
{
    if (encoding || state != MTLCommandBufferStatusNotEnqueued) misuse("commit with an open encoder, or twice");
    state = MTLCommandBufferStatusCommitted;
    if (fake_metal.fails_after >= 0 && fake_metal.n_commands >= fake_metal.fails_after) {
        why = [make_error("The device is gone (a double's words).", fake_metal.fails_with) retain];
        state = MTLCommandBufferStatusError;
    }
    fake_metal.n_commands++;
    for (FakeCommand *c = first; c && state != MTLCommandBufferStatusError; c = c->next) [self run:c];
}
- (void)waitUntilCompleted
{
    if (state == MTLCommandBufferStatusCommitted) state = MTLCommandBufferStatusCompleted;
    else if (state != MTLCommandBufferStatusError) misuse("waitUntilCompleted before commit");
}
- (MTLCommandBufferStatus)status { return state; }
- (NSError *)error { return why; }
- (void)dealloc
{
    if (encoding) misuse("a command buffer ends with an open encoder");
    for (FakeCommand *c = first, *n; c; c = n) {
        n = c->next;
        [c release];
    }
    [now release];
    [why release];
    [super dealloc];
}
@end

/* ---- compiling ---- */

static const struct fake_thread *fake_thread(void) { return (const struct fake_thread *)(const void *)simt; }
_Static_assert(sizeof(struct fake_thread) == sizeof(struct simt_thread), "one is read as the other");
static float from_half(uint16_t h) { return f32_from_f16(h); }
static uint16_t to_half(float f) { return f16_from_f32(f); }
static const struct fake_calls calls = {fake_thread, simt_barrier, simt_wave_barrier, simt_max, simt_xor, from_half, to_half};

/* The names and sizes behind "[[kernel, max_total_threads_per_threadgroup(256)]] void name(", once macros are gone. */
static void put_table(FILE *to, const char *text)
{
    fputs("#define FAKE_KERNELS ", to);
    for (const char *at = text; (at = strstr(at, "[[kernel,")); at++) {
        char name[64];
        int threads = 0;
        if (sscanf(at, "[[kernel, max_total_threads_per_threadgroup(%d)]] void %63[a-z0-9A-Z_](", &threads, name) == 2) fprintf(to, "FAKE_KERNEL(%s, %d) ", name, threads);
        else misuse("a kernel whose head is not understood");
    }
    fputs("\n#include \"kernel_table.h\"\n", to);
}

static char *read_text(const char *path)
{
    FILE *f = fopen(path, "rb");
    char *text = calloc(1, (size_t)4 << 20);
    if (!f || !text || !fread(text, 1, ((size_t)4 << 20) - 1, f)) text[0] = 0;
    if (f) fclose(f);
    return text;
}

static void compile(const char *source, const char *base)
{
    char path[600], command[3000];
    snprintf(path, sizeof path, "%s.cc", base);
    FILE *f = fopen(path, "w");
    if (!f) return;
    fputs(source, f);
    fclose(f);
    snprintf(command, sizeof command, FAKE_METAL_CXX " -std=c++17 -w -E -P -I" FAKE_METAL_MSL " %s -o %s.ii 2>%s.log", path, base, base);
    if (system(command)) return;
    snprintf(path, sizeof path, "%s.ii", base);
    char *text = read_text(path);
    snprintf(path, sizeof path, "%s.table.cc", base);
    f = fopen(path, "w");
    if (f) {
        fputs(text, f);
        put_table(f, text);
        fclose(f);
    }
    free(text);
    snprintf(command, sizeof command,
             FAKE_METAL_CXX " -std=c++17 -O1 -w -fPIC -shared -fno-strict-aliasing -ffp-contract=off " FAKE_METAL_FLAGS " -I" FAKE_METAL_MSL
                            " %s -o %s.%d.tmp 2>>%s.log && mv %s.%d.tmp %s.so",
             path, base, (int)getpid(), base, base, (int)getpid(), base);
    if (system(command)) return;
}

/* ---- the device ---- */

@interface FakeDevice : NSObject <MTLDevice, MTLCommandQueue>
@end
@implementation FakeDevice
- (NSString *)name { return [NSString stringWithUTF8String:"double of an Apple GPU"]; }
- (BOOL)supportsFamily:(MTLGPUFamily)family { return family <= (fake_metal.old_family ? MTLGPUFamilyApple6 : MTLGPUFamilyApple7); }
- (uint64_t)recommendedMaxWorkingSetSize { return (uint64_t)8 << 30; }
- (NSUInteger)currentAllocatedSize { return allocated; }
- (NSUInteger)maxBufferLength { return (NSUInteger)4 << 30; }
- (id<MTLCommandQueue>)newCommandQueue { return [self retain]; }
- (id<MTLCommandBuffer>)commandBuffer { return [[[FakeCommands alloc] init] autorelease]; }
- (id<MTLBuffer>)newBufferWithLength:(NSUInteger)n options:(MTLResourceOptions)o
{
    void *p = NULL;
    (void)o;
    if (fake_metal.memory && allocated + n > fake_metal.memory) return nil;
    if (n == 0 || posix_memalign(&p, 64, n)) return nil; /* exactly n bytes, for AddressSanitizer */
    memset(p, 0xee, n);
    FakeBuffer *b = [[FakeBuffer alloc] init];
    b->p = p;
    b->n = n;
    allocated += n;
    fake_metal.n_buffers++;
    return b;
}
- (id<MTLBuffer>)newBufferWithBytesNoCopy:(void *)p length:(NSUInteger)n options:(MTLResourceOptions)o deallocator:(id)d
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    (void)o;
    if (fake_metal.no_borrowing) return nil;
    if ((uintptr_t)p % page || n % page || !n || d) misuse("newBufferWithBytesNoCopy: not whole pages");
    FakeBuffer *b = [[FakeBuffer alloc] init];
    b->p = p;
    b->n = n;
    b->borrowed = YES;
    fake_metal.n_buffers++;
    fake_metal.n_borrowed++;
    return b;
}
- (id<MTLLibrary>)newLibraryWithSource:(NSString *)s options:(MTLCompileOptions *)options error:(NSError **)e
{
    uint64_t hash = 14695981039346656037u;
    char base[500], path[520];
    char *version = read_text(FAKE_METAL_MSL "/kernel_table.h"), *library_text = read_text(FAKE_METAL_MSL "/metal_stdlib"), *matrices = read_text(FAKE_METAL_MSL "/metal_simdgroup_matrix");
    const char *parts[] = {[s UTF8String], version, library_text, matrices, FAKE_METAL_FLAGS};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        for (const char *c = parts[i]; *c; c++) hash = (hash ^ (unsigned char)*c) * 1099511628211u;
    free(version);
    free(library_text);
    free(matrices);
    if (options->fast) misuse("fast mathematics");
    mkdir(FAKE_METAL_CACHE, 0777);
    snprintf(base, sizeof base, FAKE_METAL_CACHE "/%016llx", (unsigned long long)hash);
    snprintf(path, sizeof path, "%s.so", base);
    if (access(path, R_OK) != 0 && !fake_metal.no_compiler) compile([s UTF8String], base);
    void *so = fake_metal.no_compiler ? NULL : dlopen(path, RTLD_NOW | RTLD_LOCAL);
    const struct fake_calls **to = so ? dlsym(so, "fake_calls") : NULL;
    const struct fake_kernel *kernels = so ? dlsym(so, "fake_kernels") : NULL;
    if (!to || !kernels) {
        snprintf(path, sizeof path, "%s.log", base);
        char *log = read_text(path);
        log[400] = 0;
        if (e) *e = make_error(fake_metal.no_compiler ? "program_source:1:1: error: a double's words" : log, 3);
        free(log);
        return nil;
    }
    *to = &calls;
    FakeLibrary *library = [[FakeLibrary alloc] init];
    library->kernels = kernels;
    return library;
}
- (id<MTLComputePipelineState>)newComputePipelineStateWithFunction:(id<MTLFunction>)f error:(NSError **)e
{
    (void)e;
    return (id<MTLComputePipelineState>)[(FakeFunction *)f retain];
}
@end

id<MTLDevice> MTLCreateSystemDefaultDevice(void)
{
    if (fake_metal.no_device) return nil;
    return [[FakeDevice alloc] init];
}

/* ---- Metal Performance Shaders ---- */

BOOL MPSSupportsMTLDevice(id<MTLDevice> d) { return d != nil; }

@implementation MPSMatrixDescriptor
+ (MPSMatrixDescriptor *)matrixDescriptorWithRows:(NSUInteger)r columns:(NSUInteger)c rowBytes:(NSUInteger)n dataType:(MPSDataType)t
{
    MPSMatrixDescriptor *d = [[[MPSMatrixDescriptor alloc] init] autorelease];
    const NSUInteger item = t == MPSDataTypeFloat16 ? 2 : 4;
    if (!r || !c || n < c * item || n % item) misuse("a matrix whose rows do not hold its columns");
    d->rows = r;
    d->columns = c;
    d->bytes = n;
    d->type = t;
    return d;
}
@end

@implementation MPSMatrix
- (id)initWithBuffer:(id<MTLBuffer>)b offset:(NSUInteger)o descriptor:(MPSMatrixDescriptor *)descriptor
{
    const NSUInteger item = descriptor->type == MPSDataTypeFloat16 ? 2 : 4;
    if (o % item || o + (descriptor->rows - 1) * descriptor->bytes + descriptor->columns * item > [b length]) misuse("a matrix beyond its buffer");
    buffer = [b retain];
    offset = o;
    d = [descriptor retain];
    return self;
}
- (void)dealloc
{
    [buffer release];
    [d release];
    [super dealloc];
}
@end

@implementation MPSMatrixMultiplication
- (id)initWithDevice:(id<MTLDevice>)device
       transposeLeft:(BOOL)l
      transposeRight:(BOOL)r
          resultRows:(NSUInteger)m
       resultColumns:(NSUInteger)n
     interiorColumns:(NSUInteger)k
               alpha:(double)alpha
                beta:(double)beta
{
    (void)device;
    left = l;
    right = r;
    rows = m;
    columns = n;
    inner = k;
    a = alpha;
    b = beta;
    return self;
}
- (void)encodeToCommandBuffer:(id<MTLCommandBuffer>)commands leftMatrix:(MPSMatrix *)l rightMatrix:(MPSMatrix *)r resultMatrix:(MPSMatrix *)y
{
    if (left || !right || a != 1 || b != 0) misuse("a product that the double does not know");
    if (l->d->rows != rows || l->d->columns != inner || r->d->rows != columns || r->d->columns != inner || y->d->rows != rows || y->d->columns != columns)
        misuse("matrices of other sizes than the product");
    if (l->d->type != MPSDataTypeFloat16 || r->d->type != MPSDataTypeFloat16 || y->d->type != MPSDataTypeFloat32) misuse("matrices of types that the double does not know");
    [(FakeCommands *)commands putLeft:l right:r result:y];
}
@end
