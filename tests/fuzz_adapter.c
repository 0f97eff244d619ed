/* layers: model */
/* Any bytes as an adapter in a folder: the first says for which model, those up to a 0 are adapter_config.json, the others adapter_model.safetensors.
 * What opens has tensors within memory that can be read. */
#include "model/lora.h"

#include "gguf_writer.h"

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static const char *const archs[] = {"llama", "gpt2", "internlm2", "gptneox", "qwen3next", "qwen35", "deepseek2", "granitehybrid"};
static char dir[] = "/tmp/kagari-fuzz-XXXXXX", folder[64], config[100], weights[100];
static struct file *bases[COUNT_OF(archs)];

static void set_up(void)
{
    static const struct {
        const char *key;
        uint32_t value;
    } numbers[] = {{"attention.head_count", 4}, {"attention.head_count_kv", 2}, {"expert_count", 3}, {"ssm.time_step_rank", 4}, {"ssm.group_count", 2},
                   {"ssm.inner_size", 12}, {"ssm.state_size", 3}, {"block_count", 2}};
    if (!mkdtemp(dir)) __builtin_trap();
    snprintf(folder, sizeof folder, "%s/a", dir);
    snprintf(config, sizeof config, "%s/adapter_config.json", folder);
    snprintf(weights, sizeof weights, "%s/adapter_model.safetensors", folder);
    mkdir(folder, 0777);
    for (size_t i = 0; i < COUNT_OF(archs); i++) {
        char path[100], key[100];
        struct gw w = {0};
        snprintf(path, sizeof path, "%s/%s.gguf", dir, archs[i]);
        gw_str(&w, "general.architecture", archs[i]);
        for (size_t k = 0; k < COUNT_OF(numbers); k++) {
            snprintf(key, sizeof key, "%s.%s", archs[i], numbers[k].key);
            gw_u32(&w, key, numbers[k].value);
        }
        gw_save(&w, path);
        if (file_open(&bases[i], path) != KG_OK) __builtin_trap();
        remove(path);
    }
}

static void put(const char *path, const uint8_t *data, size_t n)
{
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, n, f) != n || fclose(f) != 0) __builtin_trap();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    if (!folder[0]) set_up();
    if (n_bytes < 2) return 0;
    const struct file *base = bases[data[0] % COUNT_OF(archs)];
    const uint8_t *end = memchr(data + 1, 0, n_bytes - 1);
    const size_t n = end ? (size_t)(end - data - 1) : n_bytes - 1;
    struct file *f = NULL;
    struct program p = {0};
    uint32_t sum = 0;
    put(config, data + 1, n);
    put(weights, end ? end + 1 : data, end ? n_bytes - n - 2 : 0);
    if (lora_open(&f, folder, base, &p) != KG_OK && (f || !kg_error_message()[0])) __builtin_trap();
    for (int i = 0; f && i < p.n_loras; i++)
        for (int k = 0; k < 2; k++) {
            const struct tensor *t = k ? p.loras[i].b : p.loras[i].a;
            for (size_t at = 0; at < t->n_bytes; at++) sum += ((const uint8_t *)t->data)[at];
        }
    static volatile uint32_t kept;
    kept = sum; /* so that all of it is read */
    (void)kept;
    program_free(&p);
    file_close(&f);
    return 0;
}
