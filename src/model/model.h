/* A model file opened and understood: file, tokenizer-free; the program that computes it. */
#ifndef MODEL_MODEL_H
#define MODEL_MODEL_H

#include "model/dense.h"

struct model {
    struct file *file;
    const struct arch *arch;
    struct program program; /* its tensors borrow from file and the adapters */
    struct file **adapters; /* [n_adapters] */
    size_t n_adapters;
    struct dense *dense; /* [n_dense]: behind the pooling of an embedding */
    int n_dense;
};

kg_status model_open(struct model *out, const char *path);
kg_status model_open_adapted(struct model *out, const char *path, const kg_lora *loras, size_t n_loras);
/* n_ctx: as in kg_model_params. */
kg_status model_open_for(struct model *out, const char *path, const kg_lora *loras, size_t n_loras, int64_t n_ctx);
void model_close(struct model *m);

#endif
