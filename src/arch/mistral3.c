/* Ministral 3, text: as Llama; queries are sharpened with the position, and a stretched rotation leaves cos and sin as they are. */
#include "model/decoder.h"

static kg_status adjust(struct arch_build *b, struct decoder *d)
{
    bool found;
    KG_TRY(arch_f64(b, "attention.temperature_scale", &d->temperature, &found));
    d->temperature_length = (int)d->rope[DECODER_GLOBAL].orig_ctx;
    return arch_u32(b, "attention.temperature_length", &d->temperature_length, &found);
}

static kg_status hparams(struct arch_build *b)
{
    b->knows_log_multiplier = true;
    return decoder_hparams(b);
}

static const struct decoder_style style = {.adjust = adjust, .warm_all = true};

const struct arch arch_mistral3 = {"mistral3", sizeof(struct decoder), 0, hparams, decoder_tensors, decoder_program, &style};
