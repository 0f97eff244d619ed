/* What sentence-transformers does with the states of a folder's model: modules.json lists the steps, each with a folder of its own. The pooling becomes
 * the key that GGUF has for it, linear layers behind it tensors dense_2, dense_3 ..., as llama.cpp names those of embeddinggemma. A step that is
 * not known is written down (kagari.embedding_step): the model opens, its embeddings are refused. */
#include "file/hf.h"

#include <stdio.h>

enum { PATH_BYTES = 320, MOST_DENSE = 16 };

struct steps {
    struct file *f;
    const char *folder, *arch;
    struct meta_out *out;
    const char *refused; /* the first step that is not known */
    char pooling[PATH_BYTES];
    int n_dense;
    bool normalized;
};

static void refuse(struct steps *s, const char *why)
{
    if (!s->refused) s->refused = why;
}

/* "torch.nn.modules.activation.Tanh" -> "Tanh" */
static const char *last_word(const char *name)
{
    const char *dot = name ? strrchr(name, '.') : NULL;
    return dot ? dot + 1 : name;
}

/* linear.weight and linear.bias of the folder get the names under which rename_all lets them pass. */
static kg_status load_weights(const struct steps *s, const char *at, int number, bool *biased)
{
    struct buf path = {0};
    struct os_map map;
    const size_t old = s->f->n_tensors;
    KG_TRY(buf_printf(&path, "%s/%s/model.safetensors", s->folder, at));
    kg_status st = file_map_more(s->f, path.data, &map);
    buf_free(&path);
    KG_TRY(st);
    st = safetensors_read(s->f, &map);
    if (st != KG_OK) return status_prefix(st, "%.200s/model.safetensors", at);
    *biased = false;
    for (size_t i = old; i < s->f->n_tensors; i++) {
        struct tensor *t = &s->f->tensors[i];
        const bool bias = strcmp(t->name, "linear.bias") == 0;
        char name[64];
        if (!bias && strcmp(t->name, "linear.weight") != 0)
            return status_set(KG_ERR_UNSUPPORTED, "%.200s/model.safetensors: tensor '%.*s' is not known for a Dense layer", at, file_shown(t->name), t->name);
        *biased |= bias;
        snprintf(name, sizeof name, HF_DENSE_MARK "%d.%s", number, bias ? "bias" : "weight");
        t->name = arena_strndup(&s->f->arena, name, strlen(name));
        if (!t->name) return KG_ERR_MEMORY;
    }
    return KG_OK;
}

static kg_status add_dense(struct steps *s, const char *at)
{
    char path[PATH_BYTES], key[160];
    json_t *config;
    const int number = s->n_dense + 2;
    snprintf(path, sizeof path, "%.200s/config.json", at);
    KG_TRY(hf_load_json(s->f, s->folder, path, false, &config));
    const char *act = last_word(json_string_value(json_object_get(config, "activation_function")));
    const json_t *in = json_object_get(config, "in_features"), *out = json_object_get(config, "out_features");
    const bool is_tanh = act && strcmp(act, "Tanh") == 0, says_bias = !json_is_false(json_object_get(config, "bias"));
    bool biased = false;
    kg_status st = KG_OK;
    if (!is_tanh && !(act && strcmp(act, "Identity") == 0)) {
        refuse(s, "a Dense layer with an activation other than Identity and Tanh");
    } else if (s->n_dense == MOST_DENSE) {
        refuse(s, "many Dense layers");
    } else if (!json_is_integer(in) || !json_is_integer(out) || json_integer_value(in) < 1 || json_integer_value(out) < 1 || json_integer_value(in) > 1 << 20 || json_integer_value(out) > 1 << 20) {
        st = status_set(KG_ERR_FORMAT, "%s: in_features and out_features are needed", path);
    } else {
        s->n_dense++;
        st = load_weights(s, at, number, &biased);
        if (st == KG_OK && biased != says_bias) st = status_set(KG_ERR_FORMAT, "%s: bias does not say what the weights have", path);
        snprintf(key, sizeof key, "%s.dense_%d_feat_in", s->arch, number);
        meta_out_u32(s->out, key, (uint32_t)json_integer_value(in));
        snprintf(key, sizeof key, "%s.dense_%d_feat_out", s->arch, number);
        meta_out_u32(s->out, key, (uint32_t)json_integer_value(out));
        snprintf(key, sizeof key, "kagari.dense_%d_activation", number);
        if (is_tanh) meta_out_str(s->out, key, "tanh", 4);
    }
    json_decref(config);
    return st;
}

static kg_status add_step(struct steps *s, size_t i, const json_t *module)
{
    const char *type = last_word(json_string_value(json_object_get(module, "type"))), *at = json_string_value(json_object_get(module, "path"));
    if (!type || !at || strstr(at, "..") || at[0] == '/' || strlen(at) > 200) return status_set(KG_ERR_FORMAT, "modules.json: step %zu has no type, or a path that is not below the folder", i);
    if (strcmp(type, "Transformer") == 0) {
        if (i > 0) refuse(s, "a second Transformer");
    } else if (strcmp(type, "Pooling") == 0) {
        if (s->pooling[0]) refuse(s, "a second Pooling");
        snprintf(s->pooling, sizeof s->pooling, "%s/config.json", at);
    } else if (strcmp(type, "Normalize") == 0) {
        s->normalized = true; /* which is done at the end in any case */
    } else if (strcmp(type, "Dense") == 0) {
        if (!s->pooling[0] || s->normalized) refuse(s, s->normalized ? "a Dense layer behind Normalize" : "a Dense layer before the pooling");
        else return add_dense(s, at);
    } else {
        char *copy = arena_strndup(&s->f->arena, type, strlen(type));
        if (!copy) return KG_ERR_MEMORY;
        refuse(s, copy);
    }
    return KG_OK;
}

static kg_status put_pooling(struct steps *s)
{
    static const struct {
        const char *name;
        uint32_t type; /* pooling_type */
    } modes[] = {{"pooling_mode_mean_tokens", 1}, {"pooling_mode_cls_token", 2}, {"pooling_mode_lasttoken", 3}};
    char key[160];
    const char *name;
    json_t *pooling, *v;
    int n = 0;
    uint32_t type = 0;
    KG_TRY(hf_load_json(s->f, s->folder, s->pooling[0] ? s->pooling : "1_Pooling/config.json", true, &pooling));
    json_object_foreach(pooling, name, v) {
        if (strncmp(name, "pooling_mode_", 13) != 0 || !json_is_true(v)) continue;
        n++;
        for (size_t i = 0; i < COUNT_OF(modes); i++)
            if (strcmp(name, modes[i].name) == 0) type = modes[i].type;
    }
    if (n > 1 || (n == 1 && type == 0)) refuse(s, "a Pooling that is not the mean, the first or the last token");
    snprintf(key, sizeof key, "%s.pooling_type", s->arch);
    if (type) meta_out_u32(s->out, key, type);
    json_decref(pooling);
    return KG_OK;
}

kg_status hf_read_steps(struct file *f, const char *folder, const struct hf_family *family, struct meta_out *out)
{
    struct steps s = {.f = f, .folder = folder, .arch = family->arch, .out = out};
    json_t *modules;
    KG_TRY(hf_load_json(f, folder, "modules.json", true, &modules));
    kg_status st = KG_OK;
    for (size_t i = 0; i < json_array_size(modules) && st == KG_OK; i++) st = add_step(&s, i, json_array_get(modules, i));
    if (st == KG_OK) st = put_pooling(&s);
    if (st == KG_OK && s.refused) meta_out_str(out, "kagari.embedding_step", s.refused, strlen(s.refused));
    json_decref(modules);
    return st == KG_OK ? out->status : st;
}
