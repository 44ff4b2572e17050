"""A training that is killed, stopped and started again ends as if nothing had happened."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from running import processes_naming, until

from lrq.trainer.checkpoints import checkpoint_step, last_complete
from lrq.trainer.job import TrainJob
from lrq.trainer.job_folder import JobFolder, Result, prepare
from lrq.trainer.launch import environment, run
from lrq.trainer.tiny import make_policy, make_rows

pytestmark = [pytest.mark.torch, pytest.mark.timeout(600)]
STEPS = 60


def job_in(path: Path, name: str) -> JobFolder:
    job = TrainJob(
        model=path / "policy",
        rows=path / "rows.jsonl",
        output=path / name,
        batch_size=2,
        learning_rate=1e-3,
        save_steps=4,
        device="cpu",
    )
    return prepare(path / f"{name}.job", job)


def killed_at(folder: JobFolder, step: int) -> None:
    """Start the training by hand and kill its whole group once it has taken the step."""
    with folder.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "lrq.trainer", str(folder.path)],
            env=environment(os.environ),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    while len(list(folder.load_metrics())) < step:
        assert process.poll() is None, folder.log.read_text()
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    until(lambda: not processes_naming(str(folder.path)), "the end of its processes, in sessions of their own", 60)


def stopped_in_its_steps(folder: JobFolder) -> Result:
    """Go on, and ask for the end at the first step that is taken."""
    training, cancel = threading.Event(), threading.Event()

    def look_at_stage(stage: Mapping[str, Any]) -> None:
        if stage["stage"] == "train":
            training.set()

    def look_at_step(_: Mapping[str, Any]) -> None:
        if training.is_set():
            cancel.set()

    return run(folder, on_stage=look_at_stage, on_metric=look_at_step, cancel=cancel)


def test_a_killed_and_a_stopped_training_go_on_to_equal_losses(tmp_path: Path) -> None:
    """SIGKILL of the group, an orderly stop, then the rest: every step once, with the losses of one straight run."""
    make_policy(tmp_path / "policy")
    make_rows(tmp_path / "rows.jsonl", rows=2 * STEPS)
    straight = job_in(tmp_path, "straight")
    assert run(straight).state == "done"

    broken = job_in(tmp_path, "broken")
    killed_at(broken, 7)
    kept = last_complete(broken.checkpoints)
    assert kept is not None
    assert 4 <= checkpoint_step(kept) < STEPS
    assert not broken.result.exists()

    stopped = stopped_in_its_steps(broken)
    assert (stopped.state, stopped.reason) == ("stopped", f"stopped after step {stopped.steps}, with a checkpoint")
    assert checkpoint_step(kept) < stopped.steps < STEPS, "the orderly stop came too late to show anything"

    told: list[int] = []
    done = run(broken, on_metric=lambda metric: told.append(metric["step"]))
    assert (done.state, done.steps) == ("done", STEPS), done
    assert told == list(range(1, STEPS + 1))
    expected, got = ({line["step"]: line["loss"] for line in job.load_metrics()} for job in (straight, broken))
    assert got == expected
    assert (tmp_path / "broken" / "model.safetensors").read_bytes() == (
        tmp_path / "straight" / "model.safetensors"
    ).read_bytes()
    assert run(broken) == done, "a finished training is not started again"
