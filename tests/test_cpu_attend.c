/* layers: cpu ref */
/* KV store and attention of every tier, for every KV type, against float64 over what the store really holds. Slots beyond the last
 * position hold NaN: nobody may look at them. And what a token gets does not depend on the tokens beside it, bit for bit. */
#include "cpu_test.h"

enum { HEAD_BYTES = 192 }; /* of a block, before the layer under test: another layer's */
static const char *const kv_names[] = {[KG_KV_F16] = "f16", [KG_KV_F32] = "f32", [KG_KV_Q8_0] = "q8_0"};

struct cache {
    const struct cpu_kernels *k;
    struct cpu_kv_layout kv;
    int n_pos;
    struct guarded block[16];
    uint8_t *blocks[16];
    float *keys, *values; /* [n_pos][n_kv_heads][k_dim or v_dim]: as given */
};

static size_t take(size_t *used, size_t n)
{
    size_t at = *used;
    *used += ROUND_UP(n, (size_t)64);
    return at;
}

static size_t lay_out(struct cpu_kv_layout *l, kg_kv_type type, int n_kv_heads, int k_dim, int v_dim)
{
    static const size_t item_bytes[] = {[KG_KV_F16] = 2, [KG_KV_F32] = 4, [KG_KV_Q8_0] = 1};
    *l = (struct cpu_kv_layout){.type = type, .n_kv_heads = n_kv_heads, .k_dim = k_dim, .v_dim = v_dim};
    l->k_groups = (k_dim + KV_GROUP - 1) / KV_GROUP;
    l->v_groups = (v_dim + KV_GROUP - 1) / KV_GROUP;
    size_t used = HEAD_BYTES, slots = (size_t)n_kv_heads * KV_BLOCK, scale = type == KG_KV_Q8_0 ? sizeof(float) : 0;
    l->k_offset = take(&used, slots * (size_t)k_dim * item_bytes[type]);
    l->v_offset = take(&used, slots * (size_t)v_dim * item_bytes[type]);
    l->k_scale_offset = take(&used, slots * (size_t)l->k_groups * scale);
    l->v_scale_offset = take(&used, slots * (size_t)l->v_groups * scale);
    return used;
}

static float item(const struct cpu_kv_layout *l, const uint8_t *p, size_t i)
{
    if (l->type == KG_KV_F32) return f32_from_bits(load_u32(p + 4 * i));
    if (l->type == KG_KV_F16) return f32_from_f16(load_u16(p + 2 * i));
    return (float)(int8_t)p[i];
}

/* What the cache holds, after the layout in cpu.h. */
static double key(const struct cache *c, int pos, int head, int i)
{
    const struct cpu_kv_layout *l = &c->kv;
    const uint8_t *b = c->blocks[pos / KV_BLOCK];
    double x = (double)item(l, b + l->k_offset, (size_t)((head * l->k_dim + i) * KV_BLOCK + pos % KV_BLOCK));
    if (l->type != KG_KV_Q8_0) return x;
    return x * (double)f32_from_bits(load_u32(b + l->k_scale_offset + 4 * ((head * l->k_groups + i / KV_GROUP) * KV_BLOCK + pos % KV_BLOCK)));
}

static double value(const struct cache *c, int pos, int head, int i)
{
    const struct cpu_kv_layout *l = &c->kv;
    const uint8_t *b = c->blocks[pos / KV_BLOCK];
    double x = (double)item(l, b + l->v_offset, (size_t)((head * KV_BLOCK + pos % KV_BLOCK) * l->v_dim + i));
    if (l->type != KG_KV_Q8_0) return x;
    return x * (double)f32_from_bits(load_u32(b + l->v_scale_offset + 4 * ((head * KV_BLOCK + pos % KV_BLOCK) * l->v_groups + i / KV_GROUP)));
}

/* x [n] as stored: f32 as it is, f16 rounded to nearest, int8 within half a step of a scale that fits the group's largest. */
static void check_stored(const struct cache *c, const char *what, const float *x, int n, double (*stored)(const struct cache *, int, int, int), int pos, int head)
{
    for (int g = 0; g < n; g += KV_GROUP) {
        const int end = MIN(n, g + KV_GROUP);
        double top = 0;
        for (int i = g; i < end; i++) top = fmax(top, fabs((double)x[i]));
        for (int i = g; i < end; i++) {
            double got = stored(c, pos, head, i);
            bool ok;
            if (c->kv.type == KG_KV_F32) ok = got == (double)x[i];
            else if (c->kv.type == KG_KV_F16) ok = got == (double)f32_from_f16(f16_from_f32(x[i]));
            else ok = fabs(got - (double)x[i]) <= top / 127 * (0.5 + 300 * U) + 0x1p-130;
            if (!ok) fail_msg("tier %s, kv %s: %s %d of position %d, head %d: %.9g is stored as %.9g", c->k->tier, kv_names[c->kv.type], what, i, pos, head, (double)x[i], got);
        }
    }
}

static void cache_new(struct cache *c, const struct cpu_kernels *k, kg_kv_type type, int n_kv_heads, int k_dim, int v_dim, int n_pos)
{
    *c = (struct cache){.k = k, .n_pos = n_pos};
    const size_t bytes = lay_out(&c->kv, type, n_kv_heads, k_dim, v_dim);
    const int n_blocks = (n_pos + KV_BLOCK - 1) / KV_BLOCK, k_width = n_kv_heads * k_dim, v_width = n_kv_heads * v_dim;
    assert_true(n_blocks <= (int)COUNT_OF(c->blocks));
    for (int i = 0; i < n_blocks; i++) {
        c->block[i] = guarded_new(bytes, 64);
        c->blocks[i] = c->block[i].p;
    }
    c->keys = malloc((size_t)(n_pos * k_width) * sizeof(float));
    c->values = malloc((size_t)(n_pos * v_width) * sizeof(float));
    assert_true(c->keys && c->values);
    for (int pos = 0; pos < n_pos; pos++) {
        struct guarded kx = guarded_new((size_t)k_width * 4, 4), vx = guarded_new((size_t)v_width * 4, 4);
        for (int i = 0; i < k_width; i++) c->keys[pos * k_width + i] = rng_normal();
        for (int i = 0; i < v_width; i++) c->values[pos * v_width + i] = (pos % 7 == 3 ? 20 : 1) * rng_normal();
        if (pos % 11 == 5) memset(c->values + pos * v_width, 0, (size_t)v_dim * 4);
        memcpy(kx.p, c->keys + pos * k_width, kx.n);
        memcpy(vx.p, c->values + pos * v_width, vx.n);
        const float *kp = (const void *)kx.p, *vp = (const void *)vx.p;
        for (int h = 0; h < n_kv_heads; h++) k->kv_store(&c->kv, c->blocks[pos / KV_BLOCK], pos % KV_BLOCK, h, kp + h * k_dim, vp + h * v_dim);
        guarded_free(&kx, "keys");
        guarded_free(&vx, "values");
    }
    for (int i = 0; i < n_blocks; i++)
        for (int j = 0; j < HEAD_BYTES; j++) assert_int_equal(c->blocks[i][j], GUARD_BYTE);
    for (int pos = 0; pos < n_pos; pos++)
        for (int h = 0; h < n_kv_heads; h++) {
            check_stored(c, "key", c->keys + pos * k_width + h * k_dim, k_dim, key, pos, h);
            check_stored(c, "value", c->values + pos * v_width + h * v_dim, v_dim, value, pos, h);
        }
    if (n_pos % KV_BLOCK && type == KG_KV_F32) /* the slots after the last are untouched */
        assert_int_equal(load_u32(c->blocks[n_blocks - 1] + c->kv.k_offset + 4 * (n_pos % KV_BLOCK)), 0xffffffffu);
}

static void cache_free(struct cache *c)
{
    for (size_t i = 0; i < COUNT_OF(c->block); i++)
        if (c->block[i].map) guarded_free(&c->block[i], "KV block");
    free(c->keys);
    free(c->values);
}

/* What happens to scores besides; filled anew for each job. */
static struct {
    int window;
    float softcap;
    bool has_slopes, has_sinks;
    float slopes[70], sinks[70]; /* of the job's heads */
} extra;

static void choose_extra(int n_pos)
{
    memset(&extra, 0, sizeof extra);
    if (rng_below(2)) return;
    if (rng_below(2)) extra.window = 1 + rng_below(rng_below(2) ? 40 : n_pos + 3);
    if (rng_below(3) == 0) extra.softcap = 1 + (float)rng_below(50);
    extra.has_slopes = rng_below(3) == 0;
    extra.has_sinks = rng_below(3) == 0;
    for (int h = 0; h < 70; h++) {
        extra.slopes[h] = exp2f((float)-rng_below(9));
        extra.sinks[h] = 3 * rng_normal();
    }
}

/* Runs n_tokens tokens, the last of which sees all positions; returns their out rows, `stride` apart. */
static struct guarded attend(const struct cache *c, const float *q, int head, int n_q, int n_pos, int n_tokens, float scale, size_t stride)
{
    const int k_dim = c->kv.k_dim, v_dim = c->kv.v_dim;
    const size_t q_floats = (size_t)(n_tokens - 1) * stride + (size_t)(n_q * k_dim), out_floats = (size_t)(n_tokens - 1) * stride + (size_t)(n_q * v_dim);
    struct guarded qg = guarded_new(q_floats * 4, 4), out = guarded_new(out_floats * 4, 4);
    struct guarded scratch = guarded_new(c->k->attend_scratch_bytes(n_q * n_tokens, k_dim, v_dim), 64);
    memcpy(qg.p, q, qg.n);
    struct cpu_attend a = {
        .kv = &c->kv, .blocks = c->blocks, .kv_head = head, .n_q = n_q, .n_tokens = n_tokens, .n_pos = n_pos, .scale = scale,
        .q = (const float *)(const void *)qg.p, .out = (float *)(void *)out.p, .q_stride = stride, .out_stride = stride,
        .scratch = (float *)(void *)scratch.p, .softcap = extra.softcap, .window = extra.window,
        .slopes = extra.has_slopes ? extra.slopes : NULL, .sinks = extra.has_sinks ? extra.sinks : NULL,
    };
    c->k->attend(&a);
    for (int t = 0; t + 1 < n_tokens; t++) /* between the tokens' rows lie other heads */
        for (size_t i = (size_t)(n_q * v_dim); i < stride; i++)
            if (load_u32(out.p + 4 * ((size_t)t * stride + i)) != 0xffffffffu) fail_msg("tier %s: attention wrote into another head", c->k->tier);
    guarded_free(&qg, "queries");
    guarded_free(&scratch, "scratch of attention");
    return out;
}

/* One row against float64. Returns the largest error / bound.
 *
 * A score is a dot product of k_dim terms, off by e = U (6 sqrt(k_dim) + 8) scale sum |q k| (test_cpu.c says why), and its distance to the
 * largest one rounds once more. A weight e^s is off by that, by e of the largest score and by 8 U of exp itself, and may have been
 * rescaled in every block when the largest score rose (10 U each). The sums over positions round like any sum, and so does
 * the sum of weights that divides them. Weights below e^-87 may be taken for e^-87. A cap is twice a division and an exponential: 16 U of it; a
 * slope rounds its product and the difference. */
static double check_row(const struct cache *c, const float *q, int head, int h, int n_pos, float scale, const float *out)
{
    const int from = extra.window > 0 ? MAX(0, n_pos - extra.window) : 0;
    const int k_dim = c->kv.k_dim, v_dim = c->kv.v_dim;
    double *s = malloc((size_t)n_pos * sizeof *s), *off = malloc((size_t)n_pos * sizeof *off), top = -INFINITY, top_off = 0, sum = 0, worst = 0;
    assert_true(s && off);
    if (extra.has_sinks) top = (double)extra.sinks[h];
    for (int j = from; j < n_pos; j++) {
        double size = 0;
        s[j] = 0;
        for (int i = 0; i < k_dim; i++) {
            double x = (double)q[i] * key(c, j, head, i) * (double)scale;
            s[j] += x;
            size += fabs(x);
        }
        off[j] = U * (6 * sqrt(k_dim) + 8) * size;
        if (extra.softcap > 0) {
            s[j] = (double)extra.softcap * tanh(s[j] / (double)extra.softcap);
            off[j] += 16 * U * (double)extra.softcap;
        }
        if (extra.has_slopes) {
            double less = (double)extra.slopes[h] * (n_pos - 1 - j);
            off[j] += U * (less + fabs(s[j] - less));
            s[j] -= less;
        }
        top = fmax(top, s[j]);
        top_off = fmax(top_off, off[j]);
    }
    double mean_off = 0, rounds = U * (6 * sqrt(n_pos) + 8 + 10 * (n_pos / KV_BLOCK + 1));
    if (extra.has_sinks) sum = exp((double)extra.sinks[h] - top);
    for (int j = from; j < n_pos; j++) {
        off[j] += top_off + U * (fabs(s[j] - top) + 8);
        s[j] = exp(s[j] - top);
        sum += s[j];
    }
    for (int j = from; j < n_pos; j++) {
        s[j] /= sum;
        mean_off += s[j] * off[j];
    }
    for (int i = 0; i < v_dim; i++) {
        double want = 0, bound = 0, size = 0, all = 0;
        for (int j = from; j < n_pos; j++) {
            double v = value(c, j, head, i), x = s[j] * v;
            want += x;
            size += fabs(x);
            bound += fabs(x) * off[j];
            all += fabs(v);
        }
        bound += size * (mean_off + 2 * rounds) + 2e-38 * all;
        double error = fabs((double)out[i] - want);
        if (!(error <= bound))
            fail_msg("tier %s, kv %s, dims %d and %d, %d positions: out %d is %.9g, want %.9g: error %.3g, bound %.3g", c->k->tier, kv_names[c->kv.type],
                     k_dim, v_dim, n_pos, i, (double)out[i], want, error, bound);
        if (bound > 0) worst = fmax(worst, error / bound);
    }
    free(s);
    free(off);
    return worst;
}

/* n_tokens tokens in one job, the last at the cache's end, against float64 and against jobs of one token. */
static double check_job(const struct cache *c, int n_q, int n_tokens, double peak)
{
    const int k_dim = c->kv.k_dim, v_dim = c->kv.v_dim, n_pos = c->n_pos - n_tokens + 1, head = rng_below(c->kv.n_kv_heads);
    const size_t stride = (size_t)(n_q * MAX(k_dim, v_dim) + 5);
    const float scale = (float)(peak / sqrt(k_dim));
    double worst = 0;
    float *q = malloc((size_t)n_tokens * stride * sizeof *q);
    assert_non_null(q);
    for (size_t i = 0; i < (size_t)n_tokens * stride; i++) q[i] = rng_normal();
    choose_extra(c->n_pos);
    struct guarded out = attend(c, q, head, n_q, n_pos, n_tokens, scale, stride);
    for (int t = 0; t < n_tokens; t++) {
        const float *qt = q + (size_t)t * stride;
        const float *got = (const float *)(const void *)out.p + (size_t)t * stride;
        for (int h = 0; h < n_q; h += h + 1 < n_q && n_q > 8 ? 9 : 1)
            if (t % 3 == 0 || t == n_tokens - 1) worst = fmax(worst, check_row(c, qt + h * k_dim, head, h, n_pos + t, scale, got + h * v_dim));
        struct guarded alone = attend(c, qt, head, n_q, n_pos + t, 1, scale, stride);
        if (memcmp(alone.p, got, alone.n) != 0)
            fail_msg("tier %s, kv %s, dims %d and %d, %d queries: token %d of %d, at position %d, differs from itself alone", c->k->tier, kv_names[c->kv.type],
                     k_dim, v_dim, n_q, t, n_tokens, n_pos + t - 1);
        guarded_free(&alone, "out of attention");
    }
    guarded_free(&out, "out of attention");
    free(q);
    return worst;
}

static const int dims[][2] = {{16, 16}, {40, 40}, {64, 64}, {128, 128}, {256, 256}, {64, 128}, {128, 40}, {24, 9}, {5, 70}};
static const int ratios[] = {1, 2, 3, 4, 5, 6, 7, 8, 70};

static double check_cache(const struct cpu_kernels *k, kg_kv_type type, int k_dim, int v_dim, int n_pos, bool all_ratios)
{
    struct cache c;
    double worst = 0;
    cache_new(&c, k, type, 1 + n_pos % 3, k_dim, v_dim, n_pos);
    for (size_t r = 0; r < COUNT_OF(ratios); r++) {
        const int tokens[] = {1, 2, 32 / ratios[r], 64 / ratios[r] + 1};
        if (!all_ratios && rng_below(3)) continue;
        if (ratios[r] == 70 && k_dim > 64 && !is_long()) continue;
        for (size_t t = 0; t < COUNT_OF(tokens); t++) {
            if (tokens[t] < 1 || tokens[t] > n_pos || (t > 0 && tokens[t] <= tokens[0])) continue;
            if (!is_long() && t != 0 && rng_below(2)) continue;
            worst = fmax(worst, check_job(&c, ratios[r], tokens[t], rng_below(3) ? 1 : 12));
        }
    }
    cache_free(&c);
    return worst;
}

static void attention(void **state)
{
    (void)state;
    rng_start();
    struct cpu_kernels before = {0};
    for (size_t tier = 0; cpu_tier_name(tier); tier++) {
        struct cpu_kernels k;
        if (!tier_kernels(tier, &k) || (k.attend == before.attend && k.kv_store == before.kv_store)) continue;
        before = k;
        for (int type = KG_KV_F16; type <= KG_KV_Q8_0; type++) {
            double worst = 0;
            for (size_t d = 0; d < COUNT_OF(dims); d++) {
                static const int lengths[] = {1, 2, 31, 32, 33, 64, 70, 128, 129};
                for (size_t i = 0; i < COUNT_OF(lengths); i++)
                    worst = fmax(worst, check_cache(&k, (kg_kv_type)type, dims[d][0], dims[d][1], lengths[i], lengths[i] == 70));
                if (d == 2 || is_long()) worst = fmax(worst, check_cache(&k, (kg_kv_type)type, dims[d][0], dims[d][1], 301, true));
            }
            for (int n = 3; n <= 100; n++) /* every length, on a narrow head */
                worst = fmax(worst, check_cache(&k, (kg_kv_type)type, 8, 12, n, false));
            print_message("  %-8s kv %-4s largest error / bound %.3f\n", k.tier, kv_names[type], worst);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(attention)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
