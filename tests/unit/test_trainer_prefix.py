"""Shared prefix: the same figures as two plain forward passes, from fewer positions."""

import warnings
from typing import Any

import pytest

torch = pytest.importorskip("torch")

with warnings.catch_warnings():  # the libraries warn about each other when imported
    warnings.simplefilter("ignore")
    from transformers import AutoConfig, AutoModelForCausalLM
    from trl.trainer.utils import add_fused_lm_head

    from lrq.trainer.prefix import ATTENTION, SUPPORTED, layouts, share_prefix, unsupported

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]

FIGURES = ("log_probs", "entropy", "mean_logits", "is_top1")
LENGTHS = [(20, 5, 3), (33, 1, 7), (1, 2, 2)]  # tokens of prompt, chosen, rejected, for each pair


def config(model_type: str, **settings: Any) -> Any:
    size = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 61}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    full = {"sliding_window": None} if model_type == "mistral" else {}
    return AutoConfig.for_model(model_type, **size, **heads, **tokens, **full, initializer_range=0.3, **settings)


def batch() -> dict[str, Any]:
    """As TRL collates: [2B, L], the chosen half first, padded on the right, labels on responses only."""
    draw = torch.Generator().manual_seed(1)
    width = max(p + max(c, r) for p, c, r in LENGTHS)
    ids = torch.zeros(2 * len(LENGTHS), width, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for pair, (prompt, *responses) in enumerate(LENGTHS):
        start = torch.randint(3, 61, (prompt,), generator=draw)
        for side, length in enumerate(responses):
            row = pair + side * len(LENGTHS)
            end = prompt + length
            ids[row, :end] = torch.cat((start, torch.randint(3, 61, (length,), generator=draw)))
            mask[row, :end] = 1
            labels[row, prompt:end] = ids[row, prompt:end]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels, "use_cache": False, "fused_lm_head": True}


def model(settings: Any, attention: str, *, checkpointing: bool) -> Any:
    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_config(settings, attn_implementation=attention).train()
    if checkpointing:
        made.gradient_checkpointing_enable()
    add_fused_lm_head(made, outputs=FIGURES)
    return made


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("model_type", sorted(SUPPORTED))
def test_figures_and_gradients_equal_the_plain_ones(model_type: str, checkpointing: bool) -> None:
    """For every supported architecture, pairs of different lengths in one batch, with grouped keys and values."""
    assert unsupported(config(model_type)) is None
    plain = model(config(model_type), "sdpa", checkpointing=checkpointing)
    shared = model(config(model_type), ATTENTION, checkpointing=checkpointing)
    share_prefix(shared)
    inputs = batch()
    outputs = [made(**inputs) for made in (plain, shared)]
    on_response = inputs["labels"][:, 1:] != -100
    assert outputs[1].label_mask.equal(on_response)
    for name in FIGURES:
        expected, got = (output[name].float() * on_response for output in outputs)
        torch.testing.assert_close(got, expected, atol=2e-5, rtol=1e-5)
    weights = torch.rand(on_response.shape, generator=torch.Generator().manual_seed(2))
    for output in outputs:
        (output.log_probs * weights).sum().backward()
    for (name, expected), (_, got) in zip(plain.named_parameters(), shared.named_parameters(), strict=True):
        scale = float(expected.grad.abs().max())
        torch.testing.assert_close(got.grad, expected.grad, atol=1e-4 * scale, rtol=1e-3, msg=name)


def test_one_forward_pass_sees_each_prompt_once() -> None:
    """The packed rows hold P + C + R + 1 positions, and the rejected branch sees no chosen token."""
    inputs = batch()
    pairs = layouts(inputs["attention_mask"], inputs["labels"])
    assert [pair.end for pair in pairs] == [p + c + r + 1 for p, c, r in LENGTHS]
    shared = model(config("llama"), ATTENTION, checkpointing=False)
    share_prefix(shared)
    shapes: list[tuple[int, ...]] = []
    shared.base_model.embed_tokens.register_forward_hook(lambda _, given, __: shapes.append(tuple(given[0].shape)))
    before = shared(**inputs).log_probs
    assert shapes == [(len(LENGTHS), max(pair.end for pair in pairs))]
    prompt, chosen, _ = LENGTHS[0]
    inputs["input_ids"][0, prompt : prompt + chosen] = 7
    after = shared(**inputs).log_probs
    assert after[len(LENGTHS) :].equal(before[len(LENGTHS) :])
    assert not after[0].equal(before[0])


def test_batches_that_cannot_be_packed_go_the_plain_way() -> None:
    """A row without a prompt has no prefix to share; its figures are the plain ones."""
    plain, shared = (model(config("llama"), name, checkpointing=False) for name in ("sdpa", ATTENTION))
    share_prefix(shared)
    inputs = batch()
    inputs["labels"][0, 0] = inputs["input_ids"][0, 0]
    expected, got = (made(**inputs).log_probs for made in (plain, shared))
    torch.testing.assert_close(got, expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (AutoConfig.for_model("gpt2"), "architecture 'gpt2'"),
        (AutoConfig.for_model("mixtral"), "architecture 'mixtral'"),
        (AutoConfig.for_model("mistral", sliding_window=4096), "sliding windows"),
        (
            AutoConfig.for_model("qwen2", use_sliding_window=True, sliding_window=64, max_window_layers=0),
            "sliding windows",
        ),
    ],
)
def test_other_models_say_why_not(settings: Any, why: str) -> None:
    """Architectures that are not known to work, and windows that would need another mask, are named."""
    assert why in (unsupported(settings) or "")
