/* config.json of a Hugging Face folder -> keys of GGUF, by the rows of hf.def. Owns the meaning of that file; what it asks for and no key of
 * GGUF can say is refused. */
#include "file/hf.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define TWO_PI 6.283185307179586

enum { NAME_BYTES = 160 };

static const struct hf_family families[] = {
#define HF_FAMILY(model_type, arch, act, flags) {model_type, arch, act, flags},
#include "file/hf.def"
#undef HF_FAMILY
};

static const struct {
    const char *families, *name, *key;
    enum meta_type type;
} keys[] = {
#define HF_KEY(families, name, key, type) {families, name, key, type},
#include "file/hf.def"
#undef HF_KEY
};

static const struct {
    const char *families, *name, *gguf;
} names[] = {
#define HF_TENSOR(families, name, gguf) {families, name, gguf},
#include "file/hf.def"
#undef HF_TENSOR
};

static const struct {
    const char *families, *name, *json;
} musts[] = {
#define HF_MUST(families, name, json) {families, name, json},
#include "file/hf.def"
#undef HF_MUST
};

static const struct {
    const char *families;
    int period;
} periods[] = {
#define HF_PERIOD(families, period) {families, period},
#include "file/hf.def"
#undef HF_PERIOD
};

static const struct {
    const char *families, *name, *key;
    bool usual;
} unless[] = {
#define HF_UNLESS(families, name, key, usual) {families, name, key, usual},
#include "file/hf.def"
#undef HF_UNLESS
};

bool hf_lists(const char *list, const char *word)
{
    if (!list) return true;
    for (size_t n; *list; list += n + strspn(list + n, " ")) {
        n = strcspn(list, " ");
        if (strlen(word) == n && memcmp(list, word, n) == 0) return true;
    }
    return false;
}

kg_status hf_family_of(const json_t *config, const struct hf_family **out)
{
    const char *type = json_string_value(json_object_get(config, "model_type"));
    if (!type) return status_set(KG_ERR_FORMAT, "config.json: no model_type");
    char known[512] = "";
    size_t len = 0;
    for (size_t i = 0; i < COUNT_OF(families); i++) {
        *out = &families[i];
        if (strcmp(families[i].model_type, type) == 0) return KG_OK;
        if (len < sizeof known) len += (size_t)snprintf(known + len, sizeof known - len, "%s%s", i ? ", " : "", families[i].model_type);
    }
    return status_set(KG_ERR_UNSUPPORTED, "config.json: model_type \"%.*s\" is not known; those known are %s", MIN(file_shown(type), 40), type,
                      known);
}

const struct hf_family *hf_family_at(size_t i) { return i < COUNT_OF(families) ? &families[i] : NULL; }

/* ---- numbers */

/* Newer files keep the rotation's parameters in an object of their own. A dot stands between the name of an object and one in it. */
static const json_t *field(const json_t *config, const char *name)
{
    char outer[32];
    const char *dot = strchr(name, '.');
    if (dot && (size_t)(dot - name) < sizeof outer) {
        snprintf(outer, sizeof outer, "%.*s", (int)(dot - name), name);
        config = json_object_get(config, outer);
        name = dot + 1;
    }
    const json_t *v = json_object_get(config, name);
    if (!v || json_is_null(v)) v = json_object_get(json_object_get(config, "rope_parameters"), name);
    return json_is_null(v) ? NULL : v;
}

static const json_t *find(const struct hf_family *family, const json_t *config, const char *key)
{
    for (size_t i = 0; i < COUNT_OF(keys); i++)
        if (strcmp(keys[i].key, key) == 0 && hf_lists(keys[i].families, family->model_type) && field(config, keys[i].name))
            return field(config, keys[i].name);
    return NULL;
}

int64_t hf_config_number(const struct hf_family *family, const json_t *config, const char *gguf_key)
{
    const json_t *v = find(family, config, gguf_key);
    return json_is_integer(v) ? json_integer_value(v) : 0;
}

static int64_t head_dim(const struct hf_family *family, const json_t *config)
{
    int64_t n = hf_config_number(family, config, "attention.key_length");
    int64_t heads = hf_config_number(family, config, "attention.head_count");
    return n > 0 ? n : heads > 0 ? hf_config_number(family, config, "embedding_length") / heads : 0;
}

struct out {
    struct meta_out *o;
    const struct hf_family *family;
    const json_t *config;
};

static const char *full_key(const struct out *w, const char *key, char *buf, size_t size)
{
    snprintf(buf, size, "%s.%s", w->family->arch, key);
    return buf;
}

static void put_u32(const struct out *w, const char *key, int64_t v)
{
    char text[128];
    meta_out_u32(w->o, full_key(w, key, text, sizeof text), (uint32_t)v);
}

static void put_f32(const struct out *w, const char *key, double v)
{
    char text[128];
    meta_out_f32(w->o, full_key(w, key, text, sizeof text), (float)v);
}

static kg_status put_row(const struct out *w, const char *name, const char *key, enum meta_type type, const json_t *v)
{
    char text[128];
    if (type == META_U32) {
        if (json_is_true(v)) {
            put_u32(w, key, 1);
            return KG_OK;
        }
        if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > UINT32_MAX)
            return status_set(KG_ERR_FORMAT, "config.json: %s is no integer of 32 bits", name);
        put_u32(w, key, json_integer_value(v));
    } else if (type == META_F32) {
        if (!json_is_number(v)) return status_set(KG_ERR_FORMAT, "config.json: %s is not a number", name);
        put_f32(w, key, json_number_value(v));
    } else {
        if (!json_is_boolean(v)) return status_set(KG_ERR_FORMAT, "config.json: %s is neither true nor false", name);
        meta_out_bool(w->o, full_key(w, key, text, sizeof text), json_is_true(v));
    }
    return KG_OK;
}

/* Whether layer i is said to have a window; -1: the file does not say. */
static int has_window(const json_t *config, size_t i)
{
    const char *type = json_string_value(json_array_get(json_object_get(config, "layer_types"), i));
    return !type ? -1 : strcmp(type, "sliding_attention") == 0 || strcmp(type, "chunked_attention") == 0;
}

static bool any_window(const json_t *config)
{
    const json_t *types = json_object_get(config, "layer_types");
    for (size_t i = 0; i < json_array_size(types); i++)
        if (has_window(config, i) == 1) return true;
    return !json_is_array(types);
}

/* Which layers have a window: no key of GGUF if it is as programs take it without one. */
static kg_status put_windows(const struct out *w)
{
    const json_t *types = json_object_get(w->config, "layer_types");
    size_t n = json_array_size(types), period = 1;
    int usual = 0;
    for (size_t i = 0; i < n; i++) {
        const char *type = json_string_value(json_array_get(types, i));
        if (!type || (has_window(w->config, i) == 0 && strcmp(type, "full_attention") != 0))
            return status_set(KG_ERR_UNSUPPORTED, "config.json: layer_types: \"%.40s\" is not supported", type ? type : "?");
    }
    if (n == 0 || !any_window(w->config)) return KG_OK;
    for (size_t i = 0; !hf_lists(periods[i].families, w->family->model_type) || (usual = periods[i].period, 0); i++) continue;
    while (period <= n && has_window(w->config, period - 1) == 1) period++; /* the first layer without one ends the first period */
    bool regular = true;
    for (size_t i = 0; i < n; i++) regular &= has_window(w->config, i) == ((i + 1) % period != 0);
    if (!regular) {
        char key[128];
        meta_out_array(w->o, full_key(w, "attention.sliding_window_pattern", key, sizeof key), META_BOOL, n);
        for (size_t i = 0; i < n; i++) meta_out_bytes(w->o, &(uint8_t){has_window(w->config, i) == 1}, 1);
        return KG_OK;
    }
    if (period > n) period = usual && (size_t)usual > n ? (size_t)usual : 0; /* all have one */
    if (period != (size_t)usual) put_u32(w, "attention.sliding_window_pattern", (int64_t)period);
    return KG_OK;
}

/* Whether layer i has attention. */
static bool has_attention(const json_t *config, size_t i)
{
    const json_t *types = json_object_get(config, "layer_types"), *listed = json_object_get(config, "full_attn_idxs");
    const char *type = json_string_value(json_array_get(types, i));
    if (json_is_array(types)) return type && (strcmp(type, "full_attention") == 0 || strcmp(type, "attention") == 0);
    for (size_t k = 0; k < json_array_size(listed); k++)
        if (json_integer_value(json_array_get(listed, k)) == (json_int_t)i) return true;
    return !json_is_array(listed);
}

static kg_status check_layer_types(const struct out *w, const char *other)
{
    const json_t *types = json_object_get(w->config, "layer_types");
    for (size_t i = 0; i < json_array_size(types); i++) {
        const char *type = json_string_value(json_array_get(types, i));
        if (!type || (!has_attention(w->config, i) && strcmp(type, other) != 0))
            return status_set(KG_ERR_UNSUPPORTED, "config.json: layer_types: \"%.40s\" is not supported for %s", type ? type : "?", w->family->model_type);
    }
    return KG_OK;
}

/* GGUF has a number of key and value heads for each layer: 0 for those of another kind. */
static kg_status put_kv_heads(const struct out *w, const char *other)
{
    const int64_t n = hf_config_number(w->family, w->config, "block_count"), heads = hf_config_number(w->family, w->config, "attention.head_count_kv");
    char key[128];
    KG_TRY(check_layer_types(w, other));
    if (n < 1 || n > 65536) return status_set(KG_ERR_FORMAT, "config.json: %lld layers", (long long)n);
    meta_out_array(w->o, full_key(w, "attention.head_count_kv", key, sizeof key), META_I32, (uint64_t)n);
    for (int64_t i = 0; i < n; i++) meta_out_bytes(w->o, &(int32_t){has_attention(w->config, (size_t)i) ? (int32_t)heads : 0}, 4);
    return KG_OK;
}

/* Only steps without bounds. Newer files write {"__float__": "Infinity"}. */
static kg_status check_steps(const struct out *w)
{
    const json_t *limit = json_object_get(w->config, "time_step_limit"), *most = json_array_get(limit, 1);
    const char *word = json_string_value(json_object_get(most, "__float__"));
    if (limit && (json_number_value(json_array_get(limit, 0)) != 0 || !(json_number_value(most) >= 1e6 || (word && strcmp(word, "Infinity") == 0))))
        return status_set(KG_ERR_UNSUPPORTED, "config.json: time_step_limit is not supported");
    return KG_OK;
}

/* Numbers of heads and widths that are 0 where a layer is something else. */
static kg_status put_nemotron_h(const struct out *w)
{
    const char *pattern = json_string_value(json_object_get(w->config, HF_PATTERN));
    const bool moe = strchr(pattern, 'E') != NULL;
    const int64_t heads = hf_config_number(w->family, w->config, "attention.head_count_kv"), ffn = hf_config_number(w->family, w->config, moe ? "expert_feed_forward_length" : "feed_forward_length");
    const int64_t ssm_heads = hf_config_number(w->family, w->config, "ssm.time_step_rank"), ssm_dim = json_integer_value(json_object_get(w->config, "mamba_head_dim"));
    char key[128];
    KG_TRY(check_steps(w));
    if (ssm_heads < 1 || ssm_dim < 1 || ssm_heads > 1 << 20 || ssm_dim > 1 << 20) return status_set(KG_ERR_FORMAT, "config.json: mamba_num_heads and mamba_head_dim are needed");
    put_u32(w, "ssm.inner_size", ssm_heads * ssm_dim);
    for (int k = 0; k < 2; k++) {
        meta_out_array(w->o, full_key(w, k ? "feed_forward_length" : "attention.head_count_kv", key, sizeof key), META_I32, strlen(pattern));
        for (const char *p = pattern; *p; p++) meta_out_bytes(w->o, &(int32_t){(int32_t)(k ? (strchr("-E", *p) ? ffn : 0) : *p == '*' ? heads : 0)}, 4);
    }
    return KG_OK;
}

static kg_status put_granite_hybrid(const struct out *w)
{
    const json_t *types = json_object_get(w->config, "layer_types");
    const char *positions = json_string_value(json_object_get(w->config, "position_embedding_type"));
    const int64_t dim = hf_config_number(w->family, w->config, "embedding_length"), expand = json_integer_value(json_object_get(w->config, "mamba_expand"));
    size_t n_attention = 0;
    char key[128];
    for (size_t i = 0; i < json_array_size(types); i++) n_attention += has_attention(w->config, i);
    if (n_attention == 0 || n_attention == json_array_size(types))
        return status_set(KG_ERR_UNSUPPORTED, "config.json: layer_types: %s with only one kind of layers is not supported", w->family->model_type);
    if (expand < 1 || expand > 1024 || dim < 1 || dim > 1 << 20) return status_set(KG_ERR_FORMAT, "config.json: mamba_expand is needed");
    KG_TRY(put_kv_heads(w, "mamba"));
    put_u32(w, "ssm.inner_size", expand * dim);
    put_u32(w, "feed_forward_length", hf_config_number(w->family, w->config, "feed_forward_length"));
    meta_out_bool(w->o, full_key(w, "rope.scaling.finetuned", key, sizeof key), positions && strcmp(positions, "rope") == 0);
    return KG_OK;
}

/* Factors are in the weights; of a tied output they are those of the embedding. */
static kg_status put_falcon_h1(const struct out *w)
{
    const json_t *factors = json_object_get(w->config, HF_MULTIPLIERS);
    if (json_is_true(json_object_get(w->config, "mamba_rms_norm")) && !json_is_false(json_object_get(w->config, "mamba_norm_before_gate")))
        return status_set(KG_ERR_UNSUPPORTED, "config.json: mamba_norm_before_gate is not supported");
    KG_TRY(check_steps(w));
    meta_out_array(w->o, HF_MULTIPLIERS, META_F64, json_array_size(factors));
    for (size_t i = 0; i < json_array_size(factors); i++) meta_out_bytes(w->o, &(double){json_number_value(json_array_get(factors, i))}, 8);
    if (json_is_true(json_object_get(w->config, "tie_word_embeddings")) && hf_multiplier(w->config, 0) != hf_multiplier(w->config, 1))
        put_f32(w, "logit_scale", hf_multiplier(w->config, 1) / hf_multiplier(w->config, 0));
    return KG_OK;
}

/* The feed-forward width that is written need not be that of the weights. */
static kg_status put_lfm2(const struct out *w)
{
    const json_t *adjust = json_object_get(w->config, "block_auto_adjust_ff_dim"), *factor = json_object_get(w->config, "block_ffn_dim_multiplier");
    int64_t ffn = hf_config_number(w->family, w->config, "feed_forward_length"), unit = json_integer_value(json_object_get(w->config, "block_multiple_of"));
    KG_TRY(put_kv_heads(w, "conv"));
    if (ffn < 1 || ffn > 1 << 30) return status_set(KG_ERR_FORMAT, "config.json: a feed-forward width of %lld", (long long)ffn);
    if (w->family->arch[4] == 0 && (!adjust || json_is_true(adjust))) { /* with experts, it is */
        const double stretch = json_is_number(factor) ? json_number_value(factor) : 1;
        if (unit < 1 || unit > 1 << 30) unit = 256;
        if (!(stretch > 0 && stretch <= 64)) return status_set(KG_ERR_FORMAT, "config.json: block_ffn_dim_multiplier is %g", stretch);
        ffn = (int64_t)(stretch * (double)(2 * ffn / 3));
        ffn = (ffn + unit - 1) / unit * unit;
    }
    put_u32(w, "feed_forward_length", ffn);
    return KG_OK;
}

static kg_status put_jamba(const struct out *w)
{
    const int64_t dim = hf_config_number(w->family, w->config, "embedding_length"), expand = json_integer_value(json_object_get(w->config, "mamba_expand"));
    if (expand < 1 || expand > 1024 || dim < 1 || dim > 1 << 20) return status_set(KG_ERR_FORMAT, "config.json: mamba_expand is needed");
    KG_TRY(put_kv_heads(w, "mamba"));
    put_u32(w, "ssm.inner_size", expand * dim);
    put_u32(w, "feed_forward_length", hf_config_number(w->family, w->config, "feed_forward_length"));
    return KG_OK;
}

static kg_status put_mixed(const struct out *w)
{
    if (strcmp(w->family->arch, "jamba") == 0) return put_jamba(w);
    if (strncmp(w->family->arch, "lfm2", 4) == 0) return put_lfm2(w);
    return strcmp(w->family->arch, "granitehybrid") == 0 ? put_granite_hybrid(w) : put_nemotron_h(w);
}

/* Of every so many layers the last has attention. */
static kg_status put_delta(const struct out *w)
{
    const size_t n = (size_t)hf_config_number(w->family, w->config, "block_count");
    const int64_t heads = hf_config_number(w->family, w->config, "ssm.time_step_rank"), v_dim = json_integer_value(json_object_get(w->config, "linear_value_head_dim"));
    size_t period = (size_t)MAX(json_integer_value(json_object_get(w->config, "full_attention_interval")), (json_int_t)0);
    KG_TRY(check_layer_types(w, "linear_attention"));
    if (n < 1 || n > 65536 || heads < 1 || v_dim < 1 || heads > 1 << 20 || v_dim > 1 << 20) return status_set(KG_ERR_FORMAT, "config.json: linear_num_value_heads and linear_value_head_dim are needed");
    if (json_is_array(json_object_get(w->config, "layer_types"))) {
        for (period = 1; period <= n && !has_attention(w->config, period - 1);) period++;
        for (size_t i = 0; i < n; i++)
            if (has_attention(w->config, i) != ((i + 1) % period == 0))
                return status_set(KG_ERR_UNSUPPORTED, "config.json: layer_types: layers with attention come at no fixed distance, which is not supported");
    }
    put_u32(w, "full_attention_interval", period ? (int64_t)period : 4);
    put_u32(w, "ssm.inner_size", heads * v_dim);
    if (strcmp(w->family->model_type, "qwen3_next") != 0) meta_out_bool(w->o, "kagari.heads_grouped", true);
    return KG_OK;
}

/* Positions of texts have one dimension: other programs want to know how those of images are divided. */
static void put_sections(const struct out *w)
{
    const json_t *sections = field(w->config, "mrope_section");
    char key[128];
    if (!sections) sections = json_object_get(json_object_get(w->config, "rope_scaling"), "mrope_section");
    meta_out_array(w->o, full_key(w, "rope.dimension_sections", key, sizeof key), META_I32, 4);
    for (size_t i = 0; i < 4; i++) meta_out_bytes(w->o, &(int32_t){(int32_t)json_integer_value(json_array_get(sections, i))}, 4);
}

/* Only state spaces: some keys that other programs ask for say that there is no attention. */
static kg_status put_ssm(const struct out *w)
{
    char key[128];
    const bool two = strcmp(w->family->arch, "mamba2") == 0;
    KG_TRY(check_steps(w));
    put_u32(w, "context_length", 1 << 20);
    put_u32(w, "feed_forward_length", 0);
    put_u32(w, "attention.head_count", 0);
    if (!two) {
        const bool falcon = strcmp(w->family->model_type, "falcon_mamba") == 0;
        const json_t *eps = json_object_get(w->config, "mixer_rms_eps"), *usual = json_object_get(w->config, "layer_norm_epsilon");
        meta_out_bool(w->o, full_key(w, "ssm.dt_b_c_rms", key, sizeof key), falcon);
        if (falcon && json_is_number(eps) && json_number_value(eps) != json_number_value(usual)) meta_out_f32(w->o, "kagari.mixer_rms_eps", (float)json_number_value(eps));
        return KG_OK;
    }
    const int64_t heads = hf_config_number(w->family, w->config, "ssm.time_step_rank"), head_dim = json_integer_value(json_object_get(w->config, "head_dim"));
    if (heads < 1 || head_dim < 1 || heads > 1 << 20 || head_dim > 1 << 20) return status_set(KG_ERR_FORMAT, "config.json: num_heads and head_dim are needed");
    put_u32(w, "ssm.inner_size", heads * head_dim);
    return KG_OK;
}

static void put_i32s(const struct out *w, const char *name, enum meta_type item, size_t n, const int32_t *v)
{
    char key[128];
    meta_out_array(w->o, full_key(w, name, key, sizeof key), item, n);
    for (size_t i = 0; i < n; i++) meta_out_bytes(w->o, &v[i], item == META_BOOL ? 1 : 4);
}

/* Gemma 4: layers with and without a window differ in heads, the last ones may have a feed-forward part twice as wide. */
static kg_status put_kinds(const struct out *w)
{
    const json_t *types = json_object_get(w->config, "layer_types"), *global = json_object_get(w->config, "num_global_key_value_heads");
    const json_t *rope = json_object_get(w->config, "rope_parameters");
    const bool same = json_is_true(json_object_get(w->config, "attention_k_eq_v")), wide = json_is_true(json_object_get(w->config, "use_double_wide_mlp"));
    const int64_t n = hf_config_number(w->family, w->config, "block_count"), shared = hf_config_number(w->family, w->config, "attention.shared_kv_layers");
    const int64_t heads = hf_config_number(w->family, w->config, "attention.head_count_kv"), ffn = hf_config_number(w->family, w->config, "feed_forward_length");
    const int64_t dim = json_integer_value(json_object_get(w->config, "global_head_dim")), local = hf_config_number(w->family, w->config, "attention.key_length");
    const char *type = json_string_value(json_object_get(rope, "rope_type"));
    if (n < 1 || n > 4096 || json_array_size(types) != (size_t)n || heads < 1 || heads > INT32_MAX || ffn < 1 || ffn > 1 << 29 || dim < 2 || dim > 65536 || local < 2 || local > 65536)
        return status_set(KG_ERR_FORMAT, "config.json: its layers do not fit each other");
    if (!type || strcmp(type, "proportional") != 0 || (json_object_get(rope, "factor") && json_number_value(json_object_get(rope, "factor")) != 1))
        return status_set(KG_ERR_UNSUPPORTED, "config.json: rope_parameters: another rotation than \"proportional\" is not supported for %s", w->family->model_type);
    const int64_t others = same && json_is_integer(global) ? json_integer_value(global) : heads;
    if (others < 1 || others > INT32_MAX) return status_set(KG_ERR_FORMAT, "config.json: num_global_key_value_heads is out of range");
    int32_t *v = malloc((size_t)n * 3 * sizeof *v);
    if (!v) return status_set(KG_ERR_MEMORY, "out of memory");
    kg_status st = KG_OK;
    for (int64_t i = 0; i < n; i++) {
        const char *kind = json_string_value(json_array_get(types, (size_t)i));
        if (!kind || (strcmp(kind, "full_attention") != 0 && strcmp(kind, "sliding_attention") != 0)) st = status_set(KG_ERR_UNSUPPORTED, "config.json: layer_types: \"%.40s\" is not supported", kind ? kind : "?");
        v[i] = has_window(w->config, (size_t)i) == 1;
        v[n + i] = (int32_t)(v[i] ? heads : others);
        v[2 * n + i] = (int32_t)(wide && i >= n - shared ? 2 * ffn : ffn);
    }
    put_i32s(w, "attention.sliding_window_pattern", META_BOOL, (size_t)n, v);
    put_i32s(w, "attention.head_count_kv", META_I32, (size_t)n, v + n);
    put_i32s(w, "feed_forward_length", META_I32, (size_t)n, v + 2 * n);
    free(v);
    put_u32(w, "attention.key_length", dim);
    put_u32(w, "attention.value_length", dim);
    put_u32(w, "attention.key_length_swa", local);
    put_u32(w, "attention.value_length_swa", local);
    put_u32(w, "rope.dimension_count", dim);
    put_u32(w, "rope.dimension_count_swa", local);
    return st;
}

static kg_status check_musts(const struct out *w)
{
    for (size_t i = 0; i < COUNT_OF(musts); i++) {
        const json_t *v = field(w->config, musts[i].name); /* null: not there */
        if (!v || !hf_lists(musts[i].families, w->family->model_type)) continue;
        json_t *only = json_loads(musts[i].json, JSON_DECODE_ANY, NULL);
        bool same = json_equal(v, only) || (json_is_number(v) && json_is_number(only) && json_number_value(v) == json_number_value(only));
        json_decref(only);
        if (!same) return status_set(KG_ERR_UNSUPPORTED, "config.json: %s other than %s is not supported for %s", musts[i].name, musts[i].json, w->family->model_type);
    }
    return KG_OK;
}

/* MiniCPM: GGUF has its two numbers multiplied out. */
static void put_minicpm(const struct out *w)
{
    const double depth = json_number_value(field(w->config, "scale_depth")), base = json_number_value(field(w->config, "dim_model_base"));
    const double layers = (double)hf_config_number(w->family, w->config, "block_count"), dim = (double)hf_config_number(w->family, w->config, "embedding_length");
    if (layers > 0 && depth > 0) put_f32(w, "residual_scale", depth / sqrt(layers));
    if (base > 0) put_f32(w, "logit_scale", dim / base);
}

/* MiniCPM 3: what programs take for granted is written only where it differs. */
static kg_status put_minicpm3(const struct out *w)
{
    const int64_t dim = hf_config_number(w->family, w->config, "embedding_length"), heads = hf_config_number(w->family, w->config, "attention.head_count");
    const int64_t nope = json_integer_value(json_object_get(w->config, "qk_nope_head_dim")), rot = hf_config_number(w->family, w->config, "rope.dimension_count");
    const json_t *value = field(w->config, "v_head_dim"), *embed = field(w->config, "scale_emb"), *depth = field(w->config, "scale_depth"), *base = field(w->config, "dim_model_base");
    const double layers = (double)hf_config_number(w->family, w->config, "block_count");
    if (nope < 1 || nope > 1 << 16 || rot < 2 || rot > 1 << 16 || heads < 1 || dim < 1 || layers < 1) return status_set(KG_ERR_FORMAT, "config.json: qk_nope_head_dim, qk_rope_head_dim and sizes are needed");
    put_u32(w, "attention.key_length", nope + rot);
    if (json_is_integer(value) && json_integer_value(value) != dim / heads) put_u32(w, "attention.value_length", json_integer_value(value));
    if (json_is_number(embed) && json_number_value(embed) != 12) put_f32(w, "embedding_scale", json_number_value(embed));
    if (json_is_number(depth) && json_number_value(depth) != 1.4) put_f32(w, "residual_scale", json_number_value(depth) / sqrt(layers));
    if (json_is_number(base) && json_number_value(base) != 256) put_f32(w, "logit_scale", (double)dim / json_number_value(base));
    return KG_OK;
}

/* Llama 4: what programs take for granted is written only where it differs. */
static kg_status put_llama4(const struct out *w)
{
    const json_t *tuned = json_object_get(w->config, "attn_temperature_tuning"), *step = json_object_get(w->config, "floor_scale"), *scale = json_object_get(w->config, "attn_scale");
    const json_t *normed = json_object_get(w->config, "use_qk_norm");
    const bool off = json_is_false(tuned) || (json_is_integer(tuned) && json_integer_value(tuned) == 0);
    if (strcmp(w->family->arch, "llama4") != 0) return KG_OK;
    if (normed && json_is_true(normed) != (hf_config_number(w->family, w->config, "expert_count") != 128))
        return status_set(KG_ERR_UNSUPPORTED, "config.json: use_qk_norm is not as programs take it for this number of experts");
    if (off || (json_is_number(scale) && json_number_value(scale) != 0.1)) put_f32(w, "attention.temperature_scale", off ? 0 : json_number_value(scale));
    if (json_is_number(step) && json_number_value(step) != 8192) put_u32(w, "attention.temperature_length", (int64_t)json_number_value(step));
    return KG_OK;
}

/* The rank of a small matrix: as fla has it where config.json has none. */
static void put_rank(const struct out *w, const char *name, const char *key, int64_t usual, double factor)
{
    const json_t *v = json_object_get(w->config, name);
    const double dim = (double)hf_config_number(w->family, w->config, "embedding_length");
    if (v) usual = json_is_null(v) ? MAX((int64_t)32, (int64_t)nearbyint(factor * sqrt(dim) / 32) * 32) : json_integer_value(v);
    put_u32(w, key, usual);
}

/* RWKV-7: some keys say that there is no attention, and no end of the context. */
static kg_status put_wkv(const struct out *w)
{
    const int64_t dim = hf_config_number(w->family, w->config, "embedding_length"), heads = json_integer_value(json_object_get(w->config, "num_heads"));
    const json_t *width = json_object_get(w->config, "head_dim"), *ffn = json_object_get(w->config, "intermediate_size"), *ratio = json_object_get(w->config, "hidden_ratio");
    const double stretch = json_is_number(ratio) ? json_number_value(ratio) : 4;
    const int64_t head = json_is_integer(width) ? json_integer_value(width) : heads > 0 ? dim / heads : 64;
    if (dim < 1 || dim > 1 << 24 || head < 1 || dim % head || !(stretch > 0 && stretch <= 64)) return status_set(KG_ERR_FORMAT, "config.json: hidden_size, head_dim and hidden_ratio do not fit each other");
    put_u32(w, "context_length", 1 << 20);
    put_u32(w, "attention.head_count", 0);
    put_u32(w, "wkv.head_size", head);
    if (!json_is_integer(ffn)) put_u32(w, "feed_forward_length", ((int64_t)((double)dim * stretch) + 31) / 32 * 32);
    const double wide = (double)head / 64;
    put_rank(w, "decay_low_rank_dim", "attention.decay_lora_rank", 64, 2.5 * wide);
    put_rank(w, "a_low_rank_dim", "attention.iclr_lora_rank", 64, 2.5 * wide);
    put_rank(w, "v_low_rank_dim", "attention.value_residual_mix_lora_rank", 16, 1.7 * wide);
    put_rank(w, "gate_low_rank_dim", "attention.gate_lora_rank", 128, 5);
    return KG_OK;
}

static kg_status put_unusual(const struct out *w)
{
    char text[128];
    for (size_t i = 0; i < COUNT_OF(unless); i++) {
        const json_t *v = field(w->config, unless[i].name);
        if (json_is_boolean(v) && hf_lists(unless[i].families, w->family->model_type) && json_is_true(v) != unless[i].usual)
            meta_out_bool(w->o, full_key(w, unless[i].key, text, sizeof text), !unless[i].usual);
    }
    if (strcmp(w->family->arch, "minicpm") == 0) put_minicpm(w);
    if (strcmp(w->family->arch, "bailingmoe2") == 0) put_u32(w, "expert_gating_func", 2);
    if (w->family->flags & HF_KV_WHOLE) KG_TRY(put_minicpm3(w));
    KG_TRY(put_llama4(w));
    const json_t *scalar = field(w->config, "query_pre_attn_scalar"); /* Gemma: usually the width of a head */
    double v = json_number_value(scalar);
    if (!scalar || v == (double)head_dim(w->family, w->config)) return KG_OK;
    if (!(isfinite(v) && v > 0)) return status_set(KG_ERR_FORMAT, "config.json: query_pre_attn_scalar is no number above 0");
    put_f32(w, "attention.scale", 1 / sqrt(v));
    return KG_OK;
}

/* Latent attention: GGUF tells the widths of what the cache keeps, and those of heads beside them. */
static void put_latent(const struct out *w)
{
    const int64_t rank = hf_config_number(w->family, w->config, "attention.kv_lora_rank"), rot = hf_config_number(w->family, w->config, "rope.dimension_count");
    put_u32(w, "attention.key_length", rank + rot);
    put_u32(w, "attention.value_length", rank);
    put_u32(w, "attention.key_length_mla", json_integer_value(json_object_get(w->config, "qk_nope_head_dim")) + rot);
    put_u32(w, "attention.head_count_kv", 1);
    put_u32(w, "expert_gating_func", strcmp(w->family->model_type, "deepseek_v2") == 0 ? 1 : 2);
}

static void put_both_sides(const struct out *w)
{
    char key[128];
    meta_out_bool(w->o, full_key(w, "attention.causal", key, sizeof key), false);
}

static kg_status put_encoder(const struct out *w)
{
    const json_t *types = json_object_get(w->config, "type_vocab_size");
    put_both_sides(w);
    if (json_is_integer(types) && json_integer_value(types) > 0) meta_out_u32(w->o, "tokenizer.ggml.token_type_count", (uint32_t)json_integer_value(types));
    if (strcmp(w->family->model_type, "nomic_bert") == 0) meta_out_bool(w->o, "kagari.ctx_is_hard", true); /* its rotation changes beyond */
    return KG_OK;
}

static kg_status put_rows(const struct out *w)
{
    for (size_t i = 0; i < COUNT_OF(keys); i++) {
        const json_t *v = field(w->config, keys[i].name);
        if (!v || !hf_lists(keys[i].families, w->family->model_type)) continue;
        if (find(w->family, w->config, keys[i].key) != v) continue; /* an earlier name of the same key counts */
        if (strcmp(keys[i].key, "attention.layer_norm_epsilon") == 0 && strncmp(w->family->model_type, "nemotron_h", 10) != 0 && find(w->family, w->config, "attention.layer_norm_rms_epsilon") == v) continue;
        if (w->family->flags & HF_MIXED && (strcmp(keys[i].key, "attention.head_count_kv") == 0 || strcmp(keys[i].key, "feed_forward_length") == 0)) continue;
        if (w->family->flags & HF_KINDS && (strcmp(keys[i].key, "attention.head_count_kv") == 0 || strcmp(keys[i].key, "feed_forward_length") == 0 || strcmp(keys[i].key, "attention.key_length") == 0)) continue;
        if (w->family->flags & HF_SSM && (strcmp(keys[i].key, "attention.layer_norm_epsilon") == 0 || strcmp(keys[i].key, "feed_forward_length") == 0 ||
                                          strcmp(keys[i].key, "attention.key_length") == 0))
            continue;
        if (w->family->flags & HF_WKV && (strcmp(keys[i].key, "context_length") == 0 || strncmp(keys[i].key, "attention.head_count", 20) == 0 || strcmp(keys[i].key, "attention.key_length") == 0)) continue;
        bool windows_off = json_is_false(json_object_get(w->config, "use_sliding_window"));
        if (strcmp(keys[i].name, "rope_theta") == 0 && json_object_get(json_object_get(w->config, "rope_scaling"), "alpha")) continue; /* put_rope has it */
        if (w->family->flags & HF_KV_WHOLE && strcmp(keys[i].name, "head_dim") == 0) continue;
        if (w->family->flags & HF_LATENT && (strcmp(keys[i].name, "head_dim") == 0 || strcmp(keys[i].name, "num_key_value_heads") == 0)) continue;
        if (strcmp(keys[i].name, "sliding_window") == 0 && (windows_off || !any_window(w->config))) continue;
        KG_TRY(put_row(w, keys[i].name, keys[i].key, keys[i].type, v));
        if (strcmp(keys[i].name, "head_dim") == 0) put_u32(w, "attention.value_length", json_integer_value(v));
    }
    return KG_OK;
}

/* ---- rotation */

static const json_t *scaling(const json_t *config, const char **type)
{
    const json_t *s = json_object_get(config, "rope_scaling");
    if (!json_is_object(s)) s = json_object_get(config, "rope_parameters");
    *type = json_string_value(json_object_get(s, "rope_type"));
    if (!*type) *type = json_string_value(json_object_get(s, "type"));
    if (!*type) *type = "default";
    return s;
}

static kg_status number(const json_t *s, const char *name, double *out)
{
    const json_t *v = json_object_get(s, name);
    *out = json_number_value(v);
    if (json_is_number(v) && isfinite(*out) && *out > 0) return KG_OK;
    return status_set(KG_ERR_FORMAT, "config.json: rope_scaling: %s is no number above 0", name);
}

static kg_status listed_factors(const json_t *list, float *out, int64_t *n)
{
    *n = (int64_t)json_array_size(list);
    if (*n < 1 || *n > 32768) return status_set(KG_ERR_FORMAT, "config.json: rope_scaling: a list of factors is missing or too long");
    for (int64_t i = 0; i < *n; i++) {
        const double v = json_number_value(json_array_get(list, (size_t)i));
        if (!(isfinite(v) && v > 0)) return status_set(KG_ERR_FORMAT, "config.json: rope_scaling: factor %d is no number above 0", (int)i);
        if (out) out[i] = (float)v;
    }
    return KG_OK;
}

static bool is_longrope(const char *type) { return strcmp(type, "longrope") == 0 || strcmp(type, "su") == 0; }

kg_status hf_rope_factors(const struct hf_family *family, const json_t *config, int which, float *out, int64_t *n)
{
    const char *type;
    const json_t *s = scaling(config, &type);
    *n = 0;
    if (which > 0) return is_longrope(type) ? listed_factors(json_object_get(s, which == 1 ? "short_factor" : "long_factor"), out, n) : KG_OK;
    if (family->flags & HF_KINDS) { /* the others of a head do not rotate */
        const int64_t whole = json_integer_value(json_object_get(config, "global_head_dim"));
        if (whole == 0) return KG_OK; /* what an adapter knows of its model */
        if (whole < 2 || whole > 65536) return status_set(KG_ERR_FORMAT, "config.json: global_head_dim is out of range");
        const json_t *share = json_object_get(s, "partial_rotary_factor");
        const int64_t rotated = (int64_t)((json_is_number(share) ? json_number_value(share) : 1) * (double)whole / 2);
        *n = whole / 2;
        for (int64_t i = 0; out && i < *n; i++) out[i] = i < rotated ? 1.0f : 1e30f;
        return KG_OK;
    }
    if (strcmp(type, "llama3") != 0) return KG_OK;
    double factor, low, high, old_ctx;
    KG_TRY(number(s, "factor", &factor));
    KG_TRY(number(s, "low_freq_factor", &low));
    KG_TRY(number(s, "high_freq_factor", &high));
    KG_TRY(number(s, "original_max_position_embeddings", &old_ctx));
    int64_t dim = head_dim(family, config);
    double base = json_number_value(find(family, config, "rope.freq_base"));
    if (dim < 2 || dim > 65536 || !(high >= low)) return status_set(KG_ERR_FORMAT, "config.json: rope_scaling does not fit the model");
    *n = dim / 2;
    if (base <= 0) base = 10000;
    for (int64_t i = 0; out && i < *n; i++) {
        double wave = TWO_PI * pow(base, 2.0 * (double)i / (double)dim);
        double smooth = high > low ? (old_ctx / wave - low) / (high - low) : old_ctx / wave > low ? 2 : -1;
        out[i] = (float)(smooth > 1 ? 1 : smooth < 0 ? factor : 1 / ((1 - smooth) / factor + smooth));
    }
    return KG_OK;
}

/* Phi: two lists of factors, which become tensors, and one factor of cos and sin. */
static kg_status put_longrope(const struct out *w, const json_t *s)
{
    const json_t *old = json_object_get(w->config, "original_max_position_embeddings");
    if (!old) old = json_object_get(s, "original_max_position_embeddings");
    const double most = json_number_value(json_object_get(w->config, "max_position_embeddings")), orig = json_number_value(old), given = json_number_value(json_object_get(s, "attention_factor"));
    if (!hf_lists("phi3 minicpm minicpm3", w->family->arch)) return status_set(KG_ERR_UNSUPPORTED, "config.json: rope_scaling \"longrope\" is not supported for %s", w->family->model_type);
    if (!(orig >= 2 && orig <= INT32_MAX && most >= 1)) return status_set(KG_ERR_FORMAT, "config.json: original_max_position_embeddings does not fit longrope");
    put_u32(w, "rope.scaling.original_context_length", (int64_t)orig);
    put_f32(w, "rope.scaling.attn_factor", given > 0 ? given : most > orig ? sqrt(1 + log(most / orig) / log(orig)) : 1);
    return KG_OK;
}

static kg_status put_yarn(const struct out *w, const json_t *s)
{
    static const char *const refused[] = {"mscale", "mscale_all_dim"};
    static const struct {
        const char *name, *key;
        double usual;
    } betas[] = {{"beta_fast", "rope.scaling.yarn_beta_fast", 32}, {"beta_slow", "rope.scaling.yarn_beta_slow", 1}};
    const json_t *whole = json_object_get(s, "truncate"), *factor = json_object_get(s, "attention_factor");
    double v, stretch;
    KG_TRY(number(s, "original_max_position_embeddings", &v));
    put_u32(w, "rope.scaling.original_context_length", (int64_t)v);
    const double m = json_number_value(json_object_get(s, "mscale")), all = json_number_value(json_object_get(s, "mscale_all_dim"));
    const bool latent = w->family->flags & HF_LATENT, known = (latent || strcmp(w->family->arch, "mistral3") == 0) && m > 0 && m == all; /* cos and sin stay */
    if (known) put_f32(w, "rope.scaling.yarn_log_multiplier", latent ? 0.1 * all : all); /* for latent attention it tells how scores grow */
    for (size_t i = 0; i < COUNT_OF(refused) && !known; i++)
        if (json_object_get(s, refused[i]) && !json_is_null(json_object_get(s, refused[i]))) return status_set(KG_ERR_UNSUPPORTED, "config.json: rope_scaling: %s is not supported", refused[i]);
    for (size_t i = 0; i < COUNT_OF(betas); i++) {
        if (!json_object_get(s, betas[i].name)) continue;
        KG_TRY(number(s, betas[i].name, &v));
        if (v != betas[i].usual) put_f32(w, betas[i].key, v);
    }
    /* gpt-oss alone has fractions, always: no key says so */
    if (whole && json_is_false(whole) != (strcmp(w->family->arch, "gpt-oss") == 0))
        return status_set(KG_ERR_UNSUPPORTED, "config.json: rope_scaling: truncate is not supported so for %s", w->family->model_type);
    if (!factor || json_is_null(factor)) return KG_OK;
    KG_TRY(number(s, "attention_factor", &v));
    KG_TRY(number(s, "factor", &stretch));
    put_f32(w, "rope.scaling.yarn_attn_factor", v / (1 + 0.1 * log(stretch)));
    return KG_OK;
}

static kg_status put_rope(const struct out *w)
{
    const char *type;
    const json_t *s = scaling(w->config, &type), *part = field(w->config, "partial_rotary_factor");
    char key[128];
    double factor;
    if (w->family->flags & HF_KINDS) return KG_OK; /* put_kinds has it */
    if (!part) part = field(w->config, "rotary_pct");
    if ((w->family->flags & HF_ROTATED || part) && !find(w->family, w->config, "rope.dimension_count"))
        put_u32(w, "rope.dimension_count", (int64_t)((part ? json_number_value(part) : 1) * (double)head_dim(w->family, w->config)));
    if (strcmp(type, "default") == 0 || strcmp(type, "llama3") == 0 || (strcmp(type, "mrope") == 0 && w->family->flags & HF_SECTIONS)) return KG_OK; /* llama3 is a tensor of factors */
    if (strcmp(type, "dynamic") == 0 && json_is_number(json_object_get(s, "alpha")) && strncmp(w->family->arch, "hunyuan-", 8) == 0) {
        /* not dynamic at all: another base */
        const double dim = (double)head_dim(w->family, w->config), base = json_number_value(find(w->family, w->config, "rope.freq_base"));
        KG_TRY(number(s, "alpha", &factor));
        if (dim < 4) return status_set(KG_ERR_FORMAT, "config.json: heads of %g", dim);
        put_f32(w, "rope.freq_base", (base > 0 ? base : 10000) * pow(factor, dim / (dim - 2)));
        return KG_OK;
    }
    if (is_longrope(type)) return put_longrope(w, s);
    if (strcmp(type, "dynamic") == 0) { /* nothing up to the trained length, another base for each length beyond */
        meta_out_bool(w->o, "kagari.ctx_is_hard", true);
        return KG_OK;
    }
    if (strcmp(type, "linear") != 0 && strcmp(type, "yarn") != 0)
        return status_set(KG_ERR_UNSUPPORTED, "config.json: rope_scaling \"%.20s\" is not supported", type);
    KG_TRY(number(s, "factor", &factor));
    meta_out_str(w->o, full_key(w, "rope.scaling.type", key, sizeof key), type, strlen(type));
    put_f32(w, "rope.scaling.factor", factor);
    return strcmp(type, "linear") == 0 ? KG_OK : put_yarn(w, s);
}

/* ---- the whole */

static kg_status check_activation(const struct hf_family *family, const json_t *config)
{
    static const char *const fields[] = {"hidden_activation", "hidden_act", "activation_function"};
    for (size_t i = 0; i < COUNT_OF(fields); i++) {
        const char *act = json_string_value(json_object_get(config, fields[i]));
        if (!act) continue;
        /* the same function has several names there; gemma's first files said "gelu" and meant its tanh form */
        static const char tanh_forms[] = "gelu_new gelu_fast gelu_pytorch_tanh";
        bool same = strcmp(act, family->act) == 0 || (hf_lists(tanh_forms, act) && hf_lists(tanh_forms, family->act)) ||
                    (strcmp(act, "gelu") == 0 && strcmp(family->model_type, "gemma") == 0) ||
                    (strcmp(act, "swiglu") == 0 && strcmp(family->model_type, "nomic_bert") == 0);
        if (same) return KG_OK;
        return status_set(KG_ERR_UNSUPPORTED, "config.json: %s \"%.30s\" is not supported for %s", fields[i], act, family->model_type);
    }
    return KG_OK;
}

kg_status hf_config(struct meta_out *o, const struct hf_family *family, const json_t *config, const char *name)
{
    struct out w = {o, family, config};
    KG_TRY(check_activation(family, config));
    KG_TRY(check_musts(&w));
    meta_out_str(o, "general.architecture", family->arch, strlen(family->arch));
    meta_out_str(o, "general.type", "model", 5);
    meta_out_str(o, "general.name", name, strlen(name));
    KG_TRY(put_rows(&w));
    if (!find(family, config, "context_length") && hf_lists("falcon bloom", family->model_type)) put_u32(&w, "context_length", 2048); /* what they were trained with */
    if (family->flags & HF_LATENT) put_latent(&w);
    if (hf_lists("glm4_moe dots1 minimax_m2 lfm2_moe", family->model_type)) put_u32(&w, "expert_gating_func", 2); /* sigmoid */
    if (strcmp(family->model_type, "ernie4_5_moe") == 0)
        put_u32(&w, "expert_shared_feed_forward_length", hf_config_number(family, config, "expert_shared_count") * hf_config_number(family, config, "expert_feed_forward_length"));
    if (family->flags & HF_SECTIONS) put_sections(&w);
    if (family->flags & HF_ENCODER) KG_TRY(put_encoder(&w));
    else if (json_is_false(json_object_get(config, "is_causal"))) put_both_sides(&w);
    KG_TRY(family->flags & HF_KINDS ? put_kinds(&w) : family->flags & HF_SSM ? put_ssm(&w) : family->flags & HF_WKV ? put_wkv(&w) : family->flags & HF_DELTA ? put_delta(&w) : family->flags & HF_MIXED ? put_mixed(&w) : put_windows(&w));
    if (family->flags & HF_MULTIPLIED) KG_TRY(put_falcon_h1(&w));
    KG_TRY(put_unusual(&w));
    if (!find(family, config, "feed_forward_length") && hf_lists("gpt2 bloom mpt falcon gptj", family->model_type))
        put_u32(&w, "feed_forward_length", 4 * hf_config_number(family, config, "embedding_length"));
    KG_TRY(put_rope(&w));
    return o->status;
}

/* pattern with '%' and '#' against name[0..n); the numbers go to layer and expert. */
static bool matches(const char *pattern, const char *name, size_t n, long *layer, long *expert)
{
    const char *end = name + n;
    for (; *pattern; pattern++) {
        if (*pattern != '%' && *pattern != '#') {
            if (name == end || *name++ != *pattern) return false;
            continue;
        }
        long v = 0;
        const char *start = name;
        while (name < end && *name >= '0' && *name <= '9' && name - start < 6) v = v * 10 + (*name++ - '0');
        if (name == start) return false;
        *(*pattern == '%' ? layer : expert) = v;
    }
    return name == end;
}

static bool find_tensor_name(const struct hf_family *family, const char *name, char *out, size_t size, int *expert)
{
    const size_t n = strlen(name);
    const char *suffix = name + n;
    if (n > 7 && strcmp(name + n - 7, ".weight") == 0) suffix = name + n - 7;
    if (n > 5 && strcmp(name + n - 5, ".bias") == 0) suffix = name + n - 5;
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        long layer = -1, e = -1;
        if (!hf_lists(names[i].families, family->model_type)) continue;
        const bool whole = hf_ends_with(names[i].name, ".bias"); /* so is its name in GGUF */
        const char *end = whole || hf_ends_with(names[i].name, ".weight") ? name + n : suffix;
        if (!matches(names[i].name, name, (size_t)(end - name), &layer, &e)) continue;
        if (whole) suffix = end;
        *expert = (int)e;
        const char *gguf = names[i].gguf, *percent = gguf ? strchr(gguf, '%') : NULL;
        if (!gguf)
            out[0] = 0;
        else if (percent)
            snprintf(out, size, "%.*s%ld%s%s", (int)(percent - gguf), gguf, layer, percent + 1, end);
        else
            snprintf(out, size, "%s%s", gguf, end);
        return true;
    }
    return false;
}

bool hf_tensor_name(const struct hf_family *family, const char *name, char *out, size_t size, int *expert)
{
    static const char *const before[] = {"transformer.", "language_model.", "bert.", "roberta."};
    char inner[NAME_BYTES];
    if (strncmp(name, "model.language_model.", 21) == 0) { /* newer files of multimodal models */
        snprintf(inner, sizeof inner, "model.%s", name + 21);
        name = inner;
    }
    if (strncmp(family->model_type, "nemotron_h", 10) == 0 && strncmp(name, "model.", 6) == 0) { /* adapters of newer programs */
        snprintf(inner, sizeof inner, "backbone.%s", name + 6);
        name = inner;
    }
    for (size_t i = 0; i < COUNT_OF(before); i++)
        if (strncmp(name, before[i], strlen(before[i])) == 0) name += strlen(before[i]);
    if (strcmp(family->model_type, "modernbert") == 0 && strncmp(name, "model.", 6) == 0) name += 6;
    size_t n = strlen(name);
    if (n < sizeof inner && n > 6 && family->flags & HF_ENCODER && (strcmp(name + n - 6, ".gamma") == 0 || strcmp(name + n - 5, ".beta") == 0)) { /* of the first BERT files */
        const size_t stem = n - (name[n - 1] == 'a' && name[n - 2] == 'm' ? 5 : 4);
        memmove(inner, name, stem);
        snprintf(inner + stem, sizeof inner - stem, "%s", n - stem == 5 ? "weight" : "bias");
        name = inner;
        n = strlen(name);
    }
    if (find_tensor_name(family, name, out, size, expert)) return true;
    if (family->flags & HF_ENCODER || n + 7 > sizeof inner) return false;
    char bare[NAME_BYTES];
    snprintf(bare, sizeof bare, "model.%s", name); /* of a model without a head, as embedding models are saved */
    return find_tensor_name(family, bare, out, size, expert);
}

/* Whole numbers, which is what names and rows depend on; of an array, one for each layer, the largest. */
json_t *hf_config_of(const struct hf_family *family, const struct file *model)
{
    json_t *config = json_object();
    for (size_t i = 0; config && i < COUNT_OF(keys); i++) {
        char key[160];
        snprintf(key, sizeof key, "%s.%s", family->arch, keys[i].key);
        const struct meta *m = hf_lists(keys[i].families, family->model_type) && keys[i].type == META_U32 && !strchr(keys[i].name, '.') ? file_meta(model, key) : NULL;
        if (!m || m->item == META_STR || m->item == META_ARR || m->item == META_F32 || m->item == META_F64) continue;
        int64_t v = 0;
        for (uint64_t k = 0; k < m->n; k++) v = MAX(v, file_arr_i64(m, k));
        if (json_object_set_new(config, keys[i].name, json_integer(v)) != 0) {
            json_decref(config);
            return NULL;
        }
    }
    return config;
}
