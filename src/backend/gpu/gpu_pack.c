/* Weights on their way to the device: every tensor type, without loss, in one of the layouts of pack.def. Types of a few values per element
 * whose values come from large grids (IQ1, IQ2, IQ3) become codes of 3 or 4 bits into a small book; plain integers and F64 become f32. */
#include "backend/gpu/gpu.h"

#include "base/half.h"
#include "tensor/codebooks.h"
#include "tensor/decode.h"

#include <math.h>

enum { UNIT = 32, BLOCK_MOST = 256 };

static const struct gpu_pack packs[] = {
#define PACK(name, code, book, scale, offset) {#name, code, book, (enum gpu_scale)scale, offset},
#include "backend/gpu/pack.def"
#undef PACK
};

enum {
#define PACK(name, code, book, scale, offset) PACK_##name,
#include "backend/gpu/pack.def"
#undef PACK
};

static const int8_t book_iq2[16] = {8, 25, 43, -8, -25, -43}, book_iq1[16] = {-9, -7, -1, 1, 7, 9};
static const int8_t book_iq3_xxs[16] = {4, 12, 20, 28, 36, 44, 52, 62, -4, -12, -20, -28, -36, -44, -52, -62};
static const int8_t book_iq3_s[16] = {1, 3, 5, 7, 9, 11, 13, 15, -1, -3, -5, -7, -9, -11, -13, -15};

/* Where each type goes. d_at: bytes from the block's start to its f16 superscale, d_factor: what of it the integer scales multiply. */
static const struct type_pack {
    int pack;
    const int8_t *book;
    int d_at;
    float d_factor;
} type_packs[] = {
    [TYPE_F32] = {.pack = PACK_f32}, [TYPE_F16] = {.pack = PACK_f16}, [TYPE_BF16] = {.pack = PACK_bf16}, [TYPE_F64] = {.pack = PACK_f32},
    [TYPE_I8] = {.pack = PACK_f32}, [TYPE_I16] = {.pack = PACK_f32}, [TYPE_I32] = {.pack = PACK_f32}, [TYPE_I64] = {.pack = PACK_f32},
    [TYPE_Q4_0] = {.pack = PACK_n4_h}, [TYPE_Q4_1] = {.pack = PACK_n4_hm}, [TYPE_Q5_0] = {.pack = PACK_n5_h}, [TYPE_Q5_1] = {.pack = PACK_n5_hm},
    [TYPE_Q8_0] = {.pack = PACK_n8_h}, [TYPE_Q8_1] = {.pack = PACK_n8_h}, [TYPE_Q8_K] = {.pack = PACK_n8_f},
    [TYPE_Q2_K] = {.pack = PACK_n2_kkmm, .d_at = 80}, [TYPE_Q3_K] = {PACK_n3_kk, NULL, 108, 1}, [TYPE_Q4_K] = {.pack = PACK_n4_km, .d_at = 0},
    [TYPE_Q5_K] = {.pack = PACK_n5_km, .d_at = 0}, [TYPE_Q6_K] = {PACK_n6_kk, NULL, 208, 1},
    [TYPE_IQ2_XXS] = {PACK_b3_kk, book_iq2, 0, 0.125f}, [TYPE_IQ2_XS] = {PACK_b3_kk, book_iq2, 0, 0.125f}, [TYPE_IQ2_S] = {PACK_b3_kk, book_iq2, 0, 0.125f},
    [TYPE_IQ3_XXS] = {PACK_b4_kk, book_iq3_xxs, 0, 0.25f}, [TYPE_IQ3_S] = {PACK_b4_kk, book_iq3_s, 0, 1},
    [TYPE_IQ1_S] = {PACK_b3_kk, book_iq1, 0, 0.125f}, [TYPE_IQ1_M] = {PACK_b3_kk, book_iq1, -1, 0.125f},
    [TYPE_IQ4_NL] = {.pack = PACK_b4_h, .book = kvalues_iq4nl}, [TYPE_IQ4_XS] = {PACK_b4_kk, kvalues_iq4nl, 0, 1},
    [TYPE_MXFP4] = {.pack = PACK_b4_f, .book = kvalues_fp4}, [TYPE_NVFP4] = {.pack = PACK_b4_hh, .book = kvalues_fp4},
    [TYPE_TQ1_0] = {.pack = PACK_n2_h}, [TYPE_TQ2_0] = {.pack = PACK_n2_h}, [TYPE_Q1_0] = {.pack = PACK_n1_hm}, [TYPE_Q2_0] = {.pack = PACK_n2_h},
};

/* A type of quant.def without a row above would be read as the first pack; this makes each row name its own. */
#define QUANT(ENUM, name, text, id, block, bytes) _Static_assert(sizeof type_packs / sizeof *type_packs > TYPE_##ENUM, text " has no layout");
#include "tensor/quant.def"
#undef QUANT

const struct gpu_pack *gpu_pack_of(enum tensor_type type) { return &packs[type_packs[type].pack]; }

/* Bytes of a row's planes: codes, second plane of codes, scales, superscales. */
static void plane_bytes(const struct gpu_pack *p, size_t units, size_t n[4])
{
    static const int first[] = {[1] = 4, [2] = 8, [3] = 8, [4] = 16, [5] = 16, [6] = 16, [8] = 32, [16] = 64, [17] = 64, [32] = 128};
    static const int second[] = {[3] = 4, [5] = 4, [6] = 8, [32] = 0};
    static const int scales[] = {[SCALE_H] = 2, [SCALE_HM] = 4, [SCALE_HH] = 4, [SCALE_F] = 4, [SCALE_KM] = 2, [SCALE_KK] = 2, [SCALE_KKMM] = 4};
    n[0] = units * (size_t)first[p->code];
    n[1] = units * (size_t)second[p->code];
    n[2] = units * (size_t)scales[p->scale];
    n[3] = p->scale >= SCALE_KM ? (units + 7) / 8 * 4 : 0;
}

RowP gpu_pack_row(const struct gpu_pack *pack, enum tensor_type type, int64_t n_in, bool as_file)
{
    RowP r = {.n_units = (uint)((n_in + UNIT - 1) / UNIT)};
    size_t n[4], at[5] = {0};
    plane_bytes(pack, r.n_units, n);
    for (int i = 0; i < 4; i++) at[i + 1] = at[i] + ROUND_UP(n[i], (size_t)16);
    r.off_b = (uint)at[1];
    r.off_s = (uint)at[2];
    r.off_d = (uint)at[3];
    r.row_bytes = (uint)at[4];
    if (pack->code > 8) {
        r.off_s = as_file ? 1 : r.n_units;
        r.off_b = as_file ? (uint)(n[0] / 16 / r.n_units) : 1;
    }
    uint32_t book[4] = {0};
    if (type_packs[type].book) memcpy(book, type_packs[type].book, sizeof book);
    r.book0 = book[0];
    r.book1 = book[1];
    r.book2 = book[2];
    r.book3 = book[3];
    return r;
}

/* ---- one row ---- */

struct row_out {
    const struct gpu_pack *pack;
    const RowP *row;
    uint8_t *dst;
};

static void put_u16(uint8_t *p, uint32_t v)
{
    uint16_t h = (uint16_t)v;
    memcpy(p, &h, 2);
}
static void put_u32(uint8_t *p, uint32_t v) { memcpy(p, &v, 4); }

/* Codes of a unit, q[32]. False: a value has no code. */
static bool put_codes(const struct row_out *o, size_t u, const int8_t *q, const uint8_t *code_of)
{
    uint8_t c[UNIT], *a = o->dst, *b = o->dst + o->row->off_b;
    const int code = o->pack->code;
    if (code == 8) {
        memcpy(a + 16 * u, q, 16);
        memcpy(a + 16 * (o->row->n_units + u), q + 16, 16);
        return true;
    }
    unsigned wrong = 0;
    for (int i = 0; i < UNIT; i++) {
        c[i] = code_of[(uint8_t)q[i]];
        wrong |= c[i] == 0xff;
    }
    if (wrong) return false;
    if (code >= 4)
        for (int i = 0; i < 16; i++) a[16 * u + (size_t)i] = (uint8_t)((c[i] & 15) | c[16 + i] << 4);
    uint32_t two[2] = {0}, one = 0;
    if (code < 4 && code > 1)
        for (int i = 0; i < UNIT; i++) two[i / 16] |= (uint32_t)(c[i] & 3) << (8 * (i % 4) + 2 * (i / 4 % 4));
    if (code == 6)
        for (int i = 0; i < UNIT; i++) two[i / 16] |= (uint32_t)(c[i] >> 4) << (8 * (i % 4) + 2 * (i / 4 % 4));
    if (code == 1 || code == 3 || code == 5)
        for (int i = 0; i < UNIT; i++) one |= (uint32_t)(c[i] >> (code - 1)) << (8 * (i % 4) + i / 4);
    if (code == 6) memcpy(b + 8 * u, two, 8);
    else if (code == 2 || code == 3) memcpy(a + 8 * u, two, 8);
    if (code == 1) put_u32(a + 4 * u, one);
    else if (code == 3 || code == 5) put_u32(b + 4 * u, one);
    return true;
}

/* The integer that d is multiplied by to give scale; 0x7fffffff: there is none. */
static int integer_scale(float scale, float d, int least, int most)
{
    if (scale == 0 || !isfinite(d) || d == 0) return isfinite(d) ? 0 : 1;
    float k = rintf(scale / d);
    return k >= (float)least && k <= (float)most && d * k == scale ? (int)k : 0x7fffffff;
}

static float superscale(const struct type_pack *tp, const uint8_t *block)
{
    uint32_t bits = 0;
    if (tp->d_at >= 0) bits = load_u16(block + tp->d_at);
    else
        for (int i = 0; i < 4; i++) bits |= (uint32_t)(load_u16(block + 48 + 2 * i) >> 12) << 4 * i; /* IQ1_M */
    return f32_from_f16((uint16_t)bits) * tp->d_factor;
}

/* Half and its f32 are one number: no rounding. */
static bool put_half(uint8_t *p, float f)
{
    uint16_t h = f16_from_f32(f);
    put_u16(p, h);
    float back = f32_from_f16(h);
    return back == f || back != back;
}

/* Scale and min of units u of a block: s[2], m[2] for their halves; block: the file's bytes, for the superscales. */
static bool put_scales(const struct row_out *o, size_t u, const float *s, const float *m, const struct type_pack *tp, const uint8_t *block)
{
    uint8_t *to = o->dst + o->row->off_s, *d_to = o->dst + o->row->off_d + u / 8 * 4;
    switch (o->pack->scale) {
    case SCALE_NONE: return true;
    case SCALE_H: return put_half(to + 2 * u, s[0]);
    case SCALE_HM: {
        bool a = put_half(to + 4 * u, s[0]);
        return put_half(to + 4 * u + 2, m[0]) && a;
    }
    case SCALE_HH: {
        bool a = put_half(to + 4 * u, s[0]);
        return put_half(to + 4 * u + 2, s[1]) && a;
    }
    case SCALE_F: put_u32(to + 4 * u, f32_bits(s[0])); return true;
    case SCALE_KK: {
        float d = superscale(tp, block);
        int k0 = integer_scale(s[0], d, -128, 127), k1 = integer_scale(s[1], d, -128, 127);
        put_u16(to + 2 * u, ((uint32_t)k0 & 255u) | ((uint32_t)k1 & 255u) << 8);
        put_u32(d_to, f32_bits(d));
        return k0 < 256 && k1 < 256;
    }
    case SCALE_KM:
    case SCALE_KKMM: {
        uint16_t d_bits = load_u16(block + tp->d_at), m_bits = load_u16(block + tp->d_at + 2);
        float d = f32_from_f16(d_bits), dm = f32_from_f16(m_bits);
        int k0 = integer_scale(s[0], d, 0, 255), k1 = integer_scale(s[1], d, 0, 255), m0 = integer_scale(m[0], dm, 0, 255), m1 = integer_scale(m[1], dm, 0, 255);
        if (o->pack->scale == SCALE_KM) put_u16(to + 2 * u, ((uint32_t)k0 & 255u) | ((uint32_t)m0 & 255u) << 8);
        else put_u32(to + 4 * u, ((uint32_t)k0 & 255u) | ((uint32_t)k1 & 255u) << 8 | ((uint32_t)m0 & 255u) << 16 | ((uint32_t)m1 & 255u) << 24);
        put_u32(d_to, (uint32_t)d_bits | (uint32_t)m_bits << 16);
        return k0 < 256 && k1 < 256 && m0 < 256 && m1 < 256;
    }
    }
    return false;
}

/* Codes by value of q, as an unsigned byte; 0xff: none. */
static void make_code_table(const struct gpu_pack *p, const int8_t *book, enum tensor_type type, uint8_t code_of[256])
{
    memset(code_of, 0xff, 256);
    if (p->book) {
        for (int i = p->code == 3 ? 7 : 15; i >= 0; i--) code_of[(uint8_t)book[i]] = (uint8_t)i;
    } else if (type == TYPE_Q1_0) { /* -1, 1 */
        code_of[255] = 0;
        code_of[1] = 1;
    } else {
        for (int i = 0; p->code < 8 && i < 1 << p->code; i++) code_of[(uint8_t)(i - p->offset)] = (uint8_t)i;
    }
}

static bool pack_row(const struct row_out *o, const struct tensor *t, const uint8_t *src, const uint8_t *code_of)
{
    const struct type_pack *tp = &type_packs[t->type];
    const struct type_info *info = type_by_id((uint32_t)t->type);
    const struct int_form form = decode_int_form(t->type);
    int8_t q[BLOCK_MOST];
    float scale[16], min[16] = {0};
    bool fits = true;
    for (int64_t i = 0; i < t->ne[0]; i += info->block, src += info->block_bytes) {
        form.decode(src, q, scale, form.has_min ? min : NULL, info->block);
        for (int e = 0; e < info->block; e += UNIT) {
            const int g0 = e / form.group, g1 = (e + 16) / form.group;
            float s[2] = {scale[g0], scale[g1]}, m[2] = {min[g0], min[g1]};
            size_t u = (size_t)(i + e) / UNIT;
            if (t->type == TYPE_Q1_0) { /* +-d as 2 d code - d */
                m[0] = s[0];
                s[0] *= 2;
            }
            fits &= put_codes(o, u, q + e, code_of);
            fits &= put_scales(o, u, s, m, tp, src);
        }
    }
    return fits;
}

/* Plain numbers: planes of 16 bytes. */
static void pack_plain_row(const struct row_out *o, const struct tensor *t, const uint8_t *src)
{
    const size_t units = o->row->n_units, item = o->pack->code == 32 ? 4 : 2, per = 16 / item, n = (size_t)t->ne[0];
    const bool convert = item == 4 && t->type != TYPE_F32;
    const struct type_info *info = type_by_id((uint32_t)t->type);
    for (size_t u = 0; u < units; u++) {
        float f[UNIT];
        const size_t have = MIN((size_t)UNIT, n - u * UNIT);
        const uint8_t *from = src + u * UNIT * (size_t)info->block_bytes;
        if (convert) decode_f32(t->type)(from, f, (int64_t)have);
        for (size_t j = 0; j < UNIT / per; j++) {
            uint8_t *to = o->dst + 16 * (j * o->row->off_s + u * o->row->off_b);
            const size_t first = j * per, k = have > first ? MIN(per, have - first) : 0;
            memset(to, 0, 16);
            memcpy(to, convert ? (const uint8_t *)(f + first) : from + first * item, k * item);
        }
    }
}

kg_status gpu_pack_rows(const struct tensor *t, int64_t row0, int64_t row1, const RowP *row, uint8_t *dst, size_t stride)
{
    const struct gpu_pack *pack = gpu_pack_of(t->type);
    uint8_t code_of[256];
    make_code_table(pack, type_packs[t->type].book, t->type, code_of);
    bool fits = true;
    for (int64_t i = row0; i < row1; i++) {
        const struct row_out o = {pack, row, dst + (size_t)(i - row0) * stride};
        if (pack->code > 8) pack_plain_row(&o, t, tensor_row(t, i));
        else fits &= pack_row(&o, t, tensor_row(t, i), code_of);
    }
    if (!fits) return status_set(KG_ERR_UNSUPPORTED, "tensor %s: a block has values that the device layout %s cannot hold", t->name, pack->name);
    return KG_OK;
}
