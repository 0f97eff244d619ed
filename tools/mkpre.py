#!/usr/bin/env python3
"""Writes tests/golden/pre: what stands before byte-level BPE in the tokenizer.json of real models, the name that llama.cpp has for it, and the ids that the
   `tokenizers` package gives with it. model: the "model" of all of them, whose merges cross words, so that each cut shows. NAME.json: "pre" is the name to write,
   or null; "more": of the model. NAME.ids as of mktokenizers.py.
   tools/mkpre.py OUT_FOLDER
   needs: pip install tokenizers (made with 0.23.3)"""
import json, os, sys
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

S = lambda p, b="Isolated", invert=False: {"type": "Split", "pattern": {"Regex": p}, "behavior": b, "invert": invert}
DIGITS = {"type": "Digits", "individual_digits": True}
B = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
WORDS = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
C = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
CL = r"[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
U, L = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
O200K = lambda c, d: rf"[^\r\n\p{{L}}\p{{N}}]?{U}*{L}+{c}|[^\r\n\p{{L}}\p{{N}}]?{U}+{L}*{c}|{d}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
KU, KL = U[:-1] + r"&&[^\p{Han}]]", L[:-1] + r"&&[^\p{Han}]]"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"
LETTERS = ("A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ"
           "\u2126ℨ\u212a-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃")
LETTERS = LETTERS.replace("ώᾀ", "\u1f7dᾀ").replace("ιῂ", "\u1fbeῂ").replace("ΐῖ", "\u1fd3ῖ").replace("Ίῠ", "\u1fdbῠ")
CJK, KANA = "[一-龥ࠀ-一가-\ud7ff]+", "[一-龥\u3040-ゟ゠-ヿ]+"
V3 = "[!\"#$%%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+%s|%s|\\s+(?!\\S)|\\s+"
AFMOE = (r"(?:[\u4E00-\u9FFF\u3040-\u309F\u30A0-\u30FF\u3400-\u4DBF\uf900-\uFAFF\uFF65-\uFF9F\u2F00-\u2FDF]+|[\u0E00-\u0E7F]+|[\u0E80-\u0EFF]+|[\u1780-\u17FF]+|"
         r"[\u1000-\u109F\uAA60-\uAA7F\uA9E0-\uA9FF]+|[\uAC00-\uD7AF\u1100-\u11FF]+)")
YOUTU = "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|" + KANA
SPACES = r"\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}"
NONE, NFC = None, {"type": "NFC"}
EMPTY = {"type": "Sequence", "normalizers": []}

# name of the row, name to write, normalizer, pre-tokenizers, whether merges are ignored
ROWS = [
    ("gpt-2", "gpt-2", NONE, [WORDS], False), ("gpt-2-split", "gpt-2", NONE, [S(GPT2), B], True), ("olmo", "gpt-2", NFC, [WORDS], False),
    ("starcoder", "starcoder", NONE, [DIGITS, WORDS], False), ("command-r", "starcoder", NFC, [DIGITS, WORDS], False),
    ("dbrx", "dbrx", NONE, [S(C + "|" + CL % r"\p{N}{1,3}", "Removed", True), B], False), ("llama-bpe", "llama-bpe", NONE, [S(C + "|" + CL % r"\p{N}{1,3}"), B], True),
    ("qwen2", "qwen2", {"type": "Sequence", "normalizers": [NFC]}, [S(C + "|" + CL % r"\p{N}"), B], False),
    ("qwen35", "qwen35", NFC, [S(C + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"), B], False),
    ("gpt-4o", "gpt-4o", NONE, [S(O200K(C + "?", r"\p{N}{1,3}")), B], False), ("gpt-oss", "gpt-4o", NONE, [S(O200K(C + "?", r"\p{N}{1,3}")), B], True),
    ("tekken", "tekken", NONE, [S(O200K("", r"\p{N}")), B], True), ("tekken-merges", "tekken", NONE, [S(O200K("", r"\p{N}")), B], False),
    ("falcon", "falcon", NONE, [{"type": "Punctuation", "behavior": "Contiguous"}, WORDS, {"type": "Digits", "individual_digits": False}, S("[0-9][0-9][0-9]")], False),
    ("bloom", "bloom", NONE, [S(BLOOM), B], False), ("viking", "viking", NONE, [S(BLOOM), DIGITS, B], False), ("viking-first", "viking", NONE, [DIGITS, S(BLOOM), B], False),
    ("deepseek-llm", "deepseek-llm", EMPTY, [S("[\r\n]"), S(rf"\s?[{LETTERS}]+"), S(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"), S(r"\s+$"), S(CJK), DIGITS, B], False),
    ("deepseek-coder", "deepseek-coder", EMPTY, [S("[\r\n]"), S(r"\s?\p{L}+"), S(r"\s?\p{P}+"), S(CJK), DIGITS, B], False),
    ("deepseek-v3", "deepseek-v3", EMPTY, [S(r"\p{N}{1,3}"), S(KANA), S(V3 % ("[\r\n]*", "\\s*[\r\n]+")), B], False),
    ("spark2_5", "spark2_5", NONE, [S(r"\p{N}{1,3}"), S(KANA), S(V3 % ("", "[\r\n]")), DIGITS, B], False),
    ("afmoe", "afmoe", NONE, [S(r"\p{Nd}{1,510}(?=(?>\p{Nd}{510})*(?:\P{Nd}|$))|\G\p{Nd}{510}"), S(r"\A\p{Nd}{1,2}(?=\p{Nd}{3}+\z)"), S(r"\A\p{Nd}{3}|\G\p{Nd}{3}"), S(AFMOE),
               S(V3 % (r"[\r\n]*", r"\s*[\r\n]+")), B], False),
    ("youtu", "youtu", NONE, [S(YOUTU), S(O200K(C + "?", r"\p{N}")), B], True),
    ("tiny_aya", "tiny_aya", NONE, [S(r"\d{1,3}(?=(?:\d{3})*\b)"), S(O200K(C + "?", r"\p{N}{1,3}")), B], False),
    ("minicpm5", "minicpm5", NONE, [S(r"\p{N}{1,3}"), S(C + "|" + CL % r"\p{N}+"), B], True),
    ("laguna", "laguna", NONE, [S(r"(?:\r?\n)+(?!\r?\n)", "MergedWithNext"), S(C + "|" + CL % r"\p{N}"), B], False),
    ("ufakzeka", "ufakzeka", NONE, [S(CL % r"\p{N}"), B], False), ("superbpe", "superbpe", NONE, [S(r"\p{N}+"), S(r"(?=(\d{3})+(?!\d))"), B], False),
    ("seed-coder", "seed-coder", NONE, [S(C + "|[^\r\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\r\n]+|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"), B], False),
    ("bailingmoe", "bailingmoe", NONE, [S(r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"), B], False),
    ("exaone-moe", "exaone-moe", NONE, [S(C + r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"), B], False),
    ("jais-2", "jais-2", NONE, [S(C + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|" + SPACES), B], False),
    ("kimi-k2", "kimi-k2", NONE, [S(rf"[\p{{Han}}]+|[^\r\n\p{{L}}\p{{N}}]?{KU}*{KL}+{C}?|[^\r\n\p{{L}}\p{{N}}]?{KU}+{KL}*{C}?|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"), B], False),
    ("classes", None, NONE, [S(r"[a-z&&[^aeiou]&&[^x-z]]+|[^\p{L}&&[^\p{Lu}]\s]+|[[0-9][^\p{ASCII}]--]|[]\]&&[\]a]]"), B], False),
    ("nested", None, NONE, [S(r"[a-c[de]]+|[^\s[xyz]]{2}+|(?m:a.b)"), B], False), ("lower", None, {"type": "Lowercase"}, [S(GPT2), B], True),
    ("prefix", None, NONE, [dict(WORDS, add_prefix_space=True)], False),
]
TEXTS = ["Hello, world! It's 12345 o'clock; we'LL SEE (e.g. http://x.y/z).", "  two  spaces   and\ttabs\n\n new lines \r\n\r\n \n  end  ", "naïve café Ünïcödé ß Straße ǅ ƻ ò²³¹¼½¾ x²",
         "こんにちは世界、元気ですか。カタカナ『漢字』々", "Привет, как дела? ԱԲԳ ᲐᲑ ꭰ", "नमस्ते दुनिया। १२३४५", "🙂🙃 👩‍👩‍👧", "", " ", "مرحبا بالعالم ٣٤٥٦٧، ۔", "한국어 문장 ㄱㄴ 각 ㄅㄆ", "ไทย ລາວ ខ្មែរ မြန်မာ 12๓๔๕",
         "1 12 123 1234 12345 123456 1234567 12x 1234x 1234567_ 123\u0301 12½ 1½23 ½1234 x1234567 12,345.67", "x = [1, 22, 333];\n\n\n    return x**2;\r\n//\n/* a\tb */ fooBarABCdef DON'T '' ''s",
         "a e\u0301 s\u0307\u0323 \u212b\u0958 x\u00a0y\u3000z \u200b\u2028\u0085q ．，！“quoted”…—", "xyz dec acb a\nb, aXb (and so on) [it] {is} |we|", "      8 spaces        16                 17                  x"]
TRAIN = TEXTS * 3 + ["the fire in the iron basket lights the river and the boats", "hello hello world world it is and we are here, 1234567 12345"] * 2

def whole(model, normalizer, pre, ignore):
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": normalizer, "post_processor": None, "decoder": None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": pre} if len(pre) > 1 else pre[0], "model": dict(model, ignore_merges=ignore)}

def main():
    out = sys.argv[1]
    os.makedirs(out, exist_ok=True)
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    t.train_from_iterator([x[i:i + 40] for x in TRAIN for i in range(0, len(x), 13)], trainers.BpeTrainer(vocab_size=900, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), max_token_length=9))
    model = json.loads(t.to_str())["model"]
    del model["ignore_merges"]
    json.dump(model, open(f"{out}/model", "w", encoding="utf-8"), ensure_ascii=False, separators=(",", ":"))
    for name, pre, normalizer, steps, ignore in ROWS:
        j = whole(model, normalizer, steps, ignore)
        row = {"pre": pre, "normalizer": normalizer, "pre_tokenizer": j["pre_tokenizer"], "ignore_merges": ignore}
        json.dump(row, open(f"{out}/{name}.json", "w", encoding="utf-8"), ensure_ascii=False)
        t = Tokenizer.from_str(json.dumps(j))
        with open(f"{out}/{name}.ids", "wb") as f:
            for text in TEXTS:
                ids, b = t.encode(text, add_special_tokens=False).ids, text.encode()
                f.write(f"{len(b)} {len(ids)}\n".encode() + b + b"\n" + " ".join(map(str, ids)).encode() + b"\n")

if __name__ == "__main__":
    main()
