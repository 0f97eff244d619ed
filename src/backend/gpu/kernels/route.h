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
KERNEL(route_tokens, 32, RouteP, BUF(1, const float, x), BUF(2, const float, bias), BUF(3, const float, factors), BUF(4, float, y))
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
            score[g] = comparable(p.group_by_one ? first : first + second);
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
        yr[p.n_used + k] = prob[chosen[k]] * (p.scale * (p.has_factors ? factors[chosen[k]] : 1.0f) / (p.normed ? total + p.eps : 1.0f));
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

/* Puts the rows of products (choice s of token t is row t * used + s) in the order of their experts: order[0..n), where those of each expert begin at
 * first_at, n behind the last. Groups: experts. Threads share the rows in order, so the order is always the same. */
KERNEL(sort_experts, 256, SortP, BUF(1, const float, route), BUF(2, uint, order))
{
    SHARED float tmp[256 / WAVE];
    SHARED uint equal[256];
    START();
    uint e = group_x, per = (p.n + group_size - 1) / group_size, from = tid * per < p.n ? tid * per : p.n, to = from + per < p.n ? from + per : p.n, less = 0, mine = 0, at;
    for (uint i = from; i < to; i++) {
        uint c = (uint)route[(size_t)(i / p.used) * p.stride + i % p.used];
        less += c < e ? 1 : 0;
        mine += c == e ? 1 : 0;
    }
    equal[tid] = mine;
    at = (uint)group_sum(tmp, (float)less CTX);
    if (tid == 0) order[p.first_at + e] = at;
    if (tid == 0 && e + 1 == p.n_experts) order[p.first_at + p.n_experts] = p.n;
    for (uint i = 0; i < tid; i++) at += equal[i];
    for (uint i = from; i < to; i++) {
        if ((uint)route[(size_t)(i / p.used) * p.stride + i % p.used] == e) {
            order[at] = i;
            at++;
        }
    }
}

/* Cuts what sort_experts has made into tiles of at most EXPERT_TILE rows of one expert: their number at tiles_at, then {expert, first, rows} of each. One
 * group. */
KERNEL(tile_experts, 256, SortP, BUF(1, uint, order))
{
    SHARED uint tiles[ROUTE_MOST];
    START();
    for (uint e = tid; e < p.n_experts; e += group_size) tiles[e] = (order[p.first_at + e + 1] - order[p.first_at + e] + EXPERT_TILE - 1) / EXPERT_TILE;
    BARRIER();
    for (uint e = tid; e < p.n_experts; e += group_size) {
        uint first = order[p.first_at + e], left = order[p.first_at + e + 1] - first, at = 0;
        for (uint i = 0; i < e; i++) at += tiles[i];
        for (uint i = 0; i < tiles[e]; i++) {
            uint to = p.tiles_at + 1 + 3 * (at + i);
            order[to] = e;
            order[to + 1] = first + i * EXPERT_TILE;
            order[to + 2] = left - i * EXPERT_TILE < EXPERT_TILE ? left - i * EXPERT_TILE : EXPERT_TILE;
        }
        if (e + 1 == p.n_experts) order[p.tiles_at] = at + tiles[e];
    }
}
