/* Rows of Q and K between folders and GGUF. */
#include "file/rotate.h"

#include <stdio.h>

static int64_t heads_of(const struct rotation *rot, const char *name)
{
    const size_t n = strlen(name);
    if (n > 7 && strcmp(name + n - 7, ".lora_a") == 0) return 0; /* of an adapter's two, B has the rows */
    return strstr(name, ".attn_q.") ? rot->heads : strstr(name, ".attn_k.") ? rot->kv_heads : 0;
}

int64_t rotation_row(const struct rotation *rot, const char *name, int64_t r, int64_t n_rows)
{
    const int64_t heads = heads_of(rot, name), dim = heads ? n_rows / heads : 0;
    return heads ? r / dim * dim + r % dim % 2 * (dim / 2) + r % dim / 2 : r;
}

kg_status rotation_check(const struct rotation *rot, const char *name, int64_t n_rows)
{
    const int64_t heads = heads_of(rot, name);
    if (heads == 0 || n_rows % (2 * heads) == 0) return KG_OK;
    return status_set(KG_ERR_FORMAT, "tensor %s: %lld rows do not fit %lld heads", name, (long long)n_rows, (long long)heads);
}

kg_status rotation_read(const struct file *f, struct rotation *out)
{
    struct str arch;
    char key[128];
    bool found;
    uint32_t heads = 0, kv_heads = 0;
    KG_TRY(file_get_str(f, "general.architecture", &arch, NULL));
    snprintf(key, sizeof key, "%.*s.attention.head_count", (int)MIN(arch.len, 60), arch.ptr);
    KG_TRY(file_get_u32(f, key, &heads, NULL));
    kv_heads = heads;
    snprintf(key, sizeof key, "%.*s.attention.head_count_kv", (int)MIN(arch.len, 60), arch.ptr);
    const struct meta *m = file_meta(f, key);
    if (m && m->type == META_ARR && (m->item == META_I32 || m->item == META_U32)) { /* one for each layer, 0 where there is no attention */
        for (uint64_t i = 0; i < m->n; i++)
            if (file_arr_i64(m, i) > 0) kv_heads = (uint32_t)file_arr_i64(m, i);
    } else {
        KG_TRY(file_get_u32(f, key, &kv_heads, &found));
    }
    if (heads == 0 || kv_heads == 0) return status_set(KG_ERR_FORMAT, "%s: the model has no heads", f->path);
    *out = (struct rotation){heads, kv_heads};
    return KG_OK;
}
