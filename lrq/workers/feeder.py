"""The feeder: keeps a bounded number of messages out and notices when some are lost.

It runs as a thread in every aggregator; a lease in the ledger lets one of them work. `lrq enqueue` uses the same
code for its first window.
"""

import logging
import threading
import time

import redis
import sqlalchemy as sa

from lrq.config import Settings
from lrq.domain.errors import LrqError
from lrq.ledger import Ledger, backlog, intakes
from lrq.ledger import runs as runs_
from lrq.ledger.calls import bury_all
from lrq.ledger.engine import FEEDING
from lrq.ledger.processes import SEEN_EVERY, take_lease, tasks_at_once
from lrq.ledger.runs import Run
from lrq.ledger.writer import AWAY
from lrq.queue.celery import is_redis
from lrq.queue.messages import BrokerDown, present, send
from lrq.queue.routes import QUEUES, task_queue
from lrq.workers.frozen import thaw

LEAST = 64  # tasks of a run that are open, whoever lives: the first workers find work, and what ends is aggregated
_BUSY_PAUSE = 0.1  # seconds between looks while there is work
_IDLE_PAUSE = 0.5
_LEASE_SECONDS = 6.0
_RECONCILE_EVERY = 3.0  # seconds
_PATIENCE = 5.0  # seconds for one answer of the broker: a feeder that hangs cannot be stopped
_SETTLED_AFTER = 3.0  # a message younger than this may still be on its way to the broker

log = logging.getLogger(__name__)


def window_of(ledger: Ledger, conn: sa.Connection) -> backlog.Window:
    """What keeps the living processes busy: what they work on at once, and a quarter more on its way to them."""
    at_once = tasks_at_once(ledger, conn)
    sampling = at_once.pop("sampler", 0)
    tasks, items = (max(LEAST, 16 + number * 5 // 4) for number in (at_once.total(), sampling))
    return backlog.Window(tasks=tasks, sampling=items)


def feed(ledger: Ledger, *, window: backlog.Window | None = None) -> int:
    """Send what the windows of all active runs have room for; how many messages. Raises BrokerDown and AWAY.

    A run that cannot be fed, whatever the reason, is paused with it, so that the others go on.
    """
    with ledger.reading() as conn:
        window = window or window_of(ledger, conn)
        active = [run for run in runs_.all_runs(conn) if run.state == "active"]
        hungry = [run for run in active if backlog.is_hungry(conn, run.id, window)]
    return sum(_feed_run(ledger, run, window) for run in hungry)


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
    with ledger.writing() as conn:
        runs_.halt(conn, run.id, state="paused", by="settings", reason=f"{reason}; then `lrq resume`")
    return 0


def _send_work(ledger: Ledger, run: Run, window: backlog.Window) -> int:
    steps = thaw(run.recipe, run.config).steps
    with ledger.writing() as conn:
        ledger.alone(conn, FEEDING)  # `enqueue` may feed beside the leading feeder: one window holds for both
        backlog.reroute(conn, run.id, QUEUES, task_queue)
        backlog.start_items(ledger, conn, run.id, steps, window)
        taken = backlog.take_ready(ledger, conn, run.id, window)
    sent = 0
    try:
        for task in taken:
            send(task.queue, task=task.id, delivery=task.delivery)
            sent += 1
    finally:
        if sent < len(taken):
            with ledger.writing() as conn:
                backlog.put_back(conn, [task.id for task in taken[sent:]])
    return sent


class Reconciler:
    """Finds messages that should be with the broker and are not, twice in a row, and has them sent again."""

    def __init__(self, ledger: Ledger, client: redis.Redis) -> None:
        self._ledger = ledger
        self._client = client
        self._missed: set[int] = set()

    def look(self) -> int:
        """One look; how many tasks are put back. An emptied broker is made good at the second."""
        with self._ledger.reading() as conn:
            expected = backlog.sent_tasks(self._ledger, conn, _SETTLED_AFTER)
        missing = expected - present(self._client) if expected else set()
        lost = missing & self._missed
        self._missed = missing - lost
        if lost:
            log.warning("%d messages are gone from the broker; sending them again", len(lost))
            with self._ledger.writing() as conn:
                backlog.put_back(conn, sorted(lost))
        return len(lost)


class Feeder:
    """The thread of an aggregator process."""

    def __init__(self, settings: Settings, ledger: Ledger, owner: str) -> None:
        self._ledger = ledger
        self._owner = owner
        self._ended = threading.Event()
        self._leading = False
        self._lease_due = self._look_due = 0.0
        self._reconciler = _reconciler(settings, ledger)
        self._thread = threading.Thread(target=self._work, name="feeder", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()

    def _work(self) -> None:
        pause = 0.0
        while not self._ended.wait(pause):
            try:
                pause = self._turn()
            except (BrokerDown, redis.RedisError, *AWAY) as error:
                log.warning("the feeder waits: %s", str(error).splitlines()[0])
                pause = SEEN_EVERY
            except Exception:  # whatever it is: without this thread nothing would move any more
                log.exception("the feeder stumbled and goes on")
                pause = SEEN_EVERY

    def _turn(self) -> float:
        """One look at the backlog; seconds until the next."""
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
        with self._ledger.writing() as conn:
            return take_lease(self._ledger, conn, "feeder", self._owner, _LEASE_SECONDS)

    def _housekeep(self) -> None:
        with self._ledger.writing() as conn:
            bury_all(self._ledger, conn)
            for name in intakes.pause_interrupted(self._ledger, conn):
                log.warning("run %s is paused: %s", name, intakes.advice(name))
        if self._reconciler is not None:
            self._reconciler.look()


def _reconciler(settings: Settings, ledger: Ledger) -> Reconciler | None:
    """None where the broker is no Redis: what it loses is sent again by `lrq resume`."""
    url = settings.broker()
    if not is_redis(url):
        return None
    url = url.replace("redis+socket://", "unix://")
    return Reconciler(ledger, redis.Redis.from_url(url, socket_timeout=_PATIENCE, socket_connect_timeout=_PATIENCE))
