/* A model file opened and understood: file, tokenizer-free; the program that computes it. */
#ifndef MODEL_MODEL_H
#define MODEL_MODEL_H

#include "model/arch.h"

struct model {
    struct file *file;
    const struct arch *arch;
    struct program program; /* its tensors borrow from file */
};

kg_status model_open(struct model *out, const char *path);
void model_close(struct model *m);

#endif
