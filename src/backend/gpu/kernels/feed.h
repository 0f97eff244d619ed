/* One token as int8 units for a matmul with streams: planes of 16 bytes per unit (elements 0-15, 16-31), then {d, d', d s, d' s'} of each unit, where x = d q
 * and s sums the q of a half. Behind them, in memory, the sums of squares of 16 elements each, from which the norm's factor comes: rows get it at their end. */

/* Four lanes round sixteen elements. */
DEVFN Quant quantize_16(float4 v CTX_PARAM)
{
    float most = fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w)));
    most = fmaxf(most, wave_xor(most, 1));
    most = fmaxf(most, wave_xor(most, 2));
    return rounded(v, most CTX);
}

/* Sixteen lanes round element e of theirs each and put it into memory; not `there`: they only go along. */
DEVFN void feed_16(GLOBAL uchar *to, uint n_units, uint e, uint there, float v CTX_PARAM)
{
    float most = wave_most16(fabsf(v)), d = most * (1.0f / 127.0f);
    uint bits = f32_bits(v * (most > 0.0f ? quotient(127.0f, most) : 0.0f) + ROUNDER), u = e / 32, part = e / 16 % 2;
    float sum = wave_count16((int)bits - ROUNDER_BITS);
    if (there) {
        to[(part * n_units + u) * 16 + e % 16] = (uchar)(bits & 255u);
        if (e % 16 == 0) {
            GLOBAL float *f = (GLOBAL float *)(to + 32 * n_units) + 4 * u + part;
            f[0] = d;
            f[2] = d * sum;
        }
    }
}
