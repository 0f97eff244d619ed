/* Opens a Hugging Face folder as one model file: its weights stay mapped, under the names that GGUF has for them. Copied is only what a
 * program cannot use as it lies there: see adapt(). Owns the folder; what config.json means is hf_config.c's. */
#include "file/hf_vocab.h"

#include "base/half.h"

#include <dirent.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { MAX_JSON_BYTES = 1 << 28, MAX_TEMPLATE_BYTES = 1 << 20, MAX_EXPERTS = 4096, NAME_BYTES = 160 };

struct folder {
    struct file *f;
    const char *path;
    const struct hf_family *family;
    json_t *config;
    struct meta_out out;
};

static kg_status join(const struct folder *d, const char *name, char **out)
{
    size_t n = strlen(d->path) + strlen(name) + 2;
    *out = arena_alloc(&d->f->arena, n);
    if (!*out) return KG_ERR_MEMORY;
    snprintf(*out, n, "%s/%s", d->path, name);
    return KG_OK;
}

static bool has(const struct folder *d, const char *name)
{
    char *path;
    return join(d, name, &path) == KG_OK && access(path, F_OK) == 0;
}

/* Python writes Infinity, which is no JSON: outside of strings it becomes a number as long and nearly as large. */
static void spell_infinity(char *text, size_t n)
{
    bool quoted = false;
    for (size_t i = 0; i < n; i++) {
        if (quoted && text[i] == '\\') i++;
        else if (text[i] == '"') quoted = !quoted;
        else if (!quoted && n - i >= 8 && memcmp(text + i, "Infinity", 8) == 0) memcpy(text + i, "1e308   ", 8);
    }
}

/* *out NULL: the folder has no such file, and needs none. */
static kg_status load_json(const struct folder *d, const char *name, bool optional, json_t **out)
{
    char *path;
    struct os_map map;
    *out = NULL;
    if (optional && !has(d, name)) return KG_OK;
    KG_TRY(join(d, name, &path));
    KG_TRY(os_map_file(&map, path));
    json_error_t error;
    kg_status st = KG_OK;
    if (map.n_bytes > MAX_JSON_BYTES) st = status_set(KG_ERR_UNSUPPORTED, "%s has more than %d bytes", name, MAX_JSON_BYTES);
    char *copy = NULL;
    if (st == KG_OK && !(*out = json_loadb((const char *)map.data, map.n_bytes, JSON_REJECT_DUPLICATES, &error)) && (copy = malloc(map.n_bytes + 1)) != NULL) {
        if (map.n_bytes) memcpy(copy, map.data, map.n_bytes);
        spell_infinity(copy, map.n_bytes);
        *out = json_loadb(copy, map.n_bytes, JSON_REJECT_DUPLICATES, &error);
    }
    free(copy);
    if (st == KG_OK && !*out) st = status_set(KG_ERR_FORMAT, "%s is not valid JSON: %s (line %d)", name, error.text, error.line);
    os_unmap(&map);
    return st;
}

/* ---- files of weights */

static kg_status load_shard(const struct folder *d, const char *name)
{
    char *path;
    struct os_map map;
    if (!*name || strchr(name, '/')) return status_set(KG_ERR_FORMAT, "'%.*s' is no name of a file of weights", file_shown(name), name);
    KG_TRY(join(d, name, &path));
    KG_TRY(file_map_more(d->f, path, &map));
    kg_status st = foreign_is_pointer(&map) ? foreign_refuse(&map) : safetensors_read(d->f, &map);
    return st == KG_OK ? KG_OK : status_prefix(st, "%.*s", file_shown(name), name);
}

static int by_text(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

/* A file, whose tensors must be those that the index has in it. */
static kg_status load_listed(const struct folder *d, const json_t *map, const char *name)
{
    const size_t before = d->f->n_tensors;
    KG_TRY(load_shard(d, name));
    for (size_t i = before; i < d->f->n_tensors; i++) {
        const char *tensor = d->f->tensors[i].name, *said = json_string_value(json_object_get(map, tensor));
        if (said && strcmp(said, name) == 0) continue;
        return status_set(KG_ERR_FORMAT, "%.*s has '%.*s', for which model.safetensors.index.json %s%.*s", file_shown(name), name, file_shown(tensor), tensor, said ? "names " : "names no file",
                          said ? file_shown(said) : 0, said ? said : "");
    }
    return KG_OK;
}

/* Every file that the index names, each once. */
static kg_status load_indexed(const struct folder *d, const json_t *map)
{
    size_t n = json_object_size(map), k = 0;
    const char **files = arena_array(&d->f->arena, n + 1, sizeof *files);
    const char *tensor;
    json_t *v;
    if (n == 0) return status_set(KG_ERR_FORMAT, "model.safetensors.index.json has no weight_map");
    if (!files) return KG_ERR_MEMORY;
    json_object_foreach((json_t *)(uintptr_t)map, tensor, v) {
        files[k] = json_string_value(v);
        if (!files[k++]) return status_set(KG_ERR_FORMAT, "model.safetensors.index.json: the file of '%.*s' is not a string", file_shown(tensor), tensor);
    }
    qsort(files, n, sizeof *files, by_text);
    for (size_t i = 0; i < n; i++)
        if (i == 0 || strcmp(files[i], files[i - 1]) != 0) KG_TRY(load_listed(d, map, files[i]));
    if (d->f->n_tensors == n) return KG_OK;
    return status_set(KG_ERR_FORMAT, "model.safetensors.index.json lists %zu tensors, the files have %zu", n, d->f->n_tensors);
}

/* How many files of the folder end so; one of them. */
static int count_files(const struct folder *d, const char *end, char found[256])
{
    int n = 0;
    DIR *dir = opendir(d->path);
    found[0] = 0;
    for (struct dirent *e; dir && (e = readdir(dir));) {
        const size_t len = strlen(e->d_name);
        if (len <= strlen(end) || len >= 256 || !hf_ends_with(e->d_name, end)) continue;
        memcpy(found, e->d_name, len + 1);
        n++;
    }
    if (dir) closedir(dir);
    return n;
}

/* Says what the folder has in the place of what is missing. */
static kg_status refuse_missing(const struct folder *d, const char *what)
{
    static const char *const pickles[] = {".bin", ".pth", ".pt", ".ckpt"};
    char found[256];
    if (count_files(d, ".gguf", found)) return status_set(KG_ERR_FORMAT, "the folder has no %s, but %.*s: give that file", what, file_shown(found), found);
    for (size_t i = 0; i < COUNT_OF(pickles); i++)
        if (count_files(d, pickles[i], found))
            return status_set(KG_ERR_UNSUPPORTED, "the folder has no %s, but weights of PyTorch (%.*s), which are a program and not read: save them as Safetensors", what, file_shown(found), found);
    return status_set(KG_ERR_IO, "the folder has no %s", what);
}

/* The one *.safetensors of a folder that has neither an index nor a file of the usual name. */
static kg_status load_only(const struct folder *d)
{
    char found[256];
    const int n = count_files(d, ".safetensors", found);
    if (n == 1) return load_shard(d, found);
    if (n == 0) return refuse_missing(d, "*.safetensors");
    return status_set(KG_ERR_FORMAT, "%d files of weights and no model.safetensors.index.json that says what each is", n);
}

static kg_status load_weights(const struct folder *d, const char *only)
{
    json_t *index;
    KG_TRY(load_json(d, "model.safetensors.index.json", true, &index));
    const json_t *map = json_object_get(index, "weight_map");
    bool listed = !only;
    const char *key;
    json_t *v;
    if (only && map) json_object_foreach((json_t *)(uintptr_t)map, key, v) listed |= json_is_string(v) && strcmp(json_string_value(v), only) == 0;
    kg_status st;
    if (index && listed)
        st = load_indexed(d, map);
    else
        st = only ? load_shard(d, only) : has(d, "model.safetensors") ? load_shard(d, "model.safetensors") : load_only(d);
    json_decref(index);
    return st;
}

/* ---- tensors that must be copied */

static kg_status copy_of(const struct folder *d, struct tensor *t, size_t n_bytes, uint8_t **out)
{
    void *p = NULL;
    KG_TRY(file_alloc_more(d->f, n_bytes, &p));
    *out = p;
    t->data = p;
    t->n_bytes = n_bytes;
    return KG_OK;
}

/* {in, out} -> {out, in}: programs want the elements of an output row side by side. */
static kg_status transpose(const struct folder *d, struct tensor *t)
{
    size_t size = (size_t)type_by_id((uint32_t)t->type)->block_bytes, rows = (size_t)t->ne[1], cols = (size_t)t->ne[0];
    const uint8_t *from = t->data;
    uint8_t *to;
    if (t->n_dims != 2) return status_set(KG_ERR_FORMAT, "tensor %s is not a matrix", t->name);
    KG_TRY(copy_of(d, t, t->n_bytes, &to));
    for (size_t r0 = 0; r0 < rows; r0 += 32) /* in squares: a column at a time would miss the cache with each element */
        for (size_t c = 0; c < cols; c++)
            for (size_t r = r0; r < MIN(r0 + 32, rows); r++) memcpy(to + (c * rows + r) * size, from + (r * cols + c) * size, size);
    t->ne[0] = (int64_t)rows;
    t->ne[1] = (int64_t)cols;
    return KG_OK;
}

/* Each number becomes another, as F32, which is how GGUF has them. */
static kg_status map_f32(const struct folder *d, struct tensor *t, double (*fn)(double))
{
    const uint8_t *from = t->data;
    size_t n = (size_t)(t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3]);
    uint8_t *to;
    enum tensor_type type = t->type;
    if (type != TYPE_F32 && type != TYPE_F16 && type != TYPE_BF16) return status_set(KG_ERR_UNSUPPORTED, "tensor %s is not supported in this type", t->name);
    KG_TRY(copy_of(d, t, n * 4, &to));
    for (size_t i = 0; i < n; i++) {
        const float v = (float)fn((double)hf_number(type, from, i));
        memcpy(to + 4 * i, &v, 4);
    }
    t->type = TYPE_F32;
    return KG_OK;
}

static double plus_one(double w) { return w + 1; }
static double minus_exp(double w) { return -exp(w); }

/* Of Mamba 2 one number per head is a row of its own, and the norm has a row per group. */
static kg_status shape_as_rows(const struct folder *d, struct tensor *t)
{
    const int64_t groups = MAX(hf_config_number(d->family, d->config, "ssm.group_count"), (int64_t)1), n = strstr(t->name, ".ssm_norm.") ? groups : t->ne[0];
    if (t->n_dims != 1 || t->ne[0] % n) return status_set(KG_ERR_FORMAT, "tensor %s does not fit %" PRId64 " groups", t->name, groups);
    t->ne[0] /= n;
    t->ne[1] = n;
    t->n_dims = 2;
    return KG_OK;
}

/* Rows by heads of keys (the queries that look at it, its k, its v; then the next) -> all q, all k, all v. */
static kg_status gather_heads(const struct folder *d, struct tensor *t)
{
    const size_t heads = (size_t)hf_config_number(d->family, d->config, "attention.head_count"), given = (size_t)hf_config_number(d->family, d->config, "attention.head_count_kv");
    const size_t groups = given ? given : heads, per = groups ? heads / groups : 0;
    const int64_t rows = t->n_dims == 1 ? t->ne[0] : t->ne[1];
    const uint8_t *from = t->data;
    uint8_t *to;
    if (heads == 0 || heads % groups || (size_t)rows % (heads + 2 * groups) || t->n_dims > 2)
        return status_set(KG_ERR_FORMAT, "tensor %s: %" PRId64 " rows do not fit %zu heads", t->name, rows, heads);
    if (groups == 1) return KG_OK;
    const size_t part = t->n_bytes / (heads + 2 * groups);
    KG_TRY(copy_of(d, t, t->n_bytes, &to));
    for (size_t g = 0; g < groups; g++, from += (per + 2) * part) {
        memcpy(to + g * per * part, from, per * part);
        memcpy(to + (heads + g) * part, from + per * part, part);
        memcpy(to + (heads + groups + g) * part, from + (per + 1) * part, part);
    }
    return KG_OK;
}

/* A view behind the first rows. */
static kg_status skip_positions(const struct folder *d, struct tensor *t)
{
    const int64_t skip = json_integer_value(json_object_get(d->config, HF_SKIPPED_POSITIONS));
    if (skip < 1 || strcmp(t->name, "position_embd.weight") != 0) return KG_OK;
    if (t->n_dims != 2 || t->ne[1] <= skip) return status_set(KG_ERR_FORMAT, "tensor %s has no %" PRId64 " rows to skip", t->name, skip);
    const size_t bytes = t->n_bytes / (size_t)t->ne[1] * (size_t)skip;
    t->data = (const uint8_t *)t->data + bytes;
    t->n_bytes -= bytes;
    t->ne[1] -= skip;
    return KG_OK;
}

static kg_status adapt(const struct folder *d, struct tensor *t)
{
    unsigned flags = d->family->flags;
    if (flags & HF_WKV && t->n_dims > 1 && (strstr(t->name, "_r_k.") || strstr(t->name, "_lerp_k.") || strstr(t->name, "_k_k.") || strstr(t->name, "_k_a."))) {
        t->ne[0] *= t->ne[1] * t->ne[2] * t->ne[3];
        t->ne[1] = t->ne[2] = t->ne[3] = t->n_dims = 1;
    }
    bool block = strncmp(t->name, "blk.", 4) == 0;
    if (flags & HF_MULTIPLIED) KG_TRY(hf_multiply(d->f, d->family, d->config, t));
    if (t->n_dims == 3 && t->ne[1] == 1 && strstr(t->name, "conv")) { /* {taps, 1, channels} */
        t->ne[1] = t->ne[2];
        t->ne[2] = 1;
        t->n_dims = 2;
    }
    if (hf_ends_with(t->name, ".exp_probs_b.bias") && t->n_dims == 2 && t->ne[1] == 1) t->n_dims = 1;
    if (flags & HF_CONV1D && block && t->n_dims == 2) return transpose(d, t);
    if (flags & HF_PLUS_ONE && hf_ends_with(t->name, "norm.weight") && !strstr(t->name, ".ssm_norm.")) return map_f32(d, t, plus_one);
    if (hf_ends_with(t->name, ".ssm_a")) KG_TRY(map_f32(d, t, minus_exp));
    if (flags & HF_SSM_2 && (hf_ends_with(t->name, ".ssm_a") || hf_ends_with(t->name, ".ssm_d") || strstr(t->name, ".ssm_norm.")))
        return shape_as_rows(d, t);
    if (flags & HF_PER_HEAD && block && strstr(t->name, ".attn_qkv.")) return gather_heads(d, t);
    return skip_positions(d, t);
}

/* ---- names */

/* The experts of one layer lie apart in the file; programs address them as one tensor {in, out, experts}. */
static kg_status add_expert(const struct folder *d, struct tensor *t, const struct tensor *part, int expert, size_t *n_experts)
{
    int64_t n = hf_config_number(d->family, d->config, "expert_count");
    if (n < 1 || n > MAX_EXPERTS || expert >= n) return status_set(KG_ERR_FORMAT, "tensor %s: expert %d of %" PRId64, t->name, expert, n);
    if (!t->data) {
        uint8_t *to;
        if (part->n_dims != 2 || part->n_bytes > SIZE_MAX / (size_t)n) return status_set(KG_ERR_FORMAT, "tensor %s is not a matrix", part->name);
        const char *name = t->name;
        *t = *part;
        t->name = name;
        t->n_dims = 3;
        t->ne[2] = n;
        *n_experts += (size_t)n;
        KG_TRY(copy_of(d, t, part->n_bytes * (size_t)n, &to));
    }
    if (part->type != t->type || part->ne[0] != t->ne[0] || part->ne[1] != t->ne[1] || part->n_dims != 2)
        return status_set(KG_ERR_FORMAT, "tensor %s: its type or shape is not that of the other experts", part->name);
    memcpy((uint8_t *)(uintptr_t)t->data + (size_t)expert * part->n_bytes, part->data, part->n_bytes);
    return KG_OK;
}

/* gpt-oss and Llama 4 have an expert's matrices as {out, in}. n of their columns, every step-th from the first on, become rows. */
static kg_status columns_to_rows(const struct folder *d, struct tensor *t, const struct tensor *from, int64_t first, int64_t step, int64_t n_rows)
{
    const size_t size = (size_t)type_by_id((uint32_t)from->type)->block_bytes, in = (size_t)from->ne[1], cols = (size_t)from->ne[0];
    const size_t n = (size_t)n_rows, n_experts = (size_t)from->ne[2];
    const char *name = t->name;
    uint8_t *to;
    if (from->n_dims != 3) return status_set(KG_ERR_FORMAT, "tensor %s has %d dimensions, wanted 3", from->name, from->n_dims);
    *t = *from;
    t->name = name;
    t->ne[0] = (int64_t)in;
    t->ne[1] = (int64_t)n;
    KG_TRY(copy_of(d, t, n_experts * n * in * size, &to));
    for (size_t e = 0; e < n_experts; e++)
        for (size_t o = 0; o < n; o++)
            for (size_t i = 0; i < in; i++, to += size)
                memcpy(to, (const uint8_t *)from->data + ((e * in + i) * cols + (size_t)first + o * (size_t)step) * size, size);
    return KG_OK;
}

/* Every second number of each row, from `first` on. */
static kg_status every_second(const struct folder *d, struct tensor *t, const struct tensor *from, int64_t first)
{
    const size_t size = (size_t)type_by_id((uint32_t)from->type)->block_bytes, n = (size_t)from->ne[0] / 2, rows = (size_t)from->ne[1];
    const char *name = t->name;
    uint8_t *to;
    if (from->n_dims != 2 || from->ne[0] % 2) return status_set(KG_ERR_FORMAT, "tensor %s is no matrix of pairs", from->name);
    *t = *from;
    t->name = name;
    t->ne[0] = (int64_t)n;
    KG_TRY(copy_of(d, t, n * rows * size, &to));
    for (size_t i = 0; i < n * rows; i++) memcpy(to + i * size, (const uint8_t *)from->data + (2 * i + (size_t)first) * size, size);
    return KG_OK;
}

/* See hf_join_mxfp4. */
static kg_status half_of(struct tensor *t, const struct tensor *from, int second)
{
    const char *name = t->name;
    *t = *from;
    t->name = name;
    t->ne[1] /= 2;
    t->n_bytes /= 2;
    t->data = (const uint8_t *)from->data + (second ? t->n_bytes : 0);
    return KG_OK;
}

/* blk.N.ffn_gate_up_exps.* -> ffn_gate_exps and ffn_up_exps, which alternate in it (gpt-oss) or are its halves. */
static kg_status split_gate_up(const struct folder *d, struct tensor *list, size_t *n, const struct tensor *t, const char *name)
{
    const char *at = strstr(name, "ffn_gate_up_exps"), *end = strrchr(name, '.');
    for (int up = 0; up < 2; up++) {
        char text[NAME_BYTES];
        snprintf(text, sizeof text, "%.*s%s%s", (int)(at - name), name, up ? "ffn_up_exps" : "ffn_gate_exps", end);
        struct tensor *to = &list[(*n)++];
        to->name = arena_strndup(&d->f->arena, text, strlen(text));
        if (!to->name) return KG_ERR_MEMORY;
        if (t->type == TYPE_MXFP4) KG_TRY(half_of(to, t, up));
        else if (strcmp(end, ".bias") == 0) KG_TRY(every_second(d, to, t, up));
        else if (d->family->flags & HF_OAI_EXPERTS) KG_TRY(columns_to_rows(d, to, t, up, 2, (t->ne[0] - up + 1) / 2));
        else KG_TRY(columns_to_rows(d, to, t, up * (t->ne[0] / 2), 1, t->ne[0] / 2));
    }
    return KG_OK;
}

/* blk.N.attn_kv_b {rank, heads (key + value)} -> attn_k_b {key, rank, heads} and attn_v_b {rank, value, heads}. */
static kg_status split_latent(const struct folder *d, struct tensor *list, size_t *n, const struct tensor *t, const char *name)
{
    const size_t size = (size_t)type_by_id((uint32_t)t->type)->block_bytes, rank = (size_t)t->ne[0];
    const int64_t heads = hf_config_number(d->family, d->config, "attention.head_count"), value = hf_config_number(d->family, d->config, "attention.value_length_mla");
    if (t->n_dims != 2 || heads < 1 || value < 1 || t->ne[1] % heads || t->ne[1] / heads <= value)
        return status_set(KG_ERR_FORMAT, "tensor %s: %" PRId64 " rows do not fit %" PRId64 " heads", t->name, t->ne[1], heads);
    const size_t key = (size_t)(t->ne[1] / heads - value);
    struct tensor *k = &list[(*n)++], *v = &list[(*n)++];
    uint8_t *to_k, *to_v;
    char text[2][NAME_BYTES];
    for (int i = 0; i < 2; i++) snprintf(text[i], NAME_BYTES, "%.*s%s%s", (int)(strstr(name, "attn_kv_b") - name), name, i ? "attn_v_b" : "attn_k_b", strrchr(name, '.'));
    *k = (struct tensor){arena_strndup(&d->f->arena, text[0], strlen(text[0])), t->type, 3, {(int64_t)key, (int64_t)rank, heads, 1}, NULL, 0};
    *v = (struct tensor){arena_strndup(&d->f->arena, text[1], strlen(text[1])), t->type, 3, {(int64_t)rank, value, heads, 1}, NULL, 0};
    if (!k->name || !v->name) return KG_ERR_MEMORY;
    KG_TRY(copy_of(d, k, (size_t)heads * key * rank * size, &to_k));
    KG_TRY(copy_of(d, v, (size_t)heads * (size_t)value * rank * size, &to_v));
    for (size_t h = 0; h < (size_t)heads; h++) {
        const uint8_t *from = (const uint8_t *)t->data + h * (key + (size_t)value) * rank * size;
        for (size_t r = 0; r < rank; r++)
            for (size_t i = 0; i < key; i++, to_k += size) memcpy(to_k, from + (i * rank + r) * size, size);
        memcpy(to_v + h * (size_t)value * rank * size, from + key * rank * size, (size_t)value * rank * size);
    }
    return KG_OK;
}

/* blk.N.attn_qkv with its rows head by head -> attn_q, attn_k, attn_v. */
static kg_status split_heads(const struct folder *d, struct tensor *list, size_t *n, const struct tensor *t, const char *name)
{
    static const char *const parts[] = {"attn_q", "attn_k", "attn_v"};
    const int64_t heads = hf_config_number(d->family, d->config, "attention.head_count"), given = hf_config_number(d->family, d->config, "attention.head_count_kv");
    const int64_t groups = given ? given : heads;
    const uint8_t *at;
    struct tensor whole = *t;
    KG_TRY(gather_heads(d, &whole));
    at = whole.data;
    for (int i = 0; i < 3; i++) {
        char text[NAME_BYTES];
        struct tensor *to = &list[(*n)++];
        const int64_t part = i ? groups : heads;
        snprintf(text, sizeof text, "%.*s%s%s", (int)(strstr(name, "attn_qkv") - name), name, parts[i], strrchr(name, '.'));
        *to = whole;
        to->name = arena_strndup(&d->f->arena, text, strlen(text));
        if (!to->name) return KG_ERR_MEMORY;
        to->ne[t->n_dims - 1] = whole.ne[t->n_dims - 1] / (heads + 2 * groups) * part;
        to->n_bytes = whole.n_bytes / (size_t)(heads + 2 * groups) * (size_t)part;
        to->data = at;
        at += to->n_bytes;
    }
    return KG_OK;
}

/* blk.N.attn_qkvz: for each key head q, k, v and gate of its heads -> attn_qkv, all q, all k, all v, and attn_gate. */
static kg_status split_delta(const struct folder *d, struct tensor *list, size_t *n, const struct tensor *t, const char *name)
{
    const int64_t k_heads = hf_config_number(d->family, d->config, "ssm.group_count"), heads = hf_config_number(d->family, d->config, "ssm.time_step_rank");
    const int64_t k_dim = hf_config_number(d->family, d->config, "ssm.state_size"), v_dim = json_integer_value(json_object_get(d->config, "linear_value_head_dim"));
    if (k_heads < 1 || heads < 1 || heads % k_heads || k_dim < 1 || v_dim < 1 || heads > 1 << 16 || k_dim > 1 << 16 || v_dim > 1 << 16 || t->n_dims != 2 ||
        t->ne[1] != 2 * k_heads * k_dim + 2 * heads * v_dim)
        return status_set(KG_ERR_FORMAT, "tensor %s does not fit the heads", t->name);
    const size_t row = t->n_bytes / (size_t)t->ne[1], k = (size_t)k_dim * row, v = (size_t)(heads / k_heads * v_dim) * row, head = 2 * k + 2 * v;
    struct tensor *to[2];
    uint8_t *out[2];
    for (int i = 0; i < 2; i++) {
        char text[NAME_BYTES];
        snprintf(text, sizeof text, "%.*s%s%s", (int)(strstr(name, "attn_qkvz") - name), name, i ? "attn_gate" : "attn_qkv", strrchr(name, '.'));
        to[i] = &list[(*n)++];
        *to[i] = *t;
        to[i]->name = arena_strndup(&d->f->arena, text, strlen(text));
        if (!to[i]->name) return KG_ERR_MEMORY;
        to[i]->ne[1] = i ? heads * v_dim : 2 * k_heads * k_dim + heads * v_dim;
        KG_TRY(copy_of(d, to[i], (size_t)to[i]->ne[1] * row, &out[i]));
    }
    const size_t n_heads = (size_t)k_heads;
    for (size_t h = 0; h < n_heads; h++) {
        const uint8_t *from = (const uint8_t *)t->data + h * head;
        memcpy(out[0] + h * k, from, k);
        memcpy(out[0] + n_heads * k + h * k, from + k, k);
        memcpy(out[0] + 2 * n_heads * k + h * v, from + 2 * k, v);
        memcpy(out[1] + h * v, from + 2 * k + v, v);
    }
    return KG_OK;
}

/* ffn_both_shexp or ffn_both_exps: rows of the gate, then those of the other factor -> two tensors. */
static kg_status split_both(const struct folder *d, struct tensor *list, size_t *n, const struct tensor *t, const char *name)
{
    const char *at = strstr(name, "ffn_both"), *end = at + strlen("ffn_both");
    const size_t n_experts = (size_t)t->ne[2], half = t->n_bytes / n_experts / 2;
    if (t->ne[1] % 2 || t->n_bytes % (2 * n_experts)) return status_set(KG_ERR_FORMAT, "tensor %s has an odd number of rows", t->name);
    for (size_t up = 0; up < 2; up++) {
        char text[NAME_BYTES];
        uint8_t *out;
        snprintf(text, sizeof text, "%.*s%s%s", (int)(at - name), name, up ? "ffn_up" : "ffn_gate", end);
        struct tensor *to = &list[(*n)++];
        *to = *t;
        to->name = arena_strndup(&d->f->arena, text, strlen(text));
        if (!to->name) return KG_ERR_MEMORY;
        to->ne[1] /= 2;
        KG_TRY(copy_of(d, to, n_experts * half, &out));
        for (size_t e = 0; e < n_experts; e++) memcpy(out + e * half, (const uint8_t *)t->data + (2 * e + up) * half, half);
    }
    return KG_OK;
}

struct merged {
    json_t *by_name, *experts;
    size_t n_experts; /* that the tensors put together have room for */
};

/* One of six mixtures of RWKV-7, which GGUF has one behind the other, or all of them (x_x, of its first files). */
static kg_status add_mixture(const struct folder *d, struct merged *m, struct tensor *list, size_t *n, const struct tensor *t, const char *name)
{
    static const char order[] = "rwkvag";
    const char *at = strchr(order, t->name[strlen(t->name) - 1]);
    const json_t *old = json_object_get(m->by_name, name);
    struct tensor *to = &list[old ? (size_t)json_integer_value(old) : *n];
    const int64_t dim = t->ne[0];
    char mark[NAME_BYTES + 16];
    uint8_t *data;
    if (!old) {
        *to = *t;
        to->name = arena_strndup(&d->f->arena, name, strlen(name));
        if (!to->name || json_object_set_new(m->by_name, name, json_integer((json_int_t)*n)) != 0) return status_set(KG_ERR_MEMORY, "out of memory");
        ++*n;
        to->n_dims = 4;
        for (int i = 1; i < 4; i++) to->ne[i] = i < 3 ? 1 : 6;
        if (!at && t->n_dims == 2 && t->ne[1] == 6) return KG_OK;
        if (t->n_bytes > SIZE_MAX / 6) return status_set(KG_ERR_FORMAT, "tensor %s is too long", t->name);
        m->n_experts += 6;
        KG_TRY(copy_of(d, to, 6 * t->n_bytes, &data));
    }
    snprintf(mark, sizeof mark, "%s %c", name, at ? *at : 'x');
    if (!at || t->type != to->type || dim != to->ne[0] || t->n_bytes * 6 != to->n_bytes || json_object_get(m->experts, mark))
        return status_set(KG_ERR_FORMAT, "tensor %s does not fit the other mixtures of its layer", t->name);
    if (json_object_set_new(m->experts, mark, json_true()) != 0) return status_set(KG_ERR_MEMORY, "out of memory");
    memcpy((uint8_t *)(uintptr_t)to->data + (size_t)(at - order) * t->n_bytes, t->data, t->n_bytes);
    return KG_OK;
}

/* Layers that guess further tokens (num_nextn_predict_layers) come behind the others: nothing here uses them. */
static bool is_beyond(const struct folder *d, const char *name)
{
    if ((d->family->flags & HF_DELTA || strncmp(d->family->model_type, "nemotron_h", 10) == 0) && strncmp(name, "mtp.", 4) == 0) return true;
    const int64_t more = json_integer_value(json_object_get(d->config, "num_nextn_predict_layers")), n = hf_config_number(d->family, d->config, "block_count");
    if (more < 1 || strncmp(name, "model.layers.", 13) != 0) return false;
    const long layer = strtol(name + 13, NULL, 10);
    return layer >= n && layer - n < more;
}

static kg_status rename_one(const struct folder *d, struct merged *m, struct tensor *list, size_t *n, const struct tensor *t)
{
    char name[NAME_BYTES];
    int expert = -1;
    if (strncmp(t->name, HF_DENSE_MARK, strlen(HF_DENSE_MARK)) == 0) { /* hf_steps.c has named it */
        list[*n] = *t;
        list[(*n)++].name += strlen("kagari.");
        return KG_OK;
    }
    if (is_beyond(d, t->name) || hf_is_other_part(d->config, t->name)) return KG_OK;
    if (!hf_tensor_name(d->family, t->name, name, sizeof name, &expert))
        return status_set(KG_ERR_UNSUPPORTED, "tensor '%.*s' is not known for model_type %s", file_shown(t->name), t->name, d->family->model_type);
    char *shared = strstr(name, "_shexp.");
    if (shared && hf_config_number(d->family, d->config, "expert_count") == 0) memmove(shared, shared + 6, strlen(shared + 6) + 1); /* the only one */
    bool tied = json_is_true(json_object_get(d->config, "tie_word_embeddings"));
    if (!name[0] || (tied && strcmp(name, "output.weight") == 0)) return KG_OK;
    const bool by_columns = d->family->flags & (HF_OAI_EXPERTS | HF_EXPERTS_BY_COLUMNS);
    const json_t *old = json_object_get(m->by_name, name);
    if (by_columns && !old && strstr(name, ".ffn_gate_up_exps.")) {
        if (json_object_set_new(m->by_name, name, json_integer((json_int_t)*n)) != 0) return status_set(KG_ERR_MEMORY, "out of memory");
        return split_gate_up(d, list, n, t, name);
    }
    if (d->family->flags & HF_WKV && strstr(name, ".time_mix_lerp_fused.")) return add_mixture(d, m, list, n, t, name);
    if (old && expert < 0) return status_set(KG_ERR_FORMAT, "tensor '%.*s': another one has its place (%s)", file_shown(t->name), t->name, name);
    if (d->family->flags & HF_LATENT && !old && strstr(name, ".attn_kv_b.")) {
        if (json_object_set_new(m->by_name, name, json_integer((json_int_t)*n)) != 0) return status_set(KG_ERR_MEMORY, "out of memory");
        return split_latent(d, list, n, t, name);
    }
    if (d->family->flags & HF_SPLIT_QKV && !old && strstr(name, ".attn_qkv.")) {
        if (json_object_set_new(m->by_name, name, json_integer((json_int_t)*n)) != 0) return status_set(KG_ERR_MEMORY, "out of memory");
        return split_heads(d, list, n, t, name);
    }
    if (!old && (strstr(name, ".attn_qkvz.") || strstr(name, ".ffn_both"))) {
        if (json_object_set_new(m->by_name, name, json_integer((json_int_t)*n)) != 0) return status_set(KG_ERR_MEMORY, "out of memory");
        return (strstr(name, ".attn_qkvz.") ? split_delta : split_both)(d, list, n, t, name);
    }
    struct tensor *to = &list[old ? (size_t)json_integer_value(old) : *n];
    if (!old) {
        *to = expert < 0 ? *t : (struct tensor){0};
        to->name = arena_strndup(&d->f->arena, name, strlen(name));
        if (!to->name || json_object_set_new(m->by_name, name, json_integer((json_int_t)*n)) != 0) return status_set(KG_ERR_MEMORY, "out of memory");
        ++*n;
    }
    if (by_columns && strstr(name, ".ffn_down_exps.weight") && t->type != TYPE_MXFP4) return columns_to_rows(d, to, t, 0, 1, t->ne[0]);
    if (expert < 0) return adapt(d, to);
    char mark[NAME_BYTES + 16];
    snprintf(mark, sizeof mark, "%s %d", name, expert);
    if (json_object_get(m->experts, mark)) return status_set(KG_ERR_FORMAT, "tensor %s: expert %d comes twice", name, expert);
    if (json_object_set_new(m->experts, mark, json_true()) != 0) return status_set(KG_ERR_MEMORY, "out of memory");
    return add_expert(d, to, t, expert, &m->n_experts);
}

/* Llama 3 stretches the rotation by factors, Phi by one list for short texts and one for long ones: GGUF has them as tensors.
 * rename_all leaves room for them. */
static kg_status add_rope_factors(const struct folder *d)
{
    static const char *const tensors[] = {"rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight"};
    for (int i = 0; i < 3; i++) {
        int64_t n_factors;
        KG_TRY(hf_rope_factors(d->family, d->config, i, NULL, &n_factors));
        if (n_factors == 0) continue;
        float *factors = arena_array(&d->f->arena, (size_t)n_factors, sizeof *factors);
        if (!factors) return KG_ERR_MEMORY;
        KG_TRY(hf_rope_factors(d->family, d->config, i, factors, &n_factors));
        d->f->tensors[d->f->n_tensors++] = (struct tensor){tensors[i], TYPE_F32, 1, {n_factors, 1, 1, 1}, factors, (size_t)n_factors * 4};
    }
    return KG_OK;
}

/* The first layer of RWKV-7 has no share of earlier values; other programs ask for the tensors, and get those beside them. rename_all leaves room. */
static kg_status add_unused(const struct folder *d)
{
    struct file *f = d->f;
    for (size_t i = 0, n = f->n_tensors; d->family->flags & HF_WKV && i < n; i++) {
        if (strncmp(f->tensors[i].name, "blk.0.time_mix_a", 16) != 0) continue;
        char *name = arena_strndup(&f->arena, f->tensors[i].name, strlen(f->tensors[i].name));
        if (!name) return KG_ERR_MEMORY;
        name[15] = 'v';
        f->tensors[f->n_tensors] = f->tensors[i];
        f->tensors[f->n_tensors++].name = name;
    }
    return KG_OK;
}

static kg_status rename_all(const struct folder *d)
{
    struct file *f = d->f;
    size_t n = 0;
    struct merged m = {.by_name = json_object(), .experts = json_object()};
    struct tensor *list = arena_array(&f->arena, 3 * f->n_tensors + 6, sizeof *list);
    kg_status st = list && m.by_name && m.experts ? KG_OK : status_set(KG_ERR_MEMORY, "out of memory");
    for (size_t i = 0; i < f->n_tensors && st == KG_OK; i++) st = rename_one(d, &m, list, &n, &f->tensors[i]);
    if (st == KG_OK && m.n_experts != json_object_size(m.experts)) st = status_set(KG_ERR_FORMAT, "some experts are missing");
    json_decref(m.by_name);
    json_decref(m.experts);
    f->tensors = list;
    f->n_tensors = n;
    return st;
}

/* ---- text */

static kg_status load_template(struct folder *d, const json_t *tokenizer_config)
{
    const json_t *t = json_object_get(tokenizer_config, "chat_template");
    if (has(d, "chat_template.jinja")) {
        char *path;
        struct os_map map;
        KG_TRY(join(d, "chat_template.jinja", &path));
        KG_TRY(os_map_file(&map, path));
        kg_status st = map.n_bytes <= MAX_TEMPLATE_BYTES ? KG_OK : status_set(KG_ERR_UNSUPPORTED, "chat_template.jinja is too long");
        if (st == KG_OK) meta_out_str(&d->out, "tokenizer.chat_template", (const char *)map.data, map.n_bytes);
        os_unmap(&map);
        return st;
    }
    json_t *file = NULL;
    if (!t) KG_TRY(load_json(d, "chat_template.json", true, &file)); /* of multimodal models */
    if (file) t = json_object_get(file, "chat_template");
    for (size_t i = 0; json_is_array(t) && i < json_array_size(t); i++) { /* several by name */
        const char *name = json_string_value(json_object_get(json_array_get(t, i), "name"));
        if (name && strcmp(name, "default") == 0) t = json_object_get(json_array_get(t, i), "template");
    }
    if (json_is_string(t)) meta_out_str(&d->out, "tokenizer.chat_template", json_string_value(t), json_string_length(t));
    json_decref(file);
    return KG_OK;
}

/* The tokens that a folder adds to those of its tokenizer.model, as a tokenizer.json lists them; *out NULL: it adds none. */
static kg_status load_added(const struct folder *d, const json_t *tokenizer_config, json_t **out)
{
    json_t *file = NULL, *list = json_object_get(tokenizer_config, "added_tokens_decoder"), *v;
    const char *key;
    *out = NULL;
    if (json_is_object(list)) {
        if (!(*out = json_array())) return status_set(KG_ERR_MEMORY, "out of memory");
        json_object_foreach(list, key, v) {
            json_t *entry = json_copy(v);
            const bool token = json_object_set_new(entry, "id", json_integer(strtol(key, NULL, 10))) == 0;
            if (token && json_array_append_new(*out, entry) == 0) continue;
            if (!token) json_decref(entry); /* the array takes it even if it fails */
            return status_set(KG_ERR_FORMAT, "tokenizer_config.json: added_tokens_decoder holds something else than tokens");
        }
        return KG_OK;
    }
    KG_TRY(load_json(d, "tokenizer.json", true, &file)); /* of files from before 2023 */
    if (file) *out = json_incref(json_object_get(file, "added_tokens"));
    json_decref(file);
    if (*out) return KG_OK;
    KG_TRY(load_json(d, "added_tokens.json", true, &file));
    if (file && (*out = json_array()) != NULL)
        json_object_foreach(file, key, v) json_array_append_new(*out, json_pack("{s:s,s:O}", "content", key, "id", v));
    json_decref(file);
    return KG_OK;
}

#define WORLD "rwkv_vocab_v20230424.txt"

/* name: of its file; NULL: one of the usual. */
static kg_status load_tokenizer(struct folder *d, const char *name, uint32_t n_vocab)
{
    json_t *config, *tokenizer = NULL;
    const char *pieces = has(d, "tokenizer.model") ? "tokenizer.model" : !has(d, "tokenizer.json") && has(d, "spiece.model") ? "spiece.model" : NULL;
    if (!pieces && !has(d, "tokenizer.json") && has(d, WORLD)) pieces = WORLD;
    if (name) pieces = hf_ends_with(name, ".model") || hf_ends_with(name, ".txt") ? name : NULL;
    KG_TRY(load_json(d, "tokenizer_config.json", true, &config));
    kg_status st = KG_OK;
    if (pieces) {
        char *path;
        struct os_map map;
        st = join(d, pieces, &path);
        if (st == KG_OK) st = os_map_file(&map, path);
        if (st == KG_OK) {
            const bool world = hf_ends_with(pieces, ".txt");
            json_t *added = NULL;
            st = world ? rwkv_vocab_read(&d->out, map.data, map.n_bytes, n_vocab) : load_added(d, config, &added);
            if (st == KG_OK && !world) st = sentencepiece_read(&d->out, map.data, map.n_bytes, &(struct hf_tokenizer){.config = d->config, .tokenizer_config = config, .vocab.n = n_vocab}, added);
            json_decref(added);
            os_unmap(&map);
        }
        if (st != KG_OK) status_prefix(st, "%s", pieces);
    } else if ((st = load_json(d, name ? name : "tokenizer.json", !name, &tokenizer)) == KG_OK && tokenizer) {
        st = hf_tokenizer_json(&d->out, tokenizer, d->config, config, n_vocab);
        if (st != KG_OK) status_prefix(st, "tokenizer.json");
    }
    if (st == KG_OK) st = load_template(d, config);
    json_decref(tokenizer);
    json_decref(config);
    return st;
}

static const char *last_part(struct folder *d)
{
    size_t n = strlen(d->path);
    while (n > 1 && d->path[n - 1] == '/') n--;
    size_t start = n;
    while (start > 0 && d->path[start - 1] != '/') start--;
    char *name = arena_strndup(&d->f->arena, d->path + start, n - start);
    return name ? name : "";
}

static kg_status take_metas(struct folder *d)
{
    KG_TRY(d->out.status);
    uint8_t *metas = arena_alloc(&d->f->arena, d->out.bytes.len + 1);
    if (!metas) return KG_ERR_MEMORY;
    if (d->out.bytes.len) memcpy(metas, d->out.bytes.data, d->out.bytes.len);
    return gguf_read_metas(d->f, metas, d->out.bytes.len, d->out.n);
}

static kg_status read_all(struct folder *d, const char *only)
{
    struct file *f = d->f;
    if (!has(d, "config.json") && has(d, "adapter_config.json"))
        return status_set(KG_ERR_UNSUPPORTED, "is an adapter (PEFT), no model: it goes with the model that it changes (--lora; kagari convert --base)");
    if (!has(d, "config.json")) return refuse_missing(d, "config.json");
    KG_TRY(load_json(d, "config.json", false, &d->config));
    KG_TRY(hf_normalize(d->config));
    KG_TRY(hf_family_of(d->config, &d->family));
    KG_TRY(hf_config(&d->out, d->family, d->config, last_part(d)));
    KG_TRY(load_weights(d, only));
    KG_TRY(hf_read_steps(f, d->path, d->family, &d->out));
    KG_TRY(hf_check_packing(f, d->config));
    KG_TRY(hf_widen_fp8(d->f, d->config));
    KG_TRY(hf_join_mxfp4(d->f));
    KG_TRY(rename_all(d));
    if (strcmp(d->family->arch, "apertus") == 0) KG_TRY(hf_take_xielu(f, &d->out, hf_config_number(d->family, d->config, "block_count")));
    KG_TRY(add_rope_factors(d));
    KG_TRY(add_unused(d));
    uint32_t n_vocab = 0;
    for (size_t i = 0; i < f->n_tensors; i++)
        if (strcmp(f->tensors[i].name, "token_embd.weight") == 0) n_vocab = (uint32_t)MIN(f->tensors[i].ne[1], 1 << 30);
    KG_TRY(load_tokenizer(d, NULL, n_vocab));
    if (d->family->flags & HF_ROTATED) meta_out_bool(&d->out, "kagari.rope_halves", true);
    f->format = "Safetensors";
    return take_metas(d);
}

kg_status hf_load_json(struct file *f, const char *folder, const char *name, bool optional, json_t **out)
{
    return load_json(&(struct folder){.f = f, .path = folder}, name, optional, out);
}

kg_status hf_rename(struct file *f, const struct hf_family *family, json_t *config)
{
    return rename_all(&(struct folder){.f = f, .path = f->path, .family = family, .config = config});
}

kg_status hf_read_tokenizer(struct file *f, const char *folder, const char *name)
{
    struct folder d = {.f = f, .path = folder};
    kg_status st = load_json(&d, "config.json", true, &d.config); /* says which tokens begin and end texts */
    if (st == KG_OK) st = load_tokenizer(&d, name, 0);
    f->format = "Hugging Face tokenizer";
    if (st == KG_OK) st = take_metas(&d);
    json_decref(d.config);
    meta_out_free(&d.out);
    return st;
}

kg_status hf_read(struct file *f, const char *folder, const char *only)
{
    struct folder d = {.f = f, .path = folder};
    kg_status st = read_all(&d, only);
    json_decref(d.config);
    meta_out_free(&d.out);
    return st;
}
