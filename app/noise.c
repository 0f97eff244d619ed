/* Writes GGUF files of noise, directly in quantized blocks: random bytes, with the scale of each block set so that a weight has a
 * standard deviation of about 0.5 / sqrt(inputs) and activations stay as large as they are. */
#include "noise.h"

#include "options.h"
#include "print.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "GGUF is written as numbers lie in memory");

static const struct shape {
    const char *name;
    uint32_t n_vocab, dim, n_layers, n_heads, n_kv_heads, ffn, n_ctx;
    float rope_base;
    uint32_t n_experts, n_used; /* of each layer, of width ffn; 0: none */
} shapes[NOISE_N_SHAPES] = {
    [NOISE_TINYLLAMA] = {"tinyllama-1.1b", 32000, 2048, 22, 32, 4, 5632, 2048, 1e4f, 0, 0},
    [NOISE_LLAMA3_1B] = {"llama3-1b", 128256, 2048, 16, 32, 8, 8192, 8192, 5e5f, 0, 0},
    [NOISE_LLAMA3_8B] = {"llama3-8b", 128256, 4096, 32, 32, 8, 14336, 8192, 5e5f, 0, 0},
    [NOISE_OLMOE] = {"olmoe-1b-7b", 50304, 2048, 16, 16, 16, 1024, 4096, 1e4f, 64, 8},
    [NOISE_TINY_EXPERTS] = {"tiny-experts", 512, 256, 2, 4, 2, 256, 512, 1e4f, 8, 3},
    [NOISE_TINY] = {"tiny", 512, 256, 2, 4, 2, 512, 512, 1e4f, 0, 0},
};

const char *noise_shape_name(enum noise_shape shape) { return shapes[shape].name; }

/* How the scale of a block is stored. */
enum scale { PLAIN_F32, PLAIN_F16, PLAIN_BF16, SCALE_F16, SCALE_F32, SCALE_IQ1_M, SCALE_E8M0, SCALE_E4M3 };

/* Sizes, and ids of types and file types (-1: none): the GGUF specification. `rms`: root mean square of a weight where the bytes
 * are random and the scale is 1. */
static const struct type {
    const char *name;
    uint32_t id;
    int file_type, block, n_bytes;
    enum scale scale;
    int scale_at; /* bytes into the block */
    double rms;
    int min_at; /* of types with a minimum too: that which makes the mean 0 is `min` times the scale */
    double min;
} types[] = {
    {"f32", 0, 0, 1, 4, PLAIN_F32, 0, 1, 0, 0},
    {"f16", 1, 1, 1, 2, PLAIN_F16, 0, 1, 0, 0},
    {"bf16", 30, 32, 1, 2, PLAIN_BF16, 0, 1, 0, 0},
    {"q4_0", 2, 2, 32, 18, SCALE_F16, 0, 4.638, 0, 0},
    {"q4_1", 3, 3, 32, 20, SCALE_F16, 0, 4.61, 2, -7.5},
    {"q5_0", 6, 8, 32, 22, SCALE_F16, 0, 9.247, 0, 0},
    {"q5_1", 7, 9, 32, 24, SCALE_F16, 0, 9.233, 2, -15.5},
    {"q8_0", 8, 7, 32, 34, SCALE_F16, 0, 73.9, 0, 0},
    {"q8_1", 9, -1, 32, 36, SCALE_F16, 0, 73.9, 0, 0},
    {"q2_k", 10, 10, 256, 84, SCALE_F16, 80, 13.87, 82, 1.5},
    {"q3_k", 11, 12, 256, 110, SCALE_F16, 108, 43.37, 0, 0},
    {"q4_k", 12, 14, 256, 144, SCALE_F16, 0, 258.5, 2, 7.5},
    {"q5_k", 13, 16, 256, 176, SCALE_F16, 0, 527.7, 2, 15.5},
    {"q6_k", 14, 18, 256, 210, SCALE_F16, 208, 1364, 0, 0},
    {"q8_k", 15, -1, 256, 292, SCALE_F32, 0, 73.9, 0, 0},
    {"iq2_xxs", 16, 19, 256, 66, SCALE_F16, 0, 53.28, 0, 0},
    {"iq2_xs", 17, 20, 256, 74, SCALE_F16, 0, 55.97, 0, 0},
    {"iq3_xxs", 18, 23, 256, 98, SCALE_F16, 0, 142.3, 0, 0},
    {"iq1_s", 19, 24, 256, 50, SCALE_F16, 0, 7.206, 0, 0},
    {"iq4_nl", 20, 25, 32, 18, SCALE_F16, 0, 67.41, 0, 0},
    {"iq3_s", 21, 26, 256, 110, SCALE_F16, 0, 140, 0, 0},
    {"iq2_s", 22, 28, 256, 82, SCALE_F16, 0, 56.36, 0, 0},
    {"iq4_xs", 23, 30, 256, 136, SCALE_F16, 0, 1248, 0, 0},
    {"iq1_m", 29, 31, 256, 56, SCALE_IQ1_M, 48, 7.204, 0, 0},
    {"tq1_0", 34, 36, 256, 54, SCALE_F16, 52, 0.8174, 0, 0},
    {"tq2_0", 35, 37, 256, 66, SCALE_F16, 64, 1.225, 0, 0},
    {"mxfp4", 39, -1, 32, 17, SCALE_E8M0, 0, 5.85, 0, 0},
    {"nvfp4", 40, -1, 64, 36, SCALE_E4M3, 0, 5.85, 0, 0},
    {"q1_0", 41, -1, 128, 18, SCALE_F16, 0, 1, 0, 0},
    {"q2_0", 42, -1, 64, 18, SCALE_F16, 0, 1.224, 0, 0},
};

static const struct type *find_type(const char *name)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcasecmp(types[i].name, name) == 0) return &types[i];
    return NULL;
}

/* ---- numbers ---------------------------------------------------------------------------------------------- */

/* xorshift64* (Vigna 2016). */
static uint64_t next_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1dull;
}

/* Uniform in [-1, 1). */
static double uniform(uint64_t *state) { return (double)(int64_t)next_random(state) * 0x1p-63; }

/* Rounds to nearest, ties away from zero; |v| below 65504. */
static uint16_t to_f16(double v)
{
    uint16_t sign = v < 0 ? 0x8000 : 0;
    double a = fabs(v);
    if (a < 0x1p-14) return (uint16_t)(sign | (uint16_t)lround(a * 0x1p24));
    int e;
    double m = frexp(a, &e); /* a = m 2^e, m in [0.5, 1) */
    return (uint16_t)(sign + ((e + 14) << 10) + lround((2 * m - 1) * 1024));
}

static uint16_t to_bf16(double v)
{
    float f = (float)v;
    uint32_t u;
    memcpy(&u, &f, 4);
    return (uint16_t)((u + 0x8000) >> 16);
}

/* The scale of a block of random bytes: about sd / rms, of either sign, so that codes whose mean is not 0 cancel out. */
static void set_scale(uint8_t *block, const struct type *t, double sd, uint64_t *state)
{
    double jitter = 1 + 0.3 * uniform(state), d = jitter * sd / t->rms * (next_random(state) >> 63 ? 1 : -1);
    float f = (float)d;
    uint16_t h = to_f16(d), min = to_f16(d * t->min);
    switch (t->scale) {
    case SCALE_F32: memcpy(block + t->scale_at, &f, 4); break;
    case SCALE_IQ1_M: /* a nibble atop each of four 16-bit words */
        for (int i = 0; i < 4; i++) {
            uint8_t *high = block + t->scale_at + 2 * i + 1;
            *high = (uint8_t)((*high & 15) | (h >> 4 * i & 15) << 4);
        }
        break;
    case SCALE_E8M0: block[t->scale_at] = (uint8_t)(128 + lround(log2(fabs(d)))); break;
    case SCALE_E4M3: /* subnormal: multiples of 2^-10 */
        for (int i = 0; i < 4; i++) block[t->scale_at + i] = (uint8_t)fmin(fmax(round(fabs(d) * 0x1p10), 1), 7);
        break;
    default: memcpy(block + t->scale_at, &h, 2);
    }
    if (t->min_at) memcpy(block + t->min_at, &min, 2);
}

/* n blocks of weights with standard deviation sd. */
static void fill(uint8_t *to, size_t n, const struct type *t, double sd, uint64_t *state)
{
    const double plain = sd * sqrt(3); /* half the width of a uniform distribution */
    size_t n_bytes = n * (size_t)t->n_bytes;
    if (t->scale > PLAIN_BF16)
        for (size_t i = 0; i < n_bytes; i += 8) {
            uint64_t r = next_random(state);
            memcpy(to + i, &r, n_bytes - i < 8 ? n_bytes - i : 8);
        }
    for (size_t i = 0; i < n; i++) {
        uint8_t *block = to + i * (size_t)t->n_bytes;
        float f = (float)(plain * uniform(state));
        uint16_t h;
        switch (t->scale) {
        case PLAIN_F32: memcpy(block, &f, 4); break;
        case PLAIN_F16: h = to_f16((double)f), memcpy(block, &h, 2); break;
        case PLAIN_BF16: h = to_bf16((double)f), memcpy(block, &h, 2); break;
        default: set_scale(block, t, sd, state);
        }
    }
}

/* ---- metadata ---------------------------------------------------------------------------------------------- */

enum { GGUF_U32 = 4, GGUF_I32 = 5, GGUF_F32 = 6, GGUF_STR = 8, GGUF_ARR = 9 };

static void put_u32(FILE *f, uint32_t v) { fwrite(&v, 4, 1, f); }
static void put_u64(FILE *f, uint64_t v) { fwrite(&v, 8, 1, f); }
static void put_f32(FILE *f, float v) { fwrite(&v, 4, 1, f); }
static void put_str(FILE *f, const char *s)
{
    put_u64(f, strlen(s));
    fputs(s, f);
}

static void put_key(FILE *f, const char *key, uint32_t type)
{
    put_str(f, key);
    put_u32(f, type);
}

static void key_u32(FILE *f, const char *key, uint32_t v)
{
    put_key(f, key, GGUF_U32);
    put_u32(f, v);
}

static void key_f32(FILE *f, const char *key, float v)
{
    put_key(f, key, GGUF_F32);
    put_f32(f, v);
}

static void key_str(FILE *f, const char *key, const char *v)
{
    put_key(f, key, GGUF_STR);
    put_str(f, v);
}

static void key_array(FILE *f, const char *key, uint32_t item, uint64_t n)
{
    put_key(f, key, GGUF_ARR);
    put_u32(f, item);
    put_u64(f, n);
}

enum { N_KEYS = 13, N_EXPERT_KEYS = 2, N_VOCAB_KEYS = 7, N_SPECIALS = 3, N_BYTES = 256 };

static void put_vocabulary(FILE *f, uint32_t n)
{
    static const char *const specials[N_SPECIALS] = {"<unk>", "<s>", "</s>"};
    key_str(f, "tokenizer.ggml.model", "llama");
    key_array(f, "tokenizer.ggml.tokens", GGUF_STR, n);
    for (uint32_t i = 0; i < n; i++) {
        char text[24];
        if (i < N_SPECIALS) snprintf(text, sizeof text, "%s", specials[i]);
        else if (i < N_SPECIALS + N_BYTES) snprintf(text, sizeof text, "<0x%02X>", (unsigned)(i - N_SPECIALS));
        else snprintf(text, sizeof text, "\xe2\x96\x81%x", (unsigned)i);
        put_str(f, text);
    }
    key_array(f, "tokenizer.ggml.scores", GGUF_F32, n);
    for (uint32_t i = 0; i < n; i++) put_f32(f, -(float)i);
    key_array(f, "tokenizer.ggml.token_type", GGUF_I32, n);
    for (uint32_t i = 0; i < n; i++) put_u32(f, i == 0 ? 2 : i < N_SPECIALS ? 3 : i < N_SPECIALS + N_BYTES ? 6 : 1);
    key_u32(f, "tokenizer.ggml.bos_token_id", 1);
    key_u32(f, "tokenizer.ggml.eos_token_id", 2);
    key_u32(f, "tokenizer.ggml.unknown_token_id", 0);
}

static const char *arch_of(const struct shape *s) { return s->n_experts ? "olmoe" : "llama"; }

/* A key of the architecture. */
static void arch_u32(FILE *f, const struct shape *s, const char *key, uint32_t v)
{
    char name[64];
    snprintf(name, sizeof name, "%s.%s", arch_of(s), key);
    key_u32(f, name, v);
}

static void arch_f32(FILE *f, const struct shape *s, const char *key, float v)
{
    char name[64];
    snprintf(name, sizeof name, "%s.%s", arch_of(s), key);
    key_f32(f, name, v);
}

static void put_metadata(FILE *f, const struct shape *s, int file_type)
{
    key_str(f, "general.architecture", arch_of(s));
    key_str(f, "general.name", "noise");
    key_u32(f, "general.quantization_version", 2);
    key_u32(f, "general.file_type", file_type < 0 ? 1024 : (uint32_t)file_type); /* 1024: to be guessed */
    arch_u32(f, s, "vocab_size", s->n_vocab);
    arch_u32(f, s, "block_count", s->n_layers);
    arch_u32(f, s, "context_length", s->n_ctx);
    arch_u32(f, s, "embedding_length", s->dim);
    arch_u32(f, s, "feed_forward_length", s->ffn);
    arch_u32(f, s, "attention.head_count", s->n_heads);
    arch_u32(f, s, "attention.head_count_kv", s->n_kv_heads);
    arch_f32(f, s, "rope.freq_base", s->rope_base);
    arch_f32(f, s, "attention.layer_norm_rms_epsilon", 1e-5f);
    if (!s->n_experts) return;
    arch_u32(f, s, "expert_count", s->n_experts);
    arch_u32(f, s, "expert_used_count", s->n_used);
}

/* ---- tensors ------------------------------------------------------------------------------------------------- */

struct weight {
    char name[40];
    const struct type *type;
    uint64_t in, out; /* out 0: a norm */
    uint64_t n;       /* matrices; 0: one, which is not a stack */
};

static uint64_t weight_bytes(const struct weight *w)
{
    return w->in * (w->out ? w->out : 1) * (w->n ? w->n : 1) / (uint64_t)w->type->block * (uint64_t)w->type->n_bytes;
}

/* The type of tensor `what` of layer i. The mixture Q4_K_M gives Q6_K to the output and, of the value and down projections, to the first
 * and the last eighth of the layers and to every third between. */
static const struct type *type_of(const struct shape *s, const char *type, const char *what, uint32_t i)
{
    if (strcasecmp(type, "q4_k_m") != 0) return find_type(type);
    uint32_t eighth = s->n_layers / 8;
    bool more = i < eighth || i >= 7 * s->n_layers / 8 || (i - eighth) % 3 == 2;
    bool sensitive = (strcmp(what, "attn_v") == 0 || strcmp(what, "ffn_down") == 0) && more;
    return find_type(sensitive || strcmp(what, "output") == 0 ? "q6_k" : "q4_k");
}

/* All tensors, in order; *n of them, malloc'ed. */
static struct weight *list_weights(const struct shape *s, const char *type, size_t *n)
{
    enum { ALWAYS, DENSE, EXPERTS, STACK }; /* which models have it; STACK: each expert one */
    uint64_t dim = s->dim, kv = dim / s->n_heads * s->n_kv_heads, ffn = s->ffn;
    const struct {
        const char *name;
        uint64_t in, out;
        int who;
    } layer[] = {{"attn_norm", dim, 0, ALWAYS},      {"attn_q", dim, dim, ALWAYS},     {"attn_q_norm", dim, 0, EXPERTS},      {"attn_k", dim, kv, ALWAYS},
                 {"attn_k_norm", kv, 0, EXPERTS},    {"attn_v", dim, kv, ALWAYS},      {"attn_output", dim, dim, ALWAYS},     {"ffn_norm", dim, 0, ALWAYS},
                 {"ffn_gate", dim, ffn, DENSE},      {"ffn_up", dim, ffn, DENSE},      {"ffn_down", ffn, dim, DENSE},         {"ffn_gate_inp", dim, s->n_experts, EXPERTS},
                 {"ffn_gate", dim, ffn, STACK},      {"ffn_up", dim, ffn, STACK},      {"ffn_down", ffn, dim, STACK}};
    const size_t per_layer = sizeof layer / sizeof *layer;
    struct weight *list = malloc((per_layer * s->n_layers + 3) * sizeof *list), *w = list;
    if (!list) return NULL;
    *w++ = (struct weight){"token_embd.weight", type_of(s, type, "token_embd", 0), dim, s->n_vocab, 0};
    for (uint32_t i = 0; i < s->n_layers; i++)
        for (size_t k = 0; k < per_layer; k++) {
            const int who = layer[k].who;
            if (who == DENSE ? s->n_experts > 0 : who != ALWAYS && s->n_experts == 0) continue;
            const bool f32 = layer[k].out == 0 || who == EXPERTS;
            *w = (struct weight){"", f32 ? find_type("f32") : type_of(s, type, layer[k].name, i), layer[k].in, layer[k].out, who == STACK ? s->n_experts : 0};
            snprintf(w->name, sizeof w->name, "blk.%u.%s%s.weight", (unsigned)i, layer[k].name, who == STACK ? "_exps" : "");
            w++;
        }
    *w++ = (struct weight){"output_norm.weight", find_type("f32"), dim, 0, 0};
    *w++ = (struct weight){"output.weight", type_of(s, type, "output", 0), dim, s->n_vocab, 0};
    *n = (size_t)(w - list);
    return list;
}

static void put_padding(FILE *f, uint64_t after)
{
    static const char zeros[32];
    fwrite(zeros, 1, (size_t)(-after & 31), f);
}

static bool put_header(FILE *f, const struct shape *s, const char *type, const struct weight *list, size_t n, bool vocabulary)
{
    bool mixture = strcasecmp(type, "q4_k_m") == 0;
    fputs("GGUF", f);
    put_u32(f, 3);
    put_u64(f, n);
    put_u64(f, N_KEYS + (s->n_experts ? N_EXPERT_KEYS : 0) + (vocabulary ? N_VOCAB_KEYS : 0));
    put_metadata(f, s, mixture ? 15 : find_type(type)->file_type);
    if (vocabulary) put_vocabulary(f, s->n_vocab);
    uint64_t offset = 0;
    for (size_t i = 0; i < n; i++) {
        put_str(f, list[i].name);
        put_u32(f, list[i].n ? 3 : list[i].out ? 2 : 1);
        put_u64(f, list[i].in);
        if (list[i].out) put_u64(f, list[i].out);
        if (list[i].n) put_u64(f, list[i].n);
        put_u32(f, list[i].type->id);
        put_u64(f, offset);
        offset += (weight_bytes(&list[i]) + 31) & ~(uint64_t)31;
    }
    long at = ftell(f);
    if (at >= 0) put_padding(f, (uint64_t)at);
    return at >= 0;
}

enum { POOL_BYTES = 1 << 20 };

/* A tensor is a pool of blocks of its own, over and over: enough noise, and soon made. Norms are all 1. */
static bool put_weight(FILE *f, const struct weight *w, uint8_t *pool, uint64_t *state)
{
    uint64_t left = weight_bytes(w), size = POOL_BYTES / (uint64_t)w->type->n_bytes * (uint64_t)w->type->n_bytes;
    if (size > left) size = left;
    if (w->out) {
        fill(pool, size / (uint64_t)w->type->n_bytes, w->type, 0.5 / sqrt((double)w->in), state);
    } else {
        for (uint64_t i = 0; i < w->in; i++) memcpy(pool + 4 * i, &(float){1}, 4);
    }
    for (uint64_t n_bytes = left, n; left; left -= n) {
        n = left < size ? left : size;
        if (fwrite(pool, 1, n, f) != n) return false;
        if (left == n) put_padding(f, n_bytes);
    }
    return true;
}

static int check_type(const struct shape *s, const char *type)
{
    const struct type *t = find_type(strcasecmp(type, "q4_k_m") == 0 ? "q4_k" : type);
    if (t && s->dim % (uint32_t)t->block == 0 && s->ffn % (uint32_t)t->block == 0) return 0;
    if (t) return print_error(EXIT_USAGE, "--type '%s': the rows of %s are not whole blocks of %d", type, s->name, t->block);
    char known[512] = "";
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        size_t len = strlen(known);
        snprintf(known + len, sizeof known - len, ", %s", types[i].name);
    }
    return print_error(EXIT_USAGE, "--type '%s': must be one of q4_k_m%s", type, known);
}

static int write_model(FILE *f, const char *path, const struct shape *s, const char *type, bool vocabulary)
{
    size_t n = 0;
    uint64_t state = 0x9e3779b97f4a7c15ull;
    struct weight *list = list_weights(s, type, &n);
    uint8_t *pool = malloc(POOL_BYTES);
    bool good = list && pool;
    errno = ENOMEM;
    good = good && put_header(f, s, type, list, n, vocabulary);
    for (size_t i = 0; good && i < n; i++) good = put_weight(f, &list[i], pool, &state);
    good = good && fflush(f) == 0 && !ferror(f);
    int why = errno;
    free(pool);
    free(list);
    return good ? 0 : print_error(EXIT_RUNTIME, "cannot write %s: %s", path, strerror(why));
}

/* ---- files ----------------------------------------------------------------------------------------------------- */

/* The descriptor of a file without a name; -1 and errno. */
static int nameless_file(void)
{
#ifdef __linux__
    return memfd_create("noise", MFD_CLOEXEC);
#else
    FILE *f = tmpfile();
    int fd = f ? dup(fileno(f)) : -1;
    if (f) fclose(f);
    return fd;
#endif
}

int noise_open(struct noise_file *out, enum noise_shape shape, const char *type)
{
    *out = (struct noise_file){.fd = -1};
    int code = check_type(&shapes[shape], type);
    if (code) return code;
    out->fd = nameless_file();
    int fd = out->fd < 0 ? -1 : dup(out->fd);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "wb");
    if (!f) {
        code = print_error(EXIT_RUNTIME, "no room for a model of noise: %s", strerror(errno));
        if (fd >= 0) close(fd);
    } else {
        code = write_model(f, "a model of noise", &shapes[shape], type, false);
        fclose(f);
    }
    snprintf(out->path, sizeof out->path, "/dev/fd/%d", out->fd);
    if (code) noise_close(out);
    return code;
}

void noise_close(struct noise_file *f)
{
    if (f->fd >= 0) close(f->fd);
    f->fd = -1;
}

int noise_write(const char *path, enum noise_shape shape, const char *type)
{
    int code = check_type(&shapes[shape], type);
    if (code) return code;
    FILE *f = fopen(path, "wb");
    if (!f) return print_error(EXIT_RUNTIME, "cannot write %s: %s", path, strerror(errno));
    code = write_model(f, path, &shapes[shape], type, true);
    if (fclose(f) != 0 && !code) code = print_error(EXIT_RUNTIME, "cannot write %s: %s", path, strerror(errno));
    return code;
}
