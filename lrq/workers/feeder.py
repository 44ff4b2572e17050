"""The feeder: keeps a bounded number of messages out and notices when some are lost.

It runs as a thread in every aggregator; a lease in the ledger lets one of them work. `lrq enqueue` uses the same
code for its first window.
"""

import logging
import threading
import time

from lrq.domain.errors import LrqError
from lrq.ledger import Ledger, Transaction, backlog, intakes
from lrq.ledger import runs as runs_
from lrq.ledger.calls import release_dead_calls
from lrq.ledger.processes import SEEN_EVERY, take_lease, tasks_at_once
from lrq.ledger.runs import Run
from lrq.ledger.transaction import FEEDING
from lrq.ledger.writer import AWAY
from lrq.queue.messages import BrokerDown, count_waiting, send
from lrq.queue.routes import QUEUES, task_queue
from lrq.run_config import load_run_config

LEAST = 64  # tasks of a run that are open, whoever lives: the first workers find work, and what ends is aggregated
_BUSY_PAUSE = 0.1  # seconds between looks while there is work
_IDLE_PAUSE = 0.5
_LEASE_SECONDS = 6.0
_RECONCILE_EVERY = 2.0  # seconds; a process elsewhere is dead after 10 of silence, and its tasks are back within 15
_SETTLED_AFTER = 3.0  # a message younger than this may still be on its way to the broker

log = logging.getLogger(__name__)


def window_of(tx: Transaction) -> backlog.Window:
    """Return what keeps the living processes busy: what they work on at once, and a quarter more on its way."""
    at_once = tasks_at_once(tx)
    sampling = at_once.pop("sampler", 0)
    tasks, items = (max(LEAST, 16 + number * 5 // 4) for number in (at_once.total(), sampling))
    return backlog.Window(tasks=tasks, sampling=items)


def feed(ledger: Ledger, *, window: backlog.Window | None = None) -> int:
    """Send what the windows of all active runs have room for; how many messages. Raises BrokerDown and AWAY.

    A run that cannot be fed, whatever the reason, is paused with it, so that the others go on.
    """
    with ledger.read() as tx:
        window = window or window_of(tx)
        active = [run for run in runs_.all_runs(tx) if run.state == "active"]
        waiting = [run for run in active if backlog.has_dispatchable_work(tx, run.id, window)]
    return sum(_feed_run(ledger, run, window) for run in waiting)


def _feed_run(ledger: Ledger, run: Run, window: backlog.Window) -> int:
    try:
        return _send_work(ledger, run, window)
    except (BrokerDown, *AWAY):
        raise  # no run's fault
    except LrqError as error:
        reason = str(error)
    except Exception as error:
        log.exception("run %s cannot be fed", run.name)
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
    with ledger.write() as tx:
        runs_.halt(tx, run.id, state="paused", by="settings", reason=f"{reason}; then `lrq resume`")
    return 0


def _send_work(ledger: Ledger, run: Run, window: backlog.Window) -> int:
    config = load_run_config(run.recipe, run.config)
    config.check_code()
    with ledger.write() as tx:
        tx.alone(FEEDING)  # `enqueue` may feed beside the leading feeder: one window holds for both
        backlog.reroute(tx, run.id, QUEUES, task_queue)
        backlog.start_items(tx, run.id, config.steps, window)
        ready = backlog.take_ready(tx, run.id, window)
    count = 0
    try:
        for task in ready:
            send(task.queue, task=task.id, delivery=task.delivery)
            count += 1
    finally:
        if count < len(ready):
            with ledger.write() as tx:
                backlog.requeue(tx, [task.id for task in ready[count:]])
    return count


class Reconciler:
    """Requeues the tasks whose messages the broker has lost.

    A queue that holds fewer messages than there are tasks sent and not begun has lost some; messages leave it in their
    order, so the oldest are taken for those. A task that is requeued though its message still waits costs nothing: the
    older delivery is dropped.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._missing: set[tuple[int, int]] = set()

    def reconcile_once(self) -> int:
        """Requeue what was missing the last time too, for a message may be on its way; return how many tasks.

        Raises BrokerDown.
        """
        with self._ledger.read() as tx:
            overdue = backlog.waiting_tasks(tx, _SETTLED_AFTER)
        waiting = count_waiting(list(overdue)) if overdue else {}
        missing = {each for queue, tasks in overdue.items() for each in tasks[: max(0, len(tasks) - waiting[queue])]}
        lost = missing & self._missing
        self._missing = missing - lost
        if lost:
            log.warning("%d messages are gone from the broker; sending them again", len(lost))
            with self._ledger.write() as tx:
                backlog.requeue(tx, sorted(id_ for id_, _ in lost))
        return len(lost)


class Feeder:
    """The thread of an aggregator process."""

    def __init__(self, ledger: Ledger, owner: str) -> None:
        self._ledger = ledger
        self._owner = owner
        self._ended = threading.Event()
        self._leading = False
        self._lease_due = self._look_due = 0.0
        self._reconciler = Reconciler(ledger)
        self._thread = threading.Thread(target=self._work, name="feeder", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()

    def _work(self) -> None:
        pause = 0.0
        while not self._ended.wait(pause):
            try:
                pause = self._tick()
            except (BrokerDown, *AWAY) as error:
                log.warning("the feeder waits: %s", str(error).splitlines()[0])
                pause = SEEN_EVERY
            except Exception:  # whatever it is: without this thread nothing would move any more
                log.exception("the feeder failed; it tries again")
                pause = SEEN_EVERY

    def _tick(self) -> float:
        """Look once at the backlog; return the seconds until the next look."""
        now = time.monotonic()
        if now >= self._lease_due:
            self._leading = self._renew()
            self._lease_due = now + _LEASE_SECONDS / 3
        if not self._leading:
            return _IDLE_PAUSE
        if now >= self._look_due:
            self._housekeep()
            self._look_due = now + _RECONCILE_EVERY
        return _BUSY_PAUSE if feed(self._ledger) else _IDLE_PAUSE

    def _renew(self) -> bool:
        with self._ledger.write() as tx:
            return take_lease(tx, "feeder", self._owner, _LEASE_SECONDS)

    def _housekeep(self) -> None:
        with self._ledger.write() as tx:
            release_dead_calls(tx)
            freed = backlog.release_dead_tasks(tx)
            interrupted = intakes.pause_interrupted(tx)
        if freed:
            log.warning("%d tasks of processes that have ended go out again", freed)
        for name in interrupted:
            log.warning("run %s is paused: %s", name, intakes.advice(name))
        self._reconciler.reconcile_once()
