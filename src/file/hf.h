/* The table hf.def in use: families, keys, names; and what hf.c and hf_config.c hand to each other. */
#ifndef FILE_HF_H
#define FILE_HF_H

#include "file/safetensors.h"

#include "base/half.h"

#include <jansson.h>

enum { HF_ROTATED = 1, HF_CONV1D = 2, HF_PLUS_ONE = 4, HF_PER_HEAD = 8, HF_OAI_EXPERTS = 16, HF_LATENT = 32, HF_MIXED = 64, HF_SPLIT_QKV = 128, HF_EXPERTS_BY_COLUMNS = 256,
       HF_SSM = 512, HF_SSM_2 = 1024, HF_DELTA = 2048, HF_ENCODER = 4096,
       HF_KINDS = 8192, HF_SECTIONS = 16384, HF_MULTIPLIED = 32768, HF_KV_WHOLE = 65536, HF_WKV = 131072 };

struct hf_family {
    const char *model_type, *arch, *act;
    unsigned flags;
};

/* Number i of weights that are F32, F16 or BF16. */
static inline float hf_number(enum tensor_type type, const uint8_t *data, size_t i)
{
    if (type == TYPE_F32) return f32_from_bits(load_u32(data + 4 * i));
    return type == TYPE_F16 ? f32_from_f16(load_u16(data + 2 * i)) : f32_from_bf16(load_u16(data + 2 * i));
}

static inline bool hf_ends_with(const char *s, const char *end)
{
    const size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

kg_status hf_load_json(struct file *f, const char *folder, const char *name, bool optional, json_t **out);
/* The tensors of f, as a folder of this family names them and has their rows, become those of GGUF: other names, parts of them, copies. */
kg_status hf_rename(struct file *f, const struct hf_family *family, json_t *config);

/* hf_packed.c: refuses weights that other programs have packed. */
kg_status hf_check_packing(const struct file *f, const json_t *config);
/* hf_fp8.c: 8-bit floating-point weights become F32, their scales leave the list. */
kg_status hf_widen_fp8(struct file *f, const json_t *config);
/* hf_mxfp4.c: NAME_blocks and NAME_scales of gpt-oss become NAME, of type MXFP4. Of gate_up, whose rows alternate, all gates come first: the
 * matrices {in, out / 2} of all experts, then all up. */
kg_status hf_join_mxfp4(struct file *f);

/* hf_xielu.c: tensors blk.N.xielu.* -> keys. */
kg_status hf_take_xielu(struct file *f, struct meta_out *o, int64_t n_layers);
/* hf_multiply.c: the factors of config.json become a list of their own; a tensor's rows are multiplied with those that are its. */
#define HF_MULTIPLIERS "kagari.multipliers" /* also a key of the model */
kg_status hf_take_multipliers(json_t *config);
double hf_multiplier(const json_t *config, size_t i); /* 0: of embeddings */
kg_status hf_multiply(struct file *f, const struct hf_family *family, const json_t *config, struct tensor *t);

/* hf_steps.c: what modules.json says becomes keys; weights of linear layers behind the pooling join the list, under a mark that hf_rename takes off. */
kg_status hf_read_steps(struct file *f, const char *folder, const struct hf_family *family, struct meta_out *out);
#define HF_DENSE_MARK "kagari.dense_"

/* hf_normal.c: config.json as files have it -> as the table expects it. Of a multimodal model: that of its text part, with what it leaves out. */
kg_status hf_normalize(json_t *config);
#define HF_SKIPPED_POSITIONS "kagari.skipped_positions" /* rows at the beginning of the table of positions that are not used */
#define HF_PATTERN "hybrid_override_pattern" /* of Nemotron H: M, *, - or E for each layer */
/* A tensor of something else than the text part. */
bool hf_is_other_part(const json_t *config, const char *name);
bool hf_lists(const char *families, const char *family); /* NULL: all */

/* hf_config.c: config.json -> its family, and the keys of GGUF. */
kg_status hf_family_of(const json_t *config, const struct hf_family **out);
const struct hf_family *hf_family_at(size_t i); /* NULL past the end */
/* The other way: what the family's config.json would say, of the keys of a model. NULL: no memory. */
json_t *hf_config_of(const struct hf_family *family, const struct file *model);
kg_status hf_config(struct meta_out *o, const struct hf_family *family, const json_t *config, const char *name);
/* A number of config.json by its key of GGUF; 0: absent. */
int64_t hf_config_number(const struct hf_family *family, const json_t *config, const char *gguf_key);
/* Long-context factors, one for each pair of a head; which: 0 of Llama 3, 1 and 2 longrope's for short and long texts. out NULL: only their
 * number, 0 if the model has none. */
kg_status hf_rope_factors(const struct hf_family *family, const json_t *config, int which, float *out, int64_t *n);

/* The name in GGUF, written to out; *expert: the number of an expert or -1. False: no row fits. Empty: not to be loaded. */
bool hf_tensor_name(const struct hf_family *family, const char *name, char *out, size_t size, int *expert);

#endif
