/* layers: ref */
/* The float64 decoders of the reference engine against the values that ggml decodes: rounded to f32 they must agree in every bit
 * (I64 beyond 2^53: within one ulp, see src/backend/ref/ref_decode.c). */
#include "backend/ref/ref.h"

#include <ctype.h>
#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static uint8_t *read_file(const char *dir, const char *type, const char *suffix, size_t *n)
{
    char path[1024], name[32];
    size_t i = 0;
    for (; type[i] && i + 1 < sizeof name; i++) name[i] = (char)tolower((unsigned char)type[i]);
    name[i] = 0;
    snprintf(path, sizeof path, "%s/%s.%s", dir, name, suffix);
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    fseek(f, 0, SEEK_END);
    long size = ftell(f);
    rewind(f);
    uint8_t *data = malloc(size > 0 ? (size_t)size : 1);
    assert_non_null(data);
    *n = fread(data, 1, (size_t)size, f);
    assert_int_equal(*n, size);
    fclose(f);
    return data;
}

/* Distance in f32 steps: 0 for equal bits; NaN only equals NaN, up to the quiet bit, which arithmetic may set. */
static int64_t f32_steps(float a, float b)
{
    uint32_t u = f32_bits(a), v = f32_bits(b);
    if (isnan(a) || isnan(b)) return isnan(a) && isnan(b) && (u | 0x400000u) == (v | 0x400000u) ? 0 : INT64_MAX;
    if (u == v) return 0;
    int64_t x = u >> 31 ? -(int64_t)(u & 0x7fffffffu) : u, y = v >> 31 ? -(int64_t)(v & 0x7fffffffu) : v;
    return x == y ? INT64_MAX : llabs(x - y); /* +0 is not -0 */
}

/* Decodes every block from memory of just its size, so that a sanitizer sees reads beyond it. false: no such files. */
static bool check_golden(const struct type_info *info, const char *dir, const char *variant)
{
    char suffix[32];
    size_t n_blocks_bytes, n_f32_bytes;
    snprintf(suffix, sizeof suffix, "%sblocks.bin", variant);
    uint8_t *blocks = read_file(dir, info->name, suffix, &n_blocks_bytes);
    if (!blocks) return false;
    snprintf(suffix, sizeof suffix, "%sf32.bin", variant);
    uint8_t *f32 = read_file(dir, info->name, suffix, &n_f32_bytes);
    assert_non_null(f32);
    size_t n_blocks = n_blocks_bytes / (size_t)info->block_bytes, block = (size_t)info->block;
    assert_int_equal(n_blocks * (size_t)info->block_bytes, n_blocks_bytes);
    assert_int_equal(n_blocks * block * 4, n_f32_bytes);

    uint8_t *one = malloc((size_t)info->block_bytes);
    double *y = malloc(block * sizeof *y);
    assert_true(one && y);
    for (size_t b = 0; b < n_blocks; b++) {
        memcpy(one, blocks + b * (size_t)info->block_bytes, (size_t)info->block_bytes);
        for (size_t e = 0; e < block; e++) y[e] = 12345;
        ref_decoder(info->type)(one, y);
        for (size_t e = 0; e < block; e++) {
            float want;
            memcpy(&want, f32 + 4 * (b * block + e), 4);
            int64_t allowed = info->type == TYPE_I64 && fabs(y[e]) > 0x1p53 ? 1 : 0;
            if (f32_steps((float)y[e], want) > allowed)
                fail_msg("%s %sblock %zu element %zu: %.17g is not %.9g", info->name, variant, b, e, y[e], (double)want);
        }
    }
    free(one);
    free(y);
    free(blocks);
    free(f32);
    return true;
}

static void test_golden(void **state)
{
    (void)state;
    int n = 0;
    for (size_t i = 0; type_at(i); i++) {
        if (check_golden(type_at(i), SOURCE_DIR "/tests/golden", "") || check_golden(type_at(i), SHARED_DIR "/golden", "")) n++;
        else fail_msg("no golden blocks for %s", type_at(i)->name);
    }
    assert_int_equal(n, 35);
}

/* All 65,536 16-bit floats, long runs of the grid types, blocks quantized with an importance matrix. */
static void test_golden_large(void **state)
{
    (void)state;
    static const char *const variants[] = {"all.", "big.", "imx."};
    int n = 0;
    for (size_t i = 0; type_at(i); i++)
        for (size_t v = 0; v < COUNT_OF(variants); v++) n += check_golden(type_at(i), SHARED_DIR "/golden", variants[v]);
    if (n == 0) {
        print_message("skipped: the large golden decodes are not there (%s)\n", SHARED_DIR "/golden");
        skip();
    }
    assert_true(n >= 10);
}

static void test_16_bit_floats(void **state)
{
    (void)state;
    assert_true(ref_f16(0x0001) == 0x1p-24 && ref_f16(0x03ff) == 1023 * 0x1p-24 && ref_f16(0x0400) == 0x1p-14);
    assert_true(ref_f16(0x3c00) == 1 && ref_f16(0xc500) == -5 && ref_f16(0x7bff) == 65504 && ref_f16(0x3555) == 1365.0 / 4096);
    assert_true(ref_f16(0x7c00) == INFINITY && ref_f16(0xfc00) == -INFINITY && isnan(ref_f16(0x7c01)) && isnan(ref_f16(0xffff)));
    assert_true(ref_f16(0x8000) == 0 && signbit(ref_f16(0x8000)) && !signbit(ref_f16(0)));
    assert_true(ref_bf16(0x3f80) == 1 && ref_bf16(0x0001) == 0x1p-133 && ref_bf16(0x0080) == 0x1p-126 && ref_bf16(0xc0a0) == -5);
    assert_true(ref_bf16(0x7f80) == INFINITY && ref_bf16(0xff80) == -INFINITY && isnan(ref_bf16(0x7f81)) && signbit(ref_bf16(0x8000)));
}

/* Scales at the ends of their range, which quantizers do not write; code 1 is half a unit. */
static void test_4_bit_float_scales(void **state)
{
    (void)state;
    double y[64];
    uint8_t mx[17] = {0, 1}, nv[36] = {0x7f, 0xff, 0x01, 0x08};
    ref_decoder(TYPE_MXFP4)(mx, y);
    assert_true(y[0] == 0x1p-128 && y[1] == 0);
    mx[0] = 255;
    ref_decoder(TYPE_MXFP4)(mx, y);
    assert_true(y[0] == 0x1p127);
    for (int g = 0; g < 4; g++) nv[4 + 8 * g] = 0x11;
    ref_decoder(TYPE_NVFP4)(nv, y);
    assert_true(y[0] == 0 && y[16] == 240 && y[24] == 240 && y[32] == 0x1p-10 && y[48] == 0x1p-7 && y[49] == 0);
}

/* Rows of a matrix lie one after the other, in whole blocks. */
static void test_rows(void **state)
{
    (void)state;
    uint8_t data[3 * 2 * 34];
    for (size_t i = 0; i < sizeof data; i++) data[i] = (uint8_t)i;
    for (size_t b = 0; b < 6; b++) memcpy(data + 34 * b, (uint8_t[]){0x00, 0x3c}, 2); /* scale 1 */
    struct tensor t = {"w", TYPE_Q8_0, 2, {64, 3, 1, 1}, data, sizeof data};
    double y[64];
    ref_decode_row(&t, 2, y);
    for (int i = 0; i < 64; i++) assert_true(y[i] == (int8_t)data[68 * 2 + 34 * (i / 32) + 2 + i % 32]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_golden_large),
        cmocka_unit_test(test_16_bit_floats),
        cmocka_unit_test(test_4_bit_float_scales),
        cmocka_unit_test(test_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
