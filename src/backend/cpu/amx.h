/* What the files of the AMX tier share. */
#ifndef BACKEND_CPU_AMX_H
#define BACKEND_CPU_AMX_H

#include "backend/cpu/avx512.h"

#define INLINE static inline __attribute__((always_inline))

/* Many tokens go over the weights two tiles at a time; AMX_ROWS rows of them stay in L1 meanwhile, activations of as many elements in L2 for
 * AMX_BLOCK rows. */
enum { AMX_TILE = ACT_WIDE_TILE, AMX_BOTH = 2 * AMX_TILE, AMX_PANELS = 2, AMX_ROWS = AMX_PANELS * PANEL, AMX_BLOCK = 256 };

_Static_assert((int)ACT_WHOLE_TILE == (int)AMX_TILE, "one size of tiles of tokens");

/* Tiles 0 to 5 have as many rows as there are tokens, 6 and 7, which are of weights, have 16. */
INLINE void amx_configure(int tokens)
{
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } c = {.palette = 1};
    for (int i = 0; i < 8; i++) c.rows[i] = (uint8_t)(i < 6 ? tokens : 16), c.row_bytes[i] = 64;
    __asm__ volatile("" ::: "memory"); /* tiles are loaded behind the compiler's back */
    _tile_loadconfig(&c);
}

/* Outputs [row, end) of the tokens from sums [AMX_BLOCK / AMX_ROWS][of AMX_BOTH tokens][AMX_PANELS][AMX_BOTH][16]. All of a token at once, since its
 * neighbours' outputs may be a power of two away, in the same set of the L1 cache. */
static inline void amx_store_block(const struct cpu_matmul *m, const float *sums, int row, int end)
{
    const int n = m->t1 - m->t0;
    const size_t chunk = (size_t)ROUND_UP(n, AMX_BOTH) * AMX_ROWS;
    for (int t = 0; t < n; t++) {
        const float *from = sums + t / AMX_BOTH * (AMX_BOTH * AMX_ROWS) + t % AMX_BOTH * 16;
        for (int r = row, i = 0; r < end; r += PANEL, i++)
            avx512_store_row(m, m->t0 + t, r, _mm512_load_ps(from + (size_t)(i / AMX_PANELS) * chunk + i % AMX_PANELS * (AMX_BOTH * 16)));
    }
}

const struct cpu_format *amx_whole_format(enum tensor_type type); /* int8 activations and integer scales; NULL: not such a type */
const struct cpu_format *amx_float_format(enum tensor_type type); /* BF16 and F16 by tiles of bf16; NULL: not such a type */
void amx_block_bf16(const float *x, int n, uint16_t *dst, int T, int parts); /* cpu_kernels.block_bf16 */

#endif
