/* The self-check of a device: drivers miscompute. Before a GPU runs a model for the first time, a small program with every operation, and
 * one with a matrix of each quantized type of the model, are computed on it and by the float64 reference. The verdict is kept in
 * $XDG_CACHE_HOME/kagari or ~/.cache/kagari, one file for a device, its driver and this version. A device that fails is not used, and the
 * error names the operation. */
#include "backend/backend.h"

#include "tensor/decode.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DIM = 256, WIDE = 288, HEADS = 8, KV_HEADS = 4, HEAD = 32, VOCAB = 96, TOKENS = 21, EXPERTS = 3, USED = 2, BROAD_HEADS = 2, BROAD = 272, STATE = 6, MOST = 96 };

/* What a program of the check computes beside an embedding and the logits. */
enum part { PART_EMBED, PART_RMS_NORM, PART_LAYER_NORM, PART_ACT, PART_GLU, PART_ROPE, PART_ATTENTION, PART_NORM_HEADS, PART_SCALE, PART_GATE, PART_WINDOW, PART_EXPERTS, PART_SIDES, PART_BROAD, PART_STATE, PART_MATMUL, PART_N };
static const char *const part_names[PART_N] = {"embed", "rms_norm", "layer_norm", "act", "glu", "rope", "attention", "norm of heads", "scale", "gate", "attention with a window", "a mixture of experts", "attention to both sides",
                                               "attention with wide heads", "a state", "matmul"};
enum { SPECIAL = 1u << PART_EXPERTS | 1u << PART_SIDES | 1u << PART_BROAD | 1u << PART_STATE }; /* only for programs that have such operations */

struct net {
    struct program p;
    struct arena arena;
    struct tensor tensors[MOST];
    int n;
    uint32_t random;
};

static uint32_t next(struct net *m) { return m->random = m->random * 1664525u + 1013904223u; }
static float value(struct net *m) { return (float)(next(m) >> 8) * 0x1p-23f - 1; } /* [-1, 1) */

/* A block of random bits is taken if its values are those of a sane matrix. */
static void fill_block(struct net *m, const struct type_info *type, uint8_t *block, float *out)
{
    for (int tries = 0; tries < 100000; tries++) {
        float most = 0;
        for (int i = 0; i < type->block_bytes; i++) block[i] = (uint8_t)(next(m) >> 24);
        decode_f32(type->type)(block, out, type->block);
        for (int i = 0; i < type->block; i++) most = fabsf(out[i]) <= most ? most : isfinite(out[i]) ? fabsf(out[i]) : INFINITY;
        if (most <= 4 && most >= 0x1p-8f) return;
    }
    memset(block, 0, (size_t)type->block_bytes);
}

static const struct tensor *matrix(struct net *m, const struct type_info *type, int in, int out, float middle)
{
    struct tensor *t = &m->tensors[m->n++];
    size_t blocks = (size_t)(in / type->block * out);
    *t = (struct tensor){.name = type->name, .type = type->type, .n_dims = out > 1 ? 2 : 1, .ne = {in, out, 1, 1}, .n_bytes = blocks * (size_t)type->block_bytes};
    uint8_t *data = arena_alloc(&m->arena, t->n_bytes);
    float *out_block = arena_array(&m->arena, (size_t)type->block, sizeof *out_block);
    t->data = data;
    for (size_t i = 0; data && out_block && i < blocks; i++) {
        if (type->type == TYPE_F32) {
            float v = middle + (out > 1 ? value(m) / 8 : value(m) / 4);
            memcpy(data + i * sizeof v, &v, sizeof v);
        } else {
            fill_block(m, type, data + i * (size_t)type->block_bytes, out_block);
        }
    }
    return t;
}

static const struct tensor *stack(struct net *m, const struct type_info *type, int in, int out)
{
    struct tensor *t = &m->tensors[m->n];
    matrix(m, type, in, out * EXPERTS, 0);
    t->n_dims = 3;
    t->ne[1] = out;
    t->ne[2] = EXPERTS;
    return t;
}

/* What is to be checked: parts; a matrix of each type, and experts of these types. */
struct what {
    unsigned parts;
    bool type_experts;
    const struct type_info *types[8];
    int n_types;
};

/* Registers of a mixture of experts. The choice comes first in a program, where no device rounds so much that it would choose others. */
struct mixture {
    int route, gate, up, down;
};

static void add_route(struct net *m, struct mixture *e, int x)
{
    struct program *p = &m->p;
    const int scores = program_reg(p, EXPERTS);
    *e = (struct mixture){program_reg(p, 2 * USED), program_reg(p, USED * HEAD), program_reg(p, USED * HEAD), program_reg(p, USED * DIM)};
    program_matmul(p, scores, x, matrix(m, type_by_name("F32"), DIM, EXPERTS, 0), NULL);
    program_route(p, e->route, scores, NULL, &(struct route){.n_used = USED, .normed = true, .scale = 1});
}

/* x += the experts of x, their heads taken apart and put together again the other way round. */
static void add_experts(struct net *m, const struct mixture *e, int x, int y)
{
    const struct type_info *f32 = type_by_name("F32");
    struct program *p = &m->p;
    const int a = program_reg(p, DIM / 2), b = program_reg(p, DIM / 2);
    program_matmul_experts(p, e->gate, x, e->route, stack(m, f32, DIM, HEAD), NULL);
    program_matmul_experts(p, e->up, x, e->route, stack(m, f32, DIM, HEAD), NULL);
    program_glu(p, e->gate, e->gate, e->up, ACTIVATION_SILU);
    program_matmul_experts(p, e->down, e->gate, e->route, stack(m, f32, HEAD, DIM), NULL);
    program_combine(p, y, e->down, e->route);
    program_take(p, a, y, HEADS, 0);
    program_take(p, b, y, HEADS, HEAD / 2);
    program_join(p, y, b, a, HEADS);
    program_add(p, x, x, y);
}

/* x += attention to both sides of it, behind an addition of a row. k and v have room for its keys and values. */
static void add_sides(struct net *m, int x, int y, int k, int v)
{
    const struct type_info *f32 = type_by_name("F32");
    struct program *p = &m->p;
    program_add_row(p, x, x, matrix(m, f32, DIM, 2, 0));
    program_matmul(p, k, x, matrix(m, f32, DIM, KV_HEADS * HEAD, 0), NULL);
    program_matmul(p, v, x, matrix(m, f32, DIM, KV_HEADS * HEAD, 0), NULL);
    program_attention_as(p, y, x, k, v,
                         &(struct attention){.n_heads = HEADS, .n_kv_heads = KV_HEADS, .k_dim = HEAD, .v_dim = HEAD, .scale = 1 / sqrt(HEAD), .window = 14, .both = true});
    program_add(p, x, x, y);
}

/* x += attention of heads that share a wide key and value. */
static void add_broad(struct net *m, int x, int y)
{
    const struct type_info *f32 = type_by_name("F32");
    struct program *p = &m->p;
    const int q = program_reg(p, BROAD_HEADS * BROAD), k = program_reg(p, BROAD), v = program_reg(p, BROAD), out = program_reg(p, BROAD_HEADS * BROAD);
    program_matmul(p, q, x, matrix(m, f32, DIM, BROAD_HEADS * BROAD, 0), NULL);
    program_matmul(p, k, x, matrix(m, f32, DIM, BROAD, 0), NULL);
    program_matmul(p, v, x, matrix(m, f32, DIM, BROAD, 0), NULL);
    program_attention(p, out, q, k, v, BROAD_HEADS, 1, BROAD, BROAD, 1 / sqrt(BROAD));
    program_matmul(p, y, out, matrix(m, f32, BROAD_HEADS * BROAD, DIM, 0), NULL);
    program_add(p, x, x, y);
}

/* x += each of the operations that keep something from token to token. */
static void add_state(struct net *m, int x, int y)
{
    const struct type_info *f32 = type_by_name("F32");
    const struct scan scan = {.n_heads = HEADS, .head_dim = DIM / HEADS, .n_groups = 2, .n_state = STATE};
    const struct delta delta = {.n_heads = HEADS, .n_k_heads = 2, .k_dim = STATE, .v_dim = DIM / HEADS, .eps = 1e-6};
    struct program *p = &m->p;
    const int step = program_reg(p, HEADS), bc = program_reg(p, 2 * 2 * STATE), qkv = program_reg(p, 2 * 2 * STATE + DIM), gates = program_reg(p, 2 * HEADS);
    const int rk = program_reg(p, 2 * DIM), decays = program_reg(p, 2 * DIM), both = program_reg(p, 2 * DIM);
    program_conv(p, y, x, matrix(m, f32, 4, DIM, 0), matrix(m, f32, DIM, 1, 0));
    program_add(p, x, x, y);
    program_matmul(p, step, x, matrix(m, f32, DIM, HEADS, 0), NULL);
    program_matmul(p, bc, x, matrix(m, f32, DIM, 2 * 2 * STATE, 0), NULL);
    program_scan(p, y, x, step, bc, matrix(m, f32, STATE, HEADS, -0.5f), matrix(m, f32, HEADS, 1, 1), &scan);
    program_add(p, x, x, y);
    program_matmul(p, qkv, x, matrix(m, f32, DIM, 2 * 2 * STATE + DIM, 0), NULL);
    program_matmul(p, gates, x, matrix(m, f32, DIM, 2 * HEADS, 0), NULL);
    program_delta(p, y, qkv, gates, matrix(m, f32, HEADS, 1, -0.5f), matrix(m, f32, HEADS, 1, 0), &delta);
    program_add(p, x, x, y);
    program_rms_norm(p, y, x, matrix(m, f32, DIM, 1, 1), NULL, 1e-5); /* what follows grows with its third power */
    program_matmul(p, rk, y, matrix(m, f32, DIM, 2 * DIM, 0), NULL);
    program_matmul(p, decays, y, matrix(m, f32, DIM, 2 * DIM, 0), NULL);
    program_wkv(p, both, rk, decays, y, matrix(m, f32, DIM, 3, 1), &(struct wkv){.n_heads = HEADS, .head_dim = DIM / HEADS, .eps = 1e-12});
    program_take(p, y, both, 1, 0);
    program_lerp(p, x, x, y, matrix(m, f32, DIM, 1, 1));
    program_take(p, y, both, 1, DIM);
    program_add(p, x, x, y);
    program_rms_norm(p, x, x, matrix(m, f32, DIM, 1, 1), NULL, 1e-5); /* scores of an attention behind it shall not be large */
}

/* The parts behind each other, then a matrix of each type. */
static kg_status build(struct net *m, const struct what *what)
{
    const unsigned parts = what->parts;
    struct mixture mixture = {0};
    const struct type_info *f32 = type_by_name("F32");
    *m = (struct net){.p = {.n_layers = 1, .dim = DIM, .n_vocab = VOCAB, .n_ctx = 64}, .random = 2463534242u};
    struct program *p = &m->p;
    int x = program_reg(p, DIM), y = program_reg(p, DIM), wide = program_reg(p, WIDE), up = program_reg(p, WIDE), k = program_reg(p, KV_HEADS * HEAD),
        v = program_reg(p, KV_HEADS * HEAD), logits = program_reg(p, VOCAB), one = program_reg(p, 1);
    struct rope rope = {.style = ROPE_HALVES, .n_heads = HEADS, .head_dim = HEAD, .n_rot = HEAD, .base = 10000, .factor = 1, .orig_ctx = 64, .attn_factor = 1};
    program_embed(p, x, matrix(m, f32, DIM, VOCAB, 0));
    if (parts >> PART_RMS_NORM & 1) program_rms_norm(p, x, x, matrix(m, f32, DIM, 1, 1), NULL, 1e-5);
    if (parts >> PART_EXPERTS & 1 || what->type_experts) add_route(m, &mixture, x);
    if (parts >> PART_STATE & 1) add_state(m, x, y); /* before what rounds to halves: it magnifies errors most */
    if (parts >> PART_EXPERTS & 1) add_experts(m, &mixture, x, y);
    if (parts >> PART_SIDES & 1) add_sides(m, x, y, k, v);
    if (parts >> PART_BROAD & 1) add_broad(m, x, y);
    if (parts >> PART_ROPE & 1) program_rope(p, x, &rope);
    if (parts >> PART_ATTENTION & 1) {
        program_matmul(p, k, x, matrix(m, f32, DIM, KV_HEADS * HEAD, 0), NULL);
        program_matmul(p, v, x, matrix(m, f32, DIM, KV_HEADS * HEAD, 0), NULL);
        program_attention(p, y, x, k, v, HEADS, KV_HEADS, HEAD, HEAD, 1 / sqrt(HEAD));
        program_add(p, x, x, y);
    }
    if (parts >> PART_NORM_HEADS & 1) program_rms_norm(p, x, x, matrix(m, f32, HEAD, 1, 1), NULL, 1e-5);
    if (parts >> PART_SCALE & 1) {
        program_scale(p, x, x, 1.25);
        program_softcap(p, x, x, 4);
        program_clamp(p, x, x, 3);
        program_xielu(p, x, x, &(struct xielu){0.25, 0.5, 0.75, -1e-6});
    }
    if (parts >> PART_GATE & 1) {
        program_matmul(p, one, x, matrix(m, f32, DIM, 1, 0), NULL);
        program_gate(p, x, x, one, ACTIVATION_SIGMOID);
    }
    if (parts >> PART_WINDOW & 1) {
        program_matmul(p, k, x, matrix(m, f32, DIM, KV_HEADS * HEAD, 0), NULL);
        program_matmul(p, v, x, matrix(m, f32, DIM, KV_HEADS * HEAD, 0), NULL);
        program_attention_as(p, y, x, k, v,
                             &(struct attention){.n_heads = HEADS, .n_kv_heads = KV_HEADS, .k_dim = HEAD, .v_dim = HEAD, .scale = 1 / sqrt(HEAD), .window = 7,
                                                 .softcap = 3, .alibi = 8, .sinks = matrix(m, f32, HEADS, 1, 0)});
        program_add(p, x, x, y);
    }
    if (parts >> PART_LAYER_NORM & 1) program_layer_norm(p, x, x, matrix(m, f32, DIM, 1, 1), matrix(m, f32, DIM, 1, 0), 1e-5);
    if (parts >> PART_ACT & 1) program_act(p, x, x, ACTIVATION_GELU_TANH);
    if (parts >> PART_GLU & 1) {
        program_matmul(p, wide, x, matrix(m, f32, DIM, WIDE, 0), NULL);
        program_matmul(p, up, x, matrix(m, f32, DIM, WIDE, 0), NULL);
        program_glu(p, wide, wide, up, ACTIVATION_SILU);
        program_matmul(p, y, wide, matrix(m, f32, WIDE, DIM, 0), NULL);
        program_add(p, x, x, y);
    }
    for (int i = 0; i < what->n_types; i++) {
        program_rms_norm(p, x, x, matrix(m, f32, DIM, 1, 1), NULL, 1e-5);
        program_matmul(p, y, x, matrix(m, what->types[i], DIM, DIM, 0), NULL);
        program_add(p, x, x, y);
        if (!what->type_experts) continue;
        program_rms_norm(p, x, x, matrix(m, f32, DIM, 1, 1), NULL, 1e-5);
        program_matmul_experts(p, mixture.down, x, mixture.route, stack(m, what->types[i], DIM, DIM), NULL);
        program_combine(p, y, mixture.down, mixture.route);
        program_add(p, x, x, y);
    }
    program_select(p, y, x);
    program_matmul(p, logits, y, matrix(m, f32, DIM, VOCAB, 0), NULL);
    program_logits(p, logits);
    KG_TRY(program_finish(p));
    for (int i = 0; i < m->n; i++)
        if (!m->tensors[i].data) return status_set(KG_ERR_MEMORY, "no memory for the self-check");
    return KG_OK;
}

/* TOKENS - 1 tokens at once and one alone. */
static kg_status compute(const struct backend *b, const struct program *p, const struct backend_params *params, float *logits, double *f64, double *bound)
{
    static const int32_t blocks[] = {0};
    struct batch_seq seq = {.blocks = blocks};
    struct batch_token tokens[TOKENS];
    void *ctx = NULL;
    KG_TRY(b->open(&ctx, p, params));
    for (int i = 0; i < TOKENS; i++) tokens[i] = (struct batch_token){i * 37 % VOCAB, i, 0, true};
    struct batch many = {.tokens = tokens, .n = TOKENS - 1, .seqs = &seq, .n_seqs = 1, .logits = logits, .logits_f64 = f64}, one = many;
    one.tokens += TOKENS - 1;
    one.n = 1;
    one.logits += (TOKENS - 1) * VOCAB;
    if (f64) one.logits_f64 += (TOKENS - 1) * VOCAB;
    kg_status status = b->kv_reserve(ctx, 1);
    if (status == KG_OK && p->n_state) status = b->state_reserve(ctx, 1);
    if (status == KG_OK) status = b->run(ctx, &many);
    if (status == KG_OK) status = b->run(ctx, &one);
    *bound = b->error_bound(ctx);
    b->close(ctx);
    return status;
}

/* *good: the logits of every token are those of the reference, within four times the error that the backend states; six times for several parts, since
 * later ones magnify what the first ones round. */
static kg_status compare(const struct backend *b, const struct backend_params *params, const struct what *what, bool *good, double *error)
{
    struct net m;
    double bound = 0, ignored, *want = malloc(TOKENS * VOCAB * sizeof *want);
    float *got = malloc(TOKENS * VOCAB * sizeof *got), *rounded = malloc(TOKENS * VOCAB * sizeof *rounded);
    const struct backend *ref = backend_find("reference");
    struct backend_params small = *params;
    small.max_batch = TOKENS;
    kg_status status = build(&m, what);
    if (status == KG_OK && (!want || !got || !rounded)) status = status_set(KG_ERR_MEMORY, "no memory for the self-check");
    if (status == KG_OK) status = ref ? compute(ref, &m.p, &small, rounded, want, &ignored) : KG_ERR_UNSUPPORTED;
    if (status == KG_OK) status = compute(b, &m.p, &small, got, NULL, &bound);
    *error = 0;
    for (int t = 0; status == KG_OK && t < TOKENS; t++) { /* the worst token counts */
        double diff = 0, size = 0;
        for (int i = t * VOCAB; i < (t + 1) * VOCAB; i++) {
            diff += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
            size += want[i] * want[i];
        }
        double e = sqrt(diff / size);
        if (!(e <= *error)) *error = e; /* a NaN sticks */
    }
    *good = *error <= (what->parts & (what->parts - 1) ? 6 : 4) * bound + 1e-4;
    program_free(&m.p);
    arena_free(&m.arena);
    free(want);
    free(got);
    free(rounded);
    return status;
}

/* ---- verdicts ---- */

static bool verdict_path(char *path, size_t size, const char *key)
{
    const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char folder[400];
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a */
    int n = base && *base == '/' ? snprintf(folder, sizeof folder, "%s", base) : home && *home == '/' ? snprintf(folder, sizeof folder, "%s/.cache", home) : -1;
    if (n < 0 || n > 300) return false;
    mkdir(folder, 0700);
    strcat(folder, "/kagari");
    mkdir(folder, 0700);
    for (const char *c = key; *c; c++) h = (h ^ (uint8_t)*c) * 0x100000001b3u;
    n = snprintf(path, size, "%s/check-%016llx", folder, (unsigned long long)h);
    return n > 0 && (size_t)n < size;
}

/* The first line of the file must be the key; the second, if any, says what failed. */
static bool read_verdict(const char *path, const char *key, char *bad, size_t size)
{
    char line[600] = "";
    FILE *f = fopen(path, "r");
    bad[0] = 0;
    if (!f) return false;
    bool same = fgets(line, sizeof line, f) && strlen(line) == strlen(key) + 1 && strncmp(line, key, strlen(key)) == 0;
    if (same && fgets(bad, (int)size, f)) bad[strcspn(bad, "\n")] = 0;
    fclose(f);
    return same;
}

static void write_verdict(const char *path, const char *key, const char *bad)
{
    char temporary[600];
    snprintf(temporary, sizeof temporary, "%.560s.%ld", path, (long)getpid());
    FILE *f = fopen(temporary, "w");
    if (!f) return;
    bool written = fwrite(key, 1, strlen(key), f) == strlen(key) && fwrite("\n", 1, 1, f) == 1 && fwrite(bad, 1, strlen(bad), f) == strlen(bad) && fwrite("\n", 1, 1, f) == 1;
    if (fclose(f) != 0 || !written || rename(temporary, path) != 0) remove(temporary);
}

/* Fills bad with what fails, "" if nothing does. The failed one is looked for part by part, in the order in which they build on each other. */
static kg_status check(const struct backend *b, const struct backend_params *params, const struct what *what, char *bad, size_t size)
{
    bool good;
    double error;
    bad[0] = 0;
    KG_TRY(compare(b, params, what, &good, &error));
    if (good) return KG_OK;
    snprintf(bad, size, "several operations together are off by %.2g", error);
    for (int part = 0; part < PART_N; part++) {
        if (!(what->parts >> part & 1)) continue;
        KG_TRY(compare(b, params, &(struct what){.parts = 1u << part}, &good, &error));
        if (good) continue;
        snprintf(bad, size, "%s is off by %.2g", part_names[part], error);
        return KG_OK;
    }
    for (int i = 0; i < what->n_types; i++) {
        KG_TRY(compare(b, params, &(struct what){.types = {what->types[i]}, .n_types = 1, .type_experts = what->type_experts}, &good, &error));
        if (good) continue;
        snprintf(bad, size, "matmul with %s is off by %.2g", what->types[i]->name, error);
        return KG_OK;
    }
    return KG_OK;
}

/* All parts, the special ones if p has such; the quantized types of p, at most as many as there is room for. Without a program the most usual types. */
static void what_of(const struct program *p, struct what *what)
{
    static const char *const usual[] = {"F16", "Q4_0", "Q8_0", "Q4_K", "Q6_K"};
    *what = (struct what){.parts = p ? ~(unsigned)SPECIAL : ~0u};
    if (p && p->n_state) what->parts |= 1u << PART_STATE;
    for (size_t i = 0; !p && i < COUNT_OF(usual); i++) what->types[what->n_types++] = type_by_name(usual[i]);
    for (int i = 0; p && i < p->n_ops; i++) {
        const bool experts = p->ops[i].code == OP_MATMUL_EXPERTS;
        const struct attention *a = p->ops[i].code == OP_ATTENTION ? &p->ops[i].attention : NULL;
        if (a && a->both) what->parts |= 1u << PART_SIDES;
        if (a && MAX(a->k_dim, a->v_dim) > 128) what->parts |= 1u << PART_BROAD;
        const struct type_info *t = experts || p->ops[i].code == OP_MATMUL ? type_by_id((uint32_t)p->ops[i].w->type) : NULL;
        bool seen = !t || what->n_types == (int)COUNT_OF(what->types) || DIM % t->block || (t->block == 1 && t->type != TYPE_F16 && t->type != TYPE_BF16);
        for (int k = 0; k < what->n_types; k++) seen |= what->types[k] == t;
        if (!seen) what->types[what->n_types++] = t;
        if (experts) what->parts |= 1u << PART_EXPERTS;
        what->type_experts |= experts;
    }
}

kg_status backend_check(const struct backend *b, const struct program *p, const struct backend_params *params, bool again)
{
    struct what what;
    struct backend_device list[16];
    const struct backend_device *d = NULL;
    char key[480], path[500], bad[200];
    int n = 0;
    what_of(p, &what);
    if (!b->devices) return status_set(KG_ERR_ARGUMENT, "the %s backend has no device to check", b->name);
    KG_TRY(b->devices(list, COUNT_OF(list), &n));
    for (int i = 0; i < n; i++)
        if (list[i].chosen) d = &list[i];
    if (!d) return status_set(KG_ERR_DEVICE, "%s: no device is chosen", b->name);
    int len = snprintf(key, sizeof key, "kagari %s %s|%s|%s|kv %d, activations %d, parts %x%s%s", KG_VERSION, b->name, d->name, d->driver, (int)params->kv_type, (int)params->activations,
                       what.parts & SPECIAL, params->deterministic ? ", deterministic" : "", what.type_experts ? ", experts" : "");
    for (int i = 0; i < what.n_types; i++) len += snprintf(key + len, sizeof key - (size_t)len, " %s", what.types[i]->name);
    bool cached = verdict_path(path, sizeof path, key);
    if (again || !cached || !read_verdict(path, key, bad, sizeof bad)) {
        KG_TRY(check(b, params, &what, bad, sizeof bad));
        if (cached) write_verdict(path, key, bad);
    }
    if (!bad[0]) return KG_OK;
    return status_set(KG_ERR_DEVICE, "%s: %s (%s) fails the self-check and is not used: %s", b->name, d->name, d->driver, bad);
}
