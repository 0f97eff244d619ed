/* The commands that make files from files: quantize, split, merge. */
#include "commands.h"

#include "input.h"
#include "print.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The list goes to standard output; a bar to standard error where only that is a terminal. */
struct show {
    bool bar;
};

static bool on_step(void *ctx, const kg_quantize_step *step)
{
    const struct show *show = ctx;
    printf("%5zu/%zu  ", step->i + 1, step->n);
    print_plain(stdout, step->tensor, strlen(step->tensor));
    size_t len = strlen(step->tensor);
    printf("%*s  %-7s -> %-7s %12llu bytes", len < 36 ? (int)(36 - len) : 0, "", step->from, step->to, (unsigned long long)step->n_bytes);
    if (step->error > 0) printf("  error %.3e", step->error);
    putchar('\n');
    if (show->bar) {
        int full = (int)(step->done * 40);
        fprintf(stderr, "\r[%.*s%*s] %3d %%", full, "########################################", 40 - full, "", (int)(step->done * 100));
        if (step->i + 1 == step->n) fputc('\n', stderr);
    }
    return !ferror(stdout);
}

int command_quantize(const struct settings *s)
{
    if (s->n_args != 3) return print_error(EXIT_USAGE, "kagari quantize needs three arguments: the file, the file to write, and the type");
    struct show show = {.bar = isatty(STDERR_FILENO) && !isatty(STDOUT_FILENO)};
    kg_quantize_params p = {
        .type = s->args[2],
        .imatrix = s->imatrix,
        .output_type = s->output_type,
        .embedding_type = s->embedding_type,
        .pure = s->pure,
        .allow_requantize = s->allow_requantize,
        .n_threads = (int)s->threads,
        .progress = on_step,
        .progress_ctx = &show,
    };
    kg_quantize_report r;
    kg_status status = kg_quantize(s->args[0], s->args[1], &p, &r);
    if (status) return print_status(status);
    printf("\n%llu bytes of tensors -> %llu", (unsigned long long)r.bytes_before, (unsigned long long)r.bytes_after);
    if (s->imatrix) printf(", %zu tensors by their importance", r.n_weighted);
    putchar('\n');
    return 0;
}

/* "300M", "2G", "4096": bytes. */
static int parse_size(const char *text, uint64_t *out)
{
    char *end = NULL;
    double v = strtod(text, &end);
    double unit = *end == 'G' ? 1e9 : *end == 'M' ? 1e6 : *end == 'K' ? 1e3 : 1;
    if (unit > 1) end++;
    if (end == text || *end || !(v * unit >= 1) || v * unit > 1e18) return print_error(EXIT_USAGE, "--max-size '%s': must be bytes, like 300M or 2G", text);
    *out = (uint64_t)(v * unit);
    return 0;
}

int command_split(const struct settings *s)
{
    if (s->n_args != 2) return print_error(EXIT_USAGE, "kagari split needs two arguments: the file, and the beginning of the names to write");
    kg_split_params p = {.max_tensors = (uint64_t)s->max_tensors};
    if (s->max_size) {
        int code = parse_size(s->max_size, &p.max_bytes);
        if (code) return code;
    }
    if (!p.max_bytes && !p.max_tensors) return print_error(EXIT_USAGE, "kagari split needs --max-size or --max-tensors");
    size_t n = 0;
    kg_status status = kg_split(s->args[0], s->args[1], &p, &n);
    if (status) return print_status(status);
    printf("%zu files\n", n);
    return 0;
}

int command_merge(const struct settings *s)
{
    if (s->n_args != 2) return print_error(EXIT_USAGE, "kagari merge needs two arguments: the first of the files, and the file to write");
    kg_status status = kg_merge(s->args[0], s->args[1]);
    return status ? print_status(status) : 0;
}
