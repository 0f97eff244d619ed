/* One layout of packed weights: how a unit of 32 elements is read and what its values are. Re-included for each row of pack.def
 * with FMT, FMT_CODE, FMT_BOOK, FMT_SCALE and FMT_OFFSET set. Element 4i + b is byte b of word i. */
#define FN_JOIN(a, b) a##_##b
#define FN_PUT(a, b) FN_JOIN(a, b)
#define FN(name) FN_PUT(name, FMT)

#if FMT_CODE == 32
#define FMT_WORDS 32
#define FMT_RAW 32
#elif FMT_CODE > 8
#define FMT_WORDS 16
#define FMT_RAW 16
#else
#define FMT_WORDS 8
#define FMT_RAW FMT_CODE
#endif

/* A unit as it lies in memory: 4 bytes per bit of a code, scale and superscale. */
typedef struct {
    uint c[FMT_RAW];
    uint s, d;
} FN(Raw);

typedef struct {
    uint q[FMT_WORDS];
    float s0, s1, m0, m1; /* of elements 0-15 and 16-31 */
} FN(Unit);

/* Unit u of a row: in device memory, in shared memory. */
#define FETCH unit_fetch
#define FETCH_SPACE GLOBAL
#define FETCH_16(a) ld16_stream(a)
#define FETCH_8(a) ld8_stream(a)
#include "backend/gpu/kernels/fetch.h"
#undef FETCH
#undef FETCH_SPACE
#undef FETCH_16
#undef FETCH_8
#define FETCH unit_fetch_local
#define FETCH_SPACE LOCAL
#define FETCH_16(a) (*(a))
#define FETCH_8(a) (*(a))
#include "backend/gpu/kernels/fetch.h"

DEVFN FN(Unit) FN(unit_decode)(FN(Raw) a, RowP w)
{
    FN(Unit) r;
#if FMT_CODE >= 8
    UNROLL for (uint i = 0; i < FMT_WORDS; i++) r.q[i] = a.c[i];
#elif FMT_CODE >= 4
    UNROLL for (uint i = 0; i < 8; i++) r.q[i] = a.c[i % 4] >> (i / 4 * 4) & 0x0f0f0f0fu;
#elif FMT_CODE >= 2
    UNROLL for (uint i = 0; i < 8; i++) r.q[i] = a.c[i / 4] >> (2 * (i % 4)) & 0x03030303u;
#else
    UNROLL for (uint i = 0; i < 8; i++) r.q[i] = a.c[0] >> i & 0x01010101u;
#endif
#if FMT_CODE == 3 || FMT_CODE == 5
    UNROLL for (uint i = 0; i < 8; i++) r.q[i] |= (a.c[FMT_CODE - 1] >> i & 0x01010101u) << (FMT_CODE - 1);
#elif FMT_CODE == 6
    UNROLL for (uint i = 0; i < 8; i++) r.q[i] |= (a.c[4 + i / 4] >> (2 * (i % 4)) & 0x03030303u) << 4;
#endif
#if FMT_BOOK
    UNROLL for (uint i = 0; i < 8; i++) r.q[i] = lookup_4(r.q[i], w.book0, w.book1, w.book2, w.book3);
#endif
    (void)w;
    r.s0 = r.s1 = 1.0f;
    r.m0 = r.m1 = 0.0f;
#if FMT_SCALE == 1
    r.s0 = r.s1 = h2f((ushort)a.s);
#elif FMT_SCALE == 2
    r.s0 = r.s1 = h2f_lo(a.s);
    r.m0 = r.m1 = h2f_hi(a.s);
#elif FMT_SCALE == 3
    r.s0 = h2f_lo(a.s);
    r.s1 = h2f_hi(a.s);
#elif FMT_SCALE == 4
    r.s0 = r.s1 = bits_f32(a.s);
#elif FMT_SCALE == 5
    r.s0 = r.s1 = h2f_lo(a.d) * byte_float(a.s, 0);
    r.m0 = r.m1 = h2f_hi(a.d) * byte_float(a.s, 1);
#elif FMT_SCALE == 6
    r.s0 = bits_f32(a.d) * (byte_float(a.s ^ 0x8080u, 0) - 128.0f);
    r.s1 = bits_f32(a.d) * (byte_float(a.s ^ 0x8080u, 1) - 128.0f);
#elif FMT_SCALE == 7
    r.s0 = h2f_lo(a.d) * byte_float(a.s, 0);
    r.s1 = h2f_lo(a.d) * byte_float(a.s, 1);
    r.m0 = h2f_hi(a.d) * byte_float(a.s, 2);
    r.m1 = h2f_hi(a.d) * byte_float(a.s, 3);
#endif
    return r;
}

DEVFN FN(Unit) FN(unit_load)(GLOBAL const uchar *row, uint u, RowP w) { return FN(unit_decode)(FN(unit_fetch)(row, u, w), w); }

/* Elements 4i..4i+3; i is constant once unrolled. */
DEVFN float4 FN(unit_value)(FN(Unit) a, uint i)
{
    float4 v;
#if FMT_CODE == 32
    v.x = bits_f32(a.q[4 * i]);
    v.y = bits_f32(a.q[4 * i + 1]);
    v.z = bits_f32(a.q[4 * i + 2]);
    v.w = bits_f32(a.q[4 * i + 3]);
#elif FMT_CODE == 17
    v.x = bits_f32(a.q[2 * i] << 16);
    v.y = bits_f32(a.q[2 * i] & 0xffff0000u);
    v.z = bits_f32(a.q[2 * i + 1] << 16);
    v.w = bits_f32(a.q[2 * i + 1] & 0xffff0000u);
#elif FMT_CODE == 16
    v.x = h2f_lo(a.q[2 * i]);
    v.y = h2f_hi(a.q[2 * i]);
    v.z = h2f_lo(a.q[2 * i + 1]);
    v.w = h2f_hi(a.q[2 * i + 1]);
#else
    float s = i < 4 ? a.s0 : a.s1, m = i < 4 ? a.m0 : a.m1;
#if FMT_BOOK || FMT_CODE == 8
    uint q = a.q[i] ^ 0x80808080u; /* signed */
    v.x = s * (byte_float(q, 0) - 128.0f) - m;
    v.y = s * (byte_float(q, 1) - 128.0f) - m;
    v.z = s * (byte_float(q, 2) - 128.0f) - m;
    v.w = s * (byte_float(q, 3) - 128.0f) - m;
#else
    uint q = a.q[i];
    v.x = s * (byte_float(q, 0) - (float)FMT_OFFSET) - m;
    v.y = s * (byte_float(q, 1) - (float)FMT_OFFSET) - m;
    v.z = s * (byte_float(q, 2) - (float)FMT_OFFSET) - m;
    v.w = s * (byte_float(q, 3) - (float)FMT_OFFSET) - m;
#endif
#endif
    return v;
}

#if FMT_CODE <= 8
/* Product with int8 activations. */
DEVFN float FN(unit_dot)(FN(Unit) a, ActUnit x)
{
    int lo = dot4(a.q[0], x.q[0], dot4(a.q[1], x.q[1], dot4(a.q[2], x.q[2], dot4(a.q[3], x.q[3], ROUNDER_BITS))));
#if FMT_SCALE == 3 || FMT_SCALE >= 6
    int hi = dot4(a.q[4], x.q[4], dot4(a.q[5], x.q[5], dot4(a.q[6], x.q[6], dot4(a.q[7], x.q[7], ROUNDER_BITS))));
    float v = a.s0 * (sum_float(lo) - (float)FMT_OFFSET * x.s0) + a.s1 * (sum_float(hi) - (float)FMT_OFFSET * x.s1);
#if FMT_SCALE == 7
    v -= a.m0 * x.s0 + a.m1 * x.s1;
#endif
#else
    lo = dot4(a.q[4], x.q[4], dot4(a.q[5], x.q[5], dot4(a.q[6], x.q[6], dot4(a.q[7], x.q[7], lo))));
    float v = a.s0 * (sum_float(lo) - (float)FMT_OFFSET * (x.s0 + x.s1));
#if FMT_SCALE == 2 || FMT_SCALE == 5
    v -= a.m0 * (x.s0 + x.s1);
#endif
#endif
    return x.d * v;
}

/* Product with int8 activations whose halves have scales of their own: d, and t = d times the sum of the half. */
DEVFN float FN(unit_dot_16)(FN(Unit) a, uint4 x0, uint4 x1, float4 d)
{
    int lo = dot4(a.q[0], x0.x, dot4(a.q[1], x0.y, dot4(a.q[2], x0.z, dot4(a.q[3], x0.w, ROUNDER_BITS))));
    int hi = dot4(a.q[4], x1.x, dot4(a.q[5], x1.y, dot4(a.q[6], x1.z, dot4(a.q[7], x1.w, ROUNDER_BITS))));
    float v0 = sum_float(lo) * d.x, v1 = sum_float(hi) * d.y;
#if FMT_SCALE == 3 || FMT_SCALE >= 6
#if FMT_OFFSET
    v0 -= (float)FMT_OFFSET * d.z;
    v1 -= (float)FMT_OFFSET * d.w;
#endif
    float v = a.s0 * v0 + a.s1 * v1;
#if FMT_SCALE == 7
    v -= a.m0 * d.z + a.m1 * d.w;
#endif
#else
    float v = a.s0 * (v0 + v1);
#if FMT_OFFSET
    v -= a.s0 * (float)FMT_OFFSET * (d.z + d.w);
#elif FMT_SCALE == 2 || FMT_SCALE == 5
    v -= a.m0 * (d.z + d.w);
#endif
#endif
    return v;
}
#endif
