/* An architecture: one file src/arch/NAME.c that defines `const struct arch arch_NAME`. The file name is its registration:
 * the build makes the list. NAME is the value of general.architecture ('-' written '_'). */
#ifndef MODEL_ARCH_H
#define MODEL_ARCH_H

#include "file/file.h"
#include "model/program.h"

/* What an architecture works with while a model is being opened. */
struct arch_build {
    const struct file *file;
    const char *prefix;  /* general.architecture, before the dot of its keys */
    struct program *program;
    void *h;             /* the architecture's own hyper-parameters, zeroed, arch.h_bytes long */
    void *t;             /* its own tensor pointers, zeroed, arch.t_bytes long */
    const struct arch *arch;
    int n_beyond;        /* layers behind those of the program, which guess further tokens: keys of one number for each layer count them, too */
    int64_t n_ctx;       /* that sessions will have at most; 0: the trained one */
    bool knows_log_multiplier; /* the architecture does what rope.scaling.yarn_log_multiplier asks for: arch_rope only leaves cos and sin as they are */
};

struct arch {
    const char *name;
    size_t h_bytes, t_bytes;
    kg_status (*hparams)(struct arch_build *b); /* metadata -> h; also program->{dim, n_layers, n_vocab, n_ctx} */
    kg_status (*tensors)(struct arch_build *b); /* tensor names -> t; arrays per layer come from program->arena */
    kg_status (*program)(struct arch_build *b); /* h, t -> operations */
    const void *style; /* whatever the three want to know of it; see decoder.h */
};

/* Getters for keys under the file's own prefix: arch_u32(b, "block_count", &n, NULL) reads llama.block_count.
 * found as in file_get_*. u32 values are limited to 2^30 so that products of two fit 64 bits. */
kg_status arch_u32(const struct arch_build *b, const char *key, int *out, bool *found);
/* A key that must be there and at least 1. */
kg_status arch_size(const struct arch_build *b, const char *key, int *out);
/* The same for keys that may be one number or an array with one number per layer: all must be equal.
 * Absent: *out keeps its value if that is above 0, else it is an error. */
kg_status arch_size_layers(const struct arch_build *b, const char *key, int *out);
/* The same for keys that are 0 where a layer is of another kind, which some[i] tells; others must be equal, and there must be one. */
kg_status arch_size_some_layers(const struct arch_build *b, const char *key, int *out, bool *some);
/* Item i of a key that has one number (or yes and no) for each layer, or the one number for all. It must be there. */
kg_status arch_u32_layer(const struct arch_build *b, const char *key, int i, int *out);
/* block_count, embedding_length, context_length and the rows of token_embd.weight -> program->{n_layers, dim, n_ctx, n_vocab},
 * which must agree with vocab_size and the tokenizer's list. */
kg_status arch_sizes(struct arch_build *b);
/* A key that must be there, finite and above 0. */
kg_status arch_epsilon(const struct arch_build *b, const char *key, double *out);
kg_status arch_f64(const struct arch_build *b, const char *key, double *out, bool *found);
kg_status arch_bool(const struct arch_build *b, const char *key, bool *out, bool *found);
kg_status arch_str(const struct arch_build *b, const char *key, struct str *out, bool *found);
/* Finds a tensor by a printf-like name and checks its shape {ne0, ne1} (ne1 = 1 for a vector). Absent: an error that names it,
 * or *out = NULL if optional. */
kg_status arch_tensor(const struct arch_build *b, const struct tensor **out, bool optional, int64_t ne0, int64_t ne1,
                      const char *fmt, ...) __attribute__((format(printf, 6, 7)));
/* The same for {ne0, ne1, ne2}. */
kg_status arch_tensor_3d(const struct arch_build *b, const struct tensor **out, bool optional, int64_t ne0, int64_t ne1, int64_t ne2,
                         const char *fmt, ...) __attribute__((format(printf, 7, 8)));
/* A part of t under the name "t[tag]": n rows of a matrix from row `first`, or n elements of a vector from element `first`
 * (whole blocks). It borrows t's bytes; the struct lives in the program's arena. */
kg_status arch_part(const struct arch_build *b, const struct tensor **out, const struct tensor *t, int64_t first, int64_t n,
                    const char *tag);
/* {n} of ones. */
kg_status arch_ones(const struct arch_build *b, const struct tensor **out, int n);
/* Reads rope.freq_base, rope.dimension_count, rope.scaling.* and rope_freqs.weight into *rope (style, n_heads and head_dim given). */
kg_status arch_rope(const struct arch_build *b, struct rope *rope);

const struct arch *arch_find(const char *name); /* NULL: unknown */
const struct arch *arch_at(size_t i);           /* NULL past the end */

#endif
