"""RWKV-7 with the names of the fla-hub checkpoints, as a torch module: the recurrence as the paper has it (arXiv 2503.14456), token by token. For mkarch.py;
transformers does not have this architecture.

    python tools/rwkv7.py     compares it with the package rwkv (of the model's authors) on random weights, in float64"""
import math, types


def shapes(c):
    d, f, n = c["hidden_size"], c["intermediate_size"], c["num_hidden_layers"]
    head, heads = c["head_dim"], c["hidden_size"] // c["head_dim"]
    norm = lambda name: {name + ".weight": [d], name + ".bias": [d]}
    out = {"model.embeddings.weight": [c["vocab_size"], d], "lm_head.weight": [c["vocab_size"], d], **norm("model.norm"), **norm("model.layers.0.pre_norm")}
    for i in range(n):
        a, m = f"model.layers.{i}.attn.", f"model.layers.{i}.ffn."
        out |= {**norm(f"model.layers.{i}.attn_norm"), **norm(f"model.layers.{i}.ffn_norm"), **norm(a + "g_norm")}
        out |= {a + "x_" + k: [1, 1, d] for k in "rwkvag"} | {a + k + "_proj.weight": [d, d] for k in "rkvo"}
        out |= {a + "k_k": [d], a + "k_a": [d], a + "r_k": [heads, head], m + "x_k": [d], m + "key.weight": [f, d], m + "value.weight": [d, f]}
        for k, rank in (("w", "decay"), ("a", "a"), ("v", "v"), ("g", "gate")):
            if k == "v" and i == 0:
                continue
            r = c[rank + "_low_rank_dim"]
            out |= {f"{a}{k}_lora.lora.0.weight": [r, d], f"{a}{k}_lora.lora.2.weight": [d, r]} | ({} if k == "g" else {f"{a}{k}_lora.lora.2.bias": [d]})
    return out


class Model:
    """weights: name -> torch tensor"""

    def __init__(self, config, weights):
        self.c, self.w = config, weights

    def norm(self, x, name):
        import torch
        return torch.nn.functional.layer_norm(x, x.shape[-1:], self.w[name + ".weight"], self.w[name + ".bias"], self.c["norm_eps"])

    def low_rank(self, x, name, f):
        y = f(x @ self.w[name + ".lora.0.weight"].T) @ self.w[name + ".lora.2.weight"].T
        return y + self.w.get(name + ".lora.2.bias", 0)

    def time_mix(self, x, i, v_first):
        import torch
        w, head = self.w, self.c["head_dim"]
        p, same = f"model.layers.{i}.attn.", lambda z: z
        before = torch.cat([torch.zeros_like(x[:1]), x[:-1]]) - x
        mixed = {k: x + before * w[p + "x_" + k].flatten() for k in "rwkvag"}
        r, k, v = (mixed[n] @ w[p + n + "_proj.weight"].T for n in "rkv")
        decay = torch.exp(-math.exp(-0.5) * torch.sigmoid(self.low_rank(mixed["w"], p + "w_lora", torch.tanh)))
        a = torch.sigmoid(self.low_rank(mixed["a"], p + "a_lora", same))
        g = self.low_rank(mixed["g"], p + "g_lora", torch.sigmoid)
        if v_first is None:
            v_first = v
        else:
            v = v + (v_first - v) * torch.sigmoid(self.low_rank(mixed["v"], p + "v_lora", same))
        by_head = lambda z: z.unflatten(-1, (-1, head))
        removed = torch.nn.functional.normalize(by_head(k * w[p + "k_k"]), dim=-1)
        k = k * (1 + (a - 1) * w[p + "k_a"])
        r, k, v, a, decay = map(by_head, (r, k, v, a, decay))
        state, out = torch.zeros(r.shape[1], head, head), torch.zeros_like(v)  # value, key
        for t in range(len(x)):
            n = removed[t]
            move = torch.diag_embed(decay[t]) - n[:, :, None] * (a[t] * n)[:, None, :]
            state = state @ move + v[t][:, :, None] * k[t][:, None, :]
            out[t] = (state @ r[t][:, :, None])[:, :, 0]
        mean, var = out.mean(-1, keepdim=True), out.var(-1, keepdim=True, unbiased=False)
        y = ((out - mean) / torch.sqrt(var + head * self.c["norm_eps"])).flatten(-2) * w[p + "g_norm.weight"] + w[p + "g_norm.bias"]
        y = y + ((r * k * w[p + "r_k"]).sum(-1, keepdim=True) * v).flatten(-2)
        return (y * g) @ w[p + "o_proj.weight"].T, v_first

    def channel_mix(self, x, i):
        import torch
        p = f"model.layers.{i}.ffn."
        before = torch.cat([torch.zeros_like(x[:1]), x[:-1]]) - x
        return torch.relu((x + before * self.w[p + "x_k"]) @ self.w[p + "key.weight"].T) ** 2 @ self.w[p + "value.weight"].T

    def __call__(self, ids, use_cache=False):
        x, v_first = self.norm(self.w["model.embeddings.weight"][ids[0]], "model.layers.0.pre_norm"), None
        for i in range(self.c["num_hidden_layers"]):
            y, v_first = self.time_mix(self.norm(x, f"model.layers.{i}.attn_norm"), i, v_first)
            x = x + y
            x = x + self.channel_mix(self.norm(x, f"model.layers.{i}.ffn_norm"), i)
        return types.SimpleNamespace(logits=(self.norm(x, "model.norm") @ self.w["lm_head.weight"].T)[None])


def official_names(w, config):
    """As the package rwkv reads them: its files have the small matrices the other way round."""
    out = {"emb.weight": w["model.embeddings.weight"], "head.weight": w["lm_head.weight"]}
    for k, v in w.items():
        k = k.replace("model.layers.", "blocks.").replace(".attn_norm.", ".ln1.").replace(".ffn_norm.", ".ln2.").replace(".pre_norm.", ".ln0.").replace("model.norm.", "ln_out.")
        k = k.replace(".attn.", ".att.").replace("g_norm", "ln_x").replace("r_proj", "receptance").replace("k_proj", "key").replace("v_proj", "value").replace("o_proj", "output")
        if "_lora" in k:
            k, v = k.replace("_lora.lora.0.weight", "1").replace("_lora.lora.2.weight", "2").replace("_lora.lora.2.bias", "0"), v.T if v.ndim == 2 else v
        if not k.startswith(("model.", "lm_head")):
            out[k] = v
    return out


def check():
    import os, sys, tempfile
    import torch
    import torch.nn.functional as F
    os.environ.update(RWKV_V7_ON="1", RWKV_JIT_ON="0", RWKV_CUDA_ON="0")
    torch.Tensor.float = torch.Tensor.double
    torch.float32 = torch.float = torch.float64
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(1)
    config = dict(vocab_size=71, hidden_size=192, intermediate_size=88, num_hidden_layers=3, head_dim=64, norm_eps=1e-5, decay_low_rank_dim=14, a_low_rank_dim=18,
                  v_low_rank_dim=10, gate_low_rank_dim=26)
    w = {k: torch.randn(s) * (0.3 if len(s) == 1 else s[-1] ** -0.5) + (k.endswith("norm.weight")) for k, s in shapes(config).items()}
    torch.jit.script = torch.jit.script_method = lambda f: f  # compiled functions keep float32
    torch.jit.ScriptModule = torch.nn.Module
    from rwkv.model import RWKV
    with tempfile.TemporaryDirectory() as folder:
        torch.save(official_names(w, config), os.path.join(folder, "m.pth"))
        model = RWKV(model=os.path.join(folder, "m"), strategy="cpu fp32")
    ids = torch.randint(0, 71, (23,)).tolist()
    one, state = [], None
    for t in ids:
        logits, state = model.forward([t], state)
        one.append(logits)
    many, _ = model.forward(ids, None, full_output=True)
    mine = Model(config, w)(torch.tensor([ids])).logits[0]
    for name, x in (("token by token", torch.stack(one)), ("at once", many)):
        print(f"rwkv {name}: {x.dtype}, largest difference {(x - mine).abs().max().item():.2e} of {mine.abs().max().item():.2f}")


if __name__ == "__main__":
    check()
