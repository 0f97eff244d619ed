/* A double of NVIDIA's driver on the emulator. What goes into the stream runs when somebody waits for it, so that host memory that is used
 * again too early gives wrong results; pointers, sizes and the order of calls are checked. */
#include "fake_cuda.h"

#include "backend/gpu/cuda/cuda.h"

#include <stdlib.h>

#define PUBLIC __attribute__((visibility("default")))
PUBLIC extern struct fake_cuda fake_cuda;
struct fake_cuda fake_cuda = {.major = 9, .launches_left = -1};

enum { NO_DEVICE = 100, INVALID_VALUE = 1, NO_IMAGE = 209, INVALID_HANDLE = 400, NOT_FOUND = 500, LAUNCH_FAILED = 719 };
enum { MOST = 4096, ARGS = 16, PARAMS = 512 };

struct cu_function_ {
    char name[64];
    bool recorded;
    struct cu_function_ *next;
};
struct cu_module_ {
    struct cu_function_ *functions;
};
enum what { LAUNCH, UP, DOWN, COPY, FILL };
struct work {
    enum what what;
    char kernel[64];
    unsigned grid[2], threads;
    char params[PARAMS];
    void *buffers[ARGS];
    void *to;
    const void *from;
    size_t n;
    unsigned char value;
};
struct list {
    struct work *work;
    int n, cap;
};
struct cu_graph_ {
    struct list list;
};

static struct memory {
    char *p;
    size_t n;
} buffers[MOST], host[64];
static struct list stream, *capture;
static size_t allocated;
static bool lost, current;

static void misuse(const char *what)
{
    if (!fake_cuda.misuse[0]) strncpy(fake_cuda.misuse, what, sizeof fake_cuda.misuse - 1);
}

/* n bytes at p lie in one piece of the list. */
static bool inside(const struct memory *list, int most, const void *p, size_t n)
{
    for (int i = 0; i < most; i++)
        if (list[i].p && (const char *)p >= list[i].p && (const char *)p + n <= list[i].p + list[i].n) return true;
    return false;
}
static void *device_memory(cu_pointer p, size_t n)
{
    void *at = (void *)(uintptr_t)p;
    if (!inside(buffers, MOST, at, n)) misuse("device memory out of bounds");
    return at;
}

static int ready(void)
{
    if (!current) misuse("a call without a context");
    return lost ? LAUNCH_FAILED : 0;
}

static int put(const struct work *w)
{
    struct list *l = capture ? capture : &stream;
    if (l->n == l->cap) {
        l->cap = l->cap * 2 + 64;
        l->work = realloc(l->work, (size_t)l->cap * sizeof *l->work);
        if (!l->work) return CU_OUT_OF_MEMORY;
    }
    l->work[l->n++] = *w;
    return 0;
}

static int flush(void)
{
    for (int i = 0; i < stream.n && !lost; i++) {
        const struct work *w = &stream.work[i];
        size_t ignored;
        int n;
        if (w->what == FILL) memset(w->to, w->value, w->n);
        else if (w->what != LAUNCH) memmove(w->to, w->from, w->n);
        else if (fake_cuda.launches_left == 0) lost = true;
        else {
            if (fake_cuda.launches_left > 0) fake_cuda.launches_left--;
            fake_cuda.n_launches++;
            if (fake_cuda.run(w->kernel, &ignored, &n, w->grid, w->threads, w->params, w->buffers)) lost = true;
        }
    }
    stream.n = 0;
    return lost ? LAUNCH_FAILED : 0;
}

/* ---- the driver's functions ---- */

PUBLIC int cuInit(unsigned flags)
{
    lost = current = false;
    return flags ? INVALID_VALUE : fake_cuda.init_code;
}
PUBLIC int cuDriverGetVersion(int *v) { return *v = 13000, 0; }
PUBLIC int cuDeviceGetCount(int *n) { return *n = 1, 0; }
PUBLIC int cuDeviceGet(int *d, int i) { return *d = i, i ? NO_DEVICE : 0; }
PUBLIC int cuDeviceGetName(char *s, int n, int d)
{
    (void)d;
    strncpy(s, "double of an NVIDIA GPU", (size_t)n);
    return 0;
}
PUBLIC int cuDeviceGetAttribute(int *v, int a, int d)
{
    (void)d;
    *v = a == 75 ? fake_cuda.major : a == 76 ? fake_cuda.minor : a == 16 ? 4 : a == 97 ? 227 << 10 : 0;
    return 0;
}
PUBLIC int cuDevicePrimaryCtxRetain(cu_context *c, int d)
{
    fake_cuda.n_contexts++;
    *c = (cu_context)(void *)&fake_cuda;
    return d ? NO_DEVICE : 0;
}
PUBLIC int cuDevicePrimaryCtxRelease_v2(int d)
{
    if (--fake_cuda.n_contexts < 0) misuse("a context released too often");
    return d ? NO_DEVICE : 0;
}
PUBLIC int cuCtxSetCurrent(cu_context c)
{
    current = c != NULL;
    return 0;
}
PUBLIC int cuModuleLoadData(cu_module *m, const void *image)
{
    if (ready()) return LAUNCH_FAILED;
    if (memcmp(image, "DOUBLE", 6) != 0 || fake_cuda.refuses_images) return NO_IMAGE;
    fake_cuda.n_modules++;
    return (*m = calloc(1, sizeof **m)) ? 0 : CU_OUT_OF_MEMORY;
}
PUBLIC int cuModuleUnload(cu_module m)
{
    for (struct cu_function_ *f = m->functions, *next; f; f = next) {
        next = f->next;
        free(f);
    }
    free(m);
    fake_cuda.n_modules--;
    return 0;
}
PUBLIC int cuFuncGetAttribute(int *v, int attribute, cu_function f)
{
    (void)f;
    *v = 0;
    return attribute == 1 ? 0 : INVALID_VALUE;
}
PUBLIC int cuFuncSetAttribute(cu_function f, int attribute, int value)
{
    if (f->recorded) misuse("an attribute of a function that recordings have makes their runs slower");
    return (attribute == 8 && value <= 227 << 10) || (attribute == 9 && value <= 100) ? 0 : 1;
}

PUBLIC int cuModuleGetFunction(cu_function *f, cu_module m, const char *name)
{
    size_t n_bytes;
    int n;
    if (fake_cuda.run(name, &n_bytes, &n, NULL, 0, NULL, NULL)) return NOT_FOUND;
    for (*f = m->functions; *f; *f = (*f)->next)
        if (!strcmp((*f)->name, name)) return 0;
    *f = calloc(1, sizeof **f);
    if (!*f || strlen(name) >= sizeof (*f)->name) return CU_OUT_OF_MEMORY;
    strcpy((*f)->name, name);
    (*f)->next = m->functions;
    m->functions = *f;
    return 0;
}
PUBLIC int cuMemGetInfo_v2(size_t *free_bytes, size_t *all)
{
    *all = fake_cuda.memory ? fake_cuda.memory : (size_t)8 << 30;
    *free_bytes = *all - MIN(*all, allocated);
    return ready();
}
static int new_memory(struct memory *list, int most, size_t n, void **out)
{
    for (int i = 0; i < most; i++) {
        if (list[i].p) continue;
        if (posix_memalign(out, 256, n) != 0) return CU_OUT_OF_MEMORY;
        memset(*out, 0xee, n);
        list[i] = (struct memory){*out, n};
        return 0;
    }
    return CU_OUT_OF_MEMORY;
}
static int free_memory(struct memory *list, int most, const void *p, size_t *n)
{
    for (int i = 0; i < most; i++) {
        if (!list[i].p || list[i].p != p) continue;
        *n = list[i].n;
        free(list[i].p);
        list[i].p = NULL;
        return 0;
    }
    misuse("memory freed that is none");
    return INVALID_VALUE;
}
PUBLIC int cuMemAlloc_v2(cu_pointer *p, size_t n)
{
    void *at = NULL;
    if (ready()) return LAUNCH_FAILED;
    if (capture) misuse("memory asked for in a recording");
    if (n == 0) return INVALID_VALUE;
    if (fake_cuda.memory && allocated + n > fake_cuda.memory) return CU_OUT_OF_MEMORY;
    int code = new_memory(buffers, MOST, n, &at);
    if (code == 0) {
        allocated += n;
        fake_cuda.n_buffers++;
    }
    *p = (cu_pointer)(uintptr_t)at;
    return code;
}
PUBLIC int cuMemFree_v2(cu_pointer p) /* waits, as the driver does */
{
    size_t n = 0;
    flush();
    int code = free_memory(buffers, MOST, (void *)(uintptr_t)p, &n);
    allocated -= n;
    fake_cuda.n_buffers -= code == 0;
    return code;
}
PUBLIC int cuMemAllocHost_v2(void **p, size_t n)
{
    int code = new_memory(host, COUNT_OF(host), n, p);
    fake_cuda.n_host += code == 0;
    return code;
}
PUBLIC int cuMemFreeHost(void *p)
{
    size_t n;
    int code = free_memory(host, COUNT_OF(host), p, &n);
    fake_cuda.n_host -= code == 0;
    return code;
}
PUBLIC int cuMemsetD8Async(cu_pointer p, unsigned char v, size_t n, cu_stream s)
{
    if (!s) misuse("the default stream");
    return ready() ? LAUNCH_FAILED : put(&(struct work){.what = FILL, .to = device_memory(p, n), .n = n, .value = v});
}
PUBLIC int cuMemcpyHtoDAsync_v2(cu_pointer to, const void *from, size_t n, cu_stream s)
{
    if (!s) misuse("the default stream");
    if (!inside(host, COUNT_OF(host), from, n)) misuse("a copy from memory that is not pinned is not in order with the stream");
    if (capture) misuse("an upload in a recording would read the host's memory at every replay");
    return ready() ? LAUNCH_FAILED : put(&(struct work){.what = UP, .to = device_memory(to, n), .from = from, .n = n});
}
PUBLIC int cuMemcpyDtoHAsync_v2(void *to, cu_pointer from, size_t n, cu_stream s)
{
    if (!s) misuse("the default stream");
    if (!inside(host, COUNT_OF(host), to, n)) misuse("a copy to memory that is not pinned is not in order with the stream");
    return ready() ? LAUNCH_FAILED : put(&(struct work){.what = DOWN, .to = to, .from = device_memory(from, n), .n = n});
}
PUBLIC int cuMemcpyDtoDAsync_v2(cu_pointer to, cu_pointer from, size_t n, cu_stream s)
{
    if (!s) misuse("the default stream");
    return ready() ? LAUNCH_FAILED : put(&(struct work){.what = COPY, .to = device_memory(to, n), .from = device_memory(from, n), .n = n});
}
PUBLIC int cuStreamCreate(cu_stream *s, unsigned flags)
{
    (void)flags;
    fake_cuda.n_streams++;
    *s = (cu_stream)(void *)&stream;
    return ready();
}
PUBLIC int cuStreamDestroy_v2(cu_stream s)
{
    (void)s;
    flush();
    fake_cuda.n_streams--;
    free(stream.work);
    stream = (struct list){0};
    return 0;
}
PUBLIC int cuStreamSynchronize(cu_stream s)
{
    if (!s) misuse("the default stream");
    if (capture) misuse("waiting in a recording");
    return ready() ? LAUNCH_FAILED : flush();
}
PUBLIC int cuStreamQuery(cu_stream s) { return cuStreamSynchronize(s); } /* nothing runs meanwhile, so that whoever asks must ask again */
PUBLIC int cuLaunchKernelEx(const struct cu_config *c, cu_function f, void **args, void **extra)
{
    struct work w = {.what = LAUNCH, .grid = {c->grid[0], c->grid[1]}, .threads = c->block[0]};
    size_t n_bytes = 0;
    int n = 0;
    if (ready()) return LAUNCH_FAILED;
    if (!c->stream || extra || c->grid[2] != 1 || c->block[1] != 1 || c->block[2] != 1 || !c->grid[0] || !c->grid[1] || c->grid[1] > 65535) misuse("a launch of a strange shape");
    if (fake_cuda.run(f->name, &n_bytes, &n, NULL, 0, NULL, NULL) || n_bytes > PARAMS || n > ARGS) return INVALID_HANDLE;
    f->recorded |= capture != NULL;
    memcpy(w.kernel, f->name, sizeof w.kernel);
    memcpy(w.params, args[0], n_bytes);
    for (int i = 0; i < n; i++) {
        cu_pointer p;
        memcpy(&p, args[i + 1], sizeof p);
        w.buffers[i] = inside(host, COUNT_OF(host), (void *)(uintptr_t)p, 1) ? (void *)(uintptr_t)p : device_memory(p, 1);
    }
    for (unsigned i = 0; i < c->n_attributes; i++) fake_cuda.n_overlaps += c->attributes[i].id == 6 && c->attributes[i].value.i == 1;
    return put(&w);
}
PUBLIC int cuStreamBeginCapture_v2(cu_stream s, int mode)
{
    (void)mode;
    if (!s || capture) misuse("a recording in a recording");
    struct cu_graph_ *g = calloc(1, sizeof *g);
    fake_cuda.n_graphs++;
    capture = g ? &g->list : NULL;
    return g ? ready() : CU_OUT_OF_MEMORY;
}
PUBLIC int cuStreamEndCapture(cu_stream s, cu_graph *g)
{
    if (!s || !capture) misuse("the end of no recording");
    *g = (cu_graph)(void *)capture; /* the list is the graph's first member */
    capture = NULL;
    return 0;
}
PUBLIC int cuGraphInstantiateWithFlags(cu_graph_exec *x, cu_graph g, unsigned long long flags)
{
    struct cu_graph_ *copy = calloc(1, sizeof *copy);
    if (!copy || flags) return INVALID_VALUE;
    *copy = *g;
    copy->list.work = calloc((size_t)MAX(g->list.n, 1), sizeof *copy->list.work);
    if (!copy->list.work) return CU_OUT_OF_MEMORY;
    memcpy(copy->list.work, g->list.work, (size_t)g->list.n * sizeof *copy->list.work);
    copy->list.cap = g->list.n;
    fake_cuda.n_graphs++;
    *x = (cu_graph_exec)(void *)copy;
    return ready();
}
PUBLIC int cuGraphLaunch(cu_graph_exec x, cu_stream s)
{
    const struct list *l = &((struct cu_graph_ *)(void *)x)->list;
    int code = s && !capture ? ready() : INVALID_VALUE;
    for (int i = 0; code == 0 && i < l->n; i++) code = put(&l->work[i]);
    fake_cuda.n_replays++;
    return code;
}
static int graph_free(void *p)
{
    struct cu_graph_ *g = p;
    free(g->list.work);
    free(g);
    fake_cuda.n_graphs--;
    return 0;
}
PUBLIC int cuGraphExecDestroy(cu_graph_exec x)
{
    if (stream.n) misuse("a graph destroyed while its launches wait");
    return graph_free(x);
}
PUBLIC int cuGraphDestroy(cu_graph g) { return graph_free(g); }
PUBLIC int cuGetErrorString(int code, const char **text)
{
    *text = code == CU_OUT_OF_MEMORY ? "out of memory" : code == NO_DEVICE ? "no CUDA-capable device is detected" : code == NO_IMAGE ? "no kernel image is available for execution on the device"
            : code == LAUNCH_FAILED ? "unspecified launch failure" : "an error of the double";
    return 0;
}
