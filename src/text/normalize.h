/* Unicode: normalization forms and the classes of characters that tokenizers ask for. */
#ifndef TEXT_NORMALIZE_H
#define TEXT_NORMALIZE_H

#include "base/base.h"

enum unicode_form { FORM_NFC, FORM_NFD, FORM_NFKC, FORM_NFKD };

/* Whether form C of a text may differ: a quick look, true where in doubt. */
bool normalize_needed(const char *text, size_t n);
/* Appends a form of valid UTF-8; form C takes at most three times the length, KC and KD eleven times. */
kg_status normalize_form(struct buf *out, const char *text, size_t n, enum unicode_form form);

/* White_Space; punctuation with all of ASCII's symbols; Nd, Nl, No; Mn; M; Cc, Cf, Co without tab and line ends; ideographs as BERT has them. */
bool unicode_is_space(uint32_t code);
bool unicode_is_punctuation(uint32_t code);
bool unicode_is_number(uint32_t code);
bool unicode_is_nonspacing(uint32_t code);
bool unicode_is_mark(uint32_t code);
bool unicode_is_control(uint32_t code);
bool unicode_is_ideograph(uint32_t code);
/* Appends the lower case of one character. */
kg_status unicode_lower(struct buf *out, uint32_t code);
kg_status utf8_append(struct buf *out, uint32_t code);

#endif
