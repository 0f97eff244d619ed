/* Constant tables of the grid types: data of the formats, no code. Values: ggml-common.h. */
#ifndef TENSOR_CODEBOOKS_H
#define TENSOR_CODEBOOKS_H

#include <stdint.h>

/* Each entry packs 8 (uint64) or 4 (uint32) signed bytes, lowest byte first. */
extern const uint64_t iq2xxs_grid[256];
extern const uint64_t iq2xs_grid[512];
extern const uint64_t iq2s_grid[1024];
extern const uint32_t iq3xxs_grid[256];
extern const uint32_t iq3s_grid[512];
extern const uint64_t iq1s_grid[2048];
extern const uint8_t ksigns_iq2xs[128];
extern const int8_t kvalues_iq4nl[16];
extern const int8_t kvalues_fp4[16]; /* twice the E2M1 value */

#endif
