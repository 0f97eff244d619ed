/* Tokenizers: text to ids and back. kg_tokenizer of the public header is struct kg_tokenizer here. */
#ifndef TEXT_TEXT_H
#define TEXT_TEXT_H

#include "file/file.h"

/* Builds from the file's metadata and copies what it needs: the file may be closed afterwards.
 * KG_OK with *out NULL when the file has no tokenizer at all (no tokenizer.ggml.model key). */
kg_status tokenizer_new(kg_tokenizer **out, const struct file *f);

/* Gathers bytes and hands out whole UTF-8 only. Zero-initialised is ready to use. */
struct utf8_stream {
    uint8_t held[4];
    int n_held;
};
/* Appends to out the bytes that are complete after `n` more; invalid sequences become U+FFFD.
 * flush: nothing follows, what is held is incomplete and becomes U+FFFD. */
kg_status utf8_stream_push(struct utf8_stream *s, const char *bytes, size_t n, bool flush, struct buf *out);

#endif
