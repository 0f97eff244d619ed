/* Attention of one token, which comes as the matmuls left it. A group has a head and a split of the positions; it rotates q and its own k, and its waves
 * share the positions, eight at a time: in the scores a lane has a position and every fourth piece of its key. The cache of a layer and the names are
 * those of cache.h. What a wave reads first is on its way before the token is there: earlier tokens have written it. */
#define ONE_WAVES 8
#define ONE_N 8     /* positions of a wave at a time */
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

/* Pair i of a head, or, behind the rotated ones, two elements as they are. */
DEVFN void KN(turn_pair)(GLOBAL const float *from, LOCAL float *to, uint i, uint dim, uint rot, uint halves, uint pos, uint2 turn, float mscale)
{
    uint in = 2 * i < rot, a = in && halves ? i : 2 * i, b = in && halves ? i + rot / 2 : 2 * i + 1;
    float xa = a < dim ? from[a] : 0.0f, xb = b < dim ? from[b] : 0.0f, c = 1.0f, s = 0.0f;
    if (in) {
        float angle = half_turns(pos, turn);
        c = cos_pi(angle) * mscale;
        s = sin_pi(angle) * mscale;
    }
    to[a] = xa * c - xb * s;
    to[b] = xa * s + xb * c;
}

KERNEL(KN(attend_one), 256, HeadP, BUF(1, const uint, batch), BUF(2, const uint2, turns_q), BUF(3, const uint2, turns_k), BUF(4, const float, q), BUF(5, const float, k),
       BUF(6, const float, v), BUF(7, uchar, k_cache), BUF(8, uchar, v_cache), BUF(9, float, k_scale), BUF(10, float, v_scale), BUF(11, float, out), BUF(12, float, part))
{
    SHARED float4 qs4[HEAD_MOST / 4];
    SHARED float own[2 * HEAD_MOST]; /* k and v of the token itself */
    SHARED float ps[ONE_WAVES * ONE_N];
    SHARED float sums[ONE_WAVES * HEAD_MOST];
    SHARED float found[2 * ONE_WAVES]; /* sum and largest score of each wave */
    LOCAL float *qs = (LOCAL float *)qs4, *pw = ps + wave * ONE_N;
    uint h = group_x, gqa = p.n_heads / p.n_kv_heads, kv_head = h / gqa, split = group_y, waves = group_size / WAVE;
    uint pos = batch[1], table = batch[2], n_blocks = pos / KV_BLOCK + 1, per = (n_blocks + p.splits - 1) / p.splits;
    uint b0 = split * per < n_blocks ? split * per : n_blocks, b1 = b0 + per < n_blocks ? b0 + per : n_blocks, owns = b1 == n_blocks && b0 < b1;
    uint begin = b0 * KV_BLOCK, end = b1 * KV_BLOCK < pos ? b1 * KV_BLOCK : pos; /* positions in the cache */
    uint j0 = begin + wave * ONE_N, piece0 = lane / ONE_N, c = lane % p.lanes, lanes_per = WAVE / p.lanes, cc = c < p.v_row ? c : 0;
    uint2 tq = turns_q[tid % (HEAD_MOST / 2) < p.rot_q / 2 ? tid % (HEAD_MOST / 2) : 0], tk = turns_k[tid % (HEAD_MOST / 2) < p.rot_k / 2 ? tid % (HEAD_MOST / 2) : 0];
    size_t own_base = (size_t)(batch[table + n_blocks - 1] * p.n_kv_heads + kv_head), base;
    uint4 kr[ONE_LOADS], vr[ONE_LOADS];
#define ONE_FETCH                                                                                                                  \
    {                                                                                                                              \
        uint b_ = j0 / KV_BLOCK, slot_ = j0 % KV_BLOCK;                                                                            \
        base = (size_t)(batch[table + (b_ < n_blocks ? b_ : n_blocks - 1)] * p.n_kv_heads + kv_head);                              \
        UNROLL for (uint i = 0; i < ONE_LOADS; i++)                                                                                \
        {                                                                                                                          \
            uint at_ = piece0 + 4 * i < p.k_row ? piece0 + 4 * i : 0, n_ = lane / p.lanes + i * lanes_per;                         \
            kr[i] = ((GLOBAL const uint4 *)k_cache)[(base * p.k_row + at_) * KV_BLOCK + slot_ + lane % ONE_N];                     \
            vr[i] = ((GLOBAL const uint4 *)v_cache)[(base * KV_BLOCK + slot_ + (n_ < ONE_N ? n_ : 0)) * p.v_row + cc];             \
        }                                                                                                                          \
    }
    ONE_FETCH
    START();
    for (uint i = tid; i < HEAD_MOST / 2; i += group_size) { /* threads of a group of at least HEAD_MOST / 2 have their turn already */
        if (i != tid) tq = turns_q[i < p.rot_q / 2 ? i : 0];
        KN(turn_pair)(q + (size_t)h * p.k_dim, qs, i, p.k_dim, p.rot_q, p.halves_q, pos, tq, p.mscale_q);
    }
    for (uint i = (tid + group_size - HEAD_MOST / 2 % group_size) % group_size; i < HEAD_MOST / 2; i += group_size) {
        if (i != tid % (HEAD_MOST / 2)) tk = turns_k[i < p.rot_k / 2 ? i : 0];
        KN(turn_pair)(k + (size_t)kv_head * p.k_dim, own, i, p.k_dim, p.rot_k, p.halves_k, pos, tk, p.mscale_k);
    }
    for (uint i = tid; i < HEAD_MOST; i += group_size) own[HEAD_MOST + i] = i < p.v_dim ? v[(size_t)kv_head * p.v_dim + i] : 0.0f;
    BARRIER();
    float most = -1e30f, sum = 0.0f, acc[KV_N];
    UNROLL for (uint i = 0; i < KV_N; i++) acc[i] = 0.0f;
    {
        float s = 0.0f;
        for (uint i = lane; i < p.k_dim; i += WAVE) s += qs[i] * own[i];
        s = wave_sum(s) * p.scale;
        if (owns && wave == 0) {
            most = s;
            sum = 1.0f;
            if (lane < p.lanes && c < p.v_row) {
                UNROLL for (uint i = 0; i < KV_N; i++) acc[i] = own[HEAD_MOST + c * KV_N + i];
            }
        }
    }
    for (uint first = begin; first < end; first += waves * ONE_N) {
        uint j = j0 + lane % ONE_N, seen = j < end;
        float s = 0.0f;
        UNROLL for (uint i = 0; i < ONE_LOADS; i++)
        {
            uint at = piece0 + 4 * i;
            if (at < p.k_row) s += KN(piece_dot)(kr[i], qs4 + at * (KV_N / 4)) KN_SCALE(k_scale[(base * p.k_groups + at / 2) * KV_BLOCK + j % KV_BLOCK]);
        }
        for (uint at = piece0 + 4 * ONE_LOADS; at < p.k_row; at += 4)
            s += KN(piece_dot)(((GLOBAL const uint4 *)k_cache)[(base * p.k_row + at) * KV_BLOCK + j % KV_BLOCK], qs4 + at * (KV_N / 4))
                KN_SCALE(k_scale[(base * p.k_groups + at / 2) * KV_BLOCK + j % KV_BLOCK]);
        s += wave_xor(s, 8);
        s += wave_xor(s, 16);
        s = seen ? s * p.scale : -1e30f;
        float now = fmaxf(most, wave_max8(s)), old = expf(most - now), e = seen ? expf(s - now) : 0.0f;
        most = now;
        if (lane < ONE_N) pw[lane] = e;
        e += wave_xor(e, 1);
        e += wave_xor(e, 2);
        sum = sum * old + e + wave_xor(e, 4);
        WAVE_SYNC();
        UNROLL for (uint i = 0; i < KV_N; i++) acc[i] *= old;
        for (uint i = 0; i < ONE_N; i += lanes_per) {
            uint n = i + lane / p.lanes;
            uint4 w = vr[0];
            UNROLL for (uint m = 1; m < ONE_LOADS; m++)
            {
                if (i == m * lanes_per) w = vr[m];
            }
            if (n < ONE_N && j0 + n < end) {
                if (i >= ONE_LOADS * lanes_per) w = ((GLOBAL const uint4 *)v_cache)[(base * KV_BLOCK + (j0 + n) % KV_BLOCK) * p.v_row + cc];
                KN(Piece) a = KN(piece)(w);
                float f = pw[n] KN_SCALE(v_scale[(base * p.v_groups + cc / 2) * KV_BLOCK + (j0 + n) % KV_BLOCK]);
                UNROLL for (uint x = 0; x < KV_N; x++) acc[x] += f * a.e[x];
            }
        }
        WAVE_SYNC();
        j0 += waves * ONE_N;
        if (first + waves * ONE_N < end) ONE_FETCH
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
    for (uint e = tid; e < p.v_dim; e += group_size) {
        float top = -1e30f, all = 0.0f, value = 0.0f;
        for (uint s = 0; s < waves; s++) top = fmaxf(top, found[2 * s + 1]);
        for (uint s = 0; s < waves; s++) {
            float f = expf(found[2 * s + 1] - top);
            all += found[2 * s] * f;
            value += sums[s * HEAD_MOST + e] * f;
        }
        if (p.splits == 1) out[(size_t)h * p.v_dim + e] = value / all;
        else {
            GLOBAL float *to = part + (size_t)(h * p.splits + split) * (HEAD_MOST + 2);
            to[2 + e] = value;
            if (e == 0) {
                to[0] = all;
                to[1] = top;
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
#undef ONE_FETCH
