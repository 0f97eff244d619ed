/* Attention of a prompt on matrix operations: an f16 cache (its layout is told in cache.h), heads of HD elements, all tokens of one sequence. Only
 * for devices that have such operations on registers: a lane holds elements (MAT_ROW(i), MAT_COL(i)), i < 8, of a 16 x 16 result, and
 * the four lanes 4j to 4j + 3 hold its rows j and j + 8. */
#define FH_JOIN(a, b) a##_##b
#define FH_PUT(a, b) FH_JOIN(a, b)
#define FLASH_ROWS 64
#define FLASH_LD (HD + 8) /* halves of a row in shared memory: rows begin in different banks */
#define FLASH_N (HD / 32) /* 16-byte pieces of a block's keys, and of its values, for each thread */
#define KV_BLOCK 32

/* A group has FLASH_ROWS rows (token, head) that share a kv head, 16 for each wave, and walks over the blocks that any of them sees; the next block
 * is on its way while this one is multiplied. Groups: x kv head and tile of rows, the longest first. */
KERNEL(FH_PUT(flash, HD), 128, HeadP, BUF(1, const uint, batch), BUF(2, const float, q), BUF(3, const uchar, k_cache), BUF(4, const uchar, v_cache), BUF(5, float, out))
{
    SHARED uint4 sh[FLASH_ROWS * FLASH_LD * 2 / 16];
    LOCAL ushort *ks = (LOCAL ushort *)sh, *vs = ks + KV_BLOCK * FLASH_LD;
    uint gqa = p.n_heads / p.n_kv_heads, n_rows = p.n * gqa, n_tiles = (n_rows + FLASH_ROWS - 1) / FLASH_ROWS;
    uint kv_head = group_x % p.n_kv_heads, first = (n_tiles - 1 - group_x / p.n_kv_heads) * FLASH_ROWS;
    START();
    uint table = batch[2], last = first + FLASH_ROWS <= n_rows ? first + FLASH_ROWS - 1 : n_rows - 1, last_seen = p.both ? batch[table - 1] - 1 : batch[4 * (last / gqa) + 1], n_blocks = last_seen / KV_BLOCK + 1;
    uint least = p.both ? last_seen : batch[4 * (first / gqa) + 1]; /* what all rows of the group see */
    for (uint i = tid; i < FLASH_ROWS * (HD / 4); i += 128) {
        uint r = first + i / (HD / 4), at = r < n_rows ? r : n_rows - 1, d = i % (HD / 4);
        float4 v = ((GLOBAL const float4 *)(q + (size_t)(at / gqa) * p.q_stride + (kv_head * gqa + at % gqa) * HD))[d];
        float f = p.scale * 1.44269504f; /* powers of two from here on */
        uint2 h;
        h.x = two_halves(v.x * f, v.y * f);
        h.y = two_halves(v.z * f, v.w * f);
        ((LOCAL uint2 *)(ks + i / (HD / 4) * FLASH_LD))[d] = h;
    }
    BARRIER();
    MatA qa[HD / 16];
    MatC o[HD / 16];
    UNROLL for (uint i = 0; i < HD / 16; i++)
    {
        mat_keep_a(qa[i], ks + wave * 16 * FLASH_LD + i * 16, FLASH_LD, i);
        mat_zero(o[i]);
    }
    float most[2], sum[2];
    uint pos[2];
    uint4 kr[FLASH_N], vr[FLASH_N];
    UNROLL for (uint i = 0; i < 2; i++)
    {
        uint r = first + wave * 16 + MAT_ROW(2 * i);
        pos[i] = p.both ? last_seen : batch[4 * ((r < n_rows ? r : n_rows - 1) / gqa) + 1];
        most[i] = -1e30f;
        sum[i] = 0.0f;
    }
    {
        size_t base = (size_t)(batch[table] * p.n_kv_heads + kv_head) * (KV_BLOCK * HD / 8);
        UNROLL for (uint i = 0; i < FLASH_N; i++)
        {
            kr[i] = ((GLOBAL const uint4 *)k_cache)[base + i * 128 + tid];
            vr[i] = ((GLOBAL const uint4 *)v_cache)[base + i * 128 + tid];
        }
    }
    for (uint b = 0; b < n_blocks; b++) {
        BARRIER(); /* the block before is multiplied */
        UNROLL for (uint i = 0; i < FLASH_N; i++)
        {
            uint e = i * 128 + tid;
            ((LOCAL uint4 *)(ks + e % KV_BLOCK * FLASH_LD))[e / KV_BLOCK] = kr[i];
            ((LOCAL uint4 *)(vs + e / (HD / 8) * FLASH_LD))[e % (HD / 8)] = vr[i];
        }
        BARRIER();
        if (b + 1 < n_blocks) {
            size_t base = (size_t)(batch[table + b + 1] * p.n_kv_heads + kv_head) * (KV_BLOCK * HD / 8);
            UNROLL for (uint i = 0; i < FLASH_N; i++)
            {
                kr[i] = ((GLOBAL const uint4 *)k_cache)[base + i * 128 + tid];
                vr[i] = ((GLOBAL const uint4 *)v_cache)[base + i * 128 + tid];
            }
        }
        MatC s[2];
        mat_zero(s[0]);
        mat_zero(s[1]);
        UNROLL for (uint i = 0; i < HD / 16; i++)
        {
            MatB k0, k1;
            mat_load_b(k0, ks + i * 16, FLASH_LD);
            mat_load_b(k1, ks + 16 * FLASH_LD + i * 16, FLASH_LD);
            mat_mma(s[0], qa[i], k0);
            mat_mma(s[1], qa[i], k1);
        }
        float now[2], old[2];
        UNROLL for (uint r = 0; r < 2; r++) now[r] = most[r];
        if (b * KV_BLOCK + KV_BLOCK - 1 > least) {
            UNROLL for (uint i = 0; i < 16; i++)
            {
                if (b * KV_BLOCK + i / 8 * 16 + MAT_COL(i % 8) > pos[i / 2 % 2]) s[i / 8].v[i % 8] = -1e30f;
            }
        }
        UNROLL for (uint i = 0; i < 16; i++) now[i / 2 % 2] = fmaxf(now[i / 2 % 2], s[i / 8].v[i % 8]);
        UNROLL for (uint r = 0; r < 2; r++)
        {
            now[r] = fmaxf(now[r], wave_xor(now[r], 1));
            now[r] = fmaxf(now[r], wave_xor(now[r], 2));
            old[r] = power_of_2(most[r] - now[r]);
            most[r] = now[r];
            sum[r] *= old[r];
        }
        UNROLL for (uint i = 0; i < 16; i++)
        {
            float e = power_of_2(s[i / 8].v[i % 8] - now[i / 2 % 2]);
            s[i / 8].v[i % 8] = e;
            sum[i / 2 % 2] += e;
        }
        MatA pa[2];
        mat_a_of(pa[0], s[0], HD / 16);
        mat_a_of(pa[1], s[1], HD / 16 + 1);
        UNROLL for (uint d = 0; d < HD / 16; d++)
        {
            MatB v0, v1;
            UNROLL for (uint i = 0; i < 8; i++) o[d].v[i] *= old[i / 2 % 2];
            mat_load_bt(v0, vs + d * 16, FLASH_LD);
            mat_load_bt(v1, vs + 16 * FLASH_LD + d * 16, FLASH_LD);
            mat_mma(o[d], pa[0], v0);
            mat_mma(o[d], pa[1], v1);
        }
    }
    UNROLL for (uint r = 0; r < 2; r++)
    {
        sum[r] += wave_xor(sum[r], 1);
        sum[r] += wave_xor(sum[r], 2);
        uint row = first + wave * 16 + MAT_ROW(2 * r);
        float inv = 1.0f / sum[r];
        GLOBAL float *to = out + (size_t)(row / gqa) * p.out_stride + (kv_head * gqa + row % gqa) * HD;
        if (row < n_rows) {
            UNROLL for (uint i = 0; i < HD / 16 * 4; i++) to[i / 4 * 16 + MAT_COL(2 * r + i % 4 / 2 * 4 + i % 2)] = o[i / 4].v[2 * r + i % 4 / 2 * 4 + i % 2] * inv;
        }
    }
}
