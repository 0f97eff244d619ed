#!/usr/bin/env python3
"""Writes tests/golden/tokenizer_json: small tokenizer.json files with the steps of real models, and the ids that the `tokenizers` package
   gives for some texts (NAME.ids: for each text its length in bytes and the number of ids, the text, the ids).
   tools/mktokenizers.py OUT_FOLDER        needs: pip install tokenizers (made with 0.23.3)"""
import json, os, sys
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

TEXTS = ["Hello, world! It's 12345 o'clock; we'll SEE.", "  two  spaces   and\ttabs\n\n new lines \r\n", "naïve café Ünïcödé ß Straße",
         "こんにちは世界、元気ですか", "Привет, как дела?", "नमस्ते दुनिया", "emoji 🙂🙃 and 👩‍👩‍👧", "", " ", "aaaaaaaaaaaa      bbbbbb", "مرحبا بالعالم",
         "cafe\u0301 a\u0323\u0302 a\u0302\u0323 \u1112\u1161\u11ab\u1100\u1173\u11af \u212b \u0958 \u0344 \u2126 s\u0307\u0323\u0301\u0315",
         "x = [1, 22, 333, 4444]; // code()\n    return x ** 2;"]
TRAIN = TEXTS * 2 + ["the fire in the iron basket lights the river and the boats", "hello hello world world it is and we are here"]
CL100K = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
out = sys.argv[1]
os.makedirs(out, exist_ok=True)

def save(t, name):
    open(f"{out}/{name}.json", "w", encoding="utf-8").write(t.to_str())
    with open(f"{out}/{name}.ids", "wb") as f:
        for text in TEXTS:
            ids = t.encode(text, add_special_tokens=False).ids
            b = text.encode()
            f.write(f"{len(b)} {len(ids)}\n".encode() + b + b"\n" + " ".join(map(str, ids)).encode() + b"\n")

def bytes_bpe(name, pre, normalizer=None):
    t = Tokenizer(models.BPE())
    if normalizer: t.normalizer = normalizer
    t.pre_tokenizer = pre
    t.train_from_iterator(TRAIN, trainers.BpeTrainer(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<s>"]))
    save(t, name)

def char_bpe(name, normalizer, pre):
    t = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    t.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    special = ["<unk>", "<s>", "</s>"]
    t.train_from_iterator(TRAIN, trainers.BpeTrainer(vocab_size=450, limit_alphabet=90, special_tokens=special + ["<0x%02X>" % i for i in range(256)]))
    j = json.loads(t.to_str())
    j["normalizer"], j["pre_tokenizer"], j["added_tokens"] = normalizer, pre, j["added_tokens"][:3]
    save(Tokenizer.from_str(json.dumps(j)), name)

split = lambda p: pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(p), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
bytes_bpe("gpt2", pre_tokenizers.ByteLevel(add_prefix_space=False))
bytes_bpe("llama3", split(CL100K % r"\p{N}{1,3}"))
bytes_bpe("qwen2", split(CL100K % r"\p{N}"), normalizers.NFC())
bytes_bpe("stablelm2", split(CL100K % r"\p{N}"))
replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
char_bpe("llama2", {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, replace]}, None)
char_bpe("gemma", replace, {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False})
char_bpe("mistral", None, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False})
