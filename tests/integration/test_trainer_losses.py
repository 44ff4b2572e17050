"""`lrq train` with each loss: the first step's figure against the formula by hand, and what trains on what."""

import json
import math
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

pytestmark = pytest.mark.torch

Row = dict[str, Any]


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return make_policy(tmp_path / "policy")


@pytest.fixture
def rows(tmp_path: Path) -> list[Row]:
    return [json.loads(line) for line in make_rows(tmp_path / "made.jsonl", rows=4).read_text().splitlines()]


def run(policy: Path, rows: list[Row], *options: str) -> dict[str, Any]:
    """One step over all rows; the result as JSON."""
    file = policy.parent / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [str(file), "--model", str(policy), "--output", str(policy.parent / "out"), "--json", *options]
    for setting in (f"batch_size={len(rows)}", "max_steps=1", "device=cpu", "zero_stage=0", "micro_batch=1"):
        command += ["--set", setting]
    done = CliRunner().invoke(train, command, catch_exceptions=False)
    return {"exit": done.exit_code, **json.loads(done.stdout)}


def mean_log_probs(policy: Path, rows: list[Row], side: str) -> list[tuple[float, int]]:
    """Of each row the sum of the response's log-probabilities, and its tokens."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(policy), AutoTokenizer.from_pretrained(policy)
    found = []
    for row in rows:
        prompt = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True)["input_ids"]
        whole = tokenizer.apply_chat_template(row["prompt"] + row[side])["input_ids"]
        with torch.no_grad():
            logits = model(torch.tensor([whole])).logits[0, :-1].log_softmax(-1)
        each = logits.gather(1, torch.tensor(whole[1:])[:, None])[len(prompt) - 1 :]
        found.append((each.sum().item(), len(each)))
    return found


def by_hand(name: str, chosen: tuple[float, int], rejected: tuple[float, int]) -> float:
    (w, tokens_w), (lost, tokens_l) = chosen, rejected
    if name == "sft":
        return -w / tokens_w
    if name == "simpo":
        return math.log1p(math.exp(-(2 * w / tokens_w - 2 * lost / tokens_l - 1)))
    odds = [math.log(p / (1 - p)) for p in (math.exp(w / tokens_w), math.exp(lost / tokens_l))]
    return -w / tokens_w + 0.1 * math.log1p(math.exp(odds[1] - odds[0]))


@pytest.mark.parametrize("name", ["sft", "simpo", "orpo"])
def test_losses_without_a_reference_are_those_of_the_formulas(policy: Path, rows: list[Row], name: str) -> None:
    """The first step's loss agrees to 1e-5, and no reference log-probability is computed."""
    sides = [mean_log_probs(policy, rows, side) for side in ("chosen", "rejected")]
    expected = sum(by_hand(name, *pair) for pair in zip(*sides, strict=True)) / len(rows)
    result = run(policy, rows, "--loss", name)
    assert result["state"] == "done", result
    assert result["metrics"]["loss"] == pytest.approx(expected, abs=1e-5)
    assert not (policy.parent / "out.job" / "reference.jsonl").exists()


def test_demonstrations_train_with_sft_and_with_nothing_else(policy: Path, rows: list[Row]) -> None:
    """Rows of chosen responses alone give the loss of the pairs' chosen side; a preference loss is refused at once."""
    shown = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in rows]
    refused = run(policy, shown)
    assert (refused["exit"], refused["state"]) == (1, "nothing")
    assert "line 1 has no 'rejected', which the loss 'sigmoid' reads" in refused["reason"]
    expected = [by_hand("sft", one, (0, 1)) for one in mean_log_probs(policy, rows, "chosen")]
    result = run(policy, shown, "--loss", "sft")
    assert result["metrics"]["loss"] == pytest.approx(sum(expected) / len(expected), abs=1e-5)
    assert result["metrics"]["margin"] is None


def test_ordinary_pairs_are_mixed_in_and_counted(policy: Path, rows: list[Row], tmp_path: Path) -> None:
    """Published long pairs train beside a file of short ones, whose share stands on the card."""
    long = [
        {
            "idx": number,
            "context": row["prompt"][0]["content"],
            "query": "w1 w2",
            "win_response": row["chosen"][0]["content"],
            "lose_response": row["rejected"][0]["content"],
        }
        for number, row in enumerate(rows)
    ]
    short = make_rows(tmp_path / "short.jsonl", rows=2, prompt=4)
    with short.open("a") as stream:
        stream.write('{"prompt": "torn\n')
    result = run(policy, long, "--set", f"also={short}")
    assert (result["exit"], result["state"]) == (3, "done"), result
    assert (result["preflight"]["kept"], result["preflight"]["also"]) == (6, 2)
    assert result["preflight"]["reasons"] == ["line 3 of short.jsonl is not JSON"]
    assert "| ordinary pairs mixed in, of short.jsonl | 2 (33.3%) |" in (tmp_path / "out" / "README.md").read_text()


def test_the_squared_loss_is_shown_in_units_of_its_start(policy: Path, rows: list[Row]) -> None:
    """Before the first update it is ((2·0.35)² + (2·0.15)²) / 2 for rates of .85 and .35, whatever beta is."""
    result = run(policy, [{**row, "p_w": 0.85, "p_l": 0.35} for row in rows], "--loss", "sppo")
    assert result["metrics"]["sppo_share"] == pytest.approx((0.7**2 + 0.3**2) / 2, rel=1e-4)
    assert result["metrics"]["loss"] == pytest.approx(500**2 * (0.7**2 + 0.3**2) / 2, rel=1e-4)
