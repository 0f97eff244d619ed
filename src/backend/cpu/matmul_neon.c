/* Matmul with int8 activations for NEON: weights are unpacked to bytes in cache, 16 rows at a time, and multiplied with tiles of
 * up to six tokens; a single token reads the packed planes directly. The tile for matrix instructions is in matmul_i8mm.c.
 *
 * One output is, in this order, over the groups g of its row:   c = fma(isum_g * a_g, w_g, c), c = fma(-sum_g, min_g, c)
 * where isum is the exact integer sum of the group. */
#include "backend/cpu/neon.h"

#include "backend/cpu/pack.h"
#include "tensor/codebooks.h"
#include "tensor/decode.h"

#define CHUNK 512 /* elements of a row that are unpacked at a time: 8 KiB of values for 16 rows */
#define TILE ACT_TILE

/* acc[i] += the four products of w's lane i and a's given lane; the lane is a constant once loops are unrolled. */
NEON_INLINE int32x4_t dot_lane(int32x4_t acc, int8x16_t w, int8x16_t a, int lane)
{
    switch (lane) {
    case 0: return vdotq_laneq_s32(acc, w, a, 0);
    case 1: return vdotq_laneq_s32(acc, w, a, 1);
    case 2: return vdotq_laneq_s32(acc, w, a, 2);
    default: return vdotq_laneq_s32(acc, w, a, 3);
    }
}

/* ---- the tile: 16 rows x T tokens, 4 T sums in registers ---- */

NEON_INLINE void tile(const struct neon_tile *x, const int T, const int GROUP, const bool HAS_MIN)
{
    const int8_t *w = x->w, *a = x->a;
    const float *ws = x->ws, *wm = x->wm;
    const struct act_group *ag = x->group;
    const struct act_halves *ah = x->halves;
    for (int u = 0; u < x->n_units; u++, ag += T, ah += T) {
        UNROLL(2)
        for (int half = 0; half < 32 / GROUP; half++, ws += 16, wm += 16) {
            int32x4_t acc[TILE][4];
            int8x16_t b = vdupq_n_s8(0);
            UNROLL(6)
            for (int t = 0; t < T; t++)
                UNROLL(4)
                for (int i = 0; i < 4; i++) acc[t][i] = vdupq_n_s32(0);
            UNROLL(8)
            for (int j = 0; j < GROUP / 4; j++, w += 64) {
                const int8x16_t w0 = vld1q_s8(w), w1 = vld1q_s8(w + 16), w2 = vld1q_s8(w + 32), w3 = vld1q_s8(w + 48);
                UNROLL(6)
                for (int t = 0; t < T; t++) { /* the activations are read as one stream, four words at a time */
                    const int lane = (j * T + t) % 4;
                    if (lane == 0) b = vld1q_s8(a + (j * T + t) * 4);
                    acc[t][0] = dot_lane(acc[t][0], w0, b, lane);
                    acc[t][1] = dot_lane(acc[t][1], w1, b, lane);
                    acc[t][2] = dot_lane(acc[t][2], w2, b, lane);
                    acc[t][3] = dot_lane(acc[t][3], w3, b, lane);
                }
            }
            a += GROUP * T;
            UNROLL(6)
            for (int t = 0; t < T; t++) {
                const float scale = ag[t].scale, sum = GROUP == 32 ? ag[t].sum_scaled : ah[t].sum_scaled[half];
                UNROLL(4)
                for (int i = 0; i < 4; i++) {
                    float32x4_t c = neon_add_group(vld1q_f32(x->c + t * 16 + i * 4), acc[t][i], scale, ws + i * 4);
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

static const struct neon_tiles dot_tiles = {false, {{tile_32, tile_32_min}, {tile_16, tile_16_min}}};

/* ---- scales of 16 rows: ws, wm [group of the superblock][16] ---- */

typedef void (*scales_fn)(const uint8_t *const *p, float *ws, float *wm);

NEON_INLINE uint32x4_t load_words(const uint8_t *p, int i) { return vreinterpretq_u32_u8(vld1q_u8(p + 16 * i)); }
/* Rows 4 i .. 4 i + 3 of 16 halves. */
NEON_INLINE float32x4_t load_f16(const uint8_t *p, int i) { return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p + 8 * i))); }
NEON_INLINE uint32x4_t shift_right(uint32x4_t v, int n) { return vshlq_u32(v, vdupq_n_s32(-n)); }
NEON_INLINE uint32x4_t mask(uint32x4_t v, uint32_t bits) { return vandq_u32(v, vdupq_n_u32(bits)); }

/* Byte i of each word; it is converted where it is, 256^i times too large, and the conversion divides by that. */
NEON_INLINE float32x4_t byte_f32(uint32x4_t v, int i)
{
    const uint32x4_t byte = mask(v, 0xffu << 8 * i);
    switch (i) {
    case 0: return vcvtq_f32_u32(byte);
    case 1: return vcvtq_n_f32_u32(byte, 8);
    case 2: return vcvtq_n_f32_u32(byte, 16);
    default: return vcvtq_n_f32_u32(byte, 24);
    }
}

NEON_INLINE void scales_q4_0(const uint8_t *const *p, float *ws, float *wm)
{
    (void)wm;
    for (int i = 0; i < 4; i++) vst1q_f32(ws + 4 * i, load_f16(p[0], i));
}
NEON_INLINE void scales_q4_1(const uint8_t *const *p, float *ws, float *wm)
{
    for (int i = 0; i < 4; i++) {
        vst1q_f32(ws + 4 * i, load_f16(p[0], i));
        vst1q_f32(wm + 4 * i, vnegq_f32(load_f16(p[0] + 32, i)));
    }
}
#define scales_q5_0 scales_q4_0
#define scales_q5_1 scales_q4_1
#define scales_q8_0 scales_q4_0
#define scales_iq4_nl scales_q4_0

/* Six-bit scales and minima of Q4_K and Q5_K: 12 bytes per row as three words. */
NEON_INLINE void scales_q4_k(const uint8_t *const *p, float *ws, float *wm)
{
    const uint32_t low6 = 0x3f3f3f3fu, low4 = 0x0f0f0f0fu, top2 = 0x30303030u;
    for (int i = 0; i < 4; i++) {
        const uint32x4_t a = load_words(p[1], i), b = load_words(p[1] + 64, i), c = load_words(p[1] + 128, i);
        const uint32x4_t s[2] = {mask(a, low6), vorrq_u32(mask(c, low4), mask(shift_right(a, 2), top2))};
        const uint32x4_t m[2] = {mask(b, low6), vorrq_u32(mask(shift_right(c, 4), low4), mask(shift_right(b, 2), top2))};
        const float32x4_t d = load_f16(p[0], i), dmin = load_f16(p[0] + 32, i);
        UNROLL(8)
        for (int g = 0; g < 8; g++) {
            vst1q_f32(ws + g * 16 + 4 * i, vmulq_f32(byte_f32(s[g / 4], g % 4), d));
            vst1q_f32(wm + g * 16 + 4 * i, vmulq_f32(byte_f32(m[g / 4], g % 4), dmin));
        }
    }
}
#define scales_q5_k scales_q4_k

NEON_INLINE void scales_q2_k(const uint8_t *const *p, float *ws, float *wm)
{
    for (int i = 0; i < 4; i++) {
        const float32x4_t d = load_f16(p[0], i), dmin = load_f16(p[0] + 32, i);
        UNROLL(16)
        for (int g = 0; g < 16; g++) {
            const uint32x4_t v = load_words(p[1] + g / 4 * 64, i);
            vst1q_f32(ws + g * 16 + 4 * i, vmulq_f32(byte_f32(mask(v, 0x0f0f0f0fu), g % 4), d));
            vst1q_f32(wm + g * 16 + 4 * i, vmulq_f32(byte_f32(mask(shift_right(v, 4), 0x0f0f0f0fu), g % 4), dmin));
        }
    }
}

/* Signed six-bit scales, less 32: four low bits and two high bits. */
NEON_INLINE float32x4_t six_bits_f32(uint32x4_t low, uint32x4_t high)
{
    const uint32x4_t v = vorrq_u32(mask(low, 15), vshlq_n_u32(mask(high, 3), 4));
    return vcvtq_f32_s32(vsubq_s32(vreinterpretq_s32_u32(v), vdupq_n_s32(32)));
}

/* Q3_K: words 0..1 hold low nibbles of scales 0..7 and 8..15, word 2 the high pairs. */
NEON_INLINE void scales_q3_k(const uint8_t *const *p, float *ws, float *wm)
{
    (void)wm;
    for (int i = 0; i < 4; i++) {
        const float32x4_t d = load_f16(p[0], i);
        const uint32x4_t a[2] = {load_words(p[1], i), load_words(p[1] + 64, i)}, h = load_words(p[1] + 128, i);
        UNROLL(16)
        for (int g = 0; g < 16; g++) {
            const uint32x4_t low = shift_right(a[g / 4 % 2], 8 * (g % 4) + g / 8 * 4), high = shift_right(h, 8 * (g % 4) + g / 4 * 2);
            vst1q_f32(ws + g * 16 + 4 * i, vmulq_f32(six_bits_f32(low, high), d));
        }
    }
}

NEON_INLINE void scales_q6_k(const uint8_t *const *p, float *ws, float *wm)
{
    (void)wm;
    for (int i = 0; i < 4; i++) {
        const float32x4_t d = load_f16(p[0], i);
        UNROLL(16)
        for (int g = 0; g < 16; g++) { /* the byte to the top of its word, and back with its sign */
            const int32x4_t v = vreinterpretq_s32_u32(load_words(p[1] + g / 4 * 64, i));
            const int32x4_t s = vshrq_n_s32(vshlq_s32(v, vdupq_n_s32(24 - 8 * (g % 4))), 24);
            vst1q_f32(ws + g * 16 + 4 * i, vmulq_f32(vcvtq_f32_s32(s), d));
        }
    }
}

NEON_INLINE void scales_iq4_xs(const uint8_t *const *p, float *ws, float *wm)
{
    (void)wm;
    for (int i = 0; i < 4; i++) {
        const float32x4_t d = load_f16(p[0], i);
        const uint32x4_t l = load_words(p[0] + 32, i), h = vmovl_u16(vreinterpret_u16_u8(vld1_u8(p[0] + 96 + 8 * i)));
        UNROLL(8)
        for (int g = 0; g < 8; g++) vst1q_f32(ws + g * 16 + 4 * i, vmulq_f32(six_bits_f32(shift_right(l, 4 * g), shift_right(h, 2 * g)), d));
    }
}

/* E8M0 of half the value: 2^(e - 128), subnormal for e < 2. */
NEON_INLINE void scales_mxfp4(const uint8_t *const *p, float *ws, float *wm)
{
    (void)wm;
    for (int i = 0; i < 4; i++) {
        uint32_t word = load_u32(p[0] + 4 * i);
        const uint32x4_t e = vmovl_u16(vget_low_u16(vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(word)))));
        const uint32x4_t normal = vshlq_n_u32(vsubq_u32(e, vdupq_n_u32(1)), 23);
        const uint32x4_t tiny = vshlq_u32(vdupq_n_u32(0x00200000), vreinterpretq_s32_u32(e));
        vst1q_f32(ws + 4 * i, vreinterpretq_f32_u32(vbslq_u32(vcltq_u32(e, vdupq_n_u32(2)), tiny, normal)));
    }
}

/* ---- values: rows 4 i .. 4 i + 3 of elements 4 j .. + 3 of a unit, plus the type's offset ---- */

typedef int8x16_t (*values_fn)(const uint8_t *unit, int j, int i);

/* Left by n bits, or right by -n; a constant once loops are unrolled. */
NEON_INLINE uint8x16_t shift(uint8x16_t v, int n) { return n ? vshlq_u8(v, vdupq_n_s8((int8_t)n)) : v; }
NEON_INLINE uint8x16_t nibble(const uint8_t *unit, const int bits, int j, int i)
{
    const uint8x16_t v = vld1q_u8(unit + PACK_NIBBLE(bits, j) + i * 16);
    return j & 1 ? vshrq_n_u8(v, 4) : vandq_u8(v, vdupq_n_u8(0x0f));
}
/* 2-bit value in bits `to` and `to` + 1 */
NEON_INLINE uint8x16_t crumb(const uint8_t *unit, const int bits, int j, int i, int to)
{
    const uint8x16_t v = vld1q_u8(unit + PACK_CRUMB(bits, j) + i * 16);
    return vandq_u8(shift(v, to - 2 * (j & 3)), vdupq_n_u8((uint8_t)(3 << to)));
}
/* 1-bit value in bit `to` */
NEON_INLINE uint8x16_t bit(const uint8_t *unit, int j, int i, int to) { return vandq_u8(shift(vld1q_u8(unit + i * 16), to - j), vdupq_n_u8((uint8_t)(1 << to))); }
NEON_INLINE int8x16_t with(uint8x16_t low, uint8x16_t high) { return vreinterpretq_s8_u8(vorrq_u8(low, high)); }

NEON_INLINE int8x16_t w_4(const uint8_t *unit, int j, int i) { return vreinterpretq_s8_u8(nibble(unit, 4, j, i)); }
NEON_INLINE int8x16_t w_5(const uint8_t *unit, int j, int i) { return with(nibble(unit, 5, j, i), bit(unit, j, i, 4)); }
#define w_q4_0 w_4
#define w_q4_1 w_4
#define w_q4_k w_4
#define w_q5_0 w_5
#define w_q5_1 w_5
#define w_q5_k w_5
NEON_INLINE int8x16_t w_q8_0(const uint8_t *unit, int j, int i) { return vreinterpretq_s8_u8(veorq_u8(vld1q_u8(unit + j * 64 + i * 16), vdupq_n_u8(0x80))); }
NEON_INLINE int8x16_t w_q2_k(const uint8_t *unit, int j, int i) { return vreinterpretq_s8_u8(crumb(unit, 2, j, i, 0)); }
NEON_INLINE int8x16_t w_q3_k(const uint8_t *unit, int j, int i) { return with(crumb(unit, 3, j, i, 0), bit(unit, j, i, 2)); }
NEON_INLINE int8x16_t w_q6_k(const uint8_t *unit, int j, int i) { return with(nibble(unit, 6, j, i), crumb(unit, 6, j, i, 4)); }
NEON_INLINE int8x16_t w_iq4_nl(const uint8_t *unit, int j, int i) { return vqtbl1q_s8(vld1q_s8(kvalues_iq4nl), nibble(unit, 4, j, i)); }
#define w_iq4_xs w_iq4_nl
NEON_INLINE int8x16_t w_mxfp4(const uint8_t *unit, int j, int i) { return vqtbl1q_s8(vld1q_s8(kvalues_fp4), nibble(unit, 4, j, i)); }

/* ---- what is made for every packed type ---- */

/* Superblocks [s0, s1) of one panel -> w, ws, wm as struct neon_tile has them. */
NEON_INLINE void unpack(const struct pack *pk, const uint8_t *panel, int n_super, int s0, int s1, bool by_8, int8_t *restrict w,
                        float *restrict ws, float *restrict wm, scales_fn scales, values_fn values, const int GROUP, const int OFFSET)
{
    const uint8_t *p[PACK_PLANES];
    pack_seek(pk, panel, n_super, s0, p);
    for (int s = s0; s < s1; pack_next(pk, panel, n_super, s, 1, p), s++) {
        scales(p, ws, wm);
        ws += pk->superblock / GROUP * 16;
        wm += pk->superblock / GROUP * 16;
        const uint8_t *unit = p[2];
        for (int u = 0; u < pk->superblock / 32; u++, unit += PACK_UNIT(pk->bits)) {
            UNROLL(4)
            for (int j = 0; j < 8; j += 2, w += 128) {
                UNROLL(4)
                for (int i = 0; i < 4; i++) {
                    const int32x4_t a = vreinterpretq_s32_s8(vsubq_s8(values(unit, j, i), vdupq_n_s8(OFFSET)));
                    const int32x4_t b = vreinterpretq_s32_s8(vsubq_s8(values(unit, j + 1, i), vdupq_n_s8(OFFSET)));
                    vst1q_s8(w + (by_8 ? 32 * i : 16 * i), vreinterpretq_s8_s32(by_8 ? vzip1q_s32(a, b) : a));
                    vst1q_s8(w + (by_8 ? 32 * i + 16 : 16 * i + 64), vreinterpretq_s8_s32(by_8 ? vzip2q_s32(a, b) : b));
                }
            }
        }
    }
}

/* One token: panels [panel0, panel1). The same arithmetic as tile(), in the same order; the offset of values is taken off by the
 * start of the integer sum: act_group and act_halves hold it 128-fold. */
NEON_INLINE void gemv(const struct cpu_matmul *m, const struct pack *pk, int panel0, int panel1, scales_fn scales, values_fn values,
                      const int GROUP, const bool HAS_MIN, const int OFFSET)
{
    const int n_super = m->in / pk->superblock, units = pk->superblock / 32;
    float ws[16 * 16], wm[16 * 16], sums[16];
    for (int panel = panel0; panel < panel1; panel++) {
        const uint8_t *p[PACK_PLANES], *base = pack_panel(m, pk, panel);
        pack_seek(pk, base, n_super, 0, p);
        float32x4_t c[4];
        UNROLL(4)
        for (int i = 0; i < 4; i++) c[i] = vdupq_n_f32(0);
        const int8_t *a = m->acts.q;
        const struct act_group *ag = m->acts.group;
        const struct act_halves *ah = m->acts.halves;
        for (int s = 0; s < n_super; s++) {
            scales(p, ws, wm);
            const uint8_t *unit = p[2];
            for (int u = 0; u < units; u++, unit += PACK_UNIT(pk->bits), a += 32, ag++, ah++) {
                const int8x16_t b[2] = {vld1q_s8(a), vld1q_s8(a + 16)};
                UNROLL(2)
                for (int half = 0; half < 32 / GROUP; half++) {
                    const int32_t start = OFFSET ? ((GROUP == 32 ? ag->init : ah->init[half]) - ACT_MAGIC_BITS) / (128 / (OFFSET ? OFFSET : 1)) : 0;
                    const int g = (u * (32 / GROUP) + half) * 16;
                    int32x4_t acc[4];
                    UNROLL(4)
                    for (int i = 0; i < 4; i++) acc[i] = vdupq_n_s32(start);
                    UNROLL(8)
                    for (int j = half * 4; j < half * 4 + GROUP / 4; j++)
                        UNROLL(4)
                        for (int i = 0; i < 4; i++) acc[i] = dot_lane(acc[i], values(unit, j, i), b[j / 4], j % 4);
                    UNROLL(4)
                    for (int i = 0; i < 4; i++) {
                        c[i] = neon_add_group(c[i], acc[i], ag->scale, ws + g + i * 4);
                        if (HAS_MIN) c[i] = neon_sub_min(c[i], GROUP == 32 ? ag->sum_scaled : ah->sum_scaled[half], wm + g + i * 4);
                    }
                }
            }
            pack_next(pk, base, n_super, s, 1, p);
        }
        for (int i = 0; i < 4; i++) vst1q_f32(sums + i * 4, c[i]);
        neon_store_row(m, 0, panel * PANEL, sums);
    }
}

/* X(ENUM, name, group, has_min, offset): what the packed value exceeds the signed one by, a power of two */
#define INT_TYPES(X)                                                                                                                   \
    X(Q4_0, q4_0, 32, false, 8) X(Q4_1, q4_1, 32, true, 0) X(Q5_0, q5_0, 32, false, 16) X(Q5_1, q5_1, 32, true, 0)                      \
    X(Q8_0, q8_0, 32, false, 0) X(Q2_K, q2_k, 16, true, 0) X(Q3_K, q3_k, 16, false, 4) X(Q4_K, q4_k, 32, true, 0)                       \
    X(Q5_K, q5_k, 32, true, 0) X(Q6_K, q6_k, 16, false, 32) X(IQ4_NL, iq4_nl, 32, false, 0) X(IQ4_XS, iq4_xs, 32, false, 0)             \
    X(MXFP4, mxfp4, 32, false, 0)

static const struct int_kind {
    int group;
    bool has_min;
} kinds[] = {
#define X(ENUM, name, group, has_min, offset) [TYPE_##ENUM] = {group, has_min},
    INT_TYPES(X)
#undef X
};

static void unpack_any(enum tensor_type type, const struct pack *pk, const uint8_t *panel, int n_super, int s0, int s1, bool by_8, int8_t *w,
                       float *ws, float *wm)
{
    switch (type) {
#define X(ENUM, name, group, has_min, offset) \
    case TYPE_##ENUM: unpack(pk, panel, n_super, s0, s1, by_8, w, ws, wm, scales_##name, w_##name, group, offset); break;
        INT_TYPES(X)
#undef X
    default: break; /* not packed */
    }
}

static void gemv_any(const struct cpu_matmul *m, const struct pack *pk, int panel0, int panel1)
{
    switch (m->tensor->type) {
#define X(ENUM, name, group, has_min, offset) \
    case TYPE_##ENUM: gemv(m, pk, panel0, panel1, scales_##name, w_##name, group, has_min, offset); break;
        INT_TYPES(X)
#undef X
    default: break;
    }
}

/* ---- drivers ---- */

/* Scratch of a thread. Behind it: sums [tokens][16]. */
struct scratch {
    int8_t w[CHUNK * 16];
    float ws[CHUNK / 16 * 16], wm[CHUNK / 16 * 16];
    int8_t row_q[CHUNK]; /* types without packed layout: one row's chunk */
    float row_scale[CHUNK / 16], row_min[CHUNK / 16];
    float c[];
};

static size_t int_scratch_bytes(int in, int max_n)
{
    (void)in;
    return sizeof(struct scratch) + (size_t)max_n * 16 * sizeof(float);
}

/* The tokens against the chunk [k0, k0 + n) of rows row .. row + 15 in s->w. */
static void multiply_chunk(const struct cpu_matmul *m, struct scratch *s, int row, int k0, int n, void (*tile_fn)(const struct neon_tile *, int))
{
    const size_t in = (size_t)m->in, units = in / ACT_GROUP, u0 = (size_t)(k0 / ACT_GROUP);
    struct neon_tile x = {.w = s->w, .ws = s->ws, .wm = s->wm, .n_units = n / 32, .c = s->c};
    if (k0 == 0) memset(s->c, 0, (size_t)(m->t1 - m->t0) * 16 * sizeof(float));
    for (int t0 = m->t0; t0 < m->t1; t0 += TILE, x.c += TILE * 16) {
        const int T = MIN(TILE, m->t1 - t0);
        x.a = m->acts.q + (size_t)t0 * in + (size_t)(k0 * T);
        x.group = m->acts.group + (size_t)t0 * units + u0 * (size_t)T;
        x.halves = m->acts.halves + (size_t)t0 * units + u0 * (size_t)T;
        tile_fn(&x, T);
    }
    if (k0 + n == m->in)
        for (int t = m->t0; t < m->t1; t++) neon_store_row(m, t, row, s->c + (t - m->t0) * 16);
}

static void run_packed(const struct cpu_matmul *m, int row0, int row1, const struct neon_tiles *tiles)
{
    struct scratch *s = m->scratch;
    const struct pack *pk = pack_find(m->tensor->type);
    const struct int_kind *kind = &kinds[m->tensor->type];
    if (m->n == 1) {
        gemv_any(m, pk, row0 / PANEL, (row1 + PANEL - 1) / PANEL);
        return;
    }
    for (int row = row0; row < row1; row += PANEL) {
        const uint8_t *panel = pack_panel(m, pk, row / PANEL);
        for (int k0 = 0; k0 < m->in; k0 += CHUNK) {
            const int n = MIN(CHUNK, m->in - k0);
            unpack_any(m->tensor->type, pk, panel, pack_n_super(pk, m->in), k0 / pk->superblock, (k0 + n) / pk->superblock, tiles->by_8, s->w, s->ws, s->wm);
            multiply_chunk(m, s, row, k0, n, tiles->tile[kind->group == 16][kind->has_min]);
        }
    }
}

/* Types without packed layout: rows of the file, through their integer form. */
static void run_rows(const struct cpu_matmul *m, int row0, int row1, const struct neon_tiles *tiles)
{
    struct scratch *s = m->scratch;
    const struct int_form f = decode_int_form(m->tensor->type);
    const struct type_info *ti = type_by_id((uint32_t)m->tensor->type);
    const int group = MIN(f.group, ACT_GROUP);
    for (int row = row0; row < row1; row += PANEL) {
        const int n_rows = MIN(PANEL, m->out - row);
        for (int k0 = 0; k0 < m->in; k0 += CHUNK) {
            const int n = MIN(CHUNK, m->in - k0);
            for (int r = 0; r < n_rows; r++) {
                const uint8_t *src = tensor_row(m->tensor, row + r);
                f.decode(src + (size_t)(k0 / ti->block) * (size_t)ti->block_bytes, s->row_q, s->row_scale, s->row_min, n);
                for (int i = 0; i < n / 4; i++) {
                    const int at = tiles->by_8 ? i / 2 * 128 + r * 8 + i % 2 * 4 : i * 64 + r * 4;
                    memcpy(s->w + at, s->row_q + 4 * i, 4);
                }
                for (int g = 0; g < n / group; g++) {
                    s->ws[g * 16 + r] = s->row_scale[g * group / f.group];
                    if (f.has_min) s->wm[g * 16 + r] = s->row_min[g * group / f.group];
                }
            }
            multiply_chunk(m, s, row, k0, n, tiles->tile[group == 16][f.has_min]);
        }
    }
}

static void run_packed_dot(const struct cpu_matmul *m, int row0, int row1) { run_packed(m, row0, row1, &dot_tiles); }
static void run_packed_i8mm(const struct cpu_matmul *m, int row0, int row1) { run_packed(m, row0, row1, &neon_i8mm_tiles); }
static void run_rows_dot(const struct cpu_matmul *m, int row0, int row1) { run_rows(m, row0, row1, &dot_tiles); }
static void run_rows_i8mm(const struct cpu_matmul *m, int row0, int row1) { run_rows(m, row0, row1, &neon_i8mm_tiles); }

#define X(ENUM, name, ...) \
    static size_t bytes_##name(int64_t rows, int64_t in) { return pack_bytes(TYPE_##ENUM, rows, in); }
INT_TYPES(X)
#undef X
static const struct cpu_format packed_dot[] = {
#define X(ENUM, name, ...) [TYPE_##ENUM] = {"packed int8", ACTS_INT8, bytes_##name, pack_rows, int_scratch_bytes, run_packed_dot},
    INT_TYPES(X)
#undef X
};
static const struct cpu_format packed_i8mm[] = {
#define X(ENUM, name, ...) [TYPE_##ENUM] = {"packed int8 mm", ACTS_INT8, bytes_##name, pack_rows, int_scratch_bytes, run_packed_i8mm},
    INT_TYPES(X)
#undef X
};
static const struct cpu_format rows_dot = {"rows int8", ACTS_INT8, NULL, NULL, int_scratch_bytes, run_rows_dot};
static const struct cpu_format rows_i8mm = {"rows int8 mm", ACTS_INT8, NULL, NULL, int_scratch_bytes, run_rows_i8mm};

const struct cpu_format *neon_int_format(enum tensor_type type, bool i8mm)
{
    if (decode_int_form(type).group == 0) return NULL;
    const struct cpu_format *packed = i8mm ? packed_i8mm : packed_dot;
    if ((size_t)type < COUNT_OF(packed_dot) && packed[type].name) return &packed[type];
    return i8mm ? &rows_i8mm : &rows_dot;
}
