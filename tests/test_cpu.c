/* layers: cpu ref */
/* Matmul of every tier, tensor type and kind of activations against float64 over random blocks; and that a token's result is the same,
 * bit for bit, whatever the batch, the number of rows and the split of rows and tokens. A new tier or type needs no edit here.
 *
 * Two comparisons make one: what a matmul computes is compared with the exact product of the weights and the activations as it sees
 * them (rounded to int8 or bf16, or as they are); how far those are from the originals is test_cpu_ops.c's quantize test. */
#include "cpu_test.h"

enum { MAX_N = 85, FEW_N = 33, MAX_OUT = 100, PIECE = 2 * PANEL }; /* the engine hands out rows in multiples of PIECE */
static const int ns[] = {1, 2, 3, 5, 6, 7, 12, 13, 16, 29, 33, 45, 64, 85};
static const int outs[] = {1, 15, 16, 17, 31, 33, 50, 100};

/* One matrix, its activations and exact results. */
struct problem {
    const struct cpu_kernels *k;
    const struct cpu_format *f;
    const struct type_info *type;
    int in;
    size_t row_bytes;
    uint8_t *rows;  /* [MAX_OUT] rows of the file */
    float *x;       /* [n][in] */
    float *bias;    /* [MAX_OUT] or NULL */
    float *y;       /* [n][MAX_OUT]: each token alone */
    double worst;   /* error / bound */
    int n;          /* tokens */
};

static void name_problem(const struct problem *p, char *s, size_t size)
{
    snprintf(s, size, "tier %s, type %s, format %s, in %d%s", p->k->tier, p->type->name, p->f->name, p->in, p->bias ? ", with bias" : "");
}

static void check_only(const struct guarded *y, int n, int out, int row0, int row1, int t0, const char *name)
{
    for (int t = 0; t < n; t++)
        for (int o = 0; o < out; o++)
            if ((o < row0 || o >= row1 || t < t0) && load_u32(y->p + 4 * (t * out + o)) != 0xffffffffu)
                fail_msg("%s, n %d, out %d: rows %d..%d of tokens from %d on wrote row %d of token %d", name, n, out, row0, row1 - 1, t0, o, t);
}

static void run(struct cpu_matmul *m, int row0, int row1, int t0, int t1)
{
    m->t0 = t0, m->t1 = MIN(t1, m->n);
    if (m->t0 < m->t1) m->format->run(m, row0, row1);
}

/* Multiplies tokens [first, first + n) with the last `out` rows, in pieces if split is set; y [n][out]. */
static struct guarded multiply(const struct problem *p, int first, int n, int out, bool split)
{
    char name[160];
    name_problem(p, name, sizeof name);
    const size_t bytes = (size_t)out * p->row_bytes;
    struct guarded rows = guarded_new(bytes, 1), packed = {0}, bias = {0};
    memcpy(rows.p, p->rows + (size_t)(MAX_OUT - out) * p->row_bytes, bytes);
    struct tensor w = {"w", p->type->type, 2, {p->in, out, 1, 1}, rows.p, bytes};
    if (p->bias) {
        bias = guarded_new((size_t)out * sizeof(float), 4);
        memcpy(bias.p, p->bias + MAX_OUT - out, bias.n);
    }
    if (p->f->packed_bytes) {
        packed = guarded_new(p->f->packed_bytes(out, p->in), 64);
        memset(packed.p, 0, packed.n); /* as the engine's memory is */
        int half = out / 2 / PANEL * PANEL; /* as two threads would */
        p->f->pack(packed.p, &w, half, out);
        if (half) p->f->pack(packed.p, &w, 0, half);
    }
    struct batch_acts acts = acts_new(p->k, p->f->acts, p->x + (size_t)first * (size_t)p->in, p->in, n);
    struct guarded scratch = guarded_new(p->f->scratch_bytes(p->in, n), 64), y = guarded_new((size_t)(n * out) * sizeof(float), 4);
    struct cpu_matmul m = {
        .format = p->f, .tensor = &w, .packed = packed.p, .in = p->in, .out = out, .n = n, .x = (const float *)(const void *)acts.x.p,
        .acts = acts.a, .bias = (const float *)(const void *)bias.p, .y = (float *)(void *)y.p, .scratch = scratch.p,
    };
    if (split && out > PIECE) {
        int cut = PIECE * (1 + rng_below((out - 1) / PIECE)), cut2 = cut + PIECE * (1 + rng_below(2));
        run(&m, cut, MIN(cut2, out), ACT_PART, n);
        check_only(&y, n, out, cut, MIN(cut2, out), ACT_PART, name);
        run(&m, cut, MIN(cut2, out), 0, ACT_PART);
        check_only(&y, n, out, cut, MIN(cut2, out), 0, name);
        if (cut2 < out) run(&m, cut2, out, 0, n);
        check_only(&y, n, out, cut, out, 0, name);
        run(&m, 0, cut, 0, n);
    } else {
        run(&m, 0, out, 0, n);
    }
    guarded_free(&scratch, name);
    acts_free(&acts);
    if (packed.map) guarded_free(&packed, name);
    if (bias.map) guarded_free(&bias, name);
    guarded_free(&rows, name);
    return y;
}

/* A row's weights exactly, and what the types with an integer form compute with. */
struct row {
    double *w, *size;   /* [in]; size: magnitudes that rounding works on, |scale q| + |min| */
    int8_t *q;          /* [in] */
    float *scale, *min; /* [in / 16] at most */
};

static struct row row_new(int in)
{
    size_t n = (size_t)in;
    struct row r = {malloc(n * sizeof(double)), malloc(n * sizeof(double)), malloc(n), malloc((n / 16 + 1) * 4), malloc((n / 16 + 1) * 4)};
    assert_true(r.w && r.size && r.q && r.scale && r.min);
    return r;
}

static void row_free(struct row *r)
{
    free(r->w), free(r->size), free(r->q), free(r->scale), free(r->min);
}

static void row_read(const struct problem *p, int o, struct row *r)
{
    const uint8_t *src = p->rows + (size_t)o * p->row_bytes;
    for (int i = 0; i < p->in; i += p->type->block) ref_decoder(p->type->type)(src + (size_t)(i / p->type->block) * (size_t)p->type->block_bytes, r->w + i);
    const struct int_form form = decode_int_form(p->type->type);
    if (form.group) form.decode(src, r->q, r->scale, r->min, p->in);
    for (int i = 0; i < p->in; i++) {
        r->size[i] = fabs(r->w[i]);
        if (form.group) r->size[i] = fabs((double)r->scale[i / form.group] * r->q[i]) + (form.has_min ? fabs((double)r->min[i / form.group]) : 0);
    }
}

/* Bound of |computed - exact|.
 *
 * Floats: each weight is decoded with up to two roundings of numbers no larger than `size` (product, difference), each product and
 * each of the `in` additions rounds once. In any order of additions the sum of the roundings is at most in * U * sum(size |x|); as
 * roundings are as good as independent, a few standard deviations of a random walk, 6 sqrt(in), hold in practice (Higham and
 * Mary 2019, "A new approach to probabilistic rounding error analysis") and find what the rigorous bound would hide.
 *
 * int8: the sum within a scale group is exact, so roundings work on group sums: isum * a, times w, added, and the same for the
 * minima. Groups have at least 16 elements; a tier with larger ones has fewer and no larger terms, and one that sums integers over 256 rounds less often.
 *
 * Sums of groups that integers as minima meet may be rounded at 2^-ACT_SUM_BITS of the largest scale of their stretch, which matters where
 * a group's own scale is smaller than that.
 *
 * Of activations and weights in two parts of bf16, 8 bits each, the product of both second parts is left out: 2^-8 |x| times 2^-7 |w|.
 *
 * Numbers below the normal range round at 2^-150 absolutely; vdpbf16ps takes them for zero, factors as well as sums: 2^-126. */
static double bound(const struct problem *p, const struct row *r, const double *x, double y, double bias)
{
    const int in = p->in;
    const struct int_form form = decode_int_form(p->type->type);
    double size = 0, top = 1, terms = in;
    for (int i = 0; i < in; i++) top = fabs(x[i]) > top ? fabs(x[i]) : top;
    if (p->f->acts == ACTS_INT8 || p->f->acts == ACTS_INT8_WHOLE) {
        terms = in / 8;
        for (int i = 0; i < in; i += 16) {
            double sum = 0, plain = 0;
            for (int j = i; j < i + 16; j++) sum += r->q[j] * x[j], plain += x[j];
            size += fabs(sum * (double)r->scale[i / form.group]);
            if (form.has_min) size += fabs(plain * (double)r->min[i / form.group]);
        }
    } else {
        for (int i = 0; i < in; i++) size += r->size[i] * fabs(x[i]);
    }
    double rounded = 0;
    for (int i = 0; p->k->act_sums && p->f->acts == ACTS_INT8 && form.has_min && p->type->block == ACT_SUPER && i < in; i += form.group) {
        double top_of_all = 0, top_of_group = 0;
        for (int j = 0; j < ACT_SUPER; j++) top_of_all = fmax(top_of_all, fabs(x[i / ACT_SUPER * ACT_SUPER + j]));
        for (int j = i; j < i + form.group; j++) top_of_group = fmax(top_of_group, fabs(x[j]));
        if (top_of_group < ldexp(top_of_all, -ACT_SUM_BITS)) rounded += fabs((double)r->min[i / form.group]) * top_of_all / 126 * ldexp(0.5, -ACT_SUM_BITS);
    }
    double tiny = p->f->acts == ACTS_BF16_TILES || act_parts(p->f->acts) ? 0x1p-126 : 0x1p-149;
    double left = p->f->acts == ACTS_BF16_PARTS ? 0x1p-15 : 0;
    return left * size + rounded + U * ((8 + 6 * sqrt(terms)) * size + fabs(y) + fabs(bias)) + 2 * tiny * in * top;
}

/* Every token alone, and every fourth (KAGARI_TEST_LONG: every one) against float64. */
static void check_values(struct problem *p)
{
    const int stride = is_long() ? 1 : 4;
    char name[160];
    name_problem(p, name, sizeof name);
    double *x = malloc((size_t)(p->n * p->in) * sizeof *x);
    assert_non_null(x);
    for (int t = 0; t < p->n; t++) {
        struct batch_acts acts = acts_new(p->k, p->f->acts, p->x + (size_t)t * (size_t)p->in, p->in, 1);
        acts_seen(&acts, p->f->acts, p->in, 1, 0, x + (size_t)t * (size_t)p->in);
        acts_free(&acts);
        struct guarded y = multiply(p, t, 1, MAX_OUT, false);
        memcpy(p->y + (size_t)t * MAX_OUT, y.p, y.n);
        guarded_free(&y, name);
    }
    struct row r = row_new(p->in);
    for (int o = 0; o < MAX_OUT; o++) {
        row_read(p, o, &r);
        for (int t = 0; t < p->n; t += stride) {
            const double *xt = x + (size_t)t * (size_t)p->in;
            double want = 0, bias = p->bias ? (double)p->bias[o] : 0;
            for (int i = 0; i < p->in; i++) want += r.w[i] * xt[i];
            want += bias;
            double error = fabs((double)p->y[t * MAX_OUT + o] - want), most = bound(p, &r, xt, want, bias);
            if (!(error <= most))
                fail_msg("%s: row %d, token %d: %.9g, want %.9g: error %.3g, bound %.3g", name, o, t, (double)p->y[t * MAX_OUT + o], want, error, most);
            p->worst = fmax(p->worst, error / most);
        }
    }
    row_free(&r);
    free(x);
}

/* n tokens and `out` rows at once must give the bits of check_values. */
static void check_same(const struct problem *p, int n, int out, bool split)
{
    char name[160];
    name_problem(p, name, sizeof name);
    int first = rng_below(p->n - n + 1);
    struct guarded y = multiply(p, first, n, out, split);
    for (int t = 0; t < n; t++)
        for (int o = 0; o < out; o++) {
            float got = f32_from_bits(load_u32(y.p + 4 * (t * out + o))), want = p->y[(first + t) * MAX_OUT + MAX_OUT - out + o];
            if (f32_bits(got) != f32_bits(want))
                fail_msg("%s: n %d, out %d%s: row %d of token %d is %a, alone %a", name, n, out, split ? " in pieces" : "", o, t, (double)got, (double)want);
        }
    guarded_free(&y, name);
}

static void check_shapes(const struct problem *p, bool many)
{
    bool all = many && is_long();
    for (size_t i = 0; i < COUNT_OF(ns) && ns[i] <= p->n; i++)
        for (size_t j = 0; j < COUNT_OF(outs); j++) {
            if (!all && outs[j] != 50 && !(many && ns[i] == 7)) continue;
            if (!all && !many && i % 3 != 0 && ns[i] <= FEW_N) continue;
            for (int split = all ? 0 : rng_below(2), end = all ? 1 : split; split <= end; split++) check_same(p, ns[i], outs[j], split);
        }
}

/* The same tokens over and over, more than one part has. */
static void check_parts(const struct problem *p)
{
    struct problem many = *p;
    many.n = ACT_PART + 1 + rng_below(40);
    many.x = malloc((size_t)(many.n * p->in) * sizeof *many.x);
    many.y = malloc((size_t)(many.n * MAX_OUT) * sizeof *many.y);
    assert_true(many.x && many.y);
    for (int t = 0; t < many.n; t++) {
        memcpy(many.x + t * p->in, p->x + t % p->n * p->in, (size_t)p->in * sizeof *many.x);
        memcpy(many.y + t * MAX_OUT, p->y + t % p->n * MAX_OUT, MAX_OUT * sizeof *many.y);
    }
    check_same(&many, many.n, MAX_OUT, true);
    free(many.x);
    free(many.y);
}

/* Rows, and activations of p->n tokens. */
static void fill_problem(struct problem *p, const struct blocks *blocks)
{
    const size_t in = (size_t)p->in;
    p->row_bytes = in / (size_t)p->type->block * (size_t)p->type->block_bytes;
    p->rows = malloc(MAX_OUT * p->row_bytes);
    p->x = malloc((size_t)p->n * in * sizeof(float));
    assert_true(p->rows && p->x);
    blocks_fill(blocks, p->rows, MAX_OUT * in / (size_t)p->type->block);
    for (int t = 0; t < p->n; t++) random_activations(p->x + (size_t)t * in, p->in);
}

static void check_problem(struct problem *p, const struct blocks *blocks, bool many)
{
    p->n = p->f->acts == ACTS_INT8_WHOLE || act_parts(p->f->acts) ? MAX_N : FEW_N; /* these have another way for many */
    p->y = malloc((size_t)p->n * MAX_OUT * sizeof(float));
    float bias[MAX_OUT];
    assert_non_null(p->y);
    fill_problem(p, blocks);
    if (p->bias) {
        double y[256];
        ref_decoder(p->type->type)(p->rows, y);
        for (int i = 0; i < MAX_OUT; i++) bias[i] = rng_normal() * (float)MIN(fabs(y[0]), 0x1p60);
        p->bias = bias;
    }
    check_values(p);
    check_shapes(p, many);
    if (many && p->in > ACT_SPAN) check_parts(p);
    free(p->rows);
    free(p->x);
    free(p->y);
}

/* Row lengths: one block, an odd number of blocks, and odd numbers that cross the chunks in which kernels unpack. */
static double check_format(const struct cpu_kernels *k, const struct cpu_format *f, const struct type_info *type)
{
    static const double quantiles[] = {0.5, 0.02, 0.98};
    const int b = type->block;
    const int ins[] = {b, 3 * b, (512 / b + 1) * b, (2048 / b + 1) * b, b == 1 ? 33 : 5 * b, b == 1 ? 96 : 7 * b};
    double worst = 0;
    float with_bias[1];
    for (size_t q = 0; q < COUNT_OF(quantiles); q++) {
        struct blocks blocks = blocks_new(type, quantiles[q]);
        for (size_t i = 0; i < COUNT_OF(ins); i++) {
            if (q > 0 && i != 1 && !is_long()) continue;
            if (i >= 4 && b > 64 && !is_long()) continue;
            struct problem p = {.k = k, .f = f, .type = type, .in = ins[i], .bias = (i + q) % 2 ? with_bias : NULL};
            check_problem(&p, &blocks, q == 0);
            worst = fmax(worst, p.worst);
        }
        blocks_free(&blocks);
    }
    return worst;
}

/* Tested with the tier before: the same format, of activations made by the same functions. */
static bool was_tested(const struct cpu_kernels *k, const struct cpu_kernels *before, const struct cpu_format *f, enum tensor_type type, kg_activations a)
{
    return before->format && before->format(type, a) == f && k->quantize == before->quantize && k->quantize_whole == before->quantize_whole && k->act_wide == before->act_wide &&
           k->tile_f32 == before->tile_f32 && k->tile_bf16 == before->tile_bf16 && k->block_bf16 == before->block_bf16;
}

static void matmul(void **state)
{
    (void)state;
    rng_start();
    struct cpu_kernels before = {0};
    static const char *const names[] = {[KG_ACT_INT8] = "int8", [KG_ACT_F32] = "f32"};
    for (size_t tier = 0; cpu_tier_name(tier); tier++) {
        struct cpu_kernels k;
        if (!tier_kernels(tier, &k)) continue;
        print_message("tier %s, largest error / bound:\n", k.tier);
        const struct type_info *type;
        for (size_t i = 0; (type = type_at(i)); i++) {
            const struct cpu_format *done = NULL;
            for (int a = KG_ACT_INT8; a <= KG_ACT_F32; a++) {
                const struct cpu_format *f = k.format(type->type, (kg_activations)a);
                if (!f) fail_msg("tier %s has no format for type %s", k.tier, type->name);
                if (f == done) continue; /* the type has one format for both */
                done = f;
                if (was_tested(&k, &before, f, type->type, (kg_activations)a)) continue;
                if (decode_int_form(type->type).group && a == KG_ACT_INT8 && f->acts != ACTS_INT8 && f->acts != ACTS_INT8_WHOLE)
                    print_message("tier %s multiplies %s without int8\n", k.tier, type->name);
                if (a == KG_ACT_F32) assert_true(f->acts == ACTS_ROWS || f->acts == ACTS_F32_TILES); /* exact was asked for */
                double worst = check_format(&k, f, type);
                print_message("  %-8s %-5s %-12s %.3f\n", type->name, names[a], f->name, worst);
            }
        }
        before = k;
    }
}

/* VNNI sums the same integers as AVX2 does without it: the same bits, but for packed groups of 16, whose integer scales AVX2 multiplies first. */
static void vnni_is_avx2(void **state)
{
    (void)state;
    rng_start();
    struct cpu_kernels avx2 = {0}, vnni = {0};
    for (size_t tier = 0; cpu_tier_name(tier); tier++) {
        struct cpu_kernels *k = strcmp(cpu_tier_name(tier), "avx2") == 0 ? &avx2 : strcmp(cpu_tier_name(tier), "vnni") == 0 ? &vnni : NULL;
        if (k && !tier_kernels(tier, k)) skip();
    }
    if (!vnni.format) {
        print_message("skipped: not a processor of this kind\n");
        skip();
    }
    const struct type_info *type;
    for (size_t i = 0; (type = type_at(i)); i++) {
        const int in = (512 / type->block + 1) * type->block;
        struct problem p = {.k = &avx2, .f = avx2.format(type->type, KG_ACT_INT8), .type = type, .in = in, .n = FEW_N};
        if (p.f->acts != ACTS_INT8 || (p.f->packed_bytes && decode_int_form(type->type).group == 16)) continue;
        struct blocks blocks = blocks_new(type, 0.5);
        fill_problem(&p, &blocks);
        for (int n = 1; n <= p.n; n += p.n - 1) {
            struct guarded a = multiply(&p, 0, n, MAX_OUT, false);
            struct problem q = p;
            q.k = &vnni, q.f = vnni.format(type->type, KG_ACT_INT8);
            struct guarded b = multiply(&q, 0, n, MAX_OUT, false);
            if (memcmp(a.p, b.p, a.n) != 0) fail_msg("type %s, %d tokens: tier vnni differs from avx2", type->name, n);
            guarded_free(&a, type->name);
            guarded_free(&b, type->name);
        }
        blocks_free(&blocks);
        free(p.rows);
        free(p.x);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(matmul), cmocka_unit_test(vnni_is_avx2)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
