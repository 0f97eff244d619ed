/* What the kernels share: sums over a group, bit casts, activation functions, norms, rounding to int8.
 *
 * The dialect. One text is CUDA C, OpenCL C, Metal or host C, by a header compat_*.h in each device's folder:
 *   - every pointer is GLOBAL or LOCAL; there are none to private memory;
 *   - KERNEL(name, most threads, parameter block, BUF(i, type, name)...), groups of one dimension, a multiple of WAVE threads;
 *   - SHARED arrays at kernel scope, at most 32 KB; functions are DEVFN and get LOCAL pointers; one that uses tid, lane, wave or a
 *     wave operation takes CTX_PARAM and is called with CTX;
 *   - BARRIER() (BARRIER_GLOBAL() where global memory written before it is read behind it) and wave operations (wave_sum, wave_max, wave_max8, wave_sum4, wave_xor ...) in flow that is the same for the whole group;
 *   - SKIP_UNLESS(some) where skipping a part with such operations only saves time: a device may go through it all the same;
 *   - vectors only to load, to store and for .x .y .z .w; private arrays only with indices that are constant once unrolled;
 *   - f16 is a ushort in memory, h2f and f2h convert; START() comes before the first touch of what an earlier launch has written. */

DEVFN uint4 eight_halves(float4 lo, float4 hi)
{
    uint4 h;
    h.x = two_halves(lo.x, lo.y);
    h.y = two_halves(lo.z, lo.w);
    h.z = two_halves(hi.x, hi.y);
    h.w = two_halves(hi.z, hi.w);
    return h;
}

DEVFN float group_sum(LOCAL float *tmp, float x CTX_PARAM)
{
    float s = wave_sum(x), r = 0.0f;
    BARRIER(); /* tmp may still be in use */
    if (lane == 0) tmp[wave] = s;
    BARRIER();
    for (uint i = 0; i < group_size / WAVE; i++) r += tmp[i];
    return r;
}

DEVFN float group_max(LOCAL float *tmp, float x CTX_PARAM)
{
    float s = wave_max(x), r;
    BARRIER();
    if (lane == 0) tmp[wave] = s;
    BARRIER();
    r = tmp[0];
    for (uint i = 1; i < group_size / WAVE; i++) r = fmaxf(r, tmp[i]);
    return r;
}

DEVFN float dot_4(float4 a, float4 b) { return a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w; }
DEVFN float h2f_lo(uint w) { return h2f((ushort)(w & 0xffffu)); }
DEVFN float h2f_hi(uint w) { return h2f((ushort)(w >> 16)); }
DEVFN int byte_signed(uint w, uint i) { return (int)(w << (24 - 8 * i)) >> 24; }

/* enum activation of model/program.h */
DEVFN float activate(uint f, float x)
{
    if (f == 0) return x / (1.0f + expf(-x));
    if (f == 1) return 0.5f * x * (1.0f + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)));
    if (f == 2) return 0.5f * x * (1.0f + erff(x * 0.7071067811865476f));
    if (f == 4) return x < 0.0f ? 0.0f : x * x;
    if (f == 5) return 1.0f / (1.0f + expf(-x));
    if (f == 6) return tanhf(x);
    return x < 0.0f ? 0.0f : x;
}

DEVFN float activate_glu(uint f, float x, float up)
{
    if (f != 7) return activate(f, x) * up;
    x = x > 7.0f ? 7.0f : x;
    up = up > 7.0f ? 7.0f : up < -7.0f ? -7.0f : up;
    return x / (1.0f + expf(-1.702f * x)) * (up + 1.0f);
}

typedef struct {
    float mean, inv;
} Norm;

typedef struct {
    float4 v[PRE];
} Pieces;

/* Pieces (set * PRE + i) * group_size + tid of a row of n pieces; zeros beyond. */
DEVFN Pieces fetch_pieces(GLOBAL const float *x, uint n, uint set CTX_PARAM)
{
    Pieces r;
    UNROLL for (uint i = 0; i < PRE; i++)
    {
        uint at = (set * PRE + i) * group_size + tid;
        r.v[i].x = r.v[i].y = r.v[i].z = r.v[i].w = 0.0f;
        if (at < n) r.v[i] = ((GLOBAL const float4 *)x)[at];
    }
    return r;
}

DEVFN float squares(float4 v, float mean, uint left) /* of the first `left` elements */
{
    float a = v.x - mean, b = v.y - mean, c = v.z - mean, d = v.w - mean;
    return (left > 0 ? a * a : 0.0f) + (left > 1 ? b * b : 0.0f) + (left > 2 ? c * c : 0.0f) + (left > 3 ? d * d : 0.0f);
}

/* Mean and 1 / deviation of a row of n elements in n_pieces pieces, zeros beyond n; `first` is set 0, already there. */
DEVFN Norm pieces_norm(GLOBAL const float *x, Pieces first, uint n, uint n_pieces, uint kind, float eps, LOCAL float *tmp CTX_PARAM)
{
    Norm r;
    float s = 0.0f;
    uint n_sets = (n_pieces + PRE * group_size - 1) / (PRE * group_size);
    r.mean = 0.0f;
    r.inv = 1.0f;
    if (kind == NORM_NONE) return r;
    if (kind == NORM_LAYER) {
        UNROLL_N(1) for (uint set = 0; set < n_sets; set++)
        {
            Pieces a = set == 0 ? first : fetch_pieces(x, n_pieces, set CTX);
            UNROLL for (uint i = 0; i < PRE; i++) s += a.v[i].x + a.v[i].y + a.v[i].z + a.v[i].w;
        }
        r.mean = quotient(group_sum(tmp, s CTX), (float)n);
        s = 0.0f;
    }
    UNROLL_N(1) for (uint set = 0; set < n_sets; set++)
    {
        Pieces a = set == 0 ? first : fetch_pieces(x, n_pieces, set CTX);
        UNROLL for (uint i = 0; i < PRE; i++)
        {
            uint at = 4 * ((set * PRE + i) * group_size + tid);
            s += squares(a.v[i], r.mean, at < n ? n - at : 0);
        }
    }
    r.inv = inv_sqrt(quotient(group_sum(tmp, s CTX), (float)n) + eps);
    return r;
}

DEVFN float4 norm_piece(float4 v, float4 w, float4 b, Norm r)
{
    v.x = (v.x - r.mean) * r.inv * w.x + b.x;
    v.y = (v.y - r.mean) * r.inv * w.y + b.y;
    v.z = (v.z - r.mean) * r.inv * w.z + b.z;
    v.w = (v.w - r.mean) * r.inv * w.w + b.w;
    return v;
}

/* Mean and 1 / deviation of x[0..n) */
DEVFN Norm row_norm(GLOBAL const float *x, uint n, uint kind, float eps, LOCAL float *tmp CTX_PARAM)
{
    Norm r;
    float s = 0.0f;
    r.mean = 0.0f;
    r.inv = 1.0f;
    if (kind == NORM_NONE) return r;
    if (kind == NORM_LAYER) {
        for (uint i = tid; i < n; i += group_size) s += x[i];
        r.mean = quotient(group_sum(tmp, s CTX), (float)n);
        s = 0.0f;
    }
    UNROLL_N(4) for (uint i = tid; i < n; i += group_size)
    {
        float d = x[i] - r.mean;
        s += d * d;
    }
    r.inv = inv_sqrt(quotient(group_sum(tmp, s CTX), (float)n) + eps);
    return r;
}

/* Elements 4i..4i+3 of x, normed. */
DEVFN float4 normed_4(GLOBAL const float *x, GLOBAL const float *w, GLOBAL const float *b, uint i, uint kind, uint has_b, Norm r)
{
    float4 v = ((GLOBAL const float4 *)x)[i];
    if (kind != NORM_NONE) {
        float4 a = ((GLOBAL const float4 *)w)[i];
        v.x = (v.x - r.mean) * r.inv * a.x;
        v.y = (v.y - r.mean) * r.inv * a.y;
        v.z = (v.z - r.mean) * r.inv * a.z;
        v.w = (v.w - r.mean) * r.inv * a.w;
        if (has_b) {
            a = ((GLOBAL const float4 *)b)[i];
            v.x += a.x;
            v.y += a.y;
            v.z += a.z;
            v.w += a.w;
        }
    }
    return v;
}

/* A unit of 32 activations as int8: x = d * q; s0, s1 sum the q of each half. */
typedef struct {
    uint q[8];
    float d, s0, s1;
} ActUnit;

typedef struct {
    uint q; /* four of them */
    float d, sum; /* sum: of this lane's half unit */
} Quant;

/* Adding it rounds a small number to an integer, which then are the low bits: conversions are slow. Sums of products start from its bits. */
#define ROUNDER 12582912.0f
#define ROUNDER_BITS 0x4b400000
DEVFN float sum_float(int sum) { return bits_f32((uint)sum) - ROUNDER; } /* sum - ROUNDER_BITS, between -2^22 and 2^22 */

/* most: the largest magnitude of those that share d. */
DEVFN Quant rounded(float4 v, float most CTX_PARAM)
{
    Quant r;
    float inv = most > 0.0f ? quotient(127.0f, most) : 0.0f;
    uint a = f32_bits(v.x * inv + ROUNDER), b = f32_bits(v.y * inv + ROUNDER), c = f32_bits(v.z * inv + ROUNDER), e = f32_bits(v.w * inv + ROUNDER);
    r.d = most * (1.0f / 127.0f);
    r.q = (a & 255u) | (b & 255u) << 8 | (c & 255u) << 16 | e << 24;
    r.sum = wave_sum4(sum_float(dot4(r.q, 0x01010101u, ROUNDER_BITS)));
    return r;
}

/* Eight lanes round a unit, four elements each. */
DEVFN Quant quantize(float4 v CTX_PARAM)
{
    return rounded(v, wave_max8(fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w)))) CTX);
}

DEVFN ActUnit act_unit(uint4 lo, uint4 hi, float d, float s0, float s1)
{
    ActUnit r;
    r.q[0] = lo.x;
    r.q[1] = lo.y;
    r.q[2] = lo.z;
    r.q[3] = lo.w;
    r.q[4] = hi.x;
    r.q[5] = hi.y;
    r.q[6] = hi.z;
    r.q[7] = hi.w;
    r.d = d;
    r.s0 = s0;
    r.s1 = s1;
    return r;
}

/* Prepared int8 activations of a token in memory: planes of 16 bytes per unit (elements 0-15, 16-31), then d, then the sums. */
DEVFN ActUnit act_unit_global(GLOBAL const uchar *a, uint n_units, uint u)
{
    uint s = ((GLOBAL const uint *)a)[9 * n_units + u];
    return act_unit(((GLOBAL const uint4 *)a)[u], ((GLOBAL const uint4 *)a)[n_units + u], ((GLOBAL const float *)a)[8 * n_units + u], (float)((int)(s << 16) >> 16),
                    (float)((int)s >> 16));
}

DEVFN ActUnit act_unit_local(LOCAL const uint4 *q, LOCAL const float *d, LOCAL const uint *s, uint n_units, uint u)
{
    return act_unit(q[u], q[n_units + u], d[u], (float)((int)(s[u] << 16) >> 16), (float)((int)s[u] >> 16));
}

/* The end of every matmul: v is a row's sum with bias (gate and up: of a pair of rows). */
DEVFN void store_output(MatP p, GLOBAL const float *res, GLOBAL float *y0, GLOBAL float *y1, GLOBAL float *y2, uint row, uint t, float v,
                        float up)
{
    if (p.glu) v = activate_glu(p.act - 1, v, up);
    else if (p.act) v = activate(p.act - 1, v);
    if (p.has_res) v += res[(size_t)t * p.res_stride + row];
    if (row < p.rows0) y0[(size_t)t * p.stride0 + row] = v;
    else if (row < p.rows0 + p.rows1) y1[(size_t)t * p.stride1 + row - p.rows0] = v;
    else y2[(size_t)t * p.stride2 + row - p.rows0 - p.rows1] = v;
}
