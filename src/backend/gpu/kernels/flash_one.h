/* Attention of one token on matrix operations, with the same cache and heads as flash.h. A group has p.rows heads that share a kv head, and a split of the positions; it rotates q and
 * its own k, and its eight waves take sixteen positions each at a time. Rows of a product are heads, so a lane has head lane / 4. The order of elements within a sum is free: a lane
 * takes whole pieces of 16 bytes of keys, and as many of q, and for values, whose columns may come in any order, too. What a wave reads first is on its way before the
 * token is there, and the rest on its way to L2: earlier tokens have written it. */
#define FO_WAVES 8
#define FO_AT_ONCE 16                       /* positions */
#define FO_PIECES (HD / 8)                  /* of 16 bytes, of a key or a value */
#define FO_KEYS (FO_PIECES / 4)             /* of a key, for each lane */
#define FO_SETS (FO_PIECES / 8)             /* pieces of a value, for each lane */
#define FO_LD (HD + 4)                      /* floats of a head's sums: different banks */
#define FO_OUT (FO_WAVES * FLASH_ONE_MOST / HD) /* rows of sums: wave and head */

/* Elements 2i (2i + 1) of two words of halves. */
DEVFN uint halves_lo(uint a, uint b) { return (a & 0xffffu) | b << 16; }
DEVFN uint halves_hi(uint a, uint b) { return a >> 16 | (b & 0xffff0000u); }

/* A pair of elements: from where to where, and its rotation, for q with the factor of the scores. */
typedef struct {
    GLOBAL const float *from;
    LOCAL ushort *to;
    uint at0, at1, there;
    Turn turn;
} FoPair;

/* Pair i of a group: of its heads, of the key, of the value. */
DEVFN FoPair FH_PUT(fo_pair, HD)(HeadP p, uint i, uint h0, uint kv_head, uint pos, GLOBAL const uint2 *turns_q, GLOBAL const uint2 *turns_k, GLOBAL const float *q,
                                 GLOBAL const float *k, GLOBAL const float *v, LOCAL ushort *qs, LOCAL ushort *own)
{
    FoPair r;
    uint unit = i / (HD / 2), n = i % (HD / 2), is_q = unit < p.rows, rot = is_q ? p.rot_q : unit == p.rows ? p.rot_k : 0, turns = n < rot / 2;
    uint halves = turns && (is_q ? p.halves_q : p.halves_k);
    float factor = is_q ? p.scale * 1.44269504f : 1.0f;
    r.turn = turn_of(pos, (is_q ? turns_q : turns_k)[turns ? n : 0], turns, is_q ? p.mscale_q : p.mscale_k);
    r.turn.c *= factor;
    r.turn.s *= factor;
    r.at0 = halves ? n : 2 * n;
    r.at1 = halves ? n + rot / 2 : 2 * n + 1;
    r.there = unit < p.rows + 2;
    r.from = is_q ? q + (size_t)(h0 + unit) * HD : (unit == p.rows ? k : v) + kv_head * HD;
    r.to = is_q ? qs + unit * HD : own + (unit == p.rows ? 0 : HD);
    return r;
}

DEVFN void FH_PUT(fo_put, HD)(FoPair r, float x0, float x1)
{
    if (r.there) {
        r.to[r.at0] = f2h(x0 * r.turn.c - x1 * r.turn.s);
        r.to[r.at1] = f2h(x0 * r.turn.s + x1 * r.turn.c);
    }
}

KERNEL(FH_PUT(flash_one, HD), 256, HeadP, BUF(1, const uint, batch), BUF(2, const uint2, turns_q), BUF(3, const uint2, turns_k), BUF(4, const float, q), BUF(5, const float, k),
       BUF(6, const float, v), BUF(7, uchar, k_cache), BUF(8, uchar, v_cache), BUF(9, float, out), BUF(10, float, part), BUF(11, uchar, next))
{
    SHARED uint4 qs4[8 * FO_PIECES];  /* halves of the heads */
    SHARED uint4 own4[2 * FO_PIECES]; /* of the token's own key and value */
    SHARED float4 sums4[FO_OUT * FO_LD / 4];
    SHARED float4 found4[8 * FO_WAVES / 2]; /* {sum, largest score} of each head and wave */
    LOCAL ushort *qs = (LOCAL ushort *)qs4, *own = (LOCAL ushort *)own4;
    LOCAL float *sums = (LOCAL float *)sums4, *found = (LOCAL float *)found4;
    uint gqa = p.n_heads / p.n_kv_heads, h0 = group_x * p.rows, kv_head = h0 / gqa, split = group_y, row = lane / 4, col = lane % 4;
    uint pos = batch[1], table = batch[2], n_blocks = pos / KV_BLOCK + 1, per = (n_blocks + p.splits - 1) / p.splits;
    uint b0 = split * per < n_blocks ? split * per : n_blocks, b1 = b0 + per < n_blocks ? b0 + per : n_blocks, owns = b1 == n_blocks && b0 < b1;
    uint begin = b0 * KV_BLOCK, end = owns ? pos + 1 : b1 * KV_BLOCK, stride = FO_WAVES * FO_AT_ONCE, j0 = begin + wave * FO_AT_ONCE;
    uint own_block = batch[table + n_blocks - 1] * p.n_kv_heads + kv_head, stores = owns && wave == FO_WAVES - 1 && h0 == kv_head * gqa && lane < FO_PIECES, base;
    FoPair pair0 = FH_PUT(fo_pair, HD)(p, tid, h0, kv_head, pos, turns_q, turns_k, q, k, v, qs, own);
    FoPair pair1 = FH_PUT(fo_pair, HD)(p, tid + FO_WAVES * WAVE, h0, kv_head, pos, turns_q, turns_k, q, k, v, qs, own);
    uint4 kr[2 * FO_KEYS], vr[4 * FO_SETS];
#define FO_BLOCK(j) (batch[table + ((j) / KV_BLOCK < n_blocks ? (j) / KV_BLOCK : n_blocks - 1)] * p.n_kv_heads + kv_head)
#define FO_LOAD_KEYS(base, j) \
    UNROLL for (uint i_ = 0; i_ < 2 * FO_KEYS; i_++) kr[i_] = ((GLOBAL const uint4 *)k_cache)[((size_t)(base) * FO_PIECES + col + i_ / 2 * 4) * KV_BLOCK + (j) % KV_BLOCK + i_ % 2 * 8 + row]
#define FO_SLOT(i) (2 * col + (i) % 2 + (i) / 2 % 2 * 8) /* position of the i-th piece of values */
#define FO_LOAD_VALUES(base, j) \
    UNROLL for (uint i_ = 0; i_ < 4 * FO_SETS; i_++) vr[i_] = ((GLOBAL const uint4 *)v_cache)[((size_t)(base) * KV_BLOCK + (j) % KV_BLOCK + FO_SLOT(i_)) * FO_PIECES + i_ / 4 * 8 + row]
    base = FO_BLOCK(j0);
    FO_LOAD_KEYS(base, j0);
    FO_LOAD_VALUES(base, j0);
    UNROLL_N(1) for (uint j = j0 + stride; j < end; j += stride) /* lines of 128 bytes: a piece of eight keys; as many of values */
    {
        uint b = FO_BLOCK(j);
        if (lane < 2 * FO_PIECES) PREFETCH((GLOBAL const uint4 *)k_cache + ((size_t)b * FO_PIECES + lane / 2) * KV_BLOCK + j % KV_BLOCK + lane % 2 * 8);
        if (lane < 2 * FO_PIECES) PREFETCH((GLOBAL const uint4 *)v_cache + ((size_t)b * KV_BLOCK + j % KV_BLOCK) * FO_PIECES + lane * 8);
    }
    KEEP(stores);
    KEEP(end);
    KEEP(h0);
    START();
    {
        float x0 = pair0.there ? pair0.from[pair0.at0] : 0.0f, x1 = pair0.there ? pair0.from[pair0.at1] : 0.0f;
        float y0 = pair1.there ? pair1.from[pair1.at0] : 0.0f, y1 = pair1.there ? pair1.from[pair1.at1] : 0.0f;
        FH_PUT(fo_put, HD)(pair0, x0, x1);
        FH_PUT(fo_put, HD)(pair1, y0, y1);
    }
    BARRIER();
    if (stores) { /* into the cache: whoever reads that position there has `own` instead */
        ((GLOBAL uint4 *)k_cache)[((size_t)own_block * FO_PIECES + lane) * KV_BLOCK + pos % KV_BLOCK] = own4[lane];
        ((GLOBAL uint4 *)v_cache)[((size_t)own_block * KV_BLOCK + pos % KV_BLOCK) * FO_PIECES + lane] = own4[FO_PIECES + lane];
    }
    float most = -1e30f, sum = 0.0f, o[2 * FO_PIECES];
    UNROLL for (uint i = 0; i < 2 * FO_PIECES; i++) o[i] = 0.0f;
    UNROLL_N(1) for (uint first = begin; first < end; first += stride)
    {
        uint j1 = j0 + stride, more = first + stride < end, last = j0 + FO_AT_ONCE >= end;
        float s[4];
        if (more) base = FO_BLOCK(j1);
        if (last) {
            UNROLL for (uint i = 0; i < 2 * FO_KEYS; i++)
            {
                if (j0 + i % 2 * 8 + row == pos) kr[i] = own4[col + i / 2 * 4];
            }
        }
        UNROLL for (uint i = 0; i < 4; i++) s[i] = 0.0f;
        UNROLL for (uint i = 0; i < FO_KEYS; i++)
        {
            uint4 a = qs4[(row < p.rows ? row : 0) * FO_PIECES + col + i * 4], x = kr[2 * i], y = kr[2 * i + 1];
            mat_rows8(s, a.x, a.y, x.x, x.y);
            mat_rows8(s + 2, a.x, a.y, y.x, y.y);
            mat_rows8(s, a.z, a.w, x.z, x.w);
            mat_rows8(s + 2, a.z, a.w, y.z, y.w);
        }
        if (more) FO_LOAD_KEYS(base, j1);
        if (last) { /* behind the end, 0 times what lies there may not be a number */
            UNROLL for (uint i = 0; i < 4 * FO_SETS; i++)
            {
                uint at = j0 + FO_SLOT(i);
                if (at == pos) vr[i] = own4[FO_PIECES + i / 4 * 8 + row];
                if (at >= end) vr[i].x = vr[i].y = vr[i].z = vr[i].w = 0;
            }
            UNROLL for (uint i = 0; i < 4; i++)
            {
                if (j0 + FO_SLOT(i) >= end) s[i] = -1e30f;
            }
        }
        float now = fmaxf(fmaxf(fmaxf(s[0], s[1]), fmaxf(s[2], s[3])), most), old;
        now = fmaxf(now, wave_xor(now, 1));
        now = fmaxf(now, wave_xor(now, 2));
        old = power_of_2(most - now);
        most = now;
        UNROLL for (uint i = 0; i < 4; i++) s[i] = power_of_2(s[i] - now);
        if (j0 >= end) s[0] = s[1] = s[2] = s[3] = 0.0f; /* else each is 1: nothing was seen */
        sum = sum * old + ((s[0] + s[1]) + (s[2] + s[3]));
        uint w0 = two_halves(s[0], s[1]), w1 = two_halves(s[2], s[3]);
        UNROLL for (uint i = 0; i < 2 * FO_PIECES; i++) o[i] *= old;
        UNROLL for (uint i = 0; i < FO_SETS; i++)
        {
            uint4 a = vr[4 * i], b = vr[4 * i + 1], c = vr[4 * i + 2], d = vr[4 * i + 3];
            float *to = o + 16 * i;
            mat_rows8(to, w0, w1, halves_lo(a.x, b.x), halves_lo(c.x, d.x));
            mat_rows8(to + 2, w0, w1, halves_hi(a.x, b.x), halves_hi(c.x, d.x));
            mat_rows8(to + 4, w0, w1, halves_lo(a.y, b.y), halves_lo(c.y, d.y));
            mat_rows8(to + 6, w0, w1, halves_hi(a.y, b.y), halves_hi(c.y, d.y));
            mat_rows8(to + 8, w0, w1, halves_lo(a.z, b.z), halves_lo(c.z, d.z));
            mat_rows8(to + 10, w0, w1, halves_hi(a.z, b.z), halves_hi(c.z, d.z));
            mat_rows8(to + 12, w0, w1, halves_lo(a.w, b.w), halves_lo(c.w, d.w));
            mat_rows8(to + 14, w0, w1, halves_hi(a.w, b.w), halves_hi(c.w, d.w));
        }
        if (more) FO_LOAD_VALUES(base, j1);
        j0 = j1;
    }
    sum += wave_xor(sum, 1);
    sum += wave_xor(sum, 2);
    if (row < p.rows) {
        LOCAL float4 *to = (LOCAL float4 *)(sums + (wave * p.rows + row) * FO_LD);
        UNROLL for (uint i = 0; i < FO_SETS * 2; i++) /* piece i / 2 * 8 + 2 col + i % 2 */
        {
            uint at = (i / 2 * 8 + 2 * col + i % 2) * 2, from = i / 2 * 16 + i % 2;
            float4 lo, hi;
            lo.x = o[from];
            lo.y = o[from + 2];
            lo.z = o[from + 4];
            lo.w = o[from + 6];
            hi.x = o[from + 8];
            hi.y = o[from + 10];
            hi.z = o[from + 12];
            hi.w = o[from + 14];
            to[at] = lo;
            to[at + 1] = hi;
        }
        if (col == 0) {
            found[2 * (row * FO_WAVES + wave)] = sum;
            found[2 * (row * FO_WAVES + wave) + 1] = most;
        }
    }
    BARRIER();
    UNROLL_N(1) for (uint e0 = wave * WAVE; e0 < p.rows * HD; e0 += FO_WAVES * WAVE) /* a lane ends a result */
    {
        uint r = e0 / HD, d = e0 % HD + lane;
        float value = 0.0f, all = 0.0f, largest = -1e30f, share[FO_WAVES], top[FO_WAVES], part_of[FO_WAVES];
        UNROLL for (uint w = 0; w < FO_WAVES; w++)
        {
            share[w] = found[2 * (r * FO_WAVES + w)];
            top[w] = found[2 * (r * FO_WAVES + w) + 1];
            part_of[w] = sums[(w * p.rows + r) * FO_LD + d];
        }
        UNROLL for (uint w = 0; w < FO_WAVES; w++) largest = fmaxf(largest, top[w]);
        UNROLL for (uint w = 0; w < FO_WAVES; w++)
        {
            float f = power_of_2(top[w] - largest);
            value += part_of[w] * f;
            all += share[w] * f;
        }
        if (p.splits == 1) {
            value = quotient(value, all);
            out[h0 * HD + e0 + lane] = value;
            if (p.feeds) feed_16(next, p.feeds, h0 * HD + e0 + lane, 1, value CTX);
        } else {
            GLOBAL float *to = part + (size_t)((h0 + r) * p.splits + split) * HEAD_PART;
            to[2 + d] = value;
            if (d == 0) {
                to[0] = all;
                to[1] = largest * 0.693147181f; /* merge_one takes powers of e */
            }
        }
    }
}
