/* The paged cache of one type: what a key or a value is there, and rotation. KV and the rest are set:
 *   KV       name
 *   KV_TYPE  0 f16, 1 f32, 2 int8 with a float scale per 32 (q8_0)
 *   KV_N     elements in 16 bytes
 * The cache of a layer: keys [block][kv head][k_row][32 positions][16 bytes], so that a wave whose lanes are positions reads in one go;
 * values [block][kv head][32 positions][v_row][16 bytes]; scales of int8 [block][kv head][group][32 positions].
 * The batch block holds {id, pos, start of the sequence's block table, number of its state} per token; right before a table stands the number of the
 * sequence's positions. */
#define KN_JOIN(a, b) a##_##b
#define KN_PUT(a, b) KN_JOIN(a, b)
#define KN(name) KN_PUT(name, KV)

#define KV_BLOCK 32

/* The positions that a token sees: from the first, up to the end; a score with what else the attention does to it. */
DEVFN uint first_seen(HeadP p, uint pos)
{
    if (p.chunked) return p.window ? pos - pos % p.window : 0;
    if (p.both) return p.window && pos > p.window / 2 ? pos - p.window / 2 : 0;
    return p.window && pos >= p.window ? pos - p.window + 1 : 0;
}
DEVFN uint end_seen(HeadP p, uint pos, GLOBAL const uint *batch, uint table)
{
    if (!p.both) return pos + 1;
    uint all = batch[table - 1], end = pos + p.window / 2 + 1;
    return p.window && end < all ? end : all;
}
DEVFN float adjusted(float s, float cap, float less) { return (cap > 0.0f ? cap * tanhf(s / cap) : s) - less; }

/* Pair i of a head. */
DEVFN void rotate(LOCAL float *x, uint i, uint rot, uint halves, uint pos, uint2 turn, float mscale)
{
    uint a = halves ? i : 2 * i, b = halves ? i + rot / 2 : 2 * i + 1;
    float angle = half_turns(pos, turn), c = cos_pi(angle) * mscale, s = sin_pi(angle) * mscale, xa = x[a], xb = x[b];
    x[a] = xa * c - xb * s;
    x[b] = xa * s + xb * c;
}

/* A wave puts a key or a value (zeros behind its end) into the cache, if `stores`. base: block and kv head; n_most:
 * elements of the longest row that the group puts. */
DEVFN void KN(put)(GLOBAL uchar *to, GLOBAL float *scale, size_t base, uint is_k, uint n_pieces, uint n_groups, uint n_most, uint slot, uint stores, LOCAL const float *x CTX_PARAM)
{
    for (uint i0 = 0; i0 < n_most; i0 += WAVE) {
        uint i = i0 + lane, piece = i / KV_N;
        size_t at = is_k ? (base * n_pieces + piece) * KV_BLOCK + slot : (base * KV_BLOCK + slot) * n_pieces + piece;
        float e = x[i];
#if KV_TYPE == 2
        float d = wave_max(fabsf(e)) / 127.0f;
        uint group = i / WAVE;
        if (stores && lane == 0 && group < n_groups) scale[(base * n_groups + group) * KV_BLOCK + slot] = d;
        if (stores && piece < n_pieces) to[at * 16 + i % KV_N] = (uchar)(uint)(int)(d > 0.0f ? rintf(e / d) : 0.0f);
#elif KV_TYPE == 1
        if (stores && piece < n_pieces) ((GLOBAL float *)to)[at * 4 + i % KV_N] = e;
#else
        if (stores && piece < n_pieces) ((GLOBAL ushort *)to)[at * 8 + i % KV_N] = f2h(e);
#endif
    }
    (void)scale;
    (void)n_groups;
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
