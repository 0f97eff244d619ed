/* A matmul of one token. Every wave has bundles of one or two neighbouring rows, each of which comes into its part of shared memory by one copy; those
 * that find room there are on their way before the activations exist. The group rounds the token itself; the RMS norm's factor is one number, which
 * the sums of rows get at their end. What is done by every wave counts: a group's time is instructions, not bytes (bench/NOTES.md). Re-included with
 *   MS_NAME  kernel
 *   MS_I8    activations as int8 units, else f32
 * Shared memory: p.waves rings of p.ring bytes, then the activations. Groups: p.n_groups, p.waves waves. */
#define STREAM_SLOTS 4
#define STREAM_WAVES 32

#ifndef STREAM_SHARED
#define STREAM_SHARED
/* The token of a matmul in shared memory: int8 units (planes q of 16 bytes, n_units apart; d; sum of each half), or f32 (planes f of 4 elements). */
typedef struct {
    LOCAL uint4 *q;
    LOCAL float *d;
    LOCAL float *sum;
    LOCAL float4 *f;
} Token;

/* Puts it there: normed, but for the factor of an RMS norm, for which tmp[wave] gets the sum of squares of what the wave has. nw: the norm's weights,
 * set 0, which may be fetched before x is there. */
DEVFN void prepare_token(MatP p, uint as_i8, GLOBAL const float *x, GLOBAL const float *norm_w, GLOBAL const float *norm_b, Pieces nw, LOCAL float *tmp, Token to CTX_PARAM)
{
    uint n_pieces = 8 * p.w.n_units;
    float s = 0.0f;
    Pieces a = fetch_pieces(x, n_pieces, 0 CTX), next = a;
    Norm norm;
    norm.mean = 0.0f;
    norm.inv = 1.0f;
    if (p.norm == NORM_LAYER || p.has_norm_b) {
        norm = pieces_norm(x, a, p.n_in, n_pieces, p.norm, p.eps, tmp CTX);
        BARRIER();
    }
    UNROLL_N(1) for (uint base = 0, set = 1; base < n_pieces; base += PRE * group_size, set++)
    {
        if (base + PRE * group_size < n_pieces) next = fetch_pieces(x, n_pieces, set CTX);
        UNROLL for (uint j = 0; j < PRE; j++)
        {
            if (base + j * group_size < n_pieces) {
                uint i = base + j * group_size + tid, u = i / 8, k = i % 8;
                float4 v = a.v[j], nb;
                s += dot_4(v, v);
                if (p.norm != NORM_NONE) {
                    nb.x = nb.y = nb.z = nb.w = 0.0f;
                    if (p.has_norm_b && i < n_pieces) nb = ((GLOBAL const float4 *)norm_b)[i];
                    v = norm_piece(v, nw.v[j], nb, norm);
                }
                if (as_i8) {
                    Quant e = quantize(v CTX);
                    if (i < n_pieces) {
                        ((LOCAL uint *)to.q)[(k / 4 * p.w.n_units + u) * 4 + k % 4] = e.q;
                        if (k % 4 == 0) to.sum[2 * u + k / 4] = e.sum;
                        if (k == 0) to.d[u] = e.d;
                    }
                } else if (i < n_pieces) to.f[k * p.w.n_units + u] = v;
            }
        }
        a = next;
        if (p.norm != NORM_NONE && base + PRE * group_size < n_pieces) nw = fetch_pieces(norm_w, n_pieces, set CTX);
    }
    if (p.norm != NORM_NONE) {
        s = wave_sum(s);
        if (lane == 0) tmp[wave] = s;
    }
}
#endif

KERNEL(FN(MS_NAME), 1024, MatP, BUF(1, const uchar, w), BUF(2, const float, x), BUF(3, const float, norm_w), BUF(4, const float, norm_b), BUF(5, const float, bias),
       BUF(6, const float, res), BUF(7, float, y0), BUF(8, float, y1), BUF(9, float, y2))
{
    SHARED_MOST(room, STREAM_ROOM);
    SHARED StreamBar bars[STREAM_WAVES * STREAM_SLOTS];
    SHARED float tmp[STREAM_WAVES];
    uint n_units = p.w.n_units, step = p.waves * p.n_groups, first = wave * p.n_groups + group_x;
    LOCAL uchar *ring = room + wave * p.ring;
    LOCAL StreamBar *bar = bars + wave * STREAM_SLOTS;
    START_NEXT();
    if (lane == 0) {
        UNROLL_N(1) for (uint k = 0; k < p.slots; k++) stream_init(bar + k);
        stream_ready();
        UNROLL_N(1) for (uint k = 0, b = first; k < p.slots && b < p.n_bundles; k++, b += step)
            stream_copy(ring + k * p.bundle_bytes, w + (size_t)b * p.bundle_bytes, p.bundle_bytes, bar + k);
    }
    Pieces nw = fetch_pieces(norm_w, p.norm != NORM_NONE ? 8 * n_units : 0, 0 CTX);
    Token t;
    t.q = (LOCAL uint4 *)(room + p.waves * p.ring);
    t.d = (LOCAL float *)(t.q + 2 * n_units);
    t.sum = t.d + n_units;
    t.f = (LOCAL float4 *)t.q;
    START();
    prepare_token(p, MS_I8, x, norm_w, norm_b, nw, tmp, t CTX);
    BARRIER();
    float factor = 1.0f;
    if (p.norm == NORM_RMS && !p.has_norm_b) factor = inv_sqrt(quotient(wave_sum(lane < p.waves ? tmp[lane] : 0.0f), (float)p.n_in) + p.eps);
    uint slot = 0, parity = 0, ends = lane == 0 || (lane == 16 && p.bundle == 2 && !p.glu); /* lanes that write an output */
    UNROLL_N(1) for (uint b = first; b < p.n_bundles; b += step)
    {
        LOCAL const uchar *row = ring + slot * p.bundle_bytes, *row1 = row + p.w.row_bytes;
        uint at = b * p.bundle + lane / 16, to = p.glu ? b : at;
        float v = 0.0f, v1 = 0.0f, r = p.has_res && ends ? res[to] : 0.0f;
        stream_wait(bar + slot, parity);
        if (p.bundle == 2) {
            UNROLL_N(2) for (uint u = lane; u < n_units; u += WAVE)
            {
                FN(Unit) a = FN(unit_decode)(FN(unit_fetch_local)(row, u, p.w), p.w), a1 = FN(unit_decode)(FN(unit_fetch_local)(row1, u, p.w), p.w);
#if MS_I8
                ActUnit xu = act_unit(t.q[u], t.q[n_units + u], t.d[u], t.sum[2 * u], t.sum[2 * u + 1]);
                v += FN(unit_dot)(a, xu);
                v1 += FN(unit_dot)(a1, xu);
#else
                UNROLL for (uint e = 0; e < 8; e++)
                {
                    float4 f = t.f[e * n_units + u];
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
                v += FN(unit_dot)(a, act_unit(t.q[u], t.q[n_units + u], t.d[u], t.sum[2 * u], t.sum[2 * u + 1]));
#else
                UNROLL for (uint e = 0; e < 8; e++) v += dot_4(FN(unit_value)(a, e), t.f[e * n_units + u]);
#endif
            }
        }
        WAVE_SYNC(); /* all have read it */
        if (lane == 0 && b + p.slots * step < p.n_bundles)
            stream_copy(ring + slot * p.bundle_bytes, w + (size_t)(b + p.slots * step) * p.bundle_bytes, p.bundle_bytes, bar + slot);
        slot++;
        if (slot == p.slots) {
            slot = 0;
            parity ^= 1;
        }
        float give = lane < 16 ? v1 : v; /* each half of the wave sums one row */
        v = (lane < 16 ? v : v1) + wave_xor(give, 16);
        v = wave_sum16(v) * factor;
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
