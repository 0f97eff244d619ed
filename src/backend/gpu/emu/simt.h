/* Runs a GPU kernel on the CPU: every thread of a group is a fiber, so that barriers and wave operations really wait. A barrier that not
 * all threads reach, and threads that wait at different places, are errors that name the lines. */
#ifndef GPU_SIMT_H
#define GPU_SIMT_H

#include "base/base.h"

#define SIMT_WAVE 32
#define SIMT_GROUP_MOST 1024

/* The running thread. */
struct simt_thread {
    unsigned id, size, group[2]; /* in the group; threads of the group; of the group in the grid */
};
extern _Thread_local struct simt_thread *simt;

struct simt_kernel {
    const char *name;
    void (*call)(const void *params, void *const *buffers);
    int most_threads;
    size_t params_bytes;
    int n_buffers;
    struct simt_kernel *next;
};
void simt_register(struct simt_kernel *k);
const struct simt_kernel *simt_find(const char *name); /* NULL: none */

/* Runs the groups one after another. Not reentrant on one thread. */
kg_status simt_run(const struct simt_kernel *k, const unsigned grid[2], unsigned size, const void *params, void *const *buffers);

/* Memory that the threads of a group share, beyond what the kernel declares. Not thread-local: every thread of the program would pay for it. */
unsigned char *simt_room(size_t n_bytes);

/* For kernels; line: where. Sums and maxima are over `width` neighbouring lanes. */
void simt_barrier(int line);
void simt_wave_barrier(int line);
float simt_sum(float x, unsigned width, int line);
float simt_max(float x, unsigned width, int line);
float simt_xor(float x, unsigned m, int line); /* of lane ^ m */
void simt_rows8(float c[2], unsigned a0, unsigned a1, unsigned b0, unsigned b1, int line); /* mat_rows8 of compat_emu.h */

#endif
