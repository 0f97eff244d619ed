#!/usr/bin/env python3
"""Makes tests/golden/lora: adapters for tiny models of tests/golden/arch, and what peft computes with them in float64.

    venv/bin/pip install torch 'transformers==4.57.*' peft accelerate safetensors numpy
    venv/bin/python tools/mklora.py [NAME...]

A folder has adapter_config.json as peft writes it; case.txt: the model, prompt and greedy ids, and the tensors of
adapter_model.safetensors, whose numbers are those of mkarch.py's formula; logits.f64: [tokens of the prompt][vocabulary]."""
import json, os, sys, tempfile
import numpy as np
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import mkarch

ROOT = os.path.join(os.path.dirname(mkarch.ROOT), "lora")
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CASES = {  # model, task, LoraConfig
    "llama": ("llama", "CAUSAL_LM", dict(r=3, lora_alpha=7, target_modules=LINEAR + ["lm_head"])),
    "llama-tied": ("llama-linear", "CAUSAL_LM", dict(r=4, lora_alpha=5, use_rslora=True, target_modules=["q_proj", "k_proj", "lm_head", "embed_tokens"])),
    "qwen2-patterns": ("qwen2", "CAUSAL_LM", dict(r=4, lora_alpha=8, target_modules=LINEAR, rank_pattern={"q_proj": 2, "layers.1.mlp.down_proj": 5},
                                                  alpha_pattern={"layers\\.[02]\\.self_attn\\.v_proj": 3, r"^model.layers.1.*(gate|up)_proj": 11})),
    "gpt2": ("gpt2", "CAUSAL_LM", dict(r=3, lora_alpha=6, fan_in_fan_out=True, target_modules=["c_attn", "c_proj", "c_fc"])),
    "phi3": ("phi3", "CAUSAL_LM", dict(r=3, lora_alpha=9, target_modules=["qkv_proj", "gate_up_proj", "o_proj", "down_proj"])),
    "gptneox": ("gptneox", "CAUSAL_LM", dict(r=3, lora_alpha=9, target_modules=["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"])),
    "mixtral": ("mixtral", "CAUSAL_LM", dict(r=2, lora_alpha=5, target_modules=["q_proj", "gate", "w1", "w2", "w3"])),
    "mamba": ("mamba", "CAUSAL_LM", dict(r=3, lora_alpha=7, target_modules=["in_proj", "x_proj", "embeddings"])),
    "gemma2-layers": ("gemma2", "CAUSAL_LM", dict(r=3, lora_alpha=7, target_modules=["q_proj", "v_proj"], layers_to_transform=[1])),
}


def make(name):
    import torch, transformers, peft
    from safetensors.numpy import load_file
    base, task, args = CASES[name]
    text, shapes = mkarch.tiny(base)
    with tempfile.TemporaryDirectory() as folder:
        mkarch.write_folder(folder, base, text, shapes, np.float64)
        config = transformers.AutoConfig.from_pretrained(folder)
        model = mkarch.auto_class(config).from_pretrained(folder, dtype=torch.float64, attn_implementation="eager").eval()
    for k, p in model.named_parameters():
        if k.endswith("A_log"):  # as in mkarch.py
            p.data = torch.from_numpy(np.log(np.exp(p.data.numpy()).astype(np.float32).astype(np.float64)))
    model.name_or_path = model.config._name_or_path = ""
    model = peft.get_peft_model(model, peft.LoraConfig(task_type=task, **args)).eval()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder, save_embedding_layers=False)
        parts = {k: v.shape for k, v in load_file(os.path.join(folder, "adapter_model.safetensors")).items()}
        adapter = json.load(open(os.path.join(folder, "adapter_config.json")))
    spread = {k: (0, -1 if "_B" in k else int(np.round(np.log2(np.sqrt(3 / s[-1]))))) for k, s in parts.items()}
    values = {k: torch.from_numpy(mkarch.weights(k, s, *spread[k])) for k, s in parts.items()}
    left = peft.set_peft_model_state_dict(model, values).unexpected_keys
    assert not left, left
    for k, p in model.named_parameters():
        assert "lora_" not in k or p.dtype == torch.float64, k
    with model.disable_adapter():
        plain = mkarch.logits_and_greedy(model, [5, 6, 7])[0]
    assert np.abs(mkarch.logits_and_greedy(model, [5, 6, 7])[0] - plain).max() > 0.01 * np.abs(plain).max()
    for seed in range(100):  # as in mkarch.py
        ids = np.random.default_rng(seed).integers(3, mkarch.VOCAB, mkarch.TOKENS).tolist()
        logits, greedy, margin = mkarch.logits_and_greedy(model, ids)
        if margin > 0.02:
            break
    out = os.path.join(ROOT, name)
    os.makedirs(out, exist_ok=True)
    adapter["base_model_name_or_path"] = None
    open(os.path.join(out, "adapter_config.json"), "w").write(json.dumps(adapter, indent=2, sort_keys=True) + "\n")
    logits.astype("<f8").tofile(os.path.join(out, "logits.f64"))
    with open(os.path.join(out, "case.txt"), "w") as f:
        print("base", base, file=f)
        print("prompt", *ids, file=f)
        print("greedy", *greedy, file=f)
        for k, s in parts.items():
            print("tensor", k, *spread[k], *s, file=f)
    print(f"{name}: largest logit {np.abs(logits).max():.2f}, margin {margin:.3f}, {len(parts)} tensors")


if __name__ == "__main__":
    import torch
    torch.Tensor.float = torch.Tensor.double
    torch.float32 = torch.float = torch.float64
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    for n in sys.argv[1:] or CASES:
        make(n)
