/* Attention with heads of up to WIDE_MOST elements: those of latent attention, whose heads share one key and value. The cache is that of cache.h. */
#define WIDE_MOST 1024
#define WIDE_ROWS 4      /* heads of a group, which share a key and value head */
#define WIDE_THREADS 256

/* Turns pairs of heads of any size in place. Groups: x over the pairs of all heads, y tokens. */
KERNEL(KN(wide_rope), 256, HeadP, BUF(1, const uint, batch), BUF(2, const uint2, turns), BUF(3, float, q))
{
    START();
    uint at = group_x * group_size + tid, t = group_y, pairs = p.rot_q / 2, head = at / pairs, i = at % pairs, pos = batch[4 * t + 1];
    if (head < p.n_heads) {
        GLOBAL float *x = q + (size_t)t * p.q_stride + head * p.k_dim;
        uint a = p.halves_q ? i : 2 * i, b = p.halves_q ? i + pairs : 2 * i + 1;
        float angle = half_turns(pos, turns[i]), c = cos_pi(angle) * p.mscale_q, s = sin_pi(angle) * p.mscale_q, xa = x[a], xb = x[b];
        x[a] = xa * c - xb * s;
        x[b] = xa * s + xb * c;
    }
}

/* Puts keys and values into the cache. Groups: x the heads of the keys, then those of the values, y tokens; a wave each. */
KERNEL(KN(wide_store), 32, HeadP, BUF(1, const uint, batch), BUF(2, const float, k), BUF(3, const float, v), BUF(4, uchar, k_cache), BUF(5, uchar, v_cache),
       BUF(6, float, k_scale), BUF(7, float, v_scale))
{
    SHARED float head[WIDE_MOST];
    START();
    uint t = group_y, pos = batch[4 * t + 1], is_k = group_x < p.n_kv_heads, kv_head = is_k ? group_x : group_x - p.n_kv_heads, dim = is_k ? p.k_dim : p.v_dim;
    uint block = batch[batch[4 * t + 2] + pos / KV_BLOCK];
    for (uint i = lane; i < WIDE_MOST; i += WAVE) {
        float e = 0.0f;
        if (i < dim) e = is_k ? k[(size_t)t * p.k_stride + kv_head * dim + i] : v[(size_t)t * p.v_stride + kv_head * dim + i];
        head[i] = e;
    }
    BARRIER();
    KN(put)(is_k ? k_cache : v_cache, is_k ? k_scale : v_scale, (size_t)(block * p.n_kv_heads + kv_head), is_k, is_k ? p.k_row : p.v_row, is_k ? p.k_groups : p.v_groups,
            (p.k_row > p.v_row ? p.k_row : p.v_row) * KV_N, pos % KV_BLOCK, 1, head CTX);
}

/* A group has p.rows heads of one token and a split of its positions. In the scores a thread has a position, a wave a block; in the sums p.lanes threads
 * have the pieces of a value, and the sets of so many share the positions. Groups: x kv head and heads, y token and split. Without splits it writes the
 * result, else {sum, largest score, sums of values} to part. */
KERNEL(KN(wide_attend), WIDE_THREADS, HeadP, BUF(1, const uint, batch), BUF(2, const uint2, extra), BUF(3, const float, q), BUF(4, const uchar, k_cache),
       BUF(5, const uchar, v_cache), BUF(6, const float, k_scale), BUF(7, const float, v_scale), BUF(8, float, out), BUF(9, float, part))
{
    SHARED float4 qs4[WIDE_ROWS * WIDE_MOST / 4]; /* later the sums */
    SHARED float ps[WIDE_ROWS * WIDE_THREADS];
    SHARED float tmp[2 * WIDE_ROWS * WIDE_THREADS / WAVE];
    LOCAL float *qs = (LOCAL float *)qs4;
    uint gqa = p.n_heads / p.n_kv_heads, tiles = (gqa + p.rows - 1) / p.rows, kv_head = group_x / tiles, first = group_x % tiles * p.rows, waves = group_size / WAVE;
    uint t = group_y / p.splits, split = group_y % p.splits, c = tid % p.lanes, set = tid / p.lanes, sets = group_size / p.lanes;
    START();
    uint pos = batch[4 * t + 1], table = batch[4 * t + 2], seen_end = end_seen(p, pos, batch, table), n_blocks = (seen_end - 1) / KV_BLOCK + 1, from = first_seen(p, pos), skip = from / KV_BLOCK;
    uint per = (n_blocks - skip + p.splits - 1) / p.splits, b0 = skip + split * per < n_blocks ? skip + split * per : n_blocks, b1 = b0 + per < n_blocks ? b0 + per : n_blocks;
    float most[WIDE_ROWS], sum[WIDE_ROWS], acc[WIDE_ROWS * KV_N], slope[WIDE_ROWS];
    for (uint i = tid; i < WIDE_ROWS * WIDE_MOST; i += group_size) {
        uint r = first + i / WIDE_MOST, d = i % WIDE_MOST;
        qs[i] = i / WIDE_MOST < p.rows && r < gqa && d < p.k_dim ? q[(size_t)t * p.q_stride + (kv_head * gqa + r) * p.k_dim + d] : 0.0f;
    }
    UNROLL for (uint r = 0; r < WIDE_ROWS; r++)
    {
        most[r] = -1e30f;
        sum[r] = 0.0f;
        slope[r] = p.has_slopes && first + r < gqa ? bits_f32(extra[p.rot_q / 2 + kv_head * gqa + first + r].x) : 0.0f;
    }
    UNROLL for (uint i = 0; i < WIDE_ROWS * KV_N; i++) acc[i] = 0.0f;
    BARRIER();
    for (uint chunk = b0; chunk < b1; chunk += waves) {
        uint b = chunk + wave, block = batch[table + (b < b1 ? b : b0)], j = b * KV_BLOCK + lane, seen = b < b1 && j < seen_end && j >= from;
        size_t base = (size_t)(block * p.n_kv_heads + kv_head);
        float s[WIDE_ROWS];
        UNROLL for (uint r = 0; r < WIDE_ROWS; r++) s[r] = 0.0f;
        if (seen) {
            for (uint i = 0; i < p.k_row; i++) {
                KN(Piece) e = KN(piece)(((GLOBAL const uint4 *)k_cache)[(base * p.k_row + i) * KV_BLOCK + lane]);
                float d = 1.0f;
#if KV_TYPE == 2
                d = k_scale[(base * p.k_groups + i / 2) * KV_BLOCK + lane];
#endif
                UNROLL for (uint r = 0; r < WIDE_ROWS; r++)
                {
                    float dot = 0.0f;
                    UNROLL for (uint x = 0; x < KV_N; x++) dot += e.e[x] * qs[r * WIDE_MOST + i * KV_N + x];
                    s[r] += dot * d;
                }
            }
        }
        UNROLL for (uint r = 0; r < WIDE_ROWS; r++) s[r] = seen ? adjusted(s[r] * p.scale, p.softcap, slope[r] * ((float)pos - (float)j)) : -1e30f;
        float m0 = wave_max(s[0]), m1 = wave_max(s[1]), m2 = wave_max(s[2]), m3 = wave_max(s[3]);
        if (lane < WIDE_ROWS) tmp[lane * waves + wave] = lane == 0 ? m0 : lane == 1 ? m1 : lane == 2 ? m2 : m3;
        BARRIER();
        UNROLL for (uint r = 0; r < WIDE_ROWS; r++)
        {
            float now = most[r];
            for (uint i = 0; i < waves; i++) now = fmaxf(now, tmp[r * waves + i]);
            float old = expf(most[r] - now), e = seen ? expf(s[r] - now) : 0.0f;
            most[r] = now;
            sum[r] = sum[r] * old + e;
            ps[r * WIDE_THREADS + tid] = e;
            UNROLL for (uint x = 0; x < KV_N; x++) acc[r * KV_N + x] *= old;
        }
        BARRIER();
        uint end = (b1 - chunk < waves ? b1 - chunk : waves) * KV_BLOCK;
        if (c < p.v_row && set < sets) {
            for (uint n = set; n < end; n += sets) {
                size_t at = (size_t)(batch[table + chunk + n / KV_BLOCK] * p.n_kv_heads + kv_head);
                if (chunk * KV_BLOCK + n < seen_end && chunk * KV_BLOCK + n >= from) {
                    KN(Piece) a = KN(piece)(((GLOBAL const uint4 *)v_cache)[(at * KV_BLOCK + n % KV_BLOCK) * p.v_row + c]);
                    float d = 1.0f;
#if KV_TYPE == 2
                    d = v_scale[(at * p.v_groups + c / 2) * KV_BLOCK + n % KV_BLOCK];
#endif
                    UNROLL for (uint r = 0; r < WIDE_ROWS; r++)
                    {
                        float w = ps[r * WIDE_THREADS + n] * d;
                        UNROLL for (uint x = 0; x < KV_N; x++) acc[r * KV_N + x] += w * a.e[x];
                    }
                }
            }
        }
        BARRIER();
    }
    float s0 = wave_sum(sum[0]), s1 = wave_sum(sum[1]), s2 = wave_sum(sum[2]), s3 = wave_sum(sum[3]);
    if (lane < WIDE_ROWS) tmp[lane * waves + wave] = lane == 0 ? s0 : lane == 1 ? s1 : lane == 2 ? s2 : s3;
    UNROLL for (uint r = 0; r < WIDE_ROWS; r++)
    {
        uint h = kv_head * gqa + first + r;
        float all = 0.0f, top = most[r], f = 1.0f;
        BARRIER();
        UNROLL for (uint x = 0; x < KV_N; x++) qs[tid * KV_N + x] = acc[r * KV_N + x];
        BARRIER();
        for (uint i = 0; i < waves; i++) all += tmp[r * waves + i];
        if (r < p.rows && first + r < gqa) {
            if (p.has_sinks && p.splits == 1) { /* one more score, whose value is zero */
                float sink = bits_f32(extra[p.rot_q / 2 + h].y);
                top = fmaxf(top, sink);
                f = expf(most[r] - top);
                all = all * f + expf(sink - top);
            }
            for (uint i = tid; i < p.v_dim; i += group_size) {
                float v = 0.0f;
                for (uint n = 0; n < sets; n++) v += qs[(n * p.lanes + i / KV_N) * KV_N + i % KV_N];
                if (p.splits == 1) out[(size_t)t * p.out_stride + h * p.v_dim + i] = v * f / all;
                else part[(size_t)((t * p.n_heads + h) * p.splits + split) * (p.v_dim + 2) + 2 + i] = v;
            }
            if (p.splits > 1 && tid == 0) {
                GLOBAL float *to = part + (size_t)((t * p.n_heads + h) * p.splits + split) * (p.v_dim + 2);
                to[0] = all;
                to[1] = top;
            }
        }
    }
    (void)k_scale;
    (void)v_scale;
}

/* Brings the splits together. Groups: x heads, y tokens. */
KERNEL(KN(wide_merge), 256, HeadP, BUF(1, const float, part), BUF(2, const uint2, extra), BUF(3, float, out))
{
    START();
    uint h = group_x, t = group_y, stride = p.v_dim + 2;
    GLOBAL const float *from = part + (size_t)((t * p.n_heads + h) * p.splits) * stride;
    float most = -1e30f, sum = 0.0f;
    for (uint s = 0; s < p.splits; s++) most = fmaxf(most, from[s * stride + 1]);
    if (p.has_sinks) {
        float sink = bits_f32(extra[p.rot_q / 2 + h].y);
        most = fmaxf(most, sink);
        sum = expf(sink - most);
    }
    for (uint s = 0; s < p.splits; s++) sum += from[s * stride] * expf(from[s * stride + 1] - most);
    for (uint i = tid; i < p.v_dim; i += group_size) {
        float v = 0.0f;
        for (uint s = 0; s < p.splits; s++) v += from[s * stride + 2 + i] * expf(from[s * stride + 1] - most);
        out[(size_t)t * p.out_stride + h * p.v_dim + i] = v / sum;
    }
}
