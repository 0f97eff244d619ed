#!/usr/bin/env python3
"""Turns a GGUF of architecture llama into the Hugging Face folder that it could come from: for tests of the reader and of convert.
   tools/mkhf.py MODEL.gguf CONFIG.json TOKENIZER.model OUT_FOLDER [SHARDS]        needs: pip install gguf safetensors numpy"""
import json, os, shutil, sys
import numpy as np
from gguf import GGUFReader
from safetensors.numpy import save_file

NAMES = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
         "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
         "ffn_down": "mlp.down_proj"}
TOP = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight", "output.weight": "lm_head.weight"}

def name_of(name):
    if name in TOP:
        return TOP[name]
    _, layer, part, suffix = name.split(".")
    return f"model.layers.{layer}.{NAMES[part]}.{suffix}"

def halves(w, heads):  # rows of a head: pairs -> all first ones, then all second ones
    return w.reshape(heads, w.shape[0] // heads // 2, 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)

model, config, tokenizer, out = sys.argv[1:5]
shards = int(sys.argv[5]) if len(sys.argv) > 5 else 1
c = json.load(open(config))
tensors = {}
for t in GGUFReader(model).tensors:
    w = np.array(t.data)
    if ".attn_q." in t.name:
        w = halves(w, c["num_attention_heads"])
    if ".attn_k." in t.name:
        w = halves(w, c["num_key_value_heads"])
    tensors[name_of(t.name)] = np.ascontiguousarray(w)
os.makedirs(out, exist_ok=True)
shutil.copyfile(config, out + "/config.json")
shutil.copyfile(tokenizer, out + "/tokenizer.model")
names = list(tensors)
if shards == 1:
    save_file(tensors, out + "/model.safetensors")
else:
    where = {}
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        part = {n: tensors[n] for n in names[i::shards]}
        save_file(part, f"{out}/{file}")
        where.update({n: file for n in part})
    json.dump({"metadata": {}, "weight_map": where}, open(out + "/model.safetensors.index.json", "w"))
