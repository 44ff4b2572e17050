"""Windows of attention are probed beyond their end, however long they are."""

import logging
from contextlib import contextmanager

import pytest

torch = pytest.importorskip("torch")
import transformers as t  # noqa: E402
from transformers import cache_utils  # noqa: E402

from lrq.policy.attention_window import narrowed, windows  # noqa: E402
from lrq.policy.probing import PROMPT, WINDOW, CannotSample, probe  # noqa: E402

SMALL = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "initializer_range": 0.3, "pad_token_id": 0,
}  # fmt: skip
LONG = 1024  # tokens of the windows, far beyond the probe's prompt
BOTH = ["sliding_attention", "full_attention"]
KINDS = {
    "mistral": lambda: t.MistralConfig(**SMALL, sliding_window=LONG, max_position_embeddings=4096),
    "gemma-2": lambda: t.Gemma2Config(**SMALL, head_dim=8, query_pre_attn_scalar=8, sliding_window=LONG),
    "gemma-3": lambda: t.Gemma3TextConfig(**SMALL, head_dim=8, sliding_window=LONG, layer_types=BOTH),
    "gpt-oss": lambda: t.GptOssConfig(
        **SMALL, head_dim=8, sliding_window=LONG, layer_types=BOTH, num_local_experts=2, num_experts_per_tok=1
    ),
    "cohere-2": lambda: t.Cohere2Config(**SMALL, sliding_window=LONG, layer_types=BOTH),
    "olmo-3": lambda: t.Olmo3Config(**SMALL, sliding_window=LONG, layer_types=BOTH),
    "chunks": lambda: t.Llama4TextConfig(
        **SMALL, head_dim=8, attention_chunk_size=LONG, num_local_experts=2, intermediate_size_mlp=48,
        layer_types=["chunked_attention", "full_attention"],
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _no_notes_of_missing_kernels():
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def build(name):
    torch.manual_seed(0)
    return t.AutoModelForCausalLM.from_config(KINDS[name]()).eval()


def logits(model, tokens=40):
    with torch.inference_mode():
        return model(input_ids=torch.arange(tokens)[None] % 60 + 3, use_cache=False).logits


@pytest.mark.parametrize("name", KINDS)
def test_windows_are_short_for_a_while(name):
    """A prompt of 40 tokens then reads otherwise, and afterwards as ever."""
    model = build(name)
    before = logits(model)
    with narrowed(model, WINDOW):
        assert set(windows(model.config).values()) == {WINDOW}
        assert (logits(model) - before).abs().max() > 1e-3
    assert set(windows(model.config).values()) == {LONG}
    assert torch.equal(logits(model), before)


def test_a_window_as_wide_as_all_positions_is_left_alone():
    """It is none, and its layers are shared."""
    model = t.MistralForCausalLM(t.MistralConfig(**SMALL, sliding_window=512, max_position_embeddings=512)).eval()
    assert windows(model.config) == {}
    with narrowed(model, WINDOW):
        assert model.config.sliding_window == 512
    assert probe(model).way == "shared"


@pytest.mark.parametrize("name", KINDS)
def test_a_cache_that_is_wrong_beyond_its_window_is_refused(name, monkeypatch):
    """It forgets one token too many; with a prompt that stays within the window nothing shows."""
    model = build(name)
    assert probe(model).way == "repeated"
    update = cache_utils.DynamicSlidingWindowLayer.update

    def forgetful(layer, *args, **named):
        seen = update(layer, *args, **named)
        if layer.keys.shape[-2] == layer.sliding_window - 1:
            layer.keys[:, :, :1] = 0
        return seen

    monkeypatch.setattr(cache_utils.DynamicSlidingWindowLayer, "update", forgetful)
    with pytest.raises(CannotSample, match="differ from its own forward pass"):
        probe(model)
    with monkeypatch.context() as short:
        short.setattr("lrq.policy.probing.WINDOW", 10 * PROMPT)
        assert probe(model).way == "repeated"


@contextmanager
def half_narrowed(model, tokens):
    """Make the cache's windows short and leave the masks as they are."""
    make = cache_utils.DynamicSlidingWindowLayer.__init__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache_utils.DynamicSlidingWindowLayer, "__init__", lambda layer, **_: make(layer, tokens))
        yield


def test_a_model_whose_window_cannot_be_made_short_is_probed_beyond_the_one_it_has(monkeypatch):
    """Where short windows disagree, the prompt is longer than the model's own."""
    model = build("mistral")
    model.config.sliding_window = 64
    monkeypatch.setattr("lrq.policy.probing.narrowed", half_narrowed)
    lengths = []
    model.register_forward_pre_hook(lambda _, __, named: lengths.append(named["input_ids"].shape[1]), with_kwargs=True)
    assert probe(model).way == "repeated"
    assert max(lengths) > 64 + PROMPT
