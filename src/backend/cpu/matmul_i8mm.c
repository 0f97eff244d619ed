/* The int8 tile of the i8mm tier: smmla multiplies two rows by two tokens over eight elements at once. Integer sums are exact and
 * what follows them is the arithmetic of matmul_neon.c, so the results are those of its tile, bit for bit. */
#include "backend/cpu/neon.h"

#define TILE ACT_TILE

/* Eight elements of tokens t and t + 1; if there is only token t, then of t alone. a [2][T][4]. */
NEON_INLINE int8x16_t load_pair(const int8_t *a, const int T, const int t)
{
    if (t + 1 == T) {
        const int32x2_t one = vset_lane_s32((int32_t)load_u32(a + 4 * (T + t)), vdup_n_s32((int32_t)load_u32(a + 4 * t)), 1);
        return vreinterpretq_s8_s32(vcombine_s32(one, vdup_n_s32(0)));
    }
    const int8x16_t k0 = vcombine_s8(vld1_s8(a + 4 * t), vdup_n_s8(0)), k4 = vcombine_s8(vld1_s8(a + 4 * (T + t)), vdup_n_s8(0));
    return vreinterpretq_s8_s32(vzip1q_s32(vreinterpretq_s32_s8(k0), vreinterpretq_s32_s8(k4)));
}

NEON_INLINE void tile(const struct neon_tile *x, const int T, const int GROUP, const bool HAS_MIN)
{
    const int8_t *w = x->w, *a = x->a;
    const float *ws = x->ws, *wm = x->wm;
    const struct act_group *ag = x->group;
    const struct act_halves *ah = x->halves;
    for (int u = 0; u < x->n_units; u++, ag += T, ah += T) {
        UNROLL(2)
        for (int half = 0; half < 32 / GROUP; half++, ws += 16, wm += 16) {
            int32x4_t acc[(TILE + 1) / 2][8]; /* [pair of tokens][pair of rows]: [row][token] */
            UNROLL(3)
            for (int p = 0; p < (T + 1) / 2; p++)
                UNROLL(8)
                for (int r = 0; r < 8; r++) acc[p][r] = vdupq_n_s32(0);
            UNROLL(4)
            for (int j = 0; j < GROUP / 8; j++, w += 128, a += 8 * T) {
                int8x16_t b[(TILE + 1) / 2];
                UNROLL(3)
                for (int p = 0; p < (T + 1) / 2; p++) b[p] = load_pair(a, T, 2 * p);
                UNROLL(8)
                for (int r = 0; r < 8; r++) {
                    const int8x16_t rows = vld1q_s8(w + 16 * r);
                    UNROLL(3)
                    for (int p = 0; p < (T + 1) / 2; p++) acc[p][r] = vmmlaq_s32(acc[p][r], rows, b[p]);
                }
            }
            UNROLL(6)
            for (int t = 0; t < T; t++) {
                const float scale = ag[t].scale, sum = GROUP == 32 ? ag[t].sum_scaled : ah[t].sum_scaled[half];
                UNROLL(4)
                for (int i = 0; i < 4; i++) {
                    const int32x4_t lo = acc[t / 2][2 * i], hi = acc[t / 2][2 * i + 1], isum = t % 2 ? vuzp2q_s32(lo, hi) : vuzp1q_s32(lo, hi);
                    float32x4_t c = neon_add_group(vld1q_f32(x->c + t * 16 + i * 4), isum, scale, ws + i * 4);
                    if (HAS_MIN) c = neon_sub_min(c, sum, wm + i * 4);
                    vst1q_f32(x->c + t * 16 + i * 4, c);
                }
            }
        }
    }
}

#define TILE_CASES(GROUP, HAS_MIN)                     \
    switch (T) {                                       \
    case 1: tile(x, 1, GROUP, HAS_MIN); break;         \
    case 2: tile(x, 2, GROUP, HAS_MIN); break;         \
    case 3: tile(x, 3, GROUP, HAS_MIN); break;         \
    case 4: tile(x, 4, GROUP, HAS_MIN); break;         \
    case 5: tile(x, 5, GROUP, HAS_MIN); break;         \
    default: tile(x, 6, GROUP, HAS_MIN); break;        \
    }
static void tile_32(const struct neon_tile *x, int T) { TILE_CASES(32, false) }
static void tile_32_min(const struct neon_tile *x, int T) { TILE_CASES(32, true) }
static void tile_16(const struct neon_tile *x, int T) { TILE_CASES(16, false) }
static void tile_16_min(const struct neon_tile *x, int T) { TILE_CASES(16, true) }

const struct neon_tiles neon_i8mm_tiles = {true, {{tile_32, tile_32_min}, {tile_16, tile_16_min}}};
