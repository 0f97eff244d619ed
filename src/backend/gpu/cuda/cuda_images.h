#ifndef GPU_CUDA_IMAGES_H
#define GPU_CUDA_IMAGES_H

/* A fat binary for cuModuleLoadData; NULL: this build has none of the module. */
const void *cuda_image(const char *module);

#endif
