/* What the files of the NEON tiers share. Two tiers use them: "neon" (armv8.2 with dot products) and "i8mm", which only multiplies
 * tiles of int8 differently. */
#ifndef BACKEND_CPU_NEON_H
#define BACKEND_CPU_NEON_H

#include "backend/cpu/cpu.h"

#include <arm_neon.h>

#define NEON_INLINE static inline __attribute__((always_inline))

const struct cpu_format *neon_int_format(enum tensor_type type, bool i8mm); /* int8 activations; NULL: not a block type */
const struct cpu_format *neon_float_format(enum tensor_type type);          /* f32 activations */

size_t neon_attend_scratch_bytes(int n_rows, int k_dim, int v_dim);
void neon_attend(const struct cpu_attend *a);

/* 16 rows x T tokens of int8. Values of weights lie unpacked and signed, [k4][16][4], or [k8][16][8] for matrix instructions. */
struct neon_tile {
    const int8_t *w;
    const float *ws, *wm;            /* [group][16] */
    int n_units;                     /* of 32 elements */
    const int8_t *a;                 /* [k4][T][4] */
    const struct act_group *group;   /* [unit][T] */
    const struct act_halves *halves; /* [unit][T] */
    float *c;                        /* [T][16]: sums so far */
};
struct neon_tiles {
    bool by_8; /* the layout of w */
    void (*tile[2][2])(const struct neon_tile *x, int T); /* [groups of 16, not 32][with minima] */
};
extern const struct neon_tiles neon_i8mm_tiles;

/* One scale group of four rows: c = fma(isum * scale, ws, c), then c = fma(-sum, wm, c) if there are minima. */
NEON_INLINE float32x4_t neon_add_group(float32x4_t c, int32x4_t isum, float scale, const float *ws)
{
    return vfmaq_f32(c, vmulq_n_f32(vcvtq_f32_s32(isum), scale), vld1q_f32(ws));
}
NEON_INLINE float32x4_t neon_sub_min(float32x4_t c, float sum, const float *wm) { return vfmsq_n_f32(c, vld1q_f32(wm), sum); }

/* y of token t, rows row .. row + 15 as far as there are rows. */
static inline void neon_store_row(const struct cpu_matmul *m, int t, int row, const float c[16])
{
    const int n = MIN(m->out - row, PANEL);
    float *y = m->y + (size_t)t * (size_t)m->out + (size_t)row;
    for (int i = 0; i < n; i++) y[i] = m->bias ? c[i] + m->bias[row + i] : c[i];
}

#endif
