/* The command perplexity: how well a model predicts a text, and how far its predictions are from those of a better file. */
#include "commands.h"

#include "input.h"
#include "print.h"
#include "progress.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool on_window(void *ctx, size_t done, size_t total)
{
    progress_show(ctx, done, total);
    return true;
}

static void print_number(const char *key, double v)
{
    if (isfinite(v)) printf(",\n  \"%s\": %.10g", key, v);
    else printf(",\n  \"%s\": null", key);
}

static void print_json_report(const struct settings *s, const char *path, const char *backend, const kg_perplexity_report *r)
{
    printf("{\n  \"model\": ");
    print_json(stdout, path, strlen(path));
    printf(",\n  \"text\": ");
    print_json(stdout, s->text_file, strlen(s->text_file));
    printf(",\n  \"backend\": \"%s\",\n  \"ctx\": %lld,\n  \"tokens\": %zu", backend, (long long)s->window, r->n_tokens);
    print_number("nll", r->nll);
    print_number("nll_error", r->nll_error);
    print_number("perplexity", r->perplexity);
    print_number("perplexity_error", r->perplexity_error);
    if (s->kl_base) {
        printf(",\n  \"kl_base\": ");
        print_json(stdout, s->kl_base, strlen(s->kl_base));
        print_number("kl", r->kl);
        print_number("kl_error", r->kl_error);
        print_number("same_top", r->same_top);
    }
    printf("\n}\n");
}

static void print_report(const struct settings *s, const char *path, const char *backend, const kg_perplexity_report *r)
{
    printf("%s on %s: %zu tokens count, windows of %lld, %s backend\n\n", path, s->text_file, r->n_tokens, (long long)s->window, backend);
    printf("perplexity       %.4f +- %.4f\n", r->perplexity, r->perplexity_error);
    printf("nats per token   %.5f +- %.5f\n", r->nll, r->nll_error);
    if (!s->kl_base) return;
    printf("KL divergence    %.6f +- %.6f from %s\n", r->kl, r->kl_error, s->kl_base);
    printf("same most likely %.2f %% of the tokens\n", 100 * r->same_top);
}

static int measure(const struct settings *s, const char *path, kg_model *model, kg_model *base, const char *text, size_t len)
{
    int32_t *ids = NULL;
    size_t n = 0, most = (size_t)s->most_chunks * (size_t)s->window;
    struct progress progress;
    kg_perplexity_report r;
    kg_status status = kg_tokenize(kg_model_tokenizer(model), text, len, KG_TOKENIZE_BOS, &ids, &n);
    if (status) return print_status(status);
    if (most && n > most) n = most;
    progress_begin(&progress, s, "perplexity", false, 0);
    status = kg_perplexity(model, base, ids, n, (size_t)s->window, on_window, &progress, &r);
    progress_end(&progress);
    kg_free(ids);
    if (status) return print_status(status);
    if (s->json) print_json_report(s, path, kg_model_backend(model), &r);
    else print_report(s, path, kg_model_backend(model), &r);
    return 0;
}

int command_perplexity(const struct settings *s)
{
    if (!s->text_file) return print_error(EXIT_USAGE, "kagari perplexity needs --file TEXT");
    const char *path;
    char *text = NULL, *base_path = NULL;
    size_t len = 0;
    kg_model *model = NULL, *base = NULL;
    int code = input_read_file(s->text_file, &text, &len);
    if (!code && s->kl_base) code = input_other_model(s, s->kl_base, &base_path);
    if (!code) code = input_open_model(s, &model, &path);
    if (!code && !kg_model_tokenizer(model)) code = print_error(EXIT_RUNTIME, "%s has no tokenizer", path);
    if (!code && base_path) {
        kg_model_params params;
        code = input_model_params(s, &params);
        params.backend = kg_model_backend(model);
        if (!code) {
            kg_status status = kg_model_open(&base, base_path, &params);
            if (status) code = print_status(status);
        }
    }
    if (!code) code = measure(s, path, model, base, text, len);
    kg_model_close(&base);
    kg_model_close(&model);
    free(base_path);
    free(text);
    return code;
}
