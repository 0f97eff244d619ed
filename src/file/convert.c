/* kg_convert: a Hugging Face folder, or any other model file, to a GGUF as llama.cpp's conversion would write it. Names and keys are those
 * that the reader gave; here is what that conversion does to the numbers: which type each tensor gets, the order of rows in Q and K, and that of
 * the heads of a gated delta net. */
#include "base/half.h"
#include "file/gguf_write.h"
#include "file/reader.h"
#include "file/rotate.h"
#include "tensor/decode.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct convert {
    struct file *in;
    struct gguf_out *out;
    enum tensor_type to; /* of matrices; unless keep */
    bool keep;
    bool unrotate; /* Q and K: halves of a head become pairs */
    struct rotation rotation;
    bool tile; /* heads of values that belong to one of keys, side by side: apart, see struct delta in model/program.h */
    int64_t v_heads, k_heads, v_dim;
    float *x;      /* one row */
    uint8_t *y, *z;
};

static const struct {
    const char *name;
    enum tensor_type type;
    uint32_t file_type; /* general.file_type */
} types[] = {{"f32", TYPE_F32, 0}, {"f16", TYPE_F16, 1}, {"bf16", TYPE_BF16, 32}};

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

/* Vectors, positions, routers, convolutions and what is no weight of a matrix stay exact. */
static enum tensor_type type_for(const struct convert *c, const struct tensor *t)
{
    if (t->type != TYPE_F32 && t->type != TYPE_F16 && t->type != TYPE_BF16 && t->type != TYPE_F64) return t->type;
    if (t->n_dims == 1 || ends_with(t->name, "norm.weight") || strcmp(t->name, "position_embd.weight") == 0 || strcmp(t->name, "token_types.weight") == 0 ||
        ends_with(t->name, ".ffn_gate_inp.weight") || strstr(t->name, "conv.weight") || strstr(t->name, "conv1d.weight") || !ends_with(t->name, ".weight"))
        return TYPE_F32;
    if (!c->keep) return c->to;
    return t->type == TYPE_F64 ? TYPE_F32 : t->type;
}

/* Which element, of elements in v_heads parts, comes at i of the output. */
static int64_t tiled(const struct convert *c, int64_t i, int64_t n)
{
    const int64_t part = n / c->v_heads, head = i / part;
    return (head % c->k_heads * (c->v_heads / c->k_heads) + head / c->k_heads) * part + i % part;
}

/* The first of the rows that are heads of values; n_rows: there are none. */
static int64_t first_tiled_row(const struct convert *c, const struct tensor *t, int64_t n_rows)
{
    static const char *const all[] = {".attn_gate.weight", ".ssm_alpha.weight", ".ssm_beta.weight", ".ssm_a", ".ssm_dt.bias"};
    if (!c->tile) return n_rows;
    for (size_t i = 0; i < COUNT_OF(all); i++)
        if (ends_with(t->name, all[i])) return 0;
    return strstr(t->name, ".ssm_conv1d.") || (strstr(t->name, ".attn_qkv.")) ? n_rows - c->v_heads * c->v_dim : n_rows;
}

/* What comes at row r of the output. The file has a head's rows as all first halves of pairs, then all second ones. */
static int64_t source_row(const struct convert *c, const struct tensor *t, int64_t r, int64_t n_rows)
{
    const int64_t first = first_tiled_row(c, t, n_rows);
    if (r >= first) return first + tiled(c, r - first, n_rows - first);
    return c->unrotate ? rotation_row(&c->rotation, t->name, r, n_rows) : r;
}

/* n elements of t, at p, in the type that they get; *too_large: an infinity that was none. */
static void put_elements(const struct convert *c, const struct tensor *t, const uint8_t *p, enum tensor_type to, int64_t n, bool *too_large)
{
    if (to == t->type) {
        memcpy(c->y, p, (size_t)n * (size_t)type_by_id((uint32_t)to)->block_bytes);
        return;
    }
    decode_f32(t->type)(p, c->x, n);
    for (int64_t i = 0; i < n; i++) {
        uint16_t h = to == TYPE_F16 ? f16_from_f32(c->x[i]) : to == TYPE_BF16 ? bf16_from_f32(c->x[i]) : 0;
        if (to == TYPE_F16 && isfinite(c->x[i]) && (h & 0x7c00) == 0x7c00) *too_large = true;
        if (to == TYPE_F32) memcpy(c->y + 4 * i, &c->x[i], 4);
        else memcpy(c->y + 2 * i, &h, 2);
    }
}

static kg_status write_tensor(const struct convert *c, const struct tensor *t)
{
    enum tensor_type to = type_for(c, t);
    const struct type_info *from = type_by_id((uint32_t)t->type);
    const bool columns = c->tile && ends_with(t->name, ".ssm_out.weight");
    if (from->block > 1 || (to == t->type && !c->unrotate && !c->tile)) return gguf_out_data(c->out, t->data, t->n_bytes);
    bool vector = t->n_dims == 1, too_large = false;
    int64_t n_rows = vector ? t->ne[0] : tensor_n_rows(t), n = vector ? 1 : t->ne[0];
    size_t row_bytes = (size_t)n * (size_t)from->block_bytes, out_bytes = (size_t)n * (size_t)type_by_id((uint32_t)to)->block_bytes;
    const size_t size = out_bytes / (size_t)n;
    for (int64_t r = 0; r < n_rows; r++) {
        put_elements(c, t, (const uint8_t *)t->data + (size_t)source_row(c, t, r, n_rows) * row_bytes, to, n, &too_large);
        for (int64_t i = 0; i < n && columns; i++) memcpy(c->z + (size_t)i * size, c->y + (size_t)tiled(c, i, n) * size, size);
        KG_TRY(gguf_out_data(c->out, columns ? c->z : c->y, out_bytes));
    }
    if (too_large) return status_set(KG_ERR_UNSUPPORTED, "tensor %s has values beyond the range of F16: choose bf16 or f32", t->name);
    return KG_OK;
}

/* What GGUF has no key for and a tokenizer needs goes along; what only says how a folder lies does not. */
static bool stays_behind(const struct file *f, const char *key)
{
    static const char *const tokenizer[] = {"tokenizer_steps", "added_flags", "scores", "symbols_inside", "max_word", "tokens_before", "tokens_after", "split_unknown", "ignore_merges"};
    if (strncmp(key, "kagari.", 7) != 0) return strcmp(key, "general.file_type") == 0 || strcmp(key, "general.quantization_version") == 0 || strcmp(key, "general.alignment") == 0;
    for (size_t i = 0; i < COUNT_OF(tokenizer); i++)
        if (strcmp(key + 7, tokenizer[i]) == 0) return false;
    return strcmp(key, "kagari.bpe_merges") != 0 || !file_meta(f, "kagari.tokenizer_steps"); /* else the scores say nearly the same */
}

static kg_status write_keys(const struct convert *c, int type_index)
{
    const struct file *f = c->in;
    for (size_t i = 0; i < f->n_metas; i++) {
        const char *key = f->metas[i].key;
        if (!stays_behind(f, key)) KG_TRY(gguf_out_meta(c->out, &f->metas[i]));
    }
    KG_TRY(gguf_out_u32(c->out, "general.quantization_version", 2));
    return gguf_out_u32(c->out, "general.file_type", types[type_index].file_type);
}

/* The heads, where rows of Q and K must move. */
static kg_status read_heads(struct convert *c)
{
    bool found;
    KG_TRY(file_get_bool(c->in, "kagari.rope_halves", &c->unrotate, &found));
    return c->unrotate ? rotation_read(c->in, &c->rotation) : KG_OK;
}

/* The heads of a gated delta net, where they must move. */
static kg_status read_tiles(struct convert *c)
{
    const struct file *f = c->in;
    struct str arch;
    char key[128];
    bool found;
    uint32_t v[3] = {0};
    static const char *const names[] = {"ssm.time_step_rank", "ssm.group_count", "ssm.inner_size"};
    KG_TRY(file_get_bool(f, "kagari.heads_grouped", &c->tile, &found));
    if (!c->tile) return KG_OK;
    KG_TRY(file_get_str(f, "general.architecture", &arch, NULL));
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        snprintf(key, sizeof key, "%.*s.%s", (int)MIN(arch.len, 60), arch.ptr, names[i]);
        KG_TRY(file_get_u32(f, key, &v[i], NULL));
    }
    if (v[0] == 0 || v[1] == 0 || v[0] % v[1] || v[2] % v[0]) return status_set(KG_ERR_FORMAT, "%s: its heads do not fit each other", f->path);
    c->v_heads = v[0];
    c->k_heads = v[1];
    c->v_dim = v[2] / v[0];
    return KG_OK;
}

static kg_status check_tiles(const struct convert *c, const struct tensor *t)
{
    const int64_t rows = t->n_dims == 1 ? t->ne[0] : tensor_n_rows(t), first = first_tiled_row(c, t, rows);
    if (first >= 0 && (rows - first) % MAX(c->v_heads, (int64_t)1) == 0 && (!c->tile || !ends_with(t->name, ".ssm_out.weight") || t->ne[0] % c->v_heads == 0)) return KG_OK;
    return status_set(KG_ERR_FORMAT, "tensor %s does not fit %lld heads", t->name, (long long)c->v_heads);
}

/* The most frequent float type of the matrices names the file. */
static int main_type(const struct convert *c)
{
    size_t bytes[COUNT_OF(types)] = {0};
    int best = 0;
    for (size_t i = 0; i < c->in->n_tensors; i++)
        for (size_t k = 0; k < COUNT_OF(types); k++)
            if (type_for(c, &c->in->tensors[i]) == types[k].type) bytes[k] += c->in->tensors[i].n_bytes;
    for (int k = 1; k < (int)COUNT_OF(types); k++)
        if (bytes[k] > bytes[best]) best = k;
    return best;
}

static kg_status run(struct convert *c)
{
    const struct file *f = c->in;
    int64_t widest = 1;
    if (f->n_metas == 0) return status_set(KG_ERR_UNSUPPORTED, "%s: is a file of tensors alone: a model is a folder with config.json", f->path);
    if (file_meta(f, "kagari.embedding_step")) return status_set(KG_ERR_UNSUPPORTED, "%s: a step behind pooling (modules.json) has no place in the GGUF that is written", f->path);
    KG_TRY(read_heads(c));
    KG_TRY(read_tiles(c));
    KG_TRY(write_keys(c, main_type(c)));
    for (size_t i = 0; i < f->n_tensors; i++) {
        const struct tensor *t = &f->tensors[i];
        widest = MAX(widest, t->ne[0]);
        if (c->unrotate) KG_TRY(rotation_check(&c->rotation, t->name, t->n_dims == 1 ? t->ne[0] : tensor_n_rows(t)));
        KG_TRY(check_tiles(c, t));
        KG_TRY(gguf_out_tensor(c->out, t->name, type_for(c, t), t->n_dims, t->ne));
    }
    c->x = malloc((size_t)widest * sizeof *c->x);
    c->y = malloc((size_t)widest * 8);
    c->z = malloc((size_t)widest * 8);
    if (!c->x || !c->y || !c->z) return status_set(KG_ERR_MEMORY, "out of memory");
    for (size_t i = 0; i < f->n_tensors; i++) {
        KG_TRY(write_tensor(c, &f->tensors[i]));
        os_map_release(f->tensors[i].data, f->tensors[i].n_bytes);
    }
    return gguf_out_finish(c->out);
}

kg_status kg_convert(const char *in, const char *out, const char *type)
{
    struct convert c = {.keep = !type || strcmp(type, "auto") == 0};
    if (!in || !out) return status_set(KG_ERR_ARGUMENT, "kg_convert: a path is NULL");
    size_t k = 0;
    while (!c.keep && k < COUNT_OF(types) && strcmp(types[k].name, type) != 0) k++;
    if (k == COUNT_OF(types)) return status_set(KG_ERR_ARGUMENT, "kg_convert: type '%.20s' is none of auto, f32, f16, bf16", type);
    if (!c.keep) c.to = types[k].type;
    KG_TRY(file_open(&c.in, in));
    kg_status st = gguf_out_open(&c.out, out);
    if (st == KG_OK) st = run(&c);
    gguf_out_close(&c.out);
    file_close(&c.in);
    free(c.x);
    free(c.y);
    free(c.z);
    return st;
}
