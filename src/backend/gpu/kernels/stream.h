/* A matmul of one token. A group has rows that follow each other, its waves take them in turn, in bundles of one or two, each of which comes into the
 * wave's part of shared memory by one copy; those that find room there are on their way before the activations exist. The token is rounded by the step before, if
 * that feeds this one, or by the group itself. Rows leave four sums each in shared memory, and then a thread ends a result: the RMS norm's factor, which is one
 * number, bias, activation, addition; sixteen threads round what the next matmul is fed with. What is done by every wave counts: a group's time is
 * instructions, not bytes (bench/NOTES.md). Re-included with
 *   MS_NAME  kernel
 *   MS_I8    activations as int8 units, else f32
 *   MS_FED   1: the step before has prepared them: x holds units, and squares if there is a norm; 2: so few that lanes keep theirs in registers
 * Shared memory: p.waves rings of p.ring bytes, the activations, the sums. Groups: p.n_groups, p.waves waves. */
#define STREAM_SLOTS 4
#define STREAM_WAVES 32
#define STREAM_PRE 3  /* pieces of 4 elements of a token that a thread has under way */

#ifndef STREAM_SHARED
#define STREAM_SHARED
/* The token of a matmul in shared memory: int8 units as feed.h has them, or f32 (planes f of 4 elements). */
typedef struct {
    LOCAL uint4 *q;
    LOCAL float4 *d, *f;
    LOCAL uchar *q_put, *d_put, *f_put; /* where this thread's first piece goes */
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

/* Puts it there: normed, but for the factor of an RMS norm, for which tmp[wave] gets the sum of squares of what the wave has. a, nw: the first pieces of x and of the norm's
 * weights, which may be fetched before x is there. */
DEVFN void prepare_token(MatP p, uint as_i8, GLOBAL const float *x, GLOBAL const float *norm_w, GLOBAL const float *norm_b, Ahead a, Ahead nw, LOCAL float *tmp, Token to CTX_PARAM)
{
    uint n_pieces = 8 * p.w.n_units, step = STREAM_PRE * group_size;
    float s = 0.0f;
    Ahead next = a;
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
                    Quant e = quantize_16(v CTX);
                    if (i < n_pieces) {
                        LOCAL float *d = (LOCAL float *)(to.d_put + 16 * units);
                        *(LOCAL uint *)(to.q_put + 16 * units) = e.q;
                        if (tid % 4 == 0) d[0] = e.d;
                        if (tid % 4 == 0) d[2] = e.d * e.sum;
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

/* This lane's part of the sum of squares of a token that the step before has prepared. */
DEVFN float take_squares(GLOBAL const float *squares, uint n CTX_PARAM)
{
    float s0 = lane < n ? squares[lane] : 0.0f, s1 = lane + WAVE < n ? squares[lane + WAVE] : 0.0f;
    float s2 = lane + 2 * WAVE < n ? squares[lane + 2 * WAVE] : 0.0f, s3 = lane + 3 * WAVE < n ? squares[lane + 3 * WAVE] : 0.0f;
    s0 += s1 + s2 + s3;
    UNROLL_N(4) for (uint i = lane + 4 * WAVE; i < n; i += WAVE) s0 += squares[i];
    return s0;
}

/* Copies of a wave's first bundles. */
DEVFN void copy_bundles(MatP p, LOCAL uchar *ring, GLOBAL const uchar *w, uint first, uint end, LOCAL StreamBar *bar CTX_PARAM)
{
    if (lane == 0) {
        UNROLL_N(1) for (uint k = 0, b = first; k < p.slots && b < end; k++, b += p.waves)
            stream_copy(ring + k * p.bundle_bytes, w + (size_t)b * p.bundle_bytes, p.bundle_bytes, bar + k);
    }
}

DEVFN float parts_sum(float4 a) { return (a.x + a.y) + (a.z + a.w); }
#endif

KERNEL(FN(MS_NAME), 1024, MatP, BUF(1, const uchar, w), BUF(2, const float, x), BUF(3, const float, norm_w), BUF(4, const float, norm_b), BUF(5, const float, bias),
       BUF(6, const float, res), BUF(7, float, y0), BUF(8, float, y1), BUF(9, float, y2), BUF(10, uchar, next), BUF(11, const float, next_w), BUF(12, uint, meet))
{
    SHARED_MOST(room, STREAM_ROOM);
    SHARED StreamBar bars[STREAM_WAVES * STREAM_SLOTS];
#if !MS_FED
    SHARED float tmp[STREAM_WAVES];
#endif
    uint n_units = p.w.n_units, step = p.waves, less = group_x < p.n_large ? 0 : p.piece, begin = group_x * p.per_group - (less ? (group_x - p.n_large) * less : 0), first = begin + wave, slot = 0, parity = 0;
    uint all = begin + p.per_group - less, end = all < p.n_bundles ? all : p.n_bundles, rows_out = p.glu ? 1 : p.bundle, out0 = begin * rows_out, n_out = (end - begin) * rows_out;
    LOCAL uchar *ring = kept_local(room + wave * p.ring), *token = kept_local(room + p.waves * p.ring);
    LOCAL float4 *sums = (LOCAL float4 *)(room + p.sums_at); /* of each row, in four parts */
    LOCAL StreamBar *bar = bars + wave * STREAM_SLOTS;
    StreamAt bar_at = stream_at(bar);
    KEEP(bar_at);
    START_NEXT();
#if !MS_FED
    Ahead nw = fetch_ahead(norm_w, p.norm != NORM_NONE ? 8 * n_units : 0, 0 CTX);
#endif
    /* Of the result that this thread ends. If there are few, half of the waves end them for memory, the other half the same ones for the next matmul. */
    uint twice = p.feeds && n_out <= p.waves / 2 * WAVE, enders = twice ? p.waves / 2 : p.waves, feeder = twice && wave >= enders;
    uint mine = (wave - feeder * enders) * WAVE + lane, ends = wave < (1 + twice) * enders;
    float next_norm = p.feeds_norm && mine < n_out ? next_w[out0 + mine] : 1.0f;
    float add = p.has_bias && mine < n_out ? bias[p.glu ? 2 * (out0 + mine) : out0 + mine] : 0.0f;
    if (lane == 0) {
        UNROLL_N(1) for (uint k = 0; k < p.slots; k++) stream_init(bar + k);
        stream_ready();
    }
    if (wave < p.early) copy_bundles(p, ring, w, first, end, bar CTX);
    Token t;
    t.q = (LOCAL uint4 *)token;
    t.d = (LOCAL float4 *)(t.q + 2 * n_units);
#if !MS_FED
    t.f = (LOCAL float4 *)t.q;
    t.q_put = kept_local(token + ((tid % 8 / 4 * n_units + tid / 8) * 4 + tid % 4) * 4);
    t.d_put = kept_local((LOCAL float *)(t.d + tid / 8) + tid % 8 / 4);
    t.f_put = kept_local(t.f + tid % 8 * n_units + tid / 8);
#endif
    if (p.meets == MEET_JOIN) START_WITH(meet);
    else START();
    if (p.meets == MEET_TELL) TELL(meet);
#if MS_FED
    (void)norm_w; /* the same arguments for all */
    (void)norm_b;
#endif
#if MS_FED == 2
    uint u0 = lane < n_units ? lane : 0, u1 = lane + WAVE < n_units ? lane + WAVE : 0;
    uint4 a0 = ((GLOBAL const uint4 *)x)[u0], a1 = ((GLOBAL const uint4 *)x)[n_units + u0], b0 = ((GLOBAL const uint4 *)x)[u1], b1 = ((GLOBAL const uint4 *)x)[n_units + u1];
    float4 ad = ((GLOBAL const float4 *)x)[2 * n_units + u0], bd = ((GLOBAL const float4 *)x)[2 * n_units + u1];
    if (lane >= n_units) ad.x = ad.y = ad.z = ad.w = 0.0f;
    if (lane + WAVE >= n_units) bd.x = bd.y = bd.z = bd.w = 0.0f;
#elif MS_FED
    GLOBAL const uint4 *from = (GLOBAL const uint4 *)x;
    uint n_from = FED_UNIT / 16 * n_units;
    uint4 t0 = from[tid < n_from ? tid : 0], t1 = from[tid + group_size < n_from ? tid + group_size : 0];
#else
    Ahead t0 = fetch_ahead(x, 8 * n_units, 0 CTX);
#endif
    if (wave >= p.early) copy_bundles(p, ring, w, first, end, bar CTX); /* the token, which everybody waits for, does not queue behind them */
#if MS_FED == 1
    if (tid < n_from) t.q[tid] = t0;
    if (tid + group_size < n_from) t.q[tid + group_size] = t1;
    for (uint i = tid + 2 * group_size; i < n_from; i += group_size) t.q[i] = from[i];
#endif
    float r = p.has_res && mine < n_out ? res[out0 + mine] : 0.0f;
#if MS_FED
    float square = p.norm != NORM_NONE && mine - lane < n_out ? take_squares((GLOBAL const float *)x + FED_UNIT / 4 * n_units, 2 * n_units CTX) : 0.0f;
#else
    prepare_token(p, MS_I8, x, norm_w, norm_b, t0, nw, tmp, t CTX);
#endif
#if MS_FED != 2
    BARRIER();
#endif
    UNROLL_N(1) for (uint b = first; b < end; b += step)
    {
        LOCAL const uchar *row = ring + slot * p.bundle_bytes, *row1 = row + p.w.row_bytes;
        float v = 0.0f, v1 = 0.0f;
        stream_wait(bar_at, slot, parity);
#if MS_FED == 2
        v = FN(unit_dot_16)(FN(unit_decode)(FN(unit_fetch_local)(row, u0, p.w), p.w), a0, a1, ad) + FN(unit_dot_16)(FN(unit_decode)(FN(unit_fetch_local)(row, u1, p.w), p.w), b0, b1, bd);
        if (p.bundle == 2)
            v1 = FN(unit_dot_16)(FN(unit_decode)(FN(unit_fetch_local)(row1, u0, p.w), p.w), a0, a1, ad) + FN(unit_dot_16)(FN(unit_decode)(FN(unit_fetch_local)(row1, u1, p.w), p.w), b0, b1, bd);
#else
        if (p.bundle == 2) {
            UNROLL_N(1) for (uint u = lane; u < n_units; u += WAVE)
            {
                FN(Unit) a = FN(unit_decode)(FN(unit_fetch_local)(row, u, p.w), p.w), a1 = FN(unit_decode)(FN(unit_fetch_local)(row1, u, p.w), p.w);
#if MS_I8
                uint4 x0 = t.q[u], x1 = t.q[n_units + u];
                float4 d = t.d[u];
                v += FN(unit_dot_16)(a, x0, x1, d);
                v1 += FN(unit_dot_16)(a1, x0, x1, d);
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
                v += FN(unit_dot_16)(FN(unit_decode)(a, p.w), t.q[u], t.q[n_units + u], t.d[u]);
                v += FN(unit_dot_16)(FN(unit_decode)(a1, p.w), t.q[u + WAVE], t.q[n_units + u + WAVE], t.d[u + WAVE]);
            }
            if (u < n_units) v += FN(unit_dot_16)(FN(unit_decode)(FN(unit_fetch_local)(row, u, p.w), p.w), t.q[u], t.q[n_units + u], t.d[u]);
#else
            UNROLL_N(1) for (uint u = lane; u < n_units; u += WAVE)
            {
                FN(Unit) a = FN(unit_decode)(FN(unit_fetch_local)(row, u, p.w), p.w);
                UNROLL for (uint e = 0; e < 8; e++) v += dot_4(FN(unit_value)(a, e), t.f[e * n_units + u]);
            }
#endif
        }
#endif
        WAVE_SYNC(); /* all have read it */
        if (lane == 0 && b + p.slots * step < end)
            stream_copy(ring + slot * p.bundle_bytes, w + (size_t)(b + p.slots * step) * p.bundle_bytes, p.bundle_bytes, bar + slot);
        slot++;
        if (slot == p.slots) {
            slot = 0;
            parity ^= 1;
        }
        v = p.bundle == 2 ? (lane & 16 ? v1 : v) + wave_xor(lane & 16 ? v : v1, 16) : v + wave_xor(v, 16);
        v += wave_xor(v, 8);
        v += wave_xor(v, 4);
        if ((lane & 12) == 0 && lane / 16 < p.bundle) ((LOCAL float *)sums)[4 * ((b - begin) * p.bundle + lane / 16) + lane % 4] = v;
    }
    BARRIER();
    UNROLL_N(1) for (uint i0 = 0; i0 < n_out && ends; i0 += enders * WAVE) /* a thread ends a result */
    {
        SKIP_UNLESS(i0 + mine - lane < n_out) {
            uint i = i0 + mine, there = i < n_out, to = out0 + i;
            float factor = 1.0f, v = 0.0f;
#if MS_FED
            if (p.norm != NORM_NONE) factor = inv_sqrt(quotient(wave_sum(square), (float)p.n_in) + p.eps);
#else
            if (p.norm == NORM_RMS && !p.has_norm_b) factor = inv_sqrt(quotient(wave_sum(lane < p.waves ? tmp[lane] : 0.0f), (float)p.n_in) + p.eps);
#endif
            if (i0 > 0 && there) {
                add = p.has_bias ? bias[p.glu ? 2 * to : to] : 0.0f;
                r = p.has_res ? res[to] : 0.0f;
                next_norm = p.feeds_norm ? next_w[to] : 1.0f;
            }
            if (there) {
                v = parts_sum(sums[p.glu ? 2 * i : i]) * factor + add;
                if (p.glu) v = activate_glu(p.act - 1, v, parts_sum(sums[2 * i + 1]) * factor + (p.has_bias ? bias[2 * to + 1] : 0.0f));
                else if (p.act) v = activate(p.act - 1, v);
                v += r;
            }
            if (p.feeds && feeder == twice) feed_16(next, p.feeds, to, there, v * next_norm CTX);
            if (feeder) continue;
            if (there) {
                if (to < p.rows0) y0[to] = v;
                else if (to < p.rows0 + p.rows1) y1[to - p.rows0] = v;
                else y2[to - p.rows0 - p.rows1] = v;
            }
            if (p.feeds_norm) {
                float s = wave_sum16(v * v);
                if (there && i % 16 == 0) ((GLOBAL float *)(next + FED_UNIT * p.feeds))[to / 16] = s;
            }
        }
    }
    if (p.meets == MEET_JOIN) START(); /* the launch behind waits for this one only */
}
