/* Kernels that touch no packed weights and no cache: norms, what prepares activations for matmuls, elementwise operations, the choice
 * of tokens. One group per token (norm, act_i8, act_f16); registers as params.h says. */

KERNEL(norm_rows, 1024, NormP, BUF(1, const float, x), BUF(2, const float, w), BUF(3, const float, b), BUF(4, float, y))
{
    SHARED float tmp[1024 / WAVE];
    START();
    GLOBAL const float *xr = x + (size_t)group_x * p.stride;
    Norm n = row_norm(xr, p.width, p.norm, p.eps, tmp CTX);
    for (uint i = tid; i < p.stride / 4; i += group_size)
        ((GLOBAL float4 *)(y + (size_t)group_x * p.out_stride))[i] = normed_4(xr, w, b, i, p.norm, p.has_b, n);
}

/* Into int8 units, as act_unit_global reads them. */
KERNEL(act_i8, 1024, NormP, BUF(1, const float, x), BUF(2, const float, w), BUF(3, const float, b), BUF(4, uchar, y))
{
    SHARED float tmp[1024 / WAVE];
    START();
    GLOBAL const float *xr = x + (size_t)group_x * p.stride;
    GLOBAL uchar *a = y + (size_t)group_x * p.out_stride;
    Norm n = row_norm(xr, p.width, p.norm, p.eps, tmp CTX);
    for (uint base = 0; base < 8 * p.n_units; base += group_size) {
        uint i = base + tid, at = i < 8 * p.n_units ? i : 8 * p.n_units - 1, u = at / 8, k = at % 8;
        Quant e = quantize(normed_4(xr, w, b, at, p.norm, p.has_b, n) CTX);
        if (i == at) {
            ((GLOBAL uint *)a)[(k / 4 * p.n_units + u) * 4 + k % 4] = e.q;
            if (k % 4 == 0) ((GLOBAL ushort *)a)[18 * p.n_units + 2 * u + k / 4] = (ushort)(uint)(int)e.sum;
            if (k == 0) ((GLOBAL float *)a)[8 * p.n_units + u] = e.d;
        }
    }
}

/* A token into halves, divided by a power of two that brings the largest below 2; *scale is that power. */
DEVFN void token_halves(NormP p, GLOBAL const float *xr, GLOBAL const float *w, GLOBAL const float *b, GLOBAL ushort *y, GLOBAL float *scale, LOCAL float *tmp CTX_PARAM)
{
    Norm n = row_norm(xr, p.width, p.norm, p.eps, tmp CTX);
    float most = 0.0f;
    UNROLL_N(4) for (uint i = tid; i < 8 * p.n_units; i += group_size)
    {
        float4 v = normed_4(xr, w, b, i, p.norm, p.has_b, n);
        most = fmaxf(most, fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w))));
    }
    most = group_max(tmp, most CTX);
    uint exponent = f32_bits(most) >> 23 & 255u; /* of most in [2^(e-127), 2^(e-126)) */
    exponent = exponent < 2u ? 2u : exponent > 252u ? 252u : exponent;
    float down = bits_f32((254u - exponent) << 23);
    UNROLL_N(4) for (uint i = tid; i < 8 * p.n_units; i += group_size)
    {
        float4 v = normed_4(xr, w, b, i, p.norm, p.has_b, n);
        uint2 h;
        h.x = two_halves(v.x * down, v.y * down);
        h.y = two_halves(v.z * down, v.w * down);
        ((GLOBAL uint2 *)y)[p.planes ? (i / 2 % 4 * p.n_units + i / 8) * 2 + i % 2 : i] = h;
    }
    if (tid == 0) *scale = bits_f32(exponent << 23);
}

KERNEL(act_f16, 1024, NormP, BUF(1, const float, x), BUF(2, const float, w), BUF(3, const float, b), BUF(4, ushort, y), BUF(5, float, scale))
{
    SHARED float tmp[1024 / WAVE];
    START();
    token_halves(p, x + (size_t)group_x * p.stride, w, b, y + (size_t)group_x * p.out_stride, scale + group_x, tmp CTX);
}

/* sums: f32 [n][sums_stride], of halves whose scales are scale[n]. The token's results go where the matmul's go; then, if asked for, it is made ready
 * for the next one: halves [n][next.out_stride], next_scale[n]. */
KERNEL(mm_end, 1024, EndP, BUF(1, const float, sums), BUF(2, const float, scale), BUF(3, const float, bias), BUF(4, const float, res), BUF(5, float, y0), BUF(6, float, y1),
       BUF(7, float, y2), BUF(8, const float, norm_w), BUF(9, const float, norm_b), BUF(10, ushort, halves), BUF(11, float, next_scale))
{
    SHARED float tmp[1024 / WAVE];
    START();
    uint t = group_x, n_out = p.m.glu ? p.rows / 2 : p.rows;
    float d = scale[t];
    GLOBAL const float *s = sums + (size_t)t * p.sums_stride + p.col0;
    UNROLL_N(4) for (uint i = tid; i < n_out; i += group_size)
    {
        uint row = p.row0 + (p.m.glu ? 2 * i : i);
        float v = s[row - p.row0] * d, up = 0.0f;
        if (p.m.glu) up = s[row - p.row0 + 1] * d;
        if (p.m.has_bias) v += bias[row];
        if (p.m.glu && p.m.has_bias) up += bias[row + 1];
        store_output(p.m, res, y0, y1, y2, p.m.glu ? row / 2 : row, t, v, up);
    }
    if (p.next.n_units) {
        BARRIER_GLOBAL();
        token_halves(p.next, y0 + (size_t)t * p.m.stride0, norm_w, norm_b, halves + (size_t)t * p.next.out_stride, next_scale + t, tmp CTX);
    }
}

KERNEL(map_act, 256, MapP, BUF(1, const float, x), BUF(2, float, y))
{
    START();
    uint i = group_x * group_size + tid;
    if (i < p.n) y[i] = i % p.stride < p.gate_stride ? activate(p.act, x[i]) : 0.0f; /* sigmoids of the padding would be 1/2 */
}

KERNEL(map_glu, 256, MapP, BUF(1, const float, gate), BUF(2, const float, up), BUF(3, float, y))
{
    START();
    uint i = group_x * group_size + tid;
    if (i < p.n) y[i] = activate_glu(p.act, gate[i], up[i]);
}

KERNEL(map_add, 256, MapP, BUF(1, const float, a), BUF(2, const float, b), BUF(3, float, y))
{
    START();
    uint i = group_x * group_size + tid;
    if (i < p.n) y[i] = a[i] + b[i];
}

KERNEL(map_mul, 256, MapP, BUF(1, const float, a), BUF(2, const float, b), BUF(3, float, y))
{
    START();
    uint i = group_x * group_size + tid;
    if (i < p.n) y[i] = a[i] * b[i];
}

/* w: of a row. */
KERNEL(map_lerp, 256, MapP, BUF(1, const float, a), BUF(2, const float, b), BUF(3, const float, w), BUF(4, float, y))
{
    START();
    uint i = group_x * group_size + tid;
    if (i < p.n) y[i] = a[i] + b[i] * w[i % p.stride];
}

/* Rows times what grows with their position: act is the length of a step, gate_stride what is added to positions. */
KERNEL(map_pos_scale, 256, MapP, BUF(1, const float, x), BUF(2, const uint, batch), BUF(3, float, y))
{
    START();
    uint i = group_x * group_size + tid;
    if (i < p.n) y[i] = x[i] * (1.0f + p.value * logf(1.0f + (float)((batch[4 * (i / p.stride) + 1] + p.gate_stride) / p.act)));
}

/* Rows times what is at word act of the batch block for their token, and times value. gate_stride: where the selected tokens begin there, + 1; 0: rows are
 * all tokens. */
KERNEL(map_adapt, 256, MapP, BUF(1, const float, x), BUF(2, const uint, batch), BUF(3, float, y))
{
    START();
    uint i = group_x * group_size + tid, t = i / p.stride;
    if (i < p.n) {
        if (p.gate_stride) t = batch[p.gate_stride - 1 + t];
        float strength = bits_f32(batch[p.act + t]);
        y[i] = strength == 0.0f ? 0.0f : p.value * strength * x[i];
    }
}

/* act 0: value * x, 1: value * tanh(x / value), 2: x between -value and value */
KERNEL(map_value, 256, MapP, BUF(1, const float, x), BUF(2, float, y))
{
    START();
    uint i = group_x * group_size + tid;
    float v = i < p.n ? x[i] : 0.0f;
    if (p.act == 0) v = p.value * v;
    else if (p.act == 1) v = p.value * tanhf(v / p.value);
    else v = v < -p.value ? -p.value : v > p.value ? p.value : v;
    if (i < p.n) y[i] = v;
}

/* value x^2 + linear x above 0, else below (e^min(x, eps) - 1 - x) + linear x; e^x - 1 - x near 0 by its series, as the difference would have no digits left */
KERNEL(map_xielu, 256, MapP, BUF(1, const float, x), BUF(2, float, y))
{
    START();
    uint i = group_x * group_size + tid;
    float v = i < p.n ? x[i] : 0.0f, least = v > p.eps ? p.eps : v;
    float rest = least * least * (0.5f + least * (0.16666667f + least * (0.041666668f + least * (0.0083333338f + least * (0.0013888889f + least * (0.00019841270f + least * 0.000024801588f))))));
    if (!(least > -0.5f)) rest = expf(least) - 1.0f - least;
    if (i < p.n) y[i] = i % p.stride < p.gate_stride ? p.linear * v + (v > 0.0f ? p.value * v * v : p.below * (rest + (least - v))) : 0.0f; /* of 0 it is not 0 */
}

/* Rows times a function of one number each. */
KERNEL(map_gate, 256, MapP, BUF(1, const float, x), BUF(2, const float, gate), BUF(3, float, y))
{
    START();
    uint i = group_x * group_size + tid;
    if (i < p.n) y[i] = activate(p.act, gate[(size_t)(i / p.stride) * p.gate_stride]) * x[i];
}

/* Groups: x heads, y tokens. */
KERNEL(norm_heads, 256, HeadNormP, BUF(1, const float, x), BUF(2, const float, w), BUF(3, const float, b), BUF(4, float, y))
{
    SHARED float tmp[256 / WAVE];
    START();
    uint at = group_x * p.width, own = p.own ? at : 0;
    GLOBAL const float *xr = x + (size_t)group_y * p.stride + at;
    GLOBAL float *yr = y + (size_t)group_y * p.out_stride + at;
    Norm n = row_norm(xr, p.width, p.norm, p.eps, tmp CTX);
    BARRIER(); /* x may be y */
    for (uint i = tid; i < p.width; i += group_size) {
        float v = (xr[i] - n.mean) * n.inv;
        if (p.has_w) v *= w[own + i];
        if (p.has_b) v += b[own + i];
        yr[i] = v;
    }
}

/* dst[s] = src[selected token s]. Groups: x over the row, y tokens. */
KERNEL(take_rows, 256, SelectP, BUF(1, const uint, batch), BUF(2, const float, src), BUF(3, float, dst))
{
    START();
    uint i = group_x * group_size + tid, t = batch[p.sel_at + group_y];
    if (i < p.stride) dst[(size_t)group_y * p.stride + i] = src[(size_t)t * p.stride + i];
}

#define TOP_NONE (-3.4e38f)
DEVFN float finite_or_none(float v) { return (f32_bits(v) & 0x7f800000u) != 0x7f800000u ? fmaxf(v, TOP_NONE) : TOP_NONE; }

#define TOP_PARTS 256

/* The highest of the first `left` of four. */
DEVFN float most_of_4(float4 v, uint left)
{
    float most = finite_or_none(v.x);
    if (left > 1) most = fmaxf(most, finite_or_none(v.y));
    if (left > 2) most = fmaxf(most, finite_or_none(v.z));
    if (left > 3) most = fmaxf(most, finite_or_none(v.w));
    return most;
}

/* The highest of the candidates, the lowest id among equals, becomes the next token of the batch block's one sequence. */
DEVFN void tell_highest(GLOBAL const uint *found, GLOBAL uint *batch, GLOBAL uint *told CTX_PARAM)
{
    uint n = found[0], some = n < TOP_ROOM ? n : TOP_ROOM, pos = batch[1], table = batch[2];
    float most = TOP_NONE, first = -16777216.0f, top;
    for (uint i = lane; i < some; i += WAVE) most = fmaxf(most, bits_f32(found[2 + 2 * i]));
    top = wave_max(most);
    for (uint i = lane; i < some; i += WAVE)
        if (bits_f32(found[2 + 2 * i]) == top) first = fmaxf(first, -(float)found[1 + 2 * i]); /* ids are exact as floats */
    first = wave_max(first);
    if (tid == 0) {
        GLOBAL uint *to = told + pos % 2 * TOLD_WORDS;
        uint id = some ? (uint)-first : 0;
        batch[0] = id;
        batch[1] = pos + 1;
        batch[table - 1] = pos + 2;
        to[1] = id;
        to[2] = f32_bits(top);
        TELL_HOST(to, n);
    }
}

/* One group. What reaches the k-th highest of what is highest in each of several parts: all of the k highest do, and few others. The parts are what waves have seen if these are many
 * times k, else finer ones. */
KERNEL(top_logits, 1024, TopP, BUF(1, const float, x), BUF(2, uint, y), BUF(3, uint, batch), BUF(4, uint, told))
{
    SHARED float best[1024];
    SHARED float parts[TOP_PARTS];
    SHARED float counts[1024 + 1024 / WAVE]; /* of threads, then of waves */
    SHARED float bound[1];
    float most = TOP_NONE, first = 0.0f, seen, before = 0.0f;
    uint rank = 0, count = 0, at = 0, n_4 = (p.n + 3) / 4, waves = group_size / WAVE, by_wave = 4 * p.k <= waves;
    uint n_parts = by_wave ? waves : group_size < TOP_PARTS ? group_size : TOP_PARTS;
    START();
    UNROLL_N(8) for (uint i = tid; i < n_4; i += group_size) most = fmaxf(most, most_of_4(((GLOBAL const float4 *)x)[i], p.n - 4 * i));
    best[tid] = most;
    seen = wave_max(most);
    BARRIER();
    if (by_wave ? lane == 0 : tid < n_parts) {
        float m = by_wave ? seen : most;
        for (uint i = tid + n_parts; i < group_size && !by_wave; i += n_parts) m = fmaxf(m, best[i]);
        parts[by_wave ? wave : tid] = m;
    }
    BARRIER();
    if (tid < n_parts) {
        float m = parts[tid];
        UNROLL_N(8) for (uint i = 0; i < n_parts; i++) rank += parts[i] > m || (parts[i] == m && i < tid);
        if (rank == p.k - 1) bound[0] = m;
    }
    BARRIER();
    float least = bound[0];
    if (most >= least && most > TOP_NONE) {
        UNROLL_N(8) for (uint i = tid; i < n_4; i += group_size)
        {
            float4 v = ((GLOBAL const float4 *)x)[i];
            UNROLL for (uint e = 0; e < 4; e++)
            {
                float f = finite_or_none(e == 0 ? v.x : e == 1 ? v.y : e == 2 ? v.z : v.w);
                uint reaches = 4 * i + e < p.n && f >= least && f > TOP_NONE;
                if (reaches && count == 0) {
                    at = 4 * i + e;
                    first = f;
                }
                count += reaches;
            }
        }
    }
    seen = wave_sum((float)count);
    counts[tid] = (float)count;
    if (lane == 0) counts[group_size + wave] = seen;
    BARRIER();
    if (tid == group_size - 1) {
        for (uint i = 0; i < waves; i++) before += counts[group_size + i];
        y[0] = (uint)before;
    }
    if (count) {
        before = 0.0f;
        UNROLL_N(8) for (uint i = 0; i < wave; i++) before += counts[group_size + i];
        UNROLL_N(8) for (uint i = tid - lane; i < tid; i++) before += counts[i];
        uint to = (uint)before;
        for (uint e = at; count > 0 && to < TOP_ROOM; e = e % 4 == 3 ? e - 3 + 4 * group_size : e + 1) {
            float v = e == at ? first : finite_or_none(x[e]);
            if (v < least || v == TOP_NONE) continue;
            y[1 + 2 * to] = e;
            y[2 + 2 * to] = f32_bits(v);
            to++;
            count--;
        }
    }
    if (p.tells) {
        BARRIER_GLOBAL();
        tell_highest(y, batch, told CTX);
    }
}
