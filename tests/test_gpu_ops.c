/* layers: cpu gpu ref backend */
/* Every operation of the GPU engine, on every device of this machine and always on the emulator: each tensor type through matmuls of one,
 * a few and many tokens and through embeddings, against products in double of what the kernel is meant to see; norms, ropes, attention,
 * activations, additions in small programs against the reference backend. */
#include "gpu_double.h"

/* ---- matmul by type ---- */

enum { VOCAB = 67, OUT = 83 };

/* x rounded as a kernel for n tokens of this type rounds it; integers: `group` elements have a scale. step: what an element may be off by that lies on the
 * edge of two integers, since devices divide and multiply to a few ulp. */
static void seen(const float *x, double *y, double *step, int n_in, int n, const struct type_info *type, kg_activations act, int group)
{
    for (int i = 0; i < n_in; i++) step[i] = 0;
    const bool codes = decode_int_form(type->type).group > 0, plain16 = type->type == TYPE_F16 || type->type == TYPE_BF16;
    for (int i = 0; i < n_in; i++) y[i] = (double)x[i];
    if (act == KG_ACT_F32 || (!codes && !plain16)) return;
    if (codes && n <= 8) {
        for (int u = 0; u < n_in; u += group) {
            float most = 0;
            for (int i = u; i < u + group; i++) most = fmaxf(most, fabsf(x[i]));
            float inv = most > 0 ? 127.0f / most : 0, d = most / 127.0f;
            for (int i = u; i < u + group; i++) {
                const float q = x[i] * inv;
                y[i] = (double)d * (double)rintf(q);
                if (fabsf(fabsf(q - rintf(q)) - 0.5f) < 1e-4f) step[i] = (double)d;
            }
        }
    } else if (n > 8) {
        float most = 0;
        for (int i = 0; i < n_in; i++) most = fmaxf(most, fabsf(x[i]));
        int e;
        frexpf(most, &e);
        for (int i = 0; i < n_in; i++) y[i] = ldexp((double)f32_from_f16(f16_from_f32(ldexpf(x[i], 1 - e))), e - 1);
    }
}

static void check_matmul(size_t device, const struct type_info *type, int in, int n, kg_activations act)
{
    struct tensor embed = normal_tensor("embed", in, VOCAB, 1, 0), w = random_tensor("w", type, in, OUT), b = normal_tensor("b", OUT, 1, 1, 0);
    struct program p = {.n_layers = 1, .dim = in, .n_vocab = VOCAB, .n_ctx = 512};
    int x = program_reg(&p, in), s = program_reg(&p, in), y = program_reg(&p, OUT);
    struct tensor top = normal_tensor("top", OUT, VOCAB, 0, 0);
    for (int i = 0; i < OUT && i < VOCAB; i++) ((float *)(uintptr_t)top.data)[i * OUT + i] = 1; /* shows the first outputs */
    int logits = program_reg(&p, VOCAB);
    program_embed(&p, x, &embed);
    program_matmul(&p, y, x, &w, &b);
    int sel = program_reg(&p, OUT);
    program_select(&p, sel, y);
    program_matmul(&p, logits, sel, &top, NULL);
    program_logits(&p, logits);
    OK(program_finish(&p));
    (void)s;
    void *ctx = gpu_ctx(device, &p, act, KG_KV_F16, 96);
    if (ctx) {
        struct timeline l = {0};
        for (int i = 0; i < n; i++) timeline_add(&l, 0, i, (i * 31 + 5) % VOCAB, true);
        const struct backend *be = backend_find(gpu_names[device]);
        float *got = compute(be, ctx, VOCAB, &l, 96, NULL);
        double *row = malloc((size_t)in * sizeof *row), *xs = malloc((size_t)in * sizeof *xs), *step = malloc((size_t)in * sizeof *step);
        assert_true(row && xs && step);
        const bool codes = decode_int_form(type->type).group > 0, f16 = act == KG_ACT_INT8 && n > 8 && (codes || type->type == TYPE_F16 || type->type == TYPE_BF16);
        for (int t = 0; t < n; t++) {
            const float *xt = (const float *)embed.data + (size_t)l.tokens[t].id * (size_t)in;
            for (int o = 0; o < VOCAB; o++) {
                ref_decoder(type->type)((const uint8_t *)tensor_row(&w, o), row);
                for (int i = 0; i < in; i += type->block) ref_decoder(type->type)((const uint8_t *)tensor_row(&w, o) + (size_t)(i / type->block * type->block_bytes), row + i);
                const float g = got[(size_t)t * VOCAB + (size_t)o];
                double off = INFINITY, want = 0, tolerance = 0;
                for (int group = 32; !(off <= tolerance) && group >= (n == 1 ? 16 : 32); group /= 2) { /* one token, where weights come as streams: 16 */
                    double size = fabs((double)((const float *)b.data)[o]), lost = 0;
                    want = (double)((const float *)b.data)[o];
                    seen(xt, xs, step, in, n, type, act, group);
                    for (int i = 0; i < in; i++) {
                        double v = f16 ? (double)f32_from_f16(f16_from_f32((float)row[i])) : row[i];
                        if (f16) lost += fabs(xs[i]) * 0x1p-25; /* halves below the normal ones; and a value on the edge */
                        want += v * xs[i];
                        lost += fabs(v) * step[i];
                        size += fabs(v * xs[i]);
                    }
                    tolerance = 32 * U * size + lost + (f16 ? 0x1p-11 * size / sqrt(in) : 0);
                    off = fabs((double)g - want);
                }
                if (!(off <= tolerance))
                    fail_msg("%s: %s, %d tokens of %d, activations %s: token %d output %d is %.9g, not %.9g (off by %.3g of %.3g)", gpu_names[device], type->name, n, in,
                             act == KG_ACT_F32 ? "f32" : "int8", t, o, (double)g, want, off, tolerance);
            }
        }
        free(row);
        free(xs);
        free(step);
        free(got);
        be->close(ctx);
    }
    program_free(&p);
    tensor_free(&embed);
    tensor_free(&w);
    tensor_free(&b);
    tensor_free(&top);
}

static void matmuls(void **state)
{
    (void)state;
    static const int tokens[] = {1, 3, 21};
    for (size_t d = 0; d < COUNT_OF(gpu_names); d++) {
        const struct type_info *type;
        for (size_t i = 0; (type = type_at(i)); i++) {
            int in = type->block == 1 ? 77 : type->block == 256 ? 768 : ROUND_UP(352, type->block);
            for (size_t k = 0; k < COUNT_OF(tokens); k++)
                for (int act = KG_ACT_INT8; act <= KG_ACT_F32; act++)
                    if (!gpu_quick(d) || (size_t)act == (i + k) % 2) check_matmul(d, type, in, tokens[k], (kg_activations)act);
        }
        if (gpu_quick(d)) continue;
        check_matmul(d, type_by_name("Q4_K"), 512 * 32 + 256, 1, KG_ACT_INT8); /* wider than a group prepares */
        check_matmul(d, type_by_name("F16"), 240 * 32 + 40, 1, KG_ACT_INT8);
    }
}

/* ---- embeddings ---- */

static void embeddings(void **state)
{
    (void)state;
    for (size_t d = 0; d < COUNT_OF(gpu_names); d++) {
        const struct type_info *type;
        for (size_t i = 0; (type = type_at(i)); i++) {
            int in = type->block == 1 ? 45 : 512;
            struct tensor w = random_tensor("w", type, in, VOCAB), pos = random_tensor("pos", type, in, 40);
            struct program p = {.n_layers = 1, .dim = in, .n_vocab = VOCAB, .n_ctx = 40, .ctx_is_hard = true};
            struct tensor id = normal_tensor("id", in, VOCAB, 0, 0);
            for (int k = 0; k < VOCAB; k++) ((float *)(uintptr_t)id.data)[k * in + k * 7 % in] = 1;
            int x = program_reg(&p, in), s = program_reg(&p, in), logits = program_reg(&p, VOCAB);
            program_embed(&p, x, &w);
            program_pos_embed(&p, x, x, &pos);
            program_select(&p, s, x);
            program_matmul(&p, logits, s, &id, NULL);
            program_logits(&p, logits);
            OK(program_finish(&p));
            void *ctx = gpu_ctx(d, &p, KG_ACT_F32, KG_KV_F16, 8);
            if (ctx) {
                struct timeline l = {0};
                for (int t = 0; t < 5; t++) timeline_add(&l, 0, t, t * 13 % VOCAB, true);
                const struct backend *be = backend_find(gpu_names[d]);
                float *got = compute(be, ctx, VOCAB, &l, 8, NULL), *a = malloc((size_t)in * sizeof *a), *b = malloc((size_t)in * sizeof *b);
                for (int t = 0; t < 5; t++) {
                    decode_f32(type->type)(tensor_row(&w, l.tokens[t].id), a, in);
                    decode_f32(type->type)(tensor_row(&pos, t), b, in);
                    for (int k = 0; k < VOCAB; k++) {
                        double x0 = (double)a[k * 7 % in], x1 = (double)b[k * 7 % in], g = (double)got[t * VOCAB + k];
                        if (!(fabs(g - (x0 + x1)) <= 2 * U * (fabs(x0) + fabs(x1)))) fail_msg("%s: %s: %.9g, not %.9g", gpu_names[d], type->name, g, x0 + x1);
                    }
                }
                free(got);
                free(a);
                free(b);
                be->close(ctx);
            }
            program_free(&p);
            tensor_free(&w);
            tensor_free(&pos);
            tensor_free(&id);
        }
    }
}

/* ---- programs ---- */

struct shape {
    int dim, n_heads, n_kv_heads, k_dim, v_dim, n_rot, ffn;
    enum rope_style style;
    enum rope_scaling scaling;
    bool layer_norm, glu, bias, loose; /* loose: nothing can be joined */
    enum activation f;
    /* what attention adds, and operations of their own behind it */
    int window;
    double softcap, alibi;
    bool sinks, others;
    int head_norms; /* 1: one weight for all heads, 2: one each */
    bool both; /* as encoders: tokens see both sides, and the embedding has a row added */
};

enum { LAYERS = 2, KEPT = 64 };

struct net {
    struct program p;
    struct tensor kept[KEPT];
    int n;
};

static const struct tensor *keep(struct net *m, struct tensor t)
{
    assert_true(m->n < KEPT);
    m->kept[m->n] = t;
    return &m->kept[m->n++];
}
static const struct tensor *mat(struct net *m, int in, int out) { return keep(m, normal_tensor("w", in, out, 1 / sqrtf((float)in), 0)); }
static const struct tensor *vec(struct net *m, const struct shape *s, int n) { return s->bias ? keep(m, normal_tensor("b", n, 1, 0.3f, 0)) : NULL; }

static void norm(struct net *m, const struct shape *s, int dst, int src)
{
    const struct tensor *w = keep(m, normal_tensor("norm", s->dim, 1, 0.2f, 1));
    if (s->layer_norm) program_layer_norm(&m->p, dst, src, w, keep(m, normal_tensor("norm_b", s->dim, 1, 0.1f, 0)), 1e-5);
    else program_rms_norm(&m->p, dst, src, w, NULL, 1e-6);
}

static void norm_heads(struct net *m, const struct shape *s, int reg, int n_heads)
{
    const struct tensor *w = keep(m, normal_tensor("norm", s->k_dim, s->head_norms == 2 ? n_heads : 1, 0.2f, 1));
    if (s->layer_norm) program_layer_norm(&m->p, reg, reg, w, keep(m, normal_tensor("norm_b", s->k_dim, s->head_norms == 2 ? n_heads : 1, 0.1f, 0)), 1e-5);
    else program_rms_norm(&m->p, reg, reg, w, NULL, 1e-6);
}

/* y through all operations that only few architectures have; one is a register of width 1. */
static void add_others(struct net *m, const struct shape *s, int y, int x, int one)
{
    struct program *p = &m->p;
    program_matmul(p, one, x, mat(m, s->dim, 1), NULL);
    program_gate(p, y, y, one, ACTIVATION_SIGMOID);
    program_scale(p, y, y, 1.75);
    program_pos_scale(p, y, y, 0.3, 8, 1);
    program_mul(p, y, y, x);
    program_rms_norm(p, y, y, NULL, NULL, 1e-6);
    program_clamp(p, y, y, 1.5);
    program_softcap(p, y, y, 2.5);
    program_xielu(p, y, y, &(struct xielu){0.4, 0.7, 0.3, -0.2});
    program_layer_norm(p, y, y, NULL, NULL, 1e-6);
}

static void build(struct net *m, const struct shape *s)
{
    *m = (struct net){.p = {.n_layers = LAYERS, .dim = s->dim, .n_vocab = VOCAB, .n_ctx = 512}};
    struct program *p = &m->p;
    int x = program_reg(p, s->dim), y = program_reg(p, s->dim), q = program_reg(p, s->n_heads * s->k_dim), k = program_reg(p, s->n_kv_heads * s->k_dim),
        v = program_reg(p, s->n_kv_heads * s->v_dim), att = program_reg(p, s->n_heads * s->v_dim), gate = program_reg(p, s->ffn), up = program_reg(p, s->ffn),
        logits = program_reg(p, VOCAB), one = program_reg(p, 1);
    struct rope rope = {.style = s->style, .scaling = s->scaling, .n_heads = s->n_heads, .head_dim = s->k_dim, .n_rot = s->n_rot, .base = 10000, .factor = 4, .orig_ctx = 128,
                        .low_freq = 1, .high_freq = 4, .beta_fast = 32, .beta_slow = 1, .ext_factor = 1, .attn_factor = 1};
    program_embed(p, x, mat(m, s->dim, VOCAB));
    if (s->both) program_add_row(p, x, x, mat(m, s->dim, 2));
    for (int i = 0; i < LAYERS; i++) {
        program_set_layer(p, i);
        norm(m, s, y, x);
        program_matmul(p, q, y, mat(m, s->dim, s->n_heads * s->k_dim), vec(m, s, s->n_heads * s->k_dim));
        program_matmul(p, k, y, mat(m, s->dim, s->n_kv_heads * s->k_dim), vec(m, s, s->n_kv_heads * s->k_dim));
        if (s->loose) program_add(p, y, y, x); /* the norm has another reader */
        program_matmul(p, v, y, mat(m, s->dim, s->n_kv_heads * s->v_dim), vec(m, s, s->n_kv_heads * s->v_dim));
        if (s->head_norms) norm_heads(m, s, q, s->n_heads);
        if (s->head_norms) norm_heads(m, s, k, s->n_kv_heads);
        if (s->n_rot) program_rope(p, q, &rope);
        if (s->loose) program_act(p, v, v, s->f);
        rope.n_heads = s->n_kv_heads;
        if (s->n_rot) program_rope(p, k, &rope);
        rope.n_heads = s->n_heads;
        program_attention_as(p, att, q, k, v,
                             &(struct attention){.n_heads = s->n_heads, .n_kv_heads = s->n_kv_heads, .k_dim = s->k_dim, .v_dim = s->v_dim, .scale = 1 / sqrt(s->k_dim),
                                                 .window = i ? s->window : 0, .softcap = s->softcap, .alibi = s->alibi, .both = s->both,
                                                 .sinks = s->sinks ? keep(m, normal_tensor("sinks", s->n_heads, 1, 2, 0)) : NULL});
        program_matmul(p, y, att, mat(m, s->n_heads * s->v_dim, s->dim), vec(m, s, s->dim));
        if (s->others) add_others(m, s, y, x, one);
        program_add(p, x, x, y);
        if (s->loose) program_add(p, x, x, y); /* what the first addition took is still needed */
        norm(m, s, y, x);
        program_matmul(p, gate, y, mat(m, s->dim, s->ffn), vec(m, s, s->ffn));
        if (s->glu) {
            program_matmul(p, up, y, mat(m, s->dim, s->ffn), vec(m, s, s->ffn));
            program_glu(p, gate, gate, up, s->f);
            if (s->loose) program_add(p, gate, gate, up);
        } else {
            program_act(p, s->loose ? up : gate, gate, s->f);
            if (s->loose) program_add(p, gate, gate, up);
        }
        program_matmul(p, y, gate, mat(m, s->ffn, s->dim), vec(m, s, s->dim));
        program_add(p, x, x, y);
        program_tap(p);
    }
    program_set_layer(p, -1);
    program_select(p, y, x);
    norm(m, s, x, y);
    program_matmul(p, logits, x, mat(m, s->dim, VOCAB), NULL);
    program_logits(p, logits);
    OK(program_finish(p));
}

static const struct shape shapes[] = {
    {64, 4, 2, 24, 40, 24, 96, ROPE_INTERLEAVED, ROPE_SCALING_NONE, false, true, false, false, ACTIVATION_SILU, .window = 0},
    {80, 4, 4, 20, 20, 0, 100, ROPE_HALVES, ROPE_SCALING_NONE, true, false, true, false, ACTIVATION_GELU_TANH, .window = 0},
    {72, 9, 1, 64, 128, 32, 56, ROPE_HALVES, ROPE_SCALING_LLAMA3, false, true, true, false, ACTIVATION_GELU_ERF, .window = 0},
    {64, 6, 3, 16, 16, 10, 64, ROPE_HALVES, ROPE_SCALING_YARN, true, true, true, true, ACTIVATION_RELU, .window = 0},
    {33, 2, 1, 128, 8, 128, 47, ROPE_INTERLEAVED, ROPE_SCALING_LINEAR, false, false, false, true, ACTIVATION_SILU, .window = 0},
    {64, 6, 2, 24, 16, 24, 40, ROPE_HALVES, ROPE_SCALING_NONE, false, true, false, false, ACTIVATION_SWIGLU_OAI, .window = 37, .sinks = true, .head_norms = 1},
    {40, 6, 3, 20, 20, 0, 56, ROPE_HALVES, ROPE_SCALING_NONE, true, false, true, false, ACTIVATION_RELU_SQUARED, .softcap = 3, .alibi = 8, .head_norms = 2, .others = true},
    {48, 4, 2, 64, 64, 64, 56, ROPE_HALVES, ROPE_SCALING_NONE, false, true, false, true, ACTIVATION_GELU_TANH, .window = 7, .softcap = 2, .sinks = true},
    /* heads wider than usual */
    {40, 6, 1, 272, 264, 272, 40, ROPE_HALVES, ROPE_SCALING_NONE, false, true, false, false, ACTIVATION_SILU, .window = 0},
    {36, 3, 3, 20, 516, 20, 40, ROPE_INTERLEAVED, ROPE_SCALING_NONE, false, true, true, false, ACTIVATION_SILU, .window = 37, .sinks = true},
    {40, 10, 2, 300, 140, 300, 40, ROPE_INTERLEAVED, ROPE_SCALING_NONE, false, true, false, false, ACTIVATION_SILU, .softcap = 3, .alibi = 8, .sinks = true},
};

/* Two sequences beside each other; some tokens want logits. */
static void make_timeline(struct timeline *l)
{
    *l = (struct timeline){0};
    for (int a = 0, b = 0, turn = 0; a < 150 || b < 41; turn++) {
        for (int i = 0; i <= turn * 7 % 5 && a < 150; i++, a++) timeline_add(l, 0, a, (a * 31 + 7) % VOCAB, a % 4 == 1 || a == 149);
        for (int i = 0; i <= turn * 3 % 4 && b < 41; i++, b++) timeline_add(l, 1, b, (b * 17 + 5) % VOCAB, b % 5 == 2);
    }
}

static void programs(void **state)
{
    (void)state;
    /* Keys and values of LAYERS layers are rounded: sqrt(2 LAYERS) times half an ulp of a half, or a 254th of the largest of 32 (at worst sqrt(32 / 12) / 127 of their norm). */
    const double roundings = sqrt(2 * LAYERS), most[] = {[KG_KV_F16] = roundings * 0x1p-11, [KG_KV_F32] = 3e-6, [KG_KV_Q8_0] = roundings * sqrt(32 / 12.0) / 127};
    static const int batches[] = {1, 5, 64};
    static struct net m;
    static struct timeline l;
    make_timeline(&l);
    for (size_t i = 0; i < COUNT_OF(shapes); i++) {
        build(&m, &shapes[i]);
        void *ref;
        struct backend_params params = {.n_threads = 1, .max_batch = 64};
        double *want;
        OK(backend_ref.open(&ref, &m.p, &params));
        free(compute(&backend_ref, ref, VOCAB, &l, 64, &want));
        backend_ref.close(ref);
        for (size_t d = 0; d < COUNT_OF(gpu_names); d++)
            for (int kv = KG_KV_F16; kv <= KG_KV_Q8_0; kv++)
                for (size_t k = 0; k < COUNT_OF(batches); k++) {
                    if (gpu_quick(d) && (kv != (int)(i % 3) || k != i % COUNT_OF(batches))) continue;
                    void *ctx = gpu_ctx(d, &m.p, KG_ACT_F32, (kg_kv_type)kv, 64);
                    if (!ctx) continue;
                    const struct backend *be = backend_find(gpu_names[d]);
                    float *got = compute(be, ctx, VOCAB, &l, batches[k], NULL);
                    double error = relative_error(got, want, (size_t)l.n_wanted * VOCAB);
                    if (!(error <= most[kv])) fail_msg("%s: program %zu, cache type %d, batches of %d: relative error %.3g", gpu_names[d], i, kv, batches[k], error);
                    free(got);
                    be->close(ctx);
                }
        free(want);
        program_free(&m.p);
        for (int k = 0; k < m.n; k++) tensor_free(&m.kept[k]);
    }
}

/* Tokens that see both sides: what they compute depends on what else is in the batch. */
static void sides(void **state)
{
    (void)state;
    static const struct shape all[] = {
        {64, 4, 2, 24, 40, 24, 96, ROPE_INTERLEAVED, ROPE_SCALING_NONE, true, false, true, false, ACTIVATION_GELU_ERF, .both = true},
        {48, 4, 4, 64, 64, 64, 56, ROPE_HALVES, ROPE_SCALING_NONE, false, true, false, false, ACTIVATION_GELU_TANH, .window = 20, .both = true},
        {40, 6, 1, 272, 264, 272, 40, ROPE_HALVES, ROPE_SCALING_NONE, false, true, false, false, ACTIVATION_SILU, .window = 37, .both = true},
        {64, 6, 2, 64, 64, 0, 40, ROPE_HALVES, ROPE_SCALING_NONE, true, false, true, true, ACTIVATION_GELU_ERF, .both = true},
    };
    static const double most[] = {[KG_KV_F16] = 1e-3, [KG_KV_F32] = 3e-6, [KG_KV_Q8_0] = 2e-2};
    static const int batches[] = {131, 1, 40}; /* 131: of one sequence, the matrix operations' way */
    static struct net m;
    static struct timeline two, one;
    make_timeline(&two);
    one = (struct timeline){0};
    for (int i = 0; i < 131; i++) timeline_add(&one, 0, i, (i * 29 + 3) % VOCAB, i % 3 == 0);
    for (size_t i = 0; i < COUNT_OF(all); i++) {
        build(&m, &all[i]);
        for (size_t k = 0; k < COUNT_OF(batches); k++) {
            const struct timeline *l = k == 0 ? &one : &two;
            struct backend_params params = {.n_threads = 1, .max_batch = 131};
            double *want;
            void *ref;
            OK(backend_ref.open(&ref, &m.p, &params));
            free(compute(&backend_ref, ref, VOCAB, l, batches[k], &want));
            backend_ref.close(ref);
            for (size_t d = 0; d < COUNT_OF(gpu_names); d++)
                for (int kv = KG_KV_F16; kv <= KG_KV_Q8_0; kv++) {
                    if (gpu_quick(d) && (kv != (int)((k + i / 2) % 3) || k == (i + 1) % 3)) continue;
                    void *ctx = gpu_ctx(d, &m.p, kv == KG_KV_F16 ? KG_ACT_INT8 : KG_ACT_F32, (kg_kv_type)kv, 131); /* weights are f32 */
                    if (!ctx) continue;
                    const struct backend *be = backend_find(gpu_names[d]);
                    float *got = compute(be, ctx, VOCAB, l, batches[k], NULL);
                    double error = relative_error(got, want, (size_t)l->n_wanted * VOCAB);
                    if (!(error <= most[kv])) fail_msg("%s: both sides, program %zu, cache type %d, batches of %d: relative error %.3g", gpu_names[d], i, kv, batches[k], error);
                    free(got);
                    be->close(ctx);
                }
            free(want);
        }
        program_free(&m.p);
        for (int k = 0; k < m.n; k++) tensor_free(&m.kept[k]);
    }
}

/* What is kept from token to token, of two sequences that take turns. */
static void states(void **state)
{
    (void)state;
    enum { DIM = 24, HEADS = 4, STATE = 5, KEY = 7 };
    static const int batches[] = {64, 1, 5};
    const struct scan scan = {.n_heads = HEADS, .head_dim = DIM / HEADS, .n_groups = 2, .n_state = STATE};
    const struct delta delta = {.n_heads = HEADS, .n_k_heads = 2, .k_dim = KEY, .v_dim = DIM / HEADS, .eps = 1e-6};
    static struct net m;
    static struct timeline l;
    make_timeline(&l);
    for (int one = 0; one < 2; one++) {
        m = (struct net){.p = {.n_layers = 1, .dim = DIM, .n_vocab = VOCAB, .n_ctx = 512}};
        struct program *p = &m.p;
        const int x = program_reg(p, DIM), y = program_reg(p, DIM), step = program_reg(p, HEADS), bc = program_reg(p, 2 * 2 * STATE), qkv = program_reg(p, 2 * 2 * KEY + DIM),
                  gates = program_reg(p, 2 * HEADS), logits = program_reg(p, VOCAB), rk = program_reg(p, 2 * DIM), decays = program_reg(p, 2 * DIM), both = program_reg(p, 2 * DIM);
        program_embed(p, x, mat(&m, DIM, VOCAB));
        program_conv(p, y, x, mat(&m, 4, DIM), keep(&m, normal_tensor("b", DIM, 1, 0.3f, 0)));
        program_add(p, x, x, y);
        program_matmul(p, step, x, mat(&m, DIM, HEADS), NULL);
        program_matmul(p, bc, x, mat(&m, DIM, 2 * 2 * STATE), NULL);
        program_scan(p, y, x, step, bc, keep(&m, normal_tensor("a", one ? 1 : STATE, HEADS, 0.2f, -0.5f)), keep(&m, normal_tensor("d", HEADS, 1, 1, 0)), &scan);
        program_add(p, x, x, y);
        program_matmul(p, qkv, x, mat(&m, DIM, 2 * 2 * KEY + DIM), NULL);
        program_matmul(p, gates, x, mat(&m, DIM, 2 * HEADS), NULL);
        program_delta(p, y, qkv, gates, keep(&m, normal_tensor("a", HEADS, 1, 0.2f, -0.5f)), keep(&m, normal_tensor("b", HEADS, 1, 1, 0)), &delta);
        program_add(p, x, x, y);
        program_matmul(p, rk, x, mat(&m, DIM, 2 * DIM), NULL);
        program_matmul(p, decays, x, mat(&m, DIM, 2 * DIM), NULL);
        program_wkv(p, both, rk, decays, x, keep(&m, normal_tensor("w", DIM, 3, 0.3f, 1)), &(struct wkv){.n_heads = HEADS, .head_dim = DIM / HEADS, .eps = 1e-12});
        program_act(p, both, both, ACTIVATION_TANH);
        program_take(p, y, both, 1, 0);
        program_lerp(p, x, x, y, keep(&m, normal_tensor("w", DIM, 1, 0.3f, 1)));
        program_take(p, y, both, 1, DIM);
        program_add(p, x, x, y);
        program_select(p, y, x);
        program_matmul(p, logits, y, mat(&m, DIM, VOCAB), NULL);
        program_logits(p, logits);
        OK(program_finish(p));
        void *ref;
        struct backend_params params = {.n_threads = 1, .max_batch = 64};
        double *want;
        OK(backend_ref.open(&ref, p, &params));
        free(compute(&backend_ref, ref, VOCAB, &l, 64, &want));
        backend_ref.close(ref);
        for (size_t d = 0; d < COUNT_OF(gpu_names); d++)
            for (size_t k = 0; k < COUNT_OF(batches); k++) {
                void *ctx = gpu_ctx(d, p, KG_ACT_F32, KG_KV_F16, 64);
                if (!ctx) continue;
                const struct backend *be = backend_find(gpu_names[d]);
                float *got = compute(be, ctx, VOCAB, &l, batches[k], NULL);
                double error = relative_error(got, want, (size_t)l.n_wanted * VOCAB);
                if (!(error <= 1e-5)) fail_msg("%s: states, batches of %d: relative error %.3g", gpu_names[d], batches[k], error);
                free(got);
                be->close(ctx);
            }
        free(want);
        program_free(p);
        for (int k = 0; k < m.n; k++) tensor_free(&m.kept[k]);
    }
}

/* Prompts of one sequence, whose attention goes another way; the weights are f32, so that only it rounds. */
static void prompts(void **state)
{
    (void)state;
    static const struct shape two[] = {
        {64, 6, 2, 64, 64, 64, 40, ROPE_INTERLEAVED, ROPE_SCALING_NONE, false, true, false, false, ACTIVATION_SILU, .window = 0},
        {40, 2, 1, 128, 128, 32, 40, ROPE_HALVES, ROPE_SCALING_NONE, true, false, true, false, ACTIVATION_SILU, .window = 0},
    };
    static struct net m;
    static struct timeline l;
    l = (struct timeline){0};
    for (int i = 0; i < 131; i++) timeline_add(&l, 0, i, (i * 29 + 3) % VOCAB, true);
    for (size_t i = 0; i < COUNT_OF(two); i++) {
        build(&m, &two[i]);
        void *ref;
        struct backend_params params = {.n_threads = 1, .max_batch = 131};
        double *want;
        OK(backend_ref.open(&ref, &m.p, &params));
        free(compute(&backend_ref, ref, VOCAB, &l, 131, &want));
        backend_ref.close(ref);
        for (size_t d = 0; d < COUNT_OF(gpu_names); d++)
            for (int batch = 57; batch <= 131; batch += 74) {
                void *ctx = gpu_ctx(d, &m.p, KG_ACT_INT8, KG_KV_F16, batch);
                if (!ctx) continue;
                const struct backend *be = backend_find(gpu_names[d]);
                float *got = compute(be, ctx, VOCAB, &l, batch, NULL);
                double error = relative_error(got, want, (size_t)l.n_wanted * VOCAB);
                if (!(error <= 1e-3)) fail_msg("%s: prompt %zu in batches of %d: relative error %.3g", gpu_names[d], i, batch, error);
                free(got);
                be->close(ctx);
            }
        free(want);
        program_free(&m.p);
        for (int k = 0; k < m.n; k++) tensor_free(&m.kept[k]);
    }
}

/* Batches of many tokens, of one, of a few and across the border of both. */
static void check_bits(size_t d, const struct program *p, const char *what, kg_activations act, kg_kv_type kv)
{
    static const int batches[] = {64, 1, 9, 5};
    static struct timeline l;
    make_timeline(&l);
    if (gpu_quick(d)) { /* one sequence, three blocks of the cache */
        l = (struct timeline){0};
        for (int i = 0; i < 70; i++) timeline_add(&l, 0, i, (i * 31 + 7) % VOCAB, i % 3 == 0);
    }
    void *ctx = gpu_ctx(d, p, act, kv, 64);
    if (!ctx) return;
    const struct backend *be = backend_find(gpu_names[d]);
    const size_t n_bytes = (size_t)l.n_wanted * (size_t)p->n_vocab * sizeof(float);
    float *first = compute(be, ctx, p->n_vocab, &l, batches[0], NULL);
    for (size_t k = 1; k < (gpu_quick(d) ? 3 : COUNT_OF(batches)); k++) {
        float *got = compute(be, ctx, p->n_vocab, &l, batches[k], NULL);
        if (memcmp(first, got, n_bytes) != 0)
            fail_msg("%s: %s, activations %d, cache type %d: batches of %d and of %d differ", gpu_names[d], what, (int)act, (int)kv, batches[0], batches[k]);
        free(got);
    }
    free(first);
    be->close(ctx);
}

/* --deterministic: the logits of a token have the same bits in any batch. */
static void deterministic(void **state)
{
    (void)state;
    static struct net m;
    static struct small quantized;
    gpu_deterministic = true;
    small_build(&quantized);
    for (size_t d = 0; d < COUNT_OF(gpu_names); d++)
        for (int i = 0; i < 6; i++)
            if (!gpu_quick(d) || i == 0) check_bits(d, &quantized.p, "quantized", (kg_activations)(i / 3), (kg_kv_type)(i % 3));
    small_free(&quantized);
    for (size_t i = 0; i < COUNT_OF(shapes); i++) {
        build(&m, &shapes[i]);
        for (size_t d = 0; d < COUNT_OF(gpu_names); d++)
            for (int kv = KG_KV_F16; kv <= KG_KV_Q8_0; kv++)
                if (!gpu_quick(d) || (i == 0 && kv == KG_KV_Q8_0)) check_bits(d, &m.p, "program", KG_ACT_INT8, (kg_kv_type)kv);
        program_free(&m.p);
        for (int k = 0; k < m.n; k++) tensor_free(&m.kept[k]);
    }
    gpu_deterministic = false;
}

/* ---- the highest logits ---- */

static int higher(const void *a, const void *b)
{
    const struct batch_top *x = a, *y = b;
    return x->logit != y->logit ? (x->logit > y->logit ? -1 : 1) : x->id - y->id;
}

/* Against all logits, sorted: equal ones (every row of the output is there twice, some are zero), ones that are not finite, more asked for than there are, one
 * token and several. */
static void tops(void **state)
{
    (void)state;
    enum { DIM = 64, MANY = 1001, FEW = 90 };
    for (int few = 0; few < 2; few++) {
        const int vocab = few ? FEW : MANY;
        static const int32_t blocks[] = {0};
        struct tensor embed = normal_tensor("embed", DIM, vocab, 1, 0), w = normal_tensor("w", DIM, vocab, 1, 0);
        float *rows = (float *)(uintptr_t)w.data;
        for (int i = 0; i < vocab / 2; i++) {
            if (i % 7 == 0) memset(rows + i * DIM, 0, DIM * sizeof *rows);
            memcpy(rows + (i + vocab / 2) * DIM, rows + i * DIM, DIM * sizeof *rows);
        }
        rows[3 * DIM] = INFINITY;
        rows[5 * DIM + 1] = NAN;
        struct program p = {.n_layers = 1, .dim = DIM, .n_vocab = vocab, .n_ctx = 64};
        int x = program_reg(&p, DIM), s = program_reg(&p, DIM), logits = program_reg(&p, vocab);
        program_embed(&p, x, &embed);
        program_select(&p, s, x);
        program_matmul(&p, logits, s, &w, NULL);
        program_logits(&p, logits);
        OK(program_finish(&p));
        for (size_t d = 0; d < COUNT_OF(gpu_names); d++) {
            void *ctx = gpu_ctx(d, &p, KG_ACT_F32, KG_KV_F16, 8);
            if (!ctx) continue;
            const struct backend *be = backend_find(gpu_names[d]);
            OK(be->kv_reserve(ctx, 1));
            for (int n = 1; n <= 3; n += 2)
                for (int k = 1; k <= be->most_top; k += k == 1 ? 39 : 88) {
                    static float all[3 * MANY];
                    static struct batch_top want[MANY], got[3 * 128];
                    struct batch_token tokens[3] = {{7, 0, 0, true}, {8, 1, 0, true}, {9, 2, 0, true}};
                    struct batch batch = {.tokens = tokens, .n = n, .seqs = &(struct batch_seq){.blocks = blocks}, .n_seqs = 1, .logits = all};
                    OK(be->run(ctx, &batch));
                    batch.top = got;
                    batch.n_top = k;
                    for (int again = 0; again < 3; again++) OK(be->run(ctx, &batch)); /* plainly, recorded, replayed */
                    for (int t = 0; t < n; t++) {
                        int m = 0;
                        for (int i = 0; i < vocab; i++)
                            if (isfinite(all[t * vocab + i])) want[m++] = (struct batch_top){all[t * vocab + i], i};
                        qsort(want, (size_t)m, sizeof *want, higher);
                        for (int i = 0; i < k; i++)
                            if (got[t * k + i].id != (i < m ? want[i].id : -1)) fail_msg("%s: %d of %d: the highest but %d is %d", gpu_names[d], k, vocab, i, (int)got[t * k + i].id);
                    }
                }
            be->close(ctx);
        }
        program_free(&p);
        tensor_free(&embed);
        tensor_free(&w);
    }
}

/* One token's attention on matrix operations (an f16 cache, the usual activations): positions beyond the first, several heads of a group, parts of the positions. */
static void long_texts(void **state)
{
    (void)state;
    static const struct shape long_shapes[] = {
        {32, 4, 1, 64, 64, 64, 32, ROPE_HALVES, ROPE_SCALING_NONE, false, true, false, false, ACTIVATION_SILU, .window = 0},
        {32, 2, 1, 128, 128, 96, 32, ROPE_INTERLEAVED, ROPE_SCALING_NONE, false, true, false, false, ACTIVATION_SILU, .window = 0},
        {32, 3, 3, 64, 64, 0, 32, ROPE_HALVES, ROPE_SCALING_NONE, false, true, false, false, ACTIVATION_SILU, .window = 0},
    };
    static const int ends[] = {30, 140, 270, 540, 540};
    static struct net m;
    static struct timeline text, more, all;
    for (size_t i = 0; i < COUNT_OF(long_shapes); i++)
        for (size_t e = 0; e < COUNT_OF(ends); e++) {
            const bool some = gpu_quick(0) && i != e % COUNT_OF(long_shapes); /* not for the slow ones */
            if (some && !getenv("KAGARI_TEST_GPU")) continue;
            build(&m, &long_shapes[i]);
            text = more = all = (struct timeline){0};
            for (int t = 0; t < ends[e] + 5; t++) {
                const int id = (t * 31 + 7) % VOCAB;
                timeline_add(&all, 0, t, id, t >= ends[e]);
                timeline_add(t < ends[e] ? &text : &more, 0, t, id, t >= ends[e]);
            }
            void *ref;
            struct backend_params params = {.n_threads = 1, .max_batch = 64};
            double *want;
            OK(backend_ref.open(&ref, &m.p, &params));
            free(compute(&backend_ref, ref, VOCAB, &all, 64, &want));
            backend_ref.close(ref);
            for (size_t d = 0; d < COUNT_OF(gpu_names); d++) {
                if (gpu_quick(d) && some) continue;
                void *ctx = gpu_ctx(d, &m.p, KG_ACT_INT8, KG_KV_F16, 64);
                if (!ctx) continue;
                const struct backend *be = backend_find(gpu_names[d]);
                free(compute(be, ctx, VOCAB, &text, 64, NULL));
                float *got = compute(be, ctx, VOCAB, &more, 1, NULL);
                double error = relative_error(got, want, (size_t)all.n_wanted * VOCAB), bound = be->error_bound(ctx);
                if (!(error <= bound)) fail_msg("%s: program %zu, %d positions: relative error %.3g, bound %.3g", gpu_names[d], i, ends[e], error, bound);
                free(got);
                be->close(ctx);
            }
            free(want);
            program_free(&m.p);
            for (int k = 0; k < m.n; k++) tensor_free(&m.kept[k]);
        }
}

static int start(void **state)
{
    (void)state;
    rng_start();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(prompts), cmocka_unit_test(programs), cmocka_unit_test(sides), cmocka_unit_test(states), cmocka_unit_test(deterministic), cmocka_unit_test(embeddings), cmocka_unit_test(matmuls), cmocka_unit_test(tops), cmocka_unit_test(long_texts)};
    return cmocka_run_group_tests(tests, start, NULL);
}
