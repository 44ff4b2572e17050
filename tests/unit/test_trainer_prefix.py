"""Shared prefix: the same figures as two plain forward passes, from fewer positions."""

import warnings
from collections.abc import Sequence
from typing import Any

import pytest

torch = pytest.importorskip("torch")

with warnings.catch_warnings():  # the libraries warn about each other when imported
    warnings.simplefilter("ignore")
    from transformers import AutoConfig, AutoModelForCausalLM
    from trl.trainer.utils import add_fused_lm_head, disable_dropout_in_model

    from lrq.trainer.prefix import layouts, share_prefix
    from lrq.trainer.prefix_check import compared_tokens, share_if_exact

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]

FIGURES = ("log_probs", "entropy", "mean_logits", "is_top1")
LENGTHS = [(20, 5, 3), (33, 1, 7), (1, 2, 2)]  # tokens of prompt, chosen, rejected, for each pair
SHARING = (
    "cohere", "gemma", "glm", "glm4", "granite", "helium", "llama", "mistral", "olmo2", "olmo3", "phi3", "qwen2",
    "qwen3", "smollm3",
)  # fmt: skip


def config(model_type: str, **settings: Any) -> Any:
    size = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 61}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128}
    tokens = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    given = {"sliding_window": None, **settings} if model_type in {"mistral", "phi3"} else settings
    return AutoConfig.for_model(model_type, **size, **heads, **tokens, initializer_range=0.3, **given)


def batch(lengths: Sequence[tuple[int, int, int]] = LENGTHS) -> dict[str, Any]:
    """As TRL collates: [2B, L], the chosen half first, padded on the right, labels on responses only."""
    draw = torch.Generator().manual_seed(1)
    width = max(p + max(c, r) for p, c, r in lengths)
    ids = torch.zeros(2 * len(lengths), width, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for pair, (prompt, *responses) in enumerate(lengths):
        start = torch.randint(3, 61, (prompt,), generator=draw)
        for side, length in enumerate(responses):
            row = pair + side * len(lengths)
            end = prompt + length
            ids[row, :end] = torch.cat((start, torch.randint(3, 61, (length,), generator=draw)))
            mask[row, :end] = 1
            labels[row, prompt:end] = ids[row, prompt:end]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels, "use_cache": False, "fused_lm_head": True}


def model(settings: Any, *, checkpointing: bool = False) -> Any:
    torch.manual_seed(0)
    made = AutoModelForCausalLM.from_config(settings).train()
    disable_dropout_in_model(made)
    if checkpointing:
        made.gradient_checkpointing_enable()
    add_fused_lm_head(made, outputs=FIGURES)
    return made


def embedded_shapes(made: Any) -> list[tuple[int, ...]]:
    """Shapes of the token ids that the model reads from now on."""
    shapes: list[tuple[int, ...]] = []
    made.get_input_embeddings().register_forward_hook(lambda _, given, __: shapes.append(tuple(given[0].shape)))
    return shapes


WINDOWED = [
    ("mistral", {"sliding_window": 8}),
    ("phi3", {"sliding_window": 5}),
    ("qwen2", {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1}),
    ("gemma3_text", {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}),
]


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(("model_type", "settings"), [*((name, {}) for name in SHARING), *WINDOWED])
def test_figures_and_gradients_equal_the_plain_ones(
    model_type: str, settings: dict[str, Any], checkpointing: bool
) -> None:
    """Pairs of different lengths in one batch, with grouped keys and values, with windows shorter than they are."""
    plain, shared = (model(config(model_type, **settings), checkpointing=checkpointing) for _ in range(2))
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
    shared = model(config("llama"))
    share_prefix(shared)
    shapes = embedded_shapes(shared)
    before = shared(**inputs).log_probs
    assert shapes == [(len(LENGTHS), max(pair.end for pair in pairs))]
    prompt, chosen, _ = LENGTHS[0]
    inputs["input_ids"][0, prompt : prompt + chosen] = 7
    after = shared(**inputs).log_probs
    assert after[len(LENGTHS) :].equal(before[len(LENGTHS) :])
    assert not after[0].equal(before[0])


def test_batches_that_cannot_be_packed_go_the_plain_way() -> None:
    """A row without a prompt has no prefix to share; its figures are the plain ones."""
    plain, shared = (model(config("llama")) for _ in range(2))
    share_prefix(shared)
    inputs = batch()
    inputs["labels"][0, 0] = inputs["input_ids"][0, 0]
    expected, got = (made(**inputs).log_probs for made in (plain, shared))
    torch.testing.assert_close(got, expected, atol=2e-5, rtol=1e-5)


PAIR = [(40, 6, 3)]
SMALL = {
    "mamba2": {"num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 1, "expand": 2, "chunk_size": 8},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128},
    "gemma2": {"sliding_window": 64, "head_dim": 8},
}


@pytest.mark.parametrize(("model_type", "settings"), [("llama", {}), ("mistral", {"sliding_window": 8})])
def test_a_model_that_agrees_shares(model_type: str, settings: dict[str, Any]) -> None:
    """The check measures what is there, leaves the model sharing, in its mode, and without gradients."""
    made = model(config(model_type, **settings)).eval()
    shapes = embedded_shapes(made)
    check = share_if_exact(made, made, batch(PAIR), bf16=False)
    assert (check.reason, made.training, made.is_gradient_checkpointing) == ("", False, False)
    assert max(check.log_probs, check.gradient) < 1e-5
    assert shapes == [(1, 46), (1, 46), (1, 50)]
    assert not [name for name, weight in made.named_parameters() if weight.grad is not None]
    made(**batch(PAIR))
    assert shapes[3:] == [(1, 50)]


@pytest.mark.parametrize(("model_type", "reason"), [("gpt2", ""), ("gemma2", "softcap"), ("mamba2", "differ")])
def test_a_model_that_does_not_agree_stays_plain(model_type: str, reason: str) -> None:
    """What has states, or asks of its attention what is not there, falls back with words, and is as it was before."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2} if model_type != "gpt2" else {}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2} if model_type == "gemma2" else {}
    kinds = {**sizes, **heads, **SMALL[model_type], "vocab_size": 61}
    made = model(AutoConfig.for_model(model_type, **kinds, initializer_range=0.3))
    expected = made(**batch(PAIR)).log_probs
    check = share_if_exact(made, made, batch(PAIR), bf16=False)
    assert reason in check.reason
    torch.testing.assert_close(made(**batch(PAIR)).log_probs, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "longest", "tokens"),
    [({}, 9000, 1024), ({"sliding_window": 4096}, 9000, 4352), ({"sliding_window": 4096}, 3000, 1024)],
)
def test_the_pair_compared_crosses_the_windows_that_rows_cross(
    settings: dict[str, Any], longest: int, tokens: int
) -> None:
    """The comparison is short, but not so short that a window would never show."""
    assert compared_tokens(config("mistral", **settings), longest) == tokens
