/* Products of single rows with the matrix of their expert, whose number is in device memory. A wave computes two rows of the matrix. Re-included with
 *   MX_NAME  kernel
 *   MX_I8    activations as int8 units, else f32 rows
 * Groups: x a token and one of its choices, y tiles of rows. */
KERNEL(FN(MX_NAME), 256, ExpertP, BUF(1, const uchar, w), BUF(2, const uchar, x), BUF(3, const float, route), BUF(4, const float, bias), BUF(5, float, y))
{
    START();
    uint t = group_x / p.used, s = group_x % p.used, e = p.all ? s : (uint)route[(size_t)t * p.route_stride + s];
    uint row = 2 * (group_y * (group_size / WAVE) + wave), row0 = row < p.rows ? row : p.rows - 1, row1 = row + 1 < p.rows ? row + 1 : p.rows - 1;
    GLOBAL const uchar *w0 = w + ((size_t)e * p.rows + row0) * p.w.row_bytes, *w1 = w + ((size_t)e * p.rows + row1) * p.w.row_bytes;
    uint from = p.same ? t : group_x;
    float v0 = 0.0f, v1 = 0.0f;
    UNROLL_N(2) for (uint u = lane; u < p.w.n_units; u += WAVE)
    {
        FN(Unit) a0 = FN(unit_load)(w0, u, p.w), a1 = FN(unit_load)(w1, u, p.w);
#if MX_I8
        ActUnit xu = act_unit_global(x + (size_t)from * p.x_stride, p.w.n_units, u);
        v0 += FN(unit_dot)(a0, xu);
        v1 += FN(unit_dot)(a1, xu);
#else
        GLOBAL const float4 *xu = (GLOBAL const float4 *)((GLOBAL const float *)x + (size_t)from * p.x_stride) + 8 * u;
        UNROLL for (uint k = 0; k < 8; k++)
        {
            float4 f = xu[k];
            v0 += dot_4(FN(unit_value)(a0, k), f);
            v1 += dot_4(FN(unit_value)(a1, k), f);
        }
#endif
    }
    v0 = wave_sum(v0);
    v1 = wave_sum(v1);
    if (lane == 0 && row < p.rows) expert_output(p, bias, y + (size_t)t * p.y_stride, s, e, row, v0, v1);
    if (lane == 1 && row + 1 < p.rows && !p.glu) expert_output(p, bias, y + (size_t)t * p.y_stride, s, e, row + 1, v1, 0.0f);
}
