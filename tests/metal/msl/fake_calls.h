/* What the text of a kernel, compiled as C++, needs of the emulator, and what it tells about its kernels. The library that comes of a text
 * has `fake_calls`, to be set before any call, and `fake_kernels`. */
#ifndef TESTS_FAKE_CALLS_H
#define TESTS_FAKE_CALLS_H

#include <stddef.h>
#include <stdint.h>

struct fake_thread {
    unsigned id, size, group[2];
};
struct fake_calls {
    const struct fake_thread *(*self)(void);
    void (*barrier)(int line);
    void (*wave_barrier)(int line);
    float (*max)(float x, unsigned width, int line);
    float (*exchange)(float x, unsigned m, int line); /* of lane ^ m */
    float (*from_half)(uint16_t h);
    uint16_t (*to_half)(float f);
};
struct fake_kernel {
    const char *name; /* NULL: the end */
    void (*call)(const void *params, void *const *buffers);
    int most_threads;
    size_t params_bytes;
    int n_buffers;
};

#endif
