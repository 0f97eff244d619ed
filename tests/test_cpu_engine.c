/* layers: run */
/* The CPU backend as a whole, on every tier: logits are the same bits whatever the threads, the batches and the sequences beside; they are as
 * near to the float64 reference as the backend promises; and greedy continuations are those of an implementation that shares no code.
 * Models: a tiny llama of random blocks for every tensor type, the model that ships, and those of SHARED_DIR. */
#include "backend/cpu/cpu.h"
#include "cpu_test.h"
#include "gguf_writer.h"
#include "run/run.h"

#include <fenv.h>

enum { N_A = 70, N_B = 41 }; /* tokens of the two sequences */

static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/kagari-test-engine-XXXXXX");
    rng_start();
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return rmdir(folder);
}

#define OK(expr)                                                       \
    do {                                                               \
        if ((expr) != KG_OK) fail_msg("%s: %s", #expr, kg_error_message()); \
    } while (0)

/* ---- an engine and what it computes ---- */

struct engine {
    const struct backend *backend;
    void *ctx;
    int n_vocab;
};

static struct engine engine_new(const struct model *m, const char *backend, int n_threads, kg_activations act, kg_kv_type kv)
{
    struct engine e = {.backend = backend_find(backend), .n_vocab = m->program.n_vocab};
    struct backend_params params = {.n_threads = n_threads, .kv_type = kv, .activations = act, .max_batch = 256};
    OK(e.backend->open(&e.ctx, &m->program, &params));
    return e;
}

static void engine_free(struct engine *e) { e->backend->close(e->ctx); }

/* Tokens of up to 8 sequences in the order in which they are computed. */
struct timeline {
    struct batch_token tokens[1024];
    int n, n_seqs, n_wanted;
};

static void timeline_add(struct timeline *l, int seq, int pos, int32_t id, bool want)
{
    l->tokens[l->n++] = (struct batch_token){id, pos, seq, want};
    l->n_seqs = MAX(l->n_seqs, seq + 1);
    l->n_wanted += want;
}

/* Runs it in batches of n_batch. Blocks of the sequences lie scattered. Returns the logits of the tokens that want some,
 * [n_wanted][n_vocab], in order; malloc'ed. f64 may be NULL. */
static float *compute(const struct engine *e, const struct timeline *l, int n_batch, double **f64)
{
    enum { MAX_BLOCKS = 16 };
    int32_t blocks[8][MAX_BLOCKS];
    struct batch_seq seqs[8];
    for (int s = 0; s < l->n_seqs; s++) {
        for (int i = 0; i < MAX_BLOCKS; i++) blocks[s][i] = (MAX_BLOCKS - 1 - i) * l->n_seqs + s;
        seqs[s].blocks = blocks[s];
    }
    OK(e->backend->kv_reserve(e->ctx, l->n_seqs * MAX_BLOCKS / 2)); /* grows on the way, as the pool does */
    OK(e->backend->kv_reserve(e->ctx, l->n_seqs * MAX_BLOCKS));
    const size_t n = (size_t)l->n_wanted * (size_t)e->n_vocab;
    float *logits = malloc((n + 1) * sizeof *logits);
    assert_non_null(logits);
    if (f64) assert_non_null(*f64 = malloc(n * sizeof **f64));
    logits[n] = 12345;
    size_t at = 0;
    for (int i = 0; i < l->n; i += n_batch) {
        struct batch b = {.tokens = l->tokens + i, .n = MIN(n_batch, l->n - i), .seqs = seqs, .n_seqs = l->n_seqs, .logits = logits + at,
                          .logits_f64 = f64 ? *f64 + at : NULL};
        OK(e->backend->run(e->ctx, &b));
        for (int t = 0; t < b.n; t++) at += b.tokens[t].want_logits ? (size_t)e->n_vocab : 0;
    }
    assert_true(at == n && logits[n] == 12345);
    return logits;
}

static double relative_error(const float *a, const double *r, size_t n)
{
    double diff = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        diff += ((double)a[i] - r[i]) * ((double)a[i] - r[i]);
        size += r[i] * r[i];
    }
    return sqrt(diff / size);
}

/* ---- same bits ---- */

/* Two sequences; some tokens want logits. alone: only the first one. */
static void make_timeline(struct timeline *l, int n_vocab, int n_a, int n_b, bool alone)
{
    *l = (struct timeline){0};
    for (int a = 0, b = 0, turn = 0; a < n_a || b < n_b; turn++) {
        for (int i = 0; i <= turn * 7 % 5 && a < n_a; i++, a++) timeline_add(l, 0, a, (a * 31 + 7) % n_vocab, a % 4 == 1 || a == n_a - 1);
        for (int i = 0; i <= turn * 3 % 4 && b < n_b; i++, b++)
            if (!alone) timeline_add(l, 1, b, (b * 17 + 5) % n_vocab, b % 5 == 2);
    }
}

/* The logits of sequence 0 among those of l. */
static float *first_sequence(const struct timeline *l, const float *logits, int n_vocab, int *n)
{
    float *out = malloc((size_t)l->n_wanted * (size_t)n_vocab * sizeof *out);
    assert_non_null(out);
    *n = 0;
    for (int i = 0, at = 0; i < l->n; i++) {
        if (!l->tokens[i].want_logits) continue;
        if (l->tokens[i].seq == 0) memcpy(out + (size_t)(*n)++ * (size_t)n_vocab, logits + (size_t)at * (size_t)n_vocab, (size_t)n_vocab * sizeof *out);
        at++;
    }
    return out;
}

/* Every combination of threads and batch sizes, or every `stride`-th, against one thread that takes token after token. */
static void check_bits(const struct model *m, const char *name, kg_activations act, kg_kv_type kv, int n_a, int n_b, int stride)
{
    static const int threads[] = {1, 2, 3, 5}, batches[] = {1, 3, 7, 32, 200};
    struct timeline both, alone;
    const int n_vocab = m->program.n_vocab;
    make_timeline(&both, n_vocab, n_a, n_b, false);
    make_timeline(&alone, n_vocab, n_a, n_b, true);
    struct engine e = engine_new(m, "cpu", 1, act, kv);
    float *want = compute(&e, &both, 1, NULL);
    int n_first, n_first2, turn = rng_below(stride);
    float *want_alone = first_sequence(&both, want, n_vocab, &n_first);
    engine_free(&e);
    for (size_t i = 0; i < COUNT_OF(threads); i++) {
        bool is_open = false;
        for (size_t j = 0; j < COUNT_OF(batches); j++) {
            if (turn++ % stride) continue;
            if (!is_open) e = engine_new(m, "cpu", threads[i], act, kv);
            is_open = true;
            float *got = compute(&e, &both, batches[j], NULL);
            if (memcmp(got, want, (size_t)both.n_wanted * (size_t)n_vocab * sizeof *got) != 0)
                fail_msg("%s on %s: %d threads and batches of %d differ from one by one", name, getenv("KAGARI_CPU"), threads[i], batches[j]);
            float *one = compute(&e, &alone, batches[j], NULL);
            float *one_first = first_sequence(&alone, one, n_vocab, &n_first2);
            assert_int_equal(n_first, n_first2);
            if (memcmp(one_first, want_alone, (size_t)n_first * (size_t)n_vocab * sizeof *got) != 0)
                fail_msg("%s on %s: %d threads, batches of %d: a sequence alone differs from itself beside another", name, getenv("KAGARI_CPU"), threads[i], batches[j]);
            free(got);
            free(one);
            free(one_first);
        }
        if (is_open) engine_free(&e);
    }
    free(want);
    free(want_alone);
}

/* ---- near the reference ---- */

/* Sequence 0 of l on the reference; malloc'ed. */
static double *reference_logits(const struct model *m, const struct timeline *l)
{
    struct engine e = engine_new(m, "reference", 1, KG_ACT_F32, KG_KV_F32);
    double *f64;
    free(compute(&e, l, 64, &f64));
    engine_free(&e);
    return f64;
}

/* own_bound: the error must also keep within what the backend promises. Returns error / that promise. */
static double check_error(const struct model *m, const char *name, const struct timeline *l, const double *want, kg_activations act, kg_kv_type kv, double most,
                          bool own_bound)
{
    struct engine e = engine_new(m, "cpu", 2, act, kv);
    float *got = compute(&e, l, 64, NULL);
    double error = relative_error(got, want, (size_t)l->n_wanted * (size_t)e.n_vocab), promise = e.backend->error_bound(e.ctx);
    double bound = own_bound ? fmin(promise, most) : most;
    if (!(error <= bound))
        fail_msg("%s on %s, activations %s, kv %d: relative error %.3g, bound %.3g (the backend's: %.3g)", name, getenv("KAGARI_CPU"),
                 act == KG_ACT_F32 ? "f32" : "int8", (int)kv, error, bound, promise);
    free(got);
    engine_free(&e);
    return error / promise;
}

/* ---- a tiny llama ---- */

enum { DIM = 256, HEADS = 8, KV_HEADS = 2, K_DIM = 24, V_DIM = 128, FFN = 768, VOCAB = 97, LAYERS = 2, ROT = 10 };

static void put_matrix(struct gw *w, const char *name, const struct blocks *set, int in, int out)
{
    const size_t n = (size_t)in / (size_t)set->type->block * (size_t)out, bytes = n * (size_t)set->type->block_bytes;
    uint8_t *data = malloc(bytes);
    assert_non_null(data);
    blocks_fill(set, data, n);
    gw_tensor(w, name, (uint32_t)set->type->type, 2, (int64_t[]){in, out}, data, bytes);
    free(data);
}

static void put_vector(struct gw *w, const char *name, int n, float size, float spread)
{
    float v[FFN];
    for (int i = 0; i < n; i++) v[i] = size * (1 + spread * rng_unit());
    gw_tensor(w, name, TYPE_F32, 1, (int64_t[]){n}, v, (size_t)n * sizeof *v);
}

static double root_mean_square(const struct blocks *set)
{
    double sum = 0, y[256];
    for (int i = 0; i < set->n; i++) {
        ref_decoder(set->type->type)(set->data + (size_t)i * (size_t)set->type->block_bytes, y);
        for (int j = 0; j < set->type->block; j++) sum += y[j] * y[j];
    }
    return sqrt(sum / set->n / set->type->block);
}

/* Wide integers become those that fit 16 bits: squares of sums of theirs must fit f32. */
static void narrow_integers(struct blocks *set)
{
    const int bytes = set->type->block_bytes;
    for (int i = 0; i < set->n; i++)
        for (int j = 2; j < bytes; j++) set->data[i * bytes + j] = set->data[i * bytes + 1] & 0x80 ? 0xff : 0;
}

/* All of its matrices have the given type. The norms before them bring their products to about 1, whatever the size of the blocks, so
 * that softmax and activations work where they do in a trained model. */
static void write_tiny(const char *path, const struct type_info *type)
{
    struct blocks set = blocks_new(type, 0.5);
    if (root_mean_square(&set) > 0x1p30) narrow_integers(&set);
    const float in = (float)(1 / (root_mean_square(&set) * sqrt(DIM)));
    struct gw w = {0};
    gw_str(&w, "general.architecture", "llama");
    gw_u32(&w, "llama.block_count", LAYERS);
    gw_u32(&w, "llama.context_length", 512);
    gw_u32(&w, "llama.embedding_length", DIM);
    gw_u32(&w, "llama.feed_forward_length", FFN);
    gw_u32(&w, "llama.attention.head_count", HEADS);
    gw_u32(&w, "llama.attention.head_count_kv", KV_HEADS);
    gw_u32(&w, "llama.attention.key_length", K_DIM);
    gw_u32(&w, "llama.attention.value_length", V_DIM);
    gw_u32(&w, "llama.rope.dimension_count", ROT);
    gw_f32(&w, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    put_matrix(&w, "token_embd.weight", &set, DIM, VOCAB);
    put_matrix(&w, "output.weight", &set, DIM, VOCAB);
    put_vector(&w, "output_norm.weight", DIM, in, 0.3f);
    for (int i = 0; i < LAYERS; i++) {
        char name[64];
#define NAME(part) (snprintf(name, sizeof name, "blk.%d." part, i), name)
        put_vector(&w, NAME("attn_norm.weight"), DIM, in, 0.3f);
        put_matrix(&w, NAME("attn_q.weight"), &set, DIM, HEADS * K_DIM);
        put_matrix(&w, NAME("attn_k.weight"), &set, DIM, KV_HEADS * K_DIM);
        put_matrix(&w, NAME("attn_v.weight"), &set, DIM, KV_HEADS * V_DIM);
        put_vector(&w, NAME("attn_v.bias"), KV_HEADS * V_DIM, 0.1f, 1);
        put_matrix(&w, NAME("attn_output.weight"), &set, HEADS * V_DIM, DIM);
        put_vector(&w, NAME("ffn_norm.weight"), DIM, in, 0.3f);
        put_matrix(&w, NAME("ffn_gate.weight"), &set, DIM, FFN);
        put_matrix(&w, NAME("ffn_up.weight"), &set, DIM, FFN);
        put_matrix(&w, NAME("ffn_down.weight"), &set, FFN, DIM);
#undef NAME
    }
    blocks_free(&set);
    assert_true(gw_save(&w, path));
}

/* Opens a tiny llama; its file goes away with the name. */
static void open_tiny(struct model *m, const struct type_info *type)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s.gguf", folder, type->name);
    write_tiny(path, type);
    OK(model_open(m, path));
    unlink(path);
}

static bool choose_tier(size_t i)
{
    struct cpu_kernels k;
    if (FINDS_RACES && !is_long() && cpu_tier_name(i + 1) && cpu_tier_supported(i + 1)) return false;
    return tier_kernels(i, &k);
}

static void tiny_models_same_bits(void **state)
{
    (void)state;
    const struct type_info *type;
    for (size_t i = 0; (type = type_at(i)); i++) {
        struct model m;
        if (SANITIZED && !is_long() && i % 10 != 0) continue; /* Q4_K is row 10 */
        open_tiny(&m, type);
        for (size_t tier = 0; cpu_tier_name(tier); tier++) {
            if (!choose_tier(tier)) continue;
            bool all = is_long() || (type->type == TYPE_Q4_K && !SANITIZED);
            if (!all && !SANITIZED && (i + tier) % 2) continue; /* every other type */
            for (int kv = KG_KV_F16; kv <= KG_KV_Q8_0; kv++) {
                if (!all && kv != (int)(i % 3)) continue;
                check_bits(&m, type->name, KG_ACT_INT8, (kg_kv_type)kv, all ? N_A : N_A / 2, all ? N_B : N_B / 4, all && kv == KG_KV_F16 ? 1 : 9);
                if (all || i % 4 == 0) check_bits(&m, type->name, KG_ACT_F32, (kg_kv_type)kv, N_A / 2, N_B / 4, 9);
            }
        }
        model_close(&m);
    }
}

/* Single tokens far on, of one sequence and of two: threads share the query heads of a KV head. */
static void long_texts_same_bits(void **state)
{
    (void)state;
    enum { FAR = 256 };
    static const int threads[] = {1, 2, 5, 8};
    struct model m;
    open_tiny(&m, type_by_name("Q4_K"));
    for (size_t tier = 0; cpu_tier_name(tier); tier++) {
        if (!choose_tier(tier)) continue;
        for (int n_seqs = 1; n_seqs <= 2; n_seqs++) {
            struct timeline l = {0};
            float *want = NULL;
            for (int s = 0; s < n_seqs; s++)
                for (int i = 0; i < FAR; i++) timeline_add(&l, s, i, (i * 31 + s) % VOCAB, false);
            for (int s = 0; s < n_seqs; s++) timeline_add(&l, s, FAR, 5, true);
            for (size_t i = 0; i < COUNT_OF(threads); i++) {
                struct engine e = engine_new(&m, "cpu", threads[i], KG_ACT_INT8, KG_KV_F16);
                float *got = compute(&e, &l, i == 0 ? FAR - 3 : FAR, NULL); /* the first takes the last tokens with others */
                if (want && memcmp(got, want, (size_t)(l.n_wanted * VOCAB) * sizeof *got) != 0)
                    fail_msg("tier %s, %d sequences: %d threads differ from one", getenv("KAGARI_CPU"), n_seqs, threads[i]);
                engine_free(&e);
                if (want) free(got);
                else want = got;
            }
            free(want);
        }
    }
    model_close(&m);
}

/* Far more threads than processors, and than fit a word of bits; most of them have no share of a matrix. */
static void many_threads_same_bits(void **state)
{
    (void)state;
    struct model m;
    struct timeline l = {0};
    float *want = NULL;
    open_tiny(&m, type_by_name("Q4_K"));
    for (int i = 0; i < 9; i++) timeline_add(&l, 0, i, i * 31 % VOCAB, i > 4);
    for (int n_threads = 1; n_threads <= 67; n_threads += 66) {
        struct engine e = engine_new(&m, "cpu", n_threads, KG_ACT_INT8, KG_KV_F16);
        for (int batch = 1; batch <= 5; batch += 4) {
            float *got = compute(&e, &l, batch, NULL);
            if (want) assert_memory_equal(got, want, (size_t)(l.n_wanted * VOCAB) * sizeof *got);
            if (want) free(got);
            else want = got;
        }
        engine_free(&e);
    }
    free(want);
    model_close(&m);
}

/* With exact activations the limit is 1e-5 and not the backend's own bound, which is an estimate that about one random model in a hundred
 * exceeds, by up to 2.5 times (4200 measured); how many do is printed. Trained models have to keep it, see below. */
static void tiny_models_near_reference(void **state)
{
    (void)state;
    const struct type_info *type;
    double worst[2][8] = {0};
    int n_beyond = 0;
    for (size_t i = 0; (type = type_at(i)); i++) {
        struct model m;
        struct timeline l;
        if (SANITIZED && !is_long() && i % 10 != 0) continue;
        open_tiny(&m, type);
        make_timeline(&l, VOCAB, N_A, 0, true);
        double *want = reference_logits(&m, &l);
        for (size_t tier = 0; cpu_tier_name(tier); tier++) {
            if (!choose_tier(tier)) continue;
            double e1 = check_error(&m, type->name, &l, want, KG_ACT_F32, KG_KV_F32, 1e-5, false);
            double e2 = check_error(&m, type->name, &l, want, KG_ACT_INT8, KG_KV_F16, 1, true);
            n_beyond += e1 > 1;
            worst[0][tier] = fmax(worst[0][tier], e1);
            worst[1][tier] = fmax(worst[1][tier], e2);
            if (is_long()) {
                check_error(&m, type->name, &l, want, KG_ACT_F32, KG_KV_F16, 1e-2, false);
                check_error(&m, type->name, &l, want, KG_ACT_INT8, KG_KV_Q8_0, 1, true);
            }
        }
        free(want);
        model_close(&m);
    }
    for (size_t tier = 0; cpu_tier_name(tier); tier++)
        print_message("  %-8s largest error / bound of a tiny model: exact activations %.3f, int8 %.3f\n", cpu_tier_name(tier), worst[0][tier], worst[1][tier]);
    if (n_beyond) print_message("  %d results with exact activations lie beyond the backend's own bound, though within 1e-5\n", n_beyond);
}

/* ---- real models ---- */

static bool exists(const char *path) { return access(path, R_OK) == 0; }
/* Under a sanitizer the smaller family must do. */
static bool is_too_slow(const char *path) { return SANITIZED && !is_long() && !strstr(path, "gpt2"); }

static void shipped_model(void **state)
{
    (void)state;
    struct model m;
    struct timeline l;
    OK(model_open(&m, SOURCE_DIR "/models/stories-q4_k_m.gguf"));
    make_timeline(&l, m.program.n_vocab, SANITIZED ? 12 : 40, 0, true);
    double *want = reference_logits(&m, &l);
    for (size_t tier = 0; cpu_tier_name(tier); tier++) {
        if (!choose_tier(tier)) continue;
        bool slow = (tier == 0 || SANITIZED) && !is_long();
        check_bits(&m, "stories Q4_K_M", KG_ACT_INT8, KG_KV_F16, slow ? 12 : 40, slow ? 7 : 21, slow ? 9 : 3);
        double f32 = check_error(&m, "stories Q4_K_M", &l, want, KG_ACT_F32, KG_KV_F32, 1e-5, true);
        double f16 = check_error(&m, "stories Q4_K_M", &l, want, KG_ACT_INT8, KG_KV_F16, 1, true);
        double q8 = check_error(&m, "stories Q4_K_M", &l, want, KG_ACT_INT8, KG_KV_Q8_0, 1, true);
        print_message("  %-8s stories Q4_K_M, error / bound: f32 %.3f, int8 with kv f16 %.3f, with kv q8_0 %.3f\n", cpu_tier_name(tier), f32, f16, q8);
    }
    free(want);
    model_close(&m);
}

/* Files of SHARED_DIR/models: how far from the reference. */
static void other_models(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        double default_error; /* at most, with the default activations and KV type */
    } files[] = {{"stories-f16", 2e-3}, {"gpt2-f16", 2e-3}, {"stories-Q8_0", 1}, {"gpt2-Q8_0", 1}, {"gpt2-Q4_K_M", 1}};
    int n = 0;
    for (size_t i = 0; i < COUNT_OF(files); i++) {
        char path[512];
        snprintf(path, sizeof path, SHARED_DIR "/models/%s.gguf", files[i].name);
        if (!exists(path) || is_too_slow(path)) continue;
        n++;
        struct model m;
        struct timeline l;
        OK(model_open(&m, path));
        make_timeline(&l, m.program.n_vocab, 24, 0, true);
        double *want = reference_logits(&m, &l);
        for (size_t tier = 0; cpu_tier_name(tier); tier++) {
            if (!choose_tier(tier)) continue;
            double f32 = check_error(&m, files[i].name, &l, want, KG_ACT_F32, KG_KV_F32, 1e-5, true);
            double usual = check_error(&m, files[i].name, &l, want, KG_ACT_INT8, KG_KV_F16, files[i].default_error, true);
            print_message("  %-8s %-14s error / bound: f32 %.3f, default %.3f\n", cpu_tier_name(tier), files[i].name, f32, usual);
        }
        free(want);
        model_close(&m);
    }
    if (n == 0) {
        print_message("skipped: other models, as there is no " SHARED_DIR "/models\n");
        skip();
    }
}

/* ---- golden continuations ---- */

enum { MAX_PROMPTS = 7, MAX_IDS = 256, N_GREEDY = 48 };
struct golden {
    int n;
    int32_t ids[MAX_PROMPTS][MAX_IDS], greedy[MAX_PROMPTS][MAX_IDS];
    int n_ids[MAX_PROMPTS], n_greedy[MAX_PROMPTS];
    double *logits; /* [n][n_vocab] */
};

/* "key": [1, 2, 3] from *s on; *s moves behind it. Returns how many. */
static int read_ids(const char **s, const char *key, int32_t *ids)
{
    const char *at = strstr(*s, key);
    int n = 0;
    if (!at) return 0;
    for (at = strchr(at, '[') + 1; *at != ']' && n < MAX_IDS;) {
        char *end;
        ids[n++] = (int32_t)strtol(at, &end, 10);
        at = *end == ',' ? end + 1 : end;
    }
    *s = at;
    return n;
}

static char *read_text(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    char *s = calloc(*n + 1, 1);
    assert_non_null(s);
    assert_int_equal(fread(s, 1, *n, f), *n);
    fclose(f);
    return s;
}

static bool golden_read(struct golden *g, const char *name, int n_vocab)
{
    char path[512];
    size_t n;
    *g = (struct golden){0};
    snprintf(path, sizeof path, SHARED_DIR "/reference/%s.json", name);
    char *text = read_text(path, &n);
    if (!text) return false;
    const char *s = text;
    while (g->n < MAX_PROMPTS && (g->n_ids[g->n] = read_ids(&s, "\"ids\"", g->ids[g->n])) > 0) {
        g->n_greedy[g->n] = read_ids(&s, "\"greedy\"", g->greedy[g->n]);
        assert_int_equal(g->n_greedy[g->n], N_GREEDY);
        g->n++;
    }
    free(text);
    snprintf(path, sizeof path, SHARED_DIR "/reference/%s.logits.f64", name);
    g->logits = (double *)(void *)read_text(path, &n);
    assert_non_null(g->logits);
    assert_true(g->n > 0 && n == (size_t)g->n * (size_t)n_vocab * sizeof(double));
    return true;
}

/* All prompts at once, a sequence each: first the prompts, then token after token. */
static void check_golden(const struct model *m, const char *name, const struct golden *g)
{
    struct engine e = engine_new(m, "cpu", 2, KG_ACT_F32, KG_KV_F32);
    const size_t n_vocab = (size_t)e.n_vocab;
    struct timeline *l = calloc(1, sizeof *l);
    assert_non_null(l);
    for (int p = 0; p < g->n; p++)
        for (int i = 0; i < g->n_ids[p]; i++) timeline_add(l, p, i, g->ids[p][i], i == g->n_ids[p] - 1);
    float *logits = compute(&e, l, 100, NULL);
    double error = relative_error(logits, g->logits, (size_t)g->n * n_vocab);
    print_message("  %-8s %s: relative error of the golden logits %.3g\n", getenv("KAGARI_CPU"), name, error);
    assert_true(error < 1e-5);
    for (int step = 0; step < N_GREEDY; step++) {
        struct timeline next = {0};
        for (int p = 0; p < g->n; p++) {
            const float *x = logits + (size_t)p * n_vocab;
            int best = 0;
            for (int i = 1; i < e.n_vocab; i++) best = x[i] > x[best] ? i : best;
            if (best != g->greedy[p][step]) fail_msg("%s on %s: prompt %d, step %d: token %d, want %d", name, getenv("KAGARI_CPU"), p, step, best, (int)g->greedy[p][step]);
            timeline_add(&next, p, g->n_ids[p] + step, best, true);
        }
        free(logits);
        logits = compute(&e, &next, 8, NULL);
    }
    free(logits);
    free(l);
    engine_free(&e);
}

static void golden_continuations(void **state)
{
    (void)state;
    static const char *const names[] = {"stories", "gpt2"};
    int n = 0;
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        char path[512];
        struct model m;
        struct golden g;
        snprintf(path, sizeof path, SHARED_DIR "/models/%s-f16.gguf", names[i]);
        if (!exists(path) || is_too_slow(path)) continue;
        OK(model_open(&m, path));
        if (golden_read(&g, names[i], m.program.n_vocab)) {
            n++;
            for (size_t tier = 0; cpu_tier_name(tier); tier++)
                if (choose_tier(tier)) check_golden(&m, names[i], &g);
            free(g.logits);
        }
        model_close(&m);
    }
    if (n == 0) {
        print_message("skipped: golden continuations, as there is no " SHARED_DIR "/reference or /models\n");
        skip();
    }
}

static void expect(const struct engine *e, struct batch_token token, int n, kg_status want)
{
    struct batch_token tokens[300];
    float logits[VOCAB];
    for (int i = 0; i < n; i++) tokens[i] = token;
    struct batch b = {.tokens = tokens, .n = n, .seqs = &(struct batch_seq){.blocks = (int32_t[20]){0}}, .n_seqs = 1, .logits = logits};
    assert_int_equal(e->backend->run(e->ctx, &b), want);
}

static void bad_batches(void **state)
{
    (void)state;
    struct model m;
    open_tiny(&m, type_by_id(TYPE_Q8_0));
    struct engine e = engine_new(&m, "cpu", 2, KG_ACT_INT8, KG_KV_F16);
    expect(&e, (struct batch_token){1, 0, 0, false}, 1, KG_ERR_ARGUMENT); /* no KV memory yet */
    OK(e.backend->kv_reserve(e.ctx, 1));
    expect(&e, (struct batch_token){VOCAB, 0, 0, false}, 1, KG_ERR_ARGUMENT);
    expect(&e, (struct batch_token){-1, 0, 0, false}, 1, KG_ERR_ARGUMENT);
    expect(&e, (struct batch_token){1, -1, 0, false}, 1, KG_ERR_ARGUMENT);
    expect(&e, (struct batch_token){1, 0, 1, false}, 1, KG_ERR_ARGUMENT);
    expect(&e, (struct batch_token){1, 0, -1, false}, 1, KG_ERR_ARGUMENT);
    expect(&e, (struct batch_token){1, 0, 0, false}, 0, KG_ERR_ARGUMENT);
    expect(&e, (struct batch_token){1, 0, 0, false}, 257, KG_ERR_ARGUMENT); /* max_batch is 256 */
    expect(&e, (struct batch_token){1, 512, 0, false}, 1, KG_OK); /* beyond the trained length, which is no bound here */
    m.program.ctx_is_hard = true;
    expect(&e, (struct batch_token){1, 512, 0, false}, 1, KG_ERR_CONTEXT);
    assert_int_equal(e.backend->kv_copy(e.ctx, 0, 1), KG_ERR_ARGUMENT);
    assert_int_equal(e.backend->kv_copy(e.ctx, -1, 0), KG_ERR_ARGUMENT);
    engine_free(&e);
    e.backend->close(NULL);
    model_close(&m);
}

/* A program's own floating-point mode changes no result and is left alone; threads that it starts would have it, too. */
static void own_float_mode(void **state)
{
    (void)state;
    static const int modes[] = {FE_TONEAREST, FE_DOWNWARD, FE_UPWARD, FE_TOWARDZERO};
    struct model m;
    struct timeline l = {0};
    open_tiny(&m, type_by_name("Q4_K"));
    for (int i = 0; i < 9; i++) timeline_add(&l, 0, i, i * 31 % VOCAB, i > 4);
    for (size_t tier = 0; cpu_tier_name(tier); tier++) {
        float *want = NULL;
        if (!choose_tier(tier)) continue;
        for (size_t i = 0; i < COUNT_OF(modes); i++)
            for (int batch = 1; batch <= 5; batch += 4) {
                assert_int_equal(fesetround(modes[i]), 0);
                struct engine e = engine_new(&m, "cpu", 2, KG_ACT_INT8, KG_KV_F16);
                float *got = compute(&e, &l, batch, NULL);
                engine_free(&e);
                assert_int_equal(fegetround(), modes[i]);
                if (want && memcmp(got, want, (size_t)(l.n_wanted * VOCAB) * sizeof *got) != 0)
                    fail_msg("tier %s, batches of %d: rounding mode %d changes the logits", getenv("KAGARI_CPU"), batch, (int)i);
                if (want) free(got);
                else want = got;
            }
        fesetround(FE_TONEAREST);
        free(want);
    }
    model_close(&m);
}

static void unknown_tiers(void **state)
{
    (void)state;
    struct cpu_kernels k;
    setenv("KAGARI_CPU", "abacus", 1);
    assert_int_equal(cpu_kernels_choose(&k), KG_ERR_ARGUMENT);
    assert_non_null(strstr(kg_error_message(), "abacus"));
    assert_non_null(strstr(kg_error_message(), cpu_tier_name(0)));
    for (size_t i = 0; cpu_tier_name(i); i++) {
        if (cpu_tier_supported(i)) continue;
        setenv("KAGARI_CPU", cpu_tier_name(i), 1);
        assert_int_equal(cpu_kernels_choose(&k), KG_ERR_UNSUPPORTED);
    }
    size_t n = 0, best = 0;
    for (; cpu_tier_name(n); n++) best = cpu_tier_supported(n) ? n : best;
    setenv("KAGARI_CPU", "", 1);
    OK(cpu_kernels_choose(&k));
    assert_string_equal(k.tier, cpu_tier_name(best));
    unsetenv("KAGARI_CPU");
    OK(cpu_kernels_choose(&k));
    assert_string_equal(k.tier, cpu_tier_name(best));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unknown_tiers), cmocka_unit_test(bad_batches), cmocka_unit_test(tiny_models_same_bits), cmocka_unit_test(long_texts_same_bits),
        cmocka_unit_test(many_threads_same_bits), cmocka_unit_test(own_float_mode), cmocka_unit_test(tiny_models_near_reference),
        cmocka_unit_test(shipped_model),  cmocka_unit_test(other_models),          cmocka_unit_test(golden_continuations),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
