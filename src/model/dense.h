/* Linear layers behind the pooling of an embedding model (dense_2, dense_3 ... of a file). They work on one row of numbers for a whole text, so
 * they are no operations of the program, which has one for each token: every backend's embedding goes through the same float64 loop. */
#ifndef MODEL_DENSE_H
#define MODEL_DENSE_H

#include "model/arch.h"

struct dense {
    const struct tensor *w, *b; /* {in, out}, {out}; b NULL: none */
    bool tanh;                  /* of the result */
};

/* Those of the file, in their order; the program knows their tensors then. */
kg_status dense_find(const struct file *f, struct program *p, struct dense **list, int *n);
/* Numbers that come out: of none, the model's own width. */
int dense_width(const struct dense *list, int n, int dim);
/* The first numbers of x, of length dim, become those of the result; x has room for the widest. */
kg_status dense_apply(const struct dense *list, int n, int dim, double *x);
/* How much longer they make a vector of no particular direction, at most. */
double dense_gain(const struct dense *list, int n);
/* The widest row on the way. */
int dense_most(const struct dense *list, int n, int dim);

#endif
