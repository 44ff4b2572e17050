"""Every architecture of the benchmark's zoo is sampled exactly, or refused before anything is paid."""

import logging
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
try:
    import architectures
    import zoo
finally:
    sys.path.pop(0)

from lrq.policy.forks import longrope_switch, prefill  # noqa: E402
from lrq.policy.probing import probe  # noqa: E402

STATES = {"qwen3-next", "mamba", "mamba-2", "bamba", "jamba", "falcon-h1", "lfm2"}
WINDOWS = {"mistral-window", "gemma-2", "gemma-3", "gemma-3-vision", "gpt-oss", "cohere-2", "olmo-3"}


@pytest.fixture(autouse=True)
def _no_notes_of_missing_kernels():
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("name", zoo.ZOO)
def test_each_architecture_is_sampled_exactly(name):
    """Log-probabilities of all steps are those of plain forward passes, greedy tokens those of generate()."""
    model = zoo.build(name)
    way = probe(model).way
    assert way == ("repeated" if name in STATES | WINDOWS | {"bloom"} else "shared")
    with torch.inference_mode():
        assert architectures.largest_difference(model, way) < 1e-4
        assert architectures.greedy_ids(model, way) == architectures.generated(model)


def test_longrope_is_read_anew_where_its_factors_change():
    """Prompts of 30 tokens stay below the switch at 40, and 24 new ones cross it; longer prompts do not switch."""
    model = zoo.build("phi-3-longrope")
    assert longrope_switch(model) == zoo.SWITCH
    assert len(architectures.PROMPT) < zoo.SWITCH < len(architectures.PROMPT) + architectures.NEW
    assert longrope_switch(zoo.build("llama")) is None


def test_a_window_as_wide_as_all_positions_is_none():
    """Its layers keep every token, and the cache can be shared."""
    with torch.inference_mode():
        layers = prefill(zoo.build("mistral-wide-window"), [3, 4, 5]).cache.layers
    assert {type(layer).__name__ for layer in layers} == {"DynamicLayer"}
