"""One step of training before anything is paid: what can be trained, and in what words the rest is refused."""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")

with warnings.catch_warnings():  # the libraries warn about each other when imported
    warnings.simplefilter("ignore")
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    from zoo import build

    from lrq.trainer import job_folder as jobs
    from lrq.trainer.job import TrainJob
    from lrq.trainer.job_folder import check_settings, prepare
    from lrq.trainer.launch import can_train, run
    from lrq.trainer.models import load_model
    from lrq.trainer.probe import probe_settings
    from lrq.trainer.tiny import make_policy, make_rows, make_tokenizer

from lrq.domain.errors import UsageError

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(600)]

FILES: dict[str, Any] = {"model": "m", "rows": "r", "output": "o"}
QUANTIZED = {"adapter": {"r": 4, "quantize": True}}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"loss_type": "sppo", "loss_weights": [1.0], "optim": "rmsprop", "adapter": {"r": 2}}, ""),
        ({"optim": "no_such"}, "no_such is not a valid OptimizerNames"),
    ],
)
def test_a_step_is_taken_with_the_settings_of_the_training(
    tmp_path: Path, settings: dict[str, Any], reason: str
) -> None:
    """Loss, optimizer and adapter are those to come; what they cannot do is one line."""
    refusal = can_train(make_policy(tmp_path, hidden=32), settings)
    assert refusal == "" if not reason else reason in refusal
    assert "\n" not in refusal


@pytest.mark.slow
def test_quantized_weights_are_refused(tmp_path: Path) -> None:
    """By the name of their method: no gradient moves them."""
    policy = make_policy(tmp_path, hidden=32)
    config = json.loads((policy / "config.json").read_text())
    (policy / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "gptq"}}))
    assert "weights quantised by gptq, which cannot be trained" in can_train(policy)


def test_four_bits_are_refused_without_bitsandbytes_or_without_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In words that name the remedy, before any weight is read."""
    job = TrainJob(**{**FILES, **QUANTIZED, "model": make_policy(tmp_path, hidden=32)})
    monkeypatch.setattr(jobs, "find_spec", lambda name: None if name == "bitsandbytes" else name)
    with pytest.raises(UsageError, match="needs bitsandbytes and a GPU"):
        check_settings(job)
    monkeypatch.setattr(jobs, "find_spec", lambda name: name)
    check_settings(job)
    with pytest.raises(UsageError, match=r"adapter\.quantize needs a GPU"):
        load_model(job, bf16=False, gpu=False)


def test_the_probe_leaves_four_bits_to_the_training_where_there_is_a_gpu() -> None:
    """Its own step is on the CPU, which has no kernels for them."""
    assert probe_settings(QUANTIZED, has_gpu=True)["adapter"] == {"r": 4, "quantize": False}
    assert probe_settings(QUANTIZED, has_gpu=False)["adapter"]["quantize"] is True
    assert probe_settings({"adapter": "lora"}, has_gpu=True)["adapter"] == "lora"
    assert QUANTIZED["adapter"]["quantize"] is True


@pytest.mark.slow
@pytest.mark.parametrize("zero_stage", [0, 2])
@pytest.mark.parametrize("name", ["gemma-3-vision", "mistral-3"])
def test_multimodal_models_are_trained_on_text_at_every_stage(tmp_path: Path, name: str, zero_stage: int) -> None:
    """Their vision tower gets no gradient, which no process waits for, and comes back as it was."""
    policy = tmp_path / "policy"
    build(name).save_pretrained(policy)
    make_tokenizer().save_pretrained(policy)
    files = {"model": policy, "rows": make_rows(tmp_path / "rows.jsonl", rows=4), "output": tmp_path / "better"}
    job = TrainJob(**files, device="cpu", zero_stage=zero_stage, batch_size=2, learning_rate=1e-2, warmup=0)
    result = run(prepare(tmp_path / "job", job))
    assert (result.state, result.steps) == ("done", 2), result
    before, after = (_weights(folder) for folder in (policy, tmp_path / "better"))
    moved = {key for key in before if not before[key].equal(after[key])}
    assert moved
    assert not [key for key in moved if "vision" in key]
    assert before.keys() == after.keys()


def _weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file  # noqa: PLC0415 - loads torch

    return {key: value for file in folder.glob("*.safetensors") for key, value in load_file(file).items()}
