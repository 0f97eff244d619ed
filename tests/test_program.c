/* layers: model */
/* The program builder refuses what the formulas of program.h do not allow, and says where; architectures refuse files that miss a
 * key or tensor, or have one too many. The files are written here and damaged one fact at a time. */
#include "gguf_writer.h"
#include "model/model.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- the builder by itself */

static const char zeros[1 << 16];

static struct tensor f32(const char *name, int64_t ne0, int64_t ne1)
{
    return (struct tensor){
        .name = name, .type = TYPE_F32, .n_dims = 2, .ne = {ne0, ne1, 1, 1}, .data = zeros, .n_bytes = (size_t)(ne0 * ne1) * 4};
}

/* A program with the registers that the cases below use. */
enum { W8, W8B, W4, W4B, W16, W8C, N_REGS };
static struct program start(void)
{
    struct program p = {.n_layers = 2, .dim = 8, .n_vocab = 16, .n_ctx = 4};
    static const int widths[N_REGS] = {[W8] = 8, [W8B] = 8, [W4] = 4, [W4B] = 4, [W16] = 16, [W8C] = 8};
    for (int i = 0; i < N_REGS; i++) assert_int_equal(program_reg(&p, widths[i]), i);
    return p;
}

/* The program has failed and its message has all the words, given as "a|b|c". */
static void assert_fails(struct program *p, const char *words)
{
    assert_int_not_equal(program_finish(p), KG_OK);
    char copy[256], *save = NULL;
    snprintf(copy, sizeof copy, "%s", words);
    for (char *w = strtok_r(copy, "|", &save); w; w = strtok_r(NULL, "|", &save))
        if (!strstr(kg_error_message(), w)) fail_msg("\"%s\" lacks \"%s\"", kg_error_message(), w);
    program_free(p);
}

static struct rope a_rope(void) { return (struct rope){.n_heads = 2, .head_dim = 4, .n_rot = 4, .base = 10000, .factor = 1}; }

static void good_program(void **state)
{
    (void)state;
    struct program p = start();
    struct tensor embd = f32("embd", 8, 16), pos = f32("pos", 8, 4), n = f32("n", 8, 1), wk = f32("wk", 8, 4), bk = f32("bk", 4, 1);
    struct rope rope = a_rope();
    program_embed(&p, W8, &embd);
    program_pos_embed(&p, W8, W8, &pos);
    program_set_layer(&p, 1);
    program_rms_norm(&p, W8B, W8, &n, NULL, 1e-5);
    program_layer_norm(&p, W8B, W8B, &n, &n, 1e-5);
    program_rope(&p, W8B, &rope);
    program_matmul(&p, W4, W8B, &wk, &bk);
    program_attention(&p, W8C, W8B, W4, W4, 2, 1, 4, 4, 0.5);
    program_glu(&p, W8C, W8C, W8B, ACTIVATION_SILU);
    program_act(&p, W8C, W8C, ACTIVATION_RELU);
    program_add(&p, W8, W8, W8C);
    program_tap(&p);
    program_set_layer(&p, -1);
    program_select(&p, W8B, W8);
    program_matmul(&p, W16, W8B, &embd, NULL);
    program_logits(&p, W16);
    assert_int_equal(program_finish(&p), KG_OK);
    assert_int_equal(p.n_ops, 15); /* three registers are alive behind the attention */
    for (int i = 0; i < 3; i++) {
        assert_int_equal(p.ops[7 + i].code, OP_SELECT);
        assert_true(p.ops[7 + i].dst >= N_REGS && p.reg_width[p.ops[7 + i].dst] == 8);
    }
    assert_int_equal(p.ops[13].src[0], p.ops[12].dst);
    assert_int_equal(p.n_kv, 1);
    assert_int_equal(p.kv[0].k_width, 4);
    assert_int_equal(p.ops[2].layer, 1);
    assert_int_equal(p.ops[0].layer, -1);
    assert_true(p.ops[12].tap && p.ops[12].dst == p.ops[12].src[0] && p.ops[12].dst >= N_REGS);
    assert_string_equal(op_name(p.ops[6].code), "attention");
    program_free(&p);
}

static void wrong_shapes(void **state)
{
    (void)state;
    struct tensor w88 = f32("w88", 8, 8), w84 = f32("w84", 8, 4), v3 = f32("v3", 3, 1), v4 = f32("v4", 4, 1), v8 = f32("v8", 8, 1), w8_16 = f32("w8_16", 8, 16), w4_16 = f32("w4_16", 4, 16);
    struct program p = start();
    program_embed(&p, W8, &w88);
    assert_fails(&p, "embed|w88|{8, 16}");
    p = start();
    program_pos_embed(&p, W8, W8B, &w88);
    assert_fails(&p, "pos_embed|w88|{8, 4}");
    p = start();
    program_set_layer(&p, 1);
    program_rms_norm(&p, W8, W8, &v3, NULL, 1e-5);
    assert_fails(&p, "rms_norm in layer 1|v3");
    p = start();
    program_layer_norm(&p, W8, W8B, &v8, &v4, 1e-5);
    assert_fails(&p, "layer_norm|v4");
    p = start();
    program_rms_norm(&p, W8, W4, &v8, NULL, 1e-5);
    assert_fails(&p, "rms_norm|width 4");
    p = start();
    program_rms_norm(&p, W8, W8, &v8, NULL, NAN);
    assert_fails(&p, "rms_norm|epsilon");
    p = start();
    program_matmul(&p, W8B, W8, &w84, NULL);
    assert_fails(&p, "matmul|w84|{8, 8}");
    p = start();
    program_matmul(&p, W8, W4, &w84, NULL);
    assert_fails(&p, "matmul|w84|{4, 8}");
    p = start();
    program_matmul(&p, W4, W8, &w84, &v8);
    assert_fails(&p, "matmul|v8|{4, 1}");
    p = start();
    program_matmul(&p, W8, W8, &w88, NULL);
    assert_fails(&p, "matmul|both source and destination");
    p = start();
    program_matmul(&p, W4, W8, NULL, NULL);
    assert_fails(&p, "matmul|missing");
    struct tensor e843 = f32("e843", 8, 4), b43 = f32("b43", 4, 3), sinks = f32("sinks", 3, 1);
    const struct route two = {.n_used = 2, .scale = 1};
    e843.ne[2] = 3;
    e843.n_bytes *= 3;
    p = start();
    program_route(&p, W4B, W4, NULL, &(struct route){.n_used = 5, .scale = 1});
    assert_fails(&p, "route|5 of 4");
    p = start();
    program_route(&p, W8, W4, NULL, &two);
    assert_fails(&p, "route|width 8, wanted 4");
    p = start();
    program_route(&p, W4B, W4, &v8, &two);
    assert_fails(&p, "route|v8");
    p = start();
    program_route(&p, W4B, W16, NULL, &(struct route){.n_used = 2, .scale = 1, .n_groups = 3, .n_groups_used = 1});
    assert_fails(&p, "route|1 of 3 groups of 16");
    p = start();
    program_matmul_experts(&p, W4, W8, W4B, &w84, NULL);
    assert_fails(&p, "matmul_experts|2 of 1 experts");
    p = start();
    program_matmul_experts(&p, W8B, W4, W4B, &e843, NULL);
    assert_fails(&p, "matmul_experts|width 4, wanted 8");
    p = start();
    program_matmul_experts(&p, W8B, W8, W4B, &e843, &v4);
    assert_fails(&p, "matmul_experts|v4|{4, 3}");
    p = start();
    program_embed(&p, W8, &w8_16);
    program_embed(&p, W4B, &w4_16);
    program_matmul_experts(&p, W8B, W8, W4B, &e843, &b43);
    program_select(&p, W8, W8B);
    program_matmul(&p, W16, W8, &w8_16, NULL);
    program_logits(&p, W16);
    assert_fails(&p, "matmul_experts|e843|register 3 chooses of 0");
    p = start();
    program_combine(&p, W4, W4B, W8);
    assert_fails(&p, "combine|width 4, wanted 16");
    p = start();
    program_take(&p, W4, W8, 2, 3);
    assert_fails(&p, "take|from 3 on");
    p = start();
    program_join(&p, W8, W4, W8B, 2);
    assert_fails(&p, "join|do not make 8");
    p = start();
    program_gate(&p, W8, W8B, W4, ACTIVATION_SIGMOID);
    assert_fails(&p, "gate|width 4");
    p = start();
    program_act(&p, W8, W8B, ACTIVATION_SWIGLU_OAI);
    assert_fails(&p, "act|activation");
    p = start();
    program_softcap(&p, W8, W8B, 0);
    assert_fails(&p, "softcap|above 0");
    p = start();
    program_attention_as(&p, W8C, W8, W4, W4, &(struct attention){.n_heads = 2, .n_kv_heads = 1, .k_dim = 4, .v_dim = 4, .scale = 1, .sinks = &sinks});
    assert_fails(&p, "attention|sinks|{2, 1}");
    p = start();
    program_attention_as(&p, W8C, W8, W4, W4, &(struct attention){.n_heads = 2, .n_kv_heads = 1, .k_dim = 4, .v_dim = 4, .scale = 1, .window = -1});
    assert_fails(&p, "attention|window");
    p = start();
    program_add(&p, W8, W8, W4);
    assert_fails(&p, "add|second source|width 4");
    p = start();
    program_glu(&p, W8, W4, W8, ACTIVATION_SILU);
    assert_fails(&p, "glu|gate|width 4");
    p = start();
    program_act(&p, W8, W4, ACTIVATION_SILU);
    assert_fails(&p, "act|width 4");
    p = start();
    program_select(&p, W8, W4);
    assert_fails(&p, "select|width 4");
    p = start();
    program_logits(&p, W8);
    assert_fails(&p, "logits|width 8, wanted 16");
    struct tensor cut = w84;
    cut.n_bytes -= 4;
    p = start();
    program_matmul(&p, W4, W8, &cut, NULL);
    assert_fails(&p, "matmul|w84|bytes");
    struct tensor odd = w84;
    odd.type = TYPE_Q4_0; /* blocks of 32 in rows of 8 */
    p = start();
    program_matmul(&p, W4, W8, &odd, NULL);
    assert_fails(&p, "matmul|w84|blocks");
}

static void wrong_rope(void **state)
{
    (void)state;
    static const struct {
        int n_rot, head_dim, n_heads;
        double base;
        const char *words;
    } cases[] = {{3, 4, 2, 1e4, "rope|3 rotated"}, {6, 4, 2, 1e4, "rope|6 rotated"},
                 {0, 4, 2, 1e4, "rope|0 rotated"}, {4, 4, 1, 1e4, "rope|width 8, wanted 4"},
                 {4, 4, 0, 1e4, "rope|0 heads"},   {4, 4, 2, 0, "rope|base"},
                 {4, 4, 2, NAN, "rope|base"},      {4, 4, 2, INFINITY, "rope|base"}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct program p = start();
        struct rope r = a_rope();
        r.n_rot = cases[i].n_rot, r.head_dim = cases[i].head_dim, r.n_heads = cases[i].n_heads, r.base = cases[i].base;
        program_rope(&p, W8, &r);
        assert_fails(&p, cases[i].words);
    }
    struct tensor three = f32("factors", 3, 1);
    struct rope r = a_rope();
    r.factors = &three;
    struct program p = start();
    program_rope(&p, W8, &r);
    assert_fails(&p, "rope|factors|{2, 1}");
    r = a_rope();
    r.scaling = ROPE_SCALING_LINEAR, r.factor = 0;
    p = start();
    program_rope(&p, W8, &r);
    assert_fails(&p, "rope|factor");
    r = a_rope();
    r.scaling = ROPE_SCALING_LLAMA3, r.factor = 8, r.orig_ctx = 64, r.low_freq = 4, r.high_freq = 1;
    p = start();
    program_rope(&p, W8, &r);
    assert_fails(&p, "rope|high frequency");
}

static void wrong_attention(void **state)
{
    (void)state;
    static const struct {
        int dst, q, k, v, n_heads, n_kv, k_dim, v_dim;
        double scale;
        const char *words;
    } cases[] = {{W8C, W8, W4, W4B, 3, 2, 4, 4, 1, "3 heads"},          {W8C, W8, W4, W4B, 2, 0, 4, 4, 1, "0 key/value"},
                 {W8C, W8, W8B, W4B, 2, 1, 4, 4, 1, "key has width 8"}, {W8C, W8, W4, W8B, 2, 1, 4, 4, 1, "value has"},
                 {W4, W8, W4B, W4B, 2, 1, 4, 4, 1, "destination"},      {W8C, W4, W4B, W4B, 2, 1, 4, 4, 1, "query has width 4"},
                 {W8C, W8, W4, W4B, 2, 1, 4, 4, NAN, "scale"},          {W8, W8, W4, W4B, 2, 1, 4, 4, 1, "both source"},
                 {W8C, 99, W4, W4B, 2, 1, 4, 4, 1, "register 99"},      {W8C, W8, -1, W4B, 2, 1, 4, 4, 1, "register -1"},
                 {99, W8, W4, W4B, 2, 1, 4, 4, 1, "register 99"}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct program p = start();
        program_set_layer(&p, 0);
        program_attention(&p, cases[i].dst, cases[i].q, cases[i].k, cases[i].v, cases[i].n_heads, cases[i].n_kv, cases[i].k_dim,
                          cases[i].v_dim, cases[i].scale);
        char words[96];
        snprintf(words, sizeof words, "attention in layer 0|%s", cases[i].words);
        assert_fails(&p, words);
    }
}

static void wrong_order(void **state)
{
    (void)state;
    struct tensor embd = f32("embd", 8, 16);
    struct program p = start();
    program_embed(&p, W8, &embd);
    program_add(&p, W8, W8, W8B); /* nothing in W8B */
    program_select(&p, W8B, W8);
    program_matmul(&p, W16, W8B, &embd, NULL);
    program_logits(&p, W16);
    assert_fails(&p, "add|register 1|nothing yet");
    p = start();
    program_embed(&p, W8, &embd);
    program_select(&p, W8B, W8);
    program_matmul(&p, W16, W8, &embd, NULL); /* the rows of the whole batch */
    program_logits(&p, W16);
    assert_fails(&p, "matmul|since select");
    p = start();
    program_embed(&p, W8, &embd);
    program_select(&p, W8B, W8);
    program_select(&p, W8, W8B);
    program_matmul(&p, W16, W8, &embd, NULL);
    program_logits(&p, W16);
    assert_fails(&p, "select|after select");
    p = start();
    program_embed(&p, W8, &embd);
    program_matmul(&p, W16, W8, &embd, NULL);
    program_logits(&p, W16);
    assert_fails(&p, "never selects");
    p = start();
    program_embed(&p, W8, &embd);
    assert_fails(&p, "does not end in logits");
    p = start();
    program_logits(&p, W16);
    program_embed(&p, W8, &embd);
    assert_fails(&p, "embed|after logits");
    p = start();
    program_set_layer(&p, 2);
    assert_fails(&p, "layer 2 of 2");
    p = start();
    program_embed(&p, W8, &embd);
    program_tap(&p); /* outside the layers */
    assert_fails(&p, "tapped");
    p = start();
    assert_int_equal(program_reg(&p, 0), -1);
    assert_fails(&p, "width 0");
    program_free(NULL);
}

/* ---- files */

/* One fact about the file to be written is changed. */
struct change {
    const char *drop;  /* key or tensor that is left out */
    const char *extra; /* tensor {8} that is added */
    const char *key;   /* u32 key that gets another value ... */
    uint32_t value;
    const char *str_key, *str; /* a string key that is added or replaced */
    const char *f32_key;       /* an f32 key that is added or replaced */
    float f32;
    const char *shape; /* tensor that gets one row more */
    bool kv_array;     /* head_count_kv as an array */
    uint32_t kv[2];
};

static char path[64];

static bool is(const char *a, const char *b) { return a && !strcmp(a, b); }

static void key_u32(struct gw *w, const struct change *c, const char *key, uint32_t value)
{
    if (is(c->drop, key) || is(c->str_key, key)) return;
    gw_u32(w, key, is(c->key, key) ? c->value : value);
}

static void tensor(struct gw *w, const struct change *c, const char *name, int64_t ne0, int64_t ne1)
{
    if (is(c->drop, name)) return;
    if (is(c->shape, name)) ne1 += ne1 > 1, ne0 += ne1 == 1;
    int64_t ne[2] = {ne0, ne1};
    size_t n = (size_t)(ne0 * ne1);
    float *ones = malloc(n * 4);
    assert_non_null(ones);
    for (size_t i = 0; i < n; i++) ones[i] = 1;
    gw_tensor(w, name, TYPE_F32, ne1 > 1 ? 2 : 1, ne, ones, n * 4);
    free(ones);
}

static void layer_tensor(struct gw *w, const struct change *c, int layer, const char *name, int64_t ne0, int64_t ne1)
{
    char full[96];
    snprintf(full, sizeof full, "blk.%d.%s", layer, name);
    tensor(w, c, full, ne0, ne1);
}

static void write_more(struct gw *w, const struct change *c)
{
    if (c->extra) tensor(w, c, c->extra, 8, 1);
    if (c->str_key && strcmp(c->str_key, "general.architecture")) gw_str(w, c->str_key, c->str);
    if (c->f32_key) gw_f32(w, c->f32_key, c->f32);
    assert_true(gw_save(w, path));
}

static void write_llama(const struct change *c)
{
    struct gw w = {0};
    if (!is(c->drop, "general.architecture")) gw_str(&w, "general.architecture", is(c->str_key, "general.architecture") ? c->str : "llama");
    key_u32(&w, c, "llama.block_count", 2);
    key_u32(&w, c, "llama.context_length", 32);
    key_u32(&w, c, "llama.embedding_length", 8);
    key_u32(&w, c, "llama.feed_forward_length", 16);
    key_u32(&w, c, "llama.attention.head_count", 2);
    if (c->kv_array) {
        gw_arr(&w, "llama.attention.head_count_kv", GW_U32, c->kv, 2, 4);
    } else {
        key_u32(&w, c, "llama.attention.head_count_kv", 1);
    }
    if (c->key && (strstr(c->key, "expert_count") || strstr(c->key, "vocab_size") || strstr(c->key, "dimension_count") ||
                   strstr(c->key, "sliding") || strstr(c->key, "key_length")))
        key_u32(&w, c, c->key, 0);
    if (!is(c->drop, "llama.attention.layer_norm_rms_epsilon") && !is(c->f32_key, "llama.attention.layer_norm_rms_epsilon"))
        gw_f32(&w, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    tensor(&w, c, "token_embd.weight", 8, 16);
    tensor(&w, c, "output_norm.weight", 8, 1);
    for (int i = 0; i < 2; i++) {
        layer_tensor(&w, c, i, "attn_norm.weight", 8, 1);
        layer_tensor(&w, c, i, "attn_q.weight", 8, 8);
        layer_tensor(&w, c, i, "attn_k.weight", 8, 4);
        layer_tensor(&w, c, i, "attn_v.weight", 8, 4);
        layer_tensor(&w, c, i, "attn_output.weight", 8, 8);
        layer_tensor(&w, c, i, "ffn_norm.weight", 8, 1);
        layer_tensor(&w, c, i, "ffn_gate.weight", 8, 16);
        layer_tensor(&w, c, i, "ffn_up.weight", 8, 16);
        layer_tensor(&w, c, i, "ffn_down.weight", 16, 8);
    }
    write_more(&w, c);
}

static void write_gpt2(const struct change *c)
{
    struct gw w = {0};
    gw_str(&w, "general.architecture", "gpt2");
    key_u32(&w, c, "gpt2.block_count", 1);
    key_u32(&w, c, "gpt2.context_length", 32);
    key_u32(&w, c, "gpt2.embedding_length", 8);
    key_u32(&w, c, "gpt2.feed_forward_length", 16);
    key_u32(&w, c, "gpt2.attention.head_count", 2);
    gw_f32(&w, "gpt2.attention.layer_norm_epsilon", 1e-5f);
    tensor(&w, c, "token_embd.weight", 8, 16);
    tensor(&w, c, "position_embd.weight", 8, 32);
    static const struct {
        const char *name;
        int in, out;
    } parts[] = {{"attn_norm", 8, 1}, {"attn_qkv", 8, 24}, {"attn_output", 8, 8},
                 {"ffn_norm", 8, 1},  {"ffn_up", 8, 16},   {"ffn_down", 16, 8}};
    for (size_t i = 0; i < COUNT_OF(parts); i++) {
        char name[64];
        snprintf(name, sizeof name, "%s.weight", parts[i].name);
        layer_tensor(&w, c, 0, name, parts[i].in, parts[i].out);
        snprintf(name, sizeof name, "%s.bias", parts[i].name);
        layer_tensor(&w, c, 0, name, parts[i].out > 1 ? parts[i].out : parts[i].in, 1);
    }
    tensor(&w, c, "output_norm.weight", 8, 1);
    tensor(&w, c, "output_norm.bias", 8, 1);
    write_more(&w, c);
}

static void assert_model(const char *words, size_t at)
{
    struct model m;
    kg_status status = model_open(&m, path);
    if (!words && status != KG_OK) fail_msg("case %zu: %s", at, kg_error_message());
    if (words && (status == KG_OK || !strstr(kg_error_message(), words) || !strstr(kg_error_message(), path)))
        fail_msg("case %zu: \"%s\" lacks \"%s\" or the path", at, status == KG_OK ? "accepted" : kg_error_message(), words);
    if (status == KG_OK) model_close(&m);
}

static void llama_files(void **state)
{
    (void)state;
    static const struct {
        struct change change;
        const char *words; /* NULL: must open */
    } cases[] = {
        {{0}, NULL},
        {{.drop = "general.architecture"}, "general.architecture"},
        {{.str_key = "general.architecture", .str = "qwen99"}, "\"qwen99\" is not supported; this build knows "},
        {{.drop = "llama.block_count"}, "llama.block_count"},
        {{.key = "llama.block_count", .value = 0}, "llama.block_count"},
        {{.key = "llama.block_count", .value = 3}, "blk.2.attn_norm.weight"},
        {{.key = "llama.block_count", .value = 1000000000}, "llama.block_count"},
        {{.key = "llama.block_count", .value = 1}, "blk.1."}, /* tensors that nothing would read */
        {{.str_key = "llama.block_count", .str = "2"}, "llama.block_count"},
        {{.key = "llama.context_length", .value = 0}, "llama.context_length"},
        {{.key = "llama.embedding_length", .value = 0}, "llama.embedding_length"},
        {{.key = "llama.embedding_length", .value = 16}, "token_embd.weight"},
        {{.key = "llama.embedding_length", .value = 4000000000u}, "llama.embedding_length"},
        {{.key = "llama.attention.head_count", .value = 0}, "llama.attention.head_count"},
        {{.drop = "llama.attention.head_count"}, "llama.attention.head_count"},
        {{.key = "llama.attention.head_count", .value = 3}, "llama.attention.key_length"},
        {{.key = "llama.attention.head_count_kv", .value = 0}, "llama.attention.head_count_kv"},
        {{.key = "llama.attention.head_count_kv", .value = 3}, "not a multiple"},
        {{.drop = "llama.attention.head_count_kv"}, "attn_k.weight"},
        {{.kv_array = true, .kv = {1, 1}}, NULL},
        {{.kv_array = true, .kv = {1, 2}}, "differs between layers"},
        {{.kv_array = true, .kv = {0, 0}}, "llama.attention.head_count_kv"},
        {{.key = "llama.feed_forward_length", .value = 0}, "llama.feed_forward_length"},
        {{.drop = "llama.attention.layer_norm_rms_epsilon"}, "llama.attention.layer_norm_rms_epsilon"},
        {{.f32_key = "llama.attention.layer_norm_rms_epsilon", .f32 = -1}, "llama.attention.layer_norm_rms_epsilon"},
        {{.f32_key = "llama.attention.layer_norm_rms_epsilon", .f32 = NAN}, "llama.attention.layer_norm_rms_epsilon"},
        {{.key = "llama.expert_count", .value = 8}, "llama.expert_used_count"},
        {{.key = "llama.expert_count", .value = 0}, NULL},
        {{.key = "llama.attention.sliding_window", .value = 16}, NULL},
        {{.key = "llama.attention.sliding_window", .value = 32}, NULL},
        {{.key = "llama.attention.key_length", .value = 6}, "attn_q.weight"},
        {{.key = "llama.vocab_size", .value = 15}, "llama.vocab_size"},
        {{.key = "llama.vocab_size", .value = 16}, NULL},
        {{.key = "llama.rope.dimension_count", .value = 2}, NULL},
        {{.key = "llama.rope.dimension_count", .value = 3}, "llama.rope.dimension_count"},
        {{.key = "llama.rope.dimension_count", .value = 6}, "llama.rope.dimension_count"},
        {{.f32_key = "llama.rope.freq_base", .f32 = 0}, "llama.rope.freq_base"},
        {{.f32_key = "llama.rope.scaling.factor", .f32 = 4}, NULL},
        {{.f32_key = "llama.rope.scaling.factor", .f32 = -4}, "llama.rope.scaling.factor"},
        {{.f32_key = "llama.rope.scaling.attn_factor", .f32 = 2}, "llama.rope.scaling.attn_factor"},
        {{.str_key = "llama.rope.scaling.type", .str = "none"}, NULL},
        {{.str_key = "llama.rope.scaling.type", .str = "linear"}, "llama.rope.scaling.factor"},
        {{.str_key = "llama.rope.scaling.type", .str = "yarn", .f32_key = "llama.rope.scaling.factor", .f32 = 4}, NULL},
        {{.str_key = "llama.rope.scaling.type", .str = "llama3", .f32_key = "llama.rope.scaling.factor", .f32 = 8}, NULL},
        {{.str_key = "llama.rope.scaling.type", .str = "longrope", .f32_key = "llama.rope.scaling.factor", .f32 = 8}, "longrope"},
        {{.drop = "token_embd.weight"}, "missing tensor token_embd.weight"},
        {{.drop = "output_norm.weight"}, "missing tensor output_norm.weight"},
        {{.drop = "blk.1.ffn_up.weight"}, "missing tensor blk.1.ffn_up.weight"},
        {{.shape = "blk.1.ffn_up.weight"}, "tensor blk.1.ffn_up.weight is {8, 17, 1, 1}, wanted {8, 16}"},
        {{.shape = "blk.0.attn_norm.weight"}, "blk.0.attn_norm.weight"},
        {{.extra = "blk.0.attn_q.bias"}, NULL},
        {{.extra = "blk.0.attn_q_norm.weight"}, "blk.0.attn_q_norm.weight"},
        {{.extra = "blk.0.attn_rot_embd"}, NULL},
        {{.extra = "rope_freqs.weight"}, "rope_freqs.weight"}, /* {8}, wanted {2} */
        {{.extra = "output.weight"}, "output.weight"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        write_llama(&cases[i].change);
        assert_model(cases[i].words, i);
    }
}

static void gpt2_files(void **state)
{
    (void)state;
    static const struct {
        struct change change;
        const char *words;
    } cases[] = {
        {{0}, NULL},
        {{.drop = "blk.0.attn_qkv.bias"}, "blk.0.attn_qkv.bias"},
        {{.shape = "position_embd.weight"}, "position_embd.weight"},
        {{.shape = "blk.0.attn_qkv.weight"}, "blk.0.attn_qkv.weight"},
        {{.key = "gpt2.attention.head_count", .value = 3}, "gpt2.attention.key_length"},
        {{.key = "gpt2.context_length", .value = 31}, "position_embd.weight"},
        {{.extra = "blk.0.attn.bias"}, NULL},
        {{.extra = "blk.0.attn.masked_bias"}, NULL},
        {{.extra = "blk.0.other.weight"}, "blk.0.other.weight"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        write_gpt2(&cases[i].change);
        assert_model(cases[i].words, i);
    }
    write_gpt2(&cases[0].change);
    struct model m;
    assert_int_equal(model_open(&m, path), KG_OK);
    assert_true(m.program.ctx_is_hard);
    const struct tensor *whole = file_tensor(m.file, "blk.0.attn_qkv.weight"), *bias = file_tensor(m.file, "blk.0.attn_qkv.bias");
    int part = 0;
    for (int i = 0; i < m.program.n_ops; i++) {
        const struct op *op = &m.program.ops[i];
        if (op->code != OP_MATMUL || !strstr(op->w->name, "attn_qkv")) continue;
        assert_ptr_equal(op->w->data, tensor_row(whole, part * 8));
        assert_ptr_equal(op->b->data, (const float *)bias->data + (size_t)part * 8);
        assert_int_equal(op->w->n_bytes, 8 * 8 * 4);
        assert_int_equal(op->b->n_bytes, 8 * 4);
        assert_string_equal(op->w->name, part == 0   ? "blk.0.attn_qkv.weight[q]"
                                         : part == 1 ? "blk.0.attn_qkv.weight[k]"
                                                     : "blk.0.attn_qkv.weight[v]");
        part++;
    }
    assert_int_equal(part, 3);
    model_close(&m);
}

/* The rope of the first layer, as the file's keys ask for it. */
static struct rope file_rope(const struct change *c)
{
    write_llama(c);
    struct model m;
    if (model_open(&m, path) != KG_OK) fail_msg("%s", kg_error_message());
    struct rope r = {0};
    for (int i = 0; i < m.program.n_ops && !r.n_heads; i++)
        if (m.program.ops[i].code == OP_ROPE) r = m.program.ops[i].rope;
    model_close(&m);
    return r;
}

static void rope_keys(void **state)
{
    (void)state;
    struct rope r = file_rope(&(struct change){0});
    assert_true(r.base == 10000 && r.n_rot == 4 && r.scaling == ROPE_SCALING_NONE && r.style == ROPE_INTERLEAVED && !r.factors);
    r = file_rope(&(struct change){.f32_key = "llama.rope.freq_base", .f32 = 500000});
    assert_true(r.base == 500000);
    r = file_rope(&(struct change){.f32_key = "llama.rope.scale_linear", .f32 = 4});
    assert_true(r.scaling == ROPE_SCALING_LINEAR && r.factor == 4);
    r = file_rope(&(struct change){.f32_key = "llama.rope.scaling.factor", .f32 = 0});
    assert_true(r.scaling == ROPE_SCALING_NONE);
    r = file_rope(&(struct change){.str_key = "llama.rope.scaling.type", .str = "none", .f32_key = "llama.rope.scaling.factor", .f32 = 4});
    assert_true(r.scaling == ROPE_SCALING_NONE);
    r = file_rope(&(struct change){.str_key = "llama.rope.scaling.type", .str = "yarn", .f32_key = "llama.rope.scaling.factor", .f32 = 4});
    assert_true(r.scaling == ROPE_SCALING_YARN && r.factor == 4 && r.orig_ctx == 32 && r.beta_fast == 32 && r.beta_slow == 1 &&
                r.ext_factor == 1 && r.attn_factor == 1);
    r = file_rope(
        &(struct change){.str_key = "llama.rope.scaling.type", .str = "llama3", .f32_key = "llama.rope.scaling.factor", .f32 = 8});
    assert_true(r.scaling == ROPE_SCALING_LLAMA3 && r.factor == 8 && r.orig_ctx == 8192 && r.low_freq == 1 && r.high_freq == 4);
}

static void arch_list(void **state)
{
    (void)state;
    assert_non_null(arch_find("llama"));
    assert_non_null(arch_find("gpt2"));
    assert_null(arch_find("nothing"));
    size_t n = 0;
    for (const struct arch *a; (a = arch_at(n)); n++) assert_ptr_equal(arch_find(a->name), a);
    assert_true(n >= 2);
}

static int setup(void **state)
{
    (void)state;
    snprintf(path, sizeof path, "test_program.%ld.gguf", (long)getpid());
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_program),    cmocka_unit_test(wrong_shapes), cmocka_unit_test(wrong_rope),
        cmocka_unit_test(wrong_attention), cmocka_unit_test(wrong_order),  cmocka_unit_test(llama_files),
        cmocka_unit_test(gpt2_files),      cmocka_unit_test(rope_keys),    cmocka_unit_test(arch_list),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
