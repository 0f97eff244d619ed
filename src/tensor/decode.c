/* The tables of the decoders, expanded from quant.def. The bodies are in decode_basic.c, decode_k.c and decode_iq.c. */
#include "tensor/decode.h"
#include "tensor/decode_rows.h"

static const decode_f32_fn f32_table[] = {
#define QUANT(ENUM, name, text, id, block, bytes) [id] = decode_f32_##name,
#include "tensor/quant.def"
#undef QUANT
};

static const struct int_form *const int_table[] = {
#define QUANT(ENUM, name, text, id, block, bytes) [id] = &int_form_##name,
#include "tensor/quant.def"
#undef QUANT
};

decode_f32_fn decode_f32(enum tensor_type type) { return (size_t)type < COUNT_OF(f32_table) ? f32_table[type] : NULL; }

struct int_form decode_int_form(enum tensor_type type)
{
    struct int_form none = {0};
    return (size_t)type < COUNT_OF(int_table) && int_table[type] ? *int_table[type] : none;
}
