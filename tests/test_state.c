/* layers: run */
/* Sessions of models that keep a state per sequence, which cannot go back: every model of tests/golden/arch that has one, on the cpu backend and the reference. However
 * a session came to hold its tokens (longer, shorter, other ones, a neighbour's, from a file; in batches of any size, by any number of threads),
 * its logits are those of a fresh computation, bit for bit; and what could be used again was. */
#include "run/run.h"

#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "arch_case.h"

#define OK(x) do { if ((x) != KG_OK) fail_msg("%s: %s: %s", name, #x, kg_error_message()); } while (0)

enum { LONG = 60, LISTS = 6, SESSIONS = 3, STEPS = 40 };

static char folder[] = "/tmp/kagari-state-XXXXXX", file[64];
static const char *name; /* of the model */
static int32_t lists[LISTS][LONG]; /* with common beginnings of several lengths */
static float *want[LISTS][LONG];   /* after so many tokens and one */
static size_t n_vocab;

static kg_model *open_model(const char *backend, int n_threads)
{
    kg_model *m;
    kg_model_params p = kg_model_default_params();
    p.backend = backend;
    p.n_threads = n_threads;
    OK(kg_model_open(&m, folder, &p));
    return m;
}

static kg_session *session(kg_model *m, int n_batch)
{
    kg_session *s;
    OK(kg_session_new(&s, m, &(kg_session_params){.n_ctx = LONG, .n_batch = n_batch}));
    return s;
}

static void make_lists(int vocab)
{
    static const int common[LISTS] = {0, 50, 33, 32, 7, 1};
    uint32_t x = 1;
    for (int k = 0; k < LISTS; k++)
        for (int i = 0; i < LONG; i++) lists[k][i] = i < common[k] ? lists[0][i] : (int32_t)((x = x * 1664525u + 1013904223u) >> 8) % vocab;
}

/* One token at a time, one thread. */
static void compute_wanted(const char *backend)
{
    kg_model *m = open_model(backend, 1);
    n_vocab = (size_t)kg_model_n_vocab(m);
    make_lists((int)n_vocab);
    for (int k = 0; k < LISTS; k++) {
        kg_session *s = session(m, 1);
        for (size_t n = 1; n <= LONG; n++) {
            OK(kg_session_sync(s, lists[k], n));
            free(want[k][n - 1]);
            want[k][n - 1] = malloc(n_vocab * sizeof(float));
            assert_non_null(want[k][n - 1]);
            memcpy(want[k][n - 1], kg_session_logits(s), n_vocab * sizeof(float));
        }
        kg_session_free(&s);
    }
    kg_model_close(&m);
}

static void check(const kg_session *s, int list, size_t n)
{
    if (memcmp(kg_session_logits(s), want[list][n - 1], n_vocab * sizeof(float)) != 0) fail_msg("%s: list %d, %zu tokens: other logits", name, list, n);
}

static void batches_and_threads(const char *backend)
{
    static const int sizes[] = {2, 7, 512};
    for (int threads = 1; threads <= 3; threads += 2) {
        kg_model *m = open_model(backend, threads);
        for (size_t i = 0; i < COUNT_OF(sizes); i++) {
            kg_session *s = session(m, sizes[i]);
            OK(kg_session_sync(s, lists[0], LONG));
            check(s, 0, LONG);
            kg_session_free(&s);
        }
        kg_model_close(&m);
    }
}

static size_t computed(kg_session *s, int list, size_t n)
{
    OK(kg_session_sync(s, lists[list], n));
    check(s, list, n);
    return kg_session_get_stats(s).n_computed;
}

/* What a conversation does: a prompt, an answer, the next prompt, the same again, another answer to the first prompt. */
static void goes_back(kg_model *m)
{
    kg_session *s = session(m, 0), *t = session(m, 0);
    assert_int_equal(computed(s, 0, 20), 20);
    for (size_t n = 21; n <= 30; n++) assert_int_equal(computed(s, 0, n), 1);
    assert_int_equal(computed(s, 0, 30), 0);
    assert_int_equal(computed(s, 0, 45), 15);
    assert_int_equal(computed(s, 0, 45), 0);
    assert_int_equal(computed(s, 0, 44), 14); /* from the end of the answer */
    assert_int_equal(computed(s, 0, 20), 1);  /* from before the first prompt's last token */
    assert_int_equal(computed(s, 3, 40), 20); /* the first 32 are the same, the state is that after 20 */
    assert_int_equal(computed(s, 4, 40), 40); /* 7 are the same: from the beginning */
    assert_int_equal(computed(t, 4, 41), 1);  /* the neighbour's */
    assert_int_equal(computed(t, 4, 60), 19);
    kg_session_free(&s);
    assert_int_equal(computed(t, 4, 42), 1); /* from where the last went on */
    kg_session_free(&t);
    assert_int_equal(m->kv.n_unused_states, m->kv.n_states);
}

static void whatever_comes(kg_model *m)
{
    kg_session *s[SESSIONS];
    uint32_t x = 7;
    for (int i = 0; i < SESSIONS; i++) s[i] = session(m, 1 + 5 * i);
    for (int step = 0; step < STEPS; step++) {
        uint32_t r[3];
        for (int i = 0; i < 3; i++) r[i] = (x = x * 1664525u + 1013904223u) >> 8;
        computed(s[r[0] % SESSIONS], (int)(r[1] % LISTS), 1 + r[2] % LONG);
    }
    for (int i = 0; i < SESSIONS; i++) kg_session_free(&s[i]);
    assert_int_equal(m->kv.n_unused_states, m->kv.n_states);
    assert_true(m->kv.n_states <= SESSIONS * (1 + KV_KEPT) + 1);
}

static void files(kg_model *m)
{
    kg_session *s = session(m, 0), *t = session(m, 0);
    assert_int_equal(computed(s, 0, 30), 30);
    assert_int_equal(computed(s, 0, 40), 10);
    OK(kg_session_save(s, file));
    kg_session_free(&s);
    OK(kg_session_load(t, file));
    assert_int_equal(computed(t, 0, 41), 1);
    OK(kg_session_load(t, file));
    assert_int_equal(computed(t, 0, 40), 1);
    OK(kg_session_load(t, file));
    assert_int_equal(computed(t, 0, 30), 1);
    FILE *f = fopen(file, "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, -20, SEEK_END), 0); /* of the last state */
    const int c = fgetc(f);
    assert_int_equal(fseek(f, -20, SEEK_END), 0);
    fputc(c ^ 1, f);
    fclose(f);
    assert_int_equal(kg_session_load(t, file), KG_ERR_FORMAT);
    assert_int_equal(computed(t, 0, 31), 1); /* what it held it still holds */
    unlink(file);
    kg_session_free(&t);
}

static void stateful_models(void **state)
{
    (void)state;
    static const char *const backends[] = {"cpu", "reference"};
    static struct cases c;
    struct dirent **list;
    int n_run = 0;
    assert_non_null(mkdtemp(folder));
    snprintf(file, sizeof file, "%s/cache", folder);
    const int n = scandir(SOURCE_DIR "/tests/golden/arch", &list, NULL, alphasort);
    assert_true(n > 2);
    for (int i = 0; i < n; i++) {
        struct model m;
        name = list[i]->d_name;
        if (name[0] == '.') continue;
        read_case(name, &c);
        write_model(folder, name, &c);
        free(c.logits);
        OK(model_open(&m, folder));
        const bool has_state = m.program.n_state > 0;
        model_close(&m);
        for (size_t b = 0; has_state && b < COUNT_OF(backends); b++, n_run++) {
            compute_wanted(backends[b]);
            batches_and_threads(backends[b]);
            kg_model *model = open_model(backends[b], 1);
            goes_back(model);
            whatever_comes(model);
            files(model);
            kg_model_close(&model);
        }
    }
    assert_true(n_run > 0);
    for (int i = 0; i < n; i++) free(list[i]);
    free(list);
    for (int k = 0; k < LISTS; k++)
        for (int i = 0; i < LONG; i++) free(want[k][i]);
    static const char *const made[] = {"model.safetensors", "config.json"};
    for (size_t i = 0; i < COUNT_OF(made); i++) {
        char path[100];
        snprintf(path, sizeof path, "%s/%s", folder, made[i]);
        unlink(path);
    }
    rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(stateful_models)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
