/* What config.json of a Hugging Face folder means before the table hf.def is asked: the text part of a multimodal model, and values that others
 * decide about. Changes the object, so that nobody behind it meets the exceptions. */
#include "file/hf.h"

#include <stdio.h>

static const struct {
    const char *families, *name, *json;
} defaults[] = {
#define HF_DEFAULT(families, name, json) {families, name, json},
#include "file/hf.def"
#undef HF_DEFAULT
};

#define TEXT_PART "kagari.text_part"

static bool is(const json_t *v, const char *text) { return json_is_string(v) && strcmp(json_string_value(v), text) == 0; }

static kg_status set(json_t *config, const char *name, json_t *v)
{
    return v && json_object_set_new(config, name, v) == 0 ? KG_OK : status_set(KG_ERR_MEMORY, "out of memory");
}

/* What the text part says counts; what it leaves out may stand beside it. */
static kg_status take_text_part(json_t *config)
{
    json_t *text = json_object_get(config, "text_config");
    if (!json_is_object(text)) return KG_OK;
    if (json_object_update(config, text) != 0) return status_set(KG_ERR_MEMORY, "out of memory");
    const char *type = json_string_value(json_object_get(config, "model_type"));
    for (size_t i = 0; type && i < COUNT_OF(defaults); i++) {
        const json_t *v = json_object_get(config, defaults[i].name);
        if (hf_lists(defaults[i].families, type) && (!v || json_is_null(v))) KG_TRY(set(config, defaults[i].name, json_loads(defaults[i].json, JSON_DECODE_ANY, NULL)));
    }
    return set(config, TEXT_PART, json_true());
}

/* Newer files keep the rotation of each kind of layers apart. */
static kg_status take_rope_of_full(json_t *config)
{
    json_t *rope = json_object_get(config, "rope_parameters"), *full = json_object_get(rope, "full_attention");
    const json_t *local = json_object_get(json_object_get(rope, "sliding_attention"), "rope_theta");
    if (!json_is_object(full)) return KG_OK;
    if (json_is_number(local)) KG_TRY(set(config, "rope_local_base_freq", json_real(json_number_value(local))));
    return json_object_set(config, "rope_parameters", full) == 0 ? KG_OK : status_set(KG_ERR_MEMORY, "out of memory");
}

/* Whether keys and values have heads of their own is said in two ways. */
static kg_status normalize_falcon(json_t *config)
{
    if (json_is_true(json_object_get(config, "new_decoder_architecture"))) return KG_OK;
    return set(config, "num_kv_heads", json_integer(1)); /* multi_query, which must be true */
}

static kg_status normalize_deepseek2(json_t *config)
{
    const json_t *method = json_object_get(config, "topk_method");
    if (is(method, "group_limited_greedy")) return KG_OK;
    if (method && !json_is_null(method) && !is(method, "greedy"))
        return status_set(KG_ERR_UNSUPPORTED, "config.json: topk_method is neither greedy nor group_limited_greedy");
    KG_TRY(set(config, "n_group", json_integer(1)));
    return set(config, "topk_group", json_integer(1));
}

/* Lists of layers, where the step between them is known too: they must say the same. */
static kg_status check_llama4(const json_t *config)
{
    const json_t *rotates = json_object_get(config, "no_rope_layers"), *moe = json_object_get(config, "moe_layers"), *step = json_object_get(config, "interleave_moe_layer_step");
    const json_int_t every = json_is_integer(step) && json_integer_value(step) > 0 ? json_integer_value(step) : 1;
    for (size_t i = 0; i < json_array_size(rotates); i++)
        if (json_integer_value(json_array_get(rotates, i)) != ((i + 1) % 4 != 0))
            return status_set(KG_ERR_UNSUPPORTED, "config.json: no_rope_layers: other layers than every fourth are not supported");
    for (size_t i = 0; i < json_array_size(moe); i++)
        if (json_integer_value(json_array_get(moe, i)) != every * (json_int_t)(i + 1) - 1)
            return status_set(KG_ERR_UNSUPPORTED, "config.json: moe_layers does not fit interleave_moe_layer_step");
    return KG_OK;
}

/* RoBERTa's positions begin behind that of padding: GGUF has them without the first ones. */
static kg_status normalize_roberta(json_t *config)
{
    const json_t *pad = json_object_get(config, "pad_token_id"), *most = json_object_get(config, "max_position_embeddings");
    const json_int_t skip = json_is_integer(pad) ? json_integer_value(pad) + 1 : 2;
    if (!json_is_integer(most) || skip < 1 || json_integer_value(most) <= skip)
        return status_set(KG_ERR_FORMAT, "config.json: max_position_embeddings and pad_token_id do not fit each other");
    KG_TRY(set(config, HF_SKIPPED_POSITIONS, json_integer(skip)));
    return set(config, "max_position_embeddings", json_integer(json_integer_value(most) - skip));
}

/* The first files claim the length that another rotation would allow. */
static kg_status normalize_nomic(json_t *config)
{
    const json_t *trained = json_object_get(config, "max_trained_positions");
    if (!json_object_get(config, "n_positions")) return KG_OK;
    return set(config, "n_positions", json_integer(json_is_integer(trained) ? json_integer_value(trained) : 2048));
}

/* Newer files list the kind of each layer, too. */
static kg_status normalize_modernbert(json_t *config)
{
    const json_t *types = json_object_get(config, "layer_types");
    size_t period = 0;
    for (size_t i = 0; i < json_array_size(types) && period == 0; i++)
        if (i > 0 && is(json_array_get(types, i), "full_attention")) period = i;
    for (size_t i = 0; i < json_array_size(types); i++)
        if (is(json_array_get(types, i), "full_attention") != (i == 0 || (period && i % period == 0)))
            return status_set(KG_ERR_UNSUPPORTED, "config.json: layer_types: layers without a window come at no fixed distance, which is not supported");
    if (period) KG_TRY(set(config, "global_attn_every_n_layers", json_integer((json_int_t)period)));
    json_object_del(config, "layer_types");
    return KG_OK;
}

/* embeddinggemma: the same layers, but tokens see both sides. */
static kg_status normalize_gemma3(json_t *config)
{
    return json_is_true(json_object_get(config, "use_bidirectional_attention")) ? set(config, "model_type", json_string("gemma3_embedding")) : KG_OK;
}

/* Newer files give numbers of single layers: those without a window, which must agree. */
static kg_status normalize_gemma4(json_t *config)
{
    static const char *const names[][2] = {{"head_dim", "global_head_dim"}, {"num_key_value_heads", "num_global_key_value_heads"}};
    const json_t *types = json_object_get(config, "layer_types"), *own = json_object_get(config, "per_layer_config");
    char key[24];
    if (!json_is_array(types)) return status_set(KG_ERR_FORMAT, "config.json: layer_types is needed");
    for (size_t i = 0; i < json_array_size(types) && json_is_object(own); i++) {
        snprintf(key, sizeof key, "%zu", i);
        const json_t *layer = json_object_get(own, key);
        for (size_t k = 0; k < COUNT_OF(names); k++) {
            json_t *v = json_object_get(layer, names[k][0]), *before = json_object_get(config, names[k][1]);
            if (!v) continue;
            if (!is(json_array_get(types, i), "full_attention") || (json_is_integer(before) && !json_equal(v, before)))
                return status_set(KG_ERR_UNSUPPORTED, "config.json: per_layer_config: layer %zu differs from others of its kind, which is not supported", i);
            if (json_object_set(config, names[k][1], v) != 0) return status_set(KG_ERR_MEMORY, "out of memory");
        }
    }
    const json_t *dim = json_object_get(config, "global_head_dim");
    return dim && !json_is_null(dim) ? KG_OK : set(config, "global_head_dim", json_integer(512));
}

/* Numbers that are given for each layer, where all are the same. */
static kg_status normalize_hunyuan_moe(json_t *config)
{
    static const char *const names[] = {"num_experts", "moe_topk", "num_shared_expert", "moe_intermediate_size"};
    for (size_t k = 0; k < COUNT_OF(names); k++) {
        json_t *list = json_object_get(config, names[k]), *first = json_array_get(list, 0);
        if (!json_is_array(list)) continue;
        for (size_t i = 0; i < json_array_size(list); i++)
            if (!json_equal(json_array_get(list, i), first)) return status_set(KG_ERR_UNSUPPORTED, "config.json: %s differs between layers, which is not supported", names[k]);
        if (first && json_object_set(config, names[k], json_copy(first)) != 0) return status_set(KG_ERR_MEMORY, "out of memory");
    }
    json_t *ffn = json_object_get(config, "intermediate_size");
    return ffn && json_object_set(config, "shared_expert_intermediate_size", ffn) != 0 ? status_set(KG_ERR_MEMORY, "out of memory") : KG_OK;
}

/* Newer files list which layers have experts. */
static kg_status normalize_glm4_lite(json_t *config)
{
    const json_t *types = json_object_get(config, "mlp_layer_types");
    size_t n = 0;
    if (!json_is_array(types)) return KG_OK;
    while (is(json_array_get(types, n), "dense")) n++;
    for (size_t i = n; i < json_array_size(types); i++)
        if (!is(json_array_get(types, i), "sparse")) return status_set(KG_ERR_UNSUPPORTED, "config.json: mlp_layer_types: plain layers behind such with experts are not supported");
    return set(config, "first_k_dense_replace", json_integer((json_int_t)n));
}

static kg_status check_ernie_moe(const json_t *config)
{
    const json_t *end = json_object_get(config, "moe_layer_end_index"), *n = json_object_get(config, "num_hidden_layers");
    if (json_is_integer(end) && json_integer_value(end) != -1 && json_integer_value(end) != json_integer_value(n) - 1)
        return status_set(KG_ERR_UNSUPPORTED, "config.json: moe_layer_end_index: plain layers behind such with experts are not supported");
    return KG_OK;
}

/* What each layer is, in a text or a list of words -> the text; with experts it is another architecture. */
static kg_status normalize_nemotron_h(json_t *config)
{
    static const char *const words[][3] = {{"M", "mamba", "linear_attention"}, {"*", "attention", "full_attention"}, {"-", "mlp", "mlp"}, {"E", "moe", "moe"}};
    const json_t *list = json_object_get(config, "layers_block_type"), *old = json_object_get(config, HF_PATTERN), *dim = json_object_get(config, "attention_head_dim");
    static const char *const of_experts[] = {"n_routed_experts", "n_shared_experts", "num_experts_per_tok", "moe_intermediate_size"};
    char text[4097] = "";
    size_t n = json_is_array(list) ? json_array_size(list) : json_string_length(old);
    if (n < 1 || n >= sizeof text) return status_set(KG_ERR_FORMAT, "config.json: hybrid_override_pattern or layers_block_type is needed, of at most %zu layers", sizeof text - 1);
    for (size_t i = 0; i < n; i++) {
        const json_t *word = json_array_get(list, i);
        if (!json_is_array(list)) text[i] = json_string_value(old)[i];
        for (size_t k = 0; k < COUNT_OF(words); k++)
            if (is(word, words[k][1]) || is(word, words[k][2])) text[i] = words[k][0][0];
        if (!text[i] || !strchr("M*-E", text[i])) return status_set(KG_ERR_UNSUPPORTED, "config.json: layer %zu is none of Mamba, attention, mlp and moe", i);
    }
    const bool experts = strchr(text, 'E') != NULL;
    if (experts && strchr(text, '-')) return status_set(KG_ERR_UNSUPPORTED, "config.json: plain layers beside such with experts are not supported for nemotron_h");
    for (size_t i = 0; i < COUNT_OF(of_experts) && !experts; i++) json_object_del(config, of_experts[i]);
    if (json_is_integer(dim) && !json_object_get(config, "head_dim")) KG_TRY(set(config, "head_dim", json_integer(json_integer_value(dim))));
    KG_TRY(set(config, HF_PATTERN, json_string(text)));
    KG_TRY(set(config, "num_hidden_layers", json_integer((json_int_t)n)));
    return set(config, "model_type", json_string(experts ? "nemotron_h_moe" : "nemotron_h"));
}

/* Two generations have one name here. */
static kg_status normalize_bailing(json_t *config)
{
    const json_t *class = json_array_get(json_object_get(config, "architectures"), 0);
    if (!is(class, "BailingMoeV2ForCausalLM"))
        return status_set(KG_ERR_UNSUPPORTED, "config.json: model_type bailing_moe is supported of the second generation only (BailingMoeV2ForCausalLM)");
    return set(config, "model_type", json_string("bailing_moe_v2"));
}

/* Which layers have attention is said by a distance; a model of one expert has none. */
static kg_status normalize_jamba(json_t *config)
{
    static const char *const of_experts[] = {"num_experts", "num_experts_per_tok"};
    const json_t *rank = json_object_get(config, "mamba_dt_rank"), *dim = json_object_get(config, "hidden_size"), *n_experts = json_object_get(config, "num_experts");
    const json_int_t n = json_integer_value(json_object_get(config, "num_hidden_layers")), period = json_integer_value(json_object_get(config, "attn_layer_period")),
                     offset = json_integer_value(json_object_get(config, "attn_layer_offset"));
    if (!json_is_array(json_object_get(config, "layer_types"))) {
        json_t *types = json_array();
        if (n < 1 || n > 65536 || period < 1 || offset < 0 || offset >= period) {
            json_decref(types);
            return status_set(KG_ERR_FORMAT, "config.json: attn_layer_period and attn_layer_offset do not fit each other");
        }
        KG_TRY(set(config, "layer_types", types));
        for (json_int_t i = 0; i < n; i++)
            if (json_array_append_new(types, json_string(i % period == offset ? "attention" : "mamba")) != 0) return status_set(KG_ERR_MEMORY, "out of memory");
    }
    if (json_integer_value(n_experts) == 1)
        for (size_t i = 0; i < COUNT_OF(of_experts); i++) json_object_del(config, of_experts[i]);
    return json_is_integer(rank) || !json_is_integer(dim) ? KG_OK : set(config, "mamba_dt_rank", json_integer((json_integer_value(dim) + 15) / 16)); /* "auto" */
}

/* Its first files do not keep the text part apart. */
static kg_status normalize_qwen2_vl(json_t *config)
{
    KG_TRY(set(config, TEXT_PART, json_true()));
    return set(config, "model_type", json_string("qwen2_vl_text"));
}

kg_status hf_normalize(json_t *config)
{
    if (!json_is_object(config)) return status_set(KG_ERR_FORMAT, "config.json is not an object");
    KG_TRY(take_text_part(config));
    KG_TRY(take_rope_of_full(config));
    const json_t *type = json_object_get(config, "model_type");
    if (is(type, "qwen2_vl") || is(type, "qwen2_5_vl")) return normalize_qwen2_vl(config);
    if (is(type, "bailing_moe")) return normalize_bailing(config);
    if (is(type, "jamba")) return normalize_jamba(config);
    if (is(type, "falcon_h1")) return hf_take_multipliers(config);
    if (is(type, "nemotron_h") || is(type, "nemotron_h_moe")) return normalize_nemotron_h(config);
    if (is(type, "hunyuan_v1_moe")) return normalize_hunyuan_moe(config);
    if (is(type, "glm4_moe_lite")) return normalize_glm4_lite(config);
    if (is(type, "ernie4_5_moe")) return check_ernie_moe(config);
    if (is(type, "gemma3_text")) return normalize_gemma3(config);
    if (is(type, "gemma4_text")) return normalize_gemma4(config);
    if (is(type, "falcon")) return normalize_falcon(config);
    if (is(type, "deepseek_v2")) return normalize_deepseek2(config);
    if (is(type, "llama4_text")) return check_llama4(config);
    if (is(type, "roberta") || is(type, "xlm-roberta")) return normalize_roberta(config);
    if (is(type, "nomic_bert")) return normalize_nomic(config);
    if (is(type, "modernbert")) return normalize_modernbert(config);
    return KG_OK;
}

bool hf_is_other_part(const json_t *config, const char *name)
{
    static const char *const parts[] = {"vision_tower.", "vision_model.", "visual.", "vision_embed_tokens.", "multi_modal_projector.", "audio_tower.",
                                        "embed_vision.", "embed_audio.", "connector.", "image_newline"};
    if (!json_object_get(config, TEXT_PART)) return false;
    if (strncmp(name, "model.", 6) == 0) name += 6;
    for (size_t i = 0; i < COUNT_OF(parts); i++)
        if (strncmp(name, parts[i], strlen(parts[i])) == 0) return true;
    return false;
}
