/* Machine code of the kernels that nvcc has made, one fat binary per module; none where there was no nvcc. */
#include "backend/gpu/cuda/cuda_images.h"

#include <string.h>

#define IMAGE(name, path)                                                                                                       \
    __asm__(".pushsection .rodata,\"a\"\n.balign 64\n.hidden kagari_cuda_" #name "\n.globl kagari_cuda_" #name "\nkagari_cuda_" #name \
            ":\n.incbin \"" path "\"\n.byte 0\n.popsection\n");                                                                 \
    extern const unsigned char kagari_cuda_##name[];
#include "gpu_images.inc"
#undef IMAGE

static const struct {
    const char *name;
    const void *image;
} images[] = {
#define IMAGE(name, path) {#name, kagari_cuda_##name},
#include "gpu_images.inc"
#undef IMAGE
    {NULL, NULL},
};

const void *cuda_image(const char *module)
{
    for (int i = 0; images[i].name; i++)
        if (!strcmp(images[i].name, module)) return images[i].image;
    return NULL;
}
