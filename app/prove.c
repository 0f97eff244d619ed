/* The commands that show a backend's numbers: logits writes them to a file, verify compares them with the float64 reference. */
#include "commands.h"

#include "input.h"
#include "print.h"
#include "progress.h"
#include "report.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define VERIFY_TEXT "Once upon a time there was a poor woodcutter who lived with his wife and his two children at the edge of a great forest."

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "logits are written as they lie in memory, and the format is little-endian");

static int write_file(const char *path, const void *data, size_t size, size_t n)
{
    FILE *f = fopen(path, "wb");
    if (!f) return print_error(EXIT_RUNTIME, "cannot write %s: %s", path, strerror(errno));
    bool written = fwrite(data, size, n, f) == n;
    int why = errno;
    if (fclose(f) == 0 && written) return 0;
    return print_error(EXIT_RUNTIME, "cannot write %s: %s", path, strerror(written ? errno : why));
}

static int write_logits(const struct settings *s, kg_model *model, const struct prompt *prompt)
{
    kg_session_params params = kg_session_default_params();
    params.n_ctx = s->ctx;
    params.n_batch = (int)s->batch;
    kg_session *session = NULL;
    kg_status status = kg_session_new(&session, model, &params);
    if (!status) status = kg_session_sync(session, prompt->ids, prompt->n);
    int code = status ? print_status(status) : 0;
    if (!code) {
        size_t n = (size_t)kg_model_n_vocab(model);
        const double *f64 = kg_session_logits_f64(session);
        if (f64) code = write_file(s->out, f64, sizeof *f64, n);
        else code = write_file(s->out, kg_session_logits(session), sizeof(float), n);
        if (!code) fprintf(stderr, "wrote %zu logits as little-endian %s after %zu tokens\n", n, f64 ? "float64" : "float32", prompt->n);
    }
    kg_session_free(&session);
    return code;
}

int command_logits(const struct settings *s)
{
    if (!s->out) return print_error(EXIT_USAGE, "'kagari logits' needs --out FILE");
    const char *path;
    kg_model *model = NULL;
    struct prompt prompt = {0};
    int code = input_open_model(s, &model, &path);
    if (!code) code = input_prompt(s, kg_model_tokenizer(model), NULL, &prompt);
    if (!code) code = write_logits(s, model, &prompt);
    input_prompt_free(&prompt);
    kg_model_close(&model);
    return code;
}

/* ---- verify --------------------------------------------------------------------------------------------------- */

static void print_line(const char *what, double error, double bound, bool unbound)
{
    printf("%11s   %.3e", what, error);
    if (unbound) puts("");
    else printf("   bound %.3e   %s\n", bound, error <= bound ? "ok" : "BEYOND THE BOUND");
}

static int print_verdict(const kg_verify_report *r, const char *path, const char *base, const char *backend)
{
    printf("%s: %s backend against float64", path, backend);
    if (base) printf(" of %s", base);
    printf(", %zu tokens\n\nafter layer   relative error\n", r->n_tokens);
    for (int i = 0; i < r->n_layers; i++) printf("%11d   %.3e\n", i, r->layer_error[i]);
    bool good = base || r->logits_error <= r->logits_bound; /* false for NaN */
    print_line(r->is_encoder ? "states" : "logits", r->logits_error, r->logits_bound, base);
    if (r->is_encoder) {
        print_line("embedding", r->embedding_error, r->embedding_bound, base);
        good &= base || r->embedding_error <= r->embedding_bound;
        if (good) return 0;
        return print_error(EXIT_RUNTIME, "%s: states or embedding of the %s backend are beyond the bound", path, backend);
    }
    printf("\nlargest difference of one logit       %.3e\n", r->worst_logit);
    printf("tokens with the same most likely next %.1f %%\n", 100 * r->same_top);
    if (good) return 0;
    return print_error(EXIT_RUNTIME, "%s: the logits of the %s backend are off by %.3e, beyond the bound %.3e", path, backend, r->logits_error, r->logits_bound);
}

static bool on_tokens(void *ctx, size_t done, size_t total)
{
    progress_show(ctx, done, total);
    return true;
}

/* Operation by operation, with --report or --base. */
static int verify_ops(const struct settings *s, const char *path, const kg_model_params *params, const struct prompt *prompt)
{
    char *base = NULL;
    int code = s->base ? input_other_model(s, s->base, &base) : 0;
    if (code) return code;
    kg_ops_report ops = {0};
    struct progress progress;
    progress_begin(&progress, s, "verify", false, 0);
    kg_status status = kg_verify_ops(path, base, params, prompt->ids, prompt->n, on_tokens, &progress, &ops);
    progress_end(&progress);
    if (status) code = print_status(status);
    if (!code && s->report) {
        static const char *const kv_names[] = {"f16", "f32", "q8_0"}, *const activation_names[] = {"int8", "f32"}; /* the order is options.def's */
        struct report page = {.path = path, .base = base, .backend = params->backend, .ops = &ops};
        page.kv_type = kv_names[params->kv_type];
        page.activations = activation_names[params->activations];
        page.text = s->tokens.v ? NULL : s->prompt ? s->prompt : s->prompt_file ? s->prompt_file : VERIFY_TEXT;
        code = report_write(s->report, &page);
    }
    if (!code) code = print_verdict(&ops.whole, path, base, params->backend);
    kg_ops_report_free(&ops);
    free(base);
    return code;
}

static int verify(const struct settings *s, const char *path, const struct prompt *prompt)
{
    kg_model_params params;
    int code = input_model_params(s, &params);
    if (code) return code;
    if (s->report || s->base) return verify_ops(s, path, &params, prompt);
    kg_verify_report report = {0};
    kg_status status = kg_verify(path, &params, prompt->ids, prompt->n, &report);
    code = status ? print_status(status) : print_verdict(&report, path, NULL, params.backend);
    kg_verify_report_free(&report);
    return code;
}

int command_verify(const struct settings *s)
{
    const char *path;
    int code = input_model_path(s, &path);
    if (code) return code;
    kg_tokenizer *tok = NULL;
    kg_status status = s->tokens.v ? KG_OK : kg_tokenizer_open(&tok, s->tokenizer ? s->tokenizer : path);
    if (status) return print_status(status);
    struct prompt prompt = {0};
    code = input_prompt(s, tok, VERIFY_TEXT, &prompt);
    if (!code) code = verify(s, path, &prompt);
    input_prompt_free(&prompt);
    kg_tokenizer_close(&tok);
    return code;
}
