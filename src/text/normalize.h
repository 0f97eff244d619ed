/* Unicode normalization. */
#ifndef TEXT_NORMALIZE_H
#define TEXT_NORMALIZE_H

#include "base/base.h"

/* Whether a text may change: a quick look, true where in doubt. */
bool normalize_needed(const char *text, size_t n);
/* Appends a form of valid UTF-8: NFD, with these flags NFC, NFKD, NFKC. A text may grow to three times its length, by NFKC eleven times. */
enum { NORMALIZE_COMPOSE = 1, NORMALIZE_COMPATIBLE = 2 };
kg_status normalize_form(struct buf *out, const char *text, size_t n, unsigned flags);

#endif
