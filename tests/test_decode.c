/* layers: tensor */
/* Decoders against golden data of ggml, bit for bit, and the integer forms against the decoders. Loops over quant.def: a new
 * type needs a file in tests/golden and no edit here. Owns no data: tests/golden has a small set, SHARED_DIR the large ones. */
#include "tensor/decode.h"

#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <cmocka.h>

enum { GUARD = 64, GUARD_BYTE = 0xa5 };

struct bytes {
    uint8_t *data; /* NULL: no such file */
    size_t n;
};

static struct bytes read_file(const char *path)
{
    struct bytes r = {0};
    FILE *f = fopen(path, "rb");
    if (!f) return r;
    assert_int_equal(fseek(f, 0, SEEK_END), 0);
    r.n = (size_t)ftell(f);
    rewind(f);
    r.data = malloc(r.n + 1);
    assert_non_null(r.data);
    assert_int_equal(fread(r.data, 1, r.n, f), r.n);
    fclose(f);
    return r;
}

/* "<dir>/<type><set>.<what>.bin", the type in lower case */
static struct bytes read_golden(const char *dir, const struct type_info *type, const char *set, const char *what)
{
    char path[4096];
    int at = snprintf(path, sizeof path, "%s/", dir);
    for (const char *c = type->name; *c; c++) path[at++] = (char)tolower((unsigned char)*c);
    snprintf(path + at, sizeof path - (size_t)at, "%s.%s.bin", set, what);
    return read_file(path);
}

/* n + 2 * GUARD bytes filled with GUARD_BYTE; returns the n in the middle */
static void *guarded_alloc(size_t n)
{
    uint8_t *p = malloc(n + 2 * GUARD);
    assert_non_null(p);
    memset(p, GUARD_BYTE, n + 2 * GUARD);
    return p + GUARD;
}

static bool all_guard(const void *p, size_t n)
{
    const uint8_t *b = p;
    for (size_t i = 0; i < n; i++)
        if (b[i] != GUARD_BYTE) return false;
    return true;
}

static void guarded_free(void *middle, size_t n)
{
    uint8_t *p = middle;
    assert_true(all_guard(p - GUARD, GUARD));
    assert_true(all_guard(p + n, GUARD));
    free(p - GUARD);
}

static void assert_same_bits(const struct type_info *type, const char *set, const float *got, const void *want, int64_t n)
{
    const uint8_t *w = want;
    for (int64_t i = 0; i < n; i++)
        if (f32_bits(got[i]) != load_u32(w + 4 * i))
            fail_msg("%s%s[%lld]: got %08x (%.9g), want %08x (%.9g)", type->name, set, (long long)i, f32_bits(got[i]), (double)got[i],
                     load_u32(w + 4 * i), (double)f32_from_bits(load_u32(w + 4 * i)));
}

/* scale * q - min must be decode_f32 to the bit: both round the same product and then the same difference, and what the integer
 * form moves from q into the scale (1/8 for IQ1) is a power of two and leaves the scale normal. */
static void check_int_form(const struct type_info *type, const char *set, const uint8_t *blocks, const void *want, int64_t n)
{
    struct int_form form = decode_int_form(type->type);
    if (!form.group) return;
    size_t n_groups = (size_t)(n / form.group), group_bytes = n_groups * sizeof(float);
    int8_t *q = guarded_alloc((size_t)n);
    float *scale = guarded_alloc(group_bytes), *min = guarded_alloc(group_bytes), *values = malloc((size_t)n * sizeof *values);
    assert_non_null(values);
    form.decode(blocks, q, scale, min, n);
    for (int64_t i = 0; i < n; i++) {
        int64_t g = i / form.group;
        float product = scale[g] * (float)q[i];
        values[i] = form.has_min ? product - min[g] : product;
    }
    assert_same_bits(type, set, values, want, n);
    if (!form.has_min) {
        assert_true(all_guard(min, group_bytes));
        form.decode(blocks, q, scale, NULL, n);
    }
    guarded_free(q, (size_t)n);
    guarded_free(scale, group_bytes);
    guarded_free(min, group_bytes);
    free(values);
}

/* Returns whether the set exists for this type. */
static bool check_set(const char *dir, const struct type_info *type, const char *set)
{
    struct bytes blocks = read_golden(dir, type, set, "blocks"), want = read_golden(dir, type, set, "f32");
    bool found = blocks.data && want.data;
    if (found) {
        int64_t n = (int64_t)(want.n / sizeof(float));
        assert_int_equal(n % type->block, 0);
        assert_int_equal(blocks.n, n / type->block * type->block_bytes);
        float *got = guarded_alloc(want.n);
        decode_f32(type->type)(blocks.data, got, n);
        assert_same_bits(type, set, got, want.data, n);
        guarded_free(got, want.n);
        check_int_form(type, set, blocks.data, want.data, n);
    }
    free(blocks.data);
    free(want.data);
    return found;
}

static void every_type_matches_golden(void **state)
{
    (void)state;
    const struct type_info *type;
    for (size_t i = 0; (type = type_at(i)); i++)
        if (!check_set(SOURCE_DIR "/tests/golden", type, "")) fail_msg("tests/golden has no data for %s", type->name);
}

/* .all: every bit pattern of the 16-bit floats; .big: every entry of the grids; .imx: quantized with an importance matrix */
static void larger_sets_match_golden(void **state)
{
    (void)state;
    static const char *const sets[] = {"", ".all", ".big", ".imx"};
    struct stat st;
    if (stat(SHARED_DIR "/golden", &st) != 0) {
        print_message("skipped: the larger golden sets, as there is no " SHARED_DIR "/golden\n");
        skip();
    }
    const struct type_info *type;
    for (size_t s = 0; s < COUNT_OF(sets); s++) {
        int n_found = 0;
        for (size_t i = 0; (type = type_at(i)); i++) n_found += check_set(SHARED_DIR "/golden", type, sets[s]);
        print_message("golden set '%s': %d types\n", sets[s], n_found);
        assert_true(n_found > 0);
    }
}

/* Each block of the golden data alone, from every alignment, in buffers of exactly its size. */
static void check_single_blocks(const struct type_info *type, const uint8_t *blocks, const uint8_t *want, int64_t n)
{
    struct int_form form = decode_int_form(type->type);
    size_t bytes = (size_t)type->block_bytes, n_groups = form.group ? (size_t)(type->block / form.group) : 0;
    for (int64_t i = 0; i < n / type->block; i++) {
        size_t out_bytes = (size_t)type->block * sizeof(float), min_bytes = form.has_min ? n_groups * sizeof(float) : 0;
        uint8_t *src = malloc(bytes + (size_t)i % 8), *at = src + i % 8; /* ends with the allocation: a sanitizer sees any overrun */
        assert_non_null(src);
        memcpy(at, blocks + (size_t)i * bytes, bytes);
        float *got = guarded_alloc(out_bytes);
        decode_f32(type->type)(at, got, 0);
        assert_true(all_guard(got, out_bytes));
        decode_f32(type->type)(at, got, type->block);
        assert_same_bits(type, " single block", got, want + (size_t)i * out_bytes, type->block);
        guarded_free(got, out_bytes);
        if (form.group) {
            int8_t *q = guarded_alloc((size_t)type->block);
            float *scale = guarded_alloc(n_groups * sizeof(float)), *min = guarded_alloc(min_bytes);
            form.decode(at, q, scale, min, 0);
            assert_true(all_guard(q, (size_t)type->block) && all_guard(scale, n_groups * sizeof(float)));
            form.decode(at, q, scale, min, type->block);
            guarded_free(q, (size_t)type->block);
            guarded_free(scale, n_groups * sizeof(float));
            guarded_free(min, min_bytes);
        }
        free(src);
    }
}

static void single_unaligned_blocks(void **state)
{
    (void)state;
    const struct type_info *type;
    for (size_t i = 0; (type = type_at(i)); i++) {
        struct bytes blocks = read_golden(SOURCE_DIR "/tests/golden", type, "", "blocks");
        struct bytes want = read_golden(SOURCE_DIR "/tests/golden", type, "", "f32");
        assert_true(blocks.data && want.data);
        check_single_blocks(type, blocks.data, want.data, MIN((int64_t)(want.n / sizeof(float)), 32 * (int64_t)type->block));
        free(blocks.data);
        free(want.data);
    }
}

/* Codes that quantizers do not write, so that the golden data has none. */
static void rare_codes(void **state)
{
    (void)state;
    static const struct {
        uint8_t code;
        float scale;
    } e8m0[] = {{0, 0x1p-128f}, {1, 0x1p-127f}, {2, 0x1p-126f}, {128, 1}, {255, 0x1p127f}},
      e4m3[] = {{0, 0}, {1, 0x1p-10f}, {7, 0x7p-10f}, {8, 0x1p-7f}, {0x38, 0.5f}, {0x7e, 224}, {0x7f, 0}, {0x80, 0}, {0xff, 240}};
    static const struct {
        uint16_t f16;
        uint32_t f32;
    } halves[] = {{0x0001, 0x33800000}, {0x83ff, 0xb87fc000}, {0x0400, 0x38800000}, {0x7bff, 0x477fe000}, {0x8000, 0x80000000},
                  {0x7c00, 0x7f800000}, {0xfc00, 0xff800000}, {0x7c01, 0x7fc02000}, {0xfe01, 0xffc02000}};
    uint8_t block[36] = {0};
    float y[64];
    memset(block + 1, 0x11, 16); /* code 1, which is half of 1.0 */
    for (size_t i = 0; i < COUNT_OF(e8m0); i++) {
        block[0] = e8m0[i].code;
        decode_f32(TYPE_MXFP4)(block, y, 32);
        for (int j = 0; j < 32; j++) assert_int_equal(f32_bits(y[j]), f32_bits(e8m0[i].scale));
    }
    memset(block + 4, 0x11, 32);
    for (size_t i = 0; i < COUNT_OF(e4m3); i++) {
        memset(block, e4m3[i].code, 4);
        decode_f32(TYPE_NVFP4)(block, y, 64);
        for (int j = 0; j < 64; j++) assert_int_equal(f32_bits(y[j]), f32_bits(e4m3[i].scale));
    }
    for (size_t i = 0; i < COUNT_OF(halves); i++) {
        decode_f32(TYPE_F16)(&halves[i].f16, y, 1);
        assert_int_equal(f32_bits(y[0]), halves[i].f32);
    }
}

static void forms_fit_their_types(void **state)
{
    (void)state;
    const struct type_info *type;
    for (size_t i = 0; (type = type_at(i)); i++) {
        struct int_form form = decode_int_form(type->type);
        assert_non_null(decode_f32(type->type));
        assert_int_equal(form.group != 0, type->block > 1);
        if (!form.group) continue;
        assert_non_null(form.decode);
        assert_true(form.group >= 16 && form.group <= 256 && (form.group & (form.group - 1)) == 0);
        assert_int_equal(type->block % form.group, 0);
    }
    for (int id = -1; id < 100; id++) /* ids without a type */
        if (id < 0 || !type_by_id((uint32_t)id)) {
            assert_null(decode_f32((enum tensor_type)id));
            assert_int_equal(decode_int_form((enum tensor_type)id).group, 0);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_matches_golden), cmocka_unit_test(larger_sets_match_golden),
        cmocka_unit_test(single_unaligned_blocks),   cmocka_unit_test(rare_codes),
        cmocka_unit_test(forms_fit_their_types),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
