#!/usr/bin/env python3
"""Makes tests/golden/arch: for each architecture a tiny random model, and what Hugging Face transformers computes with it in float64.

    python3 -m venv venv && venv/bin/pip install torch 'transformers==4.57.*' safetensors numpy gguf
    venv/bin/python tools/mkarch.py [NAME...]              writes tests/golden/arch/NAME
    venv/bin/python tools/mkarch.py --check KAGARI [NAME...]   converts each with KAGARI; names of tensors and keys must be those of gguf

Those of EMBEDDINGS have further files, as sentence-transformers (6.2.0) writes them, and embedding.f64: what its modules make of the states. They
need it installed, and transformers 5.24.

A folder has config.json as transformers writes it; case.txt: prompt and greedy ids, and each tensor with the middle and the exponent of
its numbers; logits.f64: [tokens of the prompt][vocabulary]. The numbers themselves are a formula (weights() here, test_arch.c there), exact
in float32. Dimensions are all different, so that a transposed or mixed-up one cannot fit.
transformers rounds to float32 inside (norms, softmax, rotation); here float32 is made to mean float64 first."""
import importlib, json, os, subprocess, sys, tempfile
import numpy as np

ROOT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tests", "golden", "arch")
EPS = 2.0 ** -17  # exact as float32, which is what GGUF keeps
VOCAB, TOKENS, GREEDY = 71, 23, 9

# sizes that every family has by these names; per family: class, what differs
COMMON = dict(vocab_size=VOCAB, hidden_size=48, intermediate_size=88, num_hidden_layers=3, num_attention_heads=6, num_key_value_heads=2,
              max_position_embeddings=64, rms_norm_eps=EPS, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, pad_token_id=0)
CASES = {}
ALIASES = {}  # models that transformers has under another name: config.json and tensors of theirs, computed as this class


def case(name, config, drop=(), **more):
    sizes = {k: v for k, v in COMMON.items() if k not in drop}
    CASES[name] = (config, {**sizes, **more})


case("llama", "LlamaConfig", head_dim=10, attention_bias=True, mlp_bias=True)
case("llama-linear", "LlamaConfig", rope_scaling={"rope_type": "linear", "factor": 4.0}, tie_word_embeddings=True)
case("mistral", "MistralConfig", head_dim=10, sliding_window=7)
case("mistral-window", "MistralConfig", max_position_embeddings=16, sliding_window=18)  # texts may be longer than both
case("qwen2", "Qwen2Config", rope_theta=1000000.0)
case("qwen2-yarn", "Qwen2Config", rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16})
case("qwen3", "Qwen3Config", head_dim=10)
case("gemma", "GemmaConfig", head_dim=10, num_key_value_heads=1, tie_word_embeddings=True)
case("gpt2", "GPT2Config", drop=COMMON.keys(), vocab_size=VOCAB, n_positions=64, n_embd=48, n_layer=3, n_head=6, n_inner=88, layer_norm_epsilon=EPS,
     bos_token_id=1, eos_token_id=2, tie_word_embeddings=True)

LN = dict(layer_norm_eps=EPS)
case("gemma2", "Gemma2Config", head_dim=10, sliding_window=7, query_pre_attn_scalar=16, attn_logit_softcapping=2.0, final_logit_softcapping=3.0,
     tie_word_embeddings=True)
case("gemma3", "Gemma3TextConfig", num_hidden_layers=7, head_dim=10, sliding_window=7, query_pre_attn_scalar=10, rope_theta=1000000.0,
     rope_scaling={"rope_type": "linear", "factor": 8.0}, tie_word_embeddings=True)
case("mixtral", "MixtralConfig", num_local_experts=5, num_experts_per_tok=2, sliding_window=None)
case("qwen2moe", "Qwen2MoeConfig", num_experts=5, num_experts_per_tok=3, moe_intermediate_size=28, shared_expert_intermediate_size=36)
case("qwen3moe", "Qwen3MoeConfig", head_dim=10, num_experts=5, num_experts_per_tok=3, moe_intermediate_size=28, norm_topk_prob=True)
case("olmoe", "OlmoeConfig", num_experts=5, num_experts_per_tok=3, intermediate_size=28)
case("olmo2", "Olmo2Config")
case("phi2", "PhiConfig", partial_rotary_factor=0.5, resid_pdrop=0.0, embd_pdrop=0.0, **LN)
case("phi3", "Phi3Config", sliding_window=9)
case("gptneox", "GPTNeoXConfig", drop=["num_key_value_heads"], rotary_pct=0.25, **LN)
case("gptneox-serial", "GPTNeoXConfig", drop=["num_key_value_heads"], rotary_pct=0.25, use_parallel_residual=False, **LN)
case("starcoder2", "Starcoder2Config", sliding_window=9, norm_epsilon=EPS, residual_dropout=0.0, embedding_dropout=0.0, tie_word_embeddings=True)
case("stablelm", "StableLmConfig", partial_rotary_factor=0.25, use_qkv_bias=True, **LN)
case("stablelm-parallel", "StableLmConfig", partial_rotary_factor=0.25, use_parallel_residual=True, **LN)
case("command-r", "CohereConfig", logit_scale=0.25, tie_word_embeddings=True, **LN)
case("cohere2", "Cohere2Config", num_hidden_layers=5, logit_scale=0.25, sliding_window=7, tie_word_embeddings=True, **LN)
case("glm4", "Glm4Config", head_dim=12, attention_bias=True)
case("granite", "GraniteConfig", embedding_multiplier=3.0, residual_multiplier=0.5, attention_multiplier=0.25, logits_scaling=2.0, tie_word_embeddings=True)
case("smollm3", "SmolLM3Config", num_hidden_layers=5, tie_word_embeddings=True)
case("nemotron", "NemotronConfig", head_dim=8, partial_rotary_factor=0.5, norm_eps=EPS)
case("bloom", "BloomConfig", drop=COMMON.keys(), vocab_size=VOCAB, hidden_size=48, n_layer=3, n_head=6, layer_norm_epsilon=EPS, seq_length=64,
     bos_token_id=1, eos_token_id=2, pad_token_id=0)
case("mpt", "MptConfig", drop=COMMON.keys(), vocab_size=VOCAB, d_model=48, n_heads=6, n_layers=3, max_seq_len=64, expansion_ratio=4, layer_norm_epsilon=EPS,
     attn_config={"clip_qkv": 2.0, "alibi": True, "alibi_bias_max": 8, "softmax_scale": None}, tie_word_embeddings=True)
case("falcon", "FalconConfig", layer_norm_epsilon=EPS, ffn_hidden_size=88, new_decoder_architecture=False, multi_query=True, parallel_attn=True, bias=False,
     alibi=False, tie_word_embeddings=True)
case("gptj", "GPTJConfig", drop=COMMON.keys(), vocab_size=VOCAB, n_positions=64, n_embd=48, n_layer=3, n_head=6, n_inner=88, rotary_dim=4,
     layer_norm_epsilon=EPS, bos_token_id=1, eos_token_id=2, tie_word_embeddings=False, resid_pdrop=0.0, embd_pdrop=0.0)

case("gpt-oss", "GptOssConfig", num_hidden_layers=4, head_dim=10, num_local_experts=5, num_experts_per_tok=3, intermediate_size=28, sliding_window=7,
     rope_theta=150000.0, layer_types=["sliding_attention", "full_attention"] * 2,
     rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 8.0, "beta_slow": 1.0, "truncate": False})
case("phi3-longrope", "Phi3Config", partial_rotary_factor=0.75, max_position_embeddings=2 ** 20, original_max_position_embeddings=32,
     rope_scaling={"type": "longrope", "short_factor": [1.0, 1.25, 2.5], "long_factor": [1.0, 4.0, 32.0]}, tie_word_embeddings=True)

# a prompt that is longer than the original context
case("phi3-longrope-long", "Phi3Config", partial_rotary_factor=0.75, max_position_embeddings=2 ** 16, original_max_position_embeddings=16,
     rope_scaling={"type": "longrope", "short_factor": [1.0, 1.25, 2.5], "long_factor": [1.0, 4.0, 32.0]}, tie_word_embeddings=True)
CONTEXTS = {"phi3-longrope-long": 64}  # that sessions ask for

MOE = dict(n_routed_experts=6, num_experts_per_tok=3, moe_intermediate_size=28, n_shared_experts=2, first_k_dense_replace=1, routed_scaling_factor=1.5)
case("glm4moe", "Glm4MoeConfig", head_dim=12, partial_rotary_factor=0.5, attention_bias=True, use_qk_norm=True, n_group=3, topk_group=2, norm_topk_prob=True, **MOE)
case("glm4moe-plain", "Glm4MoeConfig", head_dim=12, partial_rotary_factor=0.5, use_qk_norm=False, n_group=1, topk_group=1, norm_topk_prob=False, **MOE)
case("dots1", "Dots1Config", head_dim=10, n_group=1, topk_group=1, norm_topk_prob=True, sliding_window=None, **MOE)
case("ernie4_5", "Ernie4_5Config", head_dim=10)
case("seed_oss", "SeedOssConfig", head_dim=10, attention_bias=True, attention_out_bias=False)
case("hunyuan-dense", "HunYuanDenseV1Config", head_dim=10, tie_word_embeddings=True)
case("arcee", "ArceeConfig", head_dim=8)
case("exaone4", "Exaone4Config", num_hidden_layers=5, sliding_window=None, layer_types=["full_attention"] * 5, head_dim=8)
case("exaone4-window", "Exaone4Config", num_hidden_layers=5, sliding_window=7, sliding_window_pattern=4, head_dim=8)

case("lfm2", "Lfm2Config", drop=["rms_norm_eps"], num_hidden_layers=5, norm_eps=EPS, conv_L_cache=3, block_multiple_of=8, block_ffn_dim_multiplier=1.25,
     conv_bias=True, layer_types=["conv", "conv", "full_attention", "conv", "full_attention"], tie_word_embeddings=True)
case("llama4", "Llama4TextConfig", num_hidden_layers=6, head_dim=10, intermediate_size=28, intermediate_size_mlp=88, num_local_experts=5, num_experts_per_tok=1,
     interleave_moe_layer_step=2, attention_chunk_size=7, floor_scale=5, attn_scale=0.125, rope_theta=500000.0,
     rope_scaling={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 1.0, "original_max_position_embeddings": 16})
TEXT = dict(pad_token_id=0, bos_token_id=1, eos_token_id=2)
ENCODER = dict(vocab_size=VOCAB, hidden_size=48, intermediate_size=88, num_hidden_layers=3, num_attention_heads=6, max_position_embeddings=64, layer_norm_eps=EPS)
case("bert", "BertConfig", drop=COMMON.keys(), type_vocab_size=2, **ENCODER, **TEXT)
case("xlm-roberta", "XLMRobertaConfig", drop=COMMON.keys(), type_vocab_size=1, **{**ENCODER, "max_position_embeddings": 66}, **{**TEXT, "pad_token_id": 1, "bos_token_id": 0})
case("modern-bert", "ModernBertConfig", num_hidden_layers=5, drop=["num_hidden_layers", "num_key_value_heads", "rms_norm_eps"], norm_eps=EPS, local_attention=8,
     global_rope_theta=160000.0, local_rope_theta=10000.0, cls_token_id=1, sep_token_id=2, reference_compile=False)
case("nomic-bert", "NomicBertConfig", drop=COMMON.keys(), type_vocab_size=2, **ENCODER, **TEXT)  # needs transformers 5.24 and torch 2.6
case("falcon-40b", "FalconConfig", layer_norm_epsilon=EPS, ffn_hidden_size=88, new_decoder_architecture=True, num_kv_heads=2, multi_query=True, bias=False,
     alibi=False, tie_word_embeddings=True)
case("falcon-11b", "FalconConfig", layer_norm_epsilon=EPS, ffn_hidden_size=88, new_decoder_architecture=True, num_kv_heads=2, multi_query=True, bias=False,
     alibi=False, num_ln_in_parallel_attn=1, tie_word_embeddings=False)
case("llama-dynamic", "LlamaConfig", rope_scaling={"rope_type": "dynamic", "factor": 4.0})
VISION = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
case("gemma3-parts", "Gemma3Config", drop=COMMON.keys(), vision_config={"model_type": "siglip_vision_model", **VISION}, mm_tokens_per_image=4,
     text_config={**COMMON, "model_type": "gemma3_text", "sliding_window": 7, "num_hidden_layers": 7, "num_attention_heads": 8, "num_key_value_heads": 4,
                  "head_dim": 10, "query_pre_attn_scalar": 16, "rope_scaling": {"rope_type": "linear", "factor": 8.0}, "tie_word_embeddings": True})
case("mistral3-parts", "Mistral3Config", drop=COMMON.keys(), vision_config={"model_type": "pixtral", **VISION, "head_dim": 8},
     text_config={**COMMON, "model_type": "mistral", "head_dim": 10, "sliding_window": None})


def alias(name, new_config, new_names=lambda shapes: shapes, old_weights=lambda weights, config: weights):
    ALIASES[name] = (new_config, new_names, old_weights)


case("minicpm", "GraniteConfig", num_hidden_layers=4, embedding_multiplier=12.0, residual_multiplier=0.75, attention_multiplier=8 ** -0.5,
     logits_scaling=3.0, tie_word_embeddings=True)
alias("minicpm", lambda c: {**{k: v for k, v in c.items() if not k.endswith("_multiplier") and k != "logits_scaling"}, "model_type": "minicpm",
                            "architectures": ["MiniCPMForCausalLM"], "scale_emb": 12, "scale_depth": 1.5, "dim_model_base": 16})

INTERN = {"self_attn.o_proj": "attention.wo", "mlp.gate_proj": "feed_forward.w1", "mlp.down_proj": "feed_forward.w2", "mlp.up_proj": "feed_forward.w3",
          "input_layernorm": "attention_norm", "post_attention_layernorm": "ffn_norm", "embed_tokens": "tok_embeddings", "lm_head": "output"}


alias("nomic-bert", lambda c: {"model_type": "nomic_bert", "architectures": ["NomicBertModel"], "activation_function": "swiglu", "n_embd": 48, "n_head": 6, "n_inner": 88,
                               "n_layer": 3, "n_positions": 128, "max_trained_positions": 64, "rotary_emb_base": 1000, "rotary_emb_fraction": 1.0,
                               "rotary_emb_interleaved": False, "prenorm": False, "layer_norm_epsilon": EPS, "type_vocab_size": 2, "vocab_size": VOCAB})


def intern_name(k):
    for old, new in INTERN.items():
        k = k.replace(old, new)
    return k


def intern_names(shapes):
    out = {}
    for k, s in shapes.items():
        if ".q_proj." in k:
            rows = sum(shapes[k.replace("q_proj", p)][0] for p in ("q_proj", "k_proj", "v_proj"))
            out[k.replace("self_attn.q_proj", "attention.wqkv")] = [rows, *s[1:]]
        elif ".k_proj." not in k and ".v_proj." not in k:
            out[intern_name(k)] = s
    return out


def intern_weights(weights, config):
    """A group has the queries that look at a head of keys, its keys, its values."""
    back, out = {v: k for k, v in INTERN.items()}, {}
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    for k, w in weights.items():
        if ".wqkv." in k:
            w = w.reshape(groups, heads // groups + 2, -1, *w.shape[1:])
            for part, v in (("q_proj", w[:, :-2]), ("k_proj", w[:, -2:-1]), ("v_proj", w[:, -1:])):
                out[k.replace("attention.wqkv", "self_attn." + part)] = np.ascontiguousarray(v.reshape(-1, *w.shape[3:]))
        else:
            for new, old in back.items():
                k = k.replace(new, old)
            out[k] = w
    return out


case("internlm2", "LlamaConfig", rope_theta=1000000.0)
alias("internlm2", lambda c: {**{k: v for k, v in c.items() if k not in ("attention_bias", "mlp_bias", "head_dim", "pretraining_tp")}, "model_type": "internlm2",
                              "architectures": ["InternLM2ForCausalLM"], "bias": False, "rope_scaling": {"type": "dynamic", "factor": 2.0}}, intern_names, intern_weights)

SSM = dict(vocab_size=VOCAB, hidden_size=48, num_hidden_layers=3, layer_norm_epsilon=EPS, state_size=10, conv_kernel=4, use_bias=False, use_conv_bias=True,
           bos_token_id=1, eos_token_id=2, pad_token_id=0)
case("mamba", "MambaConfig", drop=COMMON.keys(), **SSM, time_step_rank=7, tie_word_embeddings=True)
case("mamba-falcon", "FalconMambaConfig", drop=COMMON.keys(), **SSM, time_step_rank=7, mixer_rms_eps=2.0 ** -5, tie_word_embeddings=False)
case("mamba2", "Mamba2Config", drop=COMMON.keys(), **SSM, num_heads=8, head_dim=12, n_groups=1, chunk_size=8)
case("mamba2-groups", "Mamba2Config", drop=COMMON.keys(), **SSM, num_heads=8, head_dim=12, n_groups=2, chunk_size=8)
case("qwen3next", "Qwen3NextConfig", num_hidden_layers=5, head_dim=12, partial_rotary_factor=0.5, linear_conv_kernel_dim=4, linear_key_head_dim=10,
     linear_value_head_dim=14, linear_num_key_heads=2, linear_num_value_heads=6, num_experts=5, num_experts_per_tok=3, moe_intermediate_size=28,
     shared_expert_intermediate_size=36, layer_types=["linear_attention", "linear_attention", "full_attention"] + ["linear_attention"] * 2)
QWEN35 = dict(num_hidden_layers=5, head_dim=12, linear_conv_kernel_dim=4, linear_key_head_dim=10, linear_value_head_dim=14, linear_num_key_heads=2,
              linear_num_value_heads=6, layer_types=["linear_attention", "linear_attention", "full_attention"] + ["linear_attention"] * 2,
              rope_parameters={"rope_type": "default", "rope_theta": 10000000.0, "partial_rotary_factor": 0.5, "mrope_section": [1, 1, 1], "mrope_interleaved": True})
case("qwen35", "Qwen3_5TextConfig", **QWEN35)  # these need transformers 5.24
case("qwen35moe", "Qwen3_5MoeTextConfig", drop=["intermediate_size"], **QWEN35, num_experts=5, num_experts_per_tok=3, moe_intermediate_size=28,
     shared_expert_intermediate_size=36)


def fused_names(shapes):
    """As in the files that people have: part of a multimodal model, all experts of a layer in one tensor, gates before the other factors."""
    out = {}
    for k, s in shapes.items():
        k = k.replace("model.", "model.language_model.")
        if ".experts." not in k:
            out[k] = s
        elif k.endswith("experts.0.down_proj.weight"):
            out[k.replace("0.down_proj.weight", "down_proj")] = [5, *s]
        elif k.endswith("experts.0.gate_proj.weight"):
            out[k.replace("0.gate_proj.weight", "gate_up_proj")] = [5, 2 * s[0], s[1]]
    return out


def unfused_weights(weights, config):
    out = {}
    for k, w in weights.items():
        k = k.replace("model.language_model.", "model.")
        if k.endswith("experts.down_proj"):
            out.update({k.replace("down_proj", f"{i}.down_proj.weight"): w[i].copy() for i in range(len(w))})
        elif k.endswith("experts.gate_up_proj"):
            for i in range(len(w)):
                out[k.replace("gate_up_proj", f"{i}.gate_proj.weight")], out[k.replace("gate_up_proj", f"{i}.up_proj.weight")] = (x.copy() for x in np.split(w[i], 2))
        else:
            out[k] = w
    return out


alias("qwen35moe", lambda c: {"architectures": ["Qwen3_5MoeForConditionalGeneration"], "model_type": "qwen3_5_moe", "tie_word_embeddings": False,
                              "text_config": c, "vision_config": {"model_type": "qwen3_5_moe_vision", "depth": 1, "hidden_size": 16}}, fused_names, unfused_weights)
SLIDING, FULL = "sliding_attention", "full_attention"
GEMMA4 = dict(num_hidden_layers=7, head_dim=10, global_head_dim=16, sliding_window=7, final_logit_softcapping=3.0, vocab_size_per_layer_input=VOCAB, tie_word_embeddings=True)
case("gemma4", "Gemma4TextConfig", hidden_size_per_layer_input=6, num_kv_shared_layers=3, use_double_wide_mlp=True, **GEMMA4,
     layer_types=[SLIDING, SLIDING, FULL, SLIDING, SLIDING, FULL, FULL])
case("gemma4-experts", "Gemma4TextConfig", hidden_size_per_layer_input=0, attention_k_eq_v=True, num_global_key_value_heads=3, enable_moe_block=True, num_experts=5,
     top_k_experts=3, moe_intermediate_size=28, **{**GEMMA4, "num_hidden_layers": 5}, layer_types=[SLIDING, SLIDING, FULL, SLIDING, FULL])
alias("gemma4-experts", lambda c: {"architectures": ["Gemma4ForConditionalGeneration"], "model_type": "gemma4", "vision_config": {"model_type": "gemma4_vision"},
                                   "text_config": {**{k: v for k, v in c.items() if k != "per_layer_config"}, "global_head_dim": 16, "num_global_key_value_heads": 3}},
      lambda shapes: {k.replace("model.", "model.language_model."): s for k, s in shapes.items()},
      lambda weights, config: {k.replace("model.language_model.", "model."): w for k, w in weights.items()})
MROPE = dict(rope_scaling={"rope_type": "default", "type": "default", "mrope_section": [1, 1, 2]}, rope_theta=1000000.0)
EYE = dict(depth=1, hidden_size=16, intermediate_size=24, num_heads=2, patch_size=2, out_hidden_size=48)
case("qwen2vl", "Qwen2_5_VLConfig", drop=COMMON.keys(), vision_config={**EYE, "fullatt_block_indexes": [0], "window_size": 8},
     text_config={**COMMON, **MROPE, "use_sliding_window": False})
case("qwen3vl", "Qwen3VLConfig", drop=COMMON.keys(), vision_config={**EYE, "num_position_embeddings": 16, "deepstack_visual_indexes": []}, text_config={**COMMON, **MROPE, "head_dim": 10})
case("qwen3vlmoe", "Qwen3VLMoeConfig", drop=COMMON.keys(), vision_config={**EYE, "num_position_embeddings": 16, "deepstack_visual_indexes": []},
     text_config={**COMMON, **MROPE, "head_dim": 10, "num_experts": 5, "num_experts_per_tok": 3, "moe_intermediate_size": 28, "norm_topk_prob": True})
for name in ("qwen2vl", "qwen3vl", "qwen3vlmoe"):  # what sees has weights of five dimensions
    alias(name, lambda c: c, lambda shapes: {k: s for k, s in shapes.items() if "visual" not in k})
case("granitemoe", "GraniteMoeConfig", num_local_experts=5, num_experts_per_tok=2, intermediate_size=28, embedding_multiplier=3.0, residual_multiplier=0.5,
     attention_multiplier=0.25, logits_scaling=2.0, tie_word_embeddings=True)
case("ernie4_5-moe", "Ernie4_5_MoeConfig", moe_num_experts=5, moe_k=3, moe_num_shared_experts=2, moe_intermediate_size=28, moe_layer_start_index=1, head_dim=8)
case("hunyuan-moe", "HunYuanMoEV1Config", num_experts=5, moe_topk=3, intermediate_size=28, head_dim=10, tie_word_embeddings=True)
case("lfm2moe", "Lfm2MoeConfig", drop=["rms_norm_eps"], num_hidden_layers=5, norm_eps=EPS, conv_L_cache=3, num_experts=5, num_experts_per_tok=3, num_dense_layers=1,
     moe_intermediate_size=28, layer_types=["conv", "conv", "full_attention", "conv", "full_attention"], tie_word_embeddings=True)
case("glm4-lite", "Glm4MoeLiteConfig", rms_norm_eps=1e-6, kv_lora_rank=20, q_lora_rank=26, qk_nope_head_dim=10, qk_rope_head_dim=6, v_head_dim=14, num_key_value_heads=6,
     n_group=1, topk_group=1, **{k: v for k, v in MOE.items() if k != "first_k_dense_replace"}, mlp_layer_types=["dense", "sparse", "sparse"])
case("minimax-m2", "MiniMaxM2Config", head_dim=12, num_local_experts=5, num_experts_per_tok=3, intermediate_size=28,
     rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5})
case("olmo3", "Olmo3Config", num_hidden_layers=5, sliding_window=7, rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16})
case("mistral3", "Ministral3Config", head_dim=10, sliding_window=None, rope_parameters={
    "rope_type": "yarn", "rope_theta": 1000000.0, "factor": 4.0, "original_max_position_embeddings": 8, "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0,
    "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.125, "max_position_embeddings": 8})
HYBRID = dict(num_hidden_layers=5, layer_types=["mamba", "mamba", "attention", "mamba", "attention"], mamba_n_heads=6, mamba_n_groups=1, mamba_d_state=10,
              mamba_d_conv=4, mamba_expand=2, mamba_chunk_size=8, shared_intermediate_size=36, embedding_multiplier=3.0, residual_multiplier=0.5,
              attention_multiplier=0.25, logits_scaling=2.0, tie_word_embeddings=True)
case("granitehybrid", "GraniteMoeHybridConfig", num_local_experts=5, num_experts_per_tok=2, position_embedding_type="nope", **HYBRID)
case("granitehybrid-dense", "GraniteMoeHybridConfig", num_local_experts=0, num_experts_per_tok=0, position_embedding_type="rope", **HYBRID)
MAMBA_2 = dict(ssm_state_size=10, mamba_num_heads=8, mamba_head_dim=14, n_groups=2, conv_kernel=4, chunk_size=8)
NEMOTRON_H = dict(drop=["rms_norm_eps", "num_hidden_layers"], layer_norm_epsilon=EPS, head_dim=10, **MAMBA_2)  # need transformers 5.24, as those below
case("nemotron-h", "NemotronHConfig", hybrid_override_pattern="M-M*-M", attention_bias=True, mlp_bias=True, **NEMOTRON_H)
case("nemotron-h-experts", "NemotronHConfig", hybrid_override_pattern="ME*EM", n_routed_experts=6, num_experts_per_tok=3, moe_intermediate_size=28,
     moe_shared_expert_intermediate_size=36, routed_scaling_factor=2.5, n_group=1, topk_group=1, **NEMOTRON_H)
case("nemotron-h-latent", "NemotronHConfig", hybrid_override_pattern="E*ME", n_routed_experts=6, num_experts_per_tok=3, moe_intermediate_size=28, moe_latent_size=20,
     moe_shared_expert_intermediate_size=36, routed_scaling_factor=2.5, n_group=3, topk_group=2, norm_topk_prob=False, **NEMOTRON_H)
case("apertus", "ApertusConfig", head_dim=10, attention_bias=True, rope_parameters={"rope_type": "llama3", "rope_theta": 12000.0, "factor": 8.0, "low_freq_factor": 1.0,
     "high_freq_factor": 1.0, "original_max_position_embeddings": 16})
case("jamba", "JambaConfig", num_hidden_layers=5, attn_layer_period=3, attn_layer_offset=1, expert_layer_period=2, expert_layer_offset=1, num_experts=5,
     num_experts_per_tok=3, mamba_d_state=10, mamba_d_conv=4, mamba_expand=2, mamba_dt_rank=7, mamba_proj_bias=True, use_mamba_kernels=False)
case("jamba-dense", "JambaConfig", num_hidden_layers=4, attn_layer_period=4, attn_layer_offset=2, num_experts=1, num_experts_per_tok=1, mamba_d_state=10, mamba_d_conv=4,
     mamba_expand=2, use_mamba_kernels=False, tie_word_embeddings=True)
# Ling 2 is not in transformers; what its own code computes is what this class does: sigmoids, groups by their two best, the norm of heads before the rotation
case("bailingmoe2", "Glm4MoeConfig", head_dim=12, partial_rotary_factor=0.5, attention_bias=True, use_qk_norm=True, n_group=3, topk_group=2, norm_topk_prob=True, **MOE)
BAILING = {"self_attn.o_proj": "attention.dense", "self_attn.q_norm": "attention.query_layernorm", "self_attn.k_norm": "attention.key_layernorm",
           "embed_tokens": "word_embeddings", "e_score_correction_bias": "expert_bias"}
QKV = ("q_proj", "k_proj", "v_proj")


def bailing_names(shapes):
    out = {}
    for k, s in shapes.items():
        if ".q_proj." in k:
            out[k.replace("self_attn.q_proj", "attention.query_key_value")] = [sum(shapes[k.replace("q_proj", p)][0] for p in QKV), *s[1:]]
        elif ".k_proj." not in k and ".v_proj." not in k:
            for old, new in BAILING.items():
                k = k.replace(old, new)
            out[k] = s
    return out


def bailing_weights(weights, config):
    out, heads, groups = {}, config["num_attention_heads"], config["num_key_value_heads"]
    for k, w in weights.items():
        if ".query_key_value." in k:
            n = len(w) // (heads + 2 * groups)
            for part, v in zip(QKV, np.split(w, [heads * n, (heads + groups) * n])):
                out[k.replace("attention.query_key_value", "self_attn." + part)] = np.ascontiguousarray(v)
        else:
            for new, old in BAILING.items():
                k = k.replace(old, new)
            out[k] = w
    return out


alias("bailingmoe2", lambda c: {**{k: c[k] for k in COMMON if k in c}, "architectures": ["BailingMoeV2ForCausalLM"], "model_type": "bailing_moe", "head_dim": 12, "num_experts": 6,
                                "num_experts_per_tok": 3, "moe_intermediate_size": 28, "num_shared_experts": 2, "first_k_dense_replace": 1, "routed_scaling_factor": 1.5,
                                "n_group": 3, "topk_group": 2, "norm_topk_prob": True, "score_function": "sigmoid", "moe_router_enable_expert_bias": True,
                                "partial_rotary_factor": 0.5, "rope_theta": 10000.0, "rope_scaling": None, "use_qk_norm": True, "use_bias": False, "use_qkv_bias": True,
                                "norm_head": False, "num_nextn_predict_layers": 0, "hidden_act": "silu"}, bailing_names, bailing_weights)
MINICPM3 = dict(num_key_value_heads=6, q_lora_rank=26, kv_lora_rank=20, qk_nope_head_dim=10, qk_rope_head_dim=6)
case("minicpm3", "MiniCPM3Config", num_hidden_layers=4, tie_word_embeddings=True, rope_parameters={
    "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0, 1.25, 2.5], "long_factor": [1.0, 4.0, 32.0], "original_max_position_embeddings": 64},
     **MINICPM3)
case("minicpm3-scales", "MiniCPM3Config", num_hidden_layers=4, v_head_dim=14, scale_emb=3, scale_depth=1.5, dim_model_base=16, attention_bias=True,
     **MINICPM3)
FALCON_H1 = dict(mamba_d_ssm=56, mamba_n_heads=8, mamba_d_head=7, mamba_d_state=10, mamba_d_conv=4, mamba_chunk_size=8, mamba_norm_before_gate=False, head_dim=10,
                 embedding_multiplier=3.0, lm_head_multiplier=0.375, mlp_multipliers=[0.75, 1.25], key_multiplier=0.625, attention_out_multiplier=0.875,
                 attention_in_multiplier=1.5, ssm_multipliers=[0.5, 0.75, 1.25, 0.625, 0.375], ssm_in_multiplier=1.5, ssm_out_multiplier=1.375)  # exact in float32
case("falcon-h1", "FalconH1Config", mamba_n_groups=1, mamba_rms_norm=False, attention_bias=True, mlp_bias=True, **FALCON_H1)
case("falcon-h1-tied", "FalconH1Config", mamba_n_groups=2, mamba_rms_norm=True, projectors_bias=True, **{**FALCON_H1, "tie_word_embeddings": True})
# The experts' matrices as 4-bit numbers and scales, widened by transformers' own function
PACKED = dict(hidden_size=64, num_hidden_layers=2, head_dim=10, num_local_experts=5, num_experts_per_tok=3, intermediate_size=96, sliding_window=7,
              rope_theta=150000.0, layer_types=["sliding_attention", "full_attention"])
case("gpt-oss-mxfp4", "GptOssConfig", **PACKED, rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 8.0,
                                                              "beta_slow": 1.0, "truncate": False})


def packed_names(shapes):
    out = {}
    for k, s in shapes.items():
        if k.endswith(("gate_up_proj", "down_proj")):
            experts, ins, outs = s
            out[k + "_blocks"], out[k + "_scales"] = [experts, outs, ins // 32, 16], [experts, outs, ins // 32]
        else:
            out[k] = s
    return out


def unpacked_weights(weights, config):
    import torch
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors
    out = {}
    for k, w in weights.items():
        if k.endswith("_blocks"):
            scales = torch.from_numpy(np.floor(weights[k[:-6] + "scales"]).astype(np.uint8))
            w = convert_moe_packed_tensors(torch.from_numpy(np.floor(w).astype(np.uint8)), scales, dtype=torch.bfloat16)
            out[k[:-7]] = np.ascontiguousarray(w.to(torch.float64).numpy())
        elif not k.endswith("_scales"):
            out[k] = w
    return out


alias("gpt-oss-mxfp4", lambda c: {**c, "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]}},
      packed_names, unpacked_weights)

LATENT = dict(rms_norm_eps=1e-6, kv_lora_rank=20, qk_nope_head_dim=10, qk_rope_head_dim=6, v_head_dim=14, num_key_value_heads=6)
case("deepseek2-v3", "DeepseekV3Config", q_lora_rank=26, n_group=3, topk_group=2, norm_topk_prob=True, **LATENT, **MOE,
     rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "mscale": 1.25, "mscale_all_dim": 1.25})
case("deepseek2-v2-groups", "DeepseekV2Config", q_lora_rank=26, n_group=3, topk_group=2, topk_method="group_limited_greedy", norm_topk_prob=False, **LATENT,
     **{**MOE, "routed_scaling_factor": 16.0})
case("deepseek2-v2", "DeepseekV2Config", q_lora_rank=None, n_group=1, topk_group=1, topk_method="greedy", norm_topk_prob=False, **LATENT, **MOE)


def with_model(shapes):
    return {k if k.startswith("lm_head") else "model." + k: s for k, s in shapes.items()}


def without_model(shapes):
    return {k.removeprefix("model."): s for k, s in shapes.items() if k != "lm_head.weight"}


def headed(weights, config):  # without a matrix of its own the embedding is the head
    return {**with_model(weights), "lm_head.weight": weights["embed_tokens.weight"]}


# name: pooling, linear layers behind it (width, activation, bias), further keys of config.json
EMBEDDINGS = {
    "gemma-embedding": ("mean_tokens", [(72, "Identity", False), (40, "Identity", False)], {}),
    "bert-dense": ("cls_token", [(36, "Tanh", True)], {}),
    "qwen3-embedding": ("lasttoken", [], {}),
    "mistral-embedding": ("lasttoken", [], {}),
    "qwen2-embedding": ("lasttoken", [], {"is_causal": False}),
}
case("gemma-embedding", "Gemma3TextConfig", num_hidden_layers=7, head_dim=10, sliding_window=8, query_pre_attn_scalar=10, use_bidirectional_attention=True,
     tie_word_embeddings=True)
case("bert-dense", "BertConfig", drop=COMMON.keys(), type_vocab_size=2, **{**ENCODER, "num_hidden_layers": 2}, **TEXT)
case("qwen3-embedding", "Qwen3Config", head_dim=10, tie_word_embeddings=True, rope_theta=1000000.0)
alias("qwen3-embedding", lambda c: c, without_model, lambda weights, config: with_model(weights))
case("mistral-embedding", "MistralConfig", sliding_window=None)
alias("mistral-embedding", lambda c: {**c, "architectures": ["MistralModel"]}, without_model, headed)
case("qwen2-embedding", "Qwen2Config", rope_theta=1000000.0)
TORCH_NAMES = {"Identity": "torch.nn.modules.linear.Identity", "Tanh": "torch.nn.modules.activation.Tanh"}


def embedding_files(name):
    """Files of text of the folder, and the tensors of its linear layers by file."""
    pooling, layers, _ = EMBEDDINGS[name]
    modes = ["cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken"]
    steps, texts, parts, width = ["Transformer", "Pooling"] + ["Dense"] * len(layers) + ["Normalize"], {}, {}, COMMON["hidden_size"]
    texts["1_Pooling/config.json"] = {"word_embedding_dimension": width, **{"pooling_mode_" + m: m == pooling for m in modes}, "include_prompt": True}
    for i, (out, act, bias) in enumerate(layers, 2):
        texts[f"{i}_Dense/config.json"] = {"in_features": width, "out_features": out, "bias": bias, "activation_function": TORCH_NAMES[act]}
        parts[f"{i}_Dense/model.safetensors"] = {"linear.weight": [out, width], **({"linear.bias": [out]} if bias else {})}
        width = out
    texts["modules.json"] = [{"idx": i, "name": str(i), "path": "" if i == 0 else f"{i}_{s}", "type": "sentence_transformers.models." + s} for i, s in enumerate(steps)]
    return texts, parts


def embedding_of(folder, states):
    """Runs the folder's modules on the states."""
    import torch
    from sentence_transformers import models
    x = {"token_embeddings": torch.from_numpy(states)[None], "attention_mask": torch.ones(1, len(states), dtype=torch.int64)}
    for step in json.load(open(os.path.join(folder, "modules.json")))[1:]:
        kind = getattr(models, step["type"].rsplit(".", 1)[1])
        x = (kind() if kind is models.Normalize else kind.load(os.path.join(folder, step["path"])).double())(x)
    return x["sentence_embedding"][0].detach().numpy()


# without a class of transformers: config.json as it is, and the module of tools/ that has shapes() and Model
OWN = {"rwkv7": ("rwkv7", dict(architectures=["RWKV7ForCausalLM"], model_type="rwkv7", vocab_size=VOCAB, hidden_size=48, intermediate_size=88, hidden_ratio=4.0,
                               num_hidden_layers=3, head_dim=12, num_heads=4, decay_low_rank_dim=14, a_low_rank_dim=18, v_low_rank_dim=10, gate_low_rank_dim=26,
                               hidden_act="sqrelu", max_position_embeddings=64, norm_first=True, norm_bias=True, norm_eps=EPS, attn=None, value_dim=[48, 48, 48],
                               tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, pad_token_id=0))}
CASES.update(OWN)


def fnv(text):
    h = 0xCBF29CE484222325
    for b in text.encode():
        h = (h ^ b) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return h


def weights(name, shape, middle, exponent):
    """splitmix64 of (hash of the name + index), 20 bits of it."""
    with np.errstate(over="ignore"):
        x = np.uint64(fnv(name)) + (np.arange(int(np.prod(shape)), dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    v = ((x >> np.uint64(44)).astype(np.float64) * 2.0 ** -19 - 1) * 2.0 ** exponent + middle
    assert np.all(v.astype(np.float32) == v)
    return v.reshape(shape)


def spread(case_name, name, shape):
    if name.endswith("_blocks"):
        return 128, 7
    if name.endswith("_scales"):
        return 120, 2
    if len(shape) == 0:  # numbers of an activation
        return (-0.25, -4) if name.endswith("eps") else (0.5, -2)
    if len(shape) == 1:
        less_one = case_name.startswith(("gemma", "nemotron", "qwen3next", "qwen35")) and not case_name.startswith(("gemma4", "nemotron-h")) and not name.endswith("linear_attn.norm.weight")  # these store norms as w - 1
        return (0 if less_one else 1, -1) if name.endswith(("weight", "layer_scalar", "router.scale", "expert_scale")) else (0, -2)
    return 0, int(np.round(np.log2(np.sqrt(3 / shape[-1]))))


def auto_class(config):
    import transformers
    if getattr(config, "use_bidirectional_attention", False) or getattr(config, "is_causal", True) is False:
        return transformers.AutoModel
    if "Bert" in type(config).__name__ or "Roberta" in type(config).__name__:
        return transformers.AutoModel
    causal = type(config) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING
    return transformers.AutoModelForCausalLM if causal else transformers.AutoModelForImageTextToText


def tiny(name):
    """The configuration and the names and shapes of the tensors of a checkpoint, as transformers saves it."""
    if name in OWN:
        return json.dumps(OWN[name][1], indent=2) + "\n", importlib.import_module(OWN[name][0]).shapes(OWN[name][1])
    import transformers
    from safetensors import safe_open
    config_name, args = CASES[name]
    config = getattr(transformers, config_name)(**args, **(EMBEDDINGS[name][2] if name in EMBEDDINGS else {}))
    with tempfile.TemporaryDirectory() as folder:
        auto_class(config).from_config(config).save_pretrained(folder)
        with safe_open(os.path.join(folder, "model.safetensors"), "np") as f:
            shapes = {k: f.get_slice(k).get_shape() for k in f.keys()}
        text = open(os.path.join(folder, "config.json")).read()
    return text, shapes


def write_folder(folder, name, text, shapes, dtype=np.float32, change=lambda weights: weights):
    from safetensors.numpy import save_file
    open(os.path.join(folder, "config.json"), "w").write(text)
    save_file(change({k: weights(k, s, *spread(name, k, s)).astype(dtype) for k, s in shapes.items()}), os.path.join(folder, "model.safetensors"),
              metadata={"format": "pt"})


def write_steps(folder, name, texts, parts, dtype=np.float32):
    from safetensors.numpy import save_file
    for path, v in texts.items():
        os.makedirs(os.path.dirname(os.path.join(folder, path)), exist_ok=True)
        json.dump(v, open(os.path.join(folder, path), "w"))
    for path, tensors in parts.items():
        save_file({k: weights(path + ":" + k, s, *spread(name, k, s)).astype(dtype) for k, s in tensors.items()}, os.path.join(folder, path))


def states_of(folder, ids):
    import torch
    model = load(folder)
    if not model.can_generate():
        return compute(folder, ids)[0]
    with torch.no_grad():
        return model.base_model(torch.tensor([ids]), use_cache=False).last_hidden_state[0].numpy()


def logits_and_greedy(model, ids):
    import torch
    with torch.no_grad():
        logits = model(torch.tensor([ids]), use_cache=False).logits[0].numpy()
        more, margin = list(ids), np.inf
        for _ in range(GREEDY):
            last = model(torch.tensor([more]), use_cache=False).logits[0, -1].numpy()
            order = np.argsort(-last)
            margin = min(margin, (last[order[0]] - last[order[1]]) / np.abs(last).max())
            more.append(int(order[0]))
    assert logits.dtype == np.float64
    return logits, more[len(ids):], margin


def load(folder):
    import torch, transformers
    return auto_class(transformers.AutoConfig.from_pretrained(folder)).from_pretrained(folder, dtype=torch.float64, attn_implementation="eager").eval()


def compute(folder, ids):
    import torch
    from safetensors.torch import load_file
    config = json.load(open(os.path.join(folder, "config.json")))
    if config["model_type"] in OWN:
        return logits_and_greedy(importlib.import_module(OWN[config["model_type"]][0]).Model(config, load_file(os.path.join(folder, "model.safetensors"))), ids)
    model = load(folder)
    if not model.can_generate():  # an encoder: its states
        both = {"attention_mask": torch.zeros(1, 1, len(ids), len(ids))} if getattr(model.config, "is_causal", True) is False else {}
        with torch.no_grad():
            return model(torch.tensor([ids]), **both).last_hidden_state[0].numpy(), [], np.inf
    for k, p in model.named_parameters():
        if k.endswith("A_log"):  # GGUF has -exp of it, in float32
            p.data = torch.from_numpy(np.log(np.exp(p.data.numpy()).astype(np.float32).astype(np.float64)))
    return logits_and_greedy(model, ids)


def gated_group_norm(self, x, gate):
    import torch
    x = (x * torch.nn.functional.silu(gate)).unflatten(-1, (GROUPS, -1))
    return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)).flatten(-2)


GROUPS = 1


def make(name):
    global GROUPS
    GROUPS = CASES[name][1].get("n_groups", 1)
    text, shapes = tiny(name)
    new_config, new_names, old_weights = ALIASES.get(name, (None, lambda s: s, lambda w, c: w))
    config, shapes = json.loads(text), new_names(shapes)
    texts, parts = embedding_files(name) if name in EMBEDDINGS else ({}, {})
    with tempfile.TemporaryDirectory() as folder:
        write_folder(folder, name, text, shapes, np.float64, lambda w: old_weights(w, config))
        write_steps(folder, name, texts, parts, np.float64)
        if new_config:
            text = json.dumps(new_config(config), indent=2) + "\n"
        for seed in range(100):  # a prompt whose greedy ids are clear enough for arithmetic in float32
            ids = np.random.default_rng(seed).integers(3, VOCAB, TOKENS).tolist()
            logits, greedy, margin = compute(folder, ids)
            if margin > 0.02:
                break
        embedding = embedding_of(folder, states_of(folder, ids)) if name in EMBEDDINGS else None
    out = os.path.join(ROOT, name)
    os.makedirs(out, exist_ok=True)
    open(os.path.join(out, "config.json"), "w").write(text)
    logits.astype("<f8").tofile(os.path.join(out, "logits.f64"))
    if embedding is not None:
        embedding.astype("<f8").tofile(os.path.join(out, "embedding.f64"))
    with open(os.path.join(out, "case.txt"), "w") as f:
        print("prompt", *ids, file=f)
        print("greedy", *greedy, file=f)
        if name in CONTEXTS:
            print("context", CONTEXTS[name], file=f)
        for k, s in shapes.items():
            print("tensor", k, *spread(name, k, s), *s, file=f)
        for path, v in texts.items():
            print("file", path, json.dumps(v), file=f)
        for path, tensors in parts.items():
            for k, s in tensors.items():
                print("part", path, k, *spread(name, k, s), *s, file=f)
    print(f"{name}: largest logit {np.abs(logits).max():.2f}, margin {margin:.3f}, {sum(int(np.prod(s)) for s in shapes.values())} weights")


def check(name, kagari):
    import gguf
    out = os.path.join(ROOT, name)
    shapes = {}
    for line in open(os.path.join(out, "case.txt")):
        w = line.split()
        if w[0] == "tensor":
            shapes[w[1]] = [int(n) for n in w[4:]]
    with tempfile.TemporaryDirectory() as folder:
        write_folder(folder, name, open(os.path.join(out, "config.json")).read(), shapes)
        write_steps(folder, name, *(embedding_files(name) if name in EMBEDDINGS else ({}, {})))
        file = os.path.join(folder, "m.gguf")
        subprocess.run([kagari, "convert", folder, file], check=True, stdout=subprocess.DEVNULL)
        r = gguf.GGUFReader(file)
        arch = bytes(r.fields["general.architecture"].parts[-1]).decode()
        number = {v: k for k, v in gguf.MODEL_ARCH_NAMES.items()}.get(arch)
        if number is None:
            sys.exit(f"{name}: gguf knows no architecture {arch}")
        names = {gguf.TENSOR_NAMES[t] for t in gguf.MODEL_TENSORS[number]}
        keys = {v.replace("{arch}", arch) for c in vars(gguf.Keys).values() if isinstance(c, type) for v in vars(c).values() if isinstance(v, str)}
        keys |= {k.replace("{dense}", t.name.split(".")[0]) for k in keys for t in r.tensors if t.name.startswith("dense_")}
        bad = [t.name for t in r.tensors if ".".join("{bid}" if p.isdigit() else p for p in t.name.split(".") if p not in ("weight", "bias", "scale")) not in names]
        bad += [k for k in r.fields if not k.startswith(("GGUF.", "kagari.")) and k not in keys]
        print(f"{name}: {len(r.tensors)} tensors, {len(r.fields)} keys" + (f"; unknown to gguf: {', '.join(bad)}" if bad else ""))
    return bad


if __name__ == "__main__":
    args = sys.argv[1:]
    if args[:1] == ["--check"]:
        sys.exit(any([check(n, args[1]) for n in args[2:] or sorted(CASES)]))
    import torch
    torch.Tensor.float = torch.Tensor.double
    torch.float32 = torch.float = torch.float64
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    from transformers.models.bloom import modeling_bloom  # its GELU has the factor of tanh to 8 digits
    modeling_bloom.bloom_gelu_forward = lambda x: torch.nn.functional.gelu(x, approximate="tanh")
    modeling_bloom.BloomGelu.forward = lambda self, x: torch.nn.functional.gelu(x, approximate="tanh")
    from transformers.models.mamba2 import modeling_mamba2  # its norm takes all groups together; those that the models were trained with, each by itself
    modeling_mamba2.MambaRMSNormGated.forward = gated_group_norm
    for n in args or CASES:
        make(n)
