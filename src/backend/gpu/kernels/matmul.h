/* Matmul for prompts, in tiles. mm_f16: 128 tokens by 64 rows on the device's 16 x 16 matrix operations, f16 operands, f32 sums; a token's
 * halves carry a power of two of its own, so that none overflows. mm_f32: 32 tokens by 64 rows, all in f32. */

#define MM 64        /* rows */
#define MM_TOKENS 128
#define MM_K 64      /* columns of a step: two units of each row */
#define MM_LD 72     /* row length in shared memory: rows begin in different banks */

/* The first four waves decode weights, a unit for each thread and step; the others copy activations: halves [n][x_stride], scale[n]. What the
 * next step needs is fetched before this one is multiplied. Groups: x rows, y tokens. */
KERNEL(FN(mm_f16), 256, MatP, BUF(1, const uchar, w), BUF(2, const ushort, x), BUF(3, const float, scale), BUF(4, const float, bias),
       BUF(5, const float, res), BUF(6, float, y0), BUF(7, float, y1), BUF(8, float, y2))
{
    SHARED uint4 sh[(MM + MM_TOKENS) * MM_LD * 2 / 16];
    LOCAL ushort *ws = (LOCAL ushort *)sh, *xs = ws + MM * MM_LD;
    LOCAL float *ys = (LOCAL float *)sh;
    uint row0 = group_x * MM, n0 = group_y * MM_TOKENS, wr = wave / 4 * 32, wn = wave % 4 * 32, decodes = wave < 4;
    uint r = tid % 128 / 2, half_k = tid % 2, my_row = row0 + r < p.rows ? row0 + r : p.rows - 1;
    GLOBAL const uchar *wrow = w + (size_t)my_row * p.w.row_bytes;
    MatC c[4];
    FN(Raw) raw;
    uint4 xv[8], zero;
    zero.x = zero.y = zero.z = zero.w = 0;
    UNROLL for (uint i = 0; i < 4; i++) mat_zero(c[i]);
    if (decodes && half_k < p.w.n_units) raw = FN(unit_fetch)(wrow, half_k, p.w);
    START();
    for (uint k = 0; k < p.w.n_units + 2; k += 2) {
        if (k > 0) BARRIER(); /* the step before is multiplied */
        if (!decodes && k < p.w.n_units) {
            UNROLL for (uint i = 0; i < 8; i++)
            {
                uint piece = tid - 128 + 128 * i, t = n0 + piece / 8, e = piece % 8;
                xv[i] = zero;
                if (t < p.n && k + e / 4 < p.w.n_units) xv[i] = ((GLOBAL const uint4 *)(x + (size_t)t * p.x_stride))[k * 4 + e];
            }
        }
        if (k > 0) {
            UNROLL for (uint e = 0; e < MM_K; e += 16)
            {
                MatA a0, a1;
                MatB b0, b1;
                mat_load_a(a0, xs + wn * MM_LD + e, MM_LD);
                mat_load_a(a1, xs + (wn + 16) * MM_LD + e, MM_LD);
                mat_load_b(b0, ws + wr * MM_LD + e, MM_LD);
                mat_load_b(b1, ws + (wr + 16) * MM_LD + e, MM_LD);
                mat_mma(c[0], a0, b0);
                mat_mma(c[1], a0, b1);
                mat_mma(c[2], a1, b0);
                mat_mma(c[3], a1, b1);
            }
            BARRIER();
        }
        if (decodes && k < p.w.n_units) {
            LOCAL uint4 *to = (LOCAL uint4 *)(ws + r * MM_LD + half_k * 32);
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
            UNROLL for (uint i = 0; i < 8; i++)
            {
                uint piece = tid - 128 + 128 * i;
                ((LOCAL uint4 *)(xs + piece / 8 * MM_LD))[piece % 8] = xv[i];
            }
        }
    }
    for (uint part = 0; part < MM_TOKENS; part += 64) { /* as many tokens as fit the shared memory */
        BARRIER();
        if (wn / 64 * 64 == part) {
            UNROLL for (uint i = 0; i < 4; i++) mat_store(ys + (wn % 64 + i / 2 * 16) * MM_LD + wr + i % 2 * 16, c[i], MM_LD);
        }
        BARRIER();
        for (uint i = tid; i < 64 * MM; i += 256) {
            uint t = n0 + part + i / MM, col = i % MM, row = row0 + col;
            if (t < p.n && row < p.rows && !(p.glu && (row & 1))) {
                float v = ys[i / MM * MM_LD + col] * scale[t], up = 0.0f;
                if (p.glu) up = ys[i / MM * MM_LD + col + 1] * scale[t];
                if (p.has_bias) v += bias[row];
                if (p.glu && p.has_bias) up += bias[row + 1];
                store_output(p, res, y0, y1, y2, p.glu ? row / 2 : row, t, v, up);
            }
        }
    }
}

/* A thread sums 4 tokens by 4 rows. x: f32 [n][x_stride]. */
KERNEL(FN(mm_f32), 128, MatP, BUF(1, const uchar, w), BUF(2, const float, x), BUF(3, const float, scale), BUF(4, const float, bias),
       BUF(5, const float, res), BUF(6, float, y0), BUF(7, float, y1), BUF(8, float, y2))
{
    SHARED float4 ws[8 * 64]; /* [unit's quad][row] */
    SHARED float4 xs[8 * 32]; /* [unit's quad][token] */
    uint row0 = group_x * 64, n0 = group_y * 32, tr = tid % 16, tt = tid / 16;
    (void)scale; /* the same arguments as mm_f16 */
    float acc[16];
    START();
    UNROLL for (uint i = 0; i < 16; i++) acc[i] = 0.0f;
    for (uint u = 0; u < p.w.n_units; u++) {
        if (tid < 64) {
            uint row = row0 + tid < p.rows ? row0 + tid : p.rows - 1;
            FN(Unit) a = FN(unit_load)(w + (size_t)row * p.w.row_bytes, u, p.w);
            UNROLL for (uint k = 0; k < 8; k++) ws[k * 64 + tid] = FN(unit_value)(a, k);
        }
        for (uint i = tid; i < 8 * 32; i += 128) {
            uint t = n0 + i / 8 < p.n ? n0 + i / 8 : p.n - 1;
            xs[i % 8 * 32 + i / 8] = ((GLOBAL const float4 *)(x + (size_t)t * p.x_stride))[8 * u + i % 8];
        }
        BARRIER();
        for (uint k = 0; k < 8; k++) {
            float4 a[4], b[4];
            UNROLL for (uint i = 0; i < 4; i++)
            {
                a[i] = xs[k * 32 + tt * 4 + i];
                b[i] = ws[k * 64 + tr + 16 * i];
            }
            UNROLL for (uint i = 0; i < 16; i++) acc[i] += dot_4(a[i / 4], b[i % 4]);
        }
        BARRIER();
    }
    LOCAL float *ys = (LOCAL float *)ws; /* [token][row] */
    UNROLL for (uint i = 0; i < 16; i++) ys[(tt * 4 + i / 4) * 64 + tr + 16 * (i % 4)] = acc[i];
    BARRIER();
    for (uint i = tid; i < 32 * 64; i += 128) {
        uint t = n0 + i / 64, row = row0 + i % 64;
        if (t < p.n && row < p.rows && !(p.glu && (row & 1))) {
            float v = ys[i], up = 0.0f;
            if (p.has_bias) v += bias[row];
            if (p.glu) up = ys[i + 1] + (p.has_bias ? bias[row + 1] : 0.0f);
            store_output(p, res, y0, y1, y2, p.glu ? row / 2 : row, t, v, up);
        }
    }
}

/* Rows as halves, for the device's library: a thread decodes a unit. In planes, as the packed plain numbers have them. */
KERNEL(FN(halves), 256, HalvesP, BUF(1, const uchar, w), BUF(2, uint4, y))
{
    START();
    uint i = group_x * group_size + tid, row = i / p.w.n_units, u = i % p.w.n_units;
    if (row < p.rows) {
        FN(Unit) a = FN(unit_load)(w + (size_t)(p.row0 + row) * p.w.row_bytes, u, p.w);
        UNROLL for (uint k = 0; k < 4; k++)
        {
            float4 lo = FN(unit_value)(a, 2 * k), hi = FN(unit_value)(a, 2 * k + 1);
            y[((size_t)(p.to + row) * 4 + k) * p.w.n_units + u] = eight_halves(lo, hi);
        }
    }
}
