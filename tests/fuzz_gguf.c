/* layers: file */
/* Any bytes: the reader accepts or refuses them; what it accepts can be used. Seeds: broken and good GGUF files. */
#include "file_walk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    struct file *f;
    if (file_open_memory(&f, data, n_bytes, "fuzz.gguf") == KG_OK) {
        volatile uint64_t sum = walk_file(f);
        (void)sum;
        if (f->arena.n_bytes > 8 * n_bytes + 16384) __builtin_trap();
    } else if (f || !kg_error_message()[0] || strncmp(kg_error_message(), "fuzz.gguf: ", 11) != 0) {
        __builtin_trap();
    }
    file_close(&f);
    return 0;
}
