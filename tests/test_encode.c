/* layers: tensor */
/* Quantizers: error against that of ggml's quantizer (the gaussian half of the golden blocks came from it), weights, values that a type
 * holds exactly, and rows of extremes. Loops over quant.def: a new type needs no edit here. */
#include "tensor/decode.h"
#include "tensor/encode.h"

#include <ctype.h>
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N = 4096, BLOCKS_MOST = 8 * N };

/* The first N values of tests/golden/NAME.f32.bin: what ggml's quantizer made of the gaussian values, which F32 holds as they are. */
static bool read_golden(const char *type, float *to)
{
    char path[512], name[32];
    size_t i = 0;
    for (; type[i] && i + 1 < sizeof name; i++) name[i] = (char)tolower((unsigned char)type[i]);
    name[i] = 0;
    snprintf(path, sizeof path, "%s/tests/golden/%s.f32.bin", SOURCE_DIR, name);
    FILE *f = fopen(path, "rb");
    if (!f) return false;
    bool good = fread(to, sizeof *to, N, f) == N;
    fclose(f);
    return good;
}

static double error(const float *a, const float *b, const float *w)
{
    double diff = 0, all = 0;
    for (int i = 0; i < N; i++) {
        double e = (double)a[i] - (double)b[i], wi = w ? (double)w[i] : 1;
        diff += wi * e * e;
        all += wi * (double)b[i] * (double)b[i];
    }
    return sqrt(diff / all);
}

static void encode_decode(const struct type_info *t, const float *x, const float *w, float *y)
{
    static uint8_t blocks[BLOCKS_MOST];
    encode_f32(t->type)(x, w, blocks, N);
    decode_f32(t->type)(blocks, y, N);
}

/* Every type with a quantizer: no more error than ggml's on the same numbers. */
static void error_of_gaussians(void **state)
{
    static float x[N], theirs[N], ours[N];
    (void)state;
    assert_true(read_golden("f32", x));
    for (size_t i = 0; type_at(i); i++) {
        const struct type_info *t = type_at(i);
        if (!encode_f32(t->type)) continue;
        assert_true(read_golden(t->name, theirs));
        encode_decode(t, x, NULL, ours);
        double mine = error(ours, x, NULL), ggml = error(theirs, x, NULL);
        print_message("%-8s error %.6f, ggml %.6f\n", t->name, mine, ggml);
        assert_true(mine <= ggml * (1 + 1e-6));
    }
}

/* Weights make the weighted error smaller, never larger than by a search's luck. */
static void weights_count(void **state)
{
    static float x[N], w[N], plain[N], weighted[N];
    (void)state;
    assert_true(read_golden("f32", x));
    for (int i = 0; i < N; i++) w[i] = expf(3 * sinf(0.7f * (float)(i % 1024)));
    for (size_t i = 0; type_at(i); i++) {
        const struct type_info *t = type_at(i);
        if (!encode_f32(t->type)) continue;
        encode_decode(t, x, NULL, plain);
        encode_decode(t, x, w, weighted);
        assert_true(error(weighted, x, w) <= error(plain, x, w) * 1.0001);
        if (t->block > 1 && t->type != TYPE_MXFP4) assert_true(error(weighted, x, w) < error(plain, x, w));
    }
}

/* With importances, too, no more error than ggml's, of the types that ggml lets importances decide about (tools/mkweighted.py). */
static void error_with_weights(void **state)
{
    static float x[N], w[N], ours[N];
    char name[32];
    double ggml;
    int n = 0;
    (void)state;
    assert_true(read_golden("f32", x));
    for (int i = 0; i < N; i++) {
        const float v = x[(i % 1024 * 7 + 3) % 1024];
        w[i] = v * v + 0.01f;
    }
    FILE *f = fopen(SOURCE_DIR "/tests/golden/weighted_errors.txt", "r");
    assert_non_null(f);
    while (fscanf(f, "%31s %lf", name, &ggml) == 2) {
        for (size_t i = 0; type_at(i); i++) {
            if (strcmp(type_at(i)->name, name) != 0) continue;
            encode_decode(type_at(i), x, w, ours);
            print_message("%-8s weighted error %.6f, ggml %.6f\n", name, error(ours, x, w), ggml);
            assert_true(error(ours, x, w) <= ggml * (1 + 1e-6));
            n++;
        }
    }
    fclose(f);
    assert_true(n > 15);
}

/* Encoding what was decoded changes little: far less than the first time. */
static void again(void **state)
{
    static float x[N], once[N], twice[N];
    (void)state;
    assert_true(read_golden("f32", x));
    for (size_t i = 0; type_at(i); i++) {
        const struct type_info *t = type_at(i);
        if (!encode_f32(t->type)) continue;
        encode_decode(t, x, NULL, once);
        encode_decode(t, once, NULL, twice);
        double first = error(once, x, NULL), second = error(twice, once, NULL);
        print_message("%-8s again %.2e of the first error\n", t->name, first > 0 ? second / first : 0);
        assert_true(second <= 0.35 * first);
    }
}

/* Zeros stay zeros; one large value among small ones, constant rows, tiny and huge values stay finite. */
static void extremes(void **state)
{
    static float x[N], y[N], w[N];
    (void)state;
    for (size_t i = 0; type_at(i); i++) {
        const struct type_info *t = type_at(i);
        if (!encode_f32(t->type)) continue;
        memset(x, 0, sizeof x);
        memset(w, 0, sizeof w);
        encode_decode(t, x, w, y);
        for (int j = 0; j < N; j++) assert_true(y[j] == 0);
        const float values[] = {1, -1, 0.02f, 1e-30f, 60000, FLT_MIN / 4};
        for (size_t v = 0; v < COUNT_OF(values); v++) {
            for (int j = 0; j < N; j++) x[j] = values[v];
            encode_decode(t, x, NULL, y);
            for (int j = 0; j < N; j++) assert_true(isfinite(y[j]));
            /* the scales of FP4 types are powers of two, or too coarse for small values and too short for large ones */
            bool coarse = t->type == TYPE_MXFP4 || (t->type == TYPE_NVFP4 && fabsf(values[v]) != 1);
            double e = error(y, x, NULL);
            if (fabsf(values[v]) >= 0.02f && !coarse && e > 0.01) fail_msg("%s: %g becomes %g", t->name, (double)values[v], (double)y[0]);
            for (int j = 0; j < N; j++) x[j] = j % 37 ? 0 : values[v];
            encode_decode(t, x, NULL, y);
            for (int j = 0; j < N; j++) assert_true(isfinite(y[j]));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(error_of_gaussians), cmocka_unit_test(weights_count), cmocka_unit_test(error_with_weights), cmocka_unit_test(again),
                                       cmocka_unit_test(extremes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
