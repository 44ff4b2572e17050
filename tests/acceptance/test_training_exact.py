"""Shared prefixes, ZeRO and several processes change the cost of a training, not its course."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

from lrq.trainer.job import TrainJob
from lrq.trainer.job_folder import prepare
from lrq.trainer.launch import environment, run
from lrq.trainer.tiny import make_policy, make_rows

pytestmark = [pytest.mark.torch, pytest.mark.timeout(600)]

STEPS = 8
SETTINGS = {"batch_size": 4, "beta": 0.15, "learning_rate": 1e-3, "warmup": 0.25, "scheduler": "linear", "seed": 7}

# TRL as its documentation has it: its own tokenization, collator, reference model and forward passes.
STOCK = """
import json, logging, sys
from datasets import load_dataset
from trl import DPOConfig, DPOTrainer

logging.disable(logging.WARNING)
model, rows, out, settings = *sys.argv[1:4], json.loads(sys.argv[4])
args = DPOConfig(
    output_dir=out, max_length=None, bf16=False, use_cpu=True, report_to="none", save_strategy="no", logging_steps=1,
    loss_type=["sigmoid", "sft"], loss_weights=[1.0, 0.1], per_device_train_batch_size=1, num_train_epochs=1,
    gradient_accumulation_steps=settings["batch_size"], beta=settings["beta"], warmup_steps=settings["warmup"],
    learning_rate=settings["learning_rate"], lr_scheduler_type=settings["scheduler"], seed=settings["seed"],
)
adapter = None
if "adapter" in settings:
    from peft import LoraConfig
    adapter = LoraConfig(task_type="CAUSAL_LM", **settings["adapter"])
rows = load_dataset("json", data_files=rows, cache_dir=out)["train"]
trainer = DPOTrainer(model, args=args, train_dataset=rows, peft_config=adapter)
trainer.train()
lines = [line for line in trainer.state.log_history if "loss" in line]
print("LINES", json.dumps([[line["loss"], line["rewards/margins"]] for line in lines]))
"""


def stock_figures(path: Path, **settings: object) -> list[list[float]]:
    """Loss and margin of each step."""
    paths = [str(path / name) for name in ("policy", "rows.jsonl", "stock")]
    done = subprocess.run(
        [sys.executable, "-c", STOCK, *paths, json.dumps(SETTINGS | settings)],
        env=environment(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.split("LINES")[1].splitlines()[0])


def our_figures(path: Path, name: str, **settings: object) -> list[list[float]]:
    files = {"model": path / "policy", "rows": path / "rows.jsonl", "output": path / name}
    folder = prepare(path / f"{name}.job", TrainJob(**files, **SETTINGS, device="cpu", **settings))
    result = run(folder)
    assert result.state == "done", result
    assert result.preflight
    assert result.preflight.shared_prefix == ("yes" if settings.get("shared_prefix", True) else "not asked for")
    return [[line["loss"], line["margin"]] for line in folder.load_metrics()]


def test_losses_equal_those_of_stock_trl(tmp_path: Path) -> None:
    """In fp32, loss and margin of every step agree to 1e-5: one process with ZeRO-2, and two ranks with ZeRO-3."""
    make_policy(tmp_path / "policy")
    make_rows(tmp_path / "rows.jsonl", rows=SETTINGS["batch_size"] * STEPS, prompt=60)
    stock = stock_figures(tmp_path)
    assert len(stock) == STEPS
    assert len({round(loss, 4) for loss, _ in stock}) == STEPS, "a training in which nothing moves would show nothing"
    one = our_figures(tmp_path, "one", zero_stage=2)
    assert one == [pytest.approx(line, abs=1e-5) for line in stock]
    two = our_figures(tmp_path, "two", zero_stage=3, processes=2)
    assert two == [pytest.approx(line, abs=1e-5) for line in stock]


LORA = {"r": 8, "lora_alpha": 16, "lora_dropout": 0.0, "target_modules": ["q_proj", "v_proj", "down_proj"]}


def test_lora_takes_the_course_of_stock_trl_with_peft(tmp_path: Path) -> None:
    """Loss and margin of 8 steps agree to 1e-5, shared prefix on and off; merged, the model is the base's folder."""
    policy = make_policy(tmp_path / "policy")
    make_rows(tmp_path / "rows.jsonl", rows=SETTINGS["batch_size"] * STEPS, prompt=60)
    stock = stock_figures(tmp_path, adapter=LORA)
    assert len({round(loss, 4) for loss, _ in stock}) == STEPS, "a training in which nothing moves would show nothing"
    adapter = {"r": 8, "alpha": 16, "targets": LORA["target_modules"]}
    shared = our_figures(tmp_path, "shared", zero_stage=2, adapter=adapter, merge=True)
    assert shared == [pytest.approx(line, abs=1e-5) for line in stock]
    plain = our_figures(tmp_path, "plain", zero_stage=0, adapter=adapter, shared_prefix=False)
    assert plain == [pytest.approx(line, abs=1e-5) for line in stock]
    assert {path.name for path in policy.iterdir()} < {path.name for path in (tmp_path / "shared").iterdir()}
    written = {path.name for path in (tmp_path / "plain").iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "README.md"} <= written
    assert "model.safetensors" not in written


@pytest.mark.parametrize("zero_stage", [2, 3])
def test_bf16_starts_where_its_reference_stands(tmp_path: Path, zero_stage: int) -> None:
    """Before the first update policy and reference are the same model: no margin, though the rows are long."""
    make_policy(tmp_path / "policy")
    make_rows(tmp_path / "rows.jsonl", rows=4, chosen=300, rejected=150)
    settings = {"bf16": True, "max_steps": 1, "zero_stage": zero_stage}
    [(_, margin)] = our_figures(tmp_path, "bf16", **settings)
    assert margin == pytest.approx(0, abs=1e-3)


def test_the_squared_loss_with_certain_rates_is_half_of_trls_hard_one(tmp_path: Path) -> None:
    """SPPO with p_w = 1 and p_l = 0 takes the course of TRL's `sppo_hard`, whose formula lacks the ½."""
    make_policy(tmp_path / "policy")
    pairs = make_rows(tmp_path / "plain.jsonl", rows=16).read_text().splitlines()
    rated = [json.dumps({**json.loads(pair), "p_w": 1.0, "p_l": 0.0}) for pair in pairs]
    (tmp_path / "rows.jsonl").write_text("\n".join(rated))
    ours, hard = (
        our_figures(tmp_path, loss, loss_type=(loss,), loss_weights=(weight,), zero_stage=0)
        for loss, weight in (("sppo", 1.0), ("sppo_hard", 0.5))
    )
    assert len(ours) == 4
    assert ours == [pytest.approx(line, rel=1e-5) for line in hard]
