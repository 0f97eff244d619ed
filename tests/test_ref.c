/* layers: ref */
/* The reference engine: every op against numbers that numpy computed from the formulas of program.h (inputs: value() below; RoPE
 * frequencies by the formulas of Hugging Face's modeling_rope_utils), batches against single steps, and whole models against
 * float64 logits computed elsewhere. */
#include "backend/ref/ref.h"
#include "model/model.h"

#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* ---- numbers by numpy ---- */

static const double want_rms[15] = {-0.208721358602024, -1.7982147818020529, -0.06422195649293046, 1.56541018951518,
    0.15252714667070985, 0.1565388851314053, 2.410698831023641, 0.027394304897995925, -2.935104096213849, -0.031307777026281056,
    -0.318229161578766, -0.07955729039469149, 0.08523995399431232, -0.17047990798862464, -0.15343191718976218};
static const double want_layer[15] = {1.1601841232604893, -2.9821717952278464, 1.0745039756461405, 1.2110652683889516,
    1.0633261590456828, 1.5641523180913657, 1.259494250496355, 1.1754960243538595, -3.3335769234584074, 0.8613420616302446,
    0.9176138390762398, -0.3090674291147299, 1.1966906423105637, -1.5448961658528075, 0.8117475618486836};
static const double want_matmul[15] = {-2.625, 13.06640625, 0.1640625, -7.01953125, -9.9140625, -2.625, 11.48046875, 0.328125,
    -8.44140625, -6.25, -2.625, -6.78515625, -3.796875, 12.7734375, 3.37109375};
static const double want_pos[15] = {-1.0625, 2.5625, -1.4375, 2.1875, -1.8125, 1.8125, -2.1875, 1.4375, -2.5625, 1.0625, -2.9375,
    0.6875, 0.5, 0.3125, 0.125};
static const double want_act[35] = {-0.24972838870302688, 0.7310585786300049, -0.2689414213699951, 0.5627716112969732,
    -0.27752629883542285, -0.16929302265991744, 0.8411919906082768, -0.1588080093917233, 0.6432069773400825, -0.13976003509512158,
    -0.16920506954658854, 0.8413447460685429, -0.15865525393145707, 0.6432949304534115, -0.1395493335981918, 0.0, 1.0, 0.0, 0.8125,
    0.0, 0.0, 1.0, 0.0, 0.66015625, 0.0, 0.30735801686526387, 0.7310585786300049, 0.2689414213699951, 0.6926419831347361, 0.2337063569140403,
    -0.6709670742068737, 0.7615941559557649, -0.7615941559557649, 0.6709670742068737, -0.8298019099859595};
static const double freq_none[8] = {1.0, 0.2810913475705226, 0.08, 0.022998382983042756, 0.006666666666666667, 0.0019460170216420796,
    0.0005714285714285715, 0.00016865480854231357};
static const double freq_linear[8] = {0.2857142857142857, 0.0803118135915779, 0.022857142857142857, 0.006570966566583645,
    0.001904761904761905, 0.0005560048633263085, 0.00016326530612244898, 4.818708815494673e-05};
static const double freq_llama3[8] = {1.0, 0.31622776601683794, 0.1, 0.03162277660168379, 0.01, 0.0013743247767764465, 0.000125,
    3.952847075210474e-05};
static const double freq_llama3_factors[8] = {1.0, 0.2810913475705226, 0.08, 0.022998382983042756, 0.006666666666666667,
    0.00039570967246096674, 7.142857142857143e-05, 2.1081851067789197e-05};
static const double freq_yarn[8] = {1.0, 0.31622776601683794, 0.1, 0.02569350598886808, 0.00625, 0.001383496476323666, 0.00025,
    7.905694150420948e-05};
static const double freq_yarn_factors[8] = {0.8125, 0.22838671990104964, 0.065, 0.01545203856673185, 0.003541666666666667,
    0.0007601628990789374, 0.00014285714285714287, 4.2163702135578394e-05};
static const double want_rope_interleaved[42] = {-2.2685603531338723, 0.6609142058731349, 2.1663311375869254, -0.10408272518409015,
    1.375, -0.625, 1.1875, 0.8865272570194199, -1.476526474943394, -1.545250694496987, 0.7604349412038626, -1.1875, 0.625, -1.375,
    -1.962824717298974, 0.9225740840282752, 1.010495035556059, -2.135901085362418, 0.0625, 1.875, -0.125, -1.7904664317655399,
    -1.4340052769828857, 2.112918882512358, -0.04596440570012016, 1.3125, -0.6875, 1.125, 0.8698702740447146, 1.476980313566784,
    -1.6886734918293502, 0.412643409341976, -1.25, 0.5625, -1.4375, -1.9406439805569917, -1.096779604613786, 1.120560473835168,
    -2.162513870885592, 0.0, 1.8125, -0.1875};
static const double want_rope_halves[42] = {-2.610447020890693, -0.19526955672003488, -1.73750711240935, -0.6445949583764945, 1.375,
    -0.625, 1.1875, 1.2637815110959114, 1.0606535199106935, 1.1700073935062447, 1.3568622330023776, -1.1875, 0.625, -1.375,
    -0.1293449235541427, -1.303966346242424, -0.6609861956930768, -2.8518478890742673, 0.0625, 1.875, -0.125, 0.04301336197929118,
    -0.20154249928612486, -3.0175655567042377, -0.7619112094119692, 1.3125, -0.6875, 1.125, -1.6936093269514427, 0.7988402466059507,
    0.7186699388873915, 1.3917949247702337, -1.25, 0.5625, -1.4375, 0.3825094078457758, -1.1337488516218233, -0.4095608275605865,
    -3.0498699317424505, 0.0, 1.8125, -0.1875};
static const double want_attention[60] = {-1.8984375, 1.80859375, -2.82421875, -1.9765625, 1.73046875, -1.8984375, 1.80859375,
    -2.82421875, -1.9765625, 1.73046875, -2.90234375, -2.0546875, 1.65234375, -2.98046875, -2.1328125, -2.90234375, -2.0546875,
    1.65234375, -2.98046875, -2.1328125, -1.6570029610891828, -0.7891363435267698, 0.26957356555118084, -1.721934816886406,
    -0.8540681993239929, -1.6566086317008757, -0.7933791553605251, 0.27462658421555636, -1.7215189394440928, -0.8582894631037422,
    -0.8598598361966641, -1.0321445979303046, -0.038017671657198326, -0.9293118684098134, -1.1015966301434537, -0.8561674942657737,
    -1.030296075154712, -0.041073456974949935, -0.9256038477446091, -1.0997324286335475, -1.4794749294670848, 0.2289563694749619,
    -0.32384479294009283, -1.474788493998046, 0.23364280494400072, -1.47880342944821, 0.2928922091627637, -0.3849448412558112,
    -1.4726242026448384, 0.29907143596613517, 3.5418472074871965, 1.0135809313765005, -3.468180249100565, 3.5121965861835727,
    0.9839303100728761, 3.4977545761793305, 0.985400417592377, -3.4234657611177726, 3.468732921105598, 0.9563787625186447};

/* ---- small programs ---- */

/* A matrix {ne0, ne1} of F32: item i is ((29 i + 17 seed) mod 61 - 30) / 16. */
static const struct tensor *value(struct program *p, int seed, int ne0, int ne1)
{
    int n = ne0 * ne1;
    float *data = arena_array(&p->arena, (size_t)n, sizeof *data);
    struct tensor *t = arena_alloc(&p->arena, sizeof *t);
    assert_true(data && t);
    for (int i = 0; i < n; i++) data[i] = (float)((i * 29 + seed * 17) % 61 - 30) / 16;
    *t = (struct tensor){"value", TYPE_F32, 2, {ne0, ne1, 1, 1}, data, (size_t)n * sizeof *data};
    return t;
}

static struct program new_program(int dim, int n_vocab)
{
    return (struct program){.n_layers = 1, .dim = dim, .n_vocab = n_vocab, .n_ctx = 9};
}

/* Takes register `reg`, n_vocab wide, as the logits. */
static void finish(struct program *p, int reg)
{
    int selected = program_reg(p, p->n_vocab);
    program_select(p, selected, reg);
    program_logits(p, selected);
    if (program_finish(p) != KG_OK) fail_msg("%s", kg_error_message());
}

static void *open_backend(const struct program *p, int max_batch, int n_blocks)
{
    void *ctx;
    struct backend_params params = {.n_threads = 1, .max_batch = max_batch};
    assert_int_equal(backend_ref.open(&ctx, p, &params), KG_OK);
    assert_int_equal(backend_ref.kv_reserve(ctx, n_blocks), KG_OK);
    return ctx;
}

/* Runs n tokens of one sequence from `pos` on; the logits of all into f64[n][n_vocab]. */
static void run_all(void *ctx, const struct program *p, const int32_t *ids, int n, int pos, const int32_t *blocks, double *f64)
{
    struct batch_token tokens[256];
    assert_true(n <= 256);
    for (int i = 0; i < n; i++) tokens[i] = (struct batch_token){ids[i], pos + i, 0, true};
    float *f32 = malloc((size_t)n * (size_t)p->n_vocab * sizeof *f32);
    struct batch batch = {.tokens = tokens, .n = n, .seqs = &(struct batch_seq){.blocks = blocks}, .n_seqs = 1, .logits = f32, .logits_f64 = f64};
    if (backend_ref.run(ctx, &batch) != KG_OK) fail_msg("%s", kg_error_message());
    for (int i = 0; i < n * p->n_vocab; i++) assert_true(f32[i] == (float)f64[i] || isnan(f32[i]));
    free(f32);
}

static void assert_close(const double *got, const double *want, int n)
{
    for (int i = 0; i < n; i++)
        if (!(fabs(got[i] - want[i]) <= 1e-12 * fmax(fabs(want[i]), 1e-2))) fail_msg("item %d: %.17g, wanted %.17g", i, got[i], want[i]);
}

/* The logits of tokens ids[0..n) at positions from `pos` on are `want`. Frees the program. */
static void check_program(struct program *p, const int32_t *ids, int n, int pos, const double *want)
{
    double *got = malloc((size_t)n * (size_t)p->n_vocab * sizeof *got);
    void *ctx = open_backend(p, n, 1);
    run_all(ctx, p, ids, n, pos, (int32_t[]){0}, got);
    assert_close(got, want, n * p->n_vocab);
    backend_ref.close(ctx);
    free(got);
    program_free(p);
}

static const int32_t id_012[3] = {0, 1, 2};

static void test_embed_norms(void **state)
{
    (void)state;
    for (int layer_norm = 0; layer_norm < 2; layer_norm++) {
        struct program p = new_program(5, 5);
        int x = program_reg(&p, 5), y = program_reg(&p, 5);
        program_embed(&p, x, value(&p, 1, 5, 5));
        if (layer_norm) program_layer_norm(&p, y, x, value(&p, 2, 5, 1), value(&p, 3, 5, 1), 1e-3);
        else program_rms_norm(&p, y, x, value(&p, 2, 5, 1), NULL, 1e-3);
        finish(&p, y);
        check_program(&p, id_012, 3, 0, layer_norm ? want_layer : want_rms);
    }
}

static void test_matmul(void **state)
{
    (void)state;
    struct program p = new_program(11, 5);
    int x = program_reg(&p, 11), y = program_reg(&p, 5);
    program_embed(&p, x, value(&p, 1, 11, 5));
    program_matmul(&p, y, x, value(&p, 4, 11, 5), value(&p, 5, 5, 1));
    finish(&p, y);
    check_program(&p, id_012, 3, 0, want_matmul);
}

static void test_pos_embed(void **state)
{
    (void)state;
    struct program p = new_program(5, 5);
    int x = program_reg(&p, 5);
    program_embed(&p, x, value(&p, 1, 5, 5));
    program_pos_embed(&p, x, x, value(&p, 6, 5, 9));
    finish(&p, x);
    check_program(&p, id_012, 3, 2, want_pos);
}

/* ACT, and GLU and ADD with the numbers of ACT and of the embedding. */
static void test_activations(void **state)
{
    (void)state;
    for (int f = 0; f < ACTIVATION_SWIGLU_OAI; f++) {
        double embed[5], glu[5], add[5];
        for (int i = 0; i < 5; i++) {
            embed[i] = ((i * 29 + 17) % 61 - 30) / 16.0;
            add[i] = embed[i] + want_act[5 * f + i];
            glu[i] = want_act[5 * f + i] * add[i];
        }
        const double *const wants[3] = {want_act + 5 * f, add, glu};
        for (int depth = 0; depth < 3; depth++) {
            struct program p = new_program(5, 5);
            int x = program_reg(&p, 5), y = program_reg(&p, 5);
            program_embed(&p, x, value(&p, 1, 5, 5));
            program_act(&p, y, x, (enum activation)f);
            if (depth > 0) program_add(&p, y, x, y);
            if (depth > 1) program_glu(&p, y, x, y, (enum activation)f);
            finish(&p, y);
            check_program(&p, id_012, 1, 0, wants[depth]);
        }
    }
}

static void test_rope_frequencies(void **state)
{
    (void)state;
    float factors[8];
    double freq[8];
    for (int i = 0; i < 8; i++) factors[i] = (float)(1 + i / 8.0);
    struct tensor t = {"rope_freqs", TYPE_F32, 1, {8, 1, 1, 1}, factors, sizeof factors};
    struct rope rope = {.n_heads = 1, .head_dim = 20, .n_rot = 16, .base = 10000, .factors = &t, .factor = 3.5};
    assert_true(ref_rope_freq(&rope, freq) == 1);
    assert_close(freq, freq_none, 8);
    rope.scaling = ROPE_SCALING_LINEAR;
    assert_true(ref_rope_freq(&rope, freq) == 1);
    assert_close(freq, freq_linear, 8);

    rope.scaling = ROPE_SCALING_LLAMA3, rope.factor = 8, rope.orig_ctx = 4096, rope.low_freq = 1, rope.high_freq = 4;
    assert_true(ref_rope_freq(&rope, freq) == 1);
    assert_close(freq, freq_llama3_factors, 8);
    rope.factors = NULL;
    ref_rope_freq(&rope, freq);
    assert_close(freq, freq_llama3, 8);

    rope.scaling = ROPE_SCALING_YARN, rope.factor = 4, rope.orig_ctx = 2048, rope.beta_fast = 32, rope.beta_slow = 1;
    rope.ext_factor = 1, rope.attn_factor = 1;
    assert_true(fabs(ref_rope_freq(&rope, freq) - 1.1386294361119891) < 1e-15); /* 1 + 0.1 ln 4 */
    assert_close(freq, freq_yarn, 8);
    rope.factors = &t, rope.ext_factor = 0.75, rope.attn_factor = 0.5;
    assert_true(fabs(ref_rope_freq(&rope, freq) - 1.1386294361119891 / 2) < 1e-15);
    assert_close(freq, freq_yarn_factors, 8);
}

/* Both styles; two heads of 7, of which 4 turn, at positions 3 to 5. */
static void test_rope(void **state)
{
    (void)state;
    for (int halves = 0; halves < 2; halves++) {
        struct program p = new_program(14, 14);
        struct rope rope = {.style = halves ? ROPE_HALVES : ROPE_INTERLEAVED, .scaling = ROPE_SCALING_YARN, .n_heads = 2, .head_dim = 7, .n_rot = 4,
                            .base = 100, .factor = 2, .orig_ctx = 200, .beta_fast = 8, .beta_slow = 1, .ext_factor = 1, .attn_factor = 1.25};
        int x = program_reg(&p, 14);
        program_embed(&p, x, value(&p, 7, 14, 14));
        program_rope(&p, x, &rope);
        finish(&p, x);
        check_program(&p, id_012, 3, 3, halves ? want_rope_halves : want_rope_interleaved);
    }
}

/* Four heads of 3 (keys) and 5 (values), two key/value heads. */
static void test_attention(void **state)
{
    (void)state;
    struct program p = new_program(7, 20);
    int x = program_reg(&p, 7), q = program_reg(&p, 12), k = program_reg(&p, 6), v = program_reg(&p, 10), y = program_reg(&p, 20);
    program_embed(&p, x, value(&p, 8, 7, 20));
    program_matmul(&p, q, x, value(&p, 9, 7, 12), NULL);
    program_matmul(&p, k, x, value(&p, 10, 7, 6), NULL);
    program_matmul(&p, v, x, value(&p, 11, 7, 10), NULL);
    program_attention(&p, y, q, k, v, 4, 2, 3, 5, 0.03125);
    finish(&p, y);
    check_program(&p, (int32_t[]){4, 17, 0}, 3, 0, want_attention);
}

/* ---- batches, on a model of two layers with every kind of op ---- */

enum { DIM = 7, VOCAB = 23, N_LONG = 75 };

static struct program small_model(void)
{
    struct program p = {.n_layers = 2, .dim = DIM, .n_vocab = VOCAB, .n_ctx = 90, .ctx_is_hard = true};
    struct rope rope_q = {.style = ROPE_HALVES, .n_heads = 4, .head_dim = 3, .n_rot = 2, .base = 50};
    struct rope rope_k = rope_q;
    rope_k.n_heads = 2;
    int x = program_reg(&p, DIM), y = program_reg(&p, DIM), q = program_reg(&p, 12), k = program_reg(&p, 6), v = program_reg(&p, 10);
    int att = program_reg(&p, 20), gate = program_reg(&p, 13), up = program_reg(&p, 13), logits = program_reg(&p, VOCAB);
    program_embed(&p, x, value(&p, 1, DIM, VOCAB));
    program_pos_embed(&p, x, x, value(&p, 2, DIM, 90));
    for (int l = 0; l < 2; l++) {
        int seed = 10 * l;
        program_set_layer(&p, l);
        program_layer_norm(&p, y, x, value(&p, seed + 3, DIM, 1), value(&p, seed + 4, DIM, 1), 1e-5);
        program_matmul(&p, q, y, value(&p, seed + 5, DIM, 12), value(&p, seed + 6, 12, 1));
        program_matmul(&p, k, y, value(&p, seed + 7, DIM, 6), NULL);
        program_matmul(&p, v, y, value(&p, seed + 8, DIM, 10), NULL);
        program_rope(&p, q, &rope_q);
        program_rope(&p, k, &rope_k);
        program_attention(&p, att, q, k, v, 4, 2, 3, 5, 0.1);
        program_matmul(&p, y, att, value(&p, seed + 9, 20, DIM), NULL);
        program_add(&p, x, x, y);
        program_rms_norm(&p, y, x, value(&p, seed + 10, DIM, 1), NULL, 1e-5);
        program_matmul(&p, gate, y, value(&p, seed + 11, DIM, 13), NULL);
        program_matmul(&p, up, y, value(&p, seed + 12, DIM, 13), NULL);
        program_glu(&p, gate, gate, up, ACTIVATION_SILU);
        program_matmul(&p, y, gate, value(&p, seed + 13, 13, DIM), NULL);
        program_add(&p, x, x, y);
        program_tap(&p);
    }
    program_set_layer(&p, -1);
    program_select(&p, y, x);
    program_matmul(&p, logits, y, value(&p, 1, DIM, VOCAB), NULL);
    program_logits(&p, logits);
    if (program_finish(&p) != KG_OK) fail_msg("%s", kg_error_message());
    return p;
}

static void fill_ids(int32_t *ids, int n, int seed)
{
    for (int i = 0; i < n; i++) ids[i] = (i * i + 3 * i * seed + seed) % VOCAB;
}

/* A prompt in one batch, in uneven chunks and in single steps; blocks out of order; the pool grows in between. */
static void test_prefill_is_steps(void **state)
{
    (void)state;
    static const int32_t blocks[3] = {2, 0, 1};
    static double whole[N_LONG][VOCAB], part[N_LONG][VOCAB];
    int32_t ids[N_LONG];
    fill_ids(ids, N_LONG, 5);
    struct program p = small_model();
    void *ctx = open_backend(&p, N_LONG, 3);
    run_all(ctx, &p, ids, N_LONG, 0, blocks, whole[0]);
    backend_ref.close(ctx);
    assert_true(whole[N_LONG - 1][0] != 0 && whole[1][3] != whole[2][3]);

    static const int chunks[] = {1, 31, 40};
    for (size_t c = 0; c < COUNT_OF(chunks); c++) {
        static const int32_t grown[3] = {0, 2, 1};
        ctx = open_backend(&p, 40, 1);
        for (int i = 0; i < N_LONG; i += chunks[c]) {
            int n = MIN(chunks[c], N_LONG - i);
            assert_int_equal(backend_ref.kv_reserve(ctx, i + n <= KV_BLOCK ? 1 : 3), KG_OK);
            run_all(ctx, &p, ids + i, n, i, grown, part[i]);
        }
        assert_memory_equal(part, whole, sizeof whole);
        backend_ref.close(ctx);
    }
    program_free(&p);
}

/* Two sequences in turns and in one batch, their tokens mixed, only some wanting logits: as each one alone. */
static void test_sequences_do_not_mix(void **state)
{
    (void)state;
    enum { N = 40 };
    static double alone[2][N][VOCAB], f64[2 * N][VOCAB];
    static float f32[2 * N][VOCAB];
    static const int32_t blocks[2][2] = {{3, 1}, {0, 2}};
    int32_t ids[2][N];
    struct program p = small_model();
    for (int s = 0; s < 2; s++) {
        fill_ids(ids[s], N, s + 2);
        void *ctx = open_backend(&p, N, 4);
        run_all(ctx, &p, ids[s], N, 0, blocks[s], alone[s][0]);
        backend_ref.close(ctx);
    }
    struct batch_token tokens[2 * N];
    int n = 0;
    for (int i = 0; i < N; i++)
        for (int s = 0; s < 2; s++) tokens[n++] = (struct batch_token){ids[s][i], i, s, (i + s) % 3 == 0};
    struct batch_seq seqs[2] = {{.blocks = blocks[0]}, {.blocks = blocks[1]}};
    static const int sizes[] = {2 * N, 2, 7};
    for (size_t c = 0; c < COUNT_OF(sizes); c++) {
        void *ctx = open_backend(&p, sizes[c], 4);
        for (int first = 0; first < n; first += sizes[c]) {
            struct batch batch = {.tokens = tokens + first, .n = MIN(sizes[c], n - first), .seqs = seqs, .n_seqs = 2, .logits = f32[0], .logits_f64 = f64[0]};
            assert_int_equal(backend_ref.run(ctx, &batch), KG_OK);
            for (int i = 0, out = 0; i < batch.n; i++)
                if (batch.tokens[i].want_logits)
                    assert_memory_equal(f64[out++], alone[batch.tokens[i].seq][batch.tokens[i].pos], sizeof f64[0]);
        }
        backend_ref.close(ctx);
    }
    program_free(&p);
}

/* A copied block continues as the original would have, and neither sees what the other writes. */
static void test_kv_copy(void **state)
{
    (void)state;
    enum { N = 20 };
    static double want[N][VOCAB], other[N][VOCAB], got[N][VOCAB];
    int32_t ids[N], ids_other[N];
    fill_ids(ids, N, 4);
    memcpy(ids_other, ids, sizeof ids);
    for (int i = 12; i < N; i++) ids_other[i] = (ids[i] + 1) % VOCAB;
    struct program p = small_model();
    void *ctx = open_backend(&p, N, 3);
    assert_int_equal(backend_ref.kv_block_bytes(ctx), 2 * KV_BLOCK * (6 + 10) * sizeof(double));
    run_all(ctx, &p, ids, N, 0, (int32_t[]){0}, want[0]);
    run_all(ctx, &p, ids_other, N, 0, (int32_t[]){0}, other[0]);
    run_all(ctx, &p, ids, 12, 0, (int32_t[]){1}, got[0]);
    assert_int_equal(backend_ref.kv_copy(ctx, 2, 1), KG_OK);
    run_all(ctx, &p, ids_other + 12, N - 12, 12, (int32_t[]){2}, got[12]);
    assert_memory_equal(got[12], other[12], (N - 12) * sizeof got[0]);
    run_all(ctx, &p, ids + 12, N - 12, 12, (int32_t[]){1}, got[12]);
    assert_memory_equal(got, want, sizeof want);
    assert_int_equal(backend_ref.kv_copy(ctx, 3, 1), KG_ERR_ARGUMENT);
    backend_ref.close(ctx);
    program_free(&p);
}

struct taps {
    int n_calls, n_rows, layers;
    double last[DIM];
};

static void on_tap(void *ctx, const struct op *op, int n, int width, const float *f32, const double *f64)
{
    struct taps *taps = ctx;
    assert_true(op->tap && f64 && !f32 && width == DIM);
    taps->n_calls++;
    taps->n_rows += n;
    taps->layers |= 1 << op->layer;
    if (n) memcpy(taps->last, f64 + (size_t)(n - 1) * DIM, sizeof taps->last);
}

/* Taps see every token of every layer, of the last one those that want logits; a batch without wanted logits writes none. */
static void test_taps_without_logits(void **state)
{
    (void)state;
    struct program p = small_model();
    void *ctx = open_backend(&p, 5, 1);
    struct batch_token tokens[5];
    for (int i = 0; i < 5; i++) tokens[i] = (struct batch_token){i, i, 0, false};
    struct taps taps = {0};
    struct batch batch = {.tokens = tokens, .n = 5, .seqs = &(struct batch_seq){.blocks = (int32_t[]){0}}, .n_seqs = 1, .tap = on_tap, .tap_ctx = &taps};
    assert_int_equal(backend_ref.run(ctx, &batch), KG_OK);
    assert_true(taps.n_calls == 2 && taps.n_rows == 5 && taps.layers == 3);

    float f32[VOCAB];
    double f64[VOCAB];
    tokens[4].want_logits = true;
    batch.logits = f32;
    batch.logits_f64 = f64;
    assert_int_equal(backend_ref.run(ctx, &batch), KG_OK);
    const struct tensor *w = value(&p, 1, DIM, VOCAB);
    for (int o = 0; o < VOCAB; o++) {
        double sum = 0;
        for (int i = 0; i < DIM; i++) sum += (double)((const float *)w->data)[o * DIM + i] * taps.last[i];
        assert_true(fabs(sum - f64[o]) < 1e-12 * 10 && f32[o] == (float)f64[o]);
    }
    backend_ref.close(ctx);
    program_free(&p);
}

/* A NaN in one sequence stays in it. */
static void test_nan(void **state)
{
    (void)state;
    struct program p = small_model();
    ((float *)p.ops[0].w->data)[3 * DIM + 2] = NAN; /* token 3 */
    void *ctx = open_backend(&p, 4, 2);
    struct batch_token tokens[4] = {{1, 0, 0, true}, {3, 0, 1, true}, {2, 1, 0, true}, {2, 1, 1, true}};
    struct batch_seq seqs[2] = {{.blocks = (int32_t[]){0}}, {.blocks = (int32_t[]){1}}};
    float f32[4][VOCAB];
    double f64[4][VOCAB];
    struct batch batch = {.tokens = tokens, .n = 4, .seqs = seqs, .n_seqs = 2, .logits = f32[0], .logits_f64 = f64[0]};
    assert_int_equal(backend_ref.run(ctx, &batch), KG_OK);
    for (int o = 0; o < VOCAB; o++)
        if (o != 3) assert_true(isfinite(f64[0][o]) && isnan(f64[1][o]) && isfinite(f64[2][o]) && isnan(f64[3][o]));
    backend_ref.close(ctx);
    program_free(&p);
}

static void test_refusals(void **state)
{
    (void)state;
    struct program p = small_model();
    struct backend_params params = {.n_threads = 1, .max_batch = 0};
    void *ctx = &p;
    assert_int_equal(backend_ref.open(&ctx, &p, &params), KG_ERR_ARGUMENT);
    assert_null(ctx);
    params.max_batch = 2;
    ((struct tensor *)p.ops[3].w)->type = (enum tensor_type)5;
    assert_int_equal(backend_ref.open(&ctx, &p, &params), KG_ERR_UNSUPPORTED);
    assert_non_null(strstr(kg_error_message(), "matmul"));
    assert_non_null(strstr(kg_error_message(), "value"));
    ((struct tensor *)p.ops[3].w)->type = TYPE_F32;
    backend_ref.close(NULL);

    ctx = open_backend(&p, 2, 1);
    struct batch_token token = {.want_logits = true}, two[3] = {{0}};
    float f32[VOCAB];
    struct batch batch = {.tokens = &token, .n = 1, .seqs = &(struct batch_seq){.blocks = (int32_t[]){1, 7, 7}}, .n_seqs = 1, .logits = f32};
    assert_int_equal(backend_ref.run(ctx, &batch), KG_ERR_ARGUMENT); /* block 1 of 1 */
    batch.seqs = &(struct batch_seq){.blocks = (int32_t[]){0, 0, 0}};
    assert_int_equal(backend_ref.run(ctx, &batch), KG_OK);
    token.id = VOCAB;
    assert_int_equal(backend_ref.run(ctx, &batch), KG_ERR_ARGUMENT);
    token.id = -1;
    assert_int_equal(backend_ref.run(ctx, &batch), KG_ERR_ARGUMENT);
    token = (struct batch_token){.pos = 32};
    assert_int_equal(backend_ref.run(ctx, &batch), KG_ERR_ARGUMENT);
    token.pos = 90;
    assert_int_equal(backend_ref.run(ctx, &batch), KG_ERR_CONTEXT);
    batch.tokens = two;
    batch.n = 3;
    assert_int_equal(backend_ref.run(ctx, &batch), KG_ERR_ARGUMENT);
    assert_true(backend_ref.error_bound(ctx) == 0);
    backend_ref.close(ctx);
    program_free(&p);
}

/* ---- whole models against float64 logits computed by numpy ---- */

static char *read_file(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    fseek(f, 0, SEEK_END);
    long size = ftell(f);
    rewind(f);
    char *data = malloc((size_t)size + 1);
    assert_non_null(data);
    *n = fread(data, 1, (size_t)size, f);
    assert_int_equal(*n, size);
    data[size] = 0;
    fclose(f);
    return data;
}

/* Numbers separated by spaces or commas, until anything else. */
static int parse_ids(const char **s, int32_t *ids, int max)
{
    int n = 0;
    for (;;) {
        while (**s == ' ' || **s == ',') ++*s;
        if (**s < '0' || **s > '9') return n;
        assert_true(n < max);
        char *end;
        ids[n++] = (int32_t)strtol(*s, &end, 10);
        *s = end;
    }
}

/* Runs one prompt and compares its last logits: largest difference to largest logit, and Euclidean. */
static void check_prompt(const struct program *p, const int32_t *ids, int n, const double *want, double bound)
{
    int32_t blocks[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    struct batch_token tokens[256];
    double *got = malloc((size_t)p->n_vocab * sizeof *got);
    float *f32 = malloc((size_t)p->n_vocab * sizeof *f32);
    void *ctx = open_backend(p, n, 8);
    for (int i = 0; i < n; i++) tokens[i] = (struct batch_token){ids[i], i, 0, i == n - 1};
    struct batch batch = {.tokens = tokens, .n = n, .seqs = &(struct batch_seq){.blocks = blocks}, .n_seqs = 1, .logits = f32, .logits_f64 = got};
    assert_int_equal(backend_ref.run(ctx, &batch), KG_OK);
    double worst = 0, largest = 0, squares = 0, squares_want = 0;
    for (int o = 0; o < p->n_vocab; o++) {
        worst = fmax(worst, fabs(got[o] - want[o]));
        largest = fmax(largest, fabs(want[o]));
        squares += (got[o] - want[o]) * (got[o] - want[o]);
        squares_want += want[o] * want[o];
        assert_true(isfinite(got[o]) && f32[o] == (float)got[o]);
    }
    double relative = sqrt(squares / squares_want);
    print_message("    %3d tokens: largest difference %.2g of the largest logit, Euclidean %.2g\n", n, worst / largest, relative);
    assert_true(worst / largest < bound && relative < bound);
    backend_ref.close(ctx);
    free(got);
    free(f32);
}

/* Prompts are what follows each `mark` in the text file. */
static void check_model(const char *model_path, const char *ids_path, const char *mark, const char *logits_path, double bound, int n_prompts)
{
    size_t n_text, n_logits;
    char *text = read_file(ids_path, &n_text), *logits = read_file(logits_path, &n_logits);
    if (!text || !logits) {
        print_message("skipped: no %s\n", text ? logits_path : ids_path);
        free(text);
        free(logits);
        skip();
    }
    struct model model;
    if (model_open(&model, model_path) != KG_OK) fail_msg("%s", kg_error_message());
    int n_vocab = model.program.n_vocab, i = 0;
    assert_int_equal(n_logits, (size_t)n_prompts * (size_t)n_vocab * sizeof(double));
    for (const char *s = text; (s = strstr(s, mark)); i++) {
        int32_t ids[256];
        s += strlen(mark);
        int n = parse_ids(&s, ids, 256);
        if (n == 0) break;
        check_prompt(&model.program, ids, n, (const double *)logits + (size_t)i * (size_t)n_vocab, bound);
    }
    assert_int_equal(i, n_prompts);
    model_close(&model);
    free(text);
    free(logits);
}

static void test_stories_f16(void **state)
{
    (void)state;
    check_model(SHARED_DIR "/models/stories-f16.gguf", SHARED_DIR "/reference/stories.json", "\"ids\": [", SHARED_DIR "/reference/stories.logits.f64", 1e-12, 7);
}

static void test_gpt2_f16(void **state)
{
    (void)state;
    check_model(SHARED_DIR "/models/gpt2-f16.gguf", SHARED_DIR "/reference/gpt2.json", "\"ids\": [", SHARED_DIR "/reference/gpt2.logits.f64", 1e-12, 7);
}

/* The golden logits come from weights decoded to f32 (tools/reference_logits.py), but that loses nothing here: weights with binary16
 * scales are multiples of 2^-24, and those of this model are below 1, so 24 bits hold them. Larger ones would differ by 2^-24
 * of themselves and the bound be near 1e-6. */
static void test_stories_q4_k_m(void **state)
{
    (void)state;
    check_model(SOURCE_DIR "/models/stories-q4_k_m.gguf", SOURCE_DIR "/tests/golden/stories-q4_k_m.ids", "\n",
                SOURCE_DIR "/tests/golden/stories-q4_k_m.logits.f64", 1e-12, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_embed_norms),
        cmocka_unit_test(test_matmul),
        cmocka_unit_test(test_pos_embed),
        cmocka_unit_test(test_activations),
        cmocka_unit_test(test_rope_frequencies),
        cmocka_unit_test(test_rope),
        cmocka_unit_test(test_attention),
        cmocka_unit_test(test_prefill_is_steps),
        cmocka_unit_test(test_sequences_do_not_mix),
        cmocka_unit_test(test_kv_copy),
        cmocka_unit_test(test_taps_without_logits),
        cmocka_unit_test(test_nan),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_stories_f16),
        cmocka_unit_test(test_gpt2_f16),
        cmocka_unit_test(test_stories_q4_k_m),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
