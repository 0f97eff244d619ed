/* layers: file */
/* The GGUF reader, the getters and kg_file: good files of every value type, every kind of broken input with its exact message,
 * cut and flipped files, and the shared collections of hostile and old files where they are there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "file/gguf_write.h"
#include "file_walk.h"
#include "gguf_writer.h"

#include <math.h>
#include <unistd.h>

#define TEMP_FILE "test_gguf.tmp.gguf"
#define NE(...)                                                                                                                            \
    COUNT_OF(((int64_t[]){__VA_ARGS__})), (int64_t[]) { __VA_ARGS__ }

/* Opens what w builds, named x.gguf. *bytes must live as long as the file. */
static kg_status open_gw(struct gw *w, struct file **f, uint8_t **bytes)
{
    size_t n;
    *bytes = gw_finish(w, &n);
    uint8_t *exact = malloc(n + (n == 0)); /* so that the sanitizer sees a read past the end */
    memcpy(exact, *bytes, n);
    free(*bytes);
    *bytes = exact;
    kg_status st = file_open_memory(f, exact, n, "x.gguf");
    if (st == KG_OK && (*f)->arena.n_bytes > 8 * n + 16384) fail_msg("%zu bytes of memory for a file of %zu", (*f)->arena.n_bytes, n);
    return st;
}

static void put_array(struct gw *w, uint32_t item, uint64_t n)
{
    gw_put_u32(&w->metas, item);
    gw_put_u64(&w->metas, n);
}

/* One key of every type, arrays, arrays of arrays, two tensors. */
static void build_all(struct gw *w)
{
    gw_str(w, "general.architecture", "llama");
    gw_u8(w, "a.u8", 255);
    gw_i8(w, "a.i8", -128);
    gw_u16(w, "a.u16", 65535);
    gw_i16(w, "a.i16", -32768);
    gw_u32(w, "a.u32", UINT32_MAX);
    gw_i32(w, "a.i32", INT32_MIN);
    gw_u64(w, "a.u64", UINT64_MAX);
    gw_i64(w, "a.i64", INT64_MIN);
    gw_f32(w, "a.f32", 0.1f);
    gw_f64(w, "a.f64", 0.1);
    gw_bool(w, "a.bool", true);
    gw_str(w, "a.str", "say \"\\\" \n\x01 \xc3\xa9 \xf0\x9f\x94\xa5 \xc2\x9b");
    gw_arr_i32(w, "r.i32", (int32_t[]){1, -2, 3, -4}, 4);
    gw_arr_f32(w, "r.f32", (float[]){1, 1e-5f, 1e10f, -INFINITY, 10000, 0.5f, -0.0f, 3.4028235e38f}, 8);
    gw_arr_str(w, "r.empty", NULL, 0);
    gw_arr(w, "r.bool", GW_BOOL, "\0\1", 2, 1);
    gw_arr_str(w, "tokenizer.ggml.tokens", (const char *[]){"a", "\xff\xe2\x82", "", "\xe2\x82\xac"}, 4);
    gw_arr_head(w, "r.nested", GW_ARR, 3); /* [["x", "y"], [], [[7, 8]]] */
    put_array(w, GW_STR, 2);
    gw_put_str(&w->metas, "x", 1);
    gw_put_str(&w->metas, "y", 1);
    put_array(w, GW_U8, 0);
    put_array(w, GW_ARR, 1);
    put_array(w, GW_U8, 2);
    gw_put(&w->metas, "\7\10", 2);
    static const float values[24] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24};
    gw_tensor(w, "m.weight", TYPE_F32, NE(3, 4, 2), values, sizeof values);
    gw_tensor(w, "q.weight", TYPE_Q4_K, NE(256, 2), NULL, 288);
}

/* The writer takes every kind of key over, arrays of arrays too. */
static void copied_keys(void **state)
{
    (void)state;
    struct gw w = {0};
    struct file *f = NULL, *again = NULL;
    struct gguf_out *o = NULL;
    build_all(&w);
    assert_true(gw_save(&w, TEMP_FILE));
    assert_int_equal(file_open(&f, TEMP_FILE), KG_OK);
    assert_int_equal(gguf_out_open(&o, TEMP_FILE ".copy"), KG_OK);
    for (size_t i = 0; i < f->n_metas; i++) assert_int_equal(gguf_out_meta(o, &f->metas[i]), KG_OK);
    assert_int_equal(gguf_out_finish(o), KG_OK);
    gguf_out_close(&o);
    assert_int_equal(file_open(&again, TEMP_FILE ".copy"), KG_OK);
    assert_int_equal(again->n_metas, f->n_metas);
    for (size_t i = 0; i < f->n_metas; i++) {
        const struct meta *a = &f->metas[i], *b = &again->metas[i];
        assert_string_equal(a->key, b->key);
        assert_true(a->type == b->type && a->item == b->item && a->n == b->n && a->n_bytes == b->n_bytes);
        assert_memory_equal(a->data, b->data, a->n_bytes);
    }
    file_close(&again);
    file_close(&f);
    unlink(TEMP_FILE);
    unlink(TEMP_FILE ".copy");
}

static void getters(void **state)
{
    (void)state;
    struct gw w = {0};
    struct file *f;
    uint8_t *bytes;
    build_all(&w);
    if (open_gw(&w, &f, &bytes) != KG_OK) fail_msg("%s", kg_error_message());
    assert_string_equal(f->path, "x.gguf");
    assert_string_equal(f->format, "GGUF v3");

    uint32_t u;
    int64_t i;
    double d;
    bool b, found;
    struct str s;
    const struct meta *m;
    static const char *const fit_u32[] = {"a.u8", "a.u16", "a.u32"}, *const negative[] = {"a.i8", "a.i16", "a.i32", "a.i64"};
    static const uint32_t want_u32[] = {255, 65535, UINT32_MAX};
    static const int64_t want_i64[] = {-128, -32768, INT32_MIN, INT64_MIN};
    for (size_t k = 0; k < COUNT_OF(fit_u32); k++) {
        assert_int_equal(file_get_u32(f, fit_u32[k], &u, NULL), KG_OK);
        assert_int_equal(u, want_u32[k]);
    }
    for (size_t k = 0; k < COUNT_OF(negative); k++) {
        assert_int_equal(file_get_i64(f, negative[k], &i, &found), KG_OK);
        assert_true(found && i == want_i64[k]);
        assert_int_equal(file_get_u32(f, negative[k], &u, NULL), KG_ERR_FORMAT);
    }
    assert_string_equal(kg_error_message(), "x.gguf: key 'a.i64': -9223372036854775808 (i64) does not fit u32");
    assert_int_equal(file_get_i64(f, "a.u64", &i, NULL), KG_ERR_FORMAT);
    assert_string_equal(kg_error_message(), "x.gguf: key 'a.u64': 18446744073709551615 (u64) does not fit i64");
    assert_int_equal(file_get_f64(f, "a.f32", &d, NULL), KG_OK);
    assert_true(d == (double)0.1f);
    assert_int_equal(file_get_f64(f, "a.f64", &d, NULL), KG_OK);
    assert_true(d == 0.1);
    assert_int_equal(file_get_bool(f, "a.bool", &b, NULL), KG_OK);
    assert_true(b);
    assert_int_equal(file_get_str(f, "general.architecture", &s, NULL), KG_OK);
    assert_true(s.len == 5 && memcmp(s.ptr, "llama", 5) == 0);

    assert_int_equal(file_get_u32(f, "a.str", &u, NULL), KG_ERR_FORMAT);
    assert_string_equal(kg_error_message(), "x.gguf: key 'a.str' must be an integer, is str");
    assert_int_equal(file_get_f64(f, "r.f32", &d, NULL), KG_ERR_FORMAT);
    assert_string_equal(kg_error_message(), "x.gguf: key 'r.f32' must be f32 or f64, is arr of f32");
    assert_int_equal(file_get_bool(f, "a.u8", &b, NULL), KG_ERR_FORMAT);
    assert_int_equal(file_get_str(f, "tokenizer.ggml.tokens", &s, NULL), KG_ERR_FORMAT);
    assert_int_equal(file_get_arr(f, "a.i32", META_I32, &m, NULL), KG_ERR_FORMAT);
    assert_string_equal(kg_error_message(), "x.gguf: key 'a.i32' must be an array of integers, is i32");
    assert_int_equal(file_get_arr(f, "r.f32", META_STR, &m, NULL), KG_ERR_FORMAT);
    assert_string_equal(kg_error_message(), "x.gguf: key 'r.f32' must be an array of str, is arr of f32");

    u = 17;
    assert_int_equal(file_get_u32(f, "none", &u, &found), KG_OK);
    assert_true(!found && u == 17);
    assert_int_equal(file_get_u32(f, "none", &u, NULL), KG_ERR_FORMAT);
    assert_string_equal(kg_error_message(), "x.gguf: missing key 'none'");

    assert_int_equal(file_get_arr(f, "r.i32", META_U32, &m, NULL), KG_OK);
    assert_true(m->n == 4 && file_arr_i64(m, 3) == -4 && file_arr_f64(m, 1) == -2);
    assert_int_equal(file_get_arr(f, "r.f32", META_F64, &m, NULL), KG_OK);
    assert_true(m->n == 8 && file_arr_f64(m, 4) == 10000);
    assert_int_equal(file_get_arr(f, "tokenizer.ggml.tokens", META_STR, &m, NULL), KG_OK);
    assert_true(m->n == 4 && m->strings[1].len == 3 && memcmp(m->strings[1].ptr, "\xff\xe2\x82", 3) == 0 && m->strings[2].len == 0);

    const struct tensor *t = file_tensor(f, "m.weight");
    assert_true(t && t->type == TYPE_F32 && t->n_dims == 3 && t->ne[0] == 3 && t->ne[1] == 4 && t->ne[2] == 2 && t->ne[3] == 1);
    assert_true(t->n_bytes == 96 && ((const float *)t->data)[23] == 24);
    t = file_tensor(f, "q.weight");
    assert_true(t && t->type == TYPE_Q4_K && t->n_bytes == 288 &&
                ((const uint8_t *)t->data - f->map.data - (ptrdiff_t)f->data_offset) == 96);
    assert_null(file_tensor(f, "Q.weight"));
    walk_file(f);
    file_close(&f);
    file_close(&f);
    free(bytes);
}

static void public_view(void **state)
{
    (void)state;
    static const struct {
        const char *key, *type, *json;
        size_t max_items;
    } wanted[] = {
        {"general.architecture", "str", "\"llama\"", 0},
        {"a.u8", "u8", "255", 0},
        {"a.i8", "i8", "-128", 0},
        {"a.u16", "u16", "65535", 0},
        {"a.i16", "i16", "-32768", 0},
        {"a.u32", "u32", "4294967295", 0},
        {"a.i32", "i32", "-2147483648", 0},
        {"a.u64", "u64", "18446744073709551615", 0},
        {"a.i64", "i64", "-9223372036854775808", 0},
        {"a.f32", "f32", "0.1", 0},
        {"a.f64", "f64", "0.1", 0},
        {"a.bool", "bool", "true", 0},
        {"a.str", "str", "\"say \\\"\\\\\\\" \\n\\u0001 \xc3\xa9 \xf0\x9f\x94\xa5 \\u009b\"", 0},
        {"r.i32", "arr[i32]", "[1, -2, ...]", 2},
        {"r.f32", "arr[f32]", "[1, 1e-05, 1e+10, null, 10000, 0.5, -0, 3.4028235e+38]", 8},
        {"r.empty", "arr[str]", "[]", 0},
        {"r.bool", "arr[bool]", "[false, true]", 0},
        {"tokenizer.ggml.tokens", "arr[str]", "[\"a\", \"\xef\xbf\xbd\xef\xbf\xbd\", \"\", \"\xe2\x82\xac\"]", 0},
        {"r.nested", "arr[arr]", "[[\"x\", ...], [], [[7, ...]]]", 0},
    };
    struct gw w = {0};
    kg_file *f = NULL;
    build_all(&w);
    assert_true(gw_save(&w, TEMP_FILE));
    if (kg_file_open(&f, TEMP_FILE) != KG_OK) fail_msg("%s", kg_error_message());
    unlink(TEMP_FILE);
    assert_string_equal(kg_file_format(f), "GGUF v3");
    assert_int_equal(kg_file_n_keys(f), COUNT_OF(wanted));
    for (size_t i = 0; i < COUNT_OF(wanted); i++) {
        char text[200], cut[6];
        size_t max = strcmp(wanted[i].key, "r.nested") == 0 ? 1 : wanted[i].max_items;
        const char *json = max == 1 ? "[[\"x\", ...], ...]" : wanted[i].json;
        assert_string_equal(kg_file_key(f, i), wanted[i].key);
        assert_string_equal(kg_file_key_type(f, i), wanted[i].type);
        assert_int_equal(kg_file_value(f, i, max, text, sizeof text), strlen(json));
        assert_string_equal(text, json);
        assert_int_equal(kg_file_value(f, i, max, cut, sizeof cut), strlen(json));
        assert_true(strlen(cut) == MIN(strlen(json), 5u) && strncmp(cut, json, strlen(cut)) == 0);
        assert_int_equal(kg_file_value(f, i, max, NULL, 0), strlen(json));
    }
    char text[200] = "?";
    kg_file_value(f, COUNT_OF(wanted) - 1, 0, text, sizeof text);
    assert_string_equal(text, "[[\"x\", \"y\"], [], [[7, 8]]]");
    kg_file_value(f, COUNT_OF(wanted) - 1, 3, text, sizeof text);
    assert_string_equal(text, "[[\"x\", \"y\"], [], [[7, 8]]]");
    assert_null(kg_file_key(f, 99));
    assert_null(kg_file_key_type(f, 99));
    assert_int_equal(kg_file_value(f, 99, 0, text, sizeof text), 0);
    assert_string_equal(text, "");

    kg_tensor_info info;
    assert_int_equal(kg_file_n_tensors(f), 2);
    assert_int_equal(kg_file_tensor(f, 1, &info), KG_OK);
    assert_string_equal(info.name, "q.weight");
    assert_string_equal(info.type, "Q4_K");
    assert_true(info.n_dims == 2 && info.dims[0] == 256 && info.dims[1] == 2 && info.dims[2] == 1 && info.n_bytes == 288);
    assert_int_equal(info.offset + info.n_bytes, kg_file_size(f));
    assert_int_equal(kg_file_tensor(f, 2, &info), KG_ERR_ARGUMENT);
    kg_file_close(&f);
    assert_null(f);
    kg_file_close(&f);
    kg_file_close(NULL);
    assert_int_equal(kg_file_open(&f, TEMP_FILE), KG_ERR_IO);
    assert_int_equal(kg_file_open(&f, "."), KG_ERR_IO);
    assert_int_equal(kg_file_open(&f, NULL), KG_ERR_ARGUMENT);
}

/* The float text must read back as the same value. */
static void floats_round_trip(void **state)
{
    (void)state;
    enum { N = 2000 };
    static float f32[N];
    static double f64[N];
    uint64_t seed = 1;
    for (int i = 0; i < N; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        f32[i] = f32_from_bits((uint32_t)(seed >> 32));
        uint64_t bits = seed ^ seed << 29;
        memcpy(&f64[i], &bits, 8);
        if (!isfinite(f32[i])) f32[i] = 1.0f / 3;
        if (!isfinite(f64[i])) f64[i] = 1.0 / 3;
    }
    struct gw w = {0};
    struct file *f;
    uint8_t *bytes;
    gw_arr_f32(&w, "f32", f32, N);
    gw_arr(&w, "f64", GW_F64, f64, N, 8);
    assert_int_equal(open_gw(&w, &f, &bytes), KG_OK);
    for (int k = 0; k < 2; k++) {
        static char text[N * 32];
        assert_true(file_value_json(f, &f->metas[k], 0, text, sizeof text) < sizeof text);
        char *p = text + 1;
        for (int i = 0; i < N; i++, p += 2) {
            if (k == 0)
                assert_true(strtof(p, &p) == f32[i]);
            else
                assert_true(strtod(p, &p) == f64[i]);
        }
    }
    file_close(&f);
    free(bytes);
}

/* ---- broken files ---- */

static void b_empty_key(struct gw *w) { gw_u32(w, "", 1); }
static void b_key_utf8(struct gw *w) { gw_u32(w, "general.\xff\xfe", 1); }
static void b_key_control(struct gw *w) { gw_u32(w, "a\x1b[2J", 1); }
static void b_key_nul(struct gw *w)
{
    gw_put_str(&w->metas, "a\0b", 3);
    gw_put(&w->metas, "\4\0\0\0\0\0\0\0", 8);
    w->n_metas++;
}
static void b_key_past(struct gw *w)
{
    gw_u32(w, "first", 1);
    gw_put_u64(&w->metas, UINT64_MAX);
    gw_put(&w->metas, NULL, 32);
    w->n_metas++;
}
static void b_key_long(struct gw *w)
{
    static char name[65537];
    memset(name, 'k', sizeof name - 1);
    gw_u32(w, name, 1);
}
static void b_dup_key(struct gw *w)
{
    gw_u32(w, "k", 1);
    gw_u32(w, "j", 1);
    gw_str(w, "k", "v");
}
static void b_type_bad(struct gw *w) { gw_raw(w, "k", 13, "abcd", 4); }
static void b_type_neg(struct gw *w) { gw_raw(w, "k", UINT32_MAX, "abcd", 4); }
static void b_bool(struct gw *w) { gw_raw(w, "k", GW_BOOL, "\2", 1); }
static void b_bool_arr(struct gw *w) { gw_arr(w, "k", GW_BOOL, "\0\1\377", 3, 1); }
static void b_scalar_past(struct gw *w) { gw_raw(w, "k.long.enough", GW_U64, "\1\2\3", 3); }
static void b_str_max(struct gw *w)
{
    gw_key(w, "k", GW_STR);
    gw_put_u64(&w->metas, UINT64_MAX);
    gw_put(&w->metas, "abcd", 4);
}
static void b_str_past(struct gw *w)
{
    gw_key(w, "k", GW_STR);
    gw_put_u64(&w->metas, 5);
    gw_put(&w->metas, "abcd", 4);
}
static void b_str_utf8(struct gw *w) { gw_str(w, "k", "a\xc0\x80"); }
static void b_str_surrogate(struct gw *w) { gw_str(w, "k", "\xed\xa0\x80"); }
static void b_arr_utf8(struct gw *w) { gw_arr_str(w, "k", (const char *[]){"a", "\xe2\x82"}, 2); }
static void b_token_str_utf8(struct gw *w) { gw_str(w, "tokenizer.chat_template", "\xff"); }
static void b_arr_type(struct gw *w) { gw_arr_head(w, "k", 77, 0); }
static void b_arr_max(struct gw *w) { gw_arr_head(w, "k", GW_U32, UINT64_MAX); }
static void b_arr_wrap(struct gw *w) { gw_arr_head(w, "k", GW_U64, (UINT64_MAX >> 3) + 2); }
static void b_arr_str_wrap(struct gw *w) { gw_arr_head(w, "k", GW_STR, (UINT64_MAX >> 3) + 2); }
static void b_arr_str_past(struct gw *w)
{
    gw_arr_head(w, "k", GW_STR, 2);
    gw_put_str(&w->metas, "abcdefgh", 8);
    gw_put_u64(&w->metas, 1);
}
static void b_arr_arr_max(struct gw *w) { gw_arr_head(w, "k", GW_ARR, UINT64_MAX); }
static void b_nested(struct gw *w)
{
    gw_arr_head(w, "k", GW_ARR, 1);
    for (int i = 0; i < 5000; i++) put_array(w, GW_ARR, 1);
    put_array(w, GW_U8, 0);
}
static void b_nested_past(struct gw *w)
{
    gw_arr_head(w, "k", GW_ARR, 1);
    put_array(w, GW_U32, 5);
    gw_put(&w->metas, NULL, 19);
}
static void b_nested_bool(struct gw *w)
{
    gw_arr_head(w, "k", GW_ARR, 1);
    put_array(w, GW_BOOL, 1);
    gw_put(&w->metas, "\3", 1);
}
static void b_counts_metas(struct gw *w)
{
    gw_u32(w, "k", 1);
    w->n_metas = UINT64_MAX;
}
static void b_counts_tensors(struct gw *w)
{
    gw_u32(w, "k", 1);
    w->n_tensors = (uint64_t)1 << 58;
}
static void b_counts_one_more(struct gw *w)
{
    gw_u8(w, "k", 1);
    w->n_metas = 2;
}

static void align(struct gw *w, uint32_t a)
{
    gw_u32(w, "general.alignment", a);
    gw_tensor(w, "t", TYPE_F32, NE(8), NULL, 32);
}
static void b_align_0(struct gw *w) { align(w, 0); }
static void b_align_3(struct gw *w) { align(w, 3); }
static void b_align_4(struct gw *w) { align(w, 4); }
static void b_align_2p30(struct gw *w) { align(w, 1u << 30); }
static void b_align_type(struct gw *w) { gw_str(w, "general.alignment", "32"); }
static void b_align_u64(struct gw *w) { gw_u64(w, "general.alignment", 32); }
static void b_align_offset(struct gw *w)
{
    gw_u32(w, "general.alignment", 64);
    gw_tensor(w, "a", TYPE_F32, NE(8), NULL, 32);
    gw_tensor(w, "b", TYPE_F32, NE(8), NULL, 32); /* at 32 */
}

static void b_dims_9(struct gw *w) { gw_tensor(w, "t", TYPE_F32, NE(1, 1, 1, 1, 1, 1, 1, 1, 1), NULL, 32); }
static void b_dims_max(struct gw *w)
{
    gw_put_str(&w->infos, "t", 1);
    gw_put_u32(&w->infos, UINT32_MAX);
    gw_put(&w->infos, NULL, 64);
    w->n_tensors++;
}
static void b_ne_negative(struct gw *w) { gw_tensor(w, "t", TYPE_F32, NE(-1, 4), NULL, 64); }
static void b_ne_zero(struct gw *w) { gw_tensor(w, "t", TYPE_F32, NE(4, 0), NULL, 64); }
static void b_ne_overflow(struct gw *w) { gw_tensor(w, "t", TYPE_F32, NE(65536, 65536, 65536, 65536), NULL, 64); }
static void b_ne_max(struct gw *w) { gw_tensor(w, "t", TYPE_Q8_0, NE(INT64_MAX - 31, INT64_MAX, INT64_MAX, INT64_MAX), NULL, 64); }
static void b_row(struct gw *w) { gw_tensor(w, "blk.0.q", TYPE_Q4_K, NE(255, 256), NULL, 64000); }
static void b_type_unknown(struct gw *w) { gw_tensor(w, "t", 9999, NE(32), NULL, 64); }
static void b_type_removed(struct gw *w) { gw_tensor(w, "t", 4, NE(32), NULL, 64); }
static void b_off_unaligned(struct gw *w)
{
    gw_tensor_info(w, "t", TYPE_F32, NE(4), 3);
    gw_put(&w->data, NULL, 64);
}
static void b_off_max(struct gw *w)
{
    gw_tensor_info(w, "t", TYPE_F32, NE(16), UINT64_MAX - 31);
    gw_put(&w->data, NULL, 64);
}
static void b_off_past(struct gw *w)
{
    gw_tensor_info(w, "t", TYPE_F32, NE(16), 32);
    gw_put(&w->data, NULL, 64);
}
static void b_too_big(struct gw *w) { gw_tensor(w, "t", TYPE_F16, NE(1024, 1024), NULL, 64); }
static void b_no_data(struct gw *w) { gw_tensor_info(w, "t", TYPE_F32, NE(1), 0); }
static void b_overlap(struct gw *w)
{
    gw_tensor_info(w, "b", TYPE_F32, NE(16), 32);
    gw_tensor_info(w, "a", TYPE_F32, NE(9), 0);
    gw_put(&w->data, NULL, 128);
}
static void b_same_place(struct gw *w)
{
    gw_tensor_info(w, "a", TYPE_F32, NE(4), 32);
    gw_tensor_info(w, "b", TYPE_F32, NE(4), 32);
    gw_put(&w->data, NULL, 64);
}
static void b_dup_tensor(struct gw *w)
{
    gw_tensor(w, "t", TYPE_F32, NE(4), NULL, 16);
    gw_tensor(w, "s", TYPE_F32, NE(4), NULL, 16);
    gw_tensor(w, "t", TYPE_F32, NE(4), NULL, 16);
}
static void b_tensor_name(struct gw *w) { gw_tensor(w, "", TYPE_F32, NE(4), NULL, 16); }
static void b_tensor_utf8(struct gw *w) { gw_tensor(w, "\x80", TYPE_F32, NE(4), NULL, 16); }
static void b_version_1(struct gw *w) { w->version = 1; }
static void b_version_4(struct gw *w) { w->version = 4; }
static void b_big_endian(struct gw *w) { w->version = 3u << 24; }

static const struct broken {
    void (*build)(struct gw *w);
    kg_status status;
    const char *message; /* after "x.gguf: " */
} broken[] = {
    {b_empty_key, KG_ERR_FORMAT, "key 1 of 1: the name is empty"},
    {b_key_utf8, KG_ERR_FORMAT, "key 1 of 1: the name is not valid UTF-8"},
    {b_key_control, KG_ERR_FORMAT, "key 1 of 1: the name contains the control character U+001B"},
    {b_key_nul, KG_ERR_FORMAT, "key 1 of 1: the name contains the control character U+0000"},
    {b_key_past, KG_ERR_FORMAT, "key 2 of 2: the name reaches past the end of the file"},
    {b_key_long, KG_ERR_FORMAT, "key 1 of 1: the name has 65536 bytes, more than 65535"},
    {b_dup_key, KG_ERR_FORMAT, "key 'k' appears twice"},
    {b_type_bad, KG_ERR_FORMAT, "key 'k': unknown value type 13"},
    {b_type_neg, KG_ERR_FORMAT, "key 'k': unknown value type 4294967295"},
    {b_bool, KG_ERR_FORMAT, "key 'k': a bool is neither 0 nor 1 but 2"},
    {b_bool_arr, KG_ERR_FORMAT, "key 'k': a bool is neither 0 nor 1 but 255"},
    {b_scalar_past, KG_ERR_FORMAT, "key 'k.long.enough': 1 x u64 reaches past the end of the file"},
    {b_str_max, KG_ERR_FORMAT, "key 'k': the string reaches past the end of the file"},
    {b_str_past, KG_ERR_FORMAT, "key 'k': the string reaches past the end of the file"},
    {b_str_utf8, KG_ERR_FORMAT, "key 'k': a string is not valid UTF-8"},
    {b_str_surrogate, KG_ERR_FORMAT, "key 'k': a string is not valid UTF-8"},
    {b_arr_utf8, KG_ERR_FORMAT, "key 'k': a string is not valid UTF-8"},
    {b_token_str_utf8, KG_ERR_FORMAT, "key 'tokenizer.chat_template': a string is not valid UTF-8"},
    {b_arr_type, KG_ERR_FORMAT, "key 'k': unknown type 77 of array items"},
    {b_arr_max, KG_ERR_FORMAT, "key 'k': 18446744073709551615 x u32 reaches past the end of the file"},
    {b_arr_wrap, KG_ERR_FORMAT, "key 'k': 2305843009213693953 x u64 reaches past the end of the file"},
    {b_arr_str_wrap, KG_ERR_FORMAT, "key 'k': 2305843009213693953 x str reaches past the end of the file"},
    {b_arr_str_past, KG_ERR_FORMAT, "key 'k': string 1 reaches past the end of the file"},
    {b_arr_arr_max, KG_ERR_FORMAT, "key 'k': the array of arrays reaches past the end of the file"},
    {b_nested, KG_ERR_UNSUPPORTED, "key 'k': arrays are nested more than 4 deep"},
    {b_nested_past, KG_ERR_FORMAT, "key 'k': 5 x u32 reaches past the end of the file"},
    {b_nested_bool, KG_ERR_FORMAT, "key 'k': a bool is neither 0 nor 1 but 3"},
    {b_counts_metas, KG_ERR_FORMAT, "18446744073709551615 keys do not fit the file (41 bytes)"},
    {b_counts_tensors, KG_ERR_FORMAT, "288230376151711744 tensors do not fit the file (41 bytes)"},
    {b_counts_one_more, KG_ERR_FORMAT, "2 keys do not fit the file (38 bytes)"},
    {b_align_0, KG_ERR_FORMAT, "key 'general.alignment': 0 is not a power of two between 8 and 1048576"},
    {b_align_3, KG_ERR_FORMAT, "key 'general.alignment': 3 is not a power of two between 8 and 1048576"},
    {b_align_4, KG_ERR_FORMAT, "key 'general.alignment': 4 is not a power of two between 8 and 1048576"},
    {b_align_2p30, KG_ERR_FORMAT, "key 'general.alignment': 1073741824 is not a power of two between 8 and 1048576"},
    {b_align_type, KG_ERR_FORMAT, "key 'general.alignment': must be of type u32, is str"},
    {b_align_u64, KG_ERR_FORMAT, "key 'general.alignment': must be of type u32, is u64"},
    {b_align_offset, KG_ERR_FORMAT, "tensor 'b': offset 32 is no multiple of the alignment 64"},
    {b_dims_9, KG_ERR_FORMAT, "tensor 't': 9 dimensions, more than 4"},
    {b_dims_max, KG_ERR_FORMAT, "tensor 't': 4294967295 dimensions, more than 4"},
    {b_ne_negative, KG_ERR_FORMAT, "tensor 't': dimension 0 is -1"},
    {b_ne_zero, KG_ERR_FORMAT, "tensor 't': dimension 1 is 0"},
    {b_ne_overflow, KG_ERR_FORMAT,
     "tensor 't': 65536 x 65536 x 65536 x 65536 elements of F32 are more than the file holds (160 bytes): it may be incomplete"},
    {b_ne_max, KG_ERR_FORMAT,
     "tensor 't': 9223372036854775776 x 9223372036854775807 x 9223372036854775807 x 9223372036854775807 elements of Q8_0 are more than "
     "the file holds (160 bytes): it may be incomplete"},
    {b_row, KG_ERR_FORMAT, "tensor 'blk.0.q': rows of 255 elements are no multiple of the 256 elements in a block of Q4_K"},
    {b_type_unknown, KG_ERR_UNSUPPORTED, "tensor 't': unknown tensor type 9999"},
    {b_type_removed, KG_ERR_UNSUPPORTED, "tensor 't': type Q4_2 (id 4) was removed from the format: convert the model again"},
    {b_off_unaligned, KG_ERR_FORMAT, "tensor 't': offset 3 is no multiple of the alignment 32"},
    {b_off_max, KG_ERR_FORMAT, "tensor 't': the data reaches past the end of the file"},
    {b_off_past, KG_ERR_FORMAT,
     "tensor 't': 64 bytes at offset 32 of the data reach past the end of the file (128 bytes): it may be incomplete"},
    {b_too_big, KG_ERR_FORMAT,
     "tensor 't': 1024 x 1024 x 1 x 1 elements of F16 are more than the file holds (160 bytes): it may be incomplete"},
    {b_no_data, KG_ERR_FORMAT,
     "tensor 't': 4 bytes at offset 0 of the data reach past the end of the file (57 bytes): it may be incomplete"},
    {b_overlap, KG_ERR_FORMAT, "tensor 'b': its data overlaps that of tensor 'a'"},
    {b_dup_tensor, KG_ERR_FORMAT, "tensor 't' appears twice"},
    {b_tensor_name, KG_ERR_FORMAT, "tensor 1 of 1: the name is empty"},
    {b_tensor_utf8, KG_ERR_FORMAT, "tensor 1 of 1: the name is not valid UTF-8"},
    {b_version_1, KG_ERR_UNSUPPORTED, "GGUF version 1 (August 2023) is not supported: convert the model again"},
    {b_version_4, KG_ERR_UNSUPPORTED, "GGUF version 4 is not supported (2 and 3 are)"},
    {b_big_endian, KG_ERR_UNSUPPORTED, "a big-endian GGUF file is not supported: convert it to little-endian"},
};

static void expect_error(kg_status got, kg_status status, const char *message)
{
    const char *text = kg_error_message();
    if (got != status || strncmp(text, "x.gguf: ", 8) != 0 || strcmp(text + 8, message) != 0)
        fail_msg("status %d, \"%s\"; wanted %d, \"x.gguf: %s\"", (int)got, text, (int)status, message);
}

static void broken_files(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(broken); i++) {
        struct gw w = {0};
        struct file *f;
        uint8_t *bytes;
        broken[i].build(&w);
        kg_status st = open_gw(&w, &f, &bytes);
        expect_error(st, broken[i].status, broken[i].message);
        assert_null(f);
        free(bytes);
    }
    struct gw w = {0};
    struct file *f;
    uint8_t *bytes;
    b_same_place(&w);
    assert_int_equal(open_gw(&w, &f, &bytes), KG_ERR_FORMAT);
    assert_non_null(strstr(kg_error_message(), "overlaps that of tensor"));
    free(bytes);
}

/* Names of thousands of bytes and long paths leave room for the message. */
static void long_names(void **state)
{
    (void)state;
    struct gw w = {0};
    struct file *f;
    char name[3000];
    memset(name, 'k', sizeof name - 1);
    name[99] = '\xc3'; /* the cut must not split a character */
    name[100] = '\xa9';
    name[sizeof name - 1] = 0;
    gw_raw(&w, name, GW_BOOL, "\2", 1);
    size_t n;
    uint8_t *bytes = gw_finish(&w, &n);
    assert_int_equal(file_open_memory(&f, bytes, n, name + 200), KG_ERR_FORMAT);
    free(bytes);
    char wanted[600];
    snprintf(wanted, sizeof wanted, "%.200s: key '%.99s': a bool is neither 0 nor 1 but 2", name + 200, name);
    assert_string_equal(kg_error_message(), wanted);
}

static void accepted(void **state)
{
    (void)state;
    struct file *f;
    uint8_t *bytes;
    struct gw w = {0};
    assert_int_equal(open_gw(&w, &f, &bytes), KG_OK); /* nothing in it */
    assert_true(f->n_metas == 0 && f->n_tensors == 0 && !file_meta(f, "k") && !file_tensor(f, "t"));
    file_close(&f);
    free(bytes);

    w.version = 2;
    w.alignment = 4096;
    gw_u32(&w, "general.alignment", 4096);
    gw_tensor(&w, "a", TYPE_F32, 0, NULL, "\0\0\x80\x3f", 4); /* a scalar */
    gw_tensor(&w, "b", TYPE_I8, NE(5), "abcde", 5);
    assert_int_equal(open_gw(&w, &f, &bytes), KG_OK);
    assert_string_equal(f->format, "GGUF v2");
    const struct tensor *t = file_tensor(f, "a");
    assert_true(t->n_dims == 1 && t->ne[0] == 1 && t->n_bytes == 4 && *(const float *)t->data == 1.0f);
    assert_int_equal(f->data_offset % 4096, 0);
    assert_memory_equal(file_tensor(f, "b")->data, "abcde", 5);
    file_close(&f);
    free(bytes);

    /* a gap between tensors, any order in the file, bytes after the last one */
    gw_tensor_info(&w, "late", TYPE_F32, NE(4), 128);
    gw_tensor_info(&w, "early", TYPE_F32, NE(4), 0);
    gw_put(&w.data, NULL, 200);
    assert_int_equal(open_gw(&w, &f, &bytes), KG_OK);
    walk_file(f);
    file_close(&f);
    free(bytes);

    gw_f32(&w, "nan", NAN);
    assert_int_equal(open_gw(&w, &f, &bytes), KG_OK);
    double d;
    assert_int_equal(file_get_f64(f, "nan", &d, NULL), KG_ERR_FORMAT);
    assert_string_equal(kg_error_message(), "x.gguf: key 'nan' (f32) is not a finite number");
    file_close(&f);
    free(bytes);
}

/* Every type of the table, one block per row, is accepted with its own size. */
static void all_types(void **state)
{
    (void)state;
    struct gw w = {0};
    struct file *f;
    uint8_t *bytes;
    for (size_t i = 0; type_at(i); i++) {
        const struct type_info *t = type_at(i);
        gw_tensor(&w, t->name, (uint32_t)t->type, NE(t->block, 3), NULL, 3 * (size_t)t->block_bytes);
    }
    assert_int_equal(open_gw(&w, &f, &bytes), KG_OK);
    for (size_t i = 0; type_at(i); i++) assert_int_equal(file_tensor(f, type_at(i)->name)->type, type_at(i)->type);
    walk_file(f);
    file_close(&f);
    free(bytes);
}

static void many_names(void **state)
{
    (void)state;
    enum { N = 30000 };
    struct gw w = {0};
    struct file *f;
    uint8_t *bytes;
    char name[40];
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof name, "k%d", (i * 7919) % N);
        gw_u8(&w, name, (uint8_t)i);
    }
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof name, "t%d", (i * 7919) % N);
        gw_tensor(&w, name, TYPE_I8, NE(1), &(uint8_t){(uint8_t)i}, 1);
    }
    assert_int_equal(open_gw(&w, &f, &bytes), KG_OK);
    for (int i = 0; i < N; i++) {
        uint32_t v;
        snprintf(name, sizeof name, "k%d", (i * 7919) % N);
        assert_int_equal(file_get_u32(f, name, &v, NULL), KG_OK);
        assert_int_equal(v, i & 255);
        name[0] = 't';
        assert_int_equal(*(const uint8_t *)file_tensor(f, name)->data, i & 255);
    }
    file_close(&f);
    free(bytes);
}

static void cut_at_every_byte(void **state)
{
    (void)state;
    for (uint32_t version = 2; version <= 3; version++) {
        struct gw w = {.version = version};
        build_all(&w);
        size_t n;
        uint8_t *bytes = gw_finish(&w, &n);
        for (size_t k = 0; k <= n; k++) {
            uint8_t *part = malloc(k + (k == 0));
            memcpy(part, bytes, k);
            struct file *f;
            kg_status st = file_open_memory(&f, part, k, "x.gguf");
            if ((st == KG_OK) != (k == n)) fail_msg("%zu of %zu bytes: status %d", k, n, (int)st);
            if (st != KG_OK && strncmp(kg_error_message(), "x.gguf: ", 8) != 0) fail_msg("%zu bytes: %s", k, kg_error_message());
            file_close(&f);
            free(part);
        }
        free(bytes);
    }
}

static void flipped_bytes(void **state)
{
    (void)state;
    struct gw w = {0};
    build_all(&w);
    size_t n, n_open = 0;
    uint8_t *bytes = gw_finish(&w, &n), *copy = malloc(n);
    uint64_t seed = 12345;
    for (int i = 0; i < 10000; i++) {
        memcpy(copy, bytes, n);
        int flips = 1 + i % 4;
        for (int k = 0; k < flips; k++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            copy[(seed >> 33) % n] ^= (uint8_t)(seed >> 20 | 1);
        }
        struct file *f;
        if (file_open_memory(&f, copy, n, "x.gguf") == KG_OK) {
            n_open++;
            walk_file(f);
        }
        file_close(&f);
    }
    assert_true(n_open > 100 && n_open < 9900); /* both paths were taken */
    free(copy);
    free(bytes);
}

/* ---- files that are no GGUF ---- */

static void foreign_files(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
        const char *name, *message;
    } cases[] = {
        {"", 0, "x.gguf", "the file is empty"},
        {"GGUF", 4, "x.gguf", "cut off: a GGUF header has 24 bytes, the file 4"},
        {"GGUX\3\0\0\0", 8, "x.gguf", "is not a GGUF file (it begins with 47 47 55 58 03 00 00 00)"},
        {"\0", 1, "x.gguf", "is not a GGUF file (it begins with 00)"},
        {"FUGG\1\0\0\0", 8, "x.gguf", "is a draft of GGUF from before its first release (magic \"FUGG\"): convert the model to GGUF"},
        {"tjgg\3\0\0\0", 8, "x.gguf", "is a GGJT file, a format that GGUF replaced in 2023: convert the model to GGUF"},
        {"fmgg\1\0\0\0", 8, "x.gguf", "is a GGMF file, a format that GGUF replaced in 2023: convert the model to GGUF"},
        {"lmgg\1\0\0\0", 8, "x.gguf", "is an unversioned GGML file, a format that GGUF replaced in 2023: convert the model to GGUF"},
        {"algg\1\0\0\0", 8, "x.gguf", "is a GGLA adapter (LoRA), a format that GGUF replaced in 2023: convert the model to GGUF"},
        {"PK\3\4....", 8, "x.gguf", "is a zip archive, maybe a PyTorch checkpoint: convert the model to GGUF"},
        {"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 723676\n", 70, "x.gguf",
         "is a Git LFS pointer, not the model itself (723676 bytes): fetch it with 'git lfs pull'"},
        {"<!DOCTYPE html><html>", 21, "x.gguf", "is a web page, not a model: the download went wrong"},
        {"Hello\n", 6, "x.gguf", "is a text file, not a model in GGUF"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct file *f;
        assert_int_not_equal(file_open_memory(&f, cases[i].bytes, cases[i].n, cases[i].name), KG_OK);
        assert_null(f);
        char wanted[300];
        snprintf(wanted, sizeof wanted, "%s: %s", cases[i].name, cases[i].message);
        assert_string_equal(kg_error_message(), wanted);
    }
}

/* ---- shared collections ---- */

static kg_status open_shared(const char *path, struct file **f)
{
    char full[1024];
    snprintf(full, sizeof full, SHARED_DIR "/%s", path);
    kg_status st = file_open(f, full);
    if (st == KG_ERR_IO) fail_msg("%s", kg_error_message());
    if (st == KG_OK) {
        if ((*f)->arena.n_bytes > 8 * (*f)->map.n_bytes + 16384) fail_msg("%s: %zu bytes of memory", path, (*f)->arena.n_bytes);
        walk_file(*f);
    } else {
        const char *text = kg_error_message(), *base = strrchr(path, '/') + 1;
        if (!strstr(text, base) || strchr(text, '\n')) fail_msg("%s: the message is \"%s\"", path, text);
    }
    return st;
}

static void skip_without(const char *dir)
{
    char full[1024];
    snprintf(full, sizeof full, SHARED_DIR "/%s", dir);
    if (access(full, R_OK) == 0) return;
    print_message("skipped: %s is not there\n", full);
    skip();
}

/* What the container alone cannot see: refused when the tokenizer or the model is made. */
static bool rejected_later(const char *name)
{
    static const char *const later[] = {"gguf/head_count_0",       "gguf/block_count_wrong_type", "gguf/block_count_0",  "gguf/vocab_empty",
                                        "gguf/vocab_scores_short", "gguf/vocab_types_short",      "gguf/merges_no_space"};
    for (size_t i = 0; i < COUNT_OF(later); i++)
        if (strcmp(name, later[i]) == 0) return true;
    return false;
}

static void hostile_files(void **state)
{
    (void)state;
    skip_without("hostile/index.tsv");
    FILE *index = fopen(SHARED_DIR "/hostile/index.tsv", "r");
    assert_non_null(index);
    char line[1000];
    int n_files = 0;
    while (fgets(line, sizeof line, index)) {
        char name[100], expected[100], path[300];
        if (sscanf(line, "%99[^\t]\t%*[^\t]\t%99[^\t]", name, expected) != 2 || !strchr(name, '/')) continue;
        bool gguf = strncmp(name, "gguf/", 5) == 0;
        snprintf(path, sizeof path, "hostile/%s.%s", name, gguf ? "gguf" : "safetensors");
        char full[1024];
        snprintf(full, sizeof full, SHARED_DIR "/%s", path);
        if (access(full, R_OK) != 0) {
            print_message("skipped: %s is not there\n", full);
            continue;
        }
        struct file *f;
        kg_status st = open_shared(path, &f);
        bool may_open = !gguf ? false : strcmp(expected, "reject") == 0 ? rejected_later(name) : true;
        bool must_open = strncmp(expected, "accept", 6) == 0 || rejected_later(name);
        if (st == KG_OK ? !may_open : must_open) fail_msg("%s: status %d, \"%s\"", name, (int)st, st == KG_OK ? "" : kg_error_message());
        file_close(&f);
        n_files++;
    }
    fclose(index);
    assert_true(n_files > 60);
}

static void old_files(void **state)
{
    (void)state;
    skip_without("hostile/legacy");
    static const struct {
        const char *name, *says; /* NULL: opens */
    } files[] = {
        {"FUGG-v1-example.gguf", "FUGG"},
        {"FUGG-v1-vocab-llama.gguf", "FUGG"},
        {"empty.gguf", "empty"},
        {"ggjt-v1-vocab-aquila.bin", "GGJT"},
        {"ggjt-v1-vocab-llama.bin", "GGJT"},
        {"ggjt-v1-vocab.bin", "GGJT"},
        {"ggmf-v1-vocab.bin", "GGMF"},
        {"ggml-unversioned-vocab.bin", "GGML file without a header"},
        {"gguf-v1-vocab-llama-a.gguf", "GGUF version 1"},
        {"gguf-v1-vocab-llama-b.gguf", "GGUF version 1"},
        {"gguf-v2-vocab-falcon-a.gguf", NULL},
        {"gguf-v2-vocab-falcon-b.gguf", NULL},
        {"lfs-pointer-vocab-llama.gguf", "Git LFS pointer"},
        {"test_writer.gguf", "key 'dict1': unknown value type 13"}, /* a proposed "object" type that the format never got */
    };
    for (size_t i = 0; i < COUNT_OF(files); i++) {
        char path[300];
        snprintf(path, sizeof path, "hostile/legacy/%s", files[i].name);
        struct file *f;
        kg_status st = open_shared(path, &f);
        if (st == KG_OK ? files[i].says != NULL : !files[i].says || !strstr(kg_error_message(), files[i].says))
            fail_msg("%s: status %d, \"%s\"", files[i].name, (int)st, kg_error_message());
        file_close(&f);
    }
}

static void real_files(void **state)
{
    (void)state;
    skip_without("models");
    static const struct {
        const char *path;
        size_t n_tensors, n_keys;
    } files[] = {
        {"models/gpt2-Q4_K_M.gguf", 52, 18},
        {"models/gpt2-Q8_0.gguf", 52, 18},
        {"models/gpt2-f16.gguf", 52, 18},
        {"models/stories-Q4_K_M.gguf", 56, 26},
        {"models/stories-Q8_0.gguf", 56, 26},
        {"models/stories-f16.gguf", 56, 26},
        {"tokenizers/ggml-vocab-falcon.gguf", 0, 18},
        {"tokenizers/ggml-vocab-gpt-2.gguf", 0, 16},
        {"tokenizers/ggml-vocab-llama-bpe.gguf", 0, 16},
        {"tokenizers/ggml-vocab-llama-spm.gguf", 0, 22},
        {"tokenizers/ggml-vocab-phi-3.gguf", 0, 26},
        {"tokenizers/ggml-vocab-starcoder.gguf", 0, 19},
    };
    for (size_t i = 0; i < COUNT_OF(files); i++) {
        struct file *f;
        if (open_shared(files[i].path, &f) != KG_OK) fail_msg("%s", kg_error_message());
        assert_int_equal(f->n_tensors, files[i].n_tensors);
        assert_int_equal(f->n_metas, files[i].n_keys);
        file_close(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copied_keys), cmocka_unit_test(getters),       cmocka_unit_test(public_view),   cmocka_unit_test(floats_round_trip),
        cmocka_unit_test(broken_files),  cmocka_unit_test(long_names),    cmocka_unit_test(accepted),
        cmocka_unit_test(all_types),     cmocka_unit_test(many_names),    cmocka_unit_test(cut_at_every_byte),
        cmocka_unit_test(flipped_bytes), cmocka_unit_test(foreign_files), cmocka_unit_test(hostile_files),
        cmocka_unit_test(old_files),     cmocka_unit_test(real_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
