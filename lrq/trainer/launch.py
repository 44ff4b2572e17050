"""Starting and following a training from a process that never loads torch.

>>> folder = prepare(Path("out.job"), TrainJob(model=..., rows=..., output=...))
>>> result = run(folder, on_metric=print)
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from lrq.trainer.job import JobFolder, Result, TrainJob, finished, write_json

PARENT = "LRQ_TRAINER_PARENT"  # the process whose end ends the training
POLL_SECONDS = 0.25
GRACE_SECONDS = 120.0  # for the step in hand and its checkpoint, before the kill
LOG_TAIL = 4096  # bytes

Metric = Callable[[Mapping[str, Any]], None]


def torchrun_arguments(folder: JobFolder, processes: int) -> list[str]:
    """torchrun on this machine alone: rendezvous and processes meet on the loopback."""
    return [
        "--standalone",
        "--local-addr=127.0.0.1",
        f"--nproc-per-node={processes}",
        "--module",
        "lrq.trainer",
        str(folder.path),
    ]


def environment(inherited: Mapping[str, str]) -> dict[str, str]:
    """What the training may know: no keys of other services, no hub, no telemetry."""
    kept = {name: value for name, value in inherited.items() if not name.endswith(("_API_KEY", "_TOKEN"))}
    offline = {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        # SIGTERM and SIGINT are ours, see lrq.trainer.agent
        "TORCHELASTIC_SIGNALS_TO_HANDLE": "SIGHUP,SIGQUIT",
    }
    loopback = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
    return {**loopback, **kept, **offline}


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
    follower = _Follower(folder, on_metric, on_stage)
    if result := finished(folder, job):
        follower.look()
        return result
    folder.result.unlink(missing_ok=True)
    process = _start(folder)
    try:
        _follow(process, follower, cancel or threading.Event())
    finally:
        _end(process, grace)
    follower.look()
    return folder.load_result() or _died(folder, job, process, follower)


def _start(folder: JobFolder) -> subprocess.Popen[bytes]:
    with folder.log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "lrq.trainer", str(folder.path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**environment(os.environ), PARENT: str(os.getpid())},
            start_new_session=True,
        )


def _follow(process: subprocess.Popen[bytes], follower: "_Follower", cancel: threading.Event) -> None:
    while process.poll() is None and not cancel.wait(POLL_SECONDS):
        follower.look()


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


class _Follower:
    """Tells of each step once, though the file is written anew when a start resumes."""

    def __init__(self, folder: JobFolder, on_metric: Metric, on_stage: Metric) -> None:
        self._folder, self._on_metric, self._on_stage = folder, on_metric, on_stage
        self._inode, self._offset = 0, 0
        self._stage = b""
        self.step = 0

    def look(self) -> None:
        self._look_at_stage()
        for line in self._new_lines():
            metric = orjson.loads(line)
            if metric["step"] > self.step:
                self.step = metric["step"]
                self._on_metric(metric)

    def _look_at_stage(self) -> None:
        stage = self._folder.stage.read_bytes() if self._folder.stage.exists() else b""
        if stage != self._stage:
            self._stage = stage
            self._on_stage(orjson.loads(stage))

    def _new_lines(self) -> list[bytes]:
        if not self._folder.metrics.exists():
            return []
        with self._folder.metrics.open("rb") as stream:
            inode = os.fstat(stream.fileno()).st_ino
            if inode != self._inode:
                self._inode, self._offset = inode, 0
            stream.seek(self._offset)
            data = stream.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return whole.splitlines()


def _died(folder: JobFolder, job: TrainJob, process: subprocess.Popen[bytes], follower: _Follower) -> Result:
    """Killed, or ended before it could say why; the same command goes on from the last checkpoint."""
    reason = (
        f"the training was killed by signal {-process.returncode}" if process.returncode < 0 else _last_words(folder)
    )
    result = Result(state="failed", reason=reason, steps=follower.step)
    write_json(folder.result, result)
    return result


def _last_words(folder: JobFolder) -> str:
    tail = folder.log.read_bytes()[-LOG_TAIL:].decode(errors="replace").strip()
    return f"{tail.splitlines()[-1] if tail else 'the training ended without a word'} (see {folder.log})"
