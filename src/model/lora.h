/* Low-rank adapters (LoRA, Hu et al. 2021, arXiv 2106.09685) in GGUF, as llama.cpp's conversion writes them: general.type "adapter",
 * adapter.type "lora", adapter.lora.alpha, and for a matrix NAME {in, out} the tensors NAME.lora_a {in, rank} and NAME.lora_b {rank, out}. Of
 * the matrices of experts there is one pair more per expert, {in, rank, experts}; of token_embd.weight A is {rank, n_vocab}. Folders of peft come as such. */
#ifndef MODEL_LORA_H
#define MODEL_LORA_H

#include "file/file.h"
#include "model/program.h"

/* Opens path, the next adapter of p, and appends its pairs to p->loras. base: the model's file, whose architecture it must be. The pairs
 * borrow from *out. */
kg_status lora_open(struct file **out, const char *path, const struct file *base, struct program *p);
/* Every pair has found its matrix. */
kg_status lora_check_used(const struct program *p);

#endif
