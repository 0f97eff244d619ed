/* A double of an OpenCL driver, as far as the host of src/backend/gpu/opencl calls it: memory is the processor's, programs build, and launches do
 * nothing. It is for what goes wrong; that kernels compute right is seen on PoCL. */
#include "fake_opencl.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#pragma GCC visibility push(default)

struct fake_opencl fake_opencl;
static size_t allocated;
static char thing; /* platform, device, context and the like are the address of something */

struct memory {
    size_t n;
    char bytes[];
};

int clGetPlatformIDs(unsigned most, void **out, unsigned *n)
{
    if (most && out) out[0] = &thing;
    *n = 1;
    return 0;
}
int clGetDeviceIDs(void *platform, uint64_t type, unsigned most, void **out, unsigned *n)
{
    (void)platform;
    (void)type;
    if (fake_opencl.no_device) return -1; /* CL_DEVICE_NOT_FOUND */
    if (most && out) out[0] = &thing;
    *n = 1;
    return 0;
}
int clGetDeviceInfo(void *device, unsigned what, size_t size, void *out, size_t *n)
{
    uint64_t big = what == 0x1000 ? 4 : what == 0x101f ? (uint64_t)8 << 30 : what == 0x1023 ? fake_opencl.local : 0;
    (void)device;
    (void)n;
    if (what == 0x1004) memcpy(out, &fake_opencl.group, sizeof fake_opencl.group);
    else if (what == 0x1002) memcpy(out, &(unsigned){4}, sizeof(unsigned));
    else if (what == 0x102b) strncpy(out, "double of a GPU", size);
    else if (what == 0x102d) strncpy(out, "1.0", size);
    else memcpy(out, &big, sizeof big);
    return 0;
}
void *clCreateContext(const intptr_t *p, unsigned n, void *const *devices, void (*notify)(const char *, const void *, size_t, void *), void *user, int *code)
{
    (void)p, (void)n, (void)devices, (void)notify, (void)user;
    fake_opencl.n_contexts++;
    *code = 0;
    return &thing;
}
int clReleaseContext(void *c)
{
    (void)c;
    fake_opencl.n_contexts--;
    return 0;
}
void *clCreateCommandQueue(void *c, void *d, uint64_t properties, int *code)
{
    (void)c, (void)d, (void)properties;
    fake_opencl.n_queues++;
    *code = 0;
    return &thing;
}
int clReleaseCommandQueue(void *q)
{
    (void)q;
    fake_opencl.n_queues--;
    return 0;
}
void *clCreateBuffer(void *c, uint64_t flags, size_t n, void *host, int *code)
{
    (void)c, (void)flags, (void)host;
    struct memory *m = fake_opencl.memory && allocated + n > fake_opencl.memory ? NULL : malloc(sizeof *m + n);
    *code = m ? 0 : -4; /* CL_MEM_OBJECT_ALLOCATION_FAILURE */
    if (!m) return NULL;
    m->n = n;
    allocated += n;
    fake_opencl.n_buffers++;
    return m;
}
int clReleaseMemObject(void *m)
{
    allocated -= ((struct memory *)m)->n;
    fake_opencl.n_buffers--;
    free(m);
    return 0;
}
void *clCreateProgramWithSource(void *c, unsigned n, const char **text, const size_t *lengths, int *code)
{
    (void)c, (void)n, (void)text, (void)lengths;
    fake_opencl.n_programs++;
    *code = 0;
    return &thing;
}
int clBuildProgram(void *p, unsigned n, void *const *devices, const char *options, void (*notify)(void *, void *), void *user)
{
    (void)p, (void)n, (void)devices, (void)options, (void)notify, (void)user;
    return fake_opencl.no_compiler ? -11 : 0; /* CL_BUILD_PROGRAM_FAILURE */
}
int clGetProgramBuildInfo(void *p, void *d, unsigned what, size_t size, void *out, size_t *n)
{
    static const char log[] = "double:1: error: so it was asked";
    (void)p, (void)d, (void)what;
    if (n) *n = sizeof log;
    if (out && size >= sizeof log) memcpy(out, log, sizeof log);
    return 0;
}
int clReleaseProgram(void *p)
{
    (void)p;
    fake_opencl.n_programs--;
    return 0;
}
void *clCreateKernel(void *p, const char *name, int *code)
{
    (void)p, (void)name;
    fake_opencl.n_kernels++;
    *code = 0;
    return &thing;
}
int clReleaseKernel(void *k)
{
    (void)k;
    fake_opencl.n_kernels--;
    return 0;
}
int clSetKernelArg(void *k, unsigned i, size_t n, const void *value)
{
    (void)k, (void)i, (void)n, (void)value;
    return 0;
}
int clEnqueueNDRangeKernel(void *q, void *k, unsigned dims, const size_t *offset, const size_t *global, const size_t *local, unsigned n, const void *wait, void *event)
{
    (void)q, (void)k, (void)dims, (void)offset, (void)global, (void)local, (void)n, (void)wait, (void)event;
    if (fake_opencl.launches_left > 0) fake_opencl.launches_left--;
    return fake_opencl.launches_left == 0 ? fake_opencl.launch_code : 0;
}
int clEnqueueWriteBuffer(void *q, void *m, unsigned blocking, size_t offset, size_t n, const void *from, unsigned n_wait, const void *wait, void *event)
{
    (void)q, (void)blocking, (void)n_wait, (void)wait, (void)event;
    memcpy(((struct memory *)m)->bytes + offset, from, n);
    return 0;
}
int clEnqueueReadBuffer(void *q, void *m, unsigned blocking, size_t offset, size_t n, void *to, unsigned n_wait, const void *wait, void *event)
{
    (void)q, (void)blocking, (void)n_wait, (void)wait, (void)event;
    memcpy(to, ((struct memory *)m)->bytes + offset, n);
    return 0;
}
int clEnqueueCopyBuffer(void *q, void *from, void *to, size_t from_at, size_t to_at, size_t n, unsigned n_wait, const void *wait, void *event)
{
    (void)q, (void)n_wait, (void)wait, (void)event;
    memmove(((struct memory *)to)->bytes + to_at, ((struct memory *)from)->bytes + from_at, n);
    return 0;
}
int clEnqueueFillBuffer(void *q, void *m, const void *pattern, size_t size, size_t offset, size_t n, unsigned n_wait, const void *wait, void *event)
{
    (void)q, (void)pattern, (void)size, (void)n_wait, (void)wait, (void)event;
    memset(((struct memory *)m)->bytes + offset, 0, n);
    return 0;
}
int clFinish(void *q)
{
    (void)q;
    return fake_opencl.finish_code;
}
