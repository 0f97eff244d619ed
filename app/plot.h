/* Charts as SVG: no scripts, light or dark as the reader's system is, alone in a file or inside a page. */
#ifndef APP_PLOT_H
#define APP_PLOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* Values that are not finite are left out. */
struct plot_series {
    const char *name;
    const double *x;         /* [n]; of bars: NULL, they stand beside the labels */
    const double *y;         /* [n] */
    const double *low, *high; /* [n]: the spread of each, drawn as whiskers; NULL: none */
    size_t n;
};

struct plot {
    const char *title, *subtitle; /* subtitle may be NULL */
    const char *x_label, *y_label;
    bool log;               /* y on a logarithmic scale; values up to 0 are left out */
    bool percent;           /* y as 0..1 is written as 0 to 100 % */
    bool points;            /* no lines between the points */
    const char *const *labels; /* [n_labels]: bars, lying, one group for each label; NULL: lines */
    size_t n_labels;
    const char *const *notes; /* [n_labels][n_series]: what is written at the end of each bar; NULL: its value */
    const struct plot_series *series; /* [n_series] */
    size_t n_series;
};

/* A whole svg element. */
void plot_svg(FILE *out, const struct plot *p);
/* Text for XML and HTML: what has a meaning there is escaped, what may not be there stands as '?'. */
void plot_text(FILE *out, const char *s);

#endif
