/* Models made of noise: the shapes of well-known models with random weights, written as GGUF. For measuring speed without a
 * model file. */
#ifndef APP_NOISE_H
#define APP_NOISE_H

#include <stdbool.h>

/* A model file without a name, that is gone when it is closed: in memory where the system can do that. */
struct noise_file {
    int fd;
    char path[64]; /* by which it can be opened as long as fd is */
};

/* The names are listed in options.def, in this order. */
enum noise_shape { NOISE_TINYLLAMA, NOISE_LLAMA3_1B, NOISE_LLAMA3_8B, NOISE_OLMOE, NOISE_TINY, NOISE_TINY_EXPERTS, NOISE_N_SHAPES };

/* type: a tensor type, or "q4_k_m", the mixture of Q4_K and Q6_K. Return 0, or an exit code after printing why. The contents
 * depend on shape and type only. */
int noise_open(struct noise_file *out, enum noise_shape shape, const char *type);
void noise_close(struct noise_file *f);
/* The same to a file that stays, with a vocabulary, which other programs insist on. */
int noise_write(const char *path, enum noise_shape shape, const char *type);
const char *noise_shape_name(enum noise_shape shape);

#endif
