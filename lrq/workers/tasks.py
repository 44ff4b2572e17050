"""The Celery tasks: one for each queue; what arrives is a key, the ledger knows the rest."""

import logging
from typing import Any

from celery import signals

from lrq.domain.errors import LrqError, RunHalted, Stopping
from lrq.domain.logs import working_on
from lrq.ledger import backlog
from lrq.ledger import runs as runs_
from lrq.ledger.backlog import ClaimTask, Task
from lrq.ledger.items import key_of
from lrq.ledger.runs import Run
from lrq.ledger.transaction import SETTLING
from lrq.ledger.writer import AWAY
from lrq.queue.celery import app
from lrq.queue.routes import QUEUES, WORKERS, task_name
from lrq.workers import loop
from lrq.workers.aggregator import aggregate
from lrq.workers.context import WorkerContext, worker_context
from lrq.workers.feeder import Feeder
from lrq.workers.judge import judge

log = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0

_feeder: Feeder | None = None


def work(task: int, delivery: int) -> dict[str, Any] | None:
    """Do one task to its end, or give it back; nothing is raised.

    A message that names work which has ended, or which another delivery has begun, is dropped. Returns what was worked
    on and how it ended, for the log and Flower's pages; None where nothing was.
    """
    worker = worker_context()
    claim = ClaimTask(task=task, delivery=delivery, owner=worker.presence.id)
    try:
        claimed: Task | None = loop.run(worker.writer.write(claim))
        return None if claimed is None else _work(worker, claimed)
    except AWAY as away:
        log.warning("task %d goes back: the ledger does not take it: %s", task, str(away).splitlines()[0])
        _give_back(worker, task, delivery)
        return None


def _work(worker: WorkerContext, task: Task) -> dict[str, Any]:
    with worker.ledger.read() as tx:
        run = runs_.run_by_id(tx, task.run)
        key = key_of(tx, task.item)
    with working_on(run=run.name, **({"item": key} if key else {}), step=task.name):
        counts = _try(worker, task, run)
    done = {"run": run.name, "item": key, "number": task.item, "step": task.name}
    return done | ({"outcome": "given back or failed"} if counts is None else counts)


def _try(worker: WorkerContext, task: Task, run: Run) -> dict[str, int] | None:
    """Do a task, or record why it was not done; return what it counts, None where it was not done."""
    try:
        return _do(worker, task, run)
    except (Stopping, RunHalted) as halt:
        log.info("task %d goes back: %s", task.id, halt or "this process is stopping")
        _give_back(worker, task.id, task.delivery)
    except LrqError as error:  # something the user can mend, for this item as for all others of its run
        log.error("%s: %s", task.name, error, extra={"action": "pause"})  # noqa: TRY400
        _give_back(worker, task.id, task.delivery)
        with worker.ledger.write() as tx:
            runs_.halt(tx, task.run, state="paused", by="settings", reason=f"{error}; then `lrq resume`")
    except AWAY:
        raise
    except Exception as error:
        log.exception("task %d, %s of item %d, failed", task.id, task.name, task.item)
        _fail(worker, task, run, f"{type(error).__name__} in {task.name}: {error}".splitlines()[0])
    return None


def _do(worker: WorkerContext, task: Task, run: Run) -> dict[str, int]:
    loop.check()
    if run.state != "active":
        raise RunHalted(run.reason or f"the run is {run.state}")
    frozen = worker.run_config(run)
    if task.name == "aggregate":
        aggregate(worker, task, run, frozen)
    elif task.name == "sample":
        from lrq.workers.sampler import sample  # noqa: PLC0415 - only samplers load a policy

        sample(worker, task, run, frozen)
    elif task.name.startswith("train."):
        from lrq.workers.trainer import train  # noqa: PLC0415

        train(worker, task, run, frozen)
    else:
        return {"responses": judge(worker, task, run, frozen)}
    return {}


def _give_back(worker: WorkerContext, task: int, delivery: int) -> None:
    """Release a task, for as long as the ledger takes to accept it: what this living process has, no other takes.

    A process that is being stopped tries once; what it leaves is free when it has ended.
    """
    while True:
        try:
            with worker.ledger.write() as tx:
                backlog.release_task(tx, task, delivery, worker.presence.id)
        except AWAY:
            if loop.stopping.wait(_RETRY_SECONDS):
                return
        else:
            return


def _fail(worker: WorkerContext, task: Task, run: Run, reason: str) -> None:
    schedule = worker.run_config(run).schedule
    with worker.ledger.write() as tx:
        tx.alone(SETTLING)  # the ends of steps lock the same tasks after the run
        backlog.fail_task(tx, task, reason)
        backlog.advance_run(tx, task.run, schedule)


for _queue in QUEUES:
    app.task(work, name=task_name(_queue), bind=False, ignore_result=True)


@signals.worker_ready.connect  # type: ignore[untyped-decorator]
def _start_feeder(sender: Any, **_: object) -> None:
    """Start a feeder in an aggregator: whoever consumes its queue feeds."""
    global _feeder
    consumed = {queue.name for queue in sender.task_consumer.queues}
    if set(WORKERS["aggregator"]) & consumed:
        worker = worker_context()
        _feeder = Feeder(worker.ledger, worker.presence.id)


@signals.worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _stop_feeder(**_: object) -> None:
    global _feeder
    if _feeder is not None:
        _feeder.close()
        _feeder = None
