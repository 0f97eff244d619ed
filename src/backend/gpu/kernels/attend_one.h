/* Attention of one token, which comes as the matmuls left it. A group has a head and a split of the positions; it rotates q and its own k, and its waves
 * share the positions, eight at a time (sixteen of short rows): in the scores a lane has a position and every fourth (second) piece of its key. The cache of a layer and the names are
 * those of cache.h. What a wave reads first is on its way before the token is there, and the rest on its way to L2: earlier tokens have written it. */
#define ONE_WAVES 8
#define ONE_MOST 16 /* positions of a wave at a time */
#define ONE_LOADS 4 /* pieces under way for each lane, of keys and of values */

#if KV_TYPE == 2
#define KN_SCALE(d) * (d)
#else
#define KN_SCALE(d)
#endif

DEVFN float KN(piece_dot)(uint4 w, LOCAL const float4 *q)
{
    KN(Piece) e = KN(piece)(w);
    float s = 0.0f;
    UNROLL for (uint i = 0; i < KV_N / 4; i++)
    {
        float4 f = q[i];
        s += e.e[4 * i] * f.x + e.e[4 * i + 1] * f.y + e.e[4 * i + 2] * f.z + e.e[4 * i + 3] * f.w;
    }
    return s;
}

KERNEL(KN(attend_one), 256, HeadP, BUF(1, const uint, batch), BUF(2, const uint2, turns_q), BUF(3, const uint2, turns_k), BUF(4, const float, q), BUF(5, const float, k),
       BUF(6, const float, v), BUF(7, uchar, k_cache), BUF(8, uchar, v_cache), BUF(9, float, k_scale), BUF(10, float, v_scale), BUF(11, float, out), BUF(12, float, part), BUF(13, uchar, next))
{
    SHARED float4 qs4[HEAD_MOST / 4];
    SHARED float own[2 * HEAD_MOST]; /* k and v of the token itself */
    SHARED float ps[ONE_WAVES * ONE_MOST];
    SHARED float sums[ONE_WAVES * HEAD_MOST];
    SHARED float found[2 * ONE_WAVES]; /* sum and largest score of each wave */
    LOCAL float *qs = (LOCAL float *)qs4, *pw = ps + wave * ONE_MOST;
    uint h = group_x, gqa = p.n_heads / p.n_kv_heads, kv_head = h / gqa, split = group_y, waves = group_size / WAVE;
    uint pos = batch[1], table = batch[2], n_blocks = pos / KV_BLOCK + 1, per = (n_blocks + p.splits - 1) / p.splits;
    uint b0 = split * per < n_blocks ? split * per : n_blocks, b1 = b0 + per < n_blocks ? b0 + per : n_blocks, owns = b1 == n_blocks && b0 < b1;
    uint begin = b0 * KV_BLOCK, end = b1 * KV_BLOCK < pos ? b1 * KV_BLOCK : pos; /* positions in the cache */
    uint wide = p.k_row > 2 * ONE_LOADS || p.v_row > 2 * ONE_LOADS, some = wide ? 8 : 16, skip = WAVE / some; /* positions of a wave at a time */
    uint stride = waves * some, j0 = begin + wave * some, piece0 = lane / some, c = lane % p.lanes, lanes_per = WAVE / p.lanes, cc = c < p.v_row ? c : 0;
    uint is_k = tid / (HEAD_MOST / 2) % 2, pair = tid % (HEAD_MOST / 2), rot = is_k ? p.rot_k : p.rot_q; /* the first half of a group turns q, the second k */
    Turn turn = turn_of(pos, (is_k ? turns_k : turns_q)[pair < rot / 2 ? pair : 0], pair < rot / 2, is_k ? p.mscale_k : p.mscale_q);
    size_t own_base = (size_t)(batch[table + n_blocks - 1] * p.n_kv_heads + kv_head), base;
    uint4 kr[ONE_LOADS], vr[ONE_LOADS];
#define ONE_BASE(j) ((size_t)(batch[table + ((j) / KV_BLOCK < n_blocks ? (j) / KV_BLOCK : n_blocks - 1)] * p.n_kv_heads + kv_head))
#define ONE_KEYS(base, j) \
    UNROLL for (uint i_ = 0; i_ < ONE_LOADS; i_++) kr[i_] = ((GLOBAL const uint4 *)k_cache)[(base * p.k_row + (piece0 + skip * i_ < p.k_row ? piece0 + skip * i_ : 0)) * KV_BLOCK + (j) % KV_BLOCK + lane % some]
#define ONE_VALUES(base, j) \
    UNROLL for (uint i_ = 0; i_ < ONE_LOADS; i_++) vr[i_] = ((GLOBAL const uint4 *)v_cache)[(base * KV_BLOCK + (j) % KV_BLOCK + (lane / p.lanes + i_ * lanes_per < some ? lane / p.lanes + i_ * lanes_per : 0)) * p.v_row + cc]
    base = ONE_BASE(j0);
    ONE_KEYS(base, j0);
    ONE_VALUES(base, j0);
    UNROLL_N(1) for (uint j = j0 + stride; j < end; j += stride) /* lines of 128 bytes: a piece of eight keys; as many of values */
    {
        size_t b = ONE_BASE(j);
        for (uint i = 0; i < some; i += 8) {
            if (lane < p.k_row) PREFETCH((GLOBAL const uint4 *)k_cache + (b * p.k_row + lane) * KV_BLOCK + j % KV_BLOCK + i);
            if (lane < p.v_row) PREFETCH((GLOBAL const uint4 *)v_cache + (b * KV_BLOCK + j % KV_BLOCK + i) * p.v_row + lane * 8);
        }
    }
    START();
    UNROLL_N(1) for (uint i = tid; i < HEAD_MOST; i += group_size)
    {
        if (group_size < HEAD_MOST) { /* more than one pair for a thread */
            is_k = i / (HEAD_MOST / 2);
            pair = i % (HEAD_MOST / 2);
            rot = is_k ? p.rot_k : p.rot_q;
            turn = turn_of(pos, (is_k ? turns_k : turns_q)[pair < rot / 2 ? pair : 0], pair < rot / 2, is_k ? p.mscale_k : p.mscale_q);
        }
        GLOBAL const float *from = is_k ? k + (size_t)kv_head * p.k_dim : q + (size_t)h * p.k_dim;
        LOCAL float *to = is_k ? own : qs;
        uint halves = 2 * pair < rot && (is_k ? p.halves_k : p.halves_q), a = halves ? pair : 2 * pair, b = halves ? pair + rot / 2 : 2 * pair + 1;
        float xa = a < p.k_dim ? from[a] : 0.0f, xb = b < p.k_dim ? from[b] : 0.0f, e = i < p.v_dim ? v[(size_t)kv_head * p.v_dim + i] : 0.0f;
        to[a] = xa * turn.c - xb * turn.s;
        to[b] = xa * turn.s + xb * turn.c;
        own[HEAD_MOST + i] = e;
    }
    BARRIER();
    float most = -1e30f, sum = 0.0f, acc[KV_N];
    UNROLL for (uint i = 0; i < KV_N; i++) acc[i] = 0.0f;
    if (owns && wave == waves - 1) { /* the token itself, by the wave that has the fewest others */
        float s = 0.0f;
        for (uint i = lane; i < p.k_dim; i += WAVE) s += qs[i] * own[i];
        most = wave_sum(s) * p.scale;
        sum = 1.0f;
        if (lane < p.lanes && c < p.v_row) {
            UNROLL for (uint i = 0; i < KV_N; i++) acc[i] = own[HEAD_MOST + c * KV_N + i];
        }
    }
    UNROLL_N(1) for (uint first = begin; first < end; first += stride)
    {
        uint j = j0 + lane % some, j1 = j0 + stride, seen = j < end, more = first + stride < end;
        size_t base1 = more ? ONE_BASE(j1) : base;
        float s = 0.0f, other;
        UNROLL for (uint i = 0; i < ONE_LOADS; i++)
        {
            uint at = piece0 + skip * i;
            if (at < p.k_row) s += KN(piece_dot)(kr[i], qs4 + at * (KV_N / 4)) KN_SCALE(k_scale[(base * p.k_groups + at / 2) * KV_BLOCK + j % KV_BLOCK]);
        }
        for (uint at = piece0 + skip * ONE_LOADS; at < p.k_row; at += skip)
            s += KN(piece_dot)(((GLOBAL const uint4 *)k_cache)[(base * p.k_row + at) * KV_BLOCK + j % KV_BLOCK], qs4 + at * (KV_N / 4))
                KN_SCALE(k_scale[(base * p.k_groups + at / 2) * KV_BLOCK + j % KV_BLOCK]);
        if (more) ONE_KEYS(base1, j1);
        s += wave_xor(s, 16);
        other = wave_xor(s, 8);
        s += wide ? other : 0.0f;
        s = seen ? s * p.scale : -1e30f;
        float now = wave_max8(s);
        now = fmaxf(most, fmaxf(now, wave_xor(now, 8)));
        float old = expf(most - now), e = seen ? expf(s - now) : 0.0f;
        most = now;
        if (lane < some) pw[lane] = e;
        e += wave_xor(e, 1);
        e += wave_xor(e, 2);
        e += wave_xor(e, 4);
        other = wave_xor(e, 8);
        sum = sum * old + e + (wide ? 0.0f : other);
        WAVE_SYNC();
        UNROLL for (uint i = 0; i < KV_N; i++) acc[i] *= old;
        UNROLL for (uint m = 0; m < ONE_LOADS; m++)
        {
            uint n = m * lanes_per + lane / p.lanes;
            if (m * lanes_per < some && n < some && j0 + n < end) {
                KN(Piece) a = KN(piece)(vr[m]);
                float f = pw[n] KN_SCALE(v_scale[(base * p.v_groups + cc / 2) * KV_BLOCK + (j0 + n) % KV_BLOCK]);
                UNROLL for (uint x = 0; x < KV_N; x++) acc[x] += f * a.e[x];
            }
        }
        UNROLL_N(1) for (uint n = ONE_LOADS * lanes_per + lane / p.lanes; n < some; n += lanes_per)
        {
            if (j0 + n >= end) continue;
            KN(Piece) a = KN(piece)(((GLOBAL const uint4 *)v_cache)[(base * KV_BLOCK + (j0 + n) % KV_BLOCK) * p.v_row + cc]);
            float f = pw[n] KN_SCALE(v_scale[(base * p.v_groups + cc / 2) * KV_BLOCK + (j0 + n) % KV_BLOCK]);
            UNROLL for (uint x = 0; x < KV_N; x++) acc[x] += f * a.e[x];
        }
        if (more) ONE_VALUES(base1, j1);
        WAVE_SYNC();
        j0 = j1;
        base = base1;
    }
    for (uint m = p.lanes; m < WAVE; m *= 2) {
        UNROLL for (uint i = 0; i < KV_N; i++) acc[i] += wave_xor(acc[i], m);
    }
    if (lane < p.lanes && c < p.v_row) {
        UNROLL for (uint i = 0; i < KV_N; i++) sums[wave * HEAD_MOST + c * KV_N + i] = acc[i];
    }
    if (lane == 0) {
        found[2 * wave] = sum;
        found[2 * wave + 1] = most;
    }
    BARRIER();
    /* every wave for itself: what each wave's sums are multiplied by, relative to the largest score of all */
    uint w8 = lane % ONE_WAVES;
    float top = w8 < waves ? found[2 * w8 + 1] : -1e30f, share = w8 < waves ? found[2 * w8] : 0.0f, all;
    float largest = wave_max8(top), factor = expf(top - largest);
    all = share * factor;
    all += wave_xor(all, 1);
    all += wave_xor(all, 2);
    all += wave_xor(all, 4);
    if (lane < ONE_WAVES) pw[lane] = factor;
    WAVE_SYNC();
    UNROLL_N(1) for (uint e0 = 0; e0 < p.v_dim; e0 += group_size)
    {
        uint e = e0 + tid, there = e < p.v_dim;
        float value = 0.0f;
        SKIP_UNLESS(e0 + wave * WAVE < p.v_dim) {
            UNROLL for (uint s = 0; s < ONE_WAVES; s++)
            {
                if (s < waves && there) value += sums[s * HEAD_MOST + e] * pw[s];
            }
            if (p.splits == 1) {
                value = quotient(value, all);
                if (there) out[(size_t)h * p.v_dim + e] = value;
                if (p.feeds) feed_16(next, p.feeds, h * p.v_dim + e, there, value CTX);
            } else if (there) {
                GLOBAL float *to = part + (size_t)(h * p.splits + split) * HEAD_PART;
                to[2 + e] = value;
                if (e == 0) {
                    to[0] = all;
                    to[1] = largest;
                }
            }
        }
    }
    uint stores = owns && h % gqa == 0;
#if KV_TYPE != 2
    if (stores && wave == 0)
#endif
        KN(put)(k_cache, k_scale, own_base, 1, p.k_row, p.k_groups, p.k_row * KV_N, pos % KV_BLOCK, stores && wave == 0, own CTX);
#if KV_TYPE != 2
    if (stores && wave == waves - 1)
#endif
        KN(put)(v_cache, v_scale, own_base, 0, p.v_row, p.v_groups, p.v_row * KV_N, pos % KV_BLOCK, stores && wave == waves - 1, own + HEAD_MOST CTX);
    (void)k_scale;
    (void)v_scale;
}
#undef ONE_BASE
#undef ONE_KEYS
#undef ONE_VALUES

/* The splits of a head together, as merge does it. */
KERNEL(KN(merge_one), 256, HeadP, BUF(1, const float, part), BUF(2, float, out), BUF(3, uchar, next))
{
    START();
    uint h = group_x;
    GLOBAL const float *from = part + (size_t)(h * p.splits) * HEAD_PART;
    float most = -1e30f, sum = 0.0f;
    for (uint s = 0; s < p.splits; s++) most = fmaxf(most, from[s * HEAD_PART + 1]);
    for (uint s = 0; s < p.splits; s++) sum += from[s * HEAD_PART] * expf(from[s * HEAD_PART + 1] - most);
    for (uint i0 = 0; i0 < p.v_dim; i0 += group_size) {
        uint i = i0 + tid, there = i < p.v_dim;
        float v = 0.0f;
        SKIP_UNLESS(i0 + wave * WAVE < p.v_dim) {
            for (uint s = 0; s < p.splits && there; s++) v += from[s * HEAD_PART + 2 + i] * expf(from[s * HEAD_PART + 1] - most);
            v = quotient(v, sum);
            if (there) out[(size_t)h * p.v_dim + i] = v;
            if (p.feeds) feed_16(next, p.feeds, h * p.v_dim + i, there, v CTX);
        }
    }
}
