/* layers: base */
/* Status messages, arena, byte buffer, and what the operating system gives: file maps and what cannot be mapped, large buffers. */
#include "base/os.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- status ---- */

static void messages_are_one_line(void **state)
{
    (void)state;
    assert_int_equal(status_set(KG_ERR_FORMAT, "key \"%s\" has %d", "a\nb\tc\x7f", 3), KG_ERR_FORMAT);
    assert_string_equal(kg_error_message(), "key \"a?b?c?\" has 3");
    assert_int_equal(status_prefix(KG_ERR_IO, "file\r%d", 7), KG_ERR_IO);
    assert_string_equal(kg_error_message(), "file?7: key \"a?b?c?\" has 3");
    status_set(KG_ERR_IO, "again: %s", kg_error_message()); /* the old message as an argument of the new one */
    assert_string_equal(kg_error_message(), "again: file?7: key \"a?b?c?\" has 3");
}

static void messages_are_cut(void **state)
{
    (void)state;
    char text[2000];
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = 0;
    status_set(KG_ERR_IO, "%s", text);
    assert_int_equal(strlen(kg_error_message()), 511);
    status_prefix(KG_ERR_IO, "head");
    assert_int_equal(strlen(kg_error_message()), 511);
    assert_memory_equal(kg_error_message(), "head: xxx", 9);
    status_set(KG_ERR_IO, "short");
    status_prefix(KG_ERR_IO, "%s", text); /* a long prefix leaves room for the message */
    assert_non_null(strstr(kg_error_message(), ": short"));
}

/* ---- arena ---- */

static void arena_gives_zeroed_aligned_memory(void **state)
{
    (void)state;
    struct arena a = {0};
    enum { N = 300 };
    unsigned char *p[N];
    size_t size[N], x = 1;
    for (int i = 0; i < N; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        size[i] = (x >> 33) % (i % 10 == 0 ? 200000 : 3000);
        p[i] = arena_alloc(&a, size[i]);
        assert_non_null(p[i]);
        assert_int_equal((uintptr_t)p[i] % 64, 0);
        for (size_t j = 0; j < size[i]; j++) assert_int_equal(p[i][j], 0);
        memset(p[i], i % 251 + 1, size[i]);
    }
    for (int i = 0; i < N; i++) /* nobody wrote into another's memory */
        for (size_t j = 0; j < size[i]; j++) assert_int_equal(p[i][j], i % 251 + 1);
    assert_true(a.n_bytes > 0);
    char *s = arena_strndup(&a, "hello world", 5);
    assert_string_equal(s, "hello");
    arena_free(&a);
    assert_null(a.chunks);
    assert_int_equal(a.n_bytes, 0);
    arena_free(&a);
}

static void arena_refuses_what_does_not_fit(void **state)
{
    (void)state;
    struct arena a = {0};
    static const size_t products[][2] = {{SIZE_MAX, 2}, {SIZE_MAX / 8 + 2, 8}, {(size_t)1 << 33, (size_t)1 << 33}, {SIZE_MAX, 1}, {SIZE_MAX / 2 + 1, 1}};
    for (size_t i = 0; i < COUNT_OF(products); i++) {
        status_set(KG_ERR_IO, "old");
        assert_null(arena_array(&a, products[i][0], products[i][1]));
        assert_non_null(strstr(kg_error_message(), "out of memory"));
    }
    assert_non_null(arena_array(&a, 0, 8));
    arena_free(&a);
}

/* ---- buffer ---- */

static void buffer_grows(void **state)
{
    (void)state;
    struct buf b = {0};
    assert_int_equal(buf_append(&b, NULL, 0), KG_OK);
    assert_int_equal(b.len, 0);
    for (int i = 0; i < 5000; i++) assert_int_equal(i % 3 ? buf_append(&b, "abc\0d", 5) : buf_printf(&b, "%05d", i), KG_OK);
    assert_int_equal(b.len, 25000);
    assert_true(b.cap > b.len);
    assert_int_equal(b.data[b.len], 0);
    for (int i = 0; i < 5000; i++) {
        char want[8];
        snprintf(want, sizeof want, "%05d", i);
        assert_memory_equal(b.data + 5 * i, i % 3 ? "abc\0d" : want, 5);
    }
    assert_int_equal(buf_printf(&b, "%s", ""), KG_OK);
    assert_int_equal(b.len, 25000);
    assert_int_equal(buf_append(&b, "x", SIZE_MAX / 2), KG_ERR_MEMORY);
    assert_int_equal(b.len, 25000);
    buf_free(&b);
    assert_null(b.data);
    buf_free(&b);
}

/* ---- files ---- */

static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/kagari-test-os-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return rmdir(folder);
}

static void write_file(const char *path, const void *data, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void map_shows_the_file(void **state)
{
    (void)state;
    char path[128];
    snprintf(path, sizeof path, "%s/data", folder);
    size_t n = 3 * 65536 + 123;
    uint8_t *data = malloc(n);
    assert_non_null(data);
    for (size_t i = 0; i < n; i++) data[i] = (uint8_t)(i * 7 + i / 256);
    write_file(path, data, n);
    struct os_map map;
    assert_int_equal(os_map_file(&map, path), KG_OK);
    assert_int_equal(map.n_bytes, n);
    assert_memory_equal(map.data, data, n);
    /* released pages come back, whatever part was released */
    static const size_t parts[][2] = {{0, 0}, {0, 1}, {1, 4095}, {5, 70000}, {100000, 20000}, {0, 3 * 65536 + 123}};
    for (size_t i = 0; i < COUNT_OF(parts); i++) {
        os_map_release(map.data + parts[i][0], parts[i][1]);
        assert_memory_equal(map.data, data, n);
    }
    assert_int_equal(unlink(path), 0);
    assert_memory_equal(map.data, data, n); /* a map outlives the file's name */
    os_unmap(&map);
    assert_null(map.data);
    os_unmap(&map);
    free(data);
}

static void empty_file_is_an_empty_map(void **state)
{
    (void)state;
    char path[128];
    snprintf(path, sizeof path, "%s/empty", folder);
    write_file(path, "", 0);
    struct os_map map = {(const uint8_t *)"x", 1};
    assert_int_equal(os_map_file(&map, path), KG_OK);
    assert_null(map.data);
    assert_int_equal(map.n_bytes, 0);
    os_unmap(&map);
    unlink(path);
}

static void refuse(const char *path, const char *why)
{
    struct os_map map = {(const uint8_t *)"x", 1};
    assert_int_equal(os_map_file(&map, path), KG_ERR_IO);
    assert_null(map.data);
    if (!strstr(kg_error_message(), why)) fail_msg("\"%s\" does not say \"%s\"", kg_error_message(), why);
}

static void what_cannot_be_mapped(void **state)
{
    (void)state;
    char path[128];
    refuse(folder, strerror(EISDIR));
    assert_non_null(strstr(kg_error_message(), folder));
    snprintf(path, sizeof path, "%s/missing", folder);
    refuse(path, strerror(ENOENT));
    assert_non_null(strstr(kg_error_message(), path));
    refuse("", strerror(ENOENT));
    refuse("/dev/null", "not a regular file");
    snprintf(path, sizeof path, "%s/secret", folder);
    write_file(path, "x", 1);
    assert_int_equal(chmod(path, 0), 0);
    if (geteuid() != 0) refuse(path, strerror(EACCES)); /* root may read it */
    unlink(path);
}

/* A pipe that nobody writes to: opening it the simple way would wait for ever. */
static void a_pipe_does_not_block(void **state)
{
    (void)state;
    char path[128];
    snprintf(path, sizeof path, "%s/pipe", folder);
    assert_int_equal(mkfifo(path, 0600), 0);
    alarm(20);
    refuse(path, "not a regular file");
    alarm(0);
    unlink(path);
}

static void long_paths_keep_the_reason(void **state)
{
    (void)state;
    char path[6000];
    for (size_t i = 0; i < sizeof path - 1; i++) path[i] = i % 100 ? 'p' : '/';
    path[0] = '/';
    path[3000] = 0;
    memcpy(path + 3000 - 9, "last.gguf", 10);
    refuse(path, strerror(ENOENT));
    assert_non_null(strstr(kg_error_message(), "last.gguf: "));
    memset(path, 'p', sizeof path - 1);
    path[sizeof path - 1] = 0;
    refuse(path, strerror(ENAMETOOLONG));
    assert_true(strlen(kg_error_message()) < 511);
}

/* ---- memory, clock, processors ---- */

static void large_buffers(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 63, 4096, 5 << 20};
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        unsigned char *p = os_alloc(sizes[i]);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 64, 0);
        for (size_t j = 0; j < sizes[i]; j++) assert_int_equal(p[j], 0);
        memset(p, 1, sizes[i]);
        os_free(p, sizes[i]);
    }
    os_free(NULL, 5);
    assert_null(os_alloc(SIZE_MAX / 2));
    assert_non_null(strstr(kg_error_message(), "out of memory"));
}

static void clock_and_processors(void **state)
{
    (void)state;
    double last = os_seconds();
    for (int i = 0; i < 1000; i++) {
        double now = os_seconds();
        assert_true(now >= last);
        last = now;
    }
    assert_true(os_n_processors() >= 1);
    assert_true(os_peak_rss() > 100000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_are_one_line),
        cmocka_unit_test(messages_are_cut),
        cmocka_unit_test(arena_gives_zeroed_aligned_memory),
        cmocka_unit_test(arena_refuses_what_does_not_fit),
        cmocka_unit_test(buffer_grows),
        cmocka_unit_test(map_shows_the_file),
        cmocka_unit_test(empty_file_is_an_empty_map),
        cmocka_unit_test(what_cannot_be_mapped),
        cmocka_unit_test(a_pipe_does_not_block),
        cmocka_unit_test(long_paths_keep_the_reason),
        cmocka_unit_test(large_buffers),
        cmocka_unit_test(clock_and_processors),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
