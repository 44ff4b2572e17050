"""The Celery tasks: one for each queue; what arrives is a key, the ledger knows the rest."""

import logging
from contextlib import suppress
from typing import Any

from celery import signals

from lrq.domain.errors import LrqError, RunHalted, Stopping
from lrq.domain.logs import working_on
from lrq.ledger import backlog
from lrq.ledger import runs as runs_
from lrq.ledger.backlog import Task
from lrq.ledger.engine import SETTLING
from lrq.ledger.items import key_of
from lrq.ledger.runs import Run
from lrq.ledger.writer import AWAY
from lrq.queue.celery import app, settings_in_use
from lrq.queue.routes import QUEUES, WORKERS, task_name
from lrq.workers import loop
from lrq.workers.aggregator import aggregate
from lrq.workers.engine import Engine, engine
from lrq.workers.feeder import Feeder
from lrq.workers.judge import judge

log = logging.getLogger(__name__)

_feeder: Feeder | None = None


def work(task: int, delivery: int) -> dict[str, Any] | None:
    """Do one task to its end, or put it back; nothing is raised, so that the message is always settled.

    Returns what was worked on and how it ended: it stands in the log and on Flower's pages.
    """
    held = engine()
    try:
        return _work(held, task)
    except AWAY as away:
        log.warning("task %d goes back: the ledger does not take it: %s", task, str(away).splitlines()[0])
        with suppress(*AWAY):  # or the feeder finds that its message is gone
            _put_back(held, task)
        return None


def _work(held: Engine, task: int) -> dict[str, Any] | None:
    with held.ledger.reading() as conn:
        found = backlog.find_task(conn, task)
        if found is None:
            return None  # a second delivery of what has ended
        run = runs_.run_by_id(conn, found.run)
        key = key_of(conn, found.item)
    with working_on(run=run.name, **({"item": key} if key else {}), step=found.name):
        counts = _try(held, found, run)
    done = {"run": run.name, "item": key, "number": found.item, "step": found.name}
    return done | ({"outcome": "put back or failed"} if counts is None else counts)


def _try(held: Engine, found: Task, run: Run) -> dict[str, int] | None:
    """Do a task, or record why it was not done; returns what it counts, None where it was not done."""
    try:
        return _do(held, found, run)
    except (Stopping, RunHalted) as halt:
        log.info("task %d goes back: %s", found.id, halt or "this process is stopping")
        _put_back(held, found.id)
    except LrqError as error:  # something the user can mend, for this item as for all others of its run
        log.error("%s: %s", found.name, error, extra={"action": "pause"})  # noqa: TRY400
        _put_back(held, found.id)
        _pause(held, found.run, str(error))
    except AWAY:
        raise
    except Exception as error:
        log.exception("task %d, %s of item %d, failed", found.id, found.name, found.item)
        _fail(held, found, run, f"{type(error).__name__} in {found.name}: {error}".splitlines()[0])
    return None


def _do(held: Engine, task: Task, run: Run) -> dict[str, int]:
    loop.check()
    if run.state != "active":
        raise RunHalted(run.reason or f"the run is {run.state}")
    frozen = held.thawed(run)
    if task.name == "aggregate":
        aggregate(held, task, run, frozen)
    elif task.name == "sample":
        from lrq.workers.sampler import sample  # noqa: PLC0415 - only samplers load a policy

        sample(held, task, run, frozen)
    elif task.name.startswith("train."):
        from lrq.workers.trainer import train  # noqa: PLC0415

        train(held, task, run, frozen)
    else:
        return {"responses": judge(held, task, run, frozen)}
    return {}


def _put_back(held: Engine, task: int) -> None:
    with held.ledger.writing() as conn:
        backlog.put_back(conn, [task])


def _pause(held: Engine, run: int, reason: str) -> None:
    with held.ledger.writing() as conn:
        runs_.halt(conn, run, state="paused", by="settings", reason=f"{reason}; then `lrq resume`")


def _fail(held: Engine, task: Task, run: Run, reason: str) -> None:
    schedule = held.thawed(run).schedule
    with held.ledger.writing() as conn:
        held.ledger.alone(conn, SETTLING)  # the ends of steps lock the same tasks after the run
        backlog.fail_task(held.ledger, conn, task, reason)
        backlog.settle_run(held.ledger, conn, task.run, schedule)


for _queue in QUEUES:
    app.task(work, name=task_name(_queue), bind=False, ignore_result=True)


@signals.worker_ready.connect  # type: ignore[untyped-decorator]
def _start_feeder(sender: Any, **_: object) -> None:
    """An aggregator also feeds: whoever consumes its queue does."""
    global _feeder
    consumed = {queue.name for queue in sender.task_consumer.queues}
    if set(WORKERS["aggregator"]) & consumed:
        held = engine()
        _feeder = Feeder(settings_in_use(), held.ledger, held.presence.id)


@signals.worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _stop_feeder(**_: object) -> None:
    global _feeder
    if _feeder is not None:
        _feeder.close()
        _feeder = None
