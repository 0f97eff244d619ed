/* Weights of Hugging Face folders in 8-bit floating point, with their scales: they become F32, exactly as transformers widens them, since
 * GGUF has no type for them. Formats: OCP 8-bit Floating Point Specification (OFP8), E4M3 and E5M2. */
#include "file/hf.h"

#include "base/half.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

static float from_e4m3(unsigned b)
{
    const int exponent = (int)(b >> 3 & 15), mantissa = (int)(b & 7);
    const float v = exponent == 15 && mantissa == 7 ? NAN : exponent ? ldexpf((float)(8 + mantissa), exponent - 10) : ldexpf((float)mantissa, -9);
    return b & 0x80 ? -v : v;
}

/* The tensors by name: there may be a hundred thousand. */
struct names {
    struct file_name *list; /* [n], sorted */
    size_t n;
};

static int by_name(const void *a, const void *b) { return strcmp(((const struct file_name *)a)->name, ((const struct file_name *)b)->name); }

/* The tensor called name with `less` bytes off its end and suffix put there instead; NULL: none. */
static const struct tensor *find(const struct names *names, const char *name, size_t less, const char *suffix)
{
    char text[256];
    const size_t n = strlen(name) - less;
    if (n + strlen(suffix) >= sizeof text) return NULL;
    memcpy(text, name, n);
    memcpy(text + n, suffix, strlen(suffix) + 1);
    const struct file_name wanted = {text, NULL}, *hit = bsearch(&wanted, names->list, names->n, sizeof *names->list, by_name);
    return hit ? hit->item : NULL;
}

/* A scale for each block of rows x cols elements, the last ones cut off by the matrix's edge. */
struct scales {
    const struct tensor *t;
    int64_t rows, cols, across;
};

static kg_status number(const struct tensor *t, int64_t i, float *out)
{
    const uint8_t *p = t->data;
    if (t->type == TYPE_F32) *out = f32_from_bits(load_u32(p + 4 * i));
    else if (t->type == TYPE_BF16) *out = f32_from_bf16(load_u16(p + 2 * i));
    else if (t->type == TYPE_F16) *out = f32_from_f16(load_u16(p + 2 * i));
    else return status_set(KG_ERR_UNSUPPORTED, "tensor %.*s: scales of this type are not supported", file_shown(t->name), t->name);
    return KG_OK;
}

/* The size of blocks: as DeepSeek has it, or in a group of compressed-tensors. */
static const json_t *block_of(const json_t *config)
{
    json_t *q = json_object_get(config, "quantization_config"), *groups = json_object_get(q, "config_groups"), *group;
    const json_t *block = json_object_get(q, "weight_block_size");
    const char *name;
    json_object_foreach(groups, name, group) {
        const json_t *of_group = json_object_get(json_object_get(group, "weights"), "block_structure");
        if (!block && json_is_array(of_group)) block = of_group;
    }
    return block;
}

static kg_status scales_of(struct scales *s, const struct names *names, const struct tensor *w, const json_t *config)
{
    const json_t *block = block_of(config);
    const int64_t rows = w->ne[1] * w->ne[2] * w->ne[3], cols = w->ne[0];
    const struct tensor *per_block = find(names, w->name, 0, "_scale_inv"), *t = per_block ? per_block : find(names, w->name, 0, "_scale");
    if (!t) return status_set(KG_ERR_FORMAT, "tensor %.*s: there are no scales for its FP8 numbers", file_shown(w->name), w->name);
    const int64_t n = t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3];
    float first;
    KG_TRY(number(t, 0, &first));
    s->t = t;
    if (json_array_size(block) == 2) {
        s->rows = json_integer_value(json_array_get(block, 0));
        s->cols = json_integer_value(json_array_get(block, 1));
        if (s->rows < 1 || s->cols < 1) return status_set(KG_ERR_FORMAT, "config.json: the size of blocks is not two numbers above 0");
        s->across = (cols - 1) / s->cols + 1;
        if (t->ne[0] == s->across && n == s->across * ((rows - 1) / s->rows + 1)) return KG_OK;
    }
    *s = (struct scales){t, n == rows ? 1 : rows, cols, 1};
    if (n == 1 || n == rows) return KG_OK;
    return status_set(KG_ERR_FORMAT, "tensor %.*s: its %" PRId64 " scales do not fit %" PRId64 " x %" PRId64 " numbers", file_shown(w->name), w->name, n, rows, cols);
}

static kg_status widen(struct file *f, const struct names *names, struct tensor *w, bool e5m2, const json_t *config)
{
    struct scales s = {0};
    float table[256], *out;
    void *p;
    KG_TRY(scales_of(&s, names, w, config));
    if (w->n_bytes > SIZE_MAX / 4) return status_set(KG_ERR_UNSUPPORTED, "tensor %.*s is too large", file_shown(w->name), w->name);
    KG_TRY(file_alloc_more(f, w->n_bytes * 4, &p));
    out = p;
    for (unsigned b = 0; b < 256; b++) table[b] = e5m2 ? f32_from_f16((uint16_t)(b << 8)) : from_e4m3(b); /* E5M2 is the upper half of F16 */
    const uint8_t *in = w->data;
    const int64_t rows = w->ne[1] * w->ne[2] * w->ne[3];
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c0 = 0; c0 < w->ne[0]; c0 += s.cols) {
            float scale;
            KG_TRY(number(s.t, r / s.rows * s.across + c0 / s.cols, &scale));
            for (int64_t c = c0; c < MIN(c0 + s.cols, w->ne[0]); c++) *out++ = table[*in++] * scale;
        }
    w->data = p;
    w->type = TYPE_F32;
    w->n_bytes *= 4;
    return KG_OK;
}

/* Scales of weights that are FP8, and of activations, keys and values, which are not quantized here. */
static bool is_scale(const struct file *f, const struct names *names, const char *name)
{
    static const char *const ends[] = {"_scale_inv", "_scale"};
    static const char *const others[] = {".input_scale", ".activation_scale", ".output_scale", ".q_scale", ".k_scale", ".v_scale", ".kv_scale"};
    const size_t n = strlen(name);
    for (size_t i = 0; i < COUNT_OF(others); i++) {
        const size_t m = strlen(others[i]);
        if (n > m && strcmp(name + n - m, others[i]) == 0) return true;
    }
    for (size_t i = 0; i < COUNT_OF(ends); i++) {
        const size_t m = strlen(ends[i]);
        const struct tensor *w = n > m && strcmp(name + n - m, ends[i]) == 0 ? find(names, name, m, "") : NULL;
        if (w && f->index->fp8[w - f->tensors]) return true;
    }
    return false;
}

static kg_status widen_all(struct file *f, const struct names *names, const json_t *config)
{
    size_t kept = 0;
    uint8_t *gone = arena_alloc(&f->arena, f->n_tensors);
    if (!gone) return KG_ERR_MEMORY;
    for (size_t i = 0; i < f->n_tensors; i++) {
        gone[i] = is_scale(f, names, f->tensors[i].name);
        if (f->index->fp8[i]) KG_TRY(widen(f, names, &f->tensors[i], f->index->fp8[i] == FILE_FP8_E5M2, config));
    }
    for (size_t i = 0; i < f->n_tensors; i++)
        if (!gone[i]) f->tensors[kept++] = f->tensors[i];
    f->n_tensors = kept;
    return KG_OK;
}

kg_status hf_widen_fp8(struct file *f, const json_t *config)
{
    struct names names = {.n = f->n_tensors};
    bool any = false;
    for (size_t i = 0; i < f->n_tensors; i++) any |= f->index->fp8[i] != 0;
    if (!any) return KG_OK;
    names.list = malloc(names.n * sizeof *names.list);
    if (!names.list) return status_set(KG_ERR_MEMORY, "out of memory");
    for (size_t i = 0; i < names.n; i++) names.list[i] = (struct file_name){f->tensors[i].name, &f->tensors[i]};
    qsort(names.list, names.n, sizeof *names.list, by_name);
    kg_status status = widen_all(f, &names, config);
    free(names.list);
    return status;
}
