"""torchrun within this process: starts the training's processes, hands an orderly stop to them, notes a failure.

torchrun gives its processes 30 seconds after a SIGTERM, which may be less than one step; so the signal becomes a file
that they look for after each step.
"""

import fcntl
import logging
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as torchrun

from lrq.domain.errors import UsageError
from lrq.domain.logs import format_logs
from lrq.trainer.job_folder import JobFolder, PreparedJob, Result, finished, write_json
from lrq.trainer.launch import PARENT, environment, torchrun_arguments
from lrq.trainer.parent import watch_parent

log = logging.getLogger("lrq.trainer")

EXIT_STATUS = {"done": 0, "nothing": 0, "failed": 1, "stopped": 130}


def main(folder: JobFolder) -> int:
    """Train what `folder` asks for, or continue it, in as many processes as the job wants; return the exit status."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    format_logs(logging.getLogger(), as_json=os.environ.get("LRQ_LOG") == "json")
    job = folder.load()
    with _alone(folder):
        result = finished(folder, job) or _train(folder, job)
        if result.state == "done" and not job.output.exists():
            result = _merge(folder, job, result)
        write_json(folder.result, result)
    log.info("%s %s", result.state, result.reason)
    return EXIT_STATUS[result.state]


@contextmanager
def _alone(folder: JobFolder) -> Iterator[None]:
    """Wait until no other start of this job is at work: one whose parent was killed is saving its checkpoint."""
    with folder.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _train(folder: JobFolder, job: PreparedJob) -> Result:
    for leftover in (folder.stop, folder.failure, folder.overtime, folder.result):
        leftover.unlink(missing_ok=True)
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: folder.stop.touch())
    if parent := os.environ.pop(PARENT, None):
        watch_parent(int(parent), folder.stop.touch)
    os.environ[PARENT] = str(os.getpid())
    os.environ.update(environment(os.environ))
    try:
        gpus = torch.cuda.device_count() if job.device != "cpu" else 0
        job.accumulation(processes := job.processes or max(1, gpus))
        torchrun(torchrun_arguments(folder, processes))
    except (ChildFailedError, UsageError) as error:
        return folder.load_result() or _failed(folder, error)
    return folder.load_result() or Result(state="failed", reason=f"no process left a result (see {folder.log})")


def _merge(folder: JobFolder, job: PreparedJob, result: Result) -> Result:
    """Make a whole model of the trained adapter, now that the training's processes have left."""
    from lrq.trainer.finish import merge  # noqa: PLC0415 - loads transformers and peft

    folder.result.unlink(missing_ok=True)
    try:
        merge(folder, job, result)
    except Exception as error:
        log.exception("The adapter could not be merged")
        return Result(state="failed", reason=f"the adapter in {folder.adapter} could not be merged: {error}")
    shutil.rmtree(folder.adapter, ignore_errors=True)
    return result


def _failed(folder: JobFolder, error: Any) -> Result:
    if isinstance(error, UsageError):
        return Result(state="failed", reason=str(error))
    if folder.failure.exists():
        return Result(state="failed", reason=folder.failure.read_text())
    if folder.stop.exists():
        return Result(state="stopped", reason="stopped before the first step")
    _, failure = error.get_first_failure()
    if failure.exitcode == 1 and folder.overtime.exists():
        return Result(state="failed", reason=folder.overtime.read_text())
    if failure.exitcode == -signal.SIGKILL:
        return Result(state="failed", reason="a training process was killed, most likely because memory ran out")
    return Result(state="failed", reason=f"a training process ended with status {failure.exitcode} (see {folder.log})")
