/* Rows and columns between folders and GGUF. */
#include "file/order.h"

#include <stdio.h>

kg_status order_kind(const struct file *f, struct order_kind *out)
{
    bool found;
    *out = (struct order_kind){false, false};
    KG_TRY(file_get_bool(f, "kagari.rope_halves", &out->halves, &found));
    return file_get_bool(f, "kagari.heads_grouped", &out->grouped, &found);
}

/* ---- numbers of a model */

static kg_status number(const struct file *f, const char *key, uint32_t *out, bool *found)
{
    struct str arch;
    char text[160];
    KG_TRY(file_get_str(f, "general.architecture", &arch, NULL));
    snprintf(text, sizeof text, "%.*s.%s", (int)MIN(arch.len, 60), arch.ptr, key);
    const struct meta *m = found ? file_meta(f, text) : NULL;
    if (!m || m->type != META_ARR || (m->item != META_I32 && m->item != META_U32)) return file_get_u32(f, text, out, found);
    for (uint64_t i = 0; i < m->n; i++) /* one for each layer, 0 where there is no attention */
        if (file_arr_i64(m, i) > 0) *out = (uint32_t)file_arr_i64(m, i);
    return KG_OK;
}

static kg_status read_heads(const struct file *f, struct order *o)
{
    uint32_t heads = 0, kv_heads;
    bool found;
    KG_TRY(number(f, "attention.head_count", &heads, NULL));
    kv_heads = heads;
    KG_TRY(number(f, "attention.head_count_kv", &kv_heads, &found));
    if (heads == 0 || kv_heads == 0) return status_set(KG_ERR_FORMAT, "%s: the model has no heads", f->path);
    o->heads = heads;
    o->kv_heads = kv_heads;
    return KG_OK;
}

static kg_status read_values(const struct file *f, struct order *o)
{
    uint32_t v_heads = 0, k_heads = 0, inner = 0;
    KG_TRY(number(f, "ssm.time_step_rank", &v_heads, NULL));
    KG_TRY(number(f, "ssm.group_count", &k_heads, NULL));
    KG_TRY(number(f, "ssm.inner_size", &inner, NULL));
    if (v_heads == 0 || k_heads == 0 || v_heads % k_heads || inner % v_heads) return status_set(KG_ERR_FORMAT, "%s: its heads do not fit each other", f->path);
    o->v_heads = v_heads;
    o->k_heads = k_heads;
    o->v_dim = inner / v_heads;
    return KG_OK;
}

kg_status order_read(const struct file *model, struct order_kind from, struct order *out)
{
    *out = (struct order){.from = from};
    if (from.halves) KG_TRY(read_heads(model, out));
    return from.grouped ? read_values(model, out) : KG_OK;
}

/* ---- one tensor */

/* Whether t is called ...what, or is a part of the adapter of such a matrix. */
static bool is(const struct tensor *t, const char *what)
{
    size_t n = strlen(t->name), m = strlen(what);
    if (n > 7 && (strcmp(t->name + n - 7, ".lora_a") == 0 || strcmp(t->name + n - 7, ".lora_b") == 0)) n -= 7;
    return n >= m && memcmp(t->name + n - m, what, m) == 0;
}

static bool is_part(const struct tensor *t, char which)
{
    const size_t n = strlen(t->name);
    return n > 7 && strncmp(t->name + n - 7, ".lora_", 6) == 0 && t->name[n - 1] == which;
}

/* Of an adapter B has the rows of the matrix, A its columns. */
static int64_t n_rows(const struct tensor *t) { return is_part(t, 'a') ? 0 : t->n_dims == 1 ? t->ne[0] : tensor_n_rows(t); }

static int64_t heads_of(const struct order *o, const struct tensor *t)
{
    if (!o->from.halves) return 0;
    return is(t, ".attn_q.weight") || is(t, ".attn_q.bias") ? o->heads : is(t, ".attn_k.weight") || is(t, ".attn_k.bias") ? o->kv_heads : 0;
}

/* Which element, of n in v_heads parts, comes at i. */
static int64_t tiled(const struct order *o, int64_t i, int64_t n)
{
    const int64_t part = n / o->v_heads, head = i / part;
    return (head % o->k_heads * (o->v_heads / o->k_heads) + head / o->k_heads) * part + i % part;
}

/* The first of the rows that are heads of values; n: there are none. */
static int64_t first_tiled(const struct order *o, const struct tensor *t, int64_t n)
{
    static const char *const all[] = {".attn_gate.weight", ".ssm_alpha.weight", ".ssm_beta.weight", ".ssm_a", ".ssm_dt.bias"};
    if (!o->from.grouped) return n;
    for (size_t i = 0; i < COUNT_OF(all); i++)
        if (is(t, all[i])) return 0;
    return strstr(t->name, ".ssm_conv1d.") || strstr(t->name, ".attn_qkv.") ? n - o->v_heads * o->v_dim : n;
}

bool order_moves_columns(const struct order *o, const struct tensor *t) { return o->from.grouped && is(t, ".ssm_out.weight") && !is_part(t, 'b'); }

kg_status order_check(const struct order *o, const struct tensor *t)
{
    const int64_t n = n_rows(t), heads = heads_of(o, t), first = n ? first_tiled(o, t, n) : 0;
    if (n && heads && n % (2 * heads)) return status_set(KG_ERR_FORMAT, "tensor %s: %lld rows do not fit %lld heads", t->name, (long long)n, (long long)heads);
    if (first < 0 || (o->from.grouped && ((n - first) % o->v_heads || (order_moves_columns(o, t) && t->ne[0] % o->v_heads))))
        return status_set(KG_ERR_FORMAT, "tensor %s does not fit %lld heads", t->name, (long long)o->v_heads);
    return KG_OK;
}

int64_t order_row(const struct order *o, const struct tensor *t, int64_t r)
{
    const int64_t n = n_rows(t), heads = n ? heads_of(o, t) : 0, dim = heads ? n / heads : 0, first = n ? first_tiled(o, t, n) : 0;
    if (n && r >= first) return first + tiled(o, r - first, n - first);
    return heads ? r / dim * dim + r % dim % 2 * (dim / 2) + r % dim / 2 : r;
}

int64_t order_column(const struct order *o, const struct tensor *t, int64_t i) { return order_moves_columns(o, t) ? tiled(o, i, t->ne[0]) : i; }
