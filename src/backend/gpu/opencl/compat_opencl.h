/* The kernel dialect as OpenCL C 1.2. Wave operations go through local memory and a barrier of the group, as not every device has subgroups
 * of a known size: KERNEL gives each kernel a local array for them as its last argument. */
#define WAVE 32
#define GLOBAL __global
#define LOCAL __local
#define SHARED __local
#define DEVFN static inline __attribute__((always_inline))
#define PRAGMA(x) _Pragma(#x)
#define UNROLL PRAGMA(unroll)
#define UNROLL_N(n) PRAGMA(unroll n)
#define BUF(i, T, name) __global T *name
#define KERNEL(name, threads, P, ...) KERNEL_(name, threads, P, __VA_ARGS__)
#define KERNEL_(name, threads, P, ...) __kernel void name(const P p, __VA_ARGS__, __local float *wave_tmp)
#define CTX_PARAM , __local float *wave_tmp
#define CTX , wave_tmp
#define group_x ((uint)get_group_id(0))
#define group_y ((uint)get_group_id(1))
#define group_size ((uint)get_local_size(0))
#define tid ((uint)get_local_id(0))
#define lane (tid % WAVE)
#define wave (tid / WAVE)
#define BARRIER() barrier(CLK_LOCAL_MEM_FENCE)
#define BARRIER_GLOBAL() barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE)
#define WAVE_SYNC() barrier(CLK_LOCAL_MEM_FENCE)
#define START() ((void)0)
#define START_NEXT() ((void)0)
#define PLAIN_AT(w, j, u) ((j) * (w).n_units + (u))
#define TELL_HOST(to, v) (*(to) = (v)) /* not asked for */
#define PREFETCH(a) ((void)(a))
#define SKIP_UNLESS(some) /* wave operations are barriers, which had better stand in no condition */

#define expf(x) exp(x)
#define logf(x) log(x)
#define tanhf(x) tanh(x)
#define erff(x) erf(x)
#define quotient(a, b) ((a) / (b))
#define inv_sqrt(x) (1.0f / sqrt(x))
#define cos_pi(x) cospi(x)
#define sin_pi(x) sinpi(x)
#define sqrtf(x) sqrt(x)
#define fabsf(x) fabs(x)
#define fmaxf(x, y) fmax(x, y)
#define rintf(x) rint(x)

DEVFN float h2f(ushort h) { return vload_half(0, (__private const half *)&h); }
DEVFN ushort f2h(float x)
{
    ushort h;
    vstore_half_rte(x, 0, (__private half *)&h);
    return h;
}
DEVFN uint two_halves(float a, float b) { return (uint)f2h(a) | (uint)f2h(b) << 16; }
DEVFN float byte_float(uint w, uint i) { return (float)(w >> 8 * i & 255u); }
DEVFN float bits_f32(uint u) { return as_float(u); }
DEVFN uint f32_bits(float f) { return as_uint(f); }
DEVFN uint4 ld16_stream(__global const uint4 *a) { return *a; }
DEVFN uint2 ld8_stream(__global const uint2 *a) { return *a; }
DEVFN uint mul_high(uint a, uint b) { return mul_hi(a, b); }
DEVFN int dot4(uint a, uint b, int c)
{
    int4 m = convert_int4(as_char4(a)) * convert_int4(as_char4(b));
    return c + m.x + m.y + m.z + m.w;
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

/* In the order of a butterfly, so that all lanes have the same sum. No loop has a barrier in it: PoCL multiplies the code behind such a loop,
 * and with one inside another did not finish compiling. */
DEVFN float wave_sum_step(float x, uint m, __local float *wave_tmp)
{
    float other;
    barrier(CLK_LOCAL_MEM_FENCE);
    other = wave_tmp[tid ^ m];
    barrier(CLK_LOCAL_MEM_FENCE);
    wave_tmp[tid] = x + other;
    return x + other;
}
DEVFN float wave_sum_4(float x, __local float *wave_tmp)
{
    wave_tmp[tid] = x;
    x = wave_sum_step(x, 2, wave_tmp);
    x = wave_sum_step(x, 1, wave_tmp);
    barrier(CLK_LOCAL_MEM_FENCE);
    return x;
}
DEVFN float wave_sum_(float x, __local float *wave_tmp)
{
    wave_tmp[tid] = x;
    x = wave_sum_step(x, 16, wave_tmp);
    x = wave_sum_step(x, 8, wave_tmp);
    x = wave_sum_step(x, 4, wave_tmp);
    x = wave_sum_step(x, 2, wave_tmp);
    x = wave_sum_step(x, 1, wave_tmp);
    barrier(CLK_LOCAL_MEM_FENCE);
    return x;
}
DEVFN float wave_max_(float x, uint width, __local float *wave_tmp)
{
    wave_tmp[tid] = x;
    barrier(CLK_LOCAL_MEM_FENCE);
    float r = x;
    for (uint i = 0; i < width; i++) r = fmax(r, wave_tmp[tid / width * width + i]);
    barrier(CLK_LOCAL_MEM_FENCE);
    return r;
}
DEVFN float wave_xor_(float x, uint m, __local float *wave_tmp)
{
    wave_tmp[tid] = x;
    barrier(CLK_LOCAL_MEM_FENCE);
    x = wave_tmp[tid ^ m];
    barrier(CLK_LOCAL_MEM_FENCE);
    return x;
}
#define wave_sum(x) wave_sum_(x, wave_tmp)
#define wave_sum4(x) wave_sum_4(x, wave_tmp)
#define wave_max(x) wave_max_(x, WAVE, wave_tmp)
#define wave_max8(x) wave_max_(x, 8, wave_tmp)
#define wave_xor(x, m) wave_xor_(x, m, wave_tmp)

/* 16 x 16 matrix operations without matrix hardware. */
typedef struct {
    __local const ushort *p;
    uint ld;
} MatA;
typedef MatA MatB;
typedef struct {
    float v[8];
} MatC;
#define mat_zero(c) \
    for (uint z_ = 0; z_ < 8; z_++) (c).v[z_] = 0.0f
#define mat_load_a(a, at, stride) ((a).p = (at), (a).ld = (stride))
#define mat_load_b(b, at, stride) ((b).p = (at), (b).ld = (stride))
#define mat_mma(c, a, b) ((c) = mat_multiply(c, a, b, lane))
#define mat_store(at, c, ld) mat_put(at, c, ld, lane)
DEVFN MatC mat_multiply(MatC c, MatA a, MatB b, uint l)
{
    for (uint k = 0; k < 16; k++) {
        float x = h2f(a.p[l / 2 * a.ld + k]);
        UNROLL for (uint i = 0; i < 8; i++) c.v[i] += x * h2f(b.p[(l % 2 * 8 + i) * b.ld + k]);
    }
    return c;
}
DEVFN void mat_put(__local float *to, MatC c, uint ld, uint l)
{
    UNROLL for (uint i = 0; i < 8; i++) to[l / 2 * ld + l % 2 * 8 + i] = c.v[i];
}
