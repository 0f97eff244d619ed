/* Integer weights for the AVX-512 tiers: what the values and scales of each packed type are, unpacking a chunk of 32 rows to bytes, and
 * the product with a single token, which reads the packed planes directly. */
#include "backend/cpu/avx512.h"

#include "backend/cpu/pack.h"
#include "tensor/codebooks.h"
#include "tensor/decode.h"

#define STREAM_AHEAD 16384 /* bytes; a stripe, whose last plane is read from the start on, is less */

static inline int32_t load_i32(const void *p)
{
    int32_t v;
    memcpy(&v, p, 4);
    return v;
}

/* ---- the types ---- */

static inline __m512i load(const uint8_t *p) { return _mm512_loadu_si512(p); }
static inline __m512 load_f16(const uint8_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p)); }
/* 4-bit value in bits 0..3, others above */
static inline __m512i nibble_below(const uint8_t *plane, int u, int j)
{
    const __m512i v = load(plane + (u * 4 + j / 2) * 64);
    return j & 1 ? _mm512_srli_epi16(v, 4) : v;
}
static inline __m512i nibble(const uint8_t *plane, int u, int j) { return _mm512_and_si512(nibble_below(plane, u, j), _mm512_set1_epi8(0x0f)); }
/* 2-bit value in bits 0..1 */
static inline __m512i crumb(const uint8_t *plane, int u, int j)
{
    __m512i v = load(plane + (u * 2 + j / 4) * 64);
    return _mm512_and_si512(j & 3 ? _mm512_srli_epi16(v, 2 * (j & 3)) : v, _mm512_set1_epi8(0x03));
}
/* The lower four bits of each byte of `low`, the upper ones of `high`. */
static inline __m512i halves(__m512i low, __m512i high) { return _mm512_ternarylogic_epi32(low, high, _mm512_set1_epi8(0x0f), 0xe4); }
/* 2-bit value in bits 4..5, zeros above, others below. Masked before it is shifted, one mask does for two of them. */
static inline __m512i crumb_above(const uint8_t *plane, int u, int j)
{
    const __m512i v = _mm512_and_si512(load(plane + (u * 2 + j / 4) * 64), _mm512_set1_epi8((char)(j & 1 ? 0xcc : 0x33)));
    const int left = 4 - 2 * (j & 3);
    return left > 0 ? _mm512_slli_epi16(v, left > 0 ? left : 0) : _mm512_srli_epi16(v, left < 0 ? -left : 0);
}
/* bit j of the 1-bit plane moved to bit `to` */
static inline __m512i bit(const uint8_t *plane, int u, int j, const int to)
{
    __m512i v = load(plane + u * 64);
    v = to > j ? _mm512_slli_epi16(v, to > j ? to - j : 0) : _mm512_srli_epi16(v, j > to ? j - to : 0);
    return _mm512_and_si512(v, _mm512_set1_epi8((char)(1 << to)));
}

/* scale_TYPE(p, g, &min): scales of group g of 16 rows, and the minima where the type has them. */
static inline __m512 scale_q4_0(const uint8_t *const *p, int g, __m512 *min)
{
    (void)min;
    return load_f16(p[0] + 32 * g);
}
static inline __m512 scale_q4_1(const uint8_t *const *p, int g, __m512 *min)
{
    *min = _mm512_sub_ps(_mm512_setzero_ps(), load_f16(p[0] + 64 * g + 32));
    return load_f16(p[0] + 64 * g);
}
#define scale_q5_0 scale_q4_0
#define scale_q5_1 scale_q4_1
#define scale_q8_0 scale_q4_0
#define scale_iq4_nl scale_q4_0

/* The bits `mask` of byte i of each word as floats, without a conversion: above a power of two whose mantissa counts ones where the byte stands, they make it
 * larger by what they say, exactly. Bytes that the mantissa does not reach are shifted to where it does. */
static inline int byte_place(int i, int mask) { return MIN(i, mask & 0x80 ? 1 : 2); }
static inline __m512 byte_base(int i, int mask) { return _mm512_castsi512_ps(_mm512_set1_epi32(0x4b000000 - (8 * byte_place(i, mask) << 23))); }
static inline __m512 byte_above(__m512i words, int i, int mask) /* the base and they */
{
    const int to = byte_place(i, mask);
    if (i > to) words = _mm512_srli_epi32(words, 8 * (unsigned)(i - to));
    return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(words, _mm512_set1_epi32(mask << 8 * to), _mm512_castps_si512(byte_base(i, mask)), 0xea));
}
/* d times them. The product is exact, so the fma that takes the base off at once does not change it. */
static inline __m512 scale_bits(__m512i words, int i, int mask, __m512 d)
{
    return _mm512_fmsub_ps(byte_above(words, i, mask), d, _mm512_mul_ps(d, byte_base(i, mask)));
}
/* d times them less `offset`. */
static inline __m512 scale_signed(__m512i words, int i, int mask, float offset, __m512 d)
{
    return _mm512_mul_ps(_mm512_sub_ps(byte_above(words, i, mask), _mm512_add_ps(byte_base(i, mask), _mm512_set1_ps(offset))), d);
}

/* Six-bit scales and minima of Q4_K and Q5_K: 12 bytes per row as three words. */
static inline __m512 scale_q4_k(const uint8_t *const *p, int g, __m512 *min)
{
    const __m512i low4 = _mm512_set1_epi8(0x0f), top2 = _mm512_set1_epi8(0x30);
    const __m512 d = load_f16(p[0]), dmin = load_f16(p[0] + 32);
    __m512i s = load(p[1]), m = load(p[1] + 64);
    if (g >= 4) {
        const __m512i c = load(p[1] + 128);
        s = _mm512_or_si512(_mm512_and_si512(c, low4), _mm512_and_si512(_mm512_srli_epi16(s, 2), top2));
        m = _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi16(c, 4), low4), _mm512_and_si512(_mm512_srli_epi16(m, 2), top2));
    }
    *min = scale_bits(m, g % 4, 0x3f, dmin);
    return scale_bits(s, g % 4, 0x3f, d);
}
#define scale_q5_k scale_q4_k

static inline __m512 scale_q2_k(const uint8_t *const *p, int g, __m512 *min)
{
    const __m512i v = load(p[1] + g / 4 * 64);
    *min = scale_bits(v, g % 4, 0xf0, _mm512_mul_ps(load_f16(p[0] + 32), _mm512_set1_ps(0x1p-4f)));
    return scale_bits(v, g % 4, 0x0f, load_f16(p[0]));
}

/* Q3_K: 16 six-bit scales, less 32: words 0..1 hold low nibbles of bytes 0..7 and 8..15, word 2 the high pairs. */
static inline __m512 scale_q3_k(const uint8_t *const *p, int g, __m512 *min)
{
    (void)min;
    const __m512i low = _mm512_srli_epi16(load(p[1] + g / 4 % 2 * 64), g / 8 * 4);
    const __m512i high = _mm512_srli_epi16(load(p[1] + 128), g / 4 * 2);
    return scale_signed(halves(low, _mm512_slli_epi16(high, 4)), g % 4, 0x3f, 32, load_f16(p[0]));
}

static inline __m512 scale_q6_k(const uint8_t *const *p, int g, __m512 *min)
{
    (void)min;
    return scale_signed(_mm512_xor_si512(load(p[1] + g / 4 * 64), _mm512_set1_epi8((char)0x80)), g % 4, 0xff, 128, load_f16(p[0]));
}

static inline __m512 scale_iq4_xs(const uint8_t *const *p, int g, __m512 *min)
{
    (void)min;
    const __m512i l = load(p[1]), h = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)(p[1] + 64)));
    const __m512i low = _mm512_and_si512(_mm512_srli_epi32(l, 4 * g), _mm512_set1_epi32(15));
    const __m512i high = _mm512_and_si512(_mm512_srli_epi32(h, 2 * g), _mm512_set1_epi32(3));
    const __m512i v = _mm512_sub_epi32(_mm512_or_si512(low, _mm512_slli_epi32(high, 4)), _mm512_set1_epi32(32));
    return _mm512_mul_ps(_mm512_cvtepi32_ps(v), load_f16(p[0]));
}

/* E8M0 of half the value: 2^(e - 128), subnormal for e < 2. */
static inline __m512 scale_mxfp4(const uint8_t *const *p, int g, __m512 *min)
{
    (void)min;
    const __m512i e = _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)(p[0] + 16 * g)));
    const __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(e, _mm512_set1_epi32(1)), 23);
    const __m512i tiny = _mm512_sllv_epi32(_mm512_set1_epi32(0x00200000), e);
    return _mm512_castsi512_ps(_mm512_mask_mov_epi32(normal, _mm512_cmplt_epi32_mask(e, _mm512_set1_epi32(2)), tiny));
}

static inline __m512i lookup(const int8_t table[16], __m512i i)
{
    const __m512i t = _mm512_broadcast_i32x4(_mm_loadu_si128((const void *)table));
    return _mm512_shuffle_epi8(_mm512_xor_si512(t, _mm512_set1_epi8((char)0x80)), i);
}

/* Values as they are kept: unsigned, the file's plus the type's offset. */
static inline __m512i v_q4_1(const uint8_t *const *p, int u, int j) { return nibble(p[1], u, j); }
#define v_q4_0 v_q4_1
static inline __m512i v_q5_1(const uint8_t *const *p, int u, int j) { return _mm512_or_si512(nibble(p[1], u, j), bit(p[2], u, j, 4)); }
#define v_q5_0 v_q5_1
static inline __m512i v_q8_0(const uint8_t *const *p, int u, int j) { return load(p[1] + (u * 8 + j) * 64); }
static inline __m512i v_q2_k(const uint8_t *const *p, int u, int j) { return crumb(p[2], u, j); }
static inline __m512i v_q3_k(const uint8_t *const *p, int u, int j) { return _mm512_or_si512(crumb(p[2], u, j), bit(p[3], u, j, 2)); }
static inline __m512i v_q4_k(const uint8_t *const *p, int u, int j) { return nibble(p[2], u, j); }
static inline __m512i v_q5_k(const uint8_t *const *p, int u, int j) { return _mm512_or_si512(nibble(p[2], u, j), bit(p[3], u, j, 4)); }
static inline __m512i v_q6_k(const uint8_t *const *p, int u, int j) { return halves(nibble_below(p[2], u, j), crumb_above(p[3], u, j)); }
static inline __m512i v_iq4_nl(const uint8_t *const *p, int u, int j) { return lookup(kvalues_iq4nl, nibble(p[1], u, j)); }
static inline __m512i v_iq4_xs(const uint8_t *const *p, int u, int j) { return lookup(kvalues_iq4nl, nibble(p[2], u, j)); }
static inline __m512i v_mxfp4(const uint8_t *const *p, int u, int j) { return lookup(kvalues_fp4, nibble(p[1], u, j)); }

/* Bytes of 32 elements of a panel, all planes together. */
enum {
#define QUANT(ENUM, name, text, id, block, bytes) UNIT_BYTES_##name = 32 * PANEL * (bytes) / (block),
#include "tensor/quant.def"
#undef QUANT
};

/* ---- how a single token's product reads memory ---- */

#define SIDE_AHEAD 4096 /* bytes that are asked for ahead, at most: those of all sides stay in the L1 cache */

size_t avx512_int_ahead(const struct cpu_matmul *m)
{
    const struct pack *pk = pack_find(m->tensor->type);
    return pk && pk->superblock > 1 && m->packed && avx512_one_stream() ? STREAM_AHEAD : 0;
}

/* Lines that a single token's product asks for ahead of itself, in the order of memory, in which panel follows panel, then those that the
 * thread reads next. */
struct stream {
    const uint8_t *at, *end; /* the next one, as if all lay behind each other; of these rows */
    ptrdiff_t jump;          /* from there to what comes then */
    size_t distance;         /* bytes; 0: none are asked for */
};

static struct stream stream_from(const struct cpu_matmul *m, const struct pack *pk, int panel0, int panel1)
{
    const uint8_t *first = pack_panel(m, pk, panel0), *end = pack_panel(m, pk, panel1);
    struct stream s = {first, end, m->then ? (ptrdiff_t)((uintptr_t)m->then - (uintptr_t)end) : 0, avx512_int_ahead(m)};
    s.at += m->asked ? m->asked : s.distance;
    return s;
}

/* `used`: where the product is. */
static inline void stream_fetch(struct stream *s, const uint8_t *used)
{
    if (!s->distance) return;
    for (const uint8_t *to = used + s->distance; s->at < to; s->at += 64) __builtin_prefetch(s->at < s->end ? s->at : s->at + s->jump);
}

/* X(ENUM, name, group, offset: 0 where groups have minima) */
#define INT_TYPES(X)                                                                                                              \
    X(Q4_0, q4_0, 32, 8) X(Q4_1, q4_1, 32, 0) X(Q5_0, q5_0, 32, 16) X(Q5_1, q5_1, 32, 0) X(Q8_0, q8_0, 32, 128) X(Q2_K, q2_k, 16, 0)  \
    X(Q3_K, q3_k, 16, 4) X(Q4_K, q4_k, 32, 0) X(Q5_K, q5_k, 32, 0) X(Q6_K, q6_k, 16, 32) X(IQ4_NL, iq4_nl, 32, 128)                   \
    X(IQ4_XS, iq4_xs, 32, 128) X(MXFP4, mxfp4, 32, 128)

#define TYPE q4_0
#define SUPERBLOCK 32
#define GROUP 32
#define OFFSET 8
#define NIBBLES 1
#include "backend/cpu/int_avx512_tmpl.h"
#define TYPE q4_1
#define SUPERBLOCK 32
#define GROUP 32
#define OFFSET 0
#define NIBBLES 1
#include "backend/cpu/int_avx512_tmpl.h"
#define TYPE q5_0
#define SUPERBLOCK 32
#define GROUP 32
#define OFFSET 16
#define NIBBLES 0
#include "backend/cpu/int_avx512_tmpl.h"
#define TYPE q5_1
#define SUPERBLOCK 32
#define GROUP 32
#define OFFSET 0
#define NIBBLES 0
#include "backend/cpu/int_avx512_tmpl.h"
#define TYPE q8_0
#define SUPERBLOCK 32
#define GROUP 32
#define OFFSET 128
#define NIBBLES 0
#include "backend/cpu/int_avx512_tmpl.h"
#define TYPE q2_k
#define SUPERBLOCK 256
#define GROUP 16
#define OFFSET 0
#define NIBBLES 0
#include "backend/cpu/int_avx512_tmpl.h"
#define TYPE q3_k
#define SUPERBLOCK 256
#define GROUP 16
#define OFFSET 4
#define NIBBLES 0
#include "backend/cpu/int_avx512_tmpl.h"
#define TYPE q4_k
#define SUPERBLOCK 256
#define GROUP 32
#define OFFSET 0
#define NIBBLES 2
#include "backend/cpu/int_avx512_tmpl.h"
#define TYPE q5_k
#define SUPERBLOCK 256
#define GROUP 32
#define OFFSET 0
#define NIBBLES 0
#include "backend/cpu/int_avx512_tmpl.h"
#define TYPE q6_k
#define SUPERBLOCK 256
#define GROUP 16
#define OFFSET 32
#define NIBBLES 0
#include "backend/cpu/int_avx512_tmpl.h"
#define TYPE iq4_nl
#define SUPERBLOCK 32
#define GROUP 32
#define OFFSET 128
#define NIBBLES 0
#include "backend/cpu/int_avx512_tmpl.h"
#define TYPE iq4_xs
#define SUPERBLOCK 256
#define GROUP 32
#define OFFSET 128
#define NIBBLES 0
#include "backend/cpu/int_avx512_tmpl.h"
#define TYPE mxfp4
#define SUPERBLOCK 32
#define GROUP 32
#define OFFSET 128
#define NIBBLES 0
#include "backend/cpu/int_avx512_tmpl.h"

struct int_kind {
    int group;
    bool has_min;
    void (*unpack)(const struct pack *pk, const uint8_t *panel, int n_super, int s0, int s1, uint8_t *w, float *ws, float *wm);
    void (*gemv)(const struct cpu_matmul *m, const struct pack *pk, int panel0, int panel1);
};
static const struct int_kind kinds[] = {
#define X(ENUM, name, group, offset) [TYPE_##ENUM] = {group, (offset) == 0, unpack_##name, gemv_##name},
    INT_TYPES(X)
#undef X
};

/* ---- chunks ---- */

void avx512_ahead_fetch(struct avx512_ahead *a, size_t n_bytes)
{
    while (n_bytes > 0 && a->at < 2) {
        if (a->n_bytes[a->at] == 0) {
            a->at++;
            continue;
        }
        const size_t n = MIN(ROUND_UP(n_bytes, (size_t)64), a->n_bytes[a->at]);
        for (size_t i = 0; i < n; i += 64) __builtin_prefetch(a->p[a->at] + i);
        a->p[a->at] += n;
        a->n_bytes[a->at] -= n;
        n_bytes -= MIN(n, n_bytes);
    }
}

struct avx512_ahead avx512_plan_ahead(const struct cpu_matmul *m, int row, int k0, int chunk)
{
    struct avx512_ahead a = {.at = 0};
    const struct pack *pk = pack_find(m->tensor->type);
    if (!m->packed || row >= m->out) return a;
    /* a chunk is some whole stripes */
    const size_t panel = pack_panel_bytes(pk, m->in), from = pack_panel_bytes(pk, k0), to = pack_panel_bytes(pk, MIN(k0 + chunk, m->in));
    for (int i = 0; i < 2 && row + i * PANEL < m->out; i++) {
        a.p[i] = (const uint8_t *)m->packed + (size_t)(row / PANEL + i) * panel + from;
        a.n_bytes[i] = to - from;
        a.total += to - from;
    }
    return a;
}

/* Types without packed layout: rows of the file, through their integer form, one after the other. */
static void unpack_rows(const struct cpu_matmul *m, int row, int k0, int n, const struct avx512_chunk *c)
{
    int8_t q[AVX512_CHUNK];
    float scale[AVX512_CHUNK / 16], min[AVX512_CHUNK / 16];
    const struct int_form f = decode_int_form(m->tensor->type);
    const struct type_info *ti = type_by_id((uint32_t)m->tensor->type);
    const uint32_t flip = f.has_min ? 0 : 0x80808080u;
    for (int r = 0; r < MIN(2 * PANEL, m->out - row); r++) {
        const uint8_t *src = tensor_row(m->tensor, row + r);
        f.decode(src + (size_t)(k0 / ti->block) * (size_t)ti->block_bytes, q, scale, min, n);
        for (int i = 0; i < n / 4; i++) {
            uint32_t v = load_u32(q + 4 * i) ^ flip;
            memcpy(c->w + i * 128 + r * 4, &v, 4);
        }
        const int group = MIN(f.group, ACT_GROUP);
        for (int g = 0; g < n / group; g++) {
            c->ws[g * 32 + r] = scale[g * group / f.group];
            if (f.has_min) c->wm[g * 32 + r] = min[g * group / f.group];
        }
    }
}

void avx512_int_unpack(const struct cpu_matmul *m, int row, int k0, int n, const struct avx512_chunk *c)
{
    const enum tensor_type type = m->tensor->type;
    if (!m->packed) {
        unpack_rows(m, row, k0, n, c);
        return;
    }
    const struct pack *pk = pack_find(type);
    const int s0 = k0 / pk->superblock, s1 = (k0 + n) / pk->superblock, n_super = pack_n_super(pk, m->in);
    for (int i = 0; i < 2 && row + i * PANEL < m->out; i++)
        kinds[type].unpack(pk, pack_panel(m, pk, row / PANEL + i), n_super, s0, s1, c->w + 64 * i, c->ws + 16 * i, c->wm + 16 * i);
}

/* ---- one token against rows of the file ---- */

/* Exact sums of w * a over each 16 elements of up to AVX512_CHUNK: [n / 16], in whole vectors. w: values + 128. */
static void sums_of_16(const uint8_t *w, const int8_t *a, int n, int32_t *sums)
{
    const __m512i transpose = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
    for (int k = 0; k < n; k += 256, sums += 16) {
        __m512i v[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            const int left = n - k - 64 * i;
            const __mmask64 m = left >= 64 ? ~(__mmask64)0 : left <= 0 ? 0 : ((__mmask64)1 << left) - 1;
            v[i] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_maskz_loadu_epi8(m, w + k + 64 * i), _mm512_maskz_loadu_epi8(m, a + k + 64 * i));
        }
        /* each 128-bit lane of v[i] is 16 elements; fold its four words, side by side with those of the others */
        const __m512i t0 = _mm512_add_epi32(_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
        const __m512i t1 = _mm512_add_epi32(_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
        const __m512i u = _mm512_add_epi32(_mm512_unpacklo_epi64(t0, t1), _mm512_unpackhi_epi64(t0, t1));
        _mm512_storeu_si512(sums, _mm512_permutexvar_epi32(transpose, u));
    }
}

/* The same arithmetic as tile(), in the same order, but rows are decoded one by one and only their sums meet in lanes. */
static void gemv_rows(const struct cpu_matmul *m, int row0, int row1)
{
    enum { SUMS = AVX512_CHUNK / 16 };
    _Alignas(64) uint8_t q[AVX512_CHUNK];
    _Alignas(64) int32_t sums[PANEL][SUMS];
    _Alignas(64) float scale[PANEL][SUMS], min[SUMS];
    const struct int_form f = decode_int_form(m->tensor->type);
    const struct type_info *ti = type_by_id((uint32_t)m->tensor->type);
    const int group = MIN(f.group, ACT_GROUP);
    const __m512i rows = _mm512_mullo_epi32(_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0), _mm512_set1_epi32(SUMS));
    memset(sums, 0, sizeof sums);
    memset(scale, 0, sizeof scale);
    for (int row = row0; row < row1; row += PANEL) {
        __m512 c = _mm512_setzero_ps(), s = _mm512_setzero_ps();
        for (int k0 = 0; k0 < m->in; k0 += AVX512_CHUNK) {
            const int n = MIN(AVX512_CHUNK, m->in - k0);
            for (int r = 0; r < MIN(PANEL, m->out - row); r++) {
                const uint8_t *src = tensor_row(m->tensor, row + r);
                f.decode(src + (size_t)(k0 / ti->block) * (size_t)ti->block_bytes, (int8_t *)q, scale[r], min, n);
                for (int i = 0; i < n; i += 64) _mm512_store_si512(q + i, _mm512_xor_si512(_mm512_load_si512(q + i), _mm512_set1_epi8((char)0x80)));
                sums_of_16(q, m->acts.q + k0, n, sums[r]);
            }
            for (int g = 0; g < n / group; g++) {
                const int u = (k0 + g * group) / ACT_GROUP, h = g % 2;
                const struct act_group *ag = &m->acts.group[u];
                const int *at = &sums[0][g * group / 16];
                __m512i acc = _mm512_i32gather_epi32(rows, at, 4);
                if (group == 32) acc = _mm512_add_epi32(acc, _mm512_i32gather_epi32(rows, at + 1, 4));
                acc = _mm512_add_epi32(acc, _mm512_set1_epi32(group == 32 ? ag->init : m->acts.halves[u].init[h]));
                const __m512 x = _mm512_add_ps(_mm512_castsi512_ps(acc), _mm512_set1_ps(ag->neg_magic));
                s = _mm512_fmadd_ps(x, _mm512_i32gather_ps(rows, &scale[0][g * group / f.group], 4), s);
                const int end = k0 + (g + 1) * group;
                if (end % ACT_SUPER && end < m->in) continue;
                c = _mm512_fmadd_ps(s, _mm512_set1_ps(ag->super), c);
                s = _mm512_setzero_ps();
            }
        }
        avx512_store_row(m, 0, row, c);
    }
}

bool avx512_int_gemv(const struct cpu_matmul *m, int row0, int row1)
{
    if (m->n != 1) return false;
    if (!m->packed) {
        if (decode_int_form(m->tensor->type).has_min) return false; /* no such type so far: chunks can do it */
        gemv_rows(m, row0, row1);
        return true;
    }
    kinds[m->tensor->type].gemv(m, pack_find(m->tensor->type), row0 / PANEL, (row1 + PANEL - 1) / PANEL);
    return true;
}

struct avx512_int_kind avx512_int_kind(enum tensor_type type)
{
    if ((size_t)type < COUNT_OF(kinds) && kinds[type].group) return (struct avx512_int_kind){kinds[type].group, kinds[type].has_min, true};
    const struct int_form f = decode_int_form(type);
    return (struct avx512_int_kind){MIN(f.group, ACT_GROUP), f.has_min, false};
}
