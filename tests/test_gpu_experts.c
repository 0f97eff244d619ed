/* layers: cpu gpu ref backend */
/* Mixtures of experts on every device of this machine and always on the emulator, against the reference: the choice in all its ways, products
 * with the chosen matrices for every tensor type and with all matrices of a stack, their sum; tokens alone, a few, many. */
#include "gpu_test.h"

enum { VOCAB = 64, TOKENS = 75, EXPERTS = 12, USED = 3, MOST = 16 };

struct net {
    struct program p;
    struct tensor tensors[MOST];
    int n;
};

static const struct tensor *keep(struct net *m, struct tensor t)
{
    assert_true(m->n < MOST);
    m->tensors[m->n] = t;
    return &m->tensors[m->n++];
}

static const struct tensor *plain(struct net *m, int in, int out, float size) { return keep(m, normal_tensor("w", in, out, size, 0)); }

static const struct tensor *stack(struct net *m, const struct type_info *type, int in, int out, int n)
{
    struct tensor t = type->type == TYPE_F32 ? normal_tensor(type->name, in, out * n, 1 / sqrtf((float)in), 0) : random_tensor(type->name, type, in, out * n);
    t.n_dims = 3;
    t.ne[1] = out;
    t.ne[2] = n;
    return keep(m, t);
}

/* What brings products with the matrices to about 1: of integers, those of products would not fit f32. */
static double smaller(const struct tensor *t)
{
    float row[512], most = 1;
    decode_f32(t->type)(t->data, row, t->ne[0]);
    for (int64_t i = 0; i < t->ne[0]; i++) most = fmaxf(most, fabsf(row[i]));
    return 1 / (double)most;
}

/* way: which variant of the choice, and of what is around it. */
static void build(struct net *m, const struct type_info *type, int dim, int ffn, size_t way)
{
    static const struct route routes[] = {
        {.n_used = USED, .scale = 1},
        {.n_used = USED, .sigmoid = true, .normed = true, .scale = 2.5, .n_groups = 4, .n_groups_used = 2},
        {.n_used = USED, .normed = true, .scale = 1},
        {.n_used = USED, .sigmoid = true, .scale = 1.5},
        {.n_used = USED, .scale = 1, .n_groups = 6, .n_groups_used = 2, .group_by_one = true},
    };
    const bool loose = way % 4 == 3, biased = way % 4 == 1 || way % 4 == 2;
    *m = (struct net){.p = {.n_layers = 1, .dim = dim, .n_vocab = VOCAB, .n_ctx = 128}};
    struct program *p = &m->p;
    const int x = program_reg(p, dim), y = program_reg(p, dim), scores = program_reg(p, EXPERTS), route = program_reg(p, 2 * USED), gate = program_reg(p, USED * ffn),
              up = program_reg(p, USED * ffn), down = program_reg(p, USED * dim), heads = program_reg(p, USED * dim), logits = program_reg(p, VOCAB);
    program_embed(p, x, plain(m, dim, VOCAB, 1));
    program_rms_norm(p, y, x, plain(m, dim, 1, 1), NULL, 1e-6);
    program_matmul(p, scores, y, plain(m, dim, EXPERTS, 1 / sqrtf((float)dim)), NULL); /* sigmoids that f32 tells apart */
    const struct tensor *bias = biased ? plain(m, EXPERTS, 1, 0.2f) : NULL;
    if (biased) ((float *)(uintptr_t)bias->data)[EXPERTS - 2] = 3; /* chosen by all tokens: more than a tile */
    program_route(p, route, scores, bias, &routes[way % COUNT_OF(routes)]);
    const struct tensor *w = stack(m, type, dim, ffn, EXPERTS);
    program_scale(p, y, y, smaller(w));
    program_matmul_experts(p, gate, y, route, w, biased ? plain(m, ffn, EXPERTS, 1) : NULL);
    program_matmul_experts(p, up, y, route, stack(m, type, dim, ffn, EXPERTS), biased ? plain(m, ffn, EXPERTS, 1) : NULL);
    if (loose) program_act(p, gate, gate, ACTIVATION_SIGMOID);
    program_glu(p, gate, gate, up, way % 2 ? ACTIVATION_SILU : ACTIVATION_SWIGLU_OAI);
    program_matmul_experts(p, down, gate, route, stack(m, type, ffn, dim, EXPERTS), biased ? plain(m, dim, EXPERTS, 1) : NULL);
    program_scale(p, down, down, smaller(w));
    program_rms_norm(p, down, down, NULL, NULL, 1e-6);
    program_matmul_experts(p, heads, down, -1, stack(m, type, dim, dim, USED), NULL);
    program_scale(p, heads, heads, smaller(w));
    program_rms_norm(p, heads, heads, NULL, NULL, 1e-6);
    program_combine(p, y, heads, route);
    program_add(p, x, x, y);
    program_select(p, y, x);
    program_matmul(p, logits, y, plain(m, dim, VOCAB, 1), NULL);
    program_logits(p, logits);
    OK(program_finish(p));
}

static void check(size_t device, const struct type_info *type, int dim, int ffn, size_t way, kg_activations act, int step)
{
    static struct timeline l;
    static struct net m;
    void *ctx = NULL;
    double *want;
    build(&m, type, dim, ffn, way);
    l = (struct timeline){0};
    const int n = step < TOKENS && gpu_quick(device) ? 20 : TOKENS;
    for (int i = 0; i < n; i++) timeline_add(&l, 0, i, i * 37 % VOCAB, true);
    gpu_deterministic = false;
    void *gpu = gpu_ctx(device, &m.p, act, KG_KV_F16, TOKENS);
    if (gpu) {
        const struct backend *be = backend_find(gpu_names[device]), *ref = backend_find("reference");
        const struct backend_params params = {.n_threads = 1, .max_batch = TOKENS};
        OK(ref->open(&ctx, &m.p, &params));
        free(compute(ref, ctx, VOCAB, &l, TOKENS, &want));
        ref->close(ctx);
        float *got = compute(be, gpu, VOCAB, &l, step, NULL);
        const double bound = 4 * be->error_bound(gpu), error = relative_error(got, want, (size_t)l.n_wanted * VOCAB);
        if (!(error <= bound)) /* as in the self-check: the bound is that of usual weights, these are random blocks */
            fail_msg("%s: %s, way %zu, activations %d, %d tokens at a time: error %.3g, bound %.3g", be->name, type->name, way, (int)act, step, error, bound);
        free(got);
        free(want);
        be->close(gpu);
    }
    for (int i = 0; i < m.n; i++) tensor_free(&m.tensors[i]);
    program_free(&m.p);
}

static void every_type(void **state)
{
    (void)state;
    static const int steps[] = {1, TOKENS, 5};
    const struct type_info *type;
    for (size_t d = 0; d < COUNT_OF(gpu_names); d++)
        for (size_t i = 0; (type = type_at(i)); i++) {
            if (type->block > 256) continue;
            const int dim = type->block == 1 ? 33 : type->block == 256 ? 256 : ROUND_UP(96, type->block), ffn = type->block == 1 ? 47 : type->block == 256 ? 256 : ROUND_UP(160, type->block);
            for (size_t k = 0; k < COUNT_OF(steps); k++)
                for (int act = KG_ACT_INT8; act <= KG_ACT_F32; act++)
                    if (!gpu_quick(d) || (k == i % 3 && (size_t)act == i / 3 % 2)) check(d, type, dim, ffn, i + k, (kg_activations)act, steps[k]);
        }
}

static void every_way(void **state)
{
    (void)state;
    const struct type_info *q4 = type_by_name("Q4_0"), *f16 = type_by_name("F16");
    for (size_t d = 0; d < COUNT_OF(gpu_names); d++)
        for (size_t way = 0; way < 5; way++)
            for (int act = KG_ACT_INT8; act <= KG_ACT_F32; act++) {
                check(d, q4, 96, 160, way, (kg_activations)act, TOKENS);
                check(d, f16, 44, 70, way, (kg_activations)act, TOKENS);
                check(d, q4, 96, 160, way, (kg_activations)act, 1);
            }
}

/* --deterministic: the logits of a token have the same bits in any batch. */
static void deterministic(void **state)
{
    (void)state;
    static const char *const types[] = {"Q4_K", "F16"};
    static const int steps[] = {TOKENS, 1, 9};
    static struct timeline l;
    static struct net m;
    l = (struct timeline){0};
    for (int i = 0; i < TOKENS; i++) timeline_add(&l, 0, i, i * 37 % VOCAB, true);
    for (size_t d = 0; d < COUNT_OF(gpu_names); d++)
        for (size_t i = 0; i < COUNT_OF(types); i++) {
            build(&m, type_by_name(types[i]), 256, 256, i);
            gpu_deterministic = true;
            void *ctx = gpu_ctx(d, &m.p, KG_ACT_INT8, KG_KV_F16, TOKENS);
            float *got[COUNT_OF(steps)];
            for (size_t k = 0; ctx && k < COUNT_OF(steps); k++) {
                got[k] = compute(backend_find(gpu_names[d]), ctx, VOCAB, &l, steps[k], NULL);
                if (memcmp(got[0], got[k], sizeof **got * TOKENS * VOCAB) != 0) fail_msg("%s: %s: batches of %d and of %d differ", gpu_names[d], types[i], steps[0], steps[k]);
            }
            for (size_t k = 0; ctx && k < COUNT_OF(steps); k++) free(got[k]);
            if (ctx) backend_find(gpu_names[d])->close(ctx);
            for (int k = 0; k < m.n; k++) tensor_free(&m.tensors[k]);
            program_free(&m.p);
        }
    gpu_deterministic = false;
}

static int start(void **state)
{
    (void)state;
    rng_start();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_type), cmocka_unit_test(every_way), cmocka_unit_test(deterministic)};
    return cmocka_run_group_tests(tests, start, NULL);
}
