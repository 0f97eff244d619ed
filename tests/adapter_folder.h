/* Writes an adapter of peft for the bundled model: enough of a change that its texts become others. Header only; after terminal.h. */
#ifndef TESTS_ADAPTER_FOLDER_H
#define TESTS_ADAPTER_FOLDER_H

static inline void write_adapter_folder(const char *folder)
{
    enum { DIM = 512 };
    static const char form[] = "{\"base_model.model.model.layers.%d.self_attn.o_proj.lora_A.weight\":{\"dtype\":\"F32\",\"shape\":[1,%d],\"data_offsets\":[0,%d]},"
                               "\"base_model.model.model.layers.%d.self_attn.o_proj.lora_B.weight\":{\"dtype\":\"F32\",\"shape\":[%d,1],\"data_offsets\":[%d,%d]}}";
    char path[400], header[600];
    const int layer = 2;
    uint32_t noise = 7;
    mkdir(folder, 0777);
    snprintf(path, sizeof path, "%s/adapter_config.json", folder);
    write_file(path, "{\"peft_type\": \"LORA\", \"r\": 1, \"lora_alpha\": 6, \"target_modules\": [\"o_proj\"]}");
    snprintf(path, sizeof path, "%s/adapter_model.safetensors", folder);
    snprintf(header, sizeof header, form, layer, DIM, 4 * DIM, layer, DIM, 4 * DIM, 8 * DIM);
    const uint64_t n = strlen(header);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fwrite(&n, sizeof n, 1, f);
    fwrite(header, 1, n, f);
    for (int i = 0; i < 2 * DIM; i++) {
        const float v = (float)(int32_t)(noise = noise * 1664525u + 1013904223u) * 0x1p-31f;
        fwrite(&v, sizeof v, 1, f);
    }
    fclose(f);
}

#endif
