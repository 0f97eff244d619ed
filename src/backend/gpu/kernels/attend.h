/* Attention over the paged cache, for one type of cache. Re-included for each with
 *   KV       name
 *   KV_TYPE  0 f16, 1 f32, 2 int8 with a float scale per 32 (q8_0)
 *   KV_N     elements in 16 bytes
 * The cache of a layer: keys [block][kv head][k_row][32 positions][16 bytes], so that a wave whose lanes are positions reads in one go;
 * values [block][kv head][32 positions][v_row][16 bytes]; scales of int8 [block][kv head][group][32 positions].
 * The batch block holds {id, pos, start of the sequence's block table, -} per token. */
#define KN_JOIN(a, b) a##_##b
#define KN_PUT(a, b) KN_JOIN(a, b)
#define KN(name) KN_PUT(name, KV)

#define HEAD_MOST 256 /* k_dim and v_dim, with their padding */
#define ROWS_MOST 8   /* waves of a group */
#define KV_BLOCK 32

/* The angle of `pos` turns of turn = {high, low} * 2^-64, as a fraction of half a turn in [-1, 1): exact for any position. */
DEVFN float half_turns(uint pos, uint2 turn) { return (float)(int)(pos * turn.x + mul_high(pos, turn.y)) * (1.0f / 2147483648.0f); }

/* Rotates q and k by their positions, in place, and puts k and v into the cache. A wave per (token, head of q, k or v): groups x over
 * heads, y tokens. */
KERNEL(KN(rope), 128, HeadP, BUF(1, const uint, batch), BUF(2, const uint2, turns_q), BUF(3, const uint2, turns_k), BUF(4, float, q),
       BUF(5, float, k), BUF(6, const float, v), BUF(7, uchar, k_cache), BUF(8, uchar, v_cache), BUF(9, float, k_scale), BUF(10, float, v_scale))
{
    SHARED float head[4 * HEAD_MOST];
    START();
    uint h = group_x * (group_size / WAVE) + wave, t = group_y, n_q = p.n_heads, n_k = n_q + p.n_kv_heads, n_all = p.store ? n_k + p.n_kv_heads : n_q;
    uint pos = batch[4 * t + 1], slot = pos % KV_BLOCK;
    uint is_q = h < n_q, is_k = !is_q && h < n_k, kv_head = is_q ? 0 : is_k ? h - n_q : h - n_k;
    uint dim = h >= n_all ? 0 : is_q || is_k ? p.k_dim : p.v_dim, rot = h >= n_all ? 0 : is_q ? p.rot_q : is_k ? p.rot_k : 0;
    uint halves = is_q ? p.halves_q : p.halves_k, block = p.store ? batch[batch[4 * t + 2] + pos / KV_BLOCK] : 0;
    float mscale = is_q ? p.mscale_q : p.mscale_k;
    LOCAL float *x = head + wave * HEAD_MOST;

    for (uint i = lane; i < HEAD_MOST; i += WAVE) {
        float e = 0.0f;
        if (i < dim) e = is_q ? q[(size_t)t * p.q_stride + h * p.k_dim + i] : is_k ? k[(size_t)t * p.k_stride + kv_head * p.k_dim + i] : v[(size_t)t * p.v_stride + kv_head * p.v_dim + i];
        x[i] = e;
    }
    BARRIER();
    for (uint i = lane; i < rot / 2; i += WAVE) {
        uint a = halves ? i : 2 * i, b = halves ? i + rot / 2 : 2 * i + 1;
        float angle = half_turns(pos, is_q ? turns_q[i] : turns_k[i]) * 3.14159265358979f, c = cosf(angle) * mscale, s = sinf(angle) * mscale;
        float xa = x[a], xb = x[b];
        x[a] = xa * c - xb * s;
        x[b] = xa * s + xb * c;
    }
    BARRIER();
    for (uint i = lane; i < dim; i += WAVE) {
        if (is_q && rot) q[(size_t)t * p.q_stride + h * p.k_dim + i] = x[i];
        if (is_k && rot) k[(size_t)t * p.k_stride + kv_head * p.k_dim + i] = x[i];
    }
    {
        uint n_pieces = is_k ? p.k_row : p.v_row, stores = p.store && !is_q && h < n_all;
        size_t base = (size_t)(block * p.n_kv_heads + kv_head);
        GLOBAL uchar *to = is_k ? k_cache : v_cache;
        for (uint i0 = 0; i0 < HEAD_MOST; i0 += WAVE) { /* the padding of a row is stored as zeros */
            uint i = i0 + lane, piece = i / KV_N;
            size_t at = is_k ? (base * n_pieces + piece) * KV_BLOCK + slot : (base * KV_BLOCK + slot) * n_pieces + piece;
            float e = x[i];
#if KV_TYPE == 2
            float d = wave_max(fabsf(e)) / 127.0f;
            uint group = i / WAVE, n_groups = is_k ? p.k_groups : p.v_groups;
            if (stores && lane == 0 && group < n_groups) (is_k ? k_scale : v_scale)[(base * n_groups + group) * KV_BLOCK + slot] = d;
            if (stores && piece < n_pieces) to[at * 16 + i % KV_N] = (uchar)(uint)(int)(d > 0.0f ? rintf(e / d) : 0.0f);
#elif KV_TYPE == 1
            if (stores && piece < n_pieces) ((GLOBAL float *)to)[at * 4 + i % KV_N] = e;
#else
            if (stores && piece < n_pieces) ((GLOBAL ushort *)to)[at * 8 + i % KV_N] = f2h(e);
#endif
        }
    }
    (void)k_scale;
    (void)v_scale;
}

typedef struct {
    float e[KV_N];
} KN(Piece);

DEVFN KN(Piece) KN(piece)(uint4 w)
{
    KN(Piece) r;
#if KV_TYPE == 2
    UNROLL for (uint i = 0; i < 4; i++)
    {
        r.e[i] = (float)byte_signed(w.x, i);
        r.e[4 + i] = (float)byte_signed(w.y, i);
        r.e[8 + i] = (float)byte_signed(w.z, i);
        r.e[12 + i] = (float)byte_signed(w.w, i);
    }
#elif KV_TYPE == 1
    r.e[0] = bits_f32(w.x);
    r.e[1] = bits_f32(w.y);
    r.e[2] = bits_f32(w.z);
    r.e[3] = bits_f32(w.w);
#else
    r.e[0] = h2f_lo(w.x);
    r.e[1] = h2f_hi(w.x);
    r.e[2] = h2f_lo(w.y);
    r.e[3] = h2f_hi(w.y);
    r.e[4] = h2f_lo(w.z);
    r.e[5] = h2f_hi(w.z);
    r.e[6] = h2f_lo(w.w);
    r.e[7] = h2f_hi(w.w);
#endif
    return r;
}

/* A wave per row, a row being one head of one token; the rows of a group share a kv head. Groups: x kv head and tile of rows,
 * y splits of the positions. Without splits it writes the result, else {sum, largest score, sums of values} to part. */
KERNEL(KN(attend), 256, HeadP, BUF(1, const uint, batch), BUF(2, const float, q), BUF(3, const uchar, k_cache), BUF(4, const uchar, v_cache),
       BUF(5, const float, k_scale), BUF(6, const float, v_scale), BUF(7, float, out), BUF(8, float, part))
{
    SHARED float4 qs4[ROWS_MOST * HEAD_MOST / 4];
    SHARED float ps[ROWS_MOST * KV_BLOCK];
    SHARED float sums[ROWS_MOST * WAVE * KV_N];
    LOCAL float *qs = (LOCAL float *)qs4 + wave * HEAD_MOST;
    START();
    uint gqa = p.n_heads / p.n_kv_heads, kv_head = group_x % p.n_kv_heads, first = group_x / p.n_kv_heads * p.waves, n_rows = p.n * gqa;
    uint row = first + wave, live = row < n_rows, t = (live ? row : n_rows - 1) / gqa, h = kv_head * gqa + row % gqa, split = group_y;
    uint pos = batch[4 * t + 1], table = batch[4 * t + 2], b0, b1, longest = 0;
    {
        uint n_blocks = pos / KV_BLOCK + 1, per = (n_blocks + p.splits - 1) / p.splits;
        b0 = split * per < n_blocks ? split * per : n_blocks;
        b1 = b0 + per < n_blocks ? b0 + per : n_blocks;
        for (uint r = first; r < first + p.waves && r < n_rows; r += 1) { /* most blocks that a wave of the group has to read */
            uint n = batch[4 * (r / gqa) + 1] / KV_BLOCK + 1, per_r = (n + p.splits - 1) / p.splits;
            longest = per_r > longest ? per_r : longest;
        }
    }
    for (uint i = lane; i < HEAD_MOST; i += WAVE) qs[i] = i < p.k_dim ? q[(size_t)t * p.q_stride + h * p.k_dim + i] * p.scale : 0.0f;
    BARRIER();

    float most = -1e30f, sum = 0.0f, acc[KV_N];
    UNROLL for (uint i = 0; i < KV_N; i++) acc[i] = 0.0f;
    for (uint step = 0; step < longest; step++) {
        uint b = b0 + step, runs = b < b1 && live, at = runs ? b : 0, block = batch[table + at], j = b * KV_BLOCK + lane;
        size_t base = (size_t)(block * p.n_kv_heads + kv_head);
        float s = 0.0f, d = 1.0f;
        GLOBAL const uint4 *kp = (GLOBAL const uint4 *)k_cache + base * p.k_row * KV_BLOCK + lane;
        UNROLL_N(8) for (uint c = 0; c < p.k_row; c++)
        {
            KN(Piece) k = KN(piece)(kp[c * KV_BLOCK]);
            float dot = 0.0f;
            UNROLL for (uint i = 0; i < KV_N; i++) dot += k.e[i] * qs[c * KV_N + i];
#if KV_TYPE == 2
            d = k_scale[(base * p.k_groups + c / 2) * KV_BLOCK + lane];
#endif
            s += dot * d;
        }
        uint seen = runs && j <= pos;
        s = seen ? s : -1e30f;
        float now = fmaxf(most, wave_max(s)), old = expf(most - now), e = seen ? expf(s - now) : 0.0f;
        sum = sum * old + wave_sum(e);
        most = now;
        ps[wave * KV_BLOCK + lane] = e;
        WAVE_SYNC();
        UNROLL for (uint i = 0; i < KV_N; i++) acc[i] *= old;
        uint c = lane % p.lanes, per = WAVE / p.lanes;
        GLOBAL const uint4 *vp = (GLOBAL const uint4 *)v_cache + base * KV_BLOCK * p.v_row + c;
        if (c < p.v_row && runs) {
            UNROLL_N(8) for (uint i = lane / p.lanes; i < KV_BLOCK; i += per)
            {
                if (b * KV_BLOCK + i <= pos) {
                    KN(Piece) v = KN(piece)(vp[i * p.v_row]);
                    float w = ps[wave * KV_BLOCK + i];
#if KV_TYPE == 2
                    w *= v_scale[(base * p.v_groups + c / 2) * KV_BLOCK + i];
#endif
                    UNROLL for (uint x = 0; x < KV_N; x++) acc[x] += w * v.e[x];
                }
            }
        }
        WAVE_SYNC();
    }
    UNROLL for (uint i = 0; i < KV_N; i++) sums[(wave * WAVE + lane) * KV_N + i] = acc[i];
    WAVE_SYNC();
    {
        GLOBAL float *to = part + (size_t)((t * p.n_heads + h) * p.splits + split) * (HEAD_MOST + 2);
        float by = sum > 0.0f ? 1.0f / sum : 0.0f;
        for (uint i = lane; i < p.v_dim; i += WAVE) {
            float v = 0.0f;
            for (uint g = i / KV_N; g < WAVE; g += p.lanes) v += sums[(wave * WAVE + g) * KV_N + i % KV_N];
            if (live && p.splits == 1) out[(size_t)t * p.out_stride + h * p.v_dim + i] = v * by;
            if (live && p.splits > 1) to[2 + i] = v;
        }
        if (live && p.splits > 1 && lane == 0) {
            to[0] = sum;
            to[1] = most;
        }
    }
    (void)k_scale;
    (void)v_scale;
}

/* Brings the splits together. Groups: x heads, y tokens. */
KERNEL(KN(merge), 256, HeadP, BUF(1, const float, part), BUF(2, float, out))
{
    START();
    uint h = group_x, t = group_y;
    GLOBAL const float *from = part + (size_t)((t * p.n_heads + h) * p.splits) * (HEAD_MOST + 2);
    float most = -1e30f, sum = 0.0f;
    for (uint s = 0; s < p.splits; s++) most = fmaxf(most, from[s * (HEAD_MOST + 2) + 1]);
    for (uint s = 0; s < p.splits; s++) sum += from[s * (HEAD_MOST + 2)] * expf(from[s * (HEAD_MOST + 2) + 1] - most);
    for (uint i = tid; i < p.v_dim; i += group_size) {
        float v = 0.0f;
        for (uint s = 0; s < p.splits; s++) v += from[s * (HEAD_MOST + 2) + 2 + i] * expf(from[s * (HEAD_MOST + 2) + 1] - most);
        out[(size_t)t * p.out_stride + h * p.v_dim + i] = v / sum;
    }
}
