/* The table of the encoders, expanded from quant.def, and the types that have none. The bodies are in encode_basic.c, encode_k.c,
 * encode_code.c and encode_grid.c. */
#include "tensor/encode_fit.h"

static const struct encoder *const table[] = {
#define QUANT(ENUM, name, text, id, block, bytes) [id] = &encoder_##name,
#include "tensor/quant.def"
#undef QUANT
};

encode_fn encode_f32(enum tensor_type type) { return (size_t)type < COUNT_OF(table) && table[type] ? table[type]->run : NULL; }

/* Formats of activations and of plain integers: weights are not stored in them. */
const struct encoder encoder_q8_1, encoder_q8_k, encoder_i8, encoder_i16, encoder_i32, encoder_i64, encoder_f64;
