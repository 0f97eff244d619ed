/* What goes wrong with the double of an OpenCL driver, and what it has counted. */
#ifndef TESTS_FAKE_OPENCL_H
#define TESTS_FAKE_OPENCL_H

#include <stdbool.h>
#include <stddef.h>

struct fake_opencl {
    bool no_device, no_compiler;
    size_t group, local; /* threads of a group, bytes of local memory */
    size_t memory;       /* bytes of all buffers together; 0: no limit */
    int launches_left;   /* until launches fail; -1: they never do */
    int launch_code, finish_code;
    int n_buffers, n_programs, n_kernels, n_queues, n_contexts; /* that live now */
};

#endif
