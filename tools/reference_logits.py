#!/usr/bin/env python3
"""Float64 logits of a GGUF model by numpy: an independent second opinion on the reference engine's programs.

usage: reference_logits.py MODEL.gguf IDS.txt OUT.f64

IDS.txt has one prompt of token ids per line ('#' starts a comment line); OUT.f64 receives the logits after the last token of each
prompt, little-endian float64, prompts x vocabulary. Architectures llama (without RoPE scaling) and gpt2. Needs numpy and gguf.
gguf decodes weights to f32: exact for F16, Q8_0, Q6_K and for weights below 1 of Q4_K; larger ones of types with a minimum are
rounded to 24 bits.
Every matrix is one numpy product over the whole prompt, without a cache: nothing is shared with the engine but the file.
"""
import sys

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize


class Model:
    def __init__(self, path):
        reader = GGUFReader(path)
        self.fields = reader.fields
        self.tensors = {t.name: t for t in reader.tensors}
        self.arch = self.key("general.architecture")

    def key(self, name, default=None):
        field = self.fields.get(name) or self.fields.get(f"{getattr(self, 'arch', '')}.{name}")
        if field is None:
            if default is None:
                sys.exit(f"missing key {name}")
            return default
        return field.contents()

    def __contains__(self, name):
        return name in self.tensors

    def __getitem__(self, name):  # [out, in]
        t = self.tensors[name]
        return dequantize(t.data, t.tensor_type).astype(np.float64)


def softmax(s):
    e = np.exp(s - s.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def attention(q, k, v):
    """q [T, heads, d], k and v [T, kv heads, d] -> [T, heads * d]"""
    n_tokens, n_heads, d = q.shape
    k = np.repeat(k, n_heads // k.shape[1], axis=1)
    v = np.repeat(v, n_heads // v.shape[1], axis=1)
    scores = np.einsum("thd,shd->hts", q, k) / np.sqrt(d)
    scores = np.where(np.tril(np.ones((n_tokens, n_tokens), bool)), scores, -np.inf)
    return np.einsum("hts,shd->thd", softmax(scores), v).reshape(n_tokens, -1)


def rope(x, base, n_rot):
    """x [T, heads, d]: element pairs (2i, 2i + 1) as complex numbers, turned."""
    angle = np.outer(np.arange(len(x)), base ** (-np.arange(0, n_rot, 2) / n_rot))
    z = (x[..., 0:n_rot:2] + 1j * x[..., 1:n_rot:2]) * np.exp(1j * angle)[:, None, :]
    y = x.copy()
    y[..., 0:n_rot:2], y[..., 1:n_rot:2] = z.real, z.imag
    return y


def rms_norm(x, w, eps):
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps) * w


def layer_norm(x, w, b, eps):
    return (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + eps) * w + b


def llama(m, ids):
    n_heads = m.key("attention.head_count")
    n_kv_heads = m.key("attention.head_count_kv", n_heads)
    eps = float(m.key("attention.layer_norm_rms_epsilon"))
    base = float(m.key("rope.freq_base", 10000.0))
    if m.key("rope.scaling.type", "none") != "none" or "rope_freqs.weight" in m:
        sys.exit("RoPE scaling is not covered here")
    x = m["token_embd.weight"][ids]
    n_rot = m.key("rope.dimension_count", x.shape[1] // n_heads)
    for i in range(m.key("block_count")):
        w = lambda name: m[f"blk.{i}.{name}.weight"]
        y = rms_norm(x, w("attn_norm"), eps)
        split = lambda name, n: (y @ w(name).T).reshape(len(ids), n, -1)
        q, k, v = split("attn_q", n_heads), split("attn_k", n_kv_heads), split("attn_v", n_kv_heads)
        x = x + attention(rope(q, base, n_rot), rope(k, base, n_rot), v) @ w("attn_output").T
        y = rms_norm(x, w("ffn_norm"), eps)
        gate, up = y @ w("ffn_gate").T, y @ w("ffn_up").T
        x = x + (gate / (1 + np.exp(-gate)) * up) @ w("ffn_down").T
    x = rms_norm(x[-1], m["output_norm.weight"], eps)
    return m["output.weight" if "output.weight" in m else "token_embd.weight"] @ x


def gpt2(m, ids):
    n_heads = m.key("attention.head_count")
    eps = float(m.key("attention.layer_norm_epsilon"))
    x = m["token_embd.weight"][ids] + m["position_embd.weight"][: len(ids)]
    for i in range(m.key("block_count")):
        w = lambda name: m[f"blk.{i}.{name}.weight"]
        linear = lambda y, name: y @ w(name).T + m[f"blk.{i}.{name}.bias"]
        norm = lambda name: layer_norm(x, w(name), m[f"blk.{i}.{name}.bias"], eps)
        q, k, v = linear(norm("attn_norm"), "attn_qkv").reshape(len(ids), 3, n_heads, -1).transpose(1, 0, 2, 3)
        x = x + linear(attention(q, k, v), "attn_output")
        y = linear(norm("ffn_norm"), "ffn_up")
        y = 0.5 * y * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)))
        x = x + linear(y, "ffn_down")
    x = layer_norm(x[-1], m["output_norm.weight"], m["output_norm.bias"], eps)
    return m["output.weight" if "output.weight" in m else "token_embd.weight"] @ x


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    model = Model(sys.argv[1])
    forward = {"llama": llama, "gpt2": gpt2}.get(model.arch) or sys.exit(f"architecture {model.arch} is not covered here")
    lines = [line for line in open(sys.argv[2]) if line.strip() and not line.startswith("#")]
    rows = [forward(model, [int(word) for word in line.split()]) for line in lines]
    np.array(rows, dtype="<f8").tofile(sys.argv[3])


if __name__ == "__main__":
    main()
