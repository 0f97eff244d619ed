/* Touches everything that an opened file offers, for tests and fuzzing: what the reader accepted must be safe to use. */
#ifndef TESTS_FILE_WALK_H
#define TESTS_FILE_WALK_H

#include "file/reader.h"

#include <stdlib.h>

static inline uint64_t walk_bytes(const void *p, size_t n)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++) sum += ((const uint8_t *)p)[i];
    return sum;
}

static inline uint64_t walk_meta(const struct file *f, const struct meta *m)
{
    uint64_t sum = walk_bytes(m->key, strlen(m->key)) + (file_meta(f, m->key) == m);
    uint32_t u;
    int64_t i64;
    double d;
    bool b, found = false;
    struct str s;
    const struct meta *a;
    sum += file_get_u32(f, m->key, &u, &found) == KG_OK && found ? u : 0;
    sum += file_get_i64(f, m->key, &i64, NULL) == KG_OK ? (uint64_t)i64 : 0;
    sum += file_get_f64(f, m->key, &d, NULL) == KG_OK && d > 0;
    sum += file_get_bool(f, m->key, &b, NULL) == KG_OK && b;
    sum += file_get_str(f, m->key, &s, NULL) == KG_OK ? walk_bytes(s.ptr, s.len) : 0;
    for (int t = 0; t < META_N_TYPES; t++) sum += file_get_arr(f, m->key, (enum meta_type)t, &a, NULL) == KG_OK;
    for (uint64_t i = 0; i < m->n; i++) {
        if (m->strings)
            sum += walk_bytes(m->strings[i].ptr, m->strings[i].len);
        else if (m->item == META_F32 || m->item == META_F64)
            sum += file_arr_f64(m, i) > 0;
        else if (m->item != META_ARR)
            sum += (uint64_t)file_arr_i64(m, i) + (file_arr_f64(m, i) > 0);
    }
    char few[64];
    size_t n = file_value_json(f, m, 3, few, sizeof few);
    sum += walk_bytes(few, strlen(few)) + n;
    n = file_value_json(f, m, 0, NULL, 0);
    char *all = malloc(n + 1);
    if (all && file_value_json(f, m, 0, all, n + 1) == n && strlen(all) == n) sum += walk_bytes(all, n);
    free(all);
    return sum;
}

static inline uint64_t walk_file(const struct file *f)
{
    uint64_t sum = walk_bytes(f->format, strlen(f->format));
    for (size_t i = 0; i < f->n_metas; i++) sum += walk_meta(f, &f->metas[i]);
    for (size_t i = 0; i < f->n_tensors; i++) {
        const struct tensor *t = &f->tensors[i];
        sum += walk_bytes(t->name, strlen(t->name)) + (file_tensor(f, t->name) == t);
        sum += walk_bytes(tensor_row(t, 0), tensor_row_bytes(t));
        sum += walk_bytes(tensor_row(t, tensor_n_rows(t) - 1), tensor_row_bytes(t));
        sum += walk_bytes(t->data, t->n_bytes);
    }
    return sum;
}

#endif
