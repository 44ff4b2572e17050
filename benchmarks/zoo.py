"""Tiny random models of many architectures, made from their configurations: nothing is fetched.

    from zoo import ZOO, build
    model = build("gemma-3")          # in eval mode, fp32

Each stands for a way to attend, to count positions or to keep a state. Windows and the longrope switch are short, so
that a prompt of 30 tokens and 24 new ones crosses them.
"""

from collections.abc import Mapping
from typing import Any

import torch
import transformers as t

VOCABULARY = 64  # ids 0 to 2 are padding, beginning and end
WINDOW = 16  # tokens, of those models that have one
SWITCH = 40  # tokens at which longrope changes its factors

_BASE: Mapping[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_BOTH = ["sliding_attention", "full_attention"]
_ROPE = {"rope_theta": 10000.0}
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128, **_ROPE}
_DYNAMIC = {"rope_type": "dynamic", "factor": 4.0, **_ROPE}
_LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
    "rope_theta": 500000.0,
}
_LONGROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0] * 4,
    "long_factor": [1.5, 2.0, 3.0, 4.0],
    "original_max_position_embeddings": SWITCH,
    **_ROPE,
}
_MAMBA = {"n_groups": 1, "chunk_size": 8, "conv_kernel": 4, "state_size": 8}


def _of(config: type, **other: Any) -> t.PreTrainedConfig:
    return config(**{**_BASE, **other})


def _llama() -> t.PreTrainedConfig:
    return _of(t.LlamaConfig)


ZOO: Mapping[str, Any] = {
    "llama": _llama,
    "llama-yarn": lambda: _of(t.LlamaConfig, rope_parameters=_YARN),
    "llama-dynamic-ntk": lambda: _of(t.LlamaConfig, rope_parameters=_DYNAMIC),
    "llama-3.1": lambda: _of(t.LlamaConfig, rope_parameters=_LLAMA3),
    "qwen2": lambda: _of(t.Qwen2Config),
    "qwen3": lambda: _of(t.Qwen3Config, head_dim=8),
    "qwen3-moe": lambda: _of(t.Qwen3MoeConfig, head_dim=8, **_MOE),
    "qwen3-next": lambda: _of(
        t.Qwen3NextConfig,
        head_dim=8,
        layer_types=["linear_attention", "full_attention"],
        linear_conv_kernel_dim=4,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        shared_expert_intermediate_size=16,
        **_MOE,
    ),
    "mistral": lambda: _of(t.MistralConfig, sliding_window=None),
    "mistral-window": lambda: _of(t.MistralConfig, sliding_window=WINDOW),
    "mistral-wide-window": lambda: _of(t.MistralConfig, sliding_window=512),
    "mistral-3": lambda: t.Mistral3Config(
        text_config={"model_type": "mistral", **_BASE, "head_dim": 8, "sliding_window": None},
        vision_config={
            "model_type": "pixtral",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "image_size": 28,
            "patch_size": 14,
        },
        image_token_index=3,
        spatial_merge_size=1,
    ),
    "gemma": lambda: _of(t.GemmaConfig, head_dim=8),
    "gemma-2": lambda: _of(t.Gemma2Config, head_dim=8, query_pre_attn_scalar=8, sliding_window=WINDOW),
    "gemma-3": lambda: _of(t.Gemma3TextConfig, head_dim=8, sliding_window=WINDOW, layer_types=_BOTH),
    "gemma-3-vision": lambda: t.Gemma3Config(
        text_config={**_BASE, "head_dim": 8, "sliding_window": WINDOW, "layer_types": _BOTH},
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "image_size": 28,
            "patch_size": 14,
        },
        mm_tokens_per_image=4,
        boi_token_index=4,
        eoi_token_index=5,
        image_token_index=3,
    ),
    "phi-3": lambda: _of(t.Phi3Config, sliding_window=None),
    "phi-3-longrope": lambda: _of(
        t.Phi3Config, sliding_window=None, rope_parameters=_LONGROPE, original_max_position_embeddings=SWITCH
    ),
    "gpt-oss": lambda: _of(
        t.GptOssConfig,
        head_dim=8,
        sliding_window=WINDOW,
        layer_types=_BOTH,
        num_local_experts=4,
        num_experts_per_tok=2,
        rope_parameters=_YARN,
    ),
    "glm-4": lambda: _of(t.Glm4Config, head_dim=8),
    "cohere-2": lambda: _of(t.Cohere2Config, sliding_window=WINDOW, layer_types=_BOTH),
    "olmo-3": lambda: _of(t.Olmo3Config, sliding_window=WINDOW, layer_types=_BOTH),
    "deepseek-v3": lambda: _of(
        t.DeepseekV3Config,
        num_key_value_heads=4,
        q_lora_rank=16,
        kv_lora_rank=16,
        qk_nope_head_dim=8,
        qk_rope_head_dim=8,
        v_head_dim=8,
        moe_intermediate_size=16,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_group=2,
        topk_group=1,
        first_k_dense_replace=1,
    ),
    "gpt-2": lambda: t.GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=512,
        n_embd=32,
        n_layer=2,
        n_head=4,
        initializer_range=0.2,
        bos_token_id=1,
        eos_token_id=2,
    ),
    "gpt-neox": lambda: _of(t.GPTNeoXConfig),
    "bloom": lambda: t.BloomConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        n_layer=2,
        n_head=4,
        initializer_range=0.2,
        bos_token_id=1,
        eos_token_id=2,
    ),
    "mamba": lambda: t.MambaConfig(
        vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=8, initializer_range=0.2
    ),
    "mamba-2": lambda: t.Mamba2Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        num_heads=8,
        head_dim=8,
        initializer_range=0.2,
        **_MAMBA,
    ),
    "bamba": lambda: _of(
        t.BambaConfig,
        attn_layer_indices=[1],
        mamba_n_heads=8,
        mamba_d_head=8,
        mamba_n_groups=1,
        mamba_d_state=8,
        mamba_chunk_size=8,
    ),
    "jamba": lambda: _of(
        t.JambaConfig,
        use_mamba_kernels=False,
        attn_layer_period=2,
        attn_layer_offset=1,
        expert_layer_period=2,
        expert_layer_offset=1,
        num_experts=2,
        mamba_d_state=8,
    ),
    "falcon-h1": lambda: _of(
        t.FalconH1Config,
        mamba_d_ssm=64,
        mamba_n_heads=8,
        mamba_d_head=8,
        mamba_n_groups=1,
        mamba_d_state=8,
        mamba_chunk_size=8,
    ),
    "lfm2": lambda: _of(t.Lfm2Config, layer_types=["conv", "full_attention"], block_multiple_of=16),
}


def config(name: str) -> t.PreTrainedConfig:
    """Return the configuration of that name, made anew."""
    made: t.PreTrainedConfig = ZOO[name]()
    return made


def build(name: str, *, seed: int = 0, attention: str | None = None) -> t.PreTrainedModel:
    """Return the model with random weights, fp32, in eval mode; `attention`: sdpa, eager, or None for its default."""
    torch.manual_seed(seed)
    made = config(name)
    own = {} if attention is None else {"attn_implementation": attention}
    if type(made) in t.AutoModelForCausalLM._model_mapping:
        model = t.AutoModelForCausalLM.from_config(made, **own)
    else:  # multimodal: its text alone is sampled and trained
        model = t.AutoModelForImageTextToText.from_config(made, **own)
    return model.eval()
