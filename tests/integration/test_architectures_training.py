"""Training of many architectures: as stock TRL does, on the fast path or off it, of tiny models made on the spot."""

import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")

with warnings.catch_warnings():  # the libraries warn about each other when imported
    warnings.simplefilter("ignore")
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    from zoo_training import EXACT, figures

    from lrq.trainer.tiny import make_tokenizer

pytestmark = [pytest.mark.torch, pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

# One for each way through: shared, with windows, with a vision tower, with experts, capped scores, states, sinks.
PATHS = {
    "llama": "shared",
    "gemma-3-vision": "shared",
    "mistral-3": "shared",
    "olmo-3": "shared",
    "deepseek-v3": "shared",
    "qwen3-moe": "the load of its experts is balanced over all tokens, and a shared prompt counts once",
    "gemma-2": "the model cannot: its attention has 'softcap'",
    "gpt-oss": "the load of its experts is balanced over all tokens, and a shared prompt counts once",
    "mamba-2": "its log-probabilities differ",
    "lfm2": "its log-probabilities differ",
}


@pytest.mark.parametrize("name", PATHS)
def test_an_architecture_trains_as_stock_trl_trains_it(name: str, tmp_path: Path) -> None:
    """Loss and margin of four steps agree to 1e-4, whichever path the check chose."""
    from zoo import build  # noqa: PLC0415 - of the benchmarks

    build(name).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    (stock, _), (ours, path) = (figures(tmp_path, ours=side) for side in (False, True))
    assert path.startswith(PATHS[name])
    flat: list[list[Any]] = [[figure for step in steps for figure in step] for steps in (stock, ours)]
    assert flat[1] == pytest.approx(flat[0], abs=EXACT)
