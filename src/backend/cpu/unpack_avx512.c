/* Integer weights for the AVX-512 tiers: unpacking a chunk of 32 rows to bytes, and the product with a single token, which reads the packed
 * planes directly. */
#include "tensor/decode.h"

/* clang (14, ScalarEvolution) takes minutes to compile checks of pointer arithmetic in products of several panels; gcc's sanitizer has them. */
#ifdef __clang__
#pragma clang attribute push(__attribute__((no_sanitize("undefined"))), apply_to = function)
#endif
#include "backend/cpu/types_avx512.h"

/* ---- how a single token's product reads memory ---- */

/* Bytes that are asked for ahead: of one panel after the other; of each of several, at most, so that those of all stay in the L1 cache. */
#define ONE_AHEAD 16384
#define SIDE_AHEAD 4096

size_t avx512_int_ahead(const struct cpu_matmul *m)
{
    const struct pack *pk = pack_find(m->tensor->type);
    return pk && pk->superblock > 1 && m->packed && avx512_reading() == READ_ONE ? ONE_AHEAD : 0;
}

/* One panel after the other, then what the thread reads next. */
static struct pack_stream stream_one(const struct cpu_matmul *m, const struct pack *pk, int panel0, int panel1)
{
    const uint8_t *first = pack_panel(m, pk, panel0), *end = pack_panel(m, pk, panel1);
    return (struct pack_stream){first + (m->asked ? m->asked : ONE_AHEAD), end, m->then ? (ptrdiff_t)((uintptr_t)m->then - (uintptr_t)end) : 0};
}

/* Panels side by side, then the next ones. */
static struct pack_stream stream_side(const struct cpu_matmul *m, const struct pack *pk, int panel)
{
    return pack_stream_side(pack_panel(m, pk, panel), AVX512_SIDE, pack_panel_bytes(pk, m->in), MIN(pack_stripe(pk, pk->stripe), (size_t)SIDE_AHEAD));
}

/* One token against panels side by side: from the one at `base` on, `shift` bytes apart. */
typedef void (*panels_fn)(const struct cpu_matmul *m, const struct pack *pk, const uint8_t *base, const size_t *shift, struct pack_stream *stream, __m512 *out);

/* How many of [panel0, panel1) meet the token at a time, and how far from each other; where there are too few, the last one again. */
static void run_panels(const struct cpu_matmul *m, const struct pack *pk, int panel0, int panel1, panels_fn panels, enum avx512_reading reading)
{
    const int at_a_time = reading == READ_APART ? AVX512_APART : reading == READ_ONE ? 1 : AVX512_SIDE;
    const struct avx512_turns t = avx512_turns(m, panel0, panel1, at_a_time, reading == READ_APART);
    const size_t bytes = pack_panel_bytes(pk, m->in);
    struct pack_stream stream = {0};
    if (reading == READ_ONE) stream = stream_one(m, pk, panel0, panel1);
    for (int turn = 0, panel = panel0; turn < t.n; turn++, panel += t.step) {
        size_t shift[AVX512_SIDE];
        __m512 c[AVX512_SIDE];
        if (reading == READ_SIDE) stream = stream_side(m, pk, panel);
        for (int i = 0; i < at_a_time; i++) shift[i] = (size_t)MIN(i * t.apart, t.end - 1 - panel) * bytes;
        panels(m, pk, pack_panel(m, pk, panel), shift, &stream, c);
        for (int i = 0; i < at_a_time && panel + i * t.apart < t.end; i++) avx512_store_row(m, 0, (panel + i * t.apart) * PANEL, c[i]);
    }
}

/* Lanes of 32 bits, of whose numbers the lower half is enough, as two of 16. */
static inline __m512i twice_16(__m512i v) { return _mm512_mask_blend_epi16(0xaaaaaaaa, v, _mm512_slli_epi32(v, 16)); }

/* Bytes v, less offset, times `by` = 128 high + low, 0 <= low < 128. */
static inline void split_product(__m512i v, __m512i by, const int offset, int8_t *high, int8_t *low)
{
    const __m512i even = _mm512_set1_epi16(0x00ff), less = _mm512_mullo_epi16(by, _mm512_set1_epi16((short)offset));
    __m512i a = _mm512_mullo_epi16(_mm512_and_si512(v, even), by), b = _mm512_mullo_epi16(_mm512_srli_epi16(v, 8), by);
    if (offset) a = _mm512_sub_epi16(a, less), b = _mm512_sub_epi16(b, less);
    /* `even` chooses: bytes of a where it has ones, of b elsewhere */
    const __m512i above = _mm512_ternarylogic_epi32(even, _mm512_srli_epi16(a, 7), _mm512_slli_epi16(b, 1), 0xca);
    const __m512i below = _mm512_ternarylogic_epi32(even, a, _mm512_slli_epi16(b, 8), 0xca);
    _mm512_store_si512(high, above);
    _mm512_store_si512(low, _mm512_and_si512(below, _mm512_set1_epi8(0x7f)));
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
#define BITS 4
#define NIBBLES 1
#define PART 0
#include "backend/cpu/int_avx512_tmpl.h"
#define TYPE q4_1
#define SUPERBLOCK 32
#define GROUP 32
#define OFFSET 0
#define BITS 4
#define NIBBLES 1
#define PART 0
#include "backend/cpu/int_avx512_tmpl.h"
#define TYPE q5_0
#define SUPERBLOCK 32
#define GROUP 32
#define OFFSET 16
#define BITS 5
#define NIBBLES 0
#define PART 0
#include "backend/cpu/int_avx512_tmpl.h"
#define TYPE q5_1
#define SUPERBLOCK 32
#define GROUP 32
#define OFFSET 0
#define BITS 5
#define NIBBLES 0
#define PART 0
#include "backend/cpu/int_avx512_tmpl.h"
#define TYPE q8_0
#define SUPERBLOCK 32
#define GROUP 32
#define OFFSET 128
#define BITS 8
#define NIBBLES 0
#define PART 0
#include "backend/cpu/int_avx512_tmpl.h"
#define TYPE q2_k
#define SUPERBLOCK 256
#define GROUP 16
#define OFFSET 0
#define BITS 2
#define NIBBLES 0
#define PART 2
#include "backend/cpu/int_avx512_tmpl.h"
#define TYPE q3_k
#define SUPERBLOCK 256
#define GROUP 16
#define OFFSET 4
#define BITS 3
#define NIBBLES 0
#define PART 0
#include "backend/cpu/int_avx512_tmpl.h"
#define TYPE q4_k
#define SUPERBLOCK 256
#define GROUP 32
#define OFFSET 0
#define BITS 4
#define NIBBLES 1
#define PART 0
#include "backend/cpu/int_avx512_tmpl.h"
#define TYPE q5_k
#define SUPERBLOCK 256
#define GROUP 32
#define OFFSET 0
#define BITS 5
#define NIBBLES 0
#define PART 0
#include "backend/cpu/int_avx512_tmpl.h"
#define TYPE q6_k
#define SUPERBLOCK 256
#define GROUP 16
#define OFFSET 32
#define BITS 6
#define NIBBLES 0
#define PART 0
#include "backend/cpu/int_avx512_tmpl.h"
#define TYPE iq4_nl
#define SUPERBLOCK 32
#define GROUP 32
#define OFFSET 128
#define BITS 4
#define NIBBLES 0
#define PART 0
#include "backend/cpu/int_avx512_tmpl.h"
#define TYPE iq4_xs
#define SUPERBLOCK 256
#define GROUP 32
#define OFFSET 128
#define BITS 4
#define NIBBLES 0
#define PART 0
#include "backend/cpu/int_avx512_tmpl.h"
#define TYPE mxfp4
#define SUPERBLOCK 32
#define GROUP 32
#define OFFSET 128
#define BITS 4
#define NIBBLES 0
#define PART 0
#include "backend/cpu/int_avx512_tmpl.h"

#ifdef __clang__
#pragma clang attribute pop
#endif

struct int_kind {
    int group;
    bool has_min, whole_min;
    void (*unpack)(const struct pack *pk, const uint8_t *panel, int n_super, int s0, int s1, uint8_t *w, float *ws, float *wm);
    panels_fn panels[3]; /* [enum avx512_reading] */
};
static const struct int_kind kinds[] = {
#define X(ENUM, name, group, offset) [TYPE_##ENUM] = {group, (offset) == 0, (offset) == 0 && BLOCK_##name == ACT_SUPER, unpack_##name, {apart_##name, one_##name, side_##name}},
    INT_TYPES(X)
#undef X
};
static const struct whole_kind {
    void (*unpack)(const struct pack *pk, const uint8_t *panel, int n_super, int s, int half, struct avx512_whole *to);
    void (*split)(const struct pack *pk, const uint8_t *panel, int n_super, int s, struct avx512_parts *to);
    panels_fn panels;
} whole_kinds[] = {
#define X(ENUM, name) [TYPE_##ENUM] = {unpack_whole_##name, split_##name, whole_side_##name},
    AVX512_WHOLE_TYPES(X)
#undef X
};

/* ---- chunks ---- */

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

void avx512_whole_unpack(const struct cpu_matmul *m, int row, int k0, struct avx512_whole *to)
{
    const enum tensor_type type = m->tensor->type;
    const struct pack *pk = pack_find(type);
    for (int i = 0; i < 2 && row + i * PANEL < m->out; i++)
        whole_kinds[type].unpack(pk, pack_panel(m, pk, row / PANEL + i), pack_n_super(pk, m->in), k0 / ACT_SUPER, i, to);
}

void avx512_whole_split(const struct cpu_matmul *m, int row, int k0, struct avx512_parts *to)
{
    const enum tensor_type type = m->tensor->type;
    const struct pack *pk = pack_find(type);
    whole_kinds[type].split(pk, pack_panel(m, pk, row / PANEL), pack_n_super(pk, m->in), k0 / ACT_SUPER, to);
}

void avx512_whole_gemv(const struct cpu_matmul *m, int row0, int row1)
{
    run_panels(m, pack_find(m->tensor->type), row0 / PANEL, (row1 + PANEL - 1) / PANEL, whole_kinds[m->tensor->type].panels, READ_SIDE);
}

/* ---- one token against rows of the file ---- */

/* Exact sums of w * a over each 16 elements of up to AVX512_CHUNK: [n / 16], in whole vectors. w: values + 128. */
static void sums_of_16(const uint8_t *w, const int8_t *a, int n, int32_t *sums)
{
    const __m512i transpose = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
    for (int k = 0; k < n; k += 256, sums += 16) {
        __m512i v[4];
        UNROLL(4)
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
    const enum avx512_reading reading = avx512_reading();
    run_panels(m, pack_find(m->tensor->type), row0 / PANEL, (row1 + PANEL - 1) / PANEL, kinds[m->tensor->type].panels[reading], reading);
    return true;
}

struct avx512_int_kind avx512_int_kind(enum tensor_type type)
{
    if ((size_t)type < COUNT_OF(kinds) && kinds[type].group) return (struct avx512_int_kind){kinds[type].group, kinds[type].has_min, kinds[type].whole_min, true};
    const struct int_form f = decode_int_form(type);
    return (struct avx512_int_kind){MIN(f.group, ACT_GROUP), f.has_min, false, false};
}
