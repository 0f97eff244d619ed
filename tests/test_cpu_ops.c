/* layers: cpu ref */
/* Everything of every tier that is not a matmul or attention: norms, rope, activations, sums, and the forms in which activations are
 * handed to matmuls. The exact results are those of the float64 reference's operations. A new tier or activation needs no edit. */
#include "cpu_test.h"

static const int sizes[] = {1, 2, 15, 16, 17, 31, 33, 64, 65, 100, 256, 511, 512, 2049};

/* ---- one operation of the reference on one token ---- */

enum { N_REGS = 3, MAX_WIDTH = 4096 };
static double reg_data[N_REGS][MAX_WIDTH], row_w[MAX_WIDTH], row_b[MAX_WIDTH];

/* op's registers are reg_data, `width` wide. */
static void reference(struct op op, int width, int pos)
{
    int widths[N_REGS] = {width, width, width}, token = 0;
    double *regs[N_REGS] = {reg_data[0], reg_data[1], reg_data[2]}, freq[MAX_WIDTH], *freqs[1] = {freq}, magnitude = 1;
    struct program program = {.ops = &op, .n_ops = 1, .reg_width = widths, .n_regs = N_REGS};
    struct batch_token tokens[1] = {{.pos = pos}};
    struct batch batch = {.tokens = tokens, .n = 1};
    struct ref_run run = {&batch, 1, &token};
    if (op.code == OP_ROPE) magnitude = ref_rope_freq(&op.rope, freq);
    struct ref r = {.program = &program, .reg = regs, .row_w = row_w, .row_b = row_b, .freq = freqs, .mscale = &magnitude};
    ref_run_op(&r, &run, 0);
}

static void to_reg(int reg, const float *x, int n)
{
    for (int i = 0; i < n; i++) reg_data[reg][i] = (double)x[i];
}

/* ---- vectors between guard pages ---- */

struct vec {
    struct guarded g;
    float *f;
};

static struct vec vec_new(int n)
{
    struct vec v = {.g = guarded_new((size_t)n * sizeof(float), 4)};
    v.f = (float *)(void *)v.g.p;
    return v;
}

static struct vec vec_of(const float *x, int n)
{
    struct vec v = vec_new(n);
    memcpy(v.f, x, v.g.n);
    return v;
}

static void vec_free(struct vec *v) { guarded_free(&v->g, "vector"); }

/* The largest error / bound of a kernel so far; fails if it is above 1. */
static double worst;
static void check(const char *tier, const char *what, int n, int i, double got, double want, double bound)
{
    double error = fabs(got - want);
    if (!(error <= bound)) fail_msg("tier %s, %s, n %d: element %d is %.9g, want %.9g: error %.3g, bound %.3g", tier, what, n, i, got, want, error, bound);
    if (bound > 0) worst = fmax(worst, error / bound);
}
static void report(const char *tier, const char *what)
{
    print_message("  %-8s %-14s largest error / bound %.3f\n", tier, what, worst);
    worst = 0;
}

typedef void (*kernels_fn)(const struct cpu_kernels *k);
static void each_tier(kernels_fn fn)
{
    rng_start();
    for (size_t i = 0; cpu_tier_name(i); i++) {
        struct cpu_kernels k;
        if (tier_kernels(i, &k)) fn(&k);
    }
}

/* ---- norms ---- */

/* A sum of n positive numbers is off by U (6 sqrt(n) + 8) of itself (test_cpu.c says why), its root by half of that, and the
 * handful of products around it by U each. The mean of layer_norm is off by the like of the mean of |x|, which each x - mean inherits. */
static void check_norm(const struct cpu_kernels *k, enum op_code code, int n, const float *x, const float *w, const float *b, float eps, bool in_place)
{
    struct tensor wt = {"w", TYPE_F32, 1, {n, 1, 1, 1}, w, (size_t)n * 4}, bt = {"b", TYPE_F32, 1, {n, 1, 1, 1}, b, (size_t)n * 4};
    to_reg(0, x, n);
    reference((struct op){.code = code, .dst = 1, .src = {0, -1, -1}, .w = &wt, .b = b ? &bt : NULL, .eps = (double)eps}, n, 0);
    struct vec xv = vec_of(x, n), wv = vec_of(w, n), bv = b ? vec_of(b, n) : (struct vec){0}, y = in_place ? xv : vec_new(n);
    if (code == OP_RMS_NORM) k->rms_norm(y.f, xv.f, wv.f, bv.f, n, eps);
    else k->layer_norm(y.f, xv.f, wv.f, bv.f, n, eps);
    double mean = 0, mean_abs = 0, squares = 0, f = 6 * sqrt(n) + 12;
    for (int i = 0; i < n; i++) mean += (double)x[i] / n, mean_abs += fabs((double)x[i]) / n;
    if (code == OP_RMS_NORM) mean = mean_abs = 0;
    for (int i = 0; i < n; i++) squares += ((double)x[i] - mean) * ((double)x[i] - mean);
    double r = 1 / sqrt(squares / n + (double)eps);
    for (int i = 0; i < n; i++) {
        double rw = r * fabs((double)w[i]), want = reg_data[1][i], bias = b ? fabs((double)b[i]) : 0;
        double bound = U * (f * (mean_abs + fabs((double)x[i] - mean)) * rw + bias + fabs(want)) + 0x1p-140;
        check(k->tier, op_name(code), n, i, (double)y.f[i], want, bound);
    }
    if (!in_place) vec_free(&y);
    vec_free(&xv);
    vec_free(&wv);
    if (b) vec_free(&bv);
}

static void norm_kernels(const struct cpu_kernels *k)
{
    static float x[MAX_WIDTH], w[MAX_WIDTH], b[MAX_WIDTH];
    for (int c = 0; c < 2; c++) {
        enum op_code code = c ? OP_LAYER_NORM : OP_RMS_NORM;
        for (size_t s = 0; s < COUNT_OF(sizes); s++) {
            static const float scales[] = {1, 1e-3f, 1e-20f, 1e4f};
            for (size_t j = 0; j < COUNT_OF(scales); j++) {
                float shift = j == 1 ? 0.05f : 0;
                for (int i = 0; i < sizes[s]; i++) x[i] = scales[j] * rng_normal() + shift, w[i] = 1 + 0.3f * rng_normal(), b[i] = rng_normal();
                check_norm(k, code, sizes[s], x, w, j % 2 ? b : NULL, j == 3 ? 1e-12f : 1e-5f, (s + j) % 3 == 0);
            }
        }
        report(k->tier, op_name(code));
    }
}

static void norms(void **state)
{
    (void)state;
    each_tier(norm_kernels);
}

/* ---- rope ---- */

/* cos and sin rounded once (U each), two products, one sum. */
static void check_rope(const struct cpu_kernels *k, const struct rope *r, int pos)
{
    const int n = r->n_heads * r->head_dim, half = r->n_rot / 2;
    struct vec x = vec_new(n), table = vec_new(r->n_rot);
    double freq[MAX_WIDTH], magnitude = ref_rope_freq(r, freq);
    for (int i = 0; i < half; i++) {
        table.f[2 * i] = (float)(cos(pos * freq[i]) * magnitude);
        table.f[2 * i + 1] = (float)(sin(pos * freq[i]) * magnitude);
    }
    float before[MAX_WIDTH];
    for (int i = 0; i < n; i++) x.f[i] = before[i] = rng_normal();
    to_reg(0, before, n);
    reference((struct op){.code = OP_ROPE, .dst = 0, .src = {-1, -1, -1}, .rope = *r}, n, pos);
    k->rope(x.f, table.f, r);
    for (int i = 0; i < n; i++) {
        int at = i % r->head_dim, pair = r->style == ROPE_INTERLEAVED ? at ^ 1 : at < half ? at + half : at - half;
        if (at >= r->n_rot && f32_bits(x.f[i]) != f32_bits(before[i])) fail_msg("tier %s: rope turned element %d of a head, beyond n_rot %d", k->tier, at, r->n_rot);
        double size = at < r->n_rot ? fabs((double)before[i]) + fabs((double)before[i - at + pair]) : 0;
        check(k->tier, "rope", n, i, (double)x.f[i], reg_data[0][i], 4 * U * magnitude * size);
    }
    vec_free(&x);
    vec_free(&table);
}

static void rope_kernels(const struct cpu_kernels *k)
{
    static const int dims[][2] = {{2, 2}, {16, 16}, {40, 40}, {64, 64}, {64, 32}, {80, 20}, {128, 128}, {100, 6}, {256, 64}};
    for (size_t d = 0; d < COUNT_OF(dims); d++)
        for (int style = ROPE_INTERLEAVED; style <= ROPE_HALVES; style++)
            for (int heads = 1; heads <= 5; heads += 2) {
                struct rope r = {.style = (enum rope_style)style, .n_heads = heads, .head_dim = dims[d][0], .n_rot = dims[d][1], .base = 10000, .factor = 1};
                check_rope(k, &r, 0);
                check_rope(k, &r, 1 + rng_below(5000));
                r.scaling = ROPE_SCALING_YARN, r.factor = 4, r.orig_ctx = 4096, r.beta_fast = 32, r.beta_slow = 1, r.ext_factor = r.attn_factor = 1;
                check_rope(k, &r, 1 + rng_below(5000)); /* cos and sin above 1 */
            }
    report(k->tier, "rope");
}

static void rope(void **state)
{
    (void)state;
    each_tier(rope_kernels);
}

/* ---- activations, products, sums ---- */

static void random_inputs(float *x, int n)
{
    static const float special[] = {0, -0.0f, 1e-30f, -1e-30f, 1e-40f, 10, -10, 20, -20, 86.9f, -86.9f, 87.5f, -87.5f, 88.5f, -88.5f, 100, -100, 1e4f, -1e4f};
    for (int i = 0; i < n; i++) x[i] = rng_below(4) ? 4 * rng_normal() : special[rng_below(COUNT_OF(special))];
}

/* An activation is x times a number s between 0 and 1, which functions of e^x give to a few U in absolute terms, and the product:
 * 8 U |x| in all. silu's s = 1 / (1 + e^-x) has a small relative error as well, until e^-x leaves the range of f32. */
static double activation_bound(enum activation f, double x, double y)
{
    if (f == ACTIVATION_RELU_SQUARED || f == ACTIVATION_SIGMOID) return 8 * U * fabs(y) + 0x1p-126;
    return f == ACTIVATION_SILU ? 8 * U * fabs(y) + 0x1p-126 * fabs(x) : 8 * U * fabs(x) + 0x1p-149;
}

static void check_activation(const struct cpu_kernels *k, enum activation f, int n, bool in_place)
{
    static float x[MAX_WIDTH], up[MAX_WIDTH];
    random_inputs(x, n);
    for (int i = 0; i < n; i++) up[i] = 3 * rng_normal();
    to_reg(0, x, n);
    to_reg(1, up, n);
    struct vec xv = vec_of(x, n), uv = vec_of(up, n), y = in_place ? xv : vec_new(n);
    double bounds[MAX_WIDTH];
    const bool plain = f != ACTIVATION_SWIGLU_OAI; /* that one has two arguments: they end at 7, and 1 is added to the second */
    for (int i = 0; i < n; i++) bounds[i] = 8 * U * fmin(fabs((double)x[i]), 87) * (1 + fmin(7, fabs((double)up[i])));
    if (plain) k->act(y.f, xv.f, n, f);
    if (plain) reference((struct op){.code = OP_ACT, .dst = 2, .src = {0, -1, -1}, .activation = f}, n, 0);
    for (int i = 0; plain && i < n; i++) {
        bounds[i] = activation_bound(f, (double)x[i], reg_data[2][i]);
        check(k->tier, "act", n, i, (double)y.f[i], reg_data[2][i], bounds[i]);
    }
    memcpy(xv.f, x, xv.g.n);
    struct vec gy = in_place ? (n % 2 ? xv : uv) : y; /* over the gate or over the other factor */
    k->glu(gy.f, xv.f, uv.f, n, f);
    reference((struct op){.code = OP_GLU, .dst = 2, .src = {0, 1, -1}, .activation = f}, n, 0);
    for (int i = 0; i < n; i++)
        check(k->tier, "glu", n, i, (double)gy.f[i], reg_data[2][i], bounds[i] * (plain ? fabs((double)up[i]) : 1) + U * fabs(reg_data[2][i]) + 0x1p-149);
    if (!in_place) vec_free(&y);
    vec_free(&xv);
    vec_free(&uv);
}

/* above 0 three roundings of terms of one sign; below, e^x - 1 - x is good to a few U of 1 + |x| or, near 0, of itself, and is multiplied, added and
 * rounded like the rest. */
static void check_xielu(const struct cpu_kernels *k, const struct xielu *f, int n)
{
    struct vec x = vec_new(n), y = vec_new(n);
    random_inputs(x.f, n);
    for (int i = 0; i < n && i < 3; i++) x.f[i] = i == 0 ? -1e-7f : i == 1 ? -0.499f : -0.501f;
    to_reg(0, x.f, n);
    k->xielu(y.f, x.f, n, f);
    reference((struct op){.code = OP_XIELU, .dst = 2, .src = {0, -1, -1}, .xielu = *f}, n, 0);
    for (int i = 0; i < n; i++) {
        const double v = fabs((double)x.f[i]), term = x.f[i] > 0 ? f->above * v * v : f->below * (v < 0.5 && v > -f->eps ? v * v : 1 + v);
        check(k->tier, "xielu", n, i, (double)y.f[i], reg_data[2][i], 8 * U * (term + f->linear * v) + 0x1p-149);
    }
    vec_free(&x);
    vec_free(&y);
}

static void activation_kernels(const struct cpu_kernels *k)
{
    static const struct xielu xielus[] = {{1.25, 1.5, 0.5, -1e-6}, {0.3, 0.9, 0.25, -0.25}, {2, 0.75, 0.5, 0}};
    for (size_t s = 0; s < COUNT_OF(sizes); s++)
        for (size_t i = 0; i < COUNT_OF(xielus); i++) check_xielu(k, &xielus[i], sizes[s]);
    report(k->tier, "xielu");
    for (int f = 0; f < ACTIVATION_N; f++) {
        char name[32];
        for (size_t s = 0; s < COUNT_OF(sizes); s++)
            for (int in_place = 0; in_place < 2; in_place++) check_activation(k, (enum activation)f, sizes[s], in_place);
        snprintf(name, sizeof name, "activation %d", f);
        report(k->tier, name);
    }
    for (size_t s = 0; s < COUNT_OF(sizes); s++) {
        const int n = sizes[s];
        for (int in_place = 0; in_place < 3; in_place++) {
            struct vec a = vec_new(n), b = vec_new(n), y = in_place == 0 ? vec_new(n) : in_place == 1 ? a : b;
            float want[MAX_WIDTH];
            random_inputs(a.f, n);
            random_inputs(b.f, n);
            for (int i = 0; i < n; i++) want[i] = a.f[i] + b.f[i];
            k->add(y.f, a.f, b.f, n);
            for (int i = 0; i < n; i++) assert_true(f32_bits(y.f[i]) == f32_bits(want[i])); /* one rounding: no freedom */
            vec_free(&a);
            vec_free(&b);
            if (in_place == 0) vec_free(&y);
        }
    }
}

static void activations(void **state)
{
    (void)state;
    each_tier(activation_kernels);
}

/* ---- the forms of activations ---- */

/* q is x / scale rounded; the quotient is formed as x times a rounded reciprocal, 2 U off, which at 127 steps may move a tie: the error is
 * half a step and 127 * 2 U of one. Scales below the normal range lose bits; they belong to activations below 2^-119. */
static void check_int8_token(const struct cpu_kernels *k, const float *x, int in, const struct act_row r)
{
    for (int g = 0; g < in / ACT_GROUP; g++, x += ACT_GROUP) {
        const struct act_group *a = &r.group[g * r.T];
        const struct act_halves *h = &r.halves[g * r.T];
        double top = 0, scale = (double)a->scale, part = scale / (double)a->super;
        int sum[2] = {0};
        for (int i = 0; i < ACT_GROUP; i++) {
            int q = r.q[(g * ACT_GROUP + i) / 4 * r.T * 4 + i % 4];
            assert_true(q >= -127);
            sum[i / 16] += q;
            top = fmax(top, fabs((double)x[i]));
            check(k->tier, "quantize", in, g * ACT_GROUP + i, scale * q, (double)x[i], scale * (0.5 + 254 * U) + 0x1p-118);
            if (top == 0) assert_int_equal(q, 0);
        }
        assert_int_equal(f32_bits(a->scale) & 15, 0); /* at most 20 significant bits */
        /* as small as can be, or with a power of two below `super` the smallest of those */
        const double most = a->super == 1 ? top : fmax(2 * top, 127 * (double)a->super * ldexp(1, -ACT_MAX_SHIFT));
        const bool whole = a->super != 1 && a->scale == a->super;
        if (!(scale * 127 >= top * (1 - 2 * U) - 0x1p-118 && (whole || scale * 127 <= most * (1 + 0x1p-18) + 0x1p-118)))
            fail_msg("tier %s: scale %.9g for a group with top %.9g", k->tier, scale, top);
        if (a->super == 0) continue;
        assert_true((double)a->neg_magic == -(double)ACT_MAGIC * part);
        if (a->super == 1) assert_int_equal(a->start, ACT_MAGIC_BITS);
        else assert_true((double)f32_from_bits((uint32_t)a->start) == (double)ACT_MAGIC * part);
        assert_int_equal(a->init, a->start - 128 * (sum[0] + sum[1]));
        assert_true(a->sum_scaled == (float)(part * (sum[0] + sum[1])));
        for (int i = 0; i < 2; i++) {
            assert_int_equal(h->init[i], a->start - 128 * sum[i]);
            assert_true(h->sum_scaled[i] == (float)(part * sum[i]));
        }
        assert_true(!r.pairs == !k->act_pairs);
        for (int i = 0; i < 4 && r.pairs; i++) {
            int pairs = 0;
            for (int j = 0; j < 4; j++) {
                const int8_t *q = r.q + (g * ACT_GROUP / 4 + i / 2 * 4 + j) * r.T * 4 + i % 2 * 2;
                pairs += q[0] + q[1];
            }
            assert_int_equal(r.pairs[(2 * g + i / 2) * 2 * r.T + i % 2], -ACT_PAIR_OFFSET * pairs);
        }
        const int s = g * ACT_GROUP / ACT_SUPER, at = g % (ACT_SUPER / ACT_GROUP);
        assert_true(!r.sums == !k->act_sums);
        if (!r.sums || (s + 1) * ACT_SUPER > in) continue;
        const int16_t *sums = r.sums + s * r.T * ACT_SUMS;
        const double point = ldexp(part, ACT_SUM_BITS);
        for (int i = 0; i < 2; i++) assert_true(sums[ACT_WIDE_INDEX(2 * at + i)] == floor(point * sum[i] + 0.5));
        assert_true(sums[ACT_EIGHTHS + ACT_WIDE_INDEX(at)] == floor(point * (sum[0] + sum[1]) + 0.5));
    }
}

static void check_forms(const struct cpu_kernels *k, const float *x, int in, int n)
{
    const size_t row = (size_t)in, even = ROUND_UP(row, 2);
    if (in % ACT_GROUP == 0) {
        struct batch_acts b = acts_new(k, ACTS_INT8, x, in, n);
        for (int t = 0; t < n; t++) check_int8_token(k, x + (size_t)t * row, in, act_row(&b.a, in, n, t));
        acts_free(&b);
    }
    struct batch_acts f = acts_new(k, ACTS_F32_TILES, x, in, n), h = acts_new(k, ACTS_BF16_TILES, x, in, n);
    for (int t = 0; t < n; t++) {
        const int t0 = t / ACT_FLOAT_TILE * ACT_FLOAT_TILE, T = MIN(ACT_FLOAT_TILE, n - t0);
        for (int i = 0; i < in; i++) {
            float v = x[(size_t)t * row + (size_t)i];
            assert_int_equal(f32_bits(f.a.f32[(size_t)t0 * row + (size_t)(i * T + t - t0)]), f32_bits(v));
            assert_int_equal(h.a.bf16[(size_t)t0 * even + (size_t)((i / 2 * T + t - t0) * 2 + i % 2)], bf16_from_f32(v));
        }
        if (in % 2) assert_int_equal(h.a.bf16[(size_t)t0 * even + (size_t)((in / 2 * T + t - t0) * 2 + 1)], 0);
    }
    acts_free(&f);
    acts_free(&h);
}

/* The wide form of many tokens says what the other one says of each alone. */
static void check_wide(const struct cpu_kernels *k, const float *x, int in, int n)
{
    struct batch_acts many = acts_new(k, ACTS_INT8, x, in, n);
    for (int t = 0; t < n; t++) {
        struct batch_acts one = acts_new(k, ACTS_INT8, x + (size_t)t * (size_t)in, in, 1);
        const struct act_row w = act_row(&many.a, in, n, t), r = act_row(&one.a, in, 1, 0);
        for (int i = 0; i < in; i++) {
            const int g = i / ACT_GROUP, s = i / ACT_SUPER;
            const float part = f32_from_bits((uint32_t)(127 - ((ACT_MAGIC_BITS - r.group[g].start) >> 23)) << 23);
            const uint16_t *q = act_wide_at(&w.wide, in, w.n, w.t0, s) + (g - s * (ACT_SUPER / ACT_GROUP)) * w.T * ACT_GROUP;
            const float *sum = w.wide.sum + 3 * g * w.T;
            assert_true(f32_from_bf16(q[ACT_WIDE_INDEX(i % ACT_GROUP)]) == part * (float)r.q[i]);
            assert_int_equal(f32_bits(sum[0]), f32_bits(r.group[g].sum_scaled));
            assert_int_equal(f32_bits(sum[w.T]), f32_bits(r.halves[g].sum_scaled[0]));
            assert_int_equal(f32_bits(sum[2 * w.T]), f32_bits(r.halves[g].sum_scaled[1]));
            assert_int_equal(f32_bits(w.wide.super[s * w.T]), f32_bits(r.group[g].super));
        }
        acts_free(&one);
    }
    acts_free(&many);
}

/* One scale for each 256 elements, as check_int8_token says of a group, and their sums; alone, few and many. */
static void check_whole(const struct cpu_kernels *k, const float *x, int in, int n)
{
    struct batch_acts b = acts_new(k, ACTS_INT8_WHOLE, x, in, n);
    for (int t = 0; t < n; t++, x += in) {
        const struct act_whole_row r = act_whole_row(&b.a, in, n, t);
        assert_int_equal(r.n, n >= ACT_WHOLE_LEAST ? n : 0);
        for (int s = 0; s < in / ACT_SUPER; s++) {
            const double scale = (double)whole_scale(&r, s * ACT_SUPER);
            double top = 0;
            int sum[24] = {0};
            for (int i = 0; i < ACT_SUPER; i++) {
                const int at = s * ACT_SUPER + i, q = whole_q(&r, at);
                assert_true(q >= -127);
                sum[i / 16] += q;
                sum[16 + i / 32] += q;
                top = fmax(top, fabs((double)x[at]));
                check(k->tier, "quantize_whole", in, at, scale * q, (double)x[at], scale * (0.5 + 254 * U) + 0x1p-118);
            }
            if (!(scale * 127 >= top * (1 - 2 * U) - 0x1p-118 && scale * 127 <= top * (1 + 0x1p-18) + 0x1p-118))
                fail_msg("tier %s: scale %.9g for a stretch with top %.9g", k->tier, scale, top);
            for (int i = 0; i < 24; i++) {
                if (r.n) {
                    assert_int_equal(r.at.sum[s * r.n * 32 + i], sum[i]);
                    continue;
                }
                const struct act_stretch *a = &r.at.stretch[s * r.T];
                assert_int_equal(a->sum[i], sum[i]);
                assert_int_equal(128 * a->high[i] + a->low[i], sum[i]);
                assert_true(a->low[i] >= 0);
            }
        }
    }
    acts_free(&b);
}

static void whole_kernels(const struct cpu_kernels *k)
{
    static const float factors[] = {1, 1e-30f, 1e-37f, 1e-44f, 1e30f};
    static float x[45 * 3 * ACT_SUPER];
    if (!k->quantize_whole) return;
    for (size_t i = 0; i < COUNT_OF(factors); i++)
        for (int n = 1; n <= 45; n += n < 7 ? 1 : 19)
            for (int in = ACT_SUPER; in <= 3 * ACT_SUPER; in += ACT_SUPER) {
                random_activations(x, n * in);
                for (int j = 0; j < n * in; j++) x[j] *= factors[i];
                check_whole(k, x, in, n);
            }
    report(k->tier, "quantize_whole");
}

/* Blocks of bf16, of one part and of two: every element where act_block_at says, zeros behind them. */
static void check_blocks(const struct cpu_kernels *k, enum acts_kind kind, const float *x, int in, int n)
{
    const int parts = act_parts(kind);
    struct batch_acts b = acts_new(k, kind, x, in, n);
    for (int t = 0; t < n; t++) {
        const int t0 = t / ACT_WIDE_TILE * ACT_WIDE_TILE, T = MIN(ACT_WIDE_TILE, n - t0);
        for (int i = 0; i < ROUND_UP(in, 32); i++) {
            const float v = i < in ? x[t * in + i] : 0;
            const uint16_t *at = act_block_at(&b.a, parts, in, n, t0, i / 32) + 32 * (t - t0) + i % 32;
            assert_int_equal(at[0], bf16_from_f32(v));
            if (parts == 2) assert_int_equal(at[32 * T], bf16_from_f32(v - f32_from_bf16(at[0])));
        }
    }
    if (n == 1 && in > ACT_SUPER) { /* in two portions */
        uint16_t *whole = malloc(b.blocks.n), *blocks = b.a.blocks[parts - 1];
        assert_non_null(whole);
        memcpy(whole, blocks, b.blocks.n);
        memset(blocks, 0xff, b.blocks.n);
        acts_make_part(k, &b.a, kind, x, in, 0, ACT_SUPER);
        acts_make_part(k, &b.a, kind, x + ACT_SUPER, in, ACT_SUPER, in - ACT_SUPER);
        assert_memory_equal(whole, blocks, b.blocks.n);
        free(whole);
    }
    acts_free(&b);
}

static void block_kernels(const struct cpu_kernels *k)
{
    static const int ins[] = {1, 31, 32, 33, 288, 544, 1100};
    static float x[37 * 1100];
    if (!k->block_bf16) return;
    random_activations(x, COUNT_OF(x));
    for (size_t i = 0; i < COUNT_OF(x); i++)
        if (fabsf(x[i]) < 0x1p-90f) x[i] = 1; /* parts below the normal range may be taken for zero */
    for (size_t i = 0; i < COUNT_OF(ins); i++)
        for (int n = 1; n <= 37; n += 9) check_blocks(k, ACTS_BF16_BLOCKS, x, ins[i], n), check_blocks(k, ACTS_BF16_PARTS, x, ins[i], n);
}

static void form_kernels(const struct cpu_kernels *k)
{
    static const int ins[] = {1, 7, 32, 33, 96, 544, 1024};
    static float x[13 * 1024];
    for (size_t i = 0; i < COUNT_OF(ins); i++)
        for (int n = 1; n <= 13; n++) {
            random_activations(x, n * ins[i]);
            check_forms(k, x, ins[i], n);
        }
    static float wide[21 * 1088];
    random_activations(wide, COUNT_OF(wide));
    for (int n = ACT_WIDE_LEAST; k->act_wide && n <= 21; n += 5)
        for (int in = 32; in <= 1088; in += 352) check_wide(k, wide, in, n);
    static const float factors[] = {1e-30f, 1e-37f, 1e-44f, 1e30f};
    for (size_t i = 0; i < COUNT_OF(factors); i++) {
        for (int in = 96; in <= 608; in += 256) { /* with whole stretches and without */
            random_activations(x, 7 * in);
            for (int j = 0; j < 7 * in; j++) x[j] *= factors[i];
            check_forms(k, x, in, 7);
        }
    }
    report(k->tier, "quantize");
    whole_kernels(k);
    block_kernels(k);
}

static void forms_of_activations(void **state)
{
    (void)state;
    each_tier(form_kernels);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(norms),
        cmocka_unit_test(rope),
        cmocka_unit_test(activations),
        cmocka_unit_test(forms_of_activations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
