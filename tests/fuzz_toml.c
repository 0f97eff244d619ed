/* layers: toml */
/* Any bytes as a configuration file: read, or refused with a line that is in the file and a message for a terminal. */
#include "toml.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    struct toml t;
    char error[160] = "", *text = malloc(n_bytes + 1);
    int line = 0, most = 1;
    if (!text) return 0;
    if (n_bytes) memcpy(text, data, n_bytes);
    text[n_bytes] = 0;
    for (size_t i = 0; i < n_bytes; i++) most += text[i] == '\n';
    if (toml_parse(&t, text, n_bytes, &line, error)) {
        for (size_t i = 0; i < t.n_values; i++) {
            const struct toml_value *v = &t.values[i];
            if (strlen(v->key) > TOML_MOST_KEY || v->line < 1 || v->line > most || (!v->is_array && v->n_items != 1)) __builtin_trap();
            for (size_t k = 0; k < v->n_items; k++)
                if (!v->items[k].text || strlen(v->items[k].text) > n_bytes + 20) __builtin_trap();
        }
        toml_free(&t);
    } else if (!error[0] || line < 1 || line > most || t.n_values) {
        __builtin_trap();
    }
    free(text);
    return 0;
}
