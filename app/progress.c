/* Owns the line that the bar stands on. */
#include "progress.h"

#include "print.h"

#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void progress_size(char out[static 16], uint64_t bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double v = (double)bytes;
    size_t u = 0;
    while (v >= 1000 && u < 4) v /= 1024, u++;
    snprintf(out, 16, u && v < 99.95 ? "%.1f %s" : "%.0f %s", v, units[u]);
}

void progress_begin(struct progress *p, const struct settings *s, const char *what, bool bytes, uint64_t first)
{
    *p = (struct progress){.what = what, .wanted = !s->no_progress && isatty(STDERR_FILENO), .bytes = bytes, .first = first, .start = seconds()};
}

static void put_time(char *out, size_t size, double t)
{
    long s = (long)(t + 0.5);
    if (s >= 3600) snprintf(out, size, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    else snprintf(out, size, "%ld:%02ld", s / 60, s % 60);
}

/* Amounts, rate, time left. */
static void put_numbers(const struct progress *p, double now, uint64_t done, uint64_t total, char *out, size_t size)
{
    double t = now - p->start, rate = t > 0.5 ? (double)(done - p->first) / t : 0;
    char a[16], b[16], r[16] = "", left[24] = "";
    if (!p->bytes) {
        snprintf(out, size, "%llu of %llu", (unsigned long long)done, (unsigned long long)total);
        return;
    }
    progress_size(a, done);
    progress_size(b, total);
    progress_size(r, (uint64_t)rate);
    if (rate >= 1 && total > done) put_time(left, sizeof left, (double)(total - done) / rate);
    if (rate >= 1) snprintf(out, size, "%s of %s  %s/s  %s left", a, b, r, left);
    else snprintf(out, size, "%s of %s", a, b);
}

void progress_show(struct progress *p, uint64_t done, uint64_t total)
{
    double now = seconds();
    if (!p->wanted || done > total || total == 0 || now - p->last < 0.1) return;
    struct winsize w;
    char numbers[96], bar[128];
    int columns = ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 0 ? w.ws_col : 80, width, full;
    p->last = now;
    put_numbers(p, now, done, total, numbers, sizeof numbers);
    width = columns - (int)strlen(p->what) - (int)strlen(numbers) - 13; /* names are ASCII or the bar is a little short */
    width = width < 0 ? 0 : width > 40 ? 40 : width;
    full = (int)((double)width * ((double)done / (double)total));
    memset(bar, '=', (size_t)full);
    memset(bar + full, ' ', (size_t)(width - full));
    bar[width] = 0;
    fprintf(stderr, "\r%.*s  %s%s%s%3d %%  %s\033[K", columns - 1, p->what, width ? "[" : "", bar, width ? "] " : "", (int)(100.0 * (double)done / (double)total), numbers);
    p->shown = true;
}

void progress_end(struct progress *p)
{
    if (p->shown) fputs("\r\033[K", stderr);
    p->shown = false;
}
