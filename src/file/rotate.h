/* The order of rows in Q and K: GGUF has the two numbers of each rotated pair side by side (architectures whose folders are ROTATED in
 * hf.def), folders have a head's first numbers of all pairs, then the second ones. */
#ifndef FILE_ROTATE_H
#define FILE_ROTATE_H

#include "file/file.h"

struct rotation {
    int64_t heads, kv_heads;
};

/* The heads of a model. */
kg_status rotation_read(const struct file *f, struct rotation *out);
/* What a folder has at the place that GGUF numbers r, of the n_rows rows of a tensor called name...; r itself if it is neither Q nor K. */
int64_t rotation_row(const struct rotation *rot, const char *name, int64_t r, int64_t n_rows);
/* Whether its rows fit the heads. */
kg_status rotation_check(const struct rotation *rot, const char *name, int64_t n_rows);

#endif
