/* kg_convert: a Hugging Face folder, or any other model file, or an adapter, to a GGUF as llama.cpp's conversion would write it. Names and keys are
 * those that the reader gave; here is what that conversion does to the numbers: which type each tensor gets, the order of rows in Q and K, and that of
 * the heads of a gated delta net. */
#include "base/half.h"
#include "file/gguf_write.h"
#include "file/order.h"
#include "file/reader.h"
#include "tensor/decode.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct convert {
    struct file *in;
    struct gguf_out *out;
    enum tensor_type to; /* of matrices; unless keep */
    bool keep;
    struct order order;
    const struct meta *scales; /* of an adapter's pairs, which are its tensors in turn; NULL: it is a model */
    double alpha;              /* what says the scale of most of them */
    float *x;                  /* one row */
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

/* ---- adapters: GGUF has one alpha, and the scale of a pair is alpha / rank */

static bool is_b(const struct tensor *t) { return ends_with(t->name, ".lora_b"); }

/* By what B is multiplied. */
static double factor(const struct convert *c, const struct tensor *t)
{
    if (!c->scales || !is_b(t)) return 1;
    const double said = (double)(float)c->alpha / (double)t->ne[0], scale = file_arr_f64(c->scales, (uint64_t)(t - c->in->tensors) / 2);
    return fabs(scale - said) <= 1e-7 * fabs(said) ? 1 : scale / said;
}

/* The adapter's own alpha if a pair has that scale, else what is right for the first. */
static kg_status find_alpha(struct convert *c)
{
    bool found, fits = false;
    KG_TRY(file_get_arr(c->in, "kagari.lora_scales", META_F64, &c->scales, &found));
    KG_TRY(file_get_f64(c->in, "adapter.lora.alpha", &c->alpha, NULL));
    if (!found) return KG_OK; /* a GGUF */
    if (2 * c->scales->n != c->in->n_tensors) return status_set(KG_ERR_FORMAT, "%s: its pairs do not have a scale each", c->in->path);
    for (size_t i = 1; i < c->in->n_tensors && c->alpha != 0; i += 2) fits |= factor(c, &c->in->tensors[i]) == 1;
    const double rank = (double)c->in->tensors[1].ne[0], first = file_arr_f64(c->scales, 0);
    if (!fits) c->alpha = first != 0 ? first * rank : rank;
    return KG_OK;
}

/* ---- tensors */

/* Vectors, positions, routers, convolutions and what is no weight of a matrix stay exact. */
static enum tensor_type type_for(const struct convert *c, const struct tensor *t)
{
    if (t->type != TYPE_F32 && t->type != TYPE_F16 && t->type != TYPE_BF16 && t->type != TYPE_F64) return t->type;
    if (ends_with(t->name, ".lora_a") || is_b(t)) return !c->keep ? c->to : factor(c, t) == 1 ? t->type : TYPE_F32;
    if (t->n_dims == 1 || ends_with(t->name, "norm.weight") || strcmp(t->name, "position_embd.weight") == 0 || strcmp(t->name, "token_types.weight") == 0 ||
        ends_with(t->name, ".ffn_gate_inp.weight") || strstr(t->name, "conv.weight") || strstr(t->name, "conv1d.weight") ||
        strstr(t->name, ".time_mix_w") || strstr(t->name, ".time_mix_lerp_fused.") || !ends_with(t->name, ".weight"))
        return TYPE_F32;
    if (!c->keep) return c->to;
    return t->type == TYPE_F64 ? TYPE_F32 : t->type;
}

/* n elements of t, at p, in the type that they get; *too_large: an infinity that was none. */
static void put_elements(const struct convert *c, const struct tensor *t, const uint8_t *p, enum tensor_type to, int64_t n, bool *too_large)
{
    const double f = factor(c, t);
    if (to == t->type && f == 1) {
        memcpy(c->y, p, (size_t)n * (size_t)type_by_id((uint32_t)to)->block_bytes);
        return;
    }
    decode_f32(t->type)(p, c->x, n);
    for (int64_t i = 0; i < n; i++) {
        if (f != 1) c->x[i] = (float)(c->x[i] * f);
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
    const bool columns = order_moves_columns(&c->order, t), moves = c->order.from.halves || c->order.from.grouped || factor(c, t) != 1;
    if (from->block > 1 || (to == t->type && !moves)) return gguf_out_data(c->out, t->data, t->n_bytes);
    bool vector = t->n_dims == 1, too_large = false;
    int64_t n_rows = vector ? t->ne[0] : tensor_n_rows(t), n = vector ? 1 : t->ne[0];
    size_t row_bytes = (size_t)n * (size_t)from->block_bytes, out_bytes = (size_t)n * (size_t)type_by_id((uint32_t)to)->block_bytes;
    const size_t size = out_bytes / (size_t)n;
    for (int64_t r = 0; r < n_rows; r++) {
        put_elements(c, t, (const uint8_t *)t->data + (size_t)order_row(&c->order, t, r) * row_bytes, to, n, &too_large);
        for (int64_t i = 0; i < n && columns; i++) memcpy(c->z + (size_t)i * size, c->y + (size_t)order_column(&c->order, t, i) * size, size);
        KG_TRY(gguf_out_data(c->out, columns ? c->z : c->y, out_bytes));
    }
    if (too_large) return status_set(KG_ERR_UNSUPPORTED, "tensor %s has values beyond the range of F16: choose bf16 or f32", t->name);
    return KG_OK;
}

/* What GGUF has no key for and a model or its tokenizer needs goes along; what only says how a folder lies does not. */
static bool stays_behind(const struct file *f, const char *key)
{
    static const char *const tokenizer[] = {"tokenizer_steps", "added_flags", "scores", "symbols_inside", "max_word", "tokens_before", "tokens_after", "split_unknown", "ignore_merges", "normalizer", "prefix_unless_space", "word_suffix", "inner_prefix", "mixer_rms_eps", "multipliers"};
    if (strncmp(key, "kagari.", 7) != 0) return strcmp(key, "general.file_type") == 0 || strcmp(key, "general.quantization_version") == 0 || strcmp(key, "general.alignment") == 0;
    for (size_t i = 0; i < COUNT_OF(tokenizer); i++)
        if (strcmp(key + 7, tokenizer[i]) == 0) return false;
    if (strncmp(key, "kagari.dense_", 13) == 0) return false;
    return strcmp(key, "kagari.bpe_merges") != 0 || !file_meta(f, "kagari.tokenizer_steps"); /* else the scores say nearly the same */
}

static kg_status write_keys(const struct convert *c, int type_index)
{
    const struct file *f = c->in;
    for (size_t i = 0; i < f->n_metas; i++) {
        const char *key = f->metas[i].key;
        if (c->scales && strcmp(key, "adapter.lora.alpha") == 0) KG_TRY(gguf_out_f32(c->out, key, (float)c->alpha));
        else if (!stays_behind(f, key)) KG_TRY(gguf_out_meta(c->out, &f->metas[i]));
    }
    KG_TRY(gguf_out_u32(c->out, "general.quantization_version", 2));
    if (file_meta(f, "adapter.type")) return KG_OK;
    return gguf_out_u32(c->out, "general.file_type", types[type_index].file_type);
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

/* base: of an adapter, whose rows are in an order that the model's numbers tell. */
static kg_status run(struct convert *c, const struct file *base)
{
    const struct file *f = c->in;
    int64_t widest = 1;
    if (f->n_metas == 0) return status_set(KG_ERR_UNSUPPORTED, "%s: is a file of tensors alone: a model is a folder with config.json", f->path);
    if (file_meta(f, "kagari.embedding_step")) return status_set(KG_ERR_UNSUPPORTED, "%s: a step of modules.json has no place in the GGUF that is written", f->path);
    struct order_kind kind;
    KG_TRY(order_kind(f, &kind));
    KG_TRY(order_read(base ? base : f, kind, &c->order));
    if (file_meta(f, "adapter.type")) KG_TRY(find_alpha(c));
    KG_TRY(write_keys(c, main_type(c)));
    for (size_t i = 0; i < f->n_tensors; i++) {
        const struct tensor *t = &f->tensors[i];
        widest = MAX(widest, t->ne[0]);
        KG_TRY(order_check(&c->order, t));
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

static kg_status convert(const char *in, const char *base_path, const char *out, const char *type)
{
    struct convert c = {.keep = !type || strcmp(type, "auto") == 0};
    struct file *base = NULL;
    size_t k = 0;
    while (!c.keep && k < COUNT_OF(types) && strcmp(types[k].name, type) != 0) k++;
    if (k == COUNT_OF(types)) return status_set(KG_ERR_ARGUMENT, "kg_convert: type '%.20s' is none of auto, f32, f16, bf16", type);
    if (!c.keep) c.to = types[k].type;
    kg_status st = base_path ? file_open(&base, base_path) : KG_OK;
    if (st == KG_OK) st = base ? file_open_adapter(&c.in, in, base) : file_open(&c.in, in);
    if (st == KG_OK && base && !file_meta(c.in, "adapter.type")) st = status_set(KG_ERR_ARGUMENT, "%s: is no adapter, only one goes with a model", in);
    if (st == KG_OK) st = gguf_out_open(&c.out, out);
    if (st == KG_OK) st = run(&c, base);
    gguf_out_close(&c.out);
    file_close(&c.in);
    file_close(&base);
    free(c.x);
    free(c.y);
    free(c.z);
    return st;
}

kg_status kg_convert(const char *in, const char *out, const char *type)
{
    if (!in || !out) return status_set(KG_ERR_ARGUMENT, "kg_convert: a path is NULL");
    return convert(in, NULL, out, type);
}

kg_status kg_convert_adapter(const char *in, const char *base, const char *out, const char *type)
{
    if (!in || !base || !out) return status_set(KG_ERR_ARGUMENT, "kg_convert_adapter: a path is NULL");
    return convert(in, base, out, type);
}
