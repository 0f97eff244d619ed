#!/usr/bin/env python3
"""Greedy text of kagari and of llama.cpp (the package llama-cpp-python) from the same GGUF files, and where they part, who agrees with float64.

  tools/compare_llamacpp.py FILE.gguf ...
  tools/compare_llamacpp.py --types all FOLDER       converts the folder, quantizes to every mixture, and compares those

Both with an f32 cache, llama.cpp without flash attention. `int8`: each as it is, activations rounded to 8 bits, which the two do differently.
`exact`: kagari with --activations f32, llama.cpp with the same weights widened to F32 by kagari, so that neither rounds.
Where the texts part, the logits of both and those of `kagari -b reference` (float64) are taken at that very place. `gap` is by how much
the reference prefers its first choice to its second; `moved` by how much the two programs together change the difference of their two
candidates. A gap smaller than that is a tie that rounding decides."""
import argparse
import os
import subprocess
import sys
import tempfile

import numpy as np

TEXTS = ["Once upon a time", "The fox looked at the cheese and said", "In the morning the old man went to the"]


def run(*args):
    r = subprocess.run(args, capture_output=True, text=True)
    if r.returncode:
        sys.exit(f"{' '.join(args)}: {r.stderr.strip()}")
    return r.stdout


class Llama:
    def __init__(self, path, threads):
        import llama_cpp
        self.lib = llama_cpp
        self.model = llama_cpp.Llama(path, n_ctx=512, n_threads=threads, n_threads_batch=threads, verbose=False, logits_all=True, flash_attn=False,
                                     type_k=llama_cpp.GGML_TYPE_F32, type_v=llama_cpp.GGML_TYPE_F32)

    def logits(self, ids):
        """After the last of ids, as one prompt."""
        self.model.reset()
        self.model.eval(ids)
        return self.model.scores[len(ids) - 1].astype(np.float64)

    def greedy(self, ids, n):
        out = []
        self.model.reset()
        self.model.eval(ids)
        for _ in range(n):
            out.append(int(np.argmax(self.model.scores[self.model.n_tokens - 1])))
            self.model.eval(out[-1:])
        return out


class Kagari:
    def __init__(self, program, path, threads):
        self.program, self.path, self.threads = program, path, str(threads)

    def tokens(self, text):
        return [int(i) for i in run(self.program, "tokenize", "--ids", "-m", self.path, text).replace(",", " ").split()]

    def greedy(self, ids, n, *more):
        out = run(self.program, "-m", self.path, "-b", "cpu", "-t", self.threads, "--kv-type", "f32", "--temperature", "0", "-n", str(n), "--print-ids",
                  "--tokens", ",".join(map(str, ids)), *more)
        return [int(i) for i in out.replace(",", " ").split()] # shorter where the text ends

    def logits(self, ids, backend, *more):
        with tempfile.NamedTemporaryFile() as f:
            run(self.program, "logits", "-m", self.path, "-b", backend, "-t", self.threads, "-o", f.name, "--tokens", ",".join(map(str, ids)), *more)
            return np.fromfile(f.name, np.float64 if backend == "reference" else np.float32).astype(np.float64)


def part(kagari, llama, ids, n, more):
    """How many tokens are the same, of how many; and at the first difference (whom float64 follows, gap, moved) or None."""
    ours, theirs = kagari.greedy(ids, n, *more), llama.greedy(ids, n)
    n = min(len(ours), len(theirs))
    same = next((i for i in range(n) if ours[i] != theirs[i]), n)
    if same == n:
        return same, n, None
    at, a, b = ids + ours[:same], ours[same], theirs[same]
    ref, mine, other = kagari.logits(at, "reference"), kagari.logits(at, "cpu", "--kv-type", "f32", *more), llama.logits(at)
    best, (first, second) = int(np.argmax(ref)), np.sort(ref)[:-3:-1]
    moved = sum(abs((x[a] - x[b]) - (ref[a] - ref[b])) for x in (mine, other))
    return same, n, ("kagari" if best == a else "llama.cpp" if best == b else "neither", first - second, moved)


def compare(path, args):
    name, texts = os.path.basename(path).removesuffix(".gguf"), args.text or TEXTS
    kagari, wide = Kagari(args.kagari, path, args.threads), path + ".wide"
    run(args.kagari, "quantize", path, wide, "F32", "--allow-requantize", "-t", str(args.threads))
    cells = []
    for llama, more in ((Llama(path, args.threads), ()), (Llama(wide, args.threads), ("--activations", "f32"))):
        found = [part(kagari, llama, kagari.tokens(t), args.n, more) for t in texts]
        parted = [p for _, _, p in found if p]
        cells.append(f"{len(texts) - len(parted)} of {len(texts)} | {sum(f[0] for f in found)} of {sum(f[1] for f in found)} | "
                     + ("" if not parted else ", ".join(f"{w} ({g:.2g} < {m:.2g})" if g < m else f"{w} ({g:.2g} > {m:.2g}: NOT A TIE)" for w, g, m in parted)))
    os.unlink(wide)
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("paths", nargs="+")
    p.add_argument("--kagari", default="build/kagari")
    p.add_argument("--types", help="mixtures to quantize to, with commas, or all")
    p.add_argument("--imatrix", help="for those that need one")
    p.add_argument("--text", action="append")
    p.add_argument("-n", type=int, default=48)
    p.add_argument("--threads", type=int, default=1)
    args = p.parse_args()
    print("| file | int8: texts equal | tokens before they part | float64 says as (gap < moved) | exact: texts equal | tokens | float64 says as |")
    print("|---|---|---|---|---|---|---|")
    for path in args.paths:
        if not args.types:
            compare(path, args)
            continue
        with tempfile.TemporaryDirectory() as d:
            types = args.types.split(",")
            plain = path
            if os.path.isdir(path):
                plain = os.path.join(d, "plain.gguf")
                run(args.kagari, "convert", path, plain)
            if args.types == "all":
                r = subprocess.run([args.kagari, "quantize", plain, os.path.join(d, "x"), "?"], capture_output=True, text=True)
                types = [t.strip() for t in r.stderr.split("must be one of")[1].split(",")]
            for t in types:
                out = os.path.join(d, f"{t}.gguf")
                more = ["--imatrix", args.imatrix] if args.imatrix and t.startswith("IQ") else []
                r = subprocess.run([args.kagari, "quantize", plain, out, t, "-t", str(args.threads), *more], capture_output=True, text=True)
                if r.returncode:
                    print(f"| {t} | {r.stderr.strip()} | | | | | |", flush=True)
                    continue
                compare(out, args)
                os.unlink(out)


main()
