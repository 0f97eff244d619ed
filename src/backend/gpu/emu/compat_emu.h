/* The kernel dialect as host C, each thread of a group a fiber of simt.c. */
#ifndef GPU_COMPAT_EMU_H
#define GPU_COMPAT_EMU_H

#include "backend/gpu/emu/simt.h"
#include "base/half.h"

#include <math.h>

typedef unsigned int uint;
typedef unsigned short ushort;
typedef unsigned char uchar;
typedef struct {
    uint x, y;
} __attribute__((aligned(8))) uint2;
typedef struct {
    uint x, y, z, w;
} __attribute__((aligned(16))) uint4;
typedef struct {
    float x, y, z, w;
} __attribute__((aligned(16))) float4;

#define WAVE SIMT_WAVE
#define GLOBAL
#define LOCAL
#define SHARED static _Thread_local _Alignas(16)
#define DEVFN static inline __attribute__((unused))
#define UNROLL
#define UNROLL_N(n)
#define BUF(i, T, name) T *name
/* A kernel registers itself under its name when the program starts. */
#define KERNEL(name, threads, P, ...) KERNEL_(name, threads, P, __VA_ARGS__)
#define KERNEL_(name, threads, P, ...)                                                                          \
    static void name(const P p, __VA_ARGS__);                                                                   \
    static void name##_call(const void *params, void *const *b)                                                 \
    {                                                                                                           \
        P p;                                                                                                    \
        memcpy(&p, params, sizeof p);                                                                           \
        name(p, EMU_ARGS(__VA_ARGS__));                                                                         \
    }                                                                                                           \
    static struct simt_kernel name##_entry = {#name, name##_call, threads, sizeof(P), EMU_COUNT(__VA_ARGS__), NULL}; \
    __attribute__((constructor)) static void name##_register(void) { simt_register(&name##_entry); }            \
    static void name(const P p, __VA_ARGS__)
/* At the end of a module: what a link of an archive takes the module in by. */
#define EMU_MODULE(name) \
    extern const char emu_module_##name; \
    const char emu_module_##name = 1;
#define EMU_PICK(a, b, c, d, e, f, g, h, i, j, k, l, m, n, ...) n
#define EMU_COUNT(...) EMU_PICK(__VA_ARGS__, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0)
#define EMU_ARGS(...) EMU_PICK(__VA_ARGS__, EMU_13, EMU_12, EMU_11, EMU_10, EMU_9, EMU_8, EMU_7, EMU_6, EMU_5, EMU_4, EMU_3, EMU_2, EMU_1, 0)
#define EMU_1 b[0]
#define EMU_2 EMU_1, b[1]
#define EMU_3 EMU_2, b[2]
#define EMU_4 EMU_3, b[3]
#define EMU_5 EMU_4, b[4]
#define EMU_6 EMU_5, b[5]
#define EMU_7 EMU_6, b[6]
#define EMU_8 EMU_7, b[7]
#define EMU_9 EMU_8, b[8]
#define EMU_10 EMU_9, b[9]
#define EMU_11 EMU_10, b[10]
#define EMU_12 EMU_11, b[11]
#define EMU_13 EMU_12, b[12]

#define CTX_PARAM
#define CTX
#define group_x (simt->group[0])
#define group_y (simt->group[1])
#define group_size (simt->size)
#define tid (simt->id)
#define lane (simt->id % WAVE)
#define wave (simt->id / WAVE)
#define BARRIER() simt_barrier(__LINE__)
#define BARRIER_GLOBAL() simt_barrier(__LINE__)
#define WAVE_SYNC() simt_wave_barrier(__LINE__)
#define START() ((void)0)
#define START_NEXT() ((void)0)
#define PLAIN_AT(w, j, u) ((w).off_s * (j) + (w).off_b * (u))
#define START_WITH(meet) ((void)(meet))
#define TELL(meet) ((void)(meet))
#define TELL_HOST(to, v) __atomic_store_n(to, v, __ATOMIC_RELEASE)
#define PREFETCH(a) ((void)(a))
#define SKIP_UNLESS(some) if (some)
/* Copies that run beside everything else are done at once; all lanes wait for them. */
#define SHARED_MOST(name, bytes) uchar *const name = simt_room(bytes)
typedef uint StreamBar;
#define stream_init(bar) (*(bar) = 0)
#define stream_ready() ((void)0)
#define stream_copy(to, from, bytes, bar) (memcpy(to, from, bytes), ++*(bar))
typedef StreamBar *StreamAt;
#define stream_at(bars) (bars)
#define stream_wait(bars, k, parity) ((void)(bars), (void)(k), (void)(parity), WAVE_SYNC())
#define KEEP(x) ((void)0)
#define kept_local(p) ((uchar *)(p))
#define wave_sum16(x) simt_sum(x, 16, __LINE__)
#define wave_sum(x) simt_sum(x, WAVE, __LINE__)
#define wave_sum4(x) simt_sum(x, 4, __LINE__)
#define wave_max(x) simt_max(x, WAVE, __LINE__)
#define wave_max8(x) simt_max(x, 8, __LINE__)
#define wave_most16(x) simt_max(x, 16, __LINE__)
#define wave_count16(x) simt_sum((float)(x), 16, __LINE__)
#define wave_xor(x, m) simt_xor(x, m, __LINE__) /* what lane ^ m gives */

DEVFN float h2f(ushort h) { return f32_from_f16(h); }
DEVFN ushort f2h(float x) { return f16_from_f32(x); }
DEVFN uint two_halves(float a, float b) { return (uint)f2h(a) | (uint)f2h(b) << 16; }
DEVFN float byte_float(uint w, uint i) { return (float)(w >> 8 * i & 255u); }
DEVFN float bits_f32(uint u) { return f32_from_bits(u); }
DEVFN uint4 ld16_stream(const uint4 *a) { return *a; }
DEVFN uint2 ld8_stream(const uint2 *a) { return *a; }
DEVFN float quotient(float a, float b) { return a / b; }
DEVFN float inv_sqrt(float x) { return 1.0f / sqrtf(x); }
DEVFN float power_of_2(float x) { return exp2f(x); }
DEVFN float cos_pi(float x) { return cosf(x * 3.14159265358979f); }
DEVFN float sin_pi(float x) { return sinf(x * 3.14159265358979f); }
DEVFN uint mul_high(uint a, uint b) { return (uint)((uint64_t)a * b >> 32); }
DEVFN int dot4(uint a, uint b, int c)
{
    for (int i = 0; i < 32; i += 8) c += (int8_t)(a >> i) * (int8_t)(b >> i);
    return c;
}
/* Each byte of q, 0 to 15, selects one of 16 bytes. */
DEVFN uint lookup_4(uint q, uint b0, uint b1, uint b2, uint b3)
{
    const uint book[4] = {b0, b1, b2, b3};
    uint r = 0;
    for (int i = 0; i < 32; i += 8) r |= (book[q >> i >> 2 & 3] >> 8 * (q >> i & 3) & 255u) << i;
    return r;
}

/* 16 x 16 matrix operations: operands stay in memory until they are multiplied; a lane has 8 elements of the result. What other devices keep in
 * registers lies in `kept`, a slot for each. */
typedef struct {
    const ushort *p;
    uint ld, by_k; /* B: rows of k */
} MatA, MatB;
typedef struct {
    float v[8];
} MatC;
static __attribute__((unused)) _Thread_local ushort mat_kept[SIMT_GROUP_MOST / WAVE][10][16 * 16];
#define MAT_ROW(i) (lane / 4 + (i) / 2 % 2 * 8)
#define MAT_COL(i) (lane % 4 * 2 + (i) % 2 + (i) / 4 * 8)
#define mat_zero(c) \
    for (int z_ = 0; z_ < 8; z_++) (c).v[z_] = 0
#define mat_load_a(a, at, stride) ((a).p = (at), (a).ld = (stride))
#define mat_load_b(b, at, stride) ((b).p = (at), (b).ld = (stride), (b).by_k = 0)
#define mat_load_bt(b, at, stride) ((b).p = (at), (b).ld = (stride), (b).by_k = 1)
#define mat_keep_a(a, at, ld, slot) ((a) = mat_keep(at, ld, slot))
#define mat_a_of(a, c, slot) ((a) = mat_a_from(c, slot))
#define mat_mma(c, a, b) ((c) = mat_multiply(c, a, b))
#define mat_store(at, c, ld) mat_put(at, c, ld)
/* 8 x 16 times 16 x 8 halves: of its row lane / 4 a lane gives columns {2c, 2c + 1} and {2c + 8, 2c + 9}, c = lane % 4, of its column lane / 4 the same rows, and has columns 2c and 2c + 1 of the result. */
#define mat_rows8(c, a0, a1, b0, b1) simt_rows8(c, a0, a1, b0, b1, __LINE__)
DEVFN MatC mat_multiply(MatC c, MatA a, MatB b)
{
    for (uint i = 0; i < 8; i++) {
        uint r = MAT_ROW(i), n = MAT_COL(i);
        for (uint k = 0; k < 16; k++) c.v[i] += h2f(a.p[r * a.ld + k]) * h2f(b.p[b.by_k ? k * b.ld + n : n * b.ld + k]);
    }
    return c;
}
DEVFN void mat_put(float *to, MatC c, uint ld)
{
    for (uint i = 0; i < 8; i++) to[MAT_ROW(i) * ld + MAT_COL(i)] = c.v[i];
}
DEVFN MatA mat_keep(const ushort *at, uint ld, uint slot)
{
    ushort *to = mat_kept[wave][slot];
    for (uint i = 0; i < 8; i++) to[MAT_ROW(i) * 16 + MAT_COL(i)] = at[MAT_ROW(i) * ld + MAT_COL(i)];
    WAVE_SYNC();
    return (MatA){.p = to, .ld = 16};
}
DEVFN MatA mat_a_from(MatC c, uint slot)
{
    ushort *to = mat_kept[wave][slot];
    WAVE_SYNC(); /* what was there is multiplied */
    for (uint i = 0; i < 8; i++) to[MAT_ROW(i) * 16 + MAT_COL(i)] = f2h(c.v[i]);
    WAVE_SYNC();
    return (MatA){.p = to, .ld = 16};
}

#endif
