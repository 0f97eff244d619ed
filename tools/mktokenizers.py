#!/usr/bin/env python3
"""Writes tests/golden/tokenizer_json: small tokenizer.json files with the steps of real models, and the ids that the `tokenizers` package
   gives for some texts (NAME.ids: for each text its length in bytes and the number of ids, the text, the ids).
   NAME.model: of SentencePiece, with its ids.
   tools/mktokenizers.py OUT_FOLDER        needs: pip install tokenizers sentencepiece (made with 0.23.3, 0.2.3)"""
import base64, io, json, os, struct, sys, tempfile
import sentencepiece
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

TEXTS = ["Hello, world! It's 12345 o'clock; we'll SEE.", "  two  spaces   and\ttabs\n\n new lines \r\n", "naïve café Ünïcödé ß Straße",
         "こんにちは世界、元気ですか", "Привет, как дела?", "नमस्ते दुनिया", "emoji 🙂🙃 and 👩‍👩‍👧", "", " ", "aaaaaaaaaaaa      bbbbbb", "مرحبا بالعالم",
         "cafe\u0301 a\u0323\u0302 a\u0302\u0323 \u1112\u1161\u11ab\u1100\u1173\u11af \u212b \u0958 \u0344 \u2126 s\u0307\u0323\u0301\u0315",
         "x = [1, 22, 333, 4444]; // code()\n    return x ** 2;"]
TRAIN = TEXTS * 2 + ["the fire in the iron basket lights the river and the boats", "hello hello world world it is and we are here"]
CL100K = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
out = sys.argv[1]
os.makedirs(out, exist_ok=True)

def save_ids(encode, name, texts):
    with open(f"{out}/{name}.ids", "wb") as f:
        for text in texts:
            ids = encode(text)
            b = text.encode()
            f.write(f"{len(b)} {len(ids)}\n".encode() + b + b"\n" + " ".join(map(str, ids)).encode() + b"\n")

def save(t, name, texts=TEXTS):
    open(f"{out}/{name}.json", "w", encoding="utf-8").write(t.to_str())
    save_ids(lambda text: t.encode(text, add_special_tokens=False).ids, name, texts)

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

# WordPiece and Unigram: also what their normalizers change
MORE = TEXTS + ["Naïve İSTANBUL ΣΑΣ, (ﬁne) ½ ①…", "x\u200dy \ufeffz\u0007 a\u00a0b\u3000c", "▁a ▁ b▁c x▁", "``quoted'' -- text?!", "漢字とカナ ｶﾞ", "q\u0301\u0302x e\u0301 ﷺ",
                "y" * 60, "  ", "\r\n a\r\nb"]

def wordpiece(name, lowercase):
    t = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=50))
    t.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.train_from_iterator(TRAIN + MORE, trainers.WordPieceTrainer(vocab_size=420, limit_alphabet=190, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]))
    t.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    save(t, name, MORE)

RULES = [("ﬁ", "fi"), ("\r\n", " "), ("\r", " "), ("\n", " "), ("\t", " "), ("\u3000", " "), ("\u00a0", " "), ("e\u0301", "é"), ("\u200d", ""), ("\ufeff", ""), ("ｶﾞ", "ガ"), ("½", "1/2"), ("①", "1"), ("▁", " ")]

def sentence_model(**options):
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as rules:
        for a, b in RULES:
            rules.write(" ".join("%X" % ord(c) for c in a) + "\t" + " ".join("%X" % ord(c) for c in b) + "\n")
        rules.flush()
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(TRAIN + MORE), model_writer=model, vocab_size=480, hard_vocab_limit=False, num_threads=1, minloglevel=2,
                                                 normalization_rule_tsv=rules.name, **options)
    return model.getvalue()

def fields(b):  # of a protobuf message
    def varint(i):
        v = n = 0
        while True:
            v |= (b[i] & 127) << n
            n, i = n + 7, i + 1
            if b[i - 1] < 128:
                return v, i
    i = 0
    while i < len(b):
        key, i = varint(i)
        if key & 7 == 0:
            v, i = varint(i)
        else:
            n, i = varint(i) if key & 7 == 2 else (4 if key & 7 == 5 else 8, i)
            v, i = b[i:i + n], i + n
        yield key >> 3, v

def unigram(name, model, normalizer, pre, byte_fallback=False):
    pieces = [dict(fields(v)) for f, v in fields(model) if f == 1]
    charsmap = base64.b64encode(next(dict(fields(v)) for f, v in fields(model) if f == 3)[2]).decode()
    token = lambda i, text, lstrip=False: {"id": i, "content": text, "single_word": False, "lstrip": lstrip, "rstrip": False, "normalized": False, "special": True}
    special = lambda i, text: {"id": text, "ids": [i], "tokens": [text]}
    j = {"version": "1.0", "added_tokens": [token(0, "<unk>"), token(1, "<s>"), token(2, "</s>"), token(len(pieces), "<mask>", True)],
         "normalizer": normalizer({"type": "Precompiled", "precompiled_charsmap": charsmap}), "pre_tokenizer": pre,
         "post_processor": {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
                            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}], "special_tokens": {"</s>": special(2, "</s>")}},
         "model": {"type": "Unigram", "unk_id": 0, "byte_fallback": byte_fallback,
                   "vocab": [[p[1].decode(), struct.unpack("<f", p.get(2, bytes(4)))[0]] for p in pieces]}}
    save(Tokenizer.from_str(json.dumps(j)), name, MORE)

def sentence(name, model):
    open(f"{out}/{name}.model", "wb").write(model)
    save_ids(sentencepiece.SentencePieceProcessor(model_proto=model).encode, name, MORE)

wordpiece("bert-uncased", True)
wordpiece("bert-cased", False)
plain = sentence_model(character_coverage=0.98)
meta = lambda scheme, split: {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split}
steps = lambda *l: {"type": "Sequence", "normalizers": list(l)}
squeeze = lambda to: {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": to}
words = {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, meta("always", True)]}
unigram("t5", plain, lambda p: steps(p, squeeze(" ")), words)
unigram("xlm-roberta", plain, lambda p: p, meta("always", True))
unigram("marian", plain, lambda p: steps(p, {"type": "Strip", "strip_left": False, "strip_right": True}, squeeze("▁")), meta("first", False))
quotes = [{"type": "Replace", "pattern": {"String": q}, "content": '"'} for q in ("``", "''")]
unigram("albert", plain, lambda p: steps(*quotes, {"type": "NFKD"}, {"type": "StripAccents"}, {"type": "Lowercase"}, p, squeeze(" ")), words)
unigram("unigram-bytes", sentence_model(byte_fallback=True, character_coverage=0.98), lambda p: steps({"type": "Nmt"}, {"type": "NFKC"}, squeeze(" ")), meta("always", True), True)
sentence("sp-unigram", plain)
sentence("sp-user", sentence_model(user_defined_symbols=["--", "iron", "é", "a\u00a0b"], byte_fallback=True, remove_extra_whitespaces=False, add_dummy_prefix=False))
sentence("sp-bpe", sentence_model(model_type="bpe", character_coverage=0.98))
