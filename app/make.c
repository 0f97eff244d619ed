/* The commands that make files from files: quantize, imatrix, split, merge; and embed. */
#include "commands.h"

#include "input.h"
#include "print.h"
#include "progress.h"

#include <errno.h>
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
    struct show show = {.bar = !s->no_progress && isatty(STDERR_FILENO) && !isatty(STDOUT_FILENO)};
    kg_quantize_params p = {
        .type = s->args[2],
        .imatrix = s->imatrix,
        .output_type = s->output_type,
        .embedding_type = s->embedding_type,
        .tensor_types = s->tensor_types.v,
        .n_tensor_types = s->tensor_types.n,
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

/* ---- imatrix and embed ----------------------------------------------------------------------------------------- */

static int read_text(const char *path, char **text, size_t *len)
{
    FILE *f = fopen(path, "rb");
    if (!f) return print_error(EXIT_RUNTIME, "cannot read %s: %s", path, strerror(errno));
    size_t cap = 0, n = 0, got = 1;
    char *all = NULL;
    while (got > 0) {
        char *more = realloc(all, cap += 1 << 20);
        if (!more) break;
        all = more;
        got = fread(all + n, 1, cap - n, f);
        n += got;
    }
    int why = ferror(f) ? errno : got > 0 ? ENOMEM : 0;
    fclose(f);
    *text = all;
    *len = n;
    return why ? print_error(EXIT_RUNTIME, "cannot read %s: %s", path, strerror(why)) : 0;
}

static bool on_chunk(void *ctx, size_t done, size_t total)
{
    progress_show(ctx, done, total);
    return true;
}

static int measure(const struct settings *s, const char *path, const kg_tokenizer *tok, const char *text, size_t len)
{
    kg_model_params mp;
    int32_t *ids = NULL;
    size_t n = 0;
    int code = input_model_params(s, &mp);
    if (code) return code;
    kg_status status = kg_tokenize(tok, text, len, KG_TOKENIZE_BOS, &ids, &n);
    if (!status) {
        int32_t bos = kg_tokenizer_bos(tok);
        kg_imatrix_params p = {.chunk = (int)s->chunk, .first = n > 0 && bos >= 0 && ids[0] == bos ? bos : -1, .dataset = s->text_file, .progress = on_chunk};
        struct progress bar;
        progress_begin(&bar, s, "tokens", false, 0);
        p.progress_ctx = &bar;
        size_t most = (size_t)s->most_chunks * (size_t)s->chunk;
        if (most > 0 && n > most) n = most;
        status = kg_imatrix(path, &mp, ids, n, &p, s->imatrix_out);
        progress_end(&bar);
    }
    kg_free(ids);
    return status ? print_status(status) : 0;
}

int command_imatrix(const struct settings *s)
{
    if (!s->text_file || !s->imatrix_out) return print_error(EXIT_USAGE, "kagari imatrix needs --file TEXT and --out FILE");
    const char *path;
    char *text = NULL;
    size_t len = 0;
    kg_tokenizer *tok = NULL;
    int code = input_model_path(s, &path);
    if (!code) code = read_text(s->text_file, &text, &len);
    if (!code) {
        kg_status status = kg_tokenizer_open(&tok, s->tokenizer ? s->tokenizer : path);
        code = status ? print_status(status) : measure(s, path, tok, text, len);
    }
    kg_tokenizer_close(&tok);
    free(text);
    return code;
}

int command_embed(const struct settings *s)
{
    const char *path;
    kg_model *model = NULL;
    struct prompt prompt = {0};
    float *out = NULL;
    int code = input_open_model(s, &model, &path);
    if (!code) code = input_prompt(s, kg_model_tokenizer(model), NULL, &prompt);
    int32_t dim = code ? 0 : kg_model_embedding_dim(model);
    if (!code && !(out = malloc((size_t)dim * sizeof *out))) code = print_error(EXIT_RUNTIME, "out of memory");
    if (!code) {
        kg_status status = kg_embed(model, prompt.ids, prompt.n, (kg_pooling)s->pooling, out);
        if (status) code = print_status(status);
    }
    if (!code) {
        printf("{\"tokens\": %zu, \"embedding\": [", prompt.n);
        for (int32_t i = 0; i < dim; i++) printf("%s%.9g", i ? ", " : "", (double)out[i]);
        puts("]}");
    }
    free(out);
    input_prompt_free(&prompt);
    kg_model_close(&model);
    return code;
}

/* ---- split and merge -------------------------------------------------------------------------------------------- */

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
