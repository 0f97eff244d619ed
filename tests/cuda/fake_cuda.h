/* What goes wrong with the double of NVIDIA's driver (libcuda.so.1) and compiler (libnvrtc), and what was counted. The test finds `fake_cuda` in the
 * library of the driver by its name. */
#ifndef TESTS_FAKE_CUDA_H
#define TESTS_FAKE_CUDA_H

#include <stdbool.h>
#include <stddef.h>

struct fake_cuda {
    /* the emulator, in the test's own program */
    int (*run)(const char *kernel, size_t *params_bytes, int *n_buffers, const unsigned grid[2], unsigned threads, const void *params, void *const *buffers);
    int major, minor;
    int init_code;         /* what cuInit returns */
    size_t memory;         /* bytes of all buffers together; 0: no limit */
    int launches_left;     /* until the device is lost; -1: never */
    bool refuses_images;   /* made for another architecture */
    int n_buffers, n_host, n_contexts, n_modules, n_streams, n_graphs; /* that live now */
    int n_launches, n_replays, n_overlaps;
    char misuse[200];      /* the first breach of the driver's rules; "": none */
};

#endif
