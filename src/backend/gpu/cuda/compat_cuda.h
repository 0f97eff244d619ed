/* The kernel dialect as CUDA C, for nvcc and NVRTC: no header of CUDA is needed. Matrix operations are mma.sync (sm_80 and newer). */
typedef unsigned int uint;
typedef unsigned short ushort;
typedef unsigned char uchar;

#define WAVE 32
#define GLOBAL
#define LOCAL
#define SHARED __shared__ __align__(16)
#define DEVFN static __device__ __forceinline__
#define PRAGMA(x) _Pragma(#x)
#define UNROLL PRAGMA(unroll)
#define UNROLL_N(n) PRAGMA(unroll n)
#define BUF(i, T, name) T *name
#define KERNEL(name, threads, P, ...) KERNEL_(name, threads, P, __VA_ARGS__)
#define KERNEL_(name, threads, P, ...) extern "C" __global__ void __launch_bounds__(threads, (threads) >= 256 ? ((threads) >= 512 ? 1024 / (threads) : 2) : 1) name(const P p, __VA_ARGS__)
#define CTX_PARAM
#define CTX
#define group_x blockIdx.x
#define group_y blockIdx.y
#define group_size blockDim.x
#define tid threadIdx.x
#define lane (threadIdx.x % 32u)
#define wave (threadIdx.x / 32u)
#define BARRIER() __syncthreads()
#define BARRIER_GLOBAL() __syncthreads()
#define WAVE_SYNC() __syncwarp()

/* Programmatic dependent launch: START_NEXT lets the next kernel start, START waits for all of the one before too. Only weights are touched above it,
 * and only they are read through the read-only path: what an earlier kernel wrote must not come from there. */
#if __CUDA_ARCH__ >= 900
#define START() asm volatile("griddepcontrol.launch_dependents; griddepcontrol.wait;" ::: "memory")
#define START_NEXT() asm volatile("griddepcontrol.launch_dependents;" ::: "memory")
#else
#define START() ((void)0)
#define START_NEXT() ((void)0)
#endif
#define PLAIN_AT(w, j, u) ((j) * (w).n_units + (u))
/* meet[0] counts the launches that have told that they started, meet[1 + group] those that each group of the other kernel has joined. */
#define TELL(meet)                                                                                        \
    do                                                                                                    \
        if (group_x == 0 && tid == 0) {                                                                   \
            uint told_;                                                                                   \
            asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(told_) : "l"(meet) : "memory");     \
            asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(meet), "r"(told_ + 1) : "memory");   \
        }                                                                                                 \
    while (0)
#define START_WITH(meet)                                                                                  \
    do {                                                                                                  \
        if (tid == 0) {                                                                                   \
            uint told_, want_ = (meet)[1 + group_x] + 1;                                                  \
            do asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(told_) : "l"(meet) : "memory");  \
            while (told_ != want_);                                                                       \
            (meet)[1 + group_x] = want_;                                                                  \
        }                                                                                                 \
        BARRIER();                                                                                        \
    } while (0)
/* Everything that this thread has written is there for the host before *to is. */
#define TELL_HOST(to, v) asm volatile("fence.acq_rel.sys; st.relaxed.sys.global.u32 [%0], %1;" ::"l"(to), "r"(v) : "memory")
#define PREFETCH(a) asm volatile("prefetch.global.L2 [%0];" ::"l"(a))
#define SKIP_UNLESS(some) if (some)

/* Copies from global to shared memory that run beside everything else (sm_90): a barrier counts the bytes that have come. */
#define SHARED_MOST(name, bytes) extern __shared__ __align__(128) uchar name[] /* the launch gives them */
typedef unsigned long long StreamBar;
typedef uint StreamAt;
DEVFN uint shared_address(const void *p) { return (uint)__cvta_generic_to_shared(p); }
DEVFN StreamAt stream_at(StreamBar *bars) { return shared_address(bars); }
/* What is computed above START() stays in a register, instead of being computed again below, where everybody waits for it. */
#define KEEP(x) asm volatile("" : "+r"(x))
DEVFN uchar *kept_local(const void *p)
{
    uint at = shared_address(p);
    KEEP(at);
    return (uchar *)__cvta_shared_to_generic(at);
}
#if __CUDA_ARCH__ >= 900
DEVFN void stream_init(StreamBar *bar) { asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(bar)) : "memory"); }
DEVFN void stream_ready() { asm volatile("fence.mbarrier_init.release.cluster; fence.proxy.async.shared::cta;" ::: "memory"); }
DEVFN void stream_copy(void *to, const uchar *from, uint bytes, StreamBar *bar)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(bar)), "r"(bytes) : "memory");
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(shared_address(to)), "l"(from), "r"(bytes),
                 "r"(shared_address(bar))
                 : "memory");
}
DEVFN void stream_wait(StreamAt bars, uint k, uint parity)
{
    asm volatile("{ .reg .pred p; again: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1; @!p bra again; }" ::"r"(bars + 8 * k), "r"(parity) : "memory");
}
#else /* the engine does not ask for these kernels */
DEVFN void stream_init(StreamBar *) {}
DEVFN void stream_ready() {}
DEVFN void stream_copy(void *, const uchar *, uint, StreamBar *) {}
DEVFN void stream_wait(StreamAt, uint, uint) {}
#endif

DEVFN float h2f(ushort h)
{
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
    return f;
}
DEVFN ushort f2h(float x)
{
    ushort h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(x));
    return h;
}
DEVFN uint two_halves(float a, float b)
{
    uint w;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(w) : "f"(b), "f"(a));
    return w;
}
/* Byte i of w, as the low bits of 2^23: conversions from integers are slow. */
DEVFN float byte_float(uint w, uint i) { return __uint_as_float(__byte_perm(w, 0x4b000000u, 0x7540u | i)) - 8388608.0f; }
DEVFN float bits_f32(uint u) { return __uint_as_float(u); }
DEVFN uint f32_bits(float f) { return __float_as_uint(f); }
DEVFN float quotient(float a, float b) { return __fdividef(a, b); } /* to two ulp */
DEVFN float inv_sqrt(float x) { return rsqrtf(x); }
DEVFN float power_of_2(float x) /* to two ulp; below 2^-126 it is 0 */
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
DEVFN float cos_pi(float x) { return cospif(x); }
DEVFN float sin_pi(float x) { return sinpif(x); }
DEVFN uint mul_high(uint a, uint b) { return __umulhi(a, b); }
DEVFN int dot4(uint a, uint b, int c) { return __dp4a((int)a, (int)b, c); }

/* Weights are read once: they need no place in L1. Volatile, so that loads above START() stay there. */
DEVFN uint4 ld16_stream(const uint4 *a)
{
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(a));
    return v;
}
DEVFN uint2 ld8_stream(const uint2 *a)
{
    uint2 v;
    asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(a));
    return v;
}

/* Byte permutation looks four up in eight bytes at a time: low three bits in either half, then the fourth bit chooses. */
DEVFN uint lookup_4(uint q, uint b0, uint b1, uint b2, uint b3)
{
    uint t = q & 0x07070707u, select, low, high, mask = (q >> 3 & 0x01010101u) * 255u;
    t |= t >> 4;
    select = (t & 255u) | (t >> 8 & 0xff00u);
    low = __byte_perm(b0, b1, select);
    high = __byte_perm(b2, b3, select);
    return (high & mask) | (low & ~mask);
}

DEVFN float wave_sum(float x)
{
    UNROLL for (int m = 16; m; m >>= 1) x += __shfl_xor_sync(~0u, x, m);
    return x;
}
DEVFN float wave_sum4(float x)
{
    UNROLL for (int m = 2; m; m >>= 1) x += __shfl_xor_sync(~0u, x, m);
    return x;
}
DEVFN float wave_sum16(float x)
{
    UNROLL for (int m = 8; m; m >>= 1) x += __shfl_xor_sync(~0u, x, m);
    return x;
}
DEVFN float wave_max(float x)
{
    UNROLL for (int m = 16; m; m >>= 1) x = fmaxf(x, __shfl_xor_sync(~0u, x, m));
    return x;
}
DEVFN float wave_max8(float x)
{
    UNROLL for (int m = 4; m; m >>= 1) x = fmaxf(x, __shfl_xor_sync(~0u, x, m));
    return x;
}

/* The largest of sixteen lanes, none of which is negative; the sum of sixteen small integers. */
#define HALF_WAVE (0xffffu << (lane & 16))
DEVFN float wave_most16(float x) { return __uint_as_float(__reduce_max_sync(HALF_WAVE, __float_as_uint(x))); }
DEVFN float wave_count16(int x) { return (float)__reduce_add_sync(HALF_WAVE, x); }

DEVFN float wave_xor(float x, uint m) { return __shfl_xor_sync(~0u, x, m); }

/* 16 x 16 matrix operations: A [16][ld] by rows, B [16][ld] transposed, in shared memory; the sum in two halves of 16 x 8. */
typedef struct {
    uint r[4];
} MatA;
typedef MatA MatB;
typedef struct {
    float v[8];
} MatC;
DEVFN MatA mat_load(const ushort *p, uint ld, uint row, uint col)
{
    MatA a;
    uint at = (uint)__cvta_generic_to_shared(p + row * ld + col);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(a.r[0]), "=r"(a.r[1]), "=r"(a.r[2]), "=r"(a.r[3])
                 : "r"(at)
                 : "memory");
    return a;
}
DEVFN MatB mat_load_trans(const ushort *p, uint ld)
{
    MatB b;
    uint at = (uint)__cvta_generic_to_shared(p + lane % 16 * ld + lane / 16 * 8);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(b.r[0]), "=r"(b.r[1]), "=r"(b.r[2]), "=r"(b.r[3])
                 : "r"(at)
                 : "memory");
    return b;
}
DEVFN MatA mat_a_from(const MatC c)
{
    MatA a;
    UNROLL for (int i = 0; i < 4; i++) a.r[i] = two_halves(c.v[2 * i], c.v[2 * i + 1]);
    return a;
}
DEVFN void mat_half(float *c, const MatA a, uint b0, uint b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a.r[0]), "r"(a.r[1]), "r"(a.r[2]), "r"(a.r[3]), "r"(b0), "r"(b1));
}
/* 8 x 16 times 16 x 8: rows 8 to 15 of the operation are zeros. A lane has row (column) lane / 4, elements {2c, 2c + 1} and {2c + 8, 2c + 9}, c = lane % 4, and columns 2c, 2c + 1 of the result. */
DEVFN void mat_rows8(float *c, uint a0, uint a1, uint b0, uint b1)
{
    float rest0, rest1;
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %5}, {%7, %8}, {%0, %1, %9, %9};"
                 : "+f"(c[0]), "+f"(c[1]), "=f"(rest0), "=f"(rest1)
                 : "r"(a0), "r"(0u), "r"(a1), "r"(b0), "r"(b1), "f"(0.0f));
}
DEVFN void mat_put(float *to, const MatC c, uint ld)
{
    float *at = to + (lane / 4) * ld + lane % 4 * 2;
    UNROLL for (int h = 0; h < 2; h++)
    {
        at[8 * h] = c.v[4 * h];
        at[8 * h + 1] = c.v[4 * h + 1];
        at[8 * ld + 8 * h] = c.v[4 * h + 2];
        at[8 * ld + 8 * h + 1] = c.v[4 * h + 3];
    }
}
#define MAT_ROW(i) (lane / 4 + (i) / 2 % 2 * 8)
#define MAT_COL(i) (lane % 4 * 2 + (i) % 2 + (i) / 4 * 8)
#define mat_zero(c) \
    for (int z_ = 0; z_ < 8; z_++) (c).v[z_] = 0.0f
#define mat_load_a(a, p, ld) ((a) = mat_load(p, ld, lane % 16, lane / 16 * 8))
#define mat_load_b(b, p, ld) ((b) = mat_load(p, ld, lane % 8 + lane / 16 * 8, lane / 8 % 2 * 8))
#define mat_load_bt(b, p, ld) ((b) = mat_load_trans(p, ld)) /* of B by rows */
#define mat_keep_a(a, p, ld, slot) mat_load_a(a, p, ld)
#define mat_a_of(a, c, slot) ((a) = mat_a_from(c))
#define mat_mma(c, a, b) (mat_half((c).v, a, (b).r[0], (b).r[1]), mat_half((c).v + 4, a, (b).r[2], (b).r[3]))
#define mat_store(p, c, ld) mat_put(p, c, ld)
