/* What goes wrong with the double of Metal, and what it has counted. */
#ifndef TESTS_FAKE_METAL_H
#define TESTS_FAKE_METAL_H

#include <stdbool.h>
#include <stddef.h>

struct fake_metal {
    bool no_device, old_family, wide_waves, no_compiler;
    size_t memory;          /* bytes of all buffers together; 0: no limit */
    int fails_after;        /* command buffers until the device is lost; -1: never */
    long fails_with;        /* code of that error */
    int n_objects, n_buffers; /* that live now */
    int n_launches, n_commands, n_copies, n_products, n_borrowed; /* run so far; buffers of others' memory */
    bool no_borrowing;      /* others' memory is refused */
    char misuse[200];       /* the first breach of Metal's rules; "": none */
};
extern struct fake_metal fake_metal;

#endif
