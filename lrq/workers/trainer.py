"""The trainer worker: one training of a window of rows, in processes of its own, resumed where it was killed."""

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from lrq.domain.errors import LrqError, Stopping, UsageError
from lrq.ledger import backlog
from lrq.ledger import runs as runs_
from lrq.ledger.backlog import Task
from lrq.ledger.runs import Run
from lrq.ledger.writer import AWAY
from lrq.policy.folder import find
from lrq.run_config import SCHEDULE, RunConfig, check_rounds, schedule_of
from lrq.trainer import launch
from lrq.trainer.job import make_job
from lrq.trainer.job_folder import JobFolder, Result, check_settings, prepare
from lrq.trainer.loss_names import reads
from lrq.workers import loop
from lrq.workers.accelerator import Accelerator, is_single
from lrq.workers.context import WorkerContext
from lrq.workers.rows import renderer_of, training_rows, trl_row


def train(worker: WorkerContext, task: Task, run: Run, frozen: RunConfig) -> None:
    """Train to the end, whatever it is; its state and reason go to the ledger."""
    try:
        result = _train(worker, task, run, frozen)
    except LrqError as error:
        result = Result(state="failed", reason=str(error))
    if result.state == "stopped":
        raise Stopping
    if result.model is not None:
        _link_latest(run_folder(worker.settings.home, run.name), result.model)
    with worker.ledger.write() as tx:
        ended = {"state": result.state, "reason": result.reason, "model": str(result.model or "")}
        backlog.end_training(tx, task, **ended, ended_at=tx.now())
        backlog.advance_run(tx, run.id, frozen.schedule)


def _train(worker: WorkerContext, task: Task, run: Run, frozen: RunConfig) -> Result:
    with worker.ledger.write() as tx:
        backlog.set_training(tx, task, state="running", started_at=tx.now())
    folder = _prepare(worker, task, run, frozen)
    if folder is None:
        return Result(state="nothing", reason="no item has brought a row")
    if not (worker.settings.policy.serve or is_single("auto")):  # a policy's server may have all of them
        return _follow(worker, task, folder)
    with Accelerator().alone(loop.stopping) as had:
        return _follow(worker, task, folder) if had else Result(state="stopped")


def _follow(worker: WorkerContext, task: Task, folder: JobFolder) -> Result:
    identity = {"run_id": task.run, "round": task.round, "window": backlog.window_of(task)}
    unkept: list[dict[str, Any]] = []

    def keep(metric: Mapping[str, Any]) -> None:
        """Keep the figures of a step; where the database is away, they go in with the next step's."""
        unkept.append({**identity, "step": metric["step"], "body": orjson.dumps(metric).decode()})
        with suppress(*AWAY):
            with worker.ledger.write() as tx:
                runs_.add_metrics(tx, unkept)
            unkept.clear()

    return launch.run(folder, on_metric=keep, cancel=loop.stopping)


def _prepare(worker: WorkerContext, task: Task, run: Run, frozen: RunConfig) -> JobFolder | None:
    """Write the window's rows and the job; None where there are no rows."""
    home = run_folder(worker.settings.home, run.name)
    name = f"round-{task.round}-window-{backlog.window_of(task)}"
    path = home / "training" / name
    path.mkdir(parents=True, exist_ok=True)
    rows = path / "pairs.jsonl"
    if not rows.exists() and not _write_rows(worker, task, run, frozen, rows):
        return None
    folders = {**_models(worker, task, frozen), "rows": rows, "output": home / _output(task, frozen)}
    settings = {**train_settings(frozen.config["train"]), "about": about(run.name, frozen.config, task.round)}
    return prepare(path, make_job({**folders, **settings}))


def _output(task: Task, frozen: RunConfig) -> str:
    """Return the folder of a training's model, below the run's; of several, `model` links to the latest."""
    schedule, window = frozen.schedule, backlog.window_of(task)
    is_only = schedule is None or (schedule.rounds == 1 and not schedule.every_rows and not window)
    return "model" if is_only else f"models/round-{task.round}" + (f"-window-{window}" if window else "")


def _link_latest(home: Path, model: Path) -> None:
    """Have `model` in the run's folder be this one; a reader sees the one before or this."""
    link = home / "model"
    if model == link or (link.exists() and not link.is_symlink()):
        return
    temporary = home / f".model.{os.getpid()}"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(model.relative_to(home))
    temporary.replace(link)


def _write_rows(worker: WorkerContext, task: Task, run: Run, frozen: RunConfig, path: Path) -> int:
    rates = any(reads(name).rates for name in train_settings(frozen.config).get("loss_type", ()))
    rows = training_rows(worker.ledger, frozen, run.id, task.round, window=backlog.window_of(task), rates=rates)
    with worker.ledger.read() as tx:
        sampled_by = runs_.model_before(tx, task.run, task.round)
    renderer = renderer_of(frozen, Path(sampled_by) if sampled_by else None)
    written = 0
    temporary = path.with_suffix(".part")
    with temporary.open("wb") as stream:
        for row in rows:
            stream.write(orjson.dumps(trl_row(row, renderer), option=orjson.OPT_APPEND_NEWLINE))
            written += 1
    if written:
        temporary.replace(path)
    return written


def _models(worker: WorkerContext, task: Task, frozen: RunConfig) -> dict[str, Path]:
    """Return what a training starts from, the model of the one before it, and its reference, the round's start."""
    check_trainable(frozen.config)
    policy = frozen.config["policy"]["path"]
    with worker.ledger.read() as tx:
        before = runs_.model_before(tx, task.run, task.round, backlog.window_of(task)) or policy
        start = runs_.model_before(tx, task.run, task.round) or policy
    return {"model": find(before), **({} if start == before else {"reference_model": find(start)})}


def check_trainable(config: Mapping[str, Any]) -> None:
    """Raises UsageError where a run that is to be trained names no folder to start from."""
    policy = config["policy"]
    if config["train"] is None:
        return
    check_rounds(config)
    files = dict.fromkeys(("model", "rows", "output"), Path())
    check_settings(make_job({**files, **train_settings(config["train"])}))  # now, not when all has been paid
    if not policy["path"]:
        what = "is behind a URL and cannot be trained from there" if policy["models"] else "to train is not named"
        raise UsageError(
            f"the policy {what}: set policy.path (LRQ_POLICY) to its folder, or stop at the pairs: --no-train"
        )


def train_settings(train: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a train section is the trainer's."""
    return {name: value for name, value in train.items() if name not in SCHEDULE}


def about(run: str, config: Mapping[str, Any], round_: int | None = None) -> dict[str, str]:
    """Return what the model's card says of the run, and of its round where it has several."""
    judges = [model["model"] for model in config["judge"]["models"]]
    facts = {"run": run, "recipe": config["recipe"], "judge": ", ".join(judges)}
    schedule = schedule_of(config["train"])
    if round_ is not None and schedule and schedule.rounds > 1:
        facts["round"] = f"{round_ + 1} of {schedule.rounds}"
    extra = (config["train"] or {}).get("about") or {}  # the licence of the data, say
    return {name: words for name, words in facts.items() if words} | extra


def run_folder(home: Path, run: str) -> Path:
    """Return the folder of a run's results; its name is checked when the run is made."""
    if not re.fullmatch(r"[\w.-]+", run):
        raise LrqError(f"run {run!r} has no name that can be a folder")
    return home.resolve() / "runs" / run
