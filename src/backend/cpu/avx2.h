/* What the files of the AVX2 tier share. */
#ifndef BACKEND_CPU_AVX2_H
#define BACKEND_CPU_AVX2_H

#include "backend/cpu/cpu.h"

#include <immintrin.h>

/* int8 activations; NULL: not a block type. The same with vpdpbusd, as AVX-VNNI and as AVX-512 encode it. */
const struct cpu_format *avx2_int_format(enum tensor_type type);
const struct cpu_format *avxvnni_int_format(enum tensor_type type);
const struct cpu_format *vnni256_int_format(enum tensor_type type);
const struct cpu_format *avx2_float_format(enum tensor_type type); /* f32 activations */

/* ---- how a single token's product reads memory ---- */

/* Intel's prefetchers serve a stream too slowly: there a product reads panels side by side and asks for lines ahead. AMD's are best left alone
 * (bench/NOTES.md). */
static inline bool avx2_reads_side(void) { return !__builtin_cpu_is("amd"); }
#define AVX2_SIDE 4     /* panels */
#define AVX2_AHEAD 4096 /* bytes of each: those of all stay in the L1 cache */

/* Outputs row .. row + 7 of token t, as far as there are any. Stores with masks take AMD's cores dozens of steps. */
static inline void avx2_store_8(const struct cpu_matmul *m, int t, int row, __m256 c)
{
    const int n = m->out - row;
    float *y = m->y + (size_t)t * (size_t)m->out + (size_t)row;
    if (n >= 8) {
        if (m->bias) c = _mm256_add_ps(c, _mm256_loadu_ps(m->bias + row));
        _mm256_storeu_ps(y, c);
        return;
    }
    if (n <= 0) return;
    const __m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    if (m->bias) c = _mm256_add_ps(c, _mm256_maskload_ps(m->bias + row, mask));
    _mm256_maskstore_ps(y, mask, c);
}

size_t avx2_attend_scratch_bytes(int n_rows, int k_dim, int v_dim);
void avx2_attend(const struct cpu_attend *a);

#endif
