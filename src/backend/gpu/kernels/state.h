/* Operations that keep something from token to token, in the sequence's state: model/program.h has the formulas. A thread goes through the tokens in order, so
 * batches change no bit. The batch block has the number of the state as its fourth word of a token; before a sequence's first token its state is zero,
 * whatever lies there. */
DEVFN float softplus(float x)
{
    float e = expf(-fabsf(x)), l = e < 0.03125f ? e * (1.0f - e * (0.5f - e * (0.33333333f - 0.25f * e))) : logf(1.0f + e);
    return x > 0.0f ? x + l : l;
}

/* state {width, taps - 1}, oldest first. Groups: x over the row. */
KERNEL(state_conv, 256, StateP, BUF(1, const uint, batch), BUF(2, float, states), BUF(3, const float, w), BUF(4, const float, b), BUF(5, const float, x), BUF(6, float, y))
{
    START();
    uint c = group_x * group_size + tid, width = p.n_heads, last = p.dim - 1;
    for (uint t = 0; t < p.n; t++) {
        uint fresh = batch[4 * t + 1] == 0;
        GLOBAL float *s = states + (size_t)batch[4 * t + 3] * p.all + p.at;
        if (c < width) {
            float now = x[(size_t)t * p.x_stride + c], sum = 0.0f;
            for (uint k = 0; k < last; k++) {
                float v = fresh ? 0.0f : s[k * width + c];
                sum += w[c * p.dim + k] * v;
                if (k > 0) s[(k - 1) * width + c] = v;
            }
            if (last > 0) s[(last - 1) * width + c] = now;
            y[(size_t)t * p.y_stride + c] = sum + w[c * p.dim + last] * now + (p.has_b ? b[c] : 0.0f);
        }
    }
}

/* state {head_dim, n_state, n_heads}. Groups: x over the row. */
KERNEL(state_scan, 256, StateP, BUF(1, const uint, batch), BUF(2, float, states), BUF(3, const float, w), BUF(4, const float, b), BUF(5, const float, x),
       BUF(6, const float, step), BUF(7, const float, bc), BUF(8, float, y))
{
    START();
    uint i = group_x * group_size + tid, head = i / p.dim, e = i % p.dim, group = head / (p.n_heads / p.n_groups);
    for (uint t = 0; t < p.n; t++) {
        uint fresh = batch[4 * t + 1] == 0;
        GLOBAL float *h = states + (size_t)batch[4 * t + 3] * p.all + p.at + head * p.n_state * p.dim + e;
        if (head < p.n_heads) {
            GLOBAL const float *bn = bc + (size_t)t * p.z_stride + group * p.n_state, *cn = bn + p.n_groups * p.n_state;
            float v = x[(size_t)t * p.x_stride + i], d = softplus(step[(size_t)t * p.step_stride + head]), sum = 0.0f;
            for (uint n = 0; n < p.n_state; n++) {
                float old = fresh ? 0.0f : h[n * p.dim], now = expf(d * w[p.one ? head : head * p.n_state + n]) * old + d * bn[n] * v;
                h[n * p.dim] = now;
                sum += cn[n] * now;
            }
            y[(size_t)t * p.y_stride + i] = sum + b[head] * v;
        }
    }
}

/* state {v_dim, k_dim, n_heads}; v_dim is dim, k_dim is n_state, tiled is one. Groups: heads, whose threads have elements of the value. */
KERNEL(state_delta, 256, StateP, BUF(1, const uint, batch), BUF(2, float, states), BUF(3, const float, w), BUF(4, const float, b), BUF(5, const float, x),
       BUF(6, const float, gates), BUF(7, float, y))
{
    START();
    uint head = group_x, per = p.n_heads / p.n_groups, part = head / per, k_head = p.one ? head % p.n_groups : part;
    for (uint t = 0; t < p.n; t++) {
        uint fresh = batch[4 * t + 1] == 0;
        GLOBAL float *s = states + (size_t)batch[4 * t + 3] * p.all + p.at + head * p.n_state * p.dim;
        GLOBAL const float *q = x + (size_t)t * p.x_stride + k_head * p.n_state, *k = q + p.n_groups * p.n_state;
        GLOBAL const float *v = x + (size_t)t * p.x_stride + 2 * p.n_groups * p.n_state + head * p.dim, *g = gates + (size_t)t * p.step_stride + part * 2 * per + head % per;
        float qq = 0.0f, kk = 0.0f, decay = expf(w[head] * softplus(g[per] + b[head])), write = 1.0f / (1.0f + expf(-g[0]));
        for (uint i = 0; i < p.n_state; i++) {
            qq += q[i] * q[i];
            kk += k[i] * k[i];
        }
        qq = 1.0f / (sqrtf(qq + p.eps) * sqrtf((float)p.n_state));
        kk = 1.0f / sqrtf(kk + p.eps);
        for (uint j = tid; j < p.dim; j += group_size) {
            float known = 0.0f, sum = 0.0f;
            for (uint i = 0; i < p.n_state; i++) known += k[i] * kk * (fresh ? 0.0f : s[i * p.dim + j] * decay);
            float change = write * (v[j] - known);
            for (uint i = 0; i < p.n_state; i++) {
                float now = (fresh ? 0.0f : s[i * p.dim + j] * decay) + k[i] * kk * change;
                s[i * p.dim + j] = now;
                sum += q[i] * qq * now;
            }
            y[(size_t)t * p.y_stride + head * p.dim + j] = sum;
        }
    }
}

/* state {value, key, n_heads}; head_dim is dim. Groups: heads, whose threads have elements of the value. */
KERNEL(state_wkv, 256, StateP, BUF(1, const uint, batch), BUF(2, float, states), BUF(3, const float, w), BUF(4, const float, rk), BUF(5, const float, gates),
       BUF(6, const float, values), BUF(7, float, y))
{
    START();
    uint at = group_x * p.dim, all = p.n_heads * p.dim;
    for (uint t = 0; t < p.n; t++) {
        uint fresh = batch[4 * t + 1] == 0;
        GLOBAL float *s = states + (size_t)batch[4 * t + 3] * p.all + p.at + at * p.dim;
        GLOBAL const float *r = rk + (size_t)t * p.x_stride + at, *k = r + all, *g = gates + (size_t)t * p.step_stride + at, *a = g + all;
        GLOBAL const float *v = values + (size_t)t * p.z_stride + at, *u = w + at, *c = u + all, *m = c + all;
        float length = 0.0f, bonus = 0.0f;
        for (uint i = 0; i < p.dim; i++) length += k[i] * u[i] * (k[i] * u[i]);
        length = 1.0f / fmaxf(sqrtf(length), p.eps);
        for (uint j = tid; j < p.dim; j += group_size) {
            float gone = 0.0f, sum = 0.0f;
            bonus = 0.0f;
            for (uint i = 0; i < p.dim; i++) gone += k[i] * u[i] * length * (fresh ? 0.0f : s[i * p.dim + j]);
            for (uint i = 0; i < p.dim; i++) {
                float rate = 1.0f / (1.0f + expf(-a[i])), decay = expf(-0.60653066f / (1.0f + expf(-g[i]))), in = k[i] * (1.0f + (rate - 1.0f) * c[i]);
                float now = decay * (fresh ? 0.0f : s[i * p.dim + j]) - k[i] * u[i] * length * rate * gone + in * v[j];
                s[i * p.dim + j] = now;
                sum += r[i] * now;
                bonus += r[i] * in * m[i];
            }
            y[(size_t)t * p.y_stride + at + j] = sum;
            y[(size_t)t * p.y_stride + all + at + j] = bonus * v[j];
        }
    }
}
