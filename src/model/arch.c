/* What architectures share: the list of them, typed access to the keys under the file's own prefix, tensors by name and shape,
 * RoPE parameters. The meaning of a model is not here but in src/arch. */
#include "model/arch.h"

#include <math.h>
#include <stdio.h>

#define MAX_U32 (1u << 30)

#define ARCH(name) extern const struct arch arch_##name;
#include "arch_list.inc"
#undef ARCH

static const struct arch *const archs[] = {
#define ARCH(name) &arch_##name,
#include "arch_list.inc"
#undef ARCH
};

const struct arch *arch_at(size_t i) { return i < COUNT_OF(archs) ? archs[i] : NULL; }

const struct arch *arch_find(const char *name)
{
    for (size_t i = 0; i < COUNT_OF(archs); i++)
        if (!strcmp(archs[i]->name, name)) return archs[i];
    return NULL;
}

/* ---- keys */

struct full_key {
    char text[160];
};

static struct full_key full_key(const struct arch_build *b, const char *key)
{
    struct full_key k;
    snprintf(k.text, sizeof k.text, "%s.%s", b->prefix, key);
    return k;
}

kg_status arch_u32(const struct arch_build *b, const char *key, int *out, bool *found)
{
    struct full_key k = full_key(b, key);
    uint32_t v = 0;
    bool there = true;
    KG_TRY(file_get_u32(b->file, k.text, &v, found ? &there : NULL));
    if (found) *found = there;
    if (!there) return KG_OK;
    if (v > MAX_U32) return status_set(KG_ERR_FORMAT, "%s: key %s is %u, more than %u", b->file->path, k.text, v, MAX_U32);
    *out = (int)v;
    return KG_OK;
}

kg_status arch_f64(const struct arch_build *b, const char *key, double *out, bool *found)
{
    return file_get_f64(b->file, full_key(b, key).text, out, found);
}

kg_status arch_bool(const struct arch_build *b, const char *key, bool *out, bool *found)
{
    return file_get_bool(b->file, full_key(b, key).text, out, found);
}

kg_status arch_str(const struct arch_build *b, const char *key, struct str *out, bool *found)
{
    return file_get_str(b->file, full_key(b, key).text, out, found);
}

kg_status arch_size(const struct arch_build *b, const char *key, int *out)
{
    KG_TRY(arch_u32(b, key, out, NULL));
    if (*out < 1) return status_set(KG_ERR_FORMAT, "%s: key %s is 0, must be at least 1", b->file->path, full_key(b, key).text);
    return KG_OK;
}

static kg_status check_items(const struct arch_build *b, const char *key, const struct meta *m)
{
    const int n = b->program->n_layers;
    if (m->n == (uint64_t)n || m->n == (uint64_t)n + (uint64_t)b->n_beyond) return KG_OK;
    return status_set(KG_ERR_FORMAT, "%s: key %s has %llu items for %d layers", b->file->path, key, (unsigned long long)m->n, n);
}

/* some NULL: every layer must have one. */
static kg_status size_layers(const struct arch_build *b, const char *key, int *out, bool *some)
{
    const uint64_t n = (uint64_t)b->program->n_layers;
    struct full_key k = full_key(b, key);
    const struct meta *m = file_meta(b->file, k.text);
    for (int i = 0; some && i < b->program->n_layers; i++) some[i] = true;
    if (!m && *out > 0) return KG_OK;
    if (!m || m->type != META_ARR) return arch_size(b, key, out);
    if (m->item > META_I32 && m->item != META_U64 && m->item != META_I64)
        return status_set(KG_ERR_FORMAT, "%s: key %s is an array of %s, not of integers", b->file->path, k.text, meta_type_name(m->item));
    KG_TRY(check_items(b, k.text, m));
    uint64_t first = 0; /* of the layers that have one */
    while (some && first < n && file_arr_i64(m, first) == 0) first++;
    const int64_t value = first < n ? file_arr_i64(m, first) : 0;
    if (value < 1 || value > MAX_U32)
        return status_set(KG_ERR_FORMAT, "%s: key %s is %lld for layer %d, out of range", b->file->path, k.text, (long long)value, (int)MIN(first, n - 1));
    for (uint64_t i = 0; i < n; i++) {
        const int64_t v = file_arr_i64(m, i);
        if (some) some[i] = v != 0;
        if (v != value && !(some && v == 0))
            return status_set(KG_ERR_UNSUPPORTED, "%s: key %s differs between layers (%lld and %lld), which is not supported",
                              b->file->path, k.text, (long long)value, (long long)v);
    }
    *out = (int)value;
    return KG_OK;
}

kg_status arch_size_layers(const struct arch_build *b, const char *key, int *out) { return size_layers(b, key, out, NULL); }

kg_status arch_size_some_layers(const struct arch_build *b, const char *key, int *out, bool *some) { return size_layers(b, key, out, some); }

kg_status arch_u32_layer(const struct arch_build *b, const char *key, int i, int *out)
{
    const struct full_key k = full_key(b, key);
    const struct meta *m = file_meta(b->file, k.text);
    if (!m || m->type != META_ARR) return arch_u32(b, key, out, NULL);
    if (m->item > META_I32 && m->item != META_BOOL && m->item != META_U64 && m->item != META_I64)
        return status_set(KG_ERR_FORMAT, "%s: key %s is an array of %s, not of integers", b->file->path, k.text, meta_type_name(m->item));
    KG_TRY(check_items(b, k.text, m));
    const int64_t v = file_arr_i64(m, (uint64_t)i);
    if (v < 0 || v > MAX_U32) return status_set(KG_ERR_FORMAT, "%s: key %s is %lld for layer %d, out of range", b->file->path, k.text, (long long)v, i);
    *out = (int)v;
    return KG_OK;
}

kg_status arch_epsilon(const struct arch_build *b, const char *key, double *out)
{
    KG_TRY(arch_f64(b, key, out, NULL));
    if (!(isfinite(*out) && *out > 0))
        return status_set(KG_ERR_FORMAT, "%s: key %s is %g, must be above 0", b->file->path, full_key(b, key).text, *out);
    return KG_OK;
}

kg_status arch_sizes(struct arch_build *b)
{
    const struct file *f = b->file;
    struct program *p = b->program;
    int n_ctx = 0, vocab_size = 0;
    KG_TRY(arch_size(b, "block_count", &p->n_layers));
    KG_TRY(arch_size(b, "embedding_length", &p->dim));
    int n_more = 0; /* layers that guess further tokens, behind the others: not used */
    bool more;
    KG_TRY(arch_u32(b, "nextn_predict_layers", &n_more, &more));
    if (n_more >= p->n_layers)
        return status_set(KG_ERR_FORMAT, "%s: key %s is %d of %d layers", f->path, full_key(b, "nextn_predict_layers").text, n_more, p->n_layers);
    p->n_layers -= n_more;
    b->n_beyond = n_more;
    KG_TRY(arch_size(b, "context_length", &n_ctx));
    p->n_ctx = n_ctx;
    /* every layer has tensors: this bounds what is allocated per layer by the size of the file */
    if ((size_t)p->n_layers > f->n_tensors)
        return status_set(KG_ERR_FORMAT, "%s: key %s is %d, but the file has only %zu tensors", f->path, full_key(b, "block_count").text,
                          p->n_layers, f->n_tensors);
    const struct tensor *embd = file_tensor(f, "token_embd.weight");
    if (!embd) return status_set(KG_ERR_FORMAT, "%s: missing tensor token_embd.weight", f->path);
    if (embd->ne[1] < 1 || embd->ne[1] > MAX_U32)
        return status_set(KG_ERR_FORMAT, "%s: tensor token_embd.weight has %lld rows", f->path, (long long)embd->ne[1]);
    p->n_vocab = (int)embd->ne[1];
    bool found;
    KG_TRY(arch_u32(b, "vocab_size", &vocab_size, &found));
    if (found && vocab_size != p->n_vocab)
        return status_set(KG_ERR_FORMAT, "%s: key %s is %d, but tensor token_embd.weight has %d rows", f->path,
                          full_key(b, "vocab_size").text, vocab_size, p->n_vocab);
    const struct meta *tokens = file_meta(f, "tokenizer.ggml.tokens");
    if (tokens && tokens->type == META_ARR && tokens->n != (uint64_t)p->n_vocab)
        return status_set(KG_ERR_FORMAT, "%s: key tokenizer.ggml.tokens has %llu items, but tensor token_embd.weight has %d rows", f->path,
                          (unsigned long long)tokens->n, p->n_vocab);
    return KG_OK;
}

/* ---- tensors */

static kg_status tensor_by_name(const struct arch_build *b, const struct tensor **out, bool optional, int64_t ne0, int64_t ne1, int64_t ne2, const char *name)
{
    *out = NULL;
    const struct tensor *t = file_tensor(b->file, name);
    const size_t n = strlen(name);
    char bare[128];
    if (!t && n > 7 && n < sizeof bare && strcmp(name + n - 7, ".weight") == 0) { /* as norms of Falcon H1 are called */
        snprintf(bare, sizeof bare, "%.*s", (int)n - 7, name);
        t = file_tensor(b->file, bare);
    }
    if (!t) return optional ? KG_OK : status_set(KG_ERR_FORMAT, "%s: missing tensor %s", b->file->path, name);
    if (t->ne[0] != ne0 || t->ne[1] != ne1 || t->ne[2] != ne2 || t->ne[3] != 1) {
        char third[32] = "";
        if (ne2 != 1) snprintf(third, sizeof third, ", %lld", (long long)ne2);
        return status_set(KG_ERR_FORMAT, "%s: tensor %s is {%lld, %lld, %lld, %lld}, wanted {%lld, %lld%s}", b->file->path, name,
                          (long long)t->ne[0], (long long)t->ne[1], (long long)t->ne[2], (long long)t->ne[3], (long long)ne0,
                          (long long)ne1, third);
    }
    *out = t;
    return KG_OK;
}

kg_status arch_tensor(const struct arch_build *b, const struct tensor **out, bool optional, int64_t ne0, int64_t ne1, const char *fmt, ...)
{
    char name[128];
    va_list args;
    va_start(args, fmt);
    vsnprintf(name, sizeof name, fmt, args);
    va_end(args);
    return tensor_by_name(b, out, optional, ne0, ne1, 1, name);
}

kg_status arch_tensor_3d(const struct arch_build *b, const struct tensor **out, bool optional, int64_t ne0, int64_t ne1, int64_t ne2,
                         const char *fmt, ...)
{
    char name[128];
    va_list args;
    va_start(args, fmt);
    vsnprintf(name, sizeof name, fmt, args);
    va_end(args);
    return tensor_by_name(b, out, optional, ne0, ne1, ne2, name);
}

kg_status arch_part(const struct arch_build *b, const struct tensor **out, const struct tensor *t, int64_t first, int64_t n,
                    const char *tag)
{
    const struct type_info *type = type_by_id((uint32_t)t->type);
    bool vector = t->ne[1] == 1 && t->ne[2] == 1 && t->ne[3] == 1;
    if (vector && (first % type->block || n % type->block))
        return status_set(KG_ERR_UNSUPPORTED, "%s: tensor %s cannot be split at element %lld: its blocks have %d", b->file->path, t->name,
                          (long long)first, type->block);
    size_t name_len = strlen(t->name) + strlen(tag) + 2;
    struct tensor *part = arena_alloc(&b->program->arena, sizeof *part);
    char *name = arena_alloc(&b->program->arena, name_len + 1);
    if (!part || !name) return KG_ERR_MEMORY;
    snprintf(name, name_len + 1, "%s[%s]", t->name, tag);
    *part = *t;
    part->name = name;
    part->ne[vector ? 0 : 1] = n;
    size_t unit = vector ? (size_t)type->block_bytes : tensor_row_bytes(t); /* bytes of a block or of a row */
    int64_t per_unit = vector ? type->block : 1;
    part->data = (const uint8_t *)t->data + (size_t)(first / per_unit) * unit;
    part->n_bytes = (size_t)(n / per_unit) * unit;
    *out = part;
    return vector ? KG_OK : program_part_loras(b->program, t, part, first);
}

kg_status arch_ones(const struct arch_build *b, const struct tensor **out, int n)
{
    struct tensor *t = arena_alloc(&b->program->arena, sizeof *t);
    float *data = arena_array(&b->program->arena, (size_t)n, sizeof *data);
    if (!t || !data) return KG_ERR_MEMORY;
    for (int i = 0; i < n; i++) data[i] = 1;
    *t = (struct tensor){.name = "ones", .type = TYPE_F32, .n_dims = 1, .ne = {n, 1, 1, 1}, .data = data, .n_bytes = (size_t)n * sizeof *data};
    *out = t;
    return KG_OK;
}

/* ---- RoPE */

static kg_status positive(const struct arch_build *b, const char *key, double *out, bool *found)
{
    bool there = false;
    KG_TRY(arch_f64(b, key, out, &there));
    if (found) *found = there;
    if (there && !(isfinite(*out) && *out > 0))
        return status_set(KG_ERR_FORMAT, "%s: key %s is %g, must be above 0", b->file->path, full_key(b, key).text, *out);
    return KG_OK;
}

static kg_status rope_scaling_type(const struct arch_build *b, struct rope *rope, bool *found)
{
    static const struct {
        const char *name;
        enum rope_scaling type;
    } types[] = {
        {"none", ROPE_SCALING_NONE}, {"linear", ROPE_SCALING_LINEAR}, {"llama3", ROPE_SCALING_LLAMA3}, {"yarn", ROPE_SCALING_YARN}};
    struct str s;
    KG_TRY(arch_str(b, "rope.scaling.type", &s, found));
    if (!*found) return KG_OK;
    for (size_t i = 0; i < COUNT_OF(types); i++) {
        if (s.len == strlen(types[i].name) && !memcmp(s.ptr, types[i].name, s.len)) {
            rope->scaling = types[i].type;
            return KG_OK;
        }
    }
    return status_set(KG_ERR_UNSUPPORTED, "%s: key %s is \"%.*s\"; supported are none, linear, llama3, yarn", b->file->path,
                      full_key(b, "rope.scaling.type").text, (int)MIN(s.len, 40), s.ptr);
}

/* The factor's key has two names; a factor without a type means linear, where 0 and 1 stand for none. */
static kg_status rope_factor(const struct arch_build *b, struct rope *rope, bool typed)
{
    const char *key = "rope.scaling.factor";
    bool found;
    double factor = 0;
    KG_TRY(arch_f64(b, key, &factor, &found));
    if (!found) {
        key = "rope.scale_linear";
        KG_TRY(arch_f64(b, key, &factor, &found));
    }
    if (!isfinite(factor) || factor < 0)
        return status_set(KG_ERR_FORMAT, "%s: key %s is %g, must be above 0", b->file->path, full_key(b, key).text, factor);
    rope->factor = 1;
    if (typed && rope->scaling == ROPE_SCALING_NONE) return KG_OK;
    if (typed && factor == 0)
        return status_set(KG_ERR_FORMAT, "%s: key %s is %s, but the RoPE scaling needs it", b->file->path,
                          full_key(b, "rope.scaling.factor").text, found ? "0" : "missing");
    if (!typed && found && factor != 0 && factor != 1) rope->scaling = ROPE_SCALING_LINEAR;
    if (factor != 0) rope->factor = factor;
    return KG_OK;
}

static kg_status rope_scaling(const struct arch_build *b, struct rope *rope)
{
    bool typed = false, found = false;
    rope->scaling = ROPE_SCALING_NONE;
    KG_TRY(rope_scaling_type(b, rope, &typed));
    KG_TRY(rope_factor(b, rope, typed));
    double orig_ctx = 0, attn = 1, yarn_attn = 1, log_multiplier = 0;
    const struct meta *m = file_meta(b->file, full_key(b, "rope.scaling.original_context_length").text);
    if (m && m->type != META_F32 && m->type != META_F64) { /* llama.cpp writes an integer */
        int n = 0;
        KG_TRY(arch_size(b, "rope.scaling.original_context_length", &n));
        orig_ctx = n;
        found = true;
    } else {
        KG_TRY(positive(b, "rope.scaling.original_context_length", &orig_ctx, &found));
    }
    rope->orig_ctx = found ? orig_ctx : rope->scaling == ROPE_SCALING_LLAMA3 ? 8192 : (double)b->program->n_ctx;
    KG_TRY(positive(b, "rope.scaling.attn_factor", &attn, NULL));
    KG_TRY(positive(b, "rope.scaling.yarn_attn_factor", &yarn_attn, NULL));
    KG_TRY(arch_f64(b, "rope.scaling.yarn_log_multiplier", &log_multiplier, &found));
    rope->attn_factor = attn * yarn_attn;
    rope->low_freq = 1, rope->high_freq = 4;
    KG_TRY(positive(b, "rope.scaling.low_freq_factor", &rope->low_freq, NULL));
    KG_TRY(positive(b, "rope.scaling.high_freq_factor", &rope->high_freq, NULL));
    rope->beta_fast = 32, rope->beta_slow = 1, rope->ext_factor = 1;
    KG_TRY(positive(b, "rope.scaling.yarn_beta_fast", &rope->beta_fast, NULL));
    KG_TRY(positive(b, "rope.scaling.yarn_beta_slow", &rope->beta_slow, NULL));
    KG_TRY(arch_f64(b, "rope.scaling.yarn_ext_factor", &rope->ext_factor, &found));
    if (file_tensor(b->file, "rope_factors_short.weight")) /* longrope */
        rope->magnitude = attn;
    else if (rope->scaling != ROPE_SCALING_YARN && rope->attn_factor != 1)
        return status_set(KG_ERR_UNSUPPORTED, "%s: key %s is supported only with yarn scaling", b->file->path,
                          full_key(b, attn != 1 ? "rope.scaling.attn_factor" : "rope.scaling.yarn_attn_factor").text);
    if (log_multiplier != 0 && b->knows_log_multiplier) rope->attn_factor = 1 / (1 + 0.1 * log(rope->factor));
    else if (log_multiplier != 0)
        return status_set(KG_ERR_UNSUPPORTED, "%s: key %s is not supported", b->file->path,
                          full_key(b, "rope.scaling.yarn_log_multiplier").text);
    return KG_OK;
}

kg_status arch_rope(const struct arch_build *b, struct rope *rope)
{
    /* weights that were not converted keep the order of their rows, whatever the architecture has in GGUF */
    bool halves = false, found;
    KG_TRY(file_get_bool(b->file, "kagari.rope_halves", &halves, &found));
    bool hard = false; /* beyond the trained length the rotation would change */
    KG_TRY(file_get_bool(b->file, "kagari.ctx_is_hard", &hard, &found));
    b->program->ctx_is_hard |= hard;
    if (halves) rope->style = ROPE_HALVES;
    rope->base = 10000;
    rope->n_rot = rope->head_dim;
    KG_TRY(positive(b, "rope.freq_base", &rope->base, NULL));
    KG_TRY(arch_u32(b, "rope.dimension_count", &rope->n_rot, &found));
    if (rope->n_rot < 2 || rope->n_rot % 2 || rope->n_rot > rope->head_dim)
        return status_set(KG_ERR_FORMAT, "%s: key %s is %d: must be even and at most the head's %d", b->file->path,
                          full_key(b, "rope.dimension_count").text, rope->n_rot, rope->head_dim);
    KG_TRY(rope_scaling(b, rope));
    KG_TRY(arch_tensor(b, &rope->factors, true, rope->n_rot / 2, 1, "rope_freqs.weight"));
    if (!rope->factors) {
        /* longrope: one list of factors for texts up to the original length, another for longer ones. All positions of a text have the same: which is
         * chosen by the context that is asked for, once, since keys that are in a cache are rotated already */
        const bool is_long = (double)b->n_ctx > rope->orig_ctx;
        KG_TRY(arch_tensor(b, &rope->factors, true, rope->n_rot / 2, 1, is_long ? "rope_factors_long.weight" : "rope_factors_short.weight"));
        if (rope->factors && !is_long && rope->orig_ctx < (double)b->program->n_ctx) {
            b->program->n_ctx = (int64_t)rope->orig_ctx;
            b->program->ctx_is_hard = true;
        }
    }
    if (!rope->factors) return KG_OK;
    if (rope->factors->type != TYPE_F32) return status_set(KG_ERR_UNSUPPORTED, "%s: tensor %s must be F32", b->file->path, rope->factors->name);
    for (int i = 0; i < rope->n_rot / 2; i++) {
        float v = f32_from_bits(load_u32((const uint8_t *)rope->factors->data + (size_t)i * 4));
        if (!(isfinite(v) && v > 0))
            return status_set(KG_ERR_FORMAT, "%s: tensor %s: item %d is %g, must be above 0", b->file->path, rope->factors->name, i, (double)v);
    }
    return KG_OK;
}
