/* Weights of Hugging Face folders that other programs have packed: refused by the name of what packed them, so that the user knows what to look
 * for. Those that are read are hf_fp8.c's and hf_mxfp4.c's. */
#include "file/hf.h"

#include <stdio.h>
#include <string.h>

/* quantization_config.quant_method of what is plain numbers in integers */
static const char *const packers[] = {"gptq", "awq", "bitsandbytes", "hqq", "aqlm", "quip", "vptq", "eetq", "higgs", "spqr", "quanto", "torchao", "auto-round", "bitnet", "fp_quant"};

/* What tells it where config.json does not: ends of names. */
static const struct {
    const char *end, *what;
} marks[] = {
    {".qweight", "GPTQ or AWQ"}, {".SCB", "bitsandbytes"}, {".weight.absmax", "bitsandbytes"}, {".weight_packed", "compressed-tensors"}, {".weight_scale_2", "NVFP4 (modelopt)"},
};

static kg_status refuse(const char *what, const char *how)
{
    return status_set(KG_ERR_UNSUPPORTED, "its weights are packed by %.60s%s%.40s, which is not read: take the folder with unpacked weights (BF16, F16), or a GGUF", what, *how ? ", " : "", how);
}

/* Of methods that have several formats, the one that is not FP8; NULL: it is, or is not said. */
static const char *other_format(const json_t *quantization, const char *method)
{
    static const char *const read[] = {"float-quantized", "naive-quantized", "dense", "FP8"};
    const char *format = NULL;
    if (strcmp(method, "compressed-tensors") == 0) format = json_string_value(json_object_get(quantization, "format"));
    if (strcmp(method, "modelopt") == 0) format = json_string_value(json_object_get(quantization, "quant_algo"));
    for (size_t i = 0; format && i < COUNT_OF(read); i++)
        if (strcmp(format, read[i]) == 0) return NULL;
    return format;
}

kg_status hf_check_packing(const struct file *f, const json_t *config)
{
    const json_t *q = json_object_get(config, "quantization_config");
    const char *method = json_string_value(json_object_get(q, "quant_method")), *algorithm = json_string_value(json_object_get(q, "quant_algo"));
    char bits[32] = "";
    if (!q) q = json_object_get(config, "compression_config"); /* older files of compressed-tensors */
    if (!method && (json_is_true(json_object_get(q, "load_in_4bit")) || json_is_true(json_object_get(q, "load_in_8bit")))) method = "bitsandbytes";
    if (!method && algorithm) method = "modelopt";
    if (!method && json_object_get(q, "config_groups")) method = "compressed-tensors";
    if (json_is_integer(json_object_get(q, "bits"))) snprintf(bits, sizeof bits, "%d bits", (int)json_integer_value(json_object_get(q, "bits")));
    for (size_t i = 0; method && i < COUNT_OF(packers); i++)
        if (strcmp(method, packers[i]) == 0) return refuse(method, bits);
    if (method && other_format(q, method)) return refuse(method, other_format(q, method));
    for (size_t i = 0; i < f->n_tensors; i++)
        for (size_t k = 0; k < COUNT_OF(marks); k++)
            if (hf_ends_with(f->tensors[i].name, marks[k].end)) return refuse(marks[k].what, "");
    return KG_OK;
}
