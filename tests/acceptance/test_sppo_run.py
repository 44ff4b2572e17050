"""SPPO from lines to a model by one command: compared by a preference model of this machine, or by the judge."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from running import REPOSITORY, Lrq, until, write_lines

pytestmark = [pytest.mark.torch, pytest.mark.timeout(900)]

POLICY = {"path": str(REPOSITORY / "examples/small_policy/model"), "device": "cpu", "dtype": "float32"}


def make_model(kind: str, folder: Path, items: list[dict[str, Any]]) -> Path:
    """Save a random model that knows the items' words."""
    from lrq.scorer.tiny import make_pairrm, make_reward_model  # noqa: PLC0415 - loads torch

    texts = (f"{item['context']} {item['question']}" for item in items)
    words = list(dict.fromkeys(word for text in texts for word in re.findall(r"\w+|[^\w\s]+", text)))
    return (make_reward_model if kind == "reward" else make_pairrm)(folder, words)


@pytest.fixture
def settings(lrq: Lrq) -> dict[str, Any]:
    made = {
        "policy": POLICY,
        "sample": {"max_new_tokens": 40, "seed": 1},
        "train": {"rounds": 1, "batch_size": 2, "max_steps": 3, "learning_rate": 1e-4, "zero_stage": 0},
    }
    lrq.configure(**made)
    return made


def training_rows(lrq: Lrq, run: str) -> list[dict[str, Any]]:
    job = lrq.home / "runs" / run / "training" / "round-0-window-0"
    return [json.loads(line) for line in (job / "pairs.jsonl").read_text().splitlines()]


def process(lrq: Lrq, type_: str) -> dict[str, Any] | None:
    """A living process of that type, as `lrq status` knows it, once it has said something of itself."""
    if not (lrq.home / "ledger.db").exists():
        return None
    done = lrq("status", "--json", code=None)
    known = json.loads(done.stdout)["processes"] if done.returncode == 0 else []
    return next((each for each in known if each["type"] == type_ and each["note"]), None)


@pytest.mark.parametrize("kind", ["pairrm", "reward"])
def test_a_preference_model_of_this_machine(
    lrq: Lrq, asked_items: list[dict[str, Any]], settings: dict[str, Any], tmp_path: Path, kind: str
) -> None:
    """One command starts the scorer, compares by it, trains on win rates; one call a prompt, none of them twice."""
    folder = make_model(kind, tmp_path / "Tiny-RM", asked_items)
    lrq.configure(judge={"path": str(folder), "device": "cpu"})
    file = write_lines(tmp_path / "asked.jsonl", asked_items)
    run = lrq.start("run", file, "--recipe", "sppo")
    scorer = until(lambda: process(lrq, "scorer"), "the scorer in `lrq status`")
    lrq.ended(run, code=0)
    assert scorer["note"]["serves"].startswith("Tiny-RM@")
    facts = lrq.status("asked")
    assert facts["state"] == "done"
    assert facts["calls"]["calls"] <= len(asked_items)
    rows = training_rows(lrq, "asked")
    assert rows
    for row in rows:
        assert 1 > row["p_w"] > 0.5 > row["p_l"] > 0
    assert (lrq.home / "runs" / "asked" / "model" / "model.safetensors").exists()
    lrq("run", file, "--recipe", "sppo")
    assert lrq.status("asked")["calls"]["calls"] == facts["calls"]["calls"]
    assert (lrq.home / "scorer.token").stat().st_mode & 0o777 == 0o600
