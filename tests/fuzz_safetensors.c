/* layers: file */
/* Any bytes as a Safetensors file, and as a tokenizer.model: accepted or refused, never read beyond their end. */
#include "file/hf_vocab.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    struct file *f;
    if (file_open_memory(&f, data, n_bytes, "fuzz.safetensors") == KG_OK) {
        for (size_t i = 0; i < f->n_tensors; i++) {
            const uint8_t *p = f->tensors[i].data;
            size_t n = f->tensors[i].n_bytes;
            if (n > 0 && (p < data || p + n > data + n_bytes)) __builtin_trap();
        }
    } else if (f || !kg_error_message()[0]) {
        __builtin_trap();
    }
    file_close(&f);
    struct meta_out o = {0};
    (void)sentencepiece_read(&o, data, n_bytes, &(struct hf_tokenizer){0}, NULL);
    meta_out_free(&o);
    return 0;
}
