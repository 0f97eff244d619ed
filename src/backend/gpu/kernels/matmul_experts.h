/* Products with experts for prompts: EXPERT_TILE rows of one expert's tokens by as many rows of its matrix, on the device's 16 x 16 matrix operations, as mm_f16
 * has them for all tokens: f16 operands, f32 sums, a power of two for each row of activations. */
#define MG 64
#define MG_LD 72 /* row length in shared memory: rows begin in different banks */

/* Which rows of activations a tile has. */
typedef struct {
    uint expert, first, n;
} ExpertTile;

DEVFN ExpertTile expert_tile(ExpertP p, GLOBAL const uint *order, uint i)
{
    ExpertTile r;
    if (p.all) { /* every expert has all tokens */
        uint tokens = p.n / p.used, per = (tokens + EXPERT_TILE - 1) / EXPERT_TILE, left = tokens - i % per * EXPERT_TILE;
        r.expert = i / per;
        r.first = i % per * EXPERT_TILE;
        r.n = left < EXPERT_TILE ? left : EXPERT_TILE;
    } else {
        GLOBAL const uint *at = order + p.tiles_at + 1 + 3 * i;
        uint exists = i < order[p.tiles_at];
        r.expert = exists ? at[0] : 0;
        r.first = exists ? at[1] : 0;
        r.n = exists ? at[2] : 0;
    }
    return r;
}
DEVFN uint expert_row(ExpertP p, GLOBAL const uint *order, ExpertTile t, uint i) { return p.all ? (t.first + i) * p.used + t.expert : order[t.first + i]; }

/* The first four waves decode weights, a unit for each thread and step; the others copy activations: halves [rows][x_stride], scale[rows]. What the next step
 * needs is fetched before this one is multiplied. Groups: x rows of the matrix, y tiles. */
KERNEL(FN(mg_f16), 256, ExpertP, BUF(1, const uchar, w), BUF(2, const ushort, x), BUF(3, const float, scale), BUF(4, const uint, order), BUF(5, const float, bias), BUF(6, float, y))
{
    SHARED uint4 sh[2 * MG * MG_LD * 2 / 16];
    LOCAL ushort *ws = (LOCAL ushort *)sh, *xs = ws + MG * MG_LD;
    LOCAL float *ys = (LOCAL float *)sh;
    START();
    ExpertTile tile = expert_tile(p, order, group_y);
    uint row0 = group_x * MG, wr = wave / 4 * 32, wn = wave % 4 * 16, decodes = wave < 4;
    uint r = tid % 128 / 2, half_k = tid % 2, my_row = row0 + r < p.rows ? row0 + r : p.rows - 1, end = tile.n ? p.w.n_units + 2 : 0;
    GLOBAL const uchar *wrow = w + ((size_t)tile.expert * p.rows + my_row) * p.w.row_bytes;
    MatC c[2];
    FN(Raw) raw;
    uint4 xv[4], zero;
    uint from[4];
    zero.x = zero.y = zero.z = zero.w = 0;
    UNROLL for (uint i = 0; i < 2; i++) mat_zero(c[i]);
    UNROLL for (uint i = 0; i < 4; i++)
    {
        uint t = tid % 128 / 8 + 16 * i;
        from[i] = 0;
        if (t < tile.n) from[i] = expert_row(p, order, tile, t);
        if (p.same) from[i] /= p.used;
    }
    if (decodes && half_k < p.w.n_units) raw = FN(unit_fetch)(wrow, half_k, p.w);
    for (uint k = 0; k < end; k += 2) {
        if (k > 0) BARRIER(); /* the step before is multiplied */
        if (!decodes && k < p.w.n_units) {
            UNROLL for (uint i = 0; i < 4; i++)
            {
                uint t = tid % 128 / 8 + 16 * i, e = tid % 8;
                xv[i] = zero;
                if (t < tile.n && k + e / 4 < p.w.n_units) xv[i] = ((GLOBAL const uint4 *)(x + (size_t)from[i] * p.x_stride))[k * 4 + e];
            }
        }
        if (k > 0) {
            UNROLL for (uint e = 0; e < MG; e += 16)
            {
                MatA a;
                MatB b0, b1;
                mat_load_a(a, xs + wn * MG_LD + e, MG_LD);
                mat_load_b(b0, ws + wr * MG_LD + e, MG_LD);
                mat_load_b(b1, ws + (wr + 16) * MG_LD + e, MG_LD);
                mat_mma(c[0], a, b0);
                mat_mma(c[1], a, b1);
            }
            BARRIER();
        }
        if (decodes && k < p.w.n_units) {
            LOCAL uint4 *to = (LOCAL uint4 *)(ws + r * MG_LD + half_k * 32);
            if (k + half_k < p.w.n_units) {
                FN(Unit) a = FN(unit_decode)(raw, p.w);
                if (k + 2 + half_k < p.w.n_units) raw = FN(unit_fetch)(wrow, k + 2 + half_k, p.w);
                UNROLL for (uint i = 0; i < 4; i++)
                {
                    float4 lo = FN(unit_value)(a, 2 * i), hi = FN(unit_value)(a, 2 * i + 1);
                    to[i] = eight_halves(lo, hi);
                }
            } else {
                UNROLL for (uint i = 0; i < 4; i++) to[i] = zero;
            }
        }
        if (!decodes && k < p.w.n_units) {
            UNROLL for (uint i = 0; i < 4; i++) ((LOCAL uint4 *)(xs + (tid % 128 / 8 + 16 * i) * MG_LD))[tid % 8] = xv[i];
        }
    }
    BARRIER();
    UNROLL for (uint i = 0; i < 2; i++) mat_store(ys + wn * MG_LD + wr + i * 16, c[i], MG_LD);
    BARRIER();
    for (uint i = tid; i < MG * EXPERT_TILE; i += 256) {
        uint t = i / MG, col = i % MG, row = row0 + col;
        if (t < tile.n && row < p.rows && !(p.glu && (row & 1))) {
            uint at = expert_row(p, order, tile, t);
            float d = scale[p.same ? at / p.used : at], v = ys[t * MG_LD + col] * d, up = 0.0f;
            if (p.glu) up = ys[t * MG_LD + col + 1] * d;
            expert_output(p, bias, y + (size_t)(at / p.used) * p.y_stride, at % p.used, tile.expert, row, v, up);
        }
    }
}
