/* Unicode normalization. */
#ifndef TEXT_NORMALIZE_H
#define TEXT_NORMALIZE_H

#include "base/base.h"

/* Whether a text may change: a quick look, true where in doubt. */
bool normalize_needed(const char *text, size_t n);
/* Appends form C of valid UTF-8; a text may grow to three times its length. */
kg_status normalize_nfc(struct buf *out, const char *text, size_t n);

#endif
