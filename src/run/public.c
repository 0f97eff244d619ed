/* kg_model: a file, its program, its tokenizer and the backend that runs it. Immutable after opening but for the KV pool and the
 * list of sessions. */
#include "run/run.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

const char *kg_backend_name(size_t i, const char **what)
{
    const struct backend *b = backend_at(i);
    if (b && what) *what = b->what;
    return b ? b->name : NULL;
}

kg_status kg_devices(const char *backend, kg_device *out, size_t most, size_t *n)
{
    *n = 0;
    if (!backend || (!out && most)) return status_set(KG_ERR_ARGUMENT, "no backend or no place for its devices");
    const struct backend *b = backend_find(backend);
    if (!b) return KG_ERR_UNSUPPORTED;
    if (!b->devices) return KG_OK;
    struct backend_device list[32];
    int found = 0;
    KG_TRY(b->devices(list, (int)MIN(most, COUNT_OF(list)), &found));
    for (int i = 0; i < found; i++) {
        kg_device *d = &out[i];
        *d = (kg_device){.memory = list[i].memory, .memory_free = list[i].memory_free, .is_gpu = list[i].is_gpu, .chosen = list[i].chosen, .usable = !list[i].why[0]};
        memcpy(d->name, list[i].name, sizeof list[i].name);
        memcpy(d->driver, list[i].driver, sizeof list[i].driver);
        memcpy(d->why, list[i].why, sizeof list[i].why);
    }
    *n = (size_t)found;
    return KG_OK;
}

kg_status kg_device_check(const char *backend)
{
    const struct backend_params params = {.n_threads = os_n_processors(), .max_batch = MAX_BATCH};
    const struct backend *b = backend ? backend_find(backend) : NULL;
    if (!b) return backend ? KG_ERR_UNSUPPORTED : status_set(KG_ERR_ARGUMENT, "no backend");
    return backend_check(b, NULL, &params, true);
}

const char *kg_backend_best(char *why, size_t size) { return backend_best(why, size)->name; }

kg_model_params kg_model_default_params(void)
{
    return (kg_model_params){.backend = "cpu", .n_threads = 0, .kv_type = KG_KV_F16, .activations = KG_ACT_INT8, .gpu_layers = -1};
}

static kg_status check_params(const kg_model_params *p)
{
    if (p->n_threads < 0 || p->n_threads > 1024)
        return status_set(KG_ERR_ARGUMENT, "%d threads: must be 0 (all processors) to 1024", p->n_threads);
    if ((unsigned)p->kv_type > KG_KV_Q8_0) return status_set(KG_ERR_ARGUMENT, "KV type %d is unknown", (int)p->kv_type);
    for (size_t i = 0; i < p->n_loras; i++)
        if (!isfinite(p->loras[i].strength))
            return status_set(KG_ERR_ARGUMENT, "%s: the adapter's strength is not a finite number", p->loras[i].path ? p->loras[i].path : "?");
    if ((unsigned)p->activations > KG_ACT_F32) return status_set(KG_ERR_ARGUMENT, "activation type %d is unknown", (int)p->activations);
    return KG_OK;
}

static kg_status open_backend(kg_model *m, const kg_model_params *params)
{
    struct backend_params bp = {
        .n_threads = params->n_threads ? params->n_threads : os_n_processors(),
        .kv_type = params->kv_type,
        .activations = params->activations,
        .deterministic = params->deterministic,
        .max_batch = m->model.program.is_encoder ? (int)MIN(MAX(m->model.program.n_ctx, (int64_t)1), (int64_t)MAX_ENCODED) : MAX_BATCH,
        .gpu_layers = params->gpu_layers,
        .progress = params->progress,
        .progress_ctx = params->progress_ctx,
    };
    KG_TRY(backend_open(m->backend, &m->ctx, &m->model.program, &bp));
    kv_pool_init(&m->kv, m->backend, m->ctx);
    m->kv_type = bp.kv_type;
    m->activations = bp.activations;
    return KG_OK;
}

/* Another vocabulary than the model's: none of its ids may be beyond the model's. */
static kg_status open_tokenizer(kg_model *m, const char *path)
{
    KG_TRY(kg_tokenizer_open(&m->tokenizer, path));
    int32_t n = kg_tokenizer_n_vocab(m->tokenizer), n_model = kg_model_n_vocab(m);
    return n <= n_model ? KG_OK : status_set(KG_ERR_ARGUMENT, "%s has %d tokens, the model %d: it is not for this model", path, (int)n, (int)n_model);
}

kg_status kg_model_open(kg_model **out, const char *path, const kg_model_params *params) { return model_open_with(out, path, params, NULL, NULL); }

kg_status model_open_with(kg_model **out, const char *path, const kg_model_params *params, void (*fn)(void *ctx, struct program *p), void *ctx)
{
    kg_model_params p = params ? *params : kg_model_default_params();
    if (!out) return status_set(KG_ERR_ARGUMENT, "no place to store the model");
    *out = NULL;
    if (!path) return status_set(KG_ERR_ARGUMENT, "no path");
    KG_TRY(check_params(&p));
    const struct backend *backend = backend_find(p.backend ? p.backend : "cpu");
    if (!backend) return KG_ERR_UNSUPPORTED;
    kg_model *m = calloc(1, sizeof *m);
    if (!m) return status_set(KG_ERR_MEMORY, "out of memory");
    m->backend = backend;
    kg_status status = model_open_for(&m->model, path, p.loras, p.n_loras, p.n_ctx);
    if (status != KG_OK) goto fail;
    m->strengths = malloc((p.n_loras + 1) * sizeof *m->strengths);
    for (size_t i = 0; m->strengths && i < p.n_loras; i++) m->strengths[i] = p.loras[i].strength;
    if (!m->strengths) status = status_set(KG_ERR_MEMORY, "out of memory");
    if (status == KG_OK) status = p.tokenizer ? open_tokenizer(m, p.tokenizer) : tokenizer_new(&m->tokenizer, m->model.file);
    if (status == KG_OK && fn) fn(ctx, &m->model.program);
    if (status == KG_OK) status = open_backend(m, &p);
    if (status != KG_OK) goto fail_named;
    m->has_lock = pthread_mutex_init(&m->lock, NULL) == 0;
    if (!m->has_lock) {
        status = status_set(KG_ERR_MEMORY, "the system gives no mutex");
        goto fail;
    }
    *out = m;
    return KG_OK;
fail_named:
    if (strncmp(kg_error_message(), path, strlen(path))) status_prefix(status, "%s", path);
fail:
    kg_model_close(&m);
    return status;
}

void kg_model_close(kg_model **model)
{
    if (!model || !*model) return;
    kg_model *m = *model;
    assert(!m->sessions); /* the caller promised to free them first */
    kv_pool_free(&m->kv);
    if (m->ctx) m->backend->close(m->ctx);
    if (m->has_lock) pthread_mutex_destroy(&m->lock);
    kg_tokenizer_close(&m->tokenizer);
    model_close(&m->model);
    free(m->strengths);
    free(m);
    *model = NULL;
}

const kg_tokenizer *kg_model_tokenizer(const kg_model *model) { return model->tokenizer; }
const char *kg_model_arch(const kg_model *model) { return model->model.arch->name; }
const char *kg_model_backend(const kg_model *model) { return model->backend->name; }
int32_t kg_model_n_vocab(const kg_model *model) { return model->model.program.n_vocab; }
int32_t kg_model_n_layers(const kg_model *model) { return model->model.program.n_layers; }
size_t kg_model_n_loras(const kg_model *model) { return model->model.n_adapters; }
const char *kg_model_lora(const kg_model *model, size_t i) { return i < model->model.n_adapters ? model->model.adapters[i]->path : NULL; }
int64_t kg_model_n_ctx(const kg_model *model) { return model->model.program.n_ctx; }
