/* The kernel dialect as Metal Shading Language 3 for GPUs of Apple's family 7 (M1, A14) and newer: waves of 32, 8 x 8 matrix operations. */
#include <metal_stdlib>
#include <metal_simdgroup_matrix>
using namespace metal;

#define WAVE 32
#define GLOBAL device
#define LOCAL threadgroup
#ifndef SHARED /* tests, which run this text on the processor, have another word for arrays of a group than for pointers to them */
#define SHARED threadgroup
#endif
#define DEVFN static inline __attribute__((always_inline))
#define PRAGMA(x) _Pragma(#x)
#define UNROLL PRAGMA(clang loop unroll(full))
#define UNROLL_N(n) PRAGMA(clang loop unroll_count(n))
#define BUF(i, T, name) device T *name [[buffer(i)]]
#define KERNEL(name, threads, P, ...) KERNEL_(name, threads, P, __VA_ARGS__)
#define KERNEL_(name, threads, P, ...)                                                                                                \
    [[kernel, max_total_threads_per_threadgroup(threads)]] void name(                                                                 \
        constant P &p [[buffer(0)]], __VA_ARGS__, uint3 group_ [[threadgroup_position_in_grid]], uint3 size_ [[threads_per_threadgroup]], \
        uint tid [[thread_index_in_threadgroup]], uint lane [[thread_index_in_simdgroup]], uint wave [[simdgroup_index_in_threadgroup]])
#define CTX_PARAM , uint3 size_, uint tid, uint lane, uint wave
#define CTX , size_, tid, lane, wave
#define group_x group_.x
#define group_y group_.y
#define group_size size_.x
#define BARRIER() threadgroup_barrier(mem_flags::mem_threadgroup)
#define BARRIER_GLOBAL() threadgroup_barrier(mem_flags::mem_device | mem_flags::mem_threadgroup)
#define WAVE_SYNC() simdgroup_barrier(mem_flags::mem_threadgroup)
#define START() ((void)0)
#define START_NEXT() ((void)0)
#define PLAIN_AT(w, j, u) ((w).off_s * (j) + (w).off_b * (u))
#define TELL_HOST(to, v) (*(to) = (v)) /* not asked for */
#define PREFETCH(a) ((void)0)
#define SKIP_UNLESS(some) if (some)

#define expf(x) exp(x)
#define logf(x) log(x)
#define tanhf(x) tanh(x)
#define erff(x) error_function(x)
#define quotient(a, b) ((a) / (b))
#define inv_sqrt(x) (1.0f / sqrt(x))
#define cos_pi(x) cospi(x)
#define sin_pi(x) sinpi(x)
#define sqrtf(x) sqrt(x)
#define fabsf(x) fabs(x)
#define fmaxf(x, y) fmax(x, y)
#define rintf(x) rint(x)

/* Metal has none. Two polynomials, of erf(x) / x in x * x below 1 and of log(1 - erf(x)) up to 4: off by at most 1.5e-7. */
DEVFN float error_function(float x)
{
    float a = fabs(x), b = a < 4.0f ? a : 4.0f, z = x * x, near, far;
    near = -9.673590e-6f * z + 1.12682525e-4f;
    near = near * z - 8.4843964e-4f;
    near = near * z + 5.2210535e-3f;
    near = near * z - 2.6865438e-2f;
    near = near * z + 0.11283783f;
    near = near * z - 0.37612638f;
    near = (near * z + 1.1283792f) * x;
    far = -6.5828580e-8f * b + 3.0952046e-6f;
    far = far * b - 6.0068796e-5f;
    far = far * b + 6.7333755e-4f;
    far = far * b - 5.0210445e-3f;
    far = far * b + 2.6999498e-2f;
    far = far * b - 0.11090742f;
    far = far * b - 0.63108885f;
    far = far * b - 1.1306045f;
    far = 1.0f - exp(far * b + 4.0050049e-4f);
    return a < 1.0f ? near : x < 0.0f ? -far : far;
}

DEVFN float h2f(ushort h) { return float(as_type<half>(h)); }
DEVFN ushort f2h(float x) { return as_type<ushort>(half(x)); }
DEVFN uint two_halves(float a, float b) { return uint(f2h(a)) | uint(f2h(b)) << 16; }
DEVFN float byte_float(uint w, uint i) { return float(w >> 8 * i & 255u); }
DEVFN float bits_f32(uint u) { return as_type<float>(u); }
DEVFN uint f32_bits(float f) { return as_type<uint>(f); }
DEVFN uint4 ld16_stream(device const uint4 *a) { return *a; }
DEVFN uint2 ld8_stream(device const uint2 *a) { return *a; }
DEVFN uint mul_high(uint a, uint b) { return mulhi(a, b); }
DEVFN int dot4(uint a, uint b, int c)
{
    char4 x = as_type<char4>(a), y = as_type<char4>(b);
    return c + int(x.x) * int(y.x) + int(x.y) * int(y.y) + int(x.z) * int(y.z) + int(x.w) * int(y.w);
}
DEVFN uint lookup_1(uint i, uint b0, uint b1, uint b2, uint b3)
{
    uint w = i < 8 ? (i < 4 ? b0 : b1) : (i < 12 ? b2 : b3);
    return w >> (8 * (i & 3)) & 255u;
}
DEVFN uint lookup_4(uint q, uint b0, uint b1, uint b2, uint b3)
{
    return lookup_1(q & 15u, b0, b1, b2, b3) | lookup_1(q >> 8 & 15u, b0, b1, b2, b3) << 8 | lookup_1(q >> 16 & 15u, b0, b1, b2, b3) << 16 |
           lookup_1(q >> 24 & 15u, b0, b1, b2, b3) << 24;
}

/* Butterflies, not simd_sum: the order of a sum is then known, and the same on every device. */
DEVFN float wave_xor(float x, uint m) { return simd_shuffle_xor(x, ushort(m)); }
DEVFN float wave_sum4(float x)
{
    x += simd_shuffle_xor(x, ushort(2));
    return x + simd_shuffle_xor(x, ushort(1));
}
DEVFN float wave_sum(float x)
{
    x += simd_shuffle_xor(x, ushort(16));
    x += simd_shuffle_xor(x, ushort(8));
    x += simd_shuffle_xor(x, ushort(4));
    return wave_sum4(x);
}
DEVFN float wave_max(float x) { return simd_max(x); }
DEVFN float wave_max8(float x)
{
    x = fmax(x, simd_shuffle_xor(x, ushort(4)));
    x = fmax(x, simd_shuffle_xor(x, ushort(2)));
    return fmax(x, simd_shuffle_xor(x, ushort(1)));
}

/* 16 x 16 matrix operations from 8 x 8 ones: A [16][ld] by rows, B [16][ld] transposed. */
struct MatA {
    simdgroup_half8x8 m[4];
};
struct MatB {
    simdgroup_half8x8 m[4];
};
struct MatC {
    simdgroup_float8x8 m[4];
};
#define MAT_AT(p, i, ld) ((p) + (i) / 2 * 8 * (ld) + (i) % 2 * 8)
#define mat_zero(c) UNROLL for (uint i_ = 0; i_ < 4; i_++)(c).m[i_] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f)
#define mat_load_a(a, p, ld) UNROLL for (uint i_ = 0; i_ < 4; i_++) simdgroup_load((a).m[i_], (threadgroup const half *)MAT_AT(p, i_, ld), ld)
#define mat_load_b(b, p, ld) \
    UNROLL for (uint i_ = 0; i_ < 4; i_++) simdgroup_load((b).m[i_], (threadgroup const half *)MAT_AT(p, i_, ld), ld, ulong2(0, 0), true)
#define mat_store(p, c, ld) UNROLL for (uint i_ = 0; i_ < 4; i_++) simdgroup_store((c).m[i_], MAT_AT(p, i_, ld), ld)
#define mat_mma(c, a, b)                                                                                           \
    UNROLL for (uint i_ = 0; i_ < 4; i_++)                                                                         \
    {                                                                                                              \
        simdgroup_multiply_accumulate((c).m[i_], (a).m[i_ / 2 * 2], (b).m[i_ % 2 * 2], (c).m[i_]);                 \
        simdgroup_multiply_accumulate((c).m[i_], (a).m[i_ / 2 * 2 + 1], (b).m[i_ % 2 * 2 + 1], (c).m[i_]);         \
    }
