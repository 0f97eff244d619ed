/* Llama 4, text: three of four layers rotate and attend within chunks of positions, the others see everything and sharpen their queries with
 * the position; a shared expert, and one chosen by a sigmoid that weighs what goes into it. */
#include "model/decoder.h"

/* The norm of heads has no weights. */
static kg_status norm_heads(struct arch_build *b, struct decoder *d)
{
    const struct tensor *ones;
    KG_TRY(arch_ones(b, &ones, d->k_dim));
    for (int i = 0; i < b->program->n_layers; i++)
        if (d->layers[i].rotates) d->layers[i].q_norm.w = d->layers[i].k_norm.w = ones;
    return KG_OK;
}

static kg_status adjust(struct arch_build *b, struct decoder *d)
{
    int step = 1;
    bool found;
    d->temperature = 0.1;
    d->temperature_length = 8192;
    KG_TRY(arch_f64(b, "attention.temperature_scale", &d->temperature, &found));
    KG_TRY(arch_u32(b, "attention.temperature_length", &d->temperature_length, &found));
    KG_TRY(arch_u32(b, "interleave_moe_layer_step", &step, &found));
    if (d->n_experts > 0 && d->route.n_used != 1)
        return status_set(KG_ERR_UNSUPPORTED, "%s: %d experts for a token: one is supported", b->file->path, d->route.n_used);
    if (step < 1) return status_set(KG_ERR_FORMAT, "%s: key %s.interleave_moe_layer_step is %d", b->file->path, b->prefix, step);
    for (int i = 0; i < b->program->n_layers; i++) {
        d->layers[i].rotates = d->layers[i].kind == DECODER_LOCAL || d->window == 0;
        d->layers[i].moe = d->n_experts > 0 && (i + 1) % step == 0;
    }
    d->shared_ffn = d->n_experts > 0 ? d->expert_ffn : 0;
    return d->n_experts == 128 ? KG_OK : norm_heads(b, d); /* that size has none, and no key says so */
}

const struct arch arch_llama4 = DECODER_ARCH("llama4", .rope = ROPE_INTERLEAVED, .qk_norm_late = true, .window = 8192, .chunked = true, .period = 4,
                                             .moe_sigmoid = true, .moe_weighs_input = true, .adjust = adjust);
