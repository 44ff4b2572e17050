"""A training whose reference is another model than it begins with: a later window of a round."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch")

with warnings.catch_warnings():  # the libraries warn about each other when imported
    warnings.simplefilter("ignore")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from lrq.cli.train import train
    from lrq.trainer.tiny import make_policy, make_rows

pytestmark = [pytest.mark.torch, pytest.mark.slow]

BETA = 0.15
COMMON = ("batch_size=4", "micro_batch=1", "learning_rate=1e-2", "warmup=0", "device=cpu", f"beta={BETA}")


def run(rows: Path, model: Path, output: Path, *settings: str, code: int = 0) -> dict[str, Any]:
    command = [str(rows), "--model", str(model), "--output", str(output), "--json"]
    command += [part for setting in (*COMMON, *settings) for part in ("--set", setting)]
    done = CliRunner().invoke(train, command, catch_exceptions=False)
    assert done.exit_code == code, done.output
    return dict(json.loads(done.stdout))


def log_probs(model: Any, tokenizer: Any, rows: Path) -> list[list[float]]:
    """Return [chosen, rejected] of each row: log π(response | prompt), in nats."""
    sums = []
    for line in rows.read_text().splitlines():
        row = json.loads(line)
        prompt = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True)["input_ids"]
        both = []
        for side in ("chosen", "rejected"):
            whole = tokenizer.apply_chat_template(row["prompt"] + row[side])["input_ids"]
            with torch.no_grad():
                logits = model(torch.tensor([whole])).logits[0, :-1].log_softmax(-1)
            each = logits.gather(1, torch.tensor(whole[1:])[:, None])[len(prompt) - 1 :]
            both.append(each.sum().item())
        sums.append(both)
    return sums


@pytest.mark.parametrize(
    "settings",
    [("zero_stage=0",), ("zero_stage=3", "processes=2"), ("zero_stage=0", "adapter=lora")],
    ids=["one process", "two ZeRO-3 ranks", "adapter"],
)
def test_a_later_window_is_held_to_the_start_of_the_round(tmp_path: Path, settings: tuple[str, ...]) -> None:
    """Kept log-probabilities and the first margin are a plain computation's, by the model before the first window."""
    start = make_policy(tmp_path / "start")
    windows = [make_rows(tmp_path / f"rows-{n}.jsonl", rows=4, seed=n) for n in range(2)]
    run(windows[0], start, tmp_path / "first", "epochs=3", *settings)
    second = tmp_path / "second"
    result = run(windows[1], tmp_path / "first", second, f"reference_model={start}", "epochs=1", *settings)
    tokenizer = AutoTokenizer.from_pretrained(start)
    reference = log_probs(AutoModelForCausalLM.from_pretrained(start), tokenizer, windows[1])
    begun = log_probs(AutoModelForCausalLM.from_pretrained(tmp_path / "first"), tokenizer, windows[1])
    store = second.with_name("second.job") / "reference.jsonl"
    kept = [json.loads(line)["logp"] for line in store.read_text().splitlines()]
    assert sorted(kept) == pytest.approx(sorted(part for both in reference for part in both), abs=1e-4)
    rewards = [
        [BETA * (now - then) for now, then in zip(*each, strict=True)] for each in zip(begun, reference, strict=True)
    ]
    margin = sum(chosen - rejected for chosen, rejected in rewards) / len(rewards)
    assert abs(margin) > 0.01, "the first window moved the model"
    assert result["first"]["margin"] == pytest.approx(margin, abs=1e-4)
    assert "| reference | start |" in (second / "README.md").read_text()


def test_a_reference_may_be_an_adapter(tmp_path: Path) -> None:
    """A round that begins with one: its second window goes on from the next, on the same base."""
    base = make_policy(tmp_path / "base")
    files = [make_rows(tmp_path / f"rows-{n}.jsonl", rows=4, seed=n) for n in range(3)]
    start, first, second = (tmp_path / name for name in ("start", "first", "second"))
    run(files[0], base, start, "epochs=3", "zero_stage=0", "adapter=lora")
    run(files[1], start, first, "epochs=3", "zero_stage=0")
    run(files[2], first, second, f"reference_model={start}", "zero_stage=0")
    expected = log_probs(AutoModelForCausalLM.from_pretrained(start), AutoTokenizer.from_pretrained(base), files[2])
    store = second.with_name("second.job") / "reference.jsonl"
    kept = [json.loads(line)["logp"] for line in store.read_text().splitlines()]
    assert sorted(kept) == pytest.approx(sorted(part for both in expected for part in both), abs=1e-4)


def test_kept_log_probabilities_need_the_reference_model_no_more(tmp_path: Path) -> None:
    """Begun anew with all of them kept, a training writes none a second time and takes the same steps."""
    start, later = make_policy(tmp_path / "start"), make_policy(tmp_path / "later", seed=1)
    rows = make_rows(tmp_path / "rows.jsonl", rows=4)
    shared = (f"reference_model={start}", f"reference={tmp_path / 'kept.jsonl'}", "zero_stage=0")
    first = run(rows, later, tmp_path / "a", *shared)
    kept = (tmp_path / "kept.jsonl").read_bytes()
    second = run(rows, later, tmp_path / "b", *shared)
    assert (tmp_path / "kept.jsonl").read_bytes() == kept
    assert second["metrics"]["loss"] == first["metrics"]["loss"]
