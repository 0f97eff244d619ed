/* The page that verify --report writes: HTML that needs no other file, no script and no network, with the definitions of what it shows.
 * Owns what is drawn and said; where things stand on a chart is plot.c's. */
#include "report.h"

#include "options.h"
#include "outfile.h"
#include "plot.h"
#include "print.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char head[] =
    "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
    "<meta name=\"color-scheme\" content=\"light dark\"/>\n<title>kagari verify</title>\n<style>\n"
    ":root{--ink:#1f2328;--paper:#fff;--soft:#59636e;--rule:#d1d9e0}\n"
    "@media(prefers-color-scheme:dark){:root{--ink:#e6e6e6;--paper:#14171c;--soft:#a0a8b0;--rule:#39414a}}\n"
    "body{max-width:900px;margin:2rem auto;padding:0 1rem;font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper)}\n"
    "h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2.2rem}svg{max-width:100%;height:auto}\n"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums}th,td{padding:.2rem .8rem .2rem 0;border-bottom:1px solid var(--rule);text-align:left}\n"
    "td.n,th.n{text-align:right}p.soft,dd{color:var(--soft)}code{font-size:.95em}\n</style>\n</head>\n<body>\n";

/* Operations that are drawn as one line over the layers, or that make up one bar. */
struct group {
    char name[80];
    double *layer, *own; /* [n] */
    size_t n;
    double squares; /* of own */
};
struct groups {
    struct group *v;
    size_t n;
};

static void groups_free(struct groups *g)
{
    for (size_t i = 0; i < g->n; i++) {
        free(g->v[i].layer);
        free(g->v[i].own);
    }
    free(g->v);
    *g = (struct groups){0};
}

static struct group *group_find(struct groups *g, const char *name)
{
    for (size_t i = 0; i < g->n; i++)
        if (strcmp(g->v[i].name, name) == 0) return &g->v[i];
    struct group *more = realloc(g->v, (g->n + 1) * sizeof *more);
    if (!more) return NULL;
    g->v = more;
    struct group *new = &g->v[g->n++];
    *new = (struct group){0};
    snprintf(new->name, sizeof new->name, "%s", name);
    return new;
}

static bool group_add(struct groups *g, const char *name, int layer, double own)
{
    struct group *x = group_find(g, name);
    if (!x) return false;
    double *l = realloc(x->layer, (x->n + 1) * sizeof *l), *o = l ? realloc(x->own, (x->n + 1) * sizeof *o) : NULL;
    if (l) x->layer = l;
    if (o) x->own = o;
    if (!l || !o) return false;
    l[x->n] = layer;
    o[x->n++] = own;
    x->squares += own * own;
    return true;
}

static bool is_matmul(const kg_op_error *e) { return strncmp(e->op, "matmul", 6) == 0; }

/* "attn_q" of blk.3.attn_q.weight; what has no tensor is named by the operation, its place in the layer if there are several. */
static void short_name(const kg_ops_report *r, size_t i, char out[static 80])
{
    const kg_op_error *e = &r->ops[i];
    const char *from = e->tensor;
    if (strncmp(from, "blk.", 4) == 0) {
        const char *dot = strchr(from + 4, '.');
        if (dot) from = dot + 1;
    }
    snprintf(out, 80, "%s", *from ? from : e->op);
    size_t len = strlen(out), nth = 1;
    if (*from && len > 7 && strcmp(out + len - 7, ".weight") == 0) out[len - 7] = 0;
    if (*from) return;
    for (size_t k = i; k-- > 0 && r->ops[k].layer == e->layer;) nth += strcmp(r->ops[k].op, e->op) == 0 && !r->ops[k].tensor[0];
    if (nth > 1) snprintf(out + len, 80 - len, " %zu", nth);
}

/* ---- charts ---------------------------------------------------------------------------------------------------- */

static int no_memory(void) { return print_error(EXIT_RUNTIME, "no memory for the report"); }

/* One line for each kind of operation within the layers. */
static int draw_by_layer(FILE *f, const kg_ops_report *r, bool matmuls, const char *title)
{
    struct groups g = {0};
    char name[80];
    bool good = true;
    for (size_t i = 0; i < r->n_ops && good; i++) {
        const kg_op_error *e = &r->ops[i];
        if (e->layer < 0 || is_matmul(e) != matmuls || !isfinite(e->own)) continue;
        short_name(r, i, name);
        good = group_add(&g, name, e->layer, e->own);
    }
    struct plot_series *s = good && g.n ? calloc(g.n, sizeof *s) : NULL;
    for (size_t i = 0; s && i < g.n; i++) s[i] = (struct plot_series){.name = g.v[i].name, .x = g.v[i].layer, .y = g.v[i].own, .n = g.v[i].n};
    struct plot p = {.title = title, .x_label = "layer", .y_label = "own error", .log = true, .series = s, .n_series = g.n};
    if (s) plot_svg(f, &p);
    good = good && (s || !g.n);
    free(s);
    groups_free(&g);
    return good ? 0 : no_memory();
}

/* A bar for each type of tensor, or for each operation: the root of the mean of the squares. */
static int draw_bars(FILE *f, const kg_ops_report *r, bool types, const char *title)
{
    struct groups g = {0};
    bool good = true;
    for (size_t i = 0; i < r->n_ops && good; i++) {
        const kg_op_error *e = &r->ops[i];
        if (!isfinite(e->own) || (types && !is_matmul(e))) continue;
        good = group_add(&g, types ? e->type : e->op, e->layer, e->own);
    }
    const char **labels = calloc(g.n + 1, sizeof *labels), **notes = calloc(g.n + 1, sizeof *notes);
    char(*texts)[64] = calloc(g.n + 1, sizeof *texts);
    double *rms = calloc(g.n + 1, sizeof *rms);
    good = good && labels && notes && texts && rms;
    for (size_t i = 0; good && i < g.n; i++) {
        rms[i] = sqrt(g.v[i].squares / (double)g.v[i].n);
        labels[i] = g.v[i].name;
        notes[i] = texts[i];
        snprintf(texts[i], sizeof texts[i], "%.2e  of %zu", rms[i], g.v[i].n);
    }
    struct plot_series s = {.name = "own error", .y = rms, .n = g.n};
    struct plot p = {.title = title, .y_label = "own error, root of the mean square", .log = true, .labels = labels, .n_labels = g.n, .notes = notes, .series = &s, .n_series = 1};
    if (good && g.n) plot_svg(f, &p);
    free(labels);
    free(notes);
    free(texts);
    free(rms);
    groups_free(&g);
    return good ? 0 : no_memory();
}

/* The total error after each layer, and after each operation. */
static int draw_total(FILE *f, const kg_ops_report *r)
{
    size_t n = (size_t)r->whole.n_layers > r->n_ops ? (size_t)r->whole.n_layers : r->n_ops;
    double *x = malloc((n + 1) * sizeof *x), *y = malloc((n + 1) * sizeof *y);
    if (x && y) {
        for (size_t i = 0; i < n; i++) x[i] = (double)i;
        for (size_t i = 0; i < r->n_ops; i++) y[i] = r->ops[i].total;
        struct plot_series s = {.name = "", .x = x, .y = r->whole.layer_error, .n = (size_t)r->whole.n_layers};
        struct plot p = {.title = "Error of the residual stream after each layer", .x_label = "layer", .y_label = "total error", .log = true, .series = &s, .n_series = 1};
        plot_svg(f, &p);
        s.y = y;
        s.n = r->n_ops;
        p.title = "Error after each operation, the logits last";
        p.x_label = "operation, in the order in which they are computed";
        plot_svg(f, &p);
    }
    free(x);
    free(y);
    return x && y ? 0 : no_memory();
}

/* ---- text and tables --------------------------------------------------------------------------------------------- */

static void put_fact(FILE *f, const char *name, const char *value)
{
    fprintf(f, "<tr><th>%s</th><td>", name);
    plot_text(f, value);
    fputs("</td></tr>\n", f);
}

static void put_facts(FILE *f, const struct report *r)
{
    const kg_verify_report *w = &r->ops->whole;
    char text[160];
    fputs("<h1>", f);
    plot_text(f, r->path);
    fputs("</h1>\n<table>\n", f);
    snprintf(text, sizeof text, "%s, KV cache %s, activations %s", r->backend, r->kv_type, r->activations);
    put_fact(f, "backend", text);
    put_fact(f, "compared with", r->base ? r->base : "itself");
    put_fact(f, "computed in", "float64, by the reference backend");
    snprintf(text, sizeof text, "%zu", w->n_tokens);
    put_fact(f, "tokens", text);
    if (r->text) put_fact(f, "text", r->text);
    if (isfinite(w->logits_bound))
        snprintf(text, sizeof text, "%.3e, bound %.3e: %s", w->logits_error, w->logits_bound, w->logits_error <= w->logits_bound ? "ok" : "BEYOND THE BOUND");
    else snprintf(text, sizeof text, "%.3e", w->logits_error);
    put_fact(f, w->is_encoder ? "relative error of the states" : "relative error of the logits", text);
    snprintf(text, sizeof text, "%.3e", w->worst_logit);
    put_fact(f, w->is_encoder ? "largest difference of one number of them" : "largest difference of one logit", text);
    if (w->is_encoder) snprintf(text, sizeof text, "%.3e", w->embedding_error);
    else snprintf(text, sizeof text, "%.1f %%", 100 * w->same_top);
    put_fact(f, w->is_encoder ? "relative error of the embedding" : "tokens with the same most likely next", text);
    snprintf(text, sizeof text, "kagari %s", kg_version());
    put_fact(f, "made by", text);
    fputs("</table>\n", f);
}

static void put_definitions(FILE *f, bool base)
{
    fputs("<h2>What the numbers mean</h2>\n<dl>\n<dt>total error</dt><dd>||a &#8722; r|| / ||r||, Euclidean, over all tokens: a is what the backend computes, r what "
          "the reference computes. Everything that came before is in it.</dd>\n<dt>own error</dt><dd>||a &#8722; f|| / ||f||: f is the same operation "
          "in float64 on the inputs that the backend gave it, so that only what this operation adds is left",
          f);
    if (base) fputs(". Its weights are those of the better file, so that the rounding of the weights counts", f);
    fputs(".</dd>\n<dt>attention</dt><dd>includes the rounding of the cache.</dd>\n<dt>operations without a number</dt><dd>are computed by the backend together "
          "with a later one, whose error includes theirs.</dd>\n</dl>\n",
          f);
}

static void put_number(FILE *f, double v)
{
    if (isfinite(v)) fprintf(f, "<td class=\"n\">%.3e</td>", v);
    else fputs("<td class=\"n\">&#8211;</td>", f);
}

static void put_operations(FILE *f, const kg_ops_report *r)
{
    fputs("<h2>All operations</h2>\n<details><summary>Table</summary>\n<table>\n<thead><tr><th class=\"n\">layer</th><th>operation</th><th>tensor</th><th>type</th>"
          "<th class=\"n\">own error</th><th class=\"n\">total error</th></tr></thead>\n<tbody>\n",
          f);
    for (size_t i = 0; i < r->n_ops; i++) {
        const kg_op_error *e = &r->ops[i];
        if (e->layer >= 0) fprintf(f, "<tr><td class=\"n\">%d</td><td>%s</td><td><code>", e->layer, e->op);
        else fprintf(f, "<tr><td></td><td>%s</td><td><code>", e->op);
        plot_text(f, e->tensor);
        fprintf(f, "</code></td><td>%s</td>", e->type);
        put_number(f, e->own);
        put_number(f, e->total);
        fputs("</tr>\n", f);
    }
    fputs("</tbody>\n</table>\n</details>\n", f);
}

static int write_page(FILE *f, const struct report *r)
{
    fputs(head, f);
    put_facts(f, r);
    put_definitions(f, r->base);
    fputs("<h2>Layers</h2>\n", f);
    int code = draw_total(f, r->ops);
    fputs("<h2>Types and operations</h2>\n", f);
    if (!code) code = draw_bars(f, r->ops, true, "Matrices by type of tensor");
    if (!code) code = draw_bars(f, r->ops, false, "All operations by kind");
    fputs("<h2>Each operation, by layer</h2>\n", f);
    if (!code) code = draw_by_layer(f, r->ops, true, "Matrices: own error in each layer");
    if (!code) code = draw_by_layer(f, r->ops, false, "Other operations: own error in each layer");
    put_operations(f, r->ops);
    fputs("</body>\n</html>\n", f);
    return code;
}

int report_write(const char *to, const struct report *r)
{
    struct outfile out;
    int code = outfile_open(&out, to);
    if (code) return code;
    return outfile_close(&out, write_page(out.f, r));
}
