/* Where things stand on a chart, and how it looks. Knows nothing of what is drawn. */
#include "plot.h"

#include "print.h"

#include <math.h>
#include <string.h>

enum { WIDTH = 860, TOP = 64, BOTTOM = 52, LINES_HEIGHT = 300, BAR = 14, GROUP_GAP = 12, N_COLORS = 8, MOST_TICKS = 64 };

static const char style[] =
    "<style>.kp{color:#1f2328;font:12px system-ui,sans-serif}.kp text{fill:currentColor}.kp .bg{fill:#fff}.kp .grid{stroke:#8884}.kp .axis{stroke:#888}"
    ".kp .soft{opacity:.75}"
    ".kp{--k0:#c2571a;--k1:#2f6f8f;--k2:#5b8c2a;--k3:#8a5aa8;--k4:#a87708;--k5:#c0446c;--k6:#4b5aa0;--k7:#6b6b6b}"
    "@media(prefers-color-scheme:dark){.kp{color:#e6e6e6;--k0:#f08a4b;--k1:#6bb6dc;--k2:#9ccc65;--k3:#c79be0;--k4:#e0b040;--k5:#f080a0;--k6:#9fb0f5;--k7:#b0b0b0}"
    ".kp .bg{fill:#14171c}}</style>\n";

/* ---- text -------------------------------------------------------------------------------------------------- */

void plot_text(FILE *out, const char *s)
{
    while (*s) {
        size_t run = strcspn(s, "&<>\"'\xef");
        print_plain(out, s, run);
        s += run;
        switch (*s) {
        case 0: return;
        case '&': fputs("&amp;", out); break;
        case '<': fputs("&lt;", out); break;
        case '>': fputs("&gt;", out); break;
        case '"': fputs("&quot;", out); break;
        case '\'': fputs("&#39;", out); break;
        default: { /* U+FFFE and U+FFFF are valid UTF-8, but not XML */
            size_t len = strnlen(s, 3);
            if (len == 3 && memcmp(s, "\xef\xbf", 2) == 0 && ((unsigned char)s[2] & 0xfe) == 0xbe) putc('?', out);
            else print_plain(out, s, len);
            s += len - 1;
        }
        }
        s++;
    }
}

static void put_text(FILE *out, double x, double y, const char *anchor, const char *more, const char *s)
{
    fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\"%s>", x, y, anchor, more);
    plot_text(out, s);
    fputs("</text>\n", out);
}

/* Characters, about 6.6 units wide each. */
static double text_width(const char *s)
{
    size_t n = 0;
    for (; *s; s++) n += ((unsigned char)*s & 0xc0) != 0x80;
    return 6.6 * (double)n;
}

static void value_text(const struct plot *p, double v, char out[static 32])
{
    if (p->percent) snprintf(out, 32, "%.3g %%", 100 * v);
    else if (v != 0 && (fabs(v) < 1e-2 || fabs(v) >= 1e5)) snprintf(out, 32, p->log ? "%.0e" : "%.2g", v);
    else snprintf(out, 32, "%.4g", v + 0.0); /* -0 is 0 */
}

/* ---- scales -------------------------------------------------------------------------------------------------- */

struct scale {
    double least, most; /* of the axis, as logarithms if log */
    double from, to;    /* where they are drawn */
    bool log;
    double ticks[MOST_TICKS];
    int n_ticks;
};

static bool usable(const struct plot *p, double v) { return isfinite(v) && (!p->log || v > 0); }

static void widen(double v, double *least, double *most)
{
    if (!(v >= *least)) *least = v; /* they begin as NaN */
    if (!(v <= *most)) *most = v;
}

static double place(const struct scale *s, double v)
{
    double x = s->log ? log10(v) : v;
    return s->from + (s->to - s->from) * (x - s->least) / (s->most - s->least);
}

static double nice_step(double range)
{
    double power = pow(10, floor(log10(range / 6))), step = range / 6 / power;
    return (step <= 1 ? 1 : step <= 2 ? 2 : step <= 5 ? 5 : 10) * power;
}

static void linear_scale(struct scale *s, double least, double most, bool whole)
{
    if (!(most > least)) most = least + 1; /* also of nothing */
    if (isnan(least)) least = 0, most = 1;
    double step = nice_step(most - least);
    if (whole && step < 1) step = 1;
    s->least = whole ? least : step * floor(least / step);
    s->most = whole ? most : step * ceil(most / step - 1e-9);
    for (double v = step * ceil(s->least / step - 1e-9); v <= s->most + step / 1e6 && s->n_ticks < MOST_TICKS; v += step) s->ticks[s->n_ticks++] = v;
}

static void log_scale(struct scale *s, double least, double most)
{
    if (isnan(least)) least = 0.1, most = 1;
    s->log = true;
    s->least = floor(log10(least) - 1e-9);
    s->most = ceil(log10(most) + 1e-9);
    double step = s->most - s->least > 12 ? 3 : 1;
    for (double d = s->least; d <= s->most + 1e-9 && s->n_ticks + 3 < MOST_TICKS; d += step) {
        s->ticks[s->n_ticks++] = pow(10, d);
        if (s->most - s->least > 3 || d >= s->most) continue;
        s->ticks[s->n_ticks++] = 2 * pow(10, d);
        s->ticks[s->n_ticks++] = 5 * pow(10, d);
    }
}

static void value_scale(const struct plot *p, struct scale *s)
{
    double least = NAN, most = NAN;
    for (size_t k = 0; k < p->n_series; k++) {
        const struct plot_series *x = &p->series[k];
        for (size_t i = 0; i < x->n; i++) {
            if (!usable(p, x->y[i])) continue;
            widen(x->y[i], &least, &most);
            if (x->low && usable(p, x->low[i])) widen(x->low[i], &least, &most);
            if (x->high && usable(p, x->high[i])) widen(x->high[i], &least, &most);
        }
    }
    if (p->log) {
        log_scale(s, least, most);
        return;
    }
    if (least > 0) least = 0; /* lengths are compared */
    if (p->percent && most < 1) most = 1;
    linear_scale(s, least, most, false);
}

/* ---- parts -------------------------------------------------------------------------------------------------- */

static void begin(FILE *out, const struct plot *p, double height)
{
    fprintf(out, "<svg class=\"kp\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %.0f\" width=\"%d\" role=\"img\">\n<title>", WIDTH, height, WIDTH);
    plot_text(out, p->title);
    fputs("</title>\n", out);
    fputs(style, out);
    fputs("<rect class=\"bg\" width=\"100%\" height=\"100%\"/>\n", out);
    put_text(out, 16, 22, "start", " font-size=\"15\" font-weight=\"600\"", p->title);
    if (p->subtitle) put_text(out, 16, 41, "start", " class=\"soft\"", p->subtitle);
}

static void put_line(FILE *out, const char *class, double x1, double y1, double x2, double y2)
{
    fprintf(out, "<line class=\"%s\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n", class, x1, y1, x2, y2);
}

static const char *dashes(size_t k)
{
    static const char *const of[] = {"", " stroke-dasharray=\"7 3\"", " stroke-dasharray=\"2 3\""};
    return of[k / N_COLORS % 3];
}

/* ---- bars ------------------------------------------------------------------------------------------------------ */

static void bar_legend(FILE *out, const struct plot *p, double left)
{
    double x = left;
    for (size_t k = 0; k < p->n_series && p->n_series > 1; k++) {
        fprintf(out, "<rect x=\"%.1f\" y=\"%d\" width=\"11\" height=\"11\" fill=\"var(--k%d)\"/>\n", x, TOP - 14, (int)(k % N_COLORS));
        put_text(out, x + 16, TOP - 4, "start", "", p->series[k].name);
        x += 44 + text_width(p->series[k].name);
    }
}

static void whisker(FILE *out, const struct plot *p, const struct scale *s, const struct plot_series *x, size_t i, double y)
{
    if (!x->low || !x->high || !usable(p, x->low[i]) || !usable(p, x->high[i])) return;
    double a = place(s, x->low[i]), b = place(s, x->high[i]);
    fprintf(out, "<path d=\"M%.1f %.1fV%.1fM%.1f %.1fH%.1fM%.1f %.1fV%.1f\" stroke=\"currentColor\" fill=\"none\"/>\n", a, y - 4, y + 4, a, y, b, b, y - 4, y + 4);
}

static void bars(FILE *out, const struct plot *p)
{
    double left = 60, right = 70, step = (double)p->n_series * BAR + GROUP_GAP, top = TOP + (p->n_series > 1 ? 8 : 0);
    for (size_t i = 0; i < p->n_labels; i++) left = fmax(left, 28 + text_width(p->labels[i]));
    for (size_t i = 0; p->notes && i < p->n_labels * p->n_series; i++) right = fmax(right, 20 + text_width(p->notes[i]));
    double bottom = top + step * (double)p->n_labels;
    struct scale s = {.from = left, .to = WIDTH - right};
    char value[32];
    value_scale(p, &s);
    begin(out, p, bottom + BOTTOM);
    bar_legend(out, p, left);
    for (int i = 0; i < s.n_ticks; i++) {
        double x = place(&s, s.ticks[i]);
        put_line(out, "grid", x, top - 4, x, bottom);
        value_text(p, s.ticks[i], value);
        put_text(out, x, bottom + 16, "middle", " class=\"soft\"", value);
    }
    if (p->y_label) put_text(out, (s.from + s.to) / 2, bottom + 38, "middle", " class=\"soft\"", p->y_label);
    put_line(out, "axis", left, top - 4, left, bottom);
    for (size_t i = 0; i < p->n_labels; i++) {
        double y = top + step * (double)i + GROUP_GAP / 2.0;
        put_text(out, left - 8, y + (double)p->n_series * BAR / 2 + 4, "end", "", p->labels[i]);
        for (size_t k = 0; k < p->n_series; k++, y += BAR) {
            const struct plot_series *x = &p->series[k];
            if (i >= x->n || !usable(p, x->y[i])) continue;
            double end = place(&s, x->y[i]), text = end;
            fprintf(out, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%d\" fill=\"var(--k%d)\"/>\n", left, y, fmax(end - left, 0.5), BAR - 2, (int)(k % N_COLORS));
            whisker(out, p, &s, x, i, y + (BAR - 2) / 2.0);
            if (x->high && usable(p, x->high[i])) text = fmax(text, place(&s, x->high[i]));
            value_text(p, x->y[i], value);
            put_text(out, text + 6, y + BAR - 4, "start", " font-size=\"11\"", p->notes ? p->notes[i * p->n_series + k] : value);
        }
    }
    fputs("</svg>\n", out);
}

/* ---- lines and points -------------------------------------------------------------------------------------------- */

static void curve(FILE *out, const struct plot *p, const struct scale *sx, const struct scale *sy, size_t k)
{
    const struct plot_series *s = &p->series[k];
    int color = (int)(k % N_COLORS);
    bool drawing = false;
    if (!p->points && s->n > 1) {
        fprintf(out, "<path fill=\"none\" stroke=\"var(--k%d)\" stroke-width=\"1.6\"%s d=\"", color, dashes(k));
        for (size_t i = 0; i < s->n; i++) {
            if (!usable(p, s->y[i])) {
                drawing = false;
                continue;
            }
            fprintf(out, "%s%.1f %.1f", drawing ? "L" : "M", place(sx, s->x[i]), place(sy, s->y[i]));
            drawing = true;
        }
        fputs("\"/>\n", out);
    }
    for (size_t i = 0; i < s->n && (p->points || s->n <= 100); i++)
        if (usable(p, s->y[i])) fprintf(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"2.6\" fill=\"var(--k%d)\"/>\n", place(sx, s->x[i]), place(sy, s->y[i]), color);
}

static void lines(FILE *out, const struct plot *p)
{
    double left = 84, right = 24, least = NAN, most = NAN;
    for (size_t k = 0; k < p->n_series && p->n_series > 1; k++) right = fmax(right, 56 + text_width(p->series[k].name));
    for (size_t k = 0; k < p->n_series; k++)
        for (size_t i = 0; i < p->series[k].n; i++) widen(p->series[k].x[i], &least, &most);
    double height = fmax(LINES_HEIGHT, 18.0 * (double)p->n_series), bottom = TOP + height;
    struct scale sx = {.from = left + 8, .to = WIDTH - right - 8}, sy = {.from = bottom, .to = TOP};
    char value[32];
    linear_scale(&sx, least, most, true);
    value_scale(p, &sy);
    begin(out, p, bottom + BOTTOM);
    for (int i = 0; i < sy.n_ticks; i++) {
        double y = place(&sy, sy.ticks[i]);
        put_line(out, "grid", left, y, WIDTH - right, y);
        value_text(p, sy.ticks[i], value);
        put_text(out, left - 8, y + 4, "end", " class=\"soft\"", value);
    }
    for (int i = 0; i < sx.n_ticks; i++) {
        double x = place(&sx, sx.ticks[i]);
        put_line(out, "axis", x, bottom, x, bottom + 4);
        snprintf(value, sizeof value, "%.10g", sx.ticks[i] + 0.0);
        put_text(out, x, bottom + 18, "middle", " class=\"soft\"", value);
    }
    put_line(out, "axis", left, bottom, WIDTH - right, bottom);
    put_line(out, "axis", left, TOP, left, bottom);
    if (p->x_label) put_text(out, (left + WIDTH - right) / 2, bottom + 38, "middle", " class=\"soft\"", p->x_label);
    if (p->y_label) {
        fprintf(out, "<g transform=\"translate(18 %.1f) rotate(-90)\">", (TOP + bottom) / 2);
        put_text(out, 0, 0, "middle", " class=\"soft\"", p->y_label);
        fputs("</g>\n", out);
    }
    for (size_t k = 0; k < p->n_series; k++) {
        double y = TOP + 8 + 18 * (double)k, x = WIDTH - right + 14;
        curve(out, p, &sx, &sy, k);
        if (p->n_series == 1) continue;
        fprintf(out, "<path stroke=\"var(--k%d)\" stroke-width=\"2.4\"%s d=\"M%.1f %.1fh22\"/>\n", (int)(k % N_COLORS), dashes(k), x, y);
        put_text(out, x + 28, y + 4, "start", "", p->series[k].name);
    }
    fputs("</svg>\n", out);
}

void plot_svg(FILE *out, const struct plot *p)
{
    if (p->labels) bars(out, p);
    else lines(out, p);
}
