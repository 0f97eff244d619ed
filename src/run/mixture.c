/* Applies the table of mixtures to the tensors of a file. */
#include "run/mixture.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

enum kind { KIND_OTHER, KIND_OUTPUT, KIND_EMBD, KIND_V, KIND_K, KIND_Q, KIND_UP, KIND_DOWN, KIND_OUT };
enum when {
    WHEN_ALWAYS, WHEN_GQA4, WHEN_EXPERTS4, WHEN_EXPERTS8, WHEN_FEW_2, WHEN_FEW_4, WHEN_FEW_EIGHTH, WHEN_EIGHTH, WHEN_SIXTEENTH, WHEN_MORE, WHEN_MIDDLE,
    WHEN_PLAIN, WHEN_PLAIN_EIGHTH, WHEN_IMATRIX_EIGHTH, WHEN_EXPERTS8_MORE, WHEN_FALCON, WHEN_FALCON_SIXTEENTH, WHEN_FALCON_MORE, WHEN_FALCON_REST,
};

static const struct {
    const char *name;
    uint32_t file_type;
    enum tensor_type most, output;
} mixtures[] = {
#define MIXTURE(name, file_type, most, output) {#name, file_type, TYPE_##most, TYPE_##output},
#include "run/mixture.def"
#undef MIXTURE
};

static const struct {
    enum mixture mixture;
    enum kind kind;
    enum when when;
    enum tensor_type type;
} rules[] = {
#define RULE(mixture, kind, when, type) {MIXTURE_##mixture, KIND_##kind, WHEN_##when, TYPE_##type},
#include "run/mixture.def"
#undef RULE
};

const char *mixture_name(size_t i) { return i < COUNT_OF(mixtures) ? mixtures[i].name : NULL; }
uint32_t mixture_file_type(enum mixture m) { return mixtures[m].file_type; }

bool mixture_find(const char *name, enum mixture *out)
{
    for (size_t i = 0; i < COUNT_OF(mixtures); i++)
        if (strcasecmp(mixtures[i].name, name) == 0) {
            *out = (enum mixture)i;
            return true;
        }
    return false;
}

/* What the rules look at besides the tensor. */
struct facts {
    int n_layers, n_experts;
    int n_v; /* tensors of kind V */
    double gqa;
    bool tied, falcon, seventy; /* seventy: a Llama or Qwen 2 of 70B */
};

/* Norms, routers, positions, convolutions and other small things: llama.cpp keeps them too. */
static const char *const kept[] = {
    "_norm.weight", "ffn_gate_inp.weight", "ffn_gate_tid2eid.weight", "altup", "laurel", "per_layer_model_proj", "ssm_conv1d", "shortconv.conv.weight",
    "time_mix_first.weight", "time_mix_w0.weight", "time_mix_w1.weight", "time_mix_w2.weight", "time_mix_v0.weight", "time_mix_v1.weight",
    "time_mix_v2.weight", "time_mix_a0.weight", "time_mix_a1.weight", "time_mix_a2.weight", "time_mix_g1.weight", "time_mix_g2.weight",
    "time_mix_decay_w1.weight", "time_mix_decay_w2.weight", "time_mix_lerp_fused.weight", "attn_rel_b.weight", ".position_embd", ".patch_embd",
};

static bool is_quantized(const struct tensor *t)
{
    const char *n = t->name;
    size_t len = strlen(n);
    if (t->n_dims < 2 || len < 6 || strcmp(n + len - 6, "weight") != 0) return false;
    if (strcmp(n, "position_embd.weight") == 0 || strcmp(n, "token_types.weight") == 0) return false;
    for (size_t i = 0; i < COUNT_OF(kept); i++)
        if (strstr(n, kept[i])) return false;
    return true;
}

static enum kind kind_of(const char *name)
{
    if (strcmp(name, "output.weight") == 0) return KIND_OUTPUT;
    if (strcmp(name, "token_embd.weight") == 0 || strcmp(name, "per_layer_token_embd.weight") == 0) return KIND_EMBD;
    if (strstr(name, "attn_v.weight") || strstr(name, "attn_qkv.weight") || strstr(name, "attn_kv_b.weight")) return KIND_V;
    if (strstr(name, "attn_k.weight")) return KIND_K;
    if (strstr(name, "attn_q.weight")) return KIND_Q;
    if (strstr(name, "ffn_up") || strstr(name, "ffn_gate")) return KIND_UP;
    if (strstr(name, "ffn_down")) return KIND_DOWN;
    if (strstr(name, "attn_output.weight")) return KIND_OUT;
    return KIND_OTHER;
}

static int layer_of(const char *name)
{
    int layer = 0;
    return sscanf(name, "blk.%d.", &layer) == 1 ? layer : 0;
}

static bool gets_more(int i, int n) { return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2; }

static bool applies(enum when when, const struct facts *f, bool has_imatrix, int layer, int nth, enum kind kind)
{
    int n = f->n_layers;
    bool eighth = layer < n / 8, more = kind == KIND_V ? gets_more(nth, f->n_v) : gets_more(layer, n);
    switch (when) {
    case WHEN_ALWAYS: return true;
    case WHEN_GQA4: return f->gqa >= 4;
    case WHEN_EXPERTS4: return f->gqa >= 4 || f->n_experts >= 4;
    case WHEN_EXPERTS8: return f->n_experts == 8;
    case WHEN_FEW_2: return nth < 2;
    case WHEN_FEW_4: return nth < 4;
    case WHEN_FEW_EIGHTH: return nth < n / 8;
    case WHEN_EIGHTH: return eighth;
    case WHEN_SIXTEENTH: return layer < n / 16;
    case WHEN_MORE: return more;
    case WHEN_MIDDLE: return !eighth && layer < 7 * n / 8;
    case WHEN_PLAIN: return !has_imatrix;
    case WHEN_PLAIN_EIGHTH: return eighth && !has_imatrix;
    case WHEN_IMATRIX_EIGHTH: return eighth && has_imatrix;
    case WHEN_EXPERTS8_MORE: return f->n_experts == 8 && more;
    case WHEN_FALCON: return f->falcon;
    case WHEN_FALCON_SIXTEENTH: return f->falcon && layer < n / 16;
    case WHEN_FALCON_MORE: return f->falcon && more;
    case WHEN_FALCON_REST: return f->falcon && !more;
    }
    return false;
}

/* Mixtures of eight experts share their attention among all of them: a few more bits cost little there. So do the eight heads that share the
 * values of a model of 70B. */
static enum tensor_type by_rule(const struct mixture_choice *c, const struct facts *f, enum kind kind, int layer, int nth)
{
    bool shared = f->n_experts == 8 && (kind == KIND_V || kind == KIND_K || kind == KIND_OUT), small = false;
    enum tensor_type type = mixtures[c->mixture].most;
    for (size_t i = 0; i < COUNT_OF(rules); i++) {
        bool about_experts = rules[i].when == WHEN_EXPERTS4 || rules[i].when == WHEN_EXPERTS8;
        if (rules[i].mixture != c->mixture) continue;
        small |= rules[i].when == WHEN_EXPERTS4;
        if (rules[i].kind == kind && (!shared || about_experts) && applies(rules[i].when, f, c->has_imatrix, layer, nth, kind)) {
            type = rules[i].type;
            if (about_experts) return type;
            break;
        }
    }
    if (shared && kind != KIND_OUT) return TYPE_Q8_0;
    if (f->seventy && kind == KIND_V && !small && (type == TYPE_Q3_K || type == TYPE_Q4_K)) return TYPE_Q5_K;
    return type;
}

static enum tensor_type choose_type(const struct tensor *t, const struct mixture_choice *c, const struct facts *f, int nth)
{
    enum kind kind = kind_of(t->name);
    enum tensor_type type = mixtures[c->mixture].most;
    if (kind == KIND_EMBD && c->embedding) return c->embedding->type;
    if (kind == KIND_OUTPUT && c->output) return c->output->type;
    if (c->pure || type == TYPE_F32 || type == TYPE_F16 || type == TYPE_BF16) return type;
    if (kind == KIND_OUTPUT || (kind == KIND_EMBD && f->tied)) {
        if (kind == KIND_EMBD && c->output) return c->output->type;
        return f->falcon || t->ne[0] % type_by_id((uint32_t)type)->block ? TYPE_Q8_0 : mixtures[c->mixture].output;
    }
    if (c->mixture == MIXTURE_MXFP4_MOE) return t->ne[2] > 1 ? TYPE_MXFP4 : TYPE_Q8_0;
    return by_rule(c, f, kind, layer_of(t->name), nth);
}

bool mixture_needs_imatrix(const struct tensor *t, enum tensor_type type)
{
    static const enum tensor_type needing[] = {
#define NEEDS_IMATRIX(type) TYPE_##type,
#include "run/mixture.def"
#undef NEEDS_IMATRIX
    };
    if (kind_of(t->name) == KIND_OUTPUT || kind_of(t->name) == KIND_EMBD) return false;
    for (size_t i = 0; i < COUNT_OF(needing); i++)
        if (needing[i] == type) return true;
    return false;
}

/* The next best type whose blocks divide rows of ne0. */
static enum tensor_type with_whole_blocks(enum tensor_type type, int64_t ne0)
{
    if (ne0 % type_by_id((uint32_t)type)->block == 0) return type;
    enum tensor_type small = TYPE_F16;
    switch ((int)type) {
    case TYPE_IQ1_S: case TYPE_IQ1_M: case TYPE_IQ2_XXS: case TYPE_IQ2_XS: case TYPE_IQ2_S: case TYPE_IQ3_XXS: case TYPE_IQ3_S:
    case TYPE_IQ4_XS: small = TYPE_IQ4_NL; break;
    case TYPE_Q2_K: case TYPE_Q3_K: case TYPE_TQ1_0: case TYPE_TQ2_0: case TYPE_Q1_0: case TYPE_Q2_0: small = TYPE_Q4_0; break;
    case TYPE_Q4_K: small = TYPE_Q5_0; break;
    case TYPE_Q5_K: small = TYPE_Q5_1; break;
    case TYPE_Q6_K: small = TYPE_Q8_0; break;
    case TYPE_NVFP4: small = TYPE_MXFP4; break;
    default: break;
    }
    return ne0 % type_by_id((uint32_t)small)->block == 0 ? small : TYPE_F16;
}

/* A key that is one number or an array of one per layer: the first above zero. 0: none. */
static double first_number(const struct file *f, const char *arch, const char *key)
{
    char name[160];
    snprintf(name, sizeof name, "%s.%s", arch, key);
    const struct meta *m = file_meta(f, name);
    if (!m || m->item == META_STR || m->item == META_ARR || m->item == META_F32 || m->item == META_F64) return 0;
    for (uint64_t i = 0; i < m->n; i++)
        if (file_arr_i64(m, i) > 0) return (double)file_arr_i64(m, i);
    return 0;
}

static kg_status find_facts(const struct file *f, struct facts *out)
{
    struct str name;
    char arch[64];
    KG_TRY(file_get_str(f, "general.architecture", &name, NULL));
    snprintf(arch, sizeof arch, "%.*s", (int)MIN(name.len, sizeof arch - 1), name.ptr);
    double heads = first_number(f, arch, "attention.head_count"), kv = first_number(f, arch, "attention.head_count_kv");
    *out = (struct facts){
        .n_layers = (int)first_number(f, arch, "block_count"),
        .n_experts = (int)first_number(f, arch, "expert_count"),
        .gqa = kv > 0 ? heads / kv : 1,
        .tied = !file_tensor(f, "output.weight"),
        .falcon = strcmp(arch, "falcon") == 0,
    };
    out->seventy = out->n_layers == 80 && ((strcmp(arch, "llama") == 0 && heads != kv) || strcmp(arch, "qwen2") == 0);
    for (size_t i = 0; i < f->n_tensors; i++) out->n_v += kind_of(f->tensors[i].name) == KIND_V;
    return KG_OK;
}

/* *type: what the last override that fits says. fits[n_overrides] notes those that did. */
static kg_status override(const struct mixture_choice *c, const struct tensor *t, bool *fits, enum tensor_type *type)
{
    const enum kind kind = kind_of(t->name);
    for (size_t i = 0; i < c->n_overrides; i++) {
        bool here;
        KG_TRY(pattern_fits(c->overrides[i].pattern, t->name, &here));
        fits[i] |= here;
        if (!here || (kind == KIND_OUTPUT && c->output) || (kind == KIND_EMBD && c->embedding)) continue;
        const struct type_info *to = c->overrides[i].type;
        if (t->ne[0] % to->block)
            return status_set(KG_ERR_ARGUMENT, "tensor %s: its rows of %lld are not whole blocks of %s, which '%s' asks for", t->name, (long long)t->ne[0], to->name, c->overrides[i].text);
        *type = to->type;
    }
    return KG_OK;
}

static kg_status check_overrides(const struct mixture_choice *c, const bool *fits)
{
    for (size_t i = 0; i < c->n_overrides; i++)
        if (!fits[i]) return status_set(KG_ERR_ARGUMENT, "'%s' fits the name of no tensor that is quantized", c->overrides[i].text);
    return KG_OK;
}

kg_status mixture_types(const struct file *f, const struct mixture_choice *c, enum tensor_type *types)
{
    struct facts facts;
    bool fits[MIXTURE_MOST_OVERRIDES] = {false};
    KG_TRY(find_facts(f, &facts));
    for (size_t i = 0; i < f->n_tensors; i++) {
        const struct tensor *t = &f->tensors[i];
        types[i] = t->type;
        if (!is_quantized(t)) continue;
        int nth = 0, layer = layer_of(t->name); /* among those of its kind, by layer and name */
        enum kind kind = kind_of(t->name);
        for (size_t k = 0; (kind == KIND_V || kind == KIND_DOWN) && k < f->n_tensors; k++) {
            const char *other = f->tensors[k].name;
            int at = layer_of(other);
            nth += kind_of(other) == kind && is_quantized(&f->tensors[k]) && (at < layer || (at == layer && strcmp(other, t->name) < 0));
        }
        types[i] = with_whole_blocks(choose_type(t, c, &facts, nth), t->ne[0]);
        KG_TRY(override(c, t, fits, &types[i]));
    }
    return check_overrides(c, fits);
}
