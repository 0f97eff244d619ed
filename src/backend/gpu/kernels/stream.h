/* A matmul of one token. Every wave has bundles of one or two neighbouring rows, each of which comes into its part of shared memory by one copy; those
 * that find room there are on their way before the activations exist. The group rounds the token itself; the RMS norm's factor is one number, which
 * the sums of rows get at their end. What is done by every wave counts: a group's time is instructions, not bytes (bench/NOTES.md). Re-included with
 *   MS_NAME  kernel
 *   MS_I8    activations as int8 units, else f32
 * Shared memory: p.waves rings of p.ring bytes, then the activations. Groups: p.n_groups, p.waves waves. */
#define STREAM_SLOTS 4
#define STREAM_WAVES 32
#define STREAM_KEEP 4 /* bundles whose sums are finished together */
#define STREAM_PRE 3  /* pieces of 4 elements of a token that a thread has under way */

#ifndef STREAM_SHARED
#define STREAM_SHARED
/* The token of a matmul in shared memory: int8 units (planes q of 16 bytes, n_units apart; d; sum of each half), or f32 (planes f of 4 elements). */
typedef struct {
    LOCAL uint4 *q;
    LOCAL float *d;
    LOCAL float *sum;
    LOCAL float4 *f;
    LOCAL uchar *q_put, *d_put, *sum_put, *f_put; /* where this thread's first piece goes */
} Token;

typedef struct {
    float4 v[STREAM_PRE];
} Ahead;

/* Pieces base + i * group_size + tid of n; zeros beyond. */
DEVFN Ahead fetch_ahead(GLOBAL const float *x, uint n, uint base CTX_PARAM)
{
    Ahead r;
    UNROLL for (uint i = 0; i < STREAM_PRE; i++)
    {
        uint at = base + i * group_size + tid;
        r.v[i].x = r.v[i].y = r.v[i].z = r.v[i].w = 0.0f;
        if (at < n) r.v[i] = ((GLOBAL const float4 *)x)[at];
    }
    return r;
}

/* Puts it there: normed, but for the factor of an RMS norm, for which tmp[wave] gets the sum of squares of what the wave has. nw: the norm's weights,
 * the first of them, which may be fetched before x is there. */
DEVFN void prepare_token(MatP p, uint as_i8, GLOBAL const float *x, GLOBAL const float *norm_w, GLOBAL const float *norm_b, Ahead nw, LOCAL float *tmp, Token to CTX_PARAM)
{
    uint n_pieces = 8 * p.w.n_units, step = STREAM_PRE * group_size;
    float s = 0.0f;
    Ahead a = fetch_ahead(x, n_pieces, 0 CTX), next = a;
    Norm norm;
    norm.mean = 0.0f;
    norm.inv = 1.0f;
    if (p.norm == NORM_LAYER || p.has_norm_b) {
        norm = row_norm(x, p.n_in, p.norm, p.eps, tmp CTX);
        BARRIER(); /* tmp is read */
    }
    UNROLL_N(1) for (uint base = 0; base < n_pieces; base += step)
    {
        if (base + step < n_pieces) next = fetch_ahead(x, n_pieces, base + step CTX);
        UNROLL for (uint j = 0; j < STREAM_PRE; j++)
        {
            if (base + j * group_size < n_pieces) {
                uint i = base + j * group_size + tid, units = (base + j * group_size) / 8;
                float4 v = a.v[j], nb;
                if (p.norm != NORM_NONE) {
                    s += dot_4(v, v);
                    nb.x = nb.y = nb.z = nb.w = 0.0f;
                    if (p.has_norm_b && i < n_pieces) nb = ((GLOBAL const float4 *)norm_b)[i];
                    v = norm_piece(v, nw.v[j], nb, norm);
                }
                if (as_i8) {
                    Quant e = quantize(v CTX);
                    if (i < n_pieces) {
                        *(LOCAL uint *)(to.q_put + 16 * units) = e.q;
                        if (tid % 4 == 0) *(LOCAL float *)(to.sum_put + 8 * units) = e.sum;
                        if (tid % 8 == 0) *(LOCAL float *)(to.d_put + 4 * units) = e.d;
                    }
                } else if (i < n_pieces) *(LOCAL float4 *)(to.f_put + 16 * units) = v;
            }
        }
        a = next;
        if (p.norm != NORM_NONE && base + step < n_pieces) nw = fetch_ahead(norm_w, n_pieces, base + step CTX);
    }
    if (p.norm != NORM_NONE) {
        s = wave_sum(s);
        if (lane == 0) tmp[wave] = s;
    }
}

/* Sums over the wave of 2 * STREAM_KEEP values; lane 4 i has that of value i. */
DEVFN float sums_8(float s0, float s1, float s2, float s3, float s4, float s5, float s6, float s7 CTX_PARAM)
{
    uint high = lane & 16, mid = lane & 8, low = lane & 4;
    float a = (high ? s4 : s0) + wave_xor(high ? s0 : s4, 16), b = (high ? s5 : s1) + wave_xor(high ? s1 : s5, 16);
    float c = (high ? s6 : s2) + wave_xor(high ? s2 : s6, 16), d = (high ? s7 : s3) + wave_xor(high ? s3 : s7, 16);
    a = (mid ? c : a) + wave_xor(mid ? a : c, 8);
    b = (mid ? d : b) + wave_xor(mid ? b : d, 8);
    return wave_sum4((low ? b : a) + wave_xor(low ? a : b, 4));
}
#endif

KERNEL(FN(MS_NAME), 1024, MatP, BUF(1, const uchar, w), BUF(2, const float, x), BUF(3, const float, norm_w), BUF(4, const float, norm_b), BUF(5, const float, bias),
       BUF(6, const float, res), BUF(7, float, y0), BUF(8, float, y1), BUF(9, float, y2))
{
    SHARED_MOST(room, STREAM_ROOM);
    SHARED StreamBar bars[STREAM_WAVES * STREAM_SLOTS];
    SHARED float tmp[STREAM_WAVES];
    uint n_units = p.w.n_units, step = p.waves * p.n_groups, first = wave * p.n_groups + group_x, slot = 0, parity = 0;
    LOCAL uchar *ring = kept_local(room + wave * p.ring), *token = kept_local(room + p.waves * p.ring);
    LOCAL StreamBar *bar = bars + wave * STREAM_SLOTS;
    StreamAt bar_at = stream_at(bar);
    KEEP(bar_at);
    START_NEXT();
    Ahead nw = fetch_ahead(norm_w, p.norm != NORM_NONE ? 8 * n_units : 0, 0 CTX);
    if (lane == 0) {
        UNROLL_N(1) for (uint k = 0; k < p.slots; k++) stream_init(bar + k);
        stream_ready();
        UNROLL_N(1) for (uint k = 0, b = first; k < p.slots && b < p.n_bundles; k++, b += step)
            stream_copy(ring + k * p.bundle_bytes, w + (size_t)b * p.bundle_bytes, p.bundle_bytes, bar + k);
    }
    Token t;
    t.q = (LOCAL uint4 *)token;
    t.d = (LOCAL float *)(t.q + 2 * n_units);
    t.sum = t.d + n_units;
    t.f = (LOCAL float4 *)t.q;
    t.q_put = kept_local(token + ((tid % 8 / 4 * n_units + tid / 8) * 4 + tid % 4) * 4);
    t.sum_put = kept_local(t.sum + tid / 4);
    t.d_put = kept_local(t.d + tid / 8);
    t.f_put = kept_local(t.f + tid % 8 * n_units + tid / 8);
    /* every fourth lane ends a row: which, and what it adds */
    uint part = lane / 4 % 2, mine = first + lane / 8 * step, at = mine * p.bundle + part, to = p.glu ? mine : at;
    uint has = lane % 4 == 0 && mine < p.n_bundles && part < p.bundle, ends = has && !(p.glu && part);
    KEEP(to);
    KEEP(ends);
    START();
    float r = p.has_res && ends ? res[to] : 0.0f, add = p.has_bias && has ? bias[at] : 0.0f;
    prepare_token(p, MS_I8, x, norm_w, norm_b, nw, tmp, t CTX);
    BARRIER();
    UNROLL_N(1) for (uint b0 = first; b0 < p.n_bundles; b0 += STREAM_KEEP * step)
    {
        float s[2 * STREAM_KEEP];
        UNROLL for (uint i = 0; i < 2 * STREAM_KEEP; i++) s[i] = 0.0f;
        UNROLL_N(1) for (uint k = 0, b = b0; k < STREAM_KEEP && b < p.n_bundles; k++, b += step)
        {
            LOCAL const uchar *row = ring + slot * p.bundle_bytes, *row1 = row + p.w.row_bytes;
            float v = 0.0f, v1 = 0.0f;
            stream_wait(bar_at, slot, parity);
            if (p.bundle == 2) {
                UNROLL_N(1) for (uint u = lane; u < n_units; u += WAVE)
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
#if MS_I8
                uint u = lane;
                UNROLL_N(1) for (; u + WAVE < n_units; u += 2 * WAVE) /* two at a time: one waits for the other's instructions */
                {
                    FN(Raw) a = FN(unit_fetch_local)(row, u, p.w), a1 = FN(unit_fetch_local)(row, u + WAVE, p.w);
                    v += FN(unit_dot)(FN(unit_decode)(a, p.w), act_unit(t.q[u], t.q[n_units + u], t.d[u], t.sum[2 * u], t.sum[2 * u + 1]));
                    v += FN(unit_dot)(FN(unit_decode)(a1, p.w), act_unit(t.q[u + WAVE], t.q[n_units + u + WAVE], t.d[u + WAVE], t.sum[2 * (u + WAVE)], t.sum[2 * (u + WAVE) + 1]));
                }
                if (u < n_units) v += FN(unit_dot)(FN(unit_decode)(FN(unit_fetch_local)(row, u, p.w), p.w), act_unit(t.q[u], t.q[n_units + u], t.d[u], t.sum[2 * u], t.sum[2 * u + 1]));
#else
                UNROLL_N(1) for (uint u = lane; u < n_units; u += WAVE)
                {
                    FN(Unit) a = FN(unit_decode)(FN(unit_fetch_local)(row, u, p.w), p.w);
                    UNROLL for (uint e = 0; e < 8; e++) v += dot_4(FN(unit_value)(a, e), t.f[e * n_units + u]);
                }
#endif
            }
            WAVE_SYNC(); /* all have read it */
            if (lane == 0 && b + p.slots * step < p.n_bundles)
                stream_copy(ring + slot * p.bundle_bytes, w + (size_t)(b + p.slots * step) * p.bundle_bytes, p.bundle_bytes, bar + slot);
            slot++;
            if (slot == p.slots) {
                slot = 0;
                parity ^= 1;
            }
            UNROLL for (uint i = 0; i < STREAM_KEEP; i++)
            {
                s[2 * i] = k == i ? v : s[2 * i];
                s[2 * i + 1] = k == i ? v1 : s[2 * i + 1];
            }
        }
        float v = sums_8(s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7] CTX);
        if (p.norm == NORM_RMS && !p.has_norm_b) v *= inv_sqrt(quotient(wave_sum(lane < p.waves ? tmp[lane] : 0.0f), (float)p.n_in) + p.eps);
        v += add;
        if (p.glu) v = activate_glu(p.act - 1, v, wave_xor(v, 4));
        else if (p.act) v = activate(p.act - 1, v);
        v += r;
        if (ends) {
            if (to < p.rows0) y0[to] = v;
            else if (to < p.rows0 + p.rows1) y1[to - p.rows0] = v;
            else y2[to - p.rows0 - p.rows1] = v;
        }
        mine += STREAM_KEEP * step;
        at = mine * p.bundle + part;
        to = p.glu ? mine : at;
        has = lane % 4 == 0 && mine < p.n_bundles && part < p.bundle;
        ends = has && !(p.glu && part);
        r = p.has_res && ends ? res[to] : 0.0f;
        add = p.has_bias && has ? bias[at] : 0.0f;
    }
}
