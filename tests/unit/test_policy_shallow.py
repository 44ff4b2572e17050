"""A large model by its first layers: one of each kind, and a model that still computes."""

import json
import warnings
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

with warnings.catch_warnings():  # the libraries warn about each other when imported
    warnings.simplefilter("ignore")
    import transformers as t
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    from lrq.policy import shallow
    from lrq.policy.shallow import first_layers, layer_kinds, shallow_config

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]

SMALL = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2,
    "pad_token_id": 0,
}  # fmt: skip
EXPERTS = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 8}
MAMBA = {"use_mamba_kernels": False, "mamba_d_state": 8}
WINDOWED = ["sliding_attention"] * 5 + ["full_attention"]

# Configuration, and how many of its layers hold one of each kind.
DEEP = {
    "llama": (lambda: t.LlamaConfig(**SMALL, num_hidden_layers=32), 2),
    "gemma-3": (lambda: t.Gemma3TextConfig(**SMALL, head_dim=8, num_hidden_layers=12, layer_types=WINDOWED * 2), 6),
    "deepseek-v3": (  # its first layers have no experts
        lambda: t.DeepseekV3Config(
            **{**SMALL, "num_key_value_heads": 4}, num_hidden_layers=12, first_k_dense_replace=3, n_routed_experts=4,
            n_group=2, topk_group=1, num_experts_per_tok=1, moe_intermediate_size=8, q_lora_rank=16, kv_lora_rank=16,
            qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8,
        ),
        4,
    ),
    "jamba": (  # its first layers have no attention
        lambda: t.JambaConfig(**SMALL, **MAMBA, num_hidden_layers=16, num_experts=2),
        5,
    ),
    "qwen3-moe": (
        lambda: t.Qwen3MoeConfig(**SMALL, **EXPERTS, head_dim=8, num_hidden_layers=8, mlp_only_layers=[0, 1, 2]), 4
    ),
    "smollm-3": (lambda: t.SmolLM3Config(**SMALL, num_hidden_layers=8), 4),  # every fourth layer has no rotation
    "gpt-2": (lambda: t.GPT2Config(vocab_size=64, n_embd=32, n_layer=12, n_head=4), 2),
    "gemma-3-vision": (
        lambda: t.Gemma3Config(
            text_config={**SMALL, "head_dim": 8, "num_hidden_layers": 12, "layer_types": WINDOWED * 2},
            vision_config={"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 12,
                           "num_attention_heads": 4, "image_size": 28, "patch_size": 14},
        ),
        6,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DEEP)
def test_the_first_layers_hold_each_kind_once(name: str) -> None:
    """No fewer and no more, and what is left computes logits that are finite."""
    make, expected = DEEP[name]
    every_kind = set(layer_kinds(make().get_text_config()))
    config = first_layers(make())
    text = config.get_text_config()
    assert text.num_hidden_layers == expected
    assert set(layer_kinds(text)) == every_kind
    if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING:
        model = t.AutoModelForCausalLM.from_config(config).eval()
        assert model(input_ids=torch.tensor([[3, 4, 5]]), use_cache=False).logits.isfinite().all()


def _refuses(_: object) -> None:
    raise ValueError("no such number of layers")


def test_small_models_and_those_that_cannot_be_shallow_are_loaded_whole(tmp_path: Path, monkeypatch) -> None:
    """By the bytes of their weights; of an adapter by its base's."""
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    t.LlamaForCausalLM(t.LlamaConfig(**SMALL, num_hidden_layers=3)).save_pretrained(base)
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    assert shallow_config(base) is None
    monkeypatch.setattr(shallow, "LARGE", 1000)
    assert shallow_config(base).num_hidden_layers == shallow_config(adapter).num_hidden_layers == 2
    monkeypatch.setattr(shallow.AutoModel, "from_config", _refuses)
    assert shallow_config(base) is None
