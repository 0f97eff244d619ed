/* layers: run */
/* Mixtures of experts on the cpu backend against the reference, for weights of several kinds, all tiers, one token and many: the choice, the
 * products with the chosen matrices, their sum; and products with all matrices of a stack, a head each. */
#include "cpu_test.h"
#include "base/os.h"

enum { VOCAB = 64, TOKENS = 45, EXPERTS = 7, USED = 3, MOST = 12 };

struct net {
    struct program p;
    struct tensor tensors[MOST];
    int n;
};

static const struct tensor *stack(struct net *m, const struct type_info *type, int in, int out, int n)
{
    struct tensor *t = &m->tensors[m->n++];
    const size_t blocks = (size_t)(in / type->block) * (size_t)(out * n);
    uint8_t *data = os_alloc_shared(blocks * (size_t)type->block_bytes); /* backends let go of what they have packed */
    float *values = malloc((size_t)type->block * sizeof *values);
    assert_true(data && values && in % type->block == 0);
    *t = (struct tensor){.name = type->name, .type = type->type, .n_dims = 3, .ne = {in, out, n, 1}, .data = data, .n_bytes = blocks * (size_t)type->block_bytes};
    for (size_t i = 0; i < blocks; i++) {
        uint8_t *block = data + i * (size_t)type->block_bytes;
        if (type->type == TYPE_F32) {
            const float v = rng_normal() / sqrtf((float)in);
            memcpy(block, &v, sizeof v);
            continue;
        }
        for (float most = 100; !(most <= 1 && most >= 0x1p-8f);) { /* random bits, if they are a sane block */
            most = 0;
            for (int k = 0; k < type->block_bytes; k++) block[k] = (uint8_t)rng_below(256);
            decode_f32(type->type)(block, values, type->block);
            for (int k = 0; k < type->block; k++) most = fabsf(values[k]) <= most ? most : isfinite(values[k]) ? fabsf(values[k]) : INFINITY;
        }
    }
    free(values);
    return t;
}

static void build(struct net *m, const struct type_info *type, int dim, int ffn, bool sigmoid)
{
    const struct type_info *f32 = type_by_name("F32");
    *m = (struct net){.p = {.n_layers = 1, .dim = dim, .n_vocab = VOCAB, .n_ctx = 64}};
    struct program *p = &m->p;
    const int x = program_reg(p, dim), scores = program_reg(p, EXPERTS), route = program_reg(p, 2 * USED), gate = program_reg(p, USED * ffn), up = program_reg(p, USED * ffn),
              down = program_reg(p, USED * dim), heads = program_reg(p, USED * dim), y = program_reg(p, dim), logits = program_reg(p, VOCAB);
    const struct tensor *bias = sigmoid ? stack(m, f32, EXPERTS, 1, 1) : NULL;
    program_embed(p, x, stack(m, f32, dim, VOCAB, 1));
    program_matmul(p, scores, x, stack(m, f32, dim, EXPERTS, 1), NULL);
    program_route(p, route, scores, bias, &(struct route){.n_used = USED, .sigmoid = sigmoid, .normed = sigmoid, .scale = 1.5});
    program_matmul_experts(p, gate, x, route, stack(m, type, dim, ffn, EXPERTS), sigmoid ? stack(m, f32, ffn, EXPERTS, 1) : NULL);
    program_matmul_experts(p, up, x, route, stack(m, type, dim, ffn, EXPERTS), NULL);
    program_glu(p, gate, gate, up, ACTIVATION_SILU);
    program_matmul_experts(p, down, gate, route, stack(m, type, ffn, dim, EXPERTS), NULL);
    program_matmul_experts(p, heads, down, -1, stack(m, type, dim, dim, USED), NULL);
    program_combine(p, y, heads, route);
    program_rms_norm(p, y, y, NULL, NULL, 1e-6);
    program_select(p, x, y);
    program_matmul(p, logits, x, stack(m, f32, dim, VOCAB, 1), NULL);
    program_logits(p, logits);
    if (program_finish(p) != KG_OK) fail_msg("%s", kg_error_message());
}

static double compute(const struct backend *b, const struct program *p, const struct backend_params *params, int step, float *logits, double *f64)
{
    static const int32_t blocks[] = {0, 1};
    const struct batch_seq seq = {.blocks = blocks};
    struct batch_token tokens[TOKENS];
    void *ctx;
    if (b->open(&ctx, p, params) != KG_OK || b->kv_reserve(ctx, 2) != KG_OK) fail_msg("%s", kg_error_message());
    for (int i = 0; i < TOKENS; i++) tokens[i] = (struct batch_token){i * 37 % VOCAB, i, 0, true};
    for (int i = 0; i < TOKENS; i += step) {
        const struct batch batch = {.tokens = tokens + i, .n = MIN(step, TOKENS - i), .seqs = &seq, .n_seqs = 1, .logits = logits + i * VOCAB, .logits_f64 = f64 ? f64 + i * VOCAB : NULL};
        if (b->run(ctx, &batch) != KG_OK) fail_msg("%s", kg_error_message());
    }
    const double bound = b->error_bound(ctx);
    b->close(ctx);
    return bound;
}

static void check(const char *type, int dim, int ffn, kg_activations act, bool sigmoid)
{
    static float got[TOKENS * VOCAB], alone[TOKENS * VOCAB];
    static double want[TOKENS * VOCAB];
    struct net m;
    struct backend_params params = {.n_threads = 3, .kv_type = KG_KV_F16, .activations = act, .max_batch = TOKENS};
    build(&m, type_by_name(type), dim, ffn, sigmoid);
    compute(backend_find("reference"), &m.p, &params, TOKENS, got, want);
    for (size_t tier = 0; cpu_tier_name(tier); tier++) {
        if (!cpu_tier_supported(tier)) continue;
        setenv("KAGARI_CPU", cpu_tier_name(tier), 1);
        const double bound = compute(backend_find("cpu"), &m.p, &params, TOKENS, got, NULL);
        compute(backend_find("cpu"), &m.p, &params, 1, alone, NULL);
        double diff = 0, size = 0;
        for (int i = 0; i < TOKENS * VOCAB; i++) {
            diff += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
            size += want[i] * want[i];
        }
        if (!(sqrt(diff / size) <= bound)) fail_msg("tier %s, %s, activations %d: error %.3g, bound %.3g", cpu_tier_name(tier), type, (int)act, sqrt(diff / size), bound);
        if (memcmp(got, alone, sizeof got) != 0) fail_msg("tier %s, %s, activations %d: tokens alone differ from those in a batch", cpu_tier_name(tier), type, (int)act);
    }
    unsetenv("KAGARI_CPU");
    for (int i = 0; i < m.n; i++) os_unmap(&(struct os_map){m.tensors[i].data, m.tensors[i].n_bytes});
    program_free(&m.p);
}

static void experts(void **state)
{
    (void)state;
    rng_start();
    static const char *const types[] = {"F32", "F16", "BF16", "Q8_0", "Q4_0", "MXFP4"}, *const wide[] = {"Q4_K", "Q6_K", "IQ4_XS"};
    for (size_t i = 0; i < COUNT_OF(types); i++)
        for (int act = 0; act < 2; act++) check(types[i], 96, 160, act ? KG_ACT_F32 : KG_ACT_INT8, i % 2 == 0);
    for (size_t i = 0; i < COUNT_OF(wide); i++)
        for (int act = 0; act < 2; act++) check(wide[i], 256, 512, act ? KG_ACT_F32 : KG_ACT_INT8, act);
    check("F32", 33, 47, KG_ACT_INT8, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(experts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
