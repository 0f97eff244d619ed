/* Finds the model file, reads the prompt. Owns the search order for models, nothing else. */
#include "input.h"

#include "models.h"
#include "print.h"
#include "progress.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BUNDLED_MODEL "models/stories-q4_k_m.gguf"
#define MOST_PROMPT_BYTES ((size_t)64 << 20)

/* The bundled model, seen from the program: beside the build folder, one folder further up, or installed. */
static const char *find_bundled(void)
{
    static const char *const relative[] = {"/../" BUNDLED_MODEL, "/../../" BUNDLED_MODEL, "/../share/kagari/" BUNDLED_MODEL};
    static char path[4096 + sizeof BUNDLED_MODEL + 32];
    ssize_t len = readlink("/proc/self/exe", path, 4096);
    char *slash = NULL;
    if (len > 0 && len < 4096) {
        path[len] = 0;
        slash = strrchr(path, '/');
    }
    for (size_t i = 0; slash && i < sizeof relative / sizeof *relative; i++) {
        strcpy(slash, relative[i]);
        if (access(path, R_OK) == 0) return path;
    }
    snprintf(path, sizeof path, "%s", KAGARI_DATA_DIR "/" BUNDLED_MODEL);
    return access(path, R_OK) == 0 ? path : NULL;
}

/* What to do about a model that is not there. */
static const char *kind_of_name(const char *name)
{
    struct model_id id;
    if (name[0] == '/' || name[0] == '.' || strstr(name, ".gguf")) return "";
    if (model_id_parse(&id, name)) return "; kagari download gets it, if it is the name of one";
    return "; kagari list shows the names of models";
}

int input_model_path(const struct settings *s, const char **path)
{
    if (s->from[OPT_model] == FROM_FLAG && s->arg && s->command->bit == INFO)
        return print_error(EXIT_USAGE, "the model file is given twice: '%s' and '%s'", s->model, s->arg);
    if (s->arg && s->command->bit == INFO) *path = s->arg;
    else *path = s->model ? s->model : find_bundled();
    if (!*path) return print_error(EXIT_USAGE, "No model specified: give one with -m FILE or in the environment variable KAGARI_MODEL");
    if (access(*path, F_OK) == 0 || (errno != ENOENT && errno != ENOTDIR)) return 0;
    static char *found;
    free(found);
    int code = models_find(s, *path, &found);
    if (code) return code;
    if (!found) return print_error(EXIT_RUNTIME, "Model file not found: %s%s", *path, kind_of_name(*path));
    *path = found;
    return 0;
}

int input_other_model(const struct settings *s, const char *name, char **path)
{
    *path = NULL;
    if (access(name, F_OK) != 0) {
        int code = models_find(s, name, path);
        if (code) return code;
        if (!*path) return print_error(EXIT_RUNTIME, "Model file not found: %s", name);
        return 0;
    }
    *path = strdup(name);
    return *path ? 0 : print_error(EXIT_RUNTIME, "out of memory");
}

/* A backend that was not asked for on the command line may be replaced. */
static bool may_fall_back(const struct settings *s, const char *backend)
{
    return s->from[OPT_backend] != FROM_FLAG && strcmp(s->fallback, "none") != 0 && strcmp(s->fallback, backend) != 0;
}

/* The backend that was asked for, or the best; NULL if it cannot be used, which is said. */
static const char *find_backend(const struct settings *s)
{
    static char why[320];
    if (!s->backend) {
        const char *best = kg_backend_best(why, sizeof why);
        if (why[0]) print_note(LEVEL_INFO, "no backend was asked for: using %s", why);
        return best;
    }
    kg_device devices[32];
    size_t n;
    const char *backend = s->backend;
    while (kg_devices(backend, devices, sizeof devices / sizeof *devices, &n) != KG_OK) {
        if (!may_fall_back(s, backend)) {
            print_error(EXIT_RUNTIME, "Backend '%s' is not available: %s; the cpu backend needs no device (-b cpu)", backend, kg_error_message());
            return NULL;
        }
        print_note(LEVEL_WARN, "Backend '%s' is not available: %s; using %s instead", backend, kg_error_message(), s->fallback);
        backend = s->fallback;
    }
    return backend;
}

static int gpu_layers(const struct settings *s, const char *backend, int *n)
{
    char *end = NULL;
    *n = -1;
    if (!s->gpu_layers) return 0;
    bool hybrid = strncmp(backend, "hybrid", 6) == 0;
    if (!hybrid && s->from[OPT_gpu_layers] != FROM_FLAG) return 0;
    if (!hybrid) return print_error(EXIT_USAGE, "--gpu-layers goes with -b hybrid or hybrid-f32, not with %s", backend);
    if (strcmp(s->gpu_layers, "auto") == 0) return 0;
    long v = strtol(s->gpu_layers, &end, 10);
    if (*end || end == s->gpu_layers || v < 0 || v > 100000) return print_error(EXIT_USAGE, "--gpu-layers '%s': must be auto or a whole number from 0", s->gpu_layers);
    *n = (int)v;
    return 0;
}

size_t input_adapter(const char *text, double *strength, bool *given)
{
    const char *equals = strrchr(text, '=');
    char *end = NULL;
    const double f = equals ? strtod(equals + 1, &end) : 1;
    *given = equals && end != equals + 1 && !*end; /* else the sign belongs to the file's name */
    *strength = *given ? f : 1;
    return *given ? (size_t)(equals - text) : strlen(text);
}

static int adapters(const struct settings *s, kg_model_params *params)
{
    enum { MOST = INPUT_MOST_ADAPTERS };
    static kg_lora loras[MOST]; /* read by kg_model_open */
    static char paths[MOST][4096];
    if (s->lora.n > MOST) return print_error(EXIT_USAGE, "--lora is given %zu times, at most %d", s->lora.n, MOST);
    for (size_t i = 0; i < s->lora.n; i++) {
        double strength;
        bool given;
        const size_t len = input_adapter(s->lora.v[i], &strength, &given);
        if (len >= sizeof paths[i]) return print_error(EXIT_USAGE, "--lora: the path is too long");
        memcpy(paths[i], s->lora.v[i], len);
        paths[i][len] = 0;
        loras[i] = (kg_lora){paths[i], strength};
    }
    params->loras = loras;
    params->n_loras = s->lora.n;
    return 0;
}

int input_model_params(const struct settings *s, kg_model_params *params)
{
    const char *backend = find_backend(s);
    if (!backend) return EXIT_RUNTIME;
    *params = kg_model_default_params();
    params->backend = backend;
    int code = gpu_layers(s, backend, &params->gpu_layers);
    if (code) return code;
    code = adapters(s, params);
    if (code) return code;
    params->tokenizer = s->tokenizer;
    params->n_threads = (int)s->threads;
    params->kv_type = (kg_kv_type)s->kv_type;
    params->activations = (kg_activations)s->activations;
    params->deterministic = s->deterministic;
    params->n_ctx = s->ctx > s->window ? s->ctx : s->window;
    return 0;
}

/* The order of the words in options.def is the order of the library's enums. */
_Static_assert(KG_KV_F16 == 0 && KG_KV_F32 == 1 && KG_KV_Q8_0 == 2 && KG_ACT_INT8 == 0 && KG_ACT_F32 == 1, "options.def lists these");

static void on_load(void *ctx, uint64_t done, uint64_t total) { progress_show(ctx, done, total); }

int input_open_model(const struct settings *s, kg_model **model, const char **path)
{
    kg_model_params params;
    int code = input_model_params(s, &params);
    if (!code) code = input_model_path(s, path);
    if (code) return code;
    struct progress bar;
    progress_begin(&bar, s, "loading", true, 0);
    bar.last = bar.start + 0.2; /* small models are there before anyone could read it */
    params.progress = on_load;
    params.progress_ctx = &bar;
    kg_status status = kg_model_open(model, *path, &params);
    progress_end(&bar);
    bool device = status == KG_ERR_DEVICE || status == KG_ERR_MEMORY || status == KG_ERR_UNSUPPORTED;
    if (device && may_fall_back(s, params.backend)) {
        print_note(LEVEL_WARN, "%s; using %s instead", kg_error_message(), s->fallback);
        params.backend = s->fallback;
        status = kg_model_open(model, *path, &params);
    }
    progress_end(&bar);
    if (!status)
        print_note(LEVEL_DEBUG, "model %s: %s, %s backend, threads %d, gpu_layers %d%s%s%s", *path, kg_model_arch(*model), kg_model_backend(*model), params.n_threads,
                   params.gpu_layers, params.deterministic ? ", deterministic" : "", s->tokenizer ? ", vocabulary " : "", s->tokenizer ? s->tokenizer : "");
    return status ? print_status(status) : 0;
}

int input_load_cache(const struct settings *s, kg_session *session)
{
    if (!s->load_cache) return 0;
    if (s->save_cache && strcmp(s->load_cache, s->save_cache) == 0 && access(s->load_cache, F_OK) != 0) return 0;
    return kg_session_load(session, s->load_cache) ? print_error(EXIT_RUNTIME, "%s", kg_error_message()) : 0;
}

int input_save_cache(const struct settings *s, kg_session *session)
{
    if (!s->save_cache || kg_session_get_stats(session).n_tokens == 0) return 0;
    return kg_session_save(session, s->save_cache) ? print_error(EXIT_RUNTIME, "%s", kg_error_message()) : 0;
}

/* `what` is for messages. */
static int read_all(FILE *in, const char *what, char **text, size_t *len)
{
    size_t cap = 0, n = 0;
    *text = NULL;
    while (!feof(in)) {
        if (cap - n < 4096) {
            cap = cap ? 2 * cap : 8192;
            char *more = cap <= 2 * MOST_PROMPT_BYTES ? realloc(*text, cap) : NULL;
            if (!more) {
                free(*text);
                *text = NULL;
                return print_error(EXIT_RUNTIME, "%s is longer than %zu bytes", what, n);
            }
            *text = more;
        }
        n += fread(*text + n, 1, cap - n, in);
        if (ferror(in)) {
            free(*text);
            *text = NULL;
            return print_error(EXIT_RUNTIME, "cannot read %s: %s", what, strerror(errno));
        }
    }
    (*text)[n] = 0; /* there is room: the last read was a short one */
    *len = n;
    return 0;
}

int input_read_file(const char *path, char **text, size_t *len)
{
    *text = NULL;
    FILE *in = fopen(path, "rb");
    if (!in) return print_error(EXIT_RUNTIME, "cannot open %s: %s", path, strerror(errno));
    int code = read_all(in, path, text, len);
    fclose(in);
    return code;
}

int input_read_stdin(char **text, size_t *len) { return read_all(stdin, "standard input", text, len); }

/* From the file of --file, or standard input. Free *text. */
static int read_prompt(const struct settings *s, char **text, size_t *len)
{
    int code;
    if (s->prompt_file) {
        code = input_read_file(s->prompt_file, text, len);
    } else {
        if (isatty(STDIN_FILENO))
            return print_error(EXIT_USAGE, "No prompt: give one with -p TEXT, -f FILE or on standard input, e.g. kagari -p \"Once upon a time\"; see kagari --help");
        code = input_read_stdin(text, len);
    }
    if (code) return code;
    if (*len && (*text)[*len - 1] == '\n') --*len;
    if (*len && (*text)[*len - 1] == '\r') --*len;
    if (*len) return 0;
    free(*text);
    *text = NULL;
    if (s->prompt_file) return print_error(EXIT_USAGE, "No prompt: %s is empty", s->prompt_file);
    return print_error(EXIT_USAGE, "No prompt: standard input is empty and there is no -p TEXT or -f FILE");
}

int input_prompt(const struct settings *s, const kg_tokenizer *tok, const char *fallback, struct prompt *out)
{
    *out = (struct prompt){0};
    if (s->prompt_file && (s->tokens.v || s->prompt))
        return print_error(EXIT_USAGE, "--file and %s are both given: the prompt can be only one", s->prompt ? "--prompt" : "--tokens");
    if (s->tokens.v && s->prompt) return print_error(EXIT_USAGE, "--tokens and --prompt are both given: the prompt can be only one");
    if (s->tokens.v) {
        if (s->special) return print_error(EXIT_USAGE, "--special is about text, but the prompt is --tokens");
        *out = (struct prompt){.ids = s->tokens.v, .n = s->tokens.n};
        return 0;
    }
    if (!tok) return print_error(EXIT_RUNTIME, "the model file has no tokenizer: give the prompt with --tokens");
    char *loaded = NULL;
    const char *text = s->prompt || s->prompt_file ? s->prompt : fallback;
    size_t len = text ? strlen(text) : 0;
    if (!text) {
        int code = read_prompt(s, &loaded, &len);
        if (code) return code;
        text = loaded;
    }
    kg_status status = kg_tokenize(tok, text, len, KG_TOKENIZE_BOS | (s->special ? KG_TOKENIZE_SPECIAL : 0), &out->owned, &out->n);
    free(loaded);
    if (status) return print_status(status);
    out->ids = out->owned;
    if (out->n) return 0;
    input_prompt_free(out);
    return print_error(EXIT_USAGE, "the prompt has no tokens: this model adds no begin token, so the text must not be empty");
}

void input_prompt_free(struct prompt *p)
{
    kg_free(p->owned);
    *p = (struct prompt){0};
}
