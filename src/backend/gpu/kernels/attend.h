/* Attention over the paged cache, which cache.h tells of. */
#define ROWS_MOST 8   /* of a group */
#define WAVES_MOST 32
#define SUMS_MOST 4096 /* waves times elements of a value */

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
    uint block = p.store ? batch[batch[4 * t + 2] + pos / KV_BLOCK] : 0, stores = p.store && !is_q && h < n_all;
    LOCAL float *x = head + wave * HEAD_MOST;

    for (uint i = lane; i < HEAD_MOST; i += WAVE) {
        float e = 0.0f;
        if (i < dim) e = is_q ? q[(size_t)t * p.q_stride + h * p.k_dim + i] : is_k ? k[(size_t)t * p.k_stride + kv_head * p.k_dim + i] : v[(size_t)t * p.v_stride + kv_head * p.v_dim + i];
        x[i] = e;
    }
    BARRIER();
    for (uint i = lane; i < rot / 2; i += WAVE) rotate(x, i, rot, is_q ? p.halves_q : p.halves_k, pos, is_q ? turns_q[i] : turns_k[i], is_q ? p.mscale_q : p.mscale_k);
    BARRIER();
    for (uint i = lane; i < dim; i += WAVE) {
        if (is_q && rot) q[(size_t)t * p.q_stride + h * p.k_dim + i] = x[i];
        if (is_k && rot) k[(size_t)t * p.k_stride + kv_head * p.k_dim + i] = x[i];
    }
    KN(put)(is_k ? k_cache : v_cache, is_k ? k_scale : v_scale, (size_t)(block * p.n_kv_heads + kv_head), is_k, is_k ? p.k_row : p.v_row,
            is_k ? p.k_groups : p.v_groups, (p.k_row > p.v_row ? p.k_row : p.v_row) * KV_N, slot, stores, x CTX);
}

/* Attention. A row is one head of one token; the rows of a group share a kv head, and p.slices waves share a row, block by block. Groups: x kv
 * head and tile of rows, y splits of the positions. Without splits it writes the result, else {sum, largest score, sums of values} to part.
 * p.owner: there is one token, whose q, k and v come as the matmuls left them: the group rotates them, takes its own k and v from shared
 * memory, and the group of the last split puts them into the cache. */
KERNEL(KN(attend), 1024, HeadP, BUF(1, const uint, batch), BUF(2, const uint2, turns_q), BUF(3, const uint2, turns_k), BUF(4, const float, q), BUF(5, const float, k),
       BUF(6, const float, v), BUF(7, uchar, k_cache), BUF(8, uchar, v_cache), BUF(9, float, k_scale), BUF(10, float, v_scale), BUF(11, float, out), BUF(12, float, part))
{
    SHARED float4 qs4[ROWS_MOST * HEAD_MOST / 4];
    SHARED float own[2 * HEAD_MOST]; /* k and v of the token itself */
    SHARED float ps[WAVES_MOST * KV_BLOCK];
    SHARED float sums[SUMS_MOST];
    SHARED float found[2 * WAVES_MOST]; /* sum and largest score of each wave */
    LOCAL float *qs = (LOCAL float *)qs4, *qr = qs + wave / p.slices * HEAD_MOST, *pw = ps + wave * KV_BLOCK;
    uint gqa = p.n_heads / p.n_kv_heads, kv_head = group_x % p.n_kv_heads, first = group_x / p.n_kv_heads * p.rows, n_rows = p.n * gqa;
    uint row = first + wave / p.slices, slice = wave % p.slices, live = row < n_rows, t = (live ? row : n_rows - 1) / gqa, split = group_y;
    uint pos = batch[4 * t + 1], table = batch[4 * t + 2], end = end_seen(p, pos, batch, table), n_blocks = (end - 1) / KV_BLOCK + 1, from = first_seen(p, pos), skip = from / KV_BLOCK;
    uint per = (n_blocks - skip + p.splits - 1) / p.splits, longest = 0;
    uint b0 = skip + split * per < n_blocks ? skip + split * per : n_blocks, b1 = b0 + per < n_blocks ? b0 + per : n_blocks, owns = p.owner && b1 == n_blocks && b0 < b1;
    float slope = p.has_slopes ? bits_f32(turns_q[p.rot_q / 2 + kv_head * gqa + (live ? row : n_rows - 1) % gqa].x) : 0.0f;
    size_t own_base = (size_t)(batch[table + n_blocks - 1] * p.n_kv_heads + kv_head);
    if (p.n == 1) longest = (per + p.slices - 1) / p.slices;
    else {
        for (uint r = first; r < first + p.rows && r < n_rows; r++) { /* most blocks that a wave of the group has to read */
            uint at = batch[4 * (r / gqa) + 1], n = (end_seen(p, at, batch, batch[4 * (r / gqa) + 2]) - 1) / KV_BLOCK + 1 - first_seen(p, at) / KV_BLOCK, per_r = (n + p.splits - 1) / p.splits, steps = (per_r + p.slices - 1) / p.slices;
            longest = steps > longest ? steps : longest;
        }
    }
    if (b0 + slice < b1) { /* the first block is on its way; only this token's own row is not there yet */
        size_t at = (size_t)(batch[table + b0 + slice] * p.n_kv_heads + kv_head) * KV_BLOCK;
        if (lane * 8 < p.k_row * KV_BLOCK) PREFETCH(k_cache + (at * p.k_row + lane * 8) * 16);
        if (lane * 8 < p.v_row * KV_BLOCK) PREFETCH(v_cache + (at * p.v_row + lane * 8) * 16);
    }
    START();
    for (uint i = tid; i < p.rows * HEAD_MOST; i += group_size) {
        uint r = first + i / HEAD_MOST, d = i % HEAD_MOST;
        qs[i] = r < n_rows && d < p.k_dim ? q[(size_t)(r / gqa) * p.q_stride + (kv_head * gqa + r % gqa) * p.k_dim + d] : 0.0f;
    }
    if (p.owner) {
        for (uint i = tid; i < HEAD_MOST; i += group_size) {
            own[i] = i < p.k_dim ? k[kv_head * p.k_dim + i] : 0.0f;
            own[HEAD_MOST + i] = i < p.v_dim ? v[kv_head * p.v_dim + i] : 0.0f;
        }
    }
    BARRIER();
    float most = -1e30f, sum = 0.0f, acc[KV_N];
    UNROLL for (uint i = 0; i < KV_N; i++) acc[i] = 0.0f;
    uint c = lane % p.lanes, lanes_per = WAVE / p.lanes, cached_end = p.owner ? pos : end;
    if (p.owner) {
        for (uint i = tid; i < p.rows * (p.rot_q / 2); i += group_size)
            rotate(qs + i / (p.rot_q / 2) * HEAD_MOST, i % (p.rot_q / 2), p.rot_q, p.halves_q, pos, turns_q[i % (p.rot_q / 2)], p.mscale_q);
        for (uint i = tid; i < p.rot_k / 2; i += group_size) rotate(own, i, p.rot_k, p.halves_k, pos, turns_k[i], p.mscale_k);
        BARRIER();
        uint stores = owns && first == 0;
#if KV_TYPE != 2
        if (stores && wave == 0)
#endif
            KN(put)(k_cache, k_scale, own_base, 1, p.k_row, p.k_groups, p.k_row * KV_N, pos % KV_BLOCK, stores && wave == 0, own CTX);
#if KV_TYPE != 2
        if (stores && wave == group_size / WAVE - 1)
#endif
            KN(put)(v_cache, v_scale, own_base, 0, p.v_row, p.v_groups, p.v_row * KV_N, pos % KV_BLOCK, stores && wave == group_size / WAVE - 1, own + HEAD_MOST CTX);
        float s = 0.0f;
        for (uint i = lane; i < p.k_dim; i += WAVE) s += qr[i] * own[i];
        s = adjusted(wave_sum(s) * p.scale, p.softcap, 0.0f);
        if (owns && slice == 0) {
            most = s;
            sum = 1.0f;
            if (lane < p.lanes && c < p.v_row) {
                UNROLL for (uint i = 0; i < KV_N; i++) acc[i] = own[HEAD_MOST + c * KV_N + i];
            }
        }
    }
    for (uint step = 0; step < longest; step++) {
        uint b = b0 + slice + step * p.slices, runs = b < b1 && live, block = batch[table + (runs ? b : 0)], j = b * KV_BLOCK + lane;
        size_t base = (size_t)(block * p.n_kv_heads + kv_head);
        float s = 0.0f, d = 1.0f;
        GLOBAL const uint4 *kp = (GLOBAL const uint4 *)k_cache + base * p.k_row * KV_BLOCK + lane;
        if (runs && j < cached_end && j >= from) {
            UNROLL_N(8) for (uint i = 0; i < p.k_row; i++)
            {
                KN(Piece) e = KN(piece)(kp[i * KV_BLOCK]);
                float dot = 0.0f;
                UNROLL for (uint x = 0; x < KV_N; x++) dot += e.e[x] * qr[i * KV_N + x];
#if KV_TYPE == 2
                d = k_scale[(base * p.k_groups + i / 2) * KV_BLOCK + lane];
#endif
                s += dot * d;
            }
        }
        uint seen = runs && j < cached_end && j >= from;
        s = seen ? adjusted(s * p.scale, p.softcap, slope * ((float)pos - (float)j)) : -1e30f;
        float now = fmaxf(most, wave_max(s)), old = expf(most - now), e = seen ? expf(s - now) : 0.0f;
        sum = sum * old + wave_sum(e);
        most = now;
        pw[lane] = e;
        WAVE_SYNC();
        UNROLL for (uint i = 0; i < KV_N; i++) acc[i] *= old;
        GLOBAL const uint4 *vp = (GLOBAL const uint4 *)v_cache + base * KV_BLOCK * p.v_row + c;
        if (c < p.v_row && runs) {
            UNROLL_N(8) for (uint i = lane / p.lanes; i < KV_BLOCK; i += lanes_per)
            {
                if (b * KV_BLOCK + i < cached_end && b * KV_BLOCK + i >= from) {
                    KN(Piece) a = KN(piece)(vp[i * p.v_row]);
                    float w = pw[i];
#if KV_TYPE == 2
                    w *= v_scale[(base * p.v_groups + c / 2) * KV_BLOCK + i];
#endif
                    UNROLL for (uint x = 0; x < KV_N; x++) acc[x] += w * a.e[x];
                }
            }
        }
        WAVE_SYNC();
    }
    for (uint m = p.lanes; m < WAVE; m *= 2) {
        UNROLL for (uint i = 0; i < KV_N; i++) acc[i] += wave_xor(acc[i], m);
    }
    if (lane < p.lanes && c < p.v_row) {
        UNROLL for (uint i = 0; i < KV_N; i++) sums[(wave * p.v_row + c) * KV_N + i] = acc[i];
    }
    if (lane == 0) {
        found[2 * wave] = sum;
        found[2 * wave + 1] = most;
    }
    BARRIER();
    for (uint i = tid; i < p.rows * p.v_dim; i += group_size) {
        uint r = i / p.v_dim, e = i % p.v_dim, at = first + r, h = kv_head * gqa + at % gqa;
        float top = -1e30f, all = 0.0f, value = 0.0f;
        for (uint s = r * p.slices; s < (r + 1) * p.slices; s++) top = fmaxf(top, found[2 * s + 1]);
        if (p.has_sinks && p.splits == 1) { /* one more score, whose value is zero */
            float sink = bits_f32(turns_q[p.rot_q / 2 + h].y);
            top = fmaxf(top, sink);
            all = expf(sink - top);
        }
        for (uint s = r * p.slices; s < (r + 1) * p.slices; s++) {
            float f = expf(found[2 * s + 1] - top);
            all += found[2 * s] * f;
            value += sums[s * p.v_row * KV_N + e] * f;
        }
        if (at < n_rows && p.splits == 1) out[(size_t)(at / gqa) * p.out_stride + h * p.v_dim + e] = value / all;
        if (at < n_rows && p.splits > 1) {
            GLOBAL float *to = part + (size_t)((at / gqa * p.n_heads + h) * p.splits + split) * HEAD_PART;
            to[2 + e] = value;
            if (e == 0) {
                to[0] = all;
                to[1] = top;
            }
        }
    }
    (void)k_scale;
    (void)v_scale;
}

/* Brings the splits together. Groups: x heads, y tokens. */
KERNEL(KN(merge), 256, HeadP, BUF(1, const float, part), BUF(2, float, out), BUF(3, const uint2, turns_q))
{
    START();
    uint h = group_x, t = group_y;
    GLOBAL const float *from = part + (size_t)((t * p.n_heads + h) * p.splits) * HEAD_PART;
    float most = -1e30f, sum = 0.0f;
    for (uint s = 0; s < p.splits; s++) most = fmaxf(most, from[s * HEAD_PART + 1]);
    if (p.has_sinks) {
        float sink = bits_f32(turns_q[p.rot_q / 2 + h].y);
        most = fmaxf(most, sink);
        sum = expf(sink - most);
    }
    for (uint s = 0; s < p.splits; s++) sum += from[s * HEAD_PART] * expf(from[s * HEAD_PART + 1] - most);
    for (uint i = tid; i < p.v_dim; i += group_size) {
        float v = 0.0f;
        for (uint s = 0; s < p.splits; s++) v += from[s * HEAD_PART + 2 + i] * expf(from[s * HEAD_PART + 1] - most);
        out[(size_t)t * p.out_stride + h * p.v_dim + i] = v / sum;
    }
}
