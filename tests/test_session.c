/* layers: run */
/* Sessions over the model that ships with the project, on every backend of the build: whatever way the cache came about (prefixes kept,
 * blocks shared, batches of any size, threads beside), the logits are those of a fresh computation, bit for bit. Then generation: stop
 * strings, contexts, ends. Then files that must be refused. */
#include "how_long.h"
#include "run/run.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const char model_path[] = SOURCE_DIR "/models/stories-q4_k_m.gguf";
static kg_model *models[8]; /* one per backend of the build */
static size_t n_models;
static int n_vocab;

#define OK(expr)                                                                                                                           \
    do {                                                                                                                                   \
        if ((expr) != KG_OK) fail_msg("%s: %s", #expr, kg_error_message());                                                                \
    } while (0)

static int open_models(void **state)
{
    (void)state;
    /* the backends after these are GPUs, whose results depend on the batch: test_gpu_models.c; the reference has no threads of its own */
    for (const char *name; (name = kg_backend_name(n_models, NULL)) && n_models < (FINDS_RACES && !is_long() ? 1 : 2); n_models++) {
        kg_model_params p = kg_model_default_params();
        p.backend = name;
        p.n_threads = 2;
        if (kg_model_open(&models[n_models], model_path, &p) != KG_OK) {
            fprintf(stderr, "%s: %s\n", name, kg_error_message());
            return -1;
        }
    }
    n_vocab = kg_model_n_vocab(models[0]);
    return 0;
}

static int close_models(void **state)
{
    (void)state;
    while (n_models) kg_model_close(&models[--n_models]);
    return 0;
}

/* n ids that depend on tag; no control tokens. */
static void make_ids(int32_t *ids, size_t n, uint32_t tag)
{
    uint32_t x = tag * 2654435761u + 1;
    for (size_t i = 0; i < n; i++) ids[i] = 300 + (int32_t)((x = x * 1664525u + 1013904223u) >> 8) % 7000;
    ids[0] = 1;
}

static kg_session *session(kg_model *m, int n_ctx, int n_batch)
{
    kg_session *s;
    kg_session_params p = {.n_ctx = n_ctx, .n_batch = n_batch};
    OK(kg_session_new(&s, m, &p));
    return s;
}

/* The logits after ids[0..n) of a session with nothing in it and nobody beside it; malloc'ed. */
static float *fresh(kg_model *m, const int32_t *ids, size_t n, int n_batch)
{
    assert_null(m->sessions);
    kg_session *s = session(m, 0, n_batch);
    OK(kg_session_sync(s, ids, n));
    assert_int_equal(kg_session_get_stats(s).n_computed, n);
    float *copy = malloc((size_t)n_vocab * sizeof *copy);
    assert_non_null(copy);
    memcpy(copy, kg_session_logits(s), (size_t)n_vocab * sizeof *copy);
    kg_session_free(&s);
    assert_int_equal(m->kv.n_unused, m->kv.n_blocks);
    return copy;
}

static void assert_logits(const kg_session *s, const float *want)
{
    assert_memory_equal(kg_session_logits(s), want, (size_t)n_vocab * sizeof *want);
}

static void backend_names(void **state)
{
    (void)state;
    const char *what = NULL;
    assert_string_equal(kg_backend_name(0, &what), "cpu");
    assert_true(what && *what);
    assert_string_equal(kg_backend_name(1, NULL), "reference");
    assert_null(kg_backend_name(99, &what));
    static const char *const absent[] = {"cuda", "metal", "opencl", "hybrid", "hybrid-f32", "coreml", "nonsense", ""};
    for (size_t i = 0; i < COUNT_OF(absent); i++) {
        kg_model_params p = kg_model_default_params();
        kg_model *m;
        p.backend = absent[i];
        if (backend_find(absent[i])) continue; /* built after all */
        assert_int_equal(kg_model_open(&m, model_path, &p), KG_ERR_UNSUPPORTED);
        assert_non_null(strstr(kg_error_message(), absent[i]));
        assert_non_null(strstr(kg_error_message(), "available: cpu, reference"));
        assert_null(m);
    }
}

static void getters(void **state)
{
    (void)state;
    assert_string_equal(kg_model_arch(models[0]), "llama");
    assert_string_equal(kg_model_backend(models[0]), "cpu");
    assert_int_equal(kg_model_n_layers(models[0]), 6);
    assert_int_equal(n_vocab, 8192);
    assert_int_equal(kg_model_n_ctx(models[0]), 1024);
    assert_non_null(kg_model_tokenizer(models[0]));
    kg_model_close(NULL);
    kg_session_free(NULL);
}

static void batches_do_not_matter(void **state)
{
    (void)state;
    int32_t ids[40];
    make_ids(ids, 40, 1);
    for (size_t i = 0; i < n_models; i++) {
        float *whole = fresh(models[i], ids, 40, 0);
        static const int sizes[] = {1, 7, 32};
        for (size_t j = 0; j < COUNT_OF(sizes); j++) {
            float *parts = fresh(models[i], ids, 40, sizes[j]);
            assert_memory_equal(parts, whole, (size_t)n_vocab * sizeof *whole);
            free(parts);
        }
        free(whole);
    }
}

static void prefix_is_reused(void **state)
{
    (void)state;
    int32_t a[50], b[60];
    make_ids(a, 50, 1);
    make_ids(b, 60, 2);
    memcpy(b, a, 35 * sizeof *a);
    assert_int_not_equal(a[35], b[35]);
    for (size_t i = 0; i < n_models; i++) {
        float *want_a = fresh(models[i], a, 50, 0), *want_b = fresh(models[i], b, 60, 0), *want_a20 = fresh(models[i], a, 20, 0);
        kg_session *s = session(models[i], 0, 16);
        assert_null(kg_session_logits(s));
        OK(kg_session_sync(s, a, 50));
        assert_logits(s, want_a);
        OK(kg_session_sync(s, b, 60));
        assert_int_equal(kg_session_get_stats(s).n_reused, 35);
        assert_int_equal(kg_session_get_stats(s).n_computed, 25);
        assert_int_equal(kg_session_get_stats(s).n_tokens, 60);
        assert_true(kg_session_get_stats(s).kv_bytes > 0);
        assert_logits(s, want_b);
        OK(kg_session_sync(s, b, 60)); /* nothing to do */
        assert_int_equal(kg_session_get_stats(s).n_computed, 0);
        assert_logits(s, want_b);
        OK(kg_session_sync(s, a, 20)); /* only the last again, for its logits */
        assert_int_equal(kg_session_get_stats(s).n_reused, 19);
        assert_int_equal(kg_session_get_stats(s).n_tokens, 20);
        assert_logits(s, want_a20);
        OK(kg_session_sync(s, a, 50));
        assert_int_equal(kg_session_get_stats(s).n_reused, 20);
        assert_logits(s, want_a);
        bool has_f64 = models[i]->backend->has_f64;
        assert_int_equal(kg_session_logits_f64(s) != NULL, has_f64);
        if (has_f64) assert_true(fabs(kg_session_logits_f64(s)[5] - (double)kg_session_logits(s)[5]) < 1e-4);
        kg_session_free(&s);
        assert_null(s);
        free(want_a);
        free(want_b);
        free(want_a20);
    }
}

static void neighbours_share(void **state)
{
    (void)state;
    int32_t a[75], b[75];
    make_ids(a, 75, 3);
    make_ids(b, 75, 4);
    memcpy(b, a, 45 * sizeof *a);
    assert_int_not_equal(a[45], b[45]);
    for (size_t i = 0; i < n_models; i++) {
        float *want_a = fresh(models[i], a, 75, 0), *want_b = fresh(models[i], b, 75, 0);
        kg_session *first = session(models[i], 0, 0), *second = session(models[i], 0, 0);
        OK(kg_session_sync(first, a, 70));
        OK(kg_session_sync(second, b, 75));
        assert_int_equal(kg_session_get_stats(second).n_reused, 45);
        assert_int_equal(kg_session_get_stats(second).n_computed, 30);
        assert_logits(second, want_b);
        OK(kg_session_sync(first, a, 75)); /* what the second wrote is not in the first's cache */
        assert_int_equal(kg_session_get_stats(first).n_reused, 70);
        assert_logits(first, want_a);
        OK(kg_session_sync(first, b, 75)); /* now from the second: all but the last */
        assert_int_equal(kg_session_get_stats(first).n_computed, 1);
        assert_logits(first, want_b);
        kg_session_free(&second);
        OK(kg_session_sync(first, a, 75));
        assert_logits(first, want_a);
        kg_session_free(&first);
        free(want_a);
        free(want_b);
    }
}

static void limits(void **state)
{
    (void)state;
    int32_t ids[40];
    make_ids(ids, 40, 5);
    kg_session *s;
    static const kg_session_params bad[] = {{.n_ctx = -1}, {.n_ctx = INT64_MAX}, {.n_batch = -1}, {.n_batch = 100000}};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        assert_int_equal(kg_session_new(&s, models[0], &bad[i]), KG_ERR_ARGUMENT);
        assert_null(s);
    }
    float *want = fresh(models[0], ids, 16, 0);
    s = session(models[0], 16, 0);
    assert_int_equal(kg_session_sync(s, ids, 0), KG_ERR_ARGUMENT);
    assert_int_equal(kg_session_sync(s, ids, 17), KG_ERR_CONTEXT);
    OK(kg_session_sync(s, ids, 16));
    assert_logits(s, want);
    assert_int_equal(kg_session_sync(s, ids, 17), KG_ERR_CONTEXT);
    int32_t keep = ids[3];
    ids[3] = n_vocab;
    assert_int_equal(kg_session_sync(s, ids, 16), KG_ERR_ARGUMENT);
    assert_non_null(strstr(kg_error_message(), "token 3 is 8192"));
    ids[3] = -1;
    assert_int_equal(kg_session_sync(s, ids, 16), KG_ERR_ARGUMENT);
    ids[3] = keep;
    OK(kg_session_sync(s, ids, 16));
    assert_logits(s, want);
    kg_session_free(&s);
    free(want);
    kg_model *m;
    kg_model_params p = kg_model_default_params();
    p.n_threads = -1;
    assert_int_equal(kg_model_open(&m, model_path, &p), KG_ERR_ARGUMENT);
    p = kg_model_default_params();
    p.kv_type = (kg_kv_type)77;
    assert_int_equal(kg_model_open(&m, model_path, &p), KG_ERR_ARGUMENT);
    assert_int_equal(kg_model_open(&m, SOURCE_DIR "/models/none.gguf", NULL), KG_ERR_IO);
    assert_non_null(strstr(kg_error_message(), "none.gguf"));
}

struct progress {
    size_t calls, done, total, stop_at;
};

static bool on_progress(void *ctx, size_t done, size_t total)
{
    struct progress *p = ctx;
    p->calls++;
    p->done = done;
    p->total = total;
    return done < p->stop_at;
}

static void progress(void **state)
{
    (void)state;
    int32_t ids[50];
    make_ids(ids, 50, 6);
    float *want = fresh(models[0], ids, 50, 0);
    kg_session *s = session(models[0], 0, 10);
    struct progress p = {.stop_at = 30};
    kg_session_set_progress(s, on_progress, &p);
    assert_int_equal(kg_session_sync(s, ids, 50), KG_ERR_ABORTED);
    assert_int_equal(p.calls, 3);
    assert_int_equal(p.total, 50);
    assert_int_equal(kg_session_get_stats(s).n_tokens, 30);
    assert_null(kg_session_logits(s));
    p = (struct progress){.stop_at = 1000};
    OK(kg_session_sync(s, ids, 50));
    assert_int_equal(p.calls, 1); /* between the two steps that were left */
    assert_int_equal(p.done, 10);
    assert_int_equal(p.total, 20);
    assert_int_equal(kg_session_get_stats(s).n_reused, 30);
    assert_logits(s, want);
    kg_session_free(&s);
    free(want);
}

struct worker {
    kg_model *model;
    uint32_t tag;
    float *want;
    kg_status status;
    bool same;
};

static void *work(void *arg)
{
    struct worker *w = arg;
    int32_t ids[60];
    kg_session *s = NULL;
    kg_session_params p = {.n_batch = 9};
    w->same = true;
    w->status = kg_session_new(&s, w->model, &p);
    for (size_t round = 0; round < 2 && w->status == KG_OK; round++) {
        make_ids(ids, 60, 10); /* all workers have these in common, and share them */
        make_ids(ids + 40, 20, w->tag);
        w->status = kg_session_sync(s, ids, 45 + round);
        if (w->status == KG_OK) w->status = kg_session_sync(s, ids, 60);
        if (w->status == KG_OK) w->same &= !memcmp(kg_session_logits(s), w->want, (size_t)n_vocab * sizeof *w->want);
    }
    kg_session_free(&s);
    return NULL;
}

static void threads(void **state)
{
    (void)state;
    enum { N = 3 };
    for (size_t i = 0; i < n_models; i++) {
        struct worker workers[N];
        pthread_t ids[N];
        for (uint32_t t = 0; t < N; t++) {
            int32_t tokens[60];
            make_ids(tokens, 60, 10);
            make_ids(tokens + 40, 20, t + 1);
            workers[t] = (struct worker){.model = models[i], .tag = t + 1, .want = fresh(models[i], tokens, 60, 0)};
        }
        for (int t = 0; t < N; t++) assert_int_equal(pthread_create(&ids[t], NULL, work, &workers[t]), 0);
        for (int t = 0; t < N; t++) pthread_join(ids[t], NULL);
        for (int t = 0; t < N; t++) {
            assert_int_equal(workers[t].status, KG_OK);
            assert_true(workers[t].same);
            free(workers[t].want);
        }
        assert_int_equal(models[i]->kv.n_unused, models[i]->kv.n_blocks);
    }
}

/* ---- generation */

struct answer {
    char text[4096];
    size_t len, n_tokens, n_calls, stop_after; /* stop_after: calls, 0 = never */
    int32_t ids[256];
};

static bool is_utf8(const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        unsigned char c = (unsigned char)s[i];
        size_t len = c < 0x80 ? 1 : c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : c >= 0xc2 ? 2 : 0;
        if (!len || i + len > n) return false;
        for (size_t j = 1; j < len; j++)
            if (((unsigned char)s[i + j] & 0xc0) != 0x80) return false;
        i += len;
    }
    return true;
}

static bool on_text(void *ctx, int32_t token, const char *text, size_t len)
{
    struct answer *a = ctx;
    assert_true(is_utf8(text, len));
    assert_true(a->len + len < sizeof a->text);
    memcpy(a->text + a->len, text, len);
    a->len += len;
    if (token >= 0) a->ids[a->n_tokens++] = token;
    return ++a->n_calls != a->stop_after;
}

static kg_generate_params greedy(size_t max_tokens)
{
    kg_generate_params p = {.max_tokens = max_tokens, .sampler = kg_sampler_default_params()};
    p.sampler.temperature = 0;
    return p;
}

static struct answer generate(kg_session *s, const char *prompt, const kg_generate_params *p, kg_finish want)
{
    struct answer a = {0};
    int32_t *ids;
    size_t n;
    kg_finish finish;
    OK(kg_tokenize(kg_model_tokenizer(s->model), prompt, strlen(prompt), KG_TOKENIZE_BOS, &ids, &n));
    OK(kg_generate(s, ids, n, p, on_text, &a, &finish));
    kg_free(ids);
    assert_int_equal(finish, want);
    return a;
}

static void greedy_text(void **state)
{
    (void)state;
    for (size_t i = 0; i < n_models; i++) {
        kg_session *s = session(models[i], 0, 0);
        kg_generate_params p = greedy(10);
        struct answer a = generate(s, "Once upon a time", &p, KG_FINISH_LENGTH);
        assert_int_equal(a.n_tokens, 10);
        struct answer again = generate(s, "Once upon a time", &p, KG_FINISH_LENGTH);
        assert_memory_equal(a.ids, again.ids, sizeof a.ids);
        assert_string_equal(a.text, again.text);
        /* the text is the bytes of its tokens, spaces included */
        char want[4096] = "";
        size_t len = 0;
        for (size_t t = 0; t < a.n_tokens; t++) {
            const char *bytes;
            size_t n = kg_token_bytes(kg_model_tokenizer(models[i]), a.ids[t], false, &bytes);
            memcpy(want + len, bytes, n);
            len += n;
        }
        assert_int_equal(a.len, len);
        assert_memory_equal(a.text, want, len);
        assert_int_equal(a.text[0], ' ');
        kg_finish finish;
        int32_t one = 1;
        p.max_tokens = 0;
        OK(kg_generate(s, &one, 1, &p, NULL, NULL, &finish));
        assert_int_equal(finish, KG_FINISH_LENGTH);
        kg_session_free(&s);
    }
}

/* A model whose answers are written down: after position p comes script[p + 1]. Its text is that of the real vocabulary. */
struct scripted {
    kg_model model;
    int32_t script[64];
    int n_runs, fail_at; /* run number fail_at fails; 0: none */
};

static kg_status scripted_reserve(void *ctx, int n_blocks)
{
    (void)ctx;
    (void)n_blocks;
    return KG_OK;
}

static kg_status scripted_copy(void *ctx, int dst, int src)
{
    (void)ctx;
    assert_int_not_equal(dst, src);
    return KG_OK;
}

static size_t scripted_block_bytes(const void *ctx)
{
    (void)ctx;
    return 1;
}

static kg_status scripted_run(void *ctx, const struct batch *batch)
{
    struct scripted *m = ctx;
    if (++m->n_runs == m->fail_at) return status_set(KG_ERR_DEVICE, "lost, for the test");
    float *out = batch->logits;
    for (int i = 0; i < batch->n; i++) {
        if (!batch->tokens[i].want_logits) continue;
        memset(out, 0, (size_t)n_vocab * sizeof *out);
        out[m->script[batch->tokens[i].pos + 1]] = 50;
        out += n_vocab;
    }
    return KG_OK;
}

static const struct backend scripted_backend = {.name = "scripted",
                                                .kv_reserve = scripted_reserve,
                                                .kv_copy = scripted_copy,
                                                .kv_block_bytes = scripted_block_bytes,
                                                .run = scripted_run};

static void start(struct scripted *m)
{
    *m = (struct scripted){0};
    m->model.backend = &scripted_backend;
    m->model.ctx = m;
    m->model.model.program.n_vocab = n_vocab;
    m->model.model.program.n_ctx = 60;
    m->model.model.program.ctx_is_hard = true;
    m->model.tokenizer = models[0]->tokenizer;
    kv_pool_init(&m->model.kv, m->model.backend, m);
    assert_int_equal(pthread_mutex_init(&m->model.lock, NULL), 0);
}

static void stop(struct scripted *m)
{
    assert_null(m->model.sessions);
    kv_pool_free(&m->model.kv);
    pthread_mutex_destroy(&m->model.lock);
}

enum { BYTE_0 = 3 }; /* the vocabulary's token of byte 0 */
static const int32_t bos = 1;

/* Generates from BOS alone; the script says each byte of `text` by a token of its own, and the end token for \4. */
static struct answer say(struct scripted *m, const char *text, const kg_generate_params *p, kg_finish want)
{
    for (size_t i = 0; i < strlen(text); i++)
        m->script[i + 1] = text[i] == 4 ? kg_tokenizer_eos(m->model.tokenizer) : BYTE_0 + (unsigned char)text[i];
    kg_session *s = session(&m->model, 0, 0);
    struct answer a = {0};
    kg_finish finish;
    OK(kg_generate(s, &bos, 1, p, on_text, &a, &finish));
    assert_int_equal(finish, want);
    kg_session_free(&s);
    return a;
}

static void stop_strings(void **state)
{
    (void)state;
    static const struct {
        const char *says, *stop[3], *text;
        kg_finish finish;
    } cases[] = {
        {"one two three", {"two"}, "one ", KG_FINISH_STOP_STRING},
        {"one two three", {"three"}, "one two ", KG_FINISH_STOP_STRING},
        {"one two three", {"o"}, "", KG_FINISH_STOP_STRING},
        {"one two three", {"e t", "two"}, "on", KG_FINISH_STOP_STRING},            /* whole before the second begins */
        {"one two three", {"one two four", "two"}, "one ", KG_FINISH_STOP_STRING}, /* the first began earlier but did not come true */
        {"one two three", {"three four"}, "one two three", KG_FINISH_LENGTH},      /* what was held back is not lost */
        {"one two three", {"threes", "ree!"}, "one two three", KG_FINISH_LENGTH},
        {"aaaab", {"aab"}, "aa", KG_FINISH_STOP_STRING},
        {"ababac", {"abac"}, "ab", KG_FINISH_STOP_STRING},
        {"\xc3\xa9t\xc3\xa9!", {"t\xc3\xa9"}, "\xc3\xa9", KG_FINISH_STOP_STRING},
        {"\xf0\x9f\x94\xa5 fire", {"\xf0\x9f\x94\xa6"}, "\xf0\x9f\x94\xa5 fire", KG_FINISH_LENGTH},
        {"cut \xf0\x9f\x94", {"x"}, "cut \xef\xbf\xbd", KG_FINISH_LENGTH}, /* a character that never ends */
        {"bad \xff!", {"x"}, "bad \xef\xbf\xbd!", KG_FINISH_LENGTH},
    };
    struct scripted m;
    start(&m);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        kg_generate_params p = greedy(strlen(cases[i].says));
        p.stop = cases[i].stop;
        while (p.n_stop < 3 && cases[i].stop[p.n_stop]) p.n_stop++;
        struct answer a = say(&m, cases[i].says, &p, cases[i].finish);
        if (strcmp(a.text, cases[i].text)) fail_msg("case %zu: \"%s\"", i, a.text);
    }
    static const char *const empty[] = {"x", ""}, *const none[] = {NULL};
    kg_generate_params p = greedy(3);
    kg_session *s = session(&m.model, 0, 0);
    p.n_stop = 1;
    assert_int_equal(kg_generate(s, &bos, 1, &p, NULL, NULL, NULL), KG_ERR_ARGUMENT);
    p.stop = none;
    assert_int_equal(kg_generate(s, &bos, 1, &p, NULL, NULL, NULL), KG_ERR_ARGUMENT);
    p.stop = empty;
    p.n_stop = 2;
    assert_int_equal(kg_generate(s, &bos, 1, &p, NULL, NULL, NULL), KG_ERR_ARGUMENT);
    /* without a tokenizer ids still come, stop strings cannot */
    m.model.tokenizer = NULL;
    p.n_stop = 1;
    assert_int_equal(kg_generate(s, &bos, 1, &p, NULL, NULL, NULL), KG_ERR_ARGUMENT);
    p.n_stop = 0;
    struct answer ids = {0};
    m.script[1] = kg_tokenizer_eos(models[0]->tokenizer);
    OK(kg_generate(s, &bos, 1, &p, on_text, &ids, NULL));
    assert_int_equal(ids.n_tokens, 3);
    assert_int_equal(ids.len, 0);
    kg_session_free(&s);
    stop(&m);
}

static void ends(void **state)
{
    (void)state;
    struct scripted m;
    start(&m);
    kg_generate_params p = greedy(20);
    static const char text[] = "The fire is out.\4...";
    struct answer a = say(&m, text, &p, KG_FINISH_END);
    assert_string_equal(a.text, "The fire is out.");
    assert_int_equal(a.n_tokens, 17); /* the end token is shown, without text */
    assert_int_equal(a.ids[16], kg_tokenizer_eos(m.model.tokenizer));
    p.ignore_end = true;
    a = say(&m, text, &p, KG_FINISH_LENGTH);
    assert_int_equal(a.n_tokens, 20);
    assert_string_equal(a.text, "The fire is out....");

    /* a full context: one more token still follows from its last logits */
    kg_session *s = session(&m.model, 8, 0);
    kg_finish finish;
    a = (struct answer){0};
    OK(kg_generate(s, &bos, 1, &p, on_text, &a, &finish));
    assert_int_equal(finish, KG_FINISH_CONTEXT);
    assert_int_equal(a.n_tokens, 8);
    assert_int_equal(kg_session_get_stats(s).n_tokens, 8);
    int32_t many[9] = {1, 5, 5, 5, 5, 5, 5, 5, 5};
    assert_int_equal(kg_generate(s, many, 9, &p, NULL, NULL, NULL), KG_ERR_CONTEXT);
    assert_int_equal(kg_generate(s, many, 0, &p, NULL, NULL, NULL), KG_ERR_ARGUMENT);
    p.sampler.top_p = 7;
    assert_int_equal(kg_generate(s, many, 4, &p, NULL, NULL, NULL), KG_ERR_ARGUMENT);
    p.sampler.top_p = 1;

    /* the callback stops */
    a = (struct answer){.stop_after = 3};
    assert_int_equal(kg_generate(s, many, 4, &p, on_text, &a, NULL), KG_ERR_ABORTED);
    assert_int_equal(a.n_tokens, 3);
    OK(kg_generate(s, many, 4, &p, NULL, NULL, NULL));
    kg_session_free(&s);
    kg_session_params beyond = {.n_ctx = 61};
    assert_int_equal(kg_session_new(&s, &m.model, &beyond), KG_ERR_ARGUMENT); /* learned positions end */
    stop(&m);
}

static void device_failure(void **state)
{
    (void)state;
    struct scripted m;
    start(&m);
    int32_t ids[30];
    make_ids(ids, 30, 1);
    kg_session *s = session(&m.model, 0, 10);
    m.fail_at = 3;
    assert_int_equal(kg_session_sync(s, ids, 30), KG_ERR_DEVICE);
    assert_int_equal(kg_session_get_stats(s).n_tokens, 20);
    assert_int_equal(kg_session_get_stats(s).n_computed, 20);
    assert_null(kg_session_logits(s));
    OK(kg_session_sync(s, ids, 30));
    assert_int_equal(kg_session_get_stats(s).n_reused, 20);
    assert_non_null(kg_session_logits(s));
    kg_session_free(&s);
    stop(&m);
}

static void verify(void **state)
{
    (void)state;
    int32_t ids[40];
    make_ids(ids, 40, 9);
    kg_verify_report r;
    OK(kg_verify(model_path, NULL, ids, 40, &r));
    assert_int_equal(r.n_layers, 6);
    assert_int_equal(r.n_tokens, 40);
    for (int i = 0; i < 6; i++) assert_true(r.layer_error[i] > 0 && r.layer_error[i] < 0.2);
    assert_true(r.logits_error > 0 && r.logits_error <= r.logits_bound);
    assert_true(r.worst_logit > 0 && r.same_top > 0.8);
    kg_verify_report_free(&r);
    kg_verify_report_free(&r);
    kg_verify_report_free(NULL);
    kg_model_params p = kg_model_default_params();
    p.backend = "reference";
    OK(kg_verify(model_path, &p, ids, 3, &r));
    assert_true(r.logits_error < 1e-6 && r.same_top == 1);
    for (int i = 0; i < 6; i++) assert_true(r.layer_error[i] == 0);
    kg_verify_report_free(&r);
    assert_int_equal(kg_verify(model_path, NULL, ids, 0, &r), KG_ERR_ARGUMENT);
    ids[1] = -5;
    assert_int_equal(kg_verify(model_path, NULL, ids, 3, &r), KG_ERR_ARGUMENT);
    assert_null(r.layer_error);
}

static void hostile_files(void **state)
{
    (void)state;
    FILE *index = fopen(SHARED_DIR "/hostile/index.tsv", "r");
    if (!index) {
        print_message("skipped: no broken files at hostile/index.tsv\n");
        skip();
    }
    char line[512];
    int n = 0;
    while (fgets(line, sizeof line, index)) {
        char *tab = strchr(line, '\t');
        if (!tab || !strncmp(line, "file\t", 5)) continue;
        *tab = 0;
        char path[600];
        const char *ext = strncmp(line, "safetensors/", 12) ? "gguf" : "safetensors";
        snprintf(path, sizeof path, "%s/hostile/%s.%s", SHARED_DIR, line, ext);
        for (size_t i = 0; i < n_models; i++) {
            kg_model *m;
            kg_model_params p = kg_model_default_params();
            p.backend = kg_backend_name(i, NULL);
            if (kg_model_open(&m, path, &p) == KG_OK) fail_msg("%s was accepted", line);
            assert_null(m);
            assert_non_null(strstr(kg_error_message(), path));
            assert_null(strchr(kg_error_message(), '\n'));
        }
        n++;
    }
    fclose(index);
    assert_true(n > 60);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(backend_names),
        cmocka_unit_test(getters),
        cmocka_unit_test(batches_do_not_matter),
        cmocka_unit_test(prefix_is_reused),
        cmocka_unit_test(neighbours_share),
        cmocka_unit_test(limits),
        cmocka_unit_test(progress),
        cmocka_unit_test(threads),
        cmocka_unit_test(greedy_text),
        cmocka_unit_test(stop_strings),
        cmocka_unit_test(ends),
        cmocka_unit_test(device_failure),
        cmocka_unit_test(verify),
        cmocka_unit_test(hostile_files),
    };
    return cmocka_run_group_tests(tests, open_models, close_models);
}
