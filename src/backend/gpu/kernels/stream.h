/* A matmul of one token. Every wave has bundles of one or two neighbouring rows, each of which comes into its part of shared memory by one copy; those
 * that find room there are on their way before the activations exist. The group norms and rounds the token itself. Re-included with
 *   MS_NAME  kernel
 *   MS_I8    activations as int8 units, else f32
 * Shared memory: p.waves rings of p.ring bytes, then the activations. Groups: p.n_groups, p.waves waves. */
#define STREAM_SLOTS 4
#define STREAM_WAVES 32

#ifndef STREAM_SHARED
#define STREAM_SHARED
/* The one token of a matmul, normed, into shared memory: as int8 units (planes xq of 16 bytes, stride units apart; xd, xs), or as f32 (planes xf of 4
 * elements). nw: the norm's weights, set 0, which may be fetched before x is there. */
DEVFN void prepare_token(MatP p, uint as_i8, GLOBAL const float *x, GLOBAL const float *norm_w, GLOBAL const float *norm_b, Pieces nw, LOCAL float *tmp, LOCAL uint4 *xq,
                         LOCAL float *xd, LOCAL uint *xs, LOCAL float4 *xf, uint stride CTX_PARAM)
{
    uint n_pieces = 8 * p.w.n_units;
    Pieces a = fetch_pieces(x, n_pieces, 0 CTX);
    Norm norm = pieces_norm(x, a, p.n_in, n_pieces, p.norm, p.eps, tmp CTX);
    UNROLL_N(1) for (uint set = 0; set * PRE * group_size < n_pieces; set++)
    {
        uint base = set * PRE * group_size;
        if (set > 0) {
            a = fetch_pieces(x, n_pieces, set CTX);
            if (p.norm != NORM_NONE) nw = fetch_pieces(norm_w, n_pieces, set CTX);
        }
        UNROLL for (uint j = 0; j < PRE; j++)
        {
            uint i = base + j * group_size + tid, u = i / 8, k = i % 8;
            if (base + j * group_size < n_pieces) {
                float4 v = a.v[j], nb;
                nb.x = nb.y = nb.z = nb.w = 0.0f;
                if (p.has_norm_b && i < n_pieces) nb = ((GLOBAL const float4 *)norm_b)[i];
                if (p.norm != NORM_NONE) v = norm_piece(v, nw.v[j], nb, norm);
                if (as_i8) {
                    Quant e = quantize(v CTX);
                    if (i < n_pieces) {
                        ((LOCAL uint *)xq)[(k / 4 * stride + u) * 4 + k % 4] = e.q;
                        if (k % 4 == 0) ((LOCAL ushort *)xs)[2 * u + k / 4] = (ushort)(uint)e.sum;
                        if (k == 0) xd[u] = e.d;
                    }
                } else if (i < n_pieces) xf[k * stride + u] = v;
            }
        }
    }
}
#endif

KERNEL(FN(MS_NAME), 1024, MatP, BUF(1, const uchar, w), BUF(2, const float, x), BUF(3, const float, norm_w), BUF(4, const float, norm_b), BUF(5, const float, bias),
       BUF(6, const float, res), BUF(7, float, y0), BUF(8, float, y1), BUF(9, float, y2))
{
    SHARED_MOST(room, STREAM_ROOM);
    SHARED StreamBar bars[STREAM_WAVES * STREAM_SLOTS];
    SHARED float tmp[STREAM_WAVES];
    uint n_units = p.w.n_units, n_bytes = p.bundle * p.w.row_bytes, n_bundles = p.rows / p.bundle, step = p.waves * p.n_groups, first = wave * p.n_groups + group_x;
    LOCAL uchar *ring = room + wave * p.ring;
    LOCAL StreamBar *bar = bars + wave * STREAM_SLOTS;
    if (lane == 0) {
        for (uint k = 0; k < p.slots; k++) stream_init(bar + k);
        stream_ready();
        for (uint k = 0, b = first; k < p.slots && b < n_bundles; k++, b += step) stream_copy(ring + k * n_bytes, w + (size_t)b * n_bytes, n_bytes, bar + k);
    }
    Pieces nw = fetch_pieces(norm_w, p.norm != NORM_NONE ? 8 * n_units : 0, 0 CTX);
    START();
#if MS_I8
    LOCAL uint4 *xq = (LOCAL uint4 *)(room + p.waves * p.ring);
    LOCAL float *xd = (LOCAL float *)(xq + 2 * n_units);
    LOCAL uint *xs = (LOCAL uint *)(xd + n_units);
    prepare_token(p, 1, x, norm_w, norm_b, nw, tmp, xq, xd, xs, (LOCAL float4 *)xq, n_units CTX);
#else
    LOCAL float4 *xf = (LOCAL float4 *)(room + p.waves * p.ring);
    prepare_token(p, 0, x, norm_w, norm_b, nw, tmp, (LOCAL uint4 *)xf, (LOCAL float *)xf, (LOCAL uint *)xf, xf, n_units CTX);
#endif
    BARRIER();
    uint slot = 0, parity = 0, ends = lane == 0 || (lane == 16 && p.bundle == 2 && !p.glu); /* lanes that write an output */
    for (uint b = first; b < n_bundles; b += step) {
        LOCAL const uchar *row = ring + slot * n_bytes, *row1 = row + p.w.row_bytes;
        uint at = b * p.bundle + lane / 16, to = p.glu ? b : at;
        float v = 0.0f, v1 = 0.0f, r = p.has_res && ends ? res[to] : 0.0f;
        stream_wait(bar + slot, parity);
        if (p.bundle == 2) {
            UNROLL_N(2) for (uint u = lane; u < n_units; u += WAVE)
            {
                FN(Unit) a = FN(unit_decode)(FN(unit_fetch_local)(row, u, p.w), p.w), a1 = FN(unit_decode)(FN(unit_fetch_local)(row1, u, p.w), p.w);
#if MS_I8
                ActUnit xu = act_unit_local(xq, xd, xs, n_units, u);
                v += FN(unit_dot)(a, xu);
                v1 += FN(unit_dot)(a1, xu);
#else
                UNROLL for (uint e = 0; e < 8; e++)
                {
                    float4 f = xf[e * n_units + u];
                    v += dot_4(FN(unit_value)(a, e), f);
                    v1 += dot_4(FN(unit_value)(a1, e), f);
                }
#endif
            }
        } else {
            UNROLL_N(2) for (uint u = lane; u < n_units; u += WAVE)
            {
                FN(Unit) a = FN(unit_decode)(FN(unit_fetch_local)(row, u, p.w), p.w);
#if MS_I8
                v += FN(unit_dot)(a, act_unit_local(xq, xd, xs, n_units, u));
#else
                UNROLL for (uint e = 0; e < 8; e++) v += dot_4(FN(unit_value)(a, e), xf[e * n_units + u]);
#endif
            }
        }
        WAVE_SYNC(); /* all have read it */
        if (lane == 0 && b + p.slots * step < n_bundles) stream_copy(ring + slot * n_bytes, w + (size_t)(b + p.slots * step) * n_bytes, n_bytes, bar + slot);
        slot++;
        if (slot == p.slots) {
            slot = 0;
            parity ^= 1;
        }
        float give = lane < 16 ? v1 : v; /* each half of the wave sums one row */
        v = (lane < 16 ? v : v1) + wave_xor(give, 16);
        v = wave_sum16(v);
        v1 = wave_xor(v, 16);
        if (ends) {
            if (p.has_bias) {
                v += bias[at];
                if (p.glu) v1 += bias[at + 1];
            }
            if (p.glu) v = activate_glu(p.act - 1, v, v1);
            else if (p.act) v = activate(p.act - 1, v);
            v += r;
            if (to < p.rows0) y0[to] = v;
            else if (to < p.rows0 + p.rows1) y1[to - p.rows0] = v;
            else y2[to - p.rows0 - p.rows1] = v;
        }
    }
}
