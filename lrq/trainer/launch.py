"""Starting and following a training from a process that never loads torch.

>>> folder = prepare(Path("out.job"), TrainJob(model=..., rows=..., output=...))
>>> result = run(folder, on_metric=print)
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import orjson

from lrq.domain.environment import COMPUTE, SYSTEM, pick
from lrq.domain.errors import LrqError
from lrq.trainer.job import REPORTERS, TrainJob
from lrq.trainer.job_folder import JobFolder, Result, finished, write_json
from lrq.trainer.rows import no_rows

PARENT = "LRQ_TRAINER_PARENT"  # the process whose end ends the training
LONGEST_PROBE = 1800.0  # seconds: a model's template, tokenizer or code path that does not end is none to train
POLL_SECONDS = 0.25
GRACE_SECONDS = 120.0  # for the step in hand and its checkpoint, before the kill
LOG_TAIL = 4096  # bytes

# Threads of torch that wait for each other shall sleep: where other processes want the same cores, spinning costs ten
# times the work (18 steps of a small model on two busy cores: 164 s spinning, 17 s sleeping).
PATIENT_THREADS = {"OMP_WAIT_POLICY": "PASSIVE"}

Metric = Callable[[Mapping[str, Any]], None]


def torchrun_arguments(folder: JobFolder, processes: int) -> list[str]:
    """Return torchrun's arguments for `processes` on this machine alone, which meet on the loopback."""
    return [
        "--standalone",
        "--local-addr=127.0.0.1",
        f"--nproc-per-node={processes}",
        "--module",
        "lrq.trainer",
        str(folder.path),
    ]


OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}


def environment(inherited: Mapping[str, str], report_to: Sequence[str] = ()) -> dict[str, str]:
    """Return what a training may know of `inherited`: no hub, no keys but those of the trackers in `report_to`."""
    trackers = [(f"{REPORTERS[name]}*",) for name in report_to]
    variables = pick(inherited, SYSTEM, COMPUTE, (PARENT, "LRQ_LOG"), *trackers)
    signals = {"TORCHELASTIC_SIGNALS_TO_HANDLE": "SIGHUP,SIGQUIT"}  # SIGTERM and SIGINT are lrq.trainer.agent's
    loopback = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
    return {**loopback, **PATIENT_THREADS, **variables, **signals, **OFFLINE}


def run(
    folder: JobFolder,
    *,
    on_metric: Metric = lambda _: None,
    on_stage: Metric = lambda _: None,
    cancel: threading.Event | None = None,
    grace: float = GRACE_SECONDS,
) -> Result:
    """Train, or continue a training, to its end; blocks.

    `on_metric` gets each step's metrics once, in order, those of an interrupted start included; `on_stage` gets what
    happens before, between and after (stage, done, of). Once `cancel` is set, or on any exception, KeyboardInterrupt
    too, the training saves a checkpoint and ends; after `grace` seconds it is killed.
    """
    job = folder.load()
    look, look_at_stage = follow_metrics(folder, on_metric), follow_stage(folder, on_stage)
    if result := finished(folder, job):
        look()
        return result
    if reason := no_rows(job.rows, job.loss_type):
        write_json(folder.result, result := Result(state="nothing", reason=reason))
        return result
    check_installed()
    for leftover in (folder.result, folder.stage):
        leftover.unlink(missing_ok=True)
    process = _start(folder, job)
    cancel = cancel or threading.Event()
    try:
        while process.poll() is None and not cancel.wait(POLL_SECONDS):
            look_at_stage()
            look()
    finally:
        _end(process, grace)
        steps = look()
    return folder.load_result() or _died(folder, process, steps, asked=cancel.is_set())


def can_train(model: Path, settings: Mapping[str, Any] | None = None) -> str:
    """Take one step on two rows in a process of its own, on the CPU; returns why it cannot be taken, or nothing.

    `settings` are those of the training to come. Takes some ten seconds, with large models of the first layers alone.
    Raises UsageError unless the libraries are installed.
    """
    check_installed()
    options = {name: value for name, value in (settings or {}).items() if name not in {"model", "rows", "output"}}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "lrq.trainer", "--probe", str(model.absolute()), orjson.dumps(options).decode()],
            env=environment(os.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=LONGEST_PROBE,
        )
    except subprocess.TimeoutExpired:
        return f"one step of training did not end within {LONGEST_PROBE:g} s"
    if done.returncode < 0:
        return f"one step of training was killed by signal {-done.returncode}, most likely because memory ran out"
    if done.returncode:
        words = done.stderr.strip().splitlines() or ["the probe ended without a word"]
        return words[-1]
    return done.stdout.strip()


def check_installed() -> None:
    """Raise LrqError unless the libraries of training are there; none is loaded."""
    if missing := [name for name in ("torch", "transformers", "trl", "deepspeed") if find_spec(name) is None]:
        raise LrqError(f"training needs {', '.join(missing)}: pip install 'lrq[train]'")


def _start(folder: JobFolder, job: TrainJob) -> subprocess.Popen[bytes]:
    with folder.log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "lrq.trainer", str(folder.path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**environment(os.environ, job.report_to), PARENT: str(os.getpid())},
            start_new_session=True,
        )


def _end(process: subprocess.Popen[bytes], grace: float) -> None:
    """Ask for the end, wait, then kill the group; its processes in other sessions end with it."""
    if process.poll() is not None:
        return
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(grace)
    except BaseException as error:  # a second Ctrl-C too
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise


def follow_metrics(folder: JobFolder, on_metric: Metric) -> Callable[[], int]:
    """Return what passes each new line of the metrics on to `on_metric`, once, and returns the last step seen.

    Once it is too where a start that resumes writes the file anew.
    """
    position = {"inode": 0, "offset": 0, "step": 0}

    def look() -> int:
        for line in _new_lines(folder.metrics, position):
            metric = orjson.loads(line)
            if metric["step"] > position["step"]:
                position["step"] = metric["step"]
                on_metric(metric)
        return position["step"]

    return look


def _new_lines(path: Path, seen: dict[str, int]) -> list[bytes]:
    if not path.exists():
        return []
    with path.open("rb") as stream:
        inode = os.fstat(stream.fileno()).st_ino
        if inode != seen["inode"]:
            seen.update(inode=inode, offset=0)
        stream.seek(seen["offset"])
        data = stream.read()
    complete = data[: data.rfind(b"\n") + 1]
    seen["offset"] += len(complete)
    return complete.splitlines()


def follow_stage(folder: JobFolder, on_stage: Metric) -> Callable[[], None]:
    """Return what calls `on_stage` with the stage where it has changed."""
    previous = b""

    def look() -> None:
        nonlocal previous
        stage = folder.stage.read_bytes() if folder.stage.exists() else b""
        if stage != previous:
            previous = stage
            on_stage(orjson.loads(stage))

    return look


def _died(folder: JobFolder, process: subprocess.Popen[bytes], steps: int, *, asked: bool) -> Result:
    """Killed, or ended before it could say why; the same command goes on from the last checkpoint."""
    tail = folder.log.read_bytes()[-LOG_TAIL:].decode(errors="replace").strip()
    last_line = tail.splitlines()[-1] if tail else "the training ended without a word"
    was_killed = process.returncode < 0
    reason = (
        f"the training was killed by signal {-process.returncode}" if was_killed else f"{last_line} (see {folder.log})"
    )
    result = Result(state="stopped" if asked else "failed", reason=reason, steps=steps)
    write_json(folder.result, result)
    return result
