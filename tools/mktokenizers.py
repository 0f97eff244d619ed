#!/usr/bin/env python3
"""Writes tests/golden/tokenizer_json: small tokenizer.json files with the steps of real models, and the ids that the `tokenizers` package
   gives for some texts (NAME.ids: for each text its length in bytes and the number of ids, the text, the ids).
   NAME.around has the same with what the post-processor puts around a text. NAME.model: SentencePiece's own, with its ids.
   tools/mktokenizers.py OUT_FOLDER [NAME...]   needs: pip install tokenizers sentencepiece protobuf (made with 0.23.3, 0.2.3)"""
import base64, io, json, os, sys, tempfile
import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

TEXTS = ["Hello, world! It's 12345 o'clock; we'll SEE.", "  two  spaces   and\ttabs\n\n new lines \r\n", "naïve café Ünïcödé ß Straße",
         "こんにちは世界、元気ですか", "Привет, как дела?", "नमस्ते दुनिया", "emoji 🙂🙃 and 👩‍👩‍👧", "", " ", "aaaaaaaaaaaa      bbbbbb", "مرحبا بالعالم",
         "cafe\u0301 a\u0323\u0302 a\u0302\u0323 \u1112\u1161\u11ab\u1100\u1173\u11af \u212b \u0958 \u0344 \u2126 s\u0307\u0323\u0301\u0315",
         "x = [1, 22, 333, 4444]; // code()\n    return x ** 2;"]
ONLY = sys.argv[2:]
TRAIN = TEXTS * 2 + ["the fire in the iron basket lights the river and the boats", "hello hello world world it is and we are here"]
TEXTS += ["Ａｂｃ ﬁne ①② ½ \u00a0x\u3000y \u200bz \u00ad- İstanbul ẞ 中文字 ``quoted'' ▁mark a▁b", "the [MASK] of <mask> x<mask>y"] # after what is trained on
CL100K = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
out = sys.argv[1]
os.makedirs(out, exist_ok=True)

def put(path, texts, encode):
    with open(path, "wb") as f:
        for text in texts:
            ids, b = encode(text), text.encode()
            f.write(f"{len(b)} {len(ids)}\n".encode() + b + b"\n" + " ".join(map(str, ids)).encode() + b"\n")

def save(t, name, around=False):
    if ONLY and name not in ONLY: return
    open(f"{out}/{name}.json", "w", encoding="utf-8").write(t.to_str())
    # what is written like a special token is one for the package, for us only where special tokens are asked for
    put(f"{out}/{name}.ids", [x for x in TEXTS if "[MASK]" not in x], lambda x: t.encode(x, add_special_tokens=False).ids)
    if around: put(f"{out}/{name}.around", TEXTS, lambda x: t.encode(x).ids)

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

def word_piece(name, normalizer, pre, **more):
    t = Tokenizer(models.WordPiece(unk_token="[UNK]", **more))
    t.normalizer, t.pre_tokenizer = normalizer, pre
    t.train_from_iterator(TRAIN, trainers.WordPieceTrainer(vocab_size=400, limit_alphabet=120, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]))
    t.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    save(t, name, True)

bert = pre_tokenizers.BertPreTokenizer()
word_piece("bert-uncased", normalizers.BertNormalizer(), bert)
word_piece("bert-cased", normalizers.BertNormalizer(lowercase=False), bert, max_input_chars_per_word=10)
word_piece("word-steps", normalizers.Sequence([normalizers.NFKC(), normalizers.Strip(), normalizers.Lowercase(), normalizers.StripAccents()]),
           pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Digits(True), pre_tokenizers.Punctuation("merged_with_previous")]))

# SentencePiece's Unigram, with a small map of characters instead of the 240 KB of nmt_nfkc
RULES = [("Ａ", "A"), ("ﬁ", "fi"), ("①", "1"), ("②", "2"), ("½", "1⁄2"), ("\u00a0", " "), ("\u3000", " "), ("\t", " "), ("\n", " "), ("\r", " "),
         ("\u200b", " "), ("\u00ad", ""), ("e\u0301", "é"), ("e\u0301\u0302", "X"), ("ö", "oe"), ("\u1112\u1161\u11ab", "한")]
hexes = lambda s: " ".join("%X" % ord(c) for c in s)

def pieces(name, **more):
    model = io.BytesIO()
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as f:
        f.write("".join(f"{hexes(a)}\t{hexes(b)}\n" for a, b in RULES)); f.flush()
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(TRAIN * 4), model_writer=model, hard_vocab_limit=False, minloglevel=2, num_threads=1,
                                                 **{"vocab_size": 300, "normalization_rule_tsv": f.name, **more})
    p = sentencepiece_model_pb2.ModelProto()
    p.ParseFromString(model.getvalue())
    p.trainer_spec.ClearField("input"); p.trainer_spec.ClearField("model_prefix"); p.normalizer_spec.ClearField("normalization_rule_tsv")
    if not ONLY or name in ONLY:
        open(f"{out}/{name}.model", "wb").write(p.SerializeToString())
        s = sentencepiece.SentencePieceProcessor(model_proto=p.SerializeToString())
        put(f"{out}/{name}.ids", [x for x in TEXTS if "[MASK]" not in x], s.encode)
    return p

unigram = pieces("spm-unigram", model_type="unigram")
with_bytes = pieces("spm-bytes", model_type="unigram", vocab_size=500, byte_fallback=True, character_coverage=0.98, user_defined_symbols=["<u>", "world"], remove_extra_whitespaces=False)
pieces("spm-bpe-rules", model_type="bpe", add_dummy_prefix=False)

def special(*texts): # (text, id)
    return [dict(id=i, content=c, single_word=False, lstrip=c == "<mask>", rstrip=False, normalized=False, special=True) for c, i in texts]

def from_json(name, vocab, normalizer, pre, added, unk, post=None, byte_fallback=False):
    save(Tokenizer.from_str(json.dumps(dict(version="1.0", truncation=None, padding=None, added_tokens=added, normalizer=normalizer, pre_tokenizer=pre, post_processor=post,
        decoder=None, model=dict(type="Unigram", unk_id=unk, vocab=vocab, byte_fallback=byte_fallback)))), name, post is not None)

template = lambda single, pair, tokens: json.loads(processors.TemplateProcessing(single=single, pair=pair, special_tokens=tokens).__getstate__())
charsmap = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(unigram.normalizer_spec.precompiled_charsmap).decode()}
meta = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
spaces = {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, meta]}
vocab = [[x.piece, x.score] for x in unigram.pieces]
xlmr = [["<s>", 0.0], ["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0]] + vocab[3:] + [["<mask>", 0.0]]
from_json("xlm-r", xlmr, charsmap, spaces, special(("<s>", 0), ("<pad>", 1), ("</s>", 2), ("<unk>", 3), ("<mask>", len(xlmr) - 1)), 3,
          template("<s> $A </s>", "<s> $A </s> </s> $B </s>", [("<s>", 0), ("</s>", 2)]))
t5 = [["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0]] + vocab[3:]
ends = special(("<pad>", 0), ("</s>", 1), ("<unk>", 2))
squeeze = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
from_json("t5", t5, {"type": "Sequence", "normalizers": [charsmap, squeeze]}, meta, ends, 2, template("$A </s>", "$A </s> $B </s>", [("</s>", 1)]))
quotes = [{"type": "Replace", "pattern": {"String": a}, "content": '"'} for a in ("``", "''")]
from_json("albert", t5, {"type": "Sequence", "normalizers": quotes + [{"type": "NFKD"}, {"type": "StripAccents"}, {"type": "Lowercase"}, charsmap]}, spaces, ends, 2,
          template("</s> <pad> $A </s> </s>", "$A $B", [("</s>", 1), ("<pad>", 0)]))
marks = [{"type": "Strip", "strip_left": False, "strip_right": True}, {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]
from_json("unigram-bytes", [[x.piece, x.score] for x in with_bytes.pieces if x.type not in (3, 4)], {"type": "Sequence", "normalizers": marks}, None, special(("<unk>", 0)), 0, None, True)

def own_bpe(name, normalizer, pre, bytes_, **more):
    t = Tokenizer(models.BPE(**more))
    if normalizer: t.normalizer = normalizer
    t.pre_tokenizer = pre
    alphabet = pre_tokenizers.ByteLevel.alphabet() if bytes_ else []
    t.train_from_iterator(TRAIN, trainers.BpeTrainer(vocab_size=400, limit_alphabet=256 if bytes_ else 80, initial_alphabet=alphabet, special_tokens=["<unk>", "<s>"]))
    save(t, name)

own_bpe("bpe-steps", normalizers.NFKC(), pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(r"\d{1,3}(?=(?:\d{3})*\b)"), "isolated"),
    pre_tokenizers.Split(Regex(r"[^\r\n\p{L}\p{N}\s]+|\w+|\s+"), "merged_with_next"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]), True)
own_bpe("bpe-prefix", normalizers.Lowercase(), pre_tokenizers.ByteLevel(add_prefix_space=True), True)
own_bpe("bpe-words", normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()]), pre_tokenizers.Whitespace(), False, unk_token="<unk>")
own_bpe("bpe-fused", None, pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.Digits()]), False, unk_token="<unk>", fuse_unk=True)
own_bpe("bpe-dropped", normalizers.Nmt(), pre_tokenizers.Sequence([pre_tokenizers.CharDelimiterSplit(" "), pre_tokenizers.FixedLength(7)]), False)

def marked_bpe(name, normalizer, pre, bytes_, post=None, **marks):
    t = Tokenizer(models.BPE(unk_token="<unk>", **marks))
    t.normalizer, t.pre_tokenizer = normalizer, pre
    t.train_from_iterator(TRAIN, trainers.BpeTrainer(vocab_size=500 if bytes_ else 400, limit_alphabet=256 if bytes_ else 90, special_tokens=["<unk>", "<s>"],
                                                     initial_alphabet=pre_tokenizers.ByteLevel.alphabet() if bytes_ else [], **marks))
    if post: t.post_processor = post
    save(t, name, post is not None)

bert_norm = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
marked_bpe("bpe-suffix", bert_norm, pre_tokenizers.BertPreTokenizer(), False, end_of_word_suffix="</w>") # as OpenAI's first GPT has it
marked_bpe("bpe-clip", normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]), pre_tokenizers.Sequence([
    pre_tokenizers.Split(Regex(r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), "removed", invert=True),
    pre_tokenizers.ByteLevel(add_prefix_space=False)]), True, processors.RobertaProcessing(("<s>", 1), ("<unk>", 0), True, False), end_of_word_suffix="</w>")
marked_bpe("bpe-inner", None, pre_tokenizers.Whitespace(), False, continuing_subword_prefix="##")
marked_bpe("bpe-both", None, pre_tokenizers.Whitespace(), True, continuing_subword_prefix="@@", end_of_word_suffix="$")
