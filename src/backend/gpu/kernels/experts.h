/* Where a product of choice s, with expert e, goes in its token's row. up: the next row, if this one and it are gate and up. */
DEVFN void expert_output(ExpertP p, GLOBAL const float *bias, GLOBAL float *y, uint s, uint e, uint row, float v, float up)
{
    if (p.has_bias) v += bias[(size_t)e * p.rows + row];
    if (p.glu) {
        if (p.has_bias) up += bias[(size_t)e * p.rows + row + 1];
        y[s * (p.rows / 2) + row / 2] = activate_glu(p.act, v, up);
    } else {
        y[s * p.rows + row] = v;
    }
}
