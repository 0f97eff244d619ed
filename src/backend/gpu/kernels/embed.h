/* Rows of an embedding, for one layout of weights. */

/* One thread writes four elements. Groups: x over the row, y tokens. */
KERNEL(FN(embed), 256, EmbedP, BUF(1, const uchar, w), BUF(2, const uint, batch), BUF(3, const float, src), BUF(4, float, dst))
{
    START();
    uint i = group_x * group_size + tid, u = i / 8, t = group_y;
    uint row = p.by == BY_NOTHING ? 0 : batch[4 * t + p.by];
    if (u < p.w.n_units) {
        FN(Unit) a = FN(unit_load)(w + (size_t)row * p.w.row_bytes, u, p.w);
        float4 v, z;
        v.x = v.y = v.z = v.w = 0.0f;
        UNROLL for (uint k = 0; k < 8; k++)
        {
            float4 e = FN(unit_value)(a, k);
            if (i % 8 == k) v = e;
        }
        if (p.add) {
            z = ((GLOBAL const float4 *)(src + (size_t)t * p.stride))[i];
            v.x += z.x;
            v.y += z.y;
            v.z += z.z;
            v.w += z.w;
        }
        ((GLOBAL float4 *)(dst + (size_t)t * p.stride))[i] = v;
    }
}
