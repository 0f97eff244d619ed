/* Matmul for few tokens: a wave computes MV_ROWS rows, its lanes stride over their units. Re-included for each layout with
 *   MV_NAME  kernel
 *   MV_ROWS, MV_THREADS  rows of a wave, most threads of a group
 *   MV_T     tokens at a time (group_y counts such chunks)
 *   MV_I8    activations as int8 units, else f32
 *   MV_PRO   the group itself norms and rounds the one token into shared memory; else x is prepared: act units, or f32 rows */
KERNEL(FN(MV_NAME), MV_THREADS, MatP, BUF(1, const uchar, w), BUF(2, const uchar, x), BUF(3, const float, norm_w), BUF(4, const float, norm_b),
       BUF(5, const float, bias), BUF(6, const float, res), BUF(7, float, y0), BUF(8, float, y1), BUF(9, float, y2))
{
    SHARED float red[MV_THREADS / WAVE * MV_ROWS * MV_T];
    uint split = wave % p.splits, per_group = group_size / WAVE / p.splits, t0 = group_y * MV_T;
    uint u0 = split * WAVE + lane, stride = WAVE * p.splits;
    FN(Raw) next[MV_ROWS];
    /* the first weights are on their way before the activations are there */
    if (u0 < p.w.n_units) {
        UNROLL for (uint r = 0; r < MV_ROWS; r++)
        {
            uint row = (group_x * per_group + wave / p.splits) * MV_ROWS + r;
            next[r] = FN(unit_fetch)(w + (size_t)(row < p.rows ? row : p.rows - 1) * p.w.row_bytes, u0, p.w);
        }
    }
#if MV_PRO
    SHARED float tmp[MV_THREADS / WAVE];
#if MV_I8
    SHARED uint4 xq[2 * MV_UNITS];
    SHARED float xd[MV_UNITS];
    SHARED uint xs[MV_UNITS];
#else
    SHARED float4 xf[8 * MV_F32_UNITS];
#endif
    {
        GLOBAL const float *xr = (GLOBAL const float *)x;
        uint n_pieces = 8 * p.w.n_units, n_sets = (n_pieces + PRE * group_size - 1) / (PRE * group_size);
        Pieces a, nw;
        if (p.norm != NORM_NONE) nw = fetch_pieces(norm_w, n_pieces, 0 CTX);
        START();
        a = fetch_pieces(xr, n_pieces, 0 CTX);
        Norm norm = pieces_norm(xr, a, p.n_in, n_pieces, p.norm, p.eps, tmp CTX);
        for (uint set = 0; set < n_sets; set++) {
            if (set > 0) {
                a = fetch_pieces(xr, n_pieces, set CTX);
                if (p.norm != NORM_NONE) nw = fetch_pieces(norm_w, n_pieces, set CTX);
            }
            UNROLL for (uint j = 0; j < PRE; j++)
            {
                uint i = (set * PRE + j) * group_size + tid, u = i / 8, k = i % 8;
                SKIP_UNLESS((set * PRE + j) * group_size < n_pieces) {
                    float4 v = a.v[j], nb;
                    nb.x = nb.y = nb.z = nb.w = 0.0f;
                    if (p.has_norm_b && i < n_pieces) nb = ((GLOBAL const float4 *)norm_b)[i];
                    if (p.norm != NORM_NONE) v = norm_piece(v, nw.v[j], nb, norm);
#if MV_I8
                    Quant e = quantize(v CTX);
                    if (i < n_pieces) {
                        ((LOCAL uint *)xq)[(k / 4 * MV_UNITS + u) * 4 + k % 4] = e.q;
                        if (k % 4 == 0) ((LOCAL ushort *)xs)[2 * u + k / 4] = (ushort)(uint)(int)e.sum;
                        if (k == 0) xd[u] = e.d;
                    }
#else
                    if (i < n_pieces) xf[k * MV_F32_UNITS + u] = v;
#endif
                }
            }
        }
    }
    BARRIER();
#else
    (void)norm_w; /* the same arguments for all */
    (void)norm_b;
    START();
#endif
    for (uint tile = group_x; tile < p.n_tiles; tile += p.n_groups) {
        uint row0 = (tile * per_group + wave / p.splits) * MV_ROWS;
        float acc[MV_ROWS * MV_T];
        UNROLL for (uint i = 0; i < MV_ROWS * MV_T; i++) acc[i] = 0.0f;
        for (uint u = u0; u < p.w.n_units; u += stride) {
            FN(Unit) a[MV_ROWS];
            UNROLL for (uint r = 0; r < MV_ROWS; r++) a[r] = FN(unit_decode)(next[r], p.w);
            {
                uint last = u + stride >= p.w.n_units, to_u = last ? u0 : u + stride, to_tile = last ? tile + p.n_groups : tile;
                uint to_row = (to_tile * per_group + wave / p.splits) * MV_ROWS;
                if (to_tile < p.n_tiles) {
                    UNROLL for (uint r = 0; r < MV_ROWS; r++)
                    {
                        uint row = to_row + r < p.rows ? to_row + r : p.rows - 1;
                        next[r] = FN(unit_fetch)(w + (size_t)row * p.w.row_bytes, to_u, p.w);
                    }
                }
            }
            UNROLL for (uint t = 0; t < MV_T; t++)
            {
#if MV_I8 && MV_PRO
                ActUnit xu = act_unit_local(xq, xd, xs, MV_UNITS, u);
#elif MV_I8
                uint token = t0 + t < p.n ? t0 + t : p.n - 1;
                ActUnit xu = act_unit_global(x + (size_t)token * p.x_stride, p.w.n_units, u);
#elif !MV_PRO
                uint token = t0 + t < p.n ? t0 + t : p.n - 1;
                GLOBAL const float4 *xu = (GLOBAL const float4 *)((GLOBAL const float *)x + (size_t)token * p.x_stride) + 8 * u;
#endif
#if MV_I8
                UNROLL for (uint r = 0; r < MV_ROWS; r++) acc[r * MV_T + t] += FN(unit_dot)(a[r], xu);
#else
                UNROLL for (uint k = 0; k < 8; k++)
                {
#if MV_PRO
                    float4 v = xf[k * MV_F32_UNITS + u];
#else
                    float4 v = xu[k];
#endif
                    UNROLL for (uint r = 0; r < MV_ROWS; r++) acc[r * MV_T + t] += dot_4(FN(unit_value)(a[r], k), v);
                }
#endif
            }
        }
        UNROLL for (uint i = 0; i < MV_ROWS * MV_T; i++) acc[i] = wave_sum(acc[i]);
        if (p.splits > 1) {
            BARRIER(); /* of the tile before */
            UNROLL for (uint i = 0; i < MV_ROWS * MV_T; i++)
            {
                if (lane == i) red[wave * MV_ROWS * MV_T + i] = acc[i];
            }
            BARRIER();
            UNROLL for (uint i = 0; i < MV_ROWS * MV_T; i++)
            {
                float sum = 0.0f;
                for (uint s = 0; s < p.splits; s++) sum += red[(wave - split + s) * MV_ROWS * MV_T + i];
                acc[i] = sum;
            }
        }
        UNROLL for (uint i = 0; i < MV_ROWS * MV_T; i++)
        {
            uint row = row0 + i / MV_T, t = t0 + i % MV_T;
            if (split == 0 && lane == i && row < p.rows && t < p.n && !(p.glu && i / MV_T % 2)) {
                float v = acc[i], up = i + MV_T < MV_ROWS * MV_T ? acc[(i + MV_T) % (MV_ROWS * MV_T)] : 0.0f;
                if (p.has_bias) v += bias[row];
                if (p.glu && p.has_bias) up += bias[row + 1];
                store_output(p, res, y0, y1, y2, p.glu ? row / 2 : row, t, v, up);
            }
        }
    }
}
