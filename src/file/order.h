/* Rows and columns that stand in another order in GGUF than in folders:
 * rows of Q and K, of which GGUF has the two numbers of each rotated pair side by side (architectures whose folders are ROTATED in hf.def), folders
 * a head's first numbers of all pairs, then the second ones; and heads of values of a gated delta net, see struct delta in model/program.h. */
#ifndef FILE_ORDER_H
#define FILE_ORDER_H

#include "file/file.h"

/* What a file says of its own order: kagari.rope_halves, kagari.heads_grouped. Both are false for a GGUF of another program. */
struct order_kind {
    bool halves, grouped;
};
kg_status order_kind(const struct file *f, struct order_kind *out);

struct order {
    struct order_kind from; /* what is different in a folder */
    int64_t heads, kv_heads;
    int64_t v_heads, k_heads, v_dim;
};
/* Between a folder's order and GGUF's, with the numbers of a model. */
kg_status order_read(const struct file *model, struct order_kind from, struct order *out);
/* Whether t, or an adapter's part NAME.lora_a or NAME.lora_b of it, fits those numbers. */
kg_status order_check(const struct order *o, const struct tensor *t);
/* What a folder has at row r, column i of GGUF: of t, or of an adapter's part. A vector's elements are rows. */
int64_t order_row(const struct order *o, const struct tensor *t, int64_t r);
int64_t order_column(const struct order *o, const struct tensor *t, int64_t i);
bool order_moves_columns(const struct order *o, const struct tensor *t);

#endif
