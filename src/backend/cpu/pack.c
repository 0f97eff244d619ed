/* Repacking rows of the file into panels. Runs once, at load, over every weight: words of four values at a time. */
#include "backend/cpu/pack.h"

#define BYTES(x) ((x) * 0x01010101u)

static void put_word(uint32_t v, uint8_t *to) { memcpy(to, &v, 4); }

/* n_units units of values of so many bits, less than 8; w[k4]: four each. */
static inline __attribute__((always_inline)) void put_units(const uint32_t *w, int n_units, const int bits, uint8_t *to, int r)
{
    const int above = bits & 4; /* crumbs, or a bit, stand above the nibbles */
    for (to += r * 4; n_units > 0; n_units--, w += 8, to += PACK_UNIT(bits)) {
        uint32_t ones = 0;
        for (int i = 0; i < 8; i++) ones |= (w[i] >> (bits - 1) & BYTES(0x01u)) << i;
        if (bits & 1) put_word(ones, to);
        for (int k4 = 0; k4 < 8; k4 += 4) {
            uint32_t crumbs = 0;
            for (int i = 0; i < 4; i++) crumbs |= (w[k4 + i] >> above & BYTES(0x03u)) << 2 * i;
            if (bits & 2) put_word(crumbs, to + PACK_CRUMB(bits, k4));
            for (int i = k4; i < k4 + 4 && above; i += 2)
                put_word((w[i] & BYTES(0x0fu)) | (w[i + 1] & BYTES(0x0fu)) << 4, to + PACK_NIBBLE(bits, i));
        }
    }
}

static void put_u16(const uint8_t *src, uint8_t *plane, int r) { memcpy(plane + 2 * r, src, 2); }

/* n dwords of a row's scales become [n][16 rows]. */
static void put_words(const uint8_t *src, int n, uint8_t *plane, int r)
{
    for (int i = 0; i < n; i++) memcpy(plane + (i * PANEL + r) * 4, src + 4 * i, 4);
}

/* The nibbles of 32-element blocks: byte j holds elements j and j + 16. */
static void nibbles_32(const uint8_t *qs, uint32_t w[8])
{
    for (int i = 0; i < 4; i++) {
        uint32_t v = load_u32(qs + 4 * i);
        w[i] = v & BYTES(0x0fu);
        w[4 + i] = v >> 4 & BYTES(0x0fu);
    }
}

/* Bit e of the 32-bit word becomes bit 4 of value e. */
static void fifth_bits_32(const uint8_t *qh, uint32_t w[8])
{
    uint32_t bits = load_u32(qh);
    for (int i = 0; i < 8; i++) {
        uint32_t b = bits >> 4 * i & 0xfu; /* four bits to the bottoms of four bytes */
        w[i] |= ((b * 0x00204081u) & BYTES(0x01u)) << 4;
    }
}

static void row_q4_0(const uint8_t *src, uint8_t *const p[PACK_PLANES], int r)
{
    uint32_t w[8];
    nibbles_32(src + 2, w);
    put_u16(src, p[0], r);
    put_units(w, 1, 4, p[2], r);
}

static void row_q4_1(const uint8_t *src, uint8_t *const p[PACK_PLANES], int r)
{
    uint32_t w[8];
    nibbles_32(src + 4, w);
    put_u16(src, p[0], r);
    put_u16(src + 2, p[0] + 32, r);
    put_units(w, 1, 4, p[2], r);
}

static void row_q5_0(const uint8_t *src, uint8_t *const p[PACK_PLANES], int r)
{
    uint32_t w[8];
    nibbles_32(src + 6, w);
    fifth_bits_32(src + 2, w);
    put_u16(src, p[0], r);
    put_units(w, 1, 5, p[2], r);
}

static void row_q5_1(const uint8_t *src, uint8_t *const p[PACK_PLANES], int r)
{
    uint32_t w[8];
    nibbles_32(src + 8, w);
    fifth_bits_32(src + 4, w);
    put_u16(src, p[0], r);
    put_u16(src + 2, p[0] + 32, r);
    put_units(w, 1, 5, p[2], r);
}

static void row_q8_0(const uint8_t *src, uint8_t *const p[PACK_PLANES], int r)
{
    put_u16(src, p[0], r);
    for (int i = 0; i < 8; i++) put_word(load_u32(src + 2 + 4 * i) ^ BYTES(0x80u), p[2] + i * 64 + r * 4);
}

/* 2-bit values of Q2_K and Q3_K: in each half of 128, byte j (0..31) holds elements j, j+32, j+64, j+96. */
static void crumbs_256(const uint8_t *qs, uint32_t w[64])
{
    for (int half = 0; half < 2; half++)
        for (int i = 0; i < 8; i++) {
            uint32_t v = load_u32(qs + 32 * half + 4 * i);
            for (int j = 0; j < 4; j++) w[32 * half + 8 * j + i] = v >> 2 * j & BYTES(0x03u);
        }
}

static void row_q2_k(const uint8_t *src, uint8_t *const p[PACK_PLANES], int r)
{
    uint32_t w[64];
    crumbs_256(src + 16, w);
    put_u16(src + 80, p[0], r);
    put_u16(src + 82, p[0] + 32, r);
    put_words(src, 4, p[1], r);
    put_units(w, 8, 2, p[2], r);
}

static void row_q3_k(const uint8_t *src, uint8_t *const p[PACK_PLANES], int r)
{
    uint32_t w[64];
    crumbs_256(src + 32, w);
    for (int i = 0; i < 8; i++) { /* hmask: byte j (0..31), bit g: third bit of element 32 g + j */
        uint32_t v = load_u32(src + 4 * i);
        for (int g = 0; g < 8; g++) w[8 * g + i] |= (v >> g & BYTES(0x01u)) << 2;
    }
    put_u16(src + 108, p[0], r);
    put_words(src + 96, 3, p[1], r);
    put_units(w, 8, 3, p[2], r);
}

/* Q4_K, Q5_K: in each quarter of 64, byte j (0..31) holds elements j and j + 32. */
static void nibbles_256(const uint8_t *qs, uint32_t w[64])
{
    for (int q = 0; q < 4; q++)
        for (int i = 0; i < 8; i++) {
            uint32_t v = load_u32(qs + 32 * q + 4 * i);
            w[16 * q + i] = v & BYTES(0x0fu);
            w[16 * q + 8 + i] = v >> 4 & BYTES(0x0fu);
        }
}

static void row_q4_k(const uint8_t *src, uint8_t *const p[PACK_PLANES], int r)
{
    uint32_t w[64];
    nibbles_256(src + 16, w);
    put_u16(src, p[0], r);
    put_u16(src + 2, p[0] + 32, r);
    put_words(src + 4, 3, p[1], r);
    put_units(w, 8, 4, p[2], r);
}

static void row_q5_k(const uint8_t *src, uint8_t *const p[PACK_PLANES], int r)
{
    uint32_t w[64];
    nibbles_256(src + 48, w);
    for (int i = 0; i < 8; i++) { /* qh: byte j, bit g: fifth bit of element 32 g + j */
        uint32_t v = load_u32(src + 16 + 4 * i);
        for (int g = 0; g < 8; g++) w[8 * g + i] |= (v >> g & BYTES(0x01u)) << 4;
    }
    put_u16(src, p[0], r);
    put_u16(src + 2, p[0] + 32, r);
    put_words(src + 4, 3, p[1], r);
    put_units(w, 8, 5, p[2], r);
}

static void row_q6_k(const uint8_t *src, uint8_t *const p[PACK_PLANES], int r)
{
    uint32_t w[64];
    for (int half = 0; half < 2; half++) /* per half of 128: ql byte j (0..63), qh byte j (0..31) */
        for (int i = 0; i < 8; i++) {
            uint32_t a = load_u32(src + 64 * half + 4 * i), b = load_u32(src + 64 * half + 32 + 4 * i);
            uint32_t h = load_u32(src + 128 + 32 * half + 4 * i), *out = w + 32 * half + i;
            out[0] = (a & BYTES(0x0fu)) | (h & BYTES(0x03u)) << 4;
            out[8] = (b & BYTES(0x0fu)) | (h >> 2 & BYTES(0x03u)) << 4;
            out[16] = (a >> 4 & BYTES(0x0fu)) | (h >> 4 & BYTES(0x03u)) << 4;
            out[24] = (b >> 4 & BYTES(0x0fu)) | (h >> 6 & BYTES(0x03u)) << 4;
        }
    put_u16(src + 208, p[0], r);
    put_words(src + 192, 4, p[1], r);
    put_units(w, 8, 6, p[2], r);
}

/* Scales: [16 rows] f16, then [16 rows] dwords of eight low nibbles, then [16 rows] u16 of eight high pairs. */
static void row_iq4_xs(const uint8_t *src, uint8_t *const p[PACK_PLANES], int r)
{
    uint32_t w[64];
    for (int g = 0; g < 8; g++) nibbles_32(src + 8 + 16 * g, w + 8 * g);
    put_u16(src, p[0], r);
    put_words(src + 4, 1, p[0] + 32, r);
    put_u16(src + 2, p[0] + 96, r);
    put_units(w, 8, 4, p[2], r);
}

static void row_mxfp4(const uint8_t *src, uint8_t *const p[PACK_PLANES], int r)
{
    uint32_t w[8];
    nibbles_32(src + 1, w);
    p[0][r] = src[0];
    put_units(w, 1, 4, p[2], r);
}

/* ---- floats: [element][16 rows], BF16 as [pair of elements][16 rows][2] ---- */

/* Elements [k0, k1) of n rows; the caller's panel is zero where there is no element. */
static void put_floats(enum tensor_type type, const uint8_t *src, size_t row_bytes, int n, int64_t k0, int64_t k1, uint8_t *panel)
{
    for (int r = 0; r < n; r++, src += row_bytes) {
        if (type == TYPE_F32)
            for (int64_t k = k0; k < k1; k++) memcpy(panel + (k * PANEL + r) * 4, src + k * 4, 4);
        else if (type == TYPE_F16)
            for (int64_t k = k0; k < k1; k++) memcpy(panel + (k * PANEL + r) * 2, src + k * 2, 2);
        else
            for (int64_t k = k0; k < k1; k++) memcpy(panel + (k / 2 * PANEL + r) * 4 + k % 2 * 2, src + k * 2, 2);
    }
}

static const struct pack packs[] = {
    [TYPE_F32] = {1, 1, {64}, 0, NULL},
    [TYPE_F16] = {1, 2, {32}, 0, NULL},
    [TYPE_BF16] = {2, 1, {64}, 0, NULL},
    [TYPE_Q4_0] = {32, 8, {32}, 4, row_q4_0},
    [TYPE_Q4_1] = {32, 8, {64}, 4, row_q4_1},
    [TYPE_Q5_0] = {32, 8, {32}, 5, row_q5_0},
    [TYPE_Q5_1] = {32, 8, {64}, 5, row_q5_1},
    [TYPE_Q8_0] = {32, 8, {32}, 8, row_q8_0},
    [TYPE_Q2_K] = {256, 1, {64, 256}, 2, row_q2_k},
    [TYPE_Q3_K] = {256, 2, {32, 192}, 3, row_q3_k},
    [TYPE_Q4_K] = {256, 1, {64, 192}, 4, row_q4_k},
    [TYPE_Q5_K] = {256, 1, {64, 192}, 5, row_q5_k},
    [TYPE_Q6_K] = {256, 2, {32, 256}, 6, row_q6_k},
    [TYPE_IQ4_NL] = {32, 8, {32}, 4, row_q4_0},
    [TYPE_IQ4_XS] = {256, 1, {128}, 4, row_iq4_xs},
    [TYPE_MXFP4] = {32, 8, {16}, 4, row_mxfp4},
};

const struct pack *pack_find(enum tensor_type type)
{
    return (size_t)type < COUNT_OF(packs) && packs[type].superblock ? &packs[type] : NULL;
}

size_t pack_bytes(enum tensor_type type, int64_t rows, int64_t in)
{
    return (size_t)((rows + PANEL - 1) / PANEL) * pack_panel_bytes(pack_find(type), in);
}

void pack_rows(void *packed, const struct tensor *t, int64_t row0, int64_t row1)
{
    const struct pack *p = pack_find(t->type);
    const struct type_info *ti = type_by_id((uint32_t)t->type);
    const int64_t in = t->ne[0];
    const int n_super = pack_n_super(p, in); /* exact for block types */
    size_t row_bytes = tensor_row_bytes(t), super_bytes = (size_t)(p->superblock / ti->block) * (size_t)ti->block_bytes;
    for (int64_t row = row0; row < row1; row += PANEL) {
        int n = (int)MIN(row1 - row, PANEL);
        const uint8_t *src = tensor_row(t, row);
        uint8_t *panel = (uint8_t *)packed + (size_t)(row / PANEL) * pack_panel_bytes(p, in);
        if (!p->row) { /* stripes that stay in cache while their 16 rows come in */
            for (int64_t k = 0; k < in; k += 64) put_floats(t->type, src, row_bytes, n, k, MIN(k + 64, in), panel);
            continue;
        }
        for (int s = 0; s < n_super; s++) {
            uint8_t *plane[PACK_PLANES];
            pack_seek(p, panel, n_super, s, (const uint8_t **)plane);
            for (int r = 0; r < n; r++) p->row(src + (size_t)r * row_bytes + (size_t)s * super_bytes, plane, r);
        }
    }
}

/* ---- what comes next ---- */

void pack_ahead_fetch(struct pack_ahead *a, size_t n_bytes)
{
    while (n_bytes > 0 && a->at < (int)COUNT_OF(a->p)) {
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

struct pack_ahead pack_plan_ahead(const struct cpu_matmul *m, int row, int n_rows, int k0, int chunk)
{
    struct pack_ahead a = {.at = 0};
    const struct pack *pk = pack_find(m->tensor->type);
    if (!m->packed || row >= m->out) return a;
    /* a chunk is some whole stripes */
    const size_t panel = pack_panel_bytes(pk, m->in), from = pack_panel_bytes(pk, k0), to = pack_panel_bytes(pk, MIN(k0 + chunk, m->in));
    for (int i = 0; i < n_rows / PANEL && row + i * PANEL < m->out; i++) {
        a.p[i] = (const uint8_t *)m->packed + (size_t)(row / PANEL + i) * panel + from;
        a.n_bytes[i] = to - from;
        a.total += to - from;
    }
    return a;
}
