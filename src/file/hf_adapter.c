/* Opens an adapter as Hugging Face's peft writes it, adapter_config.json and adapter_model.safetensors, as the GGUF adapter of the same
 * model: NAME.lora_a and NAME.lora_b for each matrix. Names and rows go the way that the model's own do (hf.c): of a module, B has the rows of the
 * matrix, so B takes that way; A goes along with each tensor that comes of it. */
#include "file/hf.h"
#include "file/pattern.h"
#include "file/reader.h"

#include <math.h>
#include <stdio.h>

enum { NAME_BYTES = 200, MOST_PATTERNS = 1024, MOST_RANK = 65536 };

struct module {
    const char *name; /* as patterns see it */
    const char *weight; /* as hf.def knows it: with ".weight" */
    struct tensor a, b;
    bool embedding;
    double scale;
};

struct adapter {
    struct file *f;
    const char *folder;
    const struct file *base;
    json_t *config, *model; /* adapter_config.json; what config.json of the model would say */
    struct hf_family family;
    struct module *modules;
    size_t n_modules;
    struct tensor *out; /* A, B, A, B ... */
    double *scales;     /* of the pairs */
    size_t n_out;
    struct meta_out meta;
};

static bool is_empty(const json_t *v)
{
    return !v || json_is_null(v) || json_is_false(v) || (json_is_array(v) && json_array_size(v) == 0) || (json_is_object(v) && json_object_size(v) == 0);
}

/* ---- adapter_config.json */

/* What changes nothing for who only computes with the adapter, or is read here. */
static bool is_understood(const char *key)
{
    static const char known[] = "peft_type task_type peft_version auto_mapping base_model_name_or_path revision inference_mode r lora_alpha use_rslora rank_pattern "
                                "alpha_pattern target_modules exclude_modules layers_to_transform layers_pattern fan_in_fan_out lora_dropout init_lora_weights "
                                "loftq_config eva_config corda_config lora_ga_config megatron_core qalora_group_size bias runtime_config";
    return hf_lists(known, key);
}

/* Some ways to begin a training change the model's own weights too; peft can write such adapters as plain ones. */
static kg_status check_beginning(const json_t *v)
{
    const char *how = json_string_value(v);
    if (!how || strcmp(how, "gaussian") == 0 || strcmp(how, "eva") == 0 || strcmp(how, "orthogonal") == 0) return KG_OK;
    return status_set(KG_ERR_UNSUPPORTED, "adapter_config.json: init_lora_weights is \"%.30s\": the adapter goes with changed weights of its model; peft's save_pretrained writes a plain one "
                      "with path_initial_model_for_weight_conversion", how);
}

static kg_status check_config(const json_t *config)
{
    const char *type = json_string_value(json_object_get(config, "peft_type")), *bias = json_string_value(json_object_get(config, "bias")), *key;
    json_t *v;
    if (!json_is_object(config)) return status_set(KG_ERR_FORMAT, "adapter_config.json is not an object");
    if (!type || strcmp(type, "LORA") != 0) return status_set(KG_ERR_UNSUPPORTED, "adapter_config.json: peft_type is \"%.40s\", only LORA is supported", type ? type : "");
    if (bias && strcmp(bias, "none") != 0) return status_set(KG_ERR_UNSUPPORTED, "adapter_config.json: bias \"%.20s\": adapters with trained biases are not supported", bias);
    if (json_is_true(json_object_get(config, "use_dora"))) return status_set(KG_ERR_UNSUPPORTED, "adapter_config.json: use_dora: weight-decomposed adapters (DoRA) are not supported");
    if (!is_empty(json_object_get(config, "modules_to_save")))
        return status_set(KG_ERR_UNSUPPORTED, "adapter_config.json: modules_to_save: adapters that replace whole modules are not supported");
    KG_TRY(check_beginning(json_object_get(config, "init_lora_weights")));
    json_object_foreach((json_t *)(uintptr_t)config, key, v)
        if (!is_understood(key) && !is_empty(v)) return status_set(KG_ERR_UNSUPPORTED, "adapter_config.json: %.*s is not supported", file_shown(key), key);
    return KG_OK;
}

/* The value of the first pattern that fits; usual: of none. */
static kg_status by_pattern(const json_t *patterns, const char *name, double usual, double *out)
{
    const char *key;
    json_t *v;
    *out = usual;
    if (json_object_size(patterns) > MOST_PATTERNS) return status_set(KG_ERR_UNSUPPORTED, "adapter_config.json: more than %d patterns", MOST_PATTERNS);
    json_object_foreach((json_t *)(uintptr_t)patterns, key, v) {
        struct pattern *p;
        bool fits = false;
        kg_status st = pattern_new(&p, key, PATTERN_MODULE);
        if (st == KG_OK) st = pattern_fits(p, name, &fits);
        pattern_free(&p);
        if (st != KG_OK) return status_prefix(KG_ERR_FORMAT, "adapter_config.json");
        if (!fits) continue;
        if (!json_is_number(v)) return status_set(KG_ERR_FORMAT, "adapter_config.json: the value of '%.*s' is not a number", file_shown(key), key);
        *out = json_number_value(v);
        return KG_OK;
    }
    return KG_OK;
}

static kg_status find_scale(const struct adapter *x, struct module *m)
{
    const json_t *r = json_object_get(x->config, "r"), *alpha = json_object_get(x->config, "lora_alpha");
    double rank, a;
    KG_TRY(by_pattern(json_object_get(x->config, "rank_pattern"), m->name, json_is_number(r) ? json_number_value(r) : 8, &rank));
    KG_TRY(by_pattern(json_object_get(x->config, "alpha_pattern"), m->name, json_is_number(alpha) ? json_number_value(alpha) : 8, &a));
    if (!(rank >= 1 && rank <= MOST_RANK) || rank != floor(rank) || !isfinite(a)) return status_set(KG_ERR_FORMAT, "adapter_config.json: rank %g and alpha %g of %s", rank, a, m->name);
    m->scale = a / (json_is_true(json_object_get(x->config, "use_rslora")) ? sqrt(rank) : rank);
    if (m->a.ne[1] == (int64_t)rank && m->b.ne[0] == (int64_t)rank) return KG_OK;
    return status_set(KG_ERR_FORMAT, "%s: lora_A has rank %lld, lora_B %lld, adapter_config.json says %g", m->name, (long long)m->a.ne[1], (long long)m->b.ne[0], rank);
}

/* ---- modules */

static const struct {
    const char *end;
    bool b, embedding;
} ends[] = {{".lora_A.weight", false, false}, {".lora_B.weight", true, false}, {".lora_embedding_A", false, true}, {".lora_embedding_B", true, true}};

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

static kg_status refuse_tensor(const char *name)
{
    const char *why = strstr(name, "lora_magnitude_vector") ? " (of DoRA)" : ends_with(name, ".lora_B.bias") ? " (lora_bias)" : "";
    return status_set(KG_ERR_UNSUPPORTED, "tensor '%.*s'%s is no part of a plain LoRA adapter", file_shown(name), name, why);
}

static kg_status add_part(struct adapter *x, json_t *by_name, const struct tensor *t)
{
    static const char before[] = "base_model.model.";
    const char *name = t->name + strlen(before);
    size_t k = 0, n;
    if (strncmp(t->name, before, strlen(before)) != 0) return refuse_tensor(t->name);
    if (ends_with(name, ".base_layer.weight")) return KG_OK; /* peft keeps the model's own embeddings along */
    while (k < COUNT_OF(ends) && !ends_with(name, ends[k].end)) k++;
    if (k == COUNT_OF(ends)) return refuse_tensor(t->name);
    n = strlen(name) - strlen(ends[k].end);
    if (n == 0 || n > NAME_BYTES - 40) return status_set(KG_ERR_FORMAT, "tensor '%.*s': its name is too short or too long", file_shown(t->name), t->name);
    if (t->n_dims != 2 || (t->type != TYPE_F32 && t->type != TYPE_F16 && t->type != TYPE_BF16) || x->f->index->fp8[t - x->f->tensors])
        return status_set(KG_ERR_UNSUPPORTED, "tensor '%.*s' is not a matrix of F32, F16 or BF16", file_shown(t->name), t->name);
    char *module = arena_strndup(&x->f->arena, name, n);
    if (!module) return KG_ERR_MEMORY;
    const json_t *old = json_object_get(by_name, module);
    struct module *m = &x->modules[old ? (size_t)json_integer_value(old) : x->n_modules];
    if (!old) {
        if (json_object_set_new(by_name, module, json_integer((json_int_t)x->n_modules)) != 0) return status_set(KG_ERR_MEMORY, "out of memory");
        *m = (struct module){.name = module, .embedding = ends[k].embedding};
        x->n_modules++;
    }
    struct tensor *to = ends[k].b ? &m->b : &m->a;
    if (to->name || m->embedding != ends[k].embedding) return status_set(KG_ERR_FORMAT, "%s has adapters of two kinds", m->name);
    *to = *t;
    return KG_OK;
}

static kg_status collect(struct adapter *x)
{
    struct file *f = x->f;
    json_t *by_name = json_object();
    x->modules = arena_array(&f->arena, f->n_tensors + 1, sizeof *x->modules);
    kg_status st = by_name && x->modules ? KG_OK : status_set(KG_ERR_MEMORY, "out of memory");
    for (size_t i = 0; i < f->n_tensors && st == KG_OK; i++) st = add_part(x, by_name, &f->tensors[i]);
    json_decref(by_name);
    KG_TRY(st);
    if (x->n_modules == 0) return status_set(KG_ERR_FORMAT, "adapter_model.safetensors has no adapters");
    for (size_t i = 0; i < x->n_modules; i++) {
        struct module *m = &x->modules[i];
        if (!m->a.name || !m->b.name) return status_set(KG_ERR_FORMAT, "%s has only one of lora_A and lora_B", m->name);
        KG_TRY(find_scale(x, m));
    }
    return KG_OK;
}

/* ---- the family */

/* A module's name in the table: adapters of a bare model lack what stands before it in one with a head. */
static bool find_name(const struct hf_family *family, const char *module, char *out)
{
    static const char *const before[] = {"", "model.", "gpt_neox.", "backbone."};
    char gguf[NAME_BYTES];
    int expert;
    for (size_t i = 0; i < COUNT_OF(before); i++) {
        snprintf(out, NAME_BYTES, "%s%s.weight", before[i], module);
        if (hf_tensor_name(family, out, gguf, sizeof gguf, &expert) && gguf[0]) return true;
    }
    return false;
}

/* Several families have one architecture in GGUF: the first that knows all modules. */
static kg_status find_family(struct adapter *x)
{
    struct str arch;
    const char *unknown = NULL, *type = "";
    char name[NAME_BYTES];
    KG_TRY(file_get_str(x->base, "general.architecture", &arch, NULL));
    for (size_t i = 0; hf_family_at(i); i++) {
        const struct hf_family *family = hf_family_at(i);
        size_t k = 0;
        if (strlen(family->arch) != arch.len || memcmp(family->arch, arch.ptr, arch.len) != 0) continue;
        while (k < x->n_modules && find_name(family, x->modules[k].name, name)) k++;
        if (k < x->n_modules) {
            if (!unknown) unknown = x->modules[k].name, type = family->model_type;
            continue;
        }
        x->family = *family;
        x->family.flags &= ~(unsigned)HF_CONV1D; /* whichever way the matrix lies, A and B are the same */
        for (k = 0; k < x->n_modules; k++) {
            find_name(family, x->modules[k].name, name);
            x->modules[k].weight = arena_strndup(&x->f->arena, name, strlen(name));
            if (!x->modules[k].weight) return KG_ERR_MEMORY;
        }
        return KG_OK;
    }
    if (unknown) return status_set(KG_ERR_UNSUPPORTED, "module '%.*s' is not known for model_type %s: the adapter is of another model", file_shown(unknown), unknown, type);
    return status_set(KG_ERR_UNSUPPORTED, "there are no adapters in folders for architecture %.*s", (int)MIN(arch.len, 60u), arch.ptr);
}

/* ---- tensors */

static kg_status put_pair(struct adapter *x, const char *name, const struct tensor *a, const struct tensor *b, double scale)
{
    for (int k = 0; k < 2; k++) {
        char text[NAME_BYTES + 16];
        struct tensor *to = &x->out[2 * x->n_out + (size_t)k];
        *to = k ? *b : *a;
        to->name = arena_strndup(&x->f->arena, text, (size_t)snprintf(text, sizeof text, "%s.lora_%c", name, "ab"[k]));
        if (!to->name) return KG_ERR_MEMORY;
    }
    x->scales[x->n_out++] = scale;
    return KG_OK;
}

/* n tensors at t, named as in a folder -> those of GGUF, which f then has. */
static kg_status renamed(struct adapter *x, struct tensor *t, size_t n)
{
    x->f->tensors = t;
    x->f->n_tensors = n;
    return hf_rename(x->f, &x->family, x->model);
}

/* A of an embedding has a column for each token; as rows they can be looked up. */
static kg_status put_embedding(struct adapter *x, const struct module *m, const char *name)
{
    const struct tensor *a = &m->a;
    const size_t size = (size_t)type_by_id((uint32_t)a->type)->block_bytes, rank = (size_t)a->ne[1], n = (size_t)a->ne[0];
    struct tensor t = *a;
    void *to = NULL;
    KG_TRY(file_alloc_more(x->f, a->n_bytes, &to));
    for (size_t i = 0; i < n; i++)
        for (size_t r = 0; r < rank; r++) memcpy((uint8_t *)to + (i * rank + r) * size, (const uint8_t *)a->data + (r * n + i) * size, size);
    t.data = to;
    t.ne[0] = (int64_t)rank;
    t.ne[1] = (int64_t)n;
    return put_pair(x, name, &t, &m->b, x->family.flags & HF_MULTIPLIED ? m->scale * hf_multiplier(x->model, 0) : m->scale);
}

static kg_status put_module(struct adapter *x, const struct module *m, const char *gguf)
{
    struct tensor b = m->b;
    if (m->embedding) return put_embedding(x, m, gguf);
    if (x->family.flags & HF_LATENT && strstr(gguf, ".attn_kv_b.")) return status_set(KG_ERR_UNSUPPORTED, "module '%.*s': adapters of this matrix, which is divided, are not supported", file_shown(m->name), m->name);
    b.name = m->weight;
    KG_TRY(renamed(x, &b, 1));
    const struct tensor *parts = x->f->tensors;
    for (size_t i = 0, n = x->f->n_tensors; i < n; i++) KG_TRY(put_pair(x, parts[i].name, &m->a, &parts[i], m->scale));
    return KG_OK;
}

/* The matrices of a layer's experts are one tensor: so are their adapters. */
static kg_status put_experts(struct adapter *x, const struct module **list, size_t n)
{
    struct tensor *parts[2] = {arena_array(&x->f->arena, n + 1, sizeof *parts[0]), arena_array(&x->f->arena, n + 1, sizeof *parts[1])}, *joined[2];
    size_t n_joined[2];
    if (!parts[0] || !parts[1]) return KG_ERR_MEMORY;
    for (int k = 0; k < 2; k++) {
        for (size_t i = 0; i < n; i++) {
            if (list[i]->scale != list[0]->scale) return status_set(KG_ERR_UNSUPPORTED, "%s: experts whose adapters have different scales are not supported", list[i]->name);
            parts[k][i] = k ? list[i]->b : list[i]->a;
            parts[k][i].name = list[i]->weight;
        }
        KG_TRY(renamed(x, parts[k], n));
        joined[k] = x->f->tensors;
        n_joined[k] = x->f->n_tensors;
    }
    for (size_t i = 0; i < n_joined[0] && n_joined[0] == n_joined[1]; i++) KG_TRY(put_pair(x, joined[0][i].name, &joined[0][i], &joined[1][i], list[0]->scale));
    return KG_OK;
}

static kg_status put_all(struct adapter *x)
{
    const size_t n = x->n_modules;
    const struct module **experts = arena_array(&x->f->arena, n, sizeof *experts);
    size_t n_experts = 0;
    x->out = arena_array(&x->f->arena, 6 * n, sizeof *x->out); /* of one matrix come three at most */
    x->scales = arena_array(&x->f->arena, 3 * n, sizeof *x->scales);
    if (!experts || !x->out || !x->scales) return KG_ERR_MEMORY;
    for (size_t i = 0; i < n; i++) {
        char gguf[NAME_BYTES];
        int expert = -1;
        if (!hf_tensor_name(&x->family, x->modules[i].weight, gguf, sizeof gguf, &expert)) continue; /* find_family has seen it */
        if (expert >= 0) experts[n_experts++] = &x->modules[i];
        else KG_TRY(put_module(x, &x->modules[i], gguf));
    }
    if (n_experts) KG_TRY(put_experts(x, experts, n_experts));
    x->f->tensors = x->out;
    x->f->n_tensors = 2 * x->n_out;
    return KG_OK;
}

/* ---- the whole */

static kg_status put_metas(struct adapter *x)
{
    struct meta_out *o = &x->meta;
    const json_t *alpha = json_object_get(x->config, "lora_alpha");
    meta_out_str(o, "general.type", "adapter", 7);
    meta_out_str(o, "general.architecture", x->family.arch, strlen(x->family.arch));
    meta_out_str(o, "adapter.type", "lora", 4);
    meta_out_f32(o, "adapter.lora.alpha", json_is_number(alpha) ? (float)json_number_value(alpha) : 8);
    meta_out_array(o, "kagari.lora_scales", META_F64, x->n_out);
    meta_out_bytes(o, x->scales, x->n_out * sizeof *x->scales);
    if (x->family.flags & HF_ROTATED) meta_out_bool(o, "kagari.rope_halves", true); /* as a folder of the model says */
    if (x->family.flags & HF_DELTA && strcmp(x->family.model_type, "qwen3_next") != 0) meta_out_bool(o, "kagari.heads_grouped", true);
    KG_TRY(o->status);
    uint8_t *metas = arena_alloc(&x->f->arena, o->bytes.len);
    if (!metas) return KG_ERR_MEMORY;
    memcpy(metas, o->bytes.data, o->bytes.len);
    return gguf_read_metas(x->f, metas, o->bytes.len, o->n);
}

static kg_status load_weights(struct adapter *x)
{
    struct buf path = {0};
    struct os_map map;
    KG_TRY(buf_printf(&path, "%s/adapter_model.safetensors", x->folder));
    kg_status st = file_map_more(x->f, path.data, &map);
    buf_free(&path);
    KG_TRY(st);
    st = safetensors_read(x->f, &map);
    return st == KG_OK ? KG_OK : status_prefix(st, "adapter_model.safetensors");
}

/* The width of a head of values has no key of its own in GGUF. */
static kg_status add_value_width(struct adapter *x)
{
    char key[160];
    int64_t inner = 0;
    bool found;
    const int64_t heads = hf_config_number(&x->family, x->model, "ssm.time_step_rank");
    snprintf(key, sizeof key, "%s.ssm.inner_size", x->family.arch);
    KG_TRY(file_get_i64(x->base, key, &inner, &found));
    if (!found || heads < 1 || !(x->family.flags & HF_DELTA)) return KG_OK;
    return json_object_set_new(x->model, "linear_value_head_dim", json_integer(inner / heads)) == 0 ? KG_OK : status_set(KG_ERR_MEMORY, "out of memory");
}

/* As hf_take_multipliers leaves them. */
static kg_status add_multipliers(struct adapter *x)
{
    const struct meta *m = file_meta(x->base, HF_MULTIPLIERS);
    if (!m || m->item != META_F64) return KG_OK;
    json_t *list = json_array();
    if (!list || json_object_set_new(x->model, HF_MULTIPLIERS, list) != 0) return status_set(KG_ERR_MEMORY, "out of memory");
    for (uint64_t i = 0; i < m->n; i++)
        if (json_array_append_new(list, json_real(file_arr_f64(m, i))) != 0) return status_set(KG_ERR_MEMORY, "out of memory");
    return KG_OK;
}

static kg_status read_all(struct adapter *x)
{
    KG_TRY(hf_load_json(x->f, x->folder, "adapter_config.json", false, &x->config));
    KG_TRY(check_config(x->config));
    KG_TRY(load_weights(x));
    KG_TRY(collect(x));
    KG_TRY(find_family(x));
    x->model = hf_config_of(&x->family, x->base);
    if (!x->model) return status_set(KG_ERR_MEMORY, "out of memory");
    KG_TRY(add_value_width(x));
    if (x->family.flags & HF_MULTIPLIED) KG_TRY(add_multipliers(x));
    KG_TRY(put_all(x));
    x->f->format = "PEFT";
    return put_metas(x);
}

kg_status hf_read_adapter(struct file *f, const char *folder, const struct file *base)
{
    struct adapter x = {.f = f, .folder = folder, .base = base};
    kg_status st = read_all(&x);
    json_decref(x.config);
    json_decref(x.model);
    meta_out_free(&x.meta);
    return st;
}
