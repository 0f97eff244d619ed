/* Granite 3: as Llama, with embeddings, scores, residuals and logits scaled. */
#include "model/decoder.h"

const struct arch arch_granite = DECODER_ARCH("granite", .logits_divided = true);
