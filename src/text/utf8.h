/* UTF-8 checks that the tokenizers share. */
#ifndef TEXT_UTF8_H
#define TEXT_UTF8_H

#include "base/base.h"

/* Of the bytes s[0..n), n <= 4: 1 if they are one whole character, 0 if one could begin so, -1 if none does. */
int utf8_check(const uint8_t *s, size_t n);
/* Bytes of the character at s, n bytes left; 0 if none is there. */
size_t utf8_char(const uint8_t *s, size_t n);
/* Length of the longest valid UTF-8 that s[0..n) begins with. */
size_t utf8_valid_prefix(const uint8_t *s, size_t n);
/* Decodes the character at s (n bytes left) into *code; returns its bytes, 0 if none is there. */
size_t utf8_decode(const uint8_t *s, size_t n, uint32_t *code);

#endif
