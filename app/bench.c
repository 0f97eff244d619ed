/* The command bench: how fast prompts are read and tokens are generated, and what share that is of what the machine can do at
 * that moment. Owns the order of measuring; what it measures is the library's.
 *
 * Limits are measured between all prompts and parts of generations (limit, prompt, limit, 16 tokens, limit, 16 tokens, ...), and a share is taken of
 * what the mean of the limits on both sides would have done in the same time. Where these differ by more than 5 %, the machine was not the same
 * before and after, and the part is repeated. */
#include "commands.h"

#include "input.h"
#include "noise.h"
#include "outfile.h"
#include "plot.h"
#include "print.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>
#include <time.h>
#ifdef __linux__
#include <sched.h>
#else
#include <unistd.h>
#endif

/* For each measurement of the limits. A device's clock falls under its largest product and takes a while to rise again, and nobody generates right behind
 * one: there the product is short, and a rest follows. */
#define LIMIT_SECONDS 0.1
#define DEVICE_LIMIT_SECONDS 0.04
static const struct timespec device_rest = {1, 0};
#define MOST_MOVE 0.05 /* of a limit, from one side of a run to the other */
enum { MOST_ATTEMPTS = 4, ODD_CHUNK = 37, PART = 16 }; /* PART: tokens generated between two measurements of the limits */

enum kind { PROMPT, GENERATION, N_KINDS };

/* What is computed and read for a token. */
struct work {
    double layer_weights, head_weights; /* numbers in matrices; without the embedding, from which rows are only looked up */
    double weight_bytes;                /* of the same */
    char main_type[16];                 /* of most of these weights */
};

/* The runs of one kind; all arrays [runs]. */
struct series {
    double *tok_s, *share, *rate; /* rate: operations (prompt) or bytes (generation) per second */
    double *vector_share;         /* of what vector instructions do, where the limit is a matrix unit's; NaN elsewhere */
    int n_repeated, n_unsettled;  /* parts measured anew; runs with a part during which the limit always moved */
};

struct bench {
    const struct settings *s;
    kg_model_params params;
    struct noise_file noise;
    const char *path, *name, *type;
    struct work work;
    kg_model *model;
    kg_meter *meter;        /* NULL: the backend has none */
    kg_session *generation; /* holds the context; the prompts' sessions are new each time */
    int32_t *prompt, *text; /* [prompt_tokens], [context + 1 + generate_tokens]: they share no first token, so nothing is reused */
    float *logits;          /* [n_vocab]: after the prompt */
    double load_s, peak_rss_mb, kv_token_bytes;
    bool bit_identical;
    struct series series[N_KINDS];
    kg_limits *limits; /* [n_limits] */
    size_t n_limits;
    double logits_error, logits_bound; /* NaN: not asked for */
};

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double peak_rss_mb(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
#ifdef __APPLE__
    return (double)u.ru_maxrss * 1e-6;
#else
    return (double)u.ru_maxrss * 1024e-6;
#endif
}

static int n_processors(void)
{
#ifdef __linux__
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) return CPU_COUNT(&set);
    return 1;
#else
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
#endif
}

/* ---- the model ---------------------------------------------------------------------------------------------- */

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

/* used: which part of it a token meets. */
static void count_tensor(struct work *w, const kg_tensor_info *t, double used, bool is_head)
{
    double n = used;
    for (int i = 0; i < t->n_dims; i++) n *= (double)t->dims[i];
    if (is_head) w->head_weights += n;
    else w->layer_weights += n;
    w->weight_bytes += used * (double)t->n_bytes;
}

/* Which part of its experts a token is given to. */
static double experts_used(const kg_file *f)
{
    double count = 0, used = 0;
    for (size_t i = 0; i < kg_file_n_keys(f); i++) {
        char value[32];
        const char *key = kg_file_key(f, i);
        const bool is_used = ends_with(key, ".expert_used_count");
        if (!is_used && !ends_with(key, ".expert_count")) continue;
        kg_file_value(f, i, 1, value, sizeof value);
        *(is_used ? &used : &count) = strtod(value, NULL);
    }
    return count > 0 && used > 0 ? used / count : 1;
}

/* Matrices are weights of products, but for the embeddings; the token embedding is the head too if there is no other. */
static void count_work(const kg_file *f, struct work *w)
{
    struct {
        char type[16];
        double n;
    } sums[64] = {0};
    const double used = experts_used(f);
    kg_tensor_info t, embedding = {0};
    bool has_head = false;
    for (size_t i = 0; kg_file_tensor(f, i, &t) == KG_OK; i++) {
        if (strcmp(t.name, "token_embd.weight") == 0) embedding = t;
        else if (t.n_dims >= 2 && ends_with(t.name, ".weight") && strcmp(t.name, "position_embd.weight") != 0) {
            bool is_head = strcmp(t.name, "output.weight") == 0;
            has_head |= is_head;
            count_tensor(w, &t, t.n_dims == 3 ? used : 1, is_head);
            size_t k = 0;
            while (k < 63 && sums[k].n > 0 && strcmp(sums[k].type, t.type) != 0) k++;
            snprintf(sums[k].type, sizeof sums[k].type, "%s", t.type);
            sums[k].n += (double)t.n_bytes;
        }
    }
    if (!has_head && embedding.name) count_tensor(w, &embedding, 1, true);
    size_t best = 0;
    for (size_t k = 1; k < 64; k++)
        if (sums[k].n > sums[best].n) best = k;
    memcpy(w->main_type, sums[best].type, sizeof w->main_type);
}

static int read_work(struct bench *b)
{
    kg_file *f = NULL;
    kg_status status = kg_file_open(&f, b->path);
    if (status) return print_status(status);
    count_work(f, &b->work);
    kg_file_close(&f);
    return 0;
}

/* Opens the model twice: the first time may have to wait for a disk. */
static int open_model(struct bench *b)
{
    for (int i = 0; i < 2; i++) {
        kg_model_close(&b->model);
        double start = seconds();
        kg_status status = kg_model_open(&b->model, b->path, &b->params);
        b->load_s = seconds() - start;
        if (status) return print_status(status);
    }
    return 0;
}

/* xorshift32 (Marsaglia 2003); ids from 3, as the first are often special. */
static void random_tokens(int32_t *ids, size_t n, int32_t n_vocab, uint32_t x)
{
    int32_t least = n_vocab > 3 ? 3 : 0;
    for (size_t i = 0; i < n; i++) {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        ids[i] = least + (int32_t)(x % (uint32_t)(n_vocab - least));
    }
}

static int make_tokens(struct bench *b)
{
    size_t n_prompt = (size_t)b->s->prompt_tokens, n_text = (size_t)b->s->context + 1, n_new = (size_t)b->s->generate_tokens, runs = (size_t)b->s->runs;
    int32_t n_vocab = kg_model_n_vocab(b->model);
    b->prompt = malloc(n_prompt * sizeof *b->prompt);
    b->text = malloc((n_text + n_new) * sizeof *b->text);
    b->logits = malloc((size_t)n_vocab * sizeof *b->logits);
    b->limits = malloc((1 + runs * (1 + (n_new + PART - 1) / PART) * MOST_ATTEMPTS) * sizeof *b->limits);
    bool good = b->prompt && b->text && b->logits && b->limits;
    for (int i = 0; i < N_KINDS; i++) {
        b->series[i].tok_s = malloc(runs * sizeof(double));
        b->series[i].share = malloc(runs * sizeof(double));
        b->series[i].vector_share = malloc(runs * sizeof(double));
        b->series[i].rate = malloc(runs * sizeof(double));
        good = good && b->series[i].tok_s && b->series[i].share && b->series[i].vector_share && b->series[i].rate;
    }
    if (!good) return print_error(EXIT_RUNTIME, "out of memory");
    random_tokens(b->prompt, n_prompt, n_vocab, 1);
    random_tokens(b->text, n_text, n_vocab, 2);
    if (b->text[0] == b->prompt[0]) b->text[0] = (b->text[0] + 1) % n_vocab;
    return 0;
}

/* ---- runs ------------------------------------------------------------------------------------------------------ */

/* Reads the prompt with a new session; the last token by itself if asked. logits (NULL: not wanted): [n_vocab]. */
static kg_status run_prompt(struct bench *b, int n_batch, bool last_alone, float *logits, double *time)
{
    size_t n = (size_t)b->s->prompt_tokens;
    kg_session_params params = kg_session_default_params();
    params.n_ctx = b->s->prompt_tokens;
    params.n_batch = n_batch;
    kg_session *session = NULL;
    kg_status status = kg_session_new(&session, b->model, &params);
    double start = seconds();
    if (!status && last_alone && n > 1) status = kg_session_sync(session, b->prompt, n - 1);
    if (!status) status = kg_session_sync(session, b->prompt, n);
    *time = seconds() - start;
    if (!status && logits) memcpy(logits, kg_session_logits(session), (size_t)kg_model_n_vocab(b->model) * sizeof *logits);
    kg_session_free(&session);
    return status;
}

static kg_status new_generation(struct bench *b)
{
    kg_session_params params = kg_session_default_params();
    params.n_ctx = b->s->context + b->s->generate_tokens;
    kg_session_free(&b->generation);
    return kg_session_new(&b->generation, b->model, &params);
}

static bool keep_token(void *ctx, int32_t token, const char *text, size_t len)
{
    int32_t **at = ctx;
    (void)text, (void)len;
    if (token >= 0) *(*at)++ = token;
    return true;
}

/* Tokens [from, from + n) of what is generated, as text is: one token by one, each the likeliest after those before, which are known. */
static kg_status run_generation(struct bench *b, int from, int n, double *time)
{
    const size_t before = (size_t)b->s->context + (size_t)from;
    int32_t *at = b->text + before + 1;
    kg_generate_params params = {.max_tokens = (size_t)n, .ignore_end = true, .sampler = kg_sampler_default_params()};
    params.sampler.temperature = 0;
    kg_status status = before ? kg_session_sync(b->generation, b->text, before) : new_generation(b); /* a session keeps what it has computed */
    double start = seconds();
    if (!status) status = kg_generate(b->generation, b->text, before + 1, &params, keep_token, &at, NULL);
    *time = seconds() - start;
    return status;
}

/* Whether the logits after the prompt have the same bits as b->logits when computed in other steps. */
static kg_status check_identity(struct bench *b, int n_batch, bool last_alone)
{
    double time;
    size_t n_bytes = (size_t)kg_model_n_vocab(b->model) * sizeof *b->logits;
    float *other = malloc(n_bytes);
    if (!other) return KG_ERR_MEMORY;
    kg_status status = run_prompt(b, n_batch, last_alone, other, &time);
    if (!status && memcmp(other, b->logits, n_bytes) != 0) b->bit_identical = false;
    free(other);
    return status;
}

/* Runs everything once: caches get warm, memory takes its final size. */
static int warm_up(struct bench *b)
{
    double time;
    kg_status status = run_prompt(b, 0, false, b->logits, &time);
    if (!status) status = new_generation(b);
    if (!status) status = run_generation(b, 0, b->s->generate_tokens, &time);
    if (status) return print_status(status);
    b->kv_token_bytes = (double)kg_session_get_stats(b->generation).kv_token_bytes;
    b->peak_rss_mb = peak_rss_mb();
    b->bit_identical = true;
    status = check_identity(b, ODD_CHUNK, true);
    return status ? print_status(status) : 0;
}

/* Limits of a device, where threads only prepare weights. */
static bool on_device(const struct bench *b) { return b->n_limits > 0 && b->limits[0].copy_gb_s > 0; }

/* The same with one thread; the model is opened anew for it, and left so. */
static int check_threads(struct bench *b)
{
    if (b->params.n_threads == 1 || on_device(b)) return 0;
    kg_model_params one = b->params;
    one.n_threads = 1;
    kg_session_free(&b->generation);
    kg_model_close(&b->model);
    kg_status status = kg_model_open(&b->model, b->path, &one);
    if (!status) status = check_identity(b, 0, false);
    return status ? print_status(status) : 0;
}

/* ---- limits and shares ----------------------------------------------------------------------------------------- */

/* F16 weights are two parts of bf16, and three products of those, where a matrix unit makes that faster than f32. */
static double third_of_bf16(const kg_limits *l) { return l->int8_vector_tops > 0 ? l->bf16_tflops / 3 : 0; }

/* What the matrix products of a prompt are made of; those of a device, of halves, whatever the weights are. */
enum arithmetic { IN_INT8, IN_F32, IN_BF16, IN_THREE_BF16, IN_F16 };
static const char *const arithmetic_names[] = {[IN_INT8] = "int8", [IN_F32] = "f32", [IN_BF16] = "bf16", [IN_THREE_BF16] = "bf16/3", [IN_F16] = "f16"};

static enum arithmetic arithmetic(const struct bench *b)
{
    const char *t = b->work.main_type;
    if (on_device(b)) return IN_F16;
    if (b->params.activations == KG_ACT_F32 || strcmp(t, "F32") == 0 || strcmp(t, "F64") == 0) return IN_F32;
    if (strcmp(t, "F16") == 0) return b->n_limits && third_of_bf16(&b->limits[0]) > b->limits[0].f32_tflops ? IN_THREE_BF16 : IN_F32;
    return strcmp(t, "BF16") == 0 ? IN_BF16 : IN_INT8;
}

/* The limit of a kind of run, in operations or bytes per second. */
static double limit_of(const struct bench *b, enum kind kind, const kg_limits *l)
{
    if (kind == GENERATION) return (on_device(b) ? l->copy_gb_s : l->read_gb_s) * 1e9;
    switch (arithmetic(b)) {
    case IN_F16: return l->f16_tflops * 1e12;
    case IN_INT8: return l->int8_tops * 1e12;
    case IN_F32: return l->f32_tflops * 1e12;
    case IN_THREE_BF16: return third_of_bf16(l) * 1e12;
    default: return fmax(l->bf16_tflops, l->f32_tflops) * 1e12; /* bf16 may be widened where that is faster */
    }
}

/* That of a prompt without the matrix unit, in operations per second; 0: there is none, or it is not used. */
static double vector_limit(const struct bench *b, const kg_limits *l)
{
    const enum arithmetic in = arithmetic(b);
    if (in == IN_INT8) return l->int8_vector_tops * 1e12;
    return l->int8_vector_tops > 0 && in != IN_F32 ? l->f32_tflops * 1e12 : 0;
}

/* What a whole run of a kind computes (prompt) or reads (generation). Of a prompt, only the last token needs the head. */
static double work_of(const struct bench *b, enum kind kind)
{
    const struct work *w = &b->work;
    double n = (double)(kind == PROMPT ? b->s->prompt_tokens : b->s->generate_tokens);
    if (kind == PROMPT) return 2 * (w->layer_weights * n + w->head_weights);
    return n * (w->weight_bytes + b->kv_token_bytes * ((double)b->s->context + (n + 1) / 2));
}

static kg_status measure_limits(struct bench *b)
{
    return b->meter ? kg_meter_run(b->meter, on_device(b) ? DEVICE_LIMIT_SECONDS : LIMIT_SECONDS, &b->limits[b->n_limits++]) : KG_OK;
}

/* Of a run, or a part of one. */
struct effort {
    double time;              /* that it took */
    double possible, vectors; /* work that the limit, and that without the matrix unit, would have done in that time */
    bool unsettled;           /* the limit always moved during some part */
};

/* Tokens [from, from + n) of a run, anew while the limit moves. */
static kg_status measure_part(struct bench *b, enum kind kind, int from, int n, struct effort *sum)
{
    for (int attempt = 1;; attempt++) {
        double time;
        if (on_device(b)) nanosleep(&device_rest, NULL);
        kg_status status = kind == PROMPT ? run_prompt(b, 0, false, NULL, &time) : run_generation(b, from, n, &time);
        if (!status) status = measure_limits(b);
        if (status) return status;
        const kg_limits *limits = b->meter ? &b->limits[b->n_limits - 2] : NULL; /* before the part and after it */
        const double before = limits ? limit_of(b, kind, &limits[0]) : 1, after = limits ? limit_of(b, kind, &limits[1]) : 1;
        const bool still = fabs(after / before - 1) <= MOST_MOVE;
        if (!still && attempt < MOST_ATTEMPTS) {
            b->series[kind].n_repeated++;
            continue;
        }
        sum->unsettled |= !still;
        sum->time += time;
        if (limits) sum->possible += time * 0.5 * (before + after), sum->vectors += time * 0.5 * (vector_limit(b, &limits[0]) + vector_limit(b, &limits[1]));
        return KG_OK;
    }
}

/* Run i of a kind. A machine that is shared changes within seconds, so a generation is measured in parts. */
static kg_status measure(struct bench *b, enum kind kind, int i)
{
    struct series *x = &b->series[kind];
    struct effort sum = {0};
    const int n = kind == PROMPT ? b->s->prompt_tokens : b->s->generate_tokens, part = kind == PROMPT || on_device(b) || !b->meter ? n : PART;
    for (int from = 0; from < n; from += part) {
        kg_status status = measure_part(b, kind, from, n - from < part ? n - from : part, &sum);
        if (status) return status;
    }
    const double work = work_of(b, kind);
    x->tok_s[i] = n / sum.time;
    x->rate[i] = work / sum.time;
    x->share[i] = sum.possible > 0 ? work / sum.possible : NAN;
    x->vector_share[i] = kind == PROMPT && sum.vectors > 0 ? work / sum.vectors : NAN;
    x->n_unsettled += sum.unsettled;
    return KG_OK;
}

/* ---- numbers ------------------------------------------------------------------------------------------------------ */

static int by_size(const void *a, const void *b)
{
    double x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return x < y ? -1 : x > y;
}

struct spread {
    double least, median, most; /* NaN: of nothing */
};

/* stride: bytes from one double to the next. */
static struct spread spread_of(const void *values, size_t stride, size_t n)
{
    double *v = n ? malloc(n * sizeof *v) : NULL;
    struct spread out = {NAN, NAN, NAN};
    if (!v) return out;
    for (size_t i = 0; i < n; i++) memcpy(&v[i], (const char *)values + i * stride, sizeof *v);
    qsort(v, n, sizeof *v, by_size);
    out = (struct spread){v[0], 0.5 * (v[(n - 1) / 2] + v[n / 2]), v[n - 1]};
    free(v);
    return out;
}

static struct spread rates(const struct bench *b, enum kind k) { return spread_of(b->series[k].tok_s, sizeof(double), (size_t)b->s->runs); }
static struct spread work_rates(const struct bench *b, enum kind k) { return spread_of(b->series[k].rate, sizeof(double), (size_t)b->s->runs); }
static struct spread shares(const struct bench *b, enum kind k) { return spread_of(b->series[k].share, sizeof(double), (size_t)b->s->runs); }
static struct spread vector_shares(const struct bench *b) { return spread_of(b->series[PROMPT].vector_share, sizeof(double), (size_t)b->s->runs); }

/* Medians of all measurements of the limits. */
static kg_limits median_limits(const struct bench *b)
{
    const size_t step = sizeof *b->limits;
    return (kg_limits){
        .read_gb_s = spread_of(&b->limits->read_gb_s, step, b->n_limits).median,
        .int8_tops = spread_of(&b->limits->int8_tops, step, b->n_limits).median,
        .int8_vector_tops = spread_of(&b->limits->int8_vector_tops, step, b->n_limits).median,
        .f32_tflops = spread_of(&b->limits->f32_tflops, step, b->n_limits).median,
        .bf16_tflops = spread_of(&b->limits->bf16_tflops, step, b->n_limits).median,
        .copy_gb_s = spread_of(&b->limits->copy_gb_s, step, b->n_limits).median,
        .f16_tflops = spread_of(&b->limits->f16_tflops, step, b->n_limits).median,
        .with = b->n_limits ? b->limits[0].with : "",
    };
}

struct number {
    const char *key;
    double value; /* NaN: there is none */
};
enum { MOST_NUMBERS = 40 };

static double measured(double limit) { return limit > 0 ? limit : NAN; }

/* Everything that is a number, for JSON and CSV. */
static size_t list_numbers(const struct bench *b, struct number out[MOST_NUMBERS])
{
    const struct settings *s = b->s;
    struct spread p = rates(b, PROMPT), g = rates(b, GENERATION), ps = shares(b, PROMPT), gs = shares(b, GENERATION);
    struct spread pr = work_rates(b, PROMPT), gr = work_rates(b, GENERATION);
    kg_limits l = median_limits(b);
    const struct number all[] = {
        {"threads", b->params.n_threads},
        {"prompt", (double)s->prompt_tokens},
        {"generate", (double)s->generate_tokens},
        {"context", (double)s->context},
        {"runs", (double)s->runs},
        {"prompt_tok_s", p.median},
        {"prompt_tok_s_min", p.least},
        {"prompt_tok_s_max", p.most},
        {"prompt_tops", pr.median * 1e-12},
        {"prompt_share", ps.median},
        {"prompt_share_min", ps.least},
        {"prompt_share_max", ps.most},
        {"prompt_vector_share", vector_shares(b).median},
        {"generation_tok_s", g.median},
        {"generation_tok_s_min", g.least},
        {"generation_tok_s_max", g.most},
        {"generation_gb_s", gr.median * 1e-9},
        {"generation_share", gs.median},
        {"generation_share_min", gs.least},
        {"generation_share_max", gs.most},
        {"read_gb_s", measured(l.read_gb_s)},
        {"int8_tops", measured(l.int8_tops)},
        {"int8_vector_tops", measured(l.int8_vector_tops)},
        {"f32_tflops", measured(l.f32_tflops)},
        {"bf16_tflops", measured(l.bf16_tflops)},
        {"copy_gb_s", measured(l.copy_gb_s)},
        {"f16_tflops", measured(l.f16_tflops)},
        {"load_s", b->load_s},
        {"peak_rss_mb", b->peak_rss_mb},
        {"weight_bytes", b->work.weight_bytes},
        {"weights", b->work.layer_weights + b->work.head_weights},
        {"kv_token_bytes", b->kv_token_bytes},
        {"repeated", b->series[PROMPT].n_repeated + b->series[GENERATION].n_repeated},
        {"unsettled", b->series[PROMPT].n_unsettled + b->series[GENERATION].n_unsettled},
        {"logits_error", b->logits_error},
        {"logits_bound", b->logits_bound},
    };
    _Static_assert(sizeof all / sizeof *all <= MOST_NUMBERS, "room for all");
    memcpy(out, all, sizeof all);
    return sizeof all / sizeof *all;
}

static const char *const kv_names[] = {[KG_KV_F16] = "f16", [KG_KV_F32] = "f32", [KG_KV_Q8_0] = "q8_0"};
static const char *const activation_names[] = {[KG_ACT_INT8] = "int8", [KG_ACT_F32] = "f32"};

/* Everything that is a text. */
static void list_texts(const struct bench *b, const char *texts[6][2])
{
    const char *all[6][2] = {{"model", b->name},
                             {"type", b->type},
                             {"backend", b->params.backend},
                             {"kv_type", kv_names[b->params.kv_type]},
                             {"activations", activation_names[b->params.activations]},
                             {"arithmetic", arithmetic_names[arithmetic(b)]}};
    memcpy(texts, all, sizeof all);
}

/* ---- output --------------------------------------------------------------------------------------------------------- */

static void print_list(const char *key, const double *v, int64_t n)
{
    printf(",\n  \"%s\": [", key);
    for (int64_t i = 0; i < n; i++) {
        if (isfinite(v[i])) printf("%s%.6g", i ? ", " : "", v[i]);
        else printf("%snull", i ? ", " : "");
    }
    putchar(']');
}

static void print_json_report(const struct bench *b)
{
    const char *texts[6][2];
    struct number numbers[MOST_NUMBERS];
    size_t n = list_numbers(b, numbers);
    list_texts(b, texts);
    putchar('{');
    for (size_t i = 0; i < 6; i++) {
        printf("%s\n  \"%s\": ", i ? "," : "", texts[i][0]);
        print_json(stdout, texts[i][1], strlen(texts[i][1]));
    }
    printf(",\n  \"instructions\": \"%s\"", median_limits(b).with);
    for (size_t i = 0; i < n; i++) {
        if (isfinite(numbers[i].value)) printf(",\n  \"%s\": %.10g", numbers[i].key, numbers[i].value);
        else printf(",\n  \"%s\": null", numbers[i].key);
    }
    printf(",\n  \"bit_identical\": %s,\n  \"deterministic\": %s", b->bit_identical ? "true" : "false", b->params.deterministic ? "true" : "false");
    print_list("prompt_runs_tok_s", b->series[PROMPT].tok_s, b->s->runs);
    print_list("prompt_runs_share", b->series[PROMPT].share, b->s->runs);
    print_list("generation_runs_tok_s", b->series[GENERATION].tok_s, b->s->runs);
    print_list("generation_runs_share", b->series[GENERATION].share, b->s->runs);
    printf("\n}\n");
}

/* A comma in a text would end its column. */
static void print_csv_text(const char *s)
{
    for (; *s; s++) putchar(*s == ',' || *s == '"' || *s == '\n' || *s == '\r' ? '_' : *s);
    putchar(',');
}

static void print_csv_report(const struct bench *b)
{
    const char *texts[6][2];
    struct number numbers[MOST_NUMBERS];
    size_t n = list_numbers(b, numbers);
    list_texts(b, texts);
    for (size_t i = 0; i < 6; i++) printf("%s,", texts[i][0]);
    for (size_t i = 0; i < n; i++) printf("%s,", numbers[i].key);
    printf("bit_identical\n");
    for (size_t i = 0; i < 6; i++) print_csv_text(texts[i][1]);
    for (size_t i = 0; i < n; i++) {
        if (isfinite(numbers[i].value)) printf("%.10g,", numbers[i].value);
        else putchar(',');
    }
    printf("%s\n", b->bit_identical ? "true" : "false");
}

/* The share of the limit that both kinds of runs reached, or their rates where the backend has no limits. */
static int write_plot(const struct bench *b)
{
    char labels[N_KINDS][48], notes[N_KINDS][64], title[320], subtitle[160];
    double median[N_KINDS], least[N_KINDS], most[N_KINDS];
    for (int k = 0; k < N_KINDS; k++) {
        struct spread rate = rates(b, (enum kind)k), x = b->n_limits > 0 ? shares(b, (enum kind)k) : rate;
        median[k] = x.median, least[k] = x.least, most[k] = x.most;
        if (k == PROMPT) snprintf(labels[k], sizeof labels[k], "prompt of %lld", (long long)b->s->prompt_tokens);
        else snprintf(labels[k], sizeof labels[k], "generation of %lld", (long long)b->s->generate_tokens);
        if (b->n_limits > 0) snprintf(notes[k], sizeof notes[k], "%.1f %%, %.4g tokens/s", 100 * x.median, rate.median);
        else snprintf(notes[k], sizeof notes[k], "%.4g tokens/s", rate.median);
    }
    const char *label[N_KINDS] = {labels[0], labels[1]}, *note[N_KINDS] = {notes[0], notes[1]}, *name = strrchr(b->name, '/');
    snprintf(title, sizeof title, "%.200s, %s, %s backend, %d threads", name ? name + 1 : b->name, b->type, b->params.backend, b->params.n_threads);
    snprintf(subtitle, sizeof subtitle, "Median, lowest and highest of %lld runs; prompt: share of the %s peak, generation: of the %s bandwidth", (long long)b->s->runs, arithmetic_names[arithmetic(b)], on_device(b) ? "copy" : "read");
    struct plot_series s = {.name = "", .y = median, .low = least, .high = most, .n = N_KINDS};
    struct plot p = {.title = title, .subtitle = subtitle, .y_label = "share of the machine's limit, measured just before and after", .percent = b->n_limits > 0,
                     .labels = label, .n_labels = N_KINDS, .notes = note, .series = &s, .n_series = 1};
    if (!b->n_limits) {
        snprintf(subtitle, sizeof subtitle, "Median, lowest and highest of %lld runs", (long long)b->s->runs);
        p.y_label = "tokens/s";
    }
    struct outfile out;
    int code = outfile_open(&out, b->s->plot);
    if (code) return code;
    plot_svg(out.f, &p);
    return outfile_close(&out, 0);
}

static bool for_people(const struct bench *b) { return !b->s->json && !b->s->csv; }

static void print_start(const struct bench *b)
{
    const struct settings *s = b->s;
    printf("%s, %s: %.1f MB of weights are multiplied, most of them %s\n", b->name, b->type, b->work.weight_bytes * 1e-6, b->work.main_type);
    printf("%s backend, %d threads, KV cache %s, activations %s%s\n", b->params.backend, b->params.n_threads, kv_names[b->params.kv_type],
           activation_names[b->params.activations], b->params.deterministic ? ", deterministic" : "");
    printf("loaded in %.2f s, peak memory %.0f MB\n", b->load_s, b->peak_rss_mb);
    if (b->meter) printf("limits measured with %s\n", b->limits[0].with);
    printf("\n            prompt of %-6lld                        generation of %lld after %lld\n", (long long)s->prompt_tokens, (long long)s->generate_tokens,
           (long long)s->context);
    char peak[32];
    snprintf(peak, sizeof peak, "of %s peak", arithmetic_names[arithmetic(b)]);
    printf("run       tokens/s     %s  %-14s    tokens/s       GB/s  of %s bandwidth\n", arithmetic(b) == IN_INT8 ? "  Top/s" : "Tflop/s", peak, on_device(b) ? "copy" : "read");
}

/* Of prompt, then of generation: tokens/s, operations or bytes per second, share. */
static void print_row(const char *label, const double value[6])
{
    printf("%-7s", label);
    for (int i = 0; i < 6; i += 3) {
        printf(" %10.2f %10.4g ", value[i], value[i + 1] * (i ? 1e-9 : 1e-12));
        if (isfinite(value[i + 2])) printf("%10.1f %%", 100 * value[i + 2]);
        else printf("%12s", "-");
        if (i == 0) printf("  ");
    }
    putchar('\n');
    fflush(stdout);
}

static void print_run(const struct bench *b, int i)
{
    char label[16];
    snprintf(label, sizeof label, "%d", i + 1);
    const struct series *p = &b->series[PROMPT], *g = &b->series[GENERATION];
    print_row(label, (double[]){p->tok_s[i], p->rate[i], p->share[i], g->tok_s[i], g->rate[i], g->share[i]});
}

static void print_summary(const struct bench *b)
{
    struct spread p = rates(b, PROMPT), ps = shares(b, PROMPT), g = rates(b, GENERATION), gs = shares(b, GENERATION);
    struct spread pr = work_rates(b, PROMPT), gr = work_rates(b, GENERATION);
    print_row("lowest", (double[]){p.least, pr.least, ps.least, g.least, gr.least, gs.least});
    print_row("median", (double[]){p.median, pr.median, ps.median, g.median, gr.median, gs.median});
    print_row("highest", (double[]){p.most, pr.most, ps.most, g.most, gr.most, gs.most});
    putchar('\n');
    if (on_device(b)) {
        kg_limits l = median_limits(b);
        printf("limits (medians): copy %.1f GB/s, bytes read and written; f16 %.4g Tflop/s\n", l.copy_gb_s, l.f16_tflops);
    } else if (b->n_limits) {
        kg_limits l = median_limits(b);
        printf("limits (medians): read %.2f GB/s, int8 %.3f Top/s, f32 %.3f Tflop/s, bf16 %.3f Tflop/s\n", l.read_gb_s, l.int8_tops, l.f32_tflops,
               l.bf16_tflops);
        struct spread v = vector_shares(b);
        if (l.int8_vector_tops > 0) printf("without the matrix unit: int8 %.3f Top/s\n", l.int8_vector_tops);
        if (isfinite(v.median))
            printf("prompts reach %.1f %% (%.1f to %.1f) of the %s peak without it\n", 100 * v.median, 100 * v.least, 100 * v.most, arithmetic(b) == IN_INT8 ? "int8" : "f32");
    }
    int repeated = b->series[PROMPT].n_repeated + b->series[GENERATION].n_repeated;
    int unsettled = b->series[PROMPT].n_unsettled + b->series[GENERATION].n_unsettled;
    if (repeated) printf("%d repetitions of prompts or parts of generations during which a limit moved by more than %.0f %%\n", repeated, 100 * MOST_MOVE);
    if (unsettled) printf("%d runs stand although it still did after %d attempts at a part of them\n", unsettled, (int)MOST_ATTEMPTS);
    printf("logits after the prompt, in steps of 512, of %d and 1", ODD_CHUNK);
    if (b->params.n_threads > 1 && !on_device(b)) printf(", and with one thread");
    printf(": %s\n", b->bit_identical ? "bit-identical" : on_device(b) && !b->params.deterministic ? "not bit-identical: that takes --deterministic" : "NOT bit-identical");
    if (isfinite(b->logits_error)) printf("relative error of the logits against float64: %.3e (bound %.3e)\n", b->logits_error, b->logits_bound);
}

/* ---- the command ------------------------------------------------------------------------------------------------------ */

static int check_settings(const struct settings *s)
{
    if (s->from[OPT_model] == FROM_FLAG && s->given[OPT_shape]) return print_error(EXIT_USAGE, "--model and --shape are both given: what is measured is a file or noise");
    if (s->given[OPT_type] && !s->given[OPT_shape]) return print_error(EXIT_USAGE, "--type is the type of a model of noise: it needs --shape");
    if (s->noise_out && !s->given[OPT_shape]) return print_error(EXIT_USAGE, "--out writes a model of noise: it needs --shape");
    if (s->noise_out && s->plot) return print_error(EXIT_USAGE, "--out measures nothing: there is nothing for --plot");
    if (s->json && s->csv) return print_error(EXIT_USAGE, "--json and --csv are both given: the report can be only one");
    return 0;
}

static int prepare(struct bench *b)
{
    const struct settings *s = b->s;
    int code = input_model_params(s, &b->params);
    if (code) return code;
    if (!b->params.n_threads) b->params.n_threads = n_processors();
    if (s->given[OPT_shape]) {
        code = noise_open(&b->noise, (enum noise_shape)s->shape, s->type);
        b->path = b->noise.path;
        b->name = noise_shape_name((enum noise_shape)s->shape);
        b->type = s->type;
    } else {
        code = input_model_path(s, &b->path);
        b->name = b->path;
        b->type = b->work.main_type;
    }
    if (!code) code = read_work(b);
    if (!code) code = open_model(b);
    if (!code) code = make_tokens(b);
    if (!code) code = warm_up(b);
    if (code) return code;
    kg_status status = kg_meter_open(&b->meter, b->params.backend, b->params.n_threads);
    if (status && status != KG_ERR_UNSUPPORTED) return print_status(status);
    status = measure_limits(b); /* the first is thrown away: the processor may have slept */
    b->n_limits = 0;
    return status ? print_status(status) : 0;
}

static int measure_all(struct bench *b)
{
    kg_status status = measure_limits(b);
    if (!status && for_people(b)) print_start(b);
    for (int i = 0; i < b->s->runs && !status; i++) {
        status = measure(b, PROMPT, i);
        if (!status) status = measure(b, GENERATION, i);
        if (!status && for_people(b)) print_run(b, i);
    }
    kg_meter_close(&b->meter);
    return status ? print_status(status) : 0;
}

static int verify(struct bench *b)
{
    b->logits_error = b->logits_bound = NAN;
    size_t n = (size_t)b->s->verify_tokens;
    if (!n) return 0;
    int32_t *tokens = malloc(n * sizeof *tokens);
    if (!tokens) return print_error(EXIT_RUNTIME, "out of memory");
    random_tokens(tokens, n, kg_model_n_vocab(b->model), 3);
    kg_session_free(&b->generation);
    kg_model_close(&b->model);
    kg_verify_report report = {0};
    kg_status status = kg_verify(b->path, &b->params, tokens, n, &report);
    b->logits_error = report.logits_error;
    b->logits_bound = report.logits_bound;
    kg_verify_report_free(&report);
    free(tokens);
    return status ? print_status(status) : 0;
}

static void release(struct bench *b)
{
    kg_meter_close(&b->meter);
    kg_session_free(&b->generation);
    kg_model_close(&b->model);
    noise_close(&b->noise);
    free(b->prompt);
    free(b->text);
    free(b->logits);
    free(b->limits);
    for (int i = 0; i < N_KINDS; i++) {
        free(b->series[i].tok_s);
        free(b->series[i].share);
        free(b->series[i].vector_share);
        free(b->series[i].rate);
    }
}

int command_bench(const struct settings *s)
{
    int code = check_settings(s);
    if (code) return code;
    if (s->noise_out) return noise_write(s->noise_out, (enum noise_shape)s->shape, s->type);
    struct bench b = {.s = s, .noise.fd = -1};
    code = prepare(&b);
    if (!code) code = measure_all(&b);
    if (!code) code = check_threads(&b);
    if (!code) code = verify(&b);
    if (!code) {
        if (s->json) print_json_report(&b);
        else if (s->csv) print_csv_report(&b);
        else print_summary(&b);
        if (s->plot) code = write_plot(&b);
    }
    release(&b);
    return code;
}
