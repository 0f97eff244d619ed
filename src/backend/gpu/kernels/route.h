/* Mixtures of experts, but for the products: which experts a token chooses, the sum of their results. And heads taken apart and put together. */
#define ROUTE_MOST 1024 /* experts */
#define ROUTE_TAKEN -3.4e38f

/* Numbers that compare as program.h says: NaN below all others, what is taken below that. */
DEVFN float comparable(float x) { return x >= -3.0e38f ? x : x == x ? -3.0e38f : -3.2e38f; }

/* The first of the largest of v[0..n), which is then taken; the same for all lanes. */
DEVFN uint take_best(LOCAL float *v, uint n CTX_PARAM)
{
    float best = ROUTE_TAKEN, most;
    uint at = n;
    for (uint i = lane; i < n; i += WAVE) {
        if (v[i] > best) {
            best = v[i];
            at = i;
        }
    }
    most = wave_max(best);
    at = (uint)-wave_max(best == most ? -(float)at : -1.0e9f);
    at = at < n ? at : n - 1;
    if (lane == 0) v[at] = ROUTE_TAKEN;
    WAVE_SYNC();
    return at;
}

/* A wave for each token. */
KERNEL(route_tokens, 32, RouteP, BUF(1, const float, x), BUF(2, const float, bias), BUF(3, float, y))
{
    SHARED float prob[ROUTE_MOST];
    SHARED float choice[ROUTE_MOST];
    SHARED float score[ROUTE_MOST]; /* of groups, then 0 for those that are used */
    SHARED uint chosen[ROUTE_MOST];
    START();
    GLOBAL const float *xr = x + (size_t)group_x * p.stride;
    GLOBAL float *yr = y + (size_t)group_x * p.out_stride;
    float most = -3.4e38f, sum = 0.0f, total = 0.0f;
    for (uint i = lane; i < p.n; i += WAVE) most = fmaxf(most, xr[i]);
    most = wave_max(most);
    for (uint i = lane; i < p.n; i += WAVE) {
        float e = p.sigmoid ? 1.0f / (1.0f + expf(-xr[i])) : expf(xr[i] - most);
        prob[i] = e;
        sum += e;
    }
    sum = wave_sum(sum);
    for (uint i = lane; i < p.n; i += WAVE) {
        if (!p.sigmoid) prob[i] /= sum;
        choice[i] = comparable(prob[i] + (p.has_bias ? bias[i] : 0.0f));
    }
    WAVE_SYNC();
    if (p.n_groups > 1) {
        uint size = p.n / p.n_groups;
        for (uint g = lane; g < p.n_groups; g += WAVE) {
            float first = ROUTE_TAKEN, second = ROUTE_TAKEN;
            for (uint i = g * size; i < (g + 1) * size; i++) {
                float c = choice[i];
                second = c > first ? first : c > second ? c : second;
                first = c > first ? c : first;
            }
            score[g] = comparable(first + second);
        }
        WAVE_SYNC();
        for (uint k = 0; k < p.n_groups_used; k++) take_best(score, p.n_groups CTX);
        for (uint i = lane; i < p.n; i += WAVE) {
            if (score[i / size] != ROUTE_TAKEN) choice[i] = ROUTE_TAKEN;
        }
        WAVE_SYNC();
    }
    for (uint k = 0; k < p.n_used; k++) {
        uint e = take_best(choice, p.n CTX);
        if (lane == 0) chosen[k] = e;
        total += prob[e];
    }
    WAVE_SYNC();
    for (uint k = lane; k < p.n_used; k += WAVE) {
        yr[k] = (float)chosen[k];
        yr[p.n_used + k] = prob[chosen[k]] * (p.scale / (p.normed ? total : 1.0f));
    }
}

/* Rows of numbers that begin anywhere, one after the other: into rows of out_stride, with zeros behind their end. Groups: rows. */
KERNEL(pad_rows, 256, RowsP, BUF(1, const float, x), BUF(2, float, y))
{
    START();
    GLOBAL const float *xr = x + (size_t)(group_x / p.used) * p.stride + group_x % p.used * p.n_in;
    GLOBAL float *yr = y + (size_t)group_x * p.out_stride;
    for (uint i = tid; i < p.out_stride; i += group_size) yr[i] = i < p.n_in ? xr[i] : 0.0f;
}

/* Groups: x over the row, y tokens. */
KERNEL(combine_experts, 256, CombineP, BUF(1, const float, x), BUF(2, const float, route), BUF(3, const float, res), BUF(4, float, y))
{
    START();
    uint i = group_x * group_size + tid, t = group_y;
    GLOBAL const float *xr = x + (size_t)t * p.x_stride, *weight = route + (size_t)t * p.route_stride + p.used;
    if (i < p.width) {
        float v = 0.0f;
        for (uint s = 0; s < p.used; s++) v += weight[s] * xr[(size_t)s * p.width + i];
        if (p.has_res) v += res[(size_t)t * p.res_stride + i];
        y[(size_t)t * p.stride + i] = v;
    }
}

/* Heads of a elements from `first` on of those of x, then b elements of z. Groups: x over the row, y tokens. */
KERNEL(part_heads, 256, PartP, BUF(1, const float, x), BUF(2, const float, z), BUF(3, float, y))
{
    START();
    uint i = group_x * group_size + tid, t = group_y, head = i / (p.a + p.b), k = i % (p.a + p.b);
    if (head < p.n_heads)
        y[(size_t)t * p.stride + i] = k < p.a ? x[(size_t)t * p.x_stride + head * p.step + p.first + k] : z[(size_t)t * p.z_stride + head * p.b + k - p.a];
}
