/* Which type each tensor of a file gets when the file is quantized. */
#ifndef RUN_MIXTURE_H
#define RUN_MIXTURE_H

#include "file/file.h"
#include "file/pattern.h"

enum mixture {
#define MIXTURE(name, file_type, most, output) MIXTURE_##name,
#include "run/mixture.def"
#undef MIXTURE
    N_MIXTURES
};

/* A type that is asked for by name. */
struct mixture_override {
    struct pattern *pattern;
    const struct type_info *type;
    const char *text; /* of the pattern */
};

enum { MIXTURE_MOST_OVERRIDES = 256 };

struct mixture_choice {
    enum mixture mixture;
    bool pure;        /* one type for all that is quantized */
    bool has_imatrix;
    const struct type_info *output, *embedding; /* NULL: as the mixture says */
    const struct mixture_override *overrides; /* [n_overrides]: the last that fits counts, but output and embedding go before it */
    size_t n_overrides;
};

const char *mixture_name(size_t i); /* NULL past the end */
bool mixture_find(const char *name, enum mixture *out); /* case-insensitive */
uint32_t mixture_file_type(enum mixture m);
/* types[f->n_tensors]: a tensor that is not to be touched keeps its own. Rows that are not whole blocks of the type wanted get one
 * with smaller blocks, but of an override that is an error; so is one that fits no tensor that is quantized. */
kg_status mixture_types(const struct file *f, const struct mixture_choice *c, enum tensor_type *types);

/* Without importances this tensor is of little use in that type. */
bool mixture_needs_imatrix(const struct tensor *t, enum tensor_type type);

#endif
