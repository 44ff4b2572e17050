"""However a training ends, it says so; whoever started it can be killed without leaving a second one behind."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from lrq.trainer.job import TrainJob
from lrq.trainer.job_folder import JobFolder, prepare
from lrq.trainer.launch import run
from lrq.trainer.tiny import make_policy, make_rows

pytestmark = [pytest.mark.torch, pytest.mark.timeout(600)]

FOLLOW = """
import sys
from pathlib import Path
from lrq.trainer.job_folder import JobFolder
from lrq.trainer.launch import run
run(JobFolder(Path(sys.argv[1])))
"""


def folder_for(path: Path, *, rows: int, prompt: int = 24, **settings: Any) -> JobFolder:
    files = {"model": make_policy(path / "policy"), "output": path / "better"}
    pairs = make_rows(path / "rows.jsonl", rows=rows, prompt=prompt)
    return prepare(path / "job", TrainJob(**files, rows=pairs, device="cpu", **settings))


def working_on(folder: JobFolder) -> list[int]:
    """Processes whose command line names the folder, this one apart."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                words = (process / "cmdline").read_bytes()
            except OSError:
                continue
            found += [int(process.name)] * (str(folder.path).encode() in words)
    return found


def test_dropping_more_than_a_hundredth_is_refused_with_the_remedy(tmp_path: Path) -> None:
    """Rows longer than max_length that must not be cut end the training before its first step, with what to set."""
    folder = folder_for(tmp_path, rows=4, max_length=20, overlong="drop", zero_stage=0)
    result = run(folder)
    assert (result.state, result.steps) == ("failed", 0)
    assert "4 of 4 rows are longer than max_length 20" in result.reason
    assert "set overlong=cut" in result.reason


def test_a_broken_model_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    """What goes wrong inside the training's processes becomes the result's reason; nothing is published."""
    folder = folder_for(tmp_path, rows=4, batch_size=4, zero_stage=0)
    (tmp_path / "policy" / "model.safetensors").write_bytes(b"no weights")
    result = run(folder)
    assert result.state == "failed"
    assert "Safetensor" in result.reason
    assert not (tmp_path / "better").exists()


def test_cut_rows_are_trained_on(tmp_path: Path) -> None:
    """With overlong=cut all rows stay, their prompts shortened to fit, and the result counts them."""
    result = run(folder_for(tmp_path, rows=4, prompt=60, max_length=40, batch_size=2, zero_stage=0))
    assert (result.state, result.steps) == ("done", 2), result
    assert result.preflight
    assert (result.preflight.kept, result.preflight.cut, result.preflight.dropped) == (4, 4, 0)
    assert result.preflight.total.max == 40


def test_a_killed_follower_leaves_no_second_training(tmp_path: Path) -> None:
    """Its training saves and ends; the next start waits for that and goes on to the end, every step taken once."""
    folder = folder_for(tmp_path, rows=240, batch_size=2, save_steps=100, learning_rate=1e-4, zero_stage=0)
    follower = subprocess.Popen([sys.executable, "-c", FOLLOW, str(folder.path)])
    while len(list(folder.load_metrics())) < 3:
        assert follower.poll() is None, folder.log.read_text()
        time.sleep(0.02)
    follower.kill()
    follower.wait()
    taken = len(list(folder.load_metrics()))
    result = run(folder)
    assert (result.state, result.steps) == ("done", 120), result
    assert [line["step"] for line in folder.load_metrics()] == list(range(1, 121))
    log = folder.log.read_text()
    assert "stopped after step" in log, f"the orphan did not stop in order after step {taken}"
    assert working_on(folder) == []
