/* The text of a module of kernels, for devices that compile at run time. */
#ifndef GPU_SOURCE_H
#define GPU_SOURCE_H

#include "base/base.h"

/* compat: "compat_opencl.h". Appends a text without #include, NUL-terminated. KG_ERR_UNSUPPORTED: no such module. */
kg_status gpu_source(struct buf *out, const char *compat, const char *module);

#endif
