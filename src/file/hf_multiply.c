/* Falcon H1's config.json has factors for what goes into and comes out of its matrices. GGUF has no keys for them: they are in the weights. So rows are
 * multiplied when a folder is opened, and become F32. An adapter's B has the same rows; the factors go along in a private key, since adapters of a GGUF
 * need them, too. */
#include "file/hf.h"

#include <math.h>

static const struct {
    const char *name;
    int n;
} fields[] = {{"embedding_multiplier", 1}, {"lm_head_multiplier", 1}, {"attention_in_multiplier", 1}, {"attention_out_multiplier", 1}, {"key_multiplier", 1},
              {"ssm_in_multiplier", 1},    {"ssm_out_multiplier", 1}, {"mlp_multipliers", 2},         {"ssm_multipliers", 5}};
enum { EMBEDDING, OUTPUT, ATTENTION_IN, ATTENTION_OUT, KEY, SSM_IN, SSM_OUT, GATE, DOWN, SSM, N_FACTORS = SSM + 5 };

kg_status hf_take_multipliers(json_t *config)
{
    json_t *list = json_array();
    if (!list || json_object_set_new(config, HF_MULTIPLIERS, list) != 0) return status_set(KG_ERR_MEMORY, "out of memory");
    for (size_t i = 0; i < COUNT_OF(fields); i++) {
        const json_t *v = json_object_get(config, fields[i].name);
        const bool absent = !v || json_is_null(v);
        if (!absent && fields[i].n > 1 && json_array_size(v) != (size_t)fields[i].n) return status_set(KG_ERR_FORMAT, "config.json: %s is no list of %d numbers", fields[i].name, fields[i].n);
        for (int k = 0; k < fields[i].n; k++) {
            const json_t *one = fields[i].n > 1 ? json_array_get(v, (size_t)k) : v;
            const double factor = absent ? 1 : json_number_value(one);
            if (!absent && (!json_is_number(one) || !isfinite(factor) || factor == 0)) return status_set(KG_ERR_FORMAT, "config.json: %s is no number other than 0", fields[i].name);
            if (json_array_append_new(list, json_real(factor)) != 0) return status_set(KG_ERR_MEMORY, "out of memory");
        }
    }
    return KG_OK;
}

double hf_multiplier(const json_t *config, size_t i) { return json_number_value(json_array_get(json_object_get(config, HF_MULTIPLIERS), i)); }

/* The factor of row r of a tensor, of its weights or its bias. */
static double factor_of(const json_t *config, const int64_t ends[5], const char *name, bool bias, int64_t r)
{
    static const struct {
        const char *name;
        int out, in; /* in: what comes in, which a bias does not see */
    } rows[] = {{".attn_q.", -1, ATTENTION_IN}, {".attn_k.", KEY, ATTENTION_IN}, {".attn_v.", -1, ATTENTION_IN}, {".attn_output.", ATTENTION_OUT, -1},
                {".ssm_out.", SSM_OUT, -1},     {".ffn_gate.", GATE, -1},        {".ffn_down.", DOWN, -1},       {"token_embd.", EMBEDDING, -1},
                {"output.weight", OUTPUT, -1}};
    double factor = 1;
    if (strstr(name, ".ssm_in.")) {
        int part = 0;
        while (part < 4 && r >= ends[part]) part++;
        return hf_multiplier(config, SSM_IN) * hf_multiplier(config, (size_t)(SSM + part));
    }
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        if (!strstr(name, rows[i].name)) continue;
        if (rows[i].out >= 0) factor *= hf_multiplier(config, (size_t)rows[i].out);
        if (rows[i].in >= 0 && !bias) factor *= hf_multiplier(config, (size_t)rows[i].in);
        break;
    }
    return factor;
}

kg_status hf_multiply(struct file *f, const struct hf_family *family, const json_t *config, struct tensor *t)
{
    const int64_t inner = hf_config_number(family, config, "ssm.inner_size"), n_groups = hf_config_number(family, config, "ssm.group_count"),
                  n_state = hf_config_number(family, config, "ssm.state_size"), group = MAX(MIN(n_groups, 1 << 20), 0) * MAX(MIN(n_state, 1 << 20), 0);
    const int64_t width = MAX(MIN(inner, 1 << 28), 0), ends[5] = {width, 2 * width, 2 * width + group, 2 * width + 2 * group, INT64_MAX};
    const size_t size = strlen(t->name);
    const bool bias = size > 5 && strcmp(t->name + size - 5, ".bias") == 0;
    const int64_t n = bias ? 1 : t->ne[0], rows = bias ? t->ne[0] : t->ne[1];
    const uint8_t *from = t->data;
    bool changes = false;
    void *copy = NULL;
    if (json_array_size(json_object_get(config, HF_MULTIPLIERS)) != N_FACTORS)
        return status_set(KG_ERR_UNSUPPORTED, "the model's file does not tell its multipliers, which adapters in folders need: convert its folder again");
    if (inner < 1 || inner > 1 << 28 || n_groups < 1 || n_groups > 1 << 20 || n_state < 1 || n_state > 1 << 20)
        return status_set(KG_ERR_FORMAT, "config.json: mamba_d_ssm, mamba_n_groups or mamba_d_state is out of range");
    if (t->n_dims != (bias ? 1 : 2)) return KG_OK;
    for (int64_t r = 0; r < rows; r++) changes |= factor_of(config, ends, t->name, bias, r) != 1;
    if (!changes) return KG_OK;
    if (t->type != TYPE_F32 && t->type != TYPE_F16 && t->type != TYPE_BF16) return status_set(KG_ERR_UNSUPPORTED, "tensor %s is not supported in this type", t->name);
    KG_TRY(file_alloc_more(f, (size_t)(n * rows) * 4, &copy));
    float *to = copy;
    for (int64_t r = 0, i = 0; r < rows; r++) {
        const double factor = factor_of(config, ends, t->name, bias, r);
        for (int64_t k = 0; k < n; k++, i++) to[i] = (float)((double)hf_number(t->type, from, (size_t)i) * factor);
    }
    t->data = to;
    t->n_bytes = (size_t)(n * rows) * 4;
    t->type = TYPE_F32;
    return KG_OK;
}
