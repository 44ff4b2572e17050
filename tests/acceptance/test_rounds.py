"""Two rounds of a recipe, killed in the middle of each stage, are the two rounds of one that ran straight through."""

import json
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from running import REPOSITORY, Crew, Lrq, Sim, processes_naming, until, write_lines

pytestmark = [pytest.mark.torch, pytest.mark.timeout(1200)]

STEPS = 24  # of each training
SETTINGS = {
    "policy": {"path": str(REPOSITORY / "examples/small_policy/model"), "device": "cpu", "dtype": "float32"},
    "sample": {"responses": 4, "max_new_tokens": 40, "seed": 1},
    "settings": {"min_scored": 2},
    "train": {"batch_size": 2, "max_steps": STEPS, "learning_rate": 1e-4, "save_steps": 5, "zero_stage": 0},
}


def count(lrq: Lrq, table: str) -> int:
    """Rows of the run that is killed, in its second round."""
    ((found,),) = lrq.query(f"SELECT count(*) FROM {table} WHERE round = 1")
    return int(found)


def kill_training(lrq: Lrq, crew: Crew) -> None:
    """The worker and the processes it has started, all at once."""
    folder = str(lrq.home / "runs" / "killed" / "training" / "round-1-window-0")
    own = processes_naming(folder)
    assert own, "no process of the training was found"
    for pid in (*crew.pids("trainer"), *own):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until(lambda: not set(own) & set(processes_naming(folder)), "their end")


def made(lrq: Lrq, run: str) -> dict[str, Any]:
    """Rows and scores of all rounds, and the weights of each."""
    folder = lrq.home / "runs" / run
    return {
        "pairs": [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()],
        "scores": [json.loads(line) for line in (folder / "scores.jsonl").read_text().splitlines()],
        "weights": [(folder / "models" / f"round-{n}" / "model.safetensors").read_bytes() for n in range(2)],
    }


def test_killed_at_every_stage_of_the_second_round(
    lrq: Lrq, sim: Callable[..., Sim], asked_items: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Sampler, judge, training, and in the end `lrq run` with all it has started; the same rows and weights."""
    judge = sim("--latency", "150")
    lrq.judged_by(judge, concurrency=4)
    lrq.configure(**SETTINGS)
    file = write_lines(tmp_path / "asked.jsonl", asked_items)
    words = ("run", file, "--rounds", 2, "--set", "train.round_items=all")
    run = lrq.start(*words, "--name", "killed")
    crew = Crew(lrq, run)
    until(lambda: count(lrq, "prompts"), "the first sample of the second round")
    crew.end("sampler", signal.SIGKILL)
    assert count(lrq, "prompts") < len(asked_items), "all was sampled before the kill"
    until(lambda: judge.stats()["in_flight"], "calls in flight")
    at_risk = crew.end("judge", signal.SIGKILL)
    until(lambda: count(lrq, "metrics") >= 6, "the first checkpoint of the second training")
    kill_training(lrq, crew)
    taken = count(lrq, "metrics")
    until(lambda: count(lrq, "metrics") > taken, "the training's second start")
    run.kill()
    lrq.ended(run)
    assert count(lrq, "metrics") < STEPS, "the training was over before it was killed: give it more steps"
    lrq("resume", "killed")
    facts = lrq.status("killed")
    assert (facts["state"], facts["round"]) == ("done", 1)
    assert all(one["pairs"] for one in facts["rounds"])
    stats = judge.stats()
    assert stats["duplicates"] <= at_risk
    lrq(*words, "--name", "straight")
    killed, straight = made(lrq, "killed"), made(lrq, "straight")
    assert killed == straight
    assert killed["weights"][0] != killed["weights"][1]
    assert judge.stats()["complete"] == stats["complete"], "the same responses ask what was answered before"
