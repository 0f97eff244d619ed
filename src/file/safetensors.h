/* Safetensors files, and Hugging Face folders that consist of them. */
#ifndef FILE_SAFETENSORS_H
#define FILE_SAFETENSORS_H

#include "file/meta_out.h"
#include "file/reader.h"

#include <jansson.h>

bool safetensors_recognise(const struct os_map *m);
/* Appends the tensors of a file, under the names that they have there, to f->tensors. */
kg_status safetensors_read(struct file *f, const struct os_map *map);

/* Fills f from a folder: config.json, the weights and the tokenizer, under the names and keys that GGUF has for them.
 * only: the one file of weights to take, NULL: those that the folder has. */
kg_status hf_read(struct file *f, const char *folder, const char *only);
/* Only the tokenizer and the chat template. name: tokenizer.json or tokenizer.model, whatever its file is called; NULL: what the folder has. */
kg_status hf_read_tokenizer(struct file *f, const char *folder, const char *name);

/* An adapter of peft, for the model base. */
kg_status hf_read_adapter(struct file *f, const char *folder, const struct file *base);

/* tokenizer.json -> tokenizer.ggml.* keys. config: config.json; tokenizer_config: tokenizer_config.json or NULL.
 * n_vocab: rows of the embedding; the list of tokens is filled up to it; 0: not known. */
kg_status hf_tokenizer_json(struct meta_out *o, const json_t *tokenizer, const json_t *config, const json_t *tokenizer_config, uint32_t n_vocab);
/* The same from a vocabulary of RWKV World (rwkv_vocab.c). */
kg_status rwkv_vocab_read(struct meta_out *o, const uint8_t *p, size_t n_bytes, uint32_t n_vocab);

#endif
